//! The writing end of a log: moves what is in a pipe to the end of the file inside the kernel (splice(2)), and never
//! lets a full disk stop an agent.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{SpliceFFlags, splice};

use super::index::{Batch, MAGIC, Stream};
use super::index_path;

/// Most bytes that one call moves: a whole pipe of the default size, several times over.
const MOVE: usize = 256 * 1024;

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
    /// Nobody holds the other end any more, and everything has been read.
    Eof,
}

/// Appends to one log. Not safe to have twice for one file.
#[derive(Debug)]
pub struct LogWriter {
    log: File,
    index: File,
    offset: u64,
    index_offset: u64,
    way: Way,
    lost: u64,
    scratch: Vec<u8>,
}

impl LogWriter {
    /// Makes an empty log at `path`, replacing what is there; only its owner may read it.
    ///
    /// # Errors
    /// When either file cannot be created.
    pub fn create(path: &Path) -> io::Result<Self> {
        // Not O_APPEND: splice(2) refuses such a file with EINVAL.
        let open = |path: &Path| {
            OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)
        };
        let log = open(path)?;
        let mut index = open(&index_path(path))?;
        index.write_all(MAGIC)?;
        let index_offset = MAGIC.len() as u64;
        Ok(Self { log, index, offset: 0, index_offset, way: Way::Splice, lost: 0, scratch: Vec::new() })
    }

    /// Opens the log at `path` to write on at its end; makes it if it is not there.
    ///
    /// # Errors
    /// When either file cannot be opened.
    pub fn append(path: &Path) -> io::Result<Self> {
        let open = |path: &Path| {
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
        };
        let log = open(path)?;
        let index = open(&index_path(path))?;
        let offset = log.metadata()?.len();
        let mut index_offset = index.metadata()?.len();
        if index_offset < MAGIC.len() as u64 {
            index.write_all_at(MAGIC, 0)?;
            index_offset = MAGIC.len() as u64;
        }
        Ok(Self { log, index, offset, index_offset, way: Way::Splice, lost: 0, scratch: Vec::new() })
    }

    /// Bytes in the log.
    pub fn len(&self) -> u64 {
        self.offset
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.offset == 0
    }

    /// Bytes thrown away so far.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// The file of raw bytes, for those who look into what has just been written.
    pub(super) fn log(&self) -> &File {
        &self.log
    }

    /// Moves once from `pipe`, which must not block, to the end of the log.
    ///
    /// # Errors
    /// `WouldBlock` when the pipe is empty; others when the pipe itself is broken. A log that cannot be written is no
    /// error: the bytes are thrown away and counted.
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
                self.discard(pipe)
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
        splice(pipe, None, &self.log, Some(&mut at), MOVE, flags)
    }

    fn copy(&mut self, pipe: BorrowedFd<'_>) -> Result<usize, Errno> {
        self.scratch.resize(MOVE, 0);
        let count = nix::unistd::read(pipe, &mut self.scratch)?;
        match self.log.write_all_at(&self.scratch[..count], self.offset) {
            Ok(()) => Ok(count),
            Err(_) => {
                // They are out of the pipe already: as good as thrown away.
                self.lost += count as u64;
                Err(Errno::EINTR)
            }
        }
    }

    fn discard(&mut self, pipe: BorrowedFd<'_>) -> io::Result<Moved> {
        self.scratch.resize(MOVE, 0);
        match nix::unistd::read(pipe, &mut self.scratch) {
            Ok(0) => Ok(Moved::Eof),
            Ok(count) => {
                self.lost += count as u64;
                Ok(Moved::Discarded(count))
            }
            Err(errno) => Err(errno.into()),
        }
    }

    /// Says in the index where the bytes from `start` to the end of the log came from. A record that cannot be
    /// written is left out; readers then know neither time nor stream of those bytes.
    pub fn note(&mut self, stream: Stream, start: u64, time_ms: i64) {
        let mut offset = start;
        while offset < self.offset {
            let length = u32::try_from(self.offset - offset).unwrap_or(u32::MAX);
            let record = Batch { offset, time_ms: Some(time_ms), length, stream }.encode();
            if self.index.write_all_at(&record, self.index_offset).is_ok() {
                self.index_offset += record.len() as u64;
            }
            offset += u64::from(length);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use nix::fcntl::OFlag;
    use nix::unistd::{pipe2, write};

    use super::*;

    fn log() -> (tempfile::TempDir, LogWriter) {
        let folder = tempfile::tempdir().expect("a folder");
        let writer = LogWriter::create(&folder.path().join("log")).expect("a log");
        (folder, writer)
    }

    #[test]
    fn bytes_arrive_exactly_and_the_end_is_seen() {
        let (folder, mut writer) = log();
        let (read, end) = pipe2(OFlag::O_NONBLOCK).expect("a pipe");
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
    fn a_full_disk_costs_bytes_but_never_blocks() {
        let (_folder, mut writer) = log();
        // The kernel's own full disk: every write to it fails with ENOSPC.
        writer.log = OpenOptions::new().write(true).open("/dev/full").expect("the device");
        let (read, end) = pipe2(OFlag::O_NONBLOCK).expect("a pipe");
        for way in [Way::Splice, Way::Copy] {
            writer.way = way;
            write(&end, b"lost").expect("room");
            let before = writer.lost();
            while writer.take(read.as_fd()).is_ok() {}
            assert_eq!(writer.lost() - before, 4, "{way:?}");
        }
        assert_eq!(writer.len(), 0);
    }

    #[test]
    fn a_file_that_cannot_be_spliced_to_is_written_to() {
        let (folder, mut writer) = log();
        writer.log = OpenOptions::new().append(true).open(folder.path().join("log")).expect("the log");
        let (read, end) = pipe2(OFlag::O_NONBLOCK).expect("a pipe");
        write(&end, b"still here").expect("room");
        assert_eq!(writer.take(read.as_fd()).expect("bytes"), Moved::Written(10));
        assert_eq!(writer.way, Way::Copy);
        assert_eq!(std::fs::read(folder.path().join("log")).expect("the log"), b"still here");
    }
}
