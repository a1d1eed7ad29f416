//! `toka run` from end to end: commands around an agent's life, in its own sandbox.

use std::time::Duration;

use nix::sys::signal::Signal;
use toka_tests::{Document, Scene, User, as_both_users, until};

as_both_users!(
    hooks_run_in_their_order_around_a_life,
    a_hook_that_fails_before_the_start_fails_the_start_with_its_words,
    reports_are_taken_while_the_process_runs,
    a_hook_that_fails_after_the_start_ends_the_life,
    a_hook_before_the_stop_has_the_grace_period_and_no_more,
    an_interrupt_ends_a_hook_that_hangs_before_the_start,
    hooks_that_take_long_hold_up_nobody_else,
    hooks_are_behind_the_agents_walls,
    a_hook_after_the_end_runs_however_it_ended,
    a_hook_after_the_end_runs_after_a_start_that_failed,
    a_program_may_be_made_by_what_comes_before,
    a_working_folder_may_be_made_by_another_agent,
);

/// Far above what anything here takes; only a failure waits so long.
const SOON: Duration = Duration::from_secs(20);

fn say(word: &str) -> String {
    format!("[sh, -c, 'echo {word} >> ~/order']")
}

fn order(scene: &Scene, agent: &str) -> String {
    let home = scene.state().join("projects").join(scene.name()).join("agents").join(agent).join("home");
    std::fs::read_to_string(home.join("order")).unwrap_or_default().replace('\n', " ")
}

