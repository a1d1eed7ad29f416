//! An agent of the conversation's own: declared here, run in this process, ended with the conversation.

use std::io::IsTerminal as _;

use anyhow::Context as _;
use toka_api::caller::Caller;
use toka_api::client::Client;
use toka_api::socket::project_socket;
use toka_core::transcript::EntryKind;
use toka_core::{AgentName, Autonomy, Capability, Command, ExitCode, SessionKey, SessionMode, Urgency};
use toka_keeper::HostLook;
use toka_prepare::RunError;
use toka_prepare::folders::{ProjectFolders, sessions_in};
use toka_project::{Lifetime, Opened, Project, RunOptions, RunSummary};
use toka_runtime::turns::timed;
use toka_session::SessionFolder;
use toka_terminal::failure::Failure;
use tokio::sync::{mpsc, oneshot};

use super::conversation::{Conversation, With};
use super::{Args, model};
use crate::commands::declare::Declare;
use crate::commands::foreground::answer_others;
use crate::commands::policy::Grants;
use crate::commands::refusal;
use crate::commands::trust::Ask;
use crate::commands::workstreams::{Ready, Selection};

/// What the agent is called.
const NAME: &str = "assistant";
/// What stands in the place of the file that it does not have, in messages.
const FILE: &str = "(toka chat)";

/// Runs an agent of its own, and talks to it.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let host = HostLook::begin();
    let selection = Selection::of_model(args.model.as_deref().map(model));
    let folders = args.place.folders()?;
    let ready = Ready::of_text(&folders.workspace.join(FILE), text(args)?, &selection)?;
    let place = crate::commands::folders::Place {
        workdir: args.place.workdir.clone(),
        project: args.place.project.clone(),
        state_dir: args.place.state_dir.clone(),
    };
    // Whoever talks to an agent of their own has a model asked.
    let grants = Grants { allow: vec![Capability::ModelAccess], policy: None, trust: false };
    let declare = Declare::of(selection, place, grants);
    let mut declaration =
        declare.declaration(&ready, &folders, if args.json { Ask::Nobody } else { Ask::Person })?;
    declaration.resume =
        args.resume.as_ref().map(|wanted| resumed(wanted.as_deref(), &folders)).transpose()?;
    let folders = declare.taken()?;
    let options = RunOptions {
        declaration,
        set: ready.set,
        plan: ready.plan,
        caller: Caller::of_this_process(),
        project: folders.project.clone(),
        state_dir: folders.state_dir.clone(),
        run_dir: folders.run_dir.clone(),
        host,
        lifetime: Lifetime::UntilDone,
        toka_exe: std::env::current_exe().context("cannot find this program's own file")?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    let (outcome, talked) = runtime.block_on(attend(options, &folders, args))?;
    let summary = outcome.map_err(|error| refusal::failure(error.exit_code(), &error))?;
    match talked {
        Some(talked) => {
            let code = talked?;
            if std::io::stdout().is_terminal() && !args.json {
                eprintln!("`toka chat --continue` goes on with this conversation");
            }
            Ok(code)
        }
        // It ended before anything was said.
        None => Ok(summary.exit_code),
    }
}

/// What came of the run, and of the conversation if there was one.
type Over = (Result<RunSummary, RunError>, Option<anyhow::Result<ExitCode>>);

async fn attend(options: RunOptions, folders: &ProjectFolders, args: &Args) -> anyhow::Result<Over> {
    let run_dir = options.run_dir.clone();
    let (events, mut seen) = mpsc::unbounded_channel();
    // They are read from the control socket, as by everybody.
    let drained = tokio::spawn(async move { while seen.recv().await.is_some() {} });
    let Opened { project, handle } = match Project::open(options, Some(events)).await {
        Ok(opened) => opened,
        Err(error) => return Ok((Err(error), None)),
    };
    let _control = answer_others(&run_dir, &handle).context("nobody could talk to the agent")?;
    let overview = handle.overview();
    let with = With {
        client: Client::new(project_socket(&run_dir, &folders.project)),
        project: overview.project.clone(),
        run: overview.run,
        agent: name()?,
    };
    let (over, mut talked) = oneshot::channel();
    let (messages, is_json) = (args.message.clone(), args.json);
    // A terminal makes whoever writes to it wait: that must not be who looks after the agent.
    let talk = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let outcome = runtime.context("no runtime").and_then(|runtime| {
            runtime.block_on(async { Conversation::begin(with, messages, is_json).await?.run().await })
        });
        let _ = over.send(outcome);
    };
    std::thread::Builder::new().name("conversation".into()).spawn(talk).context("no thread")?;
    let work = timed(project.drive());
    tokio::pin!(work);
    let mut outcome = None;
    let summary = loop {
        tokio::select! {
            summary = &mut work => break summary,
            ended = &mut talked, if outcome.is_none() => {
                outcome = ended.ok();
                let urgency = Urgency::Graceful;
                handle.tell(Command::Down { urgency }, "the end of the conversation");
            }
        }
    };
    if outcome.is_none() {
        // It hears of the end at the control socket.
        outcome = talked.await.ok();
    }
    drained.await.context("the events were not read")?;
    Ok((Ok(summary), outcome))
}

fn name() -> anyhow::Result<AgentName> {
    AgentName::new(NAME).context("its name")
}

/// The agent, as a file would declare it.
fn text(args: &Args) -> anyhow::Result<String> {
    let model = match &args.script {
        Some(script) => {
            let script = script.canonicalize().map_err(|error| {
                Failure::new(ExitCode::Usage, format!("--script {}: {error}", script.display()))
            })?;
            serde_json::json!({ "script": script }).to_string()
        }
        None => "default".to_owned(),
    };
    let autonomy = args.autonomy.unwrap_or(Autonomy::Semi);
    let write = if args.read_only { "" } else { ", filesystem-write" };
    let tools = if args.read_only { "{deny: [write, edit, apply_patch]}" } else { "coding" };
    Ok(format!(
        "metadata: {{name: {NAME}}}\nspec:\n  domain: software\n  chat: true\n  model: {model}\n  autonomy: {autonomy}\n  tools: {tools}\n\
         security:\n  capabilities_required: [filesystem-read{write}, git]\n"
    ))
}

/// The session that is gone on with.
fn resumed(wanted: Option<&str>, folders: &ProjectFolders) -> Result<SessionKey, Failure> {
    let sessions = SessionFolder::new(sessions_in(&folders.root()));
    let unreadable = |error: std::io::Error| {
        Failure::new(ExitCode::StateFolder, format!("read the sessions of {}: {error}", folders.project))
    };
    let known = sessions.keys().map_err(unreadable)?;
    let found = match wanted {
        Some(text) => known.iter().find(|key| key.to_string() == text).cloned(),
        None => {
            let changed = |key: &&SessionKey| sessions.info(key).map_or(0, |info| info.changed_ms);
            let chats = known.iter().filter(|key| key.mode == SessionMode::Chat && has_words(&sessions, key));
            chats.max_by_key(changed).cloned()
        }
    };
    found.ok_or_else(|| {
        let message = match wanted {
            Some(text) => format!("the project {} has no session {text}", folders.project),
            None => format!("the project {} has no conversation to go on with", folders.project),
        };
        Failure::new(ExitCode::Usage, message).help("`toka sessions` lists what there is")
    })
}

/// Whether a person has said anything in it.
fn has_words(sessions: &SessionFolder, key: &SessionKey) -> bool {
    let entries = sessions.read(key).unwrap_or_default();
    entries.iter().any(|entry| matches!(entry.kind, EntryKind::Person { .. }))
}
