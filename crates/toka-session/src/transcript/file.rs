//! The file of a transcript: lines are added to its end. A last line that is torn, since the host lost power or the disk was full, is cut off
//! and said. It lies in the state folder, which no agent can write.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::clock::now_ms;
use toka_core::transcript::{Entry, EntryKind};

/// Why a transcript cannot be read or written.
#[derive(Debug, Error)]
pub enum TranscriptError {
    /// The file system says no.
    #[error("{doing} {path}", path = path.display())]
    Io {
        /// What was to be done, as after "failed to".
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line in the middle is no line of a transcript.
    #[error("line {line} of {path} is no line of a transcript: {why}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Which, from 1.
        line: usize,
        /// Why.
        why: String,
    },
}

/// What was found when a transcript was opened.
#[derive(Debug, PartialEq)]
pub(crate) struct Read {
    /// Its lines.
    pub(crate) entries: Vec<Entry>,
    /// Bytes of a last line that was torn.
    pub(crate) torn: usize,
}

/// A transcript that is being written. One at a time writes a file: the daemon that has the project's lock.
#[derive(Debug)]
pub struct Transcript {
    file: File,
    path: PathBuf,
    last: u64,
    /// Bytes of its whole lines.
    length: u64,
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> TranscriptError {
    let path = path.to_owned();
    move |source| TranscriptError::Io { doing, path, source }
}

impl Transcript {
    /// Begins a new one.
    ///
    /// # Errors
    /// When the file is there already, or cannot be made.
    pub fn create(path: &Path) -> Result<Self, TranscriptError> {
        if let Some(folder) = path.parent() {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(io_error("make the folder of", path))?;
        }
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path);
        let file = file.map_err(io_error("make", path))?;
        Ok(Self { file, path: path.to_owned(), last: 0, length: 0 })
    }

    /// Goes on with one; a torn last line is cut off.
    ///
    /// # Errors
    /// When it cannot be read or written, or is damaged before its last line.
    pub(crate) fn open(path: &Path) -> Result<(Self, Read), TranscriptError> {
        let mut file =
            OpenOptions::new().read(true).append(true).open(path).map_err(io_error("open", path))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io_error("read", path))?;
        let read = parse(&bytes, path)?;
        if read.torn > 0 {
            let whole = (bytes.len() - read.torn) as u64;
            file.set_len(whole).map_err(io_error("cut the torn line off", path))?;
            file.seek(SeekFrom::End(0)).map_err(io_error("write", path))?;
        }
        let last = read.entries.last().map_or(0, |entry| entry.id);
        let length = (bytes.len() - read.torn) as u64;
        Ok((Self { file, path: path.to_owned(), last, length }, read))
    }

    /// The lines of a transcript; a torn last one is passed over.
    ///
    /// # Errors
    /// When it cannot be read, or is damaged before its last line.
    pub fn read(path: &Path) -> Result<Vec<Entry>, TranscriptError> {
        let bytes = fs::read(path).map_err(io_error("read", path))?;
        parse(&bytes, path).map(|read| read.entries)
    }

    /// Adds lines, each after the one before. They survive the end of this process; `durable` says that they are to survive the loss of power too.
    ///
    /// # Errors
    /// When they cannot be written: then none of them is there.
    pub fn append(&mut self, kinds: Vec<EntryKind>, durable: bool) -> Result<Vec<Entry>, TranscriptError> {
        let mut entries = Vec::with_capacity(kinds.len());
        let mut lines = Vec::new();
        let before = self.last;
        for kind in kinds {
            let parent = (self.last > 0).then_some(self.last);
            let Some(next) = self.last.checked_add(1) else {
                let why = format!("no number follows on {}", self.last);
                return Err(TranscriptError::Damaged { path: self.path.clone(), line: 0, why });
            };
            self.last = next;
            let entry = Entry { id: self.last, parent, at: now_ms(), kind };
            let written = serde_json::to_writer(&mut lines, &entry).map_err(io::Error::from);
            written.map_err(io_error("write", &self.path))?;
            lines.push(b'\n');
            entries.push(entry);
        }
        let written =
            self.file.write_all(&lines).and_then(|()| if durable { self.file.sync_data() } else { Ok(()) });
        if let Err(error) = written {
            self.last = before;
            // What was written of it would stand in the middle of the next line.
            let _ = self.file.set_len(self.length);
            return Err(io_error("write", &self.path)(error));
        }
        self.length += lines.len() as u64;
        Ok(entries)
    }

    /// Begins with the lines of another session behind the line `session`, and with the texts that are kept beside those, in the folder `kept`.
    /// Blocks.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(super) fn take_over(
        &mut self,
        kept: &Path,
        session: EntryKind,
        entries: &mut Vec<Entry>,
    ) -> Result<(), TranscriptError> {
        let mut lines = Vec::new();
        let first = Entry { id: 1, parent: None, at: now_ms(), kind: session };
        match entries.first_mut() {
            Some(former) => *former = Entry { id: former.id, ..first },
            None => entries.push(first),
        }
        for entry in entries.iter() {
            let written = serde_json::to_writer(&mut lines, entry).map_err(io::Error::from);
            written.map_err(io_error("write", &self.path))?;
            lines.push(b'\n');
            if let EntryKind::Result { whole: Some(name), .. }
            | EntryKind::Session { definitions: Some(name), .. } = &entry.kind
            {
                // What was removed there is not there any more; nothing else is lost with it.
                if let Ok(text) = fs::read(kept.join(name)) {
                    self.keep(&text)?;
                }
            }
        }
        self.file.write_all(&lines).map_err(io_error("write", &self.path))?;
        self.last = entries.last().map_or(0, |entry| entry.id);
        self.length = lines.len() as u64;
        Ok(())
    }

    /// Keeps a text beside the transcript, whole; its name.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep(&self, text: &[u8]) -> Result<String, TranscriptError> {
        let name = name_of(text);
        let folder = blobs(&self.path);
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(io_error("make", &folder))?;
        let path = folder.join(&name);
        if path.exists() {
            return Ok(name);
        }
        let new = folder.join(format!("{name}.new"));
        let write = || {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(text)?;
            fs::rename(&new, &path)
        };
        write().map_err(io_error("write", &path))?;
        Ok(name)
    }
}

