//! What an agent program is told, and what becomes of what it says: lines for the log, progress, and how the task ended.
//!
//! The tasks of an agent are one conversation where the program can go on with one: what it learnt at the first task, it
//! knows at the second. A task that failed is tried again with what went wrong.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::path::Path;
use std::process::ChildStdout;
use std::sync::mpsc::Sender;
use std::thread;

use nix::unistd::Pid;
use toka_core::rpc::TaskSpec;
use toka_core::{AgentProgram, Exit, HomeFile, Progress};

use crate::said::{Reader, Said};
use crate::wake::Wake;

/// What a model is to begin its last line with when a task cannot be done: programs end with 0 whatever their models say.
const FAILED: &str = "FAILED:";
/// The longest event that is read, in bytes: some have whole files in them.
const LONGEST_LINE: u64 = 16 * 1024 * 1024;
/// The longest reason that is told, in characters.
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
}

impl Worker {
    /// Works on tasks with this program; writes the files that it looks for.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(crate) fn new(program: AgentProgram) -> io::Result<Self> {
        write_files(&program.files)?;
        Ok(Self { program, session: None, ended: None, fraction: 0.0, failed: None })
    }

    /// The arguments of one attempt at a task, which is the `place`th of `total`.
    pub(crate) fn begin(
        &mut self,
        (place, total): (usize, usize),
        task: &TaskSpec,
        attempt: u32,
    ) -> Vec<String> {
        (self.ended, self.fraction) = (None, 0.0);
        let why = self.failed.take().filter(|_| attempt > 1);
        let AgentProgram { argv, resume, prompt, about, .. } = &self.program;
        let session = self.session.as_deref().filter(|_| !resume.is_empty());
        let text = prompt_of(about, (place, total), task, why.as_deref(), session.is_some());
        let resume = session
            .into_iter()
            .flat_map(|session| resume.iter().map(move |word| word.replace(AgentProgram::SESSION, session)));
        let prompt = prompt.iter().map(|word| word.replace(AgentProgram::PROMPT, &text));
        argv.iter().cloned().chain(resume).chain(prompt).collect()
    }

    /// Reads what an attempt writes, in a thread of its own, until the end of its output; what comes is sent as [`Wake::Said`],
    /// and the end as [`Wake::Drained`]. The events are kept as they came in a file of the artifacts.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(crate) fn listen(&self, pid: Pid, output: ChildStdout, wakes: Sender<Wake>) -> io::Result<()> {
        let reader = Reader::new(self.program.preset);
        let kept = std::env::var_os("TOKA_ARTIFACTS").and_then(|folder| {
            let path = Path::new(&folder).join(format!("{}.events", self.program.preset));
            OpenOptions::new().create(true).append(true).open(path).ok()
        });
        thread::Builder::new().name("output".to_owned()).spawn(move || {
            read_all(output, kept, reader, |said| wakes.send(Wake::Said(pid, said)).is_ok());
            // Nobody listens when the runner gave up meanwhile.
            let _ = wakes.send(Wake::Drained(pid));
        })?;
        Ok(())
    }

    /// Takes one fact; the line of it for the log, and what is to be reported.
    pub(crate) fn hear(&mut self, said: Said) -> (Option<String>, Option<Progress>) {
        match said {
            Said::Conversation(name) if !name.is_empty() => self.session = Some(name),
            Said::Conversation(_) => {}
            Said::Text(text) => {
                if !self.tells_its_end()
                    && let Some(why) = failure(&text)
                {
                    self.ended = Some(Err(why));
                }
                let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
                return (Some(text.trim_end().to_owned()), Some(status(first)));
            }
            Said::Tool(name, about) => {
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
                let result = result.and_then(|text| match failure(&text) {
                    Some(why) => Err(why),
                    None => Ok(text),
                });
                self.ended = Some(result);
            }
        }
        (None, None)
    }

    /// How much of the task is done, by its own plan, 0.0 to 1.0.
    pub(crate) fn fraction(&self) -> f64 {
        self.fraction
    }

    /// How the attempt ended, by the end of its process and by what the program said of it.
    pub(crate) fn verdict(&mut self, exit: Exit) -> Exit {
        let exit = verdict(exit, self.ended.take(), self.tells_its_end());
        self.failed = (!exit.is_success()).then(|| exit.to_string());
        exit
    }

    fn tells_its_end(&self) -> bool {
        Reader::new(self.program.preset).tells_its_end()
    }
}

