//! What is said over a connection of the control socket that became a WebSocket (RFC 6455): to the terminal of an agent, or to a
//! command beside one. A browser speaks the same.
//!
//! ```text
//! binary    one byte, the channel (0 input, 1 output, 2 errors), and at most 64 KiB of what was typed or written
//! text      JSON with a `type`
//!           to the daemon     start (a command; the first message, and only there) · input_end · resize · signal
//!           from the daemon   started or refused (the answer to a start) · end; then it closes
//! ```
//!
//! The daemon closes the connection of a caller who says anything else, or something longer.

use std::io;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use toka_core::{Exit, TerminalSize};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as SocketError, Message as Frame};

use crate::wire::{ExecBody, Refused};

/// The name of what is said (RFC 6455, section 1.9).
pub const SUBPROTOCOL: &str = "toka.v1";
/// Longest piece of input, output or errors, in bytes.
pub const MAX_PIECE: usize = 64 * 1024;
/// Longest message: the start of a command with its arguments.
pub const MAX_MESSAGE: usize = 1024 * 1024;

const INPUT: u8 = 0;
const OUTPUT: u8 = 1;
const ERRORS: u8 = 2;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// The command that is to run.
    Start(ExecBody),
    /// What is typed.
    Input(Vec<u8>),
    /// Nothing more is typed.
    InputEnd,
    /// The terminal of the caller has this size now.
    Resize(TerminalSize),
    /// A signal for the command.
    Signal(i32),
    /// What was written, on a terminal or to standard output.
    Output(Vec<u8>),
    /// What was written to standard error.
    Errors(Vec<u8>),
    /// The command runs.
    Started,
    /// The command does not run.
    Refused(Refused),
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

/// The text messages.
#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Text {
    Start(ExecBody),
    InputEnd,
    Resize(TerminalSize),
    Signal { signal: i32 },
    Started,
    Refused(Refused),
    End(End),
}

/// What is no message of this protocol.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MessageError {
    /// Binary, without a channel.
    #[error("a binary message without a channel")]
    Empty,
    /// No such channel.
    #[error("there is no channel {0}")]
    Channel(u8),
    /// Longer than [`MAX_PIECE`].
    #[error("a piece of {0} bytes; the longest has {MAX_PIECE}")]
    Long(usize),
    /// No JSON of a known type.
    #[error("no message of this protocol: {0}")]
    Text(String),
    /// No number of a signal.
    #[error("there is no signal {0}")]
    Signal(i32),
    /// No WebSocket.
    #[error("{0}")]
    Socket(String),
}

/// Why no further message comes.
#[derive(Debug, Error)]
pub enum ReceiveError {
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What came is no message.
    #[error(transparent)]
    Message(#[from] MessageError),
}

impl Message {
    fn encode(self) -> Frame {
        let channel = |number: u8, bytes: Vec<u8>| Frame::binary([&[number], bytes.as_slice()].concat());
        let text = |text: Text| Frame::text(serde_json::to_string(&text).unwrap_or_default());
        match self {
            Self::Input(bytes) => channel(INPUT, bytes),
            Self::Output(bytes) => channel(OUTPUT, bytes),
            Self::Errors(bytes) => channel(ERRORS, bytes),
            Self::Start(body) => text(Text::Start(body)),
            Self::InputEnd => text(Text::InputEnd),
            Self::Resize(size) => text(Text::Resize(size)),
            Self::Signal(signal) => text(Text::Signal { signal }),
            Self::Started => text(Text::Started),
            Self::Refused(refused) => text(Text::Refused(refused)),
            Self::End(end) => text(Text::End(end)),
        }
    }

    fn of_binary(message: &[u8]) -> Result<Self, MessageError> {
        let (channel, bytes) = message.split_first().ok_or(MessageError::Empty)?;
        if bytes.len() > MAX_PIECE {
            return Err(MessageError::Long(bytes.len()));
        }
        match *channel {
            INPUT => Ok(Self::Input(bytes.to_vec())),
            OUTPUT => Ok(Self::Output(bytes.to_vec())),
            ERRORS => Ok(Self::Errors(bytes.to_vec())),
            other => Err(MessageError::Channel(other)),
        }
    }

    fn of_text(message: &str) -> Result<Self, MessageError> {
        match serde_json::from_str(message).map_err(|error| MessageError::Text(error.to_string()))? {
            Text::Signal { signal } if !(1..=31).contains(&signal) => Err(MessageError::Signal(signal)),
            Text::Signal { signal } => Ok(Self::Signal(signal)),
            Text::Start(body) => Ok(Self::Start(body)),
            Text::InputEnd => Ok(Self::InputEnd),
            Text::Resize(size) => Ok(Self::Resize(size)),
            Text::Started => Ok(Self::Started),
            Text::Refused(refused) => Ok(Self::Refused(refused)),
            Text::End(end) => Ok(Self::End(end)),
        }
    }
}

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Whose side of the connection it is: a client masks what it sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The caller's.
    Client,
    /// The daemon's.
    Daemon,
}

