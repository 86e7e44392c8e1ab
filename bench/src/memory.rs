//! What connections and long bodies cost in memory: the resident set of the gateway's own binary
//! before, at its peak, and after.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::Fallible;
use crate::client::{Connection, request};
use crate::durward::{Durward, User};
use crate::machine;
use crate::process_cpu::resident_bytes;
use crate::report::table;
use crate::scratch::Scratch;
use crate::victim::open_web_socket;

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The gateway's binary.
    pub durward: PathBuf,
    /// Connections that are kept open after one request each.
    pub idle: usize,
    /// WebSockets.
    pub web_sockets: usize,
    /// Bytes of the upload, and of the download.
    pub transfer: u64,
}

/// How often the resident set is looked at.
const SAMPLE: Duration = Duration::from_millis(2);
/// How long what was closed is given to be let go of.
const SETTLE: Duration = Duration::from_secs(2);
/// The longest that anything may take.
const PATIENCE: Duration = Duration::from_secs(120);
const PIECE: usize = 256 << 10;

/// One row of the table.
struct Row {
    what: String,
    before: u64,
    peak: u64,
    after: u64,
    /// What it is divided by, where there are many of one kind.
    count: u64,
}

/// Runs it all and prints what came of it.
pub fn run(options: &Options) -> Fallible<()> {
    println!("{}\n", machine::description());
    let scratch = Scratch::new("memory")?;
    let backend = backend()?;
    let durward = Durward::whole(&options.durward, scratch.path(), backend)?;
    let ids = durward.add_users(&["user".into()], &["customer"])?;
    let [user] = durward
        .log_in(&["user".into()], &ids)?
        .try_into()
        .map_err(|_| "no user")?;
    // What is made once, by the first request, is no cost of any connection.
    idle(&durward, &user, 64)?;
    let rows = [
        measure(
            &durward,
            format!("{} idle connections", options.idle),
            options.idle,
            || idle(&durward, &user, options.idle),
        )?,
        measure(
            &durward,
            format!("{} WebSockets", options.web_sockets),
            options.web_sockets,
            || {
                (0..options.web_sockets)
                    .map(|_| open_web_socket(durward.edge, &user))
                    .collect::<Fallible<Vec<_>>>()
            },
        )?,
        measure(
            &durward,
            format!("upload of {}", mebibytes(options.transfer)),
            1,
            || upload(durward.edge, &user, options.transfer),
        )?,
        measure(
            &durward,
            format!("download of {}", mebibytes(options.transfer)),
            1,
            || download(durward.edge, &user, options.transfer),
        )?,
    ];
    let cells: Vec<Vec<String>> = rows.iter().map(Row::cells).collect();
    println!(
        "{}",
        table(&["", "before", "peak", "after", "growth", "each"], &cells)
    );
    durward.stop()?;
    Ok(())
}

