//! From what an agent declared to what will be enforced: one function over the declaration, the agent's folders and the
//! facts of the host. Of the file system it reads only where links lead and what globs match; it changes nothing.

use std::collections::BTreeSet;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use thiserror::Error;
use toka_core::demand;
use toka_core::{
    Capability, Confinement, Declared, Layer, ModelReach, Name, NetworkAccess, Origin, SandboxMode,
};
use toka_files::{Directory, Limits, Stopped, Walk};

use super::network::{KEPT_TO_A_PORT, is_kept_to_a_port, network_of, port_address, stand_ins};
use super::system::DEVICES;
use super::workspace_facts::declarations_of;
use super::{
    Access, Bind, Execution, GroupLimits, HOSTS, Links, Made, Need, PASSWD, PathRule, ProcessLimits, Right,
    Rule, RunAs, SandboxPlan, ToMake, WorkspaceFacts, toolchain,
};
use crate::HostFacts;
use crate::guard::Guard;
use crate::repository::DotGit;

/// Most names that a pattern of paths may be matched against. A checkout with its packages has some hundred thousand.
const MOST_NAMES: usize = 1_000_000;
/// Where an agent's own temporary folder is shown.
const SHOWN_TMP: [&str; 2] = ["/tmp", "/dev/shm"];
/// How long that may take.
const LONGEST_WALK: Duration = Duration::from_secs(10);

/// The folders of one agent; all absolute and free of symbolic links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentFolders {
    /// What relative paths are relative to.
    pub workspace: PathBuf,
    /// `HOME`: private, kept between runs.
    pub home: PathBuf,
    /// `TMPDIR`, also shown at `/tmp`: private, emptied after each run.
    pub tmp: PathBuf,
    /// Where it leaves its results.
    pub artifacts: PathBuf,
    /// The artifact folders of its dependencies, by name.
    pub inputs: Vec<(Name, PathBuf)>,
    /// A folder of links, one per input.
    pub inputs_dir: PathBuf,
    /// Its secrets as files.
    pub credentials: PathBuf,
    /// Its sockets to the daemon.
    pub door: PathBuf,
    /// Toka's state, hidden but for the above.
    pub state_dir: PathBuf,
    /// Toka's sockets, hidden but for the above.
    pub run_dir: PathBuf,
    /// Where the process begins.
    pub working_dir: PathBuf,
    /// The home of the user who runs Toka, where toolchains lie.
    pub user_home: PathBuf,
}

impl AgentFolders {
    /// Those of an agent that stands alone, without a project and its state: all below one folder, which hides what lies
    /// beside them. They need not be there yet.
    pub fn below(root: &Path) -> Self {
        let own = |name: &str| root.join(name);
        Self {
            workspace: own("workspace"),
            home: own("home"),
            tmp: own("tmp"),
            artifacts: own("artifacts"),
            inputs: Vec::new(),
            inputs_dir: own("inputs"),
            credentials: own("credentials"),
            door: own("door"),
            state_dir: root.to_owned(),
            run_dir: root.to_owned(),
            working_dir: own("workspace"),
            user_home: own("home"),
        }
    }

    /// Makes the agent's own, and the workspace, where they are not there.
    ///
    /// # Errors
    /// When one cannot be made.
    pub fn make(&self) -> io::Result<()> {
        let Self { workspace, home, tmp, artifacts, inputs_dir, credentials, door, .. } = self;
        [workspace, home, tmp, artifacts, inputs_dir, credentials, door]
            .into_iter()
            .try_for_each(std::fs::create_dir_all)
    }
}

/// Everything a plan is made of.
#[derive(Debug, Clone, Copy)]
pub struct CompileInput<'a> {
    /// What was declared.
    pub confinement: &'a Confinement,
    /// The agent's folders.
    pub folders: &'a AgentFolders,
    /// What the host can do.
    pub host: &'a HostFacts,
    /// The project's name.
    pub project: &'a Name,
    /// The agent's name.
    pub agent: &'a Name,
    /// What of the workspace decides about rights.
    pub facts: &'a WorkspaceFacts,
    /// The folder of the file that declares this agent.
    pub workstream_dir: Option<&'a Path>,
    /// The `toka` binary, which every agent may execute.
    pub toka_exe: &'a Path,
    /// Programs outside the system's folders that the agent was told to run; one that is not there yet may be made before
    /// the start.
    pub programs: &'a [PathBuf],
    /// Another user to run as, and where that is declared.
    pub run_as: Option<(&'a RunAs, &'a Origin)>,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CompileError {
    /// A path that looks as if it were below the workspace leaves it, by `..` or through a link.
    #[error("{path:?} leaves the workspace; declare where it leads under security.filesystem")]
    Outside {
        /// The path.
        path: String,
        /// Where it stands.
        origin: Origin,
    },
    /// A path that is to be written is not there, nor is the folder in which it would be made.
    #[error("{} is not there, and neither is a folder above it", path.display())]
    Missing {
        /// The path.
        path: PathBuf,
        /// Where it stands.
        origin: Origin,
    },
    /// A path that is Toka's own.
    #[error("{} is Toka's own, and is never opened", path.display())]
    Own {
        /// The path.
        path: PathBuf,
        /// Where it stands.
        origin: Origin,
    },
    /// A path that is no device.
    #[error("{} is no device below /dev", path.display())]
    NoDevice {
        /// The path.
        path: PathBuf,
        /// Where it stands.
        origin: Origin,
    },
    /// A pattern that matches against too much.
    #[error("the pattern {pattern:?} cannot be used: {why}")]
    Endless {
        /// The pattern.
        pattern: String,
        /// Which limit it reached.
        why: Stopped,
        /// Where it stands.
        origin: Origin,
    },
}

