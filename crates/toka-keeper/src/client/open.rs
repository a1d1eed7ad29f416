//! How a daemon comes to its keeper: it starts one, or finds one that another daemon has started.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, connect, socket};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use super::error::{KeeperError, refusal};
use super::handle::Keeper;
use super::options::{KeeperOptions, Outlive};
use super::succession::{Line, carrier, launch};
use super::traffic::{AfterLoss, Ears, Hello, KeeperEvent, Shared};
use crate::address::with_address;
use crate::protocol::{Attach, Body, Entry, OLDEST, Request, State, VERSION};

/// How long a keeper may take to say hello over its socket. It answers within a millisecond unless it is stopped.
const HELLO_WITHIN: Duration = Duration::from_secs(5);
/// How long starts under way may take to be decided while a daemon attaches.
const DECIDED_WITHIN: Duration = Duration::from_secs(2);
/// Between two looks whether they are.
const DECIDED_INTERVAL: Duration = Duration::from_millis(2);

/// A keeper that was found.
#[derive(Debug)]
pub struct Attached {
    /// The handle.
    pub keeper: Keeper,
    /// What happens from now on, and first what happened that nobody has settled.
    pub events: mpsc::UnboundedReceiver<KeeperEvent>,
    /// The processes that it holds, those that are over among them. They may be ahead of `events`.
    pub holdings: Vec<Entry>,
}

/// A connection that is being opened.
pub(super) struct Opening {
    pub(super) keeper: Keeper,
    pub(super) events: mpsc::UnboundedReceiver<KeeperEvent>,
    pub(super) hello: oneshot::Receiver<Result<Hello, String>>,
}

impl Keeper {
    /// Starts a keeper and connects to it. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// When the socket or the process cannot be made; when it cannot listen where it should.
    pub async fn start(
        options: &KeeperOptions,
    ) -> Result<(Self, mpsc::UnboundedReceiver<KeeperEvent>), KeeperError> {
        let (keeper, events) = Self::begin(options).await?;
        match keeper.settle_in(options).await {
            Ok(()) => Ok((keeper, events)),
            Err(error) => {
                keeper.shutdown().await;
                Err(error)
            }
        }
    }

    /// The same, but for what outlives this daemon: that is to be asked for when there is something that another could go on with
    /// ([`Keeper::settle_in`]).
    ///
    /// # Errors
    /// When the socket or the process cannot be made, or it ends at once.
    pub async fn begin(
        options: &KeeperOptions,
    ) -> Result<(Self, mpsc::UnboundedReceiver<KeeperEvent>), KeeperError> {
        let start = |source: io::Error| KeeperError::Start { program: options.program.clone(), source };
        let (socket, process) = launch(options).await.map_err(start)?;
        // As long as it is not settled in, nobody could go on; but those that it is to take over were there before.
        let after_loss = match options.adopt.is_empty() {
            true => AfterLoss::Kill { cgroup_name: options.cgroup_name.clone() },
            false => AfterLoss::Spare,
        };
        let Opening { keeper, mut events, hello } =
            Self::open(socket, Some(process), after_loss).map_err(start)?;
        match hello.await {
            Ok(Ok(hello)) => check_version(hello)?,
            _ => {
                let ended = events.recv().await;
                tracing::debug!(?ended, "the keeper ended before it said hello");
                return Err(start(io::Error::other("it ended at once")));
            }
        }
        Ok((keeper, events))
    }

