//! `toka run` from end to end, through the program: what becomes of agents, and how its exit status tells it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use serde_json::Value;
use toka_tests::{Document, Finished, Need, Scene, User, as_both_users, require};

as_both_users!(
    success_is_zero,
    a_failure_is_one_and_blocks_what_depends_on_it,
    an_end_by_a_realtime_signal_is_an_end,
    a_timeout_is_124_unless_something_else_failed,
    invalid_files_are_65_and_nothing_starts,
    what_the_policy_denies_is_77_and_names_the_grant,
    what_keeps_a_run_from_starting_is_data_for_programs,
    a_plan_finds_what_a_run_finds,
    a_path_that_is_no_text_is_found_before_anything_starts,
    what_cannot_be_told_of_the_host_keeps_nothing_from_running,
    a_workspace_that_goes_while_agents_run_is_named,
    a_task_for_a_model_is_78_and_nothing_starts,
    a_state_folder_that_cannot_be_written_is_73,
    agents_start_in_the_order_of_their_dependencies,
    artifacts_become_inputs,
    what_an_earlier_run_left_is_no_result_of_this_one,
    progress_comes_by_datagram_and_by_socket,
    toka_report_reports,
    a_process_may_be_called_anything,
    out_of_memory_is_told_apart,
    a_signal_is_told_apart,
    a_program_that_cannot_start_says_why,
    a_script_whose_interpreter_it_may_not_see_says_so,
    a_program_that_is_being_written_says_so,
    a_closed_stdout_stops_nothing,
    a_full_stdout_stops_nothing_and_is_no_success,
    no_more_run_at_once_than_allowed,
    tasks_run_in_order_with_retries_and_limits,
    services_are_stopped_when_the_tasks_are_done,
    secrets_are_files,
    sections_of_its_own_reach_the_agent,
    every_stage_is_a_span_for_those_who_ask,
    no_span_knows_a_secret,
    output_is_kept_byte_for_byte,
    a_dry_run_starts_nothing,
    a_later_run_finds_home_but_not_tmp,
);

fn exit_code_of(finished: &Finished, expected: i32) {
    assert_eq!(finished.code, Some(expected), "{finished:#?}");
}

fn success_is_zero(user: User) {
    let scene = Scene::new(user);
    let agents = [Document::shell("one", "echo hello"), Document::shell("two", "true").after(&["one"])];
    let plain = scene.toka_run(&agents, &[]);
    exit_code_of(&plain, 0);
    let all = format!("{}{}", plain.stdout, plain.stderr);
    assert!(all.contains("one") && all.contains("two") && all.contains("succeeded"), "{all}");
    assert!(!all.contains('\u{1b}'), "no colours and no bars where there is no terminal: {all}");
    let json = scene.toka_run(&agents, &["--json"]);
    exit_code_of(&json, 0);
    assert_eq!(json.exit_of("two"), serde_json::json!({"cause": "code", "code": 0}));
    let numbers: Vec<u64> = json.events().iter().filter_map(|event| event["seq"].as_u64()).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "events are in order: {numbers:?}");
    let summary = json.events().pop().expect("a last line");
    assert_eq!((&summary["type"], &summary["exit_code"]), (&Value::from("summary"), &Value::from(0)));
    let quiet = scene.toka_run(&agents, &["--quiet"]);
    exit_code_of(&quiet, 0);
    assert_eq!(quiet.stdout, "", "nothing to say about success");
    scene.assert_nothing_left();
}

fn a_failure_is_one_and_blocks_what_depends_on_it(user: User) {
    let scene = Scene::new(user);
    let agents = [
        Document::shell("bad", "echo last words >&2; exit 3"),
        Document::shell("next", "true").after(&["bad"]),
        Document::shell("other", "true"),
    ];
    let json = scene.toka_run(&agents, &["--json"]);
    exit_code_of(&json, 1);
    assert_eq!(json.exit_of("bad"), serde_json::json!({"cause": "code", "code": 3}));
    assert!(json.exit_of("other")["code"] == 0, "what does not depend on it runs: {json:#?}");
    assert!(json.place_of("agent_started", "next").is_none(), "{json:#?}");
    let events = json.events();
    let blocked = events.iter().find(|event| event["type"] == "agent_blocked").expect("one is blocked");
    assert_eq!((&blocked["agent"], &blocked["by"]), (&Value::from("next"), &Value::from("bad")));
    let plain = scene.toka_run(&agents, &[]);
    let all = format!("{}{}", plain.stdout, plain.stderr);
    assert!(all.contains("last words"), "the end of a failed agent's output is shown: {all}");
    scene.assert_nothing_left();
}

