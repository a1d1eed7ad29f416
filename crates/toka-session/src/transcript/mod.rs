//! What was said and done in a session, as lines of a file ([`toka_core::transcript`]).

mod file;
mod folder;
mod open_calls;

pub(crate) use file::name_of;
pub use file::{Transcript, TranscriptError};
pub use folder::SessionFolder;
pub(crate) use open_calls::{RunEffect, open_calls};
