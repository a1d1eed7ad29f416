//! What an agent is to do, for whom it waits, and how it reports.

use std::collections::BTreeMap;

use schemars::JsonSchema;

use super::kinds;
use super::spec::Priority;

/// What the agent is good at, for people and models.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Capabilities {
    /// In the first place.
    #[serde(default)]
    #[schemars(schema_with = "kinds::texts", extend("default" = [], "examples" = [["testing"]]))]
    primary: String,
    /// Besides.
    #[serde(default)]
    #[schemars(schema_with = "kinds::texts", extend("default" = [], "examples" = [["reporting"]]))]
    secondary: String,
}

/// An objective, or only its description.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum ObjectiveEntry {
    /// Its description.
    Text(String),
    /// In full.
    Full(Objective),
}

/// Something to achieve.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Objective {
    /// What is to be achieved.
    #[schemars(schema_with = "kinds::text", extend("examples" = ["All tests pass"]))]
    description: String,
    /// What is left behind.
    #[serde(default)]
    #[schemars(schema_with = "kinds::texts", extend("examples" = ["report.md"]))]
    deliverable: String,
    /// How a person sees that it is achieved.
    #[serde(default)]
    #[schemars(schema_with = "kinds::texts", extend("examples" = ["the report has no red line"]))]
    validation: String,
    /// How much it matters.
    #[schemars(extend("default" = "medium", "examples" = ["high"]))]
    priority: Option<Priority>,
    /// How the machine sees it: a command, or a line for the shell; exit status 0 means that it is met.
    #[serde(default)]
    #[schemars(schema_with = "kinds::command", extend("examples" = ["test -s report.md"]))]
    check: String,
}

/// Groups of tasks, or a plain list of them.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum TasksSection {
    /// In groups.
    Groups(Tasks),
    /// The same as `default`.
    List(Vec<TaskEntry>),
}

/// What the agent is to do.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Tasks {
    /// What is always done.
    #[schemars(extend("default" = [], "examples" = [[{"description": "Run the tests", "run": "cargo test"}]]))]
    default: Option<Vec<TaskEntry>>,
    /// Groups of tasks by name, which `--enable GROUP` switches on.
    #[schemars(extend("default" = {}, "examples" = [{"nightly": [{"description": "Run the long tests", "run": "cargo test -- --ignored"}]}]))]
    conditional: Option<Groups>,
}

/// Groups of tasks.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum Groups {
    /// By name.
    Map(BTreeMap<String, Option<Vec<TaskEntry>>>),
    /// A list of maps.
    List(Vec<BTreeMap<String, Option<Vec<TaskEntry>>>>),
}

/// A task, or only its description.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum TaskEntry {
    /// Its description.
    Text(String),
    /// In full.
    Full(Box<Task>),
}

/// Something to do.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Task {
    /// What is to be done.
    #[schemars(schema_with = "kinds::text", extend("examples" = ["Run the test suite"]))]
    description: String,
    /// Orders tasks that do not wait for each other.
    #[schemars(extend("default" = "medium", "examples" = ["critical"]))]
    priority: Option<Priority>,
    /// How long it will probably take, free text.
    #[serde(default)]
    #[schemars(schema_with = "kinds::text", extend("examples" = ["2 hours"]))]
    estimated_duration: String,
    /// The same as `estimated_duration`.
    #[serde(default)]
    #[schemars(schema_with = "kinds::text", extend("examples" = ["2 hours"]))]
    estimated_time: String,
    /// What it needs, free text.
    #[serde(default)]
    #[schemars(schema_with = "kinds::texts", extend("default" = [], "examples" = [["cargo"]]))]
    tools_required: String,
    /// Tasks of the same agent that come first, by description or by number from 1.
    #[serde(default)]
    #[schemars(schema_with = "kinds::texts", extend("default" = [], "examples" = [["Fetch the sources"]]))]
    dependencies: String,
    /// A line for `/bin/sh -c`; what it leaves running in the background is killed when it ends. Without it, and without
    /// `spec.process`, the task needs a model.
    #[serde(default)]
    #[schemars(schema_with = "kinds::text", extend("examples" = ["cargo test"]))]
    run: String,
    /// The longest time of one attempt.
    #[serde(default)]
    #[schemars(schema_with = "kinds::duration", extend("examples" = ["20m"]))]
    timeout: String,
    /// How often it is tried: a number of attempts, or a map. By default once.
    #[schemars(extend("examples" = [3]))]
    retry: Option<RetrySection>,
}

