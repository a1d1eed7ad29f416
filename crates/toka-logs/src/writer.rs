//! The writing end of a log: moves what is in a pipe to the end of the file inside the kernel (splice(2)), begins the next
//! file when it is time to, and loses nothing without saying how much.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{SpliceFFlags, splice};
use toka_core::{LogPolicy, WhenFull};

use super::index::{Batch, End, Gap, MAGIC, Mark, Stream};
use super::place::LogPlace;
use super::rotation::{self, Current};
use super::{index_path, now_ms};

/// Most bytes that one call moves: a whole pipe of the default size, several times over.
const MOVE: usize = 256 * 1024;

/// How far a log may grow beyond its size so that it ends with a line: a share of it.
const SLACK: u64 = 16;

/// How bytes get from the pipe to the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Within the kernel.
    Splice,
    /// Through this program, for file systems that cannot be spliced to.
    Copy,
}

/// What one call did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// So many bytes were written.
    Written(usize),
    /// So many bytes were thrown away, because the disk is full.
    Discarded(usize),
    /// Nothing: the disk is full, and what is in the pipe waits.
    Full,
    /// Nobody holds the other end any more, and everything has been read.
    Eof,
}

/// Where the output of a terminal is shown beside its log.
pub trait Screen: std::fmt::Debug + Send + Sync {
    /// Shows the next bytes; must not wait for who looks.
    fn show(&self, bytes: &[u8]);
    /// There are no more.
    fn close(&self);
}

/// Appends to one log. Not safe to have twice for one file.
#[derive(Debug)]
pub struct LogWriter {
    place: LogPlace,
    log: File,
    index: File,
    offset: u64,
    index_offset: u64,
    way: Way,
    when_full: WhenFull,
    lost: u64,
    missing: Option<Missing>,
    rotation: Option<Rotation>,
    /// Whether the index tells of anything that was written through it.
    has_noted: bool,
    scratch: Vec<u8>,
    /// What of the scratch was read from the pipe and is not written yet.
    held: Range<usize>,
    /// Who sees it beside the log: nobody, unless it comes from a terminal.
    terminal: Option<Box<dyn Screen>>,
}

/// The gap that is being counted.
#[derive(Debug, Clone, Copy)]
struct Missing {
    gap: Gap,
    /// Where its record is, once there is one.
    at: Option<u64>,
    /// The number in it.
    told: u32,
}

/// What is known of the current log where it becomes an older one some day.
#[derive(Debug, Clone, Copy)]
struct Rotation {
    policy: LogPolicy,
    mark: Mark,
    since_ms: Option<i64>,
    /// After a turn that failed: the length at which it is tried anew.
    retry_at: u64,
}

impl Rotation {
    /// The length at which nothing is added any more, in bytes.
    fn longest(&self) -> u64 {
        let size = self.policy.max_size.0;
        size.saturating_add(size / SLACK).max(self.retry_at)
    }

    /// Whether the log is to become an older one, as it is, or as soon as it ends with a line.
    fn due(&self, length: u64, now_ms: i64) -> Due {
        let size = self.policy.max_size.0;
        if length < self.retry_at || length == 0 {
            return Due::No;
        }
        if length >= self.longest() {
            return Due::Now;
        }
        let age =
            self.since_ms.map_or(0, |since| u128::from(now_ms.saturating_sub(since).max(0).unsigned_abs()));
        if length >= size || age >= self.policy.max_age.as_millis() { Due::AtLineEnd } else { Due::No }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    No,
    AtLineEnd,
    Now,
}

impl LogWriter {
    /// Opens the log: where output is kept, to write on at the end of the same run's, or behind what was there of another
    /// run; else empty. Only its owner may read it.
    ///
    /// # Errors
    /// When a file cannot be created or opened.
    pub fn open(place: &LogPlace) -> io::Result<Self> {
        let Some(kept) = &place.kept else { return Self::create(place) };
        let current = rotation::take_up(place.path(), kept.run)?;
        let rotation =
            Rotation { policy: kept.policy(), mark: current.mark, since_ms: current.since_ms, retry_at: 0 };
        if super::names::older_folder(place.path()).exists() {
            place.hand_over();
        }
        Ok(Self::over(place, current, kept.policy().when_full, Some(rotation)))
    }

