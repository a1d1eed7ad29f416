//! Agent programs that people use already, by preset: they work through tasks in words, and what they say becomes progress and outcome.
//!
//! The program is one of ours that speaks as Codex does: it reads Codex' configuration, asks its provider, and writes Codex' events.
//! `tests/clients.sh` runs the real ones.

use serde_json::Value;
use toka_tests::{Document, Finished, Scene, User, as_both_users};

as_both_users!(
    tasks_in_words_are_one_conversation_with_a_program,
    what_a_program_says_of_its_task_counts,
    a_program_asks_only_models_that_it_can_speak_with,
    a_program_that_is_not_there_is_told_with_how_it_is_installed,
    a_program_with_a_command_has_its_variables_and_files,
    a_conversation_that_is_lost_is_begun_anew,
    what_a_program_leaves_behind_holds_up_no_task,
    a_preset_opens_no_other_program_of_the_person,
);

const CODEX: &str = r#"#!/usr/bin/python3
import json, os, subprocess, sys, tomllib, urllib.request
def say(**event):
    print(json.dumps(event), flush=True)
with open(os.path.expanduser("~/.codex/config.toml"), "rb") as file:
    config = tomllib.load(file)
provider = config["model_providers"][config["model_provider"]]
argv = sys.argv[1:]
if "resume" in argv and os.path.exists("out/lost"):
    sys.exit("no rollout found")
say(type="thread.started", thread_id="t-1")
request = urllib.request.Request(
    provider["base_url"] + "/responses",
    data=json.dumps({"model": argv[argv.index("--model") + 1], "input": [{"role": "user", "content": argv[-1]}]}).encode(),
    headers={"authorization": "Bearer " + os.environ[provider["env_key"]], "content-type": "application/json"})
text = json.load(urllib.request.urlopen(request, timeout=20))["output"][0]["content"][0]["text"]
say(type="item.started", item={"type": "command_execution", "command": " ".join(argv[:-1])})
if text == "silence":
    sys.exit(0)
say(type="item.started", item={"type": "todo_list", "items": [{"text": "a", "completed": True}, {"text": "b", "completed": False}]})
say(type="item.completed", item={"type": "file_change", "changes": [{"path": os.getcwd() + "/out/note", "kind": "add"}]})
say(type="item.completed", item={"type": "agent_message", "text": text})
say(type="turn.completed", usage={})
if text == "flood":
    subprocess.Popen(["/usr/bin/setsid", "/usr/bin/yes"])
"#;

const ANSWERS: &str = r##"
conversations:
  - {when: "there is no ink", turns: [{text: "It is written."}]}
  - {when: "# Next task (3 of 3)", turns: [{text: "It is read.\nFAILED: is in no last paragraph.\n\nAll is well."}]}
  - {when: "Write a note", turns: [{text: "I looked.\n\nFAILED: there is no ink"}]}
  - {when: "Say nothing", turns: [{text: silence}]}
  - {when: "Flood it", turns: [{text: flood}]}
  - {when: "Begin", turns: [{text: "It is begun."}]}
"##;

/// A scene in which the user has installed the program as npm does.
fn scene(user: User) -> Scene {
    let scene = Scene::new(user);
    let tools = scene.home().join("tools");
    let package = tools.join("node_modules/@openai/codex/bin");
    scene.make_folder(&package);
    scene.make_folder(&tools.join("bin"));
    scene.write_program(&package.join("codex.py"), CODEX);
    std::os::unix::fs::symlink(package.join("codex.py"), tools.join("bin/codex")).expect("a link");
    scene.write(&scene.workspace().join("answers.script"), ANSWERS);
    let path = format!("{}:/usr/bin:/bin", tools.join("bin").display());
    scene.env("PATH", path)
}

fn codex(name: &str, tasks: &str) -> Document {
    Document::bare(name)
        .spec("process: {preset: codex}")
        .spec("model: {script: answers.script}")
        .section(tasks)
        .section("security: {capabilities_required: [filesystem-read, filesystem-write]}")
}

fn log(scene: &Scene, agent: &str) -> String {
    let log = scene.state().join("projects").join(scene.name()).join("agents").join(agent).join("log");
    std::fs::read_to_string(log).unwrap_or_default()
}

fn exits(finished: &Finished, agent: &str) -> Vec<Value> {
    finished.all("task_ended", agent).iter().map(|event| event["exit"].clone()).collect()
}