impl Row {
    fn cells(&self) -> Vec<String> {
        let growth = self.peak.saturating_sub(self.before);
        let each = match self.count {
            1 => String::new(),
            count => format!("{:.1} KiB", growth as f64 / count as f64 / 1024.0),
        };
        let figures = [self.before, self.peak, self.after, growth].map(mebibytes);
        std::iter::once(self.what.clone())
            .chain(figures)
            .chain([each])
            .collect()
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// The resident set while `work` is done and what it made is held, and after that was let go of.
fn measure<T>(
    durward: &Durward,
    what: String,
    count: usize,
    work: impl FnOnce() -> Fallible<T>,
) -> Fallible<Row> {
    eprintln!("{what}");
    let pid = durward.pid();
    let before = resident_bytes(pid)?;
    let (peak, done) = (Arc::new(AtomicU64::new(before)), Arc::new(AtomicBool::new(false)));
    let sampler = thread::spawn({
        let (peak, done) = (Arc::clone(&peak), Arc::clone(&done));
        move || {
            while !done.load(Ordering::Relaxed) {
                peak.fetch_max(resident_bytes(pid).unwrap_or_default(), Ordering::Relaxed);
                thread::sleep(SAMPLE);
            }
        }
    });
    let made = work();
    thread::sleep(SAMPLE * 5);
    done.store(true, Ordering::Relaxed);
    let _ = sampler.join();
    drop(made?);
    thread::sleep(SETTLE);
    Ok(Row {
        what,
        before,
        peak: peak.load(Ordering::Relaxed),
        after: resident_bytes(pid)?,
        count: u64::try_from(count)?,
    })
}

/// Connections that have asked once, in a user's name, and say nothing more.
fn idle(durward: &Durward, user: &User, count: usize) -> Fallible<Vec<Connection>> {
    let authorization = user.authorization();
    (0..count)
        .map(|_| {
            let mut connection = Connection::open(durward.edge)?;
            let answer = connection.ask("GET", "/api/items", &[("Authorization", &authorization)], None)?;
            match answer.status {
                200 => Ok(connection),
                status => Err(format!("status {status}").into()),
            }
        })
        .collect()
}

fn upload(edge: SocketAddr, user: &User, bytes: u64) -> Fallible<()> {
    let mut stream = connect(edge)?;
    let head = request(
        &edge.to_string(),
        "PUT",
        "/v2/api/upload",
        &[
            ("Authorization", &user.authorization()),
            ("Content-Length", &bytes.to_string()),
        ],
        None,
    );
    stream.write_all(head.as_bytes())?;
    send(&mut stream, bytes)?;
    expect_ok(&mut stream)?;
    Ok(())
}

fn download(edge: SocketAddr, user: &User, bytes: u64) -> Fallible<()> {
    let mut stream = connect(edge)?;
    let path = format!("/v2/api/download/{bytes}");
    let head = request(
        &edge.to_string(),
        "GET",
        &path,
        &[("Authorization", &user.authorization())],
        None,
    );
    stream.write_all(head.as_bytes())?;
    let early = expect_ok(&mut stream)?;
    let rest = bytes - u64::try_from(early)?;
    let received = std::io::copy(&mut stream.take(rest), &mut std::io::sink())?;
    match received == rest {
        true => Ok(()),
        false => Err(format!("{received} bytes instead of {rest}").into()),
    }
}

fn connect(address: SocketAddr) -> Fallible<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn send(stream: &mut TcpStream, bytes: u64) -> Fallible<()> {
    let piece = vec![b'x'; PIECE];
    let mut left = bytes;
    while left > 0 {
        let now = left.min(PIECE as u64);
        stream.write_all(&piece[..usize::try_from(now)?])?;
        left -= now;
    }
    Ok(())
}

/// Reads the head of an answer, which must be a 200; how many bytes of its body came with it.
fn expect_ok(stream: &mut TcpStream) -> Fallible<usize> {
    let (head, rest) = read_head(stream)?;
    match head.starts_with("HTTP/1.1 200 ") {
        true => Ok(rest),
        false => Err(format!("not a 200: {head}").into()),
    }
}

/// A head, and how many bytes came behind it.
fn read_head(stream: &mut TcpStream) -> Fallible<(String, usize)> {
    let start = Instant::now();
    let mut buffer = Vec::new();
    let mut piece = [0; 4096];
    while start.elapsed() < PATIENCE {
        match stream.read(&mut piece)? {
            0 => return Err("the end instead of a head".into()),
            read => buffer.extend_from_slice(&piece[..read]),
        }
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = buffer.len() - end - 4;
            buffer.truncate(end + 4);
            return Ok((String::from_utf8(buffer)?, rest));
        }
    }
    Err("no head in time".into())
}

/// A backend that swallows uploads, makes downloads up, and keeps WebSockets open.
fn backend() -> Fallible<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A connection ends when its peer is gone, whatever the error says.
            let serve = move || serve(stream).unwrap_or_default();
            let _ = thread::Builder::new().stack_size(64 << 10).spawn(serve);
        }
    });
    Ok(address)
}

fn serve(mut stream: TcpStream) -> Fallible<()> {
    loop {
        let (head, rest) = read_head(&mut stream)?;
        let lower = head.to_ascii_lowercase();
        if lower.contains("\r\nupgrade: websocket\r\n") {
            stream.write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            )?;
            stream.set_read_timeout(None)?;
            std::io::copy(&mut stream, &mut std::io::sink())?;
            return Ok(());
        }
        let length = lower.split_once("\r\ncontent-length: ").and_then(|(_, text)| {
            let digits = text.split("\r\n").next()?;
            digits.parse::<u64>().ok()
        });
        if let Some(length) = length {
            let left = length - u64::try_from(rest)?;
            std::io::copy(&mut Read::by_ref(&mut stream).take(left), &mut std::io::sink())?;
        }
        let size = head
            .split(' ')
            .nth(1)
            .and_then(|path| path.strip_prefix("/v2/api/download/"));
        let size = size.and_then(|size| size.parse::<u64>().ok()).unwrap_or_default();
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").as_bytes())?;
        send(&mut stream, size)?;
    }
}
