//! The checks on the header section.

use http::header::{CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Version};

use crate::byte_scan::is_plain;
use crate::host::Host;
use crate::{Reason, Rejection};

/// The most fields of a request (RFC 6585 section 5).
pub const MAX_HEADER_FIELDS: usize = 100;
/// The most bytes of a header section: names and values, with four for `: ` and CRLF each.
pub const MAX_HEADER_BYTES: usize = 64 * 1024;
/// The most digits of a Content-Length; any such number fits 64 bits.
const MAX_LENGTH_DIGITS: usize = 18;
const FIELD_OVERHEAD: usize = 4;

/// Checks all fields, and yields the host (RFC 9112 section 3.2; for HTTP/2 RFC 9113 section 8.3.1).
pub(super) fn check<'r>(
    version: Version,
    headers: &'r HeaderMap,
    authority: Option<&'r str>,
) -> Result<Host<'r>, Rejection> {
    let Fields {
        host,
        content_length,
        transfer_encoding,
        expect,
    } = Fields::find(headers)?;
    check_framing(version, content_length, transfer_encoding)?;
    if expect.any(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return Err(Rejection::new(
            Reason::ExpectationFailed,
            "an expectation other than 100-continue",
        ));
    }
    one_host(host, authority)
}

/// The fields that the checks ask for.
#[derive(Default)]
struct Fields<'r> {
    host: Occurrences<'r>,
    content_length: Occurrences<'r>,
    transfer_encoding: Occurrences<'r>,
    expect: Occurrences<'r>,
}

/// A field that may be there once.
#[derive(Clone, Copy, Default)]
enum Occurrences<'r> {
    #[default]
    None,
    One(&'r HeaderValue),
    Several,
}

impl<'r> Occurrences<'r> {
    fn add(&mut self, value: &'r HeaderValue) {
        *self = match self {
            Self::None => Self::One(value),
            Self::One(_) | Self::Several => Self::Several,
        };
    }

    fn is_none(self) -> bool {
        matches!(self, Self::None)
    }

    /// Whether there are several, or the one is such.
    fn any(self, is_such: impl Fn(&HeaderValue) -> bool) -> bool {
        match self {
            Self::None => false,
            Self::One(value) => is_such(value),
            Self::Several => true,
        }
    }
}

impl<'r> Fields<'r> {
    fn find(headers: &'r HeaderMap) -> Result<Self, Rejection> {
        if headers.len() > MAX_HEADER_FIELDS {
            return Err(Rejection::new(Reason::HeaderTooLarge, "too many header fields"));
        }
        let mut fields = Self::default();
        let mut bytes = 0;
        for (name, value) in headers {
            bytes += name.as_str().len() + value.len() + FIELD_OVERHEAD;
            if has_control(value.as_bytes()) {
                return Err(Rejection::new(Reason::BadHeader, "a header value has a control"));
            }
            fields.note(name, value)?;
        }
        if bytes > MAX_HEADER_BYTES {
            return Err(Rejection::new(
                Reason::HeaderTooLarge,
                "the header section is too large",
            ));
        }
        Ok(fields)
    }

    /// The length of a name tells most of them apart at once.
    fn note(&mut self, name: &HeaderName, value: &'r HeaderValue) -> Result<(), Rejection> {
        match name.as_str().len() {
            4 if *name == HOST => self.host.add(value),
            6 if *name == EXPECT => self.expect.add(value),
            14 if *name == CONTENT_LENGTH => self.content_length.add(value),
            17 if *name == TRANSFER_ENCODING => self.transfer_encoding.add(value),
            14 | 17 => check_alias(name)?,
            _ => {}
        }
        Ok(())
    }
}

/// RFC 9110 section 5.5. Nearly every value is plain.
fn has_control(value: &[u8]) -> bool {
    let is_control = |byte: &u8| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f;
    !is_plain(value, []) && value.iter().any(is_control)
}

