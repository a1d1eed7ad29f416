//! The reading end of a log: lines with their time and stream, from a file that may still grow, may have been cut
//! short by a crash, and may hold anything.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::net::unix::pipe::Receiver;

use super::index::{Batch, MAGIC, RECORD, Stream};
use super::index_path;

/// Longest piece that is given at once, in bytes; a longer line comes in several.
pub const MAX_PIECE: usize = 64 * 1024;
/// Most of the log that [`tail`] looks at, in bytes.
const TAIL_BYTES: u64 = 4 * 1024 * 1024;

/// How a piece of output ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With a newline, which is not part of the bytes.
    Newline,
    /// In the middle: the line goes on in the stream's next piece.
    Cut,
    /// With the end of the stream.
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

/// Whether more can come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writer {
    Alive,
    Gone,
}

/// The beginning of a line.
#[derive(Debug, Default)]
struct Unfinished {
    bytes: Vec<u8>,
    time_ms: Option<i64>,
}

/// Reads one log from front to back.
#[derive(Debug)]
pub struct LogReader {
    log: File,
    index: File,
    log_at: u64,
    index_at: u64,
    batch: Option<Batch>,
    unfinished: [Unfinished; 2],
    lines: VecDeque<Line>,
    writer: Writer,
}

impl LogReader {
    /// Opens the log at `path`, which is being written or has been.
    ///
    /// # Errors
    /// When the log or its index cannot be opened, or the index is of a kind that this program does not know.
    pub fn open(path: &Path) -> io::Result<Self> {
        let log = File::open(path)?;
        let index = File::open(index_path(path))?;
        let mut header = [0; RECORD];
        let count = index.read_at(&mut header, 0)?;
        if header[..count] != MAGIC[..count] {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not the index of a log"));
        }
        Ok(Self {
            log,
            index,
            log_at: 0,
            index_at: RECORD as u64,
            batch: None,
            unfinished: Default::default(),
            lines: VecDeque::new(),
            writer: Writer::Alive,
        })
    }

    /// Says that nobody writes to it any more: what has no newline and what has no index record is then given too.
    pub fn end(&mut self) {
        self.writer = Writer::Gone;
    }

