//! What a model wrote as the arguments of a tool, checked: what does not fit is told in words that help to write it again.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use toka_core::{FileTool, PlanStep, StepStatus};

/// Arguments of `exec`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExecCommand {
    /// The command line.
    pub(crate) command: String,
    /// The folder in which it runs; the one that the agent works in if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) folder: Option<String>,
    /// How many seconds it may take; 120 if not given, at most 3600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) timeout: Option<u64>,
}

/// Arguments of `process_start`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StartProcess {
    /// The command line.
    pub(crate) command: String,
    /// The folder in which it runs; the one that the agent works in if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) folder: Option<String>,
}

/// Arguments of `process_poll`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PollProcess {
    /// Its number.
    pub(crate) process: u64,
    /// How many seconds to wait for news, at most 60; not at all if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) wait: Option<u64>,
}

/// Arguments of `process_write`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WriteProcess {
    /// Its number.
    pub(crate) process: u64,
    /// What it reads; end a line with a newline.
    #[serde(default)]
    pub(crate) text: String,
    /// Close its input afterwards.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) close: bool,
}

/// Arguments of `process_kill`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KillProcess {
    /// Its number.
    pub(crate) process: u64,
}

/// Arguments of `update_plan`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdatePlan {
    /// All steps, in their order.
    pub(crate) steps: Vec<PlannedStep>,
}

/// Arguments of `ask`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AskPerson {
    /// The question, with everything that is needed to decide.
    pub(crate) question: String,
    /// Answers to choose from, at most 9; the person may give another.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) options: Vec<String>,
}

/// Arguments of `report_progress`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReportProgress {
    /// How much of the task is done, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) percent: Option<u8>,
    /// What you are at, in a few words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<String>,
}

/// A step, as a model writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlannedStep {
    /// What is to be done.
    description: String,
    /// The tools that it will take.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tool_types: Vec<String>,
    /// pending, in_progress, completed or failed.
    #[serde(default)]
    status: PlannedStatus,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
enum PlannedStatus {
    #[default]
    Pending,
    InProgress,
    Completed,
    Failed,
}

