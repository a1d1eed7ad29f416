//! What a call of a model is called, used and cost: the words in which the gateway, the journal and the command line speak of it.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use crate::{AgentName, ProjectName};

/// A sum of money: billionths of a US dollar.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Money(pub u64);

impl Money {
    /// From dollars, rounded to the next billionth; `None` when they are negative, endless, or too many.
    pub fn from_dollars(dollars: f64) -> Option<Self> {
        let billionths = (dollars * 1e9).round();
        (0.0..u64::MAX as f64).contains(&billionths).then_some(Self(billionths as u64))
    }

    /// The dollars of it, as numbers are shown and written to JSON.
    pub fn dollars(self) -> f64 {
        self.0 as f64 / 1e9
    }
}

impl AddAssign for Money {
    fn add_assign(&mut self, other: Self) {
        self.0 = self.0.saturating_add(other.0);
    }
}

/// Two digits of a dollar's fraction, more where the sum is small: what is not nothing is not shown as nothing.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dollars = self.dollars();
        match self.0 {
            0 => f.write_str("$0.00"),
            1..10_000_000 => {
                let digits = format!("{dollars:.6}");
                let digits = digits.trim_end_matches('0');
                if digits == "0." { f.write_str("<$0.000001") } else { write!(f, "${digits}") }
            }
            _ => write!(f, "${dollars:.2}"),
        }
    }
}

/// Tokens of one call, by what providers bill apart. A class of which the provider says nothing is absent, which is not 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    /// Read by the model, and in no cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<u64>,
    /// Read from a cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_read: Option<u64>,
    /// Written to a cache for some minutes, which is the short term.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_write: Option<u64>,
    /// Written to a cache for an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_write_hour: Option<u64>,
    /// Written by the model, with those of its reasoning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<u64>,
    /// Those of the output that are reasoning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<u64>,
    /// Uses of tools that the provider runs itself, such as searches: a number of requests, not of tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_tools: Option<u64>,
}

impl Tokens {
    /// Whether nothing is known.
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }

    /// All that the model read.
    pub fn read(&self) -> u64 {
        [self.input, self.cached_read, self.cached_write, self.cached_write_hour]
            .into_iter()
            .flatten()
            .fold(0, u64::saturating_add)
    }

    /// Adds the tokens of another call. A class of which either knows nothing is what the other knows.
    pub fn add(&mut self, other: &Self) {
        let add = |own: &mut Option<u64>, more: Option<u64>| {
            *own = match (*own, more) {
                (Some(own), Some(more)) => Some(own.saturating_add(more)),
                (own, more) => own.or(more),
            };
        };
        add(&mut self.input, other.input);
        add(&mut self.cached_read, other.cached_read);
        add(&mut self.cached_write, other.cached_write);
        add(&mut self.cached_write_hour, other.cached_write_hour);
        add(&mut self.output, other.output);
        add(&mut self.reasoning, other.reasoning);
        add(&mut self.server_tools, other.server_tools);
    }

    /// Takes each class that `later` knows: providers tell sums, and the last one counts.
    pub fn update(&mut self, later: &Self) {
        let take = |own: &mut Option<u64>, new: Option<u64>| *own = new.or(*own);
        take(&mut self.input, later.input);
        take(&mut self.cached_read, later.cached_read);
        take(&mut self.cached_write, later.cached_write);
        take(&mut self.cached_write_hour, later.cached_write_hour);
        take(&mut self.output, later.output);
        take(&mut self.reasoning, later.reasoning);
        take(&mut self.server_tools, later.server_tools);
    }
}

/// What a call cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "known", rename_all = "snake_case")]
pub enum Cost {
    /// By the tokens that the provider told.
    Exact {
        /// How much.
        nano_usd: Money,
    },
    /// By what had come when the call was cut: the provider told no final figures.
    Estimate {
        /// How much, about.
        nano_usd: Money,
    },
    /// Nobody told the price of this model.
    Unpriced,
    /// The provider told no tokens.
    Unknown,
    /// The provider refused, or was never reached: nothing was used.
    Nothing,
}

impl Cost {
    /// The sum, where one is known.
    pub fn money(self) -> Option<Money> {
        match self {
            Self::Exact { nano_usd } | Self::Estimate { nano_usd } => Some(nano_usd),
            Self::Nothing => Some(Money(0)),
            Self::Unpriced | Self::Unknown => None,
        }
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact { nano_usd } => nano_usd.fmt(f),
            Self::Estimate { nano_usd } => write!(f, "about {nano_usd}"),
            Self::Unpriced => f.write_str("unpriced"),
            Self::Unknown => f.write_str("cost unknown"),
            Self::Nothing => f.write_str("no cost"),
        }
    }
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum CallOutcome {
    /// The answer came to its end.
    Completed,
    /// The provider refused, or told of an error in its answer.
    Failed {
        /// The HTTP status of the last try; absent when there was no answer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<u16>,
        /// Why, in words; what the provider says is in it, so escape it before a terminal.
        reason: String,
    },
    /// The provider's answer broke off.
    Cut {
        /// Why, in words.
        reason: String,
    },
    /// The agent went away before the answer was at its end.
    Cancelled,
    /// Toka refused the call: nothing was sent.
    Refused {
        /// Why, in words, with the way out.
        reason: String,
    },
}

