//! What agents write: from their pipes to a log file without passing through this program, and back out as lines.
//!
//! A log is two files. `NAME` holds the raw bytes of both streams in the order in which they were taken from the
//! pipes; `NAME.index` says when and from which stream each stretch came ([`index`]). Nothing is parsed, escaped or
//! reordered on the way in, so an agent that writes binary, or one endless line, costs as little as any other;
//! whoever reads makes lines and times from both files ([`LogReader`]).

pub mod index;
mod pump;
mod reader;
mod watch;
mod writer;

use std::path::{Path, PathBuf};

pub use index::Stream;
pub(crate) use pump::{Note, Pump};
pub use reader::{Ending, Follower, Line, LogReader, MAX_PIECE, tail};
pub use writer::LogWriter;

/// Where the index of the log `log` is.
pub fn index_path(log: &Path) -> PathBuf {
    let mut path = log.as_os_str().to_owned();
    path.push(".index");
    PathBuf::from(path)
}
