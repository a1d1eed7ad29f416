//! What happened in the runs of a project, from its journal: nobody need run to be asked.

use std::path::Path;

use toka_core::{Event, ProjectName, RunId};
use toka_prepare::folders::{journal_in, root_in};
pub use toka_store::{Broken, Ending, Head, Run, Verified};
use toka_store::{Filter, Reader, StoreError};

/// The runs of a project that its journal still has, the newest first; none when it never ran.
///
/// # Errors
/// When its journal cannot be read.
pub fn runs(state_dir: &Path, project: &ProjectName) -> Result<Vec<Run>, StoreError> {
    journal(state_dir, project).runs(usize::MAX)
}

/// The events of one run of a project, or of all of them, after the number `after_seq`, of some kinds (of all when there are none).
///
/// # Errors
/// When its journal cannot be read.
pub fn events(
    (state_dir, project): (&Path, &ProjectName),
    run: Option<RunId>,
    after_seq: u64,
    kinds: &[String],
) -> Result<Vec<Event>, StoreError> {
    let filter = Filter { run, types: kinds.to_vec(), agent: None };
    journal(state_dir, project).events(after_seq, &filter, usize::MAX)
}

/// Whether the journal is as it was written; with a head that somebody has kept, whether that is still in it.
///
/// # Errors
/// When its journal cannot be read.
pub fn verify(state_dir: &Path, project: &ProjectName, kept: Option<Head>) -> Result<Verified, StoreError> {
    journal(state_dir, project).verify(kept)
}

fn journal(state_dir: &Path, project: &ProjectName) -> Reader {
    Reader::new(journal_in(&root_in(state_dir, project)))
}
