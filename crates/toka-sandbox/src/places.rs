//! Places: the empty folders and files of a view that mounts are attached to.
//!
//! No link is followed on the way to one, so that nobody can lead it elsewhere.

use std::cell::RefCell;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat, mknodat};

use crate::sys;

/// What kind of file it is.
pub(crate) fn kind_of(file: impl AsFd) -> nix::Result<SFlag> {
    Ok(SFlag::from_bits_truncate(fstat(file.as_fd())?.st_mode) & SFlag::S_IFMT)
}

/// What a mount is attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Folder,
    File,
}

impl Place {
    /// The place for a file of this kind.
    pub(crate) fn of(kind: SFlag) -> Self {
        if kind == SFlag::S_IFDIR { Self::Folder } else { Self::File }
    }

    /// The place for what `path` leads to.
    pub(crate) fn like(path: &Path) -> Self {
        if path.is_dir() { Self::Folder } else { Self::File }
    }
}

/// Where the places of one tree are made. It remembers the folders that it came through last: the places of an agent lie
/// side by side, and those of the next one beside them.
#[derive(Debug)]
pub(crate) struct Places {
    root: OwnedFd,
    recent: RefCell<Vec<(PathBuf, Rc<OwnedFd>)>>,
}

impl Places {
    /// Folders that are remembered: a few levels, of which each holds a descriptor.
    const RECENT: usize = 8;

    /// Those below `root`. Where others write to it, folders that are remembered may be moved meanwhile: then places are made in them
    /// where they are, and nothing else.
    pub(crate) fn below(root: OwnedFd) -> Self {
        Self { root, recent: RefCell::default() }
    }

    /// Makes a place at `path`, with the folders on the way, unless something is there.
    ///
    /// # Errors
    /// As mkdirat(2) and mknodat(2); `ELOOP` or `ENOTDIR` where a link is on the way.
    pub(crate) fn make(&self, path: &Path, place: Place) -> io::Result<()> {
        let path = plain(path);
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
        Ok(make_entry(self.folder(parent)?.as_fd(), name, place)?)
    }

    /// Whether the places next to `path` were made here lately, so that one more call makes this one, or says that it is there.
    pub(crate) fn is_near(&self, path: &Path) -> bool {
        plain(path).parent().is_some_and(|parent| self.remembered(parent).is_some())
    }

    /// Whether something is at `path`, where links lead nowhere else than within the tree.
    pub(crate) fn holds(&self, path: &Path) -> bool {
        sys::c_path(path).is_ok_and(|path| sys::open_in_root(self.root.as_fd(), &path).is_ok())
    }

    fn remembered(&self, path: &Path) -> Option<Rc<OwnedFd>> {
        let mut recent = self.recent.borrow_mut();
        let at = recent.iter().position(|(known, _)| known == path)?;
        recent[at..].rotate_left(1);
        recent.last().map(|(_, folder)| Rc::clone(folder))
    }

    /// Enters the folder at `path`. Mostly only the last of those on the way are missing.
    fn folder(&self, path: &Path) -> io::Result<Rc<OwnedFd>> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(Rc::new(self.root.try_clone()?));
        };
        if let Some(folder) = self.remembered(path) {
            return Ok(folder);
        }
        let known = if self.remembered(parent).is_some() { None } else { self.open(path)? };
        let folder = match known {
            Some(folder) => folder,
            None => enter_folder(self.folder(parent)?.as_fd(), name)?,
        };
        let folder = Rc::new(folder);
        let mut recent = self.recent.borrow_mut();
        if recent.len() == Self::RECENT {
            recent.remove(0);
        }
        recent.push((path.to_owned(), Rc::clone(&folder)));
        Ok(folder)
    }

    fn open(&self, path: &Path) -> io::Result<Option<OwnedFd>> {
        let path: CString = sys::c_path(path)?;
        match sys::open_below(self.root.as_fd(), &path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        }
    }
}

/// The names of a path, without a root and without dots.
fn plain(path: &Path) -> PathBuf {
    path.components().filter(|part| matches!(part, Component::Normal(_))).collect()
}

fn make_entry(at: BorrowedFd<'_>, name: &OsStr, place: Place) -> nix::Result<()> {
    let made = match place {
        Place::Folder => mkdirat(at, name, Mode::from_bits_truncate(0o755)),
        Place::File => mknodat(at, name, SFlag::S_IFREG, Mode::from_bits_truncate(0o644), 0),
    };
    match made {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(error) => Err(error),
    }
}

fn enter_folder(at: BorrowedFd<'_>, name: &OsStr) -> nix::Result<OwnedFd> {
    make_entry(at, name, Place::Folder)?;
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(at, name, flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn places(folder: &Path) -> Places {
        let root = nix::fcntl::open(folder, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty());
        Places::below(root.expect("a folder"))
    }

    #[test]
    fn places_are_made_once_with_the_folders_on_the_way() {
        let folder = tempfile::tempdir().expect("a folder");
        let places = places(folder.path());
        for _ in 0..2 {
            for agent in 0..20 {
                for (name, place) in [("home", Place::Folder), ("key", Place::File)] {
                    let path = PathBuf::from(format!("/var/lib/agents/{agent}/{name}"));
                    places.make(&path, place).expect("a place");
                    assert!(places.is_near(&path));
                    let made = folder.path().join(path.strip_prefix("/").expect("absolute"));
                    assert_eq!(Place::like(&made), place, "{}", made.display());
                }
            }
        }
        assert!(!places.is_near(Path::new("/var/lib/agents/0/home")), "it remembers the last ones only");
        places.make(Path::new("/"), Place::Folder).expect("the root is there");
    }

    #[test]
    fn no_link_is_followed() {
        let (folder, other) =
            (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        symlink(other.path(), folder.path().join("out")).expect("a link");
        let places = places(folder.path());
        for path in ["out/place", "out/deeper/place"] {
            places.make(Path::new(path), Place::Folder).expect_err("a link is on the way");
        }
        assert_eq!(fs::read_dir(other.path()).expect("a folder").count(), 0);
    }
}
