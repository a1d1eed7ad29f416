//! `toka chat`: a person talks to a model that has tools, in lines or on a terminal. The model is a script; what it wants done is really done.

mod models_support;
mod survive_support;

use std::time::Duration;

use serde_json::Value;
use survive_support::{eventually, kill_daemon, serve_again, told};
use toka_tests::{
    Document, Finished, OnTerminal, Reading, Scene, User, as_both_users, processes_with, toka_binary, until,
};

as_both_users!(
    what_is_said_is_answered_and_gone_on_with,
    on_a_terminal_keys_interrupt_and_a_line_is_heard_meanwhile,
    a_key_answers_what_waits_for_a_person,
    a_turn_that_fails_is_told_and_the_next_is_heard,
    a_conversation_outlives_its_daemon,
    tasks_come_first_and_then_a_person,
    a_session_is_forked_with_all_that_was_said,
    whom_nobody_can_talk_to_is_said,
    what_is_looked_at_holds_no_secret,
    a_line_that_was_begun_before_a_question_is_no_answer_to_it,
    who_comes_later_is_asked_what_waits,
    a_fork_is_not_the_session_of_a_life,
    nobody_waits_for_one_that_does_not_hear,
);

const DEADLINE: Duration = Duration::from_secs(30);

fn script(scene: &Scene, turns: &str) {
    scene.write(&scene.workspace().join("talk.script"), turns);
}

/// Says these, one after the other, to an agent of its own.
fn say(scene: &Scene, options: &[&str], texts: &[&str]) -> Finished {
    let mut words = vec!["chat", "--script", "talk.script"];
    words.extend(options);
    texts.iter().for_each(|text| words.extend(["-m", text]));
    scene.toka(&words)
}

/// An agent that a person may talk to, with this more in its `spec`.
fn talker(more: &str) -> Document {
    Document::bare("talker")
        .spec("chat: true")
        .spec("model: {script: talk.script}")
        .spec(more)
        .section("security: {capabilities_required: [filesystem-read, filesystem-write]}")
}

fn transcript(scene: &Scene, session: &str) -> Vec<Value> {
    let shown = scene.toka(&["sessions", "show", session, "--json", "--project", scene.name()]);
    assert_eq!(shown.code, Some(0), "{shown:#?}");
    shown.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn texts(lines: &[Value], kind: &str) -> Vec<String> {
    let of = lines.iter().filter(|line| line["type"] == kind);
    of.map(|line| line["text"].as_str().expect("a text").to_owned()).collect()
}

struct Chat(OnTerminal);

impl Chat {
    fn begin(scene: &Scene, words: &[&str]) -> Self {
        let mut line = vec![toka_binary().into(), "chat".into(), "--state-dir".into(), scene.state().into()];
        line.extend(words.iter().map(Into::into));
        Self(OnTerminal::start(scene, &line, Reading::Going))
    }

    fn sees(&self, text: &str) {
        until(DEADLINE, text, || self.shown().contains(text).then_some(()));
    }

    /// Waits until keys are read that answer this.
    fn is_offered_after(&self, text: &str, how: &str) {
        until(DEADLINE, text, || {
            let shown = self.shown();
            let at = shown.find(text)?;
            shown[at..].contains(how).then_some(())
        });
    }

    /// Waits until it can be typed after this was shown.
    fn is_asked_after(&self, text: &str) {
        until(DEADLINE, text, || {
            let shown = self.shown();
            let at = shown.find(text)?;
            shown[at..].contains("> ").then_some(())
        });
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.0.written()).into_owned()
    }
}

