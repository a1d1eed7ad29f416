//! What became of a run.

use std::path::PathBuf;

use toka_core::event::Usage;
use toka_core::{AgentName, AgentState, Enforcement, ExitCode, RunId};

/// A run that has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct RunSummary {
    /// The exit status that it deserves.
    pub exit_code: ExitCode,
    /// The exit status of the command: that of the agent which `--exit-code-from` names, else the one above.
    pub status: u8,
    /// The run.
    pub run: RunId,
    /// Its agents, in the order of the plan.
    pub agents: Vec<AgentSummary>,
}

/// What became of an agent.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentSummary {
    /// Its name.
    pub name: AgentName,
    /// Its title, free text.
    pub title: String,
    /// `Ended`, `Quarantined` or `Blocked`.
    pub state: AgentState,
    /// Its life in milliseconds; 0 when it never started.
    pub duration_ms: u64,
    /// What it used.
    pub usage: Usage,
    /// What confined it; nothing when it never ran.
    pub enforcement: Enforcement,
    /// Its output.
    pub log: PathBuf,
    /// What it left.
    pub artifacts: PathBuf,
}
