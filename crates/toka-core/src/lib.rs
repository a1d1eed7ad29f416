//! The vocabulary of Toka: what things are called, what they may be, and how they change.
//!
//! Every other crate speaks in these types. The crate does no I/O, reads no clock, draws no random
//! number and knows no async runtime, so that each decision in it is a pure function with tests.

pub mod capability;
pub mod command;
pub mod confinement;
pub mod demand;
pub mod enforcement;
pub mod error;
pub mod escape;
pub mod event;
pub mod exit;
pub mod exit_code;
pub mod health;
pub mod kind;
pub mod limits;
pub mod logs;
pub mod name;
pub mod network;
pub mod origin;
pub mod pressure;
pub mod priority;
pub mod probe;
pub mod progress;
pub mod request;
pub mod resources;
pub mod restart;
pub mod rpc;
pub mod schedule;
pub mod select;
pub mod sniff;
pub mod state;
pub mod status;
pub mod terminal;
pub mod units;
pub mod unmet;
pub mod watchdog;

pub use capability::Capability;
pub use command::{Answer, Answers, Command, Urgency};
pub use confinement::{Compatibility, Confinement, SandboxMode};
pub use enforcement::{Coverage, Enforcement, Layer, LayerReport};
pub use event::{Event, EventKind, PlantedOutcome, ProtectionOutcome};
pub use exit::{END_OF_RUN, Exit, SuccessStatus};
pub use exit_code::ExitCode;
pub use health::{HealthReport, Verdict};
pub use kind::AgentKind;
pub use limits::Limits;
pub use logs::{Compression, LogPolicy, WhenFull};
pub use name::{AgentName, Name, ProjectName, RunId};
pub use network::NetworkAccess;
pub use origin::{Declared, Origin};
pub use pressure::{Hold, PressureLimits, Scarce};
pub use priority::Priority;
pub use probe::{Probe, ProbeCheck, Probes};
pub use progress::Progress;
pub use request::{Decision, Request};
pub use resources::{Pressure, Resources};
pub use restart::{Backoff, Restart, RestartPolicy};
pub use schedule::{CatchUp, Overlap};
pub use select::{AgentPattern, Unmatched};
pub use state::AgentState;
pub use status::{AgentStatus, RunStatus};
pub use terminal::TerminalSize;
pub use units::{ByteSize, CpuQuota};
pub use unmet::Unmet;
pub use watchdog::{Finding, Signs, Silence, Stage, Watchdog};
