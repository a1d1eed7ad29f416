//! Where the programs are that the tests run, and that they are built from the sources as they are now.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
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
        None => {
            // Held until the copy is in place, too: test processes begin at the same time.
            let _lock = lock();
            reachable_by_all(&up_to_date())
        }
    })
}

/// The folder of the profile that the tests were built in: they lie in its `deps`.
fn profile_folder() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let deps = test.parent().expect("a file lies in a folder");
    deps.parent().expect("cargo puts tests two folders deep").to_owned()
}

/// One test process of the target folder at a time sees to its program.
fn lock() -> Flock<File> {
    let lock =
        File::create(profile_folder().join(".toka-tests-lock")).expect("the target folder is writable");
    Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| errno).expect("a lock")
}

/// `cargo test -p toka-tests` does not build the program, so that an old one would be tested silently.
fn up_to_date() -> PathBuf {
    let folder = profile_folder();
    let (binary, stamp) = (folder.join("toka"), folder.join(".toka-tests-built"));
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
    // One for each target folder, which the next build replaces.
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    let folder = std::env::temp_dir().join(format!("toka-tests-{:016x}", hasher.finish()));
    copy_of(path, &folder)
}

/// The copy of a program in `folder`, as new as the program.
fn copy_of(path: &Path, folder: &Path) -> PathBuf {
    let copy = folder.join("toka");
    let built = modified(path).expect("the program was built");
    if modified(&copy) != Some(built) {
        fs::create_dir_all(folder).expect("a temporary folder");
        let partial = folder.join("partial");
        fs::copy(path, &partial).expect("a copy of the program");
        File::open(&partial).and_then(|copy| copy.set_modified(built)).expect("our own copy");
        // Whoever runs the older one goes on with it.
        fs::rename(&partial, &copy).expect("a copy in place");
    }
    copy
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_copy_is_made_once_for_each_build_and_replaces_the_one_before() {
        let root = tempfile::tempdir().expect("a folder");
        let (program, folder) = (root.path().join("toka"), root.path().join("copies"));
        let inode = |path: &Path| path.metadata().expect("there").ino();
        fs::write(&program, "one").expect("room");
        let first = copy_of(&program, &folder);
        let before = inode(&first);
        assert_eq!(inode(&copy_of(&program, &folder)), before, "it is the same build");
        fs::write(&program, "two").expect("room");
        let later = modified(&program).expect("there") + std::time::Duration::from_secs(1);
        File::open(&program).and_then(|program| program.set_modified(later)).expect("ours");
        let second = copy_of(&program, &folder);
        assert_eq!(fs::read_to_string(&second).expect("readable"), "two");
        assert!(inode(&second) != before && folder.read_dir().expect("there").count() == 1);
    }
}
