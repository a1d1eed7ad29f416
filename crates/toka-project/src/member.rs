//! One agent as its project holds it, and how an admitted agent becomes one.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use toka_broker::Broker;
use toka_core::demand::normalise;
use toka_core::health::Expected;
use toka_core::{
    AgentName, AgentProgram, Budget, Capability, Confinement, Declared, EventKind, NetworkAccess, Request,
    Resources, RunId, SandboxMode, SessionKey,
};
use toka_gateway::LeftBatch;
use toka_keeper::protocol::Entry;
use toka_keeper::{Keeper, ProcessId};
use toka_logs::{LogPlace, LogRetention};
use toka_prepare::admission::Admitted;
use toka_prepare::folders::ProjectFolders;
use toka_prepare::furnishing::Furnishing;
use toka_prepare::objectives::{Check, are_ignored, checks};
use toka_prepare::secrets::FoundSecret;
use toka_prepare::sweeper::Private;
use toka_prepare::workplace::WorkingDirs;
use toka_prepare::{Models, Problem, about, task_list};
use toka_runtime::{
    Adjustment, Adopted, AgentHandle, DeclaredWalls, DiskGauge, DiskLimit, Hooks, Launch, Profile, Runtime,
    ServesPort, StopPolicy, WorksOnTasks,
};
use toka_sandbox::{AgentFolders, GroupLimits};
use toka_session::{McpServer, SessionCheck, SessionConfig, SessionFolder, SessionWorker};
use toka_workstream::{Agent, Channel, Hook, Plan, ProcessCommand, Set};

use crate::admit::{AdmittedAgents, Furnishings};
use crate::facts::expected;
use crate::journal::Journal;
use crate::models::{AgentPort, Persons, SessionModels};
use crate::objective_checks::{CheckControl, CheckRun, CheckingSink, ObjectiveChecks};

/// One agent.
pub(crate) struct Member {
    pub(crate) id: ProcessId,
    pub(crate) handle: AgentHandle,
    /// Its folders.
    pub(crate) furnishing: Arc<Furnishing>,
    pub(crate) private: Private,
    pub(crate) grounds: WorkingDirs,
    pub(crate) secrets: Arc<[FoundSecret]>,
    /// What its health is measured by.
    pub(crate) expected: Arc<Expected>,
    /// What its environment files said at its start, as a hash; `None` when it names none, or that is not known.
    pub(crate) environment_files: Option<u64>,
    /// What it holds on disk, and may.
    pub(crate) disk: Option<DiskLimit>,
    /// Watches the checks of its objectives, if it has any.
    pub(crate) check_control: Option<Arc<CheckControl>>,
    /// Whether a person is asked about a path at which it ends.
    pub(crate) asks_paths: bool,
    /// Its name in its file, and that file.
    pub(crate) declared: (AgentName, PathBuf),
    /// Who works on its tasks, where a model does.
    pub(crate) session: Option<SessionWorker>,
}

impl Member {
    /// The figures of its groups, with those of its folders.
    pub(crate) fn with_disk(disk: Option<&DiskLimit>, figures: Option<Resources>) -> Option<Resources> {
        let Some(disk) = disk else { return figures };
        let (disk_used, disk_limit) = (disk.gauge.bytes(), Some(disk.limit.0));
        Some(Resources { disk_used, disk_limit, ..figures.unwrap_or_default() })
    }

    /// Says how it is started again, which could not be told when it was taken over; its life goes on.
    pub(crate) fn equip(&mut self, admitted: Admitted) {
        Arc::make_mut(&mut self.expected).unstartable = None;
        self.furnishing.supply(&admitted);
        self.secrets = admitted.secrets.into();
        self.environment_files = admitted.environment_files;
        self.handle.equip(admitted.command);
    }

