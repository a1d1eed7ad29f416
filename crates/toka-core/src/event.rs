//! What happened, as the journal keeps it and as programs read it (`--json`). Names in `code` style are exact: other
//! programs rely on them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::budget::{Measure, Scope};
use crate::pressure::Hold;
use crate::probe::ProbeKind;
use crate::schedule::SkipReason;
use crate::units::format_duration;
use crate::watchdog::Stage;
use crate::{
    AgentName, Amounts, Approval, ApprovalAnswer, BatchedCall, CallReceipt, Enforcement, Exit, FileChange,
    HealthReport, ModelName, Money, Opening, Origin, PlanStep, Progress, ProjectName, Request, Risk, RunId,
    SessionKey, SessionState, StepStatus, Unmet,
};

/// Where an event is, when nobody has to wait for it any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// On disk: it can no longer be lost.
    OnDisk,
    /// In memory, since the journal cannot be written now: a killed daemon loses it.
    InMemory,
}

/// One numbered, timed event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Number within the journal, from 1, without gaps.
    pub seq: u64,
    /// Milliseconds since the Unix epoch, by the wall clock.
    pub time_ms: i64,
    /// The project.
    pub project: ProjectName,
    /// The run.
    pub run: RunId,
    /// The agent, when it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentName>,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// That an agent used CPU and showed nothing else, as people read it.
pub fn spinning(quiet_ms: u64, cpu_us: Option<u64>) -> String {
    let quiet = format_duration(Duration::from_millis(quiet_ms));
    match cpu_us {
        Some(used) => format!(
            "used {} of CPU and showed nothing for {quiet}",
            format_duration(Duration::from_micros(used))
        ),
        None => format!("used CPU and showed nothing for {quiet}"),
    }
}

/// What follows the end of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Return {
    /// It is to be stopped when its turn comes, and stays so.
    Nothing,
    /// It is stopped, and then it begins anew.
    WhenStopped,
    /// It begins anew when it has ended by itself.
    AtItsEnd,
    /// It is stopped for a change of the project. If that change does not come, it goes on as it was.
    Unchanged {
        /// What it waits for then.
        awaits: Awaits,
    },
}

/// What became of something that an agent made and must not make: a name that decides what runs and with which rights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlantedOutcome {
    /// The keeper has renamed it.
    SetAside {
        /// Where it is now.
        to: PathBuf,
    },
    /// The keeper could not rename it: it lies where it was made.
    Remains {
        /// Why, in words.
        reason: String,
    },
    /// The path is a directory in which the keeper could not look at everything.
    NotSearched {
        /// Why, in words.
        reason: String,
    },
}

/// What an agent made and must not make, and what to do about it; to be escaped before a terminal.
pub fn planted(path: &Path, outcome: &PlantedOutcome) -> String {
    let path_is_index = path.ends_with("index");
    let path = path.display();
    match outcome {
        PlantedOutcome::SetAside { to } => {
            let rest = if path_is_index { ", and `git reset` makes another" } else { "" };
            format!(
                "{path} appeared while it ran, where no agent may make it; it is now {}{rest}",
                to.display()
            )
        }
        PlantedOutcome::Remains { reason } => format!(
            "{path} appeared while it ran, where no agent may make it, and cannot be set aside ({reason}): remove it before you run \
             Toka or git here"
        ),
        PlantedOutcome::NotSearched { reason } => format!(
            "not all that it made in {path} was looked at ({reason}); look for workstreams and repositories among it before you run Toka or git there"
        ),
    }
}

/// How a connection to a host ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum HostOutcome {
    /// Both sides had said all that they had to say.
    Closed,
    /// There was no connection.
    Failed {
        /// Why, in words.
        reason: String,
    },
    /// It broke off.
    Cut {
        /// Why, in words.
        reason: String,
    },
}

/// What became of the protection of a path that was replaced from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProtectionOutcome {
    /// It is protected again, and no process of the agent has hold of it.
    Renewed,
    /// There is nothing there now; it is looked for, and protected when it is there again.
    Absent,
    /// It could not be protected again: the agent is killed.
    Lost {
        /// Why, in words.
        reason: String,
    },
}

