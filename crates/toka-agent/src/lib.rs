//! The only crate that runs inside the sandbox: the client of the agent's door, and the runner that works through an
//! agent's tasks.
//!
//! It knows nothing of the host, the daemon or YAML; all it has is the socket that `TOKA_SOCKET` names and the language
//! of [`toka_core::rpc`]. Code here is as confined as the agent itself, so nothing in it is trusted by the daemon.

mod attempt;
pub mod client;
pub mod exec;
mod hands;
mod model_work;
mod program_events;
pub mod runner;
mod stopwatch;
mod wake;
mod worker;

pub use client::{Client, ClientError};
