//! The one place where calls wait: for others, and for a person.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use toka_core::approval::{Lasting, Reply, Subject, ToolRequest, TrustedHost};
use toka_core::budget::Scope;
use toka_core::capability::Policy;
use toka_core::{
    AgentName, Amounts, Approval, ApprovalAnswer, Budget, BudgetConfig, BudgetUse, Event, EventKind, Opening,
    Risk, SessionKey,
};
use tokio::sync::watch;

use crate::{Accounts, Answered, Approvals, Fit, Nearing, NotAnswered, Over};

/// Records an event about an agent, or about the run. It is recorded when this returns, if not yet durable.
pub type Record = Arc<dyn Fn(Option<&AgentName>, EventKind) + Send + Sync>;

/// Approvals that one agent may wait for at one time.
const MOST_OPEN: usize = 20;
/// How long somebody has to answer when nobody says otherwise.
const EXPIRES: Duration = Duration::from_secs(30 * 60);

struct State {
    accounts: Accounts,
    approvals: Approvals,
    expires: Duration,
    /// Agents whose life is over: their calls, which are being dropped, ask nobody any more.
    over: BTreeSet<AgentName>,
    /// Calls that wait for others or for a person, the longest first.
    waiting: BTreeMap<u64, Waiting>,
    last_ticket: u64,
    /// What was answered about hosts: a yes holds until the run ends, a no for the life of the agent.
    hosts: BTreeMap<(AgentName, String, u16), HostWord>,
    /// What a person says of hosts beyond that.
    grants: HostGrants,
    /// What was answered about calls of tools and questions: good for the one call, whose arguments have this hash.
    calls: BTreeMap<(SessionKey, String, String), Result<Option<String>, String>>,
    /// Calls that are allowed without a question.
    trusted_tools: Vec<TrustedTool>,
}

/// Calls that a person has allowed for a time.
#[derive(Debug, Clone)]
struct TrustedTool {
    agent: AgentName,
    tool: String,
    like: String,
    /// None that is more dangerous.
    risk: Risk,
    until_ms: i64,
}

/// What a person says of hosts that agents have not declared.
#[derive(Debug, Clone, Default)]
pub struct HostGrants {
    /// What is granted and denied.
    pub policy: Policy,
    /// What was allowed beyond a run, when they were asked.
    pub trusted: Vec<TrustedHost>,
}

impl HostGrants {
    /// Whether the agent of this name may reach a host, if that is said.
    fn word(&self, agent: &AgentName, host: &str, port: u16, now_ms: i64) -> Option<bool> {
        let is_it = |trusted: &TrustedHost| {
            trusted.agent == *agent
                && trusted.host == host
                && trusted.port == port
                && trusted.until_ms.is_none_or(|until| now_ms < until)
        };
        let trusted = || self.trusted.iter().any(is_it).then_some(true);
        self.policy.word_on_host(agent, host, port).or_else(trusted)
    }
}

/// What was answered about a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HostWord {
    No,
    /// Until this time; `None` for as long as the run.
    Yes(Option<i64>),
}

/// A call that waits.
struct Waiting {
    agent: AgentName,
    /// The approval that it waits for.
    asked: Option<u64>,
    /// Whose calls have to end before it fits. Then no later one of them goes before it, or it might wait for ever.
    next: Option<Scope>,
}

impl Waiting {
    /// Whether a later call of this agent has to wait behind it.
    fn is_before(&self, agent: &AgentName) -> bool {
        match self.next {
            Some(Scope::Run) => true,
            Some(Scope::Agent) => self.agent == *agent,
            None => false,
        }
    }
}

/// Budgets and approvals of one run.
pub struct Broker {
    state: Mutex<State>,
    /// Moves whenever a call that waits may fit.
    changed: watch::Sender<()>,
    record: Record,
    now_ms: fn() -> i64,
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").finish_non_exhaustive()
    }
}

impl Broker {
    /// One that records what it does, and takes the time from `now_ms`.
    pub fn new(record: Record, now_ms: fn() -> i64) -> Self {
        let accounts = Accounts::new(BudgetConfig::default());
        let state = State {
            accounts,
            approvals: Approvals::default(),
            expires: EXPIRES,
            over: BTreeSet::new(),
            waiting: BTreeMap::new(),
            last_ticket: 0,
            hosts: BTreeMap::new(),
            grants: HostGrants::default(),
            calls: BTreeMap::new(),
            trusted_tools: Vec::new(),
        };
        Self { state: Mutex::new(state), changed: watch::Sender::new(()), record, now_ms }
    }

    /// Takes over what a person says of budgets and hosts now, and how long approvals wait; calls that wait are looked at again.
    pub fn configure(&self, budgets: BudgetConfig, expires: Option<Duration>, grants: HostGrants) {
        let mut state = self.state();
        state.grants = grants;
        state.accounts.configure(budgets);
        state.expires = expires.unwrap_or(EXPIRES);
        drop(state);
        self.changed.send_replace(());
    }

