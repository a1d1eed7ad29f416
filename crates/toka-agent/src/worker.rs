//! What the runner tells an agent program, and what it makes of the program's output: lines for the log,
//! progress, and how the task ended.
//!
//! The tasks of an agent are one conversation where the program can go on with one: what it learnt at the first task, it
//! knows at the second. A task that failed is tried again with what went wrong.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::ChildStdout;
use std::sync::mpsc::SyncSender;
use std::thread;

use nix::fcntl::OFlag;
use nix::unistd::Pid;
use toka_core::rpc::TaskSpec;
use toka_core::{AgentProgram, Exit, HomeFile, Preset, Progress};

use toka_core::agent_program::{Answers, failure, prompt};

use crate::program_events::{Reader, Said};
use crate::wake::Wake;

/// The longest event that is read, in bytes: some have whole files in them.
const LONGEST_LINE: u64 = 16 * 1024 * 1024;
/// The most that is kept of the events of an agent, in bytes.
const MOST_KEPT: u64 = 64 * 1024 * 1024;
/// The longest reason that the runner reports to the daemon, in characters.
const LONGEST_REASON: usize = 300;
/// The longest line of what a tool is used on, in characters.
const LONGEST_TOOL: usize = 200;

/// One agent program, from its first task to its last.
#[derive(Debug)]
pub(crate) struct Worker {
    program: AgentProgram,
    /// The conversation that it goes on with.
    session: Option<String>,
    /// What it said of the end of its task, in this attempt.
    ended: Option<Result<String, String>>,
    /// How much of its own plan for the task is done, 0.0 to 1.0.
    fraction: f64,
    /// Why the attempt before failed.
    failed: Option<String>,
    /// Whether a model has said or done anything in this attempt.
    is_heard: bool,
    /// The conversation of this attempt, until a model has said something in it: before, there is nothing to go on with.
    begun: Option<String>,
}

