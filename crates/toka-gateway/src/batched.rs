//! Calls of an agent that can wait: they are gathered and given to the provider's batch interface, which answers within a day and costs less.
//!
//! ```text
//!  request ─▶ entry ─▶ task: gate, intent ─▶ group ─▶ one batch ([`crate::batch_run`]) ─▶ receipt ─▶ entry ─▶ whoever waits
//! ```
//!
//! A call goes on when its client has given up waiting, as most do after minutes: the client's next try, byte for byte the same, gets its
//! answer. It ends with the port; the next program goes on with batches that this one leaves.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use toka_core::{CallOutcome, Cost, Tokens, Wire};
use toka_wire::batch::BatchApi;
use toka_wire::{Endpoint, Problem, ProblemKind, Route, answer};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::batch_run::{Batch, BatchPace, Batched, Item};
use crate::call::{Asked, Begun, close_whole, of_problem};
use crate::candidates::Candidate;
use crate::headers;
use crate::joined::Fingerprint;
use crate::outgoing::Outgoing;
use crate::port::PortState;
use crate::receipt::Receipt;
use crate::{Provider, Transport};

/// How long an answer is kept for a client that gave up waiting, and how many bytes of those.
const KEPT_FOR: Duration = Duration::from_secs(24 * 3600);
const MOST_KEPT: usize = 64 * 1024 * 1024;
/// How often it is looked whether a provider of which a batch was left is there again.
const LOOKS_AGAIN: Duration = Duration::from_secs(1);

/// The calls of one port that go through batches.
pub(crate) struct Batches {
    /// How they are gathered; `None` where each is made at once.
    pace: Option<BatchPace>,
    entries: Mutex<HashMap<Fingerprint, Vec<Arc<Entry>>>>,
    groups: Mutex<HashMap<GroupKey, Group>>,
    tasks: Mutex<JoinSet<()>>,
}

/// One call.
pub(crate) struct Entry {
    call: u64,
    answer: watch::Sender<Option<Kept>>,
}

impl Entry {
    /// Whether a client waits for it.
    pub(crate) fn is_awaited(&self) -> bool {
        self.answer.receiver_count() > 0
    }
}

/// What became of a call, and since when that is known.
#[derive(Clone)]
struct Kept {
    answer: Result<Answered, Problem>,
    at: Instant,
}

#[derive(Clone)]
struct Answered {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answered {
    fn response(self) -> Response<Outgoing> {
        let mut response = Response::new(Outgoing::Whole(Full::new(self.body)));
        (*response.status_mut(), *response.headers_mut()) = (self.status, self.headers);
        response
    }
}

/// Waits for what becomes of a call.
type Waits = watch::Receiver<Option<Kept>>;

/// What calls of one batch have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct GroupKey {
    provider: String,
    endpoint: Endpoint,
    /// Some take batches of one model alone, and each has a price of its own.
    model: String,
    /// The query and the headers that go on.
    head: Fingerprint,
}

/// Calls that wait for others.
struct Group {
    items: Vec<Item>,
    last: Instant,
}

impl Batches {
    pub(crate) fn new(pace: Option<BatchPace>) -> Self {
        Self { pace, entries: Mutex::default(), groups: Mutex::default(), tasks: Mutex::default() }
    }

    /// Whether a request can be part of a batch: of which interface.
    pub(crate) fn api_of(&self, asked: &Asked, candidate: &Candidate) -> Option<BatchApi> {
        self.pace?;
        let Transport::Http { .. } = &candidate.provider.transport else { return None };
        let api = BatchApi::of(asked.route.endpoint)?;
        let is_plain = !asked.facts.stream && !asked.facts.is_stateful;
        (is_plain && !candidate.provider.lacks_batches(api, &candidate.model)).then_some(api)
    }

