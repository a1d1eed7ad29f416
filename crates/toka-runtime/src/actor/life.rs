//! From the request to start to the request to stop.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicI32;
use std::time::Duration;

use toka_core::error::with_causes;
use toka_core::state::Happening;
use toka_core::{AgentState, Coverage, EventKind, Exit, Layer, Request, RestartPolicy};
use toka_keeper::{KeeperEvent, LISTENER, SpawnError, Started};
use toka_logs::Pump;
use toka_sandbox::PrepareError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::channels::{Channels, Opened};
use super::hooks::{Occasion, PreStart, StartError, StartOutcome};
use super::readiness::Readiness;
use super::{Actor, DoorReach, Groups, Pumping};
use crate::beside::Beside;
use crate::countdown::Countdown;
use crate::peers::Peers;
use crate::port::Served;
use crate::turns::timed;
use crate::walls::Walls;
use crate::{Command, Hooks, Processes, Profile, StopPolicy, Terminal, Work};

/// How long a thaw before a stop may take: it is quick or it hangs, and the kill does not need it.
const THAW: Duration = Duration::from_secs(2);

impl<P: Processes> Actor<P> {
    pub(super) async fn start(&mut self) {
        let first = self.state == AgentState::Pending;
        if !self.step(Happening::StartRequested) {
            return;
        }
        self.begun = Instant::now();
        if first {
            self.born = self.begun;
        }
        self.is_due = false;
        (self.comeback, self.turn, self.status, self.grace, self.killed) = (None, None, None, None, None);
        self.readiness = Readiness::default();
        self.remarks.clear();
        (self.runner, self.failed_task) = (None, None);
        self.emit(EventKind::AgentStarting).await;
        // Its number is free for the next life, the last one being on record.
        self.settle();
        let command = match self.is_last_use() {
            // Without a policy nothing is started twice.
            true => std::mem::replace(&mut self.command, Err("it was to be started once".to_owned())),
            false => self.command.clone(),
        };
        let command = match command {
            Ok(command) => command,
            Err(reason) => return self.finish(Exit::StartFailed { reason }).await,
        };
        self.walls = Walls::of(&command.plan, &self.profile.declared);
        let pre_start = self.pre_start(&command);
        let Command { program, argv, env, plan, terminal } = command;
        let StopPolicy { signal: stop_signal, grace } = self.profile.stop;
        let launch = toka_keeper::Launch {
            id: self.profile.id,
            program,
            argv,
            env,
            plan,
            beside: None,
            notification_fd: self.profile.probes.notification_fd(),
            terminal,
            stop_signal,
            grace,
        };
        let processes = self.processes.clone();
        let starts = self.starts.clone();
        let channels = self.channels();
        self.spawning = Some(tokio::spawn(async move {
            let mut opened = None;
            // Before it takes its turn: a hook may take long, and others start meanwhile. Boxed, so that a thousand starts
            // that wait have no room for what few of them do.
            if let Some(pre_start) = pre_start {
                opened = Some(channels.open().map_err(StartError::Open)?);
                Box::pin(pre_start.run()).await?;
            }
            // Nobody closes the semaphore; without a permit it would start all the same.
            let _turn = starts.acquire().await;
            // In its turn, so that the first of a thousand agents does not wait for the sockets of the last.
            let opened = match opened {
                Some(opened) => opened,
                None => channels.open().map_err(StartError::Open)?,
            };
            let started = processes.spawn(launch).await.map_err(StartError::Spawn)?;
            Ok((started, opened))
        }));
    }

    /// What runs before the process, if anything does.
    fn pre_start(&mut self, command: &Command) -> Option<PreStart<P>> {
        let commands = self.profile.hooks.pre_start.clone();
        (!commands.is_empty()).then(|| {
            let (call_off, called_off) = watch::channel(false);
            self.call_off_start = Some(call_off);
            let beside =
                Beside::new(self.besides.clone(), self.profile.id, command.clone(), Arc::clone(&self.spent));
            PreStart { beside, commands, called_off }
        })
    }

