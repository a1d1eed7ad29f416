//! Calls of models and connections to hosts that a daemon before this one has left without an end. Batches are gone on with, as the provider goes
//! on with them; of all others nobody knows what they used.

use std::collections::BTreeMap;

use toka_core::{
    AgentName, BatchedCall, CallOutcome, CallReceipt, Cost, Event, EventKind, HostOutcome, ModelName, Tokens,
};
use toka_gateway::{LeftBatch, LeftCall};

use crate::journal::Journal;

const KILLED: &str = "the daemon was killed";

/// A call or connection without an end.
struct Open {
    agent: AgentName,
    /// Its end, if nobody knows more.
    end: EventKind,
    since_ms: i64,
}

/// All of them.
#[derive(Default)]
pub(crate) struct OpenCalls {
    open: BTreeMap<u64, Open>,
    batches: BTreeMap<AgentName, Vec<LeftBatch>>,
}

impl OpenCalls {
    /// Those that have no end in what happened.
    pub(crate) fn of(past: &[Event]) -> Self {
        let mut found = Self::default();
        for event in past {
            if let Some(agent) = &event.agent {
                found.take(agent, event);
            }
        }
        found
    }

    fn take(&mut self, agent: &AgentName, event: &Event) {
        let mut begin = |number: u64, end| {
            self.open.insert(number, Open { agent: agent.clone(), end, since_ms: event.time_ms });
        };
        match &event.kind {
            EventKind::ModelAsked { call, model, .. } => begin(*call, cut_call(*call, model, None)),
            EventKind::HostAsked { connection, host, port } => {
                begin(*connection, cut_connection(*connection, host, *port));
            }
            EventKind::ModelBatched { provider, model, path, batch, calls } => {
                let name = ModelName { provider: Some(provider.clone()), model: model.clone() };
                for BatchedCall { call, .. } in calls {
                    if let Some(open) = self.open.get_mut(call) {
                        open.end = cut_call(*call, &name, Some(batch.clone()));
                    }
                }
                let of = self.batches.entry(agent.clone()).or_default();
                let calls = calls.iter().map(|BatchedCall { call, request }| LeftCall {
                    call: *call,
                    request: request.clone(),
                    since_ms: event.time_ms,
                });
                of.push(LeftBatch {
                    provider: provider.clone(),
                    model: model.clone(),
                    path: path.clone(),
                    batch: batch.clone(),
                    calls: calls.collect(),
                });
            }
            EventKind::ModelAnswered { call: number, .. }
            | EventKind::HostClosed { connection: number, .. } => drop(self.open.remove(number)),
            _ => {}
        }
    }

    /// The batches of an agent whose process goes on, with those of their calls that have no end: they are not closed.
    pub(crate) fn take_batches(&mut self, agent: &AgentName) -> Vec<LeftBatch> {
        let mut left = self.batches.remove(agent).unwrap_or_default();
        for batch in &mut left {
            batch.calls.retain_mut(|left| match self.open.remove(&left.call) {
                Some(open) => {
                    left.since_ms = open.since_ms;
                    true
                }
                None => false,
            });
        }
        left.retain(|batch| !batch.calls.is_empty());
        left
    }

    /// Records the ends of what is left.
    pub(crate) fn close(self, journal: &Journal) {
        for Open { agent, end, .. } in self.open.into_values() {
            drop(journal.record(Some(agent), end));
        }
    }
}

fn cut_call(call: u64, model: &ModelName, batch: Option<String>) -> EventKind {
    let receipt = CallReceipt {
        outcome: CallOutcome::Cut { reason: KILLED.to_owned() },
        provider: model.provider.clone().unwrap_or_default(),
        model: model.model.clone(),
        tokens: Tokens::default(),
        cost: Cost::Unknown,
        tries: 1,
        failed_tries: Vec::new(),
        batch,
        first_content_ms: None,
        duration_ms: 0,
    };
    EventKind::ModelAnswered { call, receipt: Box::new(receipt) }
}

fn cut_connection(connection: u64, host: &str, port: u16) -> EventKind {
    EventKind::HostClosed {
        connection,
        host: host.to_owned(),
        port,
        outcome: HostOutcome::Cut { reason: KILLED.to_owned() },
        sent: None,
        received: None,
        duration_ms: None,
    }
}

#[cfg(test)]
mod tests {
    use toka_core::{Amounts, Name, RunId};

    use super::*;

    fn event(agent: &str, time_ms: i64, kind: EventKind) -> Event {
        let name = |text: &str| Name::new(text).expect("a label");
        Event {
            seq: 1,
            time_ms,
            project: name("p"),
            run: RunId::from_uuid(uuid::Uuid::nil()),
            agent: Some(name(agent)),
            kind,
        }
    }

    fn asked(call: u64) -> EventKind {
        EventKind::ModelAsked {
            call,
            asked: "m".into(),
            model: ModelName::from("lab/m".to_owned()),
            stream: false,
            bytes: 1,
            hash: String::new(),
            reserved: Amounts::default(),
        }
    }

    fn batched(batch: &str, calls: &[u64]) -> EventKind {
        let calls = calls.iter().map(|call| BatchedCall { call: *call, request: format!("{call:064}") });
        EventKind::ModelBatched {
            provider: "lab".into(),
            model: "m".into(),
            path: "/v1/messages".into(),
            batch: batch.into(),
            calls: calls.collect(),
        }
    }

    #[test]
    fn a_batch_is_gone_on_with_for_the_calls_that_have_no_end() {
        let past = [
            event("a", 1, asked(1)),
            event("a", 2, asked(2)),
            event("a", 3, asked(3)),
            event("b", 4, asked(4)),
            event("a", 5, batched("b-1", &[1, 2])),
            event("b", 6, batched("b-2", &[4])),
            event("a", 7, cut_call(1, &ModelName::from("lab/m".to_owned()), None)),
        ];
        let mut open = OpenCalls::of(&past);
        let left = open.take_batches(&Name::new("a").expect("a label"));
        let calls: Vec<(&str, u64, i64)> = left
            .iter()
            .flat_map(|batch| batch.calls.iter().map(|left| (batch.batch.as_str(), left.call, left.since_ms)))
            .collect();
        assert_eq!(calls, [("b-1", 2, 2)]);
        // What is no batch's, and that of an agent that is gone, has an end now.
        let ends: Vec<(u64, Option<&str>)> = open
            .open
            .iter()
            .map(|(call, open)| match &open.end {
                EventKind::ModelAnswered { receipt, .. } => (*call, receipt.batch.as_deref()),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(ends, [(3, None), (4, Some("b-2"))]);
    }
}
