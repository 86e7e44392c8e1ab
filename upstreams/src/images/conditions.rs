//! Entity tags, and the conditions that name them (RFC 9110, sections 8.8.3
//! and 13.1).
//!
//! No date is ever sent (`Last-Modified`), so the conditions on dates have
//! nothing to compare with and are ignored.

use aws_lc_rs::digest::Digest;
use http::{HeaderMap, HeaderName, HeaderValue, header};

/// A strong entity tag: the SHA-256 of the bytes, in hex and quotes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ETag(String);

impl ETag {
    /// The tag of the bytes with this digest.
    pub(super) fn of(digest: &Digest) -> Self {
        let hex = digest.as_ref().iter().map(|byte| format!("{byte:02x}"));
        Self(format!("\"{}\"", hex.collect::<String>()))
    }

    /// As a header's value.
    pub(super) fn header(&self) -> HeaderValue {
        HeaderValue::from_str(&self.0).expect("hex digits and quotes")
    }
}

/// Whether `If-Match` forbids the request (412); `current` is the tag of what
/// is there, if anything is.
pub(super) fn if_match_fails(headers: &HeaderMap, current: Option<&ETag>) -> bool {
    let compare_strongly = |tag: &str, current: &ETag| tag == current.0;
    names(headers, &header::IF_MATCH, current, compare_strongly) == Some(false)
}

/// Whether `If-None-Match` names what is there: 304 to a read, 412 to a write.
pub(super) fn if_none_match_hits(headers: &HeaderMap, current: Option<&ETag>) -> bool {
    let compare_weakly = |tag: &str, current: &ETag| tag.strip_prefix("W/").unwrap_or(tag) == current.0;
    names(headers, &header::IF_NONE_MATCH, current, compare_weakly) == Some(true)
}

/// Whether `If-Range` lets `Range` count. A date never does, see above.
pub(super) fn if_range_holds(headers: &HeaderMap, current: &ETag) -> bool {
    headers
        .get(header::IF_RANGE)
        .is_none_or(|tag| tag.as_bytes() == current.0.as_bytes())
}

/// Whether the header's list of tags, or its `*`, names `current`; `None`
/// without the header. The tags of this server have no comma inside, so a
/// split at commas finds each of them.
fn names(
    headers: &HeaderMap,
    header: &HeaderName,
    current: Option<&ETag>,
    equal: impl Fn(&str, &ETag) -> bool,
) -> Option<bool> {
    if !headers.contains_key(header) {
        return None;
    }
    let Some(current) = current else {
        return Some(false);
    };
    let lines = headers.get_all(header).iter();
    let mut tags = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','));
    Some(tags.any(|tag| tag.trim() == "*" || equal(tag.trim(), current)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag() -> ETag {
        ETag("\"abc\"".to_owned())
    }

    fn with(name: HeaderName, lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(&name, HeaderValue::from_str(line).unwrap());
        }
        headers
    }

    #[test]
    fn if_none_match_compares_weakly() {
        let cases: [(&[&str], bool); 9] = [
            (&[], false),
            (&["\"abc\""], true),
            (&["W/\"abc\""], true),
            (&["\"x\", \"abc\""], true),
            (&["\"x\"", "\"abc\""], true),
            (&["*"], true),
            (&["\"x\""], false),
            (&["abc"], false),
            (&[""], false),
        ];
        for (lines, hits) in cases {
            let headers = with(header::IF_NONE_MATCH, lines);
            assert_eq!(if_none_match_hits(&headers, Some(&tag())), hits, "{lines:?}");
            assert!(!if_none_match_hits(&headers, None), "{lines:?}");
        }
    }

    #[test]
    fn if_match_compares_strongly() {
        let cases: [(&[&str], bool); 5] = [
            (&[], false),
            (&["\"abc\""], false),
            (&["*"], false),
            (&["W/\"abc\""], true),
            (&["\"x\""], true),
        ];
        for (lines, fails) in cases {
            let headers = with(header::IF_MATCH, lines);
            assert_eq!(if_match_fails(&headers, Some(&tag())), fails, "{lines:?}");
            assert_eq!(if_match_fails(&headers, None), !lines.is_empty(), "{lines:?}");
        }
    }

    #[test]
    fn if_range_holds_for_the_same_strong_tag() {
        let cases: [(&[&str], bool); 5] = [
            (&[], true),
            (&["\"abc\""], true),
            (&["\"x\""], false),
            (&["W/\"abc\""], false),
            (&["Sat, 29 Oct 1994 19:43:31 GMT"], false),
        ];
        for (lines, holds) in cases {
            let headers = with(header::IF_RANGE, lines);
            assert_eq!(if_range_holds(&headers, &tag()), holds, "{lines:?}");
        }
    }
}
