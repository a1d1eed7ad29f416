//! What a project left. Under its lock, so that no run begins meanwhile, and only when it has no process any more.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use toka_core::{ProjectName, RunId};
use toka_prepare::folders::{journal_in, lock_in};
use toka_prepare::lock::{self, ProjectLock};
use toka_prepare::{LockError, remove_tree};
use toka_store::{Filter, Reader, Retention, Settings, Tended, Writer};
use uuid::Uuid;

use super::processes::Processes;
use super::{Collected, GcOptions, Homes, Kind, Mode, agents, disk, groups};

/// Where a project is.
pub(super) struct Place<'o> {
    name: &'o ProjectName,
    root: PathBuf,
    run: PathBuf,
    groups: Vec<PathBuf>,
    homes: Homes,
    mode: Mode,
}

impl<'o> Place<'o> {
    pub(super) fn new(options: &GcOptions, name: &'o ProjectName, groups: Vec<PathBuf>) -> Self {
        let (homes, mode) = (options.homes, options.mode);
        let (root, run) = (options.root_of(name), options.run_dir.join(name.as_str()));
        Self { name, root, run, groups, homes, mode }
    }

    /// Finds what may go, and removes it.
    pub(super) fn collect(&self, processes: &Processes, collected: &mut Collected) {
        if let Some(why) = self.in_use(processes) {
            return collected.keep(Kind::Project, &self.root, why);
        }
        // From here on no run of it can begin; one may have begun and lost its daemon since the look.
        let _lock = match self.mode {
            Mode::Show => None,
            Mode::Remove => match self.lock() {
                Ok(lock) => lock,
                Err(why) => return collected.keep(Kind::Project, &self.root, why),
            },
        };
        if let Some(why) = self.living(&Processes::scan(Path::new("/proc"))) {
            return collected.keep(Kind::Project, &self.root, why);
        }
        let mut found = Collected::default();
        self.find(&mut found);
        collected.kept.append(&mut found.kept);
        if self.mode == Mode::Show {
            return collected.items.append(&mut found.items);
        }
        for item in found.items {
            match self.remove(item.kind, &item.path) {
                Ok(freed) => collected.items.push(super::Item { bytes: item.bytes.or(freed), ..item }),
                Err(error) => collected.fail(item.kind, &item.path, &error),
            }
        }
    }

    /// Why nothing of it may be touched.
    fn in_use(&self, processes: &Processes) -> Option<String> {
        let lock = lock_in(&self.root);
        if lock.symlink_metadata().is_ok_and(|lock| !lock.is_file()) {
            return Some("its lock is no file".to_owned());
        }
        if lock::is_held(&lock) || self.somebody_listens() {
            return Some("it runs".to_owned());
        }
        self.living(processes)
    }

    /// Its agents that run on, in a sentence.
    fn living(&self, processes: &Processes) -> Option<String> {
        let mut living: BTreeSet<u32> =
            self.groups.iter().flat_map(|group| groups::processes(group)).collect();
        // Where there are no groups.
        living.extend(processes.given(&self.root.join("agents")));
        if living.is_empty() {
            return None;
        }
        let pids: Vec<String> = living.iter().map(ToString::to_string).collect();
        // Of a run in the foreground nobody goes on with the agents.
        let then = match toka_project::is_unfinished(&self.root) {
            true => "`toka serve --detach` goes on with them, and `toka down` ends them then",
            false => "`toka down` kills them",
        };
        Some(format!("its agents run on without daemon and keeper (processes {}): {then}", pids.join(", ")))
    }

    fn somebody_listens(&self) -> bool {
        ["control.sock", toka_api::socket::KEEPER]
            .iter()
            .any(|name| toka_api::socket::is_awaited(&self.run.join(name)))
    }

