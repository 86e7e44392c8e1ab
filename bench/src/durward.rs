//! The gateway's own binary as a child process: its start, its users, its sessions.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Fallible;
use crate::child::Child;
use crate::client::Connection;
use crate::configuration::{CONTROL, Configuration};
use crate::role::{Under, command};

/// The longest that it may take to be ready.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is asked whether it is.
const POLL: Duration = Duration::from_millis(1);
/// The longest that it may take to end.
const DRAIN: Duration = Duration::from_secs(20);
/// What of its log is shown when it fails.
const LOG_TAIL: usize = 4096;
/// Idle upstream connections that a process with everything in it keeps.
const KEEPALIVE_POOL: usize = 256;

/// What the binary is started as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// `durward up`: everything in one process.
    Whole,
    /// `durward gateway`.
    Gateway,
    /// `durward auth`.
    Auth,
}

impl Part {
    fn command(self) -> &'static str {
        match self {
            Self::Whole => "up",
            Self::Gateway => "gateway",
            Self::Auth => "auth",
        }
    }
}

/// A running `durward`.
pub struct Durward {
    child: Child,
    folder: PathBuf,
    /// Where users talk to it: the edge, or an auth replica's own listener.
    pub edge: SocketAddr,
    /// Metrics and health, where the part has them.
    pub admin: SocketAddr,
    /// From the start of the process until it is [ready](Self::start).
    pub ready_after: Duration,
}

/// A user who is logged in.
#[derive(Clone, Debug)]
pub struct User {
    /// The name.
    pub name: String,
    /// The id: the `sub` of the token.
    pub id: String,
    /// A token that is good for an hour.
    pub access_token: String,
}

impl User {
    /// The field that says so.
    pub fn authorization(&self) -> String {
        format!("Bearer {}", self.access_token)
    }
}

impl Durward {
    /// Starts everything in one process, with an access log, on addresses of its own.
    pub fn whole(binary: &Path, folder: &Path, backend: SocketAddr) -> Fallible<Self> {
        let configuration = Configuration {
            listen: free_address()?,
            admin: free_address()?,
            auth: free_address()?,
            backend,
            workers: thread::available_parallelism()?.get(),
            upstream_keepalive_pool: KEEPALIVE_POOL,
            access_log: true,
            shared: None,
        };
        Self::start(Part::Whole, binary, folder, &configuration, None)
    }

    /// Writes the configuration into `folder`, starts the binary there, and waits until it is ready:
    /// until `/readyz` says 200, or, of an auth replica, until it shows its keys.
    pub fn start(
        part: Part,
        binary: &Path,
        folder: &Path,
        configuration: &Configuration,
        under: Option<&Under>,
    ) -> Fallible<Self> {
        let file = folder.join("config.yaml");
        fs::write(&file, configuration.text())?;
        let log = File::create(folder.join("durward.log"))?;
        let mut command = command(binary, under);
        command
            .arg(part.command())
            .arg("--config")
            .arg(&file)
            .current_dir(folder);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let start = Instant::now();
        let child = Child::start(binary.display().to_string(), &mut command)?;
        let mut durward = Self {
            child,
            folder: folder.to_owned(),
            edge: match part {
                Part::Whole | Part::Gateway => configuration.listen,
                Part::Auth => configuration.auth,
            },
            admin: configuration.admin,
            ready_after: Duration::ZERO,
        };
        let (address, path) = match part {
            Part::Whole | Part::Gateway => (configuration.admin, "/readyz"),
            Part::Auth => (configuration.auth, "/.well-known/jwks.json"),
        };
        durward.wait_until_ready(start, address, path)?;
        Ok(durward)
    }

    fn wait_until_ready(&mut self, start: Instant, address: SocketAddr, path: &str) -> Fallible<()> {
        loop {
            if let Some(status) = self.child.ended()? {
                return Err(format!("durward ended with {status}:\n{}", self.log_tail()).into());
            }
            let answer = Connection::open(address).and_then(|mut server| server.ask("GET", path, &[], None));
            if answer.is_ok_and(|answer| answer.status == 200) {
                self.ready_after = start.elapsed();
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                return Err(
                    format!("durward was not ready within {PATIENCE:?}:\n{}", self.log_tail()).into(),
                );
            }
            thread::sleep(POLL);
        }
    }

    fn log_tail(&self) -> String {
        let log = fs::read(self.folder.join("durward.log")).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_TAIL)..]).into_owned()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Ends it as an operator does, and returns how long that took.
    pub fn stop(self) -> Fallible<Duration> {
        self.child.terminate(DRAIN)
    }

    /// The folder of its configuration file.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A connection to its control socket.
    pub fn control(&self) -> Fallible<Connection<std::os::unix::net::UnixStream>> {
        Connection::open_unix(&self.folder.join(CONTROL))
    }

    /// Adds users as its operator; returns their ids.
    pub fn add_users(&self, names: &[String], roles: &[&str]) -> Fallible<Vec<String>> {
        in_parallel(names, |name| self.add_user(name, roles))
    }

    /// Adds a user as its operator; returns the id.
    pub fn add_user(&self, name: &str, roles: &[&str]) -> Fallible<String> {
        let body = json!({ "username": name, "roles": roles, "password": password(name) });
        let user = self
            .control()?
            .ask("POST", "/users", &[], Some(&body))?
            .json(201)?;
        text(&user, "id")
    }

    /// Logs users in where users talk to it, as their browsers would.
    pub fn log_in(&self, names: &[String], ids: &[String]) -> Fallible<Vec<User>> {
        let pairs: Vec<_> = names.iter().zip(ids).collect();
        in_parallel(&pairs, |(name, id)| self.log_in_one(name, id))
    }

    /// Logs one user in.
    pub fn log_in_one(&self, name: &str, id: &str) -> Fallible<User> {
        let body = json!({ "username": name, "password": password(name) });
        let answer = Connection::open(self.edge)?
            .ask("POST", "/auth/login", &[], Some(&body))?
            .json(200)?;
        Ok(User {
            name: name.to_owned(),
            id: id.to_owned(),
            access_token: text(&answer, "access_token")?,
        })
    }

    /// One sample of its metrics.
    pub fn metric(&self, name: &str) -> Fallible<f64> {
        let answer = Connection::open(self.admin)?.ask("GET", "/metrics", &[], None)?;
        let body = String::from_utf8(answer.body)?;
        let line = body
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line
            .ok_or_else(|| format!("{name} is not among the metrics"))?
            .trim()
            .parse()?)
    }
}

fn password(name: &str) -> String {
    format!("quite some password of {name}")
}

fn text(value: &Value, name: &str) -> Fallible<String> {
    let found = value.get(name).and_then(Value::as_str).map(str::to_owned);
    found.ok_or_else(|| format!("`{name}` is not in {value}").into())
}

/// Password hashing is slow by design: as many at once as there are processors.
pub(crate) fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    each: impl Fn(&T) -> Fallible<R> + Sync,
) -> Fallible<Vec<R>> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let share = items.len().div_ceil(threads).max(1);
    let each = &each;
    thread::scope(|scope| {
        let parts: Vec<_> = items
            .chunks(share)
            .map(|part| scope.spawn(move || part.iter().map(each).collect::<Fallible<Vec<R>>>()))
            .collect();
        let mut results = Vec::new();
        for part in parts {
            results.extend(part.join().map_err(|_| "a thread has panicked")??);
        }
        Ok(results)
    })
}

/// A port on loopback that nobody listens on.
pub fn free_address() -> Fallible<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
