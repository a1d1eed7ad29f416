//! What a model said in an answer, whole or streamed, in whichever language: its text, its reasoning, its calls of tools, and the blocks
//! as they came, to be sent back to the same model. What is read here can be written again ([`crate::render`], [`crate::Conversation`]).

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use toka_core::Tokens;

use crate::render::Turn;
use crate::sse::{Event, Splitter, SseError};
use crate::{Frame, Meter, Wire, answer};

/// A call of a tool.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// As the provider calls it; empty where the language has no such name.
    pub id: String,
    /// The tool.
    pub name: String,
    /// Its arguments, or what the model wrote in their place when that is no JSON object.
    pub arguments: Result<Map<String, Value>, String>,
}

/// Why a model stopped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Stop {
    /// It had said all.
    #[default]
    End,
    /// It wants tools to be called.
    Tools,
    /// It may not write more: its answer is cut.
    Length,
    /// It, or its provider, refuses.
    Refused,
    /// Another reason, in the provider's word.
    Other(String),
}

/// A whole answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    /// Its text.
    pub text: String,
    /// What of its reasoning it shows.
    pub thinking: String,
    /// Calls of tools, in its order.
    pub calls: Vec<Call>,
    /// The blocks as they came: for the same model and nobody else. Empty where the language has none that say more than the above.
    pub blocks: Vec<Value>,
    /// Why it stopped.
    pub stop: Stop,
    /// Tokens, as the provider told them last.
    pub tokens: Tokens,
    /// Whether it came to its end.
    pub is_whole: bool,
    /// What the provider says went wrong, in its words.
    pub error: Option<String>,
}

/// A piece of an answer, as it comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Text.
    Text(String),
    /// Reasoning.
    Thinking(String),
    /// A call of this tool begins.
    Call(String),
}

/// Reads an answer that comes as a stream.
#[derive(Debug)]
pub struct Reader {
    wire: Wire,
    splitter: Splitter,
    meter: Meter,
    said: Said,
}

impl Reader {
    /// Of a stream in this language.
    pub fn new(wire: Wire) -> Self {
        Self { wire, splitter: Splitter::default(), meter: Meter::new(wire, false), said: Said::default() }
    }

    /// Takes more of the stream; what it says is given to `take`.
    ///
    /// # Errors
    /// When an event does not end.
    pub fn feed(&mut self, bytes: &[u8], mut take: impl FnMut(Piece)) -> Result<(), SseError> {
        let Self { wire, splitter, meter, said } = self;
        splitter.feed(bytes, |frame| {
            if meter.observe(frame) == Frame::Error {
                return;
            }
            let data = Event::read(frame).data;
            let Some(value) = data.and_then(|data| serde_json::from_str::<Value>(&data).ok()) else { return };
            said.take(*wire, true, &value);
            said.news.drain(..).for_each(&mut take);
        })
    }

    /// What was said, when the stream has ended.
    pub fn finish(self) -> Answer {
        let progress = self.meter.progress();
        Answer {
            tokens: progress.tokens,
            is_whole: progress.is_whole,
            error: progress.error.clone(),
            ..self.said.answer(self.wire)
        }
    }
}

/// Reads an answer that is one JSON value.
pub fn read_whole(wire: Wire, body: &[u8]) -> Answer {
    let mut said = Said::default();
    let value = serde_json::from_slice::<Value>(body).ok();
    value.iter().for_each(|value| said.take(wire, false, value));
    let told = answer::read(wire, body);
    Answer { tokens: told.tokens, is_whole: value.is_some(), error: told.error, ..said.answer(wire) }
}

