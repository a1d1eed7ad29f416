//! The ports at which somebody outside serves an agent: the runtime brings the sockets to whom it concerns in each life, keeps them for a
//! keeper that succeeds another, and does not know what is said there.

use std::any::Any;
use std::fmt::Debug;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use toka_core::AgentName;

use crate::EventSink;

/// Serves what an agent connects to.
pub trait ServesPort: Debug + Send + Sync + 'static {
    /// Serves who connects to one of `listeners`, which do not block and have addresses of their own, until what is returned is dropped. What happens is told to `sink`.
    ///
    /// # Errors
    /// Why it cannot be served, in words.
    fn serve(
        &self,
        listeners: Vec<OwnedFd>,
        agent: &AgentName,
        sink: Arc<dyn EventSink>,
    ) -> Result<Box<dyn Any + Send + Sync>, String>;
}

/// Ports that are served: as long as this is there.
pub(crate) struct Served {
    /// Other descriptors of the same sockets.
    listeners: Vec<OwnedFd>,
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
        sink: Arc<dyn EventSink>,
    ) -> Result<Self, String> {
        let own = again(&listeners).map_err(|error| error.to_string())?;
        let service = service.serve(listeners, agent, sink)?;
        Ok(Self { listeners: own, _service: service })
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
