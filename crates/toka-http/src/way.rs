//! Connections to an agent: where it listens may be a network namespace of its own.
//!
//! A socket belongs to the namespace in which it was made. So only making it takes a visit there; the connection itself is
//! an ordinary one of the runtime, which ends when nobody waits for it any more.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use toka_sandbox::namespace::{Family, NetworkNamespace};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;

use crate::{AddressRule, HttpError};

/// A keeper that has not made a socket by then hangs: it takes less than a millisecond.
const MAKER_ANSWERS: Duration = Duration::from_secs(2);

/// Where an agent listens.
#[derive(Clone)]
pub enum NetworkReach {
    /// In the network that we are in ourselves.
    Shared,
    /// In a network namespace of its own: that of this process, which runs.
    Own {
        /// The agent's main process, as our /proc calls it.
        pid: i32,
    },
    /// In one that only the keeper may enter: it belongs to a user namespace.
    Kept(Arc<dyn MakesSockets>),
}

/// Makes sockets in a network that we may not enter ourselves.
pub trait MakesSockets: Send + Sync {
    /// A TCP socket that does not block.
    fn tcp_socket(
        &self,
        family: Family,
    ) -> Pin<Box<dyn Future<Output = Result<OwnedFd, String>> + Send + '_>>;
}

/// The way to an agent.
#[derive(Clone)]
pub struct Way {
    place: Place,
    /// Questions to the resolver at one time: one that hangs cannot be called back.
    lookup: Arc<Semaphore>,
    /// Whether a question waits for its turn, or fails when others have not been answered.
    waits: bool,
}

#[derive(Clone)]
enum Place {
    Here,
    There(Arc<NetworkNamespace>),
    Kept(Arc<dyn MakesSockets>),
    /// Why nobody gets there.
    Closed(String),
}

impl Way {
    /// The namespace is held from now on, so that a process id that is used again leads nowhere else.
    pub fn new(reach: NetworkReach) -> Self {
        let place = match reach {
            NetworkReach::Shared => Place::Here,
            NetworkReach::Own { pid } => match NetworkNamespace::of(pid) {
                Ok(namespace) => Place::There(Arc::new(namespace)),
                Err(error) => Place::Closed(no_way(&error)),
            },
            NetworkReach::Kept(sockets) => Place::Kept(sockets),
        };
        Self { place, lookup: Arc::new(Semaphore::new(1)), waits: false }
    }

    /// The same for many connections at one time: so many names are looked up at once, and further ones wait.
    pub fn patient(reach: NetworkReach, lookups: usize) -> Self {
        Self { lookup: Arc::new(Semaphore::new(lookups)), waits: true, ..Self::new(reach) }
    }

    /// Whether who makes the sockets answers: a keeper that hangs is no silence of the agent.
    pub async fn is_open(&self) -> bool {
        match &self.place {
            Place::Kept(sockets) => {
                tokio::time::timeout(MAKER_ANSWERS, sockets.tcp_socket(Family::V4)).await.is_ok()
            }
            Place::Here | Place::There(_) | Place::Closed(_) => true,
        }
    }

