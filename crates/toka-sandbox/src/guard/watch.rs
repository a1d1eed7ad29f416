//! Tells when something appears that git would obey, so that it is set aside at once and not only when the agent has ended. inotify(7)
//! tells of every name that is made in a directory, in whichever mount namespace.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
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

    /// Watches for `holder` the directories on the way to what git would obey, as far as they are there now, and no others. To be
    /// called again when something has appeared: that may be one of them. What appeared before the call is told to nobody.
    ///
    /// # Errors
    /// When the user may watch no more.
    pub fn watch(&mut self, holder: u64, guards: &[Guard]) -> io::Result<()> {
        let mut watched = HashSet::new();
        let mut outcome = Ok(());
        for guard in guards.iter().filter(|guard| !guard.obeyed.is_empty()) {
            let Ok(Some(root)) = guard.open() else { continue };
            let names = self.names.entry(holder).or_default();
            names.extend(guard.obeyed.iter().flat_map(|path| path.iter().map(ToOwned::to_owned)));
            for directory in on_the_way(&guard.obeyed) {
                // A link among them is what has appeared, and gets set aside.
                let Ok(directory) = root.directory(directory) else { continue };
                match self.watch_directory(&directory) {
                    Ok(watch) => watched.extend(watch),
                    Err(error) => outcome = Err(error),
                }
            }
        }
        for watch in &watched {
            self.directories.entry(*watch).or_default().insert(holder);
        }
        // Those that were moved away or replaced.
        self.forget(|watch, of| *of == holder && !watched.contains(watch));
        outcome
    }

    /// `None` for a directory that is gone, or not ours and closed.
    fn watch_directory(&self, directory: &Directory) -> io::Result<Option<WatchDescriptor>> {
        let flags = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_ONLYDIR;
        let path = format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd());
        let mut added = self.inotify.add_watch(path.as_str(), flags);
        if added == Err(Errno::EACCES) && directory.open_to_its_owner().is_ok() {
            added = self.inotify.add_watch(path.as_str(), flags);
        }
        match added {
            Ok(watch) => Ok(Some(watch)),
            Err(Errno::EACCES | Errno::ENOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// `holder` wants to know no more.
    pub fn release(&mut self, holder: u64) {
        if self.names.remove(&holder).is_some() {
            self.forget(|_, of| *of == holder);
        }
    }

    /// Takes away holders of directories, and the watches that nobody holds.
    fn forget(&mut self, is_over: impl Fn(&WatchDescriptor, &u64) -> bool) {
        self.directories.retain(|watch, holders| {
            holders.retain(|holder| !is_over(watch, holder));
            if holders.is_empty() {
                // The kernel has removed that of a directory that is gone.
                let _ = self.inotify.rm_watch(*watch);
            }
            !holders.is_empty()
        });
    }

    /// Those for whom something has appeared, of the next few events, with the names; `None` for all of them. Who makes names without
    /// end holds up nobody.
    pub fn take(&mut self) -> BTreeMap<u64, Option<BTreeSet<OsString>>> {
        let mut found: BTreeMap<u64, Option<BTreeSet<OsString>>> = BTreeMap::new();
        for event in self.inotify.read_events().unwrap_or_default() {
            if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                found.extend(self.names.keys().map(|holder| (*holder, None)));
            } else if event.mask.contains(AddWatchFlags::IN_IGNORED) {
                self.directories.remove(&event.wd);
            } else if let (Some(holders), Some(name)) = (self.directories.get(&event.wd), &event.name) {
                let wanted = |holder: &&u64| self.names.get(holder).is_some_and(|it| it.contains(name));
                for holder in holders.iter().filter(wanted) {
                    let names = found.entry(*holder).or_insert_with(|| Some(BTreeSet::new()));
                    names.as_mut().map(|names| names.insert(name.clone()));
                }
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

    /// Who is told, and of which names.
    fn told(watch: &mut Appearances) -> Vec<(u64, String)> {
        let all = |(holder, names): (u64, Option<BTreeSet<OsString>>)| {
            let names = names.expect("no overflow");
            (holder, names.iter().map(|name| name.to_string_lossy()).collect::<Vec<_>>().join(" "))
        };
        watch.take().into_iter().map(all).collect()
    }

    #[test]
    fn directories_that_go_take_their_watch_along() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("a path");
        fs::create_dir_all(root.join(".git/info")).expect("a folder");
        let mut watch = Appearances::new().expect("an instance");
        watch.watch(1, &[guard(&root)]).expect("watched");
        let before = watch.directories.len();
        for number in 0..9 {
            fs::rename(root.join(".git/info"), root.join(format!(".git/{number}"))).expect("renamed");
            fs::create_dir(root.join(".git/info")).expect("a folder");
            watch.take();
            watch.watch(1, &[guard(&root)]).expect("watched");
        }
        assert_eq!(watch.directories.len(), before);
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
        assert_eq!(told(&mut watch), []);
        fs::write(root.join("x"), "").expect("room");
        fs::rename(root.join("x"), root.join(".git/commondir")).expect("renamed");
        assert_eq!(told(&mut watch), [(1, "commondir".to_owned()), (2, "commondir".to_owned())]);
        watch.release(2);
        // A folder on the way that was not there, and one in its place.
        fs::create_dir(root.join(".git/info")).expect("a folder");
        assert_eq!(told(&mut watch), [(1, "info".to_owned())]);
        watch.watch(1, &[guard(&root)]).expect("watched");
        fs::hard_link(root.join(".git/commondir"), root.join(".git/info/attributes")).expect("a link");
        assert_eq!(told(&mut watch), [(1, "attributes".to_owned())]);
        fs::rename(root.join(".git/info"), root.join(".git/other")).expect("renamed");
        symlink("/", root.join(".git/info")).expect("a link");
        assert_eq!(told(&mut watch), [(1, "info".to_owned())]);
        watch.release(1);
        assert!(watch.directories.is_empty() && watch.names.is_empty());
        fs::remove_file(root.join(".git/commondir")).expect("ours");
        fs::write(root.join(".git/commondir"), "").expect("room");
        assert_eq!(told(&mut watch), []);
    }
}
