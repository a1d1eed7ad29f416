//! Commands that run beside an agent, in its sandbox, its limits and its network: the `exec` checks of its probes, and
//! the hooks around its life.
//!
//! Such a command has no state, no door and no log. It ends when its time is over, when nobody waits for it any more, and
//! when the agent ends.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use toka_core::error::with_causes;
use toka_core::units::format_duration;
use toka_keeper::{KeeperError, KeeperEvent, ProcessId, Program, SpawnError, Started, Status};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot, watch};

use crate::order::Order;
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
    /// Those that come after what the keeper knows.
    pub(crate) fn after(used: ProcessId) -> Self {
        Self(Arc::new(AtomicU64::new((1 << 32).max(used.0 + 1))))
    }

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
    besides: Besides<P>,
    /// The agent.
    agent: ProcessId,
    command: Command,
    /// The number of the last command, of those that run one after the other.
    current: AtomicU64,
    /// CPU time that such commands of the agent have used, in microseconds: in its groups it looks like its own.
    spent: Arc<AtomicU64>,
}

/// How much of what a command says is told; it may write more, and is not slowed by it.
const WORDS: usize = 300;

/// Whether the agent's process is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Company {
    /// The command runs beside it.
    Agent,
    /// Before or after it: the command has the agent's groups, and a network, to itself.
    Nobody,
}

impl<P: Processes> ExecCheck for Beside<P> {
    async fn run(&self, argv: &[String], _timeout: Duration) -> Result<(), String> {
        self.run_in(Company::Agent, argv).await
    }
}

impl<P: Processes> Beside<P> {
    pub(crate) fn new(
        besides: Besides<P>,
        agent: ProcessId,
        command: Command,
        spent: Arc<AtomicU64>,
    ) -> Self {
        Self { besides, agent, command, current: AtomicU64::new(0), spent }
    }

    /// Runs commands one after the other, up to the first that fails. When time is up or `called_off` is set, the one that
    /// runs is killed; all that it started is gone when this returns.
    pub(crate) async fn run_all(
        &self,
        company: Company,
        commands: &[Vec<String>],
        limit: Duration,
        mut called_off: watch::Receiver<bool>,
    ) -> Result<(), String> {
        let deadline = tokio::time::sleep(limit);
        tokio::pin!(deadline);
        for argv in commands {
            let name = argv.first().map_or("", String::as_str);
            if *called_off.borrow() {
                return Err(format!("{name}: not run, since the agent is to stop"));
            }
            let run = self.run_in(company, argv);
            tokio::pin!(run);
            let outcome = tokio::select! {
                outcome = &mut run => outcome,
                () = &mut deadline => self.end(run, format!("killed after {}", format_duration(limit))).await,
                () = off(&mut called_off) => self.end(run, "killed, since the agent is to stop".into()).await,
            };
            outcome.map_err(|reason| format!("{name}: {reason}"))?;
        }
        Ok(())
    }

    /// Kills what runs, and waits until it is gone.
    async fn end(
        &self,
        run: std::pin::Pin<&mut impl Future<Output = Result<(), String>>>,
        reason: String,
    ) -> Result<(), String> {
        self.besides.processes.kill(self.current());
        let _ = run.await;
        Err(reason)
    }

    fn current(&self) -> ProcessId {
        ProcessId(self.current.load(Ordering::Relaxed))
    }

    /// Runs one command to the end of all that it starts.
    async fn run_in(&self, company: Company, argv: &[String]) -> Result<(), String> {
        let (number, mut orders) = self.besides.number();
        self.current.store(number.id.0, Ordering::Relaxed);
        let Started { stdout, stderr, .. } = self.start(company, number.id, argv).await?;
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
                    Order::Keeper(KeeperEvent::Gone { usage, .. }) => {
                        self.spent.fetch_add(usage.cpu_us.unwrap_or(0), Ordering::Relaxed);
                        self.besides.processes.settle(self.current());
                        break;
                    }
                    Order::Keeper(KeeperEvent::Closed) => break,
                    _ => {}
                }
            }
            status
        };
        let (words, status) = tokio::join!(words, ended);
        drop(number);
        verdict(status, &words)
    }

    async fn start(&self, company: Company, id: ProcessId, argv: &[String]) -> Result<Started, String> {
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
            beside: (company == Company::Agent).then_some(self.agent),
            notification_fd: None,
            terminal: None,
            stop_signal: nix::libc::SIGKILL,
            grace: Duration::ZERO,
        };
        self.besides.start(launch, None).await.map_err(|error| with_causes(&error))
    }
}

