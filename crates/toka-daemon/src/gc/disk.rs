//! Folders that may be removed: what is ours and no link, and how much it takes.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Bytes of a block, as the kernel counts them (stat(2)).
const BLOCK: u64 = 512;

/// The folder if it is one and ours; `None` when nothing is there.
///
/// # Errors
/// When it is a link, no folder, or another user's.
pub(super) fn own_folder(path: &Path) -> io::Result<Option<&Path>> {
    let metadata = match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        found => found?,
    };
    own(&metadata).map_err(io::Error::other)?;
    Ok(Some(path))
}

/// Whether it is a folder that was an agent's: ours, or given to the user that it ran as.
pub(super) fn own_or_given(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir())
}

fn own(metadata: &Metadata) -> Result<(), String> {
    let us = nix::unistd::geteuid().as_raw();
    match metadata {
        link if link.is_symlink() => Err("it is a symbolic link, which is not followed".to_owned()),
        other if !other.is_dir() => Err("it is no folder".to_owned()),
        other if other.uid() != us => {
            Err(format!("it belongs to the user {}: only that one may tidy it up", other.uid()))
        }
        _ => Ok(()),
    }
}

/// What is in a folder, by name; nothing when it cannot be read.
pub(super) fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    found.sort();
    found
}

/// What a tree takes on disk, in bytes. Links are not followed; what cannot be looked into counts for nothing.
pub(super) fn size(path: &Path) -> u64 {
    let Ok(metadata) = path.symlink_metadata() else { return 0 };
    let own = metadata.blocks().saturating_mul(BLOCK);
    if !metadata.is_dir() {
        return own;
    }
    entries(path).iter().map(|entry| size(entry)).fold(own, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_folder_of_ours_is_one() {
        let root = tempfile::tempdir().expect("a folder");
        let (file, link) = (root.path().join("file"), root.path().join("link"));
        fs::write(&file, "x").expect("room");
        std::os::unix::fs::symlink(root.path(), &link).expect("a link");
        assert!(own_folder(root.path()).expect("ours").is_some());
        assert!(own_folder(&root.path().join("none")).expect("nothing").is_none());
        for bad in [file, link] {
            own_folder(&bad).expect_err("no folder of ours");
        }
    }

    #[test]
    fn what_links_lead_to_does_not_count() {
        let root = tempfile::tempdir().expect("a folder");
        let (big, tree) = (root.path().join("big"), root.path().join("tree"));
        fs::write(&big, vec![1; 1 << 20]).expect("room");
        fs::create_dir(&tree).expect("room");
        std::os::unix::fs::symlink(&big, tree.join("link")).expect("a link");
        assert!(size(&tree) < 1 << 20);
    }
}
