//! The plan for people: first the order, then each agent with everything that it will be held to, at last what a run
//! would do.

use std::path::Path;

use toka_core::{Coverage, ExitCode, Origin, SandboxMode};
use toka_prepare::confine::ProgramFile;
use toka_prepare::{ModelOffer, Problem};
use toka_workstream::describe::{life, quoted, started_text, words};
use toka_workstream::plan::{Gate, Node};
use toka_workstream::{Agent, AgentKind, Need, Process, Replica};

use super::View;
use super::facts::AgentFacts;
use super::grid::{LEAST, Row, grid};
use toka_terminal::palette::Palette;
use toka_terminal::text::{columns as width_of, count, safe};
use toka_terminal::wrap::wrap;

/// How many times of a schedule are shown.
pub(super) const NEXT_TIMES: usize = 5;

/// The whole view, `columns` wide at most, or [`LEAST`].
pub(super) fn text(view: &View, columns: usize, palette: Palette) -> String {
    let columns = columns.max(LEAST);
    let mut out = order(view, columns, palette);
    for (node, facts) in view.plan.nodes().iter().zip(&view.agents) {
        out.push('\n');
        out.push_str(&heading(node, facts, columns, palette));
        out.push_str(&grid(&rows(node, facts, palette), columns, palette));
    }
    out.push('\n');
    out.push_str(&verdict(view, columns, palette));
    out
}

fn order(view: &View, columns: usize, palette: Palette) -> String {
    let waves = view.plan.waves().count();
    let heading = format!("{} in {}", count(view.plan.len(), "agent"), count(waves, "wave"));
    let mut rows = Vec::new();
    for node in view.plan.nodes() {
        let label = format!("wave {}", node.wave + 1);
        rows.push(Row::new(&label, format!("{}, {}", node.agent, kind(node)), "").painted(palette.strong));
        rows.extend(node.gates.iter().map(|gate| Row::new(&label, waits(gate), place(&gate.origin, None))));
    }
    for dropped in view.plan.dropped() {
        let text = format!("{} does not wait for {}: that would be a circle", dropped.agent, dropped.on);
        rows.push(Row::new("left out", text, place(&dropped.origin, None)).painted(palette.warn));
    }
    format!("{}\n{}", palette.strong.paint(heading), grid(&rows, columns, palette))
}

fn kind(node: &Node) -> String {
    let kind = match node.kind {
        AgentKind::Task => "task",
        AgentKind::Service => "service",
    };
    format!("{kind}, {} priority", node.priority.as_str())
}

fn waits(gate: &Gate) -> String {
    let condition = match gate.need {
        Need::Required => gate.condition.to_string(),
        Need::Optional => format!("{}, or it has ended", gate.condition),
    };
    format!("after {}: {condition}", gate.on)
}

fn heading(node: &Node, facts: &AgentFacts, columns: usize, palette: Palette) -> String {
    let rule = "─".repeat(columns.saturating_sub(width_of(node.agent.as_str()) + 1));
    let title =
        if node.title == node.agent.as_str() { String::new() } else { format!("{}: ", safe(&node.title)) };
    let file = safe(&facts.agent.file.display().to_string());
    let lines = wrap(&format!("{title}{}, wave {}, {file}", kind(node), node.wave + 1), columns);
    format!("{} {}\n{}\n", palette.strong.paint(&node.agent), palette.faint.paint(rule), lines.join("\n"))
}