    /// Connects to the first address of `host` that takes us, of those that the rule allows.
    ///
    /// # Errors
    /// When there is none.
    pub async fn connect(&self, host: &str, port: u16, rule: AddressRule) -> Result<TcpStream, HttpError> {
        let found = self.addresses(host, port).await.map_err(HttpError::NoConnection)?;
        let (allowed, refused): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|address| rule.allows(address.ip()));
        if allowed.is_empty() && !refused.is_empty() {
            return Err(HttpError::Forbidden { host: host.to_owned() });
        }
        let mut last = format!("{host} has no address");
        for address in allowed {
            let socket = self.socket(address).await.map_err(HttpError::NoConnection)?;
            match socket.connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = format!("cannot connect to {address}: {}", plain(&error)),
            }
        }
        Err(HttpError::NoConnection(last))
    }

    async fn socket(&self, address: SocketAddr) -> Result<TcpSocket, String> {
        let family = if address.is_ipv4() { Family::V4 } else { Family::V6 };
        let made = match &self.place {
            Place::Closed(reason) => return Err(reason.clone()),
            Place::Kept(sockets) => {
                let socket = sockets.tcp_socket(family).await.map_err(|why| no_way_in(&why))?;
                Ok(TcpSocket::from_std_stream(socket.into()))
            }
            Place::Here if family == Family::V4 => TcpSocket::new_v4(),
            Place::Here => TcpSocket::new_v6(),
            Place::There(namespace) => {
                let namespace = Arc::clone(namespace);
                let visit = tokio::task::spawn_blocking(move || namespace.tcp_socket(family));
                match visit.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
                    Ok(socket) => Ok(TcpSocket::from_std_stream(socket.into())),
                    Err(error) => return Err(no_way(&error)),
                }
            }
        };
        made.map_err(|error| format!("cannot make a socket: {}", plain(&error)))
    }

    async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
        if let Some(known) = literal(host) {
            return Ok(known.into_iter().map(|address| SocketAddr::new(address, port)).collect());
        }
        let turn = match self.waits {
            true => Arc::clone(&self.lookup).acquire_owned().await.ok(),
            false => Arc::clone(&self.lookup).try_acquire_owned().ok(),
        };
        let Some(turn) = turn else {
            return Err(format!("the resolver has not answered yet who {host} is"));
        };
        let name = host.to_owned();
        let found = tokio::task::spawn_blocking(move || {
            let found = (name.as_str(), port).to_socket_addrs().map(Vec::from_iter);
            drop(turn);
            found
        });
        let found = found.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        found.map_err(|error| format!("cannot find {host}: {}", plain(&error)))
    }
}

/// What needs no resolver.
fn literal(host: &str) -> Option<Vec<IpAddr>> {
    if host.eq_ignore_ascii_case("localhost") {
        return Some(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    bare.parse().ok().map(|address| vec![address])
}

fn no_way_in(why: &str) -> String {
    format!("cannot enter the agent's network: {why}")
}

fn no_way(error: &io::Error) -> String {
    let reason = no_way_in(&plain(error));
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            format!("{reason}; that takes CAP_SYS_ADMIN; a `log_line` probe or `READY=1` does not")
        }
        _ => reason,
    }
}

/// An error of the system in its own words, without the number.
fn plain(error: &io::Error) -> String {
    let text = error.to_string().to_lowercase();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_an_address_is_not_looked_up() {
        let v6 = "::1".parse::<IpAddr>().expect("an address");
        assert_eq!(literal("127.0.0.2"), Some(vec![Ipv4Addr::new(127, 0, 0, 2).into()]));
        assert_eq!(literal("[::1]"), Some(vec![v6]));
        assert_eq!(literal("::1"), Some(vec![v6]));
        assert_eq!(literal("LocalHost").map(|found| found.len()), Some(2));
        assert_eq!(literal("example.org"), None);
    }

    #[test]
    fn where_the_way_is_closed_the_reason_says_what_works() {
        let denied = no_way(&io::Error::from_raw_os_error(libc_eperm()));
        assert!(denied.contains("operation not permitted") && denied.contains("`log_line`"), "{denied}");
        let other = no_way(&io::Error::from(io::ErrorKind::NotFound));
        assert!(!other.contains("log_line"), "{other}");
    }

    fn libc_eperm() -> i32 {
        nix::errno::Errno::EPERM as i32
    }

    #[tokio::test]
    async fn a_process_that_is_gone_has_no_network() {
        // Beyond the largest id that the kernel gives (proc(5), pid_max).
        let way = Way::new(NetworkReach::Own { pid: 4_194_305 });
        let reason = way.connect("127.0.0.1", 1, AddressRule::Any).await.expect_err("nobody is there");
        assert!(reason.to_string().starts_with("cannot enter the agent's network: no such"), "{reason}");
    }
}
