//! What an agent's last words say of a wall of its sandbox. The kernel tells nobody whom it refused what, unless it is audited;
//! but most programs say so themselves before they give up. What they say is looked for in what they wrote last, and told
//! with the key that would open it. It is their word: a sentence that fits nothing of the plan is not told.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use toka_core::demand::is_home_secret;
use toka_core::{NetworkAccess, Opening, Origin, SandboxMode};
use toka_sandbox::plan::Access;
use toka_sandbox::renewal::inner_binds;
use toka_sandbox::{Bind, Right, SandboxPlan};

use crate::kernel_records::Refusal;

/// Lines that are looked at, from the end.
pub(crate) const LINES: usize = 40;
/// Characters of a line that are told.
const MOST_TOLD: usize = 200;
/// Most words of a line that are looked at as names of files.
const MOST_WORDS: usize = 4;
/// What every agent reads, whatever the plan says: there the reason is another.
const SYSTEM: [&str; 9] = ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/proc", "/dev", "/sys", "/tmp"];

/// What C libraries, runtimes and the best-known programs say when they have no network, as they spell it.
const NO_NETWORK: [&str; 12] = [
    "Address family not supported",
    "EAFNOSUPPORT",
    "Unknown system error 97",
    "Could not resolve host",
    // curl and git, of loopback too.
    "Couldn't connect to server",
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
const NOT_THERE: [&str; 3] = ["No such file or directory", "Directory nonexistent", "ENOENT"];
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
    /// What it must not change although a directory above it is open for writing.
    closed: Box<[Box<Path>]>,
    /// What stays hidden although a directory above it is open.
    hidden: Box<[Box<Path>]>,
    /// Whose process it is.
    uid: u32,
    /// Where its declaration says these.
    declared: Arc<DeclaredWalls>,
}

/// Where a declaration says of walls what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredWalls {
    /// What relative paths are relative to.
    pub workspace: PathBuf,
    /// The user's home, in which keys lie.
    pub home: PathBuf,
    /// What no declaration opens: Toka's own folders.
    pub closed: Vec<PathBuf>,
    /// Where the network is declared.
    pub network: Origin,
    /// Where paths are declared that may be read or written, with what they are called.
    pub paths: Vec<(PathBuf, Origin)>,
}

impl Default for DeclaredWalls {
    fn default() -> Self {
        Self {
            workspace: PathBuf::new(),
            home: PathBuf::new(),
            closed: Vec::new(),
            network: Origin::default_of("no network"),
            paths: Vec::new(),
        }
    }
}

/// What is known of a path outside of the sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct There {
    /// Whose it is.
    pub(crate) uid: u32,
    /// Where it leads, without links.
    pub(crate) real: PathBuf,
}

