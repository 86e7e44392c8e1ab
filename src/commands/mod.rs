//! One file a command.

pub mod apikey;
pub mod audit;
pub mod auth;
pub mod check;
pub mod explain;
pub mod gateway;
pub mod keys;
pub mod migrate;
pub mod reach;
pub mod reload;
pub mod revoke;
pub mod sessions;
pub mod time;
pub mod token;
pub mod up;
pub mod users;

use std::io::Write;

use serde_json::Value;

/// Prints a line to standard output. Who closes the pipe has read enough.
pub fn say(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Prints JSON for machines, or `human` for people.
fn print(json: bool, answer: &Value, human: impl FnOnce(&Value) -> String) {
    if json {
        say(format_args!("{answer:#}"));
    } else {
        say(human(answer));
    }
}

/// A member as text; nothing where it is absent or null.
fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// A table with aligned columns.
fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([header[column].len()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let head = std::iter::once(line(header.to_vec()));
    let body = rows
        .iter()
        .map(|row| line(row.iter().map(String::as_str).collect()));
    head.chain(body).collect::<Vec<_>>().join("\n")
}
