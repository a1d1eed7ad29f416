//! What no grant opens: paths that decide what runs and with which rights, and what stays hidden although a folder above it
//! was granted.

use std::path::{Path, PathBuf};

use toka_core::demand::HOME_SECRETS;
use toka_core::{Capability, Layer, Origin};

use super::compile::{Compiler, list};
use super::workspace_facts::{Declarations, GitInit, declarations_of, has};
use super::{Access, Bind, Execution, Need, PathRule, Right};
use crate::guard::Guard;

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
        let concerned = self.protected_paths.iter().filter(|path| concerned(path)).cloned();
        let (there, absent): (Vec<PathBuf>, Vec<PathBuf>) =
            concerned.partition(|path| path.symlink_metadata().is_ok());
        for path in &there {
            self.make_read_only(path, &wide);
        }
        if !there.is_empty() {
            let origin = Origin::default_of("git's hooks and settings, workstreams, the policy");
            self.say(Layer::Mounts, format!("never write {}", list(&there)), &origin);
        }
        self.guard(&absent, &wide);
    }

    fn declarations(&self) -> Declarations {
        declarations_of(self.input.confinement)
    }

    /// Looks later for what is not there now, and for workstreams in the workspace itself.
    fn guard(&mut self, absent: &[PathBuf], wide: &[PathBuf]) {
        let workspace = &self.input.folders.workspace;
        let repository = &self.input.facts.repository;
        let is_wide = wide.contains(workspace);
        let declares = |path: &PathBuf| {
            self.declarations() == Declarations::Protected && self.input.facts.declaring.contains(path)
        };
        let (absent, obeyed): (Vec<&PathBuf>, Vec<&PathBuf>) = absent.iter().partition(|path| declares(path));
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
        if !has(self.input.confinement, &Capability::GitInit) && self.input.facts.git_init == GitInit::Nobody
        {
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
