//! Putting back a protection that a person outside of the sandbox has taken away without knowing it.
//!
//! What an agent must not change is kept from it by a mount over the name. When a person replaces or removes that name, as
//! editors, git and `sed -i` do to save a file, the kernel detaches the mounts over it in all other namespaces (rename(2) and
//! unlink(2) since Linux 3.18; mount_namespaces(7), "Restrictions on mount namespaces"), and a mount over a file that is renamed
//! goes with the file: from then on the name is open to the agent. inotify(7) tells of both at once, and the mount is put back.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use nix::unistd::pipe2;

use crate::mounts;
use crate::plan::{Access, Bind};
use crate::sys::{self, Forked};

/// How long a visit to the agent's namespaces may take, in milliseconds.
const VISIT_WITHIN: u16 = 2_000;
/// Longest mount table that is read, in bytes.
const MAX_TABLE: u64 = 4 * 1024 * 1024;

/// The binds that lie within another one, and narrow what that opens or hold a directory above such a place. One that opens
/// to be read what lies in a place that is open to be read narrows nothing.
pub fn inner_binds(binds: &[Bind]) -> Vec<Bind> {
    inner(binds).map(|(_, bind)| bind.clone()).collect()
}

/// Those of [`inner_binds`] whose names somebody outside can replace. A place within what shows a directory of the agent's own under
/// another name, as at `/tmp`, lies in that directory, whatever becomes of the name outside.
pub fn exposed_binds(binds: &[Bind]) -> Vec<Bind> {
    inner(binds).filter(|(outer, _)| is_called_so(outer)).map(|(_, bind)| bind.clone()).collect()
}

/// The inner binds, each with the one right around it.
fn inner(binds: &[Bind]) -> impl Iterator<Item = (&Bind, &Bind)> {
    let by_target: HashMap<&Path, &Bind> = binds.iter().map(|bind| (bind.target.as_path(), bind)).collect();
    let reads = |bind: &Bind| bind.source.is_some() && bind.access != Access::ReadWrite;
    // Elsewhere it shows a directory of the agent's own, which nobody replaces.
    binds.iter().filter(|bind| is_called_so(bind)).filter_map(move |bind| {
        let outer = bind.target.ancestors().skip(1).find_map(|above| by_target.get(above).copied())?;
        (!(reads(bind) && reads(outer))).then_some((outer, bind))
    })
}

fn is_called_so(bind: &Bind) -> bool {
    bind.source.as_ref().is_none_or(|source| *source == bind.target)
}

/// Tells when a path that is watched is replaced, removed or renamed: one descriptor, whatever the number of paths.
#[derive(Debug)]
pub struct Replacements {
    inotify: Inotify,
    /// The paths under which each file was found: hard links are one file, and one watch.
    paths: HashMap<WatchDescriptor, BTreeSet<PathBuf>>,
    names: HashMap<PathBuf, Name>,
}

/// A path that the keeper watches for one agent or more.
#[derive(Debug, Default)]
struct Name {
    /// How many do.
    holders: usize,
    /// There while something is at the path.
    watch: Option<WatchDescriptor>,
}

impl AsFd for Replacements {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

impl Replacements {
    /// Nothing is watched yet.
    ///
    /// # Errors
    /// When the process has no descriptor left, or the user no inotify instance.
    pub fn new() -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        Ok(Self { inotify, paths: HashMap::new(), names: HashMap::new() })
    }

    /// One more agent has the path protected, until [`Self::release`].
    pub fn hold(&mut self, path: &Path) {
        self.names.entry(path.to_owned()).or_default().holders += 1;
    }

    /// One agent less has it protected; the last one ends the watch.
    pub fn release(&mut self, path: &Path) {
        let Some(name) = self.names.get_mut(path) else { return };
        name.holders = name.holders.saturating_sub(1);
        if name.holders == 0 {
            let watch = self.names.remove(path).and_then(|name| name.watch);
            watch.into_iter().for_each(|watch| self.forget(watch, path));
        }
    }

    fn forget(&mut self, watch: WatchDescriptor, path: &Path) {
        let Some(paths) = self.paths.get_mut(&watch) else { return };
        paths.remove(path);
        if paths.is_empty() {
            self.paths.remove(&watch);
            // The kernel has removed that of a file that is gone.
            let _ = self.inotify.rm_watch(watch);
        }
    }