    /// Takes over what of its declaration is another and its process does not depend on.
    pub(crate) fn adjust(&mut self, agent: &Agent) {
        self.handle.adjust(Adjustment {
            stop: stop_policy(agent),
            restart: agent.restart,
            success: agent.success.clone(),
            logs: agent.logs,
            limits: GroupLimits::of(&agent.confinement),
        });
        let known = Arc::make_mut(&mut self.expected);
        known.restart_window = expected(agent).restart_window;
    }

    /// Why it does not go on after its daemon ended, although it should.
    pub(crate) fn cut_off(&mut self, why: Option<&str>) {
        Arc::make_mut(&mut self.expected).cut_off = why.map(Into::into);
    }

    /// Ends the agent, and the checks of its objectives, which may run when its own processes are gone already.
    pub(crate) fn end(&self, request: Request, by: &str) {
        self.handle.tell(request, by);
        if let Some(check_control) = &self.check_control {
            check_control.tell(request, by);
        }
    }
}

fn mcp_server(declared: &toka_workstream::McpServer) -> McpServer {
    McpServer { name: declared.name.clone(), argv: declared.command.clone() }
}

/// Tokens of one answer of a model, where nobody says otherwise.
const MOST_OUTPUT: u64 = 16_384;
/// Tokens of a request, where nobody says otherwise: few models have less room.
const MOST_CONTEXT: u64 = 110_000;
/// From here on the runtime counts the commands that it runs beside agents.
const FIRST_OF_COMMANDS: u64 = 1 << 32;

/// Numbers of processes, unique for the keeper of a run, from 1.
#[derive(Debug, Default)]
pub(crate) struct Ids(u64);

impl Ids {
    /// Those that come after the agents' processes that a keeper knows.
    pub(crate) fn after(holdings: &[Entry]) -> Self {
        let agents = holdings.iter().filter(|entry| entry.beside.is_none()).map(|entry| entry.id.0);
        Self(agents.filter(|id| *id < FIRST_OF_COMMANDS).max().unwrap_or(0))
    }

    pub(crate) fn next(&mut self) -> ProcessId {
        self.0 += 1;
        ProcessId(self.0)
    }
}

/// What members are made with.
pub(crate) struct MemberBuilder<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) folders: &'a ProjectFolders,
    pub(crate) journal: &'a Arc<Journal>,
    pub(crate) runtime: &'a Runtime<Keeper>,
    pub(crate) log_retention: &'a LogRetention,
    pub(crate) run: RunId,
    pub(crate) models: &'a Models,
    pub(crate) broker: &'a Arc<Broker>,
    /// The session with which an agent goes on that a person talks to.
    pub(crate) resume: Option<&'a SessionKey>,
    pub(crate) ids: &'a mut Ids,
    /// Folders of agents that have some already.
    pub(crate) furnishings: Furnishings,
    /// Batches of the next agent that the daemon before has begun.
    pub(crate) left: Vec<LeftBatch>,
}

