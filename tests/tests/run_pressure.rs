//! Starts while the host is under pressure. The kernel's files are others in a mount namespace of the test's: Toka reads them
//! where it always does.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use toka_tests::{Document, Need, Scene, User, require, until};

const LIMITS: [&str; 4] = ["--max-memory-pressure", "20", "--max-io-pressure", "60"];

/// A host whose pressure the test decides.
struct Host {
    scene: Scene,
    folder: tempfile::TempDir,
}

impl Host {
    /// One without pressure, or nothing where this host has no such files or the test may not replace them.
    fn new() -> Option<Self> {
        if !require(&[Need::Root]) || !PathBuf::from("/proc/pressure/io").exists() {
            eprintln!("skipped: this kernel tells nothing of pressure");
            return None;
        }
        let folder = tempfile::tempdir_in("/var/tmp").expect("a folder");
        let place = |name: &str| folder.path().join(name).into_os_string();
        let script = "mount --bind \"$1\" /proc/pressure/memory && mount --bind \"$2\" /proc/pressure/io
            shift 2; exec \"$@\"";
        let words = ["unshare", "--mount", "sh", "-euc", script, "sh"].map(OsString::from);
        let prefix = words.into_iter().chain([place("memory"), place("io")]).collect();
        let host = Self { scene: Scene::new(User::Root).prefix(prefix), folder };
        host.press(0.0, 0.0);
        Some(host)
    }

    /// What is spent waiting for memory and storage, in percent.
    fn press(&self, memory: f64, io: f64) {
        for (name, share) in [("memory", memory), ("io", io)] {
            let path = self.folder.path().join(name);
            let file =
                fs::File::options().write(true).create(true).truncate(false).open(path).expect("a file");
            // Of one length and in one write, so that nobody reads half of it.
            let text = format!("some avg10={share:05.2} avg60=0.00 avg300=0.00 total=0\n");
            file.write_all_at(text.as_bytes(), 0).expect("room");
        }
    }
}

fn kinds<'e>(events: &'e [Value], agent: &str) -> Vec<&'e str> {
    let of = events.iter().filter(|event| event["agent"] == agent);
    of.filter_map(|event| event["type"].as_str()).filter(|kind| kind.starts_with("agent_")).collect()
}

#[test]
fn a_start_waits_while_the_host_is_short_of_something_and_says_so_once() {
    let Some(host) = Host::new() else { return };
    host.press(1.0, 75.5);
    let (first, second) = (Document::shell("first", "true"), Document::shell("second", "true"));
    let mut run = host.scene.start(&[first, second], &LIMITS);
    let waiting = run.wait_for("agent_waiting", "first");
    let told = ["scarce", "percent", "limit"].map(|key| waiting[key].clone());
    assert_eq!(told, [Value::from("io"), 76.into(), 60.into()], "{waiting}");
    run.wait_for("agent_waiting", "second");
    let project = host.scene.name();
    let shown = host.scene.toka(&["ps", "--project", project]);
    assert!(shown.stdout.contains("short of storage: 76 %"), "{shown:#?}");
    let health = host.scene.toka(&["health", "--project", project, "--json", "first"]);
    assert!(health.stdout.contains("held_back"), "{health:#?}");
    host.press(0.0, 0.0);
    let finished = run.finish();
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let events = finished.events();
    for agent in ["first", "second"] {
        let expected = ["agent_waiting", "agent_starting", "agent_started", "agent_ended"];
        assert_eq!(kinds(&events, agent), expected, "{finished:#?}");
    }
    host.scene.assert_nothing_left();
}

#[test]
fn a_wait_ends_with_a_stop_a_start_by_hand_or_other_limits() {
    let Some(host) = Host::new() else { return };
    host.press(45.0, 0.0);
    let service = |name: &str| Document::shell(name, "sleep 600").spec("type: service");
    let agents = ["asked", "stopped", "allowed"].map(service);
    let begun = host.scene.adopt();
    let finished = host.scene.toka_run(&agents, &[&LIMITS[..], &["--detach"]].concat());
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let is = |agent: &str, state: &str| {
        let reached = || (begun.state(agent) == state).then_some(());
        until(Duration::from_secs(20), &format!("{agent} to be {state}"), reached);
    };
    for agent in ["asked", "stopped", "allowed"] {
        is(agent, "pending");
        let waits = || begun.inspect(agent)["held"]["percent"].as_u64();
        assert_eq!(until(Duration::from_secs(20), "the wait to be told", waits), 45);
    }
    begun.toka(&["start", "asked"]);
    is("asked", "running");
    begun.toka(&["stop", "stopped"]);
    is("stopped", "ended");
    is("allowed", "pending");
    let raised = ["--max-memory-pressure", "50", "--max-io-pressure", "60"];
    let applied = host.scene.apply(&agents, &raised);
    assert_eq!(applied.code, Some(0), "{applied:#?}");
    is("allowed", "running");
    assert!(begun.inspect("allowed")["held"].is_null());
}

#[test]
fn a_restart_waits_too() {
    let Some(host) = Host::new() else { return };
    let agent = Document::shell(
        "agent",
        "[ -e ~/again ] && exit 0; touch ~/again; until [ -e out/go ]; do sleep 0.1; done; exit 3",
    )
    .spec("restart: {policy: on-failure, backoff: {initial: 1ms}}")
    .section("security: {capabilities_required: [filesystem-read]}");
    let mut run = host.scene.start(&[agent], &LIMITS);
    run.wait_for("agent_started", "agent");
    host.press(99.0, 0.0);
    host.scene.write(&host.scene.workspace().join("out/go"), "");
    run.wait_for("agent_restarting", "agent");
    let waiting = run.wait_for("agent_waiting", "agent");
    assert_eq!((&waiting["scarce"], &waiting["percent"]), (&"memory".into(), &99.into()), "{waiting}");
    host.press(0.0, 0.0);
    let finished = run.finish();
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    host.scene.assert_nothing_left();
}
