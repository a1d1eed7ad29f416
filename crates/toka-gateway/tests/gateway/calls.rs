//! Calls: what goes on of them, and what becomes of those that fail.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Value, json};
use toka_core::{Amounts, CallOutcome, Cost, EventKind, Wire};
use toka_gateway::{Provider, Transport};

use crate::rig::*;

const PATHS: [(&str, Wire); 4] = [
    ("/v1/chat/completions", Wire::OpenAiChat),
    ("/v1/responses", Wire::OpenAiResponses),
    ("/v1/messages", Wire::Anthropic),
    ("/v1beta/models/m:streamGenerateContent?alt=sse", Wire::Gemini),
];

fn two_turns() -> Value {
    json!({"turns": [
        {"text": "I look at it.", "tools": [{"name": "run", "arguments": {"command": "ls"}}], "usage": {"input": 1000, "output": 10}},
        {"expect": "tool says", "text": "All is well.", "usage": {"input": 1100, "output": 4}},
    ]})
}

#[test]
fn a_script_answers_in_every_language_and_each_call_has_an_intent_and_a_receipt() {
    let rig = Rig::scripted(two_turns());
    for (path, wire) in PATHS {
        let reply =
            rig.ask(path, &json!({"model": "default", "stream": true, "messages": [{"role": "user"}]}));
        assert_eq!(reply.status, 200, "{wire}: {}", reply.text());
        assert!(reply.head.contains("text/event-stream"), "{}", reply.head);
        assert!(reply.text().contains("look"), "{wire}: {}", reply.text());
    }
    let whole = rig.ask("/v1/messages", &json!({"model": "demo/m", "messages": [
        {"role": "user", "content": "go"}, {"role": "assistant", "content": "x"}, {"role": "user", "content": "tool says: a"}]}));
    assert!(whole.text().contains("All is well."), "{}", whole.text());
    let receipts = rig.log.receipts(5);
    for receipt in &receipts {
        assert_eq!(receipt.outcome, CallOutcome::Completed);
        assert!(matches!(receipt.cost, Cost::Exact { .. }), "{receipt:?}");
    }
    assert_eq!(receipts[0].cost.money().map(|money| money.dollars()), Some(0.011));
    let events = rig.log.events.lock().expect("a log");
    assert!(
        matches!(&events[0], EventKind::ModelAsked { asked, hash, .. } if asked == "default" && hash.len() == 64)
    );
}

#[test]
fn who_has_another_key_or_asks_for_something_else_is_told_so_in_its_own_words() {
    let rig = Rig::scripted(two_turns());
    let body = br#"{"model":"default"}"#;
    for (path, headers, status, words) in [
        (
            "/v1/messages",
            vec![("x-api-key", "sk-other"), ("anthropic-version", "2023-06-01")],
            401,
            "authentication_error",
        ),
        ("/v1/chat/completions", vec![], 401, "invalid_api_key"),
        ("/v1/files", vec![("authorization", "Bearer toka-phantom")], 404, "toka_not_found"),
        ("/v1beta/models/m:embed", vec![("x-goog-api-key", PHANTOM)], 404, "NOT_FOUND"),
        (
            "/v1/chat/completions",
            vec![("authorization", "Bearer toka-phantom"), ("content-type", "x")],
            200,
            "chatcmpl",
        ),
    ] {
        let reply = rig.raw(&request(path, &headers, body));
        assert_eq!(reply.status, status, "{path}: {}", reply.text());
        assert!(reply.text().contains(words), "{path}: {}", reply.text());
    }
    for (body, words) in [
        (&b"{"[..], "can be read"),
        (b"{\"model\":\"a\",\"model\":\"b\"}", "duplicate field"),
        (b"{}", "names no model"),
        (b"[1]", "can be read"),
    ] {
        let reply = rig.raw(&request("/v1/messages", &[("x-api-key", PHANTOM)], body));
        assert_eq!(reply.status, 400, "{}", reply.text());
        assert!(reply.text().contains(words), "{}", reply.text());
    }
    let list = rig.raw(
        format!("GET /v1/models HTTP/1.1\r\nhost: x\r\nx-api-key: {PHANTOM}\r\nconnection: close\r\n\r\n")
            .as_bytes(),
    );
    assert!(list.status == 200 && list.text().contains("scripted"), "{}", list.text());
    let refused = rig.log.receipts(9);
    assert_eq!(
        refused.iter().filter(|receipt| matches!(receipt.outcome, CallOutcome::Refused { .. })).count(),
        8
    );
}

