//! Sandboxes of others, for scale: those that are installed launch the same nothing in the same rounds. Each is asked for
//! about what an agent gets (a file system of its own, no network, no capabilities, a system call filter where it has
//! one). They are commands that are started anew each time, which is how they are used.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use toka_tests::measure::{Samples, compile_c};

const BUBBLEWRAP: &[&str] = &[
    "bwrap",
    "--unshare-all",
    "--die-with-parent",
    "--new-session",
    "--cap-drop",
    "ALL",
    "--ro-bind",
    "/",
    "/",
    "--dev",
    "/dev",
    "--proc",
    "/proc",
    "--tmpfs",
    "/tmp",
    "/bin/true",
];
const FIREJAIL: &[&str] = &[
    "firejail",
    "--quiet",
    "--noprofile",
    "--net=none",
    "--caps.drop=all",
    "--seccomp",
    "--private-tmp",
    "/bin/true",
];
const MINIJAIL: &[&str] = &["minijail0", "-v", "-p", "-e", "-l", "-N", "-c", "0", "-n", "/bin/true"];
const CRUN: &[&str] = &["crun", "run", "toka-test-bench"];
const RUNC: &[&str] = &["runc", "run", "toka-test-bench"];

/// A sandbox that is installed and works here.
pub(crate) struct Peer {
    /// What it is called in the table.
    pub(crate) name: &'static str,
    /// Its launches, in milliseconds.
    pub(crate) samples: Samples,
    command: Command,
}

impl Peer {
    /// Launches once.
    pub(crate) fn launch(&mut self) {
        let status = self.samples.time(|| self.command.status().expect("it started before"));
        assert!(status.success(), "{}: {status}", self.name);
    }
}

/// The peers that work; says which do not, and why. `folder` is for a container's file system, and is made.
pub(crate) fn installed(folder: &Path) -> Vec<Peer> {
    make_bundle(folder);
    let all: [(&'static str, &[&str]); 5] = [
        ("bubblewrap", BUBBLEWRAP),
        ("minijail", MINIJAIL),
        ("crun", CRUN),
        ("runc", RUNC),
        ("firejail", FIREJAIL),
    ];
    all.into_iter().filter_map(|(name, words)| try_out(name, words, folder)).collect()
}

fn try_out(name: &'static str, words: &[&str], folder: &Path) -> Option<Peer> {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).current_dir(folder).stdin(Stdio::null());
    let why = match command.output() {
        Ok(Output { status, .. }) if status.success() => {
            command.stdout(Stdio::null()).stderr(Stdio::null());
            return Some(Peer { name, samples: Samples::default(), command });
        }
        Ok(output) => {
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            stderr.lines().next().map_or(output.status.to_string(), str::to_owned)
        }
        Err(error) => error.to_string(),
    };
    eprintln!("left out: {name}: {why}");
    None
}

/// An OCI bundle whose file system holds one static program that does nothing.
fn make_bundle(folder: &Path) {
    let root = folder.join("rootfs");
    fs::create_dir_all(&root).expect("a folder");
    let source = folder.join("true.c");
    fs::write(&source, "int main(void) { return 0; }\n").expect("a file");
    compile_c(&source, &["-static"], &root.join("true"));
    fs::write(folder.join("config.json"), bundle().to_string()).expect("a file");
}

/// The bundle's description, by the OCI runtime specification 1.0.
fn bundle() -> Value {
    let namespaces = ["pid", "network", "ipc", "uts", "mount"].map(|kind| json!({ "type": kind }));
    json!({
        "ociVersion": "1.0.0",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": ["/true"],
            "cwd": "/",
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs", "readonly": true },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] },
        ],
        "linux": { "namespaces": namespaces },
    })
}
