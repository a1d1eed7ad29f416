//! What a person trusts the agents of a workspace with, kept outside of every workspace.
//!
//! A file counts because a person looked at what it asks for, never because of where it lies: an agent can write to the
//! places that files lie in. So a record names the workspace by its real path, each agent by its name, and each demand in
//! full; a new demand, or one of another agent, is not in it. Of the workspace's `toka.yaml` it holds a hash: what the file
//! allows counts while its content is the one that was trusted.
//!
//! ```text
//! <state>/trust/NAME-HASH.json      one per workspace; NAME is its directory's, HASH that of its path
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use toka_api::private_file;
use toka_core::approval::TrustedHost;
use toka_core::{AgentName, Capability, Name};
use toka_files::{Directory, ReadError};

/// Longest record, in bytes. Thousands of agents with dozens of demands fit.
const MAX_RECORD: u64 = 16 * 1024 * 1024;
/// Most hosts that one workspace remembers.
const MAX_HOSTS: usize = 1000;
/// Most records that are listed.
const MAX_RECORDS: usize = 100_000;

/// What a person trusts the agents of one workspace with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustRecord {
    /// The workspace, without links in its path.
    pub workspace: PathBuf,
    /// The demands of each agent, by the name in its file.
    pub agents: BTreeMap<AgentName, BTreeSet<Capability>>,
    /// The file that declared each agent then, without links: another agent of the same name elsewhere is another agent. No
    /// agent may write to these files and the directories that they lie in.
    #[serde(default)]
    pub files: BTreeMap<AgentName, PathBuf>,
    /// Hosts that agents may reach without being asked about again, as a person has answered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<AnsweredHost>,
    /// SHA-256 of the workspace's `toka.yaml`, in hexadecimal; absent when there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// When it was recorded, RFC 3339.
    pub recorded: String,
}

/// A host that a person has allowed beyond a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnsweredHost {
    /// Whom, and what.
    #[serde(flatten)]
    pub trusted: TrustedHost,
    /// The file that declared the agent then, without links.
    pub file: PathBuf,
}

impl AnsweredHost {
    /// Whether its time is not over.
    pub fn is_current(&self, now_ms: i64) -> bool {
        self.trusted.until_ms.is_none_or(|until| now_ms < until)
    }
}

impl TrustRecord {
    /// The hosts that count at this time of agents that are declared in these files.
    pub fn hosts_of(
        &self,
        declared: impl Fn(&AgentName) -> Option<PathBuf>,
        now_ms: i64,
    ) -> Vec<TrustedHost> {
        let counts = |known: &&AnsweredHost| {
            declared(&known.trusted.agent).is_some_and(|file| file == known.file) && known.is_current(now_ms)
        };
        self.hosts.iter().filter(counts).map(|known| known.trusted.clone()).collect()
    }

    /// Whether the record holds this demand of the agent that this file declares.
    pub fn holds(&self, agent: &AgentName, file: &Path, demand: &Capability) -> bool {
        self.files.get(agent).is_some_and(|known| known == file)
            && self.agents.get(agent).is_some_and(|known| known.contains(demand))
    }

    /// What counts of it for agents that are declared in these files.
    pub fn of_files(
        &self,
        declared: impl Fn(&AgentName) -> Option<PathBuf>,
    ) -> BTreeMap<AgentName, BTreeSet<Capability>> {
        let is_it =
            |agent: &AgentName| declared(agent).is_some_and(|file| self.files.get(agent) == Some(&file));
        self.agents
            .iter()
            .filter(|(agent, _)| is_it(agent))
            .map(|(agent, it)| (agent.clone(), it.clone()))
            .collect()
    }
}

/// The records of a state directory.
#[derive(Debug, Clone)]
pub struct TrustStore {
    folder: PathBuf,
}

impl TrustStore {
    /// The one of this state directory; nothing is made.
    pub fn of(state_dir: &Path) -> Self {
        Self { folder: state_dir.join("trust") }
    }

    /// The record of a workspace, if there is one.
    ///
    /// # Errors
    /// When it cannot be read, or is no record of this workspace: what was trusted must not be guessed.
    pub fn read(&self, workspace: &Path) -> io::Result<Option<TrustRecord>> {
        let folder = match Directory::open(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            folder => folder?,
        };
        let record = match folder.read(Path::new(&file_name(workspace)), MAX_RECORD) {
            Err(error) if error.is_absence() => return Ok(None),
            Err(error) => return Err(unreadable(error)),
            Ok(bytes) => serde_json::from_slice::<TrustRecord>(&bytes)?,
        };
        if record.workspace == workspace {
            Ok(Some(record))
        } else {
            Err(io::Error::other(format!("the record is about {}", record.workspace.display())))
        }
    }

