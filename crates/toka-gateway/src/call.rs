//! One request of an agent that goes to models: admitted, recorded, sent to one after the other, and its receipt.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use sha2::{Digest as _, Sha256};
use toka_core::{CallOutcome, Cost, EventKind, Kept, ModelName, Money, Price, Tokens, Wire};
use toka_http::HttpError;
use toka_wire::{Endpoint, Problem, ProblemKind, Prompt, Relation, RequestFacts, Route, answer};
use tokio::sync::OwnedSemaphorePermit;

use crate::body::Answer;
use crate::candidates::Candidate;
use crate::cooldown::{Cause, Cooldowns, back_off, draw, retry_after};
use crate::gate::most;
use crate::log::{RECORDS_WITHIN, REFUSED_FOR, record_beside};
use crate::outgoing::Outgoing;
use crate::pipe::Pipe;
use crate::port::PortState;
use crate::receipt::Receipt;
use crate::recorder::Asked as RecordedRequest;
use crate::{Providers, Transport, headers, scripted};

/// Most bytes of an answer that is no stream.
const MOST_ANSWERED: usize = 64 * 1024 * 1024;
/// Requests that are sent for one of an agent, over all candidates.
const TRIES: u32 = 3;
/// The longest wait before another try; beyond it the client is told to come back.
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// A request that was read.
pub(crate) struct Asked {
    pub(crate) port: Arc<PortState>,
    providers: Arc<Providers>,
    pub(crate) route: Route,
    pub(crate) head: Parts,
    pub(crate) body: Bytes,
    pub(crate) facts: RequestFacts,
    /// What its body takes of the room that the agent has for bodies.
    _room: Option<OwnedSemaphorePermit>,
}

/// Who has given an answer: beside the answer, for whoever asks from this process.
#[derive(Debug, Clone)]
pub(crate) struct Answerer {
    pub(crate) model: ModelName,
    pub(crate) call: u64,
}

/// Whether a call has begun.
pub(crate) enum Begun {
    /// Its intent is durable.
    Goes(Receipt),
    /// It was refused; the agent gets this.
    Refused(Response<Outgoing>),
}

/// A candidate of one request, and what became of it so far.
struct Turn {
    candidate: Candidate,
    failures: u32,
    /// When it may be asked again.
    not_before: Option<Instant>,
}

impl Turn {
    fn of(candidate: &Candidate) -> Self {
        Self { candidate: candidate.clone(), failures: 0, not_before: None }
    }

    /// It failed for a reason that is about this request alone: others are asked at once, it is left alone for a while.
    fn failed(&mut self, now: Instant) {
        self.not_before = Some(now + back_off(self.failures, draw()));
        self.failures += 1;
    }

    /// How long it is not to be asked.
    fn left(&self, cooldowns: &Cooldowns, now: Instant) -> Duration {
        let rests = cooldowns.left(&self.candidate.provider.name, &self.candidate.model, now);
        let own = self.not_before.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        rests.map_or(own, |(left, _)| left.max(own))
    }
}

/// What became of one try.
enum Tried {
    /// The agent gets it.
    Taken(Response<Outgoing>),
    /// Another candidate may do better.
    Failed(Box<Failure>, Receipt),
}

/// Why a try failed.
struct Failure {
    /// The HTTP status, where there was one.
    status: Option<u16>,
    reason: String,
    /// How long the provider asks to wait.
    wait: Option<Duration>,
    /// What the provider said, to be passed on if nobody does better.
    said: Option<Response<Bytes>>,
    /// Whether the same request would fail again.
    is_lasting: bool,
    /// Why nobody is to be asked for a while, if that is so.
    cause: Option<Cause>,
    /// Whether the provider may have worked for it, and nobody knows how much.
    is_doubtful: bool,
}

