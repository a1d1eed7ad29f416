//! From a method and a path to the API that is asked. Clients differ in what they take a base URL for, so a path counts with `/v1`, without
//! it, and with it twice.

use thiserror::Error;

use toka_core::Wire;

use crate::request::MOST_OF_A_NAME;

/// What of an API is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Endpoint {
    /// `/v1/chat/completions`.
    ChatCompletions,
    /// `/v1/responses`.
    Responses,
    /// `/v1/embeddings`.
    Embeddings,
    /// `/v1/messages`.
    Messages,
    /// `/v1/messages/count_tokens`.
    CountTokens,
    /// `models/MODEL:generateContent`.
    GenerateContent,
    /// `models/MODEL:streamGenerateContent`.
    StreamGenerateContent,
    /// `models/MODEL:countTokens`.
    GeminiCountTokens,
    /// The list of models, or one of them, as the wire has it.
    Models(Wire),
}

/// A request that the gateway knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// What is asked.
    pub endpoint: Endpoint,
    /// The model, where the path names it.
    pub model: Option<String>,
}

/// Why a path is none of ours.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoRoute {
    /// No API of ours has it.
    #[error("no API of a model has the path {0}")]
    Path(String),
    /// It has another method.
    #[error("{path} is asked with {method}, not with {got}")]
    Method {
        /// The path.
        path: String,
        /// The method that it has.
        method: &'static str,
        /// The method that was used.
        got: String,
    },
}

impl Endpoint {
    /// The language of it.
    pub fn wire(self) -> Wire {
        match self {
            Self::ChatCompletions | Self::Embeddings => Wire::OpenAiChat,
            Self::Responses => Wire::OpenAiResponses,
            Self::Messages | Self::CountTokens => Wire::Anthropic,
            Self::GenerateContent | Self::StreamGenerateContent | Self::GeminiCountTokens => Wire::Gemini,
            Self::Models(wire) => wire,
        }
    }

    /// Whether a model works for it, so that it is metered and has a price. Counting tokens and listing models is free.
    pub fn is_metered(self) -> bool {
        match self {
            Self::ChatCompletions
            | Self::Responses
            | Self::Embeddings
            | Self::Messages
            | Self::GenerateContent
            | Self::StreamGenerateContent => true,
            Self::CountTokens | Self::GeminiCountTokens | Self::Models(_) => false,
        }
    }

    /// The path below a provider's base URL, which ends before `/v1`.
    pub fn path(self, model: &str) -> String {
        match self {
            Self::ChatCompletions => "/v1/chat/completions".to_owned(),
            Self::Responses => "/v1/responses".to_owned(),
            Self::Embeddings => "/v1/embeddings".to_owned(),
            Self::Messages => "/v1/messages".to_owned(),
            Self::CountTokens => "/v1/messages/count_tokens".to_owned(),
            Self::GenerateContent => format!("/v1beta/models/{model}:generateContent"),
            Self::StreamGenerateContent => format!("/v1beta/models/{model}:streamGenerateContent"),
            Self::GeminiCountTokens => format!("/v1beta/models/{model}:countTokens"),
            Self::Models(Wire::Gemini) => "/v1beta/models".to_owned(),
            Self::Models(_) => "/v1/models".to_owned(),
        }
    }
}

impl Route {
    /// What `method` and `path` ask for; the path has no query. `anthropic` says that the client sent a header of Anthropic's, which is
    /// all that tells its list of models from OpenAI's.
    ///
    /// # Errors
    /// When no API of ours has it.
    pub fn find(method: &str, path: &str, anthropic: bool) -> Result<Self, NoRoute> {
        let rest = below_versions(path).ok_or_else(|| NoRoute::Path(shown(path)))?;
        let plain = |endpoint| Self { endpoint, model: None };
        let (route, wanted) = match rest {
            "/chat/completions" => (plain(Endpoint::ChatCompletions), "POST"),
            "/responses" => (plain(Endpoint::Responses), "POST"),
            "/embeddings" => (plain(Endpoint::Embeddings), "POST"),
            "/messages" => (plain(Endpoint::Messages), "POST"),
            "/messages/count_tokens" => (plain(Endpoint::CountTokens), "POST"),
            _ => match rest.strip_prefix("/models") {
                Some(rest) => of_models(rest, path, anthropic)?,
                None => return Err(NoRoute::Path(shown(path))),
            },
        };
        if method != wanted {
            return Err(NoRoute::Method { path: path.to_owned(), method: wanted, got: method.to_owned() });
        }
        Ok(route)
    }
}

/// The path without its version, which may be there twice or not at all.
fn below_versions(path: &str) -> Option<&str> {
    let mut rest = path.strip_suffix('/').filter(|path| !path.is_empty()).unwrap_or(path);
    for version in ["/v1beta", "/v1", "/v1"] {
        if let Some(below) = rest.strip_prefix(version).filter(|below| below.starts_with('/')) {
            rest = below;
        }
    }
    rest.starts_with('/').then_some(rest)
}

