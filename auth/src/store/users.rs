//! Rows of users and their roles.

use std::collections::BTreeSet;

use durward_contract::UnixSeconds;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Connection, StoreError};

/// An account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub id: String,
    pub username: String,
    pub epoch: u32,
    pub banned: bool,
    pub banned_at: Option<UnixSeconds>,
    pub ban_reason: Option<String>,
    pub created_at: UnixSeconds,
    pub roles: BTreeSet<String>,
}

/// A PHC string.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct PasswordHash(pub String);

impl std::fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

const COLUMNS: &str = "id, username, epoch, banned, banned_at, ban_reason, created_at";

/// Inserts a user with roles; `false` where the name is taken.
pub(crate) async fn insert(
    connection: &mut Connection,
    user: &User,
    hash: &PasswordHash,
) -> Result<bool, StoreError> {
    let inserted = sqlx::query(
        "INSERT INTO users (id, username, password_hash, epoch, banned, created_at, password_changed_at)
         VALUES ($1, $2, $3, 0, FALSE, $4, $4) ON CONFLICT (username) DO NOTHING",
    )
    .bind(&user.id)
    .bind(&user.username)
    .bind(&hash.0)
    .bind(user.created_at.0)
    .execute(&mut *connection)
    .await?;
    if inserted.rows_affected() == 0 {
        return Ok(false);
    }
    for role in &user.roles {
        add_role(connection, &user.id, role).await?;
    }
    Ok(true)
}

/// The user of this id.
pub(crate) async fn by_id(connection: &mut Connection, id: &str) -> Result<Option<User>, StoreError> {
    let row = sqlx::query(sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM users WHERE id = $1"
    )))
    .bind(id)
    .fetch_optional(&mut *connection)
    .await?;
    with_roles(connection, row).await
}

/// The user of this canonical name.
pub(crate) async fn by_username(
    connection: &mut Connection,
    username: &str,
) -> Result<Option<User>, StoreError> {
    let row = sqlx::query(sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM users WHERE username = $1"
    )))
    .bind(username)
    .fetch_optional(&mut *connection)
    .await?;
    with_roles(connection, row).await
}

/// Id and password hash of the user of this canonical name.
pub(crate) async fn password_of(
    connection: &mut Connection,
    username: &str,
) -> Result<Option<(String, PasswordHash)>, StoreError> {
    let row: Option<(String, String)> =
        sqlx::query_as("SELECT id, password_hash FROM users WHERE username = $1")
            .bind(username)
            .fetch_optional(connection)
            .await?;
    Ok(row.map(|(id, hash)| (id, PasswordHash(hash))))
}

/// The password hash of the user of this id.
pub(crate) async fn password_by_id(
    connection: &mut Connection,
    id: &str,
) -> Result<Option<PasswordHash>, StoreError> {
    let hash: Option<String> = sqlx::query_scalar("SELECT password_hash FROM users WHERE id = $1")
        .bind(id)
        .fetch_optional(connection)
        .await?;
    Ok(hash.map(PasswordHash))
}

/// Replaces the hash of the same password by a better one.
pub(crate) async fn rehash(
    connection: &mut Connection,
    id: &str,
    hash: &PasswordHash,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE users SET password_hash = $2 WHERE id = $1")
        .bind(id)
        .bind(&hash.0)
        .execute(connection)
        .await?;
    Ok(())
}

/// Sets a new password's hash.
pub(crate) async fn set_password(
    connection: &mut Connection,
    id: &str,
    hash: &PasswordHash,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE users SET password_hash = $2, password_changed_at = $3 WHERE id = $1")
        .bind(id)
        .bind(&hash.0)
        .bind(now.0)
        .execute(connection)
        .await?;
    Ok(())
}

/// Up to `limit` users in the order of their names, from the first after `after`.
pub(crate) async fn page(
    connection: &mut Connection,
    after: &str,
    limit: u32,
) -> Result<Vec<User>, StoreError> {
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM users WHERE username > $1 ORDER BY username LIMIT $2"
    )))
    .bind(after)
    .bind(limit)
    .fetch_all(&mut *connection)
    .await?;
    let mut users = Vec::with_capacity(rows.len());
    for row in rows {
        users.extend(with_roles(connection, Some(row)).await?);
    }
    Ok(users)
}

/// Whether there is any user at all.
pub(crate) async fn any(connection: &mut Connection) -> Result<bool, StoreError> {
    Ok(sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM users)")
        .fetch_one(connection)
        .await?)
}

/// Raises the epoch and returns the new one.
pub(crate) async fn raise_epoch(connection: &mut Connection, id: &str) -> Result<u32, StoreError> {
    let epoch: i64 = sqlx::query_scalar("UPDATE users SET epoch = epoch + 1 WHERE id = $1 RETURNING epoch")
        .bind(id)
        .fetch_one(connection)
        .await?;
    u32::try_from(epoch).map_err(|_| StoreError::Corrupt("epoch"))
}

/// Marks a user as banned; the instant of the first ban stays.
pub(crate) async fn ban(
    connection: &mut Connection,
    id: &str,
    reason: Option<&str>,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE users SET banned_at = CASE WHEN banned THEN banned_at ELSE $3 END,
         ban_reason = COALESCE($2, CASE WHEN banned THEN ban_reason END), banned = TRUE WHERE id = $1",
    )
    .bind(id)
    .bind(reason)
    .bind(now.0)
    .execute(connection)
    .await?;
    Ok(())
}

/// Lifts a ban. The epoch stays where it is.
pub(crate) async fn unban(connection: &mut Connection, id: &str) -> Result<(), StoreError> {
    sqlx::query("UPDATE users SET banned = FALSE, banned_at = NULL, ban_reason = NULL WHERE id = $1")
        .bind(id)
        .execute(connection)
        .await?;
    Ok(())
}

/// Gives a role.
pub(crate) async fn add_role(connection: &mut Connection, id: &str, role: &str) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO user_roles (user_id, role) VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind(id)
        .bind(role)
        .execute(connection)
        .await?;
    Ok(())
}

/// Takes a role away.
pub(crate) async fn remove_role(connection: &mut Connection, id: &str, role: &str) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM user_roles WHERE user_id = $1 AND role = $2")
        .bind(id)
        .bind(role)
        .execute(connection)
        .await?;
    Ok(())
}

async fn with_roles(connection: &mut Connection, row: Option<SqliteRow>) -> Result<Option<User>, StoreError> {
    let Some(row) = row else { return Ok(None) };
    let id: String = row.try_get("id")?;
    let roles: Vec<String> = sqlx::query_scalar("SELECT role FROM user_roles WHERE user_id = $1")
        .bind(&id)
        .fetch_all(connection)
        .await?;
    let epoch: i64 = row.try_get("epoch")?;
    Ok(Some(User {
        id,
        username: row.try_get("username")?,
        epoch: u32::try_from(epoch).map_err(|_| StoreError::Corrupt("epoch"))?,
        banned: row.try_get("banned")?,
        banned_at: row.try_get::<Option<i64>, _>("banned_at")?.map(UnixSeconds),
        ban_reason: row.try_get("ban_reason")?,
        created_at: UnixSeconds(row.try_get("created_at")?),
        roles: roles.into_iter().collect(),
    }))
}
