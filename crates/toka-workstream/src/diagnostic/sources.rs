//! The texts of the files that were read, and the way from a byte to a line and a column.

use std::ops::Range;
use std::sync::Arc;

use toka_core::Origin;

/// Number of a file in [`Sources`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub(crate) usize);

/// A place that people understand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

/// Every file that was read.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    files: Vec<Source>,
}

#[derive(Debug, Clone)]
struct Source {
    path: Arc<str>,
    text: Arc<str>,
    line_starts: Vec<usize>,
    /// Characters before every [`STRIDE`]th byte, so that a place in a very long line is found without
    /// reading all of it.
    characters: Vec<usize>,
}

const STRIDE: usize = 1024;

impl Source {
    fn new(path: &str, text: Arc<str>) -> Self {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let mut characters = vec![0];
        for block in text.as_bytes().chunks(STRIDE) {
            let before = characters.last().copied().unwrap_or_default();
            characters.push(before + starts(block));
        }
        Self { path: Arc::from(path), text, line_starts, characters }
    }

    fn characters_before(&self, byte: usize) -> usize {
        let block = byte / STRIDE;
        self.characters[block] + starts(&self.text.as_bytes()[block * STRIDE..byte])
    }
}

/// How many characters begin in these bytes of UTF-8.
fn starts(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte & 0xc0 != 0x80).count()
}

impl Sources {
    /// Adds a file under the path that it was named by.
    pub fn add(&mut self, path: &str, text: impl Into<Arc<str>>) -> FileId {
        self.files.push(Source::new(path, text.into()));
        FileId(self.files.len() - 1)
    }

    /// Every file, in the order in which it was added.
    pub fn files(&self) -> impl Iterator<Item = FileId> + use<> {
        (0..self.files.len()).map(FileId)
    }

    /// The path of a file as it was named.
    pub fn path(&self, file: FileId) -> &str {
        &self.files[file.0].path
    }

    /// The text of a file.
    pub fn text(&self, file: FileId) -> &Arc<str> {
        &self.files[file.0].text
    }

    /// Line and column of a byte; a byte beyond the end is the end.
    pub fn position(&self, file: FileId, byte: usize) -> Position {
        let source = &self.files[file.0];
        let byte = byte.min(source.text.len());
        let line = source.line_starts.partition_point(|start| *start <= byte) - 1;
        let column = source.characters_before(byte) - source.characters_before(source.line_starts[line]) + 1;
        Position { line: clamp(line + 1), column: clamp(column) }
    }

    /// The origin of a value that stands at `span`.
    pub fn origin(&self, file: FileId, span: &Range<usize>) -> Origin {
        let Position { line, column } = self.position(file, span.start);
        Origin::File { file: self.files[file.0].path.clone(), line, column }
    }
}

fn clamp(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_lines_and_columns_in_characters() {
        let mut sources = Sources::default();
        let file = sources.add("a.yaml", "eé: 1\nb: 2");
        for (byte, line, column) in [(0, 1, 1), (3, 1, 3), (7, 2, 1), (10, 2, 4), (999, 2, 5)] {
            assert_eq!(sources.position(file, byte), Position { line, column }, "{byte}");
        }
        let file = sources.add("long.yaml", "é".repeat(5000) + "\n" + &"é".repeat(3000));
        assert_eq!(sources.position(file, 8190), Position { line: 1, column: 4096 });
        assert_eq!(sources.position(file, 10_001 + 4000), Position { line: 2, column: 2001 });
    }
}
