//! What no grant opens: paths that decide what runs and with which rights, and what stays hidden although a folder above it
//! was granted.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use toka_core::demand::HOME_SECRETS;
use toka_core::{Capability, Layer, Origin};

use super::compile::{Compiler, list};
use super::{Access, Bind, Execution, Need, PathRule, Right};
use crate::guard::{Guard, workstreams_in};
use crate::links;
use crate::repository::Repository;

/// What of a workspace decides about rights: the same for all its agents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkspaceFacts {
    /// Files that declare agents, absolute and without links: those of the run, and those that lie right in the workspace.
    pub declarations: BTreeSet<PathBuf>,
    /// Its git repository.
    pub repository: Repository,
    /// Whether an agent of the run may make one.
    pub git_init: GitInit,
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
        Self {
            declarations: there.chain(files).collect(),
            repository: Repository::look(workspace, user_home),
            git_init: GitInit::Nobody,
        }
    }

    /// Paths that decide what runs and with which rights, whether or not they are there; links on the way to one among them.
    fn protected(&self, workspace: &Path, declared: Declarations) -> BTreeSet<PathBuf> {
        let git = self.repository.protected.iter().flat_map(|path| links::on_the_way(path));
        git.chain(self.declaring(workspace, declared)).collect()
    }

    /// Paths that declare agents or policy.
    fn declaring(&self, workspace: &Path, declared: Declarations) -> BTreeSet<PathBuf> {
        let mut paths = BTreeSet::new();
        if declared == Declarations::Protected {
            paths.extend(DECLARING.iter().map(|path| workspace.join(path)));
            for file in self.declarations.iter().filter(|file| file.starts_with(workspace)) {
                // The whole folder, so that no other workstream can be put beside it.
                let folder = file.parent().filter(|folder| *folder != workspace);
                paths.insert(folder.unwrap_or(file).to_owned());
            }
        }
        paths.iter().flat_map(|path| links::on_the_way(path)).collect()
    }
}

/// Whether what declares agents is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Declarations {
    Protected,
    /// A person granted `declaration-write`.
    Granted,
}

