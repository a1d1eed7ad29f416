//! The figures of a group, read from the kernel's own files for a process that is known to have worked.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use toka_sandbox::cgroup::{Kind, Layout};
use toka_sandbox::plan::GroupLimits;
use toka_sandbox::{Cgroups, Group};
use toka_tests::{Need, require};

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
