//! `toka exec --sandbox FILE -- COMMAND`: one command behind the walls that a workstream declares, with nothing around it:
//! no journal, no scheduling. It is how one looks at a sandbox from inside, and how the attack tests run.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use toka_core::event::{killed_for_memory, planted, uncovered};
use toka_core::select::select;
use toka_core::{AgentName, AgentPattern, Enforcement, ExitCode};
use toka_keeper::{
    HostLook, Keeper, KeeperEvent, KeeperOptions, Launch, ProcessId, SpawnError, Started, Status,
};
use toka_prepare::folders::group_name;
use toka_prepare::{Alone, AloneError};
use toka_runtime::Command;
use toka_runtime::program::ProgramError;
use toka_sandbox::AgentFolders;
use toka_workstream::{Agent, LoadOptions, Set, Severity, Style};
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::unexecuted::Unexecuted;
use crate::commands::folders::Place;
use crate::commands::policy::Grants;
use crate::commands::reach::AgentRef;
use crate::commands::refusal;
use toka_terminal::failure::{self, Failure};
use toka_terminal::out;
use toka_terminal::text::safe;

/// What of the options is about a sandbox of its own.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// A workstream whose `security` section confines the command, which then runs beside no agent
    #[arg(long, value_name = "FILE", required_unless_present = "agent", conflicts_with_all = ["tty", "no_tty", "interactive", "project"])]
    sandbox: Option<PathBuf>,
    /// The workspace [default: the current folder]
    #[arg(long, value_name = "DIR", requires = "sandbox")]
    workdir: Option<PathBuf>,
    #[command(flatten)]
    grants: Grants,
    /// Print what is enforced as one line of JSON on stderr when the command has ended
    #[arg(long, requires = "sandbox")]
    json: bool,
}

impl Options {
    /// The workstream, if there is to be a sandbox of its own.
    pub(super) fn sandbox(&self) -> Option<&Path> {
        self.sandbox.as_deref()
    }

    /// Whether something is granted, which only a sandbox of its own asks for.
    pub(super) fn grants_something(&self) -> bool {
        self.grants.trust || self.grants.policy.is_some() || !self.grants.allow.is_empty()
    }
}

/// What to run, and where.
pub(super) struct Own<'a> {
    pub(super) sandbox: &'a Path,
    /// Which of its agents is meant, where there are several.
    pub(super) agent: Option<&'a AgentRef>,
    pub(super) options: &'a Options,
    /// Where the command's folders are made; a temporary folder, removed afterwards, when none is given.
    pub(super) state_dir: Option<&'a Path>,
    pub(super) command: &'a [OsString],
}

/// Runs the command; its exit status is ours.
pub(super) fn run(own: &Own<'_>) -> anyhow::Result<ExitCode> {
    let status_of = |error: &anyhow::Error| {
        let found = error.downcast_ref::<ProgramError>().map(ProgramError::status);
        found.or_else(|| error.downcast_ref::<Unexecuted>().map(Unexecuted::status))
    };
    let status = execute(own).or_else(|error| match status_of(&error) {
        Some(status) => {
            failure::report(&error);
            Ok(status)
        }
        None => Err(error),
    })?;
    std::process::exit(status)
}

