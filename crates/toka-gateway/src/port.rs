//! The port of one agent: its key, whom it may ask, and what it may have in flight.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::Bytes;
use toka_core::{AgentName, CallOutcome, CallReceipt, Cost, EventKind, ModelName, Tokens};
use toka_http::Client;
use toka_wire::{Problem, ProblemKind, Prompt, Relation};
use tokio::sync::Semaphore;

use crate::hosts::Hosts;
use crate::joined::Flights;
use crate::known_secrets::KnownSecrets;
use crate::log::{next_number, record_beside};
use crate::port_end::PortEnd;
use crate::recorder::Recorder;
use crate::secret_alarm::SecretAlarm;
use crate::{CallLog, Callers, Current, Gate};

/// Most bytes of a request. Providers take 32 MiB.
pub(crate) const MOST_ASKED: usize = 32 * 1024 * 1024;
/// Bytes of requests that one agent may have in flight, in KiB.
const ROOM_KIB: usize = 8 * MOST_ASKED / 1024;
/// Most characters of a host that are recorded: no name has more (RFC 1035, 2.3.4).
const MOST_HOST: usize = 255;
/// Conversations of one agent whose last request is kept, and bytes of those.
const MOST_PROMPTS: usize = 8;
const MOST_PROMPTS_BYTES: usize = 4 * 1024 * 1024;
/// Events of a kind that an agent costs nothing: so many are recorded in a row, and how long it takes until another one is.
const IN_A_ROW: (u32, Duration) = (10, Duration::from_secs(1));

/// What is served at a port.
pub(crate) struct Served {
    pub(crate) agent: AgentName,
    pub(crate) callers: Option<Arc<dyn Callers>>,
    pub(crate) key: Option<String>,
    pub(crate) declared: Vec<ModelName>,
    pub(crate) providers: Arc<Current>,
    pub(crate) log: Arc<dyn CallLog>,
    pub(crate) gate: Arc<dyn Gate>,
    pub(crate) hosts: Hosts,
    pub(crate) joins: bool,
    pub(crate) secrets: Arc<KnownSecrets>,
    pub(crate) recorder: Option<Arc<Recorder>>,
}

/// What the calls of one agent have in common.
pub(crate) struct PortState {
    callers: Option<Arc<dyn Callers>>,
    /// `None` for an agent that asks no models.
    key: Option<String>,
    pub(crate) declared: Vec<ModelName>,
    pub(crate) providers: Arc<Current>,
    pub(crate) log: Arc<dyn CallLog>,
    pub(crate) gate: Arc<dyn Gate>,
    pub(crate) client: Client<Full<Bytes>>,
    /// Calls in flight that others may join.
    pub(crate) flights: Flights,
    /// Whether requests that are the same do so.
    pub(crate) joins: bool,
    /// The requests before, one for each conversation.
    prompts: Mutex<VecDeque<Prompt>>,
    /// Where answers are recorded.
    pub(crate) recorder: Option<Arc<Recorder>>,
    /// Looks for secrets in what leaves.
    pub(crate) alarm: Arc<SecretAlarm>,
    pub(crate) room: Arc<Semaphore>,
    /// The hosts that it may reach.
    pub(crate) hosts: Hosts,
    /// Where it is.
    pub(crate) address: SocketAddr,
    /// Why the port is closed, once it is.
    pub(crate) end: Arc<OnceLock<PortEnd>>,
    /// What is recorded of refusals of calls and of hosts, and of calls that were joined.
    refusals: Limiter,
    denials: Limiter,
    joins_told: Limiter,
}

impl PortState {
    /// The state of a port at `address`; `end` gets the reason for which it is closed.
    pub(crate) fn new(
        port: Served,
        client: Client<Full<Bytes>>,
        address: SocketAddr,
        end: Arc<OnceLock<PortEnd>>,
    ) -> Self {
        let Served { recorder, agent, callers, key, declared, providers, log, gate, hosts, joins, secrets } =
            port;
        let alarm = SecretAlarm::new(agent, secrets, Arc::clone(&providers), Arc::clone(&log));
        let alarm = Arc::new(alarm);
        Self {
            callers,
            key,
            declared,
            providers,
            log,
            gate,
            client,
            flights: Flights::default(),
            joins,
            prompts: Mutex::default(),
            recorder,
            alarm,
            room: Arc::new(Semaphore::new(ROOM_KIB)),
            hosts,
            address,
            end,
            refusals: Limiter::new(),
            denials: Limiter::new(),
            joins_told: Limiter::new(),
        }
    }

