//! Deleting what no longer matters, in batches that keep other writers waiting only briefly.

use std::time::Duration;

use durward_contract::{RETENTION_SLACK, UnixSeconds};

use super::statement::query;
use super::{Connection, StoreError};

/// Rows of each table that one batch deletes at most.
pub(crate) const BATCH: u32 = 500;
/// How long an ended session's row stays for an operator to look at.
const ENDED_SESSION_RETENTION: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long an ended API key's row stays.
const ENDED_KEY_RETENTION: Duration = AUDIT_RETENTION;
/// How long the audit trail is kept.
const AUDIT_RETENTION: Duration = Duration::from_secs(400 * 24 * 3600);

/// Deletes one batch of each kind; true where more is left. Several processes may do it at once:
/// what another one has locked is left to it.
pub(crate) async fn batch(connection: &mut Connection, now: UnixSeconds) -> Result<bool, StoreError> {
    let free = connection.dialect().for_update_skip_locked();
    let mut more = false;
    let slack = now.minus(RETENTION_SLACK);
    let entries = query(sqlx::AssertSqlSafe(format!(
        "DELETE FROM revocations WHERE sequence IN
         (SELECT sequence FROM revocations WHERE forget_at <= $1 ORDER BY forget_at LIMIT $2{free})",
    )));
    more |= full(entries.bind(now.0).bind(BATCH).execute(connection).await?);
    let tokens = query(sqlx::AssertSqlSafe(format!(
        "DELETE FROM refresh_tokens WHERE hash IN
         (SELECT hash FROM refresh_tokens WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2{free})",
    )));
    more |= full(tokens.bind(slack.0).bind(BATCH).execute(connection).await?);
    // A session's row outlives its tokens: `access_expires_at` says how long entries must stay.
    let sessions = query(sqlx::AssertSqlSafe(format!(
        "DELETE FROM sessions WHERE id IN (SELECT id FROM sessions s
         WHERE (s.expires_at <= $1 OR (s.revoked AND s.revoked_at <= $2)) AND s.access_expires_at <= $1
         AND NOT EXISTS (SELECT 1 FROM refresh_tokens t WHERE t.session_id = s.id) LIMIT $3{free})",
    )));
    let ended = now.minus(ENDED_SESSION_RETENTION);
    let sessions = sessions.bind(slack.0).bind(ended.0).bind(BATCH);
    more |= full(sessions.execute(connection).await?);
    // What took a key back stays in the log for as long as the key would have been valid.
    let keys = query(sqlx::AssertSqlSafe(format!(
        "DELETE FROM api_keys WHERE id IN
         (SELECT id FROM api_keys WHERE revoked_at <= $1 OR expires_at <= $1 LIMIT $2{free})",
    )));
    let keys = keys.bind(now.minus(ENDED_KEY_RETENTION).0).bind(BATCH);
    more |= full(keys.execute(connection).await?);
    let audit = query(sqlx::AssertSqlSafe(format!(
        "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at <= $1 ORDER BY at LIMIT $2{free})",
    )));
    let audit = audit.bind(now.minus(AUDIT_RETENTION).0).bind(BATCH);
    more |= full(audit.execute(connection).await?);
    Ok(more)
}

fn full(deleted: u64) -> bool {
    deleted >= u64::from(BATCH)
}
