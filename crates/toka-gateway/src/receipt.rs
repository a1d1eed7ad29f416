//! What is told of a call when it is over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use toka_core::{CallOutcome, CallReceipt, Cost, EventKind, Tokens};
use toka_wire::Progress;

use crate::candidates::Candidate;
use crate::{CallLog, Providers};

/// What is to be told when a call is over. Dropped, it says that the agent gave it up.
pub(crate) struct Receipt {
    pub(crate) log: Arc<dyn CallLog>,
    pub(crate) providers: Arc<Providers>,
    pub(crate) call: u64,
    pub(crate) begun: Instant,
    pub(crate) first: Option<Duration>,
    pub(crate) provider: String,
    pub(crate) model: String,
    pub(crate) tries: u32,
    pub(crate) request_bytes: u64,
    pub(crate) is_open: bool,
}

impl Receipt {
    /// There was content.
    pub(crate) fn has_content(&mut self) {
        self.first.get_or_insert_with(|| self.begun.elapsed());
    }

    pub(crate) fn tries(&mut self, candidate: &Candidate) {
        self.tries += 1;
        (self.provider, self.model) = (candidate.provider.name.clone(), candidate.model.clone());
    }

    /// A stream is over.
    pub(crate) fn close_stream(self, outcome: CallOutcome, progress: &Progress) {
        let is_whole = progress.is_whole;
        let tokens = match (is_whole, progress.has_content) {
            (false, true) => progress.estimate(self.request_bytes),
            _ => progress.tokens,
        };
        let cost = self.providers.cost(&self.provider, &self.model, &tokens, is_whole);
        self.close(outcome, tokens, cost);
    }

    pub(crate) fn close(mut self, outcome: CallOutcome, tokens: Tokens, cost: Cost) {
        self.write(outcome, tokens, cost);
    }

    fn write(&mut self, outcome: CallOutcome, tokens: Tokens, cost: Cost) {
        self.is_open = false;
        let receipt = CallReceipt {
            outcome,
            provider: std::mem::take(&mut self.provider),
            model: std::mem::take(&mut self.model),
            tokens,
            cost,
            tries: self.tries,
            first_content_ms: self.first.map(millis),
            duration_ms: millis(self.begun.elapsed()),
        };
        // Nobody waits for it: a journal keeps its order.
        drop(self.log.record(EventKind::ModelAnswered { call: self.call, receipt: Box::new(receipt) }));
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if self.is_open {
            let cost = if self.tries == 0 { Cost::Nothing } else { Cost::Unknown };
            self.write(CallOutcome::Cancelled, Tokens::default(), cost);
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
