//! Things of the host that an attack aims at: a process, and sockets that somebody else listens on.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::{Scene, User, processes_with, until};

/// A process of the same user outside the sandbox. Killed when dropped.
pub struct Victim {
    child: Child,
    pid: u32,
    /// Where it is confined, if it is.
    #[expect(dead_code, reason = "kept for its folders, which go when it is dropped")]
    scene: Option<Scene>,
}

impl Victim {
    /// Starts one that nothing confines, in a session of its own, as a daemon is.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn of(user: User) -> Self {
        let mut words = user.prefix();
        words.extend(["setsid", "sleep", "600"].map(Into::into));
        let child = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("a victim starts");
        let victim = Self { pid: child.id(), child, scene: None };
        // Until it has become the program: setpriv is another user's before.
        until(PATIENCE, "the victim to sleep", || sleeps(victim.pid).then_some(()));
        victim
    }

    /// Starts another agent, in a sandbox of its own.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn agent_of(user: User) -> Self {
        let scene = Scene::new(user);
        let mut command = scene.exec_command(&["sleep", "600"]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("an agent starts");
        let name = scene.name().to_owned();
        let mut victim = Self { pid: child.id(), child, scene: Some(scene) };
        victim.pid = until(PATIENCE, "the agent to sleep", || {
            let mut found = processes_with(&name).into_iter().filter_map(|pid| u32::try_from(pid).ok());
            found.find(|pid| sleeps(*pid))
        });
        victim
    }

    /// Its process id, as a word of a command line.
    pub fn pid(&self) -> String {
        self.pid.to_string()
    }

    /// Whether nobody has ended or stopped it.
    ///
    /// # Panics
    /// When it cannot be asked.
    pub fn is_unharmed(&mut self) -> bool {
        let state = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        let stopped =
            state.rsplit(')').next().unwrap_or_default().trim_start().starts_with(['T', 't', 'Z', 'X']);
        self.child.try_wait().expect("our own child").is_none() && sleeps(self.pid) && !stopped
    }
}

/// How long a victim may take to be one.
const PATIENCE: Duration = Duration::from_secs(20);

fn sleeps(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "sleep")
}

impl Drop for Victim {
    fn drop(&mut self) {
        // The first lets `toka exec` tidy up behind its agent.
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap_or_default());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let begun = std::time::Instant::now();
        while begun.elapsed() < PATIENCE && self.child.try_wait().is_ok_and(|status| status.is_none()) {
            std::thread::sleep(Duration::from_millis(5));
        }
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
    fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("our own socket");
    listener
}

/// A datagram socket at a path that everybody may send to.
///
/// # Panics
/// When the path is too long or taken.
pub fn unix_datagram(path: &Path) -> UnixDatagram {
    let socket = UnixDatagram::bind(path).expect("a free path below 108 bytes");
    fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("our own socket");
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

/// Whether the kernel tells how a process has ended that is not one's child: Linux 6.15 does.
pub fn tells_exits() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(15))
}
