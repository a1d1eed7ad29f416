//! A command that a person runs beside an agent, in its sandbox, its limits and its network: like the commands of probes and
//! hooks ([`crate::beside`]), but with somebody who reads what it writes and perhaps types into it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use toka_core::event::Usage;
use toka_keeper::{KeeperError, KeeperEvent, ProcessId, SpawnError, Started, Status};
use toka_logs::receiver;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::mpsc;

use crate::beside::{Besides, Number};
use crate::order::Order;
use crate::{Command, Processes, Terminal};

/// A command that runs. When this is dropped, it is killed with all that it started.
pub struct Execution<P: Processes> {
    number: Number<P>,
    orders: mpsc::UnboundedReceiver<Box<Order>>,
    spent: Arc<AtomicU64>,
    streams: Option<Streams>,
    terminal: Option<Terminal>,
    /// How it ended, as far as it was told.
    status: Status,
    /// What it used, when it is gone.
    usage: Usage,
    /// What was heard of its end before somebody waited for that.
    early: Option<KeeperEvent>,
}

/// Where what it writes can be read.
#[derive(Debug)]
pub struct Streams {
    /// Its output, or all that its terminal shows.
    pub output: Output,
    /// Its errors; at its end when it runs on a terminal.
    pub errors: Output,
}

/// One of its streams.
#[derive(Debug)]
pub struct Output(Receiver);

impl Output {
    /// Reads what there is next, 0 bytes at the end. Cancel-safe.
    ///
    /// # Errors
    /// As read(2), but that a terminal on which nobody writes any more is at its end.
    pub async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer).await {
            Err(error) if error.raw_os_error() == Some(nix::libc::EIO) => Ok(0),
            outcome => outcome,
        }
    }
}

impl<P: Processes> Execution<P> {
    /// Starts `command` beside the agent `host`; it reads `input`, if it is given any. `spent` gets what it uses of the agent's
    /// CPU time.
    pub(crate) async fn start(
        besides: &Besides<P>,
        host: ProcessId,
        command: Command,
        input: Option<OwnedFd>,
        spent: Arc<AtomicU64>,
    ) -> Result<Self, SpawnError> {
        let (number, orders) = besides.number();
        let Command { program, argv, env, plan, terminal } = command;
        let launch = toka_keeper::Launch {
            id: number.id(),
            program,
            argv,
            env,
            plan,
            beside: Some(host),
            notification_fd: None,
            terminal,
            stop_signal: nix::libc::SIGKILL,
            grace: Duration::ZERO,
        };
        let started = besides.start(launch, input).await;
        let Started { stdout, stderr, .. } = match started {
            Ok(started) => started,
            Err(error) => {
                besides.processes.settle(number.id());
                return Err(error);
            }
        };
        let failed = |error: io::Error| SpawnError::Keeper(KeeperError::Refused(error.to_string()));
        // From here on it is killed when something fails: the number is dropped.
        let terminal = Terminal::of(&stdout).map_err(failed)?;
        let output = Output(receiver(stdout).map_err(failed)?);
        let errors = Output(receiver(stderr).map_err(failed)?);
        let streams = Some(Streams { output, errors });
        Ok(Self {
            number,
            orders,
            spent,
            streams,
            terminal,
            status: Status::Unknown,
            usage: Usage::default(),
            early: None,
        })
    }

    /// Ends one that an earlier owner began, and that nobody reads from any more.
    pub(crate) fn end_left(besides: &Besides<P>, id: ProcessId) -> Self {
        let (number, orders) = besides.known(id);
        besides.processes.kill(id);
        let spent = Arc::default();
        let usage = Usage::default();
        Self {
            number,
            orders,
            spent,
            streams: None,
            terminal: None,
            status: Status::Unknown,
            usage,
            early: None,
        }
    }

    /// Its number, unique for the keeper.
    pub fn id(&self) -> ProcessId {
        self.number.id()
    }

    /// Where what it writes can be read; once, and not of one that an earlier owner began.
    pub fn take_streams(&mut self) -> Option<Streams> {
        self.streams.take()
    }

    /// Its terminal, if it runs on one. Nothing is shown there: [`Streams::output`] is where to read.
    pub fn terminal(&self) -> Option<&Terminal> {
        self.terminal.as_ref()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) {
        self.number.processes().signal(self.id(), signal);
    }

    /// Kills it with all that it started.
    pub fn kill(&self) {
        self.number.processes().kill(self.id());
    }

    /// Waits until its main process has ended; what it started may live on. Cancel-safe.
    pub async fn exited(&mut self) -> Status {
        while self.status == Status::Unknown {
            match self.orders.recv().await.map(|order| *order) {
                Some(Order::Keeper(KeeperEvent::Exited { status, .. })) => self.status = status,
                // It is gone, or nobody will ever tell: the next who waits is told so again.
                Some(Order::Keeper(event @ (KeeperEvent::Gone { .. } | KeeperEvent::Closed))) => {
                    self.early = Some(event);
                    break;
                }
                Some(_) => {}
                None => break,
            }
        }
        self.status
    }

    /// What it and all that it started have used, when they are gone.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// Waits until it and all that it started are gone; how it ended, if anybody saw it. Cancel-safe.
    pub async fn ended(&mut self) -> Status {
        loop {
            let event = match self.early.take() {
                Some(event) => event,
                None => match self.orders.recv().await.map(|order| *order) {
                    Some(Order::Keeper(event)) => event,
                    Some(_) => continue,
                    None => break,
                },
            };
            match event {
                KeeperEvent::Exited { status, .. } => self.status = status,
                KeeperEvent::Gone { usage, .. } => {
                    self.spent.fetch_add(usage.cpu_us.unwrap_or(0), Ordering::Relaxed);
                    self.usage = usage;
                    self.number.processes().settle(self.id());
                    break;
                }
                KeeperEvent::Closed => break,
                _ => {}
            }
        }
        self.status
    }
}
