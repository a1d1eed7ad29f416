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
use crate::log::{RECORDS_WITHIN, record_beside};
use crate::port::PortState;
use crate::port_end::PortEnd;
use crate::receipt::Receipt;

/// Most bytes of the answers to one batch.
const MOST_ANSWERED: usize = 512 * 1024 * 1024;
/// How often a batch is given over that the provider cannot take at the moment.
const TRIES: u32 = 8;
/// Looks in a row that have to come to nothing for good until a batch is given up: with the pauses between them, some minutes.
const PATIENCE: u32 = 12;
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
    /// Hears that the provider has it.
    pub(crate) named: Option<oneshot::Sender<()>>,
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
#[derive(Clone)]
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
    /// It was refused before any work, or has not arrived, and may work later.
    Busy(String),
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
            Self::Unknown | Self::Busy(_) | Self::Lasting(_) => Cost::Nothing,
        }
    }

    /// Whether the same step may be taken again; `begins_work` says that twice would be paid twice.
    fn may_pass(&self, begins_work: bool) -> bool {
        match self {
            Self::Busy(_) => true,
            Self::Doubtful(_) => !begins_work,
            Self::Unknown | Self::Lasting(_) => false,
        }
    }

    /// That of an answer with this status, in these words (RFC 9110, 15; 529 is Anthropic's).
    fn of_status(status: u16, words: &str) -> Self {
        let reason = format!("{status} {words}");
        match status {
            404 | 405 | 501 => Self::Unknown,
            425 | 429 | 503 | 529 => Self::Busy(reason),
            // Some have done it all the same that say so.
            408 | 409 | 500.. => Self::Doubtful(reason),
            _ => Self::Lasting(reason),
        }
    }

    /// That of a request that has no answer.
    fn of_http(error: &HttpError) -> Self {
        let reason = error.to_string();
        match error {
            HttpError::NoAnswer(_) | HttpError::Late(_) => Self::Doubtful(reason),
            error if error.is_lasting() => Self::Lasting(reason),
            _ => Self::Busy(reason),
        }
    }

    fn reason(self) -> String {
        match self {
            Self::Unknown => "the provider has no batch interface".to_owned(),
            Self::Busy(reason) | Self::Doubtful(reason) | Self::Lasting(reason) => reason,
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
        items.iter_mut().for_each(|item| item.receipt.tries(&self.candidate));
        let id = match self.begin_beside(&items).await {
            Ok(id) => id,
            Err(Trouble::Unknown) => {
                self.has_none();
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
            item.body = Bytes::new();
            // Whoever is gone need not hear it.
            let _ = item.named.take().map(|named| named.send(()));
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
        let answers = Going { batch: &self, id, is_over: false }.answers(&items).await;
        hand_out(items, answers);
    }

    /// The provider has no such interface: from now on it is not asked for it, and whoever pays hears of it.
    fn has_none(&self) {
        let Candidate { provider, model } = &self.candidate;
        provider.remember_no_batches(self.api, model);
        let name = self.candidate.name();
        let message = format!(
            "{name} has no batch interface: its calls are made one by one from now on, at the usual price"
        );
        record_beside(&*self.port.log, EventKind::Warning { message });
    }

    /// The same as [`Self::begin`], and when nobody waits for the end of it any more, what was begun is given up.
    async fn begin_beside(&self, items: &[Item]) -> Result<String, Trouble> {
        let requests: Vec<(u64, Bytes)> = items.iter().map(|item| (item.call, item.body.clone())).collect();
        let (tell, told) = oneshot::channel();
        let batch = self.clone();
        tokio::spawn(async move {
            let begun = batch.begin(&requests).await;
            drop(requests);
            if let Err(Ok(id)) = tell.send(begun) {
                let step = batch.api.cancel(&id);
                // It ends by itself otherwise.
                let _ = batch.exchange(step).await;
            }
        });
        told.await.unwrap_or_else(|_| Err(Trouble::Doubtful("the batch was left".to_owned())))
    }

    /// Gives the calls over; the name of the batch.
    async fn begin(&self, requests: &[(u64, Bytes)]) -> Result<String, Trouble> {
        let requests: Vec<BatchRequest<'_>> =
            requests.iter().map(|(id, body)| BatchRequest { id: *id, body }).collect();
        let first = self.api.begin(self.endpoint, &self.candidate.model, &requests);
        let first = first.ok_or_else(|| Trouble::Lasting("a request is no JSON".to_owned()))?;
        let mut answer = self.persist(first, self.api != BatchApi::Files).await?;
        if let Some(step) = self.api.follow(self.endpoint, &answer) {
            answer = self.persist(step, true).await.map_err(|trouble| match trouble {
                // It takes files, so that this is about the batch.
                Trouble::Unknown => {
                    Trouble::Lasting("404 the provider takes the file and no batch".to_owned())
                }
                other => other,
            })?;
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
            if !trouble.may_pass(begins_work) || tries == TRIES {
                return Err(trouble);
            }
            tokio::time::sleep(back_off(tries - 1, draw())).await;
        }
    }

    /// One request to the interface, and its answer.
    async fn exchange(&self, step: BatchStep) -> Result<Bytes, Trouble> {
        // A person may have said another key or place since.
        let providers = self.port.providers.get();
        let provider = providers.named(&self.candidate.provider.name).unwrap_or(&self.candidate.provider);
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
        let response = self
            .port
            .client
            .send(request, provider.silence)
            .await
            .map_err(|error| Trouble::of_http(&error))?;
        let status = response.status();
        let whole = Limited::new(response.into_body(), MOST_ANSWERED).collect();
        let whole = tokio::time::timeout(provider.silence, whole).await;
        let bytes = match whole {
            Ok(Ok(whole)) => whole.to_bytes(),
            Ok(Err(error)) => return Err(Trouble::Doubtful(format!("the answer broke off: {error}"))),
            Err(_) => return Err(Trouble::Doubtful("the answer did not come to its end".to_owned())),
        };
        let bytes = match key.clone() {
            // The others of this thread go on meanwhile.
            Some(key) => beside(move || key.masked(bytes)).await?,
            None => bytes,
        };
        if status.is_success() {
            return Ok(bytes);
        }
        let words = answer::words_of_body(&bytes)
            .unwrap_or_else(|| status.canonical_reason().unwrap_or("no reason was given").to_owned());
        Err(Trouble::of_status(status.as_u16(), &words))
    }
}

/// Does what takes long for much on another thread.
async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Trouble> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Trouble::Busy("the process ends".to_owned()))
}

