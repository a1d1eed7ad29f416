//! Calls that go through the batch interface of a provider: OpenAI's, Anthropic's and Google's, as a server of this file speaks them.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use toka_core::{CallOutcome, Cost, EventKind, Money};
use toka_gateway::{BatchPace, Key, LeftBatch, LeftCall, Provider, Transport};

use crate::rig::{PHANTOM, Rig, answer, read_request, request};

/// What the server does about a batch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Serves {
    /// It answers each request with the text that it ends with.
    Answers,
    /// It has no such interface.
    Nothing,
    /// It is never done.
    NeverEnds,
    /// It refuses the first requests for the time being.
    BusyAtFirst,
    /// It begins a batch, and says that it is a bad gateway.
    BeginsAndFails,
    /// It takes no batch.
    Refuses,
    /// It names the batch so that its name would lead elsewhere.
    NamesElsewhere,
    /// Every second request has expired, or failed.
    HalfFails,
}

/// A provider with a batch interface.
struct BatchServer {
    address: SocketAddr,
    heard: Heard,
}

/// The first line and the body of each request.
type Heard = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

impl BatchServer {
    fn new(serves: Serves) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let heard = Heard::default();
        let kept = Arc::clone(&heard);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let whole = read_request(&mut stream);
                let text = String::from_utf8_lossy(&whole).into_owned();
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                let line = head.lines().next().unwrap_or_default();
                let line = line.trim_end_matches(" HTTP/1.1").to_owned();
                assert!(head.contains("sk-real") && !head.contains(PHANTOM), "{head}");
                let answered = {
                    let mut kept = kept.lock().expect("a list");
                    kept.push((line.clone(), body.as_bytes().to_vec()));
                    answered(serves, &line, &kept)
                };
                let _ = stream.write_all(&answered);
            }
        });
        Self { address, heard }
    }

    fn lines(&self) -> Vec<String> {
        self.heard.lock().expect("a list").iter().map(|(line, _)| line.clone()).collect()
    }

    fn count(&self, part: &str) -> usize {
        self.lines().iter().filter(|line| line.contains(part)).count()
    }

    fn rig(&self) -> Rig {
        self.rig_after(Vec::new())
    }

    /// A gateway after another one that has left these batches.
    fn rig_after(&self, left: Vec<LeftBatch>) -> Rig {
        let url = format!("http://{}", self.address);
        let transport = Transport::Http { url, key: Key::new("sk-real") };
        let provider = Provider::new(
            "lab".into(),
            toka_core::Wire::ALL.to_vec(),
            transport,
            None,
            Duration::from_secs(5),
        );
        let millis = Duration::from_millis;
        let pace = BatchPace {
            quiet: millis(150),
            most: millis(1000),
            first_look: millis(10),
            longest_look: millis(20),
        };
        Rig::with(vec![provider], &["lab/m"], &[], |port| {
            (port.batches, port.left) = (Some(pace), left);
        })
    }
}

fn json_answer(value: &Value) -> Vec<u8> {
    answer("200 OK", "application/json", value.to_string().as_bytes())
}

/// The requests of the batch that was heard of last: their names and bodies.
fn requests(heard: &[(String, Vec<u8>)]) -> Vec<(String, Value)> {
    let text = |body: &Vec<u8>| String::from_utf8_lossy(body).into_owned();
    let found = heard.iter().rev().find_map(|(line, body)| {
        let body = text(body);
        let own = |value: &Value, name: &Value| (name.as_str().unwrap_or_default().to_owned(), value.clone());
        match line.as_str() {
            "POST /v1/files" => {
                let lines = body.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
                Some(lines.map(|line| own(&line["body"], &line["custom_id"])).collect())
            }
            "POST /v1/messages/batches" => {
                let read: Value = serde_json::from_str(&body).expect("JSON");
                let all = read["requests"].as_array().expect("a list");
                Some(all.iter().map(|one| own(&one["params"], &one["custom_id"])).collect())
            }
            line if line.ends_with(":batchGenerateContent") => {
                let read: Value = serde_json::from_str(&body).expect("JSON");
                let all = read["batch"]["inputConfig"]["requests"]["requests"].as_array().expect("a list");
                Some(all.iter().map(|one| own(&one["request"], &one["metadata"]["key"])).collect())
            }
            _ => None,
        }
    });
    found.unwrap_or_default()
}

