//! What can be wrong with a database, told apart by what helps against it: waiting, room, a person, or a new file.

use std::io;

use rusqlite::ErrorCode;
use rusqlite::ffi;
use thiserror::Error;

/// Why the database could not be opened, read or written. The caller names the file.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Somebody else holds the write lock for longer than anybody should wait.
    #[error("another process holds its lock")]
    Locked,
    /// The disk, or the bound of the database's size.
    #[error("no space left")]
    Full,
    /// The file or its disk cannot be written.
    #[error("it is read-only")]
    ReadOnly,
    /// The file is no database any more.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// The file was removed or replaced while it was open.
    #[error("the file was removed or replaced")]
    Moved,
    /// A newer program made it.
    #[error(
        "it has version {found}, and this program knows versions up to {known}; use the newer program that wrote it, or \
         move the file away"
    )]
    Newer {
        /// Its version.
        found: i64,
        /// The newest that this program knows.
        known: usize,
    },
    /// It is somebody else's database.
    #[error("it is a database of another program; move the file away")]
    Foreign,
    /// A file could not be made, read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What else SQLite may say.
    #[error(transparent)]
    Sql(rusqlite::Error),
}

impl StoreError {
    /// Whether only another file helps.
    pub(crate) fn wants_another_file(&self) -> bool {
        matches!(self, Self::Damaged(_) | Self::Moved)
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        let Some(code) = error.sqlite_error().copied() else { return Self::Sql(error) };
        match (code.code, code.extended_code) {
            (_, ffi::SQLITE_READONLY_DBMOVED) => Self::Moved,
            // The memory that readers and the writer share is a file, too, and takes room.
            (_, ffi::SQLITE_IOERR_SHMSIZE) | (ErrorCode::DiskFull, _) => Self::Full,
            // A page that is not there: the file was cut.
            (_, ffi::SQLITE_IOERR_SHORT_READ) => Self::Damaged(error.to_string()),
            (ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked, _) => Self::Locked,
            (ErrorCode::ReadOnly, _) => Self::ReadOnly,
            (ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase, _) => Self::Damaged(error.to_string()),
            _ => Self::Sql(error),
        }
    }
}

/// As the operating system would say it, where it has a word for it.
impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> Self {
        const ENOSPC: i32 = 28;
        const EROFS: i32 = 30;
        match error {
            StoreError::Io(error) => error,
            StoreError::Full => Self::from_raw_os_error(ENOSPC),
            StoreError::ReadOnly => Self::from_raw_os_error(EROFS),
            StoreError::Locked => Self::new(io::ErrorKind::WouldBlock, error),
            error => Self::other(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_helps_is_told_apart() {
        let of =
            |extended: i32| StoreError::from(rusqlite::Error::SqliteFailure(ffi::Error::new(extended), None));
        assert!(matches!(of(ffi::SQLITE_BUSY), StoreError::Locked));
        assert!(matches!(of(ffi::SQLITE_BUSY_SNAPSHOT), StoreError::Locked));
        assert!(matches!(of(ffi::SQLITE_FULL), StoreError::Full));
        assert!(matches!(of(ffi::SQLITE_IOERR_SHMSIZE), StoreError::Full));
        assert!(matches!(of(ffi::SQLITE_READONLY), StoreError::ReadOnly));
        assert!(matches!(of(ffi::SQLITE_READONLY_DBMOVED), StoreError::Moved));
        assert!(matches!(of(ffi::SQLITE_NOTADB), StoreError::Damaged(_)));
        assert!(matches!(of(ffi::SQLITE_CORRUPT_INDEX), StoreError::Damaged(_)));
        assert!(matches!(of(ffi::SQLITE_IOERR_WRITE), StoreError::Sql(_)));
    }

    #[test]
    fn a_full_disk_is_the_systems_own_error() {
        assert_eq!(io::Error::from(StoreError::Full).kind(), io::ErrorKind::StorageFull);
        assert_eq!(io::Error::from(StoreError::ReadOnly).kind(), io::ErrorKind::ReadOnlyFilesystem);
    }
}
