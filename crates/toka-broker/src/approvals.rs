//! What waits for a person: asked once, joined by whoever needs the same, answered once. Pure.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;
use toka_core::approval::{Reply, Subject};
use toka_core::budget::Scope;
use toka_core::{AgentName, Approval, ApprovalAnswer};

/// Answers that are remembered, for those who answer again.
const MOST_ANSWERED: usize = 1000;

/// Why an answer does not count.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotAnswered {
    /// Nobody has asked for that.
    #[error("there is no approval {id}; {}", open_in_words(open))]
    Unknown {
        /// The number.
        id: u64,
        /// Those that are open.
        open: Vec<u64>,
    },
    /// As much again as there was is not enough for the next call.
    #[error("approval {id}: {why}; say how much is to be added")]
    NeedsSum {
        /// The number.
        id: u64,
        /// What it is about.
        why: String,
    },
    /// A sum, for what is no budget.
    #[error("approval {id} is about no budget, and takes no sum")]
    NoBudget {
        /// The number.
        id: u64,
    },
    /// A yes beyond the run, for something that ends with it.
    #[error("approval {id} is about a {kind}: only what is said of a host or a tool can last")]
    OnlyHostsLast {
        /// The number.
        id: u64,
        /// What it is about.
        kind: &'static str,
    },
    /// A yes that lasts, for a call that no other is like.
    #[error("approval {id}: no other call is like this one, so that it can only be allowed once")]
    LikeNoOther {
        /// The number.
        id: u64,
    },
    /// A yes for ever, for a tool.
    #[error("approval {id} is about a tool: say for how long calls like it are allowed")]
    NeedsTime {
        /// The number.
        id: u64,
    },
    /// A question needs an answer in words.
    #[error("approval {id} is a question: say what the answer is (`toka approvals answer {id} TEXT`)")]
    NeedsWords {
        /// The number.
        id: u64,
    },
    /// Words, for what no model reads.
    #[error("approval {id} is about a {kind}: nobody reads words there")]
    NoWords {
        /// The number.
        id: u64,
        /// What it is about.
        kind: &'static str,
    },
    /// It was answered, for this run alone.
    #[error(
        "approval {id} is approved until the run ends; that it lasts longer could not be recorded: {why}"
    )]
    NotRecorded {
        /// The number.
        id: u64,
        /// Why not.
        why: String,
    },
    /// No sum that could be added.
    #[error("approval {id}: a budget grows by more than nothing, and by no more than {most}")]
    BadSum {
        /// The number.
        id: u64,
        /// The most.
        most: String,
    },
    /// It was answered before.
    #[error("approval {id} was {} by {by} already", answer.as_str())]
    Before {
        /// The number.
        id: u64,
        /// What was answered.
        answer: ApprovalAnswer,
        /// By whom.
        by: String,
    },
}

fn open_in_words(open: &[u64]) -> String {
    let numbers: Vec<String> = open.iter().map(u64::to_string).collect();
    match numbers.as_slice() {
        [] => "none is open".to_owned(),
        [one] => format!("{one} is open"),
        several => format!("{} are open", several.join(", ")),
    }
}

/// One that waits.
#[derive(Debug, Clone)]
struct Open {
    approval: Approval,
    waiters: BTreeSet<AgentName>,
}

/// One that was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// What it was about.
    pub subject: Subject,
    /// What was answered.
    pub answer: ApprovalAnswer,
    /// The words that came with it.
    pub words: Option<String>,
    /// By whom.
    pub by: String,
    /// Who has waited for it.
    pub waiters: BTreeSet<AgentName>,
}

/// The approvals of a run.
#[derive(Debug, Default)]
pub struct Approvals {
    last: u64,
    open: BTreeMap<u64, Open>,
    answered: BTreeMap<u64, Answered>,
    /// Which no an agent has got in this life: it does not ask again.
    refused: BTreeMap<AgentName, u64>,
}

