//! Mounts over names that an agent must not change, put back when somebody outside has replaced such a name
//! ([`toka_sandbox::renewal`]). Meanwhile the agent stands still; one that was quick enough to get hold of the file is killed.

use std::io;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags};
use toka_core::{Coverage, Layer, ProtectionOutcome};
use toka_sandbox::Bind;
use toka_sandbox::renewal::{self, Replacements};

use super::child::{Child, Protection};
use super::{NAMES, Server};
use crate::protocol::{Body, ProcessId};

/// How often it is looked whether a name is there again that was removed: nothing tells of that.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How long a group may take to freeze, and between two looks whether it has.
const FROZEN_WITHIN: Duration = Duration::from_millis(100);
const FREEZE_INTERVAL: Duration = Duration::from_micros(200);

impl Server {
    /// Makes the watch. Without one, what is replaced is open to agents that run.
    pub(super) fn begin_watch_of_names(&mut self) {
        let Ok(replacements) = Replacements::new() else { return };
        if self.epoll.add(replacements.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, NAMES)).is_ok() {
            self.replacements = Some(replacements);
        }
    }

    /// What narrows the view of a process that is about to be made. From now on we are woken when one of these names is replaced,
    /// so that none is between its mounts and its first instruction.
    pub(super) fn watch_names(&mut self, binds: Vec<Bind>) -> Protection {
        let mut protection = Protection::of(binds);
        if protection.binds.is_empty() {
            return protection;
        }
        let Some(replacements) = &mut self.replacements else {
            protection.unwatched = Some(io::Error::from(io::ErrorKind::Unsupported).to_string());
            protection.is_doubtful = true;
            return protection;
        };
        protection.binds.iter().for_each(|bind| replacements.hold(&bind.target));
        protection.is_watched = true;
        let failed = watch_all(replacements, &protection.binds);
        protection.is_doubtful = !failed.is_empty();
        protection.unwatched = worth_telling(failed).map(|error| error.to_string());
        protection
    }

    /// The process runs: tells what of it is not watched, and mounts again what is lacking by now.
    pub(super) fn protect_names_of(&mut self, id: ProcessId) {
        let Some(child) = self.children.get_mut(&id) else { return };
        if child.enforcement.coverage(Layer::Mounts) == Coverage::None {
            let protection = std::mem::take(&mut child.protection);
            return self.release_names(&protection);
        }
        let is_doubtful = std::mem::take(&mut child.protection.is_doubtful);
        let has_names = !child.protection.binds.is_empty();
        if let Some(error) = child.protection.unwatched.take() {
            let text = format!(
                "it is not noticed when somebody replaces what {} must not change: {error}",
                child.agent
            );
            let id = child.beside.unwrap_or(id);
            self.tell(Body::Notice { id, text });
        }
        if is_doubtful {
            self.renew_mounts_of(id);
        } else if has_names {
            // The process runs: what inotify has told by now does not wait until the keeper has answered all calls.
            self.on_names();
        }
    }

    /// The process that was to be protected has ended, or was never made.
    pub(super) fn release_names(&mut self, protection: &Protection) {
        if let Some(replacements) = self.replacements.as_mut().filter(|_| protection.is_watched) {
            protection.binds.iter().for_each(|bind| replacements.release(&bind.target));
        }
    }

    /// Something was replaced.
    pub(super) fn on_names(&mut self) {
        let Some(replacements) = &mut self.replacements else { return };
        let paths = replacements.take();
        let concerned =
            |child: &Child| child.protection.binds.iter().any(|bind| paths.contains(&bind.target));
        let mut running = Vec::new();
        for (id, child) in self.children.iter_mut().filter(|(_, child)| concerned(child)) {
            match child.is_running() {
                true => running.push(*id),
                false => child.protection.is_doubtful = true,
            }
        }
        running.into_iter().for_each(|id| self.renew_mounts_of(id));
    }

    fn renew_mounts_of(&mut self, id: ProcessId) {
        let Some(child) = self.children.get_mut(&id).filter(|child| child.is_running()) else { return };
        let agent = child.beside.unwrap_or(id);
        // The keeper watches before it looks what is lacking, so that inotify tells it of whatever is replaced after the look; and once
        // more after it, for names that came back meanwhile. It looks again and again for names that are not there.
        let watch = |replacements: &mut Option<Replacements>, child: &Child| {
            replacements.iter_mut().for_each(|it| drop(watch_all(it, &child.protection.binds)));
        };
        watch(&mut self.replacements, child);
        let outcomes = put_back(child);
        watch(&mut self.replacements, child);
        if !child.protection.absent.is_empty() {
            self.next_look_for_names = Some(Instant::now() + LOOK_INTERVAL);
        }
        for (path, outcome) in outcomes {
            self.tell(Body::Uncovered { id: agent, path, outcome });
        }
    }

    /// Looks again for names that were removed.
    pub(super) fn look_for_names(&mut self, now: Instant) {
        if self.next_look_for_names.is_none_or(|due| now < due) {
            return;
        }
        self.next_look_for_names = None;
        let waiting = self.children.iter().filter(|(_, child)| !child.protection.absent.is_empty());
        // Only what is there again is worth a visit, for which the agent stands still.
        let is_back =
            |child: &Child| child.protection.absent.iter().any(|path| path.symlink_metadata().is_ok());
        let (back, away): (Vec<_>, Vec<_>) = waiting.partition(|(_, child)| is_back(child));
        if !away.is_empty() {
            self.next_look_for_names = Some(now + LOOK_INTERVAL);
        }
        let back: Vec<ProcessId> = back.into_iter().map(|(id, _)| *id).collect();
        back.into_iter().for_each(|id| self.renew_mounts_of(id));
    }
}

