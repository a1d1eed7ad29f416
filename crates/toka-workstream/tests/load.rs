//! Files that must load, and what they mean.

use std::path::{Path, PathBuf};
use std::time::Duration;

use toka_core::{
    ByteSize, Capability, CatchUp, Compression, LogPolicy, NetworkAccess, Overlap, Priority, WhenFull,
};
use toka_workstream::{
    Agent, AgentKind, Code, Condition, LoadOptions, Loaded, MaxRestarts, Need, ProbeCheck, ProcessCommand,
    RestartPolicy, SecretSource, Severity, Start, Style, load,
};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn load_fixture(name: &str, options: &LoadOptions) -> Loaded {
    load(&[fixture(name)], options)
}

fn agents(loaded: &Loaded) -> &[Agent] {
    let shown = loaded.sources.render(&loaded.diagnostics, Style::Plain);
    &loaded.set.as_ref().unwrap_or_else(|| panic!("{shown}")).agents
}

#[test]
fn every_key_arrives() {
    let options = LoadOptions { enable: ["nightly".to_owned()].into(), ..LoadOptions::default() };
    let loaded = load_fixture("good/everything.yaml", &options);
    let agent = &agents(&loaded)[0];
    let shown = loaded.sources.render(&loaded.diagnostics, Style::Plain);
    assert_eq!(loaded.diagnostics.len(), 1, "{shown}");
    assert!(
        shown.contains("everything.yaml:102:") && shown.contains("is not enforced on `network: loopback`"),
        "{shown}"
    );
    assert_eq!(agent.version, "v1.0.0");
    assert_eq!(agent.metadata.schema_version.as_deref(), Some("1.0"));
    assert_eq!((agent.priority, agent.kind), (Priority::Critical, AgentKind::Service));
    let process = agent.process.as_ref().expect("a process");
    assert_eq!(
        process.command,
        Some(ProcessCommand::Argv(["python3", "-m", "http.server", "8080"].map(String::from).into()))
    );
    assert_eq!(process.environment["DEBUG"], "false");
    assert_eq!(
        process.working_dir.origin.to_string(),
        format!("{}:20", fixture("good/everything.yaml").display())
    );
    assert_eq!(agent.secrets[1].source, SecretSource::Env("API_KEY".into()));
    assert_eq!(
        (agent.restart.policy, agent.restart.max_restarts),
        (RestartPolicy::OnFailure, MaxRestarts::Limited(7))
    );
    assert_eq!(agent.restart.backoff.initial, Duration::from_millis(500));
    let startup = agent.probes.startup.as_ref().map(|probe| &probe.check);
    assert_eq!(startup, Some(&ProbeCheck::LogLine("Serving HTTP".to_owned())));
    assert_eq!(agent.probes.awaited_lines().collect::<Vec<_>>(), ["Serving HTTP"]);
    assert_eq!(agent.probes.readiness.as_ref().map(|probe| probe.failure_threshold), Some(4));
    assert_eq!((agent.stop.signal, agent.stop.grace_period), (2, Duration::from_secs(3)));
    assert_eq!((agent.hooks.pre_start.len(), agent.hooks.post_start.len()), (1, 2));
    assert_eq!(agent.tasks.len(), 3);
    assert_eq!(agent.tasks[1].depends_on, [0]);
    assert_eq!(agent.tasks[1].retry.max_attempts, 3);
    assert_eq!(agent.tasks[2].group.as_deref(), Some("nightly"));
    let waits: Vec<_> =
        agent.dependencies.iter().map(|d| (d.on.as_str(), d.need, d.condition.clone())).collect();
    assert_eq!(
        waits,
        [
            ("fetch", Need::Required, Condition::CompletedSuccessfully),
            ("lint", Need::Optional, Condition::Completed),
            ("build", Need::Optional, Condition::LogLine("built in".into())),
            ("notes", Need::Optional, Condition::LogLine("written".into())),
        ]
    );
    assert_eq!(agent.confinement.network.value, NetworkAccess::Loopback);
    assert_eq!(agent.confinement.limits.processes.value, 64);
    assert!(agent.confinement.limits.disk.as_ref().is_some_and(|disk| disk.is_explicit()));
    let logs = agent.logs;
    assert_eq!((logs.max_size, logs.max_age), (ByteSize::mib(4), Duration::from_secs(86_400)));
    assert_eq!((logs.total, logs.compression), (ByteSize::mib(64), Compression::Off));
    assert_eq!(logs.when_full, WhenFull::Block);
    assert_eq!(agent.extras["success_criteria"][0], "all pages are served");
}