/// Why the task is not done, where the last line of an answer says so.
fn failure(answer: &str) -> Option<String> {
    let last = answer.lines().rev().find(|line| !line.trim().is_empty())?;
    let bare = last.trim().trim_matches(['*', '`', '_']);
    bare.strip_prefix(FAILED).map(|why| why.trim().trim_matches(['*', '`', '_']).trim().to_owned())
}

fn verdict(exit: Exit, ended: Option<Result<String, String>>, tells_its_end: bool) -> Exit {
    let undone = |why: &str| Exit::Undone {
        reason: cut(&why.split_whitespace().collect::<Vec<_>>().join(" "), LONGEST_REASON),
    };
    match (exit, ended) {
        (Exit::Code { .. }, Some(Err(why))) => undone(&why),
        (Exit::Code { code: 0 }, None) if tells_its_end => undone("the program ended without a result"),
        (exit, _) => exit,
    }
}

fn prompt_of(
    about: &str,
    (place, total): (usize, usize),
    task: &TaskSpec,
    why: Option<&str>,
    goes_on: bool,
) -> String {
    let of = if total > 1 { format!(" ({place} of {total})") } else { String::new() };
    let description = &task.description;
    let text = match (goes_on, why) {
        (true, Some(why)) => format!(
            "The task is not done yet. The attempt before ended so: {why}\n\nLook at what is there, and finish it: {description}"
        ),
        (false, Some(why)) => format!(
            "{about}# Task{of}\n\n{description}\n\nAn attempt before this one ended so: {why}\nLook at what is there, and finish it."
        ),
        (true, None) => format!("# Next task{of}\n\n{description}"),
        (false, None) => format!("{about}# Task{of}\n\n{description}"),
    };
    format!(
        "{text}\n\nNobody can answer questions. When the task is done, end with a short account of what you did. If it cannot be done, say why \
         in a last line that begins with {FAILED}"
    )
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

/// Reads lines to the end, or until nobody takes what they say. One that is too long is passed over.
fn read_all(output: impl Read, mut kept: Option<File>, mut reader: Reader, take: impl Fn(Said) -> bool) {
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
        kept = kept.filter(|file| (&*file).write_all(&line).is_ok());
        let text = String::from_utf8_lossy(&line);
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
        path.parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| fs::write(&path, text))
            .map_err(named)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use toka_core::Preset;
    use toka_core::rpc::RetryRule;

    use super::*;

    fn task(description: &str) -> TaskSpec {
        TaskSpec {
            index: 0,
            description: description.to_owned(),
            run: None,
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
        for (exit, ended, tells, expected) in [
            (code(0), ok(), true, code(0)),
            (code(0), no(), true, undone("a b")),
            (code(1), no(), true, undone("a b")),
            (code(1), ok(), true, code(1)),
            (code(0), None, true, undone("the program ended without a result")),
            (code(0), None, false, code(0)),
            (code(2), None, true, code(2)),
            (Exit::Signal { signal: 9, core: false }, no(), true, Exit::Signal { signal: 9, core: false }),
        ] {
            assert_eq!(verdict(exit.clone(), ended.clone(), tells), expected, "{exit:?} {ended:?}");
        }
    }

    #[test]
    fn only_a_last_line_tells_that_a_task_failed() {
        assert_eq!(failure("a\n**FAILED: no ink**\n\n").as_deref(), Some("no ink"));
        assert_eq!(failure("FAILED: tests are mended.\nAll is done."), None);
        assert_eq!(failure(""), None);
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
