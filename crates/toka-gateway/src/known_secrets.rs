//! Secrets that Toka knows, looked for in what agents send: to models, and to hosts where it is not encrypted. Whatever is found is told, by
//! its name alone.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use memchr::memmem;
use toka_core::AgentName;

/// A shorter secret would be found where it is none.
const LEAST: usize = 8;
/// Of a longer secret, its first bytes are looked for.
const MOST: usize = 8 * 1024;

/// A text that is looked for.
struct Wanted {
    /// Its name, as people read it.
    name: Arc<str>,
    finder: memmem::Finder<'static>,
}

impl Wanted {
    /// The value as it stands, and as it stands in JSON.
    fn of(name: &str, value: &[u8]) -> Vec<Self> {
        let value = value.trim_ascii();
        if value.len() < LEAST {
            return Vec::new();
        }
        // Not within a character.
        let cut = (0..=value.len().min(MOST))
            .rev()
            .find(|at| value.get(*at).is_none_or(|byte| byte & 0xc0 != 0x80));
        let value = &value[..cut.unwrap_or(0)];
        let name: Arc<str> = Arc::from(name);
        let wanted =
            |bytes: &[u8]| Self { name: Arc::clone(&name), finder: memmem::Finder::new(bytes).into_owned() };
        let written = String::from_utf8_lossy(value);
        let in_json = serde_json::Value::from(written.as_ref()).to_string();
        let in_json = &in_json.as_bytes()[1..in_json.len() - 1];
        let mut all = vec![wanted(value)];
        all.extend((in_json != value).then(|| wanted(in_json)));
        all
    }
}

/// The secrets of a run: those that its agents were given.
#[derive(Default)]
pub struct KnownSecrets(Mutex<BTreeMap<AgentName, Arc<[Wanted]>>>);

impl fmt::Debug for KnownSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KnownSecrets(..)")
    }
}

impl KnownSecrets {
    /// Takes note of what an agent was given, by name and value, in the place of what it was given before.
    pub fn set(&self, agent: &AgentName, secrets: &[(String, Vec<u8>)]) {
        let all: Vec<Wanted> = secrets
            .iter()
            .flat_map(|(name, value)| Wanted::of(&format!("the secret {name} of {agent}"), value))
            .collect();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.is_empty() {
            true => drop(known.remove(agent)),
            false => drop(known.insert(agent.clone(), all.into())),
        }
    }

    /// A line of a text in which each of them is three stars: also the lines of those that have several.
    pub fn masked_line(&self, line: String, keys: &[(String, &str)]) -> String {
        let line = self.masked(line, keys);
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bare = line.trim();
        let is_one = |wanted: &Wanted| {
            let mut lines = wanted.finder.needle().split(|byte| *byte == b'\n');
            lines.clone().count() > 1 && lines.any(|part| part.trim_ascii() == bare.as_bytes())
        };
        match bare.len() >= LEAST && known.values().flat_map(|list| list.iter()).any(is_one) {
            true => "***".to_owned(),
            false => line,
        }
    }

    /// A text in which each of them, and each of these keys, is three stars.
    pub fn masked(&self, text: String, keys: &[(String, &str)]) -> String {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let keys: Vec<Wanted> =
            keys.iter().flat_map(|(provider, key)| Wanted::of(provider, key.as_bytes())).collect();
        let all = known.values().flat_map(|list| list.iter()).chain(&keys);
        all.fold(text, |text, wanted| match wanted.finder.find(text.as_bytes()) {
            Some(_) => text.replace(&*String::from_utf8_lossy(wanted.finder.needle()), "***"),
            None => text,
        })
    }

    /// The next piece of a text that comes piece by piece, masked. What may be the begin of a secret stays in `held`, for the next piece shows what it is.
    pub fn masked_piece(&self, held: &mut String, piece: &str, keys: &[(String, &str)]) -> String {
        held.push_str(piece);
        let mut text = self.masked(std::mem::take(held), keys);
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let keys: Vec<Wanted> =
            keys.iter().flat_map(|(provider, key)| Wanted::of(provider, key.as_bytes())).collect();
        let all = known.values().flat_map(|list| list.iter()).chain(&keys);
        let longest = all.map(|wanted| begun(text.as_bytes(), wanted.finder.needle())).max().unwrap_or(0);
        *held = text.split_off(text.floor_char_boundary(text.len() - longest));
        text
    }

    /// Those that this agent must not send: to a model its own ones neither; to a host those of others, for its own are there for that.
    pub(crate) fn of_others(&self, agent: &AgentName, receiver: Receiver, keys: &[(String, &str)]) -> Search {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_wanted = |of: &AgentName| receiver == Receiver::Model || of != agent;
        let mut lists: Vec<Arc<[Wanted]>> =
            known.iter().filter(|(of, _)| is_wanted(of)).map(|(_, list)| Arc::clone(list)).collect();
        let keys: Vec<Wanted> = keys
            .iter()
            .flat_map(|(provider, key)| Wanted::of(&format!("the key of {provider}"), key.as_bytes()))
            .collect();
        if !keys.is_empty() {
            lists.push(keys.into());
        }
        // What is its own, too, is its own.
        let own = known.get(agent).filter(|_| receiver == Receiver::Host).cloned();
        Search { lists, own, tail: Vec::new() }
    }
}

