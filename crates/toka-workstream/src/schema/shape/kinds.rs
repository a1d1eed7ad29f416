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

/// A number as units follow it.
const NUMBER: &str = r"[+]?[0-9._]+\s*";

/// The units of time, in any case ([`toka_core::units::parse_duration`]).
const TIME_UNITS: [&str; 24] = [
    "milliseconds",
    "millisecond",
    "ms",
    "seconds",
    "second",
    "secs",
    "sec",
    "s",
    "minutes",
    "minute",
    "mins",
    "min",
    "m",
    "hours",
    "hour",
    "hrs",
    "hr",
    "h",
    "days",
    "day",
    "d",
    "weeks",
    "week",
    "w",
];

pub(super) fn duration(_: &mut SchemaGenerator) -> Schema {
    let units = TIME_UNITS.map(any_case).join("|");
    let pattern = format!(r"^\s*(({NUMBER}({units})\s*)+|{NUMBER})$");
    json_schema!({"title": "duration", "type": ["string", "number"], "pattern": pattern})
}

pub(super) fn size(_: &mut SchemaGenerator) -> Schema {
    let pattern = format!(r"^\s*{NUMBER}[kKmMgGtT]?([iI]?[bB])?\s*$");
    json_schema!({"title": "size", "type": ["string", "number"], "pattern": pattern})
}

/// A number of things, with `k`, `M` or `G`.
pub(super) fn amount(_: &mut SchemaGenerator) -> Schema {
    let pattern = format!(r"^\s*{NUMBER}[kKmMgG]?\s*$");
    json_schema!({"title": "amount", "type": ["string", "number"], "pattern": pattern, "minimum": 0})
}

/// US dollars.
pub(super) fn money(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"title": "US dollars", "type": ["string", "number"], "pattern": r"^\s*\$?\s*[0-9.]+\s*$", "minimum": 0, "maximum": 1_000_000})
}

pub(super) fn rate(_: &mut SchemaGenerator) -> Schema {
    let pattern = format!(r"^\s*{NUMBER}[kKmMgGtT]?([iI]?[bB](ps|its?)?)?(/(s|sec|second))?\s*$");
    json_schema!({"title": "rate", "type": ["string", "number"], "pattern": pattern})
}

pub(super) fn share(_: &mut SchemaGenerator) -> Schema {
    let pattern = format!(r"^\s*{NUMBER}%?\s*$");
    json_schema!({"title": "share of CPU", "type": ["string", "number"], "pattern": pattern})
}

/// A signal by its name or number.
pub(super) fn signal(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "title": "signal",
        "anyOf": [
            {"type": "integer", "minimum": 1, "maximum": 64},
            {"type": "string", "pattern": r"^\s*[A-Za-z]+[0-9]?\s*$"}
        ]
    })
}

/// An expression of cron(5).
pub(super) fn cron(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"title": "text", "type": "string", "pattern": r"^\s*(@[A-Za-z]+|\S+(\s+\S+){4,6})\s*$"})
}

/// A pattern for a word in capitals or not; flags are no part of a schema's patterns.
fn any_case(word: &str) -> String {
    word.chars().map(|c| format!("[{c}{}]", c.to_ascii_uppercase())).collect()
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

#[cfg(test)]
mod tests {
    use toka_core::units::parse_duration;

    use super::TIME_UNITS;

    #[test]
    fn the_units_of_the_schema_are_those_of_the_decoder() {
        for unit in TIME_UNITS {
            assert!(parse_duration(&format!("1{unit}")).is_ok(), "{unit}");
        }
    }
}
