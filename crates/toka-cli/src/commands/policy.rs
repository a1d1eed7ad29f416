//! What a person granted, and which models there are: on the command line, in a policy file that they named, in a `toka.yaml` of their own,
//! in that of the workspace if they trusted its content, and by `toka trust`.
//!
//! ```text
//!                                  allows                         denies    models
//! --allow NAME                     always                         –         –
//! ~/.config/toka/toka.yaml         always                         always    always
//! --policy FILE                    always                         always    always, over those of one's own
//! toka.yaml of the workspace       when its content is trusted    always    when its content is trusted, over those of one's own
//! toka trust                       what was recorded, by agent    –         –
//! --trust                          everything that is asked for   –         –
//! DEFAULT_AI_MODEL                 –                              –         the default model, over all of them
//! ```

use std::io;
use std::path::{Path, PathBuf};

use toka_core::approval::TrustedHost;
use toka_core::capability::{Policy, Trust};
use toka_core::{AgentName, Capability, ExitCode, ModelConfig, ModelName};
use toka_prepare::folders::ProjectFolders;
use toka_prepare::trust::{TrustRecord, TrustStore, hash};
use toka_workstream::{LoadedPolicy, POLICY_FILE, Set, load_policy};

use super::workstreams::{Tell, as_data, show};
use toka_terminal::failure::Failure;

/// The variable that says `all` where no person is there to be asked, such as in CI.
pub(crate) const TRUST_VARIABLE: &str = "TOKA_TRUST";

/// The variable that names the default model.
const DEFAULT_MODEL_VARIABLE: &str = "DEFAULT_AI_MODEL";

/// The options that grant something.
#[derive(Debug, clap::Args)]
pub(crate) struct Grants {
    /// Grant a dangerous capability, such as network:full; may be given several times
    #[arg(long, value_name = "NAME", value_parser = grant)]
    pub(crate) allow: Vec<Capability>,
    /// A policy file, used instead of toka.yaml in the workspace
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// Grant everything that the workstreams ask for, this time [env: TOKA_TRUST=all]
    #[arg(long)]
    pub(crate) trust: bool,
}

/// What is granted, and what would be if a person trusted the workspace.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Granted {
    /// What is granted and denied.
    pub(crate) policy: Policy,
    /// Which models there are.
    pub(crate) models: ModelConfig,
    /// The `toka.yaml` of the workspace, if it counts at all.
    pub(crate) file: Option<WorkspacePolicy>,
    /// Hosts that the person has allowed beyond a run, when they were asked.
    pub(crate) hosts: Vec<TrustedHost>,
    /// What was trusted before.
    pub(crate) record: Option<TrustRecord>,
}

/// The `toka.yaml` of a workspace.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct WorkspacePolicy {
    /// SHA-256 of its content.
    pub(crate) hash: String,
    /// What it says.
    pub(crate) says: Policy,
    /// What it says of models.
    pub(crate) models: ModelConfig,
    /// Whether a person trusted this content.
    pub(crate) is_trusted: bool,
}

impl WorkspacePolicy {
    /// Whether it says something that does not count, since nobody has trusted it.
    pub(crate) fn is_unheeded(&self) -> bool {
        !self.is_trusted && self.opens_something()
    }

    /// Whether it says something that a person must trust.
    pub(crate) fn opens_something(&self) -> bool {
        !self.says.allow.is_empty() || !self.models.is_empty()
    }
}

