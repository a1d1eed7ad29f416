//! Things of the host that an attack aims at: a process, and sockets that somebody else listens on.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::User;

/// A process of the same user outside the sandbox. Killed when dropped.
pub struct Victim {
    child: Child,
}

impl Victim {
    /// Starts one.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn of(user: User) -> Self {
        let mut words = user.prefix();
        // In a session of its own, as a daemon is.
        words.extend(["setsid", "sleep", "600"].map(Into::into));
        let child = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("a victim starts");
        let victim = Self { child };
        // Until it has become the program: setpriv is another user's before.
        crate::until(std::time::Duration::from_secs(10), "the victim to sleep", || {
            let name = std::fs::read_to_string(format!("/proc/{}/comm", victim.pid())).ok()?;
            (name.trim() == "sleep").then_some(())
        });
        victim
    }

    /// Its process id, as a word of a command line.
    pub fn pid(&self) -> String {
        self.child.id().to_string()
    }

    /// Whether nobody has ended or stopped it.
    ///
    /// # Panics
    /// When it cannot be asked.
    pub fn is_unharmed(&mut self) -> bool {
        let state = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        let stopped = state.rsplit(')').next().unwrap_or_default().trim_start().starts_with(['T', 't']);
        self.child.try_wait().expect("our own child").is_none() && !stopped
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A socket that accepts as long as it lives.
pub type Listener = UnixListener;

/// Listens at a path that everybody may connect to.
///
/// # Panics
/// When the path is too long or taken.
pub fn unix_listener(path: &Path) -> Listener {
    let listener = UnixListener::bind(path).expect("a free path below 108 bytes");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).expect("our own socket");
    listener
}

/// A datagram socket at a path that everybody may send to.
///
/// # Panics
/// When the path is too long or taken.
pub fn unix_datagram(path: &Path) -> UnixDatagram {
    let socket = UnixDatagram::bind(path).expect("a free path below 108 bytes");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).expect("our own socket");
    socket
}

/// Listens at an abstract name.
///
/// # Panics
/// When the name is taken.
pub fn abstract_listener(name: &str) -> Listener {
    let address = SocketAddr::from_abstract_name(name).expect("a short name");
    UnixListener::bind_addr(&address).expect("a free name")
}
