//! HTTP at the port of an agent, and connections at the addresses at which Toka stands for hosts.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::batched::Batches;
use crate::egress::{self, TunnelPlace};
use crate::patient::Patient;
use crate::port::PortState;
use crate::requests::handle;

/// Connections that one agent may hold at a time.
const CONNECTIONS: usize = 2048;
/// Connections of which it is not known yet whose they are, and that wait for a place.
const UNKNOWN: usize = 64;
/// How long a client may take to send the head of a request; also how long an idle connection is kept.
const HEAD_WITHIN: Duration = Duration::from_secs(60);
/// Bytes of a request's head.
const HEAD: usize = 64 * 1024;
/// Headers of a request.
const HEADERS: usize = 128;

/// An address at which Toka stands for a host.
pub(crate) struct StandIn {
    pub(crate) listener: TcpListener,
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// Takes connections until it is dropped: requests at the port, and those for hosts at the addresses for them.
pub(crate) async fn serve(
    listener: TcpListener,
    hosts: Vec<StandIn>,
    (port, batches): (Arc<PortState>, Arc<Batches>),
    all: Arc<Semaphore>,
) {
    // No agent takes the room of the others.
    let room = Arc::new(Semaphore::new(CONNECTIONS.min(all.available_permits() / 2).max(8)));
    let rooms = (room, all);
    // They end with this.
    let _end = EndsBatches(Arc::clone(&batches));
    let mut services = tokio::task::JoinSet::new();
    for StandIn { listener, host, port: at } in hosts {
        let (port, host): (_, Arc<str>) = (Arc::clone(&port), host.into());
        // They are in a network that is the agent's alone.
        let is_own = |_| std::future::ready(true);
        services.spawn(accept(listener, rooms.clone(), is_own, move |stream| {
            let (port, host) = (Arc::clone(&port), Arc::clone(&host));
            async move { egress::stand_in(port, stream, &host, at).await }
        }));
    }
    let knows = Arc::clone(&port);
    let is_own = move |peer| {
        let port = Arc::clone(&knows);
        async move { port.is_own(peer).await }
    };
    accept(listener, rooms, is_own, move |stream| {
        connection(stream, Arc::clone(&port), Arc::clone(&batches))
    })
    .await;
}

/// Ends the calls that wait for batches when it is dropped.
struct EndsBatches(Arc<Batches>);

impl Drop for EndsBatches {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Takes connections until it is dropped, as many as there is room for, for this agent and for all. One that is not known to be the agent's takes no
/// room of the others.
async fn accept<A, F>(
    listener: TcpListener,
    (room, all): (Arc<Semaphore>, Arc<Semaphore>),
    is_own: impl Fn(SocketAddr) -> A,
    served: impl Fn(TcpStream) -> F,
) where
    A: Future<Output = bool> + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let unknown = Arc::new(Semaphore::new(UNKNOWN));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                // Out of descriptors, as a rule: the backlog keeps until some are free.
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
        };
        let Ok(waits) = Arc::clone(&unknown).acquire_owned().await else { return };
        let (is_own, room, all, service) =
            (is_own(peer), Arc::clone(&room), Arc::clone(&all), served(stream));
        connections.spawn(async move {
            if !is_own.await {
                return;
            }
            // Whoever waits for connections holds no place; one that has come waits for one.
            let places = (room.acquire_owned().await, all.acquire_owned().await);
            drop(waits);
            let (Ok(_place), Ok(_of_all)) = places else { return };
            service.await;
        });
    }
}

async fn connection(stream: TcpStream, port: Arc<PortState>, batches: Arc<Batches>) {
    // A token is sent when it comes (tcp(7), TCP_NODELAY).
    let _ = stream.set_nodelay(true);
    let tunnel = TunnelPlace::default();
    let service = service_fn(|request| {
        let (port, batches, tunnel) = (Arc::clone(&port), Arc::clone(&batches), Arc::clone(&tunnel));
        async move {
            Ok::<_, Infallible>(match egress::is_for_proxy(&port, &request) {
                true => egress::handle(port, request, &tunnel).await,
                false => handle(port, &batches, request).await,
            })
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(HEAD)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(Patient::new(stream)), service)
        .with_upgrades()
        .await;
    let tunnel = tunnel.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(tunnel) = tunnel {
        return tunnel.run().await;
    }
    if let Err(error) = served {
        tracing::debug!(%error, "a connection of an agent broke off");
    }
}
