//! Budgets: a call that does not fit waits, its agent is frozen, and a person decides; whatever happens to the daemon meanwhile.

mod models_support;
mod survive_support;

use models_support::{asks, asks_within, cost, output, scene, scripted, speak_slowly};
use serde_json::Value;
use survive_support::{eventually, kill_daemon, serve_again, told};
use toka_tests::{Detached, Document, Scene, User, as_both_users};

as_both_users!(
    an_agent_whose_budget_is_used_up_is_frozen_until_a_person_decides,
    what_nobody_answers_ends_the_agent,
    an_approval_outlives_its_daemon,
    a_hundred_calls_at_once_never_exceed_a_budget,
    agents_share_the_budget_of_the_run,
    no_agent_answers_an_approval,
    another_budget_lets_the_agent_go_on,
    a_pause_of_a_person_is_not_undone_by_an_answer,
    an_approval_ends_with_the_life_that_asked,
    what_the_agent_asks_for_is_no_sum_that_a_plain_yes_gives,
    money_is_counted_and_a_workstream_cannot_raise_what_a_person_says,
    a_call_that_a_killed_daemon_leaves_has_an_end,
    a_kill_at_any_moment_leaves_each_call_one_end,
);

/// Asks again and again, and says how often it was answered, or what it was told.
const PERSISTENT: &str = "import time
count = 0
while True:
    try:
        answer = ask()
        count += answer == 'the script speaks'
        print(count if answer == 'the script speaks' else answer, flush=True)
    except Exception as error:
        print('gone', error, flush=True)
    time.sleep(0.01)";

fn service(name: &str, budget: &str) -> Document {
    let budget = format!("security: {{capabilities_required: [filesystem-read], budget: {budget}}}");
    scripted(asks_within(name, PERSISTENT, &budget).spec("type: service"))
}

fn answers(scene: &Scene, agent: &str) -> u64 {
    output(scene, agent).lines().filter_map(|line| line.parse().ok()).max().unwrap_or(0)
}

fn approvals(scene: &Scene) -> Vec<Value> {
    let listed = scene.toka(&["approvals", "--json", "--project", scene.name()]);
    assert_eq!(listed.code, Some(0), "{listed:#?}");
    serde_json::from_str(&listed.stdout).expect("JSON")
}

fn waits(scene: &Scene) -> Value {
    eventually("somebody waits", || !approvals(scene).is_empty());
    approvals(scene).remove(0)
}

/// It is frozen where there are control groups; an ordinary user has none here, and then only its calls wait.
fn is_held(detached: &Detached<'_>, agent: &str, user: User) {
    match user {
        User::Root => {
            eventually("it is frozen", || detached.inspect(agent)["state"] == "paused");
            assert_eq!(detached.inspect(agent)["paused_by"], "budget");
        }
        User::Ordinary => assert_eq!(detached.inspect(agent)["state"], "running"),
    }
    assert!(told(detached, "request_failed").is_empty());
}

fn answer(scene: &Scene, words: &[&str]) -> toka_tests::Finished {
    scene.toka(&[&["approvals"], words, &["--project", scene.name()]].concat())
}

