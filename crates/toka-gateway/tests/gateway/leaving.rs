//! What is found in requests before they leave.

use serde_json::{Value, json};
use toka_core::{EventKind, Name};

use crate::rig::*;

#[test]
fn a_secret_in_a_request_is_told_once_by_its_name() {
    let stream = b"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    let answers = (0..3).map(|_| answer("200 OK", "text/event-stream", stream)).collect();
    let fake = Fake::new(answers, After::Closes);
    let rig = Rig::new(vec![lab(&fake, Some("sk-real-key"))], &["lab/m"], &[]);
    rig.secrets.set(&Name::new("b").expect("a label"), &[("token".into(), b"hunter2-\"hunter2\"".to_vec())]);
    for text in ["my key is sk-real-key!", "hunter2-\"hunter2\"", "hunter2-\"hunter2\" again"] {
        let body = json!({"model": "m", "stream": true, "messages": [{"role": "user", "content": text}]});
        assert_eq!(rig.ask("/v1/messages", &body).status, 200);
    }
    rig.log.receipts(3);
    let events = rig.log.events.lock().expect("a log");
    let told: Vec<(&str, &str)> = events
        .iter()
        .filter_map(|kind| match kind {
            EventKind::SecretSent { secret, to } => Some((secret.as_str(), to.as_str())),
            _ => None,
        })
        .collect();
    assert_eq!(told, [("the key of lab", "lab"), ("the secret token of b", "lab")]);
    assert!(!format!("{events:?}").contains("hunter2"));
}

#[test]
fn a_request_that_breaks_what_the_provider_keeps_is_told() {
    let turn = json!({"text": "ok"});
    let rig = Rig::scripted(json!({"turns": [turn, turn, turn, turn]}));
    let long = "x".repeat(8000);
    let ask = |system: &str, messages: &[&str]| {
        let messages: Vec<Value> = messages
            .iter()
            .enumerate()
            .map(
                |(at, text)| json!({"role": if at % 2 == 0 { "user" } else { "assistant" }, "content": text}),
            )
            .collect();
        let body = json!({"model": "demo/m", "system": system, "messages": messages});
        assert_eq!(rig.ask("/v1/messages", &body).status, 200);
    };
    ask("it is 10:01", &["fix it", "how", &long]);
    ask("another", &["name this"]);
    ask("it is 10:01", &["fix it", "how", &long, "so", "well"]);
    ask("it is 10:02", &["fix it", "how", &long, "so", "well", "done", "thanks"]);
    rig.log.receipts(4);
    let events = rig.log.events.lock().expect("a log");
    let broken: Vec<&EventKind> =
        events.iter().filter(|kind| matches!(kind, EventKind::CacheBroken { .. })).collect();
    let [EventKind::CacheBroken { place, tokens, nano_usd, .. }] = broken.as_slice() else {
        panic!("{broken:?}");
    };
    assert_eq!((place.as_str(), *nano_usd), ("system at character 10", None));
    assert!((2000..2200).contains(tokens), "{tokens}");
}
