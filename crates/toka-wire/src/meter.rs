//! What a stream of a model says of itself, frame by frame, without a byte of it being changed.

use serde_json::Value;
use toka_core::Tokens;

use crate::sse::Event;
use crate::{Wire, answer, usage};

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// It has something of the answer: text, reasoning, a call of a tool.
    Content,
    /// It says something about the answer.
    Other,
    /// It only keeps the connection open.
    Ping,
    /// With it the answer is whole.
    End,
    /// An error.
    Error,
    /// Only the gateway asked for it: the client must not get it.
    Withheld,
}

/// What is known of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Tokens, as the provider told them last.
    pub tokens: Tokens,
    /// Whether the answer is whole.
    pub is_whole: bool,
    /// Whether there was any content.
    pub has_content: bool,
    /// Bytes of content: what an estimate of a cut answer is made from.
    pub content_bytes: u64,
    /// Calls of tools.
    pub tool_calls: u32,
    /// What the provider says went wrong, in its words.
    pub error: Option<String>,
}

/// Reads along with one stream.
#[derive(Debug)]
pub struct Meter {
    wire: Wire,
    /// The gateway asked for the tokens of a stream of Chat Completions, and the client did not.
    withholds: bool,
    /// Choices of Chat Completions that were seen, and those that are finished, by bits.
    choices: (u64, u64),
    progress: Progress,
}

impl Meter {
    /// Of a stream in this language. `adds_usage` is [`crate::RequestFacts::adds_usage`] of its request.
    pub fn new(wire: Wire, adds_usage: bool) -> Self {
        Self {
            wire,
            withholds: adds_usage && wire == Wire::OpenAiChat,
            choices: (0, 0),
            progress: Progress::default(),
        }
    }

    /// What is known so far.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Reads one frame of the stream ([`crate::sse::Splitter`]).
    pub fn observe(&mut self, frame: &[u8]) -> Frame {
        let event = Event::read(frame);
        let Some(data) = event.data else { return Frame::Ping };
        if data == "[DONE]" {
            self.progress.is_whole = true;
            return Frame::End;
        }
        // What is no JSON goes on as it came: the client has to judge it.
        let Ok(value) = serde_json::from_str::<Value>(&data) else { return Frame::Other };
        let frame = match self.wire {
            Wire::OpenAiChat => self.chat(&value),
            Wire::OpenAiResponses => self.responses(&event.name, &value),
            Wire::Anthropic => self.anthropic(&event.name, &value),
            Wire::Gemini => self.gemini(&value),
        };
        if frame == Frame::Content {
            self.progress.has_content = true;
            self.progress.content_bytes += said_bytes(&value);
        }
        frame
    }

    fn failed(&mut self, error: &Value) -> Frame {
        self.progress.error = Some(answer::words_of(error));
        Frame::Error
    }

    fn take_tokens(&mut self, usage: Option<&Value>) {
        if let Some(usage) = usage.filter(|usage| usage.is_object()) {
            self.progress.tokens.update(&usage::tokens(self.wire, usage));
        }
    }

    fn chat(&mut self, value: &Value) -> Frame {
        if let Some(error) = value.get("error").filter(|error| !error.is_null()) {
            return self.failed(error);
        }
        let usage = value.get("usage").filter(|usage| usage.is_object());
        self.take_tokens(usage);
        let choices = value.get("choices").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        if choices.is_empty() {
            return if usage.is_some() && self.withholds { Frame::Withheld } else { Frame::Other };
        }
        let mut content = false;
        for choice in choices {
            let delta = choice.get("delta").unwrap_or(&Value::Null);
            // Not the role: it comes before there is anything.
            let says = |key: &str| delta.get(key).is_some_and(|value| !is_empty(value));
            content |= [
                "content",
                "tool_calls",
                "function_call",
                "reasoning_content",
                "reasoning",
                "refusal",
                "audio",
            ]
            .into_iter()
            .any(says);
            let begun = delta.get("tool_calls").and_then(Value::as_array).into_iter().flatten();
            self.progress.tool_calls +=
                begun.filter(|call| call.get("id").is_some_and(|id| !is_empty(id))).count() as u32;
            let index = choice.get("index").and_then(Value::as_u64).unwrap_or(0).min(63);
            let is_finished = choice.get("finish_reason").is_some_and(|reason| !reason.is_null());
            self.choices.0 |= 1 << index;
            self.choices.1 |= u64::from(is_finished) << index;
        }
        // A server that never says [DONE] is whole by this.
        self.progress.is_whole = self.choices.0 == self.choices.1;
        if content { Frame::Content } else { Frame::Other }
    }

