//! The daemon that outlives terminals: any number of projects, each driven by a task of its own, begun and ended over the
//! control socket.

use std::io;
use std::path::PathBuf;

use toka_core::{Command, ProjectName, Urgency};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::control::{Control, Projects, Role, ServiceOrder};
use crate::project::{Opened, Project};
use crate::{Declaration, Lifetime, RunError, RunOptions, RunSummary};

/// Orders that wait for the service: each is answered before the next is taken.
const ORDERS: usize = 64;

/// What a service is made from.
#[derive(Debug, Clone)]
pub struct ServiceOptions {
    /// Where state is kept; made when it is not there.
    pub state_dir: PathBuf,
    /// Where sockets and secrets are; made when it is not there.
    pub run_dir: PathBuf,
    /// The `toka` binary: it is re-entered as the keeper and as the runner.
    pub toka_exe: PathBuf,
}

/// The daemon.
#[derive(Debug)]
pub struct Service {
    options: ServiceOptions,
    projects: Projects,
    orders: mpsc::Receiver<ServiceOrder>,
    runs: JoinSet<(ProjectName, RunSummary)>,
    ending: bool,
    _control: Control,
}

/// What can wake it.
enum Wake {
    Order(ServiceOrder),
    Ended(ProjectName, RunSummary),
    Asked(Urgency, String),
}

/// Somebody asks the service to end, other than over its socket: a signal.
#[derive(Debug)]
pub struct EndRequest {
    /// How.
    pub urgency: Urgency,
    /// Who, for the record.
    pub by: String,
}

impl Service {
    /// Answers at the service's socket in the run folder from now on, or at `listener`, which somebody else has made there.
    ///
    /// # Errors
    /// When another service answers there, or the socket cannot be made.
    pub fn start(
        options: ServiceOptions,
        listener: Option<std::os::unix::net::UnixListener>,
    ) -> io::Result<Self> {
        let (sender, orders) = mpsc::channel(ORDERS);
        let projects = Projects::default();
        let role = Role::Service(sender);
        let path = crate::control::daemon_socket(&options.run_dir);
        let folders = vec![options.state_dir.clone(), options.run_dir.clone()];
        let control = match listener {
            None => Control::listen(&path, projects.clone(), role, folders)?,
            Some(listener) => {
                listener.set_nonblocking(true)?;
                let listener = tokio::net::UnixListener::from_std(listener)?;
                Control::serve(listener, &path, projects.clone(), role, folders)
            }
        };
        Ok(Self { options, projects, orders, runs: JoinSet::new(), ending: false, _control: control })
    }

    /// Lives until it is asked to end and every project has.
    pub async fn run(mut self, mut ends: mpsc::UnboundedReceiver<EndRequest>) {
        while !(self.ending && self.runs.is_empty()) {
            let wake = tokio::select! {
                Some(end) = ends.recv() => Wake::Asked(end.urgency, end.by),
                Some(order) = self.orders.recv() => Wake::Order(order),
                Some(Ok((project, summary))) = self.runs.join_next() => Wake::Ended(project, summary),
            };
            match wake {
                Wake::Asked(urgency, by) => self.end(urgency, &by),
                Wake::Order(ServiceOrder::Shutdown(urgency)) => self.end(urgency, "operator"),
                Wake::Order(ServiceOrder::Open { project, declaration, answer }) => {
                    self.open(project, *declaration, answer).await;
                }
                Wake::Ended(project, summary) => {
                    tracing::info!(%project, run = %summary.run, "the run has ended");
                    self.projects.remove(&project);
                }
            }
        }
    }

    fn end(&mut self, urgency: Urgency, by: &str) {
        self.ending = true;
        self.projects.all().iter().for_each(|project| project.tell(Command::Down { urgency }, by));
    }

    async fn open(
        &mut self,
        project: ProjectName,
        declaration: Declaration,
        answer: oneshot::Sender<Result<(), RunError>>,
    ) {
        if self.ending {
            return;
        }
        let outcome = self.begin(project, declaration).await;
        // Whoever asked may be gone; the project runs all the same.
        let _ = answer.send(outcome);
    }

    async fn begin(&mut self, project: ProjectName, declaration: Declaration) -> Result<(), RunError> {
        // It was parsed when it was taken.
        let Ok(parsed) = declaration.parse() else { return Err(RunError::Refused(Vec::new())) };
        let options = RunOptions {
            caller: declaration.caller(),
            declaration,
            set: parsed.set,
            plan: parsed.plan,
            project: project.clone(),
            state_dir: self.options.state_dir.clone(),
            run_dir: self.options.run_dir.clone(),
            lifetime: Lifetime::UntilStopped,
            toka_exe: self.options.toka_exe.clone(),
        };
        let Opened { project: run, handle } = Project::open(options, None).await?;
        self.projects.insert(handle);
        self.runs.spawn(async move { (project, run.drive().await) });
        Ok(())
    }
}