/// Mounts again what is lacking; what is to be told of it.
fn put_back(child: &mut Child) -> Vec<(PathBuf, ProtectionOutcome)> {
    // What runs beside it has a view of its own, which ends with it.
    let own = child.inside().into_iter().chain(child.own_processes());
    let own = own.filter(|pid| renewal::has_own_view(*pid));
    let found =
        own.filter_map(|pid| Some((pid, renewal::lacking(pid, &child.protection.binds).ok()?))).next();
    let Some((pid, lacking)) = found else { return Vec::new() };
    if lacking.is_empty() {
        return Vec::new();
    }
    let freezes = !child.is_frozen() && child.group.freeze().is_ok();
    if freezes {
        await_freeze(child);
    }
    let has_ended =
        |renewed: &io::Result<_>| matches!(renewed, Err(error) if error.kind() == io::ErrorKind::NotFound);
    let mut renewed = renewal::renew(pid, &lacking, &child.protection.binds);
    if has_ended(&renewed)
        && let Some(other) =
            child.own_processes().into_iter().find(|other| *other != pid && renewal::has_own_view(*other))
    {
        renewed = renewal::renew(other, &lacking, &child.protection.binds);
    }
    if has_ended(&renewed) {
        // Nothing of it is left that could see a file: it is about to be told that it has ended.
        if freezes {
            let _ = child.group.thaw();
        }
        return Vec::new();
    }
    let processes = child.group.processes().unwrap_or_else(|| vec![pid]);
    let outcomes = lacking.iter().enumerate().filter_map(|(at, bind)| {
        let outcome = match &renewed {
            Ok(outcomes) => outcomes[at].as_ref().copied(),
            Err(error) => Err(error),
        };
        let outcome = outcome_of(outcome, || renewal::writer_of(&bind.target, &processes));
        let is_news = match outcome {
            ProtectionOutcome::Absent => child.protection.absent.insert(bind.target.clone()),
            ProtectionOutcome::Renewed | ProtectionOutcome::Lost { .. } => {
                child.protection.absent.remove(&bind.target);
                true
            }
        };
        is_news.then(|| (bind.target.clone(), outcome))
    });
    let outcomes: Vec<_> = outcomes.collect();
    if outcomes.iter().any(|(_, outcome)| matches!(outcome, ProtectionOutcome::Lost { .. })) {
        // Without its walls nothing runs.
        let _ = child.kill();
    }
    if freezes {
        let _ = child.group.thaw();
    }
    outcomes
}

/// Watches what is there; why the others are not watched.
fn watch_all(replacements: &mut Replacements, binds: &[Bind]) -> Vec<io::Error> {
    binds.iter().filter_map(|bind| replacements.watch(&bind.target).err()).collect()
}

/// What is not there is looked for; of the rest the first is told.
fn worth_telling(failed: Vec<io::Error>) -> Option<io::Error> {
    failed.into_iter().find(|error| error.kind() != io::ErrorKind::NotFound)
}

fn await_freeze(child: &Child) {
    let deadline = Instant::now() + FROZEN_WITHIN;
    while !child.group.has_frozen() && Instant::now() < deadline {
        std::thread::sleep(FREEZE_INTERVAL);
    }
}

fn outcome_of(renewed: Result<(), &io::Error>, writer: impl FnOnce() -> Option<i32>) -> ProtectionOutcome {
    match renewed {
        Ok(()) => match writer() {
            None => ProtectionOutcome::Renewed,
            Some(pid) => ProtectionOutcome::Lost {
                reason: format!("its process {pid} had it open for writing by then"),
            },
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => ProtectionOutcome::Absent,
        Err(error) if error.raw_os_error() == Some(Errno::ELOOP as i32) => {
            ProtectionOutcome::Lost { reason: "it is a link now, to what the agent can write".to_owned() }
        }
        Err(error) => ProtectionOutcome::Lost { reason: error.to_string() },
    }
}
