//! The capabilities that an agent may require, their spellings, and who may grant them (ledger T12).
//!
//! A known name opens something; an unknown one is a label that grants nothing. What is dangerous is granted only by
//! `--allow NAME` or a policy file; everything else is granted because it was declared.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{AgentName, HostGrant, HostRule, NetworkAccess};

/// Something that an agent asks to be allowed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", from = "String")]
pub enum Capability {
    /// `filesystem-read[:PATH]`: read the workspace, or a path below it.
    FilesystemRead(Option<String>),
    /// `filesystem-write[:PATH]`: write the workspace, or a path below it.
    FilesystemWrite(Option<String>),
    /// `git-access`: git with a configuration of its own.
    Git,
    /// `cargo-execution`: the Rust toolchain and the registry cache.
    Cargo,
    /// `python-execution`: the Python interpreters of the user.
    Python,
    /// `node-execution`: Node.js and the package cache.
    Node,
    /// `process-execution`: start programs (always possible; the name documents it).
    Process,
    /// `network:full`, dangerous.
    NetworkFull,
    /// `sandbox:off`, dangerous: what `security.sandbox: false` asks for.
    SandboxOff,
    /// `filesystem-outside:PATH`, dangerous: a path outside the workspace, for whatever is asked.
    Outside(String),
    /// `filesystem-outside-read:PATH`, dangerous: such a path is read.
    OutsideRead(String),
    /// `filesystem-outside-execute:PATH`, dangerous: such a path is read and executed.
    OutsideExecute(String),
    /// `filesystem-outside-write:PATH`, dangerous: such a path is read and written to.
    OutsideWrite(String),
    /// `device:PATH`, dangerous.
    Device(String),
    /// `webhook:HOST` or `webhook:HOST:PORT`, dangerous: reports are sent there.
    Webhook(String),
    /// `secret-file:PATH`, dangerous: a file outside the workspace is given to the agent as a secret.
    SecretFile(String),
    /// `secret-variable:NAME`, dangerous: a variable of the caller is given to the agent as a secret.
    SecretVariable(String),
    /// `environment-from:NAME`, dangerous: a variable of the caller is passed through.
    EnvironmentFrom(String),
    /// `user:NAME`, dangerous: the agent's processes are another user's.
    User(String),
    /// `declaration-write`, dangerous: workstream files, `agents/` and `toka.yaml` of the workspace can be written.
    DeclarationWrite,
    /// `git-init`, dangerous: a git repository may be made in the workspace where there was none.
    GitInit,
    /// `model-access`, dangerous: models are asked for it, with keys and money of the person.
    ModelAccess,
    /// `host:NAME:PORT`, dangerous: a host of the network is reached.
    Host(String),
    /// Any other name: it grants nothing.
    Label(String),
}

/// One row of the table of known names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownCapability {
    /// The name as it is shown.
    pub name: &'static str,
    /// Other spellings that mean the same.
    pub aliases: &'static [&'static str],
    /// Whether a `:PATH`, or what else it is about, may follow.
    pub takes_path: bool,
    /// Whether it must be granted by a person.
    pub dangerous: bool,
    /// What it opens, in one sentence.
    pub meaning: &'static str,
}