fn an_agent_whose_budget_is_used_up_is_frozen_until_a_person_decides(user: User) {
    let scene = scene(user);
    let detached = scene.detach(&[service("asker", "{calls: 3}")]);
    let open = waits(&scene);
    assert_eq!(
        (&open["id"], &open["kind"], &open["measure"]),
        (&1.into(), &"budget".into(), &"calls".into()),
        "{open}"
    );
    assert_eq!((&open["used"], &open["limit"], &open["agents"][0]), (&3.into(), &3.into(), &"asker".into()));
    is_held(&detached, "asker", user);
    eventually("its answers are written", || answers(&scene, "asker") == 3);
    let known = detached.inspect("asker");
    let used = known["budget"].as_array().expect("a list").iter();
    let calls: Vec<&Value> = used.filter(|used| used["measure"] == "calls").collect();
    let use_of = |scope: &str, limit: u64| serde_json::json!({"scope": scope, "measure": "calls", "used": 3, "reserved": 0, "limit": limit});
    assert_eq!(calls, [&use_of("agent", 3), &use_of("run", 20_000)], "{known}");
    let listed = scene.toka(&["ps", "--project", scene.name()]);
    assert!(listed.stdout.contains("waits for a person (`toka approvals`, 1)"), "{listed:#?}");
    let health = scene.toka(&["health", "--json", "--project", scene.name()]);
    assert!(health.stdout.contains("awaits_approval"), "{health:#?}");

    for bad in [
        ["approve", "7"].as_slice(),
        &["approve", "1", "--raise", "0"],
        &["approve", "1", "--raise", "x"],
        &["deny", "x"],
    ] {
        assert_eq!(answer(&scene, bad).code, Some(2), "{bad:?}");
    }
    let yes = answer(&scene, &["approve", "1", "--raise", "2"]);
    assert_eq!(
        (yes.code, yes.stdout.as_str()),
        (Some(0), format!("{}/1  approved: 2 more calls\n", scene.name()).as_str())
    );
    eventually("it asks for more", || approvals(&scene).first().is_some_and(|open| open["id"] == 2));
    eventually("two more were answered", || answers(&scene, "asker") == 5);
    let again = answer(&scene, &["deny", "1"]);
    assert_eq!(again.code, Some(2), "{again:#?}");

    let no = answer(&scene, &["deny"]);
    assert_eq!(no.code, Some(0), "{no:#?}");
    eventually("it has ended", || detached.inspect("asker")["state"] == "ended");
    let exit = &detached.inspect("asker")["exit"];
    assert_eq!(exit["cause"], "budget", "{exit}");
    assert!(
        exit["reason"].as_str().is_some_and(|why| why.contains("5 of 5 calls") && why.contains("operator")),
        "{exit}"
    );
    assert_eq!(answers(&scene, "asker"), 5);
    let answered = told(&detached, "approval_answered");
    let words: Vec<_> = answered.iter().filter_map(|event| event["answer"].as_str()).collect();
    assert_eq!(words, ["approved", "denied"]);
    assert!(answered.iter().all(|event| event["uid"].is_u64() && event["by"] == "operator"), "{answered:?}");
    assert_eq!(told(&detached, "budget_nearing").len(), 1, "at 4 of 5 calls");

    // Somebody who begins it anew gives it its budget again.
    detached.toka(&["start", "asker"]);
    eventually("it asks again", || approvals(&scene).first().is_some_and(|open| open["id"] == 3));
    assert_eq!(approvals(&scene)[0]["limit"], 3);
}

fn what_nobody_answers_ends_the_agent(user: User) {
    let scene = scene(user);
    person_says(&scene, "approvals: {expire: 0s}\n");
    let agent = service("asker", "{tokens: 5}").spec("restart: {policy: always}");
    let finished = scene.toka_run(&[agent], &["--json"]);
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    let exit = finished.exit_of("asker");
    assert!(exit["reason"].as_str().is_some_and(|why| why.contains("nobody has answered in time")), "{exit}");
    assert_eq!(finished.all("agent_started", "asker").len(), 1, "it is not started again: {finished:#?}");
    assert_eq!(answers(&scene, "asker"), 0, "a call that may read and write more than 5 tokens is not sent");
    let told = output(&scene, "asker");
    assert!(told.is_empty() || told.contains("402") && told.contains("billing_error"), "{told}");
    scene.assert_nothing_left();
}

fn an_approval_outlives_its_daemon(user: User) {
    let scene = scene(user);
    let detached = scene.detach(&[service("asker", "{calls: 3}")]);
    waits(&scene);
    is_held(&detached, "asker", user);
    kill_daemon(&scene);
    serve_again(&scene);
    assert_eq!(waits(&scene)["id"], 1);
    is_held(&detached, "asker", user);
    assert_eq!(answer(&scene, &["approve", "1"]).code, Some(0));
    eventually("it asks for more", || approvals(&scene).first().is_some_and(|open| open["id"] == 2));
    assert_eq!(approvals(&scene)[0]["limit"], 6, "what was given is remembered");
    kill_daemon(&scene);
    serve_again(&scene);
    assert_eq!(waits(&scene)["limit"], 6);
    // The call that waited went with its daemon, and is asked again: it was never sent.
    let sums = cost(&scene, &[]);
    assert_eq!((&sums["total"]["calls"], &sums["total"]["open"]), (&6.into(), &0.into()), "{sums}");
}