impl Failure {
    /// One of which the provider knows nothing, or tells nothing.
    fn of(reason: String) -> Self {
        Self {
            status: None,
            reason,
            wait: None,
            said: None,
            is_lasting: false,
            cause: None,
            is_doubtful: false,
        }
    }

    /// One of a request that was sent.
    fn doubtful(reason: String) -> Self {
        Self { is_doubtful: true, ..Self::of(reason) }
    }
}

impl Asked {
    /// A request that was read; `room` is what its body takes of that which the agent has for bodies.
    pub(crate) fn new(
        port: &Arc<PortState>,
        providers: Arc<Providers>,
        route: &Route,
        (head, body): (Parts, Bytes),
        facts: RequestFacts,
        room: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self { port: Arc::clone(port), providers, route: route.clone(), head, body, facts, _room: room }
    }

    /// Passes on what costs nothing.
    pub(crate) async fn without_meter(&self, candidate: &Candidate) -> Result<Response<Outgoing>, Problem> {
        let response = self.send(candidate).await.map_err(|failure| {
            Problem::new(ProblemKind::Upstream, format!("{}: {}", candidate.provider.name, failure.reason))
        })?;
        let whole = self.collect(response, candidate).await.map_err(|reason| {
            Problem::new(ProblemKind::Upstream, format!("{}: {reason}", candidate.provider.name))
        })?;
        Ok(whole.map(|bytes| Outgoing::Whole(Full::new(bytes))))
    }

    pub(crate) async fn with_meter(
        &self,
        candidates: &[Candidate],
        call: u64,
    ) -> Result<Response<Outgoing>, Problem> {
        match self.begin(candidates, call).await? {
            Begun::Goes(receipt) => Ok(self.go_on(candidates, receipt).await),
            Begun::Refused(response) => Ok(response),
        }
    }

    /// Has a call admitted, and its intent recorded.
    ///
    /// # Errors
    /// When the budget has no room for it.
    pub(crate) async fn begin(&self, candidates: &[Candidate], call: u64) -> Result<Begun, Problem> {
        let hash = Sha256::digest(&self.body).iter().map(|byte| format!("{byte:02x}")).collect();
        let reserved = most(self.route.endpoint, &self.facts, self.body.len(), candidates, &self.providers);
        // Nothing is awaited between this and the receipt, which gives back what is not used.
        if let Err(reason) = self.port.gate.admit(call, reserved).await {
            return Err(Problem::new(ProblemKind::Budget, reason));
        }
        let intent = EventKind::ModelAsked {
            call,
            asked: self.facts.model.clone(),
            model: candidates[0].name(),
            stream: self.facts.stream,
            bytes: self.body.len() as u64,
            hash,
            reserved,
        };
        let receipt = Receipt {
            log: Arc::clone(&self.port.log),
            providers: Arc::clone(&self.providers),
            end: Arc::clone(&self.port.end),
            call,
            begun: Instant::now(),
            first: None,
            provider: candidates[0].provider.name.clone(),
            model: candidates[0].model.clone(),
            tries: 0,
            failed_tries: Vec::new(),
            request_bytes: self.body.len() as u64,
            batch: None,
            is_doubtful: false,
            is_open: true,
        };
        // The receipt is there before: whoever goes away meanwhile leaves no intent without an end.
        let durable = tokio::time::timeout(RECORDS_WITHIN, self.port.log.record(intent)).await;
        if !matches!(durable, Ok(Kept::OnDisk)) {
            // Each refusal is in memory until it can be written: a client that asks again at once would fill that.
            tokio::time::sleep(REFUSED_FOR).await;
            let reason =
                "the journal cannot be written, so nothing was sent: the disk may be full (`toka health`)";
            receipt.close(
                CallOutcome::Refused { reason: reason.to_owned() },
                Tokens::default(),
                Cost::Nothing,
            );
            let problem = Problem::new(ProblemKind::Upstream, reason);
            return Ok(Begun::Refused(of_problem(&problem, self.route.endpoint.wire(), None)));
        }
        self.lint(call, &candidates[0]);
        Ok(Begun::Goes(receipt))
    }

