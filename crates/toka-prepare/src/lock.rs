//! One run of a project at a time: a lock on a file in the project's state folder, which the kernel releases however the
//! run ends. The file says who holds it.
//!
//! A run locks the first byte, writes its process and its id into the file, and then locks the second byte. While the second byte
//! is free, the file still names the holder before.
//!
//! The lock is of the open file description (`F_OFD_SETLK`, fcntl_locking(2)): the keeper inherits the descriptor and shares the
//! lock, and other commands ask the kernel for the lock without taking it, which flock(2) has no way to.

use std::ffi::{c_int, c_short};
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use toka_core::RunId;
use toka_keeper::process::{self, Presence, presence};

/// Longest text that is read from a lock file.
const MAX_HOLDER: u64 = 4096;

/// Who holds a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The process.
    pub pid: u32,
    /// When that began, in clock ticks after boot: the number alone may be another's by now.
    #[serde(default)]
    pub start_time: Option<u64>,
    /// The PID namespace of the number (pid_namespaces(7)): in another one the number means another process.
    #[serde(default)]
    pub pid_namespace: Option<u64>,
    /// Its run.
    pub run: RunId,
}

/// Why the lock is not ours.
#[derive(Debug, Error)]
pub enum LockError {
    /// Another run has the lock; which one, if the file tells.
    #[error("the project is already running{}", holder(.0))]
    Held(Option<Holder>),
    /// The process that took the lock was killed, and its keeper has it: to end the agents, or until the next daemon comes.
    #[error("run {} of the project was killed (process {}), and its keeper still has the agents", .0.run.short(), .0.pid)]
    Kept(Holder),
    /// The file cannot be made, written or locked.
    #[error("lock {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The error.
        #[source]
        source: io::Error,
    },
}

impl Holder {
    fn ourselves(run: RunId) -> Self {
        let pid = std::process::id();
        Self { pid, start_time: process::start_time(pid.cast_signed()), pid_namespace: pid_namespace(), run }
    }

    /// Whether the process may be alive. Of a process in another PID namespace this process cannot tell.
    fn is_alive(&self) -> bool {
        let pid = self.pid.cast_signed();
        if self.pid_namespace.is_some() && self.pid_namespace != pid_namespace() {
            return true;
        }
        presence(pid) == Presence::Alive
            && self.start_time.is_none_or(|begun| process::start_time(pid) == Some(begun))
    }
}

fn pid_namespace() -> Option<u64> {
    std::fs::metadata("/proc/self/ns/pid").ok().map(|namespace| namespace.ino())
}

impl LockError {
    fn held(file: File) -> Self {
        match named_holder(file) {
            Some(holder) if !holder.is_alive() => Self::Kept(holder),
            holder => Self::Held(holder),
        }
    }
}

fn holder(holder: &Option<Holder>) -> String {
    holder
        .as_ref()
        .map(|holder| format!(" (run {}, process {})", holder.run.short(), holder.pid))
        .unwrap_or_default()
}

/// The lock, held until dropped.
#[derive(Debug)]
pub struct ProjectLock {
    file: File,
}

