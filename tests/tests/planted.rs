//! What an agent leaves in a workspace to be obeyed later: a policy, workstreams, links, pipes, git's settings. None of it
//! counts, since authority comes from a person and not from a place; and nothing is opened by a name that an agent can swap.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use toka_tests::{Detached, Document, Finished, Scene, User, as_both_users, toka_binary};

as_both_users!(
    a_planted_policy_or_workstream_gains_nothing,
    trust_is_asked_for_recorded_and_revoked,
    a_policy_in_the_workspace_counts_when_its_content_is_trusted,
    a_policy_that_a_person_names_counts,
    what_a_person_allows_may_be_made_and_stays,
    setting_aside_follows_no_link,
    an_environment_file_that_is_swapped_gives_nothing_away,
    a_pipe_in_the_place_of_a_secret_stops_nobody,
    a_walk_that_would_not_end_stops_nobody,
    a_secret_is_looked_for_in_the_workspace,
    what_is_written_and_not_there_is_made_or_refused_with_its_line,
    a_saved_workstream_fails_no_start,
    what_a_person_replaces_stays_protected_while_an_agent_runs,
    a_working_folder_that_becomes_a_link_is_not_entered,
    what_was_never_there_is_nobodys_doing,
    a_program_may_be_built_anew_while_it_runs,
    an_agent_that_waits_for_a_replaced_file_gets_no_hold_of_it,
    a_replaced_declaration_is_trusted_no_more,
    a_worktree_has_its_repository_and_not_its_hooks,
    what_git_would_obey_in_the_workspace_is_closed,
    what_git_would_obey_is_set_aside_while_an_agent_runs,
    an_agent_that_makes_it_again_and_again_is_killed,
    whoever_can_have_made_it_is_killed,
    links_on_the_way_to_what_git_obeys_stay,
    a_bare_repository_keeps_its_hooks,
    a_repository_within_is_no_submodule_that_git_obeys,
    submodules_keep_their_settings,
    an_index_that_git_does_not_write_is_set_aside,
    what_an_agent_hides_by_closing_a_directory_is_found,
    a_repository_that_was_there_before_stays,
    what_git_obeys_from_a_repository_around_the_workspace_is_closed,
    a_repository_that_one_agent_may_make_is_taken_from_it_by_no_other,
    a_person_can_replace_what_git_obeys_by_a_link,
    a_planted_agent_of_a_trusted_name_is_another,
    no_grant_opens_what_toka_keeps_or_what_a_link_leads_to,
    a_program_outside_of_the_workspace_is_asked_for,
    a_sandbox_of_its_own_has_the_rules_of_a_run,
);

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A command of `toka` typed in the workspace.
fn typed(scene: &Scene, words: &[&str]) -> Finished {
    let mut line: Vec<OsString> = vec![toka_binary().into()];
    line.extend(words.iter().map(OsString::from));
    line.extend(["--state-dir".into(), scene.state().into()]);
    scene.run(&line)
}

fn exit_code_of(finished: &Finished, expected: i32) {
    assert_eq!(finished.code, Some(expected), "{finished:#?}");
}

const WRITES: &str = "security: {capabilities_required: [filesystem-read, filesystem-write]}";

fn a_planted_policy_or_workstream_gains_nothing(user: User) {
    let scene = Scene::new(user);
    let secret = scene.outside().join("secret.txt");
    let evil = format!(
        "metadata: {{name: evil}}\\nspec: {{secrets: {{k: {{file: {0}}}}}, process: {{shell: \"cat {0}; cp \\$CREDENTIALS_DIRECTORY/k stolen\"}}}}\\n",
        secret.display()
    );
    // The names that things might be set aside under are taken.
    let script = format!(
        "mkdir -p toka.yaml.from-planter/x agents.from-planter/x agents
        echo 'allow: [\"sandbox:off\", secret-file]' > toka.yaml
        printf '{evil}security: {{sandbox: false}}\\n' > agents/evil.yaml
        printf '{evil}security: {{capabilities_required: [filesystem-write]}}\\n' > evil.yaml
        echo 'services: {{}}' > compose.yaml"
    );
    let planted = scene.toka_run(&[Document::shell("planter", &script).section(WRITES)], &[]);
    exit_code_of(&planted, 0);
    for name in ["toka.yaml", "agents", "evil.yaml"] {
        assert!(!scene.workspace().join(name).exists(), "{name}");
        assert!(planted.stdout.contains(&format!("{name} appeared")), "{name}: {planted:#?}");
    }
    assert!(scene.workspace().join("compose.yaml").exists(), "it is another tool's");
    // Even where it lies in its place, it is refused until a person has looked at it.
    scene.make_folder(&scene.workspace().join("agents"));
    let demand = evil.replace("\\n", "\n").replace("\\$", "$");
    scene.write(
        &scene.workspace().join("agents/evil.yaml"),
        &format!("{demand}security: {{sandbox: false}}\n"),
    );
    scene.write(&scene.workspace().join("toka.yaml"), "allow: ['sandbox:off', secret-file]\n");
    let refused = typed(&scene, &["run"]);
    exit_code_of(&refused, 77);
    for word in ["sandbox:off is dangerous", "secret-file:", "toka trust", "toka.yaml allows does not count"]
    {
        assert!(refused.stderr.contains(word), "{word}: {refused:#?}");
    }
    assert!(!scene.workspace().join("stolen").exists());
}

fn trust_is_asked_for_recorded_and_revoked(user: User) {
    let scene = Scene::new(user).env("SOME_KEY", "hush").env("OTHER_KEY", "hush");
    let agents = scene.workspace().join("agents");
    scene.make_folder(&agents);
    let declare = |name: &str, variable: &str, command: &str| {
        let text = format!(
            "metadata: {{name: {name}}}\nspec: {{process: {{shell: '{command}'}}, secrets: {{k: {{env: {variable}}}}}}}\n"
        );
        scene.write(&agents.join(format!("{name}.yaml")), &text);
    };
    declare("keyed", "SOME_KEY", "true");
    let refused = typed(&scene, &["run"]);
    exit_code_of(&refused, 77);
    assert!(refused.stderr.contains("agents/keyed.yaml:2"), "{refused:#?}");
    exit_code_of(&typed(&scene, &["plan"]), 77);
    exit_code_of(&typed(&scene, &["run", "--trust"]), 0);
    exit_code_of(&typed(&scene, &["run", "--allow", "secret-variable:SOME_KEY"]), 0);

    let nobody = typed(&scene, &["trust"]);
    exit_code_of(&nobody, 77);
    assert!(nobody.stdout.contains("read your variable SOME_KEY, as a secret"), "{nobody:#?}");
    assert!(nobody.stderr.contains("toka trust --yes"), "{nobody:#?}");
    exit_code_of(&typed(&scene, &["run"]), 77);
    exit_code_of(&typed(&scene, &["trust", "--yes"]), 0);
    exit_code_of(&typed(&scene, &["run"]), 0);
    declare("keyed", "SOME_KEY", "echo another command");
    exit_code_of(&typed(&scene, &["run"]), 0);
    // To write where one could read is a new demand.
    let reach = |how: &str| {
        let text = format!(
            "metadata: {{name: keyed}}\nspec: {{process: {{shell: 'true'}}}}\nsecurity: {{filesystem: {{{how}: [{}]}}}}\n",
            scene.outside().display()
        );
        scene.write(&agents.join("keyed.yaml"), &text);
    };
    reach("read");
    let review = typed(&scene, &["trust", "--yes"]);
    exit_code_of(&review, 0);
    assert!(review.stdout.contains("read ") && !review.stdout.contains("write"), "{review:#?}");
    exit_code_of(&typed(&scene, &["run"]), 0);
    for how in ["write", "execute"] {
        reach(how);
        let refused = typed(&scene, &["run"]);
        exit_code_of(&refused, 77);
        assert!(refused.stderr.contains(&format!("filesystem-outside-{how}:")), "{refused:#?}");
    }
    declare("keyed", "SOME_KEY", "true");
    exit_code_of(&typed(&scene, &["trust", "--yes"]), 0);
    // A new demand asks again, and so does the same demand of another agent.
    declare("keyed", "OTHER_KEY", "true");
    exit_code_of(&typed(&scene, &["run"]), 77);
    declare("keyed", "SOME_KEY", "true");
    declare("other", "SOME_KEY", "true");
    let refused = typed(&scene, &["run"]);
    exit_code_of(&refused, 77);
    assert!(!refused.stderr.contains("keyed: "), "{refused:#?}");
    let review = typed(&scene, &["trust", "--json"]);
    let review: Value = serde_json::from_str(&review.stdout).expect("JSON");
    assert_eq!(review["agents"]["keyed"][0]["new"], false);
    assert_eq!(review["agents"]["other"][0]["new"], true);
    assert_eq!(review["recorded"], false);

    let list = typed(&scene, &["trust", "--list"]);
    assert!(list.stdout.contains("keyed may read your variable SOME_KEY"), "{list:#?}");
    assert!(!format!("{list:?}{refused:?}").contains("hush"));
    exit_code_of(&typed(&scene, &["trust", "--revoke"]), 0);
    // Trust of a workspace that is not there any more can be revoked: another may get its name one day.
    let gone = scene.outside().join("gone");
    scene.make_folder(&gone);
    let workdir = gone.display().to_string();
    let file = agents.join("keyed.yaml").display().to_string();
    exit_code_of(&typed(&scene, &["trust", "--yes", "--workdir", &workdir, &file]), 0);
    std::fs::remove_dir(&gone).expect("ours");
    let revoked = typed(&scene, &["trust", "--revoke", "--workdir", &workdir]);
    exit_code_of(&revoked, 0);
    assert!(revoked.stdout.contains("is trusted with nothing any more"), "{revoked:#?}");
    std::fs::remove_file(agents.join("other.yaml")).expect("ours");
    exit_code_of(&typed(&scene, &["run"]), 77);
    let wrong = scene.env("TOKA_TRUST", "yes");
    exit_code_of(&typed(&wrong, &["run"]), 2);
    exit_code_of(&typed(&wrong.env("TOKA_TRUST", "all"), &["run"]), 0);
}

