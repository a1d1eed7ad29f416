//! Rows below headings: every column is as wide as what is in it, and only the last one is broken where the screen ends.

use comfy_table::{Cell, ColumnConstraint, ContentArrangement, LineStyle, Table, TableStyle};

use super::palette::Palette;

const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// Draws rows, `columns` wide at most. Their cells are safe already.
pub(crate) fn grid<const N: usize>(
    heads: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
    columns: usize,
    palette: Palette,
) -> String {
    let mut table = Table::new();
    table
        .load_style(STYLE)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(u16::try_from(columns).unwrap_or(u16::MAX))
        .set_header(heads)
        .add_rows(rows.map(|row| row.into_iter().map(Cell::new_owned).collect::<Vec<_>>()));
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 1));
        if at + 1 < N {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    let mut text = String::new();
    for (at, line) in table.lines().enumerate() {
        let line = line.trim_end();
        text += &if at == 0 { palette.strong.paint(line) } else { line.to_owned() };
        text.push('\n');
    }
    text
}
