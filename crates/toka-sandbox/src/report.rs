//! What will be in force, layer by layer, and whether that is enough for what a plan demands.

use toka_core::{Compatibility, Coverage, Enforcement, Layer, LayerReport, NetworkAccess, SandboxMode};

use crate::cgroup::Kind;
use crate::host::{HostFacts, Namespaces};
use crate::landlock;
use crate::plan::{Bind, KEPT_TO_A_PORT, SandboxPlan};
use crate::step::PrepareError;

/// The version of Landlock from which on it does all that rules ask of it (landlock(7)).
pub const LANDLOCK_IN_FULL: u32 = 6;

impl HostFacts {
    /// What this host can enforce at most of `plan`, layer by layer, as far as its facts tell. What only shows when a step is
    /// taken, such as a control file that cannot be written, can still lessen it.
    pub fn enforcement(&self, plan: &SandboxPlan) -> Enforcement {
        let mut most = Enforcement::default();
        let mut set = |layer, (coverage, mut reasons): Report| {
            reasons.extend(gaps(plan, layer));
            most.set(layer, coverage.min(coverage_of(true, &reasons)), reasons);
        };
        set(Layer::Cgroup, self.group_coverage());
        if plan.mode == SandboxMode::Off {
            for layer in [Layer::Mounts, Layer::Landlock, Layer::Seccomp, Layer::Network, Layer::Process] {
                most.set(layer, Coverage::None, vec!["security.sandbox is false".to_owned()]);
            }
            return most;
        }
        set(Layer::Mounts, self.mount_coverage());
        set(Layer::Landlock, self.landlock_coverage());
        set(Layer::Seccomp, FULL);
        set(Layer::Network, self.network_coverage(plan));
        set(Layer::Process, FULL);
        if most.coverage(Layer::Mounts) == Coverage::None {
            without_mounts(&mut most, plan);
        }
        most
    }

    /// The layers of `plan` that this host cannot enforce as its compatibility demands, as far as its facts tell; empty when
    /// it can.
    pub fn lacking(&self, plan: &SandboxPlan) -> Vec<LayerReport> {
        lacking(plan.compatibility, plan.mode, &self.enforcement(plan))
    }

    /// What this kernel's Landlock does not do of all that rules ask of it, and which version would; empty when it does it
    /// all or there is none.
    pub fn landlock_shortcomings(&self) -> Vec<String> {
        if self.landlock_abi == 0 { Vec::new() } else { landlock::shortcomings(self.landlock_abi) }
    }

    fn mount_coverage(&self) -> Report {
        match self.mount_namespace {
            Namespaces::Privileged | Namespaces::ThroughUserNamespace => FULL,
            Namespaces::ThroughUserNamespaceWithoutProc => {
                partial("this host lets no ordinary user mount a /proc that hides other processes")
            }
            Namespaces::Refused => none("this host refuses user namespaces to ordinary users"),
        }
    }

    fn landlock_coverage(&self) -> Report {
        if self.landlock_abi == 0 {
            return none("this kernel has no Landlock");
        }
        let reasons = self.landlock_shortcomings();
        (coverage_of(true, &reasons), reasons)
    }

    fn network_coverage(&self, plan: &SandboxPlan) -> Report {
        if plan.port_alone {
            // Without its port it has no socket but Unix sockets.
            return if plan.listen.is_some() { partial(KEPT_TO_A_PORT) } else { FULL };
        }
        match (&plan.network, self.mount_namespace) {
            (NetworkAccess::None | NetworkAccess::Full, _) => FULL,
            (_, Namespaces::Refused) => none("this host refuses network namespaces to ordinary users"),
            (NetworkAccess::Loopback | NetworkAccess::Project | NetworkAccess::Allow(_), _) => FULL,
        }
    }

    fn group_coverage(&self) -> Report {
        let layout = &self.cgroups;
        let controllers = [("memory", &layout.memory), ("cpu", &layout.cpu), ("pids", &layout.pids)];
        match layout.kind {
            Kind::None => none("no control group that we may write"),
            Kind::Unified => FULL,
            Kind::Hybrid | Kind::Legacy => {
                let absent = controllers.into_iter().filter(|(_, path)| path.is_none());
                let reasons: Vec<_> =
                    absent.map(|(name, _)| format!("no {name} controller that we may use")).collect();
                (coverage_of(true, &reasons), reasons)
            }
        }
    }
}

type Report = (Coverage, Vec<String>);

const FULL: Report = (Coverage::Full, Vec::new());

fn none(reason: &str) -> Report {
    (Coverage::None, vec![reason.to_owned()])
}

fn partial(reason: &str) -> Report {
    (Coverage::Partial, vec![reason.to_owned()])
}

/// Lessens what Landlock does of a plan whose mounts cannot be had.
pub(crate) fn without_mounts(enforcement: &mut Enforcement, plan: &SandboxPlan) {
    let found = enforcement.layers.iter().find(|report| report.layer == Layer::Landlock);
    let Some(LayerReport { coverage, mut reasons, .. }) = found.cloned() else { return };
    reasons.extend(beyond_landlock(plan));
    enforcement.set(Layer::Landlock, coverage.min(coverage_of(true, &reasons)), reasons);
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

pub(crate) fn coverage_of(works: bool, reasons: &[String]) -> Coverage {
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
    let short: Vec<String> =
        lacking(compatibility, mode, enforcement).iter().map(ToString::to_string).collect();
    if short.is_empty() { Ok(()) } else { Err(PrepareError::Refused(short.join(", "))) }
}

/// The layers of which less can be enforced than a plan demands (pure).
pub fn lacking(
    compatibility: Compatibility,
    mode: SandboxMode,
    enforcement: &Enforcement,
) -> Vec<LayerReport> {
    let demanded = demanded(compatibility, mode, enforcement);
    let short = |report: &&LayerReport| {
        demanded.iter().any(|(layer, least)| *layer == report.layer && report.coverage < *least)
    };
    enforcement.layers.iter().filter(short).cloned().collect()
}

/// The least coverage that each layer must have.
fn demanded(
    compatibility: Compatibility,
    mode: SandboxMode,
    enforcement: &Enforcement,
) -> Vec<(Layer, Coverage)> {
    match (mode, compatibility) {
        (SandboxMode::Off, Compatibility::Strict) => vec![(Layer::Cgroup, Coverage::Full)],
        (SandboxMode::Off, _) | (_, Compatibility::BestEffort) => Vec::new(),
        (_, Compatibility::Strict) => Layer::ALL.map(|layer| (layer, Coverage::Full)).to_vec(),
        (_, Compatibility::Default) => {
            // One of the two has to keep files apart.
            let files = (enforcement.coverage(Layer::Landlock) == Coverage::None).then_some(Layer::Mounts);
            let layers = files.into_iter().chain([Layer::Seccomp, Layer::Network]);
            layers.map(|layer| (layer, Coverage::Partial)).collect()
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
