//! The index of a repository, as far as it takes to find the submodules in it (gitformat-index(5)): entries whose mode is 160000, of
//! whose repositories git obeys the settings. An agent can write an index, and git takes more than it writes: what git would never
//! write is [`Odd`].

use std::collections::BTreeSet;
use std::path::PathBuf;

use thiserror::Error;

/// The kinds of entries that matter, in the upper four bits of their modes: a submodule, and a directory of a sparse index.
const GITLINK: u32 = 0o16;
const DIRECTORY: u32 = 0o04;
/// Fields of an entry before its object name, in bytes: times, device, inode, mode, owner, size.
const STATUS: usize = 40;
/// Where among them the mode is.
const MODE: usize = 24;
/// Of the flags of an entry: more flags follow.
const EXTENDED: u16 = 0x4000;
/// Of the flags of an entry: the length of its path; of a longer one, this.
const LENGTH: u16 = 0x0fff;
/// Longest path of a file (pathconf(3): `PATH_MAX`).
const LONGEST_PATH: usize = 4096;
/// Most submodules and sparse directories that are kept.
const MOST: usize = 10_000;

/// What git would not write.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum Odd {
    /// It ends too early, or has another format.
    #[error("it is damaged")]
    Damaged,
    /// A path of a submodule that is empty, absolute, or has parts such as `..`.
    #[error("it names a submodule by a path that git does not write")]
    Path,
    /// A path that cannot be told.
    #[error("it names a submodule by a path that is no text")]
    Text,
    /// More than anybody has.
    #[error("it has more than {MOST} submodules or sparse directories")]
    Many,
    /// Longer than a path can be.
    #[error("it has a path of more than {LONGEST_PATH} bytes")]
    Long,
}

/// What an index says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Index {
    /// Paths of submodules, below the worktree.
    pub(crate) submodules: BTreeSet<PathBuf>,
    /// Whether a submodule takes the place of an entry in the other half of a split index, under the name that stands there.
    pub(crate) replaces: bool,
    /// Directories of a sparse index, each with the name of its tree, in which there can be submodules.
    pub(crate) sparse: BTreeSet<String>,
    /// The name of the file that has more entries, when it is split.
    pub(crate) shared: Option<String>,
}

/// An entry.
struct Entry<'a> {
    mode: u32,
    object: &'a [u8],
    path: &'a [u8],
}

/// Reads an index. `object_name` is the length of an object's name in bytes: 20, or 32 where `extensions.objectFormat` is `sha256`.
///
/// # Errors
/// When git would not write it.
pub(crate) fn parse(text: &[u8], object_name: usize) -> Result<Index, Odd> {
    let mut found = Index::default();
    let shared = each(text, object_name, |entry| {
        match entry.mode >> 12 {
            GITLINK if entry.path.is_empty() => found.replaces = true,
            GITLINK => drop(found.submodules.insert(below(entry.path)?)),
            DIRECTORY => {
                let path = String::from_utf8_lossy(entry.path);
                found.sparse.insert(format!("{} {path}", hex(entry.object)));
            }
            _ => {}
        }
        if found.submodules.len() + found.sparse.len() > MOST { Err(Odd::Many) } else { Ok(()) }
    })?;
    if shared.len() > 1 {
        return Err(Odd::Damaged);
    }
    Ok(Index { shared: shared.into_iter().next(), ..found })
}

/// The path of every entry, whatever it is: as many as [`MOST`].
///
/// # Errors
/// When git would not write it.
pub(crate) fn paths(text: &[u8], object_name: usize) -> Result<Vec<PathBuf>, Odd> {
    let mut found = BTreeSet::new();
    each(text, object_name, |entry| {
        // What is no path of a submodule can be none by another entry either.
        found.extend(below(entry.path));
        if found.len() > MOST { Err(Odd::Many) } else { Ok(()) }
    })?;
    Ok(found.into_iter().collect())
}

