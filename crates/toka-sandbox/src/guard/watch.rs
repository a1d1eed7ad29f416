//! Tells when something appears that git would obey, so that it is set aside at once and not only when the agent has ended. inotify(7)
//! tells of every name that is made in a directory, in whichever mount namespace.

use std::collections::{BTreeMap, BTreeSet, HashMap};
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
    /// By its path, each directory that is watched.
    directories: HashMap<PathBuf, Watched>,
    /// The path of each watch.
    paths: HashMap<WatchDescriptor, PathBuf>,
    /// What git would obey of each holder, by absolute paths.
    obeyed: HashMap<u64, BTreeSet<PathBuf>>,
}

/// A directory, and for whom.
#[derive(Debug)]
struct Watched {
    watch: WatchDescriptor,
    holders: BTreeSet<u64>,
}

/// The paths at which something has appeared; `None` when that is not known, and it may be any.
pub type Appeared = Option<BTreeSet<PathBuf>>;

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
        Ok(Self { inotify, directories: HashMap::new(), paths: HashMap::new(), obeyed: HashMap::new() })
    }

    /// Watches for `holder` the directories on the way to what git would obey, as far as they are there now. To be called again with
    /// what has appeared, which may be one of them: then only what lies below is looked at. What appeared before the call is told to
    /// nobody.
    ///
    /// # Errors
    /// When the user may watch no more.
    pub fn watch(&mut self, holder: u64, guards: &[Guard], appeared: &Appeared) -> io::Result<()> {
        let mut outcome = Ok(());
        for guard in guards.iter().filter(|guard| !guard.obeyed.is_empty()) {
            let Ok(Some(root)) = guard.open() else { continue };
            let paths = guard.obeyed.iter().map(|path| guard.root.join(path));
            self.obeyed.entry(holder).or_default().extend(paths);
            for path in on_the_way(&guard.obeyed) {
                let absolute = guard.root.join(path);
                let concerns =
                    |appeared: &BTreeSet<PathBuf>| appeared.iter().any(|it| absolute.starts_with(it));
                if !appeared.as_ref().is_none_or(concerns) {
                    continue;
                }
                // A link among them is what has appeared, and gets set aside.
                let Ok(directory) = root.directory(path) else { continue };
                match self.add(&directory) {
                    Ok(Some(watch)) => self.hold(absolute, watch, holder),
                    Ok(None) => {}
                    Err(error) => outcome = Err(error),
                }
            }
        }
        outcome
    }

    /// `None` for a directory that is gone, or not ours and closed.
    fn add(&self, directory: &Directory) -> io::Result<Option<WatchDescriptor>> {
        let mut flags = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_ONLYDIR;
        if !nix::unistd::geteuid().is_root() {
            // A directory that was closed when it appeared is opened again; root sees into it anyhow.
            flags |= AddWatchFlags::IN_ATTRIB;
        }
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

    fn hold(&mut self, path: PathBuf, watch: WatchDescriptor, holder: u64) {
        let watched = self
            .directories
            .entry(path.clone())
            .or_insert_with(|| Watched { watch, holders: BTreeSet::new() });
        watched.holders.insert(holder);
        // Another directory has the path now: that which had it was moved away or removed.
        let former = std::mem::replace(&mut watched.watch, watch);
        self.paths.insert(watch, path);
        if former != watch {
            self.paths.remove(&former);
            let _ = self.inotify.rm_watch(former);
        }
    }

    /// `holder` wants to know no more.
    pub fn release(&mut self, holder: u64) {
        if self.obeyed.remove(&holder).is_none() {
            return;
        }
        let (inotify, paths) = (&self.inotify, &mut self.paths);
        self.directories.retain(|_, watched| {
            watched.holders.remove(&holder);
            if watched.holders.is_empty() {
                paths.remove(&watched.watch);
                // The kernel has removed that of a directory that is gone.
                let _ = inotify.rm_watch(watched.watch);
            }
            !watched.holders.is_empty()
        });
    }

    /// Those for whom something has appeared, of the next few events, and where. Who makes names without end holds up nobody.
    pub fn take(&mut self) -> BTreeMap<u64, Appeared> {
        let mut found: BTreeMap<u64, Appeared> = BTreeMap::new();
        for event in self.inotify.read_events().unwrap_or_default() {
            if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                found.extend(self.obeyed.keys().map(|holder| (*holder, None)));
                continue;
            }
            let Some(directory) = self.paths.get(&event.wd) else { continue };
            let Some(watched) = self.directories.get(directory) else { continue };
            let Some(path) = event.name.map(|name| directory.join(name)) else { continue };
            for holder in &watched.holders {
                if self.obeyed.get(holder).is_some_and(|obeyed| leads_to(&path, obeyed)) {
                    let paths = found.entry(*holder).or_insert_with(|| Some(BTreeSet::new()));
                    paths.as_mut().map(|paths| paths.insert(path.clone()));
                }
            }
        }
        found
    }
}

