//! The git repository of a workspace: where it lies, and which of its files make git run or obey something.
//!
//! ```text
//! .git is            the repository is
//! a directory        it
//! a file             where it says: a linked worktree or a submodule, when that place points back at the workspace
//! a link             where it leads
//! not there          the workspace, when `HEAD`, `objects` and `refs` lie in it: a bare one
//! ```
//!
//! An agent can write a `.git` file that names another repository. So a place outside the workspace counts only when files
//! in it, which the agent cannot write, name the workspace (gitrepository-layout(5): `gitdir` of a linked worktree;
//! git-config(1): `core.worktree` of a submodule).

mod config;
mod index;
mod worktree;

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use toka_core::demand::normalise;
use toka_files::{Directory, FileType, read_real};

use config::{Setting, settings};
pub use worktree::Worktree;

/// Longest file of git's that is read: they are a few lines.
const MAX_FILE: u64 = 1024 * 1024;
/// Most files of settings that are read: an agent can write files that include one another.
const MAX_SETTINGS: usize = 200;
/// Most linked worktrees, and most submodules with the folders that they lie in, that are looked at one by one; of more, none can
/// be written.
const MAX_ENTRIES: usize = 200;
/// Most submodules whose settings are protected, and most that are not there of which a `.git` is set aside at once.
const MAX_SUBMODULES: usize = 1_000;

/// What in a repository makes git run or obey something, relative to its directory (gitrepository-layout(5)).
const OBEYED: [&str; 5] = ["hooks", "config", "config.worktree", "commondir", "info/attributes"];

/// The repository of a workspace, as far as it decides about rights.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repository {
    /// What `.git` is.
    pub dot_git: DotGit,
    /// Directories outside the workspace that git needs: that of the worktree and the common one.
    pub outside: Vec<PathBuf>,
    /// What in the repository decides what git runs, absolute; some of it need not be there.
    pub protected: BTreeSet<PathBuf>,
    /// It and its submodules, as far as they are there: whose index can name more of them.
    pub worktrees: Vec<Worktree>,
    /// The `.git` of submodules, and directories that a `.git` file names, that are not there, absolute.
    missing: Vec<PathBuf>,
    /// The directories of the repositories that are known, each with its worktree.
    tops: Vec<(PathBuf, PathBuf)>,
}

/// What `.git` of a workspace is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum DotGit {
    /// Nothing.
    #[default]
    Absent,
    /// A directory.
    Directory,
    /// A file that names a directory of a repository that is really the workspace's.
    File,
    /// A file that names another place; why that does not count.
    Foreign(String),
    /// A link to one.
    Link,
    /// Nothing: the workspace is the directory of a bare repository.
    Bare,
}

/// What makes a directory a repository (gitrepository-layout(5)).
const BARE: [&str; 3] = ["HEAD", "objects", "refs"];

impl Repository {
    /// Looks at the repository of `workspace`; `user_home` is where the caller's own configuration lies.
    pub fn look(workspace: &Path, user_home: &Path) -> Self {
        let mut found = Self::default();
        let Ok(root) = Directory::open(workspace) else { return found };
        let dot_git = workspace.join(".git");
        match std::fs::symlink_metadata(&dot_git).map(|metadata| metadata.file_type()) {
            Err(_) if BARE.iter().all(|name| workspace.join(name).exists()) => {
                found.dot_git = DotGit::Bare;
                found.add(workspace);
            }
            Err(_) => {}
            Ok(kind) if kind.is_dir() => {
                found.dot_git = DotGit::Directory;
                found.add(&dot_git);
            }
            Ok(kind) if kind.is_symlink() => {
                if let Ok(real) = dot_git.canonicalize() {
                    found.add(&real);
                }
                found.dot_git = DotGit::Link;
                found.protected.insert(dot_git);
            }
            Ok(_) => {
                let text = root.read_text(Path::new(".git"), MAX_FILE).unwrap_or_default();
                found.dot_git = found.follow(workspace, &text);
                found.protected.insert(dot_git);
            }
        }
        let own = found.directory(workspace).map(|directory| (workspace.to_owned(), directory));
        let around =
            || workspace.ancestors().skip(1).find_map(|top| Some((top.to_owned(), directory_of(top)?)));
        if let Some((top, directory)) = own.or_else(|| found.is_absent().then(around).flatten()) {
            found.add(&directory);
            found.add_worktree(workspace, &top, directory, &mut MAX_SUBMODULES.clone());
        }
        let settings = found.settings(workspace, user_home);
        let named = settings
            .iter()
            .flat_map(|(file, setting)| named_by(setting, file, &found.tops_for(file, workspace), user_home));
        let named = named.filter(|path| path.starts_with(workspace) && path != workspace);
        let named: Vec<PathBuf> = named.collect();
        found.protected.extend(named);
        found
    }

