//! Commands that run beside an agent, in its sandbox, its limits and its network: the `exec` checks of its probes.
//!
//! Such a command has no state, no door and no log. It ends when its time is over, when nobody waits for it any more, and
//! when the agent ends.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use toka_keeper::{KeeperEvent, ProcessId, Program, SpawnError, Started, Status};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};

use crate::actor::Order;
use crate::probe::ExecCheck;
use crate::{Command, Processes, program};

/// The way from the keeper's events to whoever owns a process. Orders travel boxed: a channel keeps room for 32 of what
/// it carries, for each of a thousand agents that hear of three or four.
pub(crate) type Routes = Arc<Mutex<HashMap<ProcessId, mpsc::UnboundedSender<Box<Order>>>>>;

/// Locks the routes; a panic elsewhere has not broken them.
pub(crate) fn lock(
    routes: &Routes,
) -> std::sync::MutexGuard<'_, HashMap<ProcessId, mpsc::UnboundedSender<Box<Order>>>> {
    routes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Numbers of processes that nobody declared: far above those of agents, which are counted from 1.
#[derive(Debug, Clone)]
pub(crate) struct Numbers(Arc<AtomicU64>);

impl Default for Numbers {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(1 << 32)))
    }
}

impl Numbers {
    fn next(&self) -> ProcessId {
        ProcessId(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

/// What starts commands beside agents.
#[derive(Clone)]
pub(crate) struct Besides<P> {
    pub(crate) processes: P,
    pub(crate) routes: Routes,
    pub(crate) numbers: Numbers,
}

/// Runs commands beside one agent, as it is executed itself but for the program.
pub(crate) struct Beside<P> {
    pub(crate) besides: Besides<P>,
    /// The agent.
    pub(crate) agent: ProcessId,
    pub(crate) command: Command,
}

/// How much of what a command says is told; it may write more, and is not slowed by it.
const WORDS: usize = 300;

impl<P: Processes> ExecCheck for Beside<P> {
    async fn run(&self, argv: &[String], _timeout: Duration) -> Result<(), String> {
        let (number, mut orders) = self.number();
        let Started { stdout, stderr, .. } = self.start(number.id, argv).await?;
        // What it started may hold its pipes longer than itself, but not longer than its group lives.
        let words = async {
            let (out, err) = tokio::join!(last_words(stdout), last_words(stderr));
            if err.is_empty() { out } else { err }
        };
        let ended = async {
            let mut status = None;
            while let Some(order) = orders.recv().await {
                match *order {
                    Order::Keeper(KeeperEvent::Exited { status: how, .. }) => status = Some(how),
                    Order::Keeper(KeeperEvent::Gone { .. } | KeeperEvent::Closed) => break,
                    _ => {}
                }
            }
            status
        };
        let (words, status) = tokio::join!(words, ended);
        drop(number);
        verdict(status, &words)
    }
}

impl<P: Processes> Beside<P> {
    /// A number of its own, by which it is ended when nobody waits for it any more.
    fn number(&self) -> (Number<P>, mpsc::UnboundedReceiver<Box<Order>>) {
        let (sender, orders) = mpsc::unbounded_channel();
        let id = self.besides.numbers.next();
        lock(&self.besides.routes).insert(id, sender);
        (Number { id, besides: self.besides.clone() }, orders)
    }

    async fn start(&self, id: ProcessId, argv: &[String]) -> Result<Started, String> {
        let Command { env, plan, .. } = &self.command;
        let path = env.iter().find(|(name, _)| name == "PATH").map(|(_, path)| path.as_os_str());
        let word = argv.first().map_or("", String::as_str);
        let file = program::find(word, &plan.working_dir, path.unwrap_or_default());
        let launch = toka_keeper::Launch {
            id,
            program: Program::Path(file.map_err(|error| error.to_string())?),
            argv: argv.iter().map(OsString::from).collect(),
            env: env.clone(),
            plan: Arc::clone(plan),
            beside: Some(self.agent),
            stop_signal: nix::libc::SIGKILL,
            grace: Duration::ZERO,
        };
        let (answer, answered) = oneshot::channel();
        let processes = self.besides.processes.clone();
        // A task of its own, so that a start that nobody waits for any more is undone when it has happened.
        tokio::spawn(async move {
            let started = processes.spawn(launch).await;
            if answer.send(started).is_err() {
                processes.kill(id);
            }
        });
        match answered.await {
            Ok(Ok(started)) => Ok(started),
            Ok(Err(error)) => Err(why(&error)),
            Err(_) => Err("it was not started".to_owned()),
        }
    }
}

/// Ends the process of this number when dropped, if it still runs, and hears no more of it.
struct Number<P: Processes> {
    id: ProcessId,
    besides: Besides<P>,
}

impl<P: Processes> Drop for Number<P> {
    fn drop(&mut self) {
        lock(&self.besides.routes).remove(&self.id);
        self.besides.processes.kill(self.id);
    }
}

fn verdict(status: Option<Status>, words: &str) -> Result<(), String> {
    let how = match status {
        Some(Status::Code(0)) => return Ok(()),
        Some(Status::Code(code)) => format!("exit code {code}"),
        Some(Status::Signal { signal, .. }) => format!("killed by {}", toka_core::exit::signal_name(signal)),
        None => "exit status unknown".to_owned(),
    };
    Err(if words.is_empty() { how } else { format!("{how}: {words}") })
}

/// The last line that comes out of a pipe before it closes, or the end of it.
async fn last_words(pipe: OwnedFd) -> String {
    let Ok(mut pipe) = pipe::Receiver::from_owned_fd(pipe) else { return String::new() };
    let (mut kept, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(read @ 1..) = pipe.read(&mut buffer).await {
        kept.extend_from_slice(&buffer[..read]);
        let surplus = kept.len().saturating_sub(buffer.len());
        kept.drain(..surplus);
    }
    let text = String::from_utf8_lossy(&kept);
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
    line.chars().take(WORDS).collect()
}

fn why(error: &SpawnError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
