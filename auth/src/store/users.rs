//! Rows of users and their roles.

use std::collections::BTreeSet;

use durward_contract::UnixSeconds;

use super::statement::{BATCH, Row, places, query};
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
    let inserted = query(
        "INSERT INTO users (id, username, password_hash, epoch, banned, created_at, password_changed_at)
         VALUES ($1, $2, $3, 0, FALSE, $4, $4) ON CONFLICT (username) DO NOTHING",
    )
    .bind(&user.id)
    .bind(&user.username)
    .bind(&hash.0)
    .bind(user.created_at.0)
    .execute(connection)
    .await?;
    if inserted == 0 {
        return Ok(false);
    }
    for role in &user.roles {
        add_role(connection, &user.id, role).await?;
    }
    Ok(true)
}

/// The user of this id.
pub(crate) async fn by_id(connection: &mut Connection, id: &str) -> Result<Option<User>, StoreError> {
    find(connection, "id", id, "").await
}

/// The user of this canonical name.
pub(crate) async fn by_username(
    connection: &mut Connection,
    username: &str,
) -> Result<Option<User>, StoreError> {
    find(connection, "username", username, "").await
}

/// The user of this id, locked until the transaction ends. To be called before anything of the user
/// is read that the transaction decides by.
pub(crate) async fn lock(connection: &mut Connection, id: &str) -> Result<Option<User>, StoreError> {
    let lock = connection.dialect().for_update();
    find(connection, "id", id, lock).await
}

/// The same by the canonical name.
pub(crate) async fn lock_by_username(
    connection: &mut Connection,
    username: &str,
) -> Result<Option<User>, StoreError> {
    let lock = connection.dialect().for_update();
    find(connection, "username", username, lock).await
}

/// Locks these users until the transaction ends, in the order of their ids.
pub(crate) async fn lock_several(
    connection: &mut Connection,
    ids: &BTreeSet<String>,
) -> Result<(), StoreError> {
    let lock = connection.dialect().for_update();
    // SQLite has locked everything already.
    if lock.is_empty() {
        return Ok(());
    }
    let ids: Vec<&String> = ids.iter().collect();
    for batch in ids.chunks(BATCH) {
        query(sqlx::AssertSqlSafe(format!(
            "SELECT id FROM users WHERE id IN ({}) ORDER BY id{lock}",
            places(1, batch.len())
        )))
        .bind_all(batch.iter().copied())
        .fetch_all(connection)
        .await?;
    }
    Ok(())
}

/// Locks all users until the transaction ends, those too that nobody has heard of yet.
pub(crate) async fn lock_all(connection: &mut Connection) -> Result<(), StoreError> {
    if let Some(statement) = connection.dialect().lock_all_users() {
        query(statement).execute(connection).await?;
    }
    Ok(())
}

async fn find(
    connection: &mut Connection,
    column: &'static str,
    value: &str,
    lock: &'static str,
) -> Result<Option<User>, StoreError> {
    let row = query(sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM users WHERE {column} = $1{lock}"
    )))
    .bind(value)
    .fetch_optional(connection)
    .await?;
    with_roles(connection, row).await
}

/// Id and password hash of the user of this canonical name.
pub(crate) async fn password_of(
    connection: &mut Connection,
    username: &str,
) -> Result<Option<(String, PasswordHash)>, StoreError> {
    let row = query("SELECT id, password_hash FROM users WHERE username = $1")
        .bind(username)
        .fetch_optional(connection)
        .await?;
    row.map(|row| Ok((row.get("id")?, PasswordHash(row.get("password_hash")?))))
        .transpose()
}

/// The password hash of the user of this id.
pub(crate) async fn password_by_id(
    connection: &mut Connection,
    id: &str,
) -> Result<Option<PasswordHash>, StoreError> {
    let hash: Option<String> = query("SELECT password_hash FROM users WHERE id = $1")
        .bind(id)
        .scalar_optional(connection)
        .await?;
    Ok(hash.map(PasswordHash))
}

/// Replaces the hash of the same password by a better one.
pub(crate) async fn rehash(
    connection: &mut Connection,
    id: &str,
    hash: &PasswordHash,
) -> Result<(), StoreError> {
    query("UPDATE users SET password_hash = $2 WHERE id = $1")
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
    query("UPDATE users SET password_hash = $2, password_changed_at = $3 WHERE id = $1")
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
    let rows = query(sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM users WHERE username > $1 ORDER BY username LIMIT $2"
    )))
    .bind(after)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    let mut users = Vec::with_capacity(rows.len());
    for row in rows {
        users.extend(with_roles(connection, Some(row)).await?);
    }
    Ok(users)
}

/// Whether there is any user at all.
pub(crate) async fn any(connection: &mut Connection) -> Result<bool, StoreError> {
    query("SELECT EXISTS (SELECT 1 FROM users)")
        .scalar(connection)
        .await
}

/// Raises the epoch and returns the new one.
pub(crate) async fn raise_epoch(connection: &mut Connection, id: &str) -> Result<u32, StoreError> {
    let epoch: i64 = query("UPDATE users SET epoch = epoch + 1 WHERE id = $1 RETURNING epoch")
        .bind(id)
        .scalar(connection)
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
    query(
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
    query("UPDATE users SET banned = FALSE, banned_at = NULL, ban_reason = NULL WHERE id = $1")
        .bind(id)
        .execute(connection)
        .await?;
    Ok(())
}

/// Gives a role.
pub(crate) async fn add_role(connection: &mut Connection, id: &str, role: &str) -> Result<(), StoreError> {
    query("INSERT INTO user_roles (user_id, role) VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind(id)
        .bind(role)
        .execute(connection)
        .await?;
    Ok(())
}

/// Takes a role away.
pub(crate) async fn remove_role(connection: &mut Connection, id: &str, role: &str) -> Result<(), StoreError> {
    query("DELETE FROM user_roles WHERE user_id = $1 AND role = $2")
        .bind(id)
        .bind(role)
        .execute(connection)
        .await?;
    Ok(())
}

async fn with_roles(connection: &mut Connection, row: Option<Row>) -> Result<Option<User>, StoreError> {
    let Some(row) = row else { return Ok(None) };
    let id: String = row.get("id")?;
    let roles = query("SELECT role FROM user_roles WHERE user_id = $1")
        .bind(&id)
        .fetch_all(connection)
        .await?;
    let epoch: i64 = row.get("epoch")?;
    Ok(Some(User {
        id,
        username: row.get("username")?,
        epoch: u32::try_from(epoch).map_err(|_| StoreError::Corrupt("epoch"))?,
        banned: row.get("banned")?,
        banned_at: row.get::<Option<i64>>("banned_at")?.map(UnixSeconds),
        ban_reason: row.get("ban_reason")?,
        created_at: UnixSeconds(row.get("created_at")?),
        roles: roles.iter().map(|row| row.at(0)).collect::<Result<_, _>>()?,
    }))
}
