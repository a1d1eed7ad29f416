//! The tools that a model may call: one registry, from which models, policies and documents take what they say.

mod arguments;
mod exec;
mod likeness;
mod mcp;
mod processes;
mod reference;

use std::borrow::Cow;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::Serialize;
use serde_json::Value;
use toka_core::tool::{ApplyPatch, EditFile, FindFiles, FindLines, ListFolder, ReadFile, WriteFile};
use toka_core::{Risk, ToolProfile, ToolRules};
use toka_wire::ToolDefinition;

use arguments::KillProcess;
pub(crate) use arguments::{
    AskPerson, ExecCommand, PollProcess, ReportProgress, StartProcess, ToolUse, UpdatePlan, WriteProcess,
    about, in_full, parse,
};
pub(crate) use exec::{Ran, Running, exec, run};
pub(crate) use likeness::like;
pub use mcp::McpServer;
pub(crate) use mcp::McpServers;
pub(crate) use processes::Processes;
pub use reference::reference_markdown;

/// Where a tool does its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// In the sandbox, by the runner.
    Runner,
    /// In the sandbox, by the keeper, in a control group of its own.
    Keeper,
    /// In the session: it touches nothing else.
    Session,
    /// By a server in the sandbox that speaks the Model Context Protocol.
    Mcp,
}

/// A tool.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tool {
    /// Its name.
    pub name: Cow<'static, str>,
    /// The version of its arguments.
    pub version: u32,
    /// What it does.
    pub description: Cow<'static, str>,
    /// What it is about.
    pub category: &'static str,
    /// How much can go wrong.
    pub risk: Risk,
    /// Where it does its work.
    pub place: Place,
    /// A JSON Schema of its arguments.
    pub parameters: Value,
}

impl Tool {
    /// As a model is told of it.
    pub(crate) fn definition(&self) -> ToolDefinition {
        let (name, description) = (self.name.to_string(), self.description.to_string());
        ToolDefinition { name, description, parameters: self.parameters.clone() }
    }
}

/// The tools of an agent with these rules, by name.
pub fn offered(rules: &ToolRules) -> Vec<Tool> {
    let mut all = catalogue();
    all.retain(|tool| has(rules, tool));
    all
}

/// Whether an agent with these rules has a tool.
pub(crate) fn has(rules: &ToolRules, tool: &Tool) -> bool {
    rules.has(&tool.name, is_in(rules.profile, tool))
}

/// Whether a profile has a tool.
fn is_in(profile: ToolProfile, tool: &Tool) -> bool {
    match profile {
        ToolProfile::Full | ToolProfile::Coding => true,
        ToolProfile::Minimal => {
            matches!(&*tool.name, "read" | "list" | "glob" | "grep") || tool.place == Place::Session
        }
        ToolProfile::Messaging => matches!(&*tool.name, "read" | "list") || tool.place == Place::Session,
    }
}

/// All tools, by name.
pub fn catalogue() -> Vec<Tool> {
    use Place::{Keeper, Runner, Session};
    use Risk::{Low, Medium};
    let mut all = vec![
        tool::<ReadFile>(
            "read",
            "filesystem",
            Low,
            Runner,
            "Reads a text file; each line has its number before it.",
        ),
        tool::<WriteFile>(
            "write",
            "filesystem",
            Medium,
            Runner,
            "Writes a file: all of it. Use edit or apply_patch to change a part of one.",
        ),
        tool::<EditFile>("edit", "filesystem", Medium, Runner, "Replaces one text in a file by another."),
        tool::<ApplyPatch>(
            "apply_patch",
            "filesystem",
            Medium,
            Runner,
            "Changes several files at once; when a part of the patch does not fit, nothing is changed.",
        ),
        tool::<ListFolder>("list", "filesystem", Low, Runner, "Lists what is in a folder."),
        tool::<FindFiles>("glob", "filesystem", Low, Runner, "Finds files by their names."),
        tool::<FindLines>(
            "grep",
            "filesystem",
            Low,
            Runner,
            "Finds lines in files that fit a regular expression.",
        ),
        tool::<ExecCommand>(
            "exec",
            "runtime",
            Medium,
            Keeper,
            "Runs a command line with /bin/sh and shows what it writes and how it ended. What it leaves running is killed.",
        ),
        tool::<StartProcess>(
            "process_start",
            "runtime",
            Medium,
            Keeper,
            "Starts a program that runs on while you do something else, such as a server; gives its number. It ends with the task.",
        ),
        tool::<PollProcess>(
            "process_poll",
            "runtime",
            Low,
            Keeper,
            "Shows what a process has written since the last look, and whether it runs.",
        ),
        tool::<WriteProcess>("process_write", "runtime", Medium, Keeper, "Writes to the input of a process."),
        tool::<KillProcess>(
            "process_kill",
            "runtime",
            Medium,
            Keeper,
            "Ends a process with all that it started.",
        ),
        tool::<AskPerson>(
            "ask",
            "sessions",
            Low,
            Session,
            "Asks a person, and waits for the answer. Only for what you cannot find out yourself and cannot decide for them: nobody may be there.",
        ),
        tool::<ReportProgress>(
            "report_progress",
            "sessions",
            Low,
            Session,
            "Tells people how far the task is.",
        ),
        tool::<UpdatePlan>(
            "update_plan",
            "sessions",
            Low,
            Session,
            "Tells the plan: all its steps, and how far each is.",
        ),
    ];
    all.sort_by(|one, other| one.name.cmp(&other.name));
    all
}

fn tool<A: JsonSchema>(
    name: &'static str,
    category: &'static str,
    risk: Risk,
    place: Place,
    description: &'static str,
) -> Tool {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut parameters = settings.into_generator().into_root_schema_for::<A>().to_value();
    if let Some(schema) = parameters.as_object_mut() {
        // What a schema calls itself is of no use to a model.
        ["$schema", "title", "description"].iter().for_each(|key| drop(schema.shift_remove(*key)));
    }
    Tool { name: name.into(), version: 1, description: description.into(), category, risk, place, parameters }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_where_it_begins() {
        let names = |rules: &ToolRules| offered(rules).into_iter().map(|tool| tool.name).collect::<Vec<_>>();
        let minimal = ToolRules { profile: ToolProfile::Minimal, ..ToolRules::default() };
        assert_eq!(
            names(&minimal),
            ["ask", "glob", "grep", "list", "read", "report_progress", "update_plan"]
        );
        let rules = ToolRules { allow: vec!["e*".into()], deny: vec!["edit".into()], ..minimal };
        assert_eq!(
            names(&rules),
            ["ask", "exec", "glob", "grep", "list", "read", "report_progress", "update_plan"]
        );
    }

    #[test]
    fn every_tool_has_a_name_and_a_schema_that_providers_take() {
        let all = catalogue();
        for tool in &all {
            let fits = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(tool.name.len() <= 64 && tool.name.chars().all(fits), "{}", tool.name);
            assert_eq!(tool.parameters["type"], "object", "{}", tool.name);
            assert_eq!(tool.parameters["additionalProperties"], false, "{}", tool.name);
            assert!(!tool.parameters.to_string().contains("$ref"), "{}: {}", tool.name, tool.parameters);
            let described = tool.parameters["properties"].as_object().expect("a map").values();
            assert!(described.clone().all(|value| value["description"].is_string()), "{}", tool.parameters);
        }
        assert_eq!(all.iter().map(|tool| &*tool.name).collect::<Vec<_>>(), toka_core::tool::TOOLS);
    }
}
