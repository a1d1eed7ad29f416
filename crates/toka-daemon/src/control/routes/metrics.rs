//! `/metrics`: the health of the daemon and of every agent in figures, for Prometheus and whoever else reads OpenMetrics.
//!
//! What agents report of themselves comes as `toka_agent_metric` with the name as a label, so that no agent can make up a
//! family, and no more than [`MOST_METRICS`] of each, so that none can fill whoever keeps the figures.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use toka_api::host::HostFigures;
use toka_core::{Coverage, Exit, HealthReport, Resources, Verdict};
use toka_runtime::turns::turns;
use toka_store::Health;

use super::super::openmetrics::{Exposition, Family, Kind, MEDIA_TYPE};
use super::super::server::Server;
use super::health::{Gathered, Known, gather};
use toka_project::Figures;

/// Figures of its own that one agent can have; the declared ones come first, then the others by name.
const MOST_METRICS: usize = 64;
/// Most characters of the name of one.
const LONGEST_NAME: usize = 100;

/// Every word of [`AgentState::as_str`](toka_core::AgentState::as_str).
const STATES: [&str; 12] = [
    "pending",
    "blocked",
    "starting",
    "running",
    "ready",
    "paused",
    "stopping",
    "succeeded",
    "stopped",
    "failed",
    "backoff",
    "quarantined",
];
const JOURNAL_STATES: [&str; 3] = ["well", "waiting", "losing"];

const fn family(name: &'static str, kind: Kind, unit: &'static str, help: &'static str) -> Family {
    Family { name, kind, unit, help }
}

/// A family with one sample for each agent, and where its value is found.
type Figure = (Family, fn(&HealthReport) -> Option<f64>);

/// Of agents; absent where the host does not tell, or there is nothing to tell.
const FIGURES: &[Figure] = &[
    (family("toka_agent_ready", Kind::Gauge, "", "Whether others may use the agent"), |agent| {
        Some(f64::from(u8::from(agent.status.state.is_ready())))
    }),
    (
        family("toka_agent_restarts", Kind::Counter, "", "How often its restart policy started it again"),
        |agent| Some(f64::from(agent.status.restart_count)),
    ),
    (
        family(
            "toka_agent_start_time_seconds",
            Kind::Gauge,
            "seconds",
            "When its life began, since the epoch",
        ),
        |agent| agent.status.started_ms.map(seconds_of_ms),
    ),
    (
        family("toka_agent_last_exit_code", Kind::Gauge, "", "The status that its last life ended with"),
        |agent| match agent.status.last.as_ref()?.exit {
            Exit::Code { code } => Some(f64::from(code)),
            _ => None,
        },
    ),
    (
        family("toka_agent_last_end_time_seconds", Kind::Gauge, "seconds", "When its last life ended"),
        |agent| agent.status.last.as_ref().map(|last| seconds_of_ms(last.ended_ms)),
    ),
    (family("toka_agent_progress_ratio", Kind::Gauge, "ratio", "How far it says that it is"), |agent| {
        agent.status.progress.fraction
    }),
    (
        family(
            "toka_agent_metrics_dropped",
            Kind::Counter,
            "",
            "Figures of its own under more names than are kept",
        ),
        |agent| Some(agent.status.metrics_dropped as f64),
    ),
    (family("toka_agent_memory_bytes", Kind::Gauge, "bytes", "Memory held, with the page cache"), |agent| {
        used(agent, |used| used.memory_current)
    }),
    (
        family("toka_agent_memory_limit_bytes", Kind::Gauge, "bytes", "Most memory that it may hold"),
        |agent| used(agent, |used| used.memory_limit),
    ),
    (family("toka_agent_memory_peak_bytes", Kind::Gauge, "bytes", "Most memory that it held"), |agent| {
        used(agent, |used| used.memory_peak)
    }),
    (family("toka_agent_cpu_seconds", Kind::Counter, "seconds", "CPU time in this life"), |agent| {
        used(agent, |used| used.cpu_us).map(|us| us / 1e6)
    }),
    (
        family(
            "toka_agent_cpu_throttled_seconds",
            Kind::Counter,
            "seconds",
            "Time held back by its CPU quota",
        ),
        |agent| used(agent, |used| used.throttled_us).map(|us| us / 1e6),
    ),
    (family("toka_agent_processes", Kind::Gauge, "", "Processes and threads"), |agent| {
        used(agent, |used| used.processes)
    }),
    (
        family("toka_agent_processes_limit", Kind::Gauge, "", "Most processes and threads that it may have"),
        |agent| used(agent, |used| used.processes_limit),
    ),
    (family("toka_agent_io_read_bytes", Kind::Counter, "bytes", "Read from storage in this life"), |agent| {
        used(agent, |used| used.io_read_bytes)
    }),
    (
        family("toka_agent_io_written_bytes", Kind::Counter, "bytes", "Written to storage in this life"),
        |agent| used(agent, |used| used.io_written_bytes),
    ),
    (
        family(
            "toka_agent_disk_bytes",
            Kind::Gauge,
            "bytes",
            "Storage that HOME, /tmp and artifacts hold, of agents with a limit on it",
        ),
        |agent| used(agent, |used| used.disk_used),
    ),
    (
        family("toka_agent_disk_limit_bytes", Kind::Gauge, "bytes", "Most storage that they may hold"),
        |agent| used(agent, |used| used.disk_limit),
    ),
    (
        family("toka_agent_oom_kills", Kind::Counter, "", "Processes that the out-of-memory killer ended"),
        |agent| used(agent, |used| used.oom_kills),
    ),
    (
        family(
            "toka_agent_cpu_pressure_ratio",
            Kind::Gauge,
            "ratio",
            "Share of the last 10 s waited for a CPU",
        ),
        |agent| agent.resources?.pressure.cpu.map(|percent| percent / 100.0),
    ),
    (
        family(
            "toka_agent_memory_pressure_ratio",
            Kind::Gauge,
            "ratio",
            "Share of the last 10 s waited for memory",
        ),
        |agent| agent.resources?.pressure.memory.map(|percent| percent / 100.0),
    ),
    (
        family(
            "toka_agent_io_pressure_ratio",
            Kind::Gauge,
            "ratio",
            "Share of the last 10 s waited for storage",
        ),
        |agent| agent.resources?.pressure.io.map(|percent| percent / 100.0),
    ),
];

