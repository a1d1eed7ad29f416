//! Faults that somebody else makes, and the daemon stays as it should: agents that misbehave, people who remove what they
//! should not, callers who never come to an end. Each time the same is asked: does it go on, does it say what happened, are
//! others left alone, is nothing left? `Detached` asks the last at its end.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use toka_tests::{
    Detached, Document, Scene, User, as_both_users, cgroups_of, processes_with, socket, toka_binary, until,
};

as_both_users!(
    agents_that_do_not_want_to_end_do_all_the_same,
    a_flood_of_output_is_kept_within_its_bounds,
    a_life_that_ends_while_it_is_paused_is_told,
    one_that_flaps_costs_nobody_anything,
    a_control_socket_that_is_removed_is_made_anew,
    a_state_folder_that_is_removed_is_told_and_the_daemon_can_be_reached,
    a_keeper_that_is_stopped_is_told_and_other_projects_go_on,
    callers_that_never_come_to_an_end_hold_up_nobody,
    a_reader_of_events_that_stops_misses_nothing,
    many_are_stopped_at_once,
    groups_that_root_takes_away_are_told_and_the_agents_still_end,
    files_that_are_none_are_refused,
    probes_that_never_answer_are_failures,
);

/// Far above what anything here takes; only a failure waits so long.
const SOON: Duration = Duration::from_secs(40);

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    until(SOON, what, || is_so().then_some(()));
}

/// One whom nothing may disturb.
fn calm() -> Document {
    Document::service("calm", "exec sleep 1000")
}