fn a_hundred_calls_at_once_never_exceed_a_budget(user: User) {
    let scene = scene(user);
    let python = "import threading
threading.stack_size(256 * 1024)
def one(number):
    print(ask(text=str(number))[:17], flush=True)
threads = [threading.Thread(target=one, args=[number]) for number in range(100)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]";
    let budget = "security: {capabilities_required: [filesystem-read], budget: {calls: 10}, resource_limits: {max_memory: 2GiB}}";
    let detached = scene.detach(&[scripted(asks_within("asker", python, budget))]);
    waits(&scene);
    is_held(&detached, "asker", user);
    assert_eq!(told(&detached, "model_asked").len(), 10);
    assert_eq!(told(&detached, "approval_asked").len(), 1, "90 calls ask once");
    assert_eq!(answer(&scene, &["approve", "--raise", "90"]).code, Some(0));
    eventually("it ends", || detached.inspect("asker")["state"] == "ended");
    assert_eq!(output(&scene, "asker"), "the script speaks\n".repeat(100));
    assert_eq!(told(&detached, "model_asked").len(), 100);
}

fn agents_share_the_budget_of_the_run(user: User) {
    let scene = scene(user);
    person_says(&scene, "budgets: {run: {calls: 4}}\n");
    let detached = scene.detach(&[service("one", "{calls: 100}"), service("two", "{calls: 100}")]);
    eventually("both wait for one answer", || {
        approvals(&scene)
            .first()
            .is_some_and(|open| open["agents"].as_array().is_some_and(|all| all.len() == 2))
    });
    assert_eq!(approvals(&scene).len(), 1);
    assert_eq!(approvals(&scene)[0]["scope"], "run");
    assert_eq!(told(&detached, "model_asked").len(), 4);
    for agent in ["one", "two"] {
        is_held(&detached, agent, user);
    }
    assert_eq!(answer(&scene, &["deny"]).code, Some(0));
    for agent in ["one", "two"] {
        eventually("it has ended", || detached.inspect(agent)["exit"]["cause"] == "budget");
    }
}

fn another_budget_lets_the_agent_go_on(user: User) {
    let scene = scene(user);
    let detached = scene.detach(&[service("asker", "{calls: 2}")]);
    waits(&scene);
    is_held(&detached, "asker", user);
    let applied = scene.apply(&[service("asker", "{calls: 1000000}")], &[]);
    assert_eq!(applied.code, Some(0), "{applied:#?}");
    eventually("it is answered again", || answers(&scene, "asker") > 4);
    assert_eq!(approvals(&scene), Vec::<Value>::new());
    assert_eq!(detached.inspect("asker")["state"], "running");
    assert_eq!(told(&detached, "approval_answered")[0]["answer"], "withdrawn");
    assert_eq!(told(&detached, "agent_started").len(), 1, "it was not begun anew");
}

fn a_pause_of_a_person_is_not_undone_by_an_answer(user: User) {
    if user != User::Root {
        // Without groups of its own an ordinary user has nothing to freeze with.
        return;
    }
    let scene = scene(user);
    let detached = scene.detach(&[service("asker", "{calls: 2}")]);
    waits(&scene);
    is_held(&detached, "asker", user);
    detached.toka(&["pause", "asker"]);
    eventually("it is a person's pause", || detached.inspect("asker")["paused_by"] == "operator");
    assert_eq!(answer(&scene, &["approve", "--raise", "100k"]).code, Some(0));
    eventually("nobody is asked any more", || approvals(&scene).is_empty());
    kill_daemon(&scene);
    serve_again(&scene);
    assert_eq!(detached.inspect("asker")["state"], "paused");
    detached.toka(&["resume", "asker"]);
    eventually("it is answered again", || answers(&scene, "asker") > 4);
}

fn an_approval_ends_with_the_life_that_asked(user: User) {
    let scene = scene(user);
    // It dies soon after it has asked once too often; one that is frozen is killed.
    let python = "import threading, time
print(ask(), flush=True)
threading.Thread(target=ask, daemon=True).start()
time.sleep(0.3); os._exit(1)";
    let budget = "security: {capabilities_required: [filesystem-read], budget: {calls: 1}}";
    let restart = "restart: {policy: always, max_restarts: 100, backoff: {initial: 10ms, max: 10ms}}";
    let agent = scripted(asks_within("asker", python, budget).spec("type: service").spec(restart));
    let detached = scene.detach(&[agent]);
    waits(&scene);
    is_held(&detached, "asker", user);
    if user == User::Root {
        detached.toka(&["signal", "KILL", "asker"]);
    }
    eventually("its next life asks anew", || {
        approvals(&scene).first().is_some_and(|open| open["id"].as_u64() > Some(1))
    });
    let answered = told(&detached, "approval_answered");
    assert_eq!(answered[0]["answer"], "withdrawn", "{answered:?}");
    detached.toka(&["stop", "asker"]);
    eventually("nobody waits any more", || approvals(&scene).is_empty());
}