fn what_is_said_is_answered_and_gone_on_with(user: User) {
    let scene = Scene::new(user);
    scene.write(&scene.workspace().join("AGENTS.md"), "Speak plainly.\n");
    script(
        &scene,
        r#"
turns:
  - text: "I write it."
    tools: [{name: exec, arguments: {command: "echo one > a; echo seen"}}]
  - text: "It is written: \u001b[2J."
  - text: "And read:"
    tools: [{name: read, arguments: {path: a}}]
  - {text: "It says one.", expect: "And read:"}
  - {text: "As I said.", expect: "read it, please"}
"#,
    );
    let said = say(&scene, &[], &["write it", "read it, please"]);
    assert_eq!(said.code, Some(0), "{said:#?}");
    let expected = [
        "> write it",
        "I write it.",
        "● exec echo one > a; echo seen",
        "  │ seen",
        "It is written: \u{fffd}[2J.",
        "> read it, please",
        "And read:",
        "● read a",
        "It says one.",
    ];
    let mut lines = said.stdout.lines();
    for expected in expected {
        assert!(lines.any(|line| line == expected), "{expected} in {said:#?}");
    }
    assert_eq!(std::fs::read_to_string(scene.workspace().join("a")).expect("a file"), "one\n");
    let again = say(&scene, &["--continue"], &["what was it?"]);
    assert!(again.code == Some(0) && again.stdout.contains("As I said."), "{again:#?}");
    assert!(again.stdout.contains("> write it"), "what was said before is shown: {again:#?}");
    let (first, second) =
        (transcript(&scene, "agent:assistant:chat:1"), transcript(&scene, "agent:assistant:chat:2"));
    assert!(
        first[0]["system"]
            .as_str()
            .is_some_and(|text| text.contains("works with a person") && text.contains("Speak plainly.")),
        "{}",
        first[0]
    );
    assert_eq!(second[0]["from"]["session"], "agent:assistant:chat:1");
    assert_eq!(first[1..], second[1..first.len()], "what was said is the same, with the same numbers");
    assert_eq!(texts(&second, "person"), ["write it", "read it, please", "what was it?"]);
    for (key, words) in [
        ("agent:assistant:chat:1", "4 requests, 2 calls: all as they were"),
        (
            "agent:assistant:chat:2",
            "1 request, 2 calls: all as they were; 4 requests of the session that it goes on with",
        ),
    ] {
        let replayed = scene.toka(&["sessions", "replay", key, "--project", scene.name()]);
        assert!(replayed.code == Some(0) && replayed.stdout.contains(words), "{replayed:#?}");
    }
    scene.assert_nothing_left();
}

fn on_a_terminal_keys_interrupt_and_a_line_is_heard_meanwhile(user: User) {
    let scene = Scene::new(user);
    let until_it_is_there = "touch waits; while [ ! -e go ]; do sleep 0.01; done";
    let marker = format!("7{}", std::process::id());
    script(
        &scene,
        &format!(
            r#"
turns:
  - tools: [{{name: exec, arguments: {{command: "{until_it_is_there}"}}}}]
  - {{text: "I have heard it.", expect: "and be quick"}}
  - tools: [{{name: exec, arguments: {{command: "sleep {marker}"}}}}]
  - {{text: "Never mind.", expect: "interrupted"}}
"#
        ),
    );
    let mut chat = Chat::begin(&scene, &["--script", "talk.script"]);
    chat.is_asked_after("Ctrl-D ends");
    chat.0.press("begin\r");
    eventually("it is at work", || scene.workspace().join("waits").exists());
    chat.sees("●");
    chat.0.press("and be quick\r");
    eventually("it is on record", || texts(&transcript(&scene, "assistant"), "person").len() == 2);
    scene.write(&scene.workspace().join("go"), "");
    chat.is_asked_after("I have heard it.");
    chat.0.press("now sleep\r");
    eventually("it sleeps", || !processes_with(&marker).is_empty());
    chat.0.press("\u{1b}");
    chat.is_asked_after("perhaps done: a person has interrupted while this ran");
    assert!(processes_with(&marker).is_empty(), "what ran was killed");
    chat.0.press("go on\r");
    chat.is_asked_after("Never mind.");
    chat.0.press("/nonsense\r");
    chat.sees("there is no /nonsense");
    chat.0.press("\u{4}");
    assert!(chat.0.wait().success());
    chat.sees("toka chat --continue");
    scene.assert_nothing_left();
}

