//! The codes of diagnostics. A code is stable: scripts and documents refer to it, so a number is never used
//! twice.

use std::fmt;
use std::str::FromStr;

/// How bad a diagnostic is; more is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// Probably not what was meant; nothing is refused.
    Warning,
    /// Nothing runs until it is put right.
    Error,
}

impl Severity {
    /// The word that people and programs see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// What kind of thing a diagnostic is about; `toka explain CODE` tells the long story of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum Code {
    /// A path cannot be read.
    Unreadable = 1,
    /// There is no workstream in what was given.
    NoWorkstream = 2,
    /// A file is larger than any workstream.
    FileTooLarge = 3,
    /// A file is not UTF-8.
    NotUtf8 = 4,
    /// A file is not YAML.
    Syntax = 5,
    /// A tab where YAML wants spaces.
    Tab = 6,
    /// A document is too deep, too wide, or uses too many aliases.
    TooComplex = 7,
    /// A key stands twice in one map.
    DuplicateKey = 8,
    /// A document is not a map.
    NotAMap = 9,
    /// A key that its section does not have.
    UnknownKey = 10,
    /// A top-level section that is a slip of the pen.
    MisspeltSection = 11,
    /// Something required is missing.
    Missing = 12,
    /// A value of the wrong type.
    WrongType = 13,
    /// A size, share or duration that is none.
    BadQuantity = 14,
    /// A number outside of what makes sense.
    OutOfRange = 15,
    /// A word that is none of the choices.
    UnknownChoice = 16,
    /// A name that is not a DNS label.
    BadName = 17,
    /// Two agents of one name.
    DuplicateAgent = 18,
    /// An agent that depends on itself.
    SelfDependency = 19,
    /// A dependency that is named twice.
    DuplicateDependency = 20,
    /// A dependency that is not among the agents.
    MissingDependency = 21,
    /// Required dependencies that close a circle.
    DependencyCycle = 22,
    /// An optional dependency that was dropped because it would close a circle.
    DroppedDependency = 23,
    /// A capability that Toka does not know.
    UnknownCapability = 24,
    /// A group that was switched on and that no agent has.
    UnknownGroup = 25,
    /// The checksum does not fit the document.
    ChecksumMismatch = 26,
    /// A task that needs a model.
    NeedsModel = 27,
    /// Values that exclude each other.
    Conflict = 28,
    /// A text that cannot be what it should be: a host, a variable, a command.
    BadValue = 29,
    /// A task that waits for no known task.
    UnknownTask = 30,
    /// Tasks that wait for each other.
    TaskCycle = 31,
    /// A value that has no effect.
    NoEffect = 32,
}

impl Code {
    /// Every code, in order.
    pub const ALL: [Self; 32] = [
        Self::Unreadable,
        Self::NoWorkstream,
        Self::FileTooLarge,
        Self::NotUtf8,
        Self::Syntax,
        Self::Tab,
        Self::TooComplex,
        Self::DuplicateKey,
        Self::NotAMap,
        Self::UnknownKey,
        Self::MisspeltSection,
        Self::Missing,
        Self::WrongType,
        Self::BadQuantity,
        Self::OutOfRange,
        Self::UnknownChoice,
        Self::BadName,
        Self::DuplicateAgent,
        Self::SelfDependency,
        Self::DuplicateDependency,
        Self::MissingDependency,
        Self::DependencyCycle,
        Self::DroppedDependency,
        Self::UnknownCapability,
        Self::UnknownGroup,
        Self::ChecksumMismatch,
        Self::NeedsModel,
        Self::Conflict,
        Self::BadValue,
        Self::UnknownTask,
        Self::TaskCycle,
        Self::NoEffect,
    ];

    /// How bad it usually is; a missing dependency is worse for a run than for a check of files.
    pub fn severity(self) -> Severity {
        match self {
            Self::DuplicateDependency
            | Self::MissingDependency
            | Self::DroppedDependency
            | Self::UnknownCapability
            | Self::ChecksumMismatch
            | Self::NeedsModel
            | Self::UnknownTask
            | Self::NoEffect => Severity::Warning,
            _ => Severity::Error,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TK{:04}", *self as u16)
    }
}

/// The text is no code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no code; codes look like TK0010")]
pub struct NoSuchCode(pub String);

impl FromStr for Code {
    type Err = NoSuchCode;

    /// Reads `TK0010`, `tk10` or `10`.
    fn from_str(text: &str) -> Result<Self, NoSuchCode> {
        let digits = text.trim().trim_start_matches(['T', 't']).trim_start_matches(['K', 'k']);
        let number: u16 = digits.parse().map_err(|_| NoSuchCode(text.to_owned()))?;
        Self::ALL.into_iter().find(|code| *code as u16 == number).ok_or_else(|| NoSuchCode(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_read_back_and_numbered_without_gaps() {
        for (at, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, at + 1);
            assert_eq!(code.to_string().parse(), Ok(code));
        }
        assert_eq!("10".parse(), Ok(Code::UnknownKey));
        assert!("TK9999".parse::<Code>().is_err());
        assert!("nonsense".parse::<Code>().is_err());
    }
}
