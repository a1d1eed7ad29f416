//! The verbs that ask something of agents: `start`, `stop`, `restart`, `pause`, `resume`, `kill`, `signal`. One shape for
//! all of them: which agents, how long to wait, and what is printed.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;

use toka_core::command::{Done, Outcome};
use toka_core::units::parse_duration;
use toka_core::{AgentName, AgentState, AgentStatus, Command, Decision, Exit, ExitCode, Request};

use super::ps::now_ms;
use super::reach::{AgentRef, Found, Purpose, Reach, block_on, failure};
use toka_terminal::failure::Failure;
use toka_terminal::palette::Palette;
use toka_terminal::text::safe;
use toka_terminal::{json, list, out};

/// Longest wait unless somebody says otherwise: longer than any reasonable grace period.
const LONGEST: Duration = Duration::from_secs(600);

/// How long a command is silent before it tells what agents wait for.
const FIRST_WORD: Duration = Duration::from_secs(1);
/// The longest between two looks at what agents wait for.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Options of every verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The agents, as AGENT or PROJECT/AGENT; the name of all replicas, and patterns such as `web-*`, mean several
    #[arg(value_name = "AGENT", required_unless_present = "all")]
    agents: Vec<AgentRef>,
    /// All agents of the project
    #[arg(long, conflicts_with = "agents")]
    all: bool,
    #[command(flatten)]
    reach: Reach,
    /// Do not wait until it is done
    #[arg(long, conflicts_with = "timeout")]
    no_wait: bool,
    /// Wait so long at most [default: 10m]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Options of `toka signal`.
#[derive(Debug, clap::Args)]
pub(crate) struct SignalArgs {
    /// The signal: a name such as HUP or SIGUSR1, or a number
    #[arg(value_name = "SIGNAL", value_parser = parse_signal)]
    signal: i32,
    #[command(flatten)]
    args: Args,
}

/// Asks for `request`.
pub(crate) fn run(request: Request, args: Args) -> anyhow::Result<ExitCode> {
    ask(|agents| Command::Request { request, agents }, args, Words::of(request))
}

/// Sends a signal.
pub(crate) fn signal(args: SignalArgs) -> anyhow::Result<ExitCode> {
    let SignalArgs { signal, args } = args;
    ask(
        |agents| Command::Signal { signal, agents },
        args,
        Words { already: "was sent", denied: "not sent", begins: false },
    )
}

/// How the outcome is told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Words {
    /// Of one that is so already.
    already: &'static str,
    /// Of one that could not be.
    denied: &'static str,
    /// Whether it is to run afterwards.
    begins: bool,
}

impl Words {
    /// Those of a request.
    pub(crate) fn of(request: Request) -> Self {
        let (already, denied) = match request {
            Request::Start => ("runs already", "not started"),
            Request::Restart => ("is about to start", "not restarted"),
            Request::Stop | Request::Kill => ("has ended already", "not stopped"),
            Request::Pause => ("is paused already", "not paused"),
            Request::Resume => ("runs already", "not resumed"),
        };
        Self { already, denied, begins: matches!(request, Request::Start | Request::Restart) }
    }
}

fn ask(
    command: impl FnOnce(Vec<AgentName>) -> Command,
    args: Args,
    words: Words,
) -> anyhow::Result<ExitCode> {
    let longest = if args.no_wait { Duration::ZERO } else { args.timeout.unwrap_or(LONGEST) };
    let outcome: Outcome = block_on(async {
        let found = args.reach.find(&args.agents, Purpose::Act).await?;
        let agents = found.agents(&args.agents)?;
        let command = command(agents.clone());
        tokio::select! {
            outcome = found.client.command_of(found.run(), &command, longest) => Ok(outcome.map_err(failure)?),
            never = tell_waits(&found, &agents, Awaited::Life) => match never {},
        }
    })?;
    let code = code_of(&outcome, words);
    let palette = Palette::for_stream(&std::io::stdout());
    let text = if args.json { json::line(&outcome) + "\n" } else { text(&outcome, words, palette) };
    let printed = out::end(&text, code)?;
    if outcome.finished || longest.is_zero() {
        return Ok(printed);
    }
    let message = "it is not done yet, and goes on by itself";
    Err(Failure::new(ExitCode::TimedOut, message).help("see how far it is with `toka ps`").into())
}

