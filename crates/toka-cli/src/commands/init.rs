//! `toka init`: a small, valid, commented workstream to start from. It needs no model, and nothing is ever overwritten.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::json;
use toka_core::ExitCode;

/// Where the workstream goes when nobody says.
const DEFAULT_FOLDER: &str = "agents";
/// The name of the file.
const FILE: &str = "hello.yaml";

use crate::failure::Failure;
use crate::terminal::out;

/// Options of `toka init`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The folder to write into; it is made if it is not there
    #[arg(value_name = "DIR", default_value = DEFAULT_FOLDER)]
    folder: PathBuf,
    /// Print what was written as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let path = write(&args.folder)?;
    let text = if args.json {
        json!({"written": [path]}).to_string() + "\n"
    } else {
        format!(
            "wrote {}\n\ncheck it:  toka validate {folder}\nrun it:    toka run {folder}\n",
            path.display(),
            folder = args.folder.display()
        )
    };
    Ok(out::end(&text, ExitCode::Success)?)
}

/// Writes the starter into a folder, which is made if need be.
fn write(folder: &Path) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let path = folder.join(FILE);
    match OpenOptions::new().write(true).create_new(true).open(&path) {
        Ok(mut file) => {
            file.write_all(toka_workstream::STARTER.as_bytes())
                .with_context(|| format!("cannot write {}", path.display()))?;
            Ok(path)
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let message = format!("{} is there already, and was left as it is", path.display());
            Err(Failure::new(ExitCode::Usage, message).help("name another folder").into())
        }
        Err(error) => Err(error).with_context(|| format!("cannot write {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_valid_and_never_overwritten() {
        let folder = tempfile::tempdir().expect("a folder");
        let agents = folder.path().join("agents");
        let path = write(&agents).expect("written");
        let loaded =
            toka_workstream::check(std::slice::from_ref(&agents), &toka_workstream::LoadOptions::default());
        assert!(loaded.diagnostics.is_empty(), "{:?}", loaded.diagnostics);
        let set = loaded.set.expect("valid");
        assert!(set.agents.iter().all(|agent| agent.needs_model().next().is_none()));
        fs::write(&path, "mine").expect("written");
        assert!(write(&agents).is_err());
        assert_eq!(fs::read_to_string(&path).expect("read"), "mine");
    }
}
