//! Finds what an agent has planted under names that decide what runs and with which rights (git's settings and hooks, workstreams, the
//! policy), and sets it aside, below a directory that was opened and under a name that nobody can have taken. No mount can protect these
//! names, since nothing has them when the agent starts.
//!
//! Toka obeys nothing because of the place that it lies in, so what Toka would look at is set aside when the agent has ended: that
//! keeps a workspace tidy, and is no wall. Git does obey it, so what git would look at is set aside as soon as it appears
//! ([`watch`]).

pub mod watch;

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use toka_core::sniff::{SNIFF_BYTES, is_yaml_name, looks_like_a_workstream};
use toka_core::{Name, PlantedOutcome};
use toka_files::{Directory, FileType};

use crate::repository::Worktree;
use watch::Appeared;

/// Most names of a directory that are looked at.
const MAX_NAMES: usize = 100_000;
/// Most files whose beginning is read: the keeper does that, and must not be held up.
const MAX_SNIFFED: usize = 1_000;

/// How long the keeper reads indexes at the end of an agent: meanwhile it does nothing else.
const LOOKS_FOR: Duration = Duration::from_millis(500);

/// Names below one directory that are looked at when an agent has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    /// The directory, which the agent cannot replace.
    pub root: PathBuf,
    /// Paths below it that were not there, without a link on the way.
    pub absent: Vec<PathBuf>,
    /// Those that git would obey at once.
    pub obeyed: Vec<PathBuf>,
    /// The workstream files in it, when others must not appear.
    pub workstreams: Option<Vec<PathBuf>>,
    /// Worktrees in it, when their indexes must not name other repositories as submodules.
    pub worktrees: Vec<Worktree>,
}

/// What has appeared, or the directory that could not be searched for it.
pub type Planted = (PathBuf, PlantedOutcome);

/// Sets aside what has appeared since the agent began (in milliseconds since the Unix epoch); tells what was done, and what could not
/// be.
pub fn sweep(guards: &[Guard], agent: &Name, began_ms: u64) -> Vec<Planted> {
    let began_ms = i64::try_from(began_ms).unwrap_or(i64::MAX);
    guards.iter().flat_map(|guard| guard.sweep(agent, began_ms)).collect()
}

/// As [`sweep`], but only what git would obey, while the agent runs: what has appeared at these paths, or below them.
pub fn sweep_obeyed(guards: &[Guard], agent: &Name, appeared: &Appeared) -> Vec<Planted> {
    let of = |guard: &Guard| {
        let root = guard.open().ok().flatten()?;
        let concerned = |path: &&PathBuf| {
            let absolute = guard.root.join(path);
            appeared.as_ref().is_none_or(|appeared| appeared.iter().any(|it| absolute.starts_with(it)))
        };
        let paths = guard.obeyed.iter().filter(concerned);
        Some(guard.set_aside_all(&root, paths, agent).collect::<Vec<_>>())
    };
    guards.iter().filter_map(of).flatten().collect()
}

impl Guard {
    /// Whether there is nothing to look at.
    pub(crate) fn is_idle(&self) -> bool {
        self.absent.is_empty()
            && self.obeyed.is_empty()
            && self.workstreams.is_none()
            && self.worktrees.is_empty()
    }

