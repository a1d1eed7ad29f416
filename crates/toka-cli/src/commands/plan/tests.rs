//! What `toka plan` shows of a small set, on a host that is always the same.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use toka_core::{Name, Origin};
use toka_prepare::users::Users;
use toka_prepare::{Models, ProblemKind};
use toka_sandbox::Repository;
use toka_sandbox::plan::{SystemPaths, WorkspaceFacts};
use toka_workstream::LoadOptions;

use super::*;

const FIXTURES: &str = "tests/fixtures/plan";

/// A workspace whose path is as long as the one that snapshots show in its place.
struct Workspace(tempfile::TempDir);

impl Workspace {
    const SHOWN: &str = "/srv/widgets";

    fn new() -> Self {
        let folder =
            tempfile::Builder::new().prefix("w").rand_bytes(2).tempdir_in("/var/tmp").expect("a folder");
        std::fs::create_dir(folder.path().join("docs")).expect("a folder");
        assert_eq!(folder.path().as_os_str().len(), Self::SHOWN.len());
        Self(folder)
    }

    fn hide(&self, text: &str) -> String {
        text.replace(&*self.0.path().to_string_lossy(), Self::SHOWN)
    }
}

fn canned(policy: &Policy, workspace: &Workspace) -> View {
    let workspace = workspace.0.path();
    let loaded = toka_workstream::load(&[PathBuf::from(FIXTURES)], &LoadOptions::default());
    let mut set = loaded.set.expect("valid workstreams");
    for agent in &mut set.agents {
        agent.file = workspace.join("agents").join(agent.file.file_name().expect("a file"));
    }
    let (plan, _) = toka_workstream::plan(&set, &loaded.sources);
    let folders = ProjectFolders {
        state_dir: "/state".into(),
        run_dir: "/run/toka".into(),
        project: Name::new("widgets").expect("a label"),
        workspace: workspace.to_owned(),
        user_home: "/home/me".into(),
    };
    let host = HostFacts {
        system: SystemPaths { programs: vec!["/bin".into(), "/usr".into()], ..SystemPaths::default() },
        path: vec!["/bin".into()],
        toolchain_variables: Vec::new(),
        pyenv_version: None,
        uid: 0,
        gid: 0,
        landlock_abi: 6,
        mount_namespace: toka_sandbox::host::Namespaces::Privileged,
        // As for an ordinary user without groups of its own.
        cgroups: toka_sandbox::cgroup::Layout::default(),
    };
    let confiner = Confiner {
        host: &host,
        project: &folders.project,
        toka_exe: Path::new("/opt/toka/bin/toka"),
        facts: &WorkspaceFacts::new(
            workspace,
            [workspace.join("agents/checks.yaml")].into(),
            Repository::default(),
        ),
        users: &Users::default(),
        chosen: None,
        path: "/usr/bin".as_ref(),
    };
    look(
        Ready {
            set,
            plan: plan.expect("a plan"),
            files: Vec::new(),
            enable: BTreeSet::new(),
            model: None,
            only: Vec::new(),
        },
        &folders,
        &confiner,
        (policy, &Models::default()),
        problems(),
    )
}

/// What an admission could find, whatever the host that the tests run on is like.
fn problems() -> Vec<Problem> {
    let problem = |kind, agent, line, message: &str, help: &str| Problem {
        kind,
        agent: Name::new(agent).expect("a label"),
        origin: Origin::File { file: format!("{FIXTURES}/{agent}.yaml").into(), line, column: 5 },
        message: message.into(),
        help: help.into(),
    };
    use ProblemKind::{Denied, Unconfigured};
    let (needs, help) = ("the task \"Sum up what changed\" needs a model", "give the task a command");
    let (refused, grant) =
        ("network:full is dangerous and nobody granted it", "grant it with `--allow network:full`");
    vec![
        problem(Unconfigured, "fetch", 5, needs, help),
        problem(Denied, "checks", 18, refused, grant),
        problem(Denied, "cache", 4, refused, grant),
    ]
}

#[test]
fn for_people() {
    let workspace = Workspace::new();
    let text = text::text(&canned(&Policy::default(), &workspace), 80, Palette::PLAIN);
    insta::assert_snapshot!(workspace.hide(&text));
}

#[test]
fn every_line_fits_the_terminal() {
    for (columns, most) in [(0, 60), (5, 60), (60, 60), (80, 80), (132, 132)] {
        let text = text::text(&canned(&Policy::default(), &Workspace::new()), columns, Palette::PLAIN);
        let longest = text.lines().map(toka_terminal::text::columns).max();
        assert!(longest <= Some(most), "{columns}\n{text}");
    }
}

#[test]
fn for_programs() {
    let workspace = Workspace::new();
    let mut value = json::value(&canned(&Policy::default(), &workspace));
    // The rules that every agent has are the sandbox's to word; here are those that lines of files ask for.
    for agent in value["agents"].as_array_mut().expect("agents") {
        let rules = agent["rules"].as_array_mut().expect("rules");
        assert!(rules.len() > 10);
        rules.retain(|rule| rule["origin"]["file"].is_object());
    }
    insta::assert_snapshot!(workspace.hide(&serde_json::to_string_pretty(&value).expect("JSON")));
}

#[test]
fn the_next_times_are_those_of_its_zone() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("nightly.yaml");
    let text = "metadata: {name: nightly}\nspec:\n  process: {shell: 'true'}\n  schedule: {cron: '30 2 * * *', timezone: Europe/Berlin}\n";
    std::fs::write(&file, text).expect("a file");
    let loaded = toka_workstream::load(&[file], &LoadOptions::default());
    let agent = loaded.set.expect("a valid workstream").agents.remove(0);
    // The day before the clocks go from 2:00 to 3:00.
    let now = "2026-03-28T12:00:00Z".parse().expect("a time");
    let rows = text::schedule(&agent, now);
    let shown: Vec<String> = rows.into_iter().map(|row| format!("{} ({})", row.text, row.from)).collect();
    let expected = [
        "30 2 * * * in Europe/Berlin (nightly.yaml:4)",
        "Sun 2026-03-29 03:00:00 +02:00 (next)",
        "Mon 2026-03-30 02:30:00 +02:00 (next)",
        "Tue 2026-03-31 02:30:00 +02:00 (next)",
        "Wed 2026-04-01 02:30:00 +02:00 (next)",
        "Thu 2026-04-02 02:30:00 +02:00 (next)",
    ];
    assert_eq!(shown, expected);
}

#[test]
fn what_a_run_would_do() {
    let all = Verdict { problems: problems() };
    assert_eq!(all.exit_code(), ExitCode::Unconfigured, "a task needs a model");
    assert_eq!(all.help(), ["give the task a command", "grant it with `--allow network:full`"], "each once");
    assert_eq!(Verdict { problems: problems().split_off(1) }.exit_code(), ExitCode::Denied);
    assert_eq!(Verdict { problems: Vec::new() }.exit_code(), ExitCode::Success);
}
