//! `spec.process`, `spec.secrets`, `spec.stop` and `spec.hooks`: what is executed around an agent's life.

use std::collections::BTreeMap;
use std::ops::Range;

use toka_core::{Declared, Preset};

use super::context::Context;
use super::keys::{HOOKS, PROCESS, SECRET, STOP};
use super::quantities::delay;
use super::section::{Section, pairs};
use super::suggest::nearest;
use super::texts::{argument, argv, choice, filled, text, texts_with_nodes, truth};
use crate::diagnostic::{Code, Diagnostic};
use crate::model::{
    Hook, Hooks, OWN_VARIABLE_HELP, Process, ProcessCommand, Secret, SecretSource, Stop, Tty, User,
    is_own_variable,
};
use crate::read::{Entry, Node, ScalarKind, Value, shorten};

/// The agent programs that Toka knows.
const PRESETS: [(&str, Preset); 5] = {
    let mut named = [("", Preset::ClaudeCode); 5];
    let mut at = 0;
    while at < named.len() {
        named[at] = (Preset::ALL[at].name(), Preset::ALL[at]);
        at += 1;
    }
    named
};

pub(crate) fn process(cx: &mut Context<'_>, node: &Node) -> Option<Process> {
    let section = Section::read(cx, node, &PROCESS)?;
    section.exclude(cx, "command", "shell");
    let preset = section.get("preset").and_then(|node| Some((choice(cx, node, &PRESETS)?, node)));
    let command = match (section.get("command"), section.get("shell")) {
        (Some(node), _) => argv(cx, node).map(|argv| (Some(ProcessCommand::Argv(argv)), node)),
        (None, Some(node)) => filled(cx, node).map(|line| (Some(ProcessCommand::Shell(line)), node)),
        (None, None) if preset.is_some() => preset.map(|(_, node)| (None, node)),
        // What is wrong with it is told already.
        (None, None) if section.get("preset").is_some() => None,
        (None, None) if ["command", "shell", "preset"].iter().any(|key| section.perhaps(key)) => None,
        (None, None) => {
            let problem = Diagnostic::new(Code::Missing, "the process has neither `command` nor `shell`")
                .at(cx.file, section.span(), "nothing to execute here")
                .help("write `command: [program, argument]`, `shell: \"a line for /bin/sh\"`, or `preset: claude-code`");
            cx.report(problem);
            None
        }
    };
    let working_dir = section
        .get("working_dir")
        .and_then(|node| filled(cx, node).map(|path| Declared::new(path, cx.origin(node))));
    let environment = section.get("environment").map(|node| environment(cx, node)).unwrap_or_default();
    if let Some(node) = section.get("environment") {
        report_own_variables(cx, node, environment.keys());
    }
    let environment_from = section
        .get("environment_from")
        .map(|node| texts_with_nodes(cx, node))
        .unwrap_or_default()
        .into_iter()
        .filter_map(|(name, node)| {
            report_own_variables(cx, node, [&name]);
            variable_name(cx, &name, &node.span).then_some(name)
        })
        .collect();
    let environment_file = section.get("environment_file").map(|node| paths(cx, node)).unwrap_or_default();
    let user = section.get("user").and_then(|node| Some(Declared::new(user(cx, node)?, cx.origin(node))));
    let user = user.unwrap_or_else(|| Declared::by_default(User::default(), "user is whoever runs Toka"));
    let tty = match section.get("tty").and_then(|node| truth(cx, node)) {
        Some(true) => Tty::Pseudo,
        _ => Tty::Pipes,
    };
    let (command, node) = command?;
    if let (None, Tty::Pseudo, Some(node)) = (&command, tty, section.get("tty")) {
        let message = "the program works through the tasks without a terminal: Toka reads what it writes";
        let help =
            "leave `tty` out, or start it another way with a `command`, such as the program's name alone";
        cx.report(cx.at(Code::Conflict, message, node, "").help(help));
    }
    Some(Process {
        preset: preset.map(|(preset, _)| preset),
        command,
        command_origin: cx.origin(node),
        working_dir: working_dir
            .unwrap_or_else(|| Declared::by_default(".".to_owned(), "working folder is the workspace")),
        environment,
        environment_from,
        environment_file,
        user,
        tty,
    })
}

