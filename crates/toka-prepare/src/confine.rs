//! From an agent and its folders to the rules that will be enforced: the same for `toka plan`, which shows them, and for
//! a run, which puts them in force.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use toka_core::capability::{Capability, Policy, Refusal};
use toka_core::demand::{Ground, demands, outside, refused};
use toka_core::{Confinement, Declared, Name, Origin};
use toka_runtime::program::{self, ProgramError};
use toka_sandbox::plan::{GitInit, RunAs, WorkspaceFacts, is_system_program};
use toka_sandbox::{AgentFolders, CompileError, CompileInput, HostFacts, SandboxPlan};
use toka_workstream::{Agent, PresetData, Process, Set, User};

use crate::declared_file::DeclaredFile;
use crate::folders::ProjectFolders;
use crate::installation::installation;
use crate::secrets::Source;
use crate::trust::TrustStore;
use crate::users::Users;

/// What the rules of every agent of a project have in common.
#[derive(Debug, Clone, Copy)]
pub struct Confiner<'a> {
    /// What the host can do.
    pub host: &'a HostFacts,
    /// The project.
    pub project: &'a Name,
    /// The `toka` binary.
    pub toka_exe: &'a Path,
    /// What of the workspace decides about rights.
    pub facts: &'a WorkspaceFacts,
    /// Whose processes the agents are.
    pub users: &'a Users,
    /// A program that a person named on the command line: it may be executed wherever it is.
    pub chosen: Option<&'a Path>,
    /// The folders in which the person's own shell looks for programs.
    pub path: &'a OsStr,
}

impl Confiner<'_> {
    /// Compiles the rules of one agent, and finds the program that it will execute. Nothing is looked for in places outside
    /// the workspace that nobody granted.
    ///
    /// # Errors
    /// When a declared pattern or path cannot be made a rule.
    pub fn compile(
        &self,
        agent: &Agent,
        folders: &AgentFolders,
        demands: &Demands,
    ) -> Result<Confined, CompileError> {
        let confinement = &demands.without_refused_patterns(&agent.confinement);
        let file = agent.file.canonicalize().unwrap_or_else(|_| agent.file.clone());
        let rules = |programs: &[PathBuf]| self.rules((agent, confinement), file.parent(), folders, programs);
        let process = agent.process.as_ref();
        // A shell's line and the runner need no search.
        let word = process.and_then(Process::program);
        let own = process.and_then(|process| process.environment.get("PATH"));
        // The rules say which folders are searched. A program that is named with its folder is found before there are any.
        let first = match word {
            Some(word) if word.contains('/') => None,
            _ => Some(rules(&[])?),
        };
        let of_rules = first.iter().flat_map(SandboxPlan::environment);
        let of_rules = of_rules.into_iter().find(|(name, _)| name == "PATH").map(|(_, path)| path);
        let path = own.or(of_rules).map_or("", String::as_str).as_ref();
        // People install agent programs in folders of their own, which no agent sees: where their own shell finds one that is known by name, they
        // have chosen it. Of another program the declaration says where it is, and a person grants that.
        let is_known = process.is_some_and(|process| {
            process.preset.is_some_and(|preset| Some(PresetData::of(preset).program.as_str()) == word)
        });
        let of_person = is_known.then_some(self.path);
        let program = [Some(path), of_person]
            .into_iter()
            .flatten()
            .find_map(|path| ProgramFile::find(word?, agent, path, folders).ok());
        let plan = match program.as_ref().map(ProgramFile::path).or(self.chosen) {
            Some(file) if !self.anyone_executes(file, folders) => {
                let beside = if is_known { installation(file) } else { Vec::new() };
                let holds = |folder: &Path| {
                    [&folders.workspace, &folders.user_home, &folders.state_dir]
                        .iter()
                        .any(|own| own.starts_with(folder))
                };
                let beside = beside
                    .into_iter()
                    .filter(|place| !place.starts_with(&folders.workspace) && !holds(place));
                let programs: Vec<PathBuf> = beside.chain([file.to_owned()]).collect();
                rules(&programs)?
            }
            _ => match first {
                Some(plan) => plan,
                None => rules(&[])?,
            },
        };
        Ok(Confined { plan, program })
    }

    /// Whether a program is the system's, so that every agent may execute it without a rule of its own.
    fn anyone_executes(&self, program: &Path, folders: &AgentFolders) -> bool {
        let of_system = |path: &Path| self.host.system.programs.iter().any(|folder| path.starts_with(folder));
        !program.starts_with(&folders.workspace)
            && of_system(program)
            && program.canonicalize().is_ok_and(|real| of_system(&real))
    }

    fn rules(
        &self,
        (agent, confinement): (&Agent, &Confinement),
        folder: Option<&Path>,
        folders: &AgentFolders,
        programs: &[PathBuf],
    ) -> Result<SandboxPlan, CompileError> {
        SandboxPlan::compile(&CompileInput {
            confinement,
            folders,
            host: self.host,
            project: self.project,
            agent: &agent.name,
            facts: self.facts,
            workstream_dir: folder,
            toka_exe: self.toka_exe,
            programs,
            // One that cannot be had refuses the run, and there are rules to show all the same.
            run_as: self.run_as(agent),
        })
    }

    /// Another user, and where it is declared.
    fn run_as<'b>(&'b self, agent: &'b Agent) -> Option<(&'b RunAs, &'b Origin)> {
        let user = self.users.user(&agent.name).ok().flatten()?;
        Some((user, &agent.process.as_ref()?.user.origin))
    }
}

