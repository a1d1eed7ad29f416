//! `exec`: a command line, run by the keeper beside the agent: in its sandbox and its limits, in a control group of its own. The call ends
//! when the main process has ended and what it wrote was read; what it leaves behind is killed.

use std::time::{Duration, Instant};

use toka_core::event::Usage;
use toka_core::exit::signal_name;
use toka_core::units::{ByteSize, format_duration};
use toka_keeper::Status;
use toka_runtime::{RunsCommands, Streams};
use tokio::sync::watch;

use super::ExecCommand;

/// How long a command may take, where nobody says.
const TIME: Duration = Duration::from_secs(120);
/// How long it may take at most.
const LONGEST: Duration = Duration::from_secs(3600);
/// How long its output is read on when its main process has ended: what it left behind may hold the pipe.
pub(super) const DRAIN: Duration = Duration::from_secs(2);
/// Bytes of its output that are kept from its beginning, and from its end.
const KEPT: usize = 2 * 1024 * 1024;
/// Bytes that a model is shown from the beginning, and from the end.
const SHOWN: (usize, usize) = (10 * 1024, 20 * 1024);

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ran {
    /// What the model is told.
    pub(crate) text: String,
    /// All that was kept of its output, where the model is told less.
    pub(crate) whole: Option<Vec<u8>>,
    /// Whether it succeeded.
    pub(crate) is_success: bool,
    /// What it used.
    pub(crate) usage: Usage,
}

/// What a command writes: its beginning and its end.
#[derive(Debug)]
pub(super) struct Written {
    /// Bytes that are kept from the beginning, and from the end.
    kept: usize,
    head: Vec<u8>,
    tail: Vec<u8>,
    /// Bytes between the two that are gone.
    lost: u64,
}

impl Written {
    /// Nothing yet; of what comes so many bytes are kept from the beginning, and so many from the end.
    pub(super) fn keeping(kept: usize) -> Self {
        Self { kept, head: Vec::new(), tail: Vec::new(), lost: 0 }
    }

    /// Whether more was written than is kept.
    pub(super) fn is_full(&self) -> bool {
        self.lost > 0
    }

    /// Whether nothing was written.
    pub(super) fn is_empty(&self) -> bool {
        self.head.is_empty()
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        let room = self.kept.saturating_sub(self.head.len()).min(bytes.len());
        self.head.extend_from_slice(&bytes[..room]);
        self.tail.extend_from_slice(&bytes[room..]);
        // Twice as much is gathered before it is cut, so that not each piece moves all of it.
        if self.tail.len() > 2 * self.kept {
            self.cut();
        }
    }

    fn cut(&mut self) {
        let surplus = self.tail.len().saturating_sub(self.kept);
        self.lost += surplus as u64;
        self.tail.drain(..surplus);
    }

    /// The whole, with what is gone between.
    pub(super) fn whole(mut self) -> Vec<u8> {
        self.cut();
        if self.lost > 0 {
            self.head.extend_from_slice(format!("\n… ({} bytes were not kept) …\n", self.lost).as_bytes());
        }
        self.head.append(&mut self.tail);
        self.head
    }
}

/// What of an output a model is shown.
pub(super) fn shown(whole: &[u8]) -> (String, bool) {
    let text = String::from_utf8_lossy(whole);
    let (head, tail) = SHOWN;
    if text.len() <= head + tail {
        return (text.into_owned(), false);
    }
    let (head, tail) = (text.floor_char_boundary(head), text.ceil_char_boundary(text.len() - tail));
    let left = tail - head;
    let hint = "write it to a file and look for what you need";
    (format!("{}\n… ({left} bytes are left out: {hint}) …\n{}", &text[..head], &text[tail..]), true)
}

/// Lines of its output that the log shows; the session keeps the rest.
const LOGGED: usize = 200;

/// Shows a log what a command writes, line by line as it comes.
struct Log<'a> {
    say: &'a (dyn Fn(&str) + Sync),
    partial: Vec<u8>,
    room: usize,
}

