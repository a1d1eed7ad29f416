//! Where events go. The runtime does not know what a journal is, only that an event is durable when it is told so.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use toka_core::{AgentName, EventKind};
use tokio::sync::oneshot;

/// Takes what happens to agents.
pub trait EventSink: Send + Sync + 'static {
    /// Takes an event about `agent`; events are kept in the order of these calls. Never blocks.
    fn emit(&self, agent: &AgentName, kind: EventKind) -> Durable;
}

/// Becomes ready when the event can no longer be lost. May be dropped by whoever need not know.
#[derive(Debug)]
pub struct Durable(oneshot::Receiver<()>);

impl Durable {
    /// A promise and the means to keep it; dropping the sender counts as kept, since there is nothing to wait for.
    pub fn pair() -> (oneshot::Sender<()>, Self) {
        let (tx, rx) = oneshot::channel();
        (tx, Self(rx))
    }
}

impl Future for Durable {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx).map(|_| ())
    }
}