/// How many bytes at the end of a text are the begin of `needle`.
fn begun(text: &[u8], needle: &[u8]) -> usize {
    let longest = text.len().min(needle.len().saturating_sub(1));
    let end = &text[text.len() - longest..];
    let starts = needle.first().map(|first| memchr::memchr_iter(*first, end));
    let found = starts.into_iter().flatten().find(|at| needle.starts_with(&end[*at..]));
    found.map_or(0, |at| longest - at)
}

/// Who gets what an agent sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Receiver {
    Model,
    Host,
}

/// A search in what is sent piece by piece.
pub(crate) struct Search {
    lists: Vec<Arc<[Wanted]>>,
    /// What the agent may send.
    own: Option<Arc<[Wanted]>>,
    /// The end of what was sent: a secret may be cut between two pieces.
    tail: Vec<u8>,
}

impl fmt::Debug for Search {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Search(..)")
    }
}

impl Search {
    /// The names of those that are in a text which is whole.
    pub(crate) fn whole(&self, bytes: &[u8]) -> Vec<Arc<str>> {
        let mut names: Vec<Arc<str>> = self
            .lists
            .iter()
            .flat_map(|list| list.iter())
            .filter(|wanted| wanted.finder.find(bytes).is_some() && !self.is_own(wanted.finder.needle()))
            .map(|wanted| Arc::clone(&wanted.name))
            .collect();
        names.dedup();
        names
    }

    fn is_own(&self, needle: &[u8]) -> bool {
        self.own.iter().flat_map(|list| list.iter()).any(|own| own.finder.needle() == needle)
    }

    /// The names of those that end in the next piece.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Vec<Arc<str>> {
        let longest =
            self.lists.iter().flat_map(|list| list.iter()).map(|wanted| wanted.finder.needle().len()).max();
        let Some(longest) = longest else { return Vec::new() };
        let mut names = match self.tail.is_empty() {
            true => Vec::new(),
            // What lies across the border.
            false => {
                let first = &bytes[..bytes.len().min(longest)];
                self.whole(&[self.tail.as_slice(), first].concat())
            }
        };
        names.extend(self.whole(bytes));
        names.dedup();
        let keep = longest - 1;
        match bytes.len() >= keep {
            true => self.tail = bytes[bytes.len() - keep..].to_vec(),
            false => {
                self.tail.extend_from_slice(bytes);
                self.tail.drain(..self.tail.len().saturating_sub(keep));
            }
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use toka_core::Name;

    use super::*;

    fn name(text: &str) -> AgentName {
        Name::new(text).expect("a label")
    }

    fn known() -> KnownSecrets {
        let known = KnownSecrets::default();
        known.set(
            &name("a"),
            &[("token".into(), b"hunter2-hunter2\n".to_vec()), ("short".into(), b"abc".to_vec())],
        );
        known.set(&name("b"), &[("pem".into(), b"line one\nline \"two\"".to_vec())]);
        known
    }

    #[test]
    fn a_secret_is_found_where_it_is_not_to_be() {
        let known = known();
        let of = |agent, receiver| known.of_others(&name(agent), receiver, &[("lab".into(), "sk-real-key")]);
        let found = |search: &Search, text: &str| {
            search.whole(text.as_bytes()).iter().map(|name| name.to_string()).collect::<Vec<_>>()
        };
        let model = of("a", Receiver::Model);
        assert_eq!(found(&model, "x hunter2-hunter2 y"), ["the secret token of a"]);
        assert_eq!(found(&model, r#"{"text":"line one\nline \"two\""}"#), ["the secret pem of b"]);
        assert_eq!(found(&model, "abc sk-real-key"), ["the key of lab"]);
        let host = of("a", Receiver::Host);
        assert_eq!(found(&host, "hunter2-hunter2"), Vec::<String>::new(), "its own, for that host");
        known.set(&name("b"), &[("same".into(), b"hunter2-hunter2".to_vec())]);
        let host = of("a", Receiver::Host);
        assert_eq!(found(&host, "hunter2-hunter2"), Vec::<String>::new(), "another has the same");
        assert!(!format!("{known:?}{host:?}").contains("hunter"));
    }

    proptest! {
        #[test]
        fn it_is_found_wherever_it_is_cut(before in 0usize..40, cut in 0usize..60, other in 0usize..60) {
            let text = [vec![b'x'; before], b"hunter2-hunter2".to_vec(), vec![b'y'; 20]].concat();
            let (one, two) = (cut.min(other).min(text.len()), cut.max(other).min(text.len()));
            let mut search = known().of_others(&name("c"), Receiver::Host, &[]);
            let mut found = Vec::new();
            for piece in [&text[..one], &text[one..two], &text[two..]] {
                found.extend(search.feed(piece));
            }
            prop_assert!(!found.is_empty());
        }
    }
}
