//! The reading end of one log: lines with their time and stream, from a file that may still grow, may have been cut
//! short by a crash, and may hold anything.

use std::collections::VecDeque;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::index::{Batch, End, Gap, RECORD, Record, Stream};
use super::segment::{Opened, Place, Segment, check_header};
use super::source::Source;

/// Longest piece that is given at once, in bytes; a longer line comes in several.
pub const MAX_PIECE: usize = 64 * 1024;
/// Records of the index that are read at a time.
const RECORDS: usize = 170;

/// How a piece of output ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With a newline, which is not part of the bytes.
    Newline,
    /// In the middle: the line goes on in the stream's next piece.
    Cut,
    /// With the end of the stream, or where bytes are missing.
    Open,
}

/// A line, or a piece of a long one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Where it was written to.
    pub stream: Stream,
    /// When its first byte was taken from the pipe, in milliseconds since the Unix epoch; `None` when the index was
    /// lost.
    pub time_ms: Option<i64>,
    /// The bytes as they were written, at most [`MAX_PIECE`]: not escaped, not necessarily UTF-8.
    pub bytes: Vec<u8>,
    /// How it ends.
    pub ending: Ending,
}

/// What a log consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// Something that was written.
    Line(Line),
    /// Here bytes are missing.
    Gap(Gap),
}

/// Whether more can come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writer {
    /// To this file.
    Alive,
    /// Not to this file; its last lines may go on in the next.
    Elsewhere,
    /// No.
    Gone,
}

/// The beginning of a line.
#[derive(Debug, Default)]
struct Unfinished {
    bytes: Vec<u8>,
    time_ms: Option<i64>,
}

/// The beginnings of lines that the end of a log cut, for the next log.
#[derive(Debug, Default)]
pub(super) struct Rests([Unfinished; 2]);

/// Reads one log from front to back.
#[derive(Debug)]
pub struct LogReader {
    log: Source,
    index: Source,
    log_at: u64,
    index_at: u64,
    /// Records that were read from the index and not looked at yet.
    records: VecDeque<[u8; RECORD]>,
    /// Bytes of the log from `window_at` on.
    window: Vec<u8>,
    window_at: u64,
    batch: Option<Batch>,
    unfinished: [Unfinished; 2],
    entries: VecDeque<Entry>,
    writer: Writer,
    /// Whether the log has no more bytes although the index says so.
    dry: bool,
}

