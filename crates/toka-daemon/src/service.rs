//! The daemon that outlives terminals: any number of projects, each driven by a task of its own, begun and ended over the
//! control socket.

use std::collections::BTreeSet;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use toka_api::declaration::Declaration;
use toka_core::{Command, ProjectName, Urgency};
use toka_prepare::RunError;
use toka_runtime::turns::timed;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::control::{Control, Projects, Role, Server, ServiceOrder};
use toka_keeper::HostLook;
use toka_project::{AdoptOptions, Opened, Project, ProjectHandle};
use toka_project::{Lifetime, RunOptions, RunSummary};

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
    /// Until it runs.
    listener: Option<tokio::net::UnixListener>,
    /// The socket, if it is ours to remove.
    made: Option<PathBuf>,
    sender: mpsc::Sender<ServiceOrder>,
}

/// How a service has ended.
#[derive(Debug)]
pub enum Ended {
    /// Everything is stopped.
    Stopped,
    /// Its agents run on, and the caller is to become `program` at once: before the runtime ends, since runs that are
    /// dropped remove what their agents need.
    MakesRoom {
        /// The program.
        program: PathBuf,
    },
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
    /// Takes the service's socket in the run folder, or `listener`, which somebody else has made there. Whoever calls from
    /// now on is answered when it runs.
    ///
    /// # Errors
    /// When another service answers there, or the socket cannot be made.
    pub fn start(
        options: ServiceOptions,
        listener: Option<std::os::unix::net::UnixListener>,
    ) -> io::Result<Self> {
        let path = toka_api::socket::daemon_socket(&options.run_dir);
        let made = listener.is_none().then(|| path.clone());
        let listener = match listener {
            None => toka_api::socket::bind(&path)?,
            Some(listener) => {
                listener.set_nonblocking(true)?;
                tokio::net::UnixListener::from_std(listener)?
            }
        };
        let (sender, orders) = mpsc::channel(ORDERS);
        let (projects, runs) = (Projects::default(), JoinSet::new());
        Ok(Self { options, projects, listener: Some(listener), made, sender, orders, runs, ending: false })
    }

    /// Goes on with every run that an earlier daemon began here and did not end.
    pub async fn adopt(&mut self) {
        let waiting = toka_api::socket::orphaned(&self.options.run_dir);
        let lost = toka_project::unfinished(&self.options.state_dir);
        for project in waiting.into_iter().chain(lost).collect::<BTreeSet<_>>() {
            let options = AdoptOptions {
                project: project.clone(),
                state_dir: self.options.state_dir.clone(),
                run_dir: self.options.run_dir.clone(),
                toka_exe: self.options.toka_exe.clone(),
            };
            match Project::adopt(options).await {
                Ok(Some(opened)) => self.drive(project, opened),
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(%project, %error, "its agents run on, and nobody looks after them");
                }
            }
        }
    }

    fn drive(&mut self, project: ProjectName, Opened { project: run, handle }: Opened) {
        self.projects.insert(handle);
        self.runs.spawn(timed(async move { (project, run.drive().await) }));
    }

    /// Lives until it is asked to end and every project has, or to make room for another program.
    pub async fn run(mut self, mut ends: mpsc::UnboundedReceiver<EndRequest>) -> Ended {
        let role = Role::Service(self.sender.clone());
        let listener = self.listener.take();
        let folders = vec![self.options.state_dir.clone(), self.options.run_dir.clone()];
        let socket = toka_api::socket::daemon_socket(&self.options.run_dir);
        let server = Server::new(&socket, self.projects.clone(), role, folders);
        let _control = listener.map(|listener| Control::serve(listener, server).made_at(self.made.clone()));
        while !(self.ending && self.runs.is_empty()) {
            let wake = tokio::select! {
                Some(end) = ends.recv() => Wake::Asked(end.urgency, end.by),
                Some(order) = self.orders.recv() => Wake::Order(order),
                Some(Ok((project, summary))) = self.runs.join_next() => Wake::Ended(project, summary),
            };
            match wake {
                Wake::Asked(urgency, by) => self.end(|project| project.interrupt(urgency, &by)),
                Wake::Order(ServiceOrder::Shutdown(urgency)) => {
                    self.end(|project| project.tell(Command::Down { urgency }, "operator"));
                }
                Wake::Order(ServiceOrder::Upgrade { refused }) => match self.successor().await {
                    Ok(program) => {
                        toka_project::close_ports().await;
                        // The runs go on in the next program.
                        std::mem::forget(self);
                        return Ended::MakesRoom { program };
                    }
                    // Whoever asked may be gone.
                    Err(why) => drop(refused.send(why)),
                },
                Wake::Order(ServiceOrder::Open { project, declaration, answer }) => {
                    self.open(project, *declaration, answer).await;
                }
                Wake::Ended(project, summary) => {
                    tracing::info!(%project, run = %summary.run, "the run has ended");
                    self.projects.remove(&project);
                }
            }
        }
        Ended::Stopped
    }

    /// The program that is installed now, if it can be executed and says so.
    async fn successor(&self) -> Result<PathBuf, String> {
        if self.ending {
            return Err("the daemon is ending".to_owned());
        }
        let program = installed(&self.options.toka_exe);
        let tried = program.clone();
        let said = tokio::task::spawn_blocking(move || version_of(&tried, VERSION_WITHIN)).await;
        let said = said.unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
        let shown = program.display();
        match said {
            Ok(version) if version.starts_with("toka ") => Ok(program),
            Ok(_) => Err(format!("{shown} is no program of Toka's; the daemon goes on as it is")),
            Err(error) => Err(format!("cannot execute {shown}: {error}; the daemon goes on as it is")),
        }
    }

    /// Ends when every project has: each is asked so.
    fn end(&mut self, ask: impl Fn(&ProjectHandle)) {
        self.ending = true;
        self.projects.all().iter().for_each(ask);
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
            host: HostLook::begin(),
            toka_exe: self.options.toka_exe.clone(),
        };
        let opened = Project::open(options, None).await?;
        self.drive(project, opened);
        Ok(())
    }
}

