//! An answer that is no stream: which tokens it tells, and what went wrong.

use serde_json::Value;
use toka_core::Tokens;

use crate::{Wire, usage};

/// What is known of a whole answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Tokens, as the provider tells them.
    pub tokens: Tokens,
    /// Calls of tools.
    pub tool_calls: u32,
    /// What went wrong, in the provider's words.
    pub error: Option<String>,
}

/// Longest text of a provider's error that is kept, in characters.
const MAX_WORDS: usize = 500;

/// Reads a whole answer. What is no JSON tells nothing.
pub fn read(wire: Wire, body: &[u8]) -> Answer {
    let Ok(value) = serde_json::from_slice::<Value>(body) else { return Answer::default() };
    // Gemini streams a list of answers where nobody asked for events; the last one has the figures.
    let parts: &[Value] = match &value {
        Value::Array(parts) => parts,
        one => std::slice::from_ref(one),
    };
    let mut answer = Answer::default();
    for part in parts {
        let usage = part.get(if wire == Wire::Gemini { "usageMetadata" } else { "usage" });
        if let Some(usage) = usage {
            answer.tokens.update(&usage::tokens(wire, usage));
        }
        answer.tool_calls += tool_calls(wire, part);
        if let Some(error) = part.get("error").filter(|error| !error.is_null()) {
            answer.error = Some(words_of(error));
        }
    }
    answer
}

fn tool_calls(wire: Wire, value: &Value) -> u32 {
    let list =
        |value: &Value, key: &str| value.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let is =
        |value: &Value, kind: fn(&str) -> bool| value.get("type").and_then(Value::as_str).is_some_and(kind);
    let count = match wire {
        Wire::OpenAiChat => list(value, "choices")
            .iter()
            .filter_map(|choice| choice.get("message"))
            .map(|message| list(message, "tool_calls").len())
            .sum(),
        Wire::OpenAiResponses => {
            list(value, "output").iter().filter(|item| is(item, |kind| kind.ends_with("_call"))).count()
        }
        Wire::Anthropic => {
            list(value, "content").iter().filter(|block| is(block, |kind| kind == "tool_use")).count()
        }
        Wire::Gemini => list(value, "candidates")
            .iter()
            .filter_map(|candidate| candidate.get("content"))
            .flat_map(|content| list(content, "parts"))
            .filter(|part| part.get("functionCall").is_some())
            .count(),
    };
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// The words of a provider's error: its message, or what there is in its place.
pub fn words_of(error: &Value) -> String {
    let words = match error {
        Value::String(text) => text.clone(),
        error => match error.get("message").and_then(Value::as_str) {
            Some(message) => message.to_owned(),
            None => error.to_string(),
        },
    };
    match words.char_indices().nth(MAX_WORDS) {
        Some((at, _)) => format!("{}…", &words[..at]),
        None => words,
    }
}

/// The words of the body of a refusal.
pub fn words_of_body(body: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let value = match &value {
        Value::Array(parts) => parts.first()?,
        one => one,
    };
    value.get("error").filter(|error| !error.is_null()).map(words_of)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tokens_and_calls_of_whole_answers() {
        for (wire, body) in [
            (
                Wire::OpenAiChat,
                json!({"choices": [{"message": {"tool_calls": [{}, {}]}}], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}),
            ),
            (
                Wire::OpenAiResponses,
                json!({"output": [{"type": "function_call"}, {"type": "web_search_call"}, {"type": "message"}],
                    "usage": {"input_tokens": 3, "output_tokens": 2}}),
            ),
            (
                Wire::Anthropic,
                json!({"content": [{"type": "tool_use"}, {"type": "text"}, {"type": "tool_use"}],
                    "usage": {"input_tokens": 3, "output_tokens": 2}}),
            ),
            (
                Wire::Gemini,
                json!([{"candidates": [{"content": {"parts": [{"functionCall": {}}, {"functionCall": {}}]}}]},
                    {"usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 2}}]),
            ),
        ] {
            let answer = read(wire, body.to_string().as_bytes());
            assert_eq!((answer.tokens.input, answer.tokens.output), (Some(3), Some(2)), "{wire}");
            assert_eq!((answer.tool_calls, answer.error), (2, None), "{wire}");
        }
    }

    #[test]
    fn the_words_of_a_refusal() {
        for (body, words) in [
            (r#"{"error":{"message":"no such model","type":"x"}}"#, Some("no such model")),
            (r#"{"type":"error","error":{"type":"x","message":"busy"}}"#, Some("busy")),
            (r#"[{"error":{"code":400,"message":"bad"}}]"#, Some("bad")),
            (r#"{"error":"plain"}"#, Some("plain")),
            (r#"{"error":{"code":1}}"#, Some(r#"{"code":1}"#)),
            ("<html>", None),
            ("[]", None),
        ] {
            assert_eq!(words_of_body(body.as_bytes()).as_deref(), words, "{body}");
        }
        let long = json!({"error": {"message": "é".repeat(2000)}}).to_string();
        assert_eq!(words_of_body(long.as_bytes()).map(|words| words.chars().count()), Some(MAX_WORDS + 1));
    }
}
