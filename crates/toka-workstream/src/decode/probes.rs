//! `spec.startup_probe`, `spec.readiness_probe`, `spec.liveness_probe`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toka_core::{Confinement, NetworkAccess, SandboxMode};

use super::context::Context;
use super::keys::{HTTP_GET, PROBE, PROBE_EXEC, TCP_SOCKET};
use super::quantities::{delay, duration, integer};
use super::section::{Section, pairs};
use super::texts::{argument, argv, choice, filled};
use crate::diagnostic::{Code, Diagnostic, Severity};
use crate::model::{HttpGet, HttpScheme, Probe, ProbeCheck, Probes, TcpSocket};
use crate::read::{Entry, Node, Value};

/// Every kind of check.
const CHECKS: [&str; 5] = ["exec", "http_get", "tcp_socket", "log_line", "notification_fd"];

/// Descriptors that an agent may be told to notify on: behind the standard streams, and below what select(2) can hold.
const NOTIFICATION_FDS: RangeInclusive<u32> = 3..=1023;

/// The probes, and where they ask for something that listens on the agent's own loopback interface.
#[derive(Default)]
pub(crate) struct Declared {
    pub(crate) probes: Probes,
    notification_fd: Option<Range<usize>>,
    on_loopback: Vec<Range<usize>>,
}

pub(crate) fn probes(cx: &mut Context<'_>, spec: &Section<'_>) -> Declared {
    let mut on_loopback = Vec::new();
    let mut take = |key| {
        let entry = spec.entry(key)?;
        let probe = probe(cx, &entry.value, &mut on_loopback)?;
        if key != "readiness_probe" && matches!(probe.check, ProbeCheck::NotificationFd(_)) {
            cx.report(only_for_readiness(cx, entry));
        } else if key == "liveness_probe" && probe.check.is_sign() {
            cx.report(asks_nothing(cx, entry, &probe.check));
        }
        Some(probe)
    };
    let probes = Probes {
        startup: take("startup_probe"),
        readiness: take("readiness_probe"),
        liveness: take("liveness_probe"),
    };
    let notification_fd = spec.get("readiness_probe").and_then(|node| match &node.value {
        Value::Map(entries) => entries.iter().find(|entry| entry.key.text == "notification_fd"),
        _ => None,
    });
    let notification_fd = notification_fd.map(|entry| entry.value.span.clone());
    Declared { probes, notification_fd, on_loopback }
}

impl Declared {
    /// An agent has no descriptor of a number that its limit leaves out.
    pub(crate) fn report_out_of_reach(&self, cx: &mut Context<'_>, confinement: &Confinement) {
        let (Some(span), Some(number)) = (&self.notification_fd, self.probes.notification_fd()) else {
            return;
        };
        let limit = confinement.limits.open_files.value;
        if u32::from(number) < limit {
            return;
        }
        let message = format!("descriptor {number} is beyond the agent's limit");
        let problem = Diagnostic::new(Code::Conflict, message)
            .at(
                cx.file,
                span.clone(),
                format!("`max_open_files: {limit}` ends with {}", limit.saturating_sub(1)),
            )
            .help("take a lower number, such as 3, or raise `security.resource_limits.max_open_files`");
        cx.report(problem);
    }

    /// What is refused every socket cannot listen, so that a probe that connects to it always fails.
    pub(crate) fn report_without_network(&self, cx: &mut Context<'_>, confinement: &Confinement) {
        let none =
            confinement.sandbox.value == SandboxMode::On && confinement.network.value == NetworkAccess::None;
        // The network may be none only because what was written could not be read.
        if !none || cx.failed() {
            return;
        }
        for span in &self.on_loopback {
            let message = "the probe asks over the network, and the agent has none: it cannot listen";
            let problem = Diagnostic::new(Code::Conflict, message)
                .severity(Severity::Warning)
                .at(cx.file, span.clone(), "always fails")
                .help("write `security: {network: loopback}`, or ask with `exec`");
            cx.report(problem);
        }
    }
}

