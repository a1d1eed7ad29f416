//! The one place of the attacker that is unsafe: raw system calls, so that nothing between it and the kernel declines
//! an attack first. Arguments are numbers and addresses of live buffers, as the kernel takes them.

#![expect(unsafe_code, reason = "an attacker calls the kernel with whatever arguments it likes")]

use std::ffi::CString;

use nix::errno::Errno;

/// A system call by its number.
pub(crate) fn call(number: libc::c_long, arguments: &[usize]) -> nix::Result<usize> {
    let mut six = [0; 6];
    six[..arguments.len()].copy_from_slice(arguments);
    // SAFETY: every caller passes numbers, or addresses of buffers that outlive the call and are as large as it needs.
    let result = unsafe { libc::syscall(number, six[0], six[1], six[2], six[3], six[4], six[5]) };
    Errno::result(result).map(|value| usize::try_from(value).unwrap_or_default())
}

/// An address as a system call takes it.
pub(crate) fn at<T>(buffer: &[T]) -> usize {
    buffer.as_ptr() as usize
}

/// The address of a buffer that the kernel writes to.
pub(crate) fn at_mut<T>(buffer: &mut [T]) -> usize {
    buffer.as_mut_ptr() as usize
}

/// A text that ends in a zero.
pub(crate) fn text(text: &str) -> CString {
    CString::new(text).expect("arguments of a process hold no zero")
}

/// Its address.
pub(crate) fn of(text: &CString) -> usize {
    text.as_ptr() as usize
}

/// What the child of [`in_child`] did.
pub(crate) enum Ended {
    /// It ended by itself.
    Exited,
    /// The kernel ended it.
    Killed(nix::sys::signal::Signal),
}

/// Runs `work` in a child and waits for it.
pub(crate) fn in_child(work: impl FnOnce()) -> nix::Result<Ended> {
    use nix::sys::wait::{WaitStatus, waitpid};
    // SAFETY: this process has one thread.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Child => {
            work();
            std::process::exit(0)
        }
        nix::unistd::ForkResult::Parent { child } => match waitpid(child, None)? {
            WaitStatus::Signaled(_, signal, _) => Ok(Ended::Killed(signal)),
            WaitStatus::Exited(..) => Ok(Ended::Exited),
            _ => Err(Errno::ECHILD),
        },
    }
}

/// Forks; the child goes on in `work` and never returns. Gives the child's pid.
pub(crate) fn fork_off(work: impl FnOnce()) -> nix::Result<i32> {
    // SAFETY: this process has one thread.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Child => {
            work();
            std::process::exit(0)
        }
        nix::unistd::ForkResult::Parent { child } => Ok(child.as_raw()),
    }
}

/// `clone` with these flags; the child ends at once.
pub(crate) fn clone(flags: i32) -> nix::Result<()> {
    let flags = usize::try_from(flags | libc::SIGCHLD).expect("flags are positive");
    let pid = call(libc::SYS_clone, &[flags, 0, 0, 0, 0])?;
    if pid == 0 {
        // SAFETY: ends this process, which is the new child.
        unsafe { libc::_exit(0) }
    }
    // SAFETY: a null status is allowed.
    unsafe { libc::waitpid(i32::try_from(pid).unwrap_or(-1), std::ptr::null_mut(), libc::__WALL) };
    Ok(())
}

/// A system call by the door of 32-bit programs, which has numbers of its own.
#[cfg(target_arch = "x86_64")]
pub(crate) fn call_ia32(number: u32, arguments: [u32; 3]) -> nix::Result<usize> {
    let mut result: u32 = number;
    // SAFETY: rbx is the compiler's, so it is put back; the call touches no memory.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {first:r}",
            "int 0x80",
            "xchg rbx, {first:r}",
            first = inout(reg) u64::from(arguments[0]) => _,
            inout("eax") result,
            in("ecx") arguments[1],
            in("edx") arguments[2],
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    let signed = result.cast_signed();
    if (-4095..0).contains(&signed) { Err(Errno::from_raw(-signed)) } else { Ok(result as usize) }
}

/// `length` bytes of anonymous memory, every page of it written. Never given back.
pub(crate) fn fill_memory(length: usize) -> nix::Result<()> {
    // SAFETY: a private anonymous mapping at an address of the kernel's choice.
    let start = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(Errno::last());
    }
    // SAFETY: the mapping is `length` bytes long and ours alone.
    unsafe { std::ptr::write_bytes(start.cast::<u8>(), 1, length) };
    Ok(())
}
