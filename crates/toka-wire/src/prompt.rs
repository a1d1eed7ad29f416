//! Where two requests of one conversation differ. Providers keep what they have read of a request, and read it again at a tenth of the
//! price as long as the next request begins with the same; so the first place where one differs decides what is paid in full. Pure.
//!
//! Sources: "Prompt caching" of docs.anthropic.com, platform.openai.com/docs/guides and ai.google.dev/gemini-api/docs: tools come before
//! the instructions, and these before the messages.

use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

use crate::Endpoint;

/// Longest body that is compared.
const MOST: usize = 1024 * 1024;
/// Bytes below which a provider keeps nothing: 1,024 tokens of about four bytes.
const LEAST: usize = 4096;
/// Bytes to a token.
const BYTES_TO_A_TOKEN: u64 = 4;

/// A request, cut at the places between which a provider may keep it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// What comes before the messages, with its names.
    heads: Vec<(&'static str, Box<str>)>,
    /// The name of the list of messages.
    list: &'static str,
    messages: Vec<Box<str>>,
    model: String,
}

/// What one request is to the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Relation {
    /// Another conversation.
    Other,
    /// It begins with all of the one before.
    Continues,
    /// It is the same conversation, and differs before the end of the one before.
    Breaks {
        /// The first place, such as `messages[0].content[1].text at character 118`.
        place: String,
        /// Tokens of the earlier request from there on, estimated from bytes.
        tokens: u64,
    },
}

impl Prompt {
    /// Reads a request to `endpoint` for `model`; `None` for what is no conversation, or too long to be compared.
    pub fn read(endpoint: Endpoint, model: &str, body: &[u8]) -> Option<Self> {
        if body.len() > MOST {
            return None;
        }
        let (names, list): (&[&'static str], &'static str) = match endpoint {
            Endpoint::ChatCompletions => (&["tools"], "messages"),
            Endpoint::Responses => (&["tools", "instructions"], "input"),
            Endpoint::Messages => (&["tools", "system"], "messages"),
            Endpoint::GenerateContent | Endpoint::StreamGenerateContent => {
                (&["tools", "systemInstruction"], "contents")
            }
            _ => return None,
        };
        let read: BTreeMap<String, &RawValue> = serde_json::from_slice(body).ok()?;
        let heads = names.iter().filter_map(|name| Some((*name, Box::from(read.get(*name)?.get()))));
        let messages: Vec<&RawValue> = serde_json::from_str(read.get(list)?.get()).ok()?;
        let messages = messages.into_iter().map(|message| Box::from(message.get())).collect();
        Some(Self { heads: heads.collect(), list, messages, model: model.to_owned() })
    }

    /// Bytes that it takes.
    pub fn size(&self) -> usize {
        let heads = self.heads.iter().map(|(_, text)| text.len());
        heads.chain(self.messages.iter().map(|message| message.len())).sum()
    }

    /// How many messages both begin with.
    pub fn common(&self, next: &Self) -> usize {
        let pairs = self.messages.iter().zip(&next.messages);
        pairs.take_while(|(one, other)| is_same(one, other)).count()
    }

    /// What `next` is to this one.
    pub fn relation(&self, next: &Self) -> Relation {
        let common = self.common(next);
        let is_other = self.model != next.model || self.list != next.list || common == 0;
        if is_other || next.messages.len() < self.messages.len() {
            return Relation::Other;
        }
        let head = |of: &Self, name: &str| {
            of.heads.iter().find(|(known, _)| *known == name).map(|(_, text)| text.clone())
        };
        let names = self.heads.iter().chain(&next.heads).map(|(name, _)| *name);
        let changed = names.into_iter().find(|name| match (head(self, name), head(next, name)) {
            (Some(one), Some(other)) => !is_same(&one, &other),
            (one, other) => one.is_some() != other.is_some(),
        });
        let of_messages: usize = self.messages.iter().map(|message| message.len()).sum();
        let (place, lost) = match changed {
            // One message in common may be chance: programs ask for a title with the words of their first request.
            Some(_) if common < 2 => return Relation::Other,
            Some(name) => {
                let from = self.heads.iter().skip_while(|(known, _)| *known != name);
                let lost = from.map(|(_, text)| text.len()).sum::<usize>() + of_messages;
                (difference(name, head(self, name).as_deref(), head(next, name).as_deref()), lost)
            }
            None if common == self.messages.len() => return Relation::Continues,
            None => {
                let lost = self.messages[common..].iter().map(|message| message.len()).sum();
                let name = format!("{}[{common}]", self.list);
                (difference(&name, Some(&self.messages[common]), Some(&next.messages[common])), lost)
            }
        };
        match lost < LEAST {
            true => Relation::Continues,
            false => Relation::Breaks { place, tokens: lost as u64 / BYTES_TO_A_TOKEN },
        }
    }
}

/// Whether two parts are the same but for the marks that say what is to be kept.
fn is_same(one: &str, other: &str) -> bool {
    one == other || matches!((plain(one), plain(other)), (Some(one), Some(other)) if one == other)
}

/// A part without its marks, and with its content as a list of blocks in each case.
fn plain(text: &str) -> Option<Value> {
    let mut value: Value = serde_json::from_str(text).ok()?;
    unmark(&mut value);
    if let Some(content) = value.get_mut("content")
        && let Value::String(text) = content
    {
        *content = serde_json::json!([{"type": "text", "text": text}]);
    }
    Some(value)
}

fn unmark(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.remove("cache_control");
            map.values_mut().for_each(unmark);
        }
        Value::Array(list) => list.iter_mut().for_each(unmark),
        _ => {}
    }
}

