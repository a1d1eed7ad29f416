//! `logs`.

use toka_core::{ByteSize, Compression, Declared, LogPolicy, WhenFull};

use super::context::Context;
use super::keys::LOGS;
use super::quantities::{duration, size};
use super::section::Section;
use super::texts::{choice, truth};
use crate::diagnostic::{Code, Diagnostic};
use crate::model::Logs;
use crate::read::Node;

const WHEN_FULL: &[(&str, WhenFull)] = &[("drop", WhenFull::Drop), ("block", WhenFull::Block)];

pub(crate) fn logs(cx: &mut Context<'_>, node: &Node) -> Logs {
    let mut out = Logs::default();
    let Some(section) = Section::read(cx, node, &LOGS) else { return out };
    let max_size = section.get("max_size").and_then(|node| size(cx, node, LogPolicy::LEAST_SIZE));
    let total = section.get("total").and_then(|node| size(cx, node, LogPolicy::LEAST_TOTAL));
    sizes(cx, &section, &mut out, max_size, total);
    if let Some(age) = section.get("max_age").and_then(|node| duration(cx, node)) {
        out.max_age = age;
    }
    if let Some(compress) = section.get("compress").and_then(|node| truth(cx, node)) {
        out.compression = if compress { Compression::Gzip } else { Compression::Off };
    }
    if let Some(when_full) = section.get("when_full").and_then(|node| choice(cx, node, WHEN_FULL)) {
        out.when_full = when_full;
    }
    out
}

/// A log that may grow beyond all logs together is a slip; where only one of both sizes is declared, the other follows it.
fn sizes(
    cx: &mut Context<'_>,
    section: &Section<'_>,
    out: &mut Logs,
    max_size: Option<Declared<ByteSize>>,
    total: Option<Declared<ByteSize>>,
) {
    let (max_size, total) = (max_size.map(|size| size.value), total.map(|size| size.value));
    let half = |total: ByteSize| ByteSize(total.0 / 2);
    out.total = total.unwrap_or_else(|| max_size.map_or(out.total, |size| out.total.max(twice(size))));
    out.max_size = max_size.unwrap_or_else(|| out.max_size.min(half(out.total)));
    if out.max_size > half(out.total) {
        let message =
            format!("{} for one log leaves no room for an older one in {}", out.max_size, out.total);
        let mut problem = Diagnostic::new(Code::Conflict, message);
        for key in ["total", "max_size"] {
            problem = section
                .entry(key)
                .into_iter()
                .fold(problem, |problem, entry| problem.at(cx.file, entry.value.span.clone(), ""));
        }
        cx.report(problem.help("make `total` at least twice `max_size`"));
    }
}

fn twice(size: ByteSize) -> ByteSize {
    ByteSize(size.0.saturating_mul(2))
}