impl<P: Processes> Besides<P> {
    /// A number of its own for a command, by which it is ended when nobody waits for it any more.
    pub(crate) fn number(&self) -> (Number<P>, mpsc::UnboundedReceiver<Box<Order>>) {
        self.known(self.numbers.next())
    }

    /// The same for a number that is there already: its command was begun by an earlier owner.
    pub(crate) fn known(&self, id: ProcessId) -> (Number<P>, mpsc::UnboundedReceiver<Box<Order>>) {
        let (sender, orders) = mpsc::unbounded_channel();
        lock(&self.routes).insert(id, sender);
        (Number { id, besides: self.clone() }, orders)
    }

    /// Starts a command, which reads `input`.
    pub(crate) async fn start(
        &self,
        launch: toka_keeper::Launch,
        input: Option<OwnedFd>,
    ) -> Result<Started, SpawnError> {
        let (answer, answered) = oneshot::channel();
        let (processes, id) = (self.processes.clone(), launch.id);
        // A task of its own, so that a start that nobody waits for any more is undone when it has happened.
        tokio::spawn(async move {
            let started = match input {
                Some(input) => processes.spawn_reading(launch, input).await,
                None => processes.spawn(launch).await,
            };
            if answer.send(started).is_err() {
                processes.kill(id);
            }
        });
        // The task answers unless the runtime ends, and with it whoever waits.
        answered.await.unwrap_or(Err(SpawnError::Keeper(KeeperError::Gone)))
    }
}

/// Ends the process of this number when dropped, if it still runs, and hears no more of it.
pub(crate) struct Number<P: Processes> {
    id: ProcessId,
    besides: Besides<P>,
}

impl<P: Processes> Number<P> {
    pub(crate) fn id(&self) -> ProcessId {
        self.id
    }

    pub(crate) fn processes(&self) -> &P {
        &self.besides.processes
    }
}

impl<P: Processes> Drop for Number<P> {
    fn drop(&mut self) {
        lock(&self.besides.routes).remove(&self.id);
        self.besides.processes.kill(self.id);
    }
}

/// Returns when it is called off; also when whoever could call it off is gone.
async fn off(called_off: &mut watch::Receiver<bool>) {
    let _ = called_off.wait_for(|off| *off).await;
}

fn verdict(status: Option<Status>, words: &str) -> Result<(), String> {
    let how = match status {
        Some(Status::Code(0)) => return Ok(()),
        Some(Status::Code(code)) => format!("exit code {code}"),
        Some(Status::Signal { signal, .. }) => format!("killed by {}", toka_core::exit::signal_name(signal)),
        None | Some(Status::Unknown) => "exit status unknown".to_owned(),
    };
    Err(if words.is_empty() { how } else { format!("{how}: {words}") })
}

/// The last line that comes out of a pipe before it closes, or the end of it; rather one that calls itself an error: programs
/// end with how to get help.
async fn last_words(pipe: OwnedFd) -> String {
    let Ok(mut pipe) = pipe::Receiver::from_owned_fd(pipe) else { return String::new() };
    let (mut kept, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(read @ 1..) = pipe.read(&mut buffer).await {
        kept.extend_from_slice(&buffer[..read]);
        let surplus = kept.len().saturating_sub(buffer.len());
        kept.drain(..surplus);
    }
    let text = String::from_utf8_lossy(&kept);
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    let error = lines().rfind(|line| line.get(..6).is_some_and(|word| word.eq_ignore_ascii_case("error:")));
    let line = error.or_else(|| lines().next_back()).unwrap_or_default();
    line.chars().take(WORDS).collect()
}
