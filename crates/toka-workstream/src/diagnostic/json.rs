//! Diagnostics as data: the same as the drawing, for programs.

use serde_json::{Value, json};

use super::{Diagnostic, Label, Sources};

impl Sources {
    /// An array with one object per diagnostic: `code`, `severity`, `message`, `labels`, `help`.
    ///
    /// A label has `file`, `line`, `column`, `end_line`, `end_column` (from 1, columns in characters),
    /// `byte_start`, `byte_end`, `message`, and `primary` for the first.
    pub fn to_json(&self, diagnostics: &[Diagnostic]) -> Value {
        diagnostics.iter().map(|diagnostic| self.diagnostic_to_json(diagnostic)).collect()
    }

    fn diagnostic_to_json(&self, diagnostic: &Diagnostic) -> Value {
        let labels: Vec<Value> =
            diagnostic.labels.iter().enumerate().map(|(at, label)| self.label_to_json(at, label)).collect();
        json!({
            "code": diagnostic.code.to_string(),
            "severity": diagnostic.severity.as_str(),
            "message": diagnostic.message,
            "labels": labels,
            "help": diagnostic.help,
        })
    }

    fn label_to_json(&self, at: usize, label: &Label) -> Value {
        let start = self.position(label.file, label.span.start);
        let end = self.position(label.file, label.span.end);
        json!({
            "file": self.path(label.file),
            "line": start.line,
            "column": start.column,
            "end_line": end.line,
            "end_column": end.column,
            "byte_start": label.span.start,
            "byte_end": label.span.end,
            "message": label.message,
            "primary": at == 0,
        })
    }
}
