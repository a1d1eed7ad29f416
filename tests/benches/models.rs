//! What the gateway costs: the first token, the rate of tokens, requests, and the memory of many streams, through an agent's port against
//! the same provider asked directly.
//!
//! `cargo bench -p toka-tests --bench models [-- ROUNDS]`. Rounds alternate; ratios are of medians. Calls are recorded in a journal on a
//! disk (`TMPDIR`, or the system's own place), as they are in a run: each is durable before it is sent.
//!
//! Beside it the decisions alone (budgets, and an intent that is durable), and a proxy of others that does a part of the same: LiteLLM, where
//! `TOKA_LITELLM` names its program (PyPI `litellm[proxy]`, in an environment of its own).

mod journal_log;
mod litellm;

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use journal_log::InJournal;
use toka_broker::{Broker, HostGrants};
use toka_core::{
    AgentName, Amounts, Budget, BudgetConfig, CallOutcome, CallReceipt, Cost, Event, EventKind, ModelName,
    Money, Name, RunId, Tokens, Wire,
};
use toka_gateway::{CallLog as _, Current, Gate, Gateway, Port, Provider, Providers, Serving, Transport};
use toka_project::{Journal, Stamp};
use toka_tests::measure::{Samples, Table, rounds};
use toka_wire::PriceTable;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use uuid::Uuid;

const ROUNDS: usize = 5;
/// First tokens of one round.
const FIRSTS: usize = 100;
/// Tokens of a long stream.
const TOKENS: usize = 50_000;
/// Requests of one round, and how many are asked at one time.
const REQUESTS: usize = 1_000;
const AT_ONCE: usize = 32;
/// Streams that are open at one time.
const STREAMS: usize = 1_000;
/// Decisions of one round, and how many are asked for at one time.
const DECISIONS: usize = 10_240;
const DECIDED_AT_ONCE: usize = 64;
pub(crate) const KEY: &str = "sk-toka-bench";

/// What the provider is asked for, by the model's name.
const FRAME: &str = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"word \"},\"finish_reason\":null}]}\n\n";
const LAST: &str =
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":9}}\n\ndata: [DONE]\n\n";

/// The gate of the agent, with budgets that no bench uses up.
#[derive(Debug)]
struct Budgeted(Arc<Broker>, AgentName);

impl Gate for Budgeted {
    fn admit(
        &self,
        call: u64,
        most: Amounts,
    ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'static>> {
        let (broker, agent) = (Arc::clone(&self.0), self.1.clone());
        Box::pin(async move { broker.admit(&agent, call, most).await })
    }