fn a_key_answers_what_waits_for_a_person(user: User) {
    let scene = Scene::new(user);
    script(
        &scene,
        r#"
turns:
  - tools: [{name: exec, arguments: {command: "echo yes > yes"}}, {name: exec, arguments: {command: "echo no > no"}}]
  - {tools: [{name: ask, arguments: {question: "And now?", options: [stop, go on]}}], expect: "has not allowed it"}
  - {tools: [{name: ask, arguments: {question: "Where?"}}], expect: "go on"}
  - {text: "One of two.", expect: "up the hill"}
"#,
    );
    let detached = scene.detach(&[talker("tools: {ask: [exec]}")]);
    eventually("it listens", || {
        scene.toka(&["sessions", "--project", scene.name()]).stdout.contains("talker")
    });
    let mut chat = Chat::begin(&scene, &["talker", "--project", scene.name()]);
    chat.is_asked_after("Ctrl-D ends");
    chat.0.press("do both\r");
    chat.is_offered_after("it wants to use exec: echo yes > yes", "press a to allow");
    chat.0.press("a");
    chat.is_offered_after("it wants to use exec: echo no > no", "press a to allow");
    assert!(scene.workspace().join("yes").exists());
    chat.0.press("d");
    chat.is_offered_after("it asks: And now? [1) stop  2) go on]", "press the number");
    chat.0.press("2");
    chat.is_offered_after("it asks: Where?", "type the answer");
    chat.0.press("up the hill\r");
    chat.is_asked_after("One of two.");
    assert!(!scene.workspace().join("no").exists());
    chat.0.press("\u{4}");
    assert!(chat.0.wait().success());
    assert_eq!(detached.state("talker"), "running", "it goes on without the one who talked to it");
}

fn a_turn_that_fails_is_told_and_the_next_is_heard(user: User) {
    let scene = Scene::new(user);
    script(
        &scene,
        r#"
turns:
  - {text: "Good.", expect: "the other question"}
"#,
    );
    let failed = say(&scene, &[], &["first"]);
    assert!(failed.code == Some(1) && failed.stdout.contains("the model gives no answer"), "{failed:#?}");
    let both = say(&scene, &["--continue"], &["the other question"]);
    assert!(both.code == Some(0) && both.stdout.contains("\nGood.\n"), "{both:#?}");
    assert_eq!(texts(&transcript(&scene, "assistant"), "person"), ["first", "the other question"]);
}

fn a_conversation_outlives_its_daemon(user: User) {
    let scene = Scene::new(user);
    script(
        &scene,
        r#"
turns:
  - {text: "First.", expect: "one"}
  - {text: "Second.", expect: "First."}
"#,
    );
    let detached = scene.detach(&[talker("priority: medium")]);
    let chat = |text: &str| scene.toka(&["chat", "talker", "--project", scene.name(), "-m", text]);
    let first = chat("one");
    assert!(first.code == Some(0) && first.stdout.contains("First."), "{first:#?}");
    kill_daemon(&scene);
    let nobody = chat("is anybody there?");
    assert_eq!(nobody.code, Some(69), "{nobody:#?}");
    serve_again(&scene);
    let second = chat("two");
    assert!(second.code == Some(0) && second.stdout.contains("Second."), "{second:#?}");
    let lines = transcript(&scene, "talker");
    assert_eq!(lines[0]["key"], "agent:talker:chat:1");
    assert_eq!(texts(&lines, "person"), ["one", "two"]);
    assert_eq!(texts(&lines, "assistant"), ["First.", "Second."]);
    let answered = told(&detached, "response_complete");
    assert_eq!(answered.len(), 2, "no answer is told again: {answered:#?}");
    let steered = detached.toka(&["steer", "talker", "three"]);
    assert_eq!(steered.code, Some(0));
}

