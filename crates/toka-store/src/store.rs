//! The database as its one writer sees it: groups of rows in, each in one transaction.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};
use toka_core::RunId;

use crate::chain::{self, Link};
use crate::connection::{FileId, file_at, open_writer};
use crate::numbers::{last_seq, stored};
use crate::record::{Mark, Record};
use crate::retention::{self, Tended};
use crate::{Retention, StoreError};

/// Pages in the write-ahead log that are not in the database yet, from which on they are copied: 4 MiB.
const MANY_PAGES: i64 = 1000;

/// How much more patience there is for an opening: without it there is no run.
const OPENING: u32 = 10;

/// What must survive a loss of power, from when [`Writer::write`](crate::Writer::write) returns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// Nothing yet: it survives the end of this process, and becomes durable with the next that is.
    #[default]
    Later,
    /// All that was written so far.
    Now,
}

/// What may be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// What is kept.
    pub retention: Retention,
    /// How long a write waits for the lock of another process, the first time; an opening waits ten times as long.
    pub patience: Duration,
    /// Most pages of 4 KiB that the database may have; as many as the disk takes when not set.
    pub max_pages: Option<u32>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { retention: Retention::default(), patience: Duration::from_millis(500), max_pages: None }
    }
}

pub(crate) struct Store {
    path: PathBuf,
    file: FileId,
    conn: Connection,
    durability: Durability,
    /// The run of the last row, and the key of its own.
    run: Option<(RunId, i64)>,
    /// The hash of the last row.
    tip: Link,
}

impl Store {
    /// Opens the database, or begins it; everything that a writer reads at its start is read, so that damage is found.
    pub(crate) fn open(path: &Path, settings: &Settings) -> Result<(Self, u64), StoreError> {
        let conn = open_writer(path, settings.patience * OPENING)?;
        conn.busy_timeout(settings.patience)?;
        if let Some(pages) = settings.max_pages {
            conn.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
        }
        // More than the default would hold copies of the reader's queries.
        conn.set_prepared_statement_cache_capacity(12);
        let file = file_at(path)?.ok_or(StoreError::Moved)?;
        let tip = tip(&conn)?;
        let mut store =
            Self { path: path.to_owned(), file, conn, durability: Durability::Later, run: None, tip };
        store.sync(Durability::Now)?;
        let last = last_seq(&store.conn)?;
        let columns = "SELECT body FROM events ORDER BY seq DESC LIMIT 1";
        store.conn.query_row(columns, (), |row| row.get::<_, String>(0)).optional()?;
        Ok((store, last))
    }

    /// For how long a locked database is waited for.
    pub(crate) fn set_patience(&self, patience: Duration) -> Result<(), StoreError> {
        Ok(self.conn.busy_timeout(patience)?)
    }

    /// Numbers go on after `seq`, whatever is or is not in the tables.
    pub(crate) fn begin_after(&self, seq: u64) -> Result<(), StoreError> {
        self.conn.execute("UPDATE removed SET last_seq = max(last_seq, ?1)", [stored(seq)])?;
        Ok(())
    }

