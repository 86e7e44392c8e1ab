//! Real Redis servers, started on free ports in folders of their own and stopped at the end.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use durward_config::{Diagnostics, Document, Value};
use durward_news::{Connector, RedisTarget};

/// How long anything may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(15);

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A server, stopped when it is dropped.
pub struct Server {
    pub port: u16,
    pub folder: PathBuf,
    program: &'static str,
    arguments: Vec<String>,
    child: Option<Child>,
}

impl Server {
    /// A `redis-server` that keeps nothing on disk.
    pub fn start(options: &[&str]) -> Self {
        Self::start_at(free_port(), options)
    }

    pub fn start_at(port: u16, options: &[&str]) -> Self {
        let fixed = [
            "--save",
            "",
            "--appendonly",
            "no",
            "--bind",
            "127.0.0.1",
            "--protected-mode",
            "no",
        ];
        let arguments = fixed.iter().chain(options).map(|word| (*word).to_owned());
        Self::run("redis-server", port, arguments.collect())
    }

    /// A sentinel of one, which watches the master `main`.
    pub fn sentinel(master: u16) -> Self {
        let port = free_port();
        let folder = new_folder();
        let file = folder.join("sentinel.conf");
        let text = format!(
            "bind 127.0.0.1\nsentinel monitor main 127.0.0.1 {master} 1\n\
             sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 2000\n"
        );
        std::fs::write(&file, text).unwrap();
        let mut server = Self::prepared(
            "redis-server",
            port,
            folder,
            vec![file.display().to_string(), "--sentinel".into()],
        );
        server.restart();
        server
    }

    fn run(program: &'static str, port: u16, arguments: Vec<String>) -> Self {
        let mut server = Self::prepared(program, port, new_folder(), arguments);
        server.restart();
        server
    }

    fn prepared(program: &'static str, port: u16, folder: PathBuf, arguments: Vec<String>) -> Self {
        Self {
            port,
            folder,
            program,
            arguments,
            child: None,
        }
    }

    /// Starts it, again if it was killed.
    pub fn restart(&mut self) {
        let mut arguments = self.arguments.clone();
        // A sentinel's file comes first.
        let at = usize::from(arguments.first().is_some_and(|word| word.ends_with(".conf")));
        let own = [
            "--port".to_owned(),
            self.port.to_string(),
            "--dir".to_owned(),
            self.folder.display().to_string(),
        ];
        if at == 0 {
            arguments.splice(0..0, own);
        } else {
            arguments.splice(1..1, ["--port".to_owned(), self.port.to_string()]);
        }
        let log = std::fs::File::create(self.folder.join("log")).unwrap();
        let child = Command::new(self.program)
            .args(&arguments)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("redis-server is installed");
        self.child = Some(child);
        let start = Instant::now();
        while self.try_ask(&["PING"]).is_none_or(|reply| reply.is_empty()) {
            assert!(start.elapsed() < PATIENCE, "redis-server does not start");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// Stops or continues the process: a server that hangs.
    pub fn signal(&self, name: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(
            Command::new("kill")
                .args([name, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    /// The raw reply to a command.
    pub fn ask(&self, words: &[&str]) -> String {
        self.try_ask(words).expect("the server answers")
    }

    /// The same, or nothing where it does not answer: a sentinel cuts connections when it promotes.
    pub fn try_ask(&self, words: &[&str]) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        let mut request = format!("*{}\r\n", words.len());
        words
            .iter()
            .for_each(|word| request.push_str(&format!("${}\r\n{word}\r\n", word.len())));
        stream.write_all(request.as_bytes()).ok()?;
        let mut reply = Vec::new();
        let mut piece = [0; 4096];
        while reply_end(&reply).is_none() {
            match stream.read(&mut piece).ok()? {
                0 => return None,
                read => reply.extend_from_slice(&piece[..read]),
            }
        }
        String::from_utf8(reply).ok()
    }

    /// The key of the current epoch's entries, or nothing.
    pub fn entries(&self) -> String {
        let epoch = self.ask(&["HGET", "{durward}:meta", "epoch"]);
        let epoch = epoch.lines().nth(1).unwrap_or("none").to_owned();
        format!("{{durward}}:{epoch}:entries")
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn connector(&self) -> Connector {
        connector(&self.url(), "")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

/// Two masters that share the slots.
pub async fn cluster() -> [Server; 2] {
    // The nodes' own port would be 10,000 above the clients', where there may be none.
    let buses = [(); 2].map(|()| free_port().to_string());
    let nodes = buses
        .each_ref()
        .map(|bus| Server::start(&["--cluster-enabled", "yes", "--cluster-port", bus]));
    nodes[0].ask(&["CLUSTER", "ADDSLOTSRANGE", "0", "8191"]);
    nodes[1].ask(&["CLUSTER", "ADDSLOTSRANGE", "8192", "16383"]);
    nodes[0].ask(&[
        "CLUSTER",
        "MEET",
        "127.0.0.1",
        &nodes[1].port.to_string(),
        &buses[1],
    ]);
    let is_ok = |node: &Server| node.ask(&["CLUSTER", "INFO"]).contains("cluster_state:ok");
    let start = Instant::now();
    while !nodes.iter().all(is_ok) {
        assert!(start.elapsed() < PATIENCE, "the cluster does not form");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    nodes
}

/// Compiles `store:` and the options of `redis:`.
pub fn connector(store: &str, options: &str) -> Connector {
    let text = format!("store: {store}\nredis: {{ {options} }}\n");
    let document = Document::parse("c.yaml", &text).unwrap();
    let Value::Map(entries) = &document.root().value else {
        panic!("a mapping")
    };
    let mut diagnostics = Diagnostics::default();
    let target = RedisTarget::compile(
        &entries[0].node,
        Some(&entries[1].node),
        Path::new("/"),
        &mut diagnostics,
    );
    Connector::new(&target.unwrap_or_else(|| panic!("{}", diagnostics.located_in(&document))))
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

pub fn new_folder() -> PathBuf {
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("durward-news-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Where the reply at the start of these bytes ends, if all of it is there.
fn reply_end(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")? + 2;
    let number = || {
        std::str::from_utf8(&bytes[1..end - 2])
            .unwrap()
            .parse::<i64>()
            .unwrap()
    };
    match bytes[0] {
        b'$' => {
            let end = end + usize::try_from(if number() < 0 { 0 } else { number() + 2 }).unwrap();
            (bytes.len() >= end).then_some(end)
        }
        b'*' => (0..number()).try_fold(end, |at, _| Some(at + reply_end(&bytes[at..])?)),
        _ => Some(end),
    }
}
