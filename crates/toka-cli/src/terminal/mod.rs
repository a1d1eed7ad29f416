//! What people see. Everything here is a pure function from the stream of events to text; only [`out`] writes.

pub(crate) mod out;
pub(crate) mod palette;
