//! What a project is declared to be, in a form that survives whoever declared it: the texts of its files as they were read,
//! what was said on the command line, and the variables that its agents may ask for. It travels over the control socket, is
//! kept beside the journal, and is read again whenever an agent begins anew: what counts is what was applied, not what
//! the files have become since.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toka_core::capability::Policy;
use toka_core::{
    AgentName, AgentPattern, ModelConfig, ModelName, ModelReach, PressureLimits, SessionKey, TrustedHost,
};
use toka_workstream::{Agent, Diagnostic, LoadOptions, Loaded, Plan, SecretSource, Set, Severity, Sources};

use crate::caller::{BASE, Caller};
use crate::private_file;

/// A file of a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFile {
    /// Its absolute path: paths in it are relative to it, and messages name it.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

/// A project as somebody declared it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Declaration {
    /// Its files.
    pub files: Vec<SourceFile>,
    /// Groups of conditional tasks that are switched on.
    #[serde(default)]
    pub enable: BTreeSet<String>,
    /// What agents that ask models ask in the place of those that they name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelName>,
    /// The session with which an agent goes on that a person talks to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<SessionKey>,
    /// The agents that are meant, with all that they require; all of the files when nobody is named.
    #[serde(default)]
    pub only: Vec<AgentPattern>,
    /// Which ends of agents end the run, besides what the files say.
    #[serde(default)]
    pub stop: StopRules,
    /// The workspace: absolute, without links.
    pub workspace: PathBuf,
    /// What a person allowed and denied.
    #[serde(default)]
    pub policy: Policy,
    /// Hosts that a person has allowed agents when they were asked, beyond the run of then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trusted_hosts: Vec<TrustedHost>,
    /// What a person says of models.
    #[serde(default, skip_serializing_if = "ModelConfig::is_empty")]
    pub models: ModelConfig,
    /// Most agents at once; `None` and 0 are as many as there are.
    #[serde(default)]
    pub max_concurrent: Option<usize>,
    /// Up to which pressure on the host its agents start.
    #[serde(default)]
    pub pressure: PressureLimits,
    /// The home folder of whoever declared it.
    pub home: PathBuf,
    /// Of the environment of whoever declared it, the variables that agents may see: the base that each gets, and those
    /// that `environment_from` and secrets name.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
}

/// Which ends of agents end a run, in the words of the command line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StopRules {
    /// Any failure.
    pub fail_fast: bool,
    /// Every end of this agent; how it ended is then the exit status of the run.
    pub exit_code_from: Option<AgentName>,
}

impl StopRules {
    /// Makes a plan go by them.
    pub fn apply(&self, plan: &mut Plan) {
        if self.fail_fast {
            plan.stop_at_failure();
        }
        if let Some(agent) = &self.exit_code_from {
            plan.stop_at_end_of(agent);
        }
    }
}

/// The agents of a declaration, and their order.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// The agents.
    pub set: Set,
    /// Their order.
    pub plan: Plan,
    /// What is to be said about the files all the same.
    pub diagnostics: Vec<Diagnostic>,
    /// The texts that the diagnostics point into.
    pub sources: Sources,
}

/// Why a declaration declares nothing.
#[derive(Debug)]
pub struct Unparsed {
    /// Everything that was found.
    pub diagnostics: Vec<Diagnostic>,
    /// The texts that they point into.
    pub sources: Sources,
}

impl Declaration {
    /// What these files declare in a workspace, and nothing else: no grants, no variables, no limits of the run.
    pub fn of_files(workspace: &Path, files: Vec<SourceFile>) -> Self {
        Self {
            files,
            enable: BTreeSet::new(),
            model: None,
            resume: None,
            only: Vec::new(),
            stop: StopRules::default(),
            workspace: workspace.to_owned(),
            policy: Policy::default(),
            trusted_hosts: Vec::new(),
            models: ModelConfig::default(),
            max_concurrent: None,
            pressure: PressureLimits::default(),
            home: PathBuf::from("/"),
            environment: BTreeMap::new(),
        }
    }

    /// Reads and plans the agents.
    ///
    /// # Errors
    /// When a file has an error, there is no agent, or the agents cannot be brought into an order.
    pub fn parse(&self) -> Result<Parsed, Box<Unparsed>> {
        let options = LoadOptions { enable: self.enable.clone(), model: self.model.clone() };
        let texts = self.files.iter().map(|file| (file.path.as_path(), file.text.as_str()));
        let Loaded { set, mut diagnostics, sources, .. } = toka_workstream::load_texts(texts, &options);
        // A pattern that means nobody was told to whoever declared it.
        let set = set.and_then(|set| set.only(&self.only).ok());
        let plan = set.as_ref().and_then(|set| {
            let (plan, found) = toka_workstream::plan(set, &sources);
            diagnostics.extend(found);
            plan
        });
        let plan = plan.map(|mut plan| {
            self.stop.apply(&mut plan);
            plan
        });
        match (set, plan) {
            (Some(set), Some(plan)) if !plan.is_empty() => Ok(Parsed { set, plan, diagnostics, sources }),
            _ => Err(Box::new(Unparsed { diagnostics, sources })),
        }
    }

