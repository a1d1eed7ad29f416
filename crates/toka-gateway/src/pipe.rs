//! A stream on its way from a provider to an agent: byte for byte, counted as it passes, and pulled by who reads it, so that nothing
//! gathers here.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame};
use toka_core::{CallOutcome, Wire};
use toka_wire::sse::Splitter;
use toka_wire::{Meter, Problem, ProblemKind, Progress};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};

use crate::body::{Answer, BodyError};
use crate::receipt::Receipt;
use crate::recorder::{Asked, MOST as MOST_RECORDED, Recorder};

/// Whether there is more to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Ended,
}

/// Bytes that may gather before the first content: nothing but frames about the answer come before it.
const HELD: usize = 4 * 1024 * 1024;

/// A stream that is recorded.
struct Recording {
    recorder: Arc<Recorder>,
    request: Asked,
    answer: Vec<u8>,
}

/// One stream.
pub(crate) struct Pipe {
    answer: Answer,
    splitter: Splitter,
    meter: Meter,
    wire: Wire,
    /// Frames go on one by one, since one of them is to be left out.
    withholds: bool,
    ready: VecDeque<Bytes>,
    held: usize,
    state: State,
    /// Longest time without content; pings are none.
    silence: Duration,
    deadline: Pin<Box<Sleep>>,
    /// Whether bytes have gone on that end in the middle of a frame.
    is_torn: bool,
    receipt: Option<Receipt>,
    recording: Option<Recording>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Pipe {
    pub(crate) fn new(answer: Answer, wire: Wire, adds_usage: bool, silence: Duration) -> Self {
        Self {
            answer,
            splitter: Splitter::default(),
            meter: Meter::new(wire, adds_usage),
            wire,
            withholds: adds_usage,
            ready: VecDeque::new(),
            held: 0,
            state: State::Open,
            silence,
            deadline: Box::pin(tokio::time::sleep(silence)),
            is_torn: false,
            receipt: None,
            recording: None,
            _place: None,
        }
    }

    /// Has the whole of it recorded, as the answer to this request.
    pub(crate) fn record(&mut self, recorder: Arc<Recorder>, request: Asked) {
        self.recording = Some(Recording { recorder, request, answer: Vec::new() });
    }

    /// Reads until there is content, and holds back what comes before it: until then another provider can be asked.
    ///
    /// # Errors
    /// When it ends, fails or falls silent before that.
    pub(crate) async fn first_content(&mut self) -> Result<(), String> {
        loop {
            let progress = self.meter.progress();
            if let Some(error) = &progress.error {
                return Err(error.clone());
            }
            if progress.has_content || progress.is_whole {
                return Ok(());
            }
            if self.held > HELD {
                return Err(format!("no content in the first {} MiB", HELD / 1024 / 1024));
            }
            match poll_fn(|cx| self.poll_more(cx)).await {
                Ok(true) => {}
                Ok(false) => return Err("the answer ended before it began".to_owned()),
                Err(why) => return Err(why),
            }
        }
    }

    /// From here on it is the agent's: what becomes of it is told in the receipt.
    pub(crate) fn entrust(&mut self, receipt: Receipt, place: Option<OwnedSemaphorePermit>) {
        (self.receipt, self._place) = (Some(receipt), place);
    }

    /// Whether there was more. An error is the reason for which it broke off.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, String>> {
        match Pin::new(&mut self.answer).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(bytes) => Poll::Ready(self.feed(bytes).map(|()| true)),
                Err(_) => Poll::Ready(Ok(true)),
            },
            Poll::Ready(Some(Err(error))) => Poll::Ready(Err(error.0)),
            Poll::Ready(None) => Poll::Ready(Ok(false)),
            Poll::Pending => match self.deadline.as_mut().poll(cx) {
                Poll::Ready(()) => {
                    let seconds = self.silence.as_secs_f64();
                    Poll::Ready(Err(format!("no content for {seconds} s")))
                }
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn feed(&mut self, bytes: Bytes) -> Result<(), String> {
        if let Some(recording) = &mut self.recording {
            recording.answer.extend_from_slice(&bytes);
            // Half an answer is none.
            if recording.answer.len() > MOST_RECORDED {
                self.recording = None;
            }
        }
        let mut has_content = false;
        let mut whole: Vec<u8> = Vec::new();
        let (meter, withholds) = (&mut self.meter, self.withholds);
        let fed = self.splitter.feed(&bytes, |frame| {
            let kind = meter.observe(frame);
            has_content |= matches!(kind, toka_wire::Frame::Content | toka_wire::Frame::End);
            if withholds && kind != toka_wire::Frame::Withheld {
                whole.extend_from_slice(frame);
            }
        });
        if has_content {
            self.deadline.as_mut().reset(Instant::now() + self.silence);
            if let Some(receipt) = &mut self.receipt {
                receipt.has_content();
            }
        }
        let going = if withholds { Bytes::from(whole) } else { bytes };
        self.is_torn = !withholds && !self.splitter.rest().is_empty();
        if !going.is_empty() {
            self.held += going.len();
            self.ready.push_back(going);
        }
        fed.map_err(|error| error.to_string())
    }

    /// It is over: the last bytes, the receipt, and for one that broke off an error in the words of its API.
    fn end(&mut self, why: Option<String>) {
        self.state = State::Ended;
        if self.withholds && !self.splitter.rest().is_empty() {
            self.is_torn = true;
            self.ready.push_back(Bytes::copy_from_slice(self.splitter.rest()));
        }
        let progress = self.meter.progress().clone();
        let outcome = match (&progress.error, progress.is_whole, why) {
            (Some(reason), ..) => CallOutcome::Failed { status: Some(200), reason: reason.clone() },
            (None, true, _) => CallOutcome::Completed,
            (None, false, why) => {
                let reason = why.unwrap_or_else(|| "it ended without its last event".to_owned());
                let problem = Problem::new(ProblemKind::Upstream, format!("the answer broke off: {reason}"));
                // What is left of a frame must not swallow the error.
                let torn = if self.is_torn { "\n\n" } else { "" };
                self.ready.push_back(Bytes::from(format!("{torn}{}", problem.event(self.wire))));
                CallOutcome::Cut { reason }
            }
        };
        self.close(outcome, &progress);
    }

    fn close(&mut self, outcome: CallOutcome, progress: &Progress) {
        let Some(receipt) = self.receipt.take() else { return };
        if let (Some(recording), CallOutcome::Completed) = (self.recording.take(), &outcome) {
            let Recording { recorder, request, answer } = recording;
            recorder.add(request, true, &answer, &progress.tokens);
        }
        receipt.close_stream(outcome, progress);
    }
}

impl Body for Pipe {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let pipe = self.get_mut();
        loop {
            if let Some(bytes) = pipe.ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            if pipe.state == State::Ended {
                return Poll::Ready(None);
            }
            match pipe.poll_more(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => pipe.end(None),
                Poll::Ready(Err(why)) => pipe.end(Some(why)),
            }
        }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        // Many clients go as soon as they have the last event.
        let progress = self.meter.progress().clone();
        let outcome = match (progress.is_whole, &progress.error) {
            (_, Some(reason)) => CallOutcome::Failed { status: Some(200), reason: reason.clone() },
            (true, None) => CallOutcome::Completed,
            (false, None) => CallOutcome::Cancelled,
        };
        self.close(outcome, &progress);
    }
}
