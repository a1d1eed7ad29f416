//! The sidecar index of a log: which stretch of it came when, and from which stream.
//!
//! The file is a row of records of [`RECORD`] bytes, integers little-endian. The first is the header: the text
//! [`MAGIC`], filled up with zeros. Every other describes one batch:
//!
//! | bytes | meaning |
//! |---|---|
//! | 0–7 | offset of the batch's first byte in the log |
//! | 8–15 | when it was taken from the pipe: milliseconds since the Unix epoch, signed |
//! | 16–19 | length in bytes |
//! | 20 | stream: 1 is stdout, 2 is stderr |
//! | 21–23 | zero |
//!
//! Records are appended after the bytes that they describe. A crash can leave bytes without a record, or a torn last
//! record; readers live with both.

use serde::{Deserialize, Serialize};

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

impl Batch {
    /// Its record.
    pub fn encode(&self) -> [u8; RECORD] {
        let mut record = [0; RECORD];
        record[..8].copy_from_slice(&self.offset.to_le_bytes());
        record[8..16].copy_from_slice(&self.time_ms.unwrap_or(i64::MIN).to_le_bytes());
        record[16..20].copy_from_slice(&self.length.to_le_bytes());
        record[20] = match self.stream {
            Stream::Stdout => 1,
            Stream::Stderr => 2,
        };
        record
    }

    /// Reads a record; `None` when it is none, as after a crash.
    pub fn decode(record: &[u8]) -> Option<Self> {
        let record: &[u8; RECORD] = record.try_into().ok()?;
        let stream = match (record[20], &record[21..]) {
            (1, [0, 0, 0]) => Stream::Stdout,
            (2, [0, 0, 0]) => Stream::Stderr,
            _ => return None,
        };
        let time = i64::from_le_bytes(record[8..16].try_into().ok()?);
        Some(Self {
            offset: u64::from_le_bytes(record[..8].try_into().ok()?),
            time_ms: (time != i64::MIN).then_some(time),
            length: u32::from_le_bytes(record[16..20].try_into().ok()?),
            stream,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(offset: u64, time in prop::option::of(0i64..i64::MAX), length: u32, err: bool) {
            let stream = if err { Stream::Stderr } else { Stream::Stdout };
            let batch = Batch { offset, time_ms: time, length, stream };
            prop_assert_eq!(Batch::decode(&batch.encode()), Some(batch));
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let _ = Batch::decode(&bytes);
        }
    }

    #[test]
    fn the_header_is_no_batch() {
        assert_eq!(Batch::decode(MAGIC), None);
        assert_eq!(Batch::decode(&[0; RECORD]), None);
    }
}
