//! What of a request's body the gateway must know, and the edits that it may make: both without touching any other byte.

use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;

use crate::Endpoint;

/// Why a body cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RequestError {
    /// It is no JSON object, or names something twice.
    #[error("the body is not a JSON object that can be read: {0}")]
    Json(String),
    /// It names no model.
    #[error("the body names no model: `model` is to be a text")]
    NoModel,
}

/// What is known of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestFacts {
    /// The model, as the client names it.
    pub model: String,
    /// Whether the answer is to be a stream.
    pub stream: bool,
    /// Most tokens that the model may write, where the client says so.
    pub max_output_tokens: Option<u64>,
    /// Whether it goes on with what the provider keeps, so that no other provider could answer it.
    pub is_stateful: bool,
    /// Where the model's value stands in the body, with its quotes; `None` when the path names the model.
    model_at: Option<Range<usize>>,
    /// What to do so that a stream of Chat Completions tells its tokens.
    usage: UsageAsked,
}

/// Whether a stream of Chat Completions will tell its tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
enum UsageAsked {
    /// It will, or it is no such stream.
    Yes,
    /// There are no options; they go in here, before the closing brace.
    Insert { at: usize },
    /// There are some without it, which this replaces.
    Replace { at: Range<usize>, by: String },
}

/// The members that matter; all others are passed over. A member that is there twice is an error: the provider might take the other one.
#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    model: Option<&'a RawValue>,
    #[serde(borrow)]
    stream: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    stream_options: Option<&'a RawValue>,
    #[serde(borrow)]
    max_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    max_completion_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    max_output_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    previous_response_id: Option<&'a RawValue>,
    #[serde(borrow)]
    conversation: Option<&'a RawValue>,
    #[serde(borrow, rename = "generationConfig")]
    generation_config: Option<&'a RawValue>,
    #[serde(borrow, rename = "cachedContent")]
    cached_content: Option<&'a RawValue>,
}

/// A member that is there, also when it is null: what goes into the body must take its place.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

#[derive(Deserialize, Default)]
struct GenerationConfig {
    #[serde(default, rename = "maxOutputTokens")]
    max_output_tokens: Option<u64>,
}

const INCLUDE_USAGE: &str = r#""include_usage":true"#;

impl RequestFacts {
    /// Reads the body of a request to `endpoint`; `path_model` is the model that its path names.
    ///
    /// # Errors
    /// When it is no JSON object that names a model.
    pub fn read(endpoint: Endpoint, path_model: Option<&str>, body: &[u8]) -> Result<Self, RequestError> {
        let text = std::str::from_utf8(body)
            .map_err(|error| RequestError::Json(format!("not UTF-8 at byte {}", error.valid_up_to())))?;
        let read: Body<'_> =
            serde_json::from_str(text).map_err(|error| RequestError::Json(error.to_string()))?;
        let place = |raw: &RawValue| {
            let at = raw.get().as_ptr() as usize - text.as_ptr() as usize;
            at..at + raw.get().len()
        };
        let (model, model_at) = match (path_model, read.model) {
            (Some(model), _) => (model.to_owned(), None),
            (None, Some(raw)) => {
                let name: String = serde_json::from_str(raw.get()).map_err(|_| RequestError::NoModel)?;
                (name, Some(place(raw)))
            }
            (None, None) => return Err(RequestError::NoModel),
        };
        let is_set = |raw: Option<&RawValue>| raw.is_some_and(|raw| raw.get() != "null");
        let number = |raw: Option<&RawValue>| raw.and_then(|raw| serde_json::from_str::<u64>(raw.get()).ok());
        let stream = match endpoint {
            Endpoint::StreamGenerateContent => true,
            _ => read.stream.is_some_and(|raw| raw.get() == "true"),
        };
        let of_config = read
            .generation_config
            .and_then(|raw| serde_json::from_str::<GenerationConfig>(raw.get()).ok())
            .and_then(|config| config.max_output_tokens);
        let max_output_tokens = number(read.max_completion_tokens)
            .or_else(|| number(read.max_output_tokens))
            .or_else(|| number(read.max_tokens))
            .or(of_config);
        let usage = match (endpoint, stream) {
            (Endpoint::ChatCompletions, true) => usage_asked(text, read.stream_options, place),
            _ => UsageAsked::Yes,
        };
        let is_stateful =
            is_set(read.previous_response_id) || is_set(read.conversation) || is_set(read.cached_content);
        Ok(Self { model, stream, max_output_tokens, is_stateful, model_at, usage })
    }

