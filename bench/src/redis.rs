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
        Traffic::parse(&self.info("stats")?)
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
}

impl Traffic {
    fn parse(stats: &str) -> Fallible<Self> {
        let number = |name| -> Fallible<u64> { Ok(field(stats, name)?.parse()?) };
        Ok(Self {
            commands: number("total_commands_processed")?,
            bytes_in: number("total_net_input_bytes")?,
            bytes_out: number("total_net_output_bytes")?,
        })
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
        let expected = Traffic {
            commands: 7,
            bytes_in: 8,
            bytes_out: 9,
        };
        assert_eq!(Traffic::parse(stats).unwrap(), expected);
        assert!(Traffic::parse("").is_err());
    }
}
