//! One batch: given to the provider, looked at until it is over, its answers handed out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use toka_core::{BatchedCall, Cost, EventKind, Kept};
use toka_http::HttpError;
use toka_wire::batch::{BatchAnswer, BatchApi, BatchRequest, BatchResult, BatchState, BatchStep};
use toka_wire::{Endpoint, answer};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::Transport;

use crate::candidates::Candidate;
use crate::cooldown::{back_off, draw};
use crate::joined::Fingerprint;
use crate::log::RECORDS_WITHIN;
use crate::port::PortState;
use crate::port_end::PortEnd;
use crate::receipt::Receipt;

/// Most bytes of the answers to one batch.
const MOST_ANSWERED: usize = 512 * 1024 * 1024;
/// How often a batch is given over that the provider cannot take at the moment.
const TRIES: u32 = 8;
/// How long a batch is looked at: providers give up after a day.
const LONGEST: Duration = Duration::from_secs(26 * 3600);

/// How fast calls are gathered, and how often it is asked how far a batch is.
#[derive(Debug, Clone, Copy)]
pub struct BatchPace {
    /// A batch is begun when for so long no further call has come,
    pub quiet: Duration,
    /// or when its first one has waited for so long.
    pub most: Duration,
    /// The first look at a batch is after so long; each later one after half as long again,
    pub first_look: Duration,
    /// and after this at most.
    pub longest_look: Duration,
}

impl Default for BatchPace {
    fn default() -> Self {
        Self {
            quiet: Duration::from_secs(2),
            most: Duration::from_secs(30),
            first_look: Duration::from_secs(2),
            longest_look: Duration::from_secs(60),
        }
    }
}

/// A call of a batch.
pub(crate) struct Item {
    pub(crate) call: u64,
    /// What its request is known by.
    pub(crate) request: Fingerprint,
    pub(crate) body: Bytes,
    pub(crate) receipt: Receipt,
    /// Whether a client waits for it.
    pub(crate) is_awaited: Box<dyn Fn() -> bool + Send + Sync>,
    pub(crate) reply: oneshot::Sender<Batched>,
}

/// What became of a call of a batch.
pub(crate) enum Batched {
    /// It was answered so.
    Answered { receipt: Receipt, status: u16, body: Bytes },
    /// The provider has no such interface: it has to be asked alone.
    Alone(Receipt),
    /// It was not answered, which costs so much.
    Failed { receipt: Receipt, reason: String, cost: Cost },
}

impl Item {
    fn reply(self, what: impl FnOnce(Receipt) -> Batched) {
        // Nobody hears it when the port is closed.
        let _ = self.reply.send(what(self.receipt));
    }

    fn fail(self, reason: &str, cost: Cost) {
        let reason = reason.to_owned();
        self.reply(|receipt| Batched::Failed { receipt, reason, cost });
    }
}

/// What the calls of one batch have in common.
pub(crate) struct Batch {
    pub(crate) api: BatchApi,
    pub(crate) endpoint: Endpoint,
    pub(crate) candidate: Candidate,
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) port: Arc<PortState>,
    pub(crate) pace: BatchPace,
}

/// Why a step came to nothing.
enum Trouble {
    /// The provider has no such interface.
    Unknown,
    /// It may work later.
    Passing(String),
    /// Nobody knows whether it was done.
    Doubtful(String),
    /// It would fail again.
    Lasting(String),
}

impl Trouble {
    /// What a batch has cost that was not begun for this.
    fn cost(&self) -> Cost {
        match self {
            Self::Doubtful(_) => Cost::Unknown,
            Self::Unknown | Self::Passing(_) | Self::Lasting(_) => Cost::Nothing,
        }
    }

    fn reason(self) -> String {
        match self {
            Self::Unknown => "the provider has no batch interface".to_owned(),
            Self::Passing(reason) | Self::Doubtful(reason) | Self::Lasting(reason) => reason,
        }
    }
}

impl Batch {
    /// Sees to it that each of these calls is answered.
    pub(crate) async fn run(self, mut items: Vec<Item>) {
        // Whoever has given up before anything was sent need not be answered.
        items.retain(|item| (item.is_awaited)());
        if items.is_empty() {
            return;
        }
        let id = match self.begin(&mut items).await {
            Ok(id) => id,
            Err(Trouble::Unknown) => {
                self.candidate.provider.remember_no_batches(self.api);
                return items.into_iter().for_each(|mut item| {
                    item.receipt.tries = 0;
                    item.reply(Batched::Alone);
                });
            }
            Err(trouble) => {
                let cost = trouble.cost();
                let reason = trouble.reason();
                return items.into_iter().for_each(|item| item.fail(&reason, cost));
            }
        };
        for item in &mut items {
            item.receipt.batch = Some(id.clone());
        }
        let recorded = self.port.log.record(self.intent(&id, &items));
        let _: Result<Kept, _> = tokio::time::timeout(RECORDS_WITHIN, recorded).await;
        self.go_on(id, items).await;
    }

