//! A stream that several read: each has its own place in what has come; whoever is ahead reads on, and whoever is behind is waited for before
//! more than a bound is kept.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use hyper::body::{Body, Bytes, Frame};

use crate::body::BodyError;
use crate::pipe::Pipe;

/// Bytes of a stream that are kept for requests that come later: beyond them, a request is a call of its own.
const FOR_LATER: usize = 32 * 1024;
/// Bytes of a stream by which one reader may be ahead of another.
const AHEAD: usize = 64 * 1024;
/// Readers of one stream.
const READERS: usize = 64;

/// A stream that several read.
pub(crate) struct Stream {
    state: Mutex<StreamState>,
    /// Everybody who waits, woken together: any of them can read on.
    waiting: Arc<Waiting>,
    /// As long as it is there, others can join.
    _flight: Arc<dyn Send + Sync>,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").finish_non_exhaustive()
    }
}

struct StreamState {
    pipe: Box<Pipe>,
    /// What has come and is kept, and the number of the first of it.
    kept: VecDeque<Bytes>,
    first: u64,
    bytes: usize,
    /// Whether all that has come is kept, for whoever joins.
    is_open: bool,
    has_ended: bool,
    /// The next frame of each reader.
    readers: BTreeMap<u64, u64>,
    last_reader: u64,
}

#[derive(Default)]
struct Waiting(Mutex<BTreeMap<u64, Waker>>);

impl Waiting {
    fn map(&self) -> MutexGuard<'_, BTreeMap<u64, Waker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {
        let all = std::mem::take(&mut *self.map());
        all.into_values().for_each(Waker::wake);
    }
}

impl Stream {
    pub(crate) fn new(pipe: Box<Pipe>, flight: Arc<dyn Send + Sync>) -> Self {
        let state = StreamState {
            pipe,
            kept: VecDeque::new(),
            first: 0,
            bytes: 0,
            is_open: true,
            has_ended: false,
            readers: BTreeMap::new(),
            last_reader: 0,
        };
        Self { state: Mutex::new(state), waiting: Arc::default(), _flight: flight }
    }

    fn state(&self) -> MutexGuard<'_, StreamState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll(&self, reader: u64, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut state = self.state();
        let at = state.readers.get(&reader).copied().unwrap_or(state.first);
        let next = usize::try_from(at - state.first).unwrap_or(usize::MAX);
        if let Some(frame) = state.kept.get(next).cloned() {
            state.readers.insert(reader, at + 1);
            if state.forget() {
                Arc::clone(&self.waiting).wake();
            }
            return Poll::Ready(Some(frame));
        }
        if state.has_ended {
            return Poll::Ready(None);
        }
        // Before anything is looked at, so that no change is missed.
        self.waiting.map().insert(reader, cx.waker().clone());
        if state.bytes >= AHEAD {
            return Poll::Pending;
        }
        let waker = Waker::from(Arc::clone(&self.waiting));
        match Pin::new(&mut *state.pipe).poll_frame(&mut Context::from_waker(&waker)) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.into_data().unwrap_or_default();
                state.keep(&bytes);
                state.readers.insert(reader, at + 1);
                state.forget();
                self.wake_others(reader);
                Poll::Ready(Some(bytes))
            }
            Poll::Ready(Some(Err(_)) | None) => {
                state.has_ended = true;
                self.wake_others(reader);
                Poll::Ready(None)
            }
        }
    }

    fn wake_others(&self, reader: u64) {
        self.waiting.map().remove(&reader);
        Arc::clone(&self.waiting).wake();
    }
}

impl StreamState {
    /// Keeps a copy: what came from the network may be a small part of a large allocation.
    fn keep(&mut self, bytes: &Bytes) {
        self.bytes += bytes.len();
        self.kept.push_back(Bytes::copy_from_slice(bytes));
        self.is_open &= self.bytes <= FOR_LATER;
    }

