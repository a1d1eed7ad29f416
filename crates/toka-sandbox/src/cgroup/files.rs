//! The few things one does with files of a control group, with errors that name the file.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Writes a whole value in one write(2), as the kernel's files want it.
pub(super) fn write(path: &Path, value: &str) -> io::Result<()> {
    File::options().write(true).open(path)?.write_all(value.as_bytes())
}

/// Reads a short file in one read(2): these are read at the end of every agent, and asking for their size first, as
/// the standard library does, would double the calls.
fn short(path: &Path) -> Option<String> {
    let mut text = [0; 1024];
    let length = File::open(path).ok()?.read(&mut text).ok()?;
    str::from_utf8(&text[..length]).ok().map(str::to_owned)
}

/// Reads a file that holds one number; `None` for `max`, garbage and absence.
pub(super) fn number(path: &Path) -> Option<u64> {
    short(path)?.trim().parse().ok()
}

/// Reads the number behind `key` in a file of `key value` lines.
pub(super) fn keyed(path: &Path, key: &str) -> Option<u64> {
    let text = short(path)?;
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Reads `some avg10=` of a pressure file, in percent.
pub(super) fn pressure(path: &Path) -> Option<f64> {
    let text = short(path)?;
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    some.split(' ')
        .find_map(|field| field.strip_prefix("avg10=")?.parse().ok())
        .filter(|share: &f64| share.is_finite())
}

/// The process ids in a `cgroup.procs` file.
pub(super) fn processes(folder: &Path) -> Vec<i32> {
    let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// The groups directly below a group.
pub(super) fn children(folder: &Path) -> Vec<PathBuf> {
    // As in other file systems a folder has two links and one for each folder in it (inode(7)); a list names thirty files too.
    if fs::metadata(folder).is_ok_and(|found| found.nlink() == 2) {
        return Vec::new();
    }
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}
