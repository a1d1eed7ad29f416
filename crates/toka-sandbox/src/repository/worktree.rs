//! A worktree and the index that belongs to it. Git looks into a directory of the worktree as a repository, and obeys its settings, once
//! the index says that it is a submodule (gitsubmodules(7)): so what an index names, and did not name when the agent began, is looked
//! at when it has ended.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toka_files::{Directory, FileType, ReadError};

use super::MAX_ENTRIES;
use super::index::{self, Index};

/// Longest index that is read, in bytes: a few hundred thousand files.
const MAX_INDEX: u64 = 64 * 1024 * 1024;

/// How far the clock of a file system may be behind, in milliseconds: it ticks with the kernel's timer.
const CLOCK_MS: i64 = 10;

/// A worktree of the workspace's repository, or of a submodule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worktree {
    /// The worktree, below the workspace; empty for that itself.
    pub path: PathBuf,
    /// The directory with its index, absolute.
    pub directory: PathBuf,
    /// The length of an object's name, in bytes.
    object_name: usize,
    /// Submodules that had a repository when the agent began.
    pub(super) known: BTreeSet<PathBuf>,
    /// Directories of a sparse index that were there when the agent began.
    sparse: BTreeSet<String>,
    /// Why its index could not be understood when the agent began.
    pub odd: Option<String>,
    /// The repositories of submodules that were there when the agent began, below `directory`: git takes one for that of a submodule that
    /// is set up later, and runs its hooks.
    repositories: BTreeSet<PathBuf>,
}

/// What an index names.
#[derive(Debug, Default)]
struct Named {
    submodules: BTreeSet<PathBuf>,
    sparse: BTreeSet<String>,
}

impl Worktree {
    /// The worktree at `path` below the workspace whose index lies in `directory`, and the submodules that the index names.
    pub(super) fn look(path: &Path, directory: PathBuf, object_name: usize) -> (Self, BTreeSet<PathBuf>) {
        let mut it = Self {
            path: path.to_owned(),
            directory,
            object_name,
            known: BTreeSet::new(),
            sparse: BTreeSet::new(),
            odd: None,
            repositories: BTreeSet::new(),
        };
        it.repositories = it.repositories_now();
        // Of what takes the place of another entry, the names are known at the end alone.
        match it.named(None) {
            Ok(named) => {
                it.sparse = named.sparse;
                (it, named.submodules)
            }
            Err(why) => {
                it.odd = Some(why);
                (it, BTreeSet::new())
            }
        }
    }

    /// The `.git` of each submodule that the index names and that was not there, or was changed since `began_ms` (milliseconds since
    /// the Unix epoch): below the workspace, which `root` is.
    ///
    /// # Errors
    /// With the reason why git may find more in the index than Toka does; none when it was so from the beginning.
    pub(crate) fn new_submodules(&self, root: &Directory, began_ms: i64) -> Result<Vec<PathBuf>, String> {
        let dot_git = |path: &Path| self.path.join(path).join(".git");
        let is_there = |path: &Path| root.kind(&dot_git(path)).is_some();
        let named = match self.named(Some(&is_there)) {
            Ok(named) => named,
            Err(_) if self.odd.is_some() => return Ok(Vec::new()),
            Err(why) => return Err(why),
        };
        if self.odd.is_none() && !named.sparse.is_subset(&self.sparse) {
            return Err("it has directories in which there can be submodules".to_owned());
        }
        let new = named.submodules.into_iter().filter(|path| !self.known.contains(path));
        let dot_gits = new.map(|path| dot_git(&path));
        Ok(dot_gits.filter(|dot_git| !is_untouched(root, dot_git, began_ms)).collect())
    }

    /// The repositories of submodules that were not there, below the directory.
    pub(crate) fn new_repositories(&self) -> impl Iterator<Item = PathBuf> {
        self.repositories_now().into_iter().filter(|path| !self.repositories.contains(path))
    }

    fn repositories_now(&self) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        if let Ok(directory) = Directory::open_real(&self.directory) {
            add_repositories(&directory, Path::new("modules"), &mut found, &mut MAX_ENTRIES.clone());
        }
        found
    }

    /// What the index names; nothing when there is none. `is_there` says whether a path has a repository, for those that take the place
    /// of another entry.
    fn named(&self, is_there: Option<&dyn Fn(&Path) -> bool>) -> Result<Named, String> {
        let Some(text) = self.read("index")? else { return Ok(Named::default()) };
        let Index { mut submodules, replaces, mut sparse, shared } =
            index::parse(&text, self.object_name).map_err(|odd| odd.to_string())?;
        let Some(name) = shared else { return Ok(Named { submodules, sparse }) };
        let Some(text) = self.read(&format!("sharedindex.{name}"))? else {
            return Ok(Named { submodules, sparse });
        };
        let other = index::parse(&text, self.object_name).map_err(|odd| odd.to_string())?;
        submodules.extend(other.submodules);
        sparse.extend(other.sparse);
        if let Some(is_there) = is_there.filter(|_| replaces) {
            let all = index::paths(&text, self.object_name).map_err(|odd| odd.to_string())?;
            submodules.extend(all.into_iter().filter(|path| is_there(path)));
        }
        Ok(Named { submodules, sparse })
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, String> {
        let read = Directory::open_real(&self.directory)
            .map_err(ReadError::from)
            .and_then(|directory| directory.read(Path::new(name), MAX_INDEX));
        match read {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.is_absence() => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Adds the repositories below a directory, those of submodules of submodules not among them, and looks at `left` entries.
fn add_repositories(root: &Directory, folder: &Path, found: &mut BTreeSet<PathBuf>, left: &mut usize) {
    let entries = root.directory(folder).and_then(|it| it.entries(*left)).unwrap_or_default();
    *left -= entries.len();
    for (name, kind) in entries {
        let path = folder.join(name);
        if root.kind(&path.join("HEAD")).is_some() {
            found.insert(path);
        } else if kind == FileType::Directory {
            add_repositories(root, &path, found, left);
        }
    }
}

/// Whether the repository is one that was there before, with the settings that it had. Nobody can set the time of the last change of an
/// inode (inode(7), `st_ctime`).
fn is_untouched(root: &Directory, dot_git: &Path, began_ms: i64) -> bool {
    let is_old = |name: &str| {
        let status = root.status(&dot_git.join(name)).ok()?;
        let changed_ms =
            status.st_ctime.saturating_mul(1000).saturating_add(status.st_ctime_nsec as i64 / 1_000_000);
        Some(changed_ms < began_ms.saturating_sub(CLOCK_MS))
    };
    root.kind(dot_git) == Some(FileType::Directory)
        && is_old("config") == Some(true)
        && ["commondir", "config.worktree"].into_iter().all(|name| is_old(name) != Some(false))
}