    /// Watches what is now at a path that is held, until it is replaced; one that is watched already costs nothing.
    ///
    /// # Errors
    /// When nothing is there, or the user may watch no more.
    pub fn watch(&mut self, path: &Path) -> io::Result<()> {
        let Some(name) = self.names.get_mut(path).filter(|name| name.watch.is_none()) else { return Ok(()) };
        // What is watched is the name: of a link, the link.
        let file = sys::open_itself(&sys::c_path(path)?)?;
        let flags = AddWatchFlags::IN_ATTRIB | AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_DELETE_SELF;
        let watch = self.inotify.add_watch(format!("/proc/self/fd/{}", file.as_raw_fd()).as_str(), flags)?;
        name.watch = Some(watch);
        self.paths.entry(watch).or_default().insert(path.to_owned());
        Ok(())
    }

    /// The paths at which something has changed since the last call. They are not watched any more.
    pub fn take(&mut self) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        while let Some(events) = self.inotify.read_events().ok().filter(|events| !events.is_empty()) {
            for event in events {
                if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                    found.extend(self.names.keys().cloned());
                } else if let Some(paths) = self.paths.get(&event.wd) {
                    found.extend(paths.iter().cloned());
                }
            }
        }
        for path in &found {
            let watch = self.names.get_mut(path).and_then(|name| name.watch.take());
            watch.into_iter().for_each(|watch| self.forget(watch, path));
        }
        found
    }
}

/// Whether a process has a view of its own. One that has not, such as one that was never confined, sees the host's, in which nothing is
/// ever mounted.
pub fn has_own_view(pid: i32) -> bool {
    let of = |process: &str| fs::metadata(format!("/proc/{process}/ns/mnt")).map(|it| it.ino()).ok();
    of(&pid.to_string()).is_some_and(|its| of("self").is_some_and(|own| its != own))
}

/// Those of `binds` that the process `pid` does not see mounted.
///
/// # Errors
/// When its mounts cannot be read: it has ended.
pub fn lacking(pid: i32, binds: &[Bind]) -> io::Result<Vec<Bind>> {
    let mut text = Vec::new();
    File::open(format!("/proc/{pid}/mountinfo"))?.take(MAX_TABLE).read_to_end(&mut text)?;
    let mounted: Vec<PathBuf> = text.split(|byte| *byte == b'\n').filter_map(mount_point).collect();
    Ok(binds.iter().filter(|bind| !mounted.contains(&bind.target)).cloned().collect())
}

/// The fifth field of a line; blanks in it are escaped as `\040` and their like.
fn mount_point(line: &[u8]) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt as _;
    let field = line.split(|byte| *byte == b' ').nth(4)?;
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, others @ ..] = rest {
        let octal = others
            .get(..3)
            .filter(|_| *first == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        path.push(octal.unwrap_or(*first));
        rest = if octal.is_some() { &others[3..] } else { others };
    }
    Some(PathBuf::from(std::ffi::OsString::from_vec(path)))
}

/// Mounts again, in the namespace of the process `pid`, what is not mounted there any more: `lacking` of all `binds`, the
/// outer ones first. The outcome of each, in their order; `ErrorKind::NotFound` for one whose name is not there.
///
/// To be called by a single-threaded process, which collects its children: a child enters the namespaces.
///
/// # Errors
/// As fork(2) and setns(2); `ErrorKind::TimedOut` when the child does not answer.
pub fn renew(pid: i32, lacking: &[Bind], binds: &[Bind]) -> io::Result<Vec<io::Result<()>>> {
    let namespaces = Namespaces::of(pid)?;
    let (answers, told) = pipe2(OFlag::O_CLOEXEC)?;
    if let Forked::Child = sys::fork()? {
        let answered = namespaces.enter().and_then(|()| put_back(lacking, binds, told));
        sys::exit_now(i32::from(answered.is_err()));
    }
    drop(told);
    let mut outcomes = Vec::with_capacity(lacking.len());
    let mut answers = File::from(answers);
    while outcomes.len() < lacking.len() {
        let mut waiting = [PollFd::new(answers.as_fd(), PollFlags::POLLIN)];
        if poll(&mut waiting, PollTimeout::from(VISIT_WITHIN))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut errno = [0; 4];
        answers.read_exact(&mut errno)?;
        outcomes.push(match i32::from_ne_bytes(errno) {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        });
    }
    Ok(outcomes)
}

