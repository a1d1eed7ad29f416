//! `toka __agent exec FILES PROGRAM ARGUMENT…`: writes the files that an agent program looks for in its HOME, and becomes that program.
//!
//! It runs inside the sandbox, as the agent's user: what it writes, the agent could write itself.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use toka_core::HomeFile;
use toka_core::error::with_causes;

use crate::worker::write_files;

/// Writes `FILES`, a JSON list of [`HomeFile`], and executes the program, whose first argument is its name. It returns when one of them
/// failed: 70 when the files could not be written, else 126 or 127, as a shell would.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.collect();
    let [files, program, argv @ ..] = arguments.as_slice() else { return failed(70, "too few arguments") };
    let files: Result<Vec<HomeFile>, _> = serde_json::from_slice(files.as_encoded_bytes());
    let written = match files {
        Ok(files) => write_files(&files).map_err(|error| with_causes(&error)),
        Err(error) => Err(error.to_string()),
    };
    if let Err(why) = written {
        return failed(70, &format!("cannot write what the program looks for in its HOME: {why}"));
    }
    let mut command = Command::new(program);
    if let [name, rest @ ..] = argv {
        command.arg0(name).args(rest);
    }
    let error = command.exec();
    let code = if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
    failed(code, &format!("cannot execute {}: {error}", program.display()))
}

fn failed(code: u8, why: &str) -> ExitCode {
    eprintln!("toka: {why}");
    ExitCode::from(code)
}
