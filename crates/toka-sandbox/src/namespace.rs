//! Visits to the network namespace of a process, to make sockets there.

use std::fs::File;
use std::io::{self, IoSlice, Read as _};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::thread;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socket, socketpair,
};
use nix::unistd::pipe2;
use serde::{Deserialize, Serialize};

use crate::sys::Forked;

/// Which addresses a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What is in a network that is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interfaces {
    /// Nothing that works: a loopback interface that is down.
    None,
    /// A loopback interface.
    Loopback,
}

/// Makes a network namespace, and comes back. Must be called while the process has a single thread: others would see none of
/// it, and that is not what they expect.
///
/// # Errors
/// As unshare(2) and setns(2), `EPERM` without CAP_SYS_ADMIN here and where this network was made; as socket(2) and ioctl(2).
pub(crate) fn make_network(interfaces: Interfaces) -> io::Result<OwnedFd> {
    let here = File::open("/proc/self/ns/net")?;
    // Who may not come back must not go: a user namespace may own a new network and not the one that it is in (setns(2)).
    setns(&here, CloneFlags::CLONE_NEWNET)?;
    nix::sched::unshare(CloneFlags::CLONE_NEWNET)?;
    let up = match interfaces {
        Interfaces::None => Ok(()),
        Interfaces::Loopback => crate::sys::loopback_up(),
    };
    let made = up.and_then(|()| File::open("/proc/self/ns/net"));
    setns(&here, CloneFlags::CLONE_NEWNET)?;
    made.map(OwnedFd::from)
}

/// A network with a loopback interface, and the user namespace that owns it: what an ordinary user's processes share.
#[derive(Debug)]
pub(crate) struct OwnedNetwork {
    pub(crate) user: OwnedFd,
    pub(crate) network: OwnedFd,
}

impl OwnedNetwork {
    /// Makes one, for the user and group of this process, in which they keep their ids. To be called by a single-threaded
    /// process.
    ///
    /// # Errors
    /// As fork(2) and unshare(2).
    pub(crate) fn make(uid: u32, gid: u32) -> io::Result<Self> {
        let (ready, tells) = pipe2(OFlag::O_CLOEXEC)?;
        let (waits, go) = pipe2(OFlag::O_CLOEXEC)?;
        let maker = match crate::sys::fork()? {
            Forked::Parent(pid) => pid,
            Forked::Child => {
                drop((ready, go));
                let made = nix::sched::unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)
                    .map_err(io::Error::from)
                    .and_then(|()| crate::mounts::map_user(uid, gid).map_err(|error| error.source))
                    .and_then(|()| crate::sys::loopback_up());
                let errno = made.err().map_or(0, |error| error.raw_os_error().unwrap_or(Errno::EIO as i32));
                let _ = nix::unistd::write(&tells, &errno.to_ne_bytes());
                // Until they are opened there must be somebody in them.
                let _ = File::from(waits).read(&mut [0]);
                crate::sys::exit_now(0)
            }
        };
        drop((tells, waits));
        let mut errno = [0; 4];
        let made = File::from(ready).read_exact(&mut errno).and_then(|()| match i32::from_ne_bytes(errno) {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        });
        let open = |name: &str| File::open(format!("/proc/{maker}/ns/{name}")).map(OwnedFd::from);
        let opened = made.and_then(|()| Ok(Self { user: open("user")?, network: open("net")? }));
        drop(go);
        let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(maker), None);
        opened
    }

    /// The same once more.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { user: self.user.try_clone()?, network: self.network.try_clone()? })
    }
}

/// A network namespace, which lives at least as long as this.
#[derive(Debug)]
pub struct NetworkNamespace(File);

impl NetworkNamespace {
    /// That of a process or thread (network_namespaces(7)).
    ///
    /// # Errors
    /// `ENOENT` when there is no such process; `EACCES` when it may not be looked into (ptrace(2), "Ptrace access mode
    /// checking").
    pub fn of(pid: i32) -> io::Result<Self> {
        File::open(format!("/proc/{pid}/ns/net")).map(Self)
    }

