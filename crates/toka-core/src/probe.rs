//! Probes, with the fields of Kubernetes
//! (<https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/>).

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Which of an agent's probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeKind {
    /// Whether it has come up.
    Startup,
    /// Whether it can be used.
    Readiness,
    /// Whether it still works.
    Liveness,
}

impl fmt::Display for ProbeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Startup => "startup",
            Self::Readiness => "readiness",
            Self::Liveness => "liveness",
        })
    }
}

/// The three probes of an agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Probes {
    /// Holds the other two back until it succeeds; its failure ends the agent.
    pub startup: Option<Probe>,
    /// Says whether dependents may use the agent.
    pub readiness: Option<Probe>,
    /// Its failure ends the agent.
    pub liveness: Option<Probe>,
}

impl Probes {
    /// Whether there is any.
    pub fn any(&self) -> bool {
        self.each().next().is_some()
    }

    /// Those that there are.
    pub fn each(&self) -> impl Iterator<Item = (ProbeKind, &Probe)> {
        let kinds = [
            (ProbeKind::Startup, &self.startup),
            (ProbeKind::Readiness, &self.readiness),
            (ProbeKind::Liveness, &self.liveness),
        ];
        kinds.into_iter().filter_map(|(kind, probe)| Some((kind, probe.as_ref()?)))
    }

    /// The descriptor on which the agent tells that it is ready.
    pub fn notification_fd(&self) -> Option<u16> {
        self.each().find_map(|(_, probe)| match probe.check {
            ProbeCheck::NotificationFd(number) => Some(number),
            _ => None,
        })
    }

    /// The texts that they wait for in the agent's output.
    pub fn awaited_lines(&self) -> impl Iterator<Item = &str> {
        self.each().filter_map(|(_, probe)| match &probe.check {
            ProbeCheck::LogLine(text) => Some(text.as_str()),
            _ => None,
        })
    }
}

/// One probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Probe {
    /// What is asked.
    pub check: ProbeCheck,
    /// Wait before the first time.
    pub initial_delay: Duration,
    /// Time from one to the next.
    pub period: Duration,
    /// An answer that takes longer is a failure.
    pub timeout: Duration,
    /// Successes in a row that make it succeed, at least one.
    pub success_threshold: u32,
    /// Failures in a row that make it fail, at least one.
    pub failure_threshold: u32,
}

/// What a probe asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeCheck {
    /// Waits for the agent's own `READY=1` (sd_notify(3)): a probe with no check of its own.
    Notify,
    /// Waits for a line of the agent's output that contains the text.
    LogLine(String),
    /// Waits for a newline on this descriptor of the agent, as s6 does (<https://skarnet.org/software/s6/notifywhenup.html>).
    NotificationFd(u16),
    /// Runs a command in the agent's sandbox; exit status 0 is success.
    Exec(Vec<String>),
    /// A GET request; a status from 200 to 399 is success.
    HttpGet(HttpGet),
    /// A TCP connection that is accepted is success.
    TcpSocket(TcpSocket),
}

impl ProbeCheck {
    /// Whether it waits for what the agent does by itself, once, and asks nothing.
    pub fn is_sign(&self) -> bool {
        matches!(self, Self::Notify | Self::LogLine(_) | Self::NotificationFd(_))
    }
}

/// `http_get` of a probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HttpGet {
    /// `127.0.0.1` when absent.
    pub host: String,
    /// Port, from 1.
    pub port: u16,
    /// Path with its leading slash.
    pub path: String,
    /// `http` when absent.
    pub scheme: HttpScheme,
    /// Request headers.
    pub headers: BTreeMap<String, String>,
}

/// The scheme of an HTTP probe.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HttpScheme {
    /// Plain.
    #[default]
    Http,
    /// TLS, whose certificate is not verified, as in Kubernetes.
    Https,
}

/// `tcp_socket` of a probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TcpSocket {
    /// `127.0.0.1` when absent.
    pub host: String,
    /// Port, from 1.
    pub port: u16,
}
