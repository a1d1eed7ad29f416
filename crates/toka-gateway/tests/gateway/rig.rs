//! A gateway with a client on one side and a provider on the other.

use std::future::Future;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use serde_json::Value;
use toka_core::{Amounts, CallReceipt, EventKind, Kept, ModelName, Name, Price, Wire};
use toka_gateway::script::Script;
use toka_gateway::{
    CallLog, Current, Gate, Gateway, Key, KnownSecrets, Port, Provider, Providers, Serving, Transport,
};
use toka_wire::PriceTable;

pub(crate) const PHANTOM: &str = "toka-phantom";
pub(crate) const WAIT: Duration = Duration::from_secs(20);

/// Keeps what is recorded, and lets others wait for it. As a gate it lets through what is kept for no more than `most`.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) events: Mutex<Vec<EventKind>>,
    pub(crate) more: Condvar,
    pub(crate) most: Mutex<Option<Amounts>>,
}

impl Gate for Log {
    fn admit(
        &self,
        _call: u64,
        asked: Amounts,
    ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'static>> {
        let most = *self.most.lock().expect("a log");
        let fits = most.is_none_or(|most| asked.money <= most.money && asked.tokens <= most.tokens);
        let answer = if fits { Ok(()) } else { Err(format!("{} tokens for {}", asked.tokens, asked.money)) };
        Box::pin(std::future::ready(answer))
    }

    fn admit_host(
        &self,
        _: String,
        _: u16,
    ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'static>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

impl CallLog for Log {
    fn record(&self, kind: EventKind) -> Pin<Box<dyn Future<Output = Kept> + Send + 'static>> {
        self.events.lock().expect("a log").push(kind);
        self.more.notify_all();
        Box::pin(std::future::ready(Kept::OnDisk))
    }
}

impl Log {
    /// Waits until there are so many of a kind.
    pub(crate) fn wait_for(&self, count: usize, is_it: impl Fn(&EventKind) -> bool) {
        let events = self.events.lock().expect("a log");
        let few = |events: &mut Vec<EventKind>| events.iter().filter(|kind| is_it(kind)).count() < count;
        let (events, late) = self.more.wait_timeout_while(events, WAIT, few).expect("a log");
        assert!(!late.timed_out(), "{events:?}");
    }

    /// How many there are of a kind.
    pub(crate) fn count(&self, is_it: impl Fn(&EventKind) -> bool) -> usize {
        self.events.lock().expect("a log").iter().filter(|kind| is_it(kind)).count()
    }

    /// The receipts, once there are so many.
    pub(crate) fn receipts(&self, count: usize) -> Vec<CallReceipt> {
        let of = |events: &Vec<EventKind>| -> Vec<CallReceipt> {
            let receipts = events.iter().filter_map(|event| match event {
                EventKind::ModelAnswered { receipt, .. } => Some(CallReceipt::clone(receipt)),
                _ => None,
            });
            receipts.collect()
        };
        let events = self.events.lock().expect("a log");
        let (events, late) =
            self.more.wait_timeout_while(events, WAIT, |events| of(events).len() < count).expect("a log");
        assert!(!late.timed_out(), "{events:?}");
        of(&events)
    }

    pub(crate) fn receipt(&self) -> CallReceipt {
        self.receipts(1).remove(0)
    }
}

pub(crate) struct Rig {
    pub(crate) address: SocketAddr,
    pub(crate) log: Arc<Log>,
    pub(crate) secrets: Arc<KnownSecrets>,
    _serving: Serving,
}

pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Rig {
    pub(crate) fn new(all: Vec<Provider>, chain: &[&str], declared: &[&str]) -> Self {
        Self::with(all, chain, declared, |_| {})
    }

    /// The same with a port that `change` has changed.
    pub(crate) fn with(
        all: Vec<Provider>,
        chain: &[&str],
        declared: &[&str],
        change: impl FnOnce(&mut Port),
    ) -> Self {
        let secrets = Arc::<KnownSecrets>::default();
        let names = |list: &[&str]| list.iter().map(|name| ModelName::from((*name).to_owned())).collect();
        let price = Price { input: 10.0, output: 100.0, batch: Some(0.5), ..Price::default() };
        let prices = PriceTable::new([("demo/m".to_owned(), price), ("lab/m".to_owned(), price)].into());
        let providers = Providers::new(all, names(chain), Default::default(), prices);
        let providers = Arc::new(Current::new(Arc::new(providers)));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("ours");
        let address = listener.local_addr().expect("an address");
        let log = Arc::new(Log::default());
        let mut port = Port {
            callers: None,
            batches: None,
            left: Vec::new(),
            stand_ins: Vec::new(),
            agent: Name::new("a").expect("a label"),
            joins: true,
            secrets: Arc::clone(&secrets),
            listener,
            key: Some(PHANTOM.to_owned()),
            declared: names(declared),
            providers,
            log: Arc::clone(&log) as Arc<dyn CallLog>,
            gate: Arc::clone(&log) as Arc<dyn Gate>,
            hosts: Vec::new(),
            asks_hosts: false,
            rate: None,
        };
        change(&mut port);
        let serving = Gateway::of_this_process().and_then(|gateway| gateway.serve(port)).expect("a gateway");
        Self { address, log, secrets, _serving: serving }
    }

    pub(crate) fn scripted(script: Value) -> Self {
        Self::new(vec![demo(script)], &["demo/m"], &[])
    }

    /// A provider over HTTP that answers each connection with these bytes.
    pub(crate) fn over_http(fake: &Fake) -> Self {
        Self::new(vec![lab(fake, Some("sk-real"))], &["lab/m"], &[])
    }

    pub(crate) fn send(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).expect("the port");
        stream.set_read_timeout(Some(WAIT)).expect("ours");
        stream.write_all(bytes).expect("a reader");
        stream
    }

