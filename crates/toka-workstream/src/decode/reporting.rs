//! `reporting`.

use toka_core::Declared;

use super::context::Context;
use super::keys::{METRIC, REPORTING};
use super::section::Section;
use super::texts::{choice, filled, text, texts_with_nodes};
use crate::diagnostic::{Code, Diagnostic};
use crate::model::{Channel, Frequency, Metric, Reporting};
use crate::read::{Entry, Node, Value};

const FREQUENCIES: &[(&str, Frequency)] = &[
    ("real-time", Frequency::RealTime),
    ("hourly", Frequency::Hourly),
    ("daily", Frequency::Daily),
    ("weekly", Frequency::Weekly),
    ("on-milestone", Frequency::OnMilestone),
    ("on-completion", Frequency::OnCompletion),
];

pub(crate) fn reporting(cx: &mut Context<'_>, node: &Node) -> Reporting {
    let Some(section) = Section::read(cx, node, &REPORTING) else { return Reporting::default() };
    Reporting {
        frequency: section
            .get("frequency")
            .and_then(|node| choice(cx, node, FREQUENCIES))
            .unwrap_or_default(),
        channels: section.get("channels").map(|node| channels(cx, node)).unwrap_or_default(),
        metrics: section.get("metrics").map(|node| metrics(cx, node)).unwrap_or_default(),
    }
}

fn channels(cx: &mut Context<'_>, node: &Node) -> Vec<Declared<Channel>> {
    let mut channels = Vec::new();
    for (text, node) in texts_with_nodes(cx, node) {
        match Channel::parse(&text) {
            Ok(channel) => channels.push(Declared::new(channel, cx.origin(node))),
            Err(message) => {
                let help = "`file`, `file: NAME`, `topic: NAME` and `webhook: URL` are places that reports are sent to";
                let problem = cx.at(Code::BadValue, message, node, "").help(help);
                // A URL may hold what only its receiver should know.
                cx.report(if text.contains("://") { problem.secret() } else { problem });
            }
        }
    }
    channels
}

/// A map name → description, a list of such one-key maps, a list of {name, description, type, unit}, or a
/// list of names.
fn metrics(cx: &mut Context<'_>, node: &Node) -> Vec<Metric> {
    match &node.value {
        Value::Map(entries) => entries.iter().filter_map(|entry| named(cx, entry)).collect(),
        Value::List(items) => items.iter().filter_map(|item| metric(cx, item)).collect(),
        Value::Scalar(_) => {
            cx.wrong_type(node, "a map or a list of metrics");
            Vec::new()
        }
    }
}

fn metric(cx: &mut Context<'_>, node: &Node) -> Option<Metric> {
    match &node.value {
        Value::Scalar(_) => filled(cx, node).map(bare),
        Value::Map(entries) => match entries.as_slice() {
            [entry] if entry.key.text != "name" => named(cx, entry),
            _ => full(cx, node),
        },
        Value::List(_) => {
            cx.wrong_type(node, "a metric");
            None
        }
    }
}

fn bare(name: String) -> Metric {
    Metric { name, description: None, kind: None, unit: None }
}

/// `name: description`, or `name: {description, type, unit}`.
fn named(cx: &mut Context<'_>, entry: &Entry) -> Option<Metric> {
    let mut metric = bare(entry.key.text.clone());
    match &entry.value.value {
        Value::Map(_) => {
            let section = Section::read(cx, &entry.value, &METRIC)?;
            rest(cx, &section, &mut metric);
        }
        _ if entry.value.is_null() => {}
        _ => metric.description = text(cx, &entry.value),
    }
    Some(metric)
}

fn full(cx: &mut Context<'_>, node: &Node) -> Option<Metric> {
    let section = Section::read(cx, node, &METRIC)?;
    let Some(name) = section.get("name") else {
        let problem =
            Diagnostic::new(Code::Missing, "the metric has no `name`").at(cx.file, section.span(), "");
        cx.report(problem);
        return None;
    };
    let mut metric = bare(filled(cx, name)?);
    rest(cx, &section, &mut metric);
    Some(metric)
}

fn rest(cx: &mut Context<'_>, section: &Section<'_>, metric: &mut Metric) {
    let mut take = |key| section.get(key).and_then(|node| text(cx, node));
    (metric.description, metric.kind, metric.unit) = (take("description"), take("type"), take("unit"));
}