    /// Writes these rows in one transaction.
    pub(crate) fn append<'a>(
        &mut self,
        records: impl Iterator<Item = &'a Record>,
        durability: Durability,
    ) -> Result<(), StoreError> {
        // SQLite would go on with a file that nobody can find any more.
        if file_at(&self.path)? != Some(self.file) {
            return Err(StoreError::Moved);
        }
        self.sync(durability)?;
        let transaction = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let (mut run, mut tip) = (self.run.take(), self.tip);
        for record in records {
            let key = match run {
                Some((id, key)) if id == record.run => key,
                _ => key_of_run(&transaction, record)?,
            };
            run = Some((record.run, key));
            tip = insert(&transaction, record, key, &tip)?;
        }
        transaction.commit()?;
        (self.run, self.tip) = (run, tip);
        Ok(())
    }

    /// In WAL mode a commit waits for the disk only with FULL, and then for all commits before it, too.
    fn sync(&mut self, durability: Durability) -> Result<(), StoreError> {
        if self.durability != durability {
            let level = match durability {
                Durability::Later => "normal",
                Durability::Now => "full",
            };
            self.conn.pragma_update(None, "synchronous", level)?;
            self.durability = durability;
        }
        Ok(())
    }

    /// Copies what is in the write-ahead log into the database when it is much, as far as no reader is in the way.
    pub(crate) fn checkpoint(&self) -> Result<(), StoreError> {
        let waiting = |mode: &str| {
            let mut pragma = self.conn.prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))?;
            pragma.query_row((), |row| Ok(row.get::<_, i64>(1)? - row.get::<_, i64>(2)?))
        };
        if waiting("noop")? >= MANY_PAGES {
            waiting("passive")?;
        }
        Ok(())
    }

    /// Removes a little of what need not be kept.
    pub(crate) fn tend(&mut self, retention: &Retention, now_ms: i64) -> Result<Tended, StoreError> {
        self.sync(Durability::Later)?;
        let tended = retention::tend(&mut self.conn, retention, now_ms);
        // Its row may be gone.
        self.run = None;
        self.checkpoint()?;
        Ok(tended?)
    }
}

/// The key of the record's run, whose row is made when it has none.
fn key_of_run(transaction: &Transaction<'_>, record: &Record) -> rusqlite::Result<i64> {
    let id = record.run.to_string();
    let mut query = transaction.prepare_cached("SELECT key FROM runs WHERE id = ?1")?;
    if let Some(key) = query.query_row([&id], |row| row.get(0)).optional()? {
        return Ok(key);
    }
    let sql = "INSERT INTO runs (id, project, first_seq, started_ms) VALUES (?1, ?2, ?3, ?4)";
    transaction.execute(sql, params![id, record.project.as_str(), stored(record.seq), record.time_ms])?;
    Ok(transaction.last_insert_rowid())
}

/// The hash of the last row that there is, or was before retention removed it.
fn tip(conn: &Connection) -> rusqlite::Result<Link> {
    let of = |sql: &str| conn.query_row(sql, (), |row| row.get::<_, Option<Vec<u8>>>(0)).optional();
    let last = match of("SELECT link FROM events ORDER BY seq DESC LIMIT 1")? {
        Some(link) => link,
        None => of("SELECT link FROM removed")?.flatten(),
    };
    Ok(chain::stored(last.as_deref()).unwrap_or(chain::START))
}

/// Inserts a row after the one with the hash `before`; its own hash is returned.
fn insert(transaction: &Transaction<'_>, record: &Record, run: i64, before: &Link) -> rusqlite::Result<Link> {
    let agent = record.agent.as_ref().map(|agent| agent.as_str());
    let row = chain::Row {
        seq: record.seq,
        time_ms: record.time_ms,
        run: &record.run.to_string(),
        project: record.project.as_str(),
        agent,
        kind: record.tag(),
        body: &record.body,
    };
    let link = chain::link(before, &row);
    let sql =
        "INSERT INTO events (seq, time_ms, run, agent, type, body, link) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    transaction.prepare_cached(sql)?.execute(params![
        stored(record.seq),
        record.time_ms,
        run,
        agent,
        row.kind,
        row.body,
        link.as_slice(),
    ])?;
    mark(transaction, record, run)?;
    Ok(link)
}

fn mark(transaction: &Transaction<'_>, record: &Record, run: i64) -> rusqlite::Result<()> {
    match &record.mark {
        Mark::None => Ok(()),
        Mark::Started { workspace } => transaction
            .execute(
                "UPDATE runs SET started_ms = ?2, workspace = ?3 WHERE key = ?1",
                params![run, record.time_ms, &**workspace],
            )
            .map(drop),
        Mark::Ended { exit_code } => transaction
            .execute(
                "UPDATE runs SET ended_ms = ?2, exit_code = ?3 WHERE key = ?1",
                params![run, record.time_ms, exit_code],
            )
            .map(drop),
    }
}
