//! The only crate that writes what agents write, and reads it back: from their pipes to log files without passing through this program, and back out as lines.
//!
//! A log is two files. `NAME` holds the raw bytes of both streams in the order in which they were taken from the
//! pipes; `NAME.index` says when and from which stream each stretch came ([`index`]). Nothing is parsed, escaped or
//! reordered on the way in, so an agent that writes binary, or one endless line, costs as little as any other;
//! whoever reads makes lines and times from both files ([`LogReader`]).
//!
//! What an agent wrote in earlier runs, and what became too long, is kept beside it in older logs ([`segment`]), which a
//! thread of its own looks after ([`LogRetention`]); [`History`] reads across them.

mod flow;
mod history;
pub mod index;
mod names;
mod place;
mod pump;
mod reader;
mod retention;
mod rotation;
pub mod segment;
mod source;
#[cfg(test)]
mod tests;
mod watch;
mod writer;

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

pub use flow::receiver;
pub use history::{Bookmark, Extent, History, Item, last_items, tail};
pub use index::{Gap, Stream};
pub use names::older_folder;
pub use place::LogPlace;
pub use pump::{Note, Pump};
pub use reader::{Ending, Entry, Line, LogReader, MAX_PIECE};
pub use retention::{EveryLog, LogRetention, excess_of};
pub use segment::{Segment, segments};
pub use writer::{LogWriter, Screen};

/// Where the index of the log `log` is.
pub fn index_path(log: &Path) -> PathBuf {
    names::with(log, ".index")
}

/// The wall clock in milliseconds since the Unix epoch; a clock before 1970 counts as 1970.
fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
