//! Attacks where the kernel gives ordinary users no namespaces: what Landlock and the filter hold by themselves, and
//! that the report says what is missing.

mod models_support;

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use nix::sys::signal::Signal;

use models_support::{ANSWERS, ASK, asks_within, output, scripted};
use toka_tests::{
    Document, Need, Scene, Serves, WebServer, allowed, answers_in, denied, require, until, words_of,
};

#[test]
fn landlock_and_the_filter_hold_alone_and_the_rest_is_reported() {
    if !require(&[Need::UserNamespaces]) {
        return;
    }
    let scene = Scene::without_namespaces();
    let secret = scene.outside().join("secret.txt").display().to_string();
    let own = scene.workspace().join("out/own.txt").display().to_string();
    let readable = scene.workspace().join("readable.txt").display().to_string();
    let tries = [
        denied(["read", &secret]),
        denied(["append", &secret]),
        denied(["append", &readable]),
        denied(["list", &scene.home().display().to_string()]),
        denied(["connect-abstract", "toka-nobody"]),
        denied(["unshare", "user"]),
        denied(["tcp", "127.0.0.1:9"]),
        denied(["mount", &scene.workspace().join("out").display().to_string()]),
        denied(["signal-scan"]),
        denied(["new-privileges"]),
        denied(["io-uring"]),
        allowed(["read", &readable]),
        allowed(["append", &own]),
    ];
    let mut words = vec![scene.workspace().join("attack").into_os_string()];
    words.extend(words_of(&tries).into_iter().map(OsString::from));
    let finished = scene.exec(&words);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert_eq!(finished.coverage("mounts"), "none", "it says what is missing: {finished:#?}");
    assert_eq!(
        (finished.coverage("landlock").as_str(), finished.coverage("seccomp").as_str()),
        ("full", "full")
    );
    for (attempt, answer) in tries.iter().zip(answers_in(&finished.stdout, &tries)) {
        assert!(attempt.is_met_by(&answer), "{attempt:?}: {answer:?}");
    }
    scene.assert_nothing_left();
}

/// There the terminals are the host's, and those of others with them; the rules keep them shut.
#[test]
fn an_agent_has_its_terminal_and_opens_no_other() {
    if !require(&[Need::UserNamespaces]) {
        return;
    }
    let scene = Scene::without_namespaces();
    let other = nix::pty::openpty(None, None).expect("a terminal");
    let theirs = nix::unistd::ttyname(&other.slave).expect("a name");
    scene.user().own(&theirs);
    let theirs = theirs.display();
    let look = format!(
        "test -t 0 && stty size; echo direct > /dev/tty; (: > {theirs}) 2>&1; ls /dev/pts >/dev/null 2>&1 || echo shut"
    );
    let finished = scene.toka_run(&[Document::on_terminal("looker", &look)], &["--json"]);
    let log = scene.state().join("projects").join(scene.name()).join("agents/looker/log");
    let log = std::fs::read_to_string(log).unwrap_or_default();
    assert!(log.contains("24 80\r\ndirect\r\n"), "{log:?} {finished:#?}");
    assert!(log.contains("Permission denied") && log.contains("shut"), "{log:?}");
    scene.assert_nothing_left();
}

#[test]
fn strict_compatibility_refuses_a_host_without_namespaces() {
    if !require(&[Need::UserNamespaces]) {
        return;
    }
    let scene = Scene::without_namespaces()
        .security("\n  capabilities_required: [filesystem-read]\n  compatibility: strict");
    let finished = scene.exec(&["true"]);
    assert_eq!(finished.code, Some(77), "{finished:#?}");
    assert!(finished.stderr.contains("mounts"), "it names what the host cannot enforce: {finished:#?}");
    scene.assert_nothing_left();
}

#[test]
fn a_run_is_refused_before_anything_starts() {
    if !require(&[Need::UserNamespaces]) {
        return;
    }
    let scene = Scene::without_namespaces();
    let agents = [
        Document::shell("fine", "echo ran > \"$TOKA_ARTIFACTS/ran\""),
        Document::shell("demanding", "true").section("security: {compatibility: strict}"),
    ];
    let finished = scene.toka_run(&agents, &[]);
    assert_eq!(finished.code, Some(77), "{finished:#?}");
    assert!(finished.stderr.contains("demanding.yaml:4"), "the line that demands it: {finished:#?}");
    assert!(finished.stderr.contains("this host cannot enforce mounts ("), "the layer: {finished:#?}");
    assert_eq!(scene.artifact("fine", "ran"), "", "nothing starts");
    scene.assert_nothing_left();
}

