//! Removing what an agent left in a folder of its own. It may have left anything on purpose: more levels than a process may
//! have descriptors, paths longer than the kernel takes, links to elsewhere, folders that it closed to itself. So a tree
//! is gone through without recursion, with a handful of descriptors however deep it is, each step taken from a descriptor
//! that is held, and no link followed.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RawDir, SeekFrom, StatxAttributes, StatxFlags, chmod, openat, seek,
    statx, unlinkat,
};
use rustix::io::Errno;

/// Names of folders that are kept at once for each level on the way: a tree may have many levels, and a level many folders.
const CHUNK: usize = 64;
/// Room for the names that one call lists, in bytes.
const LISTED: usize = 4096;

/// Removes everything in `folder`, which stays. Whoever still makes files in it keeps this going.
///
/// # Errors
/// When it is no folder, a link among them, or something in it cannot be removed; a mount in it is not entered, and is such.
pub fn empty(folder: &Path) -> io::Result<()> {
    Descent::begin(folder)?.empty()?;
    Ok(())
}

/// Removes `path` with all that is in it, whatever it is; a link goes, and what it leads to stays.
///
/// # Errors
/// When something cannot be removed, or nothing is there.
pub fn remove(path: &Path) -> io::Result<()> {
    if path.symlink_metadata()?.is_dir() {
        empty(path)?;
        return std::fs::remove_dir(path);
    }
    std::fs::remove_file(path)
}

/// Levels whose folders stay open while those below are gone through. Of deeper ones only the last is: the others are found again
/// by `..`.
const HELD: usize = 4;

/// A way down into a tree.
struct Descent {
    /// Where it is last; that level is open.
    levels: Vec<Level>,
}

/// A folder on the way.
struct Level {
    folder: Option<OwnedFd>,
    id: Id,
    /// Its name in the one above.
    name: CString,
    /// Folders in it that are still to be removed, and are known.
    todo: Vec<CString>,
}

type Id = (u64, u64);

impl Descent {
    fn begin(folder: &Path) -> Result<Self, Errno> {
        let name = CString::new(folder.as_os_str().as_encoded_bytes()).map_err(|_| Errno::INVAL)?;
        // It may be a mount of its own.
        let found = Found::of(find(&CWD, &name)?)?;
        Ok(Self { levels: vec![Level::new(found, name)?] })
    }

    fn empty(mut self) -> Result<(), Errno> {
        loop {
            let depth = self.levels.len();
            let Some(level) = self.levels.last_mut() else { return Ok(()) };
            let Some(at) = &level.folder else { return Err(Errno::BADF) };
            if let Some(name) = level.todo.pop() {
                if let Some(inner) = enter(at, name)? {
                    if depth > HELD {
                        level.folder = None;
                    }
                    self.levels.push(inner);
                }
                continue;
            }
            match clear(at)? {
                Left::Folders(todo) => level.todo = todo,
                // That it is removed shows whether it is empty; of the one that stays only another look does.
                Left::Unseen if depth == 1 => {}
                Left::Unseen | Left::Nothing => self.up()?,
            }
        }
    }

    /// Leaves a folder in which nothing is left, and removes it, unless it is the one that stays.
    fn up(&mut self) -> Result<(), Errno> {
        let Some(done) = self.levels.pop() else { return Ok(()) };
        let Some(above) = self.levels.last_mut() else { return Ok(()) };
        let folder = match (above.folder.take(), done.folder) {
            (Some(held), _) => held,
            (None, Some(below)) => {
                let found = Found::of(find(&below, c"..")?)?;
                if found.id != above.id {
                    // It was moved meanwhile: whatever is there is not ours to open up, nor to remove anything from.
                    return Err(Errno::STALE);
                }
                found.open_up()?
            }
            (None, None) => return Err(Errno::BADF),
        };
        let removed = unlinkat(&folder, &done.name, AtFlags::REMOVEDIR);
        above.folder = Some(folder);
        match removed {
            // Then somebody has put something into it, and the next look finds it again.
            Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::NOTDIR) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Level {
    fn new(found: Found, name: CString) -> Result<Self, Errno> {
        let id = found.id;
        Ok(Self { folder: Some(found.open_up()?), id, name, todo: Vec::new() })
    }
}

/// The next level down; none when something else has the name by now, or nothing: the next look finds what it is.
fn enter(above: &OwnedFd, name: CString) -> Result<Option<Level>, Errno> {
    let inner = match find(above, &name) {
        Ok(inner) => Found::of(inner)?,
        Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error),
    };
    if inner.is_mount_in(above)? {
        return Err(Errno::BUSY);
    }
    Level::new(inner, name).map(Some)
}

/// A folder that was found, and to which nothing was done yet.
struct Found {
    folder: OwnedFd,
    id: Id,
    mode: Mode,
    /// Whether it is the root of a mount; kernels before Linux 5.8 do not say.
    is_mount: Option<bool>,
}

impl Found {
    fn of(folder: OwnedFd) -> Result<Self, Errno> {
        let found = statx(&folder, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
        let told = found.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT);
        Ok(Self {
            folder,
            id: (rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor), found.stx_ino),
            mode: Mode::from_raw_mode(found.stx_mode.into()),
            is_mount: told.then(|| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        })
    }