/// Every name that opens something.
pub const KNOWN: &[KnownCapability] = &[
    known(
        "filesystem-read",
        &["file-read", "fs-read", "read-files"],
        true,
        false,
        "Read the workspace, or the path after the colon below it.",
    ),
    known(
        "filesystem-write",
        &["file-write", "fs-write", "write-files"],
        true,
        false,
        "Write the workspace except git's hooks and settings, workstream files, agents/ and toka.yaml, or the path after the colon.",
    ),
    known(
        "git-access",
        &["git", "git-read", "git-operations"],
        false,
        false,
        "Run git with a configuration of its own, and read the repository's objects. Commits need `filesystem-write`, or \
         `filesystem-write:.git`, too; they are made in the agent's name.",
    ),
    known(
        "cargo-execution",
        &["cargo", "rust-execution", "cargo-access"],
        false,
        false,
        "Run the Rust toolchain and read the registry cache, never its credentials.",
    ),
    known(
        "python-execution",
        &["python", "python-access"],
        false,
        false,
        "Run the user's Python interpreters and read their packages.",
    ),
    known(
        "node-execution",
        &["node", "npm-execution", "nodejs-execution"],
        false,
        false,
        "Run Node.js and read the npm cache.",
    ),
    known(
        "process-execution",
        &["command-execution", "shell-execution", "subprocess"],
        false,
        false,
        "Start programs; always possible within the other rules.",
    ),
    known(
        "network:full",
        &["network-access", "network-full", "internet-access"],
        false,
        true,
        "Reach everything that the host reaches.",
    ),
    known(
        "host",
        &["network-host"],
        true,
        true,
        "Reach a host of the network: name:port after the colon, or *.name:port for all below it.",
    ),
    known("sandbox:off", &["unsandboxed"], false, true, "Run without confinement, with limits only."),
    known("filesystem-outside", &[], true, true, "Read, execute and write to a path outside the workspace."),
    known("filesystem-outside-read", &[], true, true, "Read a path outside the workspace."),
    known("filesystem-outside-execute", &[], true, true, "Read and execute a path outside the workspace."),
    known("filesystem-outside-write", &[], true, true, "Read and write to a path outside the workspace."),
    known("device", &[], true, true, "Open a device file."),
    known(
        "webhook",
        &[],
        true,
        true,
        "Have reports sent to a web server: the host after the colon, or host:port.",
    ),
    known("secret-file", &[], true, true, "Be given a file outside the workspace as a secret."),
    known("secret-variable", &["secret-env"], true, true, "Be given a variable of the caller as a secret."),
    known("environment-from", &[], true, true, "See a variable of the caller: the name after the colon."),
    known("user", &[], true, true, "Run as another user of the host: the name after the colon."),
    known(
        "declaration-write",
        &["workstream-write"],
        false,
        true,
        "Write workstream files, the folder agents/ and toka.yaml, where a grant of the workspace reaches them.",
    ),
    known(
        "git-init",
        &["repository-create"],
        false,
        true,
        "Make a git repository in the workspace where there was none; git obeys its settings when you use it.",
    ),
    known(
        "model-access",
        &["llm-access"],
        false,
        true,
        "Ask models through Toka, which holds the keys; what that costs, you pay.",
    ),
];

const fn known(
    name: &'static str,
    aliases: &'static [&'static str],
    takes_path: bool,
    dangerous: bool,
    meaning: &'static str,
) -> KnownCapability {
    KnownCapability { name, aliases, takes_path, dangerous, meaning }
}

impl Capability {
    /// Reads a name in any of its spellings: `filesystem_read`, `Filesystem-Read` and `filesystem-read` are one.
    pub fn parse(text: &str) -> Self {
        let text = text.trim();
        let normal = text.to_ascii_lowercase().replace('_', "-");
        if let Some(row) = row_of(&normal) {
            return Self::of_row(row.name, None);
        }
        let (head, tail) = text.split_once(':').unwrap_or((text, ""));
        let head = head.trim().to_ascii_lowercase().replace('_', "-");
        match row_of(&head) {
            Some(row) if row.takes_path && !tail.trim().is_empty() => {
                Self::of_row(row.name, Some(tail.trim().to_owned()))
            }
            _ => Self::Label(text.to_owned()),
        }
    }

    fn of_row(name: &str, path: Option<String>) -> Self {
        match (name, path) {
            ("filesystem-read", path) => Self::FilesystemRead(path),
            ("filesystem-write", path) => Self::FilesystemWrite(path),
            ("git-access", _) => Self::Git,
            ("cargo-execution", _) => Self::Cargo,
            ("python-execution", _) => Self::Python,
            ("node-execution", _) => Self::Node,
            ("process-execution", _) => Self::Process,
            ("network:full", _) => Self::NetworkFull,
            ("sandbox:off", _) => Self::SandboxOff,
            ("filesystem-outside", Some(path)) => Self::Outside(path),
            ("filesystem-outside-read", Some(path)) => Self::OutsideRead(path),
            ("filesystem-outside-execute", Some(path)) => Self::OutsideExecute(path),
            ("filesystem-outside-write", Some(path)) => Self::OutsideWrite(path),
            ("device", Some(path)) => Self::Device(path),
            ("webhook", Some(host)) => Self::Webhook(host.to_ascii_lowercase()),
            ("secret-file", Some(path)) => Self::SecretFile(path),
            ("secret-variable", Some(name)) => Self::SecretVariable(name),
            ("environment-from", Some(name)) => Self::EnvironmentFrom(name),
            ("user", Some(name)) => Self::User(name),
            ("declaration-write", _) => Self::DeclarationWrite,
            ("git-init", _) => Self::GitInit,
            ("model-access", _) => Self::ModelAccess,
            ("host", Some(host)) => Self::Host(host.to_ascii_lowercase()),
            (name, _) => Self::Label(name.to_owned()),
        }
    }