/// The exit status that says whether it was done.
pub(crate) fn code_of(outcome: &Outcome, words: Words) -> ExitCode {
    let is_bad = |done: &Done| {
        matches!(done.decision, Decision::Deny { .. })
            || !is_ahead(outcome, done, words) && failure_of(done, words).is_some()
    };
    if outcome.agents.iter().any(is_bad) { ExitCode::AgentFailed } else { ExitCode::Success }
}

/// Whether its new life has not begun yet, so that its state tells how the former one ended.
fn is_ahead(outcome: &Outcome, done: &Done, words: Words) -> bool {
    words.begins && !outcome.finished && done.decision == Decision::Accept && done.state.is_final()
}

/// Why what was begun has failed already, or never began.
fn failure_of(done: &Done, words: Words) -> Option<String> {
    if done.decision != Decision::Accept {
        return None;
    }
    match &done.state {
        AgentState::Ended { exit } | AgentState::Quarantined { exit, .. } if exit.is_failure() => {
            Some(format!("failed: {exit}"))
        }
        AgentState::Ended { exit: exit @ Exit::NotStarted { .. } } if words.begins => Some(exit.to_string()),
        AgentState::Ended { exit } if words.begins && exit.is_asked_for() => {
            Some(format!("{}: {exit} before that", words.denied))
        }
        AgentState::Blocked { why: Some(why), .. } if words.begins => {
            Some(format!("{}: {why}", words.denied))
        }
        AgentState::Blocked { by, .. } if words.begins => {
            Some(format!("{}: {by} did not succeed", words.denied))
        }
        _ => None,
    }
}

/// The outcome, one line for each agent.
pub(crate) fn text(outcome: &Outcome, words: Words, palette: Palette) -> String {
    let line = |done: &Done| {
        let name = palette.accent.paint(&done.agent);
        match done.decision {
            Decision::Accept if is_ahead(outcome, done, words) => format!("{name}  begins anew\n"),
            Decision::Accept => match failure_of(done, words) {
                Some(why) => format!("{name}  {}\n", palette.bad.paint(safe(&why))),
                None => match waits(done) {
                    Some(waits) => format!("{name}  {}\n", palette.warn.paint(waits)),
                    None => format!("{name}  {}{}\n", done.state.as_str(), schedule(done, words)),
                },
            },
            Decision::Ignore => {
                let already = waits(done).unwrap_or_else(|| words.already.to_owned() + schedule(done, words));
                format!("{name}  {}\n", palette.faint.paint(already))
            }
            Decision::Deny { reason } => {
                format!("{name}  {}: {reason}\n", palette.bad.paint(words.denied))
            }
        }
    };
    outcome.agents.iter().map(line).collect()
}

/// Why its life has not begun yet.
fn waits(done: &Done) -> Option<String> {
    match (&done.state, &done.waits) {
        (AgentState::Pending | AgentState::Backoff { .. }, Some(unmet)) => {
            Some(format!("waits: {}", safe(&unmet.to_string())))
        }
        (AgentState::Pending, None) => Some("waits for its turn".to_owned()),
        _ => None,
    }
}

/// A stop ends a life, and no schedule.
fn schedule(done: &Done, words: Words) -> &'static str {
    let is_over = !words.begins && done.state.is_final();
    if is_over && done.next_due_ms.is_some() { "; its schedule goes on" } else { "" }
}

/// What a command waits for, while it prints what becomes of the agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Awaited {
    /// That a life begins or ends.
    Life,
    /// That they are ready.
    Readiness,
}

/// Tells once on stderr what each agent waits for, from a second after the command was sent: a command that does not
/// return says why.
pub(super) async fn tell_waits(found: &Found, agents: &[AgentName], awaited: Awaited) -> Infallible {
    let (mut told, mut pause) = (BTreeSet::new(), FIRST_WORD);
    loop {
        tokio::time::sleep(pause).await;
        // A command that waits for hours need not ask the daemon every second.
        pause = (pause * 2).min(LONGEST_PAUSE);
        let Ok(projects) = found.client.projects().await else { continue };
        let Some(project) = projects.into_iter().find(|project| project.overview.project == *found.name())
        else {
            continue;
        };
        for agent in project.agents.iter().filter(|agent| agents.contains(&agent.name)) {
            if let Some(reason) = lacks(agent, awaited)
                && told.insert((agent.name.clone(), reason.clone()))
            {
                let clock = clock_of(agent, &project.agents, now_ms()).unwrap_or_default();
                anstream::eprintln!("{}  {reason}{clock}", agent.name);
            }
        }
    }
}

