//! `toka validate`: checks workstream files and policy files (`toka.yaml`), and shows everything that is wrong with all of them at once.

use std::path::PathBuf;

use serde_json::json;
use toka_core::ExitCode;
use toka_workstream::{Loaded, LoadedPolicy, POLICY_FILE, Severity, Style, check, load_policy};

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
    let (policies, paths) = policies(&args.selection)?;
    let is_policy_valid = policies.iter().all(|policy| policy.policy.is_some());
    if paths.is_empty() {
        let text = match args.json {
            true => {
                json::pretty(&json!({"valid": is_policy_valid, "policies": policies_as_json(&policies)}))
                    + "\n"
            }
            false => policies_as_text(&policies),
        };
        return Ok(out::end(&text, if is_policy_valid { ExitCode::Success } else { ExitCode::Invalid })?);
    }
    let mut loaded = check(&paths, &args.selection.options());
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
    let text = match args.json {
        true => as_json(&loaded, alone, &policies),
        false => as_text(&loaded, alone, args.complete) + &policies_as_text(&policies),
    };
    let is_valid = loaded.set.is_some() && is_policy_valid && !(args.complete && alone == Alone::Refused);
    Ok(out::end(&text, if is_valid { ExitCode::Success } else { ExitCode::Invalid })?)
}

/// The policy files that are named, or that of the current folder; and what remains to be checked as workstreams.
fn policies(selection: &Selection) -> anyhow::Result<(Vec<LoadedPolicy>, Vec<PathBuf>)> {
    let is_policy = |path: &PathBuf| path.file_name().is_some_and(|name| name == POLICY_FILE);
    if selection.is_default() {
        let here = PathBuf::from(POLICY_FILE);
        let found = here.exists().then(|| load_policy(&here));
        return Ok((found.into_iter().collect(), selection.paths()?));
    }
    let (policies, paths): (Vec<PathBuf>, Vec<PathBuf>) = selection.paths()?.into_iter().partition(is_policy);
    Ok((policies.iter().map(|path| load_policy(path)).collect(), paths))
}

fn policies_as_text(policies: &[LoadedPolicy]) -> String {
    let plain = Palette::for_stream(&std::io::stdout()) == Palette::PLAIN;
    let style = if plain { Style::Plain } else { Style::Colour };
    let one = |policy: &LoadedPolicy| {
        let found = match policy.diagnostics.len() {
            0 => "no problems".to_owned(),
            number => count(number, "problem"),
        };
        format!("{}checked {POLICY_FILE}: {found}\n", policy.sources.render(&policy.diagnostics, style))
    };
    policies.iter().map(one).collect()
}

fn policies_as_json(policies: &[LoadedPolicy]) -> Vec<serde_json::Value> {
    let one = |policy: &LoadedPolicy| json!({"valid": policy.policy.is_some(), "diagnostics": policy.sources.to_json(&policy.diagnostics)});
    policies.iter().map(one).collect()
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

fn as_json(loaded: &Loaded, alone: Alone, policies: &[LoadedPolicy]) -> String {
    let value = json!({
        "valid": loaded.set.is_some(),
        "runs_alone": loaded.set.is_some() && alone == Alone::Runs,
        "files": loaded.files,
        "agents": loaded.agents,
        "errors": loaded.count(Severity::Error),
        "warnings": loaded.count(Severity::Warning),
        "notes": loaded.count(Severity::Note),
        "diagnostics": loaded.sources.to_json(&loaded.diagnostics),
        "policies": policies_as_json(policies),
    });
    json::pretty(&value) + "\n"
}
