//! Which logs, and which lines of them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::str::FromStr;

use jiff::Timestamp;
use regex::bytes::Regex;
use toka_core::{ExitCode, RunId};
use toka_logs::{Entry, Item, Segment, segments};

use super::find::Source;
use super::unreadable;
use crate::failure::Failure;

/// Most runs in an error.
const MOST_RUNS: usize = 10;

/// Which runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Runs {
    /// The last that any of the agents took part in.
    Last,
    /// Every one.
    All,
    /// The one whose id is this, or begins or ends with it.
    One(String),
}

impl FromStr for Runs {
    type Err = Infallible;
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "last" => Self::Last,
            "all" => Self::All,
            id => Self::One(id.to_ascii_lowercase()),
        })
    }
}

/// Which lines.
#[derive(Debug, Clone, Default)]
pub(super) struct Filter {
    /// From this time on, in milliseconds since the Unix epoch.
    pub(super) since_ms: Option<i64>,
    /// Before this time.
    pub(super) until_ms: Option<i64>,
    /// Those that match.
    pub(super) pattern: Option<Regex>,
    /// Of this run only.
    pub(super) run: Option<RunId>,
}

impl Filter {
    /// Whether the line or gap is wanted. What was written at an unknown time may be what is looked for.
    pub(super) fn wants(&self, item: &Item) -> bool {
        let time_ms = time_of(item);
        let in_time = time_ms.is_none_or(|time| {
            self.since_ms.is_none_or(|since| time >= since) && self.until_ms.is_none_or(|until| time < until)
        });
        let matches = match (&self.pattern, &item.entry) {
            (None, _) => true,
            (Some(pattern), Entry::Line(line)) => pattern.is_match(&line.bytes),
            (Some(_), Entry::Gap(_)) => false,
        };
        in_time && matches && self.run.is_none_or(|run| item.run == Some(run))
    }
}

/// When it was written, if that is known.
pub(super) fn time_of(item: &Item) -> Option<i64> {
    match &item.entry {
        Entry::Line(line) => line.time_ms,
        Entry::Gap(gap) => Some(gap.time_ms),
    }
}

/// An agent, and those of its logs that may hold what is wanted.
pub(super) type Chosen = (Source, Vec<Segment>);

/// The logs of these runs.
pub(super) fn choose(
    sources: Vec<Source>,
    runs: &Runs,
    mut filter: Filter,
) -> Result<(Vec<Chosen>, Filter), Failure> {
    let mut chosen = Vec::new();
    for source in sources {
        let logs = segments(&source.log).map_err(|error| unreadable(&source.agent, &error))?;
        chosen.push((source, logs));
    }
    let all = || chosen.iter().flat_map(|(_, logs)| logs);
    let run = match runs {
        Runs::All => None,
        Runs::Last => Some(all().map(Segment::run).max().flatten()),
        Runs::One(id) => {
            let run = one(id, all())?;
            filter.run = Some(run);
            Some(Some(run))
        }
    };
    for (_, logs) in &mut chosen {
        logs.retain(|log| run.is_none_or(|run| log.run() == run));
        // What was begun before the time is over when the next one was.
        let since = filter.since_ms.unwrap_or(i64::MIN);
        let over = |log: &Segment| log.begun_ms().is_some_and(|begun| begun < since);
        let passed = logs.iter().skip(1).take_while(|next| over(next)).count();
        logs.drain(..passed);
    }
    Ok((chosen, filter))
}

/// The run with this id among the logs.
fn one<'s>(id: &str, logs: impl Iterator<Item = &'s Segment>) -> Result<RunId, Failure> {
    let mut known = BTreeMap::new();
    for log in logs {
        if let Some(run) = log.run() {
            known.entry(run).or_insert(log);
        }
    }
    let is_it = |run: &&RunId| run.to_string().starts_with(id) || run.short().starts_with(id);
    let found: Vec<RunId> = known.keys().filter(is_it).copied().collect();
    match found[..] {
        [run] => return Ok(run),
        [] => {}
        _ => {
            let message = format!("{} runs have an id that begins with `{id}`", found.len());
            return Err(Failure::new(ExitCode::Usage, message).help("write more of it"));
        }
    }
    let newest = known.iter().rev().take(MOST_RUNS).map(|(run, log)| match log.begun_ms() {
        Some(begun) => format!("{} of {}", run.short(), at(begun)),
        None => run.short(),
    });
    let newest: Vec<String> = newest.collect();
    let help = match known.is_empty() {
        true => "there are logs of no run".to_owned(),
        false => format!("the last runs are {}", newest.join(", ")),
    };
    Err(Failure::new(ExitCode::Usage, format!("there are no logs of a run `{id}`")).help(help))
}

/// A time for people, to the second.
fn at(time_ms: i64) -> String {
    let time = Timestamp::from_millisecond(time_ms).unwrap_or(Timestamp::UNIX_EPOCH);
    time.to_zoned(jiff::tz::TimeZone::system()).strftime("%F %T").to_string()
}
