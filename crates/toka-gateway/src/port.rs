//! The port of one agent: its key, whom it may ask, and what it may have in flight.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::Bytes;
use toka_core::{CallOutcome, CallReceipt, Cost, EventKind, ModelName, Tokens};
use toka_http::Client;
use toka_wire::Problem;
use tokio::sync::Semaphore;

use crate::hosts::Hosts;
use crate::log::{next_number, record_beside};
use crate::{CallLog, Current, Gate};

/// Most bytes of a request. Providers take 32 MiB.
pub(crate) const MOST_ASKED: usize = 32 * 1024 * 1024;
/// Bytes of requests that one agent may have in flight, in KiB.
const ROOM_KIB: usize = 8 * MOST_ASKED / 1024;
/// Most characters of a host that are recorded: no name has more (RFC 1035, 2.3.4).
const MOST_HOST: usize = 255;
/// Refusals of one agent that are recorded in a row, and how long it takes until another one is.
const REFUSALS: (u32, Duration) = (10, Duration::from_secs(1));

/// What the calls of one agent have in common.
pub(crate) struct PortState {
    /// `None` for an agent that asks no models.
    key: Option<String>,
    pub(crate) declared: Vec<ModelName>,
    pub(crate) providers: Arc<Current>,
    pub(crate) log: Arc<dyn CallLog>,
    pub(crate) gate: Arc<dyn Gate>,
    pub(crate) client: Client<Full<Bytes>>,
    pub(crate) room: Semaphore,
    /// The hosts that it may reach.
    pub(crate) hosts: Hosts,
    /// Where it is.
    pub(crate) address: SocketAddr,
    /// Why the port is closed, once it is.
    pub(crate) end: Arc<OnceLock<&'static str>>,
    refusals: Mutex<(u32, Instant)>,
}

impl PortState {
    pub(crate) fn new(
        key: Option<String>,
        declared: Vec<ModelName>,
        providers: Arc<Current>,
        (log, gate): (Arc<dyn CallLog>, Arc<dyn Gate>),
        client: Client<Full<Bytes>>,
        (hosts, address): (Hosts, SocketAddr),
        end: Arc<OnceLock<&'static str>>,
    ) -> Self {
        let refusals = Mutex::new((0, Instant::now()));
        Self {
            key,
            declared,
            providers,
            log,
            gate,
            client,
            room: Semaphore::new(ROOM_KIB),
            hosts,
            address,
            end,
            refusals,
        }
    }

    /// Whether a client has the key of this port. Takes the same time wherever they differ.
    pub(crate) fn is_key(&self, key: &str) -> bool {
        let Some(own) = &self.key else { return false };
        let differs = own.bytes().zip(key.bytes()).fold(0, |differs, (a, b)| differs | (a ^ b));
        own.len() == key.len() && differs == 0 && !key.is_empty()
    }

    /// Whether its agent asks models.
    pub(crate) fn has_models(&self) -> bool {
        self.key.is_some()
    }

    /// Records what was refused before anything was asked: not each of thousands.
    pub(crate) fn refused(&self, problem: &Problem) {
        if !self.may_record() {
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
        if self.may_record() {
            let (host, reason) = (host.chars().take(MOST_HOST).collect(), reason.to_owned());
            record_beside(&*self.log, EventKind::HostDenied { host, port, reason });
        }
    }

    fn may_record(&self) -> bool {
        let (most, each) = REFUSALS;
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, since) = &mut *refusals;
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
