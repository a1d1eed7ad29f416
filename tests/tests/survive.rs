//! A daemon that is killed, and the one that goes on: agents keep their processes, their clocks and their output, nothing is
//! started twice, and what ended meanwhile is told as it ended.

mod survive_support;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use survive_support::{daemon_pid, eventually, kill_both, kill_daemon, serve_again, starts_of, told};
use toka_tests::{Document, Finished, Scene, User, as_both_users, toka_binary};

as_both_users!(
    agents_do_not_notice_that_their_daemon_was_killed,
    another_begins_right_after_a_kill,
    what_ended_meanwhile_is_told_as_it_ended,
    a_wait_and_a_count_of_restarts_survive,
    what_was_said_once_need_not_be_said_again,
    killed_again_and_again_nothing_is_started_twice_and_no_line_is_lost,
    an_upgrade_leaves_agents_alone,
    commands_that_wait_outlive_an_upgrade,
    a_restart_that_was_begun_is_finished_by_the_next_daemon,
    a_change_that_a_killed_daemon_had_begun_is_undone,
    a_stop_is_the_last_word_whatever_was_begun,
    what_ended_by_itself_during_a_change_is_not_run_again,
    one_that_was_removed_and_added_again_can_be_stopped,
    a_daemon_that_is_stopped_leaves_its_runs_to_the_next,
    a_run_that_was_to_end_ends,
    a_list_of_tasks_is_worked_through_across_daemons,
    a_command_beside_an_agent_has_its_end_told_whoever_was_killed,
    a_secret_that_only_the_former_daemon_knew_is_asked_for_again,
);

fn agents_do_not_notice_that_their_daemon_was_killed(user: User) {
    let scene = Scene::new(user);
    let detached = scene.detach(&[
        Document::service("ready", "echo up; exec sleep 1000").spec("readiness_probe: {log_line: up}"),
        Document::service("paused", "exec sleep 1000"),
    ]);
    detached.toka(&["wait", "--for", "ready", "ready"]);
    eventually("both run", || detached.state("paused") == "running");
    let can_pause = detached.try_toka(&["pause", "paused"]).code == Some(0);
    let before: Vec<Value> = ["ready", "paused"].map(|agent| detached.inspect(agent)).to_vec();
    kill_daemon(&scene);
    let told = scene.toka(&["ps"]);
    assert!(told.stderr.contains("serve --detach"), "{told:#?}");
    serve_again(&scene);
    for former in &before {
        let now = detached.inspect(former["name"].as_str().expect("a name"));
        for field in ["pid", "state", "since_ms", "started_ms", "restart_count"] {
            assert_eq!(now[field], former[field], "{field}: {now:#}");
        }
    }
    if can_pause {
        assert_eq!(detached.toka(&["resume", "paused"]).stdout, "paused  running\n");
    }
    assert_eq!(starts_of(&detached, "ready"), 1);
}

/// While the kernel still closes what the killed process had.
fn another_begins_right_after_a_kill(user: User) {
    let scene = Scene::new(user);
    let detached = scene.detach(&[Document::service("api", "exec sleep 1000")]);
    eventually("it runs", || detached.state("api") == "running");
    let before = detached.inspect("api")["pid"].clone();
    for _ in 0..5 {
        kill(Pid::from_raw(daemon_pid(&scene)), Signal::SIGKILL).expect("it runs");
        serve_again(&scene);
    }
    assert_eq!(detached.inspect("api")["pid"], before);
}

fn what_ended_meanwhile_is_told_as_it_ended(user: User) {
    let scene = Scene::new(user);
    let release = "until [ -e ~/go ]; do sleep 0.02; done";
    let detached = scene.detach(&[
        Document::shell("failing", &format!("{release}; echo last words; exit 7")),
        Document::shell("good", &format!("{release}; exit 0")),
        Document::shell("after", "true").after(&["good"]),
    ]);
    for agent in ["failing", "good"] {
        eventually("it runs", || detached.state(agent) == "running");
    }
    let pids: Vec<Value> = ["failing", "good"].map(|agent| detached.inspect(agent)["pid"].clone()).to_vec();
    kill_daemon(&scene);
    let agents = scene.state().join("projects").join(scene.name()).join("agents");
    for agent in ["failing", "good"] {
        scene.write(&agents.join(agent).join("home/go"), "");
    }
    for pid in &pids {
        let stat = format!("/proc/{pid}/stat");
        eventually("it has ended", || !std::path::Path::new(&stat).exists());
    }
    serve_again(&scene);
    assert_eq!(detached.try_toka(&["wait", "failing"]).code, Some(1));
    assert_eq!(detached.inspect("failing")["exit"]["code"], 7);
    detached.toka(&["wait", "good", "after"]);
    let log = std::fs::read_to_string(agents.join("failing/log")).expect("a log");
    assert_eq!(log, "last words\n");
}

