//! What no grant opens: paths in the workspace that decide what runs and with which rights, and what stays hidden although
//! a folder above it was granted.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use toka_core::{Layer, Origin};

use super::compile::{Compiler, list};
use super::{Access, Bind, Need, PathRule, Right};

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
        let (there, absent): (Vec<PathBuf>, Vec<PathBuf>) =
            self.protected().into_iter().filter(concerned).partition(|path| path.symlink_metadata().is_ok());
        for path in &there {
            self.make_read_only(path, &wide);
        }
        if !there.is_empty() {
            let origin = Origin::default_of("git's hooks and configuration, workstreams, the policy");
            self.say(Layer::Mounts, format!("never write {}", list(&there)), &origin);
        }
        self.guarded = absent;
    }

    /// Paths in the workspace that decide what runs and with which rights.
    fn protected(&self) -> BTreeSet<PathBuf> {
        let workspace = &self.input.folders.workspace;
        let mut paths: BTreeSet<PathBuf> = PROTECTED.iter().map(|path| workspace.join(path)).collect();
        if workspace.join(".git").is_file() {
            paths.insert(workspace.join(".git"));
        }
        for file in self.input.workstream_files.iter().filter(|file| file.starts_with(workspace)) {
            // The whole folder, so that no other workstream can be put beside it.
            let folder = file.parent().filter(|folder| folder != workspace);
            paths.insert(folder.unwrap_or(file).to_owned());
        }
        paths
    }

    fn make_read_only(&mut self, path: &Path, wide: &[PathBuf]) {
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
        let (source, target) = (Some(path.to_owned()), path.to_owned());
        self.binds.push(Bind { source, target, access: Access::ReadOnly, need: Need::Required });
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
            let need = Need::Optional;
            self.binds.push(Bind { source: None, target: path, access: Access::ReadOnly, need });
        }
    }

    /// Whether a path is one of those that a link must not lead to.
    pub(super) fn is_secret(&self, path: &Path) -> bool {
        let folders = self.input.folders;
        let secrets = HOME_SECRETS.iter().map(|secret| folders.user_home.join(secret));
        let own = [folders.state_dir.clone(), folders.run_dir.clone()];
        secrets.chain(own).chain(self.protected()).any(|secret| path.starts_with(secret))
    }

    fn is_granted_from_above(&self, path: &Path) -> bool {
        let granted = |bind: &&Bind| bind.source.as_deref() == Some(&bind.target);
        let mut targets = self.binds.iter().filter(granted).map(|bind| &bind.target);
        targets.clone().any(|target| path.starts_with(target) && path != target)
            && !targets.any(|target| path == target)
    }
}

/// Where git and Toka look for what they run and obey, relative to the workspace (gitrepository-layout(5)).
const PROTECTED: [&str; 6] =
    [".git/hooks", ".git/config", ".git/config.worktree", ".git/commondir", "toka.yaml", "agents"];

/// Where users keep keys and tokens, relative to their home.
const HOME_SECRETS: [&str; 24] = [
    ".ssh",
    ".gnupg",
    ".aws",
    ".azure",
    ".kube",
    ".docker",
    ".netrc",
    ".pgpass",
    ".my.cnf",
    ".npmrc",
    ".pypirc",
    ".git-credentials",
    ".vault-token",
    ".password-store",
    ".cargo/credentials",
    ".cargo/credentials.toml",
    ".config/gh",
    ".config/gcloud",
    ".config/git/credentials",
    ".config/op",
    ".config/sops",
    ".local/share/keyrings",
    ".mozilla",
    ".bash_history",
];
