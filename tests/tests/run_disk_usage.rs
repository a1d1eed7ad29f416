//! `max_disk_usage` while agents run: what their own folders hold is measured, and one that holds too much is ended.

use std::time::Duration;

use toka_tests::{Document, Scene, User, as_both_users, until};

as_both_users!(
    many_small_files_end_an_agent,
    holes_names_and_the_workspace_do_not_count,
    what_an_agent_holds_is_shown,
);

const LIMIT: &str = "security: {capabilities_required: [filesystem-read, \"filesystem-write:out\"], resource_limits: {max_disk_usage: 8MB}}";

fn many_small_files_end_an_agent(user: User) {
    let scene = Scene::new(user);
    // None is larger than 64 KiB, so that the limit on each file helps nobody; some in each of its folders, deep down.
    let fill = |folder: &str| {
        format!(
            "mkdir -p {folder}/a/b && i=0; while [ $i -lt 60 ]; do head -c 65536 /dev/zero > {folder}/a/b/$i; i=$((i+1)); done"
        )
    };
    let script = ["~", "/tmp", "$TOKA_ARTIFACTS"].map(fill).join("; ") + "; exec sleep 600";
    let agent = Document::shell("agent", &script)
        .spec("restart: {policy: on-failure, max_restarts: 1, backoff: {initial: 1ms}}")
        .section(LIMIT);
    let finished = scene.toka_run(std::slice::from_ref(&agent), &["--json"]);
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    let events = finished.events();
    let find = |kind: &str| events.iter().find(|event| event["type"] == kind).cloned().unwrap_or_default();
    // To the policy it is a failure like any other; what HOME and the artifacts keep is there in the next life too.
    for kind in ["agent_stopping", "agent_restarting", "agent_quarantined"] {
        let exit = find(kind)["exit"].clone();
        assert_eq!(exit["cause"], "disk", "{kind}: {finished:#?}");
        assert_eq!(exit["limit"], 8 << 20, "{exit}");
        assert!(exit["used"].as_u64().expect("a figure") > 8 << 20, "{exit}");
    }
    // What it kept is still there: so is the reason, in words.
    let again = scene.toka_run(&[agent], &[]);
    let told = format!("{}{}", again.stdout, again.stderr);
    assert!(told.contains("exceeds max_disk_usage 8 MiB"), "{again:#?}");
    scene.assert_nothing_left();
}

fn holes_names_and_the_workspace_do_not_count(user: User) {
    let scene = Scene::new(user);
    let script = "head -c 4194304 /dev/zero > ~/real
        i=0; while [ $i -lt 20 ]; do ln ~/real ~/name-$i; ln -s / ~/link-$i; i=$((i+1)); done
        truncate -s 7M ~/hole-1 ~/hole-2 /tmp/hole-3
        i=0; while [ $i -lt 3 ]; do head -c 4194304 /dev/zero > out/$i; i=$((i+1)); done
        sleep 2.5";
    let agent = Document::shell("agent", script).section(LIMIT);
    let finished = scene.toka_run(&[agent], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    scene.assert_nothing_left();
}

fn what_an_agent_holds_is_shown(user: User) {
    let scene = Scene::new(user);
    const FILE: u64 = 15 << 19;
    let agent = Document::shell("agent", &format!("head -c {FILE} /dev/zero > ~/file; exec sleep 600"))
        .spec("type: service")
        .section(LIMIT);
    let begun = scene.detach(&[agent]);
    let holds = || begun.inspect("agent")["resources"]["disk_used"].as_u64().filter(|used| *used >= FILE);
    // One that is still being written is less.
    let used = until(Duration::from_secs(20), "the whole file to be measured", holds);
    assert!(used < 8 << 20, "{used}");
    let health = begun.try_toka(&["health", "agent"]).stdout;
    assert!(health.contains(" of 8 MiB (9"), "{health}");
    assert!(health.contains("disk usage at 9"), "{health}");
}
