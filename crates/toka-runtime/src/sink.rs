//! Where events go. The runtime does not know what a journal is, only that an event is durable when it is told so.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use toka_core::{AgentName, EventKind, Kept};
use tokio::sync::oneshot;

/// Takes what happens to agents.
pub trait EventSink: Send + Sync + 'static {
    /// Takes an event about `agent`; events are kept in the order of these calls. Never blocks.
    fn emit(&self, agent: &AgentName, kind: EventKind) -> Durable;
}

/// Becomes ready when the event can no longer be lost, or waits in memory because the journal cannot be written: then what supervision needs goes on, and
/// whoever must not act without it on disk sees that. May be dropped by whoever need not know.
#[derive(Debug)]
pub struct Durable(oneshot::Receiver<Kept>);

impl Durable {
    /// A promise and the means to keep it. With the sender dropped there is nothing to wait for, and nothing on disk.
    pub fn pair() -> (oneshot::Sender<Kept>, Self) {
        let (tx, rx) = oneshot::channel();
        (tx, Self(rx))
    }
}

impl Future for Durable {
    type Output = Kept;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Kept> {
        Pin::new(&mut self.0).poll(cx).map(|kept| kept.unwrap_or(Kept::InMemory))
    }
}
