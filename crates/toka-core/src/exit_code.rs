//! Exit statuses of the `toka` command, and which one counts when several apply.

use crate::Exit;

/// What the `toka` command ends with; the numbers follow sysexits(3), timeout(1) and the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ExitCode {
    /// Everything succeeded.
    Success = 0,
    /// An agent failed.
    AgentFailed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// A file is invalid, or there is no workstream.
    Invalid = 65,
    /// No daemon answers.
    NoDaemon = 69,
    /// A bug or an impossible state.
    Internal = 70,
    /// The state folder cannot be written.
    StateFolder = 73,
    /// The policy denies what an agent requires.
    Denied = 77,
    /// Something must be configured first.
    Unconfigured = 78,
    /// Every failure was a timeout.
    TimedOut = 124,
    /// Interrupted by SIGINT.
    Interrupted = 130,
    /// Terminated by SIGTERM or SIGHUP.
    Terminated = 143,
}

impl ExitCode {
    /// Every status.
    pub const ALL: [Self; 12] = [
        Self::Success,
        Self::AgentFailed,
        Self::Usage,
        Self::Invalid,
        Self::NoDaemon,
        Self::Internal,
        Self::StateFolder,
        Self::Denied,
        Self::Unconfigured,
        Self::TimedOut,
        Self::Interrupted,
        Self::Terminated,
    ];

    /// The one of that number; [`ExitCode::Internal`] when there is none.
    pub fn from_u8(number: u8) -> Self {
        Self::ALL.into_iter().find(|code| *code as u8 == number).unwrap_or(Self::Internal)
    }

    /// The outcome of a run whose agents all have ended: success, failure, or nothing but timeouts.
    pub fn of_exits<'a>(exits: impl IntoIterator<Item = &'a Exit>) -> Self {
        exits.into_iter().filter(|exit| !exit.is_success() && !exit.is_skipped()).fold(
            Self::Success,
            |code, exit| match (code, exit.is_timeout()) {
                (Self::Success | Self::TimedOut, true) => Self::TimedOut,
                _ => Self::AgentFailed,
            },
        )
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_run_is_timed_out_only_when_nothing_else_failed() {
        let ok = Exit::Code { code: 0 };
        let failed = Exit::Code { code: 3 };
        let late = Exit::Timeout { limit: Duration::from_secs(1) };
        for (exits, expected) in [
            (vec![], ExitCode::Success),
            (vec![&ok], ExitCode::Success),
            (vec![&ok, &late], ExitCode::TimedOut),
            (vec![&late, &failed], ExitCode::AgentFailed),
        ] {
            assert_eq!(ExitCode::of_exits(exits), expected);
        }
    }
}
