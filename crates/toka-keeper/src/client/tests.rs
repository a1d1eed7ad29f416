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

/// What a keeper of version 1 does: it knows eight words, and what it does not understand it answers without a number.
fn version_1(say: &dyn Fn(Value), hear: &dyn Fn() -> Option<Value>) {
    say(json!({"body": {"hello": {"version": 1}}}));
    while let Some(call) = hear() {
        let (number, request) = (&call["call"], &call["request"]);
        if request == "list" {
            let entry = json!({"id": 7, "pid": 70, "project": "p", "agent": "a"});
            say(json!({"call": number, "body": {"list": [entry]}}));
        } else if !request["hold"].is_null() || !request["freeze"].is_null() {
            say(json!({"call": number, "body": "done"}));
        } else if !request["hand_back"].is_null() {
            say(json!({"call": number, "body": {"failed": {"reason": "cannot find the process"}}}));
        } else {
            say(json!({"body": {"failed": {"reason": "not understood"}}}));
        }
    }
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

#[tokio::test]
async fn a_keeper_of_version_1_is_worked_with() {
    let Opening { keeper, .. } = greeted(served_by(version_1)).await;
    let entries = keeper.list().await.expect("a list");
    assert_eq!((entries[0].id, entries[0].state.clone()), (ProcessId(7), crate::State::Running));
    keeper.freeze(ProcessId(7)).await.expect("frozen");
    keeper.hold(ProcessId(7), "door", Vec::new()).await.expect("held");
    assert!(matches!(keeper.hand_back(ProcessId(7)).await, Err(KeeperError::Refused(_))));
    keeper.settle(ProcessId(7)).await.expect("it forgets by itself");
    for refused in [
        keeper.release(ProcessId(7), "door").await,
        keeper.hold(None, "lock", Vec::new()).await,
        keeper.end().await,
    ] {
        assert!(matches!(refused, Err(KeeperError::TooOld { version: 1, .. })), "{refused:?}");
    }
    assert_eq!(keeper.pid(), None);
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
async fn a_keeper_of_version_1_that_listens_is_attached_to_without_a_word_that_it_does_not_know() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keeper.sock");
    listens_at(&path, version_1);
    let attached = Keeper::attach(&path, crate::Attach::IfFree).await.expect("attached");
    assert_eq!(attached.holdings[0].agent, "a");
}

#[tokio::test]
async fn what_ends_while_we_attach_is_nobodys_to_take_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keeper.sock");
    listens_at(&path, |say, hear| {
        say(json!({"body": {"hello": {"version": 1}}}));
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
    for hello in [json!({"version": 9, "oldest": 8}), json!({"version": 0})] {
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
        say(json!({"body": {"hello": {"version": VERSION + 1, "oldest": 1, "mood": "good"}}, "more": 1}));
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
    let Opening { keeper, mut events, .. } =
        greeted(served_by(|say, _| say(json!({"body": {"hello": {"version": 2}}})))).await;
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

/// It would start the process on pipes, with nothing to read, and say nothing.
#[tokio::test]
async fn an_older_keeper_is_not_asked_for_terminals() {
    let Opening { keeper, .. } = greeted(served_by(|say, hear| {
        say(json!({"body": {"hello": {"version": 2, "oldest": 1}}}));
        assert!(hear().is_none(), "it was asked");
    }))
    .await;
    let launch = |terminal| -> crate::Launch {
        let text = json!({
            "id": 1, "program": {"path": "/bin/true"}, "argv": [], "env": [], "plan": plan(), "stop_signal": 15,
            "grace": {"secs": 1, "nanos": 0}, "terminal": terminal,
        });
        serde_json::from_value(text).expect("a launch")
    };
    let size = toka_core::TerminalSize::default();
    let refused = keeper.spawn(launch(Some(size))).await.expect_err("too old");
    assert!(refused.to_string().contains("too old to start a process on a terminal"), "{refused}");
    let null = std::fs::File::open("/dev/null").expect("null").into();
    let refused = keeper.spawn_reading(launch(None), null).await.expect_err("too old");
    assert!(refused.to_string().contains("too old to start a process that reads"), "{refused}");
}

fn plan() -> toka_sandbox::SandboxPlan {
    let folders = toka_sandbox::AgentFolders::below(std::path::Path::new("/nonexistent"));
    let name = toka_core::Name::new("agent").expect("a label");
    toka_sandbox::SandboxPlan::compile(&toka_sandbox::CompileInput {
        confinement: &toka_core::Confinement::default(),
        folders: &folders,
        host: &toka_sandbox::HostFacts::probe(),
        project: &name,
        agent: &name,
        facts: &toka_sandbox::plan::WorkspaceFacts::default(),
        workstream_dir: None,
        toka_exe: std::path::Path::new("/bin/true"),
        programs: &[],
        run_as: None,
    })
    .expect("a plan")
}
