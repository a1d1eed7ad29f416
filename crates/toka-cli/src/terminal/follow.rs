//! Agents' output while they write it (`--follow`). The display asks for lines when it is ready to show some, so that
//! an agent that writes without end fills its log file and never the memory.

use std::path::PathBuf;

use toka_core::AgentName;
use toka_runtime::output::{Entry, Extent, History};

/// Most lines of one agent that are taken at a time, so that one who writes much leaves room for the others.
const MOST_LINES: usize = 200;

/// Where an agent's log is.
pub(crate) type LogOf = Box<dyn Fn(&AgentName) -> PathBuf + Send>;

/// A line of an agent's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutputLine {
    /// Who wrote it.
    pub(crate) agent: AgentName,
    /// `stdout` or `stderr`.
    pub(crate) stream: &'static str,
    /// The line without its end, as it was written.
    pub(crate) bytes: Vec<u8>,
}

/// The logs of the agents that have started.
pub(crate) struct Follow {
    log_of: LogOf,
    logs: Vec<Log>,
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
}

impl Follow {
    /// Follows nobody yet.
    pub(crate) fn new(log_of: LogOf) -> Self {
        Self { log_of, logs: Vec::new() }
    }

    /// The agent runs: what it writes in this run is read from the beginning, once, however often it is started again. A
    /// log that cannot be opened is not followed.
    pub(crate) fn started(&mut self, agent: &AgentName) {
        if self.logs.iter().any(|log| log.agent == *agent) {
            return;
        }
        if let Ok(history) = History::of_last_run(&(self.log_of)(agent), Extent::Growing) {
            self.logs.push(Log { agent: agent.clone(), history, writer: Writer::Alive });
        }
    }

    /// The agent is gone: what it wrote last is read to its end, then its log is closed.
    pub(crate) fn ended(&mut self, agent: &AgentName) {
        for log in self.logs.iter_mut().filter(|log| log.agent == *agent) {
            log.history.end();
            log.writer = Writer::Gone;
        }
    }

    /// Nothing more will be written by anybody.
    pub(crate) fn all_ended(&mut self) {
        for log in &mut self.logs {
            log.history.end();
            log.writer = Writer::Gone;
        }
    }

    /// The lines that were written since, some of each agent; empty when there are none.
    pub(crate) fn lines(&mut self) -> Vec<OutputLine> {
        let mut lines = Vec::new();
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
                    Ok(None) => return log.writer == Writer::Alive,
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

    use toka_runtime::output::index::{Batch, MAGIC};
    use toka_runtime::output::{Stream, index_path};

    use super::super::canned::name;
    use super::*;

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
