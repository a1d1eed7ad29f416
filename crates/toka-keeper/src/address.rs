//! Paths of sockets, however long: a socket's address has room for 107 bytes (unix(7)), so where the path does not fit its
//! folder is opened and named by its descriptor.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::socket::UnixAddr;

/// Longest path in an address, in bytes.
const MAX_PATH: usize = 107;

/// Gives `act` the address of the socket at `path`, which is good for as long as that takes.
///
/// # Errors
/// As `act`, and when the folder cannot be opened or even the name of the file is too long.
pub(crate) fn with_address<T>(path: &Path, act: impl FnOnce(&UnixAddr) -> nix::Result<T>) -> io::Result<T> {
    if path.as_os_str().len() <= MAX_PATH {
        return Ok(act(&UnixAddr::new(path)?)?);
    }
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidFilename.into());
    };
    let flags = (OFlag::O_PATH | OFlag::O_DIRECTORY).bits();
    let folder = File::options().read(true).custom_flags(flags).open(folder)?;
    let short = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
    Ok(act(&UnixAddr::new(&short)?)?)
}
