//! How much storage folders hold: the blocks of everything in them, each file once however many names it has. Nothing is
//! followed, and no mount is entered. The folders belong to an agent that changes them meanwhile, on purpose perhaps: so every
//! step is taken from a descriptor that is held, a step back is checked, and at most a few descriptors are open however deep
//! it goes.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, openat, statat};
use rustix::io::Errno;

/// The unit of `st_blocks` (stat(2)).
const BLOCK: u64 = 512;

/// What folders hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Holding {
    /// In bytes; when it is above the limit of the walk, there may be more.
    pub(crate) bytes: u64,
    /// Names, of folders and links too; likewise.
    pub(crate) files: u64,
    /// Folders of which not all could be seen.
    pub(crate) unseen: u64,
}

/// Where a walk ends, since more need not be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Most {
    /// In bytes.
    pub(crate) bytes: u64,
    /// In names.
    pub(crate) files: u64,
}

/// Adds up `places` until there is more than `most`. A place that is not there holds nothing; a link holds what it is itself.
pub(crate) fn walk(places: &[PathBuf], most: Most) -> Holding {
    let mut walk = Walk { most, found: Holding::default(), linked: HashSet::new() };
    for place in places {
        if !walk.is_over() {
            walk.place(place);
        }
    }
    walk.found
}

struct Walk {
    most: Most,
    found: Holding,
    /// Files with several names that have been counted.
    linked: HashSet<Id>,
}

type Id = (u64, u64);

/// A folder on the way down, and those in it that are still to be seen.
struct Level {
    id: Id,
    todo: Vec<CString>,
}

impl Walk {
    fn is_over(&self) -> bool {
        self.found.bytes > self.most.bytes || self.found.files > self.most.files
    }

    fn place(&mut self, place: &Path) {
        let Ok(entry) = statat(CWD, place, AtFlags::SYMLINK_NOFOLLOW) else { return };
        self.count(&entry);
        if is_folder(&entry) {
            match openat(CWD, place, FOLDER, Mode::empty()) {
                Ok(folder) => self.below(folder, id(&entry)),
                Err(error) => self.missed(error),
            }
        }
    }

    /// Everything below `folder`. The descriptor is that of the level where the walk is; those above are found again by `..`.
    fn below(&mut self, mut folder: OwnedFd, top: Id) {
        let mut levels = vec![Level { id: top, todo: self.list(&folder, top.0) }];
        while let Some(level) = levels.last_mut() {
            if self.is_over() {
                return;
            }
            let Some(name) = level.todo.pop() else {
                levels.pop();
                let Some(above) = levels.last() else { return };
                match step(&folder, c"..", above.id) {
                    Ok(parent) => folder = parent,
                    // It was moved elsewhere meanwhile: whatever is there is not ours to see.
                    Err(error) => return self.missed(error),
                }
                continue;
            };
            match self.enter(&folder, &name, top.0) {
                Ok(Some((inner, id))) => {
                    let todo = self.list(&inner, top.0);
                    levels.push(Level { id, todo });
                    folder = inner;
                }
                Ok(None) => {}
                Err(error) => self.missed(error),
            }
        }
    }

    /// The folder `name`, unless it is something else by now or another file system.
    fn enter(&self, folder: &OwnedFd, name: &CStr, device: u64) -> Result<Option<(OwnedFd, Id)>, Errno> {
        let inner = openat(folder, name, FOLDER, Mode::empty())?;
        let id = id(&fstat(&inner)?);
        Ok((id.0 == device).then_some((inner, id)))
    }

    /// Counts what is in a folder, and returns the folders in it.
    fn list(&mut self, folder: &OwnedFd, device: u64) -> Vec<CString> {
        let mut todo = Vec::new();
        let mut entries = match Dir::read_from(folder) {
            Ok(entries) => entries,
            Err(error) => {
                self.missed(error);
                return todo;
            }
        };
        while let Some(entry) = entries.read() {
            let Ok(entry) = entry else {
                self.found.unseen += 1;
                break;
            };
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                // A mount holds what another file system has.
                Ok(found) if found.st_dev != device => {}
                Ok(found) => {
                    self.count(&found);
                    if is_folder(&found) {
                        todo.push(name.to_owned());
                    }
                }
                Err(error) => self.missed(error),
            }
            if self.is_over() {
                break;
            }
        }
        todo
    }

    fn count(&mut self, entry: &Stat) {
        self.found.files += 1;
        let is_counted = !is_folder(entry) && entry.st_nlink > 1 && !self.linked.insert(id(entry));
        if !is_counted {
            let blocks = u64::try_from(entry.st_blocks).unwrap_or(0);
            self.found.bytes = self.found.bytes.saturating_add(blocks.saturating_mul(BLOCK));
        }
    }

    /// What is gone, or a link or a file by now, is counted as that at the next walk.
    fn missed(&mut self, error: Errno) {
        if !matches!(error, Errno::NOENT | Errno::NOTDIR | Errno::LOOP) {
            self.found.unseen += 1;
        }
    }
}

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK);

