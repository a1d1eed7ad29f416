//! What a scripted provider says: conversations, each a list of turns. It is data, so that the same script says the same every time.
//!
//! A request belongs to the first conversation whose `when` is in it; the turn follows from how many answers the request already holds.
//! So a script keeps no state, but for faults that happen so many times and then no more.

use serde::Deserialize;
use serde_json::Value;
use toka_core::units::parse_duration;

/// A whole script.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// Conversations; the first that fits is taken.
    #[serde(default)]
    pub conversations: Vec<Conversation>,
    /// The turns of one that fits whatever no other fits.
    #[serde(default)]
    pub turns: Vec<Turn>,
}

/// One conversation.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conversation {
    /// A text that a request must hold.
    #[serde(default)]
    pub when: String,
    /// What is said, one after the other.
    pub turns: Vec<Turn>,
}

/// What is said in one turn.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Turn {
    /// A text that the request must hold, or it is refused: so a script sees that a tool was really used.
    #[serde(default)]
    pub expect: Option<String>,
    /// Text.
    #[serde(default)]
    pub text: String,
    /// Calls of tools.
    #[serde(default)]
    pub tools: Vec<ToolCall>,
    /// Tokens that it is said to take.
    #[serde(default)]
    pub usage: Usage,
    /// Time between two frames of a stream, and before an answer.
    #[serde(default)]
    pub delay: Option<Delay>,
    /// What goes wrong.
    #[serde(default)]
    pub fault: Option<Fault>,
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolCall {
    /// The tool.
    pub name: String,
    /// Its arguments.
    #[serde(default)]
    pub arguments: Value,
}

/// Tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Usage {
    /// Read.
    pub input: u64,
    /// Read from a cache, besides.
    pub cached_read: u64,
    /// Written.
    pub output: u64,
}

impl Default for Usage {
    fn default() -> Self {
        Self { input: 100, cached_read: 0, output: 10 }
    }
}

/// A duration as people write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
pub struct Delay(pub std::time::Duration);

impl TryFrom<Value> for Delay {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let text = match value {
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            other => return Err(format!("expected a duration such as 50ms, found {other}")),
        };
        parse_duration(&text).map(Self).map_err(|error| error.to_string())
    }
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// How often, before the turn goes as it should; without end by default.
    #[serde(default)]
    pub times: Option<u32>,
    /// The status of a refusal.
    #[serde(default)]
    pub status: Option<u16>,
    /// `Retry-After` of that refusal.
    #[serde(default)]
    pub retry_after: Option<Delay>,
    /// The stream breaks off after so many frames.
    #[serde(default)]
    pub cut_after: Option<usize>,
    /// After so many frames nothing comes but pings.
    #[serde(default)]
    pub stall_after: Option<usize>,
    /// The answer is no JSON.
    #[serde(default)]
    pub bad_json: bool,
    /// An event of the stream has no end.
    #[serde(default)]
    pub endless: bool,
}

impl Script {
    /// The conversation and the turn that answer a request, and how they are numbered; `None` beyond the last turn.
    pub(crate) fn turn(&self, body: &str, answers: usize) -> Option<((usize, usize), &Turn)> {
        let fitting = self.conversations.iter().position(|known| body.contains(&known.when));
        let (number, turns) = match fitting {
            Some(number) => (number, &self.conversations[number].turns),
            None => (self.conversations.len(), &self.turns),
        };
        Some(((number, answers), turns.get(answers)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_belongs_to_the_first_conversation_that_fits() {
        let turn = |text: &str| Turn { text: text.into(), ..Turn::default() };
        let script = Script {
            conversations: vec![Conversation { when: "title".into(), turns: vec![turn("a title")] }],
            turns: vec![turn("first"), turn("second")],
        };
        let said = |body, answers| script.turn(body, answers).map(|(_, turn)| turn.text.clone());
        assert_eq!(said("write a title", 0).as_deref(), Some("a title"));
        assert_eq!(said("fix it", 1).as_deref(), Some("second"));
        assert_eq!(said("fix it", 2), None);
    }
}
