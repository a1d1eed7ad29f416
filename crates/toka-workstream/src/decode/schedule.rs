//! `spec.schedule`: an expression of cron(5), or a map with more.

use std::ops::Range;
use std::str::FromStr as _;

use croner::Cron;
use jiff::tz::TimeZone;
use toka_core::schedule::{CatchUp, Overlap};

use super::context::Context;
use super::keys::SCHEDULE;
use super::section::Section;
use super::texts::{choice, filled};
use crate::diagnostic::{Code, Diagnostic};
use crate::model::{AgentKind, RestartPolicy, Schedule};
use crate::read::{Node, Value, shorten};

const OVERLAPS: &[(&str, Overlap)] =
    &[("skip", Overlap::Skip), ("queue", Overlap::Queue), ("replace", Overlap::Replace)];
const CATCH_UPS: &[(&str, CatchUp)] = &[("none", CatchUp::None), ("last", CatchUp::Last)];

/// Longest expression in bytes: each field may list every value.
const LONGEST: usize = 1024;

pub(crate) fn schedule(cx: &mut Context<'_>, node: &Node) -> Option<Schedule> {
    let origin = cx.origin(node);
    // `schedule: "*/5 * * * *"` stands for a map with that expression.
    if matches!(&node.value, Value::Scalar(scalar) if !scalar.is_null()) {
        let (cron, pattern) = pattern(cx, node)?;
        let schedule = Schedule {
            cron,
            timezone: None,
            overlap: Overlap::default(),
            catch_up: CatchUp::default(),
            origin,
            pattern,
            zone: TimeZone::system(),
        };
        return comes(cx, node, schedule);
    }
    let section = Section::read(cx, node, &SCHEDULE)?;
    let zone = section.get("timezone").map(|node| zone(cx, node));
    let overlap = section.get("overlap").and_then(|node| choice(cx, node, OVERLAPS)).unwrap_or_default();
    let catch_up = section.get("catch_up").and_then(|node| choice(cx, node, CATCH_UPS)).unwrap_or_default();
    let Some(at) = section.get("cron") else {
        let problem = cx.at(Code::Missing, "the schedule has no `cron`", node, "");
        cx.report(
            problem.help("write `cron: \"*/5 * * * *\"`: minute, hour, day of month, month, day of week"),
        );
        return None;
    };
    let (cron, pattern) = pattern(cx, at)?;
    let (timezone, zone) = match zone {
        Some(found) => found.map(|(name, zone)| (Some(name), zone))?,
        None => (None, TimeZone::system()),
    };
    comes(cx, at, Schedule { cron, timezone, overlap, catch_up, origin, pattern, zone })
}

fn pattern(cx: &mut Context<'_>, node: &Node) -> Option<(String, Cron)> {
    let text = filled(cx, node)?;
    let text = text.trim();
    if text.len() > LONGEST {
        cx.bad_value(node, format!("a schedule has at most {LONGEST} bytes"));
        return None;
    }
    match Cron::from_str(text) {
        Ok(pattern) => Some((text.to_owned(), pattern)),
        Err(error) => {
            let (span, label) = match wrong_field(cx, node, text) {
                Some((span, name, error)) => (span, format!("the {name}: {}", plain(&error))),
                None => (node.span.clone(), plain(&error)),
            };
            let message = format!("`{}` is not a schedule", shorten(text));
            let problem = Diagnostic::new(Code::BadValue, message).at(cx.file, span, label);
            cx.report(problem.help(
                "write five fields: minute, hour, day of month, month, day of week, such as `*/5 * * * *` or \
                 `30 2 * * MON-FRI` (with six, the first is the second); or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`",
            ));
            None
        }
    }
}

/// The names of fields, by how many there are.
fn names(count: usize) -> Option<Vec<&'static str>> {
    const ALL: [&str; 7] = ["second", "minute", "hour", "day of month", "month", "day of week", "year"];
    match count {
        5 => Some(ALL[1..6].to_vec()),
        6 => Some(ALL[..6].to_vec()),
        7 => Some(ALL.to_vec()),
        _ => None,
    }
}

