//! Plain lines, for logs and pipes: one line per change of state, with the time since the run began. Progress is told
//! at every tenth of the way, or, where there is no fraction, when the text changes and the last line is a while ago.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use toka_core::Risk;
use toka_core::event::{killed_for_memory, planted, return_in_words, spinning, uncovered};
use toka_core::units::format_duration;
use toka_core::watchdog::Stage;
use toka_core::{
    AgentName, Approval, ApprovalAnswer, ByteSize, CallOutcome, CallReceipt, Event, EventKind, Exit,
    HostOutcome, Progress,
};

use super::palette::{Paint, Palette};
use super::phrases::{blocked, quarantined, shortfall};
use super::session;
use super::text::{clock, count, fit, moment, safe, whole};
use super::view::{AgentView, Outcome, RunView};

/// Agents that a line about what still runs names, and columns of what each said.
const STILL_SHOWN: usize = 3;
const STILL_COLUMNS: usize = 60;
/// Least time between two lines of progress without a fraction.
const TEXT_INTERVAL: Duration = Duration::from_secs(5);

/// Turns events into lines, and remembers what of an agent's progress was told last.
#[derive(Debug)]
pub struct PlainLines {
    palette: Palette,
    told: HashMap<AgentName, Told>,
    /// What of the confinement is not in force, as far as it was told: once, whatever the number of agents.
    told_short: BTreeSet<String>,
    /// Somebody asked for the run's end: then an exit code of zero is no success.
    told_to_end: bool,
}

#[derive(Debug, Default, PartialEq)]
struct Told {
    tenth: Option<u8>,
    text: String,
    at: Option<Duration>,
}

impl PlainLines {
    /// Starts with nothing told.
    pub fn new(palette: Palette) -> Self {
        Self { palette, told: HashMap::new(), told_short: BTreeSet::new(), told_to_end: false }
    }

    /// The line that tells the event, if it is worth one. `view` has already taken the event.
    pub fn line(&mut self, event: &Event, view: &RunView, at: Duration) -> Option<String> {
        let (text, paint) = match &event.kind {
            EventKind::Progress(_) => (self.progress(event.agent.as_ref()?, view, at)?, Paint::NONE),
            EventKind::RunEnded { exit_code: 0 } if self.told_to_end => {
                ("the run ended, as it was asked to".to_owned(), Paint::NONE)
            }
            EventKind::RunEnded { exit_code: 0 } => ("the run succeeded".to_owned(), self.palette.good),
            kind => describe(kind, self.palette)?,
        };
        self.told_to_end |= matches!(event.kind, EventKind::RunEnding { end_of: None, .. });
        let mut line = self.stamped(event.agent.as_ref(), view, at, &paint.paint(text));
        if let EventKind::AgentStarted { enforcement, .. } = &event.kind {
            for short in enforcement.layers.iter().filter_map(shortfall) {
                if self.told_short.insert(short.clone()) {
                    line =
                        format!("{line}\n{}", self.stamped(None, view, at, &self.palette.warn.paint(short)));
                }
            }
        }
        Some(line)
    }

    /// A line about the run itself.
    pub fn notice(&self, text: &str, view: &RunView, at: Duration) -> String {
        self.stamped(None, view, at, text)
    }

