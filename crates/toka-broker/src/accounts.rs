//! What agents and the run have used, what is kept for calls that go on, and whether another call fits. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use toka_core::budget::{Measure, Scope};
use toka_core::{AgentName, Amounts, Budget, BudgetConfig, BudgetUse, CallReceipt, Cost, Money};

/// Whether a call fits into the budgets of its agent and of the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fit {
    /// It does.
    Fits,
    /// It does not while others go on, which may use less than what is kept for them.
    AfterOthers {
        /// Whose budget it has to wait for.
        scope: Scope,
        /// Whether calls of other agents are in its way, and not only those of its own.
        of_others: bool,
    },
    /// It does not.
    Over(Over),
}

/// A budget into which a call does not fit. Amounts are in the unit of the measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Over {
    /// Whose.
    pub scope: Scope,
    /// In what.
    pub measure: Measure,
    /// So much is used.
    pub used: u64,
    /// So much may be.
    pub limit: u64,
    /// So much the call may use at most.
    pub next: u64,
}

/// A budget of which four fifths are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nearing {
    /// Whose.
    pub scope: Scope,
    /// In what.
    pub measure: Measure,
    /// So much is used.
    pub used: u64,
    /// So much may be.
    pub limit: u64,
}

/// What one agent, or the run, has used and may use.
#[derive(Debug, Default)]
struct Account {
    /// What its workstream declares; nothing for the run.
    declared: Budget,
    limits: Budget,
    used: Amounts,
    /// What is kept for calls that go on.
    reserved: Amounts,
    /// When the first call was.
    first_ms: Option<i64>,
    /// What a person has given beyond the limits.
    raised: BTreeMap<Measure, u64>,
    /// What was told to be nearly used up.
    told: BTreeSet<Measure>,
}

impl Account {
    fn budget(&self) -> Budget {
        self.raised.iter().fold(self.limits, |budget, (measure, by)| budget.raised(*measure, *by))
    }

    fn used(&self, measure: Measure, now_ms: i64) -> u64 {
        match (measure, self.first_ms) {
            (Measure::Wall, Some(first)) => u64::try_from(now_ms.saturating_sub(first)).unwrap_or(0),
            (measure, _) => self.used.get(measure),
        }
    }

    /// By measure. Time counts only where it is limited.
    fn uses(&self, scope: Scope, now_ms: i64) -> impl Iterator<Item = BudgetUse> {
        let budget = self.budget();
        Measure::ALL.into_iter().filter_map(move |measure| {
            let limit = budget.limit(measure);
            let is_told = limit.is_some() || measure != Measure::Wall;
            let (used, reserved) = (self.used(measure, now_ms), self.reserved.get(measure));
            is_told.then_some(BudgetUse { scope, measure, used, reserved, limit })
        })
    }

    /// `own` is the part of what is kept that is the agent's own.
    fn fit(&self, scope: Scope, next: &Amounts, own: &Amounts, now_ms: i64) -> Fit {
        let budget = self.budget();
        for measure in Measure::ALL {
            let Some(limit) = budget.limit(measure) else { continue };
            let (used, needed) = (self.used(measure, now_ms), next.get(measure));
            let fits = match measure {
                // Time passes without a call, too.
                Measure::Wall => used < limit,
                _ => used.saturating_add(self.reserved.get(measure)).saturating_add(needed) <= limit,
            };
            if !fits {
                let over = Over { scope, measure, used, limit, next: needed };
                // What is kept for others may come back; what is used does not.
                let may_fit = measure != Measure::Wall && used.saturating_add(needed) <= limit;
                let of_others = used.saturating_add(own.get(measure)).saturating_add(needed) <= limit;
                return if may_fit { Fit::AfterOthers { scope, of_others } } else { Fit::Over(over) };
            }
        }
        Fit::Fits
    }

    fn begin(&mut self, reserved: Amounts, now_ms: i64) {
        self.reserved = self.reserved.plus(reserved);
        self.first_ms.get_or_insert(now_ms);
    }

    fn end(&mut self, reserved: Amounts, used: Amounts) {
        self.reserved = self.reserved.minus(reserved);
        self.used = self.used.plus(used);
    }

    fn nearing(&mut self, scope: Scope, now_ms: i64) -> Vec<Nearing> {
        let budget = self.budget();
        let near = |measure: Measure| {
            let (limit, used) = (budget.limit(measure)?, self.used(measure, now_ms));
            // Beyond the limit the next call says so.
            let is_near = used < limit && u128::from(used) * 5 >= u128::from(limit) * 4;
            (is_near && !self.told.contains(&measure)).then_some(Nearing { scope, measure, used, limit })
        };
        let found: Vec<Nearing> = Measure::ALL.into_iter().filter_map(near).collect();
        self.told.extend(found.iter().map(|nearing| nearing.measure));
        found
    }

