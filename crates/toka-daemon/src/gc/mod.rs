//! `toka gc`: what runs left that were ended together with their keeper, or long ago, goes. It works on files and takes the
//! locks that runs hold, so that it needs no daemon and disturbs none: of a project that runs, nothing is touched. No process
//! is ended, whatever it is.
//!
//! | What goes | When |
//! |---|---|
//! | control groups of a project | no process is in them, nobody holds its lock |
//! | its run folder: sockets, secrets | the same, and nobody listens there |
//! | short folders of doors | ours, older than a minute, of no run folder that has its doors there, known to no process |
//! | logs, events, results of checks | beyond what is kept, or of no check that is declared |
//! | HOME, tmp, artifacts, inputs of an agent | it is declared no more, and [`Homes::Remove`] |

mod agents;
mod disk;
mod doors;
mod groups;
mod processes;
mod project;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use toka_core::ProjectName;
use toka_prepare::folders::root_in;

use processes::Processes;

/// What is wanted.
#[derive(Debug, Clone)]
pub struct GcOptions {
    /// Where state is kept.
    pub state_dir: PathBuf,
    /// Where sockets and secrets are.
    pub run_dir: PathBuf,
    /// Folders in which short folders of doors may be.
    pub door_bases: Vec<PathBuf>,
    /// Whether folders of agents go that are declared no more.
    pub homes: Homes,
    /// Whether anything goes at all.
    pub mode: Mode,
}

/// What becomes of the folders of agents that are declared no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Homes {
    /// They stay: nobody else has what is in them.
    Keep,
    /// They go.
    Remove,
}

/// Whether it is in earnest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Only say what would go. No lock is taken.
    Show,
    /// Remove it.
    Remove,
}

/// A kind of thing that may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Control groups, empty ones.
    ControlGroup,
    /// Sockets and secrets of a project.
    RunFolder,
    /// Sockets whose usual place had too long a path.
    DoorFolder,
    /// What the check of an objective wrote.
    CheckLog,
    /// A log beyond what is kept.
    OldLog,
    /// Events beyond what is kept.
    OldEvents,
    /// A folder of an agent.
    AgentFolder,
    /// A project as a whole, or something in its place.
    Project,
}

impl Kind {
    /// In words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ControlGroup => "control group",
            Self::RunFolder => "run folder",
            Self::DoorFolder => "door folder",
            Self::CheckLog => "check log",
            Self::OldLog => "old log",
            Self::OldEvents => "old events",
            Self::AgentFolder => "agent folder",
            Self::Project => "project",
        }
    }
}

/// Something that goes, or went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Item {
    /// What it is.
    pub kind: Kind,
    /// Whose.
    pub project: Option<ProjectName>,
    /// Where.
    pub path: PathBuf,
    /// What it takes on disk, in bytes; not known beforehand of events.
    pub bytes: Option<u64>,
}

/// Something that stays, though it looks like something that may go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// What it is.
    pub kind: Kind,
    /// Where.
    pub path: PathBuf,
    /// Why it stays, and what would help, in a sentence.
    pub why: String,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Collected {
    /// What went, or would go.
    pub items: Vec<Item>,
    /// What stays.
    pub kept: Vec<Kept>,
    /// What should have gone and could not.
    pub failed: Vec<Kept>,
}

impl Collected {
    fn keep(&mut self, kind: Kind, path: &Path, why: impl Into<String>) {
        self.kept.push(Kept { kind, path: path.to_owned(), why: why.into() });
    }

    fn add(&mut self, kind: Kind, project: Option<&ProjectName>, path: &Path, bytes: Option<u64>) {
        self.items.push(Item { kind, project: project.cloned(), path: path.to_owned(), bytes });
    }

    fn fail(&mut self, kind: Kind, path: &Path, error: &io::Error) {
        self.failed.push(Kept { kind, path: path.to_owned(), why: error.to_string() });
    }

    /// What takes place on disk, in bytes.
    pub fn bytes(&self) -> u64 {
        self.items.iter().filter_map(|item| item.bytes).sum()
    }
}

/// Finds what may go, and removes it if that is wanted.
///
/// # Errors
/// When the state folder cannot be read, or is another user's: then locks that we make would keep that one out.
pub fn collect(options: &GcOptions) -> io::Result<Collected> {
    let mut collected = Collected::default();
    let Some(state_dir) = disk::own_folder(&options.state_dir)? else { return Ok(collected) };
    // Names of control groups are made of paths without links.
    let options = GcOptions { state_dir: state_dir.canonicalize()?, ..options.clone() };
    let processes = Processes::scan(Path::new("/proc"));
    let names = project_names(&options, &mut collected);
    let hierarchies = groups::hierarchies(Path::new("/"));
    let mut groups = groups::find(&hierarchies, names.iter().map(|name| options.group_of(name)).collect());
    for name in names {
        let groups = groups.remove(&options.group_of(&name)).unwrap_or_default();
        project::Place::new(&options, &name, groups).collect(&processes, &mut collected);
    }
    doors::collect(&options, &processes, &mut collected);
    Ok(collected)
}

impl GcOptions {
    fn root_of(&self, project: &ProjectName) -> PathBuf {
        root_in(&self.state_dir, project)
    }

    fn group_of(&self, project: &ProjectName) -> String {
        toka_prepare::folders::group_name(&self.root_of(project))
    }
}

/// The projects that something is kept of.
fn project_names(options: &GcOptions, collected: &mut Collected) -> BTreeSet<ProjectName> {
    let mut names = BTreeSet::new();
    for (folder, kind) in
        [(options.state_dir.join("projects"), Kind::Project), (options.run_dir.clone(), Kind::RunFolder)]
    {
        for path in disk::entries(&folder) {
            if !path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir() || metadata.is_symlink()) {
                continue;
            }
            let name = path.file_name().and_then(|name| name.to_str()).map(ProjectName::new);
            match (name, disk::own_folder(&path)) {
                (_, Err(error)) => collected.keep(kind, &path, error.to_string()),
                (Some(Ok(name)), Ok(_)) => drop(names.insert(name)),
                (_, Ok(_)) => collected.keep(kind, &path, "its name is no project's: it is none of Toka's"),
            }
        }
    }
    names
}
