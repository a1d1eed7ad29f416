//! `edit`: one text in the place of another. The text must be there exactly once; blanks at the ends of lines and ends of lines as on
//! Windows do not count, as long as the place is still the only one. A miss shows the place that is most like it.

use std::collections::HashSet;
use std::ops::Range;

use toka_core::tool::EditFile;

use super::Done;
use super::place::{ToolError, change, path_of, put, text_of};

/// Lines around a place that is shown.
const AROUND: usize = 2;
/// Longest text that is looked for in a file that has it only nearly, in lines times lines of the file.
const MOST_COMPARED: usize = 4_000_000;

pub(super) fn edit(arguments: &EditFile) -> Result<Done, ToolError> {
    let path = path_of(&arguments.path)?;
    let before = text_of(&path)?;
    let after =
        replaced(&before, arguments).map_err(|why| ToolError::new(format!("{}: {why}", path.display())))?;
    put(&path, &after)?;
    let change = change(&path, &before, &after);
    let text = format!("{} is changed: +{} -{} lines", path.display(), change.added, change.removed);
    Ok(Done { text, changes: vec![change] })
}

/// The text with the replacement made.
fn replaced(before: &str, arguments: &EditFile) -> Result<String, String> {
    let EditFile { old, new, all, .. } = arguments;
    if old == new {
        return Err("`old` and `new` are the same: nothing to do".to_owned());
    }
    if old.is_empty() {
        return Err("`old` is empty: use `write` for a new file".to_owned());
    }
    match before.matches(old.as_str()).count() {
        1 => return Ok(before.replacen(old.as_str(), new, 1)),
        0 => {}
        _ if *all => return Ok(before.replace(old.as_str(), new)),
        count => {
            return Err(format!(
                "`old` is there {count} times, in lines {}: make it longer so that it is there once, or set `all`",
                lines_of(before, old)
            ));
        }
    }
    let found = nearly(before, old);
    match found.as_slice() {
        [place] => Ok(put_in(before, place, new)),
        [] => Err(format!("`old` is not in it{}", nearest(before, old))),
        places => Err(format!(
            "`old` is there {} times, if blanks at the ends of lines do not count: make it longer",
            places.len()
        )),
    }
}

fn lines_of(text: &str, wanted: &str) -> String {
    let at = text.match_indices(wanted).take(10).map(|(at, _)| text[..at].matches('\n').count() + 1);
    at.map(|line| line.to_string()).collect::<Vec<_>>().join(", ")
}

/// The lines of a text with the bytes at which they stand, without their ends.
fn spans(text: &str) -> Vec<(Range<usize>, &str)> {
    let mut at = 0;
    text.split_inclusive('\n')
        .map(|line| {
            let range = at..at + line.len();
            at = range.end;
            (range, line.trim_end())
        })
        .collect()
}

/// The places, in bytes, where whole lines stand that are the same but for what is blank at their ends.
fn nearly(text: &str, wanted: &str) -> Vec<Range<usize>> {
    let lines = spans(text);
    let wanted: Vec<&str> = wanted.lines().map(str::trim_end).collect();
    if wanted.is_empty() || wanted.len() > lines.len() || wanted.iter().all(|line| line.is_empty()) {
        return Vec::new();
    }
    let fits =
        |at: &usize| lines[*at..*at + wanted.len()].iter().map(|(_, line)| *line).eq(wanted.iter().copied());
    (0..=lines.len() - wanted.len())
        .filter(fits)
        .map(|at| lines[at].0.start..lines[at + wanted.len() - 1].0.end)
        .collect()
}

/// Puts lines in the place of others, with the ends of lines that are there.
fn put_in(text: &str, place: &Range<usize>, new: &str) -> String {
    let there = &text[place.clone()];
    let end = if there.contains("\r\n") { "\r\n" } else { "\n" };
    let mut lines: String = new.lines().map(|line| format!("{line}{end}")).collect();
    if !there.ends_with('\n') {
        lines.truncate(lines.len().saturating_sub(end.len()));
    }
    format!("{}{lines}{}", &text[..place.start], &text[place.end..])
}

/// The part of a text that is most like what is looked for, with the numbers of its lines; nothing when no line is.
fn nearest(text: &str, wanted: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let wanted: Vec<&str> = wanted.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if wanted.is_empty() || lines.len().saturating_mul(wanted.len()) > MOST_COMPARED {
        return String::new();
    }
    let words: HashSet<&str> = wanted.iter().copied().collect();
    let is_wanted: Vec<usize> = lines.iter().map(|line| usize::from(words.contains(line.trim()))).collect();
    // How many of the lines from each on are wanted, from the sum of the ones before.
    let mut count: usize = is_wanted.iter().take(wanted.len()).sum();
    let mut best = None;
    for at in 0..lines.len() {
        if best.is_none_or(|(most, _)| count > most) {
            best = Some((count, at));
        }
        count = count - is_wanted[at] + is_wanted.get(at + wanted.len()).copied().unwrap_or(0);
    }
    let Some((1.., at)) = best else { return String::new() };
    let (from, to) = (at.saturating_sub(AROUND), (at + wanted.len() + AROUND).min(lines.len()));
    let shown = (from..to).map(|at| format!("{:>6}\t{}\n", at + 1, lines[at]));
    format!("; most like it are these lines:\n{}", shown.collect::<String>())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn edited(before: &str, old: &str, new: &str, all: bool) -> Result<String, String> {
        replaced(before, &EditFile { path: "f".into(), old: old.into(), new: new.into(), all })
    }

    #[test]
    fn it_is_there_once_or_nothing_is_done() {
        assert_eq!(edited("a b c", "b", "x", false).as_deref(), Ok("a x c"));
        assert_eq!(edited("b b", "b", "x", true).as_deref(), Ok("x x"));
        let twice = edited("b\nc\nb\n", "b", "x", false).expect_err("twice");
        assert!(twice.contains("2 times, in lines 1, 3"), "{twice}");
        assert!(edited("a", "a", "a", false).is_err() && edited("a", "", "b", false).is_err());
    }

    #[test]
    fn blanks_at_the_ends_of_lines_do_not_count() {
        let windows = "fn a() {\r\n  1  \r\n}\r\n";
        assert_eq!(
            edited(windows, "fn a() {\n  1\n", "fn a() {\n  2\n", false).as_deref(),
            Ok("fn a() {\r\n  2\r\n}\r\n")
        );
        assert_eq!(edited("a  \nb", "a\nb", "c", false).as_deref(), Ok("c"), "without an end, as it was");
        let twice = edited("a \na\t\n", "a\nx", "b", false).expect_err("not there");
        assert!(twice.starts_with("`old` is not in it"), "{twice}");
    }

    #[test]
    fn a_miss_shows_what_is_most_like_it() {
        let text = "one\ntwo\nfn add(a: u32) {\n    a + 1\n}\nsix\n";
        let miss = edited(text, "fn add(b: u32) {\n    a + 1\n}", "x", false).expect_err("a miss");
        assert!(miss.contains("     4\t    a + 1\n     5\t}"), "{miss}");
        assert_eq!(edited(text, "nothing like it", "x", false).expect_err("a miss"), "`old` is not in it");
    }

    proptest! {
        #[test]
        fn nothing_panics_and_what_is_not_replaced_stays(before in "[ab \\r\\n\té]{0,40}", old in "[ab \\n]{0,6}", new in "[xy\\n]{0,6}", all: bool) {
            if let Ok(after) = edited(&before, &old, &new, all) {
                prop_assert_ne!(old, new);
                prop_assert!(!before.is_empty());
                let _ = after;
            }
        }
    }
}
