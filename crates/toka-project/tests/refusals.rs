//! Runs that must not start: every problem of every agent at once, with its line, and nothing is left running.

use std::path::Path;

use toka_api::caller::Caller;
use toka_api::declaration::Declaration;
use toka_core::capability::Policy;
use toka_core::{Capability, ExitCode, Name};
use toka_prepare::{ProblemKind, RunError};
use toka_project::{Lifetime, Project, RunOptions};
use toka_workstream::LoadOptions;
use tokio::sync::mpsc;

fn options(folder: &Path, yaml: &str, policy: Policy) -> RunOptions {
    let root = folder.canonicalize().expect("a path");
    let (file, workspace) = (root.join("agents.yaml"), root.join("workspace"));
    std::fs::write(&file, yaml).expect("room");
    std::fs::create_dir_all(&workspace).expect("a folder");
    let loaded = toka_workstream::load(&[file], &LoadOptions::default());
    let set = loaded.set.expect("valid");
    let caller = Caller::of_this_process();
    RunOptions {
        plan: toka_workstream::plan(&set, &loaded.sources).0.expect("a plan"),
        set,
        declaration: Declaration {
            files: Vec::new(),
            resume: None,
            only: Vec::new(),
            stop: Default::default(),
            enable: Default::default(),
            model: None,
            workspace,
            policy,
            trusted_hosts: Vec::new(),
            models: Default::default(),
            max_concurrent: None,
            pressure: Default::default(),
            home: caller.home.clone(),
            environment: Default::default(),
        },
        caller,
        project: Name::new("project").expect("a label"),
        state_dir: root.join("state"),
        run_dir: root.join("run"),
        lifetime: Lifetime::UntilTasksEnd,
        host: toka_keeper::HostLook::begin(),
        toka_exe: "/bin/false".into(),
    }
}

async fn refused(yaml: &str, policy: Policy) -> RunError {
    let folder = tempfile::tempdir().expect("a folder");
    let (events, mut seen) = mpsc::unbounded_channel();
    let error =
        Project::open(options(folder.path(), yaml, policy), Some(events)).await.err().expect("refused");
    assert!(seen.recv().await.is_none(), "nothing happened");
    error
}

#[tokio::test]
async fn every_problem_of_every_agent_is_told_with_its_line() {
    let yaml = "\
metadata: {name: thinker}
tasks: {default: [{description: think}]}
---
metadata: {name: lost}
spec: {process: {command: [no-such-program], working_dir: nowhere, environment_file: [absent.env]}}
---
metadata: {name: greedy}
spec: {process: {command: ['true']}, secrets: {key: {env: UNSET_IN_TESTS}}}
security: {network: full, filesystem: {read: [/srv]}}
";
    let granted = Policy { allow: [Capability::parse("secret-variable")].into(), ..Policy::default() };
    let RunError::Refused(problems) = refused(yaml, granted).await else { panic!("refused otherwise") };
    let mut found: Vec<_> = problems
        .iter()
        .map(|problem| (problem.agent.as_str(), problem.kind, problem.origin.to_string()))
        .map(|(agent, kind, origin)| (agent, kind, origin.rsplit(':').next().map(str::to_owned)))
        .collect();
    found.sort();
    let line = |number: &str| Some(number.to_owned());
    use ProblemKind::{Denied, Invalid, Unconfigured};
    assert_eq!(
        found,
        [
            ("greedy", Unconfigured, line("8")),
            ("greedy", Denied, line("9")),
            ("greedy", Denied, line("9")),
            ("lost", Invalid, line("5")),
            ("lost", Invalid, line("5")),
            ("lost", Invalid, line("5")),
            ("thinker", Unconfigured, line("2")),
            ("thinker", Denied, line("2")),
        ]
    );
    assert_eq!(RunError::Refused(problems).exit_code(), ExitCode::Invalid);
}

#[tokio::test]
async fn what_is_asked_for_beyond_the_workspace_is_refused_until_it_is_granted_and_not_even_looked_at() {
    let yaml = "\
metadata: {name: a}
spec:
  process: {command: ['true'], environment_from: [UNSET_IN_TESTS], environment_file: [/nowhere/a.env]}
  secrets: {key: {env: UNSET_IN_TESTS}, file: {file: /nowhere/key}}
security: {filesystem: {read: ['/**/shadow']}}
";
    let RunError::Refused(problems) = refused(yaml, Policy::default()).await else {
        panic!("refused otherwise")
    };
    let found: Vec<_> = problems.iter().map(|problem| (problem.kind, problem.message.as_str())).collect();
    let refused = |what: &'static str| (ProblemKind::Denied, what);
    assert_eq!(
        found,
        [
            refused("filesystem-outside-read:/ is dangerous and nobody granted it"),
            refused("filesystem-outside-read:/nowhere/a.env is dangerous and nobody granted it"),
            refused("environment-from:UNSET_IN_TESTS is dangerous and nobody granted it"),
            refused("secret-variable:UNSET_IN_TESTS is dangerous and nobody granted it"),
            refused("secret-file:/nowhere/key is dangerous and nobody granted it"),
        ]
    );
    assert!(problems.iter().all(|problem| problem.help.contains("`toka trust`")), "{problems:?}");
}

#[tokio::test]
async fn what_the_policy_denies_is_told_with_what_would_grant_it() {
    let yaml = "metadata: {name: a}\nspec: {process: {command: ['true']}}\nsecurity: {network: full}\n";
    let error = refused(yaml, Policy::default()).await;
    assert_eq!(error.exit_code(), ExitCode::Denied);
    assert!(error.to_string().contains("--allow network:full"), "{error}");
    let deny = Policy { deny: [Capability::NetworkFull].into(), ..Policy::default() };
    let error = refused(yaml, deny).await;
    assert!(error.to_string().contains("`deny`"), "{error}");
}

#[tokio::test]
async fn a_keeper_that_cannot_be_started_is_an_internal_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let yaml = "metadata: {name: a}\nspec: {process: {command: ['true']}}\n";
    let options = options(folder.path(), yaml, Policy::default());
    let run_dir = options.run_dir.clone();
    let error = Project::open(options, None).await.err().expect("refused");
    assert!(matches!(error, RunError::Keeper(_)), "{error}");
    assert_eq!(error.exit_code(), ExitCode::Internal);
    assert_eq!(run_dir.read_dir().expect("a folder").count(), 0, "nothing of the run is left there");
}

#[tokio::test]
async fn a_state_folder_that_cannot_be_made_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let yaml = "metadata: {name: a}\nspec: {process: {command: ['true']}}\n";
    let options =
        RunOptions { state_dir: "/proc/toka".into(), ..options(folder.path(), yaml, Policy::default()) };
    let error = Project::open(options, None).await.err().expect("refused");
    assert_eq!(error.exit_code(), ExitCode::StateFolder);
    assert!(error.to_string().contains("/proc/toka"), "{error}");
}
