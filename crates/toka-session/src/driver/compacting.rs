//! Makes room where requests get long: what tools gave long ago is left out first; when that is not enough, a summary stands in the place
//! of what came before.

use toka_core::transcript::EntryKind;
use toka_core::{EventKind, Tokens};
use toka_wire::{Conversation, Item};

use super::{Driver, Halt, unless_interrupted};
use crate::model;
use crate::request::{BYTES_TO_A_TOKEN, LEFT, tokens};
use crate::summary::{INSTRUCTIONS, cut, in_their_place, mechanical, record, size};

/// Bytes that leaving results out must save where a request was refused, perhaps since it is too large.
const LEAST: usize = 4 * 1024;
/// Most tokens of a summary.
const LONGEST_SUMMARY: u64 = 4096;
/// Of a hundred tokens, a summary must make room for so many.
const WORTHWHILE_PERCENT: u64 = 30;

impl Driver<'_> {
    /// Makes room for the next request, if it needs some.
    pub(super) async fn make_room(&mut self) -> Result<(), Halt> {
        let room = self.shared.config.max_context_tokens;
        if tokens(&self.entries) < room {
            return Ok(());
        }
        let bytes = usize::try_from(room).unwrap_or(usize::MAX);
        // Each time a provider reads everything anew: it must save enough to be worth that.
        self.prune(bytes, bytes / 5 * 2).await?;
        if tokens(&self.entries) >= room {
            self.compact(bytes).await?;
        }
        Ok(())
    }

    /// Makes room since a request was refused; whether there is more now.
    pub(super) async fn make_more_room(&mut self) -> Result<bool, Halt> {
        if self.prune(0, LEAST).await? {
            return Ok(true);
        }
        let recent = self.entries.iter().map(size).sum::<usize>() / 4;
        if cut(&self.entries, recent).is_none() {
            return Ok(false);
        }
        self.compact(recent).await.map(|()| true)
    }

    /// Leaves all results out but the last ones of so many bytes; whether that saves enough to be done.
    async fn prune(&mut self, recent: usize, worthwhile: usize) -> Result<bool, String> {
        let pruned = self.entries.iter().rev().find_map(|entry| match entry.kind {
            EntryKind::Pruned { before, .. } | EntryKind::Compacted { before, .. } => Some(before),
            _ => None,
        });
        let (mut kept, mut saved, mut before) = (0, 0, 0);
        for entry in self.entries.iter().rev().take_while(|entry| pruned.is_none_or(|at| entry.id >= at)) {
            let EntryKind::Result { text, .. } = &entry.kind else { continue };
            if kept + text.len() <= recent {
                kept += text.len();
                continue;
            }
            before = before.max(entry.id + 1);
            saved += text.len().saturating_sub(LEFT);
        }
        if saved < worthwhile.max(1) {
            return Ok(false);
        }
        let freed = (saved / BYTES_TO_A_TOKEN) as u64;
        self.add(vec![EntryKind::Pruned { before, freed }], false).await?;
        Ok(true)
    }

    /// Puts a summary in the place of all but the last `recent` bytes.
    async fn compact(&mut self, recent: usize) -> Result<(), Halt> {
        let room = self.shared.config.max_context_tokens;
        let full = |why: &str| {
            Err(Halt::Turn(format!("the session does not fit into {room} tokens any more: {why}")))
        };
        if self.nothing_done_since_summary() {
            return full("it was summarised, and nothing was done since");
        }
        let Some(before) = cut(&self.entries, recent) else {
            return full("its last answer, and what came of that, are too long");
        };
        self.tell_status("summarises what was done");
        let most = usize::try_from(room).unwrap_or(usize::MAX).saturating_mul(BYTES_TO_A_TOKEN) / 2;
        let record = record(&self.entries, before, most);
        let written = unless_interrupted(self.interrupts.clone(), self.summarise(record)).await;
        let (summary, model, call, tokens_of) = match written.ok_or(Halt::Interrupted)? {
            Ok(model::Asked { answer, model, call, .. }) => {
                (self.asker.masked(answer.text), Some(model), call, answer.tokens)
            }
            Err(why) => {
                self.steps.say(&format!("! no model summarises what was done ({why}): the files that were changed and the last calls stand for it"));
                (mechanical(&self.entries, before), None, None, Tokens::default())
            }
        };
        let gone: usize = self.entries.iter().filter(|entry| entry.id < before).map(size).sum();
        let in_their_place = in_their_place(&self.entries, &summary, before);
        let bytes = gone.saturating_sub(in_their_place.len());
        let known = tokens(&self.entries);
        // What a provider has counted tells more of the lines than their bytes do.
        let share = |of: u64| {
            of.saturating_mul(bytes as u64) / self.entries.iter().map(size).sum::<usize>().max(1) as u64
        };
        let freed = share(known).max((bytes / BYTES_TO_A_TOKEN) as u64);
        if freed.saturating_mul(100) < known.saturating_mul(WORTHWHILE_PERCENT) {
            return full("a summary would make too little room");
        }
        let compacted =
            EntryKind::Compacted { before, summary, model: model.clone(), call, tokens: tokens_of, freed };
        self.add(vec![compacted], true).await?;
        let session = self.key.clone();
        self.emit(EventKind::SessionCompacted { session, model, freed_tokens: freed });
        self.steps.say("(what was done before is summarised from here on)");
        Ok(())
    }

    /// Whether nothing was done since the last summary: then another one would not help.
    fn nothing_done_since_summary(&self) -> bool {
        let since =
            self.entries.iter().rev().take_while(|entry| !matches!(entry.kind, EntryKind::Compacted { .. }));
        let was_summarised =
            self.entries.iter().any(|entry| matches!(entry.kind, EntryKind::Compacted { .. }));
        let is_done = |kind: &EntryKind| {
            matches!(
                kind,
                EntryKind::Result { is_error: false, .. } | EntryKind::Person { .. } | EntryKind::Task { .. }
            )
        };
        was_summarised && !since.into_iter().any(|entry| is_done(&entry.kind))
    }

    /// Has a model summarise a record.
    async fn summarise(&self, record: String) -> Result<model::Asked, model::NoAnswer> {
        let (wire, model) = self.asker.first().map_err(model::NoAnswer::of)?;
        let conversation = Conversation {
            system: INSTRUCTIONS.to_owned(),
            items: vec![Item::User(format!("This is the record:\n\n{record}"))],
            max_output_tokens: self.shared.config.max_output_tokens.min(LONGEST_SUMMARY),
            ..Conversation::default()
        };
        let asked = model::ask(&self.asker, (wire, &model), &conversation, |_| {}).await?;
        match asked.answer.text.trim().is_empty() {
            true => Err(model::NoAnswer::of("it says nothing".to_owned())),
            false => Ok(asked),
        }
    }
}
