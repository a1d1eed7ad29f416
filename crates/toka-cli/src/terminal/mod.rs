//! What people see. Everything here is a pure function from the stream of events to text; only [`out`] writes.

#[cfg(test)]
pub(crate) mod canned;
pub(crate) mod json;
pub(crate) mod live;
pub(crate) mod out;
pub(crate) mod palette;
pub(crate) mod plain;
pub(crate) mod text;
pub(crate) mod view;