fn a_timeout_is_124_unless_something_else_failed(user: User) {
    let scene = Scene::new(user);
    let late = Document::shell("late", "trap '' TERM; sleep 600 & wait; sleep 600")
        .spec("stop: {grace_period: 1s}")
        .section("security: {resource_limits: {timeout: 1s}}");
    let only = scene.toka_run(std::slice::from_ref(&late), &["--json"]);
    exit_code_of(&only, 124);
    assert_eq!(only.exit_of("late")["cause"], "timeout", "{only:#?}");
    scene.assert_nothing_left();
    let both = scene.toka_run(&[late, Document::shell("bad", "exit 1")], &["--json"]);
    exit_code_of(&both, 1);
    scene.assert_nothing_left();
}

fn invalid_files_are_65_and_nothing_starts(user: User) {
    let scene = Scene::new(user);
    let agents = [
        Document::shell("good", "echo ran > \"$TOKA_ARTIFACTS/ran\""),
        Document::bare("empty").spec("prioritty: high"),
    ];
    let finished = scene.toka_run(&agents, &[]);
    exit_code_of(&finished, 65);
    assert!(finished.stderr.contains("empty.yaml:3"), "file and line: {finished:#?}");
    assert!(finished.stderr.contains("priority"), "a suggestion: {finished:#?}");
    assert_eq!(scene.artifact("good", "ran"), "", "nothing starts");
    let words = [toka_tests::toka_binary().as_os_str(), "run".as_ref(), scene.outside().as_os_str()]
        .map(ToOwned::to_owned);
    exit_code_of(&scene.run(&words), 65);
}

fn what_the_policy_denies_is_77_and_names_the_grant(user: User) {
    let scene = Scene::new(user);
    let agents = [
        Document::shell("fine", "echo ran > \"$TOKA_ARTIFACTS/ran\""),
        Document::shell("greedy", "true").section("security: {network: full}"),
    ];
    let refused = scene.toka_run(&agents, &[]);
    exit_code_of(&refused, 77);
    assert!(refused.stderr.contains("greedy.yaml:4"), "the line that asked: {refused:#?}");
    assert!(refused.stderr.contains("--allow network:full"), "the way to grant it: {refused:#?}");
    assert_eq!(scene.artifact("fine", "ran"), "", "nothing starts");
    exit_code_of(&scene.toka_run(&agents, &["--allow", "network:full"]), 0);
    assert_eq!(scene.artifact("fine", "ran"), "ran\n");
    scene.assert_nothing_left();
}

fn what_keeps_a_run_from_starting_is_data_for_programs(user: User) {
    let model = "tasks: {default: [{description: Think about it}]}";
    for (agent, code, kind, line) in [
        (Document::bare("wrong").spec("prioritty: high"), 65, "diagnostic", 3),
        (Document::shell("greedy", "true").section("security: {network: full}"), 77, "problem", 4),
        (Document::bare("thinker").section(model), 78, "problem", 2),
    ] {
        let finished = Scene::new(user).toka_run(std::slice::from_ref(&agent), &["--json"]);
        exit_code_of(&finished, code);
        let parse = |line: &str| serde_json::from_str::<Value>(line);
        let lines: Vec<Value> =
            finished.stdout.lines().map(|line| parse(line).expect("nothing but JSON")).collect();
        let [parts @ .., summary] = lines.as_slice() else { panic!("two lines at least: {finished:#?}") };
        assert_eq!((&summary["type"], &summary["exit_code"]), (&"summary".into(), &code.into()));
        let place = |part: &Value| if kind == "problem" { part.clone() } else { part["labels"][0].clone() };
        let is_it = |part: &&Value| part["type"] == kind && place(part)["line"] == line;
        let part = parts.iter().find(is_it).unwrap_or_else(|| panic!("line {line}: {finished:#?}"));
        assert!(part["message"].is_string() && part["help"].is_string(), "{part}");
        assert!(place(part)["file"].as_str().is_some_and(|file| file.ends_with(".yaml")), "{part}");
        assert!(!finished.stderr.is_empty(), "people are told on stderr");
    }
    let scene = Scene::new(user);
    scene.write(&scene.workspace().join("toka.yaml"), "alow: [network:full]\n");
    let finished = scene.toka_run(&[Document::shell("one", "true")], &["--json"]);
    exit_code_of(&finished, 65);
    assert!(finished.events().iter().any(|event| event["type"] == "diagnostic"), "{finished:#?}");
}

