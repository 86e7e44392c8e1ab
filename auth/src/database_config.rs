//! `auth.database` and `auth.database_password`: where the database is and how it is opened.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use durward_config::{Diagnostic, Diagnostics, Node, Place, SecretRef};
use url::Url;

use crate::secret::Secret;

const ADVICE: &str = "write sqlite:PATH or postgres://USER@HOST:PORT/DATABASE";
const PASSWORD_ADVICE: &str = "write `database_password: { file: PATH }` or `{ env: NAME }` below it";
/// What may stand behind the `?` of a PostgreSQL URL.
const PARAMETERS: [&str; 5] = ["host", "sslmode", "sslrootcert", "sslcert", "sslkey"];
const SSL_MODES: [&str; 6] = [
    "disable",
    "allow",
    "prefer",
    "require",
    "verify-ca",
    "verify-full",
];

/// Where the database is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseConfig {
    /// `sqlite:PATH`: a file for one process.
    Sqlite(PathBuf),
    /// `postgres://…`: a server for several.
    Postgres(PostgresConfig),
}

/// A PostgreSQL database and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresConfig {
    /// The URL, with paths made absolute. It holds no password.
    pub(crate) url: String,
    /// Whether the server has to prove its name by TLS because nothing else was written: it is on
    /// another machine.
    pub(crate) verify_by_default: bool,
    pub(crate) password: Option<PasswordSource>,
}

/// Where the password is, which is read at the start and never written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PasswordSource(SecretRef);

impl PasswordSource {
    /// The password. The error says where it should be.
    pub fn read(&self) -> Result<Secret, String> {
        let bytes = self.0.read(Path::new(""))?;
        String::from_utf8(bytes)
            .map(Secret::new)
            .map_err(|_| "the password is not UTF-8".to_owned())
    }
}

impl DatabaseConfig {
    /// Reads the two keys. Relative paths are relative to `base`.
    pub(crate) fn compile(
        node: &Node,
        password: Option<&Node>,
        base: &Path,
        diagnostics: &mut Diagnostics,
    ) -> Option<Self> {
        let text = node.text("auth.database", diagnostics)?;
        let secret = match password {
            Some(node) => Some(node.secret("auth.database_password", diagnostics)?),
            None => None,
        };
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            let password = secret.map(|secret| match secret {
                SecretRef::File(path) => PasswordSource(SecretRef::File(base.join(path))),
                environment @ SecretRef::Environment(_) => PasswordSource(environment),
            });
            return postgres(text, password, base, node.place, diagnostics).map(Self::Postgres);
        }
        if let Some(password) = password {
            let message = "auth.database_password is for PostgreSQL only";
            diagnostics.error(
                password.place,
                message,
                "leave it out: SQLite's file has no password",
            );
            return None;
        }
        let path = text
            .strip_prefix("sqlite:")
            .map(|path| path.strip_prefix("//").unwrap_or(path));
        match path {
            Some(path) if !path.is_empty() && path != ":memory:" && !path.contains('?') => {
                Some(Self::Sqlite(base.join(path)))
            }
            _ => {
                let message = "auth.database is not a database that is known here";
                refuse(message, ADVICE, node.place, diagnostics)
            }
        }
    }
}

/// Names the database for people.
impl fmt::Display for DatabaseConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => path.display().fmt(f),
            Self::Postgres(server) => f.write_str(server.url.split('?').next().unwrap_or_default()),
        }
    }
}

/// The URL may hold a password where none should be, so no message repeats it.
fn refuse<T>(message: &str, advice: &str, place: Place, diagnostics: &mut Diagnostics) -> Option<T> {
    diagnostics.push(Diagnostic::error(place, message, advice).concealing_line());
    None
}

