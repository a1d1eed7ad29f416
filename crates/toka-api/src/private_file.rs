//! Writes files that only the user of Toka may read, in folders that no agent can write.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Writes the file `path` in one step: a reader finds all of `bytes` or the former content, also after a crash or on a full disk.
/// The caller makes sure that only one process replaces `path` at a time: all use the same name beside it, `path` with `.new` after it.
///
/// # Errors
/// When it cannot be written.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    std::fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_file_is_whole_its_owners_alone_and_stays_when_it_cannot_be_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("record.json");
        replace(&path, b"one").expect("room");
        assert_eq!(path.metadata().expect("there").mode() & 0o777, 0o600);
        std::fs::create_dir(folder.path().join("record.json.new")).expect("room");
        replace(&path, b"two").expect_err("the name beside it is taken by a directory");
        assert_eq!(std::fs::read(&path).expect("there"), b"one");
        std::fs::remove_dir(folder.path().join("record.json.new")).expect("there");
        replace(&path, b"two").expect("room");
        assert_eq!(std::fs::read(&path).expect("there"), b"two");
        assert_eq!(std::fs::read_dir(folder.path()).expect("there").count(), 1, "nothing is left beside it");
    }
}
