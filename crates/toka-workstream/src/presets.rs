//! What Toka knows of the agent programs that people use: one file of data each, with the version that it was tried with.
//!
//! In their texts these words stand for what is known when an agent is started: `{model}` and `{last_model}`, the first and the last that
//! it may ask, as their provider calls them; `{provider}`, what the program calls a provider of the model's API; `{openai_url}`, where
//! the APIs of OpenAI are reached; `{key_end}`, the last 20 characters of the key; `{workspace}`, `{home}` and `{tmp}`;
//! `{git}`, whether it works in a repository that it may use, `true` or `false`. In files, and in variables that hold JSON, they are escaped as JSON
//! escapes them, which TOML reads, too.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;
use toka_core::{HomeFile, Preset, Wire};

use crate::value::load_value;

/// An agent program, as its file of data describes it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PresetData {
    /// Its name for people.
    pub title: String,
    /// The version that it was tried with.
    pub tried: String,
    /// The program, which is looked for along PATH.
    pub program: String,
    /// How people install it.
    pub install: String,
    /// The variable that holds the key of whom it asks as a rule.
    pub variable: String,
    /// The models that it asks where none are declared, as `provider/model`.
    pub models: Vec<String>,
    /// A task to begin with.
    pub task: String,
    /// The capability without which it does not run.
    pub capability: String,
    /// The APIs that it speaks, the one that it speaks best first.
    pub dialects: Vec<Dialect>,
    /// Its arguments when it works on a task without a terminal.
    pub arguments: Vec<String>,
    /// What follows when it goes on with a conversation, with `{session}`.
    #[serde(default)]
    pub resume: Vec<String>,
    /// What follows last, with `{prompt}`.
    pub prompt: Vec<String>,
    /// Variables that it gets, beneath what is declared.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Files that it looks for in its HOME.
    #[serde(default)]
    pub files: Vec<HomeFile>,
}

/// An API, and what a program calls whom it asks in it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dialect {
    /// The API.
    pub wire: Wire,
    /// The program's name for a provider of it.
    pub provider: String,
}

impl PresetData {
    /// What is known of a program.
    pub fn of(preset: Preset) -> &'static Self {
        static KNOWN: LazyLock<Vec<PresetData>> = LazyLock::new(|| {
            let read = |preset: Preset| {
                let value = load_value(preset.name(), text(preset)).expect("the data of a preset is YAML");
                serde_json::from_value(value).expect("the data of a preset has its shape")
            };
            Preset::ALL.into_iter().map(read).collect()
        });
        let at = Preset::ALL.iter().position(|known| *known == preset);
        &KNOWN[at.expect("all are known")]
    }
}

const fn text(preset: Preset) -> &'static str {
    match preset {
        Preset::ClaudeCode => include_str!("presets/claude-code.yaml"),
        Preset::Codex => include_str!("presets/codex.yaml"),
        Preset::Opencode => include_str!("presets/opencode.yaml"),
        Preset::GeminiCli => include_str!("presets/gemini-cli.yaml"),
        Preset::Aider => include_str!("presets/aider.yaml"),
    }
}

#[cfg(test)]
mod tests {
    use toka_core::AgentProgram;

    use super::*;

    #[test]
    fn each_names_a_prompt_and_an_api() {
        for preset in Preset::ALL {
            let data = PresetData::of(preset);
            assert!(data.prompt.iter().any(|word| word.contains(AgentProgram::PROMPT)), "{preset}");
            assert!(!data.dialects.is_empty() && !data.models.is_empty(), "{preset}");
            assert!(data.files.iter().all(|file| !file.path.starts_with('/')), "{preset}");
        }
    }
}
