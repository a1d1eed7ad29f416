//! A scene to attack in: a workspace with something readable and something writable, folders beside it that are not
//! the agent's, and the means to run a command there, confined or not.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::answers::{Answer, Expected, answers_in, words_of};
use crate::traces::{cgroups_of, mounts_below, processes_with};
use crate::{Detached, Document, Proof, Running, Try, User, attack_binary, toka_binary, write_program};

/// The longest that a command of a scene may take before `timeout` ends it: a hang is a failure, not a wait.
const LONGEST: Duration = Duration::from_secs(120);

/// What `security` says when a test says nothing: the workspace to read, `out` to write, the attacker to run.
const SECURITY: &str = "
  capabilities_required: [filesystem-read, \"filesystem-write:out\"]
  filesystem: {write: [out], execute: [attack]}
";

/// Where the folders lie. Not below `/tmp`: a private `/tmp` would hide them all and make every denial cheap.
const BASE: &str = "/var/tmp";

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A scene; its folder is removed with it.
pub struct Scene {
    folder: tempfile::TempDir,
    name: String,
    user: User,
    security: String,
    environment: Vec<(String, OsString)>,
    prefix: Vec<OsString>,
    wrapper: Vec<OsString>,
}

/// How a command of a scene ended.
#[derive(Debug)]
pub struct Finished {
    /// Its exit status; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Scene {
    /// A new scene for this user.
    ///
    /// # Panics
    /// When its folders cannot be made.
    pub fn new(user: User) -> Self {
        Self::in_folder(user, Path::new(BASE))
    }

    /// A new scene whose folders lie below `base`.
    ///
    /// # Panics
    /// When its folders cannot be made.
    pub fn in_folder(user: User, base: &Path) -> Self {
        // Of one length, so that no name is the beginning of another.
        let name = format!("test-{}-{:04}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        // The name is in every path of the scene, and so in the environment of whatever runs in it.
        let prefix = format!("toka-{name}-");
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir_in(base).expect("a temporary folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("our own folder");
        let scene = Self {
            folder,
            name,
            user,
            security: SECURITY.to_owned(),
            environment: Vec::new(),
            prefix: Vec::new(),
            wrapper: Vec::new(),
        };
        scene.furnish();
        scene
    }

    /// A scene of an ordinary user in a user namespace in which nobody can make another, as on hosts that refuse them.
    pub fn without_namespaces() -> Self {
        let uid = User::Ordinary.uid();
        let refuse = "echo 0 > /proc/sys/user/max_user_namespaces
            exec setpriv --inh-caps -all --ambient-caps -all \"$@\"";
        let mapped = [format!("--map-user={uid}"), format!("--map-group={uid}")].map(OsString::from);
        let mut wrapper: Vec<OsString> = ["unshare", "--user", "--keep-caps"].map(Into::into).to_vec();
        wrapper.extend(mapped);
        wrapper.extend(["/bin/sh", "-euc", refuse, "sh"].map(Into::into));
        Self::new(User::Ordinary).wrapper(wrapper)
    }

    fn furnish(&self) {
        for folder in [
            self.workspace(),
            self.workspace().join("out"),
            self.workspace().join("docs"),
            self.outside(),
            self.home(),
            self.home().join(".ssh"),
            self.state(),
        ] {
            fs::create_dir_all(&folder).expect("folders of the scene");
            self.user.own(&folder);
        }
        self.write(&self.workspace().join("readable.txt"), "workspace\n");
        self.write(&self.workspace().join("docs/guide.txt"), "docs\n");
        self.write(&self.workspace().join("out/own.txt"), "own\n");
        self.write(&self.outside().join("secret.txt"), "secret\n");
        self.write(&self.home().join(".ssh/id_ed25519"), "a private key\n");
        let attack = self.workspace().join("attack");
        fs::copy(attack_binary(), &attack).expect("a copy of the attacker");
        self.user.own(&attack);
    }

    /// Writes a file that belongs to the scene's user.
    ///
    /// # Panics
    /// When it cannot.
    pub fn write(&self, path: &Path, content: &str) {
        fs::write(path, content).expect("a file of the scene");
        self.user.own(path);
    }

    /// Writes a program that belongs to the scene's user ([`write_program`]).
    pub fn write_program(&self, path: &Path, content: &str) {
        write_program(path, content);
        self.user.own(path);
    }

    /// Makes a folder, and those above it, that belong to the scene's user.
    ///
    /// # Panics
    /// When it cannot.
    pub fn make_folder(&self, path: &Path) {
        let missing: Vec<&Path> = path.ancestors().take_while(|folder| !folder.exists()).collect();
        for folder in missing.into_iter().rev() {
            fs::create_dir(folder).expect("a folder of the scene");
            self.user.own(folder);
        }
    }

    /// Another `security` section; lines are indented by two.
    #[must_use]
    pub fn security(mut self, yaml: &str) -> Self {
        yaml.clone_into(&mut self.security);
        self
    }

    /// Sets a variable of the caller's environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Words to put before the command that becomes the user, still as the test's own user.
    #[must_use]
    pub fn prefix(mut self, words: Vec<OsString>) -> Self {
        self.prefix = words;
        self
    }

    /// Words to put before the command once it is the user's.
    #[must_use]
    pub fn wrapper(mut self, words: Vec<OsString>) -> Self {
        self.wrapper = words;
        self
    }

    /// The user.
    pub fn user(&self) -> User {
        self.user
    }

    /// The project's name, which no other scene has: in control groups and in command lines.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The workspace; its folder has the project's name.
    pub fn workspace(&self) -> PathBuf {
        self.folder.path().join(&self.name)
    }

    /// A folder of the same user that the agent was not given.
    pub fn outside(&self) -> PathBuf {
        self.folder.path().join("outside")
    }

    /// The home folder of the user who calls.
    pub fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// Toka's state folder.
    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// The folder of the scene, above all of them.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs a command in the sandbox, with `toka exec`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn exec<S: AsRef<OsStr>>(&self, command: &[S]) -> Finished {
        self.exec_command(command).output().map(Finished::from).expect("the command starts")
    }

    /// The command of [`Self::exec`], ready to be started.
    ///
    /// # Panics
    /// When the file of its workstream cannot be written.
    pub fn exec_command<S: AsRef<OsStr>>(&self, command: &[S]) -> Command {
        let sandbox = self.folder.path().join("sandbox.yaml");
        let security = &self.security;
        let yaml = format!(
            "metadata: {{name: attacker}}\nspec: {{process: {{command: [\"true\"]}}}}\nsecurity:{security}\n"
        );
        fs::write(&sandbox, yaml).expect("a file of the scene");
        let mut words: Vec<OsString> =
            vec![toka_binary().into(), "exec".into(), "--sandbox".into(), sandbox.into()];
        words.extend([
            "--workdir".into(),
            self.workspace().into(),
            "--state-dir".into(),
            self.state().into(),
        ]);
        words.extend(["--json".into(), "--".into()]);
        words.extend(command.iter().map(|word| word.as_ref().to_owned()));
        self.command(&words)
    }

    /// The words of `toka exec` for a command beside an agent that runs.
    pub fn words_of_exec(&self, agent: &str, options: &[&str], command: &[&str]) -> Vec<OsString> {
        let mut line: Vec<OsString> = vec![toka_binary().into(), "exec".into()];
        line.extend(options.iter().map(OsString::from));
        line.extend(["--project".into(), self.name().into(), "--state-dir".into(), self.state().into()]);
        line.extend([agent.into(), "--".into()]);
        line.extend(command.iter().map(OsString::from));
        line
    }

    /// The command of [`Self::words_of_exec`], ready to be started; not bounded in time.
    pub fn exec_beside(&self, agent: &str, options: &[&str], command: &[&str]) -> Command {
        self.bare_command(&self.words_of_exec(agent, options, command))
    }

    /// Runs a command of the host as the scene's user, not confined.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn run<S: AsRef<OsStr>>(&self, words: &[S]) -> Finished {
        self.command(words).output().map(Finished::from).expect("the command starts")
    }

    /// The command of [`Self::run`], ready to be started.
    pub fn command<S: AsRef<OsStr>>(&self, words: &[S]) -> Command {
        let mut line: Vec<OsString> =
            vec!["timeout".into(), "--kill-after=5".into(), LONGEST.as_secs().to_string().into()];
        line.extend(words.iter().map(|word| word.as_ref().to_owned()));
        self.bare_command(&line)
    }

    /// A command whose process is the test's own child, so that signals reach it and a terminal can be its own.
    pub fn bare_command<S: AsRef<OsStr>>(&self, words: &[S]) -> Command {
        let mut line: Vec<OsString> = self.prefix.clone();
        line.extend(self.user.prefix());
        line.extend(self.wrapper.iter().cloned());
        line.extend(words.iter().map(|word| word.as_ref().to_owned()));
        let mut command = Command::new(&line[0]);
        command
            .args(&line[1..])
            .current_dir(self.workspace())
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.home())
            .env("LANG", "C.UTF-8")
            .env("USER", "tester")
            // The name by which groups of this scene are found, in every hierarchy.
            .env("TOKA_CGROUP", format!("toka-{}", self.name))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(std::process::Stdio::null());
        command
    }

    /// The words of `toka run` over these agents, in this scene's workspace and state folder.
    pub fn run_words(&self, documents: &[Document], options: &[&str]) -> Vec<OsString> {
        let folder = self.folder.path().join("workstreams");
        fs::create_dir_all(&folder).expect("a folder of the scene");
        for document in documents {
            fs::write(folder.join(format!("{}.yaml", document.name())), document.yaml())
                .expect("a file of the scene");
        }
        let mut words: Vec<OsString> = vec![toka_binary().into(), "run".into(), folder.into()];
        words.extend([
            "--workdir".into(),
            self.workspace().into(),
            "--state-dir".into(),
            self.state().into(),
        ]);
        // What else this machine does at the moment decides no test; what a test says about it comes last, and counts.
        if !options.iter().any(|option| option.ends_with("-pressure")) {
            words.extend(["--max-memory-pressure=100", "--max-io-pressure=100"].map(OsString::from));
        }
        words.extend(options.iter().map(OsString::from));
        words
    }

    /// Runs these agents to their end, with `toka run`.
    pub fn toka_run(&self, documents: &[Document], options: &[&str]) -> Finished {
        self.run(&self.run_words(documents, options))
    }

    /// Runs a command of `toka` over this scene's state folder.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn toka(&self, words: &[&str]) -> Finished {
        let mut line: Vec<OsString> = vec![toka_binary().into()];
        line.extend(words.iter().map(OsString::from));
        line.extend(["--state-dir".into(), self.state().into()]);
        self.run(&line)
    }

    /// Begins to run these agents in the background; they end when this is dropped.
    ///
    /// # Panics
    /// When they do not begin.
    pub fn detach(&self, documents: &[Document]) -> Detached<'_> {
        let detached = Detached::of(self);
        let finished = self.toka_run(documents, &["--detach"]);
        assert_eq!(finished.code, Some(0), "{finished:#?}");
        detached
    }

    /// What a command has begun to run in the background; it ends when this is dropped.
    pub fn adopt(&self) -> Detached<'_> {
        Detached::of(self)
    }

    /// Makes what runs in the background what these agents say.
    ///
    /// # Panics
    /// When the command cannot be started.
    pub fn apply(&self, documents: &[Document], options: &[&str]) -> Finished {
        let folder = self.folder.path().join("workstreams");
        let _ = fs::remove_dir_all(&folder);
        let mut words = self.run_words(documents, options);
        words[1] = "apply".into();
        self.run(&words)
    }

    /// Starts `toka run --json` over these agents.
    pub fn start(&self, documents: &[Document], options: &[&str]) -> Running {
        let mut words = self.run_words(documents, options);
        words.push("--json".into());
        Running::start(self.bare_command(&words))
    }

    /// What an agent left in its artifact folder, once it has run.
    pub fn artifact(&self, agent: &str, name: &str) -> String {
        let path =
            self.state().join("projects").join(&self.name).join("agents").join(agent).join("artifacts");
        fs::read_to_string(path.join(name)).unwrap_or_default()
    }

    /// Runs these attempts in the sandbox, one after the other.
    ///
    /// # Panics
    /// When the sandbox does not start, or does not confine files and system calls.
    pub fn attack(&self, tries: &[Try]) -> Vec<Answer> {
        let mut words = vec![self.workspace().join("attack").into_os_string()];
        words.extend(words_of(tries).into_iter().map(OsString::from));
        let finished = self.exec(&words);
        assert_eq!(finished.code, Some(0), "the attacker ran to its end: {finished:#?}");
        finished.assert_confined();
        answers_in(&finished.stdout, tries)
    }

    /// Runs these attempts with nothing around them.
    ///
    /// # Panics
    /// When the attacker cannot be started.
    pub fn attack_unconfined(&self, tries: &[Try]) -> Vec<Answer> {
        let mut words = vec![self.workspace().join("attack").into_os_string()];
        words.extend(words_of(tries).into_iter().map(OsString::from));
        answers_in(&self.run(&words).stdout, tries)
    }

    /// Fails if the sandbox left a process, a control group or a mount. Looks once: whoever has ended has tidied up.
    ///
    /// # Panics
    /// When there is a trace.
    pub fn assert_nothing_left(&self) {
        let name = self.name();
        let (processes, groups) = (processes_with(name), cgroups_of(name));
        let mounts = mounts_below(self.folder.path());
        assert!(processes.is_empty(), "processes of {name} are left: {processes:?}");
        assert!(groups.is_empty(), "control groups of {name} are left: {groups:?}");
        assert!(mounts.is_empty(), "mounts of {name} are left: {mounts:?}");
    }
}