    fn admit_host(
        &self,
        _: String,
        _: u16,
    ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'static>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// A broker that hears the events of the journal, as in a project.
fn broker(mut events: UnboundedReceiver<Event>) -> Arc<Broker> {
    let broker = Arc::new(Broker::new(Arc::new(|_, _| {}), || 0));
    let endless =
        Budget { money: Some(Money(u64::MAX)), tokens: Some(u64::MAX), calls: Some(u64::MAX), wall: None };
    broker.configure(BudgetConfig { run: endless, agent: endless }, None, HostGrants::default());
    let listener = Arc::clone(&broker);
    std::thread::spawn(move || {
        while let Some(event) = events.blocking_recv() {
            listener.observe(&event);
        }
    });
    broker
}

fn main() {
    let rounds = rounds(ROUNDS);
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let provider = serve_provider();
    let (port, _serving) = serve_gateway(provider, folder.path());
    let mut table = Table::new(format!("Models through an agent's port, {rounds} rounds in turn"));
    let mut first = [Samples::default(), Samples::default()];
    let mut rate = [Samples::default(), Samples::default()];
    let mut requests = [Samples::default(), Samples::default()];
    for _ in 0..rounds {
        for (at, address) in [provider, port].into_iter().enumerate() {
            runtime.block_on(async {
                for _ in 0..FIRSTS {
                    first[at].add_time(first_token(address).await);
                }
                rate[at].add(TOKENS as f64 / 1e3 / whole_stream(address).await.as_secs_f64());
                requests[at].add(many_requests(address).await);
            });
        }
    }
    for (name, samples, unit, target) in [
        ("first token", &first, "ms", "≤ 1 ms more"),
        ("tokens of one stream", &rate, "k/s", "≥ 0.95"),
        ("requests, 32 at one time", &requests, "/s", ""),
    ] {
        table.row(&format!("{name}, direct"), &samples[0], unit, Some(&samples[0]), "");
        table.row(&format!("{name}, through the port"), &samples[1], unit, Some(&samples[0]), target);
    }
    let mut memory = Samples::default();
    memory.add(runtime.block_on(memory_of_streams(port)));
    table.row(
        &format!("memory of {STREAMS} open streams, gateway, provider and clients"),
        &memory,
        "MiB",
        None,
        "≤ 200 MiB",
    );
    let (mut alone, mut grouped) = (Samples::default(), Samples::default());
    let gate = Arc::new(Decisions::new(folder.path()));
    for _ in 0..rounds {
        runtime.block_on(async {
            for _ in 0..FIRSTS {
                alone.add_time(gate.one().await);
            }
            grouped.add(gate.many().await);
        });
    }
    table.row("decisions, one after the other", &alone, "ms", None, "≤ 0.5 ms");
    table.row(&format!("decisions, {DECIDED_AT_ONCE} at one time"), &grouped, "/s", None, "≥ 5000/s");
    if let Some(peer) = litellm::Peer::start(provider, folder.path()) {
        let (mut first, mut requests) =
            ([Samples::default(), Samples::default()], [Samples::default(), Samples::default()]);
        let mut memory = Samples::default();
        for _ in 0..rounds {
            for (at, address) in [port, peer.address].into_iter().enumerate() {
                runtime.block_on(async {
                    for _ in 0..FIRSTS / 4 {
                        first[at].add_time(first_token(address).await);
                    }
                    requests[at].add(many_requests(address).await);
                });
            }
            memory.add(peer.resident());
        }
        for (name, samples, unit) in
            [("first token", &first, "ms"), ("requests, 32 at one time", &requests, "/s")]
        {
            table.row(&format!("{name}, through the port, again"), &samples[0], unit, Some(&samples[0]), "");
            table.row(&format!("{name}, LiteLLM"), &samples[1], unit, Some(&samples[0]), "");
        }
        table.row("memory of LiteLLM", &memory, "MiB", None, "");
    }
    table.print();
}

/// What is decided before a call is sent: budgets, and an intent that is durable.
struct Decisions {
    broker: Arc<Broker>,
    log: InJournal,
    agent: AgentName,
    last: AtomicU64,
}

impl Decisions {
    fn new(folder: &std::path::Path) -> Self {
        let agent = Name::new("bench").expect("a label");
        let stamp = Stamp { project: agent.clone(), run: RunId::from_uuid(Uuid::now_v7()) };
        let (seen, events) = unbounded_channel();
        let journal = Journal::open(&folder.join("decisions.db"), stamp, vec![seen]).expect("a journal");
        let log = InJournal(journal, agent.clone());
        Self { broker: broker(events), log, agent, last: AtomicU64::new(0) }
    }

    async fn one(&self) -> Duration {
        let call = self.last.fetch_add(1, Ordering::Relaxed);
        let reserved = Amounts::of_call(Money(1_000_000), 1_000);
        let begun = Instant::now();
        self.broker.admit(&self.agent, call, reserved).await.expect("it fits");
        let model = ModelName::from("lab/m".to_owned());
        let intent = EventKind::ModelAsked {
            call,
            asked: "lab/m".to_owned(),
            model,
            stream: true,
            bytes: 1_000,
            hash: "0".repeat(64),
            reserved,
        };
        self.log.record(intent).await;
        let took = begun.elapsed();
        let receipt = CallReceipt {
            outcome: CallOutcome::Completed,
            provider: "lab".to_owned(),
            model: "m".to_owned(),
            tokens: Tokens { input: Some(900), output: Some(90), ..Tokens::default() },
            cost: Cost::Exact { nano_usd: Money(900_000) },
            tries: 1,
            failed_tries: Vec::new(),
            batch: None,
            first_content_ms: Some(1),
            duration_ms: 2,
        };
        drop(self.log.record(EventKind::ModelAnswered { call, receipt: Box::new(receipt) }));
        took
    }

    /// How many in a second.
    async fn many(self: &Arc<Self>) -> f64 {
        let begun = Instant::now();
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..DECIDED_AT_ONCE {
            let gate = Arc::clone(self);
            all.spawn(async move {
                for _ in 0..DECISIONS / DECIDED_AT_ONCE {
                    gate.one().await;
                }
            });
        }
        all.join_all().await;
        DECISIONS as f64 / begun.elapsed().as_secs_f64()
    }
}

/// A provider that answers as the model's name says: `first` and `long` streams, `open` ones that go on, `plain` answers.
fn serve_provider() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("ours");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("ours");
            loop {
                let (stream, _) = listener.accept().await.expect("a client");
                tokio::spawn(answer_all(stream));
            }
        });
    });
    address
}

