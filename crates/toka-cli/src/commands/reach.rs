//! The way from a command line to the daemon that it is about: which sockets there are, which project is meant, and which
//! of its agents.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context as _;
use toka_api::client::{Client, ClientError};
use toka_api::socket::{orphaned, project_of, sockets};
use toka_api::wire::{ProjectView, Refused};
use toka_core::{AgentName, AgentPattern, ExitCode, ProjectName, RunId};
use toka_prepare::folders::{lock_in, root_in};
use toka_prepare::lock::is_held;
use toka_project::{being_ended, left_behind};

use super::folders::{Folders, project, workspace};
use toka_terminal::failure::Failure;

/// How long a process that was killed may take until it is gone, after its socket is closed.
const DEAD_WITHIN: Duration = Duration::from_secs(1);

/// The options that say where to look.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Reach {
    /// The project [default: that of the current folder]
    #[arg(long, value_name = "NAME")]
    pub(crate) project: Option<ProjectName>,
    /// Look for daemons below this folder [env: TOKA_STATE_DIR]
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
}

/// The option of commands that only look, which find more ([`Purpose::Look`]).
pub(crate) fn looks(project: clap::Arg) -> clap::Arg {
    project.help("The project [default: that of the current folder, or the only one that has such agents]")
}

/// The option of commands that show all projects.
pub(crate) fn narrows(project: clap::Arg) -> clap::Arg {
    project.help("Only this project [default: all that run]")
}

/// What a command wants with the project that it looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To change something.
    Act,
    /// To look at it.
    Look,
}

/// Agents as a person names them: by a name, the common name of replicas, or a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AgentRef {
    /// Their project, when that was said.
    pub(crate) project: Option<ProjectName>,
    /// Who is meant.
    pub(crate) agent: AgentPattern,
}

/// Those of the agents of a project that are meant; all of them when nobody is named.
pub(crate) fn meant<'a>(
    wanted: &[AgentRef],
    project: &ProjectName,
    names: impl Iterator<Item = &'a AgentName> + Clone,
) -> BTreeSet<&'a AgentName> {
    if wanted.is_empty() {
        return names.collect();
    }
    let here = wanted.iter().filter(|wanted| wanted.project.as_ref().is_none_or(|name| name == project));
    here.flat_map(|wanted| wanted.agent.select(names.clone())).collect()
}

impl FromStr for AgentRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let pattern = |text: &str| text.parse::<AgentPattern>().map_err(|error| error.to_string());
        match text.split_once('/') {
            None => Ok(Self { project: None, agent: pattern(text)? }),
            Some((project, agent)) => {
                let project = ProjectName::new(project).map_err(|error| error.to_string())?;
                Ok(Self { project: Some(project), agent: pattern(agent)? })
            }
        }
    }
}

/// A project that runs, and who runs it.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// Who runs it.
    pub(crate) client: Client,
    /// The project.
    pub(crate) project: ProjectView,
}

impl Found {
    /// Its name.
    pub(crate) fn name(&self) -> &ProjectName {
        &self.project.overview.project
    }

    /// Its name, and the run that was found.
    pub(crate) fn run(&self) -> (&ProjectName, RunId) {
        (self.name(), self.project.overview.run)
    }

    fn names(&self) -> impl Iterator<Item = &AgentName> + Clone {
        self.project.agents.iter().map(|agent| &agent.name)
    }

    fn has(&self, agents: &[AgentRef]) -> bool {
        agents.iter().all(|wanted| !wanted.agent.select(self.names()).is_empty())
    }

    /// The agents that are meant, in the order of the plan; all of them when nobody is named.
    ///
    /// # Errors
    /// When the project has no such agent.
    pub(crate) fn agents(&self, wanted: &[AgentRef]) -> Result<Vec<AgentName>, Failure> {
        if let Some(missing) = wanted.iter().find(|wanted| wanted.agent.select(self.names()).is_empty()) {
            let names: Vec<&str> = self.names().map(AgentName::as_str).collect();
            let message = format!("there is no agent {} in the project {}", missing.agent, self.name());
            return Err(
                Failure::new(ExitCode::Usage, message).help(format!("its agents are: {}", names.join(", ")))
            );
        }
        let meant = meant(wanted, self.name(), self.names());
        Ok(self.names().filter(|name| meant.contains(name)).cloned().collect())
    }

