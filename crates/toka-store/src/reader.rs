//! Reading a journal while it is written, from any thread and process. A reader sees what was committed when it asks,
//! holds nothing up, and finds the new file when a damaged one was set aside.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, Row, params_from_iter};
use toka_core::{AgentName, Event, EventKind, Name, ProjectName, RunId};
use uuid::Uuid;

use crate::chain::{self, Head, Verified, Walk};
use crate::connection::{FileId, file_at, open_reader};
use crate::filter::query;
use crate::numbers::{last_seq, number, stored};
use crate::schema::CHAINED;
use crate::{Filter, StoreError};

/// Statements that are kept ready: a follower asks the same again and again.
const STATEMENTS: usize = 8;

/// The reading end of a journal.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    open: Option<Open>,
    unreadable: u64,
}

#[derive(Debug)]
struct Open {
    conn: Connection,
    file: FileId,
}

/// A run, as its row has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The run.
    pub id: RunId,
    /// Its project.
    pub project: ProjectName,
    /// The number of its first event, which retention may have removed.
    pub first_seq: u64,
    /// When it began, in milliseconds since the Unix epoch.
    pub started_ms: i64,
    /// How it ended; `None` while it goes on, and for one whose daemon was killed.
    pub ended: Option<Ending>,
    /// The workspace folder; `None` when it did not get as far as that.
    pub workspace: Option<String>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// When, in milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// The exit status of the command.
    pub exit_code: u8,
}

impl Reader {
    /// A reader of the journal at `path`, which need not be there yet: it is opened when something is asked, and an absent
    /// one is empty.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), open: None, unreadable: 0 }
    }

    /// At most `limit` events after the number `after_seq` that meet the filter, in order. The next page is that after the
    /// last event's number. Rows that are no events to this program (a newer one wrote them) are passed over and counted.
    ///
    /// # Errors
    /// When the journal cannot be read, or a newer program made it.
    pub fn events(
        &mut self,
        after_seq: u64,
        filter: &Filter,
        limit: usize,
    ) -> Result<Vec<Event>, StoreError> {
        let Some(conn) = self.connection()? else { return Ok(Vec::new()) };
        let (sql, values) = query(stored(after_seq), filter);
        let mut statement = conn.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(values))?;
        let (mut events, mut unreadable) = (Vec::new(), 0);
        while events.len() < limit {
            let Some(row) = rows.next()? else { break };
            match event(row) {
                Some(event) => events.push(event),
                None => unreadable += 1,
            }
        }
        drop(rows);
        drop(statement);
        self.unreadable += unreadable;
        Ok(events)
    }

    /// All events of a run, in order; none when it is not known.
    ///
    /// # Errors
    /// As for [`Reader::events`].
    pub fn events_of_run(&mut self, run: RunId) -> Result<Vec<Event>, StoreError> {
        self.events(0, &Filter { run: Some(run), ..Filter::default() }, usize::MAX)
    }

    /// How many rows this reader has passed over because they are no events to it; one that it met twice counts twice.
    pub fn unreadable(&self) -> u64 {
        self.unreadable
    }

    /// The highest number that was written; 0 when there is none.
    ///
    /// # Errors
    /// As for [`Reader::events`].
    pub fn last_seq(&mut self) -> Result<u64, StoreError> {
        let Some(conn) = self.connection()? else { return Ok(0) };
        Ok(last_seq(conn)?)
    }

    /// Looks whether every row is as it was written, and none is missing; with a head that somebody has kept, whether its row is still the same.
    ///
    /// # Errors
    /// As for [`Reader::events`].
    pub fn verify(&mut self, kept: Option<Head>) -> Result<Verified, StoreError> {
        let Some(conn) = self.connection()? else { return Ok(Walk::after((0, None), 0, kept).end()) };
        if conn.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))? < CHAINED {
            let rows = conn.query_row("SELECT count(*) FROM events", (), |row| row.get(0)).map(number)?;
            return Ok(Verified { rows, without_link: rows, ..Verified::default() });
        }
        // One transaction, so that retention does not move the beginning meanwhile.
        let transaction = conn.unchecked_transaction()?;
        let removed = transaction.query_row("SELECT last_seq, link, unlinked FROM removed", (), |row| {
            Ok((number(row.get(0)?), row.get::<_, Option<Vec<u8>>>(1)?, number(row.get(2)?)))
        })?;
        let mut walk = Walk::after((removed.0, chain::stored(removed.1.as_deref())), removed.2, kept);
        let sql = "SELECT e.seq, e.time_ms, ifnull(r.id, ''), ifnull(r.project, ''), e.agent, e.type, e.body, e.link FROM events e \
                   LEFT JOIN runs r ON r.key = e.run ORDER BY e.seq";
        let mut statement = transaction.prepare(sql)?;
        let mut rows = statement.query(())?;
        while let Some(row) = rows.next()? {
            let text = |column: usize| row.get_ref(column)?.as_str().map_err(rusqlite::Error::from);
            let told = chain::Row {
                seq: number(row.get(0)?),
                time_ms: row.get(1)?,
                run: text(2)?,
                project: text(3)?,
                agent: row.get_ref(4)?.as_str_or_null().map_err(rusqlite::Error::from)?,
                kind: text(5)?,
                body: text(6)?,
            };
            let link = row.get_ref(7)?.as_blob_or_null().map_err(rusqlite::Error::from)?;
            walk.row(&told, chain::stored(link));
        }
        Ok(walk.end())
    }

    /// At most `limit` runs, the newest first.
    ///
    /// # Errors
    /// As for [`Reader::events`].
    pub fn runs(&mut self, limit: usize) -> Result<Vec<Run>, StoreError> {
        let Some(conn) = self.connection()? else { return Ok(Vec::new()) };
        let sql = "SELECT id, project, first_seq, started_ms, ended_ms, exit_code, workspace FROM runs \
                   ORDER BY first_seq DESC LIMIT ?1";
        let mut statement = conn.prepare_cached(sql)?;
        let rows = statement.query_map([i64::try_from(limit).unwrap_or(i64::MAX)], |row| Ok(run(row)))?;
        let rows: Result<Vec<_>, _> = rows.collect();
        Ok(rows?.into_iter().flatten().collect())
    }

    /// The connection to the file that is at the path now.
    fn connection(&mut self) -> Result<Option<&Connection>, StoreError> {
        let file = file_at(&self.path)?;
        if self.open.as_ref().map(|open| open.file) != file {
            self.open = None;
        }
        if let (None, Some(file)) = (&self.open, file) {
            let conn = open_reader(&self.path)?;
            self.open = conn.map(|conn| {
                conn.set_prepared_statement_cache_capacity(STATEMENTS);
                Open { conn, file }
            });
        }
        Ok(self.open.as_ref().map(|open| &open.conn))
    }
}