/// More with `TOKA_ROUNDS`.
fn rounds(usual: usize) -> usize {
    std::env::var("TOKA_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

fn socket_of(scene: &Scene) -> PathBuf {
    scene.state().join("run/daemon.sock")
}

/// The process that answers.
fn daemon_of(scene: &Scene) -> i32 {
    let stream = UnixStream::connect(socket_of(scene)).expect("a daemon");
    nix::sys::socket::getsockopt(&stream, nix::sys::socket::sockopt::PeerCredentials).expect("a peer").pid()
}

fn keeper_of(scene: &Scene) -> Pid {
    let daemon = daemon_of(scene);
    let children =
        std::fs::read_to_string(format!("/proc/{daemon}/task/{daemon}/children")).expect("it runs");
    Pid::from_raw(children.trim().parse().expect("one child"))
}

/// What a process holds in memory, in KiB.
fn memory_of(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn pid_of(detached: &Detached<'_>, agent: &str) -> Value {
    eventually("it runs", || detached.state(agent) == "running");
    detached.inspect(agent)["pid"].clone()
}

fn has_groups(detached: &Detached<'_>) -> bool {
    detached.try_toka(&["pause", "calm"]).code == Some(0)
        && detached.toka(&["resume", "calm"]).code == Some(0)
}

fn agents_that_do_not_want_to_end_do_all_the_same(user: User) {
    let scene = Scene::new(user);
    let short = "stop: {grace_period: 200ms}";
    let deaf = "trap '' TERM INT HUP QUIT USR1; while :; do sleep 0.05; done";
    let closes = "for i in 0 1 2 3 4 5 6 7 8 9; do eval \"exec $i>&-\"; done; exec sleep 1000";
    let daemonises = "(setsid sh -c '(exec sleep 1000) & exit' ) & exit 0";
    let bomb = "f() { sleep 1000 & f; }; f 2>/dev/null; exec sleep 1000";
    let detached = scene.detach(&[
        calm(),
        Document::service("deaf", deaf).spec(short),
        Document::service("closes", closes),
        Document::shell("daemonises", daemonises),
        Document::service("bomb", bomb)
            .section("security: {resource_limits: {max_processes: 40}}")
            .spec("restart: {policy: never}"),
    ]);
    let calm = pid_of(&detached, "calm");
    detached.toka(&["wait", "daemonises"]);
    assert_eq!(detached.inspect("daemonises")["exit"]["code"], 0, "its first process said so");
    eventually("the bomb has met its limit", || detached.state("bomb") != "starting");
    eventually("it runs", || detached.state("closes") == "running" && detached.state("deaf") == "running");
    let begun = Instant::now();
    detached.toka(&["stop", "deaf", "closes"]);
    assert!(begun.elapsed() >= Duration::from_millis(200), "it had its time");
    let events = detached.toka(&["events", "--json", "--kind", "agent_ended"]).events();
    let ended = events.iter().find(|event| event["agent"] == "deaf").expect("it ended");
    assert_eq!((&ended["exit"]["cause"], &ended["exit"]["by"]), (&"stopped".into(), &"operator".into()));
    assert_eq!(pid_of(&detached, "calm"), calm);
}

fn a_flood_of_output_is_kept_within_its_bounds(user: User) {
    let scene = Scene::new(user);
    let megabytes = rounds(64);
    let flood = |name: &str, full: &str| {
        let logs = format!("logs: {{max_size: 1MB, total: 4MB, when_full: {full}}}");
        Document::shell(name, &format!("yes a line of a flood | head -c {megabytes}M; echo; echo done"))
            .section(&logs)
    };
    let detached = scene.detach(&[calm(), flood("drops", "drop"), flood("blocks", "block")]);
    let begun = Instant::now();
    detached.toka(&["wait", "drops", "blocks"]);
    println!("{megabytes} MB twice in {:?}, daemon {} KiB", begun.elapsed(), memory_of(daemon_of(&scene)));
    let agents = scene.state().join("projects").join(scene.name()).join("agents");
    for agent in ["drops", "blocks"] {
        assert_eq!(scene.toka(&["logs", "--project", scene.name(), agent, "--tail", "1"]).stdout, "done\n");
        eventually("the logs are within their bounds", || {
            let older = std::fs::read_dir(agents.join(agent).join("logs")).into_iter().flatten().flatten();
            let older: u64 = older.filter_map(|file| Some(file.metadata().ok()?.len())).sum();
            older + std::fs::metadata(agents.join(agent).join("log")).map_or(0, |log| log.len()) <= 5 << 20
        });
    }
    assert!(memory_of(daemon_of(&scene)) < 200 * 1024, "the daemon keeps none of it");
    assert_eq!(detached.state("calm"), "running");
}

fn a_life_that_ends_while_it_is_paused_is_told(user: User) {
    let scene = Scene::new(user);
    let restart =
        "restart: {policy: always, max_restarts: 100000, backoff: {initial: 1ms, max: 1ms, jitter: 0}}";
    let detached = scene.detach(&[calm(), Document::shell("brief", "sleep 0.01").spec(restart)]);
    let calm = pid_of(&detached, "calm");
    if !has_groups(&detached) {
        return;
    }
    let mut seen = std::collections::BTreeMap::<String, usize>::new();
    let longest = Duration::from_secs(20);
    for _ in 0..rounds(40) {
        let begun = Instant::now();
        let paused = detached.try_toka(&["pause", "brief"]);
        assert!(begun.elapsed() < longest, "it waits for what never comes: {paused:#?}");
        let told = paused.stdout.trim().to_owned();
        let is_paused = told == "brief  paused";
        assert_eq!(paused.code, Some(i32::from(!is_paused)), "{paused:#?}");
        *seen.entry(told).or_default() += 1;
        if is_paused && detached.state("brief") == "paused" {
            detached.toka(&["resume", "brief"]);
        } else if is_paused {
            // It had ended already when it was frozen: that is the next that is told of it.
            let kinds = "agent_paused,agent_resumed,agent_restarting";
            let events = detached.toka(&["events", "--json", "--kind", kinds, "brief"]).events();
            let at = events.iter().rposition(|event| event["type"] == "agent_paused").expect("it was paused");
            assert_eq!(events[at + 1]["type"], "agent_restarting", "{:#?}", &events[at..]);
            *seen.entry("paused too late".to_owned()).or_default() += 1;
        }
    }
    println!("{seen:#?}");
    let is_clear = |told: &String| {
        told.starts_with("brief  not paused: ")
            || ["brief  paused", "paused too late"].contains(&told.as_str())
    };
    assert!(seen.keys().all(is_clear), "{seen:#?}");
    assert_eq!(pid_of(&detached, "calm"), calm);
}

fn one_that_flaps_costs_nobody_anything(user: User) {
    let scene = Scene::new(user);
    let lives = rounds(100);
    let restart = format!(
        "restart: {{policy: always, max_restarts: {lives}, backoff: {{initial: 1ms, max: 1ms, jitter: 0}}}}"
    );
    let detached = scene.detach(&[calm(), Document::shell("flaps", "exit 3").spec(&restart)]);
    let calm = pid_of(&detached, "calm");
    let (daemon, keeper) = (daemon_of(&scene), keeper_of(&scene).as_raw());
    let descriptors = || std::fs::read_dir(format!("/proc/{daemon}/fd")).expect("it runs").count();
    let before = (memory_of(daemon), memory_of(keeper), descriptors());
    let begun = Instant::now();
    assert_eq!(detached.try_toka(&["wait", "flaps"]).code, Some(1));
    let after = (memory_of(daemon), memory_of(keeper), descriptors());
    println!(
        "{lives} lives in {:?}; daemon, keeper in KiB, descriptors: {before:?} before, {after:?} after",
        begun.elapsed()
    );
    assert_eq!(detached.inspect("flaps")["restart_count"], lives);
    assert_eq!(detached.state("flaps"), "quarantined");
    assert!(after.0 < before.0 + 30 * 1024 && after.1 < before.1 + 5 * 1024 && after.2 <= before.2 + 5);
    let events = detached.toka(&["events", "--json"]).stdout;
    let numbers: Vec<u64> =
        events.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()?["seq"].as_u64()).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "each event once, in order");
    assert!(numbers.len() <= 3 * (lives + 1) + 10, "{} events", numbers.len());
    assert_eq!(pid_of(&detached, "calm"), calm);
}

fn a_control_socket_that_is_removed_is_made_anew(user: User) {
    let scene = Scene::new(user);
    let detached = scene.detach(&[calm()]);
    let (calm, daemon) = (pid_of(&detached, "calm"), daemon_of(&scene));
    for _ in 0..5 {
        std::fs::remove_file(socket_of(&scene)).expect("it is there");
        eventually("it answers", || scene.toka(&["ps"]).stdout.contains("calm"));
    }
    assert_eq!(daemon_of(&scene), daemon, "it is the same daemon, and there is no other");
    assert_eq!(pid_of(&detached, "calm"), calm);
    let log = std::fs::read_to_string(scene.state().join("daemon.log")).expect("a log");
    assert!(log.contains("somebody removed the control socket: it is made anew"), "{log}");
}

fn a_state_folder_that_is_removed_is_told_and_the_daemon_can_be_reached(user: User) {
    let scene = Scene::new(user);
    let detached = scene.detach(&[calm()]);
    let (calm, daemon) = (pid_of(&detached, "calm"), daemon_of(&scene));
    // It may come back while it is being removed.
    for folder in ["run", "projects"] {
        while std::fs::remove_dir_all(scene.state().join(folder)).is_err() {}
    }
    eventually("it answers", || scene.toka(&["ps"]).stdout.contains("calm"));
    assert_eq!((daemon_of(&scene), pid_of(&detached, "calm")), (daemon, calm));
    let health = scene.toka(&["health"]);
    assert_eq!(health.code, Some(1), "{health:#?}");
    for told in ["nothing of the project is kept any more", "the next daemon would not find its agents"] {
        assert!(health.stdout.contains(told), "{health:#?}");
    }
    // A successor would not find the agents.
    let upgrade = scene.toka(&["upgrade"]);
    assert_ne!(upgrade.code, Some(0), "{upgrade:#?}");
    assert!(upgrade.stderr.contains("could not be found again"), "{upgrade:#?}");
    let down = scene.toka(&["down", "--project", scene.name()]);
    assert_eq!(down.code, Some(0), "{down:#?}");
    let again = scene.toka_run(&[self::calm()], &["--detach"]);
    assert_eq!(again.code, Some(0), "{again:#?}");
    pid_of(&detached, "calm");
    let events = detached.toka(&["events", "--json", "--kind", "run_started"]).events();
    assert_eq!(events.len(), 1, "the journal begins anew");
}

fn a_keeper_that_is_stopped_is_told_and_other_projects_go_on(user: User) {
    let scene = Scene::new(user);
    let other = format!("{}-other", scene.name());
    // Nothing confines it, and it is no child of the agent's any more.
    let (toka, state) = (toka_binary().display().to_string(), scene.state().display().to_string());
    let asks =
        format!("until [ -e ~/go ]; do sleep 0.02; done; {toka} ps --state-dir {state}; touch ~/asked");
    let rogue = Document::service("rogue", &format!("setsid sh -c '{asks}' 2>&1 & exec sleep 1000"))
        .section("security: {sandbox: false, network: full}");
    let options = ["--detach", "--allow", "sandbox:off", "--allow", "network:full"];
    let began = scene.toka_run(&[calm(), rogue], &options);
    let detached = scene.adopt();
    assert_eq!(began.code, Some(0), "{began:#?}");
    let (calm, keeper) = (pid_of(&detached, "calm"), keeper_of(&scene));
    eventually("it runs", || detached.state("rogue") == "running");
    std::fs::remove_file(scene.folder().join("workstreams/rogue.yaml")).expect("the other has none");
    let began = scene.toka_run(&[self::calm()], &["--detach", "--project", &other]);
    assert_eq!(began.code, Some(0), "{began:#?}");

    kill(keeper, Signal::SIGSTOP).expect("it is ours");
    let listed = scene.toka(&["ps"]);
    let health = scene.toka(&["health"]);
    let refused = ["restart", "inspect"].map(|verb| detached.try_toka(&[verb, "calm"]));
    let done = scene.toka(&["restart", "--project", &other, "calm"]);
    let home = scene.state().join("projects").join(scene.name()).join("agents/rogue/home");
    scene.write(&home.join("go"), "");
    eventually("it has asked", || home.join("asked").exists());
    kill(keeper, Signal::SIGCONT).expect("it is ours");

    let silent = format!("the keeper of {} does not answer", scene.name());
    assert_eq!(listed.code, Some(0), "{listed:#?}");
    assert_eq!(listed.stdout.matches("calm").count(), 2, "{listed:#?}");
    assert!(listed.stderr.contains(&silent) && !listed.stderr.contains(&other), "{listed:#?}");
    assert_eq!(health.code, Some(1), "{health:#?}");
    assert!(health.stdout.contains(&format!("keeper/{}", scene.name())), "{health:#?}");
    for refused in refused {
        assert_eq!(refused.code, Some(69), "{refused:#?}");
        assert!(refused.stderr.contains(&silent) && refused.stderr.contains("kill -CONT"), "{refused:#?}");
    }
    assert_eq!((done.code, done.stdout.as_str()), (Some(0), "calm  running\n"), "{done:#?}");
    let said = detached.toka(&["logs", "rogue"]).stdout;
    assert!(said.contains("agents may not control Toka"), "{said}");
    assert_eq!(pid_of(&detached, "calm"), calm);
    detached.toka(&["restart", "calm"]);
}

fn callers_that_never_come_to_an_end_hold_up_nobody(user: User) {
    let scene = Scene::new(user);
    let detached = scene.detach(&[calm()]);
    let calm = pid_of(&detached, "calm");
    let daemon = daemon_of(&scene);
    let connect = || UnixStream::connect(socket_of(&scene)).expect("it listens");
    let before = memory_of(daemon);
    let mut open: Vec<UnixStream> = (0..200).map(|_| connect()).collect();
    for (number, stream) in open.iter_mut().enumerate() {
        let text: &[u8] = match number % 4 {
            0 => b"",
            1 => b"G",
            2 => b"GET /v1/projects HTTP/1.1\r\nx: ",
            _ => b"POST /v1/projects/a/command HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\ncontent-length: 9999\r\n\r\n{",
        };
        stream.write_all(text).expect("it is taken");
    }
    // One that never ends its head.
    let mut endless = connect();
    endless.set_write_timeout(Some(Duration::from_secs(5))).expect("a socket");
    let filling = "x-filling: ".to_owned() + &"x".repeat(8000) + "\r\n";
    let _ = endless.write_all(b"GET /v1/daemon HTTP/1.1\r\n");
    let refused = (0..2000).any(|_| endless.write_all(filling.as_bytes()).is_err());
    assert!(refused, "a head of 16 MB is not taken");
    let begun = Instant::now();
    assert_eq!(pid_of(&detached, "calm"), calm);
    println!(
        "answered in {:?} beside 200 callers; {before} KiB before, {} after",
        begun.elapsed(),
        memory_of(daemon)
    );
    assert!(memory_of(daemon) < before + 50 * 1024, "{before} KiB became {}", memory_of(daemon));
    assert_eq!(socket::get(&socket_of(&scene), "/livez").0, 200);
    let descriptors = || std::fs::read_dir(format!("/proc/{daemon}/fd")).expect("it runs").count();
    drop((open, endless));
    eventually("their connections are closed", || descriptors() < 100);
}

fn a_reader_of_events_that_stops_misses_nothing(user: User) {
    let scene = Scene::new(user);
    let lives = rounds(100);
    let restart = format!(
        "restart: {{policy: always, max_restarts: {lives}, backoff: {{initial: 1ms, max: 1ms, jitter: 0}}}}"
    );
    let flaps = ["one", "two", "three"].map(|name| Document::shell(name, "exit 1").spec(&restart));
    let detached = scene.detach(&[&[calm()], &flaps[..]].concat());
    let mut slow = UnixStream::connect(socket_of(&scene)).expect("it listens");
    let path = format!("/v1/projects/{}/events?since=0&follow=true", scene.name());
    write!(slow, "GET {path} HTTP/1.1\r\nhost: toka\r\nconnection: close\r\n\r\n").expect("it is taken");
    let daemon = daemon_of(&scene);
    let before = memory_of(daemon);
    let _ = detached.try_toka(&["wait", "one", "two", "three"]);
    // Others get all of it meanwhile.
    let others = detached.toka(&["events", "--json"]).events();
    println!("{} events, daemon {before} KiB before, {} after", others.len(), memory_of(daemon));
    assert!(others.len() > 9 * lives, "{} events", others.len());
    assert!(memory_of(daemon) < before + 30 * 1024, "what nobody reads is not kept in memory");
    let last = others.last().expect("events")["seq"].as_u64().expect("a number");
    let mut text = Vec::new();
    let mut piece = [0; 65536];
    let numbers = loop {
        let count = slow.read(&mut piece).expect("it goes on");
        assert!(count > 0, "it ended before its time");
        text.extend_from_slice(&piece[..count]);
        let told = String::from_utf8_lossy(&text);
        let seqs = told.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()?["seq"].as_u64());
        let numbers: Vec<u64> = seqs.collect();
        if numbers.last() >= Some(&last) {
            break numbers;
        }
    };
    assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "in order, and none is missing");
    assert_eq!(numbers[0], 1);
}

