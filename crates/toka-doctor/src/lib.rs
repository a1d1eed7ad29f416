//! The only crate that attacks the host that it runs on: `toka doctor` finds out whether the host has what confinement takes,
//! and whether the walls hold, which attacks prove.
//!
//! ```text
//! facts ──▶ inspections ───────────────────────────▶ checks ──▶ Report
//! test bed: keeper ─▶ sandbox ─▶ probe ─▶ answers ─▶ judge ──────▲
//!           the same probe, unconfined ─▶ control ──────▲
//! ```
//!
//! The probes are agents with the default sandbox, started in the way of all agents. Each attempt is also made without a
//! sandbox: one that fails there too proves nothing, and is called so. Looking and trying are apart from deciding: `check`,
//! `judge` and `inspections` are pure, so that a hole can be shown to be found without making one.

mod attempt;
mod check;
mod facts;
mod inspections;
mod judge;
mod leftovers;
mod limits;
pub mod probe;
mod proofs;
mod target_dir;
mod test_bed;

use std::path::PathBuf;

use toka_core::LayerReport;

pub use check::{Check, Report, Section, Strictness, Verdict, Weight};
use facts::Facts;
use test_bed::{SetupError, TestBed};

/// Where to look.
#[derive(Debug, Clone)]
pub struct DoctorOptions {
    /// Where state is kept, or would be.
    pub state_dir: PathBuf,
    /// Where sockets and secrets are, or would be.
    pub run_dir: PathBuf,
    /// The `toka` binary: it is re-entered as the keeper and as the probe.
    pub toka_exe: PathBuf,
    /// Name of the control group and of the temporary folder for the probes, which nobody else uses.
    pub name: String,
}

/// How far to go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Depth {
    /// Looks, and tries.
    #[default]
    Proofs,
    /// Only looks.
    Facts,
}

/// Examines this host. Makes nothing but a temporary folder and control groups of its own, and removes them. To be called in
/// a runtime of one thread, before anything else runs in it.
pub async fn examine(options: &DoctorOptions, depth: Depth) -> Report {
    let facts = Facts::gather(options);
    let mut checks = inspections::inspect(&facts);
    let (layers, proofs) = match depth {
        Depth::Facts => (None, Vec::new()),
        Depth::Proofs => match prove(options, &facts).await {
            Ok((layers, proofs)) => (Some(layers), proofs),
            Err(trouble) => (None, vec![not_tried(trouble)]),
        },
    };
    checks.extend(inspections::layers(&facts, layers.as_deref()));
    checks.extend(proofs);
    checks.sort_by_key(|check| check.section);
    Report { host: host(&facts), checks }
}

/// Attacks the walls.
async fn prove(options: &DoctorOptions, facts: &Facts) -> Result<(Vec<LayerReport>, Vec<Check>), SetupError> {
    let mut test_bed = TestBed::open(options, &facts.host).await?;
    let attempted = proofs::attempt_all(&mut test_bed).await;
    let limits = match &attempted {
        Ok(_) => limits::attempt_all(&mut test_bed).await,
        Err(_) => Vec::new(),
    };
    test_bed.close().await;
    let (mut checks, enforcement) = attempted?;
    checks.extend(limits);
    Ok((enforcement.layers, checks))
}

/// A host on which no probe runs has nothing to prove, and no agent would run either.
fn not_tried(trouble: SetupError) -> Check {
    Check::ok("works.start", Section::Works, "start a confined probe", trouble)
        .but(Verdict::Missing, "no wall was tried, and agents do not start here")
        .fix("mend what is missing above; if nothing is, report this with the output of toka doctor --json")
        .weight(Weight::Required)
}

fn host(facts: &Facts) -> String {
    let user = match facts.host.uid {
        0 => "root".to_owned(),
        uid => format!("user {uid}"),
    };
    format!("Linux {} on {}, {user}", facts.release, facts.machine)
}