fn used(agent: &HealthReport, figure: fn(&Resources) -> Option<u64>) -> Option<f64> {
    // A figure beyond 2^53 loses its last digits, which nobody reads.
    agent.resources.as_ref().and_then(figure).map(|value| value as f64)
}

fn seconds_of_ms(ms: i64) -> f64 {
    ms as f64 / 1e3
}

pub(super) async fn metrics(State(server): State<Server>) -> Response {
    let gathered = gather(&server, Figures::With).await;
    ([(CONTENT_TYPE, MEDIA_TYPE)], render(&gathered)).into_response()
}

/// An agent with its project's name.
struct Named<'a> {
    project: &'a str,
    report: HealthReport,
    declared: &'a [String],
}

impl Named<'_> {
    fn labels(&self) -> [(&str, &str); 2] {
        [("project", self.project), ("agent", self.report.status.name.as_str())]
    }
}

/// The whole exposition.
pub(super) fn render(gathered: &Gathered) -> String {
    let mut text = Exposition::default();
    of_daemon(&mut text, gathered);
    if let Some(host) = &gathered.host {
        of_host(&mut text, host);
    }
    of_projects(&mut text, &gathered.projects);
    let agents: Vec<Named<'_>> =
        gathered.projects.iter().flat_map(|known| named(known, gathered.now_ms)).collect();
    of_agents(&mut text, &agents);
    text.finish()
}

fn named(known: &Known, now_ms: i64) -> impl Iterator<Item = Named<'_>> {
    let facts = known.facts.iter();
    facts.flat_map(move |facts| {
        facts.reports(now_ms).into_iter().map(|report| {
            let declared = facts.expected.get(&report.status.name);
            let declared = declared.map_or(&[][..], |expected| expected.metrics.as_slice());
            Named { project: known.project.as_str(), report, declared }
        })
    })
}

