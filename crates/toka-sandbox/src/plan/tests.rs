//! What declarations become: snapshots of whole plans, and the properties that every plan has.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use toka_core::{Capability, Confinement, Declared, Name, NetworkAccess, Origin, SandboxMode};

use super::{
    Access, AgentFolders, CompileError, CompileInput, Execution, Made, Right, SandboxPlan, SystemPaths,
    WorkspaceFacts,
};
use crate::cgroup::Layout;
use crate::host::{HostFacts, Namespaces};

struct Scene {
    root: tempfile::TempDir,
    host: HostFacts,
    folders: AgentFolders,
    facts: WorkspaceFacts,
    /// The project and the agent.
    names: (Name, Name),
}

impl Scene {
    fn new() -> Self {
        let root = tempfile::tempdir_in("/var/tmp").expect("a temporary folder");
        let real = root.path().canonicalize().expect("a real path");
        let make = |name: &str| {
            let folder = real.join(name);
            std::fs::create_dir_all(&folder).expect("a folder");
            folder
        };
        let folders = AgentFolders {
            workspace: make("ws"),
            home: make("state/home"),
            tmp: make("state/tmp"),
            artifacts: make("state/artifacts"),
            inputs: vec![(name("fetch"), make("state/fetch"))],
            inputs_dir: make("state/inputs"),
            credentials: make("state/credentials"),
            door: make("run/door"),
            state_dir: make("state"),
            run_dir: make("run"),
            working_dir: make("ws"),
            user_home: make("user"),
        };
        let toolchain = ["user/.cargo/bin", "user/.cargo/registry", "user/.cargo/git", "user/.rustup"];
        for folder in ["ws/.git/hooks", "ws/agents", "ws/docs"].into_iter().chain(toolchain) {
            make(folder);
        }
        for file in ["ws/.git/config", "ws/agents/a.yaml", "user/.cargo/config.toml", "user/.cargo/env"] {
            std::fs::write(real.join(file), "").expect("a file");
        }
        let host = HostFacts {
            uid: 0,
            gid: 0,
            landlock_abi: 6,
            mount_namespace: Namespaces::Privileged,
            cgroups: Layout::default(),
            system: SystemPaths {
                programs: vec!["/usr".into(), "/bin".into()],
                configuration: vec!["/etc/passwd".into()],
                secrets: vec!["/etc/shadow".into()],
                facts: vec!["/sys/devices/system".into()],
            },
            path: vec!["/usr/bin".into(), "relative".into()],
            toolchain_variables: Vec::new(),
            pyenv_version: None,
        };
        let files = [folders.workspace.join("agents/a.yaml")];
        let facts = WorkspaceFacts::look(&folders.workspace, &folders.user_home, files);
        Self { root, host, folders, facts, names: (name("shop"), name("web")) }
    }

    fn compile(&self, confinement: &Confinement) -> Result<SandboxPlan, CompileError> {
        let workstream_dir = self.folders.workspace.join("agents");
        SandboxPlan::compile(&CompileInput {
            workstream_dir: Some(&workstream_dir),
            ..self.input(confinement)
        })
    }

    /// What plans are compiled from, without the folder of a workstream.
    fn input<'a>(&'a self, confinement: &'a Confinement) -> CompileInput<'a> {
        CompileInput {
            confinement,
            folders: &self.folders,
            host: &self.host,
            project: &self.names.0,
            agent: &self.names.1,
            facts: &self.facts,
            workstream_dir: None,
            toka_exe: Path::new("/usr/bin/toka"),
            programs: &[],
            run_as: None,
        }
    }

    /// The plan as people see it, without what differs from run to run.
    fn shown(&self, confinement: &Confinement) -> String {
        let plan = self.compile(confinement).expect("a plan");
        let mut text = String::new();
        for rule in plan.rules() {
            text += &format!("{:8} {}  [{}]\n", rule.layer.as_str(), rule.rule, rule.origin);
        }
        for bind in &plan.binds {
            text += &format!("bind {:?} {}\n", bind.access, bind.target.display());
        }
        for (name, value) in plan.environment() {
            text += &format!("{name}={value}\n");
        }
        let root = self.root.path().canonicalize().expect("a real path");
        text.replace(&root.display().to_string(), "ROOT")
    }
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a label")
}

fn at(line: u32) -> Origin {
    Origin::File { file: Arc::from("a.yaml"), line, column: 5 }
}

fn capabilities(names: &[&str]) -> Vec<Declared<Capability>> {
    names.iter().zip(10..).map(|(name, line)| Declared::new(Capability::parse(name), at(line))).collect()
}

