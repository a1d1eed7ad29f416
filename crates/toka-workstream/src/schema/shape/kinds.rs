//! Schemas of single values. The title names the kind of value in editors and in the reference.

use schemars::{Schema, SchemaGenerator, json_schema};

/// Any single value, read as text: a version `1.0` is the text `1.0`.
pub(super) fn text(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"title": "text", "type": ["string", "number", "boolean"]})
}

/// One text or several.
pub(super) fn texts(_: &mut SchemaGenerator) -> Schema {
    let text = ["string", "number", "boolean"];
    json_schema!({
        "title": "list of texts",
        "anyOf": [
            {"type": text},
            {"type": "array", "items": {"anyOf": [
                {"type": text},
                {"type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": {"type": text}}
            ]}}
        ]
    })
}

/// A program and its arguments.
pub(super) fn argv(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "title": "command",
        "anyOf": [
            {"type": "array", "minItems": 1, "items": {"type": ["string", "number", "boolean"]}},
            {"type": "string", "pattern": "^\\S+$"}
        ]
    })
}

/// A program and its arguments, or a line for the shell.
pub(super) fn command(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "title": "command or shell line",
        "anyOf": [
            {"type": "array", "minItems": 1, "items": {"type": ["string", "number", "boolean"]}},
            {"type": "string"}
        ]
    })
}

/// One command, or a list of them.
pub(super) fn commands(_: &mut SchemaGenerator) -> Schema {
    let argv = serde_json::json!({"type": "array", "items": {"type": ["string", "number", "boolean"]}});
    json_schema!({
        "title": "command, or list of commands",
        "anyOf": [argv, {"type": "array", "items": argv}, {"type": "string", "pattern": "^\\S+$"}]
    })
}

pub(super) fn duration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"title": "duration", "type": ["string", "number"]})
}

pub(super) fn size(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"title": "size", "type": ["string", "number"]})
}

pub(super) fn rate(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"title": "rate", "type": ["string", "number"]})
}

pub(super) fn share(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"title": "share of CPU", "type": ["string", "number"]})
}

/// A DNS label.
pub(super) fn name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "title": "name",
        "type": ["string", "integer"],
        "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
    })
}

pub(super) fn port(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"title": "port", "type": "integer", "minimum": 1, "maximum": 65535})
}

/// A map of names and texts.
pub(super) fn text_map(_: &mut SchemaGenerator) -> Schema {
    let values = serde_json::json!({"type": ["string", "number", "boolean", "null"]});
    json_schema!({
        "title": "map of texts",
        "anyOf": [
            {"type": "object", "additionalProperties": values},
            {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "object", "additionalProperties": values}]}}
        ]
    })
}