impl ProjectLock {
    /// Takes the lock at `path` for `run`, or says who has it.
    ///
    /// # Errors
    /// When somebody else holds it, or the file cannot be used.
    pub fn take(path: &Path, run: RunId) -> Result<Self, LockError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            // It is written to: what a link leads to is none of ours.
            .custom_flags(libc::O_NOFOLLOW)
            .open(path);
        Self::lock(file.map_err(failed(path))?, path, run)
    }

    /// The lock at `path` that somebody held for us: a duplicate of the descriptor that it was taken with.
    ///
    /// # Errors
    /// When it is not the lock any more, or that of another state folder.
    pub fn handed_over(fd: OwnedFd, path: &Path, run: RunId) -> Result<Self, LockError> {
        let file = File::from(fd);
        let of = |metadata: Metadata| (metadata.dev(), metadata.ino());
        let theirs = file.metadata().map_err(failed(path))?;
        if of(theirs) != of(path.metadata().map_err(failed(path))?) {
            return Err(failed(path)(io::Error::other("the keeper holds the lock of another state folder")));
        }
        Self::lock(file, path, run)
    }

    /// Locks the file, and writes into it who has it now.
    fn lock(mut file: File, path: &Path, run: RunId) -> Result<Self, LockError> {
        let set = |what: libc::flock| fcntl(&file, FcntlArg::F_OFD_SETLK(&what)).map(drop);
        match set(part(libc::F_WRLCK, TAKEN)) {
            Ok(()) => {}
            Err(Errno::EAGAIN | Errno::EACCES) => return Err(LockError::held(file)),
            Err(errno) => return Err(failed(path)(errno.into())),
        }
        // That of a keeper who hands it over is ours too.
        set(part(libc::F_UNLCK, NAMED)).map_err(|errno| failed(path)(errno.into()))?;
        let text = serde_json::to_vec(&Holder::ourselves(run)).map_err(io::Error::from);
        let written = text.and_then(|text| {
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(&text)
        });
        let named = fcntl(&file, FcntlArg::F_OFD_SETLK(&part(libc::F_WRLCK, NAMED)));
        let lock = Self { file };
        written.map_err(failed(path))?;
        named.map_err(|errno| failed(path)(errno.into()))?;
        Ok(lock)
    }

    /// A duplicate for somebody who holds it beyond our life.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        Ok(self.file.try_clone()?.into())
    }

    /// Runs `start`, during which a child that is executed inherits the lock: the keeper, which may outlive us to stop
    /// the agents, keeps the next run out until it is done. Agents get no descriptors.
    pub async fn shared_with_child<T>(&self, start: impl Future<Output = T>) -> T {
        self.on_exec(FdFlag::empty());
        let outcome = start.await;
        self.on_exec(FdFlag::FD_CLOEXEC);
        outcome
    }

    fn on_exec(&self, flags: FdFlag) {
        // On a descriptor that is open this cannot fail (fcntl(2)).
        let _ = fcntl(&self.file, FcntlArg::F_SETFD(flags));
    }
}

impl Drop for ProjectLock {
    /// Releases the lock for every duplicate: the keeper has none either when the run is over.
    fn drop(&mut self) {
        // It is open, and ours (fcntl_locking(2)).
        for byte in [NAMED, TAKEN] {
            let _ = fcntl(&self.file, FcntlArg::F_OFD_SETLK(&part(libc::F_UNLCK, byte)));
        }
    }
}

/// The byte whose lock keeps other runs out, and the byte whose lock says that the file names the holder.
const TAKEN: libc::off_t = 0;
const NAMED: libc::off_t = 1;

/// What is done with one byte; it need not be there.
fn part(kind: c_int, byte: libc::off_t) -> libc::flock {
    libc::flock {
        l_type: kind as c_short,
        l_whence: libc::SEEK_SET as c_short,
        l_start: byte,
        l_len: 1,
        // Asked for by fcntl_locking(2).
        l_pid: 0,
    }
}

fn failed(path: &Path) -> impl Fn(io::Error) -> LockError {
    |source| LockError::Io { path: path.to_owned(), source }
}

