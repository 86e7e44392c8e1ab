//! The revocation log's rows. Grants have their numbers from the same head, and are read with them.

use durward_contract::{Bar, News, RevocationEntry, Sequence, Target, UnixSeconds, wire};

use super::api_keys::{self, NewKey};
use super::statement::{BATCH, Row, places, query};
use super::{Connection, StoreError, Write};

/// Columns of an entry.
const COLUMNS: usize = 8;

/// News that has no number yet.
#[derive(Clone, Debug)]
pub(crate) enum Pending {
    Revocation(PendingEntry),
    Grant(NewKey),
}

/// An entry that has no number yet.
#[derive(Clone, Debug)]
pub(crate) struct PendingEntry {
    pub issuer: String,
    pub target: Target,
    pub bar: Bar,
    pub forget_at: Option<UnixSeconds>,
    pub created_at: UnixSeconds,
}

/// Where the log ends, and which log that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// Made with the database: another log has another one, whatever its numbers.
    pub log_id: String,
    pub sequence: Sequence,
}

/// Appends an entry. It gets its number when the transaction is about to commit.
pub(crate) fn append(write: &mut Write, entry: PendingEntry) {
    write.pending.push(Pending::Revocation(entry));
}

/// Writes news down. Updating the head row takes their numbers and keeps it locked until the
/// transaction ends, so numbers are given in the order of commits and none is ever skipped.
pub(super) async fn write(
    connection: &mut Connection,
    entries: Vec<Pending>,
) -> Result<Vec<News>, StoreError> {
    if entries.is_empty() {
        return Ok(Vec::new());
    }
    if let Some(statement) = connection.dialect().commit_without_time_limit() {
        query(statement).execute(connection).await?;
    }
    let taken = i64::try_from(entries.len()).map_err(|_| StoreError::Corrupt("number of entries"))?;
    let head: i64 =
        query("UPDATE revocation_head SET sequence = sequence + $1 WHERE id = 1 RETURNING sequence")
            .bind(taken)
            .scalar(connection)
            .await?;
    let mut news = Vec::with_capacity(entries.len());
    let mut batch = Vec::new();
    for (sequence, entry) in (head - taken + 1..).zip(entries) {
        news.push(match entry {
            Pending::Revocation(entry) => {
                let numbered = News::Revocation(RevocationEntry {
                    sequence: number(sequence)?,
                    issuer: entry.issuer.clone(),
                    target: entry.target.clone(),
                    bar: entry.bar,
                    forget_at: entry.forget_at,
                });
                batch.push((sequence, entry));
                if batch.len() == BATCH {
                    insert(connection, &mut batch).await?;
                }
                numbered
            }
            Pending::Grant(key) => {
                api_keys::write(connection, sequence, &key).await?;
                News::Grant(key.grant(number(sequence)?))
            }
        });
    }
    insert(connection, &mut batch).await?;
    Ok(news)
}

/// Writes the entries down, at most [`BATCH`], and leaves none.
async fn insert(
    connection: &mut Connection,
    entries: &mut Vec<(i64, PendingEntry)>,
) -> Result<(), StoreError> {
    if entries.is_empty() {
        return Ok(());
    }
    let rows: Vec<String> = (0..entries.len())
        .map(|row| format!("({})", places(1 + row * COLUMNS, COLUMNS)))
        .collect();
    let mut statement = query(sqlx::AssertSqlSafe(format!(
        "INSERT INTO revocations (sequence, issuer, target_kind, target_id, bar_kind, bar_value, forget_at,
         created_at) VALUES {}",
        rows.join(", ")
    )));
    for (sequence, entry) in entries.drain(..) {
        let (target_kind, target_id) = wire::target_words(&entry.target);
        let (bar_kind, bar_value) = wire::bar_words(entry.bar);
        statement = statement
            .bind(sequence)
            .bind(entry.issuer)
            .bind(target_kind)
            .bind(target_id)
            .bind(bar_kind)
            .bind(bar_value)
            .bind(entry.forget_at.map(|instant| instant.0))
            .bind(entry.created_at.0);
    }
    statement.execute(connection).await?;
    Ok(())
}

/// The log's head.
pub(crate) async fn head(connection: &mut Connection) -> Result<Head, StoreError> {
    let row = query("SELECT log_id, sequence FROM revocation_head WHERE id = 1")
        .fetch_one(connection)
        .await?;
    Ok(Head {
        log_id: row.get("log_id")?,
        sequence: number(row.get("sequence")?)?,
    })
}

/// The next news after `sequence`, in order, at most `limit`. A grant that was taken back is left out:
/// what took it back is in the log after it.
pub(crate) async fn after(
    connection: &mut Connection,
    sequence: Sequence,
    limit: u32,
) -> Result<Vec<News>, StoreError> {
    let rows = query(
        "SELECT sequence, issuer, target_kind, target_id, bar_kind, bar_value, forget_at FROM revocations
         WHERE sequence > $1 ORDER BY sequence LIMIT $2",
    )
    .bind(i64::try_from(sequence.0).unwrap_or(i64::MAX))
    .bind(i64::from(limit))
    .fetch_all(connection)
    .await?;
    let grants = api_keys::grants_after(connection, sequence, limit, None).await?;
    merged(rows, grants, limit)
}

