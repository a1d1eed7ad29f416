//! `toka run` from end to end: probes that are asked of real processes, in their own sandbox and their own network, and
//! what follows from the answers.

use serde_json::Value;
use toka_tests::{Document, Scene, User, as_both_users};

as_both_users!(
    readiness_comes_and_goes_and_comes_back,
    a_liveness_probe_that_fails_ends_the_life_and_the_next_one_begins,
    an_agent_that_never_comes_up_fails_with_its_startup_probes_words,
    a_probe_that_hangs_is_a_failure_and_nothing_of_it_stays,
    a_notice_and_a_line_are_answers_too,
    a_probe_sees_the_agents_files_and_not_the_hosts,
    a_newline_on_the_declared_descriptor_is_readiness,
    a_server_on_a_loopback_of_its_own_is_asked_there,
    agents_of_a_project_may_share_a_network,
);

const OFTEN: &str = "period: 20ms, timeout: 5s, failure_threshold: 1";

fn readiness_comes_and_goes_and_comes_back(user: User) {
    let scene = Scene::new(user);
    // Each time that it is asked about, it turns: the probe itself counts, in the agent's home.
    let probe = "echo x >> ~/asked; [ $(wc -l < ~/asked) -ge 2 ] && [ $(wc -l < ~/asked) != 4 ]";
    let service = Document::service("service", "exec sleep 600")
        .spec(&format!("readiness_probe: {{exec: {{command: [sh, -c, '{probe}']}}, {OFTEN}}}"));
    // Ends when the service was ready twice.
    let watcher = Document::shell("watcher", "sleep 0.5");
    let mut run = scene.start(&[service, watcher, Document::after_ready("user-of-it", "service")], &[]);
    run.wait_for("agent_ready", "service");
    let lost = run.wait_for("agent_not_ready", "service");
    assert!(lost["reason"].as_str().is_some_and(|reason| reason.contains("exit code 1")), "{lost}");
    let finished = run.finish();
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert!(finished.all("agent_ready", "service").len() >= 2, "{finished:#?}");
    assert_eq!(finished.all("agent_started", "user-of-it").len(), 1);
    scene.assert_nothing_left();
}

