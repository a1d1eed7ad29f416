//! Whose logs: from the words of the command line to agents that have logs, or to what to do instead.

use std::path::{Path, PathBuf};

use toka_core::{AgentName, AgentPattern, ExitCode, Name, ProjectName};
use toka_logs::older_folder;

use toka_terminal::failure::Failure;

/// Most names in an error.
const MOST_NAMES: usize = 20;

/// An agent that has logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) project: ProjectName,
    pub(super) agent: AgentName,
    /// Its place among all agents of its project, whichever are asked for.
    pub(super) place: usize,
    /// Its current log.
    pub(super) log: PathBuf,
}

/// Agents of one project, also those that are not there yet.
#[derive(Debug)]
pub(super) struct Everybody {
    pub(super) projects: PathBuf,
    pub(super) project: ProjectName,
    /// Who of them; all when there is none.
    pub(super) wanted: Vec<AgentPattern>,
}

impl Everybody {
    /// The folder in which a new agent shows.
    pub(super) fn folder(&self) -> PathBuf {
        agents_folder(&self.projects, &self.project)
    }

    /// Those that are there.
    pub(super) fn sources(&self) -> Vec<Source> {
        let mut found = agents(&self.projects, &self.project);
        found.retain(|source| self.wants(source.agent.as_str()));
        found
    }

    /// Whether the agent of this name is meant.
    pub(super) fn wants(&self, name: &str) -> bool {
        let Ok(agent) = Name::new(name) else { return false };
        let means = |pattern: &AgentPattern| !pattern.select(std::iter::once(&agent)).is_empty();
        self.wanted.is_empty() || self.wanted.iter().any(means)
    }
}

/// What the words of a command line mean.
#[derive(Debug, Default)]
pub(super) struct Meant {
    /// Agents that have logs.
    pub(super) sources: Vec<Source>,
    /// Agents that have been prepared for, and have not started yet.
    pub(super) unstarted: Vec<AgentName>,
    /// The project, where there is only one, and who of it.
    pub(super) only: Option<(ProjectName, Vec<AgentPattern>)>,
}

/// The agents that these words name, as `agent` or `project/agent`; all of the project `own` if there are none.
pub(super) fn sources(
    projects: &Path,
    own: impl Fn() -> Result<ProjectName, Failure>,
    words: &[String],
) -> Result<Meant, Failure> {
    if words.is_empty() {
        let project = own()?;
        let sources = of_project(projects, &project)?;
        return Ok(Meant { sources, only: Some((project, Vec::new())), ..Meant::default() });
    }
    let mut meant_by_all = Meant::default();
    for (at, word) in words.iter().enumerate() {
        let found = &mut meant_by_all.sources;
        let (project, agent) = match word.split_once('/') {
            Some((project, agent)) => (name(project)?, agent),
            None => (own()?, word.as_str()),
        };
        let unstarted = unstarted(projects, &project, agent);
        let known = match of_project(projects, &project) {
            Err(_) if !unstarted.is_empty() => Vec::new(),
            known => known?,
        };
        let pattern = agent.parse::<AgentPattern>().map_err(|_| unknown_agent(&project, agent, &known))?;
        let only = &mut meant_by_all.only;
        match only {
            None if at == 0 => *only = Some((project.clone(), vec![pattern.clone()])),
            Some((of, patterns)) if *of == project => patterns.push(pattern.clone()),
            _ => *only = None,
        }
        let meant = pattern.select(known.iter().map(|source| &source.agent));
        if meant.is_empty() {
            if unstarted.is_empty() {
                return Err(unknown_agent(&project, agent, &known));
            }
            meant_by_all.unstarted.extend(unstarted);
        }
        let sources = known.iter().filter(|source| meant.contains(&&source.agent));
        let new: Vec<Source> = sources.filter(|source| !found.contains(source)).cloned().collect();
        found.extend(new);
    }
    Ok(meant_by_all)
}

/// Those that this means and that have a folder, which is made before they start.
fn unstarted(projects: &Path, project: &ProjectName, agent: &str) -> Vec<AgentName> {
    let Ok(pattern) = agent.parse::<AgentPattern>() else { return Vec::new() };
    let known = names(&agents_folder(projects, project));
    pattern.select(known.iter()).into_iter().cloned().collect()
}

fn name(text: &str) -> Result<ProjectName, Failure> {
    Name::new(text).map_err(|error| Failure::new(ExitCode::Usage, format!("`{text}` is no project: {error}")))
}

fn of_project(projects: &Path, project: &ProjectName) -> Result<Vec<Source>, Failure> {
    let found = agents(projects, project);
    if !found.is_empty() {
        return Ok(found);
    }
    let folder = agents_folder(projects, project);
    if let Err(error) = std::fs::read_dir(&folder)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        let message = format!("{} cannot be read: {error}", folder.display());
        return Err(Failure::new(ExitCode::StateFolder, message).help("ask as the user who runs Toka"));
    }
    let known = names(projects).into_iter().filter(|known| known != project);
    let known: Vec<_> = known.filter(|known| !agents(projects, known).is_empty()).collect();
    let message = format!("there are no logs of the project {project} in {}", projects.display());
    let help = if known.is_empty() {
        "logs are made by `toka run`; --state-dir names another state folder".to_owned()
    } else {
        format!("name another project with --project, or as PROJECT/AGENT: {}", list(&known))
    };
    Err(Failure::new(ExitCode::Usage, message).help(help))
}

fn unknown_agent(project: &ProjectName, agent: &str, known: &[Source]) -> Failure {
    let names: Vec<Name> = known.iter().map(|source| source.agent.clone()).collect();
    let near = names
        .iter()
        .map(|name| (strsim::damerau_levenshtein(name.as_str(), agent), name))
        .filter(|(distance, name)| *distance <= 1 + name.as_str().len() / 4)
        .min_by_key(|(distance, _)| *distance);
    let agents = format!("agents with logs are {}", list(&names));
    let help = match near {
        Some((_, near)) => format!("did you mean `{near}`? The {agents}"),
        None => format!("the {agents}"),
    };
    Failure::new(ExitCode::Usage, format!("the project {project} has no logs of an agent `{agent}`"))
        .help(help)
}

fn list(names: &[Name]) -> String {
    let shown: Vec<&str> = names.iter().take(MOST_NAMES).map(Name::as_str).collect();
    let more = names.len().saturating_sub(MOST_NAMES);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{rest}", shown.join(", "))
}

pub(super) fn agents_folder(projects: &Path, project: &ProjectName) -> PathBuf {
    projects.join(project.as_str()).join("agents")
}

/// Every agent of the project that has a log, by name.
fn agents(projects: &Path, project: &ProjectName) -> Vec<Source> {
    let folder = agents_folder(projects, project);
    let logs = names(&folder).into_iter().map(|agent| (folder.join(agent.as_str()).join("log"), agent));
    let with_logs = logs.filter(|(log, _)| log.exists() || older_folder(log).exists());
    with_logs
        .enumerate()
        .map(|(place, (log, agent))| Source { project: project.clone(), agent, place, log })
        .collect()
}

/// What in a folder has the name of an agent or a project, sorted; nothing when there is no such folder.
fn names(folder: &Path) -> Vec<Name> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<Name> =
        entries.filter_map(|entry| Name::new(entry.file_name().to_str()?).ok()).collect();
    names.sort_unstable();
    names
}
