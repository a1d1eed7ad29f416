//! Whether the daemon itself can do its work: one check per thing that it needs. `/readyz` shows them as Kubernetes shows
//! those of its own servers (<https://kubernetes.io/docs/reference/using-api/health-checks/>).

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use nix::sys::resource::{Resource, getrlimit};
use toka_api::health::{Check, OpenFiles, Outcome};
use toka_core::{ByteSize, ProjectName};
use toka_prepare::disk_space;
use toka_store::Health;

use toka_project::Facts;

/// Share of the limit of open files, in percent, from which on the next agent, which takes some, may find none.
const FILES_NEAR_LIMIT: u64 = 90;

/// The files of this process; `None` where the kernel does not tell.
pub(super) fn open_files() -> Option<OpenFiles> {
    let entries = std::fs::read_dir("/proc/self/fd").ok()?;
    // One of them is that of the folder itself.
    let open = u64::try_from(entries.count()).ok()?.saturating_sub(1);
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    Some(OpenFiles { open, limit })
}

/// What every daemon needs, whatever runs in it.
pub(super) fn of_daemon(socket: &Path, folders: &BTreeSet<PathBuf>, files: Option<OpenFiles>) -> Vec<Check> {
    let mut checks = vec![of_socket(socket)];
    checks.push(of_disk(folders));
    checks.extend(files.map(of_files));
    checks
}

/// It answers, or nobody would ask; but the next one finds it by its path.
fn of_socket(socket: &Path) -> Check {
    let name = "control-socket";
    match socket.symlink_metadata() {
        Ok(metadata) if metadata.file_type().is_socket() => Check::ok(name, None),
        Ok(_) => Check::failed(name, format!("{} is no socket any more", socket.display())),
        Err(error) => Check::failed(name, format!("{}: {error}", socket.display())),
    }
}

/// Whether one more agent could start: the fullest disk of the folders decides.
fn of_disk(folders: &BTreeSet<PathBuf>) -> Check {
    let mut least = None;
    for folder in folders {
        match disk_space::look(folder) {
            Ok(free) => least = least.into_iter().chain(free).min(),
            Err(error) => {
                let source = std::error::Error::source(&error).map(|why| format!(": {why}"));
                return Check::failed("disk", format!("cannot {error}{}", source.unwrap_or_default()));
            }
        }
    }
    Check::ok("disk", least.map(|bytes| format!("{} free", ByteSize(bytes))))
}

fn of_files(files: OpenFiles) -> Check {
    let OpenFiles { open, limit } = files;
    let figures = format!("{open} of {limit}");
    if u128::from(open) * 100 > u128::from(limit) * u128::from(FILES_NEAR_LIMIT) {
        return Check::failed("open-files", figures);
    }
    Check::ok("open-files", Some(figures))
}

/// Files of a project that somebody may remove while it runs.
#[derive(Debug)]
pub(super) struct Files {
    /// What is kept of it.
    pub(super) root: PathBuf,
    /// Where the next daemon would find its keeper, if that waits for one.
    pub(super) keeper: Option<PathBuf>,
}

/// What the daemon needs for one project.
pub(super) fn of_project(project: &ProjectName, facts: &Facts, files: &Files) -> [Check; 2] {
    let (journal, keeper) = (format!("journal/{project}"), format!("keeper/{project}"));
    let is_gone = |path: &&PathBuf| path.symlink_metadata().is_err();
    [
        match &facts.journal {
            _ if is_gone(&&files.root) => {
                let root = files.root.display();
                Check::failed(journal, format!("nothing of the project is kept any more: {root} is gone"))
            }
            Health::Well => Check::ok(journal, None),
            Health::Waiting(trouble) => Check::failed(journal, format!("events wait in memory: {trouble}")),
            Health::Losing(trouble, lost) => {
                Check::failed(journal, format!("{lost} events are lost: {trouble}"))
            }
        },
        match (&facts.keeper, files.keeper.as_ref().filter(is_gone)) {
            (Ok(()), Some(socket)) => {
                let socket = socket.display();
                Check::failed(keeper, format!("the next daemon would not find its agents: {socket} is gone"))
            }
            (Ok(()), None) => Check::ok(keeper, None),
            (Err(why), _) => Check::failed(keeper, why),
        },
    ]
}

