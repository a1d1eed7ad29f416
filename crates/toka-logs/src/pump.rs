//! Moves an agent's output from its two pipes to its log, as one task per agent that sleeps while there is none.
//!
//! A small write is taken at once, and then the pipe is left alone for [`PAUSE`], so that a program that writes many
//! small pieces costs one wake-up per pause and not one per piece ([`super::flow`]). A pipe that was found full is made larger, and
//! is emptied without pauses. In one turn a pipe gives at most [`TURN`] bytes; then the other agents have theirs.

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::flow::{Flow, LARGE, Pace, Turn};
use super::watch::Watch;
use super::writer::Moved;
use super::{LogWriter, Stream, now_ms};

/// How long small pieces are let gather. The runtime's timer counts in milliseconds; this is its least.
const PAUSE: Duration = Duration::from_millis(1);
/// Most that one pipe gives before others have their turn.
const TURN: usize = 512 * 1024;
/// Most that is still read of a pipe once its agent is gone: all that a pipe can hold, and no more, in case
/// somebody who is no agent keeps writing to it.
const REST: usize = LARGE;

/// How long a full disk is left alone: at first, and at most. It doubles in between.
const PATIENCE: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(2)];

/// What the pump has to tell.
#[derive(Debug, PartialEq, Eq)]
pub enum Note {
    /// A text that a dependent waits for was written.
    LineSeen(String),
    /// Somebody removed, replaced or emptied the log; a new one is begun.
    Removed {
        /// How many bytes of output are gone with it.
        bytes: u64,
    },
    /// The log cannot be written, and bytes are thrown away; told once.
    Losing,
    /// The log cannot be written, and whoever writes waits.
    Waiting,
    /// It can again.
    Flowing,
}

/// The two pipes and where they lead.
pub struct Pump {
    flows: [Flow; 2],
    writer: LogWriter,
    watch: Watch,
    notes: mpsc::UnboundedSender<Box<Note>>,
    told: Told,
    /// How long the disk is left alone the next time that it is full.
    patience: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    Losing,
    Waiting,
}

impl Pump {
    /// Takes the read ends of stdout and stderr; the first may be the master of a terminal, which does not block.
    ///
    /// # Errors
    /// When they cannot be polled.
    pub fn new(
        pipes: [OwnedFd; 2],
        writer: LogWriter,
        texts: Vec<String>,
        notes: mpsc::UnboundedSender<Box<Note>>,
    ) -> std::io::Result<Self> {
        let [stdout, stderr] = pipes;
        Ok(Self {
            flows: [Flow::new(stdout)?, Flow::new(stderr)?],
            writer,
            watch: Watch::new(texts),
            notes,
            told: Told::Nothing,
            patience: PATIENCE[0],
        })
    }

    /// Runs until both pipes have ended, or until `gone` says that no writer is left; then takes what is still in
    /// the pipes. The number of bytes that were lost.
    pub async fn run(mut self, mut gone: oneshot::Receiver<()>) -> u64 {
        while self.is_open() {
            tokio::select! {
                biased;
                _ = &mut gone => break,
                () = self.flows[0].ready() => {}
                () = self.flows[1].ready() => {}
            }
            for stream in Stream::ALL {
                let turn = self.turn(stream);
                self.flows[stream as usize].note(turn);
            }
            let pace = self.flows.iter().map(Flow::pace).max().unwrap_or(Pace::Still);
            let pauses = pace != Pace::Rushing;
            self.flows.iter_mut().for_each(|flow| flow.settle(pauses));
            if self.told == Told::Waiting {
                tokio::select! { _ = &mut gone => break, () = tokio::time::sleep(self.patience) => {} }
                self.patience = (2 * self.patience).min(PATIENCE[1]);
            } else if !pauses {
                tokio::task::yield_now().await;
            } else if pace != Pace::Still && self.is_open() {
                tokio::select! { _ = &mut gone => break, () = tokio::time::sleep(PAUSE) => {} }
            }
        }
        // Nobody is left who could wait for room.
        self.writer.wait_no_more();
        for stream in Stream::ALL {
            self.rest(stream);
        }
        self.writer.note_end(now_ms());
        self.writer.show_no_more();
        self.writer.lost()
    }