/// Reads an answer that came to its end: a stream of events, or one JSON value. Tokens are not read here ([`crate::Meter`],
/// [`crate::answer::read`]).
pub fn read(wire: Wire, is_stream: bool, body: &[u8]) -> Turn {
    let mut said = Said::default();
    let values = if is_stream { events(body) } else { serde_json::from_slice(body).into_iter().collect() };
    values.iter().for_each(|value| said.take(wire, is_stream, value));
    let text = std::mem::take(&mut said.text);
    let calls = said.answer(wire).calls.into_iter();
    let tools = calls.map(|call| (call.name, Value::Object(call.arguments.unwrap_or_default())));
    Turn { text, tools: tools.collect(), ..Turn::default() }
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
struct PartialCall {
    id: String,
    name: String,
    /// JSON in pieces.
    pieces: String,
    /// What came in one piece.
    whole: Option<Value>,
}

impl PartialCall {
    fn arguments(&self) -> Result<Map<String, Value>, String> {
        let value = match &self.whole {
            Some(value) => value.clone(),
            None if self.pieces.trim().is_empty() => return Ok(Map::new()),
            None => serde_json::from_str(&self.pieces).map_err(|_| self.pieces.clone())?,
        };
        match value {
            Value::Object(arguments) => Ok(arguments),
            other => Err(other.to_string()),
        }
    }
}

#[derive(Debug, Default)]
struct Said {
    text: Vec<String>,
    thinking: String,
    /// By their places in the answer.
    calls: BTreeMap<u64, PartialCall>,
    /// Blocks as they came, by their places.
    blocks: BTreeMap<u64, Value>,
    stop: Option<String>,
    /// What has not been handed on.
    news: Vec<Piece>,
}

fn text_of(value: Option<&Value>) -> Option<&str> {
    value.and_then(Value::as_str).filter(|text| !text.is_empty())
}

impl Said {
    fn take(&mut self, wire: Wire, is_stream: bool, value: &Value) {
        match wire {
            Wire::OpenAiChat => self.chat(value),
            Wire::OpenAiResponses => self.responses(value, is_stream),
            Wire::Anthropic => self.anthropic(value),
            Wire::Gemini => self.gemini(value),
        }
    }

    fn say(&mut self, text: Option<&Value>) {
        if let Some(text) = text_of(text) {
            self.text.push(text.to_owned());
            self.news.push(Piece::Text(text.to_owned()));
        }
    }

    fn think(&mut self, text: Option<&Value>) {
        if let Some(text) = text_of(text) {
            self.thinking.push_str(text);
            self.news.push(Piece::Thinking(text.to_owned()));
        }
    }

    fn call(&mut self, at: u64, name: Option<&Value>) -> &mut PartialCall {
        let call = self.calls.entry(at).or_default();
        if let Some(name) = text_of(name) {
            if call.name.is_empty() {
                self.news.push(Piece::Call(name.to_owned()));
            }
            call.name = name.to_owned();
        }
        call
    }

    fn next(&self) -> u64 {
        self.calls.last_key_value().map_or(0, |(at, _)| at + 1)
    }

    fn stops(&mut self, reason: Option<&Value>) {
        if let Some(reason) = text_of(reason) {
            self.stop = Some(reason.to_owned());
        }
    }

    fn chat(&mut self, value: &Value) {
        // Of several answers the first.
        let choices = value.get("choices").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let is_first = |choice: &&Value| choice.get("index").and_then(Value::as_u64).unwrap_or(0) == 0;
        let Some(choice) = choices.iter().find(is_first) else { return };
        self.stops(choice.get("finish_reason"));
        let Some(said) = choice.get("delta").or_else(|| choice.get("message")) else { return };
        self.think(said.get("reasoning_content").or_else(|| said.get("reasoning")));
        self.say(said.get("content"));
        if text_of(said.get("refusal")).is_some() {
            self.say(said.get("refusal"));
            self.stop = Some("refusal".to_owned());
        }
        let calls = said.get("tool_calls").and_then(Value::as_array).into_iter().flatten();
        for (at, call) in calls.enumerate() {
            let mut at = call.get("index").and_then(Value::as_u64).unwrap_or(at as u64);
            // Some servers give several calls one place: another name is another call.
            let id = text_of(call.get("id"));
            let is_other = |known: &PartialCall| !known.id.is_empty() && id.is_some_and(|id| id != known.id);
            if self.calls.get(&at).is_some_and(is_other) {
                at = self.next();
            } else if id.is_none() && self.calls.contains_key(&at) {
                // Pieces belong to the call that came last there.
                at = self.next() - 1;
            }
            let function = call.get("function").unwrap_or(&Value::Null);
            let known = self.call(at, function.get("name"));
            if let Some(id) = id {
                known.id = id.to_owned();
            }
            known.pieces.push_str(function.get("arguments").and_then(Value::as_str).unwrap_or_default());
        }
    }

    fn responses(&mut self, value: &Value, is_stream: bool) {
        let kind = value.get("type").and_then(Value::as_str).unwrap_or_default();
        let response = if is_stream { value.get("response") } else { Some(value) };
        if let Some(response) = response {
            self.stops(response.get("incomplete_details").and_then(|details| details.get("reason")));
        }
        let items: Vec<&Value> = match (is_stream, kind) {
            // Each item is told whole when it is done.
            (true, "response.output_item.done") => value.get("item").into_iter().collect(),
            (true, "response.output_text.delta") => {
                self.news.extend(text_of(value.get("delta")).map(|text| Piece::Text(text.to_owned())));
                return;
            }
            (true, "response.reasoning_summary_text.delta" | "response.reasoning_text.delta") => {
                self.news.extend(text_of(value.get("delta")).map(|text| Piece::Thinking(text.to_owned())));
                return;
            }
            (true, _) => return,
            (false, _) => value.get("output").and_then(Value::as_array).into_iter().flatten().collect(),
        };
        for item in items {
            self.item(item, is_stream);
        }
    }

    /// An item of Responses that is done. Of a stream its pieces were handed on before.
    fn item(&mut self, item: &Value, is_told: bool) {
        let told = self.news.len();
        for part in item.get("content").and_then(Value::as_array).into_iter().flatten() {
            match part.get("type").and_then(Value::as_str) {
                Some("reasoning_text") => self.think(part.get("text")),
                Some("refusal") => {
                    self.say(part.get("refusal"));
                    self.stop = Some("refusal".to_owned());
                }
                _ => self.say(part.get("text")),
            }
        }
        for part in item.get("summary").and_then(Value::as_array).into_iter().flatten() {
            self.think(part.get("text"));
        }
        if is_told {
            self.news.truncate(told);
        }
        if item.get("type").and_then(Value::as_str) == Some("function_call") {
            let at = self.next();
            let arguments = item.get("arguments").and_then(Value::as_str).unwrap_or_default().to_owned();
            let id = text_of(item.get("call_id")).unwrap_or_default().to_owned();
            let call = self.call(at, item.get("name"));
            (call.pieces, call.id) = (arguments, id);
        }
        let at = self.blocks.len() as u64;
        self.blocks.insert(at, item.clone());
    }

    fn anthropic(&mut self, value: &Value) {
        let at = value.get("index").and_then(Value::as_u64).unwrap_or(0);
        self.stops(value.get("stop_reason"));
        let blocks = value.get("content").and_then(Value::as_array).into_iter().flatten();
        for (at, block) in blocks.enumerate() {
            self.block(at as u64, block);
        }
        if let Some(block) = value.get("content_block") {
            self.block(at, block);
        }
        let Some(delta) = value.get("delta") else { return };
        self.stops(delta.get("stop_reason"));
        self.say(delta.get("text"));
        self.think(delta.get("thinking"));
        for key in ["text", "thinking", "signature"] {
            if let (Some(more), Some(block)) = (text_of(delta.get(key)), self.blocks.get_mut(&at)) {
                let before = block.get(key).and_then(Value::as_str).unwrap_or_default();
                block[key] = format!("{before}{more}").into();
            }
        }
        if let Some(piece) = delta.get("partial_json").and_then(Value::as_str) {
            self.call(at, None).pieces.push_str(piece);
        }
    }

    fn block(&mut self, at: u64, block: &Value) {
        if !block.is_object() {
            return;
        }
        match block.get("type").and_then(Value::as_str) {
            Some("text") => self.say(block.get("text")),
            Some("thinking") => self.think(block.get("thinking")),
            Some("tool_use") => {
                let input =
                    block.get("input").filter(|input| input.as_object().is_some_and(|map| !map.is_empty()));
                let id = text_of(block.get("id")).unwrap_or_default().to_owned();
                let call = self.call(at, block.get("name"));
                (call.whole, call.id) = (input.cloned(), id);
            }
            _ => {}
        }
        self.blocks.insert(at, block.clone());
    }

    fn gemini(&mut self, value: &Value) {
        let candidate = value.get("candidates").and_then(|candidates| candidates.get(0));
        self.stops(candidate.and_then(|candidate| candidate.get("finishReason")));
        let parts =
            candidate.and_then(|candidate| candidate.get("content")).and_then(|content| content.get("parts"));
        for part in parts.and_then(Value::as_array).into_iter().flatten() {
            match part.get("thought") {
                Some(Value::Bool(true)) => self.think(part.get("text")),
                _ => self.say(part.get("text")),
            }
            if let Some(call) = part.get("functionCall") {
                let at = self.next();
                let id = text_of(call.get("id")).unwrap_or_default().to_owned();
                let known = self.call(at, call.get("name"));
                known.whole = Some(call.get("args").cloned().unwrap_or_else(|| Value::Object(Map::new())));
                known.id = id;
            }
            let at = self.blocks.len() as u64;
            self.blocks.insert(at, part.clone());
        }
    }

    fn answer(mut self, wire: Wire) -> Answer {
        self.calls.retain(|_, call| !call.name.is_empty());
        if wire == Wire::Anthropic {
            // The input came in pieces, beside its block.
            for (at, call) in &self.calls {
                if let Some(block) = self.blocks.get_mut(at) {
                    block["input"] = Value::Object(call.arguments().unwrap_or_default());
                }
            }
        }
        let calls: Vec<Call> = self
            .calls
            .values()
            .map(|call| Call { id: call.id.clone(), name: call.name.clone(), arguments: call.arguments() })
            .collect();
        Answer {
            stop: stop_of(self.stop.as_deref(), !calls.is_empty()),
            text: self.text.concat(),
            thinking: self.thinking,
            calls,
            blocks: self.blocks.into_values().filter(|block| !is_blank(block)).collect(),
            ..Answer::default()
        }
    }
}

/// Whether a block is text without a word in it: providers write such ones, and take none.
fn is_blank(block: &Value) -> bool {
    let text = block.get("text").and_then(Value::as_str);
    let is_text = block
        .as_object()
        .is_some_and(|block| block.keys().all(|key| matches!(key.as_str(), "type" | "text" | "citations")));
    is_text && text.is_some_and(|text| text.trim().is_empty())
}

/// What the providers' words for the end of an answer mean.
fn stop_of(word: Option<&str>, has_calls: bool) -> Stop {
    match word {
        Some(
            "length" | "max_tokens" | "max_output_tokens" | "MAX_TOKENS" | "model_context_window_exceeded",
        ) => Stop::Length,
        Some(
            "refusal" | "content_filter" | "SAFETY" | "PROHIBITED_CONTENT" | "BLOCKLIST" | "RECITATION"
            | "SPII" | "LANGUAGE" | "IMAGE_SAFETY",
        ) => Stop::Refused,
        _ if has_calls => Stop::Tools,
        None | Some("stop" | "end_turn" | "STOP" | "stop_sequence" | "tool_calls" | "tool_use") => Stop::End,
        Some(other) => Stop::Other(other.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::render::{Label, stream, whole};

    fn read_stream(wire: Wire, frames: &[String]) -> (Answer, Vec<Piece>) {
        let (mut reader, mut pieces) = (Reader::new(wire), Vec::new());
        for frame in frames {
            reader.feed(frame.as_bytes(), |piece| pieces.push(piece)).expect("events that end");
        }
        (reader.finish(), pieces)
    }

    proptest! {
        /// Whatever is written in any language, whole or as a stream, is read again.
        #[test]
        fn what_is_written_is_read(text in proptest::collection::vec("[a-zé \\n\"]{1,8}", 0..4), tools in proptest::collection::vec(("[a-z]{1,8}", "[a-z\"]{0,8}"), 0..3)) {
            let tools: Vec<(String, Value)> = tools.into_iter().map(|(name, value)| (name, json!({"x": value}))).collect();
            let turn = Turn { text, tools, ..Turn::default() };
            let label = Label { model: "m", number: 0 };
            for wire in Wire::ALL {
                let frames = stream(wire, &turn, label, true);
                let of_whole = read(wire, false, whole(wire, &turn, label).to_string().as_bytes());
                let of_stream = read(wire, true, frames.concat().as_bytes());
                for said in [of_whole, of_stream] {
                    prop_assert_eq!(said.text.concat(), turn.text.concat(), "{}", wire);
                    prop_assert_eq!(&said.tools, &turn.tools, "{}", wire);
                }
                let (answer, pieces) = read_stream(wire, &frames);
                prop_assert!(answer.is_whole && answer.error.is_none(), "{}", wire);
                let told: String = pieces.iter().filter_map(|piece| match piece { Piece::Text(text) => Some(text.as_str()), _ => None }).collect();
                prop_assert_eq!(&told, &answer.text, "{}", wire);
                prop_assert_eq!(answer.calls.len(), turn.tools.len());
                prop_assert_eq!(answer.stop, if turn.tools.is_empty() { Stop::End } else { Stop::Tools });
            }
        }

        #[test]
        fn no_answer_makes_it_panic(body in ".{0,200}") {
            for wire in Wire::ALL {
                let _ = (read(wire, true, body.as_bytes()), read(wire, false, body.as_bytes()));
                let _ = (read_whole(wire, body.as_bytes()), read_stream(wire, std::slice::from_ref(&body)));
            }
        }
    }

    #[test]
    fn signed_thinking_is_kept_as_it_came() {
        let data = |value: Value| format!("data: {value}\n\n");
        let frames = [
            data(json!({"type": "message_start", "message": {"usage": {"input_tokens": 3}}})),
            data(
                json!({"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}}),
            ),
            data(
                json!({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm"}}),
            ),
            data(
                json!({"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "s1"}}),
            ),
            data(
                json!({"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "id": "t1", "name": "read", "input": {}}}),
            ),
            data(
                json!({"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": "{\"path\":"}}),
            ),
            data(
                json!({"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": "\"a\"}"}}),
            ),
            data(
                json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 5}}),
            ),
            data(json!({"type": "message_stop"})),
        ];
        let (answer, pieces) = read_stream(Wire::Anthropic, &frames);
        assert_eq!(
            answer.blocks,
            [
                json!({"type": "thinking", "thinking": "Hm", "signature": "s1"}),
                json!({"type": "tool_use", "id": "t1", "name": "read", "input": {"path": "a"}})
            ]
        );
        assert_eq!((answer.thinking.as_str(), &answer.stop), ("Hm", &Stop::Tools));
        assert_eq!(pieces, [Piece::Thinking("Hm".into()), Piece::Call("read".into())]);
        assert_eq!((answer.tokens.input, answer.tokens.output), (Some(3), Some(5)));
    }

    #[test]
    fn arguments_that_are_no_object_are_told_as_they_came() {
        for (arguments, expected) in
            [("{\"a\": ", "{\"a\": "), ("[1]", "[1]"), ("\"x\"", "\"x\""), ("nonsense", "nonsense")]
        {
            let body = json!({"choices": [{"message": {"tool_calls": [{"id": "c", "function": {"name": "exec", "arguments": arguments}}]},
                "finish_reason": "tool_calls"}]});
            let answer = read_whole(Wire::OpenAiChat, body.to_string().as_bytes());
            assert_eq!(answer.calls[0].arguments, Err(expected.to_owned()));
        }
    }

    #[test]
    fn calls_at_one_place_are_told_apart_by_their_names() {
        let call = |id: Option<&str>, arguments: &str| json!({"index": 0, "id": id, "function": {"name": id.map(|_| "read"), "arguments": arguments}});
        let data =
            |calls: Value| format!("data: {}\n\n", json!({"choices": [{"delta": {"tool_calls": calls}}]}));
        let frames = [
            data(json!([call(Some("a"), "{}")])),
            data(json!([call(Some("b"), "{\"x\"")])),
            data(json!([call(None, ": 1}")])),
        ];
        let (answer, _) = read_stream(Wire::OpenAiChat, &frames);
        let ids: Vec<&str> = answer.calls.iter().map(|call| call.id.as_str()).collect();
        assert_eq!(ids, ["a", "b"]);
        assert_eq!(answer.calls[1].arguments.as_ref().map(|map| map["x"].clone()), Ok(json!(1)));
    }

    #[test]
    fn text_without_a_word_is_no_block() {
        let body = json!({"content": [{"type": "text", "text": " "}, {"type": "tool_use", "id": "t", "name": "read", "input": {}}], "stop_reason": "tool_use"});
        assert_eq!(read_whole(Wire::Anthropic, body.to_string().as_bytes()).blocks.len(), 1);
        assert!(!is_blank(&json!({"text": "", "thoughtSignature": "x"})));
    }

    #[test]
    fn ends_of_answers() {
        for (word, expected) in [
            ("length", Stop::Length),
            ("max_tokens", Stop::Length),
            ("refusal", Stop::Refused),
            ("SAFETY", Stop::Refused),
            ("end_turn", Stop::End),
            ("pause_turn", Stop::Other("pause_turn".into())),
        ] {
            assert_eq!(stop_of(Some(word), false), expected);
        }
        assert_eq!((stop_of(None, true), stop_of(Some("stop"), true)), (Stop::Tools, Stop::Tools));
    }
}
