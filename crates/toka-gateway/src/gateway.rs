//! The thread on which all calls of this process are made, and the ports that it serves.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::Bytes;
use toka_core::{AgentName, HostRule, ModelName};
use toka_http::{AddressRule, Client, NetworkReach, Options, Pool, Trust, Versions, Way};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinHandle};

use crate::batched::Batches;
use crate::hosts::Hosts;
use crate::log::are_recorded;
use crate::port::PortState;
use crate::port_end::PortEnd;
use crate::server::StandIn;
use crate::{
    Asker, Asks, BatchPace, CallLog, Callers, Current, Gate, KnownSecrets, LeftBatch, Recorder, asker, server,
};

/// Connections to one provider that wait for the next request, and how long.
const POOL: Pool = Pool::Kept { most: 64, idle: Duration::from_secs(60) };
static STARTED: OnceLock<Result<Gateway, String>> = OnceLock::new();

/// The service of a port, and where the reason is told for which it ends.
type Served = (AbortHandle, Arc<OnceLock<PortEnd>>);

/// Asks providers, on a thread of its own.
#[derive(Debug)]
pub struct Gateway {
    runtime: Handle,
    /// Connections of all agents together.
    room: Arc<Semaphore>,
    /// Where answers are recorded, if somebody wants that.
    recorder: OnceLock<Arc<Recorder>>,
    /// The ports that are served, and some that are not any more.
    tasks: Mutex<Vec<Served>>,
}

/// What is served at the port of an agent.
#[derive(Debug)]
pub struct Port {
    /// Whose it is.
    pub agent: AgentName,
    /// The socket; it must not block.
    pub listener: TcpListener,
    /// Who may connect, where others are in its network; `None` where nobody is.
    pub callers: Option<Arc<dyn Callers>>,
    /// The key that is good for models here; `None` for an agent that asks none.
    pub key: Option<String>,
    /// The models that the agent may ask; empty for all.
    pub declared: Vec<ModelName>,
    /// Whom it asks.
    pub providers: Arc<Current>,
    /// Whether requests that are the same, and in flight at one time, get one answer.
    pub joins: bool,
    /// How calls are gathered for the provider's batch interface; `None` to make each at once.
    pub batches: Option<BatchPace>,
    /// Batches that a process before this one has begun for the agent, and not seen the end of.
    pub left: Vec<LeftBatch>,
    /// What must not leave.
    pub secrets: Arc<KnownSecrets>,
    /// Where its calls are recorded.
    pub log: Arc<dyn CallLog>,
    /// Who decides whether they may be made.
    pub gate: Arc<dyn Gate>,
    /// Sockets at which Toka stands for hosts, each with the host and its port; they must not block.
    pub stand_ins: Vec<(TcpListener, String, u16)>,
    /// The hosts that the agent may reach through it.
    pub hosts: Vec<HostRule>,
    /// Whether a person is asked about others.
    pub asks_hosts: bool,
    /// Most bytes a second to and from those hosts together.
    pub rate: Option<u64>,
}

/// Ends the service of a port when it is dropped, with everything that is in flight there.
#[derive(Debug)]
pub struct Serving {
    task: JoinHandle<()>,
    end: Arc<OnceLock<PortEnd>>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.end.set(PortEnd::Closed);
        self.task.abort();
    }
}

