//! A backend that keeps every byte it is sent, and answers what the test wants.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use super::PATIENCE;
use super::client::find;

/// A request as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The connection it came on, counted from 0.
    pub connection: usize,
    /// Request line and header section, byte for byte.
    pub head: Vec<u8>,
    /// The body with its framing, byte for byte.
    pub body: Vec<u8>,
}

impl Recorded {
    /// The request line.
    pub fn line(&self) -> String {
        self.text().split("\r\n").next().unwrap_or_default().to_owned()
    }

    /// The request target, byte for byte.
    pub fn target(&self) -> Vec<u8> {
        self.head
            .split(|byte| *byte == b' ')
            .nth(1)
            .unwrap_or_default()
            .to_vec()
    }

    /// Every value of a header.
    pub fn values(&self, name: &str) -> Vec<String> {
        self.headers()
            .into_iter()
            .filter(|(its, _)| its.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .collect()
    }

    /// Every header that a backend could take for `name`: lower case, and everything that is neither
    /// letter nor digit read as a dash.
    pub fn aliases(&self, name: &str) -> Vec<(String, String)> {
        self.headers()
            .into_iter()
            .filter(|(its, _)| folded(its) == folded(name))
            .collect()
    }

    /// The header lines in their order.
    pub fn headers(&self) -> Vec<(String, String)> {
        let text = self.text();
        let lines = text.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
        lines
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.head).into_owned()
    }
}

fn folded(name: &str) -> String {
    name.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .collect()
}

/// What a backend answers.
#[derive(Debug)]
pub enum Reply {
    /// These bytes; the connection stays.
    Bytes(Vec<u8>),
    /// These bytes, and then silence until the peer hangs up.
    Open(Vec<u8>),
    /// These bytes, and then whatever the peer sends, back to it.
    Echo(Vec<u8>),
    /// These bytes, and then more of them for as long as the peer takes them.
    Endless(Vec<u8>),
    /// Piece after piece as the test hands them over.
    Pieces(Receiver<Vec<u8>>),
    /// These bytes, and the end of the connection.
    Last(Vec<u8>),
}

impl Reply {
    /// 200 with a body.
    pub fn ok(body: impl AsRef<[u8]>) -> Self {
        Self::status("200 OK", body)
    }

    /// A status with a body.
    pub fn status(status: &str, body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        Self::Bytes([head.as_bytes(), body].concat())
    }
}

/// A running backend.
#[derive(Debug)]
pub struct Backend {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    log: Mutex<Log>,
    changed: Condvar,
    stopped: AtomicBool,
}

#[derive(Debug, Default)]
struct Log {
    requests: Vec<Recorded>,
    connections: usize,
    closed: Vec<usize>,
    bytes: Vec<u8>,
}

impl Backend {
    /// A backend that answers every request with 200 and `upstream`.
    pub fn start() -> Self {
        Self::answering(|_| Reply::ok("upstream"))
    }

    /// A backend that answers what `reply` says.
    pub fn answering(reply: impl Fn(&Recorded) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let (accepting, reply) = (Arc::clone(&shared), Arc::new(reply));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.stopped.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { return };
                let number = accepting.opened();
                let (shared, reply) = (Arc::clone(&accepting), Arc::clone(&reply));
                thread::spawn(move || {
                    Peer {
                        stream,
                        number,
                        shared: &shared,
                        unread: Vec::new(),
                    }
                    .serve(&*reply);
                    shared.hung_up(number);
                });
            }
        });
        Self { address, shared }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.log().requests.clone()
    }

    /// The requests since the last time.
    pub fn take(&self) -> Vec<Recorded> {
        std::mem::take(&mut self.shared.log().requests)
    }

    /// The one request since the last time.
    #[track_caller]
    pub fn take_one(&self) -> Recorded {
        let mut requests = self.take();
        assert_eq!(requests.len(), 1, "{requests:#?}");
        requests.remove(0)
    }

    /// Waits until the peer of this connection has hung up.
    #[track_caller]
    pub fn wait_closed(&self, connection: usize) {
        self.wait(|log| log.closed.contains(&connection).then_some(()));
    }

    /// Whether the peer of this connection has hung up.
    pub fn is_closed(&self, connection: usize) -> bool {
        self.shared.log().closed.contains(&connection)
    }

    /// Every byte that came, on whatever connection.
    pub fn bytes(&self) -> Vec<u8> {
        self.shared.log().bytes.clone()
    }

    #[track_caller]
    fn wait<T>(&self, found: impl Fn(&Log) -> Option<T>) -> T {
        let mut log = self.shared.log();
        loop {
            if let Some(answer) = found(&log) {
                return answer;
            }
            let (next, waited) = self.shared.changed.wait_timeout(log, PATIENCE).unwrap();
            assert!(!waited.timed_out(), "the backend waited in vain: {next:#?}");
            log = next;
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        // Wakes the accepting thread.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap()
    }

    fn opened(&self) -> usize {
        let mut log = self.log();
        log.connections += 1;
        log.connections - 1
    }

    fn hung_up(&self, connection: usize) {
        self.log().closed.push(connection);
        self.changed.notify_all();
    }

    fn received(&self, request: Recorded) {
        self.log().requests.push(request);
        self.changed.notify_all();
    }
}

