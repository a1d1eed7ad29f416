//! Texts, lists of texts, choices, truth values and names.

use toka_core::Name;

use super::context::Context;
use super::suggest::{known_as, nearest};
use crate::diagnostic::{Code, Severity};
use crate::read::{Node, ScalarKind, Value, shorten};

/// A single value as text, whatever its type: a version `1.0` is the text `1.0`.
pub(crate) fn text(cx: &mut Context<'_>, node: &Node) -> Option<String> {
    match &node.value {
        Value::Scalar(scalar) if !scalar.is_null() => Some(scalar.text.clone()),
        _ => {
            cx.wrong_type(node, "text");
            None
        }
    }
}

/// Text that goes to the kernel or the shell: no NUL, and not empty.
pub(crate) fn argument(cx: &mut Context<'_>, node: &Node) -> Option<String> {
    let text = text(cx, node)?;
    if text.contains('\0') {
        cx.bad_value(node, "a NUL character cannot be passed to a process");
        return None;
    }
    Some(text)
}

/// The same, where nothing written would make no sense.
pub(crate) fn filled(cx: &mut Context<'_>, node: &Node) -> Option<String> {
    let text = argument(cx, node)?;
    if text.trim().is_empty() {
        cx.bad_value(node, "this cannot be empty");
        return None;
    }
    Some(text)
}

/// A list of texts; a single one stands for a list of itself, and `- key: value`, which is a map to YAML, for
/// `key: value`.
pub(crate) fn texts(cx: &mut Context<'_>, node: &Node) -> Vec<String> {
    texts_with_nodes(cx, node).into_iter().map(|(text, _)| text).collect()
}

/// The same with the node of each, for those that need an origin.
pub(crate) fn texts_with_nodes<'n>(cx: &mut Context<'_>, node: &'n Node) -> Vec<(String, &'n Node)> {
    let items: Vec<&Node> = match &node.value {
        Value::List(items) => items.iter().map(|item| &**item).collect(),
        _ if node.is_null() => Vec::new(),
        _ => vec![node],
    };
    let mut out = Vec::with_capacity(items.len());
    for item in items {
        let found = match &item.value {
            Value::Map(entries) if entries.len() == 1 => match &entries[0].value.value {
                Value::Scalar(value) => Some(format!("{}: {}", entries[0].key.text, value.text)),
                _ => None,
            },
            Value::Scalar(scalar) if !scalar.is_null() => Some(scalar.text.clone()),
            _ => None,
        };
        match found {
            Some(text) => out.push((text, item)),
            None => cx.wrong_type(item, "text"),
        }
    }
    out
}

/// A program and its arguments; `None` after a report.
pub(crate) fn argv(cx: &mut Context<'_>, node: &Node) -> Option<Vec<String>> {
    let Value::List(items) = &node.value else {
        return argv_of_text(cx, node);
    };
    if items.is_empty() {
        cx.bad_value(node, "a command names at least a program");
        return None;
    }
    let argv: Vec<String> = items.iter().filter_map(|item| argument(cx, item)).collect();
    if argv.len() != items.len() {
        return None;
    }
    if argv[0].trim().is_empty() {
        cx.bad_value(&items[0], "the program of a command cannot be empty");
        return None;
    }
    Some(argv)
}

/// One word is a program; several would need a shell's rules to be told apart, so nobody guesses.
fn argv_of_text(cx: &mut Context<'_>, node: &Node) -> Option<Vec<String>> {
    match &node.value {
        Value::Scalar(scalar) if !scalar.is_null() => {}
        _ => {
            cx.wrong_type(node, "a list of a program and its arguments");
            return None;
        }
    }
    let line = filled(cx, node)?;
    if !line.contains(char::is_whitespace) {
        return Some(vec![line]);
    }
    let words: Vec<&str> = line.split_whitespace().collect();
    let message = "expected a list of a program and its arguments, found one line of text";
    let problem = cx.at(Code::WrongType, message, node, "");
    let shell = format!("`shell: {:?}`", shorten(&line));
    let help = if line.contains(|c| "|&;<>()$`\\\"'*?#~".contains(c)) {
        format!("what a shell is to read is written {shell}")
    } else {
        format!("write `[{}]`, or use {shell}", shorten(&words.join(", ")))
    };
    cx.report(problem.help(help));
    None
}

/// One of some words; `None` after a report. Case and `_` for `-` do not matter.
pub(crate) fn choice<T: Copy>(cx: &mut Context<'_>, node: &Node, choices: &[(&str, T)]) -> Option<T> {
    let Value::Scalar(scalar) = &node.value else {
        cx.wrong_type(node, &format!("one of {}", words(choices)));
        return None;
    };
    let word = scalar.text.trim().to_ascii_lowercase();
    let same = |a: &str| a == word || a.replace('-', "_") == word.replace('-', "_");
    if let Some((_, value)) = choices.iter().find(|(name, _)| same(name)) {
        return Some(*value);
    }
    let message = format!("`{}` is none of the choices", shorten(&scalar.text));
    let mut problem = cx.at(Code::UnknownChoice, message, node, "");
    let theirs = known_as(&word).filter(|ours| choices.iter().any(|(name, _)| name == ours));
    problem = match theirs.or_else(|| nearest(&word, choices.iter().map(|(name, _)| *name))) {
        Some(near) => problem.help(format!("did you mean `{near}`? The choices are {}", words(choices))),
        None => problem.help(format!("the choices are {}", words(choices))),
    };
    cx.report(problem);
    None
}

fn words<T>(choices: &[(&str, T)]) -> String {
    let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
    super::section::list(&names)
}

/// A truth value, also in the words of YAML 1.1.
pub(crate) fn truth(cx: &mut Context<'_>, node: &Node) -> Option<bool> {
    if let Value::Scalar(scalar) = &node.value {
        if let ScalarKind::Bool(value) = scalar.kind {
            return Some(value);
        }
        match scalar.text.to_ascii_lowercase().as_str() {
            "yes" | "on" | "true" => return Some(true),
            "no" | "off" | "false" => return Some(false),
            _ => {}
        }
    }
    cx.wrong_type(node, "`true` or `false`");
    None
}

/// A DNS label; `None` after a report of the given severity.
pub(crate) fn name(cx: &mut Context<'_>, text: &str, node: &Node, severity: Severity) -> Option<Name> {
    match Name::new(text) {
        Ok(name) => Some(name),
        Err(error) => {
            let message = format!("`{}` is not a name: {error}", shorten(text));
            let mut problem = cx.at(Code::BadName, message, node, "").severity(severity);
            if let Some(slug) = Name::slug(text) {
                problem = problem.help(format!("`{slug}` would do"));
            }
            cx.report(problem);
            None
        }
    }
}
