//! The file system as an agent sees it: a read-only view of the system, and the agent's own folders in it.
//!
//! The view of the system is the same for all agents, so it is built once, in a mount namespace that the keeper holds by
//! descriptor ([`BaseView`]). A child joins it, takes a copy of its few mounts, and attaches its own folders, which its
//! parent has already opened as detached trees: no path of the host is resolved inside. An ordinary user cannot share a
//! namespace like that, and builds the whole view in the child instead, inside a user namespace.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::{Mode, SFlag};
use nix::sys::statvfs::{FsFlags, fstatvfs};
use nix::unistd::{chdir, fchdir, pivot_root, symlinkat};

use crate::HostFacts;
use crate::host::Namespaces;
use crate::links;
use crate::places::{Place, Places, kind_of};
use crate::plan::{Access, Bind, Execution, Links, Need};
use crate::sys::{self, MountAttributes, Reach};

/// How often a place is opened that is replaced again and again before something could be attached to it.
const REPLACED: usize = 200;

/// A mount that failed: what was tried, and where.
#[derive(Debug)]
pub(crate) struct MountError {
    pub(crate) operation: &'static str,
    pub(crate) path: String,
    pub(crate) source: io::Error,
}

type Result<T> = std::result::Result<T, MountError>;

fn failed<E: Into<io::Error>>(
    operation: &'static str,
    path: impl AsRef<Path>,
) -> impl FnOnce(E) -> MountError {
    let path = path.as_ref().display().to_string();
    move |source| MountError { operation, path, source: source.into() }
}

/// The shared view, held by descriptors; it lives as long as they do.
#[derive(Debug)]
pub(crate) struct BaseView {
    namespace: OwnedFd,
    root: OwnedFd,
    places: Places,
    /// The view's /proc, which shows to each process only what it may trace.
    pub(crate) proc: OwnedFd,
}

/// One of the agent's own folders, opened and not yet attached.
#[derive(Debug)]
pub(crate) struct Opened {
    /// What it shows, if anything.
    pub(crate) source: Option<PathBuf>,
    pub(crate) tree: OwnedFd,
    /// The kind of file at its top.
    pub(crate) kind: SFlag,
    target: CString,
    links: Links,
    access: Access,
    need: Need,
}

