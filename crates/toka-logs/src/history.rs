//! Reads an agent's output as if it were one log, however many it is kept in: lines go on from one to the next, nothing is
//! given twice, and a log that becomes an older one while it is read is read to its end.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use toka_core::RunId;

use super::index::Mark;
use super::place::is_missing;
use super::reader::{Ending, Entry, Line, LogReader, Rests};
use super::segment::{Place, Segment, is_at, segments};

/// Of the end of a log, so many bytes are looked at first when its last lines are wanted. Few in tests, so that there is something
/// before them.
const WINDOW: u64 = if cfg!(test) { 16 } else { 64 * 1024 };
/// And so many times more when they were too few.
const GROWTH: u64 = 4;
/// Most that [`tail`] looks at, in bytes, as far as it is not compressed.
const TAIL_BYTES: u64 = 4 * 1024 * 1024;

/// What is read, and of which run it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The run; `None` for a log of a time when logs did not say.
    pub run: Option<RunId>,
    /// A line or a gap.
    pub entry: Entry,
}

/// Whether reading ends where the logs do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// With what is there: also a last line that has no end.
    Present,
    /// Not at all: what comes later is read later, also of runs to come.
    Growing,
}

/// How far an agent's output was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bookmark {
    log: Mark,
    place: (u64, u64),
}

/// Reads the logs of one agent from front to back.
#[derive(Debug)]
pub struct History {
    log: PathBuf,
    extent: Extent,
    ahead: VecDeque<Segment>,
    now: Option<Now>,
    /// The log that was opened last.
    last: Option<Mark>,
    /// Beginnings of lines that the log before this one left, and of which run it was.
    rests: Option<(Option<RunId>, Rests)>,
    /// Where to begin in the first log, if it is that one.
    begin: Option<Bookmark>,
    cut: [Cut; 2],
    /// How many ends of lines were left out since their beginnings were.
    torn: usize,
}

/// The log that is read.
#[derive(Debug)]
struct Now {
    segment: Segment,
    reader: LogReader,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// More may be written to it.
    Reading,
    /// It is known that nothing will; what it still holds is given.
    Closing,
}

/// Whether a stream is read from the beginning of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Clean,
    MidLine,
}

impl Cut {
    fn of(unfinished: [bool; 2]) -> [Self; 2] {
        unfinished.map(|unfinished| if unfinished { Self::MidLine } else { Self::Clean })
    }
}

impl History {
    /// Reads these logs of the agent whose current one is `log`.
    pub fn of(log: &Path, segments: Vec<Segment>, extent: Extent) -> Self {
        Self {
            log: log.to_owned(),
            extent,
            ahead: segments.into(),
            now: None,
            last: None,
            rests: None,
            begin: None,
            cut: [Cut::Clean; 2],
            torn: 0,
        }
    }

    /// Reads the logs of the last run of the agent whose current one is `log`.
    ///
    /// # Errors
    /// When they cannot be found; none at all is no error.
    pub fn of_last_run(log: &Path, extent: Extent) -> io::Result<Self> {
        Ok(Self::of(log, last_run(segments(log)?), extent))
    }

    /// Reads what an agent writes after what was read up to `bookmark`.
    ///
    /// # Errors
    /// When the logs cannot be found.
    pub fn after(log: &Path, bookmark: Bookmark, extent: Extent) -> io::Result<Self> {
        let ahead = behind(segments(log)?, Some(bookmark.log), Including::Itself).into();
        Ok(Self { begin: Some(bookmark), ..Self::of(log, ahead, extent) })
    }

    /// How far it is read, once it has given everything up to its end; `None` when there was no log.
    pub fn bookmark(&self) -> Option<Bookmark> {
        let now = self.now.as_ref()?;
        Some(Bookmark { log: key(now.segment.mark), place: now.reader.place() })
    }

    /// From now on, what is there is all there will be.
    pub fn end(&mut self) {
        self.extent = Extent::Present;
    }

