//! The port at which an agent of a project reaches models and hosts: the gateway serves it, and what happens there goes into the journal.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::net::{SocketAddr, SocketAddrV4, TcpListener};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use toka_broker::Broker;
use toka_core::approval::Subject;
use toka_core::model::OWN_ADDRESS;
use toka_core::{AgentName, Amounts, EventKind, HostRule, Kept, ModelName};
use toka_gateway::{
    Asker, Asks, BatchPace, CallLog, Callers, Current, Gate, Gateway, KnownSecrets, LeftBatch, Port,
};
use toka_runtime::{EventSink, KnowsPeers, Sent, ServesPort};
use toka_session::{AsksPersons, OpensModels};

/// Serves the port of one agent in each of its lives.
#[derive(Debug)]
pub(crate) struct AgentPort {
    /// The agent's name in its file.
    pub(crate) declared_name: AgentName,
    /// The key that is good for models there; `None` when it asks none.
    pub(crate) key: Option<String>,
    /// The models that the agent may ask; empty for all.
    pub(crate) declared: Vec<ModelName>,
    /// Whom it asks.
    pub(crate) providers: Arc<Current>,
    /// Whether requests that are the same get one answer.
    pub(crate) joins: bool,
    /// Whether requests that want no stream go through the provider's batch interface.
    pub(crate) batches: bool,
    /// Batches of it that the daemon before has begun: the first life that is served here gets their answers.
    pub(crate) left: Mutex<Vec<LeftBatch>>,
    /// The secrets of the run.
    pub(crate) secrets: Arc<KnownSecrets>,
    /// Who decides whether it may.
    pub(crate) broker: Arc<Broker>,
    /// Where it finds hosts that it may reach without knowing a proxy, in the order of their sockets.
    pub(crate) stand_ins: Vec<(SocketAddrV4, String)>,
    /// The hosts that it may reach.
    pub(crate) hosts: Vec<HostRule>,
    /// Whether a person is asked about others.
    pub(crate) asks_hosts: bool,
    /// Most bytes a second to and from them.
    pub(crate) rate: Option<u64>,
}

/// The way to models of an agent whose session this daemon keeps.
#[derive(Debug)]
pub(crate) struct SessionModels {
    /// The agent's name in its file.
    pub(crate) declared_name: AgentName,
    /// The models that it may ask; empty for all.
    pub(crate) declared: Vec<ModelName>,
    /// Whom it asks.
    pub(crate) providers: Arc<Current>,
    /// The secrets of the run.
    pub(crate) secrets: Arc<KnownSecrets>,
    /// Who decides whether it may.
    pub(crate) broker: Arc<Broker>,
}

/// Asks persons through the broker of the run.
#[derive(Debug)]
pub(crate) struct Persons(pub(crate) Arc<Broker>);

impl AsksPersons for Persons {
    fn ask(&self, agent: &AgentName, subject: Subject) -> Sent<Result<Option<String>, String>> {
        let (broker, agent) = (Arc::clone(&self.0), agent.clone());
        Box::pin(async move { broker.ask_person(&agent, &subject).await })
    }
}

impl OpensModels for SessionModels {
    fn open(&self, agent: &AgentName, sink: Arc<dyn EventSink>) -> Result<Asker, String> {
        let gate = AgentGate {
            agent: agent.clone(),
            declared: self.declared_name.clone(),
            broker: Arc::clone(&self.broker),
        };
        Ok(Gateway::of_this_process()?.asker(Asks {
            agent: agent.clone(),
            declared: self.declared.clone(),
            providers: Arc::clone(&self.providers),
            secrets: Arc::clone(&self.secrets),
            log: Arc::new(Journalled { agent: agent.clone(), sink }),
            gate: Arc::new(gate),
        }))
    }
}

/// The gate of one agent.
#[derive(Debug)]
struct AgentGate {
    agent: AgentName,
    /// The name in its file.
    declared: AgentName,
    broker: Arc<Broker>,
}

impl Gate for AgentGate {
    fn admit(
        &self,
        call: u64,
        most: Amounts,
    ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'static>> {
        let (agent, broker) = (self.agent.clone(), Arc::clone(&self.broker));
        Box::pin(async move { broker.admit(&agent, call, most).await })
    }

    fn admit_host(
        &self,
        host: String,
        port: u16,
    ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'static>> {
        let (agent, declared) = (self.agent.clone(), self.declared.clone());
        let broker = Arc::clone(&self.broker);
        Box::pin(async move { broker.admit_host((&agent, &declared), &host, port).await })
    }
}

impl ServesPort for AgentPort {
    fn serve(
        &self,
        listeners: Vec<OwnedFd>,
        agent: &AgentName,
        peers: Arc<dyn KnowsPeers>,
        sink: Arc<dyn EventSink>,
    ) -> Result<Box<dyn Any + Send + Sync>, String> {
        let mut listeners = listeners.into_iter().map(TcpListener::from);
        let listener = listeners.next().ok_or("its socket was lost")?;
        // By the address, and not by the order: a keeper that is older than its daemon may have made them for another list.
        let place = |listener: &TcpListener| {
            let own = listener.local_addr().ok()?;
            self.stand_ins.iter().find(|(address, _)| SocketAddr::V4(*address) == own)
        };
        let stand_ins = listeners
            .filter_map(|listener| {
                let (address, host) = place(&listener)?;
                Some((listener, host.clone(), address.port()))
            })
            .collect();
        let is_alone = listener.local_addr().is_ok_and(|address| address == SocketAddr::V4(OWN_ADDRESS));
        let callers = (!is_alone).then(|| Arc::new(AgentProcesses(peers)) as Arc<dyn Callers>);
        let port = Port {
            callers,
            stand_ins,
            agent: agent.clone(),
            listener,
            joins: self.joins,
            batches: self.batches.then(BatchPace::default),
            left: std::mem::take(&mut *self.left.lock().unwrap_or_else(PoisonError::into_inner)),
            secrets: Arc::clone(&self.secrets),
            key: self.key.clone(),
            declared: self.declared.clone(),
            providers: Arc::clone(&self.providers),
            hosts: self.hosts.clone(),
            asks_hosts: self.asks_hosts,
            rate: self.rate,
            gate: Arc::new(AgentGate {
                agent: agent.clone(),
                declared: self.declared_name.clone(),
                broker: Arc::clone(&self.broker),
            }),
            log: Arc::new(Journalled { agent: agent.clone(), sink }),
        };
        Ok(Box::new(Gateway::of_this_process()?.serve(port)?))
    }
}

/// The processes of an agent that shares its network.
#[derive(Debug)]
struct AgentProcesses(Arc<dyn KnowsPeers>);

impl Callers for AgentProcesses {
    fn is_own(&self, own: SocketAddr, peer: SocketAddr) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        self.0.is_own(own, peer)
    }
}

/// Records what happens at a port as events of its agent.
struct Journalled {
    agent: AgentName,
    sink: Arc<dyn EventSink>,
}

impl fmt::Debug for Journalled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journalled").field("agent", &self.agent).finish_non_exhaustive()
    }
}

impl CallLog for Journalled {
    fn record(&self, kind: EventKind) -> Pin<Box<dyn Future<Output = Kept> + Send + 'static>> {
        Box::pin(self.sink.emit(&self.agent, kind))
    }
}

/// Closes the ports of all agents of this process, before another program takes its place: each call in flight gets its receipt, and the
/// agents find the next program at the same ports.
pub async fn close_ports() {
    let close = || Gateway::close_all(Duration::from_secs(2));
    let _ = tokio::task::spawn_blocking(close).await;
}