impl Approvals {
    /// Asks on behalf of an agent, or joins what was asked already; with whether the agent did not wait for it before.
    pub fn ask(&mut self, agent: &AgentName, subject: Subject, expires_ms: i64) -> (Approval, bool) {
        let same = |open: &&mut Open| is_same(&open.approval.subject, &open.waiters, &subject, agent);
        if let Some(open) = self.open.values_mut().find(same) {
            return (open.approval.clone(), open.waiters.insert(agent.clone()));
        }
        let approval = Approval { id: self.last + 1, subject, expires_ms };
        self.hear_asked(agent, &approval);
        (approval, true)
    }

    /// Takes note of what was asked.
    pub fn hear_asked(&mut self, agent: &AgentName, approval: &Approval) {
        self.last = self.last.max(approval.id);
        if self.answered.contains_key(&approval.id) {
            return;
        }
        let new = || Open { approval: approval.clone(), waiters: BTreeSet::new() };
        self.open.entry(approval.id).or_insert_with(new).waiters.insert(agent.clone());
    }

    /// Answers one.
    ///
    /// # Errors
    /// When there is none of this number, or it was answered before.
    pub fn answer(&mut self, id: u64, reply: impl Into<Reply>, by: &str) -> Result<&Answered, NotAnswered> {
        let Reply { answer, words } = reply.into();
        let Some(Open { approval, waiters }) = self.open.remove(&id) else {
            return Err(match self.answered.get(&id) {
                Some(before) => NotAnswered::Before { id, answer: before.answer, by: before.by.clone() },
                None => NotAnswered::Unknown { id, open: self.open.keys().copied().collect() },
            });
        };
        if self.answered.len() == MOST_ANSWERED {
            self.answered.pop_first();
        }
        let is_no = matches!(answer, ApprovalAnswer::Denied | ApprovalAnswer::Expired);
        if is_no && approval.subject.is_budget() {
            self.refused.extend(waiters.iter().map(|agent| (agent.clone(), id)));
        }
        let answered = Answered { subject: approval.subject, answer, words, by: by.to_owned(), waiters };
        Ok(self.answered.entry(id).or_insert(answered))
    }

    /// The no that an agent has got in this life.
    pub fn refusal(&self, agent: &AgentName) -> Option<&Answered> {
        self.answered.get(self.refused.get(agent)?)
    }

    /// An agent begins another life, in which it may ask again.
    pub fn begin_life(&mut self, agent: &AgentName) {
        self.refused.remove(agent);
    }

    /// One that was answered.
    pub fn answered(&self, id: u64) -> Option<&Answered> {
        self.answered.get(&id)
    }

    /// One that is open.
    pub fn open(&self, id: u64) -> Option<&Approval> {
        self.open.get(&id).map(|open| &open.approval)
    }

    /// How many an agent waits for.
    pub fn count(&self, agent: &AgentName) -> usize {
        self.open.values().filter(|open| open.waiters.contains(agent)).count()
    }

    /// Those that are open, by their numbers.
    pub fn all_open(&self) -> impl Iterator<Item = &Approval> {
        self.open.values().map(|open| &open.approval)
    }

    /// When the first of them is over that nobody has answered.
    pub fn next_expiry(&self) -> Option<i64> {
        self.open.values().map(|open| open.approval.expires_ms).min()
    }

    /// Those that are over at this time.
    pub fn expired(&self, now_ms: i64) -> Vec<u64> {
        let is_over = |(_, open): &(&u64, &Open)| open.approval.expires_ms <= now_ms;
        self.open.iter().filter(is_over).map(|(id, _)| *id).collect()
    }

    /// An agent does not wait for this one any more; whether nobody does now.
    pub fn leave_one(&mut self, agent: &AgentName, id: u64) -> bool {
        let Some(open) = self.open.get_mut(&id) else { return false };
        open.waiters.remove(agent) && open.waiters.is_empty()
    }

