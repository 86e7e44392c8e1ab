//! Rows of the audit trail.

use durward_contract::UnixSeconds;

use super::statement::query;
use super::{Connection, StoreError};

/// Adds a row.
pub(crate) async fn insert(
    connection: &mut Connection,
    at: UnixSeconds,
    actor: &str,
    action: &str,
    target: &str,
    detail: &str,
) -> Result<(), StoreError> {
    query("INSERT INTO audit (at, actor, action, target, detail) VALUES ($1, $2, $3, $4, $5)")
        .bind(at.0)
        .bind(actor)
        .bind(action)
        .bind(target)
        .bind(detail)
        .execute(connection)
        .await?;
    Ok(())
}

/// A row as it is read.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub id: i64,
    pub at: UnixSeconds,
    pub actor: String,
    /// The name of a user who acted, where there is one.
    pub actor_name: Option<String>,
    pub action: String,
    pub target: String,
    pub detail: String,
}

/// The next rows after the one with the id `after`, from `since` on, the oldest first; of one kind of
/// action where one is named.
pub(crate) async fn page(
    connection: &mut Connection,
    since: UnixSeconds,
    action: Option<&str>,
    after: i64,
    limit: u32,
) -> Result<Vec<Entry>, StoreError> {
    let rows = query(
        "SELECT a.id AS id, a.at AS at, a.actor AS actor, u.username AS actor_name, a.action AS action,
         a.target AS target, a.detail AS detail
         FROM audit a LEFT JOIN users u ON u.id = a.actor
         WHERE a.id > $1 AND a.at >= $2 AND ($3 = '' OR a.action = $3) ORDER BY a.id LIMIT $4",
    )
    .bind(after)
    .bind(since.0)
    .bind(action.unwrap_or_default())
    .bind(i64::from(limit))
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Entry {
                id: row.get("id")?,
                at: UnixSeconds(row.get("at")?),
                actor: row.get("actor")?,
                actor_name: row.get("actor_name")?,
                action: row.get("action")?,
                target: row.get("target")?,
                detail: row.get("detail")?,
            })
        })
        .collect()
}
