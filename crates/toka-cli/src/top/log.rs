//! The output of one agent: its last lines, read again whenever there are more. Its beginning may be gigabytes away, so it
//! is never read from there.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use toka_core::escape;
use toka_logs::{Ending, Stream, index_path, tail};
use tokio::sync::{mpsc, watch};

use super::log_line::{LogLine, Wanted};
use super::model::Message;

/// Lines that are kept, and that a person can go back.
pub(crate) const MOST_LINES: usize = 500;
/// Most characters of a line.
const MOST_SHOWN: usize = 4000;
/// How long between two looks whether there is more.
const PERIOD: Duration = Duration::from_millis(250);

/// Tells what the wanted agent writes, until nobody wants to hear it.
pub(crate) async fn follow(mut wanted: watch::Receiver<Wanted>, messages: mpsc::Sender<Message>) {
    let mut clock = tokio::time::interval(PERIOD);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut told = None;
    loop {
        let target = wanted.borrow_and_update().clone();
        if let Some((agent, path)) = target {
            let state = Some((agent.clone(), Seen::at(&path)));
            if state != told {
                told = state;
                let lines = tokio::task::spawn_blocking(move || lines(&path)).await.unwrap_or_default();
                if messages.send(Message::Log { agent, lines }).await.is_err() {
                    return;
                }
            }
        }
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            _ = clock.tick() => {}
        }
    }
}

/// What tells whether a log has changed: its index is written last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    inode: u64,
    length: u64,
}

impl Seen {
    fn at(log: &Path) -> Option<Self> {
        let metadata = index_path(log).metadata().ok()?;
        Some(Self { inode: metadata.ino(), length: metadata.len() })
    }
}

/// The last lines of a log; none when there is no log yet.
fn lines(path: &Path) -> Vec<LogLine> {
    let mut before = [Ending::Newline; Stream::ALL.len()];
    let mut lines = Vec::new();
    for piece in tail(path, MOST_LINES).unwrap_or_default() {
        // A long line comes in pieces; its first stands for it.
        if std::mem::replace(&mut before[piece.stream as usize], piece.ending) != Ending::Cut {
            lines.push(LogLine { time_ms: piece.time_ms, stream: piece.stream, text: shown(&piece.bytes) });
        }
    }
    lines
}

/// What a line says: colours are left out, and whatever else would move a terminal is shown as what it is.
pub(crate) fn shown(bytes: &[u8]) -> String {
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    escape::for_terminal(&without_colours(bytes), MOST_SHOWN)
}

/// The bytes without SGR sequences (`ESC [ … m`, ECMA-48), which say nothing but how the rest looks.
fn without_colours(bytes: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = rest.windows(2).position(|pair| pair == b"\x1b[") {
        kept.extend_from_slice(&rest[..at]);
        let parameters = &rest[at + 2..];
        let length = parameters.iter().take_while(|byte| matches!(byte, b'0'..=b';')).count();
        rest = match parameters.get(length) {
            Some(b'm') => &parameters[length + 1..],
            _ => {
                kept.extend_from_slice(&rest[at..at + 2]);
                parameters
            }
        };
    }
    kept.extend_from_slice(rest);
    kept
}

#[cfg(test)]
mod tests {
    use toka_logs::index::{Batch, MAGIC};

    use super::*;

    #[test]
    fn colours_go_and_everything_else_is_seen() {
        for (written, seen) in [
            (&b"\x1b[1;31mred\x1b[0m plain"[..], "red plain"),
            (b"\x1b[2Jcleared\x1b]0;title\x07", "\\x1b[2Jcleared\\x1b]0;title\\x07"),
            (b"50 %\r", "50 %"),
            (b"a\x1b[", "a\\x1b["),
            (b"\x1b[31", "\\x1b[31"),
            ("日本\u{202e}".as_bytes(), "日本\\u{202e}"),
        ] {
            assert_eq!(shown(written), seen);
        }
    }

    #[test]
    fn the_last_lines_of_a_log() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("log");
        assert_eq!(lines(&log), []);
        assert_eq!(Seen::at(&log), None);
        let text = b"one\ntwo\nthr";
        let length = u32::try_from(text.len()).expect("small");
        let batch = Batch { offset: 0, time_ms: Some(0), length, stream: Stream::Stderr };
        std::fs::write(&log, text).expect("a log");
        std::fs::write(index_path(&log), [&MAGIC[..], &batch.encode()[..]].concat()).expect("an index");
        let texts: Vec<String> = lines(&log).into_iter().map(|line| line.text).collect();
        assert_eq!(texts, ["one", "two", "thr"]);
        assert!(Seen::at(&log).is_some());
    }
}
