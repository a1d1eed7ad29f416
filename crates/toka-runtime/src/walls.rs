//! What an agent's last words say of a wall of its sandbox. The kernel tells nobody whom it refused what, unless it is audited;
//! but most programs say so themselves before they give up. What they say is looked for in what they wrote last, and told
//! with the key that would open it. It is their word: a sentence that fits nothing of the plan is not told.

use std::path::{Path, PathBuf};

use toka_core::{NetworkAccess, SandboxMode};
use toka_sandbox::{Right, SandboxPlan};

/// Lines that are looked at, from the end.
pub(crate) const LINES: usize = 15;
/// Characters of a line that are told.
const MOST_TOLD: usize = 200;
/// What every agent reads, whatever the plan says: there the reason is another.
const SYSTEM: [&str; 9] = ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/proc", "/dev", "/sys", "/tmp"];

/// What programs and libraries say when they have no network.
const NO_NETWORK: [&str; 12] = [
    "address family not supported",
    "eafnosupport",
    "unknown system error 97",
    "could not resolve host",
    "temporary failure in name resolution",
    "name or service not known",
    "network is unreachable",
    "enetunreach",
    "eai_again",
    "getaddrinfo enotfound",
    "unknownhostexception",
    "no such host",
];
/// The same for files.
const NOT_WRITABLE: [&str; 2] = ["read-only file system", "erofs"];
const NOT_ALLOWED: [&str; 3] = ["permission denied", "eacces", "permissionerror"];
const NOT_THERE: [&str; 2] = ["no such file or directory", "enoent"];
const BUSY: [&str; 2] = ["device or resource busy", "ebusy"];

/// What of a sandbox programs speak of: as little as is needed, since it is kept for as long as the agent lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Walls {
    network: NetworkAccess,
    working_dir: Box<Path>,
    rules: Box<[(Box<Path>, Right)]>,
}

impl Walls {
    /// Those of a plan; none without a sandbox.
    pub(crate) fn of(plan: &SandboxPlan) -> Option<Box<Self>> {
        (plan.mode == SandboxMode::On).then(|| {
            let rules = plan.files.iter().filter(|rule| !is_system(&rule.path));
            Box::new(Self {
                network: plan.network.clone(),
                working_dir: plan.working_dir.as_path().into(),
                rules: rules.map(|rule| (rule.path.as_path().into(), rule.right)).collect(),
            })
        })
    }
}

/// A wall, as the agent's own words tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hint {
    /// What it wrote, cut where it is long: not escaped.
    pub(crate) wrote: String,
    /// Which rule that is, and what would open it.
    pub(crate) why: String,
}

/// The last of the lines that speaks of a wall of this plan. `is_there` says whether a path exists for us.
pub(crate) fn hint<'l>(
    lines: impl DoubleEndedIterator<Item = &'l str>,
    walls: &Walls,
    is_there: impl Fn(&Path) -> bool,
) -> Option<Hint> {
    lines.rev().find_map(|line| {
        let why = why(line, walls, &is_there)?;
        Some(Hint { wrote: line.trim().chars().take(MOST_TOLD).collect(), why })
    })
}

fn why(line: &str, walls: &Walls, is_there: &impl Fn(&Path) -> bool) -> Option<String> {
    let small = line.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| small.contains(word));
    if says(&NO_NETWORK) {
        return no_network(&walls.network);
    }
    if says(&BUSY) && small.contains(".git/") {
        return Some("the settings of a repository are protected: only a person changes them".to_owned());
    }
    if says(&NOT_WRITABLE) {
        return Some(not_writable(&small));
    }
    let (allowed, there) = (says(&NOT_ALLOWED), says(&NOT_THERE));
    let path = path_in(line, walls).filter(|path| (allowed || there) && is_there(path))?;
    let shown = path.display();
    match right_to(&path, walls) {
        None if there => Some(format!(
            "{shown} is there on this host, and hidden from it: `security.filesystem.read` opens it"
        )),
        None => Some(format!("no rule of it opens {shown}: `security.filesystem` does")),
        Some(right) if allowed && right < Right::Write => {
            Some(format!("it may read {shown}, and not write it: `security.filesystem.write` opens it"))
        }
        Some(_) => None,
    }
}

fn no_network(network: &NetworkAccess) -> Option<String> {
    match network {
        NetworkAccess::None => Some("its network is `none`: `security.network` gives it one".to_owned()),
        NetworkAccess::Loopback | NetworkAccess::Project | NetworkAccess::Allow(_) => Some(format!(
            "its network is `{network}`, which reaches nothing outside: `security.network: full`, which a person grants, does"
        )),
        NetworkAccess::Full => None,
    }
}

