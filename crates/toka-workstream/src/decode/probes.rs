//! `spec.startup_probe`, `spec.readiness_probe`, `spec.liveness_probe`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::context::Context;
use super::keys::{HTTP_GET, PROBE, PROBE_EXEC, TCP_SOCKET};
use super::quantities::{delay, duration, integer};
use super::section::{Section, pairs};
use super::texts::{argument, argv, choice, filled};
use crate::diagnostic::{Code, Diagnostic};
use crate::model::{HttpGet, HttpScheme, Probe, ProbeCheck, Probes, TcpSocket};
use crate::read::{Entry, Node, Value};

pub(crate) fn probes(cx: &mut Context<'_>, spec: &Section<'_>) -> Probes {
    let mut take = |key| {
        let entry = spec.entry(key)?;
        let probe = probe(cx, &entry.value)?;
        if key == "liveness_probe" && probe.check == ProbeCheck::Notify {
            cx.report(asks_nothing(cx, entry));
        }
        Some(probe)
    };
    Probes {
        startup: take("startup_probe"),
        readiness: take("readiness_probe"),
        liveness: take("liveness_probe"),
    }
}

fn asks_nothing(cx: &Context<'_>, entry: &Entry) -> Diagnostic {
    Diagnostic::new(Code::Missing, "the liveness probe asks nothing")
        .at(cx.file, entry.key.span.clone(), "no `exec`, `http_get` or `tcp_socket`")
        .help("for an agent that reports by itself that it is alive, use `watchdog: 30s`")
}

fn probe(cx: &mut Context<'_>, node: &Node) -> Option<Probe> {
    let section = Section::read(cx, node, &PROBE)?;
    for (one, other) in [("exec", "http_get"), ("exec", "tcp_socket"), ("http_get", "tcp_socket")] {
        section.exclude(cx, one, other);
    }
    let check = if let Some(node) = section.get("exec") {
        exec(cx, node).map(ProbeCheck::Exec)
    } else if let Some(node) = section.get("http_get") {
        http_get(cx, node).map(ProbeCheck::HttpGet)
    } else if let Some(node) = section.get("tcp_socket") {
        tcp_socket(cx, node).map(ProbeCheck::TcpSocket)
    } else {
        Some(ProbeCheck::Notify)
    };
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
    if path.starts_with('/') && !path.contains(char::is_control) {
        return Some(path);
    }
    cx.bad_value(node, "the path of a request begins with `/` and has no control characters");
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
            Some(value) if !name.is_empty() && name.chars().all(token) && !value.contains(['\r', '\n']) => {
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
