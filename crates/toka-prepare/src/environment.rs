//! The environment of an agent. Nothing is inherited but a small base; what follows replaces what came before:
//!
//! 1. the base: PATH, LANG, TERM and TZ from the caller, USER of the user that it runs as, HOME and TMPDIR of its own; an agent
//!    on a terminal gets a TERM that says so, when the caller's does not;
//! 2. what its rules need to be useful: PATH with toolchains, their homes;
//! 3. what an agent program that Toka knows needs (`spec.process.preset`);
//! 4. `environment_from`: names that are passed through, when the caller has them;
//! 5. `environment_file`, in order;
//! 6. `environment`;
//! 7. Toka's own: sockets, artifacts, inputs, sections, credentials, names, and where it reaches models. Nobody replaces these.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::time::Duration;

use toka_api::caller::{BASE, Caller};
use toka_core::model::OWN_ADDRESS;
use toka_core::{AgentName, HostRule, NetworkAccess, ProjectName, RunId};
use toka_sandbox::{AgentFolders, SandboxPlan};
use toka_workstream::{Process, Tty, User};

/// PATH when the caller has none (execvp(3) would search such folders too).
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Where programs look for the address of models, and what they want to stand behind it.
const MODEL_ADDRESSES: [(&str, &str); 4] = [
    ("OPENAI_BASE_URL", "/v1"),
    ("OPENAI_API_BASE", "/v1"),
    ("ANTHROPIC_BASE_URL", ""),
    ("GOOGLE_GEMINI_BASE_URL", ""),
];

/// Where programs look for a proxy (curl(1); most others have its names).
pub(crate) const PROXIES: [&str; 6] =
    ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"];
/// Where they look for hosts that are reached without.
const NO_PROXY: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// Where programs look for keys.
const MODEL_KEYS: [&str; 4] = ["OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GOOGLE_API_KEY", "GEMINI_API_KEY"];

/// What most terminals of today are like enough (terminfo(5)); who attaches has one of these.
const USUAL_TERMINAL: &str = "xterm-256color";

/// What an agent's environment is made of besides its declaration.
#[derive(Debug, Clone)]
pub struct Surroundings<'a> {
    /// Who runs Toka.
    pub caller: &'a Caller,
    /// The agent's folders.
    pub folders: &'a AgentFolders,
    /// Its rules.
    pub plan: &'a SandboxPlan,
    /// Its project.
    pub project: &'a ProjectName,
    /// Its name.
    pub agent: &'a AgentName,
    /// Which replica it is, if it is one of several.
    pub replica: Option<u32>,
    /// The run.
    pub run: RunId,
    /// How often it must say that it is alive, if it says so at all.
    pub watchdog: Option<Duration>,
    /// What the preset of its program sets.
    pub preset: Vec<(String, String)>,
    /// What it needs to know to reach models, if it does.
    pub model: Option<ModelDoor>,
}

/// How an agent reaches models.
#[derive(Debug, Clone)]
pub struct ModelDoor {
    /// The key that is good there.
    pub key: String,
    /// The model that it is to ask for first, as the provider calls it, where one is named.
    pub model: Option<String>,
}

/// Puts the environment together; `files` are the variables of `environment_file`, in order.
pub fn assemble(
    process: Option<&Process>,
    files: &[(String, String)],
    surroundings: Surroundings<'_>,
) -> BTreeMap<OsString, OsString> {
    let Surroundings { caller, folders, plan, .. } = surroundings.clone();
    let mut variables = BTreeMap::new();
    let mut set = |name: &str, value: &OsStr| variables.insert(OsString::from(name), value.to_owned());
    set("PATH", OsStr::new(DEFAULT_PATH));
    for name in BASE {
        if let Some(value) = caller.variable(name) {
            set(name, value);
        }
    }
    if process.is_some_and(|process| process.tty == Tty::Pseudo)
        && caller.variable("TERM").is_none_or(|term| term.is_empty() || term == "dumb")
    {
        set("TERM", OsStr::new(USUAL_TERMINAL));
    }
    let user = match process.map(|process| &process.user.value) {
        Some(User::Named(name)) => Some(OsStr::new(name)),
        // It has no name, least of all the caller's.
        Some(User::Dynamic) => None,
        Some(User::Invoking) | None => caller.variable("USER"),
    };
    if let Some(user) = user {
        set("USER", user);
    }
    set("HOME", folders.home.as_os_str());
    set("TMPDIR", folders.tmp.as_os_str());
    for (name, value) in plan.environment() {
        set(name, OsStr::new(value));
    }
    for (name, value) in &surroundings.preset {
        set(name, OsStr::new(value));
    }
    if let Some(process) = process {
        for name in &process.environment_from {
            if let Some(value) = caller.variable(name) {
                set(name, value);
            }
        }
        for (name, value) in files {
            set(name, OsStr::new(value));
        }
        for (name, value) in &process.environment {
            set(name, OsStr::new(value));
        }
    }
    for (name, value) in own(surroundings.clone()) {
        set(name, &value);
    }
    if let (Some(address), Some(ModelDoor { key, model })) = (plan.listen, &surroundings.model) {
        for (name, path) in MODEL_ADDRESSES {
            set(name, OsStr::new(&format!("http://{address}{path}")));
        }
        for name in MODEL_KEYS {
            set(name, OsStr::new(key));
        }
        if let Some(model) = model {
            set("TOKA_MODEL", OsStr::new(model));
        }
        // What goes through a proxy of the caller's would not arrive: the port is in the agent's own network.
        for name in NO_PROXY {
            set(name, OsStr::new(&format!("127.0.0.1,localhost,{}", address.ip())));
        }
    }
    if let (Some(address), NetworkAccess::Allow(_)) = (plan.listen, &plan.network) {
        for name in PROXIES {
            set(name, OsStr::new(&format!("http://{address}")));
        }
        // Its own loopback interface needs no proxy; the host's, where it may reach that, does.
        let is_loopback = plan.network.hosts().iter().any(HostRule::is_loopback);
        for name in NO_PROXY {
            let mut own = if is_loopback { "localhost" } else { "localhost,127.0.0.1,::1" }.to_owned();
            if address != OWN_ADDRESS {
                own = format!("{own},{}", address.ip());
            }
            set(name, OsStr::new(&own));
        }
    }
    if let Some(replica) = surroundings.replica {
        set("TOKA_REPLICA", OsStr::new(&replica.to_string()));
    }
    if let Some(watchdog) = surroundings.watchdog {
        // As systemd has it (sd_watchdog_enabled(3)). Without WATCHDOG_PID, so that whichever process looks takes it.
        set("WATCHDOG_USEC", OsStr::new(&watchdog.as_micros().to_string()));
    }
    variables
}