impl Worker {
    /// Works on tasks with this program; writes the files that it looks for.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(crate) fn new(program: AgentProgram) -> io::Result<Self> {
        write_files(&program.files)?;
        Ok(Self {
            program,
            session: None,
            ended: None,
            fraction: 0.0,
            failed: None,
            is_heard: false,
            begun: None,
        })
    }

    /// The arguments of one attempt at a task, which is the `place`th of `total`.
    pub(crate) fn begin(
        &mut self,
        (place, total): (usize, usize),
        task: &TaskSpec,
        attempt: u32,
    ) -> Vec<String> {
        (self.ended, self.fraction, self.is_heard, self.begun) = (None, 0.0, false, None);
        let why = self.failed.take().filter(|_| attempt > 1);
        let AgentProgram { argv, resume, prompt: words, about, .. } = &self.program;
        let session = self.session.as_deref().filter(|_| !resume.is_empty());
        let text = prompt(
            about,
            (place, total),
            &task.description,
            why.as_deref(),
            session.is_some(),
            Answers::Nobody,
        );
        let resume = session
            .into_iter()
            .flat_map(|session| resume.iter().map(move |word| word.replace(AgentProgram::SESSION, session)));
        let words = words.iter().map(|word| word.replace(AgentProgram::PROMPT, &text));
        argv.iter().cloned().chain(resume).chain(words).collect()
    }

    /// Reads what an attempt writes, in a thread of its own, until the end of its output; what comes is sent as [`Wake::Said`],
    /// and the end as [`Wake::Drained`]. The events are kept as they came in a file of the artifacts.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(crate) fn listen(&self, pid: Pid, output: ChildStdout, wakes: SyncSender<Wake>) -> io::Result<()> {
        let reader = Reader::new(self.program.preset);
        let kept = std::env::var_os("TOKA_ARTIFACTS").and_then(|folder| {
            Kept::open(&Path::new(&folder).join(format!("{}.events", self.program.preset)))
        });
        thread::Builder::new().name("output".to_owned()).spawn(move || {
            read_all(output, kept, reader, |said| wakes.send(Wake::Said(pid, said)).is_ok());
            // The send fails when the runner dropped its receiver meanwhile.
            let _ = wakes.send(Wake::Drained(pid));
        })?;
        Ok(())
    }

    /// Takes one fact; the line of it for the log, and what is to be reported.
    pub(crate) fn hear(&mut self, said: Said) -> (Option<String>, Option<Progress>) {
        match said {
            Said::Conversation(name) => {
                self.begun = Some(name).filter(|name| !name.is_empty());
                // The one without events tells of it when an answer has come.
                if self.is_heard || self.program.preset == Preset::Aider {
                    self.hear_model();
                }
            }
            Said::Line(line) => return (Some(line.trim_end().to_owned()), None),
            Said::Text(text) => {
                self.hear_model();
                let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
                return (Some(text.trim_end().to_owned()), Some(status(first)));
            }
            Said::Tool(name, about) => {
                self.hear_model();
                let first = relative(about.lines().next().unwrap_or_default());
                let separator = if first.is_empty() { "" } else { ": " };
                let line = cut(&format!("{name}{separator}{first}"), LONGEST_TOOL);
                return (Some(format!("> {line}")), Some(status(&line)));
            }
            Said::Plan { done, of } => {
                // The last word is that of the end.
                self.fraction = (done as f64 / of as f64).min(0.99);
                return (None, Some(Progress::default()));
            }
            Said::Trouble(message) => {
                return (Some(format!("{}: {}", self.program.preset, message.trim_end())), None);
            }
            Said::Ended(result) => {
                if result.is_ok() {
                    self.hear_model();
                }
                let result = result.and_then(|text| match failure(&text) {
                    Some(why) => Err(why),
                    None => Ok(text),
                });
                self.ended = Some(result);
            }
        }
        (None, None)
    }

    /// A model speaks: there is a conversation to go on with.
    fn hear_model(&mut self) {
        self.is_heard = true;
        if let Some(name) = self.begun.take() {
            self.session = Some(name);
        }
    }

    /// How much of the task is done, by its own plan, 0.0 to 1.0.
    pub(crate) fn fraction(&self) -> f64 {
        self.fraction
    }

    /// How the attempt ended, by the end of its process and by what the program said of it.
    pub(crate) fn verdict(&mut self, exit: Exit) -> Exit {
        let exit = verdict(exit, self.ended.take());
        if !exit.is_success() && !self.is_heard {
            // It may be the conversation that cannot be gone on with.
            self.session = None;
        }
        self.failed = (!exit.is_success()).then(|| exit.to_string());
        exit
    }
}

fn verdict(exit: Exit, ended: Option<Result<String, String>>) -> Exit {
    let undone = |why: &str| {
        let why = why.split_whitespace().collect::<Vec<_>>().join(" ");
        let reason = if why.is_empty() { "without a reason".to_owned() } else { cut(&why, LONGEST_REASON) };
        Exit::Undone { reason }
    };
    match (exit, ended) {
        (Exit::Code { .. }, Some(Err(why))) => undone(&why),
        (Exit::Code { code: 0 }, None) => undone("the program ended without a result"),
        (exit, _) => exit,
    }
}

/// A text in which files of the folder that the agent works in have their short names.
fn relative(text: &str) -> String {
    match std::env::current_dir() {
        Ok(folder) => text.replace(&format!("{}/", folder.display()), ""),
        Err(_) => text.to_owned(),
    }
}

fn status(text: &str) -> Progress {
    Progress { status: Some(cut(text.trim(), LONGEST_TOOL).into()), ..Progress::default() }
}

