//! What the journal tells of a run that another daemon began: the state of each agent, and of its earlier lives as much as
//! its clocks and its restart policy have to know.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use toka_core::event::{Awaits, Return};
use toka_core::restart::Lives;
use toka_core::{AgentName, AgentState, Event, EventKind, Exit, RunStatus};
use toka_runtime::{Adopted, AdoptedProcess, AdoptedTask, Restarts, Said};
use toka_workstream::{Agent, Start};

use crate::exec::UnfinishedExec;

/// A run as its events tell it.
#[derive(Debug, Default)]
pub(crate) struct ReplayedRun {
    pub(crate) status: RunStatus,
    /// Commands beside agents of which no end was told, by their numbers.
    pub(crate) left: BTreeMap<u64, UnfinishedExec>,
    /// The highest number that such a command had.
    pub(crate) last_exec: u64,
    /// Who ended the daemon, if it was ended, the run was not, and no other has gone on with it.
    interrupted_by: Option<String>,
    histories: HashMap<AgentName, History>,
    /// Those whose folders were made in this run: right before their first start, or when a change brought them.
    with_folders: BTreeSet<AgentName>,
}

/// Something that a daemon had begun with agents, and not finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Begun {
    pub(crate) agents: BTreeSet<AgentName>,
    /// Who asked for it.
    pub(crate) by: String,
    pub(crate) then: Return,
}

/// The lives of one agent, in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Default, PartialEq)]
struct History {
    stage: Stage,
    /// Whether its time has come, where the clock starts it.
    is_called: bool,
    /// What follows its end, and who asked for that.
    returns: Option<(String, Return, Vec<AgentName>)>,
    /// Whether it was stopped because its daemon ended.
    is_cut: bool,
    /// How it would have ended, had its daemon not: it was being stopped by a clock already.
    ending: Option<Exit>,
    /// Its main process, while it has one.
    pid: Option<i32>,
    born_ms: i64,
    life_ms: i64,
    started_ms: Option<i64>,
    /// How long this life was paused, and since when it is.
    paused_ms: i64,
    paused_since_ms: Option<i64>,
    restarted_ms: Vec<i64>,
    /// The wait before the life that comes next.
    delay_ms: u64,
    hasty: u32,
    /// The tasks of this life that are under way, by their places: try, number, beginning.
    tasks: BTreeMap<usize, (u32, u64, i64)>,
    begun: u64,
    /// What it has said once in this life.
    said: Said,
}

/// How far an agent has come since it was to begin.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
enum Stage {
    /// It waits for its turn.
    #[default]
    Waiting,
    /// It was started.
    Begun,
    /// Its next life is due, now or after a wait.
    Due,
}

impl ReplayedRun {
    pub(crate) fn of(events: &[Event]) -> Self {
        let mut replayed = Self::default();
        for event in events {
            replayed.status.observe(event);
            match (&event.agent, &event.kind) {
                (None, EventKind::RunInterrupted { by }) => replayed.interrupted_by = Some(by.clone()),
                // It has decided what becomes of them.
                (None, EventKind::RunAdopted { .. }) => replayed.interrupted_by = None,
                (None, EventKind::RunChanged { added, changed, removed, .. }) => {
                    replayed.with_folders.extend(added.iter().chain(changed).cloned());
                    replayed
                        .histories
                        .retain(|agent, _| !changed.contains(agent) && !removed.contains(agent));
                }
                (None, _) => {}
                (Some(agent), kind) => {
                    replayed.observe_exec(agent, event);
                    if let EventKind::AgentStarting = kind {
                        replayed.with_folders.insert(agent.clone());
                    }
                    let history = replayed.histories.entry(agent.clone()).or_default();
                    history.observe(event.time_ms, kind);
                    history.observe_end(kind, replayed.interrupted_by.as_deref());
                }
            }
        }
        replayed
    }

    /// Whether the folders of an agent are still those of an earlier run, or not there.
    pub(crate) fn lacks_folders(&self, agent: &AgentName) -> bool {
        !self.with_folders.contains(agent)
    }

