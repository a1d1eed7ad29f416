//! Asks a model for the next answer, and reads what it says as it comes.

use std::fmt;
use std::time::Duration;

use toka_core::{ModelName, Wire};
use toka_gateway::Asker;
use toka_wire::said::{Answer, Piece, Reader, read_whole};
use toka_wire::{Conversation, endpoint};

use crate::request::MODEL;

/// Answers that broke off are asked for again so often, after 1, 2 and 4 s. What the gateway tries before an answer begins comes besides.
const TRIES: u32 = 4;

/// An answer, and who gave it.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) answer: Answer,
    pub(crate) model: ModelName,
    /// The language in which it was asked.
    pub(crate) wire: Wire,
    /// The number of the call in the journal.
    pub(crate) call: Option<u64>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) struct NoAnswer {
    /// In words.
    why: String,
    /// Whether that may be since the request is too large: providers have many words for that, and these statuses.
    pub(crate) is_too_large: bool,
}

impl NoAnswer {
    /// One that has nothing to do with the size of the request.
    pub(crate) fn of(why: String) -> Self {
        Self { why, is_too_large: false }
    }
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

/// What is heard of an answer while it comes.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A piece of it.
    Piece(Piece),
    /// It broke off, and is asked for again from the beginning.
    Again,
}

/// Asks for an answer; pieces are handed to `hear` as they come, and begin anew when an answer broke off.
///
/// # Errors
/// Why there is none, in words.
pub(crate) async fn ask(
    asker: &Asker,
    (wire, model): (Wire, &ModelName),
    conversation: &Conversation,
    mut hear: impl FnMut(Heard),
) -> Result<Asked, NoAnswer> {
    let path = endpoint(wire).path(MODEL);
    let path = if wire == Wire::Gemini { format!("{path}?alt=sse") } else { path };
    let body = conversation.body(wire, MODEL).to_string().into_bytes();
    let mut why = String::new();
    for tried in 0..TRIES {
        if tried > 0 {
            tokio::time::sleep(Duration::from_secs(1 << (tried - 1))).await;
            hear(Heard::Again);
        }
        match ask_once(asker, (wire, model), (&path, body.clone()), &mut hear).await {
            Ok(asked) => return Ok(asked),
            Err(Failure::Lasting(why)) => return Err(why),
            Err(Failure::BrokeOff(reason)) => why = reason,
        }
    }
    Err(NoAnswer::of(format!("the answer broke off {TRIES} times, at last: {why}")))
}

enum Failure {
    /// The same request would fail again, or was tried often enough.
    Lasting(NoAnswer),
    /// The answer had begun.
    BrokeOff(String),
}

async fn ask_once(
    asker: &Asker,
    (wire, model): (Wire, &ModelName),
    (path, body): (&str, Vec<u8>),
    hear: &mut impl FnMut(Heard),
) -> Result<Asked, Failure> {
    let mut answered = asker.ask(path, body).await.map_err(|why| Failure::Lasting(NoAnswer::of(why)))?;
    let (by, call) = match answered.by.clone() {
        Some((model, call)) => (model, Some(call)),
        None => (model.clone(), None),
    };
    if answered.is_stream && answered.status.is_success() {
        let mut reader = Reader::new(wire);
        while let Some(piece) = answered.next().await {
            let mut say = |piece| hear(Heard::Piece(piece));
            let fed =
                piece.and_then(|bytes| reader.feed(&bytes, &mut say).map_err(|error| error.to_string()));
            fed.map_err(Failure::BrokeOff)?;
        }
        let answer = reader.finish();
        return match (&answer.error, answer.is_whole) {
            (Some(error), _) => Err(Failure::BrokeOff(error.clone())),
            (None, false) => Err(Failure::BrokeOff("it has no end".to_owned())),
            (None, true) => Ok(Asked { answer, model: by, call, wire }),
        };
    }
    let mut whole = Vec::new();
    while let Some(piece) = answered.next().await {
        whole.extend_from_slice(&piece.map_err(Failure::BrokeOff)?);
    }
    let answer = read_whole(wire, &whole);
    if !answered.status.is_success() || answer.error.is_some() {
        let said = answer
            .error
            .unwrap_or_else(|| String::from_utf8_lossy(&whole[..whole.len().min(300)]).into_owned());
        let status = answered.status.as_u16();
        let is_too_large = matches!(status, 400 | 413 | 422);
        return Err(Failure::Lasting(NoAnswer { why: format!("{status} {said}"), is_too_large }));
    }
    if !answer.is_whole {
        return Err(Failure::BrokeOff("it is no JSON".to_owned()));
    }
    Ok(Asked { answer, model: by, call, wire })
}
