//! `security`: the walls. Every value keeps the place that it was declared at, for it becomes a rule of the
//! kernel.

use std::collections::BTreeSet;

use toka_core::{
    ByteSize, Capability, Compatibility, Confinement, Declared, HostRule, Limits, NetworkAccess, SandboxMode,
};

use super::context::Context;
use super::keys::{FILESYSTEM, LIMITS, NETWORK, SECURITY};
use super::process::declared_paths;
use super::quantities::{bandwidth, duration, integer, share, size};
use super::section::Section;
use super::texts::{choice, texts_with_nodes, truth};
use crate::diagnostic::{Code, Diagnostic};
use crate::read::{Node, ScalarKind, Value, shorten};

const COMPATIBILITIES: &[(&str, Compatibility)] = &[
    ("default", Compatibility::Default),
    ("strict", Compatibility::Strict),
    ("best-effort", Compatibility::BestEffort),
];

/// A longer label is no slip of the pen in a known name.
const LONGEST_SLIP: usize = 64;

/// Less than this, and no program starts.
const LEAST_MEMORY: ByteSize = ByteSize::mib(1);

pub(crate) fn security(cx: &mut Context<'_>, node: &Node) -> Confinement {
    let mut out = Confinement::default();
    let Some(section) = Section::read(cx, node, &SECURITY) else { return out };
    if let Some(node) = section.get("sandbox")
        && let Some(on) = truth(cx, node)
    {
        let mode = if on { SandboxMode::On } else { SandboxMode::Off };
        out.sandbox = Declared::new(mode, cx.origin(node));
    }
    if let Some(node) = section.get("capabilities_required") {
        let mut seen = BTreeSet::new();
        out.capabilities = capabilities(cx, node);
        out.capabilities.retain(|declared| seen.insert(declared.value.clone()));
    }
    if let Some(node) = section.get("filesystem")
        && let Some(files) = Section::read(cx, node, &FILESYSTEM)
    {
        let mut take = |key| files.get(key).map(|node| globs(cx, node)).unwrap_or_default();
        (out.read, out.write, out.execute) = (take("read"), take("write"), take("execute"));
        out.asks_paths = files.get("ask").and_then(|node| truth(cx, node)?.then(|| cx.origin(node)));
    }
    move_out(&mut out);
    if let Some(node) = section.get("network")
        && let Some((access, asks)) = network(cx, node)
    {
        out.network = Declared::new(access, cx.origin(node));
        out.asks_hosts = asks;
    }
    if let Some(node) = section.get("resource_limits") {
        out.limits = limits(cx, node);
    }
    if let Some(rate) = &out.limits.network_bandwidth
        && !matches!(out.network.value, NetworkAccess::None | NetworkAccess::Allow(_))
        && let Some(Value::Map(limits)) = section.get("resource_limits").map(|node| &node.value)
        && let Some(entry) = limits.iter().find(|entry| entry.key.text == "max_network_bandwidth")
    {
        let message = format!(
            "`max_network_bandwidth` ({}/s) is not enforced on `network: {}`",
            rate.value, out.network.value
        );
        let problem = cx
            .at(Code::NoEffect, message, &entry.value, "")
            .help("an agent without a network, or with a list of hosts, keeps to it");
        cx.report(problem);
    }
    out.budget = section.get("budget").and_then(|node| super::budget::budget(cx, node));
    if let Some(node) = section.get("compatibility")
        && let Some(value) = choice(cx, node, COMPATIBILITIES)
    {
        out.compatibility = Declared::new(value, cx.origin(node));
    }
    out
}

/// `filesystem-read:/etc/ssl` opens what `filesystem: {read: [/etc/ssl]}` opens: a capability itself ends at the workspace.
fn move_out(out: &mut Confinement) {
    let (read, write) = (&mut out.read, &mut out.write);
    out.capabilities.retain(|declared| {
        let (path, list) = match &declared.value {
            Capability::FilesystemRead(Some(path)) => (path, &mut *read),
            Capability::FilesystemWrite(Some(path)) => (path, &mut *write),
            _ => return true,
        };
        let leaves = leaves(path);
        if leaves {
            list.push(Declared::new(path.clone(), declared.origin.clone()));
        }
        !leaves
    });
}

/// Whether a path says by itself that it is not below where it begins. Links are seen later.
fn leaves(path: &str) -> bool {
    let mut depth = 0;
    path.starts_with(['/', '~'])
        || path.split('/').any(|part| {
            depth += match part {
                "" | "." => 0,
                ".." => -1,
                _ => 1,
            };
            depth < 0
        })
}

/// Paths that may be patterns. What lies outside of the workspace is for the policy to decide, not for the reader.
fn globs(cx: &mut Context<'_>, node: &Node) -> Vec<Declared<String>> {
    let paths = declared_paths(cx, node);
    for path in &paths {
        if let Err(error) = glob::Pattern::new(&path.value) {
            let message = format!("`{}` is not a pattern: {}", shorten(&path.value), error.msg);
            cx.bad_value(node, message);
        }
    }
    paths
}

fn capabilities(cx: &mut Context<'_>, node: &Node) -> Vec<Declared<Capability>> {
    let mut out = Vec::new();
    for (text, node) in texts_with_nodes(cx, node) {
        if text.trim().is_empty() {
            cx.bad_value(node, "a capability has a name");
            continue;
        }
        let capability = Capability::parse(&text.replacen(": ", ":", 1));
        if let Capability::Label(label) = &capability {
            cx.report_lazily(Code::UnknownCapability, |cx| unknown_capability(cx, label, &capability, node));
        }
        if let Some(declaration) = capability.declared_as() {
            cx.report_lazily(Code::NoEffect, |cx| opens_nothing(cx, &capability, &declaration, node));
        }
        out.push(Declared::new(capability, cx.origin(node)));
    }
    out
}

