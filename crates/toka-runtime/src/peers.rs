//! Who has connected to the port of an agent, where others are in the same network: the kernel says which socket belongs to a connection
//! (sock_diag(7), proc_pid_net(5)), and which process holds that socket (proc_pid_fd(5)); the keeper says whose process that is.
//!
//! Everybody who can connect can have this asked, so what it costs is bounded: processes that descend from the agent's are looked at first, those of other users never,
//! all of the agent's user one connection at a time.

use std::collections::HashSet;
use std::fmt::{self, Debug};
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use toka_keeper::ProcessId;
use tokio::sync::Semaphore;

use crate::processes::Processes;
use crate::socket_diag::{self, Socket};

/// Connections that are looked at at one time, and those of them for which all processes of the user are looked through.
const AT_ONCE: usize = 4;
const THOROUGHLY_AT_ONCE: usize = 1;
/// How long a look may take; who cannot be found within it is nobody.
const LOOKS_FOR: Duration = Duration::from_secs(10);
/// Processes that may hold one socket: of more, the first count.
const MOST_HOLDERS: usize = 64;

/// Knows which connections are those of one agent.
pub trait KnowsPeers: Debug + Send + Sync + 'static {
    /// Whether a process of the agent holds the other end of the connection from `peer` to `own`.
    fn is_own(&self, own: SocketAddr, peer: SocketAddr) -> Pin<Box<dyn Future<Output = bool> + Send + '_>>;
}

/// Looks into the network of one agent's processes.
pub(crate) struct Peers<P> {
    processes: P,
    id: ProcessId,
    /// Its first process, and its main one, in whose network it is.
    first: i32,
    main: Arc<AtomicI32>,
    places: Semaphore,
    thorough: Semaphore,
}

impl<P> Peers<P> {
    /// For the agent `id`, whose main process `main` names.
    pub(crate) fn new(processes: P, id: ProcessId, main: Arc<AtomicI32>) -> Self {
        let first = main.load(Ordering::Relaxed);
        let (places, thorough) = (Semaphore::new(AT_ONCE), Semaphore::new(THOROUGHLY_AT_ONCE));
        Self { processes, id, first, main, places, thorough }
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
            tokio::time::timeout(LOOKS_FOR, self.made(peer, own)).await.unwrap_or(false)
        })
    }
}

impl<P: Processes> Peers<P> {
    /// Whether the agent has made the connection from `at` to `to`.
    async fn made(&self, at: SocketAddrV4, to: SocketAddrV4) -> bool {
        let mains = [self.main.load(Ordering::Relaxed), self.first];
        let look = move || {
            let proc = Path::new("/proc");
            let socket = socket(proc, mains, at, to)?;
            let own = mains.iter().flat_map(|pid| descendants(proc, *pid)).collect::<HashSet<i32>>();
            Some((socket, holders(proc, socket, own.iter().copied(), Depth::EveryThread), own))
        };
        let Ok(place) = self.places.acquire().await else { return false };
        let Some((socket, near, own)) = blocking(look).await.flatten() else { return false };
        drop(place);
        if self.any_is_own(&near.holding, socket).await {
            return true;
        }
        // Whoever is of another user is none of its processes, and not worth the look at all of them.
        if !near.holding.is_empty() || Some(socket.uid) != user_of(mains) {
            return false;
        }
        let Ok(_place) = self.thorough.acquire().await else { return false };
        let all = blocking(move || {
            let proc = Path::new("/proc");
            let is_other = |pid: &i32| !own.contains(pid) && user(proc, *pid) == Some(socket.uid);
            holders(proc, socket, numbers_in(proc).filter(is_other), Depth::Process)
        });
        let Some(far) = all.await else { return false };
        if !far.holding.is_empty() {
            return self.any_is_own(&far.holding, socket).await;
        }
        // A process that has made itself undumpable shows its descriptors to nobody but root (prctl(2)). One of them holds it.
        self.any_is_own_process(near.hidden.iter().chain(&far.hidden)).await
    }

