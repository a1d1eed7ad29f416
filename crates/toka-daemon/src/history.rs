//! What happened in runs that have ended, from the journal of their project: nobody need run to be asked.

use std::path::Path;

use toka_core::{Event, ProjectName, RunId};
use toka_prepare::folders::{journal_in, root_in};
use toka_store::{Filter, Reader, StoreError};

/// A run as its journal has it.
#[derive(Debug)]
pub struct Past {
    /// The run.
    pub run: RunId,
    /// Its events that were asked for, in order.
    pub events: Vec<Event>,
}

/// The events of the last run of a project after the number `after_seq`, of some kinds (of all when there are none); none when
/// it never ran.
///
/// # Errors
/// When its journal cannot be read.
pub fn last_run(
    state_dir: &Path,
    project: &ProjectName,
    after_seq: u64,
    kinds: &[String],
) -> Result<Option<Past>, StoreError> {
    let mut reader = Reader::new(journal_in(&root_in(state_dir, project)));
    let Some(run) = reader.runs(1)?.into_iter().next() else { return Ok(None) };
    let filter = Filter { run: Some(run.id), types: kinds.to_vec(), agent: None };
    let events = reader.events(after_seq, &filter, usize::MAX)?;
    Ok(Some(Past { run: run.id, events }))
}
