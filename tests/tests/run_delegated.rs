//! An ordinary user to whom control groups were delegated: its agents have the groups and a process namespace as well, so
//! that what they say of their processes is in numbers of their own.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use toka_sandbox::Cgroups;
use toka_sandbox::cgroup::{Kind, Layout};
use toka_tests::{Document, Finished, Need, Scene, User, Victim, require, toka_binary};

/// What a user needs to have of a group to make groups in it and to move processes about below it (cgroups(7),
/// "Delegation").
const DELEGATED: [&str; 5] = ["", "cgroup.procs", "tasks", "cgroup.threads", "cgroup.subtree_control"];

/// Writes `0` to each file up to `--`, which moves itself, and becomes the rest of its words.
const ENTER: &str = "until [ \"$1\" = -- ]; do echo 0 > \"$1\" || exit 1; shift; done; shift; exec \"$@\"";

/// Groups of an ordinary user, below those of the test. What is in them is killed, and they are removed, when dropped.
struct Delegation {
    layout: Layout,
    name: String,
    /// The same as seen from within.
    inner: Layout,
}

/// What is delegated.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// Every hierarchy that Toka uses.
    Whole,
    /// Those of version 1: nothing to freeze with, nothing that counts the time of a task.
    WithoutVersion2,
}

impl Delegation {
    /// `None`, and why, where this cannot be had.
    fn new(extent: Extent) -> Option<Self> {
        if !require(&[Need::Root, Need::Cgroups, Need::UserNamespaces]) {
            return None;
        }
        let layout = Layout::probe(Path::new("/"));
        if layout.kind != Kind::Hybrid {
            // In version 2 alone a group that has processes hands nothing down, and those above it are others'.
            eprintln!(
                "skipped: the test knows how to delegate where there are both versions of control groups"
            );
            return None;
        }
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("toka-test-delegated-{}-{count}", std::process::id());
        let below = |group: &Option<PathBuf>| group.as_ref().map(|group| group.join(&name));
        let inner = Layout {
            kind: layout.kind,
            memory: below(&layout.memory),
            cpu: below(&layout.cpu),
            pids: below(&layout.pids),
            freezer: None,
            unified: below(&layout.unified).filter(|_| extent == Extent::Whole),
        };
        // Made now, so that whatever is made is removed, also when the rest fails.
        let delegation = Self { layout, name, inner };
        for group in delegation.groups() {
            fs::create_dir(group).expect("a group of the test");
            let given = DELEGATED.iter().map(|file| group.join(file)).filter(|path| path.exists());
            given.for_each(|path| User::Ordinary.own(&path));
        }
        Some(delegation)
    }

    fn groups(&self) -> impl Iterator<Item = &Path> {
        let Layout { memory, cpu, pids, unified, .. } = &self.inner;
        [memory, cpu, pids, unified].into_iter().flatten().map(PathBuf::as_path)
    }

    /// A scene whose commands begin in these groups.
    fn scene(&self) -> Scene {
        let entrance = |group: &Path| {
            let file = if Some(group) == self.inner.unified.as_deref() { "cgroup.procs" } else { "tasks" };
            OsString::from(group.join(file))
        };
        let mut words: Vec<OsString> = ["sh", "-c", ENTER, "sh"].map(Into::into).to_vec();
        words.extend(self.groups().map(entrance));
        words.push("--".into());
        Scene::new(User::Ordinary).prefix(words)
    }

    /// Fails unless the groups were reported as they are.
    fn assert_reported(&self, finished: &Finished) {
        let expected = if self.groups().count() == 4 { "full" } else { "partial" };
        let started = event(finished, "agent_started", 0);
        let layers = started["enforcement"].as_array().cloned().unwrap_or_default();
        let cgroup = layers.into_iter().find(|report| report["layer"] == "cgroup").unwrap_or_default();
        assert_eq!(cgroup["coverage"], expected, "{started}");
    }

    /// Fails if anything is left in the groups, or of the scene elsewhere.
    fn assert_empty(&self, scene: &Scene) {
        scene.assert_nothing_left();
        for group in self.groups() {
            let processes = fs::read_to_string(group.join("cgroup.procs")).expect("it is there");
            assert_eq!(processes, "", "{}", group.display());
        }
    }
}

impl Drop for Delegation {
    fn drop(&mut self) {
        let inner = fs::read_dir(self.groups().next().unwrap_or(Path::new("/nowhere")));
        for entry in inner.into_iter().flatten().flatten() {
            let name = entry.file_name();
            if let Some(name) = name.to_str().filter(|name| name.starts_with("toka-")) {
                Cgroups::new(self.inner.clone(), name).clear();
            }
        }
        Cgroups::new(self.layout.clone(), &self.name).clear();
    }
}

