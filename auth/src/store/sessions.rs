//! Rows of sessions.

use durward_contract::UnixSeconds;

use super::statement::{Row, query};
use super::{Connection, StoreError};

/// A login and what grew from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Session {
    pub id: String,
    pub user_id: String,
    pub client_id: String,
    pub client_address: String,
    pub user_agent: String,
    pub created_at: UnixSeconds,
    pub last_used_at: UnixSeconds,
    /// Absolute: no refresh moves it.
    pub expires_at: UnixSeconds,
    /// The latest `exp` among its access tokens.
    pub access_expires_at: UnixSeconds,
    /// Its refresh tokens are refused.
    pub revoked: bool,
    /// The revocation log refuses its access tokens.
    pub blacklisted: bool,
}

impl Session {
    /// Whether it can still be refreshed.
    pub fn is_live(&self, now: UnixSeconds) -> bool {
        !self.revoked && now < self.expires_at
    }
}

pub(super) const COLUMNS: &str = "id, user_id, client_id, client_address, user_agent, created_at, last_used_at, expires_at, \
                       access_expires_at, revoked, blacklisted";

/// Inserts a session.
pub(crate) async fn insert(connection: &mut Connection, session: &Session) -> Result<(), StoreError> {
    query(
        "INSERT INTO sessions (id, user_id, client_id, client_address, user_agent, created_at, last_used_at,
         expires_at, access_expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(&session.id)
    .bind(&session.user_id)
    .bind(&session.client_id)
    .bind(&session.client_address)
    .bind(&session.user_agent)
    .bind(session.created_at.0)
    .bind(session.last_used_at.0)
    .bind(session.expires_at.0)
    .bind(session.access_expires_at.0)
    .execute(connection)
    .await?;
    Ok(())
}

/// The session of this id.
pub(crate) async fn by_id(connection: &mut Connection, id: &str) -> Result<Option<Session>, StoreError> {
    query(sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM sessions WHERE id = $1"
    )))
    .bind(id)
    .fetch_optional(connection)
    .await?
    .as_ref()
    .map(session)
    .transpose()
}

/// The newest `limit` sessions of a user, ended ones among them.
pub(crate) async fn of_user(
    connection: &mut Connection,
    user_id: &str,
    limit: u32,
) -> Result<Vec<Session>, StoreError> {
    query(sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM sessions WHERE user_id = $1 ORDER BY created_at DESC, id LIMIT $2"
    )))
    .bind(user_id)
    .bind(limit)
    .fetch_all(connection)
    .await?
    .iter()
    .map(session)
    .collect()
}

/// The live sessions of a user, the one that was used longest ago first.
pub(crate) async fn live_of_user(
    connection: &mut Connection,
    user_id: &str,
    now: UnixSeconds,
) -> Result<Vec<Session>, StoreError> {
    query(sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM sessions WHERE user_id = $1 AND NOT revoked AND expires_at > $2
         ORDER BY last_used_at, created_at, id"
    )))
    .bind(user_id)
    .bind(now.0)
    .fetch_all(connection)
    .await?
    .iter()
    .map(session)
    .collect()
}

/// The latest `exp` among the access tokens of all of a user's sessions.
pub(crate) async fn latest_access_expiry(
    connection: &mut Connection,
    user_id: &str,
) -> Result<Option<UnixSeconds>, StoreError> {
    let latest: Option<i64> = query("SELECT MAX(access_expires_at) FROM sessions WHERE user_id = $1")
        .bind(user_id)
        .scalar(connection)
        .await?;
    Ok(latest.map(UnixSeconds))
}

/// Notes that an access token was issued.
pub(crate) async fn used(
    connection: &mut Connection,
    id: &str,
    now: UnixSeconds,
    access_expires_at: UnixSeconds,
) -> Result<(), StoreError> {
    query(
        "UPDATE sessions SET last_used_at = CASE WHEN last_used_at > $2 THEN last_used_at ELSE $2 END,
         access_expires_at = CASE WHEN access_expires_at > $3 THEN access_expires_at ELSE $3 END WHERE id = $1",
    )
    .bind(id)
    .bind(now.0)
    .bind(access_expires_at.0)
    .execute(connection)
    .await?;
    Ok(())
}

/// Ends a session and its refresh tokens; the log entry for its access tokens is the caller's.
pub(crate) async fn end(
    connection: &mut Connection,
    id: &str,
    why: &str,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    query(
        "UPDATE sessions SET revoked = TRUE, blacklisted = TRUE, revoked_at = $2, revoked_why = $3
         WHERE id = $1 AND NOT revoked",
    )
    .bind(id)
    .bind(now.0)
    .bind(why)
    .execute(connection)
    .await?;
    query("UPDATE refresh_tokens SET state = 'revoked' WHERE session_id = $1 AND state = 'valid'")
        .bind(id)
        .execute(connection)
        .await?;
    Ok(())
}

/// Ends all sessions of a user and returns how many there were.
pub(crate) async fn end_all(
    connection: &mut Connection,
    user_id: &str,
    why: &str,
    now: UnixSeconds,
) -> Result<u64, StoreError> {
    query(
        "UPDATE refresh_tokens SET state = 'revoked' WHERE state = 'valid'
         AND session_id IN (SELECT id FROM sessions WHERE user_id = $1 AND NOT revoked)",
    )
    .bind(user_id)
    .execute(connection)
    .await?;
    query(
        "UPDATE sessions SET revoked = TRUE, blacklisted = TRUE, revoked_at = $2, revoked_why = $3
         WHERE user_id = $1 AND NOT revoked",
    )
    .bind(user_id)
    .bind(now.0)
    .bind(why)
    .execute(connection)
    .await
}

pub(super) fn session(row: &Row) -> Result<Session, StoreError> {
    Ok(Session {
        id: row.get("id")?,
        user_id: row.get("user_id")?,
        client_id: row.get("client_id")?,
        client_address: row.get("client_address")?,
        user_agent: row.get("user_agent")?,
        created_at: UnixSeconds(row.get("created_at")?),
        last_used_at: UnixSeconds(row.get("last_used_at")?),
        expires_at: UnixSeconds(row.get("expires_at")?),
        access_expires_at: UnixSeconds(row.get("access_expires_at")?),
        revoked: row.get("revoked")?,
        blacklisted: row.get("blacklisted")?,
    })
}
