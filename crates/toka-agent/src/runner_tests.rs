//! The runner against a daemon that speaks the true wire format over a real socket, with real children.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread;

use serde_json::{Value, json};
use tempfile::TempDir;
use toka_core::rpc::{RpcError, parse_call, reply_line};

use super::*;

/// What a run left behind.
struct Ran {
    outcome: Result<u8, RunnerError>,
    calls: Vec<Call>,
    stderr: String,
}

impl Ran {
    /// The exits that the daemon was told of.
    fn ends(&self) -> Vec<(usize, u32, Exit)> {
        let end = |call: &Call| match call {
            Call::TaskEnd(end) => Some((end.index, end.attempt, end.exit.clone())),
            _ => None,
        };
        self.calls.iter().filter_map(end).collect()
    }

    fn fractions(&self) -> Vec<f64> {
        let fraction = |call: &Call| match call {
            Call::Progress(progress) => progress.fraction,
            _ => None,
        };
        self.calls.iter().filter_map(fraction).collect()
    }
}

struct Scene {
    folder: TempDir,
    grace: Duration,
}

impl Scene {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder"), grace: GRACE }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }

    /// Runs `tasks` against a daemon that calls `on_call` before it answers; what that returns is the answer.
    fn run(
        &self,
        tasks: Value,
        mut on_call: impl FnMut(&Call, &SyncSender<Wake>) -> Result<Value, RpcError> + Send,
    ) -> Ran {
        let socket = self.folder.path().join("agent");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let (sender, wakes) = mpsc::sync_channel(WAITING);
        let daemon_sender = sender.clone();
        let mut stderr = Vec::new();
        let (outcome, calls) = thread::scope(|scope| {
            let daemon = scope.spawn(|| serve(&listener, &tasks, |call| on_call(call, &daemon_sender)));
            let outcome = self.runner(&socket, sender, wakes).run(&mut stderr);
            (outcome, daemon.join().expect("a daemon that does not panic"))
        });
        Ran { outcome, calls, stderr: String::from_utf8(stderr).expect("UTF-8") }
    }

    fn runner(&self, socket: &Path, sender: SyncSender<Wake>, wakes: Receiver<Wake>) -> Runner {
        let client = Client::connect(socket, Duration::from_secs(30)).expect("a connection");
        Runner {
            client,
            sender,
            wakes,
            grace: self.grace,
            worker: None,
            by_model: false,
            hands: Hands::default(),
            place: Place::default(),
            drained: None,
        }
    }
}

fn serve(
    listener: &UnixListener,
    tasks: &Value,
    mut on_call: impl FnMut(&Call) -> Result<Value, RpcError>,
) -> Vec<Call> {
    let (stream, _) = listener.accept().expect("a runner");
    let mut answers = stream.try_clone().expect("a second handle");
    let mut calls = Vec::new();
    for line in BufReader::new(stream).lines() {
        let incoming = parse_call(line.expect("a line").as_bytes()).expect("a correct call");
        let outcome = match &incoming.call {
            Call::TasksGet => Ok(json!({"tasks": tasks})),
            call => on_call(call),
        };
        if let Some(id) = incoming.id {
            answers.write_all(reply_line(&id, &outcome).as_bytes()).expect("an answer");
        }
        calls.push(incoming.call);
    }
    calls
}

fn agree(_: &Call, _: &SyncSender<Wake>) -> Result<Value, RpcError> {
    Ok(json!({}))
}

fn task(index: usize, run: &str) -> Value {
    json!({"index": index, "description": format!("Task {index}"), "run": run})
}

#[test]
fn tasks_run_in_the_order_given_and_progress_is_told() {
    let scene = Scene::new();
    let file = scene.path("out");
    let ran = scene.run(
        json!([task(2, &format!("echo two >> {file}")), task(0, &format!("echo zero >> {file}"))]),
        agree,
    );
    assert_eq!(ran.outcome.expect("an outcome"), 0);
    assert_eq!(scene.read("out"), "two\nzero\n");
    assert_eq!(ran.calls.first(), Some(&Call::TasksGet));
    let success = Exit::Code { code: 0 };
    let ends: Vec<_> = ran.calls.iter().filter(|call| matches!(call, Call::TaskEnd(_))).collect();
    assert_eq!(ends.len(), 2);
    assert!(
        matches!(ends[0], Call::TaskEnd(end) if end.index == 2 && end.attempt == 1 && end.exit == success)
    );
    assert_eq!(ran.stderr, "");
}

