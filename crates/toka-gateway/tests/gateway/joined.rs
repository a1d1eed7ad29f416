//! Requests that are the same, and in flight at one time.

use std::io::Read as _;
use std::net::TcpStream;

use serde_json::{Value, json};
use toka_core::{CallOutcome, EventKind};

use crate::rig::*;

fn slow(text: &str) -> Value {
    json!({"turns": [{"text": text, "delay": "20ms", "usage": {"input": 10, "output": 3}}]})
}

fn body() -> Value {
    json!({"model": "default", "stream": true, "messages": [{"role": "user", "content": "go"}]})
}

fn bytes(path: &str, body: &Value) -> Vec<u8> {
    request(path, &[("authorization", &format!("Bearer {PHANTOM}"))], body.to_string().as_bytes())
}

fn rest(mut stream: TcpStream) -> String {
    let mut all = String::new();
    stream.read_to_string(&mut all).expect("an answer");
    all.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).expect("a head")
}

fn is_asked(kind: &EventKind) -> bool {
    matches!(kind, EventKind::ModelAsked { .. })
}

fn is_joined(kind: &EventKind) -> bool {
    matches!(kind, EventKind::ModelJoined { .. })
}

#[test]
fn they_are_one_call_and_each_gets_the_whole_answer() {
    for (path, streams) in [("/v1/messages", true), ("/v1/messages", false), ("/v1/chat/completions", true)] {
        let rig = Rig::scripted(slow("one two three four five six"));
        let mut body = body();
        body["stream"] = streams.into();
        let first = rig.send(&bytes(path, &body));
        rig.log.wait_for(1, is_asked);
        let more: Vec<_> = (0..3).map(|_| rig.send(&bytes(path, &body))).collect();
        let first = rest(first);
        assert!(first.contains("six"), "{first}");
        for stream in more {
            assert_eq!(rest(stream), first);
        }
        rig.log.wait_for(3, is_joined);
        assert_eq!(rig.log.receipts(1).len(), 1, "{path}: it is paid once");
        assert_eq!(rig.log.count(is_asked), 1);
    }
}

#[test]
fn a_call_lives_as_long_as_somebody_reads_it() {
    let rig = Rig::scripted(slow("one two three four five six"));
    let mut first = rig.send(&bytes("/v1/messages", &body()));
    // Its answer has begun.
    first.read_exact(&mut [0; 16]).expect("an answer");
    let second = rig.send(&bytes("/v1/messages", &body()));
    rig.log.wait_for(1, is_joined);
    drop(first);
    assert!(rest(second).contains("message_stop"));
    assert_eq!(rig.log.receipt().outcome, CallOutcome::Completed);
}

#[test]
fn who_waits_makes_the_call_when_the_first_goes_before_its_answer() {
    let rig = Rig::scripted(json!({"turns": [{"text": "late", "delay": "150ms"}]}));
    let body = json!({"model": "default", "messages": []});
    let first = rig.send(&bytes("/v1/messages", &body));
    rig.log.wait_for(1, is_asked);
    let second = rig.send(&bytes("/v1/messages", &body));
    // The second has come when a third that came after it was refused.
    let refused = request("/v1/messages", &[("x-api-key", "sk-other")], b"{}");
    assert_eq!(rig.raw(&refused).status, 401);
    drop(first);
    assert!(rest(second).contains("late"));
    let receipts = rig.log.receipts(3);
    assert!(receipts.iter().any(|receipt| receipt.outcome == CallOutcome::Cancelled), "{receipts:?}");
    assert!(receipts.iter().any(|receipt| receipt.outcome == CallOutcome::Completed), "{receipts:?}");
}

#[test]
fn what_differs_or_is_to_be_asked_apart_is() {
    let apart = Rig::with(vec![demo(slow("one two three"))], &["demo/m"], &[], |port| port.joins = false);
    let joined = Rig::scripted(slow("one two three"));
    let mut other = body();
    other["messages"][0]["content"] = "go!".into();
    for (rig, second) in [(apart, body()), (joined, other)] {
        let first = rig.send(&bytes("/v1/messages", &body()));
        rig.log.wait_for(1, is_asked);
        let second = rig.send(&bytes("/v1/messages", &second));
        rig.log.wait_for(2, is_asked);
        drop((rest(first), rest(second)));
        assert_eq!(rig.log.receipts(2).len(), 2);
        assert_eq!(rig.log.count(is_joined), 0);
    }
}
