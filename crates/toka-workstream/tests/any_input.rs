//! Whatever the bytes are, `load` answers: no panic, no flood, and every place that it names lies in its
//! file.

use std::fs;
use std::sync::OnceLock;

use proptest::prelude::*;
use toka_workstream::{LoadOptions, Style, check};

/// Reads bytes as a file and looks at everything that comes out.
fn survives(bytes: &[u8]) -> Result<(), TestCaseError> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("any.yaml");
    fs::write(&path, bytes).expect("written");
    let loaded = check(&[path], &LoadOptions::default());
    prop_assert!(loaded.diagnostics.len() < 1000);
    for label in loaded.diagnostics.iter().flat_map(|found| &found.labels) {
        let text = loaded.sources.text(label.file);
        prop_assert!(text.get(label.span.clone()).is_some(), "{:?} in {} bytes", label.span, text.len());
    }
    let drawn = loaded.sources.render(&loaded.diagnostics, Style::Plain);
    prop_assert!(drawn.chars().all(|c| c == '\n' || !c.is_control()));
    let _ = loaded.sources.to_json(&loaded.diagnostics);
    Ok(())
}

fn good_files() -> &'static [String] {
    static FILES: OnceLock<Vec<String>> = OnceLock::new();
    FILES.get_or_init(|| {
        [
            "good/everything.yaml",
            "good/several.yaml",
            "good/anchors.yaml",
            "foreign/market.yaml",
            "bad/many.yaml",
        ]
        .iter()
        .map(|name| {
            fs::read_to_string(format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR")))
                .expect("a fixture")
        })
        .collect()
    })
}

/// Pieces that YAML and the format are made of.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "metadata",
            "name",
            "spec",
            "process",
            "command",
            "tasks",
            "default",
            "dependencies",
            "required",
            "security",
            "resource_limits",
            "max_memory",
            "512MB",
            "null",
            "~",
            "no",
            "true",
            "1e9",
            "-1",
            "é",
            "&a",
            "*a",
            "!t",
            "<<",
        ])
        .prop_map(String::from),
        prop::sample::select(vec![
            ": ",
            "- ",
            "\n",
            "\n  ",
            "\n    ",
            "\t",
            "[",
            "]",
            "{",
            "}",
            ", ",
            "'",
            "\"",
            "|\n",
            ">-\n",
            "# ",
            "---\n",
            "...\n",
            "? ",
            "%YAML 1.2\n",
            "\\x",
            "\r\n",
            "\u{feff}",
            "\u{2028}",
        ])
        .prop_map(String::from),
        "[a-z-]{1,8}",
        "\\PC{0,4}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(bytes: Vec<u8>) {
        survives(&bytes)?;
    }

    #[test]
    fn anything_like_yaml(pieces in prop::collection::vec(piece(), 0..60)) {
        survives(pieces.concat().as_bytes())?;
    }

    #[test]
    fn a_good_file_that_was_damaged(
        which in 0usize..5,
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0usize..12, piece()), 1..6),
    ) {
        let mut bytes = good_files()[which].clone().into_bytes();
        for (at, length, piece) in cuts {
            let start = at.index(bytes.len() + 1);
            let end = (start + length).min(bytes.len());
            bytes.splice(start..end, piece.into_bytes());
        }
        survives(&bytes)?;
    }
}
