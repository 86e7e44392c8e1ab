//! How large a header section of HTTP/1 is that Pingora reads, and what it answers where it is too large.
//!
//! Pingora gives up one of more fields than it has room for, and one that grows beyond what it buffers,
//! by a 400 without a body, before any code of ours runs. What it should say (RFC 6585 section 5) takes
//! the place of that on its way to the client.

use durward_policy::{Reason, Rejection};
use http::header::{CONNECTION, DATE};
use http::{HeaderName, HeaderValue};
use pingora::protocols::http::date::get_cached_date;

use crate::problem;

/// Most lines that Pingora reads: that of the request, and its 256 fields.
const MAX_LINES: usize = 257;
/// What Pingora buffers of a header section, in bytes.
const MAX_BYTES: usize = 1_048_575;
const END: &[u8] = b"\r\n\r\n";

/// What has come of a header section.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HeadSize {
    bytes: usize,
    lines: usize,
}

impl HeadSize {
    /// Counts what was read. What stands behind the end of the section in the same piece is counted only
    /// where there are few lines anyway.
    pub(crate) fn add(&mut self, piece: &[u8]) {
        self.bytes = self.bytes.saturating_add(piece.len());
        let mut lines = count_lines(piece);
        if self.lines + lines > MAX_LINES
            && let Some(end) = memchr::memmem::find(piece, END)
        {
            // The line before the empty one is the section's last.
            lines = count_lines(&piece[..end]) + 1;
        }
        self.lines = self.lines.saturating_add(lines);
    }

    /// Whether it is too large for Pingora.
    pub(crate) fn is_too_large(self) -> bool {
        self.lines > MAX_LINES || self.bytes > MAX_BYTES
    }
}

fn count_lines(piece: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', piece).count()
}

/// The whole response to one that is too large. The connection ends with it.
pub(crate) fn too_large() -> Vec<u8> {
    let rejection = Rejection::new(Reason::HeaderTooLarge, "Pingora has no room for it");
    let body = rejection.problem();
    let status = rejection.reason.status();
    let mut head = format!("HTTP/1.1 {status}\r\n").into_bytes();
    let mut field = |name: &HeaderName, value: &HeaderValue| {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    };
    if let Ok(header) = problem::response_header(&rejection, body.len()) {
        header.headers.iter().for_each(|(name, value)| field(name, value));
    }
    field(&DATE, &get_cached_date());
    field(&CONNECTION, &HeaderValue::from_static("close"));
    [&head, &b"\r\n"[..], body.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(fields: usize) -> Vec<u8> {
        let fields = "X-A: b\r\n".repeat(fields);
        format!("GET / HTTP/1.1\r\n{fields}\r\n").into_bytes()
    }

    fn is_too_large(bytes: &[u8], piece: usize) -> bool {
        let mut size = HeadSize::default();
        bytes.chunks(piece).for_each(|piece| size.add(piece));
        size.is_too_large()
    }

    #[test]
    fn fields_and_bytes_are_counted_up_to_what_pingora_reads() {
        for piece in [7, 1000, 10_000_000] {
            assert!(is_too_large(&section(258), piece), "{piece}");
            assert!(!is_too_large(&section(255), piece), "{piece}");
            let line = |length| [&b"GET / HTTP/1.1\r\nX-A: "[..], &vec![b'a'; length]].concat();
            assert!(is_too_large(&line(MAX_BYTES), piece));
            assert!(!is_too_large(&line(MAX_BYTES - 1000), piece));
        }
        assert!(!is_too_large(&section(256), 10_000_000));
        assert!(is_too_large(&section(257), 10_000_000));
    }

    #[test]
    fn the_lines_of_a_body_are_not_those_of_its_header() {
        let with_body = [&section(3)[..], &b"\n".repeat(4000)].concat();
        assert!(!is_too_large(&with_body, 10_000));
    }

    #[test]
    fn the_answer_is_a_whole_response() {
        let text = String::from_utf8(too_large()).unwrap();
        assert!(
            text.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"),
            "{text}"
        );
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("content-type: application/problem+json"));
        assert!(head.contains(&format!("content-length: {}", body.len())));
        assert!(head.contains("connection: close") && head.contains("date: "));
        assert!(body.contains("header_too_large"));
    }
}
