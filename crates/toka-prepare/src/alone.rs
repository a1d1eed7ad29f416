//! One command as an agent would be executed, with no run around it: the same admission, the same rules, user, environment and
//! secrets, so that what a policy denies an agent it denies this command too.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::Arc;

use thiserror::Error;
use toka_api::caller::Caller;
use toka_core::capability::Policy;
use toka_core::{Confinement, Declared, RunId};
use toka_keeper::Program;
use toka_runtime::Command;
use toka_runtime::program::{self, ProgramError};
use toka_sandbox::{AgentFolders, HostFacts};
use toka_workstream::{
    Agent, Hooks, Plan, Probes, Process, ProcessCommand, Reporting, Set, Sources, Tty, User, plan,
};
use uuid::Uuid;

use crate::admission::{Admitted, Context, admit};
use crate::confine::{Confiner, workspace_facts};
use crate::environment::PROXIES;
use crate::folders::ProjectFolders;
use crate::models::Models;
use crate::problem::{Problem, ProblemKind};
use crate::users::{Claim, Users};
use crate::workplace::{self, Remains};
use crate::{RunError, furnishing, secrets};

/// Variables that lead to a daemon, which is not there.
const OF_A_DAEMON: [&str; 2] = ["NOTIFY_SOCKET", "TOKA_SOCKET"];

/// Why the command is not executed.
#[derive(Debug, Error)]
pub enum AloneError {
    /// There is no such program.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// An agent so declared would not be started.
    #[error(transparent)]
    Refused(#[from] RunError),
}

/// An agent, and where its command is executed.
pub struct Alone<'a> {
    /// The agent; what it does and waits for makes no difference.
    pub agent: &'a Agent,
    /// What is granted and denied.
    pub policy: &'a Policy,
    /// The project that the workspace would be.
    pub project: &'a ProjectFolders,
    /// The command's own directories.
    pub own: &'a AgentFolders,
    /// The `toka` binary.
    pub toka_exe: &'a Path,
    /// What the host can do.
    pub host: &'a HostFacts,
}

/// Nobody would serve its port.
fn without_models(agent: &Agent) -> Agent {
    Agent {
        model: None,
        confinement: Confinement { model: None, ..agent.confinement.clone() },
        ..agent.clone()
    }
}

impl Alone<'_> {
    /// Admits the agent with these words in the place of its command, and makes what it needs; what is to be executed, and what
    /// of the declaration is not in force.
    ///
    /// # Errors
    /// When there is no such program; with every problem that would keep a run from starting the agent; when a directory or a
    /// secret cannot be made.
    pub fn furnish(&self, words: &[OsString]) -> Result<(Command, Vec<String>), AloneError> {
        let set = Set { agents: vec![without_models(&without_work(self.agent))], ..Set::default() };
        let (Some(plan), _) = plan(&set, &Sources::default()) else {
            return Err(RunError::Refused(Vec::new()).into());
        };
        let caller = Caller::of_this_process();
        let admitted = self.admit((&set, &plan), &caller, None)?;
        let path = admitted.command.env.iter().find(|(name, _)| name == "PATH");
        let path = path.map_or(OsStr::new(""), |(_, path)| path.as_os_str());
        let word = words.first().map_or(OsStr::new(""), OsString::as_os_str);
        let program = program::find(word, &admitted.folders.working_dir, path)?;
        let admitted = self.admit((&set, &plan), &caller, Some(&program))?;
        make(&set.agents[0], &admitted, &caller)?;
        let Admitted { mut command, mut warnings, .. } = admitted;
        if command.plan.listen.is_some() {
            // A port that nobody serves would take connections, and never answer.
            Arc::make_mut(&mut command.plan).listen = None;
            command.env.retain(|(name, _)| PROXIES.iter().all(|other| name != other));
            warnings.push(
                "no host is reached: the proxy that leads there is served where Toka runs the agent"
                    .to_owned(),
            );
        }
        command.env.retain(|(name, _)| OF_A_DAEMON.iter().all(|other| name != other));
        Ok((Command { program: Program::Path(program), argv: words.to_vec(), ..command }, warnings))
    }

    fn admit(
        &self,
        (set, plan): (&Set, &Plan),
        caller: &Caller,
        chosen: Option<&Path>,
    ) -> Result<Admitted, RunError> {
        let facts = workspace_facts(set, self.project);
        let users = Users::of(&set.agents, self.project, Claim::Look);
        let (project, policy) = (self.project, self.policy);
        let confiner = Confiner {
            host: self.host,
            project: &project.project,
            toka_exe: self.toka_exe,
            facts: &facts,
            users: &users,
            chosen,
            path: caller.variable("PATH").unwrap_or_default(),
        };
        let run = RunId::from_uuid(Uuid::nil());
        let models = Models::default();
        let context = Context { plan, policy, caller, project, confiner, models: &models, run };
        let agent = &set.agents[0];
        let own = AgentFolders { working_dir: project.working_dir(agent), ..self.own.clone() };
        admit(agent, own, context).map_err(RunError::Refused)
    }
}

/// The agent with nothing to do, to wait for, to ask or to report.
fn without_work(agent: &Agent) -> Agent {
    let nothing = Some(ProcessCommand::Shell(String::new()));
    let process = match agent.process.clone() {
        Some(process) => Process { command: nothing, preset: None, tty: Tty::Pipes, ..process },
        None => Process {
            preset: None,
            command: nothing,
            command_origin: agent.origin.clone(),
            working_dir: Declared::by_default(".".to_owned(), "working folder is the workspace"),
            environment: BTreeMap::new(),
            environment_from: Vec::new(),
            environment_file: Vec::new(),
            user: Declared::by_default(User::Invoking, "user is whoever runs Toka"),
            tty: Tty::Pipes,
        },
    };
    Agent {
        process: Some(process),
        tasks: Vec::new(),
        dependencies: Vec::new(),
        probes: Probes::default(),
        schedule: None,
        watchdog: None,
        hooks: Hooks::default(),
        objectives: Vec::new(),
        reporting: Reporting::default(),
        ..agent.clone()
    }
}

fn make(agent: &Agent, admitted: &Admitted, caller: &Caller) -> Result<(), RunError> {
    let Admitted { folders, secrets, .. } = admitted;
    workplace::make_private(&folders.door)
        .and_then(|()| furnishing::make(admitted, Remains::OfThisRun))
        .map_err(RunError::Folder)?;
    secrets::write(secrets, &folders.credentials, caller, &folders.workspace).map(drop).map_err(|message| {
        let (kind, name, origin) = (ProblemKind::Unconfigured, agent.name.clone(), agent.origin.clone());
        RunError::Refused(vec![Problem { kind, agent: name, origin, message, help: String::new() }])
    })
}
