//! The process of an agent: what is executed, where, and with which environment.

use std::collections::BTreeMap;

use serde::Serialize;
use toka_core::{Declared, Origin, Preset};

use crate::presets::PresetData;

/// `spec.process`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Process {
    /// The agent program that it is, where Toka knows it: its variables and files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    /// What is executed; absent where Toka's runner has the program of the preset work through the tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<ProcessCommand>,
    /// Where the command stands in the file, or the preset.
    pub command_origin: Origin,
    /// The working folder, relative to the workspace; `.` when absent.
    pub working_dir: Declared<String>,
    /// Variables besides the small base that every agent gets.
    pub environment: BTreeMap<String, String>,
    /// Names of variables that are passed through from the caller.
    pub environment_from: Vec<String>,
    /// Files of `NAME=value` lines, relative to the workspace; later ones win.
    pub environment_file: Vec<String>,
    /// Whose process it is.
    pub user: Declared<User>,
    /// Whether it gets a terminal.
    pub tty: Tty,
}

/// A command, with or without a shell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessCommand {
    /// A program and its arguments; at least one, the first not empty. No shell is involved.
    Argv(Vec<String>),
    /// One line for `/bin/sh -c`.
    Shell(String),
}

impl Process {
    /// The name of the program that it starts, as it is looked for; none where a shell starts it.
    pub fn program(&self) -> Option<&str> {
        match &self.command {
            Some(ProcessCommand::Argv(argv)) => argv.first().map(String::as_str),
            Some(ProcessCommand::Shell(_)) => None,
            None => Some(&PresetData::of(self.preset?).program),
        }
    }
}

/// Whose process an agent is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum User {
    /// The user who invoked Toka.
    #[default]
    Invoking,
    /// A user id that exists only while the agent runs; needs root.
    Dynamic,
    /// A user of the host; needs root.
    Named(String),
}

/// Whether an agent gets a terminal of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tty {
    /// Its output goes to pipes.
    #[default]
    Pipes,
    /// It gets a pseudo-terminal.
    Pseudo,
}

/// Whether a variable tells an agent about itself, and is set by Toka whatever is declared. The folder of its file may be
/// declared to be another.
pub fn is_own_variable(name: &str) -> bool {
    name.starts_with("TOKA_") && name != "TOKA_WORKSTREAM_DIR"
}

/// What to do about a declared variable that Toka sets itself.
pub const OWN_VARIABLE_HELP: &str =
    "names that begin with TOKA_ tell an agent who it is; give the variable another name";
