//! Whether a session gets anywhere: the same call with the same result, again and again; tools that are not there; one error after the other.
//! Pure. A call that changed files is progress, whatever it looks like.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Calls that are remembered.
const REMEMBERED: usize = 24;
/// The same call with the same result so often is told to the model; so often more, and the session ends.
const SAME: (usize, usize) = (3, 6);
/// Answers in a row whose calls have all failed: so many are told, and so many end it.
const ERRORS: (usize, usize) = (4, 10);

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
    /// Answers in a row whose calls have all failed.
    failed: usize,
    /// Whether all calls of this answer have failed so far; nothing before the first.
    is_failing: Option<bool>,
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
    /// The calls of another answer follow.
    pub(crate) fn begin_answer(&mut self) {
        self.is_failing = None;
    }

    /// Takes note of a call.
    pub(crate) fn observe(&mut self, over: Over<'_>) -> Finding {
        let Over { tool, arguments, text, is_error, has_changed } = over;
        if has_changed {
            *self = Self::default();
            return Finding::Fine;
        }
        let mut hasher = DefaultHasher::new();
        (tool, arguments, without_figures(text)).hash(&mut hasher);
        let hash = hasher.finish();
        if self.calls.len() == REMEMBERED {
            self.calls.pop_front();
        }
        self.calls.push_back(hash);
        let same = self.calls.iter().filter(|known| **known == hash).count();
        match (is_error, self.is_failing) {
            (true, None) => (self.failed, self.is_failing) = (self.failed + 1, Some(true)),
            (false, _) => (self.failed, self.is_failing) = (0, Some(false)),
            (true, Some(_)) => {}
        }
        if same >= SAME.1 {
            return Finding::Stuck(format!(
                "no progress: {tool} was called {same} times in the same way, with the same result"
            ));
        }
        if self.failed >= ERRORS.1 {
            return Finding::Stuck(format!(
                "no progress: all calls of {} answers in a row have failed",
                self.failed
            ));
        }
        if same >= SAME.0 {
            let text = format!(
                "This is the same call with the same result for the {same}th time. Do something else."
            );
            return Finding::Warn(text.replace("3th", "3rd"));
        }
        if self.failed >= ERRORS.0 && self.is_failing == Some(true) && is_error {
            return Finding::Warn(format!(
                "All calls of your last {} answers have failed. Look at what is wrong before you go on.",
                self.failed
            ));
        }
        Finding::Fine
    }
}

/// A text without the figures of Toka's own: how long a command took, and what it used, is another each time.
fn without_figures(text: &str) -> (&str, &str) {
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    let is_own = first.ends_with(')') && ["exit code", "killed"].iter().any(|word| first.starts_with(word));
    (if is_own { first.split(" (").next().unwrap_or(first) } else { first }, rest)
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
        let findings: Vec<_> = (0..6)
            .map(|at| loops.observe(over("ls", &format!("exit code 0 ({at}ms, memory {at} KiB)\nsame"))))
            .collect();
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
        let mut loops = Loops::default();
        let part = |at: usize| format!("exit code 0 (1ms)\n{at} of 20 parts");
        assert!((0..20).all(|at| loops.observe(over("poll", &part(at))) == Finding::Fine));
    }

    #[test]
    fn answers_whose_calls_all_fail_end_it() {
        let mut loops = Loops::default();
        let mut last = Finding::Fine;
        for answer in 0..10 {
            loops.begin_answer();
            // Of one answer, many count once.
            for call in 0..5 {
                let word = format!("{answer} {call}");
                last = loops.observe(Over { is_error: true, ..over(&word, &word) });
                assert!(answer == 9 || !matches!(last, Finding::Stuck(_)), "{answer}: {last:?}");
            }
        }
        assert!(matches!(last, Finding::Stuck(_)), "{last:?}");
        loops.begin_answer();
        assert_eq!(loops.observe(over("fine", "fine")), Finding::Fine);
    }
}
