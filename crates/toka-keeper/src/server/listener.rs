//! Where the next daemon finds the keeper: a socket that only its user can reach.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, sockopt};
use nix::sys::stat::{Mode, fchmod};
use toka_sandbox::sys;

use crate::address::with_address;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 16;

/// A listening socket at a path, which is removed with it.
#[derive(Debug)]
pub(super) struct Listener {
    socket: OwnedFd,
    path: PathBuf,
    /// Device and inode of what was bound: another keeper's socket at the same path is not ours to remove.
    identity: (u64, u64),
    /// Given up for a moment to accept, and so to turn away, when there is no descriptor left.
    spare: Option<OwnedFd>,
}

/// Who has connected.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) socket: OwnedFd,
    pub(super) pid: i32,
    pub(super) uid: u32,
}
impl Listener {
    /// Binds to `path`, whose folder is made when it is not there, and must be its user's alone. What a dead keeper left
    /// there is removed.
    ///
    /// # Errors
    /// `PermissionDenied` when others can reach the folder; `AddrInUse` when another keeper listens there.
    pub(super) fn bind(path: &Path) -> io::Result<Self> {
        let folder = path.parent().ok_or(io::ErrorKind::InvalidFilename)?;
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let facts = fs::metadata(folder)?;
        if facts.uid() != nix::unistd::geteuid().as_raw() || facts.mode() & 0o077 != 0 {
            let reason = format!("{} is not its user's alone (mode 0700)", folder.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
        }
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket::socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
        match bind_privately(&socket, path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                remove_stale(path)?;
                bind_privately(&socket, path)?;
            }
            other => other?,
        }
        socket::listen(&socket, Backlog::new(BACKLOG)?)?;
        let facts = fs::symlink_metadata(path)?;
        let identity = (facts.dev(), facts.ino());
        Ok(Self { socket, path: path.to_owned(), identity, spare: spare() })
    }

    /// The next who has connected; `None` when there is nobody.
    pub(super) fn accept(&mut self) -> Option<Guest> {
        loop {
            match self.accept_one() {
                Ok(guest) => return Some(guest),
                Err(Errno::EINTR | Errno::ECONNABORTED) => {}
                Err(Errno::EMFILE | Errno::ENFILE) if self.spare.take().is_some() => {
                    // Whoever waits would wake us for ever; it finds the connection closed.
                    drop(self.accept_one());
                    self.spare = spare();
                }
                Err(_) => return None,
            }
        }
    }

    fn accept_one(&self) -> Result<Guest, Errno> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket::accept4(self.socket.as_raw_fd(), flags)?;
        let socket = sys::inherited_descriptor(fd).map_err(|_| Errno::EBADF)?;
        let peer = socket::getsockopt(&socket, sockopt::PeerCredentials)?;
        Ok(Guest { socket, pid: peer.pid(), uid: peer.uid() })
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let facts = fs::symlink_metadata(&self.path);
        if facts.is_ok_and(|facts| (facts.dev(), facts.ino()) == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn spare() -> Option<OwnedFd> {
    File::open("/dev/null").ok().map(OwnedFd::from)
}

/// The file is nobody else's from its first moment: bind gives it the mode of the socket (unix_bind in the kernel's
/// net/unix/af_unix.c), and no other thread feels a mask.
fn bind_privately(socket: &OwnedFd, path: &Path) -> io::Result<()> {
    fchmod(socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    with_address(path, |address| socket::bind(socket.as_raw_fd(), address))
}

/// Removes a socket that nobody listens at.
fn remove_stale(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is something that is no socket"));
    }
    let probe = socket::socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    match with_address(path, |address| socket::connect(probe.as_raw_fd(), address)) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn connects(path: &Path) -> OwnedFd {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket::socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).expect("a socket");
        with_address(path, |address| socket::connect(socket.as_raw_fd(), address)).expect("connected");
        socket
    }

    #[test]
    fn it_is_private_and_knows_who_comes() {
        let root = tempfile::tempdir().expect("a folder");
        for folder in ["short", &"long".repeat(40)] {
            let path = root.path().join(folder).join("keeper.sock");
            let mut listener = Listener::bind(&path).expect("bound");
            assert!(listener.accept().is_none());
            assert_eq!(fs::metadata(&path).expect("a socket").mode() & 0o777, 0o600);
            assert_eq!(fs::metadata(path.parent().expect("a folder")).expect("it").mode() & 0o777, 0o700);
            let _connected = connects(&path);
            let guest = listener.accept().expect("a guest");
            assert_eq!(guest.uid, nix::unistd::geteuid().as_raw());
            assert_eq!(u32::try_from(guest.pid), Ok(std::process::id()));
            drop(listener);
            assert!(!path.exists(), "it goes with its keeper");
        }
    }

    #[test]
    fn a_folder_that_others_reach_is_refused() {
        let root = tempfile::tempdir().expect("a folder");
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o750)).expect("ours");
        let error = Listener::bind(&root.path().join("keeper.sock")).expect_err("not private");
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn what_a_dead_keeper_left_is_replaced_and_a_living_one_is_not() {
        let root = tempfile::tempdir().expect("a folder");
        let path = root.path().join("private/keeper.sock");
        let living = Listener::bind(&path).expect("bound");
        assert_eq!(Listener::bind(&path).expect_err("in use").kind(), io::ErrorKind::AddrInUse);
        // Closed without being removed, as by a kill.
        let mut dead = living;
        dead.identity = (0, 0);
        drop(dead);
        assert!(path.exists());
        drop(Listener::bind(&path).expect("in its place"));
        fs::write(&path, "precious").expect("a file");
        assert!(Listener::bind(&path).is_err());
        assert_eq!(fs::read_to_string(&path).expect("it is still there"), "precious");
    }
}
