//! Begins the session of a life of an agent, or goes on with it, and tells the model what is to be done.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use toka_core::agent_program::{Answers, prompt};
use toka_core::tool::ReadFile;
use toka_core::transcript::{Entry, EntryKind, SessionInfo};
use toka_core::{EventKind, Exit, FileCall, FileTool, SessionKey, SessionMode, SessionNews, SessionState};
use toka_gateway::Asker;
use toka_runtime::Attempt;
use toka_wire::ToolDefinition;
use tokio::sync::watch;

use super::calls::{Cut, started};
use super::{Driver, lock};
use crate::loops::Loops;
use crate::prompt::{Facts, INSTRUCTION_FILES, system, without_numbers};
use crate::shared::Shared;
use crate::steps::Steps;
use crate::tools::{McpServers, Processes, Tool, has, offered};
use crate::transcript::{Transcript, name_of};

impl<'a> Driver<'a> {
    /// Begins a session, or goes on with that of this life.
    pub(super) async fn begin(
        shared: &Arc<Shared>,
        attempt: &'a Attempt,
        steps: &'a Steps,
        paused: watch::Receiver<bool>,
    ) -> Result<Self, String> {
        let asker = shared.config.models.open(&attempt.agent, Arc::clone(&attempt.sink))?;
        let (_, model) = asker.first()?;
        let servers = McpServers::start(&attempt.commands, &shared.config.mcp).await?;
        let rules = &shared.config.rules;
        let mut tools = offered(rules);
        tools.extend(servers.tools().filter(|tool| has(rules, tool)).cloned());
        let definitions = tools.iter().map(Tool::definition).collect();
        let (key, is_known) = session_of(shared, attempt).await?;
        let path = shared.config.folder.path(&key);
        let (transcript, entries) = match is_known {
            true => open(path, attempt).await?,
            false => create(shared, attempt, steps, &key, (&tools, &asker)).await?,
        };
        let processes = Processes::after(started(&entries));
        let mut driver = Self {
            shared: Arc::clone(shared),
            attempt,
            steps,
            paused,
            interrupts: shared.interrupts.subscribe(),
            asker: Arc::new(asker),
            tools,
            definitions,
            key: key.clone(),
            transcript: Arc::new(Mutex::new(transcript)),
            entries,
            state: SessionState::Idle,
            loops: Loops::default(),
            processes,
            servers,
            nudges: 0,
        };
        if !is_known || attempt.goes_on {
            driver.emit(EventKind::SessionStarted { session: key, model, resumed: is_known });
        }
        driver.shared.tell(SessionNews::Session { session: driver.key.clone() });
        driver.begin_task().await?;
        Ok(driver)
    }

    /// Which task it is, and of how many: what a person says afterwards is none.
    pub(super) fn place_of_task(&self, (place, total): (usize, usize)) -> (usize, usize) {
        (place, total - usize::from(self.shared.config.talks && total > 1))
    }

    /// How this attempt has ended, where an earlier daemon has put that on record and could not tell it.
    pub(super) fn ended_before(&self) -> Option<Exit> {
        let (task, number) = (self.attempt.task.index, self.attempt.number);
        let last = self.entries.iter().rev().find_map(|entry| match &entry.kind {
            EntryKind::Task { .. } => Some(None),
            EntryKind::Ended { index, attempt, exit } => {
                Some(Some(exit.clone()).filter(|_| (*index, *attempt) == (task, number)))
            }
            _ => None,
        });
        last.flatten().filter(|_| self.attempt.goes_on)
    }

    /// Tells the model what is to be done, unless it is at that already.
    pub(super) async fn begin_task(&mut self) -> Result<(), String> {
        let Attempt { task, number, place, .. } = self.attempt;
        let under_way = self.entries.iter().rev().find_map(|entry| match &entry.kind {
            EntryKind::Task { index, attempt, .. } => Some((*index, *attempt) == (task.index, *number)),
            EntryKind::Ended { .. } => Some(false),
            _ => None,
        });
        if self.attempt.goes_on && (under_way == Some(true) || self.ended_before().is_some()) {
            return Ok(());
        }
        // What is left of an attempt that nobody saw end is not done in this one.
        self.close_calls(Cut::EndBefore).await?;
        let last = self.entries.iter().rev().find_map(|entry| match &entry.kind {
            EntryKind::Ended { index, exit, .. } if *index == task.index => Some(exit.to_string()),
            EntryKind::Task { index, attempt, .. } if (*index, *attempt + 1) == (task.index, *number) => {
                Some("nobody saw how".to_owned())
            }
            _ => None,
        });
        let is_first = !self.entries.iter().any(|entry| matches!(entry.kind, EntryKind::Task { .. }));
        let why = last.filter(|_| *number > 1);
        let text = match task.talk {
            true => String::new(),
            false => prompt(
                "",
                self.place_of_task(*place),
                &task.description,
                why.as_deref(),
                !is_first,
                Answers::ATool,
            ),
        };
        let text = self.asker.masked(text);
        self.add(vec![EntryKind::Task { index: task.index, attempt: *number, text }], true).await
    }
}