    /// Changes the record of a workspace: `change` gets the one that there is now, which may be another than somebody has read a moment ago, and
    /// nobody else changes it meanwhile. Waits for those who do.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn change(
        &self,
        workspace: &Path,
        change: impl FnOnce(Option<TrustRecord>) -> io::Result<Option<TrustRecord>>,
    ) -> io::Result<()> {
        let _alone = self.lock()?;
        match change(self.read(workspace)?)? {
            Some(record) => self.write(&record),
            None => Ok(()),
        }
    }

    fn lock(&self) -> io::Result<Flock<OwnedFd>> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        // A descriptor that only names it cannot be locked (open(2), O_PATH).
        let folder = OwnedFd::from(File::open(&self.folder)?);
        Flock::lock(folder, FlockArg::LockExclusive).map_err(|(_, error)| error.into())
    }

    /// Keeps a record, in place of the one before.
    fn write(&self, record: &TrustRecord) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let path = self.folder.join(file_name(&record.workspace));
        private_file::replace(&path, &serde_json::to_vec_pretty(record)?)
    }

    /// Remembers a host that a person has allowed the agent that `file` declares, in the place of an earlier word on the same.
    ///
    /// # Errors
    /// When the record cannot be read or written.
    pub fn trust_host(&self, workspace: &Path, file: &Path, trusted: TrustedHost) -> io::Result<()> {
        let now = jiff::Timestamp::now();
        self.change(workspace, |record| {
            let mut record = record.unwrap_or_else(|| TrustRecord {
                workspace: workspace.to_owned(),
                recorded: now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
                ..TrustRecord::default()
            });
            let is_same = |known: &AnsweredHost| {
                let of = &known.trusted;
                known.file == file
                    && (&of.agent, &of.host, of.port) == (&trusted.agent, &trusted.host, trusted.port)
            };
            record.hosts.retain(|known| !is_same(known) && known.is_current(now.as_millisecond()));
            if record.hosts.len() >= MAX_HOSTS {
                return Err(io::Error::other(format!("{MAX_HOSTS} hosts are allowed already")));
            }
            record.hosts.push(AnsweredHost { trusted, file: file.to_owned() });
            Ok(Some(record))
        })
    }

    /// Forgets what a workspace was trusted with; whether there was a record.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn revoke(&self, workspace: &Path) -> io::Result<bool> {
        if !self.folder.exists() {
            return Ok(false);
        }
        let _alone = self.lock()?;
        match std::fs::remove_file(self.folder.join(file_name(workspace))) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Forgets the demands of agents that are declared in the file `path` or below the directory `path`: somebody replaced it
    /// while an agent that could write there ran. Those that are forgotten, if there was anything.
    ///
    /// # Errors
    /// When the record cannot be read or written.
    pub fn withdraw(&self, workspace: &Path, path: &Path) -> io::Result<Vec<AgentName>> {
        if !self.folder.exists() {
            return Ok(Vec::new());
        }
        let _alone = self.lock()?;
        let Some(mut record) = self.read(workspace)? else { return Ok(Vec::new()) };
        let concerned = record.files.iter().filter(|(_, file)| file.starts_with(path));
        let agents: Vec<AgentName> = concerned.map(|(agent, _)| agent.clone()).collect();
        let hosts = record.hosts.iter().filter(|known| known.file.starts_with(path));
        let agents: BTreeSet<AgentName> =
            agents.into_iter().chain(hosts.map(|known| known.trusted.agent.clone())).collect();
        if agents.is_empty() {
            return Ok(Vec::new());
        }
        record.hosts.retain(|known| !known.file.starts_with(path));
        for agent in &agents {
            record.files.remove(agent);
            record.agents.remove(agent);
        }
        self.write(&record)?;
        Ok(agents.into_iter().collect())
    }

    /// Every record, in the order of the workspaces. One that cannot be read is left out.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn list(&self) -> io::Result<Vec<TrustRecord>> {
        let folder = match Directory::open(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            folder => folder?,
        };
        let names = folder.entries(MAX_RECORDS)?.into_iter().map(|(name, _)| PathBuf::from(name));
        let records = names.filter(|name| name.extension().is_some_and(|it| it == "json"));
        let read = |name: PathBuf| serde_json::from_slice(&folder.read(&name, MAX_RECORD).ok()?).ok();
        let mut found: Vec<TrustRecord> = records.filter_map(read).collect();
        found.sort_by(|a, b| a.workspace.cmp(&b.workspace));
        Ok(found)
    }
}

