//! `toka serve`: the daemon that outlives terminals.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;
use toka_api::socket::daemon_socket;
use toka_core::{ExitCode, Urgency};
use toka_daemon::{EndRequest, Ended, Service, ServiceOptions};
use tokio::sync::mpsc;

use super::apply::{self, Daemon};
use super::folders::Folders;
use super::manager::{self, Manager};
use super::reach::block_on;
use super::signals::Signals;
use toka_terminal::failure::Failure;
use toka_terminal::out;

/// Options of `toka serve`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "SIGTERM and SIGINT stop every agent gracefully and end the daemon; a second one kills. The next daemon goes on \
    with what ran, by the restart policies; `toka down` ends it.\n\
    Under systemd it is a service of Type=notify and takes its socket from a .socket unit if there is one."
)]
pub(crate) struct Args {
    /// Keep state, run files and sockets below this folder [env: TOKA_STATE_DIR]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Serve in the background, unless a daemon serves already
    #[arg(long, short)]
    detach: bool,
}

/// Serves until it is asked to end.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let folders = Folders::find(args.state_dir.as_deref())?;
    let options = ServiceOptions {
        state_dir: folders.state,
        run_dir: folders.run,
        toka_exe: std::env::current_exe().context("cannot find this program's own file")?,
    };
    if args.detach {
        let told = match block_on(apply::start_service(&options.state_dir, &options.run_dir))? {
            Daemon::Served => "a daemon serves already\n",
            Daemon::Started => "a daemon serves\n",
        };
        return Ok(out::end(told, ExitCode::Success)?);
    }
    block_on(serve(options))?;
    Ok(ExitCode::Success)
}

async fn serve(options: ServiceOptions) -> anyhow::Result<()> {
    let mut signals = Signals::catch().context("cannot catch signals")?;
    let manager = Manager::of_this_process();
    let socket = daemon_socket(&options.run_dir);
    let listener = manager::inherited_socket().context("cannot use the socket that was passed on")?;
    let mut service = Service::start(options, listener).map_err(|error| {
        let message = format!("cannot listen at {}: {error}", socket.display());
        match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                Failure::new(ExitCode::StateFolder, "a daemon serves here already")
                    .help("`toka ps` shows what runs in it; `toka down --all` ends it")
            }
            _ => Failure::new(ExitCode::StateFolder, message),
        }
    })?;
    service.adopt().await;
    let (sender, ends) = mpsc::unbounded_channel();
    manager.tell("READY=1\nSTATUS=serving");
    tracing::info!(socket = %socket.display(), "serving");
    let alive = tokio::spawn(manager.clone().keep_alive());
    let work = service.run(ends);
    tokio::pin!(work);
    let mut urgency = Urgency::Graceful;
    let ended = loop {
        tokio::select! {
            ended = &mut work => break ended,
            signal = signals.next() => {
                manager.tell("STOPPING=1\nSTATUS=stopping the agents");
                // A service that is gone has ended.
                let _ = sender.send(EndRequest { urgency, by: signal.as_str().to_owned() });
                urgency = Urgency::Kill;
            }
        }
    };
    alive.abort();
    let Ended::MakesRoom { program } = ended else { return Ok(()) };
    manager.tell("RELOADING=1\nSTATUS=becoming the program that is installed now");
    // Here and not later: when the runs are dropped, they remove what their agents need.
    let error = Command::new(&program).args(std::env::args_os().skip(1)).exec();
    tracing::error!(program = %program.display(), %error, "not executed; the agents run on");
    // The next daemon finds them: nothing may be tidied up.
    std::process::exit(i32::from(ExitCode::Internal as u8))
}