/// The first field that is wrong by itself, and where it stands.
fn wrong_field(
    cx: &Context<'_>,
    node: &Node,
    text: &str,
) -> Option<(Range<usize>, &'static str, croner::errors::CronError)> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    let names = names(fields.len())?;
    let (at, error) = fields.iter().enumerate().find_map(|(at, field)| {
        let alone: Vec<&str> = (0..fields.len()).map(|other| if other == at { field } else { "*" }).collect();
        Cron::from_str(&alone.join(" ")).err().map(|error| (at, error))
    })?;
    // Where the text stands in the file as it is, the field is shown, else the whole.
    let source = cx.sources.text(cx.file).get(node.span.clone())?;
    let span = match source.find(text) {
        Some(begin) => {
            let offset = fields[at].as_ptr() as usize - text.as_ptr() as usize;
            let start = node.span.start + begin + offset;
            start..start + fields[at].len()
        }
        None => node.span.clone(),
    };
    Some((span, names[at], error))
}

/// The words of an error without what is said already.
fn plain(error: &croner::errors::CronError) -> String {
    let text = error.to_string();
    let text = ["Component error: ", "Invalid pattern: ", "Pattern contains illegal characters: "]
        .iter()
        .find_map(|prefix| text.strip_prefix(prefix))
        .unwrap_or(&text)
        .trim_end_matches('.');
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

fn zone(cx: &mut Context<'_>, node: &Node) -> Option<(String, TimeZone)> {
    let name = filled(cx, node)?;
    match TimeZone::get(&name) {
        Ok(zone) => Some((name, zone)),
        Err(_) => {
            let message = format!("this machine knows no time zone `{}`", shorten(&name));
            let problem = cx.at(Code::UnknownChoice, message, node, "");
            let known = jiff::tz::db();
            let names: Vec<String> = known.available().map(|name| name.to_string()).collect();
            let help = match super::suggest::nearest(&name, names.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "names are those of the IANA database, such as `Europe/Berlin` or `UTC`".to_owned(),
            };
            cx.report(problem.help(help));
            None
        }
    }
}

/// What the clock starts ends by itself, and begins again when the clock says so.
pub(crate) fn report_conflicts(
    cx: &mut Context<'_>,
    spec: &Section<'_>,
    kind: Option<AgentKind>,
    policy: Option<RestartPolicy>,
) {
    let Some(at) = spec.entry("schedule").filter(|entry| !entry.value.is_null()) else { return };
    let again = matches!(policy, Some(RestartPolicy::Always | RestartPolicy::UnlessStopped));
    let conflicts = [
        (
            "type",
            kind == Some(AgentKind::Service),
            "a service has no end, after which it could be started again",
        ),
        ("restart", again, "it would begin again at once, and not when the clock says so"),
    ];
    for (key, _, label) in conflicts.into_iter().filter(|(_, conflicts, _)| *conflicts) {
        let Some(entry) = spec.entry(key) else { continue };
        let problem =
            Diagnostic::new(Code::Conflict, format!("`schedule` and this `{key}` exclude each other"))
                .at(cx.file, entry.value.span.clone(), label)
                .at(cx.file, at.key.span.clone(), "started by the clock")
                .help(match key {
                    "type" => "leave out `type`, or the schedule",
                    _ => "use `restart: on-failure`, or leave one of them out",
                });
        cx.report(problem);
    }
}

/// A schedule whose times never come, such as the 30th of February.
fn comes(cx: &mut Context<'_>, node: &Node, schedule: Schedule) -> Option<Schedule> {
    // Calendars repeat every 400 years, and the search ends with the year 5000: unless a year is named, what does not come in
    // the last of these never does. To look at all of them takes ten times as long.
    let years = if schedule.cron.split_whitespace().count() == 7 { 1970 } else { 4590 };
    let from = jiff::civil::date(years, 1, 1).at(0, 0, 0, 0);
    if schedule.pattern.find_next_occurrence(&from, true).is_ok() {
        return Some(schedule);
    }
    let message = format!("the schedule `{}` names no time that ever comes", shorten(&schedule.cron));
    let problem = cx.at(Code::BadValue, message, node, "no such day");
    cx.report(problem);
    None
}
