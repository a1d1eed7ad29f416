//! From paths to trees of nodes that know their bytes. Every limit is checked while parsing, before anything
//! is built that could be large: a hostile file costs no more than its own size.

mod build;
mod files;
mod node;
mod parse;
mod scalar;

pub(crate) use files::{Found, collect};
pub(crate) use node::{Entry, Key, Node, Value};
pub(crate) use parse::{Document, parse};
pub(crate) use scalar::{Scalar, ScalarKind, shorten};

/// Largest file in bytes. A thousand documents of the usual size are a quarter of it.
pub(crate) const MAX_BYTES: usize = 4 << 20;
/// Deepest nesting of lists and maps.
pub(crate) const MAX_DEPTH: usize = 64;
/// Most nodes (keys and values) of a document; and most that aliases repeat in a file, each time counted.
pub(crate) const MAX_NODES: usize = 20_000;
/// Most aliases of a file.
pub(crate) const MAX_ALIASES: usize = 1000;
/// Longest single value in bytes: a command line of Linux ends there too (`MAX_ARG_STRLEN`, execve(2)).
pub(crate) const MAX_SCALAR: usize = 128 << 10;
