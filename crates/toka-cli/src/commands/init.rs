//! `toka init`: a small, valid, commented workstream to start from, or one for a program that people use already, and the schema by which an
//! editor completes and checks it. Nothing is overwritten unless `--force` says so.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::builder::PossibleValuesParser;
use serde_json::json;
use toka_core::{ExitCode, Preset};
use toka_workstream::schema::{Draft, to_text};
use toka_workstream::{STARTER, starter_of};

/// Where the workstream goes when nobody says.
const DEFAULT_FOLDER: &str = "agents";
/// What a workstream is called when no program is named: it needs no model.
const HELLO: &str = "hello";
/// The name of the schema, which the first line of the workstream names.
const SCHEMA: &str = "workstream.schema.json";

use toka_terminal::failure::Failure;
use toka_terminal::out;

/// Options of `toka init`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The folder to write into; it is made if it is not there
    #[arg(value_name = "DIR", default_value = DEFAULT_FOLDER)]
    folder: PathBuf,
    /// A workstream for a program that you use already, which gets no key of yours
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(Preset::ALL.map(Preset::name)))]
    agent: Option<String>,
    /// Replace a file that is there already
    #[arg(long)]
    force: bool,
    /// Print what was written as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let existing = if args.force { Existing::Replace } else { Existing::Keep };
    let named = |name: &String| Preset::ALL.into_iter().find(|preset| preset.name() == name);
    let path = write(&args.folder, args.agent.as_ref().and_then(named), existing)?;
    let schema = write_schema(&args.folder, existing)?;
    let text = if args.json {
        json!({"written": [path, schema]}).to_string() + "\n"
    } else {
        // Where they look by themselves, other YAML may lie beside it.
        let by_itself =
            [".", "./", "agents", "agents/", "./agents"].map(Path::new).contains(&args.folder.as_path());
        let folder = if by_itself { String::new() } else { format!(" {}", args.folder.display()) };
        let (grant, more) = match args.agent {
            Some(_) => (" --allow model-access", "what models there are:  toka models\n"),
            None => ("", ""),
        };
        format!(
            "wrote {}, and the schema beside it for your editor\n\ncheck it:  toka validate{folder}\nrun it:    toka run{grant}{folder}\n{more}",
            path.display()
        )
    };
    Ok(out::end(&text, ExitCode::Success)?)
}

/// What becomes of a file that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Existing {
    Keep,
    Replace,
}

/// Writes the starter into a folder, which is made if need be.
fn write(folder: &Path, preset: Option<Preset>, existing: Existing) -> anyhow::Result<PathBuf> {
    let name = preset.map_or(HELLO, Preset::name);
    let text = preset.map_or_else(|| STARTER.to_owned(), starter_of);
    fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let path = folder.join(name).with_extension("yaml");
    match put(&path, &text, existing) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let message = format!("{} is there already, and was left as it is", path.display());
            let help = "name another folder (`toka init DIR`), or replace the file with --force";
            Err(Failure::new(ExitCode::Usage, message).help(help).into())
        }
        written => written.map(|()| path.clone()).with_context(|| format!("cannot write {}", path.display())),
    }
}

/// Writes the schema; one that is there already stays unless it is to be replaced.
fn write_schema(folder: &Path, existing: Existing) -> anyhow::Result<PathBuf> {
    let path = folder.join(SCHEMA);
    match put(&path, &to_text(Draft::Draft07), existing) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(path),
        written => written.map(|()| path.clone()).with_context(|| format!("cannot write {}", path.display())),
    }
}

fn put(path: &Path, text: &str, existing: Existing) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    match existing {
        Existing::Keep => options.write(true).create_new(true),
        Existing::Replace => options.write(true).create(true).truncate(true),
    };
    options.open(path)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_valid_and_overwrites_nothing_unasked() {
        let folder = tempfile::tempdir().expect("a folder");
        let agents = folder.path().join("agents");
        let path = write(&agents, None, Existing::Keep).expect("written");
        let loaded =
            toka_workstream::check(std::slice::from_ref(&agents), &toka_workstream::LoadOptions::default());
        assert!(loaded.diagnostics.is_empty(), "{:?}", loaded.diagnostics);
        let set = loaded.set.expect("valid");
        assert!(set.agents.iter().all(|agent| agent.needs_model().next().is_none()));
        fs::write(&path, "mine").expect("written");
        let refused = write(&agents, None, Existing::Keep).expect_err("it is there already");
        assert!(toka_terminal::failure::data(&refused).0[0]["help"].to_string().contains("--force"));
        assert_eq!(fs::read_to_string(&path).expect("read"), "mine");
        write(&agents, None, Existing::Replace).expect("written");
        let text = fs::read_to_string(&path).expect("read");
        assert_eq!(text, STARTER);
        assert!(text.starts_with(&format!("# yaml-language-server: $schema={SCHEMA}\n")));
        let schema = write_schema(&agents, Existing::Keep).expect("written");
        assert!(fs::read_to_string(&schema).expect("read").contains("draft-07"));
        fs::write(&schema, "mine").expect("written");
        write_schema(&agents, Existing::Keep).expect("kept");
        assert_eq!(fs::read_to_string(&schema).expect("read"), "mine");
    }
}
