//! One connection to the `agent` socket: lines in, answers out, in order and one at a time.
//!
//! A line that is no call is answered with an error and the next is read; also one that is too long, whose rest is
//! skipped. A peer that does not read its answers is cut off after [`SLOW`]: nothing is queued for it.

use std::io;
use std::time::Duration;

use toka_core::rpc::{Id, Incoming, MAX_LINE, RpcError, parse_call, reply_line};
use tokio::io::{AsyncWriteExt as _, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot, watch};

use super::passed::receive;
use super::{Answer, Gate, Message, Peer, Stage};
use crate::processes::Processes;

/// How long a peer may leave an answer unread.
const SLOW: Duration = Duration::from_secs(10);
/// How long the last lines may take once the agent is gone. They are in the socket's buffer already.
const LAST_LINES: Duration = Duration::from_millis(500);
/// Bytes read at once.
const CHUNK: usize = 8 * 1024;

/// Serves `stream` until its peer closes it, or is not the agent's, or the door closes.
pub(super) async fn serve<P: Processes>(
    stream: UnixStream,
    gate: Gate<P>,
    tx: mpsc::Sender<Box<Message>>,
    mut stage: watch::Receiver<Stage>,
) {
    let Ok(credentials) = stream.peer_cred() else { return };
    let admitted = gate.admit(credentials.pid().unwrap_or(0), credentials.uid()).await;
    let (read, mut write) = stream.into_split();
    let Some(peer) = admitted else {
        let refusal = RpcError::new(
            RpcError::REFUSED,
            "only the processes of one agent are answered here, while it runs: no other agent, and no hook before or after it",
        );
        let _ = answer_null(&mut write, refusal).await;
        return;
    };
    let mut conversation = Conversation { lines: Lines::new(read), write, peer, tx };
    tokio::select! {
        // A broken connection ends like a closed one: there is nobody left to tell.
        _ = conversation.run() => return,
        () = super::closing(&mut stage) => {}
    }
    let _ = tokio::time::timeout(LAST_LINES, conversation.run()).await;
}

struct Conversation {
    lines: Lines,
    write: OwnedWriteHalf,
    peer: Peer,
    tx: mpsc::Sender<Box<Message>>,
}

impl Conversation {
    async fn run(&mut self) -> io::Result<()> {
        while let Some(line) = self.lines.next().await? {
            match line {
                Read::TooLong => {
                    let text = format!("a line has at most {MAX_LINE} bytes");
                    answer_null(&mut self.write, RpcError::new(RpcError::INVALID_REQUEST, text)).await?;
                }
                Read::Line(line) if line.iter().all(u8::is_ascii_whitespace) => {}
                Read::Line(line) => match parse_call(&line) {
                    Ok(incoming) => self.ask(incoming).await?,
                    Err(rejected) => {
                        if let Some(reply) = rejected.reply_line() {
                            send(&mut self.write, &reply).await?;
                        }
                    }
                },
            }
        }
        Ok(())
    }

    async fn ask(&mut self, incoming: Incoming) -> io::Result<()> {
        let (answer, answered) = oneshot::channel();
        let message = Message::Call { peer: self.peer, call: incoming.call, answer };
        if self.tx.send(Box::new(message)).await.is_err() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let outcome: Result<Answer, RpcError> = answered
            .await
            .unwrap_or_else(|_| Err(RpcError::new(RpcError::INTERNAL, "the agent is being ended")));
        match &incoming.id {
            Some(id) => send(&mut self.write, &reply_line::<Answer>(id, &outcome)).await,
            None => Ok(()),
        }
    }
}

async fn answer_null(write: &mut OwnedWriteHalf, error: RpcError) -> io::Result<()> {
    let reply = serde_json::json!({"jsonrpc": "2.0", "id": Option::<Id>::None, "error": error});
    send(write, &format!("{reply}\n")).await
}

async fn send(write: &mut OwnedWriteHalf, line: &str) -> io::Result<()> {
    tokio::time::timeout(SLOW, write.write_all(line.as_bytes())).await.map_err(io::Error::from)?
}

/// What was read.
enum Read {
    /// A line without its newline.
    Line(Vec<u8>),
    /// One that was longer than [`MAX_LINE`]; its bytes are gone.
    TooLong,
}

/// Splits a stream into lines of bounded length. Dropping a read in progress loses nothing.
struct Lines {
    read: OwnedReadHalf,
    buffer: Vec<u8>,
    scanned: usize,
    skipping: Skipping,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Skipping {
    No,
    RestOfLine,
}

impl Lines {
    fn new(read: OwnedReadHalf) -> Self {
        Self { read, buffer: Vec::new(), scanned: 0, skipping: Skipping::No }
    }

    async fn next(&mut self) -> io::Result<Option<Read>> {
        loop {
            if let Some(line) = self.take() {
                return Ok(Some(line));
            }
            if self.fill().await? == 0 {
                // A last line without a newline counts: its writer has closed.
                let rest = std::mem::take(&mut self.buffer);
                self.scanned = 0;
                let wanted = self.skipping == Skipping::No && !rest.is_empty();
                return Ok(wanted.then_some(Read::Line(rest)));
            }
        }
    }

    /// Reads what is there. Descriptors that come along are not left to the kernel, which would close them in this thread.
    async fn fill(&mut self) -> io::Result<usize> {
        let stream: &UnixStream = self.read.as_ref();
        let begun = self.buffer.len();
        self.buffer.resize(begun + CHUNK, 0);
        let read = stream.async_io(Interest::READABLE, || receive(stream, &mut self.buffer[begun..])).await;
        self.buffer.truncate(begun + read.as_ref().map_or(0, |received| received.length));
        read.map(|received| received.length)
    }

    fn take(&mut self) -> Option<Read> {
        let newline = self.buffer[self.scanned..].iter().position(|byte| *byte == b'\n');
        match newline.map(|at| at + self.scanned) {
            Some(at) => {
                let rest = self.buffer.split_off(at + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                line.pop();
                self.scanned = 0;
                match std::mem::replace(&mut self.skipping, Skipping::No) {
                    Skipping::No if line.len() >= MAX_LINE => Some(Read::TooLong),
                    Skipping::No => Some(Read::Line(line)),
                    Skipping::RestOfLine => self.take(),
                }
            }
            None if self.buffer.len() >= MAX_LINE || self.skipping == Skipping::RestOfLine => {
                self.buffer.clear();
                self.scanned = 0;
                let first = std::mem::replace(&mut self.skipping, Skipping::RestOfLine);
                (first == Skipping::No).then_some(Read::TooLong)
            }
            None => {
                self.scanned = self.buffer.len();
                None
            }
        }
    }
}