fn a_plan_finds_what_a_run_finds(user: User) {
    let reads = "security: {capabilities_required: [filesystem-read]}";
    for (agent, code, clue) in [
        (Document::shell("fine", "true"), 0, "`toka run` would start this."),
        (Document::command("lost", &["no-such-program"]), 65, "there is no program \"no-such-program\""),
        (Document::command("script", &["./script"]).section(reads), 65, "script does not start: its first"),
        (Document::bare("far").spec("process: {shell: 'true', working_dir: absent}"), 65, "working folder"),
        (Document::shell("shy", "true").spec("secrets: {key: {file: no-such-file}}"), 78, "no-such-file"),
        (Document::shell("greedy", "true").section("security: {network: full}"), 77, "network:full"),
    ] {
        let scene = Scene::new(user);
        scene.write_program(&scene.workspace().join("script"), "#!/no/such/program\n");
        let agents = std::slice::from_ref(&agent);
        let mut words = scene.run_words(agents, &[]);
        let at = words.iter().position(|word| word == "run").expect("the command");
        words[at] = "plan".into();
        // A plan starts nothing, and has nothing to wait for.
        words.retain(|word| !word.to_string_lossy().contains("-pressure"));
        let plan = scene.run(&words);
        exit_code_of(&plan, code);
        let text = plan.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(clue) && text.starts_with("1 agent in 1 wave"), "{clue}: {plan:#?}");
        exit_code_of(&scene.toka_run(agents, &[]), code);
    }
}

fn a_path_that_is_no_text_is_found_before_anything_starts(user: User) {
    let scene = Scene::new(user);
    let odd = scene.workspace().join(OsStr::from_bytes(b"odd\xff"));
    scene.make_folder(&odd);
    let fine = Document::shell("fine", "echo ran > \"$TOKA_ARTIFACTS/ran\"");
    for (option, place) in [("--workdir", "the workspace"), ("--state-dir", "the state folder")] {
        let mut words = scene.run_words(std::slice::from_ref(&fine), &[]);
        let at = words.iter().position(|word| word == option).expect("the option");
        words[at + 1] = odd.clone().into();
        let finished = scene.run(&words);
        exit_code_of(&finished, 2);
        assert!(finished.stderr.contains(place) && finished.stderr.contains("not UTF-8"), "{finished:#?}");
    }
    std::os::unix::fs::symlink(&odd, scene.workspace().join("link")).expect("a link");
    let lost = Document::bare("lost").spec("process: {shell: 'true', working_dir: link}");
    let finished = scene.toka_run(&[fine, lost], &[]);
    exit_code_of(&finished, 65);
    assert!(finished.stderr.contains("lost: a path of its rules is not UTF-8"), "{finished:#?}");
    assert_eq!(scene.artifact("fine", "ran"), "", "nothing starts");
}

/// The daemon cannot tell its keeper such a search path, and the keeper looks itself.
fn what_cannot_be_told_of_the_host_keeps_nothing_from_running(user: User) {
    let scene = Scene::new(user);
    let mut path = std::env::var_os("PATH").expect("a search path");
    path.push(OsStr::from_bytes(b":/odd\xff"));
    let words = scene.run_words(&[Document::shell("one", "echo ran > \"$TOKA_ARTIFACTS/ran\"")], &[]);
    let finished = scene.command(&words).env("PATH", path).output().map(Finished::from);
    exit_code_of(&finished.expect("the command starts"), 0);
    assert_eq!(scene.artifact("one", "ran"), "ran\n");
    scene.assert_nothing_left();
}

fn a_workspace_that_goes_while_agents_run_is_named(user: User) {
    let scene = Scene::new(user);
    let waits = "until test -e \"$TOKA_ARTIFACTS/go\"; do sleep 0.05; done";
    let agents = [Document::shell("first", waits), Document::shell("second", "true").after(&["first"])];
    let mut run = scene.start(&agents, &[]);
    run.wait_for("agent_started", "first");
    std::fs::remove_dir_all(scene.workspace()).expect("the scene's own folder");
    let artifacts = scene.state().join("projects").join(scene.name()).join("agents/first/artifacts");
    scene.write(&artifacts.join("go"), "");
    let finished = run.finish();
    exit_code_of(&finished, 1);
    let reason = format!("the workspace {} is gone since the run began", scene.workspace().display());
    assert_eq!(finished.exit_of("first")["code"], 0, "{finished:#?}");
    assert_eq!(finished.exit_of("second")["reason"], reason, "{finished:#?}");
    scene.assert_nothing_left();
}

