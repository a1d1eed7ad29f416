//! Whether an agent is well, and why not: one pure judgement over what is known of it, what it uses, and the clock, so that
//! the terminal, the control socket and the metrics never disagree.
//!
//! ```text
//! ended  <  healthy  <  starting  <  degraded  <  unhealthy
//! ```
//!
//! A state has a verdict, and so has each [`Reason`]; the worst of them is the agent's, the worst of its agents' is the
//! project's. So a further reason can only make a verdict worse.

mod reason;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use reason::Reason;

use crate::{AgentState, AgentStatus, Compatibility, Coverage, Enforcement, Layer, Probe, Probes, Resources};

/// An agent that holds more of its memory limit than this, in percent, is close to the out-of-memory killer. The page cache
/// counts, as the limit counts it.
pub const MEMORY_NEAR_LIMIT: u32 = 90;
/// The same of its limit of processes: the next fork may fail.
pub const PROCESSES_NEAR_LIMIT: u32 = 90;
/// The same of the storage that it may hold: above the limit it is ended.
pub const DISK_NEAR_LIMIT: u32 = 90;
/// An agent that waits for memory for more than this share of the last ten seconds, in percent, thrashes. systemd-oomd kills
/// at 60 (`DefaultMemoryPressureLimit` of oomd.conf(5)); this is to be seen before.
pub const MEMORY_PRESSURE: u32 = 40;
/// The same for I/O, which a build may well wait for half of the time.
pub const IO_PRESSURE: u32 = 70;
/// An agent that its CPU quota held back for more than this share of its life, in percent, has a quota that does not fit.
pub const THROTTLED: u32 = 50;
/// A life shorter than this is no measure for a share of it.
const SHORTEST_MEASURED: Duration = Duration::from_secs(10);

/// How well an agent, a project or a daemon is. Ordered: worse is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It has come to its end, and did what it was for or was stopped; or it is about to.
    Ended,
    /// It does what it is for.
    Healthy,
    /// It is on the way, within the time that it declares for that.
    Starting,
    /// It works, and somebody should look.
    Degraded,
    /// It does not do what it is for.
    Unhealthy,
}

impl Verdict {
    /// Every verdict, the best first.
    pub const ALL: [Self; 5] = [Self::Ended, Self::Healthy, Self::Starting, Self::Degraded, Self::Unhealthy];

    /// The word that people and programs see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Healthy => "healthy",
            Self::Starting => "starting",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }

    /// The worst of several; of none, [`Verdict::Ended`]: nothing is left that could be well.
    pub fn worst(verdicts: impl IntoIterator<Item = Self>) -> Self {
        verdicts.into_iter().max().unwrap_or(Self::Ended)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Whether an agent is to say that it is ready.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Readiness {
    /// Nobody asks: it is well when it runs.
    #[default]
    Unasked,
    /// A probe decides, and this is the time that its declaration allows until then.
    Within(Duration),
}

impl Readiness {
    /// What follows from the probes of an agent. Where one that says it is ready has no probe that decides about it, nobody
    /// knows whether it ever will.
    pub fn of(probes: &Probes) -> Self {
        let deciding = [&probes.startup, &probes.readiness].into_iter().flatten();
        let allowed = deciding.map(patience).reduce(Duration::saturating_add);
        allowed.map_or(Self::Unasked, Self::Within)
    }
}

/// How long a probe may take to make up its mind.
fn patience(probe: &Probe) -> Duration {
    let answers = probe.failure_threshold.max(probe.success_threshold).max(1);
    let asked = probe.period.saturating_mul(answers);
    probe.initial_delay.saturating_add(asked).saturating_add(probe.timeout)
}

/// What an agent declares that its health is measured by.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// Whether it is to be ready.
    pub readiness: Readiness,
    /// How much of its confinement has to be in force.
    pub compatibility: Compatibility,
    /// The names of what it measures, in the order of its declaration.
    pub metrics: Vec<String>,
    /// The time over which its restarts are counted; absent when it is not restarted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_window: Option<Duration>,
    /// Why it cannot be started again, whatever becomes of the life that it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unstartable: Option<Box<str>>,
    /// Why it does not go on after its daemon ended, although it should.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut_off: Option<Box<str>>,
}

/// What it uses of what it may use at most, in percent; absent where there is no limit or the host does not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Shares {
    /// Memory held, of its limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u32>,
    /// Processes and threads, of their limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<u32>,
    /// Storage held, of its limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<u32>,
    /// Time in which its CPU quota held it back, of the time that it has run; 100 at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttled: Option<u32>,
}

impl Shares {
    fn of(resources: &Resources, uptime_ms: Option<u64>) -> Self {
        let measured = uptime_ms.filter(|uptime| Duration::from_millis(*uptime) >= SHORTEST_MEASURED);
        let uptime_us = measured.map(|uptime| uptime.saturating_mul(1000));
        Self {
            memory: share(resources.memory_current, resources.memory_limit),
            processes: share(resources.processes, resources.processes_limit),
            disk: share(resources.disk_used, resources.disk_limit),
            throttled: share(resources.throttled_us, uptime_us).map(|share| share.min(100)),
        }
    }
}

