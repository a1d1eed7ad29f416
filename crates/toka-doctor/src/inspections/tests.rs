//! Hosts that are made up, and what is said about them.

use toka_api::host::HostFigures;
use toka_sandbox::HostFacts;
use toka_sandbox::cgroup::{Kind, Layout};
use toka_sandbox::host::Namespaces;
use toka_sandbox::plan::SystemPaths;

use super::super::check::Strictness;
use super::super::facts::{Default, FolderFacts};
use super::super::leftovers::Leftover;
use super::super::test_bed::default_plan;
use super::super::{Report, Verdict};
use super::*;

/// A host that has everything.
fn able() -> Facts {
    let folder = |path: &str, is_tmpfs| FolderFacts {
        path: path.into(),
        nearest: path.into(),
        is_writable: true,
        mode: Some(0o700),
        free_bytes: Some(64 << 30),
        free_files: Some(1 << 20),
        is_tmpfs,
    };
    let host = HostFacts {
        uid: 1000,
        gid: 1000,
        landlock_abi: 6,
        mount_namespace: Namespaces::ThroughUserNamespace,
        cgroups: Layout {
            kind: Kind::Unified,
            unified: Some("/sys/fs/cgroup/own".into()),
            ..Layout::default()
        },
        system: SystemPaths::default(),
        path: Vec::new(),
        toolchain_variables: Vec::new(),
        pyenv_version: None,
    };
    Facts {
        release: "6.12.3-amd64".into(),
        machine: "x86_64".into(),
        default: Err("to be made".into()),
        seccomp: true,
        clone3: true,
        psi: true,
        userns_clone: None,
        userns_max: Some(96_365),
        userns_apparmor: None,
        is_unified: true,
        controllers: ["cpuset", "cpu", "io", "memory", "pids"].map(str::to_owned).to_vec(),
        open_files: (1_048_576, 1_048_576),
        state: folder("/home/ada/.local/state/toka", false),
        run: folder("/run/user/1000/toka", true),
        now: 1_800_000_000,
        has_zones: true,
        git: Some("/usr/bin/git".into()),
        figures: Some(HostFigures {
            cpus: 8,
            load: [0.5; 3],
            memory_total: 16 << 30,
            memory_available: 12 << 30,
            ..HostFigures::default()
        }),
        toolchains: vec!["cargo", "python3"],
        leftovers: Vec::new(),
        host,
    }
}

fn left(path: &str) -> Leftover {
    Leftover { path: path.into(), cure: "the next run of shop removes it".into() }
}

/// Everything that is said about a host.
fn said(mut facts: Facts) -> Report {
    facts.default = default_plan(&facts.host, "/usr/bin/toka".as_ref()).map(|plan| Default {
        enforcement: facts.host.enforcement(&plan),
        lacking: facts.host.lacking(&plan),
    });
    let mut checks = inspect(&facts);
    checks.extend(layers(&facts, None));
    Report { host: String::new(), checks }
}

/// What is said of a host that lacks something: of each check that is not well, its id and verdict.
fn check(change: impl FnOnce(&mut Facts), expected: &[(&str, Verdict)], fits: bool) {
    let mut facts = able();
    change(&mut facts);
    let report = said(facts);
    let bad: Vec<(&str, Verdict)> = report
        .checks
        .iter()
        .filter(|check| check.verdict != Verdict::Ok)
        .map(|check| (check.id.as_str(), check.verdict))
        .collect();
    assert_eq!(bad, expected);
    assert_eq!(report.faults(Strictness::Default).count() == 0, fits, "{expected:?}");
    for check in report.checks.iter().filter(|check| check.verdict != Verdict::Ok) {
        assert!(!check.means.is_empty() && !check.fix.is_empty(), "{check:?}");
    }
}

#[test]
fn a_host_that_has_everything_passes_strictly() {
    let report = said(able());
    assert_eq!(report.faults(Strictness::Strict).count(), 0, "{report:#?}");
    assert_eq!(report.count(Verdict::Ok), report.checks.len(), "{report:#?}");
}