/// A backend that takes `_` for `-` would read another length from `Content_Length`.
fn check_alias(name: &HeaderName) -> Result<(), Rejection> {
    let folded = crate::canonical(name.as_str());
    if folded == CONTENT_LENGTH.as_str() || folded == TRANSFER_ENCODING.as_str() {
        return Err(Rejection::new(
            Reason::BadFraming,
            "a header that some backends take for a framing one",
        ));
    }
    Ok(())
}

/// RFC 9112 sections 6.1 to 6.3, without their leniency.
fn check_framing(
    version: Version,
    content_length: Occurrences<'_>,
    transfer_encoding: Occurrences<'_>,
) -> Result<(), Rejection> {
    let bad = |cause| Err(Rejection::new(Reason::BadFraming, cause));
    if content_length.any(|value| !is_length(value.as_bytes())) {
        return bad("Content-Length is not one number");
    }
    let coding = match transfer_encoding {
        Occurrences::None => return Ok(()),
        Occurrences::Several => return bad("several Transfer-Encoding fields"),
        Occurrences::One(value) => value.as_bytes(),
    };
    if version != Version::HTTP_11 {
        return bad("Transfer-Encoding in another version than HTTP/1.1");
    }
    if !content_length.is_none() {
        return bad("both Content-Length and Transfer-Encoding");
    }
    check_coding(coding)
}

/// Digits only, and no leading zero: some parsers take `010` for eight.
fn is_length(value: &[u8]) -> bool {
    (1..=MAX_LENGTH_DIGITS).contains(&value.len())
        && value.iter().all(u8::is_ascii_digit)
        && (value[0] != b'0' || value.len() == 1)
}

