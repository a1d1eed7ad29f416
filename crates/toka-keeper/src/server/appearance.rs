//! What git would obey and an agent makes while it runs: the keeper sets it aside as soon as it appears, and ends an agent that
//! does not leave it at that ([`toka_sandbox::guard`]).

use std::os::fd::AsFd as _;

use nix::sys::epoll::{EpollEvent, EpollFlags};
use toka_core::PlantedOutcome;
use toka_sandbox::guard;
use toka_sandbox::guard::watch::Appearances;

use super::{APPEARANCES, Server};
use crate::protocol::{Body, ProcessId};

/// How often something may appear before the keeper ends the agent: each time git could obey it for a moment.
const MOST_APPEARANCES: u32 = 10;

impl Server {
    /// Makes the watch. Without one, what appears is set aside at the end of an agent alone.
    pub(super) fn begin_watch_of_appearances(&mut self) {
        let Ok(appearances) = Appearances::new() else { return };
        if self.epoll.add(appearances.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, APPEARANCES)).is_ok() {
            self.appearances = Some(appearances);
        }
    }

    /// From now on what appears is set aside, and so is what has appeared since the start.
    pub(super) fn watch_appearances_of(&mut self, id: ProcessId) {
        let Some(child) = self.children.get(&id).filter(|child| !child.guards.is_empty()) else { return };
        let watched = match &mut self.appearances {
            Some(appearances) => appearances.watch(id.0, &child.guards).map_err(|error| error.to_string()),
            None => Err("no inotify instance is left".to_owned()),
        };
        if let Err(error) = watched {
            let agent = &child.agent;
            let text = format!("what {agent} makes for git to obey is only set aside at its end: {error}");
            self.tell(Body::Notice { id, text });
        }
        self.set_aside_for(id);
    }

    /// The process has ended.
    pub(super) fn release_appearances_of(&mut self, id: ProcessId) {
        if let Some(appearances) = &mut self.appearances {
            appearances.release(id.0);
        }
    }

    /// Something appeared.
    pub(super) fn on_appearances(&mut self) {
        let Some(appearances) = &mut self.appearances else { return };
        for id in appearances.take().into_iter().map(ProcessId) {
            // It may be a directory on the way: what appears in that is watched before anybody looks at it.
            let (Some(appearances), Some(child)) = (&mut self.appearances, self.children.get(&id)) else {
                continue;
            };
            let _ = appearances.watch(id.0, &child.guards);
            self.set_aside_for(id);
        }
    }

    fn set_aside_for(&mut self, id: ProcessId) {
        let Some(child) = self.children.get_mut(&id) else { return };
        let planted = guard::sweep_obeyed(&child.guards, &child.agent);
        let was_within = child.appearances < MOST_APPEARANCES;
        for (path, outcome) in planted {
            // What cannot be renamed is told at the end: it is looked at each time.
            if matches!(outcome, PlantedOutcome::SetAside { .. }) {
                child.appearances += 1;
                child.planted.push((path, outcome));
            }
        }
        if was_within && child.appearances >= MOST_APPEARANCES {
            let _ = child.kill();
            child.notices.push(format!(
                "the keeper killed it: {MOST_APPEARANCES} times something appeared that git would obey"
            ));
        }
        if self.daemon.is_some() {
            self.tell_planted(id);
        }
    }

    fn tell_planted(&mut self, id: ProcessId) {
        let Some(child) = self.children.get_mut(&id) else { return };
        for (path, outcome) in std::mem::take(&mut child.planted) {
            self.tell(Body::Planted { id, path, outcome });
        }
    }
}
