//! Makes a script of what models say while agents run, so that the same can be said again without them ([`crate::script`]).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};
use toka_core::{Tokens, Wire};
use toka_wire::said;

use crate::scripted::{answers_in, conversation};

/// Bytes of answers that are recorded, of one and of all: a script has no more.
pub(crate) const MOST: usize = 16 * 1024 * 1024;
/// Characters of a request by which its conversation is known again.
const KNOWN_BY: usize = 80;

/// Turns of one conversation.
const MOST_TURNS: usize = 10_000;

/// What of a request decides where its answer stands.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    wire: Wire,
    when: String,
    at: usize,
}

impl Asked {
    pub(crate) fn of(wire: Wire, request: &[u8]) -> Self {
        Self { wire, when: known_by(&conversation(wire, request)), at: answers_in(wire, request) }
    }
}

/// One answer of a model.
#[derive(Debug, Clone, PartialEq)]
struct Recorded {
    text: String,
    tools: Vec<(String, Value)>,
    tokens: Tokens,
}

/// Keeps what models say, by conversation.
#[derive(Debug, Default)]
pub struct Recorder(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// In the order in which they began: what they are known by, and their answers by how many were there before.
    conversations: Vec<(String, BTreeMap<usize, Recorded>)>,
    /// Answers that could not be kept: another one has their place.
    lost: usize,
    /// Bytes of all answers: a script has no more.
    bytes: usize,
}

impl Recorder {
    /// Takes an answer that came to its end.
    pub(crate) fn add(&self, request: Asked, is_stream: bool, answer: &[u8], tokens: &Tokens) {
        let Asked { wire, when, at } = request;
        let said = said::read(wire, is_stream, answer);
        let recorded = Recorded { text: said.text.concat(), tools: said.tools, tokens: *tokens };
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.bytes += answer.len();
        if at > MOST_TURNS || state.bytes > MOST {
            state.lost += 1;
            return;
        }
        let known = state.conversations.iter().position(|(known, _)| *known == when);
        let known = known.unwrap_or_else(|| {
            state.conversations.push((when, BTreeMap::new()));
            state.conversations.len() - 1
        });
        let turns = &mut state.conversations[known].1;
        match turns.get(&at) {
            Some(before) if before.text == recorded.text && before.tools == recorded.tools => {}
            Some(_) => state.lost += 1,
            None => drop(turns.insert(at, recorded)),
        }
    }

    /// How many conversations and answers there are, and how many answers could not be kept.
    pub fn count(&self) -> (usize, usize, usize) {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let answers = state.conversations.iter().map(|(_, turns)| turns.len()).sum();
        (state.conversations.len(), answers, state.lost)
    }

    /// The script.
    pub fn script(&self) -> String {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::from(
            "# Recorded from models: `spec.model: {script: FILE}` answers from it.\nconversations:\n",
        );
        // The first that fits is taken: so the longest come first, and what is known by nothing fits whatever no other fits.
        let mut known: Vec<_> = state.conversations.iter().filter(|(when, _)| !when.is_empty()).collect();
        known.sort_by_key(|(when, _)| std::cmp::Reverse(when.len()));
        let lines = |text: &mut String, turns: &BTreeMap<usize, Recorded>, indent: &str| {
            let last = turns.last_key_value().map_or(0, |(at, _)| *at);
            for at in 0..=last {
                let _ = writeln!(text, "{indent}- {}", turn(turns.get(&at)));
            }
        };
        for (when, turns) in &known {
            let _ = writeln!(text, "  - when: {}\n    turns:", Value::from(when.as_str()));
            lines(&mut text, turns, "      ");
        }
        if known.is_empty() {
            text.push_str("  []\n");
        }
        if let Some((_, turns)) = state.conversations.iter().find(|(when, _)| when.is_empty()) {
            text.push_str("turns:\n");
            lines(&mut text, turns, "  ");
        }
        text
    }
}

