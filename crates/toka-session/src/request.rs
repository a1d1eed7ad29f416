//! What a model is asked: a pure function of the lines of a transcript. Each call of a tool has its result right after the answer that
//! wants it, whatever was lost or said in between; a longer transcript begins with the same request, but for what is left out of old results.

use std::collections::HashMap;

use toka_core::event::Effect;
use toka_core::{ModelName, Wire};
use toka_wire::said::Call;
use toka_wire::{Assistant, Conversation, Item, ToolDefinition, ToolResult};

use crate::summary::{in_their_place, size};
use sha2::{Digest as _, Sha256};
use toka_core::transcript::{AskedEntry, CallEntry, Entry, EntryKind};

/// The model that a request names: the gateway puts the name of the one in that it asks.
pub(crate) const MODEL: &str = "default";
/// Bytes of an old result that are left of it.
pub(crate) const LEFT: usize = 200;
/// Bytes to a token, where nobody has counted.
pub(crate) const BYTES_TO_A_TOKEN: usize = 4;

/// What does not follow from the transcript.
#[derive(Debug, Clone)]
pub struct Settings<'a> {
    /// The model that is asked.
    pub model: &'a ModelName,
    /// The language in which it is.
    pub wire: Wire,
    /// Whether nobody else can answer, so that what this model has sealed goes back to it.
    pub seals: bool,
    /// The tools that it may call.
    pub tools: &'a [ToolDefinition],
    /// Most tokens of the answer.
    pub max_output_tokens: u64,
    /// From 0.0; `None` for the model's own.
    pub temperature: Option<f64>,
}

/// The conversation that goes on after these lines.
pub fn conversation(entries: &[Entry], settings: &Settings<'_>) -> Conversation {
    let results: HashMap<&str, (&Entry, &EntryKind)> = entries
        .iter()
        .filter_map(|entry| match &entry.kind {
            kind @ EntryKind::Result { call, .. } => Some((call.as_str(), (entry, kind))),
            _ => None,
        })
        .collect();
    let pruned = entries.iter().rev().find_map(|entry| match entry.kind {
        EntryKind::Pruned { before, .. } => Some(before),
        _ => None,
    });
    let mut conversation = Conversation {
        tools: settings.tools.to_vec(),
        max_output_tokens: settings.max_output_tokens,
        temperature: settings.temperature,
        ..Conversation::default()
    };
    let compacted = entries.iter().rev().find_map(|entry| match &entry.kind {
        EntryKind::Compacted { before, summary, .. } => Some((*before, summary)),
        _ => None,
    });
    if let Some((before, summary)) = compacted {
        conversation.items.push(Item::User(in_their_place(entries, summary, before)));
    }
    let is_left = |entry: &&Entry| {
        let is_first = matches!(entry.kind, EntryKind::Session { .. });
        is_first || compacted.is_none_or(|(before, _)| entry.id >= before)
    };
    for entry in entries.iter().filter(is_left) {
        match &entry.kind {
            EntryKind::Session { system, .. } => conversation.system.clone_from(system),
            EntryKind::Task { text, .. } if text.is_empty() => {}
            EntryKind::Task { text, .. } | EntryKind::Person { text, .. } | EntryKind::Notice { text } => {
                conversation.items.push(Item::User(text.clone()));
            }
            EntryKind::Interrupted { .. } => {
                conversation.items.push(Item::User("(The person has interrupted you here.)".to_owned()));
            }
            EntryKind::Assistant { model, wire, text, calls, blocks, .. } => {
                let is_own = settings.seals && model == settings.model && *wire == settings.wire;
                let said = Assistant {
                    text: text.clone(),
                    calls: calls.iter().map(call_of).collect(),
                    blocks: if is_own { blocks.clone() } else { Vec::new() },
                };
                conversation.items.push(Item::Assistant(said));
                if !calls.is_empty() {
                    let result = |call: &CallEntry| result_of(call, results.get(call.id.as_str()), pruned);
                    conversation.items.push(Item::Results(calls.iter().map(result).collect()));
                }
            }
            EntryKind::Intent { .. }
            | EntryKind::Result { .. }
            | EntryKind::Plan { .. }
            | EntryKind::Pruned { .. }
            | EntryKind::Compacted { .. }
            | EntryKind::Halted { .. }
            | EntryKind::Ended { .. }
            | EntryKind::Unknown => {}
        }
    }
    conversation
}

