//! How well agents and the daemon are, as `toka health`, the probes' paths and the metrics tell it, through the binary.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use toka_tests::openmetrics::{Sample, parse};
use toka_tests::{Document, Finished, Need, Scene, User, as_both_users, require, socket, toka_binary, until};

as_both_users!(
    what_is_well_ends_with_success,
    one_that_waits_to_be_called_is_told_as_that,
    a_service_that_is_not_ready_is_unhealthy_and_the_daemon_is_not,
    one_that_is_given_up_or_blocked_says_why,
    memory_close_to_its_limit_is_seen,
    the_metrics_are_what_the_specification_wants,
    no_agent_adds_more_metrics_than_there_is_room_for,
    names_of_metrics_beyond_what_is_kept_are_counted_and_told_once,
    a_daemon_without_its_socket_is_not_ready,
    a_keeper_that_hangs_is_seen,
    watching_goes_on_until_ctrl_c,
    nothing_runs_is_a_status_of_its_own,
);

/// Far above what anything here takes; only a failure waits so long.
const SOON: Duration = Duration::from_secs(30);

fn up(name: &str) -> Document {
    Document::service(name, "echo up; exec sleep 1000").spec("readiness_probe: {log_line: up}")
}

fn socket_of(scene: &Scene) -> PathBuf {
    scene.state().join("run/daemon.sock")
}

fn json(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout).unwrap_or_else(|_| panic!("{finished:#?}"))
}

/// What `toka health` says, once the verdict on `agent` is `verdict`.
fn once(scene: &Scene, agent: &str, verdict: &str) -> (Finished, Value) {
    until(SOON, &format!("{agent} is {verdict}"), || {
        let finished = scene.toka(&["health", "--json"]);
        let agents = json(&finished)[0]["projects"][0]["agents"].clone();
        let found = agents.as_array()?.iter().find(|found| found["name"] == agent)?.clone();
        (found["verdict"] == verdict).then_some((finished, found))
    })
}

fn metrics(scene: &Scene) -> Vec<Sample> {
    let (status, text) = socket::get(&socket_of(scene), "/metrics");
    assert_eq!(status, 200);
    parse(&text).unwrap_or_else(|why| panic!("{why}\n{text}"))
}

fn value(samples: &[Sample], name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let has = |sample: &Sample| {
        labels.iter().all(|(label, value)| sample.labels.get(*label).is_some_and(|v| v == value))
    };
    samples.iter().find(|sample| sample.name == name && has(sample)).map(|sample| sample.value)
}

fn one_that_waits_to_be_called_is_told_as_that(user: User) {
    let scene = Scene::new(user);
    let hand = Document::shell("hand", "true").spec("start: manual");
    let yearly = Document::shell("yearly", "true").spec("schedule: '@yearly'");
    let detached = scene.detach(&[up("db"), hand, yearly]);
    let (well, hand) = once(&scene, "hand", "healthy");
    assert_eq!(hand["started_by"], "person", "{hand}");
    assert_eq!(well.code, Some(0), "{well:#?}");
    let (_, yearly) = once(&scene, "yearly", "healthy");
    assert!(yearly["started_by"] == "clock" && yearly["next_due_ms"].is_i64(), "{yearly}");
    let shown = [scene.toka(&["health"]).stdout, scene.toka(&["ps"]).stdout];
    for text in shown {
        assert!(
            text.contains("manual: starts with `toka start hand`") && text.contains("next in "),
            "{text}"
        );
    }
    detached.toka(&["start", "hand"]);
    detached.toka(&["wait", "hand"]);
    let (_, hand) = once(&scene, "hand", "ended");
    assert_eq!(hand["started_by"], Value::Null, "{hand}");
    detached.toka(&["down"]);
}

