//! The chain through a journal: each row has a hash over itself and over that of the row before it, so that a row that was changed, taken
//! out or put elsewhere afterwards does not fit any more.
//!
//! It has no key. Whoever can write the file can also compute all hashes after a change anew: that is found only by who has kept the hash
//! of a later row elsewhere ([`Head`]).

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// The hash of a row.
pub(crate) type Link = [u8; 32];

/// What stands for the row before the first one.
pub(crate) const START: Link = [0; 32];

/// What a row says, as far as it is in the chain.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row<'a> {
    pub(crate) seq: u64,
    pub(crate) time_ms: i64,
    pub(crate) run: &'a str,
    pub(crate) project: &'a str,
    pub(crate) agent: Option<&'a str>,
    pub(crate) kind: &'a str,
    pub(crate) body: &'a str,
}

/// The hash of a row that comes after one with the hash `before`.
pub(crate) fn link(before: &Link, row: &Row<'_>) -> Link {
    let mut hash = Sha256::new();
    hash.update(before);
    hash.update(row.seq.to_le_bytes());
    hash.update(row.time_ms.to_le_bytes());
    // With their lengths, so that no text can borrow from the next.
    for text in [row.run, row.project, row.agent.unwrap_or(""), row.kind, row.body] {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    hash.update([u8::from(row.agent.is_some())]);
    hash.finalize().into()
}

/// A link as it is stored; `None` of rows that were written before there was a chain, or that were tampered with.
pub(crate) fn stored(bytes: Option<&[u8]>) -> Option<Link> {
    bytes?.try_into().ok()
}

/// The last row of a chain and its hash: who keeps it elsewhere finds any later change of what came before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The number of the row's event.
    pub seq: u64,
    link: Link,
}

impl Head {
    pub(crate) fn new(seq: u64, link: Link) -> Self {
        Self { seq, link }
    }
}

/// `1234:` and 64 hexadecimal digits.
impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.seq)?;
        self.link.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A text that is no head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "a head is the number of an event, a colon, and 64 hexadecimal digits, as `toka audit --verify` prints it"
)]
pub struct NoHead;

impl FromStr for Head {
    type Err = NoHead;

    fn from_str(text: &str) -> Result<Self, NoHead> {
        let (seq, digits) = text.trim().split_once(':').ok_or(NoHead)?;
        if digits.len() != 64 || !digits.is_ascii() {
            return Err(NoHead);
        }
        let mut link = START;
        for (at, byte) in link.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).map_err(|_| NoHead)?;
        }
        Ok(Self { seq: seq.parse().map_err(|_| NoHead)?, link })
    }
}

/// What a look at a whole journal has found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// Rows that were looked at.
    pub rows: u64,
    /// Rows at the beginning from before there was a chain.
    pub without_link: u64,
    /// Events up to this number were removed by retention, or are in an earlier file; 0 when none were.
    pub removed: u64,
    /// The last row.
    pub head: Option<Head>,
    /// What does not fit.
    pub broken: Vec<Broken>,
    /// Numbers that were given out and never written, because the disk was full for too long: from, to.
    pub lost: Vec<(u64, u64)>,
}

/// Something that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Broken {
    /// A row is not as it was written.
    Changed {
        /// Its number.
        seq: u64,
    },
    /// Rows are gone.
    Missing {
        /// The first number.
        from: u64,
        /// The last one.
        to: u64,
    },
    /// The row of a head that somebody has kept is another, or gone.
    NotHead {
        /// Its number.
        seq: u64,
    },
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed { seq } => write!(f, "event {seq} is not as it was written"),
            Self::Missing { from, to } if from == to => write!(f, "event {from} is missing"),
            Self::Missing { from, to } => write!(f, "events {from} to {to} are missing"),
            Self::NotHead { seq } => write!(f, "event {seq} is not the one whose hash was kept"),
        }
    }
}

/// Goes along a chain.
#[derive(Debug)]
pub(crate) struct Walk {
    found: Verified,
    before: Link,
    last: u64,
    /// Rows up to this number may have no link.
    unlinked: u64,
    kept: Option<Head>,
}

impl Walk {
    /// From after the last row that was removed, by its number and hash, looking for a head that somebody has kept. Rows up to `unlinked`
    /// may have no hash.
    pub(crate) fn after((removed, link): (u64, Option<Link>), unlinked: u64, kept: Option<Head>) -> Self {
        let found = Verified { removed, ..Verified::default() };
        Self { found, before: link.unwrap_or(START), last: removed, unlinked, kept }
    }

