//! `toka record`: runs workstreams as `toka run` does, and makes a script of what models said.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use toka_core::ExitCode;
use toka_files::Directory;
use toka_gateway::Gateway;
use toka_terminal::failure::Failure;
use toka_terminal::text::count;

use super::run;

/// Options of `toka record`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "An agent with `spec.model: {script: FILE}` gets the same answers again, without a model and without a key. The file holds what models said, \
    and the words by which a conversation is known again: look at it before you give it to others."
)]
#[group(skip)]
pub(crate) struct Args {
    /// The script; a file that is there already stays as it is
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    run: run::Args,
}

/// Runs the workstreams and writes the script, also when an agent failed.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    if !args.run.is_in_foreground() {
        let message = "what is recorded is written at the end of a run in the foreground: not with --detach or --dry-run";
        return Err(Failure::new(ExitCode::Usage, message).into());
    }
    let shown = args.file.display();
    // Before anything is paid for, and before an agent could put something else on the way to it.
    let mut script = ScriptFile::make(&args.file)?;
    let recorder = Gateway::of_this_process().map_err(anyhow::Error::msg)?.record();
    let outcome = run::run(args.run);
    let (conversations, answers, lost) = recorder.count();
    if answers == 0 {
        eprintln!("no model answered, so that {shown} was not written");
        script.remove();
        return outcome;
    }
    script.file.write_all(recorder.script().as_bytes()).with_context(|| format!("cannot write {shown}"))?;
    eprintln!(
        "recorded {} of {} in {shown}; `spec.model: {{script: {shown}}}` gives them again",
        count(answers, "answer"),
        count(conversations, "conversation")
    );
    if lost > 0 {
        eprintln!(
            "{} could not be kept: the same was asked before, and answered otherwise",
            count(lost, "answer")
        );
    }
    outcome
}

/// The file of a script, held with the folder that it was made in: agents that run meanwhile may move both about, and nothing else is written
/// or removed in their place.
struct ScriptFile {
    folder: Directory,
    name: OsString,
    file: File,
}

impl ScriptFile {
    fn make(path: &Path) -> Result<Self, Failure> {
        let shown = path.display();
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = path.file_name().unwrap_or(OsStr::new("")).to_owned();
        let made = Directory::open(parent).and_then(|folder| {
            let file = folder.new_private_file(&name)?;
            Ok((folder, file))
        });
        match made {
            Ok((folder, file)) => Ok(Self { folder, name, file }),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let message = format!("{shown} is there already, and was left as it is");
                Err(Failure::new(ExitCode::Usage, message).help("name another file, or remove it first"))
            }
            Err(error) => Err(Failure::new(ExitCode::Usage, format!("cannot make {shown}: {error}"))
                .help("name a file in a folder that is there, and that you may write")),
        }
    }

    /// Removes the file, if it is still where it was made.
    fn remove(self) {
        // An empty file that stays does no harm.
        let _ = self.folder.remove_file(&self.name, &self.file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_agent_puts_in_its_place_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let (place, other) = (folder.path().join("w"), folder.path().join("elsewhere"));
        for made in [&place, &other] {
            std::fs::create_dir(made).expect("room");
        }
        let path = place.join("a.script");
        let script = ScriptFile::make(&path).expect("a file");
        assert!(ScriptFile::make(&path).is_err(), "it is there already");
        // The folder is moved away, and its name leads to another one with a file of that name.
        std::fs::write(other.join("a.script"), "a person's").expect("room");
        std::fs::rename(&place, folder.path().join("moved")).expect("ours");
        std::os::unix::fs::symlink(&other, &place).expect("a link");
        script.remove();
        assert_eq!(std::fs::read_to_string(other.join("a.script")).expect("there"), "a person's");
        assert!(!folder.path().join("moved/a.script").exists());
        let replaced = ScriptFile::make(&other.join("b.script")).expect("a file");
        std::fs::remove_file(other.join("b.script")).expect("there");
        std::fs::write(other.join("b.script"), "another").expect("room");
        replaced.remove();
        assert!(other.join("b.script").exists(), "it is another file");
    }
}
