//! Which of a project's runs is meant: by its id, or by how many runs ago it was.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::str::FromStr;

use toka_core::{ExitCode, RunId};

use toka_terminal::failure::Failure;
use toka_terminal::text::moment;

/// Most runs in an error.
const MOST_RUNS: usize = 10;

/// Which runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Runs {
    /// The last one.
    Last,
    /// Every one.
    All,
    /// The one that was so many runs before the last one.
    Before(usize),
    /// The one whose id is this, or begins or ends with it.
    One(String),
}

impl FromStr for Runs {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match (text, text.strip_prefix('-').and_then(|number| number.parse().ok())) {
            ("last", _) | (_, Some(0)) => Self::Last,
            ("all", _) => Self::All,
            (_, Some(before)) => Self::Before(before),
            (id, None) => Self::One(id.to_ascii_lowercase()),
        })
    }
}

/// Runs, the oldest first (their ids are UUIDs of version 7), and when each began, in milliseconds since the Unix epoch, if that
/// is known.
pub(crate) type Known = BTreeMap<RunId, Option<i64>>;

impl Runs {
    /// The one run that is meant of those that are `known`; none when all are, or there is none. `what` they were asked for, such as
    /// `logs`, is for the error.
    ///
    /// # Errors
    /// When there is no such run, or several have such an id.
    pub(crate) fn choose(&self, known: &Known, what: &str) -> Result<Option<RunId>, Failure> {
        match self {
            Self::All => Ok(None),
            Self::Last => Ok(known.keys().next_back().copied()),
            Self::Before(before) => match known.keys().rev().nth(*before) {
                Some(run) => Ok(Some(*run)),
                None => {
                    let message = format!("there are no {what} of a run {before} before the last");
                    Err(Failure::new(ExitCode::Usage, message).help(newest(known, what)))
                }
            },
            Self::One(id) => one(id, known, what).map(Some),
        }
    }
}

fn one(id: &str, known: &Known, what: &str) -> Result<RunId, Failure> {
    let is_it = |run: &&RunId| run.to_string().starts_with(id) || run.short().starts_with(id);
    let found: Vec<RunId> = known.keys().filter(is_it).copied().collect();
    match found[..] {
        [run] => Ok(run),
        [] => {
            let message = format!("there are no {what} of a run `{id}`");
            Err(Failure::new(ExitCode::Usage, message).help(newest(known, what)))
        }
        _ => {
            let message = format!("{} runs have an id that begins with `{id}`", found.len());
            Err(Failure::new(ExitCode::Usage, message).help("write more of it"))
        }
    }
}

fn newest(known: &Known, what: &str) -> String {
    let newest = known.iter().rev().take(MOST_RUNS).map(|(run, begun)| match begun {
        Some(begun) => format!("{} of {}", run.short(), moment(*begun)),
        None => run.short(),
    });
    let newest: Vec<String> = newest.collect();
    match newest.is_empty() {
        true => format!("there are {what} of no run"),
        false => format!("the last runs are {}", newest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn runs_are_meant_by_their_ids_or_by_how_long_ago_they_were() {
        let run = |number: u128| RunId::from_uuid(Uuid::from_u128(number << 64 | number << 24));
        let known: Known = (1..=3).map(|number| (run(number), Some(0))).collect();
        let chosen = |text: &str| {
            let runs: Runs = text.parse().expect("anything is a choice");
            runs.choose(&known, "events").map_err(|error| error.to_string())
        };
        assert_eq!(chosen("all"), Ok(None));
        for (text, expected) in [("last", run(3)), ("-0", run(3)), ("-1", run(2)), ("-2", run(1))] {
            assert_eq!(chosen(text), Ok(Some(expected)), "{text}");
        }
        assert_eq!(chosen(&run(2).short().to_uppercase()), Ok(Some(run(2))));
        assert_eq!(chosen(&run(1).to_string()), Ok(Some(run(1))));
        assert_eq!(chosen("-3"), Err("there are no events of a run 3 before the last".to_owned()));
        assert_eq!(chosen("zz"), Err("there are no events of a run `zz`".to_owned()));
        assert_eq!(chosen("0"), Err("3 runs have an id that begins with `0`".to_owned()));
        assert_eq!(Runs::Last.choose(&Known::new(), "events").ok(), Some(None));
    }
}
