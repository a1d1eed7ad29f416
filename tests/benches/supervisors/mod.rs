//! Supervisors of others, for scale: those that are installed start and stop as many services as Toka agents, each through a shell's
//! `exec` as their documents show it. Nothing confines those services, and none has a log.

use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use toka_tests::measure::{Samples, compile_c};

use crate::{children_of, pss};

/// How long all may take to start, or to end.
const DEADLINE: Duration = Duration::from_secs(60);
/// Between two looks at how many run.
const LOOK: Duration = Duration::from_micros(500);
/// Between the last start and the look at memory.
const SETTLE: Duration = Duration::from_secs(1);

/// A supervisor that is installed.
pub(crate) struct Supervisor {
    pub(crate) name: &'static str,
    words: &'static [&'static str],
    /// Asks it to end with all its services.
    end_signal: Signal,
    /// Until all run, until none runs, until it and its helpers have ended; in milliseconds.
    pub(crate) start: Samples,
    pub(crate) stop: Samples,
    pub(crate) end: Samples,
    /// Of it and its helpers, in MiB.
    pub(crate) memory: Samples,
}

/// Those that are installed; says which are not.
pub(crate) fn installed() -> Vec<Supervisor> {
    let all: [(&str, &'static [&'static str], Signal); 2] =
        [("s6", &["s6-svscan", "-c", "3000"], Signal::SIGTERM), ("runit", &["runsvdir"], Signal::SIGHUP)];
    let is_installed = |word: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|folder| folder.join(word).is_file())
    };
    all.into_iter()
        .filter(|(name, words, _)| {
            is_installed(words[0]) || {
                eprintln!("left out: {name}");
                false
            }
        })
        .map(|(name, words, end_signal)| {
            let (start, stop, end, memory) = Default::default();
            Supervisor { name, words, end_signal, start, stop, end, memory }
        })
        .collect()
}

impl Supervisor {
    /// Starts and stops `count` services in `folder`, which is made and removed.
    pub(crate) fn run(&mut self, folder: &Path, count: usize) {
        let services = folder.join("services");
        let (program, counter) = (folder.join("counted"), folder.join("count"));
        fs::create_dir_all(&services).expect("a folder");
        compile_c(
            Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/supervisors/counted.c")),
            &[],
            &program,
        );
        fs::write(&counter, 0u32.to_ne_bytes()).expect("a file");
        for number in 0..count {
            let service = services.join(format!("s{number}"));
            fs::create_dir(&service).expect("a folder");
            let run = service.join("run");
            let text = format!("#!/bin/sh\nexec {} {}\n", program.display(), counter.display());
            fs::write(&run, text).expect("a script");
            fs::set_permissions(&run, fs::Permissions::from_mode(0o755)).expect("ours");
        }
        let counter = fs::File::open(&counter).expect("it was written");
        let running = || {
            let mut number = [0; 4];
            counter.read_exact_at(&mut number, 0).expect("four bytes");
            u32::from_ne_bytes(number) as usize
        };

        let begun = Instant::now();
        let mut command = Command::new(self.words[0]);
        command.args(&self.words[1..]).arg(&services);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut it = Running { root: command.spawn().expect("it is installed"), helpers: Vec::new() };
        wait_until(|| running() == count);
        self.start.add_time(begun.elapsed());
        sleep(SETTLE);
        let root = it.pid();
        it.helpers = children_of(root);
        self.memory.add(it.helpers.iter().chain([&root]).map(|pid| pss(*pid)).sum());

        let begun = Instant::now();
        kill(root, self.end_signal).expect("it runs");
        wait_until(|| running() == 0);
        self.stop.add_time(begun.elapsed());
        it.root.wait().expect("our own child");
        wait_until(|| !it.helpers.iter().any(|pid| runs(*pid)));
        it.helpers.clear();
        self.end.add_time(begun.elapsed());
        fs::remove_dir_all(folder).expect("the folder can be removed");
    }
}

/// Whether a process has not ended. Whose child it has become may be slow to collect it.
fn runs(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|after_name| !after_name.is_empty() && !after_name.starts_with(" Z"))
}

fn wait_until(is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < DEADLINE, "it takes too long");
        sleep(LOOK);
    }
}

/// A supervisor that runs. Dropped too early it is killed, then its helpers, which nobody starts again then, and their services.
struct Running {
    root: Child,
    /// Those that are known; emptied when they have ended.
    helpers: Vec<Pid>,
}

impl Running {
    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.root.id()).expect("a pid"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut helpers = std::mem::take(&mut self.helpers);
        if matches!(self.root.try_wait(), Ok(None)) {
            let _ = kill(self.pid(), Signal::SIGSTOP);
            helpers.extend(children_of(self.pid()));
            let _ = self.root.kill();
            let _ = self.root.wait();
        }
        for helper in helpers.into_iter().filter(|helper| runs(*helper)) {
            let services = children_of(helper);
            for pid in [helper].into_iter().chain(services) {
                let _ = kill(pid, Signal::SIGKILL);
            }
        }
    }
}