/// The checks as Kubernetes writes them, but with the reasons.
pub(super) fn text(checks: &[Check]) -> String {
    let mut text = String::new();
    for Check { name, outcome } in checks {
        let _ = match outcome {
            Outcome::Ok { .. } => writeln!(text, "[+]{name} ok"),
            Outcome::Failed { why } => writeln!(text, "[-]{name} failed: {why}"),
        };
    }
    let passed = checks.iter().all(Check::is_ok);
    text + if passed { "readyz check passed\n" } else { "readyz check failed\n" }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use toka_core::RunStatus;
    use toka_store::Trouble;

    use super::*;

    fn facts(journal: Health, keeper: Result<(), String>) -> Facts {
        let (expected, resources) = (HashMap::new(), HashMap::new());
        Facts { status: Arc::new(RunStatus::default()), expected, resources, journal, keeper }
    }

    #[test]
    fn each_check_is_a_line() {
        let project = ProjectName::new("shop").expect("a label");
        let folder = tempfile::tempdir().expect("a folder");
        let files = Files { root: folder.path().to_owned(), keeper: None };
        let of_project = |facts: &Facts| of_project(&project, facts, &files);
        let mut checks = of_project(&facts(Health::Well, Ok(()))).to_vec();
        assert_eq!(text(&checks), "[+]journal/shop ok\n[+]keeper/shop ok\nreadyz check passed\n");
        let gone = Err("it is\ngone".to_owned());
        checks.extend(of_project(&facts(Health::Losing(Trouble::Full, 3), gone)));
        assert_eq!(
            text(&checks[2..]),
            "[-]journal/shop failed: 3 events are lost: no space is left\n\
             [-]keeper/shop failed: it is\\x0agone\nreadyz check failed\n"
        );
        let waiting = of_project(&facts(Health::Waiting(Trouble::Locked), Ok(())));
        assert!(!waiting[0].is_ok() && waiting[1].is_ok(), "{waiting:?}");
    }

    #[test]
    fn files_that_somebody_removed_are_told() {
        let project = ProjectName::new("shop").expect("a label");
        let files = Files { root: "/none/projects/shop".into(), keeper: Some("/none/keeper.sock".into()) };
        let checks = of_project(&project, &facts(Health::Well, Ok(())), &files);
        assert_eq!(
            text(&checks),
            "[-]journal/shop failed: nothing of the project is kept any more: /none/projects/shop is gone\n\
             [-]keeper/shop failed: the next daemon would not find its agents: /none/keeper.sock is gone\n\
             readyz check failed\n"
        );
    }

    #[test]
    fn a_socket_that_is_gone_and_a_limit_that_is_near_are_failures() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.sock");
        assert!(!of_socket(&path).is_ok());
        std::fs::write(&path, "").expect("a file");
        assert!(!of_socket(&path).is_ok());
        std::fs::remove_file(&path).expect("our file");
        let _listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
        assert!(of_socket(&path).is_ok());
        for (open, is_ok) in [(90, true), (91, false)] {
            assert_eq!(of_files(OpenFiles { open, limit: 100 }).is_ok(), is_ok, "{open}");
        }
        let own = open_files().expect("/proc");
        assert!(own.open >= 3 && own.open < own.limit, "{own:?}");
    }

    #[test]
    fn what_cannot_be_looked_at_is_no_full_disk() {
        let folder = tempfile::tempdir().expect("a folder");
        let folders = BTreeSet::from([folder.path().to_owned(), folder.path().join("none")]);
        let Check { outcome: Outcome::Ok { detail: Some(detail) }, .. } = of_disk(&folders) else {
            panic!("{:?}", of_disk(&folders));
        };
        assert!(detail.ends_with(" free"), "{detail}");
    }
}