/// The session of this life, and whether it is there already.
async fn session_of(shared: &Shared, attempt: &Attempt) -> Result<(SessionKey, bool), String> {
    let pid = attempt.pid;
    // Where tasks come first, what a person says after them belongs to the same session.
    let mode =
        if attempt.task.talk && attempt.place == (1, 1) { SessionMode::Chat } else { SessionMode::Task };
    let known = lock(&shared.session).clone();
    if let Some((_, key)) = known.filter(|(of, _)| *of == pid) {
        return Ok((key, true));
    }
    let (folder, agent, run) = (shared.config.folder.clone(), attempt.agent.clone(), shared.config.run);
    let find = move || {
        // A life that was begun under an earlier daemon may have its session already.
        let is_of_life = |info: &SessionInfo| (info.run, info.pid) == (Some(run), Some(pid));
        if let Some(key) = folder.last_that(&agent, mode, is_of_life)? {
            return Ok((key, true));
        }
        folder.next(&agent, mode).map(|key| (key, false))
    };
    let found = tokio::task::spawn_blocking(find).await.map_err(|error| error.to_string())?;
    let (key, is_known) = found.map_err(|error: std::io::Error| {
        format!("read the folder of sessions {}: {error}", shared.config.folder.folder().display())
    })?;
    *lock(&shared.session) = Some((pid, key.clone()));
    Ok((key, is_known))
}

/// Goes on with a transcript.
async fn open(path: PathBuf, attempt: &Attempt) -> Result<(Transcript, Vec<Entry>), String> {
    let shown = path.display().to_string();
    let opened = tokio::task::spawn_blocking(move || Transcript::open(&path)).await;
    let (transcript, read) =
        opened.map_err(|error| error.to_string())?.map_err(|error| toka_core::error::with_causes(&error))?;
    if read.torn > 0 {
        let message = format!("the last {} bytes of {shown} were torn, and are cut off", read.torn);
        drop(attempt.sink.emit(&attempt.agent, EventKind::Warning { message }));
    }
    Ok((transcript, read.entries))
}

/// Begins a transcript, with what a model is told before anything else.
async fn create(
    shared: &Shared,
    attempt: &Attempt,
    steps: &Steps,
    key: &SessionKey,
    (tools, asker): (&[Tool], &Asker),
) -> Result<(Transcript, Vec<Entry>), String> {
    let names: Vec<String> = tools.iter().map(|tool| tool.name.to_string()).collect();
    let instructions = instructions(steps).await;
    let facts = Facts {
        agent: attempt.agent.as_str(),
        talks: attempt.task.talk,
        domain: &shared.config.domain,
        about: &shared.config.about,
        places: &shared.config.places,
        tools: &names,
        instructions: instructions.as_ref().map(|(file, text)| (*file, text.as_str())),
    };
    // What stands in a file of the workspace may hold what nobody is to read.
    let system = asker.masked(system(&facts)?);
    let from = from(shared, attempt, key).await?;
    let told: Vec<ToolDefinition> = tools.iter().map(Tool::definition).collect();
    let told = serde_json::to_vec(&told).map_err(|error| format!("write the tools down: {error}"))?;
    let session = EntryKind::Session {
        version: 1,
        key: key.clone(),
        run: shared.config.run,
        pid: attempt.pid,
        from: None,
        system,
        tools: names,
        definitions: Some(name_of(&told)),
    };
    let (folder, key) = (shared.config.folder.clone(), key.clone());
    let begin = move || {
        let (transcript, entries) = match from {
            Some(from) => folder.fork((&from, None), &key, session)?,
            None => {
                let mut transcript = Transcript::create(&folder.path(&key))?;
                let entries = transcript.append(vec![session], false)?;
                (transcript, entries)
            }
        };
        transcript.keep(&told)?;
        Ok((transcript, entries))
    };
    let begun = tokio::task::spawn_blocking(begin).await.map_err(|error| error.to_string())?;
    begun.map_err(|error: crate::TranscriptError| toka_core::error::with_causes(&error))
}

/// The session with which one begins that a person talks to: that of the life before this one, or the one that they have named.
async fn from(shared: &Shared, attempt: &Attempt, key: &SessionKey) -> Result<Option<SessionKey>, String> {
    if key.mode != SessionMode::Chat {
        return Ok(None);
    }
    let (folder, agent, run) = (shared.config.folder.clone(), attempt.agent.clone(), shared.config.run);
    let resume = shared.config.resume.clone();
    let find = move || {
        let is_of_run = |info: &SessionInfo| info.run == Some(run);
        Ok(folder.last_that(&agent, SessionMode::Chat, is_of_run)?.or(resume))
    };
    let found = tokio::task::spawn_blocking(find).await.map_err(|error| error.to_string())?;
    found.map_err(|error: std::io::Error| format!("read the folder of sessions: {error}"))
}

/// What is asked of everybody who works in the agent's folder: read in its sandbox, as it could read it itself.
async fn instructions(steps: &Steps) -> Option<(&'static str, String)> {
    for file in INSTRUCTION_FILES {
        let tool = FileTool::Read(ReadFile { path: file.to_owned(), offset: None, limit: None });
        let outcome = steps.call(FileCall { id: format!("instructions:{file}"), tool }).await?;
        if !outcome.is_error {
            return Some((file, without_numbers(&outcome.text)));
        }
    }
    None
}
