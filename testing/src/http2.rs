//! An HTTP/2 client on a bare socket: it sends the frames that it is told, right or wrong, and says
//! what came of them.
//!
//! Header blocks are written without Huffman coding and without the dynamic table, so that a test can
//! say any name and any value. The server is asked to use no dynamic table either (RFC 9113 section
//! 6.5.2), and of its header blocks only the status is read.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// What a client says first (RFC 9113 section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frame types (RFC 9113 section 6).
pub mod frame_type {
    #![expect(missing_docs, reason = "they are the names of the RFC")]
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Flags of frames (RFC 9113 section 6).
pub mod flag {
    #![expect(missing_docs, reason = "they are the names of the RFC")]
    pub const NONE: u8 = 0;
    pub const ACK: u8 = 0x1;
    pub const END_STREAM: u8 = 0x1;
    pub const END_HEADERS: u8 = 0x4;
    pub const PADDED: u8 = 0x8;
    pub const PRIORITY: u8 = 0x20;
}

/// Settings (RFC 9113 section 6.5.2).
pub mod setting {
    #![expect(missing_docs, reason = "they are the names of the RFC")]
    pub const HEADER_TABLE_SIZE: u16 = 1;
    pub const ENABLE_PUSH: u16 = 2;
    pub const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub const INITIAL_WINDOW_SIZE: u16 = 4;
    pub const MAX_FRAME_SIZE: u16 = 5;
    pub const MAX_HEADER_LIST_SIZE: u16 = 6;
}

/// Error codes (RFC 9113 section 7).
pub mod error_code {
    #![expect(missing_docs, reason = "they are the names of the RFC")]
    pub const NO_ERROR: u32 = 0;
    pub const PROTOCOL_ERROR: u32 = 1;
    pub const FLOW_CONTROL_ERROR: u32 = 3;
    pub const STREAM_CLOSED: u32 = 5;
    pub const FRAME_SIZE_ERROR: u32 = 6;
    pub const REFUSED_STREAM: u32 = 7;
    pub const CANCEL: u32 = 8;
    pub const COMPRESSION_ERROR: u32 = 9;
    pub const ENHANCE_YOUR_CALM: u32 = 11;
}

/// A frame, to be sent or as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream.
    pub stream: u32,
    /// What it carries.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A frame of anything.
    pub fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self {
            kind,
            flags,
            stream,
            payload: payload.into(),
        }
    }

    /// HEADERS with the whole block, that end the stream or not.
    pub fn headers(stream: u32, block: impl Into<Vec<u8>>, end: bool) -> Self {
        let end = if end { flag::END_STREAM } else { flag::NONE };
        Self::new(frame_type::HEADERS, flag::END_HEADERS | end, stream, block)
    }

    /// HEADERS, and as many CONTINUATION as a block needs that is larger than a frame may be at first
    /// (RFC 9113 section 4.2).
    pub fn header_section(stream: u32, block: Vec<u8>, end: bool) -> Vec<Self> {
        const MAX_FRAME_SIZE: usize = 16 << 10;
        let pieces = block.chunks(MAX_FRAME_SIZE).enumerate();
        let mut frames: Vec<Self> = pieces
            .map(|(at, piece)| match at {
                0 if end => Self::new(frame_type::HEADERS, flag::END_STREAM, stream, piece),
                0 => Self::new(frame_type::HEADERS, flag::NONE, stream, piece),
                _ => Self::new(frame_type::CONTINUATION, flag::NONE, stream, piece),
            })
            .collect();
        if let Some(last) = frames.last_mut() {
            last.flags |= flag::END_HEADERS;
        }
        frames
    }

    /// DATA that end the stream or not.
    pub fn data(stream: u32, data: impl Into<Vec<u8>>, end: bool) -> Self {
        let end = if end { flag::END_STREAM } else { flag::NONE };
        Self::new(frame_type::DATA, end, stream, data)
    }

    /// RST_STREAM.
    pub fn reset(stream: u32, code: u32) -> Self {
        Self::new(frame_type::RST_STREAM, flag::NONE, stream, code.to_be_bytes())
    }

    /// WINDOW_UPDATE.
    pub fn window_update(stream: u32, increment: u32) -> Self {
        Self::new(
            frame_type::WINDOW_UPDATE,
            flag::NONE,
            stream,
            increment.to_be_bytes(),
        )
    }

    /// SETTINGS.
    pub fn settings(settings: &[(u16, u32)]) -> Self {
        let payload = settings
            .iter()
            .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat());
        Self::new(frame_type::SETTINGS, flag::NONE, 0, payload.collect::<Vec<_>>())
    }

    /// Its bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len())
            .unwrap_or(u32::MAX)
            .to_be_bytes();
        [
            &length[1..],
            &[self.kind, self.flags],
            &self.stream.to_be_bytes(),
            &self.payload,
        ]
        .concat()
    }

    /// The four bytes of its payload at `at` as a number; 0 where there are none.
    pub fn code(&self, at: usize) -> u32 {
        let bytes = self
            .payload
            .get(at..at + 4)
            .and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u32::from_be_bytes)
    }
}