fn a_task_for_a_model_is_78_and_nothing_starts(user: User) {
    let scene = Scene::new(user);
    let agents = [
        Document::shell("fine", "echo ran > \"$TOKA_ARTIFACTS/ran\""),
        Document::bare("thinker").section("tasks: {default: [{description: Think about it}]}"),
    ];
    let finished = scene.toka_run(&agents, &[]);
    exit_code_of(&finished, 78);
    assert!(finished.stderr.contains("Think about it"), "it names the task: {finished:#?}");
    assert_eq!(scene.artifact("fine", "ran"), "", "nothing starts");
}

fn a_state_folder_that_cannot_be_written_is_73(user: User) {
    let scene = Scene::new(user);
    scene.write(&scene.folder().join("a-file"), "");
    let mut words = scene.run_words(&[Document::shell("one", "true")], &[]);
    let at = words.iter().position(|word| word == scene.state().as_os_str()).expect("the option's value");
    words[at] = scene.folder().join("a-file/state").into();
    exit_code_of(&scene.run(&words), 73);
    words[at] = "/proc/toka".into();
    exit_code_of(&scene.run(&words), 73);
}

fn agents_start_in_the_order_of_their_dependencies(user: User) {
    let scene = Scene::new(user);
    let agents = [
        Document::shell("last", "true").after(&["middle", "side"]),
        Document::shell("middle", "true").after(&["first"]),
        Document::shell("first", "true"),
        Document::shell("side", "true"),
    ];
    let json = scene.toka_run(&agents, &["--json"]);
    exit_code_of(&json, 0);
    for (before, after) in [("first", "middle"), ("middle", "last"), ("side", "last")] {
        let (ended, started) = (json.place_of("agent_ended", before), json.place_of("agent_started", after));
        assert!(ended.is_some() && ended < started, "{before} ends before {after} starts: {json:#?}");
    }
}

fn artifacts_become_inputs(user: User) {
    let scene = Scene::new(user);
    let agents = [
        Document::shell("maker", "echo made > \"$TOKA_ARTIFACTS/thing\""),
        Document::shell("stranger", "echo secret > \"$TOKA_ARTIFACTS/thing\""),
        Document::shell(
            "taker",
            "cat \"$TOKA_INPUTS/maker/thing\" > \"$TOKA_ARTIFACTS/taken\"
             ! echo changed > \"$TOKA_INPUTS/maker/thing\"
             ! test -e \"$TOKA_INPUTS/stranger\"
             ls \"$TOKA_INPUTS\" >> \"$TOKA_ARTIFACTS/taken\"",
        )
        .after(&["maker"]),
    ];
    exit_code_of(&scene.toka_run(&agents, &[]), 0);
    assert_eq!(scene.artifact("taker", "taken"), "made\nmaker\n");
    assert_eq!(scene.artifact("maker", "thing"), "made\n");
}

const SAY_PROGRESS: &str = "
import json, os, socket, sys
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.sendto(b'X_TOKA_PROGRESS=0.25\\nSTATUS=a quarter', os.environ['NOTIFY_SOCKET'])
door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
door.connect(os.environ['TOKA_SOCKET'])
lines = door.makefile('rw')
def call(id, method, params):
    print(json.dumps({'jsonrpc': '2.0', 'id': id, 'method': method, 'params': params}), file=lines, flush=True)
    return json.loads(lines.readline())
assert 'error' not in call(1, 'progress', {'fraction': 0.5, 'status': 'half'})
assert 'error' not in call(2, 'metrics', {'values': {'rows': 7}})
assert 'error' in call(3, 'no-such-method', {})
assert 'error' in call(4, 'progress', {'fraction': 'much'})
";

/// Also where its first start was called off, so that its folders were never made in this run.
fn what_an_earlier_run_left_is_no_result_of_this_one(user: User) {
    let scene = Scene::new(user);
    let report = "echo old > \"$TOKA_ARTIFACTS/report\"";
    exit_code_of(&scene.toka_run(&[Document::shell("maker", report)], &[]), 0);
    assert_eq!(scene.artifact("maker", "report"), "old\n");
    let look = "cat \"$TOKA_ARTIFACTS\"/* > ~/found 2> /dev/null; true";
    let detached = scene.detach(&[
        Document::shell("maker", look).spec("start: manual"),
        Document::service("keeps", "exec sleep 1000"),
    ]);
    assert_eq!(scene.artifact("maker", "report"), "", "nobody finds it, also if it never starts");
    detached.toka(&["stop", "maker"]);
    detached.toka(&["start", "maker"]);
    detached.toka(&["wait", "maker"]);
    let home = scene.state().join("projects").join(scene.name()).join("agents/maker/home");
    assert_eq!(std::fs::read_to_string(home.join("found")).expect("it looked"), "");
    assert_eq!(scene.artifact("maker", "report"), "");
}

