//! The one module with `unsafe`: system calls that no safe wrapper offers, each as a small safe function.
//!
//! The mount calls are those of the "new mount API" (Linux 5.2 and 5.12: open_tree(2), move_mount(2), fsopen(2),
//! fsmount(2), mount_setattr(2)), which work on descriptors, so that a path is resolved exactly once.
#![expect(unsafe_code, reason = "system calls without a safe wrapper; every block says why it is sound")]

pub mod attempt;
#[cfg(test)]
mod tests;

use std::ffi::{CStr, CString};
use std::io::{self, Read as _};
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;

use libc::{c_int, c_long, c_uint, c_ulong};
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns};
use nix::unistd::Pid;

/// A path as C wants it.
///
/// # Errors
/// When it has a NUL byte.
pub fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

fn check(result: c_long) -> io::Result<c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn owned(result: c_long) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(check(result)?).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: the kernel has just returned this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Which of the two processes after a fork we are.
#[derive(Debug)]
pub enum Forked {
    /// The old one; the pid is the new one's.
    Parent(i32),
    /// The new one.
    Child,
}

/// fork(2). In the child of a single-threaded process ordinary code may run; in that of another one nothing that allocates or takes a
/// lock, as in the probes of [`crate::host`] (signal-safety(7)).
///
/// # Errors
/// As fork(2): `EAGAIN`, `ENOMEM`.
pub fn fork() -> io::Result<Forked> {
    // SAFETY: callers are single-threaded (the keeper), or their child does system calls alone (the probes), so that it needs no
    // lock which a thread holds that it lacks.
    match unsafe { libc::fork() } {
        0 => Ok(Forked::Child),
        pid if pid > 0 => Ok(Forked::Parent(pid)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What a forked process is born into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BirthPlace {
    /// The namespaces of its parent.
    Here,
    /// A user, a process, a mount and an IPC namespace of its own.
    Namespaces,
}

/// `struct clone_args` of linux/sched.h, version 2.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

impl CloneArgs {
    /// Being born in a version 2 control group costs nothing, whereas moving there makes the kernel wait for every
    /// processor: several milliseconds (`cgroup_threadgroup_rwsem`, unless the hierarchy is mounted with
    /// `favordynmods`).
    fn new(group: Option<BorrowedFd<'_>>) -> Self {
        const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
        let mut args = Self { exit_signal: libc::SIGCHLD as u64, ..Self::default() };
        if let Some(group) = group {
            args.flags |= CLONE_INTO_CGROUP;
            args.cgroup = group.as_raw_fd() as u64;
        }
        args
    }
}

/// [`fork`] into a version 2 control group (clone3(2), `CLONE_INTO_CGROUP`), into new namespaces, or both.
///
/// # Errors
/// As clone3(2); `EPERM` where user namespaces are refused.
pub fn fork_into(group: Option<BorrowedFd<'_>>, place: BirthPlace) -> io::Result<Forked> {
    let mut args = CloneArgs::new(group);
    if place == BirthPlace::Namespaces {
        let own = libc::CLONE_NEWUSER | libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWIPC;
        args.flags |= own as u64;
    }
    // SAFETY: without CLONE_VM and without a stack the call is a fork, and the callers of `fork` are those of this one;
    // the arguments live through the call and their true size is passed.
    match check(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) })? {
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent(pid as i32)),
    }
}

/// The stack of processes that share our memory until they execute their program ([`start_sharing`]).
#[derive(Debug)]
pub struct Stack {
    base: *mut libc::c_void,
}

impl Stack {
    /// The steps of a child need some ten KiB; the rest is never touched.
    const SIZE: usize = 256 * 1024;
    /// At its end, so that too deep a call ends the child instead of writing over our memory. The largest page there is.
    const GUARD: usize = 64 * 1024;

    /// Reserves it.
    ///
    /// # Errors
    /// As mmap(2) and mprotect(2).
    pub fn new() -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice takes nothing from anybody.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), Self::SIZE, access, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let stack = Self { base };
        // SAFETY: the range is the beginning of our own mapping, in which nothing lies yet.
        check(unsafe { libc::mprotect(base, Self::GUARD, libc::PROT_NONE) }.into())?;
        Ok(stack)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours alone, and no process runs on it once `start_sharing` has returned.
        unsafe { libc::munmap(self.base, Self::SIZE) };
    }
}