/// A head without an end.
fn drip(mut stream: std::net::TcpStream) {
    let filling = "x-filling: ".to_owned() + &"x".repeat(8000) + "\r\n";
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
    while stream.write_all(filling.as_bytes()).is_ok() {}
}

fn many_are_stopped_at_once(user: User) {
    let scene = Scene::new(user);
    let number = rounds(60);
    let agents: Vec<Document> = (0..number)
        .map(|at| {
            Document::service(&format!("agent-{at}"), "exec sleep 1000").spec("stop: {grace_period: 10s}")
        })
        .collect();
    let detached = scene.detach(&agents);
    eventually("all run", || {
        let projects = scene.toka(&["ps", "--json"]);
        let projects: Value = serde_json::from_str(&projects.stdout).unwrap_or_default();
        let agents = projects[0]["agents"].as_array().cloned().unwrap_or_default();
        agents.iter().filter(|agent| agent["state"] == "running").count() == number
    });
    let begun = Instant::now();
    let stopped = detached.toka(&["stop", "--all"]);
    println!("{number} stopped in {:?}", begun.elapsed());
    assert_eq!(stopped.stdout.matches("  stopped\n").count(), number, "{stopped:#?}");
    eventually("no process is left of them", || {
        let name = format!("{}/agents/", scene.name());
        processes_with(&name).is_empty()
    });
}

