//! Files that stand for nothing where git would obey what an agent puts there. A mount needs a name to lie over, so the keeper
//! makes one before the start of an agent that could make it, and takes it away when no agent needs it any more.
//!
//! Each says what its absence says (gitrepository-layout(5), git-config(1), gitattributes(5)): one that is left by a keeper
//! that was killed changes nothing, and the next agent's end takes it away.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::unistd::geteuid;
use toka_files::Directory;

/// How often a file is made anew that somebody else takes away at that moment.
const TRIES: usize = 20;

/// Keeps files from being taken away until it is dropped.
#[derive(Debug, Default)]
pub struct Held(Vec<File>);

impl Drop for Held {
    /// Releases the locks for every duplicate: a child that was forked just now has some until it executes its program.
    fn drop(&mut self) {
        self.0.iter().for_each(|file| drop(lock(file, libc::F_UNLCK)));
    }
}

/// What is in the file that stands for nothing at this path; `None` where no file can.
pub(crate) fn content(path: &Path) -> Option<&'static [u8]> {
    let is_of_worktree = path.ancestors().nth(2).is_some_and(|folder| folder.ends_with("worktrees"));
    match path.file_name()?.to_str()? {
        // The directory itself, which it is without the file; in that of a linked worktree the file has to be there.
        "commondir" if !is_of_worktree => Some(b".\n"),
        "config.worktree" => Some(b""),
        "attributes" if path.ends_with("info/attributes") => Some(b""),
        _ => None,
    }
}

/// Whether the file at this path stands for nothing.
pub(crate) fn stands_at(path: &Path) -> bool {
    let (Some(content), Some(above), Some(name)) = (content(path), path.parent(), path.file_name()) else {
        return false;
    };
    Directory::open_real(above).is_ok_and(|above| open(&above, Path::new(name), content).is_some())
}

/// Makes these files where nothing is, and keeps them from being taken away. What cannot be made is left out: what appears there is set aside when the agent has ended ([`crate::guard`]).
pub(crate) fn hold(paths: &[PathBuf]) -> Held {
    Held(paths.iter().filter_map(|path| hold_one(path).ok()).collect())
}

/// Keeps those of these files that are there, below a directory, from being taken away: another keeper made them.
pub fn hold_again(root: &Path, paths: &[PathBuf]) -> Held {
    let Ok(root) = Directory::open_real(root) else { return Held::default() };
    let held = |path: &PathBuf| {
        let file = open(&root, path, content(path)?)?;
        lock(&file, libc::F_RDLCK).ok().map(|()| file)
    };
    Held(paths.iter().filter_map(held).collect())
}

fn hold_one(path: &Path) -> io::Result<File> {
    let (Some(content), Some(above), Some(name)) = (content(path), path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let above = Directory::open_real(above)?;
    // Others than root can give nothing away, and need not.
    let owner = if geteuid().is_root() { Some(above.owner()?) } else { None };
    for _ in 0..TRIES {
        above.make_file_with(name, content, owner)?;
        let Some(file) = open(&above, Path::new(name), content) else { continue };
        lock(&file, libc::F_RDLCK)?;
        if is_at(&file, &above, Path::new(name)) {
            return Ok(file);
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Takes away what stands for nothing at `path` below `root`, unless somebody holds it. False when something else is there.
pub(crate) fn take_away(root: &Directory, path: &Path) -> bool {
    content(path).is_some_and(|content| take_away_this(root, path, content))
}

fn take_away_this(root: &Directory, path: &Path, content: &[u8]) -> bool {
    let Some(file) = open(root, path, content) else { return false };
    // A lock that excludes those of others needs a descriptor for writing; an agent has none of this file (fcntl_locking(2)).
    let writer = File::options().read(true).write(true).open(format!("/proc/self/fd/{}", file.as_raw_fd()));
    if let Ok(writer) = writer
        && lock(&writer, libc::F_WRLCK).is_ok()
        && is_at(&writer, root, path)
    {
        // It stands for nothing, also where it stays.
        let _ = root.remove_file(path);
    }
    true
}

/// Takes away what was made for a start that failed, unless others need it.
pub fn release(held: Held, paths: &[PathBuf]) {
    drop(held);
    for path in paths {
        if let (Some(content), Some(above), Some(name)) = (content(path), path.parent(), path.file_name())
            && let Ok(above) = Directory::open_real(above)
        {
            take_away_this(&above, Path::new(name), content);
        }
    }
}

/// The file, if that is in it.
fn open(root: &Directory, path: &Path, content: &[u8]) -> Option<File> {
    let found = root.read(path, content.len() as u64 + 1).ok()?;
    if found == content { root.file(path).ok() } else { None }
}

fn is_at(file: &File, root: &Directory, path: &Path) -> bool {
    let there = root.file(path).ok().and_then(|there| there.metadata().ok());
    let of = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    there.map(of).is_some_and(|there| file.metadata().ok().map(of) == Some(there))
}

fn lock(file: &File, kind: libc::c_int) -> io::Result<()> {
    let whole = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(file, FcntlArg::F_OFD_SETLK(&whole)).map(drop).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const NAMES: [&str; 3] = ["commondir", "config.worktree", "info/attributes"];

    fn repository() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let git = folder.path().canonicalize().expect("a real path").join(".git");
        fs::create_dir_all(git.join("info")).expect("a folder");
        (folder, git)
    }

    #[test]
    fn they_stay_as_long_as_somebody_needs_them() {
        let (_folder, git) = repository();
        let paths = NAMES.map(|name| git.join(name));
        let root = Directory::open_real(&git).expect("a folder");
        let (one, other) = (hold(&paths), hold(&paths));
        assert_eq!((one.0.len(), other.0.len()), (3, 3));
        assert_eq!(fs::read_to_string(git.join("commondir")).expect("made"), ".\n");
        drop(one);
        let adopted = hold_again(&git, &NAMES.map(PathBuf::from));
        drop(other);
        assert!(NAMES.iter().all(|name| take_away(&root, Path::new(name))));
        assert!(paths.iter().all(|path| path.exists()), "somebody holds them");
        release(adopted, &paths);
        assert!(paths.iter().all(|path| !path.exists()));
    }

    #[test]
    fn what_somebody_wrote_is_neither_taken_away_nor_held() {
        let (_folder, git) = repository();
        fs::write(git.join("commondir"), "../elsewhere\n").expect("room");
        std::os::unix::fs::symlink("/dev/null", git.join("config.worktree")).expect("a link");
        let root = Directory::open_real(&git).expect("a folder");
        assert_eq!(
            hold(&[git.join("commondir"), git.join("config.worktree"), git.join("absent/commondir")]).0.len(),
            0
        );
        for name in ["commondir", "config.worktree", "info/attributes", "config"] {
            assert!(!take_away(&root, Path::new(name)), "{name}");
        }
        assert!(git.join("commondir").exists() && git.join("config.worktree").is_symlink());
    }

    #[test]
    fn what_has_to_be_there_has_no_stand_in() {
        for path in ["/r/.git/worktrees/w/commondir", "/w/attributes", "/r/.git/config", "/"] {
            assert_eq!(content(Path::new(path)), None, "{path}");
        }
        assert!(content(Path::new("/r/.git/worktrees/w/config.worktree")).is_some());
    }
}