    /// The next line or gap; `None` when there is none, at the moment or at all.
    ///
    /// # Errors
    /// When a log cannot be read.
    pub fn next_item(&mut self) -> io::Result<Option<Item>> {
        loop {
            let Some(now) = &mut self.now else {
                if self.open_next()? {
                    continue;
                }
                return Ok(None);
            };
            let run = now.segment.run();
            match (now.reader.next_entry()?, now.phase) {
                (Some(entry), _) if self.is_torn(&entry) => self.torn += 1,
                (Some(entry), _) => return Ok(Some(Item { run, entry })),
                (None, Phase::Reading) if self.close_if_over()? => {}
                (None, Phase::Closing) if !self.ahead.is_empty() => {
                    self.rests = self.now.take().map(|now| (run, now.reader.into_rests()));
                }
                (None, _) => return Ok(None),
            }
        }
    }

    /// Opens the next log that can be; one that is gone was removed, as the oldest are.
    fn open_next(&mut self) -> io::Result<bool> {
        if self.ahead.is_empty() && self.extent == Extent::Growing {
            self.ahead = self.after_last()?;
        }
        while let Some(segment) = self.ahead.pop_front() {
            let opened = match segment.open() {
                Ok(opened) => opened,
                Err(error) if is_missing(&error) => continue,
                Err(error) => return Err(error),
            };
            if opened.mark != segment.mark {
                // The current one has become an older one since it was found.
                self.ahead = behind(segments(&self.log)?, segment.mark, Including::Itself);
                continue;
            }
            let mut reader = LogReader::of(opened)?;
            if let Some((run, rests)) = self.rests.take()
                && run == segment.run()
            {
                reader.go_on_from(rests);
            }
            if let Some(Bookmark { log, place }) = self.begin.take()
                && log == key(segment.mark)
            {
                reader.go_on_at(place);
            }
            self.last = Some(key(segment.mark));
            self.now = Some(Now { segment, reader, phase: Phase::Reading });
            return Ok(true);
        }
        Ok(false)
    }

    /// At the end of what is there: whether nothing more will be written to this log, which is then told to its reader.
    fn close_if_over(&mut self) -> io::Result<bool> {
        let Some(now) = &self.now else { return Ok(false) };
        let is_current = match (&now.segment.place, now.reader.log().as_plain()) {
            (Place::Current(path), Some(file)) => is_at(file, path),
            _ => false,
        };
        if self.ahead.is_empty() && !is_current && self.extent == Extent::Growing {
            self.ahead = self.after_last()?;
        }
        let Some(now) = &mut self.now else { return Ok(false) };
        match self.ahead.front() {
            Some(next) if next.run() == now.segment.run() => now.reader.end_with_next(),
            None if self.extent == Extent::Growing => return Ok(false),
            _ => now.reader.end(),
        }
        now.phase = Phase::Closing;
        Ok(true)
    }

    fn after_last(&self) -> io::Result<VecDeque<Segment>> {
        let all = segments(&self.log)?;
        Ok(if self.last.is_none() { all.into() } else { behind(all, self.last, Including::Others) })
    }

    /// Whether it is the end of a line whose beginning was left out.
    fn is_torn(&mut self, entry: &Entry) -> bool {
        let Entry::Line(line) = entry else { return false };
        let cut = std::mem::replace(&mut self.cut[line.stream as usize], Cut::Clean);
        // A line that is so long that it comes in pieces shows that it has no beginning.
        cut == Cut::MidLine && line.ending != Ending::Cut
    }
}

/// Whether a log is wanted itself, or only those behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Including {
    Itself,
    Others,
}

/// Those logs that were begun after one; where that is not there any more, those whose mark is greater, and the current one.
fn behind(all: Vec<Segment>, mark: Option<Mark>, including: Including) -> VecDeque<Segment> {
    let mark = key(mark);
    let first = match all.iter().position(|segment| key(segment.mark) == mark) {
        Some(at) => at + usize::from(including == Including::Others),
        None => all
            .iter()
            .position(|segment| key(segment.mark) > mark || matches!(segment.place, Place::Current(_)))
            .unwrap_or(all.len()),
    };
    all.into_iter().skip(first).collect()
}

