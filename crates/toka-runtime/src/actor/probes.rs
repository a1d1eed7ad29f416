//! What follows from an agent's probes: readiness comes and goes, a probe that fails for good ends the life.

use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;

use toka_core::probe::ProbeKind;
use toka_core::{Coverage, Enforcement, EventKind, Exit, Layer};
use toka_keeper::ProcessId;
use toka_sandbox::namespace::Family;
use tokio::sync::mpsc;

use super::Actor;
use super::readiness::Readiness;
use crate::beside::Beside;
use crate::probe::{MakesSockets, NetworkReach, ProbeNote, Prober};
use crate::{Command, Processes};

/// The probes of one life.
pub(super) struct Probing {
    pub(super) prober: Prober,
    notes: mpsc::UnboundedReceiver<ProbeNote>,
}

impl<P: Processes> Actor<P> {
    /// Begins to ask, when it runs.
    pub(super) fn probe(&mut self, pid: i32, enforcement: &Enforcement, notification: Option<OwnedFd>) {
        let (probes, Ok(command)) = (&self.profile.probes, &self.command) else { return };
        if !probes.any() {
            return;
        }
        let (sender, notes) = mpsc::unbounded_channel();
        let exec =
            Beside::new(self.besides.clone(), self.profile.id, command.clone(), Arc::clone(&self.spent));
        let network = self.reach(command, pid, enforcement);
        let mut prober = Prober::start(probes, network, exec, sender);
        if let Some(pipe) = notification {
            prober.listen(pipe);
        }
        self.probing = Some(Box::new(Probing { prober, notes }));
    }

    pub(super) async fn on_probe(&mut self, ProbeNote { probe, ok, reason }: ProbeNote) {
        drop(self.emit(EventKind::ProbeChanged { probe, ok, reason: reason.clone() }));
        match (probe, ok) {
            (ProbeKind::Startup, true) if self.profile.probes.readiness.is_some() => {}
            (ProbeKind::Startup | ProbeKind::Readiness, true) => self.turn(Readiness::serves).await,
            (ProbeKind::Readiness, false) => self.turn(|readiness| readiness.fails(reason)).await,
            (ProbeKind::Startup | ProbeKind::Liveness, false) => {
                self.stop(Exit::Probe { probe, reason }).await;
            }
            (ProbeKind::Liveness, true) => {}
        }
    }
}

impl<P: Processes> Actor<P> {
    /// In which network it listens.
    fn reach(&self, command: &Command, pid: i32, enforcement: &Enforcement) -> NetworkReach {
        let private = command.plan.network.is_private();
        if !private || enforcement.coverage(Layer::Network) == Coverage::None {
            return NetworkReach::Shared;
        }
        if nix::unistd::geteuid().is_root() {
            return NetworkReach::Own { pid };
        }
        let (processes, id) = (self.processes.clone(), self.profile.id);
        NetworkReach::Kept(Arc::new(SocketsOfKeeper { processes, id }))
    }
}

/// The keeper of an ordinary user may enter the namespaces that it has made.
struct SocketsOfKeeper<P> {
    processes: P,
    id: ProcessId,
}

impl<P: Processes> MakesSockets for SocketsOfKeeper<P> {
    fn tcp_socket(
        &self,
        family: Family,
    ) -> Pin<Box<dyn Future<Output = Result<OwnedFd, String>> + Send + '_>> {
        Box::pin(async move {
            self.processes.tcp_socket(self.id, family).await.map_err(|error| error.to_string())
        })
    }
}

/// The next that follows from a probe; never, when there are none.
pub(super) async fn noted(probing: &mut Option<Box<Probing>>) -> ProbeNote {
    match probing {
        Some(probing) => match probing.notes.recv().await {
            Some(note) => note,
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}
