//! What an agent declares, in words: for whoever looks at it while it runs.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use toka_core::units::format_duration;
use toka_core::{Limits, NetworkAccess, Origin, SandboxMode};

use crate::plan::{Gate, Node};
use crate::presets::PresetData;
use crate::{
    AfterEnd, Agent, AgentKind, HttpScheme, IfSkipped, MaxRestarts, Need, Probe, ProbeCheck, Process,
    ProcessCommand, RestartPolicy, Start, User, WhenExhausted,
};

/// One thing that an agent declares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Described {
    /// What it is about, such as `command` or `restart`. Several may be about the same.
    pub key: Cow<'static, str>,
    /// What is declared.
    pub text: String,
    /// Where, when it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// What an agent declares and what it waits for, the most asked for first. Texts are the file's own and not escaped.
pub fn describe(agent: &Agent, node: &Node) -> Vec<Described> {
    let mut rows = Rows(Vec::new());
    rows.add("file", agent.file.display().to_string(), Some(&agent.origin));
    command(agent, &mut rows);
    for gate in &node.gates {
        rows.add(need(gate), gate_text(gate), Some(&gate.origin));
    }
    if let Some(model) = &agent.model {
        let names: Vec<String> = model.chain.iter().map(|name| name.value.to_string()).collect();
        let shown = match &model.script {
            Some(script) => format!("the script {script}"),
            None if names.is_empty() => "default".to_owned(),
            None => names.join(", "),
        };
        rows.add("model", shown, Some(&model.origin));
    }
    servers(agent, &mut rows);
    if let Some(budget) = &agent.confinement.budget {
        rows.add("budget", budget.value.to_string(), Some(&budget.origin));
    }
    if let Some(schedule) = &agent.schedule {
        let zone = schedule.timezone.as_deref().map_or_else(String::new, |zone| format!(" in {zone}"));
        rows.add("schedule", format!("{}{zone}", schedule.cron), Some(&schedule.origin));
    }
    rows.0.extend(life(agent));
    confinement(agent, &mut rows);
    rows.0
}

/// How an agent's life begins, is watched, ends and begins anew, with the line that says so.
pub fn life(agent: &Agent) -> Vec<Described> {
    let place = |key: &str| agent.spec_places.get(key);
    let mut rows = Rows(Vec::new());
    if agent.start == Start::Manual {
        rows.add("start", "when somebody starts it", place("start"));
    }
    for (kind, probe) in agent.probes.each() {
        rows.add("probe", format!("{kind}: {}", probe_text(probe)), place(&format!("{kind}_probe")));
    }
    let kind = match agent.kind {
        AgentKind::Task => "a task",
        AgentKind::Service => "a service",
    };
    let by_default = Origin::default_of(kind);
    rows.add("restart", restart_text(agent), Some(place("restart").unwrap_or(&by_default)));
    if !agent.success.is_empty() {
        let codes: Vec<String> = agent.success.iter().map(ToString::to_string).collect();
        let text = format!("the exit code 0, and {}", codes.join(", "));
        rows.add("success", text, place("success_exit_codes"));
    }
    for (how, then) in [("a success", agent.on_end.success), ("a failure", agent.on_end.failure)] {
        if then == AfterEnd::StopRun {
            rows.add("on end", format!("{how} of it stops the run"), place("on_end"));
        }
    }
    let [signal, grace] =
        [toka_core::exit::signal_name(agent.stop.signal), format_duration(agent.stop.grace_period)];
    let by_default = Origin::default_of("how agents stop");
    let stop = format!("{signal}, killed after {grace}");
    rows.add("stop", stop, Some(place("stop").unwrap_or(&by_default)));
    if let Some(quiet) = agent.watchdog {
        let text = format!("at most {} without a sign of life", format_duration(quiet));
        rows.add("watchdog", text, place("watchdog"));
    }
    hooks(agent, &mut rows);
    for dependency in &agent.dependencies {
        let then = match dependency.if_skipped {
            IfSkipped::Block => continue,
            IfSkipped::Skip => "it is skipped as well",
            IfSkipped::Start => "it starts all the same",
        };
        rows.add("if skipped", format!("{}: {then}", dependency.on), Some(&dependency.origin));
    }
    rows.0
}

struct Rows(Vec<Described>);

