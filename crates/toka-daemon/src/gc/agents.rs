//! What agents of a project left: folders of those that are declared no more, logs beyond what is kept, results of checks
//! that are no more.

use std::collections::HashMap;
use std::path::Path;

use toka_api::declaration::Declaration;
use toka_core::{AgentName, LogPolicy, ProjectName};
use toka_logs::{excess_of, index_path};
use toka_prepare::folders::DECLARATION;

use super::{Collected, Homes, Kind, disk};

/// Folders of an agent that are its own.
const PRIVATE: [&str; 4] = ["home", "tmp", "artifacts", "inputs"];

/// What is declared of an agent.
struct Declared {
    logs: LogPolicy,
    objectives: usize,
}

/// Finds what may go of the agents of the project in `root`.
pub(super) fn find(project: &ProjectName, root: &Path, homes: Homes, found: &mut Collected) {
    let declared = declared(root);
    for folder in disk::entries(&root.join("agents")) {
        match disk::own_folder(&folder) {
            Err(error) => {
                found.keep(Kind::AgentFolder, &folder, error.to_string());
                continue;
            }
            Ok(None) => continue,
            Ok(Some(_)) => {}
        }
        let name = folder.file_name().and_then(|name| name.to_str()).map(AgentName::new);
        let Some(Ok(name)) = name else {
            found.keep(Kind::AgentFolder, &folder, "its name is no agent's: it is none of Toka's");
            continue;
        };
        let own = declared.as_ref().and_then(|declared| declared.get(&name));
        logs(project, &folder, own, found);
        if own.is_none() {
            match (&declared, homes) {
                (None, _) => found.keep(Kind::AgentFolder, &folder, "what is declared cannot be read"),
                (Some(_), Homes::Keep) => {
                    let bytes = private(&folder).map(|path| disk::size(&path)).sum();
                    let why = format!(
                        "the files of the last run do not declare it, and what it kept is nobody else's ({}): `toka gc --agents` removes it",
                        toka_core::ByteSize(bytes)
                    );
                    if private(&folder).next().is_some() {
                        found.keep(Kind::AgentFolder, &folder, why);
                    }
                }
                (Some(_), Homes::Remove) => {
                    for path in private(&folder) {
                        found.add(Kind::AgentFolder, Some(project), &path, Some(disk::size(&path)));
                    }
                }
            }
        }
    }
}

fn private(folder: &Path) -> impl Iterator<Item = std::path::PathBuf> {
    PRIVATE.map(|name| folder.join(name)).into_iter().filter(|path| disk::own_or_given(path))
}

/// None when there is no declaration that could be read.
fn declared(root: &Path) -> Option<HashMap<AgentName, Declared>> {
    // Who was left out of the last run with `--only` is declared all the same.
    let declaration = Declaration { only: Vec::new(), ..Declaration::read(&root.join(DECLARATION)).ok()? };
    let parsed = declaration.parse().ok()?;
    let of = |agent: toka_workstream::Agent| {
        (agent.name.clone(), Declared { logs: agent.logs, objectives: agent.objectives.len() })
    };
    Some(parsed.set.agents.into_iter().map(of).collect())
}

fn logs(project: &ProjectName, folder: &Path, own: Option<&Declared>, found: &mut Collected) {
    let policy = own.map_or_else(LogPolicy::default, |own| own.logs);
    let log = folder.join("log");
    let is_folder = disk::own_folder(&folder.join("logs")).is_ok_and(|folder| folder.is_some());
    for file in if is_folder { excess_of(&log, &policy).unwrap_or_default() } else { Vec::new() } {
        found.add(Kind::OldLog, Some(project), &file, Some(disk::size(&file)));
    }
    let checks = own.map_or(0, |own| own.objectives);
    for file in disk::entries(folder) {
        let number = |name: &str| name.strip_prefix("objective-")?.strip_suffix(".log")?.parse().ok();
        let name = file.file_name().and_then(|name| name.to_str());
        let Some(number) = name.and_then(number) else { continue };
        let number: usize = number;
        if number < checks {
            continue;
        }
        for path in [index_path(&file), file] {
            if path.symlink_metadata().is_ok_and(|metadata| metadata.is_file()) {
                found.add(Kind::CheckLog, Some(project), &path, Some(disk::size(&path)));
            }
        }
    }
}
