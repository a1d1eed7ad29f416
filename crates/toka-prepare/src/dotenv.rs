//! Environment files: `NAME=value` lines, read strictly, because a line that is half understood sets a variable that
//! nobody meant.
//!
//! ```text
//! # a comment
//! PLAIN=up to the end of the line, without spaces at either end
//! export SAME=the word export is passed over
//! SINGLE='as it stands, # and $ too'
//! DOUBLE="with \n, \t, \", \\ and \$"
//! ```
//!
//! Nothing is interpolated. An unquoted value ends before ` #`.

use thiserror::Error;

/// Why a file is none.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}: {problem}")]
pub(crate) struct DotenvError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: DotenvProblem,
}

/// What can be wrong with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum DotenvProblem {
    /// There is no `=`.
    #[error("expected NAME=value")]
    NoAssignment,
    /// The name is none.
    #[error("a name has letters, digits and underscores, and does not begin with a digit")]
    BadName,
    /// A quote has no end on its line.
    #[error("the quote is not closed on this line")]
    OpenQuote,
    /// Text after the closing quote.
    #[error("unexpected text after the closing quote")]
    AfterQuote,
    /// An unknown escape between double quotes.
    #[error(r#"unknown escape; there are \n, \t, \r, \", \\ and \$"#)]
    BadEscape,
    /// A zero byte, which no variable can hold.
    #[error("a variable cannot hold a zero byte")]
    ZeroByte,
}

/// Reads a whole file; of several values for one name, the last counts for whoever takes them in order.
///
/// # Errors
/// With the first line that is no comment and no assignment.
pub(crate) fn parse(text: &str) -> Result<Vec<(String, String)>, DotenvError> {
    let mut variables = Vec::new();
    // Editors of other systems write a byte order mark, which is no part of the first name.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (at, line) in text.lines().enumerate() {
        match parse_line(line.trim()) {
            Ok(variable) => variables.extend(variable),
            Err(problem) => return Err(DotenvError { line: at + 1, problem }),
        }
    }
    Ok(variables)
}

fn parse_line(line: &str) -> Result<Option<(String, String)>, DotenvProblem> {
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    if line.contains('\0') {
        return Err(DotenvProblem::ZeroByte);
    }
    let assignment = line.strip_prefix("export ").map_or(line, str::trim_start);
    let (name, value) = assignment.split_once('=').ok_or(DotenvProblem::NoAssignment)?;
    if !is_variable_name(name) {
        return Err(DotenvProblem::BadName);
    }
    let value = value.trim_start();
    let value = match value.chars().next() {
        Some('\'') => single_quoted(&value[1..])?,
        Some('"') => double_quoted(&value[1..])?,
        _ => value.split(" #").next().unwrap_or_default().trim_end().to_owned(),
    };
    Ok(Some((name.to_owned(), value)))
}

/// Whether a shell could set a variable of that name.
pub(crate) fn is_variable_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn single_quoted(rest: &str) -> Result<String, DotenvProblem> {
    let (value, after) = rest.split_once('\'').ok_or(DotenvProblem::OpenQuote)?;
    nothing_more(after)?;
    Ok(value.to_owned())
}

fn double_quoted(rest: &str) -> Result<String, DotenvProblem> {
    let mut value = String::new();
    let mut chars = rest.chars();
    loop {
        match chars.next().ok_or(DotenvProblem::OpenQuote)? {
            '"' => break,
            '\\' => value.push(match chars.next().ok_or(DotenvProblem::OpenQuote)? {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                c @ ('"' | '\\' | '$') => c,
                _ => return Err(DotenvProblem::BadEscape),
            }),
            c => value.push(c),
        }
    }
    nothing_more(chars.as_str())?;
    Ok(value)
}

fn nothing_more(after: &str) -> Result<(), DotenvProblem> {
    let after = after.trim_start();
    if after.is_empty() || after.starts_with('#') { Ok(()) } else { Err(DotenvProblem::AfterQuote) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_text_panics_and_every_value_can_be_written(text in "\\PC{0,40}", value in "[^\0]{0,20}") {
            let _ = parse(&text);
            let mut quoted = String::new();
            for c in value.chars() {
                match c {
                    '\n' => quoted.push_str("\\n"),
                    '\r' => quoted.push_str("\\r"),
                    '"' | '\\' | '$' => quoted.extend(['\\', c]),
                    c => quoted.push(c),
                }
            }
            prop_assert_eq!(parse(&format!("A=\"{quoted}\"")), Ok(vec![("A".to_owned(), value)]));
        }
    }

    #[test]
    fn values() {
        for (line, expected) in [
            ("A=b", "b"),
            ("A=", ""),
            ("export A=b", "b"),
            ("A= b c ", "b c"),
            ("A=b # comment", "b"),
            ("A=b#c", "b#c"),
            ("\u{feff}A=b", "b"),
            ("A=$HOME", "$HOME"),
            ("A='b # \"c\" $d'", "b # \"c\" $d"),
            (r#"A="b\n\"\\\$" # comment"#, "b\n\"\\$"),
            ("A=b=c", "b=c"),
        ] {
            assert_eq!(parse(line), Ok(vec![("A".into(), expected.into())]), "{line}");
        }
    }

    #[test]
    fn problems_name_their_line() {
        for (text, problem) in [
            ("nonsense", DotenvProblem::NoAssignment),
            ("1A=b", DotenvProblem::BadName),
            ("A B=c", DotenvProblem::BadName),
            ("A =b", DotenvProblem::BadName),
            ("A='b", DotenvProblem::OpenQuote),
            ("A=\"b\\", DotenvProblem::OpenQuote),
            ("A='b' c", DotenvProblem::AfterQuote),
            ("A=\"\\x\"", DotenvProblem::BadEscape),
            ("A=b\0", DotenvProblem::ZeroByte),
        ] {
            let text = format!("# first\n\n{text}\n");
            assert_eq!(parse(&text), Err(DotenvError { line: 3, problem }), "{text}");
        }
    }
}
