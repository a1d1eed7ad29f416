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

use toka_core::{AgentName, Capability};

use super::webhook::Webhook;

/// Longest name of a topic, in bytes.
const LONGEST_TOPIC: usize = 200;

/// A place that reports go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Channel {
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
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
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
    pub(crate) fn demands(&self) -> Option<Capability> {
        match self {
            Self::Webhook(hook) => Some(Capability::Webhook(hook.authority())),
            _ => None,
        }
    }

    /// Whether anything is sent.
    pub(crate) fn is_sent_to(&self) -> bool {
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

/// What can be shown of a channel as it is written, whatever is wrong with it.
pub(crate) fn shown(text: &str) -> String {
    Channel::parse(text).map_or_else(|_| "webhook".to_owned(), |channel| channel.to_string())
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
            assert!(!shown(text).contains("hunter2"), "{text}");
        }
    }
}
