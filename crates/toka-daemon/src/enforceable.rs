//! What this host can enforce at most of an agent's rules, so that one that demands more is refused before anything
//! starts. The keeper, which puts the rules in force, has the last word: what only shows when a step is taken, such as a
//! control file that cannot be written, still ends the start of that agent alone.

use toka_core::{Compatibility, Coverage, Enforcement, Layer, NetworkAccess, SandboxMode};
use toka_sandbox::cgroup::{Kind, Layout};
use toka_sandbox::host::Namespaces;
use toka_sandbox::{HostFacts, SandboxPlan};

/// The version of Landlock from which on it does all that rules ask of it (landlock(7)).
const LANDLOCK_IN_FULL: u32 = 6;

/// The layers of `plan` that this host cannot enforce as its compatibility demands, each with the reasons; empty when it
/// can, as far as the facts tell.
pub(crate) fn lacking(host: &HostFacts, plan: &SandboxPlan) -> Vec<String> {
    let most = at_most(host, plan);
    let short = |(layer, least): &(Layer, Coverage)| most.coverage(*layer) < *least;
    let layers: Vec<Layer> =
        demanded(plan, &most).into_iter().filter(short).map(|(layer, _)| layer).collect();
    let reports = most.layers.iter().filter(|report| layers.contains(&report.layer));
    reports.map(|report| format!("{} ({})", report.layer.as_str(), report.reasons.join("; "))).collect()
}

/// The least coverage that each layer must have.
fn demanded(plan: &SandboxPlan, most: &Enforcement) -> Vec<(Layer, Coverage)> {
    match (plan.mode, plan.compatibility) {
        (SandboxMode::Off, Compatibility::Strict) => vec![(Layer::Cgroup, Coverage::Full)],
        (SandboxMode::Off, _) | (_, Compatibility::BestEffort) => Vec::new(),
        (_, Compatibility::Strict) => Layer::ALL.map(|layer| (layer, Coverage::Full)).to_vec(),
        (_, Compatibility::Default) => {
            // One of the two has to keep files apart.
            let files = (most.coverage(Layer::Landlock) == Coverage::None).then_some(Layer::Mounts);
            let layers = files.into_iter().chain([Layer::Network]);
            layers.map(|layer| (layer, Coverage::Partial)).collect()
        }
    }
}

fn at_most(host: &HostFacts, plan: &SandboxPlan) -> Enforcement {
    let mut most = Enforcement::default();
    for (layer, (coverage, mut reasons)) in [
        (Layer::Mounts, mounts(host.mount_namespace)),
        (Layer::Landlock, landlock(host.landlock_abi)),
        (Layer::Seccomp, FULL),
        (Layer::Network, network(host.mount_namespace, &plan.network)),
        (Layer::Cgroup, groups(&host.cgroups)),
        (Layer::Process, FULL),
    ] {
        reasons.extend(plan.gaps.iter().filter(|(of, _)| *of == layer).map(|(_, gap)| gap.clone()));
        let bound = if reasons.is_empty() { Coverage::Full } else { Coverage::Partial };
        most.set(layer, coverage.min(bound), reasons);
    }
    most
}

type Report = (Coverage, Vec<String>);

const FULL: Report = (Coverage::Full, Vec::new());

fn none(reason: &str) -> Report {
    (Coverage::None, vec![reason.to_owned()])
}

fn partial(reason: impl Into<String>) -> Report {
    (Coverage::Partial, vec![reason.into()])
}

fn mounts(namespaces: Namespaces) -> Report {
    match namespaces {
        Namespaces::Privileged | Namespaces::ThroughUserNamespace => FULL,
        Namespaces::ThroughUserNamespaceWithoutProc => {
            partial("this host lets no ordinary user mount a /proc that hides other processes")
        }
        Namespaces::Refused => none("this host refuses user namespaces to ordinary users"),
    }
}

fn landlock(abi: u32) -> Report {
    match abi {
        0 => none("this kernel has no Landlock"),
        1..LANDLOCK_IN_FULL => {
            partial(format!("Landlock ABI {abi} does not do all that ABI {LANDLOCK_IN_FULL} does"))
        }
        _ => FULL,
    }
}

fn network(namespaces: Namespaces, network: &NetworkAccess) -> Report {
    match (network, namespaces) {
        (NetworkAccess::None | NetworkAccess::Full, _) => FULL,
        (_, Namespaces::Refused) => none("this host refuses network namespaces to ordinary users"),
        (NetworkAccess::Loopback, _) => FULL,
        (NetworkAccess::Allow(_), _) => {
            partial("the allowed hosts cannot be reached either: there is no way out yet")
        }
    }
}

