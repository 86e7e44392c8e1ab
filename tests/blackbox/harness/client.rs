//! An HTTP/1.1 client on a bare socket: it sends what it is told, byte for byte.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use super::PATIENCE;

/// A request in the making.
#[derive(Clone, Debug)]
pub struct Ask {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// A request of any method.
pub fn ask(method: &str, target: impl Into<String>) -> Ask {
    Ask {
        method: method.to_owned(),
        target: target.into(),
        headers: Vec::new(),
        body: Vec::new(),
    }
}

pub fn get(target: impl Into<String>) -> Ask {
    ask("GET", target)
}

pub fn post(target: impl Into<String>) -> Ask {
    ask("POST", target)
}

pub fn put(target: impl Into<String>) -> Ask {
    ask("PUT", target)
}

pub fn delete(target: impl Into<String>) -> Ask {
    ask("DELETE", target)
}

impl Ask {
    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Adds a bearer token.
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        self.header("Authorization", format!("Bearer {token}"))
    }

    /// Sets a JSON body.
    #[must_use]
    pub fn json(self, body: &Value) -> Self {
        self.header("Content-Type", "application/json")
            .body(body.to_string())
    }

    /// Sets a body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sends it to `address` on a connection of its own.
    #[track_caller]
    pub fn send(&self, address: SocketAddr) -> Answer {
        Connection::open(address).ask(self)
    }

    /// The same, where the other side may not be there, or not answer.
    pub fn send_if_answered(&self, address: SocketAddr) -> Option<Answer> {
        let mut connection = Connection::try_open(address).ok()?;
        connection.set_patience(Duration::from_secs(1));
        connection.ask_if_answered(self)
    }

    /// Its bytes.
    pub fn bytes(&self, host: &str) -> Vec<u8> {
        let has = |wanted: &str| {
            self.headers
                .iter()
                .any(|(name, _)| name.eq_ignore_ascii_case(wanted))
        };
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if !has("host") {
            head.push_str(&format!("Host: {host}\r\n"));
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !(has("content-length") || has("transfer-encoding") || self.body.is_empty()) {
            head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        head.push_str("\r\n");
        [head.as_bytes(), &self.body].concat()
    }
}

/// An answer, whole or only its head.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// The header's value; empty without the header.
    pub fn header(&self, name: &str) -> &str {
        let mut found = self
            .headers
            .iter()
            .filter(|(its, _)| its.eq_ignore_ascii_case(name));
        found.next().map_or("", |(_, value)| value)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The reason of a refusal; empty where there is none.
    pub fn reason(&self) -> String {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        body["reason"].as_str().unwrap_or_default().to_owned()
    }

    /// Asserts the status, and gives the answer back.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{} {:?}", self.text(), self.headers);
        self
    }

    /// Asserts a refusal of this status and reason.
    #[track_caller]
    pub fn expect_refusal(self, status: u16, reason: &str) -> Self {
        assert_eq!(
            (self.status, self.reason().as_str()),
            (status, reason),
            "{}",
            self.text()
        );
        self
    }
}

/// A connection, kept for as long as both sides want.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    host: String,
    unread: Vec<u8>,
    silence_ends: bool,
}

impl Connection {
    #[track_caller]
    pub fn open(address: SocketAddr) -> Self {
        Self::try_open(address).unwrap_or_else(|error| panic!("{address}: {error}"))
    }

    /// The same, where nobody may be listening.
    pub fn try_open(address: SocketAddr) -> io::Result<Self> {
        TcpStream::connect(address).map(Self::over)
    }

