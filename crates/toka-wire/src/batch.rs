//! Batch interfaces of providers: many requests are given over at once, answered within a day, and cost less. What is sent, and what is read of the
//! answers. Pure.
//!
//! | | requests | then | answers |
//! |---|---|---|---|
//! | OpenAI (and compatible) | `POST /v1/files`, lines of JSON | `POST /v1/batches`, `GET /v1/batches/ID` | `GET /v1/files/ID/content`, lines of JSON |
//! | Anthropic | `POST /v1/messages/batches` | `GET /v1/messages/batches/ID` | `GET …/results`, lines of JSON |
//! | Gemini | `POST /v1beta/models/M:batchGenerateContent` | `GET /v1beta/batches/ID` | in the same answer |
//!
//! Sources: the references of the three, "Batch", "Message Batches" and "Batch API".

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::Endpoint;

/// Which batch interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BatchApi {
    /// OpenAI's: by files.
    Files,
    /// Anthropic's.
    Messages,
    /// Google's.
    Gemini,
}

/// A request of a batch.
#[derive(Debug, Clone, Copy)]
pub struct BatchRequest<'a> {
    /// By which its answer is known.
    pub id: u64,
    /// Its body; JSON.
    pub body: &'a [u8],
}

/// A request to the interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchStep {
    /// The HTTP method.
    pub method: &'static str,
    /// The path below the provider's base URL.
    pub path: String,
    /// What the body is, where there is one.
    pub content_type: &'static str,
    /// The body.
    pub body: Vec<u8>,
}

/// How far a batch is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BatchState {
    /// The provider works on it.
    Going,
    /// Its answers are to be fetched so.
    Ended(Vec<BatchStep>),
    /// It is over, and these are its answers.
    Answered(Vec<BatchAnswer>),
    /// It came to nothing.
    Failed(String),
}

/// The answer to one request of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchAnswer {
    /// Which request.
    pub id: u64,
    /// What became of it.
    pub result: BatchResult,
}

/// What became of a request of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BatchResult {
    /// What it would have been answered alone: the HTTP status, and the body.
    Answered(u16, Vec<u8>),
    /// The provider has not worked on it: why.
    Nothing(String),
}

const JSON: &str = "application/json";
/// The line between the parts of a form (RFC 7578): long and random enough that no JSON has it, and compared with all of it anyway.
const BOUNDARY: &str = "toka-5f2c8a1e9b7d4630-part";
const FORM: &str = "multipart/form-data; boundary=toka-5f2c8a1e9b7d4630-part";

impl BatchApi {
    /// That of an endpoint; `None` where no provider has one.
    pub fn of(endpoint: Endpoint) -> Option<Self> {
        match endpoint {
            Endpoint::ChatCompletions | Endpoint::Responses | Endpoint::Embeddings => Some(Self::Files),
            Endpoint::Messages => Some(Self::Messages),
            Endpoint::GenerateContent => Some(Self::Gemini),
            Endpoint::StreamGenerateContent
            | Endpoint::CountTokens
            | Endpoint::GeminiCountTokens
            | Endpoint::Models(_) => None,
        }
    }

