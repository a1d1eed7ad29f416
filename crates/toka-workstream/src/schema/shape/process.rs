//! `spec.process`, and what happens around it.

use schemars::JsonSchema;

use super::kinds;

/// The process of an agent: one of `command` and `shell`, or a `preset`, whose program then works through the tasks.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Process {
    /// An agent program that Toka knows: `claude-code`, `codex`, `opencode`, `gemini-cli` or `aider`. It gets the variables and files that it
    /// needs behind Toka, and asks its usual models if `spec.model` names none. Alone, it works through `tasks` in words, one after the other,
    /// without a terminal: what it does is reported as progress, and its word on the end of a task counts. With a `command` it is started by that.
    #[schemars(extend("examples" = ["claude-code"]))]
    preset: Option<Preset>,
    /// A program and its arguments. No shell is involved, and nothing is interpolated. A program of the workspace that is not
    /// there yet may be made by a `pre_start` hook, or by an agent that this one waits for. What the program leaves running in the background is
    /// killed when it ends.
    #[serde(default)]
    #[schemars(schema_with = "kinds::argv", extend("examples" = [["cargo", "test"]]))]
    command: String,
    /// A line for `/bin/sh -c`, instead of `command`.
    #[serde(default)]
    #[schemars(schema_with = "kinds::text", extend("examples" = ["cargo test | tee out.txt"]))]
    shell: String,
    /// The working folder, relative to the workspace. One that is not there yet may be made by an agent that this one waits for.
    #[serde(default)]
    #[schemars(schema_with = "kinds::text", extend("default" = ".", "examples" = ["crates/core"]))]
    working_dir: String,
    /// Variables, besides PATH, LANG, TERM, TZ, HOME, TMPDIR and USER, which every agent has. Nothing else is
    /// inherited.
    #[serde(default)]
    #[schemars(schema_with = "kinds::text_map", extend("default" = {}, "examples" = [{"CARGO_TERM_COLOR": "never"}]))]
    environment: String,
    /// Names of variables that are passed through from the caller.
    #[serde(default)]
    #[schemars(schema_with = "kinds::texts", extend("default" = [], "examples" = [["CI"]]))]
    environment_from: String,
    /// Files of `NAME=value` lines, relative to the workspace.
    #[serde(default)]
    #[schemars(schema_with = "kinds::texts", extend("default" = [], "examples" = [[".env"]]))]
    environment_file: String,
    /// Whose process it is: `invoking`, `dynamic` (a user id of its own while it runs), or a name. The last
    /// two need root.
    #[serde(default)]
    #[schemars(schema_with = "kinds::text", extend("default" = "invoking", "examples" = ["dynamic"]))]
    user: String,
    /// Whether the process runs on a terminal of its own instead of pipes, 80 by 24 until somebody attaches (`toka attach`).
    #[schemars(extend("default" = false, "examples" = [true]))]
    tty: Option<bool>,
}

/// An agent program.
#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
pub(super) enum Preset {
    /// Claude Code of Anthropic.
    ClaudeCode,
    /// Codex of OpenAI.
    Codex,
    /// OpenCode.
    Opencode,
    /// Gemini CLI of Google.
    GeminiCli,
    /// aider.
    Aider,
}

/// Where the value of a secret is found: exactly one of `file` and `env`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Secret {
    /// A file of the host; `~/` is your home.
    #[serde(default)]
    #[schemars(schema_with = "kinds::text", extend("examples" = ["~/.config/gh/token"]))]
    file: String,
    /// A variable of Toka's own environment.
    #[serde(default)]
    #[schemars(schema_with = "kinds::text", extend("examples" = ["SOME_KEY"]))]
    env: String,
}

/// A policy, or a map with more.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum RestartSection {
    /// A policy with everything else at its default.
    Policy(Policy),
    /// With its numbers.
    Full(Restart),
}