fn of_daemon(text: &mut Exposition, Gathered { projects, daemon, .. }: &Gathered) {
    let version = daemon.view.version.as_str();
    text.family(family("toka_build", Kind::Info, "", "What answers")).sample(&[("version", version)], 1.0);
    let started = seconds_of_ms(daemon.view.started_ms);
    text.family(family(
        "toka_start_time_seconds",
        Kind::Gauge,
        "seconds",
        "When the daemon began, since the epoch",
    ))
    .sample(&[], started);
    text.family(family("toka_check", Kind::Gauge, "", "Whether something is well that the daemon needs"));
    for check in &daemon.checks {
        text.sample(&[("check", check.name.as_str())], f64::from(u8::from(check.is_ok())));
    }
    if let Some(files) = daemon.open_files {
        text.family(family("toka_open_files", Kind::Gauge, "", "Files that the daemon has open"))
            .sample(&[], files.open as f64);
        text.family(family("toka_open_files_limit", Kind::Gauge, "", "Files that it may have open"))
            .sample(&[], files.limit as f64);
    }
    let turns = turns();
    text.family(family(
        "toka_loop_longest_turn_seconds",
        Kind::Gauge,
        "seconds",
        "Longest time for which one task kept the daemon from everything else",
    ))
    .sample(&[], turns.longest.as_secs_f64());
    text.family(family("toka_loop_long_turns", Kind::Counter, "", "How often that was more than 50 ms"))
        .sample(&[], turns.long as f64);
    text.family(family("toka_projects", Kind::Gauge, "", "Projects that run"))
        .sample(&[], projects.len() as f64);
}

/// A family with one sample, and its value.
type HostFigure = (Family, fn(&HostFigures) -> f64);

/// Of the host; what an exporter of its own would tell in full.
const OF_HOST: &[HostFigure] = &[
    (family("toka_host_cpus", Kind::Gauge, "", "Processors that can run something"), |host| host.cpus as f64),
    (
        family("toka_host_load1", Kind::Gauge, "", "Processes that ran or wanted to, averaged over a minute"),
        |host| host.load[0],
    ),
    (family("toka_host_memory_bytes", Kind::Gauge, "bytes", "All memory"), |host| host.memory_total as f64),
    (
        family(
            "toka_host_memory_available_bytes",
            Kind::Gauge,
            "bytes",
            "Memory that programs can get without swapping",
        ),
        |host| host.memory_available as f64,
    ),
    (family("toka_host_swap_bytes", Kind::Gauge, "bytes", "All swap space"), |host| host.swap_total as f64),
    (family("toka_host_swap_free_bytes", Kind::Gauge, "bytes", "Swap space that is not used"), |host| {
        host.swap_free as f64
    }),
];

fn of_host(text: &mut Exposition, host: &HostFigures) {
    for (family, figure) in OF_HOST {
        text.family(*family).sample(&[], figure(host));
    }
}

fn of_projects(text: &mut Exposition, projects: &[Known]) {
    let known = || projects.iter().filter_map(|known| Some((known.project.as_str(), known.facts.as_ref()?)));
    text.family(family("toka_project_events", Kind::Counter, "", "Events in the journal"));
    for (project, facts) in known() {
        text.sample(&[("project", project)], facts.status.seq as f64);
    }
    text.family(family("toka_project_journal", Kind::StateSet, "", "How writing the journal goes"));
    for (project, facts) in known() {
        let [well, waiting, losing] = JOURNAL_STATES;
        let state = match facts.journal {
            Health::Well => well,
            Health::Waiting(_) => waiting,
            Health::Losing(..) => losing,
        };
        text.states(&[("project", project)], &JOURNAL_STATES, state);
    }
    text.family(family(
        "toka_project_journal_lost_events",
        Kind::Gauge,
        "",
        "Events lost while it is not written",
    ));
    for (project, facts) in known() {
        let lost = if let Health::Losing(_, lost) = facts.journal { lost } else { 0 };
        text.sample(&[("project", project)], lost as f64);
    }
}

