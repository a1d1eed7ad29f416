//! Where an agent's sockets are. Their paths must fit into a socket address (108 bytes with the zero at the end,
//! unix(7)); where they do not, a short private folder is used, and a link stands in the usual place.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, symlink};
use std::path::{Path, PathBuf};

/// Longest path of a socket, in bytes.
pub const MAX_SOCKET_PATH: usize = 107;
/// The longer of the two file names, with its separator.
const LONGEST_NAME: usize = "/notify".len();

/// A folder for one agent's sockets, removed when dropped.
#[derive(Debug)]
pub struct DoorFolder {
    path: PathBuf,
    link: Option<PathBuf>,
}

impl DoorFolder {
    /// Makes `wanted`, or a folder below `short` with a link to it at `wanted`; `number` tells apart those that
    /// share `short`, which must be private to this process.
    ///
    /// # Errors
    /// When a folder or the link cannot be made, or even the short path is too long.
    pub fn make(wanted: &Path, short: impl FnOnce() -> io::Result<PathBuf>, number: u64) -> io::Result<Self> {
        remove(wanted)?;
        if fits(wanted) {
            private(wanted)?;
            return Ok(Self { path: wanted.to_owned(), link: None });
        }
        let path = short()?.join(number.to_string());
        if !fits(&path) {
            let text = format!("the path of a socket is too long: {}/notify", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidFilename, text));
        }
        remove(&path)?;
        private(&path)?;
        if let Some(parent) = wanted.parent() {
            private(parent)?;
        }
        symlink(&path, wanted)?;
        Ok(Self { path, link: Some(wanted.to_owned()) })
    }

    /// The folder that [`DoorFolder::make`] made for `wanted` in another process.
    ///
    /// # Errors
    /// When there is none.
    pub fn find(wanted: &Path) -> io::Result<Self> {
        if wanted.symlink_metadata()?.is_symlink() {
            return Ok(Self { path: wanted.canonicalize()?, link: Some(wanted.to_owned()) });
        }
        Ok(Self { path: wanted.to_owned(), link: None })
    }

    /// Where the sockets are.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for DoorFolder {
    fn drop(&mut self) {
        let _ = remove(&self.path);
        if let Some(link) = &self.link {
            let _ = remove(link);
        }
    }
}

fn fits(folder: &Path) -> bool {
    folder.as_os_str().len() + LONGEST_NAME <= MAX_SOCKET_PATH
}

fn private(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Removes what an earlier run left: a folder, or a link that is not followed.
fn remove(path: &Path) -> io::Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn a_short_path_is_used_as_it_is() {
        let root = tempfile::tempdir().expect("a folder");
        let wanted = root.path().join("p/a");
        let door =
            DoorFolder::make(&wanted, || panic!("no short folder is needed"), 1).expect("a door folder");
        assert_eq!(door.path(), wanted);
        drop(door);
        assert!(!wanted.exists());
    }

    #[test]
    fn a_long_path_becomes_a_link_to_a_short_one() {
        let root = tempfile::tempdir().expect("a folder");
        let wanted = root.path().join("x".repeat(63)).join("y".repeat(63));
        let short = root.path().join("s");
        let door = DoorFolder::make(&wanted, || Ok(short.clone()), 7).expect("a door folder");
        assert_eq!(door.path(), short.join("7"));
        UnixDatagram::bind(door.path().join("notify")).expect("it fits now");
        assert!(wanted.join("notify").exists());
        drop(door);
        assert!(!wanted.exists() && !short.join("7").exists());
    }

    #[test]
    fn a_link_that_somebody_left_is_replaced_not_followed() {
        let root = tempfile::tempdir().expect("a folder");
        let (wanted, precious) = (root.path().join("a"), root.path().join("precious"));
        std::fs::create_dir(&precious).expect("a folder");
        std::fs::write(precious.join("file"), "kept").expect("room");
        symlink(&precious, &wanted).expect("a link");
        let _door = DoorFolder::make(&wanted, || Err(io::ErrorKind::Other.into()), 1).expect("a door folder");
        assert!(precious.join("file").exists());
    }
}