/// The next news after `sequence` that still matters, in order, at most `limit`: without revocations
/// that may be forgotten by `until`, and grants that have expired by `now`.
pub(crate) async fn standing(
    connection: &mut Connection,
    sequence: Sequence,
    limit: u32,
    until: UnixSeconds,
    now: UnixSeconds,
) -> Result<Vec<News>, StoreError> {
    let rows = query(
        "SELECT sequence, issuer, target_kind, target_id, bar_kind, bar_value, forget_at FROM revocations
         WHERE sequence > $1 AND (forget_at IS NULL OR forget_at > $3) ORDER BY sequence LIMIT $2",
    )
    .bind(i64::try_from(sequence.0).unwrap_or(i64::MAX))
    .bind(i64::from(limit))
    .bind(until.0)
    .fetch_all(connection)
    .await?;
    let grants = api_keys::grants_after(connection, sequence, limit, Some(now)).await?;
    merged(rows, grants, limit)
}

/// What one token can be revoked by, but for the key that signed it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Concerned<'a> {
    pub issuer: &'a str,
    pub token: &'a str,
    pub session: &'a str,
    pub user: &'a str,
    pub client: &'a str,
}

/// Each alternative is looked up in `revocations_by_target`.
const CONCERNING: &str =
    "SELECT sequence, issuer, target_kind, target_id, bar_kind, bar_value, forget_at FROM revocations
     WHERE issuer = $1 AND ((target_kind = 'token' AND target_id = $2)
     OR (target_kind = 'session' AND target_id = $3) OR (target_kind = 'user' AND target_id = $4)
     OR (target_kind = 'client' AND target_id = $5) OR target_kind IN ('signing_key', 'everyone'))";

/// Every entry that may concern a token. All of those against keys and everyone are among them: there
/// are few.
pub(crate) async fn concerning(
    connection: &mut Connection,
    concerned: Concerned<'_>,
) -> Result<Vec<RevocationEntry>, StoreError> {
    let rows = query(CONCERNING)
        .bind(concerned.issuer)
        .bind(concerned.token)
        .bind(concerned.session)
        .bind(concerned.user)
        .bind(concerned.client)
        .fetch_all(connection)
        .await?;
    let news = rows.into_iter().map(entry).collect::<Result<Vec<_>, _>>()?;
    let revocation = |news| match news {
        News::Revocation(entry) => Some(entry),
        News::Grant(_) => None,
    };
    Ok(news.into_iter().filter_map(revocation).collect())
}

/// Whether a signing key is revoked.
pub(crate) async fn signing_key_is_revoked(
    connection: &mut Connection,
    kid: &str,
) -> Result<bool, StoreError> {
    let target = Target::SigningKey(kid.to_owned());
    let (kind, id) = wire::target_words(&target);
    query(
        "SELECT EXISTS (SELECT 1 FROM revocations
         WHERE forget_at IS NULL AND target_kind = $1 AND target_id = $2)",
    )
    .bind(kind)
    .bind(id)
    .scalar(connection)
    .await
}

/// The first `limit` of both, each of which is a list of the first `limit` of its kind.
fn merged(rows: Vec<Row>, grants: Vec<News>, limit: u32) -> Result<Vec<News>, StoreError> {
    let mut news = rows.into_iter().map(entry).collect::<Result<Vec<_>, _>>()?;
    if !grants.is_empty() {
        news.extend(grants);
        news.sort_by_key(News::sequence);
        news.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    }
    Ok(news)
}

fn entry(row: Row) -> Result<News, StoreError> {
    let kind: String = row.get("target_kind")?;
    let target =
        wire::target(&kind, row.get("target_id")?).map_err(|_| StoreError::Corrupt("revocation target"))?;
    let value: Option<i64> = row.get("bar_value")?;
    let bar = match (row.get::<String>("bar_kind")?.as_str(), value) {
        ("always", _) => Bar::Always,
        ("epoch_below", Some(epoch)) => {
            Bar::EpochBelow(u32::try_from(epoch).map_err(|_| StoreError::Corrupt("epoch"))?)
        }
        ("issued_at_or_before", Some(instant)) => Bar::IssuedAtOrBefore(UnixSeconds(instant)),
        _ => return Err(StoreError::Corrupt("revocation bar")),
    };
    let sequence: i64 = row.get("sequence")?;
    Ok(News::Revocation(RevocationEntry {
        sequence: number(sequence)?,
        issuer: row.get("issuer")?,
        target,
        bar,
        forget_at: row.get::<Option<i64>>("forget_at")?.map(UnixSeconds),
    }))
}

pub(super) fn number(sequence: i64) -> Result<Sequence, StoreError> {
    u64::try_from(sequence)
        .map(Sequence)
        .map_err(|_| StoreError::Corrupt("sequence"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database_config::DatabaseConfig;
    use crate::random;
    use crate::store::Store;

    #[tokio::test]
    async fn what_concerns_a_token_is_looked_up_and_not_searched_for() {
        let folder = std::env::temp_dir().join(format!("durward-log-{}", random::token_id()));
        let store = Store::open(&DatabaseConfig::Sqlite(folder.join("auth.db")))
            .await
            .unwrap();
        let mut read = store.read().await.unwrap();
        let plan = query(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {CONCERNING}")));
        let plan = (0..5).fold(plan, |plan, _| plan.bind("x"));
        let rows = plan.fetch_all(&mut read).await.unwrap();
        let steps: Vec<String> = rows.iter().map(|row| row.get("detail").unwrap()).collect();
        let by_index = steps.iter().filter(|step| step.contains("revocations_by_target"));
        assert_eq!(by_index.count(), 5, "{steps:?}");
        assert!(!steps.iter().any(|step| step.starts_with("SCAN")), "{steps:?}");
        drop(read);
        store.close().await;
        std::fs::remove_dir_all(folder).unwrap();
    }
}
