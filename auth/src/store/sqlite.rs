//! SQLite: a file for one process. One connection writes, some read.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, SqliteConnection, SqlitePool};

use super::{ACQUIRE_TIMEOUT, OpenError};

const READERS: u32 = 4;
/// How long SQLite waits for a lock that another process holds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How often it is tried again where it does not wait.
const BUSY_INTERVAL: Duration = Duration::from_millis(20);
/// SQLITE_BUSY.
const BUSY: &str = "5";

/// Readers, the revocation log's reader, and the writer.
pub(super) async fn pools(path: &Path) -> Result<[SqlitePool; 3], OpenError> {
    let pool = |connections| {
        SqlitePoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
    };
    let writer = pool(1).connect_with(options(path)).await?;
    let reading = options(path).pragma("query_only", "ON");
    let readers = pool(READERS).connect_with(reading.clone()).await?;
    let log_reader = pool(1).connect_with(reading).await?;
    Ok([readers, log_reader, writer])
}

/// How a connection is made.
pub(super) fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        // An acknowledged ban survives a power cut only if its commit reached the disk.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        .disable_statement_logging()
}

/// The first connection of a process. It may change how the journal is kept, for which it needs the file
/// for itself, and SQLite does not wait for that whatever its busy timeout says.
pub(super) async fn first_connection(path: &Path) -> Result<SqliteConnection, sqlx::Error> {
    let start = Instant::now();
    loop {
        let connected = options(path).connect().await;
        let is_busy =
            matches!(&connected, Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(BUSY));
        if !is_busy || start.elapsed() > BUSY_TIMEOUT {
            return connected;
        }
        tokio::time::sleep(BUSY_INTERVAL).await;
    }
}

/// Makes the file for its owner only; SQLite gives its companions (-wal, -shm) the same mode.
pub(super) fn private_file(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    match fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
    {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use crate::database_config::DatabaseConfig;
    use crate::random;
    use crate::store::Store;
    use crate::store::statement::query;

    #[tokio::test]
    async fn commits_reach_the_disk_and_readers_cannot_write() {
        let folder = std::env::temp_dir().join(format!("durward-store-{}", random::token_id()));
        let config = DatabaseConfig::Sqlite(folder.join("auth.db"));
        let store = Store::open(&config).await.unwrap();
        let mut write = store.write().await.unwrap();
        for (pragma, wanted) in [("PRAGMA synchronous", 2), ("PRAGMA foreign_keys", 1)] {
            let value: i64 = query(pragma).scalar(write.connection()).await.unwrap();
            assert_eq!(value, wanted, "{pragma}");
        }
        drop(write);
        let mut read = store.read().await.unwrap();
        let refused = query("UPDATE users SET epoch = 0").execute(&mut read).await;
        assert!(refused.is_err());
        drop(read);
        store.close().await;
        std::fs::remove_dir_all(folder).unwrap();
    }
}
