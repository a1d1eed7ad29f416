//! Validated workstreams: what a file means once everything in it has been checked and every default filled
//! in.
//!
//! One file per section. Nothing here can be built from a file but by [`crate::load`], which reports all that
//! is wrong instead; the rest of Toka never sees an unchecked value.

mod agent;
mod channel;
mod dependency;
mod lifetime;
mod logs;
mod mcp;
mod model_use;
mod objective;
mod places;
mod process;
mod reporting;
mod schedule;
mod secret;
mod stop;
mod task;

pub use agent::{Agent, AgentKind, KeptKey, Metadata, Replica, Set};
pub use channel::{Channel, Scheme, Webhook};
pub use dependency::{Condition, Dependency, IfSkipped, Need};
pub use lifetime::{AfterEnd, OnEnd, Start};
pub use logs::Logs;
pub use mcp::McpServer;
pub use model_use::ModelUse;
pub use objective::Objective;
pub use process::{OWN_VARIABLE_HELP, Process, ProcessCommand, Tty, User, is_own_variable};
pub use reporting::{Frequency, Metric, Reporting};
pub use schedule::Schedule;
pub use secret::{Secret, SecretSource};
pub use stop::{Hook, Hooks, Stop};
pub use task::{Retry, Task};
pub use toka_core::probe::{HttpGet, HttpScheme, Probe, ProbeCheck, Probes, TcpSocket};
pub use toka_core::restart::{Backoff, MaxRestarts, Restart, RestartPolicy, WhenExhausted};
