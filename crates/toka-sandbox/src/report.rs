//! What will be in force, layer by layer, and whether that is enough for what a plan demands.

use toka_core::{Compatibility, Coverage, Enforcement, Layer, NetworkAccess, SandboxMode};

use crate::cgroup::Kind;
use crate::confine::{PrepareError, Preparer};
use crate::host::Namespaces;
use crate::landlock;
use crate::plan::{Bind, SandboxPlan};

impl Preparer {
    /// What will be in force of each layer but the groups, which are known only once they are made.
    pub(crate) fn report(&self, plan: &SandboxPlan) -> Enforcement {
        let mut enforcement = Enforcement::default();
        enforcement.set(Layer::Cgroup, Coverage::Full, Vec::new());
        if plan.mode == SandboxMode::Off {
            for layer in [Layer::Mounts, Layer::Landlock, Layer::Seccomp, Layer::Network, Layer::Process] {
                enforcement.set(layer, Coverage::None, vec!["security.sandbox is false".to_owned()]);
            }
            return enforcement;
        }
        let (coverage, reasons) = self.mount_coverage();
        enforcement.set(Layer::Mounts, coverage, reasons);
        let abi = self.host.landlock_abi;
        let mut reasons = if abi == 0 {
            vec!["this kernel has no Landlock".to_owned()]
        } else {
            landlock::shortcomings(abi)
        };
        if enforcement.coverage(Layer::Mounts) == Coverage::None {
            reasons.extend(beyond_landlock(plan));
        }
        enforcement.set(Layer::Landlock, coverage_of(abi > 0, &reasons), reasons);
        let reasons: Vec<String> = self.filter_error.iter().cloned().collect();
        enforcement.set(Layer::Seccomp, coverage_of(!self.filters.is_empty(), &reasons), reasons);
        let (coverage, mut reasons) = self.network_coverage(&plan.network);
        reasons.extend(gaps(plan, Layer::Network));
        enforcement.set(Layer::Network, coverage.min(coverage_of(true, &reasons)), reasons);
        let reasons = gaps(plan, Layer::Process);
        enforcement.set(Layer::Process, coverage_of(true, &reasons), reasons);
        enforcement
    }

    fn mount_coverage(&self) -> (Coverage, Vec<String>) {
        match (self.host.mount_namespace, &self.view_error) {
            (Namespaces::Privileged, None) => (Coverage::Full, Vec::new()),
            (Namespaces::Privileged, Some(error)) => (Coverage::None, vec![error.to_string()]),
            (Namespaces::ThroughUserNamespace, _) => (Coverage::Full, Vec::new()),
            (Namespaces::ThroughUserNamespaceWithoutProc, _) => (
                Coverage::Partial,
                vec!["this host lets no ordinary user mount a /proc that hides other processes".to_owned()],
            ),
            (Namespaces::Refused, _) => {
                (Coverage::None, vec!["this host refuses user namespaces to ordinary users".to_owned()])
            }
        }
    }

    fn network_coverage(&self, network: &NetworkAccess) -> (Coverage, Vec<String>) {
        let namespaces = self.host.mount_namespace != Namespaces::Refused;
        match network {
            NetworkAccess::None if self.filters.is_empty() => {
                (Coverage::None, vec!["no system call filter to refuse sockets with".to_owned()])
            }
            NetworkAccess::None | NetworkAccess::Full => (Coverage::Full, Vec::new()),
            NetworkAccess::Loopback if namespaces => (Coverage::Full, Vec::new()),
            NetworkAccess::Allow(_) if namespaces => (
                Coverage::Partial,
                vec!["the allowed hosts cannot be reached either: there is no way out yet".to_owned()],
            ),
            NetworkAccess::Loopback | NetworkAccess::Allow(_) => {
                (Coverage::None, vec!["this host refuses network namespaces to ordinary users".to_owned()])
            }
        }
    }
}

