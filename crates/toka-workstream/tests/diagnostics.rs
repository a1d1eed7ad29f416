//! What people and programs see of a problem, and that every code is explained and can happen.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use toka_workstream::{Code, LoadOptions, Loaded, Severity, Style, check};

fn check_text(text: &str) -> Loaded {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("example.yaml");
    std::fs::write(&path, text).expect("written");
    check(&[path], &LoadOptions::default())
}

/// The drawing with the temporary folder taken out.
fn drawn(loaded: &Loaded) -> String {
    let text = loaded.sources.render(&loaded.diagnostics, Style::Plain);
    let mut out = String::new();
    for line in text.lines() {
        match (line.find("--> "), line.rfind('/')) {
            (Some(at), Some(slash)) => {
                out.push_str(&line[..at + 4]);
                out.push_str(&line[slash + 1..]);
            }
            _ => match (line.find('`'), line.find("/example.yaml`")) {
                (Some(tick), Some(slash)) => {
                    out.push_str(&line[..=tick]);
                    out.push_str(&line[slash + 1..]);
                }
                _ => out.push_str(line),
            },
        }
        out.push('\n');
    }
    out
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

#[test]
fn every_code_is_explained_and_its_example_really_fails_so() {
    for code in Code::ALL {
        let explanation = code.explain();
        assert!(explanation.text.len() > 60, "{code} is hardly explained");
        let Some(example) = explanation.example else { continue };
        let codes: BTreeSet<Code> = check_text(example).diagnostics.iter().map(|found| found.code).collect();
        assert!(codes.contains(&code), "the example of {code} gives {codes:?}");
    }
}

#[test]
fn names_that_toka_sets_itself_are_refused_wherever_variables_are_named() {
    let process = |more: &str| {
        check_text(&format!("metadata: {{name: a}}\nspec: {{process: {{command: [/bin/true], {more}}}}}\n"))
    };
    for more in
        ["environment: {TOKA_AGENT: b}", "environment: [TOKA_RUN=1]", "environment_from: [TOKA_SOCKET]"]
    {
        let text = drawn(&process(more));
        assert!(text.contains("is a name of Toka's own, which it sets itself"), "{more}: {text}");
    }
    // The folder of its file may be declared to be another; what only looks like one of ours is nobody's.
    for more in ["environment: {TOKA_WORKSTREAM_DIR: src}", "environment: {TOKAMAK: b}"] {
        assert!(!drawn(&process(more)).contains("Toka's own"), "{more}");
    }
}

/// Those whose explanation has no example: no text of a file can show them, so they are produced here.
#[test]
fn codes_without_an_example_happen_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        path
    };
    let good = write("good.yaml", b"metadata: {name: a}\nspec: {process: {command: [x]}}\n");
    let found = [
        (folder.path().join("absent"), Code::Unreadable),
        (write("large.yaml", &vec![b'#'; (4 << 20) + 1]), Code::FileTooLarge),
        (write("latin1.yaml", b"metadata: {name: caf\xe9}\n"), Code::NotUtf8),
    ];
    for (path, code) in found {
        let codes: Vec<Code> =
            check(&[path], &LoadOptions::default()).diagnostics.iter().map(|found| found.code).collect();
        assert_eq!(codes, [code]);
    }
    let options = LoadOptions { enable: ["nothing".to_owned()].into(), ..LoadOptions::default() };
    let codes: Vec<Code> = check(&[good], &options).diagnostics.iter().map(|found| found.code).collect();
    assert_eq!(codes, [Code::UnknownGroup]);
    let shown = [Code::Unreadable, Code::FileTooLarge, Code::NotUtf8, Code::UnknownGroup];
    for code in Code::ALL {
        assert_eq!(code.explain().example.is_none(), shown.contains(&code), "{code}");
    }
}

