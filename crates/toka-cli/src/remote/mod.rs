//! A terminal, or the three streams of a command, on the other side of the control socket: what is typed goes there, what is
//! written there comes here.

pub(crate) mod keys;
mod pipes;
pub(crate) mod raw;
mod session;

pub(crate) use pipes::Screen;
pub(crate) use session::{Interrupts, Keyboard, Outcome, Session, size};