/// The first place where two parts differ.
fn difference(name: &str, one: Option<&str>, other: Option<&str>) -> String {
    let (Some(one), Some(other)) = (one.and_then(plain), other.and_then(plain)) else {
        return name.to_owned();
    };
    let mut place = name.to_owned();
    descend(&one, &other, &mut place);
    place
}

fn descend(one: &Value, other: &Value, place: &mut String) {
    use std::fmt::Write as _;
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            let names = one.keys().chain(other.keys());
            if let Some(name) = names.into_iter().find(|name| one.get(*name) != other.get(*name)) {
                // A name of a tool's own may be long.
                let _ = write!(place, ".{}", name.chars().take(64).collect::<String>());
                if let (Some(one), Some(other)) = (one.get(name), other.get(name)) {
                    descend(one, other, place);
                }
            }
        }
        (Value::Array(one), Value::Array(other)) => {
            let at = one.iter().zip(other).take_while(|(one, other)| one == other).count();
            let _ = write!(place, "[{at}]");
            if let (Some(one), Some(other)) = (one.get(at), other.get(at)) {
                descend(one, other, place);
            }
        }
        (Value::String(one), Value::String(other)) => {
            let at = one.chars().zip(other.chars()).take_while(|(one, other)| one == other).count();
            let _ = write!(place, " at character {at}");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn prompt(body: &Value) -> Prompt {
        Prompt::read(Endpoint::Messages, "m", body.to_string().as_bytes()).expect("a conversation")
    }

    fn of(system: &str, messages: &[&str]) -> Prompt {
        let messages: Vec<Value> =
            messages.iter().map(|text| json!({"role": "user", "content": text})).collect();
        prompt(&json!({"model": "m", "system": system, "tools": [{"name": "run"}], "messages": messages}))
    }

    #[test]
    fn a_conversation_that_grows_goes_on_and_another_is_another() {
        let first = of("be kind", &["a"]);
        assert_eq!(first.relation(&of("be kind", &["a", "b", "c"])), Relation::Continues);
        assert_eq!(first.relation(&first), Relation::Continues);
        assert_eq!(first.relation(&of("be kind", &["x", "b"])), Relation::Other);
        assert_eq!(
            of("s", &["a", "b"]).relation(&of("s", &["a"])),
            Relation::Other,
            "a summary took its place"
        );
        assert_eq!(Prompt::read(Endpoint::Embeddings, "m", b"{\"input\":[]}"), None);
    }

    #[test]
    fn the_first_place_that_differs_is_named_with_what_it_costs() {
        let long = "x".repeat(8000);
        let told = |before: Prompt, next: Prompt| match before.relation(&next) {
            Relation::Breaks { place, tokens } => (place, tokens),
            other => panic!("{other:?}"),
        };
        let (place, tokens) = told(of("it is 10:01", &["a", &long]), of("it is 10:02", &["a", &long, "b"]));
        assert_eq!(place, "system at character 10");
        assert!((2000..2100).contains(&tokens), "{tokens}");
        let changed = format!("{}y{}", "x".repeat(118), "x".repeat(7881));
        let (place, _) = told(of("s", &["a", &long]), of("s", &["a", &changed, "b"]));
        assert_eq!(place, "messages[1].content[0].text at character 118");
        let small = of("s", &["a", "b"]).relation(&of("s", &["a", "c", "d"]));
        assert_eq!(small, Relation::Continues, "a provider keeps nothing so short");
    }

    #[test]
    fn marks_of_what_is_kept_are_no_difference() {
        let text = "x".repeat(8000);
        let marked = json!({"messages": [{"role": "user", "content": [
            {"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}]}]});
        let plain =
            json!({"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "b"}]});
        assert_eq!(prompt(&marked).relation(&prompt(&plain)), Relation::Continues);
    }

    proptest! {
        #[test]
        fn whatever_is_appended_breaks_nothing(texts in proptest::collection::vec(".{0,40}", 1..6), more in proptest::collection::vec(".{0,40}", 0..4)) {
            let all: Vec<&str> = texts.iter().chain(&more).map(String::as_str).collect();
            let (before, next) = (of("s", &all[..texts.len()]), of("s", &all));
            prop_assert_eq!(before.relation(&next), Relation::Continues);
        }

        #[test]
        fn no_body_makes_it_panic(body in ".{0,200}") {
            let _ = Prompt::read(Endpoint::ChatCompletions, "m", body.as_bytes());
        }
    }
}
