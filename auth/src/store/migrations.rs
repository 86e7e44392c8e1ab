//! Bringing the database up to date.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use sqlx::migrate::{AppliedMigration, Migrate, MigrateError, MigrationType, Migrator};
use sqlx::{ConnectOptions, Connection as _, PgConnection, SqlSafeStr, SqliteConnection};
use tokio::time::timeout;

use super::{ACQUIRE_TIMEOUT, OpenError, postgres, sqlite};
use crate::database_config::{DatabaseConfig, PostgresConfig};

/// Embeds the files of these names, of which each database has its own.
macro_rules! migrations {
    ($($file:literal),+ $(,)?) => {
        static FOR_SQLITE: LazyLock<Migrator> = LazyLock::new(|| {
            migrator([$(($file, include_str!(concat!("../../migrations/sqlite/", $file, ".sql")))),+])
        });
        static FOR_POSTGRES: LazyLock<Migrator> = LazyLock::new(|| {
            migrator([$(($file, include_str!(concat!("../../migrations/postgres/", $file, ".sql")))),+])
        });
    };
}

migrations! {
    "0001_foundation",
    "0002_log_id",
    "0003_api_keys",
    "0004_revocation_runs",
    "0005_certificate_grants",
}

/// How long a process waits for another one that is bringing the same database up to date, and how
/// long any statement of it may take.
const TIMEOUT: &str = "120s";

/// A change of the schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    /// Its number.
    pub version: i64,
    /// What it is about.
    pub description: String,
}

impl fmt::Display for Migration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04} {}", self.version, self.description)
    }
}

/// Applies what is pending, and returns it. Of several processes that start together one does it,
/// and the others wait and find it done.
pub(crate) async fn migrate(config: &DatabaseConfig) -> Result<Vec<Migration>, OpenError> {
    match config {
        DatabaseConfig::Sqlite(path) => {
            sqlite::private_file(path).map_err(OpenError::File)?;
            let mut connection = sqlite::first_connection(path).await?;
            let applied = migrate_sqlite(&mut connection).await;
            connection.close().await?;
            applied
        }
        DatabaseConfig::Postgres(server) => {
            let mut connection = connect(server).await?;
            postgres::check_server(&mut connection).await?;
            let applied = migrate_postgres(&mut connection).await;
            // Where it failed, the lock goes with the connection.
            connection.close().await?;
            applied
        }
    }
}

/// What `migrate` would apply. Changes nothing.
pub(crate) async fn pending(config: &DatabaseConfig) -> Result<Vec<Migration>, OpenError> {
    match config {
        DatabaseConfig::Sqlite(path) => pending_of_file(path).await,
        DatabaseConfig::Postgres(server) => {
            let mut connection = connect(server).await?;
            postgres::check_server(&mut connection).await?;
            let is_new: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NULL")
                .fetch_one(&mut connection)
                .await?;
            let pending = pending_on(&FOR_POSTGRES, &mut connection, is_new).await;
            connection.close().await?;
            pending
        }
    }
}