#[test]
fn nothing_declared() {
    insta::assert_snapshot!(Scene::new().shown(&Confinement::default()));
}

#[test]
fn a_builder() {
    let confinement = Confinement {
        capabilities: capabilities(&["filesystem-read", "filesystem-write", "cargo-execution", "git-access"]),
        network: Declared::new(NetworkAccess::Loopback, at(20)),
        read: vec![Declared::new("/data/models".into(), at(21))],
        ..Confinement::default()
    };
    insta::assert_snapshot!(Scene::new().shown(&confinement));
}

#[test]
fn a_link_that_leaves_the_workspace_is_refused_where_it_was_declared() {
    let scene = Scene::new();
    std::os::unix::fs::symlink("/etc", scene.folders.workspace.join("link")).expect("a link");
    for path in ["link", "../state", "docs/../../run"] {
        let names = [format!("filesystem-read:{path}")];
        let confinement = Confinement { capabilities: capabilities(&[&names[0]]), ..Confinement::default() };
        let error = scene.compile(&confinement).expect_err(path);
        assert_eq!(error.origin(), &at(10), "{error}");
    }
}

#[test]
fn what_decides_about_rights_is_never_writable_however_it_is_granted() {
    let scene = Scene::new();
    let workspace = &scene.folders.workspace;
    let write = |paths: &[&str]| Confinement {
        write: paths.iter().map(|path| Declared::new((*path).to_owned(), at(7))).collect(),
        ..Confinement::default()
    };
    for paths in
        [&["."][..], &["*", ".*"], &["agents", ".git"], &["agents/a.yaml", ".git/hooks", ".git/config"]]
    {
        let plan = scene.compile(&write(paths)).expect("a plan");
        for protected in ["agents", ".git/hooks", ".git/config"].map(|path| workspace.join(path)) {
            let inside = |path: &Path| path.starts_with(&protected);
            let writable = plan.files.iter().any(|rule| inside(&rule.path) && rule.right >= Right::Write);
            assert!(!writable, "{paths:?} {}", protected.display());
            let open = plan.binds.iter().any(|bind| inside(&bind.target) && bind.access == Access::ReadWrite);
            assert!(!open, "{paths:?} {}", protected.display());
        }
    }
    let plan = scene.compile(&write(&["."])).expect("a plan");
    let guard = &plan.guards[0];
    assert_eq!(&guard.root, workspace);
    assert!(guard.absent.contains(&"toka.yaml".into()), "{guard:?}");
    for obeyed in [".git/commondir", ".git/info/attributes"] {
        assert!(guard.obeyed.contains(&obeyed.into()), "{obeyed}");
    }
    assert!(guard.workstreams.is_some());
}

/// Git's hooks below a directory of workstreams, a file of settings among hooks, a submodule that is the hooks.
#[test]
fn what_lies_in_a_protected_directory_does_not_open_it() {
    let mut scene = Scene::new();
    let workspace = scene.folders.workspace.clone();
    std::fs::create_dir_all(workspace.join("agents/hooks/deep")).expect("room");
    std::fs::write(workspace.join("agents/hooks/deep/gitconfig"), "").expect("room");
    let paths = ["agents/hooks/new", "agents/hooks/deep/gitconfig", "agents/hooks/deep/new", "agents/a.yaml"];
    let config = "[core]\nhooksPath = agents/hooks\n[include]\npath = ../agents/hooks/deep/gitconfig\n";
    std::fs::write(workspace.join(".git/config"), config).expect("room");
    let declared = scene.facts.declarations.clone();
    scene.facts = WorkspaceFacts::look(&workspace, &scene.folders.user_home, declared);
    assert!(scene.facts.repository.protected.contains(&workspace.join("agents/hooks/deep/gitconfig")));
    let confinement =
        Confinement { write: vec![Declared::new(".".to_owned(), at(7))], ..Confinement::default() };
    let plan = scene.compile(&confinement).expect("a plan");
    for path in paths.map(|path| workspace.join(path)).into_iter().chain([workspace.join("agents")]) {
        let around = plan.binds.iter().filter(|bind| path.starts_with(&bind.target));
        let innermost = around.max_by_key(|bind| bind.target.components().count()).expect("one");
        assert_eq!(innermost.access, Access::Protected, "{} {innermost:?}", path.display());
    }
}

