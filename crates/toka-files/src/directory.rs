//! A directory that is held open, and lookups that never leave it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Stat, Uid, chmodat, fchown,
    fstat, mkdirat, openat, openat2, readlinkat, renameat_with, statat,
};
use rustix::io::Errno;

use crate::read::{READ, ReadError, read_all, regular};

/// How often a lookup is tried again that another process's renames disturbed (openat2(2): `EAGAIN`).
const TRIES: usize = 100;
/// Longest name of a file (pathconf(3): `NAME_MAX`).
const LONGEST_NAME: usize = 255;
/// How often another name is tried for something that is set aside, when one is taken.
const NAMES: usize = 16;

/// A directory that is held open. Nothing below it is reached through a link or through `..`.
#[derive(Debug)]
pub struct Directory(OwnedFd);

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Directory {
    /// Opens the directory at `path`, which no agent can replace: a workspace, a directory of Toka's own.
    ///
    /// # Errors
    /// When it cannot be opened or is no directory.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(openat(CWD, path, flags, Mode::empty())?))
    }

    /// Opens the directory at `path`, in which there was no link when somebody decided about it.
    ///
    /// # Errors
    /// When it cannot be opened, is no directory, or a link is on the way.
    pub fn open_real(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        Ok(Self(openat2(CWD, path, flags, Mode::empty(), resolve)?))
    }

    /// Makes an empty directory, unless something has the name; it belongs to `owner` (user and group), if there is one.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn make_directory(&self, name: &OsStr, owner: Option<(u32, u32)>) -> io::Result<()> {
        match mkdirat(&self.0, name, Mode::from_raw_mode(0o777)) {
            Err(Errno::EXIST) => Ok(()),
            made => {
                made?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                give(openat(&self.0, name, flags, Mode::empty())?, owner)
            }
        }
    }

    /// Makes an empty file, unless something has the name; it belongs to `owner` (user and group), if there is one.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn make_file(&self, name: &OsStr, owner: Option<(u32, u32)>) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(&self.0, name, flags, Mode::from_raw_mode(0o666)) {
            Err(Errno::EXIST) => Ok(()),
            made => give(made?, owner),
        }
    }

    /// Makes a file that only its owner can read, for writing.
    ///
    /// # Errors
    /// When it cannot be made, or something has the name.
    pub fn new_private_file(&self, name: &OsStr) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(&self.0, name, flags, Mode::from_raw_mode(0o600))?.into())
    }

    /// Removes `file` from this directory, if it is what has the name there.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove_file(&self, name: &OsStr, file: &File) -> io::Result<()> {
        let (there, own) = (statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)?, fstat(file)?);
        if (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino) {
            rustix::fs::unlinkat(&self.0, name, AtFlags::empty())?;
        }
        Ok(())
    }

    /// The directory at `path` below this one; an empty path is this one.
    ///
    /// # Errors
    /// When it is not there, is no directory, or a link is on the way.
    pub fn directory(&self, path: &Path) -> io::Result<Self> {
        self.lookup(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC).map(Self)
    }

    /// Opens the regular file at `path` below this directory for reading.
    ///
    /// # Errors
    /// When it is not there, is no regular file, or a link is on the way.
    pub fn file(&self, path: &Path) -> Result<File, ReadError> {
        regular(self.lookup(path, READ)?)
    }

    /// Reads the regular file at `path` below this directory.
    ///
    /// # Errors
    /// When it cannot be opened or read, is no regular file, or is longer than `limit` bytes.
    pub fn read(&self, path: &Path, limit: u64) -> Result<Vec<u8>, ReadError> {
        read_all(self.lookup(path, READ)?, limit)
    }

    /// As [`Directory::read`], as text.
    ///
    /// # Errors
    /// As [`Directory::read`], and when it is not UTF-8.
    pub fn read_text(&self, path: &Path, limit: u64) -> Result<String, ReadError> {
        String::from_utf8(self.read(path, limit)?).map_err(|_| ReadError::NotText)
    }

    /// What is at `path` below this directory; a link is told as itself.
    ///
    /// # Errors
    /// When nothing is there, or a link is on the way.
    pub fn status(&self, path: &Path) -> io::Result<Stat> {
        let (parent, name) = self.parent(path)?;
        Ok(statat(&parent.0, name, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// What kind of file is at `path`; `None` when nothing is there or a link is on the way.
    pub fn kind(&self, path: &Path) -> Option<FileType> {
        self.status(path).ok().map(|status| FileType::from_raw_mode(status.st_mode))
    }

    /// As [`Directory::kind`], for what lies in directories that their owner, who calls, has closed to itself: they are opened.
    pub fn kind_as_owner(&self, path: &Path) -> Option<FileType> {
        match self.status(path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let above: Vec<&Path> = path.ancestors().skip(1).collect();
                above.into_iter().rev().for_each(|above| {
                    // Of what is not ours, or a link, nothing is changed.
                    let _ = self.directory(above).and_then(|it| it.open_to_its_owner());
                });
                self.kind(path)
            }
            found => found.ok().map(|status| FileType::from_raw_mode(status.st_mode)),
        }
    }

    /// Where the link at `path` leads.
    ///
    /// # Errors
    /// When it is no link.
    pub fn link(&self, path: &Path) -> io::Result<PathBuf> {
        let (parent, name) = self.parent(path)?;
        let target = readlinkat(&parent.0, name, Vec::new())?;
        Ok(PathBuf::from(OsStr::from_bytes(target.to_bytes())))
    }

    /// The names in this directory with their kinds, but for `.` and `..`, at most `limit` of them, in no order.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn entries(&self, limit: usize) -> io::Result<Vec<(OsString, FileType)>> {
        let readable =
            openat(&self.0, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let mut found = Vec::new();
        for entry in Dir::new(readable)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            if found.len() == limit {
                break;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => self.kind(Path::new(name)).unwrap_or(FileType::Unknown),
                kind => kind,
            };
            found.push((name.to_owned(), kind));
        }
        Ok(found)
    }

    /// Renames what is at `path` to a name beside it that nothing has and nothing obeys; that name.
    ///
    /// # Errors
    /// When it cannot be renamed.
    pub fn set_aside(&self, path: &Path, why: &str) -> io::Result<OsString> {
        let (parent, name) = self.parent(path)?;
        for attempt in 0..NAMES {
            let mut aside = OsString::from(name);
            let number = RandomState::new().hash_one(attempt) as u32;
            aside.push(format!(".{why}-{number:08x}"));
            if aside.len() > LONGEST_NAME {
                aside = OsString::from(format!("set-aside-{number:08x}"));
            }
            match renameat_with(&parent.0, name, &parent.0, &aside, RenameFlags::NOREPLACE) {
                Ok(()) => return Ok(aside),
                Err(Errno::EXIST) => {}
                // Who owns a directory can close it to itself, and open it again.
                Err(Errno::ACCESS) if attempt == 0 && parent.open_to_its_owner().is_ok() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Errno::EXIST.into())
    }

    /// Lets its owner, who calls, list it, and make and remove names in it.
    ///
    /// # Errors
    /// When it is another's.
    pub fn open_to_its_owner(&self) -> io::Result<()> {
        let mode = Mode::from_raw_mode(fstat(&self.0)?.st_mode);
        if mode.contains(Mode::RWXU) {
            return Ok(());
        }
        let mode = mode | Mode::RWXU;
        Ok(chmodat(CWD, format!("/proc/self/fd/{}", self.0.as_raw_fd()), mode, AtFlags::empty())?)
    }

    /// The directory that holds `path`, and its name there.
    fn parent<'a>(&self, path: &'a Path) -> io::Result<(Self, &'a OsStr)> {
        let name = path.file_name().ok_or(Errno::INVAL)?;
        Ok((self.directory(path.parent().unwrap_or(Path::new("")))?, name))
    }

    fn lookup(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        if path.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Err(Errno::XDEV.into());
        }
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let mut tries = 0;
        loop {
            match openat2(&self.0, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) if tries < TRIES => tries += 1,
                other => return Ok(other?),
            }
        }
    }
}

