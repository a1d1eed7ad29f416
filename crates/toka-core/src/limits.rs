//! What an agent may use at most. The kernel enforces these; the sandbox says how far it can.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{ByteSize, CpuQuota, Declared, Origin};

/// Limits of one agent, each with the place that it was declared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory with swap, of all processes of the agent together.
    pub memory: Declared<ByteSize>,
    /// CPU time per second, of all processes together.
    pub cpu: Declared<CpuQuota>,
    /// Processes and threads together.
    pub processes: Declared<u32>,
    /// Open files per process.
    pub open_files: Declared<u32>,
    /// Longest life, if there is an end to it.
    pub timeout: Option<Declared<Duration>>,
    /// Bytes on disk.
    pub disk: Option<Declared<ByteSize>>,
    /// Network traffic in bytes per second.
    pub network_bandwidth: Option<Declared<ByteSize>>,
}

impl Limits {
    /// Memory when nothing is declared.
    pub const MEMORY: ByteSize = ByteSize::mib(512);
    /// CPU when nothing is declared.
    pub const CPU: CpuQuota = CpuQuota::ONE;
    /// Processes when nothing is declared.
    pub const PROCESSES: u32 = 256;
    /// Open files when nothing is declared.
    pub const OPEN_FILES: u32 = 1024;
    /// Life of a task when nothing is declared; a service has no end.
    pub const TASK_TIMEOUT: Duration = Duration::from_secs(30 * 60);

    /// Where its values come from, all of them.
    pub fn places(&mut self) -> Vec<&mut Origin> {
        let Self { memory, cpu, processes, open_files, timeout, disk, network_bandwidth } = self;
        let mut places =
            vec![&mut memory.origin, &mut cpu.origin, &mut processes.origin, &mut open_files.origin];
        places.extend(timeout.iter_mut().map(|it| &mut it.origin));
        places.extend([disk, network_bandwidth].into_iter().flatten().map(|it| &mut it.origin));
        places
    }
}

impl Default for Limits {
    fn default() -> Self {
        let what = "resource limits";
        Self {
            memory: Declared::by_default(Self::MEMORY, what),
            cpu: Declared::by_default(Self::CPU, what),
            processes: Declared::by_default(Self::PROCESSES, what),
            open_files: Declared::by_default(Self::OPEN_FILES, what),
            timeout: None,
            disk: None,
            network_bandwidth: None,
        }
    }
}
