//! Files as the tools open them, and what goes wrong in words that say what helps.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::OFlag;
use toka_core::FileChange;

/// The largest file that a tool reads or writes, in bytes.
pub(super) const LARGEST: u64 = 8 * 1024 * 1024;

/// Why a tool failed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ToolError {
    /// In words for a model.
    pub(super) message: String,
    /// The path that the kernel refused, when that is why.
    pub(super) refused: Option<String>,
    /// What was changed all the same.
    pub(super) changes: Vec<FileChange>,
}

impl ToolError {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::default() }
    }

    pub(super) fn of(doing: &str, path: &Path, error: &io::Error) -> Self {
        let is_refused =
            matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem);
        let words = match error.kind() {
            io::ErrorKind::NotFound => "there is no such file".to_owned(),
            io::ErrorKind::IsADirectory => "it is a folder: `list` shows what is in it".to_owned(),
            io::ErrorKind::NotADirectory => "a part of the path is a file".to_owned(),
            _ if is_refused => "this agent may not do that".to_owned(),
            _ => error.to_string(),
        };
        let refused = is_refused.then(|| path.display().to_string());
        Self { message: format!("cannot {doing} {}: {words}", path.display()), refused, changes: Vec::new() }
    }
}

/// A path as a model writes it.
pub(super) fn path_of(text: &str) -> Result<PathBuf, ToolError> {
    match text.trim() {
        "" => Err(ToolError::new("the path is empty")),
        text if text.contains('\0') => Err(ToolError::new("a path has no zero byte in it")),
        text => Ok(normal(&expanded(text))),
    }
}

/// A path that begins with `~/` or with a variable, such as `$TOKA_ARTIFACTS/x`, as a shell would read it.
fn expanded(text: &str) -> PathBuf {
    let (name, rest) = match text.strip_prefix('$') {
        _ if text.starts_with("~/") => ("HOME", &text[2..]),
        Some(braced) if braced.starts_with('{') => match braced[1..].split_once('}') {
            Some((name, rest)) => (name, rest),
            None => return PathBuf::from(text),
        },
        Some(plain) => {
            let end = plain.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(plain.len());
            (&plain[..end], &plain[end..])
        }
        None => return PathBuf::from(text),
    };
    match std::env::var_os(name) {
        Some(value) if !name.is_empty() => Path::new(&value).join(rest.trim_start_matches('/')),
        _ => PathBuf::from(text),
    }
}

/// The same place without `.` and doubled slashes, so that one file has one name.
fn normal(path: &Path) -> PathBuf {
    let plain: PathBuf = path.components().filter(|part| *part != Component::CurDir).collect();
    if plain.as_os_str().is_empty() { PathBuf::from(".") } else { plain }
}

/// Opens a regular file to read; never waits for a pipe that nobody writes to.
pub(super) fn open(path: &Path) -> Result<File, ToolError> {
    let failed = |error: io::Error| ToolError::of("read", path, &error);
    let file =
        OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(failed(io::ErrorKind::IsADirectory.into()));
    }
    if !metadata.is_file() {
        return Err(ToolError::new(format!("{} is no regular file", path.display())));
    }
    Ok(file)
}

/// The whole of a text file.
pub(super) fn text_of(path: &Path) -> Result<String, ToolError> {
    let file = open(path)?;
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(|error| ToolError::of("read", path, &error))?;
    if bytes.len() as u64 > LARGEST {
        return Err(ToolError::new(format!(
            "{} is larger than {} MiB: use a command for it",
            path.display(),
            LARGEST / 1024 / 1024
        )));
    }
    String::from_utf8(bytes)
        .map_err(|_| ToolError::new(format!("{} is no text in UTF-8: use a command for it", path.display())))
}

/// Writes the whole of a file: beside it first, so that it is never half there, with the rights that it had.
pub(super) fn put(path: &Path, text: &str) -> Result<(), ToolError> {
    let failed = |error: io::Error| ToolError::of("write", path, &error);
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(|error| ToolError::of("make the folder of", path, &error))?;
    }
    // Where a link leads, the file is.
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let before = fs::symlink_metadata(&real).ok();
    if before.as_ref().is_some_and(|metadata| metadata.is_dir()) {
        return Err(failed(io::ErrorKind::IsADirectory.into()));
    }
    if before.as_ref().is_some_and(|metadata| !metadata.is_file()) {
        return Err(ToolError::new(format!("{} is no regular file", path.display())));
    }
    let name = real.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let beside = real.with_file_name(format!(".{}.toka-new", name.chars().take(60).collect::<String>()));
    let rights = before.as_ref().map_or(0o666, |metadata| metadata.permissions().mode() & 0o7777);
    let written = write_beside(&beside, &real, text, before.is_some().then_some(rights));
    match written {
        Ok(()) => Ok(()),
        // The folder may be closed where the file itself is open, or the file a mount of its own.
        Err(error) if before.is_some() && is_closed(&error) => {
            let _ = fs::remove_file(&beside);
            let flags = OFlag::O_NONBLOCK.bits();
            let mut file = OpenOptions::new()
                .write(true)
                .truncate(true)
                .custom_flags(flags)
                .open(&real)
                .map_err(failed)?;
            file.write_all(text.as_bytes()).map_err(failed)
        }
        Err(error) => {
            let _ = fs::remove_file(&beside);
            Err(failed(error))
        }
    }
}