/// Opens `name` if it is the folder that was there before.
fn step(folder: &OwnedFd, name: &CStr, expected: Id) -> Result<OwnedFd, Errno> {
    let opened = openat(folder, name, FOLDER, Mode::empty())?;
    if id(&fstat(&opened)?) == expected { Ok(opened) } else { Err(Errno::NOENT) }
}

fn is_folder(entry: &Stat) -> bool {
    FileType::from_raw_mode(entry.st_mode) == FileType::Directory
}

fn id(entry: &Stat) -> Id {
    (entry.st_dev, entry.st_ino)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use proptest::prelude::*;

    use super::*;

    const ALL: Most = Most { bytes: u64::MAX, files: u64::MAX };

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir_in("/var/tmp").expect("a folder")
    }

    fn of(root: &Path) -> u64 {
        let found = walk(&[root.to_owned()], ALL);
        assert_eq!(found.unseen, 0);
        found.bytes
    }

    /// The same by paths and recursion, for trees that stand still.
    fn model(path: &Path, seen: &mut HashSet<(u64, u64)>) -> u64 {
        let entry = path.symlink_metadata().expect("there");
        if !entry.is_dir() && !seen.insert((entry.dev(), entry.ino())) {
            return 0;
        }
        let mut bytes = entry.blocks() * BLOCK;
        if entry.is_dir() {
            for inner in path.read_dir().expect("readable") {
                bytes += model(&inner.expect("there").path(), seen);
            }
        }
        bytes
    }

    #[derive(Debug, Clone)]
    enum Thing {
        File { size: usize },
        Sparse { size: u64 },
        Link { to: usize },
        Symlink { to: usize },
        Folder,
    }

    fn thing() -> impl Strategy<Value = Thing> {
        prop_oneof![
            (0usize..20_000).prop_map(|size| Thing::File { size }),
            (0u64..1_000_000_000).prop_map(|size| Thing::Sparse { size }),
            (0usize..40).prop_map(|to| Thing::Link { to }),
            (0usize..40).prop_map(|to| Thing::Symlink { to }),
            Just(Thing::Folder),
        ]
    }

    fn make(root: &Path, things: &[(usize, Thing)]) {
        let (mut folders, mut files) = (vec![root.to_owned()], Vec::new());
        for (number, (place, thing)) in things.iter().enumerate() {
            let path = folders[place % folders.len()].join(number.to_string());
            match thing {
                Thing::File { size } => fs::write(&path, vec![7; *size]).expect("room"),
                Thing::Sparse { size } => {
                    let file = fs::File::create(&path).expect("room");
                    file.set_len(*size).expect("a hole");
                }
                Thing::Link { to } if !files.is_empty() => {
                    let to: &PathBuf = &files[to % files.len()];
                    fs::hard_link(to, &path).expect("a link");
                }
                Thing::Link { .. } => continue,
                Thing::Symlink { to } => symlink(&folders[to % folders.len()], &path).expect("a link"),
                Thing::Folder => fs::create_dir(&path).expect("room"),
            }
            match thing {
                Thing::Folder => folders.push(path),
                Thing::Symlink { .. } => {}
                _ => files.push(path),
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn it_finds_what_a_plain_recursion_finds(things in prop::collection::vec((0usize..40, thing()), 0..40)) {
            let root = folder();
            make(root.path(), &things);
            let expected = model(root.path(), &mut HashSet::new());
            prop_assert_eq!(of(root.path()), expected);
            // With a limit it never says less than what decides.
            for limit in [0, expected / 2, expected.saturating_sub(1), expected] {
                let most = Most { bytes: limit, ..ALL };
                let found = walk(&[root.path().to_owned()], most).bytes;
                prop_assert_eq!(found > limit, expected > limit);
            }
        }
    }

    #[test]
    fn holes_and_further_names_of_a_file_cost_nothing() {
        let root = folder();
        fs::write(root.path().join("real"), vec![1; 1 << 20]).expect("room");
        let before = of(root.path());
        fs::File::create(root.path().join("hole")).expect("room").set_len(1 << 40).expect("a hole");
        for number in 0..50 {
            fs::hard_link(root.path().join("real"), root.path().join(format!("name-{number}")))
                .expect("a link");
        }
        let after = of(root.path());
        assert!(after - before < 64 << 10, "{before} {after}");
        assert!(before >= 1 << 20, "{before}");
        let both = [root.path().to_owned(), root.path().to_owned()];
        // Folders are counted for each place, files once for all of them.
        assert!(walk(&both, ALL).bytes < after + (64 << 10));
    }

    #[test]
    fn files_that_hold_nothing_end_a_walk_by_their_number() {
        let root = folder();
        for number in 0..40 {
            fs::File::create(root.path().join(format!("file-{number}"))).expect("room");
            fs::hard_link(root.path().join("file-0"), root.path().join(format!("name-{number}")))
                .expect("a link");
        }
        let files = |most: u64| walk(&[root.path().to_owned()], Most { files: most, ..ALL }).files;
        // The folder itself, forty files, forty more names of the first.
        assert_eq!(files(u64::MAX), 81);
        assert_eq!(files(81), 81);
        assert_eq!(files(50), 51, "it goes no further than it must");
    }

    #[test]
    fn a_link_leads_nowhere_and_a_place_may_be_missing() {
        let (root, other) = (folder(), folder());
        fs::write(other.path().join("large"), vec![1; 1 << 20]).expect("room");
        symlink(other.path(), root.path().join("link")).expect("a link");
        symlink(other.path().join("large"), root.path().join("file")).expect("a link");
        assert!(of(root.path()) < 64 << 10);
        let places = [root.path().join("link"), root.path().join("nothing")];
        assert!(walk(&places, ALL).bytes < 64 << 10);
        assert_eq!(walk(&places, ALL).unseen, 0);
    }

    #[test]
    fn a_thousand_levels_take_few_descriptors_and_no_long_path() {
        let root = folder();
        // By one step at a time: the whole path would be longer than the kernel takes.
        let name = "n".repeat(100);
        let mut at = openat(CWD, root.path(), FOLDER, Mode::empty()).expect("ours");
        for _ in 0..1000 {
            rustix::fs::mkdirat(&at, &name, Mode::RWXU).expect("room");
            at = openat(&at, &name, FOLDER, Mode::empty()).expect("ours");
        }
        let flags = OFlags::CREATE.union(OFlags::WRONLY);
        let deepest = openat(&at, "deepest", flags, Mode::RUSR).expect("room");
        rustix::io::write(&deepest, &[1; 8192]).expect("room");
        let without = walk(&[root.path().to_owned()], ALL);
        assert_eq!(without.unseen, 0);
        assert!(without.bytes >= 8192, "{without:?}");
        drop((at, deepest));
        let removed = std::process::Command::new("rm").arg("-rf").arg(root.path().join(&name)).status();
        assert!(removed.expect("rm").success());
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        if rustix::process::geteuid().is_root() {
            eprintln!("skipped: root reads everything");
            return;
        }
        let root = folder();
        fs::create_dir(root.path().join("closed")).expect("room");
        fs::set_permissions(root.path().join("closed"), fs::Permissions::from_mode(0o000)).expect("ours");
        assert_eq!(walk(&[root.path().to_owned()], ALL).unseen, 1);
        fs::set_permissions(root.path().join("closed"), fs::Permissions::from_mode(0o700)).expect("ours");
    }

    #[test]
    fn it_survives_a_tree_that_changes_under_it() {
        let root = folder();
        let busy = root.path().join("busy");
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    fs::create_dir_all(busy.join("a/b/c/d")).expect("room");
                    fs::write(busy.join("a/b/file"), "x").expect("room");
                    let _ = fs::rename(busy.join("a/b/c"), root.path().join("moved"));
                    let _ = fs::remove_dir_all(root.path().join("moved"));
                    fs::remove_dir_all(&busy).expect("ours");
                }
            });
            for _ in 0..300 {
                let found = walk(&[root.path().to_owned()], ALL);
                assert!(found.bytes < 1 << 20, "{found:?}");
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }
}
