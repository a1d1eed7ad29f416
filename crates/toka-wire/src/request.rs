//! What of a request's body the gateway must know, and the edits that it may make: both without touching any other byte.

use std::fmt;
use std::ops::Range;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
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
    /// Its model's name is none.
    #[error(
        "the name of the model has more than {MOST_OF_A_NAME} bytes, or something in it that no name has"
    )]
    BadModel,
    /// A member has a value that Toka must know and cannot read.
    #[error("`{0}` has a value that it cannot have")]
    BadMember(&'static str),
    /// The answer would be made after the end of the call.
    #[error("`background` is not passed on: what is answered later cannot be counted")]
    Background,
}

/// Longest name of a model, in bytes.
pub(crate) const MOST_OF_A_NAME: usize = 256;

/// Whether a text can be the name of a model.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MOST_OF_A_NAME
        && !text.chars().any(|c| c.is_control() || c.is_whitespace())
}

/// What is known of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestFacts {
    /// The model, as the client names it.
    pub model: String,
    /// Whether the answer is to be a stream.
    pub stream: bool,
    /// Most tokens that the model may write into each answer, where the client says so; the greatest number where it says several.
    pub max_output_tokens: Option<u64>,
    /// How many answers it asks for at once.
    pub answers: u64,
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

/// The members that matter; all others are passed over.
const MEMBERS: [&str; 13] = [
    "model",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "previous_response_id",
    "conversation",
    "generationConfig",
    "generation_config",
    "cachedContent",
    "background",
    "n",
];

/// What stands in a body of those. A member that is there twice is an error, also when it is spelled with other capitals: some readers of
/// JSON take it for the same, and the provider's might take the other one.
struct Body<'a>([Option<&'a RawValue>; MEMBERS.len()]);

impl<'a> Body<'a> {
    fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0[MEMBERS.iter().position(|known| *known == name)?]
    }
}

impl<'de> Deserialize<'de> for Body<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfObject;

        impl<'de> Visitor<'de> for OfObject {
            type Value = Body<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut found = [None; MEMBERS.len()];
                while let Some(key) = map.next_key::<String>()? {
                    let Some(at) = MEMBERS.iter().position(|known| key.eq_ignore_ascii_case(known)) else {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    };
                    if key != MEMBERS[at] {
                        let message = format!("it has `{key}`, which some take for `{}`", MEMBERS[at]);
                        return Err(serde::de::Error::custom(message));
                    }
                    if found[at].replace(map.next_value::<&RawValue>()?).is_some() {
                        return Err(serde::de::Error::duplicate_field(MEMBERS[at]));
                    }
                }
                Ok(Body(found))
            }
        }

        deserializer.deserialize_map(OfObject)
    }
}

#[derive(Deserialize, Default)]
struct GenerationConfig {
    #[serde(default, rename = "maxOutputTokens", alias = "max_output_tokens")]
    max_output_tokens: Option<u64>,
    #[serde(default, rename = "candidateCount", alias = "candidate_count")]
    candidate_count: Option<u64>,
}

/// What a request says of the length of its answers.
struct Limits;

impl Limits {
    /// Most tokens of each answer, and how many answers there are: of the members that the endpoint has, for others are passed over by
    /// providers, too.
    fn read(endpoint: Endpoint, body: &Body<'_>) -> Result<(Option<u64>, u64), RequestError> {
        let number = |name: &'static str| match body.get(name) {
            None => Ok(None),
            Some(raw) => {
                serde_json::from_str::<Option<u64>>(raw.get()).map_err(|_| RequestError::BadMember(name))
            }
        };
        match endpoint {
            Endpoint::ChatCompletions => {
                let most = number("max_completion_tokens")?.max(number("max_tokens")?);
                Ok((most, number("n")?.unwrap_or(1)))
            }
            Endpoint::Responses => Ok((number("max_output_tokens")?, 1)),
            Endpoint::GenerateContent | Endpoint::StreamGenerateContent => {
                let raw = match (body.get("generationConfig"), body.get("generation_config")) {
                    (Some(_), Some(_)) => return Err(RequestError::BadMember("generation_config")),
                    (raw, other) => raw.or(other),
                };
                let config = raw.map_or_else(
                    || Ok(None),
                    |raw| serde_json::from_str::<Option<GenerationConfig>>(raw.get()),
                );
                let config =
                    config.map_err(|_| RequestError::BadMember("generationConfig"))?.unwrap_or_default();
                Ok((config.max_output_tokens, config.candidate_count.unwrap_or(1)))
            }
            _ => Ok((number("max_tokens")?, 1)),
        }
        .map(|(most, answers)| (most, answers.max(1)))
    }
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
        let (model, model_at) = match (path_model, read.get("model")) {
            (Some(model), _) => (model.to_owned(), None),
            (None, Some(raw)) => {
                let name: String = serde_json::from_str(raw.get()).map_err(|_| RequestError::NoModel)?;
                (name, Some(place(raw)))
            }
            (None, None) => return Err(RequestError::NoModel),
        };
        if !is_name(&model) {
            return Err(RequestError::BadModel);
        }
        let is_set = |raw: Option<&RawValue>| raw.is_some_and(|raw| raw.get() != "null");
        let stream = match endpoint {
            Endpoint::StreamGenerateContent => true,
            _ => match read.get("stream").map(RawValue::get) {
                Some("true") => true,
                None | Some("false" | "null") => false,
                Some(_) => return Err(RequestError::BadMember("stream")),
            },
        };
        if read.get("background").is_some_and(|raw| !matches!(raw.get(), "false" | "null")) {
            return Err(RequestError::Background);
        }
        let (max_output_tokens, answers) = Limits::read(endpoint, &read)?;
        let usage = match (endpoint, stream) {
            (Endpoint::ChatCompletions, true) => usage_asked(text, read.get("stream_options"), place)?,
            _ => UsageAsked::Yes,
        };
        let is_stateful = ["previous_response_id", "conversation", "cachedContent"]
            .iter()
            .any(|name| is_set(read.get(name)));
        Ok(Self { model, stream, max_output_tokens, answers, is_stateful, model_at, usage })
    }

    /// Those of a request without a body.
    pub fn of_nothing() -> Self {
        Self {
            model: String::new(),
            stream: false,
            max_output_tokens: None,
            answers: 1,
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
) -> Result<UsageAsked, RequestError> {
    let Some(raw) = options else {
        // An object that names a model is not empty, so that a comma is right.
        return Ok(text.rfind('}').map_or(UsageAsked::Yes, |at| UsageAsked::Insert { at }));
    };
    Ok(match serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(raw.get()) {
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
        Err(_) => return Err(RequestError::BadMember("stream_options")),
    })
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
            "{\"model\":\"a\",\"MODEL\":\"b\"}",
            "[\"a\",null,null,null,null,null,null,null,null,null,null]",
            "{\"model\":\"a\",\"stream\":1}",
            "{\"model\":\"a\",\"stream\":true,\"stream_options\":{\"x\":1e400}}",
            "{\"model\":\"a\",\"background\":true}",
            "{\"model\":\"a b\"}",
            "{\"model\":\"\"}",
        ] {
            assert!(chat(body).is_err(), "{body}");
        }
        assert!(RequestFacts::read(Endpoint::Messages, None, b"{\"model\":\"\xff\"}").is_err());
        let long = format!("{{\"model\":\"{}\"}}", "m".repeat(MOST_OF_A_NAME + 1));
        assert_eq!(chat(&long), Err(RequestError::BadModel));
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
