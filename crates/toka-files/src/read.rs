//! Reading a file to its end from one descriptor: regular, bounded, without waiting.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use thiserror::Error;

/// How a file is opened that is to be read: a pipe without a writer, a terminal or a device must not hold up the reader.
pub(crate) const READ: OFlags =
    OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// Why a file was not read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The kernel says no.
    #[error("{}", plain(.0))]
    Io(#[from] io::Error),
    /// It is a pipe, a socket, a device or a directory.
    #[error("it is not a regular file")]
    NotRegular,
    /// It is longer than the reader takes.
    #[error("it is longer than {0} bytes")]
    TooLong(u64),
    /// It is not UTF-8, and text was asked for.
    #[error("it is not UTF-8 text")]
    NotText,
}

impl ReadError {
    /// Whether the file, or a directory on the way to it, is not there.
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::Io(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory))
    }
}

/// The kernel's words, but where they say nothing about the cause.
fn plain(error: &io::Error) -> String {
    match rustix::io::Errno::from_io_error(error) {
        Some(rustix::io::Errno::LOOP) => "a symbolic link is on the way to it".to_owned(),
        Some(rustix::io::Errno::XDEV) => "its path leaves the directory that it is looked up in".to_owned(),
        Some(rustix::io::Errno::NXIO) => "it is a socket, or a pipe that nobody reads".to_owned(),
        _ => error.to_string(),
    }
}

/// Reads the file at `path`, in which there was no link when somebody decided that it may be read: one that has appeared
/// since is not followed.
///
/// # Errors
/// When it cannot be opened or read, is no regular file, is longer than `limit` bytes, or a link is on the way.
pub fn read_real(path: &Path, limit: u64) -> Result<Vec<u8>, ReadError> {
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let opened = openat2(CWD, path, READ, Mode::empty(), resolve).map_err(io::Error::from)?;
    read_all(opened, limit)
}

/// Reads the file at `path`, which a person has just named; links are followed.
///
/// # Errors
/// When it cannot be opened or read, is no regular file, or is longer than `limit` bytes.
pub fn read_named(path: &Path, limit: u64) -> Result<Vec<u8>, ReadError> {
    let opened = openat2(CWD, path, READ, Mode::empty(), ResolveFlags::empty()).map_err(io::Error::from)?;
    read_all(opened, limit)
}

/// Reads the first bytes of the file at `path`, as many as `most`; links are followed. Enough to see what kind of file it is,
/// and never a wait: a pipe is no file.
///
/// # Errors
/// When it cannot be opened or read, or is no regular file.
pub fn read_start(path: &Path, most: u64) -> Result<Vec<u8>, ReadError> {
    let opened = openat2(CWD, path, READ, Mode::empty(), ResolveFlags::empty()).map_err(io::Error::from)?;
    let mut bytes = Vec::new();
    regular(opened)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a file that has just been opened to its end.
pub(crate) fn read_all(opened: OwnedFd, limit: u64) -> Result<Vec<u8>, ReadError> {
    let file = regular(opened)?;
    let mut bytes = Vec::new();
    let room = limit.saturating_add(1);
    file.take(room).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit { Err(ReadError::TooLong(limit)) } else { Ok(bytes) }
}

/// The descriptor as a file, if that is what it is.
pub(crate) fn regular(opened: OwnedFd) -> Result<File, ReadError> {
    let status = fstat(&opened).map_err(io::Error::from)?;
    if FileType::from_raw_mode(status.st_mode) == FileType::RegularFile {
        Ok(File::from(opened))
    } else {
        Err(ReadError::NotRegular)
    }
}
