//! Scalars of the core schema (YAML 1.2.2, 10.3). The text is kept: a version `1.0` stays `1.0`.

use serde_json::Value as Json;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    pub(crate) kind: ScalarKind,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum ScalarKind {
    Null,
    Bool(bool),
    Int(i64),
    /// Also whole numbers that an `i64` does not hold.
    Float(f64),
    Text,
}

impl Scalar {
    /// A scalar without quotes, whose text says its type.
    pub(crate) fn plain(text: String) -> Self {
        let kind = resolve(&text);
        Self { text, kind }
    }

    /// A scalar that is text whatever it looks like.
    pub(crate) fn text(text: String) -> Self {
        Self { text, kind: ScalarKind::Text }
    }

    pub(crate) fn is_null(&self) -> bool {
        self.kind == ScalarKind::Null
    }

    pub(crate) fn describe(&self) -> String {
        match self.kind {
            ScalarKind::Null => "nothing".to_owned(),
            ScalarKind::Bool(value) => format!("the truth value {value}"),
            ScalarKind::Int(_) | ScalarKind::Float(_) => format!("the number {}", shorten(&self.text)),
            ScalarKind::Text => format!("the text {:?}", shorten(&self.text)),
        }
    }

    pub(crate) fn to_json(&self) -> Json {
        match self.kind {
            ScalarKind::Null => Json::Null,
            ScalarKind::Bool(value) => Json::Bool(value),
            ScalarKind::Int(value) => Json::from(value),
            ScalarKind::Float(value) => serde_json::Number::from_f64(value)
                .map_or_else(|| Json::String(self.text.clone()), Json::Number),
            ScalarKind::Text => Json::String(self.text.clone()),
        }
    }
}

/// The first characters of a text, for messages.
pub(crate) fn shorten(text: &str) -> String {
    const LIMIT: usize = 60;
    match text.char_indices().nth(LIMIT) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

fn resolve(text: &str) -> ScalarKind {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => ScalarKind::Null,
        "true" | "True" | "TRUE" => ScalarKind::Bool(true),
        "false" | "False" | "FALSE" => ScalarKind::Bool(false),
        ".nan" | ".NaN" | ".NAN" => ScalarKind::Float(f64::NAN),
        _ => resolve_number(text).unwrap_or(ScalarKind::Text),
    }
}

fn resolve_number(text: &str) -> Option<ScalarKind> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(digits, ".inf" | ".Inf" | ".INF") {
        return Some(ScalarKind::Float(if text.starts_with('-') {
            f64::NEG_INFINITY
        } else {
            f64::INFINITY
        }));
    }
    for (prefix, radix) in [("0o", 8), ("0x", 16)] {
        if let Some(rest) = text.strip_prefix(prefix)
            && rest.chars().all(|c| c.is_digit(radix))
        {
            return i64::from_str_radix(rest, radix).ok().map(ScalarKind::Int);
        }
    }
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    if digits.bytes().all(|b| b.is_ascii_digit()) {
        return Some(text.parse().map_or_else(|_| float(text), ScalarKind::Int));
    }
    let looks_like_float = digits.bytes().any(|b| b.is_ascii_digit())
        && digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    (looks_like_float && text.parse::<f64>().is_ok()).then(|| float(text))
}

fn float(text: &str) -> ScalarKind {
    ScalarKind::Float(text.parse().unwrap_or(f64::NAN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_core_schema() {
        for (text, kind) in [
            ("", ScalarKind::Null),
            ("~", ScalarKind::Null),
            ("True", ScalarKind::Bool(true)),
            ("no", ScalarKind::Text),
            ("off", ScalarKind::Text),
            ("12", ScalarKind::Int(12)),
            ("-7", ScalarKind::Int(-7)),
            ("0x1F", ScalarKind::Int(31)),
            ("0o17", ScalarKind::Int(15)),
            ("1.5", ScalarKind::Float(1.5)),
            ("1e3", ScalarKind::Float(1000.0)),
            ("99999999999999999999", ScalarKind::Float(1e20)),
            ("-.inf", ScalarKind::Float(f64::NEG_INFINITY)),
            ("2026-11-20", ScalarKind::Text),
            ("512MB", ScalarKind::Text),
            ("1.2.3", ScalarKind::Text),
            (".", ScalarKind::Text),
            ("-", ScalarKind::Text),
            ("inf", ScalarKind::Text),
        ] {
            assert_eq!(resolve(text), kind, "{text}");
        }
    }
}