fn groups(layout: &Layout) -> Report {
    let controllers = [("memory", &layout.memory), ("cpu", &layout.cpu), ("pids", &layout.pids)];
    match layout.kind {
        Kind::None => none("no control group that we may write"),
        Kind::Unified => FULL,
        Kind::Hybrid | Kind::Legacy => {
            let absent = controllers.into_iter().filter(|(_, path)| path.is_none());
            let reasons: Vec<_> =
                absent.map(|(name, _)| format!("no {name} controller that we may use")).collect();
            (if reasons.is_empty() { Coverage::Full } else { Coverage::Partial }, reasons)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is lacking of a plan without gaps.
    fn check(host: &HostFacts, compatibility: Compatibility, network: NetworkAccess) -> Vec<Layer> {
        let mut plan = plan(host);
        (plan.compatibility, plan.network) = (compatibility, network);
        let found = lacking(host, &plan);
        let is_named = |layer: &Layer| found.iter().any(|text| text.starts_with(layer.as_str()));
        Layer::ALL.into_iter().filter(is_named).collect()
    }

    fn plan(host: &HostFacts) -> SandboxPlan {
        use toka_core::Name;
        let confinement = toka_core::Confinement::default();
        let name = Name::new("a").expect("a label");
        let folder = || std::path::PathBuf::from("/srv/work");
        let folders = toka_sandbox::AgentFolders {
            workspace: folder(),
            home: folder(),
            tmp: folder(),
            artifacts: folder(),
            inputs: Vec::new(),
            inputs_dir: folder(),
            credentials: folder(),
            door: folder(),
            state_dir: folder(),
            run_dir: folder(),
            working_dir: folder(),
            user_home: folder(),
        };
        SandboxPlan::compile(&toka_sandbox::CompileInput {
            confinement: &confinement,
            folders: &folders,
            host,
            project: &name,
            agent: &name,
            workstream_files: &[],
            workstream_dir: None,
            toka_exe: std::path::Path::new("/opt/toka"),
            programs: &[],
            run_as: None,
        })
        .expect("the defaults")
    }

    #[test]
    fn a_host_is_refused_for_what_it_lacks_and_for_nothing_else() {
        use Compatibility::{BestEffort, Default, Strict};
        let able = HostFacts {
            landlock_abi: 6,
            mount_namespace: Namespaces::Privileged,
            cgroups: Layout { kind: Kind::Unified, ..Layout::default() },
            ..HostFacts::probe()
        };
        let old = HostFacts { landlock_abi: 5, ..able.clone() };
        let closed = HostFacts { mount_namespace: Namespaces::Refused, ..able.clone() };
        let bare = HostFacts { landlock_abi: 0, cgroups: Layout::default(), ..closed.clone() };
        let loopback = || NetworkAccess::Loopback;
        for (host, compatibility, network, expected) in [
            (&able, Strict, NetworkAccess::None, &[][..]),
            (&able, Strict, loopback(), &[]),
            (&able, Strict, NetworkAccess::Allow(Vec::new()), &[Layer::Network]),
            (&able, Default, NetworkAccess::Allow(Vec::new()), &[]),
            (&old, Strict, NetworkAccess::None, &[Layer::Landlock]),
            (&old, Default, NetworkAccess::None, &[]),
            (&closed, Strict, NetworkAccess::None, &[Layer::Mounts]),
            (&closed, Default, NetworkAccess::None, &[]),
            (&closed, Default, loopback(), &[Layer::Network]),
            (&bare, Strict, NetworkAccess::None, &[Layer::Mounts, Layer::Landlock, Layer::Cgroup]),
            (&bare, Default, NetworkAccess::None, &[Layer::Mounts]),
            (&bare, BestEffort, loopback(), &[]),
        ] {
            assert_eq!(
                check(host, compatibility, network.clone()),
                expected,
                "{compatibility:?} {network:?}"
            );
        }
    }

    #[test]
    fn a_gap_of_the_plan_is_lacking_too() {
        let host =
            HostFacts { landlock_abi: 6, mount_namespace: Namespaces::Privileged, ..HostFacts::probe() };
        let mut plan = plan(&host);
        plan.compatibility = Compatibility::Strict;
        plan.gaps.push((Layer::Process, "half a limit".into()));
        assert!(lacking(&host, &plan).contains(&"process (half a limit)".to_owned()));
    }
}
