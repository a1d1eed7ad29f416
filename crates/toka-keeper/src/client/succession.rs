//! One keeper after the other, behind the same handles: when one is killed, the next takes over what it left, and is asked
//! whatever that one had not answered.
//!
//! A start that was not answered may have happened: what it left is not among what is taken over, so it is killed before
//! it is started again.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use tokio::net::UnixDatagram;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::error::refusal;
use super::options::{KeeperOptions, Outlive};
use super::traffic::{Aftermath, Conversation, Ears, KeeperEvent, Shared, kill_groups};
use crate::busy;
use crate::packet::{Inbox, Packet};
use crate::protocol::{Body, Call, HOST_IS_TOLD, Message, Orphan, Request};

/// How often another keeper is started when one cannot take over, and the first wait between, which doubles.
const ATTEMPTS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// How long taking over may take: it is milliseconds for a thousand agents, unless a kill hangs in a device.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(20);

/// What stays the same from one connection to the next.
pub(super) struct Line {
    pub(super) shared: Arc<Shared>,
    /// The numbers of what was asked.
    pub(super) calls: mpsc::UnboundedReceiver<u64>,
    pub(super) ears: Ears,
    /// Dropped when it is all over.
    pub(super) open: watch::Sender<()>,
}

impl Line {
    /// Talks to one keeper after the other until the last is gone, and says so.
    pub(super) async fn run(mut self, mut socket: UnixDatagram) {
        let mut number = 1;
        loop {
            let conversation = Conversation { socket: &socket, number, shared: &self.shared };
            let last = conversation.hold(&mut self.calls, &mut self.ears).await;
            self.ears.greeted = None;
            let told = match self.shared.after(last) {
                Aftermath::Succeed(heir) => match self.succeed(&heir, number + 1).await {
                    Some(next) => {
                        (socket, number) = (next, number + 1);
                        continue;
                    }
                    None => self.clear(heir.cgroup_name).await,
                },
                Aftermath::Kill { cgroup_name } => self.clear(cgroup_name).await,
                Aftermath::Tell(event) => Some(event),
                Aftermath::Nothing => None,
            };
            self.shared.give_up();
            if told == Some(KeeperEvent::Closed) {
                self.shared.reap().await;
            }
            told.into_iter().for_each(|event| drop(self.ears.events.send(event)));
            return drop(self.open);
        }
    }

    async fn clear(&self, cgroup_name: String) -> Option<KeeperEvent> {
        kill_groups(cgroup_name).await;
        Some(KeeperEvent::Closed)
    }