/// Starts a process that shares our memory while we stand still, until it has executed a program or ended (clone3(2),
/// `CLONE_VM` and `CLONE_VFORK`), in a version 2 control group if one is given. It runs `work` on `stack` and ends with
/// the status that this returns, if it returns.
///
/// Nothing is copied for it, as it is for a fork, where each page that either side then writes costs a fault. What `work`
/// allocates and has not freed when it executes its program stays allocated here, so it must not own anything then.
///
/// The table of descriptors is shared as well, since copying and closing those of a thousand agents takes longer than all the
/// rest: `work` has to begin with [`own_descriptors`].
///
/// The out-of-memory killer leaves such a process alone as long as it shares our memory (`in_vfork` of
/// linux/sched/mm.h), so a tight limit of its group cannot end us.
///
/// # Errors
/// As clone3(2).
#[cfg(target_arch = "x86_64")]
pub fn start_sharing<W: FnOnce() -> i32>(
    group: Option<BorrowedFd<'_>>,
    stack: &mut Stack,
    work: W,
) -> io::Result<i32> {
    extern "C" fn begin<W: FnOnce() -> i32>(work: *mut Option<W>) -> ! {
        // SAFETY: the pointer is that of the caller's variable below; the caller stands still, so it is ours alone.
        let status = match unsafe { (*work).take() } {
            Some(work) => work(),
            None => 127,
        };
        exit_now(status)
    }
    let mut work = Some(work);
    let mut args = CloneArgs::new(group);
    args.flags |= (libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_FILES) as u64;
    args.stack = stack.base as u64;
    args.stack_size = Stack::SIZE as u64;
    let begin: extern "C" fn(*mut Option<W>) -> ! = begin::<W>;
    let result: c_long;
    // SAFETY: the process runs on a stack of its own, whose end is aligned as a call wants it, and never returns into
    // this frame: `begin` ends in _exit(2). We go on only when it no longer uses our memory, so to the compiler it is a
    // call that may change memory and the registers that a system call changes. The arguments live through the call.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") &raw const args,
            in("rsi") size_of::<CloneArgs>(),
            in("r12") &raw mut work,
            in("r13") begin,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    match result {
        pid if pid > 0 => Ok(pid as i32),
        error => Err(io::Error::from_raw_os_error(-error as i32)),
    }
}

/// As on x86-64, but with a copy of our memory: the few instructions that it takes are not written for this processor.
///
/// # Errors
/// As clone3(2).
#[cfg(not(target_arch = "x86_64"))]
pub fn start_sharing<W: FnOnce() -> i32>(
    group: Option<BorrowedFd<'_>>,
    _stack: &mut Stack,
    work: W,
) -> io::Result<i32> {
    start_copied(group, BirthPlace::Here, work)
}

/// Starts a process with a copy of our memory ([`fork`], [`fork_into`]), which runs `work` and ends with the status that
/// this returns, if it returns.
///
/// # Errors
/// As fork(2) and clone3(2).
pub fn start_copied<W: FnOnce() -> i32>(
    group: Option<BorrowedFd<'_>>,
    place: BirthPlace,
    work: W,
) -> io::Result<i32> {
    let forked = match (group, place) {
        (None, BirthPlace::Here) => fork(),
        (group, place) => fork_into(group, place),
    };
    match forked? {
        Forked::Child => exit_now(work()),
        Forked::Parent(pid) => Ok(pid),
    }
}

/// As [`start_copied`] in new namespaces, within the user namespace `user` and in the network that it owns. We cannot enter that
/// user namespace ourselves, since there is no way back: a process between does, whose child is made ours (clone3(2),
/// `CLONE_PARENT`) and which then ends.
///
/// # Errors
/// As fork(2), setns(2) and clone3(2).
pub fn start_within<W: FnOnce() -> i32>(
    group: Option<BorrowedFd<'_>>,
    (user, network): (BorrowedFd<'_>, BorrowedFd<'_>),
    work: W,
) -> io::Result<i32> {
    let (told, tells) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    let between = match fork()? {
        Forked::Parent(pid) => Pid::from_raw(pid),
        Forked::Child => {
            drop(told);
            let entered = setns(user, CloneFlags::CLONE_NEWUSER)
                .and_then(|()| setns(network, CloneFlags::CLONE_NEWNET))
                .map_err(io::Error::from);
            let answer = match entered.and_then(|()| fork_sibling(group)) {
                Ok(Forked::Child) => {
                    drop(tells);
                    exit_now(work())
                }
                Ok(Forked::Parent(pid)) => pid,
                Err(error) => -error.raw_os_error().unwrap_or(libc::EIO),
            };
            // Nobody is left to be told when the pipe is broken.
            let _ = nix::unistd::write(&tells, &answer.to_ne_bytes());
            exit_now(0)
        }
    };
    drop(tells);
    let mut answer = [0; 4];
    let read = std::fs::File::from(told).read_exact(&mut answer);
    // It ends at once, and is nobody else's to collect.
    let _ = nix::sys::wait::waitpid(between, None);
    read?;
    match i32::from_ne_bytes(answer) {
        pid if pid > 0 => Ok(pid),
        errno => Err(io::Error::from_raw_os_error(-errno)),
    }
}

