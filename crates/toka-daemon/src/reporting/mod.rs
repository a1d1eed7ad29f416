//! What an agent's declaration says of `reporting`: when a report of its health is due ([`clerk`]), where it goes
//! ([`channel`]), and how it gets there without anybody waiting for it ([`courier`]).

pub(crate) mod clerk;
pub(crate) mod courier;
mod file;
pub(crate) mod webhook;