    /// The row of [`KNOWN`] that it belongs to; `None` for a label.
    pub fn known(&self) -> Option<&'static KnownCapability> {
        let text = self.to_string();
        row_of(&text).or_else(|| row_of(text.split(':').next().unwrap_or(&text)))
    }

    /// Whether a rule about it can apply at all: a host is one, or several.
    pub fn is_sound(&self) -> bool {
        match self {
            Self::Host(host) => host.parse::<HostGrant>().is_ok(),
            _ => true,
        }
    }

    /// Whether a person must grant it.
    pub fn is_dangerous(&self) -> bool {
        self.known().is_some_and(|row| row.dangerous)
    }

    /// The declaration that opens it, where requiring the capability opens nothing; `None` for one that opens something by
    /// being required, and for a label.
    pub fn declared_as(&self) -> Option<String> {
        Some(match self {
            Self::NetworkFull => "security.network: full".to_owned(),
            Self::Host(host) => format!("security.network: {{allow: [\"{host}\"]}}"),
            Self::SandboxOff => "security.sandbox: false".to_owned(),
            Self::Outside(path) => {
                format!(
                    "security.filesystem: {{read: [\"{path}\"], write: [\"{path}\"], execute: [\"{path}\"]}}"
                )
            }
            Self::OutsideRead(path) => format!("security.filesystem: {{read: [\"{path}\"]}}"),
            Self::OutsideExecute(path) => format!("security.filesystem: {{execute: [\"{path}\"]}}"),
            Self::OutsideWrite(path) => format!("security.filesystem: {{write: [\"{path}\"]}}"),
            Self::Webhook(host) => format!("reporting.channels: [\"https://{host}\"]"),
            Self::SecretFile(path) => format!("spec.secrets: {{NAME: {{file: \"{path}\"}}}}"),
            Self::SecretVariable(name) => format!("spec.secrets: {{NAME: {{env: {name}}}}}"),
            Self::EnvironmentFrom(name) => format!("spec.process.environment_from: [{name}]"),
            Self::User(name) => format!("spec.process.user: {name}"),
            Self::FilesystemRead(_)
            | Self::FilesystemWrite(_)
            | Self::Git
            | Self::Cargo
            | Self::Python
            | Self::Node
            | Self::Process
            | Self::Device(_)
            | Self::DeclarationWrite
            | Self::GitInit
            | Self::ModelAccess
            | Self::Label(_) => return None,
        })
    }

    /// What it means in words, as the end of a sentence that begins with "the agent may".
    pub fn in_words(&self) -> String {
        match self {
            Self::NetworkFull => "reach everything that the host reaches over the network".to_owned(),
            Self::SandboxOff => "run without a sandbox, with all your rights".to_owned(),
            Self::Outside(path) => format!("read, execute and write to {path}, outside the workspace"),
            Self::OutsideRead(path) => format!("read {path}, outside the workspace"),
            Self::OutsideExecute(path) => format!("read and execute {path}, outside the workspace"),
            Self::OutsideWrite(path) => format!("read and write to {path}, outside the workspace"),
            Self::Device(path) => format!("open the device {path}"),
            Self::Webhook(host) => format!("have reports sent to {host}"),
            Self::SecretFile(path) => format!("read the content of {path}, as a secret"),
            Self::SecretVariable(name) => format!("read your variable {name}, as a secret"),
            Self::EnvironmentFrom(name) => format!("see your variable {name}"),
            Self::User(name) if name == "dynamic" => "run as a user of its own".to_owned(),
            Self::User(name) => format!("run as the user {name}"),
            Self::DeclarationWrite => {
                "change workstream files, agents/ and toka.yaml in the workspace".to_owned()
            }
            Self::GitInit => {
                "make a git repository in the workspace, whose settings git obeys when you use it".to_owned()
            }
            Self::ModelAccess => "ask models, which you pay for".to_owned(),
            Self::Host(host) => format!("reach {host} over the network, and send there what it can read"),
            other => format!("have {other}"),
        }
    }

    /// The known name nearest to a label, when it is near enough to be a slip of the pen.
    pub fn suggestion(&self) -> Option<&'static str> {
        let Self::Label(text) = self else { return None };
        let whole = text.to_ascii_lowercase().replace('_', "-");
        let head = whole.split(':').next().unwrap_or(&whole);
        let every =
            KNOWN.iter().flat_map(|row| row.aliases.iter().map(move |a| (*a, row)).chain([(row.name, row)]));
        every
            .map(|(name, row)| {
                let distance = |text| strsim::damerau_levenshtein(name, text);
                (distance(head).min(distance(&whole)), row.name)
            })
            .filter(|(distance, _)| *distance <= 2)
            .min()
            .map(|(_, name)| name)
    }
}

