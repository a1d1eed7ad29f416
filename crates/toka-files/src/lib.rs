//! The only crate that opens files which an agent could write, replace, or make slow to open.
//!
//! A path that is looked up twice can mean two files, a name can be a link, and a file can be a pipe that nobody writes to. So
//! a lookup begins at a directory that is held open ([`Directory`]), follows no link and leaves that directory nowhere
//! (openat2(2): `RESOLVE_BENEATH`, `RESOLVE_NO_SYMLINKS`), never waits (`O_NONBLOCK`), and ends at a regular file of a
//! bounded size, which is read from the descriptor that was checked. [`read_real`] reads a file elsewhere that a person
//! granted, by the path that was granted; [`read_named`] one that a person names on the command line.

mod directory;
mod read;
mod shared;
mod walk;

pub use directory::Directory;
pub use read::{ReadError, read_named, read_real, read_start};
pub use rustix::fs::FileType;
pub use shared::{Shared, shared_files};
pub use walk::{Limits, Stopped, Walk, matches};
