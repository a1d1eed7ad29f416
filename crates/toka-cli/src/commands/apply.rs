//! `toka apply`: a project that runs becomes what its files say now, or begins to run in the background. `toka run --detach`
//! is the same for a project that does not run yet.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use toka_api::client::{Applied, Client};
use toka_api::declaration::Declaration;
use toka_api::socket::{daemon_socket, project_socket};
use toka_api::wire::Changes;
use toka_core::{AgentName, ExitCode, Urgency};
use toka_prepare::folders::ProjectFolders;

use super::declare::Declare;
use super::reach::{block_on, failure};
use super::refusal;
use super::trust::Ask;
use super::workstreams::Tell;
use toka_terminal::failure::Failure;
use toka_terminal::palette::{Paint, Palette};
use toka_terminal::text::count;
use toka_terminal::{json, out};

/// How long a daemon that was started may take until it answers.
const START: Duration = Duration::from_secs(10);

/// How often it is started when it ends at once, and the pause before.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(100);

/// Options of `toka apply`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Agents whose declaration is as before go on undisturbed, as do those of which only the description, the \
    restart policy, the way to stop, the logs or the number of replicas is another. `worker` and `worker-1` are different agents: the first `replicas` \
    ends the one without. Where a file has an error, or an agent \
    cannot be started, nothing is changed."
)]
pub(crate) struct Args {
    #[command(flatten)]
    declare: Declare,
    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Applies the workstreams.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let ready = args.declare.selection.ready(&args.declare.only, Tell::Everything)?;
    let folders = args.declare.folders()?;
    let declaration =
        args.declare.declaration(&ready, &folders, if args.json { Ask::Nobody } else { Ask::Person })?;
    let asking = if args.dry_run { Asking::WhatIf } else { Asking::Earnestly };
    let folders = if args.dry_run { folders } else { args.declare.taken()? };
    let applied = block_on(async {
        match reachable(&folders, asking).await? {
            Some(service) => {
                let applied = apply(&service.client, &declaration, &folders, asking).await;
                service.settle(applied).await
            }
            None => {
                eprintln!("note: no daemon serves, so nobody was asked whether the agents can be started");
                let added = ready.set.agents.iter().map(|agent| agent.name.clone()).collect();
                Ok(Applied { changes: Changes { added, ..Changes::default() }, began: true })
            }
        }
    })?;
    if let (Asking::WhatIf, true, Some(error)) = (asking, applied.began, toka_project::obstacle(&folders)) {
        return Err(refusal::failure(error.exit_code(), &error).into());
    }
    print(&applied, &folders, asking, args.json)
}

/// Begins to run a project in the background.
///
/// # Errors
/// When it runs already, or cannot be started.
pub(crate) fn detach(
    declaration: &Declaration,
    folders: &ProjectFolders,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let applied = block_on(async {
        let service = service(folders).await?;
        let begun = begin(&service.client, declaration, folders).await;
        service.settle(begun).await
    })?;
    print(&applied, folders, Asking::Earnestly, json)
}

async fn begin(
    client: &Client,
    declaration: &Declaration,
    folders: &ProjectFolders,
) -> anyhow::Result<Applied> {
    let projects = client.daemon().await.map_err(failure)?.projects;
    if projects.contains(&folders.project) {
        let message = format!("the project {} runs already", folders.project);
        return Err(Failure::new(ExitCode::StateFolder, message)
            .help("`toka apply` makes it what the files say now")
            .into());
    }
    Ok(client.apply(&folders.project, declaration).await.map_err(failure)?)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asking {
    Earnestly,
    WhatIf,
}

/// Who runs the project or is to begin with it. Nobody is started for one who only asks.
async fn reachable(folders: &ProjectFolders, asking: Asking) -> anyhow::Result<Option<Service>> {
    let there = |client| Some(Service { client, daemon: Daemon::Served });
    let foreground = Client::new(project_socket(&folders.run_dir, &folders.project));
    if foreground.settled(Client::daemon).await.map_err(failure)?.is_some() {
        return Ok(there(foreground));
    }
    if asking == Asking::Earnestly {
        return Ok(Some(service(folders).await?));
    }
    let daemon = Client::new(daemon_socket(&folders.run_dir));
    Ok(daemon.settled(Client::daemon).await.map_err(failure)?.and_then(|_| there(daemon)))
}

async fn apply(
    client: &Client,
    declaration: &Declaration,
    folders: &ProjectFolders,
    asking: Asking,
) -> anyhow::Result<Applied> {
    let applied = match asking {
        Asking::Earnestly => client.apply(&folders.project, declaration).await,
        Asking::WhatIf => client.would_apply(&folders.project, declaration).await,
    };
    Ok(applied.map_err(failure)?)
}

/// A daemon, and since when it serves.
struct Service {
    client: Client,
    daemon: Daemon,
}

/// Whether a daemon served before this command asked for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Daemon {
    /// It did.
    Served,
    /// It was started.
    Started,
}

