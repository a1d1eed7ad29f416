//! Whether an agent can be started, and everything that speaks against it, before anything is. It looks and makes nothing,
//! so that `toka plan` says the same as a run.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::hash::{Hash as _, Hasher as _};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use toka_api::caller::Caller;
use toka_core::capability::{Policy, Refusal};
use toka_core::{
    AgentProgram, Capability, Compatibility, Declared, NetworkAccess, Origin, Preset, RunId, SandboxMode,
    TerminalSize,
};
use toka_files::ReadError;
use toka_keeper::Program;
use toka_runtime::{Command, program};
use toka_sandbox::host::Namespaces;
use toka_sandbox::{AgentFolders, CompileError, SandboxPlan};
use toka_workstream::{
    Agent, AgentKind, Condition, OWN_VARIABLE_HELP, Plan, PresetData, ProbeCheck, Process, ProcessCommand,
    Set, Tty, is_own_variable,
};
use uuid::Uuid;

use crate::confine::{Confined, Confiner, Demands, ProgramFile, ground};
use crate::declared_file::DeclaredFile;
use crate::environment::{ModelDoor, Surroundings, assemble};
use crate::folders::ProjectFolders;
use crate::models::{ModelOffer, Models};
use crate::preset::Words;
use crate::problem::{Problem, ProblemKind};
use crate::secrets::{FoundSecret, Source};
use crate::sections::sections;
use crate::users::UserError;
use crate::workplace::ShownFiles;
use crate::{dotenv, enforceable, hosts_file, interpreter, passwd, secrets};

/// Longest environment file, in bytes; the kernel takes 2 MiB of arguments and environment as a rule (execve(2)).
const MAX_ENVIRONMENT_FILE: u64 = 1024 * 1024;

/// Longest user database that is shown with another home, in bytes. A longer one is shown as it is.
const MAX_PASSWD: u64 = 256 * 1024;

/// Longest description of the work and of a task together, in bytes: one argument may have 128 KiB (`MAX_ARG_STRLEN`, execve(2)), and Toka's own words
/// are beside it.
const LONGEST_PROMPT: usize = 120 * 1024;

/// What admission needs to know besides the agent.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Who is in the run, and in which order.
    pub plan: &'a Plan,
    /// What a person granted.
    pub policy: &'a Policy,
    /// Who declared it.
    pub caller: &'a Caller,
    /// Where the project's folders are.
    pub project: &'a ProjectFolders,
    /// Compiles its walls.
    pub confiner: Confiner<'a>,
    /// Whom it asks, if it asks models.
    pub models: &'a Models,
    /// Which run.
    pub run: RunId,
}

/// An agent that can be started.
#[derive(Debug, Clone)]
pub struct Admitted {
    /// Its folders.
    pub folders: AgentFolders,
    /// What the keeper is to execute, and behind which walls.
    pub command: Command,
    /// Its secrets, where they were found.
    pub secrets: Vec<FoundSecret>,
    /// What is to be said of it when it is started.
    pub warnings: Vec<String>,
    /// Files of /etc that it sees in the place of the host's.
    pub shown: ShownFiles,
    /// What it may know of its declaration, as [`crate::sections`] puts it.
    pub sections: String,
    /// What works on its tasks in words.
    pub agent_program: Option<AgentProgram>,
    /// What its environment files say, as a hash; `None` when it names none.
    pub environment_files: Option<u64>,
}

/// Admits an agent whose folders are `folders`, or tells every problem.
///
/// # Errors
/// With at least one problem.
pub fn admit(agent: &Agent, folders: AgentFolders, context: Context<'_>) -> Result<Admitted, Vec<Problem>> {
    let mut admission = Admission { agent, context, problems: Vec::new() };
    let admitted = admission.examine(folders);
    match admitted {
        Some(admitted) if admission.problems.is_empty() => Ok(admitted),
        _ => Err(admission.problems),
    }
}

