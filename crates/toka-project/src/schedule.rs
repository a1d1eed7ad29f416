//! Agents that the clock starts: what is done when a time of one has come.
//!
//! ```text
//! WallTimer ─▶ Timetable ─▶ due ─▶ Overlap::decide ─▶ start, queue, stop and start, pass over ─▶ journal
//! ```

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use jiff::Timestamp;
use toka_core::schedule::{Busy, Move, SkipReason};
use toka_core::{AgentName, AgentState, CatchUp, EventKind, Exit, Request};
use toka_store::{Filter, Reader};
use toka_workstream::{Agent, Start};

use crate::Project;
use crate::batch::{Batch, Then};
use crate::timetable::{Due, Timetable, Timing};
use crate::wall_timer::WallTimer;

/// Who asks for what the clock brings about.
const CLOCK: &str = "schedule";

/// What tells that somebody was there to start an agent.
const SIGNS: [&str; 3] = ["schedule_armed", "schedule_fired", "schedule_skipped"];

/// The times of a project's agents, and what wakes it at them.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    timetable: Timetable,
    /// Made with the first schedule: a project without any never wakes for this.
    alarm: Option<WallTimer>,
}

impl Clock {
    /// Until there is a time to look at.
    pub(crate) async fn ring(&self) {
        match &self.alarm {
            Some(alarm) => alarm.ring().await,
            None => std::future::pending().await,
        }
    }

    fn wind(&mut self) -> std::io::Result<()> {
        let moment = self.timetable.wake_at();
        if self.alarm.is_none() && moment.is_some() {
            self.alarm = Some(WallTimer::new()?);
        }
        self.alarm.as_ref().map_or(Ok(()), |alarm| alarm.set(moment))
    }
}

/// When a time of each agent was last seen to, by the journal of earlier runs; of those that want to make up for times that
/// were missed.
pub(crate) fn last_seen(journal: &Path, agents: &[Agent]) -> HashMap<AgentName, Timestamp> {
    let catches_up =
        |agent: &&Agent| agent.schedule.as_ref().is_some_and(|schedule| schedule.catch_up == CatchUp::Last);
    let mut reader = Reader::new(journal);
    let mut last = |agent: &Agent| {
        let types = SIGNS.map(str::to_owned).into();
        let filter = Filter { agent: Some(agent.name.clone()), types, run: None };
        // A journal that cannot be read is told of by whoever opens it for writing.
        let time_ms = reader.events(0, &filter, usize::MAX).ok()?.last()?.time_ms;
        Some((agent.name.clone(), Timestamp::from_millisecond(time_ms).ok()?))
    };
    agents.iter().filter(catches_up).filter_map(&mut last).collect()
}

impl Project {
    /// Follows the schedules of those of `agents` that have one, with what was missed `since` then, and reports of those that
    /// ask for it.
    pub(crate) fn follow(&mut self, agents: &[Agent], since: &HashMap<AgentName, Timestamp>) {
        let now = Timestamp::now();
        for Agent { name, schedule, .. } in agents {
            let Some(schedule) = schedule.as_ref().filter(|_| !self.clock.timetable.has(name)) else {
                continue;
            };
            let next = self.clock.timetable.add(name, schedule, since.get(name).copied(), now);
            self.arm(name, next);
            if next.is_none() {
                self.forgo(name);
            }
        }
        self.wind();
        self.open_reports(agents);
    }

    /// Forgets the schedules and reports of all agents that `keeps` does not name.
    pub(crate) fn follow_only(&mut self, keeps: impl Fn(&AgentName) -> bool) {
        self.clock.timetable.retain(&keeps);
        self.keep_reports(keeps);
    }

    /// Does what is due, and looks at the clock again.
    pub(crate) async fn attend_clock(&mut self) {
        let now = Timestamp::now();
        for due in self.clock.timetable.take_due(now) {
            self.come_due(due).await;
        }
        for (agent, next) in self.clock.timetable.review(now) {
            self.arm(&agent, Some(next));
        }
        self.wind();
    }

    fn wind(&mut self) {
        if let Err(error) = self.clock.wind() {
            let message = format!("no agent is started by its schedule: the timer cannot be set: {error}");
            drop(self.journal.record(None, EventKind::Warning { message }));
        }
    }

    fn arm(&self, agent: &AgentName, next: Option<Timestamp>) {
        let armed = EventKind::ScheduleArmed { next_ms: next.map(Timestamp::as_millisecond) };
        drop(self.journal.record(Some(agent.clone()), armed));
    }