    /// What still runs, and what was last heard of it, and what cannot start though its time has come; nothing when there is none.
    pub fn still(&self, view: &RunView, at: Duration) -> Option<String> {
        let due: Vec<&AgentView> = view.agents().iter().filter(|agent| agent.is_due()).collect();
        if due.is_empty() {
            return None;
        }
        let words = |agent: &&AgentView| {
            let state = agent.state.as_str();
            let percent = agent.fraction.map(|fraction| format!("{}%", (fraction * 100.0).floor()));
            let said: Vec<String> = [percent, Some(agent.doing())]
                .into_iter()
                .flatten()
                .filter(|text| !text.is_empty())
                .collect();
            let said = if said.is_empty() { state.to_owned() } else { fit(&said.join(" "), STILL_COLUMNS) };
            match agent.started.filter(|_| agent.outcome() == Outcome::Live) {
                Some(started) => format!("{} ({}, {})", agent.name, said, clock(at.saturating_sub(started))),
                None => format!("{} ({said})", agent.name),
            }
        };
        let mut shown: Vec<String> = due.iter().take(STILL_SHOWN).map(words).collect();
        if due.len() > STILL_SHOWN {
            shown.push(format!("and {} more", due.len() - STILL_SHOWN));
        }
        let runs = due.iter().any(|agent| agent.outcome() == Outcome::Live);
        let text = format!("{}: {}", if runs { "still going" } else { "still waiting" }, shown.join(", "));
        Some(self.stamped(None, view, at, &self.palette.faint.paint(text)))
    }

    fn stamped(&self, agent: Option<&AgentName>, view: &RunView, at: Duration, text: &str) -> String {
        let time = format!("[{:>8.3}s]", at.saturating_sub(view.started).as_secs_f64());
        let time = self.palette.faint.paint(time);
        match agent {
            Some(name) => format!("{time} {}: {text}", self.palette.name(view.place(name)).paint(name)),
            None => format!("{time} {text}"),
        }
    }

    fn progress(&mut self, name: &AgentName, view: &RunView, at: Duration) -> Option<String> {
        let agent = view.agent(name)?;
        let told = self.told.entry(name.clone()).or_default();
        let new = Told {
            tenth: agent.fraction.map(|fraction| (fraction * 10.0).floor() as u8),
            text: agent.doing(),
            at: Some(at),
        };
        if !is_news(told, &new) {
            return None;
        }
        *told = new;
        let percent = agent.fraction.map(|fraction| format!("{}%", (fraction * 100.0).floor()));
        let parts = [percent.unwrap_or_default(), told.text.clone()];
        let text: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        (!text.is_empty()).then(|| text.join(" "))
    }
}

/// One event as a line with its number and its time of day, whatever it is.
pub fn event_line(event: &Event, palette: Palette) -> String {
    let time = jiff::Timestamp::from_millisecond(event.time_ms).unwrap_or_default();
    let time = time.to_zoned(jiff::tz::TimeZone::system()).strftime("%F %T%.3f").to_string();
    let (text, paint) =
        describe(&event.kind, palette).unwrap_or_else(|| (in_short(&event.kind), Paint::NONE));
    let agent = event.agent.as_ref().map(|agent| format!("{}: ", palette.accent.paint(agent)));
    let stamp = palette.faint.paint(format!("{:>6}  {time}", event.seq));
    format!("{stamp}  {}{}", agent.unwrap_or_default(), paint.paint(text))
}

/// The words for an event of any kind, and whether a person should look at it.
pub fn in_words(kind: &EventKind) -> (String, bool) {
    let colours = Palette::COLOUR;
    let Some((text, paint)) = describe(kind, colours) else { return (in_short(kind), false) };
    (text, paint == colours.warn || paint == colours.bad)
}

