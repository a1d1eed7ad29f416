//! Why a start failed: the step on the way to the first instruction, and what the kernel said.

use std::path::Path;
use std::{fmt, io};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::mounts::MountError;

/// A step on the way to the first instruction that failed.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub struct StepError {
    /// The step and what it tried: `mounts: attach`.
    pub step: String,
    /// The path, if it was about one.
    pub path: Option<String>,
    /// The error number (errno(3)); 0 when the kernel was not asked.
    pub errno: i32,
    /// The error in words.
    pub reason: String,
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) if !path.is_empty() => write!(f, "{} {path}: {}", self.step, self.reason),
            _ => write!(f, "{}: {}", self.step, self.reason),
        }
    }
}

impl StepError {
    /// A step that failed with an error of the system.
    pub fn new(step: impl Into<String>, path: Option<&Path>, error: &io::Error) -> Self {
        let reason = error.to_string();
        Self {
            step: step.into(),
            path: path.map(|path| path.display().to_string()),
            errno: error.raw_os_error().unwrap_or(0),
            reason: reason.split(" (os error").next().unwrap_or(&reason).to_owned(),
        }
    }
}

impl From<MountError> for StepError {
    fn from(error: MountError) -> Self {
        Self::new(format!("mounts: {}", error.operation), Some(Path::new(&error.path)), &error.source)
    }
}

/// Why a start was not prepared.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum PrepareError {
    /// The plan demands a layer that this host cannot enforce.
    #[error("this host cannot enforce {0}")]
    Refused(String),
    /// A step failed.
    #[error(transparent)]
    Step(#[from] StepError),
}