/// A number of attempts, or a map with more.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum RetrySection {
    /// Attempts in all.
    Attempts(#[schemars(range(min = 1, max = 1000))] u32),
    /// With the waits in between.
    Full(Retry),
}

/// How often a task is tried.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Retry {
    /// Attempts in all.
    #[schemars(range(min = 1, max = 1000), extend("default" = 3, "examples" = [5]))]
    max_attempts: Option<u32>,
    /// The wait before the second attempt.
    #[serde(default)]
    #[schemars(schema_with = "kinds::duration", extend("default" = "1s", "examples" = ["5s"]))]
    initial: String,
    /// The longest wait.
    #[serde(default)]
    #[schemars(schema_with = "kinds::duration", extend("default" = "1m", "examples" = ["10m"]))]
    max: String,
    /// Growth from one wait to the next.
    #[schemars(range(min = 1, max = 100), extend("default" = 2, "examples" = [3]))]
    multiplier: Option<f64>,
}

/// Which agents come first: a map of names and reasons, a list of such one-key maps, or a list of names.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Dependencies {
    /// Without these the agent never starts.
    #[schemars(extend("default" = {}, "examples" = [{"fetch": "sources must be there"}]))]
    required: Option<Edges>,
    /// After these the agent starts, whatever became of them.
    #[schemars(extend("default" = {}, "examples" = [{"lint": {"reason": "its report is nice to have", "condition": "completed"}}]))]
    optional: Option<Edges>,
}

/// Dependencies in any of their forms.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum Edges {
    /// Names and reasons.
    Map(BTreeMap<String, Option<Reason>>),
    /// Names, one-key maps, or maps with a `name`.
    List(Vec<Edge>),
}

/// One dependency in a list.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum Edge {
    /// A name.
    Name(String),
    /// In full, with its `name`.
    Full(Dependency),
    /// A name and its reason.
    Pair(BTreeMap<String, Option<Reason>>),
}

/// A reason in words, or with a condition.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum Reason {
    /// In words.
    Text(#[schemars(schema_with = "kinds::text")] String),
    /// In full.
    Full(Dependency),
}

/// A dependency in full.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Dependency {
    /// The agent that comes first, where the name is not the key.
    #[serde(default)]
    #[schemars(schema_with = "kinds::text", extend("examples" = ["fetch"]))]
    name: String,
    /// Why, for people.
    #[serde(default)]
    #[schemars(schema_with = "kinds::text", extend("examples" = ["sources must be there"]))]
    reason: String,
    /// What must have happened. By default `completed_successfully` for a task; for a service `ready` if it
    /// has a readiness or startup probe, else `process_started`.
    #[schemars(extend("examples" = ["ready"]))]
    condition: Option<ConditionSection>,
    /// The same as `condition: {log_line: TEXT}`.
    #[serde(default)]
    #[schemars(schema_with = "kinds::text", extend("examples" = ["listening on"]))]
    log_line: String,
    /// What becomes of this agent when the dependency is skipped because none of its tasks is enabled: `block`, `skip` as
    /// well, or `start` as if the condition were met.
    #[schemars(extend("default" = "block", "examples" = ["skip"]))]
    if_skipped: Option<IfSkipped>,
}

/// What becomes of an agent whose dependency is skipped.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub(super) enum IfSkipped {
    /// It is blocked.
    Block,
    /// It is skipped as well.
    Skip,
    /// It starts.
    Start,
}

/// What must have happened.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum ConditionSection {
    /// In a word.
    Word(ConditionWord),
    /// A line that was written.
    LogLine(LogLine),
}

/// What must have happened.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(super) enum ConditionWord {
    /// Its process runs.
    ProcessStarted,
    /// It said, or its probe found, that it is ready.
    Ready,
    /// It ended, whatever the outcome.
    Completed,
    /// It ended well.
    CompletedSuccessfully,
    /// The checks of its objectives passed.
    ObjectiveMet,
}

