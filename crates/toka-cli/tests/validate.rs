//! `toka validate` of policy files, beside workstreams and alone.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

const WORKSTREAM: &str = "metadata: {name: a}\nspec: {process: {command: [/bin/true]}}\n";

/// What `toka validate` prints in a folder, and its status.
fn validate(folder: &Path, words: &[&str]) -> (String, Option<i32>) {
    let done = Command::new(env!("CARGO_BIN_EXE_toka"))
        .arg("validate")
        .args(words)
        .current_dir(folder)
        .env("NO_COLOR", "1")
        .output()
        .expect("toka");
    (String::from_utf8(done.stdout).expect("UTF-8"), done.status.code())
}

#[test]
fn a_policy_is_checked_by_its_name_and_where_it_lies() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("room");
    std::fs::create_dir(folder.path().join("agents")).expect("room");
    write("agents/a.yaml", WORKSTREAM);
    write("toka.yaml", "alow: [device]\n");
    for words in [&[][..], &["agents", "toka.yaml"], &["toka.yaml"]] {
        let (text, code) = validate(folder.path(), words);
        assert_eq!(code, Some(65), "{words:?}: {text}");
        assert!(
            text.contains("did you mean `allow`?") && text.contains("checked toka.yaml: 1 problem"),
            "{text}"
        );
    }
    let (text, code) = validate(folder.path(), &["agents"]);
    assert_eq!((code, text.contains("toka.yaml")), (Some(0), false), "{text}");
    let (text, _) = validate(folder.path(), &["--json", "toka.yaml"]);
    let said: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((&said["valid"], &said["policies"][0]["valid"]), (&false.into(), &false.into()), "{text}");
    write("toka.yaml", "allow: [device]\n");
    let (text, code) = validate(folder.path(), &[]);
    assert_eq!((code, text.contains("checked toka.yaml: no problems")), (Some(0), true), "{text}");
}
