//! Short folders of doors, made where a usual path would be too long for a socket, and left when daemon and keeper were killed
//! together. They may belong to projects of other state folders, and lie where all have theirs: each says whose it is.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toka_prepare::remove_tree;

use super::processes::Processes;
use super::{Collected, GcOptions, Kind, Mode, disk};
use toka_project::OWNER;

/// Of one that is younger, its keeper may not have begun yet.
const YOUNG: Duration = Duration::from_secs(60);
/// What is in a door.
const IN_A_DOOR: [&str; 4] = ["notify", "agent", "sections.json", "sections.new"];

/// Removes those that nobody has any more.
pub(super) fn collect(options: &GcOptions, processes: &Processes, collected: &mut Collected) {
    let awaited = linked_to(&options.run_dir);
    for base in &options.door_bases {
        for folder in disk::entries(base).iter().filter(|folder| is_ours(folder)) {
            if awaited.contains(folder) {
                collected.keep(Kind::DoorFolder, folder, "a project that was kept has its doors in it");
                continue;
            }
            one(folder, options.mode, processes, collected);
        }
    }
}

/// The run folder of the project whose doors are in a short one, if that still has them.
fn owner(folder: &Path) -> Option<PathBuf> {
    let run_folder = std::fs::read_link(folder.join(OWNER)).ok()?;
    doors_of(&run_folder).any(|door| door.parent() == Some(folder)).then_some(run_folder)
}

/// Where doors lie that a run folder has links to, since they are in none of the usual places.
fn doors_of(run_folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    disk::entries(run_folder).into_iter().filter_map(|agent| std::fs::read_link(agent.join("door")).ok())
}

/// The short folders that the doors of projects lie in which are still there: those of others were collected before.
fn linked_to(run_dir: &Path) -> BTreeSet<PathBuf> {
    let projects = disk::entries(run_dir);
    let doors = projects.iter().flat_map(|project| doors_of(project));
    doors.filter_map(|door| Some(door.parent()?.to_owned())).collect()
}

fn one(folder: &Path, mode: Mode, processes: &Processes, collected: &mut Collected) {
    let kind = Kind::DoorFolder;
    if let Some(run_folder) = owner(folder) {
        return collected.keep(kind, folder, format!("{} has its doors in it", run_folder.display()));
    }
    if processes.know(folder) {
        return collected.keep(kind, folder, "a process that lives has it");
    }
    if let Some(other) = stranger(folder) {
        return collected.keep(kind, folder, format!("in it is something else than doors: {other}"));
    }
    let bytes = disk::size(folder);
    match mode {
        Mode::Show => collected.add(kind, None, folder, Some(bytes)),
        Mode::Remove => match remove_tree::remove(folder) {
            Ok(()) => collected.add(kind, None, folder, Some(bytes)),
            Err(error) => collected.fail(kind, folder, &error),
        },
    }
}

/// Whether it has the looks of one: its name (mkdtemp(3)), its mode, its owner, and some age.
fn is_ours(path: &Path) -> bool {
    let suffix = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix("toka-"));
    let named = suffix.is_some_and(|rest| rest.len() == 6 && rest.bytes().all(|b| b.is_ascii_alphanumeric()));
    let Ok(metadata) = path.symlink_metadata() else { return false };
    let is_old = metadata.modified().is_ok_and(|at| at.elapsed().is_ok_and(|age| age >= YOUNG));
    named
        && is_old
        && metadata.permissions().mode() & 0o7777 == 0o700
        && disk::own_folder(path).is_ok_and(|folder| folder.is_some())
}

/// Something in it that no door has.
fn stranger(folder: &Path) -> Option<String> {
    let name =
        |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    for door in disk::entries(folder) {
        if name(&door) == OWNER && door.is_symlink() {
            continue;
        }
        if !name(&door).bytes().all(|byte| byte.is_ascii_digit()) || disk::own_folder(&door).is_err() {
            return Some(name(&door));
        }
        let other = disk::entries(&door)
            .iter()
            .map(|path| name(path))
            .find(|name| !IN_A_DOOR.contains(&name.as_str()));
        if other.is_some() {
            return other;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, Permissions};
    use std::os::unix::fs::symlink;
    use std::time::SystemTime;

    use super::super::Homes;
    use super::*;

    #[test]
    fn a_folder_that_another_state_folder_has_its_doors_in_stays_though_no_process_knows_it() {
        let root = tempfile::tempdir().expect("a folder");
        let (base, run_folder) = (root.path().join("base"), root.path().join("other/run/shop"));
        let (owned, left) = (base.join("toka-Owned0"), base.join("toka-Left00"));
        fs::create_dir_all(run_folder.join("agent")).expect("room");
        for folder in [&owned, &left] {
            fs::create_dir_all(folder.join("0")).expect("room");
            symlink(&run_folder, folder.join(OWNER)).expect("room");
            fs::set_permissions(folder, Permissions::from_mode(0o700)).expect("ours");
            let then = SystemTime::now() - 2 * YOUNG;
            File::open(folder).and_then(|folder| folder.set_modified(then)).expect("ours");
        }
        // The one says whose it is; the other says so too, but that one has its doors elsewhere by now.
        symlink(owned.join("0"), run_folder.join("agent/door")).expect("room");
        let options = GcOptions {
            state_dir: root.path().join("state"),
            run_dir: root.path().join("run"),
            door_bases: vec![base],
            homes: Homes::Keep,
            mode: Mode::Remove,
        };
        let look = || {
            let mut collected = Collected::default();
            collect(&options, &Processes::scan(&root.path().join("proc")), &mut collected);
            collected
        };
        let found = look();
        assert!(owned.exists() && !left.exists(), "{found:?}");
        assert!(found.kept[0].why.contains("other/run/shop has its doors in it"), "{found:?}");
        fs::remove_dir_all(&run_folder).expect("ours");
        let found = look();
        assert!(!owned.exists() && found.kept.is_empty(), "{found:?}");
    }
}