#[test]
fn examples_as_people_see_them() {
    let mut all = String::new();
    for code in Code::ALL {
        if let Some(example) = code.explain().example {
            all.push_str(&format!("=== {code}\n{}", drawn(&check_text(example))));
        }
    }
    insta::assert_snapshot!("examples", all);
}

#[test]
fn an_explanation_as_people_see_it() {
    insta::assert_snapshot!("explanation", Code::ChecksumMismatch.explain().render(Code::ChecksumMismatch));
}

#[test]
fn all_problems_are_told_at_once() {
    let loaded = check(&[fixture("bad/many.yaml")], &LoadOptions::default());
    assert!(loaded.set.is_none());
    insta::assert_snapshot!("many", drawn(&loaded));
}

#[test]
fn probes_that_cannot_say_anything() {
    let loaded = check(&[fixture("bad/probes.yaml")], &LoadOptions::default());
    assert!(loaded.set.is_none());
    insta::assert_snapshot!("probes", drawn(&loaded));
}

#[test]
fn logs_that_cannot_be_kept_so() {
    let loaded = check(&[fixture("bad/logs.yaml")], &LoadOptions::default());
    assert!(loaded.set.is_none());
    insta::assert_snapshot!("logs", drawn(&loaded));
}

#[test]
fn schedules_that_never_come() {
    let loaded = check(&[fixture("bad/schedules.yaml")], &LoadOptions::default());
    assert!(loaded.set.is_none());
    insta::assert_snapshot!("schedules", drawn(&loaded));
}

#[test]
fn replicas_whose_names_cannot_be() {
    let loaded = check(&[fixture("bad/replicas.yaml")], &LoadOptions::default());
    assert!(loaded.set.is_none());
    insta::assert_snapshot!("replicas", drawn(&loaded));
}

#[test]
fn controls_in_a_source_have_no_power_over_the_terminal() {
    let loaded = check(&[fixture("bad/controls.yaml")], &LoadOptions::default());
    let text = loaded.sources.render(&loaded.diagnostics, Style::Plain);
    assert!(loaded.count(Severity::Error) > 0);
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    assert!(!text.contains('\u{202e}'));
    insta::assert_snapshot!("controls", drawn(&loaded));
}

#[test]
fn the_same_as_data() {
    let loaded = check_text("metadata: {name: a}\nspec: {process: {comand: [é], command: [x]}}\n");
    let mut json = loaded.sources.to_json(&loaded.diagnostics);
    let file = json[0]["labels"][0]["file"].take();
    assert!(file.as_str().is_some_and(|file| file.ends_with("/example.yaml")));
    insta::assert_snapshot!(serde_json::to_string_pretty(&json).expect("JSON"), @r#"
[
  {
    "code": "TK0010",
    "severity": "error",
    "message": "spec.process has no key `comand`",
    "labels": [
      {
        "file": null,
        "line": 2,
        "column": 18,
        "end_line": 2,
        "end_column": 24,
        "byte_start": 37,
        "byte_end": 43,
        "message": "unknown key",
        "primary": true
      }
    ],
    "help": "did you mean `command`?"
  }
]
"#);
}

#[test]
fn a_long_line_is_shown_around_the_place() {
    let text = format!(
        "metadata: {{name: a}}\nspec: {{process: {{command: [\"{}\"], comand: 1, environment: {{A: \"{}\"}}}}}}\n",
        "x".repeat(5000),
        "y".repeat(5000)
    );
    let drawn = drawn(&check_text(&text));
    assert!(drawn.lines().all(|line| line.chars().count() < 300), "{drawn}");
    assert!(drawn.contains("comand"));
}

#[test]
fn colours_are_only_added() {
    let loaded = check_text("metadata: {name: A}\n");
    let plain = loaded.sources.render(&loaded.diagnostics, Style::Plain);
    let colour = loaded.sources.render(&loaded.diagnostics, Style::Colour);
    assert!(colour.contains('\x1b') && !plain.contains('\x1b'));
}