    /// Takes over what an agent declares.
    pub fn declare(&self, agent: &AgentName, budget: Budget) {
        self.state().accounts.declare(agent, budget);
        self.changed.send_replace(());
    }

    /// Waits until a call that uses `most` fits into the budgets, and keeps so much for it until the event of its receipt. Whoever goes
    /// away while it waits has kept nothing.
    ///
    /// # Errors
    /// Why it does not fit, when a person has said no, or nobody has answered.
    pub async fn admit(&self, agent: &AgentName, call: u64, most: Amounts) -> Result<(), String> {
        let mut changed = self.changed.subscribe();
        // Declared before any lock is taken: at its end it takes the lock itself.
        let place = Place::take(self, agent);
        loop {
            if let Some(decided) = self.look(place.ticket, agent, call, most) {
                return decided;
            }
            if changed.changed().await.is_err() {
                return Err("the run is over".to_owned());
            }
        }
    }

    /// Decides on a call that waits, if that can be decided now.
    fn look(&self, ticket: u64, agent: &AgentName, call: u64, most: Amounts) -> Option<Result<(), String>> {
        let now_ms = (self.now_ms)();
        let mut state = self.state();
        if state.over.contains(agent) {
            return Some(Err("the agent has ended".to_owned()));
        }
        let asked = state.waiting.get(&ticket).and_then(|waiting| waiting.asked);
        let answered = asked.and_then(|id| state.approvals.answered(id));
        if let Some(refused) = answered.or(state.approvals.refusal(agent)).and_then(refused) {
            return Some(Err(refused));
        }
        let is_behind = state.waiting.range(..ticket).any(|(_, other)| other.is_before(agent));
        let (mut asks, mut next) = (None, None);
        match state.accounts.fit(agent, &most, now_ms) {
            Fit::Fits if !is_behind => {
                state.accounts.begin(call, agent, most, now_ms);
                return Some(Ok(()));
            }
            Fit::Fits => {}
            // Who is in its own way holds up nobody else.
            Fit::AfterOthers { scope: Scope::Run, of_others: false } => next = Some(Scope::Agent),
            Fit::AfterOthers { scope, .. } => next = Some(scope),
            Fit::Over(over) => {
                let expires_ms = expiry(now_ms, state.expires);
                let (approval, is_new) = state.approvals.ask(agent, subject(over), expires_ms);
                asks = Some(approval.id);
                if is_new {
                    // Under the lock, so that nobody answers before it is told.
                    (self.record)(Some(agent), EventKind::ApprovalAsked(approval));
                }
            }
        }
        let mut left = None;
        if let Some(waiting) = state.waiting.get_mut(&ticket) {
            left = waiting.asked.filter(|_| waiting.asked != asks);
            (waiting.asked, waiting.next) = (asks, next);
        }
        if let Some(kind) = left.and_then(|id| state.leave(agent, id)) {
            (self.record)(kind.0.as_ref(), kind.1);
        }
        None
    }

    /// Waits until a person has said whether an agent may reach a host. What was answered before is not asked again.
    ///
    /// # Errors
    /// Why it may not.
    pub async fn admit_host(
        &self,
        (agent, declared): (&AgentName, &AgentName),
        host: &str,
        port: u16,
    ) -> Result<(), String> {
        let mut changed = self.changed.subscribe();
        let place = Place::take(self, agent);
        loop {
            if let Some(decided) = self.look_at_host(place.ticket, (agent, declared), host, port) {
                return decided;
            }
            if changed.changed().await.is_err() {
                return Err("the run is over".to_owned());
            }
        }
    }

    fn look_at_host(
        &self,
        ticket: u64,
        (agent, declared): (&AgentName, &AgentName),
        host: &str,
        port: u16,
    ) -> Option<Result<(), String>> {
        let now_ms = (self.now_ms)();
        let mut state = self.state();
        if state.over.contains(agent) {
            return Some(Err("the agent has ended".to_owned()));
        }
        let grants = state.grants.word(declared, host, port, now_ms);
        match (grants, state.hosts.get(&(agent.clone(), host.to_owned(), port))) {
            (Some(false), _) => return Some(Err(format!("the policy denies host:{host}:{port}"))),
            (_, Some(HostWord::No)) => {
                return Some(Err("a person was asked, and has not allowed it".to_owned()));
            }
            (_, Some(HostWord::Yes(until))) if until.is_none_or(|until| now_ms < until) => {
                return Some(Ok(()));
            }
            (Some(true), _) => return Some(Ok(())),
            (None, _) => {}
        }
        let is_waiting = state.waiting.get(&ticket).is_some_and(|waiting| waiting.asked.is_some());
        if !is_waiting && state.approvals.count(agent) >= MOST_OPEN {
            return Some(Err(format!("{MOST_OPEN} approvals of this agent wait for an answer already")));
        }
        let expires_ms = expiry(now_ms, state.expires);
        let subject = Subject::Host { host: host.to_owned(), port };
        let (approval, is_new) = state.approvals.ask(agent, subject, expires_ms);
        if let Some(waiting) = state.waiting.get_mut(&ticket) {
            waiting.asked = Some(approval.id);
        }
        if is_new {
            (self.record)(Some(agent), EventKind::ApprovalAsked(approval));
        }
        None
    }

