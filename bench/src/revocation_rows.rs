//! Fills the auth service's revocation log while the service is down.

use std::path::Path;

use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;

use crate::Fallible;
use crate::clock::unix_seconds;

/// How long the entries matter, in seconds: longer than any benchmark.
const LIFETIME: i64 = 24 * 3600;

/// Appends `count` entries of the issuer in one transaction: half of them end sessions, the others
/// raise users' epochs, none of which exists. So every request asks the mirror, and misses.
pub fn append(database: &Path, issuer: &str, count: u64) -> Fallible<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut connection = SqliteConnectOptions::new().filename(database).connect().await?;
        let mut transaction = sqlx::Connection::begin(&mut connection).await?;
        let now = unix_seconds();
        let inserted = sqlx::query(
            "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < $1)
             INSERT INTO revocations
                 (sequence, issuer, target_kind, target_id, bar_kind, bar_value, forget_at, created_at)
             SELECT head.sequence + n, $2,
                    CASE n % 2 WHEN 0 THEN 'session' ELSE 'user' END,
                    CASE n % 2 WHEN 0 THEN 's_' ELSE 'u_' END || lower(hex(randomblob(16))),
                    CASE n % 2 WHEN 0 THEN 'always' ELSE 'epoch_below' END,
                    CASE n % 2 WHEN 0 THEN NULL ELSE 1 + n % 5 END,
                    $3 + $4, $3
             FROM numbers, revocation_head AS head WHERE head.id = 1",
        )
        .bind(i64::try_from(count)?)
        .bind(issuer)
        .bind(now)
        .bind(LIFETIME)
        .execute(&mut *transaction)
        .await?;
        if inserted.rows_affected() != count {
            return Err(format!("{} rows instead of {count}", inserted.rows_affected()).into());
        }
        sqlx::query("UPDATE revocation_head SET sequence = sequence + $1 WHERE id = 1")
            .bind(i64::try_from(count)?)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(sqlx::Connection::close(connection).await?)
    })
}
