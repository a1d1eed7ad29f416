//! The index of a repository, as far as it takes to find the submodules in it (gitformat-index(5)): entries whose mode is 160000, of
//! whose repositories git obeys the settings.

use std::path::PathBuf;

/// The kind of an entry that is a submodule, in the upper four bits of its mode.
const GITLINK: u32 = 0o16;
/// Fields of an entry before its object name, in bytes: times, device, inode, mode, owner, size.
const STATUS: usize = 40;
/// Where among them the mode is.
const MODE: usize = 24;
/// Of the flags of an entry: more flags follow.
const EXTENDED: u16 = 0x4000;
/// Of the flags of an entry: the length of its path; of a longer one, this.
const LENGTH: u16 = 0x0fff;

/// What an index says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Index {
    /// Paths of submodules, below the worktree.
    pub(crate) submodules: Vec<PathBuf>,
    /// The name of the file that has more entries, when it is split.
    pub(crate) shared: Option<String>,
}

/// Reads an index. `object_name` is the length of an object's name in bytes: 20, or 32 where `extensions.objectFormat` is `sha256`.
/// `None` when it is no index: git takes it for none either.
pub(crate) fn parse(text: &[u8], object_name: usize) -> Option<Index> {
    let mut reader = Reader { text, at: 0 };
    if reader.take(4)? != b"DIRC" {
        return None;
    }
    let (version, count) = (reader.number()?, reader.number()?);
    if !(2..=4).contains(&version) {
        return None;
    }
    let mut found = Index::default();
    let mut path = Vec::new();
    for _ in 0..count {
        let begin = reader.at;
        let status = reader.take(STATUS)?;
        let mode = u32::from_be_bytes(status[MODE..MODE + 4].try_into().ok()?);
        reader.take(object_name)?;
        let flags = reader.flags()?;
        if flags & EXTENDED != 0 {
            reader.flags()?;
        }
        if version == 4 {
            let dropped = reader.variable()?;
            path.truncate(path.len().checked_sub(dropped)?);
        } else {
            path.clear();
        }
        // Where the next entry begins depends on it, whatever bytes the path has.
        let rest = match usize::from(flags & LENGTH) {
            length if length < usize::from(LENGTH) => reader.take(length.checked_sub(path.len())?)?,
            _ => reader.until_nul()?,
        };
        path.extend_from_slice(rest);
        reader.take(1)?;
        if version < 4 {
            // One to eight NUL bytes, up to a multiple of eight.
            reader.at = begin + (reader.at - begin).next_multiple_of(8);
        }
        if mode >> 12 == GITLINK {
            found.submodules.extend(below(path.split(|byte| *byte == 0).next().unwrap_or_default()));
        }
    }
    found.shared = reader.extensions(object_name);
    Some(found)
}

/// A path as git takes it: none of its parts is empty, `.` or `..`.
fn below(path: &[u8]) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt as _;
    let is_plain = path.split(|byte| *byte == b'/').all(|part| !matches!(part, b"" | b"." | b".."));
    is_plain.then(|| PathBuf::from(std::ffi::OsStr::from_bytes(path)))
}

struct Reader<'t> {
    text: &'t [u8],
    at: usize,
}

impl<'t> Reader<'t> {
    fn take(&mut self, count: usize) -> Option<&'t [u8]> {
        let taken = self.text.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn number(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn flags(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    /// A number of seven bits a byte, each but the last with one added, as the offset of a delta in a pack has it.
    fn variable(&mut self) -> Option<usize> {
        let mut value = 0_usize;
        loop {
            let byte = *self.take(1)?.first()?;
            value = value.checked_mul(128)?.checked_add(usize::from(byte & 0x7f))?;
            if byte & 0x80 == 0 {
                return Some(value);
            }
            value = value.checked_add(1)?;
        }
    }

    fn until_nul(&mut self) -> Option<&'t [u8]> {
        let length = self.text.get(self.at..)?.iter().position(|byte| *byte == 0)?;
        self.take(length)
    }

    /// The shared index that the extension `link` names: of all zeros, there is none.
    fn extensions(&mut self, object_name: usize) -> Option<String> {
        loop {
            let name = self.take(4)?;
            let size = usize::try_from(self.number()?).ok()?;
            let content = self.take(size)?;
            if name == b"link" {
                let base = content.get(..object_name).filter(|base| base.iter().any(|byte| *byte != 0))?;
                return Some(base.iter().map(|byte| format!("{byte:02x}")).collect());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    /// What git itself writes.
    fn written(format: &str, settings: &[&str]) -> (tempfile::TempDir, Vec<u8>) {
        let folder = tempfile::tempdir().expect("a folder");
        let git = |words: &[&str]| {
            let mut command = Command::new("git");
            let done = command.arg("-C").arg(folder.path()).args(words).output().expect("git");
            assert!(done.status.success(), "{done:?}");
        };
        git(&["init", "-q", &format!("--object-format={format}")]);
        for setting in settings {
            let (key, value) = setting.split_once('=').expect("a setting");
            git(&["config", key, value]);
        }
        std::fs::write(folder.path().join("a file with a long name"), "x").expect("room");
        let object = "1".repeat(if format == "sha1" { 40 } else { 64 });
        for path in ["lib/deep/one", "lib/deep/one-more", "z"] {
            git(&["update-index", "--add", "--cacheinfo", &format!("160000,{object},{path}")]);
        }
        git(&["add", "--intent-to-add", "a file with a long name"]);
        let index = std::fs::read(folder.path().join(".git/index")).expect("an index");
        (folder, index)
    }

    #[test]
    fn submodules_are_found_in_what_git_writes() {
        let expected = ["lib/deep/one", "lib/deep/one-more", "z"].map(PathBuf::from);
        for version in ["2", "3", "4"] {
            for (format, length) in [("sha1", 20), ("sha256", 32)] {
                let (_folder, text) = written(format, &[&format!("index.version={version}")]);
                let found = parse(&text, length).expect("an index");
                assert_eq!(found.submodules, expected, "{format} {version}");
                assert_eq!(found.shared, None);
            }
        }
    }

    #[test]
    fn a_split_index_names_its_other_half() {
        let (folder, text) = written("sha1", &["core.splitIndex=true", "splitIndex.maxPercentChange=100"]);
        let found = parse(&text, 20).expect("an index");
        let name = format!("sharedindex.{}", found.shared.expect("it is split"));
        assert!(folder.path().join(".git").join(&name).is_file(), "{name}");
    }

    #[test]
    fn no_path_leads_elsewhere() {
        for path in ["../x", "a//b", "a/./b", "/a", ""] {
            assert_eq!(below(path.as_bytes()), None, "{path}");
        }
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
