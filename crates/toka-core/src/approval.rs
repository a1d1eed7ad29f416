//! What waits for a person: something that was asked for, until somebody says yes or no, or its time is over.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::budget::{Measure, Scope};
use crate::opening::Opening;
use crate::{AgentName, Risk, SessionKey};

/// Something that waits for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// Its number, from 1, unique within the run.
    pub id: u64,
    /// What is asked for.
    #[serde(flatten)]
    pub subject: Subject,
    /// When nobody has answered until then, the answer is no. Milliseconds since the Unix epoch.
    pub expires_ms: i64,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Subject {
    /// The next call of a model does not fit into a budget any more.
    Budget {
        /// Whose.
        scope: Scope,
        /// In what.
        measure: Measure,
        /// So much is used, in the unit of the measure.
        used: u64,
        /// So much may be.
        limit: u64,
        /// So much the next call may use at most.
        next: u64,
    },
    /// The agent wants to reach a host that is not on its list.
    Host {
        /// The host, as the agent names it, in small letters.
        host: String,
        /// The port.
        port: u16,
    },
    /// The agent has ended at a wall of its sandbox that its declaration could open.
    Denial {
        /// What would open it.
        opening: Opening,
    },
    /// A model wants to use a tool.
    Tool(ToolRequest),
    /// A model asks a person something; the answer is in words.
    Question(Question),
}

/// A question of a model's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The session.
    pub session: SessionKey,
    /// The call with which it asks, unique in the session.
    pub call: String,
    /// What it asks. Escape it before a terminal.
    pub question: String,
    /// Answers that it offers; the person may give another.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// What somebody answers, with the words that go with it: those of a yes to a question are the answer, those of a no tell the model why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Yes or no.
    pub answer: ApprovalAnswer,
    /// The words of the person.
    pub words: Option<String>,
}

impl From<ApprovalAnswer> for Reply {
    fn from(answer: ApprovalAnswer) -> Self {
        Self { answer, words: None }
    }
}

/// A call of a tool that waits for a person. The answer is good for this call alone, as its arguments are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolRequest {
    /// The session.
    pub session: SessionKey,
    /// The call, unique in the session.
    pub call: String,
    /// The tool.
    pub tool: String,
    /// What it is to be used on, whole as far as a person can read it. Escape it before a terminal.
    pub about: String,
    /// How much can go wrong.
    pub risk: Risk,
    /// SHA-256 of its arguments, in hexadecimal digits.
    pub hash: String,
    /// The calls that are like this one, in words: what a person may allow for a time. Absent where only this call can be allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub like: Option<String>,
}

impl Subject {
    /// The word for its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Budget { .. } => "budget",
            Self::Host { .. } => "host",
            Self::Denial { .. } => "denial",
            Self::Tool(_) => "tool",
            Self::Question(_) => "question",
        }
    }

    /// What a plain yes does; `None` when it has to come with a sum, or with words.
    pub fn yes(&self) -> Option<String> {
        match self {
            Self::Budget { measure, .. } => Some(format!("allow {}", measure.tell_more(self.usual_raise()?))),
            Self::Host { .. } => Some("allow it until the run ends".to_owned()),
            Self::Denial { .. } => Some("open that until the run ends, and begin it anew".to_owned()),
            Self::Tool(_) => Some("allow this call".to_owned()),
            Self::Question(_) => None,
        }
    }

    /// How a person says yes on a command line.
    pub fn how_to_say_yes(&self, id: u64) -> String {
        match (self.yes(), self) {
            (Some(yes), _) => format!("`toka approvals approve {id}` to {yes}"),
            (None, Self::Question(_)) => format!("`toka approvals answer {id} TEXT` to answer"),
            (None, _) => format!("`toka approvals approve {id} --raise AMOUNT` to allow more"),
        }
    }

    /// What would be opened, where that is what is asked for.
    pub fn opening(&self) -> Option<&Opening> {
        match self {
            Self::Denial { opening } => Some(opening),
            Self::Budget { .. } | Self::Host { .. } | Self::Tool(_) | Self::Question(_) => None,
        }
    }

    /// Whether the agent is frozen while it waits, and ends after a no.
    pub fn is_budget(&self) -> bool {
        matches!(self, Self::Budget { .. })
    }

    /// What no does.
    pub fn no(&self) -> &'static str {
        match self {
            Self::Budget { scope: Scope::Agent, .. } => "stop it",
            Self::Budget { scope: Scope::Run, .. } => "stop the agents that wait",
            Self::Host { .. } => "refuse it",
            Self::Denial { .. } => "leave it as it has ended",
            Self::Tool(_) => "refuse this call",
            Self::Question(_) => "give no answer",
        }
    }

    /// By how much a budget grows when nobody says how much: by as much as there was, beyond what is used. `None` when the next call would not
    /// fit then either: what that needs is the agent's word, and no measure.
    pub fn usual_raise(&self) -> Option<u64> {
        match self {
            Self::Budget { used, limit, next, .. } => {
                let raise = limit.saturating_add(used.saturating_sub(*limit));
                let fits = used.saturating_add(*next) <= limit.saturating_add(raise);
                Some(raise).filter(|raise| fits && *raise > 0)
            }
            Self::Host { .. } | Self::Denial { .. } | Self::Tool(_) | Self::Question(_) => None,
        }
    }

    /// The largest sum that a person can add, in the unit of the measure.
    pub fn largest_raise(&self) -> u64 {
        match self {
            Self::Budget { measure: Measure::Money, .. } => 1_000_000_000_000_000,
            Self::Budget { .. } => 1_000_000_000_000,
            Self::Host { .. } | Self::Denial { .. } | Self::Tool(_) | Self::Question(_) => 0,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host { host, port } => {
                write!(f, "it wants to reach {host}:{port}, where it could send whatever it can read")
            }
            Self::Denial { opening } => write!(
                f,
                "it ended at a wall of its sandbox, and asks for `{}`: then it {opening}",
                opening.patch()
            ),
            Self::Tool(ToolRequest { tool, about, risk, .. }) => {
                write!(f, "it wants to use {tool}: {about} (risk: {risk})")
            }
            Self::Question(Question { question, options, .. }) => {
                write!(f, "it asks: {question}")?;
                let numbered = options.iter().zip(1..).map(|(option, number)| format!("{number}) {option}"));
                let numbered: Vec<String> = numbered.collect();
                if numbered.is_empty() { Ok(()) } else { write!(f, " [{}]", numbered.join("  ")) }
            }
            Self::Budget { scope, measure, used, limit, next } => {
                let part = measure.tell_part(*used, *limit);
                let of = match scope {
                    Scope::Agent => "its budget",
                    Scope::Run => "the budget of the run",
                };
                write!(f, "{part} of {of} are used")?;
                match measure {
                    Measure::Money | Measure::Tokens => {
                        write!(f, ", and the next call may use up to {}", measure.tell(*next))
                    }
                    Measure::Calls | Measure::Wall => Ok(()),
                }
            }
        }
    }
}