/// Exactly `chunked`. Where that comes last and once, the other codings are merely not known here
/// (RFC 9112 section 6.1); otherwise the end of the body is not known (section 6.3).
fn check_coding(value: &[u8]) -> Result<(), Rejection> {
    const CHUNKED: &[u8] = b"chunked";
    if value.eq_ignore_ascii_case(CHUNKED) {
        return Ok(());
    }
    let mut codings = value.rsplit(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(CHUNKED);
    let ends_in_chunked = codings.next().is_some_and(is_chunked);
    if ends_in_chunked && codings.all(|coding| !coding.is_empty() && !is_chunked(coding)) {
        return Err(Rejection::new(
            Reason::UnknownTransferCoding,
            "a transfer coding other than chunked",
        ));
    }
    Err(Rejection::new(
        Reason::BadFraming,
        "Transfer-Encoding does not end in one chunked",
    ))
}

/// The one host that Host and `:authority` name.
fn one_host<'r>(field: Occurrences<'r>, authority: Option<&'r str>) -> Result<Host<'r>, Rejection> {
    let bad = |cause| Rejection::new(Reason::BadHost, cause);
    let field = match field {
        Occurrences::None => None,
        Occurrences::One(value) => Some(Host::parse(value.as_bytes()).map_err(bad)?),
        Occurrences::Several => return Err(bad("several Host fields")),
    };
    let authority = match authority {
        None => None,
        Some(authority) => Some(Host::parse(authority.as_bytes()).map_err(bad)?),
    };
    match (authority, field) {
        (None, None) => Err(bad("there is no Host")),
        (Some(authority), Some(host)) if authority != host => Err(bad("Host and :authority differ")),
        (Some(host), _) | (None, Some(host)) => Ok(host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(fields: &[(&str, &str)], version: Version) -> Option<Reason> {
        let mut headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static("a"))]);
        for (name, value) in fields {
            headers.append(
                HeaderName::try_from(*name).unwrap(),
                HeaderValue::try_from(*value).unwrap(),
            );
        }
        check(version, &headers, None)
            .err()
            .map(|rejection| rejection.reason)
    }

    #[test]
    fn only_unequivocal_framing_passes() {
        let (http10, http11, http2) = (Version::HTTP_10, Version::HTTP_11, Version::HTTP_2);
        for (fields, version) in [
            (&[][..], http10),
            (&[("content-length", "0")], http10),
            (&[("content-length", "10")], http2),
            (&[("transfer-encoding", "Chunked")], http11),
            (&[("content-lengthy", "x"), ("content.langth", "x")], http11),
        ] {
            assert_eq!(reason(fields, version), None, "{fields:?}");
        }
        for (fields, version) in [
            (&[("content-length", "1"), ("content-length", "1")][..], http11),
            (&[("content-length", "1, 1")], http11),
            (&[("content-length", "+1")], http11),
            (&[("content-length", "-1")], http11),
            (&[("content-length", "0x1")], http11),
            (&[("content-length", "010")], http11),
            (&[("content-length", "1_0")], http11),
            (&[("content-length", "1 ")], http11),
            (&[("content-length", "")], http11),
            (&[("content_length", "1")], http11),
            (&[("content.length", "1")], http2),
            (&[("transfer_encoding", "chunked")], http11),
            (
                &[("content-length", "1"), ("transfer-encoding", "chunked")],
                http11,
            ),
            (
                &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
                http11,
            ),
            (&[("transfer-encoding", "chunked, chunked")], http11),
            (&[("transfer-encoding", "chunked, gzip")], http11),
            (&[("transfer-encoding", "chunked,")], http11),
            (&[("transfer-encoding", ", chunked")], http11),
            (&[("transfer-encoding", "chunked;q=1")], http11),
            (&[("transfer-encoding", "xchunked")], http11),
            (&[("transfer-encoding", "identity")], http11),
            (&[("transfer-encoding", "")], http11),
            (&[("transfer-encoding", "chunked")], http10),
            (&[("transfer-encoding", "chunked")], http2),
        ] {
            assert_eq!(reason(fields, version), Some(Reason::BadFraming), "{fields:?}");
        }
        let gzip = reason(&[("transfer-encoding", "gzip, chunked")], http11);
        assert_eq!(gzip, Some(Reason::UnknownTransferCoding));
    }

    #[test]
    fn only_one_expectation_is_known() {
        assert_eq!(reason(&[("expect", "100-Continue")], Version::HTTP_11), None);
        for value in ["", "200-ok", "100-continue, x", "100-continued"] {
            assert_eq!(
                reason(&[("expect", value)], Version::HTTP_11),
                Some(Reason::ExpectationFailed),
                "{value}"
            );
        }
        let twice = [("expect", "100-continue"), ("expect", "100-continue")];
        assert_eq!(reason(&twice, Version::HTTP_11), Some(Reason::ExpectationFailed));
    }

    #[test]
    fn the_number_of_fields_is_bounded() {
        let fields = vec![("x-a", "b"); MAX_HEADER_FIELDS - 1];
        assert_eq!(reason(&fields, Version::HTTP_11), None);
        let fields = vec![("x-a", "b"); MAX_HEADER_FIELDS];
        assert_eq!(reason(&fields, Version::HTTP_11), Some(Reason::HeaderTooLarge));
    }

    #[test]
    fn the_size_of_the_section_is_bounded() {
        let host = "host".len() + "a".len() + FIELD_OVERHEAD;
        let rest = MAX_HEADER_BYTES - host - "x-a".len() - FIELD_OVERHEAD;
        assert_eq!(reason(&[("x-a", &"v".repeat(rest))], Version::HTTP_11), None);
        let larger = reason(&[("x-a", &"v".repeat(rest + 1))], Version::HTTP_11);
        assert_eq!(larger, Some(Reason::HeaderTooLarge));
    }

    #[test]
    fn the_number_of_digits_is_bounded() {
        assert!(is_length("9".repeat(MAX_LENGTH_DIGITS).as_bytes()));
        assert!(!is_length("9".repeat(MAX_LENGTH_DIGITS + 1).as_bytes()));
    }

    #[test]
    fn controls_are_no_part_of_a_value() {
        for value in [&b"a\x0bchunked"[..], b"\0", b"a\x7f", b"\r\n", b"\x1f"] {
            assert!(has_control(value), "{value:?}");
        }
        assert!(!has_control(b"a\tb \xff\x80~"));
    }
}
