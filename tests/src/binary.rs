//! Where the programs are that the tests run, and that they are built from the sources as they are now.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

use nix::fcntl::{Flock, FlockArg};

/// The folder of the workspace that the tests were built from.
pub fn workspace_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the workspace")
}

/// The attacker, built together with the tests.
///
/// # Panics
/// When it is not there.
pub fn attack_binary() -> PathBuf {
    let path = profile_folder().join("attack");
    assert!(path.is_file(), "{} is missing: cargo builds it with the tests", path.display());
    path
}

/// The `toka` program, built if it is missing or older than its sources. `TOKA_TEST_BINARY` names another one.
///
/// # Panics
/// When it cannot be built.
pub fn toka_binary() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| match std::env::var_os("TOKA_TEST_BINARY") {
        Some(path) => PathBuf::from(path),
        None => reachable_by_all(&up_to_date()),
    })
}

/// The folder of the profile that the tests were built in: they lie in its `deps`.
fn profile_folder() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let deps = test.parent().expect("a file lies in a folder");
    deps.parent().expect("cargo puts tests two folders deep").to_owned()
}

/// `cargo test -p toka-tests` does not build the program, so that an old one would be tested silently.
fn up_to_date() -> PathBuf {
    let folder = profile_folder();
    let (binary, stamp) = (folder.join("toka"), folder.join(".toka-tests-built"));
    let lock = File::create(folder.join(".toka-tests-lock")).expect("the target folder is writable");
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| errno).expect("a lock");
    let built = modified(&binary).map(|built| modified(&stamp).map_or(built, |stamp| stamp.max(built)));
    if built.is_none_or(|built| newest_source() > built) {
        build(&folder);
        File::create(&stamp).expect("the target folder is writable");
    }
    binary
}

fn build(folder: &Path) {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--locked", "--quiet", "-p", "toka-cli", "--bin", "toka", "--target-dir"]);
    command.arg(folder.parent().expect("a profile lies in the target folder")).current_dir(workspace_root());
    if folder.ends_with("release") {
        command.arg("--release");
    }
    let status = command.status().expect("cargo starts");
    assert!(status.success(), "building toka failed");
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|data| data.modified()).ok()
}

/// When the newest file was changed that the program is made of.
fn newest_source() -> SystemTime {
    let root = workspace_root();
    let mut newest = SystemTime::UNIX_EPOCH;
    let mut left = vec![root.join("crates"), root.join("Cargo.toml"), root.join("Cargo.lock")];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(fs::read_dir(&path).expect("a readable folder").flatten().map(|entry| entry.path()));
        } else if let Some(modified) = modified(&path) {
            newest = newest.max(modified);
        }
    }
    newest
}

/// The path itself, or that of a copy when an ordinary user cannot reach it, as below a private home folder.
fn reachable_by_all(path: &Path) -> PathBuf {
    let open = |folder: &Path| fs::metadata(folder).is_ok_and(|data| data.permissions().mode() & 0o001 != 0);
    if path.ancestors().skip(1).all(open) {
        return path.to_owned();
    }
    let built =
        modified(path).and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok()).unwrap_or_default();
    let folder = std::env::temp_dir().join(format!("toka-tests-{}", built.as_nanos()));
    let copy = folder.join("toka");
    if !copy.exists() {
        fs::create_dir_all(&folder).expect("a temporary folder");
        let partial = folder.join(format!("partial-{}", std::process::id()));
        fs::copy(path, &partial).expect("a copy of the program");
        fs::rename(&partial, &copy).expect("a copy in place");
    }
    copy
}