/// Whether it is the folder that takes no new file.
fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::CrossesDevices
            | io::ErrorKind::ResourceBusy
    )
}

fn write_beside(beside: &Path, real: &Path, text: &str, rights: Option<u32>) -> io::Result<()> {
    let _ = fs::remove_file(beside);
    let mut file = OpenOptions::new().write(true).create_new(true).open(beside)?;
    file.write_all(text.as_bytes())?;
    if let Some(rights) = rights {
        file.set_permissions(fs::Permissions::from_mode(rights))?;
    }
    drop(file);
    fs::rename(beside, real)
}

/// How many lines of one text the other has not, and the other way round: what both begin and end with is left out, the rest counts.
pub(super) fn change(path: &Path, before: &str, after: &str) -> FileChange {
    let (before, after): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let head = before.iter().zip(&after).take_while(|(one, other)| one == other).count();
    let (before, after) = (&before[head..], &after[head..]);
    let tail = before.iter().rev().zip(after.iter().rev()).take_while(|(one, other)| one == other).count();
    let left = |lines: &[&str]| (lines.len() - tail) as u64;
    FileChange { path: path.display().to_string(), added: left(after), removed: left(before) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        assert!(text_of(&fifo).expect_err("no file").message.contains("no regular file"));
        assert!(put(&fifo, "x").expect_err("no file").message.contains("no regular file"));
        assert!(text_of(folder.path()).expect_err("no file").message.contains("it is a folder"));
        assert!(put(folder.path(), "x").expect_err("no file").message.contains("it is a folder"));
        assert!(text_of(&folder.path().join("none")).expect_err("no file").message.contains("no such file"));
    }

    #[test]
    fn a_file_keeps_its_rights_and_a_link_leads_to_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, link) = (folder.path().join("run.sh"), folder.path().join("link"));
        fs::write(&file, "old").expect("a file");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o750)).expect("ours");
        std::os::unix::fs::symlink("run.sh", &link).expect("a link");
        put(&link, "new").expect("written");
        assert_eq!(fs::read_to_string(&file).expect("a file"), "new");
        assert_eq!(fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o750);
        assert!(link.is_symlink(), "the link is still one");
        put(&folder.path().join("new/deep/a.txt"), "x").expect("with its folders");
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 3, "nothing is left beside");
    }

    #[test]
    fn a_path_is_read_as_a_shell_would_read_it() {
        let home = std::env::var("HOME").expect("a home");
        for (text, path) in [
            ("./a//b/.", "a/b"),
            (".", "."),
            ("$HOME/x", &format!("{home}/x")),
            ("${HOME}/x", &format!("{home}/x")),
            ("~/x", &format!("{home}/x")),
            ("$TOKA_OF_NOBODY/x", "$TOKA_OF_NOBODY/x"),
            ("a$HOME", "a$HOME"),
            ("$", "$"),
        ] {
            assert_eq!(path_of(text).expect("a path"), Path::new(path), "{text}");
        }
        assert!(path_of(" ").is_err() && path_of("a\0b").is_err());
    }

    #[test]
    fn a_disk_that_is_full_takes_nothing_away() {
        // /dev/full says no to each byte; a folder on it there is not, so the rule is asked.
        assert!(is_closed(&io::ErrorKind::PermissionDenied.into()));
        assert!(!is_closed(&io::ErrorKind::StorageFull.into()));
    }

    #[test]
    fn lines_of_a_change() {
        let lines = |before, after| {
            let FileChange { added, removed, .. } = change(Path::new("f"), before, after);
            (added, removed)
        };
        assert_eq!(lines("a\nb\nc\n", "a\nB\nc\n"), (1, 1));
        assert_eq!(lines("", "a\nb\n"), (2, 0));
        assert_eq!(lines("a\na\n", "a\n"), (0, 1));
        assert_eq!(lines("a\n", "a\n"), (0, 0));
    }
}
