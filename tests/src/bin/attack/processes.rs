//! Attacks on other processes: signals, tracing, their memory and their files in `/proc`, and shared memory.

use std::fs;

use nix::errno::Errno;

use crate::{Attack, Attempt, argument, done, io, number, say, sys};

pub(crate) const ATTACKS: &[Attack] = &[
    ("kill", |a| done(sys::call(libc::SYS_kill, &[number::<i32>(a, 0) as usize, number(a, 1)]))),
    ("tgkill", |a| {
        let pid: usize = number(a, 0);
        done(sys::call(libc::SYS_tgkill, &[pid, pid, number(a, 1)]))
    }),
    ("sigqueue", |a| {
        // A siginfo_t of SI_QUEUE (-1) as sigqueue(3) fills it: number, errno, code, then pid and uid.
        let signal: usize = number(a, 1);
        let mut info = [0i32; 32];
        info[0] = number(a, 1);
        info[2] = -1;
        done(sys::call(libc::SYS_rt_sigqueueinfo, &[number(a, 0), signal, sys::at(&info)]))
    }),
    ("pidfd-signal", |a| {
        let pidfd = sys::call(libc::SYS_pidfd_open, &[number(a, 0), 0])?;
        done(sys::call(libc::SYS_pidfd_send_signal, &[pidfd, number(a, 1), 0, 0]))
    }),
    ("pidfd-getfd", |a| {
        let pidfd = sys::call(libc::SYS_pidfd_open, &[number(a, 0), 0])?;
        done(sys::call(libc::SYS_pidfd_getfd, &[pidfd, 0, 0]))
    }),
    ("fcntl-owner", fcntl_owner),
    ("signal-scan", signal_scan),
    ("ptrace-seize", |a| {
        done(sys::call(libc::SYS_ptrace, &[libc::PTRACE_SEIZE as usize, number(a, 0), 0, 0]))
    }),
    ("ptrace-attach", |a| {
        done(sys::call(libc::SYS_ptrace, &[libc::PTRACE_ATTACH as usize, number(a, 0), 0, 0]))
    }),
    ("vm-read", |a| vm_read(number(a, 0), number(a, 1))),
    ("kcmp", |a| {
        let me = std::process::id() as usize;
        // 2 is KCMP_FILES (kcmp(2)).
        done(sys::call(libc::SYS_kcmp, &[number(a, 0), me, 2, 0, 0]))
    }),
    ("prlimit", |a| {
        let mut old = [0u64; 2];
        let what = libc::RLIMIT_NOFILE as usize;
        done(sys::call(libc::SYS_prlimit64, &[number(a, 0), what, 0, sys::at_mut(&mut old)]))
    }),
    ("set-prlimit", |a| {
        // Takes core dumps from another process, which harms nobody.
        let limit = [0u64, 0];
        let what = libc::RLIMIT_CORE as usize;
        done(sys::call(libc::SYS_prlimit64, &[number(a, 0), what, sys::at(&limit), 0]))
    }),
    ("renice", |a| done(sys::call(libc::SYS_setpriority, &[0, number(a, 0), 19]))),
    ("io-renice", |a| {
        // IOPRIO_WHO_PROCESS, class 3: idle (ioprio_set(2)).
        done(sys::call(libc::SYS_ioprio_set, &[1, number(a, 0), 3 << 13]))
    }),
    ("pin", |a| {
        let mask = [1u64; 16];
        done(sys::call(libc::SYS_sched_setaffinity, &[number(a, 0), 8, sys::at(&mask)]))
    }),
    ("idle-class", |a| {
        // SCHED_IDLE is 5 (sched(7)).
        let priority = [0i32];
        done(sys::call(libc::SYS_sched_setscheduler, &[number(a, 0), 5, sys::at(&priority)]))
    }),
    ("proc-scan", proc_scan),
    ("shm-attach", |a| {
        let flags = libc::SHM_RDONLY as usize;
        done(sys::call(libc::SYS_shmat, &[number(a, 0), 0, flags]))
    }),
    // The kernel takes names of queues without the slash that mq_open(3) asks for.
    ("open-queue", |a| {
        let name = sys::text(argument(a, 0));
        done(sys::call(libc::SYS_mq_open, &[sys::of(&name), libc::O_RDWR as usize, 0, 0]))
    }),
    ("make-queue", |a| {
        let name = sys::text(argument(a, 0));
        let flags = (libc::O_RDWR | libc::O_CREAT) as usize;
        done(sys::call(libc::SYS_mq_open, &[sys::of(&name), flags, 0o600, 0]))
    }),
    ("remove-queue", |a| {
        let name = sys::text(argument(a, 0));
        done(sys::call(libc::SYS_mq_unlink, &[sys::of(&name)]))
    }),
];

/// Asks the kernel to send SIGIO in our name when a pipe becomes readable.
fn fcntl_owner(arguments: &[String]) -> Attempt {
    let (reader, writer) = nix::unistd::pipe()?;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&reader) as usize;
    sys::call(libc::SYS_fcntl, &[fd, libc::F_SETOWN as usize, number(arguments, 0)])?;
    // 10 is F_SETSIG on Linux (fcntl(2)).
    sys::call(libc::SYS_fcntl, &[fd, 10, number(arguments, 1)])?;
    sys::call(libc::SYS_fcntl, &[fd, libc::F_SETFL as usize, libc::O_ASYNC as usize])?;
    done(nix::unistd::write(writer, b"x"))
}

/// Every process that a signal would reach and that is not of this agent's session. Signal 0 harms nobody.
fn signal_scan(_: &[String]) -> Attempt {
    let session = nix::unistd::getsid(None)?;
    let reached: Vec<String> = (1..65_536)
        .filter(|pid| sys::call(libc::SYS_kill, &[*pid as usize, 0]).is_ok())
        .filter(|pid| nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(*pid))) != Ok(session))
        .map(|pid| pid.to_string())
        .collect();
    if reached.is_empty() { Err(Errno::EPERM) } else { Ok(reached.join(" ")) }
}

fn vm_read(pid: usize, address: usize) -> Attempt {
    let mut buffer = [0u8; 8];
    let local = [libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: 8 }];
    let remote = [libc::iovec { iov_base: std::ptr::with_exposed_provenance_mut(address), iov_len: 8 }];
    // A bad address is found only by one who may look.
    crate::reached(
        sys::call(libc::SYS_process_vm_readv, &[pid, sys::at(&local), 1, sys::at(&remote), 1, 0]),
        &[Errno::EFAULT],
    )
}

/// Every process in `/proc` that is not of this agent's session; the note names the first few.
fn proc_scan(_: &[String]) -> Attempt {
    let session = nix::unistd::getsid(None)?;
    let mut foreign = Vec::new();
    for entry in io(fs::read_dir("/proc"))?.flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        if nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(pid))) != Ok(session) {
            let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            foreign.push(format!("{pid}={}", command.split('\0').next().unwrap_or_default()));
        }
    }
    if foreign.is_empty() {
        return Err(Errno::ENOENT);
    }
    foreign.truncate(5);
    say(&format!("# foreign processes: {}", foreign.join(" ")));
    Ok(foreign.join(" "))
}
