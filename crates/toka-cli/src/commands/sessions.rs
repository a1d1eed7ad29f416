//! `toka sessions`: what models and tools have done together, from the transcripts of a project, whether or not it runs.

mod rerun;

use std::time::Duration;

use clap::Subcommand;
use toka_core::transcript::{Entry, EntryKind, NO_RUN, SessionInfo};
use toka_core::units::parse_duration;
use toka_core::{ExitCode, Name, RunId, SessionKey, SessionMode, SessionNews};
use toka_prepare::folders::sessions_in;
use toka_prepare::lock::is_held;
use toka_project::history;
use toka_session::{Replayed, SessionFolder, TranscriptError, replay};

use toka_wire::ToolDefinition;

use super::folders::Place;
use super::ps::now_ms;
use toka_terminal::chat::ChatView;
use toka_terminal::failure::Failure;
use toka_terminal::palette::Palette;
use toka_terminal::screen::columns;
use toka_terminal::table::PIPE_COLUMNS;
use toka_terminal::text::{count, safe};
use toka_terminal::{json, out, sessions as layout};

/// Options of `toka sessions`.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Without a command: list. A session is named as the list shows it, such as agent:builder:task:3; the name of an agent alone means its last one."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    list: List,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List the sessions of a project, the last first
    List(List),
    /// Show what was said and done in one
    Show {
        #[command(flatten)]
        one: One,
        /// Show what tools gave in full, also what the model was not shown
        #[arg(long)]
        full: bool,
        /// Only what came after this line, by its number
        #[arg(long, value_name = "NUMBER", default_value_t = 0)]
        after: u64,
    },
    /// Repeat one from its record, without a model and without a tool: is each request what it was, and each call made once?
    #[command(
        after_help = "Exit status: 0 as it was, 1 different, or another model did not come to its end; 65 the record cannot be read."
    )]
    Replay {
        #[command(flatten)]
        one: One,
        /// Ask this model what it would have done with the same results of tools, and put both beside each other; nothing is run
        #[arg(long, value_name = "NAME")]
        model: Option<String>,
    },
    /// Begin another with what was said in one; `toka chat --continue` goes on with it
    Fork {
        #[command(flatten)]
        one: One,
        /// Only what was said up to this line, by its number [default: all of it]
        #[arg(long, value_name = "NUMBER")]
        at: Option<u64>,
    },
    /// Remove one, with all that is kept of it
    Delete(One),
    /// Remove those that nobody has written to for so long
    Prune {
        /// How long, such as 30d
        #[arg(long, value_name = "TIME", value_parser = parse_duration)]
        older_than: Duration,
        #[command(flatten)]
        place: Place,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, clap::Args)]
struct List {
    #[command(flatten)]
    place: Place,
    /// Print one JSON array
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct One {
    /// The session, or the agent whose last one is meant
    #[arg(value_name = "SESSION")]
    session: String,
    #[command(flatten)]
    place: Place,
    /// Print JSON: of a session each line as an object of its own
    #[arg(long)]
    json: bool,
}

/// The sessions of a project, and whether a run may write to them.
struct Sessions {
    folder: SessionFolder,
    project: String,
    /// The run that goes on, if one does.
    runs: Option<RunId>,
}

impl Sessions {
    fn of(place: &Place) -> Result<Self, Failure> {
        let folders = place.folders()?;
        let runs = is_held(&folders.lock()).then(|| history::runs(&folders.state_dir, &folders.project).ok());
        let runs = runs.flatten().and_then(|runs| runs.first().map(|run| run.id));
        let folder = SessionFolder::new(sessions_in(&folders.root()));
        Ok(Self { folder, project: folders.project.to_string(), runs })
    }

    fn keys(&self) -> Result<Vec<SessionKey>, Failure> {
        let failed = |error| {
            Failure::new(ExitCode::StateFolder, format!("read the sessions of {}: {error}", self.project))
        };
        self.folder.keys().map_err(failed)
    }

    fn info(&self, key: &SessionKey) -> Result<SessionInfo, Failure> {
        self.folder.info(key).map_err(|error| Failure::new(ExitCode::Invalid, format!("read {key}: {error}")))
    }

    /// The session that a person means.
    fn find(&self, text: &str) -> Result<SessionKey, Failure> {
        let keys = self.keys()?;
        let found = match text.parse::<SessionKey>() {
            Ok(key) => keys.iter().find(|known| **known == key),
            Err(error) => {
                let agent = Name::new(text).map_err(|_| Failure::new(ExitCode::Usage, error.to_string()))?;
                let changed = |key: &&SessionKey| self.folder.info(key).map_or(0, |info| info.changed_ms);
                keys.iter().filter(|known| known.agent == agent).max_by_key(changed)
            }
        };
        found.cloned().ok_or_else(|| {
            let message = format!("the project {} has no session {text}", self.project);
            let last: Vec<String> = keys.iter().rev().take(5).map(ToString::to_string).collect();
            Failure::new(ExitCode::Usage, message).help(match last.is_empty() {
                true => "it has none at all: no model has worked on tasks of it".to_owned(),
                false => format!("the last ones are: {}", last.join(", ")),
            })
        })
    }