impl Rows {
    fn add(&mut self, key: &'static str, text: impl Into<String>, origin: Option<&Origin>) {
        self.0.push(Described { key: key.into(), text: text.into(), origin: origin.cloned() });
    }
}

fn command(agent: &Agent, rows: &mut Rows) {
    if let Some(process) = &agent.process {
        rows.add("command", started_text(process), Some(&process.command_origin));
        if let (Some(preset), Some(_)) = (process.preset, &process.command) {
            rows.add("preset", preset.name(), Some(&process.command_origin));
        }
        if let Origin::File { .. } = process.working_dir.origin {
            rows.add("folder", process.working_dir.value.as_str(), Some(&process.working_dir.origin));
        }
        let origin = Some(&process.user.origin);
        match &process.user.value {
            User::Invoking => {}
            User::Dynamic => rows.add("user", "one of its own while it runs", origin),
            User::Named(name) => rows.add("user", name.as_str(), origin),
        }
    }
    for task in &agent.tasks {
        match task.talk {
            true => rows.add("chat", "a person may talk to it when its tasks are done", Some(&task.origin)),
            false => rows.add("task", task.description.as_str(), Some(&task.origin)),
        }
    }
    if let Some(replica) = &agent.replica {
        rows.add("replica", format!("{} of {} of {}", replica.number, replica.count, replica.of), None);
    }
}

fn servers(agent: &Agent, rows: &mut Rows) {
    for server in &agent.mcp {
        rows.add("mcp", format!("{}: {}", server.name, words(&server.command)), Some(&server.origin));
    }
}

fn hooks(agent: &Agent, rows: &mut Rows) {
    let hooks = &agent.hooks;
    let all = [
        ("pre_start", &hooks.pre_start),
        ("post_start", &hooks.post_start),
        ("pre_stop", &hooks.pre_stop),
        ("post_stop", &hooks.post_stop),
    ];
    for (occasion, commands) in all {
        for hook in commands {
            rows.add("hook", format!("{occasion}: {}", words(&hook.argv)), Some(&hook.origin));
        }
    }
}

fn confinement(agent: &Agent, rows: &mut Rows) {
    let confinement = &agent.confinement;
    if confinement.sandbox.value == SandboxMode::Off {
        let text = "OFF: an ordinary process of the user, held to its limits and to nothing else";
        rows.add("sandbox", text, Some(&confinement.sandbox.origin));
    }
    for capability in &confinement.capabilities {
        rows.add("asks for", capability.value.to_string(), Some(&capability.origin));
    }
    let paths =
        [("reads", &confinement.read), ("writes", &confinement.write), ("executes", &confinement.execute)];
    for (key, paths) in paths {
        for path in paths {
            rows.add(key, path.value.as_str(), Some(&path.origin));
        }
    }
    if confinement.network.value != NetworkAccess::None {
        rows.add("network", confinement.network.value.to_string(), Some(&confinement.network.origin));
    }
    rows.add("limits", limits_text(&confinement.limits), None);
}

fn limits_text(limits: &Limits) -> String {
    let mut parts = vec![
        format!("memory {}", limits.memory.value),
        format!("CPU {}", limits.cpu.value),
        format!("{} processes", limits.processes.value),
        format!("{} open files", limits.open_files.value),
    ];
    if let Some(timeout) = &limits.timeout {
        parts.push(format!("{} of life", format_duration(timeout.value)));
    }
    if let Some(disk) = &limits.disk {
        parts.push(format!("disk {}", disk.value));
    }
    parts.join(", ")
}

/// Whether what is waited for is required.
fn need(gate: &Gate) -> &'static str {
    match gate.need {
        Need::Required => "requires",
        Need::Optional => "optional",
    }
}

fn gate_text(gate: &Gate) -> String {
    let reason = if gate.reason.is_empty() { String::new() } else { format!(" ({})", gate.reason) };
    format!("{}: {}{reason}", gate.on, gate.condition)
}

