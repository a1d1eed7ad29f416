//! Agents whose calls go through a provider's batch interface, through whatever happens to their daemon: Anthropic's, as a server of this file
//! speaks it.

mod models_support;
mod survive_support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use models_support::{asks, cost, output, scene};
use serde_json::{Value, json};
use survive_support::{eventually, kill_daemon, serve_again, told};
use toka_tests::{Detached, Document, Scene, User, as_both_users};

as_both_users!(
    a_batch_outlives_a_killed_daemon,
    a_batch_outlives_an_upgrade,
    a_run_ends_with_its_batch,
    a_batch_is_given_up_with_its_agent,
);

const KEY: &str = "sk-lab-of-a-person";

/// A provider that is done with a batch when it is told so.
struct Provider {
    url: String,
    is_over: Arc<AtomicBool>,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Provider {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let (is_over, lines) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<String>>>::default());
        let (over, kept) = (Arc::clone(&is_over), Arc::clone(&lines));
        std::thread::spawn(move || {
            let mut asked: Vec<String> = Vec::new();
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                answer(stream, over.load(Ordering::SeqCst), &kept, &mut asked);
            }
        });
        Self { url, is_over, lines }
    }

    fn count(&self, line: &str) -> usize {
        self.lines.lock().expect("a list").iter().filter(|known| known.as_str() == line).count()
    }
}

fn answer(mut stream: TcpStream, is_over: bool, kept: &Mutex<Vec<String>>, asked: &mut Vec<String>) {
    let mut reader = BufReader::new(stream.try_clone().expect("a descriptor"));
    let (mut head, mut length) = (Vec::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        if let Some(told) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
            length = told.trim().parse().expect("a number");
        }
        if line.trim().is_empty() {
            break;
        }
        head.push(line.trim().to_owned());
    }
    let mut body = vec![0; length];
    if reader.read_exact(&mut body).is_err() || !head.iter().any(|line| line.ends_with(KEY)) {
        return;
    }
    let line = head[0].trim_end_matches(" HTTP/1.1").to_owned();
    kept.lock().expect("a list").push(line.clone());
    let status = if is_over { "ended" } else { "in_progress" };
    let whole = match line.as_str() {
        "POST /v1/messages/batches" => {
            let read: Value = serde_json::from_slice(&body).expect("JSON");
            let all = read["requests"].as_array().expect("a list").iter();
            *asked = all.map(|one| one["custom_id"].as_str().expect("a name").to_owned()).collect();
            json!({"id": "msgbatch_1", "type": "message_batch", "processing_status": "in_progress"})
                .to_string()
        }
        "GET /v1/messages/batches/msgbatch_1" => {
            json!({"id": "msgbatch_1", "processing_status": status}).to_string()
        }
        "GET /v1/messages/batches/msgbatch_1/results" => {
            let message = json!({"type": "message", "role": "assistant", "stop_reason": "end_turn",
                "content": [{"type": "text", "text": "the batch speaks"}], "usage": {"input_tokens": 7, "output_tokens": 3}});
            let line =
                |id: &String| json!({"custom_id": id, "result": {"type": "succeeded", "message": message}});
            asked.iter().map(|id| line(id).to_string() + "\n").collect()
        }
        _ => "{}".to_owned(),
    };
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", whole.len());
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(whole.as_bytes()));
}

/// A scene whose person has this provider.
fn scene_with(user: User, provider: &Provider) -> Scene {
    let scene = scene(user).env("LAB_KEY", KEY);
    let config = scene.home().join(".config/toka");
    scene.make_folder(&config);
    let url = &provider.url;
    let text = format!(
        "models:\n  use: [lab/m]\n  providers: {{lab: {{wire: anthropic, url: \"{url}\", key: {{env: LAB_KEY}}}}}}\n  prices: {{lab/m: {{input: 1, output: 2, batch: 0.5}}}}\n"
    );
    scene.write(&config.join("toka.yaml"), &text);
    scene
}

/// An agent that asks, and asks again when the connection is lost, as the clients of providers do.
fn patient() -> Document {
    let python = "import time
while True:
    try:
        print(ask(), flush=True)
        break
    except OSError:
        time.sleep(0.05)";
    asks("asker", python).spec("model: {use: [lab/m], batch: true}")
}

/// Begins to run it, and another one that keeps the run going.
fn begin(scene: &Scene) -> Detached<'_> {
    let detached = scene.adopt();
    let agents = [patient(), Document::service("keep", "sleep 600")];
    let begun = scene.toka_run(&agents, &["--detach", "--allow", "model-access"]);
    assert_eq!(begun.code, Some(0), "{begun:#?}");
    eventually("the batch is begun", || !told(&detached, "model_batched").is_empty());
    detached
}

/// The batch is begun; `happen` happens to the daemon; the batch ends, and the agent has its answer.
fn outlives(user: User, happen: impl FnOnce(&Scene)) {
    let provider = Provider::new();
    let scene = scene_with(user, &provider);
    let detached = begin(&scene);
    happen(&scene);
    provider.is_over.store(true, Ordering::SeqCst);
    eventually("it has its answer", || output(&scene, "asker") == "the batch speaks\n");
    assert_eq!(provider.count("POST /v1/messages/batches"), 1, "it is paid once");
    assert_eq!(provider.count("POST /v1/messages/batches/msgbatch_1/cancel"), 0);
    let answered = told(&detached, "model_answered");
    assert_eq!(answered.len(), 1, "{answered:#?}");
    assert_eq!((&answered[0]["outcome"], &answered[0]["batch"]), (&"completed".into(), &"msgbatch_1".into()));
    // Seven tokens at $1 and three at $2 a million, and half of that.
    assert_eq!(answered[0]["cost"]["nano_usd"], 6_500, "{answered:#?}");
    let sums = cost(&scene, &[]);
    assert_eq!((&sums["total"]["calls"], &sums["total"]["open"]), (&1.into(), &0.into()), "{sums}");
}

fn a_batch_outlives_a_killed_daemon(user: User) {
    outlives(user, |scene| {
        kill_daemon(scene);
        serve_again(scene);
    });
}

fn a_batch_outlives_an_upgrade(user: User) {
    outlives(user, |scene| {
        let upgraded = scene.toka(&["upgrade", "--project", scene.name()]);
        assert_eq!(upgraded.code, Some(0), "{upgraded:#?}");
    });
}

fn a_run_ends_with_its_batch(user: User) {
    let provider = Provider::new();
    provider.is_over.store(true, Ordering::SeqCst);
    let scene = scene_with(user, &provider);
    let finished = scene.toka_run(&[patient()], &["--json", "--allow", "model-access"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert_eq!(output(&scene, "asker"), "the batch speaks\n");
    let batched = finished.all("model_batched", "asker");
    assert_eq!((&batched[0]["batch"], &batched[0]["provider"]), (&"msgbatch_1".into(), &"lab".into()));
    assert!(!finished.stdout.contains(KEY));
    scene.assert_nothing_left();
}

fn a_batch_is_given_up_with_its_agent(user: User) {
    let provider = Provider::new();
    let scene = scene_with(user, &provider);
    let detached = begin(&scene);
    detached.toka(&["stop", "asker"]);
    eventually("its end is told", || {
        told(&detached, "model_answered")
            .iter()
            .any(|it| it["outcome"] == "cut" && it["batch"] == "msgbatch_1")
    });
    let cancel = "POST /v1/messages/batches/msgbatch_1/cancel";
    eventually("the provider is told", || provider.count(cancel) == 1);
}