impl From<PlannedStep> for PlanStep {
    fn from(step: PlannedStep) -> Self {
        let status = match step.status {
            PlannedStatus::Pending => StepStatus::Pending,
            PlannedStatus::InProgress => StepStatus::InProgress,
            PlannedStatus::Completed => StepStatus::Completed,
            PlannedStatus::Failed => StepStatus::Failed,
        };
        Self { description: step.description, tool_types: step.tool_types, status }
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ToolUse {
    /// Something with files.
    File(FileTool),
    /// A command.
    Exec(ExecCommand),
    /// A program that runs on.
    Start(StartProcess),
    /// News of one.
    Poll(PollProcess),
    /// Words for one.
    Write(WriteProcess),
    /// The end of one.
    Kill(u64),
    /// A plan.
    Plan(UpdatePlan),
    /// A question to a person.
    Ask(AskPerson),
    /// How far the work is.
    Report(ReportProgress),
    /// Something of a server's.
    Mcp(Map<String, Value>),
}

/// Most answers to choose from: each has a key.
const MOST_OPTIONS: usize = 9;
/// The longest question, and answer to choose, in bytes.
const LONGEST_QUESTION: usize = 8 * 1024;

/// Most steps of a plan.
const MOST_STEPS: usize = 100;

/// What the arguments of a tool mean.
///
/// # Errors
/// Why they do not fit, in words for a model.
pub(crate) fn parse(tool: &str, arguments: &Map<String, Value>) -> Result<ToolUse, String> {
    let value = Value::Object(arguments.clone());
    match tool {
        "read" => read(tool, value).map(|arguments| ToolUse::File(FileTool::Read(arguments))),
        "write" => read(tool, value).map(|arguments| ToolUse::File(FileTool::Write(arguments))),
        "edit" => read(tool, value).map(|arguments| ToolUse::File(FileTool::Edit(arguments))),
        "apply_patch" => read(tool, value).map(|arguments| ToolUse::File(FileTool::ApplyPatch(arguments))),
        "list" => read(tool, value).map(|arguments| ToolUse::File(FileTool::List(arguments))),
        "glob" => read(tool, value).map(|arguments| ToolUse::File(FileTool::Glob(arguments))),
        "grep" => read(tool, value).map(|arguments| ToolUse::File(FileTool::Grep(arguments))),
        "exec" => {
            let command: ExecCommand = read(tool, value)?;
            match command.command.trim().is_empty() {
                true => Err("exec: the command is empty".to_owned()),
                false => Ok(ToolUse::Exec(command)),
            }
        }
        "process_start" => {
            let start: StartProcess = read(tool, value)?;
            match start.command.trim().is_empty() {
                true => Err("process_start: the command is empty".to_owned()),
                false => Ok(ToolUse::Start(start)),
            }
        }
        "process_poll" => read(tool, value).map(ToolUse::Poll),
        "process_write" => read(tool, value).map(ToolUse::Write),
        "process_kill" => read(tool, value).map(|kill: KillProcess| ToolUse::Kill(kill.process)),
        "ask" => {
            let asked: AskPerson = read(tool, value)?;
            let texts = || asked.options.iter().chain([&asked.question]);
            match asked.options.len() {
                _ if texts().any(|text| text.trim().is_empty() || text.len() > LONGEST_QUESTION) => {
                    Err(format!(
                        "ask: a question and an answer have at least a word, and at most {} KiB",
                        LONGEST_QUESTION / 1024
                    ))
                }
                0..=MOST_OPTIONS => Ok(ToolUse::Ask(asked)),
                _ => Err(format!("ask: at most {MOST_OPTIONS} answers to choose from")),
            }
        }
        "report_progress" => {
            let report: ReportProgress = read(tool, value)?;
            match report.percent {
                Some(101..) => Err("report_progress: the percent are 0 to 100".to_owned()),
                _ => Ok(ToolUse::Report(report)),
            }
        }
        "update_plan" => {
            let plan: UpdatePlan = read(tool, value)?;
            match plan.steps.len() {
                1..=MOST_STEPS => Ok(ToolUse::Plan(plan)),
                _ => Err(format!("update_plan: a plan has 1 to {MOST_STEPS} steps")),
            }
        }
        _ if tool.starts_with("mcp__") => Ok(ToolUse::Mcp(arguments.clone())),
        _ => Err(format!("there is no tool {tool:?}")),
    }
}

fn read<T: DeserializeOwned>(tool: &str, value: Value) -> Result<T, String> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let place = if path == "." { String::new() } else { format!(" at `{path}`") };
        format!("the arguments of {tool} do not fit{place}: {}", in_words(&error.inner().to_string()))
    })
}

/// What a reader of JSON says, without the words of its own language.
fn in_words(error: &str) -> String {
    let words = error.split(' ').map(|word| match word.trim_end_matches([',', ';']) {
        "usize" | "u64" | "u32" => word.replace(word.trim_end_matches([',', ';']), "a number"),
        "sequence" => word.replace("sequence", "list"),
        "map" => word.replace("map", "object"),
        "boolean" => word.replace("boolean", "true or false"),
        _ => word.to_owned(),
    });
    let text = words.collect::<Vec<_>>().join(" ");
    match text.split_once("expected struct ") {
        Some((head, rest)) => {
            let rest = rest.split_once(' ').map_or(String::new(), |(_, rest)| format!(" {rest}"));
            format!("{head}expected an object{rest}")
        }
        None => text.replace("a sequence", "a list").replace("a map", "an object"),
    }
}

