//! What a group uses at the moment, from the kernel's files of whichever layout there is (cgroups(7), proc_pid_io(5);
//! `admin-guide/cgroup-v2` and `cgroup-v1` of the kernel's documentation).

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use toka_core::{Pressure, Resources};

use super::{Group, Kind, files};

/// What version 1 says for "no limit": the greatest signed number, rounded down to a page, which is at most 64 KiB
/// large.
const NO_LIMIT_V1: u64 = (i64::MAX as u64) & !0xffff;

impl Group {
    /// What all its processes use now and may use. Figures that this host does not tell are `None`. `proc` is where
    /// procfs is mounted: bytes of I/O are taken from the processes where the group has no such figures, as is so unless
    /// the `io` controller of version 2 was handed down to it.
    pub fn resources(&self, proc: &Path) -> Resources {
        let mut resources = match (self.kind, &self.unified) {
            (Kind::Unified, Some(folder)) => of_version_2(folder),
            _ => self.of_version_1(),
        };
        if let Some(folder) = &self.unified {
            resources.cpu_us = resources.cpu_us.or(files::keyed(&folder.join("cpu.stat"), "usage_usec"));
            resources.pressure = pressure(folder);
        }
        let io = self.unified.as_deref().and_then(of_devices).or_else(|| self.io_of_processes(proc));
        (resources.io_read_bytes, resources.io_written_bytes) = io.unzip();
        resources
    }

    fn of_version_1(&self) -> Resources {
        let number = |folder: &Option<_>, file: &str| {
            let folder: &Path = Option::as_deref(folder)?;
            files::number(&folder.join(file))
        };
        let keyed = |folder: &Option<_>, file: &str, key: &str| {
            let folder: &Path = Option::as_deref(folder)?;
            files::keyed(&folder.join(file), key)
        };
        let (memory, cpu, pids) = (&self.memory, &self.cpu, &self.pids);
        Resources {
            memory_current: number(memory, "memory.usage_in_bytes"),
            memory_peak: number(memory, "memory.max_usage_in_bytes"),
            memory_limit: number(memory, "memory.limit_in_bytes").filter(|limit| *limit < NO_LIMIT_V1),
            // Both in nanoseconds; the first is there where `cpu` and `cpuacct` are mounted together.
            cpu_us: number(cpu, "cpuacct.usage").map(|nanos| nanos / 1000),
            throttled_us: keyed(cpu, "cpu.stat", "throttled_time").map(|nanos| nanos / 1000),
            processes: number(pids, "pids.current"),
            processes_limit: number(pids, "pids.max"),
            oom_kills: keyed(memory, "memory.oom_control", "oom_kill"),
            ..Resources::default()
        }
    }

    /// Bytes read and written by the processes that are in it, and by those that they waited for. `None` when there is no
    /// way to find them, or one may not be looked at: half a sum would be taken for the whole.
    fn io_of_processes(&self, proc: &Path) -> Option<(u64, u64)> {
        let mut sum = (0, 0);
        for pid in self.processes()? {
            let text = match fs::read_to_string(proc.join(pid.to_string()).join("io")) {
                Ok(text) => text,
                Err(error) if is_gone(&error) => continue,
                Err(_) => return None,
            };
            let of = |key| text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<u64>().ok());
            sum = (sum.0 + of("read_bytes:")?, sum.1 + of("write_bytes:")?);
        }
        Some(sum)
    }
}

