//! What people see. Everything here is a pure function from the stream of events to text; only [`device`] and [`out`]
//! write, and only [`display`] reads a clock.

pub mod approvals;
pub mod bills;
#[cfg(test)]
pub(crate) mod canned;
pub mod chat;
pub mod device;
pub mod display;
pub mod ending;
pub mod failure;
pub mod follow;
pub(crate) mod grid;
pub mod health;
pub mod health_page;
pub mod json;
pub mod list;
pub mod live;
pub mod mode;
pub mod out;
pub mod palette;
pub mod phrases;
pub mod plain;
pub mod screen;
mod session;
pub mod sessions;
pub mod summary;
pub mod table;
pub mod text;
pub mod view;
pub mod wrap;
