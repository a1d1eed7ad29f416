//! From what an agent declared to what will be enforced: one function over the declaration, the agent's folders and the
//! facts of the host. Of the file system it reads only where links lead and what globs match; it changes nothing.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;
use toka_core::demand;
use toka_core::{Capability, Confinement, Declared, Layer, Name, NetworkAccess, Origin, SandboxMode};

use super::system::DEVICES;
use super::{
    Access, Bind, GroupLimits, Links, Need, PathRule, ProcessLimits, Right, Rule, RunAs, SandboxPlan,
    toolchain,
};
use crate::HostFacts;

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
    /// Files that declare agents: never writable by one.
    pub workstream_files: &'a [PathBuf],
    /// The folder of the file that declares this agent.
    pub workstream_dir: Option<&'a Path>,
    /// The `toka` binary, which every agent may execute.
    pub toka_exe: &'a Path,
    /// Programs outside the system's folders that the agent was told to run.
    pub programs: &'a [PathBuf],
    /// Another user to run as.
    pub run_as: Option<&'a RunAs>,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CompileError {
    /// A glob that cannot be read.
    #[error("{origin}: bad pattern {pattern:?}: {why}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        why: String,
        /// Where it stands.
        origin: Origin,
    },
    /// A path that looks as if it were below the workspace leaves it, by `..` or through a link.
    #[error("{origin}: {path:?} leaves the workspace; declare where it leads under security.filesystem")]
    Outside {
        /// The path.
        path: String,
        /// Where it stands.
        origin: Origin,
    },
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
            guarded: Vec::new(),
            binds: Vec::new(),
            files: Vec::new(),
            rules: Vec::new(),
        };
        compiler.system();
        let mut environment = compiler.capabilities()?;
        compiler.declared_paths()?;
        compiler.protect();
        compiler.own_folders()?;
        compiler.hide();
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
    /// Protected paths that are not there.
    pub(super) guarded: Vec<PathBuf>,
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
        self.say(Layer::Landlock, "read the harmless part of /etc, CPU facts in /sys".into(), &origin);
        self.say(Layer::Landlock, format!("use {}", DEVICES.join(", ")), &origin);
        self.say(Layer::Mounts, "everything else hidden or read-only".into(), &origin);
        if let Some(RunAs { uid, gid, .. }) = self.input.run_as {
            let origin = Origin::default_of("spec.process.user");
            self.say(Layer::Process, format!("run as user {uid} in group {gid}"), &origin);
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
                    self.grant(&path, Right::Read, Need::Required, origin)?;
                }
                Capability::FilesystemWrite(below) => self.writable(below.as_deref(), origin)?,
                Capability::Git => variables.extend(self.git(origin)?),
                Capability::Device(path) => self.device(Path::new(path), origin),
                _ => {}
            }
            let network = &self.input.confinement.network.value;
            if let Some(found) = toolchain::of(value, self.input.host, &self.input.folders.user_home, network)
            {
                for (path, right) in &found.paths {
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
        // Build output is written and run: cargo test, npm scripts.
        self.grant(&path, Right::WriteExecute, Need::Required, origin)?;
        Ok(())
    }

    /// git's own settings, through variables (git-config(1), ENVIRONMENT), since HOME is private.
    fn git(&mut self, origin: &Origin) -> Result<Vec<(String, String)>, CompileError> {
        let (project, agent) = (self.input.project, self.input.agent);
        let repository = self.input.folders.workspace.join(".git");
        self.grant(&repository, Right::Read, Need::Optional, origin)?;
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

    fn device(&mut self, path: &Path, origin: &Origin) {
        self.bind(path, path, Access::ReadWrite, Need::Required);
        self.files.push(PathRule {
            path: path.to_owned(),
            right: Right::Device,
            links: Links::Follow,
            need: Need::Required,
        });
        self.say(Layer::Landlock, format!("use device {}", path.display()), origin);
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
                for path in self.expand(declared)? {
                    self.grant(&path, right, Need::Optional, &declared.origin)?;
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
        for shared in ["/tmp", "/dev/shm"] {
            self.bind(&folders.tmp, Path::new(shared), Access::ReadWrite, Need::Required);
        }
        let inputs = folders.inputs.iter().map(|(_, path)| path);
        for path in inputs.chain([&folders.inputs_dir, &folders.credentials, &folders.door]) {
            self.grant_real(path, path, Right::Read, Need::Required, &origin);
        }
        if let Some(folder) = self.workstream_folder() {
            self.grant(
                &folder,
                Right::Execute,
                Need::Required,
                &Origin::default_of("the workstream's folder"),
            )?;
        }
        for program in self.input.programs.iter().map(PathBuf::as_path).chain([self.input.toka_exe]) {
            let origin = Origin::default_of("the program to run");
            self.grant(program, Right::Execute, Need::Required, &origin)?;
        }
        Ok(())
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
            NetworkAccess::None => "no sockets but Unix sockets".to_owned(),
            NetworkAccess::Loopback => "a loopback interface of its own".to_owned(),
            NetworkAccess::Allow(hosts) => format!("only {}", hosts.join(", ")),
            NetworkAccess::Full => "all that the host reaches".to_owned(),
        };
        self.say(Layer::Network, rule, origin);
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
            if self.input.confinement.network.value != NetworkAccess::None {
                gaps.push((
                    Layer::Network,
                    "max_network_bandwidth is not enforced on this network".to_owned(),
                ));
            }
        }
        gaps
    }

    fn finish(self, environment: Vec<(String, String)>, gaps: Vec<(Layer, String)>) -> SandboxPlan {
        let Self { input, mut binds, files, rules, guarded, .. } = self;
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
            network: input.confinement.network.value.clone(),
            group: GroupLimits {
                memory: limits.memory.value.0,
                cpu_millis: limits.cpu.value.millis,
                cpu_weight: input.confinement.priority.value.cpu_weight(),
                processes: limits.processes.value,
            },
            process: ProcessLimits {
                open_files: limits.open_files.value,
                file_size: limits.disk.as_ref().map(|disk| disk.value.0),
            },
            run_as: input.run_as.cloned(),
            guarded,
            gaps,
            environment,
            rules,
        }
    }

    /// A path that may be used: shown by the mounts, allowed by Landlock. What it leads to through links is what is
    /// opened, and inside it has the name that was declared.
    fn grant(&mut self, path: &Path, right: Right, need: Need, origin: &Origin) -> Result<(), CompileError> {
        let workspace = &self.input.folders.workspace;
        let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let inside = path.starts_with(workspace);
        let astray = real != path && self.is_secret(&real) && !self.is_secret(path);
        if astray || (inside && !real.starts_with(workspace)) {
            return Err(CompileError::Outside { path: path.display().to_string(), origin: origin.clone() });
        }
        // Who can write to the workspace can make links in it: there only what they lead to has a name.
        self.grant_real(&real, if inside { &real } else { path }, right, need, origin);
        Ok(())
    }

    /// As [`Compiler::grant`], when it is known that `real` has no link in it; inside it is called `path`.
    fn grant_real(&mut self, real: &Path, path: &Path, right: Right, need: Need, origin: &Origin) {
        let access = if right >= Right::Device { Access::ReadWrite } else { Access::ReadOnly };
        if !self.in_system(real) || access == Access::ReadWrite {
            self.bind(real, path, access, need);
        }
        self.files.push(PathRule { path: real.to_owned(), right, links: Links::Refuse, need });
        let verb = match right {
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

    /// Adds a bind mount; of two with one target the one that allows more stays, unless the later is a protection.
    pub(super) fn bind(&mut self, source: &Path, target: &Path, access: Access, need: Need) {
        match self.binds.iter_mut().find(|bind| bind.target == target) {
            Some(bind) if bind.source.as_deref() == Some(source) && access == Access::ReadWrite => {
                bind.access = access;
            }
            Some(bind) if bind.source.as_deref() == Some(source) => {}
            _ => self.binds.push(Bind {
                source: Some(source.to_owned()),
                target: target.to_owned(),
                access,
                need,
            }),
        }
    }

    pub(super) fn say(&mut self, layer: Layer, rule: String, origin: &Origin) {
        self.rules.push(Rule { layer, rule, origin: origin.clone() });
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

    /// A declared path, or the paths that a glob matches now; a glob is resolved before the start and not again.
    fn expand(&self, declared: &Declared<String>) -> Result<Vec<PathBuf>, CompileError> {
        let text = match declared.value.strip_prefix("~/") {
            Some(rest) => self.input.folders.user_home.join(rest),
            None => self.input.folders.workspace.join(&declared.value),
        };
        let path = demand::normalise(&text);
        if !declared.value.contains(['*', '?', '[']) {
            return Ok(vec![path]);
        }
        let pattern = path.to_string_lossy().into_owned();
        let matches = glob::glob(&pattern).map_err(|error| CompileError::Pattern {
            pattern: declared.value.clone(),
            why: error.to_string(),
            origin: declared.origin.clone(),
        })?;
        // `.*` matches the folder itself and the one above, and nobody means those.
        let dots =
            |path: &PathBuf| path.ends_with("..") || path.as_os_str().as_encoded_bytes().ends_with(b"/.");
        Ok(matches.filter_map(Result::ok).filter(|path| !dots(path)).collect())
    }
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