    fn is_mount_in(&self, above: &OwnedFd) -> Result<bool, Errno> {
        match self.is_mount {
            Some(is_mount) => Ok(is_mount),
            None => Ok(mount_id(&self.folder)? != mount_id(above)?),
        }
    }

    /// Opens it, and opens it up if it is ours and closed.
    fn open_up(self) -> Result<OwnedFd, Errno> {
        if !self.mode.contains(Mode::RWXU) {
            // By way of the descriptor, since a name could be something else by now. What it is needed for fails otherwise, and
            // is told then.
            let _ = chmod(format!("/proc/self/fd/{}", self.folder.as_raw_fd()), Mode::RWXU);
        }
        openat(&self.folder, c".", FOLDER, Mode::empty())
    }
}

/// What is left in a folder.
enum Left {
    /// Nothing: it was empty.
    Nothing,
    /// Nothing that was seen.
    Unseen,
    /// Some of the folders in it, which are not empty; everything else that was seen is removed.
    Folders(Vec<CString>),
}

/// Removes what is in a folder and is none itself, or an empty one.
fn clear(folder: &OwnedFd) -> Result<Left, Errno> {
    let (mut folders, mut is_empty) = (Vec::new(), true);
    seek(folder, SeekFrom::Start(0))?;
    let mut buffer = [MaybeUninit::uninit(); LISTED];
    let mut entries = RawDir::new(folder, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = match entry {
            // Somebody removed the folder.
            Err(Errno::NOENT) => break,
            entry => entry?,
        };
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        is_empty = false;
        let is_folder = entry.file_type() == FileType::Directory
            || match unlinkat(folder, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => false,
                // Not all file systems say in a list what something is.
                Err(Errno::ISDIR) => true,
                Err(error) => return Err(error),
            };
        if is_folder && !is_removed(folder, name) {
            folders.push(name.to_owned());
        }
        if folders.len() == CHUNK {
            break;
        }
    }
    Ok(match (is_empty, folders.is_empty()) {
        (true, _) => Left::Nothing,
        (false, true) => Left::Unseen,
        (false, false) => Left::Folders(folders),
    })
}

/// Removes a folder if nothing is in it. False when it has to be looked into.
fn is_removed(above: &OwnedFd, name: &CStr) -> bool {
    // What cannot be removed for another reason fails in the same way once it has been looked into.
    matches!(unlinkat(above, name, AtFlags::REMOVEDIR), Ok(()) | Err(Errno::NOENT))
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

/// Finds a folder, and does nothing to it.
fn find(above: &impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    openat(above, name, FOLDER | OFlags::NOFOLLOW | OFlags::PATH, Mode::empty())
}

/// The number of the mount that a descriptor is on (proc_pid_fdinfo(5)).
fn mount_id(folder: &OwnedFd) -> Result<u64, Errno> {
    let path = format!("/proc/self/fdinfo/{}", folder.as_raw_fd());
    let info = std::fs::read_to_string(path).map_err(|_| Errno::NOENT)?;
    let number = info.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    number.ok_or(Errno::OPNOTSUPP)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
    use std::os::unix::process::CommandExt as _;
    use std::process::Command;
    use std::sync::atomic::{AtomicBool, Ordering};

    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    use nix::unistd::{Gid, Uid, geteuid, setresgid, setresuid};

    use super::*;

    const LEVELS: usize = 5000;
    /// Set for a process that is to remove a tree: which.
    const TREE: &str = "TOKA_TEST_TREE";
    /// Who owns nothing on any host.
    const NOBODY: u32 = 65_534;

    /// Runs one test of this file again, in a process of its own that gets `tree`; what that does is up to the test.
    fn alone(test: &str, tree: &Path) {
        let mut child = Command::new(std::env::current_exe().expect("a program"));
        child.args(["--exact", &format!("remove_tree::tests::{test}"), "--nocapture"]).env(TREE, tree);
        let said = child.arg0("toka-test-tree").output().expect("it starts");
        assert!(said.status.success(), "{said:?}");
    }

    /// By one step at a time: the whole path is longer than the kernel takes.
    fn dig(top: &Path, name: &str, levels: usize) -> OwnedFd {
        let top = CString::new(top.as_os_str().as_encoded_bytes()).expect("a path");
        let enter = |above: &dyn AsFd, name: &CStr| Found::of(find(&above.as_fd(), name)?)?.open_up();
        let mut at = enter(&CWD, &top).expect("ours");
        let name = CString::new(name).expect("a name");
        for _ in 0..levels {
            rustix::fs::mkdirat(&at, &name, Mode::RWXU).expect("room");
            at = enter(&at, &name).expect("ours");
        }
        at
    }

    #[test]
    fn a_tree_deeper_than_descriptors_and_paths_is_removed() {
        if let Some(tree) = std::env::var_os(TREE) {
            let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
            let open = fs::read_dir("/proc/self/fd").expect("proc").count() as u64;
            setrlimit(Resource::RLIMIT_NOFILE, open + 8, hard).expect("a lower one");
            return empty(Path::new(&tree)).expect("emptied");
        }
        let root = tempfile::tempdir().expect("a folder");
        let deepest = dig(root.path(), &"n".repeat(100), LEVELS);
        for name in ["file", "other"] {
            openat(&deepest, name, OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).expect("room");
        }
        rustix::fs::symlinkat("/", &deepest, "link").expect("room");
        drop(deepest);
        alone("a_tree_deeper_than_descriptors_and_paths_is_removed", root.path());
        assert_eq!(root.path().read_dir().expect("there").count(), 0);
    }

    #[test]
    fn an_ordinary_user_removes_what_it_closed_to_itself() {
        if let Some(tree) = std::env::var_os(TREE) {
            if geteuid().is_root() {
                let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
                setresgid(group, group, group).and_then(|()| setresuid(user, user, user)).expect("root may");
                // As one is that began as that user: else its descriptors are root's to see.
                nix::sys::prctl::set_dumpable(true).expect("ours");
            }
            return empty(Path::new(&tree)).expect("emptied");
        }
        let root = tempfile::tempdir().expect("a folder");
        let tree = root.path().join("tree");
        let folders = ["a/b/c", "a/b/d", "e"].map(|name| tree.join(name));
        for folder in &folders {
            fs::create_dir_all(folder).expect("room");
            fs::write(folder.join("file"), "").expect("room");
        }
        let all = ["a/b/c", "a/b/d", "a/b", "a", "e", ""].map(|name| tree.join(name));
        for (folder, mode) in all.iter().zip([0o000, 0o500, 0o000, 0o300, 0o400, 0o000]) {
            if geteuid().is_root() {
                chown(folder, Some(NOBODY), Some(NOBODY)).expect("root may");
            }
            fs::set_permissions(folder, Permissions::from_mode(mode)).expect("ours");
        }
        fs::set_permissions(root.path(), Permissions::from_mode(0o755)).expect("ours");
        alone("an_ordinary_user_removes_what_it_closed_to_itself", &tree);
        assert_eq!(tree.read_dir().expect("open again").count(), 0);
    }

    #[test]
    fn links_go_and_what_they_lead_to_stays() {
        let root = tempfile::tempdir().expect("a folder");
        let (tree, precious) = (root.path().join("tree"), root.path().join("precious"));
        fs::create_dir_all(tree.join("deep")).expect("room");
        fs::create_dir(&precious).expect("room");
        fs::write(precious.join("file"), "kept").expect("room");
        for link in ["link", "deep/link", "deep/dangling"] {
            symlink(&precious, tree.join(link)).expect("room");
        }
        fs::remove_file(tree.join("deep/dangling")).expect("ours");
        symlink("nowhere", tree.join("deep/dangling")).expect("room");
        let link = root.path().join("top");
        symlink(&precious, &link).expect("room");
        empty(&link).expect_err("a link is no folder");
        remove(&link).expect("a link can go");
        remove(&tree).expect("removed");
        remove(&tree).expect_err("nothing is there");
        assert!(precious.join("file").exists() && !tree.exists());
    }

    #[test]
    fn more_folders_than_are_remembered_at_once() {
        let root = tempfile::tempdir().expect("a folder");
        for number in 0..3 * CHUNK + 1 {
            let folder = root.path().join(format!("folder-{number}"));
            fs::create_dir(&folder).expect("room");
            fs::write(folder.join("file"), "").expect("room");
            fs::write(root.path().join(format!("file-{number}")), "").expect("room");
        }
        empty(root.path()).expect("emptied");
        assert_eq!(root.path().read_dir().expect("there").count(), 0);
    }

    #[test]
    fn what_is_made_and_moved_meanwhile_stops_it_at_most_and_leads_it_nowhere() {
        let root = tempfile::tempdir().expect("a folder");
        let (tree, outside) = (root.path().join("tree"), root.path().join("outside"));
        fs::create_dir(&tree).expect("room");
        fs::create_dir(&outside).expect("room");
        fs::write(outside.join("file"), "kept").expect("room");
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // What fails was removed by the other.
                while !stop.load(Ordering::Relaxed) {
                    let _ = fs::create_dir_all(tree.join("a/b/c"));
                    let _ = fs::write(tree.join("a/b/file"), "");
                    let _ = symlink(&outside, tree.join("a/link"));
                    let _ = fs::rename(tree.join("a/b"), tree.join("b"));
                    let _ = fs::remove_dir(tree.join("b/c"));
                    let _ = symlink(&outside, tree.join("b/c"));
                    let _ = fs::rename(tree.join("b"), root.path().join("out"));
                    let _ = remove(&root.path().join("out"));
                }
            });
            for _ in 0..200 {
                let _ = empty(&tree);
            }
            stop.store(true, Ordering::Relaxed);
        });
        empty(&tree).expect("it stands still");
        assert_eq!(tree.read_dir().expect("there").count(), 0);
        assert!(outside.join("file").exists());
    }

    #[test]
    fn a_folder_that_was_moved_elsewhere_leads_to_nothing_there() {
        let root = tempfile::tempdir().expect("a folder");
        let (tree, other) = (root.path().join("tree"), root.path().join("other"));
        fs::create_dir_all(tree.join("a")).expect("room");
        fs::create_dir(&other).expect("room");
        let mut descent = Descent::begin(&tree).expect("ours");
        let inner = descent.levels[0].folder.as_ref().map(|at| enter(at, c"a".to_owned()));
        descent.levels.push(inner.expect("open").expect("it can be entered").expect("it is there"));
        // As of a folder that is too deep for it to be held.
        descent.levels[0].folder = None;
        fs::rename(tree.join("a"), other.join("a")).expect("ours");
        fs::set_permissions(&other, Permissions::from_mode(0o500)).expect("ours");
        assert_eq!(descent.up(), Err(Errno::STALE));
        assert_eq!(other.metadata().expect("there").mode() & 0o777, 0o500);
        assert!(other.join("a").exists());
        fs::set_permissions(&other, Permissions::from_mode(0o700)).expect("ours");
    }

    #[test]
    fn a_folder_that_is_held_is_left_where_it_is() {
        let root = tempfile::tempdir().expect("a folder");
        let (tree, other) = (root.path().join("tree"), root.path().join("other"));
        fs::create_dir_all(tree.join("a/b")).expect("room");
        fs::create_dir(&other).expect("room");
        let mut descent = Descent::begin(&tree).expect("ours");
        for name in [c"a", c"b"] {
            let inner = descent.levels.last().and_then(|level| level.folder.as_ref());
            let inner = enter(inner.expect("open"), name.to_owned()).expect("it can be entered");
            descent.levels.push(inner.expect("it is there"));
        }
        fs::rename(tree.join("a"), other.join("a")).expect("ours");
        descent.empty().expect("what was moved has left the tree");
        assert_eq!(tree.read_dir().expect("there").count(), 0);
        assert!(other.join("a").exists(), "its name is another's");
    }

    #[test]
    fn a_mount_is_not_entered() {
        if !geteuid().is_root() {
            eprintln!("skipped: only root can mount");
            return;
        }
        if let Some(tree) = std::env::var_os(TREE) {
            let tree = Path::new(&tree);
            if let Err(error) = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS) {
                eprintln!("skipped: no view of the files of our own: {error}");
                return;
            }
            let (none, flags) =
                (None::<&Path>, nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE);
            nix::mount::mount(none, "/", none, flags, none).expect("our own view");
            let (from, to) = (tree.join("precious"), tree.join("tree/a/mount"));
            nix::mount::mount(Some(&from), &to, none, nix::mount::MsFlags::MS_BIND, none).expect("mounted");
            let error = empty(&tree.join("tree")).expect_err("something is mounted in it");
            assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
            assert_eq!(to.metadata().expect("there").mode() & 0o777, 0o500, "what is mounted is as it was");
            // What older kernels tell.
            let number = |path: &Path| {
                let name = CString::new(path.as_os_str().as_encoded_bytes()).expect("a path");
                mount_id(&find(&CWD, &name).expect("there")).expect("told")
            };
            assert_ne!(number(&to), number(&tree.join("tree/a")));
            assert_eq!(number(&tree.join("tree/a")), number(tree));
            return;
        }
        let root = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(root.path().join("tree/a/mount")).expect("room");
        fs::create_dir(root.path().join("precious")).expect("room");
        fs::write(root.path().join("precious/file"), "kept").expect("room");
        fs::set_permissions(root.path().join("precious"), Permissions::from_mode(0o500)).expect("ours");
        alone("a_mount_is_not_entered", root.path());
        assert!(root.path().join("precious/file").exists());
        empty(&root.path().join("tree")).expect("nothing is mounted here");
    }
}
