//! The only crate that knows what programs and model providers say to each other: Chat Completions and Responses as OpenAI speaks
//! them, Messages as Anthropic does, and Gemini as Google does. It reads what a gateway must know, changes what it must, and lets everything
//! else through byte for byte. No I/O, no clock.
//!
//! ```text
//!  method, path ─▶ Route          which API it is
//!  request body ─▶ RequestFacts   model, stream, … and where in the bytes the model's name stands
//!  stream       ─▶ sse::Splitter ─▶ Meter   frames: is it content, a ping, the end, an error; which tokens
//!  whole answer ─▶ answer::read   the same of an answer that is no stream
//!  tokens       ─▶ PriceTable     what that cost
//!  two requests ─▶ Prompt         where the second differs, and what that costs
//!  conversation ─▶ Conversation   a request of a built-in agent, and said::Reader what the model answers
//!  a problem    ─▶ problem        an error in the words of that API
//!  requests     ─▶ batch          the same through an interface that answers later and costs less
//! ```
//!
//! Sources: the providers' public references (platform.openai.com/docs/api-reference, docs.anthropic.com/en/api,
//! ai.google.dev/api), and "Server-sent events" of the HTML standard (html.spec.whatwg.org, 9.2).

pub mod answer;
pub mod batch;
mod conversation;
mod meter;
pub mod price;
pub mod problem;
mod prompt;
pub mod render;
mod request;
mod route;
pub mod said;
pub mod sse;
mod usage;
pub mod wire;

pub use conversation::{Assistant, Conversation, Item, ToolDefinition, ToolResult, endpoint};
pub use meter::{Frame, Meter, Progress};
pub use price::PriceTable;
pub use problem::{Problem, ProblemKind};
pub use prompt::{Prompt, Relation};
pub use request::{RequestError, RequestFacts};
pub use route::{Endpoint, NoRoute, Route};
pub use toka_core::Wire;