    /// The entry of a request, and whether it is new. One that a client waits for is another's where requests are not joined.
    fn entry(&self, print: Fingerprint, call: u64, joins: bool) -> (Arc<Entry>, Waits, bool) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        forget_old(&mut entries);
        let of_print = entries.entry(print).or_default();
        // One that is answered comes first.
        let fitting = of_print.iter().filter(|entry| joins || !entry.is_awaited());
        if let Some(found) = fitting.max_by_key(|entry| entry.answer.borrow().is_some()) {
            return (Arc::clone(found), found.answer.subscribe(), false);
        }
        let entry = Arc::new(Entry { call, answer: watch::Sender::new(None) });
        of_print.push(Arc::clone(&entry));
        let waits = entry.answer.subscribe();
        (entry, waits, true)
    }

    /// An entry for a call that another process has begun: each has its own, and nobody waits for it yet.
    fn left_entry(&self, print: Fingerprint, call: u64) -> Arc<Entry> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = Arc::new(Entry { call, answer: watch::Sender::new(None) });
        entries.entry(print).or_default().push(Arc::clone(&entry));
        entry
    }

    /// Whoever waits for a call hears what became of it.
    fn tell(&self, entry: &Entry, answer: Result<Answered, Problem>) {
        entry.answer.send_replace(Some(Kept { answer, at: Instant::now() }));
        forget_old(&mut self.entries.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Nobody gets the answer of this entry any more.
    fn remove(&self, print: Fingerprint, entry: &Arc<Entry>) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_print) = entries.get_mut(&print) {
            of_print.retain(|other| !Arc::ptr_eq(other, entry));
            if of_print.is_empty() {
                entries.remove(&print);
            }
        }
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(work);
    }

    /// Ends all of them, as the port is closed.
    pub(crate) fn end(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.abort_all();
        self.groups.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Adds a call to the others of its kind; true for the first of them, after which somebody has to see to it that they go.
    fn add(&self, key: &GroupKey, item: Item) -> bool {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = !groups.contains_key(key);
        let group =
            groups.entry(key.clone()).or_insert_with(|| Group { items: Vec::new(), last: Instant::now() });
        group.items.push(item);
        group.last = Instant::now();
        is_first
    }

    /// The calls of a kind, once no more of them come.
    async fn gathered(&self, key: &GroupKey, pace: BatchPace) -> Vec<Item> {
        let begun = Instant::now();
        let mut wait = pace.quiet;
        loop {
            tokio::time::sleep(wait).await;
            let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(group) = groups.get(key) else { return Vec::new() };
            let quiet = group.last.elapsed();
            if quiet >= pace.quiet || begun.elapsed() >= pace.most {
                return groups.remove(key).map(|group| group.items).unwrap_or_default();
            }
            wait = pace.quiet - quiet;
        }
    }
}

/// Forgets answers that nobody has fetched: those that are old, and the oldest of too many.
fn forget_old(entries: &mut HashMap<Fingerprint, Vec<Arc<Entry>>>) {
    let mut done: Vec<(Instant, usize)> = Vec::new();
    let left = |entry: &Arc<Entry>| {
        let kept = entry.answer.borrow();
        let Kept { answer, at } = kept.as_ref().filter(|_| !entry.is_awaited())?;
        Some((*at, answer.as_ref().map_or(0, |answered| answered.body.len())))
    };
    done.extend(entries.values().flatten().filter_map(left));
    done.sort_by(|(one, _), (other, _)| other.cmp(one));
    let mut bytes = 0;
    let kept = done.into_iter().take_while(|(at, size)| {
        bytes += size;
        bytes <= MOST_KEPT && at.elapsed() < KEPT_FOR
    });
    let oldest = kept.last().map(|(at, _)| at);
    let is_kept =
        |entry: &Arc<Entry>| left(entry).is_none_or(|(at, _)| oldest.is_some_and(|oldest| at >= oldest));
    entries.retain(|_, of_print| {
        of_print.retain(is_kept);
        !of_print.is_empty()
    });
}

/// Answers a request once its batch is over.
///
/// # Errors
/// When it may not be made.
pub(crate) async fn ask(
    batches: &Arc<Batches>,
    (asked, candidates): (Asked, Vec<Candidate>),
    (call, api): (u64, BatchApi),
    print: Fingerprint,
) -> Result<Response<Outgoing>, Problem> {
    let port = Arc::clone(&asked.port);
    let (entry, mut answer, is_new) = batches.entry(print, call, port.joins);
    if is_new {
        batches.spawn(work(Arc::clone(batches), (asked, candidates), api, Arc::clone(&entry), print));
    } else {
        port.joined(entry.call);
    }
    let kept = answer.wait_for(Option::is_some).await.ok().and_then(|kept| kept.clone());
    batches.remove(print, &entry);
    let closed = || Err(Problem::new(ProblemKind::Upstream, "the port of the agent was closed"));
    kept.map_or_else(closed, |kept| kept.answer).map(Answered::response)
}

/// Makes the call of an entry.
async fn work(
    batches: Arc<Batches>,
    (asked, candidates): (Asked, Vec<Candidate>),
    api: BatchApi,
    entry: Arc<Entry>,
    print: Fingerprint,
) {
    let answered = match call(&batches, (asked, &candidates), api, (&entry, print)).await {
        Ok(Some(response)) => whole(response).await,
        Ok(None) => {
            batches.remove(print, &entry);
            // Somebody may have joined at this moment.
            Err(Problem::new(ProblemKind::Busy, "nobody waited for this request any more: ask again"))
        }
        Err(problem) => Err(problem),
    };
    batches.tell(&entry, answered);
}