/// A header block of literals without indexing (RFC 7541 section 6.2.2).
pub fn header_block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields
        .iter()
        .flat_map(|(name, value)| literal(name.as_bytes(), value.as_bytes()))
        .collect()
}

/// A literal without indexing.
pub fn literal(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut field = vec![0];
    for text in [name, value] {
        write_integer(&mut field, 0, 7, text.len());
        field.extend_from_slice(text);
    }
    field
}

/// An integer of HPACK (RFC 7541 section 5.1) in a prefix of so many bits, with `first` above them.
pub fn write_integer(into: &mut Vec<u8>, first: u8, bits: u32, mut value: usize) {
    let most = (1_usize << bits) - 1;
    if value < most {
        into.push(first | value as u8);
        return;
    }
    into.push(first | most as u8);
    value -= most;
    while value >= 128 {
        into.push((value % 128) as u8 | 128);
        value /= 128;
    }
    into.push(value as u8);
}

/// What came of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A response that ended.
    Response {
        /// Its status; 0 where it could not be read.
        status: u16,
        /// Its body.
        body: Vec<u8>,
    },
    /// The stream was reset, with this error code.
    Reset(u32),
    /// The connection was given up, with this error code.
    GoneAway(u32),
    /// The connection was closed without a word.
    Closed,
}

/// A connection.
#[derive(Debug)]
pub struct Http2 {
    stream: TcpStream,
    unread: Vec<u8>,
    next_stream: u32,
}

impl Http2 {
    /// Connects, says the preface and the settings of a client that wants no dynamic table, and
    /// acknowledges those of the server.
    ///
    /// # Panics
    ///
    /// Where the server does not answer in `patience`.
    pub fn open(address: SocketAddr, patience: Duration) -> io::Result<Self> {
        Self::open_with(address, patience, &[])
    }

    /// The same, with these settings, too.
    pub fn open_with(address: SocketAddr, patience: Duration, settings: &[(u16, u32)]) -> io::Result<Self> {
        let mut connection = Self::bare(address, patience)?;
        let settings = [&[(setting::HEADER_TABLE_SIZE, 0)], settings].concat();
        connection.send_bytes(PREFACE)?;
        connection.send(&Frame::settings(&settings))?;
        let acknowledged = |frame: &Frame| frame.kind == frame_type::SETTINGS && frame.flags & flag::ACK != 0;
        while let Some(frame) = connection.next_frame()? {
            if acknowledged(&frame) {
                return Ok(connection);
            }
        }
        Err(io::ErrorKind::ConnectionAborted.into())
    }