fn a_policy_in_the_workspace_counts_when_its_content_is_trusted(user: User) {
    let scene = Scene::new(user);
    scene.make_folder(&scene.workspace().join("agents"));
    let free = "metadata: {name: free}\nspec: {process: {shell: 'true'}}\nsecurity: {network: full}\n";
    scene.write(&scene.workspace().join("agents/free.yaml"), free);
    let policy = scene.workspace().join("toka.yaml");
    scene.write(&policy, "allow: [network:full]\n");
    exit_code_of(&typed(&scene, &["run"]), 77);
    exit_code_of(&typed(&scene, &["trust", "--yes"]), 0);
    exit_code_of(&typed(&scene, &["run"]), 0);
    // What it denies holds, whoever wrote it, and whatever was trusted.
    scene.write(&policy, "deny: [network:full]\n");
    exit_code_of(&typed(&scene, &["run", "--trust"]), 77);
}

fn a_policy_that_a_person_names_counts(user: User) {
    let scene = Scene::new(user);
    let agent = [Document::shell("free", "true").section("security: {network: full}")];
    let policy = scene.outside().join("policy.yaml");
    let path = policy.display().to_string();
    exit_code_of(&scene.toka_run(&agent, &[]), 77);
    scene.write(&policy, "allow: [network:full]\n");
    exit_code_of(&scene.toka_run(&agent, &["--policy", &path]), 0);
    exit_code_of(&scene.toka_run(&agent, &[]), 77);
    scene.write(&policy, "deny: [network:full]\n");
    exit_code_of(&scene.toka_run(&agent, &["--policy", &path, "--trust"]), 77);
    // One that cannot be read, or that says something else, is no empty one.
    scene.write(&policy, "allowed: [network:full]\n");
    for path in [&path, "no-such-policy.yaml"] {
        let refused = scene.toka_run(&agent, &["--policy", path]);
        assert!(!matches!(refused.code, Some(0 | 70 | 77)), "{refused:#?}");
        assert!(refused.stderr.contains(path), "{refused:#?}");
    }
}

/// Without the grant each of these is set aside.
fn what_a_person_allows_may_be_made_and_stays(user: User) {
    let scene = Scene::new(user);
    let made = ["agents/more.yaml", "toka.yaml", ".git/HEAD"];
    let script = "mkdir -p agents && echo 'metadata: {name: more}' > agents/more.yaml && echo 'deny: []' > toka.yaml && git init -q .";
    let capabilities =
        "security: {capabilities_required: [filesystem-read, filesystem-write, declaration-write, git-init]}";
    let maker = [Document::shell("maker", script).section(capabilities)];
    for one in ["declaration-write", "git-init"] {
        let refused = scene.toka_run(&maker, &["--allow", one]);
        exit_code_of(&refused, 77);
    }
    exit_code_of(&scene.toka_run(&maker, &["--allow", "declaration-write", "--allow", "git-init"]), 0);
    for name in made {
        assert!(scene.workspace().join(name).is_file(), "{name}");
    }
}

fn setting_aside_follows_no_link(user: User) {
    let scene = Scene::new(user);
    let victim = scene.outside().join("victim");
    scene.make_folder(&victim.join("hooks"));
    scene.write(&victim.join("config"), "Host *\n");
    let script = format!("ln -s {} .git; ln -s {0} agents", victim.display());
    let ran = scene.toka_run(&[Document::shell("planter", &script).section(WRITES)], &[]);
    exit_code_of(&ran, 0);
    assert!(victim.join("config").is_file() && victim.join("hooks").is_dir());
    assert_eq!(victim.read_dir().expect("a folder").count(), 2);
    for name in [".git", "agents"] {
        assert!(scene.workspace().join(name).symlink_metadata().is_err(), "{name}");
    }
}

/// Exchanges two names again and again until it is dropped.
fn swapping<T>(one: &Path, other: &Path, meanwhile: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).expect("both are there");
            }
        });
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(meanwhile));
        over.store(true, Ordering::Relaxed);
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn an_environment_file_that_is_swapped_gives_nothing_away(user: User) {
    let scene = Scene::new(user);
    let host = scene.outside().join("prod.env");
    scene.write(&host, "STOLEN=host-secret\n");
    let (file, link) = (scene.workspace().join(".env"), scene.workspace().join(".link"));
    scene.write(&file, "FINE=1\n");
    std::os::unix::fs::symlink(&host, &link).expect("a link");
    let victim = Document::bare("victim")
        .spec("process: {shell: 'env > \"$TOKA_ARTIFACTS/env\"', environment_file: [.env]}");
    let mut codes = Vec::new();
    swapping(&file, &link, || {
        for _ in 0..12 {
            codes.push(scene.toka_run(std::slice::from_ref(&victim), &["--quiet"]).code);
            assert!(!scene.artifact("victim", "env").contains("STOLEN"));
        }
    });
    assert!(codes.iter().all(|code| matches!(code, Some(0 | 65))), "{codes:?}");
    // A link is refused with words that say so.
    std::fs::remove_file(&file).expect("ours");
    std::os::unix::fs::symlink(&host, &file).expect("a link");
    let refused = scene.toka_run(&[victim], &[]);
    exit_code_of(&refused, 65);
    assert!(refused.stderr.contains("a symbolic link is on the way to it"), "{refused:#?}");
}

fn a_pipe_in_the_place_of_a_secret_stops_nobody(user: User) {
    let scene = Scene::new(user);
    scene.write(&scene.workspace().join("token"), "t");
    let planter =
        Document::service("planter", "rm token; mkfifo token; touch planted; sleep 600").section(WRITES);
    let secret = Document::shell("reader", "true").spec("secrets: {t: {file: token}}");
    let detached = scene.detach(&[planter, secret]);
    detached.toka(&["wait", "reader"]);
    eventually("it is planted", || scene.workspace().join("planted").exists());
    let refused = detached.try_toka(&["start", "reader"]);
    assert_ne!(refused.code, Some(0), "{refused:#?}");
    assert!(refused.stderr.contains("it is not a regular file"), "{refused:#?}");
    assert!(detached.toka(&["ps"]).stdout.contains("planter"));
    detached.assert_nothing_held_up();
}

