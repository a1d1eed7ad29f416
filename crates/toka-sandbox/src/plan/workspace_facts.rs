//! What of a workspace decides about rights: what declares agents, and what git obeys.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use toka_core::{Capability, Confinement};

use crate::guard::workstreams_in;
use crate::links;
use crate::repository::Repository;

/// Where Toka looks for what it obeys, relative to the workspace.
const DECLARING: [&str; 2] = ["toka.yaml", "agents"];

/// What of a workspace decides about rights: the same for all its agents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkspaceFacts {
    /// Files that declare agents, absolute and without links: those of the run, and those that lie right in the workspace.
    pub declarations: BTreeSet<PathBuf>,
    /// Its git repository.
    pub repository: Repository,
    /// Whether an agent of the run may make one.
    pub git_init: GitInit,
    /// What git obeys, with the links on the way to it. Each agent's rules ask for these: they are followed once.
    pub(super) obeyed: BTreeSet<PathBuf>,
    /// What declares agents or policy, with the links on the way to it.
    pub(super) declaring: BTreeSet<PathBuf>,
    /// Both.
    protected: BTreeSet<PathBuf>,
}

/// Whether a repository that appears in the workspace may be one that a person allowed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum GitInit {
    /// No agent of the run has `git-init`.
    #[default]
    Nobody,
    /// One has: what it makes is set aside on behalf of no other.
    Somebody,
}

impl WorkspaceFacts {
    /// Looks at a workspace; `files` declare the agents of the run.
    pub fn look(workspace: &Path, user_home: &Path, files: impl IntoIterator<Item = PathBuf>) -> Self {
        let there = workstreams_in(workspace).into_iter().map(|name| workspace.join(name));
        Self::new(workspace, there.chain(files).collect(), Repository::look(workspace, user_home))
    }

    /// Those of a workspace in which nothing is declared, and that is no repository.
    pub fn plain(workspace: &Path) -> Self {
        Self::new(workspace, BTreeSet::new(), Repository::default())
    }

    /// Those of a workspace in which these files declare agents. No agent of the run may make a repository.
    pub fn new(workspace: &Path, declarations: BTreeSet<PathBuf>, repository: Repository) -> Self {
        let with_links = |paths: &BTreeSet<PathBuf>| -> BTreeSet<PathBuf> {
            paths.iter().flat_map(|path| links::on_the_way(path)).collect()
        };
        let obeyed = with_links(&repository.protected.iter().cloned().collect());
        let declaring = with_links(&declaring(workspace, &declarations));
        let protected = &obeyed | &declaring;
        Self { declarations, repository, git_init: GitInit::Nobody, obeyed, declaring, protected }
    }

    /// The same where agents of the run may make a repository, or not.
    pub fn with_git_init(self, git_init: GitInit) -> Self {
        Self { git_init, ..self }
    }

    /// Paths that decide what runs and with which rights, whether or not they are there; links on the way to one among them.
    pub(super) fn protected(&self, declared: Declarations) -> &BTreeSet<PathBuf> {
        match declared {
            Declarations::Protected => &self.protected,
            Declarations::Granted => &self.obeyed,
        }
    }
}

/// Paths that declare agents or policy.
fn declaring(workspace: &Path, declarations: &BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
    let of_file = |file: &PathBuf| {
        // The whole folder, so that no other workstream can be put beside it.
        let folder = file.parent().filter(|folder| *folder != workspace);
        folder.unwrap_or(file).to_owned()
    };
    let files = declarations.iter().filter(|file| file.starts_with(workspace)).map(of_file);
    DECLARING.iter().map(|path| workspace.join(path)).chain(files).collect()
}

/// Whether what declares agents is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Declarations {
    Protected,
    /// A person granted `declaration-write`.
    Granted,
}

/// Whether what declares agents is protected from the agent that declares this.
pub(super) fn declarations_of(confinement: &Confinement) -> Declarations {
    match has(confinement, &Capability::DeclarationWrite) {
        true => Declarations::Granted,
        false => Declarations::Protected,
    }
}

pub(super) fn has(confinement: &Confinement, capability: &Capability) -> bool {
    confinement.capabilities.iter().any(|declared| declared.value == *capability)
}
