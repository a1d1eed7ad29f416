//! The client of the agent's door: asks one question at a time, over a blocking socket with a deadline.
//!
//! Blocking, because both its users (the runner, and `toka report`) have nothing else to do meanwhile, and every
//! millisecond of a runtime's start would be paid once a task.

use std::env;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use toka_core::rpc::{self, Call, Id, MAX_LINE, ReplyError};

/// The variable that names the door.
pub const SOCKET_VARIABLE: &str = "TOKA_SOCKET";

/// How long the daemon may take for an answer. It answers in milliseconds; on a host that is short of memory or has
/// just woken up, seconds.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Why the daemon could not be asked.
#[derive(Debug, Error)]
pub enum ClientError {
    /// This process is not an agent's.
    #[error("not inside an agent: {SOCKET_VARIABLE} is not set")]
    NotAnAgent,
    /// The door could not be reached.
    #[error("cannot connect to {path}", path = path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The connection broke, or the answer took too long.
    #[error("lost the daemon while {doing}")]
    Lost {
        /// What was being done.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The daemon answered, but not with what was asked for.
    #[error(transparent)]
    Reply(#[from] ReplyError),
}

/// The empty result of a call that only does something; a newer daemon may put something into it.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Done {}

/// A connection to the agent's door.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    path: PathBuf,
    patience: Duration,
    loss: Loss,
    last_id: i64,
}

/// What to do when the daemon goes away.
#[derive(Debug, Clone)]
pub enum Loss {
    /// Fail.
    Fatal,
    /// Wait for the next daemon, which goes on with the agent, and ask that again. The client stops waiting when the flag is set:
    /// the runner sets it when the agent is asked to stop.
    Bridged(Arc<AtomicBool>),
}

impl Loss {
    fn is_bridged(&self) -> bool {
        matches!(self, Self::Bridged(over) if !over.load(Ordering::Relaxed))
    }
}

/// The shortest and the longest pause between two tries to reach the next daemon.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

impl Client {
    /// Connects to the door that the environment names.
    ///
    /// # Errors
    /// Outside an agent, or when nobody listens.
    pub fn from_environment() -> Result<Self, ClientError> {
        let path =
            env::var_os(SOCKET_VARIABLE).filter(|path| !path.is_empty()).ok_or(ClientError::NotAnAgent)?;
        Self::connect(Path::new(&path), PATIENCE)
    }

    /// Connects to `path`; each question then waits at most `patience` for its answer.
    ///
    /// # Errors
    /// When nobody listens, or the path is longer than a socket's may be (107 bytes).
    pub fn connect(path: &Path, patience: Duration) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(path)
            .and_then(|stream| stream.set_write_timeout(Some(patience)).map(|()| stream))
            .map_err(|source| ClientError::Connect { path: path.to_owned(), source })?;
        let (stream, path) = (BufReader::new(stream), path.to_owned());
        Ok(Self { stream, path, patience, loss: Loss::Fatal, last_id: 0 })
    }

    /// The same, with another answer to the loss of the daemon.
    #[must_use]
    pub fn on_loss(self, loss: Loss) -> Self {
        Self { loss, ..self }
    }

    /// Says `call` without waiting for an answer.
    ///
    /// # Errors
    /// When the connection broke, unless the loss is bridged: then the next daemon gets the call if one is
    /// listening already, otherwise the call is dropped.
    pub fn tell(&mut self, call: &Call) -> Result<(), ClientError> {
        match self.send(&rpc::call_line(None, call)) {
            Err(error) if matches!(self.loss, Loss::Bridged(_)) && is_loss(&error) => {
                // One attempt with the next daemon: a call without an answer is not worth a wait.
                if let Ok(next) = Self::connect(&self.path, self.patience) {
                    self.stream = next.stream;
                    let _ = self.send(&rpc::call_line(None, call));
                }
                Ok(())
            }
            told => told,
        }
    }

    /// Asks `call` and waits for the answer.
    ///
    /// # Errors
    /// When the connection broke and is not bridged, the answer took too long, or the daemon refused.
    pub fn ask<T: DeserializeOwned>(&mut self, call: &Call) -> Result<T, ClientError> {
        loop {
            match self.ask_once(call) {
                Err(error) if is_loss(&error) && self.loss.is_bridged() => {
                    if !self.reconnect() {
                        return Err(error);
                    }
                }
                answered => return answered,
            }
        }
    }