    /// The one agent that is meant.
    ///
    /// # Errors
    /// When the project has no such agent, or several of them are meant.
    pub(crate) fn agent(&self, wanted: &AgentRef) -> Result<AgentName, Failure> {
        let mut found = self.agents(std::slice::from_ref(wanted))?;
        if found.len() > 1 {
            let names: Vec<&str> = found.iter().map(AgentName::as_str).collect();
            let message = format!("{} means {} agents: {}", wanted.agent, found.len(), names.join(", "));
            return Err(Failure::new(ExitCode::Usage, message).help("name one of them"));
        }
        Ok(found.swap_remove(0))
    }
}

/// Does something that waits, in a runtime of its own.
///
/// # Errors
/// When there is no runtime, or as `work` does.
pub(crate) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?.block_on(work)
}

impl Reach {
    /// The daemons whose sockets there are, the service first.
    ///
    /// # Errors
    /// When it cannot be said where sockets are.
    pub(crate) fn clients(&self) -> Result<Vec<Client>, Failure> {
        let run = Folders::find(self.state_dir.as_deref())?.run;
        let found = sockets(&run).map_err(|error| {
            let message = format!("cannot look for daemons in {}: {error}", run.display());
            Failure::new(ExitCode::StateFolder, message)
                .help("what is another user's is asked as that user, or as root; --state-dir names another state folder")
        })?;
        Ok(found.into_iter().map(Client::new).collect())
    }

    /// Everything that runs, by name.
    ///
    /// # Errors
    /// When a daemon answers with nonsense. One that does not answer any more is left out.
    pub(crate) async fn running(&self) -> anyhow::Result<Vec<Found>> {
        let mut found = Vec::new();
        for client in self.clients()? {
            match client.settled(Client::projects).await.map_err(failure)? {
                Some(projects) => {
                    found.extend(
                        projects.into_iter().map(|project| Found { client: client.clone(), project }),
                    );
                }
                // Only then it is known whether the run has ended, or was killed and has left agents.
                None => {
                    if let Some(project) = project_of(client.socket()) {
                        drop(self.settled(&project, DEAD_WITHIN).await?);
                    }
                }
            }
        }
        found.sort_by(|a, b| a.name().cmp(b.name()));
        Ok(found)
    }

    /// The project that these agents are of: the one that was named, or that of the current folder. Who only looks gets the only
    /// one that has such agents, too; who acts never acts on what runs elsewhere without naming it.
    ///
    /// # Errors
    /// When it does not run, or it cannot be said which one is meant.
    pub(crate) async fn find(&self, agents: &[AgentRef], purpose: Purpose) -> anyhow::Result<Found> {
        let named = self.named(agents)?;
        let mut running = self.running().await?;
        if running.is_empty() {
            return Err(self.nothing_found().await.into());
        }
        if let Some(name) = named {
            if let Some(at) = running.iter().position(|found| *found.name() == name) {
                return Ok(running.swap_remove(at));
            }
            let left = self.left()?.only(&name).failure();
            return Err(left.unwrap_or_else(|| does_not_run(&name, &running)).into());
        }
        let here = Self::of_this_folder(&running);
        if !here.is_empty() {
            running.retain(|found| here.contains(found.name()));
            if running.len() == 1 {
                return Ok(running.swap_remove(0));
            }
        } else if purpose == Purpose::Act {
            return Err(not_of_this_folder(&running, agents).into());
        }
        let names: Vec<ProjectName> = running.iter().map(|found| found.name().clone()).collect();
        let mut fitting: Vec<Found> = running.into_iter().filter(|found| found.has(agents)).collect();
        match (fitting.pop(), fitting.is_empty(), agents) {
            (Some(only), true, _) => Ok(only),
            (None, true, [agent, ..]) => {
                let names: Vec<&str> = names.iter().map(ProjectName::as_str).collect();
                Err(no_agent(agent)
                    .help(format!("what runs: {}; `toka ps` lists its agents", names.join(", ")))
                    .into())
            }
            _ => Err(which_one(&names).into()),
        }
    }