fn not_writable(line: &str) -> String {
    let replaces = line.contains("temporary file") || line.starts_with("sed:");
    match replaces {
        true => "a tool that replaces a file writes beside it first: its folder has to be in `security.filesystem.write`, not the \
                 file alone"
            .to_owned(),
        false => "what it may write is what `security.filesystem.write` or `filesystem-write` names".to_owned(),
    }
}

/// The first path of a line that leads somewhere by itself.
fn path_in(line: &str, walls: &Walls) -> Option<PathBuf> {
    let words = line.split(|c: char| c.is_whitespace() || "'\"`‘’“”():,;[]<>=".contains(c));
    let word = words.map(|word| word.trim_end_matches('.')).find(|word| {
        let is_address = word.contains("//");
        word.contains('/') && word.len() > 1 && !is_address
    })?;
    let path = toka_core::demand::normalise(&walls.working_dir.join(word));
    (!is_system(&path)).then_some(path)
}

fn is_system(path: &Path) -> bool {
    SYSTEM.iter().any(|system| path.starts_with(system))
}

/// What it may do there.
fn right_to(path: &Path, walls: &Walls) -> Option<Right> {
    walls.rules.iter().filter(|(rule, _)| path.starts_with(rule)).map(|(_, right)| *right).max()
}

#[cfg(test)]
mod tests {
    use toka_core::{Confinement, Declared, Name};
    use toka_sandbox::{AgentFolders, CompileInput, HostFacts};

    use super::*;

    fn plan(network: NetworkAccess) -> SandboxPlan {
        let folders = AgentFolders::below(Path::new("/w"));
        let name = Name::new("a").expect("a label");
        let confinement =
            Confinement { network: Declared::by_default(network, "test"), ..Confinement::default() };
        let mut plan = SandboxPlan::compile(&CompileInput {
            confinement: &confinement,
            folders: &folders,
            host: &HostFacts::probe(),
            project: &name,
            agent: &name,
            facts: &Default::default(),
            workstream_dir: None,
            toka_exe: Path::new("/usr/bin/toka"),
            programs: &[],
            run_as: None,
        })
        .expect("a plan");
        plan.working_dir = PathBuf::from("/w/workspace");
        plan.files.push(toka_sandbox::PathRule {
            path: PathBuf::from("/w/workspace/src"),
            right: Right::Read,
            links: toka_sandbox::Links::Refuse,
            need: toka_sandbox::Need::Optional,
        });
        plan
    }

    fn told(line: &str, network: NetworkAccess) -> Option<String> {
        let there = ["/srv/data/x.csv", "/w/workspace/src/lib.rs", "/w/workspace/docs/a.md"];
        let walls = Walls::of(&plan(network)).expect("a sandbox");
        hint([line, "and then it gave up"].into_iter(), &walls, |path| {
            there.iter().any(|known| Path::new(known) == path)
        })
        .map(|hint| hint.why)
    }

    #[test]
    fn words_of_programs_lead_to_the_key_that_opens() {
        let none = || NetworkAccess::None;
        for (line, key) in [
            ("OSError: [Errno 97] Address family not supported by protocol", "its network is `none`"),
            ("uv_interface_addresses returned Unknown system error 97", "`security.network`"),
            ("curl: (6) Could not resolve host: example.org", "`security.network`"),
            ("fatal: Unable to create '.git/index.lock': Read-only file system", "`filesystem-write`"),
            ("sed: couldn't open temporary file ./sedXYZ: Read-only file system", "its folder"),
            ("error: could not write config file .git/config: Device or resource busy", "only a person"),
            ("cat: /srv/data/x.csv: No such file or directory", "hidden from it"),
            ("open '/srv/data/x.csv': Permission denied", "no rule of it opens /srv/data/x.csv"),
            (
                "sh: 1: cannot create src/lib.rs: Permission denied",
                "may read /w/workspace/src/lib.rs, and not",
            ),
            (
                "PermissionError: [Errno 13] Permission denied: 'docs/a.md'",
                "no rule of it opens /w/workspace/docs/a.md",
            ),
        ] {
            let told = told(line, none()).unwrap_or_default();
            assert!(told.contains(key), "{line}: {told:?}");
        }
        assert!(
            told("connect: Network is unreachable", NetworkAccess::Loopback)
                .is_some_and(|it| it.contains("full"))
        );
    }

    #[test]
    fn what_fits_no_wall_is_not_told() {
        for line in [
            "cat: /srv/data/none.csv: No such file or directory",
            "cat: src/lib.rs: No such file or directory",
            "/usr/bin/tool: Permission denied",
            "Permission denied (publickey).",
            "assertion failed",
            "",
        ] {
            assert_eq!(told(line, NetworkAccess::None), None, "{line}");
        }
        assert_eq!(told("Could not resolve host: example.org", NetworkAccess::Full), None);
        let mut off = plan(NetworkAccess::None);
        off.mode = SandboxMode::Off;
        assert_eq!(Walls::of(&off), None);
    }
}
