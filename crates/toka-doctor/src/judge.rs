//! From what a probe met to a verdict. Pure: whether a wall holds is decided here, and tested with answers that no real wall
//! would give.

use toka_core::{Coverage, Enforcement, Layer};

use super::check::Verdict;
use super::probe::Answer;

/// What the same attempt met where nothing confined it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Control {
    /// It got through: what refuses it inside is the sandbox.
    Through,
    /// It was refused as well, with this error.
    Refused(String),
}

impl Control {
    pub(crate) fn of(answer: &Answer) -> Self {
        match answer {
            Answer::Through(_) => Self::Through,
            Answer::Refused(error) | Answer::Killed(error) => Self::Refused(error.clone()),
            Answer::Silent => Self::Refused("nothing was heard".to_owned()),
        }
    }
}

/// The most that any of these layers promised.
pub(crate) fn promised(enforcement: &Enforcement, layers: &[Layer]) -> Coverage {
    layers.iter().map(|layer| enforcement.coverage(*layer)).max().unwrap_or(Coverage::None)
}

/// What an attempt that must be refused says about the wall, and that in words. A violation that gets through is a hole where
/// the wall was promised in full, and expected where it was not.
pub(crate) fn violation(answer: &Answer, control: &Control, promised: Coverage) -> (Verdict, String) {
    let refused = match answer {
        Answer::Through(note) => return (of_hole(promised), through(note)),
        Answer::Silent => return (Verdict::Failed, "the probe did not report".to_owned()),
        Answer::Refused(error) => format!("refused: {error}"),
        Answer::Killed(signal) => format!("ended by {signal}"),
    };
    match control {
        Control::Refused(error) => (Verdict::Unprovable, format!("{refused}; without walls, too: {error}")),
        Control::Through => (Verdict::Ok, refused),
    }
}

/// What an attempt that must work says.
pub(crate) fn permission(answer: &Answer) -> (Verdict, String) {
    match answer {
        Answer::Through(_) => (Verdict::Ok, "works".to_owned()),
        Answer::Refused(error) => (Verdict::Failed, format!("does not work: {error}")),
        Answer::Killed(signal) => (Verdict::Failed, format!("does not work: ended by {signal}")),
        Answer::Silent => (Verdict::Failed, "the probe did not report".to_owned()),
    }
}

/// The verdict on a violation that got through, by what was promised.
pub(crate) fn of_hole(promised: Coverage) -> Verdict {
    match promised {
        Coverage::Full => Verdict::Failed,
        Coverage::Partial => Verdict::Weaker,
        Coverage::None => Verdict::Missing,
    }
}

fn through(note: &str) -> String {
    if note.is_empty() { "got through".to_owned() } else { format!("got through: {note}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_that_gets_through_is_a_hole_where_a_wall_was_promised() {
        let (through, refused) = (Answer::Through("6 bytes".into()), Answer::Refused("EACCES".into()));
        let also = Control::Refused("ENOENT".into());
        for (answer, control, promised, verdict, found) in [
            (&through, &Control::Through, Coverage::Full, Verdict::Failed, "got through: 6 bytes"),
            // Whatever the control says: what was not possible outside is possible inside.
            (&through, &also, Coverage::Full, Verdict::Failed, "got through: 6 bytes"),
            (&through, &Control::Through, Coverage::Partial, Verdict::Weaker, "got through: 6 bytes"),
            (&through, &Control::Through, Coverage::None, Verdict::Missing, "got through: 6 bytes"),
            (&refused, &Control::Through, Coverage::Full, Verdict::Ok, "refused: EACCES"),
            (&refused, &Control::Through, Coverage::None, Verdict::Ok, "refused: EACCES"),
            (
                &refused,
                &also,
                Coverage::Full,
                Verdict::Unprovable,
                "refused: EACCES; without walls, too: ENOENT",
            ),
            (
                &Answer::Killed("SIGSYS".into()),
                &Control::Through,
                Coverage::Full,
                Verdict::Ok,
                "ended by SIGSYS",
            ),
            (&Answer::Silent, &Control::Through, Coverage::Full, Verdict::Failed, "the probe did not report"),
        ] {
            assert_eq!(
                violation(answer, control, promised),
                (verdict, found.to_owned()),
                "{answer:?} {control:?}"
            );
        }
    }

    #[test]
    fn a_wall_around_everything_is_none() {
        assert_eq!(permission(&Answer::Through(String::new())).0, Verdict::Ok);
        for answer in [Answer::Refused("EPERM".into()), Answer::Killed("SIGSYS".into()), Answer::Silent] {
            assert_eq!(permission(&answer).0, Verdict::Failed, "{answer:?}");
        }
    }

    #[test]
    fn the_best_of_several_walls_is_what_was_promised() {
        let mut enforcement = Enforcement::default();
        enforcement.set(Layer::Mounts, Coverage::None, vec!["refused".into()]);
        enforcement.set(Layer::Landlock, Coverage::Full, Vec::new());
        assert_eq!(promised(&enforcement, &[Layer::Mounts, Layer::Landlock]), Coverage::Full);
        assert_eq!(promised(&enforcement, &[Layer::Mounts]), Coverage::None);
        assert_eq!(promised(&enforcement, &[]), Coverage::None);
    }
}
