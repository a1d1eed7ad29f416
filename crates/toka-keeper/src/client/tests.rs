//! The client against keepers that it did not grow up with: hand-made ones that say what other versions would say.

use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv, send};
use serde_json::{Value, json};

use super::open::Opening;
use super::traffic::AfterLoss;
use super::*;
use crate::protocol::{OLDEST, ProcessId, VERSION};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, bind, listen, socket, socketpair};
use std::os::fd::OwnedFd;

/// Far above what anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A keeper's end of a connection, on a thread of its own since it blocks.
fn served_by(keeper: impl FnOnce(&dyn Fn(Value), &dyn Fn() -> Option<Value>) + Send + 'static) -> OwnedFd {
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).expect("a pair");
    std::thread::spawn(move || serve(&theirs, keeper));
    ours
}

fn serve(socket: &OwnedFd, keeper: impl FnOnce(&dyn Fn(Value), &dyn Fn() -> Option<Value>)) {
    let say = |text: Value| {
        let text = text.to_string();
        send(socket.as_raw_fd(), text.as_bytes(), MsgFlags::MSG_NOSIGNAL).expect("the client listens");
    };
    let hear = || {
        let mut buffer = vec![0; 65536];
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()).unwrap_or(0);
        serde_json::from_slice(&buffer[..length]).ok()
    };
    keeper(&say, &hear);
}

async fn greeted(socket: OwnedFd) -> Opening {
    let opening = Keeper::open(socket, None, AfterLoss::Spare).expect("open");
    let Opening { keeper, events, hello } = opening;
    let hello =
        tokio::time::timeout(PATIENCE, hello).await.expect("in time").expect("a word").expect("hello");
    assert!(hello.version > 0);
    let (_, unused) = tokio::sync::oneshot::channel();
    Opening { keeper, events, hello: unused }
}

/// A keeper that listens at the path, until the test is over.
fn listens_at(
    path: &std::path::Path,
    keeper: impl FnOnce(&dyn Fn(Value), &dyn Fn() -> Option<Value>) + Send + 'static,
) {
    let listener =
        socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
    crate::address::with_address(path, |address| bind(listener.as_raw_fd(), address)).expect("bound");
    listen(&listener, Backlog::new(1).expect("a backlog")).expect("it listens");
    std::thread::spawn(move || {
        let fd = nix::sys::socket::accept(listener.as_raw_fd()).expect("the client");
        serve(&toka_sandbox::sys::inherited_descriptor(fd).expect("open"), keeper);
    });
}

#[tokio::test]
async fn what_ends_while_we_attach_is_nobodys_to_take_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keeper.sock");
    listens_at(&path, |say, hear| {
        say(json!({"body": {"hello": {"version": VERSION, "oldest": OLDEST, "pid": 1}}}));
        let call = hear().expect("a word to attach");
        say(json!({"call": call["call"], "body": "done"}));
        let call = hear().expect("a list is asked for");
        let entry = |id: u32| json!({"id": id, "pid": 70 + id, "project": "p", "agent": "a"});
        say(json!({"call": call["call"], "body": {"list": [entry(7), entry(8), entry(9)]}}));
        say(json!({"body": {"exited": {"id": 7, "status": {"code": 0}}}}));
        say(json!({"body": {"gone": {"id": 7, "usage": {}}}}));
        say(json!({"body": {"exited": {"id": 8, "status": {"code": 3}}}}));
        while hear().is_some() {}
    });
    let mut attached = Keeper::attach(&path, crate::Attach::IfFree).await.expect("attached");
    assert_eq!(attached.holdings.len(), 3, "it was there when it was asked");
    for _ in 0..3 {
        tokio::time::timeout(PATIENCE, attached.events.recv()).await.expect("in time").expect("news");
    }
    let roster = attached.keeper.shared.roster();
    let left: Vec<_> = roster.values().map(|orphan| (orphan.id.0, orphan.status.is_some())).collect();
    assert_eq!(left, [(8, true), (9, false)]);
}

#[tokio::test]
async fn a_keeper_that_speaks_nothing_of_ours_is_refused_politely() {
    for hello in [json!({"version": 9, "oldest": 8, "pid": 1}), json!({"version": 0, "oldest": 0, "pid": 1})]
    {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keeper.sock");
        listens_at(&path, move |say, hear| {
            say(json!({"body": {"hello": hello}}));
            while hear().is_some() {}
        });
        let refused = Keeper::attach(&path, crate::Attach::IfFree).await.expect_err("no common version");
        assert!(matches!(refused, KeeperError::Version { .. }), "{refused:?}");
        let ours = format!("this program {OLDEST} to {VERSION}");
        assert!(refused.to_string().contains(&ours), "{refused}");
    }
}

#[tokio::test]
async fn words_and_fields_of_a_later_version_do_no_harm() {
    let Opening { keeper, mut events, .. } = greeted(served_by(|say, hear| {
        say(json!({"body": {"hello": {"version": VERSION + 1, "oldest": 1, "pid": 1, "mood": "good"}}, "more": 1}));
        say(json!({"body": {"weather": {"id": 1}}}));
        let call = hear().expect("a call");
        say(json!({"call": call["call"], "body": {"dance": {}}}));
        say(json!({"body": {"gone": {"id": 4, "usage": {}, "karma": 7}}}));
        while hear().is_some() {}
    }))
    .await;
    let answer = keeper.freeze(ProcessId(1)).await;
    assert!(matches!(answer, Err(KeeperError::Refused(_))), "{answer:?}");
    let event = tokio::time::timeout(PATIENCE, events.recv()).await.expect("in time");
    assert!(matches!(event, Some(KeeperEvent::Gone { id: ProcessId(4), .. })), "{event:?}");
}

#[tokio::test]
async fn calls_after_the_end_fail_at_once() {
    let Opening { keeper, mut events, .. } = greeted(served_by(|say, _| {
        say(json!({"body": {"hello": {"version": VERSION, "oldest": OLDEST, "pid": 1}}}));
    }))
    .await;
    assert_eq!(events.recv().await, Some(KeeperEvent::Closed));
    assert!(matches!(keeper.list().await, Err(KeeperError::Gone)));
    keeper.shutdown().await;
}

#[tokio::test]
async fn where_nobody_listens_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keeper.sock");
    assert!(matches!(Keeper::attach(&path, crate::Attach::IfFree).await, Err(KeeperError::NotThere { .. })));
}
