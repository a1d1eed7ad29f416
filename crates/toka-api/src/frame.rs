//! What is said over a connection of the control socket that became a stream ([`PROTOCOL`]): pieces of bounded length, each
//! with a head of five bytes: its kind, and how long it is (big endian).
//!
//! ```text
//! to the daemon     i input · e end of input · r size (columns, rows, two bytes each) · s signal (one byte)
//! from the daemon   o output · x errors · z the end, as JSON
//! ```
//!
//! Whoever hears anything else, or too long a piece, closes the connection.

use std::io;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use toka_core::{Exit, TerminalSize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// What a connection is upgraded to (RFC 9110, section 7.8).
pub const PROTOCOL: &str = "toka-stream";
/// Longest piece, in bytes.
pub const MAX_PIECE: usize = 64 * 1024;
/// A kind and a length.
const HEAD: usize = 5;

/// One piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// What is typed.
    Input(Vec<u8>),
    /// Nothing more is typed.
    InputEnd,
    /// The terminal of whoever looks is so large now.
    Resize(TerminalSize),
    /// A signal for the command.
    Signal(i32),
    /// What was written, on a terminal or to standard output.
    Output(Vec<u8>),
    /// What was written to standard error.
    Errors(Vec<u8>),
    /// Nothing follows.
    End(End),
}

/// Why nothing follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "end", rename_all = "snake_case")]
pub enum End {
    /// The agent's life, or the command, is over.
    Exited {
        /// How.
        exit: Exit,
    },
    /// The run is over, or goes on elsewhere.
    Over,
    /// Too much was waiting to be shown.
    TooSlow,
    /// What was said makes no sense.
    Nonsense {
        /// What was wrong with it.
        reason: String,
    },
}

/// Something that is no frame.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FrameError {
    /// No such kind.
    #[error("there is no frame of kind {0:#04x}")]
    Kind(u8),
    /// Longer than [`MAX_PIECE`].
    #[error("a frame of {0} bytes; the longest has {MAX_PIECE}")]
    Long(usize),
    /// Of a kind that has another length, or content.
    #[error("a damaged frame of kind {:?}", char::from(*.0))]
    Damaged(u8),
}

impl Frame {
    /// As it is sent.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, content): (u8, Vec<u8>) = match self {
            Self::Input(bytes) => (b'i', bytes.clone()),
            Self::InputEnd => (b'e', Vec::new()),
            Self::Resize(TerminalSize { columns, rows }) => {
                (b'r', [columns.to_be_bytes(), rows.to_be_bytes()].concat())
            }
            Self::Signal(signal) => (b's', vec![u8::try_from(*signal).unwrap_or(0)]),
            Self::Output(bytes) => (b'o', bytes.clone()),
            Self::Errors(bytes) => (b'x', bytes.clone()),
            Self::End(end) => (b'z', serde_json::to_vec(end).unwrap_or_default()),
        };
        let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let mut text = Vec::with_capacity(HEAD + content.len());
        text.push(kind);
        text.extend(length.to_be_bytes());
        text.extend(content);
        text
    }

    fn decode(kind: u8, content: Vec<u8>) -> Result<Self, FrameError> {
        let damaged = FrameError::Damaged(kind);
        Ok(match (kind, content.as_slice()) {
            (b'i', _) => Self::Input(content),
            (b'e', []) => Self::InputEnd,
            (b'r', &[a, b, c, d]) => Self::Resize(TerminalSize {
                columns: u16::from_be_bytes([a, b]),
                rows: u16::from_be_bytes([c, d]),
            }),
            (b's', [signal @ 1..=31]) => Self::Signal(i32::from(*signal)),
            (b'o', _) => Self::Output(content),
            (b'x', _) => Self::Errors(content),
            (b'z', text) => Self::End(serde_json::from_slice(text).map_err(|_| damaged)?),
            (b'e' | b'r' | b's', _) => return Err(damaged),
            (kind, _) => return Err(FrameError::Kind(kind)),
        })
    }
}

/// Takes frames out of bytes that come in pieces of any length.
#[derive(Debug, Default)]
pub struct Decoder(Vec<u8>);

