//! A `toka.yaml` with every mistake: each is told, with its place and what helps, and none of it counts.

use toka_workstream::{POLICY_FILE, Style, load_policy};

const MISTAKES: &str = r#"alow: [device]
allow: [network:ful, 7, {device: yes}, poetry]
deny: [filesytem-write]
models:
  use: [lab/qwen3, lbb/qwen3, "two words", lab/qwen3]
  fallback: [x]
  providers:
    "a/b": {wire: openai-chat, url: "http://127.0.0.1:1"}
    lab: {wire: openai-cht, url: "ftp://host"}
    none: {}
    nowhere: {wire: anthropic}
    both: {wire: scripted, url: "http://127.0.0.1:1", file: x.script}
    secretive: {wire: gemini, url: "https://user:pass@host", key: sk-planted-0123456789}
    named: {wire: gemini, url: "https://host", key: {env: "sk-planted-9876543210"}}
    slow: {wire: gemini, url: "https://host", concurrency: 0, timeout: soon, retries: 3}
  prices:
    qwen3: {input: 1, output: 2}
    lab/qwen3: {input: -1}
    lab/other: {input: cheap, output: 2, per: token}
budgets: {run: {money: -1, tokens: many, calls: 1.5}, agent: {money: 2, wall: yesterday}, team: {money: 1}}
approvals: {expire: never, autonomy: full}
"#;

#[test]
fn every_mistake_is_told_and_none_of_it_counts() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(POLICY_FILE);
    std::fs::write(&path, MISTAKES).expect("a file");
    let loaded = load_policy(&path);
    assert_eq!(loaded.policy, None);
    assert!(loaded.models.is_empty(), "half a file is none: {:?}", loaded.models);
    let text = loaded.sources.render(&loaded.diagnostics, Style::Plain);
    let text = text.replace(&format!("{}/", folder.path().display()), "");
    assert!(
        !text.contains("planted") && !text.contains("user:pass"),
        "what may be a key is not shown: {text}"
    );
    insta::assert_snapshot!("policy", text);
}