impl Walls {
    /// Those of a plan; none without a sandbox.
    pub(crate) fn of(plan: &SandboxPlan, declared: &Arc<DeclaredWalls>) -> Option<Box<Self>> {
        (plan.mode == SandboxMode::On).then(|| {
            let rules = plan.files.iter().filter(|rule| !is_system(&rule.path));
            let inner = inner_binds(&plan.binds);
            let of = |wanted: &dyn Fn(&Bind) -> bool| -> Box<[Box<Path>]> {
                inner.iter().filter(|bind| wanted(bind)).map(|bind| bind.target.as_path().into()).collect()
            };
            Box::new(Self {
                closed: of(&|bind| bind.source.is_some() && bind.access != Access::ReadWrite),
                hidden: of(&|bind| bind.source.is_none()),
                uid: plan.run_as.as_ref().map_or_else(|| nix::unistd::geteuid().as_raw(), |user| user.uid),
                declared: Arc::clone(declared),
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
    /// Which rule that is.
    pub(crate) why: String,
    /// Where it is declared.
    pub(crate) origin: Option<Origin>,
    /// What would open it.
    pub(crate) opening: Option<Opening>,
}

/// A wall, before it is known which line speaks of it.
struct Wall {
    why: String,
    origin: Option<Origin>,
    opening: Option<Opening>,
}

impl Wall {
    fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), origin: None, opening: None }
    }

    fn opened_by(self, opening: impl Into<Option<Opening>>) -> Self {
        Self { opening: opening.into(), ..self }
    }

    fn declared_at(self, origin: &Origin) -> Self {
        Self { origin: Some(origin.clone()), ..self }
    }

    fn never_opened(path: &Path) -> Self {
        let shown = path.display();
        Self::new(format!("{shown} is the user's keys or Toka's own, which stay hidden whatever is granted"))
    }

    fn closed(path: &Path) -> Self {
        Self::new(format!("no rule of it opens {}: `security.filesystem` does", path.display()))
    }

    fn read_only(path: &Path) -> Self {
        let shown = path.display();
        Self::new(format!("it may read {shown}, and not write it: `security.filesystem.write` opens it"))
    }
}

/// The wall that the kernel says it has refused the agent something at.
pub(crate) fn refused(
    refusal: &Refusal,
    walls: &Walls,
    look: impl Fn(&Path) -> Option<There>,
) -> Option<Hint> {
    let Refusal { blockers, path, process, port } = refusal;
    let other = process.as_deref().unwrap_or("a process");
    let has = |words: &[&str]| words.iter().any(|word| blockers.contains(word));
    let wall = match path {
        Some(path) => of_path(path, has(&["write", "make_", "remove", "truncate", "refer"]), walls, look)?,
        None if has(&["scope.signal"]) => Wall::new(format!(
            "it signals no process outside of its sandbox, such as {other}: nothing opens that"
        )),
        None if has(&["scope.abstract_unix_socket"]) => Wall::new(
            "it reaches no abstract Unix socket of a process outside of its sandbox: nothing opens that",
        ),
        None if has(&["ptrace"]) => Wall::new(format!(
            "it traces no process outside of its sandbox, such as {other}: nothing opens that"
        )),
        None if has(&["net."]) => {
            let port = port.map_or_else(String::new, |port| format!(" {port}"));
            Wall::new(format!("no rule of it opens the port{port}: `security.network` does"))
                .declared_at(&walls.declared.network)
        }
        None => return None,
    };
    let Wall { why, origin, opening } = wall;
    let place = path.as_ref().map_or_else(|| other.to_owned(), |path| path.display().to_string());
    let wrote = format!("{blockers} {place}").chars().take(MOST_TOLD).collect();
    Some(Hint { wrote, why, origin, opening })
}

/// The wall at a path of which only the kernel has spoken.
fn of_path(path: &Path, writes: bool, walls: &Walls, look: impl Fn(&Path) -> Option<There>) -> Option<Wall> {
    // What lies there is another thing for it than for us, such as /tmp, or no rule is about it.
    if is_system(path) {
        return None;
    }
    let There { real, .. } = look(path)?;
    let shown = path.display();
    if walls.hidden.iter().any(|hidden| path.starts_with(hidden)) || walls.is_never_opened(&real) {
        return Some(Wall::never_opened(path));
    }
    let opened = |read: bool| {
        if read { Some(Opening::Read { path: walls.named(&real)? }) } else { walls.written(&real) }
    };
    match right_to(path, walls) {
        None => Some(Wall::closed(path).opened_by(opened(!writes))),
        Some(right) if writes && right < Right::Write => {
            Some(walls.at(path, Wall::read_only(path)).opened_by(opened(false)))
        }
        Some(_) => Some(Wall::new(format!("what it may do with {shown} is less than that"))),
    }
}

/// The last of the lines that speaks of a wall of this plan. `look` says what is at a path for us, if anything is.
pub(crate) fn hint<'l>(
    lines: impl DoubleEndedIterator<Item = &'l str>,
    walls: &Walls,
    look: impl Fn(&Path) -> Option<There>,
) -> Option<Hint> {
    lines.rev().find_map(|line| {
        let Wall { why, origin, opening } = wall(line, walls, &look)?;
        Some(Hint { wrote: line.trim().chars().take(MOST_TOLD).collect(), why, origin, opening })
    })
}

fn wall(line: &str, walls: &Walls, look: &impl Fn(&Path) -> Option<There>) -> Option<Wall> {
    // The last is Go's.
    if says(line, &NO_NETWORK).is_some() || line.trim_end().ends_with(": no such host") {
        return no_network(line, walls);
    }
    if says(line, &BUSY).is_some() && line.contains(".git/") {
        return Some(Wall::new(
            "git's settings are protected, and only a person changes them, outside (`git push` needs no `-u`)",
        ));
    }
    if line.contains("not a git repository") {
        return hidden_repository(walls, look);
    }
    if let Some(at) = says(line, &NOT_WRITABLE) {
        return not_writable(line, path_beside(line, at, walls).as_deref(), walls, look);
    }
    let (allowed, there) = (says(line, &NOT_ALLOWED), says(line, &NOT_THERE));
    let at = allowed.or(there)?;
    let named = path_beside(line, at, walls).or_else(|| plain_name_beside(line, at, walls, look))?;
    // What it was to make is not there; then it is about the directory.
    let path =
        [Some(named.as_path()), named.parent()].into_iter().flatten().find(|path| look(path).is_some())?;
    let There { uid: owner, real } = look(path)?;
    if path != named && !means_to_write(line) {
        return None;
    }
    let shown = path.display();
    if walls.hidden.iter().any(|hidden| path.starts_with(hidden)) || walls.is_never_opened(&real) {
        return Some(Wall::never_opened(path));
    }
    match right_to(path, walls) {
        // The working directory is the workspace, or lies in it.
        None if there.is_some() && path.starts_with(&walls.working_dir) => Some(
            Wall::new(format!(
                "{shown} is there on this host, and hidden from it: `filesystem-read` opens the workspace, \
                 `security.filesystem.read` this alone"
            ))
            .opened_by(walls.opening(&real, line)),
        ),
        None if there.is_some() => Some(
            Wall::new(format!(
                "{shown} is there on this host, and hidden from it: `security.filesystem.read` opens it"
            ))
            .opened_by(walls.opening(&real, line)),
        ),
        None => Some(Wall::closed(path).opened_by(walls.opening(&real, line))),
        Some(right) if allowed.is_some() && right < Right::Write && means_to_write(line) => {
            Some(walls.at(path, Wall::read_only(path)).opened_by(walls.written(&real)))
        }
        // It has no rights over files of others, root neither.
        Some(_) if allowed.is_some() && owner != walls.uid => Some(Wall::new(format!(
            "{shown} belongs to the user {owner}, and the agent is {}, without rights over files of others: \
             `spec.process.user` makes it another user's process",
            walls.uid
        ))),
        // The modes of the file, mostly, which no key changes.
        Some(_) => None,
    }
}

impl Walls {
    /// A path as a declaration names it; none where it would mean something else there: a pattern, or text that a person cannot read.
    fn named(&self, path: &Path) -> Option<String> {
        let own = &self.declared.workspace;
        let relative = path.strip_prefix(own).ok().filter(|_| !own.as_os_str().is_empty());
        let named = match relative {
            Some(inner) if inner.as_os_str().is_empty() => ".",
            Some(inner) => inner.to_str()?,
            None => path.to_str()?,
        };
        let is_odd = |c: char| c.is_control() || "*?[]{}".contains(c);
        let is_read = !named.contains(is_odd) && !named.starts_with('~') && named.len() <= MOST_TOLD;
        (is_read && !self.is_never_opened(path) && !self.is_too_much(path)).then(|| named.to_owned())
    }

