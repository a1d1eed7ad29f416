//! `tasks`: what the agent is to do.

use std::ops::Range;

use std::time::Duration;

use toka_core::{Origin, Priority};

use super::context::Context;
use super::keys::{RETRY, TASK, TASKS};
use super::quantities::{duration, integer, number};
use super::section::{Section, pairs};
use super::texts::{choice, filled, text, texts, texts_with_nodes};
use crate::diagnostic::{Code, Diagnostic};
use crate::load::LoadOptions;
use crate::model::{Retry, Task};
use crate::read::{Node, Value, shorten};

pub(crate) const PRIORITIES: &[(&str, Priority)] = &[
    ("critical", Priority::Critical),
    ("high", Priority::High),
    ("medium", Priority::Medium),
    ("low", Priority::Low),
];

/// The tasks that are switched on, and the names of all groups.
#[derive(Default)]
pub(crate) struct Tasks {
    pub(crate) tasks: Vec<Task>,
    /// Where each of them stands.
    spans: Vec<Range<usize>>,
    pub(crate) groups: Vec<String>,
    /// Whether there is any task, switched on or not.
    pub(crate) any: bool,
}

impl Tasks {
    /// Where the tasks stand that have no command.
    pub(crate) fn without_run(&self) -> impl Iterator<Item = Range<usize>> {
        self.tasks
            .iter()
            .zip(&self.spans)
            .filter(|(task, _)| task.run.is_none())
            .map(|(_, span)| span.clone())
    }

    /// After all others, a person says what is to be done, again and again.
    pub(crate) fn talk(&mut self, origin: Origin, span: Range<usize>) {
        self.any = true;
        self.spans.push(span);
        self.tasks.push(Task {
            description: "what a person says (`toka chat`)".to_owned(),
            priority: Priority::Low,
            group: None,
            run: None,
            talk: true,
            timeout: None,
            retry: Retry::ONCE,
            depends_on: (0..self.tasks.len()).collect(),
            estimated_duration: None,
            tools_required: Vec::new(),
            origin,
        });
    }

    fn take(&mut self, cx: &mut Context<'_>, drafts: &[Draft<'_>]) {
        self.spans = drafts.iter().map(|draft| draft.node.span.clone()).collect();
        self.tasks = resolve(cx, drafts);
    }
}

/// A task whose references are still words.
struct Draft<'n> {
    task: Task,
    after: Vec<(String, &'n Node)>,
    node: &'n Node,
}

pub(crate) fn tasks(cx: &mut Context<'_>, node: &Node, options: &LoadOptions) -> Tasks {
    let mut out = Tasks::default();
    // `tasks: [..]` stands for a map with those as `default`.
    if matches!(node.value, Value::List(_)) {
        let drafts = drafts(cx, node, None);
        out.any = !drafts.is_empty();
        out.take(cx, &drafts);
        return out;
    }
    let Some(section) = Section::read(cx, node, &TASKS) else { return out };
    let mut enabled = section.get("default").map(|node| drafts(cx, node, None)).unwrap_or_default();
    out.any = !enabled.is_empty();
    if let Some(node) = section.get("conditional") {
        for entry in pairs(cx, node, "a map of groups of tasks").unwrap_or_default() {
            let group = &entry.key.text;
            // Groups that are switched off are checked all the same.
            let drafts = drafts(cx, &entry.value, Some(group));
            out.any |= !drafts.is_empty();
            out.groups.push(group.clone());
            if options.enable.contains(group) {
                enabled.extend(drafts);
            }
        }
    }
    out.take(cx, &enabled);
    out
}

fn drafts<'n>(cx: &mut Context<'_>, node: &'n Node, group: Option<&str>) -> Vec<Draft<'n>> {
    match &node.value {
        Value::List(items) => items.iter().filter_map(|item| draft(cx, item, group)).collect(),
        _ if node.is_null() => Vec::new(),
        _ => {
            cx.wrong_type(node, "a list of tasks");
            Vec::new()
        }
    }
}

fn draft<'n>(cx: &mut Context<'_>, node: &'n Node, group: Option<&str>) -> Option<Draft<'n>> {
    let mut task = Task {
        description: String::new(),
        priority: Priority::Medium,
        group: group.map(str::to_owned),
        run: None,
        talk: false,
        timeout: None,
        retry: Retry::ONCE,
        depends_on: Vec::new(),
        estimated_duration: None,
        tools_required: Vec::new(),
        origin: cx.origin(node),
    };
    if let Value::Scalar(_) = node.value {
        task.description = filled(cx, node)?;
        return Some(Draft { task, after: Vec::new(), node });
    }
    let section = Section::read(cx, node, &TASK)?;
    task.run = section.get("run").and_then(|node| filled(cx, node));
    match section.get("description") {
        Some(node) => task.description = filled(cx, node)?,
        None if section.perhaps("description") => {}
        None => {
            let problem = Diagnostic::new(Code::Missing, "the task has no `description`")
                .at(cx.file, section.span(), "what is it for?")
                .help("say in a few words what the task does");
            cx.report(problem);
        }
    }
    if let Some(priority) = section.get("priority").and_then(|node| choice(cx, node, PRIORITIES)) {
        task.priority = priority;
    }
    task.timeout = section.get("timeout").and_then(|node| duration(cx, node));
    section.exclude(cx, "estimated_duration", "estimated_time");
    let estimate = section.get("estimated_duration").or_else(|| section.get("estimated_time"));
    task.estimated_duration = estimate.and_then(|node| text(cx, node));
    task.tools_required = section.get("tools_required").map(|node| texts(cx, node)).unwrap_or_default();
    if let Some(node) = section.get_or_null("retry") {
        task.retry = retry(cx, node);
    }
    let after = section.get("dependencies").map(|node| texts_with_nodes(cx, node)).unwrap_or_default();
    Some(Draft { task, after, node })
}

