//! Which logs, and which lines of them.

use std::path::Path;

use regex::bytes::Regex;
use toka_core::{ProjectName, RunId};
use toka_logs::{Entry, Item, Segment, segments};
use toka_project::history;

use super::find::Source;
use super::unreadable;
use crate::commands::runs::{Known, Runs};
use toka_terminal::failure::Failure;

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
pub(super) type Chosen = (Source, Vec<Segment>, Begin);

/// Where reading begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begin {
    /// At the first of the logs.
    AtFirst,
    /// At the end of the last: nothing of them is of a run that is wanted, and what is to come may be.
    AtEnd,
}

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
        one => {
            let known = known(all());
            filter.run = one.choose(&known, "logs")?;
            Some(filter.run)
        }
    };
    let begin = |(source, mut logs): (Source, Vec<Segment>)| {
        if !logs.is_empty() && logs.iter().all(|log| run.is_some_and(|run| log.run() != run)) {
            return (source, logs, Begin::AtEnd);
        }
        logs.retain(|log| run.is_none_or(|run| log.run() == run));
        // What was begun before the time is over when the next one was.
        let since = filter.since_ms.unwrap_or(i64::MIN);
        let over = |log: &Segment| log.begun_ms().is_some_and(|begun| begun < since);
        let passed = logs.iter().skip(1).take_while(|next| over(next)).count();
        logs.drain(..passed);
        (source, logs, Begin::AtFirst)
    };
    let chosen = chosen.into_iter().map(begin).collect();
    Ok((chosen, filter))
}

/// The last run of the project and the one that these logs are of, where that is an earlier one.
pub(super) fn earlier(state: &Path, project: &ProjectName, chosen: &[Chosen]) -> Option<(RunId, RunId)> {
    let last = history::runs(state, project).ok()?.first()?.id;
    let shown = chosen.iter().filter(|(_, _, begin)| *begin == Begin::AtFirst);
    let shown = shown.flat_map(|(_, logs, _)| logs).filter_map(Segment::run).max()?;
    (shown != last).then_some((last, shown))
}

/// The runs among logs, and when the first log of each was begun.
fn known<'s>(logs: impl Iterator<Item = &'s Segment>) -> Known {
    let mut known = Known::new();
    for log in logs {
        if let Some(run) = log.run() {
            known.entry(run).or_insert(log.begun_ms());
        }
    }
    known
}
