//! How a keeper is started, and what becomes of it when its daemon goes.

use std::path::PathBuf;
use std::sync::Arc;

use toka_sandbox::HostFacts;
use tokio::sync::watch;

use crate::protocol::Orphan;

/// How to start a keeper.
#[derive(Debug, Clone, Default)]
pub struct KeeperOptions {
    /// The program to re-enter, with `__keeper NAME` as its arguments and the control socket as its standard input.
    pub program: PathBuf,
    /// The look at the host that the daemon has begun; the keeper gets what it finds. Without one the keeper looks itself, which takes
    /// it a few milliseconds.
    pub host: Option<HostLook>,
    /// Name of the control group that agents' groups lie in, such as `toka-1f2e3d4c`. Unique per state folder.
    pub cgroup_name: String,
    /// Folders that the keeper removes when it ends, in case that the daemon could not: sockets, secrets. Absolute.
    pub leftovers: Vec<PathBuf>,
    /// What becomes of it when its daemon goes.
    pub outlive: Outlive,
    /// Agents that an earlier keeper of the same group left when it was killed, and its daemon with it. Everything else
    /// in the group is killed, if there are any or the keeper outlives its daemon.
    pub adopt: Vec<Orphan>,
}

/// A look at the host that a thread of its own takes, while others do what needs nothing of it.
#[derive(Debug, Clone)]
pub struct HostLook(watch::Receiver<Option<Arc<HostFacts>>>);

impl HostLook {
    /// Begins to look.
    pub fn begin() -> Self {
        let (found, look) = watch::channel(None);
        let work = move || drop(found.send_replace(Some(Arc::new(HostFacts::probe()))));
        // Where the host gives no more threads, `facts` looks itself.
        let _ = std::thread::Builder::new().name("host".to_owned()).spawn(work);
        Self(look)
    }

    /// What the thread found. Where there is none, or it has panicked, this call looks itself.
    pub async fn facts(&self) -> Arc<HostFacts> {
        let mut look = self.0.clone();
        let found = look.wait_for(Option::is_some).await.ok().and_then(|found| found.clone());
        found.unwrap_or_else(|| Arc::new(HostFacts::probe()))
    }
}

/// What becomes of a keeper when its daemon goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Outlive {
    /// It stops every agent and ends.
    #[default]
    EndWithDaemon,
    /// The keeper and its agents go on, and the keeper waits for the next daemon.
    Listen {
        /// Where. The folder is made if need be; it must be its user's alone (mode 0700). Any length.
        socket: PathBuf,
    },
}