    /// Over a stream that is connected.
    pub fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let host = stream
            .peer_addr()
            .map_or("closed.test".to_owned(), |peer| peer.to_string());
        Self {
            stream,
            host,
            unread: Vec::new(),
            silence_ends: false,
        }
    }

    /// Ends the connection by a reset.
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }

    /// Asks and reads the whole answer.
    #[track_caller]
    pub fn ask(&mut self, ask: &Ask) -> Answer {
        self.send(&ask.bytes(&self.host.clone()));
        let without_body = ask.method == "HEAD";
        let head = self
            .head()
            .unwrap_or_else(|| panic!("closed without an answer to {ask:?}"));
        if without_body { head } else { self.body_of(head) }
    }

    /// The same, where the other side may hang up instead.
    #[track_caller]
    pub fn ask_if_answered(&mut self, ask: &Ask) -> Option<Answer> {
        self.send(&ask.bytes(&self.host.clone()));
        self.answer()
    }

    /// Asks and reads the head of the answer only.
    #[track_caller]
    pub fn begin(&mut self, ask: &Ask) -> Answer {
        self.send(&ask.bytes(&self.host.clone()));
        self.head()
            .unwrap_or_else(|| panic!("closed without an answer to {ask:?}"))
    }

    /// Sends bytes; a peer that has hung up already will be noticed when its answer is read.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Sends bytes, and reads the answer and then every other that comes before the other side hangs
    /// up, which it is asked to once the first is there.
    #[track_caller]
    pub fn raw(&mut self, bytes: &[u8]) -> Vec<Answer> {
        self.send(bytes);
        let first = if bytes.starts_with(b"HEAD ") {
            self.head()
        } else {
            self.answer()
        };
        let _ = self.stream.shutdown(Shutdown::Write);
        first
            .into_iter()
            .chain(std::iter::from_fn(|| self.answer()))
            .collect()
    }

    /// Takes silence for the end after this time.
    pub fn set_patience(&mut self, patience: Duration) {
        self.stream.set_read_timeout(Some(patience)).unwrap();
        self.silence_ends = true;
    }

    /// Reads one whole answer; nothing where the peer hung up without one.
    #[track_caller]
    pub fn answer(&mut self) -> Option<Answer> {
        let head = self.head()?;
        Some(self.body_of(head))
    }

    /// Reads the head of an answer that is not an interim one.
    #[track_caller]
    pub fn head(&mut self) -> Option<Answer> {
        loop {
            let end = loop {
                if let Some(end) = find(&self.unread, b"\r\n\r\n") {
                    break end;
                }
                if self.fill() == 0 {
                    assert!(
                        self.unread.is_empty(),
                        "half an answer: {}",
                        self.unread.escape_ascii()
                    );
                    return None;
                }
            };
            let head: Vec<u8> = self.unread.drain(..end + 4).collect();
            let answer = parse_head(&head);
            if answer.status >= 200 || answer.status == 101 {
                return Some(answer);
            }
        }
    }

    /// Reads on until `wanted` has come, and returns all up to it.
    #[track_caller]
    pub fn read_until(&mut self, wanted: &[u8]) -> Vec<u8> {
        loop {
            if let Some(start) = find(&self.unread, wanted) {
                return self.unread.drain(..start + wanted.len()).collect();
            }
            let so_far = self.unread.escape_ascii().to_string();
            assert!(
                self.fill() > 0,
                "closed before {}: {so_far}",
                wanted.escape_ascii()
            );
        }
    }

    /// Reads until the peer hangs up, and returns what came before that.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        while self.fill() > 0 {}
        std::mem::take(&mut self.unread)
    }

    /// Reads so many bytes and keeps none, tells `each` now and then, and returns how many came.
    pub fn count_to(&mut self, count: usize, mut each: impl FnMut(usize)) -> usize {
        let mut received = self.unread.len();
        let mut told = 0;
        self.unread.clear();
        while received < count {
            match self.fill() {
                0 => break,
                more => received += more,
            }
            self.unread.clear();
            if received - told > 1 << 20 {
                told = received;
                each(received);
            }
        }
        received
    }

    /// Reads until the peer hangs up, and keeps nothing.
    pub fn discard_to_end(&mut self) {
        self.unread.clear();
        while self.fill() > 0 {
            self.unread.clear();
        }
    }

    #[track_caller]
    fn body_of(&mut self, mut head: Answer) -> Answer {
        let length = head.header("content-length").parse::<usize>();
        head.body = if matches!(head.status, 204 | 304) {
            Vec::new()
        } else if head.header("transfer-encoding").eq_ignore_ascii_case("chunked") {
            self.chunks()
        } else if let Ok(length) = length {
            self.exactly(length)
        } else {
            self.read_to_end()
        };
        head
    }

    #[track_caller]
    fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let line = String::from_utf8(self.read_until(b"\r\n")).unwrap();
            let size = line.trim().split(';').next().unwrap();
            let size = usize::from_str_radix(size, 16).unwrap_or_else(|_| panic!("chunk size {line:?}"));
            body.extend(self.exactly(size));
            assert_eq!(self.exactly(2), b"\r\n");
            if size == 0 {
                return body;
            }
        }
    }

    #[track_caller]
    fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.unread.len() < count {
            assert!(
                self.fill() > 0,
                "closed after {} of {count} bytes",
                self.unread.len()
            );
        }
        self.unread.drain(..count).collect()
    }

    /// Reads some bytes; none at the end, which a reset is as well.
    #[track_caller]
    fn fill(&mut self) -> usize {
        let mut piece = [0; 16 << 10];
        match self.stream.read(&mut piece) {
            Ok(count) => {
                self.unread.extend_from_slice(&piece[..count]);
                count
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !self.silence_ends => {
                panic!("neither bytes nor an end came")
            }
            Err(_) => 0,
        }
    }
}

fn parse_head(bytes: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.trim_end().split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .and_then(|code| code.parse().ok());
    let header = |line: &str| {
        line.split_once(':')
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
    };
    Answer {
        status: status.unwrap_or_else(|| panic!("not an answer: {text:?}")),
        headers: lines.filter_map(header).collect(),
        body: Vec::new(),
    }
}

pub(super) fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}