#[test]
fn one_document_is_one_agent_and_defaults_follow_from_the_kind() {
    let loaded = load_fixture("good/several.yaml", &LoadOptions::default());
    let agents = agents(&loaded);
    let names: Vec<_> = agents.iter().map(|agent| agent.name.as_str()).collect();
    assert_eq!(names, ["fetch", "build", "serve"]);
    assert_eq!(agents[1].version, "1.0");
    assert_eq!(agents[1].workstream, "several");
    assert_eq!(agents[1].restart.policy, RestartPolicy::No);
    assert_eq!(agents[2].kind, AgentKind::Service);
    assert_eq!(agents[2].confinement.limits.timeout, None);
    let timeout = agents[0].confinement.limits.timeout.as_ref().expect("a default");
    assert_eq!(timeout.value, Duration::from_secs(1800));
    assert!(!timeout.is_explicit());
    assert!(matches!(&agents[1].confinement.network.value, NetworkAccess::Allow(hosts) if hosts.len() == 3));
}

#[test]
fn sizes_of_logs_follow_each_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("one.yaml");
    for (declared, max_size, total) in [
        ("{}", 16, 128),
        ("{total: 8MB}", 4, 8),
        ("{total: 1GB}", 16, 1024),
        ("{max_size: 64MB}", 64, 128),
        ("{max_size: 500MB}", 500, 1000),
    ] {
        std::fs::write(
            &path,
            format!("metadata: {{name: a}}\nspec: {{process: {{command: [x]}}}}\nlogs: {declared}\n"),
        )
        .expect("written");
        let loaded = load(std::slice::from_ref(&path), &LoadOptions::default());
        let logs = agents(&loaded)[0].logs;
        let (max_size, total) = (ByteSize::mib(max_size), ByteSize::mib(total));
        assert_eq!(logs, LogPolicy { max_size, total, ..LogPolicy::default() }, "{declared}");
    }
}

#[test]
fn what_a_dependency_waits_for_follows_from_what_it_leads_to() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("set.yaml");
    let text = "metadata: {name: a}\nspec: {type: service, process: {command: [x]}}\n---\n\
        metadata: {name: b}\nspec: {process: {command: [x]}, readiness_probe: {}}\n---\n\
        metadata: {name: c}\nspec: {process: {command: [x]}}\n---\n\
        metadata: {name: d}\nspec: {process: {command: [x]}}\ndependencies: {required: [a, b, c, elsewhere]}\n";
    std::fs::write(&path, text).expect("written");
    let loaded = load(&[path], &LoadOptions::default());
    let readiness = agents(&loaded)[1].probes.readiness.as_ref();
    assert_eq!(readiness.map(|probe| &probe.check), Some(&ProbeCheck::Notify));
    let conditions: Vec<_> =
        agents(&loaded)[3].dependencies.iter().map(|dependency| dependency.condition.clone()).collect();
    assert_eq!(
        conditions,
        [
            Condition::ProcessStarted,
            Condition::Ready,
            Condition::CompletedSuccessfully,
            Condition::CompletedSuccessfully
        ]
    );
}

#[test]
fn anchors_and_merged_maps() {
    let loaded = load_fixture("good/anchors.yaml", &LoadOptions::default());
    let agent = &agents(&loaded)[0];
    assert_eq!(agent.hooks.pre_start[0].argv, ["echo", "hello"]);
    assert_eq!(agent.confinement.limits.memory.value, ByteSize::mib(64));
    assert_eq!(agent.confinement.limits.cpu.value.millis, 500);
    assert!(agent.extras.contains_key("base"));
}

#[test]
fn files_of_others_load_with_warnings_at_most() {
    let loaded = load_fixture(
        "foreign",
        &LoadOptions { enable: ["quarterly".to_owned()].into(), ..LoadOptions::default() },
    );
    let agents = agents(&loaded);
    assert_eq!(agents.len(), 2);
    assert!(loaded.diagnostics.iter().all(|diagnostic| diagnostic.severity < Severity::Error));
    let market = &agents[0];
    assert_eq!(market.capabilities_primary, ["market-research", "Trend detection: early signals"]);
    assert_eq!(market.tasks.len(), 3);
    assert_eq!(market.needs_model().count(), 3);
    assert_eq!(market.reporting.metrics[0].name, "accuracy");
    assert_eq!(market.reporting.channels[1].value.to_string(), "email: team@example.org");
    assert_eq!(market.confinement.capabilities[3].value, Capability::FilesystemWrite(Some("reports".into())));
    assert_eq!(
        market.confinement.limits.network_bandwidth.as_ref().map(|rate| rate.value.0),
        Some(12_500_000)
    );
    let mut extras: Vec<_> = market.extras.keys().map(String::as_str).collect();
    extras.sort_unstable();
    assert_eq!(extras, ["behavioral_directives", "risk_mitigation", "success_criteria"]);
    assert_eq!(agents[1].reporting.metrics[0].unit.as_deref(), Some("rows"));
}

