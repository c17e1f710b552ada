//! Tables for people.

use std::fmt::Write;

/// How a column is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Texts.
    Left,
    /// Numbers.
    Right,
}

/// Rows under titles; a cell may have several lines.
pub struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub fn new(columns: &[(&'static str, Align)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.cells(cells.into());
    }

    /// Adds a row of a table whose columns are not always the same.
    pub fn cells(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Breaks the lines of the last column so that the table is at most `width` columns wide, if the others
    /// leave that much.
    pub fn wrap_last(&mut self, width: usize) {
        let last = self.widths().last().copied().unwrap_or(0);
        let left = width.saturating_sub(self.width() - last);
        for cell in self.rows.iter_mut().filter_map(|row| row.last_mut()) {
            *cell = wrap(cell, left.max(LAST_COLUMN_MIN));
        }
    }

    /// Columns that it is wide, with the titles.
    fn width(&self) -> usize {
        self.widths().iter().sum::<usize>() + 2 * self.columns.len().saturating_sub(1)
    }

    fn widths(&self) -> Vec<usize> {
        let titles = self.columns.iter().map(|(title, _)| width_of(title));
        let mut widths: Vec<usize> = titles.collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.lines().map(width_of).max().unwrap_or(0).max(*width);
            }
        }
        widths
    }

    /// Leaves the column `title` out, if no row has anything in it.
    pub fn hide_if_empty(&mut self, title: &str) {
        let Some(place) = self.columns.iter().position(|(known, _)| *known == title) else { return };
        if self.rows.iter().all(|row| row.get(place).is_none_or(String::is_empty)) {
            self.columns.remove(place);
            self.rows.iter_mut().filter(|row| place < row.len()).for_each(|row| drop(row.remove(place)));
        }
    }

    /// The text, with a line below the titles and one at the end.
    pub fn render(&self) -> String {
        let titles: Vec<String> = self.columns.iter().map(|(title, _)| (*title).to_owned()).collect();
        let widths = self.widths();
        let line = "-".repeat(self.width());
        let mut out = String::new();
        self.write_row(&mut out, &widths, &titles);
        let _ = writeln!(out, "{line}");
        for row in &self.rows {
            self.write_row(&mut out, &widths, row);
        }
        let _ = writeln!(out, "{line}");
        out
    }

    fn write_row(&self, out: &mut String, widths: &[usize], row: &[String]) {
        let height = row.iter().map(|cell| cell.lines().count()).max().unwrap_or(0).max(1);
        for number in 0..height {
            let mut text = String::new();
            for ((cell, width), (_, align)) in row.iter().zip(widths).zip(&self.columns) {
                let piece = cell.lines().nth(number).unwrap_or_default();
                let space = " ".repeat(width.saturating_sub(width_of(piece)));
                match align {
                    Align::Left => text.extend([piece, &space, "  "]),
                    Align::Right => text.extend([&space, piece, "  "]),
                }
            }
            let _ = writeln!(out, "{}", text.trim_end());
        }
    }
}

/// Narrowest last column that is worth reading.
const LAST_COLUMN_MIN: usize = 20;

/// Breaks lines that are wider than `width` columns, after a `/` where there is one late enough.
pub fn wrap(text: &str, width: usize) -> String {
    let mut lines = Vec::new();
    for mut rest in text.lines() {
        while let Some((end, _)) = rest.char_indices().nth(width) {
            let (line, _) = rest.split_at(end);
            let end = line.rfind('/').filter(|at| at * 2 > end).map_or(end, |at| at + 1);
            let (line, after) = rest.split_at(end);
            lines.push(line);
            rest = after;
        }
        lines.push(rest);
    }
    lines.join("\n")
}

fn width_of(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_without_anything_can_be_left_out() {
        let mut table = Table::new(&[("A", Align::Left), ("B", Align::Left), ("C", Align::Left)]);
        table.row(["1".into(), String::new(), "2".into()]);
        ["A", "B", "D"].iter().for_each(|title| table.hide_if_empty(title));
        assert_eq!(table.render(), "A  C\n----\n1  2\n----\n");
    }

    #[test]
    fn long_texts_are_broken() {
        assert_eq!(wrap("short", 5), "short");
        assert_eq!(wrap("", 5), "");
        assert_eq!(wrap("abc\nabcdef", 5), "abc\nabcde\nf");
        assert_eq!(wrap("/srv/data/photos", 10), "/srv/data/\nphotos");
        assert_eq!(wrap("/abcdefghijkl", 5), "/abcd\nefghi\njkl");
        assert_eq!(wrap("üüüü", 3), "üüü\nü");
    }

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(&[("Name", Align::Left), ("Size", Align::Right), ("Path", Align::Left)]);
        table.row(["a".into(), "1".into(), "/x\n/y".into()]);
        table.row(["bücher".into(), "12,345".into(), "/z".into()]);
        let expected = "\
Name      Size  Path
--------------------
a            1  /x
                /y
bücher  12,345  /z
--------------------
";
        assert_eq!(table.render(), expected);
    }
}