#[test]
fn no_byte_is_changed_but_the_models_name_and_the_key() {
    let stream = b"event: message_start\r\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":7,\"output_tokens\":1}},\"new\":1}\r\n\r\n\
        : a comment\n\nevent: of_tomorrow\ndata: {\"type\":\"of_tomorrow\",\"x\": 1.50}\n\n\
        data: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"\xc3\xa9\"}}\n\n\
        event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    let fake = Fake::new(vec![answer("200 OK", "text/event-stream; charset=utf-8", stream)], After::Closes);
    let rig = Rig::over_http(&fake);
    let body = br#"{ "stream":true,  "model" : "lab/m","messages":[{"role":"user","content":"\u00e9"}],"unknown":{"a":[1.0,2]}}"#;
    let headers = [
        ("x-api-key", PHANTOM),
        ("anthropic-version", "2023-06-01"),
        ("anthropic-beta", "new-1"),
        ("x-stainless-lang", "python"),
    ];
    let reply = rig.raw(&request("/v1/messages?beta=true", &headers, body));
    assert_eq!(reply.body, stream, "{}", reply.text());
    assert!(reply.head.contains("x-request-id: r-1"), "{}", reply.head);
    let heard = fake.request();
    assert!(heard.starts_with("POST /v1/messages?beta=true HTTP/1.1\r\n"), "{heard}");
    for line in [
        "x-api-key: sk-real",
        "anthropic-beta: new-1",
        "anthropic-version: 2023-06-01",
        "x-stainless-lang: python",
    ] {
        assert!(heard.contains(line), "{line}: {heard}");
    }
    let sent = String::from_utf8_lossy(body).replace("\"lab/m\"", "\"m\"");
    assert!(heard.ends_with(&sent) && !heard.contains(PHANTOM), "{heard}");
    let receipt = rig.log.receipt();
    assert_eq!((receipt.tokens.input, receipt.outcome), (Some(7), CallOutcome::Completed));
}

#[test]
fn a_chunk_that_only_the_gateway_asked_for_is_withheld() {
    let chunks = [
        "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":1}}\n\n",
        "data: [DONE]\n\n",
    ];
    for asks in [false, true] {
        let fake =
            Fake::new(vec![answer("200 OK", "text/event-stream", chunks.concat().as_bytes())], After::Closes);
        let rig = Rig::over_http(&fake);
        let mut body = json!({"model": "m", "stream": true});
        if asks {
            body["stream_options"] = json!({"include_usage": true});
        }
        let reply = rig.ask("/v1/chat/completions", &body);
        let expected = if asks { chunks.concat() } else { [chunks[0], chunks[1], chunks[3]].concat() };
        assert_eq!(reply.text(), expected);
        assert!(fake.request().contains("\"include_usage\":true"), "{}", fake.request());
        assert_eq!(rig.log.receipt().tokens.input, Some(5));
    }
}

#[test]
fn a_refusal_goes_on_as_it_came() {
    let said = br#"{"error":{"message":"no such model","type":"invalid_request_error","extra":[1]}}"#;
    let fake = Fake::new(vec![answer("404 Not Found", "application/json", said)], After::Closes);
    let rig = Rig::over_http(&fake);
    let reply = rig.ask("/v1/chat/completions", &json!({"model": "m"}));
    assert_eq!((reply.status, reply.body.as_slice()), (404, &said[..]));
    let receipt = rig.log.receipt();
    assert_eq!(receipt.outcome, CallOutcome::Failed { status: Some(404), reason: "no such model".into() });
    assert_eq!((receipt.cost, receipt.tries), (Cost::Nothing, 1));
}