/// The health of one agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HealthReport {
    /// How well it is.
    pub verdict: Verdict,
    /// Why it is not better, the worst first.
    pub reasons: Vec<Reason>,
    /// How long it has run in this life, in milliseconds; absent when it does not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uptime_ms: Option<u64>,
    /// What is known of it.
    #[serde(flatten)]
    pub status: AgentStatus,
    /// What it holds and uses at the moment; absent when it has no process, or nobody asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// The same as shares of its limits.
    #[serde(default)]
    pub shares: Shares,
}

impl HealthReport {
    /// Judges an agent at `now_ms`, in milliseconds since the Unix epoch.
    pub fn of(status: AgentStatus, resources: Option<Resources>, expected: &Expected, now_ms: i64) -> Self {
        let uptime_ms = uptime(&status, now_ms);
        let shares = resources.as_ref().map(|used| Shares::of(used, uptime_ms)).unwrap_or_default();
        let mut reasons: Vec<Reason> = of_state(&status).into_iter().collect();
        let approvals = status.approvals.iter().cloned();
        reasons.extend(approvals.map(|approval| Reason::AwaitsApproval { approval }));
        reasons.extend(status.held.map(|hold| Reason::HeldBack { hold }));
        reasons.extend(status.waits.clone().map(|unmet| Reason::Waits { unmet }));
        reasons.extend(of_watchdog(&status));
        if status.state.is_final() {
            reasons.extend(expected.cut_off.clone().map(|why| Reason::CutOff { why }));
        } else {
            reasons.extend(expected.unstartable.clone().map(|why| Reason::NotStartable { why }));
        }
        if is_up(&status.state) {
            reasons.extend(of_probes(&status));
            if !reasons.iter().any(Reason::is_about_readiness) {
                reasons.extend(of_readiness(&status, expected.readiness, uptime_ms));
            }
            reasons.extend(of_resources(resources.as_ref(), shares));
            reasons.extend(of_restarts(&status, expected.restart_window, now_ms));
            reasons.extend(of_enforcement(&status, expected.compatibility));
        }
        // Stable: of two that are equally bad, the one that says more about the state comes first.
        reasons.sort_by_key(|reason| std::cmp::Reverse(reason.verdict()));
        let verdict = worst_of(&status, &reasons);
        Self { verdict, reasons, uptime_ms, status, resources, shares }
    }
}

fn worst_of(status: &AgentStatus, reasons: &[Reason]) -> Verdict {
    Verdict::worst(reasons.iter().map(Reason::verdict).chain([of_bare_state(status)]))
}

/// The verdict when nothing speaks against it.
fn of_bare_state(status: &AgentStatus) -> Verdict {
    match &status.state {
        AgentState::Pending if status.started_by.is_some() => Verdict::Healthy,
        AgentState::Pending | AgentState::Starting => Verdict::Starting,
        AgentState::Running { .. } | AgentState::Paused { .. } | AgentState::Backoff { .. } => {
            Verdict::Healthy
        }
        AgentState::Stopping { .. }
        | AgentState::Ended { .. }
        | AgentState::Blocked { .. }
        | AgentState::Quarantined { .. } => Verdict::Ended,
    }
}

fn of_state(status: &AgentStatus) -> Option<Reason> {
    match &status.state {
        AgentState::Blocked { by, why } => Some(Reason::Blocked { by: by.clone(), why: why.clone() }),
        AgentState::Quarantined { exit, restarts } => {
            Some(Reason::Quarantined { exit: exit.clone(), restarts: *restarts })
        }
        AgentState::Backoff { restarts } => Some(Reason::Backoff {
            restarts: *restarts,
            exit: status.last.as_ref().map(|last| last.exit.clone()),
            next_start_ms: status.next_start_ms,
        }),
        AgentState::Ended { exit } if exit.is_failure() => Some(Reason::Failed { exit: exit.clone() }),
        AgentState::Ended { .. } if !status.unmet.is_empty() => {
            Some(Reason::Unmet { objectives: status.unmet.clone() })
        }
        AgentState::Stopping { exit } if !exit.is_asked_for() => Some(Reason::Failing { exit: exit.clone() }),
        // Why it is, is a reason of its own.
        AgentState::Paused { .. } if status.approvals.is_empty() => Some(Reason::Paused),
        _ => None,
    }
}

fn of_watchdog(status: &AgentStatus) -> Option<Reason> {
    use crate::status::Wedged;
    match status.wedged? {
        Wedged::Silent { stage, quiet_ms } => Some(Reason::Wedged { stage, quiet_ms }),
        Wedged::Spinning { quiet_ms, cpu_us } => Some(Reason::Spinning { quiet_ms, cpu_us }),
    }
}

/// Whether it has a life that can be asked about.
fn is_up(state: &AgentState) -> bool {
    matches!(state, AgentState::Running { .. } | AgentState::Paused { .. })
}

