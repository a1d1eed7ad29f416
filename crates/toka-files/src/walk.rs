//! Patterns of paths, matched by a walk that follows no link and ends: after so many names, or at a deadline.
//!
//! ```text
//! *      any characters of one name      ?      one character      [a-c] [!a-c]   one of these, none of these
//! **     any number of directories, none included
//! ```
//!
//! A name that begins with a dot is matched by a pattern that says the dot, as in a shell.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::FileType;
use thiserror::Error;

use crate::Directory;

/// How deep directories may lie in one another: a descriptor is held for each.
const DEPTH: usize = 128;

/// How far a walk may go.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most names that are looked at.
    pub names: usize,
    /// When it must have ended.
    pub deadline: Instant,
}

/// Why a walk ended before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Stopped {
    /// There are too many names.
    #[error("it matches against more than {0} names")]
    TooMany(usize),
    /// Directories lie too deep in one another.
    #[error("it leads more than {0} directories deep")]
    TooDeep(usize),
    /// It takes too long.
    #[error("it takes too long to find what it matches")]
    TooSlow,
}

/// One search for what a pattern matches.
#[derive(Debug)]
pub struct Walk {
    limits: Limits,
    looked_at: usize,
    found: Vec<PathBuf>,
}

impl Walk {
    /// The paths below `root` that `pattern` matches, relative to it, in the order of their names. The parts of a pattern
    /// are separated by `/`.
    ///
    /// # Errors
    /// When the walk reaches a limit.
    pub fn find(root: &Directory, pattern: &str, limits: Limits) -> Result<Vec<PathBuf>, Stopped> {
        let parts: Vec<&str> = pattern.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        let mut walk = Self { limits, looked_at: 0, found: Vec::new() };
        walk.enter(root, Path::new(""), &parts)?;
        walk.found.sort();
        walk.found.dedup();
        Ok(walk.found)
    }

    fn enter(&mut self, directory: &Directory, path: &Path, parts: &[&str]) -> Result<(), Stopped> {
        let Some((part, rest)) = parts.split_first() else {
            self.found.push(path.to_owned());
            return Ok(());
        };
        if path.components().count() > DEPTH {
            return Err(Stopped::TooDeep(DEPTH));
        }
        if !part.contains(['*', '?', '[']) {
            return self.step(directory, path, OsString::from(part), rest);
        }
        if *part == "**" {
            self.enter(directory, path, rest)?;
        }
        let room = self.limits.names - self.looked_at;
        // What cannot be read matches nothing, as in a shell.
        let entries = directory.entries(room + 1).unwrap_or_default();
        self.looked_at += entries.len();
        self.check()?;
        for (name, kind) in entries {
            if *part == "**" {
                let hidden = name.as_bytes().starts_with(b".");
                if kind == FileType::Directory
                    && !hidden
                    && let Ok(inner) = directory.directory(Path::new(&name))
                {
                    self.enter(&inner, &path.join(&name), parts)?;
                }
            } else if matches(part, name.as_bytes()) {
                self.step(directory, path, name, rest)?;
            }
        }
        Ok(())
    }