fn tasks_come_first_and_then_a_person(user: User) {
    let scene = Scene::new(user);
    script(
        &scene,
        r#"
turns:
  - {text: "The task is done.", expect: "Do the task."}
  - {text: "You asked for it.", expect: "why?"}
"#,
    );
    let agent = talker("priority: medium").section("tasks: {default: [Do the task.]}");
    let detached = scene.detach(&[agent]);
    let said = scene.toka(&["chat", "talker", "--project", scene.name(), "-m", "why?"]);
    assert!(said.code == Some(0) && said.stdout.contains("You asked for it."), "{said:#?}");
    assert!(said.stdout.contains("The task is done."), "{said:#?}");
    assert_eq!(detached.state("talker"), "running");
    assert_eq!(transcript(&scene, "talker")[0]["key"], "agent:talker:task:1");
}

fn a_session_is_forked_with_all_that_was_said(user: User) {
    let scene = Scene::new(user);
    script(
        &scene,
        r#"
turns:
  - text: "Much."
    tools: [{name: exec, arguments: {command: "head -c 200000 /dev/zero | tr '\\0' x"}}]
  - text: "A."
  - text: "B."
"#,
    );
    assert_eq!(say(&scene, &[], &["one", "two"]).code, Some(0));
    let lines = transcript(&scene, "assistant");
    let cut = lines.iter().position(|line| line["text"] == "two").expect("it was said");
    let until = lines[cut - 1]["id"].to_string();
    let forked =
        scene.toka(&["sessions", "fork", "assistant", "--at", &until, "--json", "--project", scene.name()]);
    assert_eq!(forked.code, Some(0), "{forked:#?}");
    let key = "agent:assistant:chat:2";
    assert!(forked.stdout.contains(key), "{forked:#?}");
    let fork = transcript(&scene, key);
    assert_eq!((fork[0]["from"]["session"].as_str(), fork.len()), (Some("agent:assistant:chat:1"), cut));
    let full = scene.toka(&["sessions", "show", key, "--full", "--project", scene.name()]);
    assert!(full.stdout.len() > 200_000, "what is kept beside it came along");
    let on = say(&scene, &["--continue", key], &["another way"]);
    assert!(on.code == Some(0) && on.stdout.contains("\nB.\n"), "{on:#?}");
    assert_eq!(texts(&transcript(&scene, "agent:assistant:chat:3"), "person"), ["one", "another way"]);
    assert_eq!(transcript(&scene, "agent:assistant:chat:1"), lines, "what was forked is as it was");
    let wrong = scene.toka(&["sessions", "fork", "assistant", "--at", "100000", "--project", scene.name()]);
    assert!(wrong.code == Some(2) && wrong.stderr.contains("has no line 100000"), "{wrong:#?}");
}

fn whom_nobody_can_talk_to_is_said(user: User) {
    let scene = Scene::new(user);
    let none = scene.toka(&["chat", "-m", "hello"]);
    assert!(none.code == Some(78) && none.stderr.contains("ANTHROPIC_API_KEY is not set"), "{none:#?}");
    assert!(!none.stderr.contains("granted"), "who talks has granted that a model is asked: {none:#?}");
    script(&scene, "turns: [{text: x}]");
    let nothing = say(&scene, &["--continue"], &["hello"]);
    assert!(
        nothing.code == Some(2) && nothing.stderr.contains("no conversation to go on with"),
        "{nothing:#?}"
    );
    let wrong = say(&scene, &["--continue", "agent:assistant:chat:7"], &["hello"]);
    assert!(
        wrong.code == Some(2) && wrong.stderr.contains("has no session agent:assistant:chat:7"),
        "{wrong:#?}"
    );
    let own = Document::bare("own").spec("process: {command: [sleep, '1000']}");
    let _detached = scene.detach(&[own]);
    let busy = scene.toka(&["chat", "--project", scene.name(), "-m", "hello"]);
    assert!(busy.code == Some(2) && busy.stderr.contains("name one of own"), "{busy:#?}");
    let deaf = scene.toka(&["chat", "own", "--project", scene.name(), "-m", "hello"]);
    assert!(deaf.code != Some(0), "{deaf:#?}");
    assert!((deaf.stderr + &deaf.stdout).contains("no model of Toka's works on its tasks"), "it says why");
    let both = Document::bare("both").spec("process: {command: ['true']}").spec("chat: true");
    let refused = scene.toka_run(&[both], &["--dry-run"]);
    assert!(refused.code == Some(65) && refused.stderr.contains("has a program of its own"), "{refused:#?}");
}