/// What a program tries in a network that it shares with the host: each line is a name and what came of it.
const TRIES: &str = r#"
import socket, struct
def attempt(name, act):
    try:
        act()
        print(name, "done", flush=True)
    except OSError as error:
        print(name, "refused", error.errno, flush=True)
def connect(address):
    with socket.socket() as client:
        client.settimeout(5)
        client.connect(address)
def listen():
    with socket.socket() as server:
        server.listen()
def bind():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
def fast_open():
    with socket.socket() as client:
        client.settimeout(5)
        client.sendto(b"x", 0x20000000, ("127.0.0.1", OTHER))
def local():
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.join(os.environ["TMPDIR"], "s"))
        server.listen()
attempt("other port", lambda: connect(("127.0.0.1", OTHER)))
attempt("fast open", fast_open)
attempt("udp", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
attempt("mptcp", lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262))
attempt("ipv6", lambda: socket.socket(socket.AF_INET6, socket.SOCK_STREAM))
attempt("bind", bind)
attempt("listen", listen)
attempt("unix listen", local)
attempt("sock_diag", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4))
attempt("ulp", lambda: socket.socket().setsockopt(6, 31, b"smc"))
"#;

/// A scene whose host has no namespaces, with the program and the script of agents that ask models.
fn scene_of_models() -> Scene {
    let scene = Scene::without_namespaces();
    scene.write(&scene.workspace().join("ask.py"), ASK);
    scene.write(&scene.workspace().join("answers.script"), ANSWERS);
    scene
}

