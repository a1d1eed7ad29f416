//! Logs across runs, turns and crashes: whatever is on disk, no line is lost and none is given twice.

use std::fs;
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use proptest::prelude::*;
use toka_core::{ByteSize, LogPolicy, RunId};

use super::index::{Batch, Gap, MAGIC, Mark, RECORD};
use super::names::{INDEX, LOG, stem, with};
use super::retention::run_now;
use super::segment::{Place, older_marks};
use super::*;

const SMALL: LogPolicy = LogPolicy {
    max_size: ByteSize(64),
    max_age: std::time::Duration::from_secs(60),
    total: ByteSize(1 << 20),
    compression: toka_core::Compression::Off,
    when_full: toka_core::WhenFull::Drop,
};

/// An agent's folder, and a pipe to its log.
struct Rig {
    folder: tempfile::TempDir,
    pipe: (OwnedFd, OwnedFd),
}

impl Rig {
    fn new() -> Self {
        let pipe = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).expect("a pipe");
        Self { folder: tempfile::tempdir().expect("a folder"), pipe }
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn open(&self, run: u8, policy: LogPolicy) -> LogWriter {
        LogWriter::open(&LogPlace::of_run(self.log(), id(run), policy, &LogRetention::disabled()))
            .expect("a log")
    }

    /// Writes one batch, at this time.
    fn write(&self, writer: &mut LogWriter, stream: Stream, text: &str, time_ms: i64) {
        nix::unistd::write(&self.pipe.1, text.as_bytes()).expect("room");
        let start = writer.len();
        while writer.take(self.pipe.0.as_fd()).is_ok() {}
        writer.note(stream, start, time_ms);
        writer.turn_if_due(time_ms);
    }

    fn older(&self) -> usize {
        older_marks(&self.log()).expect("a folder").len()
    }
}

fn id(run: u8) -> RunId {
    RunId::from_bytes([run; 16])
}

fn read(log: &Path) -> Vec<String> {
    texts(&mut History::of(log, segments(log).expect("logs"), Extent::Present))
}

fn texts(history: &mut History) -> Vec<String> {
    let entry = || history.next_item().expect("readable").map(|item| item.entry);
    std::iter::from_fn(entry)
        .map(|entry| match entry {
            Entry::Line(line) => String::from_utf8_lossy(&line.bytes).into_owned(),
            Entry::Gap(gap) => format!("<{} lost>", gap.lost),
        })
        .collect()
}

#[test]
fn a_new_run_begins_a_new_log_and_the_same_goes_on() {
    let rig = Rig::new();
    for (run, text) in [(1, "one\n"), (1, "again\n"), (2, "two\n"), (2, "open")] {
        let mut writer = rig.open(run, SMALL);
        rig.write(&mut writer, Stream::Stdout, text, 0);
    }
    assert_eq!(fs::read_to_string(rig.log()).expect("the current one"), "two\nopen");
    assert_eq!(read(&rig.log()), ["one", "again", "two", "open"]);
    assert_eq!(segments(&rig.log()).expect("logs").len(), 2);
    let last: Vec<_> = tail(&rig.log(), 9).expect("readable").into_iter().map(|line| line.bytes).collect();
    assert_eq!(last, [&b"two"[..], b"open"], "the last run only");
    drop(rig.open(3, SMALL));
    drop(rig.open(4, SMALL));
    assert_eq!(rig.older(), 2, "a run without output leaves nothing");
}

#[test]
fn a_log_that_is_large_becomes_an_older_one_where_a_line_ends() {
    let rig = Rig::new();
    let mut writer = rig.open(1, SMALL);
    rig.write(&mut writer, Stream::Stdout, &"x".repeat(63), 0);
    assert_eq!(rig.older(), 0);
    rig.write(&mut writer, Stream::Stdout, "yy", 1);
    assert_eq!(rig.older(), 0, "it may grow a little, for the line to end");
    rig.write(&mut writer, Stream::Stdout, "\n", 2);
    assert_eq!((rig.older(), writer.len()), (1, 0));
    rig.write(&mut writer, Stream::Stdout, &"z".repeat(80), 3);
    assert_eq!(rig.older(), 2, "a line without an end does not hold it for ever");
    rig.write(&mut writer, Stream::Stdout, "!\n", 4);
    let lines = ["x".repeat(63) + "yy", "z".repeat(80) + "!"];
    assert_eq!(read(&rig.log()), lines, "a line goes on from one log to the next");
}

