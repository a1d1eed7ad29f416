//! `apply_patch`: changes of several files in the format that Codex made known: all of them are worked out before the first is written,
//! so that a patch that does not fit changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use toka_core::FileChange;
use toka_core::tool::ApplyPatch;

use super::Done;
use super::place::{ToolError, change, path_of, put, text_of};

/// What is to become of one file.
#[derive(Debug, PartialEq, Eq)]
enum Section {
    Add { path: String, content: String },
    Delete { path: String },
    Update { path: String, to: Option<String>, hunks: Vec<Hunk> },
}

/// Lines that are to be replaced, after a line that helps to find them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Hunk {
    after: Option<String>,
    old: Vec<String>,
    new: Vec<String>,
    is_at_end: bool,
}

pub(super) fn apply(arguments: &ApplyPatch) -> Result<Done, ToolError> {
    let sections = parse(&arguments.patch).map_err(ToolError::new)?;
    // What each file is to be; `None` is gone.
    let mut files: BTreeMap<PathBuf, (String, Option<String>)> = BTreeMap::new();
    for section in &sections {
        plan(section, &mut files)?;
    }
    let mut changes: Vec<FileChange> = Vec::new();
    for (path, (before, after)) in &files {
        let made = match after {
            Some(after) => put(path, after),
            None => fs::remove_file(path).map_err(|error| ToolError::of("remove", path, &error)),
        };
        if let Err(error) = made {
            return Err(ToolError { changes, ..error });
        }
        changes.push(change(path, before, after.as_deref().unwrap_or_default()));
    }
    let line = |change: &FileChange| format!("{}: +{} -{}", change.path, change.added, change.removed);
    let text = changes.iter().map(line).collect::<Vec<_>>().join("\n");
    Ok(Done { text, changes })
}

fn plan(section: &Section, files: &mut BTreeMap<PathBuf, (String, Option<String>)>) -> Result<(), ToolError> {
    let known = |path: &PathBuf, files: &BTreeMap<PathBuf, (String, Option<String>)>| match files.get(path) {
        Some((_, Some(now))) => Ok(now.clone()),
        Some((_, None)) => Err(ToolError::new(format!("{} is removed by the same patch", path.display()))),
        None => text_of(path),
    };
    match section {
        Section::Add { path, content } => {
            let path = path_of(path)?;
            if path.exists() && !files.contains_key(&path) {
                return Err(ToolError::new(format!("{} is there already: update it", path.display())));
            }
            files.entry(path).or_default().1 = Some(content.clone());
        }
        Section::Delete { path } => {
            let path = path_of(path)?;
            let now = known(&path, files)?;
            files.entry(path).or_insert((now, None)).1 = None;
        }
        Section::Update { path, to, hunks } => {
            let path = path_of(path)?;
            let now = known(&path, files)?;
            let after =
                hunks.iter().try_fold((now.clone(), 0), |(text, from), hunk| replace(&text, from, hunk));
            let (after, _) = after.map_err(|why| ToolError::new(format!("{}: {why}", path.display())))?;
            match to {
                Some(to) => {
                    let to = path_of(to)?;
                    if to != path && to.exists() {
                        return Err(ToolError::new(format!("{} is there already", to.display())));
                    }
                    files.entry(path).or_insert((now, None)).1 = None;
                    files.entry(to).or_default().1 = Some(after);
                }
                None => files.entry(path).or_insert((now, None)).1 = Some(after),
            }
        }
    }
    Ok(())
}