impl MemberBuilder<'_> {
    /// Makes the actor of an agent, and tells what of its declaration is not in force.
    pub(crate) fn spawn(&mut self, agent: &Agent, admitted: Admitted) -> Member {
        for message in not_in_force(agent).into_iter().chain(admitted.warnings.clone()) {
            drop(self.journal.record(Some(agent.name.clone()), EventKind::Warning { message }));
        }
        let (private, grounds) = (Private::of(&admitted.folders), WorkingDirs::of(&admitted.folders));
        let working_dir = admitted.folders.working_dir.clone();
        let furnishing = self.furnishings.remove(&agent.name);
        let furnishing = furnishing.unwrap_or_else(|| Arc::new(Furnishing::due(&admitted)));
        let environment_files = admitted.environment_files;
        let admitted_secrets = admitted.secrets.clone().into();
        let id = self.ids.next();
        let log = self.folders.log(&agent.name);
        let log = LogPlace::of_run(log, self.run, agent.logs, self.log_retention);
        let mut launch = launch(agent, admitted, id, log, self.plan);
        launch.profile.port = self.port(agent);
        let session = self.session(agent, &working_dir);
        launch.profile.worker = session.clone().map(|session| Arc::new(session) as Arc<dyn WorksOnTasks>);
        let disk = launch.profile.disk.clone();
        let (handle, check_control) = self.actor(agent, launch, working_dir);
        let (secrets, expected) = (admitted_secrets, Arc::new(expected(agent)));
        let asks_paths = agent.confinement.asks_paths.is_some();
        let declared = (agent.declared_name().clone(), agent.file.clone());
        Member {
            id,
            handle,
            furnishing,
            private,
            grounds,
            secrets,
            expected,
            environment_files,
            disk,
            check_control,
            asks_paths,
            declared,
            session,
        }
    }

    /// Makes the actor of an agent whose life goes on. One that is not admitted any more lives on, and is not started again
    /// by itself.
    pub(crate) fn adopt(
        &mut self,
        agent: &Agent,
        folders: AgentFolders,
        admitted: Result<Admitted, Vec<Problem>>,
        id: Option<ProcessId>,
        life: Adopted,
    ) -> Member {
        let id = id.unwrap_or_else(|| self.ids.next());
        let (private, grounds) = (Private::of(&folders), WorkingDirs::of(&folders));
        let working_dir = folders.working_dir.clone();
        let furnishing = self.furnishings.remove(&agent.name).unwrap_or_else(|| {
            Arc::new(admitted.as_ref().map_or_else(|_| Furnishing::lacking(), Furnishing::due))
        });
        let log = LogPlace::of_run(self.folders.log(&agent.name), self.run, agent.logs, self.log_retention);
        let program = admitted.as_ref().ok().and_then(|admitted| admitted.agent_program.clone());
        let mut profile = profile(agent, program, folders, id, log, self.plan);
        profile.port = self.port(agent);
        let session = self.session(agent, &working_dir);
        profile.worker = session.clone().map(|session| Arc::new(session) as Arc<dyn WorksOnTasks>);
        // What it said when its life began is not known; from now on another content is a change.
        let environment_files = admitted.as_ref().ok().and_then(|admitted| admitted.environment_files);
        let secrets = admitted.as_ref().map(|admitted| admitted.secrets.clone()).unwrap_or_default().into();
        let command = admitted.map(|admitted| admitted.command).map_err(|problems| lack(&problems));
        let unstartable = command.as_ref().err().map(|why| why.as_str().into());
        if let Err(why) = command.as_ref()
            && !life.state.is_final()
        {
            let message = format!("it goes on, and cannot be started again as it is declared: {why}");
            drop(self.journal.record(Some(agent.name.clone()), EventKind::Warning { message }));
        }
        let disk = profile.disk.clone();
        let handle = self.runtime.adopt(profile, command, life);
        let expected = Arc::new(Expected { unstartable, ..expected(agent) });
        Member {
            id,
            handle,
            furnishing,
            private,
            grounds,
            secrets,
            expected,
            environment_files,
            disk,
            check_control: None,
            asks_paths: agent.confinement.asks_paths.is_some(),
            declared: (agent.declared_name().clone(), agent.file.clone()),
            session,
        }
    }

    /// Who serves the port at which it reaches models and hosts, if it has one.
    fn port(&mut self, agent: &Agent) -> Option<Arc<dyn ServesPort>> {
        let confinement = &agent.confinement;
        if !confinement.has_port() {
            return None;
        }
        if confinement.has_model_port() {
            self.broker.declare(&agent.name, budget_of(agent));
        }
        let declared = agent.model.iter().flat_map(|model| &model.chain);
        Some(Arc::new(AgentPort {
            declared_name: agent.declared_name().clone(),
            key: confinement.has_model_port().then(|| self.models.key_of(self.run, &agent.name)),
            declared: declared.map(|name| name.value.clone()).collect(),
            // One whose script is wrong is not admitted.
            providers: Arc::clone(self.models.of(agent).unwrap_or(self.models.current())),
            joins: agent.model.as_ref().is_none_or(|model| model.joins),
            left: Mutex::new(std::mem::take(&mut self.left)),
            batches: agent.model.as_ref().is_some_and(|model| model.batches),
            secrets: Arc::clone(self.models.secrets()),
            broker: Arc::clone(self.broker),
            stand_ins: confinement.network.value.stand_ins(),
            hosts: confinement.network.value.hosts(),
            asks_hosts: confinement.asks_hosts,
            rate: confinement.limits.network_bandwidth.as_ref().map(|rate| rate.value.0),
        }))
    }

    /// Who works on its tasks, where they stand in words and no program does.
    fn session(&self, agent: &Agent, working_dir: &Path) -> Option<SessionWorker> {
        if !agent.confinement.by_model {
            return None;
        }
        self.broker.declare(&agent.name, budget_of(agent));
        let declared = agent.model.iter().flat_map(|model| &model.chain);
        let models = SessionModels {
            declared_name: agent.declared_name().clone(),
            declared: declared.map(|name| name.value.clone()).collect(),
            providers: Arc::clone(self.models.of(agent).unwrap_or(self.models.current())),
            secrets: Arc::clone(self.models.secrets()),
            broker: Arc::clone(self.broker),
        };
        Some(SessionWorker::new(SessionConfig {
            run: self.run,
            folder: SessionFolder::new(self.folders.sessions()),
            about: about(agent, working_dir),
            places: self.places(agent),
            talks: agent.tasks.iter().any(|task| task.talk),
            resume: self.resume.cloned().filter(|_| agent.tasks.iter().any(|task| task.talk)),
            checks: checks(agent).into_iter().map(session_check).collect(),
            domain: agent.domain.clone(),
            mcp: agent.mcp.iter().map(mcp_server).collect(),
            rules: agent.tools.clone(),
            max_context_tokens: agent
                .model
                .as_ref()
                .and_then(|model| model.max_context_tokens)
                .unwrap_or(MOST_CONTEXT),
            max_output_tokens: agent
                .model
                .as_ref()
                .and_then(|model| model.max_output_tokens)
                .unwrap_or(MOST_OUTPUT),
            temperature: agent.model.as_ref().and_then(|model| model.temperature),
            models: Arc::new(models),
            persons: Arc::new(Persons(Arc::clone(self.broker))),
        }))
    }

    /// Where an agent finds what, and what it may do there, in words for a model.
    fn places(&self, agent: &Agent) -> String {
        let confinement = &agent.confinement;
        let names = |paths: Vec<String>| paths.join(", ");
        let of = |wanted: fn(&Capability) -> Option<&Option<String>>, more: &[Declared<String>]| {
            let declared = confinement.capabilities.iter().filter_map(|it| wanted(&it.value));
            let declared =
                declared.map(|path| path.clone().unwrap_or_else(|| "the whole workspace".to_owned()));
            declared.chain(more.iter().map(|path| path.value.clone())).collect::<Vec<_>>()
        };
        let writes = of(
            |it| if let Capability::FilesystemWrite(path) = it { Some(path) } else { None },
            &confinement.write,
        );
        let reads = of(
            |it| if let Capability::FilesystemRead(path) = it { Some(path) } else { None },
            &confinement.read,
        );
        let files = match (reads.is_empty(), writes.is_empty()) {
            _ if confinement.sandbox.value == SandboxMode::Off => {
                "It may read and write whatever its user may.".to_owned()
            }
            (true, true) => "It sees nothing of the workspace: the folder that it works in is empty, and what is written there is lost.".to_owned(),
            (false, true) => format!("It may read {}, and change nothing of it.", names(reads)),
            (true, false) => format!("It may read and write {}.", names(writes)),
            (false, false) => format!("It may read {}, and write {}.", names(reads), names(writes)),
        };
        let files = files.replace(
            "It may read the whole workspace, and write the whole workspace.",
            "It may read and write the whole workspace.",
        );
        let mut text = format!(
            "{files} Results that others are to find go into the folder $TOKA_ARTIFACTS; what is only for now, into $TMPDIR."
        );
        let inputs: Vec<String> =
            self.folders.of(agent, self.plan).inputs.into_iter().map(|(name, _)| name.to_string()).collect();
        if !inputs.is_empty() {
            text += &format!(
                " The results of {} are in $TOKA_INPUTS, in a folder for each of these names (those of {} in $TOKA_INPUTS/{}).",
                inputs.join(", "),
                inputs[0],
                inputs[0]
            );
        }
        let network = match &confinement.network.value {
            NetworkAccess::Full => "It reaches the network.".to_owned(),
            NetworkAccess::Allow(hosts) if hosts.is_empty() => "It reaches no network.".to_owned(),
            NetworkAccess::Allow(hosts) => format!("Of the network it reaches {}.", hosts.join(", ")),
            _ => "It reaches no network beyond this host.".to_owned(),
        };
        format!("{text} {network}")
    }

    fn actor(
        &mut self,
        agent: &Agent,
        launch: Launch,
        working_dir: PathBuf,
    ) -> (AgentHandle, Option<Arc<CheckControl>>) {
        let questions = self.questions(agent);
        if questions.is_empty() {
            return (self.runtime.add(launch), None);
        }
        let check_control = Arc::new(CheckControl::default());
        let runtime = self.runtime.clone();
        let (theirs, own) = (launch.clone(), launch);
        let exam = ObjectiveChecks {
            runtime,
            launch: theirs,
            working_dir,
            questions,
            check_control: Arc::clone(&check_control),
        };
        let examiner = CheckingSink::new(Arc::clone(self.journal) as Arc<_>, exam);
        (self.runtime.reporting_to(Arc::new(examiner)).add(own), Some(check_control))
    }

    fn questions(&mut self, agent: &Agent) -> Vec<CheckRun> {
        let question = |check: Check| {
            let log = self.folders.check_log(&agent.name, check.index);
            CheckRun { check, id: self.ids.next(), log }
        };
        checks(agent).into_iter().map(question).collect()
    }
}