async fn answer_all(mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut kept = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut kept).await {
        if answer(&mut stream, &request).await.is_err() {
            return;
        }
    }
}

async fn read_request(stream: &mut TcpStream, kept: &mut Vec<u8>) -> Option<String> {
    loop {
        let text = String::from_utf8_lossy(kept).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            let length: usize = length.unwrap_or(0);
            if body.len() >= length {
                kept.drain(..head.len() + 4 + length);
                return Some(text);
            }
        }
        if stream.read_buf(kept).await.ok()? == 0 {
            return None;
        }
    }
}

async fn answer(stream: &mut TcpStream, request: &str) -> std::io::Result<()> {
    let has = |model: &str| request.contains(&format!("\"model\":\"{model}\""));
    if has("plain") {
        let body = r#"{"choices":[{"message":{"content":"word"}}],"usage":{"prompt_tokens":9,"completion_tokens":9}}"#;
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        return stream.write_all(format!("{head}{body}").as_bytes()).await;
    }
    stream
        .write_all(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
        )
        .await?;
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    if has("open") {
        loop {
            stream.write_all(chunk(FRAME).as_bytes()).await?;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
    let count = if has("long") { TOKENS } else { 1 };
    let frame = chunk(FRAME);
    // As a network brings them: some in one piece.
    for _ in 0..count.div_ceil(10) {
        stream.write_all(frame.repeat(count.min(10)).as_bytes()).await?;
    }
    stream.write_all(format!("{}0\r\n\r\n", chunk(LAST)).as_bytes()).await
}

fn serve_gateway(provider: SocketAddr, folder: &std::path::Path) -> (SocketAddr, Serving) {
    let name = Name::new("bench").expect("a label");
    let stamp = Stamp { project: name.clone(), run: RunId::from_uuid(Uuid::now_v7()) };
    let (seen, events) = unbounded_channel();
    let journal = Journal::open(&folder.join("journal.db"), stamp, vec![seen]).expect("a journal");
    let transport = Transport::Http { url: format!("http://{provider}"), key: None };
    let lab = Provider::new("lab".into(), vec![Wire::OpenAiChat], transport, None, Provider::SILENCE);
    let chain = vec![ModelName::from("lab/m".to_owned())];
    let providers = Providers::new(vec![lab], chain, Default::default(), PriceTable::default());
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("ours");
    let address = listener.local_addr().expect("bound");
    let port = Port {
        callers: None,
        batches: None,
        left: Vec::new(),
        stand_ins: Vec::new(),
        agent: name.clone(),
        // Each of them is to be a call.
        joins: false,
        secrets: Arc::default(),
        listener,
        key: Some(KEY.to_owned()),
        declared: Vec::new(),
        providers: Arc::new(Current::new(Arc::new(providers))),
        log: Arc::new(InJournal(journal, name.clone())),
        gate: Arc::new(Budgeted(broker(events), name)),
        hosts: Vec::new(),
        asks_hosts: false,
        rate: None,
    };
    let serving = Gateway::of_this_process().and_then(|gateway| gateway.serve(port)).expect("a gateway");
    (address, serving)
}

async fn ask(address: SocketAddr, model: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("somebody listens");
    let _ = stream.set_nodelay(true);
    send(&mut stream, model).await;
    stream
}

async fn send(stream: &mut TcpStream, model: &str) {
    let streams = model != "plain";
    let body = format!(
        "{{\"model\":\"{model}\",\"stream\":{streams},\"stream_options\":{{\"include_usage\":true}},\"messages\":[{{\"role\":\"user\",\"content\":\"hi\"}}]}}"
    );
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await.expect("a reader");
}

/// Reads until this text has come.
async fn until(stream: &mut TcpStream, text: &str) {
    let mut seen = Vec::new();
    loop {
        assert!(
            stream.read_buf(&mut seen).await.expect("an answer") > 0,
            "{}",
            String::from_utf8_lossy(&seen)
        );
        if String::from_utf8_lossy(&seen[seen.len().saturating_sub(70_000)..]).contains(text) {
            return;
        }
        if seen.len() > 1 << 20 {
            seen.drain(..seen.len() - 100);
        }
    }
}

/// Reads an answer whose head tells its length.
async fn whole_answer(stream: &mut TcpStream) {
    let mut seen = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&seen);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            assert!(head.starts_with("HTTP/1.1 200"), "{text}");
            let head = head.to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(usize::MAX) {
                return;
            }
        }
        assert!(
            stream.read_buf(&mut seen).await.expect("an answer") > 0,
            "{}",
            String::from_utf8_lossy(&seen)
        );
    }
}

