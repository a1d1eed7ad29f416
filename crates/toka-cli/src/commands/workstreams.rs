//! Which workstreams a command is about: the paths that were given, or what lies in the current folder; and the way
//! from there to agents, with every problem told on stderr.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;
use toka_api::declaration::SourceFile;
use toka_core::sniff::{SNIFF_BYTES, looks_like_a_workstream};
use toka_core::{AgentPattern, ExitCode, ModelName};
use toka_workstream::{Agent, Diagnostic, LoadOptions, Loaded, Plan, Set, Severity, Sources, Start, Style};

use toka_terminal::failure::Failure;
use toka_terminal::palette::Palette;
use toka_terminal::text::count;

/// The folder that is looked into when no path is given.
const DEFAULT_FOLDER: &str = "agents";

/// The options that choose workstreams.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Selection {
    /// Workstream files, or folders of them [default: agents/, or the workstreams in the current folder]
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Switch on a group of conditional tasks; may be given several times
    #[arg(long = "enable", value_name = "GROUP")]
    enable: Vec<String>,
    /// Ask this model, such as anthropic/claude-sonnet-4-5, in the place of those that agents name, and of their scripts
    #[arg(long = "model", value_name = "NAME", value_parser = model)]
    model: Option<ModelName>,
}

fn model(text: &str) -> Result<ModelName, String> {
    match text.trim() {
        "" => Err("a name is provider/model, or model".to_owned()),
        text if text.chars().any(|c| c.is_control() || c.is_whitespace()) => {
            Err("a name has no blanks".to_owned())
        }
        text => Ok(ModelName::from(text.to_owned())),
    }
}

/// The option that leaves agents out.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Only {
    /// Only this agent and all that it requires, also by a pattern such as `web-*`; may be given several times
    #[arg(long = "only", value_name = "AGENT")]
    only: Vec<AgentPattern>,
}

impl Only {
    /// The agents that are meant of these.
    fn of(&self, set: Set) -> Result<Set, Failure> {
        let names: Vec<String> = set.agents.iter().map(|agent| agent.name.to_string()).collect();
        let mut set = set.only(&self.only).map_err(|error| {
            Failure::new(ExitCode::Usage, format!("--only: {error}"))
                .help(format!("the agents are {}", names.join(", ")))
        })?;
        // Who names an agent that starts by hand has started it.
        let is_named = |agent: &Agent| {
            let is_it = |pattern: &AgentPattern| matches!(pattern, AgentPattern::Name(name) if [&agent.name, agent.declared_name()].contains(&name));
            self.only.iter().any(is_it)
        };
        for agent in set.agents.iter_mut().filter(|agent| agent.start == Start::Manual) {
            agent.start = if is_named(agent) { Start::Plan } else { Start::Manual };
        }
        Ok(set)
    }
}

/// Which diagnostics are worth showing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tell {
    /// All of them.
    Everything,
    /// Errors only.
    Errors,
}

/// Agents that may be run, in their order.
#[derive(Debug)]
pub(crate) struct Ready {
    /// The agents.
    pub(crate) set: Set,
    /// Their order.
    pub(crate) plan: Plan,
    /// The texts of their files.
    pub(crate) files: Vec<SourceFile>,
    /// The groups of conditional tasks that are switched on.
    pub(crate) enable: BTreeSet<String>,
    /// The model that is asked in the place of those that agents name.
    pub(crate) model: Option<ModelName>,
    /// The agents that are meant, with all that they require; all of the files when there is none.
    pub(crate) only: Vec<AgentPattern>,
}

impl Ready {
    /// The agents of a text that no file holds, which would lie at `path`. Problems are told on stderr.
    ///
    /// # Errors
    /// When it has an error.
    pub(crate) fn of_text(path: &Path, text: String, selection: &Selection) -> Result<Self, Failure> {
        let options = selection.options();
        let loaded = toka_workstream::load_texts([(path, text.as_str())], &options);
        let planned = loaded.set.as_ref().map(|set| toka_workstream::plan(set, &loaded.sources));
        let mut diagnostics = loaded.diagnostics;
        let plan = planned.and_then(|(plan, found)| {
            diagnostics.extend(found);
            plan
        });
        show(&diagnostics, &loaded.sources, Tell::Everything);
        let (set, plan) = loaded.set.zip(plan).ok_or_else(|| {
            Failure::new(ExitCode::Invalid, summary(&diagnostics))
                .parts(as_data(&diagnostics, &loaded.sources))
        })?;
        let files = vec![SourceFile { path: path.to_owned(), text }];
        Ok(Self { set, plan, files, enable: options.enable, model: options.model, only: Vec::new() })
    }
}

