//! `toka audit`: the acts of a project, from its journal, and whether the journal is as it was written.

use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use serde_json::json;
use toka_core::audit::{self, Act, ActKind};
use toka_core::{Event, ExitCode, ProjectName};
use toka_project::history::{self, Broken, Head, Verified};

use super::events::unreadable;
use super::folders::Place;
use super::logs::moment;
use super::runs::{Known, Runs};
use toka_prepare::folders::ProjectFolders;
use toka_terminal::failure::Failure;
use toka_terminal::palette::Palette;
use toka_terminal::plain::in_words;
use toka_terminal::text::{moment as shown_moment, safe};
use toka_terminal::{json, out};

/// How long until the journal is looked at again with --follow.
const LOOK: Duration = Duration::from_millis(250);
/// Broken rows that are told one by one.
const TOLD: usize = 20;

/// Options of `toka audit`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The record is the journal: each row has a hash over itself and over the row before it. Whoever can write the file could compute all of \
    them anew; keep the head that --verify prints elsewhere, and give it to --head later."
)]
pub(crate) struct Args {
    #[command(flatten)]
    place: Place,
    /// Only acts of this type, such as approval.answered, or of all that begin so, such as model; may be given several times
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',', value_parser = a_type)]
    types: Vec<String>,
    /// Only those of this session, such as agent:reviewer:6fb8ace015f2
    #[arg(long, value_name = "SESSION")]
    session: Option<String>,
    /// Only those of this user, by number
    #[arg(long, value_name = "UID")]
    user: Option<u32>,
    /// Only those since this time, such as 10m or 09:30
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<i64>,
    /// Which run: its id, in full or the short form; or -1 for the one before the last, -2, …; or last
    #[arg(long, value_name = "ID", default_value = "all", allow_negative_numbers = true)]
    run: Runs,
    /// Look whether every row is as it was written and none is missing
    #[arg(long, conflicts_with_all = ["types", "session", "user", "since", "run", "follow"])]
    verify: bool,
    /// With --verify: a head that was printed before, and that must still be there
    #[arg(long, value_name = "HEAD", requires = "verify")]
    head: Option<Head>,
    /// Go on with what happens from now on, until Ctrl-C
    #[arg(long, short)]
    follow: bool,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

fn since(text: &str) -> Result<i64, String> {
    Ok(moment::parse(text)?.as_millis())
}

/// A type of acts, or the first part of some.
fn a_type(text: &str) -> Result<String, String> {
    if ActKind::NAMES.iter().any(|name| audit::is_of_type(name, text)) {
        return Ok(text.to_owned());
    }
    Err(format!("no act has this type; there are {}", ActKind::NAMES.join(", ")))
}

/// Prints the acts, or what is wrong with the journal.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let folders = args.place.folders()?;
    let runs = history::runs(&folders.state_dir, &folders.project)
        .map_err(|error| unreadable(&folders.project, &error))?;
    if runs.is_empty() && !args.follow {
        let message =
            format!("{} has no journal: nothing of it has run yet, or it was removed", folders.project);
        return Err(Failure::new(ExitCode::Usage, message).help("--project names another").into());
    }
    if args.verify {
        return args.verify(&folders);
    }
    let known: Known = runs.iter().map(|run| (run.id, Some(run.started_ms))).collect();
    let chosen = args.run.choose(&known, "acts")?;
    let owner = owner(&folders);
    let palette = Palette::for_stream(&std::io::stdout());
    let (mut last, mut has_header) = (0, args.json);
    loop {
        let events = history::events((&folders.state_dir, &folders.project), chosen, last, &[])
            .map_err(|error| unreadable(&folders.project, &error))?;
        last = events.last().map_or(last, |event| event.seq);
        let mut lines: String = events.iter().filter_map(|event| args.line(event, owner, palette)).collect();
        if !lines.is_empty() && !has_header {
            lines.insert_str(0, &header(events[0].time_ms, palette));
            has_header = true;
        }
        if !args.follow {
            return Ok(out::end(&lines, ExitCode::Success)?);
        }
        if let Err(error) = out::part(&lines) {
            return Ok(out::settle(Err(error), ExitCode::Success)?);
        }
        // Whoever only reads a file is told by nobody that there is more in it.
        std::thread::sleep(LOOK);
    }
}

impl Args {
    fn line(&self, event: &Event, owner: u32, palette: Palette) -> Option<String> {
        let act = audit::act(event)?;
        let is_of = |wanted: &String| audit::is_of_type(act.kind.as_str(), wanted);
        let user = act.uid.unwrap_or(owner);
        let session = audit::session(event);
        let is_wanted = (self.types.is_empty() || self.types.iter().any(is_of))
            && self.session.as_ref().is_none_or(|wanted| session.as_ref() == Some(wanted))
            && self.user.is_none_or(|wanted| wanted == user)
            && self.since.is_none_or(|since| event.time_ms >= since);
        is_wanted.then(|| match self.json {
            true => json::line(&envelope(event, &act, session.as_deref(), user)) + "\n",
            false => text(event, &act, user, palette),
        })
    }