/// Gives away what was just made, by its descriptor: its name may be another's by now.
fn give(made: OwnedFd, owner: Option<(u32, u32)>) -> io::Result<()> {
    let Some((uid, gid)) = owner else { return Ok(()) };
    Ok(fchown(&made, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_regular_files_below_the_directory_are_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let inside = folder.path().join("in");
        fs::create_dir_all(inside.join("deep")).expect("a folder");
        fs::write(folder.path().join("secret"), "no").expect("room");
        fs::write(inside.join("deep/file"), "yes").expect("room");
        symlink("../secret", inside.join("link")).expect("a link");
        symlink("..", inside.join("up")).expect("a link");
        let fifo = inside.join("fifo");
        rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).expect("a pipe");
        let directory = Directory::open(&inside).expect("a folder");
        assert_eq!(directory.read(Path::new("deep/file"), 3).expect("a file"), b"yes");
        for (path, why) in [
            ("link", "a symbolic link is on the way to it"),
            ("up/secret", "a symbolic link is on the way to it"),
            ("../secret", "its path leaves the directory that it is looked up in"),
            ("/etc/passwd", "its path leaves the directory that it is looked up in"),
            ("fifo", "it is not a regular file"),
            ("deep", "it is not a regular file"),
            ("absent", "No such file or directory (os error 2)"),
        ] {
            assert_eq!(directory.read(Path::new(path), 10).expect_err(path).to_string(), why, "{path}");
        }
        let error = directory.read(Path::new("deep/file"), 2).expect_err("too long");
        assert_eq!(error.to_string(), "it is longer than 2 bytes");
        assert!(matches!(crate::read_named(&fifo, 1), Err(ReadError::NotRegular)));
        assert_eq!(crate::read_named(&inside.join("link"), 9).expect("followed"), b"no");
        let real = inside.canonicalize().expect("a path");
        crate::read_real(&real.join("link"), 9).expect_err("not followed");
        assert_eq!(crate::read_real(&real.join("deep/file"), 9).expect("a file"), b"yes");
    }

    #[test]
    fn what_is_set_aside_replaces_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("agents")).expect("a folder");
        let directory = Directory::open(folder.path()).expect("a folder");
        let aside = directory.set_aside(Path::new("agents"), "from-web").expect("renamed");
        assert!(aside.to_string_lossy().starts_with("agents.from-web-"), "{aside:?}");
        assert!(directory.kind(Path::new("agents")).is_none());
        assert_eq!(directory.kind(Path::new(&aside)), Some(FileType::Directory));
        symlink("/elsewhere", folder.path().join("agents")).expect("a link");
        directory.set_aside(Path::new("agents"), "from-web").expect("the link itself");
        assert_eq!(directory.entries(10).expect("readable").len(), 2);
    }
}
