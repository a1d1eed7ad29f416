//! The sidecar index of a log: which stretch of it came when, and from which stream; whose run it is; and where bytes are
//! missing.
//!
//! The file is a row of records of [`RECORD`] bytes, integers little-endian. The first is the header: the text
//! [`MAGIC`], filled up with zeros. The 20th byte of every other, counted from 0, tells its kind:
//!
//! | bytes | a batch (1: of stdout, 2: of stderr) | a gap (3) | the run (4), first after the header | an end (5) |
//! |---|---|---|---|---|
//! | 0–7 | offset of its first byte in the log | offset in the log at which bytes are missing | the run's id: | offset in the log at which both streams ended |
//! | 8–15 | when it was taken from the pipe: milliseconds since the Unix epoch, signed | when the first was lost | 16 bytes of a UUID | when |
//! | 16–19 | length in bytes | how many | number of the log within the run, from 0 | zero |
//! | 21–23 | zero | zero | zero | zero |
//!
//! Records are appended after the bytes that they describe; the last gap is counted up in its place. A crash can leave bytes
//! without a record, or a torn last record; readers live with both, and with kinds that they do not know.

use serde::{Deserialize, Serialize};
use toka_core::RunId;

/// Size of a record in bytes.
pub const RECORD: usize = 24;
/// What the header says.
pub const MAGIC: &[u8; RECORD] = b"toka log index 1\n\0\0\0\0\0\0\0";

/// Which of an agent's two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// Both, in the order of their descriptors.
    pub const ALL: [Self; 2] = [Self::Stdout, Self::Stderr];

    /// The word that people and programs see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// One stretch of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// Offset of its first byte in the log.
    pub offset: u64,
    /// Milliseconds since the Unix epoch when it was taken from the pipe, by the wall clock; `None` when the index
    /// does not tell.
    pub time_ms: Option<i64>,
    /// Length in bytes.
    pub length: u32,
    /// Where it came from.
    pub stream: Stream,
}

/// Bytes that were thrown away, because they could not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// Offset in the log at which they are missing.
    pub offset: u64,
    /// Milliseconds since the Unix epoch when the first of them was lost.
    pub time_ms: i64,
    /// How many.
    pub lost: u32,
}

/// Here the streams of a life end: a last line without a newline does not go on with what the next life writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Offset in the log.
    pub offset: u64,
    /// When, in milliseconds since the Unix epoch.
    pub time_ms: i64,
}

/// Which log of which run this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// The run.
    pub run: RunId,
    /// Which log of it, from 0.
    pub number: u32,
}

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record {
    /// Where a stretch of the log came from.
    Batch(Batch),
    /// That bytes are missing.
    Gap(Gap),
    /// Which log this is.
    Mark(Mark),
    /// That lines do not go on.
    End(End),
}

const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const GAP: u8 = 3;
const MARK: u8 = 4;
const END: u8 = 5;

impl Batch {
    /// Its record.
    pub fn encode(&self) -> [u8; RECORD] {
        let kind = match self.stream {
            Stream::Stdout => STDOUT,
            Stream::Stderr => STDERR,
        };
        let time = self.time_ms.unwrap_or(i64::MIN);
        record(self.offset.to_le_bytes(), time.to_le_bytes(), self.length, kind)
    }
}

impl Gap {
    /// Its record.
    pub fn encode(&self) -> [u8; RECORD] {
        record(self.offset.to_le_bytes(), self.time_ms.to_le_bytes(), self.lost, GAP)
    }
}

impl End {
    /// Its record.
    pub fn encode(&self) -> [u8; RECORD] {
        record(self.offset.to_le_bytes(), self.time_ms.to_le_bytes(), 0, END)
    }
}

impl Mark {
    /// Its record.
    pub fn encode(&self) -> [u8; RECORD] {
        let bytes = self.run.to_bytes();
        let (first, second) = bytes.split_at(8);
        let half = |bytes: &[u8]| bytes.try_into().expect("half of sixteen bytes");
        record(half(first), half(second), self.number, MARK)
    }
}

fn record(first: [u8; 8], second: [u8; 8], number: u32, kind: u8) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    record[..8].copy_from_slice(&first);
    record[8..16].copy_from_slice(&second);
    record[16..20].copy_from_slice(&number.to_le_bytes());
    record[20] = kind;
    record
}

impl Record {
    /// Reads a record; `None` when it is none, as after a crash.
    pub fn decode(record: &[u8]) -> Option<Self> {
        let record: &[u8; RECORD] = record.try_into().ok()?;
        if record[21..] != [0, 0, 0] {
            return None;
        }
        let first = u64::from_le_bytes(record[..8].try_into().ok()?);
        let second = i64::from_le_bytes(record[8..16].try_into().ok()?);
        let number = u32::from_le_bytes(record[16..20].try_into().ok()?);
        let batch = |stream| {
            let time_ms = (second != i64::MIN).then_some(second);
            Self::Batch(Batch { offset: first, time_ms, length: number, stream })
        };
        match record[20] {
            STDOUT => Some(batch(Stream::Stdout)),
            STDERR => Some(batch(Stream::Stderr)),
            GAP => Some(Self::Gap(Gap { offset: first, time_ms: second, lost: number })),
            MARK => {
                let run = RunId::from_bytes(record[..16].try_into().ok()?);
                Some(Self::Mark(Mark { run, number }))
            }
            END => Some(Self::End(End { offset: first, time_ms: second })),
            _ => None,
        }
    }

    /// When what it tells of happened, if it tells.
    pub fn time_ms(&self) -> Option<i64> {
        match self {
            Self::Batch(batch) => batch.time_ms,
            Self::Gap(gap) => Some(gap.time_ms),
            Self::End(end) => Some(end.time_ms),
            Self::Mark(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            offset: u64, time in prop::option::of(0i64..i64::MAX), number: u32, err: bool, run: [u8; 16]
        ) {
            let stream = if err { Stream::Stderr } else { Stream::Stdout };
            let batch = Batch { offset, time_ms: time, length: number, stream };
            prop_assert_eq!(Record::decode(&batch.encode()), Some(Record::Batch(batch)));
            let gap = Gap { offset, time_ms: time.unwrap_or(-1), lost: number };
            prop_assert_eq!(Record::decode(&gap.encode()), Some(Record::Gap(gap)));
            let end = End { offset, time_ms: time.unwrap_or(-1) };
            prop_assert_eq!(Record::decode(&end.encode()), Some(Record::End(end)));
            let mark = Mark { run: RunId::from_bytes(run), number };
            prop_assert_eq!(Record::decode(&mark.encode()), Some(Record::Mark(mark)));
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let _ = Record::decode(&bytes);
        }
    }

    #[test]
    fn the_header_is_no_record() {
        assert_eq!(Record::decode(MAGIC), None);
        assert_eq!(Record::decode(&[0; RECORD]), None);
    }
}