/// What is not worth a line of its own while a run is watched, when somebody asks for everything.
fn in_short(kind: &EventKind) -> String {
    match kind {
        EventKind::Progress(Progress { fraction, status, task }) => {
            let percent = fraction.map(|fraction| format!("{:.0} %", fraction * 100.0));
            let words = [percent, task.as_deref().map(safe), status.as_deref().map(safe)];
            format!("progress: {}", words.into_iter().flatten().collect::<Vec<_>>().join("  "))
        }
        EventKind::Metrics { values } => {
            let values: Vec<String> =
                values.iter().map(|(name, value)| format!("{}={value}", safe(name))).collect();
            format!("metrics: {}", values.join(" "))
        }
        EventKind::ModelJoined { call } => format!("asked the same as call {call}, and gets its answer"),
        EventKind::ModelBatched { provider, batch, calls, .. } => {
            let calls = match calls.len() {
                1 => "a call".to_owned(),
                count => format!("{count} calls"),
            };
            format!("{calls} given to {} as the batch {}", safe(provider), safe(batch))
        }
        EventKind::CacheBroken { place, tokens, nano_usd, .. } => {
            let cost = nano_usd.map_or_else(String::new, |more| format!(", about {more} more"));
            format!("its request differs at {}: some {tokens} tokens are read again{cost}", safe(place))
        }
        EventKind::HostAsked { host, port, .. } => format!("reaches {}:{port}", safe(host)),
        EventKind::ModelAsked { model, reserved, .. } => {
            let most = format!("{} tokens, {}", reserved.tokens, reserved.money);
            format!("asks {}: at most {most}", safe(&model.to_string()))
        }
        EventKind::AgentStarting => "starting".to_owned(),
        EventKind::AgentReturns { by, then, .. } => return_in_words(&safe(by), *then),
        EventKind::AgentReport { topic, report, .. } => {
            format!("report to {}: {}", safe(topic), report.verdict)
        }
        EventKind::LogLineSeen { text } => format!("wrote a line with {:?}", safe(text)),
        EventKind::ProbeChanged { probe, .. } => format!("{probe} probe succeeds"),
        EventKind::TaskEnded { duration_ms, .. } => {
            format!("task succeeded in {}", format_duration(Duration::from_millis(*duration_ms)))
        }
        EventKind::StateChange { .. }
        | EventKind::ToolCallStart { .. }
        | EventKind::ToolCallComplete { .. } => session::tell(kind).unwrap_or_default(),
        // A kind that has no words yet: its name is better than nothing.
        other => serde_json::to_value(other)
            .ok()
            .and_then(|value| {
                value.get("type").and_then(|kind| kind.as_str()).map(|kind| kind.replace('_', " "))
            })
            .unwrap_or_default(),
    }
}

/// Whether progress is worth a line: another tenth, or, without a fraction, another text after a while.
fn is_news(told: &Told, new: &Told) -> bool {
    match (told.tenth, new.tenth) {
        (told, Some(tenth)) => told != Some(tenth),
        (_, None) => {
            let rested = told.at.is_none_or(|last| new.at.is_some_and(|now| now >= last + TEXT_INTERVAL));
            rested && told.text != new.text
        }
    }
}