impl Grants {
    /// Reads what is granted in the workspace. Problems of a policy file are told on stderr.
    ///
    /// # Errors
    /// When a policy file cannot be read, or any part of it is wrong: half a policy is none. When what was trusted cannot be
    /// read.
    pub(crate) fn granted(&self, folders: &ProjectFolders, set: &Set) -> Result<Granted, Failure> {
        let everything = self.trust || trusts_everything()?;
        let store = TrustStore::of(&folders.state_dir);
        let record = store.read(&folders.workspace).map_err(|error| {
            let shown = folders.workspace.display();
            Failure::new(
                ExitCode::StateFolder,
                format!("what was trusted of {shown} cannot be read: {error}"),
            )
            .help("`toka trust --revoke` forgets it, and `toka trust` asks again")
        })?;
        let (mut policy, mut models) = own_file(&folders.user_home)?;
        let mut file = None;
        if let Some(named) = &self.policy {
            let said = of_file(load_policy(named), &named.display())?;
            policy.allow.extend(said.policy.allow);
            policy.deny.extend(said.policy.deny);
            models = models.with(said.models);
        } else if let Some(found) = workspace_policy(folders, record.as_ref(), everything)? {
            policy.deny.extend(found.says.deny.iter().cloned());
            if found.is_trusted {
                policy.allow.extend(found.says.allow.iter().cloned());
                models = models.with(found.models.clone());
            } else {
                // Like what it denies, what it lowers counts whoever wrote it.
                models.budgets = models.budgets.at_most(found.models.budgets);
            }
            file = Some(found);
        }
        if let Some(model) = std::env::var(DEFAULT_MODEL_VARIABLE).ok().filter(|model| !model.is_empty()) {
            models.chain = vec![ModelName::from(model)];
        }
        policy.allow.extend(self.allow.iter().cloned());
        policy.trust = match (everything, &record) {
            (true, _) => Trust::Everything,
            (false, Some(record)) => Trust::Recorded(record.of_files(|agent| file_of(set, agent))),
            (false, None) => Trust::default(),
        };
        let now_ms = super::ps::now_ms();
        let hosts = record.as_ref().map(|record| record.hosts_of(|agent| file_of(set, agent), now_ms));
        Ok(Granted { policy, models, file, hosts: hosts.unwrap_or_default(), record })
    }
}

/// The file that declares an agent, by the name in it, without links.
pub(crate) fn file_of(set: &Set, agent: &AgentName) -> Option<PathBuf> {
    let declared = set.agents.iter().find(|declared| declared.declared_name() == agent)?;
    Some(declared.file.canonicalize().unwrap_or_else(|_| declared.file.clone()))
}

fn trusts_everything() -> Result<bool, Failure> {
    match std::env::var(TRUST_VARIABLE) {
        Ok(value) if value == "all" => Ok(true),
        Ok(value) if !value.is_empty() => Err(Failure::new(
            ExitCode::Usage,
            format!("{TRUST_VARIABLE} is {value:?}; the one value that it may have is \"all\""),
        )),
        _ => Ok(false),
    }
}

fn workspace_policy(
    folders: &ProjectFolders,
    record: Option<&TrustRecord>,
    everything: bool,
) -> Result<Option<WorkspacePolicy>, Failure> {
    let path = folders.workspace.join(POLICY_FILE);
    // Not `exists`: a file that may not be looked at must not count as none.
    if path.symlink_metadata().is_err() {
        return Ok(None);
    }
    let Said { policy: says, models, text } = of_file(load_policy(&path), &path.display())?;
    let hash = hash(text.as_bytes());
    let is_trusted = everything || record.is_some_and(|record| record.policy.as_ref() == Some(&hash));
    Ok(Some(WorkspacePolicy { hash, says, models, is_trusted }))
}

/// What the person's own file says; nothing when there is none.
fn own_file(home: &Path) -> Result<(Policy, ModelConfig), Failure> {
    let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let path = config.unwrap_or_else(|| home.join(".config")).join("toka").join(POLICY_FILE);
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Default::default()),
        // When Toka may not look at the file, the attempt to read it says so.
        _ => of_file(load_policy(&path), &path.display()).map(|said| (said.policy, said.models)),
    }
}

/// What a file says.
struct Said {
    policy: Policy,
    models: ModelConfig,
    text: String,
}

fn of_file(loaded: LoadedPolicy, shown: &impl std::fmt::Display) -> Result<Said, Failure> {
    show(&loaded.diagnostics, &loaded.sources, Tell::Everything);
    let text = loaded.sources.files().next().map(|file| loaded.sources.text(file).to_string());
    match loaded.policy {
        Some(policy) => Ok(Said { policy, models: loaded.models, text: text.unwrap_or_default() }),
        None => {
            Err(Failure::new(ExitCode::Invalid, format!("the policy {shown} is not valid; nothing was done"))
                .parts(as_data(&loaded.diagnostics, &loaded.sources)))
        }
    }
}

