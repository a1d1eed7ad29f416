//! The workstreams that documents show are taken as they stand.

use std::path::Path;

use toka_workstream::{LoadOptions, Severity, Style};

/// The YAML blocks of a Markdown text that declare an agent, and the line at which each begins.
fn workstreams(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        if line.trim() != "```yaml" {
            continue;
        }
        let block = lines.by_ref().map(|(_, line)| line).take_while(|line| line.trim() != "```");
        let block: String = block.map(|line| format!("{line}\n")).collect();
        if block.contains("metadata:") {
            found.push((at + 2, block));
        }
    }
    found
}

#[test]
fn the_workstreams_of_documents_are_valid() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let documents = root.join("docs").read_dir().expect("documents").map(|entry| entry.expect("one").path());
    let mut checked = 0;
    for path in
        documents.chain([root.join("README.md")]).filter(|path| path.extension().is_some_and(|it| it == "md"))
    {
        let text = std::fs::read_to_string(&path).expect("text");
        for (line, block) in workstreams(&text) {
            let file = format!("{}:{line}", path.display());
            let loaded = toka_workstream::load_texts([(Path::new(&file), &*block)], &LoadOptions::default());
            let is_error = loaded.diagnostics.iter().any(|found| found.severity == Severity::Error);
            assert!(!is_error, "{}", loaded.sources.render(&loaded.diagnostics, Style::Plain));
            checked += 1;
        }
    }
    assert!(checked >= 4, "{checked} examples");
}