    fn create(place: &LogPlace) -> io::Result<Self> {
        let open = |path: &Path| {
            OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)
        };
        let log = open(place.path())?;
        let mut index = open(&index_path(place.path()))?;
        index.write_all(MAGIC)?;
        let mark = Mark { run: toka_core::RunId::from_bytes([0; 16]), number: 0 };
        let index_length = MAGIC.len() as u64;
        let current = Current { log, index, mark, length: 0, index_length, since_ms: None };
        Ok(Self::over(place, current, WhenFull::Drop, None))
    }

    fn over(place: &LogPlace, current: Current, when_full: WhenFull, rotation: Option<Rotation>) -> Self {
        Self {
            place: place.clone(),
            log: current.log,
            index: current.index,
            offset: current.length,
            index_offset: current.index_length,
            way: Way::Splice,
            when_full,
            lost: 0,
            missing: None,
            rotation,
            has_noted: false,
            scratch: Vec::new(),
            held: 0..0,
            terminal: None,
        }
    }

    /// What is read from now on is the output of a terminal: others see it too, and its end shows otherwise.
    pub fn show_on(&mut self, terminal: Box<dyn Screen>) {
        (self.way, self.terminal) = (Way::Copy, Some(terminal));
    }

    /// Nothing more is read.
    pub(super) fn show_no_more(&mut self) {
        if let Some(terminal) = self.terminal.take() {
            terminal.close();
        }
    }

    /// Reads into the scratch. A terminal on which nobody writes any more says so with an error (`EIO`).
    fn read(&mut self, pipe: BorrowedFd<'_>, most: usize) -> Result<usize, Errno> {
        self.scratch.resize(MOVE, 0);
        let count = match (nix::unistd::read(pipe, &mut self.scratch[..most]), &self.terminal) {
            (Err(Errno::EIO), Some(_)) => 0,
            (outcome, _) => outcome?,
        };
        if let Some(terminal) = &self.terminal {
            terminal.show(&self.scratch[..count]);
        }
        Ok(count)
    }

    /// Bytes in the current log.
    pub fn len(&self) -> u64 {
        self.offset
    }

    /// Whether nothing is in it yet.
    pub fn is_empty(&self) -> bool {
        self.offset == 0
    }

    /// Bytes thrown away so far.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// From now on nothing waits for room any more: nobody is left who could.
    pub fn wait_no_more(&mut self) {
        self.when_full = WhenFull::Drop;
    }

    /// The file of raw bytes, for those who look into what has just been written.
    pub(super) fn log(&self) -> &File {
        &self.log
    }

    /// Moves once from `pipe`, which must not block, to the end of the log.
    ///
    /// # Errors
    /// `WouldBlock` when the pipe is empty; others when the pipe itself is broken. A log that cannot be written is no
    /// error: the bytes are thrown away and counted, or wait.
    pub fn take(&mut self, pipe: BorrowedFd<'_>) -> io::Result<Moved> {
        let moved = match self.way {
            Way::Splice => self.splice(pipe),
            Way::Copy => self.copy(pipe),
        };
        match moved {
            Err(Errno::EINVAL) if self.way == Way::Splice => {
                self.way = Way::Copy;
                self.take(pipe)
            }
            Err(Errno::EAGAIN) => Err(io::ErrorKind::WouldBlock.into()),
            Err(Errno::EINTR) => Ok(Moved::Written(0)),
            Err(Errno::ENOSPC | Errno::EDQUOT | Errno::EFBIG | Errno::EIO | Errno::EROFS) => {
                match self.when_full {
                    WhenFull::Drop => self.discard(pipe),
                    WhenFull::Block => Ok(Moved::Full),
                }
            }
            Err(errno) => Err(errno.into()),
            Ok(0) => Ok(Moved::Eof),
            Ok(count) => {
                self.offset += count as u64;
                Ok(Moved::Written(count))
            }
        }
    }

