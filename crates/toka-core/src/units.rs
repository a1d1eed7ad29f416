//! Sizes, CPU shares and durations, as people write them in a workstream.
//!
//! `512MB`, `512M` and `512MiB` all are 512·1024² bytes; `75%` and `0.75` are three quarters of one CPU;
//! `90s`, `2h`, `1h30m` and bare seconds are durations. Each parser says which units there are when it refuses one.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a text is not a quantity.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UnitError {
    /// Not a number at all.
    #[error("expected {expected}, found {found:?}")]
    Malformed {
        /// What would have been right, with an example.
        expected: &'static str,
        /// The text.
        found: String,
    },
    /// A number with a unit that is none.
    #[error("unknown unit {unit:?}; use one of {known}")]
    UnknownUnit {
        /// The unit as written.
        unit: String,
        /// The units there are.
        known: &'static str,
    },
    /// Below zero, or zero where that means nothing.
    #[error("must be more than zero")]
    NotPositive,
    /// Larger than the type holds.
    #[error("is too large; the most is {most}")]
    TooLarge {
        /// The largest value there is.
        most: &'static str,
    },
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ByteSize(pub u64);

const SIZE_UNITS: &str = "B, KB, MB, GB, TB (each 1024 times the one before; K and KiB are the same)";
const SIZE_EXAMPLE: &str = "a size such as 512MB or 2GiB";

impl ByteSize {
    /// `count` · 1024².
    pub const fn mib(count: u64) -> Self {
        Self(count * 1024 * 1024)
    }

    /// Parses `512MB`, `2 GiB`, `1.5G`, or bare bytes.
    ///
    /// # Errors
    /// When it is no positive size below 2⁶³ bytes.
    pub fn parse(text: &str) -> Result<Self, UnitError> {
        let (number, unit) = split_number(text, SIZE_EXAMPLE)?;
        let shift = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            _ => return Err(UnitError::UnknownUnit { unit: unit.to_owned(), known: SIZE_UNITS }),
        };
        let bytes = positive(number)? * (1u64 << shift) as f64;
        if bytes >= i64::MAX as f64 {
            return Err(UnitError::TooLarge { most: "8 EiB" });
        }
        match bytes as u64 {
            0 => Err(UnitError::NotPositive),
            bytes => Ok(Self(bytes)),
        }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut value, mut unit) = (self.0 as f64, "B");
        for next in ["KiB", "MiB", "GiB", "TiB"] {
            if value < 1024.0 {
                break;
            }
            value /= 1024.0;
            unit = next;
        }
        let text = if value.fract() == 0.0 || value >= 100.0 {
            format!("{value:.0} {unit}")
        } else {
            format!("{value:.1} {unit}")
        };
        f.pad(&text)
    }
}

/// A share of CPU time in thousandths of one CPU: 750 is three quarters of one, 2,000 is two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CpuQuota {
    /// Thousandths of one CPU.
    pub millis: u32,
}

impl CpuQuota {
    /// One whole CPU.
    pub const ONE: Self = Self { millis: 1000 };

    /// Parses `75%`, `200%`, `0.75`, `2`.
    ///
    /// # Errors
    /// When it is no share between 1 % of one CPU and 4,096 CPUs.
    pub fn parse(text: &str) -> Result<Self, UnitError> {
        let (number, unit) = split_number(text, "a share of CPU such as 75% or 1.5")?;
        let cpus = match unit {
            "%" => positive(number)? / 100.0,
            "" => positive(number)?,
            _ => {
                return Err(UnitError::UnknownUnit {
                    unit: unit.to_owned(),
                    known: "% (of one CPU), or none (a number of CPUs)",
                });
            }
        };
        if cpus > 4096.0 {
            return Err(UnitError::TooLarge { most: "4096 CPUs" });
        }
        match (cpus * 1000.0).round() as u32 {
            0..10 => Err(UnitError::Malformed {
                expected: "at least 1% of one CPU, the least that the kernel enforces",
                found: text.to_owned(),
            }),
            millis => Ok(Self { millis }),
        }
    }
}

impl fmt::Display for CpuQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}%", f64::from(self.millis) / 10.0))
    }
}

const DURATION_UNITS: &str = "ms, s, m, h, d, w";
const DURATION_EXAMPLE: &str = "a duration such as 90s, 2h or 1h30m";
/// Longest duration that a file may ask for: a hundred years, far from any overflow of a clock.
const MAX_DURATION: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Parses `90s`, `250ms`, `1h30m`, `2 hours`, or bare seconds.
///
/// # Errors
/// When it is no positive duration up to a hundred years.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let mut rest = text.trim();
    let mut seconds = 0.0;
    if rest.is_empty() {
        return Err(UnitError::Malformed { expected: DURATION_EXAMPLE, found: text.to_owned() });
    }
    while !rest.is_empty() {
        let end = rest
            .char_indices()
            .skip_while(|(_, c)| !c.is_ascii_alphabetic())
            .find(|(_, c)| !c.is_ascii_alphabetic())
            .map_or(rest.len(), |(at, _)| at);
        let (part, next) = rest.split_at(end);
        let (number, unit) = split_number(part, DURATION_EXAMPLE)?;
        let scale = match unit.to_ascii_lowercase().as_str() {
            "ms" | "millisecond" | "milliseconds" => 0.001,
            "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
            "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
            "h" | "hr" | "hrs" | "hour" | "hours" => 3600.0,
            "d" | "day" | "days" => 86_400.0,
            "w" | "week" | "weeks" => 7.0 * 86_400.0,
            "" if part.len() == text.trim().len() => 1.0,
            _ => return Err(UnitError::UnknownUnit { unit: unit.to_owned(), known: DURATION_UNITS }),
        };
        seconds += number * scale;
        rest = next.trim_start();
    }
    if positive(seconds)? > MAX_DURATION.as_secs_f64() {
        return Err(UnitError::TooLarge { most: "100 years" });
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// Shows a duration in the two largest units that matter: `1h30m`, `2m05s`, `1.2s`, `340ms`.
pub fn format_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{}ms", duration.as_millis()),
        1..60 => format!("{:.1}s", (duration.as_secs_f64() * 10.0).floor() / 10.0),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// Splits `12.5 MB` into the number and its unit.
fn split_number<'a>(text: &'a str, expected: &'static str) -> Result<(f64, &'a str), UnitError> {
    let text = text.trim();
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '_' | '+' | '-')))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    number
        .replace('_', "")
        .parse::<f64>()
        .map(|number| (number, unit.trim()))
        .map_err(|_| UnitError::Malformed { expected, found: text.to_owned() })
}