fn progress_comes_by_datagram_and_by_socket(user: User) {
    if !require(&[Need::Program("python3")]) {
        return;
    }
    let scene = Scene::new(user);
    scene.write(&scene.workspace().join("progress.py"), SAY_PROGRESS);
    let agent = Document::command("worker", &["python3", "progress.py"])
        .section("security: {capabilities_required: [filesystem-read, python-execution]}");
    let json = scene.toka_run(&[agent], &["--json"]);
    exit_code_of(&json, 0);
    let events = json.events();
    let fraction = |wanted: f64| {
        events.iter().any(|e| e["type"] == "progress" && e["fraction"].as_f64() == Some(wanted))
    };
    assert!(fraction(0.5), "{json:#?}");
    assert!(
        events.iter().any(|event| event["type"] == "metrics" && event["values"]["rows"] == 7.0),
        "{json:#?}"
    );
    scene.assert_nothing_left();
}

fn toka_report_reports(user: User) {
    let scene = Scene::new(user);
    let agent = Document::shell("worker", "toka report progress 75% --status shelling");
    let json = scene.toka_run(&[agent], &["--json"]);
    exit_code_of(&json, 0);
    let said = |event: &Value| {
        event["type"] == "progress" && event["fraction"] == 0.75 && event["status"] == "shelling"
    };
    assert!(json.events().iter().any(said), "{json:#?}");
}

/// The kernel cuts a name after 15 bytes, here within a letter: what it says of the process is no text then.
fn a_process_may_be_called_anything(user: User) {
    let scene = Scene::new(user);
    let name = "ääääääää.sh";
    scene.write_program(&scene.workspace().join(name), "#!/bin/sh\ntoka report status odd\n");
    let runs =
        format!("security: {{capabilities_required: [filesystem-read], filesystem: {{execute: [{name}]}}}}");
    let json = scene.toka_run(&[Document::shell("worker", &format!("./{name}")).section(&runs)], &["--json"]);
    exit_code_of(&json, 0);
    assert!(json.all("progress", "worker").iter().any(|event| event["status"] == "odd"), "{json:#?}");
}

fn out_of_memory_is_told_apart(user: User) {
    if user == User::Ordinary || !require(&[Need::Cgroups]) {
        return;
    }
    let scene = Scene::new(user);
    // It keeps the last line, and zeros have no end of line.
    let agent = Document::command("eater", &["tail", "/dev/zero"])
        .section("security: {resource_limits: {max_memory: 64MB}}");
    let json = scene.toka_run(&[agent], &["--json"]);
    let exit = json.exit_of("eater");
    assert_eq!(exit["cause"], "oom", "{json:#?}");
    assert_eq!(exit["limit"], 64 << 20, "{exit}");
    exit_code_of(&json, 1);
    scene.assert_nothing_left();
}

fn a_signal_is_told_apart(user: User) {
    let scene = Scene::new(user);
    let json = scene.toka_run(&[Document::shell("crash", "kill -SEGV $$")], &["--json"]);
    exit_code_of(&json, 1);
    let exit = json.exit_of("crash");
    assert_eq!((&exit["cause"], &exit["signal"]), (&Value::from("signal"), &Value::from(11)), "{exit}");
}

/// Libraries know signals by names up to 31 (signal(7) has 64).
fn an_end_by_a_realtime_signal_is_an_end(user: User) {
    let scene = Scene::new(user);
    let finished = scene.toka_run(&[Document::shell("rt", "kill -34 $$; sleep 1000")], &["--json"]);
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    assert_eq!(finished.all("agent_ended", "rt")[0]["exit"]["signal"], 34, "{finished:#?}");
    scene.assert_nothing_left();
}

fn a_program_that_cannot_start_says_why(user: User) {
    let scene = Scene::new(user);
    scene.write(&scene.workspace().join("plain.txt"), "no program\n");
    let reads = "security: {capabilities_required: [filesystem-read]}";
    for (document, clue) in [
        (Document::command("missing", &["no-such-program"]).section(reads), "no-such-program"),
        (Document::command("plain", &["./plain.txt"]).section(reads), "plain.txt"),
        (
            Document::bare("lost")
                .spec("process: {command: [\"true\"], working_dir: no-such-folder}")
                .section(reads),
            "no-such-folder",
        ),
    ] {
        let scene = Scene::new(user);
        scene.write(&scene.workspace().join("plain.txt"), "no program\n");
        let finished = scene.toka_run(&[document], &[]);
        let all = format!("{}{}", finished.stdout, finished.stderr);
        assert_ne!(finished.code, Some(0), "{finished:#?}");
        assert_ne!(finished.code, Some(70), "not a fault of Toka's: {finished:#?}");
        assert!(all.contains(clue), "{clue} is named: {all}");
        scene.assert_nothing_left();
    }
}

