//! The server: one per process, for all the projects that run in it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::to_bytes;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use toka_api::declaration::Declaration;
use toka_api::socket;
use toka_api::wire::RunInfo;
use toka_core::{ExitCode, ProjectName, Urgency};
use toka_prepare::RunError;
use toka_runtime::turns::timed;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::checks::Files;
use super::error::Error;
use super::peer::Peer;
use super::post::Post;
use super::{peer, routes};
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

impl Server {
    /// What answers at `socket`. `folders` must have room, besides those of the projects.
    pub(crate) fn new(socket: &Path, projects: Projects, role: Role, folders: Vec<PathBuf>) -> Self {
        Self { projects, role, started_ms: now_ms(), socket: socket.to_owned(), folders }
    }

    /// The files of a project that somebody may remove while it runs.
    pub(super) fn files_of(&self, project: &ProjectHandle) -> Files {
        let RunInfo { project, root, .. } = project.overview();
        let run_dir = self.socket.parent().filter(|_| matches!(self.role, Role::Service(_)));
        let keeper = run_dir.map(|run_dir| run_dir.join(project.as_str()).join(socket::KEEPER));
        Files { root: root.clone(), keeper }
    }

    /// A project whose keeper the next daemon would not find, if there is one.
    pub(super) fn unfindable(&self) -> Option<ProjectName> {
        let run_dir = self.socket.parent()?;
        let findable = socket::orphaned(run_dir);
        self.projects.names().into_iter().find(|project| !findable.contains(project))
    }
}

/// The control socket while it is there; one that was made here goes when this is dropped.
#[derive(Debug)]
pub struct Control {
    made: Option<PathBuf>,
    task: JoinHandle<()>,
}

impl Control {
    /// Answers at `path`, from now on. It is ready only while there is room in `folders`. Must be called within a Tokio
    /// runtime.
    ///
    /// # Errors
    /// When somebody else answers there already, or the socket cannot be made.
    pub fn listen(path: &Path, projects: Projects, role: Role, folders: Vec<PathBuf>) -> io::Result<Self> {
        let server = Server::new(path, projects, role, folders);
        Ok(Self::serve(socket::bind(path)?, server).made_at(Some(path.to_owned())))
    }

    /// The same at a socket that is there already, and stays.
    pub(crate) fn serve(listener: tokio::net::UnixListener, server: Server) -> Self {
        let mut post = Post::new(listener, &server.socket);
        let app = routes::router(server.clone())
            .layer(middleware::from_fn(read_in_time))
            .layer(middleware::from_fn_with_state(server, check_peer));
        let task = tokio::spawn(async move {
            loop {
                let (stream, peer) = peer::accept(&mut post).await;
                tokio::spawn(timed(answer(stream, app.clone().layer(Extension(ConnectInfo(peer))))));
            }
        });
        Self { made: None, task }
    }
}

/// How long a connection may be without a request, or a head of one without its end.
const IDLE: Duration = Duration::from_secs(60);
/// How long a request may take to arrive whole.
const WHOLE_WITHIN: Duration = Duration::from_secs(30);
/// Answers one caller until it has nothing more to ask.
async fn answer(stream: UnixStream, app: Router) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(app))
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the control socket has ended");
    }
}

/// A request whose body does not come holds nothing up for ever.
async fn read_in_time(request: Request, next: Next) -> Result<Response, Error> {
    let (parts, body) = request.into_parts();
    let late = |status, why: &str| Error::new(status, ExitCode::Usage, why);
    let bytes = match tokio::time::timeout(WHOLE_WITHIN, to_bytes(body, super::MAX_DECLARATION)).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(_)) => {
            return Err(late(StatusCode::PAYLOAD_TOO_LARGE, "the request is too long, or has no end"));
        }
        Err(_) => return Err(late(StatusCode::REQUEST_TIMEOUT, "the request did not come to its end")),
    };
    Ok(next.run(Request::from_parts(parts, bytes.into())).await)
}

impl Control {
    /// The socket is ours to remove.
    pub(crate) fn made_at(mut self, path: Option<PathBuf>) -> Self {
        self.made = path;
        self
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(path) = &self.made {
            // Mostly its folder goes too.
            let _ = std::fs::remove_file(path);
        }
    }
}

async fn check_peer(
    State(server): State<Server>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Result<Response, Error> {
    let forbidden = |why: &str| Error::new(StatusCode::FORBIDDEN, ExitCode::Denied, why);
    if !peer.is_permitted() {
        return Err(forbidden("this daemon belongs to another user"));
    }
    if server.projects.all().iter().any(|project| project.is_of_an_agent(peer.pid)) {
        return Err(forbidden("agents may not control Toka"));
    }
    // Last: a process that has ended meanwhile could not be told from a stranger.
    if !peer.is_there() {
        return Err(forbidden("the process that connected is gone"));
    }
    Ok(next.run(request).await)
}

/// The wall clock in milliseconds since the Unix epoch.
pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// What comes back on a connection on which this is written, until it is closed. Time passes by itself while all wait.
    async fn answered(text: &[u8]) -> String {
        let (mut ours, theirs) = UnixStream::pair().expect("sockets");
        let app = Router::new()
            .route("/there", axum::routing::post(async |text: String| text))
            .layer(middleware::from_fn(read_in_time));
        let serving = tokio::spawn(answer(theirs, app));
        ours.write_all(text).await.expect("room");
        let mut answer = String::new();
        ours.read_to_string(&mut answer).await.expect("text");
        serving.await.expect("no panic");
        answer
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_nothing_and_who_does_not_finish_is_let_go() {
        assert_eq!(answered(b"").await, "", "it is closed");
        let answer = answered(b"GET /there HTTP/1.1\r\nhost").await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
        let head = "POST /there HTTP/1.1\r\nhost: t\r\ncontent-length: 9\r\n\r\n";
        let answer = answered(format!("{head}part").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
        let answer = answered(format!("{head}the whole{head}and twice").as_bytes()).await;
        assert_eq!(answer.matches("HTTP/1.1 200").count(), 2, "and one that goes on is answered: {answer}");
    }
}
