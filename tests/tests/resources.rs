//! The figures of a group, read from the kernel's own files for a process that is known to have worked; and the limits of an agent, as a
//! reader that is none of ours finds them.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use cgroups_rs::fs::cpu::CpuController;
use cgroups_rs::fs::memory::MemController;
use cgroups_rs::fs::pid::PidController;
use cgroups_rs::fs::{Cgroup, MaxValue, hierarchies};
use toka_sandbox::cgroup::{Kind, Layout};
use toka_sandbox::plan::GroupLimits;
use toka_sandbox::{Cgroups, Group};
use toka_tests::{Document, Need, Scene, User, require};

const LIMITS: GroupLimits =
    GroupLimits { memory: 64 << 20, cpu_millis: 1000, cpu_weight: 100, processes: 32 };

/// Moves a process of a single thread into the group.
fn enter(group: &Group, pid: u32) {
    let entrances = group.entrances().expect("entrances");
    for tasks in entrances.tasks {
        std::fs::File::from(tasks).write_all(pid.to_string().as_bytes()).expect("it enters");
    }
    if let Some(folder) = entrances.birthplace {
        let file = format!("/proc/self/fd/{}/cgroup.procs", folder.as_raw_fd());
        std::fs::write(file, pid.to_string()).expect("it enters");
    }
}

/// Works for a moment when told to, says that it has, and waits for the end of its input.
fn worker() -> Child {
    let script = "read go; i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; echo worked; read end";
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
    command.spawn().expect("a shell")
}

#[test]
fn what_a_process_uses_is_found_in_its_group() {
    if !require(&[Need::Root, Need::Cgroups]) {
        return;
    }
    let layout = Layout::probe(Path::new("/"));
    let cgroups = Cgroups::new(layout, &format!("toka-test-resources-{}", std::process::id()));
    let (group, _) = Group::create(&cgroups, "p", "a", &LIMITS).expect("a group");
    let now = || group.resources(Path::new("/proc"));
    let before = now();

    let mut child = worker();
    enter(&group, child.id());
    let mut input = child.stdin.take().expect("its input");
    let mut said = String::new();
    input.write_all(b"go\n").expect("it hears");
    BufReader::new(child.stdout.take().expect("its output")).read_line(&mut said).expect("it speaks");
    let after = now();
    drop(input);
    child.wait().expect("it ends");
    group.remove().expect("nobody is left");
    cgroups.remove_empty();

    assert_eq!(said, "worked\n");
    let layout = cgroups.layout();
    assert_eq!(before.io_bytes(), Some(0));
    assert!(after.io_bytes().is_some());
    if layout.memory.is_some() || layout.kind == Kind::Unified {
        assert_eq!(after.memory_limit, Some(LIMITS.memory));
        assert_eq!(after.oom_kills, Some(0));
    }
    if layout.pids.is_some() || layout.kind == Kind::Unified {
        assert_eq!((before.processes, after.processes), (Some(0), Some(1)));
        assert_eq!(after.processes_limit, Some(u64::from(LIMITS.processes)));
    }
    if layout.unified.is_some() {
        let used = after.cpu_us.zip(before.cpu_us).map(|(after, before)| after - before);
        assert!(used.is_some_and(|used| used > 1000), "{before:?} {after:?}");
    }
}

/// Whatever the layout of this host is: what we wrote is what another library reads.
#[test]
fn limits_of_an_agent_are_what_an_independent_reader_finds() {
    if !require(&[Need::Root, Need::Cgroups]) {
        return;
    }
    let Some(scene) = User::root().map(Scene::new) else { return };
    let limits = "security: {resource_limits: {max_memory: 96MiB, max_cpu: 150%, max_processes: 33}}";
    let detached = scene.detach(&[Document::service("api", "echo up; exec sleep 1000")
        .spec("readiness_probe: {log_line: up}")
        .section(limits)]);
    detached.toka(&["wait", "--for", "ready", "api"]);
    let pid = detached.inspect("api")["pid"].as_i64().expect("it runs");
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("its groups");
    // cgroups(7): `number:controllers:path`, a line for each hierarchy.
    let mut paths = HashMap::new();
    let mut unified = String::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next().expect("controllers"), parts.next().expect("a path"));
        let path = path.trim_start_matches('/').to_owned();
        if controllers.is_empty() {
            unified.clone_from(&path);
        }
        paths.extend(controllers.split(',').map(|controller| (controller.to_owned(), path.clone())));
    }
    let hierarchy = hierarchies::auto();
    let group = match hierarchy.v2() {
        true => Cgroup::load(hierarchy, unified),
        false => Cgroup::load_with_relative_paths(hierarchy, ".", paths),
    };
    let memory: &MemController = group.controller_of().expect("a controller of memory");
    assert_eq!(memory.memory_stat().limit_in_bytes, 96 << 20);
    let processes: &PidController = group.controller_of().expect("a controller of processes");
    assert_eq!(processes.get_pid_max().expect("a limit"), MaxValue::Value(33));
    let cpu: &CpuController = group.controller_of().expect("a controller of CPU");
    let (quota, period) = (cpu.cfs_quota().expect("a quota"), cpu.cfs_period().expect("a period"));
    assert_eq!(quota * 2, i64::try_from(period).expect("small") * 3, "150%");
    detached.toka(&["down"]);
}