    /// Asks one candidate after the other.
    pub(crate) async fn go_on(&self, candidates: &[Candidate], mut receipt: Receipt) -> Response<Outgoing> {
        let call = receipt.call;
        let mut turns: Vec<Turn> = candidates.iter().map(Turn::of).collect();
        let mut last: Option<Box<Failure>> = None;
        while receipt.tries < TRIES {
            let Some(at) = self.next(&turns, receipt.tries).await else { break };
            let candidate = &turns[at].candidate;
            match self.attempt(candidate, receipt).await {
                Tried::Taken(mut response) => {
                    self.providers.cooldowns().answered(&candidate.provider.name, &candidate.model);
                    response.extensions_mut().insert(Answerer { model: candidate.name(), call });
                    return response;
                }
                Tried::Failed(failure, back) => {
                    receipt = back;
                    receipt.is_doubtful |= failure.is_doubtful;
                    let status = failure.status.map_or_else(String::new, |status| format!("{status} "));
                    let of = format!("{}: {status}{}", candidate.name(), failure.reason);
                    receipt.failed_tries.push(of);
                    if failure.is_lasting && turns.len() > 1 {
                        turns.remove(at);
                    } else if failure.is_lasting {
                        last = Some(failure);
                        break;
                    } else if failure.cause.is_none() {
                        turns[at].failed(Instant::now());
                    }
                    last = Some(failure);
                }
            }
        }
        self.give_up(last, receipt, &turns)
    }

    /// Tells when a request breaks what its provider has kept of its conversation.
    fn lint(&self, call: u64, candidate: &Candidate) {
        let Some(prompt) = Prompt::read(self.route.endpoint, &candidate.model, &self.body) else { return };
        let Relation::Breaks { place, tokens } = self.port.compare(prompt) else { return };
        let more = |price: Price| {
            let full = price.of(&Tokens { input: Some(tokens), ..Tokens::default() })?;
            let kept = price.of(&Tokens { cached_read: Some(tokens), ..Tokens::default() })?;
            Some(Money(full.0.saturating_sub(kept.0)))
        };
        let price = self.providers.price_of(&candidate.provider.name, &candidate.model);
        let nano_usd = price.filter(|price| price.cached_read.is_some()).and_then(more);
        record_beside(&*self.port.log, EventKind::CacheBroken { call, place, tokens, nano_usd });
    }

    /// The place of the candidate of the next try: one after the other, those that rest passed over; when all rest, the one that does so for the
    /// shortest time, if that is short.
    async fn next(&self, turns: &[Turn], tried: u32) -> Option<usize> {
        let now = Instant::now();
        let from = tried as usize % turns.len();
        let order = (from..turns.len()).chain(0..from);
        let (wait, at) = {
            let cooldowns = self.providers.cooldowns();
            order.map(|at| (turns[at].left(&cooldowns, now), at)).min_by_key(|(left, _)| *left)?
        };
        if wait > LONGEST_WAIT {
            return None;
        }
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        Some(at)
    }

    async fn attempt(&self, candidate: &Candidate, mut receipt: Receipt) -> Tried {
        let waits =
            tokio::time::timeout(candidate.provider.silence, candidate.provider.places().acquire_owned());
        let Ok(place) = waits.await.map(Result::ok) else {
            let most = candidate.provider.most.unwrap_or_default();
            let reason = format!("it has {most} calls at one time, and none of them ended in time");
            // Whoever has waited so long does not wait once more.
            return Tried::Failed(Box::new(Failure { is_lasting: true, ..Failure::of(reason) }), receipt);
        };
        receipt.tries(candidate);
        let response = match self.send(candidate).await {
            Ok(response) => response,
            Err(failure) => return Tried::Failed(self.note(candidate, failure), receipt),
        };
        let is_stream = self.facts.stream && is_event_stream(&response);
        if response.status() == StatusCode::OK && is_stream {
            return self.stream(response, candidate, receipt, place).await;
        }
        let whole = match self.collect(response, candidate).await {
            Ok(whole) => whole,
            Err(reason) => {
                return Tried::Failed(self.note(candidate, Failure::doubtful(reason)), receipt);
            }
        };
        let status = whole.status();
        if !status.is_success() {
            let failure = refusal(whole);
            return Tried::Failed(self.note(candidate, failure), receipt);
        }
        let wire = self.route.endpoint.wire();
        if let Some(tokens) = close_whole(receipt, wire, status.as_u16(), whole.body()) {
            self.record(whole.body(), &tokens);
        }
        Tried::Taken(whole.map(|bytes| Outgoing::Whole(Full::new(bytes))))
    }

