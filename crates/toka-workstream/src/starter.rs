//! The workstreams that `toka init` writes.

use toka_core::Preset;

use crate::presets::PresetData;

/// A small, commented set of two agents that run without a model.
pub const STARTER: &str = include_str!("starter.yaml");

/// A workstream in which a program that people use already works on a task, unmodified and without a key.
pub fn starter_of(preset: Preset) -> String {
    let PresetData { title, tried, variable, models, capability, task, .. } = PresetData::of(preset);
    let models = match models.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    };
    format!(
        "# yaml-language-server: $schema=workstream.schema.json
# {title} in this checkout, behind Toka's walls, without a key. Tried with {tried}.
#   export {variable}=…; toka run --allow model-access
metadata:
  name: {preset}
  version: v1.0.0
spec:
  description: {title}, headless, in this checkout.
  # How it is started is in the preset: `toka plan` shows it. With a `command` of your own it is that, and the rest of the preset holds.
  process: {{preset: {preset}}}
  model: {models}
tasks:
  default:
    # In words, one after the other, in one conversation; a task with `run: …` is a command.
    - {task}
security:
  capabilities_required: [filesystem-read, filesystem-write, git-access, {capability}]
  resource_limits: {{max_memory: 2GB, timeout: 1h}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_free_of_warnings() {
        let folder = tempfile::tempdir().expect("a folder");
        let presets = Preset::ALL.map(|preset| (preset.name(), starter_of(preset)));
        for (name, text) in presets.into_iter().chain([("hello", STARTER.to_owned())]) {
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
