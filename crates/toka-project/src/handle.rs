//! What others hold of a project that runs: they ask, its owner answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use toka_api::declaration::Declaration;
use toka_api::wire::{Changes, RunInfo};
use toka_broker::NotAnswered;
use toka_core::approval::Reply;
use toka_core::{
    AgentName, Answers, ApprovalAnswer, BudgetUse, Command, Resources, RunStatus, SessionKey, SessionNews,
    Urgency,
};
use toka_gateway::Rest;
use toka_keeper::{Keeper, Kin};
use toka_orchestration::Lifetime;
use toka_runtime::Terminal;
use toka_workstream::describe::Described;
use tokio::sync::{mpsc, oneshot, watch};

use crate::admit::RunContext;
use crate::error::{ApplyError, CommandError, ExecError, SteerError};
use crate::exec::{Begun, ExecRequest};
use crate::facts::{Facts, Figures};
use crate::keeper::cgroup_name;
use crate::order::{ApplyMode, ApplyRequest, Order, RunOver};
use crate::steer::Steering;

/// A project that runs, as others hold it.
#[derive(Debug, Clone)]
pub struct ProjectHandle {
    overview: Arc<RunInfo>,
    kin: Kin,
    orders: mpsc::UnboundedSender<Order>,
    moved: watch::Receiver<u64>,
    is_over: Arc<AtomicBool>,
}

/// What is asked of a project, as the project gets it.
#[derive(Debug)]
pub(crate) struct Orders {
    received: mpsc::UnboundedReceiver<Order>,
    is_over: Arc<AtomicBool>,
}

impl Orders {
    /// The next one.
    pub(crate) async fn recv(&mut self) -> Option<Order> {
        self.received.recv().await
    }

    /// From now on the handles say that the run is over. Who waits for an answer waits until the project is closed.
    pub(crate) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

impl ProjectHandle {
    pub(crate) fn new(
        context: &RunContext,
        keeper: &Keeper,
        lifetime: Lifetime,
        moved: watch::Receiver<u64>,
    ) -> (Self, Orders) {
        let (orders, received) = mpsc::unbounded_channel();
        let overview = RunInfo {
            project: context.folders.project.clone(),
            run: context.run,
            workspace: context.folders.workspace.clone(),
            root: context.folders.root(),
            ends_by_itself: lifetime != Lifetime::UntilStopped,
        };
        let kin = keeper.kin(&cgroup_name(&context.folders));
        let is_over = Arc::<AtomicBool>::default();
        let orders_of_project = Orders { received, is_over: Arc::clone(&is_over) };
        (Self { overview: Arc::new(overview), kin, orders, moved, is_over }, orders_of_project)
    }

    /// What never changes of it.
    pub fn overview(&self) -> &RunInfo {
        &self.overview
    }

    /// The number of the last event that its owner has taken note of, which can be read from its journal then. Closed
    /// when the run is over.
    pub fn moved(&self) -> watch::Receiver<u64> {
        self.moved.clone()
    }

    /// Asks for something to be done; `by` says who asks, for the record. The answer comes when it was decided, which is
    /// before it was done.
    ///
    /// # Errors
    /// When the run is over, or the command makes no sense for it.
    pub async fn command(
        &self,
        command: Command,
        by: &str,
    ) -> Result<Result<Answers, CommandError>, RunOver> {
        self.ask(|answer| Order::Command { command, by: by.to_owned(), answer }).await
    }

    /// Whether the run is over, and what was made for it is being removed.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Asks without waiting for the answer.
    pub fn tell(&self, command: Command, by: &str) {
        let (answer, _) = oneshot::channel();
        let _ = self.orders.send(Order::Command { command, by: by.to_owned(), answer });
    }

    /// Stops every agent because the daemon ends, and leaves the run to the next one.
    pub fn interrupt(&self, urgency: Urgency, by: &str) {
        let _ = self.orders.send(Order::Interrupt { urgency, by: by.to_owned() });
    }

    /// Makes it what `declaration` says; the answer comes when that is so, or says why it cannot be.
    ///
    /// # Errors
    /// When the run is over, or the declaration cannot be applied; then the agents are declared as before.
    pub async fn apply(
        &self,
        declaration: Declaration,
        by: &str,
        mode: ApplyMode,
    ) -> Result<Result<Changes, ApplyError>, RunOver> {
        let request = Box::new(ApplyRequest { declaration, by: by.to_owned(), mode });
        self.ask(|answer| Order::Apply { request, answer }).await
    }

