//! Everything that an agent asks for: the capabilities that it names, and those that follow from the rest of its
//! declaration. `toka plan` shows them, `toka run` refuses a start over them; both ask this one function.

use std::path::{Component, Path, PathBuf};

use crate::capability::{Policy, Refusal};
use crate::{AgentName, Capability, Confinement, Declared, ModelReach, SandboxMode};

/// Where relative paths begin, and how links are followed.
pub struct Ground<'a> {
    /// The workspace, without links in its path.
    pub workspace: &'a Path,
    /// The home of the user who runs Toka, for paths that begin with `~/`.
    pub user_home: &'a Path,
    /// The path without links, as far as it is there: a link in the workspace must not lead out of it unnoticed.
    pub resolve: &'a dyn Fn(&Path) -> PathBuf,
}

impl Ground<'_> {
    /// The absolute path that a declared one means: `~/` is the home of the user who runs Toka, and a relative one lies in
    /// the workspace. Dots are resolved in the text, links are not followed.
    pub fn locate(&self, declared: &str) -> PathBuf {
        normalise(&match declared.strip_prefix("~/") {
            Some(rest) => self.user_home.join(rest),
            None if declared == "~" => self.user_home.to_owned(),
            None => self.workspace.join(declared),
        })
    }
}

/// Where users keep keys and tokens, relative to their home.
pub const HOME_SECRETS: [&str; 25] = [
    ".local/state/toka",
    ".ssh",
    ".gnupg",
    ".aws",
    ".azure",
    ".kube",
    ".docker",
    ".netrc",
    ".pgpass",
    ".my.cnf",
    ".npmrc",
    ".pypirc",
    ".git-credentials",
    ".vault-token",
    ".password-store",
    ".cargo/credentials",
    ".cargo/credentials.toml",
    ".config/gh",
    ".config/gcloud",
    ".config/git/credentials",
    ".config/op",
    ".config/sops",
    ".local/share/keyrings",
    ".mozilla",
    ".bash_history",
];

/// Whether a path without links is one of the user's keys, or lies in one.
pub fn is_home_secret(path: &Path, user_home: &Path) -> bool {
    path.strip_prefix(user_home)
        .is_ok_and(|below| HOME_SECRETS.iter().any(|secret| below.starts_with(secret)))
}

/// Makes the demand for one kind of access from the path.
type OfPath = fn(String) -> Capability;

/// The capabilities that `confinement` asks for, named or implied, each with the place that asks; in the order of the
/// declaration.
pub fn demands(confinement: &Confinement, ground: &Ground<'_>) -> Vec<Declared<Capability>> {
    let mut found = Vec::new();
    if confinement.sandbox.value == SandboxMode::Off {
        found.push(Declared::new(Capability::SandboxOff, confinement.sandbox.origin.clone()));
    }
    for declared in &confinement.capabilities {
        found.push(declared.clone());
        let (path, demand): (_, OfPath) = match &declared.value {
            Capability::FilesystemRead(path) => (path, Capability::OutsideRead),
            Capability::FilesystemWrite(path) => (path, Capability::OutsideWrite),
            _ => continue,
        };
        let path = outside(path.as_deref().unwrap_or(""), ground);
        found.extend(path.map(|path| Declared::new(demand(path), declared.origin.clone())));
    }
    let lists: [(_, OfPath); 3] = [
        (&confinement.read, Capability::OutsideRead),
        (&confinement.write, Capability::OutsideWrite),
        (&confinement.execute, Capability::OutsideExecute),
    ];
    for (list, demand) in lists {
        found.extend(list.iter().filter_map(|declared| {
            Some(Declared::new(demand(outside(&declared.value, ground)?), declared.origin.clone()))
        }));
    }
    if let Some(Declared { value: ModelReach::Providers, origin }) = &confinement.model
        && confinement.capabilities.iter().all(|declared| declared.value != Capability::ModelAccess)
    {
        found.push(Declared::new(Capability::ModelAccess, origin.clone()));
    }
    for capability in confinement.network.value.demands() {
        found.push(Declared::new(capability, confinement.network.origin.clone()));
    }
    found
}

/// Those of the agent's demands that the policy refuses, with the reason.
pub fn refused<'a>(
    agent: &AgentName,
    demands: &'a [Declared<Capability>],
    policy: &Policy,
) -> impl Iterator<Item = (&'a Declared<Capability>, Refusal)> {
    demands.iter().filter_map(move |demand| Some((demand, policy.decide(agent, &demand.value).err()?)))
}

