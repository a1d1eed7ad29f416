//! Agents that are not the user who runs Toka: what they can do, what they cannot, and what others see of their work.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use serde_json::Value;
use toka_tests::{Document, Finished, Need, Scene, User, as_both_users, require};

as_both_users!(who_may_be_somebody_else);

fn exit_code_of(finished: &Finished, expected: i32) {
    assert_eq!(finished.code, Some(expected), "{finished:#?}");
}

fn agent(name: &str, user: &str, line: &str) -> Document {
    let line = Value::from(line);
    Document::bare(name).spec(&format!("process: {{shell: {line}, user: {user}}}"))
}

/// As root the user must exist; everybody else is refused, with what would help.
fn who_may_be_somebody_else(user: User) {
    let scene = Scene::new(user).env("TOKA_TRUST", "all");
    for (wanted, as_root, as_others) in
        [("no-such-user-of-tests", 78, 78), ("dynamic", 0, 78), ("invoking", 0, 0), ("nobody", 0, 78)]
    {
        let finished = scene.toka_run(&[agent("one", wanted, "true")], &[]);
        let expected = if user == User::Root { as_root } else { as_others };
        assert_eq!(finished.code, Some(expected), "{wanted}: {finished:#?}");
        if expected == 78 {
            assert!(finished.stderr.contains("user") && finished.stderr.contains("help"), "{finished:#?}");
        }
    }
    scene.assert_nothing_left();
}

const LIVES: &str = "
set -e
id -u > \"$TOKA_ARTIFACTS/uid\"; id -G > \"$TOKA_ARTIFACTS/groups\"; echo \"user=$USER\" > \"$TOKA_ARTIFACTS/name\"
echo by name > /dev/stderr; echo by name > /dev/stdout
echo kept >> \"$HOME/kept\"; touch /tmp/one \"$TMPDIR/two\"
cp \"$CREDENTIALS_DIRECTORY/key\" \"$TOKA_ARTIFACTS/key\"
test -s \"$TOKA_SECTIONS\"
toka report progress 50% --status halfway
cat open.txt > \"$TOKA_ARTIFACTS/open\"
if cat closed.txt; then echo 'what is root alone to read is open' >&2; exit 1; fi
if rm -f \"$NOTIFY_SOCKET\"; then echo 'the door can be changed' >&2; exit 1; fi
if kill -0 1 2>/dev/null; then echo 'root can be signalled' >&2; exit 1; fi
grep '^CapEff:.*[1-9a-f]' /proc/self/status && exit 1
true
";

fn lives(user: &str, check: impl Fn(u32, &Scene)) {
    let Some(root) = User::root() else { return };
    // Whatever the caller's umask, the way to its own folders is open to it.
    let careful = ["sh", "-c", "umask 077; exec \"$@\"", "sh"].map(Into::into).to_vec();
    let scene = Scene::new(root).env("KEY", "of-the-agent").env("TOKA_TRUST", "all").wrapper(careful);
    scene.write(&scene.workspace().join("open.txt"), "for everybody\n");
    let closed = scene.workspace().join("closed.txt");
    scene.write(&closed, "for root\n");
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o600)).expect("root may");
    let agent = agent("one", user, LIVES)
        .spec("secrets: {key: {env: KEY}}")
        .section("security: {capabilities_required: [filesystem-read]}");
    let json = scene.toka_run(std::slice::from_ref(&agent), &["--json"]);
    exit_code_of(&json, 0);
    let half = |event: &Value| event["type"] == "progress" && event["status"] == "halfway";
    assert!(json.events().iter().any(half), "{json:#?}");
    assert_eq!(scene.artifact("one", "key"), "of-the-agent");
    assert_eq!(scene.artifact("one", "open"), "for everybody\n");
    let uid = scene.artifact("one", "uid").trim().parse().expect("a number");
    let home = scene.state().join("projects").join(scene.name()).join("agents/one/home");
    assert_eq!(home.metadata().expect("it is kept").uid(), uid, "its home belongs to it");
    check(uid, &scene);
    // The same user again finds what it kept; so does root, when the declaration changes.
    exit_code_of(&scene.toka_run(&[agent], &[]), 0);
    let back =
        Document::shell("one", "cat \"$HOME/kept\" > \"$TOKA_ARTIFACTS/kept\"; echo more >> \"$HOME/kept\"");
    exit_code_of(&scene.toka_run(&[back], &[]), 0);
    assert_eq!(scene.artifact("one", "kept"), "kept\nkept\n");
    scene.assert_nothing_left();
}