fn what_the_agent_asks_for_is_no_sum_that_a_plain_yes_gives(user: User) {
    let scene = scene(user);
    let python = "import urllib.request
request = urllib.request.Request(os.environ['ANTHROPIC_BASE_URL'] + '/v1/messages',
    data=json.dumps({'model': 'default', 'max_tokens': 9000000, 'messages': []}).encode(),
    headers={'x-api-key': os.environ['ANTHROPIC_API_KEY'], 'anthropic-version': '2023-06-01'})
print(json.load(urllib.request.urlopen(request))['content'][0]['text'])";
    let budget = "security: {capabilities_required: [filesystem-read], budget: {tokens: 1k}}";
    let detached = scene.detach(&[scripted(asks_within("asker", python, budget))]);
    waits(&scene);
    let plain = answer(&scene, &["approve"]);
    assert!(plain.code == Some(2) && plain.stderr.contains("--raise"), "{plain:#?}");
    assert_eq!(answer(&scene, &["approve", "--raise", "10M"]).code, Some(0));
    eventually("it ends", || detached.inspect("asker")["state"] == "ended");
    assert_eq!(output(&scene, "asker"), "the script speaks\n");
}

/// Not even one without a sandbox, whose user may open the socket.
fn no_agent_answers_an_approval(user: User) {
    let scene = scene(user);
    let toka = toka_tests::toka_binary().display().to_string();
    let state = scene.state().display().to_string();
    let line = format!("{toka} approvals approve {}/1 --state-dir {state} 2>&1; true", scene.name());
    let rogue = Document::shell("rogue", &line).section("security: {sandbox: false, network: full}");
    let rogue = rogue.section("dependencies: {optional: {asker: {reason: r, condition: process_started}}}");
    let options = ["--detach", "--allow", "sandbox:off", "--allow", "network:full"];
    let started = scene.toka_run(&[service("asker", "{calls: 1}"), rogue], &options);
    let detached = scene.adopt();
    assert_eq!(started.code, Some(0), "{started:#?}");
    waits(&scene);
    detached.toka(&["wait", "rogue"]);
    let told = output(&scene, "rogue");
    assert!(told.contains("agents may not control Toka"), "{told}");
    assert_eq!(waits(&scene)["id"], 1);
}

/// `~/.config/toka/toka.yaml` of the person.
fn person_says(scene: &Scene, text: &str) {
    let config = scene.home().join(".config/toka");
    scene.make_folder(&scene.home().join(".config"));
    scene.make_folder(&config);
    scene.write(&config.join("toka.yaml"), text);
}

fn money_is_counted_and_a_workstream_cannot_raise_what_a_person_says(user: User) {
    let scene = scene(user);
    let script = scene.workspace().join("answers.script");
    person_says(
        &scene,
        &format!(
            "models:\n  use: [demo/m]\n  providers: {{demo: {{wire: scripted, file: {}}}}}\n  prices: {{demo/m: {{input: 0, output: 100000}}}}\n\
             budgets: {{agent: {{money: 2.5}}}}\napprovals: {{expire: 0s}}\n",
            script.display()
        ),
    );
    // Each call may write 9 tokens for 10 cents each, and writes 3.
    let security = "security: {capabilities_required: [filesystem-read], budget: {money: 1000}}";
    let agent = asks_within("asker", PERSISTENT, security).spec("type: service").spec("model: default");
    let finished = scene.toka_run(&[agent], &["--json", "--allow", "model-access"]);
    let exit = finished.exit_of("asker");
    let reason = exit["reason"].as_str().unwrap_or_default();
    // 6 calls are $1.80, and a seventh may cost $0.90.
    assert!(
        reason.starts_with("$1.80 of $2.50 of its budget are used, and the next call may use up to $0.90"),
        "{reason}"
    );
    assert_eq!(cost(&scene, &[])["total"]["usd"], 1.8);
}

