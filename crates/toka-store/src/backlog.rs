//! Events that are not written yet: usually one group for a moment, and as many as fit while the disk is full.

use std::collections::VecDeque;

use crate::Record;

/// Most bytes of events that are kept while they cannot be written: hours of an ordinary run.
pub const BACKLOG: usize = 8 * 1024 * 1024;

/// Room that is kept when it is empty, in events.
const ROOM: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Backlog {
    records: VecDeque<Record>,
    bytes: usize,
}

impl Backlog {
    /// Takes all of a group that is to be written at once.
    pub(crate) fn take_all(&mut self, records: Vec<Record>) {
        self.bytes += records.iter().map(Record::size).sum::<usize>();
        self.records.extend(records);
    }

    /// Takes what fits, and says how many did not. Once one does not fit none behind it does, so that what is lost is in
    /// one place.
    pub(crate) fn take(&mut self, records: Vec<Record>) -> u64 {
        let (mut lost, count) = (0, records.len());
        for (at, record) in records.into_iter().enumerate() {
            if self.bytes + record.size() > BACKLOG {
                lost = (count - at) as u64;
                break;
            }
            self.bytes += record.size();
            self.records.push_back(record);
        }
        lost
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    /// The number of the first.
    pub(crate) fn first_seq(&self) -> Option<u64> {
        self.records.front().map(Record::seq)
    }

    /// The first ones, at most `count`.
    pub(crate) fn first(&self, count: usize) -> impl Iterator<Item = &Record> {
        self.records.iter().take(count)
    }

    /// Forgets the first `count`, and says the number of the last of them.
    pub(crate) fn written(&mut self, count: usize) -> Option<u64> {
        let last = self.records.drain(..count.min(self.records.len())).next_back().map(|record| record.seq());
        self.bytes = if self.records.is_empty() { 0 } else { self.records.iter().map(Record::size).sum() };
        if self.records.is_empty() {
            self.records.shrink_to(ROOM);
        }
        last
    }
}
