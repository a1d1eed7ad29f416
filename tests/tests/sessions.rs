//! Agents whose tasks stand in words alone: a model works on them with tools in the sandbox. The model is a script; what it wants done is
//! really done.

mod models_support;
mod survive_support;

use models_support::output;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use survive_support::{daemon_pid, eventually, kill_daemon, serve_again, told};
use toka_tests::{
    Document, Finished, Scene, Serves, User, WebServer, as_both_users, toka_binary, workspace_root,
};

as_both_users!(
    a_task_in_words_is_done_by_a_model_with_tools,
    a_tool_reaches_what_the_agent_reaches_and_nothing_else,
    what_a_model_may_write_that_makes_no_sense_is_told_to_it,
    a_task_that_failed_is_tried_again_with_what_went_wrong,
    the_same_call_for_ever_ends_the_attempt,
    a_command_that_floods_hangs_or_leaves_something_behind_ends,
    an_agent_that_mixes_commands_and_words_goes_through_both,
    its_processes_reach_no_model_and_have_no_key,
    a_secret_stands_in_no_transcript,
    a_killed_daemon_leaves_a_session_that_goes_on,
    a_pause_holds_the_model_up,
    a_person_steers_the_model,
    sessions_are_listed_shown_and_removed,
    a_person_is_asked_about_calls_of_tools,
    a_person_allows_calls_that_are_alike_for_a_time,
    what_nobody_answers_is_not_done,
    a_question_outlives_its_daemon,
    a_model_asks_a_person_and_hears_the_answer,
    a_session_is_repeated_and_a_change_of_its_record_is_found,
    a_long_session_is_summarised_and_goes_on,
    what_does_not_fit_is_said_and_ends,
    another_model_is_asked_what_it_would_have_done,
    a_profile_leaves_tools_out,
    a_task_that_runs_out_of_time_says_so_and_the_next_attempt_knows,
    a_stop_ends_the_session,
    objectives_decide_and_the_model_is_told,
    a_model_that_nobody_chose_is_told_before_anything_starts,
    an_agent_finds_its_inputs_and_leaves_artifacts,
    who_may_see_no_file_is_told_so,
    no_command_speaks_for_the_runner,
    what_an_ended_attempt_wanted_is_not_done_in_the_next,
    an_end_that_is_on_record_is_not_worked_for_again,
    each_life_has_a_session_of_its_own,
    a_person_chooses_another_model_for_a_run,
    an_audit_tells_what_tools_did,
    killed_at_any_moment_no_call_is_made_twice,
    programs_run_on_while_the_model_thinks_and_end_with_the_attempt,
    a_program_that_ran_on_ends_with_the_daemon_and_its_number_means_no_other,
);

const FILES: &str = "security: {capabilities_required: [filesystem-read, filesystem-write]}";

/// An agent with these tasks, on which the script `NAME.script` works.
fn worker(name: &str, tasks: &str) -> Document {
    worker_within(name, tasks, FILES)
}

fn worker_within(name: &str, tasks: &str, security: &str) -> Document {
    Document::bare(name)
        .spec(&format!("model: {{script: {name}.script}}"))
        .section(&format!("tasks: {{default: {tasks}}}"))
        .section(security)
}

fn script(scene: &Scene, name: &str, turns: &str) {
    scene.write(&scene.workspace().join(format!("{name}.script")), turns);
}