#[test]
fn the_next_of_the_chain_answers_when_one_cannot() {
    let events = "data: {\"error\":{\"message\":\"overloaded\"}}\n\n";
    for first in [
        answer("500 Internal Server Error", "application/json", b"{}"),
        answer("429 Too Many Requests", "application/json", b"{\"error\":{\"message\":\"busy\"}}"),
        answer("302 Found", "text/html", b"elsewhere"),
        answer("200 OK", "text/event-stream", events.as_bytes()),
        answer("200 OK", "text/event-stream", b""),
        b"this is no HTTP".to_vec(),
        Vec::new(),
    ] {
        let shown = String::from_utf8_lossy(&first).into_owned();
        let fake = Fake::new(vec![first], After::Closes);
        let rig = Rig::new(vec![lab(&fake, None), demo(two_turns())], &["lab/m", "demo/m"], &[]);
        let reply = rig.ask("/v1/chat/completions", &json!({"model": "default", "stream": true}));
        assert!(reply.text().contains("look"), "{shown}: {}", reply.text());
        let receipt = rig.log.receipt();
        assert_eq!((receipt.provider.as_str(), receipt.tries), ("demo", 2), "{shown}");
    }
}

#[test]
fn a_provider_that_failed_is_left_alone_before_it_is_asked_again() {
    let mut script = two_turns();
    script["turns"][0]["fault"] = json!({"status": 500, "times": 1});
    let rig = Rig::scripted(script);
    let reply = rig.ask("/v1/chat/completions", &json!({"model": "m"}));
    assert_eq!(reply.status, 200, "{}", reply.text());
    let receipt = rig.log.receipt();
    assert!(receipt.tries == 2 && receipt.duration_ms >= 750, "{receipt:?}");
}

#[test]
fn who_has_no_place_at_a_provider_in_time_hears_of_it_once() {
    let mut script = two_turns();
    script["turns"][0]["delay"] = json!("2s");
    let silence = Duration::from_millis(100);
    let script = Transport::Script(serde_json::from_value(script).expect("a script"));
    let slow = Provider::new("demo".into(), Wire::ALL.to_vec(), script, Some(1), silence);
    let rig = Rig::new(vec![slow], &["demo/m"], &[]);
    std::thread::scope(|scope| {
        let asks = |text: &'static str| {
            let rig = &rig;
            move || rig.ask("/v1/chat/completions", &json!({"model": "m", "user": text}))
        };
        let both = [scope.spawn(asks("one")), scope.spawn(asks("two"))]
            .map(|asked| asked.join().expect("an answer"));
        let mut statuses = both.each_ref().map(|reply| reply.status);
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 502], "{} {}", both[0].text(), both[1].text());
        assert!(both.iter().any(|reply| reply.text().contains("none of them ended in time")));
    });
}

#[test]
fn a_busy_provider_is_asked_again_after_the_time_that_it_names() {
    let mut script = two_turns();
    script["turns"][0]["fault"] = json!({"status": 429, "retry_after": "50ms", "times": 2});
    let rig = Rig::scripted(script);
    let reply = rig.ask("/v1/chat/completions", &json!({"model": "m"}));
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(rig.log.receipt().tries, 3);

    let mut script = two_turns();
    script["turns"][0]["fault"] = json!({"status": 429, "retry_after": "1h"});
    let rig = Rig::scripted(script);
    let body = json!({"model": "m"});
    let first = rig.ask("/v1/chat/completions", &body);
    assert!(first.status == 429 && first.head.contains("retry-after: 3600"), "{}", first.head);
    let second = rig.ask("/v1/chat/completions", &body);
    assert!(
        second.status == 429 && second.text().contains("every model of this request rests"),
        "{}",
        second.text()
    );
    assert_eq!(rig.log.receipts(2)[1].tries, 0, "a provider that wants to be left alone is");
}

#[test]
fn a_stream_that_breaks_off_ends_with_an_error_and_an_estimate() {
    for (fault, words) in
        [(json!({"cut_after": 6}), "broke off"), (json!({"stall_after": 6}), "no content for 0.3 s")]
    {
        for (path, wire) in PATHS {
            let script =
                json!({"turns": [{"text": "one two three four five six seven eight nine", "fault": fault}]});
            let rig = Rig::scripted(script);
            let reply = rig.ask(path, &json!({"model": "m", "stream": true}));
            let text = reply.text();
            assert!(text.contains("toka: the answer broke off"), "{wire} {fault}: {text}");
            assert!(!text.contains("[DONE]") && !text.contains("message_stop"), "{text}");
            let receipt = rig.log.receipt();
            assert!(
                matches!(&receipt.outcome, CallOutcome::Cut { reason } if reason.contains(words)),
                "{receipt:?}"
            );
            assert!(matches!(receipt.cost, Cost::Estimate { .. }), "{receipt:?}");
        }
    }
}