    fn observe_exec(&mut self, agent: &AgentName, event: &Event) {
        match event.kind {
            EventKind::ExecStarted { exec, .. } => {
                let left = UnfinishedExec { agent: agent.clone(), exec, begun_ms: event.time_ms };
                self.left.insert(exec, left);
                self.last_exec = self.last_exec.max(exec);
            }
            EventKind::ExecEnded { exec, .. } => drop(self.left.remove(&exec)),
            _ => {}
        }
    }

    /// Those of `agents` that were stopped because the daemon ended and go on as after a crash of the machine, with what
    /// they wait for: what waited still does; what was alive begins its next life if its restart policy starts it after an
    /// end that nobody knows, or after the one that a clock had begun.
    pub(crate) fn interrupted(&self, agents: &[Agent]) -> BTreeMap<AgentName, Awaits> {
        let goes_on = |agent: &Agent| {
            let history = self.histories.get(&agent.name).filter(|history| history.is_cut)?;
            let awaits = match history.stage {
                Stage::Waiting if agent.start != Start::Plan && !history.is_called => Awaits::Clock,
                Stage::Waiting => Awaits::Dependencies,
                Stage::Due => Awaits::Room,
                Stage::Begun => {
                    let exit = history.ending.as_ref().unwrap_or(&Exit::Unknown);
                    agent.restart.policy.wants(exit).then_some(Awaits::Room)?
                }
            };
            Some((agent.name.clone(), awaits))
        };
        agents.iter().filter_map(goes_on).collect()
    }

    /// What is to follow the end of agents: those together that were stopped together, and for which it still is so.
    pub(crate) fn begun(&self) -> Vec<Begun> {
        let mut begun: BTreeMap<_, BTreeSet<AgentName>> = BTreeMap::new();
        for (agent, history) in &self.histories {
            if let Some(returns) = &history.returns {
                begun.entry(returns.clone()).or_default().insert(agent.clone());
            }
        }
        begun.into_iter().map(|((by, then, _), agents)| Begun { agents, by, then }).collect()
    }

    /// The main process of an agent that the journal does not tell the end of.
    pub(crate) fn pid_of(&self, agent: &AgentName) -> Option<i32> {
        self.histories.get(agent)?.pid
    }

    /// The life of an agent at `now_ms`, with the process that the keeper has of it.
    pub(crate) fn life_of(&self, agent: &AgentName, process: Option<AdoptedProcess>, now_ms: i64) -> Adopted {
        let status = self.status.agent(agent);
        let history = self.histories.get(agent).cloned().unwrap_or_default();
        let state = status.map_or(AgentState::Pending, |status| status.state.clone());
        let restarts = status.map_or(0, |status| status.restart_count);
        let next = status.and_then(|status| status.next_start_ms);
        let age = since(history.born_ms, now_ms);
        Adopted {
            state,
            process,
            age,
            life: since(history.life_ms, now_ms),
            ran: history.ran(now_ms),
            lives: history.lives(age, restarts, now_ms),
            // A clock that was set back makes no wait longer than it was to be.
            next_life: next.map(|next| since(now_ms, next).min(Duration::from_millis(history.delay_ms))),
            restarts: Restarts::Free,
            tasks: history.tasks(now_ms),
            begun: history.begun,
            said: history.said,
            oom_kills: status.map_or(0, |status| status.oom_kills),
        }
    }
}

