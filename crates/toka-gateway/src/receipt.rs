//! What is told of a call when it is over.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use toka_core::{CallOutcome, CallReceipt, Cost, EventKind, Tokens};
use toka_wire::Progress;

use crate::candidates::Candidate;
use crate::log::record_beside;
use crate::port_end::PortEnd;
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
    /// Why tries came to nothing.
    pub(crate) failed_tries: Vec<String>,
    pub(crate) request_bytes: u64,
    /// Why the port is closed, once it is.
    pub(crate) end: Arc<OnceLock<PortEnd>>,
    /// The batch that it is part of, if it is.
    pub(crate) batch: Option<String>,
    /// Whether a provider may have worked for an earlier try, and nobody knows how much.
    pub(crate) is_doubtful: bool,
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
        // Who goes before the last event has had the answer all the same.
        let is_told = progress.is_whole && progress.tokens.output.is_some();
        let tokens = match (is_told, progress.has_content) {
            (false, true) => progress.estimate(self.request_bytes),
            _ => progress.tokens,
        };
        let cost = self.providers.cost(&self.provider, &self.model, &tokens, is_told);
        self.close(outcome, tokens, cost);
    }

    pub(crate) fn close(mut self, outcome: CallOutcome, tokens: Tokens, cost: Cost) {
        self.write(outcome, tokens, cost);
    }

    fn write(&mut self, outcome: CallOutcome, tokens: Tokens, cost: Cost) {
        self.is_open = false;
        let outcome = match (outcome, self.end.get()) {
            // The agent did not go: its port was closed.
            (CallOutcome::Cancelled, Some(end)) => CallOutcome::Cut { reason: end.reason().to_owned() },
            (outcome, _) => outcome,
        };
        let cost = match cost {
            // The tries before may have cost something, too.
            Cost::Exact { nano_usd } if self.is_doubtful => Cost::Estimate { nano_usd },
            cost => cost,
        };
        let receipt = CallReceipt {
            outcome,
            provider: std::mem::take(&mut self.provider),
            model: std::mem::take(&mut self.model),
            tokens,
            cost,
            tries: self.tries,
            failed_tries: std::mem::take(&mut self.failed_tries),
            batch: self.batch.take(),
            first_content_ms: self.first.map(millis),
            duration_ms: millis(self.begun.elapsed()),
        };
        record_beside(&*self.log, EventKind::ModelAnswered { call: self.call, receipt: Box::new(receipt) });
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        // The next program sees to the end of a batch.
        let is_left = self.batch.is_some() && self.end.get() == Some(&PortEnd::Succeeded);
        if self.is_open && !is_left {
            let cost = if self.tries == 0 { Cost::Nothing } else { Cost::Unknown };
            self.write(CallOutcome::Cancelled, Tokens::default(), cost);
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
