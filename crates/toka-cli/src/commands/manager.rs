//! The service manager that started us, if it is one that listens: sd_notify(3), its watchdog (sd_watchdog_enabled(3)) and
//! the socket that it may have opened for us (sd_listen_fds(3)).

use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::sync::Arc;
use std::time::Duration;

/// The first descriptor that is passed on.
const FIRST_DESCRIPTOR: RawFd = 3;

/// Whoever wants to know how we are.
#[derive(Debug, Clone, Default)]
pub(crate) struct Manager {
    socket: Option<Arc<UnixDatagram>>,
    watchdog: Option<Duration>,
}

impl Manager {
    /// The one that the environment names.
    pub(crate) fn of_this_process() -> Self {
        let socket = std::env::var_os("NOTIFY_SOCKET").and_then(|path| connect(&path).ok());
        let watchdog = std::env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse().ok());
        let is_ours = std::env::var("WATCHDOG_PID").map_or(true, |pid| pid == std::process::id().to_string());
        let watchdog = watchdog.filter(|_| is_ours).map(Duration::from_micros);
        Self { socket: socket.map(Arc::new), watchdog }
    }

    /// Tells it something; one that does not listen is no error.
    pub(crate) fn tell(&self, message: &str) {
        if let Some(socket) = &self.socket {
            let _ = socket.send(message.as_bytes());
        }
    }

    /// Says that we are alive, twice in the time that it allows; for ever.
    pub(crate) async fn keep_alive(self) {
        let Some(watchdog) = self.watchdog.filter(|watchdog| !watchdog.is_zero()) else { return };
        let mut ticks = tokio::time::interval(watchdog / 2);
        loop {
            ticks.tick().await;
            self.tell("WATCHDOG=1");
        }
    }
}

fn connect(path: &std::ffi::OsStr) -> io::Result<UnixDatagram> {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::ffi::OsStrExt as _;
    let socket = UnixDatagram::unbound()?;
    match path.as_bytes().strip_prefix(b"@") {
        Some(name) => {
            socket.connect_addr(&std::os::unix::net::SocketAddr::from_abstract_name(name)?)?;
        }
        None => socket.connect(path)?,
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// The socket that a manager opened for us, if it did.
///
/// # Errors
/// When it passed on more than one.
pub(crate) fn inherited_socket() -> io::Result<Option<UnixListener>> {
    let variable = |name| std::env::var(name).ok();
    if variable("LISTEN_PID") != Some(std::process::id().to_string()) {
        return Ok(None);
    }
    match variable("LISTEN_FDS").as_deref() {
        None | Some("0") => Ok(None),
        Some("1") => Ok(Some(UnixListener::from(passed_on()?))),
        Some(_) => Err(io::Error::other("one socket is needed, and more were passed on")),
    }
}

/// The first descriptor, as a duplicate of our own that no child inherits.
fn passed_on() -> io::Result<OwnedFd> {
    toka_sandbox::sys::inherited_descriptor(FIRST_DESCRIPTOR)
}
