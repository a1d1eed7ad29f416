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
        let mut it = Running(command.spawn().expect("it is installed"));
        wait_until(|| running() == count);
        self.start.add_time(begun.elapsed());
        sleep(SETTLE);
        let root = it.pid();
        let helpers = children_of(root);
        self.memory.add(helpers.iter().chain([&root]).map(|pid| pss(*pid)).sum());

        let begun = Instant::now();
        kill(root, self.end_signal).expect("it runs");
        wait_until(|| running() == 0);
        self.stop.add_time(begun.elapsed());
        it.0.wait().expect("our own child");
        wait_until(|| !helpers.iter().any(|pid| runs(*pid)));
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

/// A supervisor that runs. Dropped, it is killed with its helpers, and what they leave ends with the folder's program.
struct Running(Child);

impl Running {
    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.0.id()).expect("a pid"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(Some(_))) {
            return;
        }
        for helper in children_of(self.pid()) {
            for service in children_of(helper) {
                let _ = kill(service, Signal::SIGKILL);
            }
            let _ = kill(helper, Signal::SIGKILL);
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
