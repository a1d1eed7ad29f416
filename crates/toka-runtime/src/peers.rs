//! Who has connected to the port of an agent, where others are in the same network: the kernel lists which socket belongs to a connection
//! (proc_pid_net(5)), and which process holds that socket (proc_pid_fd(5)); the keeper says whose process that is.

use std::collections::HashSet;
use std::fmt::{self, Debug};
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use toka_keeper::ProcessId;
use tokio::sync::Semaphore;

use crate::processes::Processes;

/// Connections that are looked at at one time: each reads some hundred files below /proc.
const AT_ONCE: usize = 2;

/// Knows which connections are those of one agent.
pub trait KnowsPeers: Debug + Send + Sync + 'static {
    /// Whether a process of the agent holds the other end of the connection from `peer` to `own`.
    fn is_own(&self, own: SocketAddr, peer: SocketAddr) -> Pin<Box<dyn Future<Output = bool> + Send + '_>>;
}

/// Looks into the network of one agent's main process.
pub(crate) struct Peers<P> {
    processes: P,
    id: ProcessId,
    /// Its main process, in whose network it is.
    main: Arc<AtomicI32>,
    places: Semaphore,
}

impl<P> Peers<P> {
    /// For the agent `id`, whose main process `main` names.
    pub(crate) fn new(processes: P, id: ProcessId, main: Arc<AtomicI32>) -> Self {
        Self { processes, id, main, places: Semaphore::new(AT_ONCE) }
    }
}

impl<P> Debug for Peers<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers").field("id", &self.id).finish_non_exhaustive()
    }
}

impl<P: Processes> KnowsPeers for Peers<P> {
    fn is_own(&self, own: SocketAddr, peer: SocketAddr) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        Box::pin(async move {
            let (SocketAddr::V4(own), SocketAddr::V4(peer)) = (own, peer) else { return false };
            let Ok(_place) = self.places.acquire().await else { return false };
            let pid = self.main.load(Ordering::Relaxed);
            let found =
                tokio::task::spawn_blocking(move || holders(Path::new("/proc"), pid, peer, own)).await;
            for pid in found.unwrap_or_default() {
                if self.processes.owner_of(pid).await == Some(self.id) {
                    return true;
                }
            }
            false
        })
    }
}

/// Who holds the socket that is at `at` and is connected to `to`, in the network of the process `pid`. What descends from that is looked at
/// first: as a rule it is one of those, and the host has many others.
fn holders(proc: &Path, pid: i32, at: SocketAddrV4, to: SocketAddrV4) -> Vec<i32> {
    let network = proc.join(pid.to_string()).join("net");
    let table = |name: &str| std::fs::read_to_string(network.join(name)).unwrap_or_default();
    let found = socket_of(&table("tcp"), at, to).or_else(|| socket_of(&table("tcp6"), at, to));
    let Some(Socket { uid, inode }) = found else { return Vec::new() };
    let own = descendants(proc, pid);
    let holds = |pid: &i32| holds(proc, *pid, inode);
    let mut pids: Vec<i32> = own.iter().copied().filter(holds).collect();
    if pids.is_empty() {
        let is_other = |pid: &i32| !own.contains(pid) && belongs_to(proc, *pid, uid);
        pids = numbers_in(proc).filter(is_other).filter(holds).collect();
    }
    pids
}

#[derive(Debug, PartialEq, Eq)]
struct Socket {
    uid: u32,
    inode: u64,
}

/// The socket with these two ends in a table of TCP, whose columns are `sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode`.
fn socket_of(table: &str, at: SocketAddrV4, to: SocketAddrV4) -> Option<Socket> {
    table.lines().skip(1).find_map(|line| {
        let columns: Vec<&str> = line.split_ascii_whitespace().take(10).collect();
        let [_, local, remote, _, _, _, _, uid, _, inode] = columns[..] else { return None };
        (end(local)? == at && end(remote)? == to)
            .then(|| Some(Socket { uid: uid.parse().ok()?, inode: inode.parse().ok()? }))?
    })
}

