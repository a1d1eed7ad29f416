//! Tells when something appears that git would obey, so that it is set aside at once and not only when the agent has ended. inotify(7)
//! tells of every name that is made in a directory, in whichever mount namespace.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use toka_files::Directory;

use super::Guard;

/// One descriptor, whatever the number of directories and of those who want to know.
#[derive(Debug)]
pub struct Appearances {
    inotify: Inotify,
    /// Who wants to know what appears in a directory.
    directories: HashMap<WatchDescriptor, BTreeSet<u64>>,
    /// The names that each wants to know of, in any of its directories.
    names: HashMap<u64, BTreeSet<OsString>>,
}

impl AsFd for Appearances {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

impl Appearances {
    /// Nothing is watched yet.
    ///
    /// # Errors
    /// When the process has no descriptor left, or the user no inotify instance.
    pub fn new() -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        Ok(Self { inotify, directories: HashMap::new(), names: HashMap::new() })
    }

    /// Watches for `holder` the directories on the way to what git would obey, as far as they are there now. To be called again
    /// when something has appeared: that may be one of them. What appeared before the call is told to nobody.
    ///
    /// # Errors
    /// When the user may watch no more.
    pub fn watch(&mut self, holder: u64, guards: &[Guard]) -> io::Result<()> {
        for guard in guards.iter().filter(|guard| !guard.obeyed.is_empty()) {
            let Ok(Some(root)) = guard.open() else { continue };
            let names = self.names.entry(holder).or_default();
            names.extend(guard.obeyed.iter().flat_map(|path| path.iter().map(ToOwned::to_owned)));
            for directory in on_the_way(&guard.obeyed) {
                // A link among them is what has appeared, and gets set aside.
                let Ok(directory) = root.directory(directory) else { continue };
                self.watch_directory(holder, &directory)?;
            }
        }
        Ok(())
    }

    fn watch_directory(&mut self, holder: u64, directory: &Directory) -> io::Result<()> {
        let flags = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_ONLYDIR;
        let path = format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd());
        match self.inotify.add_watch(path.as_str(), flags) {
            Ok(watch) => drop(self.directories.entry(watch).or_default().insert(holder)),
            // One that we may not list, or that is gone.
            Err(Errno::EACCES | Errno::ENOENT) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// `holder` wants to know no more.
    pub fn release(&mut self, holder: u64) {
        if self.names.remove(&holder).is_none() {
            return;
        }
        self.directories.retain(|watch, holders| {
            holders.remove(&holder);
            if holders.is_empty() {
                // The kernel has removed that of a directory that is gone.
                let _ = self.inotify.rm_watch(*watch);
            }
            !holders.is_empty()
        });
    }

    /// Those for whom something has appeared, of the next few events: who makes names without end holds up nobody.
    pub fn take(&mut self) -> BTreeSet<u64> {
        let mut found = BTreeSet::new();
        for event in self.inotify.read_events().unwrap_or_default() {
            if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                found.extend(self.names.keys());
            } else if event.mask.contains(AddWatchFlags::IN_IGNORED) {
                self.directories.remove(&event.wd);
            } else if let (Some(holders), Some(name)) = (self.directories.get(&event.wd), &event.name) {
                let wanted = |holder: &&u64| self.names.get(holder).is_some_and(|it| it.contains(name));
                found.extend(holders.iter().filter(wanted));
            }
        }
        found
    }
}

/// The directories that lie on the way to paths, the paths themselves not among them.
fn on_the_way(paths: &[PathBuf]) -> BTreeSet<&Path> {
    paths.iter().flat_map(|path| path.ancestors().skip(1)).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn guard(root: &Path) -> Guard {
        let obeyed = [".git/commondir", ".git/info/attributes"].map(PathBuf::from).into();
        let absent = vec!["toka.yaml".into()];
        Guard { root: root.to_owned(), absent, obeyed, workstreams: None, worktrees: Vec::new() }
    }

    #[test]
    fn those_who_want_to_know_are_told_of_names_that_matter() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("a path");
        fs::create_dir(root.join(".git")).expect("a folder");
        let mut watch = Appearances::new().expect("an instance");
        for holder in [1, 2] {
            watch.watch(holder, &[guard(&root)]).expect("watched");
        }
        fs::write(root.join("toka.yaml"), "").expect("room");
        fs::write(root.join(".git/index.lock"), "").expect("room");
        assert_eq!(watch.take(), BTreeSet::new());
        fs::write(root.join("x"), "").expect("room");
        fs::rename(root.join("x"), root.join(".git/commondir")).expect("renamed");
        assert_eq!(watch.take(), BTreeSet::from([1, 2]));
        watch.release(2);
        // A folder on the way that was not there, and one in its place.
        fs::create_dir(root.join(".git/info")).expect("a folder");
        assert_eq!(watch.take(), BTreeSet::from([1]));
        watch.watch(1, &[guard(&root)]).expect("watched");
        fs::hard_link(root.join(".git/commondir"), root.join(".git/info/attributes")).expect("a link");
        assert_eq!(watch.take(), BTreeSet::from([1]));
        fs::rename(root.join(".git/info"), root.join(".git/other")).expect("renamed");
        symlink("/", root.join(".git/info")).expect("a link");
        assert_eq!(watch.take(), BTreeSet::from([1]));
        watch.release(1);
        assert!(watch.directories.is_empty() && watch.names.is_empty());
        fs::remove_file(root.join(".git/commondir")).expect("ours");
        fs::write(root.join(".git/commondir"), "").expect("room");
        assert_eq!(watch.take(), BTreeSet::new());
    }
}