fn row_of(normal: &str) -> Option<&'static KnownCapability> {
    KNOWN.iter().find(|row| row.name == normal || row.aliases.contains(&normal))
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FilesystemRead(None) => f.write_str("filesystem-read"),
            Self::FilesystemRead(Some(path)) => write!(f, "filesystem-read:{path}"),
            Self::FilesystemWrite(None) => f.write_str("filesystem-write"),
            Self::FilesystemWrite(Some(path)) => write!(f, "filesystem-write:{path}"),
            Self::Git => f.write_str("git-access"),
            Self::Cargo => f.write_str("cargo-execution"),
            Self::Python => f.write_str("python-execution"),
            Self::Node => f.write_str("node-execution"),
            Self::Process => f.write_str("process-execution"),
            Self::NetworkFull => f.write_str("network:full"),
            Self::SandboxOff => f.write_str("sandbox:off"),
            Self::Outside(path) => write!(f, "filesystem-outside:{path}"),
            Self::OutsideRead(path) => write!(f, "filesystem-outside-read:{path}"),
            Self::OutsideExecute(path) => write!(f, "filesystem-outside-execute:{path}"),
            Self::OutsideWrite(path) => write!(f, "filesystem-outside-write:{path}"),
            Self::Device(path) => write!(f, "device:{path}"),
            Self::Webhook(host) => write!(f, "webhook:{host}"),
            Self::SecretFile(path) => write!(f, "secret-file:{path}"),
            Self::SecretVariable(name) => write!(f, "secret-variable:{name}"),
            Self::EnvironmentFrom(name) => write!(f, "environment-from:{name}"),
            Self::User(name) => write!(f, "user:{name}"),
            Self::DeclarationWrite => f.write_str("declaration-write"),
            Self::GitInit => f.write_str("git-init"),
            Self::ModelAccess => f.write_str("model-access"),
            Self::Host(host) => write!(f, "host:{host}"),
            Self::Label(text) => f.write_str(text),
        }
    }
}

impl From<Capability> for String {
    fn from(capability: Capability) -> Self {
        capability.to_string()
    }
}

impl From<String> for Capability {
    fn from(text: String) -> Self {
        Self::parse(&text)
    }
}

impl NetworkAccess {
    /// The dangerous capabilities that this access asks for.
    pub fn demands(&self) -> Vec<Capability> {
        match self {
            Self::Full => vec![Capability::NetworkFull],
            Self::Allow(_) => self.hosts().iter().map(|host| Capability::Host(host.to_string())).collect(),
            Self::None | Self::Loopback | Self::Project => Vec::new(),
        }
    }
}