fn what_is_well_ends_with_success(user: User) {
    let scene = Scene::new(user);
    let detached = scene.detach(&[up("db"), Document::shell("job", "true")]);
    detached.toka(&["wait", "job"]);
    let (well, db) = once(&scene, "db", "healthy");
    assert_eq!(well.code, Some(0), "{well:#?}");
    assert_eq!((&db["state"], &db["ready"]), (&"running".into(), &true.into()), "{db}");
    assert!(db["uptime_ms"].is_u64(), "{db}");
    let told = scene.toka(&["health"]);
    assert_eq!(told.code, Some(0), "{told:#?}");
    for word in ["db", "healthy", "job", "ended", "daemon"] {
        assert!(told.stdout.contains(word), "{word}: {told:#?}");
    }
    let view = &json(&well)[0];
    assert_eq!((&view["verdict"], &view["daemon"]["verdict"]), (&"healthy".into(), &"healthy".into()));
}

fn a_service_that_is_not_ready_is_unhealthy_and_the_daemon_is_not(user: User) {
    let scene = Scene::new(user);
    let probe = "readiness_probe: {exec: {command: [sh, -c, 'echo no database; exit 1']}, period: 20ms, \
                 timeout: 5s, failure_threshold: 1}";
    let detached = scene.detach(&[Document::service("api", "exec sleep 1000").spec(probe), up("db")]);
    let (finished, api) = once(&scene, "api", "unhealthy");
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    assert_eq!(api["reasons"][0]["reason"], "probe_fails", "{api}");
    let page = detached.try_toka(&["health", "api"]);
    assert_eq!(page.code, Some(1), "{page:#?}");
    assert!(page.stdout.contains("readiness probe fails: exit code 1: no database"), "{page:#?}");
    assert!(!page.stdout.contains("db"), "{page:#?}");
    assert_eq!(detached.try_toka(&["health", "db"]).code, Some(0), "the other one is well");
    assert_eq!(detached.try_toka(&["health", "nobody"]).code, Some(2));
    // The daemon does its work.
    let (status, text) = socket::get(&socket_of(&scene), "/readyz");
    assert_eq!(status, 200, "{text}");
    assert!(text.contains(&format!("[+]journal/{} ok\n", scene.name())), "{text}");
    assert!(text.ends_with("readyz check passed\n"), "{text}");
    let (_, text) = socket::get(&socket_of(&scene), "/readyz?format=json");
    let answer: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(answer["ready"], true, "{answer}");
    assert_eq!(socket::get(&socket_of(&scene), "/livez"), (200, "ok\n".to_owned()));
    assert_eq!(socket::get(&socket_of(&scene), "/readyz?format=xml").0, 400);
}

fn one_that_is_given_up_or_blocked_says_why(user: User) {
    let scene = Scene::new(user);
    let restart = "restart: {policy: always, max_restarts: 2, backoff: {initial: 1ms, max: 1ms, jitter: 0}}";
    let _detached = scene.detach(&[
        Document::shell("flapping", "exit 3").spec(restart),
        up("waits").section("dependencies: {required: {flapping: {reason: it serves, condition: ready}}}"),
    ]);
    let (_, flapping) = once(&scene, "flapping", "unhealthy");
    assert!(["quarantined", "backoff"].contains(&flapping["reasons"][0]["reason"].as_str().expect("text")));
    let (finished, _) = once(&scene, "waits", "unhealthy");
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    let told = scene.toka(&["health"]).stdout;
    assert!(told.contains("given up after 2 restarts: exit code 3"), "{told}");
    assert!(told.contains("flapping ended without being ready: exit code 3"), "{told}");
}

fn memory_close_to_its_limit_is_seen(user: User) {
    if user == User::Ordinary || !require(&[Need::Cgroups]) {
        return;
    }
    let scene = Scene::new(user);
    let limits = "security: {resource_limits: {max_memory: 64MB}}";
    let fill =
        "head -c 62000000 /dev/zero > /dev/shm/fill 2>/dev/null || head -c 62000000 /dev/zero > /tmp/fill";
    let script = format!("{fill}; exec sleep 1000");
    let _detached = scene.detach(&[Document::service("big", &script).section(limits)]);
    let (finished, big) = once(&scene, "big", "degraded");
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert_eq!(big["reasons"][0]["reason"], "memory_near_limit", "{big}");
    assert!(big["shares"]["memory"].as_u64().is_some_and(|share| share > 90), "{big}");
}

