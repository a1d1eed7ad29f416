//! Why a run does not start. All problems of all agents are found before anything starts, and told together.

use std::fmt::{self, Write as _};
use std::io;
use std::path::PathBuf;

use serde_json::{Value, json};
use thiserror::Error;
use toka_core::escape::for_terminal;
use toka_core::{AgentName, ExitCode, Origin, ProjectName};
use toka_keeper::KeeperError;

use crate::{FolderError, LockError};

/// Longest text of a file that a problem repeats, in characters.
const MAX_SHOWN: usize = 400;

/// What kind of a problem; the earlier ones decide the exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProblemKind {
    /// The file names something that is not there or makes no sense.
    Invalid,
    /// Something must be configured first.
    Unconfigured,
    /// The policy says no.
    Denied,
}

impl ProblemKind {
    /// The word that programs see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Unconfigured => "unconfigured",
            Self::Denied => "denied",
        }
    }

    fn exit_code(self) -> ExitCode {
        match self {
            Self::Invalid => ExitCode::Invalid,
            Self::Unconfigured => ExitCode::Unconfigured,
            Self::Denied => ExitCode::Denied,
        }
    }
}

/// One reason why an agent cannot be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What kind.
    pub kind: ProblemKind,
    /// Which agent.
    pub agent: AgentName,
    /// The line that asks for what cannot be.
    pub origin: Origin,
    /// What is wrong.
    pub message: String,
    /// What would help; may be empty.
    pub help: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |text: &str| for_terminal(text.as_bytes(), MAX_SHOWN);
        write!(f, "{}: {}: {}", shown(&self.origin.to_string()), self.agent, shown(&self.message))?;
        if self.help.is_empty() { Ok(()) } else { write!(f, "\n  help: {}", shown(&self.help)) }
    }
}

impl Problem {
    /// It as data, for programs; `file`, `line` and `column` are there when a line of a file asks for what cannot be.
    pub fn to_json(&self) -> Value {
        let mut value = json!({
            "type": "problem",
            "kind": self.kind.as_str(),
            "agent": self.agent,
            "message": self.message,
            "help": Some(&self.help).filter(|help| !help.is_empty()),
        });
        if let Origin::File { file, line, column } = &self.origin {
            value["file"] = json!(file);
            value["line"] = json!(line);
            value["column"] = json!(column);
        }
        value
    }

    /// The exit status of a run that these problems keep from starting; `None` when there are none.
    pub fn exit_code(problems: &[Self]) -> Option<ExitCode> {
        problems.iter().map(|problem| problem.kind).min().map(ProblemKind::exit_code)
    }
}

/// Why a run did not take place.
#[derive(Debug, Error)]
pub enum RunError {
    /// Agents cannot be started.
    #[error("nothing was started\n{}", list(.0))]
    Refused(Vec<Problem>),
    /// The project runs already, or its lock cannot be used.
    #[error("{0}{hint}", hint = lock_hint(.0))]
    Lock(#[source] LockError),
    /// The daemon that ran the project was killed, and its keeper waits for the next.
    #[error(
        "the daemon is gone, and no other looks after what it ran: {project}\n  help: `toka serve --detach` begins one that takes it over, and \
         `toka down --project {project}` stops it then"
    )]
    Unattended {
        /// The project.
        project: ProjectName,
    },
    /// Agents of an earlier run in the background still run, and nobody looks after them.
    #[error(
        "a run of {project} in the background was killed, and of it still run: {agents}\n  help: `toka serve --detach` goes on \
         with them, and `toka down --project {project}` stops them then",
        agents = names(agents)
    )]
    LeftBehind {
        /// The project.
        project: ProjectName,
        /// The agents.
        agents: Vec<AgentName>,
    },
    /// The name is another workspace's.
    #[error(
        "the project {project} is {}, not {}\n  help: leave out --project, or say another name",
        workspace.display(),
        asked.display()
    )]
    Elsewhere {
        /// The name.
        project: ProjectName,
        /// The workspace that has it.
        workspace: PathBuf,
        /// The one that asked.
        asked: PathBuf,
    },
    /// A folder of the state cannot be made or emptied.
    #[error("{0}: {why}", why = .0.source)]
    Folder(#[source] FolderError),
    /// The journal cannot be opened.
    #[error("open the journal {}: {source}", path.display())]
    Journal {
        /// The file.
        path: PathBuf,
        /// The error.
        #[source]
        source: io::Error,
    },
    /// The keeper cannot be started.
    #[error("{0}{cause}", cause = cause(.0))]
    Keeper(#[source] KeeperError),
}

impl RunError {
    /// The exit status of a command that failed so.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Refused(problems) => Problem::exit_code(problems).unwrap_or(ExitCode::Internal),
            Self::Lock(_)
            | Self::Unattended { .. }
            | Self::LeftBehind { .. }
            | Self::Folder(_)
            | Self::Journal { .. } => ExitCode::StateFolder,
            Self::Elsewhere { .. } => ExitCode::Usage,
            Self::Keeper(_) => ExitCode::Internal,
        }
    }
}