/// The event of a row; none when this program does not know such.
fn event(row: &Row<'_>) -> Option<Event> {
    let text = |column: usize| row.get_ref(column).ok()?.as_str().ok();
    let agent: Option<AgentName> = match row.get_ref(4).ok()?.as_str_or_null().ok()? {
        Some(agent) => Some(Name::new(agent).ok()?),
        None => None,
    };
    Some(Event {
        seq: number(row.get(0).ok()?),
        time_ms: row.get(1).ok()?,
        project: Name::new(text(3)?).ok()?,
        run: run_id(text(2)?)?,
        agent,
        kind: serde_json::from_str::<EventKind>(text(5)?).ok()?,
    })
}

fn run(row: &Row<'_>) -> Option<Run> {
    let text = |column: usize| row.get_ref(column).ok()?.as_str().ok();
    let ended_ms: Option<i64> = row.get(4).ok()?;
    let exit_code: Option<u8> = row.get(5).ok()?;
    Some(Run {
        id: run_id(text(0)?)?,
        project: Name::new(text(1)?).ok()?,
        first_seq: number(row.get(2).ok()?),
        started_ms: row.get(3).ok()?,
        ended: ended_ms.zip(exit_code).map(|(time_ms, exit_code)| Ending { time_ms, exit_code }),
        workspace: row.get(6).ok()?,
    })
}

fn run_id(text: &str) -> Option<RunId> {
    Uuid::parse_str(text).ok().map(RunId::from_uuid)
}

/// The last number of a database in which something else cannot be read.
pub(crate) fn last_seq_of_a_damaged(path: &Path) -> Option<u64> {
    let conn = open_reader(path).ok()??;
    let last = last_seq(&conn).ok()?;
    (last > 0).then_some(last)
}