    /// Whether nothing is there that a person made.
    pub fn is_absent(&self) -> bool {
        self.dot_git == DotGit::Absent
    }

    /// The directory of the workspace's own repository, which has its index.
    fn directory(&self, workspace: &Path) -> Option<PathBuf> {
        match self.dot_git {
            DotGit::Directory | DotGit::Link | DotGit::File => directory_of(workspace),
            DotGit::Absent | DotGit::Bare | DotGit::Foreign(_) => None,
        }
    }

    /// The worktrees from which a relative path in a file of settings counts (git-config(1), `core.hooksPath`): that of the repository
    /// that the file belongs to, or any.
    fn tops_for<'t>(&'t self, file: &Path, workspace: &'t Path) -> Vec<&'t Path> {
        let of_one = self.tops.iter().filter(|(directory, _)| file.starts_with(directory));
        match of_one.max_by_key(|(directory, _)| directory.components().count()) {
            Some((_, top)) => vec![top],
            None => {
                let all = self.tops.iter().take(MAX_ENTRIES).map(|(_, top)| top.as_path());
                all.chain([workspace]).collect()
            }
        }
    }

    /// Adds the worktree `top`, whose index lies in `directory`, and the submodules in it that lie in the workspace; of those as many as
    /// `left`.
    fn add_worktree(&mut self, workspace: &Path, top: &Path, directory: PathBuf, left: &mut usize) {
        self.tops.push((directory.clone(), top.to_owned()));
        let object_name = object_name_in(&directory);
        let below = top.strip_prefix(workspace).ok();
        let (mut worktree, submodules) =
            Worktree::look(below.unwrap_or(Path::new("")), directory, object_name);
        let mut there = Vec::new();
        for submodule in submodules {
            let own = top.join(&submodule);
            // Those outside of the workspace no agent reaches.
            if !own.starts_with(workspace) {
                continue;
            }
            let dot_git = own.join(".git");
            let Ok(kind) = std::fs::symlink_metadata(&dot_git).map(|it| it.file_type()) else {
                self.miss(dot_git);
                continue;
            };
            worktree.known.insert(submodule);
            if *left == 0 {
                continue;
            }
            *left -= 1;
            if kind.is_file()
                && let Err(Some(absent)) = named_directory(&dot_git)
            {
                self.miss(absent);
            }
            let directory = directory_of(&own);
            // A directory is held in its place by what is protected in it.
            if !kind.is_dir() {
                self.protected.insert(dot_git);
            }
            there.extend(directory.map(|directory| (own, directory)));
        }
        // The index of a repository around the workspace no agent writes.
        self.worktrees.extend(below.is_some().then_some(worktree));
        for (top, directory) in there {
            self.add(&directory);
            self.add_worktree(workspace, &top, directory, left);
        }
    }

    fn miss(&mut self, path: PathBuf) {
        if self.missing.len() < MAX_SUBMODULES {
            self.missing.push(path);
        }
    }

