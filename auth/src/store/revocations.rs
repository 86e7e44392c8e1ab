//! The revocation log's rows.

use durward_contract::{Bar, RevocationEntry, Sequence, Target, UnixSeconds};
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
    let (target_kind, target_id) = target_columns(&target);
    let (bar_kind, bar_value) = bar_columns(bar);
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
    write.entries.push(RevocationEntry {
        sequence,
        issuer: issuer.to_owned(),
        target,
        bar,
        forget_at,
    });
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

/// The entries after `sequence`, in order.
pub(crate) async fn after(
    connection: &mut Connection,
    sequence: Sequence,
) -> Result<Vec<RevocationEntry>, StoreError> {
    sqlx::query(
        "SELECT sequence, issuer, target_kind, target_id, bar_kind, bar_value, forget_at FROM revocations
         WHERE sequence > $1 ORDER BY sequence",
    )
    .bind(i64::try_from(sequence.0).unwrap_or(i64::MAX))
    .fetch_all(connection)
    .await?
    .into_iter()
    .map(entry)
    .collect()
}

/// The entries that may not be forgotten yet.
pub(crate) async fn standing(
    connection: &mut Connection,
    now: UnixSeconds,
) -> Result<Vec<RevocationEntry>, StoreError> {
    sqlx::query(
        "SELECT sequence, issuer, target_kind, target_id, bar_kind, bar_value, forget_at FROM revocations
         WHERE forget_at IS NULL OR forget_at > $1 ORDER BY sequence",
    )
    .bind(now.0)
    .fetch_all(connection)
    .await?
    .into_iter()
    .map(entry)
    .collect()
}

fn target_columns(target: &Target) -> (&'static str, &str) {
    match target {
        Target::Token(id) => ("token", id),
        Target::Session(id) => ("session", id),
        Target::User(id) => ("user", id),
        Target::Client(id) => ("client", id),
        Target::Everyone => ("everyone", ""),
    }
}

fn bar_columns(bar: Bar) -> (&'static str, Option<i64>) {
    match bar {
        Bar::Always => ("always", None),
        Bar::EpochBelow(epoch) => ("epoch_below", Some(i64::from(epoch))),
        Bar::IssuedAtOrBefore(instant) => ("issued_at_or_before", Some(instant.0)),
    }
}

fn entry(row: SqliteRow) -> Result<RevocationEntry, StoreError> {
    let id: String = row.try_get("target_id")?;
    let target = match row.try_get::<&str, _>("target_kind")? {
        "token" => Target::Token(id),
        "session" => Target::Session(id),
        "user" => Target::User(id),
        "client" => Target::Client(id),
        "everyone" => Target::Everyone,
        _ => return Err(StoreError::Corrupt("revocation target")),
    };
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
    Ok(RevocationEntry {
        sequence: Sequence(u64::try_from(sequence).map_err(|_| StoreError::Corrupt("sequence"))?),
        issuer: row.try_get("issuer")?,
        target,
        bar,
        forget_at: row.try_get::<Option<i64>, _>("forget_at")?.map(UnixSeconds),
    })
}