    /// Its directory; none when that is gone: nothing in it can be obeyed then.
    fn open(&self) -> io::Result<Option<Directory>> {
        match Directory::open_real(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// Whether it looks at this path while the agent runs.
    pub fn obeys(&self, path: &Path) -> bool {
        path.strip_prefix(&self.root).is_ok_and(|path| self.obeyed.iter().any(|it| it.starts_with(path)))
    }

    fn sweep(&self, agent: &Name, began_ms: i64) -> Vec<Planted> {
        let root = match self.open() {
            Ok(Some(root)) => root,
            Ok(None) => return Vec::new(),
            Err(error) => return vec![self.not_searched(error.to_string())],
        };
        let planted =
            self.workstreams.as_ref().map(|known| new_workstreams(&root, known)).unwrap_or_default();
        let (submodules, odd) = self.new_submodules(&root, agent, began_ms);
        let paths = self.absent.iter().chain(&self.obeyed).chain(&planted.found).chain(&submodules);
        let said: Vec<Planted> = self.set_aside_all(&root, paths, agent).collect();
        let missed = planted.missed.map(|why| self.not_searched(why));
        said.into_iter().chain(odd).chain(missed).collect()
    }

    /// The `.git` of submodules that an index names now, and the indexes that were set aside, since git may find more in them.
    fn new_submodules(&self, root: &Directory, agent: &Name, began_ms: i64) -> (Vec<PathBuf>, Vec<Planted>) {
        let (mut found, mut odd) = (Vec::new(), Vec::new());
        let deadline = Instant::now() + LOOKS_FOR;
        for worktree in &self.worktrees {
            if Instant::now() > deadline {
                odd.push(self.not_searched("the indexes of its submodules are too large".to_owned()));
                break;
            }
            match worktree.new_submodules(root, began_ms) {
                Ok(submodules) => found.extend(submodules),
                Err(_) => odd.extend(set_aside_in(&worktree.directory, Path::new("index"), agent)),
            }
            let repositories = worktree.new_repositories();
            let aside = repositories.filter_map(|path| set_aside_in(&worktree.directory, &path, agent));
            odd.extend(aside);
        }
        (found, odd)
    }

    fn set_aside_all<'a>(
        &'a self,
        root: &'a Directory,
        paths: impl IntoIterator<Item = &'a PathBuf>,
        agent: &'a Name,
    ) -> impl Iterator<Item = Planted> {
        let there = paths.into_iter().filter_map(|path| appeared(root, path));
        there.filter_map(|path| set_aside(&self.root, root, path, agent))
    }

    fn not_searched(&self, reason: String) -> Planted {
        (self.root.clone(), PlantedOutcome::NotSearched { reason })
    }
}

/// Sets aside what lies at `path` below `root`, which is called `name`; `None` when somebody else has taken it away meanwhile, such as
/// the keeper of another project in the same workspace.
fn set_aside(name: &Path, root: &Directory, path: &Path, agent: &Name) -> Option<Planted> {
    let place = name.join(path);
    let outcome = match root.set_aside(path, &format!("from-{agent}")) {
        Ok(aside) => PlantedOutcome::SetAside { to: as_text(&place.with_file_name(aside)) },
        Err(_) if root.kind(path).is_none() => return None,
        Err(error) => PlantedOutcome::Remains { reason: error.to_string() },
    };
    Some((as_text(&place), outcome))
}

/// The same in the directory of a repository, which need not lie in the workspace. Git makes an index anew (git-reset(1)).
fn set_aside_in(directory: &Path, path: &Path, agent: &Name) -> Option<Planted> {
    let root = Directory::open_real(directory).ok()?;
    set_aside(directory, &root, path, agent)
}

/// What has appeared at a path: it, or a link on the way to it, which leads to whatever its maker wants.
fn appeared<'p>(root: &Directory, path: &'p Path) -> Option<&'p Path> {
    let mut on_the_way: Vec<&Path> = path.ancestors().filter(|part| !part.as_os_str().is_empty()).collect();
    on_the_way.reverse();
    on_the_way.into_iter().find_map(|part| match root.kind_as_owner(part) {
        None => Some(None),
        Some(kind) => (kind == FileType::Symlink || part == path).then_some(Some(part)),
    })?
}

/// A path as it can be told: an agent may have given a name that is no text, which would get lost on its way.
fn as_text(path: &Path) -> PathBuf {
    PathBuf::from(path.to_string_lossy().into_owned())
}

/// Workstream files that were found, and why there may be more.
#[derive(Default)]
struct Workstreams {
    found: Vec<PathBuf>,
    missed: Option<String>,
}

/// Workstream files right in a directory, as a command without a path would take them, that are not known.
fn new_workstreams(root: &Directory, known: &[PathBuf]) -> Workstreams {
    let entries = match root.entries(MAX_NAMES) {
        Ok(entries) => entries,
        Err(error) => return Workstreams { found: Vec::new(), missed: Some(error.to_string()) },
    };
    let too_many = (entries.len() == MAX_NAMES).then(|| format!("more than {MAX_NAMES} names"));
    let names = entries.into_iter().map(|(name, _)| name);
    let yaml = names.filter(|name| is_yaml_name(name.as_encoded_bytes())).map(PathBuf::from);
    let mut unknown: Vec<PathBuf> = yaml.filter(|name| !known.contains(name)).collect();
    let too_many_yaml = (unknown.len() > MAX_SNIFFED).then(|| format!("{} new YAML files", unknown.len()));
    unknown.truncate(MAX_SNIFFED);
    unknown.retain(|name| is_workstream(root, name));
    Workstreams { found: unknown, missed: too_many.or(too_many_yaml) }
}

/// Whether a file would be taken for a workstream. A link would be followed then, so it counts as one, and so does a pipe or a
/// socket, at which a command that reads all files of a folder fails.
pub(crate) fn is_workstream(root: &Directory, name: &Path) -> bool {
    use std::io::Read as _;
    match root.kind(name) {
        None | Some(FileType::Directory) => return false,
        Some(FileType::RegularFile) => {}
        Some(_) => return true,
    }
    let mut text = Vec::new();
    let read = root.file(name).map(|file| file.take(SNIFF_BYTES).read_to_end(&mut text));
    read.is_ok() && looks_like_a_workstream(&text)
}

