//! What narrows the view of one process, and what of that is lacking.

use std::collections::BTreeSet;
use std::path::PathBuf;

use toka_sandbox::Bind;

/// What narrows the view of one process.
#[derive(Debug, Default)]
pub(in crate::server) struct Protection {
    /// Its mounts that lie within others.
    pub(in crate::server) binds: Vec<Bind>,
    pub(in crate::server) is_watched: bool,
    /// Why some name is not watched, if that is to be told.
    pub(in crate::server) unwatched: Option<String>,
    /// Whether a mount may be lacking: a name was replaced before the process ran, or could not be watched.
    pub(in crate::server) is_doubtful: bool,
    /// Names that were removed, and are not there again.
    pub(in crate::server) absent: BTreeSet<PathBuf>,
}

impl Protection {
    pub(in crate::server) fn of(binds: Vec<Bind>) -> Self {
        Self { binds, ..Self::default() }
    }
}