    /// Connects to a keeper that listens at `socket`. Must be called within a Tokio runtime with a clock.
    ///
    /// # Errors
    /// [`KeeperError::NotThere`] when there is none; [`KeeperError::Occupied`] when it has a daemon that is not to be
    /// replaced; [`KeeperError::Version`] when it cannot be talked to; [`KeeperError::Refused`] when it does not want us:
    /// another user, an agent.
    pub async fn attach(socket: &Path, attach: Attach) -> Result<Attached, KeeperError> {
        let unreachable = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                KeeperError::NotThere { socket: socket.to_owned() }
            }
            _ => KeeperError::Unreachable { socket: socket.to_owned(), source },
        };
        let connection = connect_to(socket).map_err(unreachable)?;
        let Opening { keeper, events, hello } =
            Self::open(connection, None, AfterLoss::Spare).map_err(unreachable)?;
        match timeout(HELLO_WITHIN, hello).await {
            Ok(Ok(Ok(hello))) => check_version(hello)?,
            Ok(Ok(Err(reason))) => return Err(KeeperError::Refused(reason)),
            Ok(Err(_)) => return Err(KeeperError::Gone),
            Err(_) => return Err(unreachable(io::ErrorKind::TimedOut.into())),
        }
        match keeper.call(Request::Attach { version: VERSION, attach }, Vec::new()).await?.0 {
            Body::Done => {}
            other => return Err(refusal(other)),
        }
        let holdings = keeper.holdings().await?;
        Ok(Attached { keeper, events, holdings })
    }

    /// What it holds, once starts that were under way are decided.
    async fn holdings(&self) -> Result<Vec<Entry>, KeeperError> {
        let deadline = Instant::now() + DECIDED_WITHIN;
        loop {
            let entries = self.take_stock().await?;
            let is_decided = entries.iter().all(|entry| entry.state != State::Starting);
            if is_decided || Instant::now() > deadline {
                return Ok(entries);
            }
            sleep(DECIDED_INTERVAL).await;
        }
    }

    /// Tells a keeper that was just started what is expected of it beyond the first daemon's life.
    ///
    /// # Errors
    /// When it cannot listen where it should, or take over what it is to adopt.
    pub async fn settle_in(&self, options: &KeeperOptions) -> Result<(), KeeperError> {
        let orphans = options.adopt.clone();
        self.shared.roster().extend(orphans.iter().map(|orphan| (orphan.id, orphan.clone())));
        let adopts = options.outlive != Outlive::EndWithDaemon || !orphans.is_empty();
        let listen = async {
            match &options.outlive {
                Outlive::Listen { socket } => {
                    self.done(Request::Listen { socket: socket.clone().into() }).await
                }
                Outlive::EndWithDaemon => Ok(()),
            }
        };
        let adopt = async { if adopts { self.done(Request::Adopt { orphans }).await } else { Ok(()) } };
        // Both are asked before an answer comes: one that listens has taken over what there was.
        let (listens, adopted) = tokio::join!(biased; listen, adopt);
        listens.and(adopted)?;
        if let Outlive::Listen { .. } = options.outlive {
            self.shared.succeed_with(options);
        }
        Ok(())
    }

    /// From now on, when this keeper is killed, another is started by `heir`, and takes over what it left.
    pub fn succeed_with(&self, heir: &KeeperOptions) {
        self.shared.succeed_with(heir);
    }

    pub(super) fn open(
        socket: OwnedFd,
        process: Option<Child>,
        after_loss: AfterLoss,
    ) -> io::Result<Opening> {
        let socket = carrier(socket)?;
        let (outgoing, calls) = mpsc::unbounded_channel();
        let (events, received) = mpsc::unbounded_channel();
        let (greeted, hello) = oneshot::channel();
        let (open, closed) = watch::channel(());
        let shared = Arc::new(Shared::new(process, after_loss));
        let ears = Ears { events, greeted: Some(greeted) };
        let line = Line { shared: Arc::clone(&shared), calls, ears, open };
        tokio::spawn(line.run(socket));
        Ok(Opening { keeper: Self { shared, outgoing, closed }, events: received, hello })
    }
}

fn check_version(hello: Hello) -> Result<(), KeeperError> {
    if hello.version < OLDEST || hello.oldest > VERSION {
        return Err(KeeperError::Version { oldest: hello.oldest, newest: hello.version });
    }
    Ok(())
}

fn connect_to(path: &Path) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    with_address(path, |address| connect(socket.as_raw_fd(), address))?;
    Ok(socket)
}
