//! One step of looking after one agent's older logs: each leaves them whole, and there is not much to a step.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use toka_core::{ByteSize, Compression, LogPolicy};

use super::cap::excess;
use super::compress::compress;
use crate::index::Mark;
use crate::index_path;
use crate::names::{GZIP, INDEX, LOG, PART, older_folder};
use crate::place::is_missing;
use crate::segment::mark_of;

/// A file takes whole pages on disk, whatever is in it.
const PAGE: u64 = 4096;

/// Whether there is more to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Another step.
    More,
    /// Nothing, for now.
    Done,
}

/// An older log: its files, and what they take.
#[derive(Debug, Default)]
struct Older {
    files: Vec<PathBuf>,
    size: u64,
    /// When it was written last, in seconds since the Unix epoch.
    modified: i64,
}

/// Keeps the agent's logs within their cap, then compresses the oldest file that is not compressed.
pub(super) fn step(log: &Path, policy: &LogPolicy) -> io::Result<Step> {
    tidy(log)?;
    let mut older = look(log)?;
    let by_mark = older.iter().map(|(mark, older)| (*mark, older.size, *mark)).collect();
    for mark in excess(by_mark, current_size(log), policy.total.0) {
        remove(&older.remove(&mark).unwrap_or_default());
    }
    if policy.compression == Compression::Off {
        return Ok(Step::Done);
    }
    let files = older.values().flat_map(|older| &older.files);
    match files.into_iter().find(|file| is_worth_compressing(file)) {
        Some(file) => compress(file).map(|()| Step::More),
        None => Ok(Step::Done),
    }
}

/// The files of older logs of an agent that are more than may be kept; the index of each goes last. For whoever alone looks
/// after them.
///
/// # Errors
/// When their folder cannot be read.
pub fn excess_of(log: &Path, policy: &LogPolicy) -> io::Result<Vec<PathBuf>> {
    let mut older = look(log)?;
    let by_mark = older.iter().map(|(mark, older)| (*mark, older.size, *mark)).collect();
    let gone = excess(by_mark, current_size(log), policy.total.0);
    Ok(gone.iter().flat_map(|mark| older.remove(mark).unwrap_or_default().files).collect())
}

/// Keeps all older logs together within their cap.
pub(super) fn cap_all(logs: &[PathBuf], cap: ByteSize) {
    let mut all = Vec::new();
    let mut current = 0_u64;
    for log in logs {
        current = current.saturating_add(current_size(log));
        // An agent whose folder cannot be read, or has just gone, is left alone.
        for (mark, older) in look(log).unwrap_or_default() {
            all.push(((older.modified, mark), older.size, older));
        }
    }
    excess(all, current, cap.0).iter().for_each(remove);
}

/// Removes what a crash left half done. Only for whoever alone compresses these logs: what he is at looks the same.
fn tidy(log: &Path) -> io::Result<()> {
    for path in files(log)? {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let whole = name.strip_suffix(GZIP).map(|whole| path.with_file_name(whole));
        // The one that was there first counts: the other may be of a step that was broken off.
        if mark_of(name).is_some() && (name.ends_with(PART) || whole.is_some_and(|whole| whole.exists())) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

fn files(log: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(older_folder(log)) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if is_missing(&error) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// What there is, by run and number.
fn look(log: &Path) -> io::Result<BTreeMap<Mark, Older>> {
    let mut found: BTreeMap<Mark, Older> = BTreeMap::new();
    for path in files(log)? {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let Some(mark) = mark_of(name) else { continue };
        let whole = name.strip_suffix(GZIP);
        if !whole.unwrap_or(name).ends_with(LOG) && !whole.unwrap_or(name).ends_with(INDEX) {
            continue;
        }
        // It may have been removed by whoever keeps all logs within their cap.
        let Ok(metadata) = path.symlink_metadata() else { continue };
        let older = found.entry(mark).or_default();
        older.size = older.size.saturating_add(on_disk(metadata.len()));
        older.modified = older.modified.max(metadata.mtime());
        older.files.push(path);
    }
    for older in found.values_mut() {
        older.files.sort();
    }
    Ok(found)
}

fn on_disk(length: u64) -> u64 {
    length.div_ceil(PAGE).saturating_mul(PAGE)
}

fn current_size(log: &Path) -> u64 {
    let size = |path: &Path| path.metadata().map_or(0, |metadata| on_disk(metadata.len()));
    size(log).saturating_add(size(&index_path(log)))
}

/// The index goes last: without one the bytes could still be read.
fn remove(older: &Older) {
    for file in &older.files {
        let _ = fs::remove_file(file);
    }
}

/// Of what takes one page, nothing would be gained.
fn is_worth_compressing(file: &Path) -> bool {
    file.extension().is_none_or(|extension| extension != &GZIP[1..])
        && file.symlink_metadata().is_ok_and(|metadata| metadata.len() > PAGE)
}