    /// What the next program has to know to go on.
    fn intent(&self, id: &str, items: &[Item]) -> EventKind {
        let Candidate { provider, model } = &self.candidate;
        let batched = |item: &Item| BatchedCall { call: item.call, request: item.request.to_string() };
        EventKind::ModelBatched {
            provider: provider.name.clone(),
            model: model.clone(),
            path: self.endpoint.path(model),
            batch: id.to_owned(),
            calls: items.iter().map(batched).collect(),
        }
    }

    /// Looks at a batch that has begun until it is over.
    pub(crate) async fn go_on(self, id: String, items: Vec<Item>) {
        let mut going = Going { batch: &self, id, is_over: false };
        let answers = going.answers(&items).await;
        going.is_over = true;
        drop(going);
        hand_out(items, answers);
    }

    /// Gives the calls over; the name of the batch.
    async fn begin(&self, items: &mut [Item]) -> Result<String, Trouble> {
        let requests: Vec<BatchRequest<'_>> =
            items.iter().map(|item| BatchRequest { id: item.call, body: &item.body }).collect();
        let first = self.api.begin(self.endpoint, &self.candidate.model, &requests);
        let first = first.ok_or_else(|| Trouble::Lasting("a request is no JSON".to_owned()))?;
        let is_whole = self.api != BatchApi::Files;
        if is_whole {
            items.iter_mut().for_each(|item| item.receipt.tries(&self.candidate));
        }
        let mut answer = self.persist(first, is_whole).await?;
        if let Some(step) = self.api.follow(self.endpoint, &answer) {
            items.iter_mut().for_each(|item| item.receipt.tries(&self.candidate));
            answer = self.persist(step, true).await?;
        }
        let unnamed = || Trouble::Doubtful("the provider has not named the batch".to_owned());
        self.api.id(&answer).ok_or_else(unnamed)
    }

    /// Takes a step, again and again while it may work later. One that begins work is not repeated when nobody knows whether it was done.
    async fn persist(&self, step: BatchStep, begins_work: bool) -> Result<Bytes, Trouble> {
        let mut tries = 0;
        loop {
            let trouble = match self.exchange(step.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(trouble) => trouble,
            };
            tries += 1;
            let is_passing = match &trouble {
                Trouble::Passing(_) => true,
                Trouble::Doubtful(_) => !begins_work,
                Trouble::Unknown | Trouble::Lasting(_) => false,
            };
            if !is_passing || tries == TRIES {
                return Err(trouble);
            }
            tokio::time::sleep(back_off(tries - 1, draw())).await;
        }
    }

    /// One request to the interface, and its answer.
    async fn exchange(&self, step: BatchStep) -> Result<Bytes, Trouble> {
        let provider = &self.candidate.provider;
        let Transport::Http { url, key } = &provider.transport else { return Err(Trouble::Unknown) };
        let BatchStep { method, path, content_type, body } = step;
        let query = if self.query.is_empty() { String::new() } else { format!("?{}", self.query) };
        let lasting = |error: http::Error| Trouble::Lasting(format!("the request cannot be sent: {error}"));
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{url}{path}{query}"))
            .body(Full::new(Bytes::from(body)))
            .map_err(lasting)?;
        *request.headers_mut() = self.headers.clone();
        request.headers_mut().remove("content-type");
        if !content_type.is_empty() {
            request.headers_mut().insert("content-type", HeaderValue::from_static(content_type));
        }
        if let Some(key) = key {
            let unfit = |()| Trouble::Lasting("its key cannot stand in a header".to_owned());
            key.put(request.headers_mut(), self.endpoint.wire()).map_err(unfit)?;
        }
        let response = self.port.client.send(request, provider.silence).await.map_err(trouble)?;
        let status = response.status();
        let whole = Limited::new(response.into_body(), MOST_ANSWERED).collect();
        let whole = tokio::time::timeout(provider.silence, whole).await;
        let bytes = match whole {
            Ok(Ok(whole)) => whole.to_bytes(),
            Ok(Err(error)) => return Err(Trouble::Doubtful(format!("the answer broke off: {error}"))),
            Err(_) => return Err(Trouble::Doubtful("the answer did not come to its end".to_owned())),
        };
        let bytes = key.as_ref().map_or(bytes.clone(), |key| key.masked(bytes));
        if status.is_success() {
            return Ok(bytes);
        }
        let words = answer::words_of_body(&bytes)
            .unwrap_or_else(|| status.canonical_reason().unwrap_or("no reason was given").to_owned());
        let reason = format!("{} {words}", status.as_u16());
        Err(match status.as_u16() {
            404 | 405 | 501 => Trouble::Unknown,
            408 | 409 | 425 | 429 | 500.. => Trouble::Passing(reason),
            _ => Trouble::Lasting(reason),
        })
    }
}