/// When an agent is started again after it ended.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Restart {
    /// After which ends. By default `no` for a task, `on-failure` for a service.
    #[schemars(extend("examples" = ["on-failure"]))]
    policy: Option<Policy>,
    /// Restarts within `window`, or `unlimited`; what one more end means, `when_exhausted` says.
    #[schemars(extend("default" = 5, "examples" = [10, "unlimited"]))]
    max_restarts: Option<MaxRestarts>,
    /// What becomes of it when it has ended once more: `fail`, and it is quarantined until somebody starts it; or `accept`,
    /// and its last end is its end, whatever that was.
    #[schemars(extend("default" = "fail", "examples" = ["accept"]))]
    when_exhausted: Option<WhenExhausted>,
    /// The time over which restarts are counted.
    #[serde(default)]
    #[schemars(schema_with = "kinds::duration", extend("default" = "10m", "examples" = ["1h"]))]
    window: String,
    /// The wait before each restart.
    #[schemars(extend("examples" = [{"initial": "1s", "max": "1m"}]))]
    backoff: Option<Backoff>,
}

/// How many restarts are made.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum MaxRestarts {
    /// So many.
    Limited(u32),
    /// As many as it takes.
    Unlimited(Unlimited),
}

/// The word for no limit.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub(super) enum Unlimited {
    /// As many as it takes.
    Unlimited,
}

/// What becomes of an agent that may not be restarted any more.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub(super) enum WhenExhausted {
    /// It is quarantined, a failure.
    Fail,
    /// Its last end counts as what it is.
    Accept,
}

/// After which ends an agent is started again. YAML 1.1's false stands for `no`.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum Policy {
    /// A word.
    Word(PolicyWord),
    /// What some readers make of a bare `no`.
    #[schemars(schema_with = "only_false")]
    False,
}

fn only_false(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"const": false})
}

/// After which ends an agent is started again.
#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
pub(super) enum PolicyWord {
    /// Never.
    No,
    /// The same as `no`.
    Never,
    /// The same as `no`.
    Off,
    /// After every end that nobody asked for.
    Always,
    /// After every end but a success.
    OnFailure,
    /// After a signal, a timeout, the watchdog, a probe or too much memory, not after an exit code or a failed start.
    OnAbnormal,
    /// After the watchdog or a probe only.
    OnWatchdog,
    /// Like `always`, and not after a stop that outlives the supervisor.
    UnlessStopped,
}

/// The wait before a restart, which grows from one to the next.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Backoff {
    /// Before the first restart in a row.
    #[serde(default)]
    #[schemars(schema_with = "kinds::duration", extend("default" = "1s", "examples" = ["500ms"]))]
    initial: String,
    /// The longest wait.
    #[serde(default)]
    #[schemars(schema_with = "kinds::duration", extend("default" = "1m", "examples" = ["5m"]))]
    max: String,
    /// Growth from one wait to the next.
    #[schemars(range(min = 1, max = 100), extend("default" = 2, "examples" = [1.5]))]
    multiplier: Option<f64>,
    /// The share of the wait that is drawn at random.
    #[schemars(range(min = 0, max = 1), extend("default" = 0.25, "examples" = [0.1]))]
    jitter: Option<f64>,
    /// After a life this long the next restart is immediate, and the waits begin anew.
    #[serde(default)]
    #[schemars(schema_with = "kinds::duration", extend("default" = "1m", "examples" = ["10m"]))]
    reset_after: String,
}

/// A probe with the fields of Kubernetes; at most one of `exec`, `http_get`, `tcp_socket`, `log_line`
/// and `notification_fd`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Probe {
    /// A command in the agent's sandbox; exit status 0 is success.
    #[schemars(extend("examples" = [{"command": ["./ready.sh"]}]))]
    exec: Option<ExecSection>,
    /// A GET request; a status from 200 to 399 is success.
    #[schemars(extend("examples" = [{"port": 8080, "path": "/ready"}]))]
    http_get: Option<HttpGet>,
    /// A TCP connection; one that is accepted is success.
    #[schemars(extend("examples" = [{"port": 5432}]))]
    tcp_socket: Option<TcpSocket>,
    /// Text of a line of output; once it was written, the probe has succeeded. Not for liveness.
    #[serde(default)]
    #[schemars(schema_with = "kinds::text", extend("examples" = ["listening on"]))]
    log_line: String,
    /// The number of a descriptor that the agent gets, on which it writes a newline when it is ready, as with s6. Only for
    /// readiness, and below `max_open_files`.
    #[schemars(range(min = 3, max = 1023), extend("examples" = [3]))]
    notification_fd: Option<u16>,
    /// The wait before the first time.
    #[serde(default)]
    #[schemars(schema_with = "kinds::duration", extend("default" = "0s", "examples" = ["5s"]))]
    initial_delay: String,
    /// The time from one to the next.
    #[serde(default)]
    #[schemars(schema_with = "kinds::duration", extend("default" = "10s", "examples" = ["2s"]))]
    period: String,
    /// An answer that takes longer is a failure.
    #[serde(default)]
    #[schemars(schema_with = "kinds::duration", extend("default" = "1s", "examples" = ["500ms"]))]
    timeout: String,
    /// Successes in a row that make it succeed.
    #[schemars(range(min = 1), extend("default" = 1, "examples" = [2]))]
    success_threshold: Option<u32>,
    /// Failures in a row that make it fail.
    #[schemars(range(min = 1), extend("default" = 3, "examples" = [5]))]
    failure_threshold: Option<u32>,
}

