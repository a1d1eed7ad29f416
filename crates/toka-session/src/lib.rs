//! The only crate that keeps and drives the session of a built-in agent: an agent whose tasks stand in words alone. A model thinks about
//! them outside of the sandbox, where nothing that a tool prints can touch the loop, the transcript, the budget or an approval; what it
//! wants done is done inside: files by the runner, commands by the keeper.
//!
//! ```text
//!  runner ─ task/next ─▶ worker ─▶ driver ─▶ request ─▶ gateway ─▶ model
//!    ▲                               │  ▲                            │ text, calls of tools
//!    │ file tools                    │  └────────────────────────────┘
//!    └───────────────────────────────┤
//!  keeper ◀─ commands ───────────────┤   each call: checked ─▶ intent (durable) ─▶ done ─▶ receipt
//!                                    ▼
//!                                transcript
//! ```
//!
//! The transcript is the truth. It is a file of lines, each with the number of the line that it follows; what a model is asked is a pure
//! function of it ([`request`]), so that a session goes on after its daemon was killed.

mod clock;
mod driver;
mod feed;
mod loops;
mod model;
mod prompt;
mod replay;
pub mod request;
mod rerun;
mod shared;
mod steps;
mod summary;
mod tools;
mod transcript;
mod worker;

pub use replay::{Replayed, replay};
pub use rerun::{Deeds, deeds_of, rerun};
pub use shared::{AsksPersons, OpensModels, SessionCheck, SessionConfig};
pub use tools::{McpServer, Place, Tool, catalogue, offered, reference_markdown};
pub use transcript::{SessionFolder, Transcript, TranscriptError};
pub use worker::{SessionWorker, SteerError};
