//! A YAML file that is no workstream, as data for whoever knows what is in it.

use crate::diagnostic::{Severity, Sources};
use crate::read::parse;

/// The one document of a YAML text; `name` is how messages call it.
///
/// # Errors
/// With the first thing that is wrong, and its line.
pub fn load_value(name: &str, text: &str) -> Result<serde_json::Value, String> {
    let mut sources = Sources::default();
    let file = sources.add(name, text.to_owned());
    let (documents, problems) = parse(file, text);
    if let Some(problem) = problems.iter().find(|problem| problem.severity == Severity::Error) {
        let line = problem.labels.first().map(|label| sources.position(file, label.span.start).line);
        let line = line.map_or_else(String::new, |line| format!(":{line}"));
        return Err(format!("{name}{line}: {}", problem.message));
    }
    match documents.as_slice() {
        [one] => Ok(one.root.to_json()),
        [] => Err(format!("{name} is empty")),
        _ => Err(format!("{name} has several documents; one is wanted")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_data_and_a_broken_one_is_told_with_its_line() {
        let value = load_value("s.yaml", "turns: [{text: hi, n: 2}]\n").expect("data");
        assert_eq!(value, serde_json::json!({"turns": [{"text": "hi", "n": 2}]}));
        for (text, words) in
            [("a: 1\nb: [", "s.yaml:"), ("", "s.yaml is empty"), ("a: 1\n---\nb: 2\n", "several")]
        {
            let error = load_value("s.yaml", text).expect_err(text);
            assert!(error.contains(words), "{error}");
        }
    }
}
