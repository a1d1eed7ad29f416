//! Numbers, sizes, shares and durations.

use std::ops::RangeInclusive;
use std::time::Duration;

use toka_core::units::{UnitError, parse_amount, parse_duration};
use toka_core::{ByteSize, CpuQuota, Declared};

use super::context::Context;
use crate::diagnostic::Code;
use crate::read::{Node, ScalarKind, Value};

/// A whole number within bounds; `None` after a report.
pub(crate) fn integer(cx: &mut Context<'_>, node: &Node, bounds: RangeInclusive<u32>) -> Option<u32> {
    let Value::Scalar(scalar) = &node.value else {
        cx.wrong_type(node, "a whole number");
        return None;
    };
    let number = match scalar.kind {
        ScalarKind::Int(number) => number as f64,
        ScalarKind::Float(number) if number.fract() == 0.0 || number.is_infinite() => number,
        ScalarKind::Text => match scalar.text.trim().parse::<i64>() {
            Ok(number) => number as f64,
            Err(_) => {
                cx.wrong_type(node, "a whole number");
                return None;
            }
        },
        _ => {
            cx.wrong_type(node, "a whole number");
            return None;
        }
    };
    if number < f64::from(*bounds.start()) || number > f64::from(*bounds.end()) {
        out_of_range(cx, node, &bounds.start().to_string(), &bounds.end().to_string());
        return None;
    }
    Some(number as u32)
}

/// Any number within bounds; `None` after a report.
pub(crate) fn number(cx: &mut Context<'_>, node: &Node, bounds: RangeInclusive<f64>) -> Option<f64> {
    let number = match &node.value {
        Value::Scalar(scalar) => match scalar.kind {
            ScalarKind::Int(number) => number as f64,
            ScalarKind::Float(number) => number,
            _ => {
                cx.wrong_type(node, "a number");
                return None;
            }
        },
        _ => {
            cx.wrong_type(node, "a number");
            return None;
        }
    };
    if !bounds.contains(&number) {
        out_of_range(cx, node, &bounds.start().to_string(), &bounds.end().to_string());
        return None;
    }
    Some(number)
}

fn out_of_range(cx: &mut Context<'_>, node: &Node, least: &str, most: &str) {
    let message = format!("must be from {least} to {most}, and is {}", node.describe());
    let problem = cx.at(Code::OutOfRange, message, node, "");
    cx.report(problem);
}

/// A number of things, as `2000`, `500k` or `1.5M`.
pub(crate) fn amount(cx: &mut Context<'_>, node: &Node) -> Option<u64> {
    quantity(cx, node, "a number such as 2000, 500k or 5M", parse_amount)
}

/// A duration above zero.
pub(crate) fn duration(cx: &mut Context<'_>, node: &Node) -> Option<Duration> {
    quantity(cx, node, "a duration such as 90s, 2h or 1h30m", parse_duration)
}

/// A duration that may be zero.
pub(crate) fn delay(cx: &mut Context<'_>, node: &Node) -> Option<Duration> {
    let is_zero =
        matches!(&node.value, Value::Scalar(scalar) if matches!(scalar.text.as_str(), "0" | "0s" | "0ms"));
    if is_zero { Some(Duration::ZERO) } else { duration(cx, node) }
}

/// A size in bytes, at least `least`.
pub(crate) fn size(cx: &mut Context<'_>, node: &Node, least: ByteSize) -> Option<Declared<ByteSize>> {
    let size = quantity(cx, node, "a size such as 512MB or 2GiB", ByteSize::parse)?;
    if size < least {
        let problem =
            cx.at(Code::OutOfRange, format!("{size} is too little; the least is {least}"), node, "");
        cx.report(problem);
        return None;
    }
    Some(Declared::new(size, cx.origin(node)))
}

/// A share of CPU time.
pub(crate) fn share(cx: &mut Context<'_>, node: &Node) -> Option<Declared<CpuQuota>> {
    let share = quantity(cx, node, "a share of CPU such as 75% or 1.5", CpuQuota::parse)?;
    Some(Declared::new(share, cx.origin(node)))
}

/// Bytes per second: `10MB/s`, `10MBps`, and in bits `100Mbps`, `100Mbit/s`.
pub(crate) fn bandwidth(cx: &mut Context<'_>, node: &Node) -> Option<Declared<ByteSize>> {
    let rate = quantity(cx, node, "a rate such as 10MB/s or 100Mbps", parse_rate)?;
    Some(Declared::new(rate, cx.origin(node)))
}

fn parse_rate(text: &str) -> Result<ByteSize, UnitError> {
    let text = text.trim();
    let whole = text.trim_end_matches("/s").trim_end_matches("/sec").trim_end_matches("/second");
    let bits = ["bps", "bit", "bits", "bit/s"].iter().find_map(|suffix| whole.strip_suffix(suffix));
    if let Some(number) = bits {
        // Rates in bits are decimal everywhere, and eight bits are a byte.
        let (digits, scale) = match number.trim_end().char_indices().next_back() {
            Some((at, 'k' | 'K')) => (&number[..at], 1e3),
            Some((at, 'M' | 'm')) => (&number[..at], 1e6),
            Some((at, 'G' | 'g')) => (&number[..at], 1e9),
            _ => (number, 1.0),
        };
        let malformed =
            || UnitError::Malformed { expected: "a rate such as 10MB/s or 100Mbps", found: text.to_owned() };
        let rate = digits.trim().parse::<f64>().map_err(|_| malformed())? * scale / 8.0;
        return ByteSize::parse(&format!("{rate:.0}"));
    }
    ByteSize::parse(whole.trim_end_matches("ps"))
}

fn quantity<T>(
    cx: &mut Context<'_>,
    node: &Node,
    expected: &str,
    parse: impl Fn(&str) -> Result<T, UnitError>,
) -> Option<T> {
    let Value::Scalar(scalar) = &node.value else {
        cx.wrong_type(node, expected);
        return None;
    };
    if matches!(scalar.kind, ScalarKind::Bool(_) | ScalarKind::Null) {
        cx.wrong_type(node, expected);
        return None;
    }
    match parse(&scalar.text) {
        Ok(value) => Some(value),
        Err(error) => {
            let code = match error {
                UnitError::NotPositive | UnitError::TooLarge { .. } => Code::OutOfRange,
                _ => Code::BadQuantity,
            };
            let message = match error {
                UnitError::NotPositive | UnitError::TooLarge { .. } => {
                    format!("`{}` {error}", crate::read::shorten(&scalar.text))
                }
                error => error.to_string(),
            };
            let problem = cx.at(code, message, node, "").help(format!("expected {expected}"));
            cx.report(problem);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_in_bytes_and_in_bits() {
        for (text, bytes) in [
            ("10MB/s", 10 << 20),
            ("10MBps", 10 << 20),
            ("4096", 4096),
            ("8Mbps", 1_000_000),
            ("8 Mbit/s", 1_000_000),
            ("800kbps", 100_000),
        ] {
            assert_eq!(parse_rate(text), Ok(ByteSize(bytes)), "{text}");
        }
        for bad in ["fast", "-1Mbps", "xbps"] {
            assert!(parse_rate(bad).is_err(), "{bad}");
        }
    }
}