impl History {
    fn observe(&mut self, time_ms: i64, event: &EventKind) {
        match event {
            EventKind::AgentRequeued { awaits, .. } => {
                let stage = if *awaits == Awaits::Room { Stage::Due } else { Stage::Waiting };
                *self = Self { stage, is_called: *awaits != Awaits::Clock, ..Self::default() };
            }
            EventKind::AgentReturns { by, then, together } => {
                self.returns = then.map(|then| (by.clone(), then, together.clone()));
            }
            EventKind::ScheduleFired { .. } => self.is_called = true,
            EventKind::AgentStarting => {
                (self.stage, self.is_cut, self.ending) = (Stage::Begun, false, None);
                if self.born_ms == 0 {
                    self.born_ms = time_ms;
                }
                (self.life_ms, self.started_ms) = (time_ms, None);
                (self.paused_ms, self.paused_since_ms) = (0, None);
                (self.tasks, self.begun, self.said) = (BTreeMap::new(), 0, Said::default());
            }
            EventKind::AgentStarted { pid, .. } => (self.started_ms, self.pid) = (Some(time_ms), Some(*pid)),
            EventKind::AgentMainProcess { pid } => self.pid = Some(*pid),
            EventKind::AgentEnded { .. } | EventKind::AgentQuarantined { .. } => self.pid = None,
            EventKind::AgentPaused { .. } => self.paused_since_ms = Some(time_ms),
            EventKind::AgentResumed => {
                self.paused_ms += self.paused_since_ms.take().map_or(0, |since| time_ms - since);
            }
            EventKind::TaskStarted { index, attempt, .. } => {
                self.begun += 1;
                self.tasks.insert(*index, (*attempt, self.begun, time_ms));
            }
            EventKind::TaskEnded { index, .. } => drop(self.tasks.remove(index)),
            EventKind::ProbeChanged { probe, ok: true, .. } => drop(self.said.probes.insert(*probe)),
            EventKind::LogLineSeen { text } => drop(self.said.lines.insert(text.clone())),
            EventKind::AgentRestarting { delay_ms, .. } => {
                (self.stage, self.pid) = (Stage::Due, None);
                self.restarted_ms.push(time_ms.saturating_add_unsigned(*delay_ms));
                self.delay_ms = *delay_ms;
                self.hasty = if *delay_ms == 0 { 0 } else { self.hasty + 1 };
            }
            _ => {}
        }
    }

    /// Takes note of an end, or of its beginning, while the daemon ends because of `interrupted_by`, if it does.
    fn observe_end(&mut self, event: &EventKind, interrupted_by: Option<&str>) {
        let is_by_it = |exit: &Exit| exit.is_asked_for() && exit.asked_by() == interrupted_by;
        match event {
            EventKind::AgentStopping { exit } if is_by_it(exit) => self.is_cut = true,
            EventKind::AgentStopping { exit } => self.ending = Some(exit.clone()),
            EventKind::AgentEnded { exit, .. } => {
                self.is_cut = is_by_it(exit) || self.is_cut && interrupted_by.is_some();
            }
            _ => {}
        }
    }

    /// How long this life has run, the pauses not counted.
    fn ran(&self, now_ms: i64) -> Duration {
        let Some(started_ms) = self.started_ms else { return Duration::ZERO };
        let until = self.paused_since_ms.unwrap_or(now_ms);
        since(started_ms + self.paused_ms, until)
    }

    fn tasks(&self, now_ms: i64) -> Vec<AdoptedTask> {
        let task = |(index, (attempt, number, began_ms)): (&usize, &(u32, u64, i64))| AdoptedTask {
            index: *index,
            attempt: *attempt,
            number: *number,
            age: since(*began_ms, now_ms),
        };
        self.tasks.iter().map(task).collect()
    }

    fn lives(&self, age: Duration, restarts: u32, now_ms: i64) -> Lives {
        let ago: Vec<Duration> = self.restarted_ms.iter().map(|at| since(*at, now_ms)).collect();
        Lives::recalled(&ago, age, restarts, self.hasty)
    }
}

