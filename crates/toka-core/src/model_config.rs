//! Which models there are, who provides them, and what a person says about both (`models` of `toka.yaml`).

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{BudgetConfig, ModelName, Money, Tokens};

/// The language that a provider speaks: a family of APIs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Wire {
    /// Chat Completions, which OpenAI began and most local servers speak; with it embeddings.
    #[serde(rename = "openai-chat")]
    OpenAiChat,
    /// Responses of OpenAI.
    #[serde(rename = "openai-responses")]
    OpenAiResponses,
    /// Messages of Anthropic.
    #[serde(rename = "anthropic")]
    Anthropic,
    /// `generateContent` of Google.
    #[serde(rename = "gemini")]
    Gemini,
}

impl Wire {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::OpenAiChat, Self::OpenAiResponses, Self::Anthropic, Self::Gemini];

    /// Its name in `toka.yaml`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OpenAiChat => "openai-chat",
            Self::OpenAiResponses => "openai-responses",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
        }
    }
}

impl fmt::Display for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a provider speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Speaks {
    /// One language.
    Wire(Wire),
    /// Whatever it is asked in: its answers come from a file.
    Script,
}

/// US dollars for a million tokens. A class without a price of its own costs what `input` does, or `output` for reasoning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Price {
    /// Tokens read.
    pub input: f64,
    /// Tokens read from a cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_read: Option<f64>,
    /// Tokens written to a cache for minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_write: Option<f64>,
    /// Tokens written to a cache for an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_write_hour: Option<f64>,
    /// Tokens written.
    pub output: f64,
    /// Most tokens that one call may read at this price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// The share of all this that a call through a batch interface costs, from 0 to 1; absent for all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<f64>,
}

impl Price {
    /// What these tokens cost; `None` beyond `until`, and for what nobody can compute.
    pub fn of(&self, tokens: &Tokens) -> Option<Money> {
        if self.until.is_some_and(|until| tokens.read() > until) {
            return None;
        }
        let classes = [
            (tokens.input, self.input),
            (tokens.cached_read, self.cached_read.unwrap_or(self.input)),
            (tokens.cached_write, self.cached_write.unwrap_or(self.input)),
            (tokens.cached_write_hour, self.cached_write_hour.unwrap_or(self.input)),
            (tokens.output, self.output),
        ];
        let dollars: f64 =
            classes.iter().map(|(count, price)| count.unwrap_or(0) as f64 * price / 1_000_000.0).sum();
        Money::from_dollars(dollars)
    }

    /// The prices of calls through a batch interface.
    #[must_use]
    pub fn batched(self) -> Self {
        let share = self.batch.unwrap_or(1.0);
        let part = |price: Option<f64>| price.map(|price| price * share);
        Self {
            input: self.input * share,
            cached_read: part(self.cached_read),
            cached_write: part(self.cached_write),
            cached_write_hour: part(self.cached_write_hour),
            output: self.output * share,
            ..self
        }
    }
}

/// Where a key is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeySource {
    /// In a variable of whoever runs Toka.
    Env(String),
    /// In a file; a relative path and `~/` are as in a workstream.
    File(String),
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "the variable {name}"),
            Self::File(path) => write!(f, "the file {path}"),
        }
    }
}

/// What a person says of one provider. What is absent is as it is built in; a provider that is not built in needs `speaks`, and
/// `url` or `file`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderConfig {
    /// `wire`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speaks: Option<Speaks>,
    /// Where it is, without the version (`/v1`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Where its key is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeySource>,
    /// The script of one that answers from a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Most calls at one time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Longest time without a word of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
}

/// What a person says about models, and what agents may use of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelConfig {
    /// The default chain: the first that can answer does.
    #[serde(default, rename = "use", skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<ModelName>,
    /// Providers by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub providers: BTreeMap<String, ProviderConfig>,
    /// Prices of a person's own, by `provider/model`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub prices: BTreeMap<String, Price>,
    /// What the run and each agent may use.
    #[serde(default, skip_serializing_if = "BudgetConfig::is_empty")]
    pub budgets: BudgetConfig,
    /// How long an approval waits for an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approvals_expire: Option<Duration>,
}

impl ModelConfig {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The same with what `nearer` says on top, such as the file of a workspace over that of a person.
    #[must_use]
    pub fn with(mut self, nearer: Self) -> Self {
        if !nearer.chain.is_empty() {
            self.chain = nearer.chain;
        }
        self.providers.extend(nearer.providers);
        self.prices.extend(nearer.prices);
        self.budgets = self.budgets.with(nearer.budgets);
        self.approvals_expire = nearer.approvals_expire.or(self.approvals_expire);
        self
    }
}
