//! The logs of all agents together: where they are, and how much of them is kept.

use std::path::{Path, PathBuf};

use toka_core::ByteSize;
use toka_logs::LogRetention;

/// The most that the logs of every agent of every project in one state folder take together; of more, the oldest are
/// removed that no agent writes to.
pub const KEPT_IN_ALL: ByteSize = ByteSize(2 * 1024 * 1024 * 1024);

/// Looks after the logs of a state folder.
pub(crate) fn log_retention(state_dir: &Path) -> LogRetention {
    let projects = state_dir.join("projects");
    LogRetention::new(KEPT_IN_ALL, Box::new(move || every_log(&projects)))
}

/// The current log of every agent, whether it is there or not; the layout is that of [`toka_prepare::folders`].
fn every_log(projects: &Path) -> Vec<PathBuf> {
    let agents = entries(projects).map(|project| project.join("agents"));
    agents.flat_map(|agents| entries(&agents).map(|agent| agent.join("log"))).collect()
}

/// What is in a folder; nothing when it cannot be read.
fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use toka_core::Name;

    use super::*;
    use toka_prepare::folders::ProjectFolders;

    #[test]
    fn the_logs_of_all_projects_are_found() {
        let state = tempfile::tempdir().expect("a folder");
        let name = |text| Name::new(text).expect("a label");
        let mut expected = Vec::new();
        for (project, agent) in [("one", "a"), ("one", "b"), ("two", "a")] {
            let folders = ProjectFolders {
                state_dir: state.path().to_owned(),
                run_dir: state.path().join("run"),
                project: name(project),
                workspace: state.path().to_owned(),
                user_home: state.path().to_owned(),
            };
            std::fs::create_dir_all(folders.agent(&name(agent))).expect("a folder");
            expected.push(folders.log(&name(agent)));
        }
        let mut found = every_log(&state.path().join("projects"));
        found.sort();
        assert_eq!(found, expected);
        assert!(every_log(&state.path().join("nothing")).is_empty());
    }
}
