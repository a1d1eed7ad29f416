//! Programs of others that work on tasks in words: which ones Toka knows, and what a runner needs to know of one.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An agent program that Toka knows by name: how it is started without a terminal, and the events that it writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// Claude Code of Anthropic.
    ClaudeCode,
    /// Codex of OpenAI.
    Codex,
    /// OpenCode.
    Opencode,
    /// Gemini CLI of Google.
    GeminiCli,
    /// aider.
    Aider,
}

impl Preset {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::ClaudeCode, Self::Codex, Self::Opencode, Self::GeminiCli, Self::Aider];

    /// Its name, as a declaration has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClaudeCode => "claude-code",
            Self::Codex => "codex",
            Self::Opencode => "opencode",
            Self::GeminiCli => "gemini-cli",
            Self::Aider => "aider",
        }
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a runner has an agent program work on a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentProgram {
    /// Which program, and so which events it writes.
    pub preset: Preset,
    /// The program, as an absolute path, and its arguments.
    pub argv: Vec<String>,
    /// What follows where it goes on with a conversation, with `{session}` for the conversation's name; empty where it cannot.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resume: Vec<String>,
    /// What follows last, with `{prompt}` for the prompt.
    pub prompt: Vec<String>,
    /// What it finds in its HOME.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<HomeFile>,
    /// What the first prompt begins with: what the work is, and what is aimed at.
    pub about: String,
}

impl AgentProgram {
    /// The word after `toka __agent` with which that writes [`HomeFile`]s, and becomes the program that follows.
    pub const EXEC: &str = "exec";
    /// The place of the prompt in [`Self::prompt`].
    pub const PROMPT: &str = "{prompt}";
    /// The place of the conversation's name in [`Self::resume`].
    pub const SESSION: &str = "{session}";
}

/// A file that an agent program finds in its HOME.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HomeFile {
    /// Where, relative to HOME.
    pub path: String,
    /// What is in it.
    pub text: String,
    /// Whether one that is there already is kept: the program writes to it itself.
    #[serde(default)]
    pub once: bool,
}

/// What a model is to begin its last line with, and a colon after it, when a task cannot be done: programs end with 0 whatever their models
/// say.
pub const FAILED: &str = "FAILED";

/// Why the task is not done, where the last paragraph of an answer says so: a line of it begins with [`FAILED`], whatever marks are about that.
pub fn failure(answer: &str) -> Option<String> {
    let is_mark = |c: char| c.is_whitespace() || "*`_#>-".contains(c);
    let lines: Vec<&str> = answer.trim_end().lines().collect();
    let begin = lines.iter().rposition(|line| line.trim().is_empty()).map_or(0, |at| at + 1);
    let why = |line: &str| {
        let rest = line.trim_start_matches(is_mark).strip_prefix(FAILED)?;
        Some(rest.trim_start_matches(is_mark).strip_prefix(':')?.trim_matches(is_mark).to_owned())
    };
    let paragraph = &lines[begin..];
    let (at, first) = paragraph.iter().enumerate().find_map(|(at, line)| Some((at, why(line)?)))?;
    let rest = paragraph[at + 1..].iter().map(|line| line.trim_matches(is_mark));
    Some(std::iter::once(first.as_str()).chain(rest).collect::<Vec<_>>().join(" ").trim().to_owned())
}

/// Who answers a model's questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answers {
    /// Nobody: it cannot ask.
    Nobody,
    /// It has a tool to ask with, if it has any.
    ATool,
}

/// What a model is told of a task, which is the `place`th of `total`: `about` says what the work is, `why` how the attempt before ended, and
/// `goes_on` that the model knows what was said before.
pub fn prompt(
    about: &str,
    (place, total): (usize, usize),
    description: &str,
    why: Option<&str>,
    goes_on: bool,
    answers: Answers,
) -> String {
    let of = if total > 1 { format!(" ({place} of {total})") } else { String::new() };
    let text = match (goes_on, why) {
        (true, Some(why)) => format!(
            "The task is not done yet. The attempt before ended so: {why}\n\nLook at what is there, and finish it: {description}"
        ),
        (false, Some(why)) => format!(
            "{about}# Task{of}\n\n{description}\n\nAn attempt before this one ended so: {why}\nLook at what is there, and finish it."
        ),
        (true, None) => format!("# Next task{of}\n\n{description}"),
        (false, None) => format!("{about}# Task{of}\n\n{description}"),
    };
    let questions = match answers {
        Answers::Nobody => "Nobody can answer questions. ",
        Answers::ATool => "",
    };
    format!(
        "{text}\n\n{questions}When the task is done, end with a short account of what you did. If it cannot be done, say why \
         in a last line that begins with {FAILED}:"
    )
}