    /// Waits until a person has said whether a model may use a tool so, or has answered its question; the words of the person.
    ///
    /// # Errors
    /// Why it may not, or gets no answer.
    pub async fn ask_person(&self, agent: &AgentName, subject: &Subject) -> Result<Option<String>, String> {
        let mut changed = self.changed.subscribe();
        let place = Place::take(self, agent);
        loop {
            if let Some(decided) = self.look_at_call(place.ticket, agent, subject) {
                return decided;
            }
            if changed.changed().await.is_err() {
                return Err("the run is over".to_owned());
            }
        }
    }

    fn look_at_call(
        &self,
        ticket: u64,
        agent: &AgentName,
        subject: &Subject,
    ) -> Option<Result<Option<String>, String>> {
        let now_ms = (self.now_ms)();
        let mut state = self.state();
        if state.over.contains(agent) {
            return Some(Err("the agent has ended".to_owned()));
        }
        if let Some(word) = call_of(subject).and_then(|call| state.calls.get(&call)) {
            return Some(word.clone());
        }
        if let Subject::Tool(request) = subject {
            let covers = |trusted: &TrustedTool| {
                trusted.agent == *agent
                    && trusted.tool == request.tool
                    && Some(&trusted.like) == request.like.as_ref()
                    && request.risk <= trusted.risk
                    && now_ms < trusted.until_ms
            };
            if state.trusted_tools.iter().any(covers) {
                return Some(Ok(None));
            }
        }
        let is_waiting = state.waiting.get(&ticket).is_some_and(|waiting| waiting.asked.is_some());
        if !is_waiting && state.approvals.count(agent) >= MOST_OPEN {
            return Some(Err(format!("{MOST_OPEN} approvals of this agent wait for an answer already")));
        }
        let expires_ms = expiry(now_ms, state.expires);
        let (approval, is_new) = state.approvals.ask(agent, subject.clone(), expires_ms);
        if let Some(waiting) = state.waiting.get_mut(&ticket) {
            waiting.asked = Some(approval.id);
        }
        if is_new {
            (self.record)(Some(agent), EventKind::ApprovalAsked(approval));
        }
        None
    }

    /// Asks a person whether a wall is opened at which an agent has ended. Nothing waits here: what follows from a yes is up to who reads the
    /// answer.
    pub fn ask_opening(&self, agent: &AgentName, opening: Opening) {
        let mut state = self.state();
        let expires_ms = expiry((self.now_ms)(), state.expires);
        let (approval, is_new) = state.approvals.ask(agent, Subject::Denial { opening }, expires_ms);
        if is_new {
            (self.record)(Some(agent), EventKind::ApprovalAsked(approval));
        }
        drop(state);
        self.changed.send_replace(());
    }

    /// The approval of a wall at which this agent has ended, if it is open.
    pub fn opening_of(&self, agent: &AgentName) -> Option<u64> {
        self.state().approvals.opening_of(agent)
    }

    /// Asks no longer about walls at which agents have ended: `by` says why.
    pub fn withdraw_openings(&self, by: &str) {
        let is_denial = |approval: &&Approval| approval.subject.opening().is_some();
        let open: Vec<u64> = self.state().approvals.all_open().filter(is_denial).map(|it| it.id).collect();
        for id in open {
            // Somebody may just have answered.
            let _ = self.answer(id, ApprovalAnswer::Withdrawn, by, None);
        }
    }

    /// Takes an event of the run, in the order of the journal; whoever waits is looked at again.
    pub fn observe(&self, event: &Event) {
        let mut state = self.state();
        let Some(told) = state.take(event) else { return };
        for (agent, kind) in told {
            (self.record)(agent.as_ref(), kind);
        }
        drop(state);
        self.changed.send_replace(());
    }

    /// Takes the events of a run that another daemon began.
    pub fn recall(&self, past: &[Event]) {
        let mut state = self.state();
        past.iter().for_each(|event| drop(state.take(event)));
    }

