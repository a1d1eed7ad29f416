//! The only crate that confines: namespaces, Landlock, seccomp, cgroups, rlimits.
//!
//! Three steps, each with one entry: [`HostFacts::probe`] says what the host can do, [`SandboxPlan::compile`] turns
//! what an agent declared into rules (pure, and each rule knows the line that it comes from), and [`confine`] puts a
//! forked child behind them before its first instruction and says what is in force. All `unsafe` is in [`sys`].

pub mod cgroup;
pub mod confine;
pub mod guard;
pub mod handover;
pub mod host;
pub mod init;
mod landlock;
mod links;
mod listener;
mod mounts;
pub mod namespace;
mod places;
pub mod plan;
pub mod renewal;
mod report;
pub mod repository;
mod seccomp;
mod step;
pub mod sys;
pub mod terminal;

pub use cgroup::{Cgroups, Group, OomWatch};
pub use confine::{Birth, Prepared, Preparer, Program, Seat, Streams};
pub use host::HostFacts;
pub use listener::NewListener;
pub use plan::{
    AgentFolders, Bind, CompileError, CompileInput, Execution, GroupLimits, Links, Need, PathRule, Right,
    Rule, SandboxPlan,
};
pub use report::{LANDLOCK_IN_FULL, lacking};
pub use repository::Repository;
pub use step::{PrepareError, StepError};
pub use terminal::NewTerminal;
