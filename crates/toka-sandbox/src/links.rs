//! The links on the way to a path that decides about rights. Who can replace one of them decides what the path leads to, so each
//! is protected as the path itself is.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// Most links that are followed, as the kernel does (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// The links on the way to an absolute path, each called by a path without links above it, and where the path leads in the end,
/// whether or not something is there.
pub(crate) fn on_the_way(path: &Path) -> BTreeSet<PathBuf> {
    let (mut found, mut at) = (BTreeSet::new(), PathBuf::from("/"));
    let mut rest: VecDeque<OsString> = parts(path).collect();
    let mut followed = 0;
    while let Some(part) = rest.pop_front() {
        if part == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&part);
        let Some(target) = std::fs::read_link(&next).ok().filter(|_| followed < MOST_LINKS) else {
            at = next;
            continue;
        };
        found.insert(next);
        followed += 1;
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
        rest = parts(&target).chain(rest).collect();
    }
    found.insert(at);
    found
}

/// What a path consists of, `..` among it.
fn parts(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn each_link_and_the_end_are_found_and_a_circle_ends() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("a path");
        fs::create_dir_all(root.join("real/deep")).expect("a folder");
        symlink("real", root.join("one")).expect("a link");
        symlink("../one/deep/../not-there", root.join("real/two")).expect("a link");
        symlink("circle", root.join("circle")).expect("a link");
        let shown = |path: &str| -> Vec<String> {
            let found = on_the_way(&root.join(path));
            let below = |path: &PathBuf| path.strip_prefix(&root).expect("below").display().to_string();
            found.iter().map(below).collect()
        };
        assert_eq!(shown("real/deep/x"), ["real/deep/x"]);
        assert_eq!(shown("one/two/x"), ["one", "real/not-there/x", "real/two"]);
        assert_eq!(shown("circle"), ["circle"]);
    }
}