/// A process that ended after it was listed: its folder is missing, or was opened and is empty.
fn is_gone(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

fn of_version_2(folder: &Path) -> Resources {
    let number = |file: &str| files::number(&folder.join(file));
    let keyed = |file: &str, key: &str| files::keyed(&folder.join(file), key);
    Resources {
        memory_current: number("memory.current"),
        memory_peak: number("memory.peak"),
        memory_limit: number("memory.max"),
        cpu_us: keyed("cpu.stat", "usage_usec"),
        throttled_us: keyed("cpu.stat", "throttled_usec"),
        processes: number("pids.current"),
        processes_limit: number("pids.max"),
        oom_kills: keyed("memory.events", "oom_kill"),
        ..Resources::default()
    }
}

/// Bytes read and written as `io.stat` has them: a line for each device, `MAJOR:MINOR rbytes=N wbytes=N …`.
fn of_devices(folder: &Path) -> Option<(u64, u64)> {
    let text = fs::read_to_string(folder.join("io.stat")).ok()?;
    let sum = |key: &str| {
        let fields = text.split_ascii_whitespace();
        fields.filter_map(|field| field.strip_prefix(key)?.parse::<u64>().ok()).sum()
    };
    Some((sum("rbytes="), sum("wbytes=")))
}

/// The kernel may have been built or started without these files (`psi=0`), or fail to read them.
fn pressure(folder: &Path) -> Pressure {
    let of = |file: &str| files::pressure(&folder.join(file));
    Pressure { cpu: of("cpu.pressure"), memory: of("memory.pressure"), io: of("io.pressure") }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::{Cgroups, Layout};
    use super::*;

    /// A folder that looks like the kernel's, with the group `t/p/a` in each hierarchy named.
    struct Host {
        root: tempfile::TempDir,
    }

    impl Host {
        fn new() -> Self {
            Self { root: tempfile::tempdir().expect("a temporary folder") }
        }

        fn path(&self, path: &str) -> PathBuf {
            self.root.path().join(path)
        }

        fn file(&self, path: &str, text: &str) -> &Self {
            let path = self.path(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
            fs::write(path, text).expect("a file");
            self
        }

        fn process(&self, pid: i32, read: u64, written: u64) -> &Self {
            let text = format!(
                "rchar: 9\nwchar: 9\nsyscr: 9\nsyscw: 9\nread_bytes: {read}\nwrite_bytes: {written}\n\
                 cancelled_write_bytes: 7\n"
            );
            self.file(&format!("proc/{pid}/io"), &text)
        }

        fn resources(&self, kind: Kind, hierarchies: &[&str]) -> Resources {
            let of = |name: &str| hierarchies.contains(&name).then(|| self.path(name));
            let layout = Layout {
                kind,
                memory: of("memory"),
                cpu: of("cpu"),
                pids: of("pids"),
                freezer: of("freezer"),
                unified: of("unified"),
            };
            Group::at(&Cgroups::new(layout, "t"), Path::new("p/a")).resources(&self.path("proc"))
        }

        fn version_1(&self) -> &Self {
            self.file("memory/t/p/a/memory.usage_in_bytes", "4096\n")
                .file("memory/t/p/a/memory.max_usage_in_bytes", "8192\n")
                .file("memory/t/p/a/memory.limit_in_bytes", "1048576\n")
                .file("memory/t/p/a/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
                .file("cpu/t/p/a/cpu.stat", "nr_periods 4\nnr_throttled 2\nthrottled_time 5000999\n")
                .file("pids/t/p/a/pids.current", "2\n")
                .file("pids/t/p/a/pids.max", "64\n")
                .file("memory/t/p/a/cgroup.procs", "100\n")
                .file("memory/t/p/a/call-0/cgroup.procs", "101\n102\n")
                .process(100, 1, 10)
                .process(101, 2, 20)
        }

        fn pressure(&self) -> &Self {
            let full = "full avg10=9.99 avg60=0.00 avg300=0.00 total=1\n";
            self.file("unified/t/p/a/cpu.pressure", "some avg10=1.25 avg60=0.00 avg300=0.00 total=77\n")
                .file(
                    "unified/t/p/a/memory.pressure",
                    &format!("some avg10=0.00 avg60=2.00 avg300=0.00 total=7\n{full}"),
                )
                .file("unified/t/p/a/io.pressure", &format!("some avg10=100.00 avg60=0.00 total=7\n{full}"))
        }
    }

    const PRESSURE: Pressure = Pressure { cpu: Some(1.25), memory: Some(0.0), io: Some(100.0) };

    #[test]
    fn unified() {
        let host = Host::new();
        host.file("unified/t/p/a/memory.current", "4096\n")
            .file("unified/t/p/a/memory.peak", "8192\n")
            .file("unified/t/p/a/memory.max", "1048576\n")
            .file(
                "unified/t/p/a/memory.events",
                "low 0\nhigh 0\nmax 9\noom 1\noom_kill 2\noom_group_kill 0\n",
            )
            .file(
                "unified/t/p/a/cpu.stat",
                "usage_usec 1500\nuser_usec 9\nnr_throttled 2\nthrottled_usec 700\n",
            )
            .file("unified/t/p/a/pids.current", "3\n")
            .file("unified/t/p/a/pids.max", "max\n")
            .file(
                "unified/t/p/a/io.stat",
                "8:0 rbytes=100 wbytes=7 rios=1 wios=1 dbytes=99 dios=0\n253:1 rbytes=20 wbytes=0\n",
            )
            .pressure();
        let expected = Resources {
            memory_current: Some(4096),
            memory_peak: Some(8192),
            memory_limit: Some(1 << 20),
            cpu_us: Some(1500),
            throttled_us: Some(700),
            processes: Some(3),
            processes_limit: None,
            io_read_bytes: Some(120),
            io_written_bytes: Some(7),
            pressure: PRESSURE,
            oom_kills: Some(2),
            disk_used: None,
            disk_limit: None,
        };
        assert_eq!(host.resources(Kind::Unified, &["unified"]), expected);
    }

    #[test]
    fn unified_without_an_io_controller_asks_the_processes_in_its_leaves() {
        let host = Host::new();
        host.file("unified/t/p/a/cgroup.procs", "")
            .file("unified/t/p/a/main/cgroup.procs", "100\n")
            .file("unified/t/p/a/call-3/cgroup.procs", "101\n")
            .process(100, 1, 10)
            .process(101, 2, 20);
        let expected =
            Resources { io_read_bytes: Some(3), io_written_bytes: Some(30), ..Resources::default() };
        assert_eq!(host.resources(Kind::Unified, &["unified"]), expected);
    }

    #[test]
    fn hybrid_takes_cpu_time_and_pressure_from_version_2() {
        let host = Host::new();
        host.version_1().pressure().file("unified/t/p/a/cpu.stat", "usage_usec 1500\nuser_usec 9\n");
        let expected = Resources {
            memory_current: Some(4096),
            memory_peak: Some(8192),
            memory_limit: Some(1 << 20),
            cpu_us: Some(1500),
            throttled_us: Some(5000),
            processes: Some(2),
            processes_limit: Some(64),
            io_read_bytes: Some(3),
            io_written_bytes: Some(30),
            pressure: PRESSURE,
            oom_kills: Some(3),
            disk_used: None,
            disk_limit: None,
        };
        assert_eq!(host.resources(Kind::Hybrid, &["memory", "cpu", "pids", "unified"]), expected);
    }

    #[test]
    fn legacy_has_no_pressure_and_counts_cpu_time_in_nanoseconds() {
        let host = Host::new();
        host.version_1().file("cpu/t/p/a/cpuacct.usage", "1234567\n");
        let hierarchies = ["memory", "cpu", "pids", "freezer"];
        let legacy = host.resources(Kind::Legacy, &hierarchies);
        assert_eq!((legacy.cpu_us, legacy.pressure), (Some(1234), Pressure::default()));
        assert_eq!((legacy.memory_limit, legacy.io_bytes()), (Some(1 << 20), Some(33)));
        for unlimited in ["9223372036854771712\n", "9223372036854710272\n"] {
            host.file("memory/t/p/a/memory.limit_in_bytes", unlimited);
            assert_eq!(host.resources(Kind::Legacy, &hierarchies).memory_limit, None, "{unlimited}");
        }
    }

    #[test]
    fn without_groups_nothing_is_known() {
        let host = Host::new();
        host.version_1();
        assert_eq!(host.resources(Kind::None, &[]), Resources::default());
    }

    #[test]
    fn a_group_without_files_and_garbage_in_files_are_unknown() {
        let host = Host::new();
        let hierarchies = ["memory", "cpu", "pids", "unified"];
        let empty = Resources { io_read_bytes: Some(0), io_written_bytes: Some(0), ..Resources::default() };
        for kind in [Kind::Unified, Kind::Hybrid, Kind::Legacy] {
            assert_eq!(host.resources(kind, &hierarchies), empty, "{kind:?}");
        }
        for file in ["cpu.stat", "memory.current", "memory.max", "pids.max", "cpu.pressure", "io.pressure"] {
            host.file(&format!("unified/t/p/a/{file}"), "some avg10=x\nusage_usec\n\u{fffd}=");
        }
        assert_eq!(host.resources(Kind::Unified, &hierarchies), empty);
    }

    #[test]
    fn a_process_that_may_not_be_looked_at_makes_the_sum_unknown() {
        let host = Host::new();
        host.version_1();
        assert_eq!(host.resources(Kind::Hybrid, &["memory"]).io_bytes(), Some(33));
        host.file("proc/102/io", "rchar: 1\n");
        assert_eq!(host.resources(Kind::Hybrid, &["memory"]).io_bytes(), None);
    }
}