/// What of a project's workspace decides about rights: the files of the set, those that lie right in it, its repository.
pub fn workspace_facts(set: &Set, folders: &ProjectFolders) -> WorkspaceFacts {
    let files = set.files.iter().map(|file| file.canonicalize().unwrap_or_else(|_| file.clone()));
    // What a person trusted is not edited by the agents of another set.
    let record = TrustStore::of(&folders.state_dir).read(&folders.workspace).ok().flatten();
    let trusted = record.into_iter().flat_map(|record| record.files.into_values());
    let files = files.chain(trusted.filter(|file| file.exists()));
    let may_init = |agent: &Agent| {
        agent.confinement.capabilities.iter().any(|declared| declared.value == Capability::GitInit)
    };
    let git_init = if set.agents.iter().any(may_init) { GitInit::Somebody } else { GitInit::Nobody };
    let facts = WorkspaceFacts::look(&folders.workspace, &folders.user_home, files);
    facts.with_git_init(git_init)
}

/// What one agent will be confined by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confined {
    /// The rules.
    pub plan: SandboxPlan,
    /// The program that its command names; `None` when it has no argument list or there is no such program.
    pub program: Option<ProgramFile>,
}

/// The program that an argument list names, absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProgramFile {
    /// It is there.
    Found(PathBuf),
    /// It is not there yet, and what comes before the agent may make it: a hook, or an agent that it waits for.
    Awaited(PathBuf),
}

impl ProgramFile {
    /// Finds `word`, the first of an agent's command or of one beside it, as execvp(3) does, along `path`.
    ///
    /// # Errors
    /// When there is no such program, and nothing before the agent may make it.
    pub fn find(
        word: &str,
        agent: &Agent,
        path: &OsStr,
        folders: &AgentFolders,
    ) -> Result<Self, ProgramError> {
        let error = match program::find(word, &folders.working_dir, path) {
            Ok(file) => return Ok(Self::Found(file)),
            Err(error) => error,
        };
        let mut places: Vec<PathBuf> = match &error {
            ProgramError::Missing(file) => vec![file.clone()],
            ProgramError::NotInPath { .. } => {
                std::env::split_paths(path).map(|folder| folder.join(word)).collect()
            }
            ProgramError::Folder(_) | ProgramError::NotExecutable(_) => Vec::new(),
        };
        places.retain(|file| may_be_made(agent, file, folders));
        places.into_iter().next().map(Self::Awaited).ok_or(error)
    }

    /// Where it is, or will be.
    pub fn path(&self) -> &Path {
        match self {
            Self::Found(path) | Self::Awaited(path) => path,
        }
    }
}

/// Whether something that runs before the agent may make a file of the workspace.
fn may_be_made(agent: &Agent, file: &Path, folders: &AgentFolders) -> bool {
    let something_precedes = !agent.hooks.pre_start.is_empty() || !agent.dependencies.is_empty();
    let is_plain = file.components().all(|part| !matches!(part, Component::ParentDir));
    something_precedes && is_plain && file.starts_with(&folders.workspace)
}

/// What an agent asks for, and what of it the policy refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demands {
    /// Everything that it asks for, named or implied, in the order of its declaration.
    pub all: Vec<Declared<Capability>>,
    /// What it will not get: the start is refused.
    pub refused: Vec<(Declared<Capability>, Refusal)>,
}

impl Demands {
    /// What the agent asks for, by its security section, its process, its secrets and its reports. Looks at the file
    /// system to follow links that lead out of the workspace.
    pub fn of(agent: &Agent, folders: &ProjectFolders, policy: &Policy) -> Self {
        let ground = ground(folders);
        let mut all = demands(&agent.confinement, &ground);
        all.extend(agent.process.iter().flat_map(|process| of_process(process, &ground)));
        all.extend(agent.secrets.iter().filter_map(|secret| {
            let asked = Source::of(secret, &ground).demands()?;
            Some(Declared::new(asked, secret.origin.clone()))
        }));
        all.extend(of_reports(agent));
        let refused = refused(agent.declared_name(), &all, policy);
        let refused = refused.map(|(demand, refusal)| (demand.clone(), refusal)).collect();
        Self { all, refused }
    }

