//! Lines to messages and back.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;

use super::Call;

/// Longest line, its newline included, in bytes. A peer that sends a longer one is cut off.
pub const MAX_LINE: usize = 1024 * 1024;

/// What a request and its reply share. A client counts; others may use texts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Id {
    /// A number.
    Number(i64),
    /// A text.
    Text(String),
}

/// A call that arrived; without an id it is a notification, which nobody answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Incoming {
    /// What the reply must carry.
    pub id: Option<Id>,
    /// What is asked.
    pub call: Call,
}

/// An error as it goes over the wire.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
#[error("{message} (code {code})")]
pub struct RpcError {
    /// One of the constants, or another server's own.
    pub code: i32,
    /// For people.
    pub message: String,
}

impl RpcError {
    /// The line is no JSON.
    pub const PARSE: i32 = -32700;
    /// It is JSON, but no request.
    pub const INVALID_REQUEST: i32 = -32600;
    /// There is no such method.
    pub const METHOD_NOT_FOUND: i32 = -32601;
    /// The params are not what the method takes.
    pub const INVALID_PARAMS: i32 = -32602;
    /// The daemon's own fault.
    pub const INTERNAL: i32 = -32603;
    /// The caller may not ask that: the process or the task is not its own.
    pub const REFUSED: i32 = -32000;

    /// An error with its message.
    pub fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// A line that is no acceptable call: the error, and the id to send it to (`null` when the line did not tell one).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{error}")]
pub struct Rejected {
    /// The id, if it could be read.
    pub id: Option<Id>,
    /// What is wrong. A rejected notification gets no reply either; [`Rejected::reply_line`] knows.
    pub error: RpcError,
    /// Whether it was a well-formed message without an id.
    notification: bool,
}

impl Rejected {
    /// The line to answer with; `None` for a notification.
    pub fn reply_line(&self) -> Option<String> {
        (!self.notification).then(|| line(&json!({"jsonrpc": "2.0", "id": self.id, "error": self.error})))
    }
}

/// Why a reply could not be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReplyError {
    /// The daemon said no.
    #[error("the daemon refused: {0}")]
    Refused(RpcError),
    /// The line is no reply to this question.
    #[error("the daemon's answer makes no sense: {0}")]
    Malformed(String),
}

/// Reads one line (with or without its newline) as a call.
///
/// # Errors
/// When it is no JSON, no request, an unknown method, or has params that the method does not take.
pub fn parse_call(line: &[u8]) -> Result<Incoming, Rejected> {
    let reject = |id, error, notification| Err(Rejected { id, error, notification });
    let value: Value = match serde_json::from_slice(line) {
        Ok(value) => value,
        Err(error) => return reject(None, RpcError::new(RpcError::PARSE, error.to_string()), false),
    };
    let Value::Object(mut message) = value else {
        return reject(None, RpcError::new(RpcError::INVALID_REQUEST, "expected one object a line"), false);
    };
    let (raw_id, params) = (message.remove("id"), message.remove("params"));
    let id = raw_id.clone().and_then(|id| serde_json::from_value::<Option<Id>>(id).ok().flatten());
    if message.get("jsonrpc") != Some(&json!("2.0")) || (raw_id.is_some() && id.is_none()) {
        let error = RpcError::new(
            RpcError::INVALID_REQUEST,
            "expected jsonrpc 2.0 and an id that is a number or a text",
        );
        return reject(id, error, false);
    }
    let Some(Value::String(method)) = message.get("method") else {
        return reject(id, RpcError::new(RpcError::INVALID_REQUEST, "expected a method"), false);
    };
    match Call::read(method, params.unwrap_or_else(|| json!({}))) {
        Ok(call) => Ok(Incoming { id, call }),
        Err(error) => {
            let notification = id.is_none();
            reject(id, error, notification)
        }
    }
}

/// The line, newline included, that asks `call`; a notification without `id`.
pub fn call_line(id: Option<&Id>, call: &Call) -> String {
    match id {
        Some(id) => {
            line(&json!({"jsonrpc": "2.0", "id": id, "method": call.method(), "params": call.params()}))
        }
        None => line(&json!({"jsonrpc": "2.0", "method": call.method(), "params": call.params()})),
    }
}

/// The line, newline included, that answers the request `id`; `()` becomes `{}`.
pub fn reply_line<T: Serialize>(id: &Id, outcome: &Result<T, RpcError>) -> String {
    match outcome {
        Ok(result) => {
            let result = match serde_json::to_value(result) {
                Ok(Value::Null) | Err(_) => json!({}),
                Ok(result) => result,
            };
            line(&json!({"jsonrpc": "2.0", "id": id, "result": result}))
        }
        Err(error) => line(&json!({"jsonrpc": "2.0", "id": id, "error": error})),
    }
}

/// Reads one line as the reply to the request `id`.
///
/// # Errors
/// When the daemon refused, or the line is no reply to that request.
pub fn parse_reply<T: DeserializeOwned>(id: &Id, line: &[u8]) -> Result<T, ReplyError> {
    #[derive(Deserialize)]
    struct Reply {
        #[serde(default)]
        id: Option<Id>,
        #[serde(default)]
        result: Option<Value>,
        #[serde(default)]
        error: Option<RpcError>,
    }
    let malformed = |error: serde_json::Error| ReplyError::Malformed(error.to_string());
    let reply: Reply = serde_json::from_slice(line).map_err(malformed)?;
    match reply {
        Reply { error: Some(error), id: reply_id, .. }
            if reply_id.is_none() || reply_id.as_ref() == Some(id) =>
        {
            Err(ReplyError::Refused(error))
        }
        Reply { id: reply_id, .. } if reply_id.as_ref() != Some(id) => {
            Err(ReplyError::Malformed(format!("it is for {reply_id:?}, not for {id:?}")))
        }
        Reply { result: Some(result), .. } => serde_json::from_value(result).map_err(malformed),
        Reply { .. } => Err(ReplyError::Malformed("neither a result nor an error".to_owned())),
    }
}