/// What a call is about, in a line for people.
pub(crate) fn about(tool: &str, arguments: &Map<String, Value>) -> String {
    let text = |key: &str| arguments.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let told = match tool {
        "exec" | "process_start" => text("command"),
        "process_poll" | "process_write" | "process_kill" => {
            arguments.get("process").map_or_else(String::new, ToString::to_string)
        }
        "grep" | "glob" => {
            let place = text("path");
            if place.is_empty() { text("pattern") } else { format!("{} in {place}", text("pattern")) }
        }
        "apply_patch" => {
            let patch = text("patch");
            let marks = ["*** Add File: ", "*** Update File: ", "*** Delete File: "];
            let path = |line: &str| marks.iter().find_map(|mark| line.strip_prefix(mark)).map(str::to_owned);
            patch.lines().filter_map(path).collect::<Vec<_>>().join(", ")
        }
        "update_plan" => {
            let steps = arguments.get("steps").and_then(Value::as_array).map_or(0, Vec::len);
            format!("{steps} steps")
        }
        "ask" => text("question"),
        "report_progress" => text("status"),
        // What a server's tool takes, nobody knows beforehand.
        _ if tool.starts_with("mcp__") => Value::Object(arguments.clone()).to_string(),
        _ => text("path"),
    };
    let line = told.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(LONGEST_ABOUT).collect()
}

/// The most that a person is shown of a call, in characters.
const MOST_SHOWN: usize = 4000;

/// What a call is about, so that a person can decide on it: a command as it stands, of other tools all arguments.
pub(crate) fn in_full(tool: &str, arguments: &Map<String, Value>) -> String {
    let text = match (tool, arguments.get("command").and_then(Value::as_str)) {
        ("exec" | "process_start", Some(command)) => match arguments.get("folder").and_then(Value::as_str) {
            Some(folder) => format!("{command} (in {folder})"),
            None => command.to_owned(),
        },
        _ => Value::Object(arguments.clone()).to_string(),
    };
    match text.char_indices().nth(MOST_SHOWN) {
        Some((at, _)) => format!("{}… ({} bytes in all)", &text[..at], text.len()),
        None => text,
    }
}

/// The longest line of what a tool is used on, in characters.
const LONGEST_ABOUT: usize = 200;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::catalogue;

    fn of(tool: &str, arguments: &Value) -> Result<ToolUse, String> {
        parse(tool, arguments.as_object().expect("an object"))
    }

    #[test]
    fn what_does_not_fit_says_why() {
        for (tool, arguments, why) in [
            ("read", json!({}), "missing field `path`"),
            ("read", json!({"path": 3}), "invalid type"),
            ("read", json!({"path": "a", "lines": 3}), "unknown field `lines`"),
            ("exec", json!({"command": " "}), "the command is empty"),
            ("update_plan", json!({"steps": []}), "1 to 100 steps"),
            (
                "update_plan",
                json!({"steps": [{"description": "x", "status": "done"}]}),
                "unknown variant `done`",
            ),
            ("teleport", json!({}), "there is no tool"),
            (
                "update_plan",
                json!({"steps": ["look"]}),
                "at `steps[0]`: invalid type: string \"look\", expected an object",
            ),
            (
                "read",
                json!({"path": "a", "limit": -1}),
                "at `limit`: invalid value: integer `-1`, expected a number",
            ),
        ] {
            let error = of(tool, &arguments).expect_err("wrong");
            assert!(error.contains(why), "{tool}: {error}");
        }
        assert!(matches!(of("exec", &json!({"command": "ls"})), Ok(ToolUse::Exec(_))));
    }

    #[test]
    fn a_call_is_told_in_a_line() {
        let told = |tool: &str, arguments: Value| about(tool, arguments.as_object().expect("an object"));
        assert_eq!(told("exec", json!({"command": "cargo test\n  -q"})), "cargo test -q");
        assert_eq!(told("grep", json!({"pattern": "x", "path": "src"})), "x in src");
        assert_eq!(
            told(
                "apply_patch",
                json!({"patch": "*** Begin Patch\n*** Add File: a\n+x\n*** Delete File: b\n"})
            ),
            "a, b"
        );
    }

    proptest! {
        #[test]
        fn no_arguments_make_it_panic(name in "[a-z_]{0,12}", keys in proptest::collection::vec(("[a-z]{0,8}", "[ -~]{0,8}"), 0..5)) {
            let arguments: Map<String, Value> = keys.into_iter().map(|(key, value)| (key, value.into())).collect();
            for tool in catalogue().iter().map(|tool| &*tool.name).chain([name.as_str()]) {
                let _ = (parse(tool, &arguments), about(tool, &arguments));
            }
        }
    }
}
