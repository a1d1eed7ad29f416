//! Owns an agent's life: lifecycle, output, progress.

pub mod output;
