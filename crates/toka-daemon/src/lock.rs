//! One run of a project at a time: a lock on a file in the project's state folder, which the kernel releases however the
//! run ends. The file says who holds it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, Flock, FlockArg, fcntl};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use toka_core::RunId;

/// Longest text that is read from a lock file.
const MAX_HOLDER: u64 = 4096;

/// Who holds a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The process.
    pub pid: u32,
    /// Its run.
    pub run: RunId,
}

/// Why the lock is not ours.
#[derive(Debug, Error)]
pub enum LockError {
    /// Somebody else has it; who, if the file tells.
    #[error("the project is already running{}", holder(.0))]
    Held(Option<Holder>),
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

fn holder(holder: &Option<Holder>) -> String {
    holder
        .as_ref()
        .map(|holder| format!(" (run {}, process {})", holder.run.short(), holder.pid))
        .unwrap_or_default()
}

/// The lock, held until dropped.
#[derive(Debug)]
pub(crate) struct ProjectLock {
    file: Flock<File>,
}

impl ProjectLock {
    /// Takes the lock at `path` for `run`, or says who has it.
    ///
    /// # Errors
    /// When somebody else holds it, or the file cannot be used.
    pub(crate) fn take(path: &Path, run: RunId) -> Result<Self, LockError> {
        let io = |source: io::Error| LockError::Io { path: path.to_owned(), source };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            // It is written to: what a link leads to is none of ours.
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(path);
        let mut file = match Flock::lock(file.map_err(io)?, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((file, Errno::EWOULDBLOCK)) => return Err(LockError::Held(read_holder(file))),
            Err((_, errno)) => return Err(io(errno.into())),
        };
        let text = serde_json::to_vec(&Holder { pid: std::process::id(), run }).map_err(io::Error::from);
        let written = text.and_then(|text| {
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(&text)
        });
        written.map_err(io)?;
        Ok(Self { file })
    }

    /// The lock at `path` that somebody held for us: a duplicate of the descriptor that it was taken with.
    ///
    /// # Errors
    /// When it is not the lock any more, or that of another state folder.
    pub(crate) fn handed_over(fd: OwnedFd, path: &Path) -> Result<Self, LockError> {
        let io = |source: io::Error| LockError::Io { path: path.to_owned(), source };
        let file = File::from(fd);
        let (theirs, ours) = (file.metadata().map_err(io)?, path.metadata().map_err(io)?);
        if (theirs.dev(), theirs.ino()) != (ours.dev(), ours.ino()) {
            return Err(io(io::Error::other("the keeper holds the lock of another state folder")));
        }
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(Self { file }),
            Err((file, Errno::EWOULDBLOCK)) => Err(LockError::Held(read_holder(file))),
            Err((_, errno)) => Err(LockError::Io { path: path.to_owned(), source: errno.into() }),
        }
    }

    /// A duplicate for somebody who holds it beyond our life.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub(crate) fn duplicate(&self) -> io::Result<OwnedFd> {
        Ok(self.file.try_clone()?.into())
    }

    /// Runs `start`, during which a child that is executed inherits the lock: the keeper, which may outlive us to stop
    /// the agents, keeps the next run out until it is done. Agents get no descriptors.
    pub(crate) async fn shared_with_child<T>(&self, start: impl Future<Output = T>) -> T {
        self.on_exec(FdFlag::empty());
        let outcome = start.await;
        self.on_exec(FdFlag::FD_CLOEXEC);
        outcome
    }

    fn on_exec(&self, flags: FdFlag) {
        // On a descriptor that is open this cannot fail (fcntl(2)).
        let _ = fcntl(&*self.file, FcntlArg::F_SETFD(flags));
    }
}

fn read_holder(file: File) -> Option<Holder> {
    let mut text = String::new();
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
        assert_eq!(holder, Holder { pid: std::process::id(), run });
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
        let end = |child: &mut std::process::Child| {
            drop(child.stdin.take());
            child.wait().expect("it ends");
        };
        assert!(matches!(ProjectLock::take(&path, run), Err(LockError::Held(_))));
        end(&mut child);
        ProjectLock::take(&path, run).expect("the other child has inherited nothing");
        end(&mut stranger);
    }

    #[test]
    fn a_folder_in_its_place_is_an_error_with_the_path() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = ProjectLock::take(folder.path(), RunId::from_uuid(Uuid::nil())).expect_err("no file");
        assert!(error.to_string().contains(&folder.path().display().to_string()));
    }
}
