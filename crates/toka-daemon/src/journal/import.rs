//! Taking over a journal of lines, as versions before the database wrote it: once, so that its events can be read and
//! numbers go on.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader};
use std::path::Path;
use std::time::Instant;

use toka_core::Event;
use toka_store::{Durability, Health, Record, StoreError, Writer};

/// Most events in one transaction.
const GROUP: usize = 1024;

/// What was taken over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Imported {
    /// Events.
    pub(super) events: u64,
    /// Lines that are no events: torn by a crash, damaged, or of a newer program.
    pub(super) unreadable: u64,
}

/// Takes over the journal of lines at `lines`, and renames it so that it is done once. One that was interrupted is gone
/// on with, since numbers that are there already are passed over.
///
/// # Errors
/// When the file cannot be read or renamed, or its events cannot be written.
pub(super) fn import(lines: &Path, writer: &mut Writer) -> io::Result<Option<Imported>> {
    let file = match File::open(lines) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut imported = Imported::default();
    let (mut reader, mut line, mut group) = (BufReader::new(file), Vec::new(), Vec::new());
    let mut last = writer.last_seq();
    while reader.read_until(b'\n', &mut line)? > 0 {
        match serde_json::from_slice::<Event>(&line) {
            Ok(event) if event.seq > last => {
                last = event.seq;
                imported.events += 1;
                group.push(Record::of(&event));
            }
            Ok(_) => {}
            Err(_) => imported.unreadable += 1,
        }
        line.clear();
        if group.len() == GROUP {
            write(writer, std::mem::take(&mut group))?;
        }
    }
    write(writer, group)?;
    fs::rename(lines, lines.with_extension("jsonl.imported"))?;
    Ok(Some(imported))
}

fn write(writer: &mut Writer, group: Vec<Record>) -> io::Result<()> {
    if group.is_empty() {
        return Ok(());
    }
    let _ = writer.write(group, Durability::Now, Instant::now());
    match writer.health() {
        Health::Well => Ok(()),
        Health::Waiting(trouble) | Health::Losing(trouble, _) => {
            Err(StoreError::from(trouble.clone()).into())
        }
    }
}