    /// Whether a path without links stays closed whatever a declaration says: keys of the user, and Toka's own.
    fn is_never_opened(&self, real: &Path) -> bool {
        let DeclaredWalls { home, closed, .. } = &*self.declared;
        is_home_secret(real, home) || closed.iter().any(|closed| real.starts_with(closed))
    }

    /// Whether so much lies in a folder that nobody should open it for one file: the root, a home, what the workspace or Toka's own lies in.
    fn is_too_much(&self, real: &Path) -> bool {
        let DeclaredWalls { workspace, home, closed, .. } = &*self.declared;
        let holds = |inner: &PathBuf| inner.starts_with(real);
        real.parent().is_none()
            || holds(home)
            || closed.iter().any(holds)
            || (holds(workspace) && workspace != real)
    }

    /// What opens a path for reading and writing.
    fn written(&self, path: &Path) -> Option<Opening> {
        Some(Opening::Write { path: self.named(path)? })
    }

    /// What opens a path that no rule opens.
    fn opening(&self, path: &Path, line: &str) -> Option<Opening> {
        match means_to_write(line) {
            true => self.written(path),
            false => Some(Opening::Read { path: self.named(path)? }),
        }
    }

    /// The wall, with where the rule is declared that opens this path as far as it is open.
    fn at(&self, path: &Path, wall: Wall) -> Wall {
        let covering = self.declared.paths.iter().filter(|(declared, _)| path.starts_with(declared));
        match covering.max_by_key(|(declared, _)| declared.components().count()) {
            Some((_, origin)) => wall.declared_at(origin),
            None => wall,
        }
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

/// The host that a program names which has not found it.
fn host_in(line: &str) -> Option<&str> {
    let after =
        ["Could not resolve host: ", "Could not resolve hostname ", "ENOTFOUND ", "EAI_AGAIN ", "lookup "];
    let rest = after.iter().find_map(|words| line.split_once(words))?.1;
    let host = rest.split(|c: char| c.is_whitespace() || ":,'\"`".contains(c)).next()?;
    format!("{host}:443").parse::<toka_core::HostRule>().is_ok_and(|rule| !rule.is_address()).then_some(host)
}

fn no_network(line: &str, walls: &Walls) -> Option<Wall> {
    let wall = |why: String| Wall::new(why).declared_at(&walls.declared.network);
    // Most speak TLS: at which port it wanted the host, no such message tells.
    let host = host_in(line).map(|host| format!("{host}:443"));
    let wall = match &walls.network {
        NetworkAccess::None => {
            Some(wall("its network is `none`: `security.network` gives it one".to_owned()))
        }
        NetworkAccess::Allow(hosts) => Some(wall(format!(
            "it reaches only {}, by name or through the proxy that `HTTPS_PROXY` names: `security.network` names the hosts",
            hosts.join(", ")
        ))),
        network @ (NetworkAccess::Loopback | NetworkAccess::Project) => Some(wall(format!(
            "its network is `{network}`, which reaches nothing outside: `security.network` names hosts, or is `full`, which a person grants"
        ))),
        NetworkAccess::Full => None,
    }?;
    let value = match (&walls.network, host) {
        (NetworkAccess::Allow(hosts), Some(host)) => Some(hosts.iter().cloned().chain([host]).collect()),
        (NetworkAccess::Allow(_), None) => None,
        (_, Some(host)) => Some(vec![host]),
        // A program that wants a server of its own, or that looks whether there is a network at all.
        (NetworkAccess::None, None) => {
            return Some(wall.opened_by(Opening::Network { value: "loopback".to_owned() }));
        }
        (_, None) => None,
    };
    let list = |hosts: Vec<String>| serde_json::Value::from(hosts).to_string();
    Some(match value {
        Some(hosts) => wall.opened_by(Opening::Network { value: format!("{{allow: {}}}", list(hosts)) }),
        None => wall,
    })
}

/// A repository that is there for us and not for the agent: git looks in the working directory and above it.
fn hidden_repository(walls: &Walls, look: &impl Fn(&Path) -> Option<There>) -> Option<Wall> {
    let mut places = walls.working_dir.ancestors().map(|folder| folder.join(".git"));
    let repository = places.find(|place| look(place).is_some())?;
    let shown = repository.display();
    match right_to(&repository, walls) {
        None if repository.parent() == Some(&walls.working_dir) => Some(
            Wall::new(format!("its repository {shown} is hidden from it: `git-access` opens it"))
                .opened_by(Opening::Capability { name: "git-access".to_owned() }),
        ),
        None => Some(Wall::new(format!(
            "its repository {shown} lies above its workspace, and is hidden from it: run it in the repository's top \
             (`--workdir`), where `git-access` opens it"
        ))),
        Some(_) => None,
    }
}

fn not_writable(
    line: &str,
    path: Option<&Path>,
    walls: &Walls,
    look: &impl Fn(&Path) -> Option<There>,
) -> Option<Wall> {
    // Chromium says so of what no agent may, and goes on.
    if line.contains("OOM score") || line.contains("/proc/") {
        return None;
    }
    if let Some(path) = path.filter(|path| walls.closed.iter().any(|closed| path.starts_with(closed))) {
        let shown = path.display();
        let of_git = path.components().any(|part| part.as_os_str() == ".git");
        return Some(match of_git {
            true => Wall::new(format!("{shown} is git's hooks or settings, which only a person changes")),
            false => Wall::new(format!(
                "{shown} is protected in a directory that it may write: where it declares agents, `declaration-write` opens it"
            ))
            .opened_by(Opening::Capability { name: "declaration-write".to_owned() }),
        });
    }
    let replaces = line.contains("temporary file") || line.starts_with("sed:");
    let wall = Wall::new(match replaces {
        true => {
            "a tool that replaces a file writes beside it first: its folder has to be in `security.filesystem.write`, not the \
             file alone"
        }
        false => "what it may write is what `security.filesystem.write` or `filesystem-write` names",
    });
    // What is to be made is not there, and its folder is.
    let named = path.into_iter().flat_map(|path| [Some(path), path.parent()]).flatten();
    let mut there = named.skip(usize::from(replaces)).filter_map(|path| Some((path, look(path)?.real)));
    Some(match there.next() {
        Some((path, real)) => walls.at(path, wall).opened_by(walls.written(&real)),
        None => wall,
    })
}

/// The path that the words at `at` are about: the last one before them, as C programs and shells say it, else the first one
/// after them, as Python does.
fn path_beside(line: &str, at: usize, walls: &Walls) -> Option<PathBuf> {
    let words = |text: &'_ str| -> Vec<String> {
        let words = text.split(|c: char| c.is_whitespace() || "'\"`‘’“”():,;[]<>=".contains(c));
        words.map(|word| word.trim_end_matches('.').to_owned()).filter(|word| !word.is_empty()).collect()
    };
    let is_path = |word: &String| word.contains('/') && word.len() > 1 && !word.contains("//");
    let (before, after) = (words(&line[..at]), words(&line[at..]));
    // `sh: 1: cannot create new.txt: …`: what cannot be made is a file, whatever it is called.
    let made = before.last().filter(|_| line.contains(": cannot ")).cloned();
    let word = before.into_iter().rev().find(is_path).or(made).or_else(|| after.into_iter().find(is_path))?;
    let path = toka_core::demand::normalise(&walls.working_dir.join(word));
    (!is_system(&path)).then_some(path)
}

/// The file of the working directory that the words at `at` are about, where it is named without a `/`, as in `cat: notes: …`: only
/// one that is there for us is known to be a file's name, and not a word.
fn plain_name_beside(
    line: &str,
    at: usize,
    walls: &Walls,
    look: &impl Fn(&Path) -> Option<There>,
) -> Option<PathBuf> {
    let words = line[..at].rsplit(|c: char| c.is_whitespace() || "'\"`‘’“”:".contains(c));
    let is_name = |word: &&str| !word.is_empty() && !word.contains('/') && ![".", ".."].contains(word);
    let names = words.filter(is_name).take(MOST_WORDS);
    names.map(|name| walls.working_dir.join(name)).find(|path| look(path).is_some())
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
        plan.files.push(toka_sandbox::PathRule {
            path: PathBuf::from("/w/workspace/out"),
            right: Right::Write,
            links: toka_sandbox::Links::Refuse,
            need: toka_sandbox::Need::Optional,
        });
        let bind = |source: Option<&str>, target: &str, access| Bind {
            source: source.map(PathBuf::from),
            target: PathBuf::from(target),
            access,
            need: toka_sandbox::Need::Optional,
            execution: toka_sandbox::Execution::Allowed,
        };
        let own = |target: &'static str, access| bind(Some(target), target, access);
        plan.binds.push(own("/w/workspace", Access::ReadWrite));
        plan.binds.push(own("/w/workspace/agents", Access::ReadOnly));
        plan.binds.push(own("/w/workspace/.git/hooks", Access::ReadOnly));
        plan.binds.push(bind(None, "/w/workspace/keys", Access::ReadOnly));
        plan
    }

