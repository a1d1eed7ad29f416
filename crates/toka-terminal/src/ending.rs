//! What follows the table: the last words of the agents that failed, and where their work is.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use toka_core::{AgentName, Layer, escape};
use toka_logs::{Ending, Stream};

use super::palette::Palette;
use super::phrases::{outcome, shortfall};
use super::text::{count, safe};
use super::view::{Outcome, RunView};

/// Lines of a failed agent's log that are shown.
const TAIL_LINES: usize = 20;
/// Failed agents whose log is shown.
const MOST_FAILURES: usize = 10;
/// Folders of artifacts that are named one by one.
const MOST_FOLDERS: usize = 3;
/// Characters of one line of a log that are shown.
const TAIL_COLUMNS: usize = 500;
/// The file in an agent's artifact folder that is announced as its report.
const REPORT: &str = "report.md";

/// What an agent left on disk.
#[derive(Debug, Clone)]
pub struct Trace {
    /// The agent.
    pub agent: AgentName,
    /// Its output.
    pub log: PathBuf,
    /// Its artifact folder.
    pub artifacts: PathBuf,
}

/// Why each failed agent failed, and the end of its log if it has one; of a crowd, only the first.
pub fn failures(view: &RunView, traces: &[Trace], palette: Palette) -> String {
    let failed: Vec<_> = view.agents().iter().filter(|agent| agent.outcome() == Outcome::Failed).collect();
    let mut out = String::new();
    for agent in failed.iter().take(MOST_FAILURES) {
        let words = traces.iter().find(|trace| trace.agent == agent.name);
        let words = words.map(|trace| last_words(trace, palette)).unwrap_or_default();
        let mark = palette.bad.paint("✗");
        out.push_str(&format!("\n{mark} {}: {}\n{words}", agent.name, outcome(agent)));
    }
    if failed.len() > MOST_FAILURES {
        let more = format!("\n… and {} more failed; the table names them\n", failed.len() - MOST_FAILURES);
        out.push_str(&palette.faint.paint(more));
    }
    out
}