/// Whether a run or a keeper has the lock at `path`. True, too, when the file cannot be opened: its project is then left alone.
pub fn is_held(path: &Path) -> bool {
    match look_at(path) {
        Ok(file) => is_locked(&file, TAKEN),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// What taking the lock at `path` would end with now; none when it is free.
pub fn would_refuse(path: &Path) -> Option<LockError> {
    look_at(path).ok().filter(|file| is_locked(file, TAKEN)).map(LockError::held)
}

/// The holder of the lock at `path`, if that process was killed and its keeper still has the lock.
pub fn kept(path: &Path) -> Option<Holder> {
    let file = look_at(path).ok().filter(|file| is_locked(file, TAKEN))?;
    named_holder(file).filter(|holder| !holder.is_alive())
}

fn look_at(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)
}

/// Asks the kernel whether the byte is locked. That takes no lock, so it keeps out no run that begins at this moment.
fn is_locked(file: &File, byte: libc::off_t) -> bool {
    let mut answer = part(libc::F_WRLCK, byte);
    let told = fcntl(file, FcntlArg::F_OFD_GETLK(&mut answer));
    told.is_err() || c_int::from(answer.l_type) != libc::F_UNLCK
}

/// The holder that the file names; none while a run has taken the lock and has not written its name yet.
fn named_holder(file: File) -> Option<Holder> {
    let holder = is_locked(&file, NAMED).then(|| file.try_clone().ok().and_then(read_holder)).flatten()?;
    // Another run may have taken the lock between these two looks.
    is_locked(&file, NAMED).then_some(holder)
}

fn read_holder(mut file: File) -> Option<Holder> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(MAX_HOLDER).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use uuid::Uuid;

    use super::*;

    #[test]
    fn the_second_is_told_who_the_first_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lock");
        let run = RunId::from_uuid(Uuid::now_v7());
        let first = ProjectLock::take(&path, run).expect("free");
        let Err(LockError::Held(Some(holder))) = ProjectLock::take(&path, run) else { panic!("it is held") };
        assert_eq!(holder, Holder::ourselves(run));
        drop(first);
        ProjectLock::take(&path, run).expect("free again");
    }

    #[tokio::test]
    async fn a_child_that_inherits_the_lock_keeps_it_for_us() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lock");
        let run = RunId::from_uuid(Uuid::nil());
        let first = ProjectLock::take(&path, run).expect("free");
        let cat = || {
            let mut command = std::process::Command::new("cat");
            command.stdin(std::process::Stdio::piped()).spawn().expect("cat")
        };
        let mut child = first.shared_with_child(async { cat() }).await;
        let mut stranger = cat();
        // As after kill -9: the descriptor is closed, and nobody unlocks.
        nix::unistd::close(first.file.as_raw_fd()).expect("open");
        std::mem::forget(first);
        assert_eq!(kept(&path), None, "whoever took it lives");
        assert!(is_held(&path));
        let end = |child: &mut std::process::Child| {
            drop(child.stdin.take());
            child.wait().expect("it ends");
        };
        assert!(matches!(ProjectLock::take(&path, run), Err(LockError::Held(_))));
        let gone = Holder { pid: gone(), start_time: None, pid_namespace: None, run };
        std::fs::write(&path, serde_json::to_vec(&gone).expect("data")).expect("written");
        assert_eq!(kept(&path), Some(gone.clone()));
        assert!(matches!(ProjectLock::take(&path, run), Err(LockError::Kept(holder)) if holder == gone));
        let elsewhere = Holder { pid_namespace: Some(1), ..gone };
        std::fs::write(&path, serde_json::to_vec(&elsewhere).expect("data")).expect("written");
        assert_eq!(kept(&path), None, "nobody here knows");
        // Another process has the number now.
        let other = Holder { start_time: Some(0), ..Holder::ourselves(run) };
        std::fs::write(&path, serde_json::to_vec(&other).expect("data")).expect("written");
        assert_eq!(kept(&path), Some(other));
        end(&mut child);
        assert_eq!(kept(&path), None, "nobody has it");
        assert!(!is_held(&path) && !is_held(&folder.path().join("missing")));
        ProjectLock::take(&path, run).expect("the other child has inherited nothing");
        end(&mut stranger);
    }

    /// The id of a process that has ended.
    fn gone() -> u32 {
        let mut child = std::process::Command::new("true").spawn().expect("true");
        child.wait().expect("it ends");
        child.id()
    }

    /// Between taking the lock and writing its name, the file names the holder before, which is gone.
    #[test]
    fn whoever_is_about_to_take_it_is_not_taken_for_the_one_before() {
        use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lock");
        let run = RunId::from_uuid(Uuid::nil());
        let gone = Holder { pid: gone(), start_time: None, pid_namespace: None, run };
        let gone = serde_json::to_vec(&gone).expect("data");
        std::fs::write(&path, &gone).expect("written");
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..2_000 {
                    drop(ProjectLock::take(&path, run).expect("nobody else takes it"));
                    std::fs::write(&path, &gone).expect("written");
                }
                is_over.store(true, Relaxed);
            });
            while !is_over.load(Relaxed) {
                assert_eq!(kept(&path), None);
            }
        });
    }

    #[test]
    fn a_folder_in_its_place_is_an_error_with_the_path() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = ProjectLock::take(folder.path(), RunId::from_uuid(Uuid::nil())).expect_err("no file");
        assert!(error.to_string().contains(&folder.path().display().to_string()));
    }
}