impl Compiler<'_> {
    /// What is never writable, however wide the grant: what would let an agent change its own rules, or have the user
    /// run its code. Mounts enforce it, since Landlock has no exceptions below a rule; what is not there yet is looked for
    /// when the agent has ended ([`crate::guard`]).
    pub(super) fn protect(&mut self) {
        let written = |rule: &PathRule| matches!(rule.right, Right::Write | Right::WriteExecute);
        let wide: Vec<PathBuf> =
            self.files.iter().filter(|rule| written(rule)).map(|rule| rule.path.clone()).collect();
        if wide.is_empty() {
            return;
        }
        let concerned = |path: &PathBuf| wide.iter().any(|w| path.starts_with(w) || w.starts_with(path));
        let protected = self.protected_paths.clone();
        let (there, absent): (Vec<PathBuf>, Vec<PathBuf>) =
            protected.into_iter().filter(concerned).partition(|path| path.symlink_metadata().is_ok());
        for path in &there {
            self.make_read_only(path, &wide);
        }
        if !there.is_empty() {
            let origin = Origin::default_of("git's hooks and settings, workstreams, the policy");
            self.say(Layer::Mounts, format!("never write {}", list(&there)), &origin);
        }
        self.guard(&absent, &wide);
    }

    /// What this agent must not change.
    pub(super) fn find_protected(&mut self) {
        self.protected_paths = self.input.facts.protected(&self.input.folders.workspace, self.declarations());
    }

    fn has(&self, capability: &Capability) -> bool {
        self.input.confinement.capabilities.iter().any(|declared| declared.value == *capability)
    }

    fn declarations(&self) -> Declarations {
        if self.has(&Capability::DeclarationWrite) { Declarations::Granted } else { Declarations::Protected }
    }

    /// Looks later for what is not there now, and for workstreams in the workspace itself.
    fn guard(&mut self, absent: &[PathBuf], wide: &[PathBuf]) {
        let workspace = &self.input.folders.workspace;
        let repository = &self.input.facts.repository;
        let is_wide = wide.contains(workspace);
        let declaring = self.input.facts.declaring(workspace, self.declarations());
        let (absent, obeyed): (Vec<&PathBuf>, Vec<&PathBuf>) =
            absent.iter().partition(|path| declaring.contains(*path));
        let below = |root: &Path, paths: &[&PathBuf]| -> Vec<PathBuf> {
            paths.iter().filter_map(|path| path.strip_prefix(root).ok().map(Path::to_owned)).collect()
        };
        let of = |root: &PathBuf| Guard {
            root: root.clone(),
            absent: below(root, &absent),
            obeyed: below(root, &obeyed),
            workstreams: None,
            worktrees: Vec::new(),
        };
        let mut own = of(workspace);
        if !self.has(&Capability::GitInit) && self.input.facts.git_init == GitInit::Nobody {
            let within = |path: &PathBuf| wide.iter().any(|wide| path.starts_with(wide));
            let lacking: Vec<PathBuf> = repository.lacking(workspace).into_iter().filter(within).collect();
            own.obeyed.extend(below(workspace, &lacking.iter().collect::<Vec<_>>()));
            // What others write into an index is theirs.
            let written = repository.worktrees.iter().filter(|worktree| within(&worktree.directory));
            own.worktrees = written.cloned().collect();
        }
        if is_wide && self.declarations() == Declarations::Protected {
            let here =
                self.input.facts.declarations.iter().filter_map(|file| file.strip_prefix(workspace).ok());
            own.workstreams = Some(here.map(Path::to_owned).collect());
        }
        let outside = repository.outside.iter().map(of);
        self.guards = [own].into_iter().chain(outside).filter(|guard| !guard.is_idle()).collect();
    }

    fn make_read_only(&mut self, path: &Path, wide: &[PathBuf]) {
        // What lies in a protected directory is protected with it; to bind the folders above it would open that.
        let holds = |bind: &Bind| bind.access == Access::Protected && path.starts_with(&bind.target);
        if self.binds.iter().any(holds) {
            return;
        }
        // A mount point cannot be renamed, so that the folders above cannot be swapped for others either.
        let below = |folder: &Path| wide.iter().any(|w| folder.starts_with(w) && folder != w);
        let above: Vec<PathBuf> =
            path.ancestors().skip(1).take_while(|folder| below(folder)).map(Path::to_owned).collect();
        for folder in above {
            self.bind(&folder, &folder, Access::ReadWrite, Need::Optional);
        }
        for rule in self.files.iter_mut().filter(|rule| rule.path.starts_with(path)) {
            rule.right = rule.right.min(Right::Execute);
        }
        self.binds.retain(|bind| bind.target != path);
        for bind in self.binds.iter_mut().filter(|bind| bind.target.starts_with(path)) {
            bind.access = Access::ReadOnly;
        }
        // What a person removes or replaces just now is not worth a failed start.
        let (source, target) = (Some(path.to_owned()), path.to_owned());
        let (need, execution) = (Need::Optional, Execution::Allowed);
        self.binds.push(Bind { source, target, access: Access::Protected, need, execution });
    }

    /// What stays hidden although a folder above it was granted, as when the workspace is the user's home: Toka's own
    /// state, other agents' folders, and the user's keys.
    pub(super) fn hide(&mut self) {
        let folders = self.input.folders;
        let home = &folders.user_home;
        let touched =
            self.binds.iter().any(|bind| bind.target.starts_with(home) || home.starts_with(&bind.target));
        let secrets = HOME_SECRETS.iter().filter(|_| touched).map(|secret| home.join(secret));
        let hidden: Vec<PathBuf> = [folders.state_dir.clone(), folders.run_dir.clone()]
            .into_iter()
            .chain(secrets)
            .filter(|path| self.is_granted_from_above(path) && path.exists())
            .collect();
        let origin = Origin::default_of("the user's keys, Toka's own folders");
        for path in hidden {
            self.say(Layer::Mounts, format!("hide {}", path.display()), &origin);
            let (need, execution) = (Need::Optional, Execution::Allowed);
            self.binds.push(Bind { source: None, target: path, access: Access::ReadOnly, need, execution });
        }
    }

    /// Whether a path is one of those that a link must not lead to.
    pub(super) fn is_secret(&self, path: &Path) -> bool {
        let folders = self.input.folders;
        let secrets = HOME_SECRETS.iter().map(|secret| folders.user_home.join(secret));
        let own = [folders.state_dir.clone(), folders.run_dir.clone()];
        let mut protected = self.protected_paths.iter();
        protected.any(|secret| path.starts_with(secret))
            || secrets.chain(own).any(|secret| path.starts_with(secret))
    }

    fn is_granted_from_above(&self, path: &Path) -> bool {
        let granted = |bind: &&Bind| bind.source.as_deref() == Some(&bind.target);
        let mut targets = self.binds.iter().filter(granted).map(|bind| &bind.target);
        targets.clone().any(|target| path.starts_with(target) && path != target)
            && !targets.any(|target| path == target)
    }
}

/// Where Toka looks for what it obeys, relative to the workspace.
const DECLARING: [&str; 2] = ["toka.yaml", "agents"];