fn hooks_run_in_their_order_around_a_life(user: User) {
    let scene = Scene::new(user);
    let script = "trap 'echo term >> ~/order; exit 0' TERM; echo main >> ~/order; touch ~/up; while :; do sleep 0.02; done";
    let after_main =
        "[sh, -c, 'until [ -e ~/up ]; do sleep 0.02; done; echo post_start >> ~/order; toka report ready']";
    let hooks = format!(
        "hooks: {{pre_start: [{}, {}], post_start: [{after_main}], pre_stop: [{}], post_stop: [{}]}}",
        say("first"),
        say("second"),
        say("pre_stop"),
        say("post_stop")
    );
    let service = Document::shell("service", script).spec("type: service").spec(&hooks);
    let task = Document::shell("task", "true")
        .section("dependencies: {required: {service: {reason: it serves, condition: ready}}}");
    let finished = scene.toka_run(&[service, task], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert_eq!(
        order(&scene, "service"),
        "first second main post_start pre_stop term post_stop ",
        "{finished:#?}"
    );
    scene.assert_nothing_left();
}

fn a_hook_that_fails_before_the_start_fails_the_start_with_its_words(user: User) {
    let scene = Scene::new(user);
    let hooks = format!(
        "hooks: {{pre_start: [[sh, -c, 'echo error: no database >&2; echo try --help >&2; exit 3'], {}]}}",
        say("never")
    );
    let agent = Document::shell("agent", "echo main >> ~/order").spec(&hooks);
    let finished = scene.toka_run(&[agent], &["--json"]);
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    let exit = finished.exit_of("agent");
    assert_eq!(exit["cause"], "start_failed");
    assert_eq!(exit["reason"], "hook pre_start: sh: exit code 3: error: no database");
    assert_eq!(order(&scene, "agent"), "");
    scene.assert_nothing_left();
}

fn reports_are_taken_while_the_process_runs(user: User) {
    let scene = Scene::new(user);
    let report = |text| format!("[sh, -c, 'toka report status {text} && touch ~/told']");
    let hooks = format!("hooks: {{post_start: {}}}", report("beside"));
    let agent = Document::shell("agent", "until [ -e ~/told ]; do sleep 0.02; done").spec(&hooks);
    let finished = scene.toka_run(&[agent], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert!(
        finished.all("progress", "agent").iter().any(|event| event["status"] == "beside"),
        "{finished:#?}"
    );
    let agent = Document::shell("agent", "true").spec(&format!("hooks: {{pre_start: {}}}", report("before")));
    let finished = scene.toka_run(&[agent], &["--json"]);
    let reason = &finished.exit_of("agent")["reason"];
    let reason = reason.as_str().unwrap_or_default();
    assert!(reason.contains("exit code 77") && reason.contains("no hook before or after it"), "{reason}");
    scene.assert_nothing_left();
}

fn a_hook_that_fails_after_the_start_ends_the_life(user: User) {
    let scene = Scene::new(user);
    let agent = Document::shell("agent", "exec sleep 600").spec("hooks: {post_start: [['false']]}");
    let finished = scene.toka_run(&[agent], &["--json"]);
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    assert_eq!(finished.exit_of("agent")["reason"], "hook post_start: false: exit code 1");
    scene.assert_nothing_left();
}

fn a_hook_before_the_stop_has_the_grace_period_and_no_more(user: User) {
    let scene = Scene::new(user);
    let service = Document::shell("service", "exec sleep 600")
        .spec("type: service")
        .spec("stop: {grace_period: 200ms}")
        .spec("hooks: {pre_stop: [[sh, -c, 'trap \"\" TERM; setsid sleep 600 & sleep 600']]}");
    let task = Document::shell("task", "true");
    let finished = scene.toka_run(&[service, task], &["--json", "--until-tasks-end"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert_eq!(finished.exit_of("service")["cause"], "stopped", "{finished:#?}");
    scene.assert_nothing_left();
}

fn an_interrupt_ends_a_hook_that_hangs_before_the_start(user: User) {
    let scene = Scene::new(user);
    let hooks = "hooks: {pre_start: [[sh, -c, 'touch ~/begun; sleep 600']]}";
    let mut run = scene.start(&[Document::shell("agent", "true").spec(hooks)], &[]);
    run.wait_for("agent_starting", "agent");
    let begun = scene.state().join("projects").join(scene.name()).join("agents/agent/home/begun");
    until(SOON, "the hook to begin", || begun.exists().then_some(()));
    run.signal(Signal::SIGINT);
    let finished = run.finish();
    assert_eq!(finished.code, Some(130), "{finished:#?}");
    assert_eq!(finished.exit_of("agent")["cause"], "stopped", "{finished:#?}");
    scene.assert_nothing_left();
}

/// More of them than the keeper is asked for at one time.
fn hooks_that_take_long_hold_up_nobody_else(user: User) {
    let scene = Scene::new(user);
    let mut agents: Vec<Document> = (0..12)
        .map(|at| Document::shell(&format!("slow-{at}"), "true").spec("hooks: {pre_start: [[sleep, '600']]}"))
        .collect();
    agents.push(Document::shell("z-quick", "true"));
    let mut run = scene.start(&agents, &[]);
    run.wait_for("agent_ended", "z-quick");
    run.signal(Signal::SIGINT);
    assert_eq!(run.finish().code, Some(130));
    scene.assert_nothing_left();
}

fn hooks_are_behind_the_agents_walls(user: User) {
    let scene = Scene::new(user);
    let secret = scene.outside().join("secret");
    scene.write(&secret, "of the host");
    let peek = |word: &str| format!("[sh, -c, 'cat {} && echo {word} >> ~/order; true']", secret.display());
    let hooks = format!(
        "hooks: {{pre_start: [{}, {}], post_stop: [{}]}}",
        peek("before"),
        say("legal"),
        peek("after")
    );
    let finished = scene.toka_run(&[Document::shell("agent", "true").spec(&hooks)], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert_eq!(order(&scene, "agent"), "legal ");
    scene.assert_nothing_left();
}

/// By another agent or by a hook, from nothing and again; and a link in its place opens nothing.
fn a_program_may_be_made_by_what_comes_before(user: User) {
    let scene = Scene::new(user);
    let make = |file: &str| {
        format!(
            "mkdir -p out && printf '#!/bin/sh\\necho made >> ~/order\\n' > {file}.new && chmod +x {file}.new && mv {file}.new {file}"
        )
    };
    let writes = "security: {capabilities_required: [filesystem-read, 'filesystem-write:out']}";
    let build = Document::shell("build", &make("out/app")).section(writes);
    let after = "dependencies: {required: [build]}";
    let reads = "security: {capabilities_required: [filesystem-read]}";
    let app = Document::command("app", &["./out/app"]).section(after).section(reads);
    let path = scene.workspace().join("out");
    let bare = Document::bare("bare")
        .spec(&format!(
            "process: {{command: [app], environment: {{PATH: '{}:/usr/bin:/bin'}}}}",
            path.display()
        ))
        .section(after)
        .section(reads);
    let hook = format!("hooks: {{pre_start: [[sh, -c, {:?}]]}}", make("out/own"));
    let own = Document::command("own", &["./out/own"]).spec(&hook).section(writes);
    let finished = scene.toka_run(&[build, app, bare, own.clone()], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    for agent in ["app", "bare", "own"] {
        assert_eq!(order(&scene, agent), "made ", "{agent}");
    }
    // The program is there now, and the hook replaces it.
    let finished = scene.toka_run(std::slice::from_ref(&own), &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let build = Document::shell("build", "ln -sf /usr/bin/id out/link").section(writes);
    let link = Document::command("link", &["./out/link"]).section(after).section(reads);
    let finished = scene.toka_run(&[build, link], &[]);
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    assert!(finished.stdout.contains("link: did not start"), "{finished:#?}");
    scene.assert_nothing_left();
}

fn a_working_folder_may_be_made_by_another_agent(user: User) {
    let scene = Scene::new(user);
    let writes = "security: {capabilities_required: [filesystem-read, 'filesystem-write:out']}";
    let reads = "security: {capabilities_required: [filesystem-read]}";
    let build = |line: &str| Document::shell("build", line).section(writes);
    let there = |name: &str| {
        let process = format!("process: {{shell: 'pwd > ~/order', working_dir: out/{name}}}");
        Document::bare("test").spec(&process).section(reads)
    };
    let after = "dependencies: {required: [build]}";
    let finished = scene.toka_run(&[build("mkdir -p out/deep"), there("deep").section(after)], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert_eq!(order(&scene, "test").trim(), scene.workspace().join("out/deep").display().to_string());
    // What was made leads out, where the agent sees nothing.
    let outside = format!("ln -sfn {} out/link", scene.outside().display());
    let finished = scene.toka_run(&[build(&outside), there("link").section(after)], &["--json"]);
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    assert_eq!(finished.exit_of("test")["cause"], "start_failed", "{finished:#?}");
    let finished = scene.toka_run(&[build("true"), there("never").section(after)], &["--json"]);
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    let reason = finished.exit_of("test")["reason"].to_string();
    assert!(reason.contains("its working folder") && reason.contains("out/never is not there"), "{reason}");
    let finished = scene.toka_run(&[there("never")], &[]);
    assert_eq!(finished.code, Some(65), "nobody makes it: {finished:#?}");
    scene.assert_nothing_left();
}

fn a_hook_after_the_end_runs_after_a_start_that_failed(user: User) {
    let scene = Scene::new(user);
    let hooks = format!("hooks: {{pre_start: [{}, ['false']], post_stop: [{}]}}", say("made"), say("swept"));
    let agent = Document::shell("agent", "true")
        .spec(&hooks)
        .spec("restart: {policy: on-failure, max_restarts: 1, backoff: {initial: 1ms}}");
    let finished = scene.toka_run(&[agent], &["--json"]);
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    assert_eq!(order(&scene, "agent"), "made swept made swept ", "{finished:#?}");
    scene.assert_nothing_left();
}

fn a_hook_after_the_end_runs_however_it_ended(user: User) {
    let scene = Scene::new(user);
    let hooks = format!("hooks: {{post_stop: [{}]}}", say("swept"));
    let agent = Document::shell("agent", "kill -9 $$")
        .spec(&hooks)
        .spec("restart: {policy: on-failure, max_restarts: 1, backoff: {initial: 1ms}}");
    let finished = scene.toka_run(&[agent], &["--json"]);
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    assert_eq!(order(&scene, "agent"), "swept swept ", "once after each life");
    scene.assert_nothing_left();
}
