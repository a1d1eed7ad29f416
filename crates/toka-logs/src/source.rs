//! The bytes of one file of a log, whether it is compressed or not.

use std::fs::File;
use std::io::{self, BufReader, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use flate2::bufread::GzDecoder;

use super::names::{GZIP, with};

/// Bytes that are thrown away at a time on the way to a place further on.
const SKIP: usize = 64 * 1024;

/// A file that is read from front to back, at places that the reader names.
#[derive(Debug)]
pub(super) enum Source {
    /// As it was written; may still grow.
    Plain(File),
    /// Compressed.
    Gzip(Box<Unpacking>),
    /// Not there.
    Empty,
}

/// A compressed file, and how much of it was unpacked.
pub(super) struct Unpacking {
    bytes: GzDecoder<BufReader<File>>,
    at: u64,
}

impl std::fmt::Debug for Unpacking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unpacking").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Source {
    pub(super) fn plain(file: File) -> Self {
        Self::Plain(file)
    }

    pub(super) fn empty() -> Self {
        Self::Empty
    }

    /// An older log's file: as it was if it is there so, else compressed. It may become the one while the other is tried.
    pub(super) fn older(path: &Path) -> io::Result<Self> {
        let missing = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        match File::open(path) {
            Err(error) if missing(&error) => {}
            outcome => return outcome.map(Self::Plain),
        }
        let file = File::open(with(path, GZIP))?;
        let bytes = GzDecoder::new(BufReader::with_capacity(SKIP, file));
        Ok(Self::Gzip(Box::new(Unpacking { bytes, at: 0 })))
    }

    /// The file itself, when it can be read at any place.
    pub(super) fn as_plain(&self) -> Option<&File> {
        match self {
            Self::Plain(file) => Some(file),
            _ => None,
        }
    }

    /// Reads at `offset`, which for a compressed file must not lie before the last one. Fewer bytes than asked for only at
    /// its end.
    pub(super) fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match self {
            Self::Empty => Ok(0),
            Self::Plain(file) => {
                let mut count = 0;
                while count < buffer.len() {
                    match file.read_at(&mut buffer[count..], offset + count as u64) {
                        Ok(0) => break,
                        Ok(more) => count += more,
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(count)
            }
            Self::Gzip(unpacking) => unpacking.read_at(buffer, offset),
        }
    }
}

impl Unpacking {
    fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut skipped = [0; SKIP];
        while self.at < offset {
            let most = usize::try_from(offset - self.at).map_or(SKIP, |left| left.min(SKIP));
            if self.fill(&mut skipped[..most])? == 0 {
                return Ok(0);
            }
        }
        self.fill(buffer)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut count = 0;
        while count < buffer.len() {
            match self.bytes.read(&mut buffer[count..]) {
                Ok(0) => break,
                Ok(more) => count += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // What could not be unpacked any more is as lost as what a torn log lacks.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(error),
            }
        }
        self.at += count as u64;
        Ok(count)
    }
}
