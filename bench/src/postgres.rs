//! A PostgreSQL of our own: a fresh cluster in a folder of its own, as durable as it comes.
//!
//! It refuses to run as root, so where this program does, the server runs as the user that the
//! distribution's package has made for it. It listens on loopback only and trusts who connects.

use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::Fallible;
use crate::child::{Child, Signal};
use crate::durward::free_address;
use crate::scratch::Scratch;

/// Where Debian keeps the programs of each version.
const VERSIONS: &str = "/usr/lib/postgresql";
/// Who may run it instead of root, the first that exists.
const ACCOUNTS: [&str; 2] = ["postgres", "nobody"];
const USER: &str = "durward";
const DATABASE: &str = "auth";
const LOG: &str = "postgres.log";
/// The longest that it may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);
/// Connections of every replica, and ours.
const MAX_CONNECTIONS: u32 = 200;

/// A running server with an empty database.
pub struct Postgres {
    // Dropped first: the server ends before its folder goes.
    child: Child,
    folder: Scratch,
    programs: PathBuf,
    address: SocketAddr,
}

impl Postgres {
    /// Makes a cluster, starts the server, and makes the database.
    pub fn start() -> Fallible<Self> {
        let folder = Scratch::new("postgres")?;
        let programs = programs(Path::new(VERSIONS))?;
        let account = Account::not_root()?;
        if let Some(account) = &account {
            chown(folder.path(), Some(account.user), Some(account.group))?;
        }
        let run = |program: &str| {
            let mut command = Account::command(account.as_ref(), programs.join(program));
            command.current_dir(folder.path()).stdin(Stdio::null());
            command
        };
        let log = fs::File::create(folder.path().join(LOG))?;
        let mut initdb = run("initdb");
        initdb.args([
            "-D",
            "cluster",
            "-A",
            "trust",
            "-U",
            USER,
            "-E",
            "UTF8",
            "--no-locale",
        ]);
        let status = initdb
            .stdout(log.try_clone()?)
            .stderr(log.try_clone()?)
            .status()?;
        if !status.success() {
            return Err(format!("initdb ended with {status}: {}", log_of(folder.path())).into());
        }

        let address = free_address()?;
        let mut server = run("postgres");
        server.args(["-D", "cluster", "-h", "127.0.0.1", "-k", ""]);
        server.args([
            "-p",
            &address.port().to_string(),
            "-N",
            &MAX_CONNECTIONS.to_string(),
        ]);
        server.stdout(log.try_clone()?).stderr(log);
        // Killed, it would leave its shared memory behind; SIGINT is its fast shutdown.
        let child = Child::start_with_farewell("postgres", &mut server, Signal::Interrupt)?;
        let postgres = Self {
            child,
            folder,
            programs,
            address,
        };
        postgres.wait_until_it_answers()?;
        postgres.ask("postgres", &format!("CREATE DATABASE {DATABASE}"))?;
        Ok(postgres)
    }

    fn wait_until_it_answers(&self) -> Fallible<()> {
        let start = Instant::now();
        while self.ask("postgres", "SELECT 1").is_err() {
            if let Some(status) = self.child.ended()? {
                return Err(format!("postgres ended with {status}: {}", log_of(self.folder.path())).into());
            }
            if start.elapsed() > PATIENCE {
                return Err(format!("postgres did not answer within {PATIENCE:?}").into());
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Asks it through `psql`; the answer is unaligned text.
    fn ask(&self, database: &str, statement: &str) -> Fallible<String> {
        let output = Command::new(self.programs.join("psql"))
            .args(["-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1"])
            .args(["-p", &self.address.port().to_string(), "-U", USER, "-d", database])
            .args(["-c", statement])
            .stdin(Stdio::null())
            .output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
        }
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// Its process id; its connections are children of it.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// The URL that a configuration names the database by.
    pub fn url(&self) -> String {
        format!("postgres://{USER}@{}/{DATABASE}", self.address)
    }

    /// Its version, and whether a commit waits for the disk.
    pub fn description(&self) -> Fallible<String> {
        let show = |setting: &str| self.ask(DATABASE, &format!("SHOW {setting}"));
        Ok(format!(
            "PostgreSQL {}, fsync {}, synchronous_commit {}",
            show("server_version")?,
            show("fsync")?,
            show("synchronous_commit")?
        ))
    }
}

/// Whom the server runs as.
struct Account {
    user: u32,
    group: u32,
}

impl Account {
    /// Nobody else where this program is not root.
    fn not_root() -> Fallible<Option<Self>> {
        if fs::metadata("/proc/self")?.uid() != 0 {
            return Ok(None);
        }
        let accounts = fs::read_to_string("/etc/passwd")?;
        let found = ACCOUNTS.iter().find_map(|name| Self::parse(&accounts, name));
        Ok(Some(found.ok_or(
            "PostgreSQL does not run as root, and no user of its own is there",
        )?))
    }

    /// passwd(5): name, password, user id, group id.
    fn parse(accounts: &str, name: &str) -> Option<Self> {
        let line = accounts
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let mut fields = line.split(':').skip(1);
        Some(Self {
            user: fields.next()?.parse().ok()?,
            group: fields.next()?.parse().ok()?,
        })
    }

    fn command(account: Option<&Self>, program: impl AsRef<OsStr>) -> Command {
        let Some(Self { user, group }) = account else {
            return Command::new(program);
        };
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={user}"), format!("--regid={group}")]);
        command.args(["--clear-groups", "--"]).arg(program);
        command
    }
}

/// The programs of the newest version.
fn programs(versions: &Path) -> Fallible<PathBuf> {
    let missing = || {
        format!(
            "no PostgreSQL in {}: install the package postgresql",
            versions.display()
        )
    };
    let found = fs::read_dir(versions).map_err(|_| missing())?;
    let newest = found
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|version| versions.join(version).join("bin/initdb").exists())
        .max_by_key(|version| version.parse::<u32>().unwrap_or_default());
    Ok(versions.join(newest.ok_or_else(missing)?).join("bin"))
}

fn log_of(folder: &Path) -> String {
    fs::read_to_string(folder.join(LOG)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_its_whole_name() {
        let accounts = "root:x:0:0:root:/root:/bin/bash\npostgresql:x:1:1::/:/bin/sh\npostgres:x:107:114:,,,:/var:/bin/bash\n";
        let found = Account::parse(accounts, "postgres").unwrap();
        assert_eq!((found.user, found.group), (107, 114));
        assert!(Account::parse(accounts, "nobody").is_none());
    }
}