#[test]
fn a_user_of_its_own_lives_and_is_nobody_else() {
    lives("dynamic", |uid, scene| {
        assert!((61_184..=65_519).contains(&uid), "{uid}");
        assert_eq!(scene.artifact("one", "groups"), format!("{uid}\n"));
        assert_eq!(scene.artifact("one", "name"), "user=\n");
    });
}

#[test]
fn a_user_of_the_host_lives_with_its_groups() {
    lives("nobody", |uid, scene| {
        let nobody = nix::unistd::User::from_name("nobody").expect("a database").expect("every host has it");
        assert_eq!(uid, nobody.uid.as_raw());
        assert!(scene.artifact("one", "groups").contains(&nobody.gid.to_string()));
        assert_eq!(scene.artifact("one", "name"), "user=nobody\n");
    });
}

#[test]
fn what_one_user_made_others_take() {
    if !require(&[Need::Root]) {
        return;
    }
    let scene = Scene::new(User::Root);
    let take = "cat \"$TOKA_INPUTS\"/*/thing > \"$TOKA_ARTIFACTS/thing\"; id -u >> \"$TOKA_ARTIFACTS/thing\"";
    let agents = [
        agent("first", "dynamic", "id -u > \"$TOKA_ARTIFACTS/thing\""),
        agent("second", "invoking", take).after(&["first"]),
        agent("third", "dynamic", take).after(&["second"]),
    ];
    exit_code_of(&scene.toka_run(&agents, &[]), 0);
    let thing = scene.artifact("third", "thing");
    let ids: Vec<&str> = thing.lines().collect();
    assert_eq!((ids.len(), ids[1]), (3, "0"), "{thing}");
    assert_ne!(ids[0], ids[2], "each has its own");
}

#[test]
fn the_plan_shows_the_user() {
    if !require(&[Need::Root]) {
        return;
    }
    let scene = Scene::new(User::Root).env("TOKA_TRUST", "all");
    let mut words = scene.run_words(&[agent("one", "nobody", "true")], &[]);
    words[1] = "plan".into();
    // A plan starts nothing, and waits for nothing.
    words.retain(|word| !word.to_string_lossy().contains("-pressure"));
    let shown = scene.run(&words);
    exit_code_of(&shown, 0);
    let line = shown.stdout.lines().find(|line| line.contains("run as user")).expect("it is shown");
    assert!(line.contains(".yaml:"), "{line}");
}

/// What somebody else runs cannot be seen, which is not to say that nothing runs.
#[test]
fn what_another_user_runs_is_not_called_nothing() {
    use std::os::unix::process::CommandExt as _;
    use std::path::Path;
    if !require(&[Need::Root]) {
        return;
    }
    let scene = Scene::new(User::Root);
    let detached = scene.detach(&[Document::service("one", "exec sleep 1000")]);
    // Those of the scene, and nothing above.
    let is_ours = |folder: &&Path| folder.parent().is_some_and(|above| above.starts_with("/var/tmp"));
    for folder in scene.state().ancestors().take_while(is_ours) {
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).expect("ours");
    }
    for command in ["ps", "health", "down"] {
        let mut toka = std::process::Command::new(toka_tests::toka_binary());
        toka.arg(command)
            .env("TOKA_STATE_DIR", scene.state())
            .env("HOME", "/")
            .current_dir("/")
            .uid(12_345)
            .gid(12_345);
        let told = toka.output().expect("it starts");
        let errors = String::from_utf8_lossy(&told.stderr);
        assert_eq!(told.status.code(), Some(73), "{command}: {told:?}");
        assert!(errors.contains("cannot look for daemons in ") && errors.contains("as root"), "{errors}");
    }
    assert_eq!(detached.state("one"), "running");
}