fn postgres(
    text: &str,
    password: Option<PasswordSource>,
    base: &Path,
    place: Place,
    diagnostics: &mut Diagnostics,
) -> Option<PostgresConfig> {
    // A URL with a user needs a host; with `?host=/socket/folder` it is not looked at.
    let text = text.replacen("@/", "@localhost/", 1);
    let Ok(mut url) = Url::parse(&text) else {
        return refuse("auth.database is not a URL", ADVICE, place, diagnostics);
    };
    let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    if url.password().is_some() || pairs.iter().any(|(name, _)| name == "password") {
        let message = "auth.database must not hold a password";
        return refuse(message, PASSWORD_ADVICE, place, diagnostics);
    }
    let named = !url.username().is_empty() && url.host_str().is_some_and(|host| !host.is_empty());
    let database = url.path().strip_prefix('/').unwrap_or_default();
    if !named || database.is_empty() || database.contains('/') || url.fragment().is_some() {
        let message = "auth.database needs a user, a host and the name of a database";
        return refuse(message, ADVICE, place, diagnostics);
    }
    let mut parameters = Vec::new();
    for (name, value) in pairs {
        if !PARAMETERS.contains(&name.as_str()) || parameters.iter().any(|(known, _)| *known == name) {
            let message = "auth.database has a parameter that is not known here, or has one twice";
            let advice = format!("the parameters are {}", PARAMETERS.join(", "));
            return refuse(message, &advice, place, diagnostics);
        }
        if name == "sslmode" && !SSL_MODES.contains(&value.as_str()) {
            let advice = format!("write one of {}", SSL_MODES.join(", "));
            return refuse(
                "auth.database has an unknown sslmode",
                &advice,
                place,
                diagnostics,
            );
        }
        let value = match name.as_str() {
            "sslrootcert" | "sslcert" | "sslkey" => base.join(value).display().to_string(),
            _ => value,
        };
        parameters.push((name, value));
    }
    let value_of = |wanted: &str| {
        let pair = parameters.iter().find(|(name, _)| name == wanted);
        pair.map(|(_, value)| value.as_str())
    };
    let host = value_of("host").or(url.host_str()).unwrap_or_default();
    let here = is_here(host);
    let mode = value_of("sslmode");
    if let Some(mode @ ("disable" | "allow" | "prefer" | "require" | "verify-ca")) = mode
        && !here
    {
        let message = format!("auth.database: with sslmode={mode} another machine can pose as the server");
        diagnostics.push(
            Diagnostic::warning(
                place,
                message,
                "write sslmode=verify-full, with sslrootcert=FILE if need be",
            )
            .concealing_line(),
        );
    }
    let verify_by_default = mode.is_none() && !here;
    url.set_query(None);
    if !parameters.is_empty() {
        url.query_pairs_mut().extend_pairs(&parameters);
    }
    Some(PostgresConfig {
        url: url.into(),
        verify_by_default,
        password,
    })
}

