//! Whose processes agents are: those of the user who runs Toka, of another user of the host, or of one that exists only
//! for the agent.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::io;

use nix::unistd::{Uid, geteuid, getgrouplist};
use thiserror::Error;
use toka_core::{AgentName, ProjectName};
use toka_sandbox::plan::RunAs;
use toka_workstream::{Agent, User};

use crate::folders::ProjectFolders;
use crate::user_claims::UserClaims;

pub use crate::user_claims::Claim;

/// The first of the ids that are handed out: systemd's range for dynamic users, which no host gives to people.
const FIRST: u32 = 61_184;
/// The last of them.
const LAST: u32 = 65_519;

/// Why an agent cannot have the user that it asks for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UserError {
    /// Only root can become somebody else.
    #[error("it asks for another user, which only root can give")]
    NotRoot,
    /// The host has no such user.
    #[error("there is no user {0:?} on this host")]
    Unknown(String),
    /// The host cannot say.
    #[error("the user {name:?} cannot be looked up: {why}")]
    Database {
        /// The user.
        name: String,
        /// What went wrong.
        why: io::ErrorKind,
    },
    /// Every id is taken.
    #[error("no id is left for a user of its own: {FIRST} to {LAST} are all taken")]
    NoneLeft,
}

/// The users of the agents of a run that are not to be those of Toka itself.
#[derive(Debug, Clone, Default)]
pub struct Users(BTreeMap<AgentName, Result<RunAs, UserError>>);

impl Users {
    /// Looks up the users that these agents ask for, and chooses ids for those that want one of their own: the same in
    /// every run as long as no other agent of the state directory has it, so that files it kept stay its own.
    pub fn of<'a>(
        agents: impl IntoIterator<Item = &'a Agent>,
        folders: &ProjectFolders,
        claim: Claim,
    ) -> Self {
        let claims = UserClaims::of(folders, claim);
        let project = &folders.project;
        let wanted: BTreeMap<&AgentName, &User> = agents
            .into_iter()
            .filter_map(|agent| Some((&agent.name, &agent.process.as_ref()?.user.value)))
            .filter(|(_, user)| **user != User::Invoking)
            .collect();
        let mut taken = BTreeSet::new();
        let root = geteuid().is_root();
        let users = wanted.into_iter().map(|(agent, user)| {
            let found = match user {
                _ if !root => Err(UserError::NotRoot),
                User::Named(name) => named(name),
                _ => dynamic(project, agent, &mut taken, |id| on_host(id) || !claims.grants(id, agent)),
            };
            (agent.clone(), found)
        });
        Self(users.collect())
    }

    /// The user of an agent; `None` when it is the one who runs Toka.
    ///
    /// # Errors
    /// When it cannot have the user that it asks for.
    pub fn user(&self, agent: &AgentName) -> Result<Option<&RunAs>, &UserError> {
        self.0.get(agent).map(Result::as_ref).transpose()
    }
}

fn named(name: &str) -> Result<RunAs, UserError> {
    let failed =
        |errno: nix::Error| UserError::Database { name: name.to_owned(), why: io::Error::from(errno).kind() };
    let unknown = || UserError::Unknown(name.to_owned());
    let user = nix::unistd::User::from_name(name).map_err(failed)?.ok_or_else(unknown)?;
    let c_name = CString::new(name).map_err(|_| unknown())?;
    let groups = getgrouplist(&c_name, user.gid).map_err(failed)?;
    let groups = groups.into_iter().map(nix::unistd::Gid::as_raw).collect();
    Ok(RunAs { uid: user.uid.as_raw(), gid: user.gid.as_raw(), groups })
}

/// An id that belongs to nobody: the one that the names lead to, or the next that is free.
fn dynamic(
    project: &ProjectName,
    agent: &AgentName,
    taken: &mut BTreeSet<u32>,
    used: impl Fn(u32) -> bool,
) -> Result<RunAs, UserError> {
    let count = LAST - FIRST + 1;
    let start = fingerprint(&[project.as_str(), agent.as_str()]) % count;
    let ids = (0..count).map(|step| FIRST + (start + step) % count);
    let id = ids.into_iter().find(|id| !taken.contains(id) && !used(*id)).ok_or(UserError::NoneLeft)?;
    taken.insert(id);
    Ok(RunAs { uid: id, gid: id, groups: Vec::new() })
}

fn on_host(id: u32) -> bool {
    // A host that cannot say is treated as one without such a user: its database is then of no use to anybody else.
    nix::unistd::User::from_uid(Uid::from_raw(id)).is_ok_and(|user| user.is_some())
}

/// FNV-1a of the words, each ended by a byte that no name has.
fn fingerprint(words: &[&str]) -> u32 {
    let bytes = words.iter().flat_map(|word| word.bytes().chain([0xff]));
    bytes.fold(0x811c_9dc5, |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use toka_core::Name;

    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).expect("a label")
    }

    #[test]
    fn ids_are_the_same_in_every_run_and_never_shared() {
        let choose = |taken: &mut BTreeSet<u32>, agent: &str| {
            dynamic(&name("project"), &name(agent), taken, |_| false).expect("room").uid
        };
        let first = choose(&mut BTreeSet::new(), "agent");
        assert_eq!(choose(&mut BTreeSet::new(), "agent"), first);
        assert_ne!(choose(&mut BTreeSet::from([first]), "agent"), first);
        let mut taken = BTreeSet::new();
        for number in 0..=LAST - FIRST {
            let id = choose(&mut taken, &format!("agent-{number}"));
            assert!((FIRST..=LAST).contains(&id), "{id}");
        }
        assert_eq!(taken.len(), (LAST - FIRST + 1) as usize, "none twice");
        let more = dynamic(&name("project"), &name("one-more"), &mut taken, |_| false);
        assert_eq!(more, Err(UserError::NoneLeft));
    }

    #[test]
    fn an_id_of_the_host_is_left_alone() {
        let plain = dynamic(&name("p"), &name("a"), &mut BTreeSet::new(), |_| false).expect("room");
        let other = dynamic(&name("p"), &name("a"), &mut BTreeSet::new(), |id| id == plain.uid);
        assert_ne!(other.expect("room").uid, plain.uid);
        assert_eq!((plain.gid, plain.groups), (plain.uid, Vec::new()), "no groups of anybody's");
    }

    #[test]
    fn a_name_brings_its_ids_and_groups() {
        let root = named("root").expect("every host has it");
        assert_eq!((root.uid, root.gid), (0, 0));
        assert!(root.groups.contains(&0));
        let nobody = "no-such-user-of-tests";
        assert_eq!(named(nobody), Err(UserError::Unknown(nobody.into())));
    }
}