fn a_walk_that_would_not_end_stops_nobody(user: User) {
    let scene = Scene::new(user);
    let planter = Document::shell("one", "mkdir a; ln -s .. a/l1; ln -s .. a/l2").section(WRITES);
    exit_code_of(&scene.toka_run(&[planter], &[]), 0);
    scene.write(&scene.workspace().join("a/one.md"), "one");
    let reader = Document::shell("one", "cat a/one.md > \"$TOKA_ARTIFACTS/seen\"")
        .section("security: {filesystem: {read: ['**/*.md']}}");
    exit_code_of(&scene.toka_run(&[reader], &[]), 0);
    assert_eq!(scene.artifact("one", "seen"), "one");
    let stranger = Document::shell("one", "true").section("security: {filesystem: {read: ['/**/shadow']}}");
    let refused = scene.toka_run(&[stranger], &[]);
    exit_code_of(&refused, 77);
}

fn a_secret_is_looked_for_in_the_workspace(user: User) {
    let scene = Scene::new(user);
    let agent = || {
        Document::shell("s", "cat \"$CREDENTIALS_DIRECTORY/token\" > \"$TOKA_ARTIFACTS/seen\"")
            .spec("secrets: {token: {file: token.txt}}")
    };
    let shown = scene.workspace().join("token.txt");
    let lacking = scene.toka_run(&[agent()], &[]);
    exit_code_of(&lacking, 78);
    assert!(
        lacking.stderr.contains(&format!("cannot be read from {}: No such file", shown.display())),
        "{lacking:#?}"
    );
    scene.write(&shown, "s3cret");
    // A daemon's current folder is another, and so is the one that this is typed in.
    let detached = scene.detach(&[agent()]);
    detached.toka(&["wait", "s"]);
    assert_eq!(scene.artifact("s", "seen"), "s3cret");
}

fn what_is_written_and_not_there_is_made_or_refused_with_its_line(user: User) {
    let scene = Scene::new(user);
    let agent = Document::shell("out", "echo hi > out.txt && echo hi > build/x && echo hi > target/deep")
        .spec("hooks: {pre_start: [mkdir, -p, target]}")
        .section("security: {capabilities_required: [filesystem-read, 'filesystem-write:target'], filesystem: {write: [out.txt, build]}}");
    exit_code_of(&scene.toka_run(&[agent], &[]), 0);
    for path in ["out.txt", "build/x", "target/deep"] {
        let text = std::fs::read_to_string(scene.workspace().join(path)).unwrap_or_default();
        assert_eq!(text, "hi\n", "{path}");
    }
    let lost = Document::shell("out", "true").section("security: {filesystem: {write: [no/such/file.txt]}}");
    let refused = scene.toka_run(&[lost], &[]);
    exit_code_of(&refused, 65);
    assert!(
        refused.stderr.contains("no/such/file.txt is not there, and neither is a folder above it"),
        "{refused:#?}"
    );
    for granted in ["filesystem: {read: [no-such]}", "capabilities_required: ['filesystem-read:no-such']"] {
        let absent = Document::shell("out", "true").section(&format!("security: {{{granted}}}"));
        let told = scene.toka_run(&[absent], &[]);
        exit_code_of(&told, 0);
        assert!(told.stdout.contains("no-such is not there"), "{granted}: {told:#?}");
    }
}

fn a_saved_workstream_fails_no_start(user: User) {
    let scene = Scene::new(user);
    let text = "metadata: {name: a}\nspec: {replicas: 12, process: {shell: 'true'}}\nsecurity: {capabilities_required: [filesystem-read, filesystem-write]}\n";
    let file = scene.workspace().join("w.yaml");
    scene.write(&file, text);
    let (over, saves) = (AtomicBool::new(false), scene.workspace().join(".new"));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                std::fs::write(&saves, text).and_then(|()| std::fs::rename(&saves, &file)).expect("ours");
            }
        });
        let ran = typed(&scene, &["run", "w.yaml", "--quiet"]);
        over.store(true, Ordering::Relaxed);
        exit_code_of(&ran, 0);
    });
}

const CODER: &str = "security: {capabilities_required: [filesystem-read, filesystem-write, git-access]}";

fn uncovered(detached: &Detached<'_>) -> Vec<(String, Value)> {
    let events = detached.toka(&["events", "--json"]).stdout;
    let events = events.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let ours = events.filter(|event| event["type"] == "agent_uncovered");
    ours.map(|event| (event["path"].as_str().expect("a path").to_owned(), event["outcome"].clone())).collect()
}

/// As editors, git and `sed -i` do it: under another name, and then by renaming.
fn save(scene: &Scene, path: &Path, text: &str) {
    let beside = path.with_extension("saved");
    scene.write(&beside, text);
    std::fs::rename(&beside, path).expect("ours");
}

fn what_a_person_replaces_stays_protected_while_an_agent_runs(user: User) {
    let scene = Scene::new(user);
    git(&scene, &scene.workspace(), &["init", "-q"]);
    let script = "until [ -e go ]; do sleep 0.02; done; for f in .git/config .git/hooks/pre-commit agents/w.yaml w.yaml; do \
        echo evil 2>/dev/null >> $f && echo wrote $f; done; echo done; exec sleep 1000";
    let text = "metadata: {name: other}\nspec: {process: {shell: 'true'}}\n";
    scene.make_folder(&scene.workspace().join("agents"));
    scene.write(&scene.workspace().join("agents/w.yaml"), text);
    scene.write(&scene.workspace().join("w.yaml"), text);
    let detached = scene.detach(&[Document::service("coder", script).section(CODER)]);
    eventually("it runs", || detached.state("coder") == "running");
    let git_dir = scene.workspace().join(".git");
    git(&scene, &scene.workspace(), &["config", "some.key", "value"]);
    save(&scene, &scene.workspace().join("w.yaml"), text);
    // As a checkout of a branch without it, and back.
    std::fs::rename(git_dir.join("hooks"), git_dir.join("old")).expect("ours");
    scene.make_folder(&git_dir.join("hooks"));
    let all = ["config", "hooks", "w.yaml"];
    let renewed = |name: &str| {
        uncovered(&detached).iter().any(|(path, outcome)| path.ends_with(name) && outcome == "renewed")
    };
    eventually("all is protected again", || all.iter().all(|name| renewed(name)));
    scene.write(&scene.workspace().join("go"), "");
    let said = || detached.toka(&["logs", "coder"]).stdout;
    eventually("it has tried", || said().contains("done"));
    assert!(!said().contains("wrote"), "{}", said());
    let shown = detached.toka(&["events"]).stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(shown.contains("config while it ran") && shown.contains("is protected again"), "{shown}");
}

/// A link below /proc leads out of what the mounts show, to where no path of the agent leads.
fn a_working_folder_that_becomes_a_link_is_not_entered(user: User) {
    let wide = "security: {capabilities_required: [filesystem-read, filesystem-write]}";
    for target in ["/proc/$PPID/root", "/proc/self/root", "/proc/2/fd/5", "/", "other"] {
        let scene = Scene::new(user);
        scene.make_folder(&scene.workspace().join("sub"));
        scene.make_folder(&scene.workspace().join("other"));
        let script = format!("echo life >> ~/lives; cd ..; rmdir sub; ln -s {target} sub; exit 1");
        let agent = Document::bare("swaps")
            .spec(&format!("process: {{shell: \"{script}\", working_dir: sub}}"))
            .spec("restart: {policy: on-failure, max_restarts: 1, backoff: {initial: 1ms}}")
            .section(wide);
        let finished = scene.toka_run(&[agent], &["--json"]);
        exit_code_of(&finished, 1);
        let ended = format!("{:?}", finished.all("agent_quarantined", "swaps"));
        assert!(ended.contains("start_failed") && ended.contains("folder: enter"), "{target}: {ended}");
        let lives = scene.state().join("projects").join(scene.name()).join("agents/swaps/home/lives");
        assert_eq!(std::fs::read_to_string(lives).expect("its home"), "life\n", "{target}");
        scene.assert_nothing_left();
    }
}

