//! What an agent's declaration says of `reporting`: when a report of its health is due ([`timer`]), where it goes
//! ([`channel`]), and how it gets there without anybody waiting for it ([`sender`]).

mod agent_reports;
pub(crate) mod sender;
pub(crate) mod timer;
pub(crate) mod webhook;
