//! The system call filter: a list of what is denied, each with its reason, compiled to one BPF program.
//!
//! It denies rather than allows, since agents run ordinary programs; what it denies is the administration of the kernel,
//! interfaces with a history of holes, and ways around the other layers. Everything else is decided by the kernel's
//! constant-action cache without running the program at all (Linux 5.11), so ordinary calls cost nothing.

use std::collections::BTreeMap;
use std::mem::offset_of;

use toka_core::NetworkAccess;

use crate::plan::SandboxPlan;
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
    ("mounts", OPEN_TREE_ATTR),
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

/// open_tree_attr(2), Linux 6.15; libc lacks it. New calls have one number on all processors.
const OPEN_TREE_ATTR: libc::c_long = 467;

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
const NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP
    | CLONE_NEWTIME) as u32;
/// Of linux/sched.h; libc lacks it. As a flag of clone(2) it is part of the exit signal, and no signal has that number.
const CLONE_NEWTIME: libc::c_int = 0x80;

/// ioctl(2) requests that put words into a terminal's input (ioctl_tty(2), ioctl_console(2)).
const TERMINAL_INJECTION: [u32; 2] = [libc::TIOCSTI as u32, libc::TIOCLINUX as u32];

/// A lease on a file holds up whoever opens it, for up to 45 s (fcntl(2), "Leases").
const F_SETLEASE: u32 = 1024;

/// Set-user-id and set-group-id bits: they do nothing inside, and outside give the agent's user to anybody. openat2(2),
/// whose mode lies in memory, is absent for their sake.
const SET_ID_BITS: u32 = libc::S_ISUID | libc::S_ISGID;
/// Without one of these, open(2) takes no mode, and what lies in its place means nothing.
const CREATES: u32 = (libc::O_CREAT | (libc::O_TMPFILE & !libc::O_DIRECTORY)) as u32;
const SET_ID: &[(libc::c_long, &[(u32, u32)])] = &[
    (libc::SYS_fchmod, &[(1, SET_ID_BITS)]),
    (libc::SYS_fchmodat, &[(2, SET_ID_BITS)]),
    (FCHMODAT2, &[(2, SET_ID_BITS)]),
    (libc::SYS_mknodat, &[(2, SET_ID_BITS)]),
    (libc::SYS_openat, &[(2, CREATES), (3, SET_ID_BITS)]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_chmod, &[(1, SET_ID_BITS)]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mknod, &[(1, SET_ID_BITS)]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, &[(1, CREATES), (2, SET_ID_BITS)]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_creat, &[(1, SET_ID_BITS)]),
];
/// fchmodat2(2), Linux 6.6; libc lacks it on some targets.
const FCHMODAT2: libc::c_long = 452;

/// What follows from the network rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Sockets {
    /// Unix sockets only.
    UnixOnly,
    /// Unix, IPv4, IPv6, and netlink, which the resolver needs.
    Internet,
    /// Unix; TCP over IPv4, to connect with; and the part of netlink that lists interfaces. Landlock decides about ports of TCP and about
    /// nothing else, and not about whoever listens without having a port, nor about data sent with the first packet (landlock(7), tcp(7)).
    TcpToConnect,
}

impl Sockets {
    /// All there are.
    pub(crate) const ALL: [Self; 3] = [Self::UnixOnly, Self::Internet, Self::TcpToConnect];

    /// What a plan needs.
    pub(crate) fn of(plan: &SandboxPlan) -> Self {
        match plan.network {
            NetworkAccess::None => Self::UnixOnly,
            _ if plan.port_alone && plan.listen.is_none() => Self::UnixOnly,
            _ if plan.port_alone => Self::TcpToConnect,
            NetworkAccess::Loopback
            | NetworkAccess::Project
            | NetworkAccess::Allow(_)
            | NetworkAccess::Full => Self::Internet,
        }
    }