/// A check of an objective as a session runs it.
fn session_check(check: Check) -> SessionCheck {
    let shell = |rest: Vec<String>| ["/bin/sh", "-c"].map(str::to_owned).into_iter().chain(rest).collect();
    let argv = match check.command {
        ProcessCommand::Shell(line) => shell(vec![line]),
        // The shell looks the program up, and becomes it.
        ProcessCommand::Argv(argv) => {
            shell(["exec \"$@\"", "sh"].map(str::to_owned).into_iter().chain(argv).collect())
        }
    };
    SessionCheck { description: check.description, argv, timeout: check.timeout }
}

/// Why one that was taken over cannot be started again, and what helps, such as a secret whose variable only the daemon
/// before knew.
pub(crate) fn lack(problems: &[Problem]) -> String {
    let what = problems.first().map_or("it is not admitted any more", |problem| problem.message.as_str());
    format!("{what}; `toka apply` from where all of it is there mends that")
}

fn launch(agent: &Agent, admitted: Admitted, id: ProcessId, log: LogPlace, plan: &Plan) -> Launch {
    let Admitted { folders, command, agent_program, .. } = admitted;
    Launch { profile: profile(agent, agent_program, folders, id, log, plan), command }
}

fn profile(
    agent: &Agent,
    program: Option<AgentProgram>,
    folders: AgentFolders,
    id: ProcessId,
    log: LogPlace,
    plan: &Plan,
) -> Profile {
    let limits = &agent.confinement.limits;
    let declared = Arc::new(declared_walls(agent, &folders));
    Profile {
        id,
        name: agent.name.clone(),
        stop: stop_policy(agent),
        restart: agent.restart,
        success: agent.success.clone(),
        probes: agent.probes.clone(),
        watchdog: agent.watchdog,
        hooks: hooks(agent),
        timeout: limits.timeout.as_ref().map(|timeout| timeout.value),
        limits: GroupLimits::of(&agent.confinement),
        disk: limits.disk.as_ref().map(|disk| DiskLimit {
            limit: disk.value,
            places: [&folders.home, &folders.tmp, &folders.artifacts].map(PathBuf::clone).to_vec(),
            gauge: DiskGauge::default(),
        }),
        log,
        door: folders.door,
        declared,
        tasks: task_list(&agent.tasks, program),
        awaited_lines: awaited_lines(agent, plan),
        port: None,
        worker: None,
    }
}