/// What happened, in words; `None` for what is not worth a line.
fn describe(kind: &EventKind, palette: Palette) -> Option<(String, Paint)> {
    let line = match kind {
        EventKind::RunStarted { workspace, agents, .. } => {
            (format!("{} in {}", count(agents.len(), "agent"), safe(workspace)), Paint::NONE)
        }
        // Zero is also the code of a run that somebody ended: this event alone does not tell.
        EventKind::RunEnded { exit_code } => {
            let paint = if *exit_code == 0 { palette.good } else { palette.bad };
            (format!("the run ended with exit code {exit_code}"), paint)
        }
        EventKind::RunEnding { by, .. } => {
            (format!("the run is to end, asked for by {}", safe(by)), palette.warn)
        }
        EventKind::RunInterrupted { by } => {
            (format!("the daemon ends, asked by {}; the next one goes on", safe(by)), palette.warn)
        }
        EventKind::RunAdopted { agents } => {
            (format!("another daemon goes on with {}", count(*agents, "agent")), palette.warn)
        }
        EventKind::KeeperSucceeded { pid } => {
            (format!("the keeper was killed; another took over (pid {pid})"), palette.warn)
        }
        EventKind::RunChanged { by, added, changed, adjusted, removed, .. } => {
            let parts =
                [("added", added), ("changed", changed), ("adjusted", adjusted), ("removed", removed)];
            let parts = parts.iter().filter(|(_, names)| !names.is_empty());
            let parts: Vec<String> = parts.map(|(what, names)| format!("{} {what}", names.len())).collect();
            // The order of the agents, or a rule of the run such as --fail-fast.
            let what = if parts.is_empty() { "no agent".to_owned() } else { parts.join(", ") };
            (format!("{} changed the run: {what}", safe(by)), Paint::NONE)
        }
        EventKind::AgentRequeued { by, .. } => {
            (format!("begins anew, asked for by {}", safe(by)), Paint::NONE)
        }
        EventKind::AgentWaiting { hold } => (format!("waits for its start: {hold}"), palette.warn),
        EventKind::AgentStarted { pid, enforcement } => {
            (format!("started (pid {pid}, enforcement {enforcement})"), Paint::NONE)
        }
        EventKind::AgentReady => ("ready".to_owned(), palette.good),
        EventKind::AgentMainProcess { pid } => (format!("its main process is now pid {pid}"), Paint::NONE),
        EventKind::RequestFailed { request, reason } => {
            (format!("{} failed: {}", request.as_str(), safe(reason)), palette.bad)
        }
        EventKind::AgentPaused { by } if by == "budget" => {
            ("paused: it waits for a person".to_owned(), palette.warn)
        }
        EventKind::AgentPaused { .. } => ("paused".to_owned(), palette.warn),
        EventKind::BudgetNearing { scope, measure, used, limit } => {
            let part = measure.tell_part(*used, *limit);
            (format!("budget of {scope}: {part} are used"), palette.warn)
        }
        EventKind::ApprovalAsked(approval) => (asked(approval), palette.warn),
        EventKind::ApprovalAnswered { id, kind, answer, by, words, .. } => {
            let (text, paint) = answered(*id, kind, *answer, by, palette);
            let words = words.as_ref().map_or_else(String::new, |words| format!(": {}", safe(words)));
            (text + &words, paint)
        }
        EventKind::AgentResumed => ("resumed".to_owned(), Paint::NONE),
        EventKind::AgentStopping { exit } => (format!("stopping: {}", safe(&exit.to_string())), palette.warn),
        EventKind::AgentEnded { exit, duration_ms, usage } => {
            let took = format_duration(Duration::from_millis(*duration_ms));
            let peak =
                usage.memory_peak.map_or_else(String::new, |peak| format!(", peak {}", ByteSize(peak)));
            // Of an end that nobody saw it is not known when it was.
            let figures = match exit {
                Exit::Unknown if *duration_ms == 0 => String::new(),
                _ => format!(" ({took}{peak})"),
            };
            (format!("{}{figures}", safe(&usage.tell(exit))), paint_of(exit, palette))
        }
        EventKind::AgentNotReady { reason } => (format!("not ready: {}", safe(reason)), palette.warn),
        EventKind::AgentRestarting { exit, restarts, delay_ms, usage, .. } => {
            let wait = format_duration(Duration::from_millis(*delay_ms));
            let when = if *delay_ms == 0 { "now".to_owned() } else { format!("in {wait}") };
            (format!("{}; restart {restarts} {when}", safe(&usage.tell(exit))), palette.warn)
        }
        EventKind::AgentQuarantined { exit, restarts, usage, .. } => {
            (quarantined(*restarts, exit, usage), palette.bad)
        }
        EventKind::AgentAwaits { why } => {
            (format!("its next start waits: {}", safe(&why.to_string())), palette.warn)
        }
        EventKind::ProbeChanged { probe, ok: false, reason } => {
            (format!("{probe} probe fails: {}", safe(reason)), palette.warn)
        }
        EventKind::AgentWedged { stage, quiet_ms, .. } => {
            let quiet = format_duration(Duration::from_millis(*quiet_ms));
            let deed = match stage {
                Stage::Warn => "",
                Stage::Signal => "; sending SIGABRT",
                Stage::Restart => "; ending it",
            };
            (format!("wedged: no sign of life for {quiet}{deed}"), palette.warn)
        }
        EventKind::AgentSpinning { quiet_ms, cpu_us } => (spinning(*quiet_ms, *cpu_us), palette.warn),
        EventKind::AgentRecovered { .. } => ("shows life again".to_owned(), palette.good),
        EventKind::AgentHint { wrote, by_kernel, why, origin, opening } => {
            let at = origin
                .as_ref()
                .map_or_else(String::new, |origin| format!(" ({})", safe(&origin.to_string())));
            let patch =
                opening.as_ref().map_or_else(String::new, |it| format!("; opens it: {}", safe(&it.patch())));
            let said = if *by_kernel { "the kernel refused" } else { "it wrote" };
            (format!("hint: {said} “{}”: {}{at}{patch}", safe(wrote), safe(why)), palette.warn)
        }
        EventKind::AgentPlanted { path, outcome } => (safe(&planted(path, outcome)), palette.warn),
        EventKind::AgentUncovered { path, outcome } => (safe(&uncovered(path, outcome)), palette.warn),
        EventKind::ModelAnswered { receipt, .. } => model_call(receipt, palette),
        EventKind::HostClosed { host, port, outcome, sent, received, duration_ms, .. } => {
            let figures = match (sent, received, duration_ms) {
                (Some(sent), Some(received), Some(took)) => {
                    let took = format_duration(Duration::from_millis(*took));
                    format!("{} sent, {} received, {took}", ByteSize(*sent), ByteSize(*received))
                }
                _ => "nobody knows how much went over it".to_owned(),
            };
            let host = safe(host);
            match outcome {
                HostOutcome::Closed => (format!("host {host}:{port}: {figures}"), palette.faint),
                HostOutcome::Failed { reason } => {
                    (format!("host {host}:{port} not reached: {}", safe(reason)), palette.warn)
                }
                HostOutcome::Cut { reason } => {
                    (format!("host {host}:{port} broke off: {} ({figures})", safe(reason)), palette.faint)
                }
            }
        }
        EventKind::HostDenied { host, port, reason } => {
            (format!("denied: {}:{port}: {}", safe(host), safe(reason)), palette.warn)
        }
        EventKind::SecretSent { secret, to } => {
            let words =
                format!("sends a secret that is not its own to send: {} to {}", safe(secret), safe(to));
            (words, palette.bad)
        }
        EventKind::AgentOomKilled { kills } => (killed_for_memory(*kills), palette.warn),
        EventKind::AgentBlocked { by, why } => (blocked(by, why.as_deref()), palette.warn),
        EventKind::ExecStarted { argv, by, uid, .. } => {
            (format!("command of {} (uid {uid}): {}", safe(by), safe(&argv.join(" "))), Paint::NONE)
        }
        EventKind::ExecEnded { exit, duration_ms, .. } => {
            let took = format_duration(Duration::from_millis(*duration_ms));
            (format!("command: {} ({took})", safe(&exit.to_string())), Paint::NONE)
        }
        EventKind::TaskStarted { description, attempt: 1, .. } => {
            (format!("task: {}", safe(description)), Paint::NONE)
        }
        EventKind::TaskStarted { description, attempt, .. } => {
            (format!("task: {} (attempt {attempt})", safe(description)), palette.warn)
        }
        EventKind::TaskEnded { exit, duration_ms, .. } if !exit.is_success() => {
            let took = format_duration(Duration::from_millis(*duration_ms));
            (format!("task failed: {} ({took})", safe(&exit.to_string())), palette.bad)
        }
        EventKind::ObjectiveChecked { description, exit, .. } => objective(description, exit, palette),
        // What changes nothing is in the log.
        EventKind::ToolCallStart { risk: Risk::Low, .. } => return None,
        EventKind::SessionStarted { .. }
        | EventKind::SessionSteered { .. }
        | EventKind::SessionCompacted { .. }
        | EventKind::PlanCreated { .. }
        | EventKind::PlanStepUpdate { .. }
        | EventKind::ToolCallStart { .. }
        | EventKind::ToolCallFailed { .. }
        | EventKind::ResponseComplete { .. } => (session::tell(kind)?, Paint::NONE),
        EventKind::ScheduleArmed { next_ms: Some(next_ms) } => {
            (format!("the clock starts it at {}", moment(*next_ms)), Paint::NONE)
        }
        EventKind::ScheduleFired { .. } => ("its time has come".to_owned(), Paint::NONE),
        EventKind::ScheduleSkipped { reason, busy, .. } => {
            let who = busy.as_ref().map(|agent| format!(" (see {agent})")).unwrap_or_default();
            (format!("a time of its schedule was skipped: {}{who}", reason.as_str()), palette.warn)
        }
        EventKind::ReportUndelivered { to, reason } => {
            (format!("a report did not reach {}: {}", safe(to), safe(reason)), palette.warn)
        }
        EventKind::Warning { message } => (format!("warning: {}", safe(message)), palette.warn),
        // Told by another line, or of use to programs only: `in_short` has words for those of them that have any.
        EventKind::AgentStarting
        | EventKind::AgentReturns { .. }
        | EventKind::Progress(_)
        | EventKind::Metrics { .. }
        | EventKind::LogLineSeen { .. }
        | EventKind::AgentReport { .. }
        | EventKind::StateChange { .. }
        | EventKind::ToolCallComplete { .. }
        | EventKind::ModelAsked { .. }
        | EventKind::ModelJoined { .. }
        | EventKind::ModelBatched { .. }
        | EventKind::CacheBroken { .. }
        | EventKind::HostAsked { .. }
        | EventKind::ProbeChanged { ok: true, .. }
        | EventKind::TaskEnded { .. }
        | EventKind::ScheduleArmed { next_ms: None } => return None,
    };
    Some(line)
}