impl BaseView {
    /// Builds the view in a namespace of its own and comes back. Needs CAP_SYS_ADMIN and a single thread.
    pub(crate) fn build(host: &HostFacts) -> Result<Self> {
        let here = open("/proc/self/ns/mnt", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(failed("open", "/proc/self/ns/mnt"))?;
        unshare(CloneFlags::CLONE_NEWNS).map_err(failed("make mount namespace", ""))?;
        let built = Self::build_here(host);
        setns(&here, CloneFlags::CLONE_NEWNS).map_err(failed("return to mount namespace", ""))?;
        built
    }

    fn build_here(host: &HostFacts) -> Result<Self> {
        let proc = sys::new_file_system(c"proc", &[(c"hidepid", c"ptraceable")], hardened())
            .map_err(failed("mount proc", "/proc"))?;
        let proc_copy = proc.try_clone().map_err(failed("duplicate", "/proc"))?;
        let root = build_tree(host, proc)?;
        let namespace = open("/proc/self/ns/mnt", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(failed("open", "/proc/self/ns/mnt"))?;
        let writable = sys::clone_mount(root.as_fd(), Reach::One).map_err(failed("clone", "/"))?;
        seal(&root)?;
        let root = open("/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).map_err(failed("open", "/"))?;
        Ok(Self { namespace, root, places: Places::below(writable), proc: proc_copy })
    }

    /// Opens what `binds` name and makes sure that the view has a place for each.
    pub(crate) fn open(&self, binds: &[Bind], working_dir: &Path) -> Result<Vec<Opened>> {
        let opened = open_binds(binds)?;
        let mut inner = InnerPlaces::of(binds);
        for (bind, opened) in &opened {
            self.make_place(&bind.target, &mut inner, Place::of(opened.kind))?;
        }
        // The process can begin in a folder that it may not see into: it then sees it empty.
        self.make_place(working_dir, &mut inner, Place::Folder)?;
        Ok(opened.into_iter().map(|(_, opened)| opened).collect())
    }

    fn make_place(&self, target: &Path, inner: &mut InnerPlaces<'_>, place: Place) -> Result<()> {
        // What lies in another bind is made there; here it would be covered by that.
        if inner.make(target, place)? == Inner::Yes {
            return Ok(());
        }
        // Making one that is there already is one call. In the parts of the system that are shown nothing can be made.
        if !self.places.is_near(target) {
            let path = sys::c_path(target).map_err(failed("open", target))?;
            if sys::open_in_root(self.root.as_fd(), &path).is_ok() {
                return Ok(());
            }
        }
        self.places.make(target, place).map_err(failed("make place", target))
    }

    /// In the child: joins the view and takes a copy of it, and makes the namespaces of `more`.
    pub(crate) fn join(&self, more: CloneFlags) -> Result<()> {
        setns(&self.namespace, CloneFlags::CLONE_NEWNS).map_err(failed("join mount namespace", ""))?;
        unshare(CloneFlags::CLONE_NEWNS | more).map_err(failed("make mount namespace", ""))
    }
}

/// In the child of an ordinary user, inside its user namespace: builds the view with the agent's folders in it.
/// Returns its terminals.
pub(crate) fn build_own(host: &HostFacts, binds: &[Bind], working_dir: &Path) -> Result<OwnedFd> {
    let opened = open_binds(binds)?;
    let mut inner = InnerPlaces::of(binds);
    for (bind, opened) in &opened {
        inner.make(&bind.target, Place::of(opened.kind))?;
    }
    inner.make(working_dir, Place::Folder)?;
    let proc = match host.mount_namespace {
        Namespaces::ThroughUserNamespace => sys::new_file_system(c"proc", &[], hardened()),
        _ => sys::open_without_links(c"/proc").and_then(|proc| sys::clone_mount(proc.as_fd(), Reach::Tree)),
    };
    let root = build_tree(host, proc.map_err(failed("mount proc", "/proc"))?)?;
    for (bind, opened) in &opened {
        if fs::symlink_metadata(&bind.target).is_err() {
            make_place_in(root.as_fd(), &bind.target, Place::of(opened.kind))?;
        }
    }
    if fs::symlink_metadata(working_dir).is_err() {
        make_place_in(root.as_fd(), working_dir, Place::Folder)?;
    }
    for (_, opened) in opened {
        opened.attach()?;
    }
    let terminals = new_terminals()?;
    attach_terminals(terminals.as_fd())?;
    seal(&root)?;
    Ok(terminals)
}

impl Opened {
    /// Attaches the folder in the calling process's namespace. What has the name of its source must not be reached through
    /// a link: another agent could have put one there since, and a protection would lie elsewhere.
    pub(crate) fn attach(&self) -> Result<()> {
        let attach = || match self.links {
            Links::Follow => sys::attach_mount(self.tree.as_fd(), None, &self.target),
            Links::Refuse => open_named(&self.target, self.access)
                .and_then(|target| sys::attach_mount_at(self.tree.as_fd(), target.as_fd())),
        };
        // A file that somebody saves is another one from one call to the next; what is meant is its name.
        let attached =
            (1..REPLACED).map(|_| attach()).find(|tried| !is_missing(tried)).unwrap_or_else(attach);
        match attached {
            missing if is_missing(&missing) && self.need == Need::Optional => Ok(()),
            attached => attached,
        }
        .map_err(failed("attach", Path::new(&self.target.to_string_lossy().into_owned())))
    }
}

/// In a child that has entered an agent's namespaces: attaches one of its binds once more. `ELOOP` when there is a link to what the
/// agent can write.
pub(crate) fn attach_again(bind: &Bind, binds: &[Bind]) -> io::Result<()> {
    let tree = match &bind.source {
        Some(source) => open_shown(source, bind),
        None => cover(bind, binds),
    };
    let tree = tree.map_err(|error| error.source)?;
    let target = open_named(&sys::c_path(&bind.target)?, bind.access)?;
    // A person may have put a link there since, to something that nobody has protected.
    if bind.access == Access::Protected && kind_of(&target)? == SFlag::S_IFLNK {
        let mut others = links::on_the_way(&bind.target).into_iter().filter(|path| *path != bind.target);
        if others.any(|path| is_writable(&path)) {
            return Err(io::Error::from_raw_os_error(libc::ELOOP));
        }
    }
    sys::attach_mount_at(tree.as_fd(), target.as_fd())
}

/// Whether the mount in which a path lies can be written, or that in which it would be made.
fn is_writable(path: &Path) -> bool {
    let there = path.ancestors().find_map(|path| sys::open_itself(&sys::c_path(path).ok()?).ok());
    there.and_then(|it| fstatvfs(it).ok()).is_none_or(|it| !it.flags().contains(FsFlags::ST_RDONLY))
}

fn is_missing(tried: &io::Result<()>) -> bool {
    tried.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// A terminal multiplexer of its own (pts(4)); the same for nobody else.
pub(crate) fn new_terminals() -> Result<OwnedFd> {
    let attributes = MountAttributes::NO_SUID;
    sys::new_file_system(c"devpts", &[(c"ptmxmode", c"0666"), (c"mode", c"0600")], attributes)
        .map_err(failed("mount devpts", "/dev/pts"))
}

/// Attaches the terminals at their place.
pub(crate) fn attach_terminals(terminals: BorrowedFd<'_>) -> Result<()> {
    sys::attach_mount(terminals, None, c"/dev/pts").map_err(failed("attach", "/dev/pts"))
}

const fn hardened() -> MountAttributes {
    MountAttributes::READ_ONLY.and(MountAttributes::NO_SUID).and(MountAttributes::NO_DEV)
}

/// Builds the system's part in a new root and makes it the root of this namespace.
fn build_tree(host: &HostFacts, proc: OwnedFd) -> Result<OwnedFd> {
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).map_err(failed("make private", "/"))?;
    let entries = system_entries(host)?;
    let covers = covers_of_proc(host)?;
    let options = [(c"mode", c"0755"), (c"size", c"4m"), (c"nr_inodes", c"65536")];
    let root =
        sys::new_file_system(c"tmpfs", &options, MountAttributes::NO_SUID.and(MountAttributes::NO_DEV))
            .map_err(failed("mount tmpfs", "/"))?;
    sys::attach_mount(root.as_fd(), None, c"/proc").map_err(failed("attach", "/"))?;
    for (path, entry) in entries {
        place(root.as_fd(), &path, entry)?;
    }
    device_links(root.as_fd())?;
    for folder in ["/tmp", "/run", "/var/tmp", "/dev/shm"] {
        make_place_in(root.as_fd(), Path::new(folder), Place::Folder)?;
    }
    place(root.as_fd(), Path::new("/proc"), Entry::Mount(proc, Place::Folder))?;
    for (path, cover) in covers {
        place(root.as_fd(), &path, Entry::Mount(cover, Place::File))?;
    }
    fchdir(&root).map_err(failed("enter", "/"))?;
    pivot_root(".", ".").map_err(failed("change root", "/"))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(failed("leave old root", "/"))?;
    chdir("/").map_err(failed("enter", "/"))?;
    Ok(root)
}

/// The root folder itself becomes read-only, when every place in it has been made.
fn seal(root: &OwnedFd) -> Result<()> {
    sys::set_mount(root.as_fd(), hardened(), Reach::One).map_err(failed("make read-only", "/"))
}

enum Entry {
    Mount(OwnedFd, Place),
    Link(PathBuf),
}

/// The parts of the system that are shown, opened; links such as `/bin → usr/bin` stay links.
fn system_entries(host: &HostFacts) -> Result<Vec<(PathBuf, Entry)>> {
    let system = &host.system;
    let resolver = [PathBuf::from("/run/systemd/resolve")];
    let etc = [PathBuf::from("/etc")];
    let mut entries = Vec::new();
    for path in system.programs.iter().chain(&system.facts).chain(&etc).chain(&resolver) {
        let Ok(metadata) = fs::symlink_metadata(path) else { continue };
        let entry = if metadata.is_symlink() {
            Entry::Link(fs::read_link(path).map_err(failed("read link", path))?)
        } else {
            let place = if metadata.is_dir() { Place::Folder } else { Place::File };
            Entry::Mount(open_source(path, Access::ReadOnly)?, place)
        };
        entries.push((path.clone(), entry));
    }
    for device in crate::plan::DEVICES {
        if device == crate::plan::TTY && !Path::new(device).exists() {
            continue;
        }
        let attributes = MountAttributes::READ_ONLY.and(MountAttributes::NO_SUID);
        let tree = clone_with(Path::new(device), Access::ReadOnly, attributes)?;
        entries.push((device.into(), Entry::Mount(tree, Place::File)));
    }
    // Elsewhere Landlock keeps them out.
    if host.landlock_abi == 0 {
        for secret in host.system.secrets.iter().map(PathBuf::as_path).filter(|path| path.exists()) {
            let tree = match Place::like(secret) {
                Place::Folder => sys::new_file_system(c"tmpfs", &[(c"size", c"64k")], hardened())
                    .map_err(failed("mount tmpfs", secret))?,
                Place::File => open_source(Path::new("/dev/null"), Access::ReadOnly)?,
            };
            entries.push((secret.to_owned(), Entry::Mount(tree, Place::like(secret))));
        }
    }
    Ok(entries)
}

/// Facts of the whole host that everybody may read, and that no program needs: what others lock, which keys they have.
const OPEN_FACTS: &[&str] =
    &["keys", "key-users", "locks", "sched_debug", "timer_list", "timer_stats", "latency_stats"];

/// What hides facts of the host in proc(5): the files that only root may read, where agents run as root, and [`OPEN_FACTS`].
/// They read as empty.
fn covers_of_proc(host: &HostFacts) -> Result<Vec<(PathBuf, OwnedFd)>> {
    use std::os::unix::fs::MetadataExt as _;
    let proc = Path::new("/proc");
    let is_hidden = |name: &std::ffi::OsStr, mode: u32| {
        OPEN_FACTS.iter().any(|known| name == *known) || host.uid == 0 && mode & 0o004 == 0
    };
    let mut covers = Vec::new();
    for entry in fs::read_dir(proc).map_err(failed("list", proc))?.flatten() {
        // Those of processes are folders.
        let Ok(metadata) = fs::symlink_metadata(entry.path()) else { continue };
        if metadata.is_file() && is_hidden(&entry.file_name(), metadata.mode()) {
            covers.push((entry.path(), open_source(Path::new("/dev/null"), Access::ReadOnly)?));
        }
    }
    Ok(covers)
}

fn place(root: BorrowedFd<'_>, path: &Path, entry: Entry) -> Result<()> {
    let relative = path.strip_prefix("/").unwrap_or(path);
    match entry {
        Entry::Link(target) => symlinkat(&target, root, relative).map_err(failed("link", path)),
        Entry::Mount(tree, kind) => {
            let target = sys::c_path(relative).map_err(failed("open", path))?;
            if sys::open_in_root(root, &target).is_err() {
                make_place_in(root, path, kind)?;
            }
            sys::attach_mount(tree.as_fd(), Some(root), &target).map_err(failed("attach", path))
        }
    }
}

/// The links that programs expect below /dev.
fn device_links(root: BorrowedFd<'_>) -> Result<()> {
    make_place_in(root, Path::new("/dev/pts"), Place::Folder)?;
    let links = [
        ("/proc/self/fd", "dev/fd"),
        ("/proc/self/fd/0", "dev/stdin"),
        ("/proc/self/fd/1", "dev/stdout"),
        ("/proc/self/fd/2", "dev/stderr"),
        ("pts/ptmx", "dev/ptmx"),
    ];
    links.iter().try_for_each(|(to, at)| symlinkat(*to, root, *at)).map_err(failed("link", "/dev"))
}

/// Opens each bind's source as a detached tree; an optional one that is not there is left out.
fn open_binds(binds: &[Bind]) -> Result<Vec<(&Bind, Opened)>> {
    let mut opened = Vec::with_capacity(binds.len());
    for bind in binds {
        let tree = match &bind.source {
            Some(source) => match open_shown(source, bind) {
                Err(error) if bind.need == Need::Optional && is_absence(&error.source) => continue,
                other => other?,
            },
            None => cover(bind, binds)?,
        };
        let kind = kind_of(&tree).map_err(failed("inspect", &bind.target))?;
        let target = sys::c_path(&bind.target).map_err(failed("open", &bind.target))?;
        let links = if bind.source.as_ref() == Some(&bind.target) { Links::Refuse } else { Links::Follow };
        let (source, access, need) = (bind.source.clone(), bind.access, bind.need);
        opened.push((bind, Opened { source, tree, kind, target, links, access, need }));
    }
    Ok(opened)
}

fn open_source(path: &Path, access: Access) -> Result<OwnedFd> {
    clone_with(path, access, attributes(access, path))
}

/// What a bind shows, with the attributes that it has inside.
fn open_shown(source: &Path, bind: &Bind) -> Result<OwnedFd> {
    let attributes = attributes(bind.access, source);
    match bind.execution {
        Execution::Allowed => clone_with(source, bind.access, attributes),
        Execution::Refused => clone_with(source, bind.access, attributes.and(MountAttributes::NO_EXEC)),
    }
}

/// What a bind names. A link counts where it is what has to stay.
fn open_named(path: &CStr, access: Access) -> io::Result<OwnedFd> {
    match access {
        Access::Protected => sys::open_itself(path),
        Access::ReadOnly | Access::ReadWrite => sys::open_without_links(path),
    }
}

fn clone_with(path: &Path, access: Access, attributes: MountAttributes) -> Result<OwnedFd> {
    let c_path = sys::c_path(path).map_err(failed("open", path))?;
    let tree = open_named(&c_path, access)
        .and_then(|found| sys::clone_mount(found.as_fd(), Reach::Tree))
        .map_err(failed("clone", path))?;
    sys::set_mount(tree.as_fd(), attributes, Reach::Tree).map_err(failed("set attributes", path))?;
    Ok(tree)
}

/// Something empty for a path that stays hidden; places for what is shown below it are made before it becomes read-only.
fn cover(bind: &Bind, binds: &[Bind]) -> Result<OwnedFd> {
    if !bind.target.is_dir() {
        let attributes = MountAttributes::READ_ONLY.and(MountAttributes::NO_SUID);
        return clone_with(Path::new("/dev/null"), Access::ReadOnly, attributes);
    }
    let options = [(c"mode", c"0755"), (c"size", c"64k")];
    let tree =
        sys::new_file_system(c"tmpfs", &options, MountAttributes::NO_SUID.and(MountAttributes::NO_DEV))
            .map_err(failed("mount tmpfs", &bind.target))?;
    for inner in binds.iter().filter(|inner| inner.target != bind.target) {
        if let Ok(rest) = inner.target.strip_prefix(&bind.target) {
            make_place_in(tree.as_fd(), rest, Place::like(&inner.target))?;
        }
    }
    sys::set_mount(tree.as_fd(), hardened(), Reach::One).map_err(failed("make read-only", &bind.target))?;
    Ok(tree)
}

fn attributes(access: Access, source: &Path) -> MountAttributes {
    let device = source.starts_with("/dev") && !source.starts_with("/dev/shm");
    match access {
        Access::Protected | Access::ReadOnly => hardened(),
        Access::ReadWrite if device => MountAttributes::NO_SUID,
        Access::ReadWrite => MountAttributes::NO_SUID.and(MountAttributes::NO_DEV),
    }
}

fn is_absence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::PermissionDenied
    )
}

/// Whether a place lies in another bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inner {
    Yes,
    No,
}

