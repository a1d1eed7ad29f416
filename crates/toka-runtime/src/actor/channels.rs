//! The log and the sockets of an agent, which are there when its first instruction runs.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use toka_keeper::ProcessId;
use toka_logs::{LogPlace, LogWriter};

use crate::Processes;
use crate::door::{Door, Gate};

/// Where an agent is heard from: its log, and the folder of its sockets.
pub(super) struct Channels<P> {
    pub(super) processes: P,
    pub(super) id: ProcessId,
    pub(super) log: LogPlace,
    pub(super) door: PathBuf,
}

/// What must be there when the first instruction of an agent runs.
pub(super) struct Opened {
    pub(super) writer: LogWriter,
    pub(super) door: Door,
}

impl<P: Processes> Channels<P> {
    pub(super) fn open(&self) -> Result<Opened, String> {
        let Self { processes, id, log, door: folder } = self;
        let writer =
            LogWriter::open(log).map_err(|error| format!("create {}: {error}", log.path().display()))?;
        let door = folder
            .metadata()
            .map(|metadata| Gate::new(processes.clone(), *id, metadata.uid()))
            .and_then(|gate| Door::open(folder, gate))
            .map_err(|error| format!("make the sockets in {}: {error}", folder.display()))?;
        Ok(Opened { writer, door })
    }
}