    /// Records that a request got the answer of this call: not each of thousands.
    pub(crate) fn joined(&self, call: u64) {
        if self.joins_told.lets_through() {
            record_beside(&*self.log, EventKind::ModelJoined { call });
        }
    }

    /// What a request is to the one before of its conversation, in whose place it is kept.
    pub(crate) fn compare(&self, prompt: Prompt) -> Relation {
        let mut prompts = self.prompts.lock().unwrap_or_else(PoisonError::into_inner);
        let common = |(at, known): (usize, &Prompt)| (known.common(&prompt), at);
        let best = prompts.iter().enumerate().map(common).max();
        let relation = best.map_or(Relation::Other, |(_, at)| prompts[at].relation(&prompt));
        if let (Some((_, at)), false) = (best, relation == Relation::Other) {
            prompts.remove(at);
        }
        prompts.push_front(prompt);
        let mut kept = 0;
        prompts.retain(|prompt| {
            kept += prompt.size();
            kept <= MOST_PROMPTS_BYTES
        });
        prompts.truncate(MOST_PROMPTS);
        relation
    }

    /// Whether a client has the key of this port. Takes the same time wherever they differ.
    pub(crate) fn is_key(&self, key: &str) -> bool {
        let Some(own) = &self.key else { return false };
        let differs = own.bytes().zip(key.bytes()).fold(0, |differs, (a, b)| differs | (a ^ b));
        own.len() == key.len() && differs == 0 && !key.is_empty()
    }

    /// Whether a process of the agent is at the other end of a connection that was made to this port; what was not is recorded.
    pub(crate) async fn is_own(&self, peer: SocketAddr) -> bool {
        let Some(callers) = &self.callers else { return true };
        let is_own = callers.is_own(self.address, peer).await;
        if !is_own {
            let message = format!("the process that connected from {peer} to its port is not the agent's");
            self.refused(&Problem::new(ProblemKind::Denied, message));
        }
        is_own
    }

    /// Whether its agent asks models.
    pub(crate) fn has_models(&self) -> bool {
        self.key.is_some()
    }

    /// Records what was refused before anything was asked: not each of thousands.
    pub(crate) fn refused(&self, problem: &Problem) {
        if !self.refusals.lets_through() {
            return;
        }
        let receipt = CallReceipt {
            outcome: CallOutcome::Refused { reason: problem.message.clone() },
            provider: String::new(),
            model: String::new(),
            tokens: Tokens::default(),
            cost: Cost::Nothing,
            tries: 0,
            failed_tries: Vec::new(),
            batch: None,
            first_content_ms: None,
            duration_ms: 0,
        };
        record_beside(
            &*self.log,
            EventKind::ModelAnswered { call: next_number(), receipt: Box::new(receipt) },
        );
    }

    /// Records that a host was not to be reached: not each of thousands.
    pub(crate) fn denied(&self, host: &str, port: u16, reason: &str) {
        if self.denials.lets_through() {
            let (host, reason) = (host.chars().take(MOST_HOST).collect(), reason.to_owned());
            record_beside(&*self.log, EventKind::HostDenied { host, port, reason });
        }
    }
}

/// Lets through so many of a kind of event in a row, and then one at a time: an agent could fill a disk with them.
struct Limiter(Mutex<(u32, Instant)>);

impl Limiter {
    fn new() -> Self {
        Self(Mutex::new((0, Instant::now())))
    }

    fn lets_through(&self) -> bool {
        let (most, each) = IN_A_ROW;
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, since) = &mut *counted;
        let past = u32::try_from(since.elapsed().as_millis() / each.as_millis()).unwrap_or(u32::MAX);
        if past > 0 {
            (*count, *since) = (count.saturating_sub(past), Instant::now());
        }
        *count += 1;
        *count <= most || {
            *count = most;
            false
        }
    }
}