fn retry(cx: &mut Context<'_>, node: &Node) -> Retry {
    let mut out = Retry { max_attempts: Retry::DEFAULT_ATTEMPTS, ..Retry::ONCE };
    // `retry: 3` stands for a map with that many attempts.
    if matches!(&node.value, Value::Scalar(scalar) if !scalar.is_null()) {
        out.max_attempts = integer(cx, node, 1..=1000).unwrap_or(1);
        return out;
    }
    let Some(section) = Section::read(cx, node, &RETRY) else { return out };
    if let Some(count) = section.get("max_attempts").and_then(|node| integer(cx, node, 1..=1000)) {
        out.max_attempts = count;
    }
    let mut time = |key, into: &mut Duration| {
        if let Some(value) = section.get(key).and_then(|node| duration(cx, node)) {
            *into = value;
        }
    };
    time("initial", &mut out.initial);
    time("max", &mut out.max);
    if let Some(value) = section.get("multiplier").and_then(|node| number(cx, node, 1.0..=100.0)) {
        out.multiplier = value;
    }
    out
}

/// Turns the words that tasks name each other by into positions, and looks for circles.
fn resolve(cx: &mut Context<'_>, drafts: &[Draft<'_>]) -> Vec<Task> {
    let mut positions = std::collections::HashMap::new();
    for (at, draft) in drafts.iter().enumerate() {
        positions.entry(draft.task.description.trim().to_lowercase()).or_insert(at);
    }
    let mut tasks = Vec::with_capacity(drafts.len());
    for draft in drafts {
        let mut task = draft.task.clone();
        for (word, node) in &draft.after {
            match position(word, &positions, drafts.len()) {
                Some(at) if !task.depends_on.contains(&at) => task.depends_on.push(at),
                Some(_) => {}
                None => cx.report_lazily(Code::UnknownTask, |cx| unknown_task(cx, word, node)),
            }
        }
        tasks.push(task);
    }
    if let Some(circle) = circle(&tasks) {
        cx.report(task_cycle(cx, drafts, &circle));
        tasks.iter_mut().for_each(|task| task.depends_on.clear());
    }
    tasks
}

/// A task is named by its description, or by its number in the list from 1.
fn position(word: &str, positions: &std::collections::HashMap<String, usize>, count: usize) -> Option<usize> {
    let word = word.trim().to_lowercase();
    positions.get(&word).copied().or_else(|| {
        word.parse::<usize>().ok().and_then(|number| number.checked_sub(1)).filter(|at| *at < count)
    })
}

fn unknown_task(cx: &Context<'_>, word: &str, node: &Node) -> Diagnostic {
    let message = format!("`{}` is none of the agent's tasks that are switched on", shorten(word));
    cx.at(Code::UnknownTask, message, node, "does not order anything")
        .help("name a task by its description, or by its number from 1; for other agents use `dependencies`")
}

/// A circle of tasks, if there is one: each waits for the next, the last for the first.
fn circle(tasks: &[Task]) -> Option<Vec<usize>> {
    // 0: not seen, 1: on the path, 2: done. The path is explicit, so that no list is too long for the stack.
    let mut state = vec![0u8; tasks.len()];
    for start in 0..tasks.len() {
        if state[start] != 0 {
            continue;
        }
        let mut path = vec![(start, 0)];
        state[start] = 1;
        while let Some((at, next)) = path.last_mut() {
            let Some(&to) = tasks[*at].depends_on.get(*next) else {
                state[*at] = 2;
                path.pop();
                continue;
            };
            *next += 1;
            match state[to] {
                0 => {
                    state[to] = 1;
                    path.push((to, 0));
                }
                1 => {
                    let from = path.iter().position(|(at, _)| *at == to).unwrap_or_default();
                    return Some(path[from..].iter().map(|(at, _)| *at).collect());
                }
                _ => {}
            }
        }
    }
    None
}

fn task_cycle(cx: &Context<'_>, drafts: &[Draft<'_>], circle: &[usize]) -> Diagnostic {
    const SHOWN: usize = 8;
    let names: Vec<String> =
        circle.iter().take(SHOWN).map(|at| format!("`{}`", shorten(&drafts[*at].task.description))).collect();
    let problem =
        Diagnostic::new(Code::TaskCycle, format!("these tasks wait for each other: {}", names.join(" → ")));
    circle
        .iter()
        .take(SHOWN)
        .fold(problem, |problem, at| problem.at(cx.file, drafts[*at].node.span.clone(), "waits for the next"))
        .help("remove one of their `dependencies`")
}
