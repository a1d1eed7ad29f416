//! Files of a directory that have other names outside of it: who writes to one writes to the other (link(2)).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::FileType;

use crate::{Directory, Limits};

/// How deep directories may lie in one another.
const DEPTH: usize = 128;

/// What a look found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shared {
    /// How many files have a name outside.
    pub files: usize,
    /// The first of them by its path.
    pub first: Option<PathBuf>,
    /// Whether everything was looked at.
    pub is_whole: bool,
}

/// The names of one file within the directory.
struct Names {
    found: u64,
    all: u64,
    first: PathBuf,
}

/// Looks for them below `root`, links not followed, as far as the limits allow. What cannot be read is left out.
pub fn shared_files(root: &Path, limits: Limits) -> Shared {
    let mut look = Look { limits, left: limits.names, files: HashMap::new() };
    let is_whole = Directory::open(root).is_ok_and(|directory| look.walk(&directory, root, DEPTH));
    let outside = look.files.into_values().filter(|names| names.found < names.all);
    let mut paths: Vec<PathBuf> = outside.map(|names| names.first).collect();
    paths.sort();
    Shared { files: paths.len(), first: paths.into_iter().next(), is_whole }
}

struct Look {
    limits: Limits,
    left: usize,
    files: HashMap<(u64, u64), Names>,
}

impl Look {
    /// Whether all of a directory was looked at.
    fn walk(&mut self, directory: &Directory, path: &Path, depth: usize) -> bool {
        let Ok(entries) = directory.entries(self.left) else { return true };
        self.left -= entries.len();
        let mut is_whole = self.left > 0 && depth > 0;
        for (name, kind) in entries {
            if Instant::now() > self.limits.deadline {
                return false;
            }
            let (name, inner) = (Path::new(&name), path.join(&name));
            match kind {
                FileType::Directory if depth > 0 => {
                    let below = directory.directory(name);
                    is_whole &= below.map_or(true, |below| self.walk(&below, &inner, depth - 1));
                }
                FileType::RegularFile => self.note(directory, name, inner),
                _ => {}
            }
        }
        is_whole
    }

    fn note(&mut self, directory: &Directory, name: &Path, path: PathBuf) {
        let Ok(status) = directory.status(name) else { return };
        if status.st_nlink > 1 {
            let names = self.files.entry((status.st_dev, status.st_ino));
            let names = names.or_insert(Names { found: 0, all: status.st_nlink, first: path.clone() });
            names.found += 1;
            names.first = path.min(std::mem::take(&mut names.first));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    fn limits(names: usize) -> Limits {
        Limits { names, deadline: Instant::now() + Duration::from_secs(60) }
    }

    #[test]
    fn only_files_with_a_name_outside_are_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let (root, outside) = (folder.path().join("root"), folder.path().join("outside"));
        fs::create_dir_all(root.join("deep/er")).expect("a folder");
        fs::write(&outside, "").expect("room");
        fs::write(root.join("own"), "").expect("room");
        fs::hard_link(root.join("own"), root.join("deep/own")).expect("a link");
        assert_eq!(shared_files(&root, limits(100)), Shared { files: 0, first: None, is_whole: true });
        for name in ["deep/er/z", "deep/er/a"] {
            fs::hard_link(&outside, root.join(name)).expect("a link");
        }
        let found = Shared { files: 1, first: Some(root.join("deep/er/a")), is_whole: true };
        assert_eq!(shared_files(&root, limits(100)), found);
        assert!(!shared_files(&root, limits(2)).is_whole, "it says when it has not seen all");
        assert!(!shared_files(&folder.path().join("none"), limits(2)).is_whole);
    }
}
