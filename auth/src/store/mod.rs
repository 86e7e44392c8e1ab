//! The database. All SQL is below this module; what is above speaks of users, sessions and tokens.
//!
//! SQLite in WAL mode: one connection writes, some read. Statements use `$1` parameters and the SQL
//! that SQLite and PostgreSQL share.

pub(crate) mod audit;
pub(crate) mod purge;
pub(crate) mod refresh_tokens;
pub(crate) mod revocations;
pub(crate) mod sessions;
pub(crate) mod users;

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use durward_contract::News;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Sqlite, SqlitePool, Transaction};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A connection, in a transaction or out of one.
pub(crate) type Connection = sqlx::SqliteConnection;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

const READERS: u32 = 4;
/// Writes that wait for their turn; the next one is refused.
const MAX_WAITING_WRITES: usize = 1024;
/// How long SQLite waits for a lock that another process holds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a call waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the database did not do it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// Too many writes wait already.
    #[error("too many writes are waiting")]
    QueueFull,
    /// The database's own error. It names statements and constraints, never values.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    /// A row holds what no version of this program wrote.
    #[error("the database holds an unknown {0}")]
    Corrupt(&'static str),
}

/// The database.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    readers: SqlitePool,
    /// For the revocation log alone: no number of other readers keeps attestations waiting.
    log_reader: SqlitePool,
    writer: SqlitePool,
    waiting: Arc<Semaphore>,
}

/// A transaction that writes, with the news that it will have made once committed.
#[derive(Debug)]
pub(crate) struct Write {
    transaction: Transaction<'static, Sqlite>,
    news: Vec<News>,
    _place: OwnedSemaphorePermit,
}

impl Store {
    /// Opens the database, makes it where there is none, and brings it up to date.
    pub async fn open(path: &Path) -> Result<Self, OpenError> {
        private_file(path).map_err(OpenError::File)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            // An acknowledged ban survives a power cut only if its commit reached the disk.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT)
            .disable_statement_logging();
        let pool = |connections| {
            SqlitePoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(ACQUIRE_TIMEOUT)
                .idle_timeout(None)
                .max_lifetime(None)
                .test_before_acquire(false)
        };
        let writer = pool(1).connect_with(options.clone()).await?;
        MIGRATIONS.run(&writer).await?;
        let reading = options.pragma("query_only", "ON");
        let readers = pool(READERS).connect_with(reading.clone()).await?;
        let log_reader = pool(1).connect_with(reading).await?;
        Ok(Self {
            readers,
            log_reader,
            writer,
            waiting: Arc::new(Semaphore::new(MAX_WAITING_WRITES)),
        })
    }

    /// A connection for single reads.
    pub async fn read(&self) -> Result<PoolConnection<Sqlite>, StoreError> {
        Ok(self.readers.acquire().await?)
    }

    /// A transaction whose reads all see the same state.
    pub async fn snapshot(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        Ok(self.readers.begin().await?)
    }

    /// The same, on the revocation log's own connection.
    pub async fn log_snapshot(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        Ok(self.log_reader.begin().await?)
    }

    /// A transaction that writes. It holds the write lock from its first statement on, so what it
    /// reads cannot change before it commits.
    pub async fn write(&self) -> Result<Write, StoreError> {
        let place = Arc::clone(&self.waiting)
            .try_acquire_owned()
            .map_err(|_| StoreError::QueueFull)?;
        let transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        Ok(Write {
            transaction,
            news: Vec::new(),
            _place: place,
        })
    }

    /// Closes all connections; the last one writes the WAL back into the database.
    pub async fn close(&self) {
        self.readers.close().await;
        self.log_reader.close().await;
        self.writer.close().await;
    }
}

impl Write {
    /// The connection that the transaction runs on.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.transaction
    }

    /// Commits where nothing was revoked. What revokes is committed by the revocation log.
    pub async fn commit_without_news(self) -> Result<(), StoreError> {
        debug_assert!(self.news.is_empty(), "news goes through the revocation log");
        Ok(self.transaction.commit().await?)
    }

    /// The transaction and its news, for the revocation log.
    pub fn into_parts(self) -> (Transaction<'static, Sqlite>, Vec<News>) {
        (self.transaction, self.news)
    }
}

/// Why the database could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("cannot make the file: {0}")]
    File(io::Error),
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    #[error("cannot bring it up to date: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
}

/// Makes the file for its owner only; SQLite gives its companions (-wal, -shm) the same mode.
fn private_file(path: &Path) -> io::Result<()> {
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
    use super::Store;
    use crate::random;

    #[tokio::test]
    async fn commits_reach_the_disk_and_readers_cannot_write() {
        let folder = std::env::temp_dir().join(format!("durward-store-{}", random::token_id()));
        let store = Store::open(&folder.join("auth.db")).await.unwrap();
        let mut write = store.write().await.unwrap();
        for (pragma, wanted) in [("PRAGMA synchronous", 2), ("PRAGMA foreign_keys", 1)] {
            let value: i64 = sqlx::query_scalar(pragma)
                .fetch_one(write.connection())
                .await
                .unwrap();
            assert_eq!(value, wanted, "{pragma}");
        }
        drop(write);
        let mut read = store.read().await.unwrap();
        let refused = sqlx::query("UPDATE users SET epoch = 0")
            .execute(&mut *read)
            .await;
        assert!(refused.is_err());
        drop(read);
        store.close().await;
        std::fs::remove_dir_all(folder).unwrap();
    }
}
