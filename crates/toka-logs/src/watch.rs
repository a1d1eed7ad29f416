//! Finds the texts that dependents wait for (`condition: {log_line: …}`) in what an agent has just written.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use super::Stream;

/// Bytes looked at in one step.
const STEP: usize = 64 * 1024;

/// The texts not seen yet, and the end of what was seen of each stream.
#[derive(Debug, Default)]
pub(super) struct Watch {
    texts: Vec<String>,
    kept: [Vec<u8>; 2],
}

impl Watch {
    pub(super) fn new(mut texts: Vec<String>) -> Self {
        texts.retain(|text| !text.is_empty());
        Self { texts, kept: [Vec::new(), Vec::new()] }
    }

    /// The texts that the stretch `from..to` of the log completes; each is found once.
    pub(super) fn scan(&mut self, log: &File, stream: Stream, from: u64, to: u64) -> Vec<String> {
        let mut found = Vec::new();
        let mut at = from;
        let mut chunk = Vec::new();
        while at < to && !self.texts.is_empty() {
            chunk.resize(usize::try_from(to - at).map_or(STEP, |rest| rest.min(STEP)), 0);
            match log.read_at(&mut chunk, at) {
                Ok(count) if count > 0 => {
                    at += count as u64;
                    found.extend(self.feed(stream, &chunk[..count]));
                }
                _ => break,
            }
        }
        found
    }

    fn feed(&mut self, stream: Stream, bytes: &[u8]) -> Vec<String> {
        let kept = &mut self.kept[stream as usize];
        kept.extend_from_slice(bytes);
        let (found, rest): (Vec<_>, Vec<_>) =
            self.texts.drain(..).partition(|text| contains(kept, text.as_bytes()));
        self.texts = rest;
        // A text may be cut by the end of this stretch: its beginning must still be there with the next.
        let longest = self.texts.iter().map(String::len).max().unwrap_or(0);
        kept.drain(..kept.len().saturating_sub(longest.saturating_sub(1)));
        found
    }
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    let Some(first) = text.first() else { return true };
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        if rest[at..].starts_with(text) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_text_is_found_once_and_only_in_one_stream() {
        let mut watch = Watch::new(vec!["listening on".into(), "never".into()]);
        assert!(watch.feed(Stream::Stdout, b"now listen").is_empty());
        assert!(watch.feed(Stream::Stderr, b"ing on 80").is_empty());
        assert_eq!(watch.feed(Stream::Stdout, b"ing on 80"), ["listening on"]);
        assert!(watch.feed(Stream::Stdout, b"listening on").is_empty());
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_the_stretches_are_cut(
            noise in "[ab]{0,40}", text in "[ab]{1,6}", cut in 0usize..40
        ) {
            let cut = cut.min(noise.len());
            let mut watch = Watch::new(vec![text.clone()]);
            let mut found = watch.feed(Stream::Stdout, &noise.as_bytes()[..cut]);
            found.extend(watch.feed(Stream::Stdout, &noise.as_bytes()[cut..]));
            prop_assert_eq!(found.len(), usize::from(noise.contains(&text)));
        }
    }
}
