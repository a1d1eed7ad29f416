//! `metadata`.

use schemars::JsonSchema;

use super::kinds;

/// Who the agent is.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Metadata {
    /// The agent's name, unique in its project: lower-case letters, digits and inner hyphens, at most 63.
    #[schemars(schema_with = "kinds::name", extend("examples" = ["checks"]))]
    name: String,
    /// The version of the workstream, free text.
    #[serde(default)]
    #[schemars(schema_with = "kinds::text", extend("default" = "v0", "examples" = ["v1.0.0"]))]
    version: String,
    /// When it was written, free text.
    #[serde(default)]
    #[schemars(schema_with = "kinds::text", extend("examples" = ["2026-11-20"]))]
    created: String,
    /// When it was last changed, free text.
    #[serde(default)]
    #[schemars(schema_with = "kinds::text", extend("examples" = ["2026-11-21"]))]
    modified: String,
    /// The workstream that the agent belongs to; by default the file's name without its extension.
    #[serde(default)]
    #[schemars(schema_with = "kinds::text", extend("examples" = ["Repository health"]))]
    workstream: String,
    /// The git branch that the work is meant for.
    #[serde(default)]
    #[schemars(schema_with = "kinds::text", extend("examples" = ["main"]))]
    branch: String,
    /// The version of this format that the file was written for, free text.
    #[serde(default)]
    #[schemars(schema_with = "kinds::text", extend("examples" = ["1"]))]
    schema_version: String,
    /// SHA-256 of the document without the line of this key, in hexadecimal. A mismatch is a warning.
    #[serde(default)]
    #[schemars(schema_with = "kinds::text", extend("examples" = ["sha256:486d69466c37d30ee94c73ba6639a8efced2bd10cc4b79ba9397a4910bc8f89e"]))]
    checksum: String,
}