    fn families(self) -> Vec<u32> {
        let families: &[libc::c_int] = match self {
            Self::UnixOnly => &[libc::AF_UNIX],
            Self::Internet => &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK],
            Self::TcpToConnect => &[libc::AF_UNIX, libc::AF_INET, libc::AF_NETLINK],
        };
        families.iter().map(|family| *family as u32).collect()
    }
}

/// Whether processes outside the agent have numbers that it can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Others {
    /// No: it has a process namespace of its own.
    Nameless,
    /// Yes, and those of the same user let it change their limits and priorities (`prlimit(2)`, "PERMISSIONS").
    Nameable,
}

/// Calls that change the limits, the priority or the processors of the process named by an argument. A thread that
/// names another one of its own program by number is refused too: nothing tells it from a stranger here.
const OF_OTHERS: &[(libc::c_long, u32)] = &[
    (libc::SYS_prlimit64, 0),
    (libc::SYS_sched_setaffinity, 0),
    (libc::SYS_sched_setscheduler, 0),
    (libc::SYS_sched_setparam, 0),
    (libc::SYS_sched_setattr, 0),
];

/// ioprio_set(2); libc lacks it.
const IOPRIO_WHO_PROCESS: u32 = 1;

/// What is done about one call.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// `EPERM`.
    Deny,
    /// `ENOSYS`, so that the C library falls back to an older call whose flags a filter can see.
    Absent,
    /// `EPERM` when of each of these arguments any of the bits is set.
    DenyBits(Vec<(u32, u32)>),
    /// `EPERM` when the argument is one of these.
    DenyValues { argument: u32, values: Vec<u32> },
    /// `EPERM` unless every one of these arguments has its value.
    AllowAll(Vec<(u32, u32)>),
    /// `EPERM` when the argument is none of these.
    AllowValues { argument: u32, values: Vec<u32> },
    /// `EAFNOSUPPORT` when the first argument is none of these address families: what a kernel without a family answers, so
    /// that programs know what to make of it (socket(2)).
    AllowFamilies(Vec<u32>),
    /// The same with what each family may be: the second argument within these bits, and the third one of these values. `EPROTONOSUPPORT`
    /// for a protocol of a family that may be (socket(2)).
    AllowSockets(Vec<SocketRule>),
}

/// Sockets that may be made.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SocketRule {
    family: u32,
    /// Of [`TYPE_OF_SOCKET`]; `None` for every type and protocol.
    only: Option<(u32, Vec<u32>)>,
}

/// An option of TCP (linux/tcp.h) that makes a socket of another kind of it, such as SMC, which Landlock does not know.
const TCP_ULP: u32 = 31;

/// The bits of socket(2)'s second argument that are a type; others are flags.
const TYPE_OF_SOCKET: u32 = 0xf;

