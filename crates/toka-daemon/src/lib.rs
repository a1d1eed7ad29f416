//! The only crate that wires everything together: from a planned set of workstreams to supervised agents, their journal
//! and their folders.
//!
//! A [`Project`] is one run of one [`Declaration`]. Before anything starts, [`Project::open`] finds everything that would
//! keep any agent from running ([`Problem`]), takes the project's lock, and makes the folders. [`Project::drive`] then does
//! what [`toka_orchestration::next_actions`] says, one event of the journal after the other, and what others ask for
//! through its [`ProjectHandle`], until nothing is left to do.

mod admission;
mod alarm;
mod alone;
pub mod confine;
pub mod control;
mod declaration;
mod declared_file;
pub mod doctor;
mod dotenv;
mod enforceable;
mod environment;
mod exam;
pub mod folders;
pub mod gc;
pub mod history;
pub mod identity;
mod journal;
mod lock;
pub mod logs;
mod objectives;
mod options;
mod passwd;
mod problem;
mod project;
mod reporting;
mod room;
mod secrets;
mod sections;
mod service;
mod stray_groups;
mod summary;
mod sweeper;
mod tasks;
mod tree;
pub mod trust;
mod user_claims;
pub mod users;
mod workplace;

pub use admission::problems;
pub use alone::{Alone, AloneError};
pub use declaration::{Declaration, Parsed, SourceFile, StopRules, Unparsed};
pub use environment::Caller;
pub use journal::{BACKLOG, Journal, Stamp};
pub use lock::{Holder, LockError};
pub use options::RunOptions;
pub use problem::{Problem, ProblemKind, RunError};
pub use project::{
    AdoptOptions, ApplyError, Changes, CommandError, Earnest, Facts, Figures, Gone, Opened, Overview,
    Project, ProjectHandle, being_ended, end_unattended, unfinished,
};
pub use service::{EndRequest, Ended, Service, ServiceOptions};
pub use summary::RunSummary;
pub use tasks::task_list;
pub use toka_orchestration::Lifetime;
pub use workplace::{FolderError, must_be_own};
