//! What is known of a project's agents at this moment: a model that each event of the journal moves on, so that a daemon,
//! a program that reads its events, and a daemon that begins anew and reads the journal all come to the same picture.
//!
//! It reads no clock: times are those of the events.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::event::Usage;
use crate::pressure::Hold;
use crate::probe::ProbeKind;
use crate::rpc::MAX_METRICS;
use crate::{
    AgentKind, AgentName, AgentState, Approval, Enforcement, Event, EventKind, Exit, Progress, RunId, Stage,
    Unmet,
};

/// Most restarts of an agent whose times are kept.
pub const RESTARTS_KEPT: usize = 32;

/// What is known of one agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// Its name.
    pub name: AgentName,
    /// Its title, free text.
    #[serde(default)]
    pub title: Arc<str>,
    /// Task or service.
    #[serde(default)]
    pub kind: AgentKind,
    /// What it waits for before it starts, in the order of its file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<AgentName>,
    /// Where it is in its life.
    #[serde(flatten)]
    pub state: AgentState,
    /// When it came into this state, in milliseconds since the Unix epoch.
    pub since_ms: i64,
    /// When this life of it, or the last one, began to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_ms: Option<i64>,
    /// How often it was started again by its restart policy.
    #[serde(default)]
    pub restart_count: u32,
    /// How often somebody began its life anew: a person, a schedule.
    #[serde(default)]
    pub requeues: u32,
    /// When it is started again, while it waits for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_start_ms: Option<i64>,
    /// When the clock starts it next, in milliseconds since the Unix epoch, whatever it does now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_due_ms: Option<i64>,
    /// Why it was not started when its turn had come, while it waits for room on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Hold>,
    /// Whether it was ready in this life or an earlier one, since somebody began it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub was_ready: bool,
    /// Whether it begins anew when it is gone, because somebody asked for that; said when somebody asks.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub returns: bool,
    /// When its restart policy started it again after a failure, in milliseconds since the Unix epoch; the last [`RESTARTS_KEPT`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restarted_ms: Vec<i64>,
    /// What it waits for: while it has not started, said when somebody asks; while its next life waits, or it was quarantined
    /// because of that, as it was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<Box<Unmet>>,
    /// Who is to start it, while it waits for that and for nothing else; said when somebody asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_by: Option<StartedBy>,
    /// How its last life ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Box<LastLife>>,
    /// What it said of itself.
    #[serde(default, skip_serializing_if = "Progress::is_empty")]
    pub progress: Progress,
    /// How often there was something to warn of; the events say what.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub warnings: u32,
    /// How often something that was asked of it could not be done; the events say what and why.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failed_requests: u32,
    /// Who has paused it, while it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_by: Option<Box<str>>,
    /// What it waits for from a person.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<Approval>,
    /// Why it is not ready, when it said so or a probe did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_ready: Option<Box<str>>,
    /// What its probes found last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub probes: Vec<ProbeStatus>,
    /// What its watchdog does about it, while it gives no sign of life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wedged: Option<Wedged>,
    /// How many processes of its life the kernel has killed for memory, as far as that was told while it lives on.
    #[serde(default, skip_serializing_if = "is_none_counted")]
    pub oom_kills: u64,
    /// Objectives of its last life that were checked and not met: at most [`MOST_UNMET`] descriptions, in the order of the file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unmet: Vec<Box<str>>,
    /// Numbers that it reports of itself, under at most [`MAX_METRICS`] names: the first ones since it began.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, f64>,
    /// How often it reported one under a further name, which was dropped.
    #[serde(default, skip_serializing_if = "is_none_counted")]
    pub metrics_dropped: u64,
    /// What confines it, once it has run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforcement: Option<Arc<Enforcement>>,
}

/// What starts an agent that does not start at its turn in the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartedBy {
    /// The clock, at [`AgentStatus::next_due_ms`].
    Clock,
    /// A person, with `toka start`.
    Person,
}

/// How a life ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LastLife {
    /// The cause.
    pub exit: Exit,
    /// When, in milliseconds since the Unix epoch.
    pub ended_ms: i64,
    /// How long it was, in milliseconds.
    pub duration_ms: u64,
    /// Of an end for good: how long all lives were that it had since somebody began it, with the waits between, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all_lives_ms: Option<u64>,
    /// What it used.
    pub usage: Usage,
}

/// What a probe found last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProbeStatus {
    /// Which.
    pub probe: ProbeKind,
    /// Whether it succeeds.
    pub ok: bool,
    /// What it said.
    pub reason: Box<str>,
    /// Since when.
    pub since_ms: i64,
}

