//! The table at the end of a run: one row per agent, what became of it and what it took.

use comfy_table::{
    Cell, CellAlignment, ColumnConstraint, ContentArrangement, LineStyle, Table, TableStyle, Width,
};
use toka_core::ByteSize;
use toka_core::units::format_duration;

use super::palette::Palette;
use super::phrases::{done_glyph, outcome};
use super::view::{AgentView, Outcome, RunView};

const HEADER: [&str; 6] = ["  AGENT", "OUTCOME", "TIME", "PEAK MEMORY", "CPU", "ENFORCEMENT"];
/// Columns of figures, which stand right-aligned and are never wrapped.
const FIGURES: std::ops::Range<usize> = 2..5;
const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));
/// Width for a reader that is no terminal, such as a log.
pub const PIPE_COLUMNS: usize = 120;
/// Below this nothing can be arranged; the terminal may wrap as it likes.
const LEAST_COLUMNS: usize = 60;

/// Draws the table, `columns` wide at most. What is too long is wrapped within its column.
pub fn table(view: &RunView, columns: usize, palette: Palette) -> String {
    let mut table = Table::new();
    let columns = columns.max(LEAST_COLUMNS);
    table
        .load_style(STYLE)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(u16::try_from(columns).unwrap_or(u16::MAX))
        .set_header(HEADER)
        .add_rows(view.agents().iter().map(row));
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 1));
        if FIGURES.contains(&at) {
            column.set_cell_alignment(CellAlignment::Right);
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    if let Some(name) = table.column_mut(0) {
        let most = u16::try_from(columns / 3).unwrap_or(u16::MAX);
        name.set_constraint(ColumnConstraint::UpperBoundary(Width::Fixed(most)));
    }
    paint(table.lines(), palette)
}

fn row(agent: &AgentView) -> Vec<Cell> {
    let (glyph, _) = done_glyph(agent.outcome(), Palette::PLAIN);
    let (time, memory, cpu) = figures(agent);
    let enforcement = agent.enforcement.as_ref().map_or_else(|| "–".to_owned(), ToString::to_string);
    // A no-break space keeps the mark and a long name on one line.
    [format!("{glyph}\u{a0}{}", agent.name), outcome(agent), time, memory, cpu, enforcement]
        .into_iter()
        .map(Cell::new_owned)
        .collect()
}

fn figures(agent: &AgentView) -> (String, String, String) {
    let unknown = || "–".to_owned();
    let Some(end) = &agent.end else { return (unknown(), unknown(), unknown()) };
    let memory = end.usage.memory_peak.map_or_else(unknown, |peak| ByteSize(peak).to_string());
    let cpu = end.usage.cpu_us.map_or_else(unknown, |us| format!("{:.2}s", us as f64 / 1e6));
    (format_duration(end.duration), memory, cpu)
}

/// Colours the finished lines: the table counts every character of a cell as a column, so colour comes last.
fn paint(lines: impl Iterator<Item = String>, palette: Palette) -> String {
    let glyphs = Outcome::ALL.map(|outcome| done_glyph(outcome, palette));
    let mut out = String::new();
    for (at, line) in lines.enumerate() {
        let line = line.trim_end().replace('\u{a0}', " ");
        let mark = glyphs.iter().find(|(glyph, _)| at > 1 && line.starts_with(glyph));
        match mark {
            _ if at == 0 => out.push_str(&palette.strong.paint(line)),
            _ if at == 1 => out.push_str(&palette.faint.paint(line)),
            Some((glyph, paint)) => {
                out.push_str(&paint.paint(glyph));
                out.push_str(&line[glyph.len()..]);
            }
            None => out.push_str(&line),
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canned;
    use crate::text::columns as width_of;

    fn draw(columns: usize, palette: Palette) -> String {
        table(&canned::view_after(canned::events().len()), columns, palette)
    }

    #[test]
    fn at_80_columns() {
        insta::assert_snapshot!(draw(80, Palette::PLAIN));
    }

    #[test]
    fn at_160_columns() {
        insta::assert_snapshot!(draw(160, Palette::PLAIN));
    }

    #[test]
    fn in_colour() {
        insta::assert_snapshot!(draw(160, Palette::COLOUR).replace('\u{1b}', "␛"));
    }

    #[test]
    fn it_is_never_wider_than_asked_for() {
        for columns in LEAST_COLUMNS..180 {
            let text = draw(columns, Palette::PLAIN);
            assert!(text.lines().all(|line| width_of(line) <= columns), "{columns}\n{text}");
        }
    }
}
