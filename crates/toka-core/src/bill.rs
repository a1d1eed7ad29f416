//! What calls of models came to: the one sum of receipts, for whoever shows it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{CallOutcome, CallReceipt, Cost, Event, EventKind, ModelName, Money, RunId, Tokens};

/// A sum of calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bill {
    /// Calls that were begun.
    pub calls: u64,
    /// Those that did not come to the end of an answer.
    pub failed: u64,
    /// Those of which no end is on record: they go on, or their daemon was killed meanwhile.
    pub open: u64,
    /// Tokens, of the calls that told them.
    pub tokens: Tokens,
    /// What is known to be paid, in billionths of a US dollar.
    pub nano_usd: Money,
    /// The part of it that is an estimate.
    pub estimated_nano_usd: Money,
    /// Calls whose price nobody told.
    pub unpriced: u64,
    /// Calls of which nobody knows what they used: those without an end among them.
    pub unknown: u64,
}

impl Bill {
    fn begin(&mut self) {
        self.calls += 1;
        self.open += 1;
        self.unknown += 1;
    }

    fn end(&mut self, receipt: &CallReceipt) {
        self.open = self.open.saturating_sub(1);
        self.unknown = self.unknown.saturating_sub(1);
        self.failed += u64::from(receipt.outcome != CallOutcome::Completed);
        self.tokens.add(&receipt.tokens);
        match receipt.cost {
            Cost::Exact { nano_usd } => self.nano_usd += nano_usd,
            Cost::Estimate { nano_usd } => {
                self.nano_usd += nano_usd;
                self.estimated_nano_usd += nano_usd;
            }
            Cost::Unpriced => self.unpriced += 1,
            Cost::Unknown => self.unknown += 1,
            Cost::Nothing => {}
        }
    }

    /// Adds another sum.
    pub fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.failed += other.failed;
        self.open += other.open;
        self.tokens.add(&other.tokens);
        self.nano_usd += other.nano_usd;
        self.estimated_nano_usd += other.estimated_nano_usd;
        self.unpriced += other.unpriced;
        self.unknown += other.unknown;
    }
}

/// Sums calls by keys of a reader's choice.
#[derive(Debug)]
pub struct Bills<K> {
    sums: BTreeMap<K, Bill>,
    /// Calls that have begun, and where they were counted: a receipt may name another model than the intent did.
    open: BTreeMap<(RunId, u64), K>,
}

impl<K> Default for Bills<K> {
    fn default() -> Self {
        Self { sums: BTreeMap::new(), open: BTreeMap::new() }
    }
}

impl<K: Ord + Clone> Bills<K> {
    /// Takes an event; events of other kinds are passed over. `key` says where a call of this model is counted.
    pub fn observe(&mut self, event: &Event, key: impl FnOnce(&Event, &ModelName) -> K) {
        match &event.kind {
            EventKind::ModelAsked { call, model, .. } => {
                let key = key(event, model);
                self.sums.entry(key.clone()).or_default().begin();
                self.open.insert((event.run, *call), key);
            }
            EventKind::ModelAnswered { call, receipt } => {
                // What was refused before anything was asked is no call.
                let Some(counted) = self.open.remove(&(event.run, *call)) else { return };
                let model =
                    ModelName { provider: Some(receipt.provider.clone()), model: receipt.model.clone() };
                let now = key(event, &model);
                if now != counted {
                    self.move_one(&counted, &now);
                }
                self.sums.entry(now).or_default().end(receipt);
            }
            _ => {}
        }
    }

    /// A call is counted elsewhere: another model than the first candidate has answered.
    fn move_one(&mut self, from: &K, to: &K) {
        if let Some(bill) = self.sums.get_mut(from) {
            bill.calls = bill.calls.saturating_sub(1);
            bill.open = bill.open.saturating_sub(1);
            bill.unknown = bill.unknown.saturating_sub(1);
            if *bill == Bill::default() {
                self.sums.remove(from);
            }
        }
        self.sums.entry(to.clone()).or_default().begin();
    }

    /// The sums.
    pub fn sums(&self) -> &BTreeMap<K, Bill> {
        &self.sums
    }

    /// The sum of all.
    pub fn total(&self) -> Bill {
        self.sums.values().fold(Bill::default(), |mut total, bill| {
            total.add(bill);
            total
        })
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{Amounts, Name};

    fn event(kind: EventKind) -> Event {
        let name = Name::new("a").expect("a label");
        let run = RunId::from_uuid(Uuid::nil());
        Event { seq: 1, time_ms: 0, project: name.clone(), run, agent: Some(name), kind }
    }

    fn asked(call: u64) -> Event {
        let model = ModelName::from("p/first".to_owned());
        let asked = "default".into();
        let reserved = Amounts::default();
        let hash = String::new();
        event(EventKind::ModelAsked { call, asked, model, stream: true, bytes: 1, hash, reserved })
    }

    fn answered(call: u64, model: &str, cost: Cost, outcome: CallOutcome) -> Event {
        let tokens = Tokens { input: Some(10), ..Tokens::default() };
        let receipt = CallReceipt {
            outcome,
            provider: "p".into(),
            model: model.into(),
            tokens,
            cost,
            tries: 1,
            failed_tries: Vec::new(),
            batch: None,
            first_content_ms: None,
            duration_ms: 1,
        };
        event(EventKind::ModelAnswered { call, receipt: Box::new(receipt) })
    }

    #[test]
    fn every_call_is_counted_once_where_it_was_answered() {
        let mut bills = Bills::default();
        let exact = Cost::Exact { nano_usd: Money(5) };
        let cut = CallOutcome::Cut { reason: "x".into() };
        for event in [
            asked(1),
            answered(1, "first", exact, CallOutcome::Completed),
            asked(2),
            answered(2, "second", Cost::Estimate { nano_usd: Money(3) }, cut),
            asked(3),
            answered(9, "first", exact, CallOutcome::Refused { reason: "x".into() }),
            asked(4),
            answered(4, "first", Cost::Unpriced, CallOutcome::Completed),
            answered(4, "first", Cost::Unpriced, CallOutcome::Completed),
        ] {
            bills.observe(&event, |_, model| model.to_string());
        }
        let first = &bills.sums()["p/first"];
        assert_eq!((first.calls, first.failed, first.open, first.unpriced, first.unknown), (3, 0, 1, 1, 1));
        assert_eq!((first.nano_usd, first.tokens.input), (Money(5), Some(20)));
        let second = &bills.sums()["p/second"];
        assert_eq!((second.calls, second.failed, second.estimated_nano_usd), (1, 1, Money(3)));
        assert_eq!((bills.total().calls, bills.total().nano_usd), (4, Money(8)));
    }
}
