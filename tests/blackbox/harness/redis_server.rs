//! A real Redis of the test's own.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use super::PATIENCE;
use super::clock::eventually;
use super::folder::TestFolder;
use super::ports::free_address;
use super::redis_protocol::encoded;

/// A running `redis-server`, ended when dropped.
#[derive(Debug)]
pub struct RedisServer {
    child: Child,
    address: SocketAddr,
    options: Vec<String>,
    environment: Vec<(String, String)>,
    folder: TestFolder,
}

impl RedisServer {
    /// One that keeps nothing on disk and evicts nothing.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// One with further options, such as `--maxmemory 3mb`.
    pub fn with(options: &[&str]) -> Self {
        Self::in_environment(options, &[])
    }

    /// One at this address.
    pub fn at(address: SocketAddr) -> Self {
        Self::launched(address, &[], &[])
    }

    /// One with environment variables of its own.
    pub fn in_environment(options: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::launched(free_address(), options, environment)
    }

    fn launched(address: SocketAddr, options: &[&str], environment: &[(&str, &str)]) -> Self {
        let folder = TestFolder::new();
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let environment: Vec<_> = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let child = launch(address, &options, &environment, &folder);
        let server = Self {
            child,
            address,
            options,
            environment,
            folder,
        };
        server.wait_until_up();
        server
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Runs a command on it, by `redis-cli`.
    #[track_caller]
    pub fn cli(&self, arguments: &[&str]) -> String {
        let output = self.try_cli(arguments);
        assert!(output.is_some(), "redis-cli {arguments:?} failed");
        output.unwrap_or_default()
    }

    /// The same, or nothing where it was not answered. A Sentinel that changes a server's role ends
    /// the connections of its clients, whatever they were asking.
    pub fn try_cli(&self, arguments: &[&str]) -> Option<String> {
        let port = self.address.port().to_string();
        let output = Command::new("redis-cli")
            .args(["-p", &port])
            .args(arguments)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success().then_some(text)
    }

    /// Runs a command, and returns the first line of the reply: `+OK`, `:1`, `-ERR ...`.
    #[track_caller]
    pub fn command(&self, words: &[&str]) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&encoded(words)).unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Runs a command that must not fail.
    #[track_caller]
    pub fn run(&self, words: &[&str]) {
        let reply = self.command(words);
        assert!(!reply.starts_with('-') && !reply.is_empty(), "{words:?}: {reply}");
    }

    /// Ends it as a power cut does.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again, empty unless its options keep data.
    pub fn start_again(&mut self) {
        self.child = launch(self.address, &self.options, &self.environment, &self.folder);
        self.wait_until_up();
    }

    /// Sends a signal, by the shell's own `kill`.
    pub fn signal(&self, name: &str) {
        let script = format!("kill -{name} {}", self.child.id());
        assert!(
            Command::new("sh")
                .args(["-c", &script])
                .status()
                .unwrap()
                .success(),
            "{script}"
        );
    }

    fn wait_until_up(&self) {
        // One with a password answers too, that it wants it.
        eventually("redis answers", || {
            self.try_cli(&["PING"])
                .filter(|answer| answer == "PONG" || answer.starts_with("NOAUTH"))
        });
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn launch(
    address: SocketAddr,
    options: &[String],
    environment: &[(String, String)],
    folder: &TestFolder,
) -> Child {
    Command::new("redis-server")
        .args(["--bind", "127.0.0.1", "--port", &address.port().to_string()])
        .args([
            "--save",
            "",
            "--appendonly",
            "no",
            "--maxmemory-policy",
            "noeviction",
        ])
        .args(options)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .current_dir(&**folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server")
}

/// A running Sentinel that watches one primary, ended when dropped.
#[derive(Debug)]
pub struct Sentinel {
    child: Child,
    address: SocketAddr,
    name: String,
    _folder: TestFolder,
}

impl Sentinel {
    /// One that alone decides on a failover, and soon.
    pub fn of(name: &str, primary: SocketAddr) -> Self {
        let folder = TestFolder::new();
        let address = free_address();
        let configuration = format!(
            "bind 127.0.0.1\nport {}\nsentinel monitor {name} 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds {name} 500\nsentinel failover-timeout {name} 5000\n",
            address.port(),
            primary.port(),
        );
        folder.write("sentinel.conf", configuration);
        let child = Command::new("redis-sentinel")
            .arg("sentinel.conf")
            .current_dir(&*folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-sentinel");
        Self {
            child,
            address,
            name: name.to_owned(),
            _folder: folder,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many replicas it knows; nothing where it does not answer.
    pub fn replicas(&self) -> Option<usize> {
        let port = self.address.port().to_string();
        let output = Command::new("redis-cli")
            .args(["-p", &port, "SENTINEL", "replicas", &self.name])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        output
            .status
            .success()
            .then(|| text.lines().filter(|line| *line == "runid").count())
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