impl Gateway {
    /// That of this process, started for the first who asks.
    ///
    /// # Errors
    /// When the process may have no further thread.
    pub fn of_this_process() -> Result<&'static Self, String> {
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
        let room = Arc::new(Semaphore::new(connections()));
        Ok(Self { runtime: handle, room, recorder: OnceLock::new(), tasks: Mutex::default() })
    }

    /// Records from now on what models say at ports that are served later.
    pub fn record(&self) -> Arc<Recorder> {
        Arc::clone(self.recorder.get_or_init(Arc::default))
    }

    /// Closes every port of this process, before another program takes its place: each call in flight gets its receipt. The sockets
    /// live on. Blocks for a moment, at most for `within`.
    pub fn close_all(within: Duration) {
        let Some(Ok(gateway)) = STARTED.get() else { return };
        let tasks = std::mem::take(&mut *gateway.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for (task, end) in &tasks {
            let _ = end.set(PortEnd::Succeeded);
            task.abort();
        }
        let begun = Instant::now();
        // Each port and each receipt that is not written holds the reason; beside them the list does, and whoever has the port served.
        let is_over = |(task, end): &Served| task.is_finished() && Arc::strong_count(end) <= 2;
        let is_done = || tasks.iter().all(is_over) && are_recorded();
        while !is_done() && begun.elapsed() < within {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Serves a port until what is returned is dropped.
    ///
    /// # Errors
    /// When the socket cannot be watched.
    pub fn serve(&self, port: Port) -> Result<Serving, String> {
        let Port {
            agent,
            listener,
            callers,
            key,
            declared,
            providers,
            joins,
            batches: pace,
            left,
            secrets,
            log,
            gate,
            stand_ins,
            hosts,
            asks_hosts,
            rate,
        } = port;
        let is_served = |(task, _): &Served| !task.is_finished();
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).retain(is_served);
        let _entered = self.runtime.enter();
        let watch = |listener| {
            tokio::net::TcpListener::from_std(listener)
                .map_err(|error| format!("watch the port of the agent: {error}"))
        };
        let listener = watch(listener)?;
        let stand_ins: Vec<StandIn> = stand_ins
            .into_iter()
            .map(|(listener, host, port)| Ok(StandIn { listener: watch(listener)?, host, port }))
            .collect::<Result<_, String>>()?;
        let client = client();
        let address =
            listener.local_addr().map_err(|error| format!("ask where the port of the agent is: {error}"))?;
        let (end, hosts) = (Arc::default(), Hosts::new(hosts, asks_hosts, rate));
        let recorder = self.recorder.get().cloned();
        let served = crate::port::Served {
            recorder,
            agent,
            callers,
            key,
            declared,
            providers,
            log,
            gate,
            hosts,
            joins,
            secrets,
        };
        let state = Arc::new(PortState::new(served, client, address, Arc::clone(&end)));
        let batches = Arc::new(Batches::new(pace));
        batches.go_on(&state, left);
        let task =
            self.runtime.spawn(server::serve(listener, stand_ins, (state, batches), Arc::clone(&self.room)));
        self.tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((task.abort_handle(), Arc::clone(&end)));
        Ok(Serving { task, end })
    }
}

impl Gateway {
    /// Lets this process ask for an agent whose session it keeps.
    pub fn asker(&self, asks: Asks) -> Asker {
        let Asks { agent, declared, providers, secrets, log, gate } = asks;
        let _entered = self.runtime.enter();
        let end: Arc<OnceLock<PortEnd>> = Arc::default();
        let served = crate::port::Served {
            recorder: self.recorder.get().cloned(),
            agent,
            callers: None,
            key: None,
            declared,
            providers,
            log,
            gate,
            hosts: Hosts::new(Vec::new(), false, None),
            // Each request of a session is another.
            joins: false,
            secrets,
        };
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let state = Arc::new(PortState::new(served, client(), nowhere, Arc::clone(&end)));
        let (requests, queue) = mpsc::unbounded_channel();
        let task = self.runtime.spawn(asker::serve(queue, Arc::clone(&state)));
        self.tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((task.abort_handle(), Arc::clone(&end)));
        Asker::new(state, requests, Serving { task, end })
    }
}

/// What asks providers.
fn client() -> Client<Full<Bytes>> {
    Client::new(Options {
        way: Way::new(NetworkReach::Shared),
        rule: AddressRule::NoMetadata,
        trust: Trust::Host,
        versions: Versions::Http2Too,
        pool: POOL,
    })
}

/// Connections that all agents together may hold: a third of the descriptors that this process may have, as each call has two.
fn connections() -> usize {
    let most = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
    most.map_or(256, |(soft, _)| usize::try_from(soft / 3).unwrap_or(usize::MAX))
        .clamp(16, Semaphore::MAX_PERMITS)
}
