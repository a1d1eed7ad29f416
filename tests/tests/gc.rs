//! `toka gc`: what runs left goes, what runs stays, and nothing that is planted leads it elsewhere.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use toka_tests::{
    Document, Finished, Need, Scene, User, as_both_users, cgroups_of, processes_with, require, until,
};

as_both_users!(
    a_project_that_runs_is_untouched,
    what_a_kill_of_daemon_and_keeper_left_goes_once_nothing_runs,
    what_is_planted_is_not_followed_and_shown_escaped,
    agents_that_are_declared_no_more_go_only_on_request,
    a_short_folder_goes_when_no_process_knows_it,
    nothing_to_do_is_said,
);

/// Far above what anything here takes; only a failure waits so long.
const SOON: Duration = Duration::from_secs(40);

fn service(name: &str) -> Document {
    Document::shell(name, "exec sleep 1000").spec("type: service")
}

fn json(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout).unwrap_or_else(|_| panic!("{finished:#?}"))
}

/// The kinds and paths in a list of the answer.
fn listed(told: &Value, list: &str) -> Vec<(String, PathBuf)> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let items = told[list].as_array().expect("a list").iter();
    items.map(|item| (text(&item["kind"]), PathBuf::from(text(&item["path"])))).collect()
}

fn root_of(scene: &Scene) -> PathBuf {
    scene.state().join("projects").join(scene.name())
}

fn run_of(scene: &Scene) -> PathBuf {
    scene.state().join("run").join(scene.name())
}

fn a_project_that_runs_is_untouched(user: User) {
    let scene = Scene::new(user);
    let detached = scene.detach(&[service("api")]);
    until(SOON, "it runs", || (detached.state("api") == "running").then_some(()));
    let (before, pid) = (tree(&scene), detached.inspect("api")["pid"].clone());
    for options in [&["gc", "--agents", "--dry-run", "--json"][..], &["gc", "--agents", "--json"]] {
        let told = json(&scene.toka(options));
        assert_eq!(listed(&told, "items"), []);
        assert_eq!(listed(&told, "kept"), [("project".to_owned(), root_of(&scene))]);
        assert_eq!(told["kept"][0]["why"], "it runs");
    }
    assert_eq!((tree(&scene), detached.inspect("api")["pid"].clone()), (before, pid));
    detached.toka(&["restart", "api"]);
}

/// Every path in the run folder and that of the project, but for what changes by itself.
fn tree(scene: &Scene) -> Vec<PathBuf> {
    let mut left = vec![root_of(scene), run_of(scene)];
    let mut found = Vec::new();
    while let Some(path) = left.pop() {
        if path.symlink_metadata().expect("it is there").is_dir() {
            left.extend(fs::read_dir(&path).expect("ours").flatten().map(|entry| entry.path()));
        }
        found.push(path);
    }
    found.sort();
    found
}

fn what_a_kill_of_daemon_and_keeper_left_goes_once_nothing_runs(user: User) {
    let scene = Scene::new(user);
    let detached = scene.detach(&[service("api")]);
    until(SOON, "it runs", || (detached.state("api") == "running").then_some(()));
    let agent =
        Pid::from_raw(i32::try_from(detached.inspect("api")["pid"].as_i64().expect("a pid")).expect("a pid"));
    let health = json(&scene.toka(&["health", "--json"]));
    let daemon = i32::try_from(health[0]["daemon"]["pid"].as_i64().expect("a pid")).expect("a pid");
    let keeper = fs::read_to_string(format!("/proc/{daemon}/task/{daemon}/children")).expect("it runs");
    let keeper: i32 = keeper.trim().parse().expect("one child");
    for pid in [daemon, keeper] {
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it runs");
    }
    until(SOON, "both are gone", || (!is_alive(daemon) && !is_alive(keeper)).then_some(()));
    if !cgroups_of(scene.name()).is_empty() && is_alive(agent.as_raw()) {
        let told = scene.toka(&["gc"]);
        assert_eq!(told.code, Some(0), "{told:#?}");
        for word in [&format!("processes {agent}"), "toka serve --detach"] {
            assert!(told.stdout.contains(word), "{told:#?}");
        }
        assert!(is_alive(agent.as_raw()) && run_of(&scene).exists(), "nothing is ended or taken away");
        kill(agent, Signal::SIGKILL).expect("it runs");
    }
    until(SOON, "its processes are gone", || processes_with(scene.name()).is_empty().then_some(()));
    let would = json(&scene.toka(&["gc", "--dry-run", "--json"]));
    let items = listed(&would, "items");
    assert!(items.contains(&("run_folder".to_owned(), run_of(&scene))), "{would:#}");
    assert_eq!(items.iter().any(|(kind, _)| kind == "control_group"), !cgroups_of(scene.name()).is_empty());
    assert!(run_of(&scene).exists(), "it only said so");
    let done = json(&scene.toka(&["gc", "--json"]));
    assert_eq!(listed(&done, "items"), items);
    assert_eq!(listed(&done, "failed"), []);
    assert!(!run_of(&scene).exists() && root_of(&scene).join("agents/api/home").exists());
    assert_eq!(scene.toka(&["gc"]).stdout, "nothing to remove\n");
    let again = scene.toka_run(&[Document::shell("api", "true")], &[]);
    assert_eq!(again.code, Some(0), "{again:#?}");
}

