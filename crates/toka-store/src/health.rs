//! How the journal is doing, for those who ask, and what changed, for those who must be told.

use std::fmt;
use std::path::Path;

use crate::{SetAside, StoreError};

/// What keeps events from being written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// Another process holds the database's lock.
    Locked,
    /// The disk is full.
    Full,
    /// The disk or the file is read-only.
    ReadOnly,
    /// The database is damaged, and no other can be begun in its place.
    Damaged,
    /// What else can be wrong, in the words of whoever noticed.
    Other(String),
}

impl Trouble {
    pub(crate) fn of(error: &StoreError) -> Self {
        match error {
            StoreError::Locked => Self::Locked,
            StoreError::Full => Self::Full,
            StoreError::ReadOnly => Self::ReadOnly,
            StoreError::Damaged(_) | StoreError::Moved => Self::Damaged,
            StoreError::Io(error) if error.kind() == std::io::ErrorKind::StorageFull => Self::Full,
            StoreError::Io(error) if error.kind() == std::io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            error => Self::Other(error.to_string()),
        }
    }
}

impl From<Trouble> for StoreError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Locked => Self::Locked,
            Trouble::Full => Self::Full,
            Trouble::ReadOnly => Self::ReadOnly,
            Trouble::Damaged => Self::Damaged("no other can be begun in its place".into()),
            Trouble::Other(text) => Self::Io(std::io::Error::other(text)),
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Locked => "another process holds its lock",
            Self::Full => "no space is left",
            Self::ReadOnly => "it is read-only",
            Self::Damaged => "it is damaged",
            Self::Other(text) => text,
        })
    }
}

/// How the journal is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Health {
    /// What happens is written.
    #[default]
    Well,
    /// Events wait in memory.
    Waiting(Trouble),
    /// There are more than can wait: so many are lost.
    Losing(Trouble, u64),
}

/// What a person should know, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Events are not written any more, and wait.
    Waits(Trouble),
    /// No more can wait, and events are lost.
    Loses(Trouble),
    /// All is written again, but for those that were lost in between.
    WellAgain {
        /// How many were lost.
        lost: u64,
    },
    /// Another file has taken the place of a damaged one, and all is written.
    BegunAnew {
        /// The damaged one.
        aside: SetAside,
        /// How many events were lost before.
        lost: u64,
    },
}

impl Change {
    /// The sentence for people, about the journal at `path`.
    pub fn sentence(&self, path: &Path) -> String {
        let path = path.display();
        match self {
            Self::Waits(trouble) => {
                format!("the journal {path} cannot be written: {trouble}; events are kept in memory")
            }
            Self::Loses(trouble) => format!("the journal {path} loses events: {trouble}"),
            Self::WellAgain { lost: 0 } => format!("the journal {path} is written again; nothing was lost"),
            Self::WellAgain { lost } => {
                format!("the journal {path} is written again; {lost} events were lost")
            }
            Self::BegunAnew { aside, lost: 0 } => aside.to_string(),
            Self::BegunAnew { aside, lost } => format!("{aside}; {lost} events were lost"),
        }
    }
}
