//! A damaged database is kept for whoever wants to look at it, under a name with the time, out of the way of a new one.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::StoreError;

/// Files that belong to a database, beside the one with its name.
const COMPANIONS: [&str; 2] = ["-wal", "-shm"];
/// Names that are tried in a second.
const TRIES: u32 = 100;

/// A database that another one has taken the place of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// Where it was.
    pub path: PathBuf,
    /// Where it is now; nowhere when the file itself had gone.
    pub kept: Option<PathBuf>,
    /// What was wrong with it.
    pub why: String,
    /// The number after which numbers go on; `None` when it could not be read, and they begin anew.
    pub last_seq: Option<u64>,
}

impl fmt::Display for SetAside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a new journal {} is begun, since of the old one {}", self.path.display(), self.why)?;
        if let Some(kept) = &self.kept {
            write!(f, "; it is kept as {}", kept.display())?;
        }
        match self.last_seq {
            Some(seq) => write!(f, "; numbers go on after {seq}"),
            None => write!(f, "; numbers begin anew"),
        }
    }
}

/// Makes way for another database at `path`, and says what of the old one was wrong and where it is. Numbers will go on
/// after `last_seq`.
///
/// # Errors
/// When a file cannot be renamed.
pub(crate) fn set_aside(
    path: &Path,
    error: &StoreError,
    last_seq: Option<u64>,
    now_ms: i64,
) -> Result<SetAside, StoreError> {
    let (kept, why) = match error {
        // What may be there now is none of ours; if it is a good one, it is gone on with.
        StoreError::Moved => (None, "the file was removed or replaced".to_owned()),
        StoreError::Damaged(text) => (rename(path, now_ms)?, format!("the file is damaged ({text})")),
        error => (rename(path, now_ms)?, error.to_string()),
    };
    Ok(SetAside { path: path.to_owned(), kept, why, last_seq })
}

/// Moves the database and its companions away, and says where to; `None` when it is not there.
fn rename(path: &Path, now_ms: i64) -> io::Result<Option<PathBuf>> {
    let kept = free_name(path, now_ms)?;
    // The log first: one that is left behind would be taken for the new database's own.
    for companion in COMPANIONS {
        rename_if_there(&with(path, companion), &with(&kept, companion))?;
    }
    Ok(rename_if_there(path, &kept)?.then_some(kept))
}

fn rename_if_there(from: &Path, to: &Path) -> io::Result<bool> {
    match std::fs::rename(from, to) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn free_name(path: &Path, now_ms: i64) -> io::Result<PathBuf> {
    let time = Timestamp::from_millisecond(now_ms).unwrap_or(Timestamp::UNIX_EPOCH);
    let time = time.strftime("%Y%m%dT%H%M%SZ").to_string();
    let names = (0..TRIES).map(|number| match number {
        0 => with(path, &format!(".damaged-{time}")),
        number => with(path, &format!(".damaged-{time}-{number}")),
    });
    let mut free = names.filter(|name| !name.exists());
    free.next()
        .ok_or_else(|| io::Error::new(io::ErrorKind::AlreadyExists, "no free name for the damaged journal"))
}

fn with(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(end);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_files_of_it_go_and_none_is_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal.db");
        let mut kept = Vec::new();
        for round in ["one", "two"] {
            for end in ["", "-wal", "-shm"] {
                std::fs::write(with(&path, end), round).expect("a file");
            }
            kept.push(rename(&path, 1_000_000_000_000).expect("renamed").expect("it was there"));
        }
        assert_eq!(rename(&path, 0).expect("nothing to do"), None);
        assert_eq!(kept[0], folder.path().join("journal.db.damaged-20010909T014640Z"));
        assert_eq!(kept[1], folder.path().join("journal.db.damaged-20010909T014640Z-1"));
        for (kept, round) in kept.iter().zip(["one", "two"]) {
            for end in ["", "-wal", "-shm"] {
                assert_eq!(std::fs::read_to_string(with(kept, end)).expect("kept"), round);
            }
        }
    }
}