#[test]
fn a_log_that_is_old_becomes_an_older_one_with_the_next_output() {
    let rig = Rig::new();
    let mut writer = rig.open(1, SMALL);
    rig.write(&mut writer, Stream::Stdout, "a\n", 1000);
    rig.write(&mut writer, Stream::Stdout, "b\n", 60_999);
    assert_eq!(rig.older(), 0);
    drop(writer);
    let mut writer = rig.open(1, SMALL);
    rig.write(&mut writer, Stream::Stdout, "c\n", 61_000);
    assert_eq!(rig.older(), 1, "its age is known to who opens it anew");
    assert_eq!(read(&rig.log()), ["a", "b", "c"]);
}

/// Every state that a broken turn can leave, made by hand, and what the next writer and a reader before it make of it.
#[test]
fn a_turn_that_was_broken_off_loses_and_doubles_nothing() {
    type Break = fn(&Path, &Path);
    let breaks: [(&str, Break); 5] = [
        ("the next one was made", |log, _| {
            fs::write(with(log, ".next"), "").expect("room");
            fs::write(with(log, ".next.index"), "torn").expect("room");
        }),
        ("the log was renamed", |log, older| fs::rename(log, with(older, LOG)).expect("renamed")),
        ("its index, too", |log, older| {
            fs::rename(log, with(older, LOG)).expect("renamed");
            fs::rename(index_path(log), with(older, INDEX)).expect("renamed");
        }),
        ("the next index is there", |log, older| {
            fs::rename(log, with(older, LOG)).expect("renamed");
            fs::rename(index_path(log), with(older, INDEX)).expect("renamed");
            let mark = Mark { run: id(1), number: 1 };
            fs::write(index_path(log), [&MAGIC[..], &mark.encode()].concat()).expect("room");
        }),
        ("the index is torn", |log, _| {
            let index = fs::File::options().write(true).open(index_path(log)).expect("the index");
            index.set_len(3 * RECORD as u64 + 7).expect("shorter");
        }),
    ];
    for (what, break_it) in breaks {
        for next in [1, 2] {
            let rig = Rig::new();
            let mut writer = rig.open(1, LogPolicy::default());
            rig.write(&mut writer, Stream::Stderr, "one\n", 5);
            rig.write(&mut writer, Stream::Stderr, "two\n", 6);
            drop(writer);
            let older = older_folder(&rig.log());
            fs::create_dir(&older).expect("a folder");
            break_it(&rig.log(), &older.join(stem(Mark { run: id(1), number: 0 })));
            assert_eq!(read(&rig.log()), ["one", "two"], "{what}: before anybody repairs it");
            let mut writer = rig.open(next, LogPolicy::default());
            rig.write(&mut writer, Stream::Stderr, "three\n", 7);
            assert_eq!(read(&rig.log()), ["one", "two", "three"], "{what}, then run {next}");
            let all = segments(&rig.log()).expect("logs");
            let times: Vec<_> = all.iter().map(Segment::begun_ms).collect();
            assert_eq!(times.first(), Some(&Some(5)), "{what}, then run {next}: {all:?}");
        }
    }
}