fn trouble(error: HttpError) -> Trouble {
    let reason = error.to_string();
    match error {
        HttpError::NoAnswer(_) | HttpError::Late(_) => Trouble::Doubtful(reason),
        error if error.is_lasting() => Trouble::Lasting(reason),
        _ => Trouble::Passing(reason),
    }
}

/// A batch that the provider has. Dropped before it is over, it is given up.
struct Going<'b> {
    batch: &'b Batch,
    id: String,
    is_over: bool,
}

impl Going<'_> {
    /// The answers, once there are some.
    async fn answers(&self, items: &[Item]) -> Result<Vec<BatchAnswer>, String> {
        let (batch, ids) = (self.batch, items.iter().map(|item| item.call).collect::<Vec<_>>());
        let pace = batch.pace;
        let (begun, mut wait) = (tokio::time::Instant::now(), pace.first_look);
        loop {
            tokio::time::sleep(wait).await;
            wait = (wait + wait / 2).min(pace.longest_look);
            let looked = batch.exchange(batch.api.look(&self.id)).await;
            let state = looked.map(|answer| batch.api.state(&self.id, &answer, &ids));
            match state {
                Ok(Some(BatchState::Answered(answers))) => return Ok(answers),
                Ok(Some(BatchState::Ended(steps))) => return self.fetch(steps).await,
                Ok(Some(BatchState::Failed(reason))) => return Err(reason),
                Ok(Some(BatchState::Going)) | Err(Trouble::Passing(_) | Trouble::Doubtful(_)) => {}
                Ok(None) => return Err("the provider's word on the batch cannot be read".to_owned()),
                Err(Trouble::Unknown) => {
                    return Err("the provider does not know the batch any more".to_owned());
                }
                Err(Trouble::Lasting(reason)) => return Err(reason),
            }
            if begun.elapsed() > LONGEST {
                return Err("the batch has not ended within a day".to_owned());
            }
        }
    }

    async fn fetch(&self, steps: Vec<BatchStep>) -> Result<Vec<BatchAnswer>, String> {
        let mut answers = Vec::new();
        for step in steps {
            let lines = self.batch.persist(step, false).await.map_err(Trouble::reason)?;
            answers.extend(self.batch.api.answers(&lines));
        }
        Ok(answers)
    }
}

impl Drop for Going<'_> {
    fn drop(&mut self) {
        let Ok(runtime) = Handle::try_current() else { return };
        // Who comes after this program goes on with it.
        if self.is_over || self.batch.port.end.get() == Some(&PortEnd::Succeeded) {
            return;
        }
        let Batch { api, endpoint, candidate, query, headers, port, pace } = self.batch;
        let (candidate, port) = (candidate.clone(), Arc::clone(port));
        let batch = Batch {
            api: *api,
            endpoint: *endpoint,
            candidate,
            query: query.clone(),
            headers: headers.clone(),
            port,
            pace: *pace,
        };
        let step = api.cancel(&self.id);
        runtime.spawn(async move { batch.exchange(step).await.map(drop).map_err(drop) });
    }
}

/// Each call gets its answer.
fn hand_out(items: Vec<Item>, answers: Result<Vec<BatchAnswer>, String>) {
    let answers = match answers {
        Ok(answers) => answers,
        // Some of it may have been worked on.
        Err(reason) => return items.into_iter().for_each(|item| item.fail(&reason, Cost::Unknown)),
    };
    let mut by_call: HashMap<u64, BatchResult> =
        answers.into_iter().map(|BatchAnswer { id, result }| (id, result)).collect();
    for item in items {
        match by_call.remove(&item.call) {
            Some(BatchResult::Answered(status, body)) => {
                let body = Bytes::from(body);
                item.reply(|receipt| Batched::Answered { receipt, status, body });
            }
            Some(BatchResult::Nothing(reason)) => item.fail(&reason, Cost::Nothing),
            None => item.fail("the batch has no answer to this request", Cost::Unknown),
        }
    }
}