    /// Waits for the next daemon and connects to it; false when the flag of [`Loss::Bridged`] was set before.
    fn reconnect(&mut self) -> bool {
        let (mut pause, longest) = PAUSES;
        while self.loss.is_bridged() {
            if let Ok(next) = Self::connect(&self.path, self.patience) {
                self.stream = next.stream;
                return true;
            }
            // There is nothing to wait for: the next daemon makes a socket of its own.
            std::thread::sleep(pause);
            pause = (pause * 2).min(longest);
        }
        false
    }

    fn ask_once<T: DeserializeOwned>(&mut self, call: &Call) -> Result<T, ClientError> {
        self.last_id += 1;
        let id = Id::Number(self.last_id);
        let sent = self.send(&rpc::call_line(Some(&id), call));
        let lost = |source| ClientError::Lost { doing: "waiting for an answer", source };
        let line = match sent {
            Ok(()) => self.receive().map_err(lost)?,
            // The daemon tells a process that it turns away so before it is asked, and closes the connection.
            Err(error) if is_loss(&error) => self.receive().map_err(|_| error)?,
            Err(error) => return Err(error),
        };
        Ok(rpc::parse_reply(&id, &line)?)
    }

    fn send(&mut self, line: &str) -> Result<(), ClientError> {
        let lost = |source| ClientError::Lost { doing: "asking", source };
        if line.len() > MAX_LINE {
            return Err(lost(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the message is longer than a line may be",
            )));
        }
        self.stream.get_mut().write_all(line.as_bytes()).map_err(lost)
    }

    /// Reads one line, within [`MAX_LINE`] and the patience, whatever the size of the pieces it comes in.
    fn receive(&mut self) -> io::Result<Vec<u8>> {
        let deadline = Instant::now() + self.patience;
        let mut line = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"));
            }
            self.stream.get_ref().set_read_timeout(Some(left))?;
            let piece = match self.stream.fill_buf() {
                Ok([]) => {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection"));
                }
                Ok(piece) => piece,
                // A read that ran into its timeout says so in this way; the deadline above tells the truth.
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) =>
                {
                    continue;
                }
                Err(error) => return Err(error),
            };
            let (used, ended) = match piece.iter().position(|byte| *byte == b'\n') {
                Some(at) => (at + 1, true),
                None => (piece.len(), false),
            };
            if line.len() + used > MAX_LINE {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the answer is longer than a line may be",
                ));
            }
            line.extend_from_slice(&piece[..used]);
            self.stream.consume(used);
            if ended {
                return Ok(line);
            }
        }
    }
}

