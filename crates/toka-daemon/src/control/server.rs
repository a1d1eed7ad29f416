//! What every request may look at and ask: the projects of this process, and the service that begins others.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use toka_api::declaration::Declaration;
use toka_api::socket;
use toka_api::wire::RunInfo;
use toka_core::{ProjectName, Urgency};
use toka_prepare::RunError;
use tokio::sync::{mpsc, oneshot};

use super::checks::Files;
use super::error::Error;
use toka_project::ProjectHandle;

/// The projects that run in a process.
#[derive(Debug, Clone, Default)]
pub struct Projects(Arc<Mutex<BTreeMap<ProjectName, ProjectHandle>>>);

impl Projects {
    /// Adds one, in place of another of the same name.
    pub fn insert(&self, handle: ProjectHandle) {
        self.lock().insert(handle.overview().project.clone(), handle);
    }

    /// Takes one out.
    pub fn remove(&self, project: &ProjectName) {
        self.lock().remove(project);
    }

    /// The one of that name.
    pub fn get(&self, project: &ProjectName) -> Option<ProjectHandle> {
        self.lock().get(project).cloned()
    }

    /// All of them, by name.
    pub fn all(&self) -> Vec<ProjectHandle> {
        self.lock().values().cloned().collect()
    }

    /// Their names.
    pub fn names(&self) -> Vec<ProjectName> {
        self.lock().keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ProjectName, ProjectHandle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a process does besides answering.
#[derive(Debug, Clone)]
pub enum Role {
    /// It runs one project and ends with it.
    Foreground,
    /// It begins projects that it is asked for.
    Service(mpsc::Sender<ServiceOrder>),
}

/// What is asked of a service.
#[derive(Debug)]
pub enum ServiceOrder {
    /// Begin a run of a project.
    Open {
        /// The project.
        project: ProjectName,
        /// What it is to be.
        declaration: Box<Declaration>,
        /// Where the outcome goes.
        answer: oneshot::Sender<Result<(), RunError>>,
    },
    /// Stop everything and end.
    Shutdown(Urgency),
    /// Become another program of the same name, and leave the agents running meanwhile.
    Upgrade {
        /// Where it is told that it cannot be; nothing is told otherwise.
        refused: oneshot::Sender<String>,
    },
}

/// What every request may look at.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(super) projects: Projects,
    pub(super) role: Role,
    pub(super) started_ms: i64,
    /// Where it answers.
    pub(super) socket: PathBuf,
    /// Folders that must have room, besides those of the projects.
    pub(super) folders: Vec<PathBuf>,
}

/// Who asks through the socket, for the record.
pub const OPERATOR: &str = "operator";

/// The project that a path names.
pub(super) fn project_name(name: &str) -> Result<ProjectName, Error> {
    ProjectName::new(name).map_err(|error| Error::bad_request(error.to_string()))
}

impl Server {
    /// What answers at `socket`. `folders` must have room, besides those of the projects.
    pub(crate) fn new(socket: &Path, projects: Projects, role: Role, folders: Vec<PathBuf>) -> Self {
        Self { projects, role, started_ms: now_ms(), socket: socket.to_owned(), folders }
    }

    /// Whether the one run of this process is over, so that no command looks for its socket any more.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.role, Role::Foreground) && self.projects.all().iter().all(ProjectHandle::is_over)
    }

    /// The files of a project that somebody may remove while it runs.
    pub(super) fn files_of(&self, project: &ProjectHandle) -> Files {
        let RunInfo { project, root, .. } = project.overview();
        let run_dir = self.socket.parent().filter(|_| matches!(self.role, Role::Service(_)));
        let keeper = run_dir.map(|run_dir| run_dir.join(project.as_str()).join(socket::KEEPER));
        Files { root: root.clone(), keeper }
    }

    pub(super) fn project(&self, name: &str) -> Result<ProjectHandle, Error> {
        let name = project_name(name)?;
        self.projects.get(&name).ok_or_else(|| Error::no_project(&name, &self.projects.names()))
    }

    /// A project with whose agents something can be done. Others are not asked, so that only those whose keeper hangs are
    /// refused.
    pub(super) async fn project_at_work(&self, name: &str) -> Result<ProjectHandle, Error> {
        let handle = self.project(name)?;
        let answers = handle.answers().await;
        answers.map_err(|why| Error::silent_keeper(&handle.overview().project, &why))?;
        Ok(handle)
    }

    /// A project whose keeper the next daemon would not find, if there is one.
    pub(super) fn unfindable(&self) -> Option<ProjectName> {
        let run_dir = self.socket.parent()?;
        let findable = socket::orphaned(run_dir);
        self.projects.names().into_iter().find(|project| !findable.contains(project))
    }
}

/// The wall clock in milliseconds since the Unix epoch.
pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