/// A process whose first thread is a zombie still holds its files, and the lock among them, until the others have ended.
fn is_alive(pid: i32) -> bool {
    if fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|threads| threads.count() > 1) {
        return true;
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with(['Z', 'X'])
}

fn what_is_planted_is_not_followed_and_shown_escaped(user: User) {
    let scene = Scene::new(user);
    let finished = scene.toka_run(&[Document::shell("api", "true")], &[]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let precious = scene.outside().join("precious");
    scene.make_folder(&precious);
    scene.write(&precious.join("file"), "kept");
    let (run, projects) = (scene.state().join("run"), scene.state().join("projects"));
    let evil = std::ffi::OsStr::from_bytes(b"a\n\x1b[2J\xff");
    let links = [
        run.join("linked"),
        projects.join("other"),
        root_of(&scene).join("agents/gone"),
        run.join("stale/deep/link"),
    ];
    scene.make_folder(&run.join("stale/deep"));
    scene.make_folder(&run.join(evil));
    for link in &links {
        symlink(&precious, link).expect("a link");
        scene.user().own(link);
    }
    let told = scene.toka(&["gc", "--agents"]);
    assert_eq!(told.code, Some(0), "{told:#?}");
    assert!(!told.stdout.contains('\u{1b}') && told.stdout.contains("a\\x0a"), "{told:#?}");
    assert_eq!(told.stdout.matches("it is a symbolic link, which is not followed").count(), 3, "{told:#?}");
    assert!(!run.join("stale").exists(), "what is stale goes, and the link in it");
    assert_eq!(fs::read_to_string(precious.join("file")).expect("it stays"), "kept");
    for link in &links[..3] {
        assert!(link.symlink_metadata().is_ok(), "{}", link.display());
    }
    // A lock that leads elsewhere would be written to.
    let lock = root_of(&scene).join("lock");
    fs::remove_file(&lock).expect("ours");
    symlink(precious.join("file"), &lock).expect("a link");
    scene.make_folder(&run_of(&scene));
    let told = scene.toka(&["gc"]);
    assert!(told.stdout.contains("its lock is no file"), "{told:#?}");
    let run = scene.toka_run(&[Document::shell("api", "true")], &[]);
    assert_eq!(run.code, Some(73), "{run:#?}");
    assert_eq!(fs::read_to_string(precious.join("file")).expect("it stays"), "kept");
}

fn agents_that_are_declared_no_more_go_only_on_request(user: User) {
    let scene = Scene::new(user);
    let old = Document::shell("old", "echo words; mkdir ~/closed; echo x > ~/closed/file; chmod 0 ~/closed");
    let checked = old.section("objectives: [{description: done, check: echo checked}]");
    let both = scene.toka_run(&[checked, Document::shell("stays", "true")], &["--detach"]);
    let detached = scene.adopt();
    assert_eq!(both.code, Some(0), "{both:#?}");
    detached.toka(&["wait"]);
    let applied = scene.apply(&[Document::shell("stays", "true")], &[]);
    assert_eq!(applied.code, Some(0), "{applied:#?}");
    detached.toka(&["down"]);
    let agents = root_of(&scene).join("agents");
    let told = scene.toka(&["gc"]);
    assert!(told.stdout.contains("`toka gc --agents` removes it"), "{told:#?}");
    assert!(agents.join("old/home/closed").exists());
    assert!(!agents.join("old/objective-0.log").exists(), "the check is no more: {told:#?}");
    let done = scene.toka(&["gc", "--agents"]);
    assert_eq!(done.code, Some(0), "{done:#?}");
    assert!(!agents.join("old/home").exists() && !agents.join("old/artifacts").exists(), "{done:#?}");
    assert!(agents.join("stays/home").exists());
    let logs = scene.toka(&["logs", "--project", scene.name(), "old", "--run", "all"]);
    assert_eq!(logs.stdout, "words\n", "logs have bounds of their own");
}

fn a_short_folder_goes_when_no_process_knows_it(user: User) {
    if user == User::Root {
        return; // They are in /run, which is not the test's.
    }
    let scene = Scene::new(user);
    let base = scene.folder().join("xdg");
    let scene = scene.env("XDG_RUNTIME_DIR", base.as_os_str());
    let folders = ["toka-Ab3xYz", "toka-known0", "toka-files0", "toka-toolong", "other-Ab3xYz"]
        .map(|name| base.join(name));
    for folder in &folders {
        scene.make_folder(&folder.join("0"));
        fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("ours");
    }
    scene.write(&folders[2].join("0/of-a-person"), "");
    let fresh = base.join("toka-fresh0");
    scene.make_folder(&fresh);
    fs::set_permissions(&fresh, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("ours");
    let paths = folders.clone().map(|folder| folder.display().to_string());
    let mut words = vec!["touch", "-d", "1 hour ago"];
    words.extend(paths.iter().map(String::as_str));
    assert_eq!(scene.run(&words).code, Some(0));
    // It stays young, however long the rest takes.
    let young = ["touch", "-d", "1 hour", &fresh.display().to_string()];
    assert_eq!(scene.run(&young).code, Some(0));
    let mut knows = scene
        .bare_command(&["sleep", "1000"])
        .env("NOTIFY_SOCKET", folders[1].join("0/notify"))
        .spawn()
        .expect("it starts");
    until(SOON, "it has become a sleep", || {
        let comm = fs::read_to_string(format!("/proc/{}/comm", knows.id())).unwrap_or_default();
        (comm.trim() == "sleep").then_some(())
    });
    scene.make_folder(&scene.state().join("projects"));
    let told = scene.toka(&["gc"]);
    knows.kill().and_then(|()| knows.wait()).expect("our own child");
    assert_eq!(told.code, Some(0), "{told:#?}");
    assert!(!folders[0].exists(), "{told:#?}");
    for folder in folders[1..].iter().chain([&fresh]) {
        assert!(
            folder.join("0").exists() || folder == &fresh && fresh.exists(),
            "{}: {told:#?}",
            folder.display()
        );
    }
    for word in ["a process that lives has it", "something else than doors: of-a-person"] {
        assert!(told.stdout.contains(word), "{told:#?}");
    }
}

fn nothing_to_do_is_said(user: User) {
    let scene = Scene::new(user);
    assert_eq!(scene.toka(&["gc"]).success(), "nothing to remove\n");
    let absent = scene.folder().join("absent");
    let gc = ["gc", "--json", "--state-dir"];
    let mut words: Vec<std::ffi::OsString> = vec![toka_tests::toka_binary().into()];
    words.extend(gc.map(Into::into));
    words.push(absent.into());
    let told = json(&scene.run(&words));
    assert_eq!((&told["bytes"], &told["dry_run"]), (&0.into(), &false.into()));
    assert!(!scene.folder().join("absent").exists(), "it makes nothing");
    fs::set_permissions(scene.state(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("ours");
    if user == User::Root {
        nix::unistd::chown(&scene.state(), Some(12_345.into()), None).expect("root may");
        let refused = scene.toka(&["gc"]);
        assert_eq!(refused.code, Some(73), "{refused:#?}");
        assert!(refused.stderr.contains("belongs to the user 12345"), "{refused:#?}");
        nix::unistd::chown(&scene.state(), Some(0.into()), None).expect("root may");
    }
}

/// A keeper was killed, its state folder removed: no run of that project comes to remove its groups.
#[test]
fn the_empty_group_of_a_keeper_that_is_gone_goes_with_the_next_run_of_anything() {
    let Some(scene) = User::root().filter(|_| require(&[Need::Root])).map(Scene::new) else { return };
    let prefix = format!("toka-{}-", scene.name());
    // A run shows where groups are made.
    let groups = {
        let detached = scene.detach(&[service("calm")]);
        until(SOON, "it runs", || (detached.state("calm") == "running").then_some(()));
        cgroups_of(&prefix)
    };
    assert!(!groups.is_empty());
    let strays: Vec<PathBuf> =
        groups.iter().map(|group| group.with_file_name(format!("{prefix}0badcafe"))).collect();
    strays.iter().for_each(|stray| fs::create_dir_all(stray.join("shop")).expect("a group"));
    let detached = scene.detach(&[service("calm")]);
    let gone = || strays.iter().all(|stray| !stray.exists()).then_some(());
    until(SOON, "the groups to be removed", gone);
    until(SOON, "it runs", || (detached.state("calm") == "running").then_some(()));
}