fn groups_that_root_takes_away_are_told_and_the_agents_still_end(user: User) {
    let scene = Scene::new(user);
    let detached = scene.detach(&[
        calm(),
        Document::service("moved", "exec sleep 1000"),
        Document::service("bare", "exec sleep 1000"),
    ]);
    let calm = pid_of(&detached, "calm");
    if user != User::Root || !has_groups(&detached) {
        return;
    }
    for agent in ["moved", "bare"] {
        let pid = pid_of(&detached, agent).to_string();
        let own = format!("{}/{agent}", scene.name());
        let groups = cgroups_of(agent).into_iter().filter(|group| group.ends_with(&own));
        for group in groups {
            // Into the group that the daemon lives in, which is above all of them.
            let above = group.ancestors().nth(3).expect("it is deep");
            std::fs::write(above.join("cgroup.procs"), &pid).expect("root may");
            if agent == "bare" {
                std::fs::remove_dir(&group).expect("it is empty");
            }
        }
    }
    for agent in ["moved", "bare"] {
        let begun = Instant::now();
        let paused = detached.try_toka(&["pause", agent]);
        assert_eq!(paused.code, Some(1), "{paused:#?}");
        assert!(
            paused.stdout.contains("not paused: it could not be frozen, and `toka events` says why"),
            "{paused:#?}"
        );
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    }
    let events = detached.toka(&["events", "--json", "--kind", "request_failed"]).events();
    let told = |agent: &str| {
        let of = events.iter().find(|event| event["agent"] == agent).expect("a failed request");
        of["reason"].as_str().unwrap_or_default().to_owned()
    };
    assert!(told("moved").contains("out of its control group"), "{events:#?}");
    assert!(told("bare").contains("No such file or directory"), "{events:#?}");
    detached.toka(&["stop", "moved", "bare"]);
    detached.toka(&["start", "moved", "bare"]);
    detached.toka(&["pause", "moved", "bare"]);
    detached.toka(&["stop", "moved", "bare"]);
    assert_eq!(pid_of(&detached, "calm"), calm);
}

