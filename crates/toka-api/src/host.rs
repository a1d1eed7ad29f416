//! The host that a daemon runs on, in figures.

use serde::{Deserialize, Serialize};

/// A host at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct HostFigures {
    /// Processors that can run something.
    pub cpus: usize,
    /// Processes that ran or wanted to, averaged over 1, 5 and 15 minutes (proc_loadavg(5)).
    pub load: [f64; 3],
    /// All memory, in bytes.
    pub memory_total: u64,
    /// Memory that programs can get without swapping, in bytes (proc_meminfo(5), `MemAvailable`).
    pub memory_available: u64,
    /// All swap space, in bytes; 0 when there is none.
    pub swap_total: u64,
    /// Swap space that is not used, in bytes.
    pub swap_free: u64,
}