/// A connection to the backend.
struct Peer<'a> {
    stream: TcpStream,
    number: usize,
    shared: &'a Shared,
    unread: Vec<u8>,
}

impl Peer<'_> {
    fn serve(&mut self, reply: &dyn Fn(&Recorded) -> Reply) {
        while let Some(request) = self.request() {
            self.shared.received(request.clone());
            if self.answer(reply(&request)).is_none() {
                return;
            }
        }
    }

    fn answer(&mut self, reply: Reply) -> Option<()> {
        match reply {
            Reply::Bytes(bytes) => self.stream.write_all(&bytes).ok(),
            Reply::Open(bytes) => {
                self.stream.write_all(&bytes).ok()?;
                while self.fill().is_some() {}
                None
            }
            Reply::Echo(bytes) => {
                self.stream.write_all(&bytes).ok()?;
                loop {
                    self.fill()?;
                    let heard = std::mem::take(&mut self.unread);
                    self.stream.write_all(&heard).ok()?;
                }
            }
            Reply::Endless(bytes) => {
                while self.stream.write_all(&bytes).is_ok() {}
                let _ = self.stream.shutdown(Shutdown::Both);
                None
            }
            Reply::Last(bytes) => {
                let _ = self.stream.write_all(&bytes);
                None
            }
            Reply::Pieces(pieces) => pieces
                .iter()
                .try_for_each(|piece| self.stream.write_all(&piece))
                .ok(),
        }
    }

    /// Reads a request by its framing; what follows it is the next one.
    fn request(&mut self) -> Option<Recorded> {
        let end = self.find(b"\r\n\r\n")? + 4;
        let head: Vec<u8> = self.unread.drain(..end).collect();
        let mut request = Recorded {
            connection: self.number,
            head,
            body: Vec::new(),
        };
        let chunked = request
            .values("transfer-encoding")
            .iter()
            .any(|value| value.eq_ignore_ascii_case("chunked"));
        let length = request
            .values("content-length")
            .first()
            .and_then(|value| value.parse().ok());
        if chunked {
            self.chunks(&mut request.body)?;
        } else {
            self.exactly(length.unwrap_or(0), &mut request.body)?;
        }
        Some(request)
    }

    fn chunks(&mut self, body: &mut Vec<u8>) -> Option<()> {
        loop {
            let end = self.find(b"\r\n")?;
            let line = String::from_utf8_lossy(&self.unread[..end]).into_owned();
            let size = usize::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
            self.exactly(end + 2 + size, body)?;
            if size == 0 {
                let trailers = self.find(b"\r\n")?;
                let whole = if trailers == 0 {
                    2
                } else {
                    self.find(b"\r\n\r\n")? + 4
                };
                return self.exactly(whole, body);
            }
            self.exactly(2, body)?;
        }
    }

    fn exactly(&mut self, count: usize, into: &mut Vec<u8>) -> Option<()> {
        while self.unread.len() < count {
            self.fill()?;
        }
        into.extend(self.unread.drain(..count));
        Some(())
    }

    fn find(&mut self, wanted: &[u8]) -> Option<usize> {
        loop {
            if let Some(found) = find(&self.unread, wanted) {
                return Some(found);
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> Option<()> {
        let mut piece = [0; 16 << 10];
        match self.stream.read(&mut piece) {
            Ok(count @ 1..) => {
                self.unread.extend_from_slice(&piece[..count]);
                self.shared.log().bytes.extend_from_slice(&piece[..count]);
                Some(())
            }
            _ => None,
        }
    }
}