impl CompileError {
    /// Where what cannot be a rule stands.
    pub fn origin(&self) -> &Origin {
        match self {
            Self::Outside { origin, .. }
            | Self::Missing { origin, .. }
            | Self::Own { origin, .. }
            | Self::NoDevice { origin, .. }
            | Self::Endless { origin, .. } => origin,
        }
    }
}

impl SandboxPlan {
    /// Compiles what was declared into what will be enforced.
    ///
    /// # Errors
    /// When a pattern is malformed, or a capability's path leaves the workspace.
    pub fn compile(input: &CompileInput<'_>) -> Result<Self, CompileError> {
        let mut compiler = Compiler {
            input,
            search: Vec::new(),
            protected_paths: input.facts.protected(declarations_of(input.confinement)),
            guards: Vec::new(),
            to_make: Vec::new(),
            absent: Vec::new(),
            binds: Vec::new(),
            files: Vec::new(),
            rules: Vec::new(),
        };
        compiler.system();
        let mut environment = compiler.capabilities()?;
        compiler.declared_paths()?;
        compiler.repository()?;
        compiler.protect();
        compiler.own_folders()?;
        compiler.hide();
        compiler.refuse_execution();
        compiler.network();
        let gaps = compiler.limits();
        environment.insert(0, ("PATH".to_owned(), compiler.search_path()));
        Ok(compiler.finish(environment, gaps))
    }
}

pub(super) struct Compiler<'a> {
    pub(super) input: &'a CompileInput<'a>,
    /// Folders that toolchains want to be searched for programs before the others.
    search: Vec<PathBuf>,
    /// What decides about rights, whether or not it is there.
    pub(super) protected_paths: &'a BTreeSet<PathBuf>,
    pub(super) guards: Vec<Guard>,
    to_make: Vec<ToMake>,
    absent: Vec<Declared<PathBuf>>,
    pub(super) binds: Vec<Bind>,
    pub(super) files: Vec<PathRule>,
    rules: Vec<Rule>,
}