#[test]
fn an_event_without_an_end_is_given_up_within_bounds() {
    let rig = Rig::scripted(json!({"turns": [{"text": "x", "fault": {"endless": true}}]}));
    let reply = rig.ask("/v1/messages", &json!({"model": "m", "stream": true}));
    assert!(reply.body.len() < 32 * 1024 * 1024, "{}", reply.body.len());
    assert!(reply.text().contains("no content in the first 4 MiB"), "{}", reply.text());
    assert!(matches!(rig.log.receipt().outcome, CallOutcome::Failed { .. }));
}

#[test]
fn the_provider_is_left_when_the_client_goes() {
    let stream = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: {\"choices\":[{\"delta\":{\"content\":\"hello\"}}]}\n\n";
    let fake = Fake::new(vec![stream.to_vec()], After::WaitsForTheClient);
    let rig = Rig::over_http(&fake);
    let body = json!({"model": "m", "stream": true}).to_string();
    let mut stream = rig.send(&request(
        "/v1/chat/completions",
        &[("authorization", "Bearer toka-phantom")],
        body.as_bytes(),
    ));
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("hello") {
        let mut piece = [0; 512];
        let count = stream.read(&mut piece).expect("an answer");
        seen.extend_from_slice(&piece[..count]);
    }
    drop(stream);
    let receipt = rig.log.receipt();
    assert_eq!(receipt.outcome, CallOutcome::Cancelled);
    assert!(matches!(receipt.cost, Cost::Estimate { .. }), "what came is paid for: {receipt:?}");
    let (flag, told) = &*fake.closed;
    let closed = flag.lock().expect("a flag");
    let (closed, _) = told.wait_timeout_while(closed, WAIT, |closed| !*closed).expect("a flag");
    assert!(*closed, "the connection to the provider is closed");
}

#[test]
fn requests_that_can_be_read_in_two_ways_go_nowhere() {
    let fake = Fake::new(vec![answer("200 OK", "application/json", b"{}")], After::Closes);
    let rig = Rig::over_http(&fake);
    let key = format!("authorization: Bearer {PHANTOM}\r\n");
    let inner = "POST /v1/files HTTP/1.1\r\nhost: x\r\n\r\n";
    for (name, bytes) in [
        (
            "two lengths",
            format!(
                "POST /v1/messages HTTP/1.1\r\nhost: x\r\n{key}content-length: 2\r\ncontent-length: 4\r\n\r\n{{}}{inner}"
            ),
        ),
        ("a bare CR", format!("POST /v1/messages HTTP/1.1\r\nhost: x\r{key}content-length: 2\r\n\r\n{{}}")),
        (
            "a folded header",
            format!(
                "POST /v1/messages HTTP/1.1\r\nhost: x\r\n{key}x: a\r\n b\r\ncontent-length: 2\r\n\r\n{{}}"
            ),
        ),
        (
            "a blank before the colon",
            format!("POST /v1/messages HTTP/1.1\r\nhost: x\r\n{key}content-length : 2\r\n\r\n{{}}"),
        ),
        (
            "a chunk without size",
            format!(
                "POST /v1/messages HTTP/1.1\r\nhost: x\r\n{key}transfer-encoding: chunked\r\n\r\nzz\r\n{{}}\r\n0\r\n\r\n"
            ),
        ),
        ("a head without end", format!("POST /v1/messages HTTP/1.1\r\nx: {}\r\n\r\n", "a".repeat(200_000))),
        ("many headers", format!("POST /v1/messages HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(500))),
    ] {
        let reply = rig.raw(bytes.as_bytes());
        assert!((400..500).contains(&reply.status) || reply.head.is_empty(), "{name}: {}", reply.head);
    }
    assert!(fake.heard.lock().expect("a list").is_empty());
}

#[test]
fn of_a_length_and_chunks_the_chunks_count_and_nothing_is_smuggled() {
    let rig = Rig::scripted(two_turns());
    let body = r#"{"model":"m"}"#;
    let smuggled = "GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n";
    let bytes = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {PHANTOM}\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n{smuggled}",
        body.len()
    );
    let reply = rig.raw(bytes.as_bytes());
    // RFC 9112, 6.3: refused, or read as chunks and the connection closed after it.
    assert!(
        reply.status == 400 || reply.status == 200 && !reply.text().contains("\"object\":\"list\""),
        "{}",
        reply.text()
    );
}

#[test]
fn a_key_that_a_provider_repeats_goes_no_further() {
    let said = br#"{"error":{"message":"Incorrect API key provided: sk-real."}}"#;
    let fake = Fake::new(vec![answer("401 Unauthorized", "application/json", said)], After::Closes);
    let rig = Rig::over_http(&fake);
    let reply = rig.ask("/v1/chat/completions", &json!({"model": "m"}));
    assert!(reply.status == 401 && reply.text().contains("provided: (a key)."), "{}", reply.text());
    let again = rig.ask("/v1/chat/completions", &json!({"model": "m"}));
    assert!(again.status == 429, "a refused key rests: {}", again.text());
    let told = format!("{}{}{:?}", reply.head, again.text(), rig.log.receipts(2));
    assert!(told.contains("(a key)") && !told.contains("sk-real"), "{told}");
}

#[test]
fn one_model_that_is_forbidden_leaves_the_others_alone() {
    let forbidden = answer("403 Forbidden", "application/json", b"{}");
    let fake = Fake::new(vec![forbidden, answer("200 OK", "application/json", b"{}")], After::Closes);
    let rig = Rig::over_http(&fake);
    assert_eq!(rig.ask("/v1/chat/completions", &json!({"model": "secret"})).status, 403);
    assert_eq!(rig.ask("/v1/chat/completions", &json!({"model": "m"})).status, 200);
}

#[test]
fn what_programs_try_in_passing_is_answered_and_is_no_call() {
    let rig = Rig::scripted(two_turns());
    assert_eq!(rig.raw(b"HEAD / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").status, 404);
    let upgrade =
        "GET /v1/responses HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade, close\r\n\r\n";
    assert_eq!(rig.raw(upgrade.as_bytes()).status, 426);
    assert!(rig.log.events.lock().expect("a log").is_empty());
}

#[test]
fn a_path_leads_nowhere_but_to_models() {
    let fake = Fake::new(vec![answer("200 OK", "application/json", b"{}")], After::Closes);
    let rig = Rig::over_http(&fake);
    for path in
        ["/v1/models/../files/secret", "/v1/models/%2e%2e/files", "/v1/models/a?$httpMethod=DELETE&limit=3"]
    {
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: x\r\nx-api-key: {PHANTOM}\r\nx-http-method-override: DELETE\r\nconnection: close\r\n\r\n"
        );
        rig.raw(request.as_bytes());
    }
    let heard = fake.heard.lock().expect("a list");
    assert_eq!(heard.len(), 1, "two go nowhere");
    let asked = String::from_utf8_lossy(&heard[0]);
    assert!(
        asked.starts_with("GET /v1/models/a?limit=3 HTTP/1.1\r\n") && !asked.contains("DELETE"),
        "{asked}"
    );
}

#[test]
fn an_agent_that_goes_at_any_moment_leaves_no_intent_without_an_end() {
    let rig = Rig::scripted(json!({"turns": [{"text": "one two three", "delay": "2ms"}]}));
    let body = json!({"model": "m", "stream": true}).to_string();
    for pause in 0..60 {
        let stream = rig.send(&request("/v1/messages", &[("x-api-key", PHANTOM)], body.as_bytes()));
        std::thread::sleep(Duration::from_micros(pause * 100));
        drop(stream);
    }
    let count = || {
        let events = rig.log.events.lock().expect("a log");
        events.iter().filter(|event| matches!(event, EventKind::ModelAsked { .. })).count()
    };
    // What arrives last may still be under way.
    rig.ask("/v1/messages", &json!({"model": "m"}));
    let asked = count();
    assert!(asked > 10 && rig.log.receipts(asked).len() >= asked);
}

#[test]
fn an_agent_asks_only_what_it_declares() {
    let rig = Rig::new(vec![demo(two_turns())], &[], &["demo/m"]);
    let refused = rig.ask("/v1/messages", &json!({"model": "claude-opus"}));
    assert!(refused.status == 403 && refused.text().contains("spec.model"), "{}", refused.text());
    assert_eq!(rig.ask("/v1/messages", &json!({"model": "m"})).status, 200);
}

#[test]
fn a_body_beyond_the_bound_is_refused_before_it_is_read() {
    let rig = Rig::scripted(two_turns());
    let head = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {PHANTOM}\r\ncontent-length: 1000000000\r\nconnection: close\r\n\r\n"
    );
    let reply = rig.raw(head.as_bytes());
    assert!(reply.status == 413 && reply.text().contains("request_too_large"), "{}", reply.text());
}

