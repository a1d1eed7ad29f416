//! The file tools, done where the agent's own rules hold: what the kernel lets the agent read and write, they can read and write, and
//! nothing else. The daemon asks for them; it opens no file of the agent itself.
//!
//! A call has a number, and is done once: whoever asks again, since the answer was lost with its daemon, gets the same answer.

mod edit;
mod find;
mod patch;
mod place;
mod read;
mod write;

use std::collections::VecDeque;

use toka_core::{FileCall, FileChange, FileOutcome, FileTool};

use place::ToolError;

/// Outcomes that are remembered.
const REMEMBERED: usize = 8;
/// The longest text of an outcome, in bytes: an answer has to fit into one line of the agent's socket, also when each byte is escaped.
const LONGEST: usize = 128 * 1024;

/// What a tool gives when it succeeds.
#[derive(Debug, Default, PartialEq, Eq)]
struct Done {
    text: String,
    changes: Vec<FileChange>,
}

impl From<String> for Done {
    fn from(text: String) -> Self {
        Self { text, changes: Vec::new() }
    }
}

/// Does what is asked for.
#[derive(Debug, Default)]
pub(crate) struct Hands {
    done: VecDeque<(FileCall, FileOutcome)>,
}

impl Hands {
    /// The outcome of a call, which is done unless it was before.
    pub(crate) fn work(&mut self, call: &FileCall) -> FileOutcome {
        if let Some((_, known)) = self.done.iter().find(|(known, _)| known == call) {
            return known.clone();
        }
        let outcome = work(call);
        if self.done.len() == REMEMBERED {
            self.done.pop_front();
        }
        self.done.push_back((call.clone(), outcome.clone()));
        outcome
    }
}

fn work(call: &FileCall) -> FileOutcome {
    let done = match &call.tool {
        FileTool::Read(arguments) => read::read(arguments),
        FileTool::Write(arguments) => write::write(arguments),
        FileTool::Edit(arguments) => edit::edit(arguments),
        FileTool::ApplyPatch(arguments) => patch::apply(arguments),
        FileTool::List(arguments) => find::list(arguments),
        FileTool::Glob(arguments) => find::glob(arguments),
        FileTool::Grep(arguments) => find::grep(arguments),
    };
    let id = call.id.clone();
    match done {
        Ok(Done { text, changes }) => {
            FileOutcome { id, text: cut(text), is_error: false, changes, refused: None }
        }
        Err(ToolError { message, refused, changes }) => {
            FileOutcome { id, text: cut(message), is_error: true, changes, refused }
        }
    }
}

fn cut(mut text: String) -> String {
    if text.len() > LONGEST {
        let whole = text.len();
        text.truncate(text.floor_char_boundary(LONGEST));
        text.push_str(&format!("\n… ({} bytes more)", whole - text.len()));
    }
    text
}

#[cfg(test)]
mod tests {
    use toka_core::tool::WriteFile;

    use super::*;

    #[test]
    fn a_call_is_done_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.txt").display().to_string();
        let tool = FileTool::Write(WriteFile { path: path.clone(), content: "one\n".into() });
        let call = FileCall { id: "1".into(), tool };
        let mut hands = Hands::default();
        let first = hands.work(&call);
        assert!(!first.is_error, "{first:?}");
        std::fs::write(&path, "by a person").expect("a file");
        assert_eq!(hands.work(&call), first, "asked again, it tells what was");
        assert_eq!(std::fs::read_to_string(&path).expect("a file"), "by a person");
    }

    #[test]
    fn a_text_that_is_too_long_is_cut_and_says_so() {
        let text = cut("é".repeat(LONGEST));
        assert!(text.len() < LONGEST + 40 && text.ends_with("bytes more)"));
    }
}