    /// Those of a request without a body.
    pub fn of_nothing() -> Self {
        Self {
            model: String::new(),
            stream: false,
            max_output_tokens: None,
            is_stateful: false,
            model_at: None,
            usage: UsageAsked::Yes,
        }
    }

    /// Whether the body that goes to the provider asks for a chunk that the client did not ask for ([`crate::Meter::new`]).
    pub fn adds_usage(&self) -> bool {
        self.usage != UsageAsked::Yes
    }

    /// The body as it goes to the provider: the model's name is `model`, a stream tells its tokens, and every other byte is as it was.
    pub fn rewrite(&self, body: &[u8], model: &str) -> Vec<u8> {
        let mut edits: Vec<(Range<usize>, String)> = Vec::with_capacity(2);
        if let Some(at) = self.model_at.clone().filter(|_| model != self.model) {
            edits.push((at, serde_json::Value::from(model).to_string()));
        }
        match &self.usage {
            UsageAsked::Yes => {}
            UsageAsked::Insert { at } => {
                edits.push((*at..*at, format!(r#","stream_options":{{{INCLUDE_USAGE}}}"#)));
            }
            UsageAsked::Replace { at, by } => edits.push((at.clone(), by.clone())),
        }
        edits.sort_by_key(|(at, _)| at.start);
        let mut written = Vec::with_capacity(body.len() + 64);
        let mut from = 0;
        for (at, text) in edits {
            written.extend_from_slice(&body[from..at.start]);
            written.extend_from_slice(text.as_bytes());
            from = at.end;
        }
        written.extend_from_slice(&body[from..]);
        written
    }
}

fn usage_asked(
    text: &str,
    options: Option<&RawValue>,
    place: impl Fn(&RawValue) -> Range<usize>,
) -> UsageAsked {
    let Some(raw) = options else {
        // An object that names a model is not empty, so that a comma is right.
        return text.rfind('}').map_or(UsageAsked::Yes, |at| UsageAsked::Insert { at });
    };
    match serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(raw.get()) {
        Ok(mut known) => match known.get("include_usage") {
            Some(serde_json::Value::Bool(true)) => UsageAsked::Yes,
            _ => {
                known.insert("include_usage".to_owned(), true.into());
                UsageAsked::Replace { at: place(raw), by: serde_json::Value::from(known).to_string() }
            }
        },
        Err(_) if raw.get() == "null" => {
            UsageAsked::Replace { at: place(raw), by: format!("{{{INCLUDE_USAGE}}}") }
        }
        // What it is, the provider will tell.
        Err(_) => UsageAsked::Yes,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chat(body: &str) -> Result<RequestFacts, RequestError> {
        RequestFacts::read(Endpoint::ChatCompletions, None, body.as_bytes())
    }

    #[test]
    fn the_model_is_replaced_in_place_and_nothing_else() {
        let body = "{ \"x\" : [1,  2.50, \"\\u00e9\"],\n\t\"model\"\t: \"openai\\/gpt-5\" , \"unknown\":{\"model\":\"inner\"} }";
        let facts = chat(body).expect("a request");
        assert_eq!(facts.model, "openai/gpt-5");
        let written = String::from_utf8(facts.rewrite(body.as_bytes(), "gpt-5")).expect("UTF-8");
        assert_eq!(written, body.replace("\"openai\\/gpt-5\"", "\"gpt-5\""));
        assert_eq!(facts.rewrite(body.as_bytes(), "openai/gpt-5"), body.as_bytes());
    }

    #[test]
    fn a_stream_of_chat_completions_is_made_to_tell_its_tokens() {
        for (options, written, adds) in [
            ("", r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#, true),
            (
                r#","stream_options":{"include_usage":true}"#,
                r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#,
                false,
            ),
            (
                r#","stream_options":{"include_usage":false,"x":1}"#,
                r#"{"model":"m","stream":true,"stream_options":{"include_usage":true,"x":1}}"#,
                true,
            ),
            (
                r#","stream_options":null"#,
                r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#,
                true,
            ),
        ] {
            let body = format!(r#"{{"model":"m","stream":true{options}}}"#);
            let facts = chat(&body).expect("a request");
            assert_eq!(facts.adds_usage(), adds, "{body}");
            assert_eq!(String::from_utf8(facts.rewrite(body.as_bytes(), "m")).expect("UTF-8"), written);
        }
        let plain = r#"{"model":"m","stream":false}"#;
        assert_eq!(chat(plain).expect("a request").rewrite(plain.as_bytes(), "m"), plain.as_bytes());
    }

    #[test]
    fn what_cannot_be_read_the_same_by_everybody_is_refused() {
        for body in [
            "",
            "[]",
            "{\"model\":\"a\",\"model\":\"b\"}",
            "{\"stream\":true,\"model\":\"a\",\"stream\":false}",
            "{\"model\":\"a\"} x",
            "{\"model\":7}",
            "{}",
            "{\"model\":\"\\ud800\"}",
        ] {
            assert!(chat(body).is_err(), "{body}");
        }
        assert!(RequestFacts::read(Endpoint::Messages, None, b"{\"model\":\"\xff\"}").is_err());
        let deep = format!("{{\"model\":\"m\",\"x\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        let _ = chat(&deep);
    }

    #[test]
    fn what_a_request_asks_for() {
        let facts = |endpoint, model, body: &str| {
            RequestFacts::read(endpoint, model, body.as_bytes()).expect("a request")
        };
        let messages = facts(Endpoint::Messages, None, r#"{"model":"c","max_tokens":12,"stream":true}"#);
        assert_eq!(
            (messages.max_output_tokens, messages.stream, messages.is_stateful),
            (Some(12), true, false)
        );
        let responses = facts(
            Endpoint::Responses,
            None,
            r#"{"model":"c","max_output_tokens":9,"previous_response_id":"r"}"#,
        );
        assert_eq!((responses.max_output_tokens, responses.is_stateful), (Some(9), true));
        let gemini = facts(
            Endpoint::StreamGenerateContent,
            Some("g"),
            r#"{"generationConfig":{"maxOutputTokens":5},"contents":[]}"#,
        );
        assert_eq!((gemini.model.as_str(), gemini.max_output_tokens, gemini.stream), ("g", Some(5), true));
    }

    proptest! {
        #[test]
        fn no_body_panics(body in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(facts) = RequestFacts::read(Endpoint::ChatCompletions, None, &body) {
                let _ = facts.rewrite(&body, "other");
            }
        }

        /// Whatever a body has, a rewritten one says the same but for the model and the option.
        #[test]
        fn a_rewritten_body_says_the_same(
            keys in prop::collection::btree_map("[a-z]{1,6}", "[ -~é]{0,12}", 0..6),
            stream in any::<bool>(),
            model in "[a-z/\\\\\"]{1,9}",
        ) {
            let mut object = serde_json::Map::new();
            for (key, text) in keys {
                object.insert(key, text.into());
            }
            object.remove("model");
            object.insert("model".into(), model.into());
            object.insert("stream".into(), stream.into());
            let body = serde_json::Value::from(object.clone()).to_string();
            if let Ok(facts) = chat(&body) {
                let written = facts.rewrite(body.as_bytes(), "other");
                let mut back: serde_json::Map<String, serde_json::Value> =
                    serde_json::from_slice(&written).expect("JSON");
                back.remove("stream_options");
                object.insert("model".into(), "other".into());
                prop_assert_eq!(back, object);
            }
        }
    }
}
