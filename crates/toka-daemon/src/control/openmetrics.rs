//! The text format of OpenMetrics (<https://prometheus.io/docs/specs/om/open_metrics_spec/>), as far as gauges, counters,
//! infos and state sets need it. Small enough to be ours: a registry of live counters has no use where every scrape
//! describes what is known at that moment.

use std::fmt::Write as _;

/// The media type of an exposition.
pub(super) const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the samples of a family mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A figure of the moment.
    Gauge,
    /// A figure that only grows, until its agent begins anew. Its samples end in `_total`.
    Counter,
    /// Facts as labels. Its sample ends in `_info`.
    Info,
    /// Which of several states it is in. The label of a state has the family's name.
    StateSet,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Info => "info",
            Self::StateSet => "stateset",
        }
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::Gauge | Self::StateSet => "",
            Self::Counter => "_total",
            Self::Info => "_info",
        }
    }
}

/// A family of samples. The name of one with a unit ends in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// Empty when it has none.
    pub(super) unit: &'static str,
    pub(super) help: &'static str,
}

/// Names and values.
pub(super) type Labels<'a> = [(&'a str, &'a str)];

/// A text that is being written. Each family comes once, its samples after it.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    text: String,
    /// The family that is next, or whose samples these are.
    family: Option<Family>,
    /// Whether it has been opened: one without samples is left out.
    opened: bool,
}

impl Exposition {
    /// Begins a family.
    pub(super) fn family(&mut self, family: Family) -> &mut Self {
        (self.family, self.opened) = (Some(family), false);
        self
    }

    /// Adds a sample to the family.
    pub(super) fn sample(&mut self, labels: &Labels<'_>, value: f64) -> &mut Self {
        let Some(family) = self.open() else { return self };
        self.text.push_str(family.name);
        self.text.push_str(family.kind.suffix());
        for (at, (name, value)) in labels.iter().enumerate() {
            self.text.push(if at == 0 { '{' } else { ',' });
            self.text.push_str(name);
            self.text.push_str("=\"");
            escape(&mut self.text, value);
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        self.text.push(' ');
        number(&mut self.text, value);
        self.text.push('\n');
        self
    }

    /// Adds one sample for each of `states`, which are all that there are; `is` is the one that it is in.
    pub(super) fn states(&mut self, labels: &Labels<'_>, states: &[&str], is: &str) -> &mut Self {
        let Some(Family { name, .. }) = self.family else { return self };
        for state in states {
            let labels: Vec<(&str, &str)> = labels.iter().copied().chain([(name, *state)]).collect();
            self.sample(&labels, f64::from(u8::from(*state == is)));
        }
        self
    }

    /// The whole text.
    pub(super) fn finish(mut self) -> String {
        self.text.push_str("# EOF\n");
        self.text
    }

    fn open(&mut self) -> Option<Family> {
        let family = self.family?;
        if !std::mem::replace(&mut self.opened, true) {
            let Family { name, kind, unit, help } = family;
            let _ = writeln!(self.text, "# TYPE {name} {}", kind.as_str());
            if !unit.is_empty() {
                let _ = writeln!(self.text, "# UNIT {name} {unit}");
            }
            let _ = write!(self.text, "# HELP {name} ");
            escape(&mut self.text, help);
            self.text.push('\n');
        }
        Some(family)
    }
}

/// Label values and help texts may hold any character but these three, bare.
fn escape(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}

fn number(out: &mut String, value: f64) {
    let _ = match value {
        value if value.is_nan() => write!(out, "NaN"),
        f64::INFINITY => write!(out, "+Inf"),
        f64::NEG_INFINITY => write!(out, "-Inf"),
        value => write!(out, "{value}"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn family(name: &'static str, kind: Kind, unit: &'static str) -> Family {
        Family { name, kind, unit, help: "What \"it\" is" }
    }

    #[test]
    fn each_kind_is_written_as_the_specification_wants_it() {
        let mut text = Exposition::default();
        text.family(family("a", Kind::Info, "")).sample(&[("version", "1")], 1.0);
        text.family(family("b_seconds", Kind::Counter, "seconds"))
            .sample(&[], 0.25)
            .sample(&[("x", "y")], 3.0);
        text.family(family("nobody_has_one", Kind::Gauge, ""));
        text.family(family("c", Kind::StateSet, "")).states(&[("agent", "x")], &["on", "off"], "off");
        assert_eq!(
            text.finish(),
            "# TYPE a info\n# HELP a What \\\"it\\\" is\na_info{version=\"1\"} 1\n\
             # TYPE b_seconds counter\n# UNIT b_seconds seconds\n# HELP b_seconds What \\\"it\\\" is\n\
             b_seconds_total 0.25\nb_seconds_total{x=\"y\"} 3\n\
             # TYPE c stateset\n# HELP c What \\\"it\\\" is\n\
             c{agent=\"x\",c=\"on\"} 0\nc{agent=\"x\",c=\"off\"} 1\n# EOF\n"
        );
    }

    #[test]
    fn no_label_breaks_out_of_its_quotes() {
        let mut text = Exposition::default();
        text.family(family("m", Kind::Gauge, "")).sample(&[("name", "a\"} 1\nb \\n \u{1b}[2J ö")], 1.0);
        let text = text.finish();
        assert!(text.contains("m{name=\"a\\\"} 1\\nb \\\\n \u{1b}[2J ö\"} 1\n"), "{text}");
        assert_eq!(text.lines().count(), 4, "{text}");
    }

    #[test]
    fn every_number_can_be_written() {
        for (value, expected) in [
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (0.1, "0.1"),
            (1e15, "1000000000000000"),
            (-2.5, "-2.5"),
        ] {
            let mut out = String::new();
            number(&mut out, value);
            assert_eq!(out, expected);
        }
    }
}