/// What is declared is overwritten by what Toka tells each agent about itself.
fn report_own_variables<'n>(cx: &mut Context<'_>, node: &Node, names: impl IntoIterator<Item = &'n String>) {
    for name in names.into_iter().filter(|name| is_own_variable(name)) {
        let message = format!("`{}` is a name of Toka's own, which it sets itself", shorten(name));
        cx.report(cx.at(Code::BadValue, message, node, "").help(OWN_VARIABLE_HELP));
    }
}

/// A map, a list of one-key maps, or a list of `NAME=value`.
fn environment(cx: &mut Context<'_>, node: &Node) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let assignments = match &node.value {
        Value::List(items) => items.iter().all(|item| matches!(item.value, Value::Scalar(_))),
        _ => false,
    };
    if assignments {
        for (line, item) in texts_with_nodes(cx, node) {
            match line.split_once('=') {
                Some((name, value)) if variable_name(cx, name, &item.span) => {
                    out.insert(name.to_owned(), value.to_owned());
                }
                Some(_) => {}
                None => cx.bad_value(item, format!("expected `NAME=value`, found `{}`", shorten(&line))),
            }
        }
        return out;
    }
    for entry in pairs(cx, node, "a map of names and values").unwrap_or_default() {
        let value = if entry.value.is_null() { Some(String::new()) } else { argument(cx, &entry.value) };
        if variable_name(cx, &entry.key.text, &entry.key.span)
            && let Some(value) = value
        {
            out.insert(entry.key.text.clone(), value);
        }
    }
    out
}

fn variable_name(cx: &mut Context<'_>, name: &str, span: &Range<usize>) -> bool {
    let good = !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !good {
        let message = format!("`{}` is not a name of an environment variable", shorten(name));
        let problem = Diagnostic::new(Code::BadValue, message)
            .at(cx.file, span.clone(), "")
            .help("such a name has letters, digits and `_`, and does not begin with a digit");
        cx.report(problem);
    }
    good
}

/// A list of paths, none of them empty.
pub(crate) fn paths(cx: &mut Context<'_>, node: &Node) -> Vec<String> {
    declared_paths(cx, node).into_iter().map(|path| path.value).collect()
}

/// The same with origins.
pub(crate) fn declared_paths(cx: &mut Context<'_>, node: &Node) -> Vec<Declared<String>> {
    let mut out = Vec::new();
    for (path, node) in texts_with_nodes(cx, node) {
        if path.trim().is_empty() || path.contains('\0') {
            cx.bad_value(node, "a path cannot be empty, nor contain a NUL character");
        } else {
            out.push(Declared::new(path, cx.origin(node)));
        }
    }
    out
}

fn user(cx: &mut Context<'_>, node: &Node) -> Option<User> {
    let name = filled(cx, node)?;
    match name.as_str() {
        "invoking" => return Some(User::Invoking),
        "dynamic" => return Some(User::Dynamic),
        _ => {}
    }
    let good = name.len() <= 32
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '$'));
    if !good {
        cx.bad_value(node, format!("`{}` is not a name of a user", shorten(&name)));
        return None;
    }
    Some(User::Named(name))
}

pub(crate) fn secrets(cx: &mut Context<'_>, node: &Node) -> Vec<Secret> {
    let expected = "a map of names and places, such as `{token: {file: ~/.token}}`";
    let entries = pairs(cx, node, expected).unwrap_or_default();
    entries.into_iter().filter_map(|entry| secret(cx, entry)).collect()
}

