//! Sees to it that a request line that is none is refused.
//!
//! Pingora mends one before any code of ours runs: where its parser stumbles over a space or another
//! byte that no target may hold, it percent-encodes it and reads again. To refuse such a request all
//! the same (RFC 9112 section 3.2), the first wrong byte is made a `#` on its way to the parser, which
//! the parser lets pass and which no target may hold either: it is found in the target that is judged.

/// Where in a request line the next byte stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum RequestLine {
    /// In the method.
    #[default]
    Method,
    /// In the target.
    Target,
    /// In the version, so many bytes of which have come.
    Version(u8),
    /// The line is done, or found wrong.
    Done,
}

/// What a version is, but for its last digit.
const VERSION: &[u8; 7] = b"HTTP/1.";
/// Made of a byte that is wrong.
const WRONG: u8 = b'#';

impl RequestLine {
    /// Looks at the next bytes of the connection, and changes the first that is wrong.
    pub(crate) fn check(&mut self, mut bytes: &mut [u8]) {
        while *self != Self::Done {
            let (_, rest) = bytes.split_at_mut(self.passed_over(bytes));
            let Some((byte, rest)) = rest.split_first_mut() else {
                return;
            };
            self.step(byte);
            bytes = rest;
        }
    }

    /// How many of the next bytes change nothing about where in the line it is.
    fn passed_over(self, bytes: &[u8]) -> usize {
        let found = match self {
            Self::Method => memchr::memchr2(b' ', b'\n', bytes),
            Self::Target => bytes.iter().position(|byte| !IN_TARGET[usize::from(*byte)]),
            Self::Version(_) | Self::Done => Some(0),
        };
        found.unwrap_or(bytes.len())
    }

    fn step(&mut self, byte: &mut u8) {
        *self = match (*self, *byte) {
            // An end where there should be none is the parser's to refuse.
            (Self::Done, _) | (_, b'\n') => Self::Done,
            (Self::Method, b' ') => Self::Target,
            (Self::Method, _) => Self::Method,
            (Self::Target, b' ') => Self::Version(0),
            (Self::Target, b'\r') => Self::Done,
            (Self::Target, byte) if IN_TARGET[usize::from(byte)] => Self::Target,
            (Self::Version(7), b'0'..=b'9') => Self::Version(8),
            (Self::Version(8), b'\r') => Self::Done,
            (Self::Version(at), byte) if VERSION.get(usize::from(at)) == Some(&byte) => Self::Version(at + 1),
            (Self::Target | Self::Version(_), _) => {
                *byte = WRONG;
                Self::Done
            }
        };
    }
}

/// The bytes that Pingora's parser does not stumble over and mend; what else may not be there is judged
/// later.
const IN_TARGET: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = b' ' as usize + 1;
    while byte < table.len() {
        table[byte] = !matches!(byte as u8, 0x7f | b'<' | b'>' | b'"');
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes as they are passed on, in pieces of this size.
    fn passed(text: &str, size: usize) -> String {
        let mut line = RequestLine::default();
        let mut bytes = text.as_bytes().to_vec();
        bytes.chunks_mut(size).for_each(|piece| line.check(piece));
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_good_line_and_all_behind_it_pass_untouched() {
        for text in [
            "GET / HTTP/1.1\r\nHost: a\r\nX-A: <b> \"c\" d\r\n\r\n",
            "POST /a%20b?c=d#e HTTP/1.0\r\n\r\nGET /a b HTTP/1.1\r\n",
            "GET /\u{e9} HTTP/1.9\r\n\r\n",
            "GET /\r\n\r\n",
            "\r\nGET /a b HTTP/1.1\r\n",
        ] {
            for size in [1, 3, 1000] {
                assert_eq!(passed(text, size), text);
            }
        }
    }

    #[test]
    fn the_first_wrong_byte_is_changed() {
        for (text, expected) in [
            ("GET /a b HTTP/1.1\r\n", "GET /a # HTTP/1.1\r\n"),
            ("GET /a\tb HTTP/1.1\r\n", "GET /a#b HTTP/1.1\r\n"),
            ("GET /<a> HTTP/1.1\r\n", "GET /#a> HTTP/1.1\r\n"),
            ("GET /\"a\" HTTP/1.1\r\n", "GET /#a\" HTTP/1.1\r\n"),
            ("GET /\u{7f} HTTP/1.1\r\n", "GET /# HTTP/1.1\r\n"),
            ("GET  /a HTTP/1.1\r\n", "GET  #a HTTP/1.1\r\n"),
            ("GET /a  HTTP/1.1\r\n", "GET /a #HTTP/1.1\r\n"),
            ("GET /a HTTP/1.1 \r\n", "GET /a HTTP/1.1#\r\n"),
            ("GET /a HTTP/1.1 HTTP/1.1\r\n", "GET /a HTTP/1.1#HTTP/1.1\r\n"),
            ("GET /a HTTP/2.0\r\n", "GET /a HTTP/#.0\r\n"),
            ("GET /a Http/1.1\r\n", "GET /a H#tp/1.1\r\n"),
        ] {
            for size in [1, 4, 1000] {
                assert_eq!(passed(text, size), expected, "{text}");
            }
        }
    }
}
