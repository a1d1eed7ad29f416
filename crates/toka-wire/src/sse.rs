//! Server-sent events: bytes are cut into frames where the standard cuts them (an empty line; lines end with LF, CR LF or CR), and each frame
//! keeps its own bytes, so that what goes on is what came.

use std::ops::Range;

use thiserror::Error;

/// Most bytes of one frame. A larger one is no event of a model: even an image is smaller.
pub const MAX_FRAME: usize = 16 * 1024 * 1024;

/// What makes a stream no stream of events.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SseError {
    /// A frame that does not end.
    #[error("an event of the stream is longer than {} MiB", MAX_FRAME / 1024 / 1024)]
    TooLong,
}

/// Cuts a stream into frames.
#[derive(Debug, Default)]
pub struct Splitter {
    kept: Vec<u8>,
    /// How much of what is kept was looked at.
    seen: usize,
    /// Where the line begins that is looked at.
    line: usize,
    /// A CR was the last byte: a LF that follows belongs to it.
    after_cr: bool,
}

impl Splitter {
    /// Takes more of the stream; `take` gets each frame that is whole now, with the empty line that ends it.
    ///
    /// # Errors
    /// When a frame does not end. What came before it was handed on.
    pub fn feed(&mut self, bytes: &[u8], mut take: impl FnMut(&[u8])) -> Result<(), SseError> {
        self.kept.extend_from_slice(bytes);
        let mut begin = 0;
        while let Some(end) = self.next_end() {
            take(&self.kept[begin..end]);
            begin = end;
        }
        if begin > 0 {
            self.kept.drain(..begin);
            self.seen -= begin;
            self.line -= begin;
        }
        if self.kept.len() > MAX_FRAME { Err(SseError::TooLong) } else { Ok(()) }
    }

    /// What came after the last frame: of a stream that ended in the middle of one.
    pub fn rest(&self) -> &[u8] {
        &self.kept
    }

    /// The end of the next frame.
    fn next_end(&mut self) -> Option<usize> {
        loop {
            if self.after_cr {
                // Whether a LF follows decides where the frame ends, and nothing waits for that: it may be the last byte for long.
                match self.kept.get(self.seen) {
                    Some(b'\n') => {
                        self.seen += 1;
                        self.line = self.seen;
                        self.after_cr = false;
                    }
                    Some(_) => self.after_cr = false,
                    None => return None,
                }
            }
            let Some(found) = memchr::memchr2(b'\n', b'\r', &self.kept[self.seen..]) else {
                self.seen = self.kept.len();
                return None;
            };
            let at = self.seen + found;
            let is_empty = at == self.line;
            self.after_cr = self.kept[at] == b'\r';
            self.seen = at + 1;
            if self.after_cr && self.kept.get(self.seen) == Some(&b'\n') {
                self.seen += 1;
                self.after_cr = false;
            }
            self.line = self.seen;
            if is_empty {
                return Some(self.seen);
            }
        }
    }
}

/// One event, as the standard reads it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// Its name; empty when it has none.
    pub name: String,
    /// Its data: the lines of it, with LF between them. `None` for a frame that has only comments or nothing.
    pub data: Option<String>,
}

impl Event {
    /// Reads a frame. What is not UTF-8 is replaced, as the standard says.
    pub fn read(frame: &[u8]) -> Self {
        let frame = frame.strip_prefix(b"\xef\xbb\xbf").unwrap_or(frame);
        let text = String::from_utf8_lossy(frame);
        let mut event = Self::default();
        for line in lines(&text) {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => event.name = value.to_owned(),
                "data" => match &mut event.data {
                    Some(data) => {
                        data.push('\n');
                        data.push_str(value);
                    }
                    None => event.data = Some(value.to_owned()),
                },
                _ => {}
            }
        }
        event
    }
}

/// The lines of a text that ends them with LF, CR LF or CR.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        if at >= bytes.len() {
            return None;
        }
        let end = memchr::memchr2(b'\n', b'\r', &bytes[at..]).map_or(bytes.len(), |found| at + found);
        let line: Range<usize> = at..end;
        at = match bytes.get(end..) {
            Some([b'\r', b'\n', ..]) => end + 2,
            _ => end + 1,
        };
        Some(&text[line])
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames(stream: &[u8], pieces: &[usize]) -> (Vec<Vec<u8>>, Vec<u8>) {
        let mut splitter = Splitter::default();
        let mut found = Vec::new();
        let mut rest = stream;
        for piece in pieces.iter().chain(std::iter::once(&usize::MAX)) {
            let (now, later) = rest.split_at((*piece).min(rest.len()));
            splitter.feed(now, |frame| found.push(frame.to_vec())).expect("short frames");
            rest = later;
        }
        (found, splitter.rest().to_vec())
    }

    #[test]
    fn every_end_of_a_line_ends_a_line() {
        for end in ["\n", "\r\n", "\r"] {
            let stream =
                format!("event: a{end}data: 1{end}data: 2{end}{end}: ping{end}{end}data:x{end}{end}");
            for size in 1..=stream.len() {
                let pieces = vec![size; stream.len() / size];
                let (found, rest) = frames(stream.as_bytes(), &pieces);
                let events: Vec<Event> = found.iter().map(|frame| Event::read(frame)).collect();
                assert_eq!(events.len(), 3, "{end:?} in pieces of {size}");
                assert_eq!(events[0], Event { name: "a".into(), data: Some("1\n2".into()) });
                assert_eq!(events[1], Event::default());
                assert_eq!(events[2].data.as_deref(), Some("x"));
                assert!(rest.is_empty() || rest == b"\n", "a LF that came after its CR: {rest:?}");
                assert_eq!([found.concat(), rest].concat(), stream.as_bytes(), "no byte is lost");
            }
        }
    }

    #[test]
    fn a_frame_has_an_end() {
        let mut splitter = Splitter::default();
        let piece = vec![b'x'; 1024 * 1024];
        let fed = (0..20).find_map(|_| splitter.feed(&piece, |_| panic!("no frame")).err());
        assert_eq!(fed, Some(SseError::TooLong));
    }

    proptest! {
        #[test]
        fn where_it_is_cut_changes_nothing(
            stream in "[a:\\r\\n é]{0,60}",
            pieces in prop::collection::vec(0usize..8, 0..20),
        ) {
            let whole = frames(stream.as_bytes(), &[]);
            let cut = frames(stream.as_bytes(), &pieces);
            let read = |(frames, _): &(Vec<Vec<u8>>, Vec<u8>)| -> Vec<Event> {
                frames.iter().map(|frame| Event::read(frame)).filter(|event| event.data.is_some()).collect()
            };
            prop_assert_eq!(read(&whole), read(&cut));
            prop_assert_eq!([cut.0.concat(), cut.1].concat(), stream.as_bytes());
        }
    }
}
