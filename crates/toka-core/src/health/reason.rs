//! Everything that can speak against an agent's health, each with how bad it is and a sentence.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Verdict;
use crate::pressure::Hold;
use crate::probe::ProbeKind;
use crate::status::unmet_in_words;
use crate::units::format_duration;
use crate::watchdog::Stage;
use crate::{AgentName, Approval, Exit, Layer, Unmet};

/// Why an agent is not better. As text it may hold what the agent said: escape it before a terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Reason {
    /// It has failed.
    Failed {
        /// How.
        exit: Exit,
    },
    /// It has ended well, and not all of its objectives are met.
    Unmet {
        /// Their descriptions.
        objectives: Vec<Box<str>>,
    },
    /// It is being stopped because it failed.
    Failing {
        /// How it will have ended.
        exit: Exit,
    },
    /// It failed too often to be started again.
    Quarantined {
        /// How it ended last.
        exit: Exit,
        /// How often it was restarted.
        restarts: u32,
    },
    /// It cannot start.
    Blocked {
        /// The dependency that did not succeed.
        by: AgentName,
        /// What was required of it, and how it is.
        #[serde(skip_serializing_if = "Option::is_none")]
        why: Option<Box<Unmet>>,
    },
    /// The kernel killed processes of this life of it for memory.
    OomKilled {
        /// How many.
        kills: u64,
        /// Its limit, in bytes, if the host tells.
        #[serde(skip_serializing_if = "Option::is_none")]
        limit: Option<u64>,
    },
    /// It runs, and came back again and again.
    Restarted {
        /// How often within the time over which restarts are counted.
        count: usize,
        /// That time, in milliseconds.
        window_ms: u64,
        /// How it ended last.
        #[serde(skip_serializing_if = "Option::is_none")]
        exit: Option<Exit>,
    },
    /// It has not started, since what it waits for is not so yet.
    Waits {
        /// What.
        #[serde(flatten)]
        unmet: Box<Unmet>,
    },
    /// It failed, and waits for its restart.
    Backoff {
        /// Which restart that will be, from 1.
        restarts: u32,
        /// How it ended.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit: Option<Exit>,
        /// When it is started again, in milliseconds since the Unix epoch.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next_start_ms: Option<i64>,
    },
    /// It could start, and the host has no room for it.
    HeldBack {
        /// What there is too little of.
        #[serde(flatten)]
        hold: Hold,
    },
    /// It gives no sign of life.
    Wedged {
        /// How far its watchdog is.
        stage: Stage,
        /// For how long there was none when that was told, in milliseconds.
        quiet_ms: u64,
    },
    /// It used CPU and showed nothing else.
    Spinning {
        /// For how long, as above.
        quiet_ms: u64,
        /// CPU time that it used in that time, in microseconds, where it is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cpu_us: Option<u64>,
    },
    /// One of its probes fails.
    ProbeFails {
        /// Which.
        probe: ProbeKind,
        /// What it said.
        why: Box<str>,
    },
    /// It is not ready any more.
    NotReady {
        /// Why.
        why: Box<str>,
    },
    /// It is not ready yet, within the time that it declares for that.
    ComingUp {
        /// That time, in milliseconds.
        allowed_ms: u64,
    },
    /// It is not ready yet, though it should be.
    Late {
        /// The time that was declared for it, in milliseconds.
        allowed_ms: u64,
    },
    /// It waits for a person.
    AwaitsApproval {
        /// For what.
        #[serde(flatten)]
        approval: Approval,
    },
    /// Its processes are frozen.
    Paused,
    /// It holds almost all the memory that it may.
    MemoryNearLimit {
        /// Of its limit.
        percent: u32,
    },
    /// It waits for memory.
    MemoryPressure {
        /// Of the last ten seconds.
        percent: u32,
    },
    /// It waits for storage.
    IoPressure {
        /// Of the last ten seconds.
        percent: u32,
    },
    /// Its CPU quota holds it back.
    Throttled {
        /// Of the time that it has run.
        percent: u32,
    },
    /// It has almost all the processes that it may.
    ProcessesNearLimit {
        /// Of its limit.
        percent: u32,
    },
    /// It holds almost all the storage that it may.
    DiskNearLimit {
        /// Of its limit.
        percent: u32,
    },
    /// It runs, and could not be started again.
    NotStartable {
        /// Why.
        why: Box<str>,
    },
    /// It was stopped because its daemon ended, and could not be begun again by the next one.
    CutOff {
        /// Why.
        why: Box<str>,
    },
    /// A layer of its confinement is weaker than it demands.
    Unenforced {
        /// Which.
        layer: Layer,
        /// What is missing and why.
        reasons: Vec<String>,
    },
}

