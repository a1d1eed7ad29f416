//! The language of the agent's door: JSON-RPC 2.0 (<https://www.jsonrpc.org/specification>), one message a line, over
//! the stream socket that `TOKA_SOCKET` names.
//!
//! Both sides use these types, so that a word cannot mean two things: the client inside the sandbox, and the daemon,
//! which trusts nothing in a message but its shape (who is calling is decided by the socket and the peer's control
//! group). Reading a line is pure, and every way in which it can be wrong has a code of its own. Batches are not part
//! of the protocol. The methods:
//!
//! | method | params | result |
//! |---|---|---|
//! | `progress` | [`crate::Progress`] | `{}` |
//! | `metrics` | [`Metrics`] | `{}` |
//! | `ready` | `{}` | `{}` |
//! | `tasks/get` | `{}` | [`TaskList`] |
//! | `task/enter` | [`TaskEnter`] | `{}` |
//! | `task/next` | [`TaskNext`] | [`TaskStep`] |
//! | `task/end` | [`TaskEnd`] | [`TaskEnded`] |
//!
//! `progress`, `metrics` and `ready` may be notifications: without an `id`, nobody answers.

mod call;
mod task;
mod wire;

pub use call::{Call, MAX_METRICS, MAX_TEXT, Metrics};
pub use task::{RetryRule, TaskDo, TaskEnd, TaskEnded, TaskEnter, TaskList, TaskNext, TaskSpec, TaskStep};
pub use wire::{
    Id, Incoming, MAX_LINE, Rejected, ReplyError, RpcError, call_line, parse_call, parse_reply, reply_line,
};
