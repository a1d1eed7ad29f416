//! Agents that ask models, for the tests that are about that.
#![allow(dead_code, reason = "no test file uses all of it")]

use serde_json::Value;
use toka_tests::{Document, Scene, User};

/// What an agent runs to ask for one answer: it prints the text, or the status.
pub(crate) const ASK: &str = r#"
import json, os, sys, urllib.error, urllib.request
def ask(base=None, key=None, model="default", text="hi"):
    request = urllib.request.Request(
        (base or os.environ["ANTHROPIC_BASE_URL"]) + "/v1/messages",
        data=json.dumps({"model": model, "max_tokens": 9, "messages": [{"role": "user", "content": text}]}).encode(),
        headers={"x-api-key": key or os.environ["ANTHROPIC_API_KEY"], "anthropic-version": "2023-06-01"})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)["content"][0]["text"]
    except urllib.error.HTTPError as error:
        return "%d %s" % (error.code, error.read().decode())
"#;

pub(crate) const ANSWERS: &str = "turns: [{text: the script speaks, usage: {input: 7, output: 3}}]\n";

pub(crate) const READS: &str = "security: {capabilities_required: [filesystem-read]}";

/// A scene whose workspace has the program and a script.
pub(crate) fn scene(user: User) -> Scene {
    let scene = Scene::new(user);
    scene.write(&scene.workspace().join("ask.py"), ASK);
    scene.write(&scene.workspace().join("answers.script"), ANSWERS);
    scene
}

/// Makes the script of [`scene`] speak slowly: 600 words, with 100 ms between two frames.
pub(crate) fn speak_slowly(scene: &Scene) {
    let words = "word ".repeat(600);
    scene.write(
        &scene.workspace().join("answers.script"),
        &format!("turns: [{{text: \"{words}\", delay: 100ms}}]\n"),
    );
}

/// An agent that runs some Python after [`ASK`].
pub(crate) fn asks(name: &str, python: &str) -> Document {
    asks_within(name, python, READS)
}

/// The same with a section of its own for its walls.
pub(crate) fn asks_within(name: &str, python: &str, security: &str) -> Document {
    let program = format!("import sys; sys.path.insert(0, '.'); from ask import *\n{python}");
    Document::command(name, &["/usr/bin/python3", "-B", "-c", &program]).section(security)
}

pub(crate) fn scripted(document: Document) -> Document {
    document.spec("model: {script: answers.script}")
}

pub(crate) fn output(scene: &Scene, agent: &str) -> String {
    let log = scene.state().join("projects").join(scene.name()).join("agents").join(agent).join("log");
    std::fs::read_to_string(log).unwrap_or_default()
}

pub(crate) fn cost(scene: &Scene, words: &[&str]) -> Value {
    let project = scene.name().to_owned();
    let all = [&["cost", "--json", "--project", &project], words].concat();
    let finished = scene.toka(&all);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    serde_json::from_str(&finished.stdout).expect("JSON")
}
