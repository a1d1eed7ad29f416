//! The health of one agent as a page: everything that speaks for it and against it, in sections.

use toka_api::health::HealthView;
use toka_core::units::format_duration;
use toka_core::{ByteSize, Coverage, HealthReport, Layer};

use super::health::paint;
use super::list::age;
use super::palette::Palette;
use super::text::{cell, fit, safe};

/// Width of the first column.
const LABEL: usize = 12;
/// Figures of its own that are shown.
const METRICS: usize = 20;

/// Draws the agents one after the other, `columns` wide at most.
pub fn pages(views: &[HealthView], columns: usize, palette: Palette) -> String {
    let agents = views.iter().flat_map(|view| {
        let of = move |project: &'_ _| page_of(project, view.at_ms, columns, palette);
        view.projects.iter().map(of)
    });
    agents.flatten().collect::<Vec<_>>().join("\n")
}

fn page_of(
    project: &toka_api::health::ProjectHealth,
    now_ms: i64,
    columns: usize,
    palette: Palette,
) -> Vec<String> {
    let of = |agent| {
        let mut page = Page { text: String::new(), columns, palette };
        page.draw(project.project.as_str(), agent, now_ms);
        page.text
    };
    project.agents.iter().map(of).collect()
}

/// A page that is being written.
struct Page {
    text: String,
    columns: usize,
    palette: Palette,
}

impl Page {
    fn draw(&mut self, project: &str, agent: &HealthReport, now_ms: i64) {
        let name = self.palette.strong.paint(format!("{project}/{}", agent.status.name));
        let verdict = paint(agent.verdict, self.palette).paint(agent.verdict);
        self.text.push_str(&format!("{name}  {verdict}\n"));
        if !["", agent.status.name.as_str()].contains(&&*agent.status.title) {
            self.text.push_str(&(fit(&safe(&agent.status.title), self.columns) + "\n"));
        }
        self.reasons(agent);
        self.life(agent, now_ms);
        self.probes(agent, now_ms);
        self.resources(agent);
        self.metrics(agent);
        self.confinement(agent);
    }

    fn section(&mut self, heading: &str) {
        self.text.push_str(&format!("\n{}\n", self.palette.strong.paint(heading)));
    }

    fn row(&mut self, label: &str, text: &str) {
        let text = fit(text, self.columns.saturating_sub(LABEL + 3));
        self.text.push_str(&format!("  {} {text}\n", cell(label, LABEL)));
    }

    fn reasons(&mut self, agent: &HealthReport) {
        if agent.reasons.is_empty() {
            return;
        }
        self.section("Why");
        for reason in &agent.reasons {
            let verdict = reason.verdict();
            let label = paint(verdict, self.palette).paint(cell(verdict.as_str(), LABEL));
            let text = fit(&safe(&reason.to_string()), self.columns.saturating_sub(LABEL + 3));
            self.text.push_str(&format!("  {label} {text}\n"));
        }
    }

    fn life(&mut self, agent: &HealthReport, now_ms: i64) {
        let status = &agent.status;
        self.section("Life");
        let since = age(status.since_ms, now_ms);
        self.row("state", &format!("{} for {since}", status.state.as_str()));
        if let Some(up) = status.started_ms.filter(|_| agent.uptime_ms.is_some()) {
            self.row("up", &age(up, now_ms));
        }
        let next = status.next_start_ms.map(|next| format!("; the next in {}", age(now_ms, next)));
        if status.restart_count > 0 || next.is_some() {
            self.row("restarts", &format!("{}{}", status.restart_count, next.unwrap_or_default()));
        }
        if let Some(last) = &status.last {
            let lived = format_duration(std::time::Duration::from_millis(last.duration_ms));
            let exit = safe(&last.usage.tell(&last.exit));
            self.row("last life", &format!("{exit}, after {lived}, {} ago", age(last.ended_ms, now_ms)));
        }
        let progress = &status.progress;
        if let Some(fraction) = progress.fraction {
            self.row("progress", &format!("{:.0} %", fraction * 100.0));
        }
        for (label, text) in [("task", &progress.task), ("doing", &progress.status)] {
            if let Some(text) = text {
                self.row(label, &safe(text));
            }
        }
    }

