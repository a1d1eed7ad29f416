//! When an ended agent is started again.

use std::time::Duration;

use serde::Serialize;

/// `spec.restart`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Restart {
    /// After which ends.
    pub policy: RestartPolicy,
    /// Restarts within [`Restart::window`] before it is given up.
    pub max_restarts: u32,
    /// The time over which restarts are counted.
    pub window: Duration,
    /// The wait before each restart.
    pub backoff: Backoff,
}

impl Restart {
    /// The given policy with every other value at its default.
    pub fn with_policy(policy: RestartPolicy) -> Self {
        Self { policy, max_restarts: 5, window: Duration::from_secs(600), backoff: Backoff::default() }
    }
}

/// After which ends an agent is started again; the names are systemd's and Compose's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Never.
    No,
    /// After every end that nobody asked for.
    Always,
    /// After every end but a success.
    OnFailure,
    /// After a signal, a timeout or the watchdog, not after an exit code.
    OnAbnormal,
    /// After the watchdog only.
    OnWatchdog,
    /// Like always, and not after a stop that outlives the supervisor.
    UnlessStopped,
}

/// The wait before a restart, which grows from one to the next.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Backoff {
    /// Before the first restart.
    pub initial: Duration,
    /// The longest wait.
    pub max: Duration,
    /// Growth, at least 1.
    pub multiplier: f64,
    /// Share of the wait that is drawn at random, 0 to 1.
    pub jitter: f64,
    /// A life this long makes the next wait the first again.
    pub reset_after: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            initial: Duration::from_secs(1),
            max: Duration::from_secs(60),
            multiplier: 2.0,
            jitter: 0.25,
            reset_after: Duration::from_secs(60),
        }
    }
}
