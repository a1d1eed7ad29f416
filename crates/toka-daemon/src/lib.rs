//! The only crate that wires everything together: from a planned set of workstreams to supervised agents, their journal
//! and their folders.
//!
//! A [`Project`] is one run of one [`toka_api::declaration::Declaration`]. Before anything starts, [`Project::open`] finds everything that would
//! keep any agent from running ([`toka_prepare::Problem`]), takes the project's lock, and makes the folders. [`Project::drive`] then does
//! what [`toka_orchestration::next_actions`] says, one event of the journal after the other, and what others ask for
//! through its [`ProjectHandle`], until nothing is left to do.

mod alarm;
pub mod control;
mod exam;
pub mod gc;
pub mod history;
mod journal;
pub mod logs;
mod options;
mod project;
mod reporting;
mod service;
mod stray_groups;
mod summary;

pub use journal::{BACKLOG, Journal, Stamp};
pub use options::RunOptions;
pub use project::{
    AdoptOptions, ApplyError, CommandError, Earnest, Facts, Figures, Gone, Opened, Project, ProjectHandle,
    being_ended, end_unattended, kill_groups_of, left_behind, obstacle, unfinished,
};
pub use service::{EndRequest, Ended, Service, ServiceOptions};
pub use summary::RunSummary;
pub use toka_orchestration::Lifetime;