/// From one time to another; nothing when the wall clock was set back in between.
fn since(from_ms: i64, to_ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(to_ms.saturating_sub(from_ms)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use toka_core::event::Usage;
    use toka_core::probe::ProbeKind;
    use toka_core::{Enforcement, Name, RunId};
    use uuid::Uuid;

    use super::*;

    fn name(text: &str) -> AgentName {
        Name::new(text).expect("a label")
    }

    fn story(events: Vec<(i64, EventKind)>) -> ReplayedRun {
        let began =
            EventKind::RunStarted { workspace: "/w".into(), agents: vec![name("a")], detached: false };
        let all = std::iter::once((1, None, began))
            .chain(events.into_iter().map(|(at, kind)| (at, Some(name("a")), kind)));
        let event = |(seq, (time_ms, agent, kind))| Event {
            seq,
            time_ms,
            project: name("p"),
            run: RunId::from_uuid(Uuid::nil()),
            agent,
            kind,
        };
        ReplayedRun::of(&(1..).zip(all).map(event).collect::<Vec<_>>())
    }

    fn started() -> EventKind {
        EventKind::AgentStarted { pid: 7, enforcement: Enforcement::default() }
    }

    fn restarting(delay_ms: u64) -> EventKind {
        let (exit, usage) = (Exit::Code { code: 1 }, Usage::default());
        EventKind::AgentRestarting { exit, duration_ms: 10, usage, restarts: 1, delay_ms }
    }

    #[test]
    fn what_it_said_in_this_life_is_known_and_nothing_of_the_one_before() {
        let probe = ProbeKind::Readiness;
        let up = EventKind::ProbeChanged { probe, ok: true, reason: "it has said so".into() };
        let line = EventKind::LogLineSeen { text: "up".into() };
        let mut events = vec![(1, EventKind::AgentStarting), (2, started()), (3, line), (4, up)];
        let said = |events: &[(i64, EventKind)]| story(events.to_vec()).life_of(&name("a"), None, 9).said;
        let expected = Said { probes: [probe].into(), lines: ["up".to_owned()].into() };
        assert_eq!(said(&events), expected);
        events.extend([(5, restarting(0)), (6, EventKind::AgentStarting), (7, started())]);
        assert_eq!(said(&events), Said::default());
    }

    #[test]
    fn a_pause_does_not_count_for_the_time_that_it_ran() {
        let events = vec![
            (1000, EventKind::AgentStarting),
            (1100, started()),
            (2100, EventKind::AgentPaused { by: String::new() }),
            (5100, EventKind::AgentResumed),
            (6100, EventKind::AgentPaused { by: String::new() }),
        ];
        let life = story(events).life_of(&name("a"), None, 100_000);
        assert_eq!(life.state, AgentState::Paused { pid: 7, ready: false });
        assert_eq!((life.ran, life.age), (Duration::from_secs(2), Duration::from_secs(99)));
    }

    #[test]
    fn a_wait_for_the_next_life_goes_on() {
        let events = vec![(1000, EventKind::AgentStarting), (1100, started()), (2000, restarting(10_000))];
        let replayed = story(events);
        let life = replayed.life_of(&name("a"), None, 5000);
        assert_eq!(life.state, AgentState::Backoff { restarts: 1 });
        assert_eq!(life.next_life, Some(Duration::from_secs(7)));
        assert_eq!(replayed.life_of(&name("a"), None, 60_000).next_life, Some(Duration::ZERO));
        assert_eq!(life.lives.restarts(), 1);
    }

    #[test]
    fn commands_without_an_end_are_left() {
        let started = |exec| {
            let (argv, by) = (vec!["sh".to_owned()], "operator".to_owned());
            EventKind::ExecStarted { exec, argv, by, uid: 0, tty: false }
        };
        let ended = EventKind::ExecEnded { exec: 8, exit: Exit::Code { code: 0 }, duration_ms: 1 };
        let replayed = story(vec![(1000, started(7)), (2000, started(8)), (3000, ended)]);
        let left = UnfinishedExec { agent: name("a"), exec: 7, begun_ms: 1000 };
        assert_eq!(replayed.left, BTreeMap::from([(7, left)]));
        assert_eq!(replayed.last_exec, 8);
    }

    #[test]
    fn a_clock_that_was_set_back_makes_nothing_negative() {
        let events = vec![(100_000, EventKind::AgentStarting), (100_100, started())];
        let life = story(events).life_of(&name("a"), None, 5000);
        assert_eq!((life.ran, life.age, life.life), Default::default());
        let waiting =
            vec![(100_000, EventKind::AgentStarting), (100_100, started()), (200_000, restarting(10_000))];
        let life = story(waiting).life_of(&name("a"), None, 5000);
        assert_eq!(life.next_life, Some(Duration::from_secs(10)), "and no wait longer than it was to be");
    }

    fn stopped(by: &str) -> EventKind {
        ended(Exit::stopped(by))
    }

    fn ended(exit: Exit) -> EventKind {
        EventKind::AgentEnded { exit, duration_ms: 1, usage: Usage::default() }
    }

    fn stopping(exit: Exit) -> EventKind {
        EventKind::AgentStopping { exit }
    }

    fn requeued(awaits: Awaits) -> EventKind {
        EventKind::AgentRequeued { by: "somebody".into(), awaits }
    }

    fn fired() -> EventKind {
        EventKind::ScheduleFired { due_ms: 1, next_ms: None }
    }

    /// What an agent waits for that goes on after these events.
    fn awaited(spec: &str, events: &[EventKind]) -> Option<Awaits> {
        let agent =
            declared(&format!("metadata: {{name: a}}\nspec: {{process: {{command: [x]}}, {spec}}}\n"));
        interrupted_story(events).interrupted(&[agent]).into_values().next()
    }

    #[test]
    fn what_the_end_of_a_daemon_stopped_goes_on_by_its_policy() {
        let check = |policy: &str, events: Vec<EventKind>, expected: Option<Awaits>| {
            let spec = format!("type: service, restart: {{policy: {policy}}}");
            assert_eq!(awaited(&spec, &events), expected, "{policy}: {events:?}");
        };
        let lived = || vec![EventKind::AgentStarting, started()];
        let room = Some(Awaits::Room);
        for (policy, expected) in [
            ("always", room),
            ("unless-stopped", room),
            ("on-failure", room),
            ("no", None),
            ("on-watchdog", None),
        ] {
            let cut = || vec![interrupted(), stopped("SIGTERM")];
            check(policy, [lived(), cut()].concat(), expected);
            check(policy, cut(), Some(Awaits::Dependencies));
            check(policy, [lived(), vec![stopped("operator"), interrupted()]].concat(), None);
            check(policy, [lived(), vec![interrupted(), stopped("operator")]].concat(), None);
            check(policy, [lived(), vec![restarting(9)], cut()].concat(), room);
            check(policy, [lived(), vec![requeued(Awaits::Room)], cut()].concat(), room);
            check(
                policy,
                [lived(), vec![requeued(Awaits::Dependencies)], cut()].concat(),
                Some(Awaits::Dependencies),
            );
        }
        let again = vec![interrupted(), stopped("SIGTERM"), requeued(Awaits::Room)];
        check("always", [lived(), again].concat(), None);
        // It was being stopped because it was wedged.
        let limit = Duration::from_secs(1);
        let late = [
            stopping(Exit::Watchdog { limit }),
            interrupted(),
            stopping(Exit::stopped("SIGTERM")),
            stopped("SIGTERM"),
        ];
        check("on-watchdog", [lived(), late.to_vec()].concat(), room);
    }

    #[test]
    fn the_end_of_a_daemon_is_gone_on_with_once() {
        let by = || Exit::stopped("SIGTERM");
        let adopted = || EventKind::RunAdopted { agents: 1 };
        let killed = vec![EventKind::AgentStarting, started(), interrupted(), stopping(by())];
        let check = |more: &[EventKind], expected: Option<Awaits>| {
            let events = [killed.as_slice(), more].concat();
            assert_eq!(awaited("type: service, restart: {policy: always}", &events), expected, "{more:?}");
        };
        let room = Some(Awaits::Room);
        // The daemon was killed before it had ended.
        check(&[], room);
        check(&[adopted()], room);
        check(&[stopped("SIGTERM")], room);
        // The next daemon has seen to it.
        check(&[adopted(), stopped("SIGTERM")], None);
        // It could not be begun, and nobody has said that it is not to be.
        check(&[stopped("SIGTERM"), adopted()], room);
        let given_up = [requeued(Awaits::Room), stopped("operator")];
        check(&[[stopped("SIGTERM"), adopted()].as_slice(), &given_up].concat(), None);
        let changed = EventKind::RunChanged {
            by: "operator".into(),
            agents: vec![name("a")],
            added: Vec::new(),
            changed: vec![name("a")],
            adjusted: Vec::new(),
            removed: Vec::new(),
        };
        check(&[stopped("SIGTERM"), adopted(), changed.clone()], None);
        let waited = [adopted(), changed, interrupted(), stopped("SIGTERM")];
        check(&[[stopped("SIGTERM")].as_slice(), &waited].concat(), Some(Awaits::Dependencies));
    }

    #[test]
    fn what_is_to_follow_an_end_is_known_until_it_does() {
        let returns = |then: Option<Return>| EventKind::AgentReturns {
            by: "operator".into(),
            then,
            together: vec![name("a")],
        };
        let anew = Some(Return::WhenStopped);
        let check = |events: &[EventKind], expected: Option<Return>| {
            let begun = interrupted_story(events).begun();
            assert_eq!(begun.into_iter().map(|begun| begun.then).next(), expected, "{events:?}");
        };
        let stopped = [EventKind::AgentStarting, started(), returns(anew), stopped("operator")];
        check(&stopped[..3], anew);
        check(&stopped, anew);
        check(&[&stopped[..], &[requeued(Awaits::Dependencies)]].concat(), None);
        check(&[&stopped[..], &[returns(None)]].concat(), None);
        check(&[&stopped[..], &[returns(Some(Return::AtItsEnd))]].concat(), Some(Return::AtItsEnd));
    }

    #[test]
    fn what_the_clock_starts_waits_for_it_again_unless_its_time_had_come() {
        let check = |events: &[EventKind], expected: Option<Awaits>| {
            assert_eq!(awaited("schedule: {cron: '@daily'}", events), expected, "{events:?}");
        };
        let cut = || [interrupted(), stopped("SIGTERM")];
        check(&cut(), Some(Awaits::Clock));
        check(&[[fired()].as_slice(), &cut()].concat(), Some(Awaits::Dependencies));
        let lived = [fired(), EventKind::AgentStarting, started(), ended(Exit::Code { code: 0 })];
        check(&[lived.as_slice(), &[interrupted()]].concat(), None);
        let queued = [fired(), requeued(Awaits::Dependencies)];
        check(&[&lived[..], &queued, &cut()].concat(), Some(Awaits::Dependencies));
        check(&[&cut()[..], &[requeued(Awaits::Clock)], &cut()].concat(), Some(Awaits::Clock));
    }

    fn interrupted() -> EventKind {
        EventKind::RunInterrupted { by: "SIGTERM".into() }
    }

    /// As [`story`], with what is told of the run as such.
    fn interrupted_story(kinds: &[EventKind]) -> ReplayedRun {
        let event = |(seq, kind): (u64, &EventKind)| Event {
            seq,
            time_ms: 1,
            project: name("p"),
            run: RunId::from_uuid(Uuid::nil()),
            agent: (!is_of_the_run(kind)).then(|| name("a")),
            kind: kind.clone(),
        };
        ReplayedRun::of(&(1..).zip(kinds).map(event).collect::<Vec<_>>())
    }

    fn is_of_the_run(kind: &EventKind) -> bool {
        matches!(
            kind,
            EventKind::RunInterrupted { .. } | EventKind::RunAdopted { .. } | EventKind::RunChanged { .. }
        )
    }

    fn declared(text: &str) -> Agent {
        let texts = [(std::path::Path::new("a.yaml"), text)];
        let loaded = toka_workstream::load_texts(texts, &toka_workstream::LoadOptions::default());
        loaded.set.expect("no errors").agents.remove(0)
    }
}