/// Where it declares what of its walls.
fn declared_walls(agent: &Agent, folders: &AgentFolders) -> DeclaredWalls {
    let AgentFolders { workspace, user_home, state_dir, run_dir, .. } = folders.clone();
    let Confinement { capabilities, read, write, network, .. } = &agent.confinement;
    let below = |path: &str| normalise(&workspace.join(path));
    let of_capability = capabilities.iter().filter_map(|declared| match &declared.value {
        Capability::FilesystemRead(path) | Capability::FilesystemWrite(path) => {
            Some((below(path.as_deref().unwrap_or(".")), declared.origin.clone()))
        }
        _ => None,
    });
    let named = read.iter().chain(write).map(|declared| (below(&declared.value), declared.origin.clone()));
    let paths = of_capability.chain(named).collect();
    let closed = vec![state_dir, run_dir];
    DeclaredWalls { paths, network: network.origin.clone(), workspace, home: user_home, closed }
}

/// What it declares of its budget.
pub(crate) fn budget_of(agent: &Agent) -> Budget {
    agent.confinement.budget.as_ref().map(|budget| budget.value).unwrap_or_default()
}

fn stop_policy(agent: &Agent) -> StopPolicy {
    StopPolicy { signal: agent.stop.signal, grace: agent.stop.grace_period }
}