#[test]
fn older_logs_are_compressed_and_read_all_the_same() {
    let rig = Rig::new();
    let policy = LogPolicy { compression: toka_core::Compression::Gzip, max_size: ByteSize(9000), ..SMALL };
    let mut expected = Vec::new();
    let mut writer = rig.open(1, policy);
    for number in 0..1000 {
        let text = format!("{number:0100}");
        rig.write(&mut writer, Stream::ALL[number % 2], &format!("{text}\n"), number as i64);
        expected.push(text);
    }
    run_now(&rig.log(), &policy);
    let names: Vec<_> = fs::read_dir(older_folder(&rig.log())).expect("a folder").flatten().collect();
    assert!(names.len() > 20, "logs and indexes");
    let large = names.iter().filter(|entry| entry.metadata().expect("a file").len() > 4096).count();
    assert_eq!(large, 0, "all that is worth it is compressed: {names:?}");
    assert_eq!(read(&rig.log()), expected);
    let times = |item: &Item| match &item.entry {
        Entry::Line(line) => line.time_ms,
        Entry::Gap(_) => None,
    };
    let mut history = History::of(&rig.log(), segments(&rig.log()).expect("logs"), Extent::Present);
    let seen: Vec<_> =
        std::iter::from_fn(|| history.next_item().expect("readable")).map(|item| times(&item)).collect();
    assert_eq!(seen, (0..1000).map(Some).collect::<Vec<_>>());
    for count in [0, 1, 50, 100, 500, 1000, 2000] {
        let all = segments(&rig.log()).expect("logs");
        let (items, _) = last_items(&rig.log(), &all, Extent::Present, count, |_| true).expect("readable");
        assert_eq!(items.len(), count.min(1000));
        assert_eq!(
            items.first().and_then(times),
            (count > 0).then(|| 1000_i64.saturating_sub(count as i64).max(0))
        );
    }
}

/// What a crash during compression leaves: half a file under another name, or both whole ones.
#[test]
fn a_compression_that_was_broken_off_loses_and_doubles_nothing() {
    let policy = LogPolicy { compression: toka_core::Compression::Gzip, ..LogPolicy::default() };
    let rig = Rig::new();
    let text: Vec<String> = (0..1000).map(|number| format!("line {number}")).collect();
    rig.write(&mut rig.open(1, policy), Stream::Stdout, &(text.join("\n") + "\n"), 0);
    drop(rig.open(2, policy));
    let stem = older_folder(&rig.log()).join(stem(Mark { run: id(1), number: 0 }));
    let (plain, gzip) = (with(&stem, LOG), with(&stem, ".log.gz"));
    for half in [with(&stem, ".log.part"), gzip.clone()] {
        fs::write(&half, b"\x1f\x8b half").expect("room");
        assert_eq!(read(&rig.log()), text, "the one that was there first counts");
    }
    run_now(&rig.log(), &policy);
    assert!(gzip.exists() && !plain.exists() && !with(&stem, ".log.part").exists());
    assert_eq!(read(&rig.log()), text);
}

#[test]
fn the_oldest_are_removed_and_never_the_current_one() {
    let rig = Rig::new();
    // Each log and each index takes a page.
    let policy = LogPolicy { total: ByteSize(5 * 8192), ..SMALL };
    let mut writer = rig.open(1, policy);
    for number in 0..10 {
        rig.write(&mut writer, Stream::Stdout, &format!("{number}{}\n", "-".repeat(70)), 0);
    }
    rig.write(&mut writer, Stream::Stdout, "now\n", 0);
    run_now(&rig.log(), &policy);
    let firsts: Vec<_> = read(&rig.log()).iter().map(|line| line[..1].to_owned()).collect();
    assert_eq!(firsts, ["6", "7", "8", "9", "n"]);
    run_now(&rig.log(), &LogPolicy { total: ByteSize(1), ..policy });
    assert_eq!(read(&rig.log()), ["now"]);
}

#[test]
fn a_follower_goes_on_with_the_next_log_and_the_next_run() {
    let rig = Rig::new();
    let mut writer = rig.open(1, SMALL);
    rig.write(&mut writer, Stream::Stdout, "one\ntw", 0);
    let mut history = History::of_last_run(&rig.log(), Extent::Growing).expect("logs");
    assert_eq!(texts(&mut history), ["one"]);
    rig.write(&mut writer, Stream::Stdout, &format!("{}\nthr", "o".repeat(60)), 0);
    assert_eq!(rig.older(), 1, "a torn end");
    rig.write(&mut writer, Stream::Stdout, &format!("ee\n{}\n", "x".repeat(70)), 0);
    assert_eq!(rig.older(), 2);
    rig.write(&mut writer, Stream::Stdout, "four\nopen", 0);
    let seen = texts(&mut history);
    assert_eq!(seen, [format!("tw{}", "o".repeat(60)), "three".into(), "x".repeat(70), "four".into()]);
    drop(writer);
    let mut writer = rig.open(2, SMALL);
    rig.write(&mut writer, Stream::Stdout, "five\n", 0);
    assert_eq!(texts(&mut history), ["open", "five"]);
    assert_eq!(texts(&mut history), [""; 0]);
    // Nothing is given again when what was read is removed.
    drop(writer);
    let mut writer = rig.open(3, SMALL);
    rig.write(&mut writer, Stream::Stdout, "six\n", 0);
    fs::remove_dir_all(older_folder(&rig.log())).expect("removed");
    assert_eq!(texts(&mut history), ["six"]);
}