/// What waits for a person, and how to answer it.
fn asked(approval: &Approval) -> String {
    let Approval { id, subject, .. } = approval;
    let (what, no) = (whole(&subject.to_string()), subject.no());
    let yes = subject.how_to_say_yes(*id);
    format!("waits for a person: {what}; {yes}, `toka approvals deny {id}` to {no}")
}

fn answered(id: u64, kind: &str, answer: ApprovalAnswer, by: &str, palette: Palette) -> (String, Paint) {
    let (by, kind) = (safe(by), safe(kind));
    match answer {
        ApprovalAnswer::Approved { .. } => {
            (format!("approval {id} ({kind}): approved by {by}"), palette.good)
        }
        ApprovalAnswer::Denied => (format!("approval {id} ({kind}): denied by {by}"), palette.warn),
        ApprovalAnswer::Expired => {
            (format!("approval {id} ({kind}): nobody has answered in time, which is no"), palette.warn)
        }
        ApprovalAnswer::Withdrawn => (format!("approval {id} ({kind}): withdrawn by {by}"), palette.faint),
    }
}

/// Whether an objective is met, and if not, what became of its check.
pub(super) fn objective(description: &str, exit: &Exit, palette: Palette) -> (String, Paint) {
    let description = safe(description);
    if exit.is_success() {
        return (format!("objective met: {description}"), palette.good);
    }
    (format!("objective not met: {description} ({})", safe(&exit.to_string())), palette.bad)
}