/// What happened to a protected path under a running agent, and what to do about it; to be escaped before a terminal.
pub fn uncovered(path: &Path, outcome: &ProtectionOutcome) -> String {
    let (path, who) = (path.display(), "a process outside of its sandbox");
    match outcome {
        ProtectionOutcome::Renewed => format!(
            "{who} replaced {path} while it ran; {path} is protected again, but look at what is in it before you use it"
        ),
        ProtectionOutcome::Absent => format!(
            "{who} removed {path} while it ran; should {path} come back, it is protected again, but look at what is in it before \
             you use it"
        ),
        ProtectionOutcome::Lost { reason } => format!(
            "{who} replaced {path} while it ran, and {path} cannot be protected again ({reason}), so it is killed; look at what is \
             in {path} before you use it"
        ),
    }
}

/// What became of an act whose end is not a success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It was done, and did not succeed.
    Done,
    /// It was not done.
    NotDone,
    /// Nobody knows: whoever watched it was killed.
    Unknown,
}

/// What an agent used, from its control groups; absent where the host does not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Most memory held at once, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_peak: Option<u64>,
    /// CPU time of all processes, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_us: Option<u64>,
    /// How often the out-of-memory killer struck.
    #[serde(default)]
    pub oom_kills: u64,
}

impl Usage {
    /// The end of a life that used so much, with what the kernel did to processes of it that were not the main one: how it
    /// ended does not say that.
    pub fn tell(&self, exit: &Exit) -> String {
        match (exit, self.oom_kills) {
            (Exit::Oom { .. }, _) | (_, 0) => exit.to_string(),
            (exit, kills) => format!("{exit}; {}", killed_for_memory(kills)),
        }
    }
}

/// What the kernel did to so many processes of an agent.
pub fn killed_for_memory(kills: u64) -> String {
    match kills {
        1 => "the kernel killed a process of it for memory".to_owned(),
        kills => format!("the kernel killed {kills} processes of it for memory"),
    }
}

/// What an agent waits for that is to begin anew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Awaits {
    /// What it depends on.
    #[default]
    Dependencies,
    /// The clock, and then what it depends on: its time had not come when its daemon ended.
    Clock,
    /// Nothing but room on the host: it had begun when its daemon ended.
    Room,
}

/// What is said of an agent for which something follows its end.
pub fn return_in_words(by: &str, then: Option<Return>) -> String {
    match then {
        None => format!("does not begin anew: {by} asked for something else"),
        Some(Return::Nothing) => format!("is to stop when its turn comes, asked for by {by}"),
        Some(Return::WhenStopped) => format!("stops, and begins anew, asked for by {by}"),
        Some(Return::AtItsEnd) => format!("begins anew at its end, asked for by {by}"),
        Some(Return::Unchanged { .. }) => format!("stops for a change of the project, asked for by {by}"),
    }
}

