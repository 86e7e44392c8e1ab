//! Rows of refresh tokens: hashes, never tokens.

use durward_contract::UnixSeconds;

use super::statement::query;
use super::{Connection, StoreError};
use crate::refresh_family::{Rotation, TokenHash, TokenState};

/// A refresh token as it is at rest.
#[derive(Clone, Debug)]
pub(crate) struct StoredToken {
    pub session_id: String,
    pub expires_at: UnixSeconds,
    pub state: TokenState,
    /// Of a consumed token: whether nobody has used its successor yet.
    pub successor_unused: bool,
}

/// Inserts a valid token.
pub(crate) async fn insert(
    connection: &mut Connection,
    hash: &TokenHash,
    session_id: &str,
    parent: Option<&TokenHash>,
    issued_at: UnixSeconds,
    expires_at: UnixSeconds,
) -> Result<(), StoreError> {
    query(
        "INSERT INTO refresh_tokens (hash, session_id, parent, state, issued_at, expires_at)
         VALUES ($1, $2, $3, 'valid', $4, $5)",
    )
    .bind(hash.0.as_slice())
    .bind(session_id)
    .bind(parent.map(|hash| hash.0.as_slice()))
    .bind(issued_at.0)
    .bind(expires_at.0)
    .execute(connection)
    .await?;
    Ok(())
}

/// The session of the token with this hash.
pub(crate) async fn session_of(
    connection: &mut Connection,
    hash: &TokenHash,
) -> Result<Option<String>, StoreError> {
    query("SELECT session_id FROM refresh_tokens WHERE hash = $1")
        .bind(hash.0.as_slice())
        .scalar_optional(connection)
        .await
}

/// The id of the user whom the token with this hash was given to.
pub(crate) async fn user_of(
    connection: &mut Connection,
    hash: &TokenHash,
) -> Result<Option<String>, StoreError> {
    query("SELECT s.user_id FROM refresh_tokens t JOIN sessions s ON s.id = t.session_id WHERE t.hash = $1")
        .bind(hash.0.as_slice())
        .scalar_optional(connection)
        .await
}

/// The token with this hash.
pub(crate) async fn find(
    connection: &mut Connection,
    hash: &TokenHash,
) -> Result<Option<StoredToken>, StoreError> {
    let row = query(
        "SELECT t.session_id, t.expires_at, t.state, t.consumed_at, t.successor, t.nonce, s.state AS successor_state
         FROM refresh_tokens t LEFT JOIN refresh_tokens s ON s.hash = t.successor WHERE t.hash = $1",
    )
    .bind(hash.0.as_slice())
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let state = match row.get::<String>("state")?.as_str() {
        "valid" => TokenState::Valid,
        "revoked" => TokenState::Revoked,
        "consumed" => TokenState::Consumed(Rotation {
            at: UnixSeconds(row.get("consumed_at")?),
            nonce: exactly(&row.get::<Vec<u8>>("nonce")?)?,
            successor: TokenHash(exactly(&row.get::<Vec<u8>>("successor")?)?),
        }),
        _ => return Err(StoreError::Corrupt("refresh token state")),
    };
    Ok(Some(StoredToken {
        session_id: row.get("session_id")?,
        expires_at: UnixSeconds(row.get("expires_at")?),
        state,
        successor_unused: row.get::<Option<String>>("successor_state")?.as_deref() == Some("valid"),
    }))
}

/// Writes down that a valid token was rotated.
pub(crate) async fn consume(
    connection: &mut Connection,
    hash: &TokenHash,
    rotation: &Rotation,
) -> Result<(), StoreError> {
    let consumed = query(
        "UPDATE refresh_tokens SET state = 'consumed', consumed_at = $2, successor = $3, nonce = $4
         WHERE hash = $1 AND state = 'valid'",
    )
    .bind(hash.0.as_slice())
    .bind(rotation.at.0)
    .bind(rotation.successor.0.as_slice())
    .bind(rotation.nonce.as_slice())
    .execute(connection)
    .await?;
    // Read as valid in this very transaction, with the user locked.
    if consumed == 1 {
        Ok(())
    } else {
        Err(StoreError::Corrupt("refresh token state"))
    }
}

fn exactly<const N: usize>(bytes: &[u8]) -> Result<[u8; N], StoreError> {
    bytes
        .try_into()
        .map_err(|_| StoreError::Corrupt("refresh token hash or nonce"))
}
