//! Whether an agent is ready: what its probes or its own `READY=1` say, unless it has said that it reloads or stops.

use toka_core::state::Happening;
use toka_core::{AgentState, EventKind};

use super::Actor;
use crate::Processes;

/// What of an agent's readiness is known, in one life.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Readiness {
    serves: Serves,
    spell: Spell,
}

/// What its probes say, or its word where it has none that decide.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Serves {
    Yes,
    #[default]
    NotYet,
    No {
        why: String,
    },
}

/// What it has said of itself that keeps it from being ready, whatever its probes say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Spell {
    #[default]
    None,
    /// `RELOADING=1`, until the next `READY=1`.
    Reloading,
    /// `STOPPING=1`, until its end.
    Stopping,
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Ready,
    NotReady { why: String },
}

impl Readiness {
    /// A probe, or its word, says that it can be used.
    pub(super) fn serves(&mut self) {
        self.serves = Serves::Yes;
    }

    /// A probe says that it cannot.
    pub(super) fn fails(&mut self, why: String) {
        self.serves = Serves::No { why };
    }

    /// It reloads its configuration.
    pub(super) fn reloads(&mut self) {
        if self.spell != Spell::Stopping {
            self.spell = Spell::Reloading;
        }
    }

    /// It has reloaded it.
    pub(super) fn has_reloaded(&mut self) {
        if self.spell == Spell::Reloading {
            self.spell = Spell::None;
        }
    }

    /// It ends by itself.
    pub(super) fn stops(&mut self) {
        self.spell = Spell::Stopping;
    }

    fn verdict(&self) -> Verdict {
        let why = match (self.spell, &self.serves) {
            (Spell::None, Serves::Yes) => return Verdict::Ready,
            (Spell::Reloading, _) => "reloading",
            (Spell::Stopping, _) => "stopping",
            (Spell::None, Serves::NotYet) => "it has not said READY=1",
            (Spell::None, Serves::No { why }) => why,
        };
        Verdict::NotReady { why: why.to_owned() }
    }
}

impl<P: Processes> Actor<P> {
    /// It said that it is ready. Where a probe decides about that, its word is a sign to the probe at most.
    pub(super) async fn on_ready(&mut self) {
        if let Some(probing) = &self.probing {
            probing.prober.on_notify_ready();
        }
        let probes = &self.profile.probes;
        let decides = probes.readiness.is_none() && probes.startup.is_none();
        self.turn(|readiness| {
            readiness.has_reloaded();
            if decides {
                readiness.serves();
            }
        })
        .await;
    }

    /// Learns something, and tells it if the agent thereby becomes ready or is so no more.
    pub(super) async fn turn(&mut self, learn: impl FnOnce(&mut Readiness)) {
        learn(&mut self.readiness);
        match self.readiness.verdict() {
            Verdict::Ready if !self.state.is_ready() && self.is_up() => {
                if self.step(Happening::BecameReady) {
                    self.emit(EventKind::AgentReady).await;
                }
            }
            Verdict::NotReady { why } if self.state.is_ready() => {
                if self.step(Happening::LostReadiness) {
                    self.emit(EventKind::AgentNotReady { reason: why }).await;
                }
            }
            Verdict::Ready | Verdict::NotReady { .. } => {}
        }
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self.state, AgentState::Running { .. } | AgentState::Paused { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(readiness: &Readiness) -> bool {
        readiness.verdict() == Verdict::Ready
    }

    #[test]
    fn a_reload_hides_what_probes_say_until_it_is_over() {
        let mut readiness = Readiness::default();
        readiness.serves();
        assert!(ready(&readiness));
        readiness.reloads();
        readiness.serves();
        assert!(!ready(&readiness));
        readiness.has_reloaded();
        assert!(ready(&readiness));
        readiness.reloads();
        readiness.fails("status 503".to_owned());
        readiness.has_reloaded();
        assert_eq!(readiness.verdict(), Verdict::NotReady { why: "status 503".to_owned() });
    }

    #[test]
    fn nothing_follows_after_it_has_said_that_it_stops() {
        let mut readiness = Readiness::default();
        readiness.serves();
        readiness.stops();
        readiness.reloads();
        readiness.has_reloaded();
        readiness.serves();
        assert_eq!(readiness.verdict(), Verdict::NotReady { why: "stopping".to_owned() });
    }
}
