//! Reports of agents while the run goes on: each has a timer that knows when one is due, and a sender for each place.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use toka_core::event::Occasion;
use toka_core::{AgentName, Command, EventKind};
use toka_workstream::{Agent, Channel, Frequency};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::Project;
use crate::order::Order;
use crate::reporting::sender::{Draft, Inbox, ReportSender};
use crate::reporting::timer::{ReportTimer, period_end};
use crate::wall_timer::WallTimer;

/// How long the last reports may take once every agent has ended.
const LAST: Duration = Duration::from_secs(10);

/// The reports of a project's agents.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    files: BTreeMap<AgentName, AgentReports>,
    senders: JoinSet<()>,
    /// Made with the first that reports by the clock.
    alarm: Option<WallTimer>,
}

#[derive(Debug)]
struct AgentReports {
    timer: ReportTimer,
    frequency: Frequency,
    /// When its period ends, if it has any.
    period: Option<Timestamp>,
    inboxes: Vec<Arc<Inbox>>,
}

impl Drop for AgentReports {
    fn drop(&mut self) {
        self.inboxes.iter().for_each(|inbox| inbox.close());
    }
}

impl Reports {
    /// Until a report is due.
    pub(crate) async fn due(&self) {
        let soonest = self.files.values().filter_map(|file| file.timer.due()).min();
        let timer = async {
            match soonest {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        let period = async {
            match &self.alarm {
                Some(alarm) => alarm.ring().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = timer => {}
            () = period => {}
        }
    }

    fn hear(&mut self, agent: &AgentName, kind: &EventKind) {
        if let Some(file) = self.files.get_mut(agent) {
            file.timer.hear(kind, Instant::now());
        }
    }

    /// Those whose report is due, and why.
    fn take_due(&mut self) -> Vec<(AgentName, Occasion)> {
        let (now, wall) = (Instant::now(), Timestamp::now());
        let mut due = Vec::new();
        for (agent, file) in &mut self.files {
            if file.period.is_some_and(|end| end <= wall) {
                file.timer.call(Occasion::Period, now);
            }
            // A clock that was set has other periods.
            file.period = period_end(file.frequency, wall);
            due.extend(file.timer.take(now).map(|occasion| (agent.clone(), occasion)));
        }
        due
    }

    fn wind(&mut self) -> std::io::Result<()> {
        let next = self.files.values().filter_map(|file| file.period).min();
        if self.alarm.is_none() && next.is_some() {
            self.alarm = Some(WallTimer::new()?);
        }
        self.alarm.as_ref().map_or(Ok(()), |alarm| alarm.set(next))
    }
}

impl Project {
    /// Reports of those of `agents` that declare where to, and are not reported of yet. A place that nobody granted any
    /// more is left out.
    pub(crate) fn open_reports(&mut self, agents: &[Agent]) {
        for agent in agents {
            if self.reports.files.contains_key(&agent.name) {
                continue;
            }
            let channels = agent.reporting.channels.iter().map(|channel| channel.value.clone());
            let granted = |channel: &Channel| {
                let granted = |asked| self.context.policy.decide(agent.declared_name(), &asked).is_ok();
                channel.demands().is_none_or(granted)
            };
            let channels: Vec<Channel> =
                channels.filter(|channel| channel.is_sent_to() && granted(channel)).collect();
            if channels.is_empty() {
                continue;
            }
            let inboxes =
                channels.into_iter().map(|channel| self.employ_courier(&agent.name, channel)).collect();
            let frequency = agent.reporting.frequency;
            let period = period_end(frequency, Timestamp::now());
            let file = AgentReports { timer: ReportTimer::new(frequency), frequency, period, inboxes };
            self.reports.files.insert(agent.name.clone(), file);
        }
        self.wind_reports();
    }

    fn employ_courier(&mut self, agent: &AgentName, channel: Channel) -> Arc<Inbox> {
        let folders = &self.context.folders;
        let sender = ReportSender {
            agent: agent.clone(),
            project: folders.project.clone(),
            run: self.context.run,
            channel,
            folder: folders.agent(agent),
            keeper: self.keeper.clone(),
            journal: Arc::clone(&self.journal),
        };
        let inbox = Arc::new(Inbox::default());
        self.reports.senders.spawn(sender.run(Arc::clone(&inbox)));
        inbox
    }

    /// Forgets all agents that `keeps` does not name; what waits is still delivered.
    pub(crate) fn keep_reports(&mut self, keeps: impl Fn(&AgentName) -> bool) {
        self.reports.files.retain(|agent, _| keeps(agent));
    }

    pub(crate) fn hear_for_reports(&mut self, agent: &AgentName, kind: &EventKind) {
        self.reports.hear(agent, kind);
    }

    /// Sends what is due.
    pub(crate) fn report(&mut self) {
        for (agent, occasion) in self.reports.take_due() {
            self.send_report(&agent, occasion);
        }
        self.wind_reports();
        while self.reports.senders.try_join_next().is_some() {}
    }

    /// Sends what would be due later of those agents that `goes` names.
    pub(crate) fn flush_reports(&mut self, goes: impl Fn(&AgentName) -> bool) {
        let files = self.reports.files.iter_mut().filter(|(agent, _)| goes(agent));
        let last: Vec<(AgentName, Occasion)> =
            files.filter_map(|(agent, file)| Some((agent.clone(), file.timer.flush()?))).collect();
        last.iter().for_each(|(agent, occasion)| self.send_report(agent, *occasion));
    }

    /// Sends what would be due later, and waits for a while until all has arrived.
    pub(crate) async fn finish_reports(&mut self) {
        self.flush_reports(|_| true);
        self.reports.files.clear();
        if !self.wait_for_couriers().await {
            let senders = &mut self.reports.senders;
            let message = format!(
                "the last reports did not arrive in time; places that keep them waiting: {}",
                senders.len()
            );
            senders.shutdown().await;
            self.journal.record(None, EventKind::Warning { message }).await;
        }
    }

    /// Whether all reports have arrived, or were given up, before the time for that was over and before somebody asked for the
    /// end once more.
    async fn wait_for_couriers(&mut self) -> bool {
        let end = Instant::now() + LAST;
        while !self.reports.senders.is_empty() {
            let order = tokio::select! {
                _ = self.reports.senders.join_next() => continue,
                () = tokio::time::sleep_until(end) => return false,
                Some(order) = self.orders.recv() => order,
            };
            let is_impatient = matches!(
                order,
                Order::Interrupt { .. } | Order::Command { command: Command::Down { .. }, .. }
            );
            self.handle_order(order).await;
            if is_impatient {
                return false;
            }
        }
        true
    }

    fn send_report(&self, agent: &AgentName, occasion: Occasion) {
        let (Some(file), Some(status), Some(member)) =
            (self.reports.files.get(agent), self.status.agent(agent), self.members.get(agent))
        else {
            return;
        };
        let disk = super::Member::with_disk(member.disk.as_ref(), None);
        let draft = Draft {
            occasion,
            at_ms: super::now_ms(),
            status: status.clone(),
            expected: Arc::clone(&member.expected),
            process: status.state.is_alive().then_some(member.id),
            disk: disk.unwrap_or_default(),
        };
        file.inboxes.iter().for_each(|inbox| inbox.put(draft.clone()));
    }

    fn wind_reports(&mut self) {
        if let Err(error) = self.reports.wind() {
            let message = format!("no report is sent by the clock: the timer cannot be set: {error}");
            drop(self.journal.record(None, EventKind::Warning { message }));
        }
    }
}

#[cfg(test)]
mod tests {
    use toka_core::Name;

    use super::*;

    #[tokio::test]
    async fn the_end_of_a_period_is_reported_once() {
        let name: AgentName = Name::new("agent").expect("a label");
        let file = |frequency, period| AgentReports {
            timer: ReportTimer::new(frequency),
            frequency,
            period,
            inboxes: Vec::new(),
        };
        let mut desk = Reports::default();
        let over = Timestamp::now() - jiff::SignedDuration::from_secs(1);
        desk.files.insert(name.clone(), file(Frequency::Hourly, Some(over)));
        desk.files.insert(Name::new("other").expect("a label"), file(Frequency::OnCompletion, None));
        desk.wind().expect("a timer");
        desk.due().await;
        assert_eq!(desk.take_due(), [(name.clone(), Occasion::Period)]);
        desk.wind().expect("a timer");
        assert_eq!(desk.take_due(), []);
        let next = desk.files[&name].period.expect("another one");
        assert!(next > Timestamp::now() && next <= Timestamp::now() + jiff::SignedDuration::from_hours(1));
        let wait = tokio::time::timeout(Duration::from_millis(50), desk.due()).await;
        assert!(wait.is_err(), "nothing wakes before");
    }

    #[tokio::test]
    async fn without_reports_nothing_wakes() {
        let desk = Reports::default();
        assert!(tokio::time::timeout(Duration::from_millis(50), desk.due()).await.is_err());
    }
}
