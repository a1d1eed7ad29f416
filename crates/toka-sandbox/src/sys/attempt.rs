//! System calls that an agent must not get through with, made so that they change nothing where nobody refuses them: the
//! probe of `toka doctor` makes them, inside the sandbox and outside it.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use super::{CloneArgs, check, exit_now, owned};

/// Looks at a process as a debugger (ptrace(2), `PTRACE_SEIZE`), which does not stop it and ends with the caller.
///
/// # Errors
/// As ptrace(2).
pub fn trace(pid: i32) -> io::Result<()> {
    // SAFETY: this request reads no memory of ours; options of 0 ask for nothing.
    check(unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0, 0) }).map(drop)
}

/// Sets an extended attribute of a file (setxattr(2)).
///
/// # Errors
/// As setxattr(2); `EOPNOTSUPP` where the file system has none.
pub fn set_attribute(path: &CStr, name: &CStr, value: &[u8]) -> io::Result<()> {
    let (at, length) = (value.as_ptr().cast(), value.len());
    // SAFETY: both strings end in a zero, and the value is as long as it is said to be.
    check(unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), at, length, 0) }.into()).map(drop)
}

/// Makes a BPF map of one entry (bpf(2), `BPF_MAP_CREATE`), which is gone with its descriptor.
///
/// # Errors
/// As bpf(2).
pub fn bpf() -> io::Result<OwnedFd> {
    // Kind 2 is an array; keys and values of four bytes, one entry.
    let attributes = [2u32, 4, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    // SAFETY: the attributes live through the call, and their true size is passed.
    owned(unsafe { libc::syscall(libc::SYS_bpf, 0, &raw const attributes, size_of_val(&attributes)) })
}

/// Asks for the number of the session keyring (keyctl(2), `KEYCTL_GET_KEYRING_ID`), without making one.
///
/// # Errors
/// As keyctl(2).
pub fn keyring() -> io::Result<()> {
    /// `KEY_SPEC_SESSION_KEYRING` of linux/keyctl.h.
    const SESSION: libc::c_long = -3;
    // SAFETY: no memory is passed.
    check(unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_GET_KEYRING_ID, SESSION, 0) }).map(drop)
}

/// Makes a ring for I/O (io_uring_setup(2)), which is gone with its descriptor.
///
/// # Errors
/// As io_uring_setup(2).
pub fn io_uring() -> io::Result<OwnedFd> {
    /// `struct io_uring_params` of linux/io_uring.h has 120 bytes.
    #[repr(C, align(8))]
    struct Parameters([u8; 120]);
    let mut parameters = Parameters([0; 120]);
    // SAFETY: the kernel writes at most the structure that it is given.
    owned(unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, &raw mut parameters) })
}

/// Counts the faults of the calling process (perf_event_open(2)), without those of the kernel.
///
/// # Errors
/// As perf_event_open(2).
pub fn perf_event() -> io::Result<OwnedFd> {
    /// A software event, `PERF_ATTR_SIZE_VER0` bytes, page faults, without kernel and hypervisor.
    const ATTRIBUTES: [u64; 8] = [1 | 64 << 32, 2, 0, 0, 0, 1 << 5 | 1 << 6, 0, 0];
    let any: libc::c_long = -1;
    // SAFETY: the attributes live through the call and say their own size.
    owned(unsafe { libc::syscall(libc::SYS_perf_event_open, ATTRIBUTES.as_ptr(), 0, any, any, 0) })
}

/// Starts a process in a user namespace of its own (clone3(2)), which ends at once.
///
/// # Errors
/// As clone3(2).
pub fn clone_into_user_namespace() -> io::Result<()> {
    let args = CloneArgs { flags: libc::CLONE_NEWUSER as u64, ..CloneArgs::new(None) };
    // SAFETY: as for `fork_into`; the child runs nothing but its end.
    match check(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) })? {
        0 => exit_now(0),
        pid => {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap_or(-1));
            nix::sys::wait::waitpid(pid, None).map(drop).map_err(io::Error::from)
        }
    }
}

/// Types a character into a terminal (ioctl_tty(2), `TIOCSTI`).
///
/// # Errors
/// As ioctl(2); newer kernels refuse it with `EIO` by themselves.
pub fn type_into(terminal: &OwnedFd) -> io::Result<()> {
    let character = b'x';
    // SAFETY: the kernel reads one byte, which lives through the call.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSTI, &raw const character) }.into()).map(drop)
}
