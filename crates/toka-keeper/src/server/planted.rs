//! The keeper sets aside files that git would obey as soon as an agent makes them, and kills an agent that makes them again and again
//! ([`toka_sandbox::guard`] says which files those are).

use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::Instant;

use nix::sys::epoll::{EpollEvent, EpollFlags};
use toka_core::PlantedOutcome;
use toka_sandbox::guard::watch::Appearances;
use toka_sandbox::guard::{self, watch};

use super::child::appeared::MOST_APPEARANCES;
use super::{APPEARANCES, Server};
use crate::protocol::{Body, ProcessId};

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
        self.watch_again(id, &None);
        self.set_aside_for(id, &None);
    }

    fn watch_again(&mut self, id: ProcessId, appeared: &watch::Appeared) {
        let Some(child) = self.children.get_mut(&id).filter(|child| !child.guards.is_empty()) else { return };
        let watched = match &mut self.appearances {
            Some(appearances) => {
                appearances.watch(id.0, &child.guards, appeared).map_err(|error| error.to_string())
            }
            None => Err("no inotify instance is left".to_owned()),
        };
        if let Err(error) = watched
            && !std::mem::replace(&mut child.appearances.is_told, true)
        {
            let agent = &child.agent;
            let text =
                format!("what {agent} makes for git to obey may only be set aside at its end: {error}");
            self.tell(Body::Notice { id, text });
        }
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
        for (id, appeared) in appearances.take() {
            // It may be a directory on the way: what appears in that is watched before anybody looks at it.
            self.watch_again(ProcessId(id), &appeared);
            self.set_aside_for(ProcessId(id), &appeared);
        }
    }

    fn set_aside_for(&mut self, id: ProcessId, appeared: &watch::Appeared) {
        let Some(child) = self.children.get_mut(&id) else { return };
        let planted = guard::sweep_obeyed(&child.guards, &child.agent, appeared);
        for (path, outcome) in planted {
            // What cannot be renamed is told at the end: it is looked at each time.
            if matches!(outcome, PlantedOutcome::SetAside { .. }) {
                self.count(&path);
                if let Some(child) = self.children.get_mut(&id) {
                    child.planted.push((path, outcome));
                }
            }
        }
        if self.daemon.is_some() {
            self.tell_planted(id);
        }
    }

    /// Counts it against every agent that can have made it: nobody knows which of them it was.
    fn count(&mut self, path: &Path) {
        let now = Instant::now();
        for child in self.children.values_mut() {
            if child.guards.iter().any(|guard| guard.obeys(path)) && child.appearances.again(now) {
                let _ = child.kill();
                child.notices.push(format!(
                    "the keeper killed it: {MOST_APPEARANCES} times in a minute something appeared that git would obey"
                ));
            }
        }
    }

    fn tell_planted(&mut self, id: ProcessId) {
        let Some(child) = self.children.get_mut(&id) else { return };
        for (path, outcome) in std::mem::take(&mut child.planted) {
            self.tell(Body::Planted { id, path, outcome });
        }
    }
}
