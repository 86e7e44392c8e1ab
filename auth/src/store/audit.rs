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