impl Compiler<'_> {
    /// Programs, libraries, devices and facts: the same for every agent.
    fn system(&mut self) {
        let system = &self.input.host.system;
        let origin = Origin::default_of("the system's programs");
        self.say(Layer::Landlock, format!("execute {}", list(&system.programs)), &origin);
        self.say(Layer::Landlock, "read /etc but for what is secret, CPU facts in /sys".into(), &origin);
        self.say(Layer::Landlock, format!("use {}", DEVICES.join(", ")), &origin);
        self.say(Layer::Mounts, "everything else hidden or read-only".into(), &origin);
        if let Some((RunAs { uid, gid, .. }, origin)) = self.input.run_as {
            self.say(Layer::Process, format!("run as user {uid} in group {gid}"), origin);
        }
        let origin = Origin::default_of("always");
        self.say(Layer::Seccomp, "deny system calls that reach the kernel's administration".into(), &origin);
        self.say(
            Layer::Process,
            "no new privileges, no capabilities, own session and keyring, closed descriptors".into(),
            &origin,
        );
    }

    /// Paths and variables that the capabilities bring.
    fn capabilities(&mut self) -> Result<Vec<(String, String)>, CompileError> {
        let mut search: Vec<PathBuf> = Vec::new();
        let mut variables: Vec<(String, String)> = Vec::new();
        for capability in &self.input.confinement.capabilities {
            let Declared { value, origin } = capability;
            match value {
                Capability::FilesystemRead(below) => {
                    let path = self.below_workspace(below.as_deref(), origin)?;
                    if below.is_none() || !self.is_left_out(&path, origin) {
                        self.grant(&path, Right::Read, Need::Required, origin)?;
                    }
                }
                Capability::FilesystemWrite(below) => self.writable(below.as_deref(), origin)?,
                Capability::Git => variables.extend(self.git(origin)?),
                Capability::Device(path) => self.device(Path::new(path), origin)?,
                _ => {}
            }
            let network = &self.input.confinement.network.value;
            if let Some(found) = toolchain::of(value, self.input.host, &self.input.folders.user_home, network)
            {
                // The start leaves out a mount of nothing, and the keeper would take it for one that a process took away.
                for (path, right) in found.paths.iter().filter(|(path, _)| path.symlink_metadata().is_ok()) {
                    self.grant(path, *right, Need::Optional, origin)?;
                }
                search.extend(found.path);
                variables.extend(found.variables);
            }
        }
        self.search = search;
        if let Some(folder) = self.workstream_folder() {
            variables.push(("TOKA_WORKSTREAM_DIR".to_owned(), folder.to_string_lossy().into_owned()));
        }
        Ok(variables)
    }

    /// The caller's search path as far as the agent may execute what lies there: a folder that it may not look into
    /// would only turn "not found" into "permission denied", or a version manager's shim into a riddle.
    fn search_path(&self) -> String {
        let executable = |folder: &PathBuf| {
            // Nearly all are the system's; only the others are worth a look at where they lead.
            let of_the_system =
                |folder: &Path| self.input.host.system.programs.iter().any(|known| folder.starts_with(known));
            if of_the_system(folder) {
                return true;
            }
            let real = folder.canonicalize().unwrap_or_else(|_| folder.clone());
            let allowed = |rule: &PathRule| {
                [Right::Execute, Right::WriteExecute].contains(&rule.right) && real.starts_with(&rule.path)
            };
            of_the_system(&real) || self.files.iter().any(allowed)
        };
        let host = self.input.host.path.iter().filter(|folder| executable(folder));
        let own = self.input.toka_exe.parent().into_iter().map(Path::to_owned);
        let mut seen = BTreeSet::new();
        let all = self.search.iter().chain(host).cloned().chain(own);
        let folders = all.filter(|folder| folder.is_absolute() && seen.insert(folder.clone()));
        folders.map(|folder| folder.to_string_lossy().into_owned()).collect::<Vec<_>>().join(":")
    }

    /// The workspace or a path below it for writing; bare, without what would let an agent change its own rules or have
    /// the user run its code.
    fn writable(&mut self, below: Option<&str>, origin: &Origin) -> Result<(), CompileError> {
        let path = self.below_workspace(below, origin)?;
        if below.is_some() {
            self.make_where_missing(&path, Made::Folder, origin)?;
        }
        // Build output is written and run: cargo test, npm scripts.
        self.grant(&path, Right::WriteExecute, Need::Required, origin)
    }

    /// git's own settings, through variables (git-config(1), ENVIRONMENT), since HOME is private.
    fn git(&mut self, origin: &Origin) -> Result<Vec<(String, String)>, CompileError> {
        let (project, agent) = (self.input.project, self.input.agent);
        let repository = self.input.folders.workspace.join(".git");
        if repository.symlink_metadata().is_ok() {
            self.grant(&repository, Right::Read, Need::Optional, origin)?;
        }
        let settings = [
            ("safe.directory", "*".to_owned()),
            ("user.name", agent.to_string()),
            ("user.email", format!("{agent}@{project}.invalid")),
            ("gc.auto", "0".to_owned()),
        ];
        let mut variables = vec![("GIT_CONFIG_COUNT".to_owned(), settings.len().to_string())];
        for (at, (key, value)) in settings.into_iter().enumerate() {
            variables.push((format!("GIT_CONFIG_KEY_{at}"), key.to_owned()));
            variables.push((format!("GIT_CONFIG_VALUE_{at}"), value));
        }
        Ok(variables)
    }

    fn device(&mut self, path: &Path, origin: &Origin) -> Result<(), CompileError> {
        // What was granted is a text: nothing in it may lead elsewhere.
        let is_device = |path: &Path| {
            use std::os::unix::fs::FileTypeExt as _;
            let kind = path.symlink_metadata().map(|metadata| metadata.file_type());
            kind.is_ok_and(|kind| kind.is_char_device() || kind.is_block_device())
        };
        if !path.starts_with("/dev") || demand::normalise(path) != path || !is_device(path) {
            return Err(CompileError::NoDevice { path: path.to_owned(), origin: origin.clone() });
        }
        self.bind(path, path, Access::ReadWrite, Need::Required);
        self.files.push(PathRule {
            path: path.to_owned(),
            right: Right::Device,
            links: Links::Follow,
            need: Need::Required,
        });
        self.say(Layer::Landlock, format!("use device {}", path.display()), origin);
        Ok(())
    }

    /// `security.filesystem`: paths and globs, relative to the workspace.
    fn declared_paths(&mut self) -> Result<(), CompileError> {
        let confinement = self.input.confinement;
        let lists = [
            (&confinement.read, Right::Read),
            (&confinement.write, Right::Write),
            (&confinement.execute, Right::Execute),
        ];
        for (list, right) in lists {
            for declared in list {
                match self.pattern(declared)? {
                    Some(matched) => {
                        if matched.is_empty() {
                            let path = self.locate(&declared.value);
                            let rule = format!("nothing of {}: nothing matches it", path.display());
                            self.say(Layer::Landlock, rule, &declared.origin);
                            self.absent.push(Declared::new(path, declared.origin.clone()));
                        }
                        for path in matched {
                            self.grant(&path, right, Need::Optional, &declared.origin)?;
                        }
                    }
                    None => self.declared_path(declared, right)?,
                }
            }
        }
        Ok(())
    }

    /// What belongs to the agent itself, whatever it declared.
    fn own_folders(&mut self) -> Result<(), CompileError> {
        let folders = self.input.folders;
        let origin = Origin::default_of("the agent's own folders");
        for path in [&folders.home, &folders.tmp, &folders.artifacts] {
            self.grant_real(path, path, Right::WriteExecute, Need::Required, &origin);
        }
        let passwd = folders.door.join(PASSWD);
        self.bind(&passwd, Path::new("/etc/passwd"), Access::ReadOnly, Need::Optional);
        let hosts = folders.door.join(HOSTS);
        self.bind(&hosts, Path::new("/etc/hosts"), Access::ReadOnly, Need::Optional);
        let (right, links, need) = (Right::Read, Links::Refuse, Need::Optional);
        for path in [passwd, hosts] {
            self.files.push(PathRule { path, right, links, need });
        }
        for shared in SHOWN_TMP {
            self.bind(&folders.tmp, Path::new(shared), Access::ReadWrite, Need::Required);
        }
        let inputs = folders.inputs.iter().map(|(_, path)| path);
        for path in inputs.chain([&folders.inputs_dir, &folders.credentials, &folders.door]) {
            self.grant_real(path, path, Right::Read, Need::Required, &origin);
        }
        if let Some(folder) = self.workstream_folder().filter(|folder| !self.is_writable(folder)) {
            self.grant(
                &folder,
                Right::Execute,
                Need::Required,
                &Origin::default_of("the workstream's folder"),
            )?;
        }
        let origin = Origin::default_of("the program to run");
        for program in self.input.programs {
            let (real, shown) = self.places(program, &origin)?;
            // A mount of its own would keep a hook of the agent that builds it from replacing it; and over a link that is shown
            // already it would be a file, whose neighbours a program looks for elsewhere.
            let is_link_that_is_shown = real != shown && self.is_shown(&real) && self.is_shown(&shown);
            if self.is_writable(&real) || is_link_that_is_shown {
                self.allow(&real, &shown, Right::Execute, Need::Optional, &origin);
            } else {
                self.grant_real(&real, &shown, Right::Execute, Need::Optional, &origin);
            }
        }
        self.grant(self.input.toka_exe, Right::Execute, Need::Required, &origin)
    }

    /// What is mounted below the agent's own `/tmp` and is not to be executed is mounted so: a Landlock rule reaches
    /// through the mount points below it, and that of `/tmp` lets the agent execute.
    fn refuse_execution(&mut self) {
        if self.input.confinement.sandbox.value != SandboxMode::On {
            return;
        }
        let is_below_tmp = |bind: &Bind| {
            SHOWN_TMP.iter().any(|tmp| bind.target.starts_with(tmp) && bind.target != Path::new(tmp))
        };
        let programs = Programs::of(&self.files, &self.binds);
        let refused: Vec<usize> = (0..self.binds.len())
            .filter(|at| is_below_tmp(&self.binds[*at]) && !programs.are_in(&self.binds[*at]))
            .collect();
        for at in refused {
            self.binds[at].execution = Execution::Refused;
        }
        let refused = self.binds.iter().filter(|bind| bind.execution == Execution::Refused);
        let mut targets: Vec<PathBuf> = refused.map(|bind| bind.target.clone()).collect();
        targets.sort();
        // One sentence for a folder and what lies in it.
        targets.dedup_by(|inner, outer| inner.starts_with(&*outer));
        for target in targets {
            let rule = format!("no execution in the mount of {}", target.display());
            self.say(Layer::Mounts, rule, &Origin::default_of("granted without execution, below /tmp"));
        }
    }

    /// Whether a mount shows what lies at a path, under its own name.
    fn is_shown(&self, path: &Path) -> bool {
        let in_place = |bind: &&Bind| bind.source.as_ref() == Some(&bind.target);
        self.binds.iter().filter(in_place).any(|bind| path.starts_with(&bind.target))
    }

    /// Whether a grant opens it for writing, and nothing closes it again.
    fn is_writable(&self, path: &Path) -> bool {
        let shown_as_it_is = |bind: &&Bind| bind.source.as_ref() == Some(&bind.target);
        let open = self.binds.iter().filter(shown_as_it_is).filter(|bind| path.starts_with(&bind.target));
        let nearest = open.max_by_key(|bind| bind.target.components().count());
        nearest.is_some_and(|bind| bind.access == Access::ReadWrite)
    }

    /// The folder of the file that declares the agent, where its scripts lie. Not when that would open more than was
    /// meant: a file at the top of the workspace or of the user's home.
    fn workstream_folder(&self) -> Option<PathBuf> {
        let folder = self.input.workstream_dir?;
        let folders = self.input.folders;
        let too_wide = |inner: &PathBuf| inner.starts_with(folder);
        let inner = [&folders.workspace, &folders.user_home, &folders.state_dir, &folders.run_dir];
        // `/tmp` and its like belong to everybody.
        let shared = folder.components().count() <= 2;
        (!shared && !inner.into_iter().any(too_wide)).then(|| folder.to_owned())
    }

    fn network(&mut self) {
        let Declared { value, origin } = &self.input.confinement.network;
        let rule = match value {
            NetworkAccess::None if self.input.confinement.has_model_port() => {
                "nothing but what is listed here".to_owned()
            }
            NetworkAccess::None => "no sockets but Unix sockets".to_owned(),
            NetworkAccess::Loopback => "a loopback interface of its own".to_owned(),
            NetworkAccess::Project => {
                "a loopback interface that all agents of the project with `network: project` share".to_owned()
            }
            NetworkAccess::Allow(hosts) => {
                let named = stand_ins(self.input).len();
                let by_name = match named {
                    0 => String::new(),
                    all if all == hosts.len() => ", also by name".to_owned(),
                    some => format!(", {some} of them also by name"),
                };
                let address = port_address(self.input);
                let hosts = if hosts.is_empty() { "no hosts".to_owned() } else { hosts.join(", ") };
                let asks =
                    if self.input.confinement.asks_hosts { ", and others that a person allows" } else { "" };
                format!("only {hosts}{asks}, through a proxy at {address}{by_name}")
            }
            NetworkAccess::Full => "all that the host reaches".to_owned(),
        };
        self.say(Layer::Network, rule, origin);
        if is_kept_to_a_port(self.input) {
            self.say(Layer::Network, KEPT_TO_A_PORT.to_owned(), origin);
        }
        if let Some(origin) = &self.input.confinement.asks_paths {
            let rule = "a person is asked about a path at which it ends".to_owned();
            self.say(Layer::Landlock, rule, origin);
        }
        if let Some(Declared { value: reach, origin }) = &self.input.confinement.model {
            let address = port_address(self.input);
            let rule = match (reach, self.input.confinement.by_model) {
                (ModelReach::Providers, false) => format!("models at {address}, where Toka asks them for it"),
                (ModelReach::Script, false) => format!("models at {address}, where a script answers"),
                (ModelReach::Providers, true) => "no way to models: Toka asks them for its tasks".to_owned(),
                (ModelReach::Script, true) => "no way to models: a script answers for its tasks".to_owned(),
            };
            self.say(Layer::Network, rule, origin);
        }
    }

    /// Limits as rules; what no layer enforces in full is returned.
    fn limits(&mut self) -> Vec<(Layer, String)> {
        let limits = &self.input.confinement.limits;
        let mut gaps = Vec::new();
        let priority = &self.input.confinement.priority;
        self.say(Layer::Cgroup, format!("memory ≤ {}", limits.memory.value), &limits.memory.origin);
        self.say(Layer::Cgroup, format!("CPU ≤ {}", limits.cpu.value), &limits.cpu.origin);
        self.say(Layer::Cgroup, format!("CPU weight {}", priority.value.cpu_weight()), &priority.origin);
        self.say(Layer::Cgroup, format!("processes ≤ {}", limits.processes.value), &limits.processes.origin);
        self.say(
            Layer::Process,
            format!("open files ≤ {}", limits.open_files.value),
            &limits.open_files.origin,
        );
        if let Some(timeout) = &limits.timeout {
            let text = toka_core::units::format_duration(timeout.value);
            self.say(Layer::Cgroup, format!("life ≤ {text}"), &timeout.origin);
        }
        if let Some(disk) = &limits.disk {
            let size = disk.value;
            let rule = format!("each file ≤ {size}; HOME, /tmp and artifacts together ≤ {size}, measured");
            self.say(Layer::Process, rule, &disk.origin);
            let gap = "max_disk_usage is measured, about once a second, and does not count the workspace";
            gaps.push((Layer::Process, gap.to_owned()));
        }
        if let Some(bandwidth) = &limits.network_bandwidth {
            self.say(Layer::Network, format!("traffic ≤ {}/s", bandwidth.value), &bandwidth.origin);
            // The proxy sees to it.
            let is_kept =
                matches!(self.input.confinement.network.value, NetworkAccess::None | NetworkAccess::Allow(_));
            if !is_kept {
                gaps.push((
                    Layer::Network,
                    "max_network_bandwidth is not enforced on this network".to_owned(),
                ));
            }
        }
        gaps
    }

    fn finish(self, environment: Vec<(String, String)>, gaps: Vec<(Layer, String)>) -> SandboxPlan {
        let Self { input, mut binds, files, rules, guards, to_make, absent, .. } = self;
        let limits = &input.confinement.limits;
        // An outer folder first, so that what lies deeper covers it; the order of equals is kept.
        binds.sort_by_key(|bind| bind.target.components().count());
        let mode = input.confinement.sandbox.value;
        SandboxPlan {
            mode,
            compatibility: input.confinement.compatibility.value,
            project: input.project.clone(),
            agent: input.agent.clone(),
            working_dir: input.folders.working_dir.clone(),
            binds,
            files: if mode == SandboxMode::On { merge(files) } else { Vec::new() },
            network: network_of(input.confinement),
            listen: input.confinement.has_port().then(|| port_address(input)),
            port_alone: is_kept_to_a_port(input),
            hosts: stand_ins(input),
            group: GroupLimits::of(input.confinement),
            process: ProcessLimits {
                open_files: limits.open_files.value,
                file_size: limits.disk.as_ref().map(|disk| disk.value.0),
            },
            run_as: input.run_as.map(|(user, _)| user.clone()),
            guards,
            to_make,
            gaps,
            environment,
            rules,
            absent,
        }
    }

    /// A path that may be used: shown by the mounts, allowed by Landlock. What it leads to through links is what is
    /// opened, and inside it has the name that was declared.
    fn grant(&mut self, path: &Path, right: Right, need: Need, origin: &Origin) -> Result<(), CompileError> {
        let (real, shown) = self.places(path, origin)?;
        self.grant_real(&real, &shown, right, need, origin);
        Ok(())
    }

    /// Where a path leads, and what it is called inside, if it may be granted.
    fn places(&self, path: &Path, origin: &Origin) -> Result<(PathBuf, PathBuf), CompileError> {
        let workspace = &self.input.folders.workspace;
        let real = resolve(path);
        let inside = path.starts_with(workspace);
        let folders = &self.input.folders;
        // No grant opens what Toka itself keeps, trust among it.
        if [&folders.state_dir, &folders.run_dir].into_iter().any(|own| real.starts_with(own)) {
            return Err(CompileError::Own { path: path.to_owned(), origin: origin.clone() });
        }
        let astray = real != path && self.is_secret(&real) && !self.is_secret(path);
        if astray || (inside && !real.starts_with(workspace)) {
            return Err(CompileError::Outside { path: path.display().to_string(), origin: origin.clone() });
        }
        // Who can write to the workspace can make links in it: there only what they lead to has a name.
        let shown = if inside { real.clone() } else { path.to_owned() };
        Ok((real, shown))
    }

    /// As [`Compiler::grant`], when it is known that `real` has no link in it; inside it is called `path`.
    fn grant_real(&mut self, real: &Path, path: &Path, right: Right, need: Need, origin: &Origin) {
        let access = if right >= Right::Device { Access::ReadWrite } else { Access::ReadOnly };
        if !self.in_system(real) || access == Access::ReadWrite {
            self.bind(real, path, access, need);
        }
        self.allow(real, path, right, need, origin);
    }

    /// A rule without a mount, for what another mount shows.
    fn allow(&mut self, real: &Path, path: &Path, right: Right, need: Need, origin: &Origin) {
        self.files.push(PathRule { path: real.to_owned(), right, links: Links::Refuse, need });
        let verb = match right {
            Right::List => "list",
            Right::Read => "read",
            Right::Execute => "execute",
            Right::Device => "use",
            Right::Write | Right::WriteExecute => "write",
        };
        self.say(Layer::Landlock, format!("{verb} {}", path.display()), origin);
    }

    fn in_system(&self, path: &Path) -> bool {
        let system = &self.input.host.system;
        // Nearly every path that is asked about is the agent's own, and configuration is a long list.
        let below = |list: &[PathBuf]| list.iter().any(|known| path.starts_with(known));
        let may_be_configuration = ["/etc", "/run"].iter().any(|folder| path.starts_with(folder));
        below(&system.programs) || (may_be_configuration && below(&system.configuration))
    }

    /// Adds a bind mount; of two with one target the one that allows more stays, unless one is a protection.
    pub(super) fn bind(&mut self, source: &Path, target: &Path, access: Access, need: Need) {
        match self.binds.iter_mut().find(|bind| bind.target == target) {
            Some(bind) if bind.source.as_deref() == Some(source) && access == Access::ReadWrite => {
                if bind.access != Access::Protected {
                    bind.access = access;
                }
            }
            Some(bind) if bind.source.as_deref() == Some(source) => {}
            _ => self.binds.push(Bind {
                source: Some(source.to_owned()),
                target: target.to_owned(),
                access,
                need,
                execution: Execution::Allowed,
            }),
        }
    }

    pub(super) fn say(&mut self, layer: Layer, rule: String, origin: &Origin) {
        // What is granted twice is one rule, which comes from its first place.
        if self.rules.iter().all(|known| known.layer != layer || known.rule != rule) {
            self.rules.push(Rule { layer, rule, origin: origin.clone() });
        }
    }

    fn below_workspace(&self, below: Option<&str>, origin: &Origin) -> Result<PathBuf, CompileError> {
        let workspace = &self.input.folders.workspace;
        let path = demand::normalise(&workspace.join(below.unwrap_or("")));
        if path.starts_with(workspace) {
            Ok(path)
        } else {
            Err(CompileError::Outside { path: below.unwrap_or("").to_owned(), origin: origin.clone() })
        }
    }

    /// A path of `security.filesystem`. One that is to be written is made where it is not there; one that is only read is
    /// left out, and that is told.
    fn declared_path(&mut self, declared: &Declared<String>, right: Right) -> Result<(), CompileError> {
        let Declared { value, origin } = declared;
        let path = self.locate(value);
        if right >= Right::Write {
            let kind = if names_a_file(value) { Made::File } else { Made::Folder };
            self.make_where_missing(&path, kind, origin)?;
            return self.grant(&path, right, Need::Required, origin);
        }
        if self.is_left_out(&path, origin) {
            return Ok(());
        }
        self.grant(&path, right, Need::Optional, origin)
    }

    /// Whether `path`, which is only to be read, cannot be granted because it is not there; the plan then says so.
    fn is_left_out(&mut self, path: &Path, origin: &Origin) -> bool {
        // What else is wrong with it, the start finds out and tells.
        if !path.metadata().is_err_and(|error| is_missing(&error)) {
            return false;
        }
        self.say(Layer::Landlock, format!("nothing of {}: it is not there", path.display()), origin);
        self.absent.push(Declared::new(path.to_owned(), origin.clone()));
        true
    }

    /// Has a path that may be written made before the start, when it is not there and the folder above it is.
    fn make_where_missing(&mut self, path: &Path, kind: Made, origin: &Origin) -> Result<(), CompileError> {
        if !path.symlink_metadata().is_err_and(|error| is_missing(&error)) {
            return Ok(());
        }
        let is_made =
            |folder: &Path| self.to_make.iter().any(|made| made.path == folder && made.kind == Made::Folder);
        let above = path.parent().filter(|folder| folder.is_dir() || is_made(folder));
        let (Some(_), false) = (above, self.is_protected(path)) else {
            return Err(CompileError::Missing { path: path.to_owned(), origin: origin.clone() });
        };
        let real = resolve(path);
        if self.to_make.iter().all(|made| made.path != real) {
            let what = match kind {
                Made::Folder => "make the folder",
                Made::File => "make the empty file",
            };
            self.say(Layer::Landlock, format!("{what} {} at the start", path.display()), origin);
            self.to_make.push(ToMake { path: real, kind });
        }
        Ok(())
    }

    fn is_protected(&self, path: &Path) -> bool {
        self.protected_paths.iter().any(|protected| path.starts_with(protected))
    }

    fn locate(&self, declared: &str) -> PathBuf {
        let text = match declared.strip_prefix("~/") {
            Some(rest) => self.input.folders.user_home.join(rest),
            None => self.input.folders.workspace.join(declared),
        };
        demand::normalise(&text)
    }

    /// The paths that a pattern matches now, `None` for a plain path; it is resolved before the start and not again. The
    /// walk begins at the last folder that the pattern spells out, follows no link, and ends.
    fn pattern(&self, declared: &Declared<String>) -> Result<Option<Vec<PathBuf>>, CompileError> {
        if !declared.value.contains(['*', '?', '[']) {
            return Ok(None);
        }
        let path = self.locate(&declared.value);
        let is_plain =
            |part: &Component<'_>| !part.as_os_str().as_encoded_bytes().iter().any(|b| b"*?[".contains(b));
        let plain: PathBuf = path.components().take_while(is_plain).collect();
        let rest: PathBuf = path.components().skip_while(is_plain).collect();
        // A link that is spelled out leads where it leads; what it leads to is checked when it is granted.
        let Ok(root) = plain.canonicalize().and_then(|real| Directory::open(&real)) else {
            return Ok(Some(Vec::new()));
        };
        let limits = Limits { names: MOST_NAMES, deadline: Instant::now() + LONGEST_WALK };
        let found = Walk::find(&root, &rest.to_string_lossy(), limits).map_err(|why| {
            CompileError::Endless { pattern: declared.value.clone(), why, origin: declared.origin.clone() }
        })?;
        // What a link leads to was granted with the place that it lies in only if it lies there too.
        let real = plain.canonicalize().unwrap_or_else(|_| plain.clone());
        let stays = |path: &PathBuf| path.canonicalize().is_ok_and(|path| path.starts_with(&real));
        let found = found.into_iter().map(|path| plain.join(path).components().collect::<PathBuf>());
        Ok(Some(found.filter(stays).collect()))
    }

    /// What git needs of a repository that lies outside the workspace: that of a linked worktree, or of a submodule. Git
    /// writes to it when the agent may write the workspace; what decides what git runs stays as it is.
    fn repository(&mut self) -> Result<(), CompileError> {
        let repository = &self.input.facts.repository;
        let granted = self.input.confinement.capabilities.iter().find(|it| it.value == Capability::Git);
        if let (DotGit::Foreign(why), Some(git)) = (&repository.dot_git, granted) {
            self.say(
                Layer::Landlock,
                format!("nothing of the repository that .git names: {why}"),
                &git.origin,
            );
        }
        let workspace = &self.input.folders.workspace;
        let writes = |rule: &PathRule| rule.path == *workspace && rule.right >= Right::Write;
        let right = if self.files.iter().any(writes) { Right::Write } else { Right::Read };
        for directory in repository.outside.clone() {
            match granted {
                Some(git) => self.grant(&directory, right, Need::Optional, &git.origin)?,
                None => {
                    let rule = format!(
                        "nothing of {}, the repository of this worktree: git-access opens it",
                        directory.display()
                    );
                    self.say(Layer::Landlock, rule, &Origin::default_of("git"));
                }
            }
        }
        Ok(())
    }
}

