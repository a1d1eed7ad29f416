//! `toka run` on a disk that is full or that cannot be written: what an agent does goes on, and what is lost is said.

mod models_support;

use std::ffi::OsString;

use toka_tests::{Document, Scene, User};

/// Runs these agents with a state folder of this size, in a mount namespace of the command's own.
fn on_a_disk_of(size: &str, scene: Scene) -> Scene {
    on_a_disk_with(&format!("size={size}"), scene)
}

/// The same with any options of the disk's.
fn on_a_disk_with(options: &str, scene: Scene) -> Scene {
    let state = scene.state().into_os_string();
    let mount = format!("mount -t tmpfs -o {options},mode=0755 none \"$1\"; shift; exec \"$@\"");
    let mut prefix: Vec<OsString> =
        ["unshare", "--mount", "/bin/sh", "-euc", &mount, "sh"].map(Into::into).to_vec();
    prefix.push(state);
    scene.prefix(prefix)
}

#[test]
fn an_agent_outlives_a_full_disk() {
    let Some(user) = User::root() else { return };
    for size in ["192k", "400k"] {
        let scene = on_a_disk_of(size, Scene::new(user));
        let finished = scene.toka_run(&[Document::shell("talker", "seq 1 300000; echo end")], &["--json"]);
        assert_eq!(finished.exit_of("talker")["code"], 0, "it was not disturbed: {finished:#?}");
        let warned = |event: &serde_json::Value| {
            event["type"] == "warning" && event["message"].as_str().is_some_and(|text| text.contains("lost"))
        };
        assert!(finished.events().iter().any(warned), "what is lost is said: {finished:#?}");
        let waits = |event: &serde_json::Value| {
            let message = event["message"].as_str().unwrap_or_default();
            message.contains("journal.db cannot be written: no space is left; events are kept in memory")
        };
        let said = finished.events().iter().filter(|event| waits(event)).count();
        assert_eq!(said, 1, "that the journal waits is said once: {finished:#?}");
        assert_eq!(finished.code, Some(0), "{finished:#?}");
        scene.assert_nothing_left();
    }
}

/// Nothing leaves whose intent is not on disk. What has left before the disk was full is answered, and its receipt is written when there is room again.
#[test]
fn calls_of_models_wait_for_the_disk_and_none_is_without_a_receipt() {
    let Some(user) = User::root() else { return };
    let scene = on_a_disk_of("2m", models_support::scene(user));
    // A dozen frames, so that the disk is full before the last.
    let words = "word ".repeat(12);
    scene.write(
        &scene.workspace().join("answers.script"),
        &format!("turns: [{{text: \"{words}\", delay: 50ms, usage: {{input: 7, output: 3}}}}]\n"),
    );
    let agent = models_support::asks(
        "asker",
        "import threading
def stream():
    request = urllib.request.Request(os.environ['ANTHROPIC_BASE_URL'] + '/v1/messages', headers={'x-api-key': os.environ['ANTHROPIC_API_KEY']},
        data=json.dumps({'model': 'default', 'max_tokens': 99, 'stream': True, 'messages': [{'role': 'user', 'content': 'before'}]}).encode())
    first.append(urllib.request.urlopen(request, timeout=20).read().decode())
room = os.path.join(os.environ['HOME'], 'room')
def fill():
    with open(room, 'wb', buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(b'x' * size)
            except OSError:
                pass
first = []
slow = threading.Thread(target=stream)
slow.start()
import time; time.sleep(0.2)
fill()
slow.join()
full = ask(text='while')
os.remove(room)
for _ in range(50):
    after = ask(text='after')
    if after.startswith('word'):
        break
is_so = 'message_stop' in first[0] and full.startswith('502') and 'nothing was sent' in full and after.startswith('word')
sys.exit(None if is_so else repr((first, full, after)))",
    );
    let finished = scene.toka_run(&[models_support::scripted(agent)], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let (asked, answered) = (finished.all("model_asked", "asker"), finished.all("model_answered", "asker"));
    let number = |event: &serde_json::Value| event["call"].clone();
    let (asked, ended): (Vec<_>, Vec<_>) =
        (asked.iter().map(number).collect(), answered.iter().map(number).collect());
    assert!(asked.iter().all(|call| ended.contains(call)), "each call has its end: {finished:#?}");
    let done = answered.iter().filter(|event| event["outcome"] == "completed").count();
    assert!(done >= 2, "before the disk was full and after it: {finished:#?}");
    scene.assert_nothing_left();
}

/// However little room there is: either all that is needed to start is there, or it is said that it is not.
#[test]
fn a_disk_that_is_full_at_the_start_is_73() {
    let Some(user) = User::root() else { return };
    let sizes = (1..=14).map(|sixteenths| format!("size={}k", sixteenths * 16));
    let counts = (4..=48).step_by(2).map(|files| format!("nr_inodes={files}"));
    let mut codes = Vec::new();
    for options in sizes.chain(counts) {
        let scene = on_a_disk_with(&options, Scene::new(user));
        let finished = scene.toka_run(&[Document::shell("one", "true")], &[]);
        assert!([Some(0), Some(73)].contains(&finished.code), "{options}: {finished:#?}");
        let named = finished.stderr.contains("No space left on device") && finished.stderr.contains("state");
        assert_eq!(finished.code == Some(73), named, "{options}: {finished:#?}");
        codes.push(finished.code);
    }
    assert!(codes.contains(&Some(0)) && codes.contains(&Some(73)), "{codes:?}");
}

#[test]
fn a_state_folder_on_a_read_only_disk_is_73() {
    let Some(user) = User::root() else { return };
    let scene = Scene::new(user);
    let mount = "mount -t tmpfs -o ro none \"$1\"; shift; exec \"$@\"";
    let mut prefix: Vec<OsString> =
        ["unshare", "--mount", "/bin/sh", "-euc", mount, "sh"].map(Into::into).to_vec();
    prefix.push(scene.state().into_os_string());
    let scene = scene.prefix(prefix);
    let finished = scene.toka_run(&[Document::shell("one", "true")], &[]);
    assert_eq!(finished.code, Some(73), "{finished:#?}");
    assert!(finished.stderr.contains("state"), "it names the folder: {finished:#?}");
    scene.assert_nothing_left();
}