/// A line that was written.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct LogLine {
    /// Text that the line contains.
    #[schemars(schema_with = "kinds::text", extend("examples" = ["listening on"]))]
    log_line: String,
}

/// What is kept of the agent's output.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Logs {
    /// The size at which the log becomes an older one, and a new one begins; at least 64KB. By default at most half of
    /// `total`.
    #[serde(default)]
    #[schemars(schema_with = "kinds::size", extend("default" = "16MB", "examples" = ["64MB"]))]
    max_size: String,
    /// The age at which it does, with the next output.
    #[serde(default)]
    #[schemars(schema_with = "kinds::duration", extend("default" = "7d", "examples" = ["1d"]))]
    max_age: String,
    /// The most that all logs of the agent take on disk; of more, the oldest are removed. At least twice `max_size`,
    /// which is also the default where that is more than 128MB.
    #[serde(default)]
    #[schemars(schema_with = "kinds::size", extend("default" = "128MB", "examples" = ["1GB"]))]
    total: String,
    /// Whether older logs are compressed, for `zgrep` and `toka logs` to read.
    #[schemars(extend("default" = true, "examples" = [false]))]
    compress: Option<bool>,
    /// What becomes of output while the disk is full.
    #[schemars(extend("default" = "drop", "examples" = ["block"]))]
    when_full: Option<WhenFull>,
}

/// What becomes of output that cannot be written.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub(super) enum WhenFull {
    /// It is thrown away and counted.
    Drop,
    /// It waits, and the agent that writes more with it, until there is room.
    Block,
}

/// How often and where the agent reports, and what it measures.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Reporting {
    /// How often.
    #[schemars(extend("default" = "on-completion", "examples" = ["daily"]))]
    frequency: Option<Frequency>,
    /// Where to: `file`, `file: NAME`, `topic: NAME`, `webhook: URL`; `terminal` and `journal` have all anyway. Other texts are
    /// names, and nothing is sent there.
    #[serde(default)]
    #[schemars(schema_with = "kinds::texts", extend("default" = [], "examples" = [["file", "topic: builds"]]))]
    channels: String,
    /// What is measured: a map of names and descriptions, a list of such one-key maps, of names, or of maps
    /// with `name`.
    #[schemars(extend("default" = {}, "examples" = [{"coverage": "lines that tests reach"}]))]
    metrics: Option<Metrics>,
}

/// How often an agent reports.
#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
pub(super) enum Frequency {
    /// At every change of its state, once a second at most.
    RealTime,
    /// Once an hour, at its beginning.
    Hourly,
    /// Once a day, at midnight in UTC.
    Daily,
    /// Once a week, when Monday begins in UTC.
    Weekly,
    /// When a task has ended, an objective is met, or another quarter of its progress is done.
    OnMilestone,
    /// When the agent has ended, which every other frequency reports as well.
    OnCompletion,
}

/// Metrics in any of their forms.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum Metrics {
    /// Names and descriptions.
    Map(BTreeMap<String, Option<MetricValue>>),
    /// Names, one-key maps, or maps with a `name`.
    List(Vec<MetricEntry>),
}

/// One metric in a list.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum MetricEntry {
    /// A name.
    Name(String),
    /// In full, with its `name`.
    Full(Metric),
    /// A name and its description.
    Pair(BTreeMap<String, Option<MetricValue>>),
}

/// What a metric says.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum MetricValue {
    /// In words.
    Text(#[schemars(schema_with = "kinds::text")] String),
    /// In full.
    Full(Metric),
}

/// A metric in full.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Metric {
    /// Its name, where the name is not the key.
    #[serde(default)]
    #[schemars(schema_with = "kinds::text", extend("examples" = ["coverage"]))]
    name: String,
    /// What it says.
    #[serde(default)]
    #[schemars(schema_with = "kinds::text", extend("examples" = ["lines that tests reach"]))]
    description: String,
    /// What kind of number it is, free text.
    #[serde(default, rename = "type")]
    #[schemars(schema_with = "kinds::text", extend("examples" = ["gauge"]))]
    kind: String,
    /// Its unit, free text.
    #[serde(default)]
    #[schemars(schema_with = "kinds::text", extend("examples" = ["percent"]))]
    unit: String,
}
