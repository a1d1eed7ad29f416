//! What a script needs to start: the kernel executes the program that its first line names, and where that is not there it says only
//! "No such file or directory" (execve(2), "Interpreter scripts").

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use toka_files::read_start;

/// How much of a file the kernel looks at (`BINPRM_BUF_SIZE` of linux/binfmts.h).
const LOOKED_AT: u64 = 256;

/// The program that a script names and that is not there. Nothing for what is no script, or names no absolute path. What a path below
/// /proc is depends on who asks.
pub(crate) fn missing(script: &Path) -> Option<PathBuf> {
    let named = named(&read_start(script, LOOKED_AT).ok()?)?;
    (named.is_absolute()
        && !named.starts_with("/proc")
        && named.metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound))
    .then_some(named)
}

/// Why a script does not start, and what to do.
pub(crate) fn words(script: &Path, interpreter: &Path) -> (String, String) {
    let script = script.display();
    match interpreter.as_os_str().as_bytes().strip_suffix(b"\r") {
        Some(meant) => (
            format!("{script} does not start: its first line ends as lines do on Windows"),
            format!("let the line end behind {}, without a carriage return", String::from_utf8_lossy(meant)),
        ),
        None => (
            format!(
                "{script} does not start: its first line names {}, which is not there",
                interpreter.display()
            ),
            "install that program, or name another one behind `#!`".to_owned(),
        ),
    }
}

/// The program that the first line names: what stands between `#!` and the next blank, as the kernel reads it. Nothing where a name goes
/// on behind what the kernel looks at: it takes such a file for no program at all.
fn named(start: &[u8]) -> Option<PathBuf> {
    let line = start.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let is_cut = start.len() as u64 == LOOKED_AT && line.len() + 2 == start.len();
    if is_cut && !line.trim_ascii_start().iter().any(|byte| matches!(byte, b' ' | b'\t' | 0)) {
        return None;
    }
    let mut words = line.split(|byte| matches!(byte, b' ' | b'\t' | 0)).filter(|word| !word.is_empty());
    words.next().map(|word| PathBuf::from(OsStr::from_bytes(word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_names_a_program() {
        let cases: [(&[u8], Option<&str>); 8] = [
            (b"#!/bin/sh\n", Some("/bin/sh")),
            (b"#! /bin/sh -e\nexit\n", Some("/bin/sh")),
            (b"#!\t/usr/bin/env\tpython3", Some("/usr/bin/env")),
            (b"#!/bin/sh\r\n", Some("/bin/sh\r")),
            (b"#!\n/bin/sh", None),
            (b"#!", None),
            (b"\x7fELF", None),
            (b"", None),
        ];
        let long = format!("#!/{}", "x".repeat(400));
        let cut = [(&long.as_bytes()[..256], None), (&long.as_bytes()[..255], Some(&long[2..255]))];
        for (start, expected) in cases.into_iter().chain(cut) {
            assert_eq!(named(start), expected.map(PathBuf::from), "{}", String::from_utf8_lossy(start));
        }
    }

    #[test]
    fn only_what_is_not_there_is_missing() {
        let folder = tempfile::tempdir().expect("a folder");
        let script = folder.path().join("script");
        let nowhere = folder.path().join("nowhere");
        for (line, expected) in [
            (format!("#!{}", nowhere.display()), Some(nowhere.as_path())),
            ("#!/bin/sh".to_owned(), None),
            ("#!nowhere".to_owned(), None),
            ("#!/proc/self/cwd/nowhere".to_owned(), None),
            ("echo".to_owned(), None),
        ] {
            std::fs::write(&script, line).expect("room");
            assert_eq!(missing(&script).as_deref(), expected);
        }
        assert_eq!(missing(&nowhere), None);
        let (why, help) = words(&script, Path::new("/bin/sh\r"));
        assert!(why.ends_with("as lines do on Windows") && help.contains("behind /bin/sh,"), "{why} {help}");
    }
}