#[test]
fn a_person_can_have_declarations_edited() {
    let scene = Scene::new();
    let names = ["filesystem-write", "declaration-write"];
    let confinement = Confinement { capabilities: capabilities(&names), ..Confinement::default() };
    let plan = scene.compile(&confinement).expect("a plan");
    let agents = scene.folders.workspace.join("agents");
    let closed =
        |path: &Path| plan.binds.iter().any(|bind| bind.target == path && bind.access != Access::ReadWrite);
    // The folder of its own file, where its scripts lie, is shown again for execution, and stays writable.
    assert!(!closed(&agents), "{:?}", plan.binds);
    assert!(closed(&scene.folders.workspace.join(".git/hooks")));
    assert!(plan.guards.iter().all(|guard| guard.workstreams.is_none()));
}

#[test]
fn what_is_to_be_written_and_is_not_there_is_made_or_refused_with_its_line() {
    let scene = Scene::new();
    let write = |paths: &[&str]| Confinement {
        capabilities: capabilities(&["filesystem-write:target"]),
        write: paths.iter().map(|path| Declared::new((*path).to_owned(), at(7))).collect(),
        ..Confinement::default()
    };
    let plan = scene.compile(&write(&["out.txt", "build", "build/deep", "docs/v1.0/"])).expect("a plan");
    let made: Vec<(String, Made)> = plan
        .to_make
        .iter()
        .map(|made| {
            let below = made.path.strip_prefix(&scene.folders.workspace).expect("below");
            (below.display().to_string(), made.kind)
        })
        .collect();
    let expected = [
        ("target", Made::Folder),
        ("out.txt", Made::File),
        ("build", Made::Folder),
        ("build/deep", Made::Folder),
        ("docs/v1.0", Made::Folder),
    ];
    assert_eq!(made, expected.map(|(path, kind)| (path.to_owned(), kind)));
    std::fs::write(scene.folders.workspace.join("file"), "").expect("room");
    std::os::unix::fs::symlink("circle", scene.folders.workspace.join("circle")).expect("a link");
    for path in ["absent/out.txt", "agents/new.yaml", "file/below", "circle/below"] {
        let error = scene.compile(&write(&[path])).expect_err(path);
        assert_eq!(error.origin(), &at(7), "{error}");
    }
    let read =
        Confinement { read: vec![Declared::new("absent".to_owned(), at(3))], ..Confinement::default() };
    let plan = scene.compile(&read).expect("a plan");
    assert_eq!(plan.absent(), [Declared::new(scene.folders.workspace.join("absent"), at(3))]);
}

#[test]
fn a_link_to_what_is_hidden_or_protected_is_refused() {
    let scene = Scene::new();
    let link = scene.folders.workspace.join("docs/b");
    std::os::unix::fs::symlink("../.git", &link).expect("a link");
    let write = vec![Declared::new("docs/b/config".to_owned(), at(9))];
    let error = scene.compile(&Confinement { write, ..Confinement::default() }).expect_err("led astray");
    assert_eq!(error.origin(), &at(9), "{error}");
}

#[test]
fn a_link_in_a_granted_path_is_opened_where_it_leads_and_keeps_its_name() {
    let scene = Scene::new();
    let data = scene.root.path().canonicalize().expect("a real path").join("data");
    std::fs::create_dir(&data).expect("a folder");
    let link = data.with_file_name("link");
    std::os::unix::fs::symlink(&data, &link).expect("a link");
    let read = vec![Declared::new(link.display().to_string(), at(3))];
    let plan = scene.compile(&Confinement { read, ..Confinement::default() }).expect("a plan");
    assert!(plan.binds.iter().any(|bind| bind.source.as_ref() == Some(&data) && bind.target == link));
    assert!(plan.files.iter().any(|rule| rule.path == data && rule.right == Right::Read));
}

#[test]
fn a_home_as_the_workspace_hides_its_keys_and_our_own_folders() {
    let mut scene = Scene::new();
    scene.folders.workspace = scene.root.path().canonicalize().expect("a real path");
    scene.folders.user_home = scene.folders.workspace.clone();
    std::fs::create_dir(scene.folders.workspace.join(".ssh")).expect("a folder");
    let confinement =
        Confinement { capabilities: capabilities(&["filesystem-read"]), ..Confinement::default() };
    let plan = scene.compile(&confinement).expect("a plan");
    for hidden in [".ssh", "state", "run"].map(|name| scene.folders.workspace.join(name)) {
        let place = |path: &Path| plan.binds.iter().position(|bind| bind.target == path).expect("a bind");
        assert!(plan.binds[place(&hidden)].source.is_none(), "{}", hidden.display());
        assert!(place(&scene.folders.workspace) < place(&hidden));
        assert!(place(&scene.folders.state_dir) < place(&scene.folders.home));
    }
}

