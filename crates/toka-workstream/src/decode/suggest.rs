//! What was perhaps meant. A suggestion is made only when it is near: a far-fetched one misleads.

/// The candidate nearest to a word, if it is near enough to be a slip of the pen or another spelling.
pub(crate) fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    const LONGEST: usize = 64;
    if word.len() > LONGEST {
        return None;
    }
    let normal = normalise(word);
    candidates
        .into_iter()
        .map(|candidate| (distance(word, &normal, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= allowance(candidate))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The candidate within two edits of a word, of which a short one leaves room for one only: `jobs` and `docs` are no slips
/// of `logs`.
pub(crate) fn within_two_edits<'c>(
    word: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    if word.len() > 32 {
        return None;
    }
    let slip = |candidate: &&str| strsim::damerau_levenshtein(word, candidate) <= allowance(candidate).min(2);
    candidates.into_iter().find(slip)
}

/// Words of other tools' files (Compose, process-compose, systemd, Kubernetes), and of ours in other places, with where that
/// stands here.
const ELSEWHERE: &[(&str, &str)] = &[
    ("after", "`dependencies.optional`"),
    ("availability", "`spec.restart`"),
    ("capabilities_required", "`security.capabilities_required`"),
    ("command", "`spec.process.command`"),
    ("cron", "`spec.schedule.cron`"),
    ("deploy", "`spec.replicas` and `security.resource_limits`"),
    ("depends_on", "`dependencies.required`"),
    ("entrypoint", "`spec.process.command`"),
    ("env", "`spec.process.environment`"),
    ("env_file", "`spec.process.environment_file`"),
    ("environment", "`spec.process.environment`"),
    ("environment_file", "`spec.process.environment_file`"),
    ("environment_from", "`spec.process.environment_from`"),
    ("exec_start", "`spec.process.command`"),
    ("filesystem", "`security.filesystem`"),
    ("healthcheck", "`spec.readiness_probe` or `spec.liveness_probe`"),
    ("hooks", "`spec.hooks`"),
    ("image", "`spec.process.command`: an agent runs a program of this host, there are no images"),
    ("liveness_probe", "`spec.liveness_probe`"),
    ("mem_limit", "`security.resource_limits.max_memory`"),
    ("network", "`security.network`"),
    ("networks", "`security.network`"),
    ("needs", "`dependencies.required`"),
    ("permissions", "`security.capabilities_required`"),
    ("ports", "`security.network`: an agent listens on what its network has, and nothing is forwarded"),
    ("process", "`spec.process`"),
    ("processes", "one document for each, between lines of `---`"),
    ("profiles", "`tasks.conditional`, which `--enable` switches on, or `spec.start: manual`"),
    ("readiness_probe", "`spec.readiness_probe`"),
    ("replicas", "`spec.replicas`"),
    ("requires", "`dependencies.required`"),
    ("resource_limits", "`security.resource_limits`"),
    ("restart", "`spec.restart`"),
    ("sandbox", "`security.sandbox`"),
    ("schedule", "`spec.schedule`"),
    ("scale", "`spec.replicas`"),
    ("secrets", "`spec.secrets`"),
    (
        "services",
        "one document for each, between lines of `---`; docs/compose.md says it for each key of a compose file",
    ),
    ("shell", "`spec.process.shell`"),
    ("shutdown", "`spec.stop`"),
    ("stop", "`spec.stop`"),
    ("stop_grace_period", "`spec.stop.grace_period`"),
    ("stop_signal", "`spec.stop.signal`"),
    ("timeout", "`security.resource_limits.timeout`"),
    ("user", "`spec.process.user`"),
    ("volumes", "`security.filesystem`"),
    ("watchdog", "`spec.watchdog`"),
    ("working_dir", "`spec.process.working_dir`"),
];

/// Words of other tools in one section of ours, with what would help there.
const HERE: &[(&str, &str, &str)] = &[
    ("a probe", "command", "write `exec: {command: [PROGRAM, ARGUMENT]}`"),
    ("a probe", "shell", "write `exec: {command: [sh, -c, LINE]}`"),
    ("a probe", "interval", "write `period`"),
    ("a probe", "retries", "write `failure_threshold`"),
    ("a probe", "start_interval", "write `period`"),
    ("a probe", "start_period", "write `initial_delay`, or declare a `spec.startup_probe`"),
    ("a probe", "test", "write `exec: {command: [PROGRAM, ARGUMENT]}`"),
    ("a dependency", "restart", "its `spec.restart` is what brings an agent back"),
    ("security", "limits", "write `resource_limits`"),
    ("security", "memory", "write `resource_limits: {max_memory: …}`"),
    ("security.filesystem", "volumes", "write paths of the workspace under `read`, `write` or `execute`"),
    ("security.resource_limits", "cpu", "write `max_cpu`"),
    ("security.resource_limits", "cpus", "write `max_cpu`"),
    ("security.resource_limits", "disk", "write `max_disk_usage`"),
    ("security.resource_limits", "memory", "write `max_memory`"),
    ("security.resource_limits", "pids", "write `max_processes`"),
    ("security.resource_limits", "processes", "write `max_processes`"),
    ("spec", "limits", "write `security.resource_limits`, beside `spec`"),
    ("spec", "resources", "write `security.resource_limits`, beside `spec`"),
    ("spec", "retry", "write `spec.restart: {policy: on-failure}`, or `retry` in a task"),
    ("spec", "retries", "write `spec.restart: {policy: on-failure, max_restarts: …}`, or `retry` in a task"),
    ("spec.process", "args", "write them after the program in `command`"),
    ("spec.process", "cwd", "write `working_dir`"),
    ("spec.process", "dir", "write `working_dir`"),
    ("spec.restart", "attempts", "write `max_restarts`"),
    ("spec.restart", "delay", "write `backoff: {initial: …}`"),
    ("spec.restart", "max_attempts", "write `max_restarts`"),
    ("spec.restart", "retries", "write `max_restarts`"),
    ("spec.stop", "timeout", "write `grace_period`"),
    ("spec.stop", "timeout_stop", "write `grace_period`"),
];

/// What helps whoever writes this word of another tool in this section.
pub(crate) fn here(section: &str, word: &str) -> Option<&'static str> {
    let normal = normalise(word);
    let is_it = |(of, known, _): &&(&str, &str, &str)| *of == section && (*known == word || *known == normal);
    HERE.iter().find(is_it).map(|(.., help)| *help)
}