#[test]
fn all_frequencies_and_priorities_are_known() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut text = String::new();
    for frequency in ["real-time", "hourly", "daily", "weekly", "on-milestone", "on-completion"] {
        for priority in ["critical", "high", "medium", "low"] {
            text.push_str(&format!(
                "---\nmetadata: {{name: {frequency}-{priority}}}\nspec: {{priority: {priority}}}\n\
                 tasks: {{default: [{{description: x, run: x, priority: {priority}}}]}}\n\
                 reporting: {{frequency: {frequency}}}\n"
            ));
        }
    }
    std::fs::write(folder.path().join("all.yml"), text).expect("written");
    let loaded = load(&[folder.path().to_owned()], &LoadOptions::default());
    assert_eq!(agents(&loaded).len(), 24);
    assert!(loaded.diagnostics.is_empty());
}

#[test]
fn restart_policies_in_the_words_of_every_reader() {
    for (word, policy) in [
        ("no", RestartPolicy::No),
        ("never", RestartPolicy::No),
        ("false", RestartPolicy::No),
        ("off", RestartPolicy::No),
        ("'no'", RestartPolicy::No),
        ("on_failure", RestartPolicy::OnFailure),
        ("on-abnormal", RestartPolicy::OnAbnormal),
        ("on-watchdog", RestartPolicy::OnWatchdog),
        ("unless-stopped", RestartPolicy::UnlessStopped),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("one.yaml");
        let text = format!(
            "metadata: {{name: a}}\nspec: {{process: {{command: [x]}}, restart: {{policy: {word}}}}}\n"
        );
        std::fs::write(&path, text).expect("written");
        let loaded = load(&[path], &LoadOptions::default());
        assert_eq!(agents(&loaded)[0].restart.policy, policy, "{word}");
    }
}

#[test]
fn a_folder_is_not_searched_deeper_and_a_file_is_read_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = "metadata: {name: a}\nspec: {process: {command: [x]}}\n";
    std::fs::write(folder.path().join("a.yaml"), text).expect("written");
    std::fs::write(folder.path().join("notes.txt"), "not yaml: [").expect("written");
    std::fs::create_dir(folder.path().join("deeper")).expect("made");
    std::fs::write(folder.path().join("deeper/b.yaml"), text).expect("written");
    let paths = [folder.path().to_owned(), folder.path().join("a.yaml"), folder.path().join("./a.yaml")];
    let loaded = load(&paths, &LoadOptions::default());
    assert_eq!(agents(&loaded).len(), 1);
    assert_eq!(loaded.files, 1);
}

#[test]
fn a_group_that_no_agent_has_would_leave_out_what_was_meant() {
    let loaded = load_fixture(
        "good/everything.yaml",
        &LoadOptions { enable: ["nightyl".to_owned()].into(), ..LoadOptions::default() },
    );
    let problems = loaded.diagnostics.iter().filter(|found| found.severity == Severity::Error);
    let [problem] = problems.collect::<Vec<_>>()[..] else { panic!("one is wrong") };
    assert_eq!((problem.code, problem.severity), (Code::UnknownGroup, Severity::Error));
    assert_eq!(problem.help.as_deref(), Some("did you mean `nightly`?"));
    assert!(loaded.set.is_none());
}

fn loaded_text(text: &str) -> Loaded {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("set.yaml");
    std::fs::write(&path, text).expect("written");
    load(&[path], &LoadOptions::default())
}

#[test]
fn a_document_with_replicas_is_several_agents_and_an_edge_to_it_is_one_to_each() {
    let loaded = loaded_text(
        "metadata: {name: web}\nspec: {process: {command: [x]}, replicas: 2, readiness_probe: {}}\n\
         dependencies: {required: {job: first}}\n---\n\
         metadata: {name: job}\nspec: {process: {command: [x]}, replicas: 3, name: Work}\n---\n\
         metadata: {name: all}\nspec: {process: {command: [x]}}\n\
         dependencies: {required: {web: both}, optional: {job-2: only this one, job: the rest}}\n---\n\
         metadata: {name: one}\nspec: {process: {command: [x]}, replicas: 1}\n",
    );
    let agents = agents(&loaded);
    let names: Vec<&str> = agents.iter().map(|agent| agent.name.as_str()).collect();
    assert_eq!(names, ["web-1", "web-2", "job-1", "job-2", "job-3", "all", "one-1"]);
    assert_eq!((agents[0].title.as_str(), agents[2].title.as_str()), ("web-1", "Work"));
    let replica = agents[3].replica.as_ref().expect("one of three");
    assert_eq!((replica.of.as_str(), replica.number, replica.count), ("job", 2, 3));
    let edges = |at: usize| -> Vec<_> {
        agents[at].dependencies.iter().map(|edge| (edge.on.as_str(), edge.condition.clone())).collect()
    };
    let done = Condition::CompletedSuccessfully;
    assert_eq!(edges(1), ["job-1", "job-2", "job-3"].map(|name| (name, done.clone())));
    let ready = ["web-1", "web-2"].map(|name| (name, Condition::Ready));
    assert_eq!(edges(5)[..2], ready);
    assert_eq!(edges(5)[2..], ["job-2", "job-1", "job-3"].map(|name| (name, done.clone())));
}