#[test]
fn fractions_are_tasks_done_of_all() {
    let ran = Scene::new().run(json!([task(0, "true"), task(1, "true")]), agree);
    assert_eq!(ran.fractions(), [0.0, 0.5, 1.0]);
    assert!(Scene::new().run(json!([]), agree).outcome.is_ok());
}

#[test]
fn nothing_runs_before_the_daemon_lets_it_in() {
    let scene = Scene::new();
    let (file, seen) = (scene.path("out"), scene.folder.path().join("out"));
    let ran = scene.run(json!([task(0, &format!("echo $$ > {file}"))]), |call, _| {
        assert_eq!(seen.exists(), matches!(call, Call::TaskEnd(_)) || is_last_progress(call), "{call:?}");
        Ok(json!({}))
    });
    let Some(Call::TaskEnter(enter)) = ran.calls.iter().find(|call| matches!(call, Call::TaskEnter(_)))
    else {
        panic!("{:?}", ran.calls)
    };
    assert_eq!(
        scene.read("out"),
        format!("{}\n", enter.pid.expect("a child")),
        "the process that was let in is the task itself"
    );
}

fn is_last_progress(call: &Call) -> bool {
    matches!(call, Call::Progress(progress) if progress.fraction == Some(1.0))
}

#[test]
fn a_failed_task_ends_the_agent() {
    let scene = Scene::new();
    let file = scene.path("never");
    let ran = scene.run(json!([task(0, "exit 3"), task(1, &format!("touch {file}"))]), agree);
    assert_eq!(ran.outcome.expect("an outcome"), 3);
    assert!(!Path::new(&file).exists());
    assert_eq!(
        ran.stderr,
        "toka: task 1 of 2, \"Task 0\", failed: exit code 3; the task after it was not run\n"
    );
}

#[test]
fn exits_are_told_apart() {
    for (run, exit, words) in [
        ("exit 4", Exit::Code { code: 4 }, "exit code 4"),
        ("no-such-program-at-all", Exit::Code { code: 127 }, "command not found"),
        ("kill -USR1 $$", Exit::Signal { signal: 10, core: false }, "killed by SIGUSR1"),
    ] {
        let ran = Scene::new().run(json!([task(0, run)]), agree);
        assert_eq!(ran.ends(), [(0, 1, exit)], "{run}");
        assert!(ran.stderr.contains(words), "{}", ran.stderr);
    }
}

#[test]
fn a_failed_attempt_is_tried_again() {
    let scene = Scene::new();
    let file = scene.path("tries");
    let mut again = task(0, &format!("echo x >> {file}; [ $(wc -l < {file}) -eq 3 ]"));
    again["retry"] = json!({"max_attempts": 5, "initial_ms": 1, "max_ms": 2, "multiplier": 2.0});
    let ran = scene.run(json!([again]), agree);
    assert_eq!(ran.outcome.as_ref().expect("an outcome"), &0);
    let attempts: Vec<_> =
        ran.ends().iter().map(|(_, attempt, exit)| (*attempt, exit.is_success())).collect();
    assert_eq!(attempts, [(1, false), (2, false), (3, true)]);
    assert_eq!(ran.stderr.lines().count(), 2);
    assert!(
        ran.stderr.contains("attempt 2 of \"Task 0\" failed: exit code 1; trying again in 2ms"),
        "{}",
        ran.stderr
    );
}

#[test]
fn attempts_end() {
    let mut again = task(0, "exit 1");
    again["retry"] = json!({"max_attempts": 3, "initial_ms": 1, "max_ms": 1, "multiplier": 1.0});
    let ran = Scene::new().run(json!([again]), agree);
    assert_eq!(ran.outcome.as_ref().expect("an outcome"), &1);
    assert_eq!(ran.ends().len(), 3);
    assert!(ran.stderr.contains("failed after 3 attempts: exit code 1"), "{}", ran.stderr);
}

#[test]
fn a_task_out_of_time_is_asked_to_end() {
    let scene = Scene::new();
    let file = scene.path("asked");
    let mut late = task(0, &format!("trap 'echo asked > {file}; exit 0' TERM; while :; do sleep 0.01; done"));
    late["timeout_ms"] = json!(800);
    let ran = scene.run(json!([late]), agree);
    let limit = Duration::from_millis(800);
    assert_eq!(ran.ends(), [(0, 1, Exit::Timeout { limit })]);
    assert_eq!(scene.read("asked"), "asked\n");
    assert_eq!(ran.stderr, "toka: task 1 of 1, \"Task 0\", failed: timed out after 800ms\n");
}