    /// Forgets what all have read, when nobody can join any more; whether there was something.
    fn forget(&mut self) -> bool {
        if self.is_open {
            return false;
        }
        let least = self.readers.values().copied().min().unwrap_or(u64::MAX);
        let mut has_forgotten = false;
        while self.first < least {
            let Some(frame) = self.kept.pop_front() else { break };
            self.bytes -= frame.len();
            self.first += 1;
            has_forgotten = true;
        }
        has_forgotten
    }
}

/// One of those who read a stream.
pub(crate) struct Reader {
    stream: Arc<Stream>,
    number: u64,
}

impl Reader {
    /// One that begins with the first frame; `None` when that is not kept any more.
    pub(crate) fn of(stream: Arc<Stream>) -> Option<Self> {
        let number = {
            let mut state = stream.state();
            if !state.is_open || state.readers.len() >= READERS {
                return None;
            }
            state.last_reader += 1;
            let number = state.last_reader;
            state.readers.insert(number, 0);
            number
        };
        Some(Self { stream, number })
    }
}

impl Body for Reader {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.stream.poll(self.number, cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.stream.state();
        state.readers.remove(&self.number);
        state.forget();
        drop(state);
        // Others may have waited for it.
        self.stream.wake_others(self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::body::Answer;

    /// A stream of so many frames, each of 100 KiB.
    fn stream(frames: usize) -> Arc<Stream> {
        let frames: Vec<Bytes> = (0..frames)
            .map(|at| {
                Bytes::from(format!("data: {{\"number\":{at},\"x\":\"{}\"}}\n\n", "x".repeat(100 * 1024)))
            })
            .collect();
        let answer = Answer::Scripted(Box::pin(Frames(frames.into())));
        let pipe = Pipe::new(answer, toka_core::Wire::OpenAiChat, false, Duration::from_secs(60));
        Arc::new(Stream::new(Box::new(pipe), Arc::new(())))
    }

    struct Frames(VecDeque<Bytes>);

    impl Body for Frames {
        type Data = Bytes;
        type Error = BodyError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            Poll::Ready(self.0.pop_front().map(|bytes| Ok(Frame::data(bytes))))
        }
    }

    /// All that a reader gets without waiting, and whether there is more.
    fn read(reader: &mut Reader) -> (Vec<u8>, bool) {
        let (mut all, mut cx) = (Vec::new(), Context::from_waker(Waker::noop()));
        loop {
            match Pin::new(&mut *reader).poll_frame(&mut cx) {
                Poll::Ready(Some(Ok(frame))) => all.extend_from_slice(&frame.into_data().expect("data")),
                Poll::Ready(_) => return (all, false),
                Poll::Pending => return (all, true),
            }
        }
    }

    #[tokio::test]
    async fn who_is_slow_holds_the_others_up_and_not_memory() {
        let stream = stream(50);
        let mut quick = Reader::of(Arc::clone(&stream)).expect("a place");
        let mut slow = Reader::of(Arc::clone(&stream)).expect("a place");
        let (mut first, waits) = read(&mut quick);
        assert!(waits && (AHEAD..AHEAD + 200 * 1024).contains(&first.len()), "{}", first.len());
        assert!(stream.state().bytes < AHEAD + 200 * 1024);
        assert!(Reader::of(Arc::clone(&stream)).is_none(), "nobody joins what has begun to go");
        let (mut second, mut is_open) = (Vec::new(), true);
        while is_open {
            let (more, waits) = read(&mut slow);
            second.extend(more);
            is_open = waits;
            first.extend(read(&mut quick).0);
        }
        assert!(first == second && first.len() > 50 * 100 * 1024);
        assert_eq!(stream.state().bytes, 0, "all of it was read by all");
    }

    #[tokio::test]
    async fn who_goes_holds_nobody_up() {
        let stream = stream(50);
        let mut quick = Reader::of(Arc::clone(&stream)).expect("a place");
        let slow = Reader::of(Arc::clone(&stream)).expect("a place");
        assert!(read(&mut quick).1);
        drop(slow);
        assert!(!read(&mut quick).1);
    }
}
