//! From the origin of a value back to its place in a file, where a caret can be drawn.

use std::ops::Range;

use toka_core::Origin;

use crate::diagnostic::{FileId, Sources};

/// The file and the bytes of the word at `origin`; nothing for defaults and for files that are not there.
pub(super) fn locate(sources: &Sources, origin: &Origin) -> Option<(FileId, Range<usize>)> {
    let Origin::File { file, line, column } = origin else { return None };
    let id = sources.files().find(|id| sources.path(*id) == &**file)?;
    let text = sources.text(id);
    let line_text = text.split_inclusive('\n').nth(usize::try_from(*line).ok()?.checked_sub(1)?)?;
    let before: usize =
        line_text.chars().take(usize::try_from(*column).ok()?.checked_sub(1)?).map(char::len_utf8).sum();
    let rest = line_text[before..].trim_end();
    let length = rest.find([':', ',', '}', ' ']).unwrap_or(rest.len());
    let start = line_text.as_ptr() as usize - text.as_ptr() as usize + before;
    Some((id, start..start + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_at_an_origin_is_found() {
        let mut sources = Sources::default();
        sources.add("other.yaml", "x");
        let id = sources.add("a.yaml", "dependencies:\n  required: {é: why, fetch: sources}\n  last");
        for (line, column, word) in [(1, 1, "dependencies"), (2, 14, "é"), (2, 22, "fetch"), (3, 3, "last")]
        {
            let origin = Origin::File { file: "a.yaml".into(), line, column };
            let (file, span) = locate(&sources, &origin).expect("a place");
            assert_eq!((file, &sources.text(file)[span]), (id, word));
        }
    }

    #[test]
    fn what_is_in_no_file_has_no_place() {
        let mut sources = Sources::default();
        sources.add("a.yaml", "x\n");
        for origin in [
            Origin::default_of("limits"),
            Origin::File { file: "b.yaml".into(), line: 1, column: 1 },
            Origin::File { file: "a.yaml".into(), line: 9, column: 1 },
            Origin::File { file: "a.yaml".into(), line: 0, column: 0 },
        ] {
            assert_eq!(locate(&sources, &origin), None, "{origin}");
        }
    }
}
