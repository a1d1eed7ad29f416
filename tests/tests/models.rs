//! Agents that ask models: at a port of their own, with a key that is good nowhere else, through whatever happens to daemon and keeper.

mod models_support;
mod survive_support;

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use models_support::{asks, cost, output, scene, scripted, speak_slowly};
use serde_json::Value;
use survive_support::{daemon_pid, eventually, kill_daemon, kill_keeper, serve_again};
use toka_tests::{
    Document, Finished, Scene, Serves, User, WebServer, as_both_users, toka_binary, workspace_root,
};

as_both_users!(
    an_agent_asks_a_script_that_nobody_has_to_grant,
    each_life_of_an_agent_has_the_port,
    a_persons_key_reaches_neither_agents_nor_records,
    a_secret_that_an_agent_sends_to_a_model_is_told,
    models_are_refused_until_they_are_granted_and_configured,
    what_an_untrusted_workspace_says_of_models_does_not_count,
    who_shares_a_network_uses_no_port_of_another,
    an_agent_asks_on_when_its_daemon_was_killed,
    checks_have_no_port_that_nobody_serves,
    what_a_person_says_now_counts_for_agents_that_run,
    a_call_that_an_upgrade_cuts_has_its_receipt,
    a_person_sees_who_rests_and_has_them_asked_again,
    what_was_recorded_is_said_again,
);

fn url_of(server: &WebServer) -> String {
    format!("http://{}", server.authority())
}