/// Whether the other side has gone, as opposed to being slow or wrong.
fn is_loss(error: &ClientError) -> bool {
    let ClientError::Lost { source, .. } = error else { return false };
    matches!(
        source.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof
    )
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixListener;
    use std::thread;

    use toka_core::rpc::{RpcError, TaskList};

    use super::*;

    /// A daemon that reads one line and answers with `answer`, byte for byte, then waits for the client to leave.
    fn ask_a_daemon_that_says(answer: &[u8], patience: Duration) -> Result<TaskList, ClientError> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("agent");
        let listener = UnixListener::bind(&path).expect("a socket");
        thread::scope(|scope| {
            scope.spawn(|| {
                let (stream, _) = listener.accept().expect("a client");
                let mut stream = BufReader::new(stream);
                let mut question = String::new();
                stream.read_line(&mut question).expect("a question");
                // The client may have had enough before all is written.
                let _ = stream.get_mut().write_all(answer);
                if answer.is_empty() {
                    return;
                }
                let _ = stream.read_to_end(&mut Vec::new());
            });
            Client::connect(&path, patience).expect("a connection").ask(&Call::TasksGet)
        })
    }

    #[test]
    fn an_answer() {
        let tasks = ask_a_daemon_that_says(
            b"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"tasks\":[{\"index\":0,\"description\":\"d\",\"run\":\"true\"}]}}\n",
            PATIENCE,
        );
        assert_eq!(tasks.expect("an answer").tasks[0].run.as_deref(), Some("true"));
    }

    #[test]
    fn a_refusal_is_told() {
        let refused = ask_a_daemon_that_says(
            b"{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":-32000,\"message\":\"not yours\"}}\n",
            PATIENCE,
        );
        let Err(ClientError::Reply(ReplyError::Refused(error))) = refused else { panic!("{refused:?}") };
        assert_eq!(error, RpcError::new(RpcError::REFUSED, "not yours"));
    }

    #[test]
    fn a_refusal_that_comes_before_the_question_is_told() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("agent");
        let listener = UnixListener::bind(&path).expect("a socket");
        let mut client = Client::connect(&path, PATIENCE).expect("a connection");
        let (mut stream, _) = listener.accept().expect("a client");
        let refusal =
            b"{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32000,\"message\":\"not yours\"}}\n";
        stream.write_all(refusal).expect("a client");
        drop(stream);
        let refused: Result<TaskList, ClientError> = client.ask(&Call::TasksGet);
        let Err(ClientError::Reply(ReplyError::Refused(error))) = refused else { panic!("{refused:?}") };
        assert_eq!(error, RpcError::new(RpcError::REFUSED, "not yours"));
    }

    #[test]
    fn a_daemon_that_leaves_is_lost() {
        let lost = ask_a_daemon_that_says(b"", PATIENCE);
        let Err(ClientError::Lost { source, .. }) = lost else { panic!("{lost:?}") };
        assert_eq!(source.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn one_that_waits_for_the_next_daemon_asks_it_again() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("agent");
        let listener = UnixListener::bind(&path).expect("a socket");
        let client =
            Client::connect(&path, PATIENCE).expect("a connection").on_loss(Loss::Bridged(Arc::default()));
        thread::scope(|scope| {
            let asked = scope.spawn(move || {
                let mut client = client;
                client.ask::<Done>(&Call::Ready)
            });
            // The first one takes the question and dies; the second has a socket of its own.
            let (stream, _) = listener.accept().expect("a client");
            BufReader::new(stream).read_line(&mut String::new()).expect("a question");
            drop(listener);
            std::fs::remove_file(&path).expect("the socket");
            let next = UnixListener::bind(&path).expect("a socket");
            let (stream, _) = next.accept().expect("the same client");
            let mut stream = BufReader::new(stream);
            let mut question = String::new();
            stream.read_line(&mut question).expect("the question again");
            // It may have asked the first socket once more before that was gone.
            let question: serde_json::Value = serde_json::from_str(&question).expect("JSON");
            let answer = serde_json::json!({"jsonrpc": "2.0", "id": question["id"], "result": {}});
            stream.get_mut().write_all(format!("{answer}\n").as_bytes()).expect("a client");
            asked.join().expect("no panic").expect("an answer");
        });
    }

    #[test]
    fn one_that_is_asked_to_stop_waits_for_no_daemon() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("agent");
        let listener = UnixListener::bind(&path).expect("a socket");
        let stopped = Arc::new(AtomicBool::new(false));
        let mut client = Client::connect(&path, PATIENCE)
            .expect("a connection")
            .on_loss(Loss::Bridged(Arc::clone(&stopped)));
        drop(listener);
        std::fs::remove_file(&path).expect("the socket");
        let asked = thread::spawn(move || client.ask::<Done>(&Call::Ready));
        stopped.store(true, Ordering::Relaxed);
        let lost = asked.join().expect("no panic").expect_err("there is nobody");
        assert!(matches!(lost, ClientError::Lost { .. }), "{lost:?}");
    }

    #[test]
    fn half_an_answer_is_not_waited_for_forever() {
        let lost = ask_a_daemon_that_says(b"{\"jsonrpc\":", Duration::from_millis(20));
        let Err(ClientError::Lost { source, .. }) = lost else { panic!("{lost:?}") };
        assert_eq!(source.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn an_endless_answer_is_cut_off() {
        let lost = ask_a_daemon_that_says(&vec![b' '; MAX_LINE + 4096], PATIENCE);
        let Err(ClientError::Lost { source, .. }) = lost else { panic!("{lost:?}") };
        assert_eq!(source.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn nobody_at_the_door() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let error = Client::connect(&folder.path().join("none"), PATIENCE).expect_err("nobody");
        assert!(matches!(error, ClientError::Connect { .. }), "{error:?}");
    }
}
