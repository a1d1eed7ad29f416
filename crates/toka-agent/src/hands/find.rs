//! `list`, `glob`, `grep`: what is in folders. Files that a `.gitignore` leaves out are not looked at.

use std::fs;
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};
use ignore::WalkBuilder;
use regex::{Regex, RegexBuilder};
use toka_core::tool::{FindFiles, FindLines, ListFolder};

use super::Done;
use super::place::{ToolError, path_of, text_of};

/// Entries that are listed.
const MOST_LISTED: usize = 500;
/// Files that are found.
const MOST_FOUND: usize = 500;
/// Lines that are found.
const MOST_LINES: usize = 200;
/// Entries that are looked at.
const MOST_LOOKED_AT: usize = 200_000;
/// The deepest listing.
const DEEPEST: usize = 5;
/// The longest line that is shown, in characters.
const LONGEST_LINE: usize = 300;
/// Memory of a pattern, in bytes.
const PATTERN: usize = 1024 * 1024;

fn folder_of(path: Option<&str>) -> Result<PathBuf, ToolError> {
    path.map_or_else(|| Ok(PathBuf::from(".")), path_of)
}

/// What is in a folder, sorted by name, and whether there was more than is looked at.
fn walk(folder: &Path, depth: Option<usize>) -> (Vec<ignore::DirEntry>, bool) {
    let walk = WalkBuilder::new(folder)
        .max_depth(depth)
        .hidden(false)
        .require_git(false)
        // What stands above the workspace is nobody's business here.
        .parents(false)
        .git_global(false)
        .filter_entry(|entry| entry.file_name() != ".git")
        .sort_by_file_name(Ord::cmp)
        .build();
    let mut entries: Vec<_> =
        walk.flatten().filter(|entry| entry.depth() > 0).take(MOST_LOOKED_AT + 1).collect();
    let is_cut = entries.len() > MOST_LOOKED_AT;
    entries.truncate(MOST_LOOKED_AT);
    (entries, is_cut)
}

fn shown(path: &Path) -> String {
    path.strip_prefix("./").unwrap_or(path).display().to_string()
}

pub(super) fn list(arguments: &ListFolder) -> Result<Done, ToolError> {
    let folder = folder_of(arguments.path.as_deref())?;
    let failed = |error: std::io::Error| ToolError::of("list", &folder, &error);
    // An empty listing would hide that it may not be read.
    fs::read_dir(&folder).map_err(failed)?;
    let depth = arguments.depth.unwrap_or(1).clamp(1, DEEPEST);
    let (entries, is_cut) = walk(&folder, Some(depth));
    let line = |entry: &ignore::DirEntry| {
        let name = shown(entry.path().strip_prefix(&folder).unwrap_or(entry.path()));
        match entry.file_type() {
            Some(kind) if kind.is_dir() => format!("{name}/"),
            Some(kind) if kind.is_symlink() => format!("{name} -> {}", link_of(entry.path())),
            _ => format!("{name} ({} bytes)", entry.metadata().map_or(0, |metadata| metadata.len())),
        }
    };
    let lines: Vec<String> = entries.iter().take(MOST_LISTED).map(line).collect();
    Ok(told(lines, entries.len(), is_cut, "the folder is empty").into())
}

fn link_of(path: &Path) -> String {
    fs::read_link(path).map_or_else(|_| "?".to_owned(), |to| to.display().to_string())
}

/// Lines, and how many were left out.
fn told(lines: Vec<String>, found: usize, is_cut: bool, nothing: &str) -> String {
    if lines.is_empty() {
        return nothing.to_owned();
    }
    let mut text = lines.join("\n");
    if found > lines.len() {
        text += &format!("\n({} more are left out: look for less)", found - lines.len());
    } else if is_cut {
        text += &format!("\n(only the first {MOST_LOOKED_AT} entries were looked at)");
    }
    text
}

fn matcher(pattern: &str, whole_path: bool) -> Result<GlobMatcher, ToolError> {
    let bad = |error: globset::Error| ToolError::new(format!("`{pattern}` is no pattern: {}", error.kind()));
    let built = GlobBuilder::new(pattern).literal_separator(whole_path).build();
    Ok(built.map_err(bad)?.compile_matcher())
}

pub(super) fn glob(arguments: &FindFiles) -> Result<Done, ToolError> {
    let folder = folder_of(arguments.path.as_deref())?;
    fs::read_dir(&folder).map_err(|error| ToolError::of("look in", &folder, &error))?;
    let matcher = matcher(arguments.pattern.trim_start_matches("./"), true)?;
    let (entries, is_cut) = walk(&folder, None);
    let is_file = |entry: &&ignore::DirEntry| entry.file_type().is_some_and(|kind| !kind.is_dir());
    let fits = |entry: &&ignore::DirEntry| {
        matcher.is_match(entry.path().strip_prefix(&folder).unwrap_or(entry.path()))
    };
    let found: Vec<String> =
        entries.iter().filter(is_file).filter(fits).map(|entry| shown(entry.path())).collect();
    let count = found.len();
    let lines = found.into_iter().take(MOST_FOUND).collect();
    Ok(told(lines, count, is_cut, "no file fits").into())
}

