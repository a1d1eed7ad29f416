//! The health of everything that runs: one line per agent, the worst first, and what the daemons say of themselves.

use toka_api::health::{Check, DaemonHealth, HealthView, Outcome, ProjectHealth};
use toka_api::host::HostFigures;
use toka_core::{ByteSize, HealthReport, Verdict};

use super::list::{age, doing, paint as paint_of_state};
use super::palette::{Paint, Palette};
use super::text::{cell, columns as width_of, count, fit, safe};

/// A column: its heading, what stands in it, and how wide the window must be for it to be there.
struct Column {
    heading: &'static str,
    from: usize,
    text: fn(&Line<'_>) -> String,
}

/// An agent as a line.
struct Line<'a> {
    project: &'a ProjectHealth,
    agent: &'a HealthReport,
    now_ms: i64,
}

const GAP: &str = "  ";
/// Windows of that width have all columns.
const WIDE: usize = 100;
/// What is left to the last column at least.
const LEAST: usize = 12;

const COLUMNS: [Column; 7] = [
    Column {
        heading: "AGENT",
        from: 0,
        text: |line| format!("{}/{}", line.project.project, line.agent.status.name),
    },
    Column { heading: "HEALTH", from: 0, text: |line| line.agent.verdict.to_string() },
    Column { heading: "STATE", from: 0, text: |line| line.agent.status.state.as_str().to_owned() },
    Column { heading: "FOR", from: 0, text: |line| age(line.agent.status.since_ms, line.now_ms) },
    Column { heading: "RESTARTS", from: WIDE, text: |line| or_dash(line.agent.status.restart_count) },
    Column {
        heading: "MEMORY",
        from: WIDE,
        text: |line| line.agent.shares.memory.map_or_else(|| "–".to_owned(), |share| format!("{share} %")),
    },
    Column { heading: "WHY", from: 0, text: why },
];
/// The columns that are coloured.
const HEALTH: usize = 1;
const STATE: usize = 2;

fn or_dash(count: u32) -> String {
    if count == 0 { "–".to_owned() } else { count.to_string() }
}

/// The worst reason; of one that is well, how far it is.
fn why(line: &Line<'_>) -> String {
    match line.agent.reasons.as_slice() {
        [] => doing(&line.agent.status, line.now_ms),
        [worst] => safe(&worst.to_string()),
        [worst, others @ ..] => format!("{} (and {} more)", safe(&worst.to_string()), others.len()),
    }
}

/// The colour of a verdict.
pub fn paint(verdict: Verdict, palette: Palette) -> Paint {
    match verdict {
        Verdict::Ended => palette.faint,
        Verdict::Healthy => palette.good,
        Verdict::Starting => palette.busy,
        Verdict::Degraded => palette.warn,
        Verdict::Unhealthy => palette.bad,
    }
}

/// Draws what several daemons tell, `columns` wide at most.
pub fn list(views: &[HealthView], columns: usize, palette: Palette) -> String {
    let mut lines: Vec<Line<'_>> = views
        .iter()
        .flat_map(|view| view.projects.iter().map(|project| (view.at_ms, project)))
        .flat_map(|(now_ms, project)| project.agents.iter().map(move |agent| Line { project, agent, now_ms }))
        .collect();
    lines.sort_by_key(|line| std::cmp::Reverse(line.agent.verdict));
    let mut text = String::new();
    if !lines.is_empty() {
        text.push_str(&rows(&lines, columns, palette));
        text.push('\n');
    }
    for view in views {
        text.push_str(&daemon(&view.daemon, view.at_ms, columns, palette));
        text.extend(view.host.as_ref().map(|it| host(it, columns)));
    }
    text
}