#[test]
fn a_hundred_at_once_are_each_answered_and_counted_once() {
    let rig = Rig::scripted(
        json!({"turns": [{"text": "one two three", "delay": "2ms", "usage": {"input": 1000, "output": 10}}]}),
    );
    std::thread::scope(|scope| {
        for at in 0..100 {
            let rig = &rig;
            scope.spawn(move || {
                let reply = rig.ask("/v1/messages", &json!({"model": "m", "stream": true, "at": at}));
                assert!(reply.text().contains("message_stop"), "{}", reply.text());
            });
        }
    });
    let receipts = rig.log.receipts(100);
    assert_eq!(receipts.len(), 100);
    let sum: f64 =
        receipts.iter().filter_map(|receipt| receipt.cost.money()).map(|money| money.dollars()).sum();
    assert!((sum - 1.1).abs() < 1e-6, "{sum}");
}

#[test]
fn a_call_that_the_gate_refuses_is_not_sent_and_says_what_it_might_have_used() {
    let rig = Rig::scripted(json!({"turns": [{"text": "hi"}]}));
    *rig.log.most.lock().expect("a log") = Some(Amounts::default());
    let chat =
        json!({"model": "default", "messages": [], "max_tokens": 10, "max_completion_tokens": 20, "n": 3});
    let input = chat.to_string().len().div_ceil(3);
    let reply = rig.ask("/v1/chat/completions", &chat);
    // The greater of the two limits, three times, for $100 a million.
    let money = (input as f64 * 10.0 + 60.0 * 100.0) / 1e6;
    let words = format!("toka: {} tokens for ${money:.6}", input + 60);
    assert_eq!(reply.status, 402, "{}", reply.text());
    assert!(reply.text().contains(words.trim_end_matches('0')), "{} {words}", reply.text());
    assert!(reply.text().contains("toka_budget"), "{}", reply.text());
    let receipt = rig.log.receipt();
    assert!(matches!(receipt.outcome, CallOutcome::Refused { .. }) && receipt.tries == 0, "{receipt:?}");
    let asked =
        |events: &[EventKind]| events.iter().any(|event| matches!(event, EventKind::ModelAsked { .. }));
    assert!(!asked(&rig.log.events.lock().expect("a log")), "nothing was sent");

    let body = json!({"model": "default", "max_tokens": u64::MAX, "messages": []});
    let reply = rig.ask("/v1/messages", &body);
    assert_eq!(reply.status, 402, "no sum is so large that it counts as none");
    assert!(reply.text().contains("billing_error"), "{}", reply.text());
}