fn files_that_are_none_are_refused(user: User) {
    let scene = Scene::new(user);
    let detached = scene.detach(&[calm()]);
    let calm = pid_of(&detached, "calm");
    let folder = scene.folder().join("nonsense");
    scene.make_folder(&folder);
    let aliases = |levels: usize| {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x]\n".to_owned();
        for at in 1..levels {
            text += &format!("a{at}: &a{at} [{}]\n", vec![format!("*a{}", at - 1); 8].join(", "));
        }
        text
    };
    nix::unistd::mkfifo(&folder.join("fifo.yaml"), nix::sys::stat::Mode::from_bits_truncate(0o644))
        .expect("a fifo");
    std::fs::File::create(folder.join("big.yaml")).and_then(|file| file.set_len(1 << 30)).expect("a hole");
    std::fs::write(folder.join("bytes.yaml"), b"metadata: {name: \xff\xfe}\n").expect("room");
    std::fs::write(folder.join("aliases.yaml"), aliases(12)).expect("room");
    std::fs::write(folder.join("deep.yaml"), "x: ".to_owned() + &"[".repeat(100_000)).expect("room");
    for (file, told) in [
        ("fifo.yaml", "not a regular file"),
        ("big.yaml", "is larger than 4096 KiB"),
        ("bytes.yaml", "is not UTF-8: byte 17 is 0xff"),
        ("aliases.yaml", "aliases expanded"),
        ("deep.yaml", "nested deeper than 64"),
    ] {
        let path = folder.join(file);
        scene.user().own(&path);
        let begun = Instant::now();
        let refused = scene.toka(&["apply", &path.display().to_string()]);
        assert_eq!(refused.code, Some(65), "{refused:#?}");
        assert!(refused.stderr.contains(told), "{refused:#?}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{file}: {:?}", begun.elapsed());
    }
    assert_eq!(pid_of(&detached, "calm"), calm);
}

