//! Where everything of a project lies. Pure: nothing is created or looked up, so that `toka plan` shows the folders of a
//! run that never was.
//!
//! ```text
//! <state>/projects/<project>/
//!   lock                     held by the one run of the project
//!   declaration.json         what it was declared to be when it was applied last
//!   journal.db               its events, with journal.db-wal and journal.db-shm while it is open
//!   sessions/                transcripts of agents on whose tasks a model works (toka_session)
//!   agents/<agent>/
//!     home/                  HOME, kept between runs
//!     tmp/                   TMPDIR and /tmp, emptied after each run
//!     artifacts/             TOKA_ARTIFACTS, kept
//!     inputs/                TOKA_INPUTS: links to the artifacts of what it depends on
//!     log, log.index         its output in its last run, or the end of it
//!     logs/                  what it wrote before (toka_logs::segment)
//!     objective-N.log        the output of the check of its Nth objective, from 0; with its index
//! <run>/<project>/<agent>/
//!   door/                    the sockets `notify` and `agent`, and TOKA_SECTIONS: what it may know of its declaration
//!   credentials/             CREDENTIALS_DIRECTORY
//! ```

use std::path::{Path, PathBuf};

use toka_core::{AgentName, Name, ProjectName};
use toka_sandbox::AgentFolders;
use toka_workstream::{Agent, Plan};

/// The folders of one project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectFolders {
    /// Toka's state folder.
    pub state_dir: PathBuf,
    /// Toka's run folder.
    pub run_dir: PathBuf,
    /// The project.
    pub project: ProjectName,
    /// The workspace, without links in its path.
    pub workspace: PathBuf,
    /// The home of the user who runs Toka.
    pub user_home: PathBuf,
}

impl ProjectFolders {
    /// Everything that is kept of the project.
    pub fn root(&self) -> PathBuf {
        root_in(&self.state_dir, &self.project)
    }

    /// The file that a run locks.
    pub fn lock(&self) -> PathBuf {
        lock_in(&self.root())
    }

    /// The journal.
    pub fn journal(&self) -> PathBuf {
        journal_in(&self.root())
    }

    /// What the project was declared to be when it was applied last.
    pub fn declaration(&self) -> PathBuf {
        self.root().join(DECLARATION)
    }

    /// The transcripts of its agents' sessions.
    pub fn sessions(&self) -> PathBuf {
        sessions_in(&self.root())
    }

    /// What is kept of an agent.
    pub fn agent(&self, agent: &AgentName) -> PathBuf {
        self.root().join("agents").join(agent.as_str())
    }

    /// The agent's artifacts.
    pub fn artifacts(&self, agent: &AgentName) -> PathBuf {
        self.agent(agent).join("artifacts")
    }

    /// The agent's output; its index lies beside it.
    pub fn log(&self, agent: &AgentName) -> PathBuf {
        log_in(&self.root(), agent)
    }

    /// The output of the check of the agent's objective at `index`; its index lies beside it.
    pub fn check_log(&self, agent: &AgentName, index: usize) -> PathBuf {
        self.agent(agent).join(format!("objective-{index}.log"))
    }

    /// What an agent needs while it runs.
    pub fn runtime(&self, agent: &AgentName) -> PathBuf {
        self.run_dir.join(self.project.as_str()).join(agent.as_str())
    }

    /// The folders that the agent sees; its inputs are the artifacts of what it waits for in the plan.
    pub fn of(&self, agent: &Agent, plan: &Plan) -> AgentFolders {
        let own = self.agent(&agent.name);
        let runtime = self.runtime(&agent.name);
        AgentFolders {
            workspace: self.workspace.clone(),
            home: own.join("home"),
            tmp: own.join("tmp"),
            artifacts: self.artifacts(&agent.name),
            inputs: self.inputs(&agent.name, plan),
            inputs_dir: own.join("inputs"),
            credentials: runtime.join("credentials"),
            door: runtime.join("door"),
            state_dir: self.state_dir.clone(),
            run_dir: self.run_dir.clone(),
            working_dir: self.working_dir(agent),
            user_home: self.user_home.clone(),
        }
    }

    fn inputs(&self, agent: &AgentName, plan: &Plan) -> Vec<(Name, PathBuf)> {
        let gates = plan.position(agent).into_iter().flat_map(|at| &plan.nodes()[at].gates);
        let mut names: Vec<&AgentName> = gates.map(|gate| &gate.on).collect();
        names.sort_unstable();
        names.dedup();
        names.into_iter().map(|name| (name.clone(), self.artifacts(name))).collect()
    }

    /// Where an agent's process begins, as it is declared: it need not be there, and may be a link.
    pub fn working_dir(&self, agent: &Agent) -> PathBuf {
        let declared = agent.process.as_ref().map_or(".", |process| process.working_dir.value.as_str());
        // Collected anew, so that `.` leaves no trace in what people read.
        self.workspace.join(Path::new(declared)).components().collect()
    }
}

/// Replaces the first part of the names of control groups. Every command about one state directory must be given the same.
const GROUP_VARIABLE: &str = "TOKA_CGROUP";

/// Name of the control group of what lies in `root`, such as a project: the same at every start, so that what a crash left is
/// found again, and another for every other directory. The one rule for all commands.
pub fn group_name(root: &Path) -> String {
    let prefix = group_prefix();
    // FNV-1a of the path.
    let bytes = root.as_os_str().as_encoded_bytes();
    let hash =
        bytes.iter().fold(0x811c_9dc5, |hash: u32, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    format!("{prefix}-{hash:0GROUP_HASH$x}")
}

/// The first part of such names.
pub fn group_prefix() -> String {
    let prefix = std::env::var(GROUP_VARIABLE).ok().and_then(|name| Name::new(&name).ok());
    prefix.map_or_else(|| "toka".to_owned(), |name| name.to_string())
}

/// Hexadecimal digits of the last part.
pub const GROUP_HASH: usize = 8;

/// The file name of what a project was declared to be.
pub const DECLARATION: &str = "declaration.json";
/// The transcripts of the sessions of the project whose root is `root`.
pub fn sessions_in(root: &Path) -> PathBuf {
    root.join("sessions")
}

/// The output of an agent of the project whose root is `root`; its index lies beside it.
pub fn log_in(root: &Path, agent: &AgentName) -> PathBuf {
    root.join("agents").join(agent.as_str()).join("log")
}

/// Everything that is kept of a project, in a state folder.
pub fn root_in(state_dir: &Path, project: &ProjectName) -> PathBuf {
    state_dir.join("projects").join(project.as_str())
}

/// The file that a run locks, of a project whose folder is `root`.
pub fn lock_in(root: &Path) -> PathBuf {
    root.join("lock")
}

/// The journal of a project whose folder is `root`.
pub fn journal_in(root: &Path) -> PathBuf {
    root.join("journal.db")
}