/// Visits each entry; the other halves that it names.
fn each(
    text: &[u8],
    object_name: usize,
    mut visit: impl FnMut(Entry<'_>) -> Result<(), Odd>,
) -> Result<BTreeSet<String>, Odd> {
    let mut reader = Reader { text, at: 0 };
    if reader.take(4)? != b"DIRC" {
        return Err(Odd::Damaged);
    }
    let (version, count) = (reader.number()?, reader.number()?);
    if !(2..=4).contains(&version) {
        return Err(Odd::Damaged);
    }
    let mut path = Vec::new();
    for _ in 0..count {
        let begin = reader.at;
        let status = reader.take(STATUS)?;
        let mode = u32::from_be_bytes([status[MODE], status[MODE + 1], status[MODE + 2], status[MODE + 3]]);
        let object = reader.take(object_name)?;
        let flags = reader.flags()?;
        if flags & EXTENDED != 0 {
            reader.flags()?;
        }
        if version == 4 {
            let dropped = reader.variable()?;
            path.truncate(path.len().checked_sub(dropped).ok_or(Odd::Damaged)?);
        } else {
            path.clear();
        }
        // Where the next entry begins depends on it, whatever bytes the path has.
        let rest = match usize::from(flags & LENGTH) {
            length if length < usize::from(LENGTH) => {
                reader.take(length.checked_sub(path.len()).ok_or(Odd::Damaged)?)?
            }
            _ => reader.until_nul()?,
        };
        path.extend_from_slice(rest);
        if path.len() > LONGEST_PATH {
            return Err(Odd::Long);
        }
        reader.take(1)?;
        if version < 4 {
            // One to eight NUL bytes, up to a multiple of eight.
            reader.at = begin + (reader.at - begin).next_multiple_of(8);
        }
        if path.contains(&0) {
            return Err(Odd::Damaged);
        }
        visit(Entry { mode, object, path: &path })?;
    }
    reader.shared(object_name)
}

/// A path as git writes it: none of its parts is empty, `.` or `..`.
fn below(path: &[u8]) -> Result<PathBuf, Odd> {
    if path.split(|byte| *byte == b'/').any(|part| matches!(part, b"" | b"." | b"..")) {
        return Err(Odd::Path);
    }
    std::str::from_utf8(path).map(PathBuf::from).map_err(|_| Odd::Text)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Reader<'t> {
    text: &'t [u8],
    at: usize,
}

impl<'t> Reader<'t> {
    fn take(&mut self, count: usize) -> Result<&'t [u8], Odd> {
        let end = self.at.checked_add(count).ok_or(Odd::Damaged)?;
        let taken = self.text.get(self.at..end).ok_or(Odd::Damaged)?;
        self.at = end;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u32, Odd> {
        let bytes = self.take(4)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn flags(&mut self) -> Result<u16, Odd> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// A number of seven bits a byte, each but the last with one added, as the offset of a delta in a pack has it.
    fn variable(&mut self) -> Result<usize, Odd> {
        let mut value = 0_usize;
        loop {
            let byte = self.take(1)?[0];
            let low = usize::from(byte & 0x7f);
            value = value.checked_mul(128).and_then(|value| value.checked_add(low)).ok_or(Odd::Damaged)?;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
            value = value.checked_add(1).ok_or(Odd::Damaged)?;
        }
    }

    fn until_nul(&mut self) -> Result<&'t [u8], Odd> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let length = rest.iter().take(LONGEST_PATH + 1).position(|byte| *byte == 0).ok_or(Odd::Long)?;
        self.take(length)
    }

    /// The shared indexes that the extensions `link` name, before the checksum: of all zeros, there is none.
    fn shared(&mut self, object_name: usize) -> Result<BTreeSet<String>, Odd> {
        let mut found = BTreeSet::new();
        while self.text.len() - self.at > object_name {
            let name = self.take(4)?;
            let size = usize::try_from(self.number()?).map_err(|_| Odd::Damaged)?;
            let content = self.take(size)?;
            if name == b"link" {
                let base = content.get(..object_name).ok_or(Odd::Damaged)?;
                found.extend(base.iter().any(|byte| *byte != 0).then(|| hex(base)));
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    /// A repository whose index git itself has written.
    struct Written(tempfile::TempDir);

    impl Written {
        fn new(format: &str, settings: &[&str]) -> Self {
            let it = Self(tempfile::tempdir().expect("a folder"));
            it.git(&["init", "-q", &format!("--object-format={format}")]);
            for setting in settings {
                let (key, value) = setting.split_once('=').expect("a setting");
                it.git(&["config", key, value]);
            }
            std::fs::write(it.0.path().join("a file with a long name"), "x").expect("room");
            let object = "1".repeat(if format == "sha1" { 40 } else { 64 });
            for path in ["lib/deep/one", "lib/deep/one-more", "z"] {
                it.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{object},{path}")]);
            }
            it.git(&["add", "--intent-to-add", "a file with a long name"]);
            it
        }

        fn git(&self, words: &[&str]) {
            let mut command = Command::new("git");
            let done = command.arg("-C").arg(self.0.path()).args(words).output().expect("git");
            assert!(done.status.success(), "{done:?}");
        }

        fn file(&self, name: &str) -> Vec<u8> {
            std::fs::read(self.0.path().join(".git").join(name)).expect("a file")
        }
    }

    fn set(paths: &[&str]) -> BTreeSet<PathBuf> {
        paths.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn submodules_are_found_in_what_git_writes() {
        for version in ["2", "3", "4"] {
            for (format, length) in [("sha1", 20), ("sha256", 32)] {
                let written = Written::new(format, &[&format!("index.version={version}")]);
                let found = parse(&written.file("index"), length).expect("an index");
                assert_eq!(found.submodules, set(&["lib/deep/one", "lib/deep/one-more", "z"]));
                assert!(found.shared.is_none() && found.sparse.is_empty() && !found.replaces);
            }
        }
    }

    #[test]
    fn a_split_index_names_its_other_half_and_what_takes_the_place_of_an_entry_there() {
        let written = Written::new("sha1", &["splitIndex.maxPercentChange=100"]);
        let empty = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391";
        written.git(&["update-index", "--add", "--cacheinfo", &format!("100644,{empty},sub")]);
        written.git(&["update-index", "--split-index"]);
        let replacing = format!("160000,{},sub", "1".repeat(40));
        written.git(&["update-index", "--cacheinfo", &replacing]);
        let found = parse(&written.file("index"), 20).expect("an index");
        assert!(found.replaces, "{found:?}");
        let shared = found.shared.expect("it is split");
        let all = paths(&written.file(&format!("sharedindex.{shared}")), 20).expect("an index");
        assert!(all.contains(&"sub".into()) && all.contains(&"lib/deep/one".into()), "{all:?}");
    }

    /// An index of version 2 with one entry, and what follows.
    fn made(path: &[u8], mode: u32, extensions: &[u8]) -> Vec<u8> {
        let mut text = b"DIRC\0\0\0\x02\0\0\0\x01".to_vec();
        let begin = text.len();
        text.extend([0; MODE]);
        text.extend(mode.to_be_bytes());
        text.extend([0; STATUS - MODE - 4 + 20]);
        text.extend(u16::try_from(path.len().min(0x0fff)).unwrap_or(0x0fff).to_be_bytes());
        text.extend(path);
        text.push(0);
        text.resize(begin + (text.len() - begin).next_multiple_of(8), 0);
        text.extend(extensions);
        text.extend([0; 20]);
        text
    }

    #[test]
    fn what_git_does_not_write_is_odd() {
        assert_eq!(parse(&made(b"lib/x", 0o160_000, b""), 20).map(|it| it.submodules), Ok(set(&["lib/x"])));
        for path in [&b"x/../sub"[..], b"./sub", b"sub//", b"/sub", b"sub/.", b".."] {
            assert_eq!(parse(&made(path, 0o160_000, b""), 20), Err(Odd::Path), "{path:?}");
            assert!(parse(&made(path, 0o100_644, b""), 20).is_ok(), "no submodule");
        }
        assert_eq!(parse(&made(b"x\xff", 0o160_000, b""), 20), Err(Odd::Text));
        assert_eq!(parse(&made(&[b'x'; 5000], 0o100_644, b""), 20), Err(Odd::Long));
        assert_eq!(parse(b"DIRC", 20), Err(Odd::Damaged));
        let link = |byte: u8| [&b"link\0\0\0\x14"[..], &[byte; 20]].concat();
        let both = parse(&made(b"x", 0o100_644, &[link(0), link(7)].concat()), 20).expect("an index");
        assert_eq!(both.shared, Some("07".repeat(20)));
        let two = parse(&made(b"x", 0o100_644, &[link(6), link(7)].concat()), 20);
        assert_eq!(two, Err(Odd::Damaged), "git writes one");
        let sparse = parse(&made(b"dir/", 0o040_000, b""), 20).expect("an index").sparse;
        assert_eq!(sparse, BTreeSet::from([format!("{} dir/", "00".repeat(20))]));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(version in 0_u32..6, count: u32, rest: Vec<u8>) {
            let mut text = b"DIRC".to_vec();
            text.extend(version.to_be_bytes());
            text.extend(count.to_be_bytes());
            text.extend(rest);
            let _ = parse(&text, 20);
        }
    }
}