/// A capability that can be granted; a name that nobody knows would grant nothing, and is refused.
///
/// # Errors
/// When no capability has the name, with the nearest one that has.
pub(crate) fn grant(text: &str) -> Result<Capability, String> {
    let capability = Capability::parse(text);
    if !capability.is_sound() {
        return Err(
            "a host is granted as host:NAME:PORT, host:NAME for every port, or host:*.NAME:PORT".to_owned()
        );
    }
    if capability.known().is_some() {
        return Ok(capability);
    }
    let hint = capability.suggestion().map_or_else(
        || "`toka explain capabilities` lists the names".to_owned(),
        |name| format!("did you mean {name}?"),
    );
    Err(format!("no capability has this name; {hint}"))
}

#[cfg(test)]
mod tests {
    use toka_core::ProjectName;

    use super::*;

    struct Rig {
        folder: tempfile::TempDir,
    }

    impl Rig {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            std::fs::create_dir(folder.path().join("w")).expect("a folder");
            Self { folder }
        }

        fn folders(&self) -> ProjectFolders {
            ProjectFolders {
                state_dir: self.folder.path().join("state"),
                run_dir: self.folder.path().join("run"),
                project: ProjectName::new("w").expect("a label"),
                workspace: self.folder.path().join("w"),
                user_home: "/nowhere".into(),
            }
        }

        fn policy(&self, text: &str) {
            std::fs::write(self.folders().workspace.join(POLICY_FILE), text).expect("room");
        }

        fn granted(&self, grants: &Grants) -> Result<Granted, Failure> {
            grants.granted(&self.folders(), &Set::default())
        }
    }

    fn grants(allow: &[Capability], policy: Option<&Path>, trust: bool) -> Grants {
        Grants { allow: allow.to_vec(), policy: policy.map(Path::to_owned), trust }
    }

    fn decides(granted: &Granted, capability: Capability) -> bool {
        granted.policy.decide(&AgentName::new("a").expect("a label"), &capability).is_ok()
    }

    #[test]
    fn a_file_in_the_workspace_denies_and_allows_nothing_until_its_content_is_trusted() {
        let rig = Rig::new();
        rig.policy("allow: [network:full]\ndeny: [cargo-execution]\n");
        let granted = rig.granted(&grants(&[], None, false)).expect("a policy");
        assert!(!decides(&granted, Capability::NetworkFull) && !decides(&granted, Capability::Cargo));
        let file = granted.file.expect("a file");
        assert!(file.is_unheeded());

        let folders = rig.folders();
        let record = TrustRecord {
            workspace: folders.workspace.clone(),
            policy: Some(file.hash),
            ..TrustRecord::default()
        };
        let store = TrustStore::of(&folders.state_dir);
        store.change(&folders.workspace, |_| Ok(Some(record))).expect("room");
        let granted = rig.granted(&grants(&[], None, false)).expect("a policy");
        assert!(decides(&granted, Capability::NetworkFull) && !decides(&granted, Capability::Cargo));

        rig.policy("allow: [network:full, sandbox:off]\n");
        let granted = rig.granted(&grants(&[], None, false)).expect("a policy");
        assert!(!decides(&granted, Capability::NetworkFull), "another content");
    }

    #[test]
    fn the_command_line_counts_by_itself() {
        let rig = Rig::new();
        let granted = rig.granted(&grants(&[Capability::NetworkFull], None, false)).expect("a policy");
        assert!(decides(&granted, Capability::NetworkFull) && !decides(&granted, Capability::SandboxOff));
        let named = rig.folder.path().join("mine.yaml");
        std::fs::write(&named, "allow: [sandbox:off]\n").expect("room");
        rig.policy("deny: [sandbox:off]\n");
        let granted = rig.granted(&grants(&[], Some(&named), false)).expect("a policy");
        assert!(decides(&granted, Capability::SandboxOff), "it is used instead of the workspace's");
        let granted = rig.granted(&grants(&[], None, true)).expect("a policy");
        assert!(decides(&granted, Capability::NetworkFull) && !decides(&granted, Capability::SandboxOff));
    }

    #[test]
    fn a_broken_or_absent_file_is_never_taken_for_none() {
        let rig = Rig::new();
        let absent = rig.folder.path().join("absent.yaml");
        assert!(rig.granted(&grants(&[], Some(&absent), false)).is_err());
        rig.policy("alow: [network:full]\n");
        assert!(rig.granted(&grants(&[], None, false)).is_err());
    }
}
