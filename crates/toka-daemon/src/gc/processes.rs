//! What the processes of this machine know: an agent whose daemon and keeper were killed may go on, and folders that it was
//! given are in its environment or its mounts.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// What is read of a process.
#[derive(Debug)]
struct Known {
    pid: u32,
    /// Its environment and its mounts.
    inherited: Vec<u8>,
    /// Its command line.
    command: Vec<u8>,
}

/// Every process but our own.
#[derive(Debug)]
pub(super) struct Processes(Vec<Known>);

impl Processes {
    /// Looks at all that there are below `proc`. Those of other users cannot be looked into, and have nothing of ours.
    pub(super) fn scan(proc: &Path) -> Self {
        let entries = fs::read_dir(proc).into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        Self(pids.filter(|pid| *pid != std::process::id()).map(|pid| Known::read(proc, pid)).collect())
    }

    /// Those that were given something at or below `path`, by their environment or mounts.
    pub(super) fn given(&self, path: &Path) -> Vec<u32> {
        let wanted = path.as_os_str().as_bytes();
        self.0.iter().filter(|known| contains(&known.inherited, wanted)).map(|known| known.pid).collect()
    }

    /// Whether any knows of `path`, by its command line too.
    pub(super) fn know(&self, path: &Path) -> bool {
        let wanted = path.as_os_str().as_bytes();
        self.0.iter().any(|known| contains(&known.inherited, wanted) || contains(&known.command, wanted))
    }
}

impl Known {
    fn read(proc: &Path, pid: u32) -> Self {
        let read = |name: &str| fs::read(proc.join(pid.to_string()).join(name)).unwrap_or_default();
        let mut inherited = read("environ");
        inherited.extend(read("mountinfo"));
        Self { pid, inherited, command: read("cmdline") }
    }
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    text.windows(wanted.len()).any(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_given_a_folder_is_found() {
        let proc = tempfile::tempdir().expect("a folder");
        for (pid, file, text) in [
            (1, "environ", "A=/x/agents/a\0B=1"),
            (2, "mountinfo", "1 1 0:2 / /x/agents/b rw"),
            (3, "cmdline", "ls\0/x/agents/"),
        ] {
            let folder = proc.path().join(pid.to_string());
            fs::create_dir(&folder).expect("a folder");
            fs::write(folder.join(file), text).expect("room");
        }
        let processes = Processes::scan(proc.path());
        let mut given = processes.given(Path::new("/x/agents"));
        given.sort_unstable();
        assert_eq!(given, [1, 2]);
        assert!(processes.know(Path::new("/x/agents/a")) && !processes.know(Path::new("/y")));
    }
}
