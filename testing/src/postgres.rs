//! A real PostgreSQL server: one for each test binary, one database for each test; and servers of
//! other kinds for the tests that ask for one.
//!
//! A server lives in a folder of its own, listens on a Unix socket there, and nowhere else unless it
//! is asked for with a port, and ends with the test binary, however that ends: a shell that holds the other end of
//! a pipe watches over it.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Where Debian's packages put the binaries that are not for everyone's PATH.
const DEBIAN_VERSIONS: &str = "/usr/lib/postgresql";
/// Whom the server runs as where the tests run as root, which PostgreSQL refuses.
const UNPRIVILEGED: &str = "nobody";
/// Of the servers that have no port: it names their socket.
const DEFAULT_PORT: u16 = 5432;
/// The superuser of the server, who needs no password.
pub const OWNER: &str = "durward";

/// Starts the server, says where it is, and ends it once standard input is closed. What it says
/// goes to a file that is shown where the start fails.
const WATCH: &str = r#"
set -eu
trap '' INT TERM HUP
bin=$1 kind=$2 port=$3
umask 077
home=$(mktemp -d "${TMPDIR:-/tmp}/durward-postgres-XXXXXX")
trap 'rm -rf "$home"' EXIT
cd "$home"
fail() { cat "$home/log" >&2; exit 1; }
"$bin/initdb" -D data -U durward --auth=trust --encoding=UTF8 --no-locale --no-sync >log 2>&1 || fail
echo "local all +with_password scram-sha-256" >hba
cat data/pg_hba.conf >>hba
mv hba data/pg_hba.conf
chmod 755 "$home"
first='CREATE ROLE with_password'
case $kind in
plain) set -- -c listen_addresses= ;;
exposed) set -- -c listen_addresses=127.0.0.1 ;;
tls)
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout authority.key \
        -out authority.pem -days 2 -subj /CN=authority >>log 2>&1 || fail
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout server.key \
        -out server.csr -subj /CN=localhost >>log 2>&1 || fail
    echo subjectAltName=DNS:localhost >extensions
    openssl x509 -req -in server.csr -CA authority.pem -CAkey authority.key -CAcreateserial \
        -out server.pem -days 2 -extfile extensions >>log 2>&1 || fail
    chmod 644 authority.pem
    set -- -c listen_addresses=127.0.0.1 -c ssl=on -c ssl_cert_file="$home/server.pem" \
        -c ssl_key_file="$home/server.key"
    ;;
standby)
    touch data/standby.signal
    first='SELECT 1'
    set -- -c listen_addresses=
    ;;
esac
"$bin/postgres" -D data -k "$home" -p "$port" -c unix_socket_permissions=0777 \
    -c fsync=off -c full_page_writes=off -c max_connections=400 "$@" >>log 2>&1 &
server=$!
n=0
until "$bin/psql" -h "$home" -p "$port" -U durward -d postgres -c "$first" >>log 2>&1; do
    n=$((n + 1))
    [ "$n" -lt 300 ] && kill -0 "$server" 2>/dev/null || fail
    sleep 0.1
done
echo "$home"
cat >/dev/null
kill -QUIT "$server"
wait "$server" || true
"#;

/// What a server is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It writes, and listens on its Unix socket alone.
    Plain,
    /// It listens on a port of 127.0.0.1 too, and speaks no TLS there.
    Exposed,
    /// It listens on a port of 127.0.0.1 too, and has a certificate there for `localhost`.
    Tls,
    /// It follows another server, that is not there, and can only be read.
    Standby,
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    binaries: PathBuf,
    home: PathBuf,
    port: u16,
    /// Closed by the operating system when this process ends, which ends the server.
    _lifeline: ChildStdin,
    _watch: Child,
}

/// A database of its own for one test; it goes when it is dropped.
#[derive(Debug)]
pub struct Database {
    server: &'static Server,
    name: String,
}

/// The server of this test binary, started by whoever asks first.
///
/// # Panics
///
/// Where PostgreSQL is not installed or does not start: a test that needs it must not pass without.
pub fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::start(Kind::Plain))
}

impl Server {
    /// Starts a server.
    ///
    /// # Panics
    ///
    /// As [`server`] does.
    pub fn start(kind: Kind) -> Self {
        let port = match kind {
            Kind::Plain | Kind::Standby => DEFAULT_PORT,
            Kind::Exposed | Kind::Tls => free_port(),
        };
        let binaries = binaries().expect("PostgreSQL is needed: apt-get install postgresql");
        let mut watch = as_unprivileged()
            .args(["sh", "-c", WATCH, "watch"])
            .arg(&binaries)
            .args([kind.name(), &port.to_string()])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let lifeline = watch.stdin.take().expect("a pipe");
        let mut home = String::new();
        let said = BufReader::new(watch.stdout.take().expect("a pipe")).read_line(&mut home);
        assert!(said.is_ok() && home.ends_with('\n'), "PostgreSQL did not start");
        Self {
            binaries,
            home: home.trim_end().into(),
            port,
            _lifeline: lifeline,
            _watch: watch,
        }
    }