/// A child of our parent, in namespaces of its own ([`BirthPlace::Namespaces`]).
fn fork_sibling(group: Option<BorrowedFd<'_>>) -> io::Result<Forked> {
    let own = libc::CLONE_PARENT
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWIPC;
    let mut args = CloneArgs::new(group);
    // Its end is told by the same signal as ours is (clone(2)).
    args.exit_signal = 0;
    args.flags |= own as u64;
    // SAFETY: as in `fork_into`; the process that calls was forked by a single-threaded one.
    match check(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) })? {
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent(pid as i32)),
    }
}

/// The user namespace that owns another namespace (ioctl_ns(2), `NS_GET_USERNS`).
///
/// # Errors
/// `EPERM` when it is out of our reach.
pub fn owner_of_namespace(namespace: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const NS_GET_USERNS: c_ulong = 0xb701;
    // SAFETY: the call takes no argument, and returns a new descriptor.
    owned(unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_USERNS) }.into())
}

/// Where the numbers of descriptors begin that are kept for long ([`set_aside`]). One word of the second bitmap of a
/// descriptor table stands for so many: kernels before 6.11 copied the whole word in [`own_descriptors`], and the process
/// then found numbers taken that were not.
pub const KEPT_FROM: RawFd = 4096;

/// Gives a descriptor that is kept for long a number from [`KEPT_FROM`] on, when there are many already, so that what a start
/// needs gets low numbers and [`own_descriptors`] has little to copy. Where the limit on descriptors is lower it stays.
pub fn set_aside(descriptor: OwnedFd) -> OwnedFd {
    const MANY: RawFd = 256;
    if !(MANY..KEPT_FROM).contains(&descriptor.as_raw_fd()) {
        return descriptor;
    }
    // SAFETY: the call makes a descriptor that nobody owns yet; the old one is closed by its owner.
    let moved = unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_DUPFD_CLOEXEC, KEPT_FROM) };
    // SAFETY: as above.
    if moved < 0 { descriptor } else { unsafe { OwnedFd::from_raw_fd(moved) } }
}

/// In a process that shares its parent's descriptors: from now on it has its own, without those from [`KEPT_FROM`] on
/// (close_range(2), `CLOSE_RANGE_UNSHARE`). The parent's stay as they are.
///
/// # Errors
/// As close_range(2); the process must then end without touching a descriptor.
pub fn own_descriptors() -> io::Result<()> {
    const CLOSE_RANGE_UNSHARE: c_uint = 2;
    let from = KEPT_FROM.cast_unsigned();
    // SAFETY: no memory is passed; what is closed is a copy that no value in this process will use.
    check(unsafe { libc::syscall(libc::SYS_close_range, from, c_uint::MAX, CLOSE_RANGE_UNSHARE) }).map(drop)
}

/// Moves a descriptor to number `to`, closing what was there.
///
/// # Errors
/// As dup2(2).
pub fn move_descriptor(from: OwnedFd, to: RawFd) -> io::Result<OwnedFd> {
    place_descriptor(from.as_fd(), to)?;
    if from.as_raw_fd() == to {
        std::mem::forget(from);
    }
    // SAFETY: the number was just made to name this file, and whoever owned it before is a forked-off parent.
    Ok(unsafe { OwnedFd::from_raw_fd(to) })
}

/// Closes every descriptor from `first` on (close_range(2)). Only for a process that goes on without their owners.
///
/// # Errors
/// As close_range(2).
pub fn close_from(first: c_uint) -> io::Result<()> {
    // SAFETY: no memory is passed; the caller never comes back to the values that owned the descriptors.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, c_uint::MAX, 0) }).map(drop)
}

/// Ends the process at once, without destructors or exit handlers, as a forked child must.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Clones a mount (open_tree(2)) at the file or folder that is held by a descriptor, as a detached tree.
///
/// # Errors
/// As open_tree(2).
pub fn clone_mount(at: BorrowedFd<'_>, reach: Reach) -> io::Result<OwnedFd> {
    let recursive = if reach == Reach::Tree { libc::AT_RECURSIVE as c_uint } else { 0 };
    let flags =
        libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC as c_uint | libc::AT_EMPTY_PATH as c_uint | recursive;
    // SAFETY: the path is an empty C string, the descriptor is open.
    owned(unsafe { libc::syscall(libc::SYS_open_tree, at.as_raw_fd(), c"".as_ptr(), flags) })
}

/// Attaches a detached tree at the file or folder that is held by a descriptor (move_mount(2)).
///
/// # Errors
/// As move_mount(2).
pub fn attach_mount_at(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    const MOVE_MOUNT_F_EMPTY_PATH: c_uint = 0x04;
    const MOVE_MOUNT_T_EMPTY_PATH: c_uint = 0x40;
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    let (from, to) = (tree.as_raw_fd(), target.as_raw_fd());
    // SAFETY: both paths are empty C strings, the descriptors are open.
    check(unsafe { libc::syscall(libc::SYS_move_mount, from, c"".as_ptr(), to, c"".as_ptr(), flags) })
        .map(drop)
}

