//! `spec`.

use std::collections::BTreeMap;

use schemars::JsonSchema;

use super::kinds;
use super::lifetime::{OnEnd, StartWord, SuccessCodes};
use super::process::{Hooks, Probe, Process, RestartSection, Secret, Stop};
use super::schedule::ScheduleSection;

/// What the agent is, and the process that it runs.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Spec {
    /// A name for people; by default the agent's name.
    #[serde(default)]
    #[schemars(schema_with = "kinds::text", extend("examples" = ["Build and test checks"]))]
    name: String,
    /// The field that the agent works in, free text; it chooses the templates of prompts.
    #[serde(default)]
    #[schemars(schema_with = "kinds::text", extend("default" = "general", "examples" = ["infrastructure"]))]
    domain: String,
    /// How urgent the agent is: orders starts, and sets its share of CPU when there is not enough.
    #[schemars(extend("default" = "medium", "examples" = ["high"]))]
    priority: Option<Priority>,
    /// What the agent does, for people and models.
    #[serde(default)]
    #[schemars(schema_with = "kinds::text", extend("examples" = ["Runs the tests of the project."]))]
    description: String,
    /// Whether the agent comes to an end by itself. By default a service if `restart.policy` is `always` or
    /// `unless-stopped`, or if there is a probe; else a task.
    #[serde(rename = "type")]
    #[schemars(extend("examples" = ["task"]))]
    kind: Option<Kind>,
    /// The process of the agent. Without it, the built-in runner works through `tasks`.
    #[schemars(extend("examples" = [{"command": ["cargo", "test"]}]))]
    process: Option<Process>,
    /// Secrets by name: each becomes a file in `$CREDENTIALS_DIRECTORY`, and never a variable.
    #[schemars(extend("default" = {}, "examples" = [{"token": {"file": "~/.config/token"}}]))]
    secrets: Option<BTreeMap<String, Secret>>,
    /// When the agent is started again after it ended: a policy, or a map.
    #[schemars(extend("examples" = [{"policy": "on-failure", "max_restarts": 5}]))]
    restart: Option<RestartSection>,
    /// Holds back the other probes until it succeeds, and ends the agent when it fails. An empty one waits for the agent's own `READY=1`.
    #[schemars(extend("examples" = [{}]))]
    startup_probe: Option<Probe>,
    /// Says, as long as the agent lives, whether it is ready; agents that wait for that start while it is. An empty one
    /// waits for the agent's own `READY=1`.
    #[schemars(extend("examples" = [{"exec": {"command": ["./ready.sh"]}}]))]
    readiness_probe: Option<Probe>,
    /// Ends the agent when it fails, and `restart` says whether it comes back; must have a check.
    #[schemars(extend("examples" = [{"http_get": {"port": 8080, "path": "/livez"}}]))]
    liveness_probe: Option<Probe>,
    /// The longest time without a sign of life: progress, output, I/O; from the agent's first `WATCHDOG=1` on, only
    /// further ones. After it an event tells so, after twice as long the agent gets SIGABRT, after three times it is
    /// ended.
    #[serde(default)]
    #[schemars(schema_with = "kinds::duration", extend("examples" = ["30s"]))]
    watchdog: String,
    /// How the agent is stopped.
    #[schemars(extend("examples" = [{"signal": "SIGINT", "grace_period": "5s"}]))]
    stop: Option<Stop>,
    /// Commands around the agent's life, in its own sandbox.
    #[schemars(extend("examples" = [{"pre_start": ["mkdir", "-p", "out"]}]))]
    hooks: Option<Hooks>,
    /// The models that the agent asks: `default` for those that the person has chosen, a name `provider/model`, a list of which the first
    /// that answers is used, or a map. It reaches them at an address of its own (`OPENAI_BASE_URL`, `ANTHROPIC_BASE_URL`), without a key;
    /// a person must have granted `model-access`.
    #[schemars(extend("examples" = ["anthropic/claude-sonnet-4-5"]))]
    model: Option<ModelSection>,
    /// The tools of a model that works on the agent's tasks: a profile (`minimal`, `coding`, `messaging`, `full`), or a map. The kernel's walls hold
    /// for each of them.
    #[schemars(extend("default" = "coding", "examples" = [{"deny": ["exec"]}]))]
    tools: Option<ToolSection>,
    /// Servers of further tools by name, which speak the Model Context Protocol at their standard input and output. They are started in the agent's sandbox, and end with
    /// the attempt. Their tools are called `mcp__NAME__TOOL`.
    #[schemars(extend("default" = {}, "examples" = [{"files": {"command": ["npx", "-y", "@modelcontextprotocol/server-filesystem", "."]}}]))]
    mcp: Option<BTreeMap<String, McpServer>>,
    /// Whether a person is asked about calls of tools whose risk is high (`semi`), or only about those that `tools.ask` names (`auto`).
    #[schemars(extend("default" = "semi", "examples" = ["auto"]))]
    autonomy: Option<Autonomy>,
    /// Whether a person may talk to it (`toka chat`): when its tasks are done, if it has any, it waits for what a person says, until it is stopped.
    #[schemars(extend("default" = false, "examples" = [true]))]
    chat: Option<bool>,
    /// As how many agents it is started: `name-1`, `name-2` and so on, each with folders, limits and a life of its own and its
    /// number in `TOKA_REPLICA`. Who depends on the name depends on all of them.
    #[schemars(range(min = 1, max = 1000), extend("examples" = [3]))]
    replicas: Option<u32>,
    /// When the agent is started by the clock: an expression of cron(5), or a map; with six fields the first
    /// is the second. Toka then starts it at each of its times,
    /// and otherwise only for `toka start`; it waits for what it requires, and skips a time at which that has failed. A task
    /// that depends on it runs again after each of its runs. A run with a schedule goes on until somebody stops it.
    #[schemars(extend("examples" = ["*/5 * * * *"]))]
    schedule: Option<ScheduleSection>,
    /// What starts the agent: its turn, or only `toka start`. A run does not wait for one that is started by hand.
    #[schemars(extend("default" = "auto", "examples" = ["manual"]))]
    start: Option<StartWord>,
    /// What the end of the agent means for the run: `stop-run` stops all other agents as well.
    #[schemars(extend("default" = {}, "examples" = [{"failure": "stop-run"}]))]
    on_end: Option<OnEnd>,
    /// Ends that are a success besides the exit code 0: exit codes, and names of signals that Toka did not send. Restarts,
    /// conditions and the exit status of the run go by it.
    #[schemars(extend("default" = [0], "examples" = [[0, 130, "SIGTERM"]]))]
    success_exit_codes: Option<SuccessCodes>,
}