    async fn come_due(&mut self, due: Due) {
        if self.state.ending().is_some() {
            return;
        }
        let Due { agent, next, .. } = &due;
        let todo = self.decide_due(&due);
        let (due_ms, next_ms) = (due.time.as_millisecond(), next.map(Timestamp::as_millisecond));
        let event = match todo {
            Move::Skip(reason) => {
                let (reason, busy) = self.why_skipped(agent, reason);
                EventKind::ScheduleSkipped { due_ms, reason, busy, next_ms }
            }
            _ => EventKind::ScheduleFired { due_ms, next_ms },
        };
        drop(self.journal.record(Some(agent.clone()), event));
        match todo {
            Move::Start => self.start_by_clock(agent).await,
            Move::StopThenStart => self.when_gone(agent, Then::BeginAnew),
            Move::QueueOne => self.when_gone(agent, Then::BeginAnewAtItsEnd),
            Move::Skip(_) => {}
        }
        if next.is_none() {
            self.forgo(agent);
        }
    }

    /// Why a time is skipped, and because of which other agent. What the agent does itself comes before what follows it.
    fn why_skipped(&self, agent: &AgentName, reason: SkipReason) -> (SkipReason, Option<AgentName>) {
        let awaited = || self.state.waits_for(&self.plan, agent).map(|unmet| unmet.on);
        let is_called = !self.state.waits_to_be_called(&self.plan, agent);
        match (reason, self.state.state_of(&self.plan, agent)) {
            (SkipReason::Unmet, _) => (reason, self.state.lacks_required(&self.plan, agent)),
            (SkipReason::StillRunning, Some(AgentState::Pending)) if is_called => {
                (SkipReason::NotBegun, awaited())
            }
            (SkipReason::StillRunning, Some(AgentState::Backoff { .. })) => (SkipReason::BackOff, awaited()),
            (SkipReason::StillRunning, Some(AgentState::Paused { .. })) => (SkipReason::Paused, None),
            (SkipReason::AlreadyQueued, Some(AgentState::Pending)) if is_called => (reason, awaited()),
            (SkipReason::StillRunning | SkipReason::AlreadyQueued, Some(state)) if state.is_alive() => {
                (reason, awaited())
            }
            (SkipReason::StillRunning | SkipReason::AlreadyQueued, _) => {
                (reason, self.running_follower(agent))
            }
            (SkipReason::Missed | SkipReason::NotBegun | SkipReason::BackOff | SkipReason::Paused, _) => {
                (reason, None)
            }
        }
    }

    fn decide_due(&self, due: &Due) -> Move {
        let busy = self.busy(&due.agent);
        if due.timing == Timing::Missed {
            Move::Skip(SkipReason::Missed)
        } else if busy == Busy::Idle && self.state.lacks_required(&self.plan, &due.agent).is_some() {
            Move::Skip(SkipReason::Unmet)
        } else {
            due.overlap.decide(busy)
        }
    }

    fn busy(&self, agent: &AgentName) -> Busy {
        let waits = |batch: &Batch| !matches!(batch.then, Then::Nothing) && batch.agents.contains(agent);
        if self.batches.iter().any(waits) {
            return Busy::RunningAndQueued;
        }
        if self.running_follower(agent).is_some() {
            return Busy::Running;
        }
        let is_over = self.state.state_of(&self.plan, agent).is_none_or(AgentState::is_final);
        if is_over || self.state.waits_to_be_called(&self.plan, agent) { Busy::Idle } else { Busy::Running }
    }

    /// The first task that still works on what the last run of `agent` left, or is about to: a new run would change that under
    /// its hands.
    fn running_follower(&self, agent: &AgentName) -> Option<AgentName> {
        self.engaged_followers(agent).into_iter().next()
    }

    /// The tasks that follow `agent` and have not ended, in the order of the plan: those that run, and those that start when
    /// what they wait for is done, which is under way.
    pub(crate) fn engaged_followers(&self, agent: &AgentName) -> Vec<AgentName> {
        let state_of = |name: &AgentName| self.state.state_of(&self.plan, name);
        let is_alive = |name: &AgentName| state_of(name).is_some_and(AgentState::is_alive);
        let mut engaged: Vec<AgentName> = Vec::new();
        for name in self.plan.followers(agent) {
            let is_pending = state_of(&name) == Some(&AgentState::Pending);
            let is_next = is_pending
                && match self.state.waits_for(&self.plan, &name) {
                    None => !self.state.waits_to_be_called(&self.plan, &name),
                    Some(unmet) => is_alive(&unmet.on) || engaged.contains(&unmet.on),
                };
            if is_next || is_alive(&name) {
                engaged.push(name);
            }
        }
        engaged
    }

