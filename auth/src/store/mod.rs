//! The database. All SQL is below this module; what is above speaks of users, sessions and tokens.
//!
//! SQLite in WAL mode for one process, PostgreSQL for several. Statements use `$1` parameters and
//! the SQL that both share (`statement.rs`).
//!
//! On PostgreSQL many transactions write at once. What one decides by must not change before it
//! commits, so it locks rows, always in this order: the user's row ([`users::lock`] and
//! [`users::lock_by_username`]; several in the order of their ids), then what belongs to the user,
//! then the log's head, which [`Write::commit`] does at the very end. Who has a user's row has all
//! of the user's roles, sessions and tokens. Only the purge goes another way, and it waits for
//! nobody: rows that are locked it leaves for the next time.

pub(crate) mod api_keys;
pub(crate) mod audit;
mod connection;
mod migrations;
mod postgres;
pub(crate) mod purge;
pub(crate) mod refresh_tokens;
pub(crate) mod revocations;
pub(crate) mod selections;
pub(crate) mod sessions;
mod sqlite;
mod statement;
pub(crate) mod users;

use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use durward_contract::News;
use sqlx::{PgPool, SqlitePool};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::database_config::DatabaseConfig;
use connection::{Backend, PostgresConnection, Purpose};

pub(crate) use connection::Connection;
pub use migrations::Migration;
pub(crate) use migrations::{migrate, pending};

/// Writes that wait for their turn; the next one is refused.
const MAX_WAITING_WRITES: usize = 1024;
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
    /// The server did not answer in time. What it was asked for may have happened.
    #[error("the database does not answer")]
    Silent,
    /// A transaction cannot be committed, because a part of it was not done.
    #[error("a part of the transaction was not done")]
    Aborted,
    /// A row holds what no version of this program wrote.
    #[error("the database holds an unknown {0}")]
    Corrupt(&'static str),
}

impl StoreError {
    /// Whether a row was refused because there is another one that it may not be beside.
    pub fn is_unique_violation(&self) -> bool {
        matches!(self, Self::Sql(sqlx::Error::Database(error)) if error.is_unique_violation())
    }
}

/// Why the database could not be opened or brought up to date.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("cannot make the file: {0}")]
    File(io::Error),
    #[error("auth.database_password: {0}")]
    Password(String),
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    #[error("PostgreSQL {0} is too old: {1} or later is needed")]
    TooOld(String, u32),
    #[error(
        "a newer version of Durward has brought the database up to migration {0}, which this one does not know"
    )]
    Newer(i64),
    #[error("migration {0} of the database is not the one of this version")]
    Altered(i64),
    #[error("cannot bring it up to date: {0}")]
    Migrate(sqlx::migrate::MigrateError),
}

/// The database.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    readers: Pool,
    /// For the revocation log alone: no number of other readers keeps attestations waiting.
    log_reader: Pool,
    writers: Pool,
    waiting: Arc<Semaphore>,
}

/// Connections of one kind.
#[derive(Clone, Debug)]
enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// A transaction whose reads all see the same state.
#[derive(Debug)]
pub(crate) struct Snapshot(Connection);

/// A transaction that writes, with the news that it will have made once committed.
#[derive(Debug)]
pub(crate) struct Write {
    connection: Connection,
    /// What the log will say once the transaction is committed.
    pending: Vec<revocations::Pending>,
    _place: OwnedSemaphorePermit,
}

/// A transaction that has taken its numbers in the log: what is left to do is to commit it.
#[derive(Debug)]
pub(crate) struct Ready {
    connection: Connection,
    pub news: Vec<News>,
    _place: OwnedSemaphorePermit,
}

impl Store {
    /// Opens the database, makes it where there is none, and brings it up to date.
    pub async fn open(config: &DatabaseConfig) -> Result<Self, OpenError> {
        for applied in migrate(config).await? {
            tracing::info!(migration = %applied, "the database was brought up to date");
        }
        let [readers, log_reader, writers] = match config {
            DatabaseConfig::Sqlite(path) => sqlite::pools(path).await?.map(Pool::Sqlite),
            DatabaseConfig::Postgres(server) => postgres::pools(server).await?.map(Pool::Postgres),
        };
        Ok(Self {
            readers,
            log_reader,
            writers,
            waiting: Arc::new(Semaphore::new(MAX_WAITING_WRITES)),
        })
    }

    /// A connection for single reads.
    pub async fn read(&self) -> Result<Connection, StoreError> {
        self.readers.acquire().await
    }

    /// A transaction whose reads all see the same state.
    pub async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        Ok(Snapshot(self.readers.begin(Purpose::Snapshot).await?))
    }

    /// The same, on the revocation log's own connection.
    pub async fn log_snapshot(&self) -> Result<Snapshot, StoreError> {
        Ok(Snapshot(self.log_reader.begin(Purpose::Snapshot).await?))
    }

    /// A transaction that writes. On SQLite, what it reads cannot change before it commits; on
    /// PostgreSQL that holds for the rows that it locks.
    pub async fn write(&self) -> Result<Write, StoreError> {
        let place = Arc::clone(&self.waiting)
            .try_acquire_owned()
            .map_err(|_| StoreError::QueueFull)?;
        Ok(Write {
            connection: self.writers.begin(Purpose::Write).await?,
            pending: Vec::new(),
            _place: place,
        })
    }

    /// Closes all connections; SQLite's last one writes the WAL back into the database.
    pub async fn close(&self) {
        self.readers.close().await;
        self.log_reader.close().await;
        self.writers.close().await;
    }
}

impl Pool {
    async fn acquire(&self) -> Result<Connection, StoreError> {
        Ok(Connection(match self {
            Self::Sqlite(pool) => Backend::Sqlite(pool.acquire().await?),
            Self::Postgres(pool) => Backend::Postgres(PostgresConnection::new(pool.acquire().await?)),
        }))
    }

    async fn begin(&self, purpose: Purpose) -> Result<Connection, StoreError> {
        Ok(Connection(match (self, purpose) {
            (Self::Sqlite(pool), Purpose::Snapshot) => Backend::SqliteTransaction(pool.begin().await?),
            (Self::Sqlite(pool), Purpose::Write) => {
                Backend::SqliteTransaction(pool.begin_with("BEGIN IMMEDIATE").await?)
            }
            (Self::Postgres(pool), _) => {
                let mut connection = PostgresConnection::new(pool.acquire().await?);
                connection.begin(purpose).await?;
                Backend::Postgres(connection)
            }
        }))
    }

    async fn close(&self) {
        match self {
            Self::Sqlite(pool) => pool.close().await,
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

impl Deref for Snapshot {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0
    }
}

impl DerefMut for Snapshot {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.0
    }
}

impl Write {
    /// The connection that the transaction runs on.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Commits where nothing was revoked. What revokes is committed by the revocation log.
    pub async fn commit_without_news(self) -> Result<(), StoreError> {
        if !self.pending.is_empty() {
            return Err(StoreError::Aborted);
        }
        self.connection.commit().await
    }

    /// Takes numbers in the log for what is pending. From here until the commit the log's head is
    /// locked, and every other transaction that revokes waits: this is the last step before it.
    pub async fn take_numbers(mut self) -> Result<Ready, StoreError> {
        Ok(Ready {
            news: revocations::write(&mut self.connection, self.pending).await?,
            connection: self.connection,
            _place: self._place,
        })
    }
}

impl Ready {
    /// Commits. An error leaves open whether it was committed.
    pub async fn commit(self) -> Result<Vec<News>, StoreError> {
        self.connection.commit().await?;
        Ok(self.news)
    }
}