fn event(finished: &Finished, kind: &str, index: usize) -> Value {
    let found = finished.events().into_iter().filter(|event| event["type"] == kind).nth(index);
    found.unwrap_or_else(|| panic!("no {kind} {index}: {finished:#?}"))
}

/// An agent with these tasks, which may run programs and nothing else.
fn with_tasks(lines: &[&str]) -> Document {
    let task = |(index, line): (usize, &&str)| json!({"description": format!("task {index}"), "run": line});
    let tasks: Vec<Value> = lines.iter().enumerate().map(task).collect();
    Document::bare("worker").section(&format!("tasks: {}", json!({"default": tasks})))
}

#[test]
fn tasks_have_groups_of_their_own() {
    let Some(delegation) = Delegation::new(Extent::Whole) else { return };
    let scene = delegation.scene();
    let looks = "set -e; cat /proc/self/cgroup > \"$TOKA_ARTIFACTS/groups\"
        readlink /proc/self/ns/pid > \"$TOKA_ARTIFACTS/namespace\"
        i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done";
    // The second one leaves a process behind, which ends with it.
    let leaves = "setsid sleep 600 & cat /proc/self/cgroup > \"$TOKA_ARTIFACTS/second\"";
    let json =
        scene.toka_run(&[with_tasks(&[looks, leaves, "test -e \"$TOKA_ARTIFACTS/second\""])], &["--json"]);
    assert_eq!(json.code, Some(0), "{json:#?}");

    delegation.assert_reported(&json);
    let own = fs::read_link("/proc/self/ns/pid").expect("our own namespace");
    let namespace = scene.artifact("worker", "namespace");
    assert!(namespace.starts_with("pid:[") && namespace.trim() != own.to_string_lossy(), "{namespace}");
    for (name, leaf) in [("groups", "/worker/call-1"), ("second", "/worker/call-2")] {
        let groups = scene.artifact("worker", name);
        for hierarchy in [":memory:", "0::"] {
            let line = groups.lines().find(|line| line.contains(hierarchy)).unwrap_or_default();
            assert!(line.contains(&delegation.name) && line.ends_with(leaf), "{name}: {groups}");
        }
    }
    for index in 0..3 {
        let usage = event(&json, "task_ended", index)["usage"].clone();
        assert!(usage["cpu_us"].as_u64().is_some_and(|spent| spent > 0), "{index}: {json:#?}");
        assert!(usage["memory_peak"].as_u64().is_some(), "{index}: {json:#?}");
    }
    delegation.assert_empty(&scene);
}

/// Asks at the agent's door, for each number, that the process be moved as that of the second task.
const CLAIMS: &str = r#"
import json, os, socket, sys
door = socket.socket(socket.AF_UNIX)
door.connect(os.environ["TOKA_SOCKET"])
lines = door.makefile("rw")
for pid in sys.argv[1:]:
    enter = {"index": 1, "attempt": 1, "pid": int(pid)}
    print(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "task/enter", "params": enter}), file=lines, flush=True)
    print(lines.readline().strip())
"#;

#[test]
fn a_number_of_the_host_means_nothing_to_an_agent() {
    let Some(delegation) = Delegation::new(Extent::Whole) else { return };
    if !require(&[Need::Program("python3")]) {
        return;
    }
    let scene = delegation.scene();
    scene.write(&scene.workspace().join("claims.py"), CLAIMS);
    // A process of the same user: the kernel would let it be moved.
    let mut victim = Victim::of(User::Ordinary);
    let groups = || fs::read_to_string(format!("/proc/{}/cgroup", victim.pid())).expect("it runs");
    let before = groups();
    // It, the first process of the namespace, one that nobody is, and what is no number of a process.
    let claim = format!("python3 claims.py {} 1 4194303 0 -1 > \"$TOKA_ARTIFACTS/answers\"", victim.pid());
    let agent = with_tasks(&[&claim, "true"]).section("security: {capabilities_required: [filesystem-read]}");
    let json = scene.toka_run(&[agent], &["--json"]);
    assert_eq!(json.code, Some(0), "{json:#?}");
    assert_eq!(groups(), before);
    assert!(victim.is_unharmed());
    let answers = scene.artifact("worker", "answers");
    assert_eq!(answers.lines().count(), 5, "{answers}");
    assert!(answers.lines().all(|line| line.contains("not this agent's")), "{answers}");
    delegation.assert_empty(&scene);
}

#[test]
fn the_limit_of_memory_holds() {
    let Some(delegation) = Delegation::new(Extent::Whole) else { return };
    const LIMIT: &str = "security: {resource_limits: {max_memory: 64MB}}";
    let scene = delegation.scene();
    let agents = [
        Document::command("eater", &["tail", "/dev/zero"]).section(LIMIT),
        with_tasks(&["tail /dev/zero"]).section(LIMIT),
    ];
    let json = scene.toka_run(&agents, &["--json"]);
    assert_eq!(json.code, Some(1), "{json:#?}");
    let exit = json.exit_of("eater");
    assert_eq!((&exit["cause"], &exit["limit"]), (&"oom".into(), &(64 << 20).into()), "{json:#?}");
    assert_eq!(event(&json, "task_ended", 0)["exit"]["cause"], "oom", "{json:#?}");
    delegation.assert_empty(&scene);
}

