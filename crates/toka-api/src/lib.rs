//! The only crate that says what Toka can be asked, and asks it: the types of the control sockets, where those sockets are, and
//! the client.
//!
//! A [`Declaration`](declaration::Declaration) is what somebody wants to run; a [`Command`](toka_core::Command) is what is to be
//! done with what runs. Answers are [`wire`] and [`health`]; terminals and commands beside agents are [`stream`]s of messages.

pub mod caller;
pub mod client;
pub mod declaration;
pub mod health;
pub mod host;
pub mod private_file;
pub mod socket;
pub mod stream;
pub mod wire;