fn rows(node: &Node, facts: &AgentFacts, palette: Palette) -> Vec<Row> {
    let file = facts.agent.file.as_path();
    let mut rows = command(&facts.agent, facts, palette);
    if let Some(Replica { of, number, count }) = &facts.agent.replica {
        rows.push(Row::new("replica", format!("{number} of {count} of {of}"), ""));
    }
    rows.extend(node.gates.iter().map(|gate| {
        let need = match gate.need {
            Need::Required => "requires",
            Need::Optional => "optional",
        };
        let reason = if gate.reason.is_empty() { String::new() } else { format!(" ({})", gate.reason) };
        Row::new(need, format!("{}: {}{reason}", gate.on, gate.condition), place(&gate.origin, Some(file)))
    }));
    rows.extend(schedule(&facts.agent, facts.now));
    rows.extend(life_rows(&facts.agent, file));
    rows.extend(models(facts, palette));
    rows.extend(capabilities(facts, palette));
    let sandbox = &facts.agent.confinement.sandbox;
    if sandbox.value == SandboxMode::Off {
        let text = "OFF: an ordinary process of the user, held to its limits and to nothing else";
        rows.push(Row::new("sandbox", text, place(&sandbox.origin, Some(file))).painted(palette.bad));
    }
    rows.extend(
        facts
            .rules()
            .into_iter()
            .map(|rule| Row::new(rule.layer.as_str(), rule.rule.as_str(), place(&rule.origin, Some(file)))),
    );
    rows.extend(facts.shared.iter().map(|(place, shared)| {
        let first =
            shared.first.iter().map(|path| format!(", such as {}", path.display())).collect::<String>();
        let more = if shared.is_whole { "" } else { "at least " };
        let text = format!(
            "{more}{} in {} with names elsewhere{first}: what it writes there changes them there too",
            count(shared.files, "file"),
            place.display()
        );
        Row::new("hard links", text, "").painted(palette.warn)
    }));
    rows.extend(facts.short.iter().map(|report| {
        let how = if report.coverage == Coverage::None { "not at all" } else { "in part" };
        let text = format!("{} {how}: {}", report.layer.as_str(), report.reasons.join("; "));
        Row::new("enforced", text, "this host").painted(palette.warn)
    }));
    if let Err(problem) = &facts.confined {
        rows.push(Row::new("error", format!("no rules: {problem}"), "").painted(palette.bad));
    }
    rows
}

/// When the agent starts, how it is watched, starts again and ends.
fn life_rows(agent: &Agent, file: &Path) -> Vec<Row> {
    let from = |origin: Option<&Origin>| origin.map_or_else(String::new, |origin| place(origin, Some(file)));
    life(agent).into_iter().map(|told| Row::new(&told.key, told.text, from(told.origin.as_ref()))).collect()
}

/// When the clock starts it, and its next times.
pub(super) fn schedule(agent: &Agent, now: jiff::Timestamp) -> Vec<Row> {
    let Some(schedule) = &agent.schedule else { return Vec::new() };
    let zone = schedule.timezone.as_deref().map_or_else(String::new, |zone| format!(" in {zone}"));
    let from = place(&schedule.origin, Some(agent.file.as_path()));
    let mut rows = vec![Row::new("schedule", format!("{}{zone}", schedule.cron), from)];
    let times = schedule.times(now).take(NEXT_TIMES);
    rows.extend(times.map(|time| Row::new("schedule", schedule.shown(time), "next")));
    rows
}

/// What is executed, and where.
fn command(agent: &Agent, facts: &AgentFacts, palette: Palette) -> Vec<Row> {
    let file = agent.file.as_path();
    let mut rows = Vec::new();
    if let Some(process) = &agent.process {
        let from = place(&process.command_origin, Some(file));
        rows.push(Row::new("command", started_text(process), from));
        rows.extend(program(process, facts, palette));
        if let Some(argv) = &facts.started {
            rows.push(Row::new("starts", words(argv), "for each task, by the preset"));
        }
        let folder = &process.working_dir;
        rows.push(Row::new(
            "folder",
            facts.working_dir.display().to_string(),
            place(&folder.origin, Some(file)),
        ));
    } else {
        rows.push(Row::new("folder", facts.working_dir.display().to_string(), "default: the workspace"));
    }
    let needs_model: Vec<&Origin> = agent.needs_model().map(|task| &task.origin).collect();
    for task in &agent.tasks {
        let from = place(&task.origin, Some(file));
        rows.push(match &task.run {
            Some(run) if agent.is_run_by_task() => {
                Row::new("task", format!("{}: /bin/sh -c {}", task.description, quoted(run)), from)
            }
            _ if needs_model.contains(&&task.origin) => {
                Row::new("task", format!("{}: a model works on it", task.description), from)
            }
            _ => Row::new("task", task.description.as_str(), from),
        });
    }
    rows
}

