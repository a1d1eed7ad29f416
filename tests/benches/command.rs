//! How long a whole command takes that runs one `true`: `toka run` of a workstream and `toka exec --sandbox` of a file, from
//! posix_spawn(3) until they are reaped. Beside them the sandboxes of others that are installed, `true` by itself, and `toka --version`, which is
//! what a program of this size costs before it does anything.
//!
//! `cargo bench -p toka-tests --bench command [-- ROUNDS]`. Rounds alternate; ratios are to bubblewrap, or else to `true`.

mod peers;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use toka_tests::measure::{Samples, Table, rounds, scratch};
use toka_tests::{cgroups_of, toka_binary};

const ROUNDS: usize = 60;
/// By this name the benchmark's groups are found.
const GROUP: &str = "toka-test-bench";
const TASK: &str = "metadata: {name: nothing}\nspec: {type: task, process: {command: [/bin/true]}}\n";

fn main() {
    let rounds = rounds(ROUNDS);
    let temp = scratch();
    let workspace = temp.path().join("workspace");
    fs::create_dir_all(&workspace).expect("a folder");
    let task = temp.path().join("nothing.yaml");
    fs::write(&task, TASK).expect("a workstream");

    let mut bare = Measured::new(Command::new("/bin/true"));
    let mut version = Measured::new(toka(temp.path(), &[]));
    version.command.arg("--version");
    let mut run = Measured::new(toka(temp.path(), &["run", "--quiet", "--workdir"]));
    run.command.arg(&workspace).arg(&task);
    let mut exec = Measured::new(toka(temp.path(), &["exec", "--sandbox"]));
    exec.command.arg(&task).arg("--").arg("/bin/true").current_dir(&workspace);
    let mut peers = peers::installed(&temp.path().join("peers"));
    for _ in 0..rounds {
        for measured in [&mut bare, &mut version, &mut run, &mut exec] {
            measured.launch();
        }
        peers.iter_mut().for_each(peers::Peer::launch);
    }
    assert_eq!(cgroups_of(GROUP), Vec::<std::path::PathBuf>::new(), "no group stays behind");

    let mut table = Table::new(format!("Whole commands that run one true, {rounds} rounds in turn"));
    let bubblewrap = peers.iter().find(|peer| peer.name == "bubblewrap");
    let beside = bubblewrap.map_or(&bare.samples, |peer| &peer.samples);
    table.row("true by itself", &bare.samples, "ms", Some(beside), "");
    for peer in &peers {
        table.row(peer.name, &peer.samples, "ms", Some(beside), "");
    }
    table.row("toka --version", &version.samples, "ms", Some(beside), "");
    table.row("toka run of one true", &run.samples, "ms", Some(beside), "≤ 15 ms");
    table.row("toka exec --sandbox FILE -- true", &exec.samples, "ms", Some(beside), "≤ 9 ms");
    table.print();
}

/// A command and its times in milliseconds.
struct Measured {
    command: Command,
    samples: Samples,
}

impl Measured {
    fn new(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Self { command, samples: Samples::default() }
    }

    fn launch(&mut self) {
        let status = self.samples.time(|| self.command.status().expect("it starts"));
        assert!(status.success(), "{:?}: {status}", self.command);
    }
}

fn toka(temp: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(toka_binary());
    command.args(arguments).env("TOKA_CGROUP", GROUP).env("TOKA_STATE_DIR", temp.join("state"));
    command
}
