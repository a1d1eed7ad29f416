//! The thread on which all calls of this process are made, and the ports that it serves.

use std::net::TcpListener;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::Bytes;
use toka_core::{CallOutcome, CallReceipt, Cost, EventKind, ModelName, Tokens};
use toka_http::{AddressRule, Client, NetworkReach, Options, Pool, Trust, Versions, Way};
use toka_wire::Problem;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::call::MOST_ASKED;
use crate::log::next_number;
use crate::{CallLog, Providers, server};

/// Bytes of requests that one agent may have in flight, in KiB.
const ROOM_KIB: usize = 8 * MOST_ASKED / 1024;
/// Connections to one provider that wait for the next request, and how long.
const POOL: Pool = Pool::Kept { most: 64, idle: Duration::from_secs(60) };
/// Refusals of one agent that are recorded in a row, and how long it takes until another one is.
const REFUSALS: (u32, Duration) = (10, Duration::from_secs(1));

/// Asks providers, on a thread of its own.
#[derive(Debug)]
pub struct Gateway {
    runtime: Handle,
}

/// What is served at the port of an agent.
#[derive(Debug)]
pub struct Port {
    /// The socket; it must not block.
    pub listener: TcpListener,
    /// The key that is good here.
    pub key: String,
    /// The models that the agent may ask; empty for all.
    pub declared: Vec<ModelName>,
    /// Whom it asks.
    pub providers: Arc<Providers>,
    /// Where its calls are recorded.
    pub log: Arc<dyn CallLog>,
}

pub(crate) struct PortState {
    key: String,
    pub(crate) declared: Vec<ModelName>,
    pub(crate) providers: Arc<Providers>,
    pub(crate) log: Arc<dyn CallLog>,
    pub(crate) client: Client<Full<Bytes>>,
    pub(crate) room: Semaphore,
    refusals: Mutex<(u32, Instant)>,
}

/// Ends the service of a port when it is dropped, with everything that is in flight there.
#[derive(Debug)]
pub struct Serving(JoinHandle<()>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Gateway {
    /// That of this process, started for the first who asks.
    ///
    /// # Errors
    /// When the process may have no further thread.
    pub fn of_this_process() -> Result<&'static Self, String> {
        static STARTED: OnceLock<Result<Gateway, String>> = OnceLock::new();
        STARTED.get_or_init(Self::start).as_ref().map_err(Clone::clone)
    }

    fn start() -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("make the runtime of the gateway: {error}"))?;
        let handle = runtime.handle().clone();
        std::thread::Builder::new()
            .name("gateway".to_owned())
            // It lives as long as the process.
            .spawn(move || runtime.block_on(std::future::pending::<()>()))
            .map_err(|error| format!("start the thread of the gateway: {error}"))?;
        Ok(Self { runtime: handle })
    }

    /// Serves a port until what is returned is dropped.
    ///
    /// # Errors
    /// When the socket cannot be watched.
    pub fn serve(&self, port: Port) -> Result<Serving, String> {
        let Port { listener, key, declared, providers, log } = port;
        let _entered = self.runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener)
            .map_err(|error| format!("watch the port of the agent: {error}"))?;
        let client = Client::new(Options {
            way: Way::new(NetworkReach::Shared),
            rule: AddressRule::NoMetadata,
            trust: Trust::Host,
            versions: Versions::Http2Too,
            pool: POOL,
        });
        let state = Arc::new(PortState {
            key,
            declared,
            providers,
            log,
            client,
            room: Semaphore::new(ROOM_KIB),
            refusals: Mutex::new((0, Instant::now())),
        });
        Ok(Serving(self.runtime.spawn(server::serve(listener, state))))
    }
}

impl PortState {
    /// Whether a client has the key of this port. Takes the same time wherever they differ.
    pub(crate) fn is_key(&self, key: &str) -> bool {
        let differs = self.key.bytes().zip(key.bytes()).fold(0, |differs, (a, b)| differs | (a ^ b));
        self.key.len() == key.len() && differs == 0 && !key.is_empty()
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
            first_content_ms: None,
            duration_ms: 0,
        };
        drop(self.log.record(EventKind::ModelAnswered { call: next_number(), receipt: Box::new(receipt) }));
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
