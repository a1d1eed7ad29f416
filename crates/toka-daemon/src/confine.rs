//! From an agent and its folders to the rules that will be enforced: the same for `toka plan`, which shows them, and for
//! a run, which puts them in force.

use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};
use toka_core::capability::{Capability, Policy, Refusal};
use toka_core::demand::{Ground, demands, refused};
use toka_core::{Declared, Name};
use toka_sandbox::{AgentFolders, CompileError, CompileInput, HostFacts, SandboxPlan};
use toka_workstream::{Agent, ProcessCommand};

use crate::folders::ProjectFolders;
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
    /// The files that declare the agents, absolute and without links.
    pub files: &'a [PathBuf],
    /// Whose processes the agents are.
    pub users: &'a Users,
}

impl Confiner<'_> {
    /// Compiles the rules of one agent, and finds the program that it will execute.
    ///
    /// # Errors
    /// When a declared pattern or path cannot be made a rule.
    pub fn compile(&self, agent: &Agent, folders: &AgentFolders) -> Result<Confined, CompileError> {
        let file = agent.file.canonicalize().unwrap_or_else(|_| agent.file.clone());
        let rules = |programs: &[PathBuf]| self.rules(agent, file.parent(), folders, programs);
        let plan = rules(&[])?;
        let path = plan.environment().iter().find(|(name, _)| name == "PATH");
        let program = program(agent, path.map_or("", |(_, path)| path), &folders.working_dir);
        let plan = match &program {
            Some(program) if !self.anyone_executes(program, folders) => rules(std::slice::from_ref(program))?,
            _ => plan,
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
        agent: &Agent,
        folder: Option<&Path>,
        folders: &AgentFolders,
        programs: &[PathBuf],
    ) -> Result<SandboxPlan, CompileError> {
        SandboxPlan::compile(&CompileInput {
            confinement: &agent.confinement,
            folders,
            host: self.host,
            project: self.project,
            agent: &agent.name,
            workstream_files: self.files,
            workstream_dir: folder,
            toka_exe: self.toka_exe,
            programs,
            // One that cannot be had refuses the run, and there are rules to show all the same.
            run_as: self.users.user(&agent.name).ok().flatten(),
        })
    }
}

/// What one agent will be confined by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confined {
    /// The rules.
    pub plan: SandboxPlan,
    /// The program that its command names, absolute; `None` when it has no argument list or no such program is there.
    pub program: Option<PathBuf>,
}

/// Finds the program of an argument list as execvp(3) does. A shell's line and the runner need no search.
fn program(agent: &Agent, path: &str, working_dir: &Path) -> Option<PathBuf> {
    let ProcessCommand::Argv(argv) = &agent.process.as_ref()?.command else { return None };
    let name = argv.first()?;
    let candidates: Vec<PathBuf> = if name.contains('/') {
        vec![working_dir.join(name).components().collect()]
    } else {
        std::env::split_paths(path).map(|folder| folder.join(name)).collect()
    };
    let runs = |path: &PathBuf| path.is_file() && access(path, AccessFlags::X_OK).is_ok();
    candidates.into_iter().find(runs)
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
    /// What the agent asks for. Looks at the file system to follow links that lead out of the workspace.
    pub fn of(agent: &Agent, folders: &ProjectFolders, policy: &Policy) -> Self {
        let ground =
            Ground { workspace: &folders.workspace, user_home: &folders.user_home, resolve: &follow_links };
        let all = demands(&agent.confinement, &ground);
        let refused = refused(&all, policy).map(|(demand, refusal)| (demand.clone(), refusal)).collect();
        Self { all, refused }
    }
}

/// The home of the user who runs Toka: `HOME` when it names a folder, else what the user database says.
pub fn user_home() -> PathBuf {
    let variable = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
    let database = || nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten().map(|user| user.dir);
    variable.or_else(database).unwrap_or_else(|| PathBuf::from("/"))
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
