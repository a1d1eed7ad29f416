//! The way from paths to validated agents. Nothing stops at the first problem: every problem of every file is
//! reported.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use crate::decode::{Context, Decoded, MAX_DIAGNOSTICS, Place, decode, nearest};
use crate::diagnostic::{Code, Diagnostic, FileId, Severity, Sources};
use crate::model::{Agent, AgentKind, Condition, Probes, Set};
use crate::plan::{Member, Problem, arrange, distinct};
use crate::policy::{POLICY_FILE, named_as_policy};
use crate::read::{Found, collect, parse};
use crate::replicas;
use toka_core::ModelName;

/// What to make of the files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// Groups of `tasks.conditional` that are switched on.
    pub enable: BTreeSet<String>,
    /// What agents that ask models ask in the place of those that they name.
    pub model: Option<ModelName>,
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
    /// How many files were read.
    pub files: usize,
    /// How many agents they declare, those with errors included.
    pub agents: usize,
}

impl Loaded {
    /// How many diagnostics there are of a severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.diagnostics.iter().filter(|diagnostic| diagnostic.severity == severity).count()
    }
}

/// Reads files and folders (their `*.yaml` and `*.yml`, not recursively), checks everything, and never
/// panics.
///
/// Dependencies between agents are looked at by [`mod@crate::plan`]; [`check`] does both.
pub fn load(paths: &[PathBuf], options: &LoadOptions) -> Loaded {
    let mut loader = Loader::new(options);
    loader.read(paths);
    let (set, loaded) = loader.finish();
    Loaded { set: Some(set).filter(|_| loaded.count(Severity::Error) == 0), ..loaded }
}

/// [`load`] of texts that somebody else has read, each with the path that it is named by.
pub fn load_texts<'t>(texts: impl IntoIterator<Item = (&'t Path, &'t str)>, options: &LoadOptions) -> Loaded {
    let mut loader = Loader::new(options);
    for (path, text) in texts {
        loader.take(path.to_owned(), text.to_owned());
    }
    let (set, loaded) = loader.finish();
    Loaded { set: Some(set).filter(|_| loaded.count(Severity::Error) == 0), ..loaded }
}

/// [`load`], and everything that is wrong with the dependencies of what was loaded, even if it has errors. A
/// dependency that is not there is a warning at most: the rest may be elsewhere.
pub fn check(paths: &[PathBuf], options: &LoadOptions) -> Loaded {
    let mut loader = Loader::new(options);
    loader.read(paths);
    let (set, mut loaded) = loader.finish();
    let (_, problems) = arrange(set.agents.iter().map(Member::from).collect());
    let problems = distinct(problems);
    let diagnostics = problems.iter().take(MAX_DIAGNOSTICS).map(|problem| {
        let diagnostic = problem.diagnostic(&loaded.sources);
        let severity = match diagnostic.code {
            Code::MissingDependency => diagnostic.severity.min(Severity::Warning),
            _ => diagnostic.severity,
        };
        diagnostic.severity(severity)
    });
    let found: Vec<Diagnostic> = diagnostics.collect();
    loaded.diagnostics.extend(found);
    let worst = if problems.iter().any(Problem::is_error) { Severity::Error } else { Severity::Warning };
    loaded.diagnostics.extend(more(problems.len(), worst));
    Loaded { set: Some(set).filter(|_| loaded.count(Severity::Error) == 0), ..loaded }
}

/// The documents of a text as JSON, as far as it is YAML, and unchecked: what other tools see of a file.
pub fn documents(text: &str) -> Vec<serde_json::Value> {
    let mut sources = Sources::default();
    let file = sources.add("", text);
    let (documents, _) = parse(file, text);
    documents.iter().map(|document| document.root.to_json()).filter(|json| !json.is_null()).collect()
}

struct Loader<'o> {
    options: &'o LoadOptions,
    sources: Sources,
    diagnostics: Vec<Diagnostic>,
    files: Vec<PathBuf>,
    decoded: Vec<Decoded>,
}

impl<'o> Loader<'o> {
    fn new(options: &'o LoadOptions) -> Self {
        Self {
            options,
            sources: Sources::default(),
            diagnostics: Vec::new(),
            files: Vec::new(),
            decoded: Vec::new(),
        }
    }

    fn read(&mut self, paths: &[PathBuf]) {
        if paths.is_empty() {
            let problem = Diagnostic::new(Code::NoWorkstream, "no file and no folder was given");
            self.diagnostics.push(problem.help("name a workstream, or a folder of them"));
        }
        for found in collect(paths) {
            match found {
                Found::Text { path, text } => self.take(path, text),
                Found::NotUtf8(broken) => self.diagnostics.push(broken.into_diagnostic(&mut self.sources)),
                Found::Problem(problem) => self.diagnostics.push(problem),
            }
        }
    }