    /// Whether it is under way.
    fn is_open(&self, info: &SessionInfo) -> bool {
        self.is_of_run(info) && info.ended.is_none()
    }

    /// Whether a run goes on that may write to it: also when an attempt has ended, another may follow.
    fn is_of_run(&self, info: &SessionInfo) -> bool {
        self.runs.is_some() && info.run == self.runs
    }

    /// The lines of one, and the tools as its model was told of them.
    fn recorded(&self, key: &SessionKey) -> Result<(Vec<Entry>, Vec<ToolDefinition>), Failure> {
        let invalid = |why: String| Failure::new(ExitCode::Invalid, why);
        let entries =
            self.folder.read(key).map_err(|error| invalid(toka_core::error::with_causes(&error)))?;
        let tools = self.folder.tools(key, &entries);
        let tools = tools.map_err(|error| invalid(format!("read the tools of {key}: {error}")))?;
        Ok((entries, tools.unwrap_or_default()))
    }

    /// Repeats one from its record, and tells what it finds.
    fn replay(&self, key: &SessionKey, as_json: bool) -> anyhow::Result<ExitCode> {
        let invalid = |why: String| Failure::new(ExitCode::Invalid, why);
        let entries =
            self.folder.read(key).map_err(|error| invalid(toka_core::error::with_causes(&error)))?;
        let tools = self.folder.tools(key, &entries);
        let tools = tools.map_err(|error| invalid(format!("read the tools of {key}: {error}")))?;
        let replayed = replay(&entries, &tools.unwrap_or_default());
        let code = if replayed.difference.is_some() { ExitCode::AgentFailed } else { ExitCode::Success };
        let text = match as_json {
            true => json::line(&replayed) + "\n",
            false => {
                let palette = Palette::for_stream(&std::io::stdout());
                let mut view = ChatView::new(palette);
                let until = replayed.difference.as_ref().map_or(u64::MAX, |(line, _)| *line);
                let told = entries.iter().take_while(|entry| entry.id < until);
                let shown: String = told
                    .map(|entry| view.tell(&SessionNews::Entry { entry: Box::new(entry.clone()) }))
                    .collect();
                shown + &view.close() + &replayed_line(key, &replayed_words(&replayed), palette)
            }
        };
        Ok(out::end(&text, code)?)
    }

    /// Begins another with what was said in one.
    fn fork(&self, from: &SessionKey, at: Option<u64>) -> Result<SessionKey, Failure> {
        let unreadable =
            |error: TranscriptError| Failure::new(ExitCode::Invalid, toka_core::error::with_causes(&error));
        let entries = self.folder.read(from).map_err(unreadable)?;
        let (first, last) = (entries.first(), entries.last().map_or(0, |entry| entry.id));
        if let Some(at) = at.filter(|at| !(1..=last).contains(at)) {
            return Err(Failure::new(ExitCode::Usage, format!("{from} has no line {at}"))
                .help(format!("its lines are 1 to {last}: `toka sessions show {from}`")));
        }
        let Some(EntryKind::Session { system, tools, definitions, .. }) =
            first.map(|entry| entry.kind.clone())
        else {
            return Err(Failure::new(ExitCode::Invalid, format!("{from} does not begin as a session does")));
        };
        let failed = |error: std::io::Error| {
            Failure::new(ExitCode::StateFolder, format!("begin a session of {}: {error}", self.project))
        };
        let key = self.folder.next(&from.agent, SessionMode::Chat).map_err(failed)?;
        // It belongs to no run, and to no life of an agent.
        let (key_of, pid) = (key.clone(), 0);
        let head = EntryKind::Session {
            version: 1,
            key: key_of,
            run: NO_RUN,
            pid,
            from: None,
            system,
            tools,
            definitions,
        };
        self.folder.fork((from, at), &key, head).map_err(unreadable)?;
        Ok(key)
    }

