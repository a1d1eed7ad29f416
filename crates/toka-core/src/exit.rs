//! How an agent ended. Every end has a cause that a person can act on; none is told as another.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ByteSize;
use crate::probe::ProbeKind;
use crate::units::format_duration;

/// The cause of an agent's end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cause", rename_all = "snake_case")]
pub enum Exit {
    /// The process ended by itself with this status, 0–255.
    Code {
        /// The exit status.
        code: i32,
    },
    /// A signal ended it that Toka did not send.
    Signal {
        /// The signal's number.
        signal: i32,
        /// Whether it left a core dump.
        core: bool,
    },
    /// The kernel's out-of-memory killer ended it.
    Oom {
        /// The most memory that it held, if the host tells.
        peak: Option<ByteSize>,
        /// Its limit.
        limit: ByteSize,
    },
    /// It lived longer than its timeout.
    Timeout {
        /// The timeout.
        limit: Duration,
    },
    /// It was alive and did nothing for longer than its watchdog allows, or did not say that it is alive.
    Watchdog {
        /// The watchdog's time.
        limit: Duration,
    },
    /// What it keeps on disk was more than it may.
    Disk {
        /// At least so much was there.
        used: ByteSize,
        /// Its limit.
        limit: ByteSize,
    },
    /// It keeps more files on disk than can be looked through again and again.
    Files {
        /// At least so many names were there, of folders and links too.
        found: u64,
        /// The most.
        limit: u64,
    },
    /// Its budget is used up, and nobody has given it more.
    Budget {
        /// What is used up, in words that go on after a colon.
        reason: String,
    },
    /// The program that works on its task reports that the task is not done, whatever code its process ended with.
    Undone {
        /// What it says, in words that go on after a colon.
        reason: String,
    },
    /// One of its probes failed for good.
    Probe {
        /// Which.
        probe: ProbeKind,
        /// What it said last.
        reason: String,
    },
    /// It was refused before it started, or its start failed.
    Denied {
        /// The layer or step, and what it said.
        reason: String,
    },
    /// It could not be started: the step that failed, and why.
    StartFailed {
        /// For people.
        reason: String,
    },
    /// Somebody stopped it.
    Stopped {
        /// Who: `operator`, `shutdown`, `SIGINT`, …
        by: String,
        /// How long it had not ended when Toka killed it: its grace period, or nothing when somebody wanted it killed at
        /// once. Absent when it ended by itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        killed_after: Option<Duration>,
    },
    /// It was never started, because the run was over before its turn, or somebody stopped it while it waited.
    NotStarted {
        /// Who: `end of run`, `operator`, `SIGINT`, …
        by: String,
    },
    /// It was never started, because there is nothing that it would do.
    Skipped {
        /// Why, in words that end a sentence.
        reason: String,
    },
    /// It ended in a way that its declaration counts as a success (`spec.success_exit_codes`).
    Accepted {
        /// The status or the signal.
        status: SuccessStatus,
    },
    /// Nobody saw its exit status.
    Unknown,
}

/// A way to end that a declaration counts as a success, besides the exit code 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SuccessStatus {
    /// An exit code, 0–255.
    Code(i32),
    /// A signal that Toka did not send, by its number.
    Signal(i32),
}

impl fmt::Display for SuccessStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => f.write_str(&signal_name(*signal)),
        }
    }
}

