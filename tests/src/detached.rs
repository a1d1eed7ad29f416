//! A project that runs in the background while the test looks at it and controls it.

use serde_json::Value;

use crate::{Finished, Scene};

/// What runs in the background of a scene. It ends with this.
pub struct Detached<'s>(&'s Scene);

impl<'s> Detached<'s> {
    pub(crate) fn of(scene: &'s Scene) -> Self {
        Self(scene)
    }

    /// An agent as `toka inspect` shows it.
    ///
    /// # Panics
    /// When nothing is known of it.
    pub fn inspect(&self, agent: &str) -> Value {
        let finished = self.0.toka(&["inspect", "--json", "--project", self.0.name(), agent]);
        let views: Value = serde_json::from_str(&finished.stdout).unwrap_or_else(|_| panic!("{finished:#?}"));
        views[0].clone()
    }

    /// The state of an agent.
    pub fn state(&self, agent: &str) -> String {
        self.inspect(agent)["state"].as_str().unwrap_or_default().to_owned()
    }

    /// Checks that no agent has kept the daemon from everything else: what it could make it wait for takes seconds, or never
    /// ends. What is shorter a busy machine may do.
    ///
    /// # Panics
    /// When the daemon does not answer, or was kept.
    pub fn assert_nothing_held_up(&self) {
        let socket = self.0.state().join("run/daemon.sock");
        let (status, text) = crate::socket::get(&socket, "/metrics");
        assert_eq!(status, 200);
        let figure = text.lines().find_map(|line| line.strip_prefix("toka_loop_longest_turn_seconds "));
        let longest: f64 = figure.and_then(|figure| figure.parse().ok()).expect("a figure");
        assert!(longest < 1.0, "the daemon's loop stood still for {longest} s");
    }

    /// Runs a command about the project, which must succeed.
    ///
    /// # Panics
    /// When it does not.
    pub fn toka(&self, words: &[&str]) -> Finished {
        let finished = self.try_toka(words);
        assert_eq!(finished.code, Some(0), "{words:?}: {finished:#?}");
        finished
    }

    /// Runs a command about the project.
    pub fn try_toka(&self, words: &[&str]) -> Finished {
        self.0.toka(&[words, &["--project", self.0.name()]].concat())
    }
}

impl Drop for Detached<'_> {
    fn drop(&mut self) {
        let ended = self.0.toka(&["down", "--all", "--kill"]);
        if !std::thread::panicking() {
            assert_eq!(ended.code, Some(0), "{ended:#?}");
            self.0.assert_nothing_left();
        } else if ended.code != Some(0) {
            // The test failed while nobody looked after its agents: somebody must, to end them.
            self.0.toka(&["serve", "--detach"]);
            self.0.toka(&["down", "--all", "--kill"]);
        }
    }
}
