//! Walking a mapping key by key, so that what nobody asked for is an error.

use crate::suggestion::closest;
use crate::{Diagnostics, Entry, Node, Place, Value};

/// A mapping that is being read. Every key must be taken before [`Section::finish`]; what is left
/// is an unknown key.
#[derive(Debug)]
pub struct Section<'a> {
    place: Place,
    entries: &'a [Entry],
    known: Vec<&'static str>,
    not_built: Vec<&'static str>,
}

impl Node {
    /// Reads this node as a mapping with known keys; reports and yields nothing where it is none.
    pub fn section(&self, what: &str, diagnostics: &mut Diagnostics) -> Option<Section<'_>> {
        let entries = self.entries(what, diagnostics)?;
        Some(Section {
            place: self.place,
            entries,
            known: Vec::new(),
            not_built: Vec::new(),
        })
    }

    /// Reads this node as a mapping whose keys are the user's own (upstream names, claims).
    pub fn entries(&self, what: &str, diagnostics: &mut Diagnostics) -> Option<&[Entry]> {
        match &self.value {
            Value::Map(entries) => Some(entries),
            other => {
                let message = format!("{what} must be a mapping, and this is {}", other.kind());
                diagnostics.error(self.place, message, "write `key: value` lines below it");
                None
            }
        }
    }
}

impl<'a> Section<'a> {
    /// Where the mapping begins.
    pub fn place(&self) -> Place {
        self.place
    }

    /// The value of a key, if the file has it. The key counts as known from here on.
    pub fn optional(&mut self, key: &'static str) -> Option<&'a Node> {
        self.known.push(key);
        self.entries
            .iter()
            .find(|entry| entry.key == key)
            .map(|entry| &entry.node)
    }

    /// The value of a key that must be there; its absence is reported with `advice`.
    pub fn required(
        &mut self,
        key: &'static str,
        advice: &str,
        diagnostics: &mut Diagnostics,
    ) -> Option<&'a Node> {
        let node = self.optional(key);
        if node.is_none() {
            diagnostics.error(self.place, format!("`{key}` is missing"), advice);
        }
        node
    }

    /// Says that a key belongs to the design but is not built: an error, never ignored.
    pub fn not_built(&mut self, key: &'static str, diagnostics: &mut Diagnostics) {
        self.not_built.push(key);
        if let Some(entry) = self.entries.iter().find(|entry| entry.key == key) {
            diagnostics.error(
                entry.place,
                format!("`{key}` is not supported by this version"),
                "remove it",
            );
        }
    }

    /// Reports every key that was not asked for, with the closest one that was.
    pub fn finish(self, diagnostics: &mut Diagnostics) {
        for entry in self.entries {
            if self
                .known
                .iter()
                .chain(&self.not_built)
                .any(|key| *key == entry.key)
            {
                continue;
            }
            let advice = match closest(&entry.key, self.known.iter().copied()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("known here: {}", self.known.join(", ")),
            };
            diagnostics.error(entry.place, format!("unknown key `{}`", entry.key), advice);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Diagnostics, Document};

    #[test]
    fn unknown_keys_are_errors_with_a_suggestion_and_all_are_reported() {
        let document = Document::parse("c.yaml", "listen: a\nadmn: b\nwhatever: c\ntls: d\n").unwrap();
        let mut diagnostics = Diagnostics::default();
        let mut section = document.root().section("the file", &mut diagnostics).unwrap();
        assert!(section.optional("listen").is_some());
        assert!(section.optional("admin").is_none());
        section.not_built("tls", &mut diagnostics);
        section.finish(&mut diagnostics);
        let text = diagnostics.located_in(&document).to_string();
        assert!(
            text.contains(
                "c.yaml:2:1: error: unknown key `admn`\n  2 | admn: b\n    | ^\n    = did you mean `admin`?"
            ),
            "{text}"
        );
        assert!(
            text.contains("c.yaml:3:1: error: unknown key `whatever`"),
            "{text}"
        );
        assert!(
            text.contains("c.yaml:4:1: error: `tls` is not supported"),
            "{text}"
        );
    }
}