#[test]
fn what_is_shown_below_tmp_is_executed_only_where_it_was_granted() {
    let folder = tempfile::tempdir_in("/tmp").expect("a folder below /tmp");
    let mut scene = Scene::new();
    let workspace = folder.path().canonicalize().expect("a real path");
    for inner in ["bin", "docs"] {
        std::fs::create_dir(workspace.join(inner)).expect("a folder");
    }
    scene.folders.workspace = workspace.clone();
    let execution = |names: &[&str], execute: &[&str], inner: &str| {
        let execute = execute.iter().map(|path| Declared::new((*path).to_owned(), at(1))).collect();
        let confinement =
            Confinement { capabilities: capabilities(names), execute, ..Confinement::default() };
        let plan = scene.compile(&confinement).expect("a plan");
        let bind = plan.binds.iter().find(|bind| bind.target == workspace.join(inner));
        bind.map(|bind| bind.execution)
    };
    let (allowed, refused) = (Some(Execution::Allowed), Some(Execution::Refused));
    assert_eq!(execution(&["filesystem-read"], &[], ""), refused);
    assert_eq!(execution(&["filesystem-write"], &[], ""), allowed);
    assert_eq!(execution(&["filesystem-read"], &["bin"], ""), refused);
    assert_eq!(execution(&["filesystem-read"], &["bin"], "bin"), allowed);
    assert_eq!(execution(&["filesystem-read:docs"], &["."], "docs"), allowed);
}

/// As npm makes them: a script that looks for what lies beside it must be found where it lies.
#[test]
fn a_program_that_is_a_link_among_what_is_granted_stays_one() {
    let scene = Scene::new();
    let root = scene.root.path().canonicalize().expect("a real path");
    for folder in ["tools/bin", "tools/lib"] {
        std::fs::create_dir_all(root.join(folder)).expect("a folder");
    }
    let (link, real) = (root.join("tools/bin/x"), root.join("tools/lib/x.js"));
    std::fs::write(&real, "").expect("a file");
    std::os::unix::fs::symlink("../lib/x.js", &link).expect("a link");
    let compile = |execute: &[&Path]| {
        let execute = execute.iter().map(|path| Declared::new(path.display().to_string(), at(1))).collect();
        let confinement = Confinement { execute, ..Confinement::default() };
        let programs = [link.clone()];
        SandboxPlan::compile(&CompileInput { programs: &programs, ..scene.input(&confinement) })
            .expect("a plan")
    };
    let is_mounted_over = |plan: &SandboxPlan| plan.binds.iter().any(|bind| bind.target == link);
    let plan = compile(&[&root.join("tools")]);
    assert!(!is_mounted_over(&plan));
    assert!(plan.files.iter().any(|rule| rule.path == real && rule.right == Right::Execute));
    assert!(is_mounted_over(&compile(&[])), "what nothing shows is shown as it was named");
}

#[test]
fn without_a_sandbox_there_are_limits_only() {
    let confinement =
        Confinement { sandbox: Declared::new(SandboxMode::Off, at(1)), ..Confinement::default() };
    let plan = Scene::new().compile(&confinement).expect("a plan");
    assert!(plan.files.is_empty());
    assert!(plan.group.memory > 0);
}

#[test]
fn a_plan_survives_its_way_to_the_keeper() {
    let plan = Scene::new().compile(&Confinement::default()).expect("a plan");
    let text = serde_json::to_string(&plan).expect("written");
    let back: SandboxPlan = serde_json::from_str(&text).expect("read");
    assert_eq!((back.binds, back.files, back.group), (plan.binds, plan.files, plan.group));
}

proptest! {
    /// Whatever is declared: the state folder, the keys of the user and other agents' folders are never in a rule, and
    /// what protects the workspace is never writable.
    #[test]
    fn no_declaration_below_the_workspace_opens_anything_else(
        names in prop::collection::vec("(filesystem-(read|write)|git-access|cargo|python|node)(:[a-z./]{1,9})?", 0..5)
    ) {
        let scene = Scene::new();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let confinement = Confinement { capabilities: capabilities(&names), ..Confinement::default() };
        if let Ok(plan) = scene.compile(&confinement) {
            for hidden in [&scene.folders.state_dir, &scene.folders.run_dir, &scene.folders.user_home] {
                prop_assert!(!plan.files.iter().any(|rule| rule.path == *hidden));
                prop_assert!(!plan.binds.iter().any(|bind| bind.target == *hidden));
            }
            for bind in &plan.binds {
                let protected = bind.target.ends_with(".git/hooks") || bind.target.ends_with("agents");
                prop_assert!(!protected || bind.access != Access::ReadWrite);
            }
        }
    }
}