    fn verify(&self, folders: &ProjectFolders) -> anyhow::Result<ExitCode> {
        let project = &folders.project;
        let found = history::verify(&folders.state_dir, project, self.head)
            .map_err(|error| unreadable(project, &error))?;
        let code = if found.broken.is_empty() { ExitCode::Success } else { ExitCode::AgentFailed };
        let text = match self.json {
            true => json::line(&verdict(project, &found)) + "\n",
            false => in_sentences(project, &found, Palette::for_stream(&std::io::stdout())),
        };
        Ok(out::end(&text, code)?)
    }
}

/// Whose journal it is: acts that name nobody are theirs.
fn owner(folders: &ProjectFolders) -> u32 {
    std::fs::metadata(folders.root()).map_or_else(|_| nix::unistd::getuid().as_raw(), |root| root.uid())
}

fn envelope(event: &Event, act: &Act, session: Option<&str>, user: u32) -> serde_json::Value {
    let time = jiff::Timestamp::from_millisecond(event.time_ms).unwrap_or_default();
    json!({
        "type": act.kind.as_str(), "sessionId": session, "timestamp": time.to_string(), "userId": user.to_string(), "status": act.status,
        "context": act.context, "seq": event.seq, "project": event.project, "run": event.run,
    })
}

/// The names of the columns of [`text`]; a time is as wide as that of `time_ms`, by the zone of the host.
fn header(time_ms: i64, palette: Palette) -> String {
    let width = shown_moment(time_ms).len();
    let names = format!("{:>6}  {:<width$}  {:>5}  {:<18} {}", "seq", "time", "user", "type", "what");
    palette.faint.paint(names) + "\n"
}

fn text(event: &Event, act: &Act, user: u32, palette: Palette) -> String {
    let who = event.agent.as_ref().map(|agent| format!("{}: ", palette.accent.paint(agent)));
    let (words, is_bad) = in_words(&event.kind);
    let paint = if is_bad { palette.warn } else { toka_terminal::palette::Paint::NONE };
    let stamp = palette.faint.paint(format!("{:>6}  {}  {user:>5}", event.seq, shown_moment(event.time_ms)));
    format!("{stamp}  {:<18} {}{}\n", act.kind.as_str(), who.unwrap_or_default(), paint.paint(words))
}

fn verdict(project: &ProjectName, found: &Verified) -> serde_json::Value {
    let broken: Vec<_> = found
        .broken
        .iter()
        .map(|broken| json!({"what": what(broken), "message": broken.to_string()}))
        .collect();
    json!({
        "project": project, "ok": found.broken.is_empty(), "rows": found.rows, "removed_up_to": found.removed,
        "without_hash": found.without_link, "lost": found.lost, "head": found.head.map(|head| head.to_string()), "broken": broken,
    })
}

fn what(broken: &Broken) -> &'static str {
    match broken {
        Broken::Changed { .. } => "changed",
        Broken::Missing { .. } => "missing",
        Broken::NotHead { .. } => "not_head",
    }
}

fn in_sentences(project: &ProjectName, found: &Verified, palette: Palette) -> String {
    let mut lines = Vec::new();
    let rows = |count: u64| if count == 1 { "1 event".to_owned() } else { format!("{count} events") };
    match found.broken.len() {
        0 => lines.push(palette.good.paint(format!(
            "the journal of {project} is as it was written: {}",
            rows(found.rows - found.without_link)
        ))),
        _ => lines.push(palette.bad.paint(format!("the journal of {project} is not as it was written"))),
    }
    lines.extend(found.broken.iter().take(TOLD).map(|broken| palette.bad.paint(safe(&broken.to_string()))));
    if found.broken.len() > TOLD {
        lines.push(palette.bad.paint(format!("… and {} more", found.broken.len() - TOLD)));
    }
    if found.without_link > 0 {
        lines
            .push(format!("{} before them are from a version that made no hashes", rows(found.without_link)));
    }
    if found.removed > 0 {
        lines.push(format!(
            "events up to {} are gone: they were too old, or are in an earlier file",
            found.removed
        ));
    }
    for (from, to) in &found.lost {
        lines.push(format!("events {from} to {to} were never written: the disk was full"));
    }
    if let Some(head) = found.head {
        lines.push(format!("head {head}"));
    }
    lines.into_iter().map(|line| line + "\n").collect()
}