    fn responses(&mut self, name: &str, value: &Value) -> Frame {
        let kind = value.get("type").and_then(Value::as_str).unwrap_or(name);
        let response = value.get("response");
        self.take_tokens(response.and_then(|response| response.get("usage")));
        match kind {
            "response.completed" | "response.incomplete" => {
                self.progress.is_whole = true;
                Frame::End
            }
            "response.failed" => {
                let error = response.and_then(|response| response.get("error")).unwrap_or(value);
                self.failed(error)
            }
            "error" => {
                let error = value.get("error").unwrap_or(value);
                self.failed(error)
            }
            "response.output_item.added" => {
                let item = value.get("item").and_then(|item| item.get("type")).and_then(Value::as_str);
                if item.is_some_and(|kind| kind.ends_with("_call")) {
                    self.progress.tool_calls += 1;
                }
                Frame::Other
            }
            kind if kind.ends_with(".delta") => Frame::Content,
            _ => Frame::Other,
        }
    }

    fn anthropic(&mut self, name: &str, value: &Value) -> Frame {
        match value.get("type").and_then(Value::as_str).unwrap_or(name) {
            "message_start" => {
                self.take_tokens(value.get("message").and_then(|message| message.get("usage")));
                Frame::Other
            }
            "message_delta" => {
                self.take_tokens(value.get("usage"));
                Frame::Other
            }
            "content_block_start" => {
                let kind = value.get("content_block").and_then(|block| block.get("type"));
                if kind.and_then(Value::as_str) == Some("tool_use") {
                    self.progress.tool_calls += 1;
                    return Frame::Content;
                }
                Frame::Other
            }
            "content_block_delta" => Frame::Content,
            "message_stop" => {
                self.progress.is_whole = true;
                Frame::End
            }
            "ping" => Frame::Ping,
            "error" => {
                let error = value.get("error").unwrap_or(value);
                self.failed(error)
            }
            _ => Frame::Other,
        }
    }

    fn gemini(&mut self, value: &Value) -> Frame {
        if let Some(error) = value.get("error") {
            return self.failed(error);
        }
        self.take_tokens(value.get("usageMetadata"));
        let blocked = value.get("promptFeedback").and_then(|feedback| feedback.get("blockReason"));
        self.progress.is_whole |= blocked.is_some();
        let mut content = false;
        for candidate in value.get("candidates").and_then(Value::as_array).into_iter().flatten() {
            let parts = candidate.get("content").and_then(|content| content.get("parts"));
            for part in parts.and_then(Value::as_array).into_iter().flatten() {
                content = true;
                if part.get("functionCall").is_some() {
                    self.progress.tool_calls += 1;
                }
            }
            self.progress.is_whole |= candidate.get("finishReason").is_some_and(|reason| !reason.is_null());
        }
        match (content, self.progress.is_whole) {
            (true, _) => Frame::Content,
            (false, true) => Frame::End,
            (false, false) => Frame::Other,
        }
    }
}

impl Progress {
    /// The tokens of an answer that broke off, from what is known: about four bytes are a token. What the provider told counts where it
    /// is more.
    pub fn estimate(&self, request_bytes: u64) -> Tokens {
        let mut tokens = self.tokens;
        let written = self.content_bytes.div_ceil(4);
        tokens.output = Some(tokens.output.unwrap_or(0).max(written));
        if tokens.read() == 0 {
            tokens.input = Some(request_bytes.div_ceil(4));
        }
        tokens
    }
}