/// What rules let an agent execute, and which mounts show that.
struct Programs<'a> {
    executable: Vec<&'a Path>,
    /// Of each of them the source of the innermost mount that shows it.
    shown_by: BTreeSet<&'a Path>,
}

impl<'a> Programs<'a> {
    fn of(files: &'a [PathRule], binds: &'a [Bind]) -> Self {
        let rules = files.iter().filter(|rule| matches!(rule.right, Right::Execute | Right::WriteExecute));
        let executable: Vec<&Path> = rules.map(|rule| rule.path.as_path()).collect();
        let sources: BTreeSet<&Path> = binds.iter().filter_map(|bind| bind.source.as_deref()).collect();
        let innermost = |path: &&'a Path| path.ancestors().find(|above| sources.contains(above));
        let shown_by = executable.iter().filter_map(innermost).collect();
        Self { executable, shown_by }
    }

    /// Whether a rule lets the agent execute something that this mount shows.
    fn are_in(&self, bind: &Bind) -> bool {
        // A cover is empty.
        let Some(source) = bind.source.as_deref() else { return true };
        self.shown_by.contains(source) || self.executable.iter().any(|path| source.starts_with(path))
    }
}

/// The path with the links of the folder above it resolved.
fn resolve(path: &Path) -> PathBuf {
    if let Ok(real) = path.canonicalize() {
        return real;
    }
    match (path.parent().map(Path::canonicalize), path.file_name()) {
        (Some(Ok(above)), Some(name)) => above.join(name),
        _ => path.to_owned(),
    }
}

