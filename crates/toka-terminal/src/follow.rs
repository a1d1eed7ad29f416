//! Agents' output while they write it (`--follow`). The display asks for lines when it is ready to show some, so that
//! an agent that writes without end fills its log file and never the memory.

use std::collections::HashMap;
use std::path::PathBuf;

use toka_core::AgentName;
use toka_logs::{Bookmark, Entry, Extent, History};

/// Most lines of one agent that are taken at a time, so that one who writes much leaves room for the others.
const MOST_LINES: usize = 200;

/// Where an agent's log is.
pub type LogOf = Box<dyn Fn(&AgentName) -> PathBuf + Send>;

/// A line of an agent's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputLine {
    /// Who wrote it.
    pub agent: AgentName,
    /// `stdout` or `stderr`.
    pub stream: &'static str,
    /// The line without its end, as it was written.
    pub bytes: Vec<u8>,
}

/// The logs of the agents that have started.
pub struct Follow {
    log_of: LogOf,
    logs: Vec<Log>,
    /// How far those were read that have ended, and may be started again.
    read: HashMap<AgentName, Bookmark>,
}

struct Log {
    agent: AgentName,
    history: History,
    writer: Writer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writer {
    Alive,
    Gone,
    /// It was started again before all was read that it wrote until its end.
    Back,
}

impl Log {
    /// All that there is was read: whether there may be more.
    fn at_end(&mut self, log_of: &LogOf, read: &mut HashMap<AgentName, Bookmark>) -> bool {
        if self.writer == Writer::Alive {
            return true;
        }
        let Some(bookmark) = self.history.bookmark() else { return false };
        if self.writer == Writer::Gone {
            read.insert(self.agent.clone(), bookmark);
            return false;
        }
        match History::after(&log_of(&self.agent), bookmark, Extent::Growing) {
            Ok(history) => (self.history, self.writer) = (history, Writer::Alive),
            Err(error) => tracing::warn!(agent = %self.agent, %error, "the log cannot be followed"),
        }
        self.writer == Writer::Alive
    }
}

impl Follow {
    /// Follows nobody yet.
    pub fn new(log_of: LogOf) -> Self {
        Self { log_of, logs: Vec::new(), read: HashMap::new() }
    }

    /// The agent runs: what it writes in this run is read from the beginning, once, however often it is started again. A
    /// log that cannot be opened is not followed.
    pub fn started(&mut self, agent: &AgentName) {
        if let Some(log) = self.logs.iter_mut().find(|log| log.agent == *agent) {
            if log.writer == Writer::Gone {
                log.writer = Writer::Back;
            }
            return;
        }
        let log = (self.log_of)(agent);
        let history = match self.read.remove(agent) {
            Some(bookmark) => History::after(&log, bookmark, Extent::Growing),
            None => History::of_last_run(&log, Extent::Growing),
        };
        if let Ok(history) = history {
            self.logs.push(Log { agent: agent.clone(), history, writer: Writer::Alive });
        }
    }

    /// The agent is gone: what it wrote last is read to its end, then its log is closed.
    pub fn ended(&mut self, agent: &AgentName) {
        for log in self.logs.iter_mut().filter(|log| log.agent == *agent) {
            log.history.end();
            log.writer = Writer::Gone;
        }
    }

    /// Nothing more will be written by anybody.
    pub fn all_ended(&mut self) {
        for log in &mut self.logs {
            log.history.end();
            log.writer = Writer::Gone;
        }
    }

