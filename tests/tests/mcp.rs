//! Servers of tools that speak the Model Context Protocol: they run in the agent's sandbox, and end with the attempt.

mod models_support;

use models_support::output;
use serde_json::Value;
use toka_tests::{Document, Scene, User, as_both_users, processes_with};

as_both_users!(
    a_model_uses_the_tools_of_a_server,
    a_server_reaches_what_the_agent_reaches_and_leaves_nothing,
    a_server_that_floods_lies_or_dies_costs_its_call_alone,
    a_server_that_does_not_serve_is_said,
    rules_hold_for_the_tools_of_servers,
    what_makes_no_sense_in_a_declaration_is_said,
);

/// A server whose tools do what they are told. It speaks the protocol by hand: nothing of Toka's own is on its side.
const SERVER: &str = r#"
import json, os, subprocess, sys

TOOLS = [
    {"name": "add", "description": "Adds.", "inputSchema": {"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}}}},
    {"name": "look", "description": "Reads a file.", "inputSchema": {"type": "object", "properties": {"path": {"type": "string"}}}},
    {"name": "spawn", "description": "Starts something.", "inputSchema": {"type": "object"}},
    {"name": "flood", "description": "Says too much.", "inputSchema": {"type": "object"}},
    {"name": "nonsense", "description": "Says what is no JSON.", "inputSchema": {"type": "object"}},
    {"name": "die", "description": "Ends.", "inputSchema": {"type": "object"}},
    {"name": "wipe", "description": "Wipes.", "inputSchema": {"type": "object"}, "annotations": {"destructiveHint": True}},
    {"name": "wrong", "description": "Has no arguments that make sense.", "inputSchema": {"type": "string"}},
]

def send(message):
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()

def text(words, error=False):
    return {"content": [{"type": "text", "text": words}], "isError": error}

def call(name, given):
    if name == "add":
        return text(str(given["a"] + given["b"]))
    if name == "look":
        try:
            return text(open(os.path.expanduser(given["path"])).read())
        except OSError as error:
            return text(str(error), True)
    if name == "spawn":
        subprocess.Popen(["sleep", given["marker"]], start_new_session=True)
        return text("started")
    if name == "flood":
        return text("x" * given["bytes"])
    if name == "nonsense":
        sys.stdout.write("this is no message\n\x00\xff\n")
        return text("after it")
    if name == "die":
        sys.stderr.write("out of patience\n")
        sys.exit(3)
    return text("wiped")

for line in sys.stdin:
    message = json.loads(line)
    method, number = message.get("method"), message.get("id")
    if number is None:
        continue
    if method == "initialize":
        version = message["params"]["protocolVersion"]
        send({"jsonrpc": "2.0", "id": number, "result": {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": {"name": "hands", "version": "1"}}})
    elif method == "tools/list":
        # In two pages.
        cursor = (message.get("params") or {}).get("cursor")
        page = {"tools": TOOLS[:3], "nextCursor": "more"} if cursor is None else {"tools": TOOLS[3:]}
        send({"jsonrpc": "2.0", "id": number, "result": page})
    elif method == "tools/call":
        params = message["params"]
        send({"jsonrpc": "2.0", "id": number, "result": call(params["name"], params.get("arguments") or {})})
    else:
        send({"jsonrpc": "2.0", "id": number, "error": {"code": -32601, "message": "no such method"}})
"#;

/// An agent with the server `hands`, and what its model wants.
fn agent(scene: &Scene, calls: &str, more: &str) -> Document {
    scene.write(&scene.workspace().join("server.py"), SERVER);
    scene.write(&scene.workspace().join("uses.script"), calls);
    Document::bare("uses")
        .spec("model: {script: uses.script}")
        .spec("mcp: {hands: {command: [python3, -u, server.py]}}")
        .spec(more)
        .section("tasks: {default: [Use the tools.]}")
        .section("security: {capabilities_required: [filesystem-read, filesystem-write]}")
}

fn transcript(scene: &Scene) -> Vec<Value> {
    let shown = scene.toka(&["sessions", "show", "uses", "--json", "--project", scene.name()]);
    assert_eq!(shown.code, Some(0), "{shown:#?}");
    shown.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn results(scene: &Scene) -> Vec<String> {
    let lines = transcript(scene);
    let results = lines.iter().filter(|line| line["type"] == "result");
    results.map(|line| line["text"].as_str().expect("a text").to_owned()).collect()
}

fn a_model_uses_the_tools_of_a_server(user: User) {
    let scene = Scene::new(user);
    let calls = "turns:\n  - tools: [{name: mcp__hands__add, arguments: {a: 2, b: 40}}, {name: mcp__hands__fly, arguments: {}}]\n    expect: mcp__hands__wipe\n  - {text: Done., expect: '42'}\n";
    let finished = scene.toka_run(&[agent(&scene, calls, "priority: medium")], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let given = results(&scene);
    assert_eq!(given[0], "42");
    assert!(given[1].starts_with("there is no tool \"mcp__hands__fly\""), "{given:#?}");
    let told = finished.all("tool_call_start", "uses");
    assert_eq!(
        (told.len(), &told[0]["about"], &told[0]["risk"]),
        (1, &"{\"a\":2,\"b\":40}".into(), &"medium".into())
    );
    assert!(output(&scene, "uses").contains("> mcp__hands__add: {\"a\":2,\"b\":40}"));
    let tools = transcript(&scene)[0]["tools"].to_string();
    assert!(tools.contains("mcp__hands__die") && !tools.contains("mcp__hands__wrong"), "{tools}");
    let replayed = scene.toka(&["sessions", "replay", "uses", "--project", scene.name()]);
    assert_eq!(replayed.code, Some(0), "{replayed:#?}");
    scene.assert_nothing_left();
}

fn a_server_reaches_what_the_agent_reaches_and_leaves_nothing(user: User) {
    let scene = Scene::new(user);
    let marker = format!("8{}", std::process::id());
    scene.write(&scene.workspace().join("inside"), "of the workspace");
    scene.write(&scene.outside().join("outside"), "of nobody");
    let outside = scene.outside().join("outside");
    let calls = format!(
        "turns:\n  - tools:\n      - {{name: mcp__hands__look, arguments: {{path: inside}}}}\n      - {{name: mcp__hands__look, arguments: {{path: {}}}}}\n      \
         - {{name: mcp__hands__look, arguments: {{path: /proc/1/environ}}}}\n      - {{name: mcp__hands__spawn, arguments: {{marker: '{marker}'}}}}\n  - text: Done.\n",
        outside.display()
    );
    let finished = scene.toka_run(&[agent(&scene, &calls, "priority: medium")], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let given = results(&scene);
    assert_eq!(given[0], "of the workspace");
    assert!(given[1].contains("No such file") || given[1].contains("Permission denied"), "{given:#?}");
    assert!(!given[2].contains("PASSWORD"), "{given:#?}");
    assert_eq!(given[3], "started");
    assert!(processes_with(&marker).is_empty(), "one kill ends all that it started");
    scene.assert_nothing_left();
}

fn a_server_that_floods_lies_or_dies_costs_its_call_alone(user: User) {
    let scene = Scene::new(user);
    let calls = "turns:\n  - tools:\n      - {name: mcp__hands__flood, arguments: {bytes: 300000}}\n      - {name: mcp__hands__nonsense, arguments: {}}\n      \
                 - {name: mcp__hands__die, arguments: {}}\n      - {name: mcp__hands__add, arguments: {a: 1, b: 1}}\n      - {name: exec, arguments: {command: echo on}}\n  - {text: Done., expect: exit code 0}\n";
    let finished = scene.toka_run(&[agent(&scene, calls, "priority: medium")], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let given = results(&scene);
    assert!(given[0].contains("are left out") && given[0].len() < 100_000, "{}", given[0].len());
    assert_eq!(given[1], "after it");
    assert!(
        given[2].contains("the server hands gives no answer") && given[2].contains("out of patience"),
        "{given:#?}"
    );
    assert!(given[3].contains("the server hands gives no answer"), "{given:#?}");
    assert!(given[4].contains("on"), "{given:#?}");
    let whole = transcript(&scene)
        .iter()
        .find(|line| line["whole"].is_string())
        .cloned()
        .expect("one that is kept whole");
    assert!(whole["text"].as_str().is_some_and(|text| text.len() < 100_000));
}

fn a_server_that_does_not_serve_is_said(user: User) {
    let scene = Scene::new(user);
    let agent = |command: &str| {
        scene.write(&scene.workspace().join("uses.script"), "turns: [{text: Done.}]");
        Document::bare("uses")
            .spec("model: {script: uses.script}")
            .spec(&format!("mcp: {{hands: {{command: {command}}}}}"))
            .section("tasks: {default: [Use the tools.]}")
            .section("security: {capabilities_required: [filesystem-read]}")
    };
    for (command, why) in [
        ("[no-such-server]", "no-such-server: not found"),
        (
            "[sh, -c, 'echo I am sorry >&2; exit 4']",
            "it ended before it had told its tools; it says: I am sorry",
        ),
    ] {
        let finished = scene.toka_run(&[agent(command)], &["--json"]);
        assert_eq!(finished.code, Some(1), "{finished:#?}");
        let reason = finished.exit_of("uses")["reason"].to_string();
        assert!(reason.contains("the MCP server hands does not serve") && reason.contains(why), "{reason}");
    }
    scene.assert_nothing_left();
}

fn rules_hold_for_the_tools_of_servers(user: User) {
    let scene = Scene::new(user);
    let calls = "turns:\n  - tools: [{name: mcp__hands__add, arguments: {a: 1, b: 1}}, {name: mcp__hands__look, arguments: {path: x}}]\n  - text: Done.\n";
    let finished = scene.toka_run(&[agent(&scene, calls, "tools: {deny: ['mcp__hands__l*']}")], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let given = results(&scene);
    assert!(given[0] == "2" && given[1].starts_with("there is no tool"), "{given:#?}");
    let minimal = scene.toka_run(&[agent(&scene, calls, "tools: minimal")], &["--json"]);
    assert_eq!(minimal.code, Some(0), "{minimal:#?}");
    assert!(results(&scene)[0].starts_with("there is no tool"), "a profile that only looks has no servers");
    // What a server says is dangerous is asked about.
    let calls = "turns:\n  - tools: [{name: mcp__hands__wipe, arguments: {}}]\n  - text: Done.\n";
    let detached = scene.detach(&[agent(&scene, calls, "autonomy: semi")]);
    let waits = toka_tests::until(std::time::Duration::from_secs(30), "a question", || {
        let listed = detached.toka(&["approvals", "--json"]).stdout;
        serde_json::from_str::<Vec<Value>>(&listed).ok()?.first().cloned()
    });
    assert_eq!((&waits["tool"], &waits["risk"]), (&"mcp__hands__wipe".into(), &"high".into()));
}

fn what_makes_no_sense_in_a_declaration_is_said(user: User) {
    let scene = Scene::new(user);
    for (mcp, why) in [
        ("[docs]", "a map of names and servers"),
        ("{Docs: {command: [x]}}", "cannot be the name of a server of tools"),
        ("{docs: {url: 'https://example.org'}}", "url"),
        ("{docs: {}}", "the server has no `command`"),
    ] {
        let agent = Document::bare("uses")
            .spec("model: default")
            .spec(&format!("mcp: {mcp}"))
            .section("tasks: {default: [x]}");
        let refused = scene.toka_run(&[agent], &["--dry-run"]);
        assert!(refused.code == Some(65) && refused.stderr.contains(why), "{mcp}: {refused:#?}");
    }
    let program =
        Document::bare("uses").spec("process: {command: ['true']}").spec("mcp: {docs: {command: [x]}}");
    let warned = scene.toka_run(&[program], &["--dry-run"]);
    assert!(warned.stderr.contains("`mcp` has no effect"), "{warned:#?}");
}
