//! What follows from the language that a provider speaks.

use toka_core::Wire;

/// The header in which a key goes to the provider, and what stands before the key in it.
pub fn credentials(wire: Wire) -> (&'static str, &'static str) {
    match wire {
        Wire::OpenAiChat | Wire::OpenAiResponses => ("authorization", "Bearer "),
        Wire::Anthropic => ("x-api-key", ""),
        Wire::Gemini => ("x-goog-api-key", ""),
    }
}

/// The language in which a client most likely speaks that asks for `path`, for the error that it gets. `anthropic` says that it sent a
/// header of Anthropic's.
pub fn of_client(path: &str, anthropic: bool) -> Wire {
    if path.contains("/responses") {
        Wire::OpenAiResponses
    } else if anthropic || path.contains("/messages") {
        Wire::Anthropic
    } else if path.contains("/v1beta") || path.contains("enerateContent") {
        Wire::Gemini
    } else {
        Wire::OpenAiChat
    }
}