/// How long a program may take to say its version: one of ours takes milliseconds.
const VERSION_WITHIN: Duration = Duration::from_secs(5);
/// Between two looks whether it has.
const VERSION_INTERVAL: Duration = Duration::from_millis(5);

/// What a program says when it is asked for its version; nothing when it fails. One that takes too long is killed.
fn version_of(program: &Path, within: Duration) -> io::Result<String> {
    let mut command = std::process::Command::new(program);
    let mut child = command.arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let deadline = Instant::now() + within;
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if Instant::now() < deadline => std::thread::sleep(VERSION_INTERVAL),
            None => {
                child.kill()?;
                child.wait()?;
                return Err(io::Error::new(io::ErrorKind::TimedOut, "it does not say its version"));
            }
        }
    };
    let (true, Some(stdout)) = (status.success(), child.stdout) else { return Ok(String::new()) };
    // What it may have started holds the pipe too: only what is there counts.
    fcntl(&stdout, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let (mut stdout, mut said) = (stdout, [0; 64]);
    let count = match stdout.read(&mut said) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
        read => read?,
    };
    Ok(String::from_utf8_lossy(&said[..count]).into_owned())
}

/// The file of our program as it is now: the kernel marks the path of one that was replaced (proc_pid_exe(5)).
fn installed(toka_exe: &Path) -> PathBuf {
    let text = toka_exe.to_string_lossy();
    text.strip_suffix(" (deleted)").map_or_else(|| toka_exe.to_owned(), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a script says as its version.
    fn said(script: &str, within: Duration) -> io::Result<String> {
        let folder = tempfile::tempdir().expect("a folder");
        let program = folder.path().join("program");
        // By a process of its own: what another test forks meanwhile must not hold the file open for writing.
        let text = format!("#!/bin/sh\n{script}\n");
        let writer = ["-c", "printf %s \"$1\" >\"$2\" && chmod 755 \"$2\"", "sh", &text];
        let wrote = std::process::Command::new("sh").args(writer).arg(&program).status().expect("a shell");
        assert!(wrote.success(), "a script");
        version_of(&program, within)
    }

    #[test]
    fn a_program_is_asked_for_its_version_and_not_waited_for_without_end() {
        let long = Duration::from_secs(60);
        assert_eq!(said("echo toka $1", long).expect("it says"), "toka --version\n");
        assert_eq!(said("echo toka; exit 1", long).expect("it ends"), "", "one that fails says nothing");
        assert_eq!(
            said("while [ -e \"$0\" ]; do sleep 0.01; done 2>/dev/null & exit 0", long).expect("it ends"),
            "",
            "its pipe is still held"
        );
        let slow = said("exec sleep 1000", Duration::from_millis(50)).expect_err("too slow");
        assert_eq!(slow.kind(), io::ErrorKind::TimedOut);
        assert!(version_of(Path::new("/nonexistent"), long).is_err());
    }
}