    fn delete(&self, key: &SessionKey) -> Result<(), Failure> {
        self.folder
            .delete(key)
            .map_err(|error| Failure::new(ExitCode::StateFolder, format!("remove {key}: {error}")))
    }
}

/// Lists, shows or removes.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.what.unwrap_or(What::List(args.list)) {
        What::List(List { place, json: as_json }) => {
            let sessions = Sessions::of(&place)?;
            let infos =
                sessions.keys()?.iter().map(|key| sessions.info(key)).collect::<Result<Vec<_>, _>>()?;
            let mut infos = infos;
            infos.sort_by_key(|info| std::cmp::Reverse((info.changed_ms, info.key.number)));
            let palette = Palette::for_stream(&std::io::stdout());
            let text = match as_json {
                true => json::line(&infos) + "\n",
                false => {
                    let is_open = |info: &SessionInfo| sessions.is_open(info);
                    layout::list(&sessions.project, &infos, is_open, now_ms(), columns(PIPE_COLUMNS), palette)
                }
            };
            Ok(out::end(&text, ExitCode::Success)?)
        }
        What::Show { one: One { session, place, json: as_json }, full, after } => {
            let sessions = Sessions::of(&place)?;
            let key = sessions.find(&session)?;
            let entries = sessions
                .folder
                .read(&key)
                .map_err(|error| Failure::new(ExitCode::Invalid, toka_core::error::with_causes(&error)))?;
            let shown: Vec<_> = entries.into_iter().filter(|entry| entry.id > after).collect();
            let palette = Palette::for_stream(&std::io::stdout());
            let whole = |name: &str| sessions.folder.whole(&key, name).ok().filter(|_| full);
            let text = match as_json {
                true => shown.iter().map(|entry| json::line(entry) + "\n").collect(),
                false => layout::conversation(&shown, whole, full, palette),
            };
            Ok(out::end(&text, ExitCode::Success)?)
        }
        What::Replay { one: One { session, place, json: as_json }, model } => {
            let sessions = Sessions::of(&place)?;
            let key = sessions.find(&session)?;
            match model {
                None => sessions.replay(&key, as_json),
                Some(model) => {
                    let read = sessions.recorded(&key)?;
                    rerun::run(&place, &key, read, &model, as_json)
                }
            }
        }
        What::Fork { one: One { session, place, json: as_json }, at } => {
            let sessions = Sessions::of(&place)?;
            let key = sessions.find(&session)?;
            let forked = sessions.fork(&key, at)?;
            let text = match as_json {
                true => json::line(&serde_json::json!({"session": forked, "from": key})) + "\n",
                false => format!(
                    "{forked} begins with what was said in {key}; `toka chat --continue {forked}` goes on with it\n"
                ),
            };
            Ok(out::end(&text, ExitCode::Success)?)
        }
        What::Delete(One { session, place, json: as_json }) => {
            let sessions = Sessions::of(&place)?;
            let key = sessions.find(&session)?;
            if sessions.is_of_run(&sessions.info(&key)?) {
                let message = format!("{key} belongs to the run that goes on: nothing was removed");
                return Err(Failure::new(ExitCode::Usage, message).help("`toka down` ends the run").into());
            }
            sessions.delete(&key)?;
            Ok(out::end(&removed(&[key], as_json), ExitCode::Success)?)
        }
        What::Prune { older_than, place, json: as_json } => {
            let sessions = Sessions::of(&place)?;
            let before = now_ms().saturating_sub(i64::try_from(older_than.as_millis()).unwrap_or(i64::MAX));
            let mut gone = Vec::new();
            for key in sessions.keys()? {
                let info = sessions.info(&key)?;
                if info.changed_ms < before && !sessions.is_of_run(&info) {
                    sessions.delete(&key)?;
                    gone.push(key);
                }
            }
            Ok(out::end(&removed(&gone, as_json), ExitCode::Success)?)
        }
    }
}

fn replayed_line(key: &SessionKey, words: &Result<String, String>, palette: Palette) -> String {
    match words {
        Ok(words) => format!("{} {key} is repeated: {words}\n", palette.good.paint("✓")),
        Err(why) => format!("{} {key}: {}\n", palette.bad.paint("✗"), palette.bad.paint(safe(why))),
    }
}

/// What came of a repetition, in words: well, or what is different.
fn replayed_words(replayed: &Replayed) -> Result<String, String> {
    let Replayed { requests, untold, inherited, calls, difference } = replayed;
    if let Some((line, why)) = difference {
        return Err(format!("line {line} is not what it was: {why}"));
    }
    let mut words = format!("{}, {}: all as they were", count(*requests, "request"), count(*calls, "call"));
    if *inherited > 0 {
        words += &format!("; {} of the session that it goes on with", count(*inherited, "request"));
    }
    if *untold > 0 {
        words += &format!("; {} of an earlier version, which cannot be compared", count(*untold, "request"));
    }
    Ok(words)
}

fn removed(keys: &[SessionKey], as_json: bool) -> String {
    match (as_json, keys) {
        (true, keys) => json::line(&serde_json::json!({"removed": keys})) + "\n",
        (false, []) => "nothing was removed: no session is that old\n".to_owned(),
        (false, keys) => keys.iter().map(|key| format!("{key} is removed\n")).collect(),
    }
}
