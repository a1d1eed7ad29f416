//! Answers at the control socket: takes connections from who may ask, reads requests whole and in time, passes them to the routes.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use toka_api::socket;
use toka_core::ExitCode;
use toka_runtime::turns::timed;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use super::error::Error;
use super::peer::Peer;
use super::rebinding_listener::RebindingListener;
use super::server::{Projects, Role, Server};
use super::{peer, routes};

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
        let run = server.clone();
        let mut listener = RebindingListener::new(listener, &server.socket, move || run.is_over());
        let app = routes::router(server.clone())
            .layer(middleware::from_fn(read_in_time))
            .layer(middleware::from_fn_with_state(server, check_peer));
        let task = tokio::spawn(async move {
            loop {
                let (stream, peer) = peer::accept(&mut listener).await;
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
