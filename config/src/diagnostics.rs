//! Errors and warnings about the file, each with its place, its line and advice.

use std::fmt;

use crate::document::lines;
use crate::{Document, Place};

/// How much a diagnostic weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// The configuration can be used, but a part of it does not do what it seems to.
    Warning,
}

/// One thing that is wrong with the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// Where; line 0 where it concerns the file as a whole.
    pub place: Place,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub advice: String,
    /// Whether the line holds what must not be repeated: a secret that stands where it should not.
    pub conceals_line: bool,
}

impl Diagnostic {
    /// An error at `place`.
    pub fn error(place: Place, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            place,
            message: message.into(),
            advice: advice.into(),
            conceals_line: false,
        }
    }

    /// The same without the text of its line.
    #[must_use]
    pub fn concealing_line(self) -> Self {
        Self {
            conceals_line: true,
            ..self
        }
    }

    /// A warning at `place`.
    pub fn warning(place: Place, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(place, message, advice)
        }
    }
}

/// All that was found, in file order once [located](Diagnostics::located_in).
#[derive(Clone, Debug, Default)]
pub struct Diagnostics {
    items: Vec<Diagnostic>,
    file: String,
    lines: Vec<String>,
    /// No diagnostic about such a line shows it.
    concealed_lines: Vec<u32>,
}

impl Diagnostics {
    /// Adds a diagnostic.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.items.push(diagnostic);
    }

    /// Adds an error.
    pub fn error(&mut self, place: Place, message: impl Into<String>, advice: impl Into<String>) {
        self.push(Diagnostic::error(place, message, advice));
    }

    /// Adds a warning.
    pub fn warning(&mut self, place: Place, message: impl Into<String>, advice: impl Into<String>) {
        self.push(Diagnostic::warning(place, message, advice));
    }

    /// Takes over all that `other` holds.
    pub fn append(&mut self, other: Self) {
        self.items.extend(other.items);
    }

    /// Whether any of them is an error.
    pub fn has_errors(&self) -> bool {
        self.items.iter().any(|item| item.severity == Severity::Error)
    }

    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.items.iter()
    }

    /// Binds the diagnostics to their file, sorted by place, so that they print with their lines.
    #[must_use]
    pub fn located_in(mut self, document: &Document) -> Self {
        self.locate(document.name(), document.text());
        self
    }

    pub(crate) fn locate(&mut self, file: &str, text: &str) {
        self.file = file.to_owned();
        self.lines = lines(text).map(str::to_owned).collect();
        self.items.sort_by_key(|item| item.place);
        self.items.dedup();
        let concealing = self.items.iter().filter(|item| item.conceals_line);
        self.concealed_lines = concealing.map(|item| item.place.line).collect();
    }

    fn render(&self, item: &Diagnostic, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match item.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        if item.place.line == 0 {
            writeln!(f, "{}: {word}: {}", self.file, OneLine(&item.message))?;
        } else {
            let message = OneLine(&item.message);
            writeln!(f, "{}:{}: {word}: {message}", self.file, item.place)?;
            let concealed = self.concealed_lines.contains(&item.place.line);
            if let Some(line) = self
                .lines
                .get(item.place.line as usize - 1)
                .filter(|_| !concealed)
            {
                let number = item.place.line.to_string();
                let margin = " ".repeat(number.len());
                let indent = " ".repeat((item.place.column as usize).saturating_sub(1));
                writeln!(f, "  {number} | {}", OneLine(line))?;
                writeln!(f, "  {margin} | {indent}^")?;
            }
        }
        if !item.advice.is_empty() {
            writeln!(f, "    = {}", OneLine(&item.advice))?;
        }
        Ok(())
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.items.iter().try_for_each(|item| self.render(item, f))
    }
}

impl std::error::Error for Diagnostics {}

/// What comes from the file may hold what moves a terminal's cursor, or looks like a line of its own.
struct OneLine<'a>(&'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|char| match char {
            '\t' => f.write_str(" "),
            char if char.is_control() => write!(f, "{}", char.escape_default()),
            char => write!(f, "{char}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_told_begins_a_line_of_its_own() {
        let text = "a: \"x\\ny\" # \u{1b}[2J\n";
        let mut diagnostics = Diagnostics::default();
        let place = Place { line: 1, column: 4 };
        diagnostics.error(place, "no server `x\ny`", "one of\r\nz");
        diagnostics.locate("c.yaml", text);
        assert_eq!(
            diagnostics.to_string(),
            "c.yaml:1:4: error: no server `x\\ny`\n  1 | a: \"x\\ny\" # \\u{1b}[2J\n    |    ^\n    = one of\\r\\nz\n"
        );
    }
}
