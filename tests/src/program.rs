//! Programs that a test writes.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Writes a file that everybody may execute. A process of its own does, so that no other thread of the test forks a copy of a
/// descriptor that is open for writing: the kernel would refuse to execute the file until the copy is closed (execve(2),
/// `ETXTBSY`).
///
/// # Panics
/// When it cannot be written.
pub fn write_program(path: &Path, content: &str) {
    let mut writer = Command::new("/bin/sh")
        .args(["-c", "cat >\"$1\" && chmod 755 \"$1\"", "sh"])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .expect("a shell");
    let mut stdin = writer.stdin.take().expect("a pipe");
    stdin.write_all(content.as_bytes()).expect("a shell that reads");
    drop(stdin);
    assert!(writer.wait().expect("a shell").success(), "{} cannot be written", path.display());
}