    fn is_open(&self) -> bool {
        self.flows.iter().any(Flow::is_open)
    }

    /// Takes up to [`TURN`] bytes of one pipe, and notes where they came from.
    fn turn(&mut self, stream: Stream) -> Turn {
        let at = stream as usize;
        self.follow_file();
        let start = self.writer.len();
        let mut turn = Turn { moved: 0, emptied: false };
        while turn.moved < TURN && !self.writer.is_long() {
            let Some(taken) = self.flows[at].try_take(|pipe| self.writer.take(pipe)) else {
                turn.emptied = true;
                break;
            };
            match taken {
                Ok(Moved::Written(count)) => {
                    turn.moved += count;
                    self.tell_flowing();
                }
                Ok(Moved::Discarded(count)) => {
                    turn.moved += count;
                    self.tell_losing();
                }
                Ok(Moved::Full) => {
                    self.tell_waiting();
                    break;
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    turn.emptied = true;
                    break;
                }
                Ok(Moved::Eof) | Err(_) => self.flows[at].close(),
            }
        }
        self.finish_batch(stream, start);
        turn
    }

    /// Takes what a pipe still holds once its writers are gone. Readiness is not asked for: whether the poller has
    /// already seen the last bytes does not matter to them.
    fn rest(&mut self, stream: Stream) {
        let Some(pipe) = self.flows[stream as usize].take_rest() else { return };
        self.follow_file();
        let mut start = self.writer.len();
        let mut moved = 0;
        while moved < REST {
            if self.writer.is_long() {
                self.finish_batch(stream, start);
                start = self.writer.len();
            }
            match self.writer.take(pipe.as_fd()) {
                Ok(Moved::Written(count)) => moved += count,
                Ok(Moved::Discarded(count)) => {
                    moved += count;
                    self.tell_losing();
                }
                Ok(Moved::Eof | Moved::Full) | Err(_) => break,
            }
        }
        self.finish_batch(stream, start);
    }

    fn finish_batch(&mut self, stream: Stream, start: u64) {
        let end = self.writer.len();
        if end == start {
            self.writer.note_gap();
            return;
        }
        for text in self.watch.scan(self.writer.log(), stream, start, end) {
            let _ = self.notes.send(Box::new(Note::LineSeen(text)));
        }
        let now = now_ms();
        self.writer.note(stream, start, now);
        self.writer.turn_if_due(now);
    }

    fn follow_file(&mut self) {
        if let Some(bytes) = self.writer.follow_file() {
            let _ = self.notes.send(Box::new(Note::Removed { bytes }));
        }
    }

    fn tell_waiting(&mut self) {
        if self.told != Told::Waiting {
            self.told = Told::Waiting;
            let _ = self.notes.send(Box::new(Note::Waiting));
        }
    }

    fn tell_flowing(&mut self) {
        if self.told == Told::Waiting {
            (self.told, self.patience) = (Told::Nothing, PATIENCE[0]);
            let _ = self.notes.send(Box::new(Note::Flowing));
        }
    }

