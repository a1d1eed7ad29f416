//! A doctor's report for programs: one object, whose ids and words stay the same from version to version.

use serde_json::{Map, Value, json};
use toka_core::ExitCode;
use toka_doctor::{Report, Strictness, Verdict};

/// The object, with a line end.
///
/// # Errors
/// Never: everything in it can be written.
pub(super) fn object(report: &Report, strictness: Strictness, code: ExitCode) -> serde_json::Result<String> {
    let count = |verdict: &Verdict| Ok((word(*verdict)?, Value::from(report.count(*verdict))));
    let counts: Map<String, Value> = Verdict::ALL.iter().map(count).collect::<serde_json::Result<_>>()?;
    let ids = |faults: &mut dyn Iterator<Item = &_>| -> Vec<String> {
        faults.map(|check: &toka_doctor::Check| check.id.clone()).collect()
    };
    let object = json!({
        "type": "doctor",
        "version": env!("CARGO_PKG_VERSION"),
        "host": report.host,
        "exit_code": code as u8,
        "faults": ids(&mut report.faults(strictness)),
        "holes": ids(&mut report.holes()),
        "counts": counts,
        "checks": report.checks,
    });
    Ok(serde_json::to_string_pretty(&object)? + "\n")
}

fn word(verdict: Verdict) -> serde_json::Result<String> {
    let value = serde_json::to_value(verdict)?;
    Ok(value.as_str().unwrap_or_default().to_owned())
}
