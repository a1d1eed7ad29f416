//! Brings the reports of one agent to one place. One that does not arrive holds up nobody: the agent goes on, its other places
//! have senders of their own, and of what gathers meanwhile the oldest is left out.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyper::body::Bytes;
use serde::Serialize;
use toka_core::event::Occasion;
use toka_core::health::Expected;
use toka_core::{AgentName, AgentStatus, EventKind, HealthReport, ProjectName, Resources, RunId};
use toka_keeper::{Keeper, ProcessId};
use toka_workstream::Channel;
use tokio::sync::Notify;

use super::agent_reports;
use super::webhook::{Delivery, Patience};
use crate::KEEPER_ANSWER;
use crate::journal::Journal;

/// Reports that wait for one place.
const WAITING: usize = 16;

/// What is known of an agent at a moment, on its way to become a report.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub(crate) occasion: Occasion,
    pub(crate) at_ms: i64,
    pub(crate) status: AgentStatus,
    pub(crate) expected: Arc<Expected>,
    /// The process that its figures are asked of, if it has one.
    pub(crate) process: Option<ProcessId>,
    /// What it holds on disk, and may.
    pub(crate) disk: Resources,
}

/// What is sent: the health of the agent as `toka health --json` has it, and what it is a report of.
#[derive(Debug, Serialize)]
struct Report<'a> {
    occasion: Occasion,
    project: &'a ProjectName,
    run: RunId,
    at_ms: i64,
    #[serde(flatten)]
    health: &'a HealthReport,
}

/// The reports that wait for a sender.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    waiting: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    drafts: VecDeque<Draft>,
    closed: bool,
}

impl Inbox {
    /// Takes a report; the oldest goes when there are too many.
    pub(crate) fn put(&self, draft: Draft) {
        let mut waiting = self.lock();
        if waiting.drafts.len() == WAITING {
            waiting.drafts.pop_front();
        }
        waiting.drafts.push_back(draft);
        drop(waiting);
        self.changed.notify_one();
    }

    /// Nothing more comes.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    async fn next(&self) -> Option<Draft> {
        loop {
            {
                let mut waiting = self.lock();
                if let Some(draft) = waiting.drafts.pop_front() {
                    return Some(draft);
                }
                if waiting.closed {
                    return None;
                }
            }
            self.changed.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Brings reports of an agent to a place.
pub(crate) struct ReportSender {
    pub(crate) agent: AgentName,
    pub(crate) project: ProjectName,
    pub(crate) run: RunId,
    pub(crate) channel: Channel,
    /// The folder that Toka keeps of the agent.
    pub(crate) folder: PathBuf,
    pub(crate) keeper: Keeper,
    pub(crate) journal: Arc<Journal>,
}

impl ReportSender {
    /// Until the inbox is closed and empty.
    pub(crate) async fn run(self, inbox: Arc<Inbox>) {
        let mut arrives = true;
        while let Some(draft) = inbox.next().await {
            let patience = if arrives { Patience::Ordinary } else { Patience::Exhausted };
            let arrived = self.bring(draft, patience).await;
            if let Err(reason) = &arrived
                && std::mem::replace(&mut arrives, false)
            {
                self.tell_loss(reason);
            }
            arrives |= arrived.is_ok();
        }
    }

    /// Says that reports do not arrive; once until one does.
    fn tell_loss(&self, reason: &str) {
        let told = EventKind::ReportUndelivered { to: self.channel.to_string(), reason: reason.to_owned() };
        drop(self.journal.record(Some(self.agent.clone()), told));
    }

    async fn bring(&self, draft: Draft, patience: Patience) -> Result<(), String> {
        let Draft { occasion, at_ms, status, expected, process, disk } = draft;
        let figures = match process {
            // A keeper that hangs is told by others; the report comes without its figures.
            Some(id) => tokio::time::timeout(KEEPER_ANSWER, self.keeper.resources(id)).await.ok().flatten(),
            None => None,
        };
        let Resources { disk_used, disk_limit, .. } = disk;
        let resources = process.map(|_| Resources { disk_used, disk_limit, ..figures.unwrap_or_default() });
        let mut health = HealthReport::of(status, resources, &expected, at_ms);
        if !expected.metrics.is_empty() {
            health.status.metrics.retain(|name, _| expected.metrics.contains(name));
        }
        if let Channel::Topic(topic) = &self.channel {
            let told =
                EventKind::AgentReport { topic: topic.to_string(), occasion, report: Box::new(health) };
            drop(self.journal.record(Some(self.agent.clone()), told));
            return Ok(());
        }
        let report = Report { occasion, project: &self.project, run: self.run, at_ms, health: &health };
        let text = serde_json::to_vec(&report).map_err(|error| error.to_string())?;
        match &self.channel {
            Channel::Webhook(hook) => Delivery(hook).deliver(&Bytes::from(text), patience).await,
            Channel::File(name) => self.write(name.as_ref(), text).await,
            Channel::Present(_) | Channel::Topic(_) | Channel::Label(_) => Ok(()),
        }
    }

    async fn write(&self, name: Option<&AgentName>, text: Vec<u8>) -> Result<(), String> {
        let file = name.map_or("reports.jsonl".to_owned(), |name| format!("reports-{name}.jsonl"));
        let path = self.folder.join(file);
        let write = move || agent_reports::append(&path, &text);
        let written = tokio::task::spawn_blocking(write).await;
        written.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }
}
