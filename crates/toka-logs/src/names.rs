//! How the files of logs are called.

use std::path::{Path, PathBuf};

use super::index::Mark;

/// Ends the name of an older log's bytes.
pub(super) const LOG: &str = ".log";
/// Ends the name of its index.
pub(super) const INDEX: &str = ".log.index";
/// Ends the name of a compressed file.
pub(super) const GZIP: &str = ".gz";
/// Ends the name of a file that is being compressed.
pub(super) const PART: &str = ".part";

/// The folder of the older logs of the current log `log`.
pub fn older_folder(log: &Path) -> PathBuf {
    log.with_file_name("logs")
}

/// Begin of the names of the two files of an older log.
pub(super) fn stem(mark: Mark) -> String {
    format!("{}.{:06}", mark.run, mark.number)
}

/// The path with something at its end.
pub(super) fn with(path: &Path, end: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(end);
    PathBuf::from(path)
}
