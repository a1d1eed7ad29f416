//! Asks another model what it would have done in a session, with the same results of tools: nothing is run. A call that the session made as
//! well gets the result that it gave there; any other is told that nothing is known of it.

use std::collections::VecDeque;

use serde_json::{Map, Value};
use toka_core::transcript::{CallEntry, Entry, EntryKind};
use toka_core::{ModelName, Tokens};
use toka_gateway::Asker;
use toka_wire::said::Call;
use toka_wire::{Assistant, Conversation, Item, ToolDefinition, ToolResult};

use crate::model;

/// What another model is told of a call that the session did not make.
const UNKNOWN: &str = "Nothing is known of this call: the session is repeated from its record, and in that it was not made. Go on with what you know.";

/// What one model did in a session.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct Deeds {
    /// Answers, each with the model that gave it and what that took.
    pub answers: Vec<(ModelName, Tokens)>,
    /// Calls of tools that both made.
    pub shared_calls: usize,
    /// Calls of tools that only this one made.
    pub own_calls: usize,
    /// What it said last.
    pub last: String,
    /// Why it did not come to its end.
    pub broke_off: Option<String>,
}

impl Deeds {
    /// Its tokens, of all answers.
    pub fn tokens(&self) -> Tokens {
        let mut all = Tokens::default();
        self.answers.iter().for_each(|(_, tokens)| all.add(tokens));
        all
    }
}

/// A call and its result, as they are on record.
struct Known {
    call: CallEntry,
    text: String,
    is_error: bool,
    is_taken: bool,
}

/// What the session did itself; `rerun` says which of its calls the other model made as well.
pub fn deeds_of(entries: &[Entry], rerun: &Deeds) -> Deeds {
    let mut deeds = Deeds::default();
    let mut calls = 0;
    for entry in entries {
        match &entry.kind {
            EntryKind::Assistant { model, tokens, text, calls: wanted, .. } => {
                deeds.answers.push((model.clone(), *tokens));
                calls += wanted.len();
                deeds.last.clone_from(text);
            }
            EntryKind::Halted { reason } => deeds.broke_off = Some(reason.clone()),
            EntryKind::Ended { exit, .. } if !exit.is_success() => deeds.broke_off = Some(exit.to_string()),
            EntryKind::Ended { .. } => deeds.broke_off = None,
            _ => {}
        }
    }
    deeds.shared_calls = rerun.shared_calls;
    deeds.own_calls = calls.saturating_sub(rerun.shared_calls);
    deeds
}

/// Asks the first model of `asker`.
///
/// # Errors
/// When it cannot be asked at all.
pub async fn rerun(entries: &[Entry], tools: Vec<ToolDefinition>, asker: &Asker) -> Result<Deeds, String> {
    let (wire, model) = asker.first()?;
    let mut known = known(entries);
    let mut said = inputs(entries);
    let most =
        3 * entries.iter().filter(|entry| matches!(entry.kind, EntryKind::Assistant { .. })).count() + 10;
    let (max_output_tokens, temperature) = settings(entries);
    let mut conversation =
        Conversation { system: system(entries), items: Vec::new(), tools, max_output_tokens, temperature };
    let mut deeds = Deeds::default();
    conversation.items.extend(said.pop_front().into_iter().flatten().map(Item::User));
    loop {
        if deeds.answers.len() == most {
            deeds.broke_off = Some(format!("it has not come to an end in {most} answers"));
            return Ok(deeds);
        }
        let asked = match model::ask(asker, (wire, &model), &conversation, |_| {}).await {
            Ok(asked) => asked,
            Err(why) => {
                deeds.broke_off = Some(format!("it gives no answer: {why}"));
                return Ok(deeds);
            }
        };
        let answer = asked.answer;
        deeds.answers.push((asked.model, answer.tokens));
        if !answer.text.trim().is_empty() {
            deeds.last.clone_from(&answer.text);
        }
        let results: Vec<ToolResult> =
            answer.calls.iter().map(|call| result(call, &mut known, &mut deeds)).collect();
        let calls = answer.calls.clone();
        conversation.items.push(Item::Assistant(Assistant {
            text: answer.text,
            calls,
            blocks: answer.blocks,
        }));
        if !results.is_empty() {
            conversation.items.push(Item::Results(results));
            continue;
        }
        match said.pop_front() {
            Some(texts) => conversation.items.extend(texts.into_iter().map(Item::User)),
            None => return Ok(deeds),
        }
    }
}

