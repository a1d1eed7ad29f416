//! How much the host waits for memory and storage (<https://docs.kernel.org/accounting/psi.html>), and where Toka lies in a
//! group that is limited itself, as in a container, how much that group does: on a large host its own trouble is lost in the
//! figures of all.

use std::fs;
use std::path::{Path, PathBuf};

use toka_core::Pressure;

use super::{files, layout};

/// The kernel's files, found once and read again and again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PressureFiles {
    memory: Vec<PathBuf>,
    io: Vec<PathBuf>,
}

impl PressureFiles {
    /// Finds them below `root` (`/` on a real host). The first limited group from our own upwards counts, for what it limits.
    pub fn probe(root: &Path) -> Self {
        let of_host = |name: &str| root.join("proc/pressure").join(name);
        let group = |limit: fn(&Path) -> bool, name: &str| {
            let groups = layout::own_unified(root);
            groups.into_iter().find(|group| limit(group)).map(|group| group.join(name))
        };
        let existing = |files: [Option<PathBuf>; 2]| {
            files.into_iter().flatten().filter(|file| file.exists()).collect::<Vec<_>>()
        };
        Self {
            memory: existing([Some(of_host("memory")), group(limits_memory, "memory.pressure")]),
            io: existing([Some(of_host("io")), group(limits_io, "io.pressure")]),
        }
    }

    /// Whether this kernel tells nothing.
    pub fn is_empty(&self) -> bool {
        self.memory.is_empty() && self.io.is_empty()
    }

    /// The worst of each; some microseconds for each file.
    pub fn read(&self) -> Pressure {
        let worst =
            |paths: &[PathBuf]| paths.iter().filter_map(|path| files::pressure(path)).reduce(f64::max);
        Pressure { cpu: None, memory: worst(&self.memory), io: worst(&self.io) }
    }
}

fn limits_memory(group: &Path) -> bool {
    ["memory.max", "memory.high"].iter().any(|file| files::number(&group.join(file)).is_some())
}

fn limits_io(group: &Path) -> bool {
    fs::read_to_string(group.join("io.max")).is_ok_and(|text| !text.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Host(tempfile::TempDir);

    impl Host {
        fn new() -> Self {
            let host = Self(tempfile::tempdir().expect("a temporary folder"));
            host.file("proc/self/mountinfo", "30 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
                .file("proc/self/cgroup", "0::/box/inner\n")
                .file("sys/fs/cgroup/box/inner/cgroup.procs", "")
        }

        fn file(self, path: &str, text: &str) -> Self {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, text).expect("a file");
            self
        }

        fn some(self, path: &str, percent: &str) -> Self {
            let rest = "avg60=99.00 avg300=99.00 total=7\nfull avg10=98.00 avg60=0.00 avg300=0.00 total=1";
            self.file(path, &format!("some avg10={percent} {rest}\n"))
        }

        fn figures(&self) -> (Option<f64>, Option<f64>) {
            let Pressure { memory, io, .. } = PressureFiles::probe(self.0.path()).read();
            (memory, io)
        }
    }

    #[test]
    fn the_host_counts() {
        let host = Host::new().some("proc/pressure/memory", "1.25").some("proc/pressure/io", "63.00");
        assert_eq!(host.figures(), (Some(1.25), Some(63.0)));
    }

    #[test]
    fn a_kernel_that_tells_nothing_tells_nothing() {
        let host = Host::new();
        assert!(PressureFiles::probe(host.0.path()).is_empty());
        assert_eq!(host.figures(), (None, None));
        let garbled = host.file("proc/pressure/memory", "some avg10=NaN\n").file("proc/pressure/io", "");
        assert_eq!(garbled.figures(), (None, None));
    }

    #[test]
    fn a_limited_group_counts_for_what_it_limits() {
        let host = Host::new().some("proc/pressure/memory", "1.00").some("proc/pressure/io", "2.00");
        let host = host
            .some("sys/fs/cgroup/box/memory.pressure", "40.00")
            .some("sys/fs/cgroup/box/io.pressure", "70.00");
        let free = host.file("sys/fs/cgroup/box/memory.max", "max\n").file("sys/fs/cgroup/box/io.max", "\n");
        assert_eq!(free.figures(), (Some(1.0), Some(2.0)));
        let bounded = free.file("sys/fs/cgroup/box/memory.max", "1073741824\n");
        assert_eq!(bounded.figures(), (Some(40.0), Some(2.0)));
        let slow = bounded.file("sys/fs/cgroup/box/io.max", "8:0 rbps=1048576\n");
        assert_eq!(slow.figures(), (Some(40.0), Some(70.0)));
    }
}
