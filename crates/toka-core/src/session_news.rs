//! What somebody who looks at a session is told while it goes on: lines of its transcript, and between them pieces that no transcript keeps.

use serde::{Deserialize, Serialize};

use crate::transcript::Entry;
use crate::{SessionKey, SessionState};

/// A piece of news.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SessionNews {
    /// What follows is about this session.
    Session {
        /// Its key.
        session: SessionKey,
    },
    /// Everything that is on record until now was told, and what follows happens now.
    Live,
    /// A line of the transcript.
    Entry {
        /// The line.
        entry: Box<Entry>,
    },
    /// The session is in another state.
    StateChange {
        /// Which.
        to: SessionState,
    },
    /// Nothing is under way: the session waits for what a person says.
    Listens,
    /// A piece of what the model says. All of it comes as a line of the transcript.
    ResponseChunk {
        /// The text.
        text: String,
    },
    /// A piece of the reasoning that the model shows.
    ThinkingChunk {
        /// The text.
        text: String,
    },
    /// The answer broke off, and begins anew: the pieces of it that were told do not count.
    ResponseRestarted,
    /// A piece of what a tool writes while it is at work.
    ToolCallChunk {
        /// The call.
        call: String,
        /// A line of it.
        text: String,
    },
    /// So much was left out, since whoever reads is too slow; lines of the transcript can be read from its file.
    Missed {
        /// How many pieces.
        count: u64,
    },
}