/// The verdict on every call that is not simply allowed.
fn verdicts(sockets: Sockets, others: Others) -> BTreeMap<u32, Verdict> {
    let mut verdicts: BTreeMap<u32, Verdict> =
        DENIED.iter().chain(DENIED_HERE).map(|(_, call)| (*call as u32, Verdict::Deny)).collect();
    verdicts.insert(libc::SYS_clone3 as u32, Verdict::Absent);
    for call in [libc::SYS_clone, libc::SYS_unshare] {
        verdicts.insert(call as u32, Verdict::DenyBits(vec![(0, NAMESPACES)]));
    }
    for (call, conditions) in SET_ID {
        verdicts.insert(*call as u32, Verdict::DenyBits(conditions.to_vec()));
    }
    verdicts.insert(libc::SYS_openat2 as u32, Verdict::Absent);
    let lease = Verdict::DenyValues { argument: 1, values: vec![F_SETLEASE] };
    verdicts.insert(libc::SYS_fcntl as u32, lease);
    let injection = Verdict::DenyValues { argument: 1, values: TERMINAL_INJECTION.to_vec() };
    verdicts.insert(libc::SYS_ioctl as u32, injection);
    for call in [libc::SYS_socket, libc::SYS_socketpair] {
        verdicts.insert(call as u32, Verdict::AllowFamilies(sockets.families()));
    }
    if sockets == Sockets::TcpToConnect {
        let rule = |family: libc::c_int, only| SocketRule { family: family as u32, only };
        let tcp = (libc::SOCK_STREAM as u32, vec![0, libc::IPPROTO_TCP as u32]);
        let routes = (libc::SOCK_RAW as u32, vec![libc::NETLINK_ROUTE as u32]);
        let rules = vec![
            rule(libc::AF_UNIX, None),
            rule(libc::AF_INET, Some(tcp)),
            rule(libc::AF_NETLINK, Some(routes)),
        ];
        verdicts.insert(libc::SYS_socket as u32, Verdict::AllowSockets(rules));
        // Nor does it take connections at a socket that somebody has sent it.
        for call in [libc::SYS_listen, libc::SYS_accept, libc::SYS_accept4] {
            verdicts.insert(call as u32, Verdict::Deny);
        }
        let protocol_above = Verdict::DenyValues { argument: 2, values: vec![TCP_ULP] };
        verdicts.insert(libc::SYS_setsockopt as u32, protocol_above);
        for (call, argument) in [(libc::SYS_sendto, 3), (libc::SYS_sendmsg, 2), (libc::SYS_sendmmsg, 3)] {
            let fast_open = vec![(argument, libc::MSG_FASTOPEN as u32)];
            verdicts.insert(call as u32, Verdict::DenyBits(fast_open));
        }
    }
    if others == Others::Nameable {
        // The kind of target first: a process (0 for priorities, 1 for I/O), then that it is the caller itself.
        let own = |kind| Verdict::AllowAll(vec![(0, kind), (1, 0)]);
        verdicts.insert(libc::SYS_setpriority as u32, own(libc::PRIO_PROCESS));
        verdicts.insert(libc::SYS_ioprio_set as u32, own(IOPRIO_WHO_PROCESS));
        for (call, argument) in OF_OTHERS {
            verdicts.insert(*call as u32, Verdict::AllowValues { argument: *argument, values: vec![0] });
        }
    }
    verdicts
}

/// Compiles the program for this processor.
///
/// The numbers are searched by halves: when a filter is installed, the kernel walks it once for every call there is, to
/// learn which are always allowed, so that a chain of comparisons costs tens of microseconds at every start.
///
/// # Errors
/// When this processor is none that the filter is written for.
pub(crate) fn compile(sockets: Sockets, others: Others) -> Result<Vec<Instruction>, String> {
    let arch = audit_arch().ok_or_else(|| format!("no filter for {}", std::env::consts::ARCH))?;
    let verdicts = verdicts(sockets, others);
    let segments = segments(&verdicts);
    let mut program = vec![
        load(offset_of!(libc::seccomp_data, arch)),
        jump(libc::BPF_JEQ, arch, 1, 0),
        // The 32-bit calls of the same processor: other numbers, which no rule here speaks of.
        end(libc::SECCOMP_RET_KILL_PROCESS),
        load(offset_of!(libc::seccomp_data, nr)),
        // The x32 calls of x86-64 have numbers of their own, and would slip past every rule.
        jump(libc::BPF_JGE, X32_BIT, 0, 1),
        end(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
    ];
    program.extend(search(&segments));
    Ok(program)
}

/// The numbers from one on to the next segment's, all with one verdict; `None` allows.
type Segment<'v> = (u32, Option<&'v Verdict>);

/// Cuts the line of all numbers into segments: calls that belong together mostly have numbers that do.
fn segments(verdicts: &BTreeMap<u32, Verdict>) -> Vec<Segment<'_>> {
    let mut segments: Vec<Segment<'_>> = vec![(0, None)];
    for (call, verdict) in verdicts {
        match segments.last() {
            // What was allowed from here on is not.
            Some((start, None)) if start == call => drop(segments.pop()),
            _ => {}
        }
        if segments.last().is_none_or(|(_, last)| *last != Some(verdict)) {
            segments.push((*call, Some(verdict)));
        }
        segments.push((call + 1, None));
    }
    segments
}

