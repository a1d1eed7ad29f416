//! Where Toka keeps its state: by the XDG base directory specification, in the system's folders for root, or all in
//! one place that the user names.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use toka_api::caller::user_home;
use toka_core::demand::normalise;
use toka_core::{ExitCode, ProjectName};
use toka_prepare::confine::follow_links;
use toka_prepare::folders::ProjectFolders;
use toka_prepare::{RunError, identity, must_be_own};

use super::refusal;
use toka_terminal::failure::Failure;

/// The variable that names one folder for everything.
pub(crate) const STATE_VARIABLE: &str = "TOKA_STATE_DIR";

/// The folders of this invocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Folders {
    /// What is kept: journals, logs, homes, artifacts.
    pub(crate) state: PathBuf,
    /// What lives as long as the machine is up: sockets.
    pub(crate) run: PathBuf,
}

/// The options that say which project is meant, and where it is.
#[derive(Debug, clap::Args)]
pub(crate) struct Place {
    /// The workspace, which relative paths are relative to, and the project is named after [default: the current folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) workdir: Option<PathBuf>,
    /// The project's name [default: the workspace folder's name, and a hash of its path where another workspace has that]
    #[arg(long, value_name = "NAME")]
    pub(crate) project: Option<ProjectName>,
    /// State, run files and sockets are kept below this folder [env: TOKA_STATE_DIR]
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
}

impl Place {
    /// Where everything of the project lies.
    ///
    /// # Errors
    /// When a folder cannot be used, or no project can be named after the workspace.
    pub(crate) fn folders(&self) -> Result<ProjectFolders, Failure> {
        let workspace = workspace(self.workdir.as_deref())?;
        let folders = Folders::find(self.state_dir.as_deref())?;
        Ok(ProjectFolders {
            project: project(self.project.as_ref(), &workspace, &folders.state)?,
            workspace,
            state_dir: folders.state,
            run_dir: folders.run,
            user_home: user_home(),
        })
    }

    /// The same, and the project's name is this workspace's from now on.
    ///
    /// # Errors
    /// As above; and when the name that was said is another workspace's.
    pub(crate) fn taken(&self) -> Result<ProjectFolders, Failure> {
        let refused = |error: RunError| refusal::failure(error.exit_code(), &error);
        let folders = self.folders()?;
        match identity::claim(&folders) {
            Ok(()) => Ok(folders),
            // Another workspace took the name at this moment: that changes what this one is called.
            Err(RunError::Elsewhere { .. }) if self.project.is_none() => {
                let folders = self.folders()?;
                identity::claim(&folders).map_err(refused)?;
                Ok(folders)
            }
            Err(error) => Err(refused(error)),
        }
    }
}

/// Who asks: the system's folders are root's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    /// User 0.
    Root,
    /// Anybody else.
    User,
}

impl Folders {
    /// The folders for this process; `given` is `--state-dir`.
    ///
    /// # Errors
    /// When nothing tells where an ordinary user's files belong, or a path is not UTF-8.
    pub(crate) fn find(given: Option<&Path>) -> Result<Self, Failure> {
        let who = if nix::unistd::geteuid().is_root() { Who::Root } else { Who::User };
        let folders = resolve(given, who, |name| std::env::var_os(name))?;
        let usable = |path: &Path| {
            // One folder has one name, whichever way the caller came to it: rules and sockets go by it.
            let path = normalise(&follow_links(&absolute(path)?));
            if is_text(&path) { Ok(path) } else { Err(no_text("the state folder", &path)) }
        };
        let folders = Self { state: usable(&folders.state)?, run: usable(&folders.run)? };
        // Before anything is read or made there: whoever can write to it decides what is trusted and what runs.
        for folder in [&folders.state, &folders.run] {
            match must_be_own(folder) {
                Err(error) if error.source.kind() != std::io::ErrorKind::NotFound => {
                    let message =
                        format!("cannot use the state folder {}: {}", folder.display(), error.source);
                    return Err(Failure::new(ExitCode::StateFolder, message));
                }
                _ => {}
            }
        }
        Ok(folders)
    }
}