impl Log<'_> {
    fn add(&mut self, bytes: &[u8]) {
        if self.room == 0 {
            return;
        }
        self.partial.extend_from_slice(bytes);
        while let Some(end) = self.partial.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            self.tell(&line);
        }
        if self.partial.len() > SHOWN.0 {
            self.end();
        }
    }

    /// What has no end is shown as it is.
    fn end(&mut self) {
        let line = std::mem::take(&mut self.partial);
        if !line.is_empty() {
            self.tell(&line);
        }
    }

    fn tell(&mut self, line: &[u8]) {
        let Some(room) = self.room.checked_sub(1) else { return };
        self.room = room;
        (self.say)(&format!("  {}", String::from_utf8_lossy(line).trim_end()));
        if room == 0 {
            self.partial.clear();
            (self.say)("  … (`toka sessions show --full` has more)");
        }
    }
}

/// How a command is to be run, and who hears of it.
pub(crate) struct Running<'a> {
    /// Runs it.
    pub(crate) commands: &'a dyn RunsCommands,
    /// Whether the agent is frozen: that time does not count.
    pub(crate) paused: watch::Receiver<bool>,
    /// Takes lines for the log.
    pub(crate) say: &'a (dyn Fn(&str) + Sync),
}

/// Runs a command line to its end.
///
/// # Errors
/// When it does not start: nothing was done.
pub(crate) async fn exec(running: Running<'_>, command: &ExecCommand) -> Result<Ran, String> {
    let limit = command.timeout.map_or(TIME, Duration::from_secs).clamp(Duration::from_secs(1), LONGEST);
    run(running, argv_of(&command.command, command.folder.as_deref()), limit).await
}

/// How a command line is run in a folder.
pub(super) fn argv_of(line: &str, folder: Option<&str>) -> Vec<String> {
    let words: Vec<&str> = match folder {
        None => vec!["/bin/sh", "-c", line],
        Some(folder) => vec!["/bin/sh", "-c", "cd -- \"$1\" && exec /bin/sh -c \"$2\"", "sh", folder, line],
    };
    words.into_iter().map(str::to_owned).collect()
}

/// Runs a program to its end, at most for so long.
///
/// # Errors
/// When it does not start: nothing was done.
pub(crate) async fn run(
    Running { commands, mut paused, say }: Running<'_>,
    argv: Vec<String>,
    limit: Duration,
) -> Result<Ran, String> {
    let begun = Instant::now();
    let mut running = commands.run(argv, None).await?;
    let streams = running.take_streams();
    let mut written = Written::keeping(KEPT);
    let mut log = Log { say, partial: Vec::new(), room: LOGGED };
    let mut reads = streams.map(|streams| Box::pin(read(streams, &mut written, &mut log)));
    let mut drained = false;
    let timed_out = {
        let timer = time_of(limit, &mut paused);
        tokio::pin!(timer);
        let exited = running.exited();
        tokio::pin!(exited);
        loop {
            tokio::select! {
                _ = &mut exited => break false,
                () = &mut timer => break true,
                () = drain(&mut reads), if !drained => drained = true,
            }
        }
    };
    if timed_out {
        running.kill();
    } else if !drained {
        let _ = tokio::time::timeout(DRAIN, drain(&mut reads)).await;
    }
    drop(reads);
    log.end();
    running.kill();
    let (status, usage) = running.gone().await;
    let took = format_duration(begun.elapsed());
    let how = match status {
        _ if timed_out => format!("killed: it had not ended after {}", format_duration(limit)),
        Status::Code(code) => format!("exit code {code}"),
        Status::Signal { signal, .. } => format!("killed by {}", signal_name(signal)),
        Status::Unknown => "nobody saw how it ended".to_owned(),
    };
    let memory = match usage.oom_kills {
        0 => String::new(),
        _ => ", for it used more memory than it may".to_owned(),
    };
    let peak = usage.memory_peak.map_or_else(String::new, |peak| format!(", memory {}", ByteSize(peak)));
    let whole = written.whole();
    let (output, is_cut) = shown(&whole);
    let output = if output.trim().is_empty() { "(no output)".to_owned() } else { output };
    Ok(Ran {
        text: format!("{how}{memory} ({took}{peak})\n{output}"),
        whole: is_cut.then_some(whole),
        is_success: !timed_out && status == Status::Code(0),
        usage,
    })
}