fn a_script_whose_interpreter_it_may_not_see_says_so(user: User) {
    let scene = Scene::new(user);
    let hidden = scene.workspace().with_file_name("hidden");
    scene.write_program(&hidden, "");
    scene.write_program(&scene.workspace().join("script"), &format!("#!{}\n", hidden.display()));
    let reads = "security: {capabilities_required: [filesystem-read]}";
    let agents = [
        Document::command("script", &["./script"]).section(reads),
        // What comes before may make an interpreter that is not there yet.
        Document::command("made", &["./later"])
            .spec("hooks: {pre_start: [[sh, -c, 'ln -s /bin/sh made']]}")
            .section("security: {capabilities_required: [filesystem-write]}"),
    ];
    let later = format!("#!{}\nexit 7\n", scene.workspace().join("made").display());
    scene.write_program(&scene.workspace().join("later"), &later);
    let finished = scene.toka_run(&agents, &["--json"]);
    let exit = finished.exit_of("script");
    assert_eq!(exit["cause"], "start_failed", "{exit}");
    assert!(exit["reason"].to_string().contains("its first line names"), "{exit}");
    assert_eq!(finished.exit_of("made")["code"], 7, "{finished:#?}");
    scene.assert_nothing_left();
}

fn a_program_that_is_being_written_says_so(user: User) {
    let scene = Scene::new(user);
    let program = scene.workspace().join("program");
    scene.write_program(&program, "#!/bin/sh\n");
    let reads = "security: {capabilities_required: [filesystem-read]}";
    let agent = [Document::command("written", &["./program"]).section(reads)];
    let writer = std::fs::OpenOptions::new().append(true).open(&program).expect("a file");
    let finished = scene.toka_run(&agent, &["--json"]);
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    let exit = finished.exit_of("written");
    assert_eq!(exit["cause"], "start_failed", "{exit}");
    assert!(exit["reason"].to_string().contains("Text file busy"), "{exit}");
    drop(writer);
    exit_code_of(&scene.toka_run(&agent, &[]), 0);
}

fn a_closed_stdout_stops_nothing(user: User) {
    let scene = Scene::new(user);
    let agents = [Document::shell("one", "seq 1 20000; echo done > \"$TOKA_ARTIFACTS/done\"")];
    for option in ["--json", "--follow"] {
        let words = scene.run_words(&agents, &[option]);
        let mut line: Vec<std::ffi::OsString> =
            ["/bin/bash", "-c", "\"$@\" | true; echo ${PIPESTATUS[0]}", "bash"].map(Into::into).to_vec();
        line.extend(words);
        let finished = scene.run(&line);
        assert!(!finished.stderr.contains("panicked"), "{finished:#?}");
        assert_eq!(finished.stdout.trim(), "0", "the outcome is that of the agents: {finished:#?}");
        assert_eq!(scene.artifact("one", "done"), "done\n");
        scene.assert_nothing_left();
    }
}

fn a_full_stdout_stops_nothing_and_is_no_success(user: User) {
    let scene = Scene::new(user);
    let agents = [Document::shell("one", "echo done > \"$TOKA_ARTIFACTS/done\"")];
    for (option, code) in [("--json", 1), ("--follow", 1), ("--quiet", 0)] {
        let mut line: Vec<std::ffi::OsString> =
            ["/bin/sh", "-c", "exec \"$@\" >/dev/full", "sh"].map(Into::into).to_vec();
        line.extend(scene.run_words(&agents, &[option]));
        let finished = scene.run(&line);
        exit_code_of(&finished, code);
        assert_eq!(finished.stderr.contains("error: cannot write to stdout"), code == 1, "{finished:#?}");
        assert_eq!(scene.artifact("one", "done"), "done\n");
    }
    scene.assert_nothing_left();
}

fn no_more_run_at_once_than_allowed(user: User) {
    let scene = Scene::new(user);
    let agents: Vec<Document> = ["a", "b", "c", "d"].map(|name| Document::shell(name, "sleep 0.1")).to_vec();
    let json = scene.toka_run(&agents, &["--json", "--max-concurrent", "1"]);
    exit_code_of(&json, 0);
    let (mut running, mut most) = (0, 0);
    for event in json.events() {
        match event["type"].as_str() {
            Some("agent_starting") => running += 1,
            Some("agent_ended") => running -= 1,
            _ => {}
        }
        most = most.max(running);
    }
    assert_eq!((running, most), (0, 1), "{json:#?}");
}

