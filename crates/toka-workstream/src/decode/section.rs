//! A map whose keys are known: reports those that it does not have, gives the others.

use std::ops::Range;

use super::context::Context;
use super::keys::{DOCUMENT, Keys, Unknown};
use super::suggest::{elsewhere, here, nearest};
use crate::diagnostic::{Code, Diagnostic, Severity};
use crate::read::{Entry, Node, Value};

/// A map with known keys.
pub(crate) struct Section<'n> {
    keys: &'static Keys,
    entries: &'n [Entry],
    span: Range<usize>,
}

impl<'n> Section<'n> {
    /// The map at `node`, its unknown keys reported; nothing written is an empty map.
    pub(crate) fn read(cx: &mut Context<'_>, node: &'n Node, keys: &'static Keys) -> Option<Self> {
        let entries = Self::entries(cx, node, keys)?;
        for entry in entries {
            let word = entry.key.text.as_str();
            if keys.names.contains(&word) {
                continue;
            }
            let is_kept = match keys.unknown {
                Unknown::Error => false,
                Unknown::Kept => true,
                Unknown::KeptUnlessNear(control) => nearest(word, control.iter().copied()).is_none(),
            };
            if is_kept {
                cx.keep(keys.section, entry);
                cx.report(unknown_key(cx, entry, keys).severity(Severity::Warning));
            } else {
                cx.report_lazily(Code::UnknownKey, |cx| unknown_key(cx, entry, keys));
            }
        }
        Some(Self { keys, entries, span: node.span.clone() })
    }

    /// The same where unknown keys are somebody else's business.
    pub(crate) fn read_open(cx: &mut Context<'_>, node: &'n Node, keys: &'static Keys) -> Option<Self> {
        Some(Self { keys, entries: Self::entries(cx, node, keys)?, span: node.span.clone() })
    }

    fn entries(cx: &mut Context<'_>, node: &'n Node, keys: &'static Keys) -> Option<&'n [Entry]> {
        match &node.value {
            Value::Map(entries) => Some(entries),
            _ if node.is_null() => Some(&[]),
            _ => {
                cx.wrong_type(node, &format!("a map ({})", keys.section));
                None
            }
        }
    }

    /// The value of a key; `None` when it is absent or nothing was written behind it.
    pub(crate) fn get(&self, key: &str) -> Option<&'n Node> {
        self.entry(key).map(|entry| &*entry.value).filter(|node| !node.is_null())
    }

    /// The value of a key even when nothing was written behind it.
    pub(crate) fn get_or_null(&self, key: &str) -> Option<&'n Node> {
        self.entry(key).map(|entry| &*entry.value)
    }

    /// A key with its value.
    pub(crate) fn entry(&self, key: &str) -> Option<&'n Entry> {
        debug_assert!(self.keys.names.contains(&key), "{key} is not a key of {}", self.keys.section);
        self.entries.iter().find(|entry| entry.key.text == key)
    }

    /// Every entry, known or not.
    pub(crate) fn every(&self) -> &'n [Entry] {
        self.entries
    }

    /// The first line of the section, to say what is missing from it.
    pub(crate) fn span(&self) -> Range<usize> {
        self.entries.first().map_or(self.span.clone(), |entry| entry.key.span.clone())
    }

    /// Whether an unknown key, which was reported, is probably this one: then it is not missing as well.
    pub(crate) fn perhaps(&self, key: &str) -> bool {
        let unknown = self.entries.iter().filter(|entry| !self.keys.names.contains(&entry.key.text.as_str()));
        unknown.take(16).any(|entry| nearest(&entry.key.text, [key]).is_some())
    }

    /// Reports two keys that exclude each other, if both are there.
    pub(crate) fn exclude(&self, cx: &mut Context<'_>, one: &str, other: &str) {
        let present = |key| self.entry(key).filter(|entry: &&Entry| !entry.value.is_null());
        let (Some(first), Some(second)) = (present(one), present(other)) else { return };
        let message = format!("`{one}` and `{other}` exclude each other");
        cx.report(
            Diagnostic::new(Code::Conflict, message)
                .at(cx.file, second.key.span.clone(), "")
                .at(cx.file, first.key.span.clone(), "")
                .help("keep one of them"),
        );
    }
}

/// The entries of a map of free names, or of a list of one-key maps, in order; `None` after a report.
pub(crate) fn pairs<'n>(cx: &mut Context<'_>, node: &'n Node, expected: &str) -> Option<Vec<&'n Entry>> {
    match &node.value {
        Value::Map(entries) => Some(entries.iter().collect()),
        Value::List(items) => {
            let mut pairs = Vec::new();
            for item in items {
                match &item.value {
                    Value::Map(entries) => pairs.extend(entries),
                    _ => cx.wrong_type(item, expected),
                }
            }
            Some(pairs)
        }
        _ => {
            cx.wrong_type(node, expected);
            None
        }
    }
}

fn unknown_key(cx: &Context<'_>, entry: &Entry, keys: &Keys) -> Diagnostic {
    let word = &entry.key.text;
    let message = format!("{} has no key `{}`", keys.section, crate::read::shorten(word));
    let problem =
        Diagnostic::new(Code::UnknownKey, message).at(cx.file, entry.key.span.clone(), "unknown key");
    if let Some(help) = here(keys.section, word) {
        return problem.help(help);
    }
    match nearest(word, keys.names.iter().copied()) {
        Some(near) => problem.help(format!("did you mean `{near}`?")),
        None if let Some(place) = elsewhere(word).filter(|_| keys.unknown == Unknown::Error) => {
            problem.help(format!("that stands in {place}"))
        }
        None if keys.unknown == Unknown::Error && DOCUMENT.names.contains(&word.as_str()) => problem
            .help(format!("`{word}` is a section of its own: write it at the top level, beside `spec`")),
        None if keys.unknown == Unknown::Error => {
            problem.help(format!("the keys of {} are {}", keys.section, list(keys.names)))
        }
        None => {
            problem.help("Toka makes nothing of it; the agent finds it in the file that TOKA_SECTIONS names")
        }
    }
}

/// `a, b and c`.
pub(crate) fn list(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => format!("`{one}`"),
        [init @ .., last] => {
            let init: Vec<String> = init.iter().map(|word| format!("`{word}`")).collect();
            format!("{} and `{last}`", init.join(", "))
        }
    }
}
