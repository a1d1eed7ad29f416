//! What becomes of a command, for whoever waits for it: the same answer for every front end.

use std::sync::Arc;
use std::time::Duration;

use toka_api::wire::RunInfo;
use toka_core::command::{Done, Outcome, is_done};
use toka_core::request::DenyReason;
use toka_core::{AgentName, AgentState, AgentStatus, Answer, Answers, Command, Decision, Request, RunStatus};
use toka_prepare::folders::journal_in;
use toka_store::{Filter, Reader};

use crate::ProjectHandle;
use crate::error::CommandError;
use crate::order::RunOver;

impl ProjectHandle {
    /// Asks for something to be done, and waits until it is done for every agent, or `longest` is over, or the run.
    ///
    /// # Errors
    /// When the run is over, or the command makes no sense for it.
    pub async fn carry_out(
        &self,
        command: Command,
        by: &str,
        longest: Duration,
    ) -> Result<Result<Outcome, CommandError>, RunOver> {
        let before = self.status().await?;
        let answers = match self.command(command.clone(), by).await? {
            Ok(answers) => answers,
            Err(error) => return Ok(Err(error)),
        };
        let decided = self.status().await.unwrap_or_else(|_| Arc::clone(&before));
        let watched = Watched { command, answers, before, decided };
        Ok(Ok(watched.settle(self, longest).await))
    }
}

/// A command whose end is waited for.
struct Watched {
    command: Command,
    answers: Answers,
    before: Arc<RunStatus>,
    /// Just after it was decided on.
    decided: Arc<RunStatus>,
}

impl Watched {
    /// Waits until the command is done for every agent, or `longest` is over, or the run.
    async fn settle(&self, handle: &ProjectHandle, longest: Duration) -> Outcome {
        let mut moved = handle.moved();
        let deadline = tokio::time::Instant::now().checked_add(longest);
        let mut last = Arc::clone(&self.before);
        loop {
            moved.borrow_and_update();
            let Ok(status) = handle.status().await else { return self.outcome_at_end(handle, &last).await };
            last = status;
            let finished = self.is_finished(&last);
            if finished || longest.is_zero() {
                return self.outcome_of(&last, finished);
            }
            let changed = match deadline {
                Some(deadline) => tokio::time::timeout_at(deadline, moved.changed()).await,
                None => Ok(moved.changed().await),
            };
            match changed {
                Ok(Ok(())) => {}
                // What ends with the run has come to its end.
                Ok(Err(_)) => return self.outcome_at_end(handle, &last).await,
                Err(_) => return self.outcome_of(&last, false),
            }
        }
    }

    /// The run is over: what its agents came to at last is in its journal alone.
    async fn outcome_at_end(&self, handle: &ProjectHandle, last: &RunStatus) -> Outcome {
        let info = handle.overview().clone();
        let status = tokio::task::spawn_blocking(move || status_at_end(&info)).await.ok().flatten();
        self.outcome_of(status.as_ref().unwrap_or(last), true)
    }

    fn is_finished(&self, now: &RunStatus) -> bool {
        if matches!(self.command, Command::Down { .. }) {
            // The answer comes when there is nobody left to give it.
            return false;
        }
        let awaited = |answer: &&Answer| {
            answer.decision == Decision::Accept || self.has_its_place(answer) || self.is_stopping(answer)
        };
        self.answers.agents.iter().filter(awaited).all(|answer| self.is_finished_for(answer, now))
    }

    /// Whether an agent that was to begin waits for its turn already: nothing is done about it, and the command lasts until its
    /// turn has come.
    fn has_its_place(&self, answer: &Answer) -> bool {
        let begins =
            matches!(self.command, Command::Request { request: Request::Start | Request::Restart, .. });
        let decided = self.decided.agent(&answer.agent).map(|agent| &agent.state);
        begins && answer.decision == Decision::Ignore && decided == Some(&AgentState::Pending)
    }

