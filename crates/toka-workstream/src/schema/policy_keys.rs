//! The keys of `toka.yaml`, what a person grants and says of models, for `toka explain`. That file has no schema of its own: its sections are few,
//! and read by [`crate::load_policy`]. A test compares these with what is read.

use super::key::KeyReference;

/// Path, type, default, meaning, example.
type Row = (&'static str, &'static str, Option<&'static str>, &'static str, &'static str);

const ROWS: &[Row] = &[
    (
        "allow",
        "list of capabilities",
        Some("[]"),
        "What every agent of the workspace may have although it is dangerous.",
        "[\"host:index.example.org:443\"]",
    ),
    (
        "deny",
        "list of capabilities",
        Some("[]"),
        "What no agent may have, whoever grants it.",
        "[network:full]",
    ),
    (
        "models",
        "map",
        None,
        "Whom agents may ask, with which keys, and what that costs.",
        "{use: [anthropic/claude-sonnet-4-5]}",
    ),
    (
        "models.use",
        "text, list of texts",
        None,
        "The models of agents that name none, the first before the others; the variable `DEFAULT_AI_MODEL` wins.",
        "[anthropic/claude-sonnet-4-5, openai/gpt-5]",
    ),
    (
        "models.providers",
        "map",
        None,
        "Providers by their names. `anthropic`, `openai` and `google` need no entry where the variable of their key is set.",
        "{lab: {wire: openai-chat, url: \"http://127.0.0.1:8000/v1\"}}",
    ),
    (
        "models.providers.NAME.wire",
        "`openai-chat`, `openai-responses`, `anthropic`, `gemini`, `scripted`",
        Some("required"),
        "The API that it speaks; of a provider that needs no entry it is known.",
        "openai-chat",
    ),
    (
        "models.providers.NAME.url",
        "text",
        Some("required"),
        "Where it is, with or without `/v1` at the end; of a provider that needs no entry it is known.",
        "\"http://127.0.0.1:8000/v1\"",
    ),
    (
        "models.providers.NAME.key",
        "map",
        None,
        "Where its key is: in a variable of Toka's own environment, or in a file outside of the workspace. The key itself is never written here.",
        "{env: LAB_KEY}",
    ),
    ("models.providers.NAME.key.env", "text", None, "The variable that holds the key.", "LAB_KEY"),
    (
        "models.providers.NAME.key.file",
        "text",
        None,
        "The file that holds the key; `~/` is your home.",
        "~/.config/lab/key",
    ),
    ("models.providers.NAME.file", "text", None, "The script of a `scripted` provider.", "demo.script.yaml"),
    (
        "models.providers.NAME.concurrency",
        "whole number",
        None,
        "The most calls at one time, of all agents together.",
        "4",
    ),
    ("models.providers.NAME.timeout", "duration", None, "How long it may be silent.", "2m"),
    (
        "models.prices",
        "map",
        None,
        "Prices by `provider/model`, in US dollars for a million tokens; they win over those that Toka knows.",
        "{lab/qwen3: {input: 0.1, output: 0.4}}",
    ),
    ("models.prices.NAME.input", "number", Some("required"), "Tokens that are read.", "0.1"),
    ("models.prices.NAME.output", "number", Some("required"), "Tokens that are written.", "0.4"),
    ("models.prices.NAME.cached_read", "number", None, "Tokens that are read from a cache.", "0.01"),
    ("models.prices.NAME.cached_write", "number", None, "Tokens that are written to a cache.", "0.125"),
    (
        "models.prices.NAME.batch",
        "number",
        Some("1"),
        "The part of these prices that a call in a batch costs.",
        "0.5",
    ),
    (
        "budgets",
        "map",
        None,
        "What agents may use of models at most.",
        "{run: {money: 20}, agent: {money: 2, calls: 500}}",
    ),
    (
        "budgets.run",
        "map",
        None,
        "What all agents of a run may use together: `money`, `tokens`, `calls`, `wall`.",
        "{money: 20, tokens: 50M}",
    ),
    (
        "budgets.agent",
        "map",
        None,
        "The most that the workstream of one agent may declare.",
        "{money: 2, calls: 500}",
    ),
    ("approvals", "map", None, "How persons are asked.", "{expire: 30m}"),
    (
        "approvals.expire",
        "duration",
        Some("30m"),
        "How long an answer is waited for; then it is no. With `0s` nobody is asked.",
        "0s",
    ),
];

/// Every key, in the order of the file.
pub(super) fn policy_keys() -> Vec<KeyReference> {
    let row = |&(path, kind, default, meaning, example): &Row| KeyReference {
        path: path.to_owned(),
        kind: kind.to_owned(),
        default: default.map(str::to_owned),
        meaning: format!("{meaning} (`toka.yaml`)"),
        example: example.to_owned(),
        key: path.rsplit('.').next().unwrap_or(path).to_owned(),
    };
    ROWS.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::decode::keys::{APPROVALS, BUDGETS, KEY, MODELS, PRICE, PROVIDER};
    use crate::policy::KEYS;
    use crate::schema::explain_key;

    #[test]
    fn every_key_that_is_read_is_told_and_no_other() {
        let told: BTreeSet<&str> = ROWS.iter().map(|row| row.0).collect();
        let below = |path: &str, names: &[&str]| -> Vec<String> {
            names.iter().map(|name| format!("{path}{name}")).collect()
        };
        let read: BTreeSet<String> = [
            below("", &KEYS),
            below("models.", MODELS.names),
            below("models.providers.NAME.", PROVIDER.names),
            below("models.providers.NAME.key.", KEY.names),
            below("models.prices.NAME.", PRICE.names),
            below("budgets.", BUDGETS.names),
            below("approvals.", APPROVALS.names),
        ]
        .concat()
        .into_iter()
        .collect();
        let read: BTreeSet<&str> = read.iter().map(String::as_str).collect();
        assert_eq!(told, read);
    }

    #[test]
    fn they_are_found_beside_those_of_workstreams() {
        let paths = |text: &str| explain_key(text).into_iter().map(|key| key.path).collect::<Vec<_>>();
        assert_eq!(paths("approvals.expire"), ["approvals.expire"]);
        assert!(paths("models.providers").contains(&"models.providers.NAME.wire".to_owned()));
        assert!(paths("concurrency").contains(&"models.providers.NAME.concurrency".to_owned()));
    }
}
