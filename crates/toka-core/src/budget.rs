//! What an agent and a run may use of models: amounts, limits, and the words for them. Who decides by them is the broker.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units::format_duration;
use crate::{Money, Tokens};

/// The most that may be used. An absent amount has no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// US dollars.
    #[serde(default, rename = "nano_usd", skip_serializing_if = "Option::is_none")]
    pub money: Option<Money>,
    /// Tokens of every class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Calls of models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<u64>,
    /// Time since the first call, by the wall clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall: Option<Duration>,
}

/// Tokens beyond which a sum is not counted on: 2⁵³, which every reader of JSON takes for what it is.
const MOST_TOKENS: u64 = 1 << 53;

impl Budget {
    /// What an agent may use when nobody says otherwise.
    pub const OF_AGENT: Self =
        Self { money: Some(Money(5_000_000_000)), tokens: Some(20_000_000), calls: Some(2_000), wall: None };

    /// What all agents of a run may use together when nobody says otherwise.
    pub const OF_RUN: Self = Self {
        money: Some(Money(20_000_000_000)),
        tokens: Some(80_000_000),
        calls: Some(20_000),
        wall: None,
    };

    /// Whether it limits nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The same where `nearer` says nothing, and what it says where it does.
    #[must_use]
    pub fn with(self, nearer: Self) -> Self {
        Self {
            money: nearer.money.or(self.money),
            tokens: nearer.tokens.or(self.tokens),
            calls: nearer.calls.or(self.calls),
            wall: nearer.wall.or(self.wall),
        }
    }

    /// The same, with nothing above what `ceiling` says.
    #[must_use]
    pub fn at_most(self, ceiling: Self) -> Self {
        fn lesser<T: Ord>(own: Option<T>, ceiling: Option<T>) -> Option<T> {
            match (own, ceiling) {
                (Some(own), Some(ceiling)) => Some(own.min(ceiling)),
                (own, ceiling) => own.or(ceiling),
            }
        }
        Self {
            money: lesser(self.money, ceiling.money),
            tokens: lesser(self.tokens, ceiling.tokens),
            calls: lesser(self.calls, ceiling.calls),
            wall: lesser(self.wall, ceiling.wall),
        }
    }

    /// The limit of one measure, in its unit ([`Measure`]).
    pub fn limit(&self, measure: Measure) -> Option<u64> {
        match measure {
            Measure::Money => self.money.map(|money| money.0),
            Measure::Tokens => self.tokens,
            Measure::Calls => self.calls,
            Measure::Wall => self.wall.map(|wall| u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    /// The same with so much more of one measure, where it has a limit.
    #[must_use]
    pub fn raised(mut self, measure: Measure, by: u64) -> Self {
        match measure {
            Measure::Money => self.money = self.money.map(|money| Money(money.0.saturating_add(by))),
            Measure::Tokens => self.tokens = self.tokens.map(|tokens| tokens.saturating_add(by)),
            Measure::Calls => self.calls = self.calls.map(|calls| calls.saturating_add(by)),
            Measure::Wall => {
                self.wall = self.wall.map(|wall| wall.saturating_add(Duration::from_millis(by)));
            }
        }
        self
    }
}

/// In words: `$5.00, 20M tokens, 2k calls`.
impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = Measure::ALL.into_iter().filter_map(|measure| Some(measure.tell(self.limit(measure)?)));
        let said: Vec<String> = said.collect();
        if said.is_empty() { f.write_str("no limit") } else { f.write_str(&said.join(", ")) }
    }
}

/// What a budget is measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Billionths of a US dollar.
    Money,
    /// Tokens of every class.
    Tokens,
    /// Calls of models.
    Calls,
    /// Milliseconds since the first call.
    Wall,
}

impl Measure {
    /// All of them, in the order in which they are told.
    pub const ALL: [Self; 4] = [Self::Money, Self::Tokens, Self::Calls, Self::Wall];