/// Attaches a detached tree at `target`, taken relative to `at` (move_mount(2)).
///
/// # Errors
/// As move_mount(2).
pub fn attach_mount(tree: BorrowedFd<'_>, at: Option<BorrowedFd<'_>>, target: &CStr) -> io::Result<()> {
    const MOVE_MOUNT_F_EMPTY_PATH: c_uint = 4;
    let at = at.map_or(libc::AT_FDCWD, |fd| fd.as_raw_fd());
    // SAFETY: both paths are valid C strings, the descriptors are open.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            at,
            target.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    })
    .map(drop)
}

/// How far a change of mount attributes reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The one mount.
    One,
    /// It and all below it.
    Tree,
}

/// Attributes of a mount, as mount_setattr(2) sets them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MountAttributes(u64);

impl MountAttributes {
    /// No writing.
    pub const READ_ONLY: Self = Self(libc::MOUNT_ATTR_RDONLY);
    /// No set-user-id bits.
    pub const NO_SUID: Self = Self(libc::MOUNT_ATTR_NOSUID);
    /// No device files.
    pub const NO_DEV: Self = Self(libc::MOUNT_ATTR_NODEV);
    /// No programs, and no mappings that can be executed.
    pub const NO_EXEC: Self = Self(libc::MOUNT_ATTR_NOEXEC);

    /// Both.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Sets attributes of a mount and takes it out of every peer group.
///
/// # Errors
/// As mount_setattr(2).
pub fn set_mount(tree: BorrowedFd<'_>, attributes: MountAttributes, reach: Reach) -> io::Result<()> {
    let attr =
        libc::mount_attr { attr_set: attributes.0, attr_clr: 0, propagation: libc::MS_PRIVATE, userns_fd: 0 };
    let recursive = if reach == Reach::Tree { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: `attr` lives through the call and its true size is passed.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            (libc::AT_EMPTY_PATH | recursive) as c_uint,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}

/// Makes a new instance of a file system with `options`, detached (fsopen(2), fsconfig(2), fsmount(2)).
///
/// # Errors
/// As those calls; an option that the file system does not know is `EINVAL`.
pub fn new_file_system(
    kind: &CStr,
    options: &[(&CStr, &CStr)],
    attributes: MountAttributes,
) -> io::Result<OwnedFd> {
    const FSOPEN_CLOEXEC: c_uint = 1;
    const FSCONFIG_SET_STRING: c_uint = 1;
    const FSCONFIG_CMD_CREATE: c_uint = 6;
    const FSMOUNT_CLOEXEC: c_uint = 1;
    // SAFETY: the name is a valid C string.
    let context = owned(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) })?;
    let configure = |command: c_uint, key: *const libc::c_char, value: *const libc::c_char| {
        // SAFETY: key and value are null or valid C strings, as the command wants them.
        check(unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), command, key, value, 0) })
    };
    for (key, value) in options {
        configure(FSCONFIG_SET_STRING, key.as_ptr(), value.as_ptr())?;
    }
    configure(FSCONFIG_CMD_CREATE, std::ptr::null(), std::ptr::null())?;
    // SAFETY: the context is open.
    owned(unsafe {
        libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, attributes.0 as c_uint)
    })
}

/// Opens a path below `root` without leaving it (openat2(2), `RESOLVE_IN_ROOT`), for reference only.
///
/// # Errors
/// As openat2(2).
pub fn open_in_root(root: BorrowedFd<'_>, path: &CStr) -> io::Result<OwnedFd> {
    open_path(root.as_raw_fd(), path, libc::RESOLVE_IN_ROOT)
}

/// Opens a path below `root` that has no symbolic link in it (openat2(2), `RESOLVE_BENEATH`, `RESOLVE_NO_SYMLINKS`), for
/// reference only.
///
/// # Errors
/// As openat2(2); `ELOOP` when there is a link.
pub fn open_below(root: BorrowedFd<'_>, path: &CStr) -> io::Result<OwnedFd> {
    open_path(root.as_raw_fd(), path, libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS)
}

/// Opens a path that has no symbolic link in it (openat2(2), `RESOLVE_NO_SYMLINKS`), for reference only.
///
/// # Errors
/// As openat2(2); `ELOOP` when there is a link.
pub fn open_without_links(path: &CStr) -> io::Result<OwnedFd> {
    open_path(libc::AT_FDCWD, path, libc::RESOLVE_NO_SYMLINKS)
}

/// As [`open_without_links`], but when the path itself is a link, that link is opened.
///
/// # Errors
/// As openat2(2); `ELOOP` when a link is on the way.
pub fn open_itself(path: &CStr) -> io::Result<OwnedFd> {
    open_path_with(libc::AT_FDCWD, path, libc::O_NOFOLLOW, libc::RESOLVE_NO_SYMLINKS)
}

fn open_path(at: RawFd, path: &CStr, resolve: u64) -> io::Result<OwnedFd> {
    open_path_with(at, path, 0, resolve)
}