/// Runs one task that has `fifo` open for writing as its descriptor 8, and waits until no process holds it any more.
fn run_until_the_fifo_is_closed(run: &str, timeout_ms: Option<u64>) -> Ran {
    let scene = Scene { grace: Duration::from_millis(30), ..Scene::new() };
    let fifo = scene.path("fifo");
    nix::unistd::mkfifo(Path::new(&fifo), nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
    let mut task = task(0, &format!("exec 8> {fifo}; {run}"));
    task["timeout_ms"] = json!(timeout_ms);
    thread::scope(|scope| {
        let reader = scope.spawn(|| fs::read(&fifo).expect("the fifo's end"));
        let ran = scene.run(json!([task]), agree);
        reader.join().expect("a reader");
        ran
    })
}

#[test]
fn a_task_that_will_not_end_is_killed_with_its_children() {
    let ran = run_until_the_fifo_is_closed("trap '' TERM; sleep 1000 & wait", Some(200));
    assert_eq!(ran.ends(), [(0, 1, Exit::Timeout { limit: Duration::from_millis(200) })]);
    assert_eq!(ran.outcome.expect("an outcome"), 124);
}

#[test]
fn what_a_task_leaves_behind_is_killed() {
    let ran = run_until_the_fifo_is_closed("sleep 1000 & exit 0", None);
    assert_eq!(ran.outcome.expect("an outcome"), 0);
    assert!(ran.stderr.contains("left sleep running in the background: killed with it"), "{}", ran.stderr);
}

#[test]
fn a_stop_is_passed_on_and_the_rest_is_not_run() {
    let scene = Scene::new();
    let (fifo, asked, never) = (scene.path("fifo"), scene.path("asked"), scene.path("never"));
    nix::unistd::mkfifo(Path::new(&fifo), nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
    let run = format!("trap 'echo asked > {asked}; exit 5' TERM; : > {fifo}; while :; do sleep 0.01; done");
    let ran = thread::scope(|scope| {
        scene.run(json!([task(0, &run), task(1, &format!("touch {never}"))]), |call, wakes| {
            if matches!(call, Call::TaskEnter(_)) {
                let (wakes, fifo) = (wakes.clone(), fifo.clone());
                scope.spawn(move || {
                    fs::read(fifo).expect("the task is behind its trap");
                    wakes.send(Wake::Stop(Signal::SIGTERM)).expect("a runner");
                });
            }
            Ok(json!({}))
        })
    });
    assert!(matches!(ran.outcome, Err(RunnerError::Stopped(Signal::SIGTERM))), "{:?}", ran.outcome);
    assert_eq!(ran.ends(), [(0, 1, Exit::stopped("SIGTERM"))]);
    assert_eq!(scene.read("asked"), "asked\n");
    assert!(!Path::new(&never).exists());
}

#[test]
fn a_refused_entry_runs_nothing() {
    let scene = Scene::new();
    let file = scene.path("never");
    let ran = scene.run(json!([task(0, &format!("touch {file}"))]), |call, _| match call {
        Call::TaskEnter(_) => Err(RpcError::new(RpcError::REFUSED, "no such process here")),
        _ => Ok(json!({})),
    });
    let error = ran.outcome.expect_err("a refusal");
    assert_eq!(code_of(&error), ExitCode::NoDaemon);
    assert!(with_causes(&error).contains("no such process here"), "{}", with_causes(&error));
    assert!(!Path::new(&file).exists());
}

#[test]
fn a_task_for_a_model_is_never_a_silent_success() {
    let scene = Scene::new();
    let file = scene.path("never");
    let tasks = json!([task(0, &format!("touch {file}")), {"index": 1, "description": "Think", "run": null}]);
    let ran = scene.run(tasks, agree);
    let error = ran.outcome.expect_err("not configured");
    assert_eq!(code_of(&error), ExitCode::Unconfigured);
    assert!(with_causes(&error).contains("\"Think\""), "{}", with_causes(&error));
    assert!(!Path::new(&file).exists(), "nothing was begun that could not be finished");
}

#[test]
fn memory_that_ran_out_is_told() {
    let ran = Scene::new().run(json!([task(0, "kill -KILL $$")]), |call, _| match call {
        Call::TaskEnd(_) => Ok(json!({"usage": {"oom_kills": 1}})),
        _ => Ok(json!({})),
    });
    assert!(
        ran.stderr.contains("killed by SIGKILL, after the kernel ran out of memory for it"),
        "{}",
        ran.stderr
    );
}