async fn whole(response: Response<Outgoing>) -> Result<Answered, Problem> {
    let (head, body) = response.into_parts();
    let broken = |error: crate::body::BodyError| Problem::new(ProblemKind::Upstream, error.0);
    let body = body.collect().await.map_err(broken)?.to_bytes();
    Ok(Answered { status: head.status, headers: head.headers, body })
}

/// `None` when nobody has waited for it before it was sent.
async fn call(
    batches: &Arc<Batches>,
    (asked, candidates): (Asked, &[Candidate]),
    api: BatchApi,
    (entry, print): (&Arc<Entry>, Fingerprint),
) -> Result<Option<Response<Outgoing>>, Problem> {
    let receipt = match asked.begin(candidates, entry.call).await? {
        Begun::Goes(receipt) => receipt,
        Begun::Refused(response) => return Ok(Some(response)),
    };
    let Candidate { provider, model } = &candidates[0];
    let (reply, batched) = oneshot::channel();
    let (named, is_named) = oneshot::channel();
    let item = Item {
        named: Some(named),
        call: entry.call,
        request: print,
        body: Bytes::from(asked.facts.rewrite(&asked.body, model)),
        receipt,
        is_awaited: awaited(entry),
        reply,
    };
    let query = asked.head.uri.query().map(headers::known_parameters).unwrap_or_default();
    let headers = headers::of_request(&asked.head.headers);
    asked.look_for_secrets(&query, &headers, &provider.name);
    let key = GroupKey {
        provider: provider.name.clone(),
        endpoint: asked.route.endpoint,
        model: model.clone(),
        head: Fingerprint::of(&query, &headers, b""),
    };
    if batches.add(&key, item) {
        let batch = Batch {
            api,
            endpoint: key.endpoint,
            candidate: candidates[0].clone(),
            query,
            headers,
            port: Arc::clone(&asked.port),
            pace: batches.pace.unwrap_or_default(),
        };
        let gathers = Arc::clone(batches);
        batches.spawn(async move {
            let parts = in_parts(gathers.gathered(&key, batch.pace).await);
            for part in parts {
                let batch = batch.clone();
                gathers.spawn(async move { batch.run(part).await });
            }
        });
    }
    let wire = asked.route.endpoint.wire();
    let mut asked = Some(asked);
    if is_named.await.is_ok() {
        // The provider has it: its bytes, and the room that they take, are free for others.
        asked = asked.filter(|asked| asked.port.recorder.is_some());
    }
    Ok(match batched.await {
        Ok(Batched::Answered { receipt, status, body }) => {
            let (answered, tokens) = take(receipt, wire, status, &body);
            if let (Some(tokens), Some(asked)) = (tokens, &asked) {
                asked.record(&body, &tokens);
            }
            Some(answered)
        }
        Ok(Batched::Alone(receipt)) => match &asked {
            Some(asked) => Some(asked.go_on(candidates, receipt).await),
            None => Some(fail(receipt, wire, "the batch was given back", Cost::Nothing)),
        },
        Ok(Batched::Failed { receipt, reason, cost }) => Some(fail(receipt, wire, &reason, cost)),
        Err(_) => None,
    })
}

/// Batches that every provider takes: none with more bytes than this, but for one request that has more, and none with more requests.
fn in_parts(items: Vec<Item>) -> Vec<Vec<Item>> {
    const MOST_BYTES: usize = 16 * 1024 * 1024;
    const MOST_REQUESTS: usize = 1000;
    let mut parts: Vec<(usize, Vec<Item>)> = Vec::new();
    for item in items {
        let size = item.body.len();
        match parts.last_mut() {
            Some((bytes, part)) if *bytes + size <= MOST_BYTES && part.len() < MOST_REQUESTS => {
                *bytes += size;
                part.push(item);
            }
            _ => parts.push((size, vec![item])),
        }
    }
    parts.into_iter().map(|(_, part)| part).collect()
}

/// Tells whether a client waits for a call.
fn awaited(entry: &Arc<Entry>) -> Box<dyn Fn() -> bool + Send + Sync> {
    let entry = Arc::downgrade(entry);
    Box::new(move || entry.upgrade().is_some_and(|entry| entry.is_awaited()))
}

/// The answer of a batch to a request; what it used, if it is complete.
fn take(receipt: Receipt, wire: Wire, status: u16, body: &Bytes) -> (Response<Outgoing>, Option<Tokens>) {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    let tokens = match status.is_success() {
        true => close_whole(receipt, wire, status.as_u16(), body),
        false => {
            let reason = answer::words_of_body(body).unwrap_or_else(|| "no reason was given".to_owned());
            let outcome = CallOutcome::Failed { status: Some(status.as_u16()), reason };
            receipt.close(outcome, Tokens::default(), Cost::Nothing);
            None
        }
    };
    let mut response = Response::new(Outgoing::Whole(Full::new(body.clone())));
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    (response, tokens)
}