    /// The open approval of a wall at which this agent has ended.
    pub fn opening_of(&self, agent: &AgentName) -> Option<u64> {
        let is_it = |open: &Open| open.approval.subject.opening().is_some() && open.waiters.contains(agent);
        self.open.iter().find_map(|(id, open)| is_it(open).then_some(*id))
    }

    /// An agent waits for nothing any more. Those for which nobody waits now are returned.
    pub fn leave(&mut self, agent: &AgentName) -> Vec<u64> {
        let left = self
            .open
            .iter_mut()
            .filter_map(|(id, open)| (open.waiters.remove(agent) && open.waiters.is_empty()).then_some(*id));
        left.collect()
    }
}

/// Whether one answer is good for both.
fn is_same(open: &Subject, waiters: &BTreeSet<AgentName>, new: &Subject, agent: &AgentName) -> bool {
    match (open, new) {
        (Subject::Budget { scope, measure, .. }, Subject::Budget { scope: of_new, measure: in_new, .. }) => {
            (scope, measure) == (of_new, in_new) && (*scope == Scope::Run || waiters.contains(agent))
        }
        (Subject::Host { .. }, Subject::Host { .. })
        | (Subject::Denial { .. }, Subject::Denial { .. })
        | (Subject::Tool(_), Subject::Tool(_))
        | (Subject::Question(_), Subject::Question(_)) => open == new && waiters.contains(agent),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use toka_core::Name;

    use toka_core::budget::Measure;

    use super::*;

    fn name(text: &str) -> AgentName {
        Name::new(text).expect("a label")
    }

    fn subject(scope: Scope) -> Subject {
        Subject::Budget { scope, measure: Measure::Money, used: 1, limit: 2, next: 3 }
    }

    const YES: ApprovalAnswer = ApprovalAnswer::YES;

    #[test]
    fn the_same_is_asked_once() {
        let mut approvals = Approvals::default();
        let (first, is_new) = approvals.ask(&name("a"), subject(Scope::Run), 10);
        assert!(is_new && first.id == 1);
        assert_eq!(approvals.ask(&name("a"), subject(Scope::Run), 20), (first.clone(), false));
        assert_eq!(approvals.ask(&name("b"), subject(Scope::Run), 20), (first, true));
        assert_eq!(approvals.ask(&name("a"), subject(Scope::Agent), 20).0.id, 2);
        assert_eq!(approvals.ask(&name("b"), subject(Scope::Agent), 20).0.id, 3, "each agent has its own");
        assert_eq!(approvals.next_expiry(), Some(10));
        assert_eq!(approvals.expired(20), [1, 2, 3]);
        assert_eq!(approvals.expired(10), [1]);
    }

    #[test]
    fn an_answer_counts_once() {
        let mut approvals = Approvals::default();
        approvals.ask(&name("a"), subject(Scope::Run), 10);
        approvals.ask(&name("b"), subject(Scope::Run), 10);
        let waiters = &approvals.answer(1, YES, "operator").expect("open").waiters;
        assert_eq!(waiters.len(), 2);
        let again = approvals.answer(1, ApprovalAnswer::Denied, "another").expect_err("answered");
        assert_eq!(again.to_string(), "approval 1 was approved by operator already");
        let unknown = approvals.answer(7, YES, "operator").expect_err("unknown");
        assert_eq!(unknown.to_string(), "there is no approval 7; none is open");
        let (second, _) = approvals.ask(&name("a"), subject(Scope::Run), 10);
        assert_eq!(second.id, 2, "no number is used twice");
        approvals.hear_asked(&name("a"), &Approval { id: 1, ..second });
        assert_eq!(approvals.all_open().count(), 1, "what was answered is not asked again");
    }

    #[test]
    fn who_is_gone_waits_for_nothing() {
        let mut approvals = Approvals::default();
        approvals.ask(&name("a"), subject(Scope::Run), 10);
        approvals.ask(&name("b"), subject(Scope::Run), 10);
        assert_eq!(approvals.leave(&name("a")), Vec::<u64>::new());
        assert_eq!(approvals.leave(&name("b")), [1]);
    }
}
