//! The only crate that owns an agent's life: lifecycle, output, progress.
//!
//! [`Runtime::add`] makes one actor per agent: a task that alone changes the agent's state, and is woken by requests,
//! by the keeper, by what comes through the agent's door, and by the deadlines that it set itself; never by a clock
//! that ticks. What happens goes to an [`EventSink`], and an event that changes state is durable there before the
//! actor acts on it. The crate knows no YAML, SQL, HTTP API or models: what to start is a [`Launch`].

mod actor;
mod admission;
mod adopted;
mod beside;
mod clock;
mod coalesce;
mod countdown;
mod disk;
pub mod door;
mod exec;
mod exit_reason;
mod kernel_records;
mod launch;
mod order;
mod peers;
mod port;
mod probe;
mod processes;
pub mod program;
mod runtime;
mod sink;
mod socket_diag;
mod terminal;
#[cfg(test)]
mod test_support;
pub mod turns;
mod walls;
mod work;

pub use admission::{Admission, Entry, Turn};
pub use adopted::{Adopted, AdoptedProcess, AdoptedTask, Said};
pub use disk::{DiskGauge, DiskLimit};
pub use exec::{Execution, Output, Streams};
pub use exit_reason::exit_reason;
pub use launch::{Adjustment, Command, Hooks, Launch, Profile, StopPolicy};
pub use order::Restarts;
pub use peers::KnowsPeers;
pub use port::ServesPort;
pub use processes::Processes;
pub use runtime::{AgentHandle, Runtime};
pub use sink::{Durable, EventSink};
pub use terminal::{Terminal, View, ViewEnd};
pub use walls::DeclaredWalls;
pub use work::{Attempt, RunningCommand, RunsCommands, Sent, Work, WorksOnTasks};
