//! What becomes of an agent when one of its times has come: a pure function of the policy and of what it is doing.

use serde::{Deserialize, Serialize};

/// What to do when a time comes and the agent still runs from an earlier one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// The new time is passed over.
    #[default]
    Skip,
    /// It is started once more as soon as it has ended; more than one such start does not wait.
    Queue,
    /// It is stopped, and then started.
    Replace,
}

/// What to do about times that came while nobody could start it: Toka did not run, or the machine slept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CatchUp {
    /// They are passed over.
    #[default]
    None,
    /// It is started once for all of them.
    Last,
}

/// What the agent is doing when a time comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Busy {
    /// It does not run, and is not about to.
    Idle,
    /// It runs, or waits for its restart.
    Running,
    /// It runs, and a further start waits for its end.
    RunningAndQueued,
}

/// What is done about a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// It is started.
    Start,
    /// Nothing.
    Skip(SkipReason),
    /// It is started when it has ended.
    QueueOne,
    /// It is stopped, and started when it has ended.
    StopThenStart,
}

/// Why a time was passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    /// It, or a task that follows it, had not ended, and the policy is [`Overlap::Skip`].
    StillRunning,
    /// It was to start already, and has not begun: it waits for another agent, or for its turn.
    NotBegun,
    /// It failed, and waits for its restart.
    BackOff,
    /// A person paused it.
    Paused,
    /// Its last start has not ended, and one more waited already.
    AlreadyQueued,
    /// It came while nobody could start it, and the policy is [`CatchUp::None`] or a later time was caught up with.
    Missed,
    /// An agent that it requires has come to its end without meeting what is required of it.
    Unmet,
}

impl SkipReason {
    /// In words that end a sentence.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StillRunning => "its last start has not ended",
            Self::NotBegun => "its last start still waits for its turn",
            Self::BackOff => "it failed, and waits for its restart",
            Self::Paused => "it is paused",
            Self::AlreadyQueued => "its last start has not ended, and one more waits already",
            Self::Missed => "nobody was there to start it",
            Self::Unmet => "what it requires has ended otherwise",
        }
    }
}

impl Overlap {
    /// What is done when a time comes while the agent is so `busy`.
    pub fn decide(self, busy: Busy) -> Move {
        match (self, busy) {
            (_, Busy::Idle) => Move::Start,
            (Self::Skip, _) => Move::Skip(SkipReason::StillRunning),
            (Self::Queue, Busy::Running) => Move::QueueOne,
            // A stop that was asked for already brings about the start that waits.
            (Self::Queue | Self::Replace, Busy::RunningAndQueued) => Move::Skip(SkipReason::AlreadyQueued),
            (Self::Replace, Busy::Running) => Move::StopThenStart,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An agent that takes its time, and what was decided about it.
    #[derive(Debug, Default)]
    struct Course {
        running: usize,
        queued: usize,
        stopping: bool,
    }

    impl Course {
        fn busy(&self) -> Busy {
            match (self.running, self.queued) {
                (0, _) => Busy::Idle,
                (_, 0) => Busy::Running,
                _ => Busy::RunningAndQueued,
            }
        }

        fn due(&mut self, overlap: Overlap) {
            match overlap.decide(self.busy()) {
                Move::Start => self.running += 1,
                Move::Skip(_) => {}
                Move::QueueOne => self.queued += 1,
                Move::StopThenStart => (self.queued, self.stopping) = (self.queued + 1, true),
            }
        }

        fn ended(&mut self) {
            if self.running > 0 {
                (self.running, self.queued) = (self.queued, 0);
                self.stopping = false;
            }
        }
    }

    proptest! {
        #[test]
        fn it_never_runs_twice_and_at_most_one_start_waits(
            overlap in prop::sample::select(vec![Overlap::Skip, Overlap::Queue, Overlap::Replace]),
            steps in prop::collection::vec(any::<bool>(), 0..60),
        ) {
            let mut course = Course::default();
            for is_due in steps {
                let before = course.busy();
                if is_due { course.due(overlap) } else { course.ended() }
                prop_assert!(course.running <= 1 && course.queued <= 1, "{course:?}");
                prop_assert!(!is_due || before != Busy::Idle || course.running == 1, "a time is never lost when it is idle");
                prop_assert!(course.queued == 0 || overlap != Overlap::Skip);
                prop_assert!(!course.stopping || overlap == Overlap::Replace);
            }
        }
    }

    #[test]
    fn a_queue_of_one() {
        assert_eq!(Overlap::Queue.decide(Busy::Running), Move::QueueOne);
        assert_eq!(Overlap::Queue.decide(Busy::RunningAndQueued), Move::Skip(SkipReason::AlreadyQueued));
        assert_eq!(Overlap::Replace.decide(Busy::Running), Move::StopThenStart);
        assert_eq!(Overlap::Skip.decide(Busy::Running), Move::Skip(SkipReason::StillRunning));
    }
}