fn put_back(lacking: &[Bind], binds: &[Bind], told: OwnedFd) -> io::Result<()> {
    let mut told = File::from(told);
    for bind in lacking {
        let outcome = mounts::attach_again(bind, binds);
        let errno = outcome.err().map_or(0, |error| error.raw_os_error().unwrap_or(Errno::EIO as i32));
        told.write_all(&errno.to_ne_bytes())?;
    }
    Ok(())
}

/// The namespaces in which a process sees its files.
struct Namespaces {
    /// Where it is another than ours.
    user: Option<File>,
    mounts: File,
}

impl Namespaces {
    fn of(pid: i32) -> io::Result<Self> {
        let open = |name: &str| File::open(format!("/proc/{pid}/ns/{name}"));
        let (user, own) = (open("user")?, fs::metadata("/proc/self/ns/user")?);
        let is_ours = user.metadata()?.ino() == own.ino();
        Ok(Self { user: (!is_ours).then_some(user), mounts: open("mnt")? })
    }

    fn enter(&self) -> io::Result<()> {
        if let Some(user) = &self.user {
            setns(user, CloneFlags::CLONE_NEWUSER)?;
        }
        Ok(setns(&self.mounts, CloneFlags::CLONE_NEWNS)?)
    }
}

/// A process of `processes` that can still write to `path` or to something below it, through what it has open.
pub fn writer_of(path: &Path, processes: &[i32]) -> Option<i32> {
    processes.iter().copied().find(|pid| has_open(*pid, path) || has_mapped(*pid, path))
}

fn has_open(pid: i32, path: &Path) -> bool {
    let folder = format!("/proc/{pid}/fd");
    let Ok(entries) = fs::read_dir(&folder) else { return false };
    entries.flatten().any(|entry| {
        let is_its = fs::read_link(entry.path()).is_ok_and(|open| open.starts_with(path));
        is_its && is_writable(&format!("/proc/{pid}/fdinfo/{}", entry.file_name().to_string_lossy()))
    })
}

/// The flags of open(2), in octal (proc_pid_fdinfo(5)).
fn is_writable(fdinfo: &str) -> bool {
    let text = fs::read_to_string(fdinfo).unwrap_or_default();
    let flags =
        text.lines().find_map(|line| i32::from_str_radix(line.strip_prefix("flags:")?.trim(), 8).ok());
    // One that cannot be read is gone.
    flags.is_some_and(|flags| OFlag::from_bits_truncate(flags).intersects(OFlag::O_WRONLY | OFlag::O_RDWR))
}

