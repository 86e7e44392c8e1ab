//! Reading single values: text, numbers, durations, sizes, addresses, references to secrets.

use std::net::SocketAddr;
use std::time::Duration;

use crate::suggestion::closest;
use crate::{Diagnostic, Diagnostics, Node, SecretRef, Value};

impl Node {
    /// Text; a number or boolean is not text.
    pub fn text(&self, what: &str, diagnostics: &mut Diagnostics) -> Option<&str> {
        match &self.value {
            Value::Text(text) if !text.is_empty() => Some(text),
            _ => self.mismatch(
                what,
                "text",
                "put it in quotes if it looks like a number",
                diagnostics,
            ),
        }
    }

    /// `true` or `false`.
    pub fn boolean(&self, what: &str, diagnostics: &mut Diagnostics) -> Option<bool> {
        match self.value {
            Value::Bool(value) => Some(value),
            _ => self.mismatch(what, "a boolean", "write `true` or `false`", diagnostics),
        }
    }

    /// A whole number within `range`.
    pub fn integer(
        &self,
        what: &str,
        range: std::ops::RangeInclusive<i64>,
        diagnostics: &mut Diagnostics,
    ) -> Option<i64> {
        let advice = format!("write a whole number from {} to {}", range.start(), range.end());
        match self.value {
            Value::Integer(value) if range.contains(&value) => Some(value),
            Value::Integer(value) => {
                diagnostics.error(self.place, format!("{what} is out of range: {value}"), advice);
                None
            }
            _ => self.mismatch(what, "a whole number", &advice, diagnostics),
        }
    }

    /// A duration with a unit: `250ms`, `5s`, `10m`, `12h`, `30d`; several may be joined (`1h30m`).
    pub fn duration(
        &self,
        what: &str,
        range: std::ops::RangeInclusive<Duration>,
        diagnostics: &mut Diagnostics,
    ) -> Option<Duration> {
        let advice = "write a number with a unit: 250ms, 5s, 10m, 12h or 30d";
        let parsed = match &self.value {
            Value::Text(text) => parse_duration(text),
            _ => None,
        };
        let Some(duration) = parsed else {
            return self.mismatch(what, "a duration", advice, diagnostics);
        };
        if !range.contains(&duration) {
            let message = format!("{what} is out of range");
            let advice = format!("write a duration from {:?} to {:?}", range.start(), range.end());
            diagnostics.error(self.place, message, advice);
            return None;
        }
        Some(duration)
    }

    /// A number of bytes: a plain number or one with `KiB`, `MiB` or `GiB`.
    pub fn byte_size(
        &self,
        what: &str,
        range: std::ops::RangeInclusive<u64>,
        diagnostics: &mut Diagnostics,
    ) -> Option<u64> {
        let advice = "write a number of bytes, or one with KiB, MiB or GiB";
        let parsed = match &self.value {
            Value::Integer(value) => u64::try_from(*value).ok(),
            Value::Text(text) => parse_byte_size(text),
            _ => None,
        };
        let Some(size) = parsed else {
            return self.mismatch(what, "a size", advice, diagnostics);
        };
        if !range.contains(&size) {
            let message = format!("{what} is out of range: {size} bytes");
            let advice = format!("write a size from {} to {} bytes", range.start(), range.end());
            diagnostics.error(self.place, message, advice);
            return None;
        }
        Some(size)
    }

