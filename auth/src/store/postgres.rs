//! PostgreSQL: one database for several processes.

use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
use sqlx::{ConnectOptions, PgConnection, PgPool};

use super::{ACQUIRE_TIMEOUT, OpenError};
use crate::database_config::PostgresConfig;

const READERS: u32 = 4;
const WRITERS: u32 = 8;
/// The oldest version that has all that is used here.
const OLDEST: u32 = 13;
/// How long one statement may run.
const STATEMENT_TIMEOUT: &str = "10s";
/// How long a statement may wait for what another transaction has locked.
const LOCK_TIMEOUT: &str = "5s";
/// How long a transaction may lie idle before the server ends it, and with it its locks: a process
/// that stands still must not keep the others from revoking.
const IDLE_TRANSACTION_TIMEOUT: &str = "10s";
/// How long a connection is used: an address that moved to another server is found after that.
const MAX_LIFETIME: Duration = Duration::from_secs(30 * 60);
const APPLICATION_NAME: &str = "durward-auth";

/// Readers, the revocation log's reader, and writers.
pub(super) async fn pools(config: &PostgresConfig) -> Result<[PgPool; 3], OpenError> {
    let options = options(config)?.options([
        ("statement_timeout", STATEMENT_TIMEOUT),
        ("lock_timeout", LOCK_TIMEOUT),
        ("idle_in_transaction_session_timeout", IDLE_TRANSACTION_TIMEOUT),
    ]);
    let pool = |connections| {
        PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .max_lifetime(MAX_LIFETIME)
            // A server that was restarted costs nobody a refused request.
            .test_before_acquire(true)
            .after_connect(|connection, _| Box::pin(check_session(connection)))
    };
    let writers = pool(WRITERS).connect_with(options.clone()).await?;
    warn_of_lost_commits(&mut *writers.acquire().await?).await?;
    let readers = pool(READERS).connect_with(options.clone()).await?;
    let log_reader = pool(1).connect_with(options).await?;
    Ok([readers, log_reader, writers])
}

/// How a connection is made.
pub(super) fn options(config: &PostgresConfig) -> Result<PgConnectOptions, OpenError> {
    let mut options = PgConnectOptions::from_str(&config.url)?
        .application_name(APPLICATION_NAME)
        .disable_statement_logging();
    if config.verify_by_default {
        options = options.ssl_mode(PgSslMode::VerifyFull);
    }
    if let Some(password) = &config.password {
        let password = password.read().map_err(OpenError::Password)?;
        options = options.password(password.expose());
    }
    Ok(options)
}

/// Refuses a server that is too old, or one on which nothing can be brought up to date.
pub(super) async fn check_server(connection: &mut PgConnection) -> Result<(), OpenError> {
    let (number, name, is_standby): (String, String, bool) = sqlx::query_as(
        "SELECT current_setting('server_version_num'), current_setting('server_version'),
         pg_is_in_recovery()",
    )
    .fetch_one(connection)
    .await?;
    if number.parse().unwrap_or(0) < OLDEST * 10_000 {
        return Err(OpenError::TooOld(name, OLDEST));
    }
    if is_standby {
        return Err(OpenError::Sql(standby()));
    }
    Ok(())
}

/// Makes a new connection one that can be relied on.
///
/// An acknowledged ban survives a power cut only if its commit reached the disk, whatever the
/// server's default is. What waits for a standby too (`remote_apply`) is left as it is. A standby
/// itself is refused: its log is an older one, and would be taken for news.
async fn check_session(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let (is_standby, commits): (bool, String) = sqlx::query_as(
        "SELECT pg_is_in_recovery(),
         set_config('synchronous_commit', CASE WHEN s IN ('off', 'local') THEN 'on' ELSE s END, FALSE)
         FROM current_setting('synchronous_commit') AS s",
    )
    .fetch_one(connection)
    .await?;
    if is_standby {
        return Err(standby());
    }
    match commits.as_str() {
        "off" | "local" => Err(sqlx::Error::Protocol(
            "synchronous_commit cannot be switched on".to_owned(),
        )),
        _ => Ok(()),
    }
}