fn restart_text(agent: &Agent) -> String {
    let restart = &agent.restart;
    let policy = match restart.policy {
        RestartPolicy::No => return "never".to_owned(),
        RestartPolicy::OnFailure => "after a failure",
        RestartPolicy::OnAbnormal => "after an abnormal end, which an exit code is not",
        RestartPolicy::OnWatchdog => "after its watchdog or a probe",
        RestartPolicy::Always => "after every end that nobody asked for",
        RestartPolicy::UnlessStopped => "after every end, until somebody stops it",
    };
    let most = match restart.max_restarts {
        MaxRestarts::Unlimited => "without a limit".to_owned(),
        MaxRestarts::Limited(most) => {
            let then = match restart.when_exhausted {
                WhenExhausted::Fail => "",
                WhenExhausted::Accept => ", then its end is accepted",
            };
            format!("at most {most} times within {}{then}", format_duration(restart.window))
        }
    };
    let waits = [restart.backoff.initial, restart.backoff.max].map(|wait: Duration| format_duration(wait));
    format!("{policy}, {most}; waits {} at first and {} at most", waits[0], waits[1])
}

fn probe_text(probe: &Probe) -> String {
    let what = match &probe.check {
        ProbeCheck::Notify => return "its own READY=1".to_owned(),
        ProbeCheck::LogLine(line) => return format!("a line of its output with {line:?}"),
        ProbeCheck::NotificationFd(number) => return format!("a newline on its descriptor {number}"),
        ProbeCheck::Exec(argv) => words(argv),
        ProbeCheck::HttpGet(get) => {
            let scheme = match get.scheme {
                HttpScheme::Http => "http",
                HttpScheme::Https => "https",
            };
            format!("GET {scheme}://{}:{}{}", get.host, get.port, get.path)
        }
        ProbeCheck::TcpSocket(socket) => format!("a connection to {}:{}", socket.host, socket.port),
    };
    let (period, failures) = (format_duration(probe.period), probe.failure_threshold);
    let fails =
        if failures == 1 { "fails at once".to_owned() } else { format!("fails after {failures} in a row") };
    format!("{what}, every {period}, {fails}")
}

/// What a process starts, for people.
pub fn started_text(process: &Process) -> String {
    match (&process.command, process.preset) {
        (Some(command), _) => command_text(command),
        (None, Some(preset)) => format!("{} works through the tasks", PresetData::of(preset).title),
        (None, None) => String::new(),
    }
}

/// A command as a shell would take it.
pub fn command_text(command: &ProcessCommand) -> String {
    match command {
        ProcessCommand::Argv(argv) => words(argv),
        ProcessCommand::Shell(line) => format!("/bin/sh -c {}", quoted(line)),
    }
}

/// Words as a shell would take them.
pub fn words(argv: &[String]) -> String {
    argv.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

/// A word as a shell would take it.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_=+.,:/@%^".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn everything_that_is_declared_has_a_line() {
        let text = r#"
metadata: {name: db}
spec:
  type: service
  process: {command: [sleep, "1000"]}
---
metadata: {name: api}
spec:
  type: service
  replicas: 2
  process: {command: [python3, -m, "http server", it's], working_dir: src, user: dynamic}
  readiness_probe: {http_get: {port: 8080, path: /ready}, period: 2s, failure_threshold: 1}
  liveness_probe: {exec: {command: [test, -e, alive]}}
  startup_probe: {log_line: up}
  restart: {policy: always, max_restarts: 3, window: 5m, when_exhausted: accept, backoff: {initial: 1s, max: 9s}}
  stop: {signal: SIGINT, grace_period: 3s}
  watchdog: 90s
  hooks: {pre_start: [mkdir, -p, data]}
dependencies: {required: {db: {reason: rows, condition: process_started}}}
security:
  network: loopback
  capabilities_required: [filesystem-read]
  filesystem: {write: [data]}
  resource_limits: {max_memory: 1GB, max_cpu: 50%, timeout: 2h, max_disk_usage: 1GB}
"#;
        let loaded = crate::load_texts([(Path::new("shop.yaml"), text)], &crate::LoadOptions::default());
        let set = loaded.set.expect("valid");
        let plan = crate::plan(&set, &loaded.sources).0.expect("a plan");
        let name = toka_core::Name::new("api-1").expect("a label");
        let node = plan.nodes().iter().find(|node| node.agent == name).expect("planned");
        let rows = describe(set.agent(&name).expect("there"), node);
        let place = |row: &Described| row.origin.as_ref().map_or_else(String::new, |at| format!("  [{at}]"));
        let lines: Vec<String> =
            rows.iter().map(|row| format!("{:9} {}{}", row.key, row.text, place(row))).collect();
        insta::assert_snapshot!(lines.join("\n"));
    }
}