fn unknown_capability(cx: &Context<'_>, label: &str, capability: &Capability, node: &Node) -> Diagnostic {
    let message = format!("`{}` is not a capability that Toka knows; it grants nothing", shorten(label));
    let problem = cx.at(Code::UnknownCapability, message, node, "a label");
    match capability.suggestion().filter(|_| label.len() <= LONGEST_SLIP) {
        Some(near) => problem.help(format!("did you mean `{near}`?")),
        None => problem.help("`toka explain capabilities` lists those that open something"),
    }
}

/// Of a capability that a person grants, and that is declared at another place.
fn opens_nothing(cx: &Context<'_>, capability: &Capability, declaration: &str, node: &Node) -> Diagnostic {
    let message = format!("requiring `{}` opens nothing", shorten(&capability.to_string()));
    cx.at(Code::NoEffect, message, node, "").help(format!("declare `{}`", shorten(declaration)))
}

/// What it reaches, and whether a person is asked about other hosts.
fn network(cx: &mut Context<'_>, node: &Node) -> Option<(NetworkAccess, bool)> {
    match &node.value {
        Value::Map(_) => {
            let section = Section::read(cx, node, &NETWORK)?;
            let asks = section.get("ask").and_then(|node| truth(cx, node)).unwrap_or(false);
            let Some(list) = section.get("allow") else {
                if asks {
                    return Some((NetworkAccess::Allow(Vec::new()), asks));
                }
                let problem = cx.at(Code::Missing, "`network` has no `allow`", node, "");
                cx.report(problem.help("write `{allow: [\"host:443\"]}`, or `none`"));
                return None;
            };
            let hosts = texts_with_nodes(cx, list);
            let good = hosts.iter().filter(|(host, node)| host_and_port(cx, host, node)).count();
            let all = || NetworkAccess::Allow(hosts.iter().map(|(host, _)| host.clone()).collect());
            (good == hosts.len()).then(|| (all(), asks))
        }
        Value::Scalar(scalar) if scalar.kind == ScalarKind::Bool(false) => Some((NetworkAccess::None, false)),
        Value::Scalar(_) => {
            let word = choice(cx, node, &[("none", 0), ("loopback", 1), ("project", 2), ("full", 3)])?;
            let access = match word {
                0 => NetworkAccess::None,
                1 => NetworkAccess::Loopback,
                2 => NetworkAccess::Project,
                _ => NetworkAccess::Full,
            };
            Some((access, false))
        }
        Value::List(_) => {
            let problem = cx
                .at(Code::WrongType, "a list of hosts stands below `allow`", node, "")
                .help("write `network: {allow: [\"host:443\"]}`");
            cx.report(problem);
            None
        }
    }
}

/// `host:port`; a host may begin with `*.` for every name below it, an IPv6 address is in brackets.
fn host_and_port(cx: &mut Context<'_>, text: &str, node: &Node) -> bool {
    let good = text.parse::<HostRule>();
    if let Err(help) = &good {
        let message = format!("expected `host:port`, found `{}`", shorten(text));
        let problem = cx.at(Code::BadValue, message, node, "").help(help.to_string());
        cx.report(problem);
    }
    if text.to_ascii_lowercase().starts_with("localhost:") {
        let problem = cx
            .at(Code::NoEffect, "a name never leads to this host itself", node, "")
            .help(format!("write the address: `127.0.0.1:{}`", text.rsplit(':').next().unwrap_or_default()));
        cx.report(problem);
    }
    good.is_ok()
}

fn limits(cx: &mut Context<'_>, node: &Node) -> Limits {
    let mut out = Limits::default();
    let Some(section) = Section::read(cx, node, &LIMITS) else { return out };
    if let Some(value) = section.get("max_memory").and_then(|node| size(cx, node, LEAST_MEMORY)) {
        out.memory = value;
    }
    if let Some(value) = section.get("max_cpu").and_then(|node| share(cx, node)) {
        out.cpu = value;
    }
    if let Some(node) = section.get("max_processes")
        && let Some(value) = integer(cx, node, 1..=4_194_304)
    {
        out.processes = Declared::new(value, cx.origin(node));
    }
    if let Some(node) = section.get("max_open_files")
        && let Some(value) = integer(cx, node, 8..=1_048_576)
    {
        out.open_files = Declared::new(value, cx.origin(node));
    }
    if let Some(node) = section.get("timeout")
        && let Some(value) = duration(cx, node)
    {
        out.timeout = Some(Declared::new(value, cx.origin(node)));
    }
    out.disk = section.get("max_disk_usage").and_then(|node| size(cx, node, ByteSize(1)));
    out.network_bandwidth = section.get("max_network_bandwidth").and_then(|node| bandwidth(cx, node));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_says_by_itself_that_it_leaves() {
        for path in ["/", "/etc/ssl", "~", "~/x", "..", "a/../..", "./../b"] {
            assert!(leaves(path), "{path}");
        }
        for path in ["", ".", "a", "a/..", "a/../b", "a/b/../..", "..a"] {
            assert!(!leaves(path), "{path}");
        }
    }
}
