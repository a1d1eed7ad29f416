//! `toka run` from end to end: what agents say with sd_notify(3), by processes that exit as soon as they have said it.

use serde_json::Value;
use toka_tests::{Document, Need, Scene, User, as_both_users, require};

as_both_users!(
    a_sender_that_exits_at_once_is_known,
    a_barrier_is_passed_when_all_before_it_is_done,
    one_that_asks_for_more_time_gets_it,
    a_reload_is_told_and_ends,
    stop_signals_go_to_the_process_that_it_named,
    another_agents_process_is_nobodys_main_one,
);

/// A line of shell that sends `text`, in which the shell replaces variables, and whose process is gone at once.
fn say(text: &str) -> String {
    let program = "import os,socket,sys; \
        socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM).sendto(sys.argv[1].encode(),os.environ[\"NOTIFY_SOCKET\"])";
    format!("python3 -c '{program}' \"{text}\"")
}

/// Says it, and waits until that has been heard.
fn say_and_wait(text: &str) -> String {
    format!("python3 -c \"{BARRIER}\" \"{text}\"")
}

const BARRIER: &str = "import array,os,select,socket,sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect(os.environ['NOTIFY_SOCKET'])
s.send(sys.argv[1].encode())
r, w = os.pipe()
s.sendmsg([b'BARRIER=1'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [w]))])
os.close(w)
sys.exit(0 if select.select([r], [], [], 30)[0] and os.read(r, 1) == b'' else 1)";

fn a_sender_that_exits_at_once_is_known(user: User) {
    let scene = Scene::new(user);
    let child = Document::service("child", &format!("{}; exec sleep 600", say("READY=1")));
    // Nobody of the agent's waits for this one: it is an orphan before it says anything.
    let orphan = Document::service("orphan", &format!("(setsid {} &) ; exec sleep 600", say("READY=1")));
    let agents =
        [child, orphan, Document::after_ready("one", "child"), Document::after_ready("two", "orphan")];
    let finished = scene.toka_run(&agents, &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    scene.assert_nothing_left();
}

fn a_barrier_is_passed_when_all_before_it_is_done(user: User) {
    let scene = Scene::new(user);
    let finished = scene
        .toka_run(&[Document::command("agent", &["python3", "-c", BARRIER, "STATUS=before"])], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert_eq!(finished.all("progress", "agent")[0]["status"], "before");
    scene.assert_nothing_left();
}

fn one_that_asks_for_more_time_gets_it(user: User) {
    let scene = Scene::new(user);
    let script = format!("{}; sleep 1.2", say("EXTEND_TIMEOUT_USEC=60000000"));
    let limit = "security: {resource_limits: {timeout: 1s}}";
    let asks = Document::shell("asks", &script).section(limit);
    let does_not = Document::shell("does-not", "sleep 600").section(limit);
    let finished = scene.toka_run(&[asks, does_not], &["--json"]);
    assert_eq!(finished.exit_of("asks")["cause"], "code", "{finished:#?}");
    assert_eq!(finished.exit_of("asks")["code"], 0, "{finished:#?}");
    assert_eq!(finished.exit_of("does-not")["cause"], "timeout", "{finished:#?}");
    scene.assert_nothing_left();
}

fn a_reload_is_told_and_ends(user: User) {
    let scene = Scene::new(user);
    let words = ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"].map(say).join("; ");
    let finished = scene.toka_run(&[Document::shell("agent", &words)], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let reasons: Vec<_> =
        finished.all("agent_not_ready", "agent").iter().map(|event| event["reason"].clone()).collect();
    assert_eq!(reasons, ["reloading", "stopping"], "{finished:#?}");
    assert_eq!(finished.all("agent_ready", "agent").len(), 2, "{finished:#?}");
    scene.assert_nothing_left();
}

fn stop_signals_go_to_the_process_that_it_named(user: User) {
    let scene = Scene::new(user);
    let server =
        "trap 'echo asked > $TOKA_ARTIFACTS/asked; exit 0' TERM; touch ~/up; while :; do sleep 0.05; done";
    let script = format!(
        "trap 'echo asked > $TOKA_ARTIFACTS/first' TERM; sh -c \"{}\" & while [ ! -e ~/up ]; do sleep 0.02; done; {}; {}; wait $!; exit 0",
        server.replace('$', "\\$"),
        say("MAINPID=$!"),
        say("READY=1")
    );
    let server = Document::service("server", &script).spec("stop: {grace_period: 60s}");
    let finished = scene.toka_run(&[server, Document::after_ready("user-of-it", "server")], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert_eq!(scene.artifact("server", "asked"), "asked\n");
    assert_eq!(scene.artifact("server", "first"), "", "the process that was started is not asked");
    assert_eq!(finished.all("agent_main_process", "server").len(), 1, "{finished:#?}");
    scene.assert_nothing_left();
}

fn another_agents_process_is_nobodys_main_one(user: User) {
    let scene = Scene::new(user);
    // Process 1 is the host's, or the first of its namespace: neither is the agent's.
    let finished = scene.toka_run(&[Document::shell("agent", &say("MAINPID=1"))], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert_eq!(finished.all("agent_main_process", "agent"), Vec::<Value>::new());
    assert_eq!(finished.all("warning", "agent").len(), 1, "{finished:#?}");
    scene.assert_nothing_left();
}

/// In a process namespace nothing outlives the first process; with groups the keeper takes the named one over.
#[test]
fn an_agent_lives_on_as_the_process_that_it_named() {
    if !require(&[Need::Root, Need::Cgroups]) {
        return;
    }
    let scene = Scene::new(User::Root);
    // What a program in the background is called must be heard before the one that started it ends.
    let script =
        format!("sh -c 'sleep 0.3; exit 7' & {}; echo in the background", say_and_wait("MAINPID=$!"));
    let finished = scene.toka_run(&[Document::shell("agent", &script)], &["--json"]);
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    let exit = finished.exit_of("agent");
    assert_eq!((&exit["cause"], &exit["code"]), (&"code".into(), &7.into()), "{finished:#?}");
    scene.assert_nothing_left();
}
