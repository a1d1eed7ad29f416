//! What can go wrong between daemon and keeper.

use std::io;
use std::path::PathBuf;

use thiserror::Error;
use toka_sandbox::{PrepareError, StepError};

use crate::protocol::{Body, OLDEST, VERSION};

/// Something that the keeper did not do.
#[derive(Debug, Error)]
pub enum KeeperError {
    /// It could not be started.
    #[error("start the keeper {}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// The error.
        #[source]
        source: io::Error,
    },
    /// Nobody listens where it should.
    #[error("no keeper listens at {}", socket.display())]
    NotThere {
        /// The path of its socket.
        socket: PathBuf,
    },
    /// It could not be reached.
    #[error("reach the keeper at {}", socket.display())]
    Unreachable {
        /// The path of its socket.
        socket: PathBuf,
        /// The error.
        #[source]
        source: io::Error,
    },
    /// Another daemon has it.
    #[error("the keeper already has a daemon, process {pid}; stop that first, or replace it")]
    Occupied {
        /// The pid of that daemon; 0 when it is not known.
        pid: i32,
    },
    /// It and this program have no version of their messages in common.
    #[error(
        "the keeper speaks versions {oldest} to {newest} of its protocol, this program {OLDEST} to {VERSION}; use the \
         version of toka that started it, or stop its agents with that"
    )]
    Version {
        /// The oldest that it speaks.
        oldest: u32,
        /// The newest that it speaks.
        newest: u32,
    },
    /// There was no room for the descriptors that it sent; ask again when there is.
    #[error("receive descriptors: {got} of {sent} arrived, too many open files")]
    Descriptors {
        /// How many arrived; they are closed again.
        got: usize,
        /// How many were sent.
        sent: usize,
    },
    /// It is gone.
    #[error("the keeper is gone")]
    Gone,
    /// The process that it was to move is not the agent's.
    #[error("the process is not the agent's")]
    Stranger,
    /// It says why.
    #[error("{0}")]
    Refused(String),
}

/// Why a process was not started.
#[derive(Debug, Error)]
pub enum SpawnError {
    /// The host cannot enforce what the plan demands, or its parts could not be opened.
    #[error(transparent)]
    Prepare(PrepareError),
    /// A step in the child failed: which, on what path, with what error.
    #[error(transparent)]
    Step(StepError),
    /// The keeper itself failed.
    #[error(transparent)]
    Keeper(KeeperError),
}

/// What an answer means that is not the one that was hoped for.
pub(super) fn refusal(body: Body) -> KeeperError {
    match body {
        Body::Failed { reason } => KeeperError::Refused(reason),
        Body::Stranger => KeeperError::Stranger,
        Body::Occupied { pid } => KeeperError::Occupied { pid },
        other => KeeperError::Refused(format!("an answer to something else: {other:?}")),
    }
}
