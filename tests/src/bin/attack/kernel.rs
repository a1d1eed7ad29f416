//! Attacks on the kernel itself: system calls that no agent needs. What would harm an unconfined host is asked for
//! with arguments that fail after the check of the right to ask.

use std::fs;
use std::os::fd::AsRawFd;

use nix::errno::Errno;

use crate::{Attack, Attempt, argument, done, io, reached, sys};

const HERE: usize = libc::AT_FDCWD as usize;

pub(crate) const ATTACKS: &[Attack] = &[
    ("mount", |a| {
        let (kind, target) = (sys::text("tmpfs"), sys::text(argument(a, 0)));
        sys::call(libc::SYS_mount, &[sys::of(&kind), sys::of(&target), sys::of(&kind), 0, 0])?;
        done(sys::call(libc::SYS_umount2, &[sys::of(&target), libc::MNT_DETACH as usize]))
    }),
    ("bind", |a| {
        let (source, target) = (sys::text(argument(a, 0)), sys::text(argument(a, 1)));
        sys::call(libc::SYS_mount, &[sys::of(&source), sys::of(&target), 0, libc::MS_BIND as usize, 0])?;
        done(sys::call(libc::SYS_umount2, &[sys::of(&target), libc::MNT_DETACH as usize]))
    }),
    ("remount-writable", |a| {
        let target = sys::text(argument(a, 0));
        let flags = (libc::MS_REMOUNT | libc::MS_BIND) as usize;
        done(sys::call(libc::SYS_mount, &[0, sys::of(&target), 0, flags, 0]))
    }),
    ("umount", |a| {
        let target = sys::text(argument(a, 0));
        done(sys::call(libc::SYS_umount2, &[sys::of(&target), libc::MNT_DETACH as usize]))
    }),
    ("fsopen", |_| {
        let kind = sys::text("tmpfs");
        done(sys::call(libc::SYS_fsopen, &[sys::of(&kind), 0]))
    }),
    ("open-tree", |a| {
        let path = sys::text(argument(a, 0));
        // 1 is OPEN_TREE_CLONE.
        done(sys::call(libc::SYS_open_tree, &[HERE, sys::of(&path), 1]))
    }),
    ("move-mount", |_| {
        let nowhere = sys::text("");
        let bad = usize::MAX;
        let proofs = [Errno::EBADF, Errno::ENOENT, Errno::EINVAL];
        reached(
            sys::call(libc::SYS_move_mount, &[bad, sys::of(&nowhere), bad, sys::of(&nowhere), 0]),
            &proofs,
        )
    }),
    ("mount-setattr", |_| {
        let nowhere = sys::text("/toka-no-such-mount");
        let attributes = [1u64, 0, 0, 0];
        let arguments = [HERE, sys::of(&nowhere), 0, sys::at(&attributes), 32];
        reached(sys::call(libc::SYS_mount_setattr, &arguments), &[Errno::ENOENT])
    }),
    ("pivot-root", |_| {
        let nowhere = sys::text("/toka-no-such-folder");
        let arguments = [sys::of(&nowhere), sys::of(&nowhere)];
        reached(sys::call(libc::SYS_pivot_root, &arguments), &[Errno::ENOENT])
    }),
    ("bpf", |_| {
        // BPF_MAP_CREATE of an array with one entry of four bytes (bpf(2)).
        let attributes = [2u32, 4, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        done(sys::call(libc::SYS_bpf, &[0, sys::at(&attributes), 48]))
    }),
    ("keyctl", |_| {
        // KEYCTL_GET_KEYRING_ID of the session keyring, made if there is none (keyctl(2)).
        done(sys::call(libc::SYS_keyctl, &[0, -3isize as usize, 1]))
    }),
    ("add-key", |_| {
        let (kind, name) = (sys::text("user"), sys::text("toka-attack"));
        let keyring = -2isize as usize;
        done(sys::call(libc::SYS_add_key, &[sys::of(&kind), sys::of(&name), sys::of(&name), 4, keyring]))
    }),
    ("request-key", |_| {
        let (kind, name) = (sys::text("user"), sys::text("toka-no-such-key"));
        reached(
            sys::call(libc::SYS_request_key, &[sys::of(&kind), sys::of(&name), 0, 0]),
            &[Errno::ENOKEY, Errno::ENOENT],
        )
    }),
    ("io-uring", |_| {
        let mut parameters = [0u8; 120];
        done(sys::call(libc::SYS_io_uring_setup, &[8, sys::at_mut(&mut parameters)]))
    }),
    ("perf-event", |_| {
        // A software event of this process alone, without kernel and hypervisor (perf_event_open(2)).
        let attributes = [1u64 | 64 << 32, 0, 0, 0, 0, 1 << 5 | 1 << 6, 0, 0];
        done(sys::call(libc::SYS_perf_event_open, &[sys::at(&attributes), 0, usize::MAX, usize::MAX, 0]))
    }),
    ("userfaultfd", |_| done(sys::call(libc::SYS_userfaultfd, &[1]))),
    ("fanotify", |_| done(sys::call(libc::SYS_fanotify_init, &[0, 0]))),
    ("kexec", |_| reached(sys::call(libc::SYS_kexec_load, &[0, 0, 0, 0xffff]), &[Errno::EINVAL])),
    ("kexec-file", |_| {
        let bad = usize::MAX;
        reached(
            sys::call(libc::SYS_kexec_file_load, &[bad, bad, 0, 0, 0xffff]),
            &[Errno::EINVAL, Errno::EBADF],
        )
    }),
    ("load-module", |_| {
        let nothing = sys::text("");
        let arguments = [sys::of(&nothing), 0, sys::of(&nothing)];
        reached(sys::call(libc::SYS_init_module, &arguments), &[Errno::ENOEXEC, Errno::EINVAL])
    }),
    ("load-module-file", |_| {
        let nothing = sys::text("");
        let arguments = [usize::MAX, sys::of(&nothing), 0];
        reached(sys::call(libc::SYS_finit_module, &arguments), &[Errno::EBADF])
    }),
    ("unload-module", |_| {
        let name = sys::text("toka_no_such_module");
        let arguments = [sys::of(&name), libc::O_NONBLOCK as usize];
        reached(sys::call(libc::SYS_delete_module, &arguments), &[Errno::ENOENT])
    }),
    ("reboot", |_| reached(sys::call(libc::SYS_reboot, &[0, 0, 0, 0]), &[Errno::EINVAL])),
    ("swapon", |_| {
        let nowhere = sys::text("/toka-no-such-file");
        reached(sys::call(libc::SYS_swapon, &[sys::of(&nowhere), 0]), &[Errno::ENOENT])
    }),
    ("swapoff", |_| {
        let nowhere = sys::text("/toka-no-such-file");
        reached(sys::call(libc::SYS_swapoff, &[sys::of(&nowhere)]), &[Errno::ENOENT])
    }),
    // Neither a time nor a zone: the right to set is checked, and nothing is set.
    ("settimeofday", |_| done(sys::call(libc::SYS_settimeofday, &[0, 0]))),
    ("adjtimex", adjust_clock),
    ("sethostname", |_| reached(sys::call(libc::SYS_sethostname, &[0, 4096]), &[Errno::EINVAL])),
    ("setdomainname", |_| reached(sys::call(libc::SYS_setdomainname, &[0, 4096]), &[Errno::EINVAL])),
    ("acct", |_| {
        let nowhere = sys::text("/toka-no-such-file");
        reached(sys::call(libc::SYS_acct, &[sys::of(&nowhere)]), &[Errno::ENOENT])
    }),
    ("quotactl", |_| {
        // Q_SYNC of everything is free for all; Q_QUOTAON on no device is not.
        let nowhere = sys::text("/toka-no-such-device");
        let command = 0x80_0002usize << 8;
        reached(sys::call(libc::SYS_quotactl, &[command, sys::of(&nowhere), 0, 0]), &[Errno::ENOENT])
    }),
    #[cfg(target_arch = "x86_64")]
    ("iopl", |_| done(sys::call(libc::SYS_iopl, &[3]))),
    #[cfg(target_arch = "x86_64")]
    ("ioperm", |_| done(sys::call(libc::SYS_ioperm, &[0x80, 1, 1]))),
    ("kernel-log", |_| {
        let mut buffer = [0u8; 64];
        done(sys::call(libc::SYS_syslog, &[3, sys::at_mut(&mut buffer), 64]))
    }),
    ("tty-inject", tty_inject),
    ("tty-paste", tty_paste),
    ("stdin-inject", |_| done(sys::call(libc::SYS_ioctl, &[0, libc::TIOCSTI as usize, sys::at(b"x")]))),
    ("controlling-tty", |_| done(io(fs::File::open("/dev/tty")))),
];

/// Sets the length of a tick to what it is: a change in name only, but one that needs the right to change.
fn adjust_clock(_: &[String]) -> Attempt {
    const ADJ_TICK: u32 = 0x4000;
    const TICK_AT: usize = 11;
    let mut state = [0u64; 26];
    sys::call(libc::SYS_adjtimex, &[sys::at_mut(&mut state)])?;
    debug_assert!((9_000..11_000).contains(&state[TICK_AT]), "struct timex has its tick there");
    state[0] = u64::from(ADJ_TICK);
    done(sys::call(libc::SYS_adjtimex, &[sys::at_mut(&mut state)]))
}

/// Types a character into a terminal that is our own: what would type into the operator's.
fn tty_inject(_: &[String]) -> Attempt {
    let pty = nix::pty::openpty(None, None)?;
    let fd = pty.slave.as_raw_fd() as usize;
    // In a new session the terminal can become ours; in an old one the right to type is CAP_SYS_ADMIN's.
    let _ = nix::unistd::setsid();
    let _ = sys::call(libc::SYS_ioctl, &[fd, libc::TIOCSCTTY as usize, 0]);
    let answer = done(sys::call(libc::SYS_ioctl, &[fd, libc::TIOCSTI as usize, sys::at(b"x")]));
    // A terminal that closes hangs up its session, and that is us.
    std::mem::forget(pty);
    answer
}

/// The console's own way to paste; a pseudo terminal answers that it is none, a filter that nobody may.
fn tty_paste(_: &[String]) -> Attempt {
    let pty = nix::pty::openpty(None, None)?;
    let fd = pty.slave.as_raw_fd() as usize;
    let command = [3u8];
    reached(
        sys::call(libc::SYS_ioctl, &[fd, libc::TIOCLINUX as usize, sys::at(&command)]),
        &[Errno::ENOTTY, Errno::EINVAL],
    )
}
