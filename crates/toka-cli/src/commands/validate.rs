//! `toka validate`: checks workstream files, and shows everything that is wrong with all of them at once.

use serde_json::json;
use toka_core::ExitCode;
use toka_workstream::{Loaded, Severity, Style, check};

use super::workstreams::Selection;

use crate::terminal::palette::Palette;
use crate::terminal::text::count;
use crate::terminal::{json, out};

/// Options of `toka validate`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    selection: Selection,
    /// Print the diagnostics as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command: 0 with warnings at most, 65 with errors.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let loaded = check(&args.selection.paths()?, &args.selection.options());
    let text = if args.json { as_json(&loaded)? } else { as_text(&loaded) };
    Ok(out::end(&text, if loaded.set.is_some() { ExitCode::Success } else { ExitCode::Invalid })?)
}

fn as_text(loaded: &Loaded) -> String {
    let plain = Palette::for_stream(&std::io::stdout()) == Palette::PLAIN;
    let style = if plain { Style::Plain } else { Style::Colour };
    let mut text = loaded.sources.render(&loaded.diagnostics, style);
    text.push_str(&summary(loaded));
    text.push('\n');
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

fn as_json(loaded: &Loaded) -> anyhow::Result<String> {
    let value = json!({
        "valid": loaded.set.is_some(),
        "files": loaded.files,
        "agents": loaded.agents,
        "errors": loaded.count(Severity::Error),
        "warnings": loaded.count(Severity::Warning),
        "notes": loaded.count(Severity::Note),
        "diagnostics": loaded.sources.to_json(&loaded.diagnostics),
    });
    Ok(json::pretty(&value) + "\n")
}