#[test]
fn what_a_host_lacks_is_named_with_its_consequence() {
    use Verdict::{Missing, Weaker};
    check(|facts| facts.release = "6.1.0-28-amd64".into(), &[("host.kernel", Weaker)], true);
    check(|facts| facts.release = "5.10.0".into(), &[("host.kernel", Missing)], false);
    check(|facts| facts.machine = "riscv64".into(), &[("host.processor", Missing)], false);
    check(
        |facts| facts.host.landlock_abi = 3,
        &[("host.landlock", Weaker), ("layer.landlock", Weaker)],
        true,
    );
    check(
        |facts| facts.host.landlock_abi = 0,
        &[("host.landlock", Missing), ("layer.landlock", Missing)],
        true,
    );
    check(|facts| facts.seccomp = false, &[("host.seccomp", Missing)], false);
    check(|facts| facts.clone3 = false, &[("host.clone3", Missing)], false);
    check(
        |facts| facts.host.mount_namespace = Namespaces::ThroughUserNamespaceWithoutProc,
        &[("host.namespaces", Weaker), ("layer.mounts", Weaker)],
        true,
    );
    check(
        |facts| {
            facts.host.mount_namespace = Namespaces::Refused;
            facts.host.landlock_abi = 0;
        },
        &[
            ("host.landlock", Missing),
            ("host.namespaces", Missing),
            ("layer.mounts", Missing),
            ("layer.landlock", Missing),
        ],
        false,
    );
    check(
        |facts| facts.host.cgroups = Layout::default(),
        &[("groups.layout", Missing), ("layer.cgroup", Missing)],
        true,
    );
    check(|facts| facts.controllers = vec!["pids".into()], &[("groups.controllers", Weaker)], true);
    check(|facts| facts.open_files = (256, 4096), &[("room.files", Weaker)], true);
    check(|facts| facts.state.is_writable = false, &[("room.state", Missing)], false);
    check(|facts| facts.state.free_bytes = Some(1), &[("room.state", Weaker)], true);
    check(|facts| facts.figures = Some(HostFigures::default()), &[("room.memory", Weaker)], true);
    check(|facts| facts.state.free_files = Some(1), &[("room.state", Weaker)], true);
    check(|facts| facts.run.mode = Some(0o777), &[("room.run", Weaker)], true);
    check(|facts| facts.run.is_tmpfs = false, &[("room.secrets", Weaker)], true);
    check(|facts| facts.leftovers = vec![left("/run/toka/shop")], &[("room.leftovers", Weaker)], true);
    check(|facts| facts.now = 0, &[("host.clock", Weaker)], true);
    check(|facts| facts.psi = false, &[("host.pressure", Missing)], true);
    check(|facts| facts.git = None, &[("tools.git", Missing)], true);
    check(|facts| facts.has_zones = false, &[("tools.zones", Missing)], true);
}

/// The cure of the check with this id.
fn fix_of(id: &str, change: impl FnOnce(&mut Facts)) -> String {
    let mut facts = able();
    change(&mut facts);
    let checks = said(facts).checks;
    checks.into_iter().find(|check| check.id == id).expect("it is there").fix
}

#[test]
fn the_cure_is_that_of_the_cause() {
    let refused = |facts: &mut Facts| facts.host.mount_namespace = Namespaces::Refused;
    for (change, word) in [
        (
            Box::new(|facts: &mut Facts| facts.userns_clone = Some(0)) as Box<dyn Fn(&mut Facts)>,
            "userns_clone = 1",
        ),
        (Box::new(|facts: &mut Facts| facts.userns_max = Some(0)), "max_user_namespaces = 15000"),
        (Box::new(|facts: &mut Facts| facts.userns_apparmor = Some(1)), "restrict_unprivileged_userns = 0"),
        (Box::new(|_: &mut Facts| {}), "container"),
    ] {
        let fix = fix_of("host.namespaces", |facts| {
            refused(facts);
            change(facts);
        });
        assert!(fix.contains(word), "{fix}");
    }
    let none = |facts: &mut Facts| facts.host.cgroups = Layout::default();
    assert!(fix_of("groups.layout", none).contains("Delegate=yes"));
    let on_version_1 = |facts: &mut Facts| {
        none(facts);
        facts.is_unified = false;
    };
    assert!(fix_of("groups.layout", on_version_1).contains("unified_cgroup_hierarchy"));
    let fix = fix_of("groups.controllers", |facts| facts.controllers.clear());
    assert!(fix.contains("Delegate=memory cpu pids"), "{fix}");
}

#[test]
fn a_cure_never_gives_away_a_folder_that_is_not_tokas() {
    let fix = fix_of("room.state", |facts| {
        facts.state.nearest = "/".into();
        facts.state.is_writable = false;
    });
    assert!(fix.starts_with("sudo install -d -o $(id -u) -m 700 /home/ada/.local/state/toka;"), "{fix}");
}

#[test]
fn secrets_belong_in_memory_and_the_cure_depends_on_where_they_are() {
    for (path, uid, word) in [
        ("/run/toka", 0, "--tmpfs /run"),
        ("/srv/toka/run", 0, "TOKA_STATE_DIR"),
        ("/home/ada/toka/run", 1000, "XDG_RUNTIME_DIR"),
    ] {
        let fix = fix_of("room.secrets", |facts| {
            (facts.run.path, facts.host.uid) = (path.into(), uid);
            facts.run.is_tmpfs = false;
        });
        assert!(fix.contains(word), "{path}: {fix}");
    }
}
