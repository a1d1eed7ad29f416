//! The keys of every section: what the decoder takes, and what a test compares with the schema.

/// The keys of one section.
#[derive(Debug)]
pub(crate) struct Keys {
    /// How messages call the section.
    pub(crate) section: &'static str,
    pub(crate) names: &'static [&'static str],
    /// What a key means that it does not have.
    pub(crate) unknown: Unknown,
}

/// What becomes of a key that a section does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// It is an error: it could have been meant to confine or to control.
    Error,
    /// The section informs: the key is kept for the agent, and warned of.
    Kept,
    /// The same, unless it is nearly one of these keys, which control something or must be there.
    KeptUnlessNear(&'static [&'static str]),
}

macro_rules! sections {
    ($($name:ident: $section:literal = [$($key:literal),* $(,)?];)*) => {
        $(pub(crate) const $name: Keys = Keys {
            section: $section,
            names: &[$($key),*],
            unknown: unknown_in($section),
        };)*
        /// Every section.
        #[cfg(test)]
        pub(crate) const ALL: &[(&str, &Keys)] = &[$((stringify!($name), &$name)),*];
    };
}

/// Sections that inform people and models; all others confine or control.
const fn unknown_in(section: &str) -> Unknown {
    match section.as_bytes() {
        b"capabilities" | b"reporting" => Unknown::Kept,
        b"metadata" | b"a metric" => Unknown::KeptUnlessNear(&["name"]),
        b"an objective" => Unknown::KeptUnlessNear(&["description", "check"]),
        b"a task" => Unknown::KeptUnlessNear(&["description", "run", "timeout", "retry", "dependencies"]),
        _ => Unknown::Error,
    }
}

sections! {
    DOCUMENT: "a workstream" =
        ["metadata", "spec", "capabilities", "objectives", "tasks", "dependencies", "reporting", "security", "logs"];
    METADATA: "metadata" =
        ["name", "version", "created", "modified", "workstream", "branch", "schema_version", "checksum"];
    SPEC: "spec" = [
        "name", "domain", "priority", "description", "type", "process", "secrets", "restart", "startup_probe",
        "readiness_probe", "liveness_probe", "watchdog", "stop", "hooks", "replicas", "schedule", "start", "on_end",
        "success_exit_codes", "model", "tools", "mcp", "autonomy", "chat",
    ];
    MODEL: "spec.model" = ["use", "script", "join", "batch", "max_output_tokens", "max_context_tokens", "temperature"];
    MCP_SERVER: "a server of tools" = ["command"];
    TOOLS: "spec.tools" = ["profile", "allow", "deny", "ask", "calls_per_turn"];
    PROCESS: "spec.process" = [
        "preset", "command", "shell", "working_dir", "environment", "environment_from", "environment_file", "user", "tty",
    ];
    SECRET: "a secret" = ["file", "env"];
    RESTART: "spec.restart" = ["policy", "max_restarts", "when_exhausted", "window", "backoff"];
    BACKOFF: "a back-off" = ["initial", "max", "multiplier", "jitter", "reset_after"];
    PROBE: "a probe" = [
        "exec", "http_get", "tcp_socket", "log_line", "notification_fd", "initial_delay", "period", "timeout",
        "success_threshold", "failure_threshold",
    ];
    PROBE_EXEC: "exec" = ["command"];
    HTTP_GET: "http_get" = ["host", "port", "path", "scheme", "headers"];
    TCP_SOCKET: "tcp_socket" = ["host", "port"];
    STOP: "spec.stop" = ["signal", "grace_period"];
    SCHEDULE: "spec.schedule" = ["cron", "timezone", "overlap", "catch_up"];
    ON_END: "spec.on_end" = ["success", "failure"];
    HOOKS: "spec.hooks" = ["pre_start", "post_start", "pre_stop", "post_stop"];
    CAPABILITIES: "capabilities" = ["primary", "secondary"];
    OBJECTIVE: "an objective" = ["description", "deliverable", "validation", "priority", "check"];
    TASKS: "tasks" = ["default", "conditional"];
    TASK: "a task" = [
        "description", "priority", "estimated_duration", "estimated_time", "tools_required", "dependencies", "run", "timeout", "retry",
    ];
    RETRY: "retry" = ["max_attempts", "initial", "max", "multiplier"];
    DEPENDENCIES: "dependencies" = ["required", "optional"];
    DEPENDENCY: "a dependency" = ["name", "reason", "condition", "log_line", "if_skipped"];
    REPORTING: "reporting" = ["frequency", "channels", "metrics"];
    METRIC: "a metric" = ["name", "description", "type", "unit"];
    SECURITY: "security" =
        ["sandbox", "capabilities_required", "filesystem", "network", "resource_limits", "budget", "compatibility"];
    LOGS: "logs" = ["max_size", "max_age", "total", "compress", "when_full"];
    BUDGET: "a budget" = ["money", "tokens", "calls", "turns", "wall"];
    FILESYSTEM: "security.filesystem" = ["read", "write", "execute", "ask"];
    NETWORK: "security.network" = ["allow", "ask"];
    LIMITS: "security.resource_limits" = [
        "max_memory", "max_cpu", "timeout", "max_processes", "max_open_files", "max_disk_usage",
        "max_network_bandwidth",
    ];
}

/// The keys of a section of the policy file, which has no schema of its own.
const fn of_policy(section: &'static str, names: &'static [&'static str]) -> Keys {
    Keys { section, names, unknown: Unknown::Error }
}

pub(crate) const MODELS: Keys = of_policy("models", &["use", "providers", "prices"]);
pub(crate) const BUDGETS: Keys = of_policy("budgets", &["run", "agent"]);
pub(crate) const APPROVALS: Keys = of_policy("approvals", &["expire"]);
pub(crate) const PROVIDER: Keys =
    of_policy("a provider", &["wire", "url", "key", "file", "concurrency", "timeout"]);
pub(crate) const KEY: Keys = of_policy("a key", &["env", "file"]);
pub(crate) const PRICE: Keys =
    of_policy("a price", &["input", "cached_read", "cached_write", "output", "batch"]);