    fn raise(&mut self, measure: Measure, by: u64) {
        let raised = self.raised.entry(measure).or_default();
        *raised = raised.saturating_add(by);
        self.told.remove(&measure);
    }
}

/// A call that has begun and has not ended.
#[derive(Debug)]
struct OpenCall {
    agent: AgentName,
    reserved: Amounts,
    /// Whether the agent's account still has this call: [`Accounts::begin_anew`] empties the account, and its open calls end without it.
    is_current: bool,
}

/// The accounts of a run.
#[derive(Debug, Default)]
pub struct Accounts {
    config: BudgetConfig,
    run: Account,
    agents: BTreeMap<AgentName, Account>,
    calls: HashMap<u64, OpenCall>,
}

impl Accounts {
    /// Those of a run for which a person says this.
    pub fn new(config: BudgetConfig) -> Self {
        let run = Account { limits: config.of_run(), ..Account::default() };
        Self { config, run, ..Self::default() }
    }

    /// Another word of a person's. What was used stays used.
    pub fn configure(&mut self, config: BudgetConfig) {
        self.config = config;
        self.run.limits = config.of_run();
        self.agents.values_mut().for_each(|account| account.limits = config.of_agent(account.declared));
    }

    /// What an agent declares of its budget.
    pub fn declare(&mut self, agent: &AgentName, declared: Budget) {
        let account = self.agents.entry(agent.clone()).or_default();
        (account.declared, account.limits) = (declared, self.config.of_agent(declared));
    }

    /// Whether a call of `agent` fits that may use `next` at most.
    pub fn fit(&self, agent: &AgentName, next: &Amounts, now_ms: i64) -> Fit {
        let account = self.agents.get(agent);
        let kept = account.map(|account| account.reserved).unwrap_or_default();
        match account.map_or(Fit::Fits, |account| account.fit(Scope::Agent, next, &kept, now_ms)) {
            Fit::Fits => self.run.fit(Scope::Run, next, &kept, now_ms),
            other => other,
        }
    }

    /// Keeps `reserved` for a call. One that is known already changes nothing.
    pub fn begin(&mut self, call: u64, agent: &AgentName, reserved: Amounts, now_ms: i64) {
        if self.calls.contains_key(&call) {
            return;
        }
        self.calls.insert(call, OpenCall { agent: agent.clone(), reserved, is_current: true });
        self.run.begin(reserved, now_ms);
        self.agents.entry(agent.clone()).or_default().begin(reserved, now_ms);
    }

    /// Counts what the call has used. Returns each measure of which four fifths are used now, once.
    pub fn end(&mut self, call: u64, receipt: &CallReceipt, now_ms: i64) -> Vec<Nearing> {
        let Some(open) = self.calls.remove(&call) else { return Vec::new() };
        let used = used(open.reserved, receipt);
        self.run.end(open.reserved, used);
        let mut nearing = self.run.nearing(Scope::Run, now_ms);
        if let Some(account) = self.agents.get_mut(&open.agent).filter(|_| open.is_current) {
            account.end(open.reserved, used);
            nearing.extend(account.nearing(Scope::Agent, now_ms));
        }
        nearing
    }

    /// Gives the agent its whole budget again, when a person or its schedule has started it anew. The account of the run stays as it is.
    pub fn begin_anew(&mut self, agent: &AgentName) {
        if let Some(account) = self.agents.get_mut(agent) {
            *account = Account { declared: account.declared, limits: account.limits, ..Account::default() };
        }
        let own = self.calls.values_mut().filter(|call| call.agent == *agent);
        own.for_each(|call| call.is_current = false);
    }

    /// Gives more.
    pub fn raise(&mut self, scope: Scope, agent: &AgentName, measure: Measure, by: u64) {
        match scope {
            Scope::Run => self.run.raise(measure, by),
            Scope::Agent => self.agents.entry(agent.clone()).or_default().raise(measure, by),
        }
    }

    /// Whether the agent has a call that has not ended.
    pub fn is_calling(&self, agent: &AgentName) -> bool {
        self.calls.values().any(|call| call.agent == *agent)
    }

    /// What is used of an agent's own budget, then of that of the run; nothing for an agent that has none.
    pub fn uses(&self, agent: &AgentName, now_ms: i64) -> Vec<BudgetUse> {
        let Some(account) = self.agents.get(agent) else { return Vec::new() };
        account.uses(Scope::Agent, now_ms).chain(self.run.uses(Scope::Run, now_ms)).collect()
    }
}