/// The result of a call: the first of the session that is the same and has not been given yet.
fn result(call: &Call, known: &mut [Known], deeds: &mut Deeds) -> ToolResult {
    let (id, name) = (call.id.clone(), call.name.clone());
    let is_same = |known: &&mut Known| {
        !known.is_taken
            && known.call.name == name
            && call.arguments.as_ref().is_ok_and(|it| same(it, &known.call.arguments))
    };
    match known.iter_mut().find(is_same) {
        Some(known) => {
            known.is_taken = true;
            deeds.shared_calls += 1;
            ToolResult { id, name, text: known.text.clone(), is_error: known.is_error }
        }
        None => {
            deeds.own_calls += 1;
            ToolResult { id, name, text: UNKNOWN.to_owned(), is_error: true }
        }
    }
}

/// Whether arguments are the same, in whatever order they stand.
fn same(one: &Map<String, Value>, other: &Map<String, Value>) -> bool {
    one.len() == other.len() && one.iter().all(|(key, value)| other.get(key) == Some(value))
}

fn known(entries: &[Entry]) -> Vec<Known> {
    let mut known = Vec::new();
    for entry in entries {
        match &entry.kind {
            EntryKind::Assistant { calls, .. } => known.extend(calls.iter().map(|call| Known {
                call: call.clone(),
                text: UNKNOWN.to_owned(),
                is_error: true,
                is_taken: false,
            })),
            EntryKind::Result { call, text, is_error, .. } => {
                if let Some(known) = known.iter_mut().rfind(|known| known.call.id == *call) {
                    (known.text, known.is_error) = (text.clone(), *is_error);
                }
            }
            _ => {}
        }
    }
    known
}

/// What was said to the model, in the portions between which it came to an end.
fn inputs(entries: &[Entry]) -> VecDeque<Vec<String>> {
    let mut inputs = VecDeque::from([Vec::new()]);
    let mut is_over = false;
    for entry in entries {
        match &entry.kind {
            EntryKind::Task { text, .. } | EntryKind::Person { text, .. } if !text.is_empty() => {
                if std::mem::take(&mut is_over) {
                    inputs.push_back(Vec::new());
                }
                if let Some(last) = inputs.back_mut() {
                    last.push(text.clone());
                }
            }
            EntryKind::Assistant { calls, .. } => is_over = calls.is_empty(),
            _ => {}
        }
    }
    inputs
}

fn system(entries: &[Entry]) -> String {
    match entries.first().map(|first| &first.kind) {
        Some(EntryKind::Session { system, .. }) => system.clone(),
        _ => String::new(),
    }
}

/// The settings of the last request; those of an earlier version are not on record.
fn settings(entries: &[Entry]) -> (u64, Option<f64>) {
    let told = entries.iter().rev().find_map(|entry| match &entry.kind {
        EntryKind::Assistant { asked: Some(asked), .. } => Some((asked.max_output_tokens, asked.temperature)),
        _ => None,
    });
    told.unwrap_or((16_384, None))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_call_gets_each_result_once_whatever_the_order_of_its_arguments() {
        let arguments = |value: Value| value.as_object().cloned().expect("an object");
        let call = |id: &str| CallEntry {
            id: id.into(),
            name: "read".into(),
            arguments: arguments(json!({"path": "a", "limit": 3})),
            nonsense: None,
        };
        let one = |id: &str, text: &str| Known {
            call: call(id),
            text: text.into(),
            is_error: false,
            is_taken: false,
        };
        let mut known = vec![one("1", "first"), one("2", "second")];
        let mut deeds = Deeds::default();
        let wanted = Call {
            id: "x".into(),
            name: "read".into(),
            arguments: Ok(arguments(json!({"limit": 3, "path": "a"}))),
        };
        let texts: Vec<String> = (0..3).map(|_| result(&wanted, &mut known, &mut deeds).text).collect();
        assert_eq!((texts[0].as_str(), texts[1].as_str()), ("first", "second"));
        assert_eq!(texts[2], UNKNOWN);
        assert_eq!((deeds.shared_calls, deeds.own_calls), (2, 1));
    }

    #[test]
    fn what_was_said_comes_when_the_model_has_ended() {
        let entry = |kind| Entry { id: 1, parent: None, at: 0, kind };
        let person = |text: &str| entry(EntryKind::Person { text: text.into(), by: "x".into() });
        let assistant = |calls: usize| {
            entry(EntryKind::Assistant {
                model: ModelName::from("p/m".to_owned()),
                wire: toka_core::Wire::Anthropic,
                call: None,
                text: String::new(),
                thinking: String::new(),
                calls: vec![
                    CallEntry {
                        id: "1".into(),
                        name: "x".into(),
                        arguments: Map::new(),
                        nonsense: None
                    };
                    calls
                ],
                blocks: vec![],
                tokens: Tokens::default(),
                asked: None,
            })
        };
        let all = [person("a"), assistant(1), person("b"), assistant(0), person("c")];
        assert_eq!(inputs(&all), [vec!["a".to_owned(), "b".to_owned()], vec!["c".to_owned()]]);
    }
}