    /// Whether what is executed is of no use any more once it is.
    fn is_last_use(&self) -> bool {
        let Profile { restart, probes, hooks, worker, .. } = &self.profile;
        let is_alone = worker.is_none() && !probes.any() && *hooks == Hooks::default();
        restart.policy == RestartPolicy::No && is_alone
    }

    fn channels(&self) -> Channels<P> {
        let Profile { id, log, door, .. } = &self.profile;
        Channels { processes: self.processes.clone(), id: *id, log: log.clone(), door: door.clone() }
    }

    /// Opens the door and the log of a life that others have begun.
    pub(super) fn open(&mut self) -> Result<(), String> {
        self.channels().open().map(|opened| self.hear(opened))
    }

    fn hear(&mut self, Opened { writer, door }: Opened) {
        (self.writer, self.door) = (Some(writer), Some(door));
    }

    pub(super) async fn on_spawned(&mut self, outcome: StartOutcome) {
        match outcome {
            Ok((started, opened)) => {
                self.hear(opened);
                self.started(started).await;
            }
            Err(StartError::Hook(reason) | StartError::Open(reason)) => {
                self.finish(Exit::StartFailed { reason }).await;
            }
            Err(StartError::Spawn(error)) => self.finish(refusal(&error)).await,
        }
        for event in std::mem::take(&mut self.early) {
            self.on_keeper(event).await;
        }
    }

    async fn started(&mut self, started: Started) {
        let Started { pid, stdout, stderr, notification, listeners, enforcement } = started;
        // Behind a mount namespace of its own nobody else can reach the door.
        if enforcement.coverage(Layer::Mounts) == Coverage::Full {
            self.reach = DoorReach::AgentOnly;
        }
        if enforcement.coverage(Layer::Cgroup) == Coverage::None {
            self.groups = Groups::Absent;
        }
        if let Err(error) = self.pump([stdout, stderr]) {
            self.warn(format!("the output of {} cannot be read: {error}", self.profile.name));
        }
        self.first_pid = pid;
        self.serve(pid, listeners);
        self.step(Happening::Started { pid });
        self.oom_kills = 0;
        tracing::info!(pid, "started");
        if matches!(self.state, AgentState::Stopping { .. }) {
            self.signal_stop().await;
            return;
        }
        self.probe(pid, &enforcement, notification);
        self.watch();
        self.survey();
        self.emit(EventKind::AgentStarted { pid, enforcement }).await;
        self.timeout = Countdown::start(self.profile.timeout, Instant::now());
        self.begin_hooks(Occasion::PostStart);
    }

    pub(super) fn pump(&mut self, pipes: [OwnedFd; 2]) -> std::io::Result<()> {
        let mut writer = self.writer.take().expect("the log was opened before the start");
        self.terminal = Terminal::of(&pipes[0])?;
        if let Some(terminal) = &self.terminal {
            writer.show_on(Box::new(terminal.clone()));
        }
        let (tx, notes) = mpsc::unbounded_channel();
        let pump = Pump::new(pipes, writer, self.profile.awaited_lines.clone(), tx)?;
        let (gone, is_gone) = oneshot::channel();
        self.notes = Some(notes);
        self.pump = Some(Pumping { gone, task: tokio::spawn(timed(pump.run(is_gone))) });
        Ok(())
    }

    /// Has its port served, if it has one.
    pub(super) fn serve(&mut self, pid: i32, listeners: Vec<OwnedFd>) {
        let Some(service) = self.profile.port.clone() else { return };
        let main = Arc::new(AtomicI32::new(pid));
        let peers = Arc::new(Peers::new(self.processes.clone(), self.profile.id, Arc::clone(&main)));
        let served = match listeners.is_empty() {
            false => {
                Served::begin(&*service, listeners, &self.profile.name, (peers, main), Arc::clone(&self.sink))
                    .map(Some)
            }
            true => Err("its socket was lost".to_owned()),
        };
        self.served = served.unwrap_or_else(|reason| {
            self.warn(format!("{} reaches no models in this life: {reason}", self.profile.name));
            None
        });
    }

