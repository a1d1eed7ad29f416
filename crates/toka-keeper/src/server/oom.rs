//! Telling the daemon of kills for memory while the agent lives on: soon, and not without end.
//!
//! The kernel only wakes us ([`OomWatch`]); which group it was, and how many were killed, is looked up. A workload that is
//! killed again and again must neither keep the keeper busy nor fill the journal, so both have a pace.

use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use nix::sys::epoll::{EpollEvent, EpollFlags};
use toka_sandbox::OomWatch;

use super::{MEMORY, Server};
use crate::protocol::{Body, ProcessId};

/// How long after a wake the groups are looked at: the kernel counts a kill a moment after it has told of it, and where the
/// main process is what it killed, the end of that says so.
const SETTLE: Duration = Duration::from_millis(100);
/// Between two looks at all groups.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// What is waited between two tellings about one agent: at first, and at most.
const TELL_WAIT: Duration = Duration::from_secs(1);
const MAX_TELL_WAIT: Duration = Duration::from_secs(60);

/// When to look at the groups.
#[derive(Debug, Default)]
pub(super) struct Looks {
    due: Option<Instant>,
    last: Option<Instant>,
}

impl Looks {
    /// There is something to see, from now on.
    fn wake(&mut self, now: Instant) {
        let paced = self.last.map_or(now, |last| last + LOOK_INTERVAL);
        self.at(paced.max(now + SETTLE));
    }

    fn at(&mut self, when: Instant) {
        self.due = Some(self.due.map_or(when, |due| due.min(when)));
    }

    /// How long until the next look, if one is due.
    pub(super) fn time_left(&self, now: Instant) -> Option<Duration> {
        self.due.map(|due| due.saturating_duration_since(now))
    }

    /// Whether to look now.
    fn begin(&mut self, now: Instant) -> bool {
        if self.due.is_none_or(|due| now < due) {
            return false;
        }
        (self.due, self.last) = (None, Some(now));
        true
    }
}

/// What was told of one agent.
#[derive(Debug, Default)]
pub(super) struct Told {
    kills: u64,
    /// Nothing is told before.
    next: Option<Instant>,
    wait: Duration,
}

/// What to do about one agent.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    Nothing,
    Tell,
    /// There is something to tell, later.
    At(Instant),
}

impl Told {
    /// A former keeper reported `kills`.
    pub(super) fn until(kills: u64) -> Self {
        Self { kills, ..Self::default() }
    }

    /// How many were reported.
    pub(super) const fn kills(&self) -> u64 {
        self.kills
    }

    fn due(&self, kills: u64, now: Instant) -> Due {
        match self.next {
            _ if kills <= self.kills => Due::Nothing,
            Some(next) if now < next => Due::At(next),
            _ => Due::Tell,
        }
    }

    fn tell(&mut self, kills: u64, now: Instant) {
        // Quiet for as long as the longest wait, and it begins anew.
        let was_quiet = self.next.is_none_or(|next| now > next + MAX_TELL_WAIT);
        self.wait = if was_quiet { TELL_WAIT } else { (self.wait * 2).min(MAX_TELL_WAIT) };
        (self.kills, self.next) = (kills, Some(now + self.wait));
    }
}

impl Server {
    /// Makes the watch, where memory is counted per group. Without one, kills are told at the end of the agent alone.
    pub(super) fn begin_memory_watch(&mut self) {
        let Ok(Some(watch)) = OomWatch::new(self.preparer.cgroups().layout().kind) else { return };
        if self.epoll.add(watch.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, MEMORY)).is_ok() {
            self.oom = Some(watch);
        }
    }

    /// From now on a kill in the agent's group wakes us. What runs beside it has a group within that one.
    pub(super) fn watch_memory_of(&mut self, id: ProcessId) {
        let Some(child) = self.children.get(&id).filter(|child| child.beside.is_none()) else { return };
        if let Some(watch) = &self.oom {
            // One that the kernel does not let us watch is told of at its end.
            let _ = watch.add(&child.group);
        }
    }

    pub(super) fn on_memory(&mut self) {
        if let Some(watch) = &self.oom {
            watch.clear();
        }
        self.look_for_kills(Instant::now());
    }

    /// Kills may have been missed: by an earlier keeper, or because there was no daemon to tell.
    pub(super) fn look_for_kills(&mut self, now: Instant) {
        if self.oom.is_some() {
            self.looks.wake(now);
        }
    }

    pub(super) fn tell_kills(&mut self, now: Instant) {
        // What nobody hears is told to the next daemon.
        if self.daemon.is_none() || !self.looks.begin(now) {
            return;
        }
        let mut news = Vec::new();
        for (id, child) in &mut self.children {
            // The end of one tells how many were killed in all.
            if child.beside.is_some() || !child.is_running() {
                continue;
            }
            let kills = child.oom_kills();
            match child.oom.due(kills, now) {
                Due::Nothing => {}
                Due::At(when) => self.looks.at(when),
                Due::Tell => {
                    child.oom.tell(kills, now);
                    news.push(Body::OomKilled { id: *id, kills });
                }
            }
        }
        for body in news {
            self.tell(body);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn looks_are_a_second_apart_however_often_we_are_woken() {
        let (mut looks, start) = (Looks::default(), Instant::now());
        assert_eq!(looks.time_left(start), None);
        assert!(!looks.begin(start));
        looks.wake(start);
        looks.wake(start + SETTLE / 2);
        assert_eq!(looks.time_left(start), Some(SETTLE), "the first wake decides");
        assert!(!looks.begin(start + SETTLE / 2));
        assert!(looks.begin(start + SETTLE));
        assert_eq!(looks.time_left(start + SETTLE), None, "and nothing is due without a wake");
        looks.wake(start + SETTLE * 2);
        assert_eq!(looks.time_left(start + SETTLE * 2), Some(LOOK_INTERVAL - SETTLE));
        looks.at(start + SETTLE * 3);
        assert_eq!(looks.time_left(start + SETTLE * 3), Some(Duration::ZERO), "the earliest counts");
    }

    #[test]
    fn what_is_killed_again_and_again_is_told_at_longer_and_longer_intervals() {
        let (mut told, start) = (Told::default(), Instant::now());
        assert_eq!(told.due(0, start), Due::Nothing);
        let (mut now, mut waits) = (start, Vec::new());
        for kills in 1..10 {
            assert_eq!(told.due(kills, now), Due::Tell);
            told.tell(kills, now);
            assert_eq!(told.due(kills, now), Due::Nothing, "once");
            let Due::At(next) = told.due(kills + 1, now) else { panic!("not at once") };
            waits.push((next - now).as_secs());
            now = next;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        now += MAX_TELL_WAIT + SECOND * 2;
        assert_eq!(told.due(99, now), Due::Tell);
        told.tell(99, now);
        assert_eq!(told.due(100, now), Due::At(now + TELL_WAIT), "after a quiet time it begins anew");
    }
}