fn own(surroundings: Surroundings<'_>) -> [(&'static str, OsString); 9] {
    let Surroundings { folders, project, agent, run, .. } = surroundings;
    [
        ("NOTIFY_SOCKET", folders.door.join("notify").into_os_string()),
        ("TOKA_SOCKET", folders.door.join("agent").into_os_string()),
        ("TOKA_ARTIFACTS", folders.artifacts.clone().into_os_string()),
        ("TOKA_INPUTS", folders.inputs_dir.clone().into_os_string()),
        ("TOKA_SECTIONS", folders.door.join(crate::sections::FILE).into_os_string()),
        ("CREDENTIALS_DIRECTORY", folders.credentials.clone().into_os_string()),
        ("TOKA_AGENT", agent.as_str().into()),
        ("TOKA_PROJECT", project.as_str().into()),
        ("TOKA_RUN", run.to_string().into()),
    ]
}

#[cfg(test)]
mod tests {
    use toka_core::{Confinement, Declared, Name, Origin};
    use toka_sandbox::{CompileInput, HostFacts};
    use toka_workstream::{ProcessCommand, Tty};
    use uuid::Uuid;

    use super::*;

    fn folders() -> AgentFolders {
        AgentFolders::below("/state".as_ref())
    }

    fn plan(folders: &AgentFolders, name: &Name) -> SandboxPlan {
        SandboxPlan::compile(&CompileInput {
            confinement: &Confinement::default(),
            folders,
            host: &HostFacts::probe(),
            project: name,
            agent: name,
            facts: &toka_sandbox::plan::WorkspaceFacts::plain(&folders.workspace),
            workstream_dir: None,
            toka_exe: "/bin/true".as_ref(),
            programs: &[],
            run_as: None,
        })
        .expect("a plan")
    }

    fn surroundings<'a>(
        caller: &'a Caller,
        folders: &'a AgentFolders,
        plan: &'a SandboxPlan,
        name: &'a Name,
    ) -> Surroundings<'a> {
        let run = RunId::from_uuid(Uuid::nil());
        Surroundings {
            caller,
            folders,
            plan,
            project: name,
            agent: name,
            run,
            replica: None,
            watchdog: None,
            preset: Vec::new(),
            model: None,
        }
    }

    #[test]
    fn little_is_inherited_and_what_is_said_last_counts() {
        let caller: Caller = Caller {
            environment: [("SECRET", "x"), ("LANG", "C.UTF-8"), ("CI", "yes"), ("HOME", "/home/me")]
                .map(|(name, value)| (name.into(), value.into()))
                .into(),
            home: "/home/me".into(),
        };
        let (folders, name) = (folders(), Name::new("agent").expect("a label"));
        let plan = plan(&folders, &name);
        let environment = [("A", "declared"), ("TOKA_AGENT", "forged"), ("HOME", "/elsewhere")];
        let process = Process {
            preset: None,
            command: Some(ProcessCommand::Shell("true".into())),
            command_origin: Origin::default_of("test"),
            working_dir: Declared::by_default(".".into(), "test"),
            environment: environment.map(|(name, value)| (name.into(), value.into())).into(),
            environment_from: vec!["CI".into(), "ABSENT".into()],
            environment_file: Vec::new(),
            user: Declared::by_default(User::Invoking, "the caller"),
            tty: Tty::Pipes,
        };
        let files = [("A".to_owned(), "file".to_owned()), ("B".to_owned(), "file".to_owned())];
        let surroundings = surroundings(&caller, &folders, &plan, &name);
        let variables = assemble(Some(&process), &files, surroundings.clone());
        let value = |name: &str| variables.get(OsStr::new(name)).and_then(|value| value.to_str());
        for (name, expected) in [
            ("SECRET", None),
            ("LANG", Some("C.UTF-8")),
            ("CI", Some("yes")),
            ("ABSENT", None),
            ("A", Some("declared")),
            ("B", Some("file")),
            ("HOME", Some("/elsewhere")),
            ("TMPDIR", Some("/state/tmp")),
            ("TOKA_AGENT", Some("agent")),
            ("NOTIFY_SOCKET", Some("/state/door/notify")),
        ] {
            assert_eq!(value(name), expected, "{name}");
        }
        assert!(value("PATH").is_some_and(|path| path.contains("/bin")));
    }

    #[test]
    fn every_variable_of_tokas_own_is_in_the_reference() {
        let reference = include_str!("../../../docs/workstream.md");
        let (caller, folders, name) = (Caller::default(), folders(), Name::new("a").expect("a label"));
        let plan = plan(&folders, &name);
        let surroundings = surroundings(&caller, &folders, &plan, &name);
        for (variable, _) in own(surroundings) {
            assert!(reference.contains(&format!("`{variable}`")), "{variable}");
        }
    }
}
