//! A doctor's report for people: sections of marked lines, what is not well with its cost and its cure, and the upshot last,
//! where the eye is.

use toka_doctor::{Check, Report, Section, Strictness, Verdict};

use crate::commands::plan::grid::LEAST;
use toka_terminal::palette::{Paint, Palette};
use toka_terminal::text::{columns, count};
use toka_terminal::wrap::wrap;

/// Columns of the mark and the spaces around it.
const MARK: usize = 4;
/// Columns of the titles, with the space behind; the longest has one less.
const TITLE: usize = 40;
/// The same of a section whose titles are short.
const SHORT_TITLE: usize = 28;
/// Columns of the words before what a finding costs and what mends it.
const WORD: usize = 7;
/// Wider than this, lines are hard to read.
const WIDEST: usize = 120;

/// The whole page.
pub(super) fn page(report: &Report, strictness: Strictness, width: usize, palette: Palette) -> String {
    let page = Page { width: width.clamp(LEAST, WIDEST), palette };
    let mut out = format!("{}\n", palette.faint.paint(format!("toka doctor: {}", report.host)));
    let mut last = None;
    for check in &report.checks {
        if last != Some(check.section) {
            out.push_str(&page.heading(last, check.section));
            last = Some(check.section);
        }
        out.push_str(&page.check(check));
    }
    out.push('\n');
    out.push_str(&page.holes(report));
    out.push_str(&page.upshot(report, strictness));
    out
}

struct Page {
    width: usize,
    palette: Palette,
}

impl Page {
    fn heading(&self, last: Option<Section>, section: Section) -> String {
        let mut out = String::new();
        if section.is_proof() && !last.is_some_and(Section::is_proof) {
            let text =
                "A probe with the default sandbox tried each of these, and so did one without a sandbox:";
            out.push('\n');
            for line in wrap(text, self.width) {
                out.push_str(&format!("{}\n", self.palette.faint.paint(line)));
            }
        }
        out.push_str(&format!("\n{}\n", self.palette.strong.paint(title(section))));
        out
    }

    fn check(&self, check: &Check) -> String {
        let (mark, paint) = self.mark(check.verdict);
        let title_width =
            if check.section.is_proof() || check.section == Section::Layers { TITLE } else { SHORT_TITLE };
        let found = if check.verdict > Verdict::Unprovable {
            // By this name the documents and other rows speak of it.
            format!("{} [{}]", check.found, check.id)
        } else {
            check.found.clone()
        };
        let found = wrap(&found, self.width - MARK - title_width);
        let title =
            format!("{}{}", check.title, " ".repeat(title_width.saturating_sub(columns(&check.title))));
        let mut out = format!("  {} {title}", paint.paint(mark));
        for (at, line) in found.iter().enumerate() {
            if at > 0 {
                out.push_str(&" ".repeat(MARK + title_width));
            }
            let paint = match check.verdict {
                Verdict::Ok | Verdict::Unprovable => self.palette.faint,
                _ => paint,
            };
            out.push_str(&format!("{}\n", paint.paint(line)));
        }
        if check.verdict > Verdict::Unprovable {
            out.push_str(&self.aside("costs", &check.means, Paint::NONE));
            out.push_str(&self.aside("mend", &check.fix, self.palette.accent));
        }
        out
    }

    /// A line below a finding, which may be long. What can be typed is not cut at its spaces more than need be.
    fn aside(&self, word: &str, text: &str, paint: Paint) -> String {
        if text.is_empty() {
            return String::new();
        }
        let indent = MARK + WORD;
        let mut out = String::new();
        for (at, line) in wrap(text, self.width - indent).iter().enumerate() {
            let word = if at == 0 { word } else { "" };
            let word = self.palette.faint.paint(format!("{word:<WORD$}"));
            out.push_str(&format!("{:MARK$}{word}{}\n", "", paint.paint(line)));
        }
        out
    }

    /// Nobody may overlook a hole.
    fn holes(&self, report: &Report) -> String {
        let mut out = String::new();
        for hole in report.holes() {
            let text = format!("HOLE: {}: {}", hole.title, hole.found);
            for line in wrap(&text, self.width) {
                out.push_str(&format!("{}\n", self.palette.bad.paint(line)));
            }
        }
        out
    }

    fn upshot(&self, report: &Report, strictness: Strictness) -> String {
        let faults: Vec<&str> = report.faults(strictness).map(|check| check.id.as_str()).collect();
        let counts: Vec<String> = Verdict::ALL
            .into_iter()
            .filter(|verdict| report.count(*verdict) > 0)
            .map(|verdict| format!("{} {}", report.count(verdict), word(verdict)))
            .collect();
        let holes = report.holes().count();
        let (paint, words) = if holes > 0 {
            (self.palette.bad, format!("the sandbox of this host has {}", count(holes, "hole")))
        } else if !faults.is_empty() {
            (self.palette.bad, format!("{}: {}", unfit(strictness), faults.join(", ")))
        } else if report.faults(Strictness::Strict).next().is_some() {
            (self.palette.warn, "agents run here, with less than the full sandbox".to_owned())
        } else {
            (self.palette.good, "the full sandbox is there".to_owned())
        };
        let tried = if report.checks.iter().any(|check| check.section.is_proof()) {
            ""
        } else {
            "; nothing was tried"
        };
        let mut out = String::new();
        for line in wrap(&format!("{words}{tried}"), self.width) {
            out.push_str(&format!("{}\n", paint.paint(line)));
        }
        out.push_str(&format!("{}\n", self.palette.faint.paint(counts.join(", "))));
        out
    }

    fn mark(&self, verdict: Verdict) -> (&'static str, Paint) {
        match verdict {
            Verdict::Ok => ("✓", self.palette.good),
            Verdict::Unprovable => ("?", self.palette.busy),
            Verdict::Weaker => ("!", self.palette.warn),
            Verdict::Missing => ("–", self.palette.warn),
            Verdict::Failed => ("✗", self.palette.bad),
        }
    }
}

/// What faults come to.
fn unfit(strictness: Strictness) -> &'static str {
    match strictness {
        Strictness::Default => "not fit for agents as it is",
        Strictness::Strict => "less than the full sandbox",
    }
}

fn title(section: Section) -> &'static str {
    match section {
        Section::Host => "Kernel",
        Section::Groups => "Control groups",
        Section::Room => "Room",
        Section::Tools => "Tools",
        Section::Layers => "The default sandbox",
        Section::Works => "What must work",
        Section::Files => "Files",
        Section::Network => "Network and sockets",
        Section::Processes => "Other processes",
        Section::Kernel => "The kernel's surface",
        Section::Rights => "Rights",
        Section::Limits => "Limits",
        Section::Life => "Ends and pauses",
    }
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "ok",
        Verdict::Unprovable => "not provable here",
        Verdict::Weaker => "weaker",
        Verdict::Missing => "missing",
        Verdict::Failed => "failed",
    }
}
