//! All that is known of an agent, in a box: how it is, what it declares, what confines it.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use toka_api::wire::AgentView;
use toka_core::budget::Scope;
use toka_core::{AgentStatus, Coverage};

use super::columns::doing;
use super::popup;
use crate::top::model::Model;
use crate::top::rows::AgentId;
use crate::top::theme::{Theme, style};
use toka_terminal::text::{columns, safe};
use toka_terminal::wrap::wrap;
use toka_terminal::{health, list};

/// Columns of what a line is about, with the gap behind it.
const KEYS: usize = 11;
/// Columns of the text at most: longer lines are hard to read.
const WIDEST: u16 = 110;

/// A line: what it is about, and what is known.
type Fact = (String, String, Style);

pub(super) fn draw(model: &Model, from: usize, theme: Theme, whole: Rect, cells: &mut Buffer) {
    let Some(details) = &model.details else { return };
    let area = Rect { height: whole.height - 1, ..whole };
    let width = (area.width.saturating_sub(6)).min(WIDEST);
    let facts = facts(model, &details.agent, details.view.as_ref(), theme);
    let lines = lines(facts, usize::from(width));
    let height = u16::try_from(lines.len()).unwrap_or(u16::MAX);
    let title = details.agent.to_string();
    let inside = popup::open(&title, (width, height), theme, area, cells);
    let from = from.min(lines.len().saturating_sub(usize::from(inside.height)));
    for ((key, text, look), y) in lines.iter().skip(from).zip(inside.y..inside.bottom()) {
        cells.set_string(inside.x, y, key, theme.faint);
        cells.set_string(inside.x + KEYS as u16, y, text, *look);
    }
    let below = lines.len() - from;
    if below > usize::from(inside.height) {
        let more = format!(" {} more below ", below - usize::from(inside.height));
        cells.set_string(inside.x, inside.bottom(), more, theme.faint);
    }
}

/// A text that is longer than the screen is wide continues in the next line.
fn lines(facts: Vec<Fact>, width: usize) -> Vec<Fact> {
    let mut lines: Vec<Fact> = Vec::new();
    let mut former = String::new();
    for (key, text, look) in facts {
        let shown = if key == former { String::new() } else { key.clone() };
        former = key;
        for (at, part) in wrap(&text, width.saturating_sub(KEYS)).into_iter().enumerate() {
            lines.push((if at == 0 { shown.clone() } else { String::new() }, part, look));
        }
    }
    lines
}

fn facts(model: &Model, id: &AgentId, view: Option<&Result<AgentView, String>>, theme: Theme) -> Vec<Fact> {
    let mut facts = Vec::new();
    match model.agent(id) {
        Some((_, agent)) => now(model, id, agent, theme, &mut facts),
        None => facts.push(("state".to_owned(), "it is gone".to_owned(), theme.bad)),
    }
    match view {
        None => facts.push(("declared".to_owned(), "asking …".to_owned(), theme.faint)),
        Some(Err(why)) => facts.push(("declared".to_owned(), safe(why), theme.bad)),
        Some(Ok(view)) => {
            used(view, &mut facts);
            declared(view, &mut facts);
        }
    }
    if let Some((_, agent)) = model.agent(id) {
        confined(agent, theme, &mut facts);
    }
    facts
}

/// How it is.
fn now(model: &Model, id: &AgentId, agent: &AgentStatus, theme: Theme, facts: &mut Vec<Fact>) {
    let mut add = |key: &str, text: String, look: Style| facts.push((key.to_owned(), text, look));
    if *agent.title != *agent.name.as_str() && !agent.title.is_empty() {
        add("title", safe(&agent.title), Style::new());
    }
    let pid = list::pid(&agent.state).map_or_else(String::new, |pid| format!(", pid {pid}"));
    let since = list::age(agent.since_ms, model.now_ms);
    let state = format!("{} for {since}{pid}", agent.state.as_str());
    add("state", state, style(list::paint(agent, theme.palette)));
    let what = doing(model, id, agent);
    if !what.is_empty() {
        add("why", what, Style::new());
    }
    if let Some(judged) = model.judged(id) {
        add("health", judged.verdict.to_string(), style(health::paint(judged.verdict, theme.palette)));
        for reason in &judged.reasons {
            add("", safe(&reason.to_string()), Style::new());
        }
    }
    for probe in &agent.probes {
        let (how, look) = if probe.ok { ("succeeds", theme.good) } else { ("fails", theme.warn) };
        let since = list::age(probe.since_ms, model.now_ms);
        add("probes", format!("{}: {how} for {since}: {}", probe.probe, safe(&probe.reason)), look);
    }
    if agent.restart_count > 0 {
        add("restarted", format!("{} times", agent.restart_count), theme.warn);
    }
    if let Some(last) = &agent.last {
        let ago = list::age(last.ended_ms, model.now_ms);
        add("last end", format!("{ago} ago: {}", safe(&last.usage.tell(&last.exit))), Style::new());
    }
    for (name, value) in &agent.metrics {
        add("metrics", format!("{} {value}", safe(name)), Style::new());
    }
    let needed: Vec<String> = dependents(model, id);
    if !needed.is_empty() {
        add("needed by", needed.join(", "), Style::new());
    }
}

/// Who waits for it.
fn dependents(model: &Model, id: &AgentId) -> Vec<String> {
    let Some(project) = model.projects.get(&id.project) else { return Vec::new() };
    let agents = project.status.agents().iter().filter(|agent| agent.depends_on.contains(&id.agent));
    agents.map(|agent| agent.name.to_string()).collect()
}

/// What is used of its budget, and of that of all together.
fn used(view: &AgentView, facts: &mut Vec<Fact>) {
    for scope in [Scope::Agent, Scope::Run] {
        let of_scope = view.budget.iter().filter(|used| used.scope == scope);
        let told: Vec<String> = of_scope.map(ToString::to_string).collect();
        if !told.is_empty() {
            facts.push(("used".to_owned(), format!("by {scope}: {}", told.join(", ")), Style::new()));
        }
    }
}

fn declared(view: &AgentView, facts: &mut Vec<Fact>) {
    for row in &view.declared {
        let line = |origin: &toka_core::Origin| match origin {
            toka_core::Origin::File { line, .. } => format!("  (line {line})"),
            other => format!("  ({other})"),
        };
        let place = row.origin.as_ref().map_or_else(String::new, line);
        facts.push((row.key.to_string(), format!("{}{place}", safe(&row.text)), Style::new()));
    }
}

/// What the kernel holds it to.
fn confined(agent: &AgentStatus, theme: Theme, facts: &mut Vec<Fact>) {
    let Some(enforcement) = &agent.enforcement else { return };
    for layer in &enforcement.layers {
        let (how, look) = match layer.coverage {
            Coverage::Full => ("in full", theme.good),
            Coverage::Partial => ("in part", theme.warn),
            Coverage::None => ("not at all", theme.bad),
        };
        let why =
            if layer.reasons.is_empty() { String::new() } else { format!(": {}", layer.reasons.join("; ")) };
        let name = layer.layer.as_str();
        let pad = " ".repeat(10_usize.saturating_sub(columns(name)));
        facts.push(("enforced".to_owned(), format!("{name}{pad} {how}{}", safe(&why)), look));
    }
}