/// Everything that would keep these agents from starting, in the order of the plan; empty when a run would start them.
/// Nothing is made.
pub fn problems(
    set: &Set,
    plan: &Plan,
    policy: &Policy,
    project: &ProjectFolders,
    confiner: Confiner<'_>,
    models: &Models,
) -> Vec<Problem> {
    let caller = &Caller::of_this_process();
    let run = RunId::from_uuid(Uuid::nil());
    let context = Context { plan, policy, caller, project, confiner, models, run };
    let agents = plan.nodes().iter().filter_map(|node| set.agent(&node.agent));
    agents.filter_map(|agent| admit(agent, project.of(agent, plan), context).err()).flatten().collect()
}

struct Admission<'a> {
    agent: &'a Agent,
    context: Context<'a>,
    problems: Vec<Problem>,
}

impl Admission<'_> {
    fn examine(&mut self, mut folders: AgentFolders) -> Option<Admitted> {
        self.providers();
        self.dialect();
        let demands = self.demands();
        self.shared_network();
        self.conditions();
        let secrets = self.secrets();
        let process = self.agent.process.as_ref();
        if let Some(process) = process {
            self.user(process);
            self.working_dir(process, &mut folders);
        }
        let Confined { plan, program } = self.compile(&folders, &demands)?;
        self.host(&plan);
        self.paths(&plan);
        let files = process.map(|process| self.environment_files(process)).unwrap_or_default();
        let env = self.environment(process, &files, &folders, &plan);
        let search = env.get(OsStr::new("PATH")).map_or(OsStr::new(""), OsString::as_os_str);
        self.commands_beside(&folders, search);
        let words = self.words(&folders, &plan);
        let (program, argv, agent_program) = self.command(process, program, (&folders, &words), search)?;
        let terminal = process.filter(|process| process.tty == Tty::Pseudo).map(|_| TerminalSize::default());
        let absent = plan.absent().iter();
        let warnings = absent.map(|it| {
            format!("{} is not there ({}): nothing of it is granted", it.value.display(), it.origin)
        });
        let warnings = warnings.collect();
        let shown = ShownFiles { passwd: self.passwd(&env, &plan), hosts: self.hosts(&plan) };
        let (env, plan) = (env.into_iter().collect(), Arc::new(plan.bare()));
        let command = Command { program, argv, env, plan, terminal };
        let sections = sections(self.agent).to_string();
        let named = process.is_some_and(|process| !process.environment_file.is_empty());
        let environment_files = named.then(|| hash_of(&files));
        Some(Admitted {
            folders,
            command,
            secrets,
            warnings,
            shown,
            sections,
            agent_program,
            environment_files,
        })
    }

    fn problem(
        &mut self,
        kind: ProblemKind,
        origin: &Origin,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.problems.push(Problem {
            kind,
            agent: self.agent.name.clone(),
            origin: origin.clone(),
            message: message.into(),
            help: help.into(),
        });
    }

    /// A model that the agent may ask must have a provider that can be asked.
    fn providers(&mut self) {
        let Some(Declared { origin, .. }) = self.agent.confinement.model.clone() else { return };
        let providers = match self.context.models.of(self.agent) {
            Ok(current) => current.get(),
            Err(why) => return self.problem(ProblemKind::Unconfigured, &origin, why, ""),
        };
        let help = "set ANTHROPIC_API_KEY, OPENAI_API_KEY or GOOGLE_API_KEY where you start Toka, or name a provider of your own in toka.yaml (`models`); \
                    `toka models` shows what there is";
        let all: Vec<&str> = providers.all().iter().map(|provider| provider.name.as_str()).collect();
        if all.is_empty() {
            let why: Vec<String> =
                providers.unusable().iter().map(|(name, why)| format!("{name}: {why}")).collect();
            let message = format!("it asks models, and no provider can be asked: {}", why.join("; "));
            return self.problem(ProblemKind::Unconfigured, &origin, message, help);
        }
        let offers = self.context.models.offers(self.agent);
        if offers.is_empty() && self.agent.confinement.by_model {
            let message = "a model is to work on its tasks, and none is chosen: `spec.model` names none, and there is no default";
            let help = "set DEFAULT_AI_MODEL to a name such as anthropic/claude-sonnet-4-5 where you start Toka, write `models: {use: [provider/model]}` in \
                        toka.yaml, or name it in `spec.model`; `model: {script: FILE}` answers without a model";
            return self.problem(ProblemKind::Unconfigured, &origin, message, help);
        }
        // In what a person writes, the word before the slash is a provider: a slip would send the request to another one.
        let is_stranger = |offer: &&ModelOffer| {
            let of = offer.model.provider.as_deref();
            of.is_some_and(|of| !all.contains(&of) && !providers.unusable().contains_key(of))
        };
        let mut strangers = offers.iter().filter(is_stranger).peekable();
        let is_told = strangers.peek().is_some();
        for offer in strangers {
            let of = offer.model.provider.as_deref().unwrap_or_default();
            let chosen = if offer.origin.is_none() { " that you chose for `default`" } else { "" };
            let message = format!(
                "there is no provider {of:?} for the model {}{chosen}: there are {}",
                offer.model,
                all.join(", ")
            );
            let help = "`toka models` shows what is chosen and whom agents may ask; a model that has a slash of its own is written with its provider \
                        before it, such as lab/org/model";
            self.problem(ProblemKind::Unconfigured, offer.origin.as_ref().unwrap_or(&origin), message, help);
        }
        let why = |offer: &ModelOffer| Some(format!("{}: {}", offer.model, offer.unusable.as_ref()?));
        let reasons: Vec<String> = offers.iter().filter_map(why).collect();
        if !offers.is_empty() && reasons.len() == offers.len() && !is_told {
            let message = format!("none of the models that it asks can be asked: {}", reasons.join("; "));
            self.problem(ProblemKind::Unconfigured, &origin, message, help);
        }
    }

    fn demands(&mut self) -> Demands {
        let demands = Demands::of(self.agent, self.context.project, self.context.policy);
        for (demand, refusal) in &demands.refused {
            self.refuse(demand, refusal);
        }
        demands
    }

    /// A network that agents share takes a namespace.
    fn shared_network(&mut self) {
        let declared = &self.agent.confinement.network;
        let compatibility = self.agent.confinement.compatibility.value;
        let is_refused = self.context.confiner.host.mount_namespace == Namespaces::Refused;
        let is_declared = declared.value == NetworkAccess::Project;
        if is_declared && is_refused && compatibility != Compatibility::BestEffort {
            self.problem(
                ProblemKind::Unconfigured,
                &declared.origin,
                "agents share a network only where their user may make namespaces, and this host refuses that",
                "run as root, allow user namespaces, use `network: full` and grant it, or declare `compatibility: best-effort`",
            );
        }
    }

    fn refuse(&mut self, demand: &Declared<Capability>, refusal: &Refusal) {
        let help = match refusal {
            Refusal::NotGranted(capability) => {
                format!(
                    "look at what is asked for and record that you trust it with `toka trust`, or grant it once with `--allow {capability}`"
                )
            }
            Refusal::Denied(capability) => format!("take {capability} out of `deny` in the policy file"),
        };
        self.problem(ProblemKind::Denied, &demand.origin, refusal.to_string(), help);
    }

    /// A gate that could never open is worse than a refusal.
    fn conditions(&mut self) {
        let agent = self.agent;
        let awaited = |wanted: &Condition| self.context.plan.awaited(&agent.name).any(|c| c == wanted);
        if awaited(&Condition::ObjectiveMet) && agent.kind == AgentKind::Service {
            self.problem(
                ProblemKind::Unconfigured,
                &agent.origin,
                "another agent waits for its objectives, and the checks of a service are not run yet",
                "wait for `process_started`, `ready` or a `log_line`, or make it a task",
            );
        }
    }

    /// Finds each secret and sees that it can be had. One that nobody granted is not even looked at.
    fn secrets(&mut self) -> Vec<FoundSecret> {
        let agent = self.agent;
        let ground = ground(self.context.project);
        let mut found = Vec::new();
        for declared in &agent.secrets {
            let source = Source::of(declared, &ground);
            if source.demands().is_some_and(|asked| !self.is_granted(&asked)) {
                continue;
            }
            let secret = FoundSecret { name: declared.name.clone(), source };
            let (caller, workspace) = (self.context.caller, &self.context.project.workspace);
            match secrets::read(&secret, caller, workspace) {
                Ok(_) => found.push(secret),
                Err(error) => {
                    self.problem(ProblemKind::Unconfigured, &declared.origin, error.to_string(), "");
                }
            }
        }
        found
    }

    fn is_granted(&self, asked: &Capability) -> bool {
        self.context.policy.decide(self.agent.declared_name(), asked).is_ok()
    }

    fn user(&mut self, process: &Process) {
        let Confiner { host, users, .. } = self.context.confiner;
        let found = users.user(&self.agent.name);
        let message = match found {
            Ok(None) => return,
            // Toka's folders are closed to other users: only a view of its own leads past that.
            Ok(Some(_)) if self.agent.confinement.sandbox.value == SandboxMode::On => {
                if host.mount_namespace == Namespaces::Privileged {
                    return;
                }
                "it asks for another user, which takes a mount namespace that this host does not give"
                    .to_owned()
            }
            Ok(Some(_)) => "it asks for another user, which takes the sandbox".to_owned(),
            Err(error) => error.to_string(),
        };
        let help = match found {
            Err(UserError::Unknown(_)) => "make that user, or name another one",
            _ => "leave out `user`, or set it to `invoking`",
        };
        self.problem(ProblemKind::Unconfigured, &process.user.origin, message, help);
    }

    fn working_dir(&mut self, process: &Process, folders: &mut AgentFolders) {
        let origin = &process.working_dir.origin;
        let shown = folders.working_dir.display().to_string();
        match folders.working_dir.canonicalize() {
            // Where it leads to then, only the agent's own view of the file system decides: it is entered in there.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound && self.is_made_before(&folders.working_dir) => {}
            Err(error) => {
                let message = format!("the working folder {shown} cannot be used: {error}");
                let help =
                    "make it, or let an agent make it that this one waits for; its own hooks run in it, too";
                self.problem(ProblemKind::Invalid, origin, message, help);
            }
            Ok(real) if !real.is_dir() => {
                self.problem(
                    ProblemKind::Invalid,
                    origin,
                    format!("the working folder {shown} is no folder"),
                    "",
                );
            }
            Ok(real) => {
                folders.working_dir = real;
            }
        }
    }

    /// Whether an agent that this one waits for may make a folder of the workspace.
    fn is_made_before(&self, folder: &Path) -> bool {
        let is_plain = folder.components().all(|part| !matches!(part, Component::ParentDir));
        !self.agent.dependencies.is_empty() && is_plain && folder.starts_with(&self.context.project.workspace)
    }

    fn compile(&mut self, folders: &AgentFolders, demands: &Demands) -> Option<Confined> {
        let error = match self.context.confiner.compile(self.agent, folders, demands) {
            Ok(confined) => return Some(confined),
            Err(error) => error,
        };
        let origin = error.origin().clone();
        let help = match &error {
            CompileError::Outside { .. } => "",
            CompileError::Own { .. } => "do not ask for it; an agent has folders of its own",
            CompileError::NoDevice { .. } => "name a device file below /dev, without `..` and links",
            CompileError::Missing { .. } => "make the folder above it, or leave results in $TOKA_ARTIFACTS",
            CompileError::Endless { .. } => "name fewer folders, or the paths themselves",
        };
        self.problem(ProblemKind::Invalid, &origin, error.to_string(), help);
        None
    }

    /// A host that cannot enforce what the agent demands would refuse it at its start, when others have run already.
    fn host(&mut self, plan: &SandboxPlan) {
        let lacking = enforceable::lacking(self.context.confiner.host, plan);
        if !lacking.is_empty() {
            let message = format!("this host cannot enforce {}", lacking.join(", "));
            let origin = &self.agent.confinement.compatibility.origin;
            let help = "declare a `security.compatibility` that demands less, or run it on a host that has the layer";
            self.problem(ProblemKind::Denied, origin, message, help);
        }
    }

    /// The keeper is told the rules as text. A link or a file's folder can lead to a path that is none.
    fn paths(&mut self, plan: &SandboxPlan) {
        let binds = plan.binds.iter().flat_map(|bind| bind.source.iter().chain([&bind.target]));
        let rules = plan.files.iter().map(|rule| &rule.path);
        let all =
            binds.chain(rules).chain(plan.to_make.iter().map(|made| &made.path)).chain([&plan.working_dir]);
        if let Some(path) = all.into_iter().find(|path| path.to_str().is_none()) {
            let message = format!("a path of its rules is not UTF-8: {}", path.display());
            self.problem(ProblemKind::Invalid, &self.agent.origin, message, "rename it, or use another one");
        }
    }

    fn environment_files(&mut self, process: &Process) -> Vec<(String, String)> {
        let workspace = &self.context.project.workspace;
        let mut variables = Vec::new();
        for file in &process.environment_file {
            let file = DeclaredFile::find(file, &ground(self.context.project));
            if let DeclaredFile::Outside(path) = &file
                && !self.is_granted(&Capability::OutsideRead(path.to_string_lossy().into_owned()))
            {
                continue;
            }
            match read_environment_file(&file, workspace) {
                Ok(found) => {
                    for (own, _) in found.iter().filter(|(name, _)| is_own_variable(name)) {
                        let path = file.path(workspace);
                        let message =
                            format!("the environment file {}: {own} is a name of Toka's own", path.display());
                        self.problem(
                            ProblemKind::Invalid,
                            &process.command_origin,
                            message,
                            OWN_VARIABLE_HELP,
                        );
                    }
                    variables.extend(found);
                }
                Err(why) => {
                    let message = format!("the environment file {}: {why}", file.path(workspace).display());
                    self.problem(ProblemKind::Invalid, &process.command_origin, message, "");
                }
            }
        }
        variables
    }

    fn environment(
        &self,
        process: Option<&Process>,
        files: &[(String, String)],
        folders: &AgentFolders,
        plan: &SandboxPlan,
    ) -> BTreeMap<OsString, OsString> {
        let surroundings = Surroundings {
            caller: self.context.caller,
            folders,
            plan,
            project: self.context.confiner.project,
            agent: &self.agent.name,
            run: self.context.run,
            replica: self.agent.replica.as_ref().map(|replica| replica.number),
            watchdog: self.agent.watchdog,
            preset: self
                .preset()
                .map(|preset| self.words(folders, plan).variables(preset))
                .unwrap_or_default(),
            model: self.agent.confinement.has_model_port().then(|| ModelDoor {
                key: self.context.models.key_of(self.context.run, &self.agent.name),
                model: self.first_model(),
            }),
        };
        assemble(process, files, surroundings)
    }

    /// The model that a program is to ask for, as its provider calls it: the first that is declared, or that the person has chosen.
    fn first_model(&self) -> Option<String> {
        let offers = self.context.models.offers(self.agent);
        Some(offers.first()?.model.model.clone())
    }

    /// The host's user database, in which the agent's user lives where its HOME says.
    fn passwd(&self, env: &BTreeMap<OsString, OsString>, plan: &SandboxPlan) -> Option<String> {
        let own = || (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        let (uid, gid) = plan.run_as.as_ref().map_or_else(own, |user| (user.uid, user.gid));
        let home = Path::new(env.get(OsStr::new("HOME"))?);
        let user = env.get(OsStr::new("USER")).and_then(|user| user.to_str());
        let name = user.unwrap_or(self.agent.name.as_str());
        let text = toka_files::read_named("/etc/passwd".as_ref(), MAX_PASSWD).ok()?;
        passwd::with_home(&String::from_utf8(text).ok()?, passwd::Owner { uid, gid, name, home })
    }

    /// The agent program that it is, where Toka knows it.
    fn preset(&self) -> Option<Preset> {
        self.agent.process.as_ref()?.preset
    }

    /// What the words of a preset stand for.
    fn words(&self, folders: &AgentFolders, plan: &SandboxPlan) -> Words {
        Words {
            openai_url: plan.listen.map_or_else(String::new, |address| format!("http://{address}/v1")),
            key: self.context.models.key_of(self.context.run, &self.agent.name),
            workspace: folders.workspace.clone(),
            working_dir: folders.working_dir.clone(),
            home: folders.home.clone(),
            tmp: folders.tmp.clone(),
            uses_git: self.uses_git(folders),
            ..Words::of(self.context.models, self.agent)
        }
    }

    /// Whether there is a repository in its workspace that it may use.
    fn uses_git(&self, folders: &AgentFolders) -> bool {
        let has = |capability: &Declared<Capability>| capability.value == Capability::Git;
        folders.workspace.join(".git").exists() && self.agent.confinement.capabilities.iter().any(has)
    }

    /// What a program is told has to fit into one argument of its own.
    fn prompts(&mut self, program: &AgentProgram) {
        let in_words = self.agent.tasks.iter().filter(|task| task.run.is_none());
        let Some(longest) = in_words.max_by_key(|task| task.description.len()) else { return };
        let (about, task) = (program.about.len(), longest.description.len());
        if about + task <= LONGEST_PROMPT {
            return;
        }
        let origin = longest.origin.clone();
        let message = format!(
            "the first prompt would have {} KiB, and a program takes {} KiB: the task has {} KiB, the description, the objectives and your own sections {} KiB",
            (about + task) / 1024,
            LONGEST_PROMPT / 1024,
            task / 1024,
            about / 1024
        );
        let help = "put what is long into a file of the workspace, and name that";
        self.problem(ProblemKind::Invalid, &origin, message, help);
    }

    /// Its program must speak an API of the first model that it is to ask.
    fn dialect(&mut self) {
        let Some((process, preset)) = self.agent.process.as_ref().zip(self.preset()) else { return };
        if self.context.models.spoken(self.agent).is_some() || self.context.models.of(self.agent).is_err() {
            return;
        }
        let data = PresetData::of(preset);
        let first = self.context.models.asked_by_program(self.agent).0;
        let first = first.map_or_else(String::new, |offer| offer.model.to_string());
        let apis: Vec<&str> = data.dialects.iter().map(|dialect| dialect.wire.as_str()).collect();
        let message = format!(
            "{} speaks {}, and the provider of the model {first} does not",
            data.title,
            apis.join(", ")
        );
        let help =
            format!("name a model that it can ask, such as {}, in `spec.model`", data.models.join(" or "));
        let origin = self.agent.model.as_ref().map_or(&process.command_origin, |model| &model.origin).clone();
        self.problem(ProblemKind::Unconfigured, &origin, message, help);
    }

    /// The names of hosts that it sees, where Toka stands for some.
    fn hosts(&self, plan: &SandboxPlan) -> Option<String> {
        let own = toka_files::read_named("/etc/hosts".as_ref(), MAX_PASSWD).unwrap_or_default();
        hosts_file::of(&plan.network, &String::from_utf8_lossy(&own))
    }

    /// What is executed. The rules know the program already when it is where they look; the agent's own PATH may name
    /// others.
    fn command(
        &mut self,
        process: Option<&Process>,
        known: Option<ProgramFile>,
        (folders, known_words): (&AgentFolders, &Words),
        search: &OsStr,
    ) -> Option<(Program, Vec<OsString>, Option<AgentProgram>)> {
        let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        let runner = || words(&["toka", "__agent"]);
        let Some(process) = process else { return Some((Program::Itself, runner(), None)) };
        let files = process.preset.map(|preset| known_words.files(preset)).unwrap_or_default();
        let started = |program: PathBuf, argv: Vec<OsString>| match files.is_empty() {
            true => (Program::Path(program), argv, None),
            // The files are written in its sandbox, before it begins.
            false => {
                let files = serde_json::to_string(&files).unwrap_or_default();
                let before = words(&["toka", "__agent", AgentProgram::EXEC, &files]);
                (Program::Itself, before.into_iter().chain([program.into()]).chain(argv).collect(), None)
            }
        };
        let argv = match &process.command {
            Some(ProcessCommand::Shell(line)) => {
                return Some(started(PathBuf::from("/bin/sh"), words(&["sh", "-c", line])));
            }
            Some(ProcessCommand::Argv(argv)) => argv.iter().map(OsString::from).collect(),
            None => Vec::new(),
        };
        let word = process.program().unwrap_or_default();
        let found = match known {
            Some(ProgramFile::Found(file)) => Ok(ProgramFile::Found(file)),
            Some(ProgramFile::Awaited(_)) | None => ProgramFile::find(word, self.agent, search, folders),
        };
        if let Ok(ProgramFile::Found(file)) = &found {
            self.interpreter_of(file, process);
        }
        match found {
            Ok(file) => Some(match (&process.command, process.preset) {
                (None, Some(preset)) => {
                    let program = known_words.program(preset, file.path(), self.agent);
                    self.prompts(&program);
                    (Program::Itself, runner(), Some(program))
                }
                _ => started(file.path().to_owned(), argv),
            }),
            Err(error) => {
                let install =
                    process.preset.map(|preset| format!("install it: {}", PresetData::of(preset).install));
                let help = Some(self.where_it_is(word, &folders.working_dir)).filter(|help| !help.is_empty());
                let help = help.or(install).unwrap_or_default();
                self.problem(ProblemKind::Invalid, &process.command_origin, error.to_string(), help);
                None
            }
        }
    }

    /// A script whose interpreter is not there will not start, unless something that comes before makes it.
    fn interpreter_of(&mut self, file: &Path, process: &Process) {
        let something_precedes =
            !self.agent.hooks.pre_start.is_empty() || !self.agent.dependencies.is_empty();
        if let Some(missing) = interpreter::missing(file).filter(|_| !something_precedes) {
            let (message, help) = interpreter::words(file, &missing);
            self.problem(ProblemKind::Invalid, &process.command_origin, message, help);
        }
    }

    /// Programs of hooks and probes by their bare names: in most folders of PATH no agent can make one later, so one that is
    /// not there now never will be. Paths may lead to what is built before they are needed.
    fn commands_beside(&mut self, folders: &AgentFolders, search: &OsStr) {
        let agent = self.agent;
        let hooks = &agent.hooks;
        let hooks = [&hooks.pre_start, &hooks.post_start, &hooks.pre_stop, &hooks.post_stop];
        let hooks = hooks.into_iter().flatten().map(|hook| ("a hook".to_owned(), &hook.argv, &hook.origin));
        let probes = agent.probes.each().filter_map(|(kind, probe)| match &probe.check {
            ProbeCheck::Exec(argv) => Some((format!("the {kind} probe"), argv, &agent.origin)),
            _ => None,
        });
        for (what, argv, origin) in hooks.chain(probes).collect::<Vec<_>>() {
            let word = argv.first().map_or("", String::as_str);
            if word.contains('/') {
                continue;
            }
            if let Err(error) = ProgramFile::find(word, agent, search, folders) {
                let help = self.where_it_is(word, &folders.working_dir);
                self.problem(ProblemKind::Invalid, origin, format!("{what}: {error}"), help);
            }
        }
    }

    /// Where the search path of the caller has a program that the agent's has not.
    fn where_it_is(&self, word: &str, working_dir: &Path) -> String {
        let path = self.context.caller.variable("PATH").unwrap_or_default();
        match program::find(word, working_dir, path) {
            Ok(file) if !word.contains('/') => format!(
                "your own PATH has it: name {} in full, or add its folder to PATH in `spec.process.environment`",
                file.display()
            ),
            _ => String::new(),
        }
    }
}

fn hash_of(variables: &[(String, String)]) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    variables.hash(&mut hasher);
    hasher.finish()
}

fn read_environment_file(file: &DeclaredFile, workspace: &Path) -> Result<Vec<(String, String)>, String> {
    let bytes = file.read(workspace, MAX_ENVIRONMENT_FILE).map_err(|error| match error {
        ReadError::TooLong(_) => "it is longer than 1 MiB".to_owned(),
        other => other.to_string(),
    })?;
    let text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned())?;
    dotenv::parse(&text).map_err(|error| error.to_string())
}
