//! `toka cost`: what calls of models came to, from the journal of a project, whether or not it runs.

use clap::ValueEnum;
use serde_json::json;
use toka_core::{Bill, Bills, Event, ExitCode, ModelName};
use toka_project::history;

use super::events::unreadable;
use super::folders::Place;
use super::logs::moment;
use super::runs::{Known, Runs};
use toka_terminal::bills::bills;
use toka_terminal::palette::Palette;
use toka_terminal::screen::columns;
use toka_terminal::table::PIPE_COLUMNS;
use toka_terminal::{json, out};

/// Options of `toka cost`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Prices are those of the providers on the day that `toka models` tells, or a person's own in toka.yaml. A model without a price is \
    unpriced, and a call that told no tokens is unknown: neither counts as nothing."
)]
pub(crate) struct Args {
    #[command(flatten)]
    place: Place,
    /// What the sums are for
    #[arg(long, value_enum, default_value_t = By::Agent)]
    by: By,
    /// Which run: its id, in full or the short form; or -1 for the one before the last, -2, …; or all
    #[arg(long, value_name = "ID", default_value = "last", allow_negative_numbers = true)]
    run: Runs,
    /// Only calls since this time, such as 10m or 09:30; of all runs, unless --run says otherwise
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<i64>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What calls are counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum By {
    // No doc comments: clap would make a paragraph of each in the help of every command.
    Agent,
    Model,
    Day,
    Run,
}

fn since(text: &str) -> Result<i64, String> {
    Ok(moment::parse(text)?.as_millis())
}

/// Prints the sums.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let folders = args.place.folders()?;
    let (state, project) = (&folders.state_dir, &folders.project);
    let runs = history::runs(state, project).map_err(|error| unreadable(project, &error))?;
    let known: Known = runs.iter().map(|run| (run.id, Some(run.started_ms))).collect();
    let wanted = match (&args.run, args.since) {
        (Runs::Last, Some(_)) => &Runs::All,
        (run, _) => run,
    };
    let chosen = wanted.choose(&known, "calls")?;
    let kinds = ["model_asked".to_owned(), "model_answered".to_owned()];
    let events =
        history::events((state, project), chosen, 0, &kinds).map_err(|error| unreadable(project, &error))?;
    let mut sums = Bills::default();
    for event in events.iter().filter(|event| args.since.is_none_or(|since| event.time_ms >= since)) {
        sums.observe(event, |event, model| key(args.by, event, model));
    }
    let total = sums.total();
    let rows: Vec<(String, Bill)> = sums.sums().iter().map(|(key, bill)| (key.clone(), *bill)).collect();
    let text = match (args.json, rows.is_empty()) {
        (true, _) => {
            let rows: Vec<_> = rows.iter().map(|(key, bill)| row(key, bill)).collect();
            json::line(&json!({
                "project": project, "run": chosen, "by": word(args.by), "sums": rows, "total": figures(&total),
            })) + "\n"
        }
        (false, true) => {
            format!("no model was asked in {project}{}\n", chosen.map_or("", |_| " in this run"))
        }
        (false, false) => {
            let began =
                |key: &String| runs.iter().find(|run| run.id.short() == *key).map(|run| run.started_ms);
            let rows: Vec<(String, Bill)> = match args.by {
                By::Run => rows.into_iter().map(|(key, bill)| (with_time(&key, began(&key)), bill)).collect(),
                By::Agent | By::Model | By::Day => rows,
            };
            let palette = Palette::for_stream(&std::io::stdout());
            bills(&word(args.by).to_uppercase(), &rows, &total, columns(PIPE_COLUMNS), palette)
        }
    };
    Ok(out::end(&text, ExitCode::Success)?)
}

fn word(by: By) -> &'static str {
    match by {
        By::Agent => "agent",
        By::Model => "model",
        By::Day => "day",
        By::Run => "run",
    }
}

fn key(by: By, event: &Event, model: &ModelName) -> String {
    match by {
        By::Agent => event.agent.as_ref().map_or_else(String::new, ToString::to_string),
        By::Model => model.to_string(),
        By::Day => day(event.time_ms),
        By::Run => event.run.short(),
    }
}

/// The day of a moment, where the reader is.
fn day(time_ms: i64) -> String {
    let moment = jiff::Timestamp::from_millisecond(time_ms).unwrap_or_default();
    moment.to_zoned(jiff::tz::TimeZone::system()).date().to_string()
}

/// A run, with the time at which it began, where the reader is.
fn with_time(run: &str, began_ms: Option<i64>) -> String {
    let Some(began) = began_ms.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()) else {
        return run.to_owned();
    };
    format!("{run}  {}", began.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M"))
}

fn row(key: &str, bill: &Bill) -> serde_json::Value {
    let mut row = figures(bill);
    row["key"] = key.into();
    row
}

/// The figures, with the money in dollars beside its billionths.
fn figures(bill: &Bill) -> serde_json::Value {
    let mut value = json!(bill);
    value["usd"] = bill.nano_usd.dollars().into();
    value
}
