//! Tables with units, as Markdown, so that a README can hold them as they are printed.

use std::fmt::Write as _;
use std::time::Duration;

/// A table under its heading.
#[derive(Debug)]
pub struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    #[must_use]
    pub fn new(head: &[&str]) -> Self {
        Self { head: head.iter().map(|&cell| cell.to_owned()).collect(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: &[String]) {
        self.rows.push(cells.to_vec());
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all = || std::iter::once(&self.head).chain(&self.rows);
        let width =
            |column: usize| all().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> = (0..self.head.len()).map(|column| width(column).unwrap_or(0)).collect();
        for (index, row) in all().enumerate() {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                write!(line, "| {cell:width$} ")?;
            }
            writeln!(out, "{line}|")?;
            if index == 0 {
                writeln!(
                    out,
                    "{}|",
                    widths.iter().map(|width| format!("| {} ", "-".repeat(*width))).collect::<String>()
                )?;
            }
        }
        Ok(())
    }
}

/// Bytes as kB of 1,000, one decimal below 100.
#[must_use]
pub fn kilobytes(bytes: f64) -> String {
    let value = bytes / 1000.0;
    if value.abs() < 100.0 { format!("{value:.1} kB") } else { format!("{value:.0} kB") }
}

/// A span in the unit that suits it.
#[must_use]
pub fn span(span: Duration) -> String {
    match span.as_secs_f64() {
        seconds if seconds < 1e-6 => format!("{:.0} ns", seconds * 1e9),
        seconds if seconds < 1e-3 => format!("{:.1} µs", seconds * 1e6),
        seconds if seconds < 1.0 => format!("{:.1} ms", seconds * 1e3),
        seconds => format!("{seconds:.1} s"),
    }
}

/// The value below which that share (0 to 1) of the values lies; zero of none. Sorts them.
#[must_use]
pub fn quantile(values: &mut [Duration], share: f64) -> Duration {
    values.sort_unstable();
    let last = values.len().saturating_sub(1);
    let index = (last as f64 * share).round() as usize;
    values.get(index).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_markdown() {
        let mut table = Table::new(&["what", "CPU"]);
        table.row(&["a longer one".to_owned(), "3 µs".to_owned()]);
        let text = table.to_string();
        assert_eq!(text, "| what         | CPU  |\n| ------------ | ---- |\n| a longer one | 3 µs |\n");
    }

    #[test]
    fn quantiles_are_values_that_occurred() {
        let mut values: Vec<Duration> = (1..=101).rev().map(Duration::from_millis).collect();
        assert_eq!(quantile(&mut values, 0.5), Duration::from_millis(51));
        assert_eq!(quantile(&mut values, 0.99), Duration::from_millis(100));
        assert_eq!(quantile(&mut [], 0.5), Duration::ZERO);
    }
}