/// An end as the tables have it: the address in words of the host's byte order, an IPv4 one also as `::ffff:a.b.c.d`.
fn end(text: &str) -> Option<SocketAddrV4> {
    let (address, port) = text.split_once(':')?;
    let word = match address.len() {
        8 => address,
        32 => address.strip_prefix("0000000000000000FFFF0000")?,
        _ => return None,
    };
    let octets = u32::from_str_radix(word, 16).ok()?.to_ne_bytes();
    Some(SocketAddrV4::new(Ipv4Addr::from(octets), u16::from_str_radix(port, 16).ok()?))
}

/// The process and everything that descends from it.
fn descendants(proc: &Path, pid: i32) -> HashSet<i32> {
    let mut found = HashSet::from([pid]);
    let mut open = vec![pid];
    while let Some(pid) = open.pop() {
        let tasks = proc.join(pid.to_string()).join("task");
        for task in numbers_in(&tasks) {
            let children = std::fs::read_to_string(tasks.join(task.to_string()).join("children"));
            let children = children.unwrap_or_default();
            let children = children.split_ascii_whitespace().filter_map(|child| child.parse().ok());
            open.extend(children.filter(|child| found.insert(*child)));
        }
    }
    found
}

fn numbers_in(folder: &Path) -> impl Iterator<Item = i32> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn belongs_to(proc: &Path, pid: i32, uid: u32) -> bool {
    std::fs::metadata(proc.join(pid.to_string())).is_ok_and(|found| found.uid() == uid)
}

fn holds(proc: &Path, pid: i32, inode: u64) -> bool {
    let wanted = PathBuf::from(format!("socket:[{inode}]"));
    let folder = proc.join(pid.to_string()).join("fd");
    let descriptors = std::fs::read_dir(folder).into_iter().flatten().flatten();
    descriptors.filter_map(|entry| std::fs::read_link(entry.path()).ok()).any(|target| target == wanted)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_holder_of_a_connection_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let SocketAddr::V4(own) = listener.local_addr().expect("bound") else { panic!("IPv4") };
        let client = TcpStream::connect(own).expect("a connection");
        let SocketAddr::V4(peer) = client.local_addr().expect("connected") else { panic!("IPv4") };
        let pid = i32::try_from(std::process::id()).expect("a number");
        let find = || holders(Path::new("/proc"), pid, peer, own);
        assert_eq!(find(), [pid]);
        // Whoever does not descend from the main process is found as well.
        let mut other = std::process::Command::new("sleep").arg("1000").spawn().expect("a process");
        let child = i32::try_from(other.id()).expect("a number");
        assert_eq!(holders(Path::new("/proc"), child, peer, own), [pid]);
        other.kill().and_then(|()| other.wait()).expect("ours");
        let (accepted, _) = listener.accept().expect("a connection");
        drop((client, accepted));
        assert!(find().is_empty(), "nobody holds it");
    }

    #[test]
    fn a_table_is_read_as_the_kernel_writes_it() {
        let word = |address: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(address));
        let (ours, theirs) = (word([127, 128, 3, 4]), word([127, 0, 0, 1]));
        let table = format!(
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: {ours}:1CF3 {theirs}:9C40 01 00000000:00000000 00:00000000 00000000  1000        0 11 1 0 20 4 30 10 -1\n\
             1: {theirs}:9C40 {ours}:1CF3 01 00000000:00000000 00:00000000 00000000  1000        0 12 1 0 20 4 30 10 -1\n\
             2: short\n"
        );
        let at = "127.0.0.1:40000".parse().expect("an address");
        let to = "127.128.3.4:7411".parse().expect("an address");
        assert_eq!(socket_of(&table, at, to), Some(Socket { uid: 1000, inode: 12 }));
        assert_eq!(socket_of(&table, to, at), Some(Socket { uid: 1000, inode: 11 }));
        let mapped = table.replace(&theirs, &format!("0000000000000000FFFF0000{theirs}"));
        assert_eq!(socket_of(&mapped, at, to), Some(Socket { uid: 1000, inode: 12 }));
        assert_eq!(socket_of("", at, to), None);
    }
}