/// What a person allowed: by `--allow NAME`, in a policy file (`allow: […]`, `deny: […]`), or by `toka trust`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Policy {
    /// Granted although dangerous, to every agent.
    pub allow: BTreeSet<Capability>,
    /// Refused although harmless.
    pub deny: BTreeSet<Capability>,
    /// What was trusted agent by agent.
    pub trust: Trust,
}

/// What a person trusts the agents of a workspace with, besides what the policy allows to all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// These demands of these agents, by the names in their files (all replicas have one).
    Recorded(BTreeMap<AgentName, BTreeSet<Capability>>),
    /// Every demand: `--trust`, or `TOKA_TRUST=all`.
    Everything,
}

impl Default for Trust {
    fn default() -> Self {
        Self::Recorded(BTreeMap::new())
    }
}

impl Trust {
    fn covers(&self, agent: &AgentName, capability: &Capability) -> bool {
        match self {
            Self::Everything => true,
            Self::Recorded(agents) => agents.get(agent).is_some_and(|rules| covers(rules, capability)),
        }
    }
}

impl Policy {
    /// The same with what another policy allows, denies and trusts besides.
    #[must_use]
    pub fn with(mut self, other: &Self) -> Self {
        self.allow.extend(other.allow.iter().cloned());
        self.deny.extend(other.deny.iter().cloned());
        self.trust = match (self.trust, &other.trust) {
            (Trust::Recorded(mut agents), Trust::Recorded(others)) => {
                for (agent, demands) in others {
                    agents.entry(agent.clone()).or_default().extend(demands.iter().cloned());
                }
                Trust::Recorded(agents)
            }
            _ => Trust::Everything,
        };
        self
    }
}

/// Why a capability was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Dangerous, and nobody granted it.
    #[error("{0} is dangerous and nobody granted it")]
    NotGranted(Capability),
    /// The policy says no.
    #[error("{0} is denied by the policy")]
    Denied(Capability),
}

impl Policy {
    /// Decides whether the agent, by the name in its file, may have `capability`. A rule without a path covers every path
    /// of its name; deny wins.
    ///
    /// # Errors
    /// When it is denied, or dangerous and not granted.
    pub fn decide(&self, agent: &AgentName, capability: &Capability) -> Result<(), Refusal> {
        if covers(&self.deny, capability) || self.deny.iter().any(|rule| touches(rule, capability)) {
            return Err(Refusal::Denied(capability.clone()));
        }
        let granted = || covers(&self.allow, capability) || self.trust.covers(agent, capability);
        if capability.is_dangerous() && !granted() {
            return Err(Refusal::NotGranted(capability.clone()));
        }
        Ok(())
    }

    /// What it says of a host that the agent of this name wants to reach and has not declared: yes or no, or nothing, in which case a person is
    /// asked. A grant of everything is no word on a host that nobody has seen before.
    pub fn word_on_host(&self, agent: &AgentName, host: &str, port: u16) -> Option<bool> {
        let asked = Capability::Host(format!("{host}:{port}"));
        if covers(&self.deny, &asked) || self.deny.iter().any(|rule| touches(rule, &asked)) {
            return Some(false);
        }
        let names_it = |rules: &BTreeSet<Capability>| {
            let hosts = rules.iter().filter(|rule| matches!(rule, Capability::Host(_)));
            covers(&hosts.cloned().collect(), &asked)
        };
        let is_trusted = match &self.trust {
            Trust::Recorded(agents) => agents.get(agent).is_some_and(names_it),
            Trust::Everything => false,
        };
        (is_trusted || names_it(&self.allow)).then_some(true)
    }
}