    /// The next line, or `None` when there is none at the moment (none at all after [`LogReader::end`]).
    ///
    /// # Errors
    /// When the files cannot be read.
    pub fn next_line(&mut self) -> io::Result<Option<Line>> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Ok(Some(line));
            }
            if self.batch.is_none() {
                self.batch = self.next_batch()?;
            }
            match self.batch.take() {
                Some(batch) => self.read_some(batch)?,
                None if self.writer == Writer::Alive => return Ok(None),
                None => {
                    self.flush();
                    if self.lines.is_empty() {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// The next stretch of the log. Bytes that the index passes over are a stretch without a time.
    fn next_batch(&mut self) -> io::Result<Option<Batch>> {
        let mut record = [0; RECORD];
        loop {
            if self.index.read_at(&mut record, self.index_at)? < RECORD {
                return self.unindexed();
            }
            let Some(mut batch) = Batch::decode(&record) else {
                self.index_at += RECORD as u64;
                continue;
            };
            if batch.offset > self.log_at {
                return Ok(Some(Self::unknown(self.log_at, batch.offset)));
            }
            self.index_at += RECORD as u64;
            let end = batch.offset.saturating_add(u64::from(batch.length));
            if end <= self.log_at {
                continue;
            }
            batch.length = u32::try_from(end - self.log_at).unwrap_or(u32::MAX);
            batch.offset = self.log_at;
            return Ok(Some(batch));
        }
    }

    /// What lies behind the last record, once nobody can be about to write the record for it.
    fn unindexed(&self) -> io::Result<Option<Batch>> {
        let length = self.log.metadata()?.len();
        Ok((self.writer == Writer::Gone && length > self.log_at).then(|| Self::unknown(self.log_at, length)))
    }

    fn unknown(from: u64, to: u64) -> Batch {
        let length = u32::try_from(to - from).unwrap_or(u32::MAX);
        Batch { offset: from, time_ms: None, length, stream: Stream::Stdout }
    }

    fn read_some(&mut self, batch: Batch) -> io::Result<()> {
        let mut chunk = vec![0; MAX_PIECE.min(batch.length as usize)];
        let count = self.log.read_at(&mut chunk, batch.offset)?;
        self.log_at = batch.offset + count as u64;
        self.feed(&chunk[..count], batch);
        let length = batch.length - u32::try_from(count).expect("a chunk is small");
        // Nothing to read although the index says so: the log was cut short, and what follows cannot be there.
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
            let (piece, ending) = match window.iter().position(|byte| *byte == b'\n') {
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
        self.lines.push_back(Line { stream, time_ms, bytes, ending });
    }
}

/// The last `count` lines of the log at `path`, oldest first; fewer when they do not lie within its last 4 MiB.
///
/// # Errors
/// As [`LogReader`].
pub fn tail(path: &Path, count: usize) -> io::Result<Vec<Line>> {
    let mut reader = LogReader::open(path)?;
    let records = (reader.index.metadata()?.len() / RECORD as u64).saturating_sub(1);
    let end = reader.log.metadata()?.len();
    let mut back = 64;
    loop {
        let first = records.saturating_sub(back);
        let start = if first == 0 { 0 } else { reader.offset_of(first)?.unwrap_or(0) };
        let lines = last_lines(&mut reader, first, start, count)?;
        if lines.len() >= count || first == 0 || end - start.min(end) > TAIL_BYTES {
            return Ok(lines);
        }
        back *= 4;
    }
}

fn last_lines(reader: &mut LogReader, first: u64, start: u64, count: usize) -> io::Result<Vec<Line>> {
    reader.index_at = (first + 1) * RECORD as u64;
    // A single batch may be huge: of what lies too far back, only the end is read.
    let length = reader.log.metadata()?.len();
    reader.log_at = start.max(length.saturating_sub(2 * TAIL_BYTES));
    reader.batch = None;
    reader.unfinished = Default::default();
    reader.lines.clear();
    reader.end();
    let mut cut = if reader.log_at == 0 { [Cut::Clean; 2] } else { [Cut::MidLine; 2] };
    let mut lines = VecDeque::new();
    while let Some(line) = reader.next_line()? {
        // Reading began anywhere: the first line of each stream may lack its beginning.
        if cut[line.stream as usize] == Cut::MidLine && line.ending == Ending::Newline {
            cut[line.stream as usize] = Cut::Clean;
            continue;
        }
        lines.push_back(line);
        if lines.len() > count {
            lines.pop_front();
        }
    }
    Ok(lines.into())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Clean,
    MidLine,
}

impl LogReader {
    fn offset_of(&self, record: u64) -> io::Result<Option<u64>> {
        let mut bytes = [0; RECORD];
        let count = self.index.read_at(&mut bytes, (record + 1) * RECORD as u64)?;
        Ok(Batch::decode(&bytes[..count]).map(|batch| batch.offset))
    }
}

/// Reads a log while it grows, and sleeps while it does not (inotify(7) on the index, which is written last).
#[derive(Debug)]
pub struct Follower {
    reader: LogReader,
    /// The watch. It is no pipe, but polled and read like one.
    changes: Receiver,
}

impl Follower {
    /// Follows the log at `path` from its beginning.
    ///
    /// # Errors
    /// As [`LogReader::open`], or when the kernel grants no watch.
    pub fn open(path: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        inotify.add_watch(&index_path(path), AddWatchFlags::IN_MODIFY)?;
        let changes = Receiver::from_owned_fd_unchecked(OwnedFd::from(inotify))?;
        Ok(Self { reader: LogReader::open(path)?, changes })
    }

    /// The next line; waits for it as long as it takes. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// As [`LogReader::next_line`].
    pub async fn next_line(&mut self) -> io::Result<Line> {
        loop {
            if let Some(line) = self.reader.next_line()? {
                return Ok(line);
            }
            self.changes.readable().await?;
            // Events are taken before the next look at the file, so that a change in between is not missed. What they
            // say does not matter: there is only one watch.
            while self.changes.try_read(&mut [0; 1024]).is_ok_and(|count| count > 0) {}
        }
    }

    /// The reader, for what is left once the agent has ended.
    pub fn into_reader(mut self) -> LogReader {
        self.reader.end();
        self.reader
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::*;

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
            (0..1000).map(|n| (Stream::ALL[n % 2], format!("{n}\n").into_bytes())).collect();
        write(&path, &batches);
        let texts = |count| -> Vec<String> {
            let lines = tail(&path, count).expect("readable");
            lines.into_iter().map(|line| String::from_utf8(line.bytes).expect("digits")).collect()
        };
        assert_eq!(texts(3), ["997", "998", "999"]);
        assert_eq!(texts(2000).len(), 1000);
        assert_eq!(texts(0), [""; 0]);
        assert_eq!(texts(500).first().map(String::as_str), Some("500"));
    }

    #[tokio::test]
    async fn a_follower_sees_what_is_added() {
        let (_folder, path) = log();
        write(&path, &[(Stream::Stdout, b"one\n".to_vec())]);
        let mut follower = Follower::open(&path).expect("a log");
        assert_eq!(follower.next_line().await.expect("a line").bytes, b"one");
        let added = path.clone();
        let next = tokio::spawn(async move { follower.next_line().await.map(|line| line.bytes) });
        tokio::task::yield_now().await;
        let log = File::options().append(true).open(&added);
        log.expect("the log").write_all(b"two\n").expect("room");
        let batch = Batch { offset: 4, time_ms: Some(9), length: 4, stream: Stream::Stderr };
        let index = File::options().append(true).open(index_path(&added));
        index.expect("the index").write_all(&batch.encode()).expect("room");
        assert_eq!(next.await.expect("no panic").expect("a line"), b"two");
    }

    proptest! {
        #[test]
        fn no_byte_is_lost_or_doubled(batches in prop::collection::vec((any::<bool>(), "[a\n]{0,9}"), 0..20)) {
            let (_folder, path) = log();
            let batches: Vec<_> =
                batches.into_iter().map(|(err, text)| (Stream::ALL[usize::from(err)], text.into_bytes())).collect();
            write(&path, &batches);
            for stream in Stream::ALL {
                let written: Vec<u8> =
                    batches.iter().filter(|(of, _)| *of == stream).flat_map(|(_, b)| b.clone()).collect();
                let mut seen = Vec::new();
                for line in read(&path).into_iter().filter(|line| line.stream == stream) {
                    seen.extend(line.bytes);
                    seen.extend((line.ending == Ending::Newline).then_some(b'\n'));
                }
                prop_assert_eq!(seen, written);
            }
        }

        #[test]
        fn garbage_in_both_files_is_survived(log_bytes: Vec<u8>, index_bytes: Vec<u8>) {
            let (_folder, path) = log();
            std::fs::write(&path, log_bytes).expect("room");
            std::fs::write(index_path(&path), [&MAGIC[..], &index_bytes].concat()).expect("room");
            let _ = (read(&path), tail(&path, 3));
        }
    }
}