/// The keeper blames no process outside for a name that was never there, nor for what the agent itself makes.
fn what_was_never_there_is_nobodys_doing(user: User) {
    let wide =
        "security: {capabilities_required: [filesystem-read, filesystem-write, git-access, cargo-execution]}";
    for script in
        ["sleep 0.3", "git init -q .; sleep 0.3; echo done", "ln -s /etc .git; sleep 0.3; echo done"]
    {
        let scene = Scene::new(user);
        let finished = scene.toka_run(&[Document::shell("coder", script).section(wide)], &["--json"]);
        exit_code_of(&finished, 0);
        assert!(finished.all("agent_uncovered", "coder").is_empty(), "{script}: {finished:#?}");
        // `git init` goes on in a directory that it makes anew when the first is set aside.
        let is_told = !finished.all("agent_planted", "coder").is_empty();
        assert_eq!(is_told, script.contains("git"), "{script}: {finished:#?}");
        assert!(scene.workspace().join(".git").symlink_metadata().is_err(), "{script}");
        scene.assert_nothing_left();
    }
}

/// A program that is built anew while the former one runs is no protection that was lost.
fn a_program_may_be_built_anew_while_it_runs(user: User) {
    let scene = Scene::new(user);
    scene.make_folder(&scene.workspace().join("out"));
    let app = scene.workspace().join("out/app");
    scene.write_program(&app, "#!/bin/sh\nuntil [ -e go ]; do sleep 0.02; done\n");
    let reads = "security: {capabilities_required: [filesystem-read]}";
    let mut run = scene.start(&[Document::command("app", &["./out/app"]).section(reads)], &[]);
    run.wait_for("agent_started", "app");
    scene.write_program(&app.with_extension("new"), "#!/bin/sh\n");
    std::fs::rename(app.with_extension("new"), &app).expect("ours");
    scene.write(&scene.workspace().join("go"), "");
    let finished = run.finish();
    exit_code_of(&finished, 0);
    assert!(finished.all("agent_uncovered", "app").is_empty(), "{finished:#?}");
    scene.assert_nothing_left();
}

/// It is quick enough to open the file, or it is not: either way it has no hold of it afterwards.
fn an_agent_that_waits_for_a_replaced_file_gets_no_hold_of_it(user: User) {
    let scene = Scene::new(user);
    let script = "import os, time\nheld = []\nwhile not os.path.exists('go'):\n try: held.append(os.open('w.yaml', os.O_WRONLY))\n \
        except OSError: pass\nfor fd in held: os.write(fd, b'evil')\nprint('held', len(held), flush=True)\ntime.sleep(1000)\n";
    scene.write(&scene.workspace().join("wait.py"), script);
    let file = scene.workspace().join("w.yaml");
    let text = "metadata: {name: other}\nspec: {process: {shell: 'true'}}\n";
    scene.write(&file, text);
    let waits =
        Document::service("waits", "exec /usr/bin/python3 wait.py").spec("restart: \"no\"").section(WRITES);
    let agents = [waits];
    let detached = scene.detach(&agents);
    eventually("it runs", || detached.state("waits") == "running");
    for _ in 0..20 {
        let before = uncovered(&detached).len();
        save(&scene, &file, text);
        eventually("it is told", || {
            uncovered(&detached).len() > before || detached.state("waits") == "ended"
        });
        if detached.state("waits") == "ended" {
            break;
        }
    }
    scene.write(&scene.workspace().join("go"), "");
    let said = || detached.toka(&["logs", "waits"]).stdout;
    // What it holds of files that were replaced since is nobody's.
    eventually("it has tried", || said().contains("held") || detached.state("waits") == "ended");
    assert_eq!(std::fs::read_to_string(&file).expect("there"), text);
}

fn a_replaced_declaration_is_trusted_no_more(user: User) {
    let scene = Scene::new(user).env("SOME_KEY", "hush");
    let text = "metadata: {name: keyed}\nspec: {process: {shell: 'true'}, secrets: {k: {env: SOME_KEY}}}\n";
    let agents = scene.workspace().join("agents");
    scene.make_folder(&agents);
    let file = agents.join("keyed.yaml");
    scene.write(&file, text);
    exit_code_of(&typed(&scene, &["trust", "--yes"]), 0);
    exit_code_of(&typed(&scene, &["run", "agents"]), 0);
    let detached = scene.detach(&[Document::service("coder", "exec sleep 1000").section(WRITES)]);
    eventually("it runs", || detached.state("coder") == "running");
    std::fs::rename(&agents, scene.workspace().join("elsewhere")).expect("ours");
    let told = || detached.toka(&["events"]).stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    eventually("it is told", || told().contains("what keyed was trusted with does not count any more"));
    std::fs::rename(scene.workspace().join("elsewhere"), &agents).expect("ours");
    drop(detached);
    let refused = typed(&scene, &["run", "agents"]);
    exit_code_of(&refused, 77);
}

/// Runs git in a folder of the scene, as its user.
fn git(scene: &Scene, folder: &Path, words: &[&str]) -> Finished {
    let mut line = vec!["git".to_owned(), "-C".to_owned(), folder.display().to_string()];
    line.extend(["-c", "user.name=a", "-c", "user.email=a@example.org"].map(str::to_owned));
    line.extend(words.iter().map(|word| (*word).to_owned()));
    scene.run(&line)
}

fn a_worktree_has_its_repository_and_not_its_hooks(user: User) {
    let scene = Scene::new(user);
    let main = scene.outside().join("main");
    scene.make_folder(&main);
    for words in [&["init", "-q", "-b", "main"][..], &["commit", "-q", "--allow-empty", "-m", "one"]] {
        exit_code_of(&git(&scene, &main, words), 0);
    }
    let tree = scene.outside().join("tree");
    exit_code_of(&git(&scene, &main, &["worktree", "add", "-q", "../tree", "-b", "side"]), 0);
    let script = format!(
        "git status --short --branch && echo more > f && git add f && git commit -qm two && git log --oneline
        for path in hooks/pre-commit config worktrees/tree/config.worktree info/attributes; do
            echo x >> {main}/.git/$path && echo \"wrote $path\"
        done
        echo 'gitdir: /tmp/evil' > .git && echo wrote .git",
        main = main.display()
    );
    let agents = scene.outside().join("declared");
    scene.make_folder(&agents);
    let document = Document::shell("coder", &script)
        .section("security: {capabilities_required: [filesystem-read, filesystem-write, git-access]}");
    scene.write(&agents.join("coder.yaml"), &document.yaml());
    let (agents, workdir) = (agents.display().to_string(), tree.display().to_string());
    let ran = typed(&scene, &["run", &agents, "--workdir", &workdir, "--project", "tree", "--follow"]);
    assert!(ran.stdout.contains("two") && ran.stdout.contains("one"), "{ran:#?}");
    let wrote: Vec<&str> = ran.stdout.lines().filter(|line| line.contains("│ wrote")).collect();
    // What is not there yet can be made, and is set aside.
    assert!(
        wrote.iter().all(|line| line.contains("config.worktree")
            || line.contains("info/attributes")
            || line.contains("hooks/pre-commit")),
        "{wrote:?}"
    );
    assert!(!main.join(".git/worktrees/tree/config.worktree").exists(), "{ran:#?}");
    assert!(!main.join(".git/info/attributes").exists(), "{ran:#?}");
    assert!(!main.join(".git/hooks/pre-commit").exists(), "{ran:#?}");
    exit_code_of(&git(&scene, &tree, &["status", "--short"]), 0);
    // Without the capability the plan says what is missing.
    let bare = Document::shell("coder", "true").section(WRITES);
    scene.write(&scene.outside().join("declared/coder.yaml"), &bare.yaml());
    let plan = typed(&scene, &["plan", &agents, "--workdir", &workdir]);
    let text = plan.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("git-access opens it"), "{text}");
}

