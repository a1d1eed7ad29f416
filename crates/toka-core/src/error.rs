//! An error in one sentence.

use std::error::Error;

/// The error with what caused it: the number of the system's error is in the last of them.
pub fn with_causes(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| (**cause).source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
