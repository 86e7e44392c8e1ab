//! A connection to either database, in a transaction or out of one.
//!
//! What SQLite does with files and PostgreSQL over a network is told apart here, so that the
//! statements need not: [`Dialect`] is all that they see of it.

use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{Postgres, Sqlite, Transaction};
use tokio::time::timeout;

use super::StoreError;

/// How long one statement may take before its connection is given up. The server's own limit
/// (`statement_timeout`) is shorter; this one is for a server that cannot be reached any more.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a commit may take. Its outcome is unknown then, and it is not acknowledged.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection, in a transaction or out of one. A transaction that is dropped is rolled back.
#[derive(Debug)]
pub(crate) struct Connection(pub(super) Backend);

#[derive(Debug)]
pub(super) enum Backend {
    Sqlite(PoolConnection<Sqlite>),
    SqliteTransaction(Transaction<'static, Sqlite>),
    Postgres(PostgresConnection),
}

/// What a transaction is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// All its reads see the same state.
    Snapshot,
    /// It writes. On SQLite it holds the one write lock from its beginning. On PostgreSQL it sees
    /// what others commit meanwhile, and locks the rows that its decisions rest on.
    Write,
}

/// Where the SQL of the two differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Sqlite,
    Postgres,
}

impl Dialect {
    /// Locks the rows that a query returns until the transaction ends, after waiting for whoever
    /// has them locked.
    pub const fn for_update(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres => " FOR UPDATE",
        }
    }

    /// The same, but leaves out rows that others have locked.
    pub const fn for_update_skip_locked(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres => " FOR UPDATE SKIP LOCKED",
        }
    }

    /// Locks every row of `users` there is and any that would be added, after waiting for whoever has
    /// one locked. Reading goes on.
    pub const fn lock_all_users(self) -> Option<&'static str> {
        match self {
            Self::Sqlite => None,
            Self::Postgres => Some("LOCK TABLE users IN EXCLUSIVE MODE"),
        }
    }

    /// To be run before a commit that is acknowledged. A commit that waits for a standby and runs
    /// into a limit is reported as done, although the standby may not have it; this process's own
    /// limit reports nothing as done.
    pub const fn commit_without_time_limit(self) -> Option<&'static str> {
        match self {
            Self::Sqlite => None,
            Self::Postgres => Some("SET LOCAL statement_timeout = 0"),
        }
    }
}

impl Connection {
    pub(super) fn dialect(&self) -> Dialect {
        match &self.0 {
            Backend::Sqlite(_) | Backend::SqliteTransaction(_) => Dialect::Sqlite,
            Backend::Postgres(_) => Dialect::Postgres,
        }
    }

    /// Commits the transaction. An error leaves open whether it was committed.
    pub(super) async fn commit(self) -> Result<(), StoreError> {
        match self.0 {
            Backend::Sqlite(_) => Ok(()),
            Backend::SqliteTransaction(transaction) => Ok(transaction.commit().await?),
            Backend::Postgres(connection) => connection.commit().await,
        }
    }
}

/// A connection to PostgreSQL. One on which a statement was given up, by a timeout or because
/// nobody waits for it any more, is closed instead of going back to the pool: what its server
/// still says would be taken for the answer to something else, or never come.
#[derive(Debug)]
pub(super) struct PostgresConnection {
    /// There until it is dropped.
    inner: Option<PoolConnection<Postgres>>,
    in_transaction: bool,
    calling: bool,
    failed: bool,
}

impl PostgresConnection {
    pub fn new(inner: PoolConnection<Postgres>) -> Self {
        Self {
            inner: Some(inner),
            in_transaction: false,
            calling: false,
            failed: false,
        }
    }

    pub async fn begin(&mut self, purpose: Purpose) -> Result<(), StoreError> {
        // Named, so that no default of the server's decides what a transaction sees.
        let statement = match purpose {
            Purpose::Snapshot => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
            Purpose::Write => "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",
        };
        self.in_transaction = true;
        self.control(statement, CALL_TIMEOUT).await
    }

    /// Runs one statement within its time.
    pub async fn call<T>(
        &mut self,
        statement: impl AsyncFnOnce(&mut sqlx::PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, StoreError> {
        self.call_within(CALL_TIMEOUT, statement).await
    }

    /// A transaction in which a statement failed is not committed: PostgreSQL would roll it back
    /// and report no error.
    async fn commit(mut self) -> Result<(), StoreError> {
        if self.failed {
            return Err(StoreError::Aborted);
        }
        if self.in_transaction {
            self.control("COMMIT", COMMIT_TIMEOUT).await?;
            self.in_transaction = false;
        }
        Ok(())
    }

    async fn control(&mut self, statement: &'static str, limit: Duration) -> Result<(), StoreError> {
        self.call_within(limit, async |connection| {
            sqlx::raw_sql(statement).execute(connection).await.map(drop)
        })
        .await
    }

    async fn call_within<T>(
        &mut self,
        limit: Duration,
        statement: impl AsyncFnOnce(&mut sqlx::PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, StoreError> {
        let Some(connection) = self.inner.as_mut() else {
            return Err(StoreError::Sql(sqlx::Error::PoolClosed));
        };
        self.calling = true;
        let Ok(result) = timeout(limit, statement(connection)).await else {
            return Err(StoreError::Silent);
        };
        self.calling = false;
        self.failed |= result.is_err();
        Ok(result?)
    }
}

impl Drop for PostgresConnection {
    fn drop(&mut self) {
        let Some(mut connection) = self.inner.take() else {
            return;
        };
        if self.calling {
            connection.close_on_drop();
        } else if self.in_transaction {
            // Until the server has heard of it, others wait for what the transaction locked.
            tokio::spawn(async move {
                let rollback = sqlx::raw_sql("ROLLBACK").execute(&mut *connection);
                if !matches!(timeout(CALL_TIMEOUT, rollback).await, Ok(Ok(_))) {
                    connection.close_on_drop();
                }
            });
        }
    }
}
