//! A backend that keeps nothing: it counts what it is sent, and sends as much as the test wants.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

/// A running sink. It ends with the test's process.
#[derive(Clone, Copy, Debug)]
pub struct Sink {
    address: SocketAddr,
}

impl Sink {
    /// A sink that answers `.../down` with so many bytes, and everything else with the size of its body.
    pub fn start(size: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || serve(stream, size));
            }
        });
        Self { address }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

fn serve(stream: TcpStream, size: usize) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let (down, length) = head(&mut reader)?;
        let mut body = (&mut reader).take(length);
        let received = std::io::copy(&mut body, &mut std::io::sink()).ok()?;
        let stream = reader.get_mut();
        if down {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").ok()?;
            let piece = [b'x'; 64 << 10];
            let mut left = size;
            while left > 0 {
                let count = left.min(piece.len());
                stream.write_all(&piece[..count]).ok()?;
                left -= count;
            }
        } else {
            let text = received.to_string();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
            stream.write_all(head.as_bytes()).ok()?;
        }
    }
}

/// Reads a header section: whether much is asked for, and how much follows.
fn head(reader: &mut impl BufRead) -> Option<(bool, u64)> {
    let (mut down, mut length) = (false, 0);
    for number in 0.. {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if number == 0 {
            down = line.contains("/down ");
        }
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    Some((down, length))
}