    /// Where a path of the tests leads.
    fn real(path: &Path) -> PathBuf {
        path.strip_prefix("/srv/link")
            .map_or_else(|_| path.to_owned(), |rest| Path::new("/srv/data").join(rest))
    }

    fn declared() -> Arc<DeclaredWalls> {
        let at = |line| Origin::File { file: "a.yaml".into(), line, column: 1 };
        let paths = vec![(PathBuf::from("/w/workspace/src"), at(7))];
        let closed = vec![PathBuf::from("/var/toka")];
        Arc::new(DeclaredWalls {
            workspace: "/w/workspace".into(),
            home: "/home/u".into(),
            closed,
            network: at(5),
            paths,
        })
    }

    fn told(line: &str, network: NetworkAccess) -> Option<String> {
        hinted(line, network).map(|hint| hint.why)
    }

    fn hinted(line: &str, network: NetworkAccess) -> Option<Hint> {
        let there = [
            "/srv/data/x.csv",
            "/srv/data",
            "/srv/data/*",
            "/srv/link/x.csv",
            "/home/u/.ssh/id",
            "/home/u",
            "/",
            "/var/toka/trust",
            "/w/workspace/src",
            "/w/workspace/src/lib.rs",
            "/w/workspace/docs/a.md",
            "/w/workspace/notes.txt",
            "/w/workspace/keys/id",
            "/w/workspace",
            "/w/.git",
        ];
        let walls = Walls::of(&plan(network), &declared()).expect("a sandbox");
        let uid = nix::unistd::geteuid().as_raw();
        hint([line, "and then it gave up"].into_iter(), &walls, |path| {
            let foreign = Path::new("/w/workspace/out/theirs");
            let is_known = there.iter().any(|known| Path::new(known) == path);
            (is_known || path == foreign)
                .then(|| There { uid: if path == foreign { uid + 1 } else { uid }, real: real(path) })
        })
    }

