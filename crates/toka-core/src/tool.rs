//! Tools that a model may call: how dangerous one is, what the file tools take, and what a call gives back.
//!
//! The file tools are asked for by the daemon and done inside of the agent's sandbox; both sides use these types, so that a word cannot
//! mean two things. Every text in them is the model's or a file's: nothing in it is obeyed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How much can go wrong with a call.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    strum::Display,
    strum::EnumString,
    Serialize,
    Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Risk {
    /// It changes nothing.
    Low,
    /// It changes what the agent may change: files of its workspace, its own processes.
    Medium,
    /// It acts beyond the workspace, or cannot be undone.
    High,
}

/// The names of the tools that Toka has.
pub const TOOLS: [&str; 15] = [
    "apply_patch",
    "ask",
    "edit",
    "exec",
    "glob",
    "grep",
    "list",
    "process_kill",
    "process_poll",
    "process_start",
    "process_write",
    "read",
    "report_progress",
    "update_plan",
    "write",
];

/// A set of tools by what an agent is for.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, strum::Display, strum::EnumString, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum ToolProfile {
    /// It looks, and changes nothing.
    Minimal,
    /// It works on files and runs commands.
    #[default]
    Coding,
    /// It talks, and reads.
    Messaging,
    /// Everything.
    Full,
}

/// How much an agent does without asking a person.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, strum::Display, strum::EnumString, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Autonomy {
    /// A person is asked about calls of a high risk, and about those for which the rules say so.
    #[default]
    Semi,
    /// A person is asked only about calls for which the rules say so.
    Auto,
}

/// What is said of the tools of an agent. Names may have `*` in them, which stands for anything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolRules {
    /// Where it begins.
    pub profile: ToolProfile,
    /// What it has besides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// What it has not, whatever else is said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<String>,
    /// What a person is asked about, each time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ask: Vec<String>,
    /// Most calls that are made for one answer of a model; `None` for the usual number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls_per_turn: Option<u32>,
    /// How much it does without asking.
    pub autonomy: Autonomy,
}

/// Calls that are made for one answer where nobody says otherwise.
const CALLS: u32 = 40;

impl ToolRules {
    /// Whether it has a tool of this name, which its profile has or not: a denial wins.
    pub fn has(&self, tool: &str, is_in_profile: bool) -> bool {
        let is_in = |list: &[String], tool| list.iter().any(|pattern| fits(pattern, tool));
        // Who denies commands means programs that run on as well.
        let is_denied =
            is_in(&self.deny, tool) || (tool.starts_with("process_") && is_in(&self.deny, "exec"));
        (is_in_profile || is_in(&self.allow, tool)) && !is_denied
    }

    /// Whether a person is asked about a call of this tool.
    pub fn asks(&self, tool: &str, risk: Risk) -> bool {
        let is_like_exec = matches!(tool, "process_start" | "process_write");
        let is_named =
            self.ask.iter().any(|pattern| fits(pattern, tool) || (is_like_exec && fits(pattern, "exec")));
        is_named || (self.autonomy == Autonomy::Semi && risk == Risk::High)
    }

    /// Most calls that are made for one answer.
    pub fn most_calls(&self) -> usize {
        self.calls_per_turn.unwrap_or(CALLS) as usize
    }
}

/// Whether a pattern of tools means any that there is.
pub fn means_a_tool(pattern: &str) -> bool {
    // Which tools a server has is known when it runs.
    pattern.starts_with("mcp__") || TOOLS.iter().any(|tool| fits(pattern, tool))
}

/// Whether a name fits a pattern in which `*` stands for anything.
fn fits(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(name) = name.strip_prefix(head) else { return false };
    (0..=name.len()).filter(|at| name.is_char_boundary(*at)).any(|at| fits(rest, &name[at..]))
}

/// A call of a file tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileCall {
    /// Unique in the session. The same number is the same call: it is done once.
    pub id: String,
    /// What is to be done.
    #[serde(flatten)]
    pub tool: FileTool,
}