    fn splice(&self, pipe: BorrowedFd<'_>) -> Result<usize, Errno> {
        let mut at = i64::try_from(self.offset).map_err(|_| Errno::EFBIG)?;
        let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
        splice(pipe, None, &self.log, Some(&mut at), self.room().min(MOVE), flags)
    }

    /// Whether nothing more fits into this log, and the next one has to be begun.
    pub(super) fn is_long(&self) -> bool {
        self.rotation.is_some_and(|rotation| self.offset >= rotation.longest())
    }

    /// Bytes that fit into this log; never none, since a full one is no reason to stop.
    fn room(&self) -> usize {
        let left = self.rotation.map(|rotation| rotation.longest().saturating_sub(self.offset));
        left.filter(|left| *left > 0).and_then(|left| usize::try_from(left).ok()).unwrap_or(MOVE)
    }

    fn copy(&mut self, pipe: BorrowedFd<'_>) -> Result<usize, Errno> {
        if self.held.is_empty() {
            let most = self.room().min(MOVE);
            self.held = 0..self.read(pipe, most)?;
            if self.held.is_empty() {
                return Ok(0);
            }
        }
        match self.log.write_at(&self.scratch[self.held.clone()], self.offset) {
            Ok(count) if count > 0 => {
                self.held.start += count;
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(Errno::EINTR),
            // They are out of the pipe already; whatever keeps them from the file, it is the file's fault.
            _ => Err(Errno::EIO),
        }
    }

    fn discard(&mut self, pipe: BorrowedFd<'_>) -> io::Result<Moved> {
        if self.held.is_empty() {
            match self.read(pipe, MOVE) {
                Ok(0) => return Ok(Moved::Eof),
                Ok(count) => self.held = 0..count,
                Err(errno) => return Err(errno.into()),
            }
        }
        let count = std::mem::take(&mut self.held).len();
        self.miss(count);
        Ok(Moved::Discarded(count))
    }

    fn miss(&mut self, count: usize) {
        self.lost += count as u64;
        self.place.count(count as u64);
        let offset = self.offset;
        let more = u32::try_from(count).unwrap_or(u32::MAX);
        // One record counts up to 4 GiB, at one place; what is lost before it could be written counts along.
        self.missing = self.missing.filter(|missing| {
            let same = missing.gap.offset == offset || missing.at.is_none();
            same && missing.gap.lost.checked_add(more).is_some()
        });
        let new = || Missing { gap: Gap { offset, time_ms: now_ms(), lost: 0 }, at: None, told: 0 };
        self.missing.get_or_insert_with(new).gap.lost += more;
    }

    /// Writes the record of the gap, or writes it anew with its new number. Whether the index tells it; what fails is to be
    /// tried again.
    pub(super) fn note_gap(&mut self) -> bool {
        let Some(missing) = &mut self.missing else { return true };
        if missing.told == missing.gap.lost {
            return true;
        }
        let at = missing.at.unwrap_or(self.index_offset);
        let record = missing.gap.encode();
        if self.index.write_all_at(&record, at).is_err() {
            return false;
        }
        missing.told = missing.gap.lost;
        if missing.at.replace(at).is_none() {
            self.index_offset += record.len() as u64;
        }
        true
    }

    /// Says in the index where the bytes from `start` to the end of the log came from, and what is missing among them. A
    /// record that cannot be written is left out; readers then know neither time nor stream of those bytes.
    pub fn note(&mut self, stream: Stream, start: u64, time_ms: i64) {
        self.has_noted = true;
        self.place.count(self.offset - start);
        if let Some(rotation) = &mut self.rotation {
            rotation.since_ms.get_or_insert(time_ms);
        }
        let gap = self.missing.map_or(self.offset, |missing| missing.gap.offset).clamp(start, self.offset);
        self.note_batch(stream, start..gap, time_ms);
        // One with bytes behind it is over.
        if self.note_gap() && gap < self.offset {
            self.missing = None;
        }
        self.note_batch(stream, gap..self.offset, time_ms);
    }

    /// Says in the index that both streams have ended, so that what the next life writes goes on with no line of this one.
    pub(super) fn note_end(&mut self, time_ms: i64) {
        self.note_gap();
        // A life that wrote nothing has nothing to end, unless the daemon before this one wrote for it.
        if self.offset == 0 || (!self.has_noted && self.ends_with_line()) {
            return;
        }
        let record = End { offset: self.offset, time_ms }.encode();
        if self.index.write_all_at(&record, self.index_offset).is_ok() {
            self.index_offset += record.len() as u64;
        }
    }

    fn note_batch(&mut self, stream: Stream, bytes: Range<u64>, time_ms: i64) {
        let mut offset = bytes.start;
        while offset < bytes.end {
            let length = u32::try_from(bytes.end - offset).unwrap_or(u32::MAX);
            let record = Batch { offset, time_ms: Some(time_ms), length, stream }.encode();
            if self.index.write_all_at(&record, self.index_offset).is_ok() {
                self.index_offset += record.len() as u64;
            }
            offset += u64::from(length);
        }
    }

    /// Begins the next log if this one is large or old enough, if possible where a line ends. Bytes that have no record yet
    /// would lose their time: to be called when all have.
    pub fn turn_if_due(&mut self, now_ms: i64) {
        let Some(mut rotation) = self.rotation else { return };
        if let Some(kept) = &self.place.kept {
            // It may have been declared otherwise meanwhile.
            rotation.policy = kept.policy();
            self.rotation = Some(rotation);
        }
        match rotation.due(self.offset, now_ms) {
            Due::No => {}
            Due::AtLineEnd if !self.ends_with_line() => {}
            Due::AtLineEnd | Due::Now => self.turn(rotation),
        }
    }

    /// Looks whether somebody has removed, replaced or emptied the current log, and goes on with a new one then: what is written
    /// into a file without a name is lost for all. The answer is how many bytes are gone, which the new log tells as a gap.
    pub(super) fn follow_file(&mut self) -> Option<u64> {
        let known = self.log.metadata().ok()?;
        let named = std::fs::symlink_metadata(self.place.path());
        let is_ours =
            named.as_ref().is_ok_and(|named| (named.dev(), named.ino()) == (known.dev(), known.ino()));
        let was_emptied = known.len() < self.offset;
        if is_ours && !was_emptied {
            if let Err(error) = self.follow_index() {
                let log = self.place.path().display();
                tracing::warn!(%log, %error, "the index of the log was removed, and could not be written again");
            }
            return None;
        }
        // Under another name everything is still there.
        let is_kept = known.nlink() > 0 && !was_emptied;
        let gone = match (is_kept, known.nlink()) {
            (true, _) => 0,
            (false, 0) => self.offset,
            (false, _) => self.offset - known.len().min(self.offset),
        };
        let reopened = self.reopen();
        if let Err(error) = reopened {
            let log = self.place.path().display();
            tracing::warn!(%log, %error, "the log was removed, and no new one could be begun");
            return None;
        }
        self.tell_gone(gone);
        Some(gone)
    }

    /// Writes the index again that somebody has removed, replaced or emptied: without it readers find nothing in the log. What
    /// is lost of it, they only know the text of.
    fn follow_index(&mut self) -> io::Result<()> {
        let path = index_path(self.place.path());
        let known = self.index.metadata()?;
        let named = std::fs::symlink_metadata(&path);
        let is_ours = named.is_ok_and(|named| (named.dev(), named.ino()) == (known.dev(), known.ino()));
        let is_whole = known.len() >= self.index_offset;
        if is_ours && is_whole {
            return Ok(());
        }
        let mut records = Vec::new();
        if is_whole {
            let length = usize::try_from(self.index_offset).map_err(io::Error::other)?;
            records.resize(length, 0);
            self.index.read_exact_at(&mut records, 0)?;
        } else {
            records.extend_from_slice(MAGIC);
            records.extend(self.rotation.iter().flat_map(|rotation| rotation.mark.encode()));
        }
        let beside = path.with_extension("index.new");
        let _ = std::fs::remove_file(&beside);
        let mut index =
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&beside)?;
        index.write_all(&records)?;
        std::fs::rename(&beside, &path)?;
        (self.index, self.index_offset) = (index, records.len() as u64);
        self.missing = self.missing.filter(|_| is_whole);
        Ok(())
    }

