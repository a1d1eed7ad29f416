//! `toka top`: the agents of all projects on the whole terminal, moving while they do.
//!
//! ```text
//!  feed ─┐                         ┌─▶ draw ─▶ screen
//!  sampling ─┼─▶ Message ─▶ model ─┤
//!  log ─┤                          └─▶ Effect ─▶ session ─▶ daemon
//!  keyboard ─┘
//! ```
//!
//! [`model`] decides and never waits, [`draw`] is a function from the model to cells; only [`feed`], [`sampling`], [`log`]
//! and [`session`] talk to anybody, and only [`screen`] touches the terminal.

mod draw;
mod feed;
mod figures;
mod keyboard;
mod keys;
mod layout;
mod log;
mod log_line;
mod machine;
mod model;
mod mouse;
mod pages;
mod rows;
mod sampling;
mod screen;
mod session;
#[cfg(test)]
mod tests;
mod theme;

pub(crate) use screen::Mouse;
pub(crate) use session::run;
