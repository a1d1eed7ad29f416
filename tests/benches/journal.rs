//! How fast the journal takes events: all of them from one agent or each from another of a thousand, in masses and one
//! after the other, against the least that could be done: the same JSON appended to a file in the same groups, with
//! fdatasync(2) after each group in which something changes a state.
//!
//! `cargo bench -p toka-tests --bench journal [-- ROUNDS]`. Rounds alternate; ratios are of medians. The files are on a
//! disk (`TMPDIR`, or the system's own place), since making things durable is what is measured.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use toka_core::{AgentName, Event, EventKind, Name, Progress, RunId};
use toka_project::{Journal, Stamp};
use toka_store::{Filter, Reader};
use toka_tests::measure::{Samples, Table, rounds};
use uuid::Uuid;

const ROUNDS: usize = 5;
/// Events of a burst.
const MANY: usize = 100_000;
/// Events that are waited for one after the other.
const SINGLE: usize = 300;
/// The journal's own bound of a transaction.
const GROUP: usize = 1024;
/// Of so many events one changes a state.
const STATES: usize = 10;

fn main() {
    let rounds = rounds(ROUNDS);
    let mut table =
        Table::new(format!("{MANY} events, every tenth changes a state, {rounds} rounds in turn"));
    let mut floor = [Samples::default(), Samples::default(), Samples::default()];
    let mut journal = [Samples::default(), Samples::default(), Samples::default()];
    let (mut page, mut rare) = (Samples::default(), Samples::default());
    for _ in 0..rounds {
        for (at, agents) in [1, 1000].into_iter().enumerate() {
            let folder = tempfile::tempdir().expect("a folder");
            floor[at].add(MANY as f64 / 1e3 / appended(folder.path(), &kinds(agents)));
            journal[at].add(MANY as f64 / 1e3 / journalled(folder.path(), &kinds(agents)));
            read(folder.path(), &mut page, &mut rare);
        }
        let folder = tempfile::tempdir().expect("a folder");
        floor[2].add(appended_singly(folder.path()));
        journal[2].add(journalled_singly(folder.path()));
    }
    for (at, (agents, target)) in
        [("one agent", "≥ 50 k/s"), ("1,000 agents", "≥ 50 k/s")].into_iter().enumerate()
    {
        table.row(&format!("of {agents}: file and fdatasync"), &floor[at], "k/s", Some(&floor[at]), "");
        table.row(&format!("of {agents}: journal"), &journal[at], "k/s", Some(&floor[at]), target);
    }
    table.row("one after the other: file and fdatasync", &floor[2], "ms", Some(&floor[2]), "");
    table.row("one after the other: journal", &journal[2], "ms", Some(&floor[2]), "");
    table.row("a page of 100 events from the middle", &page, "ms", None, "");
    table.row("the 100 last states of an agent, or of all", &rare, "ms", None, "");
    table.print();
}

/// The events of a burst, one agent after the other.
fn kinds(agents: usize) -> Vec<(AgentName, EventKind)> {
    let names: Vec<AgentName> =
        (0..agents).map(|agent| Name::new(&format!("agent-{agent}")).expect("a label")).collect();
    let kind = |at: usize| match at % STATES {
        0 => EventKind::AgentReady,
        _ => EventKind::Progress(Progress {
            fraction: Some(at as f64 / MANY as f64),
            status: Some(format!("step {at} of what it has to do").into()),
            task: None,
        }),
    };
    (0..MANY).map(|at| (names[at % agents].clone(), kind(at))).collect()
}

fn stamp() -> Stamp {
    Stamp { project: Name::new("bench").expect("a label"), run: RunId::from_uuid(Uuid::nil()) }
}

fn event(seq: usize, agent: &AgentName, kind: &EventKind) -> Event {
    let Stamp { project, run } = stamp();
    Event { seq: seq as u64, time_ms: 0, project, run, agent: Some(agent.clone()), kind: kind.clone() }
}

fn append(file: &mut File, events: &[Event]) {
    let mut text = Vec::new();
    for event in events {
        serde_json::to_writer(&mut text, event).expect("JSON");
        text.push(b'\n');
    }
    file.write_all(&text).expect("room");
    file.sync_data().expect("a disk");
}

/// Seconds for all of it.
fn appended(folder: &Path, kinds: &[(AgentName, EventKind)]) -> f64 {
    let mut file = File::create_new(folder.join("lines")).expect("a file");
    let begun = Instant::now();
    for (at, group) in kinds.chunks(GROUP).enumerate() {
        let events = group.iter().enumerate();
        let events: Vec<Event> =
            events.map(|(within, (agent, kind))| event(at * GROUP + within, agent, kind)).collect();
        append(&mut file, &events);
    }
    begun.elapsed().as_secs_f64()
}

/// Seconds until the last of them is durable.
fn journalled(folder: &Path, kinds: &[(AgentName, EventKind)]) -> f64 {
    let journal = Journal::open(&folder.join("journal.db"), stamp(), Vec::new()).expect("a journal");
    let events: Vec<_> = kinds.to_vec();
    let begun = Instant::now();
    for (agent, kind) in events {
        drop(journal.record(Some(agent), kind));
    }
    let _ = wait(journal.record(None, EventKind::RunEnded { exit_code: 0 }));
    begun.elapsed().as_secs_f64()
}

/// Milliseconds for each.
fn appended_singly(folder: &Path) -> f64 {
    let mut file = File::create_new(folder.join("lines")).expect("a file");
    let agent = Name::new("agent").expect("a label");
    let begun = Instant::now();
    for seq in 0..SINGLE {
        append(&mut file, &[event(seq, &agent, &EventKind::AgentReady)]);
    }
    begun.elapsed().as_secs_f64() * 1e3 / SINGLE as f64
}

fn journalled_singly(folder: &Path) -> f64 {
    let journal = Journal::open(&folder.join("journal.db"), stamp(), Vec::new()).expect("a journal");
    let agent = Name::new("agent").expect("a label");
    let begun = Instant::now();
    for _ in 0..SINGLE {
        let _ = wait(journal.record(Some(agent.clone()), EventKind::AgentReady));
    }
    begun.elapsed().as_secs_f64() * 1e3 / SINGLE as f64
}

fn wait<T>(durable: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(durable)
}

fn read(folder: &Path, page: &mut Samples, rare: &mut Samples) {
    let mut reader = Reader::new(folder.join("journal.db"));
    let last = reader.last_seq().expect("a journal");
    assert_eq!(last, MANY as u64 + 1, "every event is there");
    let middle = page.time(|| reader.events(last / 2, &Filter::default(), 100).expect("a page"));
    assert_eq!(middle.len(), 100);
    let agent = Some(Name::new("agent-0").expect("a label"));
    let states = Filter { agent, types: vec!["agent_ready".into()], run: None };
    let states = rare.time(|| reader.events(0, &states, 100).expect("a page"));
    assert_eq!(states.len(), 100);
}
