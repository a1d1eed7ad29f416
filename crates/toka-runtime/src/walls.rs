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

/// What C libraries, runtimes and the best-known programs say when they have no network, as they spell it.
const NO_NETWORK: [&str; 11] = [
    "Address family not supported",
    "EAFNOSUPPORT",
    "Unknown system error 97",
    "Could not resolve host",
    "Temporary failure in name resolution",
    "Name or service not known",
    "Network is unreachable",
    "ENETUNREACH",
    "EAI_AGAIN",
    "getaddrinfo ENOTFOUND",
    "UnknownHostException",
];
/// The same for files.
const NOT_WRITABLE: [&str; 2] = ["Read-only file system", "EROFS"];
const NOT_ALLOWED: [&str; 3] = ["Permission denied", "EACCES", "PermissionError"];
const NOT_THERE: [&str; 2] = ["No such file or directory", "ENOENT"];
const BUSY: [&str; 2] = ["Device or resource busy", "EBUSY"];
/// Who says that something was not allowed while it did this meant to write.
const WRITES: [&str; 9] =
    ["create", "write", "touch", "mkdir", "remove", "unlink", "rename", "truncate", "overwrite"];

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
    // The last is Go's.
    if says(line, &NO_NETWORK).is_some() || line.trim_end().ends_with(": no such host") {
        return no_network(&walls.network);
    }
    if says(line, &BUSY).is_some() && line.contains(".git/") {
        return Some("the settings of a repository are protected: only a person changes them".to_owned());
    }
    if says(line, &NOT_WRITABLE).is_some() {
        return not_writable(line);
    }
    let (allowed, there) = (says(line, &NOT_ALLOWED), says(line, &NOT_THERE));
    let path = path_beside(line, allowed.or(there)?, walls).filter(|path| is_there(path))?;
    let shown = path.display();
    match right_to(&path, walls) {
        None if there.is_some() => Some(format!(
            "{shown} is there on this host, and hidden from it: `security.filesystem.read` opens it"
        )),
        None => Some(format!("no rule of it opens {shown}: `security.filesystem` does")),
        Some(right) if allowed.is_some() && right < Right::Write && means_to_write(line) => {
            Some(format!("it may read {shown}, and not write it: `security.filesystem.write` opens it"))
        }
        // The modes of the file, mostly, which no key changes.
        Some(_) => None,
    }
}

/// Where the first of these words stands, by itself and not within another.
fn says(line: &str, words: &[&str]) -> Option<usize> {
    let is_end = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric());
    words.iter().find_map(|word| {
        line.match_indices(word).map(|(at, _)| at).find(|at| {
            is_end(line[..*at].chars().next_back()) && is_end(line[at + word.len()..].chars().next())
        })
    })
}

fn means_to_write(line: &str) -> bool {
    let small = line.to_lowercase();
    WRITES.iter().any(|word| small.contains(word))
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

fn not_writable(line: &str) -> Option<String> {
    // Chromium says so of what no agent may, and goes on.
    if line.contains("OOM score") || line.contains("/proc/") {
        return None;
    }
    let replaces = line.contains("temporary file") || line.starts_with("sed:");
    Some(match replaces {
        true => "a tool that replaces a file writes beside it first: its folder has to be in `security.filesystem.write`, not the \
                 file alone"
            .to_owned(),
        false => "what it may write is what `security.filesystem.write` or `filesystem-write` names".to_owned(),
    })
}

/// The path that the words at `at` are about: the last one before them, as C programs and shells say it, else the first one
/// after them, as Python does.
fn path_beside(line: &str, at: usize, walls: &Walls) -> Option<PathBuf> {
    let paths = |text: &str| -> Vec<PathBuf> {
        let words = text.split(|c: char| c.is_whitespace() || "'\"`‘’“”():,;[]<>=".contains(c));
        let words = words.map(|word| word.trim_end_matches('.'));
        let is_path = |word: &&str| word.contains('/') && word.len() > 1 && !word.contains("//");
        words
            .filter(is_path)
            .map(|word| toka_core::demand::normalise(&walls.working_dir.join(word)))
            .collect()
    };
    let path = paths(&line[..at]).pop().or_else(|| paths(&line[at..]).into_iter().next())?;
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
            ("run.sh: line 2: /srv/data/x.csv: No such file or directory", "hidden from it"),
            ("dial tcp: lookup example.org: no such host", "`security.network`"),
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
            // The file is not executable, or another user's.
            "run.sh: line 3: /w/workspace/src/lib.rs: Permission denied",
            "sh: 1: ./src/lib.rs: Permission denied",
            "config error: no such hostgroup web",
            "image format erofs: bad checksum",
            "reaccess src/lib.rs: checksum mismatch",
            "GET /srv/data/x.csv: 403 permission denied for user bob",
            "Failed to adjust OOM score of renderer with pid 1: Read-only file system (30)",
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