    /// Starts another keeper; `None` when none could take over.
    async fn succeed(&mut self, heir: &KeeperOptions, number: u32) -> Option<UnixDatagram> {
        let mut pause = FIRST_PAUSE;
        for _ in 0..ATTEMPTS {
            match timeout(TAKEN_OVER_WITHIN, self.begin(heir, number)).await {
                Ok(Ok((socket, pid))) => {
                    let _ = self.ears.events.send(KeeperEvent::Succeeded { pid });
                    return Some(socket);
                }
                Ok(Err(error)) => tracing::warn!(%error, "another keeper could not take over"),
                Err(_) => tracing::warn!("another keeper did not take over in time"),
            }
            // It must not wait for a daemon without having taken anything over.
            self.shared.kill().await;
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        None
    }

    async fn begin(&mut self, heir: &KeeperOptions, number: u32) -> io::Result<(UnixDatagram, i32)> {
        self.shared.reap().await;
        let (socket, process) = launch(heir).await?;
        let pid = i32::try_from(process.id()).unwrap_or(0);
        self.shared.set_process(process);
        let socket = carrier(socket)?;
        let conversation = Conversation { socket: &socket, number, shared: &self.shared };
        let orphans: Vec<Orphan> = self.shared.roster().values().cloned().collect();
        let mut requests = vec![Request::Adopt { orphans }];
        if let Outlive::Listen { socket: path } = &heir.outlive {
            requests.insert(0, Request::Listen { socket: path.clone().into() });
        }
        ask_all(&conversation, requests, &mut self.ears).await?;
        Ok((socket, pid))
    }
}

/// Asks before everything else, and hears the news meanwhile. All is said before the first answer is waited for: when we die
/// in between, a keeper that has heard the first has heard all.
async fn ask_all(conversation: &Conversation<'_>, requests: Vec<Request>, ears: &mut Ears) -> io::Result<()> {
    let mut asked = BTreeSet::new();
    let mut packets = Vec::new();
    for request in requests {
        let call = conversation.shared.next_call();
        packets.push(Packet::new(&Call { call, request }, Vec::new())?);
        asked.insert(call);
    }
    for packet in &packets {
        conversation.send(packet).await?;
    }
    let mut inbox = Inbox::new();
    while !asked.is_empty() {
        match conversation.next(&mut inbox).await {
            None => return Err(io::Error::other("it ended at once")),
            Some((Message { call: Some(call), body }, _)) => match body {
                Body::Done => drop(asked.remove(&call)),
                other if asked.contains(&call) => return Err(io::Error::other(refusal(other))),
                _ => {}
            },
            Some((Message { call: None, body }, _)) => conversation.on_news(body, ears),
        }
    }
    Ok(())
}

/// Starts the process of a keeper, and gives our end of its socket.
pub(super) async fn launch(options: &KeeperOptions) -> io::Result<(OwnedFd, Child)> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    let mut command = Command::new(&options.program);
    command
        .args(["__keeper", &options.cgroup_name])
        .args(options.host.as_ref().map(|_| HOST_IS_TOLD))
        .args(&options.leftovers)
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null());
    let mut process = command.spawn();
    for _ in 0..busy::TRIES {
        match &process {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {}
            _ => break,
        }
        tokio::time::sleep(busy::PAUSE).await;
        process = command.spawn();
    }
    let mut process = process?;
    let Some(look) = &options.host else { return Ok((ours, process)) };
    // JSON has no word for a path that is no UTF-8: then the keeper gets `null`, and looks itself.
    let told = Packet::new(&*look.facts().await, Vec::new()).or_else(|_| Packet::new(&(), Vec::new()));
    match told.and_then(|packet| packet.send(ours.as_fd())) {
        Err(error) if !is_gone(&error) => {
            drop(ours);
            // The keeper ends when the other side of its socket closes.
            let _ = tokio::task::spawn_blocking(move || process.wait()).await;
            Err(error)
        }
        // `settle_in`, which waits for the greeting, fails when the keeper has ended.
        _ => Ok((ours, process)),
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

/// The socket as the runtime reads and writes it.
pub(super) fn carrier(socket: OwnedFd) -> io::Result<UnixDatagram> {
    fcntl(&socket, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    // The type is only a carrier for readiness: packets of any kind of Unix socket are sent and received by `packet`.
    UnixDatagram::from_std(std::os::unix::net::UnixDatagram::from(socket))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use super::*;

    /// Another process that has a file open for writing until its standard input ends.
    fn writer(file: &Path) -> Child {
        let mut line = Command::new("/bin/sh");
        line.args(["-c", "exec 3>>\"$1\"; echo open; read -r end", "sh"]).arg(file);
        let mut writer = line.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a shell");
        let mut said = [0; 5];
        io::Read::read_exact(writer.stdout.as_mut().expect("a pipe"), &mut said).expect("it opens the file");
        writer
    }

    fn close(mut writer: Child) {
        drop(writer.stdin.take());
        writer.wait().expect("a shell");
    }

    /// Time is the test's own: what waits here waits for no clock.
    #[tokio::test(start_paused = true)]
    async fn a_program_that_is_being_written_is_waited_for_and_not_for_ever() {
        let folder = tempfile::tempdir().expect("a folder");
        let program = folder.path().join("program");
        fs::write(&program, "#!/bin/sh\n").expect("room");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("ours");
        let options = KeeperOptions {
            program: program.clone(),
            cgroup_name: "toka-test".to_owned(),
            ..KeeperOptions::default()
        };
        let open = writer(&program);
        let error = launch(&options).await.map(drop).expect_err("it is written all the time");
        assert_eq!(error.kind(), io::ErrorKind::ExecutableFileBusy);
        let closing = async {
            tokio::time::sleep(busy::PAUSE * 5).await;
            close(open);
        };
        let (launched, ()) = tokio::join!(launch(&options), closing);
        let (_socket, mut child) = launched.expect("nobody writes it any more");
        assert!(child.wait().expect("a shell").success());
    }
}
