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
    pub(crate) home: PathBuf,
}

impl Words {
    /// What is known of an agent before its rules are.
    pub(crate) fn of(models: &Models, agent: &Agent) -> Self {
        let offers = models.offers(agent);
        let called =
            |offer: Option<&ModelOffer>| offer.map_or_else(String::new, |offer| offer.model.model.clone());
        Self {
            model: called(offers.first()),
            last_model: called(offers.last()),
            provider: models.spoken(agent).map_or_else(String::new, |dialect| dialect.provider.clone()),
            ..Self::default()
        }
    }

    /// The program and its arguments, for people.
    pub(crate) fn shown(&self, preset: Preset) -> Vec<String> {
        let data = PresetData::of(preset);
        let arguments = data.arguments.iter().map(|word| self.put(word)).chain(data.prompt.iter().cloned());
        std::iter::once(data.program.clone()).chain(arguments).collect()
    }

    /// A text of a preset, with each word replaced.
    fn put(&self, text: &str) -> String {
        let start = self.key.len().saturating_sub(KEY_END);
        let (workspace, home) = (self.workspace.to_string_lossy(), self.home.to_string_lossy());
        // In files of JSON and TOML they stand between quotes.
        let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
        [
            ("{model}", quoted(&self.model)),
            ("{last_model}", quoted(&self.last_model)),
            ("{provider}", self.provider.clone()),
            ("{openai_url}", self.openai_url.clone()),
            ("{key_end}", self.key[start..].to_owned()),
            ("{git}", self.workspace.join(".git").exists().to_string()),
            ("{workspace}", quoted(&workspace)),
            ("{home}", quoted(&home)),
        ]
        .iter()
        .fold(text.to_owned(), |text, (word, value)| text.replace(word, value))
    }

    /// The variables that a preset sets.
    pub(crate) fn variables(&self, preset: Preset) -> Vec<(String, String)> {
        let variables = PresetData::of(preset).environment.iter();
        variables.map(|(name, value)| (name.clone(), self.put(value))).collect()
    }

    /// The files that a preset writes.
    pub(crate) fn files(&self, preset: Preset) -> Vec<HomeFile> {
        let files = PresetData::of(preset).files.iter();
        files.map(|file| HomeFile { text: self.put(&file.text), ..file.clone() }).collect()
    }

    /// How the runner has the program work on tasks.
    pub(crate) fn program(&self, preset: Preset, program: &Path, agent: &Agent) -> AgentProgram {
        let data = PresetData::of(preset);
        let arguments = data.arguments.iter().map(|word| self.put(word));
        AgentProgram {
            preset,
            argv: std::iter::once(program.to_string_lossy().into_owned()).chain(arguments).collect(),
            resume: data.resume.clone(),
            prompt: data.prompt.clone(),
            files: self.files(preset),
            about: about(agent, &self.workspace),
        }
    }
}

/// How the program of an agent's preset is started for each task, for people; none where it is started otherwise.
pub fn started(agent: &Agent, models: &Models) -> Option<Vec<String>> {
    let process = agent.process.as_ref().filter(|process| process.command.is_none())?;
    Some(Words::of(models, agent).shown(process.preset?))
}

/// What the work is, and what is aimed at, as the first prompt has it.
fn about(agent: &Agent, workspace: &Path) -> String {
    let mut text = format!(
        "You work in the folder {}, as {:?} of {:?}.",
        workspace.display(),
        agent.title,
        agent.workstream
    );
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
            workspace: "/w".into(),
            home: "/h".into(),
        };
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
