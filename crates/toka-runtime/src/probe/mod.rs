//! Probes: whether an agent has come up, can be used, and still works, with the meaning that Kubernetes gives them.
//!
//! A [`Prober`] lives as long as a life of its agent. It asks what the agent declared, at the agent's own pace, and tells
//! the actor only when something follows from an answer:
//!
//! ```text
//! answer ─▶ Judge: so many in a row? ─▶ Change ─▶ ProbeNote ─▶ actor
//! ```
//!
//! [`judge`] decides, [`crate::clock`] is the time that stands still while the agent is paused, [`ask`] goes over the network,
//! [`prober`] puts them together.

mod ask;
mod judge;
mod prober;
#[cfg(test)]
mod prober_tests;

pub(crate) use prober::{ExecCheck, ProbeNote, Prober};
pub(crate) use toka_http::{MakesSockets, NetworkReach};