fn a_call_that_a_killed_daemon_leaves_has_an_end(user: User) {
    let scene = scene(user);
    speak_slowly(&scene);
    let python = "import http.client, time
request = urllib.request.Request(os.environ['OPENAI_BASE_URL'] + '/chat/completions',
    data=json.dumps({'model': 'default', 'stream': True, 'messages': []}).encode(),
    headers={'authorization': 'Bearer ' + os.environ['OPENAI_API_KEY']})
try:
    for line in urllib.request.urlopen(request):
        print(line, flush=True)
except Exception as error:
    print('gone', error, flush=True)
time.sleep(600)";
    let detached = scene.detach(&[scripted(asks("asker", python).spec("type: service"))]);
    eventually("the answer comes", || output(&scene, "asker").contains("word"));
    kill_daemon(&scene);
    serve_again(&scene);
    eventually("its end is told", || {
        told(&detached, "model_answered")
            .iter()
            .any(|event| event["reason"] == "the daemon was killed" && event["outcome"] == "cut")
    });
    let sums = cost(&scene, &[]);
    let total = &sums["total"];
    assert_eq!(
        (&total["calls"], &total["open"], &total["unknown"]),
        (&1.into(), &0.into(), &1.into()),
        "{sums}"
    );
}

/// Whenever a daemon is killed, each call has one intent and one end, whatever became of it, and the next daemon serves the same port.
fn a_kill_at_any_moment_leaves_each_call_one_end(user: User) {
    let scene = scene(user);
    scene.write(
        &scene.workspace().join("answers.script"),
        "turns: [{text: 'one two three four five six seven eight', usage: {input: 7, output: 3}, delay: 3ms}]\n",
    );
    let python = "import time
while True:
    try:
        request = urllib.request.Request(os.environ['OPENAI_BASE_URL'] + '/chat/completions',
            data=json.dumps({'model': 'default', 'stream': True, 'messages': []}).encode(),
            headers={'authorization': 'Bearer ' + os.environ['OPENAI_API_KEY']})
        print(len(urllib.request.urlopen(request, timeout=20).read()), flush=True)
    except Exception as error:
        print('gone', flush=True)
        time.sleep(0.005)";
    let agent = scripted(asks("asker", python).spec("type: service"));
    let detached = scene.detach(&[agent]);
    let whole = || output(&scene, "asker").lines().filter(|line| *line != "gone").count();
    // Spread over the length of a call, which the times of starting again vary further.
    let kills: u64 = std::env::var("TOKA_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(8);
    for kill in 0..kills {
        let before = whole();
        eventually("it is answered", || whole() > before);
        std::thread::sleep(std::time::Duration::from_micros(kill * 7_919 % 40_000));
        kill_daemon(&scene);
        serve_again(&scene);
    }
    let before = whole();
    eventually("it is answered by the last one", || whole() > before + 1);
    detached.toka(&["stop", "asker"]);
    let numbers = |kind: &str| -> Vec<u64> {
        let mut numbers: Vec<u64> =
            told(&detached, kind).iter().filter_map(|event| event["call"].as_u64()).collect();
        numbers.sort_unstable();
        numbers
    };
    let (asked, answered) = (numbers("model_asked"), numbers("model_answered"));
    assert_eq!(asked, answered, "one end for each intent");
    assert!(asked.windows(2).all(|pair| pair[0] < pair[1]), "and no number twice");
    let ends = told(&detached, "model_answered");
    let output = |event: &Value| event["tokens"]["output"].as_u64().unwrap_or(0);
    assert!(ends.iter().filter(|end| end["outcome"] == "completed").all(|end| output(end) == 3), "{ends:?}");
    let total = &cost(&scene, &[])["total"];
    assert_eq!((&total["calls"], &total["open"]), (&asked.len().into(), &0.into()), "{total}");
    let sum: u64 = ends.iter().map(output).sum();
    assert_eq!(total["tokens"]["output"].as_u64(), Some(sum), "nothing is billed twice");
    // Who was killed between the last byte and the receipt has handed on an answer that is told as cut.
    assert!(whole() <= asked.len(), "{} of {}", whole(), asked.len());
}
