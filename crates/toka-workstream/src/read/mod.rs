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

/// Largest file in bytes. The largest real workstreams have some tens of kilobytes.
pub(crate) const MAX_BYTES: usize = 1 << 20;
/// Deepest nesting of lists and maps.
pub(crate) const MAX_DEPTH: usize = 64;
/// Most nodes (keys and values) of a file, those that aliases repeat counted each time.
pub(crate) const MAX_NODES: usize = 20_000;
/// Most aliases of a file.
pub(crate) const MAX_ALIASES: usize = 1000;
/// Longest single value in bytes: a command line of Linux ends there too (`MAX_ARG_STRLEN`, execve(2)).
pub(crate) const MAX_SCALAR: usize = 128 << 10;
