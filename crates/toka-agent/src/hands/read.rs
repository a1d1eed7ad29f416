//! `read`: lines of a file, with their numbers.

use std::io::{BufRead as _, BufReader, Read as _};

use toka_core::tool::ReadFile;

use super::Done;
use super::place::{ToolError, open, path_of};

/// Lines, where nobody says how many.
const LINES: usize = 2000;
/// The longest line, in characters; of a longer one the rest is left out.
const LONGEST_LINE: usize = 2000;
/// Bytes of output after which no further line is begun.
const ENOUGH: usize = 100 * 1024;

pub(super) fn read(arguments: &ReadFile) -> Result<Done, ToolError> {
    let path = path_of(&arguments.path)?;
    let mut file = BufReader::new(open(&path)?);
    let failed = |error: std::io::Error| ToolError::of("read", &path, &error);
    if file.fill_buf().map_err(failed)?.contains(&0) {
        return Err(ToolError::new(format!("{} is binary: use a command for it", path.display())));
    }
    let first = arguments.offset.unwrap_or(1).max(1);
    let most = arguments.limit.unwrap_or(LINES).clamp(1, LINES);
    let (mut text, mut line, mut number, mut shown) = (String::new(), Vec::new(), 0, 0);
    let mut more = false;
    loop {
        line.clear();
        // A line without an end is not taken whole.
        let bytes = (&mut file).take(4 * LONGEST_LINE as u64).read_until(b'\n', &mut line).map_err(failed)?;
        if bytes == 0 {
            break;
        }
        if line.last() != Some(&b'\n') {
            file.skip_until(b'\n').map_err(failed)?;
        }
        number += 1;
        if number < first {
            continue;
        }
        if shown == most || text.len() > ENOUGH {
            more = true;
            break;
        }
        shown += 1;
        let words = String::from_utf8_lossy(&line);
        let words = words.trim_end_matches(['\n', '\r']);
        let cut = words.char_indices().nth(LONGEST_LINE);
        let (words, rest) = cut.map_or((words, ""), |(at, _)| (&words[..at], " … (the line is longer)"));
        text += &format!("{number:>6}\t{words}{rest}\n");
    }
    if shown == 0 {
        text = match number {
            0 => format!("{} is empty", path.display()),
            1 => format!("{} has 1 line", path.display()),
            lines => format!("{} has {lines} lines", path.display()),
        };
    } else if more {
        text += &format!("(there is more: go on with offset {})", first + shown);
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(content: &[u8], offset: Option<usize>, limit: Option<usize>) -> Result<String, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("f");
        std::fs::write(&path, content).expect("a file");
        let path = path.display().to_string();
        let done = read(&ReadFile { path: path.clone(), offset, limit });
        done.map(|done| done.text).map_err(|error| error.message.replace(&path, "f"))
    }

    #[test]
    fn lines_have_numbers() {
        assert_eq!(text(b"a\nb\r\nc", None, None).expect("text"), "     1\ta\n     2\tb\n     3\tc\n");
        let part = "     2\tb\n(there is more: go on with offset 3)";
        assert_eq!(text(b"a\nb\nc\n", Some(2), Some(1)).expect("text"), part);
        assert!(text(b"a\n", Some(9), None).expect("text").ends_with("has 1 line"));
        assert!(text(b"", None, None).expect("text").ends_with("is empty"));
    }

    #[test]
    fn what_is_no_text_says_so_and_a_long_line_is_cut() {
        assert_eq!(
            text(b"\x7fELF\0\0", None, None).expect_err("binary"),
            "f is binary: use a command for it"
        );
        let long = text(&b"x".repeat(3 * 1024 * 1024), None, None).expect("text");
        assert!(long.len() < 3000 && long.ends_with("(the line is longer)\n"), "{}", long.len());
        assert!(text("é\u{fffd}".as_bytes(), None, None).expect("text").contains('é'));
        assert!(text(b"caf\xe9\n", None, None).expect("text").contains("caf\u{fffd}"));
    }
}