    /// What is known of it at this moment.
    ///
    /// # Errors
    /// When the run is over.
    pub async fn status(&self) -> Result<Arc<RunStatus>, RunOver> {
        self.ask(|answer| Order::Status { answer }).await
    }

    /// What its health is judged by.
    ///
    /// # Errors
    /// When the run is over.
    pub async fn facts(&self, figures: Figures) -> Result<Facts, RunOver> {
        self.ask(|answer| Order::Health { figures, answer }).await
    }

    /// What an agent holds and uses at this moment; `None` when it has no process.
    ///
    /// # Errors
    /// When the run is over.
    pub async fn resources(&self, agent: &AgentName) -> Result<Option<Resources>, RunOver> {
        let agent = agent.clone();
        self.ask(|answer| Order::Resources { agent, answer }).await
    }

    /// What an agent declares, in words; nothing when it declares nothing any more.
    ///
    /// # Errors
    /// When the run is over.
    pub async fn declared(&self, agent: &AgentName) -> Result<Vec<Described>, RunOver> {
        let agent = agent.clone();
        self.ask(|answer| Order::Declared { agent, answer }).await
    }

    /// What is used of the budgets of an agent and of the run; nothing for an agent that asks no models.
    ///
    /// # Errors
    /// When the run is over.
    pub async fn budget(&self, agent: &AgentName) -> Result<Vec<BudgetUse>, RunOver> {
        let agent = agent.clone();
        self.ask(|answer| Order::Budget { agent, answer }).await
    }

    /// Whom its agents do not ask for a while; `wake` has those asked again.
    ///
    /// # Errors
    /// When the run is over.
    pub async fn resting(&self, wake: bool) -> Result<Vec<Rest>, RunOver> {
        self.ask(|answer| Order::Resting { wake, answer }).await
    }

    /// Answers what waits for a person; what counts is returned. `uid` is the user who answers.
    ///
    /// # Errors
    /// When the run is over, there is no such approval, or it was answered before.
    pub async fn answer(
        &self,
        id: u64,
        answer: impl Into<Reply>,
        by: &str,
        uid: u32,
    ) -> Result<Result<ApprovalAnswer, NotAnswered>, RunOver> {
        let answer = answer.into();
        self.ask(|reply| Order::Answer { id, answer, by: by.to_owned(), uid, reply }).await
    }

    /// Tells the model that works on the tasks of an agent something, before it is asked next; the answer is its session.
    ///
    /// # Errors
    /// When the run is over, there is no such agent, or no model works on its tasks now.
    pub async fn steer(
        &self,
        agent: AgentName,
        word: Steering,
        by: &str,
        uid: u32,
    ) -> Result<Result<SessionKey, SteerError>, RunOver> {
        self.ask(|answer| Order::Steer { agent, word, by: (by.to_owned(), uid), answer }).await
    }

    /// What the session of an agent says: first what is on record after the line `after`, then what happens.
    ///
    /// # Errors
    /// When the run is over, there is no such agent, or no model works on its tasks.
    pub async fn look_on(
        &self,
        agent: AgentName,
        after: u64,
    ) -> Result<Result<mpsc::Receiver<SessionNews>, SteerError>, RunOver> {
        self.ask(|answer| Order::LookOn { agent, after, answer }).await
    }

    /// Runs a command beside an agent that runs; the answer comes when it executes its program.
    ///
    /// # Errors
    /// When the run is over, or the command cannot be run.
    pub async fn exec(&self, request: ExecRequest) -> Result<Result<Begun, ExecError>, RunOver> {
        let request = Box::new(request);
        self.ask(|answer| Order::Exec { request, answer }).await
    }

    /// The terminal that an agent runs on at this moment; `None` when it runs on none.
    ///
    /// # Errors
    /// When the run is over.
    pub async fn terminal(&self, agent: &AgentName) -> Result<Option<Terminal>, RunOver> {
        let agent = agent.clone();
        self.ask(|answer| Order::Terminal { agent, answer }).await
    }

    /// Whether the process `pid` is one of an agent. That is what the kernel says: nobody is asked who may hang.
    pub fn is_of_an_agent(&self, pid: i32) -> bool {
        self.kin.has(pid)
    }

    /// Whether its keeper answers, without which nothing can be done with its agents.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn answers(&self) -> Result<(), String> {
        match self.facts(Figures::Without).await {
            Ok(facts) => facts.keeper,
            // Whoever asks for more is told so.
            Err(RunOver) => Ok(()),
        }
    }

    async fn ask<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Result<T, RunOver> {
        let (answer, answered) = oneshot::channel();
        self.orders.send(order(answer)).map_err(|_| RunOver)?;
        answered.await.map_err(|_| RunOver)
    }
}
