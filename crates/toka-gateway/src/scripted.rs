//! A provider that is a script: it takes the same requests as the others and gives answers in the same words, with the same kinds of
//! faults.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::PoisonError;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Bytes, Frame, SizeHint};
use serde_json::{Value, json};
use toka_core::Wire;
use toka_wire::render::{Label, Turn as Said, stream, whole};
use toka_wire::{Endpoint, Problem, ProblemKind, RequestFacts};
use tokio::time::Sleep;

use crate::Provider;
use crate::body::{Answer, BodyError};
use crate::script::{Fault, Script, Turn};

/// Bytes of an event without an end before it stops growing: more than anybody takes.
const ENDLESS: usize = 64 * 1024 * 1024;

/// How often a stalled stream says that it is still there.
const PING: Duration = Duration::from_millis(200);

/// Answers a request. `body` has been read as `facts` say.
pub(crate) async fn answer(
    provider: &Provider,
    script: &Script,
    endpoint: Endpoint,
    facts: &RequestFacts,
    model: &str,
    body: &[u8],
) -> Response<Answer> {
    let wire = endpoint.wire();
    if !endpoint.is_metered() || endpoint == Endpoint::Embeddings {
        return plain(StatusCode::OK, &of_no_turn(endpoint, model));
    }
    let text = String::from_utf8_lossy(body);
    let Some((place, turn)) = script.turn(&text, answers_in(wire, body)) else {
        return refusal(wire, 400, "the script has no further turn for this conversation");
    };
    if let Some(expected) = turn.expect.as_deref().filter(|expected| !text.contains(*expected)) {
        return refusal(wire, 400, &format!("the script expects {expected:?} in the request of this turn"));
    }
    let fault = turn.fault.as_ref().filter(|fault| happens(provider, place, fault));
    let delay = turn.delay.map_or(Duration::ZERO, |delay| delay.0);
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    if let Some(Fault { status: Some(status), retry_after, .. }) = fault {
        let mut refused = refusal(wire, *status, "a fault of the script");
        if let Some(wait) = retry_after {
            let seconds = wait.0.as_secs_f64().to_string();
            refused
                .headers_mut()
                .insert("retry-after", seconds.parse().unwrap_or(http::HeaderValue::from_static("1")));
        }
        return refused;
    }
    let said = said(turn);
    // Of each conversation its own: programs join what has the same id.
    let label = Label { model, number: place.0 * 1000 + place.1 };
    if fault.is_some_and(|fault| fault.bad_json) && !facts.stream {
        return of_type(StatusCode::OK, "application/json", "{\"broken".to_owned());
    }
    if !facts.stream {
        return plain(StatusCode::OK, &whole(wire, &said, label));
    }
    let usage = wire != Wire::OpenAiChat || text.contains("\"include_usage\":true");
    let mut frames: Vec<Bytes> = stream(wire, &said, label, usage).into_iter().map(Bytes::from).collect();
    let mut then = Then::Ends;
    if let Some(fault) = fault {
        if fault.bad_json {
            frames.insert(1, Bytes::from_static(b"data: {\"broken\n\n"));
        }
        if let Some(after) = fault.cut_after {
            frames.truncate(after);
            then = Then::Breaks;
        }
        if let Some(after) = fault.stall_after {
            frames.truncate(after);
            then = Then::Pings;
        }
        if fault.endless {
            frames = vec![Bytes::from_static(b"data: ")];
            then = Then::Grows(0);
        }
    }
    frames.reverse();
    let body = Spoken { frames, delay, wait: None, then };
    let mut response = Response::new(Answer::Scripted(Box::pin(body)));
    response
        .headers_mut()
        .insert("content-type", http::HeaderValue::from_static("text/event-stream; charset=utf-8"));
    response
}

fn said(turn: &Turn) -> Said {
    // A stream brings words, as providers do.
    let text = turn.text.split_inclusive(' ').map(str::to_owned).collect();
    let tools = turn.tools.iter().map(|call| (call.name.clone(), call.arguments.clone())).collect();
    let usage = turn.usage;
    Said { text, tools, input: usage.input, cached_read: usage.cached_read, output: usage.output }
}

fn happens(provider: &Provider, place: (usize, usize), fault: &Fault) -> bool {
    let mut faults = provider.faults.lock().unwrap_or_else(PoisonError::into_inner);
    let times = faults.entry(place).or_insert(0);
    *times = times.saturating_add(1);
    fault.times.is_none_or(|most| *times <= most)
}

/// How many answers of a model a request holds: which turn of the conversation it is.
pub(crate) fn answers_in(wire: Wire, body: &[u8]) -> usize {
    let Ok(value) = serde_json::from_slice::<Value>(body) else { return 0 };
    let (list, role) = match wire {
        Wire::OpenAiChat | Wire::Anthropic => ("messages", "assistant"),
        Wire::OpenAiResponses => ("input", "assistant"),
        Wire::Gemini => ("contents", "model"),
    };
    let items = value.get(list).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let is_answer = |item: &Value| {
        let has = |key: &str, wanted: &str| item.get(key).and_then(Value::as_str) == Some(wanted);
        has("role", role) || wire == Wire::OpenAiResponses && has("type", "function_call")
    };
    // Several items in a row, such as a message and a call of a tool, are one answer.
    let mut count = 0;
    let mut before = false;
    for item in items {
        let now = is_answer(item);
        count += usize::from(now && !before);
        before = now;
    }
    count
}