    /// A TCP socket that belongs to the namespace, does not block and is closed on exec. Wherever it is used afterwards, it
    /// binds and connects there.
    ///
    /// Takes the moment in which a thread starts, enters the namespace and ends: no thread that does anything else is ever
    /// moved.
    ///
    /// # Errors
    /// As setns(2), `EPERM` without CAP_SYS_ADMIN here and where the namespace was made; as socket(2).
    pub fn tcp_socket(&self, family: Family) -> io::Result<OwnedFd> {
        thread::scope(|scope| {
            let visit = thread::Builder::new().name("visit".to_owned());
            let visit = visit.spawn_scoped(scope, || -> io::Result<OwnedFd> {
                setns(&self.0, CloneFlags::CLONE_NEWNET)?;
                make_socket(family)
            })?;
            visit.join().unwrap_or_else(|_| Err(io::Error::other("the visit was cut short")))
        })
    }
}

fn make_socket(family: Family) -> io::Result<OwnedFd> {
    let family = match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    Ok(socket(family, SockType::Stream, flags, None)?)
}

/// How long the process may take that makes a socket elsewhere, in milliseconds: it needs a handful of system calls.
const VISIT_WITHIN: u16 = 1_000;

/// A TCP socket as [`NetworkNamespace::tcp_socket`] makes it, in the network of a process whose user namespace this user has
/// made: who is an ordinary user here has every right in there (user_namespaces(7)), but only a process with a single thread
/// may enter. So a child goes there and hands the socket back. To be called by a single-threaded process only, which collects
/// its children.
///
/// # Errors
/// As setns(2) and socket(2); `ETIMEDOUT` when the child does not answer.
pub fn tcp_socket_within(pid: i32, family: Family) -> io::Result<OwnedFd> {
    let network = NetworkNamespace::of(pid)?;
    // Agents that share a network have each a user namespace of its own, within the one that owns it.
    let user = crate::sys::owner_of_namespace(network.0.as_fd())?;
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    if let Forked::Child = crate::sys::fork()? {
        let told = setns(&user, CloneFlags::CLONE_NEWUSER)
            .and_then(|()| setns(&network.0, CloneFlags::CLONE_NEWNET))
            .map_err(io::Error::from)
            .and_then(|()| make_socket(family))
            .and_then(|socket| hand_back(&theirs, Some(&socket), 0))
            .or_else(|error| hand_back(&theirs, None, error.raw_os_error().unwrap_or(Errno::EIO as i32)));
        crate::sys::exit_now(i32::from(told.is_err()));
    }
    drop(theirs);
    let mut answer = [PollFd::new(ours.as_fd(), PollFlags::POLLIN)];
    match poll(&mut answer, PollTimeout::from(VISIT_WITHIN)) {
        Ok(0) => Err(io::ErrorKind::TimedOut.into()),
        Err(error) => Err(error.into()),
        Ok(_) => take_back(&ours),
    }
}

fn hand_back(channel: &OwnedFd, socket: Option<&OwnedFd>, errno: i32) -> io::Result<()> {
    let rights: Vec<_> = socket.iter().map(|socket| socket.as_raw_fd()).collect();
    let control = [ControlMessage::ScmRights(&rights)];
    let control = if rights.is_empty() { &[][..] } else { &control[..] };
    let flags = MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(channel.as_raw_fd(), &[IoSlice::new(&errno.to_ne_bytes())], control, flags, None)?;
    Ok(())
}

