//! What an agent sends to the daemon, or leaves for it, must not hold it up, fill it, or speak through it to a terminal.

use serde_json::Value;
use toka_tests::{Document, Finished, Scene, User, as_both_users};

as_both_users!(
    a_socket_that_lingers_holds_up_nobody,
    descriptors_that_come_along_are_closed,
    what_an_agent_says_is_escaped_in_json_too,
    no_core_is_dumped_to_a_program_of_the_host,
    a_family_that_is_not_there_is_told_as_such,
    a_state_folder_that_others_can_write_to_is_refused,
);

fn exit_code_of(finished: &Finished, expected: i32) {
    assert_eq!(finished.code, Some(expected), "{finished:#?}");
}

fn python(scene: &Scene, name: &str, script: &str) -> Document {
    let file = scene.workspace().join(format!("{name}.py"));
    scene.write(&file, script);
    Document::command(name, &["/usr/bin/python3", &file.display().to_string()])
}

/// Sends sockets whose buffers are full and that linger for a day, by both sockets of its door.
const LINGERS: &str = "
import array, os, socket, struct, time
srv = socket.socket(); srv.bind(('127.0.0.1', 0)); srv.listen(64)
keep = []
for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
    c = socket.socket(); c.connect(srv.getsockname()); keep.append(srv.accept())
    c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 86400)); c.setblocking(False)
    try:
        while True: c.send(b'x' * 65536)
    except BlockingIOError: pass
    u = socket.socket(socket.AF_UNIX, kind)
    u.connect(os.environ['NOTIFY_SOCKET' if kind == socket.SOCK_DGRAM else 'TOKA_SOCKET'])
    fd = c.detach()
    u.sendmsg([b'STATUS=x\\n'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [fd]))])
    os.close(fd)
    keep.append(u)
open(os.environ['TOKA_ARTIFACTS'] + '/sent', 'w').close()
time.sleep(600)
";

fn a_socket_that_lingers_holds_up_nobody(user: User) {
    let scene = Scene::new(user);
    let agent = python(&scene, "lingers", LINGERS)
        .spec("type: service")
        .section("security: {capabilities_required: [filesystem-read], network: loopback}");
    let detached = scene.detach(&[agent]);
    let sent = scene.state().join("projects").join(scene.name()).join("agents/lingers/artifacts/sent");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !sent.exists() {
        assert!(std::time::Instant::now() < deadline, "{:#?}", detached.try_toka(&["logs"]));
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    // A daemon that is held up answers nobody: the commands would end by their own deadline.
    while detached.state("lingers") != "running" {
        assert!(std::time::Instant::now() < deadline, "{:#?}", detached.try_toka(&["ps"]));
    }
    detached.assert_nothing_held_up();
    exit_code_of(&detached.try_toka(&["stop", "lingers"]), 0);
}

/// Sends more descriptors than anybody has use for, and then says that it is ready.
const PASSES: &str = "
import array, os, socket, time
u = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); u.connect(os.environ['NOTIFY_SOCKET'])
fd = os.open(os.environ['TMPDIR'] + '/leaked', os.O_CREAT | os.O_RDWR)
for i in range(20):
    while True:
        try:
            u.sendmsg([b'STATUS=%d' % i], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [fd] * 200))])
            break
        except OSError: time.sleep(0.01)     # ETOOMANYREFS: so many are on their way
u.send(b'READY=1')
time.sleep(600)
";

