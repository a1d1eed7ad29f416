//! What Toka has to say to a client, as an error of the API that it speaks: SDKs show the message, and decide by the status and the type
//! whether they try again.

use serde_json::{Value, json};

use toka_core::Wire;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemKind {
    /// The request cannot be read.
    BadRequest,
    /// The key is not the one that the agent was given.
    Key,
    /// The agent may not do that.
    Denied,
    /// The budget is used up.
    Budget,
    /// There is no such route or model.
    NotFound,
    /// The request is too large.
    TooLarge,
    /// Too much at a time: it may be tried again later.
    Busy,
    /// Providers do not answer, or answered with an error.
    Upstream,
    /// A provider took too long.
    Late,
}

/// An error that Toka makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong.
    pub kind: ProblemKind,
    /// In words, with the way out. It begins with `toka: ` on the wire, so that people know whose word it is.
    pub message: String,
}

impl ProblemKind {
    /// The HTTP status of it.
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Key => 401,
            Self::Denied => 403,
            // SDKs do not try again after it.
            Self::Budget => 402,
            Self::NotFound => 404,
            Self::TooLarge => 413,
            Self::Busy => 429,
            Self::Upstream => 502,
            Self::Late => 504,
        }
    }

    fn of_openai(self) -> (&'static str, &'static str) {
        match self {
            Self::BadRequest | Self::TooLarge => ("invalid_request_error", "toka_bad_request"),
            Self::Key => ("invalid_request_error", "invalid_api_key"),
            Self::Denied => ("permission_error", "toka_denied"),
            Self::Budget => ("insufficient_quota", "toka_budget"),
            Self::NotFound => ("invalid_request_error", "toka_not_found"),
            Self::Busy => ("rate_limit_error", "toka_busy"),
            Self::Upstream => ("server_error", "toka_upstream"),
            Self::Late => ("server_error", "toka_late"),
        }
    }

    fn of_anthropic(self) -> &'static str {
        match self {
            Self::BadRequest => "invalid_request_error",
            Self::Key => "authentication_error",
            Self::Denied => "permission_error",
            Self::Budget => "billing_error",
            Self::NotFound => "not_found_error",
            Self::TooLarge => "request_too_large",
            Self::Busy => "rate_limit_error",
            Self::Upstream => "api_error",
            Self::Late => "timeout_error",
        }
    }

    fn of_gemini(self) -> &'static str {
        match self {
            Self::BadRequest | Self::TooLarge => "INVALID_ARGUMENT",
            Self::Key => "UNAUTHENTICATED",
            Self::Denied => "PERMISSION_DENIED",
            Self::Budget => "FAILED_PRECONDITION",
            Self::NotFound => "NOT_FOUND",
            Self::Busy => "RESOURCE_EXHAUSTED",
            Self::Upstream => "UNAVAILABLE",
            Self::Late => "DEADLINE_EXCEEDED",
        }
    }
}

impl Problem {
    /// A problem in words.
    pub fn new(kind: ProblemKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// The body of an answer with this status.
    pub fn body(&self, wire: Wire) -> String {
        self.value(wire).to_string()
    }

    /// The same in a stream that has begun: an event after which nothing comes, least of all the mark of a whole answer.
    pub fn event(&self, wire: Wire) -> String {
        match wire {
            Wire::OpenAiChat | Wire::Gemini => format!("data: {}\n\n", self.value(wire)),
            Wire::OpenAiResponses => {
                let (_, code) = self.kind.of_openai();
                let value = json!({"type": "error", "code": code, "message": self.words(), "param": null});
                format!("event: error\ndata: {value}\n\n")
            }
            Wire::Anthropic => format!("event: error\ndata: {}\n\n", self.value(wire)),
        }
    }

    fn words(&self) -> String {
        format!("toka: {}", self.message)
    }

    fn value(&self, wire: Wire) -> Value {
        let message = self.words();
        match wire {
            Wire::OpenAiChat | Wire::OpenAiResponses => {
                let (kind, code) = self.kind.of_openai();
                json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
            }
            Wire::Anthropic => {
                json!({"type": "error", "error": {"type": self.kind.of_anthropic(), "message": message}})
            }
            Wire::Gemini => json!({"error": {
                "code": self.kind.status(), "message": message, "status": self.kind.of_gemini(),
            }}),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sse::{Event, Splitter};
    use crate::{Frame, Meter, answer};

    const KINDS: [ProblemKind; 8] = [
        ProblemKind::BadRequest,
        ProblemKind::Key,
        ProblemKind::Denied,
        ProblemKind::NotFound,
        ProblemKind::TooLarge,
        ProblemKind::Busy,
        ProblemKind::Upstream,
        ProblemKind::Late,
    ];

    #[test]
    fn our_errors_are_read_as_errors_of_that_language() {
        for wire in Wire::ALL {
            for kind in KINDS {
                let problem = Problem::new(kind, "line one\nline \"two\"");
                let words = answer::words_of_body(problem.body(wire).as_bytes());
                assert_eq!(words.as_deref(), Some("toka: line one\nline \"two\""));
                let mut found = Vec::new();
                let mut splitter = Splitter::default();
                splitter
                    .feed(problem.event(wire).as_bytes(), |frame| found.push(frame.to_vec()))
                    .expect("short");
                let mut meter = Meter::new(wire, false);
                assert_eq!(found.len(), 1, "{:?}", Event::read(&found[0]));
                assert_eq!(meter.observe(&found[0]), Frame::Error);
                assert!(!meter.progress().is_whole);
            }
        }
    }
}
