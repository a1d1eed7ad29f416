//! How people name agents: by a name, by the common name of replicas (`worker` for `worker-1`, `worker-2`, …), or by a
//! pattern (`web-*`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{AgentName, Name};

/// Longest pattern in bytes: a name has at most 63, and nobody writes many more stars.
const LONGEST: usize = 128;

/// What somebody typed to name agents.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum AgentPattern {
    /// A name.
    Name(AgentName),
    /// A pattern, in which `*` stands for any characters and `?` for one.
    Glob(String),
}

/// Why a text names no agents.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct BadPattern(String);

/// None of the agents is meant by a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("no agent is called {pattern}")]
pub struct Unmatched {
    /// The pattern.
    pub pattern: AgentPattern,
}

impl AgentPattern {
    /// Those of `names` that are meant: the one of that name; else the replicas of that name, by their numbers; or all that
    /// fit the pattern.
    pub fn select<'a>(&self, names: impl Iterator<Item = &'a AgentName> + Clone) -> Vec<&'a AgentName> {
        let all = |wanted: &dyn Fn(&AgentName) -> bool| names.clone().filter(|name| wanted(name)).collect();
        match self {
            Self::Name(name) => {
                let exact: Vec<&AgentName> = all(&|other| other == name);
                if exact.is_empty() { all(&|other| is_replica(other, name)) } else { exact }
            }
            Self::Glob(pattern) => all(&|name| fits(pattern.as_bytes(), name.as_str().as_bytes())),
        }
    }
}

/// Those of `names` that any of the patterns means, in the order of `names`; all of them when there is no pattern.
///
/// # Errors
/// With the first pattern that means none.
pub fn select<'a>(
    patterns: &[AgentPattern],
    names: impl Iterator<Item = &'a AgentName> + Clone,
) -> Result<Vec<AgentName>, Unmatched> {
    let mut meant = std::collections::BTreeSet::new();
    for pattern in patterns {
        let found = pattern.select(names.clone());
        if found.is_empty() {
            return Err(Unmatched { pattern: pattern.clone() });
        }
        meant.extend(found);
    }
    Ok(names.filter(|name| patterns.is_empty() || meant.contains(name)).cloned().collect())
}

/// Whether `name` is `of` with a number behind it.
fn is_replica(name: &AgentName, of: &AgentName) -> bool {
    let number = name.as_str().strip_prefix(of.as_str()).and_then(|rest| rest.strip_prefix('-'));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Whether a text fits a pattern: the last star that was passed takes one more character whenever the rest does not fit.
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut read) = (0, 0);
    let mut star = None;
    while read < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, read));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == text[read] => (at, read) = (at + 1, read + 1),
            _ => match star {
                Some((stars, from)) => {
                    star = Some((stars, from + 1));
                    (at, read) = (stars + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

impl FromStr for AgentPattern {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<Self, BadPattern> {
        if !text.contains(['*', '?']) {
            return Name::new(text).map(Self::Name).map_err(|error| BadPattern(error.to_string()));
        }
        let is_known =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-*?".contains(&byte);
        match text.bytes().all(is_known) && text.len() <= LONGEST {
            true => Ok(Self::Glob(text.to_owned())),
            false => Err(BadPattern(format!(
                "a pattern of names has lower-case letters, digits, `-`, `*` and `?`, and at most {LONGEST} characters"
            ))),
        }
    }
}

impl TryFrom<String> for AgentPattern {
    type Error = BadPattern;

    fn try_from(text: String) -> Result<Self, BadPattern> {
        text.parse()
    }
}

impl From<AgentPattern> for String {
    fn from(pattern: AgentPattern) -> Self {
        pattern.to_string()
    }
}

impl From<AgentName> for AgentPattern {
    fn from(name: AgentName) -> Self {
        Self::Name(name)
    }
}

impl fmt::Display for AgentPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Glob(pattern) => f.write_str(pattern),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn selected(patterns: &[&str], names: &[&str]) -> Result<Vec<String>, String> {
        let names: Vec<AgentName> = names.iter().map(|name| Name::new(name).expect("a label")).collect();
        let patterns: Vec<AgentPattern> =
            patterns.iter().map(|text| text.parse().expect("a pattern")).collect();
        let found = select(&patterns, names.iter()).map_err(|error| error.to_string())?;
        Ok(found.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_name_means_its_agent_or_its_replicas() {
        let names = ["web", "worker-1", "worker-2", "worker-x", "web-1"];
        let check = |patterns: &[&str], expected: &[&str]| {
            assert_eq!(selected(patterns, &names), Ok(expected.iter().map(ToString::to_string).collect()));
        };
        check(&["worker"], &["worker-1", "worker-2"]);
        check(&["web"], &["web"]);
        check(&["web*"], &["web", "web-1"]);
        check(&["worker-?", "web"], &["web", "worker-1", "worker-2", "worker-x"]);
        check(&[], &names);
        assert_eq!(selected(&["web", "db*"], &names), Err("no agent is called db*".into()));
        assert_eq!(selected(&["worke"], &names), Err("no agent is called worke".into()));
    }

    #[test]
    fn what_cannot_be_a_name_is_told() {
        for text in ["", "Web", "we b*", "*/x", "a[bc]*"] {
            assert!(text.parse::<AgentPattern>().is_err(), "{text:?}");
        }
    }

    /// Slow and obvious.
    fn fits_slowly(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => (0..=text.len()).any(|from| fits_slowly(rest, &text[from..])),
            (Some((one, rest)), Some((byte, text))) => {
                (*one == b'?' || one == byte) && fits_slowly(rest, text)
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn patterns_fit_what_a_slow_reading_says(pattern in "[ab?*]{0,8}", text in "[ab]{0,8}") {
            prop_assert_eq!(
                fits(pattern.as_bytes(), text.as_bytes()),
                fits_slowly(pattern.as_bytes(), text.as_bytes())
            );
        }
    }
}
