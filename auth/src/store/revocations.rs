//! The revocation log's rows.

use durward_contract::{Bar, News, RevocationEntry, Sequence, Target, UnixSeconds, wire};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Connection, StoreError, Write};

/// Appends an entry. Updating the head row takes the next number and keeps it locked until the
/// transaction ends, so numbers are given in the order of commits and none is ever skipped.
pub(crate) async fn append(
    write: &mut Write,
    issuer: &str,
    target: Target,
    bar: Bar,
    forget_at: Option<UnixSeconds>,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    let sequence: i64 = sqlx::query_scalar(
        "UPDATE revocation_head SET sequence = sequence + 1 WHERE id = 1 RETURNING sequence",
    )
    .fetch_one(write.connection())
    .await?;
    let (target_kind, target_id) = wire::target_words(&target);
    let (bar_kind, bar_value) = wire::bar_words(bar);
    sqlx::query(
        "INSERT INTO revocations (sequence, issuer, target_kind, target_id, bar_kind, bar_value, forget_at, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(sequence)
    .bind(issuer)
    .bind(target_kind)
    .bind(target_id)
    .bind(bar_kind)
    .bind(bar_value)
    .bind(forget_at.map(|instant| instant.0))
    .bind(now.0)
    .execute(write.connection())
    .await?;
    let sequence = Sequence(u64::try_from(sequence).map_err(|_| StoreError::Corrupt("sequence"))?);
    write.news.push(News::Revocation(RevocationEntry {
        sequence,
        issuer: issuer.to_owned(),
        target,
        bar,
        forget_at,
    }));
    Ok(())
}

/// The log's head.
pub(crate) async fn head(connection: &mut Connection) -> Result<Sequence, StoreError> {
    let head: i64 = sqlx::query_scalar("SELECT sequence FROM revocation_head WHERE id = 1")
        .fetch_one(connection)
        .await?;
    Ok(Sequence(
        u64::try_from(head).map_err(|_| StoreError::Corrupt("sequence"))?,
    ))
}

/// The next entries after `sequence`, in order, at most `limit`.
pub(crate) async fn after(
    connection: &mut Connection,
    sequence: Sequence,
    limit: u32,
) -> Result<Vec<News>, StoreError> {
    sqlx::query(
        "SELECT sequence, issuer, target_kind, target_id, bar_kind, bar_value, forget_at FROM revocations
         WHERE sequence > $1 ORDER BY sequence LIMIT $2",
    )
    .bind(i64::try_from(sequence.0).unwrap_or(i64::MAX))
    .bind(i64::from(limit))
    .fetch_all(connection)
    .await?
    .into_iter()
    .map(entry)
    .collect()
}

/// The next entries after `sequence` that may not be forgotten yet, in order, at most `limit`.
pub(crate) async fn standing(
    connection: &mut Connection,
    sequence: Sequence,
    limit: u32,
    now: UnixSeconds,
) -> Result<Vec<News>, StoreError> {
    sqlx::query(
        "SELECT sequence, issuer, target_kind, target_id, bar_kind, bar_value, forget_at FROM revocations
         WHERE sequence > $1 AND (forget_at IS NULL OR forget_at > $3) ORDER BY sequence LIMIT $2",
    )
    .bind(i64::try_from(sequence.0).unwrap_or(i64::MAX))
    .bind(i64::from(limit))
    .bind(now.0)
    .fetch_all(connection)
    .await?
    .into_iter()
    .map(entry)
    .collect()
}

fn entry(row: SqliteRow) -> Result<News, StoreError> {
    let kind: &str = row.try_get("target_kind")?;
    let target = wire::target(kind, row.try_get("target_id")?)
        .map_err(|_| StoreError::Corrupt("revocation target"))?;
    let value: Option<i64> = row.try_get("bar_value")?;
    let bar = match (row.try_get::<&str, _>("bar_kind")?, value) {
        ("always", _) => Bar::Always,
        ("epoch_below", Some(epoch)) => {
            Bar::EpochBelow(u32::try_from(epoch).map_err(|_| StoreError::Corrupt("epoch"))?)
        }
        ("issued_at_or_before", Some(instant)) => Bar::IssuedAtOrBefore(UnixSeconds(instant)),
        _ => return Err(StoreError::Corrupt("revocation bar")),
    };
    let sequence: i64 = row.try_get("sequence")?;
    Ok(News::Revocation(RevocationEntry {
        sequence: Sequence(u64::try_from(sequence).map_err(|_| StoreError::Corrupt("sequence"))?),
        issuer: row.try_get("issuer")?,
        target,
        bar,
        forget_at: row.try_get::<Option<i64>, _>("forget_at")?.map(UnixSeconds),
    }))
}