impl Decoder {
    /// Adds what came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next frame, when all of it has come.
    ///
    /// # Errors
    /// When it is none; nothing that follows can be understood either.
    pub fn take(&mut self) -> Result<Option<Frame>, FrameError> {
        let &[kind, a, b, c, d, ..] = self.0.as_slice() else { return Ok(None) };
        if !b"iersoxz".contains(&kind) {
            return Err(FrameError::Kind(kind));
        }
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > MAX_PIECE {
            return Err(FrameError::Long(length));
        }
        if self.0.len() < HEAD + length {
            return Ok(None);
        }
        let content = self.0[HEAD..HEAD + length].to_vec();
        self.0.drain(..HEAD + length);
        Frame::decode(kind, content).map(Some)
    }
}

/// Reads frames.
#[derive(Debug)]
pub struct FrameReader<R> {
    stream: R,
    decoder: Decoder,
    buffer: Box<[u8]>,
}

/// Why there is no further frame.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What came is no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads from `stream`.
    pub fn new(stream: R) -> Self {
        Self { stream, decoder: Decoder::default(), buffer: vec![0; 16 * 1024].into() }
    }

    /// The next frame; `None` at the end. Cancel-safe.
    ///
    /// # Errors
    /// When the connection breaks, or says something else.
    pub async fn next(&mut self) -> Result<Option<Frame>, ReadError> {
        loop {
            if let Some(frame) = self.decoder.take()? {
                return Ok(Some(frame));
            }
            match self.stream.read(&mut self.buffer).await? {
                0 => return Ok(None),
                count => self.decoder.push(&self.buffer[..count]),
            }
        }
    }
}

/// Sends one frame.
///
/// # Errors
/// When the connection breaks.
pub async fn send(stream: &mut (impl AsyncWrite + Unpin), frame: &Frame) -> io::Result<()> {
    stream.write_all(&frame.encode()).await?;
    stream.flush().await
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames() -> impl Strategy<Value = Frame> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..300);
        let size = (any::<u16>(), any::<u16>()).prop_map(|(columns, rows)| TerminalSize { columns, rows });
        let end = prop_oneof![
            Just(End::Over),
            Just(End::TooSlow),
            (0..256).prop_map(|code| End::Exited { exit: Exit::Code { code } }),
            ".*".prop_map(|reason| End::Nonsense { reason }),
        ];
        prop_oneof![
            bytes().prop_map(Frame::Input),
            Just(Frame::InputEnd),
            size.prop_map(Frame::Resize),
            (1..32).prop_map(Frame::Signal),
            bytes().prop_map(Frame::Output),
            bytes().prop_map(Frame::Errors),
            end.prop_map(Frame::End),
        ]
    }

    fn all(decoder: &mut Decoder) -> Result<Vec<Frame>, FrameError> {
        std::iter::from_fn(|| decoder.take().transpose()).collect()
    }

    proptest! {
        #[test]
        fn what_is_sent_arrives_however_it_is_cut(
            sent in proptest::collection::vec(frames(), 0..8),
            cuts in proptest::collection::vec(1..50_usize, 1..20),
        ) {
            let bytes: Vec<u8> = sent.iter().flat_map(Frame::encode).collect();
            let (mut decoder, mut got, mut rest) = (Decoder::default(), Vec::new(), bytes.as_slice());
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, more) = rest.split_at(rest.len().min(*cut));
                decoder.push(piece);
                got.extend(all(&mut decoder).expect("frames"));
                rest = more;
            }
            prop_assert_eq!(got, sent);
        }

        #[test]
        fn any_bytes_are_frames_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            let _ = all(&mut decoder);
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (bytes, expected) in [
            (&b"\x16\x03\x01\x02\x00"[..], FrameError::Kind(0x16)),
            (b"i\xff\xff\xff\xff", FrameError::Long(u32::MAX as usize)),
            (b"i\x00\x01\x00\x01", FrameError::Long(MAX_PIECE + 1)),
            (b"r\x00\x00\x00\x01x", FrameError::Damaged(b'r')),
            (b"s\x00\x00\x00\x01\x40", FrameError::Damaged(b's')),
            (b"z\x00\x00\x00\x01x", FrameError::Damaged(b'z')),
        ] {
            let mut decoder = Decoder::default();
            decoder.push(bytes);
            assert_eq!(decoder.take(), Err(expected), "{bytes:?}");
        }
    }
}
