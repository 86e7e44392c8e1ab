//! Statements that both databases understand: `$1` parameters, and the types that they share.

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query as SqlxQuery;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Decode, Postgres, Row as _, SqlSafeStr, SqlStr, Sqlite, Type};

use super::StoreError;
use super::connection::{Backend, Connection};

/// Rows that one statement writes or names at most. With eight parameters a row that is far below the
/// 32,766 of SQLite and the 65,535 of PostgreSQL.
pub(super) const BATCH: usize = 500;

/// A statement in the making.
pub(super) fn query(sql: impl SqlSafeStr) -> Query {
    Query {
        sql: sql.into_sql_str(),
        values: Vec::new(),
    }
}

/// `$first, $first+1, …`: the places of `count` parameters.
pub(super) fn places(first: usize, count: usize) -> String {
    let places: Vec<String> = (first..first + count).map(|place| format!("${place}")).collect();
    places.join(", ")
}

/// A statement and its parameters.
#[derive(Debug)]
pub(super) struct Query {
    sql: SqlStr,
    values: Vec<Value>,
}

/// A parameter.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Integer(Option<i64>),
    Text(Option<String>),
    Bytes(Option<Vec<u8>>),
}

/// A row of either database.
#[derive(Debug)]
pub(super) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

/// What a column can be read as.
pub(super) trait Column:
    for<'r> Decode<'r, Sqlite> + Type<Sqlite> + for<'r> Decode<'r, Postgres> + Type<Postgres> + Send + Unpin
{
}

impl<T> Column for T where
    T: for<'r> Decode<'r, Sqlite>
        + Type<Sqlite>
        + for<'r> Decode<'r, Postgres>
        + Type<Postgres>
        + Send
        + Unpin
{
}

/// Runs a bound statement on whatever connection it is, and wraps what comes back.
macro_rules! on {
    ($query:ident, $connection:ident, $method:ident, $result:ident => $sqlite:expr, $postgres:expr) => {
        match &mut $connection.0 {
            Backend::Sqlite(connection) => {
                let $result = $query.for_sqlite().$method(&mut **connection).await?;
                Ok($sqlite)
            }
            Backend::SqliteTransaction(transaction) => {
                let $result = $query.for_sqlite().$method(&mut **transaction).await?;
                Ok($sqlite)
            }
            Backend::Postgres(connection) => {
                let statement = $query.for_postgres();
                let $result = connection
                    .call(async |connection| statement.$method(connection).await)
                    .await?;
                Ok($postgres)
            }
        }
    };
}

impl Query {
    /// Adds the next parameters.
    pub fn bind_all<'a>(self, values: impl IntoIterator<Item = &'a String>) -> Self {
        values.into_iter().fold(self, Self::bind)
    }

    /// Adds the next parameter.
    pub fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Runs it and returns how many rows it changed.
    pub async fn execute(self, connection: &mut Connection) -> Result<u64, StoreError> {
        on!(self, connection, execute, done => done.rows_affected(), done.rows_affected())
    }

    /// The first row, where there is any.
    pub async fn fetch_optional(self, connection: &mut Connection) -> Result<Option<Row>, StoreError> {
        on!(self, connection, fetch_optional, row => row.map(Row::Sqlite), row.map(Row::Postgres))
    }

    /// Every row.
    pub async fn fetch_all(self, connection: &mut Connection) -> Result<Vec<Row>, StoreError> {
        on!(self, connection, fetch_all, rows =>
            rows.into_iter().map(Row::Sqlite).collect(),
            rows.into_iter().map(Row::Postgres).collect())
    }

    /// The row that there always is.
    pub async fn fetch_one(self, connection: &mut Connection) -> Result<Row, StoreError> {
        let row = self.fetch_optional(connection).await?;
        row.ok_or(StoreError::Sql(sqlx::Error::RowNotFound))
    }

    /// The first column of the row that there always is.
    pub async fn scalar<T: Column>(self, connection: &mut Connection) -> Result<T, StoreError> {
        self.fetch_one(connection).await?.at(0)
    }

    /// The first column of the first row, where there is any.
    pub async fn scalar_optional<T: Column>(
        self,
        connection: &mut Connection,
    ) -> Result<Option<T>, StoreError> {
        let row = self.fetch_optional(connection).await?;
        row.map(|row| row.at(0)).transpose()
    }

    fn for_sqlite(self) -> SqlxQuery<'static, Sqlite, SqliteArguments> {
        self.values
            .into_iter()
            .fold(sqlx::query(self.sql), |query, value| match value {
                Value::Integer(value) => query.bind(value),
                Value::Text(value) => query.bind(value),
                Value::Bytes(value) => query.bind(value),
            })
    }

    fn for_postgres(self) -> SqlxQuery<'static, Postgres, PgArguments> {
        self.values
            .into_iter()
            .fold(sqlx::query(self.sql), |query, value| match value {
                Value::Integer(value) => query.bind(value),
                Value::Text(value) => query.bind(value),
                Value::Bytes(value) => query.bind(value),
            })
    }
}

impl Row {
    /// The column of this name.
    pub fn get<T: Column>(&self, name: &str) -> Result<T, StoreError> {
        Ok(match self {
            Self::Sqlite(row) => row.try_get(name)?,
            Self::Postgres(row) => row.try_get(name)?,
        })
    }

    /// The column at this place.
    pub fn at<T: Column>(&self, index: usize) -> Result<T, StoreError> {
        Ok(match self {
            Self::Sqlite(row) => row.try_get(index)?,
            Self::Postgres(row) => row.try_get(index)?,
        })
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Integer(Some(value))
    }
}

impl From<Option<i64>> for Value {
    fn from(value: Option<i64>) -> Self {
        Self::Integer(value)
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Integer(Some(value.into()))
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(Some(value.to_owned()))
    }
}

impl From<&String> for Value {
    fn from(value: &String) -> Self {
        value.as_str().into()
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(Some(value))
    }
}

impl From<Option<&str>> for Value {
    fn from(value: Option<&str>) -> Self {
        Self::Text(value.map(str::to_owned))
    }
}

impl From<&[u8]> for Value {
    fn from(value: &[u8]) -> Self {
        Self::Bytes(Some(value.to_vec()))
    }
}

impl From<Option<&[u8]>> for Value {
    fn from(value: Option<&[u8]>) -> Self {
        Self::Bytes(value.map(<[u8]>::to_vec))
    }
}
