//! How this process asks a model for an agent whose session it keeps: the same way as a request at a port, without the port. So there
//! is one place where calls are admitted, recorded, sent and paid, and the agent's own processes have no key.

use std::fmt;
use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use toka_core::{AgentName, ModelName, Wire};
use toka_wire::Problem;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::batched::Batches;
use crate::call::Answerer;
use crate::candidates::{Candidate, first};
use crate::gateway::Serving;
use crate::port::PortState;
use crate::requests::handle_own;
use crate::{CallLog, Current, Gate, KnownSecrets};

/// Pieces of an answer that wait for who reads it; then its provider waits.
const PIECES: usize = 16;

/// For whom is asked, and how.
#[derive(Debug)]
pub struct Asks {
    /// The agent.
    pub agent: AgentName,
    /// The models that it may ask; empty for all.
    pub declared: Vec<ModelName>,
    /// Whom it asks.
    pub providers: Arc<Current>,
    /// What must not leave.
    pub secrets: Arc<KnownSecrets>,
    /// Where its calls are recorded.
    pub log: Arc<dyn CallLog>,
    /// Who decides whether they may be made.
    pub gate: Arc<dyn Gate>,
}

/// Asks models for one agent. When it is dropped, what is in flight is cut.
pub struct Asker {
    state: Arc<PortState>,
    requests: mpsc::UnboundedSender<Asked>,
    _service: Serving,
}

/// A request, and where its answer goes.
pub(crate) struct Asked {
    request: Request<Full<Bytes>>,
    answer: oneshot::Sender<Answered>,
}

/// The answer to a request, whose body comes piece by piece.
#[derive(Debug)]
pub struct Answered {
    /// The status.
    pub status: StatusCode,
    /// Whether the body is a stream of events.
    pub is_stream: bool,
    /// Who has answered, and the number of the call in the journal; `None` when nobody has.
    pub by: Option<(ModelName, u64)>,
    pieces: mpsc::Receiver<Result<Bytes, String>>,
}

impl Answered {
    /// The next piece of the body; `None` at its end. Cancel-safe.
    ///
    /// # Errors
    /// Why it broke off, in words.
    pub async fn next(&mut self) -> Option<Result<Bytes, String>> {
        self.pieces.recv().await
    }
}

impl Asker {
    pub(crate) fn new(
        state: Arc<PortState>,
        requests: mpsc::UnboundedSender<Asked>,
        service: Serving,
    ) -> Self {
        Self { state, requests, _service: service }
    }

    /// The language in which its first model is asked, and that model.
    ///
    /// # Errors
    /// When none can be asked, in words.
    pub fn first(&self) -> Result<(Wire, ModelName), String> {
        let found = first(&self.state.declared, &self.state.providers.get());
        found.map(|(wire, candidate)| (wire, candidate.name())).map_err(|problem: Problem| problem.message)
    }

    /// A text without the secrets that Toka knows, and without the keys of providers.
    pub fn masked(&self, text: String) -> String {
        let providers = self.state.providers.get();
        self.state.alarm.secrets().masked(text, &providers.keys())
    }

    /// A line without secrets, also without a line of one that has several.
    pub fn masked_line(&self, line: String) -> String {
        let providers = self.state.providers.get();
        self.state.alarm.secrets().masked_line(line, &providers.keys())
    }

    /// The next piece of a text that comes piece by piece, without secrets; what may be the begin of one stays in `held`.
    pub fn masked_piece(&self, held: &mut String, piece: &str) -> String {
        let providers = self.state.providers.get();
        self.state.alarm.secrets().masked_piece(held, piece, &providers.keys())
    }

    /// The models that are tried for a request in this language.
    pub fn candidates(&self, wire: Wire) -> Vec<ModelName> {
        let providers = self.state.providers.get();
        let found = crate::candidates::candidates("default", wire, &self.state.declared, &providers);
        found.iter().flatten().map(Candidate::name).collect()
    }

    /// Asks. The number of tries, the waits between them and the limits of what comes back are those of every agent.
    ///
    /// # Errors
    /// When the gateway has ended, since another process takes the place of this one.
    pub async fn ask(&self, path: &str, body: Vec<u8>) -> Result<Answered, String> {
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = path.parse().map_err(|_| format!("{path:?} is no path"))?;
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let (answer, answered) = oneshot::channel();
        let ended = "the gateway has ended: another daemon goes on";
        self.requests.send(Asked { request, answer }).map_err(|_| ended.to_owned())?;
        answered.await.map_err(|_| ended.to_owned())
    }
}

impl fmt::Debug for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asker").finish_non_exhaustive()
    }
}

/// Makes the calls of one asker, until it is dropped.
pub(crate) async fn serve(mut queue: mpsc::UnboundedReceiver<Asked>, state: Arc<PortState>) {
    let batches = Arc::new(Batches::new(None));
    let mut calls = JoinSet::new();
    loop {
        tokio::select! {
            asked = queue.recv() => match asked {
                Some(asked) => drop(calls.spawn(answer(asked, Arc::clone(&state), Arc::clone(&batches)))),
                None => return,
            },
            Some(_) = calls.join_next() => {}
        }
    }
}

/// Makes one call. Whoever asked may go away before or while it is answered: then it is cut, and its receipt says so.
async fn answer(asked: Asked, state: Arc<PortState>, batches: Arc<Batches>) {
    let Asked { request, answer: mut waits } = asked;
    let response = tokio::select! {
        response = handle_own(state, &batches, request) => response,
        () = waits.closed() => return,
    };
    let (head, mut body) = response.into_parts();
    let kind = head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let (sender, pieces) = mpsc::channel(PIECES);
    let by = head.extensions.get::<Answerer>().map(|by| (by.model.clone(), by.call));
    let is_stream = kind.starts_with("text/event-stream");
    if waits.send(Answered { status: head.status, is_stream, by, pieces }).is_err() {
        return;
    }
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            () = sender.closed() => return,
        };
        let piece = match frame {
            None => return,
            Some(Ok(frame)) => match frame.into_data() {
                Ok(bytes) => Ok(bytes),
                Err(_) => continue,
            },
            Some(Err(error)) => Err(error.to_string()),
        };
        if sender.send(piece).await.is_err() {
            return;
        }
    }
}
