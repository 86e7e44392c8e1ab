//! A WebSocket through the edge, and a server of them behind it.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use serde_json::Value;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::http::Request;
use tokio_tungstenite::tungstenite::{Error, Message, WebSocket, accept, client};

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

/// The code and the reason of a Close frame.
pub type Closed = (u16, String);

impl Socket {
    /// Reads on until it is closed, answers, and waits for its end; nothing where it ends without a Close
    /// frame.
    #[track_caller]
    pub fn hear_close(mut self) -> Option<Closed> {
        read_close(&mut self.0)
    }
}

#[track_caller]
fn read_close(socket: &mut WebSocket<TcpStream>) -> Option<Closed> {
    let mut heard = None;
    loop {
        match socket.read() {
            Ok(Message::Close(close)) => {
                heard = close.map(|close| (close.code.into(), close.reason.as_str().to_owned()));
            }
            Ok(_) => {}
            Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("it was not closed")
            }
            Err(_) => return heard,
        }
    }
}

/// A backend of WebSockets: it says every text again, and answers whoever closes.
#[derive(Debug)]
pub struct SocketServer {
    address: SocketAddr,
    ends: Mutex<Receiver<Option<Closed>>>,
}

impl SocketServer {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (ended, ends) = channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, ended) = (stream.unwrap(), ended.clone());
                thread::spawn(move || serve(stream, &ended));
            }
        });
        Self {
            address,
            ends: Mutex::new(ends),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the next one that ends was closed with; nothing where it ended without a word.
    #[track_caller]
    pub fn next_end(&self) -> Option<Closed> {
        self.ends.lock().unwrap().recv_timeout(PATIENCE).unwrap()
    }
}

fn serve(stream: TcpStream, ended: &Sender<Option<Closed>>) {
    let Ok(mut socket) = accept(stream) else {
        return;
    };
    let mut heard = None;
    loop {
        match socket.read() {
            Ok(Message::Close(close)) => {
                heard = close.map(|close| (close.code.into(), close.reason.as_str().to_owned()));
            }
            Ok(Message::Text(text)) if socket.send(Message::Text(text.clone())).is_ok() => {}
            Ok(_) => {}
            // Nobody may be left who wants to know.
            Err(_) => return drop(ended.send(heard)),
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