/// The places of one start that lie below a bind which shows one folder at another's path (`/tmp`): they lie in that folder on disk.
struct InnerPlaces<'a> {
    /// Such binds, the innermost first.
    outer: Vec<(&'a Path, &'a Path)>,
    /// The folders that were needed until now, by their sources.
    opened: Vec<(&'a Path, Places)>,
}

impl<'a> InnerPlaces<'a> {
    fn of(binds: &'a [Bind]) -> Self {
        let shown_elsewhere = |bind: &'a Bind| {
            let source = bind.source.as_deref().filter(|source| *source != bind.target)?;
            Some((bind.target.as_path(), source))
        };
        Self { outer: binds.iter().rev().filter_map(shown_elsewhere).collect(), opened: Vec::new() }
    }

    /// Makes a place, if it lies in such a bind.
    fn make(&mut self, target: &Path, place: Place) -> Result<Inner> {
        let outer = self.outer.iter().find_map(|(outer, source)| {
            let rest = target.strip_prefix(outer).ok()?;
            (!rest.as_os_str().is_empty()).then_some((*source, rest))
        });
        let Some((source, rest)) = outer else { return Ok(Inner::No) };
        let at = match self.opened.iter().position(|(known, _)| *known == source) {
            Some(at) => at,
            None => {
                let folder = sys::c_path(source)
                    .and_then(|path| sys::open_without_links(&path))
                    .map_err(failed("open", source))?;
                self.opened.push((source, Places::below(folder)));
                self.opened.len() - 1
            }
        };
        let (_, places) = &self.opened[at];
        // Places last from one start to the next; looking for one is a call, making one is a call per folder on the way.
        if places.is_near(rest) || !places.holds(rest) {
            places.make(rest, place).map_err(failed("make place", target))?;
        }
        Ok(Inner::Yes)
    }
}

/// Makes a single place below `root`.
fn make_place_in(root: BorrowedFd<'_>, path: &Path, place: Place) -> Result<()> {
    let root = root.try_clone_to_owned().map_err(failed("duplicate", path))?;
    Places::below(root).make(path, place).map_err(failed("make place", path))
}

/// In the child of an ordinary user, in its new user namespace: it keeps its own ids, and gets no others.
pub(crate) fn map_user(uid: u32, gid: u32) -> Result<()> {
    let write = |file: &str, text: String| {
        let path = format!("/proc/self/{file}");
        fs::write(&path, text).map_err(failed("write", path))
    };
    write("setgroups", "deny".to_owned())?;
    write("uid_map", format!("{uid} {uid} 1"))?;
    write("gid_map", format!("{gid} {gid} 1"))
}