fn only_for_readiness(cx: &Context<'_>, entry: &Entry) -> Diagnostic {
    let message = format!("`notification_fd` is not for `{}`", entry.key.text);
    Diagnostic::new(Code::Conflict, message)
        .at(cx.file, entry.key.span.clone(), "what comes on the descriptor says that the agent is ready")
        .help("write it into `readiness_probe`")
}

fn asks_nothing(cx: &Context<'_>, entry: &Entry, check: &ProbeCheck) -> Diagnostic {
    let label = match check {
        ProbeCheck::LogLine(_) => "a line that was written says nothing of what works now",
        _ => "no `exec`, `http_get` or `tcp_socket`",
    };
    Diagnostic::new(Code::Missing, "the liveness probe asks nothing")
        .at(cx.file, entry.key.span.clone(), label)
        .help("for an agent that reports by itself that it is alive, use `watchdog: 30s`")
}

fn probe(cx: &mut Context<'_>, node: &Node, on_loopback: &mut Vec<Range<usize>>) -> Option<Probe> {
    let section = Section::read(cx, node, &PROBE)?;
    for (at, one) in CHECKS.iter().enumerate() {
        for other in &CHECKS[at + 1..] {
            section.exclude(cx, one, other);
        }
    }
    let check = if let Some(node) = section.get("exec") {
        exec(cx, node).map(ProbeCheck::Exec)
    } else if let Some(node) = section.get("http_get") {
        http_get(cx, node).map(ProbeCheck::HttpGet)
    } else if let Some(node) = section.get("tcp_socket") {
        tcp_socket(cx, node).map(ProbeCheck::TcpSocket)
    } else if let Some(node) = section.get("log_line") {
        filled(cx, node).map(ProbeCheck::LogLine)
    } else if let Some(node) = section.get("notification_fd") {
        let number = integer(cx, node, NOTIFICATION_FDS).and_then(|number| u16::try_from(number).ok());
        number.map(ProbeCheck::NotificationFd)
    } else {
        Some(ProbeCheck::Notify)
    };
    if let Some(check) = &check {
        report_no_effect(cx, &section, check);
        on_loopback.extend(loopback(&section, check));
    }
    let mut count =
        |key, default| section.get(key).and_then(|node| integer(cx, node, 1..=1_000_000)).unwrap_or(default);
    let (success_threshold, failure_threshold) =
        (count("success_threshold", 1), count("failure_threshold", 3));
    let mut time = |key, default| {
        section.get(key).and_then(|node| duration(cx, node)).unwrap_or(Duration::from_secs(default))
    };
    let (period, timeout) = (time("period", 10), time("timeout", 1));
    let initial_delay = section.get("initial_delay").and_then(|node| delay(cx, node)).unwrap_or_default();
    Some(Probe { check: check?, initial_delay, period, timeout, success_threshold, failure_threshold })
}

/// What the agent tells by itself, once, has no answer that could be late, and no second time.
fn report_no_effect(cx: &mut Context<'_>, section: &Section<'_>, check: &ProbeCheck) {
    let keys = ["timeout", "success_threshold"].into_iter().filter(|_| check.is_sign());
    for entry in keys.filter_map(|key| section.entry(key)).filter(|entry| !entry.value.is_null()) {
        let waits = match check {
            ProbeCheck::LogLine(_) => "a line",
            ProbeCheck::NotificationFd(_) => "a newline on a descriptor",
            _ => "`READY=1`",
        };
        let message = format!("`{}` has no effect on a probe that waits for {waits}", entry.key.text);
        let problem = Diagnostic::new(Code::NoEffect, message).at(cx.file, entry.key.span.clone(), "");
        cx.report(problem.help("leave it out: until it comes, each `period` is one failure"));
    }
}

