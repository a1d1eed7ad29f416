//! What is kept. Only ever the oldest events are removed, so that what is left has no holes; a little at a time, each in
//! a transaction of its own, so that no event waits for it for long.

use std::time::Duration;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::numbers::{last_seq, stored};

/// Most events that are removed at a time: some milliseconds.
const BATCH: i64 = 512;
/// Most pages that are given back to the file system at a time; more than a batch frees.
const PAGES: i64 = 128;

/// What is kept of the past. Of the run that still goes on everything is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// How old an event may be, by the wall clock.
    pub max_age: Duration,
    /// How many events there may be.
    pub max_events: u64,
}

impl Default for Retention {
    /// 30 days, a million events.
    fn default() -> Self {
        Self { max_age: Duration::from_secs(30 * 24 * 60 * 60), max_events: 1_000_000 }
    }
}

/// Whether there is more to remove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tended {
    /// There is.
    More,
    /// Not now.
    Done,
}

/// Removes the oldest events, at most a batch of them, and gives free pages back.
pub(crate) fn tend(conn: &mut Connection, retention: &Retention, now_ms: i64) -> rusqlite::Result<Tended> {
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let Some(cut) = cut(&transaction, retention, now_ms)? else {
        drop(transaction);
        return give_back(conn);
    };
    let kept =
        "UPDATE removed SET last_seq = max(last_seq, ?1), link = (SELECT link FROM events WHERE seq = ?1)";
    transaction.execute(kept, [cut])?;
    transaction.execute("DELETE FROM events WHERE seq <= ?1", [cut])?;
    // A run has no events left when the next one begins right after the cut, or before.
    let sql = "DELETE FROM runs WHERE ifnull((SELECT min(n.first_seq) FROM runs n WHERE n.first_seq > runs.first_seq), \
               ?2 + 1) <= ?1 + 1";
    let last = last_seq(&transaction)?;
    transaction.execute(sql, [cut, stored(last)])?;
    transaction.commit()?;
    give_back(conn)?;
    Ok(Tended::More)
}

/// The number up to which events are to be removed now, if any.
fn cut(transaction: &Transaction<'_>, retention: &Retention, now_ms: i64) -> rusqlite::Result<Option<i64>> {
    let last = last_seq(transaction)?;
    let too_many = stored(last.saturating_sub(retention.max_events));
    let age = i64::try_from(retention.max_age.as_millis()).unwrap_or(i64::MAX);
    let too_old = now_ms.saturating_sub(age);
    // Another run of the project begins only when the one before has ended, however it did: only the newest goes on.
    let going_on = "SELECT ifnull((SELECT first_seq FROM runs WHERE ended_ms IS NULL AND first_seq = \
                    (SELECT max(first_seq) FROM runs)), 9223372036854775807)";
    let going_on: i64 = transaction.query_row(going_on, (), |row| row.get(0))?;
    let mut oldest =
        transaction.prepare_cached("SELECT seq, time_ms FROM events WHERE seq < ?1 ORDER BY seq LIMIT ?2")?;
    let mut rows = oldest.query([going_on, BATCH])?;
    let mut cut = None;
    while let Some(row) = rows.next()? {
        let (seq, time_ms): (i64, i64) = (row.get(0)?, row.get(1)?);
        if seq > too_many && time_ms >= too_old {
            break;
        }
        cut = Some(seq);
    }
    Ok(cut)
}

/// Cuts free pages off the file.
fn give_back(conn: &Connection) -> rusqlite::Result<Tended> {
    let free = || conn.pragma_query_value(None, "freelist_count", |row| row.get::<_, i64>(0));
    if free()? == 0 {
        return Ok(Tended::Done);
    }
    let mut vacuum = conn.prepare(&format!("PRAGMA incremental_vacuum({PAGES})"))?;
    // Each step gives back a page.
    let mut steps = vacuum.query(())?;
    while steps.next()?.is_some() {}
    Ok(if free()? == 0 { Tended::Done } else { Tended::More })
}