fn an_agent_asks_a_script_that_nobody_has_to_grant(user: User) {
    let scene = scene(user);
    let finished = scene.toka_run(&[scripted(asks("asker", "print(ask())"))], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert_eq!(output(&scene, "asker"), "the script speaks\n");
    let (asked, answered) = (finished.all("model_asked", "asker"), finished.all("model_answered", "asker"));
    assert_eq!((asked.len(), answered.len()), (1, 1), "{finished:#?}");
    assert_eq!(asked[0]["call"], answered[0]["call"]);
    assert_eq!((&answered[0]["outcome"], &answered[0]["tokens"]["input"]), (&"completed".into(), &7.into()));
    let network = &finished.all("agent_started", "asker")[0]["enforcement"];
    assert!(
        network.to_string().contains(r#"{"layer":"network","coverage":"full"}"#)
            || network.to_string().contains(r#""coverage":"full","layer":"network""#),
        "{network}"
    );
    let sums = cost(&scene, &["--by", "model"]);
    assert_eq!(
        (&sums["sums"][0]["key"], &sums["total"]["calls"]),
        (&"script/scripted".into(), &1.into()),
        "{sums}"
    );
    scene.assert_nothing_left();
}

fn each_life_of_an_agent_has_the_port(user: User) {
    let scene = scene(user);
    let restart = "restart: {policy: on-failure, max_restarts: 2, backoff: {initial: 10ms, max: 10ms}}";
    let finished = scene.toka_run(
        &[scripted(asks("flapping", "print(ask(), flush=True); sys.exit(3)").spec(restart))],
        &["--json"],
    );
    assert_eq!(finished.all("model_answered", "flapping").len(), 3, "{finished:#?}");
    assert_eq!(output(&scene, "flapping"), "the script speaks\n".repeat(3));
    scene.assert_nothing_left();
}

/// `~/.config/toka/toka.yaml` of the person, with a provider at this address.
fn person_says(scene: &Scene, url: &str) {
    let config = scene.home().join(".config/toka");
    scene.make_folder(&scene.home().join(".config"));
    scene.make_folder(&config);
    let text = format!(
        "models:\n  use: [lab/m]\n  providers:\n    lab: {{wire: anthropic, url: \"{url}\", key: {{env: LAB_KEY}}, timeout: 5s}}\n"
    );
    scene.write(&config.join("toka.yaml"), &text);
}

fn a_persons_key_reaches_neither_agents_nor_records(user: User) {
    const PLANTED: &str = "sk-planted-0123456789";
    let server = WebServer::new(Serves::Status(500));
    let scene = scene(user).env("LAB_KEY", PLANTED).env("ANTHROPIC_API_KEY", PLANTED);
    person_says(&scene, &url_of(&server));
    let python = "print(ask()); print(dict(os.environ)); os.system('cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null')";
    let finished = scene
        .toka_run(&[asks("asker", python).spec("model: default")], &["--json", "--allow", "model-access"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let posted = server.posted();
    assert!(!posted.is_empty(), "the provider was asked: {finished:#?}");
    for request in &posted {
        assert!(
            request.headers.iter().any(|line| line.eq_ignore_ascii_case(&format!("x-api-key: {PLANTED}"))),
            "{request:?}"
        );
        assert!(!format!("{request:?}").contains("sk-toka-"), "the agent's own key stays here");
    }
    let seen = output(&scene, "asker");
    assert!(seen.contains("sk-toka-") && !seen.contains(PLANTED), "{seen}");
    assert!(!format!("{finished:?}").contains(PLANTED));
    assert_eq!(files_with(&scene.state(), PLANTED), Vec::<String>::new());
    scene.assert_nothing_left();
}

/// The files below a folder that hold a text.
fn a_secret_that_an_agent_sends_to_a_model_is_told(user: User) {
    const SECRET: &str = "hunter2-of-the-host";
    let server = WebServer::new(Serves::Status(200));
    let scene = scene(user).env("LAB_KEY", "sk-real-key").env("TOKEN", SECRET);
    person_says(&scene, &url_of(&server));
    let python = "print(ask(text=open(os.environ['CREDENTIALS_DIRECTORY'] + '/token').read()))";
    let asker = asks("asker", python).spec("model: default").spec("secrets: {token: {env: TOKEN}}");
    let allowed = ["--json", "--allow", "model-access", "--allow", "secret-variable:TOKEN"];
    let finished = scene.toka_run(&[asker], &allowed);
    assert!(server.posted().iter().any(|request| format!("{request:?}").contains(SECRET)), "{finished:#?}");
    let told = finished.all("secret_sent", "asker");
    assert_eq!(told.len(), 1, "{finished:#?}");
    assert_eq!((&told[0]["secret"], &told[0]["to"]), (&"the secret token of asker".into(), &"lab".into()));
    assert!(!finished.stdout.contains(SECRET) && !finished.stderr.contains(SECRET));
    assert_eq!(files_with(&scene.state(), SECRET), Vec::<String>::new());
    scene.assert_nothing_left();
}

fn files_with(folder: &Path, text: &str) -> Vec<String> {
    let found = Command::new("grep").args(["-rlaF", text]).arg(folder).output().expect("grep");
    String::from_utf8_lossy(&found.stdout).lines().map(str::to_owned).collect()
}

fn models_are_refused_until_they_are_granted_and_configured(user: User) {
    let agent = || asks("asker", "print(ask())").spec("model: [lab/m]");
    let bare = scene(user);
    let unconfigured = bare.toka_run(&[agent()], &["--allow", "model-access"]);
    assert_eq!(unconfigured.code, Some(78), "{unconfigured:#?}");
    assert!(unconfigured.stderr.contains("ANTHROPIC_API_KEY is not set"), "{unconfigured:#?}");
    let server = WebServer::new(Serves::Status(500));
    let configured = scene(user).env("LAB_KEY", "sk-x");
    person_says(&configured, &url_of(&server));
    let ungranted = configured.toka_run(&[agent()], &[]);
    assert_eq!(ungranted.code, Some(77), "{ungranted:#?}");
    assert!(ungranted.stderr.contains("--allow model-access"), "{ungranted:#?}");
    let slip = asks("asker", "print(ask())").spec("model: [lab/m, nolab/m]");
    let unknown = configured.toka_run(&[slip], &["--allow", "model-access"]);
    assert_eq!(unknown.code, Some(78), "{unknown:#?}");
    assert!(unknown.stderr.contains("there is no provider \"nolab\""), "{unknown:#?}");
    let folder = configured.run_words(&[], &[]).remove(2);
    let words = ["plan", "--json", "--workdir"].map(OsString::from).to_vec();
    let words = [vec![toka_binary().into()], words, vec![configured.workspace().into(), folder]].concat();
    let planned = configured.run(&words);
    let planned: Value = serde_json::from_str(&planned.stdout).expect("JSON");
    let models = planned["agents"][0]["models"].as_array().expect("models");
    let told: Vec<_> =
        models.iter().map(|model| (model["model"].as_str(), model["unusable"].as_str())).collect();
    let expected = [(Some("lab/m"), None), (Some("nolab/m"), Some("no provider has this name"))];
    assert_eq!(told, expected, "{planned:#}");
    assert!(server.posted().is_empty());
    let broken = scene(user);
    broken.write(&broken.workspace().join("answers.script"), "turns: [{txt: hi}]\n");
    let refused = broken.toka_run(&[scripted(asks("asker", ""))], &[]);
    assert_eq!(refused.code, Some(78), "{refused:#?}");
    assert!(refused.stderr.contains("unknown field `txt`"), "{refused:#?}");
}

fn what_an_untrusted_workspace_says_of_models_does_not_count(user: User) {
    let server = WebServer::new(Serves::Status(500));
    let scene = scene(user).env("LAB_KEY", "sk-x");
    let text = format!(
        "models: {{use: [evil/m], providers: {{evil: {{wire: anthropic, url: \"{}\"}}}}}}\n",
        url_of(&server)
    );
    scene.write(&scene.workspace().join("toka.yaml"), &text);
    let agent = || asks("asker", "ask()").spec("model: default");
    let refused = scene.toka_run(&[agent()], &["--allow", "model-access"]);
    assert_eq!(refused.code, Some(78), "{refused:#?}");
    assert!(refused.stderr.contains("nobody has trusted"), "{refused:#?}");
    assert!(server.posted().is_empty());
    let trusted = scene.toka_run(&[agent()], &["--trust"]);
    assert_eq!(trusted.code, Some(0), "{trusted:#?}");
    assert!(!server.posted().is_empty());
}

fn who_shares_a_network_uses_no_port_of_another(user: User) {
    let scene = scene(user);
    let shares = "security: {network: project, capabilities_required: [filesystem-read]}";
    let tells = "print(os.environ['ANTHROPIC_BASE_URL'], flush=True); print(ask(), flush=True)
port = os.environ['ANTHROPIC_BASE_URL'] + ' ' + os.environ['ANTHROPIC_API_KEY']
open(os.path.join(os.environ['TOKA_ARTIFACTS'], 'port'), 'w').write(port)
os.system('toka report ready'); import time; time.sleep(600)";
    let tries = "base, key = open(os.path.join(os.environ['TOKA_INPUTS'], 'one', 'port')).read().split()
assert base != os.environ['ANTHROPIC_BASE_URL']
def attempt(**words):
    try:
        return ask(**words)
    except Exception as error:
        return type(error).__name__
print(ask()); print(ask(key=key)); print(attempt(base=base)); print(attempt(base=base, key=key))";
    let program = |python: &str| format!("import sys; sys.path.insert(0, '.'); from ask import *\n{python}");
    let one = Document::command("one", &["/usr/bin/python3", "-B", "-c", &program(tells)])
        .section(shares)
        .spec("type: service")
        .spec("readiness_probe: {}");
    let two = Document::command("two", &["/usr/bin/python3", "-B", "-c", &program(tries)])
        .section(shares)
        .section("dependencies: {required: {one: {reason: its port, condition: ready}}}");
    let finished = scene.toka_run(&[scripted(one), scripted(two)], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let seen = output(&scene, "two");
    let lines: Vec<&str> = seen.lines().collect();
    let [asked, with_its_key, at_its_port, with_both] = lines[..] else { panic!("{seen}") };
    assert_eq!(asked, "the script speaks");
    assert!(with_its_key.starts_with("401 ") && with_its_key.contains("authentication_error"), "{seen}");
    for cut in [at_its_port, with_both] {
        assert!(["RemoteDisconnected", "ConnectionResetError", "URLError"].contains(&cut), "{seen}");
    }
    let refused = |agent| -> Vec<Value> {
        let answered = finished.all("model_answered", agent).into_iter();
        answered.filter(|event| event["outcome"] == "refused").collect()
    };
    assert_eq!(refused("two").len(), 1, "{finished:#?}");
    assert_eq!(refused("one").len(), 2, "whose port it is hears of it: {finished:#?}");
    assert!(refused("one")[0].to_string().contains("is not the agent's"), "{finished:#?}");
    scene.assert_nothing_left();
}

/// A service that asks again and again, and says how often it was answered.
fn persistent() -> Document {
    let python = "import time
count = 0
while True:
    try:
        count += ask() == 'the script speaks'
    except Exception as error:
        pass
    print(count, flush=True)
    time.sleep(0.05)";
    scripted(asks("asker", python).spec("type: service"))
}

fn answers(scene: &Scene) -> u64 {
    output(scene, "asker").lines().last().and_then(|line| line.parse().ok()).unwrap_or(0)
}

fn grows(scene: &Scene) {
    let before = answers(scene);
    eventually("it is answered again", || answers(scene) > before + 1);
}

fn an_agent_asks_on_when_its_daemon_was_killed(user: User) {
    let scene = scene(user);
    let detached = scene.detach(&[persistent()]);
    eventually("it is answered", || answers(&scene) > 0);
    let pid = detached.inspect("asker")["pid"].clone();
    for _ in 0..2 {
        kill_daemon(&scene);
        serve_again(&scene);
        grows(&scene);
    }
    assert_eq!(detached.inspect("asker")["pid"], pid);
    let sums = cost(&scene, &[]);
    let (calls, open) = (sums["total"]["calls"].as_u64(), sums["total"]["open"].as_u64());
    assert!(calls > Some(4) && open <= Some(3), "each kill cuts one call at most, and one goes on: {sums}");
}

fn checks_have_no_port_that_nobody_serves(user: User) {
    let scene = scene(user);
    let refused = "import os, socket
port = int(os.environ['ANTHROPIC_BASE_URL'].rsplit(':', 1)[1])
raise SystemExit(socket.socket().connect_ex(('127.0.0.1', port)) != 111)";
    scene.write(&scene.workspace().join("check.py"), refused);
    let check = "objectives: [{description: told at once, check: /usr/bin/python3 -B check.py}]";
    let finished = scene.toka_run(&[scripted(asks("asker", "print(ask())").section(check))], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let checked = finished.all("objective_checked", "asker");
    assert_eq!(checked[0]["met"], true, "{finished:#?}");
    scene.assert_nothing_left();
}

/// Also for agents that run, and whose declaration is as before.
fn what_a_person_says_now_counts_for_agents_that_run(user: User) {
    let server = WebServer::new(Serves::Status(500));
    let scene = scene(user).env("LAB_KEY", "sk-old");
    person_says(&scene, &url_of(&server));
    let python = "import time
while True:
    ask(); time.sleep(0.05)";
    let agents = [asks("asker", python).spec("type: service").spec("model: default")];
    let allow = ["--allow", "model-access"];
    let _detached = scene.adopt();
    let begun = scene.toka_run(&agents, &["--detach", allow[0], allow[1]]);
    assert_eq!(begun.code, Some(0), "{begun:#?}");
    let has = |key: &str| {
        let line = format!("x-api-key: {key}");
        server.posted().iter().any(|request| request.headers.iter().any(|it| it.eq_ignore_ascii_case(&line)))
    };
    eventually("it asks with the first key", || has("sk-old"));
    let mut words = scene.run_words(&agents, &allow);
    words[1] = "apply".into();
    let with_another: Vec<OsString> =
        ["env", "LAB_KEY=sk-new"].map(OsString::from).into_iter().chain(words).collect();
    let applied = scene.run(&with_another);
    assert_eq!(applied.code, Some(0), "{applied:#?}");
    assert!(applied.stdout.contains("keys of models are others"), "{applied:#?}");
    eventually("it asks with the second", || has("sk-new"));
}

/// Another program in the place of the daemon knows nothing of what was in flight.
fn a_person_sees_who_rests_and_has_them_asked_again(user: User) {
    let server = WebServer::new(Serves::Status(401));
    let scene = scene(user).env("LAB_KEY", "sk-refused");
    person_says(&scene, &url_of(&server));
    let models = |more: &[&str]| {
        let workspace = scene.workspace();
        let workspace = workspace.to_str().expect("a path");
        let words = ["models", "--json", "--workdir", workspace, "--project", scene.name()];
        scene.toka(&[&words, more].concat())
    };
    let idle = models(&["--wake"]);
    assert_eq!(idle.code, Some(69), "{idle:#?}");
    let _detached = scene.adopt();
    let agent = asks("asker", "ask(); import time; time.sleep(1000)").spec("model: default");
    let begun = scene.toka_run(&[agent], &["--detach", "--allow", "model-access"]);
    assert_eq!(begun.code, Some(0), "{begun:#?}");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon_pid(&scene))).expect("it lives");
    let of_cores = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap_or_default();
    assert!(["0", "1"].contains(&of_cores.split_whitespace().nth(4).unwrap_or_default()), "{of_cores}");
    let resting = |finished: Finished| -> Vec<Value> {
        let said: Value = serde_json::from_str(&finished.stdout).unwrap_or_else(|_| panic!("{finished:#?}"));
        said["run"]["resting"].as_array().cloned().unwrap_or_default()
    };
    eventually("it rests", || !resting(models(&[])).is_empty());
    let all = resting(models(&[]));
    assert_eq!((&all[0]["provider"], &all[0]["model"]), (&"lab".into(), &Value::Null), "{all:?}");
    assert!((1..=60_000).contains(&all[0]["left_ms"].as_u64().expect("a number")), "{all:?}");
    assert_eq!(resting(models(&["--wake"])).len(), 1, "those are told that are woken");
    assert_eq!(resting(models(&[])), Vec::<Value>::new());
}

fn what_was_recorded_is_said_again(user: User) {
    let scene = scene(user);
    let recorded = scene.workspace().join("recorded.script");
    let record = |agents: &[Document]| {
        let mut words = scene.run_words(agents, &[]);
        words[1] = "record".into();
        words.insert(2, recorded.clone().into());
        scene.run(&words)
    };
    let silent = record(&[Document::shell("silent", "true")]);
    assert!(silent.code == Some(0) && silent.stderr.contains("was not written"), "{silent:#?}");
    assert!(!recorded.exists());
    let python = "print(ask()); print(ask(text='and \"you\"?'))";
    let first = record(&[scripted(asks("asker", python))]);
    assert_eq!(first.code, Some(0), "{first:#?}");
    assert!(first.stderr.contains("recorded 2 answers of 2 conversations"), "{first:#?}");
    let text =
        std::fs::read_to_string(&recorded).expect("a script").replace("the script speaks", "it speaks again");
    scene.write(&scene.workspace().join("again.script"), &text);
    let again = asks("asker", python).spec("model: {script: again.script}");
    let second = scene.toka_run(&[again], &["--json"]);
    assert_eq!(second.code, Some(0), "{second:#?}\n{text}");
    assert!(
        output(&scene, "asker").ends_with("it speaks again\nit speaks again\n"),
        "{}",
        output(&scene, "asker")
    );
    assert_eq!(second.all("model_answered", "asker")[0]["tokens"]["input"], 7, "{second:#?}");
    let refused = record(&[Document::shell("silent", "true")]);
    assert!(refused.code == Some(2) && refused.stderr.contains("is there already"), "{refused:#?}");
}

fn a_call_that_an_upgrade_cuts_has_its_receipt(user: User) {
    let scene = scene(user);
    speak_slowly(&scene);
    let python = "import http.client, time
while True:
    try:
        request = urllib.request.Request(os.environ['OPENAI_BASE_URL'] + '/chat/completions',
            data=json.dumps({'model': 'default', 'stream': True, 'messages': []}).encode(),
            headers={'authorization': 'Bearer ' + os.environ['OPENAI_API_KEY']})
        for line in urllib.request.urlopen(request):
            print(line, flush=True)
    except Exception as error:
        print('gone', error, flush=True)
        time.sleep(0.05)";
    let detached = scene.detach(&[scripted(asks("asker", python).spec("type: service"))]);
    eventually("the answer comes", || output(&scene, "asker").contains("word"));
    detached.toka(&["upgrade"]);
    let cut = |event: &Value| {
        event["outcome"] == "cut"
            && event["reason"].as_str().is_some_and(|why| why.contains("replaced by another program"))
    };
    eventually("its end is told", || survive_support::told(&detached, "model_answered").iter().any(cut));
    eventually("it asks again", || survive_support::told(&detached, "model_asked").len() > 1);
}

#[test]
fn an_agent_asks_on_when_its_keeper_was_killed() {
    let Some(user) = User::root() else { return };
    let scene = scene(user);
    let _detached = scene.detach(&[persistent()]);
    eventually("it is answered", || answers(&scene) > 0);
    kill_keeper(&scene);
    grows(&scene);
    // What the next keeper holds is what the next daemon gets.
    kill_daemon(&scene);
    serve_again(&scene);
    grows(&scene);
}

#[test]
fn the_example_runs_without_a_key() {
    let folder = tempfile::tempdir_in("/var/tmp").expect("a folder");
    let finished: Finished = Command::new(toka_binary())
        .args(["run", "--state-dir"])
        .arg(folder.path())
        .args(["--max-memory-pressure=100", "--max-io-pressure=100", "agents/scripted-door"])
        .current_dir(workspace_root())
        .output()
        .map(Finished::from)
        .expect("the command starts");
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let answer = "projects";
    let found = files_with(&folder.path().join(answer), "There are three files");
    assert!(found.iter().any(|path| path.ends_with("artifacts/answer.txt")), "{found:?}");
}