/// A batch that the provider has. Dropped before it is over, it is given up.
struct Going<'b> {
    batch: &'b Batch,
    id: String,
    is_over: bool,
}

/// What a look at a batch has shown.
enum Looked {
    Going,
    Answers(Vec<BatchAnswer>),
    /// It came to nothing.
    Failed(String),
}

impl Going<'_> {
    /// The answers, once there are some.
    async fn answers(mut self, items: &[Item]) -> Result<Vec<BatchAnswer>, String> {
        let ids: Vec<u64> = items.iter().map(|item| item.call).collect();
        let pace = self.batch.pace;
        let (begun, mut wait, mut failed) = (tokio::time::Instant::now(), pace.first_look, 0);
        loop {
            tokio::time::sleep(wait).await;
            wait = (wait + wait / 2).min(pace.longest_look);
            let looked = self.look(&ids).await;
            self.is_over = matches!(looked, Ok(Looked::Answers(_) | Looked::Failed(_)));
            let reason = match looked {
                Ok(Looked::Answers(answers)) => return Ok(answers),
                Ok(Looked::Failed(reason)) => return Err(reason),
                Ok(Looked::Going) => {
                    failed = 0;
                    "the batch has not ended within a day".to_owned()
                }
                Err(trouble) => {
                    failed += u32::from(!trouble.may_pass(false));
                    trouble.reason()
                }
            };
            // What is paid for is not given up for one odd word.
            if failed == PATIENCE || begun.elapsed() > LONGEST {
                return Err(reason);
            }
        }
    }

    async fn look(&self, ids: &[u64]) -> Result<Looked, Trouble> {
        let answer = self.batch.exchange(self.batch.api.look(&self.id)).await?;
        let (api, id, ids) = (self.batch.api, self.id.clone(), ids.to_vec());
        Ok(match beside(move || api.state(&id, &answer, &ids)).await? {
            Some(BatchState::Going) => Looked::Going,
            Some(BatchState::Ended(steps)) => Looked::Answers(self.fetch(steps).await?),
            Some(BatchState::Answered(answers)) => Looked::Answers(answers),
            Some(BatchState::Failed(reason)) => Looked::Failed(reason),
            None => {
                let reason = "the provider's word on the batch cannot be read";
                return Err(Trouble::Lasting(reason.to_owned()));
            }
        })
    }

    async fn fetch(&self, steps: Vec<BatchStep>) -> Result<Vec<BatchAnswer>, Trouble> {
        let mut answers = Vec::new();
        for step in steps {
            let lines = self.batch.persist(step, false).await?;
            let api = self.batch.api;
            answers.extend(beside(move || api.answers(&lines)).await?);
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
        let batch = self.batch.clone();
        let step = batch.api.cancel(&self.id);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_been_done_is_not_done_again() {
        for (status, again, again_where_it_is_paid, cost) in [
            (429, true, true, Cost::Nothing),
            (503, true, true, Cost::Nothing),
            (529, true, true, Cost::Nothing),
            (500, true, false, Cost::Unknown),
            (502, true, false, Cost::Unknown),
            (504, true, false, Cost::Unknown),
            (408, true, false, Cost::Unknown),
            (400, false, false, Cost::Nothing),
            (401, false, false, Cost::Nothing),
            (404, false, false, Cost::Nothing),
        ] {
            let trouble = Trouble::of_status(status, "why");
            let may_pass = (trouble.may_pass(false), trouble.may_pass(true));
            assert_eq!((may_pass, trouble.cost()), ((again, again_where_it_is_paid), cost), "{status}");
        }
    }
}
