//! Numbers of events, as SQLite has them and as we do.

use rusqlite::Connection;

/// The highest number that was ever written; 0 when there is none.
pub(crate) fn last_seq(conn: &Connection) -> rusqlite::Result<u64> {
    let sql = "SELECT max(ifnull((SELECT max(seq) FROM events), 0), (SELECT last_seq FROM removed))";
    Ok(number(conn.prepare_cached(sql)?.query_row((), |row| row.get(0))?))
}

/// As SQLite has numbers: with a sign.
pub(crate) fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// As we have them.
pub(crate) fn number(stored: i64) -> u64 {
    u64::try_from(stored).unwrap_or(0)
}
