//! What people see. Everything here is a pure function from the stream of events to text; only [`device`] and [`out`]
//! write, and only [`display`] reads a clock.

#[cfg(test)]
pub(crate) mod canned;
pub(crate) mod device;
pub(crate) mod display;
pub(crate) mod ending;
pub(crate) mod follow;
pub(crate) mod health;
pub(crate) mod health_page;
pub(crate) mod json;
pub(crate) mod list;
pub(crate) mod live;
pub(crate) mod mode;
pub(crate) mod out;
pub(crate) mod palette;
pub(crate) mod phrases;
pub(crate) mod plain;
pub(crate) mod screen;
pub(crate) mod summary;
pub(crate) mod table;
pub(crate) mod text;
pub(crate) mod view;
pub(crate) mod wrap;
