//! The only crate that forks: the keeper, a small single-threaded process that is the parent of every agent.
//!
//! It holds what must outlive the daemon: child processes and their exit statuses, control groups, the read ends of the
//! output pipes, and whatever other descriptors it is given to hold. It knows no YAML, no SQL and no HTTP. The daemon
//! talks to it through [`Keeper`], over a Unix socket that carries JSON packets with descriptors ([`protocol`]).
//!
//! ```text
//! daemon ── Keeper ══ packets + descriptors ══ server ── fork ─▶ confine ─▶ exec
//!                                                  ▲ SIGCHLD      │ step, errno, path over a pipe
//! ```
//!
//! When the daemon's side closes, the keeper stops every agent gracefully, removes their groups, and ends; or, with
//! [`Outlive::Listen`], it goes on, remembers every end until it is settled ([`Keeper::settle`]), and waits for the next daemon
//! ([`Keeper::attach`]). When such a keeper is killed itself, the handle starts another, which takes its agents over
//! ([`KeeperEvent::Succeeded`]).

mod address;
mod busy;
mod client;
mod packet;
pub mod process;
pub mod protocol;
mod server;

pub use client::{
    Attached, HostLook, Keeper, KeeperError, KeeperEvent, KeeperOptions, Kin, Outlive, SpawnError, Started,
    kill_groups,
};
pub use protocol::{
    Attach, Entry, LISTENER, Launch, NOTIFICATION, Orphan, ProcessId, StartError, State, Status,
};
pub use server::{Host, serve};
pub use toka_sandbox::Program;