fn rows(lines: &[Line<'_>], columns: usize, palette: Palette) -> String {
    let shown: Vec<&Column> = COLUMNS.iter().filter(|column| columns >= column.from).collect();
    let cells: Vec<Vec<String>> =
        lines.iter().map(|line| shown.iter().map(|column| (column.text)(line)).collect()).collect();
    let widths = widths(&shown, &cells, columns);
    let headings: Vec<String> = shown.iter().map(|column| column.heading.to_owned()).collect();
    let mut text = palette.strong.paint(row(&headings, &widths, &[]).trim_end()) + "\n";
    for (line, cells) in lines.iter().zip(&cells) {
        let health = (HEALTH, paint(line.agent.verdict, palette));
        let state = (STATE, paint_of_state(&line.agent.status, palette));
        text.push_str(row(cells, &widths, &[health, state]).trim_end());
        text.push('\n');
    }
    text
}

/// As wide as what is in them; names give way before the last one is gone.
fn widths(shown: &[&Column], cells: &[Vec<String>], columns: usize) -> Vec<usize> {
    let last = shown.len() - 1;
    let widest = |at: usize| cells.iter().map(|row| width_of(&row[at])).max().unwrap_or(0);
    let mut widths: Vec<usize> =
        shown.iter().enumerate().map(|(at, column)| widest(at).max(column.heading.len())).collect();
    let fixed: usize = widths[1..last].iter().sum::<usize>() + GAP.len() * last;
    let for_texts = columns.saturating_sub(fixed);
    widths[0] = widths[0].min(for_texts.saturating_sub(LEAST).max(LEAST));
    widths[last] = for_texts.saturating_sub(widths[0]);
    widths
}

fn row(cells: &[String], widths: &[usize], colours: &[(usize, Paint)]) -> String {
    let fill = |(at, (text, width)): (usize, (&String, &usize))| {
        let text = if at + 1 == cells.len() { fit(text, *width) } else { cell(text, *width) };
        match colours.iter().find(|(column, _)| *column == at) {
            Some((_, paint)) => paint.paint(text),
            None => text,
        }
    };
    cells.iter().zip(widths).enumerate().map(fill).collect::<Vec<_>>().join(GAP)
}

/// What a daemon says of itself: what it is, what is well, and a line for each thing that is not.
fn daemon(daemon: &DaemonHealth, now_ms: i64, columns: usize, palette: Palette) -> String {
    let view = &daemon.view;
    let verdict = paint(daemon.verdict, palette).paint(daemon.verdict);
    let facts = format!("pid {}, toka {}, for {}", view.pid, view.version, age(view.started_ms, now_ms));
    let mut text = format!("daemon  {verdict}  {facts}\n");
    let well: Vec<String> = daemon.checks.iter().filter_map(well).collect();
    if !well.is_empty() {
        let line = format!("  well: {}", list_of(&well, columns));
        text.push_str(&(fit(&line, columns) + "\n"));
    }
    for Check { name, outcome } in &daemon.checks {
        if let Outcome::Failed { why } = outcome {
            let line = fit(&format!("{}: {}", safe(name), safe(why)), columns.saturating_sub(10));
            text.push_str(&format!("  {}  {line}\n", palette.bad.paint("failed")));
        }
    }
    text
}

/// The host in one line.
fn host(host: &HostFigures, columns: usize) -> String {
    let HostFigures { cpus, load: [load, ..], memory_total, memory_available, swap_total, swap_free } = *host;
    let memory = format!("{} of {} memory available", ByteSize(memory_available), ByteSize(memory_total));
    let swap = match swap_total - swap_free.min(swap_total) {
        0 => String::new(),
        used => format!(", {} swapped", ByteSize(used)),
    };
    let line = format!("  host: load {load:.2} on {}, {memory}{swap}", count(cpus, "CPU"));
    fit(&line, columns) + "\n"
}

fn well(check: &Check) -> Option<String> {
    match &check.outcome {
        Outcome::Ok { detail: None } => Some(safe(&check.name)),
        Outcome::Ok { detail: Some(detail) } => Some(format!("{} ({})", safe(&check.name), safe(detail))),
        Outcome::Failed { .. } => None,
    }
}

/// As many as fit, and how many do not.
fn list_of(names: &[String], columns: usize) -> String {
    let room = columns.saturating_sub(20);
    let mut text = String::new();
    for (at, name) in names.iter().enumerate() {
        let next = if at == 0 { name.clone() } else { format!("{text}, {name}") };
        if at > 0 && width_of(&next) > room {
            return format!("{text}, {}", count(names.len() - at, "other"));
        }
        text = next;
    }
    text
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use toka_api::health::OpenFiles;
    use toka_api::wire::{DaemonView, RoleName};
    use toka_core::health::Expected;
    use toka_core::probe::ProbeKind;
    use toka_core::status::{LastLife, ProbeStatus};
    use toka_core::{
        AgentName, AgentState, AgentStatus, Coverage, Enforcement, Exit, Layer, Pressure, Progress,
        ProjectName, Resources,
    };

    use super::*;

    const NOW: i64 = 1_000_000;

    fn agent(name: &str, state: AgentState) -> AgentStatus {
        let name = AgentName::new(name).expect("a label");
        let status = AgentStatus::new(name, NOW - 65_000);
        AgentStatus { state, started_ms: Some(NOW - 95_000), title: Arc::from("Keeps the shop"), ..status }
    }

    fn running(name: &str, ready: bool) -> AgentStatus {
        agent(name, AgentState::Running { pid: 7, ready })
    }

    fn used(memory: u64) -> Resources {
        Resources {
            memory_current: Some(memory << 20),
            memory_peak: Some(500 << 20),
            memory_limit: Some(512 << 20),
            cpu_us: Some(12_340_000),
            throttled_us: Some(950_000),
            processes: Some(12),
            processes_limit: Some(256),
            io_read_bytes: Some(3 << 20),
            io_written_bytes: Some(4096),
            pressure: Pressure { cpu: Some(12.4), memory: Some(0.0), io: Some(1.0) },
            oom_kills: Some(0),
            disk_used: Some(900 << 20),
            disk_limit: Some(1 << 30),
        }
    }

    fn enforcement() -> Arc<Enforcement> {
        let mut enforcement = Enforcement::default();
        Layer::ALL.into_iter().for_each(|layer| enforcement.set(layer, Coverage::Full, Vec::new()));
        enforcement.set(Layer::Cgroup, Coverage::Partial, vec!["no cpu controller".into()]);
        Arc::new(enforcement)
    }

    /// One of each, with text that no terminal should get.
    pub(crate) fn views() -> Vec<HealthView> {
        let exit = Exit::Code { code: 3 };
        let last = LastLife {
            exit,
            ended_ms: NOW - 65_000,
            duration_ms: 2_000,
            all_lives_ms: None,
            usage: Default::default(),
        };
        let probe = ProbeStatus {
            probe: ProbeKind::Readiness,
            ok: false,
            reason: "status 503\u{1b}[2J".into(),
            since_ms: NOW - 30_000,
        };
        let progress = Progress {
            fraction: Some(0.42),
            status: Some("resizing pictures".into()),
            task: Some("Make the catalogue".into()),
        };
        let of = |status, used| HealthReport::of(status, used, &Expected::default(), NOW);
        let agents = vec![
            of(
                AgentStatus {
                    progress,
                    metrics: [("pictures".to_owned(), 120.0), ("rows/s".to_owned(), 2.5)].into(),
                    ..running("catalogue", true)
                },
                Some(used(120)),
            ),
            of(
                AgentStatus {
                    probes: vec![probe],
                    enforcement: Some(enforcement()),
                    last: Some(Box::new(last.clone())),
                    restart_count: 2,
                    ..running("api", false)
                },
                Some(used(500)),
            ),
            of(agent("import", AgentState::Ended { exit: Exit::Code { code: 0 } }), None),
            of(running("search", false), Some(used(490))),
            of(agent("waits", AgentState::Pending), None),
            of(
                AgentStatus {
                    last: Some(Box::new(last)),
                    next_start_ms: Some(NOW + 4_000),
                    ..agent("flapping", AgentState::Backoff { restarts: 3 })
                },
                None,
            ),
        ];
        let ok = |name: &str, detail: Option<&str>| Check {
            name: name.to_owned(),
            outcome: Outcome::Ok { detail: detail.map(str::to_owned) },
        };
        let why = "events wait in memory: no space is left".to_owned();
        let project = ProjectName::new("shop").expect("a label");
        let view = DaemonView {
            version: "1.2.3".into(),
            pid: 4711,
            started_ms: NOW - 3_700_000,
            role: RoleName::Service,
            projects: vec![project.clone()],
        };
        let checks = vec![
            ok("control-socket", None),
            ok("disk", Some("1.5 GiB free")),
            ok("open-files", Some("45 of 1024")),
            Check { name: "journal/shop".into(), outcome: Outcome::Failed { why } },
            ok("keeper/shop", None),
        ];
        let open_files = Some(OpenFiles { open: 45, limit: 1024 });
        let daemon = DaemonHealth { verdict: Verdict::Unhealthy, view, checks, open_files };
        let verdict = Verdict::Unhealthy;
        let host = Some(HostFigures {
            cpus: 2,
            load: [0.52, 0.3, 1.2],
            memory_total: 24 << 30,
            memory_available: 5 << 29,
            swap_total: 2 << 30,
            swap_free: 1 << 30,
        });
        let projects = vec![ProjectHealth { project, verdict, started_ms: NOW - 3_600_000, agents }];
        vec![HealthView { verdict, at_ms: NOW, daemon, host, projects }]
    }

    #[test]
    fn at_80_columns() {
        insta::assert_snapshot!(list(&views(), 80, Palette::PLAIN));
    }

    #[test]
    fn at_140_columns() {
        insta::assert_snapshot!(list(&views(), 140, Palette::PLAIN));
    }

    #[test]
    fn in_colour() {
        insta::assert_snapshot!(list(&views(), 140, Palette::COLOUR).replace('\u{1b}', "␛"));
    }

    #[test]
    fn it_is_never_wider_than_asked_for() {
        for columns in 70..180 {
            let text = list(&views(), columns, Palette::PLAIN);
            assert!(text.lines().all(|line| width_of(line) <= columns), "{columns}\n{text}");
            assert!(!text.contains('\u{1b}'));
        }
    }
}
