//! The lines of several agents as one row, in the order of their time; those of each agent stay in theirs.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use toka_logs::{Extent, History, Item, last_items};

use super::choice::{Begin, Chosen, Filter, time_of};
use super::find::Source;
use super::unreadable;
use toka_terminal::failure::Failure;

/// Several agents' logs.
pub(super) struct Merged {
    sources: Vec<Source>,
    reels: Vec<Reel>,
    /// Those that have a line at hand: its time, and whose it is.
    ready: BinaryHeap<Reverse<(i64, usize)>>,
    filter: Filter,
}

/// One agent's logs.
struct Reel {
    history: History,
    /// Lines that were read already.
    early: VecDeque<Item>,
    head: Option<Item>,
    /// The latest time of its lines so far: a line without a time, or with one before that, counts as written then.
    clock: i64,
}

impl Merged {
    /// Opens the logs, at their last `tail` lines if there is a number.
    pub(super) fn open(
        chosen: Vec<Chosen>,
        filter: Filter,
        extent: Extent,
        tail: Option<usize>,
    ) -> Result<Self, Failure> {
        let mut merged = Self { sources: Vec::new(), reels: Vec::new(), ready: BinaryHeap::new(), filter };
        for (source, logs, begin) in chosen {
            let (early, history) = match tail {
                _ if begin == Begin::AtEnd => last_items(&source.log, &logs, extent, 0, |_| false)
                    .map_err(|error| unreadable(&source.agent, &error))?,
                None => (Vec::new(), History::of(&source.log, logs, extent)),
                Some(count) => {
                    last_items(&source.log, &logs, extent, count, |item| merged.filter.wants(item))
                        .map_err(|error| unreadable(&source.agent, &error))?
                }
            };
            merged.add(source, early, history);
        }
        merged.refill()?;
        Ok(merged)
    }

    /// Takes in an agent that was not there before.
    pub(super) fn join(&mut self, source: Source) {
        let history = History::of(&source.log, Vec::new(), Extent::Growing);
        self.add(source, Vec::new(), history);
    }

    fn add(&mut self, source: Source, early: Vec<Item>, history: History) {
        self.sources.push(source);
        self.reels.push(Reel { history, early: early.into(), head: None, clock: i64::MIN });
    }

    /// Whose logs they are.
    pub(super) fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// The next line, and the place of its agent among the sources.
    pub(super) fn next(&mut self) -> Result<Option<(usize, Item)>, Failure> {
        let Some(Reverse((_, at))) = self.ready.pop() else { return Ok(None) };
        let item = self.reels[at].head.take();
        self.wind(at)?;
        Ok(item.map(|item| (at, item)))
    }

    /// Looks whether those that had no line have one now.
    pub(super) fn refill(&mut self) -> Result<(), Failure> {
        for at in 0..self.reels.len() {
            if self.reels[at].head.is_none() {
                self.wind(at)?;
            }
        }
        Ok(())
    }

    fn wind(&mut self, at: usize) -> Result<(), Failure> {
        let Reel { history, early, head, clock } = &mut self.reels[at];
        let mut next = || match early.pop_front() {
            Some(item) => Ok(Some(item)),
            None => history.next_item(),
        };
        let agent = &self.sources[at].agent;
        while let Some(item) = next().map_err(|error| unreadable(agent, &error))? {
            *clock = (*clock).max(time_of(&item).unwrap_or(i64::MIN));
            if self.filter.wants(&item) {
                *head = Some(item);
                self.ready.push(Reverse((*clock, at)));
                break;
            }
        }
        Ok(())
    }
}
