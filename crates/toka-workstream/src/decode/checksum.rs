//! `metadata.checksum`: the SHA-256, in hexadecimal and with or without `sha256:` before it, of the document
//! without the line that the checksum stands in. For a file of one document that is `grep -v '^ *checksum:'
//! FILE | sha256sum`.
//!
//! The line is left out because no text can hold its own hash. A mismatch warns and never refuses: the
//! checksum guards against slips, not against people, who could write the right one.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use super::context::Context;
use crate::diagnostic::{Code, Diagnostic};
use crate::read::{Document, Entry};

pub(crate) fn check(cx: &mut Context<'_>, written: &str, entry: &Entry, document: &Document) {
    let text = cx.sources.text(cx.file).clone();
    let actual = of_document(&text[document.range.clone()], entry.key.span.start - document.range.start);
    let written = written.trim();
    let digits = written.strip_prefix("sha256:").unwrap_or(written);
    if digits.eq_ignore_ascii_case(&actual) {
        return;
    }
    cx.report(
        Diagnostic::new(Code::ChecksumMismatch, "the checksum does not fit the document")
            .at(cx.file, entry.value.span.clone(), "of another text")
            .help(format!("if the document is as it should be, write `checksum: sha256:{actual}`")),
    );
}

/// The hash of a document without the line that holds the byte `at`.
fn of_document(text: &str, at: usize) -> String {
    let start = text[..at].rfind('\n').map_or(0, |at| at + 1);
    let end = text[at..].find('\n').map_or(text.len(), |found| at + found + 1);
    let mut hash = Sha256::new();
    hash.update(&text[..start]);
    hash.update(&text[end..]);
    let mut hex = String::with_capacity(64);
    for byte in hash.finalize() {
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_the_checksum_does_not_count() {
        let with = "a: 1\n  checksum: xyz\nb: 2\n";
        let at = with.find("checksum").expect("it is there");
        let actual = of_document(with, at);
        // printf 'a: 1\nb: 2\n' | sha256sum
        assert_eq!(actual, "d02b8bb58aa82e872f709035f39b734b9f28dde0c3d305698a95d04aec594cfa");
        assert_eq!(actual, of_document("checksum: other\na: 1\nb: 2\n", 0));
    }
}
