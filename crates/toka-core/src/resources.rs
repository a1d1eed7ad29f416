//! What an agent uses at the moment and may use at most, as its control groups tell; absent where they do not.

use serde::{Deserialize, Serialize};

/// Figures of all processes of an agent together, at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Memory held now, in bytes, with the page cache that is charged to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_current: Option<u64>,
    /// Most memory held at once, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_peak: Option<u64>,
    /// Most memory allowed, in bytes; absent too when there is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit: Option<u64>,
    /// CPU time so far, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_us: Option<u64>,
    /// Time in which it could have run and its CPU quota held it back, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttled_us: Option<u64>,
    /// Processes and their threads, as the limit counts them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
    /// Most of these allowed; absent too when there is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes_limit: Option<u64>,
    /// Bytes read from storage. Where they come from the processes instead of a group, those of a process that ended
    /// without its parent waiting for it are missing again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_read_bytes: Option<u64>,
    /// Bytes written to storage, with the same restriction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_written_bytes: Option<u64>,
    /// How much it waits for what it has not.
    pub pressure: Pressure,
    /// How often the out-of-memory killer struck.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_kills: Option<u64>,
    /// Storage that HOME, /tmp and the artifacts hold, in bytes; of agents with a limit on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_used: Option<u64>,
    /// Most of it allowed, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_limit: Option<u64>,
}

impl Resources {
    /// Bytes read and written, if both are known.
    pub fn io_bytes(&self) -> Option<u64> {
        Some(self.io_read_bytes?.saturating_add(self.io_written_bytes?))
    }
}

/// Share of the last ten seconds in which at least one process waited, in percent: `some avg10` of
/// <https://docs.kernel.org/accounting/psi.html>.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pressure {
    /// For a CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<f64>,
    /// For memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<f64>,
    /// For I/O.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_is_not_written_and_what_is_not_written_is_unknown() {
        let known = Resources { cpu_us: Some(7), ..Resources::default() };
        let text = serde_json::to_string(&known).expect("it can be written");
        assert_eq!(text, r#"{"cpu_us":7,"pressure":{}}"#);
        assert_eq!(serde_json::from_str::<Resources>(&text).expect("it can be read"), known);
        assert_eq!(serde_json::from_str::<Resources>("{}").expect("it can be read"), Resources::default());
    }

    #[test]
    fn a_sum_of_half_a_figure_is_none() {
        let half = Resources { io_read_bytes: Some(1), ..Resources::default() };
        assert_eq!(half.io_bytes(), None);
        assert_eq!(Resources { io_written_bytes: Some(2), ..half }.io_bytes(), Some(3));
    }
}
