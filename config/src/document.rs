//! YAML text to a tree of nodes with places.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use crate::{Diagnostic, Diagnostics};

/// Largest configuration file that is read, in bytes.
pub const MAX_DOCUMENT_BYTES: usize = 4 * 1024 * 1024;

/// A place in the file; lines and columns count from 1, columns in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Line, from 1; 0 where the place is not known.
    pub line: u32,
    /// Column in characters, from 1; 0 where the place is not known.
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A value of the file and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where the value begins.
    pub place: Place,
    /// The value.
    pub value: Value,
}

/// What a node holds, by YAML 1.2's core schema.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction or an exponent.
    Float(f64),
    /// A string.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping in file order; keys are unique.
    Map(Vec<Entry>),
}

/// One key of a mapping.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key; numbers and booleans as keys are kept as they are written.
    pub key: String,
    /// Where the key stands.
    pub place: Place,
    /// Its value.
    pub node: Node,
}

/// A parsed file: its name and text (for diagnostics) and its tree.
#[derive(Clone, Debug)]
pub struct Document {
    name: String,
    text: String,
    root: Node,
}

impl Document {
    /// Parses `text`; `name` is what diagnostics call the file. Duplicate keys, more than one
    /// document and anything that is not YAML are errors.
    pub fn parse(name: &str, text: &str) -> Result<Self, Diagnostics> {
        let root = parse_root(text).map_err(|diagnostic| {
            let mut diagnostics = Diagnostics::default();
            diagnostics.push(diagnostic);
            diagnostics.locate(name, text);
            diagnostics
        })?;
        Ok(Self {
            name: name.to_owned(),
            text: text.to_owned(),
            root,
        })
    }

    /// The tree.
    pub fn root(&self) -> &Node {
        &self.root
    }

    /// What the file is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file's text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text of a line (from 1), or nothing.
    pub fn line(&self, line: u32) -> &str {
        let index = (line as usize).saturating_sub(1);
        lines(&self.text).nth(index).unwrap_or_default()
    }
}

/// The lines of a text as YAML counts them: a bare CR ends one, too (YAML 1.2.2 section 5.4).
pub(crate) fn lines(text: &str) -> impl Iterator<Item = &str> {
    let ended = text
        .split('\n')
        .map(|line| line.strip_suffix('\r').unwrap_or(line));
    ended.flat_map(|line| line.split('\r'))
}

fn parse_root(text: &str) -> Result<Node, Diagnostic> {
    if text.len() > MAX_DOCUMENT_BYTES {
        return Err(Diagnostic::error(
            Place::default(),
            format!("the file is larger than {MAX_DOCUMENT_BYTES} bytes"),
            "split the configuration or shorten it",
        ));
    }
    serde_saphyr::from_str_with_options::<Node>(text, core_schema()).map_err(|error| {
        let place = error.location().map(place_of).unwrap_or_default();
        let message = error.without_snippet().to_string();
        let message = message.lines().next().unwrap_or("not YAML").to_owned();
        Diagnostic::error(place, message, "mend the YAML syntax at this place")
    })
}

/// YAML 1.2's core schema: `on`, `off`, `yes` and `no` are text, and so are `010` and `1_000`. Merge
/// keys (`<<`) are refused: what a route says should stand where the route stands.
fn core_schema() -> serde_saphyr::Options {
    serde_saphyr::options! {
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        merge_keys: serde_saphyr::MergeKeyPolicy::Error,
    }
}

fn place_of(location: serde_saphyr::Location) -> Place {
    Place {
        line: u32::try_from(location.line()).unwrap_or(u32::MAX),
        column: u32::try_from(location.column()).unwrap_or(u32::MAX),
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self {
            place: place_of(spanned.referenced),
            value: spanned.value,
        })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        i64::try_from(value)
            .map(Value::Integer)
            .map_err(|_| E::custom("the number is too large"))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element::<Node>()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = access.next_key::<Spanned<String>>()? {
            if key.value.contains(char::is_control) {
                // It would be told as it is, in messages of one line.
                return Err(serde::de::Error::custom("a key has a control character"));
            }
            let node = access.next_value::<Node>()?;
            entries.push(Entry {
                key: key.value,
                place: place_of(key.referenced),
                node,
            });
        }
        Ok(Value::Map(entries))
    }
}

impl Value {
    /// What a reader of the file would call this kind of value.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Integer(_) => "a whole number",
            Self::Float(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_stays_on_its_line() {
        for text in ["\"a\\nb\": 1", "a: { \"\\x1b[2J\": 1 }", "? |\n  a\n  b\n: 1"] {
            let problem = Document::parse("c.yaml", text).unwrap_err().to_string();
            assert!(problem.contains("a key has a control character"), "{problem}");
        }
    }

    #[test]
    fn lines_are_counted_as_yaml_counts_them() {
        let found: Vec<_> = lines("a\rb\r\nc\n\nd").collect();
        assert_eq!(found, ["a", "b", "c", "", "d"]);
        let document = Document::parse("c.yaml", "a: 1\rb: 2\nc: 3\n").unwrap();
        assert_eq!((document.line(2), document.line(3)), ("b: 2", "c: 3"));
    }

    #[test]
    fn nodes_remember_their_place() {
        let document = Document::parse(
            "c.yaml",
            "listen: 127.0.0.1:8080\nroutes:\n  - { path: /a, n: 3 }\n",
        )
        .unwrap();
        let Value::Map(entries) = &document.root().value else {
            panic!("a mapping")
        };
        assert_eq!(entries[0].key, "listen");
        assert_eq!(entries[0].node.value, Value::Text("127.0.0.1:8080".into()));
        assert_eq!(entries[0].node.place, Place { line: 1, column: 9 });
        let Value::List(items) = &entries[1].node.value else {
            panic!("a list")
        };
        let Value::Map(route) = &items[0].value else {
            panic!("a mapping")
        };
        assert_eq!(route[1].key, "n");
        assert_eq!(route[1].place, Place { line: 3, column: 17 });
        assert_eq!(route[1].node.value, Value::Integer(3));
    }

    #[test]
    fn duplicate_keys_are_an_error_with_a_place() {
        let errors = Document::parse("c.yaml", "a: 1\na: 2\n").unwrap_err();
        assert!(errors.to_string().contains("c.yaml:2:1"), "{errors}");
    }

    #[test]
    fn words_of_yaml_1_1_are_text() {
        for word in ["on", "off", "yes", "no", "y", "010", "1_000", "127.0.0.1:8080"] {
            let document = Document::parse("c.yaml", word).unwrap();
            assert_eq!(document.root().value, Value::Text(word.to_owned()), "{word}");
        }
        assert_eq!(
            Document::parse("c.yaml", "true").unwrap().root().value,
            Value::Bool(true)
        );
        assert_eq!(
            Document::parse("c.yaml", "10").unwrap().root().value,
            Value::Integer(10)
        );
    }

    #[test]
    fn merge_keys_are_refused() {
        let errors = Document::parse("c.yaml", "a: &a { access: public }\nb: { <<: *a }\n").unwrap_err();
        assert!(errors.to_string().contains("c.yaml:2:"), "{errors}");
    }

    #[test]
    fn an_empty_file_is_null_and_not_a_panic() {
        let document = Document::parse("c.yaml", "").unwrap();
        assert_eq!(document.root().value, Value::Null);
    }
}