#[test]
fn models_are_reached_through_one_port_of_the_hosts_and_nothing_else_is() {
    if !require(&[Need::UserNamespaces]) {
        return;
    }
    let scene = scene_of_models();
    let server = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = server.local_addr().expect("bound").port();
    let python = format!("print(ask(), flush=True)\nOTHER = {port}\n{TRIES}");
    let asker = |security| scripted(asks_within("asker", &python, security));
    let finished =
        scene.toka_run(&[asker("security: {capabilities_required: [filesystem-read]}")], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let seen = output(&scene, "asker");
    let mut lines = seen.lines();
    assert_eq!(lines.next(), Some("the script speaks"), "{seen}");
    let left: Vec<&str> = lines.collect();
    assert_eq!(left.len(), 10, "{seen}");
    assert!(left.iter().all(|line| line.contains(" refused ")), "{seen}");
    let network = &finished.all("agent_started", "asker")[0]["enforcement"].to_string();
    assert!(network.contains("it may connect over TCP to port 7411 of any address"), "it is told: {network}");
    server.set_nonblocking(true).expect("ours");
    assert!(server.accept().is_err(), "nothing came");
    let strict = "security: {compatibility: strict, capabilities_required: [filesystem-read]}";
    let refused = scene.toka_run(&[asker(strict)], &[]);
    assert_eq!(refused.code, Some(77), "{refused:#?}");
    scene.assert_nothing_left();
}

#[test]
fn nobody_else_of_the_host_uses_the_port_of_an_agent_even_with_its_key() {
    if !require(&[Need::UserNamespaces]) {
        return;
    }
    let scene = scene_of_models();
    let tells = "import time
print(os.environ['ANTHROPIC_BASE_URL'] + ' ' + os.environ['ANTHROPIC_API_KEY'], ask(), flush=True); time.sleep(600)";
    let agent = scripted(asks_within("asker", tells, models_support::READS).spec("type: service"));
    let mut running = scene.start(&[agent], &[]);
    running.wait_for("model_answered", "asker");
    let said = until(Duration::from_secs(30), "an answer of the model", || {
        let seen = output(&scene, "asker");
        seen.ends_with("the script speaks\n").then_some(seen)
    });
    let (url, rest) = said.split_once(' ').expect("an address");
    let key = rest.split(' ').next().expect("a key");
    let address: SocketAddr = url.trim_start_matches("http://").parse().expect("an address");
    let mut stranger = TcpStream::connect(address).expect("everybody may connect");
    stranger.set_read_timeout(Some(Duration::from_secs(20))).expect("ours");
    let request = format!("GET /v1/models HTTP/1.1\r\nHost: x\r\nx-api-key: {key}\r\n\r\n");
    let _ = stranger.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let _ = stranger.read_to_end(&mut answer);
    assert_eq!(String::from_utf8_lossy(&answer), "", "it is not answered");
    running.signal(Signal::SIGTERM);
    running.finish();
    scene.assert_nothing_left();
}

#[test]
fn hosts_are_reached_through_that_port_and_not_by_name() {
    if !require(&[Need::UserNamespaces]) {
        return;
    }
    let scene = scene_of_models();
    let server = WebServer::new(Serves::Status(204));
    let host = server.authority();
    let python = format!(
        "import socket
print(urllib.request.urlopen('http://{host}/x', data=b'{{}}').status, flush=True)
try:
    socket.create_connection('{host}'.split(':'), 5)
except OSError as error:
    print('refused', error.errno)"
    );
    let security =
        format!("security: {{network: {{allow: [\"{host}\"]}}, capabilities_required: [filesystem-read]}}");
    let allowed = format!("host:{host}");
    let finished =
        scene.toka_run(&[asks_within("fetcher", &python, &security)], &["--json", "--allow", &allowed]);
    assert_eq!(
        (finished.code, output(&scene, "fetcher").as_str()),
        (Some(0), "204\nrefused 13\n"),
        "{finished:#?}"
    );
    scene.assert_nothing_left();
}

/// Clients of an agent that are hard to see: each prints what it was told.
const ODD_CLIENTS: &str = r#"
import ctypes, subprocess, threading, time
libc = ctypes.CDLL(None)
def undumpable():
    libc.prctl(4, 0, 0, 0, 0)
def own_table():
    libc.unshare(0x400)
    print("own table:", ask(), flush=True)
def child(name, act):
    if os.fork() == 0:
        act()
        print(name, ask(), flush=True)
        os._exit(0)
    os.wait()
child("plain:", lambda: None)
child("session:", os.setsid)
child("undumpable:", undumpable)
thread = threading.Thread(target=own_table); thread.start(); thread.join()
read, write = os.pipe()
if os.fork() == 0:
    parent = os.getpid()
    if os.fork() == 0:
        while os.getppid() == parent:
            time.sleep(0.01)
        print("orphan:", ask(), flush=True)
        os._exit(0)
    os._exit(0)
os.close(write)
os.wait()
os.read(read, 1)
"#;

#[test]
fn every_process_of_an_agent_is_served_however_it_hides() {
    if !require(&[Need::UserNamespaces]) {
        return;
    }
    let scene = scene_of_models();
    let asker = scripted(asks_within("asker", ODD_CLIENTS, models_support::READS));
    let finished = scene.toka_run(&[asker], &["--json"]);
    let seen = output(&scene, "asker");
    let expected = ["plain", "session", "undumpable", "own table", "orphan"];
    let expected: Vec<String> = expected.iter().map(|name| format!("{name}: the script speaks")).collect();
    assert_eq!(seen.lines().collect::<Vec<_>>(), expected, "{finished:#?}");
    scene.assert_nothing_left();
}

#[test]
fn a_main_process_that_ends_takes_the_port_from_nobody() {
    if !require(&[Need::UserNamespaces]) {
        return;
    }
    let scene = scene_of_models();
    let python = "import socket, subprocess, time
child = subprocess.Popen(['sleep', '0.2'])
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
    notify.connect(os.environ['NOTIFY_SOCKET'])
    notify.send(b'MAINPID=%d' % child.pid)
print(ask(), flush=True)
child.wait(); time.sleep(0.3)
print(ask(), flush=True)";
    let asker = scripted(asks_within("asker", python, models_support::READS));
    let finished = scene.toka_run(&[asker], &["--json"]);
    assert_eq!(output(&scene, "asker"), "the script speaks\n".repeat(2), "{finished:#?}");
    scene.assert_nothing_left();
}

#[test]
fn an_address_that_is_taken_is_named() {
    if !require(&[Need::UserNamespaces]) {
        return;
    }
    let scene = scene_of_models();
    let tells =
        scripted(asks_within("asker", "print(os.environ['ANTHROPIC_BASE_URL'])", models_support::READS));
    assert_eq!(scene.toka_run(&[tells], &[]).code, Some(0));
    let address = output(&scene, "asker").trim().trim_start_matches("http://").to_owned();
    let _taken = TcpListener::bind(&address).expect("nobody is there");
    let asker = scripted(asks_within("asker", "print(ask())", models_support::READS));
    let finished = scene.toka_run(&[asker], &["--json"]);
    assert_ne!(finished.code, Some(0), "{finished:#?}");
    let why = format!("network: listen {address}: Address already in use");
    assert!(finished.stdout.contains(&why), "{why}: {finished:#?}");
    scene.assert_nothing_left();
}
