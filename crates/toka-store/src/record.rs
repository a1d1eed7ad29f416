//! An event as a row: what the queries ask for in columns of its own, the rest as the JSON that programs know.

use serde::Deserialize;
use toka_core::{AgentName, Event, EventKind, ProjectName, RunId};

/// What a row takes in memory beside its texts, in bytes; for the bound of what waits.
const OVERHEAD: usize = 160;

/// An event that is ready to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub(crate) seq: u64,
    pub(crate) time_ms: i64,
    pub(crate) run: RunId,
    pub(crate) project: ProjectName,
    pub(crate) agent: Option<AgentName>,
    pub(crate) body: Box<str>,
    pub(crate) mark: Mark,
}

/// What an event means for its run's own row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Mark {
    None,
    Started { workspace: Box<str> },
    Ended { exit_code: u8 },
}

impl Record {
    /// The row of this event.
    pub fn of(event: &Event) -> Self {
        let body = serde_json::to_string(&event.kind);
        let mark = match &event.kind {
            EventKind::RunStarted { workspace, .. } => Mark::Started { workspace: workspace.as_str().into() },
            EventKind::RunEnded { exit_code } => Mark::Ended { exit_code: *exit_code },
            _ => Mark::None,
        };
        Self {
            seq: event.seq,
            time_ms: event.time_ms,
            run: event.run,
            project: event.project.clone(),
            agent: event.agent.clone(),
            body: body.expect("texts, numbers and maps with texts as keys have a JSON form").into(),
            mark,
        }
    }

    /// Its number.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// About what it takes in memory, in bytes.
    pub(crate) fn size(&self) -> usize {
        let workspace = if let Mark::Started { workspace } = &self.mark { workspace.len() } else { 0 };
        OVERHEAD + self.body.len() + workspace
    }

    /// The name of its type, as in the JSON; empty if there were none.
    pub(crate) fn tag(&self) -> &str {
        #[derive(Deserialize)]
        struct Tag<'a> {
            #[serde(borrow, rename = "type")]
            name: &'a str,
        }
        serde_json::from_str::<Tag<'_>>(&self.body).map_or("", |tag| tag.name)
    }
}

#[cfg(test)]
mod tests {
    use toka_core::Name;
    use uuid::Uuid;

    use super::*;

    fn record(kind: EventKind) -> Record {
        let (project, run) = (Name::new("p").expect("a label"), RunId::from_uuid(Uuid::nil()));
        Record::of(&Event { seq: 1, time_ms: 2, project, run, agent: None, kind })
    }

    #[test]
    fn the_type_is_that_of_the_json() {
        assert_eq!(record(EventKind::AgentReady).tag(), "agent_ready");
        let started =
            record(EventKind::RunStarted { workspace: "/w".into(), agents: Vec::new(), detached: false });
        assert_eq!(
            (started.tag(), &started.mark),
            ("run_started", &Mark::Started { workspace: "/w".into() })
        );
        assert_eq!(record(EventKind::RunEnded { exit_code: 3 }).mark, Mark::Ended { exit_code: 3 });
    }

    #[test]
    fn what_waits_is_counted_with_its_text() {
        let of = |length: usize| record(EventKind::Warning { message: "x".repeat(length) }).size();
        assert_eq!(of(1000) - of(0), 1000);
    }
}
