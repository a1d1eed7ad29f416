//! The system call filter: a list of what is denied, each with its reason, compiled to one BPF program.
//!
//! It denies rather than allows, since agents run ordinary programs; what it denies is the administration of the kernel,
//! interfaces with a history of holes, and ways around the other layers. Everything else is decided by the kernel's
//! constant-action cache without running the program at all (Linux 5.11), so ordinary calls cost nothing.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use toka_core::NetworkAccess;

use crate::sys::Instruction;

/// Calls that are denied whatever their arguments, and why.
const DENIED: &[(&str, libc::c_long)] = &[
    // Mounts would undo the view of the file system.
    ("mounts", libc::SYS_mount),
    ("mounts", libc::SYS_umount2),
    ("mounts", libc::SYS_pivot_root),
    ("mounts", libc::SYS_chroot),
    ("mounts", libc::SYS_open_tree),
    ("mounts", libc::SYS_move_mount),
    ("mounts", libc::SYS_fsopen),
    ("mounts", libc::SYS_fsconfig),
    ("mounts", libc::SYS_fsmount),
    ("mounts", libc::SYS_fspick),
    ("mounts", libc::SYS_mount_setattr),
    ("swap", libc::SYS_swapon),
    ("swap", libc::SYS_swapoff),
    // Another namespace is another set of rules, and a user namespace gives capabilities in it.
    ("namespaces", libc::SYS_setns),
    // Programs inside the kernel, and large attack surfaces with a history.
    ("kernel programs", libc::SYS_bpf),
    ("kernel programs", libc::SYS_perf_event_open),
    ("io_uring goes around this filter", libc::SYS_io_uring_setup),
    ("io_uring goes around this filter", libc::SYS_io_uring_enter),
    ("io_uring goes around this filter", libc::SYS_io_uring_register),
    ("stops the kernel inside a page fault", libc::SYS_userfaultfd),
    ("kernel images", libc::SYS_kexec_load),
    ("kernel images", libc::SYS_kexec_file_load),
    ("kernel modules", libc::SYS_init_module),
    ("kernel modules", libc::SYS_finit_module),
    ("kernel modules", libc::SYS_delete_module),
    // Keys of the user, shared beyond file permissions.
    ("keys", libc::SYS_keyctl),
    ("keys", libc::SYS_add_key),
    ("keys", libc::SYS_request_key),
    // The machine's own settings.
    ("machine", libc::SYS_reboot),
    ("machine", libc::SYS_settimeofday),
    ("machine", libc::SYS_clock_settime),
    ("machine", libc::SYS_clock_adjtime),
    ("machine", libc::SYS_adjtimex),
    ("machine", libc::SYS_sethostname),
    ("machine", libc::SYS_setdomainname),
    ("machine", libc::SYS_acct),
    ("machine", libc::SYS_quotactl),
    ("machine", libc::SYS_quotactl_fd),
    ("machine", libc::SYS_syslog),
    ("machine", libc::SYS_vhangup),
    // Around path rules: files by handle, other processes' files and memory.
    ("files by handle", libc::SYS_open_by_handle_at),
    ("files by handle", libc::SYS_name_to_handle_at),
    ("other processes", libc::SYS_pidfd_getfd),
    ("other processes", libc::SYS_process_vm_readv),
    ("other processes", libc::SYS_process_vm_writev),
    ("other processes", libc::SYS_kcmp),
    ("other processes", libc::SYS_process_madvise),
    ("watches beyond path rules", libc::SYS_fanotify_init),
    ("watches beyond path rules", libc::SYS_fanotify_mark),
    ("memory placement of others", libc::SYS_move_pages),
    ("memory placement of others", libc::SYS_migrate_pages),
    ("leaks addresses", libc::SYS_lookup_dcookie),
    ("unused", libc::SYS_nfsservctl),
];

/// Calls of x86-64 alone.
#[cfg(target_arch = "x86_64")]
const DENIED_HERE: &[(&str, libc::c_long)] = &[
    ("ports of the hardware", libc::SYS_iopl),
    ("ports of the hardware", libc::SYS_ioperm),
    ("segments of the processor", libc::SYS_modify_ldt),
    ("unused", libc::SYS_uselib),
    ("unused", libc::SYS_ustat),
    ("unused", libc::SYS__sysctl),
    ("unused", libc::SYS_sysfs),
];
#[cfg(not(target_arch = "x86_64"))]
const DENIED_HERE: &[(&str, libc::c_long)] = &[];

