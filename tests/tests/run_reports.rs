//! `reporting` from end to end: what an agent declares arrives where it says, and nobody waits for it.

use std::fs;
use std::time::Duration;

use serde_json::Value;
use toka_tests::{
    Authority, Certificate, Document, Finished, Need, Scene, Serves, User, WebServer, as_both_users, require,
    until,
};

as_both_users!(
    a_report_arrives_at_every_place,
    a_webhook_needs_a_grant_and_shows_no_secret,
    a_server_that_hangs_or_refuses_disturbs_nobody,
    many_changes_make_few_reports,
    milestones_are_reported,
    a_report_over_tls_arrives_where_the_certificate_is_trusted_and_nowhere_else,
    another_daemon_reports_what_is_left_to_report,
);

/// An agent with this line and this `reporting`.
fn agent(name: &str, line: &str, reporting: &str) -> Document {
    Document::shell(name, line)
        .section(&format!("reporting: {reporting}"))
        .section("security: {capabilities_required: [filesystem-read]}")
}

fn lines(scene: &Scene, agent: &str, file: &str) -> Vec<Value> {
    let path = scene.state().join("projects").join(scene.name()).join("agents").join(agent).join(file);
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).expect("whole lines of JSON")).collect()
}

fn occasions(reports: &[Value]) -> Vec<&str> {
    reports.iter().filter_map(|report| report["occasion"].as_str()).collect()
}

fn a_report_arrives_at_every_place(user: User) {
    let scene = Scene::new(user);
    let server = WebServer::new(Serves::Status(204));
    let hook = format!("webhook: http://{}/in?key=hunter2", server.authority());
    let reporting = format!(
        "{{channels: [terminal, file, 'file: nightly', 'topic: builds', '{hook}'], metrics: [rows]}}"
    );
    let line = "toka report metric rows 7; toka report metric other 8; cat $TOKA_SECTIONS; exit 3";
    let agent = agent("agent", line, &reporting);
    let finished = scene.toka_run(&[agent], &["--json", "--allow", "webhook:127.0.0.1"]);
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    let posted = server.posted();
    assert_eq!(posted.len(), 1, "{posted:#?}");
    assert_eq!(posted[0].request, "post /in?key=hunter2 http/1.1");
    assert!(posted[0].headers.contains(&"content-type: application/json".to_owned()), "{posted:#?}");
    let report = posted[0].body.clone();
    assert_eq!(report["occasion"], "end", "{report:#}");
    assert_eq!(
        (&report["name"], &report["state"], &report["verdict"]),
        (&"agent".into(), &"ended".into(), &"unhealthy".into())
    );
    assert_eq!(report["project"], scene.name());
    assert_eq!(report["metrics"], serde_json::json!({"rows": 7.0}), "only what is declared: {report:#}");
    for file in ["reports.jsonl", "reports-nightly.jsonl"] {
        assert_eq!(lines(&scene, "agent", file), std::slice::from_ref(&report), "{file}");
    }
    let events = finished.events();
    let told: Vec<&Value> = events.iter().filter(|event| event["type"] == "agent_report").collect();
    assert_eq!(told.len(), 1, "{finished:#?}");
    assert_eq!((&told[0]["topic"], &told[0]["occasion"]), (&"builds".into(), &"end".into()));
    assert_eq!(told[0]["report"]["name"], "agent");
    // The agent is told where its reports go, and not the way there.
    let log = scene.toka(&["logs", "--project", scene.name(), "agent"]).stdout;
    assert!(log.contains("topic: builds") && !log.contains("hunter2"), "{log}");
    scene.assert_nothing_left();
}

fn a_webhook_needs_a_grant_and_shows_no_secret(user: User) {
    let scene = Scene::new(user);
    let server = WebServer::new(Serves::Status(200));
    let authority = server.authority();
    let of = |url: &str| agent("agent", "true", &format!("{{channels: ['{url}']}}"));
    let refused = scene.toka_run(&[of(&format!("http://{authority}/hunter2"))], &[]);
    assert_eq!(refused.code, Some(77), "{refused:#?}");
    assert!(refused.stderr.contains(&format!("--allow webhook:{authority}")), "{refused:#?}");
    assert!(!refused.stderr.contains("hunter2"), "{refused:#?}");
    let user = scene.toka_run(&[of(&format!("http://me:hunter2@{authority}/"))], &["--allow", "webhook"]);
    assert_eq!(user.code, Some(65), "{user:#?}");
    assert!(!user.stderr.contains("hunter2"), "{user:#?}");
    assert_eq!(server.posted(), []);
    scene.assert_nothing_left();
}

