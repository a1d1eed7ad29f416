//! A strict reader of OpenMetrics text (<https://prometheus.io/docs/specs/om/open_metrics_spec/>), as far as gauges, counters,
//! infos and state sets go: what it does not know is an error.

use std::collections::{BTreeMap, BTreeSet};

/// One sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Its name, with the suffix of its kind.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

#[derive(Default)]
struct Family {
    name: String,
    kind: String,
    unit: Option<String>,
    helped: bool,
    samples: usize,
}

/// Every sample of the text.
///
/// # Errors
/// The first line that is not as the specification wants it, and why.
pub fn parse(text: &str) -> Result<Vec<Sample>, String> {
    let body = text.strip_suffix("# EOF\n").ok_or("it does not end with # EOF")?;
    if !body.is_empty() && !body.ends_with('\n') {
        return Err("the last line does not end".to_owned());
    }
    let (mut family, mut known) = (Family::default(), BTreeSet::new());
    let (mut samples, mut series) = (Vec::new(), BTreeSet::new());
    for line in body.split_terminator('\n') {
        let wrong = |why: &str| format!("{why}: {line}");
        if let Some(metadata) = line.strip_prefix("# ") {
            describe(metadata, &mut family, &mut known).map_err(|why| wrong(&why))?;
            continue;
        }
        let sample = sample(line).map_err(wrong)?;
        fits(&sample, &family).map_err(wrong)?;
        if !series.insert(format!("{} {:?}", sample.name, sample.labels)) {
            return Err(wrong("it is there twice"));
        }
        family.samples += 1;
        samples.push(sample);
    }
    Ok(samples)
}

fn describe(metadata: &str, family: &mut Family, known: &mut BTreeSet<String>) -> Result<(), String> {
    let mut words = metadata.splitn(3, ' ');
    let (Some(what), Some(name), Some(text)) = (words.next(), words.next(), words.next()) else {
        return Err("a comment".to_owned());
    };
    if what == "TYPE" {
        if !is_name(name) || !known.insert(name.to_owned()) {
            return Err("a bad name, or a family in two places".to_owned());
        }
        *family = Family { name: name.to_owned(), kind: text.to_owned(), ..Family::default() };
        return Ok(());
    }
    if name != family.name || family.samples > 0 {
        return Err("it belongs elsewhere".to_owned());
    }
    match what {
        "UNIT" if family.unit.is_none() && name.ends_with(&format!("_{text}")) => {
            family.unit = Some(text.to_owned());
        }
        "HELP" if !family.helped => family.helped = true,
        _ => return Err("no metadata".to_owned()),
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(is_part)
}

fn sample(line: &str) -> Result<Sample, &'static str> {
    let end = line.find(['{', ' ']).ok_or("no value")?;
    let (name, mut rest) = line.split_at(end);
    if !is_name(name) {
        return Err("a bad name");
    }
    let mut labels = BTreeMap::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, after) = rest.split_once("=\"").ok_or("a label without a value")?;
            let (value, after) = quoted(after)?;
            if !is_name(label) || label.contains(':') || labels.insert(label.to_owned(), value).is_some() {
                return Err("a bad label");
            }
            match after.split_at_checked(1) {
                Some((",", after)) => rest = after,
                Some(("}", after)) => {
                    rest = after;
                    break;
                }
                _ => return Err("labels do not end"),
            }
        }
    }
    let value = rest.strip_prefix(' ').ok_or("no value")?.parse().map_err(|_| "no number")?;
    Ok(Sample { name: name.to_owned(), labels, value })
}

/// A text up to its closing quote, and what follows.
fn quoted(text: &str) -> Result<(String, &str), &'static str> {
    let (mut value, mut characters) = (String::new(), text.char_indices());
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match characters.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, c @ ('"' | '\\'))) => value.push(c),
                _ => return Err("a bad escape"),
            },
            c => value.push(c),
        }
    }
    Err("a text that does not end")
}

fn fits(sample: &Sample, family: &Family) -> Result<(), &'static str> {
    let Sample { name, labels, value } = sample;
    let suffix = match family.kind.as_str() {
        "gauge" | "stateset" => "",
        "counter" => "_total",
        "info" => "_info",
        _ => return Err("an unknown kind of family"),
    };
    if *name != format!("{}{suffix}", family.name) {
        return Err("it is of another family");
    }
    match family.kind.as_str() {
        "counter" if !value.is_finite() || *value < 0.0 => Err("a counter never falls below nothing"),
        "info" if *value != 1.0 => Err("an info is 1"),
        "stateset" if ![0.0, 1.0].contains(value) || !labels.contains_key(&family.name) => {
            Err("a state is or is not")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    const GOOD: &str = "# TYPE a counter\n# HELP a b c\na_total{x=\"y\\\"\\n\\\\\",z=\"}\"} 1\n# EOF\n";

    #[test]
    fn it_reads_what_is_right() {
        let samples = parse(GOOD).expect("right");
        assert_eq!((samples[0].labels["x"].as_str(), samples[0].labels["z"].as_str()), ("y\"\n\\", "}"));
    }

    #[test]
    fn it_takes_nothing_that_is_wrong() {
        for (from, to) in [
            ("# EOF\n", ""),
            ("a_total", "a"),
            ("} 1", "} x"),
            ("} 1", "} -1"),
            ("} 1", "}1"),
            ("\\\\", "\\x"),
            ("z=", "x="),
            ("z=", "-="),
            ("# EOF", "# TYPE a gauge\n# EOF"),
            ("# EOF", "# HELP a again\n# EOF"),
            ("# EOF", "# EOF\n# EOF"),
            ("counter", "histogram"),
            ("counter", "stateset"),
            ("# HELP a b c", "# UNIT a seconds"),
        ] {
            let bad = GOOD.replacen(from, to, 1);
            assert!(parse(&bad).is_err(), "{bad}");
        }
    }
}
