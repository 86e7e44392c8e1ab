//! A connection of its own on which all that an epoch holds is read.
//!
//! Millions of entries come this way, so they are decoded where they arrive: the reply's bytes are
//! never kept as a whole, and the next page is asked for as soon as this one's cursor is there, so that
//! Redis reads ahead while we decode. One page is under way at a time, no more.

use std::ops::Range;
use std::time::Duration;

use redis::{Cmd, Value, cmd, parse_redis_value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::dial::{Ask, ByteStream};
use crate::reply_limit::{MAX_BULK_BYTES, MAX_ELEMENTS, MAX_LINE_BYTES, MAX_REPLY_BYTES, Scan};
use crate::store_config::Login;
use crate::store_error::{StoreError, StoreFault, answer};

/// About how many entries are read at a time, and how many where they are short.
const PAGE: usize = 500;
const LONG_PAGE: usize = 1000;
/// Up to which mean length, field and all, they count as short.
const SHORT_ENTRY_BYTES: usize = 1024;
/// The longest page. Nothing but its entries is kept, each of which has a bound of its own.
const MAX_PAGE_BYTES: u64 = 4 * MAX_REPLY_BYTES;
/// How much is read from the socket at a time.
const READ_BYTES: usize = 64 << 10;

pub(crate) struct EntryScan {
    stream: Box<dyn ByteStream>,
    /// What was received; up to `taken` it was used.
    buffer: Vec<u8>,
    taken: usize,
    response: Duration,
}

impl EntryScan {
    pub(crate) fn new(stream: Box<dyn ByteStream>, response: Duration) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
            taken: 0,
            response,
        }
    }

    /// Logs in.
    pub(crate) async fn log_in(&mut self, login: &Login, database: i64) -> Result<(), StoreError> {
        if let Some(password) = &login.password {
            let mut command = cmd("AUTH");
            if let Some(username) = &login.username {
                command.arg(username);
            }
            command.arg(password.expose());
            self.ask(&command)
                .await
                .map_err(|error| StoreError::new(StoreFault::Login, error.detail))?;
        }
        if database != 0 {
            self.ask(cmd("SELECT").arg(database)).await?;
        }
        Ok(())
    }

    /// Reads all values of a hash, at least those that are there from beginning to end; some come more
    /// than once.
    pub(crate) async fn values(&mut self, key: &str, mut each: impl FnMut(&[u8])) -> Result<(), StoreError> {
        self.send(&page_after(key, b"0", PAGE)).await?;
        let mut page = PAGE;
        loop {
            let mut more = false;
            let within = self.response;
            let (bytes, entries) = timeout(within, self.page(key, page, &mut more, &mut each))
                .await
                .map_err(|_| StoreError::timeout("HSCAN"))??;
            if !more {
                return Ok(());
            }
            let is_short = bytes <= entries.saturating_mul(SHORT_ENTRY_BYTES);
            page = if is_short { LONG_PAGE } else { PAGE };
        }
    }

    /// Reads one page and asks for the next, where there is `more`. Gives bytes and entries.
    async fn page(
        &mut self,
        key: &str,
        page: usize,
        more: &mut bool,
        each: &mut impl FnMut(&[u8]),
    ) -> Result<(usize, usize), StoreError> {
        if self.array().await? != 2 {
            return Err(StoreError::unexpected("HSCAN"));
        }
        let cursor = self.bulk().await?;
        let cursor = self.buffer[cursor].to_vec();
        if cursor != b"0" {
            self.send(&page_after(key, &cursor, page)).await?;
            *more = true;
        }
        let items = self.array().await?;
        if items % 2 != 0 || items > MAX_ELEMENTS {
            return Err(StoreError::unexpected("HSCAN"));
        }
        let mut bytes = 0;
        for item in 0..items {
            let text = self.bulk().await?;
            bytes += text.len() as u64;
            if bytes > MAX_PAGE_BYTES {
                return Err(garbage("a page that is too long"));
            }
            if item % 2 == 1 {
                each(&self.buffer[text]);
            }
        }
        let whole = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        Ok((whole(bytes), whole(items / 2)))
    }

    /// The length of the array that begins here.
    async fn array(&mut self) -> Result<u64, StoreError> {
        match self.line().await? {
            (b'*', length) => Ok(length),
            _ => Err(StoreError::unexpected("HSCAN")),
        }
    }

    /// Where in the buffer the string is that begins here, until the next is read.
    async fn bulk(&mut self) -> Result<Range<usize>, StoreError> {
        let (b'$', length) = self.line().await? else {
            return Err(StoreError::unexpected("HSCAN"));
        };
        if length > MAX_BULK_BYTES {
            return Err(garbage("a string that is too long"));
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        while self.buffer.len() - self.taken < length + 2 {
            self.fill().await?;
        }
        let text = self.taken..self.taken + length;
        self.taken = text.end + 2;
        if &self.buffer[text.end..self.taken] != b"\r\n" {
            return Err(garbage("a string without its end"));
        }
        Ok(text)
    }

    /// The type and the length that stand here; an error reply is an error.
    async fn line(&mut self) -> Result<(u8, u64), StoreError> {
        let mut looked = self.taken;
        let end = loop {
            match self.buffer[looked..].iter().position(|byte| *byte == b'\n') {
                Some(at) => break looked + at,
                None if self.buffer.len() - self.taken > MAX_LINE_BYTES => {
                    return Err(garbage("a line that is too long"));
                }
                None => {
                    let held = self.buffer.len() - self.taken;
                    self.fill().await?;
                    looked = self.taken + held;
                }
            }
        };
        let line = &self.buffer[self.taken..=end];
        if line[0] == b'-' {
            let reply = answer(parse_redis_value(line));
            return Err(reply.map_or_else(|error| error, |_| StoreError::unexpected("HSCAN")));
        }
        let kind = line[0];
        let digits = line[1..].strip_suffix(b"\r\n").unwrap_or_default();
        let is_number = !digits.is_empty() && digits.len() <= 12 && digits.iter().all(u8::is_ascii_digit);
        if !is_number {
            return Err(garbage("a length that is no number"));
        }
        let number = digits
            .iter()
            .fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
        self.taken = end + 1;
        Ok((kind, number))
    }

    /// Receives more, and forgets what was used.
    async fn fill(&mut self) -> Result<(), StoreError> {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        self.buffer.reserve(READ_BYTES);
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(StoreError::new(
                StoreFault::Unreachable,
                "the connection was closed",
            )),
            _ => Ok(()),
        }
    }

    async fn send(&mut self, command: &Cmd) -> Result<(), StoreError> {
        let send = async {
            self.stream.write_all(&command.get_packed_command()).await?;
            self.stream.flush().await
        };
        timeout(self.response, send)
            .await
            .map_err(|_| StoreError::timeout("sending"))??;
        Ok(())
    }

    async fn reply(&mut self) -> Result<Value, StoreError> {
        let mut scan = Scan::default();
        let mut scanned = self.taken;
        loop {
            scan.take(&self.buffer[scanned..]).map_err(garbage)?;
            scanned = self.buffer.len();
            if scan.is_at_end() {
                let reply = parse_redis_value(&self.buffer[self.taken..])?;
                self.taken = scanned;
                return Ok(reply);
            }
            let held = scanned - self.taken;
            self.fill().await?;
            scanned = self.taken + held;
        }
    }
}