    /// Nobody can make the socket again at which an agent is served: a new keeper holds this one.
    async fn entrust_port(&self) {
        let Some(served) = &self.served else { return };
        let held = match served.duplicates() {
            Ok(listeners) => self.processes.hold(self.profile.id, LISTENER, listeners).await,
            Err(error) => Err(error),
        };
        if let Err(error) = held {
            self.warn(format!("{} reaches no models after this daemon: {error}", self.profile.name));
        }
    }

    /// A new keeper opens the pipes of agents again; nobody can do that with the master of a terminal.
    async fn entrust_terminal(&self) {
        let Some(terminal) = &self.terminal else { return };
        let held = match terminal.duplicate() {
            Ok(master) => self.processes.hold(self.profile.id, "stdout", vec![master]).await,
            Err(error) => Err(error),
        };
        if let Err(error) = held {
            self.warn(format!("the terminal of {} ends with this daemon: {error}", self.profile.name));
        }
    }

    pub(super) async fn pause(&mut self, by: String) {
        match self.processes.freeze(self.profile.id).await {
            Ok(()) => {
                self.timeout = self.timeout.hold(Instant::now());
                self.probing.iter().for_each(|probing| probing.prober.pause());
                self.watching.iter_mut().for_each(|watching| watching.hold(Instant::now()));
                self.pause_survey();
                self.works().for_each(|work| work.pause());
                self.step(Happening::Frozen);
                self.emit(EventKind::AgentPaused { by }).await;
            }
            Err(error) => self.tell_failed(Request::Pause, format!("it could not be frozen: {error}")),
        }
    }

    pub(super) async fn resume(&mut self) {
        match self.processes.thaw(self.profile.id).await {
            Ok(()) => {
                self.timeout = self.timeout.resume(Instant::now());
                self.probing.iter().for_each(|probing| probing.prober.resume());
                self.watching.iter_mut().for_each(|watching| watching.resume(Instant::now()));
                self.survey();
                self.works().for_each(|work| work.resume());
                self.step(Happening::Thawed);
                self.emit(EventKind::AgentResumed).await;
            }
            Err(error) => self.tell_failed(Request::Resume, format!("it could not be thawed: {error}")),
        }
    }

    /// The work on its tasks that is done outside.
    fn works(&self) -> impl Iterator<Item = &dyn Work> {
        self.tasks.values().filter_map(|task| task.work.as_deref())
    }

    /// Ends it gracefully; it will have ended with `exit`.
    pub(super) async fn stop(&mut self, exit: Exit) {
        if !self.has_process() {
            self.finish(exit).await;
            return;
        }
        let asked_before = matches!(self.state, AgentState::Stopping { .. });
        let frozen = matches!(self.state, AgentState::Paused { .. });
        self.emit(EventKind::AgentStopping { exit: exit.clone() }).await;
        self.step(Happening::StopRequested(exit.clone()));
        if self.is_winding_up() {
            return self.end_as(exit);
        }
        self.timeout = Countdown::Never;
        (self.probing, self.watching, self.survey) = (None, None, None);
        self.call_off_start = None;
        if frozen {
            // A frozen tree hears no signal. If it cannot be thawed, the kill will end it.
            let _ = tokio::time::timeout(THAW, self.processes.thaw(self.profile.id)).await;
        }
        // A clock has asked it to stop before somebody did: the grace period has begun.
        if self.spawning.is_none() && !asked_before {
            self.signal_stop().await;
        }
    }

    pub(super) async fn signal_stop(&mut self) {
        // Nothing more is begun for its tasks.
        let exit = match &self.state {
            AgentState::Stopping { exit } => exit.clone(),
            _ => Exit::Unknown,
        };
        self.tasks.values_mut().filter_map(|task| task.work.take()).for_each(|work| work.end(&exit));
        if !self.begin_hooks(Occasion::PreStop) {
            self.processes.signal(self.profile.id, self.profile.stop.signal);
        }
        self.grace = Instant::now().checked_add(self.profile.stop.grace);
    }