    /// What would make a repository of the workspace or of a submodule, or another one, and is not there: absolute.
    pub(crate) fn lacking(&self, workspace: &Path) -> Vec<PathBuf> {
        let bare = BARE.iter().find(|name| workspace.join(name).symlink_metadata().is_err());
        let own: Vec<PathBuf> = match self.dot_git {
            DotGit::Absent | DotGit::Bare => {
                [".git"].iter().chain(bare).map(|name| workspace.join(name)).collect()
            }
            DotGit::Directory | DotGit::File | DotGit::Foreign(_) | DotGit::Link => Vec::new(),
        };
        self.missing.iter().cloned().chain(own).collect()
    }

    fn add(&mut self, directory: &Path) {
        let mut left = MAX_ENTRIES;
        self.add_within(directory, &mut left);
    }

    /// Adds a repository with its linked worktrees and submodules, which lie in the same directory; of submodules as many as `left`.
    fn add_within(&mut self, directory: &Path, left: &mut usize) {
        self.protected.extend(OBEYED.iter().map(|name| directory.join(name)));
        let worktrees = directory.join("worktrees");
        match entries_of(&worktrees, MAX_ENTRIES) {
            Entries::Few(entries) => {
                let names = ["config.worktree", "commondir", "gitdir"];
                let paths = entries.iter().flat_map(|(entry, _)| names.map(|name| entry.join(name)));
                self.protected.extend(paths);
            }
            Entries::TooMany => drop(self.protected.insert(worktrees)),
        }
        self.add_submodules(&directory.join("modules"), left);
    }

    /// Adds the repositories below a folder. Git calls a submodule's after its path, so that they lie deeper where that has slashes
    /// (gitrepository-layout(5), `modules`).
    fn add_submodules(&mut self, folder: &Path, left: &mut usize) {
        let Entries::Few(entries) = entries_of(folder, *left) else {
            self.protected.insert(folder.to_owned());
            return;
        };
        *left -= entries.len();
        for (entry, kind) in entries {
            let is_repository = entry.join("HEAD").symlink_metadata().is_ok();
            if kind == FileType::Directory && is_repository {
                self.add_within(&entry, left);
                continue;
            }
            self.protected.extend(OBEYED.iter().map(|name| entry.join(name)));
            if kind == FileType::Directory {
                self.add_submodules(&entry, left);
            }
        }
    }

    /// Follows a `.git` file.
    fn follow(&mut self, workspace: &Path, text: &str) -> DotGit {
        let Some(named) = text.strip_prefix("gitdir:").map(str::trim) else {
            return DotGit::Foreign("it does not begin with `gitdir:`".to_owned());
        };
        let Ok(directory) = workspace.join(named).canonicalize() else {
            self.missing.push(normalise(&workspace.join(named)));
            return DotGit::Foreign(format!("{named} is not there"));
        };
        if directory.starts_with(workspace) {
            self.add(&directory);
            return DotGit::File;
        }
        let common = read(&directory.join("commondir"))
            .and_then(|text| directory.join(text.trim()).canonicalize().ok())
            .filter(|common| directory.parent() == Some(common.join("worktrees").as_path()));
        let owner = common.as_deref().unwrap_or(&directory);
        let points_back = match &common {
            Some(_) => read(&directory.join("gitdir")).is_some_and(|text| {
                Path::new(text.trim()).canonicalize().ok() == workspace.join(".git").canonicalize().ok()
            }),
            None => read(&directory.join("config")).is_some_and(|text| {
                settings(&text).iter().any(|Setting { key, value }| {
                    key == "core.worktree"
                        && directory.join(value).canonicalize().is_ok_and(|it| it == workspace)
                })
            }),
        };
        if !points_back {
            return DotGit::Foreign(format!(
                "{} does not name this workspace as its own",
                directory.display()
            ));
        }
        self.add(owner);
        if common.is_some() {
            self.add(&directory);
        }
        self.outside.push(owner.to_owned());
        DotGit::File
    }