    /// Whether one of these is the agent's, and holds the socket still: its number may be another's by now.
    async fn any_is_own(&self, holding: &[i32], socket: Socket) -> bool {
        for pid in holding.iter().copied().take(MOST_HOLDERS) {
            let holds = move || holders(Path::new("/proc"), socket, [pid].into_iter(), Depth::EveryThread);
            if self.processes.owner_of(pid).await == Some(self.id)
                && blocking(holds).await.is_some_and(|found| !found.holding.is_empty())
            {
                return true;
            }
        }
        false
    }

    async fn any_is_own_process(&self, pids: impl Iterator<Item = &i32> + Send) -> bool {
        for pid in pids.copied().take(MOST_HOLDERS) {
            if self.processes.owner_of(pid).await == Some(self.id) {
                return true;
            }
        }
        false
    }
}

async fn blocking<T: Send + 'static>(look: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(look).await.ok()
}

/// The socket that is at `at` and is connected to `to`, in the network of the first of these processes that can be looked into. In this process's own network
/// the kernel finds it at once.
fn socket(proc: &Path, mains: [i32; 2], at: SocketAddrV4, to: SocketAddrV4) -> Option<Socket> {
    let network = |pid: &str| std::fs::read_link(proc.join(pid).join("ns/net")).ok();
    let found = mains.iter().find_map(|pid| Some((pid, network(&pid.to_string())?)));
    if found.as_ref().is_none_or(|(_, of)| Some(of) == network("self").as_ref())
        && let Ok(found) = socket_diag::find(at, to)
    {
        return found.filter(|socket| socket.inode != 0);
    }
    let pid = found.map_or(mains[0], |(pid, _)| *pid);
    let process = proc.join(pid.to_string());
    // Of a process whose first thread has ended, the others tell.
    let threads =
        numbers_in(&process.join("task")).map(|thread| process.join("task").join(thread.to_string()));
    let folders = [process.clone()].into_iter().chain(threads);
    let table = |folder: &Path, name: &str| {
        std::fs::read_to_string(folder.join("net").join(name)).unwrap_or_default()
    };
    folders
        .map(|folder| (table(&folder, "tcp"), table(&folder, "tcp6")))
        .find(|(tcp, _)| !tcp.is_empty())
        .and_then(|(tcp, tcp6)| socket_of(&tcp, at, to).or_else(|| socket_of(&tcp6, at, to)))
}