fn positive(number: f64) -> Result<f64, UnitError> {
    if number > 0.0 { Ok(number) } else { Err(UnitError::NotPositive) }
}

/// A number of things, as `2000`, `500k` or `1.5M`: decimal, whole, and small enough that every reader of JSON takes it for what it is.
///
/// # Errors
/// When it is no such number.
pub fn parse_amount(text: &str) -> Result<u64, UnitError> {
    let malformed =
        || UnitError::Malformed { expected: "a number such as 2000, 500k or 5M", found: text.to_owned() };
    let digits = text.trim();
    if !digits.starts_with(|first: char| first.is_ascii_digit()) {
        return Err(malformed());
    }
    let digits = digits.replace('_', "");
    let (digits, scale) = match digits.char_indices().next_back() {
        Some((at, 'k' | 'K')) => (&digits[..at], 1e3),
        Some((at, 'm' | 'M')) => (&digits[..at], 1e6),
        Some((at, 'g' | 'G')) => (&digits[..at], 1e9),
        _ => (digits.as_str(), 1.0),
    };
    let number = digits.trim().parse::<f64>().map_err(|_| malformed())? * scale;
    // 2⁵³ is a little more than that.
    if !(0.0..=9e15).contains(&number) || number.fract() != 0.0 {
        return Err(malformed());
    }
    Ok(number as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("512MB", 512 << 20),
            ("512M", 512 << 20),
            ("512MiB", 512 << 20),
            ("1.5G", 3 << 29),
            ("2 GiB", 2 << 30),
            ("4096", 4096),
            ("1_000k", 1_024_000),
        ] {
            assert_eq!(ByteSize::parse(text), Ok(ByteSize(bytes)), "{text}");
        }
        assert!(matches!(ByteSize::parse("5 parsecs"), Err(UnitError::UnknownUnit { .. })));
        assert!(matches!(ByteSize::parse("lots"), Err(UnitError::Malformed { .. })));
        assert_eq!(ByteSize::parse("-5MB"), Err(UnitError::NotPositive));
        assert_eq!(ByteSize::parse("0"), Err(UnitError::NotPositive));
        assert!(matches!(ByteSize::parse("99999999999TB"), Err(UnitError::TooLarge { .. })));
    }

    #[test]
    fn cpu_shares() {
        for (text, millis) in [("75%", 750), ("0.75", 750), ("200%", 2000), ("2", 2000)] {
            assert_eq!(CpuQuota::parse(text), Ok(CpuQuota { millis }), "{text}");
        }
        for bad in ["0", "-1", "1 core", "0.1%", "5000", "nan", "inf"] {
            assert!(CpuQuota::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(CpuQuota { millis: 755 }.to_string(), "75.5%");
    }

    #[test]
    fn durations() {
        for (text, seconds) in [
            ("90s", 90.0),
            ("2h", 7200.0),
            ("1h30m", 5400.0),
            ("250ms", 0.25),
            ("45", 45.0),
            ("2 hours", 7200.0),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs_f64(seconds)), "{text}");
        }
        for bad in ["", "soon", "5x", "-5s", "0s", "1h30", "200000w"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_are_shown_in_two_units() {
        for (millis, text) in
            [(340, "340ms"), (1250, "1.2s"), (125_000, "2m05s"), (5_400_000, "1h30m"), (90_000_000, "1d01h")]
        {
            assert_eq!(format_duration(Duration::from_millis(millis)), text);
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,20}") {
            let _ = (ByteSize::parse(&text), CpuQuota::parse(&text), parse_duration(&text));
        }

        #[test]
        fn whole_mebibytes_survive_the_way_out_and_back(count in 1u64..1 << 30) {
            let size = ByteSize(count << 20);
            prop_assert_eq!(ByteSize::parse(&format!("{count}MiB")), Ok(size));
        }
    }

    #[test]
    fn amounts() {
        for (text, number) in
            [("0", 0), ("2000", 2000), ("500k", 500_000), ("1.5M", 1_500_000), ("2_000", 2000)]
        {
            assert_eq!(parse_amount(text), Ok(number), "{text}");
        }
        for bad in ["", "many", "-1", "1.5", "1e300", "5 MB", "NaN", "inf", "_5", "+5"] {
            assert!(parse_amount(bad).is_err(), "{bad}");
        }
    }
}
