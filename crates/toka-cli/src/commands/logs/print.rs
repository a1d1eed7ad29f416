//! How a line is shown: to people with the agent's name, to programs as JSON, to a file as it was written.

use std::io::{self, Write};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use toka_core::{AgentName, ProjectName, RunId, escape};
use toka_logs::{Ending, Entry, Gap, Item, Line, Stream};

use super::choice::time_of;
use super::find::Source;
use toka_terminal::json;
use toka_terminal::palette::Palette;

/// How lines are shown.
#[derive(Debug, Clone, Copy)]
pub(super) enum Look {
    /// For people, or as they were written.
    Text {
        /// In which colours.
        palette: Palette,
        /// What of them reaches the stream.
        bytes: Bytes,
        /// Whether their time is shown.
        times: Times,
    },
    /// For programs.
    Json,
}

/// What of a line reaches the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bytes {
    /// Nothing that a terminal would obey.
    Escaped,
    /// All.
    Raw,
}

/// Whether lines begin with their time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Times {
    Shown,
    Hidden,
}

/// Writes lines.
pub(super) struct Printer<W> {
    stream: W,
    look: Look,
    /// Columns for the names of agents; 0 when there is only one, whose name needs not be told.
    width: usize,
    /// The line that is not at its end: whose it is, and how its last piece ended.
    open: Option<(Stream, Ending)>,
}

/// A line for programs.
#[derive(Serialize)]
struct Record<'l> {
    time: Option<String>,
    project: &'l ProjectName,
    agent: &'l AgentName,
    run: Option<RunId>,
    #[serde(flatten)]
    what: What<'l>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum What<'l> {
    Line {
        stream: Stream,
        text: std::borrow::Cow<'l, str>,
        /// Only of a line that is too long for one record, and goes on in the next.
        #[serde(skip_serializing_if = "Option::is_none")]
        cut: Option<bool>,
    },
    Gap {
        lost: u32,
    },
}

impl<W: Write> Printer<W> {
    pub(super) fn new(stream: W, look: Look) -> Self {
        Self { stream, look, width: 0, open: None }
    }

    /// Whose lines are to come.
    pub(super) fn sources(&mut self, sources: &[Source]) {
        let widest = sources.iter().map(|source| source.agent.as_str().len()).max().unwrap_or(0);
        self.width = if sources.len() > 1 { widest } else { 0 };
    }

    pub(super) fn print(&mut self, source: &Source, item: &Item) -> io::Result<()> {
        match (self.look, &item.entry) {
            (Look::Json, _) => writeln!(self.stream, "{}", json::line(&record(source, item))),
            (Look::Text { palette, bytes, times }, entry) => {
                let pieced = self.width == 0 && times == Times::Hidden;
                self.close_line(entry)?;
                let stream = match entry {
                    Entry::Line(line) => Some(line.stream),
                    Entry::Gap(_) => None,
                };
                let begin = self.prefix(palette, source, stream) + &time(palette, times, item);
                self.stream.write_all(begin.as_bytes())?;
                match entry {
                    Entry::Gap(gap) => writeln!(self.stream, "{}", palette.warn.paint(lost(gap))),
                    Entry::Line(line) => {
                        match bytes {
                            Bytes::Raw => self.stream.write_all(&line.bytes)?,
                            Bytes::Escaped => self.stream.write_all(shown(line).as_bytes())?,
                        }
                        if line.ending == Ending::Newline || !pieced {
                            return self.stream.write_all(b"\n");
                        }
                        self.open = Some((line.stream, line.ending));
                        Ok(())
                    }
                }
            }
        }
    }

    /// Writes what was gathered. A terminal gets the end of its line.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if matches!(self.look, Look::Text { bytes: Bytes::Escaped, .. })
            && self.open.is_some_and(|(_, ending)| ending == Ending::Open)
        {
            self.open = None;
            self.stream.write_all(b"\n")?;
        }
        self.stream.flush()
    }

    /// Ends the line before, unless it goes on here.
    fn close_line(&mut self, entry: &Entry) -> io::Result<()> {
        let goes_on = |stream| matches!(entry, Entry::Line(line) if line.stream == stream);
        match self.open.take() {
            Some((stream, Ending::Cut)) if goes_on(stream) => Ok(()),
            Some(_) => self.stream.write_all(b"\n"),
            None => Ok(()),
        }
    }

    /// The agent's name, and a bar that tells the stream by its colour.
    fn prefix(&self, palette: Palette, source: &Source, stream: Option<Stream>) -> String {
        if self.width == 0 {
            return String::new();
        }
        let name = palette.name(source.place).paint(format!("{:width$}", source.agent, width = self.width));
        let bar = match stream {
            Some(Stream::Stderr) => palette.bad.paint("|"),
            _ => palette.faint.paint("|"),
        };
        format!("{name} {bar} ")
    }
}

