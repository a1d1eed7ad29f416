//! `toka explain`: the long text of a code, or a topic.

use serde_json::json;
use toka_core::ExitCode;
use toka_core::capability::{KNOWN, KnownCapability};
use toka_workstream::Code;
use toka_workstream::diagnostic::NoSuchCode;

use crate::failure::Failure;
use crate::terminal::{json, out};

/// Options of `toka explain`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A code such as TK0010, or `capabilities`; without it, all codes are listed
    #[arg(value_name = "CODE")]
    topic: Option<String>,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let text = match (args.topic.as_deref(), args.json) {
        (None, false) => listing(),
        (None, true) => pretty(&Code::ALL.into_iter().map(code_as_json).collect())?,
        (Some("capabilities"), false) => capabilities(),
        (Some("capabilities"), true) => pretty(&KNOWN.iter().map(capability_as_json).collect())?,
        (Some(code), json) => {
            let code: Code = code.parse().map_err(|error: NoSuchCode| unknown(&error))?;
            if json { pretty(&code_as_json(code))? } else { code.explain().render(code) }
        }
    };
    Ok(out::end(&text, ExitCode::Success)?)
}

/// Every topic and every code.
fn listing() -> String {
    let codes: String = Code::ALL.into_iter().map(line).collect();
    format!("capabilities     what an agent may require, and who grants it\n{codes}")
}

fn unknown(error: &NoSuchCode) -> Failure {
    Failure::new(ExitCode::Usage, error.to_string())
        .help("`toka explain` lists all codes, and the topic `capabilities`; keys are in `toka schema`")
}

fn pretty(value: &serde_json::Value) -> anyhow::Result<String> {
    Ok(json::pretty(value) + "\n")
}

fn line(code: Code) -> String {
    format!("{code}  {:7}  {}\n", code.severity().as_str(), code.explain().title)
}

fn code_as_json(code: Code) -> serde_json::Value {
    let explanation = code.explain();
    json!({
        "code": code.to_string(),
        "severity": code.severity().as_str(),
        "title": explanation.title,
        "text": explanation.text,
        "example": explanation.example,
    })
}

fn capabilities() -> String {
    let mut text = String::from(
        "What an agent may require in security.capabilities_required. Case does not matter, nor `_` for `-`.\n\
         Any other name is a label: it grants nothing.\n",
    );
    for row in KNOWN {
        let path = match row.name {
            _ if !row.takes_path => "",
            "webhook" => "[:HOST]",
            "secret-variable" | "environment-from" | "user" => "[:NAME]",
            _ => "[:PATH]",
        };
        let danger = if row.dangerous {
            "  (dangerous: a person must grant it, with `toka trust` or `--allow`)"
        } else {
            ""
        };
        text.push_str(&format!("\n{}{path}{danger}\n    {}\n", row.name, row.meaning));
        if !row.aliases.is_empty() {
            text.push_str(&format!("    Also written {}.\n", row.aliases.join(", ")));
        }
    }
    text
}

fn capability_as_json(row: &KnownCapability) -> serde_json::Value {
    json!({
        "name": row.name,
        "aliases": row.aliases,
        "takes_path": row.takes_path,
        "dangerous": row.dangerous,
        "meaning": row.meaning,
    })
}