fn a_wait_and_a_count_of_restarts_survive(user: User) {
    let scene = Scene::new(user);
    let restart =
        "restart: {policy: always, max_restarts: 9, backoff: {initial: 1000s, max: 1000s, jitter: 0}}";
    let detached = scene.detach(&[Document::shell("flapping", "exit 3").spec(restart)]);
    eventually("it waits", || detached.state("flapping") == "backoff");
    let before = detached.inspect("flapping");
    kill_daemon(&scene);
    serve_again(&scene);
    let after = detached.inspect("flapping");
    for field in ["state", "restart_count", "next_start_ms", "since_ms"] {
        assert_eq!(after[field], before[field], "{field}: {after:#}");
    }
    // A person need not wait that long.
    detached.toka(&["start", "--no-wait", "flapping"]);
    eventually("its next life has ended", || detached.inspect("flapping")["restart_count"] == 2);
    assert_eq!(starts_of(&detached, "flapping"), 2);
}

/// More with `TOKA_ROUNDS`.
fn killed_again_and_again_nothing_is_started_twice_and_no_line_is_lost(user: User) {
    let rounds: usize = std::env::var("TOKA_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(4);
    let scene = Scene::new(user);
    let count = "i=0; until [ -e ~/stop ]; do i=$((i+1)); echo line $i; done; echo end $i";
    let writers = ["one", "two", "three"];
    let mut agents: Vec<Document> = writers.iter().map(|name| Document::shell(name, count)).collect();
    agents.push(Document::service("idle", "exec sleep 1000"));
    let detached = scene.detach(&agents);
    for round in 0..rounds {
        // At another moment each time: while they start, run, are restarted by hand.
        if round % 2 == 1 {
            let _ = detached.try_toka(&["restart", "--no-wait", "idle"]);
        }
        kill_daemon(&scene);
        serve_again(&scene);
    }
    for agent in writers {
        eventually("it runs", || detached.state(agent) == "running");
        assert_eq!(starts_of(&detached, agent), 1, "{agent}");
        let home = scene.state().join("projects").join(scene.name()).join("agents").join(agent).join("home");
        scene.write(&home.join("stop"), "");
    }
    detached.toka(&["wait"]);
    for agent in writers {
        let logs = scene.toka(&["logs", "--project", scene.name(), agent, "--run", "all"]);
        let lines: Vec<&str> =
            logs.stdout.lines().map(|line| line.rsplit("| ").next().unwrap_or(line)).collect();
        let (last, counted) = lines.split_last().expect("lines");
        assert_eq!(*last, format!("end {}", counted.len()), "{agent}");
        for (number, line) in (1..).zip(counted) {
            assert_eq!(*line, format!("line {number}"), "{agent}");
        }
    }
}

fn a_run_that_was_to_end_ends(user: User) {
    let scene = Scene::new(user);
    let deaf = "trap '' TERM; echo deaf; while :; do sleep 1000; done";
    let detached = scene.detach(&[
        Document::service("deaf", deaf).spec("stop: {grace_period: 1000s}"),
        Document::service("idle", "exec sleep 1000"),
    ]);
    for agent in ["deaf", "idle"] {
        eventually("it runs", || detached.state(agent) == "running");
    }
    eventually("it is deaf", || {
        scene.toka(&["logs", "--project", scene.name(), "deaf"]).stdout.contains("deaf")
    });
    let words = ["down", "--state-dir"].map(OsString::from);
    let mut line = vec![toka_binary().into()];
    line.extend(words);
    line.push(scene.state().into());
    let mut down = scene.bare_command(&line).spawn().expect("it starts");
    eventually("one has ended", || detached.state("idle") == "ended" && detached.state("deaf") == "stopping");
    kill_daemon(&scene);
    down.wait().expect("our own child");
    serve_again(&scene);
    let refused = detached.try_toka(&["start", "--no-wait", "idle"]);
    assert_eq!(refused.code, Some(1), "{refused:#?}");
    assert_eq!(detached.toka(&["events", "--json", "--kind", "run_ending"]).events().len(), 1);
    detached.try_toka(&["kill", "deaf"]);
    eventually("the run is over", || !scene.toka(&["ps", "--json"]).stdout.contains("deaf"));
}

fn an_upgrade_leaves_agents_alone(user: User) {
    let scene = Scene::new(user);
    let detached = scene.detach(&[Document::service("api", "exec sleep 1000")]);
    eventually("it runs", || detached.state("api") == "running");
    let (agent, daemon) = (detached.inspect("api")["pid"].clone(), daemon_pid(&scene));
    let upgraded = scene.toka(&["upgrade"]);
    assert_eq!(upgraded.code, Some(0), "{upgraded:#?}");
    assert_eq!(daemon_pid(&scene), daemon, "it is the same process");
    assert_eq!(detached.inspect("api")["pid"], agent);
    assert_eq!(detached.state("api"), "running");
    let events = detached.toka(&["events", "--json", "--kind", "run_adopted"]).events();
    assert_eq!(events.len(), 1, "{events:#?}");
}

/// Says that it was asked to stop, and ends when it is let.
const SLOW: &str = "trap 'echo > ~/asked; until [ -e ~/go ]; do sleep 0.02; done; exit 0' TERM; while :; do sleep 0.02; done";

fn slow(name: &str) -> Document {
    Document::service(name, SLOW).spec("stop: {grace_period: 60s}")
}

fn a_restart_that_was_begun_is_finished_by_the_next_daemon(user: User) {
    let scene = Scene::new(user);
    let other = Document::service("other", "exec sleep 1000");
    let detached = scene.detach(&[slow("api"), other]);
    let home = scene.state().join("projects").join(scene.name()).join("agents/api/home");
    let (asked, go) = (home.join("asked"), home.join("go"));
    let untouched = || (detached.inspect("other")["pid"].clone(), starts_of(&detached, "other"));
    eventually("both run", || detached.state("api") == "running" && detached.state("other") == "running");
    let before = untouched();
    for (starts, is_killed) in [(2, true), (3, false)] {
        detached.toka(&["restart", "api", "--no-wait"]);
        eventually("it is asked to stop", || asked.exists());
        if is_killed {
            kill_daemon(&scene);
            serve_again(&scene);
        } else {
            assert_eq!(scene.toka(&["upgrade"]).code, Some(0));
        }
        scene.write(&go, "");
        eventually("it begins anew", || starts_of(&detached, "api") == starts);
        for file in [&asked, &go] {
            std::fs::remove_file(file).expect("its home");
        }
        eventually("it runs", || detached.state("api") == "running");
    }
    // A stop that came after it is the last word.
    detached.toka(&["restart", "api", "--no-wait"]);
    eventually("it is asked to stop", || asked.exists());
    detached.toka(&["stop", "api", "--no-wait"]);
    let is_revoked = |event: &Value| event["then"].is_null();
    eventually("the journal has it", || told(&detached, "agent_returns").last().is_some_and(is_revoked));
    kill_daemon(&scene);
    scene.write(&go, "");
    serve_again(&scene);
    eventually("it is stopped", || detached.state("api") == "ended");
    assert_eq!((starts_of(&detached, "api"), untouched()), (3, before));
}

fn a_change_that_a_killed_daemon_had_begun_is_undone(user: User) {
    let scene = Scene::new(user);
    let other = || Document::service("other", "exec sleep 1000");
    let detached = scene.detach(&[slow("api"), other()]);
    eventually("both run", || detached.state("api") == "running" && detached.state("other") == "running");
    let before = detached.inspect("other")["pid"].clone();
    let home = scene.state().join("projects").join(scene.name()).join("agents/api/home");
    let changed = Document::service("api", "exec sleep 2000");
    std::thread::scope(|scope| {
        let applied = scope.spawn(|| scene.apply(&[changed, other()], &[]));
        eventually("it is asked to stop", || home.join("asked").exists());
        kill_daemon(&scene);
        assert_eq!(applied.join().expect("no panic").code, Some(69));
    });
    scene.write(&home.join("go"), "");
    serve_again(&scene);
    eventually("it goes on as it was", || {
        starts_of(&detached, "api") == 2 && detached.state("api") == "running"
    });
    let command = detached.inspect("api")["declared"].to_string();
    assert!(command.contains("~/asked"), "{command}");
    assert_eq!((detached.inspect("other")["pid"].clone(), starts_of(&detached, "other")), (before, 1));
}

fn a_stop_is_the_last_word_whatever_was_begun(user: User) {
    let scene = Scene::new(user);
    let web = |seconds: &str| Document::service("web", &format!("exec sleep {seconds}")).after(&["db"]);
    let detached = scene.detach(&[slow("db"), web("1000")]);
    let running = || detached.state("db") == "running" && detached.state("web") == "running";
    eventually("both run", running);
    let home = scene.state().join("projects").join(scene.name()).join("agents/db/home");
    let (asked, go) = (home.join("asked"), home.join("go"));
    let starts = |agent: &str| starts_of(&detached, agent);
    // Web is gone, and waits for db, which is stopping: a stop of it counts all the same.
    detached.toka(&["restart", "--no-wait", "db", "web"]);
    eventually("db is asked to stop", || asked.exists());
    detached.toka(&["stop", "web"]);
    scene.write(&go, "");
    eventually("db has begun anew", || starts("db") == 2 && detached.state("db") == "running");
    assert_eq!((starts("web"), detached.state("web").as_str()), (1, "ended"));
    for file in [&asked, &go] {
        std::fs::remove_file(file).expect("its home");
    }
    // Stopped during a change, it stays stopped when the change is done.
    let other = Document::service("db", "exec sleep 3000");
    std::thread::scope(|scope| {
        let applied = scope.spawn(|| scene.apply(&[other, web("2000")], &[]));
        eventually("db is asked to stop", || asked.exists());
        detached.toka(&["stop", "db", "--no-wait"]);
        scene.write(&go, "");
        assert_eq!(applied.join().expect("no panic").code, Some(0));
    });
    eventually("it stays stopped", || detached.state("db") == "ended");
    assert_eq!(starts("db"), 2);
    // A stop of several is finished by the next daemon.
    detached.toka(&["start", "db", "web"]);
    eventually("both run", running);
    detached.toka(&["stop", "--no-wait", "web", "db"]);
    assert_eq!(scene.toka(&["upgrade"]).code, Some(0));
    eventually("both are stopped", || detached.state("db") == "ended" && detached.state("web") == "ended");
}

/// Both are changed; the job ends while the service is being stopped, before anybody asks it to.
fn what_ended_by_itself_during_a_change_is_not_run_again(user: User) {
    let scene = Scene::new(user);
    let job = |more: &str| Document::shell("job", &format!("until [ -e ~/end ]; do sleep 0.02; done{more}"));
    let web = |watchdog: &str| {
        let needs = "dependencies: {required: {job: {reason: order, condition: process_started}}}";
        slow("web").spec(&format!("watchdog: {watchdog}")).section(needs)
    };
    let detached = scene.detach(&[job(""), web("1h")]);
    eventually("both run", || detached.state("job") == "running" && detached.state("web") == "running");
    let homes = scene.state().join("projects").join(scene.name()).join("agents");
    std::thread::scope(|scope| {
        let applied = scope.spawn(|| scene.apply(&[job(" "), web("2h")], &[]));
        eventually("web is asked to stop", || homes.join("web/home/asked").exists());
        scene.write(&homes.join("job/home/end"), "");
        eventually("the job has ended", || detached.state("job") == "ended");
        kill_daemon(&scene);
        assert_eq!(applied.join().expect("no panic").code, Some(69));
    });
    scene.write(&homes.join("web/home/go"), "");
    serve_again(&scene);
    eventually("web goes on", || starts_of(&detached, "web") == 2);
    assert_eq!(starts_of(&detached, "job"), 1, "it had done its work");
}

fn one_that_was_removed_and_added_again_can_be_stopped(user: User) {
    let scene = Scene::new(user);
    let service = |name: &str| Document::service(name, "exec sleep 1000");
    let detached = scene.detach(&[service("a"), service("c")]);
    eventually("both run", || detached.state("c") == "running");
    let files = scene.folder().join("workstreams");
    std::fs::remove_file(files.join("c.yaml")).expect("ours");
    assert_eq!(scene.apply(&[service("a")], &[]).code, Some(0));
    assert_eq!(scene.apply(&[service("a"), service("c")], &[]).code, Some(0));
    eventually("it runs again", || detached.state("c") == "running");
    assert_eq!(scene.toka(&["upgrade"]).code, Some(0));
    assert_eq!(detached.toka(&["stop", "c"]).stdout, "c  stopped\n");
    assert_eq!(detached.toka(&["restart", "c"]).stdout, "c  running\n");
    kill_daemon(&scene);
    serve_again(&scene);
    assert_eq!(detached.toka(&["stop", "c"]).stdout, "c  stopped\n");
    detached.toka(&["down"]);
}

fn commands_that_wait_outlive_an_upgrade(user: User) {
    let scene = Scene::new(user);
    let detached = scene.detach(&[slow("api"), Document::service("other", "exec sleep 1000")]);
    eventually("it runs", || detached.state("api") == "running");
    let begin = |words: &[&str]| {
        let mut line: Vec<OsString> = vec![toka_binary().into()];
        line.extend(words.iter().map(OsString::from));
        line.extend(["--project".into(), scene.name().into(), "--state-dir".into(), scene.state().into()]);
        scene.command(&line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("toka")
    };
    let commands = [&["events", "--follow", "--json"][..], &["wait", "api"], &["stop", "api"]].map(begin);
    let home = scene.state().join("projects").join(scene.name()).join("agents/api/home");
    eventually("it is asked to stop", || home.join("asked").exists());
    assert_eq!(scene.toka(&["upgrade"]).code, Some(0));
    let brief = detached.try_toka(&["stop", "api", "--timeout", "50ms"]);
    assert_eq!(brief.code, Some(124), "it is stopping, and has not ended: {brief:#?}");
    std::fs::write(home.join("go"), "").expect("its home");
    let [events, wait, stop] =
        commands.map(|command| move || Finished::from(command.wait_with_output().expect("its end")));
    let (stop, wait) = (stop(), wait());
    assert_eq!((stop.code, stop.stdout.as_str()), (Some(0), "api  stopped\n"), "{stop:#?}");
    assert_eq!((wait.code, wait.stdout.as_str()), (Some(0), "api  stopped\n"), "{wait:#?}");
    detached.toka(&["down"]);
    let events = events();
    assert_eq!(events.code, Some(0), "{events:#?}");
    let numbers: Vec<u64> = events.events().iter().filter_map(|event| event["seq"].as_u64()).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "each once: {events:#?}");
    assert_eq!(events.events().last().expect("events")["type"], "run_ended");
}

fn what_was_said_once_need_not_be_said_again(user: User) {
    let scene = Scene::new(user);
    let ready = "readiness_probe: {log_line: up to date, period: 10ms, failure_threshold: 1}";
    let alive = "liveness_probe: {exec: [sh, -c, 'echo >> ~/asked'], period: 10ms, failure_threshold: 9}";
    let index = Document::service("index", "echo up to date; exec sleep 1000").spec(ready).spec(alive);
    let detached = scene.detach(&[index]);
    let asked = scene.state().join("projects").join(scene.name()).join("agents/index/home/asked");
    let times = || std::fs::read_to_string(&asked).unwrap_or_default().len();
    let is_ready = || detached.inspect("index")["ready"] == true;
    eventually("it is ready", is_ready);
    kill_daemon(&scene);
    serve_again(&scene);
    let before = times();
    // Probes are asked side by side: the other one has had its turn many times by then.
    eventually("it is asked again", || times() >= before + 10);
    assert!(is_ready(), "{:?}", told(&detached, "probe_changed"));
    assert!(told(&detached, "probe_changed").iter().all(|event| event["ok"] == true));
}

fn a_list_of_tasks_is_worked_through_across_daemons(user: User) {
    let scene = Scene::new(user);
    let wait = "until [ -e ~/go ]; do sleep 0.02; done; echo one";
    let tasks = format!(
        "tasks: {{default: [{{description: one, run: {wait:?}}}, {{description: two, run: echo two}}]}}"
    );
    let detached = scene.detach(&[Document::bare("worker").section(&tasks)]);
    eventually("its first task runs", || {
        detached.toka(&["events", "--json", "--kind", "task_started"]).events().len() == 1
    });
    kill_daemon(&scene);
    let home = scene.state().join("projects").join(scene.name()).join("agents/worker/home");
    serve_again(&scene);
    kill_daemon(&scene);
    // Its end comes while nobody listens.
    scene.write(&home.join("go"), "");
    let log = home.parent().expect("a folder").join("log");
    serve_again(&scene);
    let ended = detached.try_toka(&["wait", "worker"]);
    assert_eq!(ended.code, Some(0), "{ended:#?} {:?}", std::fs::read_to_string(&log));
    assert_eq!(std::fs::read_to_string(&log).expect("a log"), "one\ntwo\n");
    let events = detached.toka(&["events", "--json", "--kind", "task_started,task_ended"]).events();
    let told: Vec<_> = events.iter().map(|event| (event["type"].as_str(), event["index"].as_u64())).collect();
    let of = |kind, index| (Some(kind), Some(index));
    let expected = [of("task_started", 0), of("task_ended", 0), of("task_started", 1), of("task_ended", 1)];
    assert_eq!(told, expected);
}

fn a_command_beside_an_agent_has_its_end_told_whoever_was_killed(user: User) {
    let scene = Scene::new(user);
    let again = "restart: {policy: always, max_restarts: 9, backoff: {initial: 10ms, jitter: 0}}";
    let detached = scene.detach(&[Document::service("host", "exec sleep 1000").spec(again)]);
    let runs = || eventually("it runs", || detached.state("host") == "running");
    let begin = |line: &str| {
        runs();
        let before = told(&detached, "exec_started").len();
        let state = scene.state().display().to_string();
        let toka = toka_binary().display().to_string();
        let at = ["--project", scene.name(), "--state-dir", &state];
        let words = [&[&toka, "exec"], &at[..], &["host", "--", "sh", "-c", line]].concat();
        let mut command = scene.bare_command(&words);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        eventually("it is on record", || told(&detached, "exec_started").len() > before);
        child
    };
    let exits = || {
        let ended = told(&detached, "exec_ended").into_iter();
        ended.map(|event| (event["exec"].as_u64(), event["exit"].clone())).collect::<BTreeMap<_, _>>()
    };
    let home = scene.state().join("projects").join(scene.name()).join("agents/host/home");
    let clients =
        [begin("until [ -e ~/go ]; do sleep 0.02; done; touch ~/gone; exit 7"), begin("exec sleep 1000")];
    kill_daemon(&scene);
    scene.write(&home.join("go"), "");
    eventually("one has ended", || home.join("gone").exists());
    serve_again(&scene);
    eventually("both ends are told", || exits().len() == 2);
    let begun: Vec<Option<u64>> =
        told(&detached, "exec_started").iter().map(|it| it["exec"].as_u64()).collect();
    assert_eq!(exits()[&begun[0]], serde_json::json!({"cause": "code", "code": 7}));
    assert_eq!(exits()[&begun[1]]["signal"], 9, "nobody is left who reads from it");

    let client = begin("exec sleep 1000");
    kill_both(&scene);
    serve_again(&scene);
    eventually("its end is told", || exits().len() == 3);
    let begun: Vec<Option<u64>> =
        told(&detached, "exec_started").iter().map(|it| it["exec"].as_u64()).collect();
    assert_eq!(exits()[&begun[2]]["cause"], "unknown", "who knew it is dead");
    let last = begin("true");
    eventually("its end is told", || exits().len() == 4);
    for mut client in clients.into_iter().chain([client, last]) {
        client.wait().expect("ours");
    }
}

fn a_daemon_that_is_stopped_leaves_its_runs_to_the_next(user: User) {
    let scene = Scene::new(user);
    let detached = scene.detach(&[
        Document::service("kept", "exec sleep 1000"),
        Document::service("stopped", "exec sleep 1000"),
        Document::shell("task", "exec sleep 1000"),
        Document::shell("done", "true"),
        Document::shell("waiting", "exec sleep 1000").after(&["held"]),
        Document::shell("held", "until [ -e ~/go ]; do sleep 0.02; done")
            .spec("restart: {policy: on-failure}"),
    ]);
    for agent in ["kept", "stopped", "task", "held"] {
        eventually("it runs", || detached.state(agent) == "running");
    }
    detached.toka(&["wait", "done"]);
    detached.toka(&["stop", "stopped"]);
    let before = detached.inspect("kept")["pid"].clone();
    kill(Pid::from_raw(daemon_pid(&scene)), Signal::SIGTERM).expect("it runs");
    eventually("it has ended", || scene.toka(&["ps"]).stdout == "nothing runs\n");
    serve_again(&scene);
    for agent in ["kept", "held"] {
        eventually("it runs again", || detached.state(agent) == "running");
    }
    assert_ne!(detached.inspect("kept")["pid"], before);
    for agent in ["stopped", "task", "done"] {
        assert_eq!(detached.state(agent), "ended", "{agent}");
    }
    assert_eq!(detached.state("waiting"), "pending");
    let all = ["kept", "held", "stopped", "task", "done", "waiting"];
    assert_eq!(all.map(|agent| starts_of(&detached, agent)), [2, 2, 1, 1, 1, 0]);
    let agents = scene.state().join("projects").join(scene.name()).join("agents");
    scene.write(&agents.join("held/home/go"), "");
    eventually("what waited has its turn", || detached.state("waiting") == "running");
    // What is brought down stays down, whatever ended the daemon before.
    scene.toka(&["down", "--all"]);
    serve_again(&scene);
    assert_eq!(scene.toka(&["ps", "--json"]).stdout.trim(), "[]");
}

fn a_secret_that_only_the_former_daemon_knew_is_asked_for_again(user: User) {
    let scene = Scene::new(user).env("KEY", "s3cret-value").env("TOKA_TRUST", "all");
    let script = "cat \"$CREDENTIALS_DIRECTORY/key\" >> ~/seen; echo >> ~/seen; until [ -e ~/go ]; do sleep 0.02; done; rm ~/go; exit 3";
    let agent = |name: &str| {
        Document::service(name, script)
            .spec("secrets: {key: {env: KEY}}")
            .spec("restart: {policy: always, max_restarts: 9, backoff: {initial: 1ms}}")
    };
    let agents = [agent("ends"), agent("lives")];
    let detached = scene.detach(&agents);
    let home =
        |name: &str| scene.state().join("projects").join(scene.name()).join("agents").join(name).join("home");
    let seen = |name: &str| std::fs::read_to_string(home(name).join("seen")).unwrap_or_default();
    for name in ["ends", "lives"] {
        eventually("it runs", || seen(name).lines().count() == 1);
    }
    let pid = detached.inspect("lives")["pid"].clone();
    kill_daemon(&scene);
    serve_again(&scene);
    // Whoever runs goes on, and it is said what would become of it.
    assert_eq!(detached.inspect("lives")["pid"], pid);
    let health =
        detached.try_toka(&["health", "lives"]).stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    for word in ["cannot be started again", "KEY, which is not set", "toka apply"] {
        assert!(health.contains(word), "{word}: {health}");
    }
    // Whoever ends is not started without it.
    scene.write(&home("ends").join("go"), "");
    eventually("it has ended", || detached.inspect("ends")["exit"]["cause"] == "start_failed");
    let exit = detached.inspect("ends")["exit"].to_string();
    assert!(exit.contains("KEY, which is not set") && exit.contains("toka apply"), "{exit}");
    assert_eq!(seen("ends").lines().count(), 1);
    let applied = scene.apply(&agents, &[]);
    assert_eq!(applied.code, Some(0), "{applied:#?}");
    assert_eq!(detached.inspect("lives")["pid"], pid, "it goes on");
    let health = detached.try_toka(&["health", "lives"]).stdout;
    assert!(!health.contains("cannot be started again"), "{health}");
    scene.write(&home("lives").join("go"), "");
    eventually("its next life", || seen("lives") == "s3cret-value\ns3cret-value\n");
    detached.toka(&["start", "ends"]);
    eventually("its next life", || seen("ends") == "s3cret-value\ns3cret-value\n");
    assert!(!detached.toka(&["events", "--json"]).stdout.contains("s3cret"));
}