    /// Connects and says nothing.
    pub fn bare(address: SocketAddr, patience: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Self {
            stream,
            unread: Vec::new(),
            next_stream: 1,
        })
    }

    /// The number of a stream that was not used.
    pub fn new_stream(&mut self) -> u32 {
        self.next_stream += 2;
        self.next_stream - 2
    }

    /// Sends a frame.
    pub fn send(&mut self, frame: &Frame) -> io::Result<()> {
        self.send_bytes(&frame.bytes())
    }

    /// Sends bytes.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next frame; nothing at the end of the connection. Settings of the server are acknowledged
    /// on the way. An error of the kind `WouldBlock` says that none came in time.
    pub fn next_frame(&mut self) -> io::Result<Option<Frame>> {
        let Some(frame) = self.read_frame()? else {
            return Ok(None);
        };
        if frame.kind == frame_type::SETTINGS && frame.flags & flag::ACK == 0 {
            // Whoever is about to hang up need not hear it.
            let _ = self.send(&Frame::new(frame_type::SETTINGS, flag::ACK, 0, []));
        }
        Ok(Some(frame))
    }

    /// Sends a request on a new stream, and reads what comes of it.
    pub fn ask(&mut self, fields: &[(&str, &str)], body: Option<&[u8]>) -> io::Result<Outcome> {
        let stream = self.new_stream();
        self.send(&Frame::headers(stream, header_block(fields), body.is_none()))?;
        if let Some(body) = body {
            self.send(&Frame::data(stream, body, true))?;
        }
        self.outcome(stream)
    }

    /// Reads on until it is said what becomes of this stream, or the connection ends.
    pub fn outcome(&mut self, stream: u32) -> io::Result<Outcome> {
        let (mut status, mut body) = (0, Vec::new());
        loop {
            let frame = match self.next_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => return Ok(Outcome::Closed),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(Outcome::Closed),
                Err(error) => return Err(error),
            };
            match frame.kind {
                frame_type::GOAWAY if frame.code(4) != error_code::NO_ERROR => {
                    return Ok(Outcome::GoneAway(frame.code(4)));
                }
                frame_type::RST_STREAM if frame.stream == stream => return Ok(Outcome::Reset(frame.code(0))),
                frame_type::HEADERS if frame.stream == stream && status == 0 => {
                    status = read_status(&frame.payload);
                }
                frame_type::DATA if frame.stream == stream => body.extend_from_slice(&frame.payload),
                _ => {}
            }
            let ends = [frame_type::HEADERS, frame_type::DATA].contains(&frame.kind)
                && frame.flags & flag::END_STREAM != 0;
            if frame.stream == stream && ends {
                return Ok(Outcome::Response { status, body });
            }
        }
    }

    fn read_frame(&mut self) -> io::Result<Option<Frame>> {
        if !self.fill(9)? {
            return Ok(None);
        }
        let length = u32::from_be_bytes([0, self.unread[0], self.unread[1], self.unread[2]]) as usize;
        if !self.fill(9 + length)? {
            return Ok(None);
        }
        let bytes: Vec<u8> = self.unread.drain(..9 + length).collect();
        Ok(Some(Frame {
            kind: bytes[3],
            flags: bytes[4],
            stream: u32::from_be_bytes([bytes[5] & 0x7f, bytes[6], bytes[7], bytes[8]]),
            payload: bytes[9..].to_vec(),
        }))
    }

    /// Whether so many bytes came before the end.
    fn fill(&mut self, count: usize) -> io::Result<bool> {
        while self.unread.len() < count {
            let mut piece = [0; 16 << 10];
            match self.stream.read(&mut piece)? {
                0 => return Ok(false),
                read => self.unread.extend_from_slice(&piece[..read]),
            }
        }
        Ok(true)
    }
}

/// The status is the first field of a response: an entry of the static table (RFC 7541 appendix A), or
/// a literal under its name.
fn read_status(block: &[u8]) -> u16 {
    const STATIC: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    // Changes of the dynamic table's size may come before it.
    let skipped = block.iter().position(|byte| byte & 0xe0 != 0x20).unwrap_or(0);
    match block.get(skipped..) {
        Some([index @ 0x88..=0x8e, ..]) => STATIC[usize::from(index & 0x7f) - 8],
        Some([name, length, value @ ..]) if [0x08, 0x18, 0x48].contains(name) => {
            let count = usize::from(length & 0x7f);
            let value = value.get(..count).unwrap_or_default();
            if length & 0x80 == 0 {
                std::str::from_utf8(value)
                    .ok()
                    .and_then(|text| text.parse().ok())
                    .unwrap_or(0)
            } else {
                huffman_digits(value)
            }
        }
        _ => 0,
    }
}

/// Three digits in Huffman code: 0 to 2 have five bits, the others six (RFC 7541 appendix B).
fn huffman_digits(bytes: &[u8]) -> u16 {
    let bits: Vec<u8> = bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1))
        .collect();
    let take = |at: usize, count: usize| {
        let bits = bits.get(at..at + count)?;
        Some(bits.iter().fold(0_u16, |code, bit| code << 1 | u16::from(*bit)))
    };
    let (mut at, mut number) = (0, 0);
    for _ in 0..3 {
        let digit = match (take(at, 5), take(at, 6)) {
            (Some(digit @ 0..=2), _) => {
                at += 5;
                digit
            }
            (_, Some(code @ 25..=31)) => {
                at += 6;
                code - 22
            }
            _ => return 0,
        };
        number = number * 10 + digit;
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_read_however_they_are_written() {
        assert_eq!(read_status(&[0x88]), 200);
        assert_eq!(read_status(&[0x20, 0x8c, 0x00]), 400);
        assert_eq!(read_status(b"\x08\x03401"), 401);
        // 302, as RFC 7541 appendix C.6.1 writes it.
        assert_eq!(read_status(&[0x48, 0x82, 0x64, 0x02]), 302);
        // 307, as in C.6.2.
        assert_eq!(read_status(&[0x48, 0x83, 0x64, 0x0e, 0xff]), 307);
    }

    #[test]
    fn integers_are_those_of_the_rfc() {
        let written = |bits, value| {
            let mut bytes = Vec::new();
            write_integer(&mut bytes, 0, bits, value);
            bytes
        };
        // RFC 7541 appendix C.1.
        assert_eq!(written(5, 10), [10]);
        assert_eq!(written(5, 1337), [31, 154, 10]);
        assert_eq!(written(8, 42), [42]);
    }
}