/// Whether nothing is at a path, also because what lies above it is no folder or leads in a circle.
fn is_missing(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory)
        || error.raw_os_error() == Some(nix::errno::Errno::ELOOP as i32)
}

/// Whether somebody who writes this about a path that is not there means a file: it has an extension, is in capitals as
/// `VERSION` is, or called as `Makefile` is; and has no slash at the end.
fn names_a_file(declared: &str) -> bool {
    let path = Path::new(declared);
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let capitals = name.len() > 1 && name.chars().all(|c| c.is_ascii_uppercase() || c == '_' || c == '-');
    let is_called_so = name.starts_with(|c: char| c.is_ascii_uppercase()) && name.ends_with("file");
    !declared.ends_with('/') && (path.extension().is_some() || capitals || is_called_so)
}

/// One rule per path with the greatest right, in the order of the paths.
fn merge(files: Vec<PathRule>) -> Vec<PathRule> {
    let mut merged: Vec<PathRule> = Vec::with_capacity(files.len());
    for rule in files {
        match merged.iter_mut().find(|known| known.path == rule.path) {
            Some(known) => {
                known.right = union(known.right, rule.right);
                if rule.need == Need::Required {
                    known.need = Need::Required;
                }
            }
            None => merged.push(rule),
        }
    }
    merged
}

/// The right that includes both.
fn union(a: Right, b: Right) -> Right {
    match (a.min(b), a.max(b)) {
        (Right::Execute, Right::Write) => Right::WriteExecute,
        (_, greater) => greater,
    }
}

pub(super) fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}