fn what_is_looked_at_holds_no_secret(user: User) {
    let scene = Scene::new(user).env("PASSWORD", "a-secret-of-many-letters");
    let outside = Document::bare("talker")
        .spec("chat: true")
        .spec("secrets: {password: {env: PASSWORD}}")
        .spec("model: {script: talk.script}")
        .section("security: {capabilities_required: [filesystem-read, filesystem-write]}");
    script(
        &scene,
        r#"
turns:
  - text: "It is a-secret-of-many-letters, and a-secret-of-man is not."
    tools: [{name: exec, arguments: {command: "cat $CREDENTIALS_DIRECTORY/password; echo; echo a-secret-of-many-letters"}}]
  - text: "So."
"#,
    );
    let finished = scene.toka_run(&[outside], &["--detach", "--trust"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let _detached = scene.adopt();
    let said = scene.toka(&["chat", "talker", "--project", scene.name(), "--json", "-m", "tell me"]);
    assert_eq!(said.code, Some(0), "{said:#?}");
    let news: Vec<Value> =
        said.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let pieces: String = news
        .iter()
        .filter(|news| news["type"] == "response_chunk")
        .map(|news| news["text"].as_str().expect("a text"))
        .collect();
    assert!(pieces.starts_with("It is ***, and a-secret-of-man is not."), "{pieces}");
    assert!(news.iter().any(|news| news["type"] == "tool_call_chunk"), "{said:#?}");
    assert!(!said.stdout.contains("many-letters"), "{said:#?}");
}

fn a_line_that_was_begun_before_a_question_is_no_answer_to_it(user: User) {
    let scene = Scene::new(user);
    script(
        &scene,
        r#"
turns:
  - tools: [{name: exec, arguments: {command: "touch waits; while [ ! -e go ]; do sleep 0.01; done"}}]
  - tools: [{name: ask, arguments: {question: "Shall I delete everything?"}}]
  - {text: "Nobody said yes.", expect: "has not allowed it"}
"#,
    );
    let mut chat = Chat::begin(&scene, &["--script", "talk.script"]);
    chat.is_asked_after("Ctrl-D ends");
    chat.0.press("begin\r");
    eventually("it is at work", || scene.workspace().join("waits").exists());
    chat.sees("●");
    // Also a first letter that is no ASCII is one.
    chat.0.press("über alles");
    chat.sees("ü");
    scene.write(&scene.workspace().join("go"), "");
    eventually("it asks", || {
        let listed = scene.toka(&["approvals", "--project", scene.name()]).stdout;
        listed.contains("Shall I delete everything?")
    });
    chat.0.press("\r");
    eventually("it is on record", || {
        texts(&transcript(&scene, "assistant"), "person").contains(&"über alles".to_owned())
    });
    scene.toka(&["approvals", "deny", "--project", scene.name()]);
    chat.is_asked_after("Nobody said yes.");
    chat.0.press("\u{4}");
    assert!(chat.0.wait().success());
}

fn who_comes_later_is_asked_what_waits(user: User) {
    let scene = Scene::new(user);
    script(
        &scene,
        "turns:\n  - tools: [{name: exec, arguments: {command: touch made}}]\n  - {text: Made., expect: exit code 0}\n",
    );
    let _detached = scene.detach(&[talker("tools: {ask: [exec]}")]);
    scene.write(&scene.workspace().join("empty"), "");
    let mut first = Chat::begin(&scene, &["talker", "--project", scene.name()]);
    first.is_asked_after("Ctrl-D ends");
    first.0.press("make it\r");
    first.sees("it wants to use exec: touch made");
    let mut second = Chat::begin(&scene, &["talker", "--project", scene.name()]);
    second.sees("it wants to use exec: touch made");
    second.sees("press a to allow this call");
    second.0.press("a");
    eventually("the key counts", || scene.workspace().join("made").exists());
    first.sees("approved");
    first.is_asked_after("Made.");
}

fn a_fork_is_not_the_session_of_a_life(user: User) {
    let scene = Scene::new(user);
    script(
        &scene,
        "turns:\n  - {text: First., expect: one}\n  - {text: Second., expect: two}\n  - {text: Third., expect: Second.}\n",
    );
    let _detached = scene.detach(&[talker("priority: medium")]);
    let chat = |text: &str| scene.toka(&["chat", "talker", "--project", scene.name(), "-m", text]);
    assert_eq!((chat("one").code, chat("two").code), (Some(0), Some(0)));
    let forked =
        scene.toka(&["sessions", "fork", "agent:talker:chat:1", "--at", "4", "--project", scene.name()]);
    assert_eq!(forked.code, Some(0), "{forked:#?}");
    kill_daemon(&scene);
    serve_again(&scene);
    let third = chat("three");
    assert!(third.code == Some(0) && third.stdout.contains("Third."), "{third:#?}");
    assert_eq!(texts(&transcript(&scene, "agent:talker:chat:1"), "person"), ["one", "two", "three"]);
    assert_eq!(
        texts(&transcript(&scene, "agent:talker:chat:2"), "person"),
        ["one"],
        "nobody went on with the fork"
    );
    let deleted = scene.toka(&["sessions", "delete", "agent:talker:chat:2", "--project", scene.name()]);
    assert_eq!(deleted.code, Some(0), "{deleted:#?}");
}

fn nobody_waits_for_one_that_does_not_hear(user: User) {
    let scene = Scene::new(user);
    script(
        &scene,
        "conversations: [{when: Salute., turns: [{text: Saluted.}]}]\nturns:\n  - tools: [{name: exec, arguments: {command: 'while [ ! -e go ]; do sleep 0.01; done'}}]\n  - {text: Heard., expect: be quick}\n",
    );
    let worker = Document::bare("worker")
        .spec("model: {script: talk.script}")
        .spec("restart: {policy: never}")
        .section("tasks: {default: [Work.]}")
        .section("security: {capabilities_required: [filesystem-read, filesystem-write]}");
    let detached =
        scene.detach(&[worker, talker("restart: {policy: never}").section("tasks: {default: [Heard.]}")]);
    eventually("it works", || !told(&detached, "tool_call_start").is_empty());
    let own = say(&scene, &["--read-only", "--project", scene.name()], &["hello"]);
    assert!(own.code == Some(2) && own.stderr.contains("are for an agent of its own"), "{own:#?}");
    // One that works on its tasks hears it meanwhile.
    let words = ["chat", "worker", "--project", scene.name(), "-m", "be quick"];
    let steering = std::thread::scope(|scope| {
        let steered = scope.spawn(|| scene.toka(&words));
        eventually("it is on record", || texts(&transcript(&scene, "worker"), "person") == ["be quick"]);
        scene.write(&scene.workspace().join("go"), "");
        steered.join().expect("it ends")
    });
    assert!(steering.stdout.contains("Heard."), "{steering:#?}");
    detached.toka(&["stop", "talker"]);
    eventually("it is stopped", || detached.state("talker") != "running");
    let nobody = scene.toka(&["chat", "talker", "--project", scene.name(), "-m", "hello"]);
    assert!(nobody.code == Some(2) && nobody.stderr.contains("does not run"), "{nobody:#?}");
}
