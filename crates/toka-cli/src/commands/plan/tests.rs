//! What `toka plan` shows of a small set, on a host that is always the same.

use std::path::{Path, PathBuf};

use toka_core::Name;
use toka_daemon::users::Users;
use toka_sandbox::plan::SystemPaths;
use toka_workstream::LoadOptions;

use super::*;

const FIXTURES: &str = "tests/fixtures/plan";

fn canned(policy: &Policy) -> View {
    let loaded = toka_workstream::load(&[PathBuf::from(FIXTURES)], &LoadOptions::default());
    let mut set = loaded.set.expect("valid workstreams");
    for agent in &mut set.agents {
        agent.file = Path::new("/srv/widgets/agents").join(agent.file.file_name().expect("a file"));
    }
    let (plan, _) = toka_workstream::plan(&set, &loaded.sources);
    let folders = ProjectFolders {
        state_dir: "/state".into(),
        run_dir: "/run/toka".into(),
        project: Name::new("widgets").expect("a label"),
        workspace: "/srv/widgets".into(),
        user_home: "/home/me".into(),
    };
    let host = HostFacts {
        system: SystemPaths { programs: vec!["/bin".into(), "/usr".into()], ..SystemPaths::default() },
        path: vec!["/bin".into()],
        toolchain_variables: Vec::new(),
        pyenv_version: None,
        ..HostFacts::probe()
    };
    let confiner = Confiner {
        host: &host,
        project: &folders.project,
        toka_exe: Path::new("/opt/toka/bin/toka"),
        files: &[PathBuf::from("/srv/widgets/agents/checks.yaml")],
        users: &Users::default(),
    };
    look(Ready { set, plan: plan.expect("a plan") }, &folders, &confiner, policy)
}

#[test]
fn for_people() {
    insta::assert_snapshot!(text::text(&canned(&Policy::default()), 80, Palette::PLAIN));
}

#[test]
fn every_line_fits_the_terminal() {
    for columns in [60, 80, 132] {
        let text = text::text(&canned(&Policy::default()), columns, Palette::PLAIN);
        let longest = text.lines().map(crate::terminal::text::columns).max();
        assert!(longest <= Some(columns), "{columns}\n{text}");
    }
}

#[test]
fn for_programs() {
    let mut value = json::value(&canned(&Policy::default()));
    // The rules that every agent has are the sandbox's to word; here are those that lines of files ask for.
    for agent in value["agents"].as_array_mut().expect("agents") {
        let rules = agent["rules"].as_array_mut().expect("rules");
        assert!(rules.len() > 10);
        rules.retain(|rule| rule["origin"]["file"].is_object());
    }
    insta::assert_snapshot!(serde_json::to_string_pretty(&value).expect("JSON"));
}

#[test]
fn what_a_run_would_do() {
    let refused = canned(&Policy::default());
    assert_eq!(refused.verdict.exit_code(), ExitCode::Unconfigured, "a task needs a model");
    let grants: Vec<String> = refused.verdict.grants().iter().map(ToString::to_string).collect();
    assert_eq!(grants, ["network:full", "filesystem-outside:/data/models"]);

    let allow = [Capability::NetworkFull, Capability::Outside("/data".into())];
    let granted = canned(&Policy { allow: allow.into(), ..Policy::default() });
    assert_eq!(granted.verdict.grants(), [] as [&Capability; 0]);
    let without_model = Verdict::of(&granted.agents[..1]);
    assert_eq!(without_model.exit_code(), ExitCode::Success);
    assert_eq!(Verdict::of(&refused.agents[2..]).exit_code(), ExitCode::Denied);
}
