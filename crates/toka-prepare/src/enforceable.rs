//! What this host can enforce at most of an agent's rules, so that one that demands more is refused before anything
//! starts. The keeper, which puts the rules in force, has the last word: what only shows when a step is taken, such as a
//! control file that cannot be written, still ends the start of that agent alone.

use toka_sandbox::{HostFacts, SandboxPlan};

/// The layers of `plan` that this host cannot enforce as its compatibility demands, each with the reasons; empty when it
/// can, as far as the facts tell.
pub(crate) fn lacking(host: &HostFacts, plan: &SandboxPlan) -> Vec<String> {
    host.lacking(plan).iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use toka_core::{Compatibility, Layer, NetworkAccess};
    use toka_sandbox::cgroup::{Kind, Layout};
    use toka_sandbox::host::Namespaces;

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
        let folders = toka_sandbox::AgentFolders::below(std::path::Path::new("/srv/work"));
        SandboxPlan::compile(&toka_sandbox::CompileInput {
            confinement: &confinement,
            folders: &folders,
            host,
            project: &name,
            agent: &name,
            facts: &toka_sandbox::plan::WorkspaceFacts::plain(&folders.workspace),
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
            (&able, Strict, NetworkAccess::Allow(Vec::new()), &[]),
            (&closed, Default, NetworkAccess::Allow(Vec::new()), &[Layer::Network]),
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