/// A command, or a map with one.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum ExecSection {
    /// Only the command.
    Short(#[schemars(schema_with = "kinds::argv")] String),
    /// With its key.
    Full(ProbeExec),
}

/// A command that is asked.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct ProbeExec {
    /// A program and its arguments.
    #[schemars(schema_with = "kinds::argv", extend("examples" = [["./ready.sh"]]))]
    command: String,
}

/// A request that is made.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct HttpGet {
    /// The host.
    #[serde(default)]
    #[schemars(schema_with = "kinds::text", extend("default" = "127.0.0.1", "examples" = ["localhost"]))]
    host: String,
    /// The port.
    #[schemars(schema_with = "kinds::port", extend("examples" = [8080]))]
    port: u16,
    /// The path, with its leading slash.
    #[serde(default)]
    #[schemars(schema_with = "kinds::text", extend("default" = "/", "examples" = ["/ready"]))]
    path: String,
    /// The scheme; with `https` the certificate is not verified.
    #[schemars(extend("default" = "http", "examples" = ["https"]))]
    scheme: Option<Scheme>,
    /// Headers of the request.
    #[serde(default)]
    #[schemars(schema_with = "kinds::text_map", extend("default" = {}, "examples" = [{"Accept": "text/plain"}]))]
    headers: String,
}

/// The scheme of a request.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub(super) enum Scheme {
    /// Plain.
    Http,
    /// TLS; the certificate is not verified.
    Https,
}

/// A connection that is tried.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct TcpSocket {
    /// The host.
    #[serde(default)]
    #[schemars(schema_with = "kinds::text", extend("default" = "127.0.0.1", "examples" = ["localhost"]))]
    host: String,
    /// The port.
    #[schemars(schema_with = "kinds::port", extend("examples" = [5432]))]
    port: u16,
}

/// How an agent is stopped.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Stop {
    /// The signal that asks for the end: a name or a number.
    #[serde(default)]
    #[schemars(schema_with = "kinds::signal", extend("default" = "SIGTERM", "examples" = ["SIGINT"]))]
    signal: String,
    /// The time until everything that the agent started is killed.
    #[serde(default)]
    #[schemars(schema_with = "kinds::duration", extend("default" = "10s", "examples" = ["30s"]))]
    grace_period: String,
}

/// Commands around the agent's life; each a list of a program and its arguments, or a list of such lists.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Hooks {
    /// Before the process, in 90 s at most; a failure fails the start. Toka takes reports (`toka report`) only while the process runs.
    #[serde(default)]
    #[schemars(schema_with = "kinds::commands", extend("default" = [], "examples" = [["mkdir", "-p", "out"]]))]
    pre_start: String,
    /// Beside the process, once it executes its program; a failure ends the agent as a start that failed.
    #[serde(default)]
    #[schemars(schema_with = "kinds::commands", extend("default" = [], "examples" = [["touch", "out/started"]]))]
    post_start: String,
    /// Beside the process, before the stop signal and within the grace period.
    #[serde(default)]
    #[schemars(schema_with = "kinds::commands", extend("default" = [], "examples" = [["./drain.sh"]]))]
    pre_stop: String,
    /// When the agent is gone with all that it started, however it ended, and after a start that failed; a failure is told.
    #[serde(default)]
    #[schemars(schema_with = "kinds::commands", extend("default" = [], "examples" = [["rm", "-r", "out"]]))]
    post_stop: String,
}