#[test]
fn replicas_do_not_multiply_beyond_measure() {
    let many = |name: &str| {
        format!("metadata: {{name: {name}}}\nspec: {{process: {{command: [x]}}, replicas: 1000}}\n")
    };
    let wide = format!("{}dependencies: {{required: [b]}}\n---\n{}", many("a"), many("b"));
    let crowd: Vec<String> = (0..11).map(|number| many(&format!("a{number}"))).collect();
    for text in [wide, crowd.join("---\n")] {
        let loaded = loaded_text(&text);
        assert!(loaded.set.is_none());
        assert!(loaded.diagnostics.iter().any(|diagnostic| diagnostic.code == Code::TooComplex));
    }
}

#[test]
fn keys_that_only_inform_are_kept_for_the_agent_and_warned_of() {
    let text = "metadata: {name: a, owner: ada}
capabilities: {primary: [x], tertiary: [y]}
objectives: [{description: d, ticket: T-1}]
tasks: {default: [{description: d, run: 'true', estimated_time: 2h, risk: low}]}
reporting: {frequency: daily, audience: team}
";
    let loaded = loaded_text(text);
    let kept: Vec<String> = agents(&loaded)[0]
        .kept
        .iter()
        .map(|kept| format!("{}.{}={}", kept.section, kept.key, kept.value))
        .collect();
    let expected = [
        "metadata.owner=\"ada\"",
        "a task.risk=\"low\"",
        "an objective.ticket=\"T-1\"",
        "capabilities.tertiary=[\"y\"]",
        "reporting.audience=\"team\"",
    ];
    assert_eq!(kept, expected);
    assert_eq!(agents(&loaded)[0].tasks[0].estimated_duration.as_deref(), Some("2h"));
    assert_eq!(loaded.count(Severity::Warning), 5);
    // What is nearly a key that controls something, or that must be there, stays an error.
    for wrong in
        ["metadata: {nam: a}\n", "metadata: {name: a}\ntasks: [{description: d, run: x, timout: 1m}]\n"]
    {
        assert!(loaded_text(wrong).count(Severity::Error) > 0, "{wrong}");
    }
}

#[test]
fn a_schedule_in_its_forms() {
    let text = |schedule: &str| {
        format!("metadata: {{name: a}}\nspec: {{process: {{command: [x]}}, schedule: {schedule}}}\n")
    };
    for cron in
        ["*/5 * * * *", "30 2 * * MON-FRI", "0 0 L * *", "@daily", "15 30 2 * * *", "0 0 12 1 1 * 2031"]
    {
        let loaded = loaded_text(&text(&format!("\"{cron}\"")));
        let schedule = agents(&loaded)[0].schedule.as_ref().expect("a schedule");
        assert_eq!(
            (schedule.cron.as_str(), schedule.overlap, schedule.catch_up),
            (cron, Overlap::Skip, CatchUp::None)
        );
    }
    let full = "{cron: \"0 4 * * *\", timezone: Europe/Berlin, overlap: replace, catch_up: last}";
    let loaded = loaded_text(&text(full));
    let agent = &agents(&loaded)[0];
    let schedule = agent.schedule.as_ref().expect("a schedule");
    assert_eq!((schedule.overlap, schedule.catch_up), (Overlap::Replace, CatchUp::Last));
    assert_eq!(schedule.timezone.as_deref(), Some("Europe/Berlin"));
    assert_eq!((agent.kind, agent.restart.policy), (AgentKind::Task, RestartPolicy::No));
    let (plan, _) = toka_workstream::plan(loaded.set.as_ref().expect("no errors"), &loaded.sources);
    let plan = plan.expect("a plan");
    assert_eq!((plan.nodes()[0].kind, plan.nodes()[0].start), (AgentKind::Task, Start::Clock));
}
