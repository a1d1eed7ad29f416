//! What calls of models came to, as a table.

use comfy_table::{Cell, CellAlignment, ColumnConstraint, ContentArrangement, LineStyle, Table, TableStyle};
use toka_core::Bill;

use super::palette::Palette;
use super::text::safe;

const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// Draws a row for each sum and one for all of them, `columns` wide at most. `by` heads the first column.
pub fn bills(by: &str, rows: &[(String, Bill)], total: &Bill, columns: usize, palette: Palette) -> String {
    let mut table = Table::new();
    table
        .load_style(STYLE)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(u16::try_from(columns).unwrap_or(u16::MAX))
        .set_header([by, "CALLS", "FAILED", "READ", "CACHED", "WRITTEN", "COST"])
        .add_rows(rows.iter().map(|(name, bill)| row(name, bill)));
    if rows.len() > 1 {
        table.add_row(row("all", total));
    }
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 1));
        if at > 0 {
            column.set_cell_alignment(CellAlignment::Right);
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    let mut text = String::new();
    for (at, line) in table.lines().enumerate() {
        let line = line.trim_end();
        text.push_str(&if at == 0 { palette.strong.paint(line) } else { line.to_owned() });
        text.push('\n');
    }
    for note in notes(total) {
        text.push_str(&palette.faint.paint(note));
        text.push('\n');
    }
    text
}

fn row(name: &str, bill: &Bill) -> Vec<Cell> {
    let tokens = &bill.tokens;
    let about = if bill.estimated_nano_usd.0 > 0 { "about " } else { "" };
    let more = if bill.unpriced + bill.unknown > 0 { " + ?" } else { "" };
    let figures = [
        bill.calls.to_string(),
        bill.failed.to_string(),
        tokens.read().to_string(),
        tokens.cached_read.unwrap_or(0).to_string(),
        tokens.output.unwrap_or(0).to_string(),
        format!("{about}{}{more}", bill.nano_usd),
    ];
    std::iter::once(safe(name)).chain(figures).map(Cell::new_owned).collect()
}

/// What the figures do not hold.
fn notes(total: &Bill) -> Vec<String> {
    let calls = |count: u64| if count == 1 { "1 call".to_owned() } else { format!("{count} calls") };
    let mut notes = Vec::new();
    if total.estimated_nano_usd.0 > 0 {
        notes.push(format!("{} of it is estimated: those answers broke off", total.estimated_nano_usd));
    }
    if total.unpriced > 0 {
        notes.push(format!(
            "the price of {} is not known: tell it in toka.yaml (`models: {{prices: …}}`)",
            calls(total.unpriced)
        ));
    }
    if total.unknown > 0 {
        notes.push(format!("of {} nobody knows what was used", calls(total.unknown)));
    }
    notes
}

#[cfg(test)]
mod tests {
    use toka_core::{Money, Tokens};

    use super::*;

    #[test]
    fn sums_with_what_is_not_known() {
        let bill = Bill {
            calls: 12,
            failed: 1,
            tokens: Tokens {
                input: Some(120_000),
                cached_read: Some(40_000),
                output: Some(9_000),
                ..Tokens::default()
            },
            nano_usd: Money(1_234_000_000),
            ..Bill::default()
        };
        let odd = Bill {
            calls: 3,
            open: 1,
            nano_usd: Money(2_000_000),
            estimated_nano_usd: Money(2_000_000),
            unpriced: 1,
            unknown: 1,
            ..Bill::default()
        };
        let mut total = bill;
        total.add(&odd);
        let rows = [("coder".to_owned(), bill), ("rev\u{1b}[31mer".to_owned(), odd)];
        insta::assert_snapshot!(bills("AGENT", &rows, &total, 80, Palette::PLAIN));
    }
}
