//! Opening a database: whose file it is, what holds for every connection, and the real reason when there is none.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::StoreError;
use crate::schema::{self, Found, STEPS};

/// Pages in memory of a connection, in KiB: the ends of the tables and indexes, and no more.
const CACHE_KIB: i32 = 256;
/// Most bytes that the write-ahead log keeps on disk when all of it is in the database.
const WAL_KEPT: i32 = 4 << 20;
/// How long a reader waits for a lock: only while a crash is being recovered from is there one.
const READER_PATIENCE: Duration = Duration::from_secs(5);

/// Which file it is: device and inode.
pub(crate) type FileId = (u64, u64);

/// The file that is at the path now; `None` when there is none.
pub(crate) fn file_at(path: &Path) -> io::Result<Option<FileId>> {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        metadata => metadata.map(|metadata| Some((metadata.dev(), metadata.ino()))),
    }
}

/// Opens the database at `path` to write, or begins it, mode 0600, and takes the steps of the schema that are missing.
pub(crate) fn open_writer(path: &Path, patience: Duration) -> Result<Connection, StoreError> {
    // Made by us, not by SQLite, for its mode; one that is there is not touched, since to open and close it would release
    // the locks of this process's readers (fcntl(2)).
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => drop(made?),
    }
    open_to_write(path, patience).map_err(|error| why(path, error))
}

fn open_to_write(path: &Path, patience: Duration) -> Result<Connection, StoreError> {
    let mut conn = Connection::open_with_flags(path, flags(OpenFlags::SQLITE_OPEN_READ_WRITE))?;
    conn.busy_timeout(patience)?;
    settle(&conn)?;
    if schema::look(&conn, STEPS.len())? == Found::Empty {
        // Only possible before there are tables.
        conn.pragma_update(None, "auto_vacuum", "incremental")?;
    }
    // A read-only database says so here.
    conn.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    // When to copy the log into the database is for the writer to say: not while somebody waits for a commit.
    conn.pragma_update_and_check(None, "wal_autocheckpoint", 0, |_| Ok(()))?;
    conn.pragma_update_and_check(None, "journal_size_limit", WAL_KEPT, |_| Ok(()))?;
    schema::migrate(&mut conn, STEPS)?;
    Ok(conn)
}

/// Opens the database at `path` to read; `None` when it has no tables yet.
pub(crate) fn open_reader(path: &Path) -> Result<Option<Connection>, StoreError> {
    let open = || {
        let conn = Connection::open_with_flags(path, flags(OpenFlags::SQLITE_OPEN_READ_ONLY))?;
        conn.busy_timeout(READER_PATIENCE)?;
        settle(&conn)?;
        Ok(match schema::look(&conn, STEPS.len())? {
            Found::Empty => None,
            Found::Version(_) => Some(conn),
        })
    };
    open().map_err(|error| why(path, error))
}

fn flags(access: OpenFlags) -> OpenFlags {
    // A connection belongs to one thread at a time, which Rust checks; and a path is a path, no URI.
    access | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

fn settle(conn: &Connection) -> Result<(), StoreError> {
    conn.pragma_update(None, "cache_size", -CACHE_KIB)?;
    // What is mapped counts as memory of ours, and a file that somebody cuts would be SIGBUS.
    conn.pragma_update_and_check(None, "mmap_size", 0, |_| Ok(()))?;
    conn.pragma_update(None, "temp_store", "memory")?;
    // Damage is found when a page is read, not when its rows make no sense.
    conn.pragma_update(None, "cell_size_check", true)?;
    conn.pragma_update(None, "trusted_schema", false)?;
    Ok(())
}

/// SQLite says that it cannot open a file beside the database, but not why: the system does, when asked to make one.
fn why(path: &Path, error: StoreError) -> StoreError {
    let StoreError::Sql(sql) = &error else { return error };
    if sql.sqlite_error_code() != Some(rusqlite::ErrorCode::CannotOpen) {
        return error;
    }
    let probe = path.with_extension(format!("probe-{}", std::process::id()));
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&probe) {
        Ok(_) => {
            let _ = std::fs::remove_file(&probe);
            error
        }
        Err(error) => StoreError::Io(error),
    }
}