/// SHA-256 of a text, in hexadecimal.
pub fn hash(text: &[u8]) -> String {
    Sha256::digest(text).iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn file_name(workspace: &Path) -> String {
    let named = workspace.file_name().and_then(|name| Name::slug(&name.to_string_lossy()));
    let name = named.as_ref().map_or("root", Name::as_str);
    format!("{name}-{}.json", &hash(workspace.as_os_str().as_bytes())[..16])
}

fn unreadable(error: ReadError) -> io::Error {
    match error {
        ReadError::Io(error) => error,
        other => io::Error::other(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn record(workspace: &str) -> TrustRecord {
        let agent = AgentName::new("deploy").expect("a label");
        let demands = [Capability::SecretVariable("KEY".into()), Capability::NetworkFull].into();
        TrustRecord {
            workspace: workspace.into(),
            files: [(agent.clone(), "/a/app/agents/deploy.yaml".into())].into(),
            agents: [(agent, demands)].into(),
            hosts: Vec::new(),
            policy: Some(hash(b"allow: []")),
            recorded: "2026-11-28T12:00:00Z".into(),
        }
    }

    #[test]
    fn a_record_is_kept_found_listed_and_revoked() {
        let state = tempfile::tempdir().expect("a folder");
        let store = TrustStore::of(state.path());
        assert_eq!(store.read(Path::new("/a/app")).expect("nothing"), None);
        assert_eq!(store.list().expect("nothing"), []);
        for workspace in ["/b/app", "/a/app"] {
            store.write(&record(workspace)).expect("room");
        }
        assert_eq!(store.read(Path::new("/a/app")).expect("a record"), Some(record("/a/app")));
        assert_eq!(store.read(Path::new("/c/app")).expect("nothing"), None);
        assert_eq!(store.list().expect("records"), [record("/a/app"), record("/b/app")]);
        let mode = state.path().join("trust").metadata().expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert!(store.revoke(Path::new("/a/app")).expect("removed"));
        assert!(!store.revoke(Path::new("/a/app")).expect("nothing"));
        assert_eq!(store.list().expect("records"), [record("/b/app")]);
    }

    #[test]
    fn what_is_no_record_is_an_error_and_never_trust() {
        let state = tempfile::tempdir().expect("a folder");
        let store = TrustStore::of(state.path());
        store.write(&record("/a/app")).expect("room");
        let path = state.path().join("trust").join(file_name(Path::new("/a/app")));
        std::fs::write(&path, "{").expect("room");
        store.read(Path::new("/a/app")).expect_err("torn");
        std::fs::write(&path, serde_json::to_vec(&record("/elsewhere")).expect("data")).expect("room");
        store.read(Path::new("/a/app")).expect_err("another workspace's");
        let real = path.with_extension("real");
        std::fs::rename(&path, &real).expect("ours");
        symlink(&real, &path).expect("a link");
        store.read(Path::new("/a/app")).expect_err("a link");
    }

    #[test]
    fn what_lies_at_a_path_is_trusted_no_more() {
        let state = tempfile::tempdir().expect("a folder");
        let (store, workspace) = (TrustStore::of(state.path()), Path::new("/a/app"));
        let withdraw = |path: &str| store.withdraw(workspace, Path::new(path)).expect("room").len();
        assert_eq!(withdraw("/a/app/agents"), 0, "there is no record");
        store.write(&record("/a/app")).expect("room");
        assert_eq!(withdraw("/a/app/agents/deploy"), 0);
        assert_eq!(withdraw("/a/app/agents/deploy.yaml"), 1);
        assert_eq!(withdraw("/a/app/agents/deploy.yaml"), 0);
        store.write(&record("/a/app")).expect("room");
        assert_eq!(withdraw("/a/app/agents"), 1);
        let left = store.read(workspace).expect("a record").expect("still");
        assert!(left.agents.is_empty() && left.policy.is_some());
    }

    #[test]
    fn an_answer_about_a_host_counts_for_the_agent_of_that_file_until_its_time() {
        // Long after any clock of today.
        const END: i64 = 1 << 50;
        let root = tempfile::tempdir().expect("a folder");
        let store = TrustStore::of(root.path());
        let agent = AgentName::new("a").expect("a label");
        let host = |host: &str, until_ms| TrustedHost {
            agent: agent.clone(),
            host: host.into(),
            port: 443,
            until_ms,
        };
        let (workspace, file) = (Path::new("/w"), Path::new("/w/agents/a.yaml"));
        store.trust_host(workspace, file, host("x.example", None)).expect("room");
        store.trust_host(workspace, file, host("y.example", Some(END - 1))).expect("room");
        store.trust_host(workspace, file, host("y.example", Some(END))).expect("room");
        let hosts_at = |declared: &'static str, now_ms| {
            let record = store.read(workspace).expect("a record").expect("a record");
            let hosts = record.hosts_of(|_| Some(declared.into()), now_ms);
            hosts.into_iter().map(|trusted| trusted.host).collect::<Vec<_>>()
        };
        assert_eq!(hosts_at("/w/agents/a.yaml", END - 1), ["x.example", "y.example"]);
        assert_eq!(hosts_at("/w/agents/a.yaml", END), ["x.example"]);
        assert_eq!(hosts_at("/w/agents/b.yaml", 0), [] as [&str; 0], "another agent of that name");
        let gone = store.withdraw(workspace, Path::new("/w/agents")).expect("room");
        assert_eq!(gone, std::slice::from_ref(&agent));
        assert_eq!(hosts_at("/w/agents/a.yaml", 0), [] as [&str; 0]);
    }
}
