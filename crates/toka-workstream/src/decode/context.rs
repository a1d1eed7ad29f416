//! What every section reader needs: the file, a place to report to, and the way from bytes to origins.

use std::ops::Range;

use toka_core::Origin;

use crate::diagnostic::{Code, Diagnostic, FileId, Severity, Sources};
use crate::model::KeptKey;
use crate::read::{Entry, Node};

/// Most diagnostics of one file. Beyond it nobody reads on, and a hostile file could ask for a gigabyte of
/// them.
pub(crate) const MAX_DIAGNOSTICS: usize = 100;

/// The file at hand and what is wrong with it.
pub(crate) struct Context<'a> {
    pub(crate) file: FileId,
    pub(crate) sources: &'a Sources,
    diagnostics: Vec<Diagnostic>,
    omitted: usize,
    failed: bool,
    /// Keys of the document at hand that Toka makes nothing of.
    kept: Vec<KeptKey>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(file: FileId, sources: &'a Sources) -> Self {
        Self { file, sources, diagnostics: Vec::new(), omitted: 0, failed: false, kept: Vec::new() }
    }

    pub(crate) fn report(&mut self, diagnostic: Diagnostic) {
        self.failed |= diagnostic.severity == Severity::Error;
        if self.diagnostics.len() < MAX_DIAGNOSTICS {
            self.diagnostics.push(diagnostic);
        } else {
            self.omitted += 1;
        }
    }

    /// Reports what costs something to put into words; the words are made only if they are shown.
    pub(crate) fn report_lazily(&mut self, code: Code, words: impl FnOnce(&Self) -> Diagnostic) {
        if self.diagnostics.len() < MAX_DIAGNOSTICS {
            let diagnostic = words(self);
            self.report(diagnostic);
        } else {
            self.failed |= code.severity() == Severity::Error;
            self.omitted += 1;
        }
    }

    /// Keeps a key that a section does not have.
    pub(crate) fn keep(&mut self, section: &str, entry: &Entry) {
        let (key, value) = (entry.key.text.clone(), entry.value.to_json());
        self.kept.push(KeptKey { section: section.to_owned(), key, value });
    }

    /// The keys that were kept since this was asked last.
    pub(crate) fn take_kept(&mut self) -> Vec<KeptKey> {
        std::mem::take(&mut self.kept)
    }

    /// Whether there was an error.
    pub(crate) fn failed(&self) -> bool {
        self.failed
    }

    /// Everything that was reported, in the order of the file; the last one says how many were left out, if
    /// any were.
    pub(crate) fn finish(mut self) -> Vec<Diagnostic> {
        self.diagnostics.sort_by_key(|diagnostic| diagnostic.labels.first().map(|label| label.span.start));
        if self.omitted > 0 {
            let severity = if self.failed { Severity::Error } else { Severity::Warning };
            let message = format!("{} more problems in this file are not shown", self.omitted);
            let more = Diagnostic::new(Code::TooComplex, message).severity(severity);
            self.diagnostics
                .push(more.at(self.file, 0..0, "").help("put the first ones right and look again"));
        }
        self.diagnostics
    }

    /// A diagnostic at a node, with a text beside the carets.
    pub(crate) fn at(&self, code: Code, message: impl Into<String>, node: &Node, label: &str) -> Diagnostic {
        Diagnostic::new(code, message).at(self.file, node.span.clone(), label)
    }

    pub(crate) fn wrong_type(&mut self, node: &Node, expected: &str) {
        let problem =
            self.at(Code::WrongType, format!("expected {expected}, found {}", node.describe()), node, "");
        self.report(problem);
    }

    pub(crate) fn bad_value(&mut self, node: &Node, message: impl Into<String>) {
        let problem = self.at(Code::BadValue, message, node, "");
        self.report(problem);
    }

    pub(crate) fn origin(&self, node: &Node) -> Origin {
        self.origin_of(&node.span)
    }

    pub(crate) fn origin_of(&self, span: &Range<usize>) -> Origin {
        self.sources.origin(self.file, span)
    }
}