fn what_git_would_obey_in_the_workspace_is_closed(user: User) {
    let scene = Scene::new(user);
    let workspace = scene.workspace();
    for words in [
        &["init", "-q"][..],
        &["config", "core.hooksPath", ".husky/_"],
        &["config", "include.path", "../.gitconfig"],
    ] {
        exit_code_of(&git(&scene, &workspace, words), 0);
    }
    scene.make_folder(&workspace.join(".husky/_"));
    // The repository of a submodule lies as deep as its path.
    let module = workspace.join(".git/modules/lib/sub");
    exit_code_of(&git(&scene, &workspace, &["init", "-q", "--bare", &module.to_string_lossy()]), 0);
    let agent = Document::shell(
        "d",
        "! echo evil > .husky/_/pre-commit; echo '[core]' > .gitconfig
        cd .git/modules/lib/sub; ! echo evil > config || exit 3; ! touch hooks/post-checkout || exit 4
        echo evil > commondir; cd .. && ! mv sub other",
    );
    let ran = scene.toka_run(&[agent.section(WRITES)], &[]);
    exit_code_of(&ran, 0);
    assert!(ran.stdout.contains("lib/sub/commondir appeared"), "{ran:#?}");
    assert!(!module.join("commondir").exists() && module.join("config").exists());
    assert!(!workspace.join(".husky/_/pre-commit").exists());
    assert!(!workspace.join(".gitconfig").exists(), "it is set aside");

    // A repository that an agent makes where there was none is no repository afterwards, unless a person allows it.
    let other = Scene::new(user);
    let script = "git init -q x; mv x/.git real; git --git-dir=real config core.fsmonitor 'touch pwned'; echo 'gitdir: real' > .git";
    let makes = |extra: &str| {
        let capabilities = format!(
            "security: {{capabilities_required: [filesystem-read, filesystem-write, git-access{extra}]}}"
        );
        Document::shell("maker", script).section(&capabilities)
    };
    exit_code_of(&other.toka_run(&[makes("")], &[]), 0);
    assert!(other.workspace().join(".git").symlink_metadata().is_err());
    exit_code_of(&other.toka_run(&[makes(", git-init")], &[]), 77);

    // Nor is one without `.git`, which git takes the directory itself for.
    let bare = Scene::new(user);
    let script = "mkdir objects refs && echo 'ref: refs/heads/main' > HEAD && \
        printf '[core]\\nbare = false\\nworktree = .\\nfsmonitor = \"touch pwned; false\"\\n' > config";
    exit_code_of(&bare.toka_run(&[Document::shell("maker", script).section(WRITES)], &[]), 0);
    git(&bare, &bare.workspace(), &["status"]);
    assert!(!bare.workspace().join("pwned").exists() && !bare.workspace().join("HEAD").exists());
}

/// Each waits until it is gone again, so that the agent ends only when the keeper has set all of it aside.
fn what_git_would_obey_is_set_aside_while_an_agent_runs(user: User) {
    let scene = Scene::new(user);
    let workspace = scene.workspace();
    exit_code_of(&git(&scene, &workspace, &["init", "-q"]), 0);
    exit_code_of(&git(&scene, &workspace, &["config", "include.path", "../later.conf"]), 0);
    let script = "goes() { while test -e \"$1\" || test -L \"$1\"; do sleep 0.01; done; }
        echo evil > .git/commondir; goes .git/commondir
        echo evil > .git/x; ln .git/x .git/config.worktree; goes .git/config.worktree
        chmod 500 .git/info; chmod 700 .git/info; echo evil > .git/info/attributes; chmod 500 .git/info; goes .git/info/attributes
        mv .git/info .git/other; ln -s ../mine .git/info; goes .git/info
        mkdir -p mine/deep; mv mine .git/info; echo evil > .git/info/attributes; goes .git/info/attributes
        echo evil > later.conf; goes later.conf";
    let ran = scene.toka_run(&[Document::shell("maker", script).section(WRITES)], &["--json"]);
    exit_code_of(&ran, 0);
    let told = ran.all("agent_planted", "maker");
    let names = ["commondir", "config.worktree", "info/attributes", "info", "info/attributes"];
    let paths = names.iter().map(|name| workspace.join(".git").join(name));
    let paths: Vec<Value> =
        paths.chain([workspace.join("later.conf")]).map(|path| path.to_str().into()).collect();
    assert_eq!(told.iter().map(|event| event["path"].clone()).collect::<Vec<_>>(), paths, "{told:#?}");
    let last = ran.events().iter().rposition(|event| event["type"] == "agent_planted");
    assert!(last < ran.place_of("agent_ended", "maker"), "{ran:#?}");
}

fn an_agent_that_makes_it_again_and_again_is_killed(user: User) {
    let scene = Scene::new(user);
    let script = "while :; do mkdir .git 2>/dev/null; done";
    let ran = scene.toka_run(&[Document::shell("maker", script).section(WRITES)], &[]);
    exit_code_of(&ran, 1);
    assert!(
        ran.stdout
            .contains("the keeper killed it: 10 times in a minute something appeared that git would obey"),
        "{ran:#?}"
    );
    assert!(!scene.workspace().join(".git").exists());
}

/// Nobody knows which of two agents in one workspace it was.
fn whoever_can_have_made_it_is_killed(user: User) {
    let scene = Scene::new(user);
    let agents = [
        Document::shell("first", "touch up; exec sleep 1000").section(WRITES),
        Document::shell("maker", "until test -e up; do sleep 0.01; done; while :; do mkdir .git 2>/dev/null; done")
            .section(WRITES),
        Document::shell("reader", "until test -e done; do sleep 0.05; done")
            .section("security: {capabilities_required: [filesystem-read]}"),
        Document::shell("third", "touch done")
            .section("security: {capabilities_required: [filesystem-read, filesystem-write]}\ndependencies: {optional: [first, maker]}"),
    ];
    let ran = scene.toka_run(&agents, &[]);
    exit_code_of(&ran, 1);
    for name in ["first", "maker"] {
        let line = format!("{name}: warning: the keeper killed it: 10 times");
        assert!(ran.stdout.contains(&line), "{name}: {ran:#?}");
    }
    assert!(!ran.stdout.contains("reader: warning"), "{ran:#?}");
}

/// As `repo` of Android makes them, and dotfiles.
fn links_on_the_way_to_what_git_obeys_stay(user: User) {
    let scene = Scene::new(user);
    let workspace = scene.workspace();
    exit_code_of(&git(&scene, &workspace, &["init", "-q"]), 0);
    let dot_git = workspace.join(".git");
    std::fs::remove_dir_all(dot_git.join("hooks")).expect("ours");
    scene.make_folder(&workspace.join("team/hooks"));
    for (name, target) in [("config", "team/config"), ("info", "team/info")] {
        std::fs::rename(dot_git.join(name), workspace.join(target)).expect("ours");
    }
    for name in ["config", "info", "hooks"] {
        std::os::unix::fs::symlink(format!("../team/{name}"), dot_git.join(name)).expect("a link");
    }
    let script = "cd .git; for name in config info hooks; do
            ! rm $name || exit 3; ! mv $name other || exit 4; ! ln -sfn /tmp $name || exit 5; test -L $name || exit 6
        done
        ! echo evil >> config || exit 7; ! touch hooks/pre-commit || exit 8; ! mv ../team ../other || exit 9
        echo evil > ../team/info/attributes; while test -e info/attributes; do sleep 0.01; done
        echo kept > info/exclude && cd .. && git status";
    let agent = Document::shell("maker", script)
        .section("security: {capabilities_required: [filesystem-read, filesystem-write, git-access]}");
    let ran = scene.toka_run(std::slice::from_ref(&agent), &[]);
    exit_code_of(&ran, 0);
    assert!(ran.stdout.contains("team/info/attributes appeared"), "{ran:#?}");
    assert!(git(&scene, &workspace, &["status"]).stdout.contains("team/"));
}

/// What a repository must have before git looks into it as a submodule, and a setting that runs a program.
const EVIL: &str = "git init -q evil && cd evil && git -c user.name=x -c user.email=x commit -q --allow-empty -m x && \
    git config core.fsmonitor 'touch ../pwned; false' && cd .. && git add evil 2>/dev/null";

