//! Which events a reader wants, as SQL. Only names of our own columns get into the text; values are parameters.

use std::fmt::Write as _;

use rusqlite::types::Value;
use toka_core::{AgentName, RunId};

use crate::schema::NOT_IN_MASSES;

/// Which events are wanted: those that meet all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// About this agent.
    pub agent: Option<AgentName>,
    /// Of one of these types, by their names in JSON; of any when there are none.
    pub types: Vec<String>,
    /// Of this run.
    pub run: Option<RunId>,
}

/// The query for events after a number, in order, and its parameters.
pub(crate) fn query(after: i64, filter: &Filter) -> (String, Vec<Value>) {
    let mut sql = String::from(
        "SELECT e.seq, e.time_ms, r.id, r.project, e.agent, e.body FROM events e LEFT JOIN runs r ON r.key = e.run \
         WHERE e.seq > ?1",
    );
    let mut values = vec![Value::Integer(after)];
    if let Some(agent) = &filter.agent {
        values.push(Value::Text(agent.to_string()));
        let _ = write!(sql, " AND e.agent = ?{}", values.len());
    }
    if let Some(run) = &filter.run {
        values.push(Value::Text(run.to_string()));
        let id = values.len();
        // The events of a run lie together, so that their range needs no index of its own.
        let _ = write!(
            sql,
            " AND e.run = (SELECT key FROM runs WHERE id = ?{id}) \
             AND e.seq >= (SELECT first_seq FROM runs WHERE id = ?{id}) \
             AND e.seq < ifnull((SELECT min(n.first_seq) FROM runs n JOIN runs o ON o.id = ?{id} \
             WHERE n.first_seq > o.first_seq), 9223372036854775807)"
        );
    }
    if !filter.types.is_empty() {
        let first = values.len() + 1;
        values.extend(filter.types.iter().cloned().map(Value::Text));
        let marks: Vec<String> = (first..=values.len()).map(|at| format!("?{at}")).collect();
        let _ = write!(sql, " AND e.type IN ({})", marks.join(", "));
        if !filter.types.iter().any(|name| name == "progress" || name == "metrics") {
            let _ = write!(sql, " AND e.{NOT_IN_MASSES}");
        }
    }
    sql.push_str(" ORDER BY e.seq");
    (sql, values)
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;
    use toka_core::Name;

    use super::*;
    use crate::schema::{STEPS, migrate};

    /// How SQLite answers the query.
    fn plan(filter: &Filter) -> String {
        let mut conn = Connection::open_in_memory().expect("memory");
        migrate(&mut conn, STEPS).expect("tables");
        let (sql, values) = query(5, filter);
        let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect("a query");
        let rows = statement.query_map(rusqlite::params_from_iter(values), |row| row.get::<_, String>(3));
        rows.expect("a plan").map(|row| row.expect("a line")).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn every_query_has_its_way() {
        let agent = Some(Name::new("a").expect("a label"));
        let types = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let run = Some(RunId::from_uuid(uuid::Uuid::nil()));
        for (filter, way) in [
            (Filter::default(), "SEARCH e USING INTEGER PRIMARY KEY (rowid>?)"),
            (Filter { agent, ..Filter::default() }, "events_by_agent (agent=? AND rowid>?)"),
            (
                Filter { types: types(&["warning"]), ..Filter::default() },
                "events_by_type (type=? AND rowid>?)",
            ),
            (Filter { types: types(&["progress"]), ..Filter::default() }, "PRIMARY KEY (rowid>?)"),
            (Filter { run, ..Filter::default() }, "SEARCH e USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
        ] {
            let plan = plan(&filter);
            assert!(plan.contains(way), "{filter:?}:\n{plan}");
        }
    }
}