    fn reopen(&mut self) -> io::Result<()> {
        let Some(rotation) = self.rotation else {
            let next = Self::create(&self.place)?;
            (self.log, self.index) = (next.log, next.index);
            (self.offset, self.index_offset, self.missing) = (next.offset, next.index_offset, None);
            return Ok(());
        };
        let current = rotation::begin_after(self.place.path(), rotation.mark)?;
        self.rotation = Some(Rotation { mark: current.mark, since_ms: None, retry_at: 0, ..rotation });
        (self.log, self.index) = (current.log, current.index);
        (self.offset, self.index_offset, self.missing) = (current.length, current.index_length, None);
        Ok(())
    }

    fn tell_gone(&mut self, gone: u64) {
        self.lost += gone;
        let mut left = gone;
        while left > 0 {
            let lost = u32::try_from(left).unwrap_or(u32::MAX);
            let gap = Gap { offset: self.offset, time_ms: now_ms(), lost };
            self.missing = Some(Missing { gap, at: None, told: 0 });
            self.note_gap();
            left -= u64::from(lost);
        }
    }

    fn ends_with_line(&self) -> bool {
        let mut last = [0];
        self.offset > 0 && self.log.read_at(&mut last, self.offset - 1).is_ok_and(|_| last == [b'\n'])
    }

