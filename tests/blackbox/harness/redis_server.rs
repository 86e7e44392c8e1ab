//! A real Redis of the test's own.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use super::clock::eventually;
use super::folder::TestFolder;
use super::ports::free_address;

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

    /// One with environment variables of its own.
    pub fn in_environment(options: &[&str], environment: &[(&str, &str)]) -> Self {
        let folder = TestFolder::new();
        let address = free_address();
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

    fn try_cli(&self, arguments: &[&str]) -> Option<String> {
        let port = self.address.port().to_string();
        let output = Command::new("redis-cli")
            .args(["-p", &port])
            .args(arguments)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success().then_some(text)
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
        eventually("redis answers", || {
            self.try_cli(&["PING"]).filter(|answer| answer == "PONG")
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