/// Exceptions below a granted folder, which only mounts can make.
fn beyond_landlock(plan: &SandboxPlan) -> Vec<String> {
    let exceptions = |bind: &&Bind| {
        // What is shown at another path than its own, such as /tmp, is not there at all without mounts.
        let in_place = |outer: &Bind| outer.source.as_ref() == Some(&outer.target);
        let below = |outer: &Bind| outer.target != bind.target && bind.target.starts_with(&outer.target);
        let inside = |outer: &Bind| in_place(outer) && below(outer);
        let wider = |outer: &Bind| outer.access > bind.access || bind.source.is_none();
        plan.binds.iter().any(|outer| inside(outer) && wider(outer))
    };
    let paths: Vec<String> =
        plan.binds.iter().filter(exceptions).map(|bind| bind.target.display().to_string()).collect();
    if paths.is_empty() {
        Vec::new()
    } else {
        vec![format!("without mounts, not kept apart: {}", paths.join(", "))]
    }
}

fn gaps(plan: &SandboxPlan, layer: Layer) -> Vec<String> {
    plan.gaps.iter().filter(|(of, _)| *of == layer).map(|(_, gap)| gap.clone()).collect()
}

fn coverage_of(works: bool, reasons: &[String]) -> Coverage {
    match (works, reasons.is_empty()) {
        (false, _) => Coverage::None,
        (true, true) => Coverage::Full,
        (true, false) => Coverage::Partial,
    }
}

pub(crate) fn group_coverage(kind: Kind, reasons: &[String]) -> Coverage {
    coverage_of(kind != Kind::None, reasons)
}

/// Whether what can be enforced is enough for what the plan demands (pure).
pub(crate) fn demand(
    compatibility: Compatibility,
    mode: SandboxMode,
    enforcement: &Enforcement,
) -> Result<(), PrepareError> {
    let lacking = |layers: &[Layer], least: Coverage| {
        let short: Vec<String> = enforcement
            .layers
            .iter()
            .filter(|report| layers.contains(&report.layer) && report.coverage < least)
            .map(|report| format!("{} ({})", report.layer.as_str(), report.reasons.join("; ")))
            .collect();
        if short.is_empty() { Ok(()) } else { Err(PrepareError::Refused(short.join(", "))) }
    };
    match (mode, compatibility) {
        (SandboxMode::Off, Compatibility::Strict) => lacking(&[Layer::Cgroup], Coverage::Full),
        (SandboxMode::Off, _) | (_, Compatibility::BestEffort) => Ok(()),
        (_, Compatibility::Strict) => lacking(&Layer::ALL, Coverage::Full),
        (_, Compatibility::Default) => {
            lacking(&[Layer::Seccomp], Coverage::Partial)?;
            if enforcement.coverage(Layer::Landlock) == Coverage::None {
                lacking(&[Layer::Mounts], Coverage::Partial)?;
            }
            lacking(&[Layer::Network], Coverage::Partial)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn coverage() -> impl Strategy<Value = Coverage> {
        prop_oneof![Just(Coverage::None), Just(Coverage::Partial), Just(Coverage::Full)]
    }

    fn enforcement() -> impl Strategy<Value = Enforcement> {
        prop::collection::vec(coverage(), Layer::ALL.len()).prop_map(|coverages| {
            let mut enforcement = Enforcement::default();
            for (layer, coverage) in Layer::ALL.into_iter().zip(coverages) {
                let reasons = if coverage == Coverage::Full { vec![] } else { vec!["lacking".to_owned()] };
                enforcement.set(layer, coverage, reasons);
            }
            enforcement
        })
    }

    proptest! {
        #[test]
        fn strict_accepts_nothing_less_than_everything(enforcement in enforcement()) {
            let full = enforcement.overall() == Coverage::Full;
            prop_assert_eq!(demand(Compatibility::Strict, SandboxMode::On, &enforcement).is_ok(), full);
        }

        #[test]
        fn the_default_never_starts_an_agent_with_open_files_or_calls(enforcement in enforcement()) {
            if demand(Compatibility::Default, SandboxMode::On, &enforcement).is_ok() {
                prop_assert!(enforcement.coverage(Layer::Seccomp) > Coverage::None);
                let files = enforcement.coverage(Layer::Landlock).max(enforcement.coverage(Layer::Mounts));
                prop_assert!(files > Coverage::None);
            }
        }

        #[test]
        fn best_effort_refuses_nothing(enforcement in enforcement()) {
            prop_assert!(demand(Compatibility::BestEffort, SandboxMode::On, &enforcement).is_ok());
        }
    }
}
