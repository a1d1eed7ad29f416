//! Makes the schema.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::shape::Document;

/// What editors call the schema.
const TITLE: &str = "Toka workstream";

/// A version of JSON Schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Draft {
    /// The current one.
    Draft202012,
    /// The one that most editors understand.
    Draft07,
}

/// The schema as text, as it is committed in `schemas/`.
pub fn to_text(draft: Draft) -> String {
    let mut text = serde_json::to_string_pretty(&generate(draft)).unwrap_or_default();
    text.push('\n');
    text
}

/// The schema of one document.
pub(super) fn generate(draft: Draft) -> Value {
    let settings = match draft {
        Draft::Draft202012 => SchemaSettings::draft2020_12(),
        Draft::Draft07 => SchemaSettings::draft07(),
    };
    let mut schema = settings.into_generator().into_root_schema_for::<Document>().to_value();
    tidy(&mut schema);
    with_head(schema)
}

/// What says which schema this is comes first, where people and tools look for it.
fn with_head(mut schema: Value) -> Value {
    let Some(map) = schema.as_object_mut() else { return schema };
    let mut out = Map::new();
    for key in ["$schema", "title", "description"] {
        if let Some(value) = map.remove(key) {
            out.insert(key.to_owned(), value);
        }
    }
    out.insert("title".to_owned(), Value::from(TITLE));
    out.append(map);
    Value::Object(out)
}

/// Brings the derived schema into the form that is shown, from the outside in.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if let Some(Value::String(text)) = map.get_mut("description") {
                *text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            }
            // What the derive makes of an absent text is no default of ours.
            if map.get("default").is_some_and(|default| default == "") {
                map.remove("default");
            }
            let required = map.get("required").cloned().unwrap_or_default();
            for (key, value) in map.iter_mut() {
                if let ("properties", Value::Object(properties)) = (key.as_str(), &mut *value) {
                    let is_required =
                        |key: &str| required.as_array().is_some_and(|keys| keys.iter().any(|k| k == key));
                    properties
                        .iter_mut()
                        .filter(|(key, _)| !is_required(key))
                        .for_each(|(_, p)| allow_nothing(p));
                }
                tidy(value);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// Behind a key nothing may stand, which means the default.
fn allow_nothing(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else { return };
    let nothing = json!({"type": "null"});
    match map.get_mut("type") {
        Some(Value::Array(kinds)) if kinds.iter().any(|kind| kind == "null") => return,
        Some(Value::Array(kinds)) => return kinds.push(Value::from("null")),
        Some(kind) => return *kind = json!([kind, "null"]),
        None => {}
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(Value::Array(choices)) = map.get_mut(key) {
            if !choices.contains(&nothing) {
                choices.push(nothing);
            }
            return;
        }
    }
    for key in ["$ref", "allOf"] {
        if let Some(inner) = map.remove(key) {
            map.insert("anyOf".to_owned(), json!([{key: inner}, nothing]));
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::decode::keys::ALL;

    /// `PROBE_EXEC` is `ProbeExec` in the schema.
    fn definition_name(constant: &str) -> String {
        let words = constant.split('_').map(|word| word[..1].to_owned() + &word[1..].to_lowercase());
        words.collect()
    }

    fn keys_of(definition: &Value) -> BTreeSet<&str> {
        definition["properties"]
            .as_object()
            .map(|keys| keys.keys().map(String::as_str).collect())
            .unwrap_or_default()
    }

    #[test]
    fn the_decoder_and_the_schema_know_the_same_keys() {
        let schema = generate(Draft::Draft202012);
        let mut told = BTreeSet::from(["LogLine".to_owned()]);
        for (constant, keys) in ALL {
            let name = definition_name(constant);
            let definition = if name == "Document" { &schema } else { &schema["$defs"][&name] };
            assert_eq!(keys_of(definition), keys.names.iter().copied().collect(), "{name}");
            told.insert(name);
        }
        for (name, definition) in schema["$defs"].as_object().expect("definitions") {
            assert!(
                told.contains(name) || keys_of(definition).is_empty(),
                "{name} is not read by the decoder"
            );
        }
    }

    #[test]
    fn every_key_has_a_description_and_an_example() {
        for draft in [Draft::Draft202012, Draft::Draft07] {
            let schema = generate(draft);
            let definitions = schema.get("$defs").or(schema.get("definitions")).expect("definitions");
            let all = definitions
                .as_object()
                .expect("a map")
                .iter()
                .map(|(name, definition)| (name.as_str(), definition));
            for (name, definition) in all.chain([("Document", &schema)]) {
                for (key, property) in definition["properties"].as_object().into_iter().flatten() {
                    assert!(property["description"].is_string(), "{name}.{key} in {draft:?}: {property}");
                    assert!(property["examples"][0] != Value::Null, "{name}.{key} in {draft:?}: {property}");
                }
            }
        }
    }
}
