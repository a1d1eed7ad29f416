//! What a model is told before anything else: who it is, what the work is, how it is done here. Written once, when a session begins, so that
//! what comes first in each request stays the same.

use minijinja::{Environment, UndefinedBehavior, Value, context};

/// The template where nobody has another.
const SYSTEM: &str = include_str!("../templates/system.j2");
/// Files with what is asked of everybody who works in a folder, the first that is there (<https://agents.md>).
pub(crate) const INSTRUCTION_FILES: [&str; 2] = ["AGENTS.md", "CLAUDE.md"];
/// The most of such a file that is taken, in bytes.
const MOST_INSTRUCTIONS: usize = 32 * 1024;

/// What the instructions are made of.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts<'a> {
    pub(crate) agent: &'a str,
    /// Whether a person talks to it.
    pub(crate) talks: bool,
    pub(crate) domain: &'a str,
    /// What the work is, and what is aimed at.
    pub(crate) about: &'a str,
    /// Where the agent finds what.
    pub(crate) places: &'a str,
    /// The names of the tools.
    pub(crate) tools: &'a [String],
    /// The name and the text of the file of instructions.
    pub(crate) instructions: Option<(&'a str, &'a str)>,
}

/// The instructions.
///
/// # Errors
/// When the template is wrong, in words.
pub(crate) fn system(facts: &Facts<'_>) -> Result<String, String> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    let (file, text) = facts.instructions.unwrap_or_default();
    let text = &text[..text.floor_char_boundary(MOST_INSTRUCTIONS)];
    let rendered = environment.render_str(
        SYSTEM,
        context! {
            places => facts.places.trim(), agent => facts.agent, talks => facts.talks, domain => facts.domain.to_lowercase(), about => facts.about.trim(), tools => Value::from(facts.tools.to_vec()),
            instructions_file => file, instructions => text.trim(),
        },
    );
    rendered.map_err(|error| format!("the template of the instructions is wrong: {error:#}"))
}

/// A text as it stands in a file of which a tool has shown the lines with their numbers.
pub(crate) fn without_numbers(shown: &str) -> String {
    let line = |line: &str| line.split_once('\t').map_or("", |(_, text)| text).to_owned();
    let numbered = |line: &&str| line.trim_start().starts_with(|c: char| c.is_ascii_digit());
    shown.lines().take_while(numbered).map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_not_spoken_of() {
        let tools = ["exec".to_owned(), "update_plan".to_owned()];
        let facts = Facts {
            agent: "builder",
            talks: false,
            places: "It may read.\n",
            domain: "Software",
            about: "You work in /w.\n",
            tools: &tools,
            instructions: None,
        };
        let text = system(&facts).expect("a template");
        assert!(
            text.starts_with(
                "You are builder, an agent that works on its own. You work in /w.\n\n# Where things are\n\nIt may read.\n\n# How you work\n"
            ),
            "{text}"
        );
        assert!(
            text.contains("Commands run in a sandbox") && text.contains("the project's own tests"),
            "{text}"
        );
        assert!(!text.contains("AGENTS.md") && !text.contains("{{") && !text.contains("\n\n\n"), "{text}");
        let bare = Facts {
            tools: &[],
            domain: "general",
            instructions: Some(("AGENTS.md", "{{ x }} Use tabs.\n")),
            ..facts
        };
        let text = system(&bare).expect("a template");
        assert!(!text.contains("Commands run"), "{text}");
        assert!(text.ends_with("(AGENTS.md)\n\n{{ x }} Use tabs."), "a file is no template: {text}");
    }

    #[test]
    fn lines_lose_their_numbers() {
        let shown = "     1\t# Title\n     2\t\n     3\tUse\ttabs.\n(there is more: go on with offset 4)";
        assert_eq!(without_numbers(shown), "# Title\n\nUse\ttabs.");
    }
}
