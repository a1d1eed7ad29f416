//! Wires everything together.

pub mod confine;
pub mod folders;
