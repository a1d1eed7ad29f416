//! Reports as lines of JSON in Toka's own folder of the agent: the agent does not see them, and no path of its choice is written.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// A file that has grown beyond this many bytes is set aside, in the place of the one before.
const LARGEST: u64 = 16 * 1024 * 1024;

/// Adds a line to the file at `path`.
///
/// # Errors
/// When it cannot be written.
pub(super) fn append(path: &Path, report: &[u8]) -> io::Result<()> {
    let mut file = open(path)?;
    if file.metadata()?.len() > LARGEST {
        std::fs::rename(path, path.with_extension("jsonl.1"))?;
        file = open(path)?;
    }
    // In one write, so that a reader never sees half of it.
    file.write_all(&[report, b"\n"].concat())
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_added_and_a_large_file_is_set_aside() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("reports.jsonl");
        for report in ["{}", "{\"a\":1}"] {
            append(&path, report.as_bytes()).expect("room");
        }
        assert_eq!(std::fs::read_to_string(&path).expect("there"), "{}\n{\"a\":1}\n");
        File::options().write(true).open(&path).and_then(|file| file.set_len(LARGEST + 1)).expect("a hole");
        append(&path, b"{}").expect("room");
        assert_eq!(std::fs::read_to_string(&path).expect("there"), "{}\n");
        assert!(folder.path().join("reports.jsonl.1").metadata().expect("there").len() > LARGEST);
    }
}