/// Runs the command to its end, and removes what was made for it.
fn execute(own: &Own<'_>) -> anyhow::Result<i32> {
    // It takes longer than to read the file, and needs nothing of it.
    let host = HostLook::begin();
    let agent = choose(load(own.sandbox)?, own)?;
    let place = Place {
        workdir: own.options.workdir.clone(),
        project: None,
        state_dir: own.state_dir.map(Path::to_owned),
    };
    let project = place.folders()?;
    let set = Set { agents: vec![agent], ..Set::default() };
    let policy = own.options.grants.granted(&project, &set)?.policy;
    let mut temporary = None;
    let root = match own.state_dir {
        Some(_) => project.state_dir.clone(),
        None => {
            let folder = tempfile::tempdir().context("make a temporary folder")?;
            temporary.insert(folder).path().canonicalize().context("resolve the temporary folder")?
        }
    };
    // Several commands may run in one folder at once, and each has its own secrets.
    let credentials = root.join(format!("credentials-{}", std::process::id()));
    let folders = AgentFolders {
        workspace: project.workspace.clone(),
        credentials: credentials.clone(),
        state_dir: project.state_dir.clone(),
        run_dir: project.run_dir.clone(),
        user_home: project.user_home.clone(),
        ..AgentFolders::below(&root)
    };
    let toka_exe = std::env::current_exe().context("find the toka binary")?;
    let [agent] = set.agents.as_slice() else { anyhow::bail!("there is one agent") };
    let leftovers = temporary.iter().map(|folder: &tempfile::TempDir| folder.path().to_owned());
    let options = KeeperOptions {
        program: "/proc/self/exe".into(),
        host: Some(host.clone()),
        // A number of its own: several commands may run in one folder at once.
        cgroup_name: format!("{}-{}", group_name(&root), std::process::id()),
        leftovers: leftovers.chain([credentials]).collect(),
        ..KeeperOptions::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let Ended { status, enforcement, written } = runtime.block_on(async {
        // The keeper begins while the walls are worked out.
        let furnished = async {
            let host = &*host.facts().await;
            let (policy, project, toka_exe) = (&policy, &project, &toka_exe);
            let alone = Alone { agent, policy, project, own: &folders, toka_exe, host };
            alone.furnish(own.command).map_err(refused)
        };
        let (keeper, furnished) = tokio::join!(biased; Keeper::start(&options), furnished);
        let (keeper, events) = keeper?;
        match furnished {
            Ok((command, warnings)) => {
                warnings.iter().for_each(|warning| eprintln!("warning: {}", safe(warning)));
                supervise((keeper, events), launch(command)).await
            }
            Err(error) => {
                keeper.shutdown().await;
                Err(error)
            }
        }
    })?;
    if own.options.json {
        writeln!(std::io::stderr(), "{}", serde_json::to_string(&enforcement)?)?;
    }
    Ok(match (status, out::settle(written, ExitCode::Success)) {
        (Status::Code(0), Err(unwritten)) => i32::from(failure::report(&unwritten.into()) as u8),
        (Status::Code(code), _) => code,
        (Status::Signal { signal, .. }, _) => 128 + signal,
        (Status::Unknown, _) => i32::from(ExitCode::Internal as u8),
    })
}

fn refused(error: AloneError) -> anyhow::Error {
    match error {
        AloneError::Program(error) => error.into(),
        AloneError::Refused(error) => refusal::failure(error.exit_code(), &error).into(),
    }
}

fn launch(command: Command) -> Launch {
    let Command { program, argv, env, plan, terminal } = command;
    Launch {
        id: ProcessId(1),
        program,
        argv,
        env,
        plan,
        beside: None,
        notification_fd: None,
        terminal,
        stop_signal: nix::libc::SIGTERM,
        grace: Duration::from_secs(2),
    }
}

fn load(file: &Path) -> anyhow::Result<Vec<Agent>> {
    let loaded = toka_workstream::load(&[file.to_owned()], &LoadOptions::default());
    let errors: Vec<_> =
        loaded.diagnostics.iter().filter(|d| d.severity == Severity::Error).cloned().collect();
    match loaded.set.map(|set| set.agents) {
        None => {
            eprint!("{}", loaded.sources.render(&errors, Style::Plain));
            Err(Failure::new(ExitCode::Invalid, format!("{}: the file has errors", file.display())).into())
        }
        Some(agents) => Ok(agents),
    }
}

/// The agent whose walls are meant: the one that was named, or the only one of the file.
fn choose(agents: Vec<Agent>, own: &Own<'_>) -> anyhow::Result<Agent> {
    let refusal = |why: String| {
        let known: BTreeSet<&str> = agents.iter().map(|agent| agent.declared_name().as_str()).collect();
        let help = format!("name one of them before the `--`: {}", Vec::from_iter(known).join(", "));
        Failure::new(ExitCode::Usage, format!("{}: {why}", own.sandbox.display())).help(help)
    };
    if own.agent.is_some_and(|agent| agent.project.is_some()) {
        return Err(refusal("an agent of a file has no project".to_owned()).into());
    }
    let meant: Vec<AgentPattern> = own.agent.iter().map(|meant| meant.agent.clone()).collect();
    let names = agents.iter().map(|agent| &agent.name);
    let selected = select(&meant, names).map_err(|unmatched| refusal(unmatched.to_string()))?;
    let mut chosen = agents.iter().filter(|agent| selected.contains(&agent.name));
    // Replicas have the same walls.
    let declared: BTreeSet<&AgentName> = chosen.clone().map(Agent::declared_name).collect();
    match (chosen.next(), declared.len()) {
        (Some(agent), 1) => Ok(agent.clone()),
        (_, count) => {
            Err(refusal(format!("a command has the walls of one agent, and {count} are meant")).into())
        }
    }
}

/// A command that is over.
struct Ended {
    status: Status,
    enforcement: Enforcement,
    /// Whether what it wrote to its stdout could be written to ours.
    written: std::io::Result<()>,
}

/// Starts the command, hands its output through, passes signals on, and waits until all of it is gone.
async fn supervise(
    (keeper, mut events): (Keeper, mpsc::UnboundedReceiver<KeeperEvent>),
    launch: Launch,
) -> anyhow::Result<Ended> {
    let id = launch.id;
    let Started { stdout, stderr, enforcement, .. } = match keeper.spawn(launch).await {
        Ok(started) => started,
        Err(error) => {
            keeper.shutdown().await;
            return Err(start_failure(error));
        }
    };
    let out = tokio::spawn(copy(stdout, std::io::stdout()));
    let err = tokio::spawn(copy(stderr, std::io::stderr()));
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut ended = None;
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(KeeperEvent::Exited { status, .. }) => ended = Some(status),
                Some(KeeperEvent::Notice { text, .. }) => eprintln!("toka: {text}"),
                Some(KeeperEvent::OomKilled { kills, .. }) => eprintln!("toka: {}", killed_for_memory(kills)),
                Some(KeeperEvent::Uncovered { path, outcome, .. }) => {
                    eprintln!("toka: {}", safe(&uncovered(&path, &outcome)));
                }
                Some(KeeperEvent::Planted { path, outcome, .. }) => {
                    eprintln!("toka: {}", safe(&planted(&path, &outcome)));
                }
                Some(KeeperEvent::Gone { .. }) => break,
                Some(KeeperEvent::Closed | KeeperEvent::Replaced | KeeperEvent::Succeeded { .. }) | None => anyhow::bail!("the keeper is gone"),
            },
            _ = interrupt.recv() => keeper.signal(id, nix::libc::SIGINT),
            _ = terminate.recv() => keeper.kill(id),
        }
    }
    let (out, err) = (out.await, err.await);
    // Nobody is left to be told when stderr itself cannot be written.
    let _ = err;
    keeper.shutdown().await;
    let status = ended.context("the keeper did not say how the command ended")?;
    Ok(Ended { status, enforcement, written: out.context("the output was not passed on")? })
}

fn start_failure(error: SpawnError) -> anyhow::Error {
    if let Some(unexecuted) = Unexecuted::of_start(&error) {
        return unexecuted.into();
    }
    let code = match &error {
        SpawnError::Prepare(toka_sandbox::PrepareError::Refused(_)) => ExitCode::Denied,
        _ => ExitCode::Internal,
    };
    Failure::new(code, format!("the command did not start: {error}")).into()
}

async fn copy(from: OwnedFd, mut to: impl std::io::Write) -> std::io::Result<()> {
    use tokio::io::AsyncReadExt as _;
    let mut pipe = pipe::Receiver::from_owned_fd(from)?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match pipe.read(&mut buffer).await? {
            0 => return Ok(()),
            count => {
                to.write_all(&buffer[..count])?;
                to.flush()?;
            }
        }
    }
}