impl Selection {
    /// No files; and the model that is asked, if a person chose one.
    pub(crate) fn of_model(model: Option<ModelName>) -> Self {
        Self { paths: Vec::new(), enable: Vec::new(), model }
    }

    /// Reads and checks the workstreams and plans them. Problems are told on stderr.
    ///
    /// # Errors
    /// When there is no workstream, or any of them has an error.
    pub(crate) fn ready(&self, only: &Only, tell: Tell) -> Result<Ready, Failure> {
        let options = self.options();
        let paths = self.paths()?;
        let Loaded { set, mut diagnostics, sources, .. } = tracing::info_span!("load", paths = paths.len())
            .in_scope(|| toka_workstream::load(&paths, &options));
        let set = set.map(|set| only.of(set)).transpose()?;
        let plan = set.as_ref().and_then(|set| {
            let _stage = tracing::info_span!("plan", agents = set.agents.len()).entered();
            let (plan, found) = toka_workstream::plan(set, &sources);
            diagnostics.extend(found);
            plan
        });
        show(&diagnostics, &sources, tell);
        match (set, plan) {
            (Some(set), Some(plan)) if !set.agents.is_empty() => Ok(Ready {
                files: texts(&set, &sources),
                set,
                plan,
                enable: options.enable,
                model: options.model,
                only: only.only.clone(),
            }),
            (Some(_), Some(_)) => Err(none_here("the given files hold no agent")),
            _ => {
                let parts = as_data(&diagnostics, &sources);
                Err(Failure::new(ExitCode::Invalid, summary(&diagnostics)).parts(parts))
            }
        }
    }

    /// How the files are read.
    pub(crate) fn options(&self) -> LoadOptions {
        LoadOptions { enable: self.enable.iter().cloned().collect(), model: self.model.clone() }
    }

    /// Whether no path was given.
    pub(crate) fn is_default(&self) -> bool {
        self.paths.is_empty()
    }

    /// The paths that were given, or what there is in the current folder.
    pub(crate) fn paths(&self) -> Result<Vec<PathBuf>, Failure> {
        if self.paths.is_empty() { default_paths(Path::new("")) } else { Ok(self.paths.clone()) }
    }
}

/// The texts of the files of a set, under their absolute paths.
fn texts(set: &Set, sources: &Sources) -> Vec<SourceFile> {
    let file = |(path, id): (&PathBuf, _)| SourceFile {
        path: path.canonicalize().unwrap_or_else(|_| path.clone()),
        text: sources.text(id).to_string(),
    };
    set.files.iter().zip(sources.files()).map(file).collect()
}

/// Tells diagnostics on stderr.
pub(crate) fn show(diagnostics: &[Diagnostic], sources: &Sources, tell: Tell) {
    let wanted: Vec<Diagnostic> = diagnostics
        .iter()
        .filter(|diagnostic| tell == Tell::Everything || diagnostic.severity == Severity::Error)
        .cloned()
        .collect();
    let stderr = std::io::stderr();
    let style = if Palette::for_stream(&stderr) == Palette::PLAIN { Style::Plain } else { Style::Colour };
    // Nobody is left to be told when stderr itself cannot be written.
    let _ = std::io::Write::write_all(&mut stderr.lock(), sources.render(&wanted, style).as_bytes());
}

/// Diagnostics as data: each as `toka validate --json` prints it, with a `type` to tell it from events.
pub(crate) fn as_data(diagnostics: &[Diagnostic], sources: &Sources) -> Vec<Value> {
    let Value::Array(mut found) = sources.to_json(diagnostics) else { return Vec::new() };
    for diagnostic in found.iter_mut().filter_map(Value::as_object_mut) {
        diagnostic.insert("type".to_owned(), "diagnostic".into());
    }
    found
}

