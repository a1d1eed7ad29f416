//! From facts to findings: what a fact is worth, what it costs, and the command that mends it. Pure.

mod groups;
mod kernel;
mod state_dir;

#[cfg(test)]
pub(super) mod tests;

use toka_core::{Coverage, Layer, LayerReport};

use super::check::{Check, Section, Verdict, Weight};
use super::facts::Facts;

/// Every finding that takes no attempt.
pub(super) fn inspect(facts: &Facts) -> Vec<Check> {
    let mut checks = kernel::inspect(facts);
    checks.extend(groups::inspect(facts));
    checks.extend(state_dir::inspect(facts));
    checks
}

/// What an agent with the default sandbox gets, layer by layer. `reports` is what a start reported, or what the facts promise.
pub(super) fn layers(facts: &Facts, reports: Option<&[LayerReport]>) -> Vec<Check> {
    match (&facts.default, reports) {
        (Err(trouble), _) => vec![
            Check::ok("layer.plan", Section::Layers, "the default sandbox", trouble)
                .but(Verdict::Missing, "no agent can be confined")
                .fix(super::proofs::HOLE)
                .weight(Weight::Required),
        ],
        (Ok(default), reports) => {
            let reports = reports.unwrap_or(&default.enforcement.layers);
            let is_required = |layer| default.lacking.iter().any(|report| report.layer == layer);
            reports.iter().map(|report| layer(report, is_required(report.layer))).collect()
        }
    }
}

fn layer(report: &LayerReport, is_required: bool) -> Check {
    let (id, title, means, fix) = words(report.layer);
    let check = |found: String| Check::ok(id, Section::Layers, title, found).layer(report.layer);
    let reasons = report.reasons.join("; ");
    let check = match report.coverage {
        Coverage::Full => check("full".to_owned()),
        Coverage::Partial => check(format!("partial: {reasons}")).but(Verdict::Weaker, means).fix(fix),
        Coverage::None => check(format!("none: {reasons}")).but(Verdict::Missing, means).fix(fix),
    };
    check.weight(if is_required { Weight::Required } else { Weight::Full })
}

/// Id, title, what a lack of it costs, where the cure is.
fn words(layer: Layer) -> (&'static str, &'static str, &'static str, &'static str) {
    match layer {
        Layer::Mounts => (
            "layer.mounts",
            "a view of files of its own",
            "agents see names of files and of processes outside, can change rights and times of files, and talk to sockets",
            "see host.namespaces",
        ),
        Layer::Landlock => (
            "layer.landlock",
            "rules on files, signals, sockets",
            "one wall less around files, and signals and abstract sockets of the same user are open",
            "see host.landlock",
        ),
        Layer::Seccomp => (
            "layer.seccomp",
            "a filter of system calls",
            "agents reach all of the kernel's surface",
            "see host.seccomp",
        ),
        Layer::Network => (
            "layer.network",
            "no network, unless declared",
            "agents reach the network, or not what they may reach",
            "see host.namespaces",
        ),
        Layer::Cgroup => (
            "layer.cgroup",
            "limits, figures, freeze and kill",
            "limits hold for single processes only, nothing is accounted, and no agent can be paused",
            "see groups.layout",
        ),
        Layer::Process => (
            "layer.process",
            "no rights, no descriptors",
            "agents keep rights of their user that they do not need",
            "declare limits that the kernel can enforce",
        ),
    }
}

/// A list as people read it.
fn listed<T: AsRef<str>>(words: &[T]) -> String {
    words.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ")
}