fn a_repository_within_is_no_submodule_that_git_obeys(user: User) {
    for settings in [&[][..], &["core.splitIndex=true"], &["index.version=4"]] {
        let scene = Scene::new(user);
        let workspace = scene.workspace();
        exit_code_of(&git(&scene, &workspace, &["init", "-q"]), 0);
        for setting in settings {
            let (key, value) = setting.split_once('=').expect("a setting");
            exit_code_of(&git(&scene, &workspace, &["config", key, value]), 0);
        }
        let agent = Document::shell("maker", EVIL)
            .section("security: {capabilities_required: [filesystem-read, filesystem-write, git-access]}");
        let ran = scene.toka_run(&[agent], &[]);
        exit_code_of(&ran, 0);
        assert!(ran.stdout.contains("evil/.git appeared while it ran"), "{ran:#?}");
        exit_code_of(&git(&scene, &workspace, &["status"]), 0);
        assert!(!workspace.join("pwned").exists());
    }
}

fn submodules_keep_their_settings(user: User) {
    let scene = Scene::new(user);
    let workspace = scene.workspace();
    let later = format!("160000,{},later", "1".repeat(40));
    for (folder, words) in [
        (".", &["init", "-q"][..]),
        (".", &["init", "-q", "lib/within"]),
        (
            "lib/within",
            &["-c", "user.name=x", "-c", "user.email=x", "commit", "-q", "--allow-empty", "-m", "x"],
        ),
        (".", &["add", "lib/within"]),
        (".", &["update-index", "--add", "--cacheinfo", &later]),
    ] {
        exit_code_of(&git(&scene, &workspace.join(folder), words), 0);
    }
    let script = "cd lib/within && ! echo evil >> .git/config || exit 3; ! mv .git other || exit 4
        ! touch .git/hooks/pre-commit || exit 5; touch file && git add file || exit 6
        cd ../..; ! mv lib other || exit 7; mkdir later && git init -q x && mv x/.git later/.git
        while test -e later/.git; do sleep 0.01; done
        mkdir -p .git/modules/lib; git init -q --bare .git/modules/lib/later";
    let agent = Document::shell("maker", script)
        .section("security: {capabilities_required: [filesystem-read, filesystem-write, git-access]}");
    let ran = scene.toka_run(&[agent], &[]);
    exit_code_of(&ran, 0);
    assert!(ran.stdout.contains("later/.git appeared while it ran"), "{ran:#?}");
    assert!(ran.stdout.contains(".git/modules/lib/later appeared while it ran"), "{ran:#?}");
    assert!(workspace.join("lib/within/.git/config").is_file());
}

const CODES: &str =
    "security: {capabilities_required: [filesystem-read, filesystem-write, git-access, python-execution]}";

/// Writes an index of version 2 with one entry.
const WRITES_INDEX: &str = "import hashlib, struct, sys
def index(path, mode, extensions=b''):
    entry = bytes(24) + struct.pack('>I', mode) + bytes(12) + bytes.fromhex('11' * 20) + struct.pack('>H', len(path)) + path + b'\\0'
    entry += bytes(-len(entry) % 8)
    text = b'DIRC' + struct.pack('>II', 2, 1) + entry + extensions
    open('.git/index', 'wb').write(text + hashlib.sha1(text).digest())
";

fn an_index_that_git_does_not_write_is_set_aside(user: User) {
    for line in [
        "index(b'x/../evil', 0o160000)",
        "index(b'./evil', 0o160000)",
        "index(b'x\\xff', 0o160000)",
        "index(b'x' * 5000, 0o100644)",
        "index(b'evil/', 0o040000, b'sdir' + bytes(4))",
        "import os; index(b'evil', 0o160000); os.rename('.git/index', '.git/other'); os.symlink('other', '.git/index')",
    ] {
        let scene = Scene::new(user);
        let workspace = scene.workspace();
        exit_code_of(&git(&scene, &workspace, &["init", "-q"]), 0);
        scene.write(&workspace.join("write.py"), &format!("{WRITES_INDEX}{line}\n"));
        let script = EVIL.replace("git add evil 2>/dev/null", "mkdir -p x && python3 write.py");
        let ran = scene.toka_run(&[Document::shell("maker", &script).section(CODES)], &[]);
        exit_code_of(&ran, 0);
        assert!(ran.stdout.contains(".git/index appeared while it ran"), "{line}: {ran:#?}");
        assert!(ran.stdout.contains("`git reset` makes another"), "{line}: {ran:#?}");
        git(&scene, &workspace, &["status"]);
        assert!(!workspace.join("pwned").exists(), "{line}");
        // Nothing of it keeps the next run from starting.
        exit_code_of(&scene.toka_run(&[Document::shell("maker", "true").section(CODES)], &[]), 0);
    }
}

fn what_an_agent_hides_by_closing_a_directory_is_found(user: User) {
    let scene = Scene::new(user);
    let workspace = scene.workspace();
    let later = format!("160000,{},later", "1".repeat(40));
    for words in [&["init", "-q"][..], &["update-index", "--add", "--cacheinfo", &later]] {
        exit_code_of(&git(&scene, &workspace, words), 0);
    }
    let script = "git init -q n; chmod 000 n; mv n later; chmod 755 later
        while test -e later/.git; do sleep 0.01; done
        git init -q m; chmod 000 m; rm -r later; mv m later";
    let ran = scene.toka_run(&[Document::shell("maker", script).section(CODES)], &[]);
    exit_code_of(&ran, 0);
    assert_eq!(ran.stdout.matches("later/.git appeared while it ran").count(), 2, "{ran:#?}");
}

fn a_repository_that_was_there_before_stays(user: User) {
    let scene = Scene::new(user);
    let workspace = scene.workspace();
    for (folder, words) in [
        (".", &["init", "-q"][..]),
        (".", &["init", "-q", "nested"]),
        ("nested", &["-c", "user.name=x", "-c", "user.email=x", "commit", "-q", "--allow-empty", "-m", "x"]),
    ] {
        exit_code_of(&git(&scene, &workspace.join(folder), words), 0);
    }
    let adds = Document::shell("maker", "git add nested 2>/dev/null && git ls-files").section(CODES);
    let ran = scene.toka_run(&[adds], &[]);
    exit_code_of(&ran, 0);
    assert!(!ran.stdout.contains("appeared"), "{ran:#?}");
    assert!(workspace.join("nested/.git/config").is_file());
    // From now on its settings are protected.
    let changes = Document::shell("maker", "! echo evil >> nested/.git/config").section(CODES);
    exit_code_of(&scene.toka_run(&[changes], &[]), 0);
}

fn what_git_obeys_from_a_repository_around_the_workspace_is_closed(user: User) {
    let scene = Scene::new(user);
    let (top, workspace) = (scene.outside().join("top"), scene.outside().join("top/pkg"));
    scene.make_folder(&workspace.join("hooks"));
    let vendor = format!("160000,{},pkg/vendor", "1".repeat(40));
    for words in [
        &["init", "-q"][..],
        &["config", "core.hooksPath", "pkg/hooks"],
        &["config", "include.path", "../pkg/git.conf"],
        &["update-index", "--add", "--cacheinfo", &vendor],
    ] {
        exit_code_of(&git(&scene, &top, words), 0);
    }
    let script = "! touch hooks/pre-commit || exit 3; echo evil > git.conf; while test -e git.conf; do sleep 0.01; done
        git init -q x; mkdir vendor; mv x/.git vendor/.git; while test -e vendor/.git; do sleep 0.01; done";
    let agents = scene.outside().join("agents");
    scene.make_folder(&agents);
    let text = format!("metadata: {{name: maker}}\nspec: {{process: {{shell: {script:?}}}}}\n{CODES}\n");
    scene.write(&agents.join("maker.yaml"), &text);
    let (agents, workdir) = (agents.display().to_string(), workspace.display().to_string());
    exit_code_of(&typed(&scene, &["run", &agents, "--workdir", &workdir]), 0);
}

fn a_repository_that_one_agent_may_make_is_taken_from_it_by_no_other(user: User) {
    let scene = Scene::new(user);
    let waits = "until test -e made; do sleep 0.01; done";
    let makes =
        "security: {capabilities_required: [filesystem-read, filesystem-write, git-access, git-init]}";
    let agents = [
        Document::shell("other", waits).section(WRITES),
        Document::shell("maker", "git init -q . && touch made").section(makes),
    ];
    let ran = scene.toka_run(&agents, &["--allow", "git-init"]);
    exit_code_of(&ran, 0);
    assert!(scene.workspace().join(".git/config").is_file(), "{ran:#?}");
}