/// The text with one hunk in force, and the line after it, where the next is looked for.
fn replace(text: &str, from: usize, hunk: &Hunk) -> Result<(String, usize), String> {
    let end = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let mut lines: Vec<&str> = text.lines().collect();
    let mut from = from.min(lines.len());
    if let Some(after) = &hunk.after {
        let found = lines[from..].iter().position(|line| line.trim() == after.trim());
        from += found.ok_or_else(|| format!("no line is {after:?}"))? + 1;
    }
    let fits = |at: usize, is_same: Same| {
        lines[at..].len() >= hunk.old.len()
            && lines[at..].iter().zip(&hunk.old).all(|(one, other)| is_same(one, other))
            && (!hunk.is_at_end || at + hunk.old.len() == lines.len())
    };
    // First as it stands, then without blanks at the ends, then without those at the beginnings.
    let exact = |one: &str, other: &str| one == other;
    let ends = |one: &str, other: &str| one.trim_end() == other.trim_end();
    let both = |one: &str, other: &str| one.trim() == other.trim();
    let ways: [Same; 3] = [exact, ends, both];
    let place = match hunk.old.is_empty() {
        true if hunk.after.is_some() => Some(from),
        true => Some(lines.len()),
        false => ways.into_iter().find_map(|way| (from..lines.len()).find(|at| fits(*at, way))),
    };
    let Some(at) = place else {
        return Err(format!("these lines are not in it:\n{}", hunk.old.join("\n")));
    };
    let new = hunk.new.iter().map(String::as_str);
    lines.splice(at..at + hunk.old.len(), new);
    let had_end = text.is_empty() || text.ends_with('\n');
    let mut after = lines.join(end);
    if had_end && !after.is_empty() {
        after.push_str(end);
    }
    Ok((after, at + hunk.new.len()))
}

/// Whether two lines are taken for the same.
type Same = fn(&str, &str) -> bool;

fn parse(text: &str) -> Result<Vec<Section>, String> {
    let mut lines = text.trim().lines().peekable();
    if lines.next().map(str::trim) != Some("*** Begin Patch") {
        return Err("a patch begins with the line `*** Begin Patch`".to_owned());
    }
    let mut sections = Vec::new();
    loop {
        let Some(line) = lines.next() else {
            return Err("a patch ends with the line `*** End Patch`".to_owned());
        };
        let is_head = |line: &&str| line.starts_with("*** ") && *line != "*** End of File";
        if line.trim() == "*** End Patch" {
            break;
        } else if let Some(path) = line.strip_prefix("*** Add File: ") {
            let mut content = String::new();
            while let Some(line) = lines.next_if(|line| !is_head(line)) {
                let added = line.strip_prefix('+');
                content += added.ok_or_else(|| format!("a line of a new file begins with `+`: {line:?}"))?;
                content.push('\n');
            }
            sections.push(Section::Add { path: path.to_owned(), content });
        } else if let Some(path) = line.strip_prefix("*** Delete File: ") {
            sections.push(Section::Delete { path: path.to_owned() });
        } else if let Some(path) = line.strip_prefix("*** Update File: ") {
            let to = lines.next_if(|line| line.starts_with("*** Move to: "));
            let to = to.and_then(|line| line.strip_prefix("*** Move to: ")).map(str::to_owned);
            let mut hunks = Vec::new();
            while let Some(line) = lines.next_if(|line| !is_head(line)) {
                hunk_line(line, &mut hunks)?;
            }
            if hunks.is_empty() && to.is_none() {
                return Err(format!("nothing is to be changed in {path}"));
            }
            sections.push(Section::Update { path: path.to_owned(), to, hunks });
        } else if !line.trim().is_empty() {
            return Err(format!(
                "expected `*** Add File:`, `*** Delete File:` or `*** Update File:`, found {line:?}"
            ));
        }
    }
    if sections.is_empty() { Err("the patch is empty".to_owned()) } else { Ok(sections) }
}