fn cut(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// The file of events, as far as there is room for them. The folder is the agent's: what lies there is opened only if it is a file.
struct Kept {
    file: File,
    room: u64,
}

impl Kept {
    fn open(path: &Path) -> Option<Self> {
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let file = OpenOptions::new().create(true).append(true).custom_flags(flags.bits()).open(path).ok()?;
        let metadata = file.metadata().ok().filter(Metadata::is_file)?;
        Some(Self { file, room: MOST_KEPT.saturating_sub(metadata.len()) })
    }

    /// Itself, while there is room.
    fn add(mut self, line: &[u8]) -> Option<Self> {
        self.room = self.room.checked_sub(line.len() as u64)?;
        self.file.write_all(line).ok()?;
        Some(self)
    }
}

/// Reads lines to the end, or until the runner dropped the receiver. The reader skips a line that is too long.
fn read_all(output: impl Read, mut kept: Option<Kept>, mut reader: Reader, take: impl Fn(Said) -> bool) {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut output).take(LONGEST_LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        if line.last() != Some(&b'\n') && line.len() as u64 == LONGEST_LINE {
            match output.skip_until(b'\n') {
                Ok(_) => continue,
                Err(_) => return,
            }
        }
        // What cannot be kept, on a full disk, is in the log all the same.
        kept = kept.and_then(|kept| kept.add(&line));
        let text = String::from_utf8_lossy(&line);
        // An event that its end has cut is no line for people.
        if !text.ends_with('\n') && text.starts_with('{') {
            continue;
        }
        let said = reader.read(text.trim_end_matches(['\n', '\r']));
        if !said.into_iter().all(&take) {
            return;
        }
    }
}

/// Writes what a program looks for in its HOME.
///
/// # Errors
/// When there is no HOME, or a file cannot be written.
pub(crate) fn write_files(files: &[HomeFile]) -> io::Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    let home = std::env::var_os("HOME").ok_or_else(|| io::Error::other("HOME is not set"))?;
    for HomeFile { path, text, once } in files {
        let path = Path::new(&home).join(path);
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        if *once && path.exists() {
            continue;
        }
        put(&path, text).map_err(named)?;
    }
    Ok(())
}