impl Service {
    /// Ends a daemon that was started for what it then refused.
    async fn settle<T>(&self, outcome: anyhow::Result<T>) -> anyhow::Result<T> {
        if outcome.is_err() && self.daemon == Daemon::Started {
            // Another command may have started a project in it by now; such a daemon goes on.
            let is_idle = self.client.daemon().await.is_ok_and(|daemon| daemon.projects.is_empty());
            if is_idle {
                let _ = self.client.shutdown(Urgency::Graceful).await;
            }
        }
        outcome
    }
}

/// The daemon, started when none serves.
async fn service(folders: &ProjectFolders) -> anyhow::Result<Service> {
    let daemon = start_service(&folders.state_dir, &folders.run_dir).await?;
    Ok(Service { client: Client::new(daemon_socket(&folders.run_dir)), daemon })
}

/// Starts a daemon unless one serves.
///
/// # Errors
/// When it does not begin to serve.
pub(crate) async fn start_service(state_dir: &Path, run_dir: &Path) -> anyhow::Result<Daemon> {
    let client = Client::new(daemon_socket(run_dir));
    if client.settled(Client::daemon).await.map_err(failure)?.is_some() {
        return Ok(Daemon::Served);
    }
    start_daemon(state_dir, run_dir, &client).await?;
    Ok(Daemon::Started)
}

/// Starts a daemon that has nothing to do with our terminal, and waits until it answers.
async fn start_daemon(state_dir: &Path, run_dir: &Path, client: &Client) -> anyhow::Result<()> {
    let log = state_dir.join("daemon.log");
    let mut child = spawn(state_dir, run_dir, &log)?;
    let (begun, mut tries) = (tokio::time::Instant::now(), 1);
    let deadline = begun + START;
    loop {
        if client.daemon().await.is_ok() {
            return Ok(());
        }
        let ended = child.try_wait().context("cannot wait for the daemon")?;
        // One that was killed a moment ago may still hold what the next one needs.
        if ended.is_some() && tries < TRIES {
            tries += 1;
            tokio::time::sleep(PAUSE).await;
            child = spawn(state_dir, run_dir, &log)?;
            continue;
        }
        if ended.is_some() || tokio::time::Instant::now() >= deadline {
            let what = if ended.is_some() { "ended at once" } else { "does not answer" };
            let message = format!("the daemon that was started {what}");
            let failure = Failure::new(ExitCode::NoDaemon, message);
            return Err(failure.help(format!("see {}", log.display())).into());
        }
        // There is nothing to wait for but the answer itself.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn spawn(state_dir: &Path, run_dir: &Path, log: &Path) -> anyhow::Result<std::process::Child> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    make_folder(state_dir)?;
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(log);
    let file = file.map_err(|error| {
        Failure::new(ExitCode::StateFolder, format!("cannot write {}: {error}", log.display()))
    })?;
    let mut command = Command::new(program);
    command.arg("serve").current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
    command.env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC").env_remove("LISTEN_PID");
    // Of the caller's process group it would get the terminal's Ctrl-C.
    command.process_group(0);
    if run_dir == state_dir.join("run") {
        command.arg("--state-dir").arg(state_dir);
    }
    command.spawn().context("cannot start a daemon")
}

fn make_folder(path: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| {
        Failure::new(ExitCode::StateFolder, format!("cannot make {}: {error}", path.display()))
    })
}