/// The path outside the workspace that a declared path or glob reaches, which takes a grant; `None` for one below it.
pub fn outside(declared: &str, ground: &Ground<'_>) -> Option<String> {
    let whole = match declared.strip_prefix("~/") {
        Some(rest) => ground.user_home.join(rest),
        None if declared == "~" => ground.user_home.to_owned(),
        None => ground.workspace.join(declared),
    };
    // A glob can match anything below its last plain folder.
    let plain: PathBuf = whole
        .components()
        .take_while(|part| !part.as_os_str().to_string_lossy().contains(['*', '?', '[']))
        .collect();
    // Dots go first, as they do in the rules; then the links that are left.
    let real = (ground.resolve)(&normalise(&plain));
    // Beyond a glob, `..` leads from wherever it matched to anywhere.
    let climbs = whole.components().skip(plain.components().count()).any(|part| part == Component::ParentDir);
    let reached = if climbs { Path::new("/") } else { &real };
    // A home that is the workspace does not make the keys in it the project's.
    let is_key = is_home_secret(reached, ground.user_home);
    (is_key || !reached.starts_with(ground.workspace)).then(|| reached.to_string_lossy().into_owned())
}

/// Resolves `.` and `..` in the text of a path, without asking the file system.
pub fn normalise(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NetworkAccess;

    fn by_test<T>(value: T) -> Declared<T> {
        Declared::by_default(value, "test")
    }

    fn found(confinement: &Confinement) -> Vec<String> {
        let resolve = |path: &Path| match path.strip_prefix("/srv/link") {
            Ok(rest) => Path::new("/etc").join(rest).components().collect(),
            Err(_) => path.to_owned(),
        };
        let ground =
            Ground { workspace: Path::new("/srv"), user_home: Path::new("/home/me"), resolve: &resolve };
        demands(confinement, &ground).iter().map(|demand| demand.value.to_string()).collect()
    }

    #[test]
    fn paths_that_leave_the_workspace_need_a_grant() {
        for (path, demanded) in [
            ("docs", None),
            ("", None),
            ("./a/../b", None),
            ("src/**/*.rs", None),
            ("/srv/docs", None),
            ("..", Some("/")),
            ("a/../../etc", Some("/etc")),
            ("/etc/*.conf", Some("/etc")),
            ("*/../../etc", Some("/")),
            ("/srvshop", Some("/srvshop")),
            ("~/.ssh", Some("/home/me/.ssh")),
            ("~", Some("/home/me")),
            ("a/../link", Some("/etc")),
            ("link/shadow", Some("/etc/shadow")),
        ] {
            let confinement = Confinement { read: vec![by_test(path.to_owned())], ..Confinement::default() };
            let asked = |how: &str| demanded.map(|path| format!("filesystem-outside-{how}:{path}"));
            assert_eq!(found(&confinement), Vec::from_iter(asked("read")), "{path}");
            let confinement =
                Confinement { execute: vec![by_test(path.to_owned())], ..Confinement::default() };
            assert_eq!(found(&confinement), Vec::from_iter(asked("execute")), "{path}");
            let capability = Capability::FilesystemWrite(Some(path.to_owned()));
            let confinement =
                Confinement { capabilities: vec![by_test(capability.clone())], ..Confinement::default() };
            let expected: Vec<String> = [capability.to_string()].into_iter().chain(asked("write")).collect();
            assert_eq!(found(&confinement), expected, "{path}");
        }
    }

    #[test]
    fn keys_in_a_home_that_is_the_workspace_need_a_grant() {
        let resolve = |path: &Path| path.to_owned();
        let ground =
            Ground { workspace: Path::new("/home/me"), user_home: Path::new("/home/me"), resolve: &resolve };
        for (path, demanded) in [
            ("docs", None),
            (".ssh/id_ed25519", Some("/home/me/.ssh/id_ed25519")),
            (".local/state/toka", Some("/home/me/.local/state/toka")),
        ] {
            assert_eq!(outside(path, &ground).as_deref(), demanded, "{path}");
        }
    }

    #[test]
    fn what_is_dangerous_is_asked_for_by_its_section_too() {
        let confinement = Confinement {
            sandbox: by_test(SandboxMode::Off),
            capabilities: vec![by_test(Capability::Git), by_test(Capability::Label("poetry".into()))],
            network: by_test(NetworkAccess::Full),
            ..Confinement::default()
        };
        assert_eq!(found(&confinement), ["sandbox:off", "git-access", "poetry", "network:full"]);
        let agent = AgentName::new("web").expect("a label");
        let demands = [by_test(Capability::Git), by_test(Capability::NetworkFull)];
        let refusals: Vec<Refusal> =
            refused(&agent, &demands, &Policy::default()).map(|(_, refusal)| refusal).collect();
        assert_eq!(refusals, [Refusal::NotGranted(Capability::NetworkFull)]);
        assert_eq!(found(&Confinement::default()), [""; 0]);
    }
}