fn summary(diagnostics: &[Diagnostic]) -> String {
    let errors = diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count();
    format!("{} in the workstreams; nothing was done", count(errors, "error"))
}

fn none_here(message: &str) -> Failure {
    Failure::new(ExitCode::Invalid, message)
        .help("name a file or a folder (`toka run PATH`), or write a first workstream with `toka init`")
}

/// What a command is about when nobody says: the workstreams in `agents/`; those of its only subfolder that has any;
/// or those in the folder itself, where other YAML may lie among them.
fn default_paths(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let agents = folder.join(DEFAULT_FOLDER);
    if !yaml_files(&agents).is_empty() {
        return Ok(vec![agents]);
    }
    let sets: Vec<PathBuf> =
        entries(&agents).into_iter().filter(|path| !yaml_files(path).is_empty()).collect();
    match sets.as_slice() {
        [] => {}
        [_] => return Ok(sets),
        several => return Err(which_one(several)),
    }
    let here = yaml_files(folder).into_iter().filter(|path| is_workstream(path)).collect::<Vec<_>>();
    if here.is_empty() {
        return Err(none_here("there is no workstream here: no folder agents/, and no workstream file"));
    }
    Ok(here)
}

fn which_one(folders: &[PathBuf]) -> Failure {
    let names: Vec<String> = folders.iter().map(|path| path.display().to_string()).collect();
    Failure::new(
        ExitCode::Invalid,
        format!("agents/ holds several sets of workstreams: {}", names.join(", ")),
    )
    .help(format!("name the one to use, for example {}", names[0]))
}

fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let is_yaml = |path: &PathBuf| {
        path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") && path.is_file()
    };
    entries(folder).into_iter().filter(is_yaml).collect()
}

/// The entries of a folder in the order of their names; none when it cannot be read.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let shown = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let found = shown.read_dir().into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = found.map(|entry| folder.join(entry.file_name())).collect();
    paths.sort();
    paths
}

/// Whether it is to be taken for a workstream, when nobody names it.
fn is_workstream(path: &Path) -> bool {
    toka_files::read_start(path, SNIFF_BYTES).is_ok_and(|text| looks_like_a_workstream(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKSTREAM: &str = "metadata: {name: a}\ntasks:\n  default: []\n";

    fn found(files: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let folder = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            std::fs::write(path, text).expect("a file");
        }
        let relative =
            |path: PathBuf| path.strip_prefix(folder.path()).expect("below").to_string_lossy().into_owned();
        default_paths(folder.path())
            .map(|paths| paths.into_iter().map(relative).collect())
            .map_err(|failure| failure.to_string().replace(&*folder.path().to_string_lossy(), "."))
    }

    #[test]
    fn the_agents_folder_comes_first() {
        let files = [("agents/b.yml", "x"), ("a.yaml", WORKSTREAM)];
        assert_eq!(found(&files), Ok(vec!["agents".into()]));
    }

    #[test]
    fn a_single_set_below_it_is_taken_and_several_are_named() {
        let one = [("agents/health/a.yaml", "x"), ("agents/notes/README.md", "x")];
        assert_eq!(found(&one), Ok(vec!["agents/health".into()]));
        let two = [("agents/health/a.yaml", "x"), ("agents/other/b.yaml", "x")];
        assert_eq!(
            found(&two),
            Err("agents/ holds several sets of workstreams: ./agents/health, ./agents/other".into())
        );
    }

    #[test]
    fn other_yaml_is_left_alone() {
        let files = [
            ("b.yaml", WORKSTREAM),
            ("a.yml", WORKSTREAM),
            ("compose.yaml", "services: {}\n"),
            ("pod.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {}\n"),
            ("toka.yaml", "allow: []\n"),
        ];
        assert_eq!(found(&files), Ok(vec!["a.yml".into(), "b.yaml".into()]));
    }

    #[test]
    fn nothing_is_said_so() {
        let nothing = found(&[("README.md", "metadata: x\nspec: y\n")]);
        assert!(nothing.is_err_and(|message| message.contains("no workstream here")));
    }
}