/// When the clock starts what an agent waits for, if only that does, and how not to wait so long.
fn clock_of(agent: &AgentStatus, all: &[AgentStatus], now_ms: i64) -> Option<String> {
    let on = &agent.waits.as_ref()?.on;
    let awaited = all.iter().find(|other| other.name == *on && other.state == AgentState::Pending)?;
    let due = list::age(now_ms, awaited.next_due_ms?);
    Some(format!("; the clock starts {on} in {due}, and `toka start {on}` starts it now"))
}

/// Why an agent is not where it is waited for, in words that follow its name.
pub(super) fn lacks(agent: &AgentStatus, awaited: Awaited) -> Option<String> {
    let is_to_begin = matches!(agent.state, AgentState::Pending | AgentState::Backoff { .. });
    let reason = agent.held.map(|hold| hold.to_string());
    let reason = reason.or_else(|| agent.waits.as_ref().map(|unmet| safe(&unmet.to_string())));
    let reason = reason.filter(|_| is_to_begin).map(|reason| format!("waits: {reason}"));
    reason.or_else(|| unready(agent).filter(|_| awaited == Awaited::Readiness))
}

/// Why one that runs is not ready. Whether it has a probe is not told before that has found something.
fn unready(agent: &AgentStatus) -> Option<String> {
    match agent.state {
        AgentState::Running { ready: false, .. } => Some(match list::failing_probe(agent) {
            Some(why) => why,
            None if agent.probes.is_empty() => {
                "runs, and is not ready: neither has a probe found it so, nor has it said so".to_owned()
            }
            None => "runs, and is not ready yet".to_owned(),
        }),
        _ => None,
    }
}

fn parse_signal(text: &str) -> Result<i32, String> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=31).contains(&number).then_some(number).ok_or_else(|| "signals are 1 to 31".to_owned());
    }
    let upper = text.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    name.parse::<nix::sys::signal::Signal>()
        .map(|signal| signal as i32)
        .map_err(|_| format!("there is no signal {text}; try HUP, INT, TERM, USR1, USR2 or a number"))
}

#[cfg(test)]
mod tests {
    use toka_core::Name;
    use toka_core::request::DenyReason;

    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in [("HUP", 1), ("sigusr1", 10), ("SIGTERM", 15), ("31", 31)] {
            assert_eq!(parse_signal(text), Ok(number), "{text}");
        }
        for bad in ["0", "32", "SIGNONE", "-1", ""] {
            assert!(parse_signal(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn whoever_waits_for_the_clock_is_told_when_it_comes() {
        let name = |text| Name::new(text).expect("a label");
        let agent = |text| AgentStatus::new(name(text), 0);
        let waits = toka_core::Unmet {
            on: name("fetch"),
            condition: "completed_successfully".into(),
            text: "fetch has not ended".into(),
            origin: toka_core::Origin::Default("test".into()),
        };
        let build = AgentStatus { waits: Some(Box::new(waits)), ..agent("build") };
        let fetch = AgentStatus { next_due_ms: Some(7_200_000), ..agent("fetch") };
        let told = clock_of(&build, &[build.clone(), fetch], 0).expect("the clock");
        assert_eq!(told, "; the clock starts fetch in 2h00m, and `toka start fetch` starts it now");
        assert_eq!(clock_of(&build, &[agent("fetch")], 0), None);
    }

    #[test]
    fn what_is_told() {
        let done = |name: &str, decision| Done {
            agent: Name::new(name).expect("a label"),
            decision,
            state: AgentState::Paused { pid: 7, ready: true },
            waits: None,
            next_due_ms: None,
        };
        let outcome = Outcome {
            agents: vec![
                done("api", Decision::Accept),
                done("db", Decision::Ignore),
                done("job", Decision::deny(DenyReason::NotRunning)),
            ],
            finished: true,
        };
        let told = text(&outcome, Words::of(Request::Pause), Palette::PLAIN);
        assert_eq!(told, "api  paused\ndb  is paused already\njob  not paused: the agent is not running\n");
        assert_eq!(code_of(&outcome, Words::of(Request::Pause)), ExitCode::AgentFailed);
    }
}
