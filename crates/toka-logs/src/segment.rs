//! The logs of one agent: the current one, and the older ones that it became, in the order in which they were written.
//!
//! ```text
//! <agent>/log, log.index                                the current one
//! <agent>/logs/RUN.000000.log(.gz), ….log.index(.gz)    older ones: id of the run, number within it
//! ```
//!
//! Ids of runs sort by time, so names do. Where a file is there both as it was and compressed, it was being compressed when
//! somebody pulled the plug, and the one that was there first counts.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use toka_core::RunId;

use super::index::{MAGIC, Mark, RECORD, Record};
use super::index_path;
use super::names::{INDEX, LOG, older_folder, stem, with};
use super::source::Source;

/// How often opening the current log is tried anew because it has just become an older one.
const TRIES: usize = 10;

/// What an older log is, by the name of one of its files; `None` when it is none of ours.
pub(super) fn mark_of(name: &str) -> Option<Mark> {
    let (run, rest) = name.split_once('.')?;
    let (number, _) = rest.split_once('.')?;
    Some(Mark { run: RunId::parse(run)?, number: number.parse().ok()? })
}

/// One log of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Which one; `None` for one of a time when logs did not say.
    pub mark: Option<Mark>,
    /// Where it is.
    pub place: Place,
}

/// Where a log is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// It is the one that is written, or was written last.
    Current(PathBuf),
    /// It is an older one: its path without what ends the names of its files.
    Older(PathBuf),
}

/// A log's bytes and its index.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) log: Source,
    pub(super) index: Source,
    pub(super) mark: Option<Mark>,
}

impl Segment {
    /// The run that it is of.
    pub fn run(&self) -> Option<RunId> {
        self.mark.map(|mark| mark.run)
    }

    /// When the first of it was written, in milliseconds since the Unix epoch; `None` when that cannot be told.
    pub fn begun_ms(&self) -> Option<i64> {
        let mut index = self.open().ok()?.index;
        let mut records = [0; 3 * RECORD];
        let count = index.read_at(&mut records, 0).ok()?;
        let (records, _) = records[..count].as_chunks::<RECORD>();
        records.iter().skip(1).find_map(|record| Record::decode(record)?.time_ms())
    }

    /// In the middle of a turn the index has not yet followed its log.
    fn older_index(&self, stem: &Path) -> io::Result<Source> {
        let followed = Source::older(&with(stem, INDEX));
        let current = stem.parent().and_then(Path::parent).map(|folder| folder.join("log.index"));
        match (followed, current.map(File::open)) {
            (Err(_), Some(Ok(index))) if read_mark(&index)? == self.mark => Ok(Source::plain(index)),
            (followed, _) => followed,
        }
    }

    pub(super) fn open(&self) -> io::Result<Opened> {
        match &self.place {
            Place::Current(log) => current(log),
            Place::Older(stem) => {
                let log = Source::older(&with(stem, LOG))?;
                // One whose index was lost is still worth reading.
                let index = self.older_index(stem).unwrap_or_else(|_| Source::empty());
                Ok(Opened { log, index, mark: self.mark })
            }
        }
    }
}

/// The logs of the agent whose current one is `log`, oldest first; empty when there is none.
///
/// # Errors
/// When the folder cannot be read.
pub fn segments(log: &Path) -> io::Result<Vec<Segment>> {
    let mut found = Vec::new();
    // The current one is looked for first: if it becomes an older one meanwhile, it is found twice, and never missed.
    let now = match current(log) {
        Ok(opened) => Some(Segment { mark: opened.mark, place: Place::Current(log.to_owned()) }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    for mark in older_marks(log)? {
        let stem = older_folder(log).join(stem(mark));
        found.push(Segment { mark: Some(mark), place: Place::Older(stem) });
    }
    if let Some(now) = now {
        match found.iter().position(|older| older.mark == now.mark && now.mark.is_some()) {
            Some(at) => found.truncate(at + 1),
            None => found.push(now),
        }
    }
    Ok(found)
}

/// Which older logs there are, sorted.
pub(super) fn older_marks(log: &Path) -> io::Result<Vec<Mark>> {
    let entries = match std::fs::read_dir(older_folder(log)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut marks = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.ends_with(LOG) || name.ends_with(".log.gz") {
            marks.extend(mark_of(name));
        }
    }
    marks.sort_unstable();
    marks.dedup();
    Ok(marks)
}

/// Opens the current log with the index that belongs to it, although both may be renamed meanwhile.
fn current(log: &Path) -> io::Result<Opened> {
    let index = index_path(log);
    let mut outcome = Err(io::ErrorKind::NotFound.into());
    for _ in 0..TRIES {
        outcome = File::open(log).and_then(|bytes| Ok((bytes, File::open(&index)?)));
        let (bytes, records) = match &outcome {
            Ok(files) => files,
            Err(error) if error.kind() == io::ErrorKind::NotFound && index.exists() != log.exists() => {
                std::thread::yield_now();
                continue;
            }
            Err(_) => break,
        };
        if is_at(bytes, log) && is_at(records, &index) {
            break;
        }
    }
    let (bytes, records) = outcome?;
    let mark = read_mark(&records)?;
    Ok(Opened { log: Source::plain(bytes), index: Source::plain(records), mark })
}

/// Whether the file is still what the path leads to.
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    let identity = |metadata: &std::fs::Metadata| (metadata.dev(), metadata.ino());
    matches!((path.metadata(), file.metadata()), (Ok(found), Ok(open)) if identity(&found) == identity(&open))
}

/// What the index says of itself; `None` when it does not, or is torn.
///
/// # Errors
/// When it cannot be read, or is no index.
pub(super) fn read_mark(index: &File) -> io::Result<Option<Mark>> {
    let mut bytes = [0; 2 * RECORD];
    let count = index.read_at(&mut bytes, 0)?;
    check_header(&bytes[..count.min(RECORD)])?;
    Ok(match Record::decode(&bytes[RECORD..count.max(RECORD)]) {
        Some(Record::Mark(mark)) => Some(mark),
        _ => None,
    })
}

/// Whether these are the first bytes of an index, or all that a crash left of them.
pub(super) fn check_header(bytes: &[u8]) -> io::Result<()> {
    if bytes == &MAGIC[..bytes.len()] {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "not the index of a log"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_as_they_were_written_and_tell_run_and_number() {
        let run = |byte| RunId::from_bytes([byte; 16]);
        let marks = [(1, 0), (1, 9), (1, 10), (1, 999_999), (2, 0)];
        let marks = marks.map(|(byte, number)| Mark { run: run(byte), number });
        let names = marks.map(|mark| stem(mark) + LOG);
        assert!(names.is_sorted(), "{names:?}");
        assert_eq!(names.map(|name| mark_of(&name)), marks.map(Some));
        for other in ["log", "notes.txt", "x.000001.log", &format!("{}.x.log", run(1))] {
            assert_eq!(mark_of(other), None, "{other}");
        }
    }
}
