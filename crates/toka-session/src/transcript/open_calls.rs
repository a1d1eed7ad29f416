//! Which calls of tools are open in a transcript.

use std::collections::BTreeMap;

use toka_core::transcript::{CallEntry, Entry, EntryKind};

/// How far the call of a tool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunEffect {
    /// Nothing was begun.
    NotBegun,
    /// It was begun, and no result is on record.
    Begun,
    /// It has its result.
    Ended,
}

/// How far each call of the last answer is; empty when the last answer wants nothing, or there is none.
pub(crate) fn open_calls(entries: &[Entry]) -> Vec<(CallEntry, RunEffect)> {
    let Some(at) = entries.iter().rposition(|entry| matches!(entry.kind, EntryKind::Assistant { .. })) else {
        return Vec::new();
    };
    let EntryKind::Assistant { calls, .. } = &entries[at].kind else { return Vec::new() };
    let mut effects: BTreeMap<&str, RunEffect> = BTreeMap::new();
    for entry in &entries[at..] {
        match &entry.kind {
            EntryKind::Intent { call, .. } => drop(effects.insert(call, RunEffect::Begun)),
            EntryKind::Result { call, .. } => drop(effects.insert(call, RunEffect::Ended)),
            _ => {}
        }
    }
    let effect = |id: &str| effects.get(id).copied().unwrap_or(RunEffect::NotBegun);
    calls.iter().map(|call| (call.clone(), effect(&call.id))).collect()
}