#[test]
fn what_is_lost_is_counted_where_it_is_missing() {
    let rig = Rig::new();
    let mut writer = rig.open(1, LogPolicy::default());
    rig.write(&mut writer, Stream::Stdout, "before\ntorn", 1);
    let record = Gap { offset: 11, time_ms: 2, lost: 12_345 }.encode();
    drop(writer);
    let mut index = fs::File::options().append(true).open(index_path(&rig.log())).expect("the index");
    index.write_all(&record).expect("room");
    let mut growing = History::of_last_run(&rig.log(), Extent::Growing).expect("logs");
    assert_eq!(texts(&mut growing), ["before"], "it may still be counted up");
    rig.write(&mut rig.open(1, LogPolicy::default()), Stream::Stdout, "after\n", 3);
    assert_eq!(texts(&mut growing), ["torn", "<12345 lost>", "after"]);
    assert_eq!(read(&rig.log()), ["before", "torn", "<12345 lost>", "after"]);
}

#[test]
fn a_line_without_an_end_does_not_go_on_in_the_next_life() {
    let rig = Rig::new();
    for text in ["one\nopen", "two\nwaits: "] {
        let mut writer = rig.open(1, LogPolicy::default());
        rig.write(&mut writer, Stream::Stdout, text, 0);
        writer.note_end(1);
    }
    let mut growing = History::of_last_run(&rig.log(), Extent::Growing).expect("logs");
    assert_eq!(texts(&mut growing), ["one", "open", "two", "waits: "]);
    // A daemon that leaves its agents to the next one ends nothing.
    drop((rig.open(1, LogPolicy::default()), rig.open(1, LogPolicy::default())));
    rig.write(&mut rig.open(1, LogPolicy::default()), Stream::Stdout, "be", 2);
    rig.write(&mut rig.open(1, LogPolicy::default()), Stream::Stdout, "gin\n", 3);
    assert_eq!(texts(&mut growing), ["begin"]);
    assert_eq!(read(&rig.log()), ["one", "open", "two", "waits: ", "begin"]);
    let length = || fs::metadata(index_path(&rig.log())).expect("an index").len();
    let before = length();
    rig.open(1, LogPolicy::default()).note_end(4);
    assert_eq!(length(), before, "one that wrote nothing has nothing to end");
}

#[test]
fn the_last_lines_lack_none_of_a_stream_that_is_rare() {
    let rig = Rig::new();
    let mut writer = rig.open(1, LogPolicy::default());
    for stream in [Stream::Stdout, Stream::Stderr, Stream::Stdout] {
        rig.write(&mut writer, stream, "a line before\n", 0);
    }
    rig.write(&mut writer, Stream::Stderr, "why\n", 1);
    rig.write(&mut writer, Stream::Stdout, "the end\n", 2);
    let last: Vec<_> = tail(&rig.log(), 2).expect("readable").into_iter().map(|line| line.bytes).collect();
    assert_eq!(last, [&b"why"[..], b"the end"]);
}