/// The lines of the last transcript of an agent.
fn transcript(scene: &Scene, agent: &str) -> Vec<Value> {
    let shown = scene.toka(&["sessions", "show", agent, "--json", "--project", scene.name()]);
    assert_eq!(shown.code, Some(0), "{shown:#?}");
    shown.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// What the model was told of its calls, in their order.
fn results(scene: &Scene, agent: &str) -> Vec<String> {
    let lines = transcript(scene, agent);
    let results = lines.iter().filter(|line| line["type"] == "result");
    results.map(|line| line["text"].as_str().expect("a text").to_owned()).collect()
}

fn a_task_in_words_is_done_by_a_model_with_tools(user: User) {
    let scene = Scene::new(user);
    scene.write(&scene.workspace().join("sum.sh"), "echo $(($1 - $2))\n");
    scene.write(&scene.workspace().join("AGENTS.md"), "Speak plainly.\n");
    script(
        &scene,
        "fixer",
        r#"
turns:
  - text: "I run it first."
    tools:
      - {name: update_plan, arguments: {steps: [{description: Run it, status: in_progress}, {description: Mend it}]}}
      - {name: exec, arguments: {command: "sh sum.sh 2 3"}}
  - expect: "exit code 0"
    tools:
      - {name: grep, arguments: {pattern: "\\$1"}}
      - {name: read, arguments: {path: sum.sh}}
  - expect: "sum.sh:1:echo"
    tools:
      - {name: edit, arguments: {path: sum.sh, old: "$1 - $2", new: "$1 + $2"}}
      - {name: exec, arguments: {command: "sh sum.sh 2 3"}}
      - {name: update_plan, arguments: {steps: [{description: Run it, status: completed}, {description: Mend it, status: completed}]}}
  - expect: "2 of 2 steps are done"
    text: "It subtracted; now it adds."
"#,
    );
    let finished = scene.toka_run(&[worker("fixer", "[Mend sum.sh.]")], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let mended = std::fs::read_to_string(scene.workspace().join("sum.sh")).expect("a file");
    assert_eq!(mended, "echo $(($1 + $2))\n");
    let log = output(&scene, "fixer");
    assert!(
        log.contains("> exec: sh sum.sh 2 3\n") && log.ends_with("It subtracted; now it adds.\n"),
        "{log}"
    );
    let given = results(&scene, "fixer");
    assert!(given[1].ends_with("\n-1\n") && given[5].ends_with("\n5\n"), "{given:#?}");
    let lines = transcript(&scene, "fixer");
    assert!(lines[0]["system"].as_str().expect("a text").contains("Speak plainly."), "{}", lines[0]);
    // Each intent has its end, and each state follows from the one before.
    let (begun, ended) =
        (finished.all("tool_call_start", "fixer"), finished.all("tool_call_complete", "fixer"));
    let calls = |events: &[Value]| events.iter().map(|event| event["call"].clone()).collect::<Vec<_>>();
    assert_eq!((calls(&begun), begun.len()), (calls(&ended), 7));
    let edit = ended.iter().find(|event| event["tool"] == "edit").expect("an edit");
    assert_eq!(edit["changes"][0]["added"], 1, "{edit}");
    let states = finished.all("state_change", "fixer");
    assert!(states.windows(2).all(|pair| pair[0]["to"] == pair[1]["from"]), "{states:#?}");
    assert_eq!((&states[0]["from"], &states[states.len() - 1]["to"]), (&"IDLE".into(), &"IDLE".into()));
    assert_eq!(finished.all("plan_created", "fixer").len(), 1);
    assert_eq!(finished.all("plan_step_update", "fixer").len(), 2);
    assert_eq!(finished.all("model_answered", "fixer").len(), 4, "each request has its receipt");
    scene.assert_nothing_left();
}

fn a_tool_reaches_what_the_agent_reaches_and_nothing_else(user: User) {
    let scene = Scene::new(user);
    let outside = scene.outside().join("private");
    scene.write(&outside, "hands off");
    let at = outside.display();
    script(
        &scene,
        "curious",
        &format!(
            r#"
turns:
  - tools:
      - {{name: read, arguments: {{path: "{at}"}}}}
      - {{name: write, arguments: {{path: "{at}", content: mine}}}}
      - {{name: exec, arguments: {{command: "cat {at}; echo x > {at}"}}}}
      - {{name: read, arguments: {{path: "/proc/1/environ"}}}}
      - {{name: write, arguments: {{path: here.txt, content: fine}}}}
  - text: "Some of it was refused."
"#
        ),
    );
    let reads = "security: {capabilities_required: [filesystem-read]}";
    let finished = scene.toka_run(&[worker_within("curious", "[Look around.]", reads)], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let given = results(&scene, "curious");
    assert!(given.iter().all(|text| !text.contains("hands off")), "{given:#?}");
    assert_eq!(std::fs::read_to_string(&outside).expect("a file"), "hands off");
    assert!(!scene.workspace().join("here.txt").exists(), "it may read, and not write: {given:#?}");
    let refused = &given[4];
    assert!(refused.contains("this agent may not do that") && refused.contains(r#"{"denied":"#), "{refused}");
    let failed = finished.all("tool_call_failed", "curious");
    assert!(failed.iter().any(|event| event["effect"] == "not_done"), "{failed:#?}");
}

fn what_a_model_may_write_that_makes_no_sense_is_told_to_it(user: User) {
    let scene = Scene::new(user);
    scene.make_folder(&scene.workspace().join("folder"));
    scene.write(&scene.workspace().join("binary"), "a\0b");
    script(
        &scene,
        "confused",
        r#"
turns:
  - tools:
      - {name: teleport, arguments: {}}
      - {name: read, arguments: {}}
      - {name: read, arguments: {path: binary}}
      - {name: read, arguments: {path: folder}}
      - {name: edit, arguments: {path: none.txt, old: a, new: b}}
      - {name: exec, arguments: {command: ""}}
      - {name: exec, arguments: {command: "true", folder: nowhere}}
      - {name: apply_patch, arguments: {patch: nonsense}}
      - {name: exec, arguments: {command: "printf '\\033[31mred\\377\\n'"}}
  - {}
  - expect: "You said nothing"
    text: "FAILED is not what I say."
"#,
    );
    let finished = scene.toka_run(&[worker("confused", "[Do something.]")], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let given = results(&scene, "confused");
    for (text, why) in given.iter().zip([
        "there is no tool \"teleport\"; there are",
        "missing field `path`",
        "is binary",
        "it is a folder",
        "there is no such file",
        "the command is empty",
        "exit code",
        "a patch begins with",
        "red",
    ]) {
        assert!(text.contains(why), "{why}: {text}");
    }
    assert_eq!(given.len(), 9, "{given:#?}");
    let shown = scene.toka(&["sessions", "show", "confused", "--project", scene.name()]);
    assert!(!shown.stdout.contains('\u{1b}'), "nothing that a terminal obeys: {shown:#?}");
}

fn a_task_that_failed_is_tried_again_with_what_went_wrong(user: User) {
    let scene = Scene::new(user);
    script(
        &scene,
        "tenacious",
        r#"
turns:
  - text: "I cannot.\n\nFAILED: there is no ink"
  - expect: "ended so: not done: there is no ink"
    tools: [{name: write, arguments: {path: letter.txt, content: "Dear all"}}]
  - text: "Written."
  - expect: "Next task (2 of 2)"
    text: "FAILED: nobody reads letters"
"#,
    );
    let tasks = "[{description: Write a letter., retry: {max_attempts: 2, initial: 10ms}}, {description: Have it read.}]";
    let finished = scene.toka_run(&[worker("tenacious", tasks)], &["--json"]);
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    let ended: Vec<Value> =
        finished.all("task_ended", "tenacious").iter().map(|event| event["exit"].clone()).collect();
    assert_eq!(ended[1]["code"], 0, "{ended:?}");
    let reasons: Vec<&str> =
        [0, 2].map(|at: usize| ended[at]["reason"].as_str().unwrap_or_default()).to_vec();
    assert_eq!(reasons, ["there is no ink", "nobody reads letters"]);
    assert!(scene.workspace().join("letter.txt").exists());
    let keys = scene.toka(&["sessions", "--json", "--project", scene.name()]);
    let sessions: Value = serde_json::from_str(&keys.stdout).expect("JSON");
    assert_eq!(sessions.as_array().map(Vec::len), Some(1), "the tasks are one conversation: {sessions}");
    assert_eq!(sessions[0]["ended"]["reason"], "nobody reads letters");
}

fn the_same_call_for_ever_ends_the_attempt(user: User) {
    let scene = Scene::new(user);
    let turn = "  - tools: [{name: exec, arguments: {command: 'echo same'}}]\n".repeat(20);
    script(&scene, "stuck", &format!("turns:\n{turn}"));
    let finished = scene.toka_run(&[worker("stuck", "[Get on.]")], &["--json"]);
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    let given = results(&scene, "stuck");
    assert_eq!(given.len(), 6, "{given:#?}");
    assert!(given[2].contains("for the 3rd time"), "{}", given[2]);
    let reason = finished.all("task_ended", "stuck")[0]["exit"]["reason"].to_string();
    assert!(reason.contains("no progress: exec was called 6 times"), "{reason}");
}

fn a_command_that_floods_hangs_or_leaves_something_behind_ends(user: User) {
    let scene = Scene::new(user);
    script(
        &scene,
        "rough",
        r#"
turns:
  - tools:
      - {name: exec, arguments: {command: "head -c 20000000 /dev/zero | tr '\\0' x; echo; echo the end"}}
      - {name: exec, arguments: {command: "sleep 1000", timeout: 1}}
      - {name: exec, arguments: {command: "sleep 1000 & echo left it"}}
      - {name: exec, arguments: {command: "kill -9 $$"}}
  - text: "Done."
"#,
    );
    let finished = scene.toka_run(&[worker("rough", "[Be rough.]")], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let given = results(&scene, "rough");
    assert!(
        given[0].len() < 40 * 1024
            && given[0].contains("bytes are left out")
            && given[0].ends_with("the end\n")
    );
    assert!(given[1].contains("killed: it had not ended after 1.0s"), "{}", given[1]);
    assert!(given[2].starts_with("exit code 0") && given[2].contains("left it"), "{}", given[2]);
    assert!(given[3].starts_with("killed by SIGKILL"), "{}", given[3]);
    let whole = scene.toka(&["sessions", "show", "rough", "--full", "--project", scene.name()]);
    assert!(whole.stdout.len() > 1024 * 1024, "the whole is kept: {}", whole.stdout.len());
    scene.assert_nothing_left();
}

fn an_agent_that_mixes_commands_and_words_goes_through_both(user: User) {
    let scene = Scene::new(user);
    script(
        &scene,
        "mixed",
        "turns:\n  - tools: [{name: read, arguments: {path: made.txt}}]\n  - expect: by a command\n    tools: [{name: write, arguments: {path: told.txt, content: by a model}}]\n  - text: Done.\n",
    );
    let tasks = "[{description: make, run: echo by a command > made.txt}, {description: Tell.}, {description: check, run: grep -q model told.txt}]";
    let finished = scene.toka_run(&[worker("mixed", tasks)], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert_eq!(finished.all("task_ended", "mixed").len(), 3);
}

fn its_processes_reach_no_model_and_have_no_key(user: User) {
    let scene = Scene::new(user);
    script(
        &scene,
        "nosy",
        "turns:\n  - tools: [{name: exec, arguments: {command: 'env; cat /proc/net/tcp; ls /sys/class/net'}}]\n  - text: Done.\n",
    );
    let finished = scene.toka_run(&[worker("nosy", "[Look for a key.]")], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let seen = &results(&scene, "nosy")[0];
    assert!(
        seen.contains("TOKA_SOCKET") && !seen.contains("sk-toka-") && !seen.contains("_API_KEY"),
        "{seen}"
    );
    assert!(!seen.contains("0100007F:1CF3"), "nobody listens on its port: {seen}");
}

fn a_secret_stands_in_no_transcript(user: User) {
    const SECRET: &str = "hunter2-of-the-session";
    let scene = Scene::new(user).env("TOKEN", SECRET);
    script(
        &scene,
        "keeper",
        "turns:\n  - tools:\n      - {name: exec, arguments: {command: 'cat $CREDENTIALS_DIRECTORY/token'}}\n      - {name: exec, arguments: {command: 'cat $CREDENTIALS_DIRECTORY/token; yes $(cat $CREDENTIALS_DIRECTORY/token) | head -c 90000'}}\n  - expect: '***'\n    text: Done.\n",
    );
    let agent = worker("keeper", "[Look at the secret.]").spec("secrets: {token: {env: TOKEN}}");
    let finished = scene.toka_run(&[agent], &["--json", "--allow", "secret-variable:TOKEN"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert!(!format!("{finished:?}").contains(SECRET), "no event has it");
    let sessions = scene.state().join("projects").join(scene.name()).join("sessions");
    let grep =
        std::process::Command::new("grep").arg("-r").arg(SECRET).arg(&sessions).output().expect("grep");
    assert_eq!(grep.status.code(), Some(1), "{grep:?}");
    assert!(finished.all("secret_sent", "keeper").is_empty(), "the model was not told");
    // Not either when it was written where the next session begins.
    scene.write(&scene.workspace().join("AGENTS.md"), &format!("Use {SECRET}.\n"));
    let agent = worker("keeper", "[Look at the secret.]").spec("secrets: {token: {env: TOKEN}}");
    let finished = scene.toka_run(&[agent], &["--json", "--allow", "secret-variable:TOKEN"]);
    assert!(finished.all("secret_sent", "keeper").is_empty(), "{finished:#?}");
    let grep =
        std::process::Command::new("grep").arg("-r").arg(SECRET).arg(&sessions).output().expect("grep");
    assert_eq!(grep.status.code(), Some(1), "{grep:?}");
}

fn a_killed_daemon_leaves_a_session_that_goes_on(user: User) {
    let scene = Scene::new(user);
    script(
        &scene,
        "steady",
        r#"
turns:
  - tools: [{name: write, arguments: {path: first.txt, content: one}}]
  - tools:
      - {name: exec, arguments: {command: "echo begun >> begun; until [ -e go ]; do sleep 0.02; done; echo ended >> ended"}}
      - {name: exec, arguments: {command: "echo second >> second"}}
  - expect: "Nobody knows whether this was done"
    text: "The first was interrupted, the second was done."
"#,
    );
    let detached = scene.detach(&[worker("steady", "[Do two things.]")]);
    let begun = scene.workspace().join("begun");
    eventually("the command runs", || begun.exists());
    kill_daemon(&scene);
    serve_again(&scene);
    eventually("it has ended", || detached.state("steady") == "ended");
    let read = |name: &str| std::fs::read_to_string(scene.workspace().join(name)).unwrap_or_default();
    assert_eq!((read("begun").as_str(), read("ended").as_str()), ("begun\n", ""), "it was not done again");
    assert_eq!(read("second"), "second\n");
    scene.write(&scene.workspace().join("go"), "");
    let failed = told(&detached, "tool_call_failed");
    assert_eq!((failed.len(), &failed[0]["effect"]), (1, &"unknown".into()), "{failed:#?}");
    let started = told(&detached, "session_started");
    assert_eq!((started.len(), &started[1]["resumed"]), (2, &true.into()), "{started:#?}");
    let lines = transcript(&scene, "steady");
    assert!(lines.windows(2).all(|pair| pair[1]["parent"] == pair[0]["id"]), "{lines:#?}");
    assert_eq!(lines.iter().filter(|line| line["type"] == "task").count(), 1);
    drop(detached);
    scene.assert_nothing_left();
    assert_eq!(read("ended"), "", "nobody went on with it");
}

fn a_pause_holds_the_model_up(user: User) {
    let scene = Scene::new(user);
    script(
        &scene,
        "patient",
        "turns:\n  - tools: [{name: exec, arguments: {command: 'echo up > up; until [ -e go ]; do sleep 0.02; done'}}]\n  - text: Done.\n",
    );
    let detached = scene.detach(&[worker("patient", "[Wait.]")]);
    let up = scene.workspace().join("up");
    eventually("the command runs", || up.exists());
    if detached.try_toka(&["pause", "patient"]).code != Some(0) {
        // There is no control group to freeze it in.
        return;
    }
    scene.write(&scene.workspace().join("go"), "");
    let asked = told(&detached, "model_asked").len();
    detached.toka(&["resume", "patient"]);
    eventually("it has ended", || detached.state("patient") == "ended");
    assert_eq!((asked, told(&detached, "model_asked").len()), (1, 2), "while it was paused nobody was asked");
}

fn a_person_steers_the_model(user: User) {
    let scene = Scene::new(user);
    script(
        &scene,
        "listener",
        "turns:\n  - tools: [{name: exec, arguments: {command: 'echo up > up; until [ -e go ]; do sleep 0.02; done'}}]\n  - expect: leave the letters alone\n    text: I leave them alone.\n",
    );
    let detached =
        scene.detach(&[worker("listener", "[Wait.]"), Document::service("other", "exec sleep 1000")]);
    let up = scene.workspace().join("up");
    eventually("the command runs", || up.exists());
    let steered = detached.toka(&["steer", "listener", "leave", "the letters", "alone"]);
    assert!(steered.stdout.starts_with("agent:listener:task:1 hears it"), "{steered:#?}");
    let refused = detached.try_toka(&["steer", "other", "hello"]);
    assert!(
        refused.code == Some(2) && refused.stderr.contains("no model of Toka's works on its tasks"),
        "{refused:#?}"
    );
    scene.write(&scene.workspace().join("go"), "");
    eventually("it has ended", || detached.state("listener") == "ended");
    let lines = transcript(&scene, "listener");
    let said: Vec<&Value> = lines.iter().filter(|line| line["type"] == "person").collect();
    assert_eq!(
        (said.len(), &said[0]["text"], &said[0]["by"]),
        (1, &"leave the letters alone".into(), &"operator".into())
    );
    let late = detached.try_toka(&["steer", "listener", "too late"]);
    assert!(late.code == Some(2) && late.stderr.contains("no model works on its tasks now"), "{late:#?}");
}

fn sessions_are_listed_shown_and_removed(user: User) {
    let scene = Scene::new(user);
    script(&scene, "talker", "turns: [{text: Hello.}]\n");
    let project = ["--project", scene.name()];
    let none = scene.toka(&[&["sessions"][..], &project].concat());
    assert!(none.stdout.contains("no model has worked on tasks"), "{none:#?}");
    for _ in 0..2 {
        assert_eq!(scene.toka_run(&[worker("talker", "[Say hello.]")], &[]).code, Some(0));
    }
    let listed = scene.toka(&[&["sessions", "list"][..], &project].concat());
    assert!(
        listed.stdout.contains("agent:talker:task:2") && listed.stdout.contains("succeeded"),
        "{listed:#?}"
    );
    let shown = scene.toka(&[&["sessions", "show", "agent:talker:task:1"][..], &project].concat());
    assert!(shown.stdout.contains("Hello.") && shown.stdout.contains("the task is done"), "{shown:#?}");
    let gone = scene.toka(&[&["sessions", "delete", "agent:talker:task:1"][..], &project].concat());
    assert_eq!(gone.stdout, "agent:talker:task:1 is removed\n");
    let again = scene.toka(&[&["sessions", "show", "agent:talker:task:1"][..], &project].concat());
    assert!(again.code == Some(2) && again.stderr.contains("agent:talker:task:2"), "{again:#?}");
    let pruned = scene.toka(&[&["sessions", "prune", "--older-than", "1d"][..], &project].concat());
    assert!(pruned.stdout.contains("nothing was removed"), "{pruned:#?}");
    let path = scene.state().join("projects").join(scene.name()).join("sessions/agent:talker:task:2.jsonl");
    scene.write(&path, "{\"id\":1,\"at\":0,\"type\":\"notice\",\"text\":\"x\"}\nby hand\n");
    let damaged = scene.toka(&[&["sessions", "show", "talker"][..], &project].concat());
    assert!(damaged.code == Some(65) && damaged.stderr.contains("line 2"), "{damaged:#?}");
}

fn approvals(scene: &Scene) -> Vec<Value> {
    let listed = scene.toka(&["approvals", "--json", "--project", scene.name()]);
    assert_eq!(listed.code, Some(0), "{listed:#?}");
    serde_json::from_str(&listed.stdout).expect("JSON")
}

/// The one that waits, once it does.
fn waits(scene: &Scene) -> Value {
    eventually("somebody waits", || !approvals(scene).is_empty());
    approvals(scene).remove(0)
}

fn asking(name: &str, commands: &[&str]) -> (Document, String) {
    let turn = |command: &&str| {
        format!("  - tools: [{{name: exec, arguments: {{command: {}}}}}]\n", Value::from(*command))
    };
    let turns: String = commands.iter().map(turn).collect();
    let document = worker(name, "[Do it.]").spec("tools: {ask: [exec]}");
    (document, format!("turns:\n{turns}  - text: Done.\n"))
}

fn a_person_is_asked_about_calls_of_tools(user: User) {
    let scene = Scene::new(user);
    let (agent, turns) = asking("asks", &["echo one >> done", "echo two >> done; # \u{1b}[2J"]);
    script(&scene, "asks", &turns);
    let detached = scene.detach(&[agent]);
    let first = waits(&scene);
    assert_eq!((&first["kind"], &first["tool"]), (&"tool".into(), &"exec".into()), "{first}");
    assert_eq!(first["about"], "echo one >> done");
    assert!(!scene.workspace().join("done").exists(), "nothing is done before");
    let shown = detached.toka(&["approvals", "show"]).stdout;
    assert!(shown.contains("it wants to use exec: echo one >> done (risk: medium)"), "{shown}");
    let lasting = detached.try_toka(&["approvals", "trust", "--for", "1h", "--yes"]);
    assert!(
        lasting.code == Some(2) && lasting.stderr.contains("no other call is like this one"),
        "{lasting:#?}"
    );
    detached.toka(&["approvals", "approve"]);
    eventually("the next one waits", || approvals(&scene).first().is_some_and(|it| it["id"] != first["id"]));
    let listed = detached.toka(&["approvals"]).stdout;
    assert!(
        listed.contains("\\x1b[2J") && !listed.contains("\u{1b}[2J"),
        "all of it is shown, and obeyed by nobody: {listed}"
    );
    detached.toka(&["approvals", "deny"]);
    eventually("it has ended", || detached.state("asks") == "ended");
    assert_eq!(std::fs::read_to_string(scene.workspace().join("done")).expect("a file"), "one\n");
    let given = results(&scene, "asks");
    assert!(given[1].contains("a person was asked, and has not allowed it"), "{given:#?}");
    let states = told(&detached, "state_change");
    assert_eq!(states.iter().filter(|event| event["to"] == "PAUSED").count(), 2);
    let (begun, failed) = (told(&detached, "tool_call_start"), told(&detached, "tool_call_failed"));
    assert_eq!((begun.len(), failed.len(), &failed[0]["effect"]), (1, 1, &"not_done".into()));
}

fn a_model_asks_a_person_and_hears_the_answer(user: User) {
    let scene = Scene::new(user);
    script(
        &scene,
        "asks",
        r#"
turns:
  - tools:
      - {name: report_progress, arguments: {percent: 40, status: "half of it"}}
      - {name: ask, arguments: {question: "Which \u001b[2Jcolour?", options: [red, blue]}}
  - expect: "a dark blue"
    tools: [{name: exec, arguments: {command: touch never}}, {name: ask, arguments: {question: "Really?"}}]
  - {text: "FAILED: nobody wants it", expect: "not here, use make"}
"#,
    );
    let agent = worker("asks", "[Paint it.]").spec("tools: {ask: [exec]}");
    let detached = scene.detach(&[agent]);
    let first = waits(&scene);
    assert_eq!(
        (&first["kind"], &first["options"]),
        (&"question".into(), &serde_json::json!(["red", "blue"]))
    );
    eventually("it is 40 % done", || detached.inspect("asks")["progress"]["fraction"] == 0.4);
    let listed = detached.toka(&["approvals"]).stdout;
    assert!(listed.contains("\\x1b[2J") && !listed.contains("\u{1b}[2J"), "{listed}");
    for (words, why) in [
        (&["approvals", "approve"][..], "toka approvals answer 1 TEXT"),
        (&["approvals", "approve", "1", "--raise", "3"], "is for budgets"),
        (&["approvals", "trust", "--yes", "--for", "1h"], "question"),
    ] {
        let refused = detached.try_toka(words);
        assert!(refused.code == Some(2) && refused.stderr.contains(why), "{words:?}: {refused:#?}");
    }
    kill_daemon(&scene);
    serve_again(&scene);
    assert_eq!(waits(&scene)["id"], first["id"], "it is asked once");
    detached.toka(&["approvals", "answer", "1", "a", "dark", "blue"]);
    eventually("the next one waits", || approvals(&scene).first().is_some_and(|it| it["kind"] == "tool"));
    let wrong = detached.try_toka(&["approvals", "answer", "2", "yes"]);
    assert!(wrong.code == Some(2) && wrong.stderr.contains("is no question"), "{wrong:#?}");
    detached.toka(&["approvals", "deny", "--message", "not here, use make"]);
    eventually("the last one waits", || approvals(&scene).first().is_some_and(|it| it["kind"] == "question"));
    detached.toka(&["approvals", "deny"]);
    eventually("it has ended", || detached.state("asks") == "ended");
    let given = results(&scene, "asks");
    assert_eq!(given[1], "a dark blue");
    assert!(given[2].contains("a person was asked, and says no: not here, use make"), "{given:#?}");
    assert!(given[3].contains("has not allowed it. Decide yourself"), "{given:#?}");
    let answers = told(&detached, "approval_answered");
    assert_eq!(answers[0]["words"], "a dark blue");
    let audit = detached.toka(&["audit", "--json"]).stdout;
    assert!(audit.contains("a dark blue"), "what was said is in the audit");
}

fn a_person_allows_calls_that_are_alike_for_a_time(user: User) {
    let scene = Scene::new(user);
    let commands = ["touch a 1", "touch a 2", "touch a 3; touch evil", "touch b"];
    let (agent, turns) = asking("alike", &commands);
    script(&scene, "alike", &turns);
    let detached = scene.detach(&[agent]);
    waits(&scene);
    let without = detached.try_toka(&["approvals", "trust", "--yes"]);
    assert!(without.code == Some(2) && without.stderr.contains("--for 30m"), "{without:#?}");
    detached.toka(&["approvals", "trust", "--for", "1h", "--yes"]);
    // The second is like the first; the third holds more than a program and its words, the fourth has another first word.
    for about in &commands[2..] {
        eventually("it waits", || approvals(&scene).first().is_some_and(|it| it["about"] == *about));
        detached.toka(&["approvals", "deny"]);
    }
    eventually("it has ended", || detached.state("alike") == "ended");
    let made = |name: &str| scene.workspace().join(name).exists();
    assert!(made("1") && made("2") && !made("3") && !made("evil") && !made("b"));
}

fn what_nobody_answers_is_not_done(user: User) {
    let scene = Scene::new(user);
    let config = scene.home().join(".config/toka");
    scene.make_folder(&scene.home().join(".config"));
    scene.make_folder(&config);
    scene.write(&config.join("toka.yaml"), "approvals: {expire: 300ms}\n");
    let (agent, turns) = asking("alone", &["touch done"]);
    script(&scene, "alone", &turns);
    let finished = scene.toka_run(&[agent], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert!(!scene.workspace().join("done").exists());
    assert!(results(&scene, "alone")[0].contains("nobody has answered"), "{:#?}", results(&scene, "alone"));
}

fn a_question_outlives_its_daemon(user: User) {
    let scene = Scene::new(user);
    let (agent, turns) = asking("lasting", &["echo done >> done"]);
    script(&scene, "lasting", &turns);
    let detached = scene.detach(&[agent]);
    let asked = waits(&scene);
    kill_daemon(&scene);
    serve_again(&scene);
    eventually("it waits again", || !approvals(&scene).is_empty());
    assert_eq!(approvals(&scene)[0]["id"], asked["id"], "it is the same question");
    detached.toka(&["approvals", "approve"]);
    eventually("it has ended", || detached.state("lasting") == "ended");
    assert_eq!(std::fs::read_to_string(scene.workspace().join("done")).expect("a file"), "done\n");
    assert_eq!(told(&detached, "approval_asked").len(), 1);
}

fn a_profile_leaves_tools_out(user: User) {
    let scene = Scene::new(user);
    script(
        &scene,
        "looker",
        "turns:\n  - tools:\n      - {name: exec, arguments: {command: touch done}}\n      - {name: list, arguments: {}}\n      - {name: grep, arguments: {pattern: x}}\n      - {name: glob, arguments: {pattern: '*'}}\n  - text: Done.\n",
    );
    let agent =
        worker("looker", "[Look.]").spec("tools: {profile: minimal, deny: [grep], calls_per_turn: 3}");
    let finished = scene.toka_run(&[agent], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let given = results(&scene, "looker");
    assert!(
        given[0].contains(
            "there is no tool \"exec\"; there are ask, glob, list, read, report_progress, update_plan"
        ),
        "{}",
        given[0]
    );
    assert!(
        given[1].contains("looker.script") && given[2].contains("there is no tool \"grep\""),
        "{given:#?}"
    );
    assert!(given[3].contains("at most 3 calls are made for one answer"), "{}", given[3]);
    assert!(!scene.workspace().join("done").exists());
}

fn a_task_that_runs_out_of_time_says_so_and_the_next_attempt_knows(user: User) {
    let scene = Scene::new(user);
    script(
        &scene,
        "slow",
        "turns:\n  - tools: [{name: exec, arguments: {command: sleep 1000}}]\n  - expect: 'ended so: timed out after 700ms'\n    tools: [{name: exec, arguments: {command: sleep 1000}}]\n",
    );
    let tasks = "[{description: Sleep., timeout: 700ms, retry: {max_attempts: 2, initial: 10ms}}]";
    let finished = scene.toka_run(&[worker("slow", tasks)], &["--json"]);
    assert_eq!(finished.code, Some(124), "{finished:#?}");
    assert_eq!(finished.exit_of("slow")["cause"], "timeout");
    let given = results(&scene, "slow");
    assert_eq!(given.len(), 2, "{given:#?}");
    assert!(given.iter().all(|text| text.starts_with("the attempt was ended while this ran")), "{given:#?}");
    scene.assert_nothing_left();
}

fn a_stop_ends_the_session(user: User) {
    let scene = Scene::new(user);
    script(
        &scene,
        "busy",
        "turns:\n  - tools: [{name: exec, arguments: {command: 'echo up > up; sleep 1000'}}]\n",
    );
    let detached = scene.detach(&[worker("busy", "[Sleep.]").spec("stop: {grace_period: 60s}")]);
    let up = scene.workspace().join("up");
    eventually("the command runs", || up.exists());
    detached.toka(&["stop", "busy"]);
    let stopped = told(&detached, "agent_ended");
    assert_eq!(stopped[0]["exit"]["cause"], "stopped", "{stopped:#?}");
    assert!(stopped[0]["exit"].get("killed_after").is_none(), "it ended when it was asked to: {stopped:#?}");
    let sessions: Value = serde_json::from_str(&detached.toka(&["sessions", "--json"]).stdout).expect("JSON");
    assert_eq!(sessions[0]["ended"]["cause"], "stopped", "{sessions}");
}

fn objectives_decide_and_the_model_is_told(user: User) {
    let scene = Scene::new(user);
    script(
        &scene,
        "aimed",
        "turns:\n  - text: I think that it is done.\n  - expect: 'out.txt is missing'\n    tools: [{name: write, arguments: {path: out.txt, content: x}}]\n  - text: Now it is.\n",
    );
    let check = |file: &str| {
        format!(
            "objectives: [{{description: there is a result, check: 'test -s {file} || {{ echo {file} is missing; exit 1; }}'}}]"
        )
    };
    let finished =
        scene.toka_run(&[worker("aimed", "[Make a result.]").section(&check("out.txt"))], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let lines = transcript(&scene, "aimed");
    assert!(lines.iter().any(|line| line["type"] == "notice"), "{lines:#?}");
    script(
        &scene,
        "vain",
        "turns:\n  - text: Done.\n  - text: Done, I say.\n  - text: Done, really.\n  - text: Done.\n",
    );
    let finished =
        scene.toka_run(&[worker("vain", "[Make a result.]").section(&check("none.txt"))], &["--json"]);
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    let reason = finished.exit_of("vain")["reason"].to_string();
    assert!(reason.contains("there is a result") && reason.contains("none.txt is missing"), "{reason}");
}

fn a_model_that_nobody_chose_is_told_before_anything_starts(user: User) {
    let scene = Scene::new(user).env("OPENAI_API_KEY", "sk-of-nobody");
    let agent = Document::bare("lost").section("tasks: {default: [Do something.]}");
    let finished = scene.toka_run(&[agent], &["--json", "--allow", "model-access"]);
    assert_eq!(finished.code, Some(78), "{finished:#?}");
    assert!(finished.stdout.contains("DEFAULT_AI_MODEL"), "{finished:#?}");
}

fn an_agent_finds_its_inputs_and_leaves_artifacts(user: User) {
    let scene = Scene::new(user);
    script(
        &scene,
        "writer",
        "turns:\n  - tools: [{name: write, arguments: {path: $TOKA_ARTIFACTS/draft.md, content: a draft}}]\n  - text: Done.\n",
    );
    script(
        &scene,
        "editor",
        "turns:\n  - expect: 'of writer'\n    tools: [{name: read, arguments: {path: '${TOKA_INPUTS}/writer/draft.md'}}]\n  - expect: a draft\n    text: Done.\n",
    );
    let editor = worker("editor", "[Edit it.]").section("dependencies: {required: {writer: {}}}");
    let finished = scene.toka_run(&[worker("writer", "[Write it.]"), editor], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert_eq!(scene.artifact("writer", "draft.md"), "a draft");
    let system = transcript(&scene, "writer")[0]["system"].as_str().expect("a text").to_owned();
    assert!(system.contains("$TOKA_ARTIFACTS") && system.contains("It may read and write"), "{system}");
}

fn who_may_see_no_file_is_told_so(user: User) {
    let scene = Scene::new(user);
    script(&scene, "blind", "turns: [{text: Done.}]\n");
    let agent = worker_within("blind", "[Look.]", "security: {resource_limits: {max_memory: 64MB}}");
    let finished = scene.toka_run(&[agent], &[]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert!(finished.stderr.contains("sees nothing of the workspace"), "{finished:#?}");
    let system = transcript(&scene, "blind")[0]["system"].as_str().expect("a text").to_owned();
    assert!(system.contains("It sees nothing of the workspace"), "{system}");
}

/// Says to the agent's socket what only the runner may say.
const USURPER: &str = r#"
import json, os, socket, sys
def ask(method, params):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(os.environ["TOKA_SOCKET"])
        s.sendall((json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}) + "\n").encode())
        return s.makefile().readline()
print(ask("task/end", {"index": 0, "attempt": 1, "exit": {"cause": "code", "code": 0}, "duration_ms": 1}))
print(ask("task/enter", {"index": 1, "attempt": 7}))
print(ask("task/next", {"index": 0, "attempt": 1, "wait_ms": 1}))
"#;

fn no_command_speaks_for_the_runner(user: User) {
    let scene = Scene::new(user);
    scene.write(&scene.workspace().join("usurper.py"), USURPER);
    script(
        &scene,
        "sly",
        "turns:\n  - tools: [{name: exec, arguments: {command: python3 -B usurper.py}}]\n  - text: 'FAILED: nothing came of it'\n",
    );
    let finished = scene.toka_run(&[worker("sly", "[Be sly., Be honest.]")], &["--json"]);
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    let given = &results(&scene, "sly")[0];
    assert_eq!(given.matches("only the process that works through the tasks").count(), 3, "{given}");
    let ended = finished.all("task_ended", "sly");
    assert_eq!((ended.len(), &ended[0]["exit"]["cause"]), (1, &"undone".into()), "{ended:#?}");
}

fn what_an_ended_attempt_wanted_is_not_done_in_the_next(user: User) {
    let scene = Scene::new(user);
    script(
        &scene,
        "cut",
        "turns:\n  - tools:\n      - {name: exec, arguments: {command: 'sleep 1000'}}\n      - {name: write, arguments: {path: evil, content: x}}\n  - text: Done.\n",
    );
    let tasks = "[{description: Sleep., timeout: 500ms, retry: {max_attempts: 2, initial: 10ms}}]";
    let finished = scene.toka_run(&[worker("cut", tasks)], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert!(!scene.workspace().join("evil").exists());
    assert!(results(&scene, "cut")[1].contains("before this was done"), "{:#?}", results(&scene, "cut"));
}

fn an_end_that_is_on_record_is_not_worked_for_again(user: User) {
    let scene = Scene::new(user);
    let path = scene.workspace().join("quick.script");
    scene.write(&path, "turns:\n  - {text: 'I have it.', delay: 300ms}\n");
    let detached = scene.detach(&[worker("quick", "[Have it.]")]);
    eventually("the model is asked", || !told(&detached, "model_asked").is_empty());
    if detached.try_toka(&["pause", "quick"]).code != Some(0) {
        // There is no control group to freeze it in.
        return;
    }
    let ended = || transcript(&scene, "quick").iter().any(|line| line["type"] == "ended");
    eventually("the answer has come, and nobody fetches it", ended);
    kill_daemon(&scene);
    serve_again(&scene);
    detached.toka(&["resume", "quick"]);
    eventually("it has ended", || detached.state("quick") == "ended");
    assert_eq!(told(&detached, "model_asked").len(), 1);
    assert_eq!(transcript(&scene, "quick").iter().filter(|line| line["type"] == "task").count(), 1);
    assert_eq!(told(&detached, "agent_ended")[0]["exit"]["code"], 0);
}

fn each_life_has_a_session_of_its_own(user: User) {
    let scene = Scene::new(user);
    script(&scene, "again", "turns: [{text: 'FAILED: not yet'}]\n");
    let restart = "restart: {policy: on-failure, max_restarts: 1, backoff: {initial: 10ms, max: 10ms}}";
    let finished = scene.toka_run(&[worker("again", "[Try.]").spec(restart)], &["--json"]);
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    let sessions: Value =
        serde_json::from_str(&scene.toka(&["sessions", "--json", "--project", scene.name()]).stdout)
            .expect("JSON");
    assert_eq!(sessions.as_array().map(Vec::len), Some(2), "{sessions}");
    assert_eq!(finished.all("agent_quarantined", "again")[0]["exit"]["reason"], "not yet");
}

fn a_person_chooses_another_model_for_a_run(user: User) {
    let server = WebServer::new(Serves::Status(500));
    let scene = Scene::new(user).env("LAB_KEY", "sk-real-key");
    let config = scene.home().join(".config/toka");
    scene.make_folder(&scene.home().join(".config"));
    scene.make_folder(&config);
    let lab = format!(
        "models:\n  providers:\n    lab: {{wire: openai-responses, url: \"http://{}\", key: {{env: LAB_KEY}}, timeout: 5s}}\n",
        server.authority()
    );
    scene.write(&config.join("toka.yaml"), &lab);
    script(&scene, "any", "turns: [{text: Done.}]\n");
    let agents = [worker("any", "[Do it.]")];
    let refused = scene.toka_run(&agents, &["--json", "--model", "lab/m"]);
    assert_eq!(refused.code, Some(77), "a provider is asked only when a person grants that: {refused:#?}");
    let finished = scene.toka_run(&agents, &["--json", "--model", "lab/m", "--allow", "model-access"]);
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    let posted = server.posted();
    assert!(posted.iter().any(|request| format!("{request:?}").contains("/v1/responses")), "{posted:?}");
    assert_eq!(finished.all("model_asked", "any")[0]["model"], "lab/m");
    assert!(
        finished.exit_of("any")["reason"].to_string().contains("the model gives no answer"),
        "{finished:#?}"
    );
}

fn an_audit_tells_what_tools_did(user: User) {
    let scene = Scene::new(user);
    script(
        &scene,
        "known",
        "turns:\n  - tools:\n      - {name: exec, arguments: {command: 'true'}}\n      - {name: read, arguments: {path: none}}\n  - text: Done.\n",
    );
    assert_eq!(scene.toka_run(&[worker("known", "[Do it.]")], &[]).code, Some(0));
    let audit = scene.toka(&["audit", "--json", "--type", "tool", "--project", scene.name()]);
    let acts = audit.events();
    let told: Vec<(&str, &str)> = acts
        .iter()
        .map(|act| (act["type"].as_str().unwrap_or_default(), act["status"].as_str().unwrap_or_default()))
        .collect();
    let expected = [
        ("tool.invoked", "pending"),
        ("tool.executed", "success"),
        ("tool.invoked", "pending"),
        ("tool.executed", "failure"),
    ];
    assert_eq!(told, expected, "{audit:#?}");
}

#[test]
fn the_example_mends_a_failing_test_without_a_key() {
    let folder = tempfile::tempdir_in("/var/tmp").expect("a folder");
    let finished: Finished = std::process::Command::new(toka_binary())
        .args(["run", "--state-dir"])
        .arg(folder.path())
        .args(["--max-memory-pressure=100", "--max-io-pressure=100", "agents/fix-failing-test"])
        .current_dir(workspace_root())
        .output()
        .map(Finished::from)
        .expect("the command starts");
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let found = std::process::Command::new("grep")
        .args(["-rl", "--include=fix.diff", "ordered\\[middle - 1\\] + ordered\\[middle\\]"])
        .arg(folder.path())
        .output()
        .expect("grep");
    assert_eq!(found.status.code(), Some(0), "the diff shows what was mended: {finished:#?}");
}

/// Whatever was under way when the daemon was killed: what has a result was done once, what has none was done once at most, and the session comes
/// to its end.
fn killed_at_any_moment_no_call_is_made_twice(user: User) {
    const TURNS: usize = 40;
    let scene = Scene::new(user);
    let turn = |number: usize| {
        format!(
            "  - tools:\n      - {{name: exec, arguments: {{command: 'echo e{number} >> effects'}}}}\n      - {{name: edit, arguments: {{path: list, old: end, new: \"f{number}\\nend\"}}}}\n    delay: 5ms\n"
        )
    };
    let turns: String = (0..TURNS).map(turn).collect();
    script(&scene, "hardy", &format!("turns:\n{turns}  - text: Done.\n"));
    scene.write(&scene.workspace().join("list"), "end\n");
    let detached = scene.detach(&[worker("hardy", "[Do all of it.]")]);
    let mut kills = 0;
    // Each a little later in the work of the daemon than the one before.
    while kills < 12 {
        eventually("it works", || !told(&detached, "tool_call_start").is_empty());
        std::thread::sleep(std::time::Duration::from_millis(7 * kills));
        if detached.state("hardy") == "ended" {
            break;
        }
        kill(Pid::from_raw(daemon_pid(&scene)), Signal::SIGKILL).expect("it runs");
        serve_again(&scene);
        kills += 1;
    }
    eventually("it has ended", || detached.state("hardy") == "ended");
    assert_eq!(told(&detached, "agent_ended")[0]["exit"]["code"], 0);
    let lines = transcript(&scene, "hardy");
    let result = |call: &str| lines.iter().find(|line| line["type"] == "result" && line["call"] == call);
    let read = |name: &str| std::fs::read_to_string(scene.workspace().join(name)).unwrap_or_default();
    let (effects, list) = (read("effects"), read("list"));
    let mut calls = 0;
    for line in lines.iter().filter(|line| line["type"] == "assistant") {
        for call in line["calls"].as_array().into_iter().flatten() {
            let result = result(call["id"].as_str().expect("a name")).expect("each has a result");
            let arguments = &call["arguments"];
            let (word, made) = match call["name"].as_str() {
                Some("exec") => {
                    (arguments["command"].as_str().expect("a text")[5..].split(' ').next(), &effects)
                }
                _ => (arguments["new"].as_str().expect("a text").lines().next(), &list),
            };
            let word = word.expect("a word");
            let count = made.lines().filter(|line| *line == word).count();
            let is_sure = result["is_error"] != true;
            assert!(if is_sure { count == 1 } else { count <= 1 }, "{word}: {count} times: {result}");
            assert!(is_sure || result["effect"] == "unknown", "{result}");
            calls += 1;
        }
    }
    assert_eq!(calls, 2 * TURNS, "after {kills} kills");
    assert!(lines.windows(2).all(|pair| pair[1]["parent"] == pair[0]["id"]), "no line is lost");
    let replayed = scene.toka(&["sessions", "replay", "hardy", "--project", scene.name()]);
    assert_eq!(replayed.code, Some(0), "each request is what it was: {replayed:#?}");
}

fn a_session_is_repeated_and_a_change_of_its_record_is_found(user: User) {
    let scene = Scene::new(user);
    let turns = "turns:\n  - tools: [{name: exec, arguments: {command: 'echo one'}}]\n  - {text: Done., expect: one}\n";
    script(&scene, "seen", turns);
    assert_eq!(scene.toka_run(&[worker("seen", "[Look.]")], &["--json"]).code, Some(0));
    let replay = || scene.toka(&["sessions", "replay", "seen", "--json", "--project", scene.name()]);
    let same = replay();
    assert_eq!(same.code, Some(0), "{same:#?}");
    let told: Value = serde_json::from_str(&same.stdout).expect("JSON");
    assert_eq!(
        (&told["requests"], &told["calls"], &told["difference"]),
        (&2.into(), &1.into(), &Value::Null)
    );
    let folder = scene.state().join("projects").join(scene.name()).join("sessions");
    let file = folder.join("agent:seen:task:1.jsonl");
    let text = std::fs::read_to_string(&file).expect("a transcript");
    std::fs::write(&file, text.replace("exit code 0", "exit code 1")).expect("changed by hand");
    let other = replay();
    assert_eq!(other.code, Some(1), "{other:#?}");
    assert!(other.stdout.contains("a line before this one is another"), "{other:#?}");
    let blobs = folder.join("agent:seen:task:1.blobs");
    for entry in std::fs::read_dir(&blobs).expect("a folder").flatten() {
        std::fs::write(entry.path(), "[]").expect("changed by hand");
    }
    let tools = replay();
    assert!(tools.code == Some(65) && tools.stderr.contains("it is not what it was"), "{tools:#?}");
}

/// A turn that writes a file, at so many tokens.
fn writes(number: usize, input: u64) -> String {
    let content = format!("{number}{}", "x".repeat(3000));
    format!(
        "  - text: I write {number}.\n    tools: [{{name: write, arguments: {{path: f{number}, content: {content}}}}}]\n    usage: {{input: {input}}}\n"
    )
}

fn a_long_session_is_summarised_and_goes_on(user: User) {
    let scene = Scene::new(user);
    let first: String = (0..4).map(|number| writes(number, 700 * (number as u64 + 1))).collect();
    // Of what was before, one answer is left: what comes is the second turn.
    let turns = format!(
        "conversations:\n- when: This is the record\n  turns: [{{text: \"I wrote f0, f1 and f2.\", usage: {{input: 900, output: 20}}}}]\n\
         - when: I wrote f0, f1 and f2.\n  turns:\n  - text: never\n  - text: Look.\n    tools: [{{name: list, arguments: {{}}}}]\n  - {{text: All of it is there., expect: f3}}\n\
         turns:\n{first}"
    );
    script(&scene, "long", &turns);
    let agent = Document::bare("long")
        .spec("model: {script: long.script, max_context_tokens: 2500}")
        .section("tasks: {default: [Write four files with a-very-special-word.]}")
        .section(FILES);
    let finished = scene.toka_run(&[agent], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let told = finished.all("session_compacted", "long");
    assert_eq!((told.len(), &told[0]["model"]), (1, &"script/scripted".into()), "{told:#?}");
    assert!(told[0]["freed_tokens"].as_u64().is_some_and(|freed| freed > 800), "{told:#?}");
    let lines = transcript(&scene, "long");
    let compacted = lines.iter().find(|line| line["type"] == "compacted").expect("a summary");
    assert_eq!(compacted["summary"], "I wrote f0, f1 and f2.");
    let kept = lines.iter().find(|line| line["id"] == compacted["before"]).expect("a line");
    assert_eq!(kept["text"], "I write 3.", "the last answer is left as it was");
    let replayed = scene.toka(&["sessions", "replay", "long", "--project", scene.name()]);
    assert!(
        replayed.code == Some(0) && replayed.stdout.contains("is summarised from here on"),
        "{replayed:#?}"
    );
    let bills = scene.toka(&["cost", "--json", "--project", scene.name()]).stdout;
    assert!(bills.contains("\"calls\":7"), "the summary is paid for like all else: {bills}");
}

fn what_does_not_fit_is_said_and_ends(user: User) {
    let scene = Scene::new(user);
    // The model summarises nothing, and what is left is as long as before.
    let turns = format!("turns:\n{}{}", writes(0, 900), writes(1, 5000));
    let refuses = "conversations:\n- when: This is the record\n  turns: [{text: '', fault: {status: 400}}]\n";
    script(&scene, "full", &format!("{refuses}{turns}"));
    let agent = Document::bare("full")
        .spec("model: {script: full.script, max_context_tokens: 2000}")
        .section("tasks: {default: [Write.]}")
        .section(FILES);
    let finished = scene.toka_run(&[agent], &["--json"]);
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    let lines = transcript(&scene, "full");
    let summary =
        lines.iter().find(|line| line["type"] == "compacted").expect("one that no model has written");
    assert!(
        summary["summary"].as_str().expect("a text").contains("- f0") && summary["model"].is_null(),
        "{summary}"
    );
    script(&scene, "full", &format!("turns:\n{}  - text: Never.\n", writes(0, 5000)));
    let agent = Document::bare("full")
        .spec("model: {script: full.script, max_context_tokens: 2000}")
        .section("tasks: {default: [Write.]}")
        .section(FILES);
    let finished = scene.toka_run(&[agent], &["--json"]);
    let why = finished.exit_of("full")["reason"].to_string();
    assert!(why.contains("does not fit into 2000 tokens any more: its last answer"), "{why}");
}

fn another_model_is_asked_what_it_would_have_done(user: User) {
    let scene = Scene::new(user);
    let turn = |command: &str| format!("  - tools: [{{name: exec, arguments: {{command: '{command}'}}}}]\n");
    script(
        &scene,
        "seen",
        &format!("turns:\n{}{}  - text: Long done.\n", turn("echo one >> file"), turn("cat file")),
    );
    assert_eq!(scene.toka_run(&[worker("seen", "[Look.]")], &["--json"]).code, Some(0));
    let other = format!(
        "turns:\n{}{}  - {{text: Quick., expect: 'Nothing is known of this call'}}\n",
        turn("cat file"),
        turn("rm file")
    );
    scene.write(&scene.home().join("other.script"), &other);
    scene.make_folder(&scene.home().join(".config/toka"));
    scene.write(
        &scene.home().join(".config/toka/toka.yaml"),
        &format!(
            "models: {{providers: {{other: {{wire: scripted, file: {}}}}}}}\n",
            scene.home().join("other.script").display()
        ),
    );
    let words = ["sessions", "replay", "seen", "--model", "other/quick", "--project", scene.name()];
    let beside = scene.toka(&words);
    assert_eq!(beside.code, Some(0), "{beside:#?}");
    for row in ["calls in both 1 1", "calls of its own 1 1", "answers 3 3", "end Long done. Quick."] {
        let has = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ") == row;
        assert!(beside.stdout.lines().any(has), "{row}: {beside:#?}");
    }
    assert_eq!(
        std::fs::read_to_string(scene.workspace().join("file")).expect("a file"),
        "one\n",
        "nothing is run"
    );
    let json = scene.toka(&[&words[..], &["--json"]].concat());
    let told: Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(told["rerun"]["deeds"]["shared_calls"], 1);
    let nobody =
        scene.toka(&["sessions", "replay", "seen", "--model", "nobody/x", "--project", scene.name()]);
    assert_eq!(nobody.code, Some(78), "{nobody:#?}");
}

fn programs_run_on_while_the_model_thinks_and_end_with_the_attempt(user: User) {
    let scene = Scene::new(user);
    script(
        &scene,
        "host",
        r#"
turns:
  - tools:
      - {name: process_start, arguments: {command: "echo ready; while read line; do echo heard $line; done; echo bye"}}
      - {name: process_write, arguments: {process: 1, text: "hello\n"}}
  - tools:
      - {name: process_write, arguments: {process: 1, close: true}}
      - {name: process_poll, arguments: {process: 1, wait: 60}}
      - {name: process_poll, arguments: {process: 1, wait: 60}}
      - {name: process_poll, arguments: {process: 1, wait: 60}}
      - {name: process_poll, arguments: {process: 1, wait: 60}}
  - expect: "process 1 has ended: exit code 0"
    tools:
      - {name: process_poll, arguments: {process: 1}}
      - {name: process_write, arguments: {process: 1, text: "hello\n"}}
      - {name: process_poll, arguments: {process: 7}}
      - {name: process_start, arguments: {command: "sleep 1000 & sleep 1000"}}
      - {name: process_kill, arguments: {process: 2}}
      - {name: process_start, arguments: {command: "sleep 1000"}}
  - text: Done.
"#,
    );
    let finished = scene.toka_run(&[worker("host", "[Run a program.]")], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let given = results(&scene, "host");
    assert!(given[0].starts_with("process 1 runs\n"), "{given:#?}");
    // What it says at once may stand in the first result or in the next: nothing of it is lost, and nothing is told twice.
    let told = given[..7].concat();
    for words in ["ready", "heard hello", "bye"] {
        assert_eq!(told.matches(words).count(), 1, "{words}: {given:#?}");
    }
    assert_eq!(given[7], "process 1 has ended: exit code 0\n(no new output)", "{given:#?}");
    assert!(given[8].contains("its input is closed"), "{given:#?}");
    assert!(given[9].contains("there is no process 7; there are 1"), "{given:#?}");
    assert_eq!(given[11], "process 2 has ended: killed by SIGKILL\n(no new output)", "{given:#?}");
    assert!(given[12].starts_with("process 3 runs"), "{given:#?}");
    scene.assert_nothing_left();
}

fn a_program_that_ran_on_ends_with_the_daemon_and_its_number_means_no_other(user: User) {
    let scene = Scene::new(user);
    script(
        &scene,
        "host",
        r#"
turns:
  - tools: [{name: process_start, arguments: {command: "exec sleep 1000"}}]
  - tools: [{name: exec, arguments: {command: "echo begun > begun; until [ -e go ]; do sleep 0.02; done"}}]
  - tools:
      - {name: process_poll, arguments: {process: 1}}
      - {name: process_start, arguments: {command: "echo another"}}
      - {name: process_poll, arguments: {process: 1}}
      - {name: process_poll, arguments: {process: 2}}
  - text: Done.
"#,
    );
    let detached = scene.detach(&[worker("host", "[Run a program.]")]);
    let begun = scene.workspace().join("begun");
    eventually("the command runs", || begun.exists());
    kill_daemon(&scene);
    serve_again(&scene);
    eventually("it has ended", || detached.state("host") == "ended");
    let given = results(&scene, "host");
    assert!(given[2].contains("there is no process 1: none runs"), "{given:#?}");
    assert!(given[3].starts_with("process 2 "), "{given:#?}");
    assert!(given[4].contains("there is no process 1; there are 2"), "{given:#?}");
    assert!(given[5].starts_with("process 2 "), "{given:#?}");
    drop(detached);
    scene.assert_nothing_left();
}
