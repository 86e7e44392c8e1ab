//! Who did what to whom, when and why.

use durward_contract::UnixSeconds;
use serde_json::Value;

use crate::bearer::ActsBy;
use crate::store::{StoreError, Write, audit};

/// Who acts.
#[derive(Clone, Debug)]
pub(crate) enum Actor {
    /// A user, by id, who showed an access token: judged again in the transaction that acts
    /// (`bearer.rs`).
    Caller(String, ActsBy),
    /// A user, by id, who showed what the transaction itself judges.
    User(String),
    /// Whoever may open the control socket.
    LocalOperator,
    /// The service itself.
    Service,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    UserAdded,
    UserRegistered,
    Banned,
    Unbanned,
    RolesChanged,
    PasswordChanged,
    SessionEnded,
    AllSessionsEnded,
    RefreshTokenReused,
    ApiKeyMade,
    ApiKeyRevoked,
    SessionsRevoked,
    EveryoneRevoked,
    TokenRevoked,
    SigningKeyAnnounced,
    SigningKeyRevoked,
    SigningKeyRotated,
}

impl Actor {
    /// What users do to their own sessions is not written down here: the sessions' rows tell it.
    pub fn is_another_than(&self, user_id: &str) -> bool {
        !matches!(self, Self::User(id) | Self::Caller(id, _) if id == user_id)
    }

    pub fn name(&self) -> &str {
        match self {
            Self::User(id) | Self::Caller(id, _) => id,
            Self::LocalOperator => "local operator",
            Self::Service => "service",
        }
    }
}

impl Action {
    const fn name(self) -> &'static str {
        match self {
            Self::UserAdded => "user_added",
            Self::UserRegistered => "user_registered",
            Self::Banned => "banned",
            Self::Unbanned => "unbanned",
            Self::RolesChanged => "roles_changed",
            Self::PasswordChanged => "password_changed",
            Self::SessionEnded => "session_ended",
            Self::AllSessionsEnded => "all_sessions_ended",
            Self::RefreshTokenReused => "refresh_token_reused",
            Self::ApiKeyMade => "api_key_made",
            Self::ApiKeyRevoked => "api_key_revoked",
            Self::SessionsRevoked => "sessions_revoked",
            Self::EveryoneRevoked => "everyone_revoked",
            Self::TokenRevoked => "token_revoked",
            Self::SigningKeyAnnounced => "signing_key_announced",
            Self::SigningKeyRevoked => "signing_key_revoked",
            Self::SigningKeyRotated => "signing_key_rotated",
        }
    }
}

/// Writes down a revocation, or what concerns a signing key: `target` is a run, a token or a key, and
/// `detail` is JSON.
pub(crate) async fn record_revocation(
    write: &mut Write,
    now: UnixSeconds,
    actor: &Actor,
    action: Action,
    target: &str,
    detail: &Value,
) -> Result<(), StoreError> {
    let detail = detail.to_string();
    let (actor, action) = (actor.name(), action.name());
    tracing::info!(actor, action, on = target, detail, "audit");
    audit::insert(write.connection(), now, actor, action, target, &detail).await
}

/// Writes it down in the transaction that does it, and in the log. `target` is a user's id, or an
/// API key's.
pub(crate) async fn record(
    write: &mut Write,
    now: UnixSeconds,
    actor: &Actor,
    action: Action,
    target: &str,
    detail: &str,
) -> Result<(), StoreError> {
    tracing::info!(
        actor = actor.name(),
        action = action.name(),
        subject = target,
        detail,
        "audit"
    );
    audit::insert(
        write.connection(),
        now,
        actor.name(),
        action.name(),
        target,
        detail,
    )
    .await
}
