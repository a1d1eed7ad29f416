//! Finding the files that are meant, and reading each at most once and never further than the limit.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::string::FromUtf8Error;

use toka_files::ReadError;

use super::MAX_BYTES;
use crate::diagnostic::{Code, Diagnostic, Sources};

/// What was found at a path that was given.
pub(crate) enum Found {
    /// The text of a file, under the path that it is to be called by.
    Text { path: PathBuf, text: String },
    /// A file of other bytes.
    NotUtf8(NotUtf8),
    /// Why there is nothing.
    Problem(Diagnostic),
}

/// A file that is not UTF-8: what it begins with, and where that ends.
pub(crate) struct NotUtf8 {
    path: PathBuf,
    text: String,
    byte: u8,
    help: &'static str,
}

/// Reads files, and the `*.yaml` and `*.yml` of folders, sorted by name and not recursively, one at a time. A
/// file that is named twice, or by two paths, is read once.
pub(crate) fn collect(paths: &[PathBuf]) -> impl Iterator<Item = Found> {
    let mut seen = HashSet::new();
    paths.iter().flat_map(|path| expand(path)).filter_map(move |found| match found {
        Ok(path) => is_new(&mut seen, &path).then(|| read(&path)),
        Err(problem) => Some(Found::Problem(*problem)),
    })
}

fn expand(path: &Path) -> Vec<Result<PathBuf, Box<Diagnostic>>> {
    match fs::metadata(path) {
        Err(error) => vec![Err(unreadable(path, &error))],
        Ok(meta) if meta.is_dir() => list(path),
        Ok(_) => vec![Ok(path.to_owned())],
    }
}

/// Whether the file was not met before; what cannot be resolved is met anew, and fails when it is read.
fn is_new(seen: &mut HashSet<PathBuf>, path: &Path) -> bool {
    fs::canonicalize(path).map_or(true, |real| seen.insert(real))
}

fn list(folder: &Path) -> Vec<Result<PathBuf, Box<Diagnostic>>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => return vec![Err(unreadable(folder, &error))],
    };
    let mut files = Vec::new();
    for entry in entries {
        match entry {
            Ok(entry) => files.push(entry.path()),
            Err(error) => return vec![Err(unreadable(folder, &error))],
        }
    }
    // Hidden ones are other programs' settings.
    let is_hidden =
        |path: &Path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    files.retain(|path| is_yaml(path) && !is_hidden(path) && !path.is_dir());
    files.sort();
    if files.is_empty() {
        let problem = Diagnostic::new(
            Code::NoWorkstream,
            format!("the folder `{}` has no workstream in it", folder.display()),
        );
        let help = "a workstream is a *.yaml or *.yml file directly in the folder; `toka init` makes one";
        return vec![Err(Box::new(problem.help(help)))];
    }
    files.into_iter().map(Ok).collect()
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

fn read(path: &Path) -> Found {
    match read_bytes(path) {
        Err(error) => Found::Problem(*unreadable(path, &error)),
        Ok(None) => Found::Problem(too_large(path)),
        Ok(Some(bytes)) => match String::from_utf8(bytes) {
            Ok(text) => Found::Text { path: path.to_owned(), text },
            Err(error) => Found::NotUtf8(NotUtf8::new(path, error)),
        },
    }
}

/// `None` when there is more than the limit, which is not read. Only regular files: a FIFO would block for
/// ever.
fn read_bytes(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match toka_files::read_named(path, MAX_BYTES as u64) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(ReadError::TooLong(_)) => Ok(None),
        Err(ReadError::Io(error)) => Err(error),
        Err(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
    }
}

/// errno(3); `io::ErrorKind` has no stable name for it.
const ELOOP: i32 = 40;

fn unreadable(path: &Path, error: &io::Error) -> Box<Diagnostic> {
    let reason = match error.kind() {
        io::ErrorKind::NotFound => "no such file or folder".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ if error.raw_os_error() == Some(ELOOP) => "its symbolic links lead in a circle".to_owned(),
        _ => error.to_string(),
    };
    let problem = Diagnostic::new(Code::Unreadable, format!("cannot read `{}`: {reason}", path.display()));
    Box::new(match meant(path).filter(|_| error.kind() == io::ErrorKind::NotFound) {
        Some(help) => problem.help(help),
        None => problem,
    })
}

/// What somebody may mean who names a path that is not there.
fn meant(path: &Path) -> Option<String> {
    let other = ["yaml", "yml"].map(|extension| path.with_extension(extension)).into_iter();
    if let Some(other) = other.filter(|other| other != path).find(|other| other.is_file()) {
        return Some(format!("did you mean `{}`?", other.display()));
    }
    let name = path.to_str().filter(|name| toka_core::Name::new(name).is_ok())?;
    Some(format!("a file or a folder is meant here; `--only {name}` chooses an agent of that name"))
}

fn too_large(path: &Path) -> Diagnostic {
    let message = format!("`{}` is larger than {} KiB", path.display(), MAX_BYTES >> 10);
    Diagnostic::new(Code::FileTooLarge, message)
        .help("a workstream declares agents; keep data in files of its own")
}

impl NotUtf8 {
    fn new(path: &Path, error: FromUtf8Error) -> Self {
        let at = error.utf8_error().valid_up_to();
        let mut bytes = error.into_bytes();
        let byte = bytes[at];
        let utf16 = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]);
        let help =
            if utf16 { "the file looks like UTF-16; save it as UTF-8" } else { "save the file as UTF-8" };
        bytes.truncate(at);
        let text = String::from_utf8(bytes).unwrap_or_default();
        Self { path: path.to_owned(), text, byte, help }
    }

    /// Shows what stands before the bad byte, and the replacement character in its place.
    pub(crate) fn into_diagnostic(self, sources: &mut Sources) -> Diagnostic {
        let Self { path, mut text, byte, help } = self;
        let at = text.len();
        text.push(char::REPLACEMENT_CHARACTER);
        let end = text.len();
        let file = sources.add(&path.to_string_lossy(), text);
        let message = format!("`{}` is not UTF-8: byte {at} is 0x{byte:02x}", path.display());
        Diagnostic::new(Code::NotUtf8, message).at(file, at..end, "not UTF-8 from here").help(help)
    }
}
