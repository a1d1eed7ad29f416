//! The kernel: its age, and what of it is there for us.

use toka_sandbox::LANDLOCK_IN_FULL;
use toka_sandbox::host::Namespaces;

use super::super::check::{Check, Section, Verdict, Weight};
use super::super::facts::Facts;
use super::listed;

/// Below this no agent starts: mount_setattr(2) is of 5.12.
const LEAST: (u32, u32) = (5, 12);
/// From this on everything is there: Landlock ABI 6.
const IN_FULL: (u32, u32) = (6, 12);
/// Processors that the filter of system calls is written for.
const PROCESSORS: [&str; 2] = ["x86_64", "aarch64"];

pub(super) fn inspect(facts: &Facts) -> Vec<Check> {
    vec![
        version(facts),
        processor(facts),
        landlock(facts),
        seccomp(facts),
        namespaces(facts),
        clone3(facts),
        pressure(facts),
        clock(facts),
    ]
}

fn found(id: &str, title: &str, text: impl Into<String>) -> Check {
    Check::ok(id, Section::Host, title, text)
}

fn version(facts: &Facts) -> Check {
    let check = found("host.kernel", "kernel", facts.release.clone()).weight(Weight::Required);
    match number_of(&facts.release) {
        Some(version) if version >= IN_FULL => check,
        Some(version) if version >= LEAST => check
            .but(Verdict::Weaker, "parts of the walls are of newer kernels; the rows below say which")
            .fix("a kernel of 6.12 or newer has everything"),
        Some(_) => check
            .but(Verdict::Missing, "no agent starts: mounts cannot be prepared")
            .fix("install a kernel of 5.13 or newer; 6.12 has everything"),
        None => check.but(Verdict::Unprovable, "its version cannot be told"),
    }
}

/// Major and minor version.
fn number_of(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(['.', '-', '+']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn processor(facts: &Facts) -> Check {
    let check = found("host.processor", "processor", facts.machine.clone()).weight(Weight::Required);
    if PROCESSORS.contains(&facts.machine.as_str()) {
        return check;
    }
    check
        .but(Verdict::Missing, "there is no filter of system calls for it, so no agent starts")
        .fix(format!("use one of {}", listed(&PROCESSORS)))
}

fn landlock(facts: &Facts) -> Check {
    let abi = facts.host.landlock_abi;
    let check = found("host.landlock", "Landlock", format!("ABI {abi}")).weight(Weight::Full);
    match abi {
        0 => {
            let is_old = number_of(&facts.release).is_some_and(|version| version < (5, 13));
            let fix = if is_old {
                "install a kernel of 5.13 or newer"
            } else {
                "add landlock to lsm= on the kernel's command line, before what `cat /sys/kernel/security/lsm` shows"
            };
            found("host.landlock", "Landlock", "not there")
                .but(
                    Verdict::Missing,
                    "one wall less around files, and none around signals and abstract sockets",
                )
                .fix(fix)
                .weight(Weight::Full)
        }
        1..LANDLOCK_IN_FULL => check
            .but(Verdict::Weaker, facts.host.landlock_shortcomings().join("; "))
            .fix("install a kernel of 6.12 or newer, which has ABI 6"),
        _ => check,
    }
}

fn seccomp(facts: &Facts) -> Check {
    if facts.seccomp {
        return found("host.seccomp", "filter of system calls", "there").weight(Weight::Required);
    }
    found("host.seccomp", "filter of system calls", "not there")
        .but(Verdict::Missing, "no agent starts")
        .fix("use a kernel with CONFIG_SECCOMP_FILTER, and a /proc that shows /proc/sys/kernel/seccomp")
        .weight(Weight::Required)
}

fn namespaces(facts: &Facts) -> Check {
    let check = |text: &str| found("host.namespaces", "namespaces", text).weight(Weight::Full);
    match facts.host.mount_namespace {
        Namespaces::Privileged => check("as root"),
        Namespaces::ThroughUserNamespace => check("in a user namespace"),
        Namespaces::ThroughUserNamespaceWithoutProc => check("in a user namespace, without a /proc of its own")
            .but(Verdict::Weaker, "agents see the names of other processes")
            .fix("part of /proc is covered, as in containers; start this one without that, as with podman run --security-opt unmask=ALL"),
        Namespaces::Refused => check("refused to this user")
            .but(Verdict::Missing, "files are kept apart by Landlock alone; agents that reach models or hosts can reach port 7411 of every address; network: loopback is refused")
            .fix(permission(facts)),
    }
}

/// Which setting refuses user namespaces.
fn permission(facts: &Facts) -> String {
    let set = |name: &str, value: u64| {
        format!("echo {name} = {value} | sudo tee /etc/sysctl.d/60-toka.conf && sudo sysctl --system")
    };
    if facts.userns_clone == Some(0) {
        set("kernel.unprivileged_userns_clone", 1)
    } else if facts.userns_max == Some(0) {
        set("user.max_user_namespaces", 15_000)
    } else if facts.userns_apparmor == Some(1) {
        set("kernel.apparmor_restrict_unprivileged_userns", 0)
    } else {
        "in a container, let its filter of system calls allow unshare and clone; or run toka as root"
            .to_owned()
    }
}

fn clone3(facts: &Facts) -> Check {
    if facts.clone3 {
        return found("host.clone3", "clone3", "there").weight(Weight::Required);
    }
    found("host.clone3", "clone3", "refused")
        .but(Verdict::Missing, "no agent starts")
        .fix("in a container, use a runtime whose filter of system calls knows clone3; else a kernel of 5.7 or newer")
        .weight(Weight::Required)
}

fn pressure(facts: &Facts) -> Check {
    if facts.psi {
        return found("host.pressure", "figures of pressure", "there");
    }
    found("host.pressure", "figures of pressure", "not there")
        .but(Verdict::Missing, "nothing tells how long agents wait for CPU, memory and disks, and no start waits while the host is short of them")
        .fix("add psi=1 to the kernel's command line")
}

/// Before this program was written.
const LONG_AGO: u64 = 1_735_689_600;

fn clock(facts: &Facts) -> Check {
    if facts.now >= LONG_AGO {
        return found("host.clock", "clock", "set");
    }
    found("host.clock", "clock", "before 2025")
        .but(Verdict::Weaker, "times of the journal are wrong, and certificates are not yet valid")
        .fix("sudo timedatectl set-ntp true")
}