    /// Has an answer recorded, if somebody wants that.
    pub(crate) fn record(&self, body: &Bytes, tokens: &Tokens) {
        if let Some(recorder) = &self.port.recorder {
            let asked = RecordedRequest::of(self.route.endpoint.wire(), &self.body);
            recorder.add(asked, false, body, tokens);
        }
    }

    async fn stream(
        &self,
        response: Response<Answer>,
        candidate: &Candidate,
        mut receipt: Receipt,
        place: Option<OwnedSemaphorePermit>,
    ) -> Tried {
        let (head, body) = response.into_parts();
        let wire = self.route.endpoint.wire();
        let mut pipe = Box::new(Pipe::new(body, wire, self.facts.adds_usage(), candidate.provider.silence));
        if let Some(recorder) = &self.port.recorder {
            pipe.record(Arc::clone(recorder), RecordedRequest::of(wire, &self.body));
        }
        if let Err(reason) = pipe.first_content().await {
            let failure = Failure { status: Some(200), ..Failure::doubtful(reason) };
            return Tried::Failed(self.note(candidate, failure), receipt);
        }
        receipt.has_content();
        pipe.entrust(receipt, place);
        let mut taken = Response::new(Outgoing::Stream(pipe));
        *taken.status_mut() = head.status;
        *taken.headers_mut() = headers::of_answer(&head.headers);
        Tried::Taken(taken)
    }

    /// Has a failure remembered where it means that nobody is to be asked for a while.
    fn note(&self, candidate: &Candidate, failure: Failure) -> Box<Failure> {
        if let Some(cause) = failure.cause {
            let (provider, model) = (&candidate.provider.name, &candidate.model);
            let mut cooldowns = self.providers.cooldowns();
            cooldowns.refused(provider, model, cause, &failure.reason, draw(), Instant::now());
        }
        Box::new(failure)
    }

    /// What the agent gets when no candidate has answered: the last refusal as it came, or why there is none.
    fn give_up(
        &self,
        last: Option<Box<Failure>>,
        mut receipt: Receipt,
        turns: &[Turn],
    ) -> Response<Outgoing> {
        let wire = self.route.endpoint.wire();
        let Some(failure) = last else {
            let (left, reason) = self.shortest_rest(turns);
            let message = format!(
                "every model of this request rests, the first for {} s more: {reason}",
                left.as_secs_f64().ceil()
            );
            let outcome = CallOutcome::Refused { reason: message.clone() };
            receipt.close(outcome, Tokens::default(), Cost::Nothing);
            return of_problem(&Problem::new(ProblemKind::Busy, message), wire, Some(left));
        };
        let Failure { status, reason, wait, said, .. } = *failure;
        // The last one is the outcome.
        receipt.failed_tries.pop();
        let name = format!("{}/{}", receipt.provider, receipt.model);
        let cost = if receipt.is_doubtful { Cost::Unknown } else { Cost::Nothing };
        receipt.close(CallOutcome::Failed { status, reason: reason.clone() }, Tokens::default(), cost);
        match said {
            Some(said) => said.map(|bytes| Outgoing::Whole(Full::new(bytes))),
            None => {
                let problem = Problem::new(ProblemKind::Upstream, format!("{name} gave no answer: {reason}"));
                of_problem(&problem, wire, wait)
            }
        }
    }

