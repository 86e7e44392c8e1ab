//! Where an HTTP/1.1 message ends: as much of RFC 9112 as the benchmarks' own peers need.

use memchr::memmem;

use crate::Fallible;

/// The head of a message that has fully arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its bytes, with the empty line.
    pub bytes: usize,
    /// `Content-Length`; 0 where there is none.
    pub content_length: usize,
}

/// A response that has fully arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Its head.
    pub head: Head,
}

impl Response {
    /// Bytes of head and body.
    pub fn bytes(&self) -> usize {
        self.head.bytes + self.head.content_length
    }
}

/// Finds the response at the beginning of `buffer`; nothing while it has not fully arrived.
pub fn response(buffer: &[u8]) -> Fallible<Option<Response>> {
    let Some(head) = head(buffer)? else {
        return Ok(None);
    };
    let status = buffer
        .get(9..12)
        .and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    let status = status
        .filter(|_| buffer.starts_with(b"HTTP/1.1 "))
        .ok_or("not an HTTP/1.1 response")?;
    // RFC 9110 sections 15.2.2, 15.3.5 and 15.4.5: no content, whatever the fields say.
    let bodiless = matches!(status, 100..200 | 204 | 304);
    let content_length = if bodiless { 0 } else { head.content_length };
    let response = Response {
        status,
        head: Head {
            content_length,
            ..head
        },
    };
    Ok((buffer.len() >= response.bytes()).then_some(response))
}

/// Finds the head at the beginning of `buffer`; nothing while it has not fully arrived.
pub fn head(buffer: &[u8]) -> Fallible<Option<Head>> {
    let Some(end) = memmem::find(buffer, b"\r\n\r\n") else {
        return Ok(None);
    };
    let mut content_length = 0;
    for (name, value) in fields(&buffer[..end + 2]) {
        if name.eq_ignore_ascii_case(b"content-length") {
            let digits = std::str::from_utf8(value)?;
            content_length = digits.parse().map_err(|_| format!("Content-Length: {digits}"))?;
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            return Err("a chunked message, which the benchmark's peers never send".into());
        }
    }
    Ok(Some(Head {
        bytes: end + 4,
        content_length,
    }))
}

/// The fields of a head, start line skipped, each without the spaces around its value.
pub fn fields(head: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut line_start = memchr::memchr(b'\n', head).map_or(head.len(), |at| at + 1);
    std::iter::from_fn(move || {
        let line_end = line_start + memchr::memchr(b'\n', &head[line_start..])?;
        let line = &head[line_start..line_end];
        line_start = line_end + 1;
        let colon = memchr::memchr(b':', line)?;
        Some((&line[..colon], line[colon + 1..].trim_ascii()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_found_once_its_body_is_there() {
        let whole = b"HTTP/1.1 401 Unauthorized\r\nServer: x\r\ncontent-length: 5\r\n\r\nhello";
        for cut in 0..whole.len() {
            assert_eq!(response(&whole[..cut]).unwrap(), None, "{cut}");
        }
        let found = response(whole).unwrap().unwrap();
        assert_eq!((found.status, found.bytes()), (401, whole.len()));
    }

    #[test]
    fn what_cannot_be_framed_is_an_error() {
        assert!(response(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
        assert!(response(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n").is_err());
        assert!(response(b"SSH-2.0-OpenSSH\r\n\r\n").is_err());
    }

    #[test]
    fn a_status_without_content_ends_with_its_head() {
        let upgrade = b"HTTP/1.1 101 Switching Protocols\r\nContent-Length: 9\r\n\r\n";
        assert_eq!(response(upgrade).unwrap().unwrap().bytes(), upgrade.len());
    }

    #[test]
    fn fields_are_taken_line_by_line() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\nX-User-Id:  u_1 \r\n";
        let found: Vec<_> = fields(head).collect();
        assert_eq!(found, [(&b"Host"[..], &b"a"[..]), (b"X-User-Id", b"u_1")]);
    }
}