/// A call of a model that is over: which model, how it ended, what it used and cost.
fn model_call(receipt: &CallReceipt, palette: Palette) -> (String, Paint) {
    let model = safe(&format!("{}/{}", receipt.provider, receipt.model));
    let took = format_duration(Duration::from_millis(receipt.duration_ms));
    let tokens = match (receipt.tokens.read(), receipt.tokens.output) {
        (0, None) => String::new(),
        (read, written) => format!("{read} tokens read, {} written, ", written.unwrap_or(0)),
    };
    let before: Vec<String> = receipt.failed_tries.iter().map(|why| safe(why)).collect();
    let after = if before.is_empty() { String::new() } else { format!(", after {}", before.join("; ")) };
    let figures = format!("{tokens}{}, {took}{after}", receipt.cost);
    let (word, why, paint) = match &receipt.outcome {
        CallOutcome::Completed => {
            let paint = if before.is_empty() { palette.faint } else { palette.warn };
            return (format!("model {model}: {figures}"), paint);
        }
        CallOutcome::Cancelled => ("given up by the agent", None, palette.faint),
        CallOutcome::Failed { status: Some(status), reason } => {
            return (
                format!("model {model} failed with {status}: {} ({figures})", safe(reason)),
                palette.warn,
            );
        }
        CallOutcome::Failed { reason, .. } => ("failed", Some(reason), palette.warn),
        CallOutcome::Cut { reason } => ("broke off", Some(reason), palette.warn),
        CallOutcome::Refused { reason } => {
            return (format!("model call refused: {}", safe(reason)), palette.warn);
        }
    };
    let why = why.map_or_else(String::new, |why| format!(": {}", safe(why)));
    (format!("model {model} {word}{why} ({figures})"), paint)
}

