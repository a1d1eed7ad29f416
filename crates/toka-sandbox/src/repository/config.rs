//! The settings of a git configuration file, as far as it takes to find paths in it (git-config(1), SYNTAX). What git would
//! refuse is passed over: then git does not obey it either.

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    /// Section, subsection if any, and name, joined by dots; section and name in lower case.
    pub(super) key: String,
    /// Its value; empty when there is none.
    pub(super) value: String,
}

impl Setting {
    /// Whether it names another file of settings.
    pub(super) fn is_include(&self) -> bool {
        self.key == "include.path" || (self.key.starts_with("includeif.") && self.key.ends_with(".path"))
    }
}

/// Every setting of a file, in its order.
pub(super) fn settings(text: &str) -> Vec<Setting> {
    let mut found = Vec::new();
    let mut section = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let mut line = line.trim_start_matches(['\u{feff}', ' ', '\t']);
        if line.starts_with('[') {
            let Some((name, rest)) = header(line) else { continue };
            (section, line) = (name, rest.trim_start());
        }
        if line.is_empty() || line.starts_with(['#', ';']) || section.is_empty() {
            continue;
        }
        let end = line.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(line.len());
        let (name, rest) = line.split_at(end);
        if name.is_empty() {
            continue;
        }
        let value = match rest.trim_start().strip_prefix('=') {
            Some(begun) => value(begun, &mut lines),
            None => String::new(),
        };
        found.push(Setting { key: format!("{section}.{}", name.to_ascii_lowercase()), value });
    }
    found
}

/// `[section]`, `[section "subsection"]` or the old `[section.subsection]`, and what follows.
fn header(line: &str) -> Option<(String, &str)> {
    let inner = line.strip_prefix('[')?;
    let end = inner.find([']', ' ', '\t', '"'])?;
    let name = inner[..end].to_ascii_lowercase();
    let rest = inner[end..].trim_start();
    if let Some(rest) = rest.strip_prefix(']') {
        return Some((name, rest));
    }
    let mut subsection = String::new();
    let mut chars = rest.strip_prefix('"')?.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => {
                let after = rest[at + 2..].trim_start().strip_prefix(']')?;
                return Some((format!("{name}.{subsection}"), after));
            }
            '\\' => subsection.push(chars.next()?.1),
            c => subsection.push(c),
        }
    }
    None
}

/// A value: quotes and escapes are resolved, a comment ends it, a backslash at the end of a line joins the next.
fn value<'a>(begun: &str, lines: &mut impl Iterator<Item = &'a str>) -> String {
    let mut out = String::new();
    // How much of it stays when blanks at the end go.
    let mut kept = 0;
    let mut quoted = false;
    let mut line = begun.trim_start();
    loop {
        let mut chars = line.chars();
        let mut goes_on = false;
        while let Some(c) = chars.next() {
            match c {
                '"' => quoted = !quoted,
                '#' | ';' if !quoted => break,
                '\\' => match chars.next() {
                    None => goes_on = true,
                    Some('n') => out.push('\n'),
                    Some('t') => out.push('\t'),
                    Some('b') => drop(out.pop()),
                    Some(other) => out.push(other),
                },
                c => out.push(c),
            }
            if quoted || !c.is_whitespace() {
                kept = out.len();
            }
        }
        match if goes_on { lines.next() } else { None } {
            Some(next) => line = next,
            None => break,
        }
    }
    out.truncate(kept);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_git_reads_is_read() {
        let text = r#"
# a comment
[core]
	hooksPath = .husky/_   ; where hooks are
	bare
	HooksPath = "a b" # quoted
[includeIf "gitdir:~/work/"] path = ~/.work
[include]
	path = one\
two
[Section.Sub]key=v
[broken
name = lost
"#;
        let found: Vec<String> =
            settings(text).into_iter().map(|it| format!("{}={}", it.key, it.value)).collect();
        assert_eq!(
            found,
            [
                "core.hookspath=.husky/_",
                "core.bare=",
                "core.hookspath=a b",
                "includeif.gitdir:~/work/.path=~/.work",
                "include.path=onetwo",
                "section.sub.key=v",
                "section.sub.name=lost",
            ]
        );
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[\\[\\]\"\\\\=#;a-z \n\t.]{0,60}") {
            let _ = settings(&text);
        }
    }
}