/// Writes a file in the place of whatever an earlier life has left there, but for a folder: nothing of that is opened.
fn put(path: &Path, text: &str) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    let beside = path.with_extension("toka-new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).open(&beside)?.write_all(text.as_bytes())?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use toka_core::rpc::RetryRule;

    use super::*;

    fn task(description: &str) -> TaskSpec {
        TaskSpec {
            index: 0,
            description: description.to_owned(),
            run: None,
            talk: false,
            timeout_ms: None,
            retry: RetryRule::default(),
            depends_on: Vec::new(),
        }
    }

    fn worker(resume: &[&str]) -> Worker {
        let program = AgentProgram {
            preset: Preset::Codex,
            argv: vec!["/usr/bin/codex".into(), "exec".into()],
            resume: resume.iter().map(|word| (*word).to_owned()).collect(),
            prompt: vec!["{prompt}".into()],
            files: Vec::new(),
            about: "You work here.\n\n".into(),
        };
        Worker::new(program).expect("no files")
    }

    #[test]
    fn tasks_are_one_conversation_and_what_went_wrong_is_told() {
        let mut worker = worker(&["resume", "{session}"]);
        let first = worker.begin((1, 2), &task("Write it."), 1);
        assert_eq!(first[..2], ["/usr/bin/codex", "exec"]);
        assert!(first[2].starts_with("You work here.\n\n# Task (1 of 2)\n\nWrite it."), "{first:?}");
        worker.hear(Said::Conversation("c-1".into()));
        worker.hear(Said::Ended(Ok("I could not.\n\nFAILED: no ink".into())));
        let undone = Exit::Undone { reason: "no ink".into() };
        assert_eq!(worker.verdict(Exit::Code { code: 0 }), undone);
        let again = worker.begin((1, 2), &task("Write it."), 2);
        assert_eq!(again[2..4], ["resume", "c-1"]);
        assert!(
            again[4].contains("ended so: not done: no ink") && again[4].contains("Write it."),
            "{again:?}"
        );
        worker.hear(Said::Ended(Ok("Written.".into())));
        assert_eq!(worker.verdict(Exit::Code { code: 0 }), Exit::Code { code: 0 });
        let next = worker.begin((2, 2), &task("Read it."), 1);
        assert!(next[4].starts_with("# Next task (2 of 2)\n\nRead it."), "{next:?}");
    }

    #[test]
    fn one_that_cannot_go_on_with_a_conversation_is_told_everything_again() {
        let mut worker = worker(&[]);
        worker.hear(Said::Conversation("c-1".into()));
        worker.hear(Said::Ended(Err("overloaded".into())));
        worker.verdict(Exit::Code { code: 1 });
        let again = worker.begin((1, 1), &task("Write it."), 2);
        assert_eq!(again.len(), 3);
        assert!(again[2].starts_with("You work here.\n\n# Task\n\nWrite it."), "{again:?}");
        assert!(again[2].contains("An attempt before this one ended so: not done: overloaded"), "{again:?}");
    }

    #[test]
    fn the_end_of_the_process_and_the_programs_word_make_the_verdict() {
        let ok = || Some(Ok("x".to_owned()));
        let no = || Some(Err("a\n b".to_owned()));
        let undone = |why: &str| Exit::Undone { reason: why.to_owned() };
        let code = |code| Exit::Code { code };
        for (exit, ended, expected) in [
            (code(0), ok(), code(0)),
            (code(0), no(), undone("a b")),
            (code(1), no(), undone("a b")),
            (code(1), ok(), code(1)),
            (code(0), None, undone("the program ended without a result")),
            (code(0), Some(Err(String::new())), undone("without a reason")),
            (code(2), None, code(2)),
            (Exit::Signal { signal: 9, core: false }, no(), Exit::Signal { signal: 9, core: false }),
        ] {
            assert_eq!(verdict(exit.clone(), ended.clone()), expected, "{exit:?} {ended:?}");
        }
    }

    #[test]
    fn a_conversation_that_cannot_be_gone_on_with_is_begun_anew() {
        let mut worker = worker(&["resume", "{session}"]);
        // Nothing was answered in it: there is nothing to go on with.
        worker.begin((1, 2), &task("Write it."), 1);
        worker.hear(Said::Conversation("c-1".into()));
        worker.verdict(Exit::Code { code: 1 });
        let again = worker.begin((1, 2), &task("Write it."), 2);
        assert!(again.len() == 3 && again[2].starts_with("You work here."), "{again:?}");
        worker.hear(Said::Conversation("c-2".into()));
        worker.hear(Said::Text("Written.".into()));
        worker.hear(Said::Ended(Ok("Written.".into())));
        worker.verdict(Exit::Code { code: 0 });
        assert_eq!(worker.begin((2, 2), &task("Read it."), 1)[2..4], ["resume", "c-2"]);
        // It is lost.
        worker.verdict(Exit::Code { code: 1 });
        let again = worker.begin((2, 2), &task("Read it."), 2);
        assert!(again.len() == 3 && again[2].starts_with("You work here."), "{again:?}");
    }

    #[test]
    fn what_an_earlier_life_has_planted_is_neither_waited_for_nor_followed() {
        let folder = tempfile::tempdir().expect("a folder");
        let (fifo, link, file) =
            (folder.path().join("fifo"), folder.path().join("link"), folder.path().join("file"));
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        std::os::unix::fs::symlink("file", &link).expect("a link");
        assert!(Kept::open(&fifo).is_none() && Kept::open(&link).is_none());
        let kept = Kept::open(&file).and_then(|kept| kept.add(b"x\n")).expect("room");
        assert!(Kept { room: 1, ..kept }.add(b"xx").is_none());
        for path in [&fifo, &link] {
            put(path, "ours").expect("in its place");
            assert_eq!(fs::read_to_string(path).expect("a file"), "ours");
        }
        assert_eq!(fs::read_to_string(&file).expect("a file"), "x\n");
    }

    #[test]
    fn a_line_that_is_too_long_costs_no_more_than_itself() {
        let long = format!("{{\"type\":\"{}\"}}\n", "x".repeat(LONGEST_LINE as usize));
        let output = [long.as_bytes(), b"{\"type\":\"turn.completed\"}\n"].concat();
        let heard = std::cell::RefCell::new(Vec::new());
        read_all(output.as_slice(), None, Reader::new(Preset::Codex), |said| {
            heard.borrow_mut().push(said);
            true
        });
        assert_eq!(heard.into_inner(), [Said::Ended(Ok(String::new()))]);
    }
}