fn has_mapped(pid: i32, path: &Path) -> bool {
    let Ok(text) = fs::read_to_string(format!("/proc/{pid}/maps")) else { return false };
    text.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace();
        let is_shared = fields.nth(1).is_some_and(|mode| mode.contains('w') && mode.ends_with('s'));
        is_shared && fields.nth(3).is_some_and(|mapped| Path::new(mapped).starts_with(path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Execution, Need};

    fn writable(target: &str) -> Bind {
        Bind { access: Access::ReadWrite, ..bind(target) }
    }

    fn bind(target: &str) -> Bind {
        Bind {
            source: Some(target.into()),
            target: target.into(),
            access: Access::ReadOnly,
            need: Need::Optional,
            execution: Execution::Allowed,
        }
    }

    #[test]
    fn those_within_others_are_inner() {
        let mut binds = ["/w", "/w/.git"].map(writable).to_vec();
        binds.extend(["/w/.git/config", "/etc/passwd", "/wide", "/read", "/read/out/app"].map(bind));
        let inner: Vec<PathBuf> = inner_binds(&binds).into_iter().map(|bind| bind.target).collect();
        assert_eq!(inner, [PathBuf::from("/w/.git"), PathBuf::from("/w/.git/config")]);
        let hidden = Bind { source: None, ..bind("/read/.ssh") };
        assert_eq!(inner_binds(&[bind("/read"), hidden.clone()]), [hidden], "what is hidden is narrower");
        let tmp = Bind { source: Some("/state/tmp".into()), ..writable("/tmp") };
        let (below, deeper) = (writable("/tmp/w"), bind("/tmp/w/.git"));
        let binds = [tmp, below.clone(), deeper.clone()];
        assert_eq!(inner_binds(&binds), [below, deeper.clone()]);
        assert_eq!(
            exposed_binds(&binds),
            [deeper],
            "its place in the agent's own directory is nobody else's"
        );
    }

    #[test]
    fn mount_points_are_read_as_the_kernel_writes_them() {
        let line = b"51 49 254:0 /w/a\\040b /w/a\\040b\\134c ro,nosuid - ext4 /dev/vda rw";
        assert_eq!(mount_point(line), Some(PathBuf::from("/w/a b\\c")));
        assert_eq!(mount_point(b""), None);
    }

    #[test]
    fn our_own_mounts_are_known() {
        let own = i32::try_from(std::process::id()).expect("a pid");
        let (there, absent) = (bind("/proc"), bind("/no/such/mount"));
        assert_eq!(lacking(own, &[there, absent.clone()]).expect("a table"), [absent]);
    }

    #[test]
    fn what_is_replaced_removed_or_renamed_is_told_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("a real path");
        let [file, other, directory] = ["file", "other", "directory"].map(|name| root.join(name));
        let mut replacements = Replacements::new().expect("an instance");
        [&file, &directory].iter().for_each(|path| replacements.hold(path));
        let prepare = |replacements: &mut Replacements| {
            fs::write(&file, "").expect("room");
            fs::write(&other, "").expect("room");
            fs::create_dir_all(&directory).expect("a folder");
            [&file, &directory].iter().for_each(|path| replacements.watch(path).expect("there"));
            replacements.watch(&file).expect("again");
        };
        for (what, change) in [
            ("replaced", &(|| fs::rename(&other, &file)) as &dyn Fn() -> io::Result<()>),
            ("removed", &|| fs::remove_file(&file)),
            ("renamed", &|| fs::rename(&file, &other)),
        ] {
            prepare(&mut replacements);
            assert_eq!(replacements.take(), BTreeSet::new(), "{what}");
            change().expect("ours");
            assert_eq!(replacements.take(), BTreeSet::from([file.clone()]), "{what}");
            assert_eq!(replacements.take(), BTreeSet::new(), "{what}");
        }
        prepare(&mut replacements);
        fs::remove_dir(&directory).expect("empty");
        assert_eq!(replacements.take(), BTreeSet::from([directory.clone()]));
        fs::write(&file, "as before").expect("room");
        assert_eq!(replacements.take(), BTreeSet::new(), "another content is not another file");
        replacements.watch(&directory).expect_err("it is not there");
        fs::create_dir(&directory).expect("a folder");
        replacements.hold(&directory);
        replacements.watch(&directory).expect("there");
        replacements.release(&directory);
        replacements.release(&directory);
        fs::remove_dir(&directory).expect("empty");
        assert_eq!(replacements.take(), BTreeSet::new(), "nobody wants to hear of it");
        assert!(!replacements.names.contains_key(&directory) && replacements.paths.len() <= 1);
    }

    #[test]
    fn of_two_names_of_one_file_each_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("a real path");
        let [one, two, new] = ["one", "two", "new"].map(|name| root.join(name));
        fs::write(&one, "").expect("room");
        fs::hard_link(&one, &two).expect("a link");
        let mut replacements = Replacements::new().expect("an instance");
        for path in [&one, &two] {
            replacements.hold(path);
            replacements.watch(path).expect("there");
        }
        replacements.take();
        for path in [&two, &one] {
            [&one, &two].iter().for_each(|path| replacements.watch(path).expect("there"));
            fs::write(&new, "").expect("room");
            fs::rename(&new, path).expect("renamed");
            assert!(replacements.take().contains(path), "{}", path.display());
        }
    }

    #[test]
    fn who_has_a_file_open_for_writing_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, own) = (folder.path().join("config"), i32::try_from(std::process::id()).expect("a pid"));
        fs::write(&path, "").expect("room");
        let reader = File::open(&path).expect("there");
        assert_eq!(writer_of(&path, &[own]), None);
        let writer = File::options().append(true).open(&path).expect("there");
        assert_eq!(writer_of(&path, &[own]), Some(own));
        assert_eq!(writer_of(folder.path(), &[own]), Some(own), "below a directory too");
        drop((reader, writer));
        assert_eq!(writer_of(&path, &[own]), None);
    }
}