fn last_words(trace: &Trace, palette: Palette) -> String {
    let path = palette.accent.paint(safe(&trace.log.to_string_lossy()));
    let bar = palette.faint.paint("│");
    match last_lines(&trace.log) {
        Ok(lines) if lines.is_empty() => format!("  it wrote nothing to {path}\n"),
        Ok(lines) => {
            let shown: String = lines.iter().map(|line| format!("  {bar} {line}\n")).collect();
            format!("{shown}  the last {} of {path}\n", count(lines.len(), "line"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => "  it wrote nothing\n".to_owned(),
        Err(error) => format!("  its log {path} cannot be read: {error}\n"),
    }
}

/// The last lines of a log, safe for a terminal.
fn last_lines(log: &Path) -> io::Result<Vec<String>> {
    let mut before = [Ending::Newline; Stream::ALL.len()];
    let mut lines = Vec::new();
    for piece in toka_logs::tail(log, TAIL_LINES)? {
        // A long line comes in pieces; its first stands for it.
        if std::mem::replace(&mut before[piece.stream as usize], piece.ending) != Ending::Cut {
            lines.push(shown(&piece.bytes));
        }
    }
    Ok(lines)
}

fn shown(line: &[u8]) -> String {
    escape::for_terminal(line.strip_suffix(b"\r").unwrap_or(line), TAIL_COLUMNS)
}

/// The reports that agents left: a regular file, since a link could point anywhere.
pub fn reports(traces: &[Trace]) -> Vec<PathBuf> {
    let paths = traces.iter().map(|trace| trace.artifacts.join(REPORT));
    paths.filter(|path| path.symlink_metadata().is_ok_and(|found| found.is_file())).collect()
}

/// What of the confinement was not in force in full, and why, once for all agents that it concerns.
pub fn shortfalls(view: &RunView, palette: Palette) -> String {
    let mut found: BTreeMap<(Layer, String), usize> = BTreeMap::new();
    for agent in view.agents() {
        let layers = agent.enforcement.iter().flat_map(|enforcement| &enforcement.layers);
        for (report, text) in layers.filter_map(|report| Some((report, shortfall(report)?))) {
            *found.entry((report.layer, text)).or_default() += 1;
        }
    }
    let line = |((layer, text), agents): (&(Layer, String), &usize)| {
        let whom = if *agents == view.agents().len() {
            String::new()
        } else {
            format!(" (of {})", count(*agents, "agent"))
        };
        let rest = text.strip_prefix(layer.as_str()).unwrap_or(text);
        format!("{}{rest}{whom}\n", palette.warn.paint(layer.as_str()))
    };
    found.iter().map(line).collect()
}

/// Where the work is: `report: PATH` for each report, and the folders of other artifacts, a crowd of
/// them as one pattern.
pub fn places(traces: &[Trace], palette: Palette) -> String {
    let line = |word: &str, path: &Path| {
        format!("{}: {}\n", palette.strong.paint(word), palette.accent.paint(safe(&path.to_string_lossy())))
    };
    let reports = reports(traces);
    let mut out = String::new();
    let folders: Vec<&Path> = traces
        .iter()
        .map(|trace| trace.artifacts.as_path())
        .filter(|folder| holds_anything(folder) && !reports.iter().any(|report| report.starts_with(folder)))
        .collect();
    match folders.first().and_then(|folder| folder.parent()?.parent()) {
        Some(agents) if folders.len() > MOST_FOLDERS => {
            out.push_str(&line("artifacts", &agents.join("*/artifacts")));
        }
        _ => out.extend(folders.iter().map(|folder| line("artifacts", folder))),
    }
    out.extend(reports.iter().map(|report| line("report", report)));
    out
}

fn holds_anything(folder: &Path) -> bool {
    folder.read_dir().is_ok_and(|mut entries| entries.next().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{canned, follow};

    fn trace(folder: &Path, log: &[u8]) -> Trace {
        let trace = Trace {
            agent: canned::name("checks"),
            log: folder.join("log"),
            artifacts: folder.join("artifacts"),
        };
        follow::tests::write(&trace.log, log);
        std::fs::create_dir_all(&trace.artifacts).expect("a folder");
        trace
    }

    fn failures_of(log: &[u8]) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        let view = canned::view_after(canned::events().len());
        failures(&view, &[trace(folder.path(), log)], Palette::PLAIN)
            .replace(&*folder.path().to_string_lossy(), "STATE")
    }

    #[test]
    fn the_last_words_of_a_failed_agent() {
        let log: String = (1..=30).map(|line| format!("line {line}\r\n")).collect();
        insta::assert_snapshot!(failures_of(format!("{log}\u{1b}[31merror\u{7}: it broke").as_bytes()));
    }

    #[test]
    fn an_agent_may_have_said_nothing() {
        assert!(failures_of(b"").contains("it wrote nothing to STATE/log"));
    }

    #[test]
    fn an_endless_line_is_cut() {
        let shown = failures_of(&vec![b'x'; 3 << 20]);
        assert!(shown.len() < 1000, "{}", shown.len());
        assert!(shown.contains("x…\n  the last 1 line of"), "{shown}");
    }

    #[test]
    fn reports_are_announced_and_links_are_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let trace = trace(folder.path(), b"");
        let traces = [trace.clone()];
        assert_eq!(places(&traces, Palette::PLAIN), "");
        let report = trace.artifacts.join(REPORT);
        std::os::unix::fs::symlink("/etc/passwd", &report).expect("a link");
        assert_eq!(places(&traces, Palette::PLAIN), format!("artifacts: {}\n", trace.artifacts.display()));
        std::fs::remove_file(&report).expect("removed");
        std::fs::write(&report, "# Figures").expect("a report");
        assert_eq!(places(&traces, Palette::PLAIN), format!("report: {}\n", report.display()));
    }

    #[test]
    fn many_folders_are_one_pattern() {
        let folder = tempfile::tempdir().expect("a folder");
        let traces: Vec<Trace> = ["a", "b", "c", "d"]
            .iter()
            .map(|agent| {
                let artifacts = folder.path().join(agent).join("artifacts");
                std::fs::create_dir_all(artifacts.join("something")).expect("a folder");
                Trace { agent: canned::name(agent), log: folder.path().join("log"), artifacts }
            })
            .collect();
        let shown = |count: usize| places(&traces[..count], Palette::PLAIN);
        assert_eq!(shown(3).lines().count(), 3);
        assert_eq!(shown(4), format!("artifacts: {}/*/artifacts\n", folder.path().display()));
    }
}