/// What a request says.
fn said(request: &Value) -> String {
    let chat = request["messages"][0]["content"].as_str();
    let gemini = request["contents"][0]["parts"][0]["text"].as_str();
    chat.or(gemini).unwrap_or_default().to_owned()
}

fn chat_answer(text: &str) -> Value {
    json!({"object": "chat.completion", "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10}})
}

fn message(text: &str) -> Value {
    json!({"type": "message", "role": "assistant", "stop_reason": "end_turn", "content": [{"type": "text", "text": text}],
        "usage": {"input_tokens": 100, "output_tokens": 10}})
}

fn generated(text: &str) -> Value {
    json!({"candidates": [{"finishReason": "STOP", "content": {"parts": [{"text": text}]}}],
        "usageMetadata": {"promptTokenCount": 100, "candidatesTokenCount": 10}})
}

fn answered(serves: Serves, line: &str, heard: &[(String, Vec<u8>)]) -> Vec<u8> {
    let begins = ["POST /v1/files", "POST /v1/messages/batches"].contains(&line)
        || line.ends_with(":batchGenerateContent");
    let is_batch = begins || line.contains("batches") || line.contains("/v1/files");
    let fails = |status: &str| {
        let body = json!({"type": "error", "error": {"type": "x", "message": "not here"}}).to_string();
        answer(status, "application/json", body.as_bytes())
    };
    match serves {
        Serves::Nothing if is_batch => return fails("404 Not Found"),
        Serves::Refuses if is_batch => return fails("400 Bad Request"),
        Serves::BeginsAndFails if begins => return fails("502 Bad Gateway"),
        Serves::BusyAtFirst if begins && heard.iter().filter(|(known, _)| known == line).count() < 2 => {
            return fails("503 Service Unavailable");
        }
        _ => {}
    }
    let name = if serves == Serves::NamesElsewhere { "../files" } else { "b-1" };
    let is_over = serves != Serves::NeverEnds;
    let all = requests(heard);
    let half = |at: usize| serves == Serves::HalfFails && at % 2 == 1;
    let lines = |one: &dyn Fn(usize, &str, &Value) -> Value| {
        let lines = all.iter().enumerate().map(|(at, (id, request))| one(at, id, request).to_string() + "\n");
        // Nobody promises an order.
        let mut lines: Vec<String> = lines.collect();
        lines.reverse();
        answer("200 OK", "application/jsonl", lines.concat().as_bytes())
    };
    match line {
        "POST /v1/files" => json_answer(&json!({"id": "file-in", "object": "file"})),
        "POST /v1/batches" => json_answer(&json!({"id": name, "object": "batch", "status": "validating"})),
        "GET /v1/batches/b-1" if is_over => {
            json_answer(&json!({"id": "b-1", "status": "completed", "output_file_id": "file-out"}))
        }
        "GET /v1/batches/b-1" => json_answer(&json!({"id": "b-1", "status": "in_progress"})),
        "GET /v1/files/file-out/content" => lines(&|at, id, request| match half(at) {
            true => {
                json!({"custom_id": id, "response": null, "error": {"code": "batch_expired", "message": "too late"}})
            }
            false => {
                json!({"custom_id": id, "response": {"status_code": 200, "body": chat_answer(&said(request))}, "error": null})
            }
        }),
        "POST /v1/messages/batches" => {
            json_answer(&json!({"id": name, "type": "message_batch", "processing_status": "in_progress"}))
        }
        "GET /v1/messages/batches/b-1" => {
            let status = if is_over { "ended" } else { "in_progress" };
            json_answer(
                &json!({"id": "b-1", "processing_status": status, "results_url": "http://elsewhere.example/x"}),
            )
        }
        "GET /v1/messages/batches/b-1/results" => lines(&|at, id, request| {
            let error =
                json!({"type": "error", "error": {"type": "rate_limit_error", "message": "too many"}});
            let result = match half(at) {
                true => json!({"type": "errored", "error": error}),
                false => json!({"type": "succeeded", "message": message(&said(request))}),
            };
            json!({"custom_id": id, "result": result})
        }),
        line if line.ends_with(":batchGenerateContent") => json_answer(
            &json!({"name": format!("batches/{name}"), "metadata": {"state": "BATCH_STATE_PENDING"}}),
        ),
        "GET /v1beta/batches/b-1" => {
            let one = |(at, (id, request)): (usize, &(String, Value))| match half(at) {
                true => json!({"error": {"code": 8, "message": "too many"}, "metadata": {"key": id}}),
                false => json!({"response": generated(&said(request)), "metadata": {"key": id}}),
            };
            let list: Vec<Value> = all.iter().enumerate().map(one).collect();
            json_answer(
                &json!({"name": "batches/b-1", "done": true, "metadata": {"state": "BATCH_STATE_SUCCEEDED"},
                "response": {"inlinedResponses": {"inlinedResponses": list}}}),
            )
        }
        "POST /v1/chat/completions" => json_answer(&chat_answer("alone")),
        _ => json_answer(&json!({})),
    }
}

const CHAT: &str = "/v1/chat/completions";
const APIS: [(&str, &str); 3] = [
    (CHAT, "POST /v1/files"),
    ("/v1/messages", "POST /v1/messages/batches"),
    ("/v1beta/models/m:generateContent", ":batchGenerateContent"),
];

fn body(path: &str, text: &str) -> Value {
    match path.contains("generateContent") {
        true => json!({"contents": [{"parts": [{"text": text}]}]}),
        false => json!({"model": "lab/m", "max_tokens": 9, "messages": [{"role": "user", "content": text}]}),
    }
}

fn text_of(path: &str, answer: &[u8]) -> String {
    let read: Value = serde_json::from_slice(answer).unwrap_or_default();
    let found = match path {
        CHAT => &read["choices"][0]["message"]["content"],
        "/v1/messages" => &read["content"][0]["text"],
        _ => &read["candidates"][0]["content"]["parts"][0]["text"],
    };
    found.as_str().unwrap_or_default().to_owned()
}

#[test]
fn calls_are_given_over_together_and_each_gets_its_own_answer() {
    for (path, begins) in APIS {
        let server = BatchServer::new(Serves::Answers);
        let rig = server.rig();
        std::thread::scope(|scope| {
            let rig = &rig;
            for number in 0..5 {
                scope.spawn(move || {
                    let text = format!("say {number}");
                    let reply = rig.ask(path, &body(path, &text));
                    assert_eq!((reply.status, text_of(path, &reply.body)), (200, text), "{}", reply.text());
                });
            }
        });
        assert_eq!(server.count(begins), 1, "{:?}", server.lines());
        for receipt in rig.log.receipts(5) {
            assert_eq!((&receipt.outcome, receipt.batch.as_deref()), (&CallOutcome::Completed, Some("b-1")));
            assert_eq!((receipt.tries, receipt.tokens.input), (1, Some(100)));
            // 100 tokens at $10 and 10 at $100 a million, and half of that.
            assert_eq!(receipt.cost, Cost::Exact { nano_usd: Money(1_000_000) });
        }
        let events = rig.log.events.lock().expect("a log");
        let batched: Vec<_> = events
            .iter()
            .filter_map(|event| match event {
                EventKind::ModelBatched { provider, batch, calls, .. } => {
                    Some((provider, batch, calls.len()))
                }
                _ => None,
            })
            .collect();
        assert_eq!(batched, [(&"lab".to_owned(), &"b-1".to_owned(), 5)]);
    }
}

#[test]
fn whoever_gave_up_gets_the_answer_when_it_asks_again() {
    let server = BatchServer::new(Serves::Answers);
    let rig = server.rig();
    let asked = request(
        CHAT,
        &[("authorization", &format!("Bearer {PHANTOM}"))],
        body(CHAT, "wait").to_string().as_bytes(),
    );
    let impatient: TcpStream = rig.send(&asked);
    rig.log.wait_for(1, |event| matches!(event, EventKind::ModelBatched { .. }));
    drop(impatient);
    rig.log.receipts(1);
    let again = rig.raw(&asked);
    assert_eq!(text_of(CHAT, &again.body), "wait", "{}", again.text());
    assert_eq!(rig.log.count(|event| matches!(event, EventKind::ModelAsked { .. })), 1);
    assert_eq!(server.count("POST /v1/files"), 1);
    // What was fetched is kept for nobody.
    rig.raw(&asked);
    assert_eq!(server.count("POST /v1/files"), 2);
}

#[test]
fn what_nobody_waits_for_is_not_sent() {
    let server = BatchServer::new(Serves::Answers);
    let rig = server.rig();
    let asked = request(
        CHAT,
        &[("authorization", &format!("Bearer {PHANTOM}"))],
        body(CHAT, "never mind").to_string().as_bytes(),
    );
    let impatient = rig.send(&asked);
    rig.log.wait_for(1, |event| matches!(event, EventKind::ModelAsked { .. }));
    drop(impatient);
    let receipt = rig.log.receipt();
    assert_eq!((receipt.outcome, receipt.cost), (CallOutcome::Cancelled, Cost::Nothing));
    assert_eq!(server.lines(), Vec::<String>::new());
}

#[test]
fn where_there_is_no_such_interface_calls_are_made_one_by_one() {
    let server = BatchServer::new(Serves::Nothing);
    let rig = server.rig();
    for _ in 0..2 {
        let reply = rig.ask(CHAT, &body(CHAT, "x"));
        assert_eq!(text_of(CHAT, &reply.body), "alone", "{}", reply.text());
    }
    assert_eq!(server.count("POST /v1/files"), 1, "it is not asked for twice");
    for receipt in rig.log.receipts(2) {
        assert_eq!((receipt.batch, receipt.tries), (None, 1));
        assert_eq!(receipt.cost, Cost::Exact { nano_usd: Money(2_000_000) });
    }
}

#[test]
fn streams_are_made_at_once() {
    let server = BatchServer::new(Serves::Answers);
    let rig = server.rig();
    let mut asked = body(CHAT, "x");
    asked["stream"] = true.into();
    rig.ask(CHAT, &asked);
    assert_eq!(server.lines(), ["POST /v1/chat/completions"]);
}

#[test]
fn a_request_that_fails_fails_alone() {
    for (path, _) in APIS {
        let server = BatchServer::new(Serves::HalfFails);
        let rig = server.rig();
        let replies: Vec<u16> = std::thread::scope(|scope| {
            let rig = &rig;
            let ask = |number| move || rig.ask(path, &body(path, &format!("say {number}"))).status;
            let asking: Vec<_> = (0..4).map(|number| scope.spawn(ask(number))).collect();
            asking.into_iter().map(|one| one.join().expect("a reply")).collect()
        });
        assert_eq!(replies.iter().filter(|status| **status == 200).count(), 2, "{path}: {replies:?}");
        let failed: Vec<_> = rig
            .log
            .receipts(4)
            .into_iter()
            .filter(|receipt| receipt.outcome != CallOutcome::Completed)
            .collect();
        assert_eq!(failed.len(), 2);
        assert!(failed.iter().all(|receipt| receipt.cost == Cost::Nothing), "{failed:?}");
    }
}

#[test]
fn a_batch_that_cannot_be_begun_is_tried_again_or_told() {
    let server = BatchServer::new(Serves::BusyAtFirst);
    let reply = server.rig().ask(CHAT, &body(CHAT, "x"));
    assert_eq!((reply.status, server.count("POST /v1/files")), (200, 2), "{}", reply.text());
    let server = BatchServer::new(Serves::Refuses);
    let rig = server.rig();
    let reply = rig.ask(CHAT, &body(CHAT, "x"));
    assert!(reply.status == 502 && reply.text().contains("400 not here"), "{}", reply.text());
    let receipt = rig.log.receipt();
    assert!(matches!(receipt.outcome, CallOutcome::Failed { .. }) && receipt.cost == Cost::Nothing);
    let server = BatchServer::new(Serves::NamesElsewhere);
    let rig = server.rig();
    let reply = rig.ask(CHAT, &body(CHAT, "x"));
    assert!(reply.status == 502 && reply.text().contains("has not named the batch"), "{}", reply.text());
    assert_eq!(rig.log.receipt().cost, Cost::Unknown, "it may have begun");
    assert_eq!(server.lines(), ["POST /v1/files", "POST /v1/batches"]);
}

#[test]
fn what_may_have_begun_is_not_given_over_twice() {
    let server = BatchServer::new(Serves::BeginsAndFails);
    let rig = server.rig();
    let reply = rig.ask("/v1/messages", &body("/v1/messages", "x"));
    assert!(reply.status == 502 && reply.text().contains("502 not here"), "{}", reply.text());
    assert_eq!((server.count("POST"), rig.log.receipt().cost), (1, Cost::Unknown));
}

#[test]
fn each_model_has_a_batch_of_its_own() {
    let server = BatchServer::new(Serves::Answers);
    let rig = server.rig();
    std::thread::scope(|scope| {
        for model in ["lab/m", "lab/other"] {
            let rig = &rig;
            scope.spawn(move || {
                let mut asked = body("/v1/messages", "x");
                asked["model"] = model.into();
                // The server has one name for all of its batches: whether it is answered is no matter here.
                rig.ask("/v1/messages", &asked);
            });
        }
    });
    assert_eq!(server.count("POST /v1/messages/batches"), 2);
    let mut models: Vec<String> = rig.log.receipts(2).into_iter().map(|receipt| receipt.model).collect();
    models.sort();
    assert_eq!(models, ["m", "other"]);
}

#[test]
fn a_batch_is_given_up_with_its_port() {
    let server = BatchServer::new(Serves::NeverEnds);
    let rig = server.rig();
    let asked = request(
        CHAT,
        &[("authorization", &format!("Bearer {PHANTOM}"))],
        body(CHAT, "x").to_string().as_bytes(),
    );
    let _client = rig.send(&asked);
    rig.log.wait_for(1, |event| matches!(event, EventKind::ModelBatched { .. }));
    let log = Arc::clone(&rig.log);
    drop(rig);
    let receipt = log.receipt();
    assert!(matches!(receipt.outcome, CallOutcome::Cut { .. }), "{receipt:?}");
    assert_eq!((receipt.cost, receipt.batch.as_deref()), (Cost::Unknown, Some("b-1")));
    let begun = std::time::Instant::now();
    while server.count("POST /v1/batches/b-1/cancel") == 0 {
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", server.lines());
        std::thread::yield_now();
    }
}

#[test]
fn a_batch_that_another_process_has_begun_is_gone_on_with() {
    for (path, _) in APIS {
        let server = BatchServer::new(Serves::Answers);
        let first = server.rig();
        let asked = request(
            path,
            &[("authorization", &format!("Bearer {PHANTOM}")), ("anthropic-version", "2023-06-01")],
            body(path, "go on").to_string().as_bytes(),
        );
        let client = first.send(&asked);
        first.log.wait_for(1, |event| matches!(event, EventKind::ModelBatched { .. }));
        let begun = first.log.events.lock().expect("a log").iter().find_map(|event| match event {
            EventKind::ModelBatched { provider, model, path, batch, calls } => Some(LeftBatch {
                provider: provider.clone(),
                model: model.clone(),
                path: path.clone(),
                batch: batch.clone(),
                calls: calls
                    .iter()
                    .map(|batched| LeftCall {
                        call: batched.call,
                        request: batched.request.clone(),
                        since_ms: 0,
                    })
                    .collect(),
            }),
            _ => None,
        });
        let left = begun.expect("a batch");
        drop((client, first));
        // Of a provider that is not there now, it is waited for.
        let gone = LeftBatch { provider: "gone".into(), ..left.clone() };
        let second = server.rig_after(vec![gone, left]);
        assert_eq!(second.log.receipt().cost, Cost::Exact { nano_usd: Money(1_000_000) });
        let reply = second.raw(&asked);
        assert_eq!(text_of(path, &reply.body), "go on", "{}", reply.text());
        assert_eq!(second.log.count(|event| matches!(event, EventKind::ModelAsked { .. })), 0, "paid once");
    }
}