/// How often a request is sent that is refused with a status.
const REFUSALS: [(&str, u32); 12] = [
    ("400 Bad Request", 1),
    ("401 Unauthorized", 1),
    ("402 Payment Required", 1),
    ("403 Forbidden", 1),
    ("413 Payload Too Large", 1),
    ("408 Request Timeout", 3),
    ("409 Conflict", 3),
    ("425 Too Early", 3),
    ("429 Too Many Requests", 3),
    ("500 Internal Server Error", 3),
    ("502 Bad Gateway", 3),
    ("529 Overloaded", 3),
];

/// What a provider refuses with goes on as it came; what may pass is tried again, what will not is not, and nothing is paid.
#[test]
fn each_refusal_is_tried_as_often_as_it_may_pass() {
    // At one time, since those that are tried again wait for it.
    std::thread::scope(|scope| {
        for (status, tries) in REFUSALS {
            scope.spawn(move || is_refused(status, tries));
        }
    });
}

fn is_refused(status: &str, tries: u32) {
    let said = format!("{{\"type\":\"error\",\"error\":{{\"message\":\"it says {status}\"}}}}");
    let refused = answer(status, "application/json\r\nretry-after: 0.01", said.as_bytes());
    let fake = Fake::new(vec![refused; 3], After::Closes);
    let rig = Rig::over_http(&fake);
    let reply = rig.ask("/v1/messages", &json!({"model": "m", "messages": []}));
    assert_eq!(
        (format!("{} ", reply.status), reply.text()),
        (format!("{} ", &status[..3]), said),
        "{status}"
    );
    let receipt = rig.log.receipt();
    assert_eq!(
        (receipt.tries, receipt.failed_tries.len()),
        (tries, tries as usize - 1),
        "{status}: {receipt:?}"
    );
    assert_eq!(receipt.cost, Cost::Nothing, "{status}: {receipt:?}");
    let words = format!("it says {status}");
    assert!(
        matches!(&receipt.outcome, CallOutcome::Failed { status: Some(_), reason } if *reason == words),
        "{receipt:?}"
    );
}

