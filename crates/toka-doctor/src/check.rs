//! What a doctor says: findings with their verdicts, and when they are good enough. Pure, so that every end can be tested.

use serde::{Deserialize, Serialize};
use toka_core::Layer;

/// What one look at the host found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Its name, which stays the same from version to version: `host.kernel`, `files.write`.
    pub id: String,
    /// What it belongs to.
    pub section: Section,
    /// The layer of the sandbox that it is about, if it is about one.
    pub layer: Option<Layer>,
    /// What was looked at, in a few words.
    pub title: String,
    /// What came out.
    pub verdict: Verdict,
    /// What that counts for.
    pub weight: Weight,
    /// What was found.
    pub found: String,
    /// What that costs; empty when all is well.
    pub means: String,
    /// The command or setting that mends it; empty when there is nothing to mend.
    pub fix: String,
}

impl Check {
    /// A finding that all is well.
    pub(crate) fn ok(id: &str, section: Section, title: &str, found: impl Into<String>) -> Self {
        Self {
            id: id.to_owned(),
            section,
            layer: None,
            title: title.to_owned(),
            verdict: Verdict::Ok,
            weight: Weight::Advice,
            found: found.into(),
            means: String::new(),
            fix: String::new(),
        }
    }

    /// The same with another verdict, and what it costs.
    pub(crate) fn but(self, verdict: Verdict, means: impl Into<String>) -> Self {
        Self { verdict, means: means.into(), ..self }
    }

    /// The same with what mends it.
    pub(crate) fn fix(self, fix: impl Into<String>) -> Self {
        Self { fix: fix.into(), ..self }
    }

    /// The same with another weight.
    pub(crate) fn weight(self, weight: Weight) -> Self {
        Self { weight, ..self }
    }

    /// The same about a layer.
    pub(crate) fn layer(self, layer: Layer) -> Self {
        Self { layer: Some(layer), ..self }
    }

    /// Whether a violation got through a wall that was said to be there.
    pub fn is_hole(&self) -> bool {
        self.section.is_proof() && self.verdict == Verdict::Failed
    }
}

/// What checks belong to, in the order that people see them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Section {
    /// The kernel and what it offers.
    Host,
    /// Control groups.
    Groups,
    /// Room for agents: descriptors, folders, disks.
    Room,
    /// Programs and data that agents like to find.
    Tools,
    /// What an agent with the default sandbox gets.
    Layers,
    /// Proofs: what is allowed works.
    Works,
    /// Proofs: files.
    Files,
    /// Proofs: sockets and networks.
    Network,
    /// Proofs: other processes.
    Processes,
    /// Proofs: the kernel's own surface.
    Kernel,
    /// Proofs: rights.
    Rights,
    /// Proofs: limits.
    Limits,
    /// Proofs: an end is the end.
    Life,
}

impl Section {
    /// Whether its checks attempted something, rather than to look.
    pub fn is_proof(self) -> bool {
        self >= Self::Works
    }
}

/// What came out of a check. Ordered: worse is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// All is well.
    Ok,
    /// It proves nothing here: the attempt fails without walls too.
    Unprovable,
    /// It works, and does less than it could.
    Weaker,
    /// It is not there.
    Missing,
    /// It is there and does not do what it says; of a proof: a violation got through.
    Failed,
}

impl Verdict {
    /// Every verdict, from good to bad.
    pub const ALL: [Self; 5] = [Self::Ok, Self::Unprovable, Self::Weaker, Self::Missing, Self::Failed];
}

/// What a check counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weight {
    /// Without it no agent with `compatibility: default` starts, or nothing can be kept.
    Required,
    /// It is part of the full sandbox.
    Full,
    /// Good to know.
    Advice,
}

/// How much must be there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Strictness {
    /// What agents with `compatibility: default` need, and no wall may have a hole.
    #[default]
    Default,
    /// The full sandbox.
    Strict,
}

/// Everything that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Where: kernel, processor, user.
    pub host: String,
    /// The checks, in the order of their sections.
    pub checks: Vec<Check>,
}

impl Report {
    /// How many checks have this verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.checks.iter().filter(|check| check.verdict == verdict).count()
    }

    /// Violations that got through.
    pub fn holes(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| check.is_hole())
    }

    /// The checks that speak against this host.
    pub fn faults(&self, strictness: Strictness) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(move |check| is_fault(check, strictness))
    }
}

/// Whether a check alone makes the host unfit.
fn is_fault(check: &Check, strictness: Strictness) -> bool {
    match (check.verdict, check.weight, strictness) {
        (Verdict::Failed, _, _) => true,
        (_, Weight::Advice, _) | (Verdict::Ok | Verdict::Unprovable, _, _) => false,
        (Verdict::Missing, Weight::Required, _) => true,
        (Verdict::Weaker | Verdict::Missing, _, strictness) => strictness == Strictness::Strict,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_against_a_host() {
        use Strictness::{Default, Strict};
        let check = |verdict, weight| {
            Check::ok("host.test", Section::Host, "a test", "found").but(verdict, "costs").weight(weight)
        };
        for (verdict, weight, by_default, strictly) in [
            (Verdict::Ok, Weight::Required, false, false),
            (Verdict::Unprovable, Weight::Full, false, false),
            (Verdict::Weaker, Weight::Required, false, true),
            (Verdict::Missing, Weight::Required, true, true),
            (Verdict::Missing, Weight::Full, false, true),
            (Verdict::Missing, Weight::Advice, false, false),
            (Verdict::Failed, Weight::Full, true, true),
            (Verdict::Failed, Weight::Advice, true, true),
        ] {
            let check = check(verdict, weight);
            let report = Report { host: String::new(), checks: vec![check] };
            assert_eq!(report.faults(Default).count() == 1, by_default, "{verdict:?} {weight:?}");
            assert_eq!(report.faults(Strict).count() == 1, strictly, "{verdict:?} {weight:?}");
            assert_eq!(report.holes().count(), 0, "a fact is no hole");
        }
    }
}