fn a_person_can_replace_what_git_obeys_by_a_link(user: User) {
    for (target, outcome) in [("/usr/share", "renewed"), ("../mine", "lost")] {
        let scene = Scene::new(user);
        git(&scene, &scene.workspace(), &["init", "-q"]);
        scene.make_folder(&scene.workspace().join("mine"));
        let detached = scene.detach(&[Document::service("coder", "exec sleep 1000").section(CODER)]);
        eventually("it runs", || detached.state("coder") == "running");
        let hooks = scene.workspace().join(".git/hooks");
        let link = scene.workspace().join(".git/link");
        std::os::unix::fs::symlink(target, &link).expect("a link");
        renameat_with(CWD, &hooks, CWD, &link, RenameFlags::EXCHANGE).expect("both are there");
        eventually("it is told", || uncovered(&detached).iter().any(|(path, _)| path.ends_with("hooks")));
        let told = uncovered(&detached);
        assert!(
            told.iter().any(|(path, said)| path.ends_with("hooks") && said.to_string().contains(outcome)),
            "{target}: {told:?}"
        );
    }
}

fn a_bare_repository_keeps_its_hooks(user: User) {
    let scene = Scene::new(user);
    let workspace = scene.workspace();
    exit_code_of(&git(&scene, &workspace, &["init", "-q", "--bare", "."]), 0);
    let script = "! touch hooks/post-update && ! echo evil >> config && ! mv hooks other && git update-ref -d refs/heads/x";
    let agent = Document::shell("maker", script)
        .section("security: {capabilities_required: [filesystem-read, filesystem-write, git-access]}");
    exit_code_of(&scene.toka_run(&[agent], &[]), 0);
}

fn a_planted_agent_of_a_trusted_name_is_another(user: User) {
    let scene = Scene::new(user).env("SOME_KEY", "hush");
    let text = "metadata: {name: deploy}\nspec: {process: {shell: 'true'}, secrets: {k: {env: SOME_KEY}}}\n";
    let ci = scene.workspace().join("ci");
    scene.make_folder(&ci);
    scene.write(&ci.join("deploy.yaml"), text);
    exit_code_of(&typed(&scene, &["trust", "--yes", "ci"]), 0);
    exit_code_of(&typed(&scene, &["run", "ci"]), 0);
    // The same name and the same demand, where a plain `toka run` looks.
    scene.make_folder(&scene.workspace().join("agents"));
    scene.write(&scene.workspace().join("agents/x.yaml"), text);
    exit_code_of(&typed(&scene, &["run"]), 77);
    // Nor does an agent of another set edit the file that was trusted; to look at one set forgets nothing of another.
    let lint = "metadata: {name: lint}\nspec: {process: {shell: '! echo x >> ci/deploy.yaml'}, secrets: {k: {env: SOME_KEY}}}\nsecurity: {capabilities_required: [filesystem-write]}\n";
    let tools = scene.workspace().join("tools");
    scene.make_folder(&tools);
    scene.write(&tools.join("lint.yaml"), lint);
    exit_code_of(&typed(&scene, &["trust", "--yes", "tools"]), 0);
    exit_code_of(&typed(&scene, &["run", "tools"]), 0);
    exit_code_of(&typed(&scene, &["run", "ci"]), 0);
}

fn no_grant_opens_what_toka_keeps_or_what_a_link_leads_to(user: User) {
    let scene = Scene::new(user);
    let state = scene.state();
    let own = Document::shell("a", "true")
        .section(&format!("security: {{filesystem: {{write: [{}]}}}}", state.display()));
    let refused = scene.toka_run(&[own], &["--trust"]);
    exit_code_of(&refused, 65);
    assert!(refused.stderr.contains("is Toka's own, and is never opened"), "{refused:#?}");

    let (data, private) = (scene.outside().join("data"), scene.outside().join("private"));
    scene.make_folder(&data);
    scene.make_folder(&private);
    scene.write(&private.join("key"), "a private key");
    scene.write(&data.join("fine"), "fine");
    std::os::unix::fs::symlink(&private, data.join("link")).expect("a link");
    let script = format!("cat {}/fine; ! cat {0}/link/key {}/key", data.display(), private.display());
    let reads = Document::shell("a", &script)
        .section(&format!("security: {{filesystem: {{read: ['{}/*']}}}}", data.display()));
    exit_code_of(
        &scene.toka_run(&[reads], &["--allow", &format!("filesystem-outside:{}", data.display())]),
        0,
    );

    let device = Document::shell("a", "true")
        .section("security: {capabilities_required: ['device:/dev/net/../../etc/shadow']}");
    let refused = scene.toka_run(&[device], &["--allow", "device:/dev/net"]);
    exit_code_of(&refused, 65);
    assert!(refused.stderr.contains("is no device below /dev"), "{refused:#?}");
}

/// The rule for a program opens its file, also to the hooks beside it.
fn a_program_outside_of_the_workspace_is_asked_for(user: User) {
    let scene = Scene::new(user);
    let tool = scene.outside().join("deploy");
    scene.write_program(&tool, "#!/bin/sh\n# token=hunter2\n");
    let reads = format!("hooks: {{pre_start: [/bin/cp, {}, stolen]}}", tool.display());
    let folder = scene.outside().display().to_string();
    let by_path =
        Document::bare("thief").spec(&reads).spec(&format!("process: {{command: [{}]}}", tool.display()));
    let by_name = Document::bare("thief")
        .spec(&reads)
        .spec(&format!("process: {{command: [deploy], environment: {{PATH: {folder}}}}}"));
    for thief in [by_path, by_name] {
        let refused = scene.toka_run(&[thief.section(WRITES)], &[]);
        exit_code_of(&refused, 77);
        assert!(refused.stderr.contains("filesystem-outside-execute:"), "{refused:#?}");
        assert!(!scene.workspace().join("stolen").exists());
    }
    // The system's programs and the workspace's own need no grant.
    let usual = Scene::new(user);
    usual.write_program(&usual.workspace().join("own"), "#!/bin/sh\necho mine\n");
    let agents = [Document::command("a", &["/bin/true"]), Document::command("b", &["./own"]).section(WRITES)];
    exit_code_of(&usual.toka_run(&agents, &[]), 0);
}

#[test]
fn the_user_who_asks_is_the_one_who_is_asked() {
    // On a terminal the run asks there and then; what is typed counts, and the answer is kept.
    let Some(scene) = User::root().map(Scene::new) else { return };
    let scene = scene.env("SOME_KEY", "hush").env("OTHER_KEY", "hush");
    scene.make_folder(&scene.workspace().join("agents"));
    let text = "metadata: {name: keyed}\nspec: {process: {shell: 'true'}, secrets: {k: {env: SOME_KEY}}}\n";
    scene.write(&scene.workspace().join("agents/keyed.yaml"), text);
    let typed = |words: &str, answer: &str, code: i32| {
        let line = format!("{} {words} --state-dir {}", toka_binary().display(), scene.state().display());
        let mut command: Command = scene.bare_command(&["script", "-qec", &line, "/dev/null"]);
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = command.spawn().expect("script is there");
        std::io::Write::write_all(child.stdin.as_mut().expect("a pipe"), format!("{answer}\n").as_bytes())
            .expect("it reads");
        let finished = Finished::from(child.wait_with_output().expect("it ends"));
        assert_eq!(finished.code, Some(code), "{words} {answer}: {finished:#?}");
    };
    for (answer, code) in [("n", 77), ("o", 0), ("n", 77), ("y", 0), ("n", 0)] {
        typed("run", answer, code);
    }
    // In the background, too, and so does what changes there.
    let _ends = scene.adopt();
    let demand = |name: &str, variable: &str| {
        let service = text.replace("keyed", name).replace("SOME_KEY", variable);
        let service =
            service.replace("'true'", "exec sleep 1000").replace("spec: {", "spec: {type: service, ");
        scene.write(&scene.workspace().join(format!("agents/{name}.yaml")), &service);
    };
    demand("keyed", "OTHER_KEY");
    for (answer, code) in [("n", 77), ("y", 0)] {
        typed("run --detach", answer, code);
    }
    demand("second", "SOME_KEY");
    for (answer, code) in [("n", 77), ("y", 0), ("n", 0)] {
        typed("apply", answer, code);
    }
}