/// Bytes of texts in a frame, without those that only name something.
fn said_bytes(value: &Value) -> u64 {
    const NAMES: [&str; 9] =
        ["type", "id", "item_id", "object", "model", "modelVersion", "responseId", "role", "obfuscation"];
    match value {
        Value::String(text) => text.len() as u64,
        Value::Array(items) => items.iter().map(said_bytes).sum(),
        Value::Object(members) => {
            let said = members.iter().filter(|(name, _)| !NAMES.contains(&name.as_str()));
            said.map(|(_, value)| said_bytes(value)).sum()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(wire: Wire, adds_usage: bool, data: &[&str]) -> (Vec<Frame>, Progress) {
        let mut meter = Meter::new(wire, adds_usage);
        let frames = data.iter().map(|data| meter.observe(data.as_bytes())).collect();
        (frames, meter.progress().clone())
    }

    #[test]
    fn chat_completions() {
        let stream = [
            "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n",
            "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}],\"usage\":null}\n\n",
            "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"c\",\"function\":{\"name\":\"f\"}}]}}]}\n\n",
            "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\n",
            "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":3}}\n\n",
            "data: [DONE]\n\n",
        ];
        let (found, progress) = frames(Wire::OpenAiChat, true, &stream);
        use Frame::{Content, End, Other, Withheld};
        assert_eq!(found, [Other, Content, Content, Other, Withheld, End]);
        assert_eq!((progress.tokens.input, progress.tokens.output), (Some(9), Some(3)));
        assert_eq!((progress.tool_calls, progress.is_whole), (1, true));
        let (found, _) = frames(Wire::OpenAiChat, false, &stream);
        assert_eq!(found[4], Other, "the client asked for it");
    }

    #[test]
    fn responses() {
        let (found, progress) = frames(
            Wire::OpenAiResponses,
            false,
            &[
                "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"usage\":null}}\n\n",
                "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"x\"}\n\n",
                "event: response.output_item.added\ndata: {\"type\":\"response.output_item.added\",\"item\":{\"type\":\"function_call\"}}\n\n",
                "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"usage\":{\"input_tokens\":4,\"output_tokens\":2}}}\n\n",
            ],
        );
        use Frame::{Content, End, Other};
        assert_eq!(found, [Other, Content, Other, End]);
        assert_eq!((progress.tokens.output, progress.tool_calls), (Some(2), 1));
    }

    #[test]
    fn messages() {
        let (found, progress) = frames(
            Wire::Anthropic,
            false,
            &[
                "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":5,\"cache_read_input_tokens\":7,\"output_tokens\":1}}}\n\n",
                "event: ping\ndata: {\"type\":\"ping\"}\n\n",
                "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"content_block\":{\"type\":\"tool_use\"}}\n\n",
                "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"x\"}}\n\n",
                "event: message_delta\ndata: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":8}}\n\n",
                "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
            ],
        );
        use Frame::{Content, End, Other, Ping};
        assert_eq!(found, [Other, Ping, Content, Content, Other, End]);
        let tokens = progress.tokens;
        assert_eq!((tokens.input, tokens.cached_read, tokens.output), (Some(5), Some(7), Some(8)));
    }

    #[test]
    fn gemini() {
        let (found, progress) = frames(
            Wire::Gemini,
            false,
            &[
                "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"x\"}]}}]}\r\n\r\n",
                "data: {\"candidates\":[{\"content\":{\"parts\":[{\"functionCall\":{\"name\":\"f\"}}]},\"finishReason\":\"STOP\"}],\"usageMetadata\":{\"promptTokenCount\":3,\"candidatesTokenCount\":2}}\r\n\r\n",
            ],
        );
        assert_eq!(found, [Frame::Content, Frame::Content]);
        assert_eq!((progress.is_whole, progress.tool_calls, progress.tokens.output), (true, 1, Some(2)));
    }

    #[test]
    fn an_error_in_a_stream_is_seen_in_every_language() {
        for (wire, frame) in [
            (
                Wire::OpenAiChat,
                "data: {\"error\":{\"message\":\"overloaded\",\"type\":\"server_error\"}}\n\n",
            ),
            (
                Wire::OpenAiResponses,
                "event: error\ndata: {\"type\":\"error\",\"message\":\"overloaded\"}\n\n",
            ),
            (
                Wire::OpenAiResponses,
                "data: {\"type\":\"response.failed\",\"response\":{\"error\":{\"message\":\"overloaded\"}}}\n\n",
            ),
            (
                Wire::Anthropic,
                "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"overloaded\"}}\n\n",
            ),
            (Wire::Gemini, "data: {\"error\":{\"code\":503,\"message\":\"overloaded\"}}\n\n"),
        ] {
            let (found, progress) = frames(wire, false, &[frame]);
            assert_eq!(
                (found, progress.error.as_deref()),
                (vec![Frame::Error], Some("overloaded")),
                "{frame}"
            );
        }
    }

    #[test]
    fn what_is_no_event_goes_on_and_says_nothing() {
        for wire in Wire::ALL {
            for frame in [
                &b"data: {broken\n\n"[..],
                b": comment\n\n",
                b"\n",
                b"data: \xff\xfe\n\n",
                b"data: [1,2]\n\n",
            ] {
                let mut meter = Meter::new(wire, true);
                let found = meter.observe(frame);
                assert!(matches!(found, Frame::Other | Frame::Ping), "{wire} {frame:?}: {found:?}");
                assert!(!meter.progress().is_whole);
            }
        }
    }
}