    /// Answers an approval; what was answered is returned. A yes without a sum gives as much as there was.
    ///
    /// # Errors
    /// When there is no such approval, or it was answered before.
    pub fn answer(
        &self,
        id: u64,
        reply: impl Into<Reply>,
        by: &str,
        uid: Option<u32>,
    ) -> Result<ApprovalAnswer, NotAnswered> {
        let reply = reply.into();
        let answer = reply.answer;
        let mut state = self.state();
        let subject = state.approvals.open(id).map(|approval| &approval.subject);
        match (subject, answer, &reply.words) {
            (Some(Subject::Question(_)), ApprovalAnswer::Approved { .. }, None) => {
                return Err(NotAnswered::NeedsWords { id });
            }
            (Some(Subject::Tool(_) | Subject::Question(_)) | None, ..) | (_, _, None) => {}
            (Some(subject), _, Some(_)) => return Err(NotAnswered::NoWords { id, kind: subject.kind() }),
        }
        if let (ApprovalAnswer::Approved { raise, lasting }, Some(approval)) =
            (answer, state.approvals.open(id))
        {
            let (subject, most) = (&approval.subject, approval.subject.largest_raise());
            match (subject, lasting) {
                (_, None) | (Subject::Host { .. }, _) => {}
                (Subject::Tool(ToolRequest { like: None, .. }), Some(_)) => {
                    return Err(NotAnswered::LikeNoOther { id });
                }
                (Subject::Tool(_), Some(Lasting::Always)) => return Err(NotAnswered::NeedsTime { id }),
                (Subject::Tool(_), Some(Lasting::Until(_))) => {}
                (subject, Some(_)) => {
                    return Err(NotAnswered::OnlyHostsLast { id, kind: subject.kind() });
                }
            }
            match (subject, raise) {
                (Subject::Budget { measure, .. }, Some(sum)) if sum == 0 || sum > most => {
                    return Err(NotAnswered::BadSum { id, most: measure.tell(most) });
                }
                (Subject::Budget { .. }, None) if subject.usual_raise().is_none() => {
                    return Err(NotAnswered::NeedsSum { id, why: subject.to_string() });
                }
                (
                    Subject::Host { .. } | Subject::Denial { .. } | Subject::Tool(_) | Subject::Question(_),
                    Some(_),
                ) => {
                    return Err(NotAnswered::NoBudget { id });
                }
                _ => {}
            }
        }
        let (agent, kind) = state.close(id, reply, by, uid)?;
        let EventKind::ApprovalAnswered { answer, .. } = kind else { return Ok(answer) };
        (self.record)(agent.as_ref(), kind);
        drop(state);
        self.changed.send_replace(());
        Ok(answer)
    }

    /// Answers with no what nobody has answered in time.
    pub fn expire(&self) {
        let over = self.state().approvals.expired((self.now_ms)());
        for id in over {
            // Somebody may just have answered.
            let _ = self.answer(id, ApprovalAnswer::Expired, "nobody in time", None);
        }
    }

    /// How long until there is something to do for [`Broker::expire`].
    pub fn expires_in(&self) -> Option<Duration> {
        let next = self.state().approvals.next_expiry()?;
        Some(Duration::from_millis(u64::try_from(next.saturating_sub((self.now_ms)())).unwrap_or(0)))
    }

    /// Moves when there may be something else to wait for.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Those that nobody has answered.
    pub fn open(&self) -> Vec<Approval> {
        self.state().approvals.all_open().cloned().collect()
    }

    /// What was answered.
    pub fn answered(&self, id: u64) -> Option<Answered> {
        self.state().approvals.answered(id).cloned()
    }

    /// The no that an agent has got in this life.
    pub fn refusal(&self, agent: &AgentName) -> Option<Answered> {
        self.state().approvals.refusal(agent).cloned()
    }

    /// What is used of the budgets of an agent and of the run; nothing for an agent that asks no models.
    pub fn uses(&self, agent: &AgentName) -> Vec<BudgetUse> {
        self.state().accounts.uses(agent, (self.now_ms)())
    }

    /// Whether a call of an agent goes on.
    pub fn is_calling(&self, agent: &AgentName) -> bool {
        self.state().accounts.is_calling(agent)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of a call among those that wait; dropped, it waits no more.
struct Place<'a> {
    broker: &'a Broker,
    agent: &'a AgentName,
    ticket: u64,
}

impl<'a> Place<'a> {
    fn take(broker: &'a Broker, agent: &'a AgentName) -> Self {
        let mut state = broker.state();
        state.last_ticket += 1;
        let ticket = state.last_ticket;
        state.waiting.insert(ticket, Waiting { agent: agent.clone(), asked: None, next: None });
        Self { broker, agent, ticket }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.broker.state();
        let Some(waiting) = state.waiting.remove(&self.ticket) else { return };
        let told = waiting.asked.and_then(|id| state.leave(self.agent, id));
        let others = waiting.next.is_some() || told.is_some();
        if let Some((agent, kind)) = told {
            (self.broker.record)(agent.as_ref(), kind);
        }
        drop(state);
        if others {
            self.broker.changed.send_replace(());
        }
    }
}

impl State {
    /// A call does not wait for this approval any more; the event that tells when nobody does.
    fn leave(&mut self, agent: &AgentName, id: u64) -> Option<(Option<AgentName>, EventKind)> {
        let waits = |other: &Waiting| other.agent == *agent && other.asked == Some(id);
        if self.approvals.open(id).is_none() || self.waiting.values().any(waits) {
            return None;
        }
        let of_run = matches!(self.approvals.open(id)?.subject, Subject::Budget { scope: Scope::Run, .. });
        if !self.approvals.leave_one(agent, id) {
            return None;
        }
        let (_, kind) = self.close(id, ApprovalAnswer::Withdrawn, "nobody waits any more", None).ok()?;
        Some((Some(agent.clone()).filter(|_| !of_run), kind))
    }