/// The two halves of a connection on which the handshake is done.
pub async fn open(upgraded: Upgraded, side: Side) -> (Receiver, Sender) {
    let config =
        WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
    let role = if side == Side::Client { Role::Client } else { Role::Server };
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), role, Some(config)).await;
    let (sending, receiving) = socket.split();
    (Receiver(receiving), Sender(sending))
}

/// Where messages come from.
#[derive(Debug)]
pub struct Receiver(SplitStream<Socket>);

impl Receiver {
    /// The next message; `None` when the other side has closed the connection. Cancel-safe.
    ///
    /// # Errors
    /// When the connection breaks, or something else is said.
    pub async fn next(&mut self) -> Result<Option<Message>, ReceiveError> {
        loop {
            let Some(came) = self.0.next().await else { return Ok(None) };
            match came {
                Ok(Frame::Binary(bytes)) => return Ok(Some(Message::of_binary(&bytes)?)),
                Ok(Frame::Text(text)) => return Ok(Some(Message::of_text(&text)?)),
                Ok(Frame::Close(_)) | Err(SocketError::ConnectionClosed | SocketError::AlreadyClosed) => {
                    return Ok(None);
                }
                // A ping is answered by the socket itself.
                Ok(Frame::Ping(_) | Frame::Pong(_) | Frame::Frame(_)) => {}
                Err(error) => return Err(of_socket(error)),
            }
        }
    }
}

fn of_socket(error: SocketError) -> ReceiveError {
    use tokio_tungstenite::tungstenite::error::ProtocolError;
    match error {
        SocketError::Io(error) => ReceiveError::Io(error),
        SocketError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            ReceiveError::Io(io::ErrorKind::ConnectionReset.into())
        }
        other => ReceiveError::Message(MessageError::Socket(other.to_string())),
    }
}

/// Where messages go.
#[derive(Debug)]
pub struct Sender(SplitSink<Socket, Frame>);

impl Sender {
    /// Sends one message.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn send(&mut self, message: Message) -> io::Result<()> {
        self.0.send(message.encode()).await.map_err(io::Error::other)
    }

    /// Sends the last message, and closes. The other side may be gone by now.
    pub async fn finish(mut self, last: Message) {
        if self.send(last).await.is_ok() {
            let _ = self.0.close().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn messages() -> impl Strategy<Value = Message> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..300);
        let size = (any::<u16>(), any::<u16>()).prop_map(|(columns, rows)| TerminalSize { columns, rows });
        let end = prop_oneof![
            Just(End::Over),
            Just(End::TooSlow),
            (0..256).prop_map(|code| End::Exited { exit: Exit::Code { code } }),
            ".*".prop_map(|reason| End::Nonsense { reason }),
        ];
        let start = proptest::collection::vec(".*", 0..4).prop_map(|argv| ExecBody {
            argv,
            terminal: None,
            term: None,
            input: true,
        });
        let refused = ".*".prop_map(|error| Refused {
            error,
            help: None,
            exit_code: 69,
            parts: Vec::new(),
            rendered: None,
        });
        prop_oneof![
            start.prop_map(Message::Start),
            bytes().prop_map(Message::Input),
            Just(Message::InputEnd),
            size.prop_map(Message::Resize),
            (1..32).prop_map(Message::Signal),
            bytes().prop_map(Message::Output),
            bytes().prop_map(Message::Errors),
            Just(Message::Started),
            refused.prop_map(Message::Refused),
            end.prop_map(Message::End),
        ]
    }

    fn decode(frame: &Frame) -> Result<Message, MessageError> {
        match frame {
            Frame::Binary(bytes) => Message::of_binary(bytes),
            Frame::Text(text) => Message::of_text(text),
            other => panic!("{other:?}"),
        }
    }

    proptest! {
        #[test]
        fn what_is_sent_arrives(message in messages()) {
            prop_assert_eq!(decode(&message.clone().encode()), Ok(message));
        }

        #[test]
        fn anything_is_a_message_or_an_error(bytes: Vec<u8>, text: String) {
            let _ = (Message::of_binary(&bytes), Message::of_text(&text));
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let long = vec![0; MAX_PIECE + 2];
        for (frame, expected) in [
            (Frame::binary(Vec::new()), "a binary message without a channel"),
            (Frame::binary(vec![7, 1]), "there is no channel 7"),
            (Frame::binary(long), "a piece of 65537 bytes; the longest has 65536"),
            (Frame::text(r#"{"type":"signal","signal":64}"#), "there is no signal 64"),
            (Frame::text(r#"{"type":"shout"}"#), "no message of this protocol: unknown variant `shout`"),
            (Frame::text("x"), "no message of this protocol: expected value"),
        ] {
            let error = decode(&frame).expect_err(expected).to_string();
            assert!(error.starts_with(expected), "{error}");
        }
        assert_eq!(
            Message::End(End::Over).encode().into_text().expect("text").as_str(),
            r#"{"type":"end","end":"over"}"#
        );
    }
}