fn paint_of(exit: &Exit, palette: Palette) -> Paint {
    match exit {
        exit if exit.is_success() => palette.good,
        exit if exit.is_failure() => palette.bad,
        _ => palette.faint,
    }
}

/// The line for an event when only failures are wanted (`--quiet`).
pub fn failure(event: &Event, palette: Palette) -> Option<String> {
    let failed = match &event.kind {
        EventKind::AgentEnded { exit, .. } => exit.is_failure(),
        EventKind::AgentBlocked { .. }
        | EventKind::AgentQuarantined { .. }
        | EventKind::ProbeChanged { ok: false, .. }
        | EventKind::AgentHint { .. }
        | EventKind::AgentUncovered { .. }
        | EventKind::AgentPlanted { .. }
        | EventKind::RequestFailed { .. }
        | EventKind::ApprovalAsked(_)
        | EventKind::ObjectiveChecked { met: false, .. } => true,
        _ => false,
    };
    let (text, paint) = describe(&event.kind, palette).filter(|_| failed)?;
    Some(format!("{}: {}", event.agent.as_ref()?, paint.paint(text)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canned;
    use toka_core::pressure::{Hold, Scarce};

    fn lines(palette: Palette) -> String {
        let mut plain = PlainLines::new(palette);
        let mut view = RunView::default();
        let mut out = Vec::new();
        for (at, event) in canned::events().iter().enumerate() {
            view.apply(event, canned::moment(at));
            out.extend(plain.line(event, &view, canned::moment(at)));
        }
        out.join("\n")
    }

    #[test]
    fn a_whole_run() {
        insta::assert_snapshot!(lines(Palette::PLAIN));
    }

    #[test]
    fn a_whole_run_in_colour() {
        insta::assert_snapshot!(lines(Palette::COLOUR).replace('\u{1b}', "␛"));
    }

    #[test]
    fn only_failures() {
        let lines: Vec<_> =
            canned::events().iter().filter_map(|event| failure(event, Palette::PLAIN)).collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn a_run_that_somebody_ended_is_no_success() {
        let last = |events: &[EventKind]| {
            let (mut plain, view) = (PlainLines::new(Palette::PLAIN), RunView::default());
            let event =
                |kind: &EventKind| Event { agent: None, kind: kind.clone(), ..canned::events()[0].clone() };
            let lines = events.iter().filter_map(|kind| plain.line(&event(kind), &view, Duration::ZERO));
            lines.last().expect("a line")
        };
        let ending = |agent: Option<&str>| EventKind::RunEnding {
            by: "operator".into(),
            end_of: agent.map(|name| AgentName::new(name).expect("a label")),
        };
        let ended = |exit_code| EventKind::RunEnded { exit_code };
        assert!(last(&[ended(0)]).ends_with("the run succeeded"));
        assert!(last(&[ending(Some("job")), ended(0)]).ends_with("the run succeeded"), "it was declared");
        assert!(last(&[ending(None), ended(0)]).ends_with("the run ended, as it was asked to"));
        assert!(last(&[ending(None), ended(143)]).ends_with("the run ended with exit code 143"));
        assert_eq!(in_words(&ended(0)), ("the run ended with exit code 0".to_owned(), false));
    }

    #[test]
    fn objectives_are_told_with_what_became_of_the_check() {
        let checked = |code| EventKind::ObjectiveChecked {
            index: 0,
            description: "All \u{1b}[2Jgreen".into(),
            met: code == 0,
            exit: Exit::Code { code },
        };
        let told = |kind| describe(&kind, Palette::PLAIN).expect("a line").0;
        assert!(told(checked(0)).starts_with("objective met: All "), "{}", told(checked(0)));
        let unmet = told(checked(3));
        assert!(unmet.starts_with("objective not met: All ") && unmet.contains("exit code 3"), "{unmet}");
        assert!(!unmet.contains('\u{1b}'), "{unmet:?}");
        let event = |kind| Event { kind, ..canned::events()[1].clone() };
        assert!(failure(&event(checked(3)), Palette::PLAIN).is_some(), "even when only failures are wanted");
        assert_eq!(failure(&event(checked(0)), Palette::PLAIN), None);
        let uncovered = EventKind::AgentUncovered {
            path: "/w/toka.yaml".into(),
            outcome: toka_core::event::ProtectionOutcome::Renewed,
        };
        assert!(failure(&event(uncovered), Palette::PLAIN).is_some());
        let outcome = toka_core::PlantedOutcome::Remains { reason: "Permission denied".into() };
        let planted = EventKind::AgentPlanted { path: "/w/a\u{1b}[2J.yaml".into(), outcome };
        let told = failure(&event(planted), Palette::PLAIN).expect("it is told");
        assert!(told.contains("cannot be set aside (Permission denied)"), "{told}");
        assert!(!told.contains('\u{1b}'), "{told:?}");
    }

    #[test]
    fn what_still_runs_is_told_with_what_was_last_heard() {
        let view = canned::view_after(canned::MIDDLE);
        let line = PlainLines::new(Palette::PLAIN).still(&view, Duration::from_secs(170)).expect("two run");
        assert!(line.contains("still going: checks (42% Run the test suite: test 42 of 100, 2m"), "{line}");
        assert!(line.chars().all(|c| !c.is_control()), "{line:?}");
        let over = canned::view_after(canned::events().len());
        assert_eq!(PlainLines::new(Palette::PLAIN).still(&over, Duration::from_secs(170)), None);
    }

    #[test]
    fn what_cannot_start_though_its_time_has_come_is_told() {
        let agents = ["due", "later"].map(canned::name);
        let still = |view: &RunView| PlainLines::new(Palette::PLAIN).still(view, Duration::from_secs(30));
        assert_eq!(still(&canned::view_of(&agents, [])), None);
        let hold = Hold { scarce: Scarce::Memory, percent: 31, limit: 20 };
        let view = canned::view_of(&agents, [(0, EventKind::AgentWaiting { hold })]);
        let line = still(&view).expect("one waits");
        assert!(line.contains("still waiting: due (the host is short of memory: 31 % of the time"), "{line}");
    }

    #[test]
    fn text_without_a_fraction_is_told_now_and_then() {
        let told = |text: &str, seconds| Told {
            tenth: None,
            text: text.into(),
            at: Some(Duration::from_secs(seconds)),
        };
        assert!(is_news(&Told::default(), &told("a", 0)));
        assert!(!is_news(&told("a", 0), &told("b", 4)));
        assert!(is_news(&told("a", 0), &told("b", 5)));
        assert!(!is_news(&told("a", 0), &told("a", 60)));
    }
}
