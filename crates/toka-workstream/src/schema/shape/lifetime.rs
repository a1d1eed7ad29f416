//! `spec.start`, `spec.on_end` and `spec.success_exit_codes`.

use schemars::JsonSchema;

use super::kinds;

/// What starts an agent that has no schedule.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub(super) enum StartWord {
    /// Its turn, when everything that it waits for is so.
    Auto,
    /// `toka start`, and nothing else. A run does not wait for it.
    Manual,
}

/// What the end of the agent means for the run.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct OnEnd {
    /// Of an end that is a success.
    #[schemars(extend("default" = "continue", "examples" = ["stop-run"]))]
    success: Option<AfterEnd>,
    /// Of any other that nobody asked for, after its last restart; and when it is blocked.
    #[schemars(extend("default" = "continue", "examples" = ["stop-run"]))]
    failure: Option<AfterEnd>,
}

/// What the end of an agent means for the run.
#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
pub(super) enum AfterEnd {
    /// Nothing.
    Continue,
    /// The run is over: all its agents are stopped.
    StopRun,
}

/// Ends that are a success: one, or a list.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum SuccessCodes {
    /// One.
    One(SuccessCode),
    /// Several.
    Several(Vec<SuccessCode>),
}

/// An end that is a success.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum SuccessCode {
    /// An exit code.
    Code(#[schemars(range(min = 0, max = 255))] u32),
    /// The name of a signal that Toka did not send.
    Signal(#[schemars(schema_with = "kinds::signal")] String),
}