impl Ask for EntryScan {
    /// Nothing else may be under way.
    async fn tell(&mut self, command: &Cmd) -> Result<Value, StoreError> {
        self.send(command).await?;
        let within = self.response;
        timeout(within, self.reply())
            .await
            .map_err(|_| StoreError::timeout("a question"))?
    }
}

fn page_after(key: &str, cursor: &[u8], page: usize) -> Cmd {
    let mut command = cmd("HSCAN");
    command.arg(key).arg(cursor).arg("COUNT").arg(page);
    command
}

fn garbage(what: &str) -> StoreError {
    StoreError::new(StoreFault::Garbage, what)
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;

    use super::*;

    /// Reads what a server says in pieces of this size.
    async fn read(said: &[u8], piece: usize) -> (Result<(), StoreError>, Vec<String>) {
        let (ours, theirs): (DuplexStream, DuplexStream) = tokio::io::duplex(piece);
        let (mut asked, mut answers) = tokio::io::split(theirs);
        let asking = tokio::spawn(async move { tokio::io::copy(&mut asked, &mut tokio::io::sink()).await });
        let said = said.to_vec();
        let answering = tokio::spawn(async move {
            drop(answers.write_all(&said).await);
            answers.shutdown().await
        });
        let mut scan = EntryScan::new(Box::new(ours), Duration::from_secs(5));
        let mut values = Vec::new();
        let read = scan
            .values("k", |text| {
                values.push(String::from_utf8_lossy(text).into_owned())
            })
            .await;
        asking.abort();
        answering.abort();
        (read, values)
    }

    #[tokio::test]
    async fn pages_are_read_however_they_are_cut() {
        let said = b"*2\r\n$2\r\n17\r\n*4\r\n$1\r\na\r\n$3\r\n\r\n1\r\n$1\r\nb\r\n$0\r\n\r\n\
                     *2\r\n$1\r\n3\r\n*0\r\n*2\r\n$1\r\n0\r\n*2\r\n$1\r\nc\r\n$1\r\n3\r\n";
        for piece in 1..said.len() {
            let (read, values) = read(said, piece).await;
            assert_eq!(read, Ok(()), "{piece}");
            assert_eq!(values, ["\r\n1", "", "3"], "{piece}");
        }
    }

    #[tokio::test]
    async fn what_is_no_page_is_an_error_of_its_kind() {
        let long = format!("+{}", "x".repeat(MAX_LINE_BYTES + 1));
        for (said, fault) in [
            (&b"-LOADING wait\r\n"[..], StoreFault::NotReady),
            (b"-NOPERM no\r\n", StoreFault::Login),
            (b"*2\r\n$2\r\n17\r\n-ERR odd\r\n", StoreFault::Refused),
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", StoreFault::Garbage),
            (b"+OK\r\n", StoreFault::Garbage),
            (b"*3\r\n", StoreFault::Garbage),
            (b"*2\r\n*1\r\n", StoreFault::Garbage),
            (b"*2\r\n$-1\r\n", StoreFault::Garbage),
            (b"*2\r\n$1\r\n00\r\n", StoreFault::Garbage),
            (b"*2\r\n$1\r\n0\r\n*1\r\n", StoreFault::Garbage),
            (b"*2\r\n$1\r\n0\r\n*1048578\r\n", StoreFault::Garbage),
            (b"*2\r\n$1\r\n0\r\n*2\r\n$16777217\r\n", StoreFault::Garbage),
            (b"*2\r\n$9999999999999\r\n", StoreFault::Garbage),
            (b"\n", StoreFault::Garbage),
            (long.as_bytes(), StoreFault::Garbage),
            (b"*2\r\n$1\r\n0\r\n*2\r\n$1\r\na\r\n", StoreFault::Unreachable),
            (b"", StoreFault::Unreachable),
        ] {
            let (read, _) = read(said, 64).await;
            let shown = String::from_utf8_lossy(&said[..said.len().min(40)]);
            assert_eq!(read.map_err(|error| error.fault), Err(fault), "{shown}");
        }
    }
}
