//! What the runtime asks of the keeper, so that its tests can have one that forks nothing.

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;

use toka_core::Resources;
use toka_core::event::Usage;
use toka_keeper::{Keeper, KeeperError, ProcessId, SpawnError, Started};
use toka_sandbox::GroupLimits;
use toka_sandbox::namespace::Family;

/// The keeper, or a fake of it.
pub trait Processes: Clone + Send + Sync + 'static {
    /// Starts a process; answers when exec(2) has succeeded or something has failed.
    fn spawn(&self, launch: toka_keeper::Launch) -> impl Future<Output = Result<Started, SpawnError>> + Send;
    /// The same for one that reads `input`.
    fn spawn_reading(
        &self,
        launch: toka_keeper::Launch,
        input: OwnedFd,
    ) -> impl Future<Output = Result<Started, SpawnError>> + Send;
    /// Sends a signal to the agent.
    fn signal(&self, id: ProcessId, signal: i32);
    /// Kills everything that the agent started, until nothing is left.
    fn kill(&self, id: ProcessId);
    /// The end of a process is on record: the keeper need not remember it any longer, and its number is free.
    fn settle(&self, id: ProcessId);
    /// Has a descriptor held for the next daemon, in the place of what was held under that name.
    fn hold(
        &self,
        id: ProcessId,
        name: &str,
        descriptors: Vec<OwnedFd>,
    ) -> impl Future<Output = io::Result<()>> + Send;
    /// Freezes the whole tree.
    fn freeze(&self, id: ProcessId) -> impl Future<Output = io::Result<()>> + Send;
    /// Lets the whole tree run again.
    fn thaw(&self, id: ProcessId) -> impl Future<Output = io::Result<()>> + Send;
    /// Makes another process of the agent its main one; it is named as the agent names it. The host's number of it.
    fn set_main(&self, id: ProcessId, pid: i32) -> impl Future<Output = Result<i32, KeeperError>> + Send;
    /// Puts other limits of its control group in force.
    fn limit(
        &self,
        id: ProcessId,
        limits: GroupLimits,
    ) -> impl Future<Output = Result<(), KeeperError>> + Send;
    /// Gives the process that the agent calls `pid` a control group of its own within the agent's.
    fn make_leaf(
        &self,
        id: ProcessId,
        leaf: &str,
        pid: i32,
    ) -> impl Future<Output = Result<(), KeeperError>> + Send;
    /// Ends what is left in that group and removes it; what it used.
    fn remove_leaf(&self, id: ProcessId, leaf: &str) -> impl Future<Output = io::Result<Usage>> + Send;
    /// What the agent holds and uses at this moment; `None` when it is gone.
    fn resources(&self, id: ProcessId) -> impl Future<Output = Option<Resources>> + Send;
    /// A TCP socket in the network of the agent's main process.
    fn tcp_socket(
        &self,
        id: ProcessId,
        family: Family,
    ) -> impl Future<Output = Result<OwnedFd, KeeperError>> + Send;
    /// Which agent's control group the process `pid` is in.
    fn owner_of(&self, pid: i32) -> impl Future<Output = Option<ProcessId>> + Send;
}

impl Processes for Keeper {
    async fn spawn(&self, launch: toka_keeper::Launch) -> Result<Started, SpawnError> {
        Self::spawn(self, launch).await
    }

    async fn spawn_reading(
        &self,
        launch: toka_keeper::Launch,
        input: OwnedFd,
    ) -> Result<Started, SpawnError> {
        Self::spawn_reading(self, launch, input).await
    }

    fn signal(&self, id: ProcessId, signal: i32) {
        Self::signal(self, id, signal);
    }

    fn kill(&self, id: ProcessId) {
        Self::kill(self, id);
    }

    fn settle(&self, id: ProcessId) {
        Self::settled(self, id);
    }

    async fn hold(&self, id: ProcessId, name: &str, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        Self::hold(self, id, name, descriptors).await.map_err(io::Error::other)
    }

    async fn tcp_socket(&self, id: ProcessId, family: Family) -> Result<OwnedFd, KeeperError> {
        Self::tcp_socket(self, id, family).await
    }

    async fn freeze(&self, id: ProcessId) -> io::Result<()> {
        Self::freeze(self, id).await.map_err(io::Error::other)
    }

    async fn thaw(&self, id: ProcessId) -> io::Result<()> {
        Self::thaw(self, id).await.map_err(io::Error::other)
    }

    async fn limit(&self, id: ProcessId, limits: GroupLimits) -> Result<(), KeeperError> {
        Self::limit(self, id, limits).await
    }

    async fn set_main(&self, id: ProcessId, pid: i32) -> Result<i32, KeeperError> {
        Self::set_main(self, id, pid).await
    }

    async fn make_leaf(&self, id: ProcessId, leaf: &str, pid: i32) -> Result<(), KeeperError> {
        Self::make_leaf(self, id, leaf, pid).await
    }

    async fn remove_leaf(&self, id: ProcessId, leaf: &str) -> io::Result<Usage> {
        Self::remove_leaf(self, id, leaf).await.map_err(io::Error::other)
    }

    async fn resources(&self, id: ProcessId) -> Option<Resources> {
        Self::resources(self, id).await
    }

    async fn owner_of(&self, pid: i32) -> Option<ProcessId> {
        Self::owner_of(self, pid).await
    }
}