/// A turn in one line: JSON is YAML, too.
fn turn(recorded: Option<&Recorded>) -> Value {
    let Some(Recorded { text, tools, tokens }) = recorded else {
        return json!({"text": "(this turn was not recorded)"});
    };
    let mut turn = json!({"text": text, "usage": {
        "input": tokens.read().saturating_sub(tokens.cached_read.unwrap_or(0)),
        "cached_read": tokens.cached_read.unwrap_or(0), "output": tokens.output.unwrap_or(0)}});
    if !tools.is_empty() {
        let tools = tools.iter().map(|(name, arguments)| json!({"name": name, "arguments": arguments}));
        turn["tools"] = tools.collect::<Vec<_>>().into();
    }
    turn
}

/// The part of a text by which a request is known again: as it stands in JSON, so without what is written in another way there.
fn known_by(text: &str) -> String {
    let plain = |c: char| (c.is_ascii_graphic() || c == ' ') && c != '"' && c != '\\';
    let parts = text.split(|c| !plain(c)).map(str::trim);
    let longest = parts.max_by_key(|part| part.chars().count().min(KNOWN_BY)).unwrap_or_default();
    longest.chars().take(KNOWN_BY).collect()
}

#[cfg(test)]
mod tests {
    use toka_wire::render::{Label, Turn, whole};

    use super::*;
    use crate::script::Script;

    #[test]
    fn what_was_recorded_answers_the_same_again() {
        let recorder = Recorder::default();
        let first = json!({"messages": [{"role": "user", "content": "fix the \"bug\" in main.rs"}]});
        let second = json!({"messages": [{"role": "user", "content": "fix the \"bug\" in main.rs"},
            {"role": "assistant", "content": "x"}, {"role": "user", "content": "done"}]});
        let other =
            json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "name this"}]}]});
        let said = |text: &str, tools: Vec<(String, Value)>| Turn {
            text: vec![text.into()],
            tools,
            ..Turn::default()
        };
        let run = vec![("run".to_owned(), json!({"command": "ls"}))];
        for (request, turn) in [
            (&first, said("I look", run)),
            (&second, said("done: it works", vec![])),
            (&other, said("a title", vec![])),
        ] {
            let answer = whole(Wire::Anthropic, &turn, Label { model: "m", number: 0 }).to_string();
            let tokens =
                Tokens { input: Some(5), cached_read: Some(2), output: Some(3), ..Tokens::default() };
            let request = request.to_string();
            recorder.add(Asked::of(Wire::Anthropic, request.as_bytes()), false, answer.as_bytes(), &tokens);
            recorder.add(Asked::of(Wire::Anthropic, request.as_bytes()), false, answer.as_bytes(), &tokens);
        }
        assert_eq!(recorder.count(), (2, 3, 0));
        let text = recorder.script();
        // It is JSON behind dashes, so that a reader of JSON can check it here; the reader of YAML does end to end.
        assert!(text.contains("when: \"in main.rs\"") || text.contains("when: \"fix the\""), "{text}");
        let turns: Vec<Value> = text
            .lines()
            .filter_map(|line| {
                serde_json::from_str(
                    line.trim().strip_prefix("- {").map(|rest| format!("{{{rest}")).as_deref()?,
                )
                .ok()
            })
            .collect();
        assert_eq!(turns.len(), 3, "{text}");
        let script: Script = serde_json::from_value(json!({"turns": turns})).expect("a script");
        assert_eq!((script.turns[0].text.as_str(), script.turns[0].usage.cached_read), ("I look", 2));
        assert_eq!(script.turns[0].tools[0].arguments, json!({"command": "ls"}));
    }

    #[test]
    fn a_conversation_is_known_by_what_json_does_not_change() {
        assert_eq!(known_by("a \"quoted\" text that is long"), "text that is long");
        assert_eq!(known_by("one\nanother line"), "another line");
        assert_eq!(known_by(&"x".repeat(200)).len(), KNOWN_BY);
        assert_eq!(known_by(""), "");
    }
}