fn tasks_run_in_order_with_retries_and_limits(user: User) {
    let scene = Scene::new(user);
    let works = "tasks: {default: [\
        {description: Second, run: 'echo second >> \"$TOKA_ARTIFACTS/order\"', dependencies: [First]}, \
        {description: First, run: 'echo first >> \"$TOKA_ARTIFACTS/order\"'}, \
        {description: Third time, run: 'echo x >> \"$HOME/tries\"; test $(wc -l < \"$HOME/tries\") -ge 3', retry: {max_attempts: 3, initial: 10ms}}]}";
    let json = scene.toka_run(&[Document::bare("worker").section(works)], &["--json"]);
    exit_code_of(&json, 0);
    assert_eq!(scene.artifact("worker", "order"), "first\nsecond\n");
    let attempts = |event: &&Value| event["type"] == "task_started" && event["description"] == "Third time";
    assert_eq!(json.events().iter().filter(attempts).count(), 3, "{json:#?}");
    assert!(
        json.events().iter().any(|event| event["type"] == "progress" && event["fraction"] == 1.0),
        "{json:#?}"
    );

    let slow = "tasks: {default: [{description: Too slow, run: sleep 600, timeout: 1s}, {description: Never, run: 'echo ran > \"$TOKA_ARTIFACTS/ran\"'}]}";
    let json = scene.toka_run(&[Document::bare("sluggard").section(slow)], &["--json"]);
    assert_ne!(json.code, Some(0), "{json:#?}");
    assert_eq!(scene.artifact("sluggard", "ran"), "", "what comes after a failed task is not run");
    scene.assert_nothing_left();
}

fn services_are_stopped_when_the_tasks_are_done(user: User) {
    let scene = Scene::new(user);
    let agents = [
        Document::shell(
            "server",
            "trap 'echo stopped > \"$TOKA_ARTIFACTS/end\"; exit 0' TERM; while :; do sleep 0.05; done",
        )
        .spec("type: service"),
        Document::shell("task", "sleep 0.2").after(&["server"]),
    ];
    let json = scene.toka_run(&agents, &["--json"]);
    exit_code_of(&json, 0);
    assert_eq!(
        scene.artifact("server", "end"),
        "stopped\n",
        "it was asked, and had its grace period: {json:#?}"
    );
    scene.assert_nothing_left();
}

fn secrets_are_files(user: User) {
    let scene = Scene::new(user).env("SOME_TOKEN", "from-the-environment").env("TOKA_TRUST", "all");
    scene.write(&scene.home().join("token"), "from-a-file");
    let token = scene.home().join("token");
    let agent = Document::shell(
        "keeper-of-secrets",
        "cat \"$CREDENTIALS_DIRECTORY/one\" \"$CREDENTIALS_DIRECTORY/two\" > \"$TOKA_ARTIFACTS/seen\"; ! env | grep from-the",
    )
    .spec(&format!("secrets: {{one: {{file: {}}}, two: {{env: SOME_TOKEN}}}}", token.display()));
    exit_code_of(&scene.toka_run(&[agent], &[]), 0);
    assert_eq!(scene.artifact("keeper-of-secrets", "seen"), "from-a-filefrom-the-environment");
}

fn sections_of_its_own_reach_the_agent(user: User) {
    let scene = Scene::new(user);
    let agent = Document::shell(
        "reader",
        "cp \"$TOKA_SECTIONS\" \"$TOKA_ARTIFACTS/seen\"; ! echo changed > \"$TOKA_SECTIONS\"; ! rm -f \"$TOKA_SECTIONS\"",
    )
    .section("behavioral_directives: {tone: plain, depth: 3}")
    .section("objectives: [{description: It is read, deliverable: seen}]");
    exit_code_of(&scene.toka_run(&[agent], &[]), 0);
    let seen: Value = serde_json::from_str(&scene.artifact("reader", "seen")).expect("JSON");
    assert_eq!(seen["sections"], serde_json::json!({"behavioral_directives": {"tone": "plain", "depth": 3}}));
    assert_eq!(seen["metadata"]["name"], "reader");
    assert_eq!(seen["objectives"][0]["deliverable"], "seen");
    scene.assert_nothing_left();
}

