//! `toka serve` under a service manager: it takes the socket that is passed on (sd_listen_fds(3)), says when it is ready and
//! that it stops, and keeps the manager's watchdog quiet (sd_notify(3)).

use std::ffi::OsString;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use toka_tests::{Document, Scene, User, as_both_users, toka_binary, unix_datagram, until};

as_both_users!(a_daemon_does_what_a_service_manager_expects);

/// Far above what anything here takes; only a failure waits so long.
const SOON: Duration = Duration::from_secs(40);

/// What a manager does: opens the socket at the first argument, passes it on as descriptor 3, and becomes the daemon. The
/// second is where it is to be told.
const MANAGER: &str = r#"
import os, socket, sys
path, notify = sys.argv[1:3]
os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
os.chmod(path, 0o600)
listener.listen(8)
os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)
own = str(os.getpid())
os.environ.update(LISTEN_FDS="1", LISTEN_PID=own, NOTIFY_SOCKET=notify, WATCHDOG_USEC="200000", WATCHDOG_PID=own)
os.execv(sys.argv[3], sys.argv[3:])
"#;

fn a_daemon_does_what_a_service_manager_expects(user: User) {
    let scene = Scene::new(user);
    let (socket, notify) = (scene.state().join("run/daemon.sock"), scene.folder().join("notify"));
    let manager = unix_datagram(&notify);
    manager.set_read_timeout(Some(SOON)).expect("a socket");
    let mut words: Vec<OsString> = ["python3", "-c", MANAGER].map(Into::into).to_vec();
    words.extend([socket.clone().into(), notify.into(), toka_binary().into()]);
    words.extend(["serve".into(), "--state-dir".into(), scene.state().into()]);
    let mut daemon = scene.bare_command(&words).spawn().expect("it starts");
    wait_for(&manager, "READY=1");
    for _ in 0..2 {
        wait_for(&manager, "WATCHDOG=1");
    }
    let begun = scene.toka_run(&[Document::service("api", "exec sleep 1000")], &["--detach"]);
    assert_eq!(begun.code, Some(0), "{begun:#?}");
    let shown = scene.toka(&["ps"]);
    assert!(shown.stdout.contains("api"), "{shown:#?}");
    kill(Pid::from_raw(daemon.id().try_into().expect("a pid")), Signal::SIGTERM).expect("our own child");
    wait_for(&manager, "STOPPING=1");
    let ended = until(SOON, "its end", || daemon.try_wait().expect("our own child"));
    assert_eq!(ended.code(), Some(0));
    assert!(socket.exists(), "the socket is the manager's");
    scene.assert_nothing_left();
}

/// Reads what the manager is told up to a message with this line.
fn wait_for(manager: &UnixDatagram, line: &str) {
    let mut buffer = [0; 4096];
    loop {
        let length = manager.recv(&mut buffer).unwrap_or_else(|error| panic!("{line}: {error}"));
        if String::from_utf8_lossy(&buffer[..length]).lines().any(|said| said == line) {
            return;
        }
    }
}