    fn shortest_rest(&self, turns: &[Turn]) -> (Duration, String) {
        let cooldowns = self.providers.cooldowns();
        let now = Instant::now();
        let rests = turns.iter().filter_map(|Turn { candidate, .. }| {
            cooldowns
                .left(&candidate.provider.name, &candidate.model, now)
                .map(|(left, why)| (left, why.to_owned()))
        });
        rests.min_by_key(|(left, _)| *left).unwrap_or_default()
    }

    /// Sends the request to one candidate; the answer comes with its head.
    async fn send(&self, candidate: &Candidate) -> Result<Response<Answer>, Failure> {
        let provider = &candidate.provider;
        let endpoint = self.route.endpoint;
        let body = self.facts.rewrite(&self.body, &candidate.model);
        let (url, key) = match &provider.transport {
            Transport::Script(script) => {
                let answered =
                    scripted::answer(provider, script, endpoint, &self.facts, &candidate.model, &body).await;
                return Ok(answered);
            }
            Transport::Http { url, key } => (url, key),
        };
        let mut target = format!("{url}{}", endpoint.path(&candidate.model));
        if let (Endpoint::Models(_), false) = (endpoint, candidate.model.is_empty()) {
            target = format!("{target}/{}", candidate.model);
        }
        if let Some(query) =
            self.head.uri.query().map(headers::known_parameters).filter(|query| !query.is_empty())
        {
            target = format!("{target}?{query}");
        }
        let unaskable = |reason: String| Failure { is_lasting: true, ..Failure::of(reason) };
        let mut request = Request::builder()
            .method(self.head.method.clone())
            .uri(target)
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| unaskable(format!("the request cannot be sent: {error}")))?;
        *request.headers_mut() = headers::of_request(&self.head.headers);
        self.look_for_secrets(&request.uri().to_string(), request.headers(), &provider.name);
        if let Some(key) = key {
            key.put(request.headers_mut(), endpoint.wire())
                .map_err(|()| unaskable("its key cannot stand in a header".to_owned()))?;
        }
        let sent = self.port.client.send(request, provider.silence).await;
        sent.map(|response| response.map(Answer::Http)).map_err(|error| {
            let is_doubtful = matches!(error, HttpError::NoAnswer(_) | HttpError::Late(_));
            // Nobody is there, whoever asks for whatever.
            let is_transport = matches!(
                error,
                HttpError::NoConnection(_) | HttpError::NoTls { .. } | HttpError::Untrusted { .. }
            );
            let cause = is_transport.then_some(Cause::Transport);
            Failure { is_lasting: error.is_lasting(), cause, is_doubtful, ..Failure::of(error.to_string()) }
        })
    }

    /// Looks whether a secret is in what is about to leave.
    pub(crate) fn look_for_secrets(&self, target: &str, headers: &HeaderMap, provider: &str) {
        let written: Vec<&[u8]> = headers.values().map(HeaderValue::as_bytes).collect();
        let head = [target.as_bytes(), &written.join(&b'\n')].join(&b'\n');
        self.port.alarm.look_at_request(&[&head, &self.body], provider);
    }

    /// Reads an answer that is no stream.
    async fn collect(
        &self,
        response: Response<Answer>,
        candidate: &Candidate,
    ) -> Result<Response<Bytes>, String> {
        let (head, body) = response.into_parts();
        let silence = candidate.provider.silence;
        let whole = tokio::time::timeout(silence, Limited::new(body, MOST_ANSWERED).collect()).await;
        let bytes = match whole {
            Ok(Ok(whole)) => whole.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                return Err(format!("the answer is larger than {} MiB", MOST_ANSWERED / 1024 / 1024));
            }
            Ok(Err(error)) => return Err(format!("the answer broke off: {error}")),
            Err(_) => {
                return Err(format!("the answer did not come to its end within {} s", silence.as_secs_f64()));
            }
        };
        if head.status.is_redirection() && head.status != StatusCode::NOT_MODIFIED {
            return Err(format!(
                "it answers {} and sends elsewhere, where Toka does not follow",
                head.status.as_u16()
            ));
        }
        let key = match &candidate.provider.transport {
            Transport::Http { key: Some(key), .. } => key,
            _ => {
                let mut whole = Response::new(bytes);
                *whole.status_mut() = head.status;
                *whole.headers_mut() = headers::of_answer(&head.headers);
                return Ok(whole);
            }
        };
        // Some providers repeat the key that they refuse.
        let mut whole = Response::new(key.masked(bytes));
        *whole.status_mut() = head.status;
        let mut kept = headers::of_answer(&head.headers);
        kept.iter_mut().filter(|(_, value)| key.is_in(value.as_bytes())).for_each(|(_, value)| {
            *value = HeaderValue::from_static("(a key was here)");
        });
        *whole.headers_mut() = kept;
        Ok(whole)
    }
}

