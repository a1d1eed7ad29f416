//! The only crate that reaches outside for an agent: to models, and to hosts (`egress.rs`). An agent connects to a port of its own; what it says there is an API of a model
//! provider, with a key that is good nowhere else. The gateway asks the provider with the person's key and hands the answer on byte for
//! byte, and it knows what the call used and cost.
//!
//! ```text
//!  agent ─▶ port ─▶ server ─▶ requests: key, route, candidates ─▶ call: gate ─▶ intent (durable) ─▶ provider
//!    ▲                                                                                                │
//!    └───────────── pipe: frames unchanged, counted; receipt at the end ◀─────────────────────────────┘
//! ```
//!
//! It has one thread with a runtime of its own for the whole process: no stream, slow client or provider shares the loop of
//! supervision. What is in flight is bounded: connections and bytes of requests by agent, one frame by stream. A client that reads slowly
//! holds its provider up, not memory.

mod asker;
mod batch_run;
mod batched;
mod body;
mod call;
mod callers;
mod candidates;
mod cooldown;
mod egress;
mod gate;
mod gateway;
mod headers;
mod host_record;
mod hosts;
mod inspection;
mod joined;
mod known_secrets;
mod log;
mod outgoing;
mod patient;
mod pipe;
mod port;
mod port_end;
mod provider;
mod receipt;
mod recorder;
mod requests;
pub mod script;
mod scripted;
mod secret_alarm;
mod server;
mod shaped;
mod shared_stream;

pub use asker::{Answered, Asker, Asks};
pub use batch_run::BatchPace;
pub use batched::{LeftBatch, LeftCall};
pub use callers::Callers;
pub use cooldown::Rest;
pub use gate::Gate;
pub use gateway::{Gateway, Port, Serving};
pub use known_secrets::KnownSecrets;
pub use log::CallLog;
pub use provider::{Current, Key, Provider, Providers, Transport};
pub use recorder::Recorder;