    /// One of a closed set of words.
    pub fn one_of<'w>(
        &self,
        what: &str,
        words: &[&'w str],
        diagnostics: &mut Diagnostics,
    ) -> Option<&'w str> {
        let text = self.text(what, diagnostics)?;
        if let Some(word) = words.iter().find(|word| **word == text) {
            return Some(word);
        }
        let advice = match closest(text, words.iter().copied()) {
            Some(meant) => format!("did you mean `{meant}`? known here: {}", words.join(", ")),
            None => format!("write one of: {}", words.join(", ")),
        };
        diagnostics.error(self.place, format!("{what} cannot be `{text}`"), advice);
        None
    }

    /// The items of a list; a single value counts as a list of one.
    pub fn one_or_many(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => std::slice::from_ref(self),
        }
    }

    /// A list that must be written as one.
    pub fn list(&self, what: &str, diagnostics: &mut Diagnostics) -> Option<&[Node]> {
        match &self.value {
            Value::List(items) => Some(items),
            _ => self.mismatch(what, "a list", "write `- item` lines below it", diagnostics),
        }
    }

    /// One text or a list of texts, each with its node.
    pub fn texts(&self, what: &str, diagnostics: &mut Diagnostics) -> Vec<(&str, &Node)> {
        self.one_or_many()
            .iter()
            .filter_map(|item| item.text(what, diagnostics).map(|text| (text, item)))
            .collect()
    }

    /// An address and port: `127.0.0.1:8080` or `[::1]:8080`. Names are not looked up.
    pub fn socket_address(&self, what: &str, diagnostics: &mut Diagnostics) -> Option<SocketAddr> {
        let text = self.text(what, diagnostics)?;
        let parsed = text.parse().ok();
        if parsed.is_none() {
            let message = format!("{what} is not an address with a port: `{text}`");
            diagnostics.error(self.place, message, "write it as 127.0.0.1:8080 or [::1]:8080");
        }
        parsed
    }

    /// A reference to a secret. A secret written out in the file is an error.
    pub fn secret(&self, what: &str, diagnostics: &mut Diagnostics) -> Option<SecretRef> {
        let advice = "write { file: PATH } or { env: NAME }";
        if !matches!(self.value, Value::Map(_)) {
            let message = format!("{what} must not stand in the file itself");
            diagnostics.push(Diagnostic::error(self.place, message, advice).concealing_line());
            return None;
        }
        let mut section = self.section(what, diagnostics)?;
        let file = section.optional("file");
        let environment = section.optional("env");
        section.finish(diagnostics);
        match (file, environment) {
            (Some(node), None) => Some(SecretRef::File(node.text("file", diagnostics)?.into())),
            (None, Some(node)) => Some(SecretRef::Environment(node.text("env", diagnostics)?.to_owned())),
            _ => {
                diagnostics.error(self.place, format!("{what} needs exactly one source"), advice);
                None
            }
        }
    }

    fn mismatch<T>(
        &self,
        what: &str,
        wanted: &str,
        advice: &str,
        diagnostics: &mut Diagnostics,
    ) -> Option<T> {
        let message = format!("{what} must be {wanted}, and this is {}", self.value.kind());
        let message = match &self.value {
            Value::Text(text) => format!("{what} must be {wanted}, and this is `{text}`"),
            _ => message,
        };
        diagnostics.error(self.place, message, advice);
        None
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let milliseconds = match &rest[..unit_end] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60 * 1000,
            "h" => 3600 * 1000,
            "d" => 24 * 3600 * 1000,
            _ => return None,
        };
        rest = &rest[unit_end..];
        total = total.checked_add(Duration::from_millis(number.checked_mul(milliseconds)?))?;
    }
    (!text.is_empty()).then_some(total)
}

fn parse_byte_size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let unit = match text[digits..].trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Document;

    #[test]
    fn durations_need_units_and_do_not_overflow() {
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(parse_duration("30d"), Some(Duration::from_secs(30 * 86400)));
        for bad in [
            "",
            "5",
            "s",
            "5 s",
            "-1s",
            "5x",
            "99999999999999999999d",
            "9999999999999999d",
        ] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_secret_in_the_file_is_refused_and_not_repeated() {
        let document = Document::parse("c.yaml", "key: hunter2\nother: { fil: x }\n").unwrap();
        let mut diagnostics = Diagnostics::default();
        let mut section = document.root().section("the file", &mut diagnostics).unwrap();
        assert_eq!(
            section.optional("key").unwrap().secret("key", &mut diagnostics),
            None
        );
        assert_eq!(
            section
                .optional("other")
                .unwrap()
                .secret("other", &mut diagnostics),
            None
        );
        let text = diagnostics.located_in(&document).to_string();
        assert!(
            text.contains("c.yaml:1:6: error: key must not stand in the file itself"),
            "{text}"
        );
        assert!(!text.contains("hunter2"), "{text}");
        assert!(text.contains("did you mean `file`?"), "{text}");
    }

    #[test]
    fn sizes_are_binary() {
        assert_eq!(parse_byte_size("64MiB"), Some(64 << 20));
        assert_eq!(parse_byte_size("10"), Some(10));
        assert_eq!(parse_byte_size("10MB"), None);
        assert_eq!(parse_byte_size("99999999999999GiB"), None);
    }
}
