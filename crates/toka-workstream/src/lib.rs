//! The only crate that reads YAML: parse, validate, diagnose, describe as a schema, plan.
//!
//! [`load`] takes paths and gives a [`Set`] of validated [`Agent`]s, or every problem of every file as
//! [`Diagnostic`]s that know their code, their place and what to do about them.

mod decode;
pub mod describe;
pub mod diagnostic;
mod load;
mod model;
pub mod plan;
mod policy;
pub mod presets;
mod read;
mod replicas;
pub mod schema;
mod starter;
mod value;

pub use decode::elsewhere;
pub use diagnostic::{Code, Diagnostic, FileId, Label, Severity, Sources, Style};
pub use load::{LoadOptions, Loaded, check, documents, load, load_texts};
pub use model::{
    AfterEnd, Agent, AgentKind, Backoff, Channel, Condition, Dependency, Frequency, Hook, Hooks, HttpGet,
    HttpScheme, IfSkipped, KeptKey, Logs, MaxRestarts, McpServer, Metadata, Metric, ModelUse, Need,
    OWN_VARIABLE_HELP, Objective, OnEnd, Probe, ProbeCheck, Probes, Process, ProcessCommand, Replica,
    Reporting, Restart, RestartPolicy, Retry, Schedule, Scheme, Secret, SecretSource, Set, Start, Stop, Task,
    TcpSocket, Tty, User, Webhook, WhenExhausted, is_own_variable,
};
pub use plan::{Plan, plan};
pub use policy::{LoadedPolicy, POLICY_FILE, load_policy};
pub use presets::PresetData;
pub use starter::{STARTER, starter_of};
pub use value::load_value;
