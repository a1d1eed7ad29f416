//! The door on real sockets.

use std::os::fd::AsRawFd as _;
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use tempfile::TempDir;
use toka_keeper::ProcessId;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use super::*;
use crate::test_support::FakeKeeper;

/// A client of the `agent` socket.
pub(crate) struct Client(BufReader<UnixStream>);

impl Client {
    pub(crate) async fn connect(path: &Path) -> Self {
        Self(BufReader::new(UnixStream::connect(path).await.expect("the door is open")))
    }

    pub(crate) async fn ask(&mut self, method: &str, params: &str) -> String {
        self.send(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#)).await
    }

    async fn send(&mut self, line: &str) -> String {
        self.0.write_all(format!("{line}\n").as_bytes()).await.expect("connected");
        self.read().await
    }

    async fn read(&mut self) -> String {
        let mut answer = String::new();
        let read = tokio::time::timeout(Duration::from_secs(5), self.0.read_line(&mut answer)).await;
        read.expect("an answer in time").expect("connected");
        answer
    }
}

fn door(owner: ProcessId) -> (TempDir, Door) {
    let folder = tempfile::tempdir().expect("a folder");
    let (keeper, _) = FakeKeeper::new();
    keeper.own(i32::try_from(std::process::id()).expect("a pid"), owner);
    let gate = Gate::new(keeper, ProcessId(1), nix::unistd::getuid().as_raw());
    let door = Door::open(folder.path(), gate).expect("a door");
    (folder, door)
}

/// Answers every call with `{}`.
fn answering(mut door: Door) {
    tokio::spawn(async move {
        while let Some(message) = door.next().await {
            if let Message::Call { answer, .. } = *message {
                let _ = answer.send(Ok(Answer::Done));
            }
        }
    });
}

#[tokio::test]
async fn a_bad_line_is_answered_and_the_next_one_read() {
    let (folder, door) = door(ProcessId(1));
    answering(door);
    let mut client = Client::connect(&folder.path().join("agent")).await;
    assert!(client.ask("ready", "{}").await.contains("\"result\":{}"));
    for (line, code) in [
        ("this is no JSON", "-32700"),
        (r#"[{"jsonrpc":"2.0"}]"#, "-32600"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"nothing"}"#, "-32601"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"progress","params":{"fraction":7}}"#, "-32602"),
    ] {
        let answer = client.send(line).await;
        assert!(answer.contains(code), "{line}: {answer}");
    }
    assert!(client.ask("progress", r#"{"fraction":0.5}"#).await.contains("\"result\":{}"));
    assert!(client.send(&"x".repeat(3 * toka_core::rpc::MAX_LINE)).await.contains("-32600"));
    assert!(client.ask("progress", r#"{"fraction":0.6}"#).await.contains("\"result\":{}"));
}

#[tokio::test]
async fn another_agents_process_is_refused() {
    let (folder, _door) = door(ProcessId(2));
    let mut client = Client::connect(&folder.path().join("agent")).await;
    assert!(client.read().await.contains("no other agent"));
}

#[tokio::test]
async fn what_was_sent_before_the_door_closed_is_read() {
    let (folder, mut door) = door(ProcessId(1));
    let socket = tokio::net::UnixDatagram::unbound().expect("a socket");
    socket.send_to(b"READY=1", folder.path().join("notify")).await.expect("open");
    let mut stream = UnixStream::connect(folder.path().join("agent")).await.expect("open");
    let line = r#"{"jsonrpc":"2.0","method":"progress","params":{"fraction":1.0}}"#;
    stream.write_all(format!("{line}\n").as_bytes()).await.expect("connected");
    drop(stream);
    door.close();
    let (mut notices, mut calls) = (0, 0);
    while let Some(message) = door.next().await {
        match *message {
            Message::Notices { .. } => notices += 1,
            Message::Call { answer, .. } => {
                calls += 1;
                let _ = answer.send(Ok(Answer::Done));
            }
        }
    }
    assert_eq!((notices, calls), (1, 1));
}

#[tokio::test]
async fn descriptors_that_come_along_are_closed_after_the_message() {
    let (folder, mut door) = door(ProcessId(1));
    let (read, write) = nix::unistd::pipe().expect("a pipe");
    let socket = std::os::unix::net::UnixDatagram::unbound().expect("a socket");
    let address = UnixAddr::new(&folder.path().join("notify")).expect("short enough");
    let fds = [write.as_raw_fd()];
    let parts = [io::IoSlice::new(b"BARRIER=1")];
    let rights = [ControlMessage::ScmRights(&fds)];
    sendmsg(socket.as_raw_fd(), &parts, &rights, MsgFlags::empty(), Some(&address)).expect("open");
    drop(write);
    let Some(Message::Notices { notices, passed, .. }) = door.next().await.map(|message| *message) else {
        panic!("expected a notice")
    };
    assert_eq!(notices, [Notice::Barrier]);
    let pipe = tokio::net::unix::pipe::Receiver::from_owned_fd(read).expect("a pipe");
    let still_open = pipe.try_read(&mut [0; 1]).expect_err("nothing was written");
    assert_eq!(still_open.kind(), io::ErrorKind::WouldBlock, "what was sent is not dealt with yet");
    drop(passed);
    tokio::time::timeout(Duration::from_secs(5), pipe.readable()).await.expect("closed").expect("polled");
    assert_eq!(pipe.try_read(&mut [0; 1]).expect("the end"), 0);
}

#[tokio::test]
async fn a_datagram_that_is_too_long_is_told_as_such_and_the_next_one_is_read() {
    let (folder, mut door) = door(ProcessId(1));
    let socket = std::os::unix::net::UnixDatagram::unbound().expect("a socket");
    let path = folder.path().join("notify");
    socket.send_to(&[b'X'; 64 * 1024], &path).expect("open");
    socket.send_to(b"READY=1", &path).expect("open");
    for expected in [Notice::Unreadable(Flaw::TooLong), Notice::Ready] {
        let message = door.next().await.map(|message| *message);
        let Some(Message::Notices { notices, .. }) = message else { panic!("expected a notice") };
        assert_eq!(notices, [expected]);
    }
}

#[tokio::test]
async fn a_sender_whose_status_nobody_has_collected_yet_has_vanished() {
    let mut child = std::process::Command::new("true").spawn().expect("a process");
    let pid = i32::try_from(child.id()).expect("a pid");
    let ended = nix::sys::wait::waitid(
        nix::sys::wait::Id::Pid(nix::unistd::Pid::from_raw(pid)),
        nix::sys::wait::WaitPidFlag::WEXITED | nix::sys::wait::WaitPidFlag::WNOWAIT,
    );
    ended.expect("it is ours");
    let gate = Gate::new(FakeKeeper::new().0, ProcessId(1), nix::unistd::getuid().as_raw());
    assert_eq!(gate.admit(pid, nix::unistd::getuid().as_raw()).await, Some(Peer::Vanished));
    child.wait().expect("ours");
}