    pub(crate) fn raw(&self, bytes: &[u8]) -> Reply {
        let mut stream = self.send(bytes);
        let mut answer = Vec::new();
        // Whoever is refused may be cut off after the answer.
        let _ = stream.read_to_end(&mut answer);
        let at = answer.windows(4).position(|four| four == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
        let head = String::from_utf8_lossy(&answer[..at]).into_owned();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        let body = if chunked { unchunked(&answer[at..]) } else { answer[at..].to_vec() };
        Reply { status, head, body }
    }

    pub(crate) fn ask(&self, path: &str, body: &Value) -> Reply {
        self.raw(&request(
            path,
            &[("authorization", &format!("Bearer {PHANTOM}"))],
            body.to_string().as_bytes(),
        ))
    }
}

pub(crate) fn request(path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut text = format!(
        "POST {path} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    [text.as_bytes(), b"\r\n", body].concat()
}

pub(crate) fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(at) = rest.windows(2).position(|two| two == b"\r\n") {
        let size = usize::from_str_radix(&String::from_utf8_lossy(&rest[..at]), 16).expect("a size");
        if size == 0 {
            break;
        }
        whole.extend_from_slice(&rest[at + 2..at + 2 + size]);
        rest = &rest[at + 4 + size..];
    }
    whole
}

pub(crate) fn demo(script: Value) -> Provider {
    let script: Script = serde_json::from_value(script).expect("a script");
    Provider::new(
        "demo".into(),
        Wire::ALL.to_vec(),
        Transport::Script(script),
        None,
        Duration::from_millis(300),
    )
}

pub(crate) fn lab(fake: &Fake, key: Option<&str>) -> Provider {
    let url = format!("http://{}", fake.address);
    let transport = Transport::Http { url, key: key.and_then(Key::new) };
    Provider::new("lab".into(), Wire::ALL.to_vec(), transport, None, Duration::from_secs(5))
}

/// A provider that reads a request, keeps it, and writes bytes.
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    pub(crate) heard: Arc<Mutex<Vec<Vec<u8>>>>,
    pub(crate) closed: Arc<(Mutex<bool>, Condvar)>,
}

/// What a provider does after its bytes.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum After {
    Closes,
    WaitsForTheClient,
}

impl Fake {
    pub(crate) fn new(answers: Vec<Vec<u8>>, after: After) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (heard, closed) =
            (Arc::<Mutex<Vec<Vec<u8>>>>::default(), Arc::<(Mutex<bool>, Condvar)>::default());
        let (keeps, tells) = (Arc::clone(&heard), Arc::clone(&closed));
        std::thread::spawn(move || {
            for answer in answers {
                let Ok((mut stream, _)) = listener.accept() else { return };
                let request = read_request(&mut stream);
                keeps.lock().expect("a list").push(request);
                let _ = stream.write_all(&answer);
                if after == After::WaitsForTheClient {
                    let _ = stream.read(&mut [0; 64]);
                    *tells.0.lock().expect("a flag") = true;
                    tells.1.notify_all();
                }
            }
        });
        Self { address, heard, closed }
    }

    pub(crate) fn request(&self) -> String {
        String::from_utf8_lossy(&self.heard.lock().expect("a list")[0]).into_owned()
    }
}

pub(crate) fn read_request(stream: &mut TcpStream) -> Vec<u8> {
    let (mut all, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let at = all.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(at) = at {
            let head = String::from_utf8_lossy(&all[..at]).to_ascii_lowercase();
            let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
            let length: usize = length.and_then(|length| length.parse().ok()).unwrap_or(0);
            if all.len() >= at + 4 + length {
                return all;
            }
        }
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return all,
            Ok(count) => all.extend_from_slice(&piece[..count]),
        }
    }
}

pub(crate) fn answer(status: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\nconnection: close\r\nx-request-id: r-1\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}