    pub(crate) fn row(&mut self, row: &Row<'_>, stored: Option<Link>) {
        self.found.rows += 1;
        let gap = row.seq > self.last + 1;
        match stored {
            None if row.seq <= self.unlinked => self.found.without_link += 1,
            None => {
                self.found.broken.push(Broken::Changed { seq: row.seq });
                self.before = link(&self.before, row);
            }
            Some(stored) => {
                if link(&self.before, row) == stored {
                    if gap && self.found.head.is_some() {
                        self.found.lost.push((self.last + 1, row.seq - 1));
                    }
                } else if gap {
                    self.found.broken.push(Broken::Missing { from: self.last + 1, to: row.seq - 1 });
                } else {
                    self.found.broken.push(Broken::Changed { seq: row.seq });
                }
                self.before = stored;
                self.found.head = Some(Head::new(row.seq, stored));
                if let Some(kept) = self.kept.take_if(|kept| kept.seq == row.seq)
                    && kept.link != stored
                {
                    self.found.broken.push(Broken::NotHead { seq: kept.seq });
                }
            }
        }
        self.last = row.seq;
    }

    pub(crate) fn end(mut self) -> Verified {
        // What retention has removed cannot be compared any more.
        if let Some(kept) = self.kept.filter(|kept| kept.seq > self.found.removed) {
            self.found.broken.push(Broken::NotHead { seq: kept.seq });
        }
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(seq: u64, body: &str) -> Row<'_> {
        Row { seq, time_ms: 1, run: "r", project: "p", agent: Some("a"), kind: "k", body }
    }

    /// Numbers, texts and links of a chain over these rows.
    fn chain(rows: &[(u64, &'static str)]) -> Vec<(u64, &'static str, Link)> {
        let mut before = START;
        let of = |&(seq, body): &(u64, &'static str)| {
            before = link(&before, &row(seq, body));
            (seq, body, before)
        };
        rows.iter().map(of).collect()
    }

    fn walk(rows: &[(u64, &str, Link)], removed: u64, before: Option<Link>, kept: Option<Head>) -> Verified {
        let mut walk = Walk::after((removed, before), 0, kept);
        rows.iter().for_each(|(seq, body, link)| walk.row(&row(*seq, body), Some(*link)));
        walk.end()
    }

    #[test]
    fn each_change_of_a_row_is_found_where_it_is() {
        let good = chain(&[(1, "one"), (2, "two"), (3, "three"), (4, "four")]);
        assert_eq!(walk(&good, 0, None, None).broken, []);

        let mut changed = good.clone();
        changed[1].1 = "TWO";
        assert_eq!(walk(&changed, 0, None, None).broken, [Broken::Changed { seq: 2 }]);

        let missing = [good[0], good[3]];
        assert_eq!(walk(&missing, 0, None, None).broken, [Broken::Missing { from: 2, to: 3 }]);
        assert_eq!(walk(&good[1..], 0, None, None).broken, [Broken::Missing { from: 1, to: 1 }]);

        let mut swapped = good.clone();
        swapped.swap(1, 2);
        (swapped[1].0, swapped[2].0) = (2, 3);
        assert_eq!(walk(&swapped, 0, None, None).broken.len(), 3, "both, and what came after them");

        let mut unlinked = Walk::after((0, None), 0, None);
        unlinked.row(&row(1, "one"), Some(good[0].2));
        unlinked.row(&row(2, "two"), None);
        assert_eq!(unlinked.end().broken, [Broken::Changed { seq: 2 }]);
    }

    #[test]
    fn what_is_as_it_should_be_is_not_called_broken() {
        let good = chain(&[(1, "one"), (2, "two"), (5, "five")]);
        let whole = walk(&good, 0, None, None);
        assert_eq!((whole.broken.as_slice(), whole.lost.as_slice()), ([].as_slice(), [(3, 4)].as_slice()));
        let rest = walk(&good[2..], 2, Some(good[1].2), None);
        assert_eq!((rest.broken.as_slice(), rest.removed), ([].as_slice(), 2));
        let mut older = Walk::after((0, None), 1, None);
        older.row(&row(1, "one"), None);
        older.row(&row(2, "two"), Some(link(&START, &row(2, "two"))));
        let older = older.end();
        assert_eq!((older.broken.as_slice(), older.without_link), ([].as_slice(), 1));
    }

    #[test]
    fn who_keeps_a_head_finds_a_chain_that_was_computed_anew() {
        let good = chain(&[(1, "one"), (2, "two"), (3, "three")]);
        let head = walk(&good[..2], 0, None, None).head.expect("rows");
        assert_eq!(head.to_string().parse(), Ok(head));
        assert_eq!(walk(&good, 0, None, Some(head)).broken, []);
        let forged = chain(&[(1, "one"), (2, "TWO"), (3, "three")]);
        assert_eq!(walk(&forged, 0, None, None).broken, [], "nothing is wrong with it by itself");
        assert_eq!(walk(&forged, 0, None, Some(head)).broken, [Broken::NotHead { seq: 2 }]);
        assert_eq!(walk(&forged[..1], 0, None, Some(head)).broken, [Broken::NotHead { seq: 2 }], "cut off");
        for bad in ["", "1", "1:", "x:00", "1:zz", &format!("1:{}", "é".repeat(32))] {
            assert_eq!(bad.parse::<Head>(), Err(NoHead), "{bad}");
        }
    }
}
