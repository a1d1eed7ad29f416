//! The keys by which one leaves an agent's terminal, in the syntax of `docker attach --detach-keys`: found among what is typed
//! without losing or inventing anything.

use std::str::FromStr;

/// A sequence of keys, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DetachKeys {
    bytes: Vec<u8>,
    text: String,
}

impl Default for DetachKeys {
    fn default() -> Self {
        Self {
            bytes: vec![ctrl('p').unwrap_or(0x10), ctrl('q').unwrap_or(0x11)],
            text: "ctrl-p,ctrl-q".into(),
        }
    }
}

impl FromStr for DetachKeys {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes: Result<Vec<u8>, String> = split(text).into_iter().map(key).collect();
        Ok(Self { bytes: bytes?, text: text.to_owned() })
    }
}

impl std::fmt::Display for DetachKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// At the commas, but for the one in `ctrl-,`.
fn split(text: &str) -> Vec<&str> {
    let (mut keys, mut rest) = (Vec::new(), text);
    loop {
        let own = if rest.starts_with("ctrl-,") { "ctrl-,".len() } else { 0 };
        match rest[own..].find(',') {
            Some(comma) => {
                keys.push(&rest[..own + comma]);
                rest = &rest[own + comma + 1..];
            }
            None => {
                keys.push(rest);
                return keys;
            }
        }
    }
}

fn key(text: &str) -> Result<u8, String> {
    let mut characters = text.strip_prefix("ctrl-").unwrap_or(text).chars();
    let code = match (characters.next(), characters.next()) {
        (Some(one), None) if text.starts_with("ctrl-") => ctrl(one),
        (Some(one), None) if one.is_ascii_graphic() => u8::try_from(one).ok(),
        _ => None,
    };
    code.ok_or_else(|| {
        format!("{text:?} is no key: write one character, or `ctrl-` and one of a-z @ [ \\ ] ^ _, with commas between keys")
    })
}

/// The code that a terminal sends for a key with Ctrl. Docker's `ctrl-,` is of no terminal, and sends the comma's low bits.
fn ctrl(key: char) -> Option<u8> {
    match key {
        'a'..='z' | '@' | '[' | '\\' | ']' | '^' | '_' | ',' => u8::try_from(key).ok().map(|key| key & 0x1f),
        _ => None,
    }
}

/// Looks for the keys in what is typed.
#[derive(Debug)]
pub(crate) struct Scanner {
    keys: Vec<u8>,
    /// How many of them were typed last, and are held back.
    matched: usize,
}

/// What became of what was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scanned {
    /// This is for the agent.
    Pass(Vec<u8>),
    /// This is for the agent, and then the keys were typed.
    Detach(Vec<u8>),
}

impl Scanner {
    pub(crate) fn new(keys: &DetachKeys) -> Self {
        Self { keys: keys.bytes.clone(), matched: 0 }
    }

    /// Takes what was typed. What may be the beginning of the keys is held back.
    pub(crate) fn scan(&mut self, typed: &[u8]) -> Scanned {
        let mut pass = Vec::with_capacity(typed.len() + self.matched);
        for byte in typed {
            self.take(*byte, &mut pass);
            if self.matched == self.keys.len() {
                self.matched = 0;
                return Scanned::Detach(pass);
            }
        }
        Scanned::Pass(pass)
    }

    /// What is held back, when nothing more is typed.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        self.keys[..std::mem::take(&mut self.matched)].to_vec()
    }

    /// As in the search of Knuth, Morris and Pratt; sequences are so short that the next beginning is looked for.
    fn take(&mut self, byte: u8, pass: &mut Vec<u8>) {
        let mut held = self.keys[..self.matched].to_vec();
        held.push(byte);
        let begins = |from: &usize| self.keys.starts_with(&held[*from..]);
        let from = (0..held.len()).find(begins).unwrap_or(held.len());
        pass.extend_from_slice(&held[..from]);
        self.matched = held.len() - from;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys(text: &str) -> DetachKeys {
        text.parse().expect("keys")
    }

    #[test]
    fn keys_are_written_as_docker_wants_them() {
        for (text, expected) in [
            ("ctrl-p,ctrl-q", &[16, 17][..]),
            ("ctrl-a,d", &[1, b'd']),
            ("ctrl-@", &[0]),
            ("ctrl-[,ctrl-],ctrl-^,ctrl-_,ctrl-\\", &[27, 29, 30, 31, 28]),
            ("ctrl-,,x", &[12, b'x']),
            ("~,.", b"~."),
        ] {
            assert_eq!(keys(text).bytes, expected, "{text}");
        }
        assert_eq!(keys(&DetachKeys::default().to_string()), DetachKeys::default());
        for bad in ["", ",", "ctrl-", "ctrl-P", "ctrl-é", "ab", "a,,b", "ctrl-p,", " "] {
            assert!(bad.parse::<DetachKeys>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_beginning_that_is_none_passes() {
        let mut scanner = Scanner::new(&keys("a,a,b"));
        assert_eq!(scanner.scan(b"xaa"), Scanned::Pass(b"x".to_vec()));
        assert_eq!(scanner.scan(b"a"), Scanned::Pass(b"a".to_vec()), "the last two may still begin it");
        assert_eq!(scanner.scan(b"b!"), Scanned::Detach(Vec::new()));
    }

    proptest! {
        #[test]
        fn no_byte_is_lost_or_invented(
            keys in proptest::collection::vec(b'a'..=b'c', 1..5),
            typed in proptest::collection::vec(proptest::collection::vec(b'a'..=b'd', 0..12), 0..12),
        ) {
            let mut scanner = Scanner::new(&DetachKeys { bytes: keys.clone(), text: String::new() });
            let all = typed.concat();
            let (mut passed, mut detached) = (Vec::new(), false);
            for piece in &typed {
                match scanner.scan(piece) {
                    Scanned::Pass(bytes) => passed.extend(bytes),
                    Scanned::Detach(bytes) => {
                        passed.extend(bytes);
                        detached = true;
                        break;
                    }
                }
            }
            let first = all.windows(keys.len()).position(|window| window == keys);
            prop_assert_eq!(detached, first.is_some());
            match first {
                // All before the first time that they were typed, and nothing of them.
                Some(at) => prop_assert_eq!(&passed, &all[..at]),
                None => {
                    passed.extend(scanner.rest());
                    prop_assert_eq!(&passed, &all);
                }
            }
        }
    }
}
