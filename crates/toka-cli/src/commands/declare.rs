//! The options that say what a project is to be: which workstreams, in which folder, with which grants.

use std::num::NonZeroUsize;

use toka_api::caller::Caller;
use toka_api::declaration::{Declaration, StopRules};
use toka_core::{AgentName, ExitCode, PressureLimits};
use toka_prepare::Models;
use toka_prepare::folders::ProjectFolders;
use toka_workstream::Set;

use super::folders::Place;
use super::policy::Grants;
use super::trust::{self, Ask};
use super::workstreams::{Only, Ready, Selection};
use toka_terminal::failure::Failure;

/// What a project is to be.
#[derive(Debug, clap::Args)]
pub(crate) struct Declare {
    #[command(flatten)]
    pub(crate) selection: Selection,
    #[command(flatten)]
    pub(crate) only: Only,
    #[command(flatten)]
    pub(crate) place: Place,
    /// Run at most so many agents at once
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) max_concurrent: Option<NonZeroUsize>,
    /// Start nothing while more of the time than this, in percent, is spent waiting for memory; 100: never wait [default: 20]
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(0..=100))]
    pub(crate) max_memory_pressure: Option<u32>,
    /// The same for storage [default: 60]
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(0..=100))]
    pub(crate) max_io_pressure: Option<u32>,
    /// Stop the run when any agent fails
    #[arg(long)]
    fail_fast: bool,
    /// Stop the run when this agent ends, and end with its exit status; not with --detach
    #[arg(long, value_name = "AGENT")]
    exit_code_from: Option<AgentName>,
    #[command(flatten)]
    pub(crate) grants: Grants,
}

fn at_least_one(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().map_err(|_| "a number from 1 is meant; without the option there is no limit".to_owned())
}

impl Declare {
    /// What is declared without options of its own.
    pub(crate) fn of(selection: Selection, place: Place, grants: Grants) -> Self {
        Self {
            selection,
            only: Only::default(),
            place,
            max_concurrent: None,
            max_memory_pressure: None,
            max_io_pressure: None,
            fail_fast: false,
            exit_code_from: None,
            grants,
        }
    }

    /// Where everything of the project lies.
    ///
    /// # Errors
    /// When a folder cannot be used, or no project can be named after the workspace.
    pub(crate) fn folders(&self) -> Result<ProjectFolders, Failure> {
        self.place.folders()
    }

    /// The same for what is about to begin: the project's name is this workspace's from now on.
    ///
    /// # Errors
    /// As above; and when the name that was said is another workspace's.
    pub(crate) fn taken(&self) -> Result<ProjectFolders, Failure> {
        self.place.taken()
    }

    /// Which ends of agents end the run.
    ///
    /// # Errors
    /// When there is no such agent.
    pub(crate) fn stop_rules(&self, set: &Set) -> Result<StopRules, Failure> {
        if let Some(agent) = self.exit_code_from.as_ref().filter(|agent| set.agent(agent).is_none()) {
            let names: Vec<&str> = set.agents.iter().map(|agent| agent.name.as_str()).collect();
            let replicas = set.agents.iter().filter(|other| other.declared_name() == agent).count();
            let message = match replicas {
                0 => format!("--exit-code-from: no agent is called {agent}"),
                count => {
                    format!("--exit-code-from: {agent} is {count} replicas, and one of them is to be named")
                }
            };
            return Err(
                Failure::new(ExitCode::Usage, message).help(format!("the agents are {}", names.join(", ")))
            );
        }
        Ok(StopRules { fail_fast: self.fail_fast, exit_code_from: self.exit_code_from.clone() })
    }

    /// The agents that were read as a declaration of this project. The person at the terminal is asked for what they demand
    /// and nobody has granted.
    ///
    /// # Errors
    /// When the policy file cannot be read.
    pub(crate) fn declaration(
        &self,
        ready: &Ready,
        folders: &ProjectFolders,
        ask: Ask,
    ) -> Result<Declaration, Failure> {
        let caller = Caller::of_this_process();
        let granted = trust::resolve(&ready.set, folders, self.grants.granted(folders, &ready.set)?, ask)?;
        Ok(Declaration {
            files: ready.files.clone(),
            resume: None,
            enable: ready.enable.clone(),
            model: ready.model.clone(),
            only: ready.only.clone(),
            stop: self.stop_rules(&ready.set)?,
            workspace: folders.workspace.clone(),
            trusted_hosts: granted.hosts,
            policy: granted.policy,
            environment: Declaration::environment_of(
                &caller,
                &ready.set.agents,
                &Models::variables(&granted.models),
            ),
            models: granted.models,
            max_concurrent: self.max_concurrent.map(NonZeroUsize::get),
            pressure: PressureLimits { memory: self.max_memory_pressure, io: self.max_io_pressure },
            home: caller.home,
        })
    }
}