fn resolve(
    given: Option<&Path>,
    who: Who,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Folders, Failure> {
    let path = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    // The specification: a relative path in an XDG variable is invalid and must be ignored.
    let xdg = |name| path(name).filter(|path| path.is_absolute());
    if let Some(all) = given.map(Path::to_owned).or_else(|| path(STATE_VARIABLE)) {
        return Ok(Folders { run: all.join("run"), state: all });
    }
    if who == Who::Root {
        return Ok(Folders { state: "/var/lib/toka".into(), run: "/run/toka".into() });
    }
    let base = xdg("XDG_STATE_HOME").or_else(|| path("HOME").map(|home| home.join(".local/state")));
    let state = base.map(|base| base.join("toka")).ok_or_else(|| {
        Failure::new(ExitCode::StateFolder, "HOME is not set, so there is no place for the state folder")
            .help(format!("name one with --state-dir or {STATE_VARIABLE}"))
    })?;
    let run = xdg("XDG_RUNTIME_DIR").map_or_else(|| state.join("run"), |base| base.join("toka"));
    Ok(Folders { state, run })
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| {
        Failure::new(ExitCode::StateFolder, format!("{} cannot be resolved: {error}", path.display()))
    })
}

/// Rules, events and the journal are text, and so are the paths in them.
fn is_text(path: &Path) -> bool {
    path.to_str().is_some()
}

/// A command line that names such a folder, or is given in it, is wrong: no file has to be changed.
fn no_text(what: &str, path: &Path) -> Failure {
    Failure::new(ExitCode::Usage, format!("{what} {} cannot be used: its path is not UTF-8", path.display()))
        .help("rename the folder, or use another one")
}

/// The workspace: `--workdir`, or the current folder, without links in its path.
///
/// # Errors
/// When it is no folder, cannot be reached, or has a path that is not UTF-8.
pub(crate) fn workspace(given: Option<&Path>) -> Result<PathBuf, Failure> {
    let path = given.unwrap_or(Path::new("."));
    let failure =
        |why: String| Failure::new(ExitCode::Usage, format!("the workspace {} {why}", path.display()));
    let real = path.canonicalize().map_err(|error| failure(format!("cannot be used: {error}")))?;
    match (real.is_dir(), is_text(&real)) {
        (false, _) => Err(failure("is no folder".into())),
        (true, false) => Err(no_text("the workspace", &real)),
        (true, true) => Ok(real),
    }
}

/// The project: `--project`, or what the workspace is called below this state folder ([`identity`]).
///
/// # Errors
/// When the folder's name holds nothing that a name may hold.
pub(crate) fn project(
    given: Option<&ProjectName>,
    workspace: &Path,
    state: &Path,
) -> Result<ProjectName, Failure> {
    let of_folder = || identity::name_of(state, workspace);
    given.cloned().or_else(of_folder).ok_or_else(|| {
        let message = format!("no project can be named after the folder {}", workspace.display());
        Failure::new(ExitCode::Usage, message).help("name it with --project NAME")
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    use toka_core::Name;

    use super::*;

    fn check(given: Option<&str>, who: Who, variables: &[(&str, &str)], state: &str, run: &str) {
        let variable = |name: &str| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        };
        let expected = Folders { state: state.into(), run: run.into() };
        assert_eq!(resolve(given.map(Path::new), who, variable).expect("folders"), expected);
    }

    #[test]
    fn the_folders() {
        let user = [("HOME", "/home/me"), ("XDG_RUNTIME_DIR", "/run/user/7")];
        check(None, Who::User, &user, "/home/me/.local/state/toka", "/run/user/7/toka");
        check(None, Who::User, &user[..1], "/home/me/.local/state/toka", "/home/me/.local/state/toka/run");
        let xdg = [("HOME", "/home/me"), ("XDG_STATE_HOME", "/s"), ("XDG_RUNTIME_DIR", "relative")];
        check(None, Who::User, &xdg, "/s/toka", "/s/toka/run");
        check(None, Who::Root, &user, "/var/lib/toka", "/run/toka");
        check(Some("/x"), Who::Root, &[(STATE_VARIABLE, "/y")], "/x", "/x/run");
        check(None, Who::Root, &[(STATE_VARIABLE, "/y")], "/y", "/y/run");
        assert!(resolve(None, Who::User, |_| None).is_err());
    }

    #[test]
    fn the_project_is_named_after_the_folder() {
        let name = |text| Name::new(text).expect("a label");
        let of = |given, path| project(given, Path::new(path), Path::new("/nowhere")).ok();
        assert_eq!(of(None, "/home/me/My Widgets"), Some(name("my-widgets")));
        let other = name("other");
        assert_eq!(of(Some(&other), "/home/me/widgets"), Some(other.clone()));
        assert_eq!(of(None, "/"), None);
    }

    #[test]
    fn a_workspace_must_be_a_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(workspace(Some(folder.path())).is_ok());
        let file = folder.path().join("file");
        std::fs::write(&file, "").expect("a file");
        let no_text = folder.path().join(OsStr::from_bytes(b"w\xff"));
        std::fs::create_dir(&no_text).expect("a folder");
        for bad in [file, folder.path().join("absent"), no_text] {
            assert!(workspace(Some(&bad)).is_err(), "{}", bad.display());
        }
    }
}