#[test]
fn a_tree_that_hides_from_its_session_ends_with_its_agent() {
    let Some(delegation) = Delegation::new(Extent::Whole) else { return };
    let scene = delegation.scene();
    let hides = Document::shell("worker", "setsid sh -c 'sleep 600 & sleep 600' & exit 3");
    let json = scene.toka_run(&[hides], &["--json"]);
    assert_eq!(json.exit_of("worker"), json!({"cause": "code", "code": 3}), "{json:#?}");
    delegation.assert_empty(&scene);
}

#[test]
fn a_part_of_the_groups_does_what_it_can() {
    let Some(delegation) = Delegation::new(Extent::WithoutVersion2) else { return };
    let scene = delegation.scene();
    let lines =
        ["cat /proc/self/cgroup > \"$TOKA_ARTIFACTS/groups\"", "setsid sleep 600 & true", "tail /dev/zero"];
    let agent = with_tasks(&lines).section("security: {resource_limits: {max_memory: 64MB}}");
    let json = scene.toka_run(&[agent], &["--json"]);
    assert_eq!(json.code, Some(1), "{json:#?}");
    delegation.assert_reported(&json);
    let groups = scene.artifact("worker", "groups");
    assert!(
        groups.lines().any(|line| line.contains(":memory:") && line.ends_with("/worker/call-1")),
        "{groups}"
    );
    for (index, cause) in ["code", "code", "oom"].into_iter().enumerate() {
        let ended = event(&json, "task_ended", index);
        assert_eq!(ended["exit"]["cause"], cause, "{json:#?}");
        assert!(ended["usage"]["memory_peak"].as_u64().is_some(), "{json:#?}");
    }
    delegation.assert_empty(&scene);
}

#[test]
fn a_probe_runs_beside_its_agent() {
    let Some(delegation) = Delegation::new(Extent::Whole) else { return };
    let scene = delegation.scene();
    // It is asked again and again: whoever copies the answers shall not meet a half of one.
    let asks = "cat /proc/self/cgroup > ~/new; mv ~/new ~/groups; echo $$ > ~/new; mv ~/new ~/number";
    let probe = json!({"exec": {"command": ["sh", "-c", asks]}, "period": "20ms", "timeout": "5s"});
    let serves = "trap 'cp ~/groups ~/number \"$TOKA_ARTIFACTS\"; exit 0' TERM; while :; do sleep 0.02; done";
    let service =
        Document::shell("service", serves).spec("type: service").spec(&format!("readiness_probe: {probe}"));
    let waits = Document::shell("waits", "true")
        .section("dependencies: {required: {service: {reason: it serves, condition: ready}}}");
    let json = scene.toka_run(&[service, waits], &["--json"]);
    assert_eq!(json.code, Some(0), "{json:#?}");
    let groups = scene.artifact("service", "groups");
    let beside = groups.lines().filter(|line| line.contains("/service/beside-")).count();
    assert_eq!(beside, 2, "memory and version 2: {groups}");
    let number: u32 = scene.artifact("service", "number").trim().parse().expect("a number");
    assert!(number < 100, "a namespace of its own: {number}");
    delegation.assert_empty(&scene);
}

/// With groups of its own, an ordinary user's sandbox is the full one, and every proof of a limit holds; with a part of them
/// the doctor says which.
#[test]
fn the_doctor_finds_what_was_delegated() {
    for (extent, frozen, code) in
        [(Extent::Whole, "ok", Some(0)), (Extent::WithoutVersion2, "weaker", Some(1))]
    {
        let Some(delegation) = Delegation::new(extent) else { return };
        let scene = delegation.scene();
        let mut words: Vec<OsString> = vec![toka_binary().into(), "doctor".into(), "--state-dir".into()];
        words.push(scene.state().into());
        words.extend(["--json", "--strict"].map(OsString::from));
        let finished = scene.run(&words);
        let report: Value = serde_json::from_str(&finished.stdout).expect("one object");
        let verdict = |id: &str| {
            let checks = report["checks"].as_array().into_iter().flatten();
            checks.filter(|check| check["id"] == id).find_map(|check| check["verdict"].as_str())
        };
        for id in ["limits.memory", "limits.cpu", "limits.processes", "life.stop"] {
            assert_eq!(verdict(id), Some("ok"), "{id}: {finished:#?}");
        }
        assert_eq!(verdict("life.freeze"), Some(frozen), "{finished:#?}");
        assert_eq!(finished.code, code, "{finished:#?}");
        delegation.assert_empty(&scene);
    }
}