fn tasks_in_words_are_one_conversation_with_a_program(user: User) {
    let scene = scene(user);
    let tasks = "tasks: [{description: Write a note., retry: {max_attempts: 2, initial: 200ms}}, {description: Count, run: echo counted}, Read it.]";
    let finished = scene.toka_run(&[codex("writer", tasks)], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let ok = serde_json::json!({"cause": "code", "code": 0});
    let undone = serde_json::json!({"cause": "undone", "reason": "there is no ink"});
    assert_eq!(exits(&finished, "writer"), [undone, ok.clone(), ok.clone(), ok]);
    let log = log(&scene, "writer");
    // The first prompt begins the conversation; the second attempt and the third task go on with it.
    let begun: Vec<&str> = log.lines().filter(|line| line.starts_with("> exec: exec --json")).collect();
    assert_eq!(begun.len(), 3, "{log}");
    assert!(
        !begun[0].contains(" resume ") && begun[1..].iter().all(|line| line.ends_with(" resume t-1")),
        "{log}"
    );
    assert!(log.contains("> edit: out/note\n") && log.contains("counted\n"), "{log}");
    // Half of the first of three tasks, by the program's own plan: what a program said last is told when it has ended, too.
    let fractions: Vec<f64> =
        finished.all("progress", "writer").iter().filter_map(|event| event["fraction"].as_f64()).collect();
    assert!(fractions.contains(&(1.0 / 6.0)) && fractions.last() == Some(&1.0), "{fractions:?}");
    assert!(scene.artifact("writer", "codex.events").contains(r#""type": "todo_list""#));
    assert_eq!(finished.all("model_answered", "writer").len(), 3, "{finished:#?}");
    scene.assert_nothing_left();
}

fn what_a_program_says_of_its_task_counts(user: User) {
    let scene = scene(user);
    let finished = scene.toka_run(&[codex("silent", "tasks: [Say nothing., Write a note.]")], &["--json"]);
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    assert_eq!(
        exits(&finished, "silent"),
        [serde_json::json!({"cause": "undone", "reason": "the program ended without a result"})]
    );
    let log = log(&scene, "silent");
    assert!(
        log.contains("not done: the program ended without a result; the task after it was not run"),
        "{log}"
    );
    scene.assert_nothing_left();
}

fn a_program_asks_only_models_that_it_can_speak_with(user: User) {
    let scene = scene(user).env("ANTHROPIC_API_KEY", "sk-test-nothing");
    let document = codex("wrong", "tasks: [Write a note.]")
        .replaced("{script: answers.script}", "anthropic/claude-sonnet-4-5");
    let finished = scene.toka_run(&[document], &["--allow", "model-access"]);
    assert_eq!(finished.code, Some(78), "{finished:#?}");
    assert!(
        finished.stderr.contains("Codex speaks openai-responses, and the provider of the model anthropic/claude-sonnet-4-5 does not"),
        "{finished:#?}"
    );
    assert!(finished.stderr.contains("such as openai/gpt-5"), "{finished:#?}");
}

fn a_program_that_is_not_there_is_told_with_how_it_is_installed(user: User) {
    let scene = scene(user).env("PATH", "/usr/bin:/bin");
    let finished = scene.toka_run(&[codex("absent", "tasks: [Write a note.]")], &[]);
    assert_eq!(finished.code, Some(65), "{finished:#?}");
    assert!(finished.stderr.contains("install it: npm install -g @openai/codex"), "{finished:#?}");
}

fn a_program_with_a_command_has_its_variables_and_files(user: User) {
    let scene = scene(user);
    let document = codex("by-hand", "tasks: [Write a note.]").replaced(
        "{preset: codex}",
        "{preset: codex, command: [codex, exec, --model, scripted, Say nothing.], environment: {CODEX_HOME: /x}}",
    );
    let finished = scene.toka_run(&[document], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert!(log(&scene, "by-hand").contains(r#""thread_id": "t-1""#), "its events are its own");
    assert_eq!(finished.all("task_ended", "by-hand").len(), 0);
    assert_eq!(finished.all("model_answered", "by-hand").len(), 1);
    scene.assert_nothing_left();
}

fn a_conversation_that_is_lost_is_begun_anew(user: User) {
    let scene = scene(user);
    let tasks = "tasks: [Begin., {description: Lose it, run: touch out/lost}, {description: Begin again., retry: {max_attempts: 2, initial: 10ms}}]";
    let finished = scene.toka_run(&[codex("forgetful", tasks)], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let (ok, lost) =
        (serde_json::json!({"cause": "code", "code": 0}), serde_json::json!({"cause": "code", "code": 1}));
    assert_eq!(exits(&finished, "forgetful"), [ok.clone(), ok.clone(), lost, ok]);
    assert!(log(&scene, "forgetful").contains("no rollout found"));
}

/// The output of the program is at its end two seconds after it, whoever writes on; else the agent's own timeout would end it.
fn what_a_program_leaves_behind_holds_up_no_task(user: User) {
    let scene = scene(user);
    let document = codex("loud", "tasks: [Flood it., Begin.]");
    let finished = scene.toka_run(&[document], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert_eq!(exits(&finished, "loud").len(), 2, "{finished:#?}");
    scene.assert_nothing_left();
}

/// What lies beside a known program in the person's folders is granted by a person, whatever preset is named.
fn a_preset_opens_no_other_program_of_the_person(user: User) {
    let scene = scene(user);
    scene.write_program(&scene.home().join("tools/bin/deploy"), "#!/bin/sh\necho deployed\n");
    let document = codex("sly", "tasks: [Write a note.]")
        .replaced("{preset: codex}", "{preset: codex, command: [deploy]}");
    let finished = scene.toka_run(&[document], &[]);
    assert_eq!(finished.code, Some(65), "{finished:#?}");
    assert!(finished.stderr.contains("there is no program \"deploy\""), "{finished:#?}");
}
