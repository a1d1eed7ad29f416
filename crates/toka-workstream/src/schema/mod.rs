//! The format as a JSON Schema, and the reference that is made from it.
//!
//! The shapes exist for their schema only: the decoder reads files by hand, because it reports more than a
//! schema can. A test holds the two together by their keys, another by the files that both must take.

mod generate;
mod key;
mod policy_keys;
mod reference;
mod shape;

pub use generate::{Draft, to_text};
pub use key::KeyReference;
pub use reference::{REQUIRED, explain_key, key_references, reference_markdown};
