//! The gateway from outside: a client on one side, a provider on the other, and the bytes between them.

mod batched;
mod calls;
mod joined;
mod leaving;
mod rig;