    fn tell_losing(&mut self) {
        if self.told != Told::Losing {
            self.told = Told::Losing;
            let _ = self.notes.send(Box::new(Note::Losing));
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::fcntl::OFlag;
    use nix::unistd::{pipe2, write};
    use tempfile::TempDir;

    use super::*;
    use crate::{Entry, Extent, History, LogPlace, LogReader, LogRetention, segments};

    struct Rig {
        folder: TempDir,
        stdout: OwnedFd,
        stderr: OwnedFd,
        notes: mpsc::UnboundedReceiver<Box<Note>>,
        gone: oneshot::Sender<()>,
        pump: tokio::task::JoinHandle<u64>,
    }

    fn rig(texts: &[&str]) -> Rig {
        let folder = tempfile::tempdir().expect("a folder");
        let writer = LogWriter::open(&LogPlace::alone(folder.path().join("log"))).expect("a log");
        let (out, stdout) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
        let (err, stderr) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
        let (tx, notes) = mpsc::unbounded_channel();
        let texts = texts.iter().map(|text| (*text).to_owned()).collect();
        let pump = Pump::new([out, err], writer, texts, tx).expect("a pump");
        let (gone, is_gone) = oneshot::channel();
        Rig { folder, stdout, stderr, notes, gone, pump: tokio::spawn(pump.run(is_gone)) }
    }

    fn lines(folder: &TempDir) -> Vec<(Stream, String)> {
        let mut reader = LogReader::open(&folder.path().join("log")).expect("a log");
        reader.end();
        std::iter::from_fn(|| reader.next_line().expect("readable"))
            .map(|line| (line.stream, String::from_utf8_lossy(&line.bytes).into_owned()))
            .collect()
    }

    #[tokio::test]
    async fn both_streams_arrive_and_the_pump_ends_with_them() {
        let mut rig = rig(&["ready"]);
        write(&rig.stdout, b"out is ready\n").expect("room");
        assert_eq!(rig.notes.recv().await, Some(Box::new(Note::LineSeen("ready".into()))));
        write(&rig.stderr, b"err\n").expect("room");
        drop((rig.stdout, rig.stderr));
        assert_eq!(rig.pump.await.expect("no panic"), 0);
        let mut seen = lines(&rig.folder);
        seen.sort_by_key(|(stream, _)| *stream as usize);
        assert_eq!(seen, [(Stream::Stdout, "out is ready".into()), (Stream::Stderr, "err".into())]);
    }

    #[tokio::test]
    async fn a_pipe_that_somebody_still_holds_does_not_hold_the_end() {
        let rig = rig(&[]);
        write(&rig.stdout, b"last words\n").expect("room");
        rig.gone.send(()).expect("the pump runs");
        assert_eq!(rig.pump.await.expect("no panic"), 0);
        assert_eq!(lines(&rig.folder), [(Stream::Stdout, "last words".into())]);
        drop((rig.stdout, rig.stderr));
    }

    #[tokio::test]
    async fn what_is_left_at_the_end_fills_as_many_logs_as_it_needs() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("log");
        let run = toka_core::RunId::from_bytes([1; 16]);
        let policy = toka_core::LogPolicy { max_size: toka_core::ByteSize(4096), ..Default::default() };
        let place = LogPlace::of_run(log.clone(), run, policy, &LogRetention::disabled());
        let writer = LogWriter::open(&place).expect("a log");
        let (out, stdout) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
        let (err, stderr) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
        let text: String = (0..5000).map(|number| format!("{number:09}\n")).collect();
        write(&stdout, text.as_bytes()).expect("room");
        let (tx, _notes) = mpsc::unbounded_channel();
        let pump = Pump::new([out, err], writer, Vec::new(), tx).expect("a pump");
        let (gone, is_gone) = oneshot::channel();
        gone.send(()).expect("somebody listens");
        assert_eq!(pump.run(is_gone).await, 0);
        drop((stdout, stderr));
        let all = segments(&log).expect("logs");
        assert!(all.len() >= 11, "{}", all.len());
        let mut history = History::of(&log, all, Extent::Present);
        let mut seen = String::new();
        while let Some(item) = history.next_item().expect("readable") {
            if let Entry::Line(line) = item.entry {
                seen += &String::from_utf8_lossy(&line.bytes);
                seen.push('\n');
            }
        }
        assert!(seen == text, "every line once, in order");
    }

    #[tokio::test]
    async fn megabytes_arrive_exactly_although_the_reader_yields() {
        let rig = rig(&[]);
        let (stdout, folder) = (rig.stdout, rig.folder);
        drop(rig.stderr);
        let writer = std::thread::spawn(move || {
            let mut file = std::fs::File::from(stdout);
            for number in 0..400_000 {
                std::io::Write::write_all(&mut file, format!("{number:09}\n").as_bytes()).expect("room");
            }
        });
        assert_eq!(rig.pump.await.expect("no panic"), 0);
        writer.join().expect("no panic");
        let log = std::fs::read(folder.path().join("log")).expect("the log");
        let expected: Vec<u8> = (0..400_000).flat_map(|n| format!("{n:09}\n").into_bytes()).collect();
        assert!(log == expected, "{} bytes of {}", log.len(), expected.len());
    }
}
