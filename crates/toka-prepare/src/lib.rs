//! The only crate that decides whether an agent may start on this host, and makes what it needs.
//!
//! [`admission`] collects everything that speaks against an agent ([`Problem`]), and what it is started with when nothing does.
//! [`confine`] says what it asks for and compiles its walls; [`environment`], [`secrets`] and [`sections`] are what it finds inside;
//! [`workplace`] makes its folders, whose places are in [`folders`]. [`trust`] knows what a person has granted, [`identity`] which
//! workspace a name is of, [`lock`] that a project runs once at a time.

pub mod admission;
mod alone;
pub mod confine;
mod declared_file;
pub mod disk_space;
mod dotenv;
mod enforceable;
pub mod environment;
pub mod folders;
pub mod furnishing;
pub mod host_figures;
mod hosts_file;
pub mod identity;
mod installation;
mod interpreter;
pub mod lock;
pub mod models;
pub mod objectives;
mod passwd;
mod preset;
pub mod problem;
pub mod remove_tree;
pub mod secrets;
pub mod sections;
pub mod sweeper;
mod tasks;
pub mod trust;
mod user_claims;
pub mod users;
pub mod workplace;

pub use admission::problems;
pub use alone::{Alone, AloneError};
pub use lock::{Holder, LockError};
pub use models::{BudgetOffer, ModelOffer, Models};
pub use preset::{about, started};
pub use problem::{Problem, ProblemKind, RunError};
pub use tasks::task_list;
pub use workplace::{FolderError, must_be_own};
