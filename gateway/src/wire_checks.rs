//! Checks on the header as it was sent, which Pingora's parsed header no longer shows: it drops a
//! fragment, and a Content-Length beside Transfer-Encoding; it accepts bare line feeds.

use durward_policy::{Reason, Rejection};
use http::HeaderMap;
use http::header::TRANSFER_ENCODING;

/// What the raw HTTP/1 header section says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wire<'a> {
    /// The request target, byte for byte.
    pub(crate) target: &'a [u8],
}

/// Checks a raw HTTP/1 header section against its limit and against the parsed one.
pub(crate) fn check<'a>(raw: &'a [u8], headers: &HeaderMap, limit: usize) -> Result<Wire<'a>, Rejection> {
    if raw.len() > limit {
        return Err(Rejection::new(
            Reason::HeaderTooLarge,
            "the header section is larger than max_header_bytes",
        ));
    }
    if has_bare_line_feed(raw) {
        return Err(Rejection::new(
            Reason::BadFraming,
            "a line of the header section ends without CR",
        ));
    }
    if headers.contains_key(TRANSFER_ENCODING) && has_field(raw, b"content-length") {
        return Err(Rejection::new(
            Reason::BadFraming,
            "both Content-Length and Transfer-Encoding",
        ));
    }
    Ok(Wire { target: target(raw)? })
}

/// RFC 9112 section 2.2 lets a recipient accept a bare LF; a gateway whose neighbour does not must
/// not.
///
/// Without branches and without an early end, so that it is done many bytes at a time.
fn has_bare_line_feed(raw: &[u8]) -> bool {
    let pairs = raw.iter().zip(raw.get(1..).unwrap_or_default());
    let bare = pairs.fold(0, |bare, (before, byte)| {
        bare | (u8::from(*byte == b'\n') & u8::from(*before != b'\r'))
    });
    bare != 0 || raw.first() == Some(&b'\n')
}

fn has_field(raw: &[u8], name: &[u8]) -> bool {
    raw.split(|byte| *byte == b'\n').any(|line| {
        line.get(..name.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(name))
    })
}

/// What stands between the first and the last space of the request line (RFC 9112 section 3).
fn target(raw: &[u8]) -> Result<&[u8], Rejection> {
    let malformed = || Rejection::new(Reason::BadTarget, "the request line is not one");
    let line = &raw[..memchr::memchr(b'\r', raw).unwrap_or(raw.len())];
    let first = memchr::memchr(b' ', line).ok_or_else(malformed)?;
    let last = memchr::memrchr(b' ', line).ok_or_else(malformed)?;
    line.get(first + 1..last)
        .filter(|target| !target.is_empty())
        .ok_or_else(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(raw: &[u8]) -> Option<Reason> {
        let mut headers = HeaderMap::new();
        if has_field(raw, b"transfer-encoding") {
            headers.insert(TRANSFER_ENCODING, "chunked".parse().unwrap());
        }
        check(raw, &headers, 100).err().map(|rejection| rejection.reason)
    }

    #[test]
    fn what_the_parser_hides_is_seen() {
        assert_eq!(reason(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), None);
        for (raw, expected) in [
            (&b"GET / HTTP/1.1\nHost: a\r\n\r\n"[..], Reason::BadFraming),
            (b"GET / HTTP/1.1\r\nHost: a\r\n\n", Reason::BadFraming),
            (b"POST / HTTP/1.1\r\nContent-length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", Reason::BadFraming),
            (b"GET  HTTP/1.1\r\n\r\n", Reason::BadTarget),
            (b"GET / HTTP/1.1\r\nA: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n\r\n", Reason::HeaderTooLarge),
        ] {
            assert_eq!(reason(raw), Some(expected), "{}", raw.escape_ascii());
        }
    }

    #[test]
    fn the_target_is_kept_with_its_fragment_and_its_spaces() {
        let target = |raw: &'static [u8]| check(raw, &HeaderMap::new(), 100).unwrap().target;
        assert_eq!(target(b"GET /a#b HTTP/1.1\r\n\r\n"), b"/a#b");
        assert_eq!(target(b"GET  /a HTTP/1.1\r\n\r\n"), b" /a");
        assert_eq!(target(b"GET a/b HTTP/1.1\r\n\r\n"), b"a/b");
        assert_eq!(target(b"GET /a b HTTP/1.1\r\n\r\n"), b"/a b");
    }
}