fn a_server_that_hangs_or_refuses_disturbs_nobody(user: User) {
    let scene = Scene::new(user);
    let (hangs, refuses) = (WebServer::new(Serves::Nothing), WebServer::new(Serves::Status(404)));
    let hook = |server: &WebServer| format!("'http://{}/hunter2'", server.authority());
    let reporting = |server| format!("{{frequency: real-time, channels: [file, {}]}}", hook(server));
    let stuck = agent("stuck", "sleep 0.3", &reporting(&hangs));
    let unwanted = agent("unwanted", "sleep 0.3", &reporting(&refuses));
    let finished = scene.toka_run(&[stuck, unwanted], &["--json", "--allow", "webhook"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let events = finished.events();
    let lost: Vec<&Value> = events.iter().filter(|event| event["type"] == "report_undelivered").collect();
    assert_eq!(lost.len(), 1, "once for each server that answers: {lost:#?}");
    assert_eq!(lost[0]["to"], format!("webhook: http://{}", refuses.authority()));
    assert_eq!(lost[0]["reason"], "status 404 Not Found");
    let unfinished = |event: &&Value| {
        event["message"].as_str().is_some_and(|text| text.contains("did not arrive in time"))
    };
    assert!(events.iter().any(|event| unfinished(&event)), "{finished:#?}");
    assert!(!finished.stdout.contains("hunter2") && !finished.stderr.contains("hunter2"), "{finished:#?}");
    for agent in ["stuck", "unwanted"] {
        let duration = events.iter().find(|event| event["type"] == "agent_ended" && event["agent"] == agent);
        let duration = duration.and_then(|event| event["duration_ms"].as_u64()).expect("it ended");
        assert!(duration < 5000, "{agent} did not wait: {duration}");
        assert_eq!(occasions(&lines(&scene, agent, "reports.jsonl")).last(), Some(&"end"), "{agent}");
    }
    scene.assert_nothing_left();
}

fn many_changes_make_few_reports(user: User) {
    let scene = Scene::new(user);
    let flips = "python3 -c '
import os, socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
for i in range(1000):
    s.sendto(b\"READY=1\", os.environ[\"NOTIFY_SOCKET\"])
    s.sendto(b\"RELOADING=1\", os.environ[\"NOTIFY_SOCKET\"])
'";
    let agent = agent("agent", flips, "{frequency: real-time, channels: [file]}");
    let finished = scene.toka_run(&[agent], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let events = finished.events();
    let changes = events.iter().filter(|event| event["type"] == "agent_ready").count();
    let duration =
        events.iter().find(|event| event["type"] == "agent_ended").expect("it ended")["duration_ms"].clone();
    let seconds = usize::try_from(duration.as_u64().expect("a number") / 1000).expect("small");
    let reports = lines(&scene, "agent", "reports.jsonl");
    assert!(changes > 500, "{changes} changes");
    assert!(reports.len() <= seconds + 3, "{} reports in {seconds} s", reports.len());
    assert_eq!(occasions(&reports).last(), Some(&"end"));
    scene.assert_nothing_left();
}

fn milestones_are_reported(user: User) {
    let scene = Scene::new(user);
    let line =
        "toka report progress 0.1; toka report progress 0.3; sleep 1.3; toka report progress 0.6; sleep 1.3";
    let agent = agent("agent", line, "{frequency: on-milestone, channels: [file]}");
    let finished = scene.toka_run(&[agent], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let reports = lines(&scene, "agent", "reports.jsonl");
    assert_eq!(occasions(&reports), ["milestone", "milestone", "end"], "{reports:#?}");
    let fractions: Vec<&Value> = reports.iter().map(|report| &report["progress"]["fraction"]).collect();
    assert_eq!(fractions, [0.3, 0.6, 0.6], "{reports:#?}");
    assert!(reports[0]["uptime_ms"].is_u64(), "{reports:#?}");
    scene.assert_nothing_left();
}

fn a_report_over_tls_arrives_where_the_certificate_is_trusted_and_nowhere_else(user: User) {
    if !require(&[Need::Program("openssl")]) {
        return;
    }
    let scene = Scene::new(user);
    let [ours, another] = ["ours", "another"].map(|name| Authority::new(scene.folder(), name));
    // As cargo, curl and git know it.
    let scene = scene.env("SSL_CERT_FILE", ours.certificate());
    let run = |certificate: &Certificate| {
        let server = WebServer::secured(Serves::Status(204), certificate);
        let hook = format!("webhook: https://{}/hunter2", server.authority());
        let agent = agent("agent", "true", &format!("{{channels: ['{hook}']}}"));
        (scene.toka_run(&[agent], &["--json", "--allow", "webhook:127.0.0.1"]), server.posted(), hook)
    };
    let reason = |finished: &Finished| {
        let events = finished.events();
        let lost: Vec<&Value> = events.iter().filter(|event| event["type"] == "report_undelivered").collect();
        assert_eq!(lost.len(), 1, "{finished:#?}");
        assert!(
            !finished.stdout.contains("hunter2") && !finished.stderr.contains("hunter2"),
            "{finished:#?}"
        );
        lost[0]["reason"].as_str().expect("a reason").to_owned()
    };

    let (finished, posted, hook) = run(&ours.sign("IP:127.0.0.1"));
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert_eq!(posted.len(), 1, "{finished:#?}");
    assert_eq!(posted[0].request, "post /hunter2 http/1.1");
    let host = hook.trim_start_matches("webhook: https://").trim_end_matches("/hunter2");
    assert!(posted[0].headers.contains(&format!("host: {host}")), "{posted:#?}");
    assert_eq!((&posted[0].body["occasion"], &posted[0].body["name"]), (&"end".into(), &"agent".into()));
    assert_eq!(finished.events().iter().filter(|event| event["type"] == "report_undelivered").count(), 0);

    let (finished, posted, _) = run(&another.sign("IP:127.0.0.1"));
    assert_eq!((finished.code, posted.len()), (Some(0), 0), "{finished:#?}");
    assert_eq!(reason(&finished), "no TLS at 127.0.0.1: invalid peer certificate: UnknownIssuer");

    let (finished, posted, _) = run(&ours.sign("DNS:elsewhere.example"));
    assert_eq!((finished.code, posted.len()), (Some(0), 0), "{finished:#?}");
    let reason = reason(&finished);
    assert!(
        reason.starts_with("no TLS at 127.0.0.1: invalid peer certificate: ") && reason.contains("127.0.0.1"),
        "{reason}"
    );
    scene.assert_nothing_left();
}

fn another_daemon_reports_what_is_left_to_report(user: User) {
    let scene = Scene::new(user);
    let line = "until [ -e out/go ]; do sleep 0.1; done";
    let agent = agent("agent", line, "{channels: [file]}");
    let begun = scene.detach(&[agent]);
    until(Duration::from_secs(20), "the agent to run", || (begun.state("agent") == "running").then_some(()));
    let upgraded = scene.toka(&["upgrade"]);
    assert_eq!(upgraded.code, Some(0), "{upgraded:#?}");
    assert_eq!(lines(&scene, "agent", "reports.jsonl"), Vec::<Value>::new());
    scene.write(&scene.workspace().join("out/go"), "");
    let reports = until(Duration::from_secs(20), "the report", || {
        Some(lines(&scene, "agent", "reports.jsonl")).filter(|reports| !reports.is_empty())
    });
    assert_eq!(occasions(&reports), ["end"]);
    drop(begun);
    assert_eq!(lines(&scene, "agent", "reports.jsonl").len(), 1, "nothing twice");
}

/// Whoever wants to leave need not wait for a server that hangs.
#[test]
fn an_interrupt_ends_the_wait_for_the_last_reports() {
    let Some(user) = User::ordinary() else { return };
    let scene = Scene::new(user);
    let hangs = WebServer::new(Serves::Nothing);
    let agent = agent("agent", "true", &format!("{{channels: ['http://{}/']}}", hangs.authority()));
    let mut run = scene.start(&[agent], &["--allow", "webhook"]);
    run.wait_for("agent_ended", "agent");
    until(Duration::from_secs(20), "the report to be on its way", || {
        (!hangs.posted().is_empty()).then_some(())
    });
    let begun = std::time::Instant::now();
    run.signal(nix::sys::signal::Signal::SIGINT);
    let finished = run.finish();
    assert!(begun.elapsed() < Duration::from_secs(8), "{finished:#?}");
    scene.assert_nothing_left();
}
