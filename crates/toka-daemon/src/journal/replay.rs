//! Reading a journal: every whole line, up to a last one that a crash tore.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use toka_core::Event;

/// A journal as it was found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Replay {
    /// Its events, in order.
    pub events: Vec<Event>,
    /// Whole lines that are no events: written by a newer program, or damaged.
    pub unreadable: u64,
    /// Bytes after the last whole line.
    pub torn: u64,
}

/// Reads the journal at `path`; one that is not there is empty.
///
/// # Errors
/// When the file cannot be read.
pub fn replay(path: &Path) -> io::Result<Replay> {
    let mut replay = Replay::default();
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(replay),
        file => file?,
    };
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        if line.last() != Some(&b'\n') {
            replay.torn = line.len() as u64;
        } else if let Ok(event) = serde_json::from_slice(&line) {
            replay.events.push(event);
        } else {
            replay.unreadable += 1;
        }
        line.clear();
    }
    Ok(replay)
}

/// Where a journal goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    /// The offset after its last whole line.
    pub(super) offset: u64,
    /// The number of its last event; 0 when there is none.
    pub(super) seq: u64,
}

/// Step in which the end is looked for.
const STEP: u64 = 64 * 1024;

/// Finds the end of a journal without reading all of it.
pub(super) fn end(file: &mut File) -> io::Result<End> {
    let length = file.metadata()?.len();
    let mut from = length.saturating_sub(STEP);
    loop {
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(length - from).read_to_end(&mut bytes)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let last = bytes[..whole]
            .split(|byte| *byte == b'\n')
            .rev()
            .find_map(|line| serde_json::from_slice::<Event>(line).ok());
        match last {
            Some(event) => return Ok(End { offset: from + whole as u64, seq: event.seq }),
            None if from == 0 => return Ok(End { offset: whole as u64, seq: 0 }),
            None => from = from.saturating_sub(STEP.max(length - from)),
        }
    }
}