#[test]
fn two_workspaces_of_one_name_share_nothing_and_nobody_acts_on_the_other() {
    let Some(scene) = User::root().map(Scene::new) else { return };
    let folder = |parent: &str| {
        let path = scene.folder().join(parent).join("app");
        std::fs::create_dir_all(path.join("agents")).expect("a folder");
        path
    };
    let (a, b) = (folder("a"), folder("b"));
    let document = "metadata: {name: db}\nspec: {type: service, process: {shell: 'cat ~/data; pwd > ~/data; exec sleep 1000'}}\n";
    let typed_in = |folder: &Path, words: &[&str]| {
        let mut line: Vec<OsString> = vec![toka_binary().into(), words[0].into()];
        line.extend(["--state-dir".into(), scene.state().into()]);
        line.extend(words[1..].iter().map(OsString::from));
        let mut command = scene.command(&line);
        Finished::from(command.current_dir(folder).output().expect("it starts"))
    };
    let _ends = scene.adopt();
    for workspace in [&a, &b] {
        std::fs::write(workspace.join("agents/db.yaml"), document).expect("room");
        exit_code_of(&typed_in(workspace, &["run", "--detach"]), 0);
    }
    let ps = typed_in(&a, &["ps"]).stdout;
    assert!(ps.contains("app/db") && ps.contains("app-"), "{ps}");
    // Each command is about the project of the folder that it is typed in.
    for (workspace, other) in [(&b, &a), (&a, &b)] {
        let stopped = typed_in(workspace, &["stop", "db"]);
        exit_code_of(&stopped, 0);
        let states: Value = serde_json::from_str(&typed_in(other, &["ps", "--json"]).stdout).expect("JSON");
        let running = states.to_string().matches("\"running\"").count();
        assert_eq!(running, usize::from(workspace == &b), "{states}");
    }
    for workspace in [&a, &b] {
        let logs = typed_in(workspace, &["logs", "db"]).stdout;
        assert!(!logs.lines().any(|line| line.ends_with("/app")), "it reads what the other left: {logs}");
    }
    // Where nothing of the folder runs, nothing is acted on, and the way out is told.
    let elsewhere = scene.folder().join("elsewhere");
    std::fs::create_dir(&elsewhere).expect("a folder");
    for words in [&["stop", "db"][..], &["down"], &["exec", "db", "--", "true"]] {
        let refused = typed_in(&elsewhere, words);
        exit_code_of(&refused, 69);
        assert!(refused.stderr.contains(&a.display().to_string()), "{words:?}: {refused:#?}");
    }
    let taken = typed_in(&elsewhere, &["run", &a.join("agents").display().to_string(), "--project", "app"]);
    exit_code_of(&taken, 2);
    assert!(taken.stderr.contains(&format!("the project app is {}", a.display())), "{taken:#?}");
    exit_code_of(&typed_in(&b, &["down"]), 0);
    assert!(typed_in(&a, &["ps"]).stdout.contains("app/db"));
}

/// One has the name, the other gets one of its own.
#[test]
fn two_workspaces_of_one_name_may_begin_at_once() {
    let Some(scene) = User::root().map(Scene::new) else { return };
    for round in 0..5 {
        let folders = ["a", "b"].map(|parent| scene.folder().join(format!("{round}{parent}/app")));
        for folder in &folders {
            std::fs::create_dir_all(folder.join("agents")).expect("a folder");
            let text = "metadata: {name: job}\nspec: {process: {shell: 'true'}}\n";
            std::fs::write(folder.join("agents/job.yaml"), text).expect("room");
        }
        let state = scene.folder().join(format!("state{round}"));
        let begin = |folder: &Path| {
            let line: [OsString; 4] =
                [toka_binary().into(), "run".into(), "--state-dir".into(), state.as_os_str().to_owned()];
            Finished::from(scene.command(&line).current_dir(folder).output().expect("it starts"))
        };
        std::thread::scope(|scope| {
            let runs = folders.each_ref().map(|folder| scope.spawn(|| begin(folder)));
            for run in runs {
                exit_code_of(&run.join().expect("no panic"), 0);
            }
        });
        let names = std::fs::read_dir(state.join("projects")).expect("projects").count();
        assert_eq!(names, 2);
    }
}

/// `toka exec --sandbox` is no way around what a run of the same workstream is refused.
fn a_sandbox_of_its_own_has_the_rules_of_a_run(user: User) {
    let scene = Scene::new(user);
    let file = scene.workspace().join("w.yaml");
    let exec = |options: &[&str], command: &[&str]| {
        let words = [&["exec", "--sandbox", "w.yaml"], options].concat();
        let mut line: Vec<OsString> = vec![toka_binary().into()];
        line.extend(words.iter().map(OsString::from));
        line.extend(["--state-dir".into(), scene.state().into(), "--".into()]);
        line.extend(command.iter().map(OsString::from));
        scene.run(&line)
    };
    let declare = |spec: &str, security: &str| {
        scene.write(&file, &format!("metadata: {{name: a}}\nspec: {{{spec}}}\nsecurity: {{{security}}}\n"));
    };
    let work = "process: {shell: 'true'}";
    for (spec, security, code, clue) in [
        (work, "network: full", 77, "network:full"),
        (work, "network: {allow: ['example.org:443']}", 77, "host:example.org:443"),
        (work, "capabilities_required: ['filesystem-write:no/such']", 65, "w.yaml:3"),
        ("process: {shell: 'true', user: no-such-user}", "", 78, "user"),
        ("process: {shell: 'true', working_dir: absent}", "", 65, "working folder"),
    ] {
        declare(spec, security);
        let (ran, executed) = (typed(&scene, &["run", "w.yaml"]), exec(&[], &["true"]));
        for finished in [ran, executed] {
            exit_code_of(&finished, code);
            assert!(finished.stderr.contains(clue), "{clue}: {finished:#?}");
        }
    }
    declare("process: {shell: 'true'}, secrets: {k: {file: key.txt}}", "network: full");
    scene.write(&scene.workspace().join("key.txt"), "hush");
    let told = exec(&["--trust"], &["sh", "-c", "cat $CREDENTIALS_DIRECTORY/k"]);
    assert_eq!((told.code, told.stdout.as_str()), (Some(0), "hush"), "{told:#?}");
    exit_code_of(&typed(&scene, &["trust", "--yes", "w.yaml"]), 0);
    exit_code_of(&exec(&[], &["true"]), 0);
    scene.write(&scene.workspace().join("toka.yaml"), "deny: ['network:full']\n");
    exit_code_of(&exec(&["--trust"], &["true"]), 77);
    exit_code_of(&exec(&["--trust"], &["no-such-program"]), 77);
    std::fs::remove_file(scene.workspace().join("toka.yaml")).expect("ours");
    exit_code_of(&exec(&[], &["no-such-program"]), 127);
    exit_code_of(&exec(&[], &["sh", "-c", "exit 3"]), 3);
    // Of several agents one is named; replicas have the same walls.
    let of_two = "metadata: {name: a}\nspec: {replicas: 2, process: {shell: 'true'}}\n---\n\
        metadata: {name: b}\nspec: {process: {shell: 'true'}}\nsecurity: {resource_limits: {max_open_files: 77}}\n";
    scene.write(&file, of_two);
    let shown = exec(&["b"], &["sh", "-c", "ulimit -n"]);
    assert_eq!((shown.code, shown.stdout.as_str()), (Some(0), "77\n"), "{shown:#?}");
    exit_code_of(&exec(&["a"], &["true"]), 0);
    for (named, why) in [(&[][..], "2 are meant"), (&["c"][..], "no agent is called c")] {
        let refused = exec(named, &["true"]);
        exit_code_of(&refused, 2);
        assert!(refused.stderr.contains(why) && refused.stderr.contains("a, b"), "{refused:#?}");
    }
    scene.assert_nothing_left();
}