fn open_path_with(at: RawFd, path: &CStr, flags: c_int, resolve: u64) -> io::Result<OwnedFd> {
    // SAFETY: `open_how` is plain data for which zero is valid.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (libc::O_PATH | libc::O_CLOEXEC | flags) as u64;
    how.resolve = resolve;
    let size = size_of::<libc::open_how>();
    // SAFETY: path and `how` live through the call; the true size is passed.
    owned(unsafe { libc::syscall(libc::SYS_openat2, at, path.as_ptr(), &raw const how, size) })
}

/// Landlock's ABI version, 0 when the kernel has none (landlock_create_ruleset(2)).
pub fn landlock_abi() -> u32 {
    const LANDLOCK_CREATE_RULESET_VERSION: c_uint = 1;
    // SAFETY: with this flag the kernel reads no memory.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<u8>(),
            0usize,
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    };
    u32::try_from(version).unwrap_or(0)
}

/// Adds a rule to a Landlock ruleset: `access` (the bits of `LANDLOCK_ACCESS_FS_*`, linux/landlock.h) to the file or folder
/// that is held by a descriptor, and what lies below it.
///
/// # Errors
/// As landlock_add_rule(2).
pub fn landlock_allow(ruleset: BorrowedFd<'_>, access: u64, beneath: BorrowedFd<'_>) -> io::Result<()> {
    const LANDLOCK_RULE_PATH_BENEATH: c_uint = 1;
    /// `struct landlock_path_beneath_attr`.
    #[repr(C, packed)]
    struct PathBeneath {
        allowed_access: u64,
        parent_fd: i32,
    }
    let rule = PathBeneath { allowed_access: access, parent_fd: beneath.as_raw_fd() };
    // SAFETY: the kernel reads the rule, which lives through the call and is laid out as it expects.
    check(unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            ruleset.as_raw_fd(),
            LANDLOCK_RULE_PATH_BENEATH,
            &raw const rule,
            0,
        )
    })
    .map(drop)
}

/// Puts the calling thread behind a Landlock ruleset for ever; no_new_privs must be set.
///
/// # Errors
/// As landlock_restrict_self(2). With `is_audited`, for which it takes version 7, what is refused after the next execve(2) is told to whom the audit
/// is, where somebody has switched it on.
pub fn landlock_restrict(ruleset: BorrowedFd<'_>, is_audited: bool) -> io::Result<()> {
    // LANDLOCK_RESTRICT_SELF_LOG_NEW_EXEC_ON of linux/landlock.h.
    let flags: c_uint = if is_audited { 1 << 1 } else { 0 };
    // SAFETY: the descriptor is open; no memory is passed.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), flags) }).map(drop)
}

/// One instruction of a seccomp program (linux/filter.h).
pub type Instruction = libc::sock_filter;

/// Puts the calling thread behind a seccomp program for ever; no_new_privs must be set.
///
/// # Errors
/// As seccomp(2).
pub fn seccomp_install(program: &[Instruction]) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: the program lives through the call, its length is right, and the kernel only reads it.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) })
        .map(drop)
}

/// No program that this process executes can gain privileges (prctl(2), `PR_SET_NO_NEW_PRIVS`).
///
/// # Errors
/// As prctl(2).
pub fn no_new_privileges() -> io::Result<()> {
    // SAFETY: no memory is passed.
    check(c_long::from(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1 as c_ulong, 0, 0, 0) })).map(drop)
}

/// Lets all threads of the process share two arenas of the C library's allocator (mallopt(3), `M_ARENA_MAX`). By default each of many
/// threads has one of its own, which keeps what that thread once needed. Other C libraries have no arenas.
pub fn share_arenas() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: no memory is passed; it is to be called before there are other threads.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, 2) };
    }
}

/// Makes the process adopt orphans among its descendants (prctl(2), `PR_SET_CHILD_SUBREAPER`).
///
/// # Errors
/// As prctl(2).
pub fn become_subreaper() -> io::Result<()> {
    // SAFETY: no memory is passed.
    check(c_long::from(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1 as c_ulong, 0, 0, 0) })).map(drop)
}

/// Has the kernel kill this process when the thread that forked it ends (prctl(2), `PR_SET_PDEATHSIG`).
///
/// # Errors
/// As prctl(2).
pub fn die_with_parent() -> io::Result<()> {
    // SAFETY: no memory is passed.
    check(c_long::from(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as c_ulong, 0, 0, 0) }))
        .map(drop)
}

/// Leaves the caller's session keyring for a new one (keyctl(2), `KEYCTL_JOIN_SESSION_KEYRING`).
///
/// # Errors
/// As keyctl(2); `ENOSYS` where the kernel has no keys.
pub fn new_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: c_int = 1;
    // SAFETY: a null name asks for an anonymous keyring.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<u8>()) })
        .map(drop)
}