/// What the agent gets when its batch came to nothing, which costs so much.
fn fail(receipt: Receipt, wire: Wire, reason: &str, cost: Cost) -> Response<Outgoing> {
    let message = format!("{}/{} gave no answer: {reason}", receipt.provider, receipt.model);
    let outcome = CallOutcome::Failed { status: None, reason: reason.to_owned() };
    receipt.close(outcome, Tokens::default(), cost);
    of_problem(&Problem::new(ProblemKind::Upstream, message), wire, None)
}

/// A batch that a process before this one has begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftBatch {
    /// The provider.
    pub provider: String,
    /// The model as the provider calls it.
    pub model: String,
    /// The path of the API that its calls are of.
    pub path: String,
    /// Its name.
    pub batch: String,
    /// Its calls that have no end.
    pub calls: Vec<LeftCall>,
}

/// A call of a [`LeftBatch`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftCall {
    /// Its number.
    pub call: u64,
    /// What its request is known by.
    pub request: String,
    /// When it began, in milliseconds since the Unix epoch.
    pub since_ms: i64,
}

impl Batches {
    /// Goes on with batches that a process before this one has begun.
    pub(crate) fn go_on(&self, port: &Arc<PortState>, left: Vec<LeftBatch>) {
        for LeftBatch { provider, model, path, batch, calls } in left {
            let providers = port.providers.get();
            let endpoint = Route::find("POST", &path, false).map(|route| route.endpoint);
            let api = endpoint.ok().and_then(|endpoint| Some((endpoint, BatchApi::of(endpoint)?)));
            let receipts = calls.iter().map(|left| Receipt {
                log: Arc::clone(&port.log),
                providers: Arc::clone(&providers),
                end: Arc::clone(&port.end),
                call: left.call,
                begun: since(left.since_ms),
                first: None,
                provider: provider.clone(),
                model: model.clone(),
                tries: 1,
                failed_tries: Vec::new(),
                request_bytes: 0,
                batch: Some(batch.clone()),
                is_doubtful: false,
                is_open: true,
            });
            let Some((endpoint, api)) = api else {
                let reason = "it is of no API that is known here";
                receipts.for_each(|receipt| drop(fail(receipt, Wire::OpenAiChat, reason, Cost::Unknown)));
                continue;
            };
            let items = calls
                .iter()
                .zip(receipts)
                .map(|(left, receipt)| self.left_item(left, receipt, endpoint.wire()));
            let items = items.collect();
            let (port, pace) = (Arc::clone(port), self.pace.unwrap_or_default());
            self.spawn(async move {
                let candidate = Candidate { provider: known(&port, &provider).await, model };
                let (query, headers) = (String::new(), headers_of(api));
                Batch { api, endpoint, candidate, query, headers, port, pace }.go_on(batch, items).await;
            });
        }
    }

    /// A call of a batch that is gone on with; its answer is kept until its client asks again.
    fn left_item(&self, left: &LeftCall, receipt: Receipt, wire: Wire) -> Item {
        let request = left.request.parse().unwrap_or(Fingerprint::of("", &HeaderMap::new(), b""));
        let entry = self.left_entry(request, left.call);
        let (reply, batched) = oneshot::channel();
        let answers = Arc::clone(&entry);
        self.spawn(async move {
            let response = match batched.await {
                Ok(Batched::Answered { receipt, status, body }) => take(receipt, wire, status, &body).0,
                Ok(Batched::Failed { receipt, reason, cost }) => fail(receipt, wire, &reason, cost),
                Ok(Batched::Alone(_)) | Err(_) => return,
            };
            let answer = whole(response).await;
            answers.answer.send_replace(Some(Kept { answer, at: Instant::now() }));
        });
        let (is_awaited, body) = (awaited(&entry), Bytes::new());
        Item { call: left.call, request, body, named: None, receipt, is_awaited, reply }
    }
}

/// The provider of this name, once somebody has it: a person may have to say its key again.
async fn known(port: &PortState, provider: &str) -> Arc<Provider> {
    loop {
        if let Some(found) = port.providers.get().named(provider) {
            return Arc::clone(found);
        }
        tokio::time::sleep(LOOKS_AGAIN).await;
    }
}

/// The headers that an interface wants.
fn headers_of(api: BatchApi) -> HeaderMap {
    let header = |(name, value): &(&'static str, &'static str)| {
        (HeaderName::from_static(name), HeaderValue::from_static(value))
    };
    api.headers().iter().map(header).collect()
}

/// The moment of a time by the wall clock, as far as this machine's other clock goes back.
fn since(time_ms: i64) -> Instant {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let past = now.saturating_sub(Duration::from_millis(u64::try_from(time_ms).unwrap_or(0)));
    Instant::now().checked_sub(past).unwrap_or_else(Instant::now)
}