/// The file tools with their arguments. Paths are relative to the folder that the agent works in, or absolute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "tool", content = "arguments", rename_all = "snake_case")]
pub enum FileTool {
    /// Reads a file.
    Read(ReadFile),
    /// Writes a file.
    Write(WriteFile),
    /// Replaces a text in a file.
    Edit(EditFile),
    /// Changes several files by a patch.
    ApplyPatch(ApplyPatch),
    /// Lists a folder.
    List(ListFolder),
    /// Finds files by their names.
    Glob(FindFiles),
    /// Finds lines in files.
    Grep(FindLines),
}

/// Arguments of `read`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReadFile {
    /// The file.
    pub path: String,
    /// The first line to read, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<usize>,
    /// How many lines to read; 2000 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// Arguments of `write`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WriteFile {
    /// The file; folders above it are made.
    pub path: String,
    /// Its whole content.
    pub content: String,
}

/// Arguments of `edit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EditFile {
    /// The file.
    pub path: String,
    /// The text to replace, as it stands in the file and without line numbers. It must be there exactly once, unless `all` is true.
    pub old: String,
    /// The text to put in its place.
    pub new: String,
    /// Replace it everywhere.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
}

/// Arguments of `apply_patch`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplyPatch {
    /// From `*** Begin Patch` to `*** End Patch`. In between, for each file: `*** Add File: PATH` and its lines with `+` before each;
    /// `*** Delete File: PATH`; or `*** Update File: PATH`, perhaps `*** Move to: PATH`, and hunks that begin with `@@`, whose lines
    /// have a blank, `-` or `+` before each.
    pub patch: String,
}

/// Arguments of `list`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListFolder {
    /// The folder; the one that the agent works in if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// How many levels to show; 1 if not given, at most 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depth: Option<usize>,
}

/// Arguments of `glob`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FindFiles {
    /// A pattern such as `src/**/*.rs`, relative to the folder. Files that a `.gitignore` leaves out are not found.
    pub pattern: String,
    /// The folder to look in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// Arguments of `grep`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FindLines {
    /// A regular expression (Rust's regex syntax).
    pub pattern: String,
    /// The file or folder to look in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Only files whose names fit this pattern, such as `*.rs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub glob: Option<String>,
    /// Lines to show before and after each, at most 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<usize>,
    /// Capitals do not count.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ignore_case: bool,
}

/// What a call of a file tool gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileOutcome {
    /// Which call.
    pub id: String,
    /// What it says, or why it failed.
    pub text: String,
    /// Whether it failed: then nothing was changed, but for what `changes` names.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_error: bool,
    /// Files that it changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<FileChange>,
    /// What the kernel refused, when that is why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// A file that a call changed, as the agent tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileChange {
    /// The file.
    pub path: String,
    /// Lines that are new.
    pub added: u64,
    /// Lines that are gone.
    pub removed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deny_wins_and_asking_is_by_risk_or_name() {
        let rules = ToolRules {
            allow: vec!["web_*".into()],
            deny: vec!["*_fetch".into()],
            ask: vec!["exec".into()],
            ..ToolRules::default()
        };
        assert!(rules.has("web_search", false) && !rules.has("web_fetch", true) && !rules.has("exec", false));
        assert!(
            rules.asks("exec", Risk::Low) && rules.asks("x", Risk::High) && !rules.asks("x", Risk::Medium)
        );
        assert!(rules.asks("process_start", Risk::Low) && !rules.asks("process_poll", Risk::Low));
        let auto = ToolRules { autonomy: Autonomy::Auto, ..rules };
        assert!(auto.asks("exec", Risk::Low) && !auto.asks("x", Risk::High));
    }

    #[test]
    fn who_denies_commands_denies_programs_that_run_on() {
        let rules = ToolRules { deny: vec!["exec".into()], ..ToolRules::default() };
        for tool in TOOLS.iter().filter(|tool| tool.starts_with("process_")) {
            assert!(!rules.has(tool, true), "{tool}");
        }
        assert!(rules.has("read", true));
    }

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, name, is_it) in [
            ("*", "", true),
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "acb", false),
            ("web_*", "web", false),
        ] {
            assert_eq!(fits(pattern, name), is_it, "{pattern} {name}");
        }
    }
}
