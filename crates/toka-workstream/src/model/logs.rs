//! What is kept of an agent's output.

/// `logs`: the same for what is written and for whoever writes, so that nothing is translated on the way.
pub type Logs = toka_core::LogPolicy;