impl Reason {
    /// How bad it is.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Failed { .. }
            | Self::Failing { .. }
            | Self::Quarantined { .. }
            | Self::Blocked { .. }
            | Self::Backoff { .. }
            | Self::Wedged { .. }
            | Self::CutOff { .. }
            | Self::ProbeFails { .. } => Verdict::Unhealthy,
            Self::Waits { .. } => Verdict::Starting,
            Self::HeldBack { .. }
            | Self::Unmet { .. }
            | Self::OomKilled { .. }
            | Self::Restarted { .. }
            | Self::Spinning { .. }
            | Self::NotReady { .. }
            | Self::Late { .. }
            | Self::AwaitsApproval { .. }
            | Self::Paused
            | Self::MemoryNearLimit { .. }
            | Self::MemoryPressure { .. }
            | Self::IoPressure { .. }
            | Self::Throttled { .. }
            | Self::ProcessesNearLimit { .. }
            | Self::DiskNearLimit { .. }
            | Self::NotStartable { .. }
            | Self::Unenforced { .. } => Verdict::Degraded,
            Self::ComingUp { .. } => Verdict::Starting,
        }
    }

    /// Whether it says already that the agent cannot be used.
    pub(super) fn is_about_readiness(&self) -> bool {
        matches!(self, Self::ProbeFails { probe: ProbeKind::Readiness | ProbeKind::Startup, .. })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed { exit } => write!(f, "{exit}"),
            Self::Unmet { objectives } => f.write_str(&unmet_in_words(objectives).unwrap_or_default()),
            Self::Failing { exit } => write!(f, "is being stopped: {exit}"),
            Self::Quarantined { exit, restarts } => {
                let plural = if *restarts == 1 { "" } else { "s" };
                write!(f, "given up after {restarts} restart{plural}: {exit}")
            }
            Self::Blocked { why: Some(why), .. } => write!(f, "{why}"),
            Self::Blocked { by, why: None } => write!(f, "{by} did not succeed"),
            Self::Waits { unmet } => write!(f, "{unmet}"),
            Self::OomKilled { kills, limit } => {
                let plural = if *kills == 1 { "a process".to_owned() } else { format!("{kills} processes") };
                write!(f, "the kernel killed {plural} of it for memory")?;
                match limit {
                    Some(limit) => write!(f, ", at {}", crate::ByteSize(*limit)),
                    None => Ok(()),
                }
            }
            Self::Restarted { count, window_ms, exit } => {
                let times = if *count == 1 { "once".to_owned() } else { format!("{count} times") };
                let window = format_duration(Duration::from_millis(*window_ms));
                write!(f, "restarted {times} within {window}")?;
                match exit {
                    Some(exit) => write!(f, ", last after: {exit}"),
                    None => Ok(()),
                }
            }
            Self::Backoff { restarts, exit, .. } => match exit {
                Some(exit) => write!(f, "waits for restart {restarts}: {exit}"),
                None => write!(f, "waits for restart {restarts}"),
            },
            Self::HeldBack { hold } => write!(f, "waits for its start: {hold}"),
            Self::AwaitsApproval { approval } => {
                write!(f, "waits for a person (`toka approvals`, {}): {}", approval.id, approval.subject)
            }
            Self::Wedged { stage, quiet_ms } => {
                write!(f, "no sign of life for {}: {}", duration(*quiet_ms), of_stage(*stage))
            }
            Self::Spinning { quiet_ms, cpu_us } => f.write_str(&crate::event::spinning(*quiet_ms, *cpu_us)),
            Self::ProbeFails { probe, why } => write!(f, "{probe} probe fails: {why}"),
            Self::NotReady { why } => write!(f, "not ready: {why}"),
            Self::ComingUp { allowed_ms } => {
                write!(f, "not ready yet; its probes allow {}", duration(*allowed_ms))
            }
            Self::Late { allowed_ms } => {
                write!(f, "not ready after the {} that its probes allow", duration(*allowed_ms))
            }
            Self::Paused => f.write_str("paused"),
            Self::MemoryNearLimit { percent } => write!(f, "memory at {percent} % of its limit"),
            Self::MemoryPressure { percent } => write!(f, "waits for memory {percent} % of the time"),
            Self::IoPressure { percent } => write!(f, "waits for storage {percent} % of the time"),
            Self::Throttled { percent } => {
                write!(f, "held back by its CPU quota {percent} % of the time")
            }
            Self::ProcessesNearLimit { percent } => write!(f, "processes at {percent} % of their limit"),
            Self::DiskNearLimit { percent } => write!(f, "disk usage at {percent} % of its limit"),
            Self::CutOff { why } => write!(f, "cannot go on: {why}"),
            Self::NotStartable { why } => write!(f, "cannot be started again: {why}"),
            Self::Unenforced { layer, reasons } => {
                write!(f, "{} is weaker than it demands", layer.as_str())?;
                if reasons.is_empty() { Ok(()) } else { write!(f, ": {}", reasons.join("; ")) }
            }
        }
    }
}

fn duration(ms: u64) -> String {
    format_duration(Duration::from_millis(ms))
}

/// What its watchdog has done about it.
fn of_stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Warn => "warned",
        Stage::Signal => "asked for a dump",
        Stage::Restart => "to be restarted",
    }
}
