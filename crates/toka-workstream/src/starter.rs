//! The workstreams that `toka init` writes.

/// A small, commented set of two agents that run without a model.
pub const STARTER: &str = include_str!("starter.yaml");

/// A workstream for a program that people use already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preset {
    /// How `toka init --agent` calls it; the file is called so, too.
    pub name: &'static str,
    /// The workstream.
    pub text: &'static str,
}

/// Programs that ask models, as they run unmodified behind Toka: headless, their own sandbox and questions off, nothing asked but the model.
pub const PRESETS: [Preset; 5] = [
    Preset { name: "claude-code", text: include_str!("presets/claude-code.yaml") },
    Preset { name: "codex", text: include_str!("presets/codex.yaml") },
    Preset { name: "opencode", text: include_str!("presets/opencode.yaml") },
    Preset { name: "gemini-cli", text: include_str!("presets/gemini-cli.yaml") },
    Preset { name: "aider", text: include_str!("presets/aider.yaml") },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_free_of_warnings() {
        let folder = tempfile::tempdir().expect("a folder");
        let starter = Preset { name: "hello", text: STARTER };
        for Preset { name, text } in PRESETS.into_iter().chain([starter]) {
            let path = folder.path().join(name).with_extension("yaml");
            std::fs::write(&path, text).expect("written");
            let loaded = crate::check(&[path], &crate::LoadOptions::default());
            assert_eq!(loaded.sources.render(&loaded.diagnostics, crate::Style::Plain), "", "{name}");
            let set = loaded.set.expect("valid");
            assert_eq!(set.agents.len(), if name == "hello" { 2 } else { 1 });
            assert!(name == "hello" || set.agents[0].model.is_some(), "{name}");
        }
    }
}