/// Closes the receipt of a call whose answer is there as a whole, with a status that is no refusal; what it used, if it is complete.
pub(crate) fn close_whole(mut receipt: Receipt, wire: Wire, status: u16, body: &Bytes) -> Option<Tokens> {
    let read = answer::read(wire, body);
    receipt.has_content();
    let cost = match &receipt.batch {
        Some(_) => receipt.providers.batched_cost(&receipt.provider, &receipt.model, &read.tokens),
        None => receipt.providers.cost(&receipt.provider, &receipt.model, &read.tokens, true),
    };
    let failed = |reason| CallOutcome::Failed { status: Some(status), reason };
    let outcome = match read.error {
        None if is_json(body) => CallOutcome::Completed,
        None => failed("the answer is no JSON".to_owned()),
        Some(reason) => failed(reason),
    };
    let tokens = (outcome == CallOutcome::Completed).then_some(read.tokens);
    receipt.close(outcome, read.tokens, cost);
    tokens
}

fn refusal(whole: Response<Bytes>) -> Failure {
    let status = whole.status().as_u16();
    let words = answer::words_of_body(whole.body());
    let header = |name: &str| whole.headers().get(name).and_then(|value| value.to_str().ok());
    let wait = header("retry-after").and_then(retry_after);
    let reason = words
        .unwrap_or_else(|| whole.status().canonical_reason().unwrap_or("no reason was given").to_owned());
    // What it refused it will refuse again, but for these (RFC 9110, 15.5; RFC 8470, 5.2).
    let is_lasting = (400..500).contains(&status) && ![408, 409, 425, 429].contains(&status);
    let cause = match status {
        429 | 503 | 529 => Some(Cause::Busy(wait)),
        // 403 may be about this one request.
        401 | 402 => Some(Cause::Key),
        _ => None,
    };
    Failure { status: Some(status), said: Some(whole), wait, is_lasting, cause, ..Failure::of(reason) }
}

fn is_event_stream(response: &Response<Answer>) -> bool {
    let kind = response.headers().get("content-type").and_then(|value| value.to_str().ok());
    kind.is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/event-stream"))
}

fn is_json(body: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok()
}

/// An error of Toka's own, in the words of the API.
pub(crate) fn of_problem(problem: &Problem, wire: Wire, wait: Option<Duration>) -> Response<Outgoing> {
    let mut response = Response::new(Outgoing::Whole(Full::new(Bytes::from(problem.body(wire)))));
    *response.status_mut() =
        StatusCode::from_u16(problem.kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    if let Some(wait) = wait.filter(|wait| !wait.is_zero()) {
        headers.insert("retry-after", HeaderValue::from(wait.as_secs_f64().ceil() as u64));
    }
    response
}
