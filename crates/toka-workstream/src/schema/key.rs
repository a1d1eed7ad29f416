//! What there is to say of one key of a file, and which one a person means.

/// What the reference says of one key.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct KeyReference {
    /// Where it stands, such as `spec.restart.max_restarts`; `…` and `NAME` stand for what differs.
    pub path: String,
    /// What it takes.
    #[serde(rename = "type")]
    pub kind: String,
    /// What holds without it: a value, `required`, or nothing.
    pub default: Option<String>,
    /// What it does.
    pub meaning: String,
    /// A value, in YAML's flow style.
    pub example: String,
    #[serde(skip)]
    pub(super) key: String,
}

impl KeyReference {
    /// Whether a person who writes `text` means this key: by its name, or by its path or the end of it, with or without what
    /// stands for a name (`NAME`, `GROUP`, `[]`).
    pub(super) fn is_meant(&self, text: &str) -> bool {
        let text = plain(text);
        self.places()
            .iter()
            .any(|place| place.strip_suffix(&text).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
    }

    /// Whether the key stands below what a person means by `text`.
    pub(super) fn is_below(&self, text: &str) -> bool {
        let below = format!("{}.", plain(text));
        self.places().iter().any(|place| place.starts_with(&below))
    }

    /// Every path that is meant by its one.
    fn places(&self) -> Vec<String> {
        let (heading, key) = self.path.rsplit_once('.').unwrap_or(("", &self.path));
        let headings: Vec<String> = match heading.split_once('…') {
            None => heading.split(", ").map(str::to_owned).collect(),
            Some((before, after)) => {
                let between: &[&str] = match before {
                    "tasks." => &["default", "conditional"],
                    "dependencies." => &["required", "optional"],
                    _ => &["spec.startup_probe", "spec.readiness_probe", "spec.liveness_probe"],
                };
                between.iter().map(|between| format!("{before}{between}{after}")).collect()
            }
        };
        headings.iter().map(|heading| plain(&format!("{heading}.{key}"))).collect()
    }
}

/// A path without what stands for a name.
pub(super) fn plain(path: &str) -> String {
    let parts = path.split('.').map(|part| part.trim_end_matches("[]"));
    let parts = parts.filter(|part| !part.is_empty() && !["NAME", "GROUP"].contains(part));
    parts.collect::<Vec<_>>().join(".")
}