fn descriptors_that_come_along_are_closed(user: User) {
    let scene = Scene::new(user);
    let agent = python(&scene, "passes", PASSES)
        .spec("type: service")
        .section("security: {capabilities_required: [filesystem-read]}");
    let detached = scene.detach(&[agent]);
    exit_code_of(&detached.try_toka(&["wait", "--for", "ready", "passes"]), 0);
    let health: Value = serde_json::from_str(&detached.toka(&["health", "--json"]).stdout).expect("JSON");
    let daemon = health[0]["daemon"]["pid"].as_u64().unwrap_or_else(|| panic!("{health}"));
    let leaked = || {
        let entries = std::fs::read_dir(format!("/proc/{daemon}/fd")).expect("the daemon's").flatten();
        entries.filter(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to.ends_with("leaked"))).count()
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while leaked() > 0 {
        assert!(std::time::Instant::now() < deadline, "{} are open", leaked());
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

const SPEAKS: &str = "
import os, socket, time
u = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); u.connect(os.environ['NOTIFY_SOCKET'])
u.send('STATUS=\\u009b31m red \\u202e rtl \\u2028 \\u061c \\u00ad \\u180e'.encode()); u.send(b'READY=1')
time.sleep(600)
";

fn what_an_agent_says_is_escaped_in_json_too(user: User) {
    let scene = Scene::new(user);
    let agent = python(&scene, "speaks", SPEAKS)
        .spec("type: service")
        .section("security: {capabilities_required: [filesystem-read]}");
    let detached = scene.detach(&[agent]);
    detached.toka(&["wait", "--for", "ready", "speaks"]);
    for words in [
        &["inspect", "speaks"][..],
        &["inspect", "speaks", "--json"],
        &["events", "--json"],
        &["events"],
        &["ps"],
        &["ps", "--json"],
        &["health", "--json"],
    ] {
        let shown = detached.toka(words).stdout;
        let raw: Vec<char> =
            shown.chars().filter(|c| *c != '\n' && !toka_core::escape::is_harmless(*c)).collect();
        assert!(raw.is_empty(), "{words:?}: {raw:?}");
    }
    let inspected: Value = serde_json::from_str(&detached.toka(&["inspect", "speaks"]).stdout).expect("JSON");
    assert!(inspected.to_string().contains("red \u{202e} rtl"), "it means the same: {inspected}");
}

fn no_core_is_dumped_to_a_program_of_the_host(user: User) {
    let scene = Scene::new(user);
    let agent = Document::shell("c", "grep 'core file size' /proc/self/limits > \"$TOKA_ARTIFACTS/limits\"");
    exit_code_of(&scene.toka_run(&[agent], &[]), 0);
    let limits = scene.artifact("c", "limits");
    let figures: Vec<&str> = limits.split_whitespace().filter(|word| word.parse::<u64>().is_ok()).collect();
    assert_eq!(figures, ["1", "1"], "0 does not keep a piped core_pattern from being started: {limits}");
}

fn a_family_that_is_not_there_is_told_as_such(user: User) {
    let scene = Scene::new(user);
    let script = "import socket\nfor family in (socket.AF_INET, socket.AF_INET6, 16):\n  try:\n    socket.socket(family)\n    print('open')\n  except OSError as e:\n    print(e.errno)\n";
    let agent = python(&scene, "n", script)
        .section("security: {capabilities_required: [filesystem-read, node-execution, python-execution]}");
    let ran = scene.toka_run(&[agent], &["--follow"]);
    exit_code_of(&ran, 0);
    let eafnosupport = libc::EAFNOSUPPORT.to_string();
    let told = ran.stdout.lines().filter(|line| line.contains('│') && line.ends_with(&eafnosupport)).count();
    assert_eq!(told, 3, "{ran:#?}");
}

fn a_state_folder_that_others_can_write_to_is_refused(user: User) {
    let scene = Scene::new(user);
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(scene.state(), open).expect("ours");
    let refused = scene.toka_run(&[Document::shell("a", "true")], &[]);
    exit_code_of(&refused, 73);
    assert!(refused.stderr.contains("others can write to it (mode 777)"), "{refused:#?}");
}

#[test]
fn users_of_their_own_are_not_shared_between_projects() {
    let Some(scene) = User::root().map(Scene::new) else { return };
    // These two names have one fingerprint: without a claim both agents would be user 61677.
    let agent = |name: &str| {
        Document::bare(name).spec("process: {user: dynamic, shell: 'id -u > \"$TOKA_ARTIFACTS/uid\"'}")
    };
    let state = scene.state();
    let ran = |name: &str, project: &str| {
        let folder = scene.folder().join(project);
        std::fs::create_dir_all(&folder).expect("room");
        let file = folder.join("a.yaml");
        std::fs::write(&file, agent(name).yaml()).expect("room");
        let words = ["run", &file.display().to_string(), "--project", project];
        exit_code_of(&scene.toka(&words), 0);
        std::fs::read_dir(state.join("users")).expect("claims").count()
    };
    assert_eq!(ran("keeper", "victim"), 1);
    assert_eq!(ran("a1355", "attacker"), 2);
}