fn the_metrics_are_what_the_specification_wants(user: User) {
    let scene = Scene::new(user);
    // What is no name for a figure must not become a line of its own.
    let evil = "toka report metric rows 3 'evil\"} 1\nup{x=\"' 2; echo up; exec sleep 1000";
    let reporting = "reporting: {metrics: [rows]}";
    let agent = Document::service("api", evil).spec("readiness_probe: {log_line: up}").section(reporting);
    let detached = scene.detach(&[agent, Document::shell("job", "exit 4")]);
    detached.try_toka(&["wait", "job"]);
    once(&scene, "api", "healthy");
    let name = scene.name();
    let of = |agent| [("project", name), ("agent", agent)];
    let (api, job) = (of("api"), of("job"));
    let figure = [api[0], api[1], ("name", "rows")];
    let samples = until(SOON, "what it reports arrives", || {
        let samples = metrics(&scene);
        value(&samples, "toka_agent_metric", &figure).map(|_| samples)
    });
    assert_eq!(value(&samples, "toka_agent_metric", &figure), Some(3.0));
    assert_eq!(value(&samples, "toka_agent_ready", &api), Some(1.0));
    let state = |agent: [(&'static str, &str); 2], is| {
        let labels = [agent[0], agent[1], ("toka_agent_state", is)];
        value(&samples, "toka_agent_state", &labels)
    };
    assert_eq!(
        (state(api, "ready"), state(job, "failed"), state(job, "ready")),
        (Some(1.0), Some(1.0), Some(0.0))
    );
    assert_eq!(value(&samples, "toka_agent_last_exit_code", &job), Some(4.0));
    assert_eq!(
        value(&samples, "toka_agent_health", &[job[0], job[1], ("toka_agent_health", "unhealthy")]),
        Some(1.0)
    );
    // An ordinary user may have no groups, whose figures these are.
    if user != User::Ordinary {
        assert!(
            value(&samples, "toka_agent_cpu_seconds_total", &api).is_some_and(|cpu| cpu > 0.0),
            "{samples:#?}"
        );
    }
    assert_eq!(value(&samples, "toka_project_journal", &[("toka_project_journal", "well")]), Some(1.0));
    assert!(value(&samples, "toka_project_events_total", &[]).is_some_and(|events| events > 5.0));
    assert!(value(&samples, "toka_build_info", &[("version", env!("CARGO_PKG_VERSION"))]).is_some());
    assert!(value(&samples, "toka_agent_memory_bytes", &job).is_none(), "it holds nothing");
}

fn no_agent_adds_more_metrics_than_there_is_room_for(user: User) {
    let scene = Scene::new(user);
    let flood = "for i in $(seq 100); do echo \"m$i $i\"; done | xargs -n 20 toka report metric; \
                 toka report metric zz 1; echo up; exec sleep 1000";
    let agent = Document::service("api", flood)
        .spec("readiness_probe: {log_line: up}")
        .section("reporting: {metrics: [zz]}");
    let _detached = scene.detach(&[agent]);
    let samples = until(SOON, "all of it arrives", || {
        let samples = metrics(&scene);
        (value(&samples, "toka_agent_metrics_omitted", &[]) == Some(101.0 - 64.0)).then_some(samples)
    });
    assert_eq!(samples.iter().filter(|sample| sample.name == "toka_agent_metric").count(), 64);
    assert_eq!(
        value(&samples, "toka_agent_metric", &[("name", "zz")]),
        Some(1.0),
        "what is declared comes first"
    );
}

fn names_of_metrics_beyond_what_is_kept_are_counted_and_told_once(user: User) {
    let scene = Scene::new(user);
    let flood = "for i in $(seq 300); do echo \"m$i $i\"; done | xargs -n 20 toka report metric; \
                 toka report metric more 1; echo up; exec sleep 1000";
    let agent = Document::service("api", flood).spec("readiness_probe: {log_line: up}");
    let detached = scene.detach(&[agent]);
    until(SOON, "all of it arrives", || {
        let dropped = value(&metrics(&scene), "toka_agent_metrics_dropped_total", &[]);
        (dropped == Some(301.0 - 256.0)).then_some(())
    });
    let warnings = || {
        let told = detached.toka(&["events", "--json", "--kind", "warning"]).events();
        told.iter().filter(|event| event.to_string().contains("more than 256 names")).count()
    };
    until(SOON, "it is told", || (warnings() > 0).then_some(()));
    assert_eq!(warnings(), 1);
}

fn a_daemon_without_its_socket_is_not_ready(user: User) {
    let scene = Scene::new(user);
    let _detached = scene.detach(&[up("db")]);
    once(&scene, "db", "healthy");
    // Something else is in its place, which is not its own to remove; it answers under another name, until somebody puts the
    // right one back.
    let (socket, moved) = (socket_of(&scene), scene.state().join("run/moved.sock"));
    scene.write(&moved, "");
    let exchange = || {
        let flags = nix::fcntl::RenameFlags::RENAME_EXCHANGE;
        nix::fcntl::renameat2(nix::fcntl::AT_FDCWD, &socket, nix::fcntl::AT_FDCWD, &moved, flags)
            .expect("its folder is ours");
    };
    exchange();
    let (status, text) = socket::get(&moved, "/readyz");
    exchange();
    std::fs::remove_file(&moved).expect("ours");
    assert_eq!(status, 503, "{text}");
    assert!(text.contains("[-]control-socket failed: ") && text.ends_with("readyz check failed\n"), "{text}");
    assert_eq!(socket::get(&socket, "/readyz").0, 200);
}

fn a_keeper_that_hangs_is_seen(user: User) {
    let scene = Scene::new(user);
    let _detached = scene.detach(&[up("db")]);
    once(&scene, "db", "healthy");
    let daemon = json(&scene.toka(&["health", "--json"]))[0]["daemon"]["pid"].as_i64().expect("a pid");
    let keeper = child_of(i32::try_from(daemon).expect("a pid"));
    kill(keeper, Signal::SIGSTOP).expect("it is ours");
    let (status, text) = socket::get(&socket_of(&scene), "/readyz");
    kill(keeper, Signal::SIGCONT).expect("it is ours");
    assert_eq!(status, 503, "{text}");
    let check = format!("keeper/{} failed: no answer", scene.name());
    assert!(text.contains(&check), "{text}");
    assert_eq!(socket::get(&socket_of(&scene), "/readyz").0, 200);
}

/// The only child of a daemon.
fn child_of(daemon: i32) -> Pid {
    let path = format!("/proc/{daemon}/task/{daemon}/children");
    let children = std::fs::read_to_string(path).expect("it runs");
    let [child]: [i32; 1] = children
        .split_whitespace()
        .map(|pid| pid.parse().expect("a pid"))
        .collect::<Vec<_>>()
        .try_into()
        .expect("one child");
    Pid::from_raw(child)
}

fn watching_goes_on_until_ctrl_c(user: User) {
    use std::io::{BufRead as _, BufReader};

    let scene = Scene::new(user);
    let detached = scene.detach(&[up("db")]);
    once(&scene, "db", "healthy");
    let toka = toka_binary().as_os_str().to_owned();
    let words = ["health", "--watch", "--json", "--state-dir"].map(std::ffi::OsString::from);
    let words = [&[toka], &words[..], &[scene.state().into_os_string()]].concat();
    let mut watch = scene.bare_command(&words);
    let mut watch = watch.stdout(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(watch.stdout.take().expect("it is piped")).lines();
    let mut next = || -> Value {
        let line = lines.next().expect("it goes on").expect("text");
        serde_json::from_str(&line).expect("JSON")
    };
    assert_eq!(next()[0]["verdict"], "healthy");
    detached.toka(&["stop", "db"]);
    while next()[0]["projects"][0]["agents"][0]["verdict"] != "ended" {}
    let pid = Pid::from_raw(i32::try_from(watch.id()).expect("a pid"));
    kill(pid, Signal::SIGINT).expect("it runs");
    assert_eq!(watch.wait().expect("our own child").code(), Some(130));
}

fn nothing_runs_is_a_status_of_its_own(user: User) {
    let scene = Scene::new(user);
    let none = scene.toka(&["health"]);
    assert_eq!(none.code, Some(69), "{none:#?}");
    assert!(none.stderr.contains("toka run"), "{none:#?}");
}
