//! `toka explain`: the long text of a code, a topic, or a key of the workstream file or of `toka.yaml`.

use serde_json::json;
use toka_core::ExitCode;
use toka_core::capability::{KNOWN, KnownCapability};
use toka_workstream::diagnostic::NoSuchCode;
use toka_workstream::schema::{KeyReference, REQUIRED, explain_key, key_references};
use toka_workstream::{Code, elsewhere};

use toka_terminal::failure::Failure;
use toka_terminal::text::safe;
use toka_terminal::{json, out};

const CAPABILITIES: &str = "what an agent may require, and who grants it";

/// Options of `toka explain`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A code such as TK0010, a key such as `max_restarts` or `spec.restart`, a capability such as git-access, or `capabilities`;
    /// without it, all codes are listed
    #[arg(value_name = "TOPIC")]
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
        (Some(topic), is_json) if capability_of(topic).is_some() => {
            let row = capability_of(topic).into_iter();
            if is_json {
                pretty(&row.map(capability_as_json).collect())?
            } else {
                row.map(capability).collect()
            }
        }
        (Some(topic), json) => match (topic.parse::<Code>(), explain_key(topic)) {
            (Ok(code), _) if json => pretty(&code_as_json(code))?,
            (Ok(code), _) => code.explain().render(code),
            (Err(error), keys) if keys.is_empty() => return Err(unknown(topic, &error).into()),
            (Err(_), keys) if json => pretty(&json!(keys))?,
            (Err(_), keys) => keys.iter().map(key_as_text).collect::<Vec<_>>().join("\n"),
        },
    };
    Ok(out::end(&text, ExitCode::Success)?)
}

/// Every topic and every code.
fn listing() -> String {
    let codes: String = Code::ALL.into_iter().map(line).collect();
    format!(
        "capabilities     {CAPABILITIES}\nKEY              a key of the workstream file or of toka.yaml, such as spec.restart\n{codes}"
    )
}

fn unknown(topic: &str, error: &NoSuchCode) -> Failure {
    let is_code = topic.to_ascii_uppercase().starts_with("TK");
    let message =
        if is_code { error.to_string() } else { format!("there is no key or topic {}", safe(topic)) };
    // A word of other tools' files.
    let last = topic.rsplit('.').next().unwrap_or(topic);
    match elsewhere(last) {
        Some(place) => Failure::new(ExitCode::Usage, message).help(format!("that stands in {place}")),
        None => Failure::new(ExitCode::Usage, message)
            .help("`toka explain` lists all codes and topics, `toka schema` prints the whole format"),
    }
}

/// Everything that can be explained, each with a few words.
pub(super) fn topics() -> Vec<(String, String)> {
    let codes = Code::ALL.into_iter().map(|code| (code.to_string(), code.explain().title.to_owned()));
    let keys = key_references().into_iter().filter(|key| !key.path.contains(['…', ',', '[']));
    let keys = keys.map(|key| (key.path, first_sentence(&key.meaning)));
    let capabilities = ("capabilities".to_owned(), CAPABILITIES.to_owned());
    let each = KNOWN.iter().map(|row| (row.name.to_owned(), first_sentence(row.meaning)));
    codes.chain(keys).chain([capabilities]).chain(each).collect()
}

fn first_sentence(text: &str) -> String {
    text.split_once(". ").map_or(text, |(first, _)| first).trim_end_matches('.').to_owned()
}

fn key_as_text(key: &KeyReference) -> String {
    let default = match key.default.as_deref() {
        Some(REQUIRED) => "none, it is required",
        Some(value) => value,
        None => "none",
    };
    let KeyReference { path, kind, meaning, example, .. } = key;
    format!("{path}\n  {meaning}\n  type     {kind}\n  default  {default}\n  example  {example}\n")
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
        text.push('\n');
        text.push_str(&capability(row));
    }
    text
}

/// The capability that is called so, with or without what it is about.
fn capability_of(topic: &str) -> Option<&'static KnownCapability> {
    let name = topic.split(':').next().unwrap_or(topic).to_ascii_lowercase().replace('_', "-");
    let whole = topic.to_ascii_lowercase().replace('_', "-");
    let is_called = |row: &&KnownCapability, name: &str| row.name == name || row.aliases.contains(&name);
    KNOWN.iter().find(|row| is_called(row, &whole)).or_else(|| KNOWN.iter().find(|row| is_called(row, &name)))
}

fn capability(row: &KnownCapability) -> String {
    let path = match row.name {
        _ if !row.takes_path => "",
        "webhook" => "[:HOST]",
        "host" => "[:NAME:PORT]",
        "secret-variable" | "environment-from" | "user" => "[:NAME]",
        _ => "[:PATH]",
    };
    let danger = if row.dangerous {
        "  (dangerous: a person must grant it, with `toka trust` or `--allow`)"
    } else {
        ""
    };
    let mut text = format!("{}{path}{danger}\n    {}\n", row.name, row.meaning);
    if !row.aliases.is_empty() {
        text.push_str(&format!("    Also written {}.\n", row.aliases.join(", ")));
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