fn a_liveness_probe_that_fails_ends_the_life_and_the_next_one_begins(user: User) {
    let scene = Scene::new(user);
    // Its second life is well, and long enough to be asked.
    let script = "[ -e ~/again ] && exec sleep 0.3; touch ~/again; exec sleep 600";
    let wedged = "echo it is stuck >&2; [ -e ~/restarted ] || { touch ~/restarted; exit 3; }";
    let agent = Document::shell("agent", script)
        .spec("restart: {policy: on-failure, backoff: {initial: 1ms}}")
        .spec(&format!("liveness_probe: {{exec: {{command: [sh, -c, '{wedged}']}}, {OFTEN}}}"));
    let finished = scene.toka_run(&[agent], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let restarting = finished.all("agent_restarting", "agent");
    assert_eq!(restarting.len(), 1, "{finished:#?}");
    assert_eq!(restarting[0]["exit"]["cause"], "probe");
    assert_eq!(restarting[0]["exit"]["probe"], "liveness");
    assert_eq!(restarting[0]["exit"]["reason"], "exit code 3: it is stuck");
    scene.assert_nothing_left();
}

fn an_agent_that_never_comes_up_fails_with_its_startup_probes_words(user: User) {
    let scene = Scene::new(user);
    let agent = Document::shell("agent", "exec sleep 600").spec(&format!(
        "startup_probe: {{exec: {{command: [sh, -c, 'echo not yet; exit 1']}}, {OFTEN}}}\n  restart: no"
    ));
    let finished = scene.toka_run(&[agent], &["--json"]);
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    let exit = finished.exit_of("agent");
    assert_eq!((&exit["cause"], &exit["probe"]), (&"probe".into(), &"startup".into()), "{finished:#?}");
    assert_eq!(exit["reason"], "exit code 1: not yet");
    scene.assert_nothing_left();
}

fn a_probe_that_hangs_is_a_failure_and_nothing_of_it_stays(user: User) {
    let scene = Scene::new(user);
    let hanging = "trap \"\" TERM; setsid sleep 600 & sleep 600";
    let agent = Document::shell("agent", "exec sleep 600").spec(&format!(
        "startup_probe: {{exec: {{command: [sh, -c, '{hanging}']}}, period: 10ms, timeout: 50ms, failure_threshold: 2}}\n  restart: no"
    ));
    let finished = scene.toka_run(&[agent], &["--json"]);
    assert_eq!(finished.exit_of("agent")["cause"], "probe", "{finished:#?}");
    scene.assert_nothing_left();
}

fn a_notice_and_a_line_are_answers_too(user: User) {
    let scene = Scene::new(user);
    let said = Document::service("said", "echo warming up; toka report ready; exec sleep 600")
        .spec(&format!("readiness_probe: {{{OFTEN}}}"));
    let wrote = Document::service("wrote", "echo listening on 80; exec sleep 600")
        .spec(&format!("readiness_probe: {{log_line: listening on, {OFTEN}}}"));
    let agents = [said, wrote, Document::after_ready("one", "said"), Document::after_ready("two", "wrote")];
    let finished = scene.toka_run(&agents, &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    scene.assert_nothing_left();
}

fn a_probe_sees_the_agents_files_and_not_the_hosts(user: User) {
    let scene = Scene::new(user);
    let secret = scene.outside().join("secret");
    scene.write(&secret, "of the host");
    let script = format!("[ -e ~/mine ] && ! cat {}", secret.display());
    let agent = Document::service("agent", "touch ~/mine; exec sleep 600")
        .spec(&format!("readiness_probe: {{exec: {{command: [sh, -c, '{script}']}}, {OFTEN}}}"));
    let finished = scene.toka_run(&[agent, Document::after_ready("user-of-it", "agent")], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    scene.assert_nothing_left();
}

fn a_newline_on_the_declared_descriptor_is_readiness(user: User) {
    let scene = Scene::new(user);
    let on = |number| format!("readiness_probe: {{notification_fd: {number}, {OFTEN}}}");
    // The descriptors that the keeper itself has begin at 3: wherever this one goes, it is in nobody's way.
    let numbers: Vec<u32> = (3..=12).chain([200, 1023]).collect();
    let speak = |number| {
        format!(
            "import os,time; os.write({number}, b'soon'); os.write({number}, b'\\n'); os.close({number}); time.sleep(600)"
        )
    };
    let mut agents: Vec<Document> = numbers
        .iter()
        .map(|number| {
            let name = format!("on-{number}");
            Document::command(&name, &["python3", "-c", &speak(number)])
                .spec("type: service")
                .spec(&on(number))
        })
        .collect();
    agents.push(Document::service("shell", "echo >&3; exec 3>&-; exec sleep 600").spec(&on(&3)));
    let edges: Vec<String> = agents
        .iter()
        .map(|agent| format!("{}: {{reason: it serves, condition: ready}}", agent.name()))
        .collect();
    let last = Document::shell("last", "true")
        .section(&format!("dependencies: {{required: {{{}}}}}", edges.join(", ")));
    agents.push(last);
    let finished = scene.toka_run(&agents, &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    scene.assert_nothing_left();
}

/// Closed without a newline, it says nothing; and nobody else has the descriptor.
#[test]
fn a_descriptor_that_is_closed_in_silence_says_nothing() {
    let scene = Scene::new(User::Ordinary);
    let silent = Document::service("silent", "exec 3>&-; exec sleep 600")
        .spec("readiness_probe: {notification_fd: 3, period: 20ms}")
        .spec("restart: no");
    let without = Document::shell("without", "[ ! -e /proc/self/fd/3 ] && sleep 0.3");
    let mut run = scene.start(&[silent, without], &["--until-tasks-end"]);
    let changed = run.wait_for("probe_changed", "silent");
    let reason = "it has not written a newline on descriptor 3 (3 failures in a row)";
    assert_eq!((&changed["ok"], &changed["reason"]), (&false.into(), &reason.into()));
    let finished = run.finish();
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert_eq!(finished.all("agent_ready", "silent"), Vec::<Value>::new());
    scene.assert_nothing_left();
}

/// Two agents, one network: the client finds the server that it waited for, the probe does, and nobody else.
fn agents_of_a_project_may_share_a_network(user: User) {
    let scene = Scene::new(user);
    let shared = |security: &str| format!("security: {{network: {security}}}");
    let server =
        Document::service("server", "exec python3 -m http.server 8080 --bind 127.0.0.1 --directory ~")
            .spec(&format!("readiness_probe: {{http_get: {{port: 8080, path: /}}, {OFTEN}}}"))
            .section(&shared("project"));
    let ask = "python3 -c 'import urllib.request as r; r.urlopen(\"http://127.0.0.1:8080/\")'";
    let client = Document::shell("client", ask)
        .section("dependencies: {required: {server: {condition: ready}}}")
        .section(&shared("project"));
    let other = Document::shell("other", &format!("! {ask}"))
        .section("dependencies: {required: {server: {condition: ready}}}")
        .section(&shared("loopback"));
    // What runs beside one of them is in the same network.
    let beside = Document::service("beside", "exec sleep 1000")
        .spec(&format!("readiness_probe: {{exec: {{command: [/bin/sh, -c, {ask:?}]}}, {OFTEN}}}"))
        .section("dependencies: {required: {server: {condition: ready}}}")
        .section(&shared("project"));
    let last =
        Document::shell("last", "true").section("dependencies: {required: {beside: {condition: ready}}}");
    let finished = scene.toka_run(&[server, client, other, beside, last], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    for agent in ["server", "client"] {
        assert_eq!(finished.all("agent_started", agent)[0]["enforcement"][3]["coverage"], "full");
    }
    // Whoever waits for a port that it cannot reach is told so.
    let text = "`other` waits until `server` answers on its port, and cannot reach that port";
    assert!(finished.stderr.contains(text), "{finished:#?}");
    assert!(!finished.stderr.contains("`client` waits"), "{finished:#?}");
    scene.assert_nothing_left();
}

/// The server's port exists only in the agent's own network: the probe must go there.
/// An ordinary user's daemon may not enter the network of an agent; its keeper may.
fn a_server_on_a_loopback_of_its_own_is_asked_there(user: User) {
    let scene = Scene::new(user);
    let server =
        Document::service("server", "exec python3 -m http.server 8080 --bind 127.0.0.1 --directory ~")
            .spec(&format!("readiness_probe: {{http_get: {{port: 8080, path: /}}, {OFTEN}}}"))
            .spec("liveness_probe: {tcp_socket: {port: 8080}, period: 20ms, failure_threshold: 100}")
            .section("security: {network: loopback, capabilities_required: [python-execution]}");
    let finished = scene.toka_run(&[server, Document::after_ready("user-of-it", "server")], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    scene.assert_nothing_left();
}
