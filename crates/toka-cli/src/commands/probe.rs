//! `toka __probe ACT`: the program that `toka doctor` confines, which tries what it is told and reports what it met.

use std::process::ExitCode;

/// Becomes the probe; returns when it has tried everything.
pub(crate) fn run() -> ExitCode {
    toka_doctor::probe::main()
}
