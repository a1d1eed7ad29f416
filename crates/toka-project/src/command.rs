//! What a command means for each agent that it is about.

use std::collections::BTreeSet;

use toka_core::command::decide_signal;
use toka_core::request::{DenyReason, decide};
use toka_core::state::Happening;
use toka_core::{
    AgentName, AgentState, Answer, Answers, ApprovalAnswer, Command, Coverage, Decision, EventKind, Exit,
    Layer, Request, Urgency,
};

use crate::batch::Then;
use crate::error::CommandError;
use crate::{Project, Shutdown};

/// The last signal with a meaning of its own (signal(7)); those after it are for programs that queue them.
const LAST_SIGNAL: i32 = 31;

impl Project {
    pub(crate) async fn command(&mut self, command: Command, by: &str) -> Result<Answers, CommandError> {
        let agents = self.named(command.agents())?;
        match command {
            Command::Request { request, .. } => self.request(request, agents, by).await,
            Command::Signal { signal, .. } => self.signal(signal, agents),
            Command::Down { urgency } => {
                self.down(urgency, by);
                Ok(Answers::default())
            }
        }
    }

    /// The agents that are meant, in the order of the plan; all of them when none is named.
    fn named(&self, agents: &[AgentName]) -> Result<Vec<AgentName>, CommandError> {
        let all = || self.plan.nodes().iter().map(|node| node.agent.clone());
        if let Some(agent) = agents.iter().find(|agent| self.plan.position(agent).is_none()) {
            return Err(CommandError::UnknownAgent { agent: agent.clone(), known: all().collect() });
        }
        let named: BTreeSet<&AgentName> = agents.iter().collect();
        Ok(all().filter(|agent| named.is_empty() || named.contains(agent)).collect())
    }

    async fn request(
        &mut self,
        request: Request,
        mut agents: Vec<AgentName>,
        by: &str,
    ) -> Result<Answers, CommandError> {
        // Those first that others do not need.
        if matches!(request, Request::Stop | Request::Kill | Request::Pause) {
            agents.reverse();
        }
        if matches!(request, Request::Stop | Request::Kill) {
            self.give_up_cut_off(&agents, by);
            self.recovering.retain(|agent| !agents.contains(agent));
        }
        let decided: Vec<Answer> = agents
            .into_iter()
            .map(|agent| Answer { decision: self.decide(request, &agent), agent })
            .collect();
        let accepted: Vec<AgentName> = decided
            .iter()
            .filter(|answer| answer.decision == Decision::Accept)
            .map(|answer| answer.agent.clone())
            .collect();
        self.accept(request, accepted, by).await?;
        Ok(Answers { agents: decided })
    }

    fn decide(&self, request: Request, agent: &AgentName) -> Decision {
        let Some(state) = self.state.state_of(&self.plan, agent) else { return Decision::Ignore };
        let begins = matches!(request, Request::Start | Request::Restart);
        match state {
            _ if begins && self.state.ending().is_some() => Decision::deny(DenyReason::Ending),
            // It has its place in the queue, and what it waits for is not waived.
            AgentState::Pending
                if begins
                    && !self.state.waits_to_be_called(&self.plan, agent)
                    && !(request == Request::Start && self.queue.holds(agent)) =>
            {
                Decision::Ignore
            }
            AgentState::Paused { .. } if request == Request::Pause && self.is_frozen_for_budget(agent) => {
                Decision::Accept
            }
            AgentState::Running { .. } if request == Request::Pause && !self.can_freeze(agent) => {
                Decision::deny(DenyReason::NoFreezer)
            }
            // A person is asked whether it begins anew.
            state
                if state.is_final()
                    && matches!(request, Request::Stop | Request::Kill)
                    && self.broker.opening_of(agent).is_some() =>
            {
                Decision::Accept
            }
            // It was not to stay so.
            state
                if (state.is_final() || matches!(state, AgentState::Stopping { .. }))
                    && matches!(request, Request::Stop | Request::Kill)
                    && self.comes_back(agent) =>
            {
                Decision::Accept
            }
            state => decide(state, request),
        }
    }

    /// Whether it is frozen because it waits for a person, and nobody else has paused it.
    fn is_frozen_for_budget(&self, agent: &AgentName) -> bool {
        let by = self.status.agent(agent).and_then(|status| status.paused_by.as_deref());
        by == Some(crate::approvals::BUDGET)
    }

    pub(crate) fn can_freeze(&self, agent: &AgentName) -> bool {
        let enforcement = self.status.agent(agent).and_then(|status| status.enforcement.as_ref());
        enforcement.is_none_or(|enforcement| enforcement.coverage(Layer::Cgroup) != Coverage::None)
    }