    /// Whether an agent that was to stop is asked to already: the command lasts until it has.
    fn is_stopping(&self, answer: &Answer) -> bool {
        let stops = matches!(self.command, Command::Request { request: Request::Stop, .. });
        let decided = self.decided.agent(&answer.agent).map(|agent| &agent.state);
        let before = self.before.agent(&answer.agent).map(|agent| &agent.state);
        let is_it = |state: Option<&AgentState>| matches!(state, Some(AgentState::Stopping { .. }));
        stops && answer.decision == Decision::Ignore && (is_it(decided) || is_it(before))
    }

    fn is_finished_for(&self, answer: &Answer, now: &RunStatus) -> bool {
        let agent = &answer.agent;
        let Some(status) = now.agent(agent) else { return true };
        let former = self.before.agent(agent);
        let begins_anew = match &self.command {
            _ if self.has_its_place(answer) => false,
            Command::Request { request: Request::Restart, .. } => true,
            Command::Request { request: Request::Start, .. } => {
                former.is_some_and(|former| former.state.is_final())
            }
            _ => false,
        };
        let has_begun = former.is_none_or(|former| status.requeues > former.requeues);
        // Somebody stopped it meanwhile: what was to follow does not any more.
        let is_overtaken = begins_anew && !has_begun && status.state.is_final() && !status.returns;
        self.obstacle(agent, status).is_some()
            || is_overtaken
            || (has_begun || !begins_anew) && is_done(&self.command, &status.state)
    }

    /// Why an agent will not be paused although it was to be: its life is over, and nobody pauses the next one; or it could
    /// not be frozen.
    fn obstacle(&self, agent: &AgentName, now: &AgentStatus) -> Option<DenyReason> {
        use AgentState::{Paused, Running};
        let Command::Request { request: Request::Pause, .. } = self.command else { return None };
        let decided = self.decided.agent(agent)?;
        match (&decided.state, &now.state) {
            (_, Paused { .. }) | (Paused { .. }, Running { .. }) => None,
            (Running { pid: former, .. }, Running { pid, .. }) if former == pid => {
                (now.failed_requests > decided.failed_requests).then_some(DenyReason::NotFrozen)
            }
            _ => Some(DenyReason::EndedBefore),
        }
    }

    fn outcome_of(&self, status: &RunStatus, finished: bool) -> Outcome {
        let done = |answer: &Answer| {
            let Some(status) = status.agent(&answer.agent) else { return self.removed(answer) };
            let state = status.state.clone();
            let decision = match answer.decision {
                Decision::Accept => {
                    self.obstacle(&answer.agent, status).map_or(Decision::Accept, Decision::deny)
                }
                _ if self.is_stopping(answer) => Decision::Accept,
                // Its turn has come.
                _ if self.has_its_place(answer) && state != AgentState::Pending => Decision::Accept,
                decision => decision,
            };
            let waits = status.waits.clone().filter(|_| !state.is_final());
            let next_due_ms = status.next_due_ms;
            Some(Done { agent: answer.agent.clone(), decision, state, waits, next_due_ms })
        };
        Outcome { agents: self.answers.agents.iter().filter_map(done).collect(), finished }
    }

    /// What became of the command for an agent that another declaration has removed meanwhile, which stopped it.
    fn removed(&self, answer: &Answer) -> Option<Done> {
        let state =
            self.decided.agent(&answer.agent).or_else(|| self.before.agent(&answer.agent))?.state.clone();
        let decision = match self.command {
            Command::Request { request: Request::Stop | Request::Kill, .. } => Decision::Ignore,
            _ => Decision::deny(DenyReason::Removed),
        };
        Some(Done { agent: answer.agent.clone(), decision, state, waits: None, next_due_ms: None })
    }
}

/// How the agents of a run that is over are, as its journal tells; none when that cannot be read.
fn status_at_end(info: &RunInfo) -> Option<RunStatus> {
    let filter = Filter { run: Some(info.run), ..Filter::default() };
    let events = Reader::new(journal_in(&info.root)).events(0, &filter, usize::MAX).ok()?;
    let mut status = RunStatus::default();
    events.iter().for_each(|event| status.observe(event));
    Some(status)
}
