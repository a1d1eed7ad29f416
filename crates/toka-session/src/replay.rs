//! Repeats a session from its record, without a model and without a tool: each request is built anew from the lines before it and
//! compared with the one that was sent, and each line is looked at, whether it could follow on those before. Pure.

use toka_core::transcript::{AskedEntry, CallEntry, Entry, EntryKind};
use toka_wire::ToolDefinition;

use crate::request::{Settings, asked, conversation};
use crate::transcript::{RunEffect, open_calls};

/// What came of a repetition.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Replayed {
    /// Requests that are what they were.
    pub requests: usize,
    /// Requests of which the record does not tell enough to compare them: an earlier version has written it.
    pub untold: usize,
    /// Requests that another session has sent, which this one goes on with.
    pub inherited: usize,
    /// Calls of tools whose results are on record.
    pub calls: usize,
    /// The first difference: the number of the line, and what is different there.
    pub difference: Option<(u64, String)>,
}

/// Repeats a session. `tools` are the tools as its model was told of them.
pub fn replay(entries: &[Entry], tools: &[ToolDefinition]) -> Replayed {
    let mut replayed = Replayed::default();
    for (at, entry) in entries.iter().enumerate() {
        if let Err(why) = step(&entries[..at], entry, tools, &mut replayed) {
            replayed.difference = Some((entry.id, why));
            break;
        }
    }
    replayed
}

fn step(
    before: &[Entry],
    entry: &Entry,
    tools: &[ToolDefinition],
    replayed: &mut Replayed,
) -> Result<(), String> {
    if entry.parent != before.last().map(|last| last.id) {
        return Err("it does not follow on the line before: a line is missing, or was put in".to_owned());
    }
    match &entry.kind {
        EntryKind::Session { .. } if !before.is_empty() => Err("a session begins in the middle".to_owned()),
        EntryKind::Assistant { asked: told, model, wire, .. } => {
            let open = open_calls(before).into_iter().find(|(_, effect)| *effect != RunEffect::Ended);
            if let Some((CallEntry { id, name, .. }, _)) = open {
                return Err(format!("a model answers, and the call {id} of {name} has no result"));
            }
            if entry.id <= inherited(before) {
                replayed.inherited += 1;
                return Ok(());
            }
            let Some(told) = told else {
                replayed.untold += 1;
                return Ok(());
            };
            let settings = Settings {
                model,
                wire: *wire,
                seals: told.seals,
                tools,
                max_output_tokens: told.max_output_tokens,
                temperature: told.temperature,
            };
            // What was said while the model was thinking was not in the request.
            let known: Vec<Entry> = before.iter().filter(|line| line.id <= told.until).cloned().collect();
            let again = asked(&conversation(&known, &settings), &settings, told.until);
            same(told, &again)?;
            replayed.requests += 1;
            Ok(())
        }
        EntryKind::Intent { call, .. } => match effect_of(before, call) {
            Some(RunEffect::NotBegun) => Ok(()),
            Some(_) => Err(format!("the call {call} begins a second time")),
            None => Err(format!("the call {call} begins, and no model wants it")),
        },
        EntryKind::Result { call, .. } => match effect_of(before, call) {
            Some(RunEffect::Ended) => Err(format!("the call {call} has a second result")),
            Some(_) => {
                replayed.calls += 1;
                Ok(())
            }
            None => Err(format!("a result of the call {call}, which no model wants")),
        },
        _ => Ok(()),
    }
}

/// The last line that was taken over from another session.
fn inherited(before: &[Entry]) -> u64 {
    match before.first().map(|first| &first.kind) {
        Some(EntryKind::Session { from: Some(from), .. }) => from.until,
        _ => 0,
    }
}

fn same(told: &AskedEntry, again: &AskedEntry) -> Result<(), String> {
    if told.head != again.head {
        return Err(
            "the instructions, the tools or the settings of its request are not those that were sent"
                .to_owned(),
        );
    }
    if told.request != again.request {
        return Err(
            "what was said and done before is not what the model was told: a line before this one is another"
                .to_owned(),
        );
    }
    Ok(())
}