fn line(message: &Value) -> String {
    // Value's Display is JSON without a raw newline in it: control characters in texts are escaped.
    format!("{message}\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::{MAX_TEXT, Metrics, TaskEnd, TaskEnded, TaskEnter, TaskList};
    use super::*;
    use crate::Exit;
    use crate::Progress;

    fn calls() -> Vec<Call> {
        vec![
            Call::Progress(Progress { fraction: Some(0.42), status: Some("línea\n".into()), task: None }),
            Call::Metrics(Metrics { values: [("files".to_owned(), 12.5)].into() }),
            Call::Ready,
            Call::TasksGet,
            Call::TaskEnter(TaskEnter { index: 1, attempt: 2, pid: Some(77) }),
            Call::TaskEnd(TaskEnd {
                index: 1,
                attempt: 2,
                exit: Exit::Timeout { limit: Duration::from_millis(1_500) },
                duration_ms: 1_507,
            }),
        ]
    }

    #[test]
    fn every_call_survives_the_wire() {
        for call in calls() {
            for id in [None, Some(Id::Number(7)), Some(Id::Text("x".into()))] {
                let line = call_line(id.as_ref(), &call);
                assert_eq!(line.matches('\n').count(), 1, "{line}");
                assert_eq!(parse_call(line.as_bytes()), Ok(Incoming { id, call: call.clone() }));
            }
        }
    }

    #[test]
    fn the_wire_format_is_fixed() {
        let enter = Call::TaskEnter(TaskEnter { index: 0, attempt: 1, pid: Some(42) });
        assert_eq!(
            call_line(Some(&Id::Number(1)), &enter),
            "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"task/enter\",\"params\":{\"index\":0,\"attempt\":1,\"pid\":42}}\n"
        );
        assert_eq!(reply_line(&Id::Number(1), &Ok(())), "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n");
    }

    #[test]
    fn wrong_lines_have_their_codes() {
        for (line, code, id, answered) in [
            ("", RpcError::PARSE, None, true),
            ("{", RpcError::PARSE, None, true),
            ("[]", RpcError::INVALID_REQUEST, None, true),
            (r#"{"id":1,"method":"ready"}"#, RpcError::INVALID_REQUEST, Some(1), true),
            (r#"{"jsonrpc":"2.0","id":[],"method":"ready"}"#, RpcError::INVALID_REQUEST, None, true),
            (r#"{"jsonrpc":"2.0","id":1}"#, RpcError::INVALID_REQUEST, Some(1), true),
            (r#"{"jsonrpc":"2.0","id":1,"method":"reboot"}"#, RpcError::METHOD_NOT_FOUND, Some(1), true),
            (r#"{"jsonrpc":"2.0","method":"reboot"}"#, RpcError::METHOD_NOT_FOUND, None, false),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"progress","params":{"fraction":1.5}}"#,
                RpcError::INVALID_PARAMS,
                Some(1),
                true,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"progress","params":{"fractoin":0.5}}"#,
                RpcError::INVALID_PARAMS,
                Some(1),
                true,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"metrics","params":{"values":{"":1}}}"#,
                RpcError::INVALID_PARAMS,
                Some(1),
                true,
            ),
        ] {
            let rejected = parse_call(line.as_bytes()).expect_err(line);
            assert_eq!((rejected.error.code, &rejected.id), (code, &id.map(Id::Number)), "{line}");
            assert_eq!(rejected.reply_line().is_some(), answered, "{line}");
        }
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let call =
            Call::Progress(Progress { status: Some("é".repeat(MAX_TEXT).into()), ..Progress::default() });
        let incoming = parse_call(call_line(None, &call).as_bytes()).expect("a call");
        let Call::Progress(progress) = incoming.call else { panic!("another call") };
        assert_eq!(progress.status.map(|text| text.len()), Some(MAX_TEXT));
    }

    #[test]
    fn replies() {
        let id = Id::Number(3);
        let good = reply_line(&id, &Ok(TaskEnded::default()));
        assert_eq!(parse_reply::<TaskEnded>(&id, good.as_bytes()), Ok(TaskEnded::default()));
        let error = RpcError::new(RpcError::REFUSED, "not yours");
        let bad = reply_line::<()>(&id, &Err(error.clone()));
        assert_eq!(parse_reply::<TaskEnded>(&id, bad.as_bytes()), Err(ReplyError::Refused(error)));
        for line in ["", "{}", r#"{"id":4,"result":{}}"#, r#"{"id":3}"#, r#"{"id":3,"result":{"tasks":1}}"#] {
            let reply = parse_reply::<TaskList>(&id, line.as_bytes());
            assert!(matches!(reply, Err(ReplyError::Malformed(_))), "{line}: {reply:?}");
        }
    }

    proptest! {
        #[test]
        fn no_line_panics(line: Vec<u8>) {
            let _ = (parse_call(&line), parse_reply::<Value>(&Id::Number(1), &line));
        }
    }
}