pub(super) fn grep(arguments: &FindLines) -> Result<Done, ToolError> {
    let pattern = RegexBuilder::new(&arguments.pattern)
        .case_insensitive(arguments.ignore_case)
        .size_limit(PATTERN)
        .build()
        .map_err(|error| ToolError::new(format!("the pattern cannot be used: {error}")))?;
    let names = arguments.glob.as_deref().map(|glob| matcher(glob, glob.contains('/'))).transpose()?;
    let place = folder_of(arguments.path.as_deref())?;
    let metadata = fs::metadata(&place).map_err(|error| ToolError::of("look in", &place, &error))?;
    let context = arguments.context.unwrap_or(0).min(10);
    let (mut lines, mut found) = (Vec::new(), 0);
    if metadata.is_file() {
        found += search(&pattern, &place, &text_of(&place)?, context, &mut lines);
        return Ok(told(lines, found, false, "no line fits").into());
    }
    let (entries, is_cut) = walk(&place, None);
    let files = entries.iter().filter(|entry| entry.file_type().is_some_and(|kind| kind.is_file()));
    for entry in files {
        let relative = entry.path().strip_prefix(&place).unwrap_or(entry.path());
        let name = Path::new(entry.file_name());
        let fits = |names: &GlobMatcher| names.is_match(relative) || names.is_match(name);
        if !names.as_ref().is_none_or(fits) {
            continue;
        }
        // What is no text, or may not be read, has no lines.
        let Ok(text) = text_of(entry.path()) else { continue };
        found += search(&pattern, entry.path(), &text, context, &mut lines);
    }
    Ok(told(lines, found, is_cut, "no line fits").into())
}

/// Adds the lines of one file that fit, as far as there is room; how many there are.
fn search(pattern: &Regex, path: &Path, text: &str, context: usize, found: &mut Vec<String>) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let hits: Vec<usize> = (0..lines.len()).filter(|at| pattern.is_match(lines[*at])).collect();
    let name = shown(path);
    let mut next = 0;
    for hit in &hits {
        let (from, to) = (hit.saturating_sub(context).max(next), (hit + context + 1).min(lines.len()));
        if found.len() >= MOST_LINES {
            break;
        }
        for (at, line) in lines.iter().enumerate().take(to).skip(from) {
            let mark = if pattern.is_match(line) { ':' } else { '-' };
            let line: String = line.chars().take(LONGEST_LINE).collect();
            found.push(format!("{name}{mark}{}{mark}{line}", at + 1));
        }
        next = to;
    }
    // Lines around are none of those that are counted.
    if context > 0 && found.len() < MOST_LINES { 0 } else { hits.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for (path, text) in [
            ("src/main.rs", "fn main() {\n    add(1);\n}\n"),
            ("src/lib/add.rs", "pub fn add(a: u32) {}\n"),
            ("README.md", "add adds\n"),
            (".gitignore", "target\n"),
            ("target/out.rs", "fn add() {}\n"),
            (".git/config", "[core] add\n"),
        ] {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(path, text).expect("a file");
        }
        folder
    }

    fn without(folder: &tempfile::TempDir, done: Result<Done, ToolError>) -> String {
        done.expect("found").text.replace(&format!("{}/", folder.path().display()), "")
    }

    #[test]
    fn what_is_ignored_is_not_found() {
        let folder = tree();
        let path = Some(folder.path().display().to_string());
        let listed = list(&ListFolder { path: path.clone(), depth: Some(3) });
        assert_eq!(
            without(&folder, listed),
            ".gitignore (7 bytes)\nREADME.md (9 bytes)\nsrc/\nsrc/lib/\nsrc/lib/add.rs (22 bytes)\nsrc/main.rs (26 bytes)"
        );
        let found = glob(&FindFiles { pattern: "**/*.rs".into(), path: path.clone() });
        assert_eq!(without(&folder, found), "src/lib/add.rs\nsrc/main.rs");
        let found = glob(&FindFiles { pattern: "*.rs".into(), path: path.clone() });
        assert_eq!(without(&folder, found), "no file fits");
        let lines = FindLines {
            pattern: "ADD".into(),
            path,
            glob: Some("*.rs".into()),
            context: None,
            ignore_case: true,
        };
        assert_eq!(
            without(&folder, grep(&lines)),
            "src/lib/add.rs:1:pub fn add(a: u32) {}\nsrc/main.rs:2:    add(1);"
        );
        let around = FindLines { context: Some(1), glob: Some("main.rs".into()), ..lines };
        assert_eq!(
            without(&folder, grep(&around)),
            "src/main.rs-1-fn main() {\nsrc/main.rs:2:    add(1);\nsrc/main.rs-3-}"
        );
    }

    #[test]
    fn what_makes_no_sense_says_why() {
        let folder = tree();
        let path = Some(folder.path().join("none").display().to_string());
        let message = list(&ListFolder { path, depth: None }).expect_err("none").message;
        assert!(message.ends_with("there is no such file"), "{message}");
        let bad =
            FindLines { pattern: "(".into(), path: None, glob: None, context: None, ignore_case: false };
        assert!(grep(&bad).expect_err("no pattern").message.contains("unclosed group"));
        let bad = FindFiles { pattern: "[".into(), path: None };
        assert!(glob(&bad).expect_err("no pattern").message.contains("is no pattern"));
    }
}