impl From<Output> for Finished {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Finished {
    /// Asserts success, and gives what was written.
    ///
    /// # Panics
    /// When it failed.
    pub fn success(self) -> String {
        assert_eq!(self.code, Some(0), "should succeed: {self:#?}");
        self.stdout
    }

    /// The events of a run with `--json`, and its summary as the last.
    pub fn events(&self) -> Vec<Value> {
        self.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The events of this type about this agent.
    pub fn all(&self, kind: &str, agent: &str) -> Vec<Value> {
        let events = self.events();
        events.into_iter().filter(|event| event["type"] == kind && event["agent"] == agent).collect()
    }

    /// The place of the first event of this type about this agent.
    pub fn place_of(&self, kind: &str, agent: &str) -> Option<usize> {
        self.events().iter().position(|event| event["type"] == kind && event["agent"] == agent)
    }

    /// How an agent ended, by the event that says so.
    ///
    /// # Panics
    /// When it did not end.
    pub fn exit_of(&self, agent: &str) -> Value {
        let events = self.events();
        let ended = events.iter().find(|event| event["type"] == "agent_ended" && event["agent"] == agent);
        ended.unwrap_or_else(|| panic!("{agent} did not end: {self:#?}"))["exit"].clone()
    }

    /// The coverage of a layer in the enforcement report of `toka exec --json`: the last line of standard error.
    ///
    /// # Panics
    /// When there is no report.
    pub fn coverage(&self, layer: &str) -> String {
        let line = self.stderr.lines().rev().find(|line| line.starts_with(['{', '['])).unwrap_or_default();
        let report: Value = serde_json::from_str(line)
            .unwrap_or_else(|error| panic!("no report at the end of standard error ({error}): {self:#?}"));
        let layers = report.get("enforcement").unwrap_or(&report);
        let layers = layers.get("layers").unwrap_or(layers).as_array().cloned().unwrap_or_default();
        let found = layers.iter().find(|report| report["layer"] == layer);
        found.and_then(|report| report["coverage"].as_str()).unwrap_or("missing").to_owned()
    }

    /// Asserts that files and system calls were confined, without which an answer says nothing. An ordinary user may
    /// have a view of the files of its own with a `/proc` that is the host's: that is partial, and said.
    ///
    /// # Panics
    /// When they were not.
    pub fn assert_confined(&self) {
        for layer in ["landlock", "seccomp", "process"] {
            assert_eq!(self.coverage(layer), "full", "{layer}: {self:#?}");
        }
        assert!(["full", "partial"].contains(&self.coverage("mounts").as_str()), "mounts: {self:#?}");
    }
}

/// Makes the attempts that `tries` gives: unconfined in a twin of the scene, to see that each attack is one, then
/// confined; fails with a list of everything that was answered otherwise than it should be.
///
/// # Panics
/// When an answer is wrong, or something is left behind.
pub fn check(scene: impl Fn() -> Scene, tries: impl Fn(&Scene) -> Vec<Try>) {
    prove(&scene(), &tries);
    let scene = scene();
    let tries = tries(&scene);
    let answers = scene.attack(&tries);
    scene.assert_nothing_left();
    let wrong = tries.iter().zip(answers).filter(|(attempt, answer)| !attempt.is_met_by(answer));
    let wrong: Vec<String> = wrong
        .map(|(attempt, answer)| format!("{:?} should be {:?}: {answer:?}", attempt.words, attempt.expected))
        .collect();
    assert!(wrong.is_empty(), "as {:?} (uid {}):\n{}", scene.user, scene.user.uid(), wrong.join("\n"));
}

/// An attack that cannot succeed anywhere proves nothing, so each has to succeed where nothing confines it.
fn prove(twin: &Scene, tries: impl Fn(&Scene) -> Vec<Try>) {
    let tries: Vec<Try> = tries(twin).into_iter().filter(|attempt| is_provable(attempt, twin.user)).collect();
    let answers = twin.attack_unconfined(&tries);
    let weak: Vec<String> = tries
        .iter()
        .zip(answers)
        .filter(|(_, answer)| !matches!(answer, Answer::Allowed(_)))
        .map(|(attempt, answer)| format!("{:?}: {answer:?}", attempt.words))
        .collect();
    assert!(
        weak.is_empty(),
        "unconfined, as {:?}, these should get through:\n{}",
        twin.user,
        weak.join("\n")
    );
}

fn is_provable(attempt: &Try, user: User) -> bool {
    match (attempt.expected, attempt.proof) {
        (Expected::Allowed, _) | (_, Proof::Never(_)) => false,
        (Expected::Denied, Proof::Anyone) => true,
        (Expected::Denied, Proof::Root) => user == User::Root,
    }
}
