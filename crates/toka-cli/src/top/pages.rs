//! What is shown besides the table and the output: what happened to an agent, and what is known of it.

use std::collections::VecDeque;

use toka_api::wire::AgentView;
use toka_core::{AgentName, Event};
use toka_logs::Stream;

use super::log_line::LogLine;
use super::rows::AgentId;
use toka_terminal::plain::in_words;

/// Events of a project that are kept.
pub(crate) const MOST_EVENTS: u64 = 1000;

/// What happened last in a project, oldest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Events(VecDeque<Told>);

#[derive(Debug, Clone, PartialEq)]
struct Told {
    seq: u64,
    agent: Option<AgentName>,
    line: LogLine,
}

impl Events {
    /// Keeps an event; whether it was not there already.
    pub(crate) fn take(&mut self, event: &Event) -> bool {
        if self.0.back().is_some_and(|last| last.seq >= event.seq) {
            return false;
        }
        if self.0.len() as u64 == MOST_EVENTS {
            self.0.pop_front();
        }
        let (text, is_trouble) = in_words(&event.kind);
        let stream = if is_trouble { Stream::Stderr } else { Stream::Stdout };
        let line = LogLine { time_ms: Some(event.time_ms), stream, text };
        self.0.push_back(Told { seq: event.seq, agent: event.agent.clone(), line });
        true
    }

    /// Whether an event is about an agent: what happens to the run happens to all.
    pub(crate) fn concerns(event: &Event, agent: &AgentName) -> bool {
        event.agent.as_ref().is_none_or(|name| name == agent)
    }

    /// What happened to an agent.
    pub(crate) fn of(&self, agent: &AgentName) -> Vec<LogLine> {
        let concerns = |told: &&Told| told.agent.as_ref().is_none_or(|name| name == agent);
        self.0.iter().filter(concerns).map(|told| told.line.clone()).collect()
    }
}

/// What somebody asked about.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Details {
    /// Of whom.
    pub(crate) agent: AgentId,
    /// What was told, or why nobody did; `None` until then.
    pub(crate) view: Option<Result<AgentView, String>>,
}