/// The name of a text that is kept beside a transcript.
pub(crate) fn name_of(text: &[u8]) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where texts are kept that stand in no line of the transcript at `path`.
pub(crate) fn blobs(path: &Path) -> PathBuf {
    path.with_extension("blobs")
}

fn parse(bytes: &[u8], path: &Path) -> Result<Read, TranscriptError> {
    let mut entries: Vec<Entry> = Vec::new();
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    for (at, line) in bytes[..whole].split(|byte| *byte == b'\n').enumerate() {
        if line.is_empty() {
            continue;
        }
        let damaged = |why: String| TranscriptError::Damaged { path: path.to_owned(), line: at + 1, why };
        let entry: Entry = serde_json::from_slice(line).map_err(|error| damaged(error.to_string()))?;
        if entries.last().is_some_and(|last| last.id >= entry.id) {
            return Err(damaged(format!("its number {} does not follow", entry.id)));
        }
        entries.push(entry);
    }
    Ok(Read { entries, torn: bytes.len() - whole })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn notice(text: &str) -> EntryKind {
        EntryKind::Notice { text: text.to_owned() }
    }

    #[test]
    fn a_torn_line_is_cut_off_and_the_next_follows() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("s/agent:a:task:1.jsonl");
        let mut transcript = Transcript::create(&path).expect("new");
        transcript.append(vec![notice("one"), notice("two")], true).expect("written");
        drop(transcript);
        let mut file = OpenOptions::new().append(true).open(&path).expect("a file");
        file.write_all(b"{\"id\":3,\"par").expect("torn");
        assert_eq!(Transcript::read(&path).expect("read").len(), 2);
        let (mut transcript, read) = Transcript::open(&path).expect("opened");
        assert_eq!((read.entries.len(), read.torn), (2, 12));
        let added = transcript.append(vec![notice("three")], false).expect("written");
        assert_eq!((added[0].id, added[0].parent), (3, Some(2)));
        let texts: Vec<_> =
            Transcript::read(&path).expect("read").into_iter().map(|entry| entry.kind).collect();
        assert_eq!(texts, [notice("one"), notice("two"), notice("three")]);
        assert!(Transcript::create(&path).is_err(), "no other writes it");
    }

    #[test]
    fn a_line_that_was_edited_by_hand_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.jsonl");
        let lines = [
            ("{\"id\":1,\"at\":0,\"type\":\"notice\",\"text\":\"x\"}\nnonsense\n", "line 2"),
            (
                "{\"id\":2,\"at\":0,\"type\":\"notice\",\"text\":\"x\"}\n{\"id\":2,\"at\":0,\"type\":\"notice\",\"text\":\"x\"}\n",
                "does not follow",
            ),
        ];
        for (text, why) in lines {
            fs::write(&path, text).expect("a file");
            let error = Transcript::read(&path).expect_err("damaged").to_string();
            assert!(error.contains(why), "{error}");
        }
        fs::write(&path, "{\"id\":1,\"at\":0,\"type\":\"of_tomorrow\",\"x\":1}\n").expect("a file");
        assert_eq!(Transcript::read(&path).expect("read")[0].kind, EntryKind::Unknown);
    }

    #[test]
    fn a_text_is_kept_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.jsonl");
        let transcript = Transcript::create(&path).expect("new");
        let name = transcript.keep(b"much").expect("kept");
        assert_eq!(transcript.keep(b"much").expect("kept"), name);
        assert_eq!(fs::read(blobs(&path).join(&name)).expect("a file"), b"much");
        assert_eq!(fs::read_dir(blobs(&path)).expect("a folder").count(), 1);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = parse(&bytes, Path::new("x"));
        }

        /// Wherever the power goes, what was whole is read.
        #[test]
        fn whatever_is_cut_the_rest_is_read(texts in proptest::collection::vec("[a-z\"\\\\é\\n]{0,12}", 1..6), cut in 0usize..400) {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("a.jsonl");
            let mut transcript = Transcript::create(&path).expect("new");
            transcript.append(texts.iter().map(|text| notice(text)).collect(), false).expect("written");
            let bytes = fs::read(&path).expect("a file");
            let cut = cut.min(bytes.len());
            let read = parse(&bytes[..cut], &path).expect("what is whole");
            let whole = bytes[..cut].iter().filter(|byte| **byte == b'\n').count();
            prop_assert_eq!(read.entries.len(), whole);
        }
    }
}