fn secret(cx: &mut Context<'_>, entry: &Entry) -> Option<Secret> {
    let name = &entry.key.text;
    let good = (1..=255).contains(&name.len())
        && !name.starts_with('.')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    if !good {
        let message = format!("`{}` cannot be the file name of a secret", shorten(name));
        let problem = Diagnostic::new(Code::BadValue, message)
            .at(cx.file, entry.key.span.clone(), "")
            .help("such a name has letters, digits, `_`, `-` and `.`, and does not begin with `.`");
        cx.report(problem);
    }
    let section = Section::read(cx, &entry.value, &SECRET)?;
    section.exclude(cx, "file", "env");
    let source = match (section.get("file"), section.get("env")) {
        (Some(node), _) => SecretSource::File(filled(cx, node)?),
        (None, Some(node)) => {
            let name = filled(cx, node)?;
            SecretSource::Env(variable_name(cx, &name, &node.span).then_some(name)?)
        }
        (None, None) => {
            let problem = Diagnostic::new(Code::Missing, "the secret has neither `file` nor `env`")
                .at(cx.file, entry.key.span.clone(), "comes from nowhere")
                .help("write `{file: PATH}` or `{env: NAME}`");
            cx.report(problem);
            return None;
        }
    };
    good.then(|| Secret { name: name.clone(), source, origin: cx.origin_of(&entry.key.span) })
}

pub(crate) fn stop(cx: &mut Context<'_>, node: &Node) -> Stop {
    let mut stop = Stop::default();
    let Some(section) = Section::read(cx, node, &STOP) else { return stop };
    if let Some(signal) = section.get("signal").and_then(|node| signal(cx, node)) {
        stop.signal = signal;
    }
    if let Some(grace) = section.get("grace_period").and_then(|node| delay(cx, node)) {
        stop.grace_period = grace;
    }
    stop
}

/// The signals that can ask a process to end, with their numbers on Linux (signal(7)); those of x86 and Arm.
const SIGNALS: &[(&str, i32)] = &[
    ("SIGHUP", 1),
    ("SIGINT", 2),
    ("SIGQUIT", 3),
    ("SIGABRT", 6),
    ("SIGKILL", 9),
    ("SIGUSR1", 10),
    ("SIGUSR2", 12),
    ("SIGALRM", 14),
    ("SIGTERM", 15),
    ("SIGWINCH", 28),
    ("SIGPWR", 30),
];

pub(crate) fn signal(cx: &mut Context<'_>, node: &Node) -> Option<i32> {
    if let Value::Scalar(scalar) = &node.value
        && let ScalarKind::Int(number) = scalar.kind
    {
        let known = (1..=64).contains(&number);
        if !known {
            let message = format!("there is no signal {number}; signals are 1 to 64");
            let problem = cx.at(Code::OutOfRange, message, node, "");
            cx.report(problem);
        }
        return known.then_some(number as i32);
    }
    let word = text(cx, node)?;
    let upper = word.trim().to_ascii_uppercase();
    let full = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    if let Some((_, number)) = SIGNALS.iter().find(|(name, _)| *name == full) {
        return Some(*number);
    }
    let problem = cx.at(Code::UnknownChoice, format!("`{}` is no signal", shorten(&word)), node, "");
    let problem = match nearest(&full, SIGNALS.iter().map(|(name, _)| *name)) {
        Some(near) => problem.help(format!("did you mean `{near}`?")),
        None => problem.help("a signal has a name such as SIGTERM, or a number"),
    };
    cx.report(problem);
    None
}

pub(crate) fn hooks(cx: &mut Context<'_>, node: &Node) -> Hooks {
    let Some(section) = Section::read(cx, node, &HOOKS) else { return Hooks::default() };
    let mut take = |key| section.get(key).map(|node| commands(cx, node)).unwrap_or_default();
    Hooks {
        pre_start: take("pre_start"),
        post_start: take("post_start"),
        pre_stop: take("pre_stop"),
        post_stop: take("post_stop"),
    }
}

/// One argv, or a list of them.
fn commands(cx: &mut Context<'_>, node: &Node) -> Vec<Hook> {
    let items: Vec<&Node> = match &node.value {
        Value::List(items) if items.iter().any(|item| matches!(item.value, Value::List(_))) => {
            items.iter().map(|item| &**item).collect()
        }
        Value::List(items) if items.is_empty() => Vec::new(),
        _ => vec![node],
    };
    let mut hooks = Vec::new();
    for item in items {
        if let Some(argv) = argv(cx, item) {
            hooks.push(Hook { argv, origin: cx.origin(item) });
        }
    }
    hooks
}