fn hunk_line(line: &str, hunks: &mut Vec<Hunk>) -> Result<(), String> {
    if let Some(after) = line.strip_prefix("@@") {
        let after = Some(after.trim()).filter(|after| !after.is_empty()).map(str::to_owned);
        hunks.push(Hunk { after, ..Hunk::default() });
        return Ok(());
    }
    if hunks.is_empty() {
        hunks.push(Hunk::default());
    }
    let Some(hunk) = hunks.last_mut() else { return Ok(()) };
    if line == "*** End of File" {
        hunk.is_at_end = true;
        return Ok(());
    }
    // Models leave the blank of an empty line out.
    let (mark, rest) = line.split_at_checked(1).unwrap_or((" ", ""));
    match mark {
        " " => {
            hunk.old.push(rest.to_owned());
            hunk.new.push(rest.to_owned());
        }
        "-" => hunk.old.push(rest.to_owned()),
        "+" => hunk.new.push(rest.to_owned()),
        _ => return Err(format!("a line of a hunk begins with a blank, `-` or `+`: {line:?}")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn applied(files: &[(&str, &str)], patch: &str) -> (Result<Done, ToolError>, BTreeMap<String, String>) {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            fs::write(folder.path().join(name), text).expect("a file");
        }
        let patch = patch.replace("$", &format!("{}/", folder.path().display()));
        let done = apply(&ApplyPatch { patch });
        let read = fs::read_dir(folder.path()).expect("a folder").flatten();
        let now = read.map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, fs::read_to_string(entry.path()).unwrap_or_default())
        });
        (done, now.collect())
    }

    #[test]
    fn files_are_added_changed_moved_and_removed() {
        let patch = "*** Begin Patch\n*** Add File: $new\n+one\n+two\n*** Update File: $a\n@@ fn second()\n-    1\n+    2\n*** Update File: $b\n*** Move to: $c\n@@\n x\n-y\n+z\n*** Delete File: $d\n*** End Patch";
        let files = [("a", "fn first()\n    1\nfn second()\n    1\n"), ("b", "x\ny\n"), ("d", "gone\n")];
        let (done, now) = applied(&files, patch);
        assert_eq!(done.expect("applied").changes.len(), 5);
        let expected =
            [("a", "fn first()\n    1\nfn second()\n    2\n"), ("c", "x\nz\n"), ("new", "one\ntwo\n")];
        assert_eq!(now, expected.map(|(name, text)| (name.to_owned(), text.to_owned())).into());
    }

    #[test]
    fn one_that_does_not_fit_changes_nothing() {
        let patch = "*** Begin Patch\n*** Update File: $a\n@@\n-one\n+ONE\n*** Update File: $b\n@@\n-nowhere\n+x\n*** End Patch";
        let (done, now) = applied(&[("a", "one\n"), ("b", "two\n")], patch);
        assert!(done.expect_err("no fit").message.contains("these lines are not in it:\nnowhere"));
        assert_eq!(now["a"], "one\n");
        for (patch, why) in [
            ("", "begins with"),
            ("*** Begin Patch\n", "ends with"),
            ("*** Begin Patch\n*** End Patch", "empty"),
            ("*** Begin Patch\n*** Add File: $n\nx\n*** End Patch", "begins with `+`"),
            ("*** Begin Patch\nwhat\n*** End Patch", "expected"),
            ("*** Begin Patch\n*** Add File: $a\n+x\n*** End Patch", "is there already"),
            ("*** Begin Patch\n*** Update File: $none\n@@\n-x\n*** End Patch", "no such file"),
        ] {
            let (done, now) = applied(&[("a", "one\n")], patch);
            let message = done.expect_err("no patch").message;
            assert!(message.contains(why), "{patch}: {message}");
            assert_eq!(now.len(), 1);
        }
    }

    #[test]
    fn blanks_are_forgiven_and_ends_of_lines_kept() {
        let patch = "*** Begin Patch\n*** Update File: $a\n@@\n a\n-  b\n+  c\n*** End Patch";
        let (done, now) = applied(&[("a", "a  \r\n  b\r\n")], patch);
        done.expect("applied");
        assert_eq!(now["a"], "a\r\n  c\r\n");
    }

    proptest! {
        #[test]
        fn no_patch_panics(text in "(\\*\\*\\* (Begin Patch|End Patch|Add File: x|Update File: x|Delete File: x|Move to: y|End of File)\\n|@@ ?[a-c]?\\n|[ +-]?[a-cé]{0,3}\\n){0,12}") {
            let _ = parse(&text);
            let hunk = Hunk { after: None, old: vec!["a".into()], new: vec![], is_at_end: false };
            let _ = replace(&text, 3, &hunk);
        }
    }
}