    /// What the repository and the caller set, with the file that each setting stands in.
    fn settings(&self, workspace: &Path, user_home: &Path) -> Vec<(PathBuf, Setting)> {
        let own = self
            .protected
            .iter()
            .filter(|path| path.ends_with("config") || path.ends_with("config.worktree"));
        // git-config(1), FILES; what is set by variables of a later shell, nobody knows.
        let xdg =
            std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|folder| folder.is_absolute());
        let xdg = xdg.unwrap_or_else(|| user_home.join(".config")).join("git/config");
        let files = own.cloned().chain([user_home.join(".gitconfig"), xdg, PathBuf::from(SYSTEM_CONFIG)]);
        let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
        for file in files {
            read_config(&file, workspace, user_home, &mut seen, &mut found);
        }
        found
    }
}

/// What the administrator sets for all repositories.
const SYSTEM_CONFIG: &str = "/etc/gitconfig";

fn read_config(
    file: &Path,
    workspace: &Path,
    user_home: &Path,
    seen: &mut BTreeSet<PathBuf>,
    found: &mut Vec<(PathBuf, Setting)>,
) {
    // Each file once, whoever includes it.
    if seen.len() >= MAX_SETTINGS || !seen.insert(file.to_owned()) {
        return;
    }
    let Some(text) = read(file) else { return };
    for setting in settings(&text) {
        if setting.is_include() {
            let included = locate(&setting.value, file.parent().unwrap_or(workspace), user_home);
            read_config(&included, workspace, user_home, seen, found);
        }
        found.push((file.to_owned(), setting));
    }
}

/// What lies in a directory, unless that is more than somebody looks at, or cannot be told.
enum Entries {
    Few(Vec<(PathBuf, FileType)>),
    TooMany,
}

/// The entries of a directory; none of what is no directory.
fn entries_of(directory: &Path, most: usize) -> Entries {
    let found = Directory::open(directory).and_then(|it| it.entries(most + 1)).unwrap_or_default();
    // A name that is no text cannot be told to the keeper.
    if found.len() > most || found.iter().any(|(name, _)| name.to_str().is_none()) {
        return Entries::TooMany;
    }
    Entries::Few(found.into_iter().map(|(name, kind)| (directory.join(name), kind)).collect())
}

/// The paths that a setting makes git obey or run, in whatever worktree.
fn named_by(setting: &Setting, file: &Path, tops: &[&Path], user_home: &Path) -> Vec<PathBuf> {
    let bases: Vec<&Path> = match setting.key.as_str() {
        "core.hookspath" | "core.attributesfile" => tops.to_vec(),
        _ if setting.is_include() => file.parent().into_iter().collect(),
        _ => Vec::new(),
    };
    let real = |base: &&Path| {
        let path = locate(&setting.value, base, user_home);
        let path = path.canonicalize().unwrap_or(path);
        // husky keeps what git runs in `_`, and that runs what lies beside it.
        if path.ends_with(".husky/_") { path.parent().map(Path::to_owned).unwrap_or(path) } else { path }
    };
    bases.iter().map(real).collect()
}

fn locate(value: &str, base: &Path, user_home: &Path) -> PathBuf {
    normalise(&value.strip_prefix("~/").map_or_else(|| base.join(value), |rest| user_home.join(rest)))
}

/// The directory of the repository whose worktree this is.
fn directory_of(top: &Path) -> Option<PathBuf> {
    let dot_git = top.join(".git");
    let kind = std::fs::symlink_metadata(&dot_git).ok()?.file_type();
    if kind.is_file() { named_directory(&dot_git).ok() } else { dot_git.canonicalize().ok() }
}

/// The directory that a `.git` file names; the path where that is not there, if it names any.
fn named_directory(dot_git: &Path) -> Result<PathBuf, Option<PathBuf>> {
    let text = read(dot_git).ok_or(None)?;
    let named = text.strip_prefix("gitdir:").ok_or(None)?.trim();
    let path = dot_git.parent().ok_or(None)?.join(named);
    path.canonicalize().map_err(|_| Some(normalise(&path)))
}