    #[test]
    fn the_smallest_patch_opens_what_was_refused_and_the_line_is_named() {
        let none = || NetworkAccess::None;
        let allow =
            |hosts: &[&str]| NetworkAccess::Allow(hosts.iter().map(|host| (*host).to_owned()).collect());
        for (line, network, patch, at) in [
            (
                "cat: /srv/data/x.csv: No such file or directory",
                none(),
                "filesystem: {read: [/srv/data/x.csv]}",
                None,
            ),
            ("cat: notes.txt: No such file or directory", none(), "filesystem: {read: [notes.txt]}", None),
            // A link is followed: what is granted is where it leads.
            (
                "cat: /srv/link/x.csv: No such file or directory",
                none(),
                "filesystem: {read: [/srv/data/x.csv]}",
                None,
            ),
            (
                "sh: 1: cannot create src/lib.rs: Permission denied",
                none(),
                "filesystem: {write: [src/lib.rs]}",
                Some("a.yaml:7"),
            ),
            (
                "touch: cannot touch 'src/new.rs': Read-only file system",
                none(),
                "filesystem: {write: [src]}",
                Some("a.yaml:7"),
            ),
            (
                "sed: couldn't open temporary file src/sedX: Read-only file system",
                none(),
                "filesystem: {write: [src]}",
                Some("a.yaml:7"),
            ),
            ("sh: 1: cannot create new.txt: Permission denied", none(), "filesystem: {write: [.]}", None),
            (
                "curl: (6) Could not resolve host: example.org",
                none(),
                "network: {allow: [\"example.org:443\"]}",
                Some("a.yaml:5"),
            ),
            (
                "Error: getaddrinfo ENOTFOUND b.example.org",
                allow(&["a.example.org:80"]),
                "network: {allow: [\"a.example.org:80\",\"b.example.org:443\"]}",
                Some("a.yaml:5"),
            ),
            ("connect: Network is unreachable", none(), "network: loopback", Some("a.yaml:5")),
            (
                "sh: 1: cannot create agents/new.py: Read-only file system",
                none(),
                "capabilities_required: [declaration-write]",
                None,
            ),
        ] {
            let hint = hinted(line, network).unwrap_or_else(|| panic!("{line}"));
            let told = hint.opening.map(|opening| opening.patch()).unwrap_or_default();
            assert_eq!(told, format!("security: {{{patch}}}"), "{line}");
            assert_eq!(hint.origin.map(|origin| origin.to_string()).as_deref(), at, "{line}");
        }
        for line in [
            "connect: Network is unreachable",
            "cat: keys/id: No such file or directory",
            // As a declaration it would be a pattern.
            "cat: /srv/data/*: No such file or directory",
            "cat: /home/u/.ssh/id: No such file or directory",
            "cat: /var/toka/trust: No such file or directory",
            "sh: 1: cannot create /home/u/new: Permission denied",
            "sh: 1: cannot create /new: Permission denied",
        ] {
            let hint = hinted(line, NetworkAccess::Loopback).expect("a wall");
            assert_eq!(hint.opening, None, "{line}");
        }
    }