/// What sqlx's own macro would embed, which takes a tenth of the project's crates to compile.
fn migrator<const N: usize>(files: [(&str, &'static str); N]) -> Migrator {
    let migration = |(name, sql): (&str, &'static str)| {
        let (version, description) = name.split_once('_').unwrap_or((name, ""));
        let version = version.parse().unwrap_or_default();
        let description = description.replace('_', " ").into();
        sqlx::migrate::Migration::new(
            version,
            description,
            MigrationType::Simple,
            sql.into_sql_str(),
            false,
        )
    };
    Migrator::with_migrations(files.map(migration).into())
}

async fn migrate_sqlite(connection: &mut SqliteConnection) -> Result<Vec<Migration>, OpenError> {
    // The write lock, from the first look to the end.
    let mut all = connection.begin_with("BEGIN IMMEDIATE").await?;
    let before = ensured(&FOR_SQLITE, &mut *all).await?;
    FOR_SQLITE
        .run_direct(None, &mut *all, false)
        .await
        .map_err(plainly)?;
    all.commit().await?;
    Ok(missing_from(&FOR_SQLITE, &before))
}

async fn migrate_postgres(connection: &mut PgConnection) -> Result<Vec<Migration>, OpenError> {
    // Held around both steps, and taken a second time by the migrator itself: who waited for it
    // finds nothing left to apply, and reports nothing.
    connection.lock().await.map_err(plainly)?;
    let before = ensured(&FOR_POSTGRES, connection).await?;
    FOR_POSTGRES
        .run_direct(None, connection, false)
        .await
        .map_err(plainly)?;
    connection.unlock().await.map_err(plainly)?;
    Ok(missing_from(&FOR_POSTGRES, &before))
}

async fn pending_of_file(path: &Path) -> Result<Vec<Migration>, OpenError> {
    if !path.try_exists().map_err(OpenError::File)? {
        return Ok(missing_from(&FOR_SQLITE, &[]));
    }
    let mut connection = sqlite::options(path).read_only(true).connect().await?;
    let is_new: bool =
        sqlx::query_scalar("SELECT NOT EXISTS (SELECT 1 FROM sqlite_master WHERE name = '_sqlx_migrations')")
            .fetch_one(&mut connection)
            .await?;
    let pending = pending_on(&FOR_SQLITE, &mut connection, is_new).await;
    connection.close().await?;
    pending
}

/// A connection for nothing but this, with limits that suit a large table.
async fn connect(server: &PostgresConfig) -> Result<PgConnection, OpenError> {
    let options =
        postgres::options(server)?.options([("statement_timeout", TIMEOUT), ("lock_timeout", TIMEOUT)]);
    let limit = ACQUIRE_TIMEOUT + Duration::from_secs(5);
    match timeout(limit, options.connect()).await {
        Ok(connection) => Ok(connection?),
        Err(_) => Err(OpenError::Sql(sqlx::Error::PoolTimedOut)),
    }
}

async fn ensured<C: Migrate>(
    known: &Migrator,
    connection: &mut C,
) -> Result<Vec<AppliedMigration>, OpenError> {
    connection
        .ensure_migrations_table(&known.table_name)
        .await
        .map_err(plainly)?;
    connection
        .list_applied_migrations(&known.table_name)
        .await
        .map_err(plainly)
}

async fn pending_on<C: Migrate>(
    known: &Migrator,
    connection: &mut C,
    is_new: bool,
) -> Result<Vec<Migration>, OpenError> {
    if is_new {
        return Ok(missing_from(known, &[]));
    }
    if let Some(version) = connection
        .dirty_version(&known.table_name)
        .await
        .map_err(plainly)?
    {
        return Err(plainly(MigrateError::Dirty(version)));
    }
    let applied = connection
        .list_applied_migrations(&known.table_name)
        .await
        .map_err(plainly)?;
    for there in &applied {
        match known.iter().find(|migration| migration.version == there.version) {
            None => return Err(OpenError::Newer(there.version)),
            Some(same) if same.checksum != there.checksum => return Err(OpenError::Altered(there.version)),
            Some(_) => {}
        }
    }
    Ok(missing_from(known, &applied))
}

fn missing_from(known: &Migrator, applied: &[AppliedMigration]) -> Vec<Migration> {
    let there: BTreeSet<i64> = applied.iter().map(|migration| migration.version).collect();
    known
        .iter()
        .filter(|migration| !there.contains(&migration.version))
        .map(|migration| Migration {
            version: migration.version,
            description: migration.description.clone().into_owned(),
        })
        .collect()
}

fn plainly(error: MigrateError) -> OpenError {
    match error {
        MigrateError::VersionMissing(version) => OpenError::Newer(version),
        MigrateError::VersionMismatch(version) => OpenError::Altered(version),
        other => OpenError::Migrate(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random;

    /// SHA-384 of the first migration as it was released: a database that it made must still open.
    const FOUNDATION: &str =
        "52ec28ed24cfdeb15bc9f290494362e69fdafe4096f80beade99c85be7c7836c484c412b3289874daa48fd7dd8021293";

    #[tokio::test]
    async fn a_database_of_the_first_version_is_brought_up_to_date() {
        let folder = std::env::temp_dir().join(format!("durward-migrations-{}", random::token_id()));
        let path = folder.join("auth.db");
        sqlite::private_file(&path).unwrap();
        let mut connection = sqlite::options(&path).connect().await.unwrap();
        FOR_SQLITE.run_to(1, &mut connection).await.unwrap();
        let applied = connection
            .list_applied_migrations(&FOR_SQLITE.table_name)
            .await
            .unwrap();
        let hex: String = applied[0]
            .checksum
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!((applied.len(), hex.as_str()), (1, FOUNDATION));
        sqlx::query("UPDATE revocation_head SET sequence = 7")
            .execute(&mut connection)
            .await
            .unwrap();
        connection.close().await.unwrap();

        let config = DatabaseConfig::Sqlite(path.clone());
        let applied = migrate(&config).await.unwrap();
        assert_eq!(applied.len(), FOR_SQLITE.iter().count() - 1);
        assert_eq!(applied[0].to_string(), "0002 log id");
        let mut connection = sqlite::options(&path).connect().await.unwrap();
        let (sequence, log_id): (i64, String) =
            sqlx::query_as("SELECT sequence, log_id FROM revocation_head")
                .fetch_one(&mut connection)
                .await
                .unwrap();
        assert_eq!((sequence, log_id.len()), (7, 32));
        connection.close().await.unwrap();
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[tokio::test]
    async fn every_file_is_a_migration() {
        for (folder, embedded) in [("sqlite", &FOR_SQLITE), ("postgres", &FOR_POSTGRES)] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("migrations")
                .join(folder);
            let files = Migrator::new(folder.as_path()).await.unwrap();
            let known = |migrator: &Migrator| -> Vec<_> {
                let migrations = migrator.iter();
                migrations
                    .map(|of| {
                        let checksum = of.checksum.to_vec();
                        (
                            of.version,
                            of.description.to_string(),
                            of.migration_type,
                            checksum,
                        )
                    })
                    .collect()
            };
            assert_eq!(known(embedded), known(&files));
        }
    }
}
