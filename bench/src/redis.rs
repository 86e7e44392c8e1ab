//! A Redis of our own, and what it tells of itself.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::Fallible;
use crate::child::Child;
use crate::durward::free_address;

/// The longest that it may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(5);
/// The section of INFO that counts.
const STATS: &str = "stats";

/// A running `redis-server` that keeps nothing on disk and evicts nothing.
pub struct Redis {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Redis {
    /// Starts one and waits until it answers.
    pub fn start() -> Fallible<Self> {
        let address = free_address()?;
        let mut command = Command::new("redis-server");
        command
            .args(["--save", "", "--appendonly", "no"])
            .args(["--maxmemory-policy", "noeviction", "--bind", "127.0.0.1"])
            .args(["--port", &address.port().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let redis = Self {
            child: Child::start("redis-server", &mut command)?,
            address,
        };
        let start = Instant::now();
        while redis.info("server").is_err() {
            if let Some(status) = redis.child.ended()? {
                return Err(format!("redis-server ended with {status}").into());
            }
            if start.elapsed() > PATIENCE {
                return Err(format!("redis-server did not answer within {PATIENCE:?}").into());
            }
            thread::sleep(POLL);
        }
        Ok(redis)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// The URL that a configuration names it by.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// A section of INFO.
    pub fn info(&self, section: &str) -> Fallible<String> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        // An inline command, answered with one bulk string.
        stream.write_all(format!("INFO {section}\r\n").as_bytes())?;
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        reader.read_line(&mut head)?;
        let length = head
            .strip_prefix('$')
            .and_then(|length| length.trim().parse().ok());
        let mut text = vec![0; length.ok_or_else(|| format!("redis-server said {head:?}"))?];
        reader.read_exact(&mut text)?;
        Ok(String::from_utf8(text)?)
    }

    /// What it has done so far.
    pub fn traffic(&self) -> Fallible<Traffic> {
        Traffic::parse(&self.info(STATS)?)
    }

    /// The version.
    pub fn version(&self) -> Fallible<String> {
        field(&self.info("server")?, "redis_version").map(str::to_owned)
    }
}

/// Commands and bytes since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// Commands that were processed.
    pub commands: u64,
    /// Bytes that came in.
    pub bytes_in: u64,
    /// Bytes that went out.
    pub bytes_out: u64,
    /// Bytes of the answer that said so.
    answer: u64,
}

impl Traffic {
    fn parse(stats: &str) -> Fallible<Self> {
        let number = |name| -> Fallible<u64> { Ok(field(stats, name)?.parse()?) };
        Ok(Self {
            commands: number("total_commands_processed")?,
            bytes_in: number("total_net_input_bytes")?,
            bytes_out: number("total_net_output_bytes")?,
            answer: stats.len() as u64,
        })
    }

    /// What came between then and this, without the two questions themselves: a question is counted
    /// in its own answer with what it sent, and in the next one with its command and its answer.
    pub fn since(&self, then: &Self) -> Self {
        let asked = format!("INFO {STATS}\r\n").len() as u64;
        // The head of a bulk string and its end: `$`, the length, and twice CR LF.
        let framing = 5 + then.answer.to_string().len() as u64;
        let between = |now: u64, then: u64, own: u64| now.saturating_sub(then).saturating_sub(own);
        Self {
            commands: between(self.commands, then.commands, 1),
            bytes_in: between(self.bytes_in, then.bytes_in, asked),
            bytes_out: between(self.bytes_out, then.bytes_out, then.answer + framing),
            answer: self.answer,
        }
    }
}

fn field<'t>(info: &'t str, name: &str) -> Fallible<&'t str> {
    let value = info
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    Ok(value.ok_or_else(|| format!("INFO has no {name}"))?.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let stats = "# Stats\r\ntotal_net_input_bytes_x:1\r\ntotal_commands_processed:7\r\n\
                     total_net_input_bytes:8\r\ntotal_net_output_bytes:9\r\n";
        let traffic = Traffic::parse(stats).unwrap();
        assert_eq!((traffic.commands, traffic.bytes_in, traffic.bytes_out), (7, 8, 9));
        assert!(Traffic::parse("").is_err());
    }
    #[test]
    fn asking_is_not_traffic() {
        let redis = Redis::start().unwrap();
        let then = redis.traffic().unwrap();
        let between = redis.traffic().unwrap().since(&then);
        assert_eq!((between.commands, between.bytes_in, between.bytes_out), (0, 0, 0));
    }
}