/// Names in a sentence.
pub fn names(agents: &[AgentName]) -> String {
    let names: Vec<&str> = agents.iter().map(AgentName::as_str).collect();
    names.join(", ")
}

/// Problems for people, one after the other.
pub fn list(problems: &[Problem]) -> String {
    let mut text = String::new();
    for problem in problems {
        let separator = if text.is_empty() { "" } else { "\n" };
        let _ = write!(text, "{separator}{problem}");
    }
    text
}

fn lock_hint(error: &LockError) -> String {
    match error {
        LockError::Held(_) => {
            "\n  help: `toka apply` makes it what the files say now; or wait for it, stop it with `toka down`, or name another project \
             with --project"
                .to_owned()
        }
        LockError::Kept(_) => {
            "\n  help: `toka down` waits until the keeper has ended them, which it does within their grace periods"
                .to_owned()
        }
        LockError::Io { source, .. } => format!(": {source}"),
    }
}

fn cause(error: &KeeperError) -> String {
    std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use toka_core::Name;

    use super::*;

    fn problem(kind: ProblemKind) -> Problem {
        Problem {
            kind,
            agent: Name::new("checks").expect("a label"),
            origin: Origin::File { file: "a.yaml".into(), line: 7, column: 3 },
            message: "there is no program \"\u{1b}[2Jtool\"".into(),
            help: "install it".into(),
        }
    }

    #[test]
    fn the_exit_status_is_that_of_the_first_kind() {
        use ProblemKind::{Denied, Invalid, Unconfigured};
        for (kinds, code) in [
            (&[Denied][..], ExitCode::Denied),
            (&[Denied, Unconfigured], ExitCode::Unconfigured),
            (&[Denied, Unconfigured, Invalid], ExitCode::Invalid),
        ] {
            let error = RunError::Refused(kinds.iter().map(|kind| problem(*kind)).collect());
            assert_eq!(error.exit_code(), code);
        }
    }

    #[test]
    fn every_problem_is_told_with_its_line_and_without_control_characters() {
        let error = RunError::Refused(vec![problem(ProblemKind::Invalid); 2]);
        assert_eq!(
            error.to_string(),
            "nothing was started\n\
             a.yaml:7: checks: there is no program \"\\x1b[2Jtool\"\n  help: install it\n\
             a.yaml:7: checks: there is no program \"\\x1b[2Jtool\"\n  help: install it"
        );
    }

    #[test]
    fn as_data_a_problem_says_where_it_is_and_what_helps() {
        let problem = Problem { message: "no".into(), help: String::new(), ..problem(ProblemKind::Denied) };
        let expected = json!({
            "type": "problem", "kind": "denied", "agent": "checks", "message": "no", "help": null,
            "file": "a.yaml", "line": 7, "column": 3,
        });
        assert_eq!(problem.to_json(), expected);
        let elsewhere = Problem { origin: Origin::default_of("user"), ..problem }.to_json();
        assert_eq!(elsewhere.get("line"), None);
    }
}