impl CallOutcome {
    /// The word for it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed { .. } => "failed",
            Self::Cut { .. } => "cut",
            Self::Cancelled => "cancelled",
            Self::Refused { .. } => "refused",
        }
    }
}

/// A call that is part of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchedCall {
    /// Its number.
    pub call: u64,
    /// SHA-256 of the request with its path and headers, in hexadecimal digits: by which the same request finds its answer again.
    pub request: String,
}

/// What is known of a call when it is over: its receipt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallReceipt {
    /// How it ended.
    #[serde(flatten)]
    pub outcome: CallOutcome,
    /// The provider that gave the answer, or refused last.
    pub provider: String,
    /// The model as the provider calls it.
    pub model: String,
    /// What it used.
    #[serde(default, skip_serializing_if = "Tokens::is_unknown")]
    pub tokens: Tokens,
    /// What that cost.
    pub cost: Cost,
    /// Requests that were sent, over all candidates.
    pub tries: u32,
    /// Why the tries before the last one came to nothing, each with its model; what a provider says is in it, so escape it before a terminal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed_tries: Vec<String>,
    /// The batch of the provider's that it was part of, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<String>,
    /// From the agent's request to the first content, in milliseconds; absent when none came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_content_ms: Option<u64>,
    /// From the agent's request to the end, in milliseconds.
    pub duration_ms: u64,
}

/// A model of a provider: `provider/model`, or a bare name, which goes to the first provider that knows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", from = "String")]
pub struct ModelName {
    /// The provider, where one is named.
    pub provider: Option<String>,
    /// The model as the provider calls it; it may have slashes of its own.
    pub model: String,
}

impl From<String> for ModelName {
    fn from(text: String) -> Self {
        match text.split_once('/') {
            Some((provider, model)) if !provider.is_empty() && !model.is_empty() => {
                Self { provider: Some(provider.to_owned()), model: model.to_owned() }
            }
            _ => Self { provider: None, model: text },
        }
    }
}

impl From<ModelName> for String {
    fn from(name: ModelName) -> Self {
        name.to_string()
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.provider {
            Some(provider) => write!(f, "{provider}/{}", self.model),
            None => f.write_str(&self.model),
        }
    }
}

/// The port at which agents reach models.
pub const MODEL_PORT: u16 = 7411;

/// The address at which an agent reaches models and hosts in a network that it has for itself.
pub const OWN_ADDRESS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, MODEL_PORT);

/// The same in a network that others use too: a loopback address of its own, the same in each life, of which there are so many that two
/// names do not fall on one (all of 127.0.0.0/8 is loopback, RFC 1122, 3.2.1.3).
pub fn shared_address(project: &ProjectName, agent: &AgentName) -> SocketAddrV4 {
    // FNV-1a (draft-eastlake-fnv), which will not change with the compiler.
    let name = [project.as_str().as_bytes(), b"/", agent.as_str().as_bytes()].concat();
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let [.., b, c, d] = name.iter().fold(0xcbf2_9ce4_8422_2325, mix).to_be_bytes();
    // 127.128.0.1 to 127.255.255.254.
    SocketAddrV4::new(Ipv4Addr::new(127, b | 0x80, c, d.clamp(1, 254)), MODEL_PORT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_shown_as_what_they_are() {
        for (nano, shown) in [
            (0, "$0.00"),
            (1, "<$0.000001"),
            (1_500, "$0.000002"),
            (4_500_000, "$0.0045"),
            (12_000_000, "$0.01"),
            (12_345_000_000, "$12.35"),
        ] {
            assert_eq!(Money(nano).to_string(), shown);
        }
        assert_eq!(Money::from_dollars(2.0), Some(Money(2_000_000_000)));
        for none in [-1.0, f64::NAN, f64::INFINITY, 1e300] {
            assert_eq!(Money::from_dollars(none), None);
        }
    }

    #[test]
    fn the_last_figure_of_a_class_counts_and_silence_changes_none() {
        let mut tokens = Tokens { input: Some(10), output: Some(1), ..Tokens::default() };
        tokens.update(&Tokens { output: Some(7), ..Tokens::default() });
        assert_eq!(tokens, Tokens { input: Some(10), output: Some(7), ..Tokens::default() });
        assert_eq!(tokens.read(), 10);
    }

    #[test]
    fn who_shares_a_network_has_an_address_of_its_own() {
        let name = |text: &str| crate::Name::new(text).expect("a label");
        let project = name("p");
        assert_eq!(OWN_ADDRESS.to_string(), "127.0.0.1:7411");
        let shared = |number: usize| *shared_address(&project, &name(&format!("worker-{number}"))).ip();
        let all: std::collections::BTreeSet<Ipv4Addr> = (0..1000).map(shared).collect();
        assert_eq!(all.len(), 1000);
        assert!(all.iter().all(|address| address.is_loopback() && address.octets()[1] >= 128));
    }

    #[test]
    fn a_name_has_a_provider_or_none() {
        for (text, provider, model) in [
            ("openai/gpt-5", Some("openai"), "gpt-5"),
            ("lab/org/qwen3", Some("lab"), "org/qwen3"),
            ("gpt-5", None, "gpt-5"),
            ("/x", None, "/x"),
        ] {
            let name = ModelName::from(text.to_owned());
            assert_eq!((name.provider.as_deref(), name.model.as_str()), (provider, model));
            assert_eq!(name.to_string(), text);
        }
    }
}
