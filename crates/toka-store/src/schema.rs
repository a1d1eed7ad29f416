//! The tables, as a list of steps from one version to the next. `user_version` counts the steps that were taken; a step
//! that was published is never changed, only followed by another.
//!
//! ```text
//! runs     one row a run; its events are those from first_seq on, up to the next run's
//! events   one row an event; body is its JSON without what has a column
//! removed  the highest number that retention removed, or that an earlier file had: numbers go on from there
//! link     the hash of a row and of that before it (`chain.rs`); in `removed`, of the last row that retention removed
//! unlinked rows up to this number are from before there was a chain
//! ```

use rusqlite::{Connection, TransactionBehavior};

use crate::StoreError;

/// "toka", so that file(1) and other programs can tell whose database it is.
pub(crate) const APPLICATION_ID: i32 = 0x746f_6b61;

/// Types that come in masses and are asked for by agent: not in the index of types. The index and every query that is to
/// use it name them in the same words.
pub(crate) const NOT_IN_MASSES: &str = "type NOT IN ('progress', 'metrics')";

pub(crate) const STEPS: &[&str] = &[
    "
    CREATE TABLE runs (
        key INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        project TEXT NOT NULL,
        first_seq INTEGER NOT NULL,
        started_ms INTEGER NOT NULL,
        ended_ms INTEGER,
        exit_code INTEGER,
        workspace TEXT
    ) STRICT;
    CREATE TABLE events (
        seq INTEGER PRIMARY KEY,
        time_ms INTEGER NOT NULL,
        run INTEGER NOT NULL,
        agent TEXT,
        type TEXT NOT NULL,
        body TEXT NOT NULL
    ) STRICT;
    CREATE INDEX events_by_agent ON events (agent) WHERE agent IS NOT NULL;
    CREATE INDEX events_by_type ON events (type) WHERE type NOT IN ('progress', 'metrics');
    CREATE TABLE removed (last_seq INTEGER NOT NULL) STRICT;
    INSERT INTO removed VALUES (0);
",
    "
    ALTER TABLE events ADD COLUMN link BLOB;
    ALTER TABLE removed ADD COLUMN link BLOB;
    ALTER TABLE removed ADD COLUMN unlinked INTEGER NOT NULL DEFAULT 0;
    UPDATE removed SET unlinked = ifnull((SELECT max(seq) FROM events), 0);
",
];

/// The version from which on rows have hashes.
pub(crate) const CHAINED: i64 = 2;

/// How a database was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// It has no tables yet.
    Empty,
    /// It has had so many steps.
    Version(usize),
}

/// Whose database it is, and of which version.
pub(crate) fn look(conn: &Connection, known: usize) -> Result<Found, StoreError> {
    let application: i32 = conn.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))?;
    if application != APPLICATION_ID {
        let empty = application == 0 && version == 0 && tables == 0;
        return if empty { Ok(Found::Empty) } else { Err(StoreError::Foreign) };
    }
    match usize::try_from(version) {
        Ok(version) if version <= known => Ok(Found::Version(version)),
        _ => Err(StoreError::Newer { found: version, known }),
    }
}

/// Takes the steps that are missing, all of them or none.
pub(crate) fn migrate(conn: &mut Connection, steps: &[&str]) -> Result<(), StoreError> {
    if look(conn, steps.len())? == Found::Version(steps.len()) {
        return Ok(());
    }
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Looked at again under the lock: another process may have been faster.
    let taken = match look(&transaction, steps.len())? {
        Found::Empty => 0,
        Found::Version(version) => version,
    };
    for step in &steps[taken..] {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", i64::try_from(steps.len()).unwrap_or(i64::MAX))?;
    Ok(transaction.commit()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Connection {
        Connection::open_in_memory().expect("memory")
    }

    #[test]
    fn an_empty_database_gets_every_step_once() {
        let mut conn = memory();
        assert_eq!(look(&conn, STEPS.len()).expect("readable"), Found::Empty);
        for _ in 0..2 {
            migrate(&mut conn, STEPS).expect("steps");
            assert_eq!(look(&conn, STEPS.len()).expect("readable"), Found::Version(STEPS.len()));
        }
    }

    #[test]
    fn an_older_one_keeps_what_it_has() {
        let mut conn = memory();
        migrate(&mut conn, STEPS).expect("steps");
        conn.execute("INSERT INTO events VALUES (7, 0, 1, NULL, 'x', '{}', NULL)", ()).expect("a row");
        let later: Vec<&str> =
            STEPS.iter().copied().chain(["ALTER TABLE events ADD COLUMN more TEXT DEFAULT 'new'"]).collect();
        migrate(&mut conn, &later).expect("one more step");
        let row = conn.query_row("SELECT seq, more FROM events", (), |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
        });
        assert_eq!(row.expect("the row"), (7, "new".into()));
    }

    #[test]
    fn a_step_that_fails_leaves_the_older_version() {
        let mut conn = memory();
        migrate(&mut conn, &["CREATE TABLE a (x)"]).expect("a step");
        migrate(&mut conn, &["CREATE TABLE a (x)", "CREATE TABLE b (x)", "no SQL"])
            .expect_err("the third fails");
        assert_eq!(look(&conn, 3).expect("readable"), Found::Version(1));
        conn.prepare("SELECT * FROM b").expect_err("the second was taken back");
    }

    #[test]
    fn a_newer_one_is_refused_with_a_way_out() {
        let mut conn = memory();
        migrate(&mut conn, &["CREATE TABLE a (x)", "CREATE TABLE b (x)"]).expect("two steps");
        let error = migrate(&mut conn, &["CREATE TABLE a (x)"]).expect_err("it is newer");
        assert_eq!(
            error.to_string(),
            "it has version 2, and this program knows versions up to 1; use the newer program that wrote it, or move \
             the file away"
        );
    }

    #[test]
    fn somebody_elses_is_left_alone() {
        let mut conn = memory();
        conn.execute_batch("CREATE TABLE theirs (x)").expect("a table");
        assert!(matches!(migrate(&mut conn, STEPS), Err(StoreError::Foreign)));
        conn.prepare("SELECT * FROM events").expect_err("nothing was made in it");
    }
}
