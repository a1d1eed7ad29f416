//! Diagnostics for people, drawn the way rustc draws its own.

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use toka_core::escape::for_terminal;

use super::{Diagnostic, Label, Severity, Sources};

/// Longest message in characters, and longest source line in bytes; whatever is cut is hostile or generated.
const MAX_TEXT: usize = 2000;
/// Bytes of the source kept on either side of a span in a line that is too long to show.
const MARGIN: usize = 60;
const MAX_LINE: usize = 400;
/// Lines between two places that are shown in snippets of their own.
const FAR: u32 = 40;

/// Whether the drawing is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Text alone.
    Plain,
    /// With the colours of a terminal.
    Colour,
}

impl Sources {
    /// Draws diagnostics for people. Control characters of the sources are made visible.
    pub fn render(&self, diagnostics: &[Diagnostic], style: Style) -> String {
        let renderer = match style {
            Style::Plain => Renderer::plain(),
            Style::Colour => Renderer::styled(),
        };
        let mut out = String::new();
        for diagnostic in diagnostics {
            out.push_str(&renderer.render(&self.report(diagnostic)));
            out.push_str("\n\n");
        }
        out
    }

    fn report(&self, diagnostic: &Diagnostic) -> Vec<Group<'static>> {
        let level = match diagnostic.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
            Severity::Note => Level::NOTE,
        };
        let title = level.primary_title(safe(&diagnostic.message)).id(diagnostic.code.to_string());
        let mut group = Group::with_title(title);
        if diagnostic.is_secret {
            for label in &diagnostic.labels {
                let position = self.position(label.file, label.span.start);
                let origin = Origin::path(safe(self.path(label.file)));
                group =
                    group.element(origin.line(position.line as usize).char_column(position.column as usize));
            }
        } else {
            for cluster in self.clusters(&diagnostic.labels) {
                group = group.element(self.snippet(&cluster));
            }
        }
        if let Some(help) = &diagnostic.help {
            group = group.element(Level::HELP.message(safe(help)));
        }
        vec![group]
    }

    /// Labels that are shown in one snippet: of the same file, and not far from each other. The primary one
    /// comes first.
    fn clusters<'l>(&self, labels: &'l [Label]) -> Vec<Vec<(AnnotationKind, &'l Label)>> {
        let kind = |at| if at == 0 { AnnotationKind::Primary } else { AnnotationKind::Context };
        let mut sorted: Vec<_> = labels.iter().enumerate().collect();
        sorted.sort_by_key(|(_, label)| (label.file, label.span.start));
        let mut clusters: Vec<Vec<(usize, &Label)>> = Vec::new();
        for (at, label) in sorted {
            match clusters.last_mut() {
                Some(cluster) if cluster.last().is_some_and(|(_, last)| self.is_near(last, label)) => {
                    cluster.push((at, label));
                }
                _ => clusters.push(vec![(at, label)]),
            }
        }
        clusters.sort_by_key(|cluster| cluster.iter().map(|(at, _)| *at).min());
        clusters
            .into_iter()
            .map(|cluster| cluster.into_iter().map(|(at, label)| (kind(at), label)).collect())
            .collect()
    }

    fn is_near(&self, one: &Label, other: &Label) -> bool {
        let line = |label: &Label| self.position(label.file, label.span.start).line;
        one.file == other.file && line(one).abs_diff(line(other)) <= FAR
    }

    /// The lines that some labels of one file speak of: a large file is not copied for each.
    fn snippet(
        &self,
        labels: &[(AnnotationKind, &Label)],
    ) -> Snippet<'static, annotate_snippets::Annotation<'static>> {
        let file = labels[0].1.file;
        let first = labels.iter().map(|(_, label)| label.span.start).min().unwrap_or_default();
        let last = labels.iter().map(|(_, label)| label.span.start).max().unwrap_or_default();
        let excerpt = Excerpt::of(self.text(file), first, last);
        let mut snippet = Snippet::source(excerpt.text.clone())
            .path(safe(self.path(file)))
            .line_start(self.position(file, excerpt.from).line as usize);
        for (kind, label) in labels {
            let mut annotation = kind.span(excerpt.place(&label.span));
            if !label.message.is_empty() {
                annotation = annotation.label(safe(&label.message));
            }
            snippet = snippet.annotation(annotation);
        }
        snippet
    }
}

fn safe(text: &str) -> String {
    text.lines().map(|line| for_terminal(line.as_bytes(), MAX_TEXT)).collect::<Vec<_>>().join("\n")
}

/// Whole lines of a source with their control characters made visible, and the way from the source's bytes to
/// its own.
struct Excerpt {
    text: String,
    from: usize,
    /// Pairs (byte in the source, byte in `text`), ascending in both, one for each piece that was copied.
    map: Vec<(usize, usize)>,
}

impl Excerpt {
    fn of(source: &str, first: usize, last: usize) -> Self {
        let first = floor(source, first);
        let last = floor(source, last);
        let from = source[..first].rfind('\n').map_or(0, |at| at + 1);
        let to = source[last..].find('\n').map_or(source.len(), |at| last + at);
        let mut excerpt = Self { text: String::new(), from, map: Vec::new() };
        let mut at = from;
        for line in source[from..to].split_inclusive('\n') {
            excerpt.push_line(line, at, first);
            at += line.len();
        }
        excerpt.map.push((to, excerpt.text.len()));
        excerpt
    }

    fn push_line(&mut self, line: &str, start: usize, focus: usize) {
        let body = line.strip_suffix('\n').unwrap_or(line);
        let (low, high) = if body.len() > MAX_LINE {
            let focus = focus.clamp(start, start + body.len()) - start;
            (floor(body, focus.saturating_sub(MARGIN)), floor(body, (focus + 2 * MARGIN).min(body.len())))
        } else {
            (0, body.len())
        };
        if low > 0 {
            self.map.push((start, self.text.len()));
            self.text.push('…');
        }
        for (at, c) in body[low..high].char_indices() {
            self.map.push((start + low + at, self.text.len()));
            let mut bytes = [0; 4];
            self.text.push_str(&for_terminal(c.encode_utf8(&mut bytes).as_bytes(), 16));
        }
        if high < body.len() {
            self.map.push((start + high, self.text.len()));
            self.text.push('…');
        }
        if line.len() > body.len() {
            self.map.push((start + body.len(), self.text.len()));
            self.text.push('\n');
        }
    }

    /// The bytes of a span, cut at the end of its first line: a value of many lines is pointed at, not
    /// underlined.
    fn place(&self, span: &std::ops::Range<usize>) -> std::ops::Range<usize> {
        let start = self.find(span.start);
        let line_end = self.text[start..].find('\n').map_or(self.text.len(), |at| start + at);
        let end = self.find(span.end.max(span.start)).clamp(start, line_end);
        let end = if end == start {
            self.text[start..line_end].chars().next().map_or(start, |c| start + c.len_utf8())
        } else {
            end
        };
        start..end
    }

    fn find(&self, byte: usize) -> usize {
        let at = self.map.partition_point(|(source, _)| *source < byte);
        self.map.get(at).map_or(self.text.len(), |(_, own)| *own)
    }
}

fn floor(text: &str, byte: usize) -> usize {
    text.floor_char_boundary(byte.min(text.len()))
}