fn standby() -> sqlx::Error {
    sqlx::Error::Protocol("the server is a standby".to_owned())
}

async fn warn_of_lost_commits(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let fsync: String = sqlx::query_scalar("SELECT current_setting('fsync')")
        .fetch_one(connection)
        .await?;
    if fsync == "off" {
        tracing::error!(
            "the PostgreSQL server runs with fsync = off: a power cut there loses acknowledged bans"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use durward_contract::{Bar, Sequence, Target, UnixSeconds};
    use durward_testing::postgres::{Database, server};
    use tokio::time::timeout;

    use super::*;
    use crate::database_config::DatabaseConfig;
    use crate::store::revocations::{self, PendingEntry};
    use crate::store::statement::query;
    use crate::store::{Store, StoreError, Write};

    const A_WHILE: Duration = Duration::from_millis(200);

    fn config(database: &Database) -> DatabaseConfig {
        DatabaseConfig::Postgres(PostgresConfig {
            url: database.url(),
            verify_by_default: false,
            password: None,
        })
    }

    fn revoke(write: &mut Write, token: &str) {
        let entry = PendingEntry {
            issuer: "i".to_owned(),
            target: Target::Token(token.to_owned()),
            bar: Bar::Always,
            forget_at: None,
            created_at: UnixSeconds(0),
        };
        revocations::append(write, entry);
    }

    async fn seen(store: &Store) -> (Sequence, Vec<Sequence>) {
        let mut read = store.log_snapshot().await.unwrap();
        let head = revocations::head(&mut read).await.unwrap().sequence;
        let entries = revocations::after(&mut read, Sequence(0), 100).await.unwrap();
        (
            head,
            entries.iter().map(durward_contract::News::sequence).collect(),
        )
    }

    #[tokio::test]
    async fn commits_are_durable_whatever_the_default_of_the_server_is() {
        let database = server().database();
        for (default, wanted) in [("off", "on"), ("local", "on"), ("remote_apply", "remote_apply")] {
            server().run(&format!(
                "ALTER DATABASE {} SET synchronous_commit = {default}",
                database.name()
            ));
            let store = Store::open(&config(&database)).await.unwrap();
            let mut write = store.write().await.unwrap();
            let setting: String = query("SELECT current_setting('synchronous_commit')")
                .scalar(write.connection())
                .await
                .unwrap();
            assert_eq!(setting, wanted);
        }
    }

    /// Who has seen a head never finds a new entry at or below it: a reader that asks for what is
    /// after it misses nothing.
    #[tokio::test]
    async fn numbers_are_given_in_the_order_of_commits() {
        let database = server().database();
        let (one, other) = (
            Store::open(&config(&database)).await.unwrap(),
            Store::open(&config(&database)).await.unwrap(),
        );
        let (mut early, mut late) = (one.write().await.unwrap(), other.write().await.unwrap());
        revoke(&mut early, "a");
        revoke(&mut early, "b");
        revoke(&mut late, "c");
        let early = early.take_numbers().await.unwrap();
        let mut late = tokio::spawn(late.take_numbers());
        assert!(timeout(A_WHILE, &mut late).await.is_err(), "the head is locked");
        assert_eq!(seen(&other).await, (Sequence(0), vec![]));
        early.commit().await.unwrap();
        let late = late.await.unwrap().unwrap();
        assert_eq!(seen(&other).await.0, Sequence(2));
        assert_eq!(late.news[0].sequence(), Sequence(3));
        drop(late);
        // What was not committed leaves no gap.
        let mut again = one.write().await.unwrap();
        revoke(&mut again, "d");
        let again = again.take_numbers().await.unwrap();
        assert_eq!(again.commit().await.unwrap()[0].sequence(), Sequence(3));
        let all = vec![Sequence(1), Sequence(2), Sequence(3)];
        assert_eq!(seen(&one).await, (Sequence(3), all));
    }

    /// PostgreSQL answers such a COMMIT with a rollback and no error.
    #[tokio::test]
    async fn a_transaction_in_which_a_statement_failed_is_not_committed() {
        let database = server().database();
        let store = Store::open(&config(&database)).await.unwrap();
        let mut write = store.write().await.unwrap();
        assert!(query("SELECT 1 / 0").execute(write.connection()).await.is_err());
        let refused = write.commit_without_news().await;
        assert!(matches!(refused, Err(StoreError::Aborted)), "{refused:?}");
    }

    #[tokio::test]
    async fn the_server_asks_for_the_password_that_the_file_holds() {
        let database = server().database();
        server().role_with_password("secretive", "correct horse");
        let folder = std::env::temp_dir().join(format!("durward-password-{}", crate::random::token_id()));
        std::fs::create_dir_all(&folder).unwrap();
        for (content, fits) in [("correct horse\n", true), ("wrong horse", false)] {
            std::fs::write(folder.join("password"), content).unwrap();
            let text = format!(
                "database: \"{}\"\ndatabase_password: {{ file: password }}\n",
                database.url_as("secretive")
            );
            let config = DatabaseConfig::from_text(&text, &folder);
            let opened = Store::open(&config).await;
            assert_eq!(opened.is_ok(), fits, "{opened:?}");
            let said = opened.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(!said.contains("horse"), "{said}");
        }
        std::fs::remove_dir_all(folder).unwrap();
    }
    /// A way to the server that can fall silent: what goes through it then neither arrives nor
    /// fails, as on a network that lost its other end.
    struct Line {
        folder: std::path::PathBuf,
        silent_before: tokio::sync::watch::Sender<u64>,
    }

    impl Line {
        fn to(database: &Database) -> (Self, String) {
            let folder = std::env::temp_dir().join(format!("durward-line-{}", crate::random::token_id()));
            std::fs::create_dir_all(&folder).unwrap();
            let listener = tokio::net::UnixListener::bind(folder.join(".s.PGSQL.5432")).unwrap();
            let url = database.url();
            let (start, server) = url.split_once("?host=").unwrap();
            let (start, server) = (start.to_owned(), format!("{server}/.s.PGSQL.5432"));
            let (silent_before, silence) = tokio::sync::watch::channel(0);
            tokio::spawn(async move {
                for number in 1.. {
                    let (mut near, _) = listener.accept().await.unwrap();
                    let (server, mut silence) = (server.clone(), silence.clone());
                    tokio::spawn(async move {
                        let mut far = tokio::net::UnixStream::connect(server).await.unwrap();
                        let silent = async { silence.wait_for(|before| number <= *before).await.map(drop) };
                        tokio::select! {
                            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                            _ = silent => std::future::pending().await,
                        }
                    });
                }
            });
            let url = format!("{start}?host={}", folder.display());
            (
                Self {
                    folder,
                    silent_before,
                },
                url,
            )
        }
    }

    #[tokio::test]
    async fn a_connection_that_fell_silent_is_given_up_and_another_takes_its_place() {
        let database = server().database();
        let (line, url) = Line::to(&database);
        let config = DatabaseConfig::Postgres(PostgresConfig {
            url,
            verify_by_default: false,
            password: None,
        });
        let store = Store::open(&config).await.unwrap();
        let mut open = store.log_snapshot().await.unwrap();
        revocations::head(&mut open).await.unwrap();
        // All that there are so far. New ones go through.
        line.silent_before.send(100).unwrap();
        let asked = timeout(A_WHILE, revocations::head(&mut open)).await;
        assert!(asked.is_err(), "{asked:?}");
        drop(open);
        line.silent_before.send(0).unwrap();
        // The pool has one place for the log's reader. It is free again.
        timeout(Duration::from_secs(10), seen(&store)).await.unwrap();
        std::fs::remove_dir_all(&line.folder).unwrap();
    }
}