    fn probes(&mut self, agent: &HealthReport, now_ms: i64) {
        if agent.status.probes.is_empty() {
            return;
        }
        self.section("Probes");
        for probe in &agent.status.probes {
            let verb = if probe.ok { "succeeds" } else { "fails" };
            let text = format!("{verb} for {}: {}", age(probe.since_ms, now_ms), safe(&probe.reason));
            self.row(&probe.probe.to_string(), &text);
        }
    }

    fn resources(&mut self, agent: &HealthReport) {
        let Some(used) = &agent.resources else { return };
        let shares = agent.shares;
        let size = |bytes: Option<u64>| bytes.map(|bytes| ByteSize(bytes).to_string());
        let share = |share: Option<u32>| share.map(|share| format!(" ({share} %)")).unwrap_or_default();
        self.section("Resources");
        if let Some(current) = size(used.memory_current) {
            let limit = size(used.memory_limit).map(|limit| format!(" of {limit}")).unwrap_or_default();
            let peak = size(used.memory_peak).map(|peak| format!(", {peak} at most")).unwrap_or_default();
            self.row("memory", &format!("{current}{limit}{}{peak}", share(shares.memory)));
        }
        if let Some(cpu) = used.cpu_us {
            let seconds = |us: u64| format!("{:.2} s", us as f64 / 1e6);
            let held = used.throttled_us.map(|held| {
                format!(", held back by its quota for {}{}", seconds(held), share(shares.throttled))
            });
            self.row("cpu", &format!("{}{}", seconds(cpu), held.unwrap_or_default()));
        }
        if let Some(processes) = used.processes {
            let limit = used.processes_limit.map(|limit| format!(" of {limit}")).unwrap_or_default();
            self.row("processes", &format!("{processes}{limit}{}", share(shares.processes)));
        }
        if let (Some(read), Some(written)) = (size(used.io_read_bytes), size(used.io_written_bytes)) {
            self.row("storage", &format!("{read} read, {written} written"));
        }
        if let (Some(held), Some(limit)) = (size(used.disk_used), size(used.disk_limit)) {
            self.row("disk", &format!("{held} of {limit}{}", share(shares.disk)));
        }
        let pressure =
            [("a CPU", used.pressure.cpu), ("memory", used.pressure.memory), ("storage", used.pressure.io)];
        let waits: Vec<String> =
            pressure.iter().filter_map(|(on, share)| Some(format!("{:.0} % for {on}", (*share)?))).collect();
        if !waits.is_empty() {
            self.row("waits", &waits.join(", "));
        }
        if let Some(kills) = used.oom_kills.filter(|kills| *kills > 0) {
            self.row("killed", &format!("{kills} times for want of memory"));
        }
    }

    fn metrics(&mut self, agent: &HealthReport) {
        let metrics = &agent.status.metrics;
        if metrics.is_empty() {
            return;
        }
        self.section("Its own figures");
        for (name, value) in metrics.iter().take(METRICS) {
            self.row(&safe(name), &value.to_string());
        }
        if metrics.len() > METRICS {
            self.row("…", &format!("and {} more", metrics.len() - METRICS));
        }
    }

    fn confinement(&mut self, agent: &HealthReport) {
        let Some(enforcement) = &agent.status.enforcement else { return };
        self.section("Confinement");
        if enforcement.overall() == Coverage::Full {
            self.row("full", "every layer is in force");
            return;
        }
        for layer in Layer::ALL {
            let report = enforcement.layers.iter().find(|report| report.layer == layer);
            let (coverage, why) = report.map_or((Coverage::None, String::new()), |report| {
                (report.coverage, report.reasons.join("; "))
            });
            let word = match coverage {
                Coverage::Full => "full",
                Coverage::Partial => "partial",
                Coverage::None => "none",
            };
            let text = if why.is_empty() { word.to_owned() } else { format!("{word}: {}", safe(&why)) };
            self.row(layer.as_str(), &text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::tests::views;
    use crate::text::columns as width_of;

    #[test]
    fn each_agent_on_its_page() {
        insta::assert_snapshot!(pages(&views(), 100, Palette::PLAIN));
    }

    #[test]
    fn a_page_is_never_wider_than_asked_for() {
        for columns in 60..140 {
            let text = pages(&views(), columns, Palette::PLAIN);
            assert!(text.lines().all(|line| width_of(line) <= columns), "{columns}\n{text}");
            assert!(!text.contains('\u{1b}'));
        }
    }
}
