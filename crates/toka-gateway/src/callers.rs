//! Who may use the port of an agent, where others are in the network that it is in.

use std::fmt::Debug;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;

/// Tells the processes of an agent from others that reach its port.
pub trait Callers: Debug + Send + Sync + 'static {
    /// Whether a process of the agent made the connection from `peer` to `own`.
    fn is_own(&self, own: SocketAddr, peer: SocketAddr) -> Pin<Box<dyn Future<Output = bool> + Send + '_>>;
}