    /// The key of the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Money => "money",
            Self::Tokens => "tokens",
            Self::Calls => "calls",
            Self::Wall => "wall",
        }
    }

    /// An amount in words, with its unit.
    pub fn tell(self, amount: u64) -> String {
        match self {
            Self::Money => Money(amount).to_string(),
            Self::Wall => format_duration(Duration::from_millis(amount)),
            Self::Tokens | Self::Calls => format!("{} {}", count(amount), self.unit(amount)),
        }
    }

    /// A part of an amount in words: `3 of 5 calls`.
    pub fn tell_part(self, part: u64, whole: u64) -> String {
        match self {
            Self::Money | Self::Wall => format!("{} of {}", self.tell(part), self.tell(whole)),
            Self::Tokens | Self::Calls => format!("{} of {} {}", count(part), count(whole), self.unit(whole)),
        }
    }

    /// So much more, in words: `3 more calls`.
    pub fn tell_more(self, amount: u64) -> String {
        match self {
            Self::Money | Self::Wall => format!("{} more", self.tell(amount)),
            Self::Tokens | Self::Calls => format!("{} more {}", count(amount), self.unit(amount)),
        }
    }

    fn unit(self, amount: u64) -> &'static str {
        match (self, amount) {
            (Self::Tokens, 1) => "token",
            (Self::Tokens, _) => "tokens",
            (_, 1) => "call",
            _ => "calls",
        }
    }
}

/// A number as `5M` and `1.5k`, where that loses nothing.
fn count(number: u64) -> String {
    for (unit, name) in [(1_000_000, "M"), (1_000, "k")] {
        if number >= unit && number.is_multiple_of(unit / 10) {
            let (whole, tenth) = (number / unit, number % unit / (unit / 10));
            return if tenth == 0 { format!("{whole}{name}") } else { format!("{whole}.{tenth}{name}") };
        }
    }
    number.to_string()
}

/// What a call may use at most, or has used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amounts {
    /// US dollars.
    #[serde(rename = "nano_usd")]
    pub money: Money,
    /// Tokens of every class.
    pub tokens: u64,
    /// Calls.
    pub calls: u64,
}

impl Amounts {
    /// One call that uses so much.
    pub fn of_call(money: Money, tokens: u64) -> Self {
        Self { money, tokens: tokens.min(MOST_TOKENS), calls: 1 }
    }

    /// Of these, without what is only counted as time.
    pub fn get(&self, measure: Measure) -> u64 {
        match measure {
            Measure::Money => self.money.0,
            Measure::Tokens => self.tokens,
            Measure::Calls => self.calls,
            Measure::Wall => 0,
        }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            money: Money(self.money.0.saturating_add(other.money.0)),
            tokens: self.tokens.saturating_add(other.tokens),
            calls: self.calls.saturating_add(other.calls),
        }
    }

    /// These without those.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self {
            money: Money(self.money.0.saturating_sub(other.money.0)),
            tokens: self.tokens.saturating_sub(other.tokens),
            calls: self.calls.saturating_sub(other.calls),
        }
    }
}

impl Tokens {
    /// All that was read and written.
    pub fn all(&self) -> u64 {
        self.read().saturating_add(self.output.unwrap_or(0))
    }
}

/// Whose budget it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// One agent's.
    Agent,
    /// All agents' of the run together.
    Run,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agent => "the agent",
            Self::Run => "the run",
        })
    }
}

/// How much of one measure of a budget is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetUse {
    /// Whose budget it is.
    pub scope: Scope,
    /// The measure, which has the unit of the amounts.
    pub measure: Measure,
    /// Used by calls that have ended; of time, that since the first call.
    pub used: u64,
    /// Kept for calls that go on: the most that they may use.
    pub reserved: u64,
    /// The most that may be used, with what a person has added; absent when there is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

/// In words: `3 of 5 calls`.
impl fmt::Display for BudgetUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.limit {
            Some(limit) => f.write_str(&self.measure.tell_part(self.used, limit)),
            None => f.write_str(&self.measure.tell(self.used)),
        }
    }
}

