//! What a model said in an answer, whole or streamed: its text and its calls of tools, in whichever language. What is read here can be written
//! again ([`crate::render`]).

use std::collections::BTreeMap;

use serde_json::Value;

use crate::Wire;
use crate::render::Turn;
use crate::sse::{Event, Splitter};

/// Reads an answer that came to its end: a stream of events, or one JSON value. Tokens are not read here ([`crate::Meter`],
/// [`crate::answer::read`]).
pub fn read(wire: Wire, is_stream: bool, body: &[u8]) -> Turn {
    let values = if is_stream { events(body) } else { serde_json::from_slice(body).into_iter().collect() };
    let mut said = Said::default();
    for value in &values {
        match wire {
            Wire::OpenAiChat => said.chat(value),
            Wire::OpenAiResponses => said.responses(value, is_stream),
            Wire::Anthropic => said.anthropic(value),
            Wire::Gemini => said.gemini(value),
        }
    }
    said.turn()
}

fn events(body: &[u8]) -> Vec<Value> {
    let (mut splitter, mut values) = (Splitter::default(), Vec::new());
    let _ = splitter.feed(body, |frame| {
        let data = Event::read(frame).data;
        values.extend(data.and_then(|data| serde_json::from_str::<Value>(&data).ok()));
    });
    values
}

/// A call of a tool, as it comes.
#[derive(Debug, Default)]
struct Call {
    name: String,
    /// JSON in pieces.
    pieces: String,
    /// What came in one piece.
    whole: Option<Value>,
}

#[derive(Debug, Default)]
struct Said {
    text: Vec<String>,
    /// By their places in the answer.
    calls: BTreeMap<u64, Call>,
}

impl Said {
    fn say(&mut self, text: Option<&Value>) {
        let text = text.and_then(Value::as_str).filter(|text| !text.is_empty());
        self.text.extend(text.map(str::to_owned));
    }

    fn call(&mut self, at: u64, name: Option<&Value>) -> &mut Call {
        let call = self.calls.entry(at).or_default();
        if let Some(name) = name.and_then(Value::as_str) {
            call.name = name.to_owned();
        }
        call
    }

    fn next(&self) -> u64 {
        self.calls.last_key_value().map_or(0, |(at, _)| at + 1)
    }

    fn chat(&mut self, value: &Value) {
        // Of several answers the first.
        let Some(choice) = value.get("choices").and_then(|choices| choices.get(0)) else { return };
        let Some(said) = choice.get("delta").or_else(|| choice.get("message")) else { return };
        self.say(said.get("content"));
        let calls = said.get("tool_calls").and_then(Value::as_array).into_iter().flatten();
        for (at, call) in calls.enumerate() {
            let at = call.get("index").and_then(Value::as_u64).unwrap_or(at as u64);
            let function = call.get("function").unwrap_or(&Value::Null);
            let known = self.call(at, function.get("name"));
            known.pieces.push_str(function.get("arguments").and_then(Value::as_str).unwrap_or_default());
        }
    }

    fn responses(&mut self, value: &Value, is_stream: bool) {
        let items: Vec<&Value> = match is_stream {
            // Each item is told whole when it is done.
            true if value.get("type").and_then(Value::as_str) == Some("response.output_item.done") => {
                value.get("item").into_iter().collect()
            }
            true => return,
            false => value.get("output").and_then(Value::as_array).into_iter().flatten().collect(),
        };
        for item in items {
            for part in item.get("content").and_then(Value::as_array).into_iter().flatten() {
                self.say(part.get("text"));
            }
            if item.get("type").and_then(Value::as_str) == Some("function_call") {
                let at = self.next();
                let arguments = item.get("arguments").and_then(Value::as_str).unwrap_or_default().to_owned();
                self.call(at, item.get("name")).pieces = arguments;
            }
        }
    }

    fn anthropic(&mut self, value: &Value) {
        let at = value.get("index").and_then(Value::as_u64).unwrap_or(0);
        let blocks = value.get("content").and_then(Value::as_array).into_iter().flatten();
        for (at, block) in blocks.enumerate() {
            self.block(at as u64, block);
        }
        if let Some(block) = value.get("content_block") {
            self.block(at, block);
        }
        if let Some(delta) = value.get("delta") {
            self.say(delta.get("text"));
            if let Some(piece) = delta.get("partial_json").and_then(Value::as_str) {
                self.call(at, None).pieces.push_str(piece);
            }
        }
    }

    fn block(&mut self, at: u64, block: &Value) {
        match block.get("type").and_then(Value::as_str) {
            Some("text") => self.say(block.get("text")),
            Some("tool_use") => {
                let input =
                    block.get("input").filter(|input| input.as_object().is_some_and(|map| !map.is_empty()));
                self.call(at, block.get("name")).whole = input.cloned();
            }
            _ => {}
        }
    }

    fn gemini(&mut self, value: &Value) {
        let candidate = value.get("candidates").and_then(|candidates| candidates.get(0));
        let parts =
            candidate.and_then(|candidate| candidate.get("content")).and_then(|content| content.get("parts"));
        for part in parts.and_then(Value::as_array).into_iter().flatten() {
            self.say(part.get("text").filter(|_| part.get("thought") != Some(&Value::Bool(true))));
            if let Some(call) = part.get("functionCall") {
                let at = self.next();
                self.call(at, call.get("name")).whole = call.get("args").cloned();
            }
        }
    }

    fn turn(self) -> Turn {
        let calls = self.calls.into_values().filter(|call| !call.name.is_empty());
        let tools = calls.map(|Call { name, pieces, whole }| {
            let arguments = whole.or_else(|| serde_json::from_str(&pieces).ok());
            (name, arguments.unwrap_or_else(|| Value::Object(serde_json::Map::new())))
        });
        Turn { text: self.text, tools: tools.collect(), ..Turn::default() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::render::{Label, stream, whole};

    proptest! {
        /// Whatever is written in any language, whole or as a stream, is read again.
        #[test]
        fn what_is_written_is_read(text in proptest::collection::vec("[a-zé \\n\"]{1,8}", 0..4), tools in proptest::collection::vec(("[a-z]{1,8}", "[a-z\"]{0,8}"), 0..3)) {
            let tools: Vec<(String, Value)> = tools.into_iter().map(|(name, value)| (name, json!({"x": value}))).collect();
            let turn = Turn { text, tools, ..Turn::default() };
            let label = Label { model: "m", number: 0 };
            for wire in Wire::ALL {
                let of_whole = read(wire, false, whole(wire, &turn, label).to_string().as_bytes());
                let of_stream = read(wire, true, stream(wire, &turn, label, true).concat().as_bytes());
                for said in [of_whole, of_stream] {
                    prop_assert_eq!(said.text.concat(), turn.text.concat(), "{}", wire);
                    prop_assert_eq!(&said.tools, &turn.tools, "{}", wire);
                }
            }
        }

        #[test]
        fn no_answer_makes_it_panic(body in ".{0,200}") {
            for wire in Wire::ALL {
                let _ = (read(wire, true, body.as_bytes()), read(wire, false, body.as_bytes()));
            }
        }
    }
}
