//! A WebSocket through the edge.

use std::net::{SocketAddr, TcpStream};

use serde_json::Value;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::http::Request;
use tokio_tungstenite::tungstenite::{Message, WebSocket, client};

use super::PATIENCE;
use super::service::Service;

/// An open WebSocket.
#[derive(Debug)]
pub struct Socket(Box<WebSocket<TcpStream>>);

impl Socket {
    /// Opens one, with these headers beside what the protocol wants; the status where it is refused.
    pub fn open(service: &Service, path: &str, headers: &[(&str, &str)]) -> Result<Self, u16> {
        Self::open_at(service.edge, path, headers)
    }

    /// The same at another address.
    pub fn open_at(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Result<Self, u16> {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let host = address.to_string();
        let mut request = Request::get(format!("ws://{host}{path}"))
            .header("Host", &host)
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", generate_key());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        match client(request.body(()).unwrap(), stream) {
            Ok((socket, _)) => Ok(Self(Box::new(socket))),
            Err(error) => Err(refusal(&error.to_string())),
        }
    }

    /// Sends a text.
    #[track_caller]
    pub fn say(&mut self, text: &str) {
        self.0.send(Message::text(text)).unwrap();
    }

    /// Reads the next text.
    #[track_caller]
    pub fn hear(&mut self) -> String {
        loop {
            if let Message::Text(text) = self.0.read().unwrap() {
                return text.as_str().to_owned();
            }
        }
    }

    /// Reads the next text as JSON.
    #[track_caller]
    pub fn hear_json(&mut self) -> Value {
        serde_json::from_str(&self.hear()).unwrap()
    }

    /// Whether it is open still: nothing has arrived, not even its end.
    pub fn is_open(&mut self) -> bool {
        let stream = self.0.get_ref();
        stream.set_nonblocking(true).unwrap();
        let open = match stream.peek(&mut [0]) {
            Ok(read) => read > 0,
            Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
        };
        stream.set_nonblocking(false).unwrap();
        open
    }

    /// Whether something has arrived that is not its end.
    pub fn is_open_and_readable(&mut self) -> bool {
        let stream = self.0.get_ref();
        stream.set_nonblocking(true).unwrap();
        let read = stream.peek(&mut [0]);
        stream.set_nonblocking(false).unwrap();
        matches!(read, Ok(1..))
    }

    /// Reads until the other side is gone, whether it said goodbye or not.
    #[track_caller]
    pub fn wait_until_gone(mut self) {
        use tokio_tungstenite::tungstenite::Error;
        loop {
            match self.0.read() {
                Ok(_) => {}
                Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    panic!("it was not cut")
                }
                Err(_) => return,
            }
        }
    }
}

fn refusal(text: &str) -> u16 {
    let code = text
        .split(|c: char| !c.is_ascii_digit())
        .find(|word| word.len() == 3);
    code.and_then(|code| code.parse().ok())
        .unwrap_or_else(|| panic!("neither open nor refused: {text}"))
}
