//! `security`.

use schemars::JsonSchema;

use super::kinds;

/// What the agent may do.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Security {
    /// Whether the agent is confined. `false` is dangerous, and needs `--allow sandbox:off`.
    #[schemars(extend("default" = true, "examples" = [true]))]
    sandbox: Option<bool>,
    /// What the agent asks to be allowed; `toka explain capabilities` lists the known names. Others are
    /// labels, which grant nothing.
    #[serde(default)]
    #[schemars(
        schema_with = "kinds::texts",
        extend("default" = [], "examples" = [["filesystem-read", "filesystem-write:target", "cargo-execution"]])
    )]
    capabilities_required: String,
    /// Files besides those that capabilities give.
    #[schemars(extend("examples" = [{"read": ["docs"], "write": ["target"]}]))]
    filesystem: Option<Filesystem>,
    /// What of the network the agent reaches: `none`; `loopback`, one of its own; `project`, one that it shares with the agents of
    /// the project that declare the same, so that they reach each other's ports at 127.0.0.1 (an agent's name is no host name, each
    /// port is one agent's, and the host does not reach them); or `full`, which is dangerous, and needs `--allow network:full`.
    #[schemars(extend("default" = "none", "examples" = [{"allow": ["index.example.org:443"]}]))]
    network: Option<NetworkSection>,
    /// What the agent may use at most.
    #[schemars(extend("examples" = [{"max_memory": "512MB", "max_cpu": "75%"}]))]
    resource_limits: Option<Limits>,
    /// What it may use of models at most; a budget in `toka.yaml` can only make that less.
    #[schemars(extend("examples" = [{"money": 2, "tokens": "500k", "calls": 200, "wall": "1h"}]))]
    budget: Option<Budget>,
    /// What to do when the host cannot enforce a layer.
    #[schemars(extend("default" = "default", "examples" = ["strict"]))]
    compatibility: Option<Compatibility>,
}

/// Paths and globs, relative to the workspace. One outside of it is dangerous, and needs `--allow
/// filesystem-outside:PATH`, or a narrower one (`filesystem-outside-read:PATH`, `…-execute:`, `…-write:`).
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Filesystem {
    /// What may be read.
    #[serde(default)]
    #[schemars(schema_with = "kinds::texts", extend("default" = [], "examples" = [["docs", "*.md"]]))]
    read: String,
    /// What may be written, and read. What is not there is made at the start: a file where the name has a dot or is in capitals, such
    /// as `report.json` or `VERSION`, else a folder; `data.d/` is one by its slash.
    #[serde(default)]
    #[schemars(schema_with = "kinds::texts", extend("default" = [], "examples" = [["target"]]))]
    write: String,
    /// What may be executed, and read.
    #[serde(default)]
    #[schemars(schema_with = "kinds::texts", extend("default" = [], "examples" = [["bin"]]))]
    execute: String,
    /// Whether a person is asked (`toka approvals`) when the agent fails and what it wrote last speaks of a path that is closed to it: a yes opens that path until the
    /// run ends, and begins the agent anew.
    #[schemars(extend("default" = false, "examples" = [true]))]
    ask: Option<bool>,
}

/// What of the network an agent reaches.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum NetworkSection {
    /// All or nothing.
    Word(NetworkWord),
    /// Some hosts.
    Allow(Network),
}

/// What of the network an agent reaches.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub(super) enum NetworkWord {
    /// Nothing but Unix sockets.
    None,
    /// A loopback interface of its own: no other agent reaches it.
    Loopback,
    /// A loopback interface that all agents of the project share which declare it, and nobody else reaches. It takes no
    /// grant.
    Project,
    /// Everything that the host reaches.
    Full,
}

/// Some hosts and nothing else, through an HTTP proxy of Toka's that the environment names (`HTTPS_PROXY` and its like). Each takes a grant:
/// `--allow host:index.example.org:443`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Network {
    /// `host:port` pairs; `*.example.org:443` is every host below that name.
    #[serde(default)]
    #[schemars(schema_with = "kinds::texts", extend("examples" = [["index.example.org:443"]]))]
    allow: String,
    /// Whether a person is asked about other hosts (`toka approvals`), while the connection waits.
    #[schemars(extend("default" = false, "examples" = [true]))]
    ask: Option<bool>,
}

/// What an agent may use of models at most, since somebody or its clock has begun it. At a limit its next call waits, the agent is
/// frozen, and a person is asked (`toka approvals`).
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Budget {
    /// US dollars.
    #[serde(default)]
    #[schemars(schema_with = "kinds::money", extend("default" = 5, "examples" = [2]))]
    money: String,
    /// Tokens of every class together: `500k`, `5M`.
    #[serde(default)]
    #[schemars(schema_with = "kinds::amount", extend("default" = "20M", "examples" = ["500k"]))]
    tokens: String,
    /// Calls.
    #[serde(default)]
    #[schemars(schema_with = "kinds::amount", extend("default" = 2000, "examples" = [200]))]
    calls: String,
    /// Turns of a conversation: not counted yet.
    #[serde(default)]
    #[schemars(schema_with = "kinds::amount", extend("examples" = [60]))]
    turns: String,
    /// Time since the first call, looked at when a call comes.
    #[serde(default)]
    #[schemars(schema_with = "kinds::duration", extend("examples" = ["1h"]))]
    wall: String,
}

/// What an agent may use at most, with everything that it starts.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Limits {
    /// Memory with swap, of all processes together: `512MB`, `512M` and `512MiB` are the same.
    #[serde(default)]
    #[schemars(schema_with = "kinds::size", extend("default" = "512MB", "examples" = ["2GiB"]))]
    max_memory: String,
    /// CPU time, of all processes together: `75%` or `0.75` of one CPU, `200%` or `2` CPUs.
    #[serde(default)]
    #[schemars(schema_with = "kinds::share", extend("default" = "100%", "examples" = ["75%"]))]
    max_cpu: String,
    /// The longest life. By default 30 minutes for a task, and none for a service.
    #[serde(default)]
    #[schemars(schema_with = "kinds::duration", extend("examples" = ["2h"]))]
    timeout: String,
    /// Processes and threads together.
    #[schemars(range(min = 1, max = 4194304), extend("default" = 256, "examples" = [64]))]
    max_processes: Option<u32>,
    /// Open files per process.
    #[schemars(range(min = 8, max = 1048576), extend("default" = 1024, "examples" = [4096]))]
    max_open_files: Option<u32>,
    /// Bytes on disk: in each file, and in HOME, /tmp and artifacts together, which is measured about once a second.
    #[serde(default)]
    #[schemars(schema_with = "kinds::size", extend("examples" = ["10GB"]))]
    max_disk_usage: String,
    /// Network traffic: bytes per second, or bits with `bps`. Met where there is no network.
    #[serde(default)]
    #[schemars(schema_with = "kinds::rate", extend("examples" = ["10MB/s"]))]
    max_network_bandwidth: String,
}

/// What to do when the host cannot enforce a layer.
#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
pub(super) enum Compatibility {
    /// Files and system calls must be confined, or the start is refused; the rest is reported.
    Default,
    /// Every layer in full, or the start is refused.
    Strict,
    /// Nothing is refused, everything is reported.
    BestEffort,
}