/// What a person says about budgets (`budgets` of `toka.yaml`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BudgetConfig {
    /// Of the whole run, instead of [`Budget::OF_RUN`].
    #[serde(skip_serializing_if = "Budget::is_empty")]
    pub run: Budget,
    /// The most for any agent: what a workstream declares can only be less. Instead of [`Budget::OF_AGENT`] where it declares nothing.
    #[serde(skip_serializing_if = "Budget::is_empty")]
    pub agent: Budget,
}

impl BudgetConfig {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The same with what `nearer` says on top.
    #[must_use]
    pub fn with(self, nearer: Self) -> Self {
        Self { run: self.run.with(nearer.run), agent: self.agent.with(nearer.agent) }
    }

    /// The same, with nothing above what `ceiling` says.
    #[must_use]
    pub fn at_most(self, ceiling: Self) -> Self {
        let of = |own: Budget, usual: Budget, ceiling: Budget| {
            // What nobody has said is the default, which a higher ceiling does not raise.
            let lowered = usual.with(own).at_most(ceiling);
            let is_lower = |measure: Measure| {
                ceiling.limit(measure).is_some_and(|limit| lowered.limit(measure) == Some(limit))
            };
            Budget {
                money: ceiling.money.filter(|_| is_lower(Measure::Money)).or(own.money),
                tokens: ceiling.tokens.filter(|_| is_lower(Measure::Tokens)).or(own.tokens),
                calls: ceiling.calls.filter(|_| is_lower(Measure::Calls)).or(own.calls),
                wall: ceiling.wall.filter(|_| is_lower(Measure::Wall)).or(own.wall),
            }
        };
        Self {
            run: of(self.run, Budget::OF_RUN, ceiling.run),
            agent: of(self.agent, Budget::OF_AGENT, ceiling.agent),
        }
    }

    /// What the run may use.
    pub fn of_run(&self) -> Budget {
        Budget::OF_RUN.with(self.run)
    }

    /// What an agent may use that declares `declared`.
    pub fn of_agent(&self, declared: Budget) -> Budget {
        Budget::OF_AGENT.with(self.agent).with(declared).at_most(self.agent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_told_as_they_are_written() {
        assert_eq!(Budget::OF_AGENT.to_string(), "$5.00, 20M tokens, 2k calls");
        assert_eq!(Budget::default().to_string(), "no limit");
        assert_eq!(Measure::Tokens.tell(1_500), "1.5k tokens");
        assert_eq!(Measure::Tokens.tell(1_501), "1501 tokens");
        assert_eq!(Measure::Wall.tell(90_000), "1m30s");
        assert_eq!(Measure::Calls.tell(1), "1 call");
        assert_eq!(Measure::Calls.tell_part(1, 3), "1 of 3 calls");
        assert_eq!(Measure::Tokens.tell_more(500_000), "500k more tokens");
        assert_eq!(Measure::Money.tell_more(2_500_000_000), "$2.50 more");
    }

    #[test]
    fn a_workstream_cannot_raise_what_a_person_says() {
        let money =
            |dollars: u64| Budget { money: Some(Money(dollars * 1_000_000_000)), ..Budget::default() };
        let nothing = BudgetConfig::default();
        assert_eq!(nothing.of_agent(Budget::default()), Budget::OF_AGENT);
        assert_eq!(nothing.of_agent(money(9)).money, money(9).money, "the default is no word of a person's");
        let said = BudgetConfig { agent: money(2), ..nothing };
        assert_eq!(said.of_agent(money(9)).money, money(2).money);
        assert_eq!(said.of_agent(money(1)).money, money(1).money);
        assert_eq!(said.of_agent(Budget::default()).tokens, Budget::OF_AGENT.tokens);
        let low = said.at_most(BudgetConfig { agent: money(1), run: money(1000) });
        assert_eq!((low.agent, low.run), (money(1), Budget::default()), "a higher one changes nothing");
    }
}
