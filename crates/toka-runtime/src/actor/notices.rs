//! What the agent says in datagrams, with the meaning that sd_notify(3) gives it.

use std::time::Duration;

use toka_core::state::Happening;
use toka_core::{AgentState, EventKind, Exit, Progress};
use tokio::time::Instant;

use super::Actor;
use super::readiness::Readiness;
use crate::Processes;
use crate::countdown::Countdown;
use crate::door::{Flaw, Notice};

/// What is told once in a life only: whoever does it once does it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Remark {
    /// A datagram that cannot be read.
    Unreadable(Flaw),
    /// A main process that is not the agent's.
    StrangeMain,
    /// A timeout that the agent extended.
    Extended,
    /// Folders that cannot be measured.
    Unseen,
    /// A watchdog that can only tell.
    Powerless,
}

impl<P: Processes> Actor<P> {
    pub(super) async fn on_notices(&mut self, notices: Vec<Notice>) {
        let (mut progress, mut trouble) = (Progress::default(), Vec::new());
        for notice in notices {
            match notice {
                Notice::Ready => self.on_ready().await,
                Notice::Reloading => self.turn(Readiness::reloads).await,
                Notice::Stopping => self.stops_by_itself().await,
                Notice::Status(text) => progress.status = Some(text.into()),
                Notice::Progress(fraction) => progress.fraction = Some(fraction),
                Notice::Task(text) => progress.task = Some(text.into()),
                Notice::Watchdog => self.keep_alive().await,
                Notice::WatchdogTrigger => self.call_watchdog().await,
                Notice::MainPid(pid) => self.name_main(pid).await,
                Notice::ExtendTimeout(by) => self.extend(by),
                Notice::Errno(number) => {
                    let error = std::io::Error::from_raw_os_error(number);
                    trouble.push(format!("it met the error {error}"));
                }
                Notice::BusError(name) => trouble.push(name),
                Notice::ExitStatus(status) => trouble.push(format!("exit status {status}")),
                Notice::Unreadable(flaw) => self.remark(Remark::Unreadable(flaw)),
                // The descriptors that came with it are closed after this.
                Notice::Barrier => {}
            }
        }
        if !trouble.is_empty() {
            let status = progress.status.map(String::from);
            progress.status = Some(status.into_iter().chain(trouble).collect::<Vec<_>>().join(": ").into());
        }
        if !progress.is_empty() {
            self.on_progress(progress);
        }
    }

    /// `STOPPING=1`: it ends by itself, within the grace period of a stop that somebody asks for. How it ends, and what
    /// follows, is as of any end.
    async fn stops_by_itself(&mut self) {
        if !self.is_up() {
            return;
        }
        self.turn(Readiness::stops).await;
        self.timeout = Countdown::Never;
        self.probing = None;
        if self.bitten().is_none() {
            self.watching = None;
        }
        self.grace = self.grace.or_else(|| Instant::now().checked_add(self.profile.stop.grace));
    }

    /// It has not ended in time although it said that it would: that is how it will have ended.
    pub(super) async fn tell_unkept_word(&mut self) {
        if self.is_up() {
            let exit = Exit::Timeout { limit: self.profile.stop.grace };
            self.emit(EventKind::AgentStopping { exit: exit.clone() }).await;
            self.step(Happening::StopRequested(exit));
        }
    }

    /// `MAINPID=`: only a process of the agent, which the keeper finds out.
    async fn name_main(&mut self, pid: i32) {
        if !self.is_up() {
            return;
        }
        let before = match self.state {
            AgentState::Running { pid, .. } | AgentState::Paused { pid, .. } => pid,
            _ => return,
        };
        match self.processes.set_main(self.profile.id, pid).await {
            Ok(pid) if pid != before => {
                if let Some(served) = &self.served {
                    served.main_process_is(pid);
                }
                self.step(Happening::MainProcess { pid });
                self.emit(EventKind::AgentMainProcess { pid }).await;
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(agent = %self.profile.name, pid, %error, "no main process");
                self.remark(Remark::StrangeMain);
            }
        }
    }

    /// `EXTEND_TIMEOUT_USEC=`: whatever time limit is running now ends no earlier than after so much time.
    fn extend(&mut self, by: Duration) {
        let now = Instant::now();
        if let Some(grace) = self.grace {
            self.grace = now.checked_add(by).map(|later| later.max(grace)).or(self.grace);
            return;
        }
        let extended = self.timeout.extend(by, now);
        if std::mem::replace(&mut self.timeout, extended) != extended {
            self.remark(Remark::Extended);
        }
        if let Some(probing) = &self.probing {
            probing.prober.extend(by);
        }
        if let Some(watching) = &mut self.watching {
            watching.extend(by, now);
        }
    }

    pub(super) fn remark(&mut self, remark: Remark) {
        if !self.remarks.insert(remark) {
            return;
        }
        let name = &self.profile.name;
        self.warn(match remark {
            Remark::Unreadable(Flaw::TooLong) => {
                format!(
                    "{name} sent a datagram to NOTIFY_SOCKET that is longer than 16 KiB; it was thrown away"
                )
            }
            Remark::Unreadable(Flaw::NotText) => {
                format!("{name} sent a value to NOTIFY_SOCKET that is not UTF-8; it was thrown away")
            }
            Remark::StrangeMain => {
                format!(
                    "{name} named a main process (MAINPID=) that is not one of its own; it was passed over"
                )
            }
            Remark::Unseen => {
                format!("{name} keeps folders that Toka may not read; they do not count for max_disk_usage")
            }
            Remark::Powerless => "its watchdog tells this and does nothing more: without control groups of its own nobody \
                 knows how much CPU the agent uses, so a computation cannot be told from a hang. It signals and restarts an \
                 agent that sends `WATCHDOG=1`, and any agent where Toka may make control groups (`toka doctor` says how)"
                .to_owned(),
            Remark::Extended => format!("{name} extended its own timeout (EXTEND_TIMEOUT_USEC=)"),
        });
    }
}