fn covers(rules: &BTreeSet<Capability>, capability: &Capability) -> bool {
    rules.iter().any(|rule| match (rule, capability) {
        (rule, capability) if rule == capability => true,
        (Capability::FilesystemRead(None), Capability::FilesystemRead(_))
        | (Capability::FilesystemWrite(None), Capability::FilesystemWrite(_)) => true,
        (
            Capability::Outside(root),
            Capability::Outside(path)
            | Capability::OutsideRead(path)
            | Capability::OutsideExecute(path)
            | Capability::OutsideWrite(path),
        )
        | (
            Capability::OutsideRead(root) | Capability::OutsideExecute(root) | Capability::OutsideWrite(root),
            Capability::OutsideRead(path),
        )
        | (Capability::OutsideExecute(root), Capability::OutsideExecute(path))
        | (Capability::OutsideWrite(root), Capability::OutsideWrite(path))
        | (Capability::Device(root), Capability::Device(path))
        | (Capability::SecretFile(root), Capability::SecretFile(path)) => is_below(path, root),
        (Capability::NetworkFull, Capability::Host(_)) => true,
        (Capability::Host(rule), Capability::Host(asked)) => {
            let rules = rule.parse::<HostGrant>().ok().zip(asked.parse::<HostRule>().ok());
            rules.is_some_and(|(grant, asked)| grant.covers(&asked))
        }
        // A host without a port is all of its ports.
        (Capability::Webhook(host), Capability::Webhook(asked)) => {
            asked.rsplit_once(':').is_some_and(|(asked, _)| asked == host)
        }
        // Without a path it is every path, of the narrower names as well.
        (
            Capability::Label(name),
            Capability::OutsideRead(_) | Capability::OutsideExecute(_) | Capability::OutsideWrite(_),
        ) if name.starts_with("filesystem-outside")
            && Capability::of_row(name, Some("/".to_owned())) != *rule =>
        {
            covers(&BTreeSet::from([Capability::of_row(name, Some("/".to_owned()))]), capability)
        }
        (Capability::Label(name), capability) => {
            capability.known().is_some_and(|row| row.takes_path && row.name == name)
        }
        _ => false,
    })
}

/// Whether a rule is about a part of what is asked for: many hosts at once are denied when one of them is.
fn touches(rule: &Capability, capability: &Capability) -> bool {
    let (Capability::Host(rule), Capability::Host(asked)) = (rule, capability) else { return false };
    let rules = rule.parse::<HostGrant>().ok().zip(asked.parse::<HostRule>().ok());
    rules.is_some_and(|(grant, asked)| grant.touches(&asked))
}