/// What became of an approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum ApprovalAnswer {
    /// Yes.
    Approved {
        /// For a budget: so much more, in the unit of its measure.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        raise: Option<u64>,
        /// For a host: how long it holds; absent for as long as the run. For a tool: until when calls like this one are allowed, at most
        /// until the run ends; absent for this call alone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lasting: Option<Lasting>,
    },
    /// No.
    Denied,
    /// Nobody has answered in time, which counts as no.
    Expired,
    /// Whoever waited for it is gone.
    Withdrawn,
}

/// How long a yes holds beyond the run in which it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lasting {
    /// Until the person takes it back.
    Always,
    /// Until this time, in milliseconds since the Unix epoch; in the run as well.
    Until(i64),
}

impl Lasting {
    /// The time at which it ends; `None` for never.
    pub fn until_ms(self) -> Option<i64> {
        match self {
            Self::Always => None,
            Self::Until(ms) => Some(ms),
        }
    }
}

/// A host that a person has allowed an agent beyond a run, when they were asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustedHost {
    /// The agent, by the name in its file: all replicas have one.
    pub agent: AgentName,
    /// The host, in small letters.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Until when, in milliseconds since the Unix epoch; `None` for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<i64>,
}

impl ApprovalAnswer {
    /// A plain yes.
    pub const YES: Self = Self::Approved { raise: None, lasting: None };

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Approved { .. } => "approved",
            Self::Denied => "denied",
            Self::Expired => "expired",
            Self::Withdrawn => "withdrawn",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let subject = Subject::Budget {
            scope: Scope::Agent,
            measure: Measure::Money,
            used: 1_900_000_000,
            limit: 2_000_000_000,
            next: 310_000_000,
        };
        assert_eq!(
            subject.to_string(),
            "$1.90 of $2.00 of its budget are used, and the next call may use up to $0.31"
        );
        assert_eq!((subject.yes().as_deref(), subject.no()), (Some("allow $2.00 more"), "stop it"));
        let of = |used, limit, next| Subject::Budget {
            scope: Scope::Agent,
            measure: Measure::Tokens,
            used,
            limit,
            next,
        };
        assert_eq!(of(900, 1000, 1100).usual_raise(), Some(1000));
        assert_eq!(of(900, 1000, 1101).usual_raise(), None, "a person says how much");
        assert_eq!(of(0, 0, 0).usual_raise(), None);
        assert_eq!(of(5000, 1000, 0).usual_raise(), Some(5000), "a lower limit than what is used already");
        let subject =
            Subject::Budget { scope: Scope::Run, measure: Measure::Calls, used: 3, limit: 3, next: 1 };
        assert_eq!(subject.to_string(), "3 of 3 calls of the budget of the run are used");
    }
}