/// Whether the server is on this machine: a folder of a Unix socket, or a loopback address.
fn is_here(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.starts_with('/')
        || host
            .get(..3)
            .is_some_and(|start| start.eq_ignore_ascii_case("%2f"))
        || host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use durward_config::Document;

    use super::*;

    impl DatabaseConfig {
        /// For tests of what is made of it.
        pub(crate) fn from_text(text: &str, base: &Path) -> Self {
            let document = Document::parse("c.yaml", text).unwrap();
            let mut diagnostics = Diagnostics::default();
            let mut section = document.root().section("auth", &mut diagnostics).unwrap();
            let node = section.required("database", "", &mut diagnostics).unwrap();
            let password = section.optional("database_password");
            Self::compile(node, password, base, &mut diagnostics).unwrap()
        }
    }

    fn compile(text: &str) -> Result<(DatabaseConfig, String), String> {
        let document = Document::parse("c.yaml", text).unwrap();
        let mut diagnostics = Diagnostics::default();
        let mut section = document.root().section("auth", &mut diagnostics).unwrap();
        let node = section.required("database", "", &mut diagnostics).unwrap();
        let password = section.optional("database_password");
        let config = DatabaseConfig::compile(node, password, Path::new("/base"), &mut diagnostics);
        let failed = config.is_none() || diagnostics.has_errors();
        let said = diagnostics.located_in(&document).to_string();
        match config {
            Some(config) if !failed => Ok((config, said)),
            _ => Err(said),
        }
    }

    fn server(text: &str) -> (PostgresConfig, String) {
        match compile(text).unwrap() {
            (DatabaseConfig::Postgres(server), said) => (server, said),
            (other, _) => panic!("{other}"),
        }
    }

    #[test]
    fn a_server_on_another_machine_has_to_prove_its_name() {
        for (url, verified) in [
            ("postgres://durward@db.example/auth", true),
            ("postgresql://durward@10.0.0.5:5433/auth", true),
            ("postgres://durward@db.example/auth?sslmode=verify-full", false),
            ("postgres://durward@localhost/auth", false),
            ("postgres://durward@127.0.0.1/auth", false),
            ("postgres://durward@[::1]/auth", false),
            ("postgres://durward@/auth?host=/run/postgresql", false),
            ("postgres://durward@%2Frun%2Fpostgresql/auth", false),
            ("postgres://durward@localhost/auth?host=db.example", true),
        ] {
            let (server, said) = server(&format!("database: \"{url}\"\n"));
            assert_eq!(server.verify_by_default, verified, "{url}");
            assert_eq!(said, "", "{url}");
        }
        for mode in ["disable", "prefer", "require", "verify-ca"] {
            let (_, said) = server(&format!("database: \"postgres://u@db/auth?sslmode={mode}\"\n"));
            assert!(said.contains("another machine can pose as the server"), "{said}");
        }
    }

    #[test]
    fn a_password_never_stands_in_the_file() {
        for text in [
            "database: postgres://u:hunter2@db/auth\n",
            "database: postgres://u@db/auth?password=hunter2\n",
            "database: postgres://u@db/auth\ndatabase_password: hunter2\n",
        ] {
            let said = compile(text).unwrap_err();
            assert!(said.contains("{ file: PATH }"), "{said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
        let (server, _) = server("database: postgres://u@db/auth\ndatabase_password: { file: secret }\n");
        let wanted = PasswordSource(SecretRef::File("/base/secret".into()));
        assert_eq!(server.password, Some(wanted));
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        for (url, said) in [
            ("postgres://db/auth", "needs a user"),
            ("postgres://u@db", "needs a user"),
            ("postgres://u@db/", "needs a user"),
            ("postgres:///auth", "needs a user"),
            (
                "postgres://u@db/auth?sslmod=require",
                "parameter that is not known",
            ),
            (
                "postgres://u@db/auth?sslmode=verify-full&sslmode=disable",
                "one twice",
            ),
            (
                "postgres://u@db/auth?options=-csynchronous_commit%3Doff",
                "not known",
            ),
            ("postgres://u@db/auth?sslmode=on", "unknown sslmode"),
            ("postgres://u@db:99999/auth", "not a URL"),
            ("mysql://u@db/auth", "not a database"),
            ("sqlite::memory:", "not a database"),
        ] {
            let errors = compile(&format!("database: \"{url}\"\n")).unwrap_err();
            assert!(errors.contains(said), "{url}: {errors}");
        }
        let errors = compile("database: sqlite:a.db\ndatabase_password: { env: X }\n").unwrap_err();
        assert!(errors.contains("for PostgreSQL only"), "{errors}");
    }

    #[test]
    fn paths_are_relative_to_the_file() {
        let (server, _) = server("database: postgres://u@db/auth?sslrootcert=ca.pem\n");
        assert!(
            server.url.ends_with("?sslrootcert=%2Fbase%2Fca.pem"),
            "{}",
            server.url
        );
        assert_eq!(
            DatabaseConfig::Postgres(server).to_string(),
            "postgres://u@db/auth"
        );
    }
}
