//! From a file to a compressed one in its place, so that at each moment one of them is there whole.

use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{self, BufReader};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::names::{GZIP, PART, with};

/// How hard it tries, of 9: text becomes a tenth, at twice the speed of the usual 6.
const LEVEL: u32 = 3;
/// Bytes read at a time.
const CHUNK: usize = 128 * 1024;

/// Compresses `path` to `path.gz`, with the same time of its last change, and removes it.
///
/// # Errors
/// When a file cannot be read or written; then `path` is still there.
pub(super) fn compress(path: &Path) -> io::Result<()> {
    let (part, done) = (with(path, PART), with(path, GZIP));
    let from = File::open(path)?;
    let modified = from.metadata()?.modified()?;
    let to = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
    let copied = copy(from, to).and_then(|to| {
        to.set_times(FileTimes::new().set_modified(modified))?;
        // Before the other is removed: what a crash of the machine leaves must be one of both.
        to.sync_all()?;
        fs::rename(&part, &done)
    });
    if let Err(error) = copied {
        let _ = fs::remove_file(&part);
        return Err(error);
    }
    fs::remove_file(path)
}

fn copy(from: File, to: File) -> io::Result<File> {
    let mut from = BufReader::with_capacity(CHUNK, from);
    let mut encoder = GzEncoder::new(to, Compression::new(LEVEL));
    io::copy(&mut from, &mut encoder)?;
    encoder.finish()
}
