//! Control groups: which layout there is, and what of it this user may use.

use toka_sandbox::cgroup::Kind;

use super::super::check::{Check, Section, Verdict, Weight};
use super::super::facts::Facts;
use super::listed;

/// Controllers that limits take.
const WANTED: [&str; 3] = ["memory", "cpu", "pids"];

pub(super) fn inspect(facts: &Facts) -> Vec<Check> {
    let layout = layout(facts);
    // Where nothing may be written there is nothing to add.
    if facts.host.cgroups.kind == Kind::None { vec![layout] } else { vec![layout, controllers(facts)] }
}

fn layout(facts: &Facts) -> Check {
    let check = |text: &str| Check::ok("groups.layout", Section::Groups, "layout", text).weight(Weight::Full);
    match facts.host.cgroups.kind {
        Kind::Unified => check("version 2"),
        Kind::Hybrid => check("hybrid: limits by version 1, freeze and kill by version 2"),
        Kind::Legacy => check("version 1"),
        Kind::None => check("none that we may write")
            .but(
                Verdict::Missing,
                "limits hold for single processes only, CPU is not limited, nothing is accounted, no agent can be paused",
            )
            .fix(delegation(facts)),
    }
}

/// How a user gets groups.
fn delegation(facts: &Facts) -> String {
    if facts.host.uid == 0 {
        "mount them: mount -t cgroup2 none /sys/fs/cgroup; in a container, let it have a writable /sys/fs/cgroup"
            .to_owned()
    } else if facts.is_unified {
        "systemd-run --user --scope -p Delegate=yes toka run …; without a session, first: sudo loginctl enable-linger $USER"
            .to_owned()
    } else {
        "add systemd.unified_cgroup_hierarchy=1 to the kernel's command line: only version 2 can be delegated"
            .to_owned()
    }
}

fn controllers(facts: &Facts) -> Check {
    let layout = &facts.host.cgroups;
    let check = |text: String| {
        Check::ok("groups.controllers", Section::Groups, "controllers", text).weight(Weight::Full)
    };
    let has = |name: &str| match (layout.kind, name) {
        (Kind::Unified, name) => facts.controllers.iter().any(|found| found == name),
        (_, "memory") => layout.memory.is_some(),
        (_, "cpu") => layout.cpu.is_some(),
        (_, _) => layout.pids.is_some(),
    };
    let (there, absent): (Vec<&str>, Vec<&str>) = WANTED.into_iter().partition(|name| has(name));
    if absent.is_empty() {
        return check(listed(&there));
    }
    let fix = match (layout.kind, facts.host.uid) {
        (Kind::Unified, 0) => format!("echo +{} > /sys/fs/cgroup/cgroup.subtree_control", absent.join(" +")),
        (Kind::Unified, _) => format!(
            "sudo mkdir -p /etc/systemd/system/user@.service.d && printf '[Service]\\nDelegate={}\\n' | sudo tee \
             /etc/systemd/system/user@.service.d/toka.conf && sudo systemctl daemon-reload; then log in anew",
            WANTED.join(" ")
        ),
        _ => "add systemd.unified_cgroup_hierarchy=1 to the kernel's command line".to_owned(),
    };
    check(format!("{}; not {}", listed(&there), listed(&absent)))
        .but(Verdict::Weaker, format!("not limited: {}", listed(&absent)))
        .fix(fix)
}