fn of_agents(text: &mut Exposition, agents: &[Named<'_>]) {
    text.family(family("toka_agent", Kind::Info, "", "What it is"));
    for agent in agents {
        let [project, name] = agent.labels();
        let status = &agent.report.status;
        let kind = status.kind.as_str();
        let enforcement = status.enforcement.as_ref().map_or("unknown", |known| match known.overall() {
            Coverage::Full => "full",
            Coverage::Partial => "partial",
            Coverage::None => "none",
        });
        let labels = [project, name, ("title", &status.title), ("kind", kind), ("enforcement", enforcement)];
        text.sample(&labels, 1.0);
    }
    text.family(family("toka_agent_state", Kind::StateSet, "", "Where it is in its life"));
    for agent in agents {
        text.states(&agent.labels(), &STATES, agent.report.status.state.as_str());
    }
    text.family(family("toka_agent_health", Kind::StateSet, "", "How well it is"));
    for agent in agents {
        text.states(&agent.labels(), &Verdict::ALL.map(Verdict::as_str), agent.report.verdict.as_str());
    }
    for (family, figure) in FIGURES {
        text.family(*family);
        for agent in agents {
            if let Some(value) = figure(&agent.report) {
                text.sample(&agent.labels(), value);
            }
        }
    }
    of_their_own(text, agents);
}

/// What agents report of themselves.
fn of_their_own(text: &mut Exposition, agents: &[Named<'_>]) {
    let chosen: Vec<(BTreeMap<String, f64>, usize)> =
        agents.iter().map(|agent| choose(&agent.report.status.metrics, agent.declared)).collect();
    text.family(family("toka_agent_metric", Kind::Gauge, "", "A figure that the agent reports of itself"));
    for (agent, (metrics, _)) in agents.iter().zip(&chosen) {
        let [project, name] = agent.labels();
        for (metric, value) in metrics {
            text.sample(&[project, name, ("name", metric)], *value);
        }
    }
    let help = "Figures of its own that are not shown, since there are too many";
    text.family(family("toka_agent_metrics_omitted", Kind::Gauge, "", help));
    for (agent, (_, omitted)) in agents.iter().zip(&chosen) {
        text.sample(&agent.labels(), *omitted as f64);
    }
}

/// The figures that are shown, under names fit for a label, and how many are not.
fn choose(reported: &BTreeMap<String, f64>, declared: &[String]) -> (BTreeMap<String, f64>, usize) {
    let first = declared.iter().filter_map(|name| reported.get_key_value(name));
    let others = reported.iter().filter(|(name, _)| !declared.contains(*name));
    let mut chosen = BTreeMap::new();
    for (name, value) in first.chain(others) {
        if chosen.len() == MOST_METRICS {
            break;
        }
        chosen.entry(label(name)).or_insert(*value);
    }
    let omitted = reported.len() - chosen.len();
    (chosen, omitted)
}

/// The name without what a query or a page could stumble over, and not longer than anybody reads.
fn label(name: &str) -> String {
    let tame = |c: char| if c.is_alphanumeric() || "_-.:/ %".contains(c) { c } else { '_' };
    name.chars().take(LONGEST_NAME).map(tame).collect()
}

#[cfg(test)]
mod tests {
    use toka_core::AgentState;

    use super::*;

    #[test]
    fn declared_figures_come_first_and_there_is_an_end_of_them() {
        let reported: BTreeMap<String, f64> =
            (0..100).map(|at| (format!("m{at:02}"), f64::from(at))).collect();
        let declared = ["zz", "m99", "m50"].map(str::to_owned);
        let (chosen, omitted) = choose(&reported, &declared);
        assert_eq!((chosen.len(), omitted), (MOST_METRICS, 100 - MOST_METRICS));
        for name in ["m00", "m50", "m99"] {
            assert!(chosen.contains_key(name), "{name}");
        }
        assert!(!chosen.contains_key("m98"));
    }

    #[test]
    fn names_are_tame_and_stay_different_or_give_way() {
        assert_eq!(label("rows/s (µ)"), "rows/s _µ_");
        assert_eq!(label(&"x".repeat(1000)).len(), LONGEST_NAME);
        let reported = BTreeMap::from([("a\n".to_owned(), 1.0), ("a_".to_owned(), 2.0)]);
        assert_eq!(choose(&reported, &[]), (BTreeMap::from([("a_".to_owned(), 1.0)]), 1));
    }

    #[test]
    fn names_of_families_fit_their_kind_and_unit() {
        for (Family { name, unit, kind, .. }, _) in FIGURES {
            assert!(name.ends_with(unit), "{name}");
            assert!(
                ["_total", "_info", "_created"].iter().all(|end| !name.ends_with(end)),
                "{name} {kind:?}"
            );
        }
    }

    #[test]
    fn every_state_has_its_word() {
        let exits = [Exit::Code { code: 0 }, Exit::Code { code: 1 }, Exit::stopped("x")];
        let name = toka_core::AgentName::new("x").expect("a label");
        let mut states = vec![
            AgentState::Pending,
            AgentState::Starting,
            AgentState::Blocked { by: name, why: None },
            AgentState::Backoff { restarts: 1 },
        ];
        for ready in [true, false] {
            states.extend([AgentState::Running { pid: 1, ready }, AgentState::Paused { pid: 1, ready }]);
        }
        for exit in exits {
            states.push(AgentState::Stopping { exit: exit.clone() });
            states.push(AgentState::Quarantined { exit: exit.clone(), restarts: 1 });
            states.push(AgentState::Ended { exit });
        }
        let words: std::collections::BTreeSet<&str> = states.iter().map(AgentState::as_str).collect();
        assert_eq!(words, STATES.into_iter().collect());
    }
}
