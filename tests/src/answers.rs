//! One attempt, what it should meet, and what it met.

use std::collections::VecDeque;

/// Who gets through with an attack when nothing confines it. An attack that nobody can make proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// Any user: tried unconfined first, as the same user.
    Anyone,
    /// Root alone: the proof is made in the test as root.
    Root,
    /// Not tried unconfined, for this reason.
    Never(&'static str),
}

/// An attempt of the attacker, and what it should meet.
#[derive(Debug, Clone)]
pub struct Try {
    pub(crate) words: Vec<String>,
    pub(crate) expected: Expected,
    pub(crate) proof: Proof,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    Allowed,
    Denied,
}

/// An attack that must be refused.
pub fn denied<const N: usize>(words: [&str; N]) -> Try {
    Try { words: words.map(str::to_owned).to_vec(), expected: Expected::Denied, proof: Proof::Anyone }
}

/// A legal neighbour of an attack, which must work.
pub fn allowed<const N: usize>(words: [&str; N]) -> Try {
    Try { words: words.map(str::to_owned).to_vec(), expected: Expected::Allowed, proof: Proof::Anyone }
}

impl Try {
    /// The attack's name.
    pub fn name(&self) -> &str {
        &self.words[0]
    }

    /// Whether it met what it should.
    pub fn is_met_by(&self, answer: &Answer) -> bool {
        match self.expected {
            Expected::Allowed => matches!(answer, Answer::Allowed(_)),
            Expected::Denied => answer.is_denied(),
        }
    }

    /// Only root would get through unconfined.
    #[must_use]
    pub fn as_root(self) -> Self {
        Self { proof: Proof::Root, ..self }
    }

    /// Not to be tried unconfined, because of `reason`.
    #[must_use]
    pub fn unproven(self, reason: &'static str) -> Self {
        Self { proof: Proof::Never(reason), ..self }
    }
}

/// What the attacker reported of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It got through, with a note.
    Allowed(String),
    /// The kernel refused, with this error.
    Denied(String),
    /// The kernel ended the attempt with this signal.
    Killed(String),
    /// Nothing: the attacker itself did not get that far.
    Missing,
}

impl Answer {
    /// Whether the attack was stopped.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Denied(_) | Self::Killed(_))
    }
}

/// Words of several attempts as one command line.
pub fn words_of(tries: &[Try]) -> Vec<String> {
    let groups: Vec<&[String]> = tries.iter().map(|attempt| attempt.words.as_slice()).collect();
    groups.join(&"+".to_owned())
}

/// One answer per attempt, in their order; lines that begin with `#` are remarks.
pub fn answers_in(output: &str, tries: &[Try]) -> Vec<Answer> {
    let mut lines: VecDeque<&str> = output.lines().filter(|line| !line.starts_with('#')).collect();
    tries
        .iter()
        .map(|attempt| {
            let line = lines.pop_front().unwrap_or_default();
            let mut parts = line.splitn(3, ' ');
            let (name, verdict) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            let rest = parts.next().unwrap_or_default().to_owned();
            match verdict {
                "allowed" if name == attempt.words[0] => Answer::Allowed(rest),
                "denied" if name == attempt.words[0] => Answer::Denied(rest),
                "killed" if name == attempt.words[0] => Answer::Killed(rest),
                _ => Answer::Missing,
            }
        })
        .collect()
}