fn of_models(rest: &str, path: &str, anthropic: bool) -> Result<(Route, &'static str), NoRoute> {
    let wire = match (path.starts_with("/v1beta"), anthropic) {
        (true, _) => Wire::Gemini,
        (false, true) => Wire::Anthropic,
        (false, false) => Wire::OpenAiChat,
    };
    if rest.is_empty() {
        return Ok((Route { endpoint: Endpoint::Models(wire), model: None }, "GET"));
    }
    let Some(named) = rest.strip_prefix('/').filter(|named| !named.is_empty()) else {
        return Err(NoRoute::Path(shown(path)));
    };
    if !is_segments(named) {
        return Err(NoRoute::Path(shown(path)));
    }
    let generating = [
        (":generateContent", Endpoint::GenerateContent),
        (":streamGenerateContent", Endpoint::StreamGenerateContent),
        (":countTokens", Endpoint::GeminiCountTokens),
    ];
    for (verb, endpoint) in generating {
        if let Some(model) = named.strip_suffix(verb).filter(|model| !model.is_empty()) {
            return Ok((Route { endpoint, model: Some(model.to_owned()) }, "POST"));
        }
    }
    // A verb that is none of those above.
    if wire == Wire::Gemini && named.contains(':') {
        return Err(NoRoute::Path(shown(path)));
    }
    let endpoint = Endpoint::Models(wire);
    Ok((Route { endpoint, model: Some(named.to_owned()) }, "GET"))
}

/// Whether the name of a model can stand in a path and means nothing else there: no dots that lead upwards, nothing encoded.
fn is_segments(named: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-:@".contains(c);
    named.len() <= MOST_OF_A_NAME
        && named
            .split('/')
            .all(|part| !part.is_empty() && part.chars().any(|c| c != '.') && part.chars().all(is_plain))
}

/// A text of a client's, as far as a message needs it.
fn shown(text: &str) -> String {
    const MOST: usize = 100;
    match text.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(method: &str, path: &str) -> Option<(Endpoint, Option<String>)> {
        let route = Route::find(method, path, false).ok()?;
        Some((route.endpoint, route.model))
    }

    #[test]
    fn a_version_may_be_there_twice_or_not_at_all() {
        for (path, endpoint) in [
            ("/chat/completions", Endpoint::ChatCompletions),
            ("/v1/responses", Endpoint::Responses),
            ("/messages", Endpoint::Messages),
            ("/v1/messages/count_tokens", Endpoint::CountTokens),
            ("/v1/embeddings", Endpoint::Embeddings),
        ] {
            let bare = path.strip_prefix("/v1").unwrap_or(path);
            for spelled in
                [bare.to_owned(), format!("/v1{bare}"), format!("/v1/v1{bare}"), format!("/v1{bare}/")]
            {
                assert_eq!(found("POST", &spelled), Some((endpoint, None)), "{spelled}");
            }
        }
    }

    #[test]
    fn a_model_may_stand_in_the_path() {
        let model = |name: &str| Some(name.to_owned());
        for (method, path, expected) in [
            ("POST", "/v1beta/models/g-2:generateContent", (Endpoint::GenerateContent, model("g-2"))),
            ("POST", "/v1/v1beta/models/g:countTokens", (Endpoint::GeminiCountTokens, model("g"))),
            ("POST", "/models/a/b:streamGenerateContent", (Endpoint::StreamGenerateContent, model("a/b"))),
            ("GET", "/v1/models", (Endpoint::Models(Wire::OpenAiChat), None)),
            ("GET", "/v1beta/models", (Endpoint::Models(Wire::Gemini), None)),
            ("GET", "/v1/models/org/m", (Endpoint::Models(Wire::OpenAiChat), model("org/m"))),
        ] {
            let path = path.replace("/v1/v1beta", "/v1beta");
            assert_eq!(found(method, &path), Some(expected), "{path}");
        }
        let anthropic = Route::find("GET", "/v1/models", true).expect("a list");
        assert_eq!(anthropic.endpoint, Endpoint::Models(Wire::Anthropic));
    }

    #[test]
    fn everything_else_is_none_of_ours() {
        for (method, path) in [
            ("GET", "/v1/chat/completions"),
            ("POST", "/v1/v1/v1/messages"),
            ("POST", "/v1/files"),
            ("POST", "/v1/modelsx"),
            ("GET", "/"),
            ("GET", ""),
            ("GET", "*"),
            ("DELETE", "/v1/models/m"),
            ("POST", "//v1/messages"),
            ("GET", "/v1/models/../files/secret"),
            ("GET", "/v1/models/%2e%2e/files"),
            ("GET", "/v1/models/a//b"),
            ("POST", "/v1beta/models/../../v1/x/y:generateContent"),
            ("POST", "/v1beta/models/m:embedContent"),
        ] {
            assert_eq!(found(method, path), None, "{method} {path}");
        }
    }
}