/// What a conversation began with: the last text of the first message that is no instruction, where programs put what they were asked.
pub(crate) fn conversation(wire: Wire, body: &[u8]) -> String {
    let Ok(value) = serde_json::from_slice::<Value>(body) else { return String::new() };
    let list = match wire {
        Wire::OpenAiChat | Wire::Anthropic => "messages",
        Wire::OpenAiResponses => "input",
        Wire::Gemini => "contents",
    };
    if let Some(text) = value.get(list).and_then(Value::as_str) {
        return text.to_owned();
    }
    let items = value.get(list).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let first =
        items.iter().find(|item| item.get("role").and_then(Value::as_str).is_none_or(|role| role == "user"));
    let content = first.and_then(|item| item.get("content").or_else(|| item.get("parts")));
    let text = match content {
        Some(Value::Array(parts)) => parts.iter().rev().find_map(|part| part.get("text")),
        other => other,
    };
    text.and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn of_no_turn(endpoint: Endpoint, model: &str) -> Value {
    match endpoint {
        Endpoint::CountTokens => json!({"input_tokens": 100}),
        Endpoint::GeminiCountTokens => json!({"totalTokens": 100}),
        Endpoint::Embeddings => json!({"object": "list", "model": model,
            "data": [{"object": "embedding", "index": 0, "embedding": [0.25, -0.5, 0.75]}],
            "usage": {"prompt_tokens": 8, "total_tokens": 8}}),
        Endpoint::Models(Wire::Gemini) => {
            json!({"models": [{"name": "models/scripted", "displayName": "scripted"}]})
        }
        _ => json!({"object": "list", "has_more": false, "first_id": "scripted", "last_id": "scripted",
            "data": [{"id": "scripted", "object": "model", "type": "model", "display_name": "scripted",
                "created": 1_767_225_600, "created_at": "2026-01-01T00:00:00Z", "owned_by": "toka"}]}),
    }
}

fn plain(status: StatusCode, value: &Value) -> Response<Answer> {
    of_type(status, "application/json", value.to_string())
}

fn of_type(status: StatusCode, kind: &'static str, text: String) -> Response<Answer> {
    let body: Pin<Box<dyn Body<Data = Bytes, Error = BodyError> + Send>> =
        Box::pin(Full::new(Bytes::from(text)).map_err(|never: Infallible| match never {}));
    let mut response = Response::new(Answer::Scripted(body));
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", http::HeaderValue::from_static(kind));
    response
}

fn refusal(wire: Wire, status: u16, words: &str) -> Response<Answer> {
    let kind = match status {
        401 => ProblemKind::Key,
        429 => ProblemKind::Busy,
        500.. => ProblemKind::Upstream,
        _ => ProblemKind::BadRequest,
    };
    let problem = Problem::new(kind, words);
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    of_type(status, "application/json", problem.body(wire))
}

/// What comes after the last frame.
#[derive(Debug)]
enum Then {
    Ends,
    Breaks,
    Pings,
    Grows(usize),
}

/// A stream that is spoken with pauses.
struct Spoken {
    /// The last one first.
    frames: Vec<Bytes>,
    delay: Duration,
    wait: Option<Pin<Box<Sleep>>>,
    then: Then,
}

impl Body for Spoken {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(wait) = &mut self.wait {
            if wait.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.wait = None;
        }
        if let Some(frame) = self.frames.pop() {
            if !self.delay.is_zero() {
                self.wait = Some(Box::pin(tokio::time::sleep(self.delay)));
            }
            return Poll::Ready(Some(Ok(Frame::data(frame))));
        }
        match &mut self.then {
            Then::Ends => Poll::Ready(None),
            Then::Breaks => Poll::Ready(Some(Err(BodyError("the connection broke off".to_owned())))),
            Then::Pings => {
                self.wait = Some(Box::pin(tokio::time::sleep(PING)));
                Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b": ping\n\n")))))
            }
            Then::Grows(size) if *size >= ENDLESS => Poll::Ready(None),
            Then::Grows(size) => {
                let piece = Bytes::from(vec![b'x'; 64 * 1024]);
                *size += piece.len();
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_in_every_language() {
        for (wire, body) in [
            (
                Wire::OpenAiChat,
                json!({"messages": [{"role": "user"}, {"role": "assistant"}, {"role": "tool"}, {"role": "assistant"}]}),
            ),
            (
                Wire::OpenAiResponses,
                json!({"input": [{"role": "user"}, {"type": "message", "role": "assistant"}, {"type": "function_call"},
                    {"type": "function_call_output"}, {"type": "function_call"}]}),
            ),
            (
                Wire::Gemini,
                json!({"contents": [{"role": "user"}, {"role": "model"}, {"role": "user"}, {"role": "model"}]}),
            ),
        ] {
            assert_eq!(answers_in(wire, body.to_string().as_bytes()), 2, "{wire}");
        }
        assert_eq!(answers_in(Wire::OpenAiResponses, b"{\"input\":\"text\"}"), 0);
    }
}
