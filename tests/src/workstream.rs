//! Workstreams of tests, written as YAML: one agent each, with what the test is about and nothing else.

/// An agent's document.
#[derive(Debug, Clone)]
pub struct Document {
    name: String,
    spec: Vec<String>,
    sections: Vec<String>,
}

impl Document {
    /// An agent that runs this line of shell.
    pub fn shell(name: &str, line: &str) -> Self {
        Self::bare(name).spec(&format!("process: {{shell: {}}}", quoted(line)))
    }

    /// A service that runs this line of shell.
    pub fn service(name: &str, line: &str) -> Self {
        Self::shell(name, line).spec("type: service")
    }

    /// One that succeeds at once, when another is ready.
    pub fn after_ready(name: &str, on: &str) -> Self {
        let ready = "{reason: it serves, condition: ready}";
        Self::shell(name, "true").section(&format!("dependencies: {{required: {{{on}: {ready}}}}}"))
    }

    /// An agent that runs this line of shell on a terminal of its own.
    pub fn on_terminal(name: &str, line: &str) -> Self {
        Self::bare(name).spec(&format!("process: {{shell: {}, tty: true}}", quoted(line)))
    }

    /// An agent that runs this program with these arguments.
    pub fn command(name: &str, words: &[&str]) -> Self {
        let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
        Self::bare(name).spec(&format!("process: {{command: [{}]}}", words.join(", ")))
    }

    /// An agent with a name and nothing to do yet.
    pub fn bare(name: &str) -> Self {
        Self { name: name.to_owned(), spec: Vec::new(), sections: Vec::new() }
    }

    /// Adds a key of `spec`, in flow style.
    #[must_use]
    pub fn spec(mut self, line: &str) -> Self {
        self.spec.push(line.to_owned());
        self
    }

    /// Adds a section beside `spec`, in flow style.
    #[must_use]
    pub fn section(mut self, line: &str) -> Self {
        self.sections.push(line.to_owned());
        self
    }

    /// The same with another text in its `spec`.
    ///
    /// # Panics
    /// When the text is not there.
    #[must_use]
    pub fn replaced(mut self, from: &str, to: &str) -> Self {
        assert!(self.spec.iter().any(|line| line.contains(from)), "{from} is not in the spec");
        self.spec.iter_mut().for_each(|line| *line = line.replace(from, to));
        self
    }

    /// Waits for these agents.
    #[must_use]
    pub fn after(self, names: &[&str]) -> Self {
        let edges: Vec<String> = names.iter().map(|name| format!("{name}: it comes first")).collect();
        self.section(&format!("dependencies: {{required: {{{}}}}}", edges.join(", ")))
    }

    /// The agent's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The document as YAML.
    pub fn yaml(&self) -> String {
        let mut text = format!("metadata: {{name: {}}}\n", self.name);
        if !self.spec.is_empty() {
            text += "spec:\n";
        }
        for line in &self.spec {
            text += &format!("  {line}\n");
        }
        for line in &self.sections {
            text += &format!("{line}\n");
        }
        text
    }
}

/// A text as YAML takes it: JSON's strings are YAML's.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