    /// A new, empty database.
    pub fn database(&'static self) -> Database {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.run(&format!("CREATE DATABASE {name}"));
        Database { server: self, name }
    }

    /// A role that has to give its password; every other one is let in without.
    pub fn role_with_password(&self, name: &str, password: &str) {
        self.run(&format!(
            "CREATE ROLE {name} LOGIN SUPERUSER PASSWORD '{password}' IN ROLE with_password"
        ));
    }

    /// Where the certificate is of the authority that a [`Kind::Tls`] server's was made by.
    pub fn authority(&self) -> PathBuf {
        self.home.join("authority.pem")
    }

    /// Its port, where it has one.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The database that every server has, over the Unix socket, as `auth.database` wants it.
    pub fn url(&self) -> String {
        self.url_of("postgres", OWNER)
    }

    fn url_of(&self, database: &str, role: &str) -> String {
        let (port, home) = (self.port, self.home.display());
        format!("postgres://{role}@localhost:{port}/{database}?host={home}")
    }

    /// Runs a statement as the server's owner.
    pub fn run(&self, sql: &str) {
        let done = self.tool("psql").args(["-d", "postgres", "-qc", sql]).output();
        assert_success(&done.expect("psql"), sql);
    }

    fn tool(&self, name: &str) -> Command {
        let mut command = Command::new(self.binaries.join(name));
        command.arg("-h").arg(&self.home).args(["-U", OWNER]);
        command.args(["-p", &self.port.to_string()]);
        command
    }
}

impl Database {
    /// Where it is, as `auth.database` wants it.
    pub fn url(&self) -> String {
        self.url_as(OWNER)
    }

    /// The same for another role.
    pub fn url_as(&self, role: &str) -> String {
        self.server.url_of(&self.name, role)
    }

    /// Ends every connection to it and lets nobody in: to its clients the server is down.
    pub fn cut_off(&self) {
        let name = &self.name;
        self.server
            .run(&format!("ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false"));
        self.server.run(&format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        ));
    }

    /// The end of [`Self::cut_off`].
    pub fn let_in(&self) {
        self.server.run(&format!(
            "ALTER DATABASE {} WITH ALLOW_CONNECTIONS true",
            self.name
        ));
    }

    /// Its name on the server.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All that is in it, as text.
    pub fn dump(&self) -> String {
        let done = self
            .server
            .tool("pg_dump")
            .args(["--inserts", &self.name])
            .output();
        let done = done.expect("pg_dump");
        assert_success(&done, "pg_dump");
        String::from_utf8_lossy(&done.stdout).into_owned()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let sql = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        let _ = self
            .server
            .tool("psql")
            .args(["-d", "postgres", "-qc", &sql])
            .output();
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Exposed => "exposed",
            Self::Tls => "tls",
            Self::Standby => "standby",
        }
    }
}

/// A port that nobody has at the moment: PostgreSQL cannot be asked to choose.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port()
}

/// The folder of the newest version's binaries.
fn binaries() -> Option<PathBuf> {
    let versions = std::fs::read_dir(DEBIAN_VERSIONS).into_iter().flatten().flatten();
    let newest = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path())))
        .map(|(version, path)| (version, path.join("bin")))
        .filter(|(_, path)| path.join("postgres").exists())
        .max();
    let on_path = || {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).find(|folder| folder.join("postgres").exists())
    };
    newest.map(|(_, path)| path).or_else(on_path)
}

fn as_unprivileged() -> Command {
    use std::os::unix::fs::MetadataExt;
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    if !is_root {
        return Command::new("setsid");
    }
    let group = if Path::new("/etc/debian_version").exists() {
        "nogroup"
    } else {
        UNPRIVILEGED
    };
    let mut command = Command::new("setsid");
    command.args([
        "setpriv",
        "--reuid",
        UNPRIVILEGED,
        "--regid",
        group,
        "--clear-groups",
    ]);
    command
}

fn assert_success(done: &Output, what: &str) {
    assert!(
        done.status.success(),
        "{what}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
}

#[cfg(test)]
mod tests {
    use super::server;

    #[test]
    fn each_test_has_a_database_of_its_own() {
        let (one, other) = (server().database(), server().database());
        assert_ne!(one.name(), other.name());
        assert!(one.url().starts_with("postgres://durward@localhost:5432/test_"));
        assert!(one.dump().contains("PostgreSQL database dump"));
    }
}
