//! `metadata`: who the agent is.

use std::ops::Range;

use toka_core::AgentName;

use super::checksum;
use super::context::Context;
use super::keys::METADATA;
use super::section::Section;
use super::texts::{filled, name, text};
use crate::diagnostic::{Code, Diagnostic, Severity};
use crate::model::Metadata;
use crate::read::{Document, Node};

/// What `metadata` says.
pub(crate) struct Identity {
    pub(crate) name: Option<(AgentName, Range<usize>)>,
    pub(crate) version: Option<String>,
    pub(crate) workstream: Option<String>,
    pub(crate) rest: Metadata,
}

pub(crate) fn metadata(
    cx: &mut Context<'_>,
    node: Option<&Node>,
    document: &Document,
    document_start: Range<usize>,
) -> Identity {
    let empty = Identity { name: None, version: None, workstream: None, rest: Metadata::default() };
    let Some(node) = node else {
        cx.report(missing_name(cx, document_start));
        return empty;
    };
    let Some(section) = Section::read(cx, node, &METADATA) else { return empty };
    let name = match section.get("name") {
        Some(node) => text(cx, node)
            .and_then(|text| name(cx, &text, node, Severity::Error))
            .map(|name| (name, node.span.clone())),
        None if section.perhaps("name") => None,
        None => {
            cx.report(missing_name(cx, section.span()));
            None
        }
    };
    let mut take = |key| section.get(key).and_then(|node| text(cx, node));
    let rest = Metadata {
        schema_version: take("schema_version"),
        created: take("created"),
        modified: take("modified"),
        branch: take("branch"),
        checksum: take("checksum"),
    };
    let version = take("version");
    let workstream = section.get("workstream").and_then(|node| filled(cx, node));
    if let (Some(written), Some(entry)) = (&rest.checksum, section.entry("checksum")) {
        checksum::check(cx, written, entry, document);
    }
    Identity { name, version, workstream, rest }
}

fn missing_name(cx: &Context<'_>, span: Range<usize>) -> Diagnostic {
    Diagnostic::new(Code::Missing, "`metadata.name` is missing").at(cx.file, span, "no name here").help(
        "every agent has a name of lower-case letters, digits and hyphens: `metadata: {name: my-agent}`",
    )
}