/// The workstream files right in a workspace, whatever they are called: names below it.
pub fn workstreams_in(workspace: &Path) -> Vec<PathBuf> {
    let Ok(root) = Directory::open(workspace) else { return Vec::new() };
    let mut found = new_workstreams(&root, &[]).found;
    found.retain(|name| root.link(name).is_err());
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    const WORKSTREAM: &str = "metadata: {name: evil}\nspec: {}\n";

    fn agent() -> Name {
        Name::new("web").expect("a label")
    }

    fn guard(root: &Path) -> Guard {
        Guard {
            root: root.to_owned(),
            absent: ["toka.yaml", "agents", "not-made"].map(PathBuf::from).into(),
            obeyed: [".git", "deep/config", "deep/er/config"].map(PathBuf::from).into(),
            workstreams: Some(vec!["mine.yaml".into()]),
            worktrees: Vec::new(),
        }
    }

    fn names(folder: &Path) -> String {
        let entries =
            fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<String> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort();
        names.join(" ")
    }

    #[test]
    fn what_appeared_is_set_aside_and_what_did_not_is_no_matter() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        for (path, text) in [
            ("toka.yaml", "allow: [sandbox:off]"),
            ("evil.yml", WORKSTREAM),
            ("mine.yaml", WORKSTREAM),
            ("compose.yaml", "services: {}"),
        ] {
            fs::write(root.join(path), text).expect("room");
        }
        fs::create_dir_all(root.join("deep/er")).expect("a folder");
        let strange = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"x\xff.yaml");
        fs::write(root.join(strange), WORKSTREAM).expect("room");
        let said = sweep(&[guard(root)], &agent(), 0);
        assert_eq!(said.len(), 3, "{said:?}");
        serde_json::to_string(&said).expect("it can be told, whatever it is called");
        assert!(!root.join(strange).exists(), "{said:?}");
        let left = names(root);
        assert!(left.starts_with("compose.yaml deep evil.yml.from-web-"), "{left}");
        assert!(left.contains("mine.yaml toka.yaml.from-web-"), "{left}");
        assert_eq!(sweep(&[guard(root)], &agent(), 0), [], "what was set aside is not looked at");
    }

    #[test]
    fn no_name_that_is_taken_no_link_and_no_directory_gets_in_the_way() {
        let (folder, elsewhere) =
            (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let root = folder.path();
        fs::write(elsewhere.path().join("config"), "Host *").expect("room");
        // The names that it might be set aside under are taken, and a link leads to somebody's files.
        fs::create_dir_all(root.join("agents.from-web/x")).expect("a folder");
        fs::create_dir(root.join("agents")).expect("a folder");
        symlink(elsewhere.path(), root.join("deep")).expect("a link");
        symlink(elsewhere.path(), root.join(".git")).expect("a link");
        let at_once = sweep_obeyed(&[guard(root)], &agent(), &None);
        assert_eq!(at_once.len(), 2, "{at_once:?}");
        assert!(root.join("agents").exists(), "that waits for its end");
        let said = sweep(&[guard(root)], &agent(), 0);
        assert_eq!(said.len(), 1, "{said:?}");
        assert_eq!(names(elsewhere.path()), "config");
        let left = names(root);
        for name in [".git", "agents", "deep"] {
            assert!(left.contains(&format!("{name}.from-web-")) && !root.join(name).exists(), "{left}");
        }
    }

    #[test]
    fn what_lies_among_many_is_told_where_it_is_not_found() {
        let folder = tempfile::tempdir().expect("a folder");
        for number in 0..=MAX_SNIFFED {
            fs::write(folder.path().join(format!("c{number}.yaml")), "services: {}").expect("room");
        }
        let said = sweep(&[guard(folder.path())], &agent(), 0);
        let reason = "1001 new YAML files".to_owned();
        assert_eq!(said, [(folder.path().to_owned(), PlantedOutcome::NotSearched { reason })]);
    }

    #[test]
    fn what_cannot_be_looked_at_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        fs::write(&file, "").expect("room");
        let said = sweep(&[guard(&file)], &agent(), 0);
        assert!(
            matches!(&said[..], [(path, PlantedOutcome::NotSearched { .. })] if *path == file),
            "{said:?}"
        );
        assert_eq!(sweep(&[guard(&folder.path().join("gone"))], &agent(), 0), []);
    }
}
