//! Where control sockets are, and how one is made although its path may be too long for a socket address.

use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::libc;
use toka_core::ProjectName;

/// The file name of a foreground run's socket.
const PROJECT: &str = "control.sock";
/// The file name of a service's socket.
pub(super) const DAEMON: &str = "daemon.sock";
/// The file name of the socket at which a keeper waits for its next daemon.
pub const KEEPER: &str = "keeper.sock";

/// Where a foreground run of `project` answers.
pub fn project_socket(run_dir: &Path, project: &ProjectName) -> PathBuf {
    run_dir.join(project.as_str()).join(PROJECT)
}

/// Where a service answers.
pub fn daemon_socket(run_dir: &Path) -> PathBuf {
    run_dir.join(DAEMON)
}

/// Every control socket that there is in a run folder, the service's first; whether anybody answers is another question.
///
/// # Errors
/// When the folder is there and cannot be read: it is another user's.
pub fn sockets(run_dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match run_dir.read_dir() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path().join(PROJECT)).collect();
    found.sort();
    found.insert(0, daemon_socket(run_dir));
    found.retain(|path| path.symlink_metadata().is_ok());
    Ok(found)
}

/// The projects whose keepers wait for a daemon, or had one that was killed with them.
pub fn orphaned(run_dir: &Path) -> Vec<ProjectName> {
    projects_with(KEEPER, run_dir)
}

/// The projects that a run in the foreground answers for, or one that was killed.
pub fn foreground(run_dir: &Path) -> Vec<ProjectName> {
    projects_with(PROJECT, run_dir)
}

/// The projects in whose run directory there is a socket of that name.
fn projects_with(socket: &str, run_dir: &Path) -> Vec<ProjectName> {
    let entries = run_dir.read_dir().into_iter().flatten().flatten();
    let waits = entries.filter(|entry| entry.path().join(socket).symlink_metadata().is_ok());
    let mut names: Vec<ProjectName> =
        waits.filter_map(|entry| ProjectName::new(entry.file_name().to_str()?).ok()).collect();
    names.sort();
    names
}

/// The project whose run in the foreground listens at `socket`; none when that is the socket of a service.
pub fn project_of(socket: &Path) -> Option<ProjectName> {
    let folder = socket.parent().filter(|_| socket.ends_with(PROJECT))?;
    ProjectName::new(folder.file_name()?.to_str()?).ok()
}

/// A path to the same socket that fits into an address: through a descriptor of its folder, which must stay open as long
/// as the path is used.
fn short(path: &Path) -> io::Result<(std::fs::File, PathBuf)> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidFilename));
    };
    let folder = OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(folder)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
    Ok((folder, path))
}

/// Makes the socket at `path` for its owner alone. One that nobody listens at any more is replaced.
///
/// # Errors
/// When somebody listens there ([`io::ErrorKind::AddrInUse`]), or it cannot be made.
pub fn bind(path: &Path) -> io::Result<tokio::net::UnixListener> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let (_folder, short) = short(path)?;
    if short.symlink_metadata().is_ok() {
        if std::os::unix::net::UnixStream::connect(&short).is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        std::fs::remove_file(&short)?;
    }
    let listener = tokio::net::UnixListener::bind(&short)?;
    std::fs::set_permissions(&short, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Whether somebody listens at the socket at `path`, of whatever type it is.
pub fn is_awaited(path: &Path) -> bool {
    let Ok((_folder, short)) = short(path) else { return false };
    match std::os::unix::net::UnixStream::connect(short) {
        Ok(_) => true,
        // A full queue, or a socket of another type (unix(7)): somebody has it.
        Err(error) => matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EPROTOTYPE)),
    }
}

/// Connects to the socket at `path`.
///
/// # Errors
/// When nobody listens there.
pub async fn connect(path: &Path) -> io::Result<tokio::net::UnixStream> {
    let (_folder, short) = short(path)?;
    tokio::net::UnixStream::connect(&short).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_long_path_is_no_obstacle_and_a_dead_socket_is_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x".repeat(150)).join("control.sock");
        let first = bind(&path).expect("a socket");
        assert_eq!(path.metadata().expect("there").permissions().mode() & 0o777, 0o600);
        connect(&path).await.expect("somebody listens");
        assert_eq!(bind(&path).expect_err("somebody listens").kind(), io::ErrorKind::AddrInUse);
        drop(first);
        assert!(connect(&path).await.is_err());
        bind(&path).expect("nobody listens any more");
        assert_eq!(sockets(folder.path()).expect("ours"), [path]);
        assert!(sockets(&folder.path().join("none")).expect("nothing is there").is_empty());
    }
}
