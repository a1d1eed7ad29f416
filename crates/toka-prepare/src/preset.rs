//! An agent program that Toka knows, made ready for one agent: its variables and files with what is known of the agent, how the runner
//! starts it, and what its first prompt begins with.

use std::path::{Path, PathBuf};

use toka_core::{AgentProgram, HomeFile, Preset};
use toka_workstream::{Agent, PresetData};

use crate::models::{ModelOffer, Models};

/// How much of a key Claude Code keeps to know it again, in characters.
const KEY_END: usize = 20;

/// What the words of a preset stand for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Words {
    /// The first model, as its provider calls it.
    pub(crate) model: String,
    /// The last of its models.
    pub(crate) last_model: String,
    /// What the program calls a provider of that API.
    pub(crate) provider: String,
    /// Where the APIs of OpenAI are reached.
    pub(crate) openai_url: String,
    /// The agent's own key.
    pub(crate) key: String,
    /// The agent's folders.
    pub(crate) workspace: PathBuf,
    pub(crate) working_dir: PathBuf,
    pub(crate) home: PathBuf,
    pub(crate) tmp: PathBuf,
    /// Whether it works in a repository, and may.
    pub(crate) uses_git: bool,
}

impl Words {
    /// What is known of an agent before its rules are.
    pub(crate) fn of(models: &Models, agent: &Agent) -> Self {
        let called = |offer: Option<ModelOffer>| offer.map_or_else(String::new, |offer| offer.model.model);
        let (first, last) = models.asked_by_program(agent);
        Self {
            model: called(first),
            last_model: called(last),
            provider: models.spoken(agent).map_or_else(String::new, |dialect| dialect.provider.clone()),
            ..Self::default()
        }
    }

    /// The program and its arguments, for people.
    pub(crate) fn shown(&self, preset: Preset) -> Vec<String> {
        let data = PresetData::of(preset);
        let arguments =
            data.arguments.iter().map(|word| self.put(word, false)).chain(data.prompt.iter().cloned());
        std::iter::once(data.program.clone()).chain(arguments).collect()
    }

    /// A text of a preset, with each word replaced by what it stands for, which is not looked at again.
    fn put(&self, text: &str, is_escaped: bool) -> String {
        let start = self.key.len().saturating_sub(KEY_END);
        let path = |path: &Path| path.to_string_lossy().into_owned();
        let words = [
            ("{model}", self.model.clone()),
            ("{last_model}", self.last_model.clone()),
            ("{provider}", self.provider.clone()),
            ("{openai_url}", self.openai_url.clone()),
            ("{key_end}", self.key[start..].to_owned()),
            ("{git}", self.uses_git.to_string()),
            ("{workspace}", path(&self.workspace)),
            ("{home}", path(&self.home)),
            ("{tmp}", path(&self.tmp)),
        ];
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('{') {
            out += &rest[..at];
            rest = &rest[at..];
            match words.iter().find(|(word, _)| rest.starts_with(word)) {
                Some((word, value)) => {
                    out += &if is_escaped { escaped(value) } else { value.clone() };
                    rest = &rest[word.len()..];
                }
                None => {
                    out.push('{');
                    rest = &rest[1..];
                }
            }
        }
        out + rest
    }

    /// The variables that a preset sets.
    pub(crate) fn variables(&self, preset: Preset) -> Vec<(String, String)> {
        let variables = PresetData::of(preset).environment.iter();
        variables.map(|(name, value)| (name.clone(), self.put(value, value.starts_with('{')))).collect()
    }

    /// The files that a preset writes.
    pub(crate) fn files(&self, preset: Preset) -> Vec<HomeFile> {
        let files = PresetData::of(preset).files.iter();
        files.map(|file| HomeFile { text: self.put(&file.text, true), ..file.clone() }).collect()
    }

    /// How the runner has the program work on tasks.
    pub(crate) fn program(&self, preset: Preset, program: &Path, agent: &Agent) -> AgentProgram {
        let data = PresetData::of(preset);
        let arguments = data.arguments.iter().map(|word| self.put(word, false));
        AgentProgram {
            preset,
            argv: std::iter::once(program.to_string_lossy().into_owned()).chain(arguments).collect(),
            resume: data.resume.clone(),
            prompt: data.prompt.clone(),
            files: self.files(preset),
            about: about(agent, &self.working_dir),
        }
    }
}

/// How the program of an agent's preset is started for each task, for people; none where it is started otherwise.
pub fn started(agent: &Agent, models: &Models) -> Option<Vec<String>> {
    let process = agent.process.as_ref().filter(|process| process.command.is_none())?;
    Some(Words::of(models, agent).shown(process.preset?))
}

/// What the work is, and what is aimed at, as the first prompt has it.
pub fn about(agent: &Agent, working_dir: &Path) -> String {
    let mut text = format!("You work in the folder {}.", working_dir.display());
    if let Some(description) = &agent.description {
        text += &format!(" {}", description.trim());
    }
    text += "\n\n";
    if !agent.objectives.is_empty() {
        text += "# What is aimed at\n\n";
        for objective in &agent.objectives {
            text += &format!("- {}", objective.description);
            text += &objective
                .deliverable
                .as_ref()
                .map_or_else(String::new, |what| format!(" Deliverable: {what}."));
            text += "\n";
        }
        text += "\n";
    }
    for (name, section) in &agent.extras {
        text += &format!("# {name}\n\n{}\n\n", plain(section));
    }
    text
}

/// A text as it stands between the quotes of JSON.
fn escaped(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// A section as people write it: texts as they are, lists with dashes, the rest as JSON.
fn plain(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.trim().to_owned(),
        serde_json::Value::Array(items) => {
            items.iter().map(|item| format!("- {}", plain(item))).collect::<Vec<_>>().join("\n")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_every_preset_are_replaced() {
        let words = Words {
            model: "m\"1".into(),
            last_model: "m2".into(),
            provider: "p".into(),
            openai_url: "http://127.0.0.1:7411/v1".into(),
            key: format!("sk-toka-{}", "0123456789".repeat(4)),
            workspace: "/w\n\"x\"".into(),
            working_dir: "/w/sub".into(),
            home: "/h".into(),
            tmp: "/t".into(),
            uses_git: true,
        };
        assert_eq!(words.put("{last_model}{x}{{git}", false), "m2{x}{true");
        for preset in Preset::ALL {
            let files = words.files(preset).into_iter().map(|file| (file.path, file.text));
            for (name, text) in words.variables(preset).into_iter().chain(files) {
                for word in [
                    "{model}",
                    "{last_model}",
                    "{provider}",
                    "{openai_url}",
                    "{key_end}",
                    "{workspace}",
                    "{home}",
                ] {
                    assert!(!text.contains(word), "{preset} {name}");
                }
                if text.starts_with('{') {
                    serde_json::from_str::<serde_json::Value>(&text).expect("JSON");
                }
            }
        }
    }
}