/// Which models an agent asks.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum ModelSection {
    /// One, or those that the person has chosen.
    One(String),
    /// Several: the first that answers.
    Several(Vec<String>),
    /// With everything that can be said.
    Full(Model),
}

/// Which models an agent asks, as a map.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Model {
    /// The models, the first before the others; all of one API, since a request is never translated into another.
    #[serde(default, rename = "use")]
    #[schemars(schema_with = "kinds::texts", extend("default" = "default", "examples" = [["lab/qwen3", "openai/gpt-5"]]))]
    chain: Vec<String>,
    /// A file that answers in the place of models, in every API, for examples and tests: nothing is asked elsewhere, nothing is paid, and
    /// nobody has to grant it.
    #[serde(default)]
    #[schemars(schema_with = "kinds::text", extend("examples" = ["answers.script"]))]
    script: String,
    /// Whether requests that are the same, byte for byte, and in flight at one time are one call, paid once. `false` for an agent that asks the
    /// same several times to get several answers.
    #[serde(default)]
    #[schemars(extend("default" = true, "examples" = [false]))]
    join: bool,
    /// Whether requests that want no stream go through the provider's batch interface: answered within a day, mostly within minutes, at half the
    /// price with the known providers. For an agent that can wait.
    #[serde(default)]
    #[schemars(extend("default" = false, "examples" = [true]))]
    batch: bool,
    /// Most tokens of one answer, for a model that works on the agent's tasks; 16 to 1,000,000.
    #[serde(default)]
    #[schemars(schema_with = "kinds::amount", extend("default" = "16k", "examples" = ["8k"]))]
    max_output_tokens: String,
    /// Tokens of a request of a model that works on the agent's tasks, from which on what is old is left out of it, or summarised. Say less for a model with
    /// little room.
    #[serde(default)]
    #[schemars(schema_with = "kinds::amount", extend("default" = "110k", "examples" = ["24k"]))]
    max_context_tokens: String,
    /// How freely such a model chooses its words, from 0 to 2; by default as its provider has it.
    #[schemars(range(min = 0.0, max = 2.0), extend("examples" = [0.2]))]
    temperature: Option<f64>,
}

/// A server of tools.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct McpServer {
    /// The program and its arguments.
    #[schemars(extend("examples" = [["docs-server", "--stdio"]]))]
    command: Vec<String>,
}

/// Which tools a model has.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum ToolSection {
    /// Those of a profile.
    Profile(ToolProfile),
    /// With everything that can be said.
    Full(Tools),
}

/// A set of tools.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub(super) enum ToolProfile {
    /// Looks, and changes nothing.
    Minimal,
    /// Works on files and runs commands.
    Coding,
    /// Talks, and reads.
    Messaging,
    /// Everything.
    Full,
}

/// How much is done without asking.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub(super) enum Autonomy {
    /// A person is asked about what is dangerous.
    Semi,
    /// A person is asked about what is named alone.
    Auto,
}

/// Which tools a model has, as a map. Names may have `*` in them, which stands for anything.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Tools {
    /// Where it begins.
    #[schemars(extend("default" = "coding", "examples" = ["minimal"]))]
    profile: Option<ToolProfile>,
    /// Tools besides those of the profile.
    #[serde(default)]
    #[schemars(schema_with = "kinds::texts", extend("default" = [], "examples" = [["exec"]]))]
    allow: Vec<String>,
    /// Tools that it has not, whatever else is said.
    #[serde(default)]
    #[schemars(schema_with = "kinds::texts", extend("default" = [], "examples" = [["write", "apply_*"]]))]
    deny: Vec<String>,
    /// Tools about each call of which a person is asked (`toka approvals`); what nobody answers in time is not done.
    #[serde(default)]
    #[schemars(schema_with = "kinds::texts", extend("default" = [], "examples" = [["exec"]]))]
    ask: Vec<String>,
    /// Most calls that are made for one answer of the model.
    #[schemars(range(min = 1, max = 1000), extend("default" = 40, "examples" = [10]))]
    calls_per_turn: Option<u32>,
}

/// How urgent something is.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub(super) enum Priority {
    /// Before everything else.
    Critical,
    /// Before the ordinary.
    High,
    /// The ordinary.
    Medium,
    /// When nothing else is waiting.
    Low,
}

/// Whether an agent comes to an end by itself.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub(super) enum Kind {
    /// Runs to its end.
    Task,
    /// Runs until it is stopped.
    Service,
}
