//! Attacks on one's own limits and identity: users, capabilities, priorities, namespaces.

use std::fs;

use nix::errno::Errno;

use crate::{Attack, Attempt, argument, done, io, number, reached, sys};

pub(crate) const ATTACKS: &[Attack] = &[
    ("setuid", |a| done(sys::call(libc::SYS_setuid, &[number(a, 0)]))),
    ("setgid", |a| done(sys::call(libc::SYS_setgid, &[number(a, 0)]))),
    ("setgroups", |_| {
        let groups = [0u32];
        done(sys::call(libc::SYS_setgroups, &[1, sys::at(&groups)]))
    }),
    ("capabilities", capabilities),
    ("new-privileges", |_| match nix::sys::prctl::get_no_new_privs()? {
        true => Err(Errno::EPERM),
        false => Ok(String::new()),
    }),
    ("raise-limit", |a| raise_limit(number(a, 0))),
    ("nice", |a| {
        let level: i32 = number(a, 0);
        done(sys::call(libc::SYS_setpriority, &[0, 0, level as usize]))
    }),
    ("real-time", |_| {
        let priority = [1i32];
        let policy = libc::SCHED_FIFO as usize;
        done(sys::call(libc::SYS_sched_setscheduler, &[0, policy, sys::at(&priority)]))
    }),
    ("io-real-time", |_| {
        // IOPRIO_WHO_PROCESS, ourselves, class 1 (real time) at level 4 (ioprio_set(2)).
        done(sys::call(libc::SYS_ioprio_set, &[1, 0, 1 << 13 | 4]))
    }),
    ("oom-score", |_| done(io(fs::write("/proc/self/oom_score_adj", "-500")))),
    ("unshare", |a| done(sys::call(libc::SYS_unshare, &[namespace(argument(a, 0)) as usize]))),
    ("clone", |a| done(sys::clone(namespace(argument(a, 0))))),
    // A size of zero is looked at before anything else; a filter is looked at before that.
    ("clone3", |_| reached(sys::call(libc::SYS_clone3, &[0, 0]), &[Errno::EINVAL])),
    ("setns", |a| {
        let file = io(fs::File::open(argument(a, 0)))?;
        let fd = std::os::fd::AsRawFd::as_raw_fd(&file) as usize;
        done(sys::call(libc::SYS_setns, &[fd, 0]))
    }),
    ("setns-pidfd", |a| {
        let pidfd = sys::call(libc::SYS_pidfd_open, &[number(a, 0), 0])?;
        done(sys::call(libc::SYS_setns, &[pidfd, libc::CLONE_NEWNS as usize]))
    }),
    ("chroot", |a| done(nix::unistd::chroot(argument(a, 0)))),
];

/// The flag of a namespace by its short name.
fn namespace(name: &str) -> i32 {
    match name {
        "user" => libc::CLONE_NEWUSER,
        "mnt" => libc::CLONE_NEWNS,
        "net" => libc::CLONE_NEWNET,
        "pid" => libc::CLONE_NEWPID,
        "ipc" => libc::CLONE_NEWIPC,
        "uts" => libc::CLONE_NEWUTS,
        "cgroup" => libc::CLONE_NEWCGROUP,
        "time" => 0x80,
        _ => 0,
    }
}

/// Any capability in any of the sets that could give one.
fn capabilities(_: &[String]) -> Attempt {
    let status = io(fs::read_to_string("/proc/self/status"))?;
    let held: Vec<&str> = status
        .lines()
        .filter(|line| ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"].iter().any(|set| line.starts_with(set)))
        .filter(|line| line.trim_end().trim_end_matches('0').ends_with(|c: char| !c.is_ascii_hexdigit()))
        .collect();
    let every = status.lines().filter(|line| line.starts_with("Cap")).count();
    assert_eq!(every, 5, "the kernel shows five capability sets");
    if held.len() == 4 {
        Err(Errno::EPERM)
    } else {
        Ok(status.lines().filter(|l| l.starts_with("Cap")).collect())
    }
}

/// Raises the hard limit of this resource by one.
fn raise_limit(resource: usize) -> Attempt {
    let mut limit = [0u64; 2];
    sys::call(libc::SYS_prlimit64, &[0, resource, 0, sys::at_mut(&mut limit)])?;
    if limit[1] == u64::MAX {
        return Ok("unlimited".to_owned());
    }
    limit[1] += 1;
    done(sys::call(libc::SYS_prlimit64, &[0, resource, sys::at(&limit), 0]))
}