    #[test]
    fn words_of_programs_lead_to_the_key_that_opens() {
        let none = || NetworkAccess::None;
        for (line, key) in [
            ("cat: notes.txt: No such file or directory", "`filesystem-read` opens the workspace"),
            ("ls: cannot access 'notes.txt': No such file or directory", "/w/workspace/notes.txt is there"),
            ("OSError: [Errno 97] Address family not supported by protocol", "its network is `none`"),
            ("uv_interface_addresses returned Unknown system error 97", "`security.network`"),
            ("curl: (6) Could not resolve host: example.org", "`security.network`"),
            ("fatal: Unable to create '.git/index.lock': Read-only file system", "`filesystem-write`"),
            ("sed: couldn't open temporary file ./sedXYZ: Read-only file system", "its folder"),
            ("error: could not write config file .git/config: Device or resource busy", "only a person"),
            ("cat: /srv/data/x.csv: No such file or directory", "hidden from it"),
            ("sh: 1: cannot create agents/new.py: Read-only file system", "`declaration-write`"),
            ("sh: 1: cannot create .git/hooks/post-commit: Read-only file system", "only a person changes"),
            ("sh: 1: cannot create new.txt: Permission denied", "no rule of it opens /w/workspace"),
            ("mkdir: cannot create directory ‘new’: Permission denied", "no rule of it opens /w/workspace"),
            ("cat: keys/id: No such file or directory", "stay hidden whatever is granted"),
            ("sh: 1: cannot create /srv/data/new: Directory nonexistent", "/srv/data is there on this host"),
            ("sh: 1: cannot create out/theirs: Permission denied", "`spec.process.user`"),
            (
                "curl: (7) Failed to connect to localhost port 3000 after 0 ms: Couldn't connect to server",
                "`security.network`",
            ),
            (
                "fatal: not a git repository (or any of the parent directories): .git",
                "lies above its workspace",
            ),
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
        assert_eq!(Walls::of(&off, &declared()), None);
    }

    #[test]
    fn the_kernels_word_is_told_with_what_would_open_it() {
        let walls = Walls::of(&plan(NetworkAccess::None), &declared()).expect("a sandbox");
        let there =
            |path: &Path| (path != Path::new("/gone")).then(|| There { uid: 0, real: path.to_owned() });
        let told = |blockers: &str, path: Option<&str>| {
            let refusal = Refusal {
                blockers: blockers.into(),
                path: path.map(Into::into),
                process: Some("init (1)".into()),
                port: Some(443),
            };
            refused(&refusal, &walls, there)
        };
        let hint = told("fs.read_file", Some("/srv/data")).expect("a wall");
        assert_eq!(hint.wrote, "fs.read_file /srv/data");
        assert_eq!(hint.opening, Some(Opening::Read { path: "/srv/data".into() }));
        let hint = told("fs.make_reg", Some("/srv/data")).expect("a wall");
        assert_eq!(hint.opening, Some(Opening::Write { path: "/srv/data".into() }));
        let hint = told("scope.signal", None).expect("a wall");
        assert!(hint.why.contains("such as init (1)") && hint.opening.is_none(), "{hint:?}");
        assert!(told("net.connect_tcp", None).expect("a wall").why.contains("the port 443"));
        assert_eq!(told("fs.read_file", Some("/gone")), None, "what is not there is no wall");
        assert_eq!(told("fs.read_file", Some("/tmp/x")), None, "it has a /tmp of its own");
        assert_eq!(told("something.new", None), None);
    }
}