    /// None where no run can begin, since nothing of the project is kept.
    fn lock(&self) -> Result<Option<ProjectLock>, String> {
        if disk::own_folder(&self.root).map_err(|error| error.to_string())?.is_none() {
            return Ok(None);
        }
        match ProjectLock::take(&lock_in(&self.root), RunId::from_uuid(Uuid::now_v7())) {
            Ok(lock) => Ok(Some(lock)),
            Err(LockError::Held(_)) => Err("it runs".to_owned()),
            Err(LockError::Kept(_)) => Err("its keeper still has agents of a run that was killed".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn find(&self, found: &mut Collected) {
        let name = Some(self.name);
        for group in &self.groups {
            found.add(Kind::ControlGroup, name, group, Some(0));
        }
        match disk::own_folder(&self.run) {
            Ok(Some(folder)) => found.add(Kind::RunFolder, name, folder, Some(disk::size(folder))),
            Ok(None) => {}
            Err(error) => found.keep(Kind::RunFolder, &self.run, error.to_string()),
        }
        if disk::own_folder(&self.root).is_ok_and(|root| root.is_some()) {
            agents::find(self.name, &self.root, self.homes, found);
            let journal = journal_in(&self.root);
            match has_old_events(&journal) {
                Ok(true) => found.add(Kind::OldEvents, name, &journal, None),
                Ok(false) => {}
                Err(why) => found.keep(Kind::OldEvents, &journal, why),
            }
        }
    }

    /// Removes something; what it took, where that is known only now.
    fn remove(&self, kind: Kind, path: &Path) -> io::Result<Option<u64>> {
        match kind {
            Kind::ControlGroup => groups::remove(path).map(|()| None),
            Kind::OldEvents => remove_old_events(path).map(Some),
            Kind::CheckLog | Kind::OldLog => fs::remove_file(path).map(|()| None),
            Kind::RunFolder | Kind::DoorFolder | Kind::AgentFolder | Kind::Project => {
                remove_tree::remove(path)?;
                if kind == Kind::AgentFolder {
                    // It stays while logs are in it.
                    let _ = path.parent().map(fs::remove_dir);
                }
                Ok(None)
            }
        }
    }
}

fn has_old_events(journal: &Path) -> Result<bool, String> {
    let mut reader = Reader::new(journal);
    let read = reader.events(0, &Filter::default(), 1);
    let Some(oldest) = read.map_err(|error| error.to_string())?.pop() else { return Ok(false) };
    let last = reader.last_seq().map_err(|error| error.to_string())?;
    let Retention { max_age, max_events } = Retention::default();
    let age = u128::try_from(toka_project::now_ms().saturating_sub(oldest.time_ms)).unwrap_or(0);
    Ok(age > max_age.as_millis() || last.saturating_sub(oldest.seq) >= max_events)
}

/// Removes events beyond what is kept, and says by how much the file has shrunk.
fn remove_old_events(journal: &Path) -> io::Result<u64> {
    let before = disk::size(journal);
    let opened = Writer::open(journal, Settings::default(), toka_project::now_ms())?;
    let mut writer = opened.writer;
    let begun = Instant::now();
    while writer.tend(toka_project::now_ms())? == Tended::More && begun.elapsed() < LONGEST {}
    writer.checkpoint();
    writer.close().map_err(|(_, error)| error)?;
    Ok(before.saturating_sub(disk::size(journal)))
}

/// Longest that events of a project are removed at once: the rest go with the next run.
const LONGEST: std::time::Duration = std::time::Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use toka_core::{Event, EventKind};
    use toka_store::{Durability, Record};

    use super::*;

    const DAY_MS: i64 = 24 * 60 * 60 * 1000;

    #[test]
    fn events_beyond_what_is_kept_go_and_others_stay() {
        let folder = tempfile::tempdir().expect("a folder");
        let journal = journal_in(folder.path());
        let now_ms = toka_project::now_ms();
        let event = |seq: u64, age_days: i64| Event {
            seq,
            time_ms: now_ms - age_days * DAY_MS,
            project: ProjectName::new("shop").expect("a label"),
            run: RunId::from_uuid(Uuid::from_u128(u128::from(seq))),
            agent: None,
            kind: EventKind::RunEnded { exit_code: 0 },
        };
        let write = |events: &[Event]| {
            let mut writer = Writer::open(&journal, Settings::default(), now_ms).expect("a journal").writer;
            writer.write(events.iter().map(Record::of).collect(), Durability::Now, Instant::now());
            writer.close().expect("written");
        };
        write(&[event(1, 1)]);
        assert_eq!(has_old_events(&journal), Ok(false));
        fs::remove_file(&journal).expect("ours");
        write(&[event(1, 40), event(2, 31), event(3, 1)]);
        assert_eq!(has_old_events(&journal), Ok(true));
        remove_old_events(&journal).expect("removed");
        assert_eq!(has_old_events(&journal), Ok(false));
        let left = Reader::new(&journal).events(0, &Filter::default(), 9).expect("readable");
        assert_eq!(left.iter().map(|event| event.seq).collect::<Vec<_>>(), [3]);
    }

    #[test]
    fn what_is_no_journal_stays_with_a_reason() {
        let folder = tempfile::tempdir().expect("a folder");
        let journal = journal_in(folder.path());
        assert_eq!(has_old_events(&journal), Ok(false), "there is none");
        fs::write(&journal, "no database at all, but long enough to be looked at as if it were one")
            .expect("room");
        assert!(has_old_events(&journal).is_err());
    }
}