/// What is done about an agent that gives no sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "wedged", rename_all = "snake_case")]
pub enum Wedged {
    /// It does nothing.
    Silent {
        /// How far its watchdog is.
        stage: Stage,
        /// How long there was no sign of life when that was told, in milliseconds.
        quiet_ms: u64,
    },
    /// It uses CPU and shows nothing.
    Spinning {
        /// As above.
        quiet_ms: u64,
        /// CPU time that it used in that time, in microseconds, where it is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cpu_us: Option<u64>,
    },
}

/// Objectives that are kept by their descriptions.
pub const MOST_UNMET: usize = 8;

/// What of the objectives is not met, in words; nothing when all are that were checked.
pub fn unmet_in_words(unmet: &[Box<str>]) -> Option<String> {
    match unmet {
        [] => None,
        [one] => Some(format!("objective not met: {one}")),
        several => Some(format!("{} objectives not met: {}", several.len(), several.join("; "))),
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_none_counted(count: &u64) -> bool {
    *count == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl AgentStatus {
    /// One that waits for its turn since `since_ms`.
    pub fn new(name: AgentName, since_ms: i64) -> Self {
        Self {
            name,
            title: Arc::from(""),
            kind: AgentKind::default(),
            depends_on: Vec::new(),
            state: AgentState::Pending,
            since_ms,
            started_ms: None,
            restart_count: 0,
            requeues: 0,
            warnings: 0,
            failed_requests: 0,
            next_start_ms: None,
            next_due_ms: None,
            held: None,
            waits: None,
            restarted_ms: Vec::new(),
            was_ready: false,
            returns: false,
            started_by: None,
            last: None,
            progress: Progress::default(),
            paused_by: None,
            approvals: Vec::new(),
            not_ready: None,
            probes: Vec::new(),
            wedged: None,
            oom_kills: 0,
            unmet: Vec::new(),
            metrics: BTreeMap::new(),
            metrics_dropped: 0,
            enforcement: None,
        }
    }

    /// How it ended, when it has for good.
    pub fn exit(&self) -> Option<&Exit> {
        match &self.state {
            AgentState::Ended { exit } | AgentState::Quarantined { exit, .. } => Some(exit),
            _ => None,
        }
    }

    /// Takes an event about the agent.
    pub fn observe(&mut self, time_ms: i64, event: &EventKind) {
        self.step(time_ms, event);
        if !matches!(self.state, AgentState::Pending | AgentState::Backoff { .. }) {
            self.held = None;
        }
        let is_called = matches!(event, EventKind::ScheduleFired { .. } | EventKind::AgentRequeued { .. });
        if is_called || self.state != AgentState::Pending {
            self.started_by = None;
        }
        match event {
            EventKind::AgentWaiting { hold } => (self.held, self.next_start_ms) = (Some(*hold), None),
            EventKind::AgentAwaits { why } => self.waits = Some(why.clone()),
            EventKind::AgentRequeued { .. } => self.begin_anew(),
            EventKind::AgentStarting => {
                self.paused_by = None;
                self.unmet.clear();
                (self.next_start_ms, self.not_ready, self.wedged, self.waits) = (None, None, None, None);
            }
            EventKind::AgentStarted { .. } => (self.started_ms, self.oom_kills) = (Some(time_ms), 0),
            EventKind::AgentOomKilled { kills } => self.oom_kills = *kills,
            EventKind::Warning { .. } => self.warnings = self.warnings.saturating_add(1),
            EventKind::RequestFailed { .. } => {
                self.failed_requests = self.failed_requests.saturating_add(1);
            }
            EventKind::AgentReady => (self.not_ready, self.was_ready) = (None, true),
            EventKind::AgentNotReady { reason } => self.not_ready = Some(reason.as_str().into()),
            EventKind::AgentEnded { exit, duration_ms, usage } => {
                self.end(time_ms, exit, *duration_ms, *usage);
            }
            EventKind::AgentRestarting { exit, duration_ms, usage, restarts, delay_ms } => {
                self.end(time_ms, exit, *duration_ms, *usage);
                self.restart_count = *restarts;
                if !exit.is_success() {
                    if self.restarted_ms.len() == RESTARTS_KEPT {
                        self.restarted_ms.remove(0);
                    }
                    self.restarted_ms.push(time_ms);
                }
                self.next_start_ms = Some(time_ms.saturating_add_unsigned(*delay_ms));
            }
            EventKind::AgentQuarantined { exit, duration_ms, usage, restarts } => {
                self.end(time_ms, exit, *duration_ms, *usage);
                self.restart_count = *restarts;
            }
            EventKind::ProbeChanged { probe, ok, reason } => self.probe(time_ms, *probe, *ok, reason),
            EventKind::AgentWedged { stage, quiet_ms, .. } => {
                self.wedged = Some(Wedged::Silent { stage: *stage, quiet_ms: *quiet_ms });
            }
            EventKind::AgentSpinning { quiet_ms, cpu_us } => {
                self.wedged = Some(Wedged::Spinning { quiet_ms: *quiet_ms, cpu_us: *cpu_us });
            }
            // A frozen one shows no sign of life, and nobody expects any.
            EventKind::AgentPaused { by } => {
                (self.wedged, self.paused_by) = (None, Some(by.as_str().into()).filter(|_| !by.is_empty()));
            }
            EventKind::AgentResumed => self.paused_by = None,
            EventKind::AgentRecovered { .. } => self.wedged = None,
            EventKind::ApprovalAsked(approval)
                if self.approvals.iter().all(|known| known.id != approval.id) =>
            {
                self.approvals.push(approval.clone());
            }
            EventKind::ScheduleArmed { next_ms }
            | EventKind::ScheduleFired { next_ms, .. }
            | EventKind::ScheduleSkipped { next_ms, .. } => self.next_due_ms = *next_ms,
            EventKind::Progress(progress) => self.progress.observe(progress.clone()),
            EventKind::TaskStarted { description, .. } => {
                let (status, task) = (Some("".into()), Some(description.as_str().into()));
                self.progress.observe(Progress { fraction: None, status, task });
            }
            EventKind::ObjectiveChecked { description, met: false, .. } if self.unmet.len() < MOST_UNMET => {
                self.unmet.push(description.as_str().into());
            }
            EventKind::Metrics { values } => self.measure(values),
            _ => {}
        }
    }

    fn step(&mut self, time_ms: i64, event: &EventKind) {
        let next = self.state.happening(event).and_then(|happening| self.state.on(happening).ok());
        if let Some(next) = next.filter(|next| *next != self.state) {
            // Readiness comes and goes within a state; its age is that of the answer that people wait for.
            self.since_ms = time_ms;
            self.state = next;
        }
    }

    /// An agent that invents ever new names cannot make anybody hold them all.
    fn measure(&mut self, values: &BTreeMap<String, f64>) {
        for (name, value) in values {
            if let Some(known) = self.metrics.get_mut(name) {
                *known = *value;
            } else if self.metrics.len() < MAX_METRICS {
                self.metrics.insert(name.clone(), *value);
            } else {
                self.metrics_dropped = self.metrics_dropped.saturating_add(1);
            }
        }
    }

    fn begin_anew(&mut self) {
        (self.metrics, self.metrics_dropped) = (BTreeMap::new(), 0);
        (self.progress, self.not_ready, self.wedged) = (Progress::default(), None, None);
        (self.restart_count, self.next_start_ms, self.held, self.waits) = (0, None, None, None);
        self.requeues += 1;
        self.restarted_ms.clear();
        self.was_ready = false;
        self.probes.clear();
    }

    fn end(&mut self, time_ms: i64, exit: &Exit, duration_ms: u64, usage: Usage) {
        let is_for_good = self.state.is_final();
        let own = self.started_ms.and_then(|began| u64::try_from(time_ms - began).ok());
        let last = LastLife {
            exit: exit.clone(),
            ended_ms: time_ms,
            duration_ms: own.filter(|_| is_for_good).map_or(duration_ms, |own| own.min(duration_ms)),
            all_lives_ms: is_for_good.then_some(duration_ms),
            usage,
        };
        self.last = Some(Box::new(last));
        (self.not_ready, self.wedged, self.next_start_ms, self.held) = (None, None, None, None);
        // The probes asked a process that is gone.
        self.probes.clear();
    }

    fn probe(&mut self, since_ms: i64, probe: ProbeKind, ok: bool, reason: &str) {
        self.probes.retain(|known| known.probe != probe);
        self.probes.push(ProbeStatus { probe, ok, reason: reason.into(), since_ms });
    }
}

/// What is known of the run of a project.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunStatus {
    /// The run; `None` before the first one.
    pub run: Option<RunId>,
    /// When it began, in milliseconds since the Unix epoch.
    pub started_ms: i64,
    /// The status that it ended with.
    pub exit_code: Option<u8>,
    /// The number of the last event that is in here.
    pub seq: u64,
    agents: Vec<AgentStatus>,
    index: HashMap<AgentName, usize>,
    /// How many have not come to their end.
    open: usize,
}

impl RunStatus {
    /// Says what an agent waits for, or that it waits for nobody, to whoever asks now.
    pub fn waits(&mut self, agent: &AgentName, unmet: Option<Box<Unmet>>) {
        if let Some(status) = self.agents.iter_mut().find(|status| status.name == *agent) {
            status.waits = unmet;
        }
    }

    /// Says who is to start an agent that waits for nothing else.
    pub fn started_by(&mut self, agent: &AgentName, by: Option<StartedBy>) {
        if let Some(status) = self.agents.iter_mut().find(|status| status.name == *agent) {
            status.started_by = by;
        }
    }

    /// Says that an agent begins anew when it is gone.
    pub fn returns(&mut self, agent: &AgentName) {
        if let Some(status) = self.agents.iter_mut().find(|status| status.name == *agent) {
            status.returns = true;
        }
    }

    /// The picture that another has of a run after the event `seq`: what comes after that event moves it on.
    pub fn taken_over(run: RunId, started_ms: i64, seq: u64, agents: Vec<AgentStatus>) -> Self {
        let mut status = Self { run: Some(run), started_ms, seq, agents, ..Self::default() };
        status.count();
        status
    }

    /// Its agents, in the order of the plan.
    pub fn agents(&self) -> &[AgentStatus] {
        &self.agents
    }

    /// An agent.
    pub fn agent(&self, name: &AgentName) -> Option<&AgentStatus> {
        self.index.get(name).map(|at| &self.agents[*at])
    }

    /// The place of an agent in the order of the plan.
    pub fn place(&self, name: &AgentName) -> Option<usize> {
        self.index.get(name).copied()
    }

    /// Says what no event tells.
    pub fn describe(&mut self, name: &AgentName, title: &str, kind: AgentKind, depends_on: Vec<AgentName>) {
        if let Some(at) = self.index.get(name) {
            let agent = &mut self.agents[*at];
            (agent.kind, agent.depends_on) = (kind, depends_on);
            if *agent.title != *title {
                agent.title = title.into();
            }
        }
    }

    /// Whether every agent has come to its end.
    pub fn is_over(&self) -> bool {
        self.open == 0
    }

    /// Takes an event. One that is in here already changes nothing.
    pub fn observe(&mut self, event: &Event) {
        if event.seq <= self.seq {
            return;
        }
        self.seq = event.seq;
        match (&event.agent, &event.kind) {
            (None, EventKind::RunStarted { agents, .. }) => self.begin(event, agents),
            (None, EventKind::RunChanged { agents, changed, .. }) => self.change(event, agents, changed),
            (None, EventKind::RunEnded { exit_code }) => self.exit_code = Some(*exit_code),
            (_, EventKind::ApprovalAnswered { id, .. }) => {
                self.agents.iter_mut().for_each(|agent| agent.approvals.retain(|open| open.id != *id));
            }
            // The watchdogs of the daemon that took the run over watch anew, and tell again what they find.
            (None, EventKind::RunAdopted { .. }) => {
                self.agents.iter_mut().for_each(|agent| agent.wedged = None);
            }
            (None, _) => {}
            (Some(agent), kind) => {
                let Some(at) = self.index.get(agent).copied() else { return };
                let was_open = !self.agents[at].state.is_final();
                self.agents[at].observe(event.time_ms, kind);
                let is_open = !self.agents[at].state.is_final();
                self.open = self.open + usize::from(is_open) - usize::from(was_open);
                if let EventKind::AgentStarted { enforcement, .. } = kind {
                    self.agents[at].enforcement = Some(self.shared(enforcement));
                }
            }
        }
    }

    fn begin(&mut self, event: &Event, agents: &[AgentName]) {
        (self.run, self.started_ms, self.exit_code) = (Some(event.run), event.time_ms, None);
        self.agents = agents.iter().map(|name| AgentStatus::new(name.clone(), event.time_ms)).collect();
        self.count();
    }

    /// Those that go on keep what is known of them; those that changed begin anew and keep their last life.
    fn change(&mut self, event: &Event, agents: &[AgentName], changed: &[AgentName]) {
        let mut known: HashMap<AgentName, AgentStatus> =
            std::mem::take(&mut self.agents).into_iter().map(|agent| (agent.name.clone(), agent)).collect();
        let mut next = |name: &AgentName| match known.remove(name) {
            Some(agent) if !changed.contains(name) => agent,
            former => {
                let last = former.and_then(|former| former.last);
                AgentStatus { last, ..AgentStatus::new(name.clone(), event.time_ms) }
            }
        };
        self.agents = agents.iter().map(&mut next).collect();
        self.count();
    }

    fn count(&mut self) {
        self.index = self.agents.iter().enumerate().map(|(at, agent)| (agent.name.clone(), at)).collect();
        self.open = self.agents.iter().filter(|agent| !agent.state.is_final()).count();
    }

    /// The same report as that of another agent, where there is one: a thousand agents are mostly confined alike.
    fn shared(&self, enforcement: &Enforcement) -> Arc<Enforcement> {
        let known = self.agents.iter().filter_map(|agent| agent.enforcement.as_ref()).take(SHARED_LOOKED_AT);
        known
            .into_iter()
            .find(|known| ***known == *enforcement)
            .map_or_else(|| Arc::new(enforcement.clone()), Arc::clone)
    }
}

/// How many other agents are asked for an equal report.
const SHARED_LOOKED_AT: usize = 8;

#[cfg(test)]
mod tests;