    /// The lines that were written since, some of each agent; empty when there are none.
    pub fn lines(&mut self) -> Vec<OutputLine> {
        let mut lines = Vec::new();
        let (log_of, read) = (&self.log_of, &mut self.read);
        self.logs.retain_mut(|log| {
            for _ in 0..MOST_LINES {
                match log.history.next_item().map(|item| item.map(|item| item.entry)) {
                    Ok(Some(Entry::Line(line))) => lines.push(OutputLine {
                        agent: log.agent.clone(),
                        stream: line.stream.as_str(),
                        bytes: line.bytes,
                    }),
                    // It is told as a warning, too.
                    Ok(Some(Entry::Gap(_))) => {}
                    Ok(None) => return log.at_end(log_of, read),
                    Err(error) => {
                        tracing::warn!(agent = %log.agent, %error, "the log cannot be followed");
                        return false;
                    }
                }
            }
            true
        });
        lines
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;

    use toka_logs::index::{Batch, MAGIC};
    use toka_logs::{Stream, index_path};

    use super::*;
    use crate::canned::name;

    /// A log of one batch, written to stderr.
    pub(crate) fn write(log: &Path, text: &[u8]) {
        let batch = Batch {
            offset: 0,
            time_ms: Some(0),
            length: u32::try_from(text.len()).expect("small"),
            stream: Stream::Stderr,
        };
        std::fs::write(log, text).expect("a log");
        std::fs::write(index_path(log), [&MAGIC[..], &batch.encode()[..]].concat()).expect("an index");
    }

    /// Writes more to it.
    fn append(log: &Path, text: &[u8]) {
        let offset = std::fs::metadata(log).expect("a log").len();
        let length = u32::try_from(text.len()).expect("small");
        let batch = Batch { offset, time_ms: Some(0), length, stream: Stream::Stderr };
        for (path, bytes) in [(log.to_owned(), text), (index_path(log), &batch.encode()[..])] {
            let mut file = std::fs::File::options().append(true).open(path).expect("a log");
            std::io::Write::write_all(&mut file, bytes).expect("ours");
        }
    }

    fn texts(follow: &mut Follow) -> Vec<String> {
        follow.lines().iter().map(|line| String::from_utf8_lossy(&line.bytes).into_owned()).collect()
    }

    #[test]
    fn lines_come_once_and_the_unfinished_one_at_the_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("log");
        write(&log, b"one\ntwo\nthr");
        let mut follow = Follow::new(Box::new(move |_| log.clone()));
        follow.started(&name("a"));
        assert_eq!(texts(&mut follow), ["one", "two"]);
        assert_eq!(texts(&mut follow), [""; 0]);
        follow.ended(&name("a"));
        assert_eq!(texts(&mut follow), ["thr"]);
        assert!(follow.logs.is_empty(), "a log that is read to its end is closed");
    }

    #[test]
    fn what_was_shown_of_a_former_life_is_not_shown_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("log");
        let of = log.clone();
        let mut follow = Follow::new(Box::new(move |_| of.clone()));
        write(&log, b"one\ntw");
        follow.started(&name("a"));
        follow.ended(&name("a"));
        assert_eq!(texts(&mut follow), ["one", "tw"]);
        follow.started(&name("a"));
        append(&log, b"three\nfour\n");
        assert_eq!(texts(&mut follow), ["three", "four"]);
        // It comes back before all was read.
        append(&log, b"five\nsi");
        follow.ended(&name("a"));
        follow.started(&name("a"));
        assert_eq!(texts(&mut follow), ["five", "si"]);
        append(&log, b"x\nseven\n");
        assert_eq!(texts(&mut follow), ["x", "seven"]);
    }

    #[test]
    fn an_endless_writer_is_read_in_parts() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("log");
        write(&log, &b"y\n".repeat(MOST_LINES + 1));
        let mut follow = Follow::new(Box::new(move |_| log.clone()));
        follow.started(&name("a"));
        assert_eq!(follow.lines().len(), MOST_LINES);
        assert_eq!(follow.lines().len(), 1);
    }

    #[test]
    fn a_log_that_is_not_there_is_not_followed() {
        let mut follow = Follow::new(Box::new(|_| PathBuf::from("/nonexistent/log")));
        follow.started(&name("a"));
        assert!(follow.lines().is_empty());
    }
}