fn time(palette: Palette, times: Times, item: &Item) -> String {
    if times == Times::Hidden {
        return String::new();
    }
    let time = time_of(item).and_then(|time| Timestamp::from_millisecond(time).ok());
    let text = time.map(|time| time.to_zoned(TimeZone::system()).strftime("%FT%T%.3f%:z").to_string());
    format!("{} ", palette.faint.paint(text.unwrap_or_else(|| "-".to_owned())))
}

/// The whole line, safe for a terminal.
fn shown(line: &Line) -> String {
    let bytes = line.bytes.strip_suffix(b"\r").unwrap_or(&line.bytes);
    escape::for_terminal(bytes, usize::MAX)
}

/// `… 12,345 bytes were lost here: …`.
fn lost(gap: &Gap) -> String {
    let digits = gap.lost.to_string();
    let mut number = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            number.push(',');
        }
        number.push(digit);
    }
    let (bytes, were) = if gap.lost == 1 { ("byte", "was") } else { ("bytes", "were") };
    format!("… {number} {bytes} {were} lost here: the disk was full, or the log was removed")
}

fn record<'l>(source: &'l Source, item: &'l Item) -> Record<'l> {
    let time = time_of(item).and_then(|time| Timestamp::from_millisecond(time).ok());
    let what = match &item.entry {
        Entry::Line(line) => What::Line {
            stream: line.stream,
            text: String::from_utf8_lossy(&line.bytes),
            cut: (line.ending == Ending::Cut).then_some(true),
        },
        Entry::Gap(gap) => What::Gap { lost: gap.lost },
    };
    Record {
        time: time.map(|time| format!("{time:.3}")),
        project: &source.project,
        agent: &source.agent,
        run: item.run,
        what,
    }
}

#[cfg(test)]
mod tests {
    use toka_core::Name;

    use super::*;

    fn source(agent: &str, place: usize) -> Source {
        let name = |text| Name::new(text).expect("a label");
        Source { project: name("widgets"), agent: name(agent), place, log: "log".into() }
    }

    fn line(stream: Stream, bytes: &[u8], ending: Ending) -> Item {
        let line = Line { stream, time_ms: Some(1_763_719_200_250), bytes: bytes.to_owned(), ending };
        Item { run: Some(RunId::from_bytes([7; 16])), entry: Entry::Line(line) }
    }

    fn items() -> Vec<Item> {
        let gap = Gap { offset: 0, time_ms: 1_763_719_200_500, lost: 12_345 };
        vec![
            line(Stream::Stdout, b"plain", Ending::Newline),
            line(Stream::Stderr, b"red \x1b[31m and \xff\r", Ending::Newline),
            Item { run: None, entry: Entry::Gap(gap) },
            line(Stream::Stdout, b"a long ", Ending::Cut),
            line(Stream::Stdout, b"line", Ending::Newline),
            line(Stream::Stdout, b"open", Ending::Open),
        ]
    }

    fn text(palette: Palette, bytes: Bytes) -> Look {
        Look::Text { palette, bytes, times: Times::Hidden }
    }

    fn printed(look: Look, sources: &[Source]) -> Vec<u8> {
        let mut printer = Printer::new(Vec::new(), look);
        printer.sources(sources);
        for (at, item) in items().iter().enumerate() {
            printer.print(&sources[at % sources.len()], item).expect("memory");
        }
        printer.flush().expect("memory");
        printer.stream
    }

    fn check(name: &str, look: Look, sources: &[Source]) {
        let text = String::from_utf8(printed(look, sources)).expect("text");
        insta::assert_snapshot!(name, text.replace('\u{1b}', "␛"));
    }

    #[test]
    fn one_agent_on_a_terminal() {
        check("one_agent", text(Palette::COLOUR, Bytes::Escaped), &[source("fetch", 0)]);
    }

    #[test]
    fn several_agents_on_a_terminal() {
        let sources = [source("fetch", 0), source("build-it", 1)];
        check("several_agents", text(Palette::COLOUR, Bytes::Escaped), &sources);
        check("several_agents_plain", text(Palette::PLAIN, Bytes::Escaped), &sources);
    }

    #[test]
    fn for_programs() {
        check("json", Look::Json, &[source("fetch", 0)]);
    }

    #[test]
    fn elsewhere_the_bytes_of_one_agent_are_its_own() {
        let raw = printed(text(Palette::PLAIN, Bytes::Raw), &[source("fetch", 0)]);
        let expected: &[u8] = b"plain\nred \x1b[31m and \xff\r\n\
            \xe2\x80\xa6 12,345 bytes were lost here: the disk was full, or the log was removed\na long line\nopen";
        assert_eq!(raw, expected, "{}", String::from_utf8_lossy(&raw));
    }

    #[test]
    fn numbers_are_grouped() {
        let told = |lost_bytes| lost(&Gap { offset: 0, time_ms: 0, lost: lost_bytes });
        assert!(told(1).starts_with("… 1 byte was lost"));
        assert!(told(999).contains(" 999 bytes were"));
        assert!(told(1_000_000).contains(" 1,000,000 "));
    }
}