/// Whether one of the paths is this one or lies below it.
fn leads_to(path: &Path, obeyed: &BTreeSet<PathBuf>) -> bool {
    obeyed.range(path.to_owned()..).next().is_some_and(|first| first.starts_with(path))
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

    /// Who is told, and of which paths.
    fn told(watch: &mut Appearances) -> Vec<(u64, String)> {
        let root = watch.directories.keys().min().cloned().unwrap_or_default();
        let shown = |path: &PathBuf| path.strip_prefix(&root).expect("below").display().to_string();
        let all = |(holder, paths): (u64, Appeared)| {
            (holder, paths.expect("no overflow").iter().map(shown).collect::<Vec<_>>().join(" "))
        };
        watch.take().into_iter().map(all).collect()
    }

    #[test]
    fn directories_that_go_take_their_watch_along() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("a path");
        fs::create_dir_all(root.join(".git/info")).expect("a folder");
        let mut watch = Appearances::new().expect("an instance");
        watch.watch(1, &[guard(&root)], &None).expect("watched");
        let before = watch.directories.len();
        for number in 0..9 {
            fs::rename(root.join(".git/info"), root.join(format!(".git/{number}"))).expect("renamed");
            fs::create_dir(root.join(".git/info")).expect("a folder");
            let appeared = watch.take().remove(&1).expect("it is told");
            watch.watch(1, &[guard(&root)], &appeared).expect("watched");
            fs::write(root.join(".git/info/attributes"), "").expect("room");
            assert_eq!(told(&mut watch), [(1, ".git/info/attributes".to_owned())]);
        }
        assert_eq!((watch.directories.len(), watch.paths.len()), (before, before));
    }

    #[test]
    fn those_who_want_to_know_are_told_of_names_that_matter() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("a path");
        fs::create_dir(root.join(".git")).expect("a folder");
        let mut watch = Appearances::new().expect("an instance");
        for holder in [1, 2] {
            watch.watch(holder, &[guard(&root)], &None).expect("watched");
        }
        fs::write(root.join("toka.yaml"), "").expect("room");
        fs::write(root.join(".git/index.lock"), "").expect("room");
        assert_eq!(told(&mut watch), []);
        fs::write(root.join("x"), "").expect("room");
        fs::rename(root.join("x"), root.join(".git/commondir")).expect("renamed");
        assert_eq!(told(&mut watch), [(1, ".git/commondir".to_owned()), (2, ".git/commondir".to_owned())]);
        watch.release(2);
        // A folder on the way that was not there, and one in its place.
        fs::create_dir(root.join(".git/info")).expect("a folder");
        assert_eq!(told(&mut watch), [(1, ".git/info".to_owned())]);
        watch.watch(1, &[guard(&root)], &None).expect("watched");
        fs::hard_link(root.join(".git/commondir"), root.join(".git/info/attributes")).expect("a link");
        assert_eq!(told(&mut watch), [(1, ".git/info/attributes".to_owned())]);
        fs::rename(root.join(".git/info"), root.join(".git/other")).expect("renamed");
        symlink("/", root.join(".git/info")).expect("a link");
        assert_eq!(told(&mut watch), [(1, ".git/info".to_owned())]);
        watch.release(1);
        assert!(watch.directories.is_empty() && watch.obeyed.is_empty() && watch.paths.is_empty());
        fs::remove_file(root.join(".git/commondir")).expect("ours");
        fs::write(root.join(".git/commondir"), "").expect("room");
        assert_eq!(told(&mut watch), []);
    }
}
