//! Looks whether an agent that is alive still does anything, and acts when it does not: tells it, then sends SIGABRT, then
//! ends it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use toka_core::watchdog::{Finding, Signs, Stage, Watchdog};
use toka_core::{EventKind, Exit};
use tokio::time::Instant;

use super::notices::Remark;
use super::{Actor, Groups};
use crate::Processes;
use crate::clock::Clock;

/// The watchdog of one life.
pub(super) struct Watching {
    dog: Watchdog,
    clock: Clock,
    signs: Signs,
    found: Finding,
    next: Instant,
    /// Until when the agent has asked for patience, on its clock.
    patience: Duration,
}

impl Watching {
    pub(super) fn hold(&mut self, now: Instant) {
        self.clock.hold(now);
    }

    pub(super) fn resume(&mut self, now: Instant) {
        self.clock.resume(now);
        self.schedule(now);
    }

    /// When it is looked at next; never while it stands still.
    pub(super) fn due(&self) -> Option<Instant> {
        (!self.clock.is_held()).then_some(self.next)
    }

    fn schedule(&mut self, now: Instant) {
        // A time that no clock reaches is never.
        let elapsed = self.clock.elapsed(now);
        let wait = self.dog.next_look(elapsed).max(self.patience.saturating_sub(elapsed));
        self.next = now.checked_add(wait).unwrap_or(self.next);
    }

    /// Is not looked at for so long, and the time until then counts as one time of its watchdog at most.
    pub(super) fn extend(&mut self, by: Duration, now: Instant) {
        self.patience = self.patience.max(self.clock.elapsed(now).saturating_add(by));
        self.schedule(now);
    }
}

impl<P: Processes> Actor<P> {
    /// Begins to watch, when it runs.
    pub(super) fn watch(&mut self) {
        let now = Instant::now();
        self.watching = self.profile.watchdog.and_then(Watchdog::new).map(|dog| {
            let clock = Clock::start(now);
            let (signs, found) = (Signs::default(), Finding::Alive);
            let mut watching = Watching { dog, clock, signs, found, next: now, patience: Duration::ZERO };
            watching.schedule(now);
            Box::new(watching)
        });
    }

    /// It has said something of its progress.
    pub(super) fn note_progress(&mut self) {
        if let Some(watching) = &mut self.watching {
            watching.signs.progress += 1;
        }
    }

    /// `WATCHDOG=1`: the time of this word counts, so it is taken at once.
    pub(super) async fn keep_alive(&mut self) {
        let Some(watching) = &mut self.watching else { return };
        watching.signs.keep_alives += 1;
        let signs = Signs { cpu_us: None, io_bytes: None, ..watching.signs };
        let found = watching.dog.observe(watching.clock.elapsed(Instant::now()), signs);
        self.on_finding(found).await;
    }

    /// `WATCHDOG=trigger`: it calls for help itself.
    pub(super) async fn call_watchdog(&mut self) {
        let Some(watching) = &mut self.watching else { return };
        let found = watching.dog.trigger(watching.clock.elapsed(Instant::now()));
        self.on_finding(found).await;
    }

    /// Looks, when it is time to.
    pub(super) async fn look(&mut self, now: Instant) {
        if self.watching.as_ref().and_then(|watching| watching.due()).is_none_or(|due| due > now) {
            return;
        }
        let resources = self.processes.resources(self.profile.id).await.unwrap_or_default();
        let output = self.profile.log.written();
        let Some(watching) = &mut self.watching else { return };
        watching.signs.output = output;
        // What its probes use is no sign of its own life.
        let spent = self.spent.load(Ordering::Relaxed);
        let cpu_us = resources.cpu_us.map(|used| used.saturating_sub(spent));
        let io_bytes = resources.io_bytes();
        let signs = Signs { cpu_us, io_bytes, ..watching.signs };
        let found = watching.dog.observe(watching.clock.elapsed(now), signs);
        self.on_finding(found).await;
    }

    async fn on_finding(&mut self, found: Finding) {
        let Some(watching) = &mut self.watching else { return };
        let before = std::mem::replace(&mut watching.found, found);
        watching.schedule(Instant::now());
        let (told, stage) = (found.event_after(&before), found.stage());
        if let Some(told) = told {
            let is_blind = matches!(&told, EventKind::AgentWedged { stage: Stage::Warn, cpu_us: None, .. });
            self.emit(told).await;
            if is_blind {
                self.tell_powerless();
            }
        }
        if stage == before.stage() {
            return;
        }
        match stage {
            Some(Stage::Signal) => self.processes.signal(self.profile.id, Stage::SIGNAL),
            Some(Stage::Restart) => self.stop(self.wedged()).await,
            Some(Stage::Warn) | None => {}
        }
    }

    /// Says once why nothing follows. From the first `WATCHDOG=1` on the silence alone counts, and everything does.
    fn tell_powerless(&mut self) {
        let speaks = self.watching.as_ref().is_some_and(|watching| watching.signs.keep_alives > 0);
        if !speaks && self.groups == Groups::Absent {
            self.remark(Remark::Powerless);
        }
    }

    /// How it ended if the watchdog had a hand in it: from its signal on, whatever follows is the watchdog's doing.
    pub(super) fn bitten(&self) -> Option<Exit> {
        let stage = self.watching.as_ref()?.found.stage()?;
        (stage >= Stage::Signal).then(|| self.wedged())
    }

    fn wedged(&self) -> Exit {
        Exit::Watchdog { limit: self.profile.watchdog.unwrap_or_default() }
    }
}
