//! What the system calls promise that nothing else would show.

use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use super::*;

fn null() -> OwnedFd {
    File::open("/dev/null").expect("null").into()
}

fn is_open(number: RawFd) -> bool {
    std::fs::read_link(format!("/proc/self/fd/{number}")).is_ok()
}

#[test]
fn what_is_kept_for_long_gives_way_once_there_is_much() {
    let (soft, _) =
        nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).expect("a limit");
    assert!(soft > 4096 + 300, "needs `ulimit -n` of more than {soft}");
    let kept: Vec<OwnedFd> = std::iter::repeat_with(|| set_aside(null())).take(300).collect();
    let (low, high): (Vec<_>, Vec<_>) = kept.iter().partition(|fd| fd.as_raw_fd() < KEPT_FROM);
    assert!(low.iter().all(|fd| fd.as_raw_fd() < 256), "few are no burden");
    assert!(high.len() >= 40, "{}", high.len());
    let flags = fcntl(high[0], FcntlArg::F_GETFD).expect("flags");
    assert_eq!(flags, libc::FD_CLOEXEC, "it is closed on exec as before");
}

#[test]
fn a_process_that_shares_our_memory_gets_descriptors_of_its_own() {
    let (passed, replaced) = (null(), File::open("/proc/self/exe").expect("a file"));
    let kept = fcntl(&passed, FcntlArg::F_DUPFD_CLOEXEC(KEPT_FROM)).expect("room");
    let replaced = replaced.as_raw_fd();
    let before = std::fs::read_link(format!("/proc/self/fd/{replaced}")).expect("open");
    let mut stack = Stack::new().expect("a stack");
    let pid = start_sharing(None, &mut stack, || {
        let owned = own_descriptors().is_ok() && fcntl(&passed, FcntlArg::F_GETFD).is_ok();
        // SAFETY: a number is asked about, which nobody owns here.
        let is_kept = unsafe { libc::fcntl(kept, libc::F_GETFD) } >= 0;
        let placed = place_descriptor(passed.as_fd(), replaced).is_ok();
        i32::from(owned) | i32::from(is_kept) << 1 | i32::from(placed) << 2
    });
    let status = waitpid(Pid::from_raw(pid.expect("a process")), None).expect("it ends");
    assert!(matches!(status, WaitStatus::Exited(_, 0b101)), "{status:?}");
    assert!(is_open(kept), "ours are as before");
    assert_eq!(std::fs::read_link(format!("/proc/self/fd/{replaced}")).expect("open"), before);
}