    /// The headers that it wants beside a key.
    pub fn headers(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Messages => &[("anthropic-version", "2023-06-01")],
            Self::Files | Self::Gemini => &[],
        }
    }

    /// Gives requests over, all of one endpoint and for Gemini of one model. `None` when a body cannot be part of a batch.
    pub fn begin(self, endpoint: Endpoint, model: &str, requests: &[BatchRequest<'_>]) -> Option<BatchStep> {
        let (path, content_type, body) = match self {
            Self::Files => ("/v1/files".to_owned(), FORM, form(endpoint, requests)?),
            Self::Messages => {
                let list = requests.iter().map(|BatchRequest { id, body }| {
                    Some(format!(r#"{{"custom_id":"{id}","params":{}}}"#, one_line(body)?))
                });
                let list: Vec<String> = list.collect::<Option<_>>()?;
                let body = format!(r#"{{"requests":[{}]}}"#, list.join(","));
                ("/v1/messages/batches".to_owned(), JSON, body.into_bytes())
            }
            Self::Gemini => {
                let list = requests.iter().map(|BatchRequest { id, body }| {
                    Some(format!(r#"{{"request":{},"metadata":{{"key":"{id}"}}}}"#, one_line(body)?))
                });
                let list: Vec<String> = list.collect::<Option<_>>()?;
                let body = format!(
                    r#"{{"batch":{{"displayName":"toka","inputConfig":{{"requests":{{"requests":[{}]}}}}}}}}"#,
                    list.join(",")
                );
                (format!("/v1beta/models/{model}:batchGenerateContent"), JSON, body.into_bytes())
            }
        };
        Some(BatchStep { method: "POST", path, content_type, body })
    }

    /// What follows on the answer to [`Self::begin`], where that has not begun the batch yet: OpenAI's has got a file.
    pub fn follow(self, endpoint: Endpoint, answer: &[u8]) -> Option<BatchStep> {
        let file = (self == Self::Files).then(|| self.id(answer)).flatten()?;
        let body = json!({"input_file_id": file, "endpoint": endpoint.path(""), "completion_window": "24h"});
        let path = "/v1/batches".to_owned();
        Some(BatchStep { method: "POST", path, content_type: JSON, body: body.to_string().into_bytes() })
    }

    /// The name of what an answer is about: of a file, or of a batch. It can stand in a path.
    pub fn id(self, answer: &[u8]) -> Option<String> {
        let read: Value = serde_json::from_slice(answer).ok()?;
        let id = match self {
            Self::Files | Self::Messages => read["id"].as_str()?,
            Self::Gemini => read["name"].as_str()?.strip_prefix("batches/")?,
        };
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let is_segment = !id.is_empty() && id.len() <= 200 && id.bytes().all(is_plain);
        (is_segment && id.bytes().any(|byte| byte != b'.')).then(|| id.to_owned())
    }

    /// Asks how far a batch is.
    pub fn look(self, batch: &str) -> BatchStep {
        let path = match self {
            Self::Files => format!("/v1/batches/{batch}"),
            Self::Messages => format!("/v1/messages/batches/{batch}"),
            Self::Gemini => format!("/v1beta/batches/{batch}"),
        };
        get(path)
    }

    /// Gives a batch up.
    pub fn cancel(self, batch: &str) -> BatchStep {
        let path = match self {
            Self::Files => format!("/v1/batches/{batch}/cancel"),
            Self::Messages => format!("/v1/messages/batches/{batch}/cancel"),
            Self::Gemini => format!("/v1beta/batches/{batch}:cancel"),
        };
        BatchStep { method: "POST", path, content_type: JSON, body: b"{}".to_vec() }
    }

    /// How far a batch is, by the answer to [`Self::look`]; `None` for what is no such answer. `ids` are those of its requests, in their order.
    pub fn state(self, batch: &str, answer: &[u8], ids: &[u64]) -> Option<BatchState> {
        let read: Value = serde_json::from_slice(answer).ok()?;
        match self {
            Self::Files => files_state(&read),
            Self::Messages => Some(match read["processing_status"].as_str()? {
                "ended" => BatchState::Ended(vec![get(format!("/v1/messages/batches/{batch}/results"))]),
                _ => BatchState::Going,
            }),
            Self::Gemini => gemini_state(&read, ids),
        }
    }

    /// The answers in the lines of a file; lines that are none are passed over.
    pub fn answers(self, lines: &[u8]) -> Vec<BatchAnswer> {
        let lines = lines.split(|byte| *byte == b'\n');
        lines
            .filter_map(|line| match self {
                Self::Files => files_answer(line),
                Self::Messages => messages_answer(line),
                Self::Gemini => None,
            })
            .collect()
    }
}

fn get(path: String) -> BatchStep {
    BatchStep { method: "GET", path, content_type: "", body: Vec::new() }
}

/// The form that makes a file of requests (RFC 7578).
fn form(endpoint: Endpoint, requests: &[BatchRequest<'_>]) -> Option<Vec<u8>> {
    let mut body = format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n\
         --{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"batch.jsonl\"\r\n\
         Content-Type: application/jsonl\r\n\r\n"
    );
    for BatchRequest { id, body: request } in requests {
        let request = one_line(request).filter(|request| !request.contains(BOUNDARY))?;
        let url = endpoint.path("");
        body +=
            &format!("{{\"custom_id\":\"{id}\",\"method\":\"POST\",\"url\":\"{url}\",\"body\":{request}}}\n");
    }
    body += &format!("\r\n--{BOUNDARY}--\r\n");
    Some(body.into_bytes())
}

/// JSON without the blanks between its parts; every other byte is as it was. `None` for what is no JSON.
fn one_line(json: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(json).ok()?;
    serde_json::from_str::<serde::de::IgnoredAny>(text).ok()?;
    let (mut line, mut in_string, mut escaped) = (String::with_capacity(text.len()), false, false);
    for c in text.chars() {
        if !in_string && matches!(c, ' ' | '\t' | '\r' | '\n') {
            continue;
        }
        (in_string, escaped) = match c {
            _ if escaped => (in_string, false),
            '\\' => (in_string, true),
            '"' => (!in_string, false),
            _ => (in_string, false),
        };
        line.push(c);
    }
    Some(line)
}

fn files_state(read: &Value) -> Option<BatchState> {
    let status = read["status"].as_str()?;
    let files: Vec<BatchStep> = ["output_file_id", "error_file_id"]
        .into_iter()
        .filter_map(|key| BatchApi::Files.id(json!({"id": read[key]}).to_string().as_bytes()))
        .map(|file| get(format!("/v1/files/{file}/content")))
        .collect();
    Some(match status {
        "completed" | "expired" | "cancelled" if !files.is_empty() => BatchState::Ended(files),
        "completed" | "expired" | "cancelled" | "failed" => {
            let said = read["errors"]["data"][0]["message"].as_str();
            let said = said.map_or_else(String::new, |said| format!(": {said}"));
            BatchState::Failed(format!("the batch is {status}{said}"))
        }
        _ => BatchState::Going,
    })
}

/// A line of OpenAI's answers.
#[derive(Deserialize)]
struct FilesLine<'a> {
    custom_id: String,
    #[serde(borrow, default)]
    response: Option<FilesResponse<'a>>,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Deserialize)]
struct FilesResponse<'a> {
    status_code: u16,
    #[serde(borrow)]
    body: &'a RawValue,
}

fn files_answer(line: &[u8]) -> Option<BatchAnswer> {
    let FilesLine { custom_id, response, error } = serde_json::from_slice(line).ok()?;
    let result = match response {
        Some(FilesResponse { status_code, body }) => {
            BatchResult::Answered(status_code, body.get().as_bytes().to_vec())
        }
        None => {
            let error = error.unwrap_or_default();
            let said = error["message"].as_str().or_else(|| error["code"].as_str());
            BatchResult::Nothing(said.unwrap_or("no reason was given").to_owned())
        }
    };
    Some(BatchAnswer { id: custom_id.parse().ok()?, result })
}

/// A line of Anthropic's answers.
#[derive(Deserialize)]
struct MessagesLine<'a> {
    custom_id: String,
    #[serde(borrow)]
    result: MessagesResult<'a>,
}

#[derive(Deserialize)]
struct MessagesResult<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

fn messages_answer(line: &[u8]) -> Option<BatchAnswer> {
    let MessagesLine { custom_id, result } = serde_json::from_slice(line).ok()?;
    let result = match (result.kind.as_str(), result.message, result.error) {
        ("succeeded", Some(message), _) => BatchResult::Answered(200, message.get().as_bytes().to_vec()),
        ("errored", _, Some(error)) => {
            let status = messages_status(error.get());
            BatchResult::Answered(status, error.get().as_bytes().to_vec())
        }
        (kind, ..) => BatchResult::Nothing(format!("the request is {kind}")),
    };
    Some(BatchAnswer { id: custom_id.parse().ok()?, result })
}

/// The HTTP status of an error of Anthropic's ("Errors" in its reference).
fn messages_status(error: &str) -> u16 {
    let read: Value = serde_json::from_str(error).unwrap_or_default();
    match read["error"]["type"].as_str().unwrap_or_default() {
        "invalid_request_error" => 400,
        "authentication_error" => 401,
        "billing_error" => 402,
        "permission_error" => 403,
        "not_found_error" => 404,
        "request_too_large" => 413,
        "rate_limit_error" => 429,
        "overloaded_error" => 529,
        _ => 500,
    }
}

fn gemini_state(read: &Value, ids: &[u64]) -> Option<BatchState> {
    if let Some(said) = read["error"]["message"].as_str() {
        return Some(BatchState::Failed(format!("the batch has failed: {said}")));
    }
    read["name"].as_str()?;
    let state = read["metadata"]["state"].as_str().unwrap_or_default();
    let state = state.strip_prefix("BATCH_STATE_").unwrap_or(state);
    let output = match read["response"]["inlinedResponses"].is_object() {
        true => &read["response"]["inlinedResponses"],
        false => &read["metadata"]["output"]["inlinedResponses"],
    };
    if let Some(all) = output["inlinedResponses"].as_array() {
        let answer = |(at, one): (usize, &Value)| gemini_answer(one, ids.get(at).copied());
        return Some(BatchState::Answered(all.iter().enumerate().filter_map(answer).collect()));
    }
    Some(match state {
        "FAILED" | "CANCELLED" | "EXPIRED" => {
            BatchState::Failed(format!("the batch is {}", state.to_lowercase()))
        }
        _ if read["done"] == true => BatchState::Failed("the batch is over, and has no answers".to_owned()),
        _ => BatchState::Going,
    })
}

/// One of Gemini's answers: with the key that its request had, else in the order of the requests.
fn gemini_answer(one: &Value, at: Option<u64>) -> Option<BatchAnswer> {
    let id = one["metadata"]["key"].as_str().and_then(|key| key.parse().ok()).or(at)?;
    let result = if one["response"].is_object() {
        BatchResult::Answered(200, one["response"].to_string().into_bytes())
    } else {
        let status = gemini_status(one["error"]["code"].as_u64().unwrap_or(13));
        BatchResult::Answered(status, json!({"error": one["error"]}).to_string().into_bytes())
    };
    Some(BatchAnswer { id, result })
}

/// The HTTP status of a code of google.rpc.Code; a status stays what it is.
fn gemini_status(code: u64) -> u16 {
    match code {
        3 | 9 | 11 => 400,
        16 => 401,
        7 => 403,
        5 => 404,
        6 | 10 => 409,
        8 => 429,
        14 => 503,
        4 => 504,
        400..=599 => u16::try_from(code).unwrap_or(500),
        _ => 500,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TWO: [BatchRequest<'static>; 2] = [
        BatchRequest { id: 1, body: br#"{"model": "m",  "x": "a \" {\n b"}"# },
        BatchRequest { id: 2, body: b"{\n\t\"model\": \"m\"\r\n}" },
    ];

    fn text(step: &BatchStep) -> &str {
        std::str::from_utf8(&step.body).expect("text")
    }

    #[test]
    fn each_interface_is_given_the_requests_in_its_own_form() {
        let chat = BatchApi::Files.begin(Endpoint::ChatCompletions, "", &TWO).expect("a step");
        assert_eq!((chat.method, chat.path.as_str()), ("POST", "/v1/files"));
        let lines: Vec<Value> =
            text(&chat).lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        assert_eq!(lines.len(), 2, "{}", text(&chat));
        assert_eq!(
            lines[0],
            json!({"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m", "x": "a \" {\n b"}})
        );
        let then = BatchApi::Files.follow(Endpoint::ChatCompletions, br#"{"id": "file-1"}"#).expect("a step");
        assert!(then.path == "/v1/batches" && text(&then).contains(r#""input_file_id":"file-1""#));
        let messages = BatchApi::Messages.begin(Endpoint::Messages, "", &TWO).expect("a step");
        let read: Value = serde_json::from_slice(&messages.body).expect("JSON");
        assert_eq!(read["requests"][1], json!({"custom_id": "2", "params": {"model": "m"}}));
        assert_eq!(BatchApi::Messages.follow(Endpoint::Messages, br#"{"id": "b"}"#), None);
        let gemini = BatchApi::Gemini.begin(Endpoint::GenerateContent, "g-2", &TWO).expect("a step");
        assert_eq!(gemini.path, "/v1beta/models/g-2:batchGenerateContent");
        let read: Value = serde_json::from_slice(&gemini.body).expect("JSON");
        let list = &read["batch"]["inputConfig"]["requests"]["requests"];
        assert_eq!(list[0]["metadata"]["key"], "1", "{read}");
        let no_json = [BatchRequest { id: 1, body: b"{\"a\": " }];
        assert_eq!(BatchApi::Messages.begin(Endpoint::Messages, "", &no_json), None);
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_none() {
        for (answer, id) in [
            (r#"{"id": "msgbatch_01-x.y"}"#, Some("msgbatch_01-x.y")),
            (r#"{"id": "../../v1/files"}"#, None),
            (r#"{"id": ".."}"#, None),
            (r#"{"id": "a?b"}"#, None),
            (r#"{"id": ""}"#, None),
            (r#"{"id": 7}"#, None),
            ("no JSON", None),
        ] {
            assert_eq!(BatchApi::Messages.id(answer.as_bytes()).as_deref(), id, "{answer}");
        }
        assert_eq!(BatchApi::Gemini.id(br#"{"name": "batches/b1"}"#).as_deref(), Some("b1"));
        assert_eq!(BatchApi::Gemini.id(br#"{"name": "files/b1"}"#), None);
    }

    #[test]
    fn the_states_of_each_interface_are_read() {
        let state = |api: BatchApi, answer: Value| api.state("b", answer.to_string().as_bytes(), &[1, 2]);
        let get = |path: &str| get(path.to_owned());
        assert_eq!(state(BatchApi::Files, json!({"status": "in_progress"})), Some(BatchState::Going));
        let both = json!({"status": "completed", "output_file_id": "o", "error_file_id": "e"});
        let files = vec![get("/v1/files/o/content"), get("/v1/files/e/content")];
        assert_eq!(state(BatchApi::Files, both), Some(BatchState::Ended(files)));
        let failed = json!({"status": "failed", "errors": {"data": [{"message": "line 1 is bad"}]}});
        let why = "the batch is failed: line 1 is bad".to_owned();
        assert_eq!(state(BatchApi::Files, failed), Some(BatchState::Failed(why)));
        assert_eq!(state(BatchApi::Files, json!({"x": 1})), None);
        let messages = |status: &str| state(BatchApi::Messages, json!({"processing_status": status}));
        assert_eq!(messages("canceling"), Some(BatchState::Going));
        let results = vec![get("/v1/messages/batches/b/results")];
        assert_eq!(messages("ended"), Some(BatchState::Ended(results)));
        let running = json!({"name": "batches/b", "metadata": {"state": "BATCH_STATE_RUNNING"}});
        assert_eq!(state(BatchApi::Gemini, running), Some(BatchState::Going));
        let over = json!({"name": "batches/b", "done": true, "response": {"inlinedResponses": {"inlinedResponses": [
            {"response": {"candidates": []}}, {"error": {"code": 8, "message": "slow"}, "metadata": {"key": "2"}}]}}});
        let Some(BatchState::Answered(answers)) = state(BatchApi::Gemini, over) else { panic!("answers") };
        assert_eq!(
            answers[0],
            BatchAnswer { id: 1, result: BatchResult::Answered(200, br#"{"candidates":[]}"#.to_vec()) }
        );
        assert!(matches!(&answers[1], BatchAnswer { id: 2, result: BatchResult::Answered(429, _) }));
        let gone = json!({"name": "batches/b", "metadata": {"state": "BATCH_STATE_EXPIRED"}});
        assert_eq!(
            state(BatchApi::Gemini, gone),
            Some(BatchState::Failed("the batch is expired".to_owned()))
        );
    }

    #[test]
    fn answers_are_what_each_request_would_have_got_alone() {
        let lines = concat!(
            r#"{"custom_id":"2","response":{"status_code":200,"request_id":"r","body":{"a":  1}},"error":null}"#,
            "\n",
            r#"{"custom_id":"1","response":null,"error":{"code":"batch_expired","message":"too late"}}"#,
            "\nno line\n"
        );
        assert_eq!(
            BatchApi::Files.answers(lines.as_bytes()),
            [
                BatchAnswer { id: 2, result: BatchResult::Answered(200, br#"{"a":  1}"#.to_vec()) },
                BatchAnswer { id: 1, result: BatchResult::Nothing("too late".to_owned()) },
            ]
        );
        let error = r#"{"type":"error","error":{"type":"rate_limit_error","message":"m"}}"#;
        let lines = format!(
            "{}\n{{\"custom_id\":\"2\",\"result\":{{\"type\":\"errored\",\"error\":{error}}}}}\n{}\n",
            r#"{"custom_id":"1","result":{"type":"succeeded","message":{"id": "x"}}}"#,
            r#"{"custom_id":"3","result":{"type":"expired"}}"#
        );
        assert_eq!(
            BatchApi::Messages.answers(lines.as_bytes()),
            [
                BatchAnswer { id: 1, result: BatchResult::Answered(200, br#"{"id": "x"}"#.to_vec()) },
                BatchAnswer { id: 2, result: BatchResult::Answered(429, error.as_bytes().to_vec()) },
                BatchAnswer { id: 3, result: BatchResult::Nothing("the request is expired".to_owned()) },
            ]
        );
    }

    proptest! {
        #[test]
        fn a_request_in_one_line_says_the_same(text in ".*", number: f64, other in any::<bool>()) {
            let value = json!({"text": text, "list": [number, other, null, {"k": text}]});
            let pretty = serde_json::to_string_pretty(&value).expect("JSON");
            let line = one_line(pretty.as_bytes()).expect("JSON");
            prop_assert!(!line.contains('\n'));
            let read = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
            prop_assert_eq!(read(&line), read(&pretty));
        }

        #[test]
        fn nothing_that_a_provider_says_breaks_it(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for api in [BatchApi::Files, BatchApi::Messages, BatchApi::Gemini] {
                let _ = (api.id(&bytes), api.state("b", &bytes, &[1]), api.answers(&bytes));
            }
        }
    }
}
