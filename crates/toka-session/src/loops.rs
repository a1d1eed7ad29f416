//! Whether a session gets anywhere: the same call with the same result, again and again; tools that are not there; one error after the other.
//! Pure. A call that changed files is progress, whatever it looks like.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Calls that are remembered.
const REMEMBERED: usize = 24;
/// The same call with the same result so often is told to the model; so often more, and the session ends.
const SAME: (usize, usize) = (3, 6);
/// Errors in a row that are told, and that end it.
const ERRORS: (usize, usize) = (6, 14);

/// What is to be done about a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Finding {
    /// Nothing.
    Fine,
    /// The model is told so in the result.
    Warn(String),
    /// The attempt ends.
    Stuck(String),
}

/// The last calls of a session.
#[derive(Debug, Default)]
pub(crate) struct Loops {
    /// The call and its result, as hashes.
    calls: VecDeque<u64>,
    errors: usize,
}

/// A call that is over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Over<'a> {
    pub(crate) tool: &'a str,
    pub(crate) arguments: &'a str,
    pub(crate) text: &'a str,
    pub(crate) is_error: bool,
    pub(crate) has_changed: bool,
}

impl Loops {
    /// Takes note of a call.
    pub(crate) fn observe(&mut self, over: Over<'_>) -> Finding {
        let Over { tool, arguments, text, is_error, has_changed } = over;
        if has_changed {
            *self = Self::default();
            return Finding::Fine;
        }
        let mut hasher = DefaultHasher::new();
        (tool, arguments, without_numbers(text)).hash(&mut hasher);
        let hash = hasher.finish();
        if self.calls.len() == REMEMBERED {
            self.calls.pop_front();
        }
        self.calls.push_back(hash);
        let same = self.calls.iter().filter(|known| **known == hash).count();
        self.errors = if is_error { self.errors + 1 } else { 0 };
        if same >= SAME.1 {
            return Finding::Stuck(format!(
                "no progress: {tool} was called {same} times in the same way, with the same result"
            ));
        }
        if self.errors >= ERRORS.1 {
            return Finding::Stuck(format!("no progress: {} calls in a row have failed", self.errors));
        }
        if same >= SAME.0 {
            let text = format!(
                "This is the same call with the same result for the {same}th time. Do something else."
            );
            return Finding::Warn(text.replace("3th", "3rd"));
        }
        if self.errors >= ERRORS.0 {
            return Finding::Warn(format!(
                "{} calls in a row have failed. Look at what is wrong before you go on.",
                self.errors
            ));
        }
        Finding::Fine
    }
}

/// A text without its digits: times and sizes are others each time.
fn without_numbers(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_digit()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over<'a>(arguments: &'a str, text: &'a str) -> Over<'a> {
        Over { tool: "exec", arguments, text, is_error: false, has_changed: false }
    }

    #[test]
    fn the_same_again_and_again_is_told_and_then_ended() {
        let mut loops = Loops::default();
        let findings: Vec<_> = (0..6).map(|at| loops.observe(over("ls", &format!("took {at} s")))).collect();
        assert_eq!(findings[..2], [Finding::Fine, Finding::Fine]);
        assert!(matches!(&findings[2], Finding::Warn(text) if text.contains("3rd time")), "{findings:?}");
        assert!(matches!(&findings[5], Finding::Stuck(_)));
    }

    #[test]
    fn to_and_fro_is_the_same_too() {
        let mut loops = Loops::default();
        let mut findings = (0..12).map(|at| loops.observe(over(if at % 2 == 0 { "a" } else { "b" }, "x")));
        assert!(findings.any(|finding| matches!(finding, Finding::Stuck(_))));
    }

    #[test]
    fn an_effect_or_another_result_is_progress() {
        let mut loops = Loops::default();
        for at in 0..30 {
            let changed = Over { has_changed: at % 2 == 0, ..over("test", "failed") };
            assert_eq!(loops.observe(changed), Finding::Fine);
        }
        let mut loops = Loops::default();
        let names = ["a", "b", "c", "d", "e", "f", "g"];
        assert!(names.iter().all(|name| loops.observe(over("poll", name)) == Finding::Fine));
    }

    #[test]
    fn errors_in_a_row_end_it() {
        let mut loops = Loops::default();
        let words: Vec<String> = (0..14).map(|at| "x".repeat(at)).collect();
        let last = words.iter().map(|word| loops.observe(Over { is_error: true, ..over(word, word) })).last();
        assert!(matches!(last, Some(Finding::Stuck(_))), "{last:?}");
    }
}