    fn turn(&mut self, rotation: Rotation) {
        match rotation::rotate(self.place.path(), rotation.mark) {
            Ok(current) => {
                let next = Rotation { mark: current.mark, since_ms: None, retry_at: 0, ..rotation };
                self.rotation = Some(next);
                (self.log, self.index) = (current.log, current.index);
                (self.offset, self.index_offset) = (current.length, current.index_length);
                self.missing = None;
                self.place.hand_over();
            }
            Err(error) => {
                let log = self.place.path().display();
                tracing::warn!(%log, %error, "no new log could be begun");
                let retry_at = self.offset + rotation.policy.max_size.0 / SLACK;
                self.rotation = Some(Rotation { retry_at, ..rotation });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd as _, OwnedFd};

    use nix::fcntl::OFlag;
    use nix::unistd::{pipe2, write};

    use super::*;
    use crate::index::{RECORD, Record};

    fn log() -> (tempfile::TempDir, LogWriter) {
        let folder = tempfile::tempdir().expect("a folder");
        let writer = LogWriter::open(&LogPlace::alone(folder.path().join("log"))).expect("a log");
        (folder, writer)
    }

    fn pipe() -> (OwnedFd, OwnedFd) {
        pipe2(OFlag::O_NONBLOCK).expect("a pipe")
    }

    /// The kernel's own full disk: every write to it fails with ENOSPC.
    fn full() -> File {
        OpenOptions::new().write(true).open("/dev/full").expect("the device")
    }

    #[test]
    fn bytes_arrive_exactly_and_the_end_is_seen() {
        let (folder, mut writer) = log();
        let (read, end) = pipe();
        write(&end, b"one\n").expect("room");
        assert_eq!(writer.take(read.as_fd()).expect("bytes"), Moved::Written(4));
        assert_eq!(writer.take(read.as_fd()).expect_err("empty").kind(), io::ErrorKind::WouldBlock);
        write(&end, b"\0two").expect("room");
        assert_eq!(writer.take(read.as_fd()).expect("bytes"), Moved::Written(4));
        drop(end);
        assert_eq!(writer.take(read.as_fd()).expect("the end"), Moved::Eof);
        assert_eq!(std::fs::read(folder.path().join("log")).expect("the log"), b"one\n\0two");
    }

    #[test]
    fn a_full_disk_costs_bytes_that_are_counted_in_one_gap_but_never_blocks() {
        let (folder, mut writer) = log();
        let disk = std::mem::replace(&mut writer.log, full());
        let (read, end) = pipe();
        for way in [Way::Splice, Way::Copy] {
            writer.way = way;
            write(&end, b"lost").expect("room");
            let before = writer.lost();
            while writer.take(read.as_fd()).is_ok() {}
            assert_eq!(writer.lost() - before, 4, "{way:?}");
        }
        assert_eq!(writer.len(), 0);
        writer.log = disk;
        write(&end, b"kept\n").expect("room");
        while writer.take(read.as_fd()).is_ok() {}
        writer.note(Stream::Stdout, 0, 7);
        assert_eq!(writer.place.written(), 13, "whatever became of it, it was written");
        let index = std::fs::read(folder.path().join("log.index")).expect("the index");
        let records: Vec<_> = index.chunks(RECORD).skip(1).map(Record::decode).collect();
        let [Some(Record::Gap(gap)), Some(Record::Batch(batch))] = records[..] else { panic!("{records:?}") };
        assert_eq!((gap.lost, gap.offset, batch.offset, batch.length), (8, 0, 0, 5));
    }

    #[test]
    fn where_output_waits_for_room_nothing_is_lost() {
        let (folder, mut writer) = log();
        writer.when_full = WhenFull::Block;
        let (read, end) = pipe();
        for way in [Way::Splice, Way::Copy] {
            let disk = std::mem::replace(&mut writer.log, full());
            writer.way = way;
            write(&end, b"held").expect("room");
            for _ in 0..3 {
                assert_eq!(writer.take(read.as_fd()).expect("no error"), Moved::Full, "{way:?}");
            }
            writer.log = disk;
            assert_eq!(writer.take(read.as_fd()).expect("bytes"), Moved::Written(4), "{way:?}");
        }
        assert_eq!(writer.lost(), 0);
        assert_eq!(std::fs::read(folder.path().join("log")).expect("the log"), b"heldheld");
        writer.log = full();
        write(&end, b"end").expect("room");
        assert_eq!(writer.take(read.as_fd()).expect("no error"), Moved::Full);
        writer.wait_no_more();
        assert_eq!(writer.take(read.as_fd()).expect("no error"), Moved::Discarded(3));
    }

    #[test]
    fn a_file_that_cannot_be_spliced_to_is_written_to() {
        let (folder, mut writer) = log();
        writer.log = OpenOptions::new().append(true).open(folder.path().join("log")).expect("the log");
        let (read, end) = pipe();
        write(&end, b"still here").expect("room");
        assert_eq!(writer.take(read.as_fd()).expect("bytes"), Moved::Written(10));
        assert_eq!(writer.way, Way::Copy);
        assert_eq!(std::fs::read(folder.path().join("log")).expect("the log"), b"still here");
    }

    #[test]
    fn when_a_log_is_due() {
        let policy = LogPolicy::default();
        let mark = Mark { run: toka_core::RunId::from_bytes([0; 16]), number: 0 };
        let rotation = Rotation { policy, mark, since_ms: Some(1000), retry_at: 0 };
        let week = 7 * 24 * 3600 * 1000;
        let size = policy.max_size.0;
        for (length, now, due) in [
            (0, i64::MAX, Due::No),
            (1, 0, Due::No),
            (1, 999 + week, Due::No),
            (1, 1000 + week, Due::AtLineEnd),
            (size - 1, 1000, Due::No),
            (size, 1000, Due::AtLineEnd),
            (size + size / SLACK, 1000, Due::Now),
        ] {
            assert_eq!(rotation.due(length, now), due, "{length} at {now}");
        }
        assert_eq!(Rotation { retry_at: 2 * size, ..rotation }.due(size + size / 2, 0), Due::No);
        assert_eq!(Rotation { since_ms: None, ..rotation }.due(1, i64::MAX), Due::No);
    }
}
