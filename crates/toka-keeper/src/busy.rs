//! A program whose file somebody has just written is tried again for a moment: a process that was forked meanwhile holds the
//! writer's descriptor until it executes its own program, and the kernel refuses to execute a file that is open for writing
//! (execve(2), `ETXTBSY`).

use std::time::Duration;

/// How often it is tried again.
pub(crate) const TRIES: usize = 50;
/// How long is waited before each: 100 ms in all.
pub(crate) const PAUSE: Duration = Duration::from_millis(2);