/// Marks every descriptor from `first` on to be closed on exec (close_range(2)).
///
/// # Errors
/// As close_range(2).
pub fn close_on_exec_from(first: c_uint) -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: c_uint = 4;
    // SAFETY: no memory is passed, and no descriptor is closed before exec.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, c_uint::MAX, CLOSE_RANGE_CLOEXEC) }).map(drop)
}

/// Puts `from` in the place of descriptor `to`, which stays open through exec (dup2(2)).
///
/// # Errors
/// As dup2(2).
pub fn place_descriptor(from: BorrowedFd<'_>, to: RawFd) -> io::Result<()> {
    // SAFETY: `from` is open; `to` is one of the standard streams of a forked child, owned by nobody.
    check(c_long::from(unsafe { libc::dup2(from.as_raw_fd(), to) })).map(drop)
}

/// Empties the capability sets of the process and locks the ways by which user 0 gets them back on exec
/// (capabilities(7), "The securebits flags"). The bounding set is left alone: with no_new_privs nothing is ever gained
/// from it, and emptying it takes a call per capability.
///
/// # Errors
/// As capset(2) and prctl(2).
pub fn drop_capabilities() -> io::Result<()> {
    const LINUX_CAPABILITY_VERSION_3: u32 = 0x2008_0522;
    /// NOROOT, NO_SETUID_FIXUP, KEEP_CAPS and NO_CAP_AMBIENT_RAISE, each locked; KEEP_CAPS itself off.
    const LOCKED_SECUREBITS: c_ulong = 0b1110_1111;
    #[repr(C)]
    struct Header {
        version: u32,
        pid: c_int,
    }
    // SAFETY: no memory is passed. Without CAP_SETPCAP, as an ordinary user, there is nothing to lock.
    let _ = unsafe { libc::prctl(libc::PR_SET_SECUREBITS, LOCKED_SECUREBITS, 0, 0, 0) };
    let header = Header { version: LINUX_CAPABILITY_VERSION_3, pid: 0 };
    let empty = [0u32; 6];
    // SAFETY: version 3 reads the header and two triples of words, which both live through the call. Emptying the
    // permitted set empties the ambient set too.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, &raw const empty) }).map(drop)
}

/// Becomes another user, with exactly these groups, for good.
///
/// # Errors
/// As setgroups(2), setresgid(2), setresuid(2).
pub fn become_user(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    // SAFETY: the slice is valid for its length; the other calls pass no memory.
    unsafe {
        check(libc::setgroups(groups.len(), groups.as_ptr()).into())?;
        check(libc::setresgid(gid, gid, gid).into())?;
        check(libc::setresuid(uid, uid, uid).into())?;
    }
    Ok(())
}

/// Sets the loopback interface of this network namespace up (netdevice(7)).
///
/// # Errors
/// As socket(2) and ioctl(2).
pub fn loopback_up() -> io::Result<()> {
    // SAFETY: `ifreq` is plain data for which zero is valid; it lives through the calls.
    unsafe {
        let socket = owned(libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0).into())?;
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request).into())?;
    }
    Ok(())
}

/// Opens the other side of a terminal, as the file system shows it that the master was opened in (ioctl_tty(2),
/// `TIOCGPTPEER`): no path is resolved.
///
/// # Errors
/// As open(2); `EIO` while it is locked.
pub fn open_terminal(master: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the descriptor is open; no memory is passed.
    owned(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) }.into())
}

/// Sets the size of a terminal (ioctl_tty(2), `TIOCSWINSZ`).
///
/// # Errors
/// As ioctl(2).
pub fn resize_terminal(terminal: BorrowedFd<'_>, columns: u16, rows: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel reads the structure, which lives through the call.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }.into()).map(drop)
}

/// Makes a terminal the controlling one of the calling process's session (ioctl_tty(2), `TIOCSCTTY`). The process leads a
/// session that has none, and nobody's terminal is taken away.
///
/// # Errors
/// `EPERM` when the process leads no session, or the terminal is another's.
pub fn control_terminal(terminal: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the descriptor is open; no memory is passed.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) }.into()).map(drop)
}

/// A program's arguments and environment as execve(2) wants them, made before the process is: a child that shares our
/// memory must own nothing when it executes its program.
#[derive(Debug)]
pub struct Arguments {
    argv: Vec<*const libc::c_char>,
    envp: Vec<*const libc::c_char>,
    /// What the pointers point into; never touched again.
    _texts: Vec<CString>,
}

impl Arguments {
    /// Makes them of the arguments and the `NAME=value` pairs.
    pub fn new(argv: Vec<CString>, envp: Vec<CString>) -> Self {
        let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
            list.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
        };
        let (argv_pointers, envp_pointers) = (pointers(&argv), pointers(&envp));
        Self { argv: argv_pointers, envp: envp_pointers, _texts: argv.into_iter().chain(envp).collect() }
    }
}

