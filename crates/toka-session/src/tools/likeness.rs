//! Which calls of a tool are like one another, so that a person can allow all of them for a time. A command is like another when both are the same
//! program with the same first word in the same folder, and neither holds anything that a shell would make more of: what is not read with certainty is
//! like nothing.

use serde_json::{Map, Value};

/// Programs whose first word says little of what they do: whatever they run is another matter each time.
const RUNS_ANYTHING: [&str; 22] = [
    "sh", "bash", "dash", "zsh", "env", "sudo", "su", "doas", "xargs", "eval", "exec", "command", "time",
    "nice", "nohup", "timeout", "watch", "ssh", "python", "python3", "node", "perl",
];

/// The calls like this one, in words; `None` where there are none but itself.
pub(crate) fn like(tool: &str, arguments: &Map<String, Value>) -> Option<String> {
    let text = |key: &str| arguments.get(key).and_then(Value::as_str);
    match tool {
        "exec" | "process_start" => {
            let command = prefix(text("command")?)?;
            let folder = text("folder").map_or_else(String::new, |folder| format!(" in {folder}"));
            Some(format!("{command} …{folder}"))
        }
        "write" | "edit" => {
            let folder = text("path")?.rsplit_once('/').map_or(".", |(folder, _)| folder);
            // Where it leads is not known from its text.
            (!folder.split('/').any(|part| part == "..")).then(|| format!("{tool} of files in {folder}"))
        }
        _ => None,
    }
}

/// The program of a command line and its first word, where the line is nothing but words.
fn prefix(line: &str) -> Option<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@+% ".contains(c);
    if !line.chars().all(is_plain) {
        return None;
    }
    let mut words = line.split_whitespace();
    let program = words.next().filter(|word| !word.contains('='))?;
    let name = program.rsplit('/').next().unwrap_or(program);
    if RUNS_ANYTHING.contains(&name) || program.contains("..") {
        return None;
    }
    match words.next() {
        Some(word) if !word.starts_with('-') => Some(format!("{program} {word}")),
        // Options first: what it does stands somewhere behind them.
        Some(_) => None,
        None => Some(program.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn of(command: &str) -> Option<String> {
        like("exec", json!({"command": command}).as_object().expect("an object"))
    }

    #[test]
    fn what_a_shell_makes_more_of_is_like_nothing() {
        assert_eq!(of("cargo test -q").as_deref(), Some("cargo test …"));
        assert_eq!(of("ls").as_deref(), Some("ls …"));
        for line in [
            "cargo test; rm -rf /",
            "cargo test && x",
            "cargo test | sh",
            "cargo test `x`",
            "cargo test $(x)",
            "cargo test\nrm x",
            "cargo test > x",
            "cargo 'test'",
            "cargo \\x",
            "X=1 cargo test",
            "bash -c x",
            "sudo cargo test",
            "env cargo test",
            "python3 x.py",
            "/usr/bin/env cargo test",
            "git -C / clean",
            "../x/cargo test",
            "cargo t*",
            "~/x",
            "",
        ] {
            assert_eq!(of(line), None, "{line}");
        }
        let arguments = json!({"command": "make all", "folder": "sub"});
        assert_eq!(
            like("exec", arguments.as_object().expect("an object")).as_deref(),
            Some("make all … in sub")
        );
    }

    #[test]
    fn files_of_a_folder_are_alike() {
        let of = |path: &str| like("write", json!({"path": path}).as_object().expect("an object"));
        assert_eq!(of("src/a.rs").as_deref(), Some("write of files in src"));
        assert_eq!(of("a.rs").as_deref(), Some("write of files in ."));
        assert_eq!((of("src/../../x"), like("apply_patch", &Map::new())), (None, None));
    }

    proptest! {
        #[test]
        fn what_has_a_prefix_is_words_alone(line in "[ -~]{0,40}") {
            if of(&line).is_some() {
                let has_more = line.contains([';', '&', '|', '`', '$', '(', '<', '>', '\'', '"', '\\', '*', '?', '~', '{', '\n']);
                prop_assert!(!has_more);
            }
        }
    }
}