fn is_below(path: &str, root: &str) -> bool {
    path.strip_prefix(root.trim_end_matches('/')).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn agent() -> AgentName {
        AgentName::new("web").expect("a label")
    }

    #[test]
    fn a_name_without_a_path_is_about_the_narrower_names_too() {
        let read = Capability::OutsideRead("/srv/data".into());
        let write = Capability::OutsideWrite("/srv/data".into());
        let decides = |deny: &str, capability: &Capability| {
            let policy = Policy {
                trust: Trust::Everything,
                deny: [Capability::parse(deny)].into(),
                ..Policy::default()
            };
            policy.decide(&agent(), capability).is_ok()
        };
        for deny in ["filesystem-outside", "filesystem-outside:/srv", "filesystem-outside-write"] {
            assert!(!decides(deny, &read) && !decides(deny, &write), "{deny}");
        }
        assert!(!decides("filesystem-outside-read", &read) && decides("filesystem-outside-read", &write));
        assert!(decides("filesystem-outsider", &read));
    }

    #[test]
    fn trust_is_for_one_agent_and_deny_wins_over_it() {
        let (secret, other) =
            (Capability::SecretVariable("KEY".into()), AgentName::new("other").expect("a label"));
        let recorded = Trust::Recorded([(agent(), [secret.clone()].into())].into());
        let policy = Policy { trust: recorded, ..Policy::default() };
        assert_eq!(policy.decide(&agent(), &secret), Ok(()));
        assert_eq!(policy.decide(&other, &secret), Err(Refusal::NotGranted(secret.clone())));
        let longer = Capability::SecretVariable("KEY2".into());
        assert!(policy.decide(&agent(), &longer).is_err());
        let policy = Policy { trust: Trust::Everything, deny: [secret.clone()].into(), ..Policy::default() };
        assert_eq!(policy.decide(&other, &longer), Ok(()));
        assert_eq!(policy.decide(&agent(), &secret), Err(Refusal::Denied(secret)));
    }

    #[test]
    fn what_a_person_grants_is_opened_by_being_required_or_by_another_key() {
        let by_being_required = ["device", "declaration-write", "git-init", "model-access"];
        for row in KNOWN {
            let capability = Capability::of_row(row.name, row.takes_path.then(|| "thing:1".to_owned()));
            let elsewhere = row.dangerous && !by_being_required.contains(&row.name);
            assert_eq!(capability.declared_as().is_some(), elsewhere, "{}", row.name);
            let told = capability.declared_as().unwrap_or_default();
            assert!(!elsewhere || !row.takes_path || told.contains("thing:1"), "{told}");
        }
    }

    #[test]
    fn spellings() {
        for (text, expected) in [
            ("filesystem-read", Capability::FilesystemRead(None)),
            ("Filesystem_Read", Capability::FilesystemRead(None)),
            ("filesystem-write:target", Capability::FilesystemWrite(Some("target".into()))),
            ("cargo_execution", Capability::Cargo),
            ("network:full", Capability::NetworkFull),
            ("git", Capability::Git),
            ("market-analysis", Capability::Label("market-analysis".into())),
        ] {
            assert_eq!(Capability::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn a_slip_of_the_pen_is_noticed() {
        assert_eq!(Capability::parse("filesytem-read").suggestion(), Some("filesystem-read"));
        assert_eq!(Capability::parse("market-analysis").suggestion(), None);
    }

    #[test]
    fn only_the_dangerous_needs_a_grant() {
        let policy = Policy::default();
        for row in KNOWN {
            let capability = Capability::of_row(row.name, Some("/x".into()));
            assert_eq!(policy.decide(&agent(), &capability).is_ok(), !row.dangerous, "{}", row.name);
        }
    }

    #[test]
    fn a_grant_covers_what_lies_below_it_and_nothing_beside() {
        let policy = Policy { allow: [Capability::Outside("/data".into())].into(), ..Policy::default() };
        assert!(policy.decide(&agent(), &Capability::Outside("/data/in".into())).is_ok());
        assert!(policy.decide(&agent(), &Capability::Outside("/database".into())).is_err());
        // A grant to read covers no writing, a grant to write covers reading, and the general grant covers all three.
        let (read, execute, write) =
            (Capability::OutsideRead, Capability::OutsideExecute, Capability::OutsideWrite);
        let path = || "/data/in".to_owned();
        for (rule, covered) in [
            (read("/data".into()), [true, false, false]),
            (execute("/data".into()), [true, true, false]),
            (write("/data".into()), [true, false, true]),
            (Capability::Outside("/data".into()), [true, true, true]),
        ] {
            let policy = Policy { allow: [rule.clone()].into(), ..Policy::default() };
            let asked = [read(path()), execute(path()), write(path())];
            assert_eq!(asked.map(|asked| policy.decide(&agent(), &asked).is_ok()), covered, "{rule}");
        }
    }

    #[test]
    fn a_webhook_is_granted_by_its_host_or_all_of_it() {
        let asked = Capability::Webhook("hooks.example.org:443".into());
        for (rule, granted) in [
            ("webhook:hooks.example.org:443", true),
            ("webhook:Hooks.Example.Org", true),
            ("webhook", true),
            ("webhook:hooks.example.org:80", false),
            ("webhook:example.org", false),
            ("webhook:hooks.example.org:4", false),
        ] {
            let policy = Policy { allow: [Capability::parse(rule)].into(), ..Policy::default() };
            assert_eq!(policy.decide(&agent(), &asked).is_ok(), granted, "{rule}");
        }
    }

    #[test]
    fn deny_wins() {
        let policy = Policy {
            allow: [Capability::NetworkFull].into(),
            deny: [Capability::NetworkFull].into(),
            ..Policy::default()
        };
        assert_eq!(
            policy.decide(&agent(), &Capability::NetworkFull),
            Err(Refusal::Denied(Capability::NetworkFull))
        );
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(text in "[a-z-]{1,12}(:[a-z/]{1,8})?") {
            let capability = Capability::parse(&text);
            prop_assert_eq!(Capability::parse(&capability.to_string()), capability);
        }

        #[test]
        fn a_label_never_opens_anything(text in "\\PC{1,20}") {
            let capability = Capability::parse(&text);
            prop_assert_eq!(capability.known().is_none(), matches!(capability, Capability::Label(_)));
        }
    }
}