async fn first_token(address: SocketAddr) -> Duration {
    let begun = Instant::now();
    let mut stream = ask(address, "first").await;
    until(&mut stream, "word").await;
    begun.elapsed()
}

async fn whole_stream(address: SocketAddr) -> Duration {
    let begun = Instant::now();
    let mut stream = ask(address, "long").await;
    until(&mut stream, "[DONE]").await;
    begun.elapsed()
}

/// Requests in a second, over connections that are kept.
async fn many_requests(address: SocketAddr) -> f64 {
    let begun = Instant::now();
    let clients = (0..AT_ONCE).map(|_| async move {
        let mut stream = ask(address, "plain").await;
        whole_answer(&mut stream).await;
        for _ in 1..REQUESTS / AT_ONCE {
            send(&mut stream, "plain").await;
            whole_answer(&mut stream).await;
        }
    });
    let clients: Vec<_> =
        clients.map(|client| Box::pin(client) as Pin<Box<dyn Future<Output = ()>>>).collect();
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            let all: Vec<_> = clients.into_iter().map(tokio::task::spawn_local).collect();
            for one in all {
                one.await.expect("a client");
            }
        })
        .await;
    REQUESTS as f64 / begun.elapsed().as_secs_f64()
}

/// MiB that the process has more with all of them open.
async fn memory_of_streams(address: SocketAddr) -> f64 {
    let before = resident();
    let mut open = Vec::with_capacity(STREAMS);
    for _ in 0..STREAMS {
        let mut stream = ask(address, "open").await;
        until(&mut stream, "word").await;
        open.push(stream);
    }
    resident() - before
}

fn resident() -> f64 {
    resident_of("self")
}

/// MiB that a process holds.
fn resident_of(pid: &str) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("proc");
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).expect("a figure");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).expect("KiB") / 1024.0
}
