//! The sessions of a project: which there are, and what the list of them shows. There is no index that could be wrong: a list reads the first
//! and the last lines of each file.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use toka_core::transcript::{ForkedFrom, SessionInfo};
use toka_core::{AgentName, SessionKey, SessionMode};
use toka_wire::ToolDefinition;

use super::file::{blobs, name_of};
use super::{Transcript, TranscriptError};
use toka_core::transcript::NO_RUN;
use toka_core::transcript::{Entry, EntryKind};

/// Bytes at the end of a file that are looked at for its last lines.
const TAIL: u64 = 64 * 1024;
/// The longest first line that is read, in bytes: instructions are in it.
const HEAD: u64 = 1024 * 1024;
/// Sessions that are looked at for the one of a life.
const NEWEST: usize = 100;
const EXTENSION: &str = "jsonl";

/// The folder of the transcripts of a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionFolder(PathBuf);

impl SessionFolder {
    /// The folder at this path; it need not be there.
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// The file of a session.
    pub fn path(&self, key: &SessionKey) -> PathBuf {
        self.0.join(format!("{key}.{EXTENSION}"))
    }

    /// The text that stands in no line, by its name.
    ///
    /// # Errors
    /// When it is not there.
    pub fn whole(&self, key: &SessionKey, name: &str) -> io::Result<Vec<u8>> {
        if !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(io::ErrorKind::NotFound.into());
        }
        fs::read(blobs(&self.path(key)).join(name))
    }

    /// The tools of a session, as its model was told of them; `None` when an earlier version has written it.
    ///
    /// # Errors
    /// When they are not there, or are not what they were.
    pub fn tools(&self, key: &SessionKey, entries: &[Entry]) -> io::Result<Option<Vec<ToolDefinition>>> {
        let Some(EntryKind::Session { definitions: Some(name), .. }) =
            entries.first().map(|first| &first.kind)
        else {
            return Ok(None);
        };
        let text = self.whole(key, name)?;
        if name_of(&text) != *name {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not what it was"));
        }
        serde_json::from_slice(&text).map(Some).map_err(io::Error::from)
    }

    /// The names of all, by agent, mode and number.
    ///
    /// # Errors
    /// When the folder cannot be read; one that is not there has none.
    pub fn keys(&self) -> io::Result<Vec<SessionKey>> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let key = |entry: fs::DirEntry| {
            let name = entry.file_name();
            name.to_str()?.strip_suffix(EXTENSION)?.strip_suffix('.')?.parse().ok()
        };
        let mut keys: Vec<SessionKey> = entries.flatten().filter_map(key).collect();
        keys.sort_unstable();
        Ok(keys)
    }

    /// The last session of an agent in a mode.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn last(&self, agent: &AgentName, mode: SessionMode) -> io::Result<Option<SessionKey>> {
        let is_of = |key: &SessionKey| key.agent == *agent && key.mode == mode;
        Ok(self.keys()?.into_iter().rfind(is_of))
    }

    /// The last session of an agent in a mode that is such a one, of the newest ones: those that a person has begun from others are among them.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub(crate) fn last_that(
        &self,
        agent: &AgentName,
        mode: SessionMode,
        is_it: impl Fn(&SessionInfo) -> bool,
    ) -> io::Result<Option<SessionKey>> {
        let is_of = |key: &SessionKey| key.agent == *agent && key.mode == mode;
        let newest = self.keys()?.into_iter().rev().filter(is_of).take(NEWEST);
        Ok(newest.into_iter().find(|key| self.info(key).is_ok_and(|info| is_it(&info))))
    }

    /// The name of the next session of an agent in a mode.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn next(&self, agent: &AgentName, mode: SessionMode) -> io::Result<SessionKey> {
        let number = self.last(agent, mode)?.map_or(1, |key| key.number + 1);
        Ok(SessionKey { agent: agent.clone(), mode, number })
    }

    /// Begins the session `key` with what was said in another, up to a line: its lines have the same numbers there. `session` is the first line.
    ///
    /// # Errors
    /// When the other cannot be read, or `key` cannot be written.
    pub fn fork(
        &self,
        (from, until): (&SessionKey, Option<u64>),
        key: &SessionKey,
        mut session: EntryKind,
    ) -> Result<(Transcript, Vec<Entry>), TranscriptError> {
        let mut entries = self.read(from)?;
        entries.retain(|entry| until.is_none_or(|until| entry.id <= until));
        if let EntryKind::Session { from: forked, .. } = &mut session {
            let until = entries.last().map_or(0, |entry| entry.id);
            *forked = Some(ForkedFrom { session: from.clone(), until });
        }
        let path = self.path(key);
        let mut transcript = Transcript::create(&path)?;
        if let Err(error) = transcript.take_over(&blobs(&self.path(from)), session, &mut entries) {
            // What is there of it would be taken for all of it.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        Ok((transcript, entries))
    }

    /// What there is to know of a session without reading all of it.
    ///
    /// # Errors
    /// When it is not there, or cannot be read.
    pub fn info(&self, key: &SessionKey) -> io::Result<SessionInfo> {
        let path = self.path(key);
        let mut file = File::open(&path)?;
        let metadata = file.metadata()?;
        let changed = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        let first = first(&file)?;
        let tail = tail(&mut file, metadata.len())?;
        let (run, pid, began_ms) = match first {
            Some(Entry { at, kind: EntryKind::Session { run, pid, .. }, .. }) => {
                (Some(run).filter(|run| *run != NO_RUN), Some(pid), Some(at))
            }
            _ => (None, None, None),
        };
        let ended = tail.iter().rev().find_map(|entry| match &entry.kind {
            EntryKind::Ended { exit, .. } => Some(Some(exit.clone())),
            EntryKind::Task { .. } | EntryKind::Person { .. } => Some(None),
            _ => None,
        });
        Ok(SessionInfo {
            key: key.clone(),
            run,
            pid,
            began_ms,
            changed_ms: i64::try_from(changed.as_millis()).unwrap_or(i64::MAX),
            entries: tail.last().map_or(0, |entry| entry.id),
            bytes: metadata.len(),
            ended: ended.flatten(),
        })
    }

    /// Removes a session with all that is kept of it.
    ///
    /// # Errors
    /// When it is not there, or cannot be removed.
    pub fn delete(&self, key: &SessionKey) -> io::Result<()> {
        let path = self.path(key);
        match fs::remove_dir_all(blobs(&path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::remove_file(path)
    }

    /// The lines of a session.
    ///
    /// # Errors
    /// When it cannot be read, or is damaged before its last line.
    pub fn read(&self, key: &SessionKey) -> Result<Vec<Entry>, TranscriptError> {
        Transcript::read(&self.path(key))
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.0
    }
}

fn first(file: &File) -> io::Result<Option<Entry>> {
    let mut line = Vec::new();
    BufReader::new(file.take(HEAD)).read_until(b'\n', &mut line)?;
    Ok(serde_json::from_slice(&line).ok())
}

/// The last lines; one that is torn, or too long for the part that is looked at, is none.
fn tail(file: &mut File, length: u64) -> io::Result<Vec<Entry>> {
    let from = length.saturating_sub(TAIL);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let lines = bytes[..whole].split(|byte| *byte == b'\n');
    Ok(lines.filter_map(|line| serde_json::from_slice(line).ok()).collect())
}

#[cfg(test)]
mod tests {
    use toka_core::{Exit, Name, RunId};

    use super::*;

    #[test]
    fn sessions_are_numbered_and_listed() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = SessionFolder::new(root.path().join("sessions"));
        let agent = Name::new("builder").expect("a name");
        assert_eq!(folder.keys().expect("none"), []);
        let mut keys = Vec::new();
        for _ in 0..11 {
            let key = folder.next(&agent, SessionMode::Task).expect("a name");
            let mut transcript = Transcript::create(&folder.path(&key)).expect("new");
            let run = RunId::parse("0198e0a0-0000-7000-8000-000000000000").expect("an id");
            let session = EntryKind::Session {
                version: 1,
                key: key.clone(),
                run,
                pid: 1,
                from: None,
                system: String::new(),
                tools: vec![],
                definitions: None,
            };
            let task = EntryKind::Task { index: 0, attempt: 1, text: "do it".into() };
            transcript.append(vec![session, task], false).expect("written");
            keys.push(key);
        }
        assert_eq!(folder.keys().expect("a folder"), keys, "by number, not by text");
        let info = folder.info(&keys[10]).expect("there");
        assert_eq!((info.entries, info.ended), (2, None));
        assert!(info.began_ms.is_some() && info.run.is_some());
        let mut transcript = Transcript::open(&folder.path(&keys[10])).expect("there").0;
        let exit = Exit::Code { code: 0 };
        transcript
            .append(vec![EntryKind::Ended { index: 0, attempt: 1, exit: exit.clone() }], false)
            .expect("written");
        transcript.keep(b"x").expect("kept");
        assert_eq!(folder.info(&keys[10]).expect("there").ended, Some(exit));
        folder.delete(&keys[10]).expect("removed");
        assert_eq!(fs::read_dir(root.path().join("sessions")).expect("a folder").count(), 10);
        assert!(folder.whole(&keys[0], "../x").is_err());
    }
}
