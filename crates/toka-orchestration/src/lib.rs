//! Decides what runs next. Everything here is a pure function of the [`Plan`](toka_workstream::Plan) and of what has
//! happened so far: no clock, no process, no channel, so that any run can be replayed and every decision tested.
//!
//! Whoever owns the run tells a [`RunState`] what happens ([`RunState::apply`], [`RunState::learn`], or
//! [`RunState::observe`] for events as the journal has them), asks [`next_actions`] what to do, does it, and tells
//! that too. Asking twice gives the same answer twice: an action is gone from it once its happening was applied.
//!
//! The rules:
//!
//! - An agent starts when all its gates are open. A gate stays open once its condition was met, whatever becomes of
//!   the dependency afterwards.
//! - An optional gate also opens when the dependency has ended, or never will start.
//! - A required gate that cannot open any more blocks its agent, and through it all that require that agent; each of
//!   them names the agent that began it.
//! - Among agents that may start, the more urgent go first, then those of earlier waves, then by name.
//! - At most [`Limits::max_concurrent`] run at once. Counted are tasks from their start to their end, paused ones
//!   too, and services only while they start: a service is there for others, and must not keep them from running.
//! - A run in the foreground ends when all its purposes have ended: its tasks, the services that no task waits for, and
//!   the agents that the clock starts. What serves others is stopped then, and what has not started is cancelled. One that
//!   a person starts is a purpose from then on.
//! - An agent of which nothing is enabled is skipped; who requires it is blocked, skipped or started, as it says.
//! - Whatever ends the run, an agent is stopped only when nothing that depends on it is alive any more.

mod exit_code;
mod next;
mod state;

pub use exit_code::exit_code;
pub use next::{Action, Limits, next_actions};
pub use state::{ApplyError, Fact, Lifetime, RunState};
