//! What follows from the answers to one probe: nothing, until enough of one kind have come in a row.

use std::num::NonZeroU32;

use toka_core::Probe;
use toka_core::probe::ProbeKind;

/// What a probe says of its agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Nothing yet.
    Open,
    Good,
    Bad,
}

/// A verdict that has become another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    /// What it is now.
    pub(super) ok: bool,
    /// Why, in words that fit into a sentence of an event.
    pub(super) reason: String,
}

/// The verdict on one probe, and the answers that speak against it.
#[derive(Debug)]
pub(super) struct Judge {
    successes_needed: NonZeroU32,
    failures_needed: NonZeroU32,
    verdict: Verdict,
    successes: u32,
    failures: u32,
}

impl Judge {
    /// What holds before the first answer is as in Kubernetes: an agent is alive, and it is not ready. That its readiness
    /// fails at first is told all the same: whoever waits for it wants to know why.
    pub(super) fn new(kind: ProbeKind, probe: &Probe) -> Self {
        let at_least_one = |count| NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        Self {
            successes_needed: at_least_one(probe.success_threshold),
            failures_needed: at_least_one(probe.failure_threshold),
            verdict: match kind {
                ProbeKind::Startup | ProbeKind::Readiness => Verdict::Open,
                ProbeKind::Liveness => Verdict::Good,
            },
            successes: 0,
            failures: 0,
        }
    }

    /// Whether one more failure would be the last.
    pub(super) fn would_fail(&self) -> bool {
        self.verdict != Verdict::Bad && self.failures.saturating_add(1) >= self.failures_needed.get()
    }

    /// Takes an answer, a failure with its reason.
    pub(super) fn hear(&mut self, answer: Result<(), String>) -> Option<Change> {
        let (to, row, needed) = match answer {
            Ok(()) => {
                self.failures = 0;
                (Verdict::Good, &mut self.successes, self.successes_needed.get())
            }
            Err(_) => {
                self.successes = 0;
                (Verdict::Bad, &mut self.failures, self.failures_needed.get())
            }
        };
        *row = row.saturating_add(1);
        if *row < needed || self.verdict == to {
            return None;
        }
        self.verdict = to;
        let reason = match (answer, needed) {
            (Ok(()), 1) => "its check succeeded".to_owned(),
            (Ok(()), count) => format!("its check succeeded {count} times in a row"),
            (Err(reason), 1) => reason,
            (Err(reason), count) => format!("{reason} ({count} failures in a row)"),
        };
        Some(Change { ok: to == Verdict::Good, reason })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use toka_core::ProbeCheck;

    use super::*;

    fn probe(success_threshold: u32, failure_threshold: u32) -> Probe {
        Probe {
            check: ProbeCheck::Notify,
            initial_delay: Duration::ZERO,
            period: Duration::from_secs(10),
            timeout: Duration::from_secs(1),
            success_threshold,
            failure_threshold,
        }
    }

    fn bad() -> Result<(), String> {
        Err("nobody listens".to_owned())
    }

    #[test]
    fn the_reason_is_the_last_answers() {
        let mut judge = Judge::new(ProbeKind::Liveness, &probe(1, 2));
        assert_eq!(judge.hear(bad()), None);
        let change = judge.hear(Err("status 500".to_owned())).expect("the second failure");
        assert_eq!(change, Change { ok: false, reason: "status 500 (2 failures in a row)".to_owned() });
    }

    #[test]
    fn before_the_first_answer_an_agent_is_alive_and_not_ready() {
        for (kind, answer, says) in [
            (ProbeKind::Startup, bad(), Some(false)),
            (ProbeKind::Startup, Ok(()), Some(true)),
            (ProbeKind::Readiness, bad(), Some(false)),
            (ProbeKind::Readiness, Ok(()), Some(true)),
            (ProbeKind::Liveness, bad(), Some(false)),
            (ProbeKind::Liveness, Ok(()), None),
        ] {
            let change = Judge::new(kind, &probe(1, 1)).hear(answer.clone());
            assert_eq!(change.map(|change| change.ok), says, "{kind} {answer:?}");
        }
    }

    proptest! {
        #[test]
        fn a_change_takes_exactly_its_threshold_in_a_row(
            successes in 0u32..4,
            failures in 0u32..4,
            kind in prop::sample::select(vec![ProbeKind::Startup, ProbeKind::Readiness, ProbeKind::Liveness]),
            answers in prop::collection::vec(any::<bool>(), 0..60),
        ) {
            let mut judge = Judge::new(kind, &probe(successes, failures));
            let mut verdict = match kind {
                ProbeKind::Startup | ProbeKind::Readiness => None,
                ProbeKind::Liveness => Some(true),
            };
            for (at, good) in answers.iter().enumerate() {
                let needed = if *good { successes } else { failures }.max(1) as usize;
                let row = answers[..=at].iter().rev().take_while(|other| *other == good).count();
                let due = row >= needed && verdict != Some(*good);
                let change = judge.hear(if *good { Ok(()) } else { bad() });
                prop_assert_eq!(change.map(|change| change.ok), due.then_some(*good));
                if due {
                    verdict = Some(*good);
                }
            }
        }
    }
}
