//! Runs the checks of an agent's objectives, between the end of its last process and the moment it counts as ended.
//!
//! An [`CheckingSink`] stands between the agent's actor and the journal and holds the good end of the agent back while the
//! checks run. So whoever acts on the end, a dependent that starts or the removal of secrets and temporary files, comes
//! after them, and the journal has their results before it. Each check is a process of its own with the agent's rules,
//! environment and folders, run by an actor of its own whose life is of no interest to the journal, only its end.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use toka_core::{AgentName, EventKind, Exit, Probes, Request, Restart, RestartPolicy};
use toka_keeper::ProcessId;
use toka_logs::LogPlace;
use toka_prepare::objectives::{Check, resolve};
use toka_runtime::{AgentHandle, Command, Durable, EventSink, Hooks, Launch, Processes, Profile, Runtime};
use tokio::sync::oneshot;

/// A check with all that it needs of its own.
pub(crate) struct CheckRun {
    /// The check.
    pub(crate) check: Check,
    /// Unique for the keeper.
    pub(crate) id: ProcessId,
    /// Where its output goes.
    pub(crate) log: PathBuf,
}

/// The checks of one agent.
pub(crate) struct ObjectiveChecks<P> {
    /// Where the checks are run.
    pub(crate) runtime: Runtime<P>,
    /// How the agent itself is run.
    pub(crate) launch: Launch,
    /// Where programs with a relative path are looked for.
    pub(crate) working_dir: PathBuf,
    /// What is checked, in order.
    pub(crate) questions: Vec<CheckRun>,
    /// How the checks are ended.
    pub(crate) check_control: Arc<CheckControl>,
}

/// Ends checks when the agent is to stop.
#[derive(Debug, Default)]
pub(crate) struct CheckControl(Mutex<Watched>);

#[derive(Debug, Default)]
struct Watched {
    ended_by: Option<String>,
    current: Option<AgentHandle>,
}

impl CheckControl {
    /// Passes a request to stop or to kill on to the check that runs; none is begun any more.
    pub(crate) fn tell(&self, request: Request, by: &str) {
        let mut watched = self.lock();
        watched.ended_by.get_or_insert_with(|| by.to_owned());
        if let Some(current) = &watched.current {
            current.tell(request, by);
        }
    }

    /// Begins a check, unless they were ended before.
    fn begin(&self, make: impl FnOnce() -> AgentHandle) -> Option<()> {
        let mut watched = self.lock();
        if watched.ended_by.is_some() {
            return None;
        }
        let handle = make();
        handle.tell(Request::Start, "objective");
        watched.current = Some(handle);
        Some(())
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes what an agent's actor tells, and lets its good end pass only after the checks.
pub(crate) struct CheckingSink<P> {
    journal: Arc<dyn EventSink>,
    exam: Mutex<Option<ObjectiveChecks<P>>>,
}

impl<P: Processes> CheckingSink<P> {
    pub(crate) fn new(journal: Arc<dyn EventSink>, exam: ObjectiveChecks<P>) -> Self {
        Self { journal, exam: Mutex::new(Some(exam)) }
    }

    fn take_exam(&self) -> Option<ObjectiveChecks<P>> {
        self.exam.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<P: Processes> EventSink for CheckingSink<P> {
    fn emit(&self, agent: &AgentName, kind: EventKind) -> Durable {
        let ended_well = matches!(&kind, EventKind::AgentEnded { exit, .. } if exit.is_success());
        let Some(exam) = ended_well.then(|| self.take_exam()).flatten() else {
            return self.journal.emit(agent, kind);
        };
        let (kept, durable) = Durable::pair();
        let (journal, agent) = (Arc::clone(&self.journal), agent.clone());
        tokio::spawn(async move {
            exam.hold(&agent, &journal).await;
            let place = journal.emit(&agent, kind).await;
            // The actor waits for it, unless it is gone.
            let _ = kept.send(place);
        });
        durable
    }
}

impl<P: Processes> ObjectiveChecks<P> {
    /// Runs the checks one after the other, and tells the result of each that was begun.
    async fn hold(self, agent: &AgentName, journal: &Arc<dyn EventSink>) {
        for question in &self.questions {
            let Some(exit) = self.ask(question, journal).await else { return };
            let Check { index, description, .. } = &question.check;
            let (met, description) = (exit.is_success(), description.clone());
            // What follows from it waits for the agent's end, which comes later in the same journal.
            drop(journal.emit(agent, EventKind::ObjectiveChecked { index: *index, description, met, exit }));
        }
    }

    /// How one check ended; `None` when no more are to be begun.
    async fn ask(&self, question: &CheckRun, journal: &Arc<dyn EventSink>) -> Option<Exit> {
        let launch = match self.launch_of(question) {
            Ok(launch) => launch,
            Err(reason) => return Some(Exit::StartFailed { reason }),
        };
        let (ended, end) = oneshot::channel();
        let sink = Answer { journal: Arc::clone(journal), ended: Mutex::new(Some(ended)) };
        self.check_control.begin(|| self.runtime.reporting_to(Arc::new(sink)).add(launch))?;
        // An actor that is gone without a word has told why elsewhere.
        Some(end.await.unwrap_or(Exit::Unknown))
    }

    /// As the agent itself, but for the program and what only an agent has.
    fn launch_of(&self, question: &CheckRun) -> Result<Launch, String> {
        let Launch { profile, command } = &self.launch;
        let (program, argv) = resolve(&question.check.command, &self.working_dir, &command.env)
            .map_err(|error| error.to_string())?;
        let profile = Profile {
            id: question.id,
            probes: Probes::default(),
            watchdog: None,
            hooks: Hooks::default(),
            restart: Restart::with_policy(RestartPolicy::No),
            success: Vec::new(),
            timeout: Some(question.check.timeout),
            log: LogPlace::alone(question.log.clone()),
            tasks: Default::default(),
            awaited_lines: Vec::new(),
            port: None,
            ..profile.clone()
        };
        // Nobody would serve its port.
        let mut plan = Arc::clone(&command.plan);
        if plan.listen.is_some() {
            Arc::make_mut(&mut plan).listen = None;
        }
        let command = Command { program, argv, plan, terminal: None, ..command.clone() };
        Ok(Launch { profile, command })
    }
}

/// Takes what the actor of a check tells: of its life only the end counts.
struct Answer {
    journal: Arc<dyn EventSink>,
    ended: Mutex<Option<oneshot::Sender<Exit>>>,
}

impl EventSink for Answer {
    fn emit(&self, agent: &AgentName, kind: EventKind) -> Durable {
        match kind {
            EventKind::AgentEnded { exit, .. } => {
                let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).take();
                // Nobody waits any more when the whole run is being torn down.
                let _ = ended.map(|ended| ended.send(exit));
            }
            kind @ EventKind::Warning { .. } => return self.journal.emit(agent, kind),
            _ => {}
        }
        // Nothing was to be kept: dropping the sender says so.
        Durable::pair().1
    }
}