    /// What follows from an event: further events. `None` when nothing does, not even that somebody is looked at again.
    fn take(&mut self, event: &Event) -> Option<Vec<(Option<AgentName>, EventKind)>> {
        if let EventKind::ApprovalAnswered { id, answer, by, words, .. } = &event.kind {
            // It is known already when this daemon has taken the answer.
            let _ = self.close(*id, Reply { answer: *answer, words: words.clone() }, by, None);
            return Some(Vec::new());
        }
        let agent = event.agent.as_ref()?;
        let mut told = Vec::new();
        match &event.kind {
            EventKind::ModelAsked { call, reserved, .. } => {
                self.accounts.begin(*call, agent, *reserved, event.time_ms);
                return None;
            }
            EventKind::ModelAnswered { call, receipt } => {
                for Nearing { scope, measure, used, limit } in
                    self.accounts.end(*call, receipt, event.time_ms)
                {
                    let of = Some(agent.clone()).filter(|_| scope == Scope::Agent);
                    told.push((of, EventKind::BudgetNearing { scope, measure, used, limit }));
                }
            }
            EventKind::AgentStarting => {
                self.over.remove(agent);
                self.approvals.begin_life(agent);
                // What was not allowed may be asked for again, and what was allowed is so until the run ends.
                self.hosts.retain(|(of, _, _), word| of != agent || *word != HostWord::No);
            }
            EventKind::AgentRequeued { by, .. } => {
                if begins_anew(by) {
                    self.accounts.begin_anew(agent);
                }
                // It begins anew as it is: what it had ended at is not asked about any more.
                let left = self.approvals.leave(agent);
                let by = "the next life of the agent";
                told.extend(
                    left.into_iter()
                        .filter_map(|id| self.close(id, ApprovalAnswer::Withdrawn, by, None).ok()),
                );
            }
            EventKind::ApprovalAsked(approval) => {
                self.approvals.hear_asked(agent, approval);
                return None;
            }
            EventKind::AgentEnded { .. }
            | EventKind::AgentQuarantined { .. }
            | EventKind::AgentRestarting { .. } => {
                self.over.insert(agent.clone());
                let left = self.approvals.leave(agent);
                let by = "the end of the agent";
                told.extend(
                    left.into_iter()
                        .filter_map(|id| self.close(id, ApprovalAnswer::Withdrawn, by, None).ok()),
                );
            }
            _ => return None,
        }
        Some(told)
    }

