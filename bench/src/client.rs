//! One keep-alive connection, asked one thing at a time: for what happens outside the load.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::Fallible;
use crate::http_message::response;

/// The longest that an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to a server.
pub struct Connection<S = TcpStream> {
    stream: S,
    host: String,
    buffer: Vec<u8>,
}

/// What was answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The start line and the fields.
    pub head: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON; an error that shows the answer where the status is another one.
    pub fn json(&self, status: u16) -> Fallible<Value> {
        if self.status != status {
            let body = String::from_utf8_lossy(&self.body);
            return Err(format!("status {} instead of {status}: {body}", self.status).into());
        }
        Ok(serde_json::from_slice(&self.body)?)
    }
}

impl Connection {
    /// Opens one over TCP.
    pub fn open(address: SocketAddr) -> Fallible<Self> {
        let stream =
            TcpStream::connect(address).map_err(|error| format!("cannot connect to {address}: {error}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream,
            host: address.to_string(),
            buffer: Vec::new(),
        })
    }

    /// The stream itself, for what is not HTTP any more.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }
}

impl Connection<UnixStream> {
    /// Opens one to a Unix socket.
    pub fn open_unix(path: &Path) -> Fallible<Self> {
        let stream =
            UnixStream::connect(path).map_err(|error| format!("cannot connect to {path:?}: {error}"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream,
            host: "localhost".into(),
            buffer: Vec::new(),
        })
    }
}

impl<S: Read + Write> Connection<S> {
    /// Asks and waits for the answer.
    pub fn ask(
        &mut self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Fallible<Answer> {
        let request = self.request(method, path, fields, body);
        self.send(request.as_bytes())?;
        self.receive()
            .map_err(|error| format!("{method} {path}: {error}").into())
    }

    /// A whole request to this server, as [`Self::send`] takes it.
    pub fn request(&self, method: &str, path: &str, fields: &[(&str, &str)], body: Option<&Value>) -> String {
        request(&self.host, method, path, fields, body)
    }

    /// Sends bytes.
    pub fn send(&mut self, request: &[u8]) -> Fallible<()> {
        Ok(self.stream.write_all(request)?)
    }

    /// Waits for one answer.
    pub fn receive(&mut self) -> Fallible<Answer> {
        let answer = self.receive_unless_ended()?;
        answer.ok_or_else(|| "the connection was closed before the answer was complete".into())
    }

    /// Sends bytes and waits for the answer; nothing where the other side ends the connection
    /// instead.
    pub fn exchange(&mut self, request: &[u8]) -> Fallible<Option<Answer>> {
        match self.stream.write_all(request) {
            Ok(()) => self.receive_unless_ended(),
            Err(error) if was_ended(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn receive_unless_ended(&mut self) -> Fallible<Option<Answer>> {
        let mut piece = [0; 16 << 10];
        loop {
            if let Some(found) = response(&self.buffer)? {
                let mut message: Vec<u8> = self.buffer.drain(..found.bytes()).collect();
                let body = message.split_off(found.head.bytes);
                return Ok(Some(Answer {
                    status: found.status,
                    head: String::from_utf8(message)?,
                    body,
                }));
            }
            match self.stream.read(&mut piece) {
                Ok(0) => return Ok(None),
                Ok(bytes) => self.buffer.extend_from_slice(&piece[..bytes]),
                Err(error) if was_ended(&error) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn was_ended(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe
    )
}

/// A whole HTTP/1.1 request.
pub fn request(
    host: &str,
    method: &str,
    path: &str,
    fields: &[(&str, &str)],
    body: Option<&Value>,
) -> String {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n");
    for (name, value) in fields {
        let _ = write!(text, "{name}: {value}\r\n");
    }
    match body {
        None => text.push_str("\r\n"),
        Some(body) => {
            let body = body.to_string();
            let length = body.len();
            let _ = write!(
                text,
                "Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
            );
        }
    }
    text
}