/// Executes the program at a path in the place of this process (execve(2)). Returns only on failure.
pub fn exec_path(path: &CStr, arguments: &Arguments) -> io::Error {
    // SAFETY: both arrays end with null and point to strings that live as long as `arguments`; a CString's text stays
    // where it is when the CString moves.
    unsafe { libc::execve(path.as_ptr(), arguments.argv.as_ptr(), arguments.envp.as_ptr()) };
    io::Error::last_os_error()
}

/// Executes an open file in the place of this process (execveat(2), `AT_EMPTY_PATH`). Returns only on failure.
pub fn exec_file(file: BorrowedFd<'_>, arguments: &Arguments) -> io::Error {
    // SAFETY: as for `exec_path`.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            arguments.argv.as_ptr(),
            arguments.envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
    }
    io::Error::last_os_error()
}

/// Sets every signal back to its default action, since a program that ignores one hands that on through exec.
pub fn default_signals() {
    for signal in 1..=64 {
        // SAFETY: SIG_DFL needs no code of ours; signals that cannot be set (SIGKILL, SIGSTOP, those of the C library)
        // answer with an error that changes nothing.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// Takes the descriptor with this number, which the process was started with.
///
/// # Errors
/// `EBADF` when it is not open.
pub fn inherited_descriptor(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the descriptor is only asked for its flags.
    check(unsafe { libc::fcntl(fd, libc::F_GETFD) }.into())?;
    // SAFETY: it is open, and by agreement nobody else in this process owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What a user namespace gives on this kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserNamespace {
    /// Mounts, and a /proc of its own.
    Full,
    /// Mounts, but no new /proc, since part of the old one is covered (user_namespaces(7)).
    WithoutProc,
    /// Nothing.
    Refused,
}

/// Tries what a user namespace gives, in a child: some kernels make one and then refuse every mount in it (AppArmor).
pub fn try_user_namespace() -> UserNamespace {
    match fork_into(None, BirthPlace::Namespaces) {
        Ok(Forked::Child) => {
            let works = |kind| new_file_system(kind, &[], MountAttributes::READ_ONLY).is_ok();
            exit_now(match (works(c"tmpfs"), works(c"proc")) {
                (true, true) => 0,
                (true, false) => 1,
                (false, _) => 2,
            })
        }
        Ok(Forked::Parent(pid)) => match nix::sys::wait::waitpid(Pid::from_raw(pid), None) {
            Ok(nix::sys::wait::WaitStatus::Exited(_, 0)) => UserNamespace::Full,
            Ok(nix::sys::wait::WaitStatus::Exited(_, 1)) => UserNamespace::WithoutProc,
            _ => UserNamespace::Refused,
        },
        Err(_) => UserNamespace::Refused,
    }
}

/// Whether namespaces can be left again for those of now: not by the root of a user namespace that was made without a
/// mount namespace. Tried in a child, since one that cannot come back must not be us.
pub fn can_visit_namespaces() -> bool {
    let visit = || -> nix::Result<()> {
        let here = nix::fcntl::open("/proc/self/ns/mnt", OFlag::O_CLOEXEC, nix::sys::stat::Mode::empty())?;
        nix::sched::unshare(CloneFlags::CLONE_NEWNS)?;
        setns(here, CloneFlags::CLONE_NEWNS)
    };
    let proc =
        || new_file_system(c"proc", &[(c"hidepid", c"ptraceable")], MountAttributes::READ_ONLY).is_ok();
    match fork() {
        Ok(Forked::Child) => exit_now(i32::from(!(proc() && visit().is_ok()))),
        Ok(Forked::Parent(pid)) => matches!(
            nix::sys::wait::waitpid(Pid::from_raw(pid), None),
            Ok(nix::sys::wait::WaitStatus::Exited(_, 0))
        ),
        Err(_) => false,
    }
}

/// A file in memory whose content can no longer change (memfd_create(2), sealed).
///
/// # Errors
/// As memfd_create(2) and write(2).
pub fn sealed_memory(content: &[u8]) -> io::Result<OwnedFd> {
    use std::io::Write;
    // SAFETY: the name is a valid C string.
    let fd = owned(c_long::from(unsafe {
        libc::memfd_create(c"toka".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING)
    }))?;
    let mut file = std::fs::File::from(fd);
    file.write_all(content)?;
    let seals = libc::F_SEAL_WRITE | libc::F_SEAL_GROW | libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL;
    // SAFETY: the descriptor is open; no memory is passed.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) }.into())?;
    Ok(file.into())
}

/// How a process ended that was collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collected {
    /// With a status.
    Code(i32),
    /// By a signal, realtime ones among them, and whether it dumped core.
    Signal(i32, bool),
}

/// Whether to wait for a child to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Only what has ended.
    None,
    /// Until one has.
    Waits,
}