/// The program that a bare name stands for, or that there is none.
fn program(process: &Process, facts: &AgentFacts, palette: Palette) -> Option<Row> {
    let word = process.program()?;
    let confined = facts.confined.as_ref().ok()?;
    match &confined.program {
        Some(ProgramFile::Awaited(path)) => {
            let from = "not there yet: what comes before may make it";
            Some(Row::new("program", path.display().to_string(), from).painted(palette.warn))
        }
        Some(ProgramFile::Found(path)) if Path::new(word) == path => None,
        Some(ProgramFile::Found(path)) => {
            let from = if word.contains('/') { "from the working folder" } else { "found on PATH" };
            Some(Row::new("program", path.display().to_string(), from))
        }
        None => Some(Row::new("program", "not found", "").painted(palette.warn)),
    }
}

/// The models that it asks, in their order, and what they cost.
fn models(facts: &AgentFacts, palette: Palette) -> Vec<Row> {
    let file = facts.agent.file.as_path();
    let row = |offer: &ModelOffer| {
        let from =
            offer.origin.as_ref().map_or_else(|| "chosen by you".to_owned(), |at| place(at, Some(file)));
        match (&offer.unusable, offer.price) {
            (Some(why), _) => {
                Row::new("model", format!("{}: not asked, {why}", offer.model), from).painted(palette.warn)
            }
            (None, Some(price)) => {
                let (read, written) = (price.input, price.output);
                let text = format!("{}: ${read} for a million tokens read, ${written} written", offer.model);
                Row::new("model", text, from)
            }
            (None, None) => Row::new("model", format!("{}: unpriced", offer.model), from),
        }
    };
    let budget = facts.budget.iter().flat_map(|budget| {
        let declared = budget.origin.as_ref().map(|at| place(at, Some(file)));
        let person = |is_theirs: bool| if is_theirs { "yours" } else { "default" }.to_owned();
        [
            Row::new(
                "budget",
                budget.agent.to_string(),
                declared.unwrap_or_else(|| person(budget.is_persons)),
            ),
            Row::new(
                "budget",
                format!("{} for all agents of the run", budget.run),
                person(budget.is_run_persons),
            ),
        ]
    });
    facts.models.iter().map(row).chain(budget).collect()
}

fn capabilities(facts: &AgentFacts, palette: Palette) -> Vec<Row> {
    let file = facts.agent.file.as_path();
    let rows = facts.demands.all.iter().map(|demand| {
        let from = place(&demand.origin, Some(file));
        let refusal = facts.demands.refused.iter().find(|(refused, _)| refused == demand);
        match refusal {
            Some((_, refusal)) => {
                Row::new("asks for", format!("REFUSED: {refusal}"), from).painted(palette.bad)
            }
            None if demand.value.known().is_none() => {
                Row::new("asks for", format!("{}: a label, opens nothing", demand.value), from)
            }
            None => Row::new("asks for", format!("{}: granted", demand.value), from),
        }
    });
    rows.collect()
}

fn verdict(view: &View, columns: usize, palette: Palette) -> String {
    let verdict = &view.verdict;
    if verdict.exit_code() == ExitCode::Success {
        return format!("{}\n", palette.good.paint("`toka run` would start this."));
    }
    let code = verdict.exit_code() as u8;
    let mut out = format!(
        "{}\n",
        palette.bad.paint(format!("`toka run` would start nothing and end with exit status {code}:"))
    );
    let row = |problem: &Problem| {
        Row::new("", format!("{}: {}", problem.agent, problem.message), place(&problem.origin, None))
    };
    let rows: Vec<Row> = verdict.problems.iter().map(row).collect();
    out.push_str(&grid(&rows, columns, palette));
    for help in verdict.help() {
        let lines = wrap(help, columns.saturating_sub(6)).join("\n      ");
        out.push_str(&format!("{} {lines}\n", palette.accent.paint("help:")));
    }
    out
}

/// An origin as people look it up; the file's folder is left out where the heading names it.
fn place(origin: &Origin, heading: Option<&Path>) -> String {
    match origin {
        Origin::File { file, line, .. } if heading.is_some_and(|path| path.as_os_str() == &**file) => {
            let name = Path::new(&**file)
                .file_name()
                .map_or_else(|| file.to_string(), |n| n.to_string_lossy().into());
            format!("{name}:{line}")
        }
        other => other.to_string(),
    }
}
