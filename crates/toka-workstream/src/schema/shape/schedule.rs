//! `spec.schedule`.

use schemars::JsonSchema;

use super::kinds;

/// An expression, or a map with more.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum ScheduleSection {
    /// An expression with everything else at its default.
    Short(#[schemars(schema_with = "kinds::cron")] String),
    /// With its policies.
    Full(Schedule),
}

/// When the agent is started by the clock.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Schedule {
    /// Minute, hour, day of month, month, day of week, as in cron(5); with six fields the first is the second, and a seventh
    /// is the year. Or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`.
    #[schemars(schema_with = "kinds::cron", extend("examples" = ["30 2 * * MON-FRI"]))]
    cron: String,
    /// The time zone of these times, by its name in the IANA database; by default that of the host. What is due at a time
    /// that a spring change leaves out comes right after it, and what is due at one that comes twice in autumn comes once.
    #[serde(default)]
    #[schemars(schema_with = "kinds::text", extend("examples" = ["Europe/Berlin"]))]
    timezone: String,
    /// What to do when a time comes and the agent still runs: pass it over, start it once more when it has ended, or stop
    /// it and start it then.
    #[schemars(extend("default" = "skip", "examples" = ["queue"]))]
    overlap: Option<Overlap>,
    /// What to do about times that came while nobody was there to start it: nothing, or start it once for all of them.
    #[schemars(extend("default" = "none", "examples" = ["last"]))]
    catch_up: Option<CatchUp>,
}

/// What to do when a time comes and the agent still runs.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub(super) enum Overlap {
    /// The time is passed over.
    Skip,
    /// It is started once more when it has ended.
    Queue,
    /// It is stopped, and then started.
    Replace,
}

/// What to do about times that were missed.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub(super) enum CatchUp {
    /// They are passed over.
    None,
    /// It is started once for all of them.
    Last,
}