/// Flags of clone(2) and unshare(2) that make namespaces.
const NAMESPACES: [u64; 8] = [
    libc::CLONE_NEWNS as u64,
    libc::CLONE_NEWUSER as u64,
    libc::CLONE_NEWPID as u64,
    libc::CLONE_NEWNET as u64,
    libc::CLONE_NEWIPC as u64,
    libc::CLONE_NEWUTS as u64,
    libc::CLONE_NEWCGROUP as u64,
    0x80, // CLONE_NEWTIME, which libc lacks
];

/// ioctl(2) requests that put words into a terminal's input (ioctl_tty(2), ioctl_console(2)).
const TERMINAL_INJECTION: [u64; 2] = [libc::TIOCSTI, libc::TIOCLINUX];

/// What follows from the network rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Sockets {
    /// Unix sockets only.
    UnixOnly,
    /// Unix, IPv4, IPv6, and netlink, which the resolver needs.
    Internet,
}

impl From<&NetworkAccess> for Sockets {
    fn from(access: &NetworkAccess) -> Self {
        match access {
            NetworkAccess::None => Self::UnixOnly,
            NetworkAccess::Loopback | NetworkAccess::Allow(_) | NetworkAccess::Full => Self::Internet,
        }
    }
}

/// Compiles the program.
///
/// # Errors
/// When this processor is none that seccompiler knows, in its words.
pub(crate) fn compile(sockets: Sockets) -> Result<Vec<Instruction>, String> {
    let mut rules: BTreeMap<libc::c_long, Vec<SeccompRule>> =
        DENIED.iter().chain(DENIED_HERE).map(|(_, call)| (*call, Vec::new())).collect();
    let masked = |argument: u8, flag: u64| {
        condition(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(flag), flag)
    };
    for call in [libc::SYS_clone, libc::SYS_unshare] {
        let denied = NAMESPACES.iter().map(|flag| rule(vec![masked(0, *flag)?])).collect::<Result<_, _>>()?;
        rules.insert(call, denied);
    }
    let injections = TERMINAL_INJECTION
        .iter()
        .map(|request| rule(vec![condition(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, *request)?]))
        .collect::<Result<_, _>>()?;
    rules.insert(libc::SYS_ioctl, injections);
    for call in [libc::SYS_socket, libc::SYS_socketpair] {
        rules.insert(call, vec![foreign_family(sockets)?]);
    }
    let arch =
        std::env::consts::ARCH.try_into().map_err(|error: seccompiler::BackendError| error.to_string())?;
    let filter =
        SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(libc::EPERM as u32), arch)
            .map_err(|error| error.to_string())?;
    let program: BpfProgram =
        filter.try_into().map_err(|error: seccompiler::BackendError| error.to_string())?;
    let body = program.iter().map(|i| Instruction { code: i.code, jt: i.jt, jf: i.jf, k: i.k });
    Ok(prologue().into_iter().chain(body).collect())
}

/// One rule against every family that is not allowed.
fn foreign_family(sockets: Sockets) -> Result<SeccompRule, String> {
    let allowed: &[libc::c_int] = match sockets {
        Sockets::UnixOnly => &[libc::AF_UNIX],
        Sockets::Internet => &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK],
    };
    let conditions = allowed
        .iter()
        .map(|family| condition(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, *family as u64))
        .collect::<Result<_, _>>()?;
    rule(conditions)
}

/// What seccompiler cannot say, before its program: the x32 calls of x86-64, which have numbers of their own and would
/// slip past every rule, and clone3(2), whose flags lie in memory where a filter cannot look. Both answer ENOSYS, so
/// that the C library falls back to clone(2).
fn prologue() -> Vec<Instruction> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_GE: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
    const JUMP_EQ: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    const X32_BIT: u32 = 0x4000_0000;
    let step = |code, jt, jf, k| Instruction { code, jt, jf, k };
    vec![
        step(LOAD, 0, 0, 0), // seccomp_data.nr
        step(JUMP_GE, 1, 0, X32_BIT),
        step(JUMP_EQ, 0, 1, libc::SYS_clone3 as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
    ]
}

fn rule(conditions: Vec<SeccompCondition>) -> Result<SeccompRule, String> {
    SeccompRule::new(conditions).map_err(|error| error.to_string())
}

fn condition(
    argument: u8,
    length: SeccompCmpArgLen,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, String> {
    SeccompCondition::new(argument, length, operator, value).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reach_compiles_and_fits() {
        for sockets in [Sockets::UnixOnly, Sockets::Internet] {
            let program = compile(sockets).expect("a known processor");
            assert!(program.len() > 100 && program.len() < 4096, "{}", program.len());
        }
    }

    #[test]
    fn no_call_is_listed_twice() {
        let mut calls: Vec<_> = DENIED.iter().chain(DENIED_HERE).map(|(_, call)| call).collect();
        let count = calls.len();
        calls.sort_unstable();
        calls.dedup();
        assert_eq!(calls.len(), count);
    }
}