fn uptime(status: &AgentStatus, now_ms: i64) -> Option<u64> {
    let runs = is_up(&status.state) || matches!(status.state, AgentState::Stopping { .. });
    let started_ms = status.started_ms.filter(|_| runs)?;
    Some(u64::try_from(now_ms.saturating_sub(started_ms)).unwrap_or(0))
}

/// What a probe found in a former life says nothing about this one.
fn of_probes(status: &AgentStatus) -> impl Iterator<Item = Reason> {
    let begun = status.started_ms.unwrap_or(i64::MIN);
    let fails = move |probe: &&crate::status::ProbeStatus| !probe.ok && probe.since_ms >= begun;
    status
        .probes
        .iter()
        .filter(fails)
        .map(|found| Reason::ProbeFails { probe: found.probe, why: found.reason.clone() })
}

fn of_readiness(status: &AgentStatus, readiness: Readiness, uptime_ms: Option<u64>) -> Option<Reason> {
    if status.state.is_ready() {
        return None;
    }
    if let Some(why) = &status.not_ready {
        return Some(Reason::NotReady { why: why.clone() });
    }
    let Readiness::Within(allowed) = readiness else { return None };
    let allowed_ms = u64::try_from(allowed.as_millis()).unwrap_or(u64::MAX);
    Some(match uptime_ms.unwrap_or(0) {
        up if up <= allowed_ms => Reason::ComingUp { allowed_ms },
        _ => Reason::Late { allowed_ms },
    })
}

fn of_resources(resources: Option<&Resources>, shares: Shares) -> impl Iterator<Item = Reason> {
    let pressure = resources.map(|used| used.pressure).unwrap_or_default();
    let above = |share: Option<u32>, limit: u32| share.filter(|share| *share > limit);
    [
        above(shares.memory, MEMORY_NEAR_LIMIT).map(|percent| Reason::MemoryNearLimit { percent }),
        oom_kills(resources),
        above(pressure.memory.map(percent), MEMORY_PRESSURE)
            .map(|percent| Reason::MemoryPressure { percent }),
        above(pressure.io.map(percent), IO_PRESSURE).map(|percent| Reason::IoPressure { percent }),
        above(shares.throttled, THROTTLED).map(|percent| Reason::Throttled { percent }),
        above(shares.processes, PROCESSES_NEAR_LIMIT).map(|percent| Reason::ProcessesNearLimit { percent }),
        above(shares.disk, DISK_NEAR_LIMIT).map(|percent| Reason::DiskNearLimit { percent }),
    ]
    .into_iter()
    .flatten()
}

fn oom_kills(resources: Option<&Resources>) -> Option<Reason> {
    let used = resources?;
    let kills = used.oom_kills.filter(|kills| *kills > 0)?;
    Some(Reason::OomKilled { kills, limit: used.memory_limit })
}

/// An agent that falls over and comes back is not well, whatever it does at the moment.
fn of_restarts(status: &AgentStatus, window: Option<Duration>, now_ms: i64) -> Option<Reason> {
    let window_ms = u64::try_from(window?.as_millis()).unwrap_or(u64::MAX);
    let since = now_ms.saturating_sub_unsigned(window_ms);
    let count = status.restarted_ms.iter().filter(|time| **time >= since).count();
    let exit = status.last.as_ref().map(|last| last.exit.clone());
    (count > 0).then_some(Reason::Restarted { count, window_ms, exit })
}

/// What falls short of what the agent demands of its confinement. What falls short only of what could be is no trouble of
/// its health: whoever demands less was told so before it started.
fn of_enforcement(status: &AgentStatus, demanded: Compatibility) -> impl Iterator<Item = Reason> {
    let enforcement = status.enforcement.as_deref();
    let short = enforcement.into_iter().flat_map(move |known| {
        known.layers.iter().filter(move |report| is_short(known, report.layer, demanded))
    });
    short.map(|report| Reason::Unenforced { layer: report.layer, reasons: report.reasons.clone() })
}

fn is_short(enforcement: &Enforcement, layer: Layer, demanded: Compatibility) -> bool {
    let coverage = |layer| enforcement.coverage(layer);
    match (demanded, layer) {
        (Compatibility::BestEffort, _) => false,
        (Compatibility::Strict, layer) => coverage(layer) != Coverage::Full,
        (Compatibility::Default, Layer::Seccomp) => coverage(layer) == Coverage::None,
        (Compatibility::Default, Layer::Mounts) => {
            coverage(layer) == Coverage::None && coverage(Layer::Landlock) == Coverage::None
        }
        (Compatibility::Default, _) => false,
    }
}

/// A share in whole percent.
fn share(part: Option<u64>, whole: Option<u64>) -> Option<u32> {
    let (part, whole) = (part?, whole.filter(|whole| *whole > 0)?);
    u32::try_from(u128::from(part) * 100 / u128::from(whole)).ok().or(Some(u32::MAX))
}

/// A figure of the kernel in whole percent.
fn percent(share: f64) -> u32 {
    // A float that does not fit becomes the nearest number that does.
    share.round() as u32
}