/// What is to be recorded of a request.
pub fn asked(conversation: &Conversation, settings: &Settings<'_>, until: u64) -> AskedEntry {
    let hash = |conversation: &Conversation| {
        let body = conversation.body(settings.wire, MODEL).to_string();
        Sha256::digest(body.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    AskedEntry {
        until,
        seals: settings.seals,
        max_output_tokens: settings.max_output_tokens,
        temperature: settings.temperature,
        head: hash(&Conversation { items: Vec::new(), ..conversation.clone() }),
        request: hash(conversation),
    }
}

fn call_of(call: &CallEntry) -> Call {
    Call { id: call.id.clone(), name: call.name.clone(), arguments: Ok(call.arguments.clone()) }
}

fn result_of(call: &CallEntry, result: Option<&(&Entry, &EntryKind)>, pruned: Option<u64>) -> ToolResult {
    let (id, name) = (call.id.clone(), call.name.clone());
    let Some((entry, EntryKind::Result { text, is_error, effect, .. })) = result else {
        let text = "There is no result: the session was interrupted, and nobody knows whether this was done. Look before you do it again.";
        return ToolResult { id, name, text: text.to_owned(), is_error: true };
    };
    let is_old = pruned.is_some_and(|before| entry.id < before);
    let mut text = match is_old && text.len() > 2 * LEFT {
        true => {
            let head = &text[..text.floor_char_boundary(LEFT)];
            format!(
                "{head}\n… ({} bytes are left out here: do it again if you need them)",
                text.len() - head.len()
            )
        }
        false => text.clone(),
    };
    if *effect == Some(Effect::Unknown) && !is_old {
        text += "\nNobody knows whether this was done. Look before you do it again.";
    }
    ToolResult { id, name, text, is_error: *is_error }
}

/// About how many tokens the next request has: what the provider told of the last one, and what has come since.
pub fn tokens(entries: &[Entry]) -> u64 {
    let told = entries.iter().enumerate().rev().find_map(|(at, entry)| match &entry.kind {
        EntryKind::Assistant { tokens, .. } if !tokens.is_unknown() => {
            Some((at + 1, tokens.read().saturating_add(tokens.output.unwrap_or(0))))
        }
        _ => None,
    });
    let (from, told) = told.unwrap_or((0, 0));
    let since: usize = entries[from..].iter().map(size).sum();
    let freed = entries[from..].iter().map(|entry| match entry.kind {
        EntryKind::Pruned { freed, .. } | EntryKind::Compacted { freed, .. } => freed,
        _ => 0,
    });
    (told + (since / BYTES_TO_A_TOKEN) as u64).saturating_sub(freed.sum())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, json};
    use toka_core::Tokens;

    use super::*;

    fn model() -> ModelName {
        ModelName::from("p/m".to_owned())
    }

    fn settings(model: &ModelName) -> Settings<'_> {
        Settings {
            model,
            wire: Wire::Anthropic,
            seals: true,
            tools: &[],
            max_output_tokens: 10,
            temperature: None,
        }
    }

    fn assistant(calls: &[&str]) -> EntryKind {
        let call = |id: &&str| CallEntry {
            id: (*id).to_owned(),
            name: "read".into(),
            arguments: Map::new(),
            nonsense: None,
        };
        EntryKind::Assistant {
            model: model(),
            wire: Wire::Anthropic,
            call: None,
            text: "hm".into(),
            thinking: String::new(),
            calls: calls.iter().map(call).collect(),
            blocks: vec![json!({"type": "text", "text": "hm"})],
            tokens: Tokens::default(),
            asked: None,
        }
    }

    fn result(call: &str, text: &str) -> EntryKind {
        EntryKind::Result {
            call: call.into(),
            text: text.into(),
            is_error: false,
            effect: None,
            whole: None,
            duration_ms: 1,
            usage: Default::default(),
            changes: vec![],
        }
    }

    fn lines(kinds: Vec<EntryKind>) -> Vec<Entry> {
        let entry =
            |(at, kind)| Entry { id: at as u64 + 1, parent: (at > 0).then_some(at as u64), at: 0, kind };
        kinds.into_iter().enumerate().map(entry).collect()
    }

    /// After each answer that wants something, and nowhere else, comes one result for each call, in their order.
    fn is_paired(items: &[Item]) -> bool {
        let mut wanted: Vec<String> = Vec::new();
        for item in items {
            match item {
                Item::Assistant(said) if wanted.is_empty() => {
                    wanted = said.calls.iter().map(|call| call.id.clone()).collect();
                }
                Item::Results(results) => {
                    if results.iter().map(|result| &result.id).ne(&wanted) || wanted.is_empty() {
                        return false;
                    }
                    wanted.clear();
                }
                Item::User(_) if wanted.is_empty() => {}
                _ => return false,
            }
        }
        wanted.is_empty()
    }

    proptest! {
        #[test]
        fn calls_have_their_results_whatever_was_lost(steps in proptest::collection::vec(0u8..6, 0..20), cut in 0usize..30) {
            let mut kinds = vec![EntryKind::Notice { text: "begin".into() }];
            for (at, step) in steps.iter().enumerate() {
                let (one, two) = (format!("{at}a"), format!("{at}b"));
                match step {
                    0 => kinds.push(EntryKind::Person { text: "quick".into(), by: "operator".into() }),
                    1 => kinds.push(assistant(&[])),
                    2 => kinds.extend([assistant(&[&one, &two]), result(&two, "2"), result(&one, "1")]),
                    3 => kinds.extend([assistant(&[&one, &two]), result(&one, "1")]),
                    4 => kinds.extend([assistant(&[&one]), EntryKind::Person { text: "wait".into(), by: "x".into() }, result(&one, "1")]),
                    _ => kinds.push(result("of nobody", "x")),
                }
            }
            let entries = lines(kinds);
            let model = model();
            for entries in [&entries[..], &entries[..cut.min(entries.len())]] {
                let asked = conversation(entries, &settings(&model));
                prop_assert!(is_paired(&asked.items), "{:?}", asked.items);
                prop_assert_eq!(&asked, &conversation(entries, &settings(&model)), "the same lines, the same request");
            }
        }
    }

    #[test]
    fn blocks_go_back_to_their_model_alone() {
        let entries = lines(vec![assistant(&[])]);
        let blocks = |model: &ModelName, wire| {
            let asked = conversation(&entries, &Settings { wire, ..settings(model) });
            let Item::Assistant(said) = &asked.items[0] else { panic!("an answer") };
            said.blocks.len()
        };
        let other = ModelName::from("p/other".to_owned());
        assert_eq!(blocks(&model(), Wire::Anthropic), 1);
        assert_eq!((blocks(&other, Wire::Anthropic), blocks(&model(), Wire::Gemini)), (0, 0));
        let model = model();
        let asked = conversation(&entries, &Settings { seals: false, ..settings(&model) });
        assert!(
            matches!(&asked.items[0], Item::Assistant(said) if said.blocks.is_empty()),
            "another may answer"
        );
    }

    #[test]
    fn old_results_are_cut_and_new_ones_are_not() {
        let long = "x".repeat(5000);
        let kinds = vec![
            assistant(&["a"]),
            result("a", &long),
            EntryKind::Pruned { before: 3, freed: 1 },
            assistant(&["b"]),
            result("b", &long),
        ];
        let model = model();
        let asked = conversation(&lines(kinds), &settings(&model));
        let texts: Vec<usize> = asked
            .items
            .iter()
            .filter_map(|item| match item {
                Item::Results(results) => Some(results[0].text.len()),
                _ => None,
            })
            .collect();
        assert!(texts[0] < 300 && texts[1] == 5000, "{texts:?}");
    }

    #[test]
    fn tokens_are_those_that_were_told_and_what_came_since() {
        let mut told = assistant(&["a"]);
        if let EntryKind::Assistant { tokens, .. } = &mut told {
            *tokens =
                Tokens { input: Some(100), cached_read: Some(50), output: Some(7), ..Tokens::default() };
        }
        assert_eq!(tokens(&lines(vec![told, result("a", &"x".repeat(400))])), 257);
        assert_eq!(tokens(&lines(vec![result("a", &"x".repeat(400))])), 100);
    }
}