/// One that does not say what it is is of no run.
fn key(mark: Option<Mark>) -> Mark {
    mark.unwrap_or(Mark { run: RunId::from_bytes([0; 16]), number: 0 })
}

fn last_run(mut all: Vec<Segment>) -> Vec<Segment> {
    let last = all.last().map(Segment::run);
    all.retain(|segment| Some(segment.run()) == last);
    all
}

/// The last `count` items of these logs for which `wanted` says so, oldest first, and the history that goes on behind them.
/// Looks at the end first, and further back only as far as needed.
///
/// # Errors
/// When a log cannot be read.
pub fn last_items(
    log: &Path,
    segments: &[Segment],
    extent: Extent,
    count: usize,
    wanted: impl FnMut(&Item) -> bool,
) -> io::Result<(Vec<Item>, History)> {
    search_back(log, segments, extent, u64::MAX, count, wanted)
}

/// The last `count` lines of the last run of the agent whose current log is `log`, oldest first; fewer when they lie too
/// far back.
///
/// # Errors
/// As [`History`]; and when there is no log.
pub fn tail(log: &Path, count: usize) -> io::Result<Vec<Line>> {
    let segments = last_run(segments(log)?);
    if segments.is_empty() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let is_line = |item: &Item| matches!(item.entry, Entry::Line(_));
    let (items, _) = search_back(log, &segments, Extent::Present, TAIL_BYTES, count, is_line)?;
    let line = |item: Item| match item.entry {
        Entry::Line(line) => Some(line),
        Entry::Gap(_) => None,
    };
    Ok(items.into_iter().filter_map(line).collect())
}

fn search_back(
    log: &Path,
    segments: &[Segment],
    extent: Extent,
    most: u64,
    count: usize,
    mut wanted: impl FnMut(&Item) -> bool,
) -> io::Result<(Vec<Item>, History)> {
    let (mut first, mut window) = (segments.len().saturating_sub(1), WINDOW);
    loop {
        let (mut history, left) =
            begin_near_end(log, &segments[first.min(segments.len())..], extent, window)?;
        if left == Left::Nothing && first > 0 && segments[first - 1].run() == segments[first].run() {
            history.cut = at_end_of(&segments[first - 1])?;
        }
        let mut last = VecDeque::new();
        // Before all others it is not among the last; behind one of them it may be.
        let mut torn_before = 0;
        while let Some(item) = history.next_item()? {
            if last.is_empty() {
                torn_before = history.torn;
            }
            if wanted(&item) {
                last.push_back(item);
            }
            if last.len() > count {
                last.pop_front();
            }
        }
        let is_all = left == Left::Nothing && first == 0;
        // So may one that was begun before all of this, and ends with it.
        let lacks_none = history.torn == torn_before && history.cut == [Cut::Clean; 2];
        let is_enough = last.len() >= count && lacks_none;
        if is_enough || is_all || window > most {
            return Ok((last.into(), history));
        }
        if left == Left::Nothing {
            first -= 1;
        }
        window = window.saturating_mul(GROWTH);
    }
}

/// How the log leaves both streams to the next one. One that is gone, as the oldest are, cannot tell. A line that was begun in a log
/// before it, on a stream that wrote nothing to it, is not looked for: that would take reading all of them.
fn at_end_of(segment: &Segment) -> io::Result<[Cut; 2]> {
    match segment.open() {
        Ok(opened) => Ok(Cut::of(LogReader::of(opened)?.unfinished_at_end()?)),
        Err(error) if is_missing(&error) => Ok([Cut::MidLine; 2]),
        Err(error) => Err(error),
    }
}

/// What of the first log is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Nothing,
    Beginning,
}

fn begin_near_end(
    log: &Path,
    segments: &[Segment],
    extent: Extent,
    window: u64,
) -> io::Result<(History, Left)> {
    let mut history = History::of(log, segments.to_vec(), extent);
    let opened = !segments.is_empty() && history.open_next()?;
    if opened
        && let Some(now) = &mut history.now
        && let Some(unfinished) = now.reader.begin_near_end(window)?
    {
        history.cut = Cut::of(unfinished);
        return Ok((history, Left::Beginning));
    }
    Ok((history, Left::Nothing))
}