fn effect_of(before: &[Entry], call: &str) -> Option<RunEffect> {
    open_calls(before).into_iter().find(|(open, _)| open.id == call).map(|(_, effect)| effect)
}

#[cfg(test)]
mod tests {
    use serde_json::Map;
    use toka_core::{ModelName, RunId, Tokens, Wire};

    use super::*;

    fn entry(id: u64, kind: EntryKind) -> Entry {
        Entry { id, parent: (id > 1).then(|| id - 1), at: 0, kind }
    }

    fn assistant(before: &[Entry], text: &str, calls: &[&str]) -> EntryKind {
        let model = ModelName::from("p/m".to_owned());
        let settings = Settings {
            model: &model,
            wire: Wire::Anthropic,
            seals: false,
            tools: &[],
            max_output_tokens: 10,
            temperature: None,
        };
        let until = before.last().map_or(0, |last| last.id);
        let asked = asked(&conversation(before, &settings), &settings, until);
        let call = |id: &&str| CallEntry {
            id: (*id).to_owned(),
            name: "read".into(),
            arguments: Map::new(),
            nonsense: None,
        };
        EntryKind::Assistant {
            model: model.clone(),
            wire: Wire::Anthropic,
            call: None,
            text: text.into(),
            thinking: String::new(),
            calls: calls.iter().map(call).collect(),
            blocks: vec![],
            tokens: Tokens::default(),
            asked: Some(asked),
        }
    }

    fn session() -> Vec<Entry> {
        let run = RunId::parse("0198e0a0-0000-7000-8000-000000000000").expect("an id");
        let begin = EntryKind::Session {
            version: 1,
            key: "agent:a:task:1".parse().expect("a key"),
            run,
            pid: 1,
            from: None,
            system: "Be good.".into(),
            tools: vec![],
            definitions: None,
        };
        let mut all = vec![entry(1, begin)];
        all.push(entry(2, EntryKind::Task { index: 0, attempt: 1, text: "do it".into() }));
        let first = assistant(&all, "I look.", &["c1"]);
        // Said while the model was thinking.
        all.push(entry(3, EntryKind::Person { text: "quick".into(), by: "x".into() }));
        all.push(entry(4, first));
        all.push(entry(5, EntryKind::Intent { call: "c1".into(), about: String::new() }));
        let result = EntryKind::Result {
            call: "c1".into(),
            text: "one".into(),
            is_error: false,
            effect: None,
            whole: None,
            duration_ms: 1,
            usage: Default::default(),
            changes: vec![],
        };
        all.push(entry(6, result));
        let last = assistant(&all, "Done.", &[]);
        all.push(entry(7, last));
        all
    }

    #[test]
    fn a_record_is_repeated_and_the_first_difference_named() {
        let whole = session();
        let replayed = replay(&whole, &[]);
        assert_eq!(replayed, Replayed { requests: 2, calls: 1, ..Replayed::default() });
        let changed = |at: usize, change: fn(&mut EntryKind)| {
            let mut lines = whole.clone();
            change(&mut lines[at].kind);
            replay(&lines, &[]).difference
        };
        let said = changed(5, |kind| {
            if let EntryKind::Result { text, .. } = kind {
                "two".clone_into(text);
            }
        });
        assert!(
            said.is_some_and(|(line, why)| line == 7 && why.contains("a line before this one is another"))
        );
        let told = changed(0, |kind| {
            if let EntryKind::Session { system, .. } = kind {
                "Be bad.".clone_into(system);
            }
        });
        assert!(told.is_some_and(|(line, why)| line == 4 && why.contains("the instructions")));
        let twice = changed(5, |kind| *kind = EntryKind::Intent { call: "c1".into(), about: String::new() });
        assert_eq!(twice, Some((6, "the call c1 begins a second time".to_owned())));
        let mut lines = whole.clone();
        lines.remove(5);
        assert!(
            replay(&lines, &[])
                .difference
                .is_some_and(|(line, why)| line == 7 && why.contains("a line is missing"))
        );
        let mut lines = whole;
        lines[3].id = 3;
        lines.remove(2);
        assert!(replay(&lines, &[]).difference.is_some());
    }
}