    /// Whoever declared it, as far as agents may know.
    pub fn caller(&self) -> Caller {
        let variable = |(name, value): (&String, &String)| (OsString::from(name), OsString::from(value));
        Caller { environment: self.environment.iter().map(variable).collect(), home: self.home.clone() }
    }

    /// The variables of `caller` that these agents may see, and those of `keys` with which models are asked for them. One whose value
    /// is no text is left out, as if it were not there.
    pub fn environment_of(caller: &Caller, agents: &[Agent], keys: &[&str]) -> BTreeMap<String, String> {
        let reach = |agent: &Agent| agent.confinement.model.as_ref().map(|model| model.value);
        let asks = agents.iter().any(|agent| reach(agent) == Some(ModelReach::Providers));
        let keys = keys.iter().copied().filter(|_| asks);
        let passed = agents.iter().filter_map(|agent| agent.process.as_ref());
        let passed = passed.flat_map(|process| process.environment_from.iter().map(String::as_str));
        let secret =
            agents.iter().flat_map(|agent| &agent.secrets).filter_map(|secret| match &secret.source {
                SecretSource::Env(name) => Some(name.as_str()),
                SecretSource::File(_) => None,
            });
        let names: BTreeSet<&str> =
            BASE.into_iter().chain(["USER"]).chain(passed).chain(secret).chain(keys).collect();
        let value = |name: &str| caller.variable(name)?.to_str().map(str::to_owned);
        names.into_iter().filter_map(|name| Some((name.to_owned(), value(name)?))).collect()
    }

    /// The same without the variables that only secrets name: those are never written to a disk.
    #[must_use]
    fn without_secrets(&self, agents: &[Agent]) -> Self {
        let bare: Vec<Agent> =
            agents.iter().map(|agent| Agent { secrets: Vec::new(), ..agent.clone() }).collect();
        let environment = Self::environment_of(&self.caller(), &bare, &[]);
        Self { environment, ..self.clone() }
    }

    /// Writes it to `path`, in one step, for nobody else to read; without the values of secrets.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep(&self, path: &Path, agents: &[Agent]) -> io::Result<()> {
        private_file::replace(path, &serde_json::to_vec(&self.without_secrets(agents))?)
    }

    /// Reads the one at `path`.
    ///
    /// # Errors
    /// When it is not there or is no declaration.
    pub fn read(path: &Path) -> io::Result<Self> {
        serde_json::from_slice(&std::fs::read(path)?).map_err(io::Error::from)
    }
}

impl Unparsed {
    /// How many errors there are.
    pub fn errors(&self) -> usize {
        self.diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
metadata: {name: a}
spec:
  process: {command: ['true'], environment_from: [CI]}
  secrets: {key: {env: API_KEY}}
";

    fn of_text(text: &str) -> Declaration {
        let file = SourceFile { path: "/w/all.yaml".into(), text: text.into() };
        Declaration::of_files(Path::new("/w"), vec![file])
    }

    #[test]
    fn only_what_agents_ask_for_is_taken_along_and_no_secret_is_kept() {
        let variables = [("PATH", "/bin"), ("CI", "1"), ("API_KEY", "hush"), ("OTHER", "x")];
        let environment = variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
        let caller = Caller { environment, home: "/home/me".into() };
        let mut declared = of_text(TEXT);
        let agents = declared.parse().expect("valid").set.agents;
        declared.environment = Declaration::environment_of(&caller, &agents, &[]);
        let names: Vec<&str> = declared.environment.keys().map(String::as_str).collect();
        assert_eq!(names, ["API_KEY", "CI", "PATH"]);
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("declaration.json");
        declared.keep(&path, &agents).expect("room");
        assert!(!std::fs::read_to_string(&path).expect("written").contains("hush"));
        let kept = Declaration::read(&path).expect("written");
        assert_eq!(kept.environment.keys().map(String::as_str).collect::<Vec<_>>(), ["CI", "PATH"]);
        assert_eq!(kept.files, declared.files);
    }

    #[test]
    fn a_broken_file_is_told_with_its_place() {
        let unparsed = of_text("metadata: {nam: a}\n").parse().expect_err("broken");
        assert!(unparsed.errors() > 0);
        assert!(unparsed.sources.files().any(|file| unparsed.sources.path(file) == "/w/all.yaml"));
    }
}
