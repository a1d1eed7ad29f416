//! `toka validate`: checks workstream files, and shows everything that is wrong with all of them at once.

use serde_json::json;
use toka_core::ExitCode;
use toka_workstream::{Loaded, Severity, Style, check};

use super::workstreams::Selection;

use toka_terminal::palette::Palette;
use toka_terminal::text::count;
use toka_terminal::{json, out};

/// Options of `toka validate`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    selection: Selection,
    /// Judge as a run of exactly these files: what an agent requires must be among them
    #[arg(long)]
    complete: bool,
    /// Print the diagnostics as JSON
    #[arg(long)]
    json: bool,
}

/// Whether these files alone could be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Alone {
    Runs,
    /// Something that an agent requires is declared elsewhere, or the agents cannot be brought into an order.
    Refused,
}

/// Runs the command: 0 with warnings at most, 65 with errors.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut loaded = check(&args.selection.paths()?, &args.selection.options());
    let planned = loaded.set.as_ref().map(|set| toka_workstream::plan(set, &loaded.sources));
    let alone = match &planned {
        Some((None, _)) => Alone::Refused,
        _ => Alone::Runs,
    };
    if let (true, Some((_, found))) = (args.complete, planned) {
        // What both say, a run says in its own words.
        let said: Vec<_> = found.iter().map(|diagnostic| diagnostic.code).collect();
        loaded.diagnostics.retain(|diagnostic| !said.contains(&diagnostic.code));
        loaded.diagnostics.extend(found);
    }
    let text = if args.json { as_json(&loaded, alone)? } else { as_text(&loaded, alone, args.complete) };
    let is_valid = loaded.set.is_some() && !(args.complete && alone == Alone::Refused);
    Ok(out::end(&text, if is_valid { ExitCode::Success } else { ExitCode::Invalid })?)
}

fn as_text(loaded: &Loaded, alone: Alone, complete: bool) -> String {
    let plain = Palette::for_stream(&std::io::stdout()) == Palette::PLAIN;
    let style = if plain { Style::Plain } else { Style::Colour };
    let mut text = loaded.sources.render(&loaded.diagnostics, style);
    text.push_str(&summary(loaded));
    text.push('\n');
    if alone == Alone::Refused && !complete {
        text.push_str("a run of exactly these files would be refused; `--complete` judges as it would\n");
    }
    text
}

/// `checked 5 files, 5 agents: 1 error, 2 warnings`.
fn summary(loaded: &Loaded) -> String {
    let found: Vec<String> = [Severity::Error, Severity::Warning, Severity::Note]
        .into_iter()
        .filter_map(|severity| match loaded.count(severity) {
            0 => None,
            number => Some(count(number, severity.as_str())),
        })
        .collect();
    let found = if found.is_empty() { "no problems".to_owned() } else { found.join(", ") };
    format!("checked {}, {}: {found}", count(loaded.files, "file"), count(loaded.agents, "agent"))
}

fn as_json(loaded: &Loaded, alone: Alone) -> anyhow::Result<String> {
    let value = json!({
        "valid": loaded.set.is_some(),
        "runs_alone": loaded.set.is_some() && alone == Alone::Runs,
        "files": loaded.files,
        "agents": loaded.agents,
        "errors": loaded.count(Severity::Error),
        "warnings": loaded.count(Severity::Warning),
        "notes": loaded.count(Severity::Note),
        "diagnostics": loaded.sources.to_json(&loaded.diagnostics),
    });
    Ok(json::pretty(&value) + "\n")
}
