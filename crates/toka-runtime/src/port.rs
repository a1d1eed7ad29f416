//! The port at which somebody outside serves an agent: the runtime brings the socket to whom it concerns in each life, keeps it for a
//! keeper that succeeds another, and does not know what is said there.

use std::any::Any;
use std::fmt::Debug;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use toka_core::AgentName;

use crate::EventSink;

/// Serves what an agent connects to.
pub trait ServesPort: Debug + Send + Sync + 'static {
    /// Serves who connects to `listener`, which does not block, until what is returned is dropped. What happens is told to `sink`.
    ///
    /// # Errors
    /// Why it cannot be served, in words.
    fn serve(
        &self,
        listener: OwnedFd,
        agent: &AgentName,
        sink: Arc<dyn EventSink>,
    ) -> Result<Box<dyn Any + Send + Sync>, String>;
}

/// A port that is served: as long as this is there.
pub(crate) struct Served {
    /// Another descriptor of the same socket.
    listener: OwnedFd,
    _service: Box<dyn Any + Send + Sync>,
}

impl Served {
    /// Begins to serve.
    ///
    /// # Errors
    /// Why it cannot be served, in words.
    pub(crate) fn begin(
        service: &dyn ServesPort,
        listener: OwnedFd,
        agent: &AgentName,
        sink: Arc<dyn EventSink>,
    ) -> Result<Self, String> {
        let own = listener.try_clone().map_err(|error| error.to_string())?;
        let service = service.serve(listener, agent, sink)?;
        Ok(Self { listener: own, _service: service })
    }

    /// The socket once more, for a keeper to hold.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub(crate) fn duplicate(&self) -> std::io::Result<OwnedFd> {
        self.listener.try_clone()
    }
}