    /// The agent with the tasks that follow it and have not ended: when all are gone, it begins anew with them.
    pub(crate) fn pipeline(&self, agent: &AgentName) -> BTreeSet<AgentName> {
        self.engaged_followers(agent).into_iter().chain([agent.clone()]).collect()
    }

    /// An agent that has waited for its time, or for somebody, waits for its gates from now on, and all that follow it wait for
    /// it again.
    pub(crate) async fn call_with_followers(&mut self, agent: &AgentName, by: &str) {
        self.call(agent);
        let ended =
            |name: &AgentName| self.state.state_of(&self.plan, name).is_some_and(AgentState::is_final);
        let followers: BTreeSet<AgentName> = self.plan.followers(agent).into_iter().filter(ended).collect();
        if !followers.is_empty() {
            self.come_back(followers, by).await;
        }
    }

    async fn start_by_clock(&mut self, agent: &AgentName) {
        if self.state.waits_to_be_called(&self.plan, agent) {
            self.call_with_followers(agent, CLOCK).await;
        } else if self.is_over_for(agent) {
            self.come_back(BTreeSet::from([agent.clone()]), CLOCK).await;
        } else {
            // Its end is not in the journal yet.
            self.when_gone(agent, Then::BeginAnew);
        }
    }

    /// It does not wait for the clock any longer.
    pub(crate) fn call(&mut self, agent: &AgentName) {
        if let Err(error) = self.state.call(&self.plan, agent) {
            tracing::error!(%agent, %error, "its time has come, and it is unknown");
        }
    }

    fn when_gone(&mut self, agent: &AgentName, then: Then) {
        self.begin_batch(self.pipeline(agent), CLOCK, then);
    }

    /// One that waits for the clock again, and whose times were over meanwhile, need not wait.
    pub(crate) fn forgo_without_times(&mut self, agent: &AgentName) {
        let at = self.plan.position(agent);
        let is_timed = at.is_some_and(|at| self.plan.nodes()[at].start == Start::Clock);
        if is_timed && !self.clock.timetable.has(agent) {
            self.forgo(agent);
        }
    }

    /// It has no more times. One that waits for the clock would do so forever.
    fn forgo(&mut self, agent: &AgentName) {
        self.state.forgo_clock(&self.plan, agent);
        if self.state.waits_to_be_called(&self.plan, agent) {
            let message = "its schedule has no more times, and it was never started".to_owned();
            drop(self.journal.record(Some(agent.clone()), EventKind::Warning { message }));
            self.ask_to_stop(agent, Exit::stopped(CLOCK.to_owned()), Request::Stop, CLOCK);
        }
    }
}

#[cfg(test)]
mod tests {
    use toka_core::{Event, Name, RunId};
    use toka_workstream::LoadOptions;

    use super::*;
    use crate::journal::{Journal, Stamp};

    fn agents() -> Vec<Agent> {
        let document = |name: &str, catch_up: &str| {
            format!(
                "---\nmetadata: {{name: {name}}}\nspec: {{process: {{command: [x]}}, \
                 schedule: {{cron: '@daily', catch_up: {catch_up}}}}}\n"
            )
        };
        let text =
            ["careful", "new"].map(|name| document(name, "last")).concat() + &document("careless", "none");
        let path = Path::new("/w/all.yaml");
        let loaded = toka_workstream::load_texts([(path, text.as_str())], &LoadOptions::default());
        loaded.set.expect("valid").agents
    }

    #[tokio::test]
    async fn the_journal_knows_when_a_schedule_was_last_seen_to() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal.db");
        assert!(last_seen(&path, &agents()).is_empty(), "there is no journal yet");
        let name = |text: &str| Name::new(text).expect("a label");
        let stamp = Stamp { project: name("p"), run: RunId::from_uuid(uuid::Uuid::now_v7()) };
        let (listener, mut told) = tokio::sync::mpsc::unbounded_channel::<Event>();
        let journal = Journal::open(&path, stamp, vec![listener]).expect("a journal");
        for agent in ["careful", "careless"] {
            journal.record(Some(name(agent)), EventKind::ScheduleArmed { next_ms: Some(1) }).await;
        }
        journal.record(Some(name("careful")), EventKind::AgentReady).await;
        drop(journal);
        let armed = told.recv().await.expect("told").time_ms;
        let seen = last_seen(&path, &agents());
        assert_eq!(seen.len(), 1, "{seen:?}");
        assert_eq!(seen[&name("careful")].as_millisecond(), armed);
    }
}
