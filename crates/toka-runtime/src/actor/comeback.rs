//! The next life is due: it begins when the host has room for it.

use toka_core::EventKind;

use super::{Actor, Restarts};
use crate::Processes;
use crate::admission::{Entry, Turn};

impl<P: Processes> Actor<P> {
    /// Begins the next life, or waits for room. Whoever asks for the start meanwhile need not wait.
    pub(super) async fn come_back(&mut self) {
        self.comeback = None;
        self.is_due = self.restarts == Restarts::Held;
        if self.is_due {
            return;
        }
        match self.admission.enter() {
            Entry::Go => self.start().await,
            Entry::Wait { hold, turn } => {
                self.turn = Some(turn);
                // Nothing follows from it: nobody has to wait for it.
                drop(self.emit(EventKind::AgentWaiting { hold }));
            }
        }
    }
}

impl<P: Processes> Actor<P> {
    /// From now on its next life waits for what it depends on, or does not any longer.
    pub(super) async fn hold_restarts(&mut self, restarts: Restarts) {
        self.restarts = restarts;
        if restarts == Restarts::Free && std::mem::take(&mut self.is_due) {
            self.come_back().await;
        }
    }
}

/// Until there is room, for one that waits for that.
pub(super) async fn turn(turn: &mut Option<Turn>) {
    match turn {
        Some(turn) => turn.come().await,
        None => std::future::pending().await,
    }
}