fn every_stage_is_a_span_for_those_who_ask(user: User) {
    let agents = [Document::shell("one", "exit 3")];
    let silent = Scene::new(user).toka_run(&agents, &["--json"]);
    exit_code_of(&silent, 1);
    assert!(!silent.stderr.contains("INFO"), "nothing unless it is asked for: {silent:#?}");
    let scene = Scene::new(user).env("TOKA_LOG", "info");
    let told = scene.toka_run(&agents, &["--json"]);
    exit_code_of(&told, 1);
    let closed = |span: &str| told.stderr.lines().any(|line| line.contains(span) && line.contains(" close "));
    for span in ["load{", "plan{", "run{", ":admission{", ":agent{name=one}"] {
        assert!(closed(span), "{span}: {}", told.stderr);
    }
    let ended = told.stderr.lines().find(|line| line.contains("ended")).expect("the end of the agent");
    assert!(ended.contains("agent{name=one}") && ended.contains("duration_ms="), "{ended}");
    scene.assert_nothing_left();
}

fn no_span_knows_a_secret(user: User) {
    let scene = Scene::new(user)
        .env("TOKA_LOG", "trace")
        .env("TOKA_TRUST", "all")
        .env("TOKEN", "hunter2-secret")
        .env("PASSED", "hunter2-passed");
    let agent = Document::bare("one")
        .spec("process: {shell: 'test -s \"$CREDENTIALS_DIRECTORY/key\" # hunter2-command', environment: {A: hunter2-declared}, environment_from: [PASSED]}")
        .spec("secrets: {key: {env: TOKEN}}")
        .section("behavioral_directives: {tone: hunter2-section}");
    let told = scene.toka_run(&[agent], &["--json"]);
    exit_code_of(&told, 0);
    assert!(told.stderr.contains("agent{name=one}"), "{told:#?}");
    assert!(!told.stderr.contains("hunter2"), "{}", told.stderr);
    assert!(!told.stdout.contains("hunter2"), "{}", told.stdout);
}

fn output_is_kept_byte_for_byte(user: User) {
    let scene = Scene::new(user);
    let agent =
        Document::shell("noisy", "printf 'a\\000\\377\\033[2Jb'; head -c 3000000 /dev/zero; printf end");
    let finished = scene.toka_run(&[agent], &["--follow"]);
    exit_code_of(&finished, 0);
    assert!(!finished.stdout.contains('\u{1b}'), "an agent's escapes do not reach the terminal");
    let log = scene.state().join("projects").join(scene.name()).join("agents/noisy/log");
    let bytes = std::fs::read(Path::new(&log)).expect("the log");
    assert_eq!(bytes.len(), 3_000_000 + 11, "every byte, and none twice");
    assert!(bytes.starts_with(b"a\0\xff\x1b[2Jb\0") && bytes.ends_with(b"\0end"));
}

fn a_dry_run_starts_nothing(user: User) {
    let scene = Scene::new(user);
    let agents = [Document::shell("one", "echo ran > \"$TOKA_ARTIFACTS/ran\"")];
    let finished = scene.toka_run(&agents, &["--dry-run"]);
    exit_code_of(&finished, 0);
    assert!(finished.stdout.contains("one"), "{finished:#?}");
    assert_eq!(scene.artifact("one", "ran"), "");
}

fn a_later_run_finds_home_but_not_tmp(user: User) {
    let scene = Scene::new(user);
    let agents = [Document::shell(
        "one",
        "test ! -e /tmp/left; test ! -e \"$TMPDIR/left\"; touch /tmp/left; touch \"$TMPDIR/left\"; echo x >> \"$HOME/count\"; cp \"$HOME/count\" \"$TOKA_ARTIFACTS/count\"",
    )];
    for count in 1..=2 {
        exit_code_of(&scene.toka_run(&agents, &[]), 0);
        assert_eq!(scene.artifact("one", "count").lines().count(), count);
    }
    let elsewhere = Path::new("/tmp/left");
    assert!(!elsewhere.exists(), "/tmp is private");
}

/// An agent without a sandbox, such as a Toka in Toka, makes groups below its own.
#[test]
fn groups_that_an_agent_makes_go_with_it() {
    if !require(&[Need::Root, Need::Cgroups]) {
        return;
    }
    let scene = Scene::new(User::Root);
    let script = "cut -d: -f2- /proc/self/cgroup | while IFS=: read -r controller path; do
            for base in /sys/fs/cgroup/$controller /sys/fs/cgroup /sys/fs/cgroup/unified; do
                case $path in *test-*) test -d $base$path && mkdir -p $base$path/inner/deeper/still && echo made;; esac
            done
        done > \"$TOKA_ARTIFACTS/made\"";
    let agent = Document::shell("maker", script).section("security: {sandbox: false}");
    let finished = scene.toka_run(&[agent], &["--allow", "sandbox:off"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert!(finished.stdout.contains("maker: succeeded"), "{finished:#?}");
    assert!(scene.artifact("maker", "made").contains("made"), "{finished:#?}");
    scene.assert_nothing_left();
}