impl LogReader {
    /// Opens the current log at `path`, which is being written or has been.
    ///
    /// # Errors
    /// When the log or its index cannot be opened, or the index is of a kind that this program does not know.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::of(Segment { mark: None, place: Place::Current(path.to_owned()) }.open()?)
    }

    pub(super) fn of(opened: Opened) -> io::Result<Self> {
        let Opened { log, mut index, .. } = opened;
        let mut header = [0; RECORD];
        let count = index.read_at(&mut header, 0)?;
        check_header(&header[..count])?;
        Ok(Self {
            log,
            index,
            log_at: 0,
            index_at: RECORD as u64,
            records: VecDeque::new(),
            window: Vec::new(),
            window_at: 0,
            batch: None,
            unfinished: Default::default(),
            entries: VecDeque::new(),
            writer: Writer::Alive,
            dry: false,
        })
    }

    /// Says that nobody writes to it any more: what has no newline and what has no index record is then given too.
    pub fn end(&mut self) {
        self.writer = Writer::Gone;
    }

    /// Says that nobody writes to it any more, but to the next one of the same run.
    pub(super) fn end_with_next(&mut self) {
        self.writer = Writer::Elsewhere;
    }

    /// The beginnings of lines that go on in the next log.
    pub(super) fn into_rests(self) -> Rests {
        Rests(self.unfinished)
    }

    /// Takes the beginnings of lines from the log before.
    pub(super) fn go_on_from(&mut self, rests: Rests) {
        self.unfinished = rests.0;
    }

    /// How far it is read: in the log, and in its index. What was given of a last line that has no end counts as read.
    pub(super) fn place(&self) -> (u64, u64) {
        (self.log_at, self.index_at)
    }

    /// Goes on from such a place.
    pub(super) fn go_on_at(&mut self, (log_at, index_at): (u64, u64)) {
        (self.log_at, self.index_at) = (log_at, index_at);
    }

    /// The log, to see whether it still is the current one.
    pub(super) fn log(&self) -> &Source {
        &self.log
    }

    /// Begins at most `window` bytes before the end as it is now, if it is possible to leave out anything: then the answer is
    /// which streams are in the middle of a line there.
    pub(super) fn begin_near_end(&mut self, window: u64) -> io::Result<Option<[bool; 2]>> {
        let (Some(log), Some(index)) = (self.log.as_plain(), self.index.as_plain()) else { return Ok(None) };
        let start = log.metadata()?.len().saturating_sub(window);
        if start == 0 {
            return Ok(None);
        }
        let count = index.metadata()?.len() / RECORD as u64;
        // The last record that begins at or before the start. The first after the header may be no batch; it is before.
        let (mut low, mut high) = (1, count.max(1));
        while low + 1 < high {
            let middle = low + (high - low) / 2;
            let mut bytes = [0; RECORD];
            index.read_exact_at(&mut bytes, middle * RECORD as u64)?;
            let begins = match Record::decode(&bytes) {
                Some(
                    Record::Batch(Batch { offset, .. })
                    | Record::Gap(Gap { offset, .. })
                    | Record::End(End { offset, .. }),
                ) => offset,
                _ => 0,
            };
            if begins <= start { low = middle } else { high = middle }
        }
        (self.log_at, self.index_at) = (start, low * RECORD as u64);
        self.unfinished_at(start, low + 1).map(Some)
    }

    /// Which streams are in the middle of a line where the log ends. Reads all of the index, so that a compressed log cannot be
    /// read by this reader afterwards.
    pub(super) fn unfinished_at_end(&mut self) -> io::Result<[bool; 2]> {
        self.unfinished_at(u64::MAX, u64::MAX)
    }

    /// Which streams are in the middle of a line at `end` in the log, by the first `count` records of the index.
    fn unfinished_at(&mut self, end: u64, count: u64) -> io::Result<[bool; 2]> {
        let last = self.last_bytes(end, count.saturating_mul(RECORD as u64))?;
        let mut unfinished = [false; 2];
        // A compressed log is read from front to back.
        let mut streams = Stream::ALL;
        streams.sort_unstable_by_key(|stream| last[*stream as usize]);
        for stream in streams {
            if let Some(offset) = last[stream as usize] {
                let mut byte = [0];
                unfinished[stream as usize] = self.log.read_at(&mut byte, offset)? == 1 && byte != *b"\n";
            }
        }
        Ok(unfinished)
    }

    /// Where the last byte of each stream before `end` lies, by the index up to `index_end`; `None` where there is none since
    /// lines were last ended otherwise.
    fn last_bytes(&mut self, end: u64, index_end: u64) -> io::Result<[Option<u64>; 2]> {
        let mut last = [None; 2];
        let mut at = RECORD as u64;
        let mut bytes = [0; RECORDS * RECORD];
        while at < index_end {
            let most = usize::try_from(index_end - at).map_or(bytes.len(), |left| left.min(bytes.len()));
            let count = self.index.read_at(&mut bytes[..most], at)?;
            let (records, _torn) = bytes[..count].as_chunks::<RECORD>();
            if records.is_empty() {
                break;
            }
            at += (records.len() * RECORD) as u64;
            for record in records {
                match Record::decode(record) {
                    Some(Record::Batch(Batch { offset, length, stream, .. }))
                        if offset < end && length > 0 =>
                    {
                        last[stream as usize] = Some(offset.saturating_add(u64::from(length)).min(end) - 1);
                    }
                    Some(Record::Gap(Gap { offset, .. }) | Record::End(End { offset, .. }))
                        if offset <= end =>
                    {
                        last = [None; 2];
                    }
                    _ => {}
                }
            }
        }
        Ok(last)
    }

    /// The next line, or `None` when there is none at the moment (none at all after [`LogReader::end`]). Gaps are passed
    /// over.
    ///
    /// # Errors
    /// When the files cannot be read.
    pub fn next_line(&mut self) -> io::Result<Option<Line>> {
        loop {
            match self.next_entry()? {
                Some(Entry::Line(line)) => return Ok(Some(line)),
                Some(Entry::Gap(_)) => {}
                None => return Ok(None),
            }
        }
    }

    /// The next line or gap; as [`LogReader::next_line`].
    ///
    /// # Errors
    /// When the files cannot be read.
    pub fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        loop {
            if let Some(entry) = self.entries.pop_front() {
                return Ok(Some(entry));
            }
            if self.batch.is_none() {
                self.batch = self.next_batch()?;
                if !self.entries.is_empty() {
                    continue;
                }
            }
            match self.batch.take() {
                Some(batch) => self.read_some(batch)?,
                None if self.writer != Writer::Gone => return Ok(None),
                None => {
                    self.flush();
                    if self.entries.is_empty() {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// The next stretch of the log, or `None` with a gap or what has ended among the entries. Bytes that the index passes over are a stretch
    /// without a time.
    fn next_batch(&mut self) -> io::Result<Option<Batch>> {
        loop {
            let Some(record) = self.peek_record()? else { return self.unindexed() };
            match Record::decode(&record) {
                Some(Record::Batch(mut batch)) => {
                    if batch.offset > self.log_at && !self.dry {
                        return Ok(Some(Self::unknown(self.log_at, batch.offset)));
                    }
                    self.pass_record();
                    let end = batch.offset.saturating_add(u64::from(batch.length));
                    if end <= self.log_at || self.dry {
                        continue;
                    }
                    batch.length = u32::try_from(end - self.log_at).unwrap_or(u32::MAX);
                    batch.offset = self.log_at;
                    return Ok(Some(batch));
                }
                Some(Record::Gap(gap)) => {
                    // The last one may still be counted up.
                    if self.writer == Writer::Alive && self.is_last_record()? {
                        return Ok(None);
                    }
                    self.pass_record();
                    self.flush();
                    self.entries.push_back(Entry::Gap(gap));
                    return Ok(None);
                }
                Some(Record::End(End { offset, .. })) => {
                    if offset > self.log_at && !self.dry {
                        return Ok(Some(Self::unknown(self.log_at, offset)));
                    }
                    self.pass_record();
                    self.flush();
                    if !self.entries.is_empty() {
                        return Ok(None);
                    }
                }
                Some(Record::Mark(_)) | None => self.pass_record(),
            }
        }
    }

    fn peek_record(&mut self) -> io::Result<Option<[u8; RECORD]>> {
        if self.records.is_empty() {
            self.read_records()?;
        }
        Ok(self.records.front().copied())
    }

    fn read_records(&mut self) -> io::Result<()> {
        let mut bytes = [0; RECORDS * RECORD];
        let count = self.index.read_at(&mut bytes, self.index_at)?;
        let (records, _torn) = bytes[..count].as_chunks();
        self.records = records.iter().copied().collect();
        Ok(())
    }

    fn pass_record(&mut self) {
        self.records.pop_front();
        self.index_at += RECORD as u64;
    }

    /// Looks again, so that it is seen as it is now.
    fn is_last_record(&mut self) -> io::Result<bool> {
        if self.records.len() < 2 {
            self.read_records()?;
        }
        let last = self.records.len() < 2;
        if last {
            self.records.clear();
        }
        Ok(last)
    }

    /// What lies behind the last record, once nobody can be about to write the record for it.
    fn unindexed(&self) -> io::Result<Option<Batch>> {
        if self.writer == Writer::Alive || self.dry {
            return Ok(None);
        }
        // How long a compressed file is shows when it ends.
        let length = match self.log.as_plain() {
            Some(log) => log.metadata()?.len(),
            None => self.log_at + MAX_PIECE as u64,
        };
        Ok((length > self.log_at).then(|| Self::unknown(self.log_at, length)))
    }

    fn unknown(from: u64, to: u64) -> Batch {
        let length = u32::try_from(to - from).unwrap_or(u32::MAX);
        Batch { offset: from, time_ms: None, length, stream: Stream::Stdout }
    }

    fn read_some(&mut self, batch: Batch) -> io::Result<()> {
        let window_end = self.window_at + self.window.len() as u64;
        if batch.offset < self.window_at || batch.offset >= window_end {
            self.window.resize(MAX_PIECE, 0);
            let count = self.log.read_at(&mut self.window, batch.offset)?;
            self.window.truncate(count);
            self.window_at = batch.offset;
        }
        let window = std::mem::take(&mut self.window);
        let from = usize::try_from(batch.offset - self.window_at).expect("it lies in the window");
        let count = (window.len() - from).min(batch.length as usize);
        self.log_at = batch.offset + count as u64;
        self.feed(&window[from..from + count], batch);
        self.window = window;
        let length = batch.length - u32::try_from(count).expect("a window is small");
        // Nothing to read although the index says so: the log was cut short, and what follows cannot be there.
        self.dry |= count == 0;
        if length > 0 && count > 0 {
            self.batch = Some(Batch { offset: self.log_at, length, ..batch });
        }
        Ok(())
    }

    fn feed(&mut self, mut bytes: &[u8], batch: Batch) {
        while !bytes.is_empty() {
            let unfinished = &mut self.unfinished[batch.stream as usize];
            if unfinished.bytes.is_empty() {
                unfinished.time_ms = batch.time_ms;
            }
            let room = MAX_PIECE - unfinished.bytes.len();
            let window = &bytes[..bytes.len().min(room)];
            let (piece, ending) = match memchr::memchr(b'\n', window) {
                Some(at) => (&window[..at], Some(Ending::Newline)),
                None => (window, (window.len() == room).then_some(Ending::Cut)),
            };
            unfinished.bytes.extend_from_slice(piece);
            bytes = &bytes[piece.len() + usize::from(ending == Some(Ending::Newline))..];
            if let Some(ending) = ending {
                self.push(batch.stream, ending);
            }
        }
    }

    fn flush(&mut self) {
        for stream in Stream::ALL {
            if !self.unfinished[stream as usize].bytes.is_empty() {
                self.push(stream, Ending::Open);
            }
        }
    }

    fn push(&mut self, stream: Stream, ending: Ending) {
        let Unfinished { bytes, time_ms } = std::mem::take(&mut self.unfinished[stream as usize]);
        self.entries.push_back(Entry::Line(Line { stream, time_ms, bytes, ending }));
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write as _;
    use std::path::PathBuf;

    use super::*;
    use crate::index::MAGIC;
    use crate::index_path;

    fn write(path: &Path, batches: &[(Stream, Vec<u8>)]) {
        let mut log = File::create(path).expect("a log");
        let mut index = File::create(index_path(path)).expect("an index");
        index.write_all(MAGIC).expect("room");
        let mut offset = 0;
        for (number, (stream, bytes)) in batches.iter().enumerate() {
            log.write_all(bytes).expect("room");
            let length = u32::try_from(bytes.len()).expect("small");
            let batch = Batch { offset, time_ms: Some(number as i64), length, stream: *stream };
            index.write_all(&batch.encode()).expect("room");
            offset += u64::from(length);
        }
    }

    fn read(path: &Path) -> Vec<Line> {
        let mut reader = LogReader::open(path).expect("a log");
        reader.end();
        std::iter::from_fn(|| reader.next_line().expect("readable")).collect()
    }

    fn log() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        (folder, path)
    }

    #[test]
    fn a_line_may_come_in_several_batches() {
        let (_folder, path) = log();
        let (out, err) = (Stream::Stdout, Stream::Stderr);
        write(&path, &[(out, b"a\nb".to_vec()), (err, b"e\n".to_vec()), (out, b"c\nd".to_vec())]);
        let seen: Vec<_> =
            read(&path).into_iter().map(|l| (l.stream, l.time_ms, l.bytes, l.ending)).collect();
        assert_eq!(
            seen,
            [
                (out, Some(0), b"a".to_vec(), Ending::Newline),
                (err, Some(1), b"e".to_vec(), Ending::Newline),
                (out, Some(0), b"bc".to_vec(), Ending::Newline),
                (out, Some(2), b"d".to_vec(), Ending::Open),
            ]
        );
    }

    #[test]
    fn a_torn_index_costs_times_but_no_bytes() {
        let (_folder, path) = log();
        write(&path, &[(Stream::Stderr, b"one\n".to_vec()), (Stream::Stderr, b"two\n".to_vec())]);
        let index = index_path(&path);
        let bytes = std::fs::read(&index).expect("the index");
        std::fs::write(&index, &bytes[..bytes.len() - 5]).expect("room");
        let lines = read(&path);
        assert_eq!(lines.iter().map(|line| line.time_ms).collect::<Vec<_>>(), [Some(0), None]);
        assert_eq!(lines[1].bytes, b"two");
    }

    #[test]
    fn a_log_that_is_shorter_than_its_index_ends() {
        let (_folder, path) = log();
        write(&path, &[(Stream::Stdout, b"one\n".to_vec()), (Stream::Stdout, b"two\n".to_vec())]);
        std::fs::write(&path, b"one\n").expect("room");
        assert_eq!(read(&path).len(), 1);
    }

    #[test]
    fn an_endless_line_comes_in_pieces() {
        let (_folder, path) = log();
        write(&path, &[(Stream::Stdout, vec![b'x'; 2 * MAX_PIECE + 5])]);
        let lines = read(&path);
        assert_eq!(lines.iter().map(|line| line.bytes.len()).collect::<Vec<_>>(), [MAX_PIECE, MAX_PIECE, 5]);
        assert_eq!(lines[0].ending, Ending::Cut);
    }

    #[test]
    fn the_tail_is_the_end() {
        let (_folder, path) = log();
        let batches: Vec<_> =
            (0..20_000).map(|n| (Stream::ALL[n % 2], format!("{n}\n").into_bytes())).collect();
        write(&path, &batches);
        let texts = |count| -> Vec<String> {
            let lines = crate::tail(&path, count).expect("readable");
            lines.into_iter().map(|line| String::from_utf8(line.bytes).expect("digits")).collect()
        };
        assert_eq!(texts(3), ["19997", "19998", "19999"]);
        assert_eq!(texts(30_000).len(), 20_000);
        assert_eq!(texts(0), [""; 0]);
        let last: Vec<String> = (5000..20_000).map(|n| n.to_string()).collect();
        assert_eq!(texts(15_000), last);
    }
}