/// The search for the segment that a call's number lies in, and what follows.
fn search(segments: &[Segment<'_>]) -> Vec<Instruction> {
    match segments {
        [] | [(_, None)] => vec![end(libc::SECCOMP_RET_ALLOW)],
        [(_, Some(verdict))] => judge(verdict),
        _ => {
            let (low, high) = segments.split_at(segments.len() / 2);
            let low_half = search(low);
            let mut program = match u8::try_from(low_half.len()) {
                Ok(distance) => vec![jump(libc::BPF_JGE, high[0].0, distance, 0)],
                // A conditional jump reaches 255 instructions; a plain one any number.
                Err(_) => vec![
                    jump(libc::BPF_JGE, high[0].0, 0, 1),
                    Instruction { code: JUMP_ALWAYS, jt: 0, jf: 0, k: low_half.len() as u32 },
                ],
            };
            program.extend(low_half);
            program.extend(search(high));
            program
        }
    }
}

/// What happens to a call once its number is known.
fn judge(verdict: &Verdict) -> Vec<Instruction> {
    let deny = end(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
    let allow = end(libc::SECCOMP_RET_ALLOW);
    let compare = |argument: u32, values: &[u32], found: Instruction, otherwise: Instruction| {
        let mut program = vec![load(argument_offset(argument))];
        for (at, value) in values.iter().enumerate() {
            // Behind the remaining comparisons and the answer for none of them.
            program.push(jump(libc::BPF_JEQ, *value, (values.len() - at) as u8, 0));
        }
        program.extend([otherwise, found]);
        program
    };
    match verdict {
        Verdict::Deny => vec![deny],
        Verdict::Absent => vec![end(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32)],
        Verdict::DenyBits(all) => {
            let tests = all.iter().flat_map(|(argument, bits)| {
                [load(argument_offset(*argument)), jump(libc::BPF_JSET, *bits, 1, 0), allow]
            });
            tests.chain([deny]).collect()
        }
        Verdict::AllowAll(all) => {
            let tests = all.iter().flat_map(|(argument, value)| {
                [load(argument_offset(*argument)), jump(libc::BPF_JEQ, *value, 1, 0), deny]
            });
            tests.chain([allow]).collect()
        }
        Verdict::DenyValues { argument, values } => compare(*argument, values, deny, allow),
        Verdict::AllowValues { argument, values } => compare(*argument, values, allow, deny),
        Verdict::AllowFamilies(families) => {
            let unsupported = end(libc::SECCOMP_RET_ERRNO | libc::EAFNOSUPPORT as u32);
            compare(0, families, allow, unsupported)
        }
        Verdict::AllowSockets(rules) => {
            let mut program = Vec::new();
            for SocketRule { family, only } in rules {
                let matched = match only {
                    None => vec![allow],
                    Some((kind, protocols)) => {
                        let unsupported = end(libc::SECCOMP_RET_ERRNO | libc::EPROTONOSUPPORT as u32);
                        let mask = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
                        let mut matched = vec![
                            load(argument_offset(1)),
                            Instruction { code: mask, jt: 0, jf: 0, k: TYPE_OF_SOCKET },
                            jump(libc::BPF_JEQ, *kind, 1, 0),
                            unsupported,
                        ];
                        matched.extend(compare(2, protocols, allow, unsupported));
                        matched
                    }
                };
                program.push(load(argument_offset(0)));
                program.push(jump(libc::BPF_JEQ, *family, 0, matched.len() as u8));
                program.extend(matched);
            }
            program.push(end(libc::SECCOMP_RET_ERRNO | libc::EAFNOSUPPORT as u32));
            program
        }
    }
}

const JUMP_ALWAYS: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const X32_BIT: u32 = 0x4000_0000;

/// `AUDIT_ARCH_*` of linux/audit.h.
fn audit_arch() -> Option<u32> {
    match std::env::consts::ARCH {
        "x86_64" => Some(0xc000_003e),
        "aarch64" => Some(0xc000_00b7),
        "riscv64" => Some(0xc000_00f3),
        _ => None,
    }
}

/// Where the low half of an argument lies; all of these processors are little-endian. The high half of a flag or a
/// number is ignored by the calls that are judged.
fn argument_offset(argument: u32) -> usize {
    offset_of!(libc::seccomp_data, args) + 8 * argument as usize
}

fn load(offset: usize) -> Instruction {
    Instruction { code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, jt: 0, jf: 0, k: offset as u32 }
}

fn jump(test: u32, value: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code: (libc::BPF_JMP | test | libc::BPF_K) as u16, jt, jf, k: value }
}

fn end(answer: u32) -> Instruction {
    Instruction { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: answer }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the kernel would do: an interpreter of the few instructions that are used.
    fn run(program: &[Instruction], arch: u32, nr: u32, args: [u64; 6]) -> u32 {
        let word = |offset: u32| match offset {
            0 => nr,
            4 => arch,
            _ => (args[(offset as usize - 16) / 8] >> (8 * ((offset as usize - 16) % 8))) as u32,
        };
        let (mut at, mut a) = (0, 0u32);
        loop {
            let Instruction { code, jt, jf, k } = program[at];
            at += 1;
            let taken = match u32::from(code) {
                c if c == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS => {
                    a = word(k);
                    continue;
                }
                c if c == libc::BPF_RET => return k,
                c if c == libc::BPF_ALU | libc::BPF_AND | libc::BPF_K => {
                    a &= k;
                    continue;
                }
                c if c == libc::BPF_JMP | libc::BPF_JA => {
                    at += k as usize;
                    continue;
                }
                c if c == libc::BPF_JMP | libc::BPF_JEQ => a == k,
                c if c == libc::BPF_JMP | libc::BPF_JGE => a >= k,
                c if c == libc::BPF_JMP | libc::BPF_JSET => a & k != 0,
                other => panic!("instruction {other:#x}"),
            };
            at += usize::from(if taken { jt } else { jf });
        }
    }

    const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    const UNSUPPORTED: u32 = libc::SECCOMP_RET_ERRNO | libc::EAFNOSUPPORT as u32;
    const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

    fn answer(sockets: Sockets, call: libc::c_long, args: [u64; 6]) -> u32 {
        let program = compile(sockets, Others::Nameable).expect("a known processor");
        run(&program, audit_arch().expect("a known processor"), call as u32, args)
    }

    #[test]
    fn calls_get_their_verdicts() {
        let none = [0; 6];
        let flags = |flags: u64| [flags, 0, 0, 0, 0, 0];
        for sockets in Sockets::ALL {
            for (_, call) in DENIED.iter().chain(DENIED_HERE) {
                assert_eq!(answer(sockets, *call, none), EPERM, "{call}");
            }
            for call in [libc::SYS_read, libc::SYS_execve, libc::SYS_statx, libc::SYS_futex] {
                assert_eq!(answer(sockets, call, [u64::MAX; 6]), libc::SECCOMP_RET_ALLOW);
            }
            assert_eq!(answer(sockets, libc::SYS_clone3, none), ENOSYS);
            assert_eq!(answer(sockets, libc::SYS_clone, flags(17)), libc::SECCOMP_RET_ALLOW);
            assert_eq!(answer(sockets, libc::SYS_clone, flags(17 | libc::CLONE_NEWUSER as u64)), EPERM);
            assert_eq!(answer(sockets, libc::SYS_unshare, flags(0x80)), EPERM);
            assert_eq!(
                answer(sockets, libc::SYS_unshare, flags(libc::CLONE_FILES as u64)),
                libc::SECCOMP_RET_ALLOW
            );
            assert_eq!(answer(sockets, libc::SYS_ioctl, [0, libc::TIOCSTI, 0, 0, 0, 0]), EPERM);
            // The kernel looks at the low half of a request alone.
            assert_eq!(answer(sockets, libc::SYS_ioctl, [0, libc::TIOCSTI | 1 << 32, 0, 0, 0, 0]), EPERM);
            assert_eq!(
                answer(sockets, libc::SYS_ioctl, [0, libc::TCGETS, 0, 0, 0, 0]),
                libc::SECCOMP_RET_ALLOW
            );
            assert_eq!(
                answer(sockets, libc::SYS_socket, flags(libc::AF_UNIX as u64)),
                libc::SECCOMP_RET_ALLOW
            );
            assert_eq!(answer(sockets, libc::SYS_socket, flags(libc::AF_PACKET as u64)), UNSUPPORTED);
        }
        let inet = flags(libc::AF_INET as u64);
        assert_eq!(answer(Sockets::UnixOnly, libc::SYS_socket, inet), UNSUPPORTED);
        assert_eq!(answer(Sockets::Internet, libc::SYS_socket, inet), libc::SECCOMP_RET_ALLOW);
    }

    #[test]
    fn who_may_connect_alone_has_no_other_way_out() {
        use libc::{AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_UNIX, SOCK_DGRAM, SOCK_RAW, SOCK_STREAM};
        const MPTCP: libc::c_int = 262;
        const NO_PROTOCOL: u32 = libc::SECCOMP_RET_ERRNO | libc::EPROTONOSUPPORT as u32;
        let allow = libc::SECCOMP_RET_ALLOW;
        for (family, kind, protocol, expected) in [
            (AF_UNIX, SOCK_DGRAM, 0, allow),
            (AF_INET, SOCK_STREAM, 0, allow),
            (AF_INET, SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 6, allow),
            (AF_INET, SOCK_STREAM, MPTCP, NO_PROTOCOL),
            (AF_INET, SOCK_STREAM, libc::IPPROTO_SCTP, NO_PROTOCOL),
            (AF_INET, SOCK_DGRAM, 0, NO_PROTOCOL),
            (AF_INET, SOCK_DGRAM, libc::IPPROTO_ICMP, NO_PROTOCOL),
            (AF_INET, SOCK_RAW, 0, NO_PROTOCOL),
            (AF_INET6, SOCK_STREAM, 0, UNSUPPORTED),
            (AF_NETLINK, SOCK_RAW, 0, allow),
            (AF_NETLINK, SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_SOCK_DIAG, NO_PROTOCOL),
            (AF_PACKET, SOCK_RAW, 0, UNSUPPORTED),
        ] {
            let args = [family as u64, kind as u64, protocol as u64, 0, 0, 0];
            let found = answer(Sockets::TcpToConnect, libc::SYS_socket, args);
            assert_eq!(found, expected, "{family} {kind} {protocol}: {found:#x}");
        }
        assert_eq!(answer(Sockets::TcpToConnect, libc::SYS_listen, [3, 1, 0, 0, 0, 0]), EPERM);
        assert_eq!(answer(Sockets::Internet, libc::SYS_listen, [3, 1, 0, 0, 0, 0]), allow);
        assert_eq!(answer(Sockets::TcpToConnect, libc::SYS_accept4, [3, 0, 0, 0, 0, 0]), EPERM);
        let option = |option: u64| [3, libc::IPPROTO_TCP as u64, option, 0, 0, 0];
        assert_eq!(answer(Sockets::TcpToConnect, libc::SYS_setsockopt, option(31)), EPERM);
        assert_eq!(answer(Sockets::TcpToConnect, libc::SYS_setsockopt, option(1)), allow);
        let fast = libc::MSG_FASTOPEN as u64 | libc::MSG_NOSIGNAL as u64;
        for (flags, expected) in [(fast, EPERM), (libc::MSG_NOSIGNAL as u64, allow)] {
            assert_eq!(answer(Sockets::TcpToConnect, libc::SYS_sendto, [3, 0, 0, flags, 0, 0]), expected);
            assert_eq!(answer(Sockets::TcpToConnect, libc::SYS_sendmsg, [3, 0, flags, 0, 0, 0]), expected);
        }
    }

    #[test]
    fn nobody_makes_a_set_user_id_file() {
        let create = libc::O_CREAT as u64;
        for (mode, expected) in [(0o755, libc::SECCOMP_RET_ALLOW), (0o4755, EPERM), (0o2755, EPERM)] {
            assert_eq!(answer(Sockets::UnixOnly, libc::SYS_fchmod, [3, mode, 0, 0, 0, 0]), expected);
            assert_eq!(answer(Sockets::UnixOnly, libc::SYS_openat, [3, 0, create, mode, 0, 0]), expected);
            assert_eq!(
                answer(Sockets::UnixOnly, libc::SYS_openat, [3, 0, 0, mode, 0, 0]),
                libc::SECCOMP_RET_ALLOW,
                "without O_CREAT the mode is whatever lay there"
            );
        }
        assert_eq!(answer(Sockets::UnixOnly, libc::SYS_fcntl, [3, 1024, 0, 0, 0, 0]), EPERM);
        assert_eq!(answer(Sockets::UnixOnly, libc::SYS_fcntl, [3, 2, 0, 0, 0, 0]), libc::SECCOMP_RET_ALLOW);
    }

    #[test]
    fn limits_and_priorities_of_others_are_out_of_reach_where_they_have_names() {
        let here = audit_arch().expect("a known processor");
        for (call, argument) in OF_OTHERS {
            let mut args = [0u64; 6];
            for (pid, nameable) in [(0, libc::SECCOMP_RET_ALLOW), (77, EPERM)] {
                args[*argument as usize] = pid;
                let run_with = |others| {
                    run(
                        &compile(Sockets::UnixOnly, others).expect("a known processor"),
                        here,
                        *call as u32,
                        args,
                    )
                };
                assert_eq!(run_with(Others::Nameable), nameable);
                assert_eq!(run_with(Others::Nameless), libc::SECCOMP_RET_ALLOW);
            }
        }
        for (args, expected) in [([0, 0], libc::SECCOMP_RET_ALLOW), ([0, 77], EPERM), ([2, 0], EPERM)] {
            let args = [args[0], args[1], 5, 0, 0, 0];
            assert_eq!(answer(Sockets::UnixOnly, libc::SYS_setpriority, args), expected);
        }
    }

    #[test]
    fn foreign_numbers_do_not_slip_past() {
        let program = compile(Sockets::Internet, Others::Nameless).expect("a known processor");
        let here = audit_arch().expect("a known processor");
        let x32 = X32_BIT | libc::SYS_mount as u32;
        assert_eq!(run(&program, here, x32, [0; 6]), ENOSYS);
        assert_eq!(run(&program, 0x4000_0003, libc::SYS_read as u32, [0; 6]), libc::SECCOMP_RET_KILL_PROCESS);
    }

    #[test]
    fn the_program_is_short() {
        let program = compile(Sockets::UnixOnly, Others::Nameable).expect("a known processor");
        assert!(program.len() < 300, "{}: the kernel compiles it at every start", program.len());
    }

    #[test]
    fn no_call_is_listed_twice() {
        let mut calls: Vec<_> = DENIED.iter().chain(DENIED_HERE).map(|(_, call)| call).collect();
        let count = calls.len();
        calls.sort_unstable();
        calls.dedup();
        assert_eq!(calls.len(), count);
    }

    proptest! {
        #[test]
        fn the_search_finds_exactly_what_the_list_has(call in 0u32..600, argument: u32) {
            let program = compile(Sockets::UnixOnly, Others::Nameable).expect("a known processor");
            let args = [u64::from(argument), u64::from(argument), 0, 0, 0, 0];
            let found = run(&program, audit_arch().expect("a known processor"), call, args);
            let verdicts = verdicts(Sockets::UnixOnly, Others::Nameable);
            let expected = match verdicts.get(&call) {
                None => Some(libc::SECCOMP_RET_ALLOW),
                Some(Verdict::Deny) => Some(EPERM),
                Some(Verdict::Absent) => Some(ENOSYS),
                Some(_) => None,
            };
            prop_assert!(expected.is_none_or(|expected| expected == found), "{call}: {found:#x}");
        }
    }
}