    async fn accept(
        &mut self,
        request: Request,
        agents: Vec<AgentName>,
        by: &str,
    ) -> Result<(), CommandError> {
        if agents.is_empty() {
            return Ok(());
        }
        if request == Request::Pause {
            // Frozen already, and from now on for somebody else.
            let is_frozen = |agent: &&AgentName| self.is_frozen_for_budget(agent);
            for agent in agents.iter().filter(is_frozen) {
                self.journal.record(Some(agent.clone()), EventKind::AgentPaused { by: by.to_owned() }).await;
            }
        }
        if matches!(request, Request::Stop | Request::Kill) {
            // Whoever stops it has answered what it has ended with.
            for id in agents.iter().filter_map(|agent| self.broker.opening_of(agent)).collect::<Vec<_>>() {
                if self.broker.answer(id, ApprovalAnswer::Denied, by, None).is_ok() {
                    self.open_answered(id);
                }
            }
        }
        match request {
            Request::Pause | Request::Resume => {
                agents.iter().for_each(|agent| self.with(agent, |member| member.handle.tell(request, by)));
            }
            Request::Kill => {
                self.leave_batches(&agents, by);
                let exit = Exit::stopped(by.to_owned());
                agents.iter().for_each(|agent| self.ask_to_stop(agent, exit.clone(), request, by));
            }
            Request::Stop => {
                self.leave_batches(&agents, by);
                self.begin_batch(agents.into_iter().collect(), by, Then::Nothing);
            }
            Request::Start => return self.start_all(agents, by).await,
            Request::Restart => {
                let followers: Vec<AgentName> =
                    agents.iter().flat_map(|agent| self.engaged_followers(agent)).collect();
                self.begin_batch(agents.into_iter().chain(followers).collect(), by, Then::BeginAnew);
            }
        }
        Ok(())
    }

    /// Those that wait for their next life need not wait any longer, those that are stopping come back when they are gone,
    /// and all others begin anew.
    async fn start_all(&mut self, agents: Vec<AgentName>, by: &str) -> Result<(), CommandError> {
        let (mut anew, mut stopping) = (BTreeSet::new(), BTreeSet::new());
        for agent in agents {
            match self.state.state_of(&self.plan, &agent) {
                Some(AgentState::Backoff { .. }) => {
                    self.with(&agent, |member| member.handle.tell(Request::Start, by));
                }
                // It need not wait for the clock, or for room.
                Some(AgentState::Pending) => {
                    if self.state.waits_to_be_called(&self.plan, &agent) {
                        self.tell_requeued(&agent, by, toka_core::event::Awaits::Dependencies);
                    }
                    self.call_with_followers(&agent, by).await;
                    self.queue.call(&agent);
                }
                Some(AgentState::Stopping { .. }) => drop(stopping.insert(agent)),
                // Its end may not be in the journal yet.
                Some(_) if !self.is_over_for(&agent) => drop(stopping.insert(agent)),
                // It would write over what these are reading.
                _ if !self.engaged_followers(&agent).is_empty() => {
                    self.begin_batch(self.pipeline(&agent), by, Then::BeginAnewAtItsEnd);
                }
                _ => drop(anew.insert(agent)),
            }
        }
        if !stopping.is_empty() {
            self.begin_batch(stopping, by, Then::BeginAnew);
        }
        if anew.is_empty() { Ok(()) } else { self.begin_anew(&anew, by).await }
    }

    pub(crate) fn is_over_for(&self, agent: &AgentName) -> bool {
        self.status.agent(agent).is_some_and(|status| status.state.is_final())
    }

    /// Asks an agent to end. The state takes the step at once, so that nobody starts it meanwhile.
    pub(crate) fn ask_to_stop(&mut self, agent: &AgentName, exit: Exit, request: Request, by: &str) {
        let asked = self
            .state
            .state_of(&self.plan, agent)
            .is_some_and(|state| !state.is_final() && !state.is_asked_to_stop());
        if asked {
            self.step(agent, Happening::StopRequested(exit));
        }
        self.with(agent, |member| member.end(request, by));
    }

    fn signal(&mut self, signal: i32, agents: Vec<AgentName>) -> Result<Answers, CommandError> {
        if !(1..=LAST_SIGNAL).contains(&signal) {
            return Err(CommandError::NoSignal(signal));
        }
        let answer = |agent: AgentName| {
            let state = self.state.state_of(&self.plan, &agent);
            let decision = state.map_or(Decision::Ignore, decide_signal);
            if let (Decision::Accept, Some(member)) = (decision, self.members.get(&agent)) {
                self.keeper.signal(member.id, signal);
            }
            Answer { agent, decision }
        };
        Ok(Answers { agents: agents.into_iter().map(answer).collect() })
    }

    fn down(&mut self, urgency: Urgency, by: &str) {
        let is_decided = self.state.ending().is_some() && self.shutdown == Shutdown::Final;
        // A run that another daemon may go on with ends there too.
        if !is_decided && !self.state.ends_by_itself() {
            drop(self.journal.record(None, EventKind::RunEnding { by: by.to_owned(), end_of: None }));
        }
        self.shutdown = Shutdown::Final;
        // What was to follow a stop does not any more; whoever waits for a change hears that the run is over.
        self.batches.clear();
        self.stop_all(urgency, by);
    }

    pub(crate) fn stop_all(&mut self, urgency: Urgency, by: &str) {
        self.state.request_stop(by);
        if urgency == Urgency::Kill {
            let by = self.state.ending().unwrap_or(by).to_owned();
            self.members.values().for_each(|member| member.end(Request::Kill, &by));
        }
    }
}
