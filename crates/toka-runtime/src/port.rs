//! The ports at which somebody outside serves an agent: the runtime brings the sockets to whom it concerns in each life, keeps them for a
//! keeper that succeeds another, and does not know what is said there.

use std::any::Any;
use std::fmt::Debug;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use toka_core::AgentName;

use crate::{EventSink, KnowsPeers};

/// Serves what an agent connects to.
pub trait ServesPort: Debug + Send + Sync + 'static {
    /// Serves who connects to one of `listeners`, which do not block and have addresses of their own, until what is returned is dropped. `peers` knows who is of the agent
    /// where others are in its network. What happens is told to `sink`.
    ///
    /// # Errors
    /// Why it cannot be served, in words.
    fn serve(
        &self,
        listeners: Vec<OwnedFd>,
        agent: &AgentName,
        peers: Arc<dyn KnowsPeers>,
        sink: Arc<dyn EventSink>,
    ) -> Result<Box<dyn Any + Send + Sync>, String>;
}

/// Ports that are served: as long as this is there.
pub(crate) struct Served {
    /// Other descriptors of the same sockets.
    listeners: Vec<OwnedFd>,
    /// The agent's main process, by which those who connect are known.
    main: Arc<AtomicI32>,
    _service: Box<dyn Any + Send + Sync>,
}

impl Served {
    /// Begins to serve.
    ///
    /// # Errors
    /// Why it cannot be served, in words.
    pub(crate) fn begin(
        service: &dyn ServesPort,
        listeners: Vec<OwnedFd>,
        agent: &AgentName,
        (peers, main): (Arc<dyn KnowsPeers>, Arc<AtomicI32>),
        sink: Arc<dyn EventSink>,
    ) -> Result<Self, String> {
        let own = again(&listeners).map_err(|error| error.to_string())?;
        let service = service.serve(listeners, agent, peers, sink)?;
        Ok(Self { listeners: own, main, _service: service })
    }

    /// Another process of the agent is its main one from now on.
    pub(crate) fn main_process_is(&self, pid: i32) {
        self.main.store(pid, Ordering::Relaxed);
    }

    /// The sockets once more, for a keeper to hold.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub(crate) fn duplicates(&self) -> std::io::Result<Vec<OwnedFd>> {
        again(&self.listeners)
    }
}

fn again(descriptors: &[OwnedFd]) -> std::io::Result<Vec<OwnedFd>> {
    descriptors.iter().map(OwnedFd::try_clone).collect()
}
