//! What the watchdog finds, how far it goes, and which event tells of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::EventKind;

/// How far a silence has come, with N the agent's `watchdog`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// From N on: an event, and nothing else.
    Warn,
    /// From 2N on: [`Stage::SIGNAL`] to the main process. An end that follows is laid to the watchdog
    /// (`Exit::Watchdog`), whatever its status.
    Signal,
    /// From 3N on: it is stopped, and killed after its grace period, with `Exit::Watchdog`; the agent's restart policy says whether it begins again.
    Restart,
}

impl Stage {
    /// The signal of [`Stage::Signal`]: SIGABRT, 6 on every Linux (signal(7)). It is what systemd sends when a watchdog
    /// runs out (`WatchdogSignal=`, systemd.kill(5)), so that programs which know watchdogs expect it. It makes a core dump where
    /// those are on, makes Go programs print all stacks, and Python ones as well with `PYTHONFAULTHANDLER`. SIGQUIT,
    /// the other that dumps core, is for others an order to end in peace (nginx, PHP-FPM) or to print and go on (the
    /// JVM).
    pub const SIGNAL: i32 = 6;

    /// The stage of a silence this long; `None` before N, and without an N.
    pub fn after(quiet_for: Duration, limit: Duration) -> Option<Self> {
        match quiet_for.as_nanos().checked_div(limit.as_nanos())? {
            0 => None,
            1 => Some(Self::Warn),
            2 => Some(Self::Signal),
            _ => Some(Self::Restart),
        }
    }
}

/// A time without signs of life, and what was used in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Silence {
    /// When the last sign was seen, on the caller's clock; a look that came too late moves it.
    pub since: Duration,
    /// How long ago that is.
    pub quiet_for: Duration,
    /// CPU time used since, in microseconds, where it is known. After a look that had no figures, from the last on that
    /// had them.
    pub cpu_us: Option<u64>,
    /// Bytes of output since; other than zero only for an agent that speaks in keep-alives.
    pub output_bytes: u64,
    /// Bytes of I/O since, where they are known; other than zero as above.
    pub io_bytes: Option<u64>,
}

/// What one look found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// There was a sign of life since the last look.
    Alive,
    /// There was none, and it is not long enough to speak of.
    Quiet {
        /// Since the last sign, CPU use included.
        silence: Silence,
    },
    /// It uses CPU, and for N there was no progress, output or I/O. That is what a long computation looks like too, so
    /// it is told and nothing is done.
    Spinning {
        /// Since the last sign other than CPU use.
        silence: Silence,
    },
    /// It is alive and has done nothing for N.
    Wedged {
        /// What is due. A stage holds until a sign of life or the next one; whoever acts, acts when it is new.
        stage: Stage,
        /// Since the last sign, CPU use included.
        silence: Silence,
    },
}

impl Finding {
    /// The event that tells of this finding, if it says something else than the one before it.
    pub fn event_after(&self, earlier: &Self) -> Option<EventKind> {
        match *self {
            Self::Wedged { stage, silence } if earlier.stage() != Some(stage) => {
                Some(EventKind::AgentWedged {
                    stage,
                    quiet_ms: millis(silence.quiet_for),
                    cpu_us: silence.cpu_us,
                    output_bytes: silence.output_bytes,
                    io_bytes: silence.io_bytes,
                })
            }
            Self::Spinning { silence } if !matches!(earlier, Self::Spinning { .. }) => {
                Some(EventKind::AgentSpinning { quiet_ms: millis(silence.quiet_for), cpu_us: silence.cpu_us })
            }
            Self::Alive | Self::Quiet { .. } => match earlier {
                Self::Wedged { silence, .. } | Self::Spinning { silence } => {
                    Some(EventKind::AgentRecovered { quiet_ms: millis(silence.quiet_for) })
                }
                Self::Alive | Self::Quiet { .. } => None,
            },
            Self::Wedged { .. } | Self::Spinning { .. } => None,
        }
    }

    /// The stage that is due, if it is wedged.
    pub fn stage(&self) -> Option<Stage> {
        match self {
            Self::Wedged { stage, .. } => Some(*stage),
            _ => None,
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
