//! How the control socket says no: a status of HTTP, and what a command line makes of it.

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use toka_api::declaration::Unparsed;
use toka_api::wire::Refused;
use toka_core::{AgentName, ExitCode, ProjectName};
use toka_prepare::{LockError, RunError};
use toka_workstream::Style;

use toka_project::{ApplyError, CommandError, NotAnswered, RunOver};

/// A refusal.
#[derive(Debug)]
pub(super) struct Error {
    status: StatusCode,
    body: Box<Refused>,
}

impl Error {
    pub(super) fn new(status: StatusCode, code: ExitCode, error: impl Into<String>) -> Self {
        let (error, exit_code) = (error.into(), code as u8);
        let body = Refused { error, help: None, exit_code, parts: Vec::new(), rendered: None };
        Self { status, body: Box::new(body) }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.body.help = Some(help.into());
        self
    }

    /// The same under another status, and with one that a command ends with.
    pub(super) fn status(mut self, status: StatusCode, exit_code: u8) -> Self {
        (self.status, self.body.exit_code) = (status, exit_code);
        self
    }

    /// What is said, where there is no status to say it with.
    pub(super) fn into_body(self) -> Refused {
        *self.body
    }

    pub(super) fn bad_request(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ExitCode::Usage, error)
    }

    pub(super) fn no_project(project: &ProjectName, running: &[ProjectName]) -> Self {
        let error = Self::new(
            StatusCode::NOT_FOUND,
            ExitCode::NoDaemon,
            format!("the project {project} does not run here"),
        );
        match running {
            [] => error.help("nothing runs here"),
            running => error.help(format!("what runs here: {}", list(running))),
        }
    }

    pub(super) fn no_agent(agent: &AgentName, known: &[AgentName]) -> Self {
        let error =
            Self::new(StatusCode::NOT_FOUND, ExitCode::Usage, format!("the project has no agent {agent}"));
        error.help(format!("its agents are: {}", list(known)))
    }

    /// The other projects go on.
    pub(super) fn silent_keeper(project: &ProjectName, why: &str) -> Self {
        let message = format!(
            "the keeper of {project} does not answer, so that nothing can be done with its agents: {why}"
        );
        Self::new(StatusCode::SERVICE_UNAVAILABLE, ExitCode::NoDaemon, message).help(
            "the process `toka __keeper`, a child of the daemon, hangs or is stopped: `kill -CONT` lets one go on that is stopped",
        )
    }

    /// What was asked for is decided and durable, and not done.
    pub(super) fn ends_later(project: &ProjectName, why: &str) -> Self {
        let message = format!(
            "{project} is to end, and does not yet: its keeper does not answer, and its agents end when it goes on: {why}"
        );
        Self::new(StatusCode::SERVICE_UNAVAILABLE, ExitCode::NoDaemon, message).help(
            "the process `toka __keeper`, a child of the daemon, hangs or is stopped: `kill -CONT` lets one go on that is \
             stopped, and after `kill -KILL` the daemon starts another, which ends them",
        )
    }

    fn unparsed(unparsed: &Unparsed) -> Self {
        let Unparsed { diagnostics, sources } = unparsed;
        let message = "the workstreams have errors; nothing was changed";
        let mut error = Self::new(StatusCode::UNPROCESSABLE_ENTITY, ExitCode::Invalid, message);
        error.body.rendered = Some(sources.render(diagnostics, Style::Plain));
        if let serde_json::Value::Array(parts) = sources.to_json(diagnostics) {
            error.body.parts = parts;
        }
        error
    }
}

/// Most names in a list for people.
const LISTED: usize = 20;

fn list(names: &[AgentName]) -> String {
    let shown: Vec<&str> = names.iter().take(LISTED).map(AgentName::as_str).collect();
    let rest = names.len().saturating_sub(LISTED);
    let more = if rest > 0 { format!(", and {rest} more") } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

impl From<RunOver> for Error {
    fn from(gone: RunOver) -> Self {
        Self::new(StatusCode::CONFLICT, ExitCode::NoDaemon, gone.to_string())
    }
}

impl From<CommandError> for Error {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::UnknownAgent { agent, known } => Self::no_agent(&agent, &known),
            CommandError::NoSignal(_) => Self::bad_request(error.to_string()),
            CommandError::Refused(error) => error.into(),
            CommandError::Undeclared | CommandError::State(_) => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, ExitCode::Internal, error.to_string())
            }
        }
    }
}

impl From<NotAnswered> for Error {
    fn from(error: NotAnswered) -> Self {
        let status = match error {
            NotAnswered::Unknown { .. } => StatusCode::NOT_FOUND,
            NotAnswered::Before { .. } => StatusCode::CONFLICT,
            NotAnswered::NotRecorded { .. } => StatusCode::INTERNAL_SERVER_ERROR,
            NotAnswered::NeedsSum { .. }
            | NotAnswered::NeedsWords { .. }
            | NotAnswered::NoWords { .. }
            | NotAnswered::BadSum { .. }
            | NotAnswered::NoBudget { .. }
            | NotAnswered::OnlyHostsLast { .. }
            | NotAnswered::LikeNoOther { .. }
            | NotAnswered::NeedsTime { .. } => StatusCode::BAD_REQUEST,
        };
        let refused = Self::new(status, ExitCode::Usage, error.to_string());
        match error {
            NotAnswered::NeedsSum { .. } | NotAnswered::NeedsWords { .. } | NotAnswered::NoWords { .. } => {
                refused.help("`toka approvals approve ID --raise AMOUNT`")
            }
            _ => refused,
        }
    }
}

impl From<ApplyError> for Error {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Unparsed(unparsed) => Self::unparsed(&unparsed),
            ApplyError::Refused(error) => error.into(),
            ApplyError::Undone(error) => Self::from(error).help(
                "the agents that were stopped for the change start again as they were: mend what the error names, and apply again",
            ),
            ApplyError::Busy | ApplyError::Ending => {
                Self::new(StatusCode::CONFLICT, ExitCode::AgentFailed, error.to_string())
            }
            ApplyError::Others { .. } => Self::new(StatusCode::CONFLICT, ExitCode::Usage, error.to_string())
                .help("apply all of them without --only, or name these as well"),
            ApplyError::Workspace { .. } => {
                Self::new(StatusCode::CONFLICT, ExitCode::Usage, error.to_string())
                    .help("name another project with --project, or stop this one with `toka down`")
            }
        }
    }
}

impl From<RunError> for Error {
    fn from(error: RunError) -> Self {
        let status = match &error {
            RunError::Refused(_) => StatusCode::UNPROCESSABLE_ENTITY,
            RunError::Lock(LockError::Held(_) | LockError::Kept(_)) | RunError::Unattended { .. } => {
                StatusCode::CONFLICT
            }
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let mut refused = Self::new(status, error.exit_code(), error.to_string());
        if let RunError::Refused(problems) = &error {
            refused.body.parts = problems.iter().map(toka_prepare::Problem::to_json).collect();
        }
        refused
    }
}

impl From<Box<Unparsed>> for Error {
    fn from(unparsed: Box<Unparsed>) -> Self {
        Self::unparsed(&unparsed)
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}

impl From<JsonRejection> for Error {
    fn from(rejection: JsonRejection) -> Self {
        Self::new(rejection.status(), ExitCode::Usage, rejection.body_text())
    }
}

impl From<QueryRejection> for Error {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(rejection.status(), ExitCode::Usage, rejection.body_text())
    }
}
