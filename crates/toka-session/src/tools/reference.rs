//! The reference of the tools, for people: docs/tools.md, and `toka explain tools`.

use serde_json::Value;

use super::{Place, catalogue};

/// What the tools are and take, as Markdown for people.
pub fn reference_markdown() -> String {
    let mut text = String::from(
        "<!-- Generated from the registry of tools: `TOKA_UPDATE=1 cargo test -p toka-session`. -->\n\n# Tools\n\nThe tools of a model that works on tasks in words ([agents.md](agents.md)). Paths are relative to the folder that the agent works in, or \
         absolute; they may begin with `~/` or a variable such as `$TOKA_ARTIFACTS`. Everything that a tool does, it does within the agent's walls.\n",
    );
    for tool in catalogue() {
        let place = match tool.place {
            Place::Runner => "in the sandbox, by the runner",
            Place::Keeper => "in the sandbox, in a control group of its own",
            Place::Session => "in the session",
            Place::Mcp => "by a server in the sandbox",
        };
        text +=
            &format!("\n## `{}`\n\n{} Risk: {}. Done {place}.\n\n", tool.name, tool.description, tool.risk);
        text += "| Argument | Type | | Meaning |\n|---|---|---|---|\n";
        let required: Vec<&str> =
            tool.parameters["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for (name, schema) in tool.parameters["properties"].as_object().into_iter().flatten() {
            let needed = if required.contains(&name.as_str()) { "required" } else { "" };
            let meaning =
                schema["description"].as_str().unwrap_or_default().replace('\n', " ").replace('|', "\\|");
            text += &format!("| `{name}` | {} | {needed} | {meaning} |\n", kind_of(schema));
            for (name, schema) in schema["items"]["properties"].as_object().into_iter().flatten() {
                let meaning = schema["description"].as_str().unwrap_or_default().replace('\n', " ");
                text += &format!("| — `{name}` of each | {} | | {meaning} |\n", kind_of(schema));
            }
        }
    }
    text
}

/// The type of an argument in a word.
fn kind_of(schema: &Value) -> String {
    let kind = match &schema["type"] {
        Value::String(kind) => kind.as_str(),
        Value::Array(kinds) => {
            kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null").unwrap_or_default()
        }
        _ => "text",
    };
    match kind {
        "string" => "text",
        "integer" | "number" => "number",
        "boolean" => "true or false",
        "array" => "list",
        other => other,
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_is_fresh() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/tools.md");
        let text = reference_markdown();
        if std::env::var_os("TOKA_UPDATE").is_some() {
            std::fs::write(path, &text).expect("a file");
        }
        let known = std::fs::read_to_string(path).unwrap_or_default();
        assert!(known == text, "docs/tools.md is stale; run `TOKA_UPDATE=1 cargo test -p toka-session`");
    }
}
