//! Toka's own log, for those who look into Toka itself: off unless `TOKA_LOG` says which parts to tell, for example
//! `TOKA_LOG=debug` or `TOKA_LOG=toka_runtime=trace`. It goes to stderr and never mixes with what the command prints. The
//! daemon, which has no other way to say what goes wrong, tells warnings and errors without being asked.
//!
//! With `TOKA_LOG=info` the stages of a run are spans, each told when it ends with the time that it took: load, plan, run,
//! in it admission, and one for each agent. Spans carry names, numbers and ends; no commands, variables or secrets.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// The variable that holds the filter, in the syntax of tracing-subscriber's `EnvFilter`.
const VARIABLE: &str = "TOKA_LOG";

/// What is told when nobody asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unasked {
    /// Nothing: the command has its own words.
    Nothing,
    /// What goes wrong.
    Warnings,
}

/// Starts logging if `TOKA_LOG` asks for it, or what is told `unasked`. A filter that cannot be read is told, and nothing
/// is logged.
pub(crate) fn start(unasked: Unasked) {
    let asked = std::env::var(VARIABLE).ok();
    let unasked = (unasked == Unasked::Warnings).then(|| "warn".to_owned());
    let Some(directives) = asked.or(unasked) else { return };
    match EnvFilter::try_new(&directives) {
        Ok(filter) => tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_span_events(FmtSpan::CLOSE)
            .with_writer(std::io::stderr)
            .init(),
        Err(error) => anstream::eprintln!("warning: {VARIABLE} is not understood: {error}"),
    }
}