/// Words of other tools for one of our choices.
const CHOICES: &[(&str, &str)] = &[
    ("service_healthy", "ready"),
    ("healthy", "ready"),
    ("process_healthy", "ready"),
    ("service_started", "process_started"),
    ("started", "process_started"),
    ("service_completed_successfully", "completed_successfully"),
    ("process_completed_successfully", "completed_successfully"),
    ("process_completed", "completed"),
    ("exit_on_failure", "no"),
];

/// The choice that other tools call so.
pub(crate) fn known_as(word: &str) -> Option<&'static str> {
    CHOICES.iter().find(|(known, _)| *known == word).map(|(_, ours)| *ours)
}

/// Where that stands which people write under this word in other files, or in another place of ours.
pub fn elsewhere(word: &str) -> Option<&'static str> {
    let normal = normalise(word);
    ELSEWHERE.iter().find(|(known, _)| *known == word || *known == normal).map(|(_, place)| *place)
}

fn distance(word: &str, normal: &str, candidate: &str) -> usize {
    strsim::damerau_levenshtein(word, candidate).min(strsim::damerau_levenshtein(normal, candidate))
}

/// One edit for short words, two for the ordinary, three for long ones.
fn allowance(candidate: &str) -> usize {
    match candidate.len() {
        0..=4 => 1,
        5..=9 => 2,
        _ => 3,
    }
}

/// `initialDelaySeconds` and `Initial-Delay` become `initial_delay`.
fn normalise(word: &str) -> String {
    let mut out = String::with_capacity(word.len() + 4);
    for c in word.chars() {
        if c.is_uppercase() && !out.is_empty() && !out.ends_with('_') {
            out.push('_');
        }
        if c == '-' || c == ' ' { out.push('_') } else { out.extend(c.to_lowercase()) }
    }
    out.trim_end_matches("_seconds").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_others_lead_to_keys_that_there_are() {
        for (section, _, help) in HERE {
            let all = super::super::keys::ALL;
            let keys =
                all.iter().map(|(_, keys)| keys).find(|keys| keys.section == *section).expect("a section");
            let key = help.strip_prefix("write `").and_then(|rest| rest.split(['`', ':']).next());
            let is_there = |key: &str| key.contains('.') || keys.names.contains(&key);
            assert!(key.is_none_or(is_there), "{section}: {help}");
        }
        assert_eq!(here("spec.stop", "timeout"), Some("write `grace_period`"));
        assert_eq!(here("spec.stop", "timeoutSeconds"), Some("write `grace_period`"));
        assert_eq!(here("spec", "timeout"), None);
    }

    #[test]
    fn only_the_near_is_suggested() {
        let keys = ["name", "initial_delay", "period", "environment", "command"];
        for (word, expected) in [
            ("nmae", Some("name")),
            ("initialDelaySeconds", Some("initial_delay")),
            ("Environment", Some("environment")),
            ("enviroment", Some("environment")),
            ("comand", Some("command")),
            ("image", None),
            ("zzz", None),
        ] {
            assert_eq!(nearest(word, keys), expected, "{word}");
        }
        assert_eq!(within_two_edits("taks", ["tasks"]), Some("tasks"));
        assert_eq!(within_two_edits("lgos", ["logs"]), Some("logs"));
        for other in ["tags", "docs", "jobs", "tools"] {
            assert_eq!(within_two_edits(other, ["logs"]), None, "{other}");
        }
        assert_eq!(within_two_edits("behavioral_directives", ["tasks"]), None);
    }
}
