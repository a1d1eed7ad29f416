//! The workstream that `toka init` writes.

/// A small, commented set of two agents that run without a model.
pub const STARTER: &str = include_str!("starter.yaml");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_free_of_warnings() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("hello.yaml");
        std::fs::write(&path, STARTER).expect("written");
        let loaded = crate::check(&[path], &crate::LoadOptions::default());
        assert_eq!(loaded.sources.render(&loaded.diagnostics, crate::Style::Plain), "");
        assert_eq!(loaded.set.map(|set| set.agents.len()), Some(2));
    }
}
