//! The backend: it keeps the bytes it is sent.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::testing::read_head;

/// More than all buffers on the way take.
pub(super) const LARGE: usize = 32 << 20;

/// A backend that keeps each request's head. `/api/stream` never ends, `/public/large` has a body of
/// [`LARGE`] bytes, `/api/chat` is upgraded and echoes, everything else is answered with 200.
pub(super) struct Backend {
    pub(super) address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    /// Connections that were closed under a stream, a large body or a chat.
    pub(super) closed: Arc<AtomicUsize>,
}

impl Backend {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let backend = Self {
            address: listener.local_addr().unwrap(),
            heads: Arc::default(),
            closed: Arc::default(),
        };
        let (heads, closed) = (Arc::clone(&backend.heads), Arc::clone(&backend.closed));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (heads, closed) = (Arc::clone(&heads), Arc::clone(&closed));
                std::thread::spawn(move || serve(stream, &heads, &closed));
            }
        });
        backend
    }

    pub(super) fn last(&self) -> String {
        self.heads.lock().last().cloned().unwrap_or_default()
    }

    pub(super) fn heads(&self) -> Vec<String> {
        self.heads.lock().clone()
    }

    pub(super) fn count(&self) -> usize {
        self.heads.lock().len()
    }
}

fn serve(mut stream: TcpStream, heads: &Mutex<Vec<String>>, closed: &AtomicUsize) {
    loop {
        let head = read_head(&mut stream);
        if head.is_empty() {
            return;
        }
        heads.lock().push(head.clone());
        let path = head.split(' ').nth(1).unwrap_or_default();
        if path.starts_with("/api/stream") {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                .unwrap();
            while stream.write_all(b"1\r\nx\r\n").is_ok() {
                std::thread::sleep(Duration::from_millis(5));
            }
            closed.fetch_add(1, Ordering::SeqCst);
            return;
        }
        if path.starts_with("/public/large") {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n");
            let piece = vec![b'x'; 64 << 10];
            let sent = stream
                .write_all(head.as_bytes())
                .and_then(|()| (0..LARGE / piece.len()).try_for_each(|_| stream.write_all(&piece)));
            if sent.is_err() {
                closed.fetch_add(1, Ordering::SeqCst);
                return;
            }
            continue;
        }
        if path.starts_with("/api/chat") {
            let answer =
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
            stream.write_all(answer.as_bytes()).unwrap();
            stream.set_read_timeout(None).unwrap();
            let mut buffer = [0; 64];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                let _ = stream.write_all(&buffer[..count]);
            }
            closed.fetch_add(1, Ordering::SeqCst);
            return;
        }
        if !skip_body(&mut stream, &head) {
            return;
        }
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .unwrap();
    }
}

/// Reads the body by its framing, so that what comes next is a request; whether it came whole.
fn skip_body(stream: &mut TcpStream, head: &str) -> bool {
    let head = head.to_ascii_lowercase();
    let mut skip = |count: u64| {
        let skipped = std::io::copy(&mut Read::by_ref(stream).take(count), &mut std::io::sink());
        skipped.is_ok_and(|skipped| skipped == count)
    };
    if let Some((_, length)) = head.split_once("\r\ncontent-length: ") {
        let length = length.split("\r\n").next().unwrap_or_default();
        return skip(length.parse().unwrap());
    }
    if !head.contains("\r\ntransfer-encoding: chunked\r\n") {
        return true;
    }
    loop {
        let mut line = Vec::new();
        let mut byte = [0];
        while !line.ends_with(b"\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
            line.push(byte[0]);
        }
        let size = u64::from_str_radix(String::from_utf8_lossy(&line).trim(), 16).unwrap_or_default();
        let mut rest = vec![0; usize::try_from(size).unwrap() + 2];
        if line.is_empty() || stream.read_exact(&mut rest).is_err() {
            return false;
        }
        if size == 0 {
            return true;
        }
    }
}
