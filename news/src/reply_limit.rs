//! A bound on what a Redis may send: a server that promises a gigabyte, or never ends its reply,
//! loses its connection before anybody has made room for it.
//!
//! It stands between the socket and the client's parser, reads the same bytes, and knows only the
//! five types of RESP2: we never ask for RESP3.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The longest string in a reply, in bytes. A stream's item with a whole batch is the largest.
pub(crate) const MAX_BULK_BYTES: u64 = 16 << 20;
/// The longest line: an error, a status, a length.
pub(crate) const MAX_LINE_BYTES: usize = 64 << 10;
/// The most elements of a reply, at all depths.
pub(crate) const MAX_ELEMENTS: u64 = 1 << 20;
/// The longest reply.
pub(crate) const MAX_REPLY_BYTES: u64 = 64 << 20;

/// A stream whose replies are bounded.
#[derive(Debug)]
pub(crate) struct ReplyLimit<S> {
    stream: S,
    scan: Scan,
}

impl<S> ReplyLimit<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            scan: Scan::default(),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReplyLimit<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let read = self.scan.take(&buffer.filled()[before..]);
        Poll::Ready(read.map_err(|message| io::Error::new(io::ErrorKind::InvalidData, message)))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReplyLimit<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Where in a reply the next byte is.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// The line so far, without its end; only its head is kept.
    line: Vec<u8>,
    line_bytes: usize,
    /// Bytes of a string that are still to come, its line end included.
    bulk: u64,
    /// Elements that are still to come.
    open: u64,
    /// Elements and bytes of this reply.
    elements: u64,
    bytes: u64,
}

/// A type and a number fit in it.
const LINE_HEAD: usize = 32;

impl Scan {
    pub(crate) fn take(&mut self, mut bytes: &[u8]) -> Result<(), &'static str> {
        while !bytes.is_empty() {
            if self.open == 0 {
                (self.open, self.elements, self.bytes) = (1, 1, 0);
            }
            let taken = if self.bulk > 0 {
                let taken = bytes.len().min(usize::try_from(self.bulk).unwrap_or(usize::MAX));
                self.bulk -= taken as u64;
                if self.bulk == 0 {
                    self.open -= 1;
                }
                taken
            } else {
                self.take_line(bytes)?
            };
            self.bytes += taken as u64;
            if self.bytes > MAX_REPLY_BYTES {
                return Err("a reply that is too long");
            }
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    /// Whether a reply has just ended.
    pub(crate) fn is_at_end(&self) -> bool {
        self.open == 0 && self.elements > 0
    }

    fn take_line(&mut self, bytes: &[u8]) -> Result<usize, &'static str> {
        if self.line_bytes == 0 && !b"+-:$*".contains(&bytes[0]) {
            return Err("bytes that are no reply");
        }
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let piece = &bytes[..end.unwrap_or(bytes.len())];
        let room = LINE_HEAD.saturating_sub(self.line.len());
        self.line.extend_from_slice(&piece[..piece.len().min(room)]);
        self.line_bytes += piece.len();
        if self.line_bytes > MAX_LINE_BYTES {
            return Err("a line that is too long");
        }
        if end.is_some() {
            self.end_line()?;
            self.line.clear();
            self.line_bytes = 0;
        }
        Ok(piece.len() + usize::from(end.is_some()))
    }

    fn end_line(&mut self) -> Result<(), &'static str> {
        match self.line[0] {
            b'$' => match self.length()? {
                None => self.open -= 1,
                Some(length) if length > MAX_BULK_BYTES => return Err("a string that is too long"),
                Some(length) => self.bulk = length + 2,
            },
            b'*' => {
                let length = self.length()?.unwrap_or(0);
                self.elements = self.elements.saturating_add(length);
                if self.elements > MAX_ELEMENTS {
                    return Err("a reply of too many elements");
                }
                self.open = self.open - 1 + length;
            }
            _ => self.open -= 1,
        }
        Ok(())
    }

    /// The number of the line; nothing for -1, which stands for nothing at all.
    fn length(&self) -> Result<Option<u64>, &'static str> {
        let text = self.line[1..].strip_suffix(b"\r").unwrap_or(&self.line[1..]);
        if text == b"-1" {
            return Ok(None);
        }
        let digits = !text.is_empty() && text.len() <= 12 && text.iter().all(u8::is_ascii_digit);
        let text = digits.then(|| std::str::from_utf8(text).ok()).flatten();
        match text.and_then(|text| text.parse().ok()) {
            Some(length) => Ok(Some(length)),
            None => Err("a length that is no number"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(bytes: &[u8], piece: usize) -> Result<Scan, &'static str> {
        let mut scan = Scan::default();
        bytes.chunks(piece).try_for_each(|piece| scan.take(piece))?;
        Ok(scan)
    }

    #[test]
    fn replies_pass_however_they_are_cut() {
        let replies = b"+OK\r\n-ERR no\r\n:12\r\n$-1\r\n$0\r\n\r\n$3\r\na\r\n\r\n*-1\r\n*0\r\n*2\r\n*1\r\n$1\r\nx\r\n:1\r\n";
        for piece in 1..replies.len() {
            let scan = scan(replies, piece).unwrap();
            assert_eq!((scan.open, scan.bulk, scan.line_bytes), (0, 0, 0), "{piece}");
        }
    }

    #[test]
    fn what_is_too_much_or_no_reply_ends_the_connection() {
        for bytes in [
            &b"HTTP/1.1 200 OK\r\n"[..],
            b"$1073741824\r\n",
            b"$16777217\r\n",
            b"*1048577\r\n",
            b"*1000000\r\n*1000000\r\n",
            b"*99999999999999999999\r\n",
            b"$-2\r\n",
            b"$x\r\n",
            b"$\r\n",
            b"%1\r\n",
            b"\0",
        ] {
            assert!(scan(bytes, 5).is_err(), "{bytes:?}");
        }
        assert!(scan(&vec![b'+'; MAX_LINE_BYTES + 1], 4096).is_err());
        let mut endless = Scan::default();
        endless.take(b"*100\r\n").unwrap();
        let string = [&b"$1048576\r\n"[..], &vec![0; 1 << 20], b"\r\n"].concat();
        let taken = (0..100).take_while(|_| endless.take(&string).is_ok()).count();
        assert_eq!(taken as u64, (MAX_REPLY_BYTES >> 20) - 1);
    }
}