fn take_back(channel: &OwnedFd) -> io::Result<OwnedFd> {
    let mut errno = [0; 4];
    let received = crate::sys::receive_packet(channel.as_fd(), &mut errno)?;
    match received.descriptors.into_iter().next() {
        Some(socket) => Ok(socket),
        // It has ended without a word.
        None if errno == [0; 4] => Err(io::ErrorKind::UnexpectedEof.into()),
        None => Err(io::Error::from_raw_os_error(i32::from_ne_bytes(errno))),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::mpsc;

    use nix::sys::socket::{SockaddrIn, connect};

    use super::*;

    #[test]
    fn a_socket_is_of_the_namespace_in_which_it_was_made() {
        let (listens, heard) = mpsc::channel();
        let (done, over) = mpsc::channel::<()>();
        thread::scope(|scope| {
            scope.spawn(move || {
                let listener = nix::sched::unshare(CloneFlags::CLONE_NEWNET)
                    .map_err(io::Error::from)
                    .and_then(|()| crate::sys::loopback_up())
                    .and_then(|()| TcpListener::bind(("127.0.0.1", 0)));
                let id = nix::unistd::gettid().as_raw();
                let port = listener.as_ref().map(|listener| listener.local_addr().expect("bound").port());
                let told = port.map(|port| (id, port)).map_err(io::Error::kind);
                listens.send(told).expect("the test waits");
                let _ = over.recv();
                drop(listener);
            });
            match heard.recv().expect("a word of the other thread") {
                Ok((id, port)) => reaches(id, port),
                Err(kind) => skip(&format!("no network namespace here: {kind}")),
            }
            drop(done);
        });
    }

    /// Whether a connection is refused tells at once where a socket is: on loopback nobody has to be waited for.
    fn reaches(thread: i32, port: u16) {
        let address = SockaddrIn::new(127, 0, 0, 1, port);
        let own = NetworkNamespace::of(thread).expect("it lives");
        let try_in = |namespace: &NetworkNamespace| {
            let socket = namespace.tcp_socket(Family::V4).expect("a socket");
            match connect(socket.as_raw_fd(), &address) {
                Err(Errno::EINPROGRESS) => finished(&socket),
                other => other,
            }
        };
        assert_eq!(try_in(&own), Ok(()));
        let here = NetworkNamespace::of(nix::unistd::gettid().as_raw()).expect("we live");
        assert_eq!(try_in(&here), Err(Errno::ECONNREFUSED));
    }

    fn finished(socket: &OwnedFd) -> nix::Result<()> {
        poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE)?;
        match nix::sys::socket::getsockopt(socket, nix::sys::socket::sockopt::SocketError)? {
            0 => Ok(()),
            error => Err(Errno::from_raw(error)),
        }
    }

    fn skip(reason: &str) {
        assert!(std::env::var_os("TOKA_REQUIRE_PRIVILEGED").is_none(), "{reason}");
        eprintln!("skipped: {reason}");
    }

    #[test]
    fn who_may_not_come_back_does_not_go() {
        let child = match crate::sys::fork().expect("a process") {
            Forked::Parent(pid) => nix::unistd::Pid::from_raw(pid),
            Forked::Child => {
                let network = || std::fs::read_link("/proc/self/ns/net").ok();
                let before = network();
                // There it may make networks, and not enter the one that it is in.
                if nix::sched::unshare(CloneFlags::CLONE_NEWUSER).is_err() {
                    crate::sys::exit_now(2);
                }
                let stays = make_network(Interfaces::None).is_err() && network() == before;
                crate::sys::exit_now(i32::from(!stays))
            }
        };
        match nix::sys::wait::waitpid(child, None).expect("our own child") {
            nix::sys::wait::WaitStatus::Exited(_, 2) => eprintln!("skipped: no user namespaces here"),
            ended => assert_eq!(ended, nix::sys::wait::WaitStatus::Exited(child, 0)),
        }
    }

    #[test]
    fn a_process_that_is_not_there_has_none() {
        // Beyond the largest id that the kernel gives (proc(5), pid_max).
        let error = NetworkNamespace::of(4_194_305).expect_err("nobody");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