/// How long the name of an object is in a repository, in bytes (git-config(1), `extensions.objectFormat`). A linked worktree has its
/// settings in the common directory.
fn object_name_in(directory: &Path) -> usize {
    let common = read(&directory.join("commondir")).map(|text| directory.join(text.trim()));
    let text = read(&common.as_deref().unwrap_or(directory).join("config"));
    let is_sha256 = |Setting { key, value }: &Setting| key == "extensions.objectformat" && value == "sha256";
    if text.is_some_and(|text| settings(&text).iter().any(is_sha256)) { 32 } else { 20 }
}

/// The text of a file of git's, links on the way resolved first.
fn read(path: &Path) -> Option<String> {
    if !path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_))) {
        return None;
    }
    let real = path.canonicalize().ok()?;
    String::from_utf8(read_real(&real, MAX_FILE).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct Scene(tempfile::TempDir);

    impl Scene {
        fn new(files: &[(&str, &str)]) -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            for (path, text) in files {
                let path = folder.path().join(path);
                fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
                let root = folder.path().canonicalize().expect("a path");
                fs::write(path, text.replace("ROOT", &root.to_string_lossy())).expect("room");
            }
            Self(folder)
        }

        fn look(&self) -> (Repository, String) {
            let root = self.0.path().canonicalize().expect("a path");
            let found = Repository::look(&root.join("w"), &root.join("home"));
            let shown: Vec<String> = found
                .protected
                .iter()
                .map(|path| path.strip_prefix(&root).expect("below").display().to_string())
                .collect();
            (found, shown.join(" "))
        }
    }

    #[test]
    fn a_directory_with_settings_that_name_files_of_the_workspace() {
        let scene = Scene::new(&[
            ("w/.git/config", "[core]\n\thooksPath = .husky/_\n[include] path = ../.gitconfig\n"),
            ("w/.gitconfig", "[includeIf \"onbranch:x\"]\npath = ci/git.conf\n"),
            ("home/.gitconfig", "[core]\nhooksPath = .githooks\nattributesFile = /elsewhere\n"),
        ]);
        let (found, shown) = scene.look();
        assert_eq!(found.dot_git, DotGit::Directory);
        for expected in [
            "w/.git/hooks",
            "w/.git/info/attributes",
            "w/.husky",
            "w/.gitconfig",
            "w/ci/git.conf",
            "w/.githooks",
        ] {
            assert!(shown.split(' ').any(|path| path == expected), "{expected}: {shown}");
        }
        assert!(!shown.contains("elsewhere"));
    }

    #[test]
    fn a_worktree_is_followed_when_its_repository_knows_it() {
        let files = [
            ("w/.git", "gitdir: ROOT/main/.git/worktrees/w\n"),
            ("main/.git/worktrees/w/commondir", "../..\n"),
            ("main/.git/worktrees/w/gitdir", "ROOT/w/.git\n"),
            ("main/.git/config", ""),
        ];
        let (found, shown) = Scene::new(&files).look();
        assert_eq!(found.dot_git, DotGit::File);
        assert!(found.outside[0].ends_with("main/.git"), "{found:?}");
        for expected in
            ["main/.git/hooks", "main/.git/config", "main/.git/worktrees/w/config.worktree", "w/.git"]
        {
            assert!(shown.split(' ').any(|path| path == expected), "{expected}: {shown}");
        }

        let mut lost = files;
        lost[2].1 = "ROOT/other/.git\n";
        let (found, _) = Scene::new(&lost).look();
        assert!(matches!(found.dot_git, DotGit::Foreign(_)) && found.outside.is_empty(), "{found:?}");
    }

    #[test]
    fn a_file_of_an_agents_own_making_opens_nothing() {
        // Everything that it names lies where the agent writes, but for the place that it wants to have.
        let scene = Scene::new(&[
            ("w/.git", "gitdir: fake\n"),
            ("w/fake/commondir", "../../ssh\n"),
            ("w/fake/gitdir", "ROOT/w/.git\n"),
            ("ssh/config", "Host *"),
        ]);
        let (found, shown) = scene.look();
        assert!(found.outside.is_empty() && !shown.contains("ssh"), "{found:?}");
        let scene = Scene::new(&[("w/.git", "gitdir: ../ssh\n"), ("ssh/config", "Host *")]);
        let (found, _) = scene.look();
        assert!(matches!(found.dot_git, DotGit::Foreign(_)) && found.outside.is_empty(), "{found:?}");
    }

    #[test]
    fn a_submodule_is_followed_when_it_names_the_workspace() {
        let scene = Scene::new(&[
            ("w/.git", "gitdir: ../.git/modules/w\n"),
            (".git/modules/w/config", "[core]\n\tworktree = ../../../w\n"),
        ]);
        let (found, _) = scene.look();
        assert_eq!(found.dot_git, DotGit::File);
        assert!(found.outside[0].ends_with(".git/modules/w"), "{found:?}");
    }

    #[test]
    fn what_git_obeys_of_a_submodule_is_what_it_obeys_of_a_repository() {
        // Those in folders, without a HEAD, and of a submodule too.
        let modules = ["x", "lib/deep/x", "broken", "x/modules/y", "lib/deep/x/modules/lib/y"];
        let scene = Scene::new(&[
            ("w/.git/config", ""),
            ("w/.git/modules/x/HEAD", ""),
            ("w/.git/modules/x/objects/aa/bb", ""),
            ("w/.git/modules/lib/deep/x/HEAD", ""),
            ("w/.git/modules/broken/config", ""),
            ("w/.git/modules/x/modules/y/HEAD", ""),
            ("w/.git/modules/lib/deep/x/modules/lib/y/HEAD", ""),
        ]);
        let root = scene.0.path().canonicalize().expect("a path");
        let protected = || Repository::look(&root.join("w"), &root.join("home")).protected;
        let found = protected();
        for (module, name) in modules.iter().flat_map(|module| OBEYED.map(|name| (module, name))) {
            assert!(found.contains(&root.join("w/.git/modules").join(module).join(name)), "{module} {name}");
        }
        assert!(
            !found.iter().any(|path| path.starts_with(root.join("w/.git/modules/x/objects"))),
            "{found:?}"
        );
        for number in 0..MAX_ENTRIES {
            fs::create_dir_all(root.join(format!("w/.git/modules/lib/deep/{number}"))).expect("a folder");
        }
        let found = protected();
        assert!(found.contains(&root.join("w/.git/modules/lib/deep")), "none of so many can be written");
    }

    #[test]
    fn settings_that_include_each_other_are_read_once() {
        let bomb = "[include]\n".to_owned() + &"path = config\npath = ../config\n".repeat(100);
        let scene = Scene::new(&[("w/.git/config", &bomb), ("w/.git/modules/x/config", &bomb)]);
        assert_eq!(scene.look().0.dot_git, DotGit::Directory);
    }

    #[test]
    fn none_a_bare_one_and_a_link() {
        let scene = Scene::new(&[("w/HEAD", ""), ("w/objects/x", ""), ("w/refs/x", "")]);
        let (found, shown) = scene.look();
        let lacking = |found: &Repository, scene: &Scene| found.lacking(&scene.0.path().join("w"));
        let root = scene.0.path().to_owned();
        assert_eq!((&found.dot_git, lacking(&found, &scene)), (&DotGit::Bare, vec![root.join("w/.git")]));
        assert!(shown.contains("w/hooks") && shown.contains("w/config"), "{shown}");
        let scene = Scene::new(&[("w/HEAD", "")]);
        let (found, _) = scene.look();
        assert!(found.is_absent());
        let root = scene.0.path().to_owned();
        assert_eq!(lacking(&found, &scene), [root.join("w/.git"), root.join("w/objects")]);
        std::os::unix::fs::symlink("elsewhere", scene.0.path().join("w/.git")).expect("a link");
        let (found, shown) = scene.look();
        assert_eq!((found.dot_git, shown.as_str()), (DotGit::Link, "w/.git"));
    }
}
