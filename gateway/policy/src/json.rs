//! A strict JSON reader (RFC 8259) for what strangers send: tokens, key sets, request bodies.
//!
//! Stricter than a library's defaults, because parsers that differ are how claims get smuggled:
//! duplicate members (after unescaping), lone surrogates, numbers that cannot be kept, a byte order
//! mark, trailing bytes, and anything beyond the [`Limits`] are refused. Numbers stay what they
//! were: whole numbers are exact, others are finite.

use serde::de::DeserializeOwned;

use parser::Parser;

mod parser;

/// How much is read.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The longest text, in bytes.
    pub bytes: usize,
    /// The deepest nesting; a scalar has depth 0.
    pub depth: usize,
    /// The most values, each member and item counted.
    pub values: usize,
}

impl Limits {
    /// For a token's header or claims.
    pub const TOKEN: Self = Self {
        bytes: 16 * 1024,
        depth: 8,
        values: 1024,
    };
    /// For a JSON Web Key Set.
    pub const KEY_SET: Self = Self {
        bytes: 256 * 1024,
        depth: 8,
        values: 8192,
    };
}

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number within `i64`, written without fraction and exponent.
    Integer(i64),
    /// A whole number above `i64`, within `u64`.
    Unsigned(u64),
    /// A number written with a fraction or an exponent; finite.
    Float(f64),
    /// A string.
    Text(String),
    /// An array.
    List(Vec<Self>),
    /// An object.
    Object(Object),
}

/// An object in its own order; names are unique.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object(Vec<(String, Json)>);

impl Object {
    /// The value of a member.
    pub fn get(&self, name: &str) -> Option<&Json> {
        self.0
            .iter()
            .find(|(member, _)| member == name)
            .map(|(_, value)| value)
    }

    /// Each member in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Json)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Adds a member unless there is one of its name; says whether it did.
    pub(crate) fn insert_if_absent(&mut self, name: &str, value: Json) -> bool {
        let absent = self.get(name).is_none();
        if absent {
            self.0.push((name.to_owned(), value));
        }
        absent
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no member.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Json {
    /// The text of a string.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Roughly what it occupies on the heap, in bytes.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.capacity(),
            Self::List(items) => {
                items.capacity() * size_of::<Self>() + items.iter().map(Self::heap_bytes).sum::<usize>()
            }
            Self::Object(object) => object.heap_bytes(),
            Self::Null | Self::Bool(_) | Self::Integer(_) | Self::Unsigned(_) | Self::Float(_) => 0,
        }
    }
}

/// As JSON; for explanations.
impl std::fmt::Display for Json {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Unsigned(number) => write!(f, "{number}"),
            Self::Float(number) => write!(f, "{number:?}"),
            Self::Text(text) => f.write_str(&serde_json::Value::from(text.as_str()).to_string()),
            Self::List(items) => {
                f.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if index == 0 { "" } else { "," })?;
                }
                f.write_str("]")
            }
            Self::Object(object) => {
                f.write_str("{")?;
                for (index, (name, value)) in object.iter().enumerate() {
                    let comma = if index == 0 { "" } else { "," };
                    write!(f, "{comma}{}:{value}", serde_json::Value::from(name))?;
                }
                f.write_str("}")
            }
        }
    }
}

impl Object {
    /// Roughly what it occupies on the heap, in bytes.
    pub fn heap_bytes(&self) -> usize {
        let members = self
            .0
            .iter()
            .map(|(name, value)| name.capacity() + value.heap_bytes());
        self.0.capacity() * size_of::<(String, Json)>() + members.sum::<usize>()
    }
}

/// Why a text is not accepted. Says nothing of its content but the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} at byte {offset}")]
pub struct JsonError {
    /// What is wrong.
    pub kind: JsonErrorKind,
    /// Where, in bytes from 0.
    pub offset: usize,
}

/// The ways in which a text is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonErrorKind {
    /// Longer than [`Limits::bytes`].
    #[error("too long")]
    TooLong,
    /// Deeper than [`Limits::depth`].
    #[error("nested too deeply")]
    TooDeep,
    /// More values than [`Limits::values`].
    #[error("too many values")]
    TooManyValues,
    /// Not UTF-8.
    #[error("not UTF-8")]
    Utf8,
    /// Not JSON.
    #[error("not JSON")]
    Syntax,
    /// Bytes after the value.
    #[error("bytes after the value")]
    Trailing,
    /// Two members of one name, escapes resolved.
    #[error("a duplicate member")]
    Duplicate,
    /// Half of a surrogate pair.
    #[error("a lone surrogate")]
    Surrogate,
    /// A number that cannot be kept as it is.
    #[error("a number out of range")]
    Number,
    /// JSON, but not of the shape that was asked for.
    #[error("not of the expected shape")]
    Shape,
}

/// Reads one value.
pub fn parse(text: &[u8], limits: Limits) -> Result<Json, JsonError> {
    if text.len() > limits.bytes {
        return Err(JsonError {
            kind: JsonErrorKind::TooLong,
            offset: limits.bytes,
        });
    }
    let text = std::str::from_utf8(text).map_err(|error| JsonError {
        kind: JsonErrorKind::Utf8,
        offset: error.valid_up_to(),
    })?;
    Parser::new(text, limits).document()
}

/// Reads one object.
pub fn parse_object(text: &[u8], limits: Limits) -> Result<Object, JsonError> {
    match parse(text, limits)? {
        Json::Object(object) => Ok(object),
        _ => Err(JsonError {
            kind: JsonErrorKind::Shape,
            offset: 0,
        }),
    }
}

/// Checks a text without keeping it.
pub fn check(text: &[u8], limits: Limits) -> Result<(), JsonError> {
    parse(text, limits).map(drop)
}

/// Reads a typed value after the same check. `T` should deny unknown fields.
///
/// The second error is serde's message, where the text is JSON but no `T`: it may name fields and
/// types, and may quote values, so it is not for a log that must stay free of secrets.
pub fn from_slice<T: DeserializeOwned>(text: &[u8], limits: Limits) -> Result<T, JsonTypeError> {
    check(text, limits)?;
    serde_json::from_slice(text).map_err(|error| JsonTypeError::Type(error.to_string()))
}

/// Why no typed value could be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonTypeError {
    /// The text is not accepted.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// The text is JSON of another shape.
    #[error("{0}")]
    Type(String),
}