    fn take(&mut self, path: PathBuf, text: String) {
        let file = self.sources.add(&path.to_string_lossy(), text);
        let mut cx = Context::new(file, &self.sources);
        let (documents, problems) = parse(file, self.sources.text(file));
        let clean = problems.is_empty();
        problems.into_iter().for_each(|problem| cx.report(problem));
        // `---` at the end, or twice, opens a document with nothing in it.
        let filled: Vec<_> = documents.iter().filter(|document| !document.root.is_null()).collect();
        if filled.is_empty() && clean {
            cx.report(nothing_in(file, &path));
        }
        let is_policy = path.file_name().is_some_and(|name| name == POLICY_FILE);
        if let Some(first) = filled.first().filter(|_| is_policy) {
            // In a folder that somebody names, a policy is no workstream, and nothing is wrong with it.
            if first.root.has_key("metadata") {
                cx.report(named_as_policy(file, &first.root));
            }
            self.diagnostics.extend(cx.finish());
            self.files.push(path);
            return;
        }
        for document in filled {
            self.decoded.extend(decode(&mut cx, document, &path, self.options));
        }
        self.diagnostics.extend(cx.finish());
        self.files.push(path);
    }

    fn finish(mut self) -> (Set, Loaded) {
        self.report_duplicates();
        self.report_unknown_groups();
        self.expand_replicas();
        self.close_conditions();
        let agents: Vec<Agent> = self.decoded.into_iter().map(|decoded| decoded.agent).collect();
        let loaded = Loaded {
            set: None,
            diagnostics: self.diagnostics,
            sources: self.sources,
            files: self.files.len(),
            agents: agents.len(),
        };
        (Set { agents, files: self.files }, loaded)
    }

    /// Reports agents of one name, and keeps the first of them.
    fn report_duplicates(&mut self) {
        let mut first = HashMap::new();
        let mut problems = Vec::new();
        self.decoded.retain(|decoded| {
            let name = &decoded.agent.name;
            let Some(earlier) = first.get(name) else {
                first.insert(name.clone(), decoded.name.clone());
                return true;
            };
            let Place { file, span } = earlier;
            problems.push(
                Diagnostic::new(Code::DuplicateAgent, format!("two agents are called `{name}`"))
                    .at(decoded.name.file, decoded.name.span.clone(), "the second")
                    .at(*file, span.clone(), "the first")
                    .help("names are unique among all files that are given together"),
            );
            false
        });
        let count = problems.len();
        problems.truncate(MAX_DIAGNOSTICS);
        self.diagnostics.append(&mut problems);
        self.diagnostics.extend(more(count, Severity::Error));
    }

    /// Puts agents in the place of every document that stands for several.
    fn expand_replicas(&mut self) {
        let (expanded, mut problems) = replicas::expand(std::mem::take(&mut self.decoded));
        self.decoded = expanded;
        let count = problems.len();
        problems.truncate(MAX_DIAGNOSTICS);
        self.diagnostics.append(&mut problems);
        self.diagnostics.extend(more(count, Severity::Error));
    }

    fn report_unknown_groups(&mut self) {
        let known: BTreeSet<&str> =
            self.decoded.iter().flat_map(|decoded| decoded.groups.iter().map(String::as_str)).collect();
        for group in self.options.enable.iter().filter(|group| !known.contains(group.as_str())) {
            let message = format!("no agent has a group of conditional tasks called `{group}`");
            let problem = Diagnostic::new(Code::UnknownGroup, message);
            self.diagnostics.push(match nearest(group, known.iter().copied()) {
                Some(near) => problem.help(format!("did you mean `{near}`?")),
                None if known.is_empty() => problem,
                None => problem
                    .help(format!("the groups are {}", Vec::from_iter(known.iter().copied()).join(", "))),
            });
        }
    }

    /// Fills in what a dependency waits for where the file leaves it to the kind of agent that it leads to.
    fn close_conditions(&mut self) {
        let defaults: HashMap<_, _> = self
            .decoded
            .iter()
            .map(|decoded| (decoded.agent.name.clone(), default_condition(&decoded.agent)))
            .collect();
        for decoded in &mut self.decoded {
            for at in &decoded.open_conditions {
                let dependency = &mut decoded.agent.dependencies[*at];
                if let Some(condition) = defaults.get(&dependency.on) {
                    dependency.condition = condition.clone();
                }
            }
        }
    }
}

/// What dependents wait for unless they say otherwise.
fn default_condition(agent: &Agent) -> Condition {
    match agent.kind {
        AgentKind::Task => Condition::CompletedSuccessfully,
        AgentKind::Service if says_ready(&agent.probes) => Condition::Ready,
        AgentKind::Service => Condition::ProcessStarted,
    }
}

fn says_ready(probes: &Probes) -> bool {
    probes.readiness.is_some() || probes.startup.is_some()
}

/// Says that not all of `count` problems of one kind are shown, if they are not.
fn more(count: usize, severity: Severity) -> Option<Diagnostic> {
    let omitted = count.checked_sub(MAX_DIAGNOSTICS).filter(|omitted| *omitted > 0)?;
    let message = format!("{omitted} more problems between the agents are not shown");
    Some(Diagnostic::new(Code::TooComplex, message).severity(severity))
}

fn nothing_in(file: FileId, path: &Path) -> Diagnostic {
    Diagnostic::new(Code::NoWorkstream, format!("`{}` has no workstream in it", path.display()))
        .at(file, 0..0, "")
        .help("a workstream begins with `metadata:`; `toka init` writes one to start from")
}