/// Where a probe asks for something on this machine.
fn loopback(section: &Section<'_>, check: &ProbeCheck) -> Option<Range<usize>> {
    let (key, host) = match check {
        ProbeCheck::HttpGet(get) => ("http_get", &get.host),
        ProbeCheck::TcpSocket(socket) => ("tcp_socket", &socket.host),
        _ => return None,
    };
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    let here = address.map_or(host.eq_ignore_ascii_case("localhost"), |address| address.is_loopback());
    section.entry(key).filter(|_| here).map(|entry| entry.key.span.clone())
}

fn exec(cx: &mut Context<'_>, node: &Node) -> Option<Vec<String>> {
    // `exec: [./ready.sh]` stands for a map with that command.
    if matches!(node.value, Value::List(_)) {
        return argv(cx, node);
    }
    let section = Section::read(cx, node, &PROBE_EXEC)?;
    match section.get("command") {
        Some(node) => argv(cx, node),
        None => {
            missing(cx, node, "`exec` has no `command`", "write `exec: {command: [program, argument]}`");
            None
        }
    }
}

fn http_get(cx: &mut Context<'_>, node: &Node) -> Option<HttpGet> {
    let section = Section::read(cx, node, &HTTP_GET)?;
    let host = host(cx, &section);
    let path = match section.get("path") {
        Some(node) => filled(cx, node).and_then(|path| absolute(cx, path, node)),
        None => Some("/".to_owned()),
    };
    let scheme = section
        .get("scheme")
        .and_then(|node| choice(cx, node, &[("http", HttpScheme::Http), ("https", HttpScheme::Https)]))
        .unwrap_or_default();
    let headers = section.get("headers").map(|node| headers(cx, node)).unwrap_or_default();
    let port = port(cx, &section, node)?;
    Some(HttpGet { host, port, path: path?, scheme, headers })
}

fn absolute(cx: &mut Context<'_>, path: String, node: &Node) -> Option<String> {
    if path.starts_with('/') && path.chars().all(|c| c.is_ascii_graphic()) {
        return Some(path);
    }
    cx.bad_value(
        node,
        "the path of a request begins with `/`; spaces and what is not ASCII are written like `%20`",
    );
    None
}

fn headers(cx: &mut Context<'_>, node: &Node) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for entry in pairs(cx, node, "a map of header names and values").unwrap_or_default() {
        let name = &entry.key.text;
        let value = argument(cx, &entry.value);
        // Token characters of RFC 9110, 5.6.2.
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        match value {
            Some(value)
                if !name.is_empty()
                    && name.chars().all(token)
                    && !value.contains(|c: char| c.is_control() && c != '\t') =>
            {
                out.insert(name.clone(), value);
            }
            Some(_) => {
                cx.bad_value(&entry.value, format!("`{}` is not a header", crate::read::shorten(name)));
            }
            None => {}
        }
    }
    out
}

fn tcp_socket(cx: &mut Context<'_>, node: &Node) -> Option<TcpSocket> {
    let section = Section::read(cx, node, &TCP_SOCKET)?;
    let host = host(cx, &section);
    Some(TcpSocket { host, port: port(cx, &section, node)? })
}

fn host(cx: &mut Context<'_>, section: &Section<'_>) -> String {
    section.get("host").and_then(|node| filled(cx, node)).unwrap_or_else(|| "127.0.0.1".to_owned())
}

fn port(cx: &mut Context<'_>, section: &Section<'_>, node: &Node) -> Option<u16> {
    match section.get("port") {
        Some(node) => integer(cx, node, 1..=u32::from(u16::MAX)).and_then(|port| u16::try_from(port).ok()),
        None => {
            missing(cx, node, "the probe has no `port`", "write `port: 8080`");
            None
        }
    }
}

fn missing(cx: &mut Context<'_>, node: &Node, message: &str, help: &str) {
    let problem = cx.at(Code::Missing, message, node, "").help(help);
    cx.report(problem);
}
