//! The only crate that wires everything together: from a planned set of workstreams to supervised agents, their journal
//! and their folders.
//!
//! [`run`] is `toka run` without the terminal. Before anything starts it finds everything that would keep any agent from
//! running ([`Problem`]), takes the project's lock, and makes the folders. Then it does what
//! [`toka_orchestration::next_actions`] says, one event of the journal after the other, until nothing is left to do.

mod admission;
pub mod confine;
mod dotenv;
mod driver;
mod enforceable;
mod environment;
mod exam;
pub mod folders;
mod journal;
mod lock;
pub mod logs;
mod objectives;
mod options;
mod outcome;
mod problem;
mod room;
mod run;
mod secrets;
mod sections;
mod summary;
mod sweeper;
mod tasks;
pub mod users;
mod workplace;

pub use admission::problems;
pub use environment::Caller;
pub use journal::{BACKLOG, Journal, Replay, Stamp, replay};
pub use lock::{Holder, LockError};
pub use options::{RunCommand, RunOptions};
pub use problem::{Problem, ProblemKind, RunError};
pub use run::run;
pub use summary::{AgentSummary, RunSummary};
pub use tasks::task_list;
pub use workplace::FolderError;