impl Exit {
    /// Whether the agent did what it was started for.
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Code { code: 0 } | Self::Accepted { .. })
    }

    /// The same end where the declaration counts these ways to end as a success.
    #[must_use]
    pub fn accepting(self, accepted: &[SuccessStatus]) -> Self {
        let status = match self {
            Self::Code { code } if code != 0 => SuccessStatus::Code(code),
            Self::Signal { signal, core: false } => SuccessStatus::Signal(signal),
            other => return other,
        };
        if accepted.contains(&status) { Self::Accepted { status } } else { self }
    }

    /// The same end of an agent that has not been started.
    #[must_use]
    pub fn before_start(self) -> Self {
        match self {
            Self::Stopped { by, .. } => Self::NotStarted { by },
            other => other,
        }
    }

    /// Who wanted it to end, if somebody did.
    pub fn asked_by(&self) -> Option<&str> {
        match self {
            Self::Stopped { by, .. } | Self::NotStarted { by } => Some(by),
            _ => None,
        }
    }

    /// The end that somebody asks for.
    pub fn stopped(by: impl Into<String>) -> Self {
        Self::Stopped { by: by.into(), killed_after: None }
    }

    /// The same end, of one that did not go by itself in that time.
    #[must_use]
    pub fn killed(self, after: Duration) -> Self {
        match self {
            Self::Stopped { by, .. } => Self::Stopped { by, killed_after: Some(after) },
            other => other,
        }
    }

    /// Whether somebody has to look into it: it did not do what it was started for, and nobody asked it to end.
    pub fn is_failure(&self) -> bool {
        !self.is_success() && !self.is_asked_for() && !self.is_skipped()
    }

    /// Whether somebody wanted it to end.
    pub fn is_asked_for(&self) -> bool {
        self.asked_by().is_some()
    }

    /// Whether there was nothing that it would have done.
    pub fn is_skipped(&self) -> bool {
        matches!(self, Self::Skipped { .. })
    }

    /// The exit status by which a program learns of it, as of the shell and of docker: the code, or 128 and the signal's
    /// number; 124 when time was up, 143 when somebody stopped it, 0 for what counts as a success or was skipped, 1 for any
    /// other end.
    pub fn status(&self) -> u8 {
        let status = match self {
            Self::Code { code } => *code,
            Self::Signal { signal, .. } => 128 + signal,
            // SIGKILL and SIGTERM (signal(7)).
            Self::Oom { .. } => 128 + 9,
            Self::Stopped { .. } => 128 + 15,
            Self::Timeout { .. } => 124,
            Self::Accepted { .. } | Self::Skipped { .. } => 0,
            Self::NotStarted { .. }
            | Self::Watchdog { .. }
            | Self::Probe { .. }
            | Self::Denied { .. }
            | Self::StartFailed { .. }
            | Self::Disk { .. }
            | Self::Files { .. }
            | Self::Budget { .. }
            | Self::Undone { .. }
            | Self::Unknown => 1,
        };
        u8::try_from(status).unwrap_or(1)
    }

    /// Whether it ended because time ran out (exit status 124 of `toka run`).
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout { .. })
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code { code: 0 } => f.write_str("succeeded"),
            Self::Code { code } => write!(f, "exit code {code}"),
            Self::Signal { signal, core } => {
                write!(f, "killed by {}", signal_name(*signal))?;
                if *core { f.write_str(" (core dumped)") } else { Ok(()) }
            }
            Self::Oom { peak: Some(peak), limit } => write!(f, "out of memory: peak {peak} of {limit}"),
            Self::Oom { peak: None, limit } => write!(f, "out of memory: limit {limit}"),
            Self::Timeout { limit } => write!(f, "timed out after {}", format_duration(*limit)),
            Self::Watchdog { limit } => write!(f, "no sign of life for {}", format_duration(*limit)),
            Self::Disk { used, limit } => write!(f, "disk usage {used} exceeds max_disk_usage {limit}"),
            Self::Files { found, limit } => {
                write!(f, "{found} files, above the {limit} that max_disk_usage allows whatever their size")
            }
            Self::Budget { reason } => write!(f, "out of budget: {reason}"),
            Self::Undone { reason } => write!(f, "not done: {reason}"),
            Self::Probe { probe, reason } => write!(f, "{probe} probe failed: {reason}"),
            Self::Denied { reason } => write!(f, "denied: {reason}"),
            Self::StartFailed { reason } => write!(f, "did not start: {reason}"),
            Self::Stopped { by, killed_after: None } => write!(f, "stopped by {by}"),
            Self::Stopped { by, killed_after: Some(Duration::ZERO) } => write!(f, "stopped by {by} (killed)"),
            Self::Stopped { by, killed_after: Some(after) } => {
                write!(f, "stopped by {by} (killed after {})", format_duration(*after))
            }
            Self::NotStarted { by } if by == END_OF_RUN => {
                f.write_str("not started: the run ended before its turn")
            }
            Self::NotStarted { by } => write!(f, "not started: stopped by {by} before its turn"),
            Self::Skipped { reason } => write!(f, "skipped: {reason}"),
            Self::Accepted { status } => write!(f, "succeeded with {status}"),
            Self::Unknown => f.write_str("exit status unknown"),
        }
    }
}

/// Who stops the agents of a run that has nothing left to do.
pub const END_OF_RUN: &str = "end of run";

/// The name of a Linux signal on x86-64 and AArch64 (signal(7)).
pub fn signal_name(signal: i32) -> String {
    const NAMES: [&str; 32] = [
        "0",
        "SIGHUP",
        "SIGINT",
        "SIGQUIT",
        "SIGILL",
        "SIGTRAP",
        "SIGABRT",
        "SIGBUS",
        "SIGFPE",
        "SIGKILL",
        "SIGUSR1",
        "SIGSEGV",
        "SIGUSR2",
        "SIGPIPE",
        "SIGALRM",
        "SIGTERM",
        "SIGSTKFLT",
        "SIGCHLD",
        "SIGCONT",
        "SIGSTOP",
        "SIGTSTP",
        "SIGTTIN",
        "SIGTTOU",
        "SIGURG",
        "SIGXCPU",
        "SIGXFSZ",
        "SIGVTALRM",
        "SIGPROF",
        "SIGWINCH",
        "SIGIO",
        "SIGPWR",
        "SIGSYS",
    ];
    usize::try_from(signal)
        .ok()
        .and_then(|at| NAMES.get(at))
        .map_or_else(|| format!("signal {signal}"), |name| (*name).to_owned())
}