impl Awaits {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Why there is a report. Ordered: the greater says more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Occasion {
    /// Its state is another.
    Change,
    /// A task has ended, an objective is met, another quarter is done.
    Milestone,
    /// An hour, a day or a week is over.
    Period,
    /// It has come to its end.
    End,
}

/// The kinds of events. [`strum::VariantNames::VARIANTS`] has the words for them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, strum::VariantNames)]
#[serde(tag = "type", rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
// The compiler finds the words for a new kind (`describe` of the command line) and whether it is reported (`is_change` of reports). Ask
// yourself about `AgentState::happening`, `AgentStatus::observe`, `RunState::observe` and `replay`, which pass over what they do not know.
pub enum EventKind {
    /// A run began.
    RunStarted {
        /// The workspace folder.
        workspace: String,
        /// The agents, in the order of the plan.
        agents: Vec<AgentName>,
        /// Whether it goes on without whoever began it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        detached: bool,
    },
    /// A run ended.
    RunEnded {
        /// The exit status of the command.
        exit_code: u8,
    },
    /// A run in the background is to end: its agents are stopped, and none is started any more.
    RunEnding {
        /// Who asked for it: `operator`, a signal, the end of an agent.
        by: String,
        /// The agent whose end it was, where the declaration says that its end is that of the run.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        end_of: Option<AgentName>,
    },
    /// The daemon ends, and its agents with it; the next daemon goes on with the run.
    RunInterrupted {
        /// Who asked for it: a signal.
        by: String,
    },
    /// Another daemon goes on with the run.
    RunAdopted {
        /// How many agents it has.
        agents: usize,
    },
    /// The keeper was killed, and another has taken over the agents that live on.
    KeeperSucceeded {
        /// Process id of the new one.
        pid: i32,
    },
    /// The agents of the run are others from now on.
    RunChanged {
        /// Who did it.
        by: String,
        /// The agents, in the order of the plan.
        agents: Vec<AgentName>,
        /// Those that are new.
        added: Vec<AgentName>,
        /// Those whose declaration is another: they begin anew.
        changed: Vec<AgentName>,
        /// Those whose declaration is another, and that go on.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        adjusted: Vec<AgentName>,
        /// Those that are no more.
        removed: Vec<AgentName>,
    },
    /// It waits for its turn again, after it had come to its end.
    AgentRequeued {
        /// Who asked for it: `operator`, `schedule`, `recovery`, …
        by: String,
        /// What it waits for; absent for what it depends on.
        #[serde(default, skip_serializing_if = "Awaits::is_default")]
        awaits: Awaits,
    },
    /// What follows when it is gone, because somebody asked for that: it holds until [`EventKind::AgentRequeued`], or until a
    /// further event of this kind says otherwise. The daemon that goes on after a crash does what the former one had begun.
    AgentReturns {
        /// Who asked for it, as above.
        by: String,
        /// What follows; absent when nothing does any more.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        then: Option<Return>,
        /// All agents that are gone before that: it, and those that are stopped together with it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        together: Vec<AgentName>,
    },
    /// Its turn has come, or its next life is due, and it waits until the host has room for it. Told once for each wait.
    AgentWaiting {
        /// What there was too little of when the wait began.
        #[serde(flatten)]
        hold: Hold,
    },
    /// Its next life waits, because something that it requires to be ready is not; or it was quarantined meanwhile, and begins
    /// anew when that is ready again.
    AgentAwaits {
        /// What is not ready.
        why: Box<Unmet>,
    },
    /// The keeper is asked to start it.
    AgentStarting,
    /// It runs.
    AgentStarted {
        /// Process id on the host.
        pid: i32,
        /// What confines it.
        enforcement: Enforcement,
    },
    /// It said that it is ready.
    AgentReady,
    /// It is not ready any more, and runs on.
    AgentNotReady {
        /// Why.
        reason: String,
    },
    /// It named another of its processes as its main one (`MAINPID=` of sd_notify(3)).
    AgentMainProcess {
        /// Process id on the host.
        pid: i32,
    },
    /// Its tree is frozen.
    AgentPaused {
        /// Who asked for it: `operator`, or `budget` while it waits for a person.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        by: String,
    },
    /// Its tree runs again.
    AgentResumed,
    /// What somebody asked of it, and was accepted, could not be done.
    RequestFailed {
        /// What.
        request: Request,
        /// Why.
        reason: String,
    },
    /// It is asked to stop.
    AgentStopping {
        /// How it will have ended.
        exit: Exit,
    },
    /// It is gone, with all that it started.
    AgentEnded {
        /// How.
        exit: Exit,
        /// How long it lived since somebody began it, in milliseconds: all its lives, and the waits between.
        duration_ms: u64,
        /// What it used.
        usage: Usage,
    },
    /// It is gone, with all that it started, and will be started again.
    AgentRestarting {
        /// How it ended.
        exit: Exit,
        /// How long it lived, in milliseconds.
        duration_ms: u64,
        /// What it used.
        usage: Usage,
        /// Which restart this will be, from 1.
        restarts: u32,
        /// The wait before it, in milliseconds.
        delay_ms: u64,
    },
    /// It is gone, and was restarted too often to be started again before a person says so.
    AgentQuarantined {
        /// How it ended.
        exit: Exit,
        /// How long it lived since somebody began it, in milliseconds: all its lives, and the waits between.
        duration_ms: u64,
        /// What it used.
        usage: Usage,
        /// How often it was restarted.
        restarts: u32,
    },
    /// A probe changed its mind.
    ProbeChanged {
        /// Which.
        probe: ProbeKind,
        /// Whether it succeeds now.
        ok: bool,
        /// What it said.
        reason: String,
    },
    /// It is alive, and for as long as its watchdog allows there was no sign of life; or it reported so itself. Told once
    /// for each stage.
    AgentWedged {
        /// What Toka does about it: `warn` is this event alone, `signal` a signal that makes it dump what it is at,
        /// `restart` its end.
        stage: Stage,
        /// How long there was none, in milliseconds, pauses not counted.
        quiet_ms: u64,
        /// CPU time that it used in that time, in microseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cpu_us: Option<u64>,
        /// Bytes that it wrote in that time to its output; not zero only when it was keep-alives that did not come.
        output_bytes: u64,
        /// Bytes that it read from and wrote to storage in that time.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        io_bytes: Option<u64>,
    },
    /// It uses CPU, and for as long as its watchdog allows there was no progress, output or I/O. Nothing is done about
    /// it: it may compute.
    AgentSpinning {
        /// How long there was none, in milliseconds, pauses not counted.
        quiet_ms: u64,
        /// CPU time that it used in that time, in microseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cpu_us: Option<u64>,
    },
    /// It gave a sign of life again, after it was told to be wedged or spinning.
    AgentRecovered {
        /// How long there was none, in milliseconds, by the last look that found none.
        quiet_ms: u64,
    },
    /// A process outside of its sandbox replaced or removed a path that the agent must not change, while it ran. The kernel lifts a mount over
    /// a name then, so that the agent could change it until the mount was put back.
    AgentUncovered {
        /// The path.
        path: PathBuf,
        /// What became of its protection.
        outcome: ProtectionOutcome,
    },
    /// It made something that it must not make.
    AgentPlanted {
        /// The path; a directory when not all of it could be looked at.
        path: PathBuf,
        /// What became of it.
        outcome: PlantedOutcome,
    },
    /// The kernel has killed processes of it for memory, and it lives on. Told soon after the first, and then at longer and
    /// longer intervals; its end tells the whole number again.
    AgentOomKilled {
        /// How many in this life, those that were told before among them.
        kills: u64,
    },
    /// It asks a model, and the request is about to be sent: the intent, which is durable before anything leaves. Its receipt is the
    /// [`EventKind::ModelAnswered`] of the same number; one that has none was cut by the end of its daemon, and nobody knows what it
    /// cost.
    ModelAsked {
        /// The number of the call, unique within the run.
        call: u64,
        /// What the agent asked for, as it wrote it; escape it before a terminal.
        asked: String,
        /// The candidate that is tried first.
        model: ModelName,
        /// Whether the answer is a stream.
        stream: bool,
        /// Bytes of the request's body.
        bytes: u64,
        /// SHA-256 of that body, in hexadecimal digits.
        hash: String,
        /// What it may use at most; so much of the budgets is kept for it until it is over.
        #[serde(default)]
        reserved: Amounts,
    },
    /// A call of a model is over.
    ModelAnswered {
        /// The number of the call.
        call: u64,
        /// How, and what it cost.
        #[serde(flatten)]
        receipt: Box<CallReceipt>,
    },
    /// A request with the same bytes as one in flight came: it gets the answer of that one, and is paid once. Of
    /// many in a row only the first ten are told, and then one a second.
    ModelJoined {
        /// The number of the call whose answer it gets.
        call: u64,
    },
    /// Calls of it were given to a provider's batch interface, which answers them within a day.
    ModelBatched {
        /// The provider.
        provider: String,
        /// The model as the provider calls it.
        model: String,
        /// The path of the API that each of them is a call of.
        path: String,
        /// The batch as the provider calls it.
        batch: String,
        /// The calls.
        calls: Vec<BatchedCall>,
    },
    /// A request goes on with a conversation, and differs from the one before in what comes first: the provider reads again what it had kept.
    CacheBroken {
        /// The number of the call that reads it again.
        call: u64,
        /// The first place where they differ, such as `messages[0].content[1].text at character 118`.
        place: String,
        /// Tokens that are read again, estimated from bytes.
        tokens: u64,
        /// What they cost more than kept ones would; absent where nobody tells the prices.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        nano_usd: Option<Money>,
    },
    /// A secret that is not the agent's to send was found in what it sends. Told once in a life for each secret and receiver.
    SecretSent {
        /// Its name, never its value: `the key of openai`, or `the secret token of builder`.
        secret: String,
        /// To whom: a provider, or `host:port`; escape it before a terminal.
        to: String,
    },
    /// It is about to reach a host: the intent, which is durable before anybody is connected to. Its end is the [`EventKind::HostClosed`] of the
    /// same number.
    HostAsked {
        /// The number of the connection, unique within the run.
        connection: u64,
        /// The host, as the agent names it; escape it before a terminal.
        host: String,
        /// The port.
        port: u16,
    },
    /// A connection to a host is over.
    HostClosed {
        /// The number of the connection.
        connection: u64,
        /// The host, as above.
        host: String,
        /// The port.
        port: u16,
        /// How it ended.
        #[serde(flatten)]
        outcome: HostOutcome,
        /// Bytes that the agent sent: of a tunnel all, of a plain request its first line, headers and body. Absent when nobody knows, since
        /// the daemon was killed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sent: Option<u64>,
        /// Bytes that it received: of a tunnel all, of a plain answer its body. Absent likewise.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        received: Option<u64>,
        /// How long it was, in milliseconds. Absent likewise.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        duration_ms: Option<u64>,
    },
    /// It wanted to reach a host that it may not. Of many in a row only the first ten are told, and then one a second.
    HostDenied {
        /// The host, as above.
        host: String,
        /// The port.
        port: u16,
        /// Why not.
        reason: String,
    },
    /// Of a budget, four fifths are used. Told once for each limit.
    BudgetNearing {
        /// Whose budget it is.
        scope: Scope,
        /// In what.
        measure: Measure,
        /// So much is used, in the unit of the measure.
        used: u64,
        /// So much may be.
        limit: u64,
    },
    /// It waits for a person. Told once for each agent that waits for the same.
    ApprovalAsked(Approval),
    /// Nobody waits for it any more.
    ApprovalAnswered {
        /// Which.
        id: u64,
        /// What it was about, in a word: `budget`.
        kind: String,
        /// What was answered.
        #[serde(flatten)]
        answer: ApprovalAnswer,
        /// Who has answered: `operator`, or why nobody had to.
        by: String,
        /// The number of the user who has answered.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        uid: Option<u32>,
        /// The words of the person, for the model. Escape them before a terminal.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        words: Option<String>,
    },
    /// It has failed, and what it wrote last speaks of a wall of its sandbox. Comes before its end.
    AgentHint {
        /// What it wrote, or what the kernel said of it. Escape it before a terminal.
        wrote: String,
        /// Whether it is the kernel's word, by its audit, and not that of the agent.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        by_kernel: bool,
        /// Which rule that is, and what would open it.
        why: String,
        /// Where the declaration says so, where it does.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        origin: Option<Origin>,
        /// The smallest change of the declaration that opens it, where a declaration can.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        opening: Option<Opening>,
    },
    /// It will not start.
    AgentBlocked {
        /// The dependency that began it.
        by: AgentName,
        /// What was required of it, and how it is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<Box<Unmet>>,
    },
    /// How far it is.
    Progress(Progress),
    /// Numbers that it reports of itself.
    Metrics {
        /// Name and value.
        values: BTreeMap<String, f64>,
    },
    /// A task of it began.
    TaskStarted {
        /// Its place in the agent's list, from 0.
        index: usize,
        /// Its description.
        description: String,
        /// Which try, from 1.
        attempt: u32,
    },
    /// A task of it ended.
    TaskEnded {
        /// Its place in the agent's list, from 0.
        index: usize,
        /// How.
        exit: Exit,
        /// Milliseconds.
        duration_ms: u64,
        /// What the task's own group used.
        usage: Usage,
    },
    /// A model begins to work on its tasks, or goes on with that after its daemon was succeeded by another.
    SessionStarted {
        /// The session, which is kept as a transcript of this name.
        session: SessionKey,
        /// The model that is asked first.
        model: ModelName,
        /// Whether the session goes on.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        resumed: bool,
    },
    /// A person has told the model something.
    SessionSteered {
        /// The session.
        session: SessionKey,
        /// The beginning of what was said. Escape it before a terminal.
        text: String,
        /// Who: `operator`.
        by: String,
        /// The number of the user.
        uid: u32,
        /// Whether what was under way was interrupted.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        interrupted: bool,
    },
    /// From here on, a summary stands in the place of what was said and done before in a session.
    SessionCompacted {
        /// Which.
        session: SessionKey,
        /// Who has written the summary; nobody when no model could.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<ModelName>,
        /// About so many tokens that requests do not have any more.
        freed_tokens: u64,
    },
    /// A session is elsewhere in its turn.
    StateChange {
        /// Which.
        session: SessionKey,
        /// Where it was.
        from: SessionState,
        /// Where it is.
        to: SessionState,
    },
    /// The model has a plan, or another one.
    PlanCreated {
        /// The session.
        session: SessionKey,
        /// The steps. Escape them before a terminal.
        steps: Vec<PlanStep>,
    },
    /// A step of the plan is at another point.
    PlanStepUpdate {
        /// The session.
        session: SessionKey,
        /// Which, from 1.
        step: usize,
        /// How far it is.
        status: StepStatus,
    },
    /// A model wants a tool to be used, it may, and the call is about to be made: the intent, which is durable before anything is done.
    /// Its end is the [`EventKind::ToolCallComplete`] or [`EventKind::ToolCallFailed`] of the same session and call.
    ToolCallStart {
        /// The session.
        session: SessionKey,
        /// The call, unique in the session.
        call: String,
        /// The tool.
        tool: String,
        /// What it is used on, in a line: a path, a command. Escape it before a terminal.
        about: String,
        /// How much can go wrong.
        risk: Risk,
        /// SHA-256 of its arguments, in hexadecimal digits.
        hash: String,
    },
    /// A call of a tool is over.
    ToolCallComplete {
        /// The session.
        session: SessionKey,
        /// The call.
        call: String,
        /// The tool.
        tool: String,
        /// Milliseconds.
        duration_ms: u64,
        /// What its own control group used, where it has one.
        #[serde(default)]
        usage: Usage,
        /// Files that it changed, where the tool is one that tells.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        changes: Vec<FileChange>,
    },
    /// A call of a tool has failed, or was not made.
    ToolCallFailed {
        /// The session.
        session: SessionKey,
        /// The call.
        call: String,
        /// The tool.
        tool: String,
        /// Why, in words. Escape them before a terminal.
        reason: String,
        /// Whether it was done.
        effect: Effect,
        /// Milliseconds; 0 for one that was not made.
        duration_ms: u64,
        /// What its own control group used, where it has one.
        #[serde(default)]
        usage: Usage,
    },
    /// The model has answered, and wants nothing more to be done.
    ResponseComplete {
        /// The session.
        session: SessionKey,
        /// The beginning of what it says. Escape it before a terminal.
        text: String,
    },
    /// A check of one of its objectives was run, after its last process and before its end.
    ObjectiveChecked {
        /// The objective's place in the agent's list, from 0.
        index: usize,
        /// The objective's description.
        description: String,
        /// Whether the check succeeded.
        met: bool,
        /// How the check ended.
        exit: Exit,
    },
    /// Somebody runs a command beside it, in its sandbox.
    ExecStarted {
        /// Tells it apart from others of the run.
        exec: u64,
        /// The program and its arguments.
        argv: Vec<String>,
        /// Who: `operator`.
        by: String,
        /// The number of the user who asked.
        uid: u32,
        /// Whether it runs on a terminal.
        tty: bool,
    },
    /// Such a command is gone, with all that it started.
    ExecEnded {
        /// Which.
        exec: u64,
        /// How.
        exit: Exit,
        /// How long it ran, in milliseconds.
        duration_ms: u64,
    },
    /// It wrote a line that a dependent waits for.
    LogLineSeen {
        /// The text that the line contains.
        text: String,
    },
    /// A time of its schedule has come, and it is started, or will be as soon as it has ended.
    ScheduleFired {
        /// The time, in milliseconds since the Unix epoch.
        due_ms: i64,
        /// The next time, likewise; none when there is no further one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next_ms: Option<i64>,
    },
    /// A time of its schedule was passed over.
    ScheduleSkipped {
        /// The time, in milliseconds since the Unix epoch.
        due_ms: i64,
        /// Why.
        reason: SkipReason,
        /// The other agent because of which: one that it waits for, a task that follows it and has not ended, or one that it
        /// requires and that has ended otherwise. Absent when the agent itself is why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        busy: Option<AgentName>,
        /// The next time, likewise; none when there is no further one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next_ms: Option<i64>,
    },
    /// The clock is to start it: its run has begun, or the host's clock was set.
    ScheduleArmed {
        /// The next time, in milliseconds since the Unix epoch; none when there is no further one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next_ms: Option<i64>,
    },
    /// A report of it, for whoever follows the topic that its declaration names.
    AgentReport {
        /// The topic.
        topic: String,
        /// Why there is one.
        occasion: Occasion,
        /// Its health at that moment.
        report: Box<HealthReport>,
    },
    /// A report of it did not arrive. Told once, until one arrives there.
    ReportUndelivered {
        /// Where it was to go, without what only the receiver should know.
        to: String,
        /// Why it did not.
        reason: String,
    },
    /// Something a person should know.
    Warning {
        /// The text.
        message: String,
    },
}