/// A provider that writes 40 MiB as fast as it is read, and tells how much it could write before nothing went for half a second.
fn flooding() -> (SocketAddr, mpsc::Receiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let (stalled, stalls) = mpsc::channel();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        read_request(&mut stream);
        let text = "x".repeat(64 * 1024);
        let frame = format!(
            "data: {{\"type\":\"content_block_delta\",\"delta\":{{\"type\":\"text_delta\",\"text\":\"{text}\"}}}}\n\n"
        );
        let end = "data: {\"type\":\"message_stop\"}\n\n";
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
        let all = [head, &frame.repeat(640), end].concat().into_bytes();
        stream.set_write_timeout(Some(Duration::from_millis(500))).expect("ours");
        let mut written = 0;
        while written < all.len() {
            match stream.write(&all[written..]) {
                Ok(count) => written += count,
                Err(_) => {
                    let _ = stalled.send(written);
                    stream.set_write_timeout(None).expect("ours");
                }
            }
        }
        let _ = stalled.send(written);
    });
    (address, stalls)
}

#[test]
fn a_client_that_reads_slowly_holds_its_provider_up_and_not_memory() {
    for joins in [true, false] {
        let (address, stalls) = flooding();
        let transport = Transport::Http { url: format!("http://{address}"), key: None };
        let lab = Provider::new("lab".into(), Wire::ALL.to_vec(), transport, None, Duration::from_secs(60));
        let rig = Rig::with(vec![lab], &["lab/m"], &[], |port| port.joins = joins);
        let body = json!({"model": "m", "stream": true, "messages": []}).to_string();
        let mut slow = rig.send(&request("/v1/messages", &[("x-api-key", PHANTOM)], body.as_bytes()));
        let stalled_at = stalls.recv_timeout(WAIT).expect("a provider");
        // What the sockets of two connections take, and no more: Linux gives each at most 6 MiB (tcp(7), tcp_rmem) and 4 MiB.
        assert!(stalled_at < 24 * 1024 * 1024, "{stalled_at}");
        let mut all = Vec::new();
        slow.read_to_end(&mut all).expect("an answer");
        assert!(all.len() > 40 * 1024 * 1024 && all.ends_with(b"\r\n0\r\n\r\n"), "{}", all.len());
        assert_eq!(rig.log.receipt().outcome, CallOutcome::Completed);
    }
}

#[test]
fn a_thousand_at_once_are_each_answered() {
    let rig =
        Rig::scripted(json!({"turns": [{"text": "one two three", "usage": {"input": 10, "output": 3}}]}));
    let ask = |at: usize| {
        let body = json!({"model": "m", "stream": true, "at": at}).to_string();
        rig.send(&request("/v1/messages", &[("x-api-key", PHANTOM)], body.as_bytes()))
    };
    let open: Vec<TcpStream> = (0..1000).map(ask).collect();
    for mut stream in open {
        let mut all = String::new();
        stream.read_to_string(&mut all).expect("an answer");
        assert!(all.contains("message_stop"), "{all}");
    }
    let receipts = rig.log.receipts(1000);
    assert!(receipts.iter().all(|receipt| receipt.outcome == CallOutcome::Completed));
}
