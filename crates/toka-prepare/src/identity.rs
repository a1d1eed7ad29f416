//! Which project a workspace is. A project is a workspace, by its real path; people know it by a name, and everything that is
//! kept of it lies under that name. So the name belongs to one workspace: the first that has it.
//!
//! ```text
//! <state>/projects/NAME/workspace     the path of the workspace that NAME belongs to
//!
//! a workspace that no --project names is
//!   NAME         what its directory is called, when that belongs to nobody else
//!   NAME-HASH    otherwise; HASH is of its path, so that it is the same every time
//! ```

use std::io::{self, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use toka_core::ProjectName;
use toka_core::name::MAX_NAME_BYTES;

use crate::RunError;
use crate::folders::{ProjectFolders, root_in};
use crate::trust::hash;
use crate::workplace::make_private;

/// The file that says whose a project is.
const OWNER: &str = "workspace";
/// Digits of the hash: two directories of one name are as good as never told apart by fewer.
const DIGITS: usize = 8;

/// The name of the project that a workspace is, when nobody says another; `None` when its directory's name holds nothing that
/// a name may hold.
pub fn name_of(state_dir: &Path, workspace: &Path) -> Option<ProjectName> {
    let plain = ProjectName::slug(&workspace.file_name()?.to_string_lossy())?;
    if owner(state_dir, &plain).is_none_or(|owner| owner == workspace) {
        return Some(plain);
    }
    let room = MAX_NAME_BYTES - DIGITS - 1;
    let begins: String = plain.as_str().chars().take(room).collect();
    let digits = &hash(workspace.as_os_str().as_bytes())[..DIGITS];
    ProjectName::new(&format!("{}-{digits}", begins.trim_end_matches('-'))).ok()
}

/// The workspace that a project's name belongs to, if it does.
pub fn owner(state_dir: &Path, project: &ProjectName) -> Option<PathBuf> {
    let path = root_in(state_dir, project).join(OWNER);
    let bytes = std::fs::read(path).ok()?;
    Some(PathBuf::from(std::ffi::OsString::from_vec(bytes)))
}

/// Takes the name for the workspace, unless it belongs to another one that is still there. One that is gone has left it to
/// whoever says the name.
///
/// # Errors
/// When it is another's, or the project's directory cannot be made or written to.
pub fn claim(folders: &ProjectFolders) -> Result<(), RunError> {
    let root = folders.root();
    make_private(&root).map_err(RunError::Folder)?;
    let path = root.join(OWNER);
    let failed = |source| RunError::Folder(crate::FolderError { what: "write", path: path.clone(), source });
    match owner(&folders.state_dir, &folders.project) {
        Some(owner) if owner == folders.workspace => return Ok(()),
        Some(owner) if owner.exists() => {
            return Err(RunError::Elsewhere {
                project: folders.project.clone(),
                workspace: owner,
                asked: folders.workspace.clone(),
            });
        }
        Some(_) => std::fs::remove_file(&path).map_err(failed)?,
        None => {}
    }
    // It has its name only when it is whole: who reads in between would find an owner without a path.
    let mut written = tempfile::Builder::new().prefix(OWNER).tempfile_in(&root).map_err(failed)?;
    written.write_all(folders.workspace.as_os_str().as_bytes()).map_err(failed)?;
    match written.persist_noclobber(&path) {
        Ok(_) => Ok(()),
        // Somebody was quicker: it is theirs.
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => claim(folders),
        Err(error) => Err(failed(error.error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_belongs_to_one_workspace() {
        let root = tempfile::tempdir().expect("a folder");
        let (state, a, b) =
            (root.path().join("state"), root.path().join("a/My App"), root.path().join("b/my-app"));
        let folders = |workspace: &Path, project: &ProjectName| {
            for folder in [workspace, &state.join("projects").join(project.as_str())] {
                std::fs::create_dir_all(folder).expect("a folder");
            }
            ProjectFolders {
                state_dir: state.clone(),
                run_dir: "/nowhere".into(),
                project: project.clone(),
                workspace: workspace.to_owned(),
                user_home: "/h".into(),
            }
        };
        let plain = name_of(&state, &a).expect("a name");
        assert_eq!(plain.as_str(), "my-app");
        assert_eq!(name_of(&state, &b), Some(plain.clone()), "nobody has it yet");
        claim(&folders(&a, &plain)).expect("it is free");
        claim(&folders(&a, &plain)).expect("it is its own");
        assert_eq!(name_of(&state, &a), Some(plain.clone()));
        let other = name_of(&state, &b).expect("another name");
        assert!(other.as_str().starts_with("my-app-") && other.as_str().len() == 15, "{other}");
        claim(&folders(&b, &other)).expect("it is free");
        assert_eq!(name_of(&state, &b), Some(other));
        let refused = claim(&folders(&b, &plain)).expect_err("it is another's").to_string();
        assert!(refused.contains("a/My App"), "{refused}");
        // Who moved a workspace says its name.
        std::fs::remove_dir(&a).expect("empty");
        claim(&folders(&b, &plain)).expect("nobody is there any more");
        assert_eq!(name_of(&state, &b), Some(plain));
        assert_eq!(name_of(&state, Path::new("/")), None);
    }

    #[test]
    fn of_two_that_claim_a_name_at_once_one_has_it() {
        for _ in 0..50 {
            let root = tempfile::tempdir().expect("a folder");
            let claims = ["a/app", "b/app"].map(|workspace| {
                let workspace = root.path().join(workspace);
                std::fs::create_dir_all(&workspace).expect("a folder");
                ProjectFolders {
                    state_dir: root.path().join("state"),
                    run_dir: "/nowhere".into(),
                    project: ProjectName::new("app").expect("a label"),
                    workspace,
                    user_home: "/h".into(),
                }
            });
            let barrier = std::sync::Barrier::new(2);
            let won = std::thread::scope(|scope| {
                let claimed = claims.each_ref().map(|folders| {
                    let barrier = &barrier;
                    scope.spawn(move || {
                        barrier.wait();
                        claim(folders)
                    })
                });
                claimed.map(|claimed| claimed.join().expect("no panic"))
            });
            let owner = owner(&claims[0].state_dir, &claims[0].project).expect("an owner");
            for (folders, outcome) in claims.iter().zip(won) {
                assert_eq!(outcome.is_ok(), owner == folders.workspace, "{outcome:?}");
            }
        }
    }

    #[test]
    fn a_long_name_has_room_for_its_hash() {
        let state = tempfile::tempdir().expect("a folder");
        let long = Path::new("/x").join("a".repeat(200));
        let plain = name_of(state.path(), &long).expect("a name");
        let root = state.path().join("projects").join(plain.as_str());
        std::fs::create_dir_all(&root).expect("a folder");
        std::fs::write(root.join(OWNER), "/elsewhere").expect("room");
        let other = name_of(state.path(), &long).expect("a name");
        assert!(other != plain && other.as_str().len() <= MAX_NAME_BYTES, "{other}");
    }
}
