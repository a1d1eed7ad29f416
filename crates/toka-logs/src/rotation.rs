//! The turn from one log to the next, in steps that can be broken off after any of them: what is there then tells which, and
//! [`take_up`] does the rest.
//!
//! ```text
//! make log.next.index, log.next            broken off: both are removed
//! log       ─▶ logs/RUN.NUMBER.log         broken off: the index says where the log went, and follows it
//! log.index ─▶ logs/RUN.NUMBER.log.index   broken off: there is no current log, and one is made
//! log.next.index ─▶ log.index              broken off: an index of nothing; it is removed
//! log.next       ─▶ log
//! ```
//!
//! Nothing is truncated or removed that has bytes in it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use toka_core::RunId;

use super::index::{MAGIC, Mark, RECORD, Record};
use super::index_path;
use super::names::{GZIP, INDEX, LOG, older_folder, stem, with};
use super::place::is_missing;
use super::segment::{older_marks, read_mark};

/// Names what will be the next log, until it is.
const NEXT: &str = ".next";

/// A current log, open for its writer.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) log: File,
    pub(super) index: File,
    pub(super) mark: Mark,
    /// Bytes in the log.
    pub(super) length: u64,
    /// Bytes in the index, of whole records.
    pub(super) index_length: u64,
    /// When the first of its bytes was written; `None` when there is none.
    pub(super) since_ms: Option<i64>,
}

/// Opens the current log of `run` to write on at its end. One of another run becomes an older one first.
///
/// # Errors
/// When a file cannot be opened, made or renamed.
pub(super) fn take_up(path: &Path, run: RunId) -> io::Result<Current> {
    for left in [with(path, NEXT), index_path(&with(path, NEXT))] {
        remove(&left)?;
    }
    finish(path)?;
    match OpenOptions::new().read(true).write(true).open(path) {
        Ok(log) => {
            let index = open_index(path)?;
            let mark = read_mark(&index).unwrap_or_default();
            if let Some(mark) = mark.filter(|mark| mark.run == run) {
                return append(log, index, mark);
            }
            drop((log, index));
            set_aside(path, mark)?;
        }
        Err(error) if is_missing(&error) => {}
        Err(error) => return Err(error),
    }
    make(path, Mark { run, number: next_number(path, run)? })
}

/// Makes the current log an older one and begins the next.
///
/// # Errors
/// When that is not possible; then the current one still is what it was.
pub(super) fn rotate(path: &Path, mark: Mark) -> io::Result<Current> {
    let next = with(path, NEXT);
    let current = make(&next, Mark { number: mark.number + 1, ..mark }).and_then(|current| {
        set_aside(path, Some(mark))?;
        Ok(current)
    });
    let current = current.inspect_err(|_| {
        let _ = (remove(&index_path(&next)), remove(&next));
    })?;
    fs::rename(index_path(&next), index_path(path))?;
    fs::rename(&next, path)?;
    Ok(current)
}

/// Begins the log after `mark`, whose file somebody has removed, emptied or put elsewhere. What lies in its place with anything in
/// it becomes an older log, of nobody's run.
///
/// # Errors
/// When a file cannot be made or renamed.
pub(super) fn begin_after(path: &Path, mark: Mark) -> io::Result<Current> {
    remove(&index_path(path))?;
    if path.symlink_metadata().is_ok() {
        open_index(path)?;
        set_aside(path, None)?;
    }
    let number = next_number(path, mark.run)?.max(mark.number + 1);
    make(path, Mark { number, ..mark })
}

/// Does what was left of a turn that was broken off.
fn finish(path: &Path) -> io::Result<()> {
    let index = index_path(path);
    if path.symlink_metadata().is_ok() {
        return Ok(());
    }
    let mark = match File::open(&index) {
        Ok(file) => read_mark(&file).unwrap_or_default(),
        Err(error) if is_missing(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    if let Some(mark) = mark {
        let stem = older_folder(path).join(stem(mark));
        if with(&stem, LOG).exists() && !with(&stem, INDEX).exists() {
            return fs::rename(&index, with(&stem, INDEX));
        }
    }
    remove(&index)
}

fn append(log: File, index: File, mark: Mark) -> io::Result<Current> {
    let length = log.metadata()?.len();
    // A torn record is written over.
    let index_length = index.metadata()?.len() / RECORD as u64 * RECORD as u64;
    index.set_len(index_length)?;
    let since_ms = first_time(&index);
    Ok(Current { log, index, mark, length, index_length, since_ms })
}

/// When the first bytes of a log were written, by the first record behind header and mark.
fn first_time(index: &File) -> Option<i64> {
    let mut record = [0; RECORD];
    index.read_exact_at(&mut record, 2 * RECORD as u64).ok()?;
    Record::decode(&record)?.time_ms()
}

fn make(path: &Path, mark: Mark) -> io::Result<Current> {
    let create =
        |path: &Path| OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path);
    let mut index = create(&index_path(path))?;
    index.write_all(&[&MAGIC[..], &mark.encode()].concat())?;
    // Not O_APPEND: splice(2) refuses such a file with EINVAL.
    let log = create(path)?;
    Ok(Current { log, index, mark, length: 0, index_length: 2 * RECORD as u64, since_ms: None })
}

fn open_index(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(index_path(path))
}

/// Moves the current log to the older ones; one with nothing in it is removed.
fn set_aside(path: &Path, mark: Option<Mark>) -> io::Result<()> {
    let index = index_path(path);
    let told = index.metadata().map_or(0, |index| index.len());
    if path.metadata()?.len() == 0 && told <= 2 * RECORD as u64 {
        remove(path)?;
        return remove(&index);
    }
    let folder = older_folder(path);
    match fs::DirBuilder::new().mode(0o700).create(&folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let stem = folder.join(stem(free(path, mark)?));
    fs::rename(path, with(&stem, LOG))?;
    let moved = fs::rename(&index, with(&stem, INDEX));
    if moved.is_err() {
        fs::rename(with(&stem, LOG), path)?;
    }
    moved
}

/// The mark itself, unless an older log has it, which must not be replaced; for a log that does not say whose it is, one of
/// no run.
fn free(path: &Path, mark: Option<Mark>) -> io::Result<Mark> {
    let nobody = RunId::from_bytes([0; 16]);
    let mark = mark.unwrap_or(Mark { run: nobody, number: 0 });
    let stem = older_folder(path).join(stem(mark));
    if with(&stem, LOG).exists() || with(&with(&stem, LOG), GZIP).exists() {
        return Ok(Mark { number: next_number(path, mark.run)?, ..mark });
    }
    Ok(mark)
}

fn next_number(path: &Path, run: RunId) -> io::Result<u32> {
    let last = older_marks(path)?.into_iter().rfind(|mark| mark.run == run);
    Ok(last.map_or(0, |mark| mark.number + 1))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if !is_missing(&error) => Err(error),
        _ => Ok(()),
    }
}