    fn step(
        &mut self,
        directory: &Directory,
        path: &Path,
        name: OsString,
        rest: &[&str],
    ) -> Result<(), Stopped> {
        let at = path.join(&name);
        match directory.kind(Path::new(&name)) {
            Some(FileType::Directory) if !rest.is_empty() => match directory.directory(Path::new(&name)) {
                Ok(inner) => self.enter(&inner, &at, rest),
                Err(_) => Ok(()),
            },
            // A link is a name like any other; nothing lies below it.
            Some(_) if rest.is_empty() => {
                self.found.push(at);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn check(&self) -> Result<(), Stopped> {
        if self.looked_at > self.limits.names {
            Err(Stopped::TooMany(self.limits.names))
        } else if Instant::now() > self.limits.deadline {
            Err(Stopped::TooSlow)
        } else {
            Ok(())
        }
    }
}

/// Whether `pattern`, which has no `/`, matches the whole of `name`. The time is linear in the product of their lengths.
pub fn matches(pattern: &str, name: &[u8]) -> bool {
    let pattern = pattern.as_bytes();
    if name.starts_with(b".") && !pattern.starts_with(b".") {
        return false;
    }
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, n));
            p += 1;
        } else if let Some(next) = one(pattern, p, name[n]) {
            p = next;
            n += 1;
        } else if let Some((at, from)) = star {
            (p, n) = (at + 1, from + 1);
            star = Some((at, from + 1));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// Where the pattern goes on after it has matched one byte.
fn one(pattern: &[u8], at: usize, byte: u8) -> Option<usize> {
    match pattern.get(at)? {
        b'?' => Some(at + 1),
        b'[' => match class(&pattern[at + 1..], byte) {
            Some((length, true)) => Some(at + 1 + length),
            Some((_, false)) => None,
            // Not closed: an ordinary character.
            None => (byte == b'[').then_some(at + 1),
        },
        other => (*other == byte).then_some(at + 1),
    }
}

/// The length of the class that begins after `[`, its end included, and whether the byte is in it.
fn class(class: &[u8], byte: u8) -> Option<(usize, bool)> {
    let negated = matches!(class.first(), Some(b'!' | b'^'));
    let first = usize::from(negated);
    let end = first + 1 + class.get(first + 1..)?.iter().position(|byte| *byte == b']')?;
    let (mut at, mut found) = (first, false);
    while at < end {
        if at + 2 < end && class[at + 1] == b'-' {
            found |= (class[at]..=class[at + 2]).contains(&byte);
            at += 3;
        } else {
            found |= class[at] == byte;
            at += 1;
        }
    }
    Some((end + 1, found != negated))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    use super::*;

    fn limits(names: usize) -> Limits {
        Limits { names, deadline: Instant::now() + Duration::from_secs(60) }
    }

    #[test]
    fn names() {
        for (pattern, name, expected) in [
            ("*", "a", true),
            ("*", ".a", false),
            (".*", ".a", true),
            ("*.md", "a.md", true),
            ("*.md", "a.mdx", false),
            ("a*b*c", "aXbYbZc", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[]a]x", "]x", true),
            ("[a", "[a", true),
            ("**", "abc", true),
        ] {
            assert_eq!(matches(pattern, name.as_bytes()), expected, "{pattern} {name}");
        }
        assert!(!matches(&"*a".repeat(40), "b".repeat(4000).as_bytes()), "it does not take exponential time");
    }

    #[test]
    fn a_walk_follows_no_link_and_ends() {
        let folder = tempfile::tempdir().expect("a folder");
        for path in ["a/b", "c", ".hidden"] {
            fs::create_dir_all(folder.path().join(path)).expect("a folder");
        }
        for path in ["a/x.md", "a/b/y.md", "c/z.txt", "top.md", ".hidden/h.md"] {
            fs::write(folder.path().join(path), "").expect("room");
        }
        for link in ["a/l1", "a/l2"] {
            symlink("..", folder.path().join(link)).expect("a link");
        }
        let root = Directory::open(folder.path()).expect("a folder");
        let find = |pattern: &str, names| {
            Walk::find(&root, pattern, limits(names)).map(|found| {
                found.iter().map(|path| path.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
            })
        };
        for (pattern, expected) in [
            ("**/*.md", "a/b/y.md a/x.md top.md"),
            ("*.md", "top.md"),
            ("a/*", "a/b a/l1 a/l2 a/x.md"),
            ("*/b", "a/b"),
            ("**", "  a a/b c"),
            (".hidden/*", ".hidden/h.md"),
            ("absent/*", ""),
            ("a/l1/*", ""),
        ] {
            assert_eq!(find(pattern, 1000).expect("an end").trim(), expected.trim(), "{pattern}");
        }
        assert_eq!(find("**/*.md", 5), Err(Stopped::TooMany(5)));
        let deep = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(deep.path().join("d/".repeat(DEPTH + 2))).expect("a folder");
        let deep = Directory::open(deep.path()).expect("a folder");
        assert_eq!(Walk::find(&deep, "**/*.md", limits(1000)), Err(Stopped::TooDeep(DEPTH)));
        let late = Limits { names: 1000, deadline: Instant::now() - Duration::from_secs(1) };
        assert_eq!(Walk::find(&root, "*", late), Err(Stopped::TooSlow));
    }
}