/// Collects a child that has ended (waitid(2)): its number and how it ended; `None` when none has.
///
/// # Errors
/// `ECHILD` when there are no children.
pub fn collect(patience: Patience) -> io::Result<Option<(i32, Collected)>> {
    let flags = libc::WEXITED | if patience == Patience::None { libc::WNOHANG } else { 0 };
    loop {
        // SAFETY: `siginfo_t` is plain data for which zero is valid, and lives through the call.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        let collected = check(unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, flags) }.into());
        match collected {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            outcome => drop(outcome?),
        }
        // SAFETY: after waitid(2) these fields are set; the number is 0 when nobody has ended.
        let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
        return Ok((pid != 0).then_some(match info.si_code {
            libc::CLD_KILLED => (pid, Collected::Signal(status, false)),
            libc::CLD_DUMPED => (pid, Collected::Signal(status, true)),
            _ => (pid, Collected::Code(status)),
        }));
    }
}

/// A descriptor of a process, which becomes readable when it has ended (pidfd_open(2)); its number may be somebody
/// else's by then, this is not.
///
/// # Errors
/// `ESRCH` when there is no such process.
pub fn open_process(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed. The kernel sets close-on-exec by itself.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

/// Sends a signal to the very process of [`open_process`] (pidfd_send_signal(2)).
///
/// # Errors
/// `ESRCH` when it has ended.
pub fn signal_process(process: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is open; without a siginfo the kernel reads no memory.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), signal, none, 0) })
        .map(drop)
}

/// What the kernel tells of a process by its descriptor: `struct pidfd_info` of linux/pidfd.h, as much of it as has its exit
/// status.
#[repr(C)]
#[derive(Default)]
struct ProcessInfo {
    mask: u64,
    group: u64,
    ids: [u32; 11],
    exit_code: i32,
}

/// `PIDFD_INFO_EXIT` (linux/pidfd.h): asks for the exit status, and says that it is there.
const EXIT_STATUS: u64 = 1 << 3;
/// `PIDFD_GET_INFO`: `_IOWR(0xFF, 11, struct pidfd_info)`.
const GET_INFO: libc::Ioctl = libc::_IOWR::<ProcessInfo>(0xFF, 11);

/// How the process of [`open_process`] has ended, whosever child it is; `None` before its parent, or whoever took that one's
/// place, has collected it.
///
/// # Errors
/// `ENOTTY`, `EINVAL` or `ESRCH` from a kernel before Linux 6.15, which does not tell.
pub fn exit_status(process: BorrowedFd<'_>) -> io::Result<Option<ExitStatus>> {
    let mut info = ProcessInfo { mask: EXIT_STATUS, ..ProcessInfo::default() };
    // SAFETY: the descriptor is open, and the kernel writes at most as many bytes as the number of the call says.
    check(unsafe { libc::ioctl(process.as_raw_fd(), GET_INFO, &raw mut info) }.into())?;
    Ok((info.mask & EXIT_STATUS != 0).then(|| ExitStatus::from_raw(info.exit_code)))
}

/// What one packet of a Unix socket brought.
#[derive(Debug)]
pub struct Received {
    /// How many bytes of the buffer it fills; 0 at the end.
    pub length: usize,
    /// The descriptors that came with it, as many as this process had room for.
    pub descriptors: Vec<OwnedFd>,
    /// Whether some were left out: there was no room in this process's table, or more than [`MAX_RECEIVED`].
    pub cut: bool,
}

/// Most descriptors that one packet brings.
pub const MAX_RECEIVED: usize = 16;

/// Receives one packet without waiting (recvmsg(2), unix(7)). Unlike a wrapper that fails as a whole when the table of
/// descriptors is full, this keeps, and so in the end closes, those that the kernel has already put there.
///
/// # Errors
/// As recvmsg(2): `EAGAIN` when there is none.
pub fn receive_packet(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    const SPACE: usize = 16 + MAX_RECEIVED * size_of::<RawFd>();
    #[repr(align(8))]
    struct Control([u8; SPACE]);
    let mut control = Control([0; SPACE]);
    let mut slice = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: `msghdr` is plain data for which zero is valid.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut slice;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = SPACE as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: header, slice, buffer and control memory live through the call, and their true sizes are given.
    let length = check(unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) } as c_long)?;
    let mut descriptors = Vec::new();
    // SAFETY: the header is as the kernel filled it. The macros walk within `msg_controllen`; of a message of rights the
    // data are descriptors that the kernel has just made for us, as many as its length says, and nobody else knows them.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(&raw const header);
        while let Some(found) = message.as_ref() {
            if (found.cmsg_level, found.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
                #[allow(clippy::unnecessary_cast, reason = "its type differs between C libraries")]
                let bytes = found.cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                let data = libc::CMSG_DATA(message).cast::<RawFd>();
                for at in 0..bytes / size_of::<RawFd>() {
                    descriptors.push(OwnedFd::from_raw_fd(data.add(at).read_unaligned()));
                }
            }
            message = libc::CMSG_NXTHDR(&raw const header, message);
        }
    }
    Ok(Received { length: length as usize, descriptors, cut: header.msg_flags & libc::MSG_CTRUNC != 0 })
}
