//! The control socket: HTTP over a Unix socket that only its owner can reach, for whoever wants to see what runs and to do
//! something about it.
//!
//! ```text
//! GET  /v1/daemon                                who answers
//! GET  /v1/projects                              every project with its agents
//! GET  /v1/projects/P                            one
//! GET  /v1/projects/P/agents/A                   an agent, with what it uses at the moment
//! GET  /v1/projects/P/resources[?agents=A,B]     what these agents, or all of them, use at the moment
//! GET  /v1/projects/P/agents/A/attach[?columns=N&rows=N]  a WebSocket: its terminal
//! GET  /v1/projects/P/agents/A/exec              a WebSocket: runs a command beside it
//! POST /v1/projects/P/command[?wait_ms=N]        a Command
//! POST /v1/projects/P/apply[?dry_run=true]       a Declaration
//! GET  /v1/projects/P/events[?since=SEQ&follow]  its events, one a line
//! POST /v1/shutdown                              stop everything and end (a service only)
//! POST /v1/upgrade                               become the program that is installed now (a service only)
//! GET  /v1/health                                how well the daemon and every agent is
//! GET  /livez, /readyz[?format=json]             whether the daemon is there, and whether it can do its work
//! GET  /metrics                                  the same in figures, as OpenMetrics
//! ```
//!
//! A foreground run answers at `<run>/<project>/control.sock`, a service at `<run>/daemon.sock`. Who calls is decided by the
//! kernel: the same user or root, and no process of an agent, whatever its user.

mod checks;
mod error;
mod listener;
mod openmetrics;
mod peer;
mod rebinding_listener;
mod routes;
mod server;
mod stream;

pub use listener::Control;
pub(crate) use server::Server;
pub use server::{OPERATOR, Projects, Role, ServiceOrder};

/// Longest declaration, in bytes.
const MAX_DECLARATION: usize = 64 * 1024 * 1024;
/// Longest command, in bytes.
const MAX_COMMAND: usize = 1024 * 1024;