/// The socket with these two ends in a table of TCP, whose columns are `sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode`.
fn socket_of(table: &str, at: SocketAddrV4, to: SocketAddrV4) -> Option<Socket> {
    table.lines().skip(1).find_map(|line| {
        let columns: Vec<&str> = line.split_ascii_whitespace().take(10).collect();
        let [_, local, remote, _, _, _, _, uid, _, inode] = columns[..] else { return None };
        let socket = || Some(Socket { uid: uid.parse().ok()?, inode: inode.parse().ok()? });
        (end(local)? == at && end(remote)? == to).then(socket)?.filter(|socket| socket.inode != 0)
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

fn numbers_in(folder: &Path) -> impl Iterator<Item = i32> + use<> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The real user of a process; the owner of its folder may be root (proc(5)).
fn user(proc: &Path, pid: i32) -> Option<u32> {
    let status = std::fs::read_to_string(proc.join(pid.to_string()).join("status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

fn user_of(mains: [i32; 2]) -> Option<u32> {
    mains.into_iter().find_map(|pid| user(Path::new("/proc"), pid))
}

/// How closely a process is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    /// Its own table of descriptors.
    Process,
    /// That of each thread: it may have one of its own (unshare(2), CLONE_FILES), or be what is left of the process.
    EveryThread,
}

/// Processes by what is known of their descriptors.
#[derive(Default)]
struct Holders {
    /// They hold the socket.
    holding: Vec<i32>,
    /// What they hold cannot be seen.
    hidden: Vec<i32>,
}

fn holders(proc: &Path, socket: Socket, pids: impl Iterator<Item = i32>, depth: Depth) -> Holders {
    let wanted = PathBuf::from(format!("socket:[{}]", socket.inode));
    let mut found = Holders::default();
    for pid in pids {
        let process = proc.join(pid.to_string());
        let mut tables = vec![process.join("fd")];
        if depth == Depth::EveryThread {
            let threads = numbers_in(&process.join("task")).filter(|thread| *thread != pid);
            tables.extend(threads.map(|thread| process.join("task").join(thread.to_string()).join("fd")));
        }
        match tables.iter().map(|table| holds(table, &wanted)).max() {
            Some(Holds::Yes) => found.holding.push(pid),
            Some(Holds::Hidden) => found.hidden.push(pid),
            Some(Holds::No) | None => {}
        }
    }
    found
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Holds {
    No,
    Hidden,
    Yes,
}

fn holds(table: &Path, wanted: &Path) -> Holds {
    match std::fs::read_dir(table) {
        Ok(descriptors) => {
            let mut targets = descriptors.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
            if targets.any(|target| target == wanted) { Holds::Yes } else { Holds::No }
        }
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Holds::Hidden,
        Err(_) => Holds::No,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn the_holder_of_a_connection_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let SocketAddr::V4(own) = listener.local_addr().expect("bound") else { panic!("IPv4") };
        let client = TcpStream::connect(own).expect("a connection");
        let SocketAddr::V4(peer) = client.local_addr().expect("connected") else { panic!("IPv4") };
        let pid = i32::try_from(std::process::id()).expect("a number");
        let proc = Path::new("/proc");
        let socket = |pid| socket(proc, [pid; 2], peer, own);
        let found = socket(pid).expect("a socket");
        assert_eq!(found.uid, nix::unistd::getuid().as_raw());
        let holding = |pids: &[i32]| holders(proc, found, pids.iter().copied(), Depth::EveryThread).holding;
        assert_eq!(holding(&[1, pid]), [pid]);
        assert!(descendants(proc, pid).contains(&pid));
        // The table says the same as the kernel's answer.
        let table = std::fs::read_to_string("/proc/self/net/tcp").expect("a table");
        assert_eq!(socket_of(&table, peer, own), Some(found));
        // Whoever is in the same network tells of it, too, and one that is not there is no obstacle.
        let mut other = std::process::Command::new("sleep").arg("1000").spawn().expect("a process");
        let child = i32::try_from(other.id()).expect("a number");
        assert_eq!(socket(child), Some(found));
        assert!(descendants(proc, pid).contains(&child));
        other.kill().and_then(|()| other.wait()).expect("ours");
        assert_eq!(super::socket(proc, [child, pid], peer, own), Some(found));
        let (accepted, _) = listener.accept().expect("a connection");
        drop((client, accepted));
        assert_eq!(holding(&[pid]), [] as [i32; 0], "nobody holds it");
    }

    #[test]
    fn a_descriptor_of_one_thread_alone_is_found() {
        let (tell, told) = std::sync::mpsc::channel();
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_FILES).expect("allowed to everybody");
            let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
            let link = std::fs::read_link(format!("/proc/thread-self/fd/{}", socket.as_raw_fd()));
            tell.send(link.expect("ours")).expect("a reader");
            gone.recv().expect("a word");
        });
        let link = told.recv().expect("a link").to_string_lossy().into_owned();
        let inode = link.trim_matches(|c: char| !c.is_ascii_digit()).parse().expect("a number");
        let socket = Socket { uid: 0, inode };
        let pid = i32::try_from(std::process::id()).expect("a number");
        let holding = |depth| holders(Path::new("/proc"), socket, [pid].into_iter(), depth).holding;
        assert_eq!((holding(Depth::Process), holding(Depth::EveryThread)), (vec![], vec![pid]));
        go.send(()).expect("it waits");
        thread.join().expect("a thread");
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