/// The amounts that the call has used. Where its receipt does not know them all, at least the amounts that were reserved.
fn used(reserved: Amounts, receipt: &CallReceipt) -> Amounts {
    let known = receipt.tokens.all();
    match receipt.cost {
        Cost::Exact { nano_usd } => Amounts::of_call(nano_usd, known),
        // It broke off, and what the provider had done by then, such as thinking that is not shown, is not known.
        Cost::Estimate { nano_usd } => {
            Amounts::of_call(nano_usd.max(reserved.money), known.max(reserved.tokens))
        }
        // Longer than its price is for, or called by another name than that of the price: what was kept is the best there is.
        Cost::Unpriced => Amounts::of_call(reserved.money, known),
        Cost::Unknown => Amounts::of_call(reserved.money, known.max(reserved.tokens)),
        // It was not sent.
        Cost::Nothing if receipt.tries == 0 => Amounts::default(),
        Cost::Nothing => Amounts::of_call(Money(0), known),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use toka_core::{CallOutcome, Name, Tokens};

    use super::*;

    fn name(text: &str) -> AgentName {
        Name::new(text).expect("a label")
    }

    fn receipt(cost: Cost, output: u64) -> CallReceipt {
        CallReceipt {
            outcome: CallOutcome::Completed,
            provider: "p".into(),
            model: "m".into(),
            tokens: Tokens { output: Some(output), ..Tokens::default() },
            cost,
            tries: 1,
            failed_tries: Vec::new(),
            batch: None,
            first_content_ms: None,
            duration_ms: 1,
        }
    }

    fn dollars(limit: u64) -> Budget {
        Budget { money: Some(Money(limit)), ..Budget::default() }
    }

    fn accounts(run: u64, agent: u64) -> Accounts {
        let mut accounts = Accounts::new(BudgetConfig { run: dollars(run), agent: dollars(agent) });
        accounts.declare(&name("a"), Budget::default());
        accounts.declare(&name("b"), Budget::default());
        accounts
    }

    fn call(money: u64) -> Amounts {
        Amounts::of_call(Money(money), 1)
    }

    #[test]
    fn a_call_waits_for_others_before_a_person_is_asked() {
        let (mut accounts, a) = (accounts(100, 10), name("a"));
        assert_eq!(accounts.fit(&a, &call(6), 0), Fit::Fits);
        accounts.begin(1, &a, call(6), 0);
        accounts.begin(1, &a, call(6), 0);
        let own = Fit::AfterOthers { scope: Scope::Agent, of_others: false };
        assert_eq!(accounts.fit(&a, &call(6), 0), own);
        assert_eq!(accounts.fit(&name("b"), &call(6), 0), Fit::Fits);
        assert_eq!(accounts.end(1, &receipt(Cost::Exact { nano_usd: Money(5) }, 3), 0), []);
        let over = Over { scope: Scope::Agent, measure: Measure::Money, used: 5, limit: 10, next: 6 };
        assert_eq!(accounts.fit(&a, &call(6), 0), Fit::Over(over));
        assert_eq!(accounts.fit(&a, &call(5), 0), Fit::Fits);
        accounts.raise(Scope::Agent, &a, Measure::Money, 1);
        assert_eq!(accounts.fit(&a, &call(6), 0), Fit::Fits);
        accounts.raise(Scope::Agent, &a, Measure::Money, 1000);
        let over = Over { scope: Scope::Run, measure: Measure::Money, used: 5, limit: 100, next: 96 };
        assert_eq!(accounts.fit(&a, &call(96), 0), Fit::Over(over));
    }

    #[test]
    fn what_is_nearly_used_up_is_told_once() {
        let (mut accounts, a) = (accounts(1000, 10), name("a"));
        for (number, told) in [(1, 0), (2, 1), (3, 0)] {
            accounts.begin(number, &a, call(4), 0);
            let nearing = accounts.end(number, &receipt(Cost::Exact { nano_usd: Money(4) }, 1), 0);
            assert_eq!(nearing.len(), told, "{number}");
        }
    }

    fn money(accounts: &Accounts, agent: &str, scope: Scope) -> BudgetUse {
        let uses = accounts.uses(&name(agent), 0);
        *uses.iter().find(|of| of.scope == scope && of.measure == Measure::Money).expect("declared")
    }

    #[test]
    fn what_nobody_knows_counts_as_all_that_was_kept() {
        let (mut accounts, a) = (accounts(100, 100), name("a"));
        for (number, cost, used) in [
            (1, Cost::Unknown, 7),
            (2, Cost::Unpriced, 14),
            (3, Cost::Estimate { nano_usd: Money(2) }, 21),
            (4, Cost::Estimate { nano_usd: Money(9) }, 30),
            (5, Cost::Nothing, 30),
        ] {
            accounts.begin(number, &a, call(7), 0);
            accounts.end(number, &receipt(cost, 0), 0);
            let run = money(&accounts, "a", Scope::Run);
            assert_eq!((run.used, run.reserved), (used, 0), "{cost:?}: nothing is kept any more");
        }
    }

    #[test]
    fn time_is_counted_from_the_first_call() {
        let a = name("a");
        let wall = Budget { wall: Some(std::time::Duration::from_secs(1)), ..Budget::default() };
        let mut accounts = Accounts::new(BudgetConfig::default());
        accounts.declare(&a, wall);
        assert_eq!(accounts.fit(&a, &call(0), 5_000), Fit::Fits);
        accounts.begin(1, &a, call(0), 5_000);
        accounts.end(1, &receipt(Cost::Unpriced, 1), 5_100);
        assert_eq!(accounts.fit(&a, &call(0), 5_999), Fit::Fits);
        assert!(matches!(accounts.fit(&a, &call(0), 6_000), Fit::Over(Over { measure: Measure::Wall, .. })));
        assert_eq!(accounts.fit(&a, &call(0), 0), Fit::Fits, "the clock was set back");
    }

    #[test]
    fn one_that_is_begun_anew_has_its_budget_again_and_the_run_has_not() {
        let (mut accounts, a) = (accounts(12, 10), name("a"));
        accounts.begin(1, &a, call(9), 0);
        accounts.begin_anew(&a);
        assert_eq!(
            accounts.fit(&a, &call(9), 0),
            Fit::AfterOthers { scope: Scope::Run, of_others: true },
            "the run still keeps 9 for the call before"
        );
        accounts.raise(Scope::Agent, &a, Measure::Money, 10);
        let over = Over { scope: Scope::Run, measure: Measure::Money, used: 0, limit: 12, next: 13 };
        assert_eq!(accounts.fit(&a, &call(13), 0), Fit::Over(over), "no end of others makes it fit");
        accounts.end(1, &receipt(Cost::Exact { nano_usd: Money(9) }, 1), 0);
        assert_eq!(accounts.fit(&a, &call(3), 0), Fit::Fits);
        let own = money(&accounts, "a", Scope::Agent);
        assert_eq!((own.used, own.reserved, own.limit), (0, 0, Some(20)));
        assert!(matches!(accounts.fit(&a, &call(9), 0), Fit::Over(Over { scope: Scope::Run, .. })));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Ask { agent: bool, most: u64 },
        End { which: usize, part: u64, cost: u8 },
        Raise { by: u64 },
        Anew { agent: bool },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (any::<bool>(), 0..40_u64).prop_map(|(agent, most)| Step::Ask { agent, most }),
            4 => (any::<usize>(), 0..=100_u64, 0..4_u8)
                .prop_map(|(which, part, cost)| Step::End { which, part, cost }),
            1 => (0..30_u64).prop_map(|by| Step::Raise { by }),
            1 => any::<bool>().prop_map(|agent| Step::Anew { agent }),
        ]
    }

    proptest! {
        /// Calls that use no more than what was kept for them never exceed the run's budget, in whatever order they come and end.
        #[test]
        fn no_order_of_calls_exceeds_a_budget(steps in proptest::collection::vec(step(), 1..200)) {
            let mut accounts = accounts(100, 60);
            let (mut open, mut number, mut limit) = (Vec::new(), 0, 100);
            for step in steps {
                match step {
                    Step::Ask { agent, most } => {
                        let agent = if agent { name("a") } else { name("b") };
                        if accounts.fit(&agent, &call(most), 0) == Fit::Fits {
                            number += 1;
                            accounts.begin(number, &agent, call(most), 0);
                            open.push((number, most));
                        }
                    }
                    Step::End { which, part, cost } if !open.is_empty() => {
                        let (number, most) = open.swap_remove(which % open.len());
                        let nano_usd = Money(most * part / 100);
                        let cost = match cost {
                            0 => Cost::Exact { nano_usd },
                            1 => Cost::Estimate { nano_usd },
                            2 => Cost::Unknown,
                            _ => Cost::Unpriced,
                        };
                        accounts.end(number, &receipt(cost, 1), 0);
                    }
                    Step::End { .. } => {}
                    Step::Raise { by } => {
                        limit += by;
                        accounts.raise(Scope::Run, &name("a"), Measure::Money, by);
                    }
                    Step::Anew { agent } => accounts.begin_anew(&if agent { name("a") } else { name("b") }),
                }
                let run = money(&accounts, "a", Scope::Run);
                prop_assert_eq!(run.limit, Some(limit));
                prop_assert!(run.used + run.reserved <= limit);
                prop_assert_eq!(run.reserved, open.iter().map(|(_, most)| *most).sum::<u64>());
                for agent in ["a", "b"] {
                    let own = money(&accounts, agent, Scope::Agent);
                    prop_assert!(own.used + own.reserved <= own.limit.expect("a limit"));
                }
            }
        }
    }
}