fn print(
    applied: &Applied,
    folders: &ProjectFolders,
    asking: Asking,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let palette = Palette::for_stream(&std::io::stdout());
    let text = match as_json {
        true => json::line(applied) + "\n",
        false => text(applied, folders.project.as_str(), asking, palette),
    };
    Ok(out::end(&text, ExitCode::Success)?)
}

fn text(applied: &Applied, project: &str, asking: Asking, palette: Palette) -> String {
    let Changes { added, by_hand, changed, adjusted, removed, unchanged, run, keys } = &applied.changes;
    let begins = |name: &AgentName| {
        let waits = format!("  waits for `toka start {name}`");
        let detail = if by_hand.contains(name) { waits } else { String::new() };
        format!("  {} {name}{}\n", palette.good.paint("+"), palette.faint.paint(detail))
    };
    let line = |sign: &str, paint: Paint, how: &str, name: &AgentName| {
        let detail = keys.get(name).map_or_else(String::new, |keys| format!("  {how}: {}", keys.join(", ")));
        format!("  {} {name}{}\n", paint.paint(sign), palette.faint.paint(detail))
    };
    let lines = |sign: &str, paint: Paint, how: &str, names: &[AgentName]| -> String {
        names.iter().map(|name| line(sign, paint, how, name)).collect()
    };
    let list = [
        added.iter().map(begins).collect(),
        lines("~", palette.warn, "restarts", changed),
        lines("=", palette.good, "goes on", adjusted),
        lines("-", palette.bad, "stops", removed),
        run.iter().map(|text| format!("  {} {text}\n", palette.good.paint("="))).collect(),
    ]
    .concat();
    let head = match (applied.began, asking, list.is_empty()) {
        (_, _, true) => format!("{project} is what the files say: {}", count(unchanged.len(), "agent")),
        (true, Asking::Earnestly, _) => format!("{project} runs"),
        (true, Asking::WhatIf, _) => format!("{project} would begin to run"),
        (false, Asking::Earnestly, _) => format!("{project} is changed"),
        (false, Asking::WhatIf, _) => format!("{project} would change"),
    };
    let rest = match unchanged.len() {
        0 => String::new(),
        _ if list.is_empty() => String::new(),
        kept => format!("  {}\n", palette.faint.paint(format!("{} as before", count(kept, "agent")))),
    };
    format!("{}\n{list}{rest}", palette.strong.paint(head))
}

#[cfg(test)]
mod tests {
    use toka_core::Name;

    use super::*;

    fn names(text: &str) -> Vec<AgentName> {
        text.split_whitespace().map(|name| Name::new(name).expect("a label")).collect()
    }

    #[test]
    fn what_changes_is_told_by_signs() {
        let changes = Changes {
            added: names("cache page"),
            by_hand: names("page"),
            changed: names("api"),
            adjusted: names("web"),
            removed: names("old worker"),
            unchanged: names("db job"),
            run: vec!["--fail-fast is on".to_owned()],
            keys: [("api", "spec.process"), ("web", "spec.restart"), ("worker", "spec.replicas")]
                .map(|(name, key)| (names(name).remove(0), vec![key.to_owned()]))
                .into(),
        };
        let applied = Applied { changes, began: false };
        assert_eq!(
            text(&applied, "shop", Asking::WhatIf, Palette::PLAIN),
            "shop would change\n  + cache\n  + page  waits for `toka start page`\n  ~ api  restarts: spec.process\n  = web  goes on: spec.restart\n  - old\n  - worker  stops: spec.replicas\n  = --fail-fast is on\n  \
             2 agents as before\n"
        );
        let nothing = Changes { unchanged: names("db"), ..Changes::default() };
        assert_eq!(
            text(&Applied { changes: nothing, began: false }, "shop", Asking::Earnestly, Palette::PLAIN),
            "shop is what the files say: 1 agent\n"
        );
    }
}