#[test]
fn a_log_of_a_time_before_runs_were_told_is_kept() {
    let rig = Rig::new();
    let batch = Batch { offset: 0, time_ms: Some(9), length: 4, stream: Stream::Stderr };
    fs::write(rig.log(), "old\n").expect("room");
    fs::write(index_path(&rig.log()), [&MAGIC[..], &batch.encode()].concat()).expect("room");
    assert_eq!(read(&rig.log()), ["old"]);
    rig.write(&mut rig.open(1, SMALL), Stream::Stdout, "new\n", 10);
    assert_eq!(read(&rig.log()), ["old", "new"]);
    let all = segments(&rig.log()).expect("logs");
    assert!(matches!(all[0].place, Place::Older(_)), "{all:?}");
    assert_eq!(all[0].begun_ms(), Some(9));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Batches of both streams, turns wherever they fall, and runs in between: each stream's bytes come back exactly.
    #[test]
    fn no_byte_is_lost_or_doubled(
        batches in prop::collection::vec((any::<bool>(), "[ab\n]{1,40}", 0u8..20), 1..40), compress: bool
    ) {
        let rig = Rig::new();
        let policy = LogPolicy {
            compression: if compress { toka_core::Compression::Gzip } else { toka_core::Compression::Off },
            ..SMALL
        };
        let mut run = 1;
        let mut writer = rig.open(run, policy);
        let mut written: Vec<(u8, [String; 2])> = vec![(run, Default::default())];
        for (err, text, chance) in &batches {
            if *chance == 0 {
                run += 1;
                drop(writer);
                writer = rig.open(run, policy);
                written.push((run, Default::default()));
            } else if *chance == 1 {
                drop(writer);
                writer = rig.open(run, policy);
            }
            rig.write(&mut writer, Stream::ALL[usize::from(*err)], text, 0);
            if let Some((_, texts)) = written.last_mut() {
                texts[usize::from(*err)].push_str(text);
            }
        }
        run_now(&rig.log(), &policy);
        let mut seen: Vec<(u8, [String; 2])> = written.iter().map(|(run, _)| (*run, Default::default())).collect();
        let mut history = History::of(&rig.log(), segments(&rig.log()).expect("logs"), Extent::Present);
        while let Some(item) = history.next_item().expect("readable") {
            let Entry::Line(line) = item.entry else { continue };
            let run = item.run.expect("a run").to_bytes()[0];
            let (_, texts) = seen.iter_mut().find(|(of, _)| *of == run).expect("one of them");
            let text = &mut texts[line.stream as usize];
            text.push_str(&String::from_utf8_lossy(&line.bytes));
            text.extend((line.ending == Ending::Newline).then_some('\n'));
        }
        prop_assert_eq!(seen, written);
    }

    /// However much of the beginning is left out: of two streams in one log, and of one in many.
    #[test]
    fn the_last_items_are_the_last_of_all(
        batches in prop::collection::vec((any::<bool>(), "[ab\n]{1,20}", 0u8..10), 1..30),
        turns: bool,
        compress: bool
    ) {
        let rig = Rig::new();
        let policy = LogPolicy {
            compression: if compress { toka_core::Compression::Gzip } else { toka_core::Compression::Off },
            max_size: if turns { SMALL.max_size } else { SMALL.total },
            ..SMALL
        };
        let mut writer = rig.open(1, policy);
        for (err, text, chance) in &batches {
            if *chance < 2 {
                writer.note_end(0);
                writer = rig.open(1, policy);
            }
            rig.write(&mut writer, Stream::ALL[usize::from(*err && !turns)], text, 0);
        }
        run_now(&rig.log(), &policy);
        let logs = segments(&rig.log()).expect("logs");
        let mut history = History::of(&rig.log(), logs.clone(), Extent::Present);
        let all: Vec<Item> = std::iter::from_fn(|| history.next_item().expect("readable")).collect();
        for count in 1..=all.len() {
            let (last, _) = last_items(&rig.log(), &logs, Extent::Present, count, |_| true).expect("readable");
            prop_assert_eq!(&last, &all[all.len() - count..]);
        }
    }

    #[test]
    fn garbage_is_survived(log_bytes: Vec<u8>, index_bytes: Vec<u8>) {
        let rig = Rig::new();
        fs::write(rig.log(), log_bytes).expect("room");
        fs::write(index_path(&rig.log()), [&MAGIC[..], &index_bytes].concat()).expect("room");
        let _ = (read(&rig.log()), tail(&rig.log(), 3));
        drop(rig.open(1, SMALL));
        let _ = read(&rig.log());
    }
}