    /// The projects that run in the current folder, or in the nearest one above it.
    pub(super) fn of_this_folder(running: &[Found]) -> Vec<ProjectName> {
        let Ok(here) = workspace(None) else { return Vec::new() };
        let workspace = |found: &Found| found.project.overview.workspace.clone();
        let above = running.iter().map(workspace).filter(|workspace| here.starts_with(workspace));
        let nearest = above.max_by_key(|workspace| workspace.components().count());
        let mine = running.iter().filter(|found| Some(workspace(found)) == nearest);
        mine.map(|found| found.name().clone()).collect()
    }

    /// What is left of daemons and runs that were killed.
    ///
    /// # Errors
    /// When it cannot be said where sockets are.
    pub(crate) fn left(&self) -> Result<Left, Failure> {
        let folders = Folders::find(self.state_dir.as_deref())?;
        let orphaned = orphaned(&folders.run);
        let mut ending = being_ended(&folders.state, &folders.run);
        ending.retain(|project| !orphaned.contains(project));
        let behind = left_behind(&folders.state, &folders.run);
        Ok(Left { orphaned, ending, behind })
    }

    /// What is left of a run of `project` at whose socket nobody answers, once its process is gone: until then the project's lock
    /// is that process's. None when it is not gone `within` that time.
    ///
    /// # Errors
    /// When it cannot be said where sockets are.
    pub(crate) async fn settled(
        &self,
        project: &ProjectName,
        within: Duration,
    ) -> Result<Option<Left>, Failure> {
        let lock = lock_in(&root_in(&Folders::find(self.state_dir.as_deref())?.state, project));
        let deadline = tokio::time::Instant::now() + within;
        loop {
            let left = self.left()?.only(project);
            if left.failure().is_some() || !is_held(&lock) {
                return Ok(Some(left));
            }
            if tokio::time::Instant::now() >= deadline {
                return Ok(None);
            }
            // It is no child of ours: there is nothing to wait for but its lock.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Whether somebody named a state folder that is not there.
    ///
    /// # Errors
    /// When it cannot be said where sockets are.
    pub(crate) fn names_nothing(&self) -> Result<bool, Failure> {
        let is_named = self.state_dir.is_some() || std::env::var_os(super::folders::STATE_VARIABLE).is_some();
        Ok(is_named && !Folders::find(self.state_dir.as_deref())?.state.exists())
    }

    /// Those of what runs that are meant.
    ///
    /// # Errors
    /// When others run, and the project that was named does not.
    pub(crate) fn named_among(&self, mut found: Vec<Found>) -> Result<Vec<Found>, Failure> {
        let Some(name) = &self.project else { return Ok(found) };
        if !found.is_empty() && found.iter().all(|it| it.name() != name) {
            return Err(does_not_run(name, &found));
        }
        found.retain(|it| it.name() == name);
        Ok(found)
    }

    /// That nothing runs: a daemon says so, or there is none, or it is gone.
    async fn nothing_found(&self) -> Failure {
        if let Some(failure) = self.left().ok().and_then(|left| left.failure()) {
            return failure;
        }
        for client in self.clients().unwrap_or_default() {
            if client.projects().await.is_ok() {
                return Failure::new(
                    ExitCode::NoDaemon,
                    "nothing runs: the daemon that answers has no project",
                )
                .help("start something with `toka run`, or in the background with `toka run --detach`");
            }
        }
        self.nothing_runs()
    }

    /// That nothing runs, or that its daemon is gone.
    pub(crate) fn nothing_runs(&self) -> Failure {
        self.left().ok().and_then(|left| left.failure()).unwrap_or_else(|| self.nothing_is_there())
    }

    /// Where daemons were looked for, in a sentence.
    pub(crate) fn asked(&self) -> Option<String> {
        let folders = Folders::find(self.state_dir.as_deref()).ok()?;
        let (state, run) = (folders.state.display(), folders.run.display());
        let inside =
            std::env::var_os("TOKA_AGENT").map_or("", |_| "; an agent does not see the daemon that runs it");
        Some(format!(
            "asked in {run}, for the state folder {state}; --state-dir or TOKA_STATE_DIR names another{inside}"
        ))
    }

    /// That nothing runs, and where nobody answered: the state folder may be another one than was meant.
    fn nothing_is_there(&self) -> Failure {
        let Ok(folders) = Folders::find(self.state_dir.as_deref()) else { return nothing_runs() };
        let (state, run) = (folders.state.display(), folders.run.display());
        if !folders.state.exists() {
            return Failure::new(
                ExitCode::NoDaemon,
                format!("nothing runs: there is no state folder {state}"),
            )
            .help("name the one that is meant with --state-dir or TOKA_STATE_DIR");
        }
        Failure::new(ExitCode::NoDaemon, format!("nothing runs: nobody answers in {run}"))
            .help("start something with `toka run`, or in the background with `toka run --detach`")
    }

    /// The project that was said, by the option or with the agents.
    fn named(&self, agents: &[AgentRef]) -> Result<Option<ProjectName>, Failure> {
        let mut names: Vec<&ProjectName> =
            self.project.iter().chain(agents.iter().filter_map(|agent| agent.project.as_ref())).collect();
        names.sort();
        names.dedup();
        match names.as_slice() {
            [] => Ok(None),
            [name] => Ok(Some((*name).clone())),
            several => Err(Failure::new(
                ExitCode::Usage,
                format!("one command is about one project, not {} and {}", several[0], several[1]),
            )),
        }
    }

    /// What the project of the current folder is called.
    pub(crate) fn here(&self) -> Option<ProjectName> {
        let state = Folders::find(self.state_dir.as_deref()).ok()?.state;
        project(None, &workspace(None).ok()?, &state).ok()
    }
}

/// The error of a client as that of a command.
pub(crate) fn failure(error: ClientError) -> Failure {
    match error {
        ClientError::Refused(refused) => of_refusal(*refused),
        ClientError::NobodyThere { .. } => nothing_runs(),
        ClientError::Broken { .. } => Failure::new(ExitCode::NoDaemon, error.to_string())
            .help("the daemon ended or was replaced before it answered; `toka ps` shows what became of it"),
    }
}

/// That no agent of what runs is called so.
pub(crate) fn no_agent(wanted: &AgentRef) -> Failure {
    let name = match &wanted.project {
        Some(project) => format!("{project}/{}", wanted.agent),
        None => wanted.agent.to_string(),
    };
    Failure::new(ExitCode::Usage, format!("there is no agent {name}")).help("`toka ps` lists what runs")
}

fn of_refusal(refused: Refused) -> Failure {
    let Refused { error, help, exit_code, parts, rendered } = refused;
    if let Some(text) = rendered {
        eprint!("{text}");
    }
    let failure = Failure::new(ExitCode::from_u8(exit_code), error).parts(parts);
    match help {
        Some(help) => failure.help(help),
        None => failure,
    }
}

/// Projects whose agents run while no daemon and no run answers for them.
#[derive(Debug, Default)]
pub(crate) struct Left {
    /// Projects whose daemon was killed, and whose keepers wait for the next.
    pub(crate) orphaned: Vec<ProjectName>,
    /// Projects whose run in the foreground was killed, and whose keepers end the agents.
    pub(crate) ending: Vec<ProjectName>,
    /// Projects whose run in the foreground was killed with its keeper, and whose agents run on.
    pub(crate) behind: Vec<ProjectName>,
}

impl Left {
    /// The same without the projects that a daemon answers for: their keepers have sockets, too.
    pub(crate) fn but(mut self, answers: impl Fn(&ProjectName) -> bool) -> Self {
        let is_left = |project: &ProjectName| !answers(project);
        self.orphaned.retain(is_left);
        self.ending.retain(is_left);
        self.behind.retain(is_left);
        self
    }

    /// What is left of one project.
    pub(crate) fn only(self, name: &ProjectName) -> Self {
        self.but(|project| project != name)
    }

    /// Whether anything is left of this project.
    pub(crate) fn has(&self, name: &ProjectName) -> bool {
        [&self.orphaned, &self.ending, &self.behind].into_iter().any(|left| left.contains(name))
    }

    /// It as the reason why a command finds nothing that answers; none when nothing is left.
    pub(crate) fn failure(&self) -> Option<Failure> {
        let names =
            |left: &[ProjectName]| left.iter().map(ProjectName::as_str).collect::<Vec<_>>().join(", ");
        let (mut messages, mut help) = (Vec::new(), Vec::new());
        if !self.orphaned.is_empty() {
            messages.push(format!(
                "the daemon is gone, and no other looks after what it ran: {}",
                names(&self.orphaned)
            ));
            help.push("`toka serve --detach` begins one that takes it over");
        }
        if !self.behind.is_empty() {
            let names = names(&self.behind);
            messages.push(format!("the run and its keeper were killed, and the agents run on: {names}"));
            help.push("`toka down` kills them, and so does the next `toka run`");
        }
        if !self.ending.is_empty() {
            let names = names(&self.ending);
            messages.push(format!("the run was killed, and its keeper ends the agents: {names}"));
            help.push("`toka down` waits for that; each agent has its grace period, after which the keeper kills it");
        }
        (!messages.is_empty())
            .then(|| Failure::new(ExitCode::NoDaemon, messages.join("; ")).help(help.join("; ")))
    }
}

/// Nobody answers.
pub(crate) fn nothing_runs() -> Failure {
    Failure::new(ExitCode::NoDaemon, "nothing runs")
        .help("start something with `toka run`, or in the background with `toka run --detach`")
}

fn does_not_run(name: &ProjectName, running: &[Found]) -> Failure {
    let names: Vec<&str> = running.iter().map(|found| found.name().as_str()).collect();
    Failure::new(ExitCode::NoDaemon, format!("the project {name} does not run"))
        .help(format!("what runs: {}", names.join(", ")))
}

/// That nothing of the current folder runs, and what runs elsewhere: who means that, names it.
fn not_of_this_folder(running: &[Found], agents: &[AgentRef]) -> Failure {
    let shown = |found: &Found| format!("{} ({})", found.name(), found.project.overview.workspace.display());
    let names: Vec<String> = running.iter().map(shown).collect();
    let example = match (agents, running) {
        ([agent, ..], [only]) if only.has(agents) => format!("{}/{}", only.name(), agent.agent),
        (_, [first, ..]) => format!("--project {}", first.name()),
        _ => "--project NAME".to_owned(),
    };
    let folder =
        workspace(None).map_or_else(|_| "this folder".to_owned(), |folder| folder.display().to_string());
    Failure::new(ExitCode::NoDaemon, format!("nothing of {folder} runs"))
        .help(format!("elsewhere runs {}; to act on that, say so: {example}", names.join(", ")))
}

fn which_one(names: &[ProjectName]) -> Failure {
    let names: Vec<&str> = names.iter().map(ProjectName::as_str).collect();
    Failure::new(ExitCode::Usage, "it is not clear which project is meant")
        .help(format!("name it with --project, or write PROJECT/AGENT; what runs: {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_are_named_with_or_without_their_project() {
        let name = |text| AgentName::new(text).expect("a label");
        let agent = || AgentPattern::Name(name("api"));
        assert_eq!("api".parse(), Ok(AgentRef { project: None, agent: agent() }));
        assert_eq!("shop/api".parse(), Ok(AgentRef { project: Some(name("shop")), agent: agent() }));
        for bad in ["", "a/b/c", "A", "../x"] {
            assert!(bad.parse::<AgentRef>().is_err(), "{bad}");
        }
    }

    #[test]
    fn one_command_is_about_one_project() {
        let agents: Vec<AgentRef> = ["a/x", "b/y"].iter().filter_map(|text| text.parse().ok()).collect();
        assert!(Reach::default().named(&agents).is_err());
        assert_eq!(Reach::default().named(&agents[..1]).expect("one").expect("named").as_str(), "a");
    }
}
