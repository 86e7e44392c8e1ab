//! A set of header names that is asked about in every spelling.

use http::HeaderName;

use super::HeaderSink;

/// The spelling that all aliases of a name share: lower case, every non-alphanumeric a `-`.
pub fn canonical(name: &str) -> String {
    name.bytes().map(|byte| char::from(fold(byte))).collect()
}

pub(crate) const fn fold(byte: u8) -> u8 {
    if byte.is_ascii_alphanumeric() {
        byte.to_ascii_lowercase()
    } else {
        b'-'
    }
}

/// Names in canonical spelling, found by length first: most names of a request are told apart from
/// all of these without a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StripSet {
    /// Sorted by length, then by name; unique.
    names: Box<[Box<str>]>,
    /// Bit `n` is set where a name of length `n` is there; longer ones share the last bit.
    lengths: u64,
}

impl StripSet {
    /// A set of names in any spelling.
    pub fn new<'n>(names: impl IntoIterator<Item = &'n str>) -> Self {
        let mut names: Vec<Box<str>> = names.into_iter().map(|name| canonical(name).into()).collect();
        names.sort_by(|left, right| (left.len(), left).cmp(&(right.len(), right)));
        names.dedup();
        let lengths = names.iter().fold(0, |bits, name| bits | length_bit(name.len()));
        Self {
            names: names.into(),
            lengths,
        }
    }

    /// Whether a name folds to one of these. Does not allocate.
    #[inline]
    pub fn strips(&self, name: &str) -> bool {
        self.lengths & length_bit(name.len()) != 0 && self.has(name)
    }

    fn has(&self, name: &str) -> bool {
        let start = self
            .names
            .partition_point(|candidate| candidate.len() < name.len());
        self.names[start..]
            .iter()
            .take_while(|candidate| candidate.len() == name.len())
            .any(|candidate| candidate.bytes().eq(name.bytes().map(fold)))
    }

    /// The names in canonical spelling.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &**name)
    }

    /// Removes every field whose name folds to one of these.
    pub fn strip_from(&self, headers: &mut impl HeaderSink) {
        strip_where(headers, |name| self.strips(name));
    }
}

/// Removes every field whose name is such.
pub(super) fn strip_where(headers: &mut impl HeaderSink, strips: impl Fn(&str) -> bool) {
    loop {
        let batch = batch(headers, &strips);
        for name in batch.iter().map_while(Option::as_ref) {
            headers.remove(name);
        }
        if batch.last().is_none_or(Option::is_none) {
            return;
        }
    }
}

/// Some names to remove, on the stack; the last place is taken only where there may be more.
fn batch(headers: &impl HeaderSink, strips: impl Fn(&str) -> bool) -> [Option<HeaderName>; BATCH] {
    let mut batch = [const { None }; BATCH];
    let found = headers.names().filter(|name| strips(name.as_str()));
    for (place, name) in batch.iter_mut().zip(found) {
        *place = Some(name.clone());
    }
    batch
}

const BATCH: usize = 8;

#[inline]
fn length_bit(length: usize) -> u64 {
    1 << length.min(63)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::{BATCH, StripSet, canonical};

    #[test]
    fn every_spelling_folds_to_one() {
        for name in ["X-User-Id", "x_user_id", "X.User~Id", "x-user_ID", "x!user^id"] {
            assert_eq!(canonical(name), "x-user-id");
            assert!(StripSet::new(["X-USER_ID"]).strips(name), "{name}");
        }
        for name in ["x-user-i", "x-user-idd", "xuserid", "x--user-id", "x-user-ld"] {
            assert!(!StripSet::new(["X-User-Id"]).strips(name), "{name}");
        }
    }

    #[test]
    fn long_names_are_found_too() {
        let long = "x".repeat(62);
        for length in [62, 63, 64, 65] {
            let name = format!("{}{}", long, "y".repeat(length - 62));
            let set = StripSet::new([name.as_str()]);
            assert!(set.strips(&name.to_uppercase()));
            assert!(!set.strips(&format!("{name}z")));
        }
    }

    #[test]
    fn nothing_is_left_however_many_aliases_there_are() {
        let separators = ["-", "_", ".", "~", "!", "^", "|", "'", "+", "*"];
        let mut headers = HeaderMap::new();
        for left in separators {
            for right in separators {
                let name = http::HeaderName::try_from(format!("x{left}user{right}id")).unwrap();
                headers.append(name.clone(), HeaderValue::from_static("root"));
                headers.append(name, HeaderValue::from_static("admin"));
            }
        }
        headers.insert("x-user-idx", HeaderValue::from_static("kept"));
        assert!(headers.keys_len() > 2 * BATCH);
        StripSet::new(["X-User-Id"]).strip_from(&mut headers);
        assert_eq!(
            headers.keys().map(|name| name.as_str()).collect::<Vec<_>>(),
            ["x-user-idx"]
        );
    }

    #[test]
    fn the_empty_set_strips_nothing() {
        assert!(!StripSet::default().strips(""));
        assert!(!StripSet::default().strips("x"));
    }
}