    /// Ends it at once.
    pub(super) async fn kill(&mut self, by: String) {
        match self.state {
            _ if !self.has_process() => self.finish(Exit::stopped(by)).await,
            AgentState::Stopping { .. } if self.state.is_asked_to_stop() => self.kill_now(),
            _ => {
                let exit = Exit::stopped(by);
                self.emit(EventKind::AgentStopping { exit: exit.clone() }).await;
                self.step(Happening::StopRequested(exit.clone()));
                self.timeout = Countdown::Never;
                (self.probing, self.watching, self.survey) = (None, None, None);
                self.end_as(exit);
                self.kill_now();
            }
        }
    }

    /// While the start is under way there is nothing to kill yet: the grace period, now over, sees to it.
    fn kill_now(&mut self) {
        self.call_off_start = None;
        self.call_off_hooks();
        self.mark_killed(Duration::ZERO);
        self.profile.stop.grace = Duration::ZERO;
        self.grace = None;
        if self.spawning.is_none() {
            self.processes.kill(self.profile.id);
        }
    }

    /// Its main process has not ended by itself; what only its descendants make of the grace period is not told.
    fn mark_killed(&mut self, after: Duration) {
        if self.status.is_none() {
            self.killed.get_or_insert(after);
        }
    }

    pub(super) async fn on_deadline(&mut self) {
        let now = Instant::now();
        if self.grace.is_some_and(|grace| grace <= now) {
            self.grace = None;
            self.tell_unkept_word().await;
            self.mark_killed(self.profile.stop.grace);
            self.processes.kill(self.profile.id);
        }
        if self.timeout.deadline().is_some_and(|deadline| deadline <= now) {
            let limit = self.profile.timeout.unwrap_or_default();
            self.stop(Exit::Timeout { limit }).await;
        }
        self.look(now).await;
        self.survey_if_due(now);
        if self.comeback.is_some_and(|comeback| comeback <= now) {
            self.come_back().await;
        }
        let due = self.progress_due(now);
        self.tell_progress(due);
    }

    pub(super) async fn on_keeper(&mut self, event: KeeperEvent) {
        if self.spawning.is_some() {
            // The keeper may tell of the end of a short life before we have heard of its beginning.
            if !matches!(event, KeeperEvent::Closed | KeeperEvent::Succeeded { .. }) {
                self.early.push(event);
            }
            return;
        }
        match event {
            KeeperEvent::Exited { status, .. } => {
                self.status = Some(status);
                self.timeout = Countdown::Never;
                (self.probing, self.survey) = (None, None);
            }
            KeeperEvent::Notice { text, .. } => self.warn(text),
            KeeperEvent::OomKilled { kills, .. } => {
                // A keeper that took over may report again what the former one reported.
                if kills > self.oom_kills {
                    self.oom_kills = kills;
                    self.emit(EventKind::AgentOomKilled { kills }).await;
                }
            }
            KeeperEvent::Uncovered { path, outcome, .. } => {
                self.emit(EventKind::AgentUncovered { path, outcome }).await;
            }
            KeeperEvent::Planted { path, outcome, .. } => {
                self.emit(EventKind::AgentPlanted { path, outcome }).await;
            }
            KeeperEvent::Gone { usage, .. } => self.gone(usage).await,
            KeeperEvent::Closed if self.is_winding_up() => self.call_off_hooks(),
            KeeperEvent::Closed if self.state.is_alive() => {
                self.warn(format!(
                    "the keeper is gone, and with it the exit status of {}",
                    self.profile.name
                ));
                self.gone(toka_core::event::Usage::default()).await;
            }
            KeeperEvent::Succeeded { .. } => {
                self.entrust_terminal().await;
                self.entrust_port().await;
            }
            KeeperEvent::Closed | KeeperEvent::Replaced => {}
        }
    }
}

fn refusal(error: &SpawnError) -> Exit {
    match error {
        SpawnError::Prepare(PrepareError::Refused(_)) => Exit::Denied { reason: error.to_string() },
        _ => Exit::StartFailed { reason: with_causes(error) },
    }
}
