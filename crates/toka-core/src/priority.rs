//! How urgent an agent or a task is: it orders starts and sets the CPU weight (ledger T4).

use serde::{Deserialize, Serialize};

/// Most urgent first, so that sorting ascending starts the urgent ones first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Before everything else.
    Critical,
    /// Before the ordinary.
    High,
    /// The ordinary.
    #[default]
    Medium,
    /// When nothing else is waiting.
    Low,
}

impl Priority {
    /// All of them, most urgent first.
    pub const ALL: [Self; 4] = [Self::Critical, Self::High, Self::Medium, Self::Low];

    /// Weight of the cgroup v2 file `cpu.weight`, 1–10,000 with 100 as the kernel's default
    /// (Linux, `Documentation/admin-guide/cgroup-v2.rst`).
    pub fn cpu_weight(self) -> u32 {
        match self {
            Self::Critical => 400,
            Self::High => 200,
            Self::Medium => 100,
            Self::Low => 50,
        }
    }

    /// The word used in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::High => "high",
            Self::Medium => "medium",
            Self::Low => "low",
        }
    }
}
