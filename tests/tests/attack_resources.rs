//! Attacks on the host's resources from inside the sandbox: the limits hold, and nothing outlives the agent.

use std::time::{Duration, Instant};

use toka_tests::{Answer, Need, Scene, User, allowed, as_both_users, check, denied, processes_with, require};

as_both_users!(
    a_fork_bomb_ends_at_the_limit,
    a_memory_bomb_ends_at_the_limit,
    a_file_ends_at_the_limit,
    open_files_end_at_the_limit,
    cpu_time_is_throttled,
    nothing_outlives_the_agent,
    groups_cannot_be_left_or_changed,
);

/// The default security section with these limits.
fn limited(user: User, limits: &str) -> Scene {
    Scene::new(user).security(&format!(
        "
  capabilities_required: [filesystem-read, \"filesystem-write:out\"]
  filesystem: {{write: [out], execute: [attack]}}
  resource_limits: {{{limits}}}
"
    ))
}

/// The number in a remark of the attacker, as in `# children 41`.
fn remark(output: &str, word: &str) -> u64 {
    let line = output.lines().find_map(|line| line.strip_prefix("# ")?.strip_prefix(word));
    let number = line.unwrap_or_else(|| panic!("no remark about {word} in {output:?}"));
    number.trim().trim_end_matches(" MiB").parse().expect("a number")
}

/// Whether control groups are there for this user: as an ordinary user they are only where they are delegated.
fn has_groups(user: User) -> bool {
    match user {
        User::Root => require(&[Need::Cgroups]),
        User::Ordinary => false,
    }
}

fn a_fork_bomb_ends_at_the_limit(user: User) {
    let scene = limited(user, "max_processes: 40");
    let attack = scene.workspace().join("attack");
    let finished = scene.exec(&[attack.as_os_str(), "fork-bomb".as_ref(), "300".as_ref()]);
    let children = remark(&finished.stdout, "children");
    assert!(finished.stdout.contains("fork-bomb denied EAGAIN"), "{finished:#?}");
    assert!((20..=40).contains(&children), "{children} children under a limit of 40");
    scene.assert_nothing_left();
}

fn a_memory_bomb_ends_at_the_limit(user: User) {
    let scene = limited(user, "max_memory: 64MB");
    let attack = scene.workspace().join("attack");
    let small = scene.exec(&[attack.as_os_str(), "memory-bomb".as_ref(), "32".as_ref()]);
    assert!(small.stdout.contains("memory-bomb allowed"), "what is below the limit works: {small:#?}");
    let bomb = scene.exec(&[attack.as_os_str(), "memory-bomb".as_ref(), "512".as_ref()]);
    assert!(!bomb.stdout.contains("memory-bomb allowed"), "512 MiB under a limit of 64: {bomb:#?}");
    if has_groups(user) {
        assert_eq!(bomb.coverage("cgroup"), "full", "{bomb:#?}");
        let herd = |count: &str| {
            scene.exec(&[attack.as_os_str(), "memory-herd".as_ref(), count.as_ref(), "20".as_ref()])
        };
        let (two, eight) = (herd("2"), herd("8"));
        assert!(two.stdout.contains("memory-herd allowed"), "40 MiB in two processes work: {two:#?}");
        assert!(
            !eight.stdout.contains("memory-herd allowed"),
            "160 MiB in eight under a limit of 64: {eight:#?}"
        );
    }
    scene.assert_nothing_left();
}

fn a_file_ends_at_the_limit(user: User) {
    let scene = limited(user, "max_disk_usage: 8MB");
    let attack = scene.workspace().join("attack");
    for path in [scene.workspace().join("out/long"), "/tmp/long".into()] {
        let words = [attack.as_os_str(), "file-bomb".as_ref(), path.as_os_str(), "64".as_ref()];
        let finished = scene.exec(&words);
        assert!(finished.stdout.contains("file-bomb denied"), "{finished:#?}");
        let written = remark(&finished.stdout, "wrote");
        assert!(written <= 8, "{written} MiB at {} under a limit of 8", path.display());
    }
    let words = ["file-bomb", "/tmp/short", "4"];
    let finished = scene.exec(&[attack.as_os_str(), words[0].as_ref(), words[1].as_ref(), words[2].as_ref()]);
    assert!(finished.stdout.contains("file-bomb allowed"), "what is below the limit works: {finished:#?}");
    scene.assert_nothing_left();
}

fn open_files_end_at_the_limit(user: User) {
    let scene = limited(user, "max_open_files: 64");
    let attack = scene.workspace().join("attack");
    let finished = scene.exec(&[attack.as_os_str(), "descriptor-bomb".as_ref(), "500".as_ref()]);
    assert!(finished.stdout.contains("descriptor-bomb denied EMFILE"), "{finished:#?}");
    let opened = remark(&finished.stdout, "opened");
    assert!((32..=64).contains(&opened), "{opened} files under a limit of 64");
    check(
        || limited(user, "max_open_files: 64"),
        |_| vec![denied(["raise-limit", "7"]).unproven("a limit of ours")],
    );
}

fn cpu_time_is_throttled(user: User) {
    if !has_groups(user) {
        return;
    }
    let scene = limited(user, "max_cpu: 25%");
    let answers = scene.attack(&[allowed(["burn", "2000", "2"])]);
    let Answer::Allowed(used) = &answers[0] else { panic!("{answers:?}") };
    let used: u32 = used.trim().parse().expect("thousandths of the time that passed");
    assert!(
        (100..=400).contains(&used),
        "two processes used {used} thousandths of a CPU under a limit of 250"
    );
    scene.assert_nothing_left();
}

fn nothing_outlives_the_agent(user: User) {
    let scene = Scene::new(user);
    let attack = scene.workspace().join("attack");
    let marker = format!("marker-{}", scene.name());
    // Unconfined it does outlive: the attack is one.
    let unconfined = scene.run(&[attack.as_os_str(), "outlive".as_ref(), marker.as_ref()]);
    assert!(unconfined.stdout.contains("outlive allowed"), "{unconfined:#?}");
    let survivors = processes_with(&marker);
    assert_eq!(survivors.len(), 1, "unconfined, one grandchild is left");
    for pid in survivors {
        let pid = nix::unistd::Pid::from_raw(pid);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("it is ours");
    }
    let gone = || processes_with(&marker).is_empty().then_some(());
    toka_tests::until(Duration::from_secs(5), "the survivor to be gone", gone);
    let begun = Instant::now();
    let finished = scene.exec(&[attack.as_os_str(), "outlive".as_ref(), marker.as_ref()]);
    assert!(finished.stdout.contains("outlive allowed"), "{finished:#?}");
    assert!(begun.elapsed() < Duration::from_secs(30), "nobody waits for the grandchild's end");
    scene.assert_nothing_left();
}

fn groups_cannot_be_left_or_changed(user: User) {
    check(
        || Scene::new(user),
        |_| vec![denied(["leave-cgroup"]).as_root(), denied(["write-cgroup-limits"]).as_root()],
    );
}