fn hooks(agent: &Agent) -> Hooks {
    let commands = |hooks: &[Hook]| hooks.iter().map(|hook| hook.argv.clone()).collect();
    let declared = &agent.hooks;
    Hooks {
        pre_start: commands(&declared.pre_start),
        post_start: commands(&declared.post_start),
        pre_stop: commands(&declared.pre_stop),
        post_stop: commands(&declared.post_stop),
    }
}

/// What dependents and probes wait for in its output.
pub(crate) fn awaited_lines(agent: &Agent, plan: &Plan) -> Vec<String> {
    let mut lines: Vec<String> = plan
        .watched_lines(&agent.name)
        .into_iter()
        .chain(agent.probes.awaited_lines())
        .map(str::to_owned)
        .collect();
    lines.sort();
    lines.dedup();
    lines
}

/// What an agent declares, or gets by default, and this version does not do, in one sentence.
fn not_in_force(agent: &Agent) -> Option<String> {
    let unknown = |channel: &Declared<Channel>| match &channel.value {
        Channel::Label(label) => Some(format!("reports to {label:?}")),
        Channel::Present(_) | Channel::File(_) | Channel::Topic(_) | Channel::Webhook(_) => None,
    };
    let checks = are_ignored(agent).then(|| "checks of a service's objectives".to_owned());
    let absent: Vec<String> =
        checks.into_iter().chain(agent.reporting.channels.iter().filter_map(unknown)).collect();
    (!absent.is_empty()).then(|| format!("not in force yet: {}", absent.join(", ")))
}

/// The members that admitted agents of a set become.
pub(crate) fn spawn_all(
    mut builder: MemberBuilder<'_>,
    set: &Set,
    admitted: AdmittedAgents,
) -> Vec<(AgentName, Member)> {
    let declared: HashMap<&AgentName, &Agent> = set.agents.iter().map(|agent| (&agent.name, agent)).collect();
    let of = |(name, admitted): (AgentName, Admitted)| {
        let member = builder.spawn(declared.get(&name)?, admitted);
        Some((name, member))
    };
    admitted.into_iter().filter_map(of).collect()
}