async fn drain(reads: &mut Option<std::pin::Pin<Box<impl Future<Output = ()>>>>) {
    if let Some(reads) = reads {
        reads.await;
    }
}

/// Reads both streams to their ends.
async fn read(streams: Streams, written: &mut Written, log: &mut Log<'_>) {
    let Streams { mut output, mut errors } = streams;
    let (mut out, mut err) = (vec![0; 64 * 1024], vec![0; 16 * 1024]);
    let (mut out_open, mut err_open) = (true, true);
    while out_open || err_open {
        tokio::select! {
            read = output.read(&mut out), if out_open => match read {
                Ok(count @ 1..) => {
                    written.add(&out[..count]);
                    log.add(&out[..count]);
                }
                _ => out_open = false,
            },
            read = errors.read(&mut err), if err_open => match read {
                Ok(count @ 1..) => {
                    written.add(&err[..count]);
                    log.add(&err[..count]);
                }
                _ => err_open = false,
            },
        }
    }
}

/// Ready when so much time has passed in which the agent was not paused.
pub(crate) async fn time_of(limit: Duration, paused: &mut watch::Receiver<bool>) {
    let mut left = limit;
    loop {
        if *paused.borrow_and_update() {
            if paused.changed().await.is_err() {
                return;
            }
            continue;
        }
        let since = Instant::now();
        tokio::select! {
            () = tokio::time::sleep(left) => return,
            changed = paused.changed() => {
                left = left.saturating_sub(since.elapsed());
                if changed.is_err() {
                    tokio::time::sleep(left).await;
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_much_output_the_beginning_and_the_end_are_kept() {
        let mut written = Written::keeping(KEPT);
        for number in 0..2_000_000u32 {
            written.add(format!("{number}\n").as_bytes());
        }
        assert!(written.tail.len() <= 2 * KEPT + 16);
        let whole = written.whole();
        assert!(whole.len() < 2 * KEPT + 100);
        assert!(whole.starts_with(b"0\n1\n") && whole.ends_with(b"1999999\n"));
        let (text, is_cut) = shown(&whole);
        assert!(is_cut && text.len() < 40 * 1024 && text.contains("bytes are left out"));
        assert!(text.starts_with("0\n1\n") && text.ends_with("1999999\n"));
    }

    #[test]
    fn a_log_shows_lines_as_they_come_and_not_without_end() {
        let told = std::sync::Mutex::new(Vec::new());
        let say = |line: &str| told.lock().expect("no panic").push(line.to_owned());
        let mut log = Log { say: &say, partial: Vec::new(), room: 3 };
        log.add(b"one\ntw");
        log.add(b"o\n");
        log.add(&b"x".repeat(20_000));
        log.add(b"more\n");
        log.end();
        let told = told.into_inner().expect("no panic");
        assert_eq!(told[..2], ["  one", "  two"]);
        assert!(told.len() == 4 && told[2].len() > 10_000 && told[3].contains("--full"), "{}", told.len());
    }

    #[test]
    fn a_character_is_not_cut() {
        let (text, is_cut) = shown("é".repeat(40_000).as_bytes());
        assert!(is_cut && !text.contains('\u{fffd}'));
        assert_eq!(shown(b"short\xff"), ("short\u{fffd}".to_owned(), false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_does_not_count() {
        let (pause, mut paused) = watch::channel(false);
        let begun = tokio::time::Instant::now();
        let timer = time_of(Duration::from_secs(10), &mut paused);
        let person = async {
            tokio::time::sleep(Duration::from_secs(4)).await;
            pause.send_replace(true);
            tokio::time::sleep(Duration::from_secs(100)).await;
            pause.send_replace(false);
        };
        tokio::join!(timer, person);
        assert!(begun.elapsed() >= Duration::from_secs(104), "{:?}", begun.elapsed());
    }
}
