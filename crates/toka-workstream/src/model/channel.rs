//! Where reports go.
//!
//! ```text
//! terminal, journal             what happens is there anyway: nothing is sent
//! file, file: NAME              lines of JSON in Toka's own folder of the agent
//! topic: NAME                   an event of the journal
//! webhook: URL, http(s)://…     a POST request; a person must have granted `webhook:HOST`
//! ```
//!
//! Everything else is a name that people have for something, and nothing is sent there.

use std::fmt;
use std::sync::Arc;

use http::Uri;
use serde::{Serialize, Serializer};
use toka_core::{AgentName, Capability};

/// Longest name of a topic, in bytes.
const LONGEST_TOPIC: usize = 200;

/// A place that reports go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Channel {
    /// It is there anyway.
    Present(String),
    /// A file of this name.
    File(Option<AgentName>),
    /// An event of the journal.
    Topic(Arc<str>),
    /// A web server.
    Webhook(Arc<Webhook>),
    /// Nobody knows.
    Label(String),
}

impl Channel {
    /// What a text stands for.
    ///
    /// # Errors
    /// When it says what kind of place it is and cannot be one, in words that show no credentials.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if is_web(text) {
            return Webhook::parse(text).map(|hook| Self::Webhook(Arc::new(hook)));
        }
        let (kind, rest) = text.split_once(':').map_or((text, ""), |(kind, rest)| (kind.trim(), rest.trim()));
        match (kind.to_ascii_lowercase().as_str(), rest) {
            ("terminal" | "journal" | "console" | "log", "") => Ok(Self::Present(text.to_owned())),
            ("file", "") => Ok(Self::File(None)),
            ("file", name) => match AgentName::new(name) {
                Ok(name) => Ok(Self::File(Some(name))),
                Err(_) => Err(format!(
                    "reports go to files of Toka's own: {name:?} is no name of one (lower case, digits, hyphens)"
                )),
            },
            ("webhook", url) if is_web(url) => Webhook::parse(url).map(|hook| Self::Webhook(Arc::new(hook))),
            ("webhook", _) => Err("a webhook needs a URL that begins with https:// or http://".to_owned()),
            ("topic" | "event", name) if !name.is_empty() && name.len() <= LONGEST_TOPIC => {
                Ok(Self::Topic(name.into()))
            }
            ("topic", _) => Err(format!("a topic needs a name of at most {LONGEST_TOPIC} bytes")),
            _ => Ok(Self::Label(text.to_owned())),
        }
    }

    /// What a person must have granted for it.
    pub fn demands(&self) -> Option<Capability> {
        match self {
            Self::Webhook(hook) => Some(Capability::Webhook(hook.authority())),
            _ => None,
        }
    }

    /// Whether anything is sent.
    pub fn is_sent_to(&self) -> bool {
        matches!(self, Self::File(_) | Self::Topic(_) | Self::Webhook(_))
    }
}

impl fmt::Display for Channel {
    /// Without what only the receiver should know: of a URL, the host alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Present(text) | Self::Label(text) => f.write_str(text),
            Self::File(None) => f.write_str("file"),
            Self::File(Some(name)) => write!(f, "file: {name}"),
            Self::Topic(name) => write!(f, "topic: {name}"),
            Self::Webhook(hook) => write!(f, "webhook: {hook}"),
        }
    }
}

/// As it could be written, all of it: two channels that differ in a secret are different.
impl Serialize for Channel {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Webhook(hook) => serializer.serialize_str(&format!("webhook: {hook}{}", hook.target)),
            other => serializer.serialize_str(&other.to_string()),
        }
    }
}

/// A web server, and what to ask it for. Of the URL only the host is ever shown: many services keep a secret in the path.
#[derive(Clone, PartialEq, Eq)]
pub struct Webhook {
    /// How it is spoken to.
    pub scheme: Scheme,
    /// The host, in lower case; an IPv6 address in brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Path and query.
    pub target: String,
}

/// How a web server is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// Over TLS.
    Https,
}

impl Webhook {
    /// Reads a URL.
    ///
    /// # Errors
    /// When it is none, or holds a user, in words that do not show it.
    pub fn parse(url: &str) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|_| "the URL of a webhook cannot be read".to_owned())?;
        let scheme = match uri.scheme_str() {
            Some("http") => Scheme::Http,
            Some("https") => Scheme::Https,
            _ => return Err("a webhook needs a URL that begins with https:// or http://".to_owned()),
        };
        let authority = uri.authority().ok_or("the URL of a webhook names no host")?;
        if authority.as_str().contains('@') {
            return Err("the URL of a webhook may hold no user or password".to_owned());
        }
        let host = authority.host().to_ascii_lowercase();
        if host.is_empty() {
            return Err("the URL of a webhook names no host".to_owned());
        }
        let port = match authority.port() {
            None if authority.as_str().len() == host.len() => scheme.port(),
            port => port
                .and_then(|port| port.as_str().parse().ok())
                .ok_or("the port of a webhook cannot be read")?,
        };
        let target = uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
        Ok(Self { scheme, host, port, target })
    }

    /// The host and its port, as grants name them.
    pub fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl Scheme {
    /// The port that goes without saying.
    pub fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    /// As in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

impl fmt::Display for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.authority())
    }
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn is_web(text: &str) -> bool {
    let begins =
        |scheme: &str| text.get(..scheme.len()).is_some_and(|head| head.eq_ignore_ascii_case(scheme));
    begins("http://") || begins("https://")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_stands_for_a_place() {
        for (text, expected) in [
            ("terminal", "terminal"),
            ("file", "file"),
            (" file : nightly ", "file: nightly"),
            ("topic: builds/main", "topic: builds/main"),
            ("event: x", "topic: x"),
            ("webhook: https://hooks.example.org/T0/secret?key=1", "webhook: https://hooks.example.org:443"),
            ("HTTP://127.0.0.1:8080", "webhook: http://127.0.0.1:8080"),
            ("http://[::1]:81/x", "webhook: http://[::1]:81"),
            ("dashboard", "dashboard"),
            ("email: team@example.org", "email: team@example.org"),
        ] {
            assert_eq!(Channel::parse(text).expect(text).to_string(), expected, "{text}");
        }
        let hook = Channel::parse("https://hooks.example.org/x").expect("a URL");
        assert_eq!(
            hook.demands().map(|asked| asked.to_string()).as_deref(),
            Some("webhook:hooks.example.org:443")
        );
        assert_eq!(serde_json::to_value(&hook).expect("text"), "webhook: https://hooks.example.org:443/x");
        assert!(!format!("{hook} {hook:?}").contains("/x"));
        assert!(!Channel::parse("dashboard").expect("a label").is_sent_to());
    }

    #[test]
    fn what_cannot_be_a_place_is_told_without_its_credentials() {
        for text in [
            "file: ../../etc/passwd",
            "file: /etc/passwd",
            "webhook: ftp://host/",
            "webhook:",
            "topic:",
            "https://",
            "https://me:hunter2@host/",
            "webhook: https://hunter2@host/hunter2",
            "http://host:99999/hunter2",
        ] {
            let why = Channel::parse(text).expect_err(text);
            assert!(!why.contains("hunter2"), "{text}: {why}");
        }
    }
}
