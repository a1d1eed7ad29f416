//! From trees to validated agents. One file per section; each reads what is there, reports what is wrong with
//! it, and goes on with the default, so that one slip does not hide the next.

mod agent;
mod budget;
mod checksum;
mod context;
mod dependencies;
pub(crate) mod keys;
mod lifetime;
mod logs;
mod metadata;
mod model;
mod objectives;
mod probes;
mod process;
mod quantities;
mod reporting;
mod restart;
mod schedule;
mod section;
mod security;
mod suggest;
mod tasks;
mod texts;
mod tools;

pub(crate) use agent::{Decoded, Place, Replicas, decode};
pub(crate) use budget::{approvals, budgets};
pub(crate) use context::{Context, MAX_DIAGNOSTICS};
pub(crate) use model::models;
pub use suggest::elsewhere;
pub(crate) use suggest::nearest;