    /// The declaration without the patterns of paths outside the workspace that nobody granted.
    fn without_refused_patterns(&self, declared: &Confinement) -> Confinement {
        let mut confinement = declared.clone();
        let Confinement { read, write, execute, .. } = &mut confinement;
        for list in [read, write, execute] {
            list.retain(|path| {
                let is_refused = self.refused.iter().any(|(demand, _)| {
                    demand.origin == path.origin
                        && matches!(
                            demand.value,
                            Capability::OutsideRead(_)
                                | Capability::OutsideExecute(_)
                                | Capability::OutsideWrite(_)
                        )
                });
                !(is_refused && path.value.contains(['*', '?', '[']))
            });
        }
        confinement
    }

    /// Those that only a person can grant.
    pub fn dangerous(&self) -> impl Iterator<Item = &Declared<Capability>> {
        self.all.iter().filter(|demand| demand.value.is_dangerous())
    }
}

/// Where the paths of a project's declarations begin.
pub fn ground(folders: &ProjectFolders) -> Ground<'_> {
    Ground { workspace: &folders.workspace, user_home: &folders.user_home, resolve: &follow_links }
}

/// Paths outside the workspace, variables of the caller, another user.
fn of_process(process: &Process, ground: &Ground<'_>) -> Vec<Declared<Capability>> {
    let Process { command_origin, working_dir, environment_from, environment_file, user, .. } = process;
    let here = |capability| Declared::new(capability, command_origin.clone());
    let begins = outside(&working_dir.value, ground)
        .map(|path| Declared::new(Capability::OutsideRead(path), working_dir.origin.clone()));
    let files = environment_file.iter().filter_map(|file| match DeclaredFile::find(file, ground) {
        DeclaredFile::InWorkspace(_) => None,
        DeclaredFile::Outside(path) => {
            Some(here(Capability::OutsideRead(path.to_string_lossy().into_owned())))
        }
    });
    let passed = environment_from.iter().cloned().map(Capability::EnvironmentFrom).map(here);
    let user = match &user.value {
        User::Named(name) => Some(Declared::new(Capability::User(name.clone()), user.origin.clone())),
        // It has fewer rights than the caller has.
        User::Dynamic | User::Invoking => None,
    };
    let program = foreign_program(process, ground).map(here);
    begins.into_iter().chain(program).chain(files).chain(passed).chain(user).collect()
}

/// A program that the declaration names outside of the workspace and of the system: its rule opens the file to the agent and to
/// all that runs beside it. What the caller's own PATH leads to, a person has chosen.
fn foreign_program(process: &Process, ground: &Ground<'_>) -> Option<Capability> {
    let name = process.program()?;
    let path = process.environment.get("PATH").map(String::as_str);
    let folder = ground.locate(&process.working_dir.value);
    let found = match (name.contains('/'), path) {
        (true, _) => folder.join(name),
        (false, Some(path)) => program::find(name, &folder, path.as_ref()).ok()?,
        (false, None) => return None,
    };
    let asked = outside(&found.to_string_lossy(), ground)?;
    (!is_system_program(&follow_links(&found))).then_some(Capability::OutsideExecute(asked))
}

/// Where reports are sent over the network.
fn of_reports(agent: &Agent) -> impl Iterator<Item = Declared<Capability>> {
    let channels = agent.reporting.channels.iter();
    channels.filter_map(|channel| Some(Declared::new(channel.value.demands()?, channel.origin.clone())))
}

/// The path with the links of the part that is there followed; the rest is appended as it stands.
pub fn follow_links(path: &Path) -> PathBuf {
    let mut rest = Vec::new();
    let mut known = path;
    loop {
        if let Ok(real) = known.canonicalize() {
            return rest.iter().rev().fold(real, |path, part| path.join(part));
        }
        let (Some(parent), Some(last)) = (known.parent(), known.components().next_back()) else {
            return path.to_owned();
        };
        rest.push(last.as_os_str());
        known = parent;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_as_far_as_the_path_is_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("a path");
        std::fs::create_dir(root.join("real")).expect("a folder");
        std::os::unix::fs::symlink(root.join("real"), root.join("link")).expect("a link");
        for (path, expected) in [
            ("link", "real"),
            ("link/absent/file", "real/absent/file"),
            ("absent/../link", "absent/../link"),
            ("real/../link", "real"),
        ] {
            assert_eq!(follow_links(&root.join(path)), root.join(expected), "{path}");
        }
    }
}