fn probes_that_never_answer_are_failures(user: User) {
    let scene = Scene::new(user);
    // One accepts and says nothing; the other never ends the head of its answer.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let endless = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let ports = [&silent, &endless].map(|listener| listener.local_addr().expect("bound").port());
    std::thread::spawn(move || silent.incoming().collect::<Vec<_>>());
    std::thread::spawn(move || {
        for stream in endless.incoming().flatten() {
            std::thread::spawn(move || drip(stream));
        }
    });
    let asked = |name: &str, port: u16| {
        let probe = format!(
            "liveness_probe: {{http_get: {{port: {port}, path: /}}, timeout: 200ms, period: 50ms, failure_threshold: 2}}"
        );
        Document::service(name, "exec sleep 1000")
            .spec(&probe)
            .spec("restart: no")
            .section("security: {network: full}")
    };
    let agents = [calm(), asked("silent", ports[0]), asked("endless", ports[1])];
    let began = scene.toka_run(&agents, &["--detach", "--allow", "network:full"]);
    let detached = scene.adopt();
    assert_eq!(began.code, Some(0), "{began:#?}");
    let calm = pid_of(&detached, "calm");
    let before = memory_of(daemon_of(&scene));
    for agent in ["silent", "endless"] {
        assert_eq!(detached.try_toka(&["wait", agent]).code, Some(1));
        let exit = detached.inspect(agent)["exit"].clone();
        assert_eq!((&exit["cause"], &exit["probe"]), (&"probe".into(), &"liveness".into()), "{exit}");
        println!("{agent}: {}", exit["reason"]);
    }
    assert!(memory_of(daemon_of(&scene)) < before + 30 * 1024, "the head is not kept");
    assert_eq!(pid_of(&detached, "calm"), calm);
}