    /// Takes an answer, and what follows from it for budgets; the event that tells of it.
    fn close(
        &mut self,
        id: u64,
        reply: impl Into<Reply>,
        by: &str,
        uid: Option<u32>,
    ) -> Result<(Option<AgentName>, EventKind), NotAnswered> {
        let Reply { answer, words } = reply.into();
        let usual = self.approvals.open(id).and_then(|approval| approval.subject.usual_raise());
        let answer = match answer {
            ApprovalAnswer::Approved { raise: None, lasting } => {
                ApprovalAnswer::Approved { raise: usual, lasting }
            }
            answer => answer,
        };
        let answered = self.approvals.answer(id, Reply { answer, words: words.clone() }, by)?;
        let mut agent = answered.waiters.first().cloned();
        let kind = answered.subject.kind().to_owned();
        match (&answered.subject, &agent) {
            (Subject::Budget { scope, measure, .. }, Some(of)) => {
                if let ApprovalAnswer::Approved { raise: Some(more), .. } = answer {
                    self.accounts.raise(*scope, of, *measure, more);
                }
                agent = agent.filter(|_| *scope == Scope::Agent);
            }
            (Subject::Host { host, port }, Some(of)) if answer != ApprovalAnswer::Withdrawn => {
                let word = match answer {
                    ApprovalAnswer::Approved { lasting, .. } => {
                        HostWord::Yes(lasting.and_then(Lasting::until_ms))
                    }
                    _ => HostWord::No,
                };
                self.hosts.insert((of.clone(), host.clone(), *port), word);
            }
            (Subject::Question(_), Some(_)) if answer != ApprovalAnswer::Withdrawn => {
                self.calls
                    .extend(call_of(&answered.subject).map(|call| (call, word(answer, words.as_deref()))));
            }
            (Subject::Tool(request), Some(of)) if answer != ApprovalAnswer::Withdrawn => {
                self.calls
                    .extend(call_of(&answered.subject).map(|call| (call, word(answer, words.as_deref()))));
                if let (
                    ApprovalAnswer::Approved { lasting: Some(Lasting::Until(until_ms)), .. },
                    Some(like),
                ) = (answer, &request.like)
                {
                    let (agent, tool, like) = (of.clone(), request.tool.clone(), like.clone());
                    self.trusted_tools.push(TrustedTool { agent, tool, like, risk: request.risk, until_ms });
                }
            }
            _ => {}
        }
        Ok((agent, EventKind::ApprovalAnswered { id, kind, answer, by: by.to_owned(), uid, words }))
    }
}

/// By what an answer about a call is found: it is good for these arguments alone.
fn call_of(subject: &Subject) -> Option<(SessionKey, String, String)> {
    match subject {
        Subject::Tool(request) => Some((request.session.clone(), request.call.clone(), request.hash.clone())),
        Subject::Question(asked) => Some((asked.session.clone(), asked.call.clone(), asked.question.clone())),
        Subject::Budget { .. } | Subject::Host { .. } | Subject::Denial { .. } => None,
    }
}

/// What a call is told that waited for a person.
fn word(answer: ApprovalAnswer, words: Option<&str>) -> Result<Option<String>, String> {
    match (answer, words) {
        (ApprovalAnswer::Approved { .. }, words) => Ok(words.map(str::to_owned)),
        (ApprovalAnswer::Denied, Some(words)) => Err(format!("a person was asked, and says no: {words}")),
        (ApprovalAnswer::Denied, None) => Err("a person was asked, and has not allowed it".to_owned()),
        (ApprovalAnswer::Expired | ApprovalAnswer::Withdrawn, _) => {
            Err("a person was asked, and nobody has answered in time".to_owned())
        }
    }
}

/// Whether an agent that is begun anew by somebody has its whole budget again: a person or the clock has said so, and no failure.
fn begins_anew(by: &str) -> bool {
    matches!(by, "operator" | "schedule")
}

fn expiry(now_ms: i64, expires: Duration) -> i64 {
    now_ms.saturating_add(i64::try_from(expires.as_millis()).unwrap_or(i64::MAX))
}

fn subject(over: Over) -> Subject {
    let Over { scope, measure, used, limit, next } = over;
    Subject::Budget { scope, measure, used, limit, next }
}

/// What a call is told whose approval came to this; nothing when it is looked at again.
fn refused(answered: &Answered) -> Option<String> {
    let what = &answered.subject;
    match answered.answer {
        ApprovalAnswer::Approved { .. } | ApprovalAnswer::Withdrawn => None,
        ApprovalAnswer::Denied => Some(format!("{what}; {} has denied more", answered.by)),
        ApprovalAnswer::Expired => Some(format!("{what}; nobody has answered in time")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use toka_core::{CallOutcome, CallReceipt, Cost, Money, Name, RunId, Tokens};

    use super::*;

    static NOW: AtomicI64 = AtomicI64::new(1_000);

    fn name(text: &str) -> AgentName {
        Name::new(text).expect("a label")
    }

    /// A broker whose events come back to it, as through a journal.
    struct Rig {
        broker: Arc<Broker>,
        told: Arc<Mutex<Vec<Told>>>,
    }

    type Told = (Option<AgentName>, EventKind);

    impl Rig {
        fn new(money: u64) -> Self {
            let told: Arc<Mutex<Vec<_>>> = Arc::default();
            let own = Arc::clone(&told);
            let record: Record =
                Arc::new(move |agent, kind| own.lock().expect("no panic").push((agent.cloned(), kind)));
            let broker = Arc::new(Broker::new(record, || NOW.load(Ordering::SeqCst)));
            let agent = Budget { money: Some(Money(money)), ..Budget::default() };
            broker.configure(
                BudgetConfig { agent, ..BudgetConfig::default() },
                Some(Duration::from_secs(60)),
                HostGrants::default(),
            );
            broker.declare(&name("a"), Budget::default());
            Self { broker, told }
        }

        fn told(&self) -> Vec<Told> {
            self.told.lock().expect("no panic").clone()
        }

        fn event(agent: Option<AgentName>, kind: EventKind) -> Event {
            let run = RunId::from_uuid(uuid::Uuid::nil());
            Event { seq: 1, time_ms: 1_000, project: name("p"), run, agent, kind }
        }

        fn answered(&self, call: u64, cost: u64) {
            let receipt = CallReceipt {
                outcome: CallOutcome::Completed,
                provider: "p".into(),
                model: "m".into(),
                tokens: Tokens { output: Some(1), ..Tokens::default() },
                cost: Cost::Exact { nano_usd: Money(cost) },
                tries: 1,
                failed_tries: Vec::new(),
                batch: None,
                first_content_ms: None,
                duration_ms: 1,
            };
            let kind = EventKind::ModelAnswered { call, receipt: Box::new(receipt) };
            self.broker.observe(&Self::event(Some(name("a")), kind));
        }

        fn ask(&self, call: u64, money: u64) -> tokio::task::JoinHandle<Result<(), String>> {
            let broker = Arc::clone(&self.broker);
            tokio::spawn(
                async move { broker.admit(&name("a"), call, Amounts::of_call(Money(money), 1)).await },
            )
        }

        async fn is_asked(&self, many: usize) {
            let asked = |told: &[Told]| {
                told.iter().filter(|(_, kind)| matches!(kind, EventKind::ApprovalAsked(_))).count()
            };
            while asked(&self.told()) < many {
                tokio::task::yield_now().await;
            }
        }
    }

    #[tokio::test]
    async fn a_hundred_calls_at_once_never_exceed_a_budget() {
        let rig = Rig::new(10);
        let calls: Vec<_> = (0..100).map(|call| rig.ask(call, 3)).collect();
        let mut admitted = Vec::new();
        while admitted.len() < 3 {
            tokio::task::yield_now().await;
            let over = |(_, call): &(usize, &tokio::task::JoinHandle<_>)| call.is_finished();
            admitted = calls.iter().enumerate().filter(over).map(|(at, _)| at).collect();
        }
        assert_eq!(admitted.len(), 3);
        assert_eq!(rig.told(), [], "nobody is asked while others go on");
        admitted.iter().for_each(|call| rig.answered(*call as u64, 3));
        rig.is_asked(1).await;
        assert_eq!(rig.broker.open().len(), 1, "97 calls ask once");
        rig.broker.answer(1, ApprovalAnswer::Denied, "operator", Some(0)).expect("it is open");
        let mut refused = 0;
        for call in calls {
            refused += usize::from(
                call.await.expect("no panic").is_err_and(|why| why.contains("operator has denied")),
            );
        }
        assert_eq!(refused, 97);
    }

    /// Lets everything go on that can.
    async fn settle() {
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_call_that_waits_for_others_is_not_overtaken_for_ever() {
        let rig = Rig::new(10);
        rig.broker.declare(&name("b"), Budget::default());
        let first = rig.ask(1, 6);
        settle().await;
        let large = rig.ask(2, 8);
        settle().await;
        let small = rig.ask(3, 1);
        settle().await;
        assert!(
            first.is_finished() && !large.is_finished() && !small.is_finished(),
            "the small one would fit"
        );
        rig.answered(1, 1);
        settle().await;
        assert!(large.is_finished() && small.is_finished());
        assert_eq!(rig.told(), []);
    }

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_is_withdrawn() {
        let rig = Rig::new(10);
        let gone = rig.ask(1, 30);
        rig.is_asked(1).await;
        gone.abort();
        settle().await;
        assert_eq!(rig.broker.open(), [], "its client has left");
        let raised = rig.ask(2, 30);
        rig.is_asked(2).await;
        let agent = Budget { money: Some(Money(100)), ..Budget::default() };
        rig.broker.configure(BudgetConfig { agent, ..BudgetConfig::default() }, None, HostGrants::default());
        assert_eq!(raised.await.expect("no panic"), Ok(()), "a person has said another budget");
        assert_eq!(rig.broker.open(), []);
        let withdrawn = |(_, kind): &&Told| {
            matches!(kind, EventKind::ApprovalAnswered { answer: ApprovalAnswer::Withdrawn, .. })
        };
        assert_eq!(rig.told().iter().filter(withdrawn).count(), 2);
    }

    #[tokio::test]
    async fn a_host_is_asked_about_once_and_a_no_ends_no_agent() {
        let rig = Rig::new(10);
        let reach = |host: &'static str| {
            let broker = Arc::clone(&rig.broker);
            tokio::spawn(async move { broker.admit_host((&name("a"), &name("a")), host, 443).await })
        };
        let (first, second, other) = (reach("x.example"), reach("x.example"), reach("y.example"));
        rig.is_asked(2).await;
        settle().await;
        assert_eq!(rig.broker.open().len(), 2, "the same host is asked about once");
        let id = |host: &str| {
            let is_it = |approval: &&Approval| matches!(&approval.subject, Subject::Host { host: of, .. } if of == host);
            rig.broker.open().iter().find(is_it).map(|approval| approval.id).expect("it is open")
        };
        let (x, y) = (id("x.example"), id("y.example"));
        let raised = rig.broker.answer(
            x,
            ApprovalAnswer::Approved { raise: Some(1), lasting: None },
            "operator",
            None,
        );
        assert_eq!(raised, Err(NotAnswered::NoBudget { id: x }));
        rig.broker
            .answer(x, ApprovalAnswer::Approved { raise: None, lasting: None }, "operator", None)
            .expect("open");
        rig.broker.answer(y, ApprovalAnswer::Denied, "operator", None).expect("open");
        assert_eq!((first.await.expect("no panic"), second.await.expect("no panic")), (Ok(()), Ok(())));
        assert!(other.await.expect("no panic").is_err());
        assert!(reach("y.example").await.expect("no panic").is_err(), "a no is remembered");
        assert_eq!(rig.ask(1, 3).await.expect("no panic"), Ok(()), "and is about that host alone");
        rig.broker.observe(&Rig::event(Some(name("a")), EventKind::AgentStarting));
        assert_eq!(reach("x.example").await.expect("no panic"), Ok(()), "also in its next life");
        let many: Vec<_> = (0..25)
            .map(|at| {
                let broker = Arc::clone(&rig.broker);
                tokio::spawn(async move {
                    broker.admit_host((&name("a"), &name("a")), &format!("h{at}.example"), 443).await
                })
            })
            .collect();
        settle().await;
        assert_eq!(many.iter().filter(|one| one.is_finished()).count(), 5, "so many may wait");
        let next = Rig::new(10);
        let past: Vec<Event> = rig.told().into_iter().map(|(agent, kind)| Rig::event(agent, kind)).collect();
        next.broker.recall(&past);
        assert_eq!(
            next.broker.admit_host((&name("a"), &name("a")), "x.example", 443).await,
            Ok(()),
            "after a killed daemon, too"
        );
    }

    #[tokio::test]
    async fn what_a_person_has_said_of_a_host_before_is_not_asked_again() {
        let rig = Rig::new(10);
        let capability = |text: &str| [toka_core::Capability::parse(text)].into();
        let trusted = |host: &str, until_ms| TrustedHost {
            agent: name("of-file"),
            host: host.into(),
            port: 443,
            until_ms,
        };
        let policy = Policy {
            allow: capability("host:granted.example:443"),
            deny: capability("host:denied.example"),
            trust: toka_core::capability::Trust::Everything,
        };
        let now = (rig.broker.now_ms)();
        let known = vec![trusted("known.example", None), trusted("soon.example", Some(now + 1000))];
        rig.broker.configure(BudgetConfig::default(), None, HostGrants { policy, trusted: known });
        let reach = |host: &'static str| {
            let broker = Arc::clone(&rig.broker);
            tokio::spawn(async move { broker.admit_host((&name("a"), &name("of-file")), host, 443).await })
        };
        for host in ["granted.example", "known.example", "soon.example"] {
            assert_eq!(reach(host).await.expect("no panic"), Ok(()), "{host}");
        }
        assert!(reach("denied.example").await.expect("no panic").is_err_and(|why| why.contains("policy")));
        // Everything that the workstream asks for is not everything that an agent may come up with.
        let asked = reach("other.example");
        rig.is_asked(1).await;
        let yes = |id, lasting| {
            let answer = ApprovalAnswer::Approved { raise: None, lasting: Some(lasting) };
            rig.broker.answer(id, answer, "operator", None)
        };
        yes(1, Lasting::Until(now + 1000)).expect("open");
        assert_eq!(asked.await.expect("no panic"), Ok(()));
        NOW.fetch_add(1000, Ordering::SeqCst);
        let (again, soon) = (reach("other.example"), reach("soon.example"));
        rig.is_asked(3).await;
        assert!(!again.is_finished() && !soon.is_finished(), "their time is over");
        let poor = Rig::new(10);
        let _call = poor.ask(9, 30);
        poor.is_asked(1).await;
        let lasting = ApprovalAnswer::Approved { raise: Some(30), lasting: Some(Lasting::Always) };
        let answered = poor.broker.answer(1, lasting, "operator", None);
        assert_eq!(answered, Err(NotAnswered::OnlyHostsLast { id: 1, kind: "budget" }));
    }

    #[tokio::test]
    async fn a_raise_lets_the_call_go_and_survives_the_daemon() {
        let rig = Rig::new(10);
        let call = rig.ask(1, 30);
        rig.is_asked(1).await;
        let yes = |raise| {
            rig.broker.answer(1, ApprovalAnswer::Approved { raise, lasting: None }, "operator", Some(7))
        };
        assert!(matches!(yes(None), Err(NotAnswered::NeedsSum { .. })), "as much again is not enough");
        assert!(matches!(yes(Some(0)), Err(NotAnswered::BadSum { .. })));
        assert!(matches!(yes(Some(u64::MAX)), Err(NotAnswered::BadSum { .. })));
        assert_eq!(yes(Some(30)), Ok(ApprovalAnswer::Approved { raise: Some(30), lasting: None }));
        assert_eq!(call.await.expect("no panic"), Ok(()));
        let again = rig.broker.answer(1, ApprovalAnswer::Denied, "operator", None);
        assert!(matches!(again, Err(NotAnswered::Before { .. })));

        let next = Rig::new(10);
        let past: Vec<Event> = rig.told().into_iter().map(|(agent, kind)| Rig::event(agent, kind)).collect();
        next.broker.recall(&past);
        assert_eq!(next.broker.open(), []);
        assert_eq!(next.ask(2, 40).await.expect("no panic"), Ok(()), "10 and 30 more");
        assert_eq!(next.told(), [], "nothing is told twice");
    }

    #[tokio::test]
    async fn what_nobody_answers_expires_and_who_ends_waits_no_more() {
        let rig = Rig::new(10);
        let call = rig.ask(1, 30);
        rig.is_asked(1).await;
        assert_eq!(rig.broker.expires_in(), Some(Duration::from_secs(60)));
        rig.broker.expire();
        assert_eq!(rig.broker.open().len(), 1);
        NOW.fetch_add(60_000, Ordering::SeqCst);
        rig.broker.expire();
        assert!(call.await.expect("no panic").is_err_and(|why| why.contains("nobody has answered in time")));

        assert!(rig.ask(2, 30).await.expect("no panic").is_err(), "it is not asked again");
        rig.broker.observe(&Rig::event(Some(name("a")), EventKind::AgentStarting));
        let call = rig.ask(2, 30);
        rig.is_asked(2).await;
        let exit = toka_core::Exit::stopped("operator");
        let ended = EventKind::AgentEnded { exit, duration_ms: 1, usage: Default::default() };
        rig.broker.observe(&Rig::event(Some(name("a")), ended));
        assert!(call.await.expect("no panic").is_err());
        assert_eq!((rig.broker.open(), rig.broker.expires_in()), (vec![], None));
    }
}
