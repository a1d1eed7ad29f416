//! Drives the YAML parser over one file.

use std::borrow::Cow;
use std::ops::Range;
use std::rc::Rc;

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, ScanError, Span, Tag};

use super::build::{Builder, Counts};
use super::{MAX_DEPTH, Node, Scalar};
use crate::diagnostic::{Code, Diagnostic, FileId};

/// One document of a file.
pub(crate) struct Document {
    pub(crate) root: Rc<Node>,
    /// Its bytes. The documents of a file share it out at their `---` lines, and leave no byte over.
    pub(crate) range: Range<usize>,
}

/// Parses all documents of a file; what comes before a syntax error is still given.
pub(crate) fn parse(file: FileId, text: &str) -> (Vec<Document>, Vec<Diagnostic>) {
    let mut driver = Driver { file, text, documents: Vec::new(), problems: Vec::new() };
    driver.run();
    (driver.documents, driver.problems)
}

struct Driver<'t> {
    file: FileId,
    text: &'t str,
    documents: Vec<Document>,
    problems: Vec<Diagnostic>,
}

impl Driver<'_> {
    fn run(&mut self) {
        let text = self.text;
        let mut counts = Counts::default();
        let mut builder = Builder::new(self.file, &mut counts);
        let mut start = 0;
        for event in Parser::new_from_str(text) {
            let (event, span) = match event {
                Ok(event) => event,
                Err(error) => {
                    let mut problems = std::mem::take(&mut builder.problems);
                    self.problems.append(&mut problems);
                    self.problems.push(self.syntax(&error));
                    return;
                }
            };
            let range = bytes(&span, text);
            let step = match event {
                Event::DocumentStart(_, _) => {
                    start = self.documents.len().min(1) * range.start;
                    builder.next_document();
                    Ok(())
                }
                Event::DocumentEnd => {
                    self.problems.append(&mut builder.problems);
                    self.end_document(builder.root.take(), start);
                    Ok(())
                }
                Event::Scalar(text, style, anchor, tag) => {
                    self.warn_of_tag(tag.as_deref(), &range);
                    builder.scalar(scalar(text, style, tag.as_deref()), range, anchor)
                }
                Event::SequenceStart(_, anchor, tag) => {
                    self.warn_of_tag(tag.as_deref(), &range);
                    builder.open_list(&range, anchor)
                }
                Event::MappingStart(_, anchor, tag) => {
                    self.warn_of_tag(tag.as_deref(), &range);
                    builder.open_map(&range, anchor)
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    // Only the end of `[..]` and `{..}` has bytes of its own; a block ends where its last
                    // line does.
                    builder.close((!range.is_empty()).then_some(range.end));
                    Ok(())
                }
                Event::Alias(anchor) => builder.alias(anchor, &range),
                _ => Ok(()),
            };
            if let Err(halt) = step {
                self.problems.append(&mut builder.problems);
                self.problems.push(*halt);
                return;
            }
        }
    }

    fn end_document(&mut self, root: Option<Rc<Node>>, start: usize) {
        if let Some(last) = self.documents.last_mut() {
            last.range.end = start;
        }
        if let Some(root) = root {
            self.documents.push(Document { root, range: start..self.text.len() });
        }
    }

    fn warn_of_tag(&mut self, tag: Option<&Tag>, range: &Range<usize>) {
        let Some(tag) = tag else { return };
        if tag.is_yaml_core_schema() || tag.suffix().is_empty() {
            return;
        }
        let message = format!("the tag `{}` means nothing here", tag.original());
        self.problems.push(Diagnostic::new(Code::NoEffect, message).at(
            self.file,
            range.clone(),
            "read without its tag",
        ));
    }

    fn syntax(&self, error: &ScanError) -> Diagnostic {
        let at = error.marker().byte_offset().unwrap_or(self.text.len()).min(self.text.len());
        let at = self.text.floor_char_boundary(at);
        if let Some(tab) = self.tab(error, at) {
            return Diagnostic::new(Code::Tab, "a tab cannot indent YAML")
                .at(self.file, tab..tab + 1, "a tab")
                .help("indent with spaces");
        }
        if matches!(error.kind(), ErrorKind::RecursionLimitExceeded) {
            let message = format!("lists and maps are nested deeper than {MAX_DEPTH}");
            return Diagnostic::new(Code::TooComplex, message).at(self.file, at..at, "reading stopped here");
        }
        Diagnostic::new(Code::Syntax, format!("this is not YAML: {}", error.info())).at(self.file, at..at, "")
    }

    /// The tab that an error is about: one that indents its line, or that the parser itself complains of.
    fn tab(&self, error: &ScanError, at: usize) -> Option<usize> {
        let line = self.text[..at].rfind('\n').map_or(0, |at| at + 1);
        let line_text = self.text[line..].lines().next().unwrap_or_default();
        let indent = &line_text[..line_text.len() - line_text.trim_start_matches([' ', '\t']).len()];
        let beyond =
            || self.text[at..].find('\t').filter(|_| error.info().contains("tab")).map(|tab| at + tab);
        indent.find('\t').map(|tab| line + tab).or_else(beyond)
    }
}

fn bytes(span: &Span, text: &str) -> Range<usize> {
    let range = span.byte_range().unwrap_or(0..0);
    let start = text.floor_char_boundary(range.start.min(text.len()));
    let end = text.floor_char_boundary(range.end.min(text.len())).max(start);
    // The end of a block scalar includes its line break.
    let end = start + text[start..end].trim_end().len();
    start..end
}

fn scalar(text: Cow<'_, str>, style: ScalarStyle, tag: Option<&Tag>) -> Scalar {
    let text = text.into_owned();
    match tag.and_then(Tag::core_suffix) {
        Some("str") => Scalar::text(text),
        None if style != ScalarStyle::Plain => Scalar::text(text),
        _ => Scalar::plain(text),
    }
}
