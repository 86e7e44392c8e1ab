//! Tables for people.

use std::time::Duration;

use crate::statistics::{percentile, sorted_nanos};

/// Rows under a header, columns aligned: the first to the left, the others to the right.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count());
        cells.chain([header[column].len()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let aligned = cells
            .zip(&widths)
            .enumerate()
            .map(|(column, (cell, &width))| match column {
                0 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            });
        aligned.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let head = line(&mut header.iter().copied());
    let body = rows.iter().map(|row| line(&mut row.iter().map(String::as_str)));
    std::iter::once(head).chain(body).collect::<Vec<_>>().join("\n")
}

/// Cells for the median, the 99th percentile and the largest of some times, in microseconds.
pub fn spread_micros(times: impl IntoIterator<Item = Duration>) -> [String; 3] {
    let sorted = sorted_nanos(times);
    if sorted.is_empty() {
        return [const { String::new() }; 3];
    }
    [0.5, 0.99, 1.0].map(|share| format!("{:.0}", percentile(&sorted, share) as f64 / 1e3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["a".into(), "10".into()], vec!["long".into(), "1".into()]];
        assert_eq!(table(&["name", "n"], &rows), "name   n\na     10\nlong   1");
    }
}
