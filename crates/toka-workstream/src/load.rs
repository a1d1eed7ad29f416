//! The way from paths to validated agents. Nothing stops at the first problem: every problem of every file is reported.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::diagnostic::{Diagnostic, Sources};
use crate::model::Set;

/// What to make of the files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// Groups of `tasks.conditional` that are switched on.
    pub enable: BTreeSet<String>,
}

/// What became of the files.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The agents; `None` when there is any error.
    pub set: Option<Set>,
    /// Everything that was found, in the order of the files.
    pub diagnostics: Vec<Diagnostic>,
    /// The texts that the diagnostics point into.
    pub sources: Sources,
}

/// Reads files and folders (their `*.yaml` and `*.yml`, not recursively), checks everything, and never panics.
pub fn load(paths: &[PathBuf], options: &LoadOptions) -> Loaded {
    let _ = (paths, options);
    Loaded { set: None, diagnostics: Vec::new(), sources: Sources::default() }
}
