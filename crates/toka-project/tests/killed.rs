//! A process that writes a journal is killed with SIGKILL, in the middle of it: what it was told to be durable is there,
//! without gaps, and the next one goes on. What a loss of power does cannot be tested so; that is fsync(2)'s affair.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use toka_core::{Event, EventKind, Name, Progress, RunId};
use toka_project::{Journal, Stamp};
use toka_store::{Filter, Reader};
use uuid::Uuid;

/// Where the writer is to write; without it, it is not the writer.
const JOURNAL: &str = "TOKA_TEST_JOURNAL";
/// What a line of the writer's begins with.
const DURABLE: &str = "durable up to ";

/// The child's part: writes without end and says what was said to be durable. Run by the test below only.
#[test]
#[ignore = "writes until it is killed; the test below starts it"]
fn a_writer_without_end() {
    let path = std::env::var_os(JOURNAL).expect("started by the test below");
    let (seen, mut events) = tokio::sync::mpsc::unbounded_channel();
    let stamp = Stamp { project: Name::new("project").expect("a label"), run: RunId::from_uuid(Uuid::nil()) };
    let journal = Journal::open(Path::new(&path), stamp, vec![seen]).expect("a journal");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut out = std::io::stdout().lock();
    for round in 0.. {
        for step in 0..round % 40 {
            let status = Some(format!("step {step}").into());
            drop(journal.record(None, EventKind::Progress(Progress { fraction: None, status, task: None })));
        }
        runtime.block_on(journal.record(None, EventKind::AgentReady));
        let last = std::iter::from_fn(|| events.try_recv().ok()).last().map_or(0, |event: Event| event.seq);
        writeln!(out, "{DURABLE}{last}").and_then(|()| out.flush()).expect("a reader");
    }
}

struct Writer(Child);

impl Writer {
    fn start(path: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this test"));
        command.args(["--exact", "a_writer_without_end", "--ignored", "--nocapture"]).env(JOURNAL, path);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        Self(child.expect("this test can be run"))
    }

    /// Kills it after so many words, and gives the last number that it was told.
    fn kill_after(mut self, words: usize) -> u64 {
        let mut lines =
            BufReader::new(self.0.stdout.take().expect("it is piped")).lines().map_while(Result::ok);
        let mut durable = lines.by_ref().filter_map(|line| line.split_once(DURABLE)?.1.trim().parse().ok());
        let told: u64 = durable.nth(words).expect("it writes without end");
        self.0.kill().expect("it runs");
        // What it said before it was hit.
        let last = durable.last().unwrap_or(told);
        self.0.wait().expect("our own child");
        last
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn what_was_durable_survives_a_kill_and_numbers_go_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("journal.db");
    let mut before = 0;
    // Once after the log was copied into the database: that is more than a thousand pages.
    for words in [0, 7, 60, 500] {
        let durable = Writer::start(&path).kill_after(words);
        assert!(durable > before, "it went on after {before}: {durable}");
        let mut reader = Reader::new(&path);
        let events = reader.events(0, &Filter::default(), usize::MAX).expect("a journal");
        let numbers: Vec<u64> = events.iter().map(|event| event.seq).collect();
        before = reader.last_seq().expect("a journal");
        assert!(before >= durable, "{durable} was durable, and {before} is the last");
        assert_eq!(numbers, (1..=before).collect::<Vec<_>>());
    }
}
